//! Tokens by the real program, from an issuer that rotates, freezes and dies. Failures 1, 7, 11 and 12.

use std::thread;
use std::time::Duration;

use pylon_testkit::answer::Answer;
use pylon_testkit::binary::Binary;
use pylon_testkit::issuer::{Issuer, Signer, encode, unix_now};
use pylon_testkit::message::Message;
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait;
use serde_json::{Value, json};

/// How long something may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(20);

fn document(service: &Upstream, jwt: &str) -> String {
    format!(
        "workers: 2\nupstreams: {{ api: {{ endpoints: [\"{}\"] }} }}\nroutes:\n  - match: \"/open/{{*rest}}\"\n    forward: api\n  - match: \"/{{*rest}}\"\n    forward: api\n    jwt: {jwt}\n",
        service.url()
    )
}

/// The policy for tokens of this issuer, with more keys behind it.
fn of(issuer: &Issuer, more: &str) -> String {
    format!("{{ issuer: \"{}\", audience: api{more} }}", issuer.url())
}

fn show(gate: &Binary, path: &str, token: &str) -> Message {
    gate.ask("GET", path, &[("authorization", &format!("Bearer {token}"))], b"")
}

#[test]
fn a_token_is_known_on_every_worker_and_stays_within_the_gateway() {
    let (service, issuer) = (Upstream::named("x"), Issuer::start("RS256"));
    let policy = of(&issuer, ", headers: { x-user: subject }");
    let gate = Binary::start(&document(&service, &policy));
    let token = issuer.token("ann");
    for number in 0..8 {
        let answer = gate.ask(
            "GET",
            &format!("/{number}"),
            &[("authorization", &format!("Bearer {token}")), ("x-user", "root"), ("x_user", "root")],
            b"",
        );
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }
    for request in service.seen() {
        assert_eq!(request.field("x-user").as_deref(), Some("ann"));
        assert!(request.field("authorization").is_none() && request.field("x_user").is_none());
    }
    let told = gate.logged("/0");
    assert_eq!((&told["caller"], &told["identified_by"]), (&"ann".into(), &"jwt".into()));
    assert!(!gate.stdout().contains(&token) && !gate.stderr().contains(&token));
    assert_eq!(issuer.fetches(), 1);
}

