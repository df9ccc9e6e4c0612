//! Failure 29: one endpoint of several that fails is left out by how requests fare there, and the others keep all of theirs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use pylon_testkit::answer::Answer;
use pylon_testkit::binary::Binary;
use pylon_testkit::command::pylon;
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::until;

const SOON: Duration = Duration::from_secs(20);

fn document(endpoints: &[String], outliers: &str) -> String {
    let urls: Vec<_> = endpoints.iter().map(|url| format!("\"{url}\"")).collect();
    format!(
        "workers: 2\nupstreams:\n  api:\n    endpoints: [{}]\n    outliers: {outliers}\nroutes: [{{ match: \"/{{*rest}}\", forward: api }}]\n",
        urls.join(", ")
    )
}

fn ejected(gate: &Binary) -> Vec<bool> {
    let all = gate.admin("/api/upstreams").json();
    let endpoints = all[0]["endpoints"].as_array().unwrap().clone();
    endpoints.iter().map(|one| one["barred"].as_array().unwrap().iter().any(|bar| bar == "ejected")).collect()
}

/// Requests on connections of their own, so that all workers have a part; the statuses.
fn send(gate: &Binary, count: usize) -> Vec<u16> {
    (0..count).map(|_| gate.get("/x").status()).collect()
}

#[test]
fn one_of_three_that_fails_is_soon_out_for_all_workers_and_the_others_keep_all_their_requests() {
    let broken = Arc::new(AtomicBool::new(true));
    let fails = Arc::clone(&broken);
    let bad = Upstream::http(move |_| if fails.load(SeqCst) { Answer::new(500) } else { Answer::text("fine") });
    let good = [Upstream::named("one"), Upstream::named("two")];
    let urls = [bad.url(), good[0].url(), good[1].url()];
    let gate = Binary::start(&document(&urls, "{ eject: 3s }"));
    let before = send(&gate, 30);
    let failed = before.iter().filter(|status| **status == 500).count();
    // Workers take turns for themselves; a few requests may be under way when the fifth failure comes.
    assert!((5..=6).contains(&failed), "{before:?}");
    assert_eq!(ejected(&gate), [true, false, false]);
    let seen = bad.requests();
    assert!(send(&gate, 40).iter().all(|status| *status == 200));
    assert_eq!(bad.requests(), seen);
    assert_eq!(gate.metric("pylon_ejections_total{upstream=\"api\",reason=\"failures\"}"), Some(1.0));
    assert_eq!(gate.metric("pylon_upstream_endpoints{upstream=\"api\",state=\"ejected\"}"), Some(1.0));
    let live = format!("http://{}", gate.admin);
    let told = pylon(std::path::Path::new("."), ["explain", "--live", &live, "GET", "/x"]).stdout;
    assert!(told.contains("ejected for failures in a row, for "), "{told}");
    // A reload of something else changes nothing of it.
    gate.apply(&document(&urls, "{ eject: 3s, requests: 21 }"));
    assert_eq!(ejected(&gate), [true, false, false]);
    broken.store(false, SeqCst);
    until(SOON, "it is back", || ejected(&gate) == [false; 3]);
    assert!(send(&gate, 30).iter().all(|status| *status == 200));
    assert!(bad.requests() > seen);
    let count = |text: &str| gate.stderr().lines().filter(|line| line.contains(text)).count();
    assert_eq!((count("an endpoint is ejected"), count("is tried again")), (1, 1), "{}", gate.stderr());
}

#[test]
fn one_that_is_gone_costs_nobody_a_request_and_is_tried_no_more() {
    let gone = Upstream::nobody();
    let good = [Upstream::named("one"), Upstream::named("two")];
    let gate = Binary::start(&document(&[format!("http://{gone}"), good[0].url(), good[1].url()], "on"));
    assert!(send(&gate, 60).iter().all(|status| *status == 200), "the next attempt goes elsewhere");
    assert_eq!(ejected(&gate), [true, false, false]);
    let attempts = || gate.admin("/api/upstreams").json()[0]["endpoints"][0]["attempts"].as_u64();
    let before = attempts();
    assert!(before <= Some(6), "{before:?}");
    assert!(send(&gate, 30).iter().all(|status| *status == 200));
    assert_eq!(attempts(), before);
}
