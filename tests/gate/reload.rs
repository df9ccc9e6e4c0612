//! Another document while the gateway runs: put in force whole, or refused with the reason, and nothing that lives is lost.
//! Failures 18, 19, 20, 43 and 45.

use std::time::Duration;

use pylon_testkit::answer::Answer;
use pylon_testkit::binary::Binary;
use pylon_testkit::client::ask;
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{self, ms};
use pylon_testkit::websocket;
use pylon_testkit::websocket::WebSocket;

const PATIENCE: Duration = Duration::from_secs(10);

fn says(text: &str) -> String {
    format!("workers: 2\nroutes:\n  - match: /\n    respond: {{ status: 200, body: {text} }}\n")
}

#[test]
fn a_hang_up_puts_the_document_in_force_that_the_file_holds_now() {
    let gate = Binary::start(&says("before"));
    let hash = gate.admin("/api/snapshot").json()["hash"].clone();
    gate.write(&says("after"));
    gate.process.hang_up();
    wait::until(PATIENCE, "the new document serves", || gate.get("/").text() == "after");
    wait::until(PATIENCE, "it is told", || gate.admin("/api/reload").json()["cause"]["who"] == "signal");
    let (snapshot, last) = (gate.admin("/api/snapshot").json(), gate.admin("/api/reload").json());
    assert_ne!(snapshot["hash"], hash);
    assert_eq!((&last["outcome"], &last["hash"]), (&"applied".into(), &snapshot["hash"]));
    assert_eq!(gate.metric(&format!("pylon_snapshot_info{{hash={}}}", snapshot["hash"])), Some(1.0));
    assert!(gate.stderr().contains("another document is in force"), "{}", gate.stderr());
}

#[test]
fn a_reload_by_the_admin_api_answers_when_every_worker_serves_the_new_document() {
    let gate = Binary::start(&says("a0"));
    // Connections that stay open, on whichever worker each has come to.
    let mut clients: Vec<_> = (0..8).map(|_| gate.connect()).collect();
    for turn in 1..=20 {
        let text = format!("a{turn}");
        gate.apply(&says(&text));
        for client in &mut clients {
            assert_eq!(client.ask("GET", "/", &[], b"").text(), text);
        }
        assert_eq!(gate.get("/").text(), text);
        assert_eq!(gate.metric("pylon_snapshots"), Some(1.0), "older ones are gone when nothing holds them");
    }
    assert_eq!(gate.metric("pylon_config_reloads_total{outcome=\"applied\"}"), Some(20.0));
}

#[test]
fn a_broken_document_changes_nothing_and_the_reason_is_told_in_log_metric_and_admin_api() {
    let gate = Binary::start(&says("before"));
    let hash = gate.admin("/api/snapshot").json()["hash"].clone();
    let started = gate.metric("pylon_config_last_success_timestamp_seconds").unwrap();
    assert!(started > 1e9);
    gate.write(
        "routes:\n  - match: /\n    forward: usres\nupstreams: { users: { endpoints: [http://127.0.0.1:1] } }\n",
    );
    let answer = gate.reload();
    assert_eq!(answer.status(), 422);
    let told = answer.json();
    let wrong = &told["diagnostics"][0];
    assert_eq!(wrong["title"], "this route forwards to an upstream that does not exist");
    assert_eq!((&wrong["place"]["file"], &wrong["place"]["line"]), (&"pylon.yaml".into(), &3.into()));
    assert!(wrong["help"][0].as_str().unwrap().contains("did you mean `users`"));
    assert_eq!((&told["outcome"], &told["hash"]), (&"refused".into(), &hash), "the hash is that of what is in force");
    assert_eq!(gate.admin("/api/reload").json(), told);
    assert_eq!((gate.get("/").text(), &gate.admin("/api/snapshot").json()["hash"]), ("before".into(), &hash));
    assert_eq!(gate.metric("pylon_config_last_reload_successful"), Some(0.0));
    assert_eq!(gate.metric("pylon_config_reloads_total{outcome=\"refused\"}"), Some(1.0));
    assert_eq!(gate.metric("pylon_config_last_success_timestamp_seconds"), Some(started));
    // As `pylon check` prints it, line by line.
    let log = gate.stderr();
    for line in ["the one before stays in force", "pylon.yaml:3:14", "3│     forward: usres", "did you mean `users`"]
    {
        assert!(log.contains(line), "{line} is not in {log}");
    }
    gate.apply(&says("after"));
    assert_eq!(gate.metric("pylon_config_last_reload_successful"), Some(1.0));
    assert_eq!(gate.get("/").text(), "after");
}

