//! API keys by the real program: who has one is known to services and log, who has none is turned away. Failures 1, 7 and 8.

use pylon_testkit::binary::Binary;
use pylon_testkit::upstream::Upstream;

/// `printf key-of-shop | sha256sum`.
const HASH: &str = "sha256:625ec9a8bfc54cc62de07d58b187d9e967e1fbcaa61cf9acd03ce7995c261a8d";

fn document(service: &Upstream, keys: &str, more: &str) -> String {
    format!(
        "workers: 2\nconsumers: {{ shop-app: {{ groups: partners, plan: gold, keys: [{keys}] }} }}\n\
         upstreams: {{ api: {{ endpoints: [\"{}\"] }} }}\n\
         routes:\n  - match: \"/{{*rest}}\"\n    forward: api\n    api_key: {{ header: x-api-key, query: key, headers: {{ x-consumer: consumer }} }}\n{more}",
        service.url()
    )
}

#[test]
fn a_key_is_known_on_every_worker_and_stays_within_the_gateway() {
    let service = Upstream::named("x");
    let gate = Binary::start(&document(&service, &format!("\"{HASH}\""), ""));
    for number in 0..8 {
        let by_header = gate.ask("GET", &format!("/h{number}"), &[("x-api-key", "key-of-shop")], b"");
        let by_query = gate.ask("GET", &format!("/q{number}?a=1&key=key-of-shop&b=2"), &[], b"");
        assert_eq!((by_header.status(), by_query.status()), (200, 200));
    }
    for request in service.seen() {
        assert_eq!(request.field("x-consumer").as_deref(), Some("shop-app"));
        assert!(request.field("x-api-key").is_none() && !request.target().contains("key"), "{}", request.target());
        assert!(request.target().starts_with("/h") || request.target().ends_with("?a=1&b=2"), "{}", request.target());
    }
    let told = gate.logged("/q0?a=1&b=2");
    assert_eq!((&told["caller"], &told["identified_by"]), (&"shop-app".into(), &"api_key".into()));
    assert!(!gate.stdout().contains("key-of-shop") && !gate.stderr().contains("key-of-shop"));
}

#[test]
fn without_a_good_key_nobody_gets_in_and_all_are_told_the_same() {
    let service = Upstream::named("x");
    // `printf key-of-old | sha256sum`.
    let old = "sha256:8275452d274ed490a111b9feef1e542673122ca2f6ea53d5fc733b16dfe360df";
    let keys = format!("\"{HASH}\", {{ hash: \"{old}\", id: old, expires: 2020-01-01 }}");
    let gate = Binary::start(&document(&service, &keys, ""));
    let refused = |fields: &[(&str, &str)]| {
        let answer = gate.ask("GET", "/x", fields, b"");
        assert_eq!(answer.status(), 401);
        assert_eq!(answer.field("www-authenticate").as_deref(), Some("ApiKey header=\"x-api-key\""));
        answer.json()["code"].as_str().unwrap().to_owned()
    };
    assert_eq!(refused(&[]), "caller.missing");
    for wrong in ["", "key-of-sho", "key-of-shopp", HASH, "shop-app", "*", "' or 1=1", "key-of-old"] {
        assert_eq!(refused(&[("x-api-key", wrong)]), "caller.invalid", "{wrong}");
    }
    assert_eq!(refused(&[("x-api-key", "key-of-shop"), ("x-api-key", "key-of-shop")]), "caller.invalid");
    assert_eq!(refused(&[("x-consumer", "shop-app")]), "caller.missing");
    assert_eq!(service.requests(), 0);
}

#[test]
fn a_key_that_is_taken_out_of_the_document_opens_nothing_once_that_is_in_force() {
    let service = Upstream::named("x");
    let gate = Binary::start(&document(&service, &format!("\"{HASH}\""), ""));
    let status = || gate.ask("GET", "/x", &[("x-api-key", "key-of-shop")], b"").status();
    assert_eq!((status(), status()), (200, 200));
    let other = HASH.replace("61a8d", "61a8e");
    gate.apply(&document(&service, &format!("\"{other}\""), ""));
    // On a connection of its own each, so that all workers have a part.
    assert!((0..8).all(|_| status() == 401));
}

/// Failure 1: mistakes never open a route.
#[test]
fn a_document_whose_keys_are_wrong_is_refused_and_the_one_before_keeps_guarding() {
    let service = Upstream::named("x");
    let right = document(&service, &format!("\"{HASH}\""), "");
    let gate = Binary::start(&right);
    for (from, to) in [
        ("api_key:", "api_keys:"),
        ("header: x-api-key", "haeder: x-api-key"),
        ("header: x-api-key, query: key,", ""),
        ("{ header: x-api-key, query: key, headers: { x-consumer: consumer } }", ""),
        ("x-consumer: consumer", "x-consumer: consumers"),
        ("sha256:", "sha265:"),
        ("consumers:", "consumer:"),
        ("keys: [", "key: ["),
    ] {
        let wrong = right.replacen(from, to, 1);
        assert_ne!(wrong, right, "{from}");
        gate.write(&wrong);
        assert_eq!(gate.reload().status(), 422, "{to}: {wrong}");
        assert_eq!(gate.get("/x").status(), 401, "{to}");
    }
    let plain = right.replace(HASH, "key-of-shop");
    gate.write(&plain);
    let refused = gate.reload();
    assert_eq!(refused.status(), 422);
    assert!(!refused.text().contains("key-of-shop"), "{}", refused.text());
    let nobody = document(&service, "", "");
    gate.write(&nobody);
    assert_eq!(gate.reload().status(), 422, "a route that nobody could call");
    assert_eq!(service.requests(), 0);
}

#[test]
fn in_shadow_a_key_is_judged_and_the_route_stays_closed() {
    let service = Upstream::named("x");
    let gate = Binary::start(&document(&service, &format!("\"{HASH}\""), "    shadow: api_key\n"));
    for key in ["key-of-shop", "other"] {
        assert_eq!(gate.ask("GET", "/x", &[("x-api-key", key)], b"").status(), 401, "{key}");
    }
    assert_eq!(service.requests(), 0);
}
