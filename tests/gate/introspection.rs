//! Opaque tokens by the real program: the server is asked once, believed for a while, and nothing passes that it does not know. Failures 1 and 11.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pylon_testkit::answer::Answer;
use pylon_testkit::binary::Binary;
use pylon_testkit::issuer::Signer;
use pylon_testkit::message::Message;
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{now, until};
use serde_json::{Value, json};

/// How long something may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// An authorization server that knows one token.
struct Server {
    service: Upstream,
    /// What it says of the token.
    said: Arc<Mutex<Value>>,
    /// How long it takes its time.
    late: Arc<Mutex<Duration>>,
    questions: Arc<AtomicUsize>,
}

const TOKEN: &str = "mF_9.B5f-4.1JqM";

impl Server {
    fn start() -> Self {
        let said = Arc::new(Mutex::new(json!({ "active": true, "sub": "ann", "scope": "read" })));
        let late = Arc::new(Mutex::new(Duration::ZERO));
        let questions = Arc::new(AtomicUsize::new(0));
        let shared = (Arc::clone(&said), Arc::clone(&late), Arc::clone(&questions));
        let keys = json!({ "keys": [Signer::new("ES256", "k").jwk()] });
        let service = Upstream::http(move |request| {
            let (said, late, questions) = &shared;
            let own = format!("http://{}", request.field("host").unwrap());
            match request.target() {
                "/.well-known/openid-configuration" => Answer::json(&json!({
                    "issuer": own, "jwks_uri": format!("{own}/keys"), "introspection_endpoint": format!("{own}/introspect"),
                })),
                "/keys" => Answer::json(&keys),
                _ => {
                    questions.fetch_add(1, SeqCst);
                    // `gate:s3cret`
                    let right = request.field("authorization").as_deref() == Some("Basic Z2F0ZTpzM2NyZXQ=");
                    let known = String::from_utf8_lossy(&request.body).contains(&format!("token={TOKEN}&"));
                    let answer = match (right, known) {
                        (false, _) => Answer::new(401),
                        (true, false) => Answer::json(&json!({ "active": false })),
                        (true, true) => Answer::json(&said.lock().unwrap()),
                    };
                    answer.after(*late.lock().unwrap())
                }
            }
        });
        Self { service, said, late, questions }
    }

    fn questions(&self) -> usize {
        self.questions.load(SeqCst)
    }
}

fn document(service: &Upstream, introspect: &str) -> String {
    format!(
        "workers: 2\nupstreams: {{ api: {{ endpoints: [\"{}\"] }} }}\nroutes:\n  - {{ match: /open, respond: 204 }}\n  - match: \"/{{*rest}}\"\n    forward: api\n    introspect: {introspect}\n",
        service.url()
    )
}

fn start(service: &Upstream, introspect: &str) -> Binary {
    let document = document(service, introspect);
    Binary::start_with(&document, &[], |folder| std::fs::write(folder.join("secret"), "s3cret\n").unwrap())
}

fn at(server: &Server, more: &str) -> String {
    format!("{{ url: \"{}/introspect\", client_id: gate, client_secret: file:secret{more} }}", server.service.url())
}

fn show(gate: &Binary, token: &str) -> Message {
    gate.ask("GET", "/x", &[("authorization", &format!("Bearer {token}")), ("x-user", "root")], b"")
}

#[test]
fn a_token_is_asked_about_once_for_all_workers_and_stays_within_the_gateway() {
    let (service, server) = (Upstream::named("x"), Server::start());
    let gate = start(&service, &at(&server, ", headers: { x-user: subject }"));
    for _ in 0..16 {
        assert_eq!(show(&gate, TOKEN).status(), 200);
    }
    assert_eq!(server.questions(), 1);
    for request in service.seen() {
        assert_eq!((request.field("x-user").as_deref(), request.field("authorization")), (Some("ann"), None));
    }
    for other in ["another", "a.b.c"] {
        let answer = show(&gate, other);
        assert_eq!((answer.status(), answer.json()["code"].as_str()), (401, Some("caller.invalid")));
        assert_eq!(
            answer.field("www-authenticate").as_deref(),
            Some("Bearer realm=\"pylon\", error=\"invalid_token\"")
        );
    }
    assert_eq!((gate.get("/x").status(), gate.get("/open").status()), (401, 204));
    assert_eq!(gate.logged_with("/x", "status", 200)["identified_by"], "introspect");
    for secret in [TOKEN, "s3cret"] {
        assert!(!gate.stdout().contains(secret) && !gate.stderr().contains(secret));
    }
}

#[test]
fn a_token_that_is_revoked_is_out_when_its_answer_is_old() {
    let (service, server) = (Upstream::named("x"), Server::start());
    let gate = start(&service, &at(&server, ", ttl: 2s, inactive_ttl: 1s"));
    assert_eq!(show(&gate, TOKEN).status(), 200);
    *server.said.lock().unwrap() = json!({ "active": false });
    until(PATIENCE, "it is out at all workers", || (0..8).all(|_| show(&gate, TOKEN).status() == 401));
    *server.said.lock().unwrap() = json!({ "active": true, "sub": "ann" });
    until(PATIENCE, "it is in again", || (0..8).all(|_| show(&gate, TOKEN).status() == 200));
}

