//! Failure 28: health checks by the real program. What they find holds for all workers at once, outlives reloads, and is shown.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use pylon_testkit::answer::Answer;
use pylon_testkit::binary::Binary;
use pylon_testkit::command::pylon;
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{eventually, ms, now, until};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

/// A service that says its name, and under `/healthz` whether it is well.
struct Service {
    http: Upstream,
    well: Arc<AtomicBool>,
    checks: Arc<AtomicUsize>,
}

impl Service {
    fn new(name: &'static str) -> Self {
        let (well, checks) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
        let (is_well, seen) = (Arc::clone(&well), Arc::clone(&checks));
        let http = Upstream::http(move |request| {
            if request.target() != "/healthz" {
                return Answer::text(name);
            }
            seen.fetch_add(1, SeqCst);
            if is_well.load(SeqCst) { Answer::text("fine") } else { Answer::new(503).body("not now") }
        });
        Self { http, well, checks }
    }

    /// How many requests were no checks.
    fn requests(&self) -> usize {
        self.http.seen().iter().filter(|request| request.target() != "/healthz").count()
    }
}

fn document(services: &[&Service], more: &str) -> String {
    let urls: Vec<_> = services.iter().map(|service| format!("\"{}\"", service.http.url())).collect();
    format!(
        "workers: 2\nupstreams:\n  api:\n    endpoints: [{}]\n    {more}\nroutes: [{{ match: \"/{{*rest}}\", forward: api }}]\n",
        urls.join(", ")
    )
}

const QUICK: &str = "health: { path: /healthz, every: 50ms, timeout: 5s }";

fn endpoint(gate: &Binary, of: &Service) -> Value {
    let all = gate.admin("/api/upstreams").json();
    let address = of.http.address().to_string();
    let found = all[0]["endpoints"].as_array().unwrap().iter().find(|one| one["endpoint"] == *address).cloned();
    found.unwrap_or_default()
}

fn is(gate: &Binary, service: &Service, state: &str) -> bool {
    endpoint(gate, service)["health"]["state"] == state
}

fn states(gate: &Binary, state: &str) -> Option<f64> {
    gate.metric(&format!("pylon_upstream_endpoints{{upstream=\"api\",state=\"{state}\"}}"))
}

/// Eight requests on connections of their own, so that all workers have a part; who answered.
fn round(gate: &Binary) -> Vec<String> {
    (0..8).map(|_| gate.get("/x")).inspect(|answer| assert_eq!(answer.status(), 200)).map(|it| it.text()).collect()
}

#[test]
fn who_fails_its_checks_gets_no_requests_until_it_passes_again_and_each_is_told_once() {
    let (a, b) = (Service::new("a"), Service::new("b"));
    let gate = Binary::start(&document(&[&a, &b], QUICK));
    until(SOON, "both are healthy", || is(&gate, &a, "healthy") && is(&gate, &b, "healthy"));
    assert_eq!((states(&gate, "available"), states(&gate, "unhealthy")), (Some(2.0), Some(0.0)));
    a.well.store(false, SeqCst);
    until(SOON, "one is barred", || endpoint(&gate, &a)["barred"][0] == "unhealthy");
    assert!(round(&gate).iter().all(|name| name == "b"));
    assert_eq!((states(&gate, "available"), states(&gate, "unhealthy")), (Some(1.0), Some(1.0)));
    let health = endpoint(&gate, &a)["health"].clone();
    assert_eq!(
        (&health["state"], &health["last_error"]),
        (&"unhealthy".into(), &"the status 503 is not 200-399".into())
    );
    let live = format!("http://{}", gate.admin);
    let told = pylon(std::path::Path::new("."), ["explain", "--live", &live, "GET", "/x"]).stdout;
    assert!(told.contains("unhealthy: the status 503 is not 200-399, so it gets no requests"), "{told}");
    until(SOON, "more checks", || endpoint(&gate, &a)["health"]["failed_in_a_row"].as_u64() > Some(8));
    a.well.store(true, SeqCst);
    until(SOON, "it is back", || endpoint(&gate, &a)["barred"].as_array().is_some_and(Vec::is_empty));
    assert!(round(&gate).iter().any(|name| name == "a"));
    let count = |text: &str| gate.stderr().lines().filter(|line| line.contains(text)).count();
    assert_eq!((count("an endpoint is unhealthy"), count("an endpoint is healthy again")), (1, 1), "{}", gate.stderr());
    assert!(gate.metric("pylon_health_checks_total{upstream=\"api\",outcome=\"failed\"}") > Some(8.0));
    assert_eq!(gate.admin("/readyz").status(), 200);
}

#[test]
fn what_is_known_outlives_reloads_and_who_is_removed_is_asked_no_more() {
    let (a, b) = (Service::new("a"), Service::new("b"));
    a.well.store(false, SeqCst);
    let gate = Binary::start(&document(&[&a, &b], QUICK));
    until(SOON, "one is barred", || endpoint(&gate, &a)["barred"][0] == "unhealthy");
    let before = endpoint(&gate, &a)["health"]["failed_in_a_row"].as_u64();
    for timeout in 5..10 {
        gate.apply(&document(&[&a, &b], &format!("{QUICK}\n    timeout: {timeout}s")));
        let met = round(&gate);
        // Lines of the log tell which it was, should one come: a bar that was lifted, or panic because checks of `b` failed.
        assert!(met.iter().all(|name| name == "b"), "no request finds out by itself: {met:?}\n{}", gate.stderr());
    }
    until(SOON, "it goes on", || endpoint(&gate, &a)["health"]["failed_in_a_row"].as_u64() > before);
    assert_eq!(a.requests(), 0);
    gate.apply(&document(&[&b], QUICK));
    // One that was under way may still come.
    let seen = b.checks.load(SeqCst);
    until(SOON, "an interval", || b.checks.load(SeqCst) > seen + 2);
    let (gone, seen) = (a.checks.load(SeqCst), b.checks.load(SeqCst));
    until(SOON, "more intervals", || b.checks.load(SeqCst) > seen + 6);
    assert_eq!(a.checks.load(SeqCst), gone);
    // Without checks nobody is barred.
    gate.apply(&document(&[&a, &b], "balance: round_robin"));
    assert!(round(&gate).iter().any(|name| name == "a"));
}

