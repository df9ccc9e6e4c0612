//! API keys in a Redis that gateways share: made, revoked, and what becomes of them while it is frozen or gone. Failures 1, 11 and 30.

use std::time::Duration;

use pylon_testkit::binary::Binary;
use pylon_testkit::command::pylon;
use pylon_testkit::redis::Redis;
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{ms, now, until};

/// How long something may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(20);

fn document(service: &Upstream, redis: &Redis, more: &str) -> String {
    format!(
        "workers: 2\nstores: {{ keys: redis, redis: \"{}\"{more} }}\nconsumers: {{ shop-app: {{ groups: partners }} }}\n\
         upstreams: {{ api: {{ endpoints: [\"{}\"] }} }}\n\
         routes:\n  - {{ match: \"/{{*rest}}\", forward: api, api_key: x-api-key }}\n  - {{ match: /open, respond: 204 }}\n",
        redis.url(),
        service.url()
    )
}

/// Runs `pylon keys` by the document of a gateway; what it prints.
fn keys(gate: &Binary, arguments: &[&str]) -> (String, String) {
    let outcome = pylon(gate.folder(), [&["keys"], arguments, &["--document", "pylon.yaml"]].concat());
    assert_eq!(outcome.code, Some(0), "{arguments:?}: {}", outcome.stderr);
    (outcome.stdout.trim().to_owned(), outcome.stderr)
}

/// Makes a key: its id, and the key itself.
fn create(gate: &Binary) -> (String, String) {
    let (key, told) = keys(gate, &["create", "shop-app"]);
    (told.split_whitespace().next().unwrap().to_owned(), key)
}

fn status(gate: &Binary, key: &str) -> u16 {
    gate.ask("GET", "/x", &[("x-api-key", key)], b"").status()
}

#[test]
fn a_key_holds_at_all_gateways_once_it_is_made_and_at_none_once_it_is_revoked() {
    let (service, redis) = (Upstream::named("x"), Redis::start());
    let gates = [(); 2].map(|()| Binary::start(&document(&service, &redis, "")));
    assert!(gates.iter().all(|gate| status(gate, "pk_other") == 401 && gate.get("/x").status() == 401));
    let (id, key) = create(&gates[0]);
    until(PATIENCE, "the key holds everywhere", || gates.iter().all(|gate| (0..4).all(|_| status(gate, &key) == 200)));
    let (second, other) = create(&gates[1]);
    let (listed, _) = keys(&gates[0], &["list"]);
    assert!(listed.contains(&id) && listed.contains(&second), "{listed}");
    let (rotated, _) = keys(&gates[0], &["rotate", &second, "--keep", "0s"]);
    keys(&gates[1], &["revoke", &id]);
    let revoked = now();
    until(PATIENCE, "the key is out everywhere", || gates.iter().all(|gate| (0..4).all(|_| status(gate, &key) == 401)));
    assert!(revoked.elapsed() < ms(4000), "{:?}", revoked.elapsed());
    until(PATIENCE, "so is the one that was replaced", || gates.iter().all(|gate| status(gate, &other) == 401));
    assert!(gates.iter().all(|gate| status(gate, &rotated) == 200));
    let kept = redis.say("HGETALL pylon:keys");
    assert!(kept.contains("sha256:") && !kept.contains(&rotated) && !kept.contains(&other));
    assert!(gates.iter().all(|gate| !gate.stdout().contains(&rotated) && !gate.stderr().contains(&rotated)));
}

#[test]
fn while_redis_is_frozen_keys_at_hand_hold_nobody_else_passes_and_nobody_waits() {
    let (service, redis) = (Upstream::named("x"), Redis::start());
    let gate = Binary::start(&document(&service, &redis, ""));
    let (_, key) = create(&gate);
    until(PATIENCE, "the key holds", || status(&gate, &key) == 200);
    redis.freeze();
    let mut slowest = Duration::ZERO;
    let mut ask = |key: &str| {
        let begun = now();
        let answer = gate.ask("GET", "/x", &[("x-api-key", key)], b"");
        slowest = slowest.max(begun.elapsed());
        answer.status()
    };
    for _ in 0..50 {
        assert_eq!(ask(&key), 200);
        assert!(matches!(ask("pk_other"), 401 | 503));
    }
    until(PATIENCE, "nobody knows of other keys any more", || ask("pk_other") == 503);
    let answer = gate.ask("GET", "/x", &[("x-api-key", "pk_other")], b"");
    assert_eq!(answer.json()["code"], "caller.unknown");
    assert_eq!((gate.get("/x").status(), gate.get("/open").status()), (401, 204));
    assert!(slowest < ms(2000), "{slowest:?}");
    for supply in gate.admin("/api/supplies").json().as_array().unwrap() {
        assert!(supply["up"] == false && supply["error"].is_string(), "{supply}");
    }
    redis.thaw();
    let thawed = now();
    until(PATIENCE, "it is asked again", || status(&gate, "pk_other") == 401);
    assert!(thawed.elapsed() < ms(8000), "{:?}", thawed.elapsed());
    assert_eq!(status(&gate, &key), 200);
}

#[test]
fn keys_at_hand_hold_no_longer_than_is_written_once_redis_is_gone_and_all_is_well_when_it_is_back() {
    let (service, mut redis) = (Upstream::named("x"), Redis::start());
    let gate = Binary::start(&document(&service, &redis, ", keys_valid_for: 3s"));
    let (_, key) = create(&gate);
    until(PATIENCE, "the key holds on all workers", || (0..8).all(|_| status(&gate, &key) == 200));
    redis.kill();
    assert_eq!(status(&gate, &key), 200);
    until(PATIENCE, "its time is over", || (0..8).all(|_| status(&gate, &key) == 503));
    assert_eq!(gate.get("/open").status(), 204);
    redis.revive();
    until(PATIENCE, "the key holds again", || (0..8).all(|_| status(&gate, &key) == 200));
    assert_eq!(status(&gate, "pk_other"), 401);
}

#[test]
fn without_redis_a_gateway_starts_serves_all_else_and_lets_nobody_in() {
    let (service, mut redis) = (Upstream::named("x"), Redis::start());
    redis.kill();
    let gate = Binary::start(&document(&service, &redis, ""));
    assert_eq!((gate.get("/open").status(), gate.get("/x").status(), status(&gate, "pk_x")), (204, 401, 503));
    assert_eq!(service.requests(), 0);
    redis.revive();
    until(PATIENCE, "keys can be told from others", || status(&gate, "pk_x") == 401);
    let (_, key) = create(&gate);
    until(PATIENCE, "the key holds", || status(&gate, &key) == 200);
}

#[test]
fn a_password_is_a_reference_and_stands_nowhere() {
    let (service, redis) = (Upstream::named("x"), Redis::start_with(&["--requirepass", "hunter2"]));
    let document = document(&service, &redis, "").replace(
        &format!("redis: \"{}\"", redis.url()),
        &format!("redis: {{ url: \"{}\", password: file:password, prefix: shop }}", redis.url()),
    );
    let gate =
        Binary::start_with(&document, &[], |folder| std::fs::write(folder.join("password"), "hunter2\n").unwrap());
    let (_, key) = create(&gate);
    until(PATIENCE, "the key holds", || status(&gate, &key) == 200);
    assert!(!gate.stderr().contains("hunter2") && !gate.admin("/api/config").text().contains("hunter2"));
}