#[test]
fn a_missing_file_keeps_the_document_before() {
    let gate = Binary::start(&says("before"));
    std::fs::remove_file(gate.folder().join("pylon.yaml")).unwrap();
    let answer = gate.reload();
    assert_eq!(answer.status(), 422);
    assert!(answer.json()["text"].as_str().unwrap().contains("there is no file or folder pylon.yaml"));
    assert_eq!(gate.get("/").text(), "before");
}

#[test]
fn what_only_a_restart_applies_is_named_and_the_rest_is_in_force() {
    let gate = Binary::start(&says("before"));
    let changed = "telemetry: { recent: false }\nadmin: { address: 127.0.0.1:0, enabled: false }\n";
    gate.write(&(changed.to_owned() + &says("after").replace("workers: 2", "workers: 3")));
    let told = gate.reload().json();
    assert_eq!(told["restart"], serde_json::json!(["workers", "admin", "telemetry"]));
    assert_eq!(gate.get("/").text(), "after");
    assert_eq!(gate.metric("pylon_config_restart_needed"), Some(1.0));
    assert!(gate.stderr().contains("only a restart applies it"), "{}", gate.stderr());
    gate.apply(&says("back"));
    assert_eq!(gate.metric("pylon_config_restart_needed"), Some(0.0));
}

#[test]
fn only_those_may_reload_who_may_use_the_admin_api_and_no_web_page() {
    let document = "admin: { address: 127.0.0.1:0, token: file:token }\n".to_owned() + &says("x");
    let gate = Binary::start_with(&document, &[], |folder| std::fs::write(folder.join("token"), "sesame").unwrap());
    let post = |fields: &[(&str, &str)]| ask(gate.admin, "POST", "/api/reload", fields, b"").status();
    assert_eq!(post(&[("host", "localhost")]), 401);
    assert_eq!(post(&[("authorization", "Bearer sesame"), ("origin", "http://127.0.0.1:9901")]), 403);
    assert_eq!(post(&[("authorization", "Bearer sesame")]), 200);
    // The token of the document in force counts, and its file is read again.
    std::fs::write(gate.folder().join("token"), "open").unwrap();
    assert_eq!(post(&[("authorization", "Bearer sesame")]), 200);
    assert_eq!(post(&[("authorization", "Bearer sesame")]), 401);
    assert_eq!(post(&[("authorization", "Bearer open")]), 200);
}

#[test]
fn connections_and_counts_of_what_did_not_change_live_on() {
    let service = Upstream::named("service");
    let document = |more: &str| {
        format!(
            "workers: 1\nupstreams: {{ a: {{ endpoints: [{}] }} }}\nroutes:\n  - {{ match: /a, forward: a }}\n{more}",
            service.url()
        )
    };
    let gate = Binary::start(&document(""));
    for turn in 0..10 {
        assert_eq!(gate.get("/a").status(), 200);
        gate.apply(&document(&format!("  - {{ match: /{turn}, respond: 204 }}\n")));
    }
    assert_eq!(service.connections(), 1, "the idle connection is used by each snapshot");
    assert_eq!(gate.metric("pylon_requests_total{route=\"/a\",status_class=\"2xx\"}"), Some(10.0));
    assert_eq!(gate.metric("pylon_upstream_requests_total{upstream=\"a\",status_class=\"2xx\"}"), Some(10.0));
    assert_eq!(gate.admin("/api/routes").json()[1]["match"], "/9");
}