#[test]
fn where_none_is_well_all_are_used_and_that_is_told() {
    let (a, b) = (Service::new("a"), Service::new("b"));
    for one in [&a, &b] {
        one.well.store(false, SeqCst);
    }
    let gate = Binary::start(&document(&[&a, &b], QUICK));
    until(SOON, "panic", || gate.metric("pylon_upstream_panic{upstream=\"api\"}") == Some(1.0));
    until(SOON, "both are barred", || states(&gate, "unhealthy") == Some(2.0));
    let names = round(&gate);
    assert!(names.iter().any(|name| name == "a") && names.iter().any(|name| name == "b"));
    until(SOON, "a line", || gate.stderr().contains("too few endpoints are left"));
    gate.apply(&document(&[&a, &b], &format!("{QUICK}\n    panic: 0%")));
    let refused = gate.get("/x");
    assert_eq!((refused.status(), &refused.json()["code"]), (503, &"upstream.no_endpoint".into()));
}

#[test]
fn a_process_that_is_frozen_is_found_by_its_checks_and_passed_over() {
    // It would accept connections for as long as the kernel's queue has room.
    let frozen = Binary::start("routes: [{ match: \"/{*rest}\", respond: { body: frozen } }]");
    let other = Service::new("other");
    let document = format!(
        "upstreams:\n  api:\n    endpoints: [\"http://{}\", \"{}\"]\n    health: {{ path: /healthz, every: 100ms, timeout: 300ms }}\nroutes: [{{ match: \"/{{*rest}}\", forward: api }}]\n",
        frozen.address(),
        other.http.url()
    );
    let gate = Binary::start(&document);
    let barred = |gate: &Binary| gate.admin("/api/upstreams").json()[0]["endpoints"][0]["barred"][0] == "unhealthy";
    until(SOON, "both answer", || round(&gate).iter().any(|name| name == "frozen"));
    frozen.process.freeze();
    let begun = now();
    until(SOON, "it is found out", || barred(&gate));
    assert!(begun.elapsed() < ms(10_000), "{:?}", begun.elapsed());
    let begun = now();
    assert!(round(&gate).iter().all(|name| name == "other"));
    assert!(begun.elapsed() < ms(5000), "nobody waits for it: {:?}", begun.elapsed());
    frozen.process.thaw();
    until(SOON, "it is back", || !barred(&gate));
    assert!(round(&gate).iter().any(|name| name == "frozen"));
}

#[test]
fn a_listener_that_carries_bytes_passes_over_services_that_cannot_be_connected_to() {
    let address = Upstream::nobody();
    let echo = |name: &'static str| {
        move |peer: &mut pylon_testkit::upstream::Peer| {
            if peer.some().is_ok_and(|bytes| !bytes.is_empty()) {
                peer.send(name);
            }
        }
    };
    let other = Upstream::script(echo("other"));
    let gate = Binary::start(&format!(
        "listeners: [{{ address: 127.0.0.1:0, tcp: {{ forward: db }} }}]
upstreams:
  db:
    endpoints: [\"tcp://{address}\", \"tcp://{}\"]
    health: {{ tcp: true, every: 50ms, timeout: 5s }}
routes: []
",
        other.address()
    ));
    let barred = |gate: &Binary| gate.admin("/api/upstreams").json()[0]["endpoints"][0]["barred"][0] == "unhealthy";
    until(SOON, "it is found out", || barred(&gate));
    let dials = |gate: &Binary| gate.admin("/api/upstreams").json()[0]["endpoints"][0]["attempts"].as_u64();
    let before = dials(&gate);
    for _ in 0..6 {
        let mut client = gate.connect();
        client.send("hello");
        assert_eq!(client.exactly(5), b"other");
    }
    assert_eq!(dials(&gate), before, "nobody tries it");
    let _back = Upstream::script_at(address, echo("again"));
    until(SOON, "it is back", || !barred(&gate));
    let names = eventually(SOON, "it has its share", || {
        let mut client = gate.connect();
        client.send("hello");
        let name = client.exactly(5);
        (name == b"again").then_some(name)
    });
    assert_eq!(names, b"again");
}

#[test]
fn a_check_of_a_document_asks_nobody() {
    let service = Service::new("a");
    let folder = tempfile::tempdir().unwrap();
    let document = pylon_testkit::binary::complete(&document(&[&service], QUICK));
    std::fs::write(folder.path().join("pylon.yaml"), document).unwrap();
    let outcome = pylon(folder.path(), ["check", "pylon.yaml"]);
    assert_eq!(outcome.code, Some(0), "{}{}", outcome.stdout, outcome.stderr);
    assert_eq!(service.http.connections(), 0);
}
