//! Failure 42: metrics that take the gateway down, and labels without bound.

use std::fmt::Write as _;
use std::time::Duration;

use pylon_testkit::binary::Binary;
use pylon_testkit::client::request;
use pylon_testkit::wait::now;

const ROUTES: usize = 10_000;

/// How long a scrape of all of them may take: as wanted in a release build, scaled without optimisation.
const SCRAPE: Duration = Duration::from_millis(if cfg!(debug_assertions) { 5000 } else { 500 });

#[test]
fn ten_thousand_routes_are_scraped_in_no_time_and_labelled_by_their_ids() {
    let mut document = "telemetry: { access_log: off }\nroutes:\n".to_owned();
    for number in 0..ROUTES {
        writeln!(document, "  - {{ match: \"/r{number}/{{id}}\", respond: 204 }}").unwrap();
    }
    let gate = Binary::start(&document);
    let mut client = gate.connect();
    // Sent ahead in lots, or the test measures round trips.
    for lot in 0..ROUTES / 100 {
        let wire: Vec<u8> =
            (0..100).flat_map(|one| request("GET", &format!("/r{}/secret-7", lot * 100 + one), &[], b"")).collect();
        client.send(wire);
        for _ in 0..100 {
            assert_eq!(client.response().status(), 204);
        }
    }
    let begun = now();
    let text = gate.admin("/metrics").text();
    let took = begun.elapsed();
    assert!(took < SCRAPE, "a scrape took {took:?}");
    let series = text.lines().filter(|line| line.starts_with("pylon_requests_total{")).count();
    assert_eq!(series, ROUTES);
    assert!(text.contains("pylon_requests_total{route=\"/r9999/{id}\",status_class=\"2xx\"} 1\n"));
    assert!(!text.contains("secret-7"), "a path is no label");
    // Traffic goes on while somebody scrapes.
    let scraping = std::thread::spawn({
        let admin = gate.admin;
        move || pylon_testkit::client::ask(admin, "GET", "/metrics", &[("host", "localhost")], b"").status()
    });
    let mut slowest = Duration::ZERO;
    for _ in 0..200 {
        let begun = now();
        assert_eq!(client.get("/r5/x").status(), 204);
        slowest = slowest.max(begun.elapsed());
    }
    assert_eq!(scraping.join().unwrap(), 200);
    assert!(slowest < Duration::from_millis(500), "a request waited {slowest:?} for a scrape");
}

#[test]
fn requests_that_no_route_takes_share_one_label_whatever_they_ask_for() {
    let gate = Binary::start("telemetry: { access_log: off }\nroutes: [{ match: /known, respond: 204 }]");
    for number in 0..50 {
        assert_eq!(gate.get(&format!("/random-{number}")).status(), 404);
        let method = format!("M{number}");
        assert!(gate.ask(&method, "/known", &[], b"").status() < 500);
    }
    let text = gate.admin("/metrics").text();
    let routes: std::collections::BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("pylon_requests_total{route=\""))
        .filter_map(|line| line.split('"').next())
        .collect();
    assert!(routes.len() <= 2, "{routes:?}");
    assert!(!text.contains("random-") && !text.contains("M49"));
    assert_eq!(gate.metric("pylon_rejections_total{code=\"route.not_found\"}"), Some(50.0));
}

#[test]
fn percentiles_can_be_told_from_the_buckets() {
    let gate = Binary::start("telemetry: { access_log: off }\nroutes: [{ match: /, name: root, respond: 204 }]");
    let mut client = gate.connect();
    for _ in 0..100 {
        client.get("/");
    }
    let text = gate.admin("/metrics").text();
    let buckets: Vec<f64> = text
        .lines()
        .filter(|line| line.starts_with("pylon_request_duration_seconds_bucket{route=\"root\""))
        .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
        .collect();
    assert!(buckets.len() >= 20, "{}", buckets.len());
    assert!(buckets.is_sorted() && buckets.last() == Some(&100.0), "{buckets:?}");
    assert_eq!(gate.metric("pylon_request_duration_seconds_count{route=\"root\"}"), Some(100.0));
}