/// Failure 11.
#[test]
fn a_wrong_token_is_refused_and_the_client_never_learns_why() {
    let (service, issuer) = (Upstream::named("x"), Issuer::start("RS256"));
    let gate = Binary::start(&document(&service, &of(&issuer, "")));
    assert_eq!(show(&gate, "/good", &issuer.token("ann")).status(), 200);
    let (signer, now) = (issuer.signer(), unix_now());
    let claims = |name: &str, value: Value| {
        let mut claims = issuer.claims("ann");
        claims[name] = value;
        claims
    };
    let header = |name: &str, value: Value| {
        let mut header = json!({ "alg": "RS256", "kid": "first", "typ": "JWT" });
        header[name] = value;
        header
    };
    let good = issuer.claims("ann");
    let public = signer.jwk();
    let unsigned = format!("{}.{}.", encode(br#"{"alg":"none"}"#), encode(good.to_string().as_bytes()));
    let mine = Signer::new("RS256", "first");
    let wrong = [
        unsigned,
        Signer::secret("HS256", public.to_string().as_bytes()).token_with(&header("alg", json!("HS256")), &good),
        Signer::new("ES256", "first").token(&good),
        mine.token(&good),
        mine.token_with(&header("jwk", mine.jwk()), &good),
        mine.token_with(&header("jku", json!(issuer.jwks())), &good),
        signer.token_with(&header("crit", json!(["exp"])), &good),
        signer.token_with(&header("alg", json!("PS256")), &good),
        signer.token(&claims("exp", json!(now - 100))),
        signer.token(&claims("nbf", json!(now + 100))),
        signer.token(&claims("aud", json!("others"))),
        signer.token(&claims("sub", Value::Null)),
        format!("{}A", signer.token(&good)),
    ];
    let mut bodies = Vec::new();
    for (number, token) in wrong.iter().enumerate() {
        let path = format!("/{number}");
        let answer = show(&gate, &path, token);
        assert_eq!(answer.status(), 401, "{number}: {}", answer.text());
        assert_eq!(
            answer.field("www-authenticate").as_deref(),
            Some("Bearer realm=\"pylon\", error=\"invalid_token\""),
            "{number}"
        );
        let mut body = answer.json();
        let members = body.as_object_mut().unwrap();
        members.retain(|name, _| !matches!(name.as_str(), "instance" | "request_id"));
        bodies.push(body);
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    let of_others = show(&gate, "/others", &signer.token(&claims("iss", json!("https://id.test"))));
    assert_eq!((of_others.status(), of_others.json()["code"].as_str()), (401, Some("caller.invalid")));
    assert_eq!(of_others.field("www-authenticate").as_deref(), Some("Bearer realm=\"pylon\", error=\"invalid_token\""));
    assert_eq!(gate.get("/nobody").field("www-authenticate").as_deref(), Some("Bearer realm=\"pylon\""));
    assert_eq!(service.requests(), 1);
}

/// Failure 12.
#[test]
fn the_first_token_of_a_new_key_is_good_after_one_fetch() {
    let (service, issuer) = (Upstream::named("x"), Issuer::start("ES256"));
    let gate = Binary::start(&document(&service, &of(&issuer, "")));
    let old = issuer.token("ann");
    assert_eq!((show(&gate, "/", &old).status(), issuer.fetches()), (200, 1));
    issuer.rotate(Signer::new("ES256", "second"));
    assert_eq!((show(&gate, "/", &issuer.token("bob")).status(), issuer.fetches()), (200, 2));
    // The key before is gone, and what rested on it is forgotten on all workers.
    assert!((0..8).all(|_| show(&gate, "/", &old).status() == 401));
    assert_eq!(issuer.fetches(), 2, "a cool-down lies between two fetches that tokens cause");
}

/// Failure 12.
#[test]
fn made_up_names_of_keys_cause_one_fetch_for_each_cool_down() {
    let (service, issuer) = (Upstream::named("x"), Issuer::start("EdDSA"));
    let gate = Binary::start(&document(&service, &of(&issuer, ", cool_down: 1h")));
    let address = gate.address();
    let begun = wait::now();
    thread::scope(|scope| {
        for thread in 0..4 {
            let (signer, claims) = (issuer.signer(), issuer.claims("ann"));
            scope.spawn(move || {
                let mut raw = pylon_testkit::client::Raw::connect(address);
                for number in 0..500 {
                    let header = json!({ "alg": "EdDSA", "kid": format!("{thread} {number}") });
                    let bearer = format!("Bearer {}", signer.token_with(&header, &claims));
                    let answer = raw.ask("GET", "/", &[("host", "a"), ("authorization", &bearer)], b"");
                    assert_eq!(answer.status(), 401);
                }
            });
        }
    });
    assert!(begun.elapsed() < Duration::from_secs(120), "nobody waits for long");
    assert_eq!(issuer.fetches(), 2);
    assert_eq!(show(&gate, "/", &issuer.token("ann")).status(), 200);
}

/// Failure 12.
#[test]
fn a_thousand_cold_requests_cause_one_fetch_and_all_are_served() {
    let (service, issuer) = (Upstream::named("x"), Issuer::start("ES256"));
    issuer.freeze(true);
    let gate = Binary::start(&document(&service, &of(&issuer, ", jwks: \"JWKS\"").replace("JWKS", &issuer.jwks())));
    let token = issuer.token("ann");
    let mut waiting: Vec<_> = (0..1000)
        .map(|number| {
            let mut raw = gate.connect();
            raw.send(format!("GET /{number} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\r\n"));
            raw
        })
        .collect();
    assert_eq!((gate.get("/open/x").status(), service.requests()), (200, 1), "others are served meanwhile");
    issuer.freeze(false);
    let served = waiting.iter_mut().map(|raw| raw.response().status()).filter(|status| *status == 200).count();
    assert_eq!((served, issuer.fetches()), (1000, 1));
}

/// Failure 12.
#[test]
fn keys_at_hand_serve_while_the_issuer_is_down() {
    let (service, mut issuer) = (Upstream::named("x"), Issuer::start("ES256"));
    let gate = Binary::start(&document(&service, &of(&issuer, ", cool_down: 1s")));
    issuer.die();
    assert_eq!(show(&gate, "/", &issuer.token("ann")).status(), 200);
    // Nobody can say whether there is such a key now.
    let other = Signer::new("ES256", "other").token(&issuer.claims("ann"));
    let answer = show(&gate, "/", &other);
    assert_eq!((answer.status(), answer.json()["code"].as_str()), (503, Some("caller.unknown")));
    assert_eq!(show(&gate, "/", &issuer.token("bob")).status(), 200);
    issuer.revive();
    issuer.answer_instead(Some(Answer::text("<html>")));
    assert_eq!(show(&gate, "/", &issuer.token("eve")).status(), 200);
    issuer.answer_instead(Some(Answer::json(&json!({ "keys": [] }))));
    assert_eq!(show(&gate, "/", &issuer.token("joe")).status(), 200);
}

/// Failures 1 and 12.
#[test]
fn without_its_issuer_a_gateway_starts_and_serves_all_else() {
    let (service, mut issuer) = (Upstream::named("x"), Issuer::start("ES256"));
    issuer.die();
    let gate = Binary::start(&document(&service, &of(&issuer, "")));
    assert_eq!(gate.get("/open/x").status(), 200);
    assert_eq!((gate.get("/x").status(), show(&gate, "/x", &issuer.token("ann")).status()), (401, 503));
    let mine = Signer::new("ES256", "first").token(&issuer.claims("ann"));
    assert_eq!((show(&gate, "/x", &mine).status(), service.requests()), (503, 1));
    issuer.revive();
    wait::until(PATIENCE, "the keys have come", || show(&gate, "/x", &issuer.token("ann")).status() == 200);
    assert_eq!(show(&gate, "/x", &mine).status(), 401);
}

#[test]
fn the_keys_of_an_issuer_are_shown_with_their_age_and_with_what_is_wrong() {
    let (service, mut issuer) = (Upstream::named("x"), Issuer::start("ES256"));
    let gate = Binary::start(&document(&service, &of(&issuer, ", cool_down: 1s")));
    assert_eq!(show(&gate, "/", &issuer.token("ann")).status(), 200);
    let seen = |gate: &Binary| gate.admin("/api/supplies").json()[0].clone();
    let told = seen(&gate);
    assert_eq!((&told["kind"], &told["up"], &told["items"]), (&json!("jwks"), &json!(true), &json!(1)), "{told}");
    assert!(told["from"].as_str().is_some_and(|from| issuer.url().contains(from.split('/').next().unwrap())), "{told}");
    assert!(told["age_seconds"].is_u64() && told["next_seconds"].as_u64().is_some_and(|next| next > 60), "{told}");
    assert_eq!((&told["failures"], &told["error"]), (&json!(0), &Value::Null));
    issuer.die();
    let other = Signer::new("ES256", "other").token(&issuer.claims("ann"));
    assert_eq!(show(&gate, "/", &other).status(), 503);
    let told = seen(&gate);
    assert_eq!((&told["up"], &told["items"]), (&json!(false), &json!(1)), "those at hand serve: {told}");
    assert!(told["error"].is_string() && told["failures"].as_u64().is_some_and(|failures| failures > 0), "{told}");
    let metrics = gate.admin("/metrics").text();
    for family in
        ["pylon_supply_up{", "pylon_supply_items{", "pylon_supply_age_seconds{", "pylon_supply_failures_total{"]
    {
        assert!(metrics.contains(&format!("{family}kind=\"jwks\",from=\"")), "{family}");
    }
    issuer.revive();
    wait::until(PATIENCE, "keys are there again", || seen(&gate)["up"] == json!(true));
}

#[test]
fn an_issuer_that_tells_of_another_gives_no_keys() {
    let (service, issuer) = (Upstream::named("x"), Issuer::start("ES256"));
    // Under another name of the same machine it speaks of itself by that name.
    let named = issuer.url().replace("127.0.0.1", "localhost");
    let policy = format!("{{ issuer: \"{named}/\", audience: api }}");
    let gate = Binary::start(&document(&service, &policy));
    let mut claims = issuer.claims("ann");
    claims["iss"] = json!(format!("{named}/"));
    assert_eq!(show(&gate, "/", &issuer.signer().token(&claims)).status(), 503);
    assert_eq!(issuer.fetches(), 0);
}

#[test]
fn keys_in_a_file_are_renewed_without_a_reload() {
    let (service, signer) = (Upstream::named("x"), Signer::new("ES256", "a"));
    let set = |signer: &Signer| json!({ "keys": [signer.jwk()] }).to_string();
    let policy = "{ issuer: shop, audience: api, jwks: \"file:keys.json\" }";
    let gate = Binary::start_with(&document(&service, policy), &[], |folder| {
        std::fs::write(folder.join("keys.json"), set(&signer)).unwrap();
    });
    let claims = json!({ "iss": "shop", "sub": "ann", "aud": "api", "exp": unix_now() + 600 });
    assert_eq!(show(&gate, "/", &signer.token(&claims)).status(), 200);
    let next = Signer::new("RS256", "b");
    let renewed = gate.folder().join("renewed.json");
    std::fs::write(&renewed, set(&next)).unwrap();
    std::fs::rename(&renewed, gate.folder().join("keys.json")).unwrap();
    wait::until(PATIENCE, "the new key counts", || show(&gate, "/", &next.token(&claims)).status() == 200);
    assert_eq!(show(&gate, "/", &signer.token(&claims)).status(), 401);
    std::fs::write(gate.folder().join("keys.json"), "nonsense").unwrap();
    assert_eq!(show(&gate, "/", &next.token(&claims)).status(), 200);
}

/// Failure 1: mistakes never open a route.
#[test]
fn a_document_whose_tokens_are_wrong_is_refused_and_the_one_before_keeps_guarding() {
    let (service, issuer) = (Upstream::named("x"), Issuer::start("ES256"));
    let keys = ", leeway: 10s, algorithms: ES256, required: sub, subject_claim: sub, scopes_claim: scope, groups_claim: roles, typ: JWT, \
                from: { header: authorization }, headers: { x-user: subject }, forward: true, keys_valid_for: 1h, cool_down: 10s";
    let right = document(&service, &of(&issuer, keys));
    let gate = Binary::start(&right);
    let token = issuer.token("ann");
    for key in [
        "jwt:",
        "issuer:",
        "audience:",
        "leeway:",
        "algorithms:",
        "required:",
        "subject_claim:",
        "scopes_claim:",
        "groups_claim:",
        "typ:",
        "from:",
        "header:",
        "headers:",
        "forward:",
        "keys_valid_for:",
        "cool_down:",
    ] {
        let typo = right.replacen(key, &format!("x{key}"), 1);
        gate.write(&typo);
        assert_eq!(gate.reload().status(), 422, "{key}: {typo}");
        assert_eq!((gate.get("/x").status(), show(&gate, "/x", &token).status()), (401, 200), "{key}");
    }
    for (from, to) in [
        ("audience: api", "audience: []"),
        ("audience: api", "secret: env:NOT_THERE_AT_ALL, audience: api"),
        ("audience: api", "jwks: \"file:missing.json\", audience: api"),
        ("audience: api", "jwks: \"http://id.test/keys\", audience: api"),
        ("algorithms: ES256", "algorithms: none"),
        ("algorithms: ES256", "algorithms: HS256"),
        ("leeway: 10s", "leeway: 10h"),
        ("x-user: subject", "x-user: user"),
    ] {
        let wrong = right.replacen(from, to, 1);
        assert_ne!(wrong, right, "{from}");
        gate.write(&wrong);
        assert_eq!(gate.reload().status(), 422, "{to}");
        assert_eq!((gate.get("/x").status(), show(&gate, "/x", &token).status()), (401, 200), "{to}");
    }
    // What can be meant, and is not what the tokens say.
    for (from, to) in [
        ("audience: api", "audience: apis"),
        ("algorithms: ES256", "algorithms: ES384"),
        ("required: sub", "required: subj"),
        ("required: sub", "required: { sub: bob }"),
        ("subject_claim: sub", "subject_claim: subject"),
        ("typ: JWT", "typ: at+jwt"),
        ("header: authorization", "header: authorisation"),
        ("header: authorization", "cookie: token"),
    ] {
        let wrong = right.replacen(from, to, 1);
        assert_ne!(wrong, right, "{from}");
        gate.apply(&wrong);
        assert_eq!((gate.get("/x").status(), show(&gate, "/x", &token).status()), (401, 401), "{to}");
    }
    let mut dead = Issuer::start("ES256");
    let (dead_token, dead_document) = (dead.token("ann"), document(&service, &of(&dead, "")));
    dead.die();
    gate.apply(&dead_document);
    assert_eq!((gate.get("/x").status(), show(&gate, "/x", &dead_token).status()), (401, 503));
}

#[test]
fn a_consumer_is_known_by_its_tokens() {
    let (service, issuer) = (Upstream::named("x"), Issuer::start("ES256"));
    let consumers = format!(
        "consumers: {{ shop: {{ groups: partners, plan: gold, tokens: {{ issuer: \"{}\", client: shop-app }} }} }}\n",
        issuer.url()
    );
    let policy = of(&issuer, ", groups_claim: roles, headers: { x-consumer: consumer, x-groups: groups }");
    let gate = Binary::start(&(consumers + &document(&service, &policy)));
    let mut claims = issuer.claims("service-1");
    (claims["azp"], claims["roles"]) = (json!("shop-app"), json!(["admin"]));
    assert_eq!(show(&gate, "/a", &issuer.signer().token(&claims)).status(), 200);
    assert_eq!(service.last().field("x-consumer").as_deref(), Some("shop"));
    assert_eq!(service.last().field("x-groups").as_deref(), Some("admin,partners"));
    assert_eq!(gate.logged("/a")["consumer"], "shop");
    assert_eq!(show(&gate, "/b", &issuer.token("service-2")).status(), 200);
    assert_eq!(service.last().field("x-consumer"), None);
}
