//! One of three instances of a service is killed, frozen, slowed or made to answer garbage while clients ask. Failures 28 and
//! 29: it is found out soon, and from then on clients of idempotent requests notice nothing; once it is well it has work again.
//!
//! The instances are real nginx processes. Breakers and health checks find out what is wrong; what falls before that is caught
//! by the retry. An answer that is no HTTP is not asked for again, so a few clients meet those.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use pylon_testkit::binary::Binary;
use pylon_testkit::nginx::Nginx;
use pylon_testkit::tally::{Outcome, Tally};
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{ms, pause, until};
use serde_json::Value;

/// How many of a million requests have to be well once the fault is found out.
const WELL: usize = 999_000;

fn instance() -> Nginx {
    // Many requests on a connection, as a service in use would have it.
    Nginx::start("keepalive_requests 100000; location / { return 200 well; }")
}

fn gate(instances: &[SocketAddr]) -> Binary {
    let urls: Vec<_> = instances.iter().map(|address| format!("http://{address}")).collect();
    Binary::start(&format!(
        "workers: 2
telemetry: {{ access_log: off }}
upstreams:
  api:
    endpoints: [{}]
    timeout: {{ connect: 500ms, response: 8s }}
    health: {{ path: /healthz, every: 300ms, timeout: 1s, fall: 2, rise: 2 }}
    breaker: {{ consecutive: 5, slow: 400ms, min_requests: 10, open: 500ms }}
    retry: {{ attempts: 2, per_try: 1s }}
routes: [{{ match: \"/{{*rest}}\", forward: api }}]",
        urls.join(", ")
    ))
}

/// The endpoint at `address`, as the admin API shows it.
fn shown(gate: &Binary, address: SocketAddr) -> Value {
    let view: Value = serde_json::from_str(&gate.admin("/api/upstreams").text()).unwrap();
    let wanted = address.to_string();
    let endpoints = view[0]["endpoints"].as_array().unwrap();
    endpoints.iter().find(|one| one["endpoint"] == wanted.as_str()).unwrap().clone()
}

fn is_barred(gate: &Binary, address: SocketAddr) -> bool {
    !shown(gate, address)["barred"].as_array().unwrap().is_empty()
}

/// Whether its health checks have found out what is wrong: from then on no request is sent there to see.
fn is_unhealthy(gate: &Binary, address: SocketAddr) -> bool {
    shown(gate, address)["barred"].as_array().unwrap().iter().any(|bar| bar == "unhealthy")
}

/// Does `harm` to one of three under load, and `heal`s it where that can be. Phase 0 is before, 1 until it is found out, 2 after
/// that, 3 when it is well again.
fn endures<H>(what: &str, harm: impl FnOnce(&mut Nginx) -> H, heal: Option<fn(H, &Nginx)>) {
    let mut instances = [instance(), instance(), instance()];
    let addresses = instances.each_ref().map(Nginx::address);
    let gate = gate(&addresses);
    let tally = Tally::start(gate.address(), 8, 400, "/x");
    let more = |requests: usize| {
        let enough = tally.asked() + requests;
        until(ms(60_000), "there are further answers", || tally.asked() >= enough);
    };
    more(400);
    tally.phase(1);
    let harmed = harm(&mut instances[0]);
    until(ms(20_000), "it is found out", || is_unhealthy(&gate, addresses[0]));
    assert!(!is_unhealthy(&gate, addresses[1]) && !is_unhealthy(&gate, addresses[2]), "{what}: others are blamed");
    tally.phase(2);
    more(2_000);
    assert!(!is_unhealthy(&gate, addresses[1]) && !is_unhealthy(&gate, addresses[2]), "{what}: others are blamed");
    if let Some(heal) = heal {
        heal(harmed, &instances[0]);
        until(ms(30_000), "it is well again", || !is_barred(&gate, addresses[0]));
        let attempts = shown(&gate, addresses[0])["attempts"].as_u64().unwrap();
        tally.phase(3);
        more(600);
        assert!(shown(&gate, addresses[0])["attempts"].as_u64().unwrap() > attempts + 100, "{what}: it has no work");
    }
    let phases = tally.end();
    let well = |phase: usize, least: usize| {
        let outcome: &Outcome = &phases[phase];
        assert!(outcome.per_million() >= least, "{what}, phase {phase}: {outcome:?}");
    };
    well(0, 1_000_000);
    // Whoever was there when it happened had a retry; a few may have run out of them.
    well(1, 950_000);
    well(2, WELL);
    if phases.len() > 3 {
        well(3, WELL);
    }
}

#[test]
fn an_instance_that_is_killed_under_load_is_missed_by_nobody() {
    endures("killed", |one| one.process.kill(), None);
}

#[test]
fn an_instance_that_is_frozen_under_load_is_missed_by_nobody_and_works_once_it_thaws() {
    endures("frozen", |one| one.process.freeze(), Some(|(), one| one.process.thaw()));
}

#[test]
fn an_instance_that_answers_garbage_under_load_is_kept_from_clients() {
    endures(
        "garbage",
        |one| {
            let address = one.address();
            one.process.kill();
            Upstream::script_at(address, |peer| while peer.head().is_ok() && peer.send("SMTP/9 220 hello\r\n\r\n") {})
        },
        None,
    );
}

/// It stands still for most of the time, so that everything takes a second or more.
#[test]
fn an_instance_that_is_slow_under_load_holds_up_few() {
    let mut instances = [instance(), instance(), instance()];
    let addresses = instances.each_ref().map(Nginx::address);
    let gate = gate(&addresses);
    let tally = Tally::start(gate.address(), 8, 200, "/x");
    let [first, ..] = &mut instances;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(SeqCst) {
                first.process.freeze();
                pause(ms(900));
                first.process.thaw();
                pause(ms(5));
            }
        });
        until(ms(20_000), "it is found out", || is_barred(&gate, addresses[0]));
        tally.phase(1);
        let enough = tally.asked() + 2_000;
        until(ms(60_000), "there are further answers", || tally.asked() >= enough);
        stop.store(true, SeqCst);
    });
    until(ms(30_000), "it is well again", || !is_barred(&gate, addresses[0]));
    let phases = tally.end();
    assert!(phases[0].per_million() >= 950_000 && phases[1].per_million() >= WELL, "{phases:?}");
}