#[test]
fn the_issuer_may_tell_where_is_asked() {
    let (service, server) = (Upstream::named("x"), Server::start());
    let policy = format!("{{ issuer: \"{}\", client_id: gate, client_secret: file:secret }}", server.service.url());
    let gate = start(&service, &policy);
    assert_eq!((show(&gate, TOKEN).status(), show(&gate, "other").status()), (200, 401));
}

#[test]
fn a_server_that_is_silent_holds_nobody_up_and_lets_nobody_in() {
    let (service, server) = (Upstream::named("x"), Server::start());
    let gate = start(&service, &at(&server, ", timeout: 300ms, ttl: 5m"));
    let supply = || gate.admin("/api/supplies").json()[0].clone();
    let from = format!("{}/introspect", server.service.url().trim_start_matches("http://"));
    let seen = supply();
    assert_eq!((&seen["kind"], &seen["from"], &seen["up"]), (&json!("introspection"), &json!(from), &json!(true)));
    assert_eq!((&seen["age_seconds"], &seen["error"]), (&Value::Null, &Value::Null));
    assert_eq!(show(&gate, TOKEN).status(), 200);
    assert!(supply()["age_seconds"].is_u64());
    *server.late.lock().unwrap() = Duration::from_secs(5);
    let before = service.requests();
    let begun = now();
    for number in 0..20 {
        let answer = show(&gate, &format!("t{number}"));
        assert_eq!(
            (answer.status(), answer.json()["code"].as_str()),
            (503, Some("introspect.unavailable")),
            "{number}"
        );
        assert_eq!(answer.field("retry-after").as_deref(), Some("1"));
    }
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    let seen = supply();
    assert_eq!(seen["up"], json!(false));
    assert!(seen["error"].as_str().unwrap().contains("no answer in time"), "{seen}");
    assert!(seen["failures"].as_u64() >= Some(1) && seen["age_seconds"].is_u64());
    let labels = format!("{{kind=\"introspection\",from=\"{from}\"}}");
    assert_eq!(gate.metric(&format!("pylon_supply_up{labels}")), Some(0.0));
    // What is known goes on.
    assert!((0..8).all(|_| show(&gate, TOKEN).status() == 200));
    assert_eq!((gate.get("/open").status(), service.requests()), (204, before + 8));
    *server.late.lock().unwrap() = Duration::ZERO;
    until(PATIENCE, "it is asked again", || show(&gate, "other").status() == 401);
    let seen = supply();
    assert_eq!((&seen["up"], &seen["error"]), (&json!(true), &Value::Null));
}

/// Failure 1: mistakes never open a route.
#[test]
fn a_document_that_asks_wrongly_is_refused_and_the_one_before_keeps_guarding() {
    let (service, server) = (Upstream::named("x"), Server::start());
    let keys = ", auth: basic, audience: api, required: sub, subject_claim: sub, scopes_claim: scope, groups_claim: roles, \
                from: { header: authorization }, headers: { x-user: subject }, forward: true, timeout: 5s, ttl: 10s, inactive_ttl: 2s";
    *server.said.lock().unwrap() = json!({ "active": true, "sub": "ann", "aud": "api" });
    let right = document(&service, &at(&server, keys));
    let gate = start(&service, &at(&server, keys));
    let guarded = |what: &str, status: u16| {
        assert_eq!((gate.get("/x").status(), show(&gate, TOKEN).status()), (401, status), "{what}");
    };
    guarded("nothing", 200);
    for key in [
        "introspect:",
        "url:",
        "client_id:",
        "client_secret:",
        "auth:",
        "audience:",
        "required:",
        "subject_claim:",
        "scopes_claim:",
        "groups_claim:",
        "from:",
        "header:",
        "headers:",
        "forward:",
        "timeout:",
        "ttl:",
        "inactive_ttl:",
    ] {
        let place = right.rfind(&format!(" {key}")).unwrap() + 1;
        let typo = format!("{}x{}", &right[..place], &right[place..]);
        gate.write(&typo);
        assert_eq!(gate.reload().status(), 422, "{key}: {typo}");
        guarded(key, 200);
    }
    for (from, to) in [
        ("client_secret: file:secret", "client_secret: env:NOT_THERE_AT_ALL"),
        ("client_secret: file:secret", "client_secret: file:missing"),
        ("client_id: gate", "client_id: \"\""),
        ("url: \"http://127.0.0.1", "url: \"http://id.test"),
        ("auth: basic", "auth: none"),
        ("ttl: 10s", "ttl: 10h"),
        ("x-user: subject", "x-user: user"),
    ] {
        let wrong = right.replacen(from, to, 1);
        assert_ne!(wrong, right, "{from}");
        gate.write(&wrong);
        assert_eq!(gate.reload().status(), 422, "{to}");
        guarded(to, 200);
    }
    // What can be meant, and is not what the server says, or not where it is.
    for (from, to, status) in [
        ("audience: api", "audience: apis", 401),
        ("required: sub", "required: { sub: bob }", 401),
        ("subject_claim: sub", "subject_claim: subject", 401),
        ("client_id: gate", "client_id: gates", 503),
        ("/introspect\"", "/keys\"", 401),
    ] {
        let wrong = right.replacen(from, to, 1);
        assert_ne!(wrong, right, "{from}");
        gate.apply(&wrong);
        guarded(to, status);
    }
    let nobody = Upstream::nobody();
    gate.apply(&right.replacen(&server.service.url(), &format!("http://{nobody}"), 1));
    guarded("a server that is not there", 503);
}