#[test]
fn in_turn_goes_on_where_it_was_and_what_has_changed_begins_anew() {
    let (one, two) = (Upstream::named("one"), Upstream::named("two"));
    let document = |more: &str| {
        format!(
            "workers: 1\nupstreams: {{ a: {{ endpoints: [{}, {}]{more} }} }}\nroutes: [{{ match: /, forward: a }}]\n",
            one.url(),
            two.url()
        )
    };
    let gate = Binary::start(&document(""));
    for _ in 0..10 {
        assert_eq!(gate.get("/").status(), 200);
        gate.process.hang_up();
        gate.apply(&document(""));
    }
    assert_eq!((one.requests(), two.requests()), (5, 5));
    gate.apply(&document(", host: endpoint"));
    assert_eq!(gate.get("/").status(), 200);
}

#[test]
fn streams_outlive_reloads_and_their_route_and_hold_no_snapshot() {
    let sockets = websocket::echo();
    let events = Upstream::script(|peer| {
        let _ = peer.request();
        peer.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n");
        peer.wait_for_end(PATIENCE);
    });
    let upstreams = format!(
        "upstreams: {{ sockets: {{ endpoints: [{}] }}, events: {{ endpoints: [{}] }} }}\nroutes:\n",
        sockets.url(),
        events.url()
    );
    let streams = "  - { match: /ws, forward: sockets, websocket: true }\n  - { match: /events, forward: events }\n";
    let gate = Binary::start(&format!("{upstreams}{streams}"));
    let mut tunnel = WebSocket::begin(gate.connect(), "/ws", &[]);
    let mut stream = gate.connect();
    stream.send(pylon_testkit::client::request("GET", "/events", &[("host", "a")], b""));
    assert_eq!(stream.head().status(), 200);
    for turn in 0..30 {
        gate.apply(&format!("{upstreams}{streams}  - {{ match: /{turn}, respond: 204 }}\n"));
        tunnel.echoes(1, format!("turn {turn}").as_bytes());
        assert_eq!(gate.metric("pylon_snapshots"), Some(1.0));
    }
    // Without the routes, and without the services even.
    gate.apply("routes: [{ match: /, respond: 204 }]\n");
    tunnel.echoes(1, b"still here");
    assert_eq!((gate.metric("pylon_tunnels"), gate.metric("pylon_snapshots")), (Some(1.0), Some(1.0)));
    assert_eq!(gate.metric("pylon_requests_in_flight"), Some(2.0));
    assert_eq!(events.open(), 1);
}

#[test]
fn a_request_under_way_ends_by_the_document_that_it_began_with() {
    let slow = Upstream::http(|_| {
        wait::pause(ms(500));
        Answer::text("slow")
    });
    let gate = Binary::start(&format!(
        "upstreams: {{ slow: {{ endpoints: [{}] }} }}\nroutes: [{{ match: /, forward: slow, headers: {{ response: {{ set: {{ x-by: old }} }} }} }}]\n",
        slow.url()
    ));
    let mut raw = gate.connect();
    raw.send(pylon_testkit::client::request("GET", "/", &[("host", "a")], b""));
    wait::until(PATIENCE, "the service has it", || slow.requests() == 1);
    gate.apply("routes: [{ match: /, respond: 204 }]\n");
    assert_eq!(gate.get("/").status(), 204);
    assert_eq!(gate.metric("pylon_snapshots"), Some(2.0));
    let answer = raw.response();
    assert_eq!((answer.status(), answer.text(), answer.field("x-by")), (200, "slow".into(), Some("old".into())));
    wait::until(PATIENCE, "the snapshot before is gone", || gate.metric("pylon_snapshots") == Some(1.0));
}
