//! Failure 47, while it happens: a gateway that runs explains a request by what is in force, with the state that the
//! request would meet.

use std::path::Path;

use pylon_testkit::binary::Binary;
use pylon_testkit::client::ask;
use pylon_testkit::command::{Outcome, pylon};
use pylon_testkit::upstream::Upstream;

fn explain(gate: &Binary, arguments: &[&str]) -> Outcome {
    let live = format!("http://{}", gate.admin);
    pylon(Path::new("."), ["explain", "--live", &live].iter().chain(arguments))
}

fn document(upstream: &Upstream, more: &str) -> String {
    format!(
        "upstreams:\n  users: {{ endpoints: [{}] }}\n  gone: {{ endpoints: [http://127.0.0.1:1] }}\nroutes:\n  - match: GET /users/{{id}}\n    name: user\n    forward: users\n    headers: {{ request: {{ set: {{ authorization: Bearer hunter2 }} }} }}\n  - match: /split\n    split: {{ users: 50%, gone: 50% }}\n    sticky: none\n{more}",
        upstream.url()
    )
}

#[test]
fn a_request_is_explained_by_what_is_in_force_with_the_state_that_it_would_meet() {
    let upstream = Upstream::named("x");
    let gate = Binary::start(&document(&upstream, ""));
    let mut client = gate.connect();
    assert_eq!(client.ask("GET", "/users/7", &[], b"").status(), 200);
    let outcome = explain(&gate, &["GET", "/users/7"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    let hash = gate.admin("/api/snapshot").json()["hash"].as_str().unwrap().to_owned();
    for part in [
        "route   user  (pylon.yaml:5)",
        &format!("in force now: document {hash}"),
        "gateway       ready",
        "connections   1 of ",
        "upstream users, as it is now",
        &format!("{}  weight 1, 0 under way, 1 idle connections, 0 of 1 dials failed", upstream.address()),
    ] {
        assert!(outcome.stdout.contains(part), "{part} is not in {}", outcome.stdout);
    }
    assert!(outcome.stdout.contains("(hidden)") && !outcome.stdout.contains("hunter2"), "{}", outcome.stdout);
    assert!(!outcome.stdout.contains("upstream gone"), "it is not asked for this request: {}", outcome.stdout);
    // Where lots are drawn, all that may be asked are told.
    let split = explain(&gate, &["GET", "/split"]).stdout;
    assert!(split.contains("upstream users, as") && split.contains("upstream gone, as"), "{split}");
}

#[test]
fn another_document_in_force_is_another_explanation() {
    let upstream = Upstream::named("x");
    let gate = Binary::start(&document(&upstream, ""));
    assert!(explain(&gate, &["GET", "/new"]).stdout.contains("no route has this host and path"));
    // What is on disk and not in force does not count.
    gate.write(&document(&upstream, "  - match: /new\n    respond: 204\n"));
    assert_eq!(gate.reload().status(), 200);
    assert!(explain(&gate, &["GET", "/new"]).stdout.contains("action  respond 204"));
}

#[test]
fn it_is_told_as_json_and_only_to_those_who_may_use_the_admin_api() {
    let upstream = Upstream::named("x");
    let admin = "admin: { address: 127.0.0.1:0, token: env:PATH }\n";
    let gate = Binary::start(&document(&upstream, admin));
    let question = br#"{"method":"GET","url":"/users/7"}"#;
    let ask_with = |fields: &[(&str, &str)], question: &[u8]| {
        let fields: Vec<_> = [("host", "localhost"), ("content-type", "application/json")]
            .into_iter()
            .chain(fields.iter().copied())
            .collect();
        ask(gate.admin, "POST", "/api/explain", &fields, question)
    };
    assert_eq!(ask_with(&[], question).status(), 401);
    let token = format!("Bearer {}", std::env::var("PATH").unwrap());
    let armed = [("authorization", token.as_str())];
    let told = ask_with(&armed, question).json();
    assert_eq!((&told["route"], &told["gateway"]["ready"]), (&"user".into(), &true.into()));
    assert_eq!(told["upstreams"][0]["endpoints"][0]["in_flight"], 0);
    let refused = ask_with(&armed, br#"{"method":"GET","url":"/..%2fx"}"#).json();
    assert_eq!((&refused["refusal"], &refused["upstreams"]), (&"request.path".into(), &serde_json::json!([])));
    for wrong in [&br#"{"method":"GE T","url":"/"}"#[..], br#"{"method":"GET","url":"/","headers":[["a b","c"]]}"#] {
        assert_eq!(ask_with(&armed, wrong).status(), 400);
    }
    let outcome = explain(&gate, &["GET", "/users/7"]);
    assert_eq!(outcome.code, Some(2));
    assert!(outcome.stderr.contains("demands a token"), "{}", outcome.stderr);
    let outcome = explain(&gate, &["GET", "/users/7", "--token", "env:PATH"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
}
