//! Documents that change without end, or are large: memory stays, what was removed is gone, and changes that come faster
//! than they can be applied are put together. Failures 19, 21 and 23.
//!
//! The full forms are run by `cargo xtask soak churn`, `cycles`, `snapshots` and `flood`.

use std::fmt::Write as _;
use std::time::Duration;

use pylon_testkit::binary::Binary;
use pylon_testkit::client::{Raw, ask, request};
use pylon_testkit::figures::figure;
use pylon_testkit::load::{Load, Plan};
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{ms, now, pause, until};

use crate::rolling::free;
use crate::streams::Services;

/// Resident memory between two points, of a process that has warmed up, and is left alone before the last look for `idle`.
/// `most` says how much there may be more at the end, by what there was.
#[expect(clippy::print_stderr, reason = "the figures are what the long forms are run for")]
fn stays(gate: &Binary, times: usize, idle: Duration, most: impl Fn(u64) -> u64, mut change: impl FnMut(usize)) {
    let mut at = Vec::new();
    let mut number = 0;
    // A third of it warms the allocator up.
    for third in 1..=3 {
        for _ in 0..times / 3 {
            number += 1;
            change(number);
        }
        if third == 3 {
            pause(idle);
        }
        until(ms(5000), "one route table is in memory", || gate.metric("pylon_snapshots") == Some(1.0));
        at.push(gate.process.memory() >> 10);
    }
    eprintln!("{number} changes: {at:?} KiB resident after each third of them");
    let grown = at[2].saturating_sub(at[0]) << 10;
    let most = most(at[0] << 10);
    assert!(
        grown <= most,
        "{} KiB more resident between the first third and the last, {} at most",
        grown >> 10,
        most >> 10
    );
}

/// A client that goes away in the middle of its request or of its answer.
fn abort(gate: &Binary, path: &str, number: usize) {
    let mut client = gate.connect();
    let whole = request("GET", path, &[("host", "a")], b"");
    match number % 3 {
        0 => client.send(&whole[..whole.len() / 2]),
        1 => client.send(request("POST", path, &[("host", "a"), ("content-length", "100")], b"")),
        _ => client.send(whole),
    };
}

/// Adds a route and an upstream and uses them, and removes both; other clients go away in the middle, if there are `aborts`.
fn adds_and_removes(times: usize, aborts: bool, idle: Duration, most: impl Fn(u64) -> u64) {
    let service = Upstream::named("x");
    let document = |added: Option<usize>| {
        let mut upstreams = format!("  api: {{ endpoints: [{}] }}\n", service.url());
        let mut routes = "  - { match: /, forward: api }\n".to_owned();
        if let Some(number) = added {
            writeln!(upstreams, "  added-{number}: {{ endpoints: [{}] }}", service.url()).unwrap();
            writeln!(
                routes,
                "  - {{ match: \"/added-{number}/{{id}}\", forward: added-{number}, headers: {{ request: {{ set: {{ x-a: \"{number}\" }} }} }} }}"
            )
            .unwrap();
        }
        format!("workers: 2\ntelemetry: {{ access_log: off }}\nupstreams:\n{upstreams}routes:\n{routes}")
    };
    let gate = Binary::start(&document(None));
    stays(&gate, times, idle, most, |number| {
        gate.apply(&document(Some(number)));
        if aborts {
            abort(&gate, &format!("/added-{number}/7"), number);
        }
        assert_eq!(gate.get(&format!("/added-{number}/7")).text(), "x");
        gate.apply(&document(None));
        assert_eq!(gate.get(&format!("/added-{number}/7")).status(), 404);
    });
    // Neither the series of what is gone, nor its connections.
    until(ms(5000), "the series of removed routes and upstreams are gone", || {
        !gate.admin("/metrics").text().contains("added-")
    });
    until(ms(5000), "and so are its connections", || service.open() <= 2);
    assert_eq!(gate.admin("/api/routes").json().as_array().unwrap().len(), 1);
}

#[test]
fn what_is_added_and_removed_again_leaves_neither_memory_nor_series() {
    adds_and_removes(150, true, Duration::ZERO, |_| 3 << 20);
}

#[test]
#[ignore = "takes minutes"]
fn ten_thousand_additions_and_removals_leave_no_memory() {
    adds_and_removes(10_000, false, Duration::ZERO, |_| 6 << 20);
}

#[test]
#[ignore = "takes half an hour"]
fn a_hundred_thousand_additions_and_removals_with_clients_that_go_away_leave_memory_within_a_tenth() {
    adds_and_removes(figure("CYCLES", 100_000), true, ms(5000), |before| before / 10);
}

fn reloads_with_streams(times: usize, most: u64) {
    let services = Services::start();
    let document = |number: usize| {
        let mut text = format!(
            "workers: 2\ntelemetry: {{ access_log: off }}\nupstreams:\n{}routes:\n{}",
            services.upstreams(),
            Services::routes()
        );
        for route in 0..300 {
            writeln!(text, "  - {{ match: \"/r{number}/{route}/{{id}}\", respond: 204 }}").unwrap();
        }
        text
    };
    let gate = Binary::start(&document(0));
    let mut streams = services.open(&gate, 10);
    stays(
        &gate,
        times,
        Duration::ZERO,
        |_| most,
        |number| {
            // Some are opened under each document: none of them may hold it.
            if number % 10 == 0 {
                streams = services.open(&gate, 10);
            }
            gate.apply(&document(number));
            streams.speak();
        },
    );
    assert_eq!(gate.metric("pylon_tunnels"), Some(10.0));
}

#[test]
fn reloads_with_streams_open_keep_one_route_table_in_memory() {
    // So short a run has not come to rest; the long form says that it does.
    reloads_with_streams(300, 8 << 20);
}

#[test]
#[ignore = "takes minutes"]
fn a_thousand_reloads_with_streams_open_keep_one_route_table_in_memory() {
    reloads_with_streams(1000, 6 << 20);
}

/// A document with many routes, of which the last says `text`.
fn many(routes: usize, service: &Upstream, text: &str) -> String {
    let mut document = format!(
        "workers: 2\ntelemetry: {{ access_log: off }}\nupstreams: {{ api: {{ endpoints: [{}] }} }}\nroutes:\n",
        service.url()
    );
    document += "  - { match: /, forward: api }\n";
    for number in 0..routes {
        writeln!(document, "  - {{ match: \"GET /service-{number:05}/{{id}}/items\", forward: api }}").unwrap();
    }
    writeln!(document, "  - {{ match: /last, respond: {{ status: 200, body: {text} }} }}").unwrap();
    document
}

/// The seconds of the issue are those of a build for users, and `cargo xtask bench change` holds them; this is one for
/// debugging, on a machine with other work.
#[test]
fn one_change_among_ten_thousand_routes_is_soon_live_and_holds_no_traffic_up() {
    let service = Upstream::named("x");
    let gate = Binary::start(&many(10_000, &service, "before"));
    let load = Load::start(&Plan { address: gate.address(), clients: 4, rate: 200, path: "/", text: "x" });
    pause(ms(500));
    gate.write(&many(10_000, &service, "after"));
    load.phase(1);
    let asked = now();
    assert_eq!(gate.reload().status(), 200);
    let took = asked.elapsed();
    assert_eq!(gate.get("/last").text(), "after");
    load.phase(2);
    let times = load.end();
    assert!(took < ms(8000), "the change took {took:?}");
    // Compiling takes a processor for its time, not the workers.
    let (before, during) = (times.of_phase(0, 990), times.of_phase(1, 990));
    assert!(during < before * 10 + ms(250), "p99 {before:?} before, {during:?} during the change");
}

/// Failure 20: a window of 404 or 503 at the start.
#[test]
fn at_a_start_nobody_is_answered_before_the_whole_document_serves() {
    let service = Upstream::named("x");
    let (address, admin) = (free(5), free(6));
    let head = format!("listeners: [{{ address: \"{address}\" }}]\nadmin: {{ address: \"{admin}\" }}\n");
    let document = head + &many(5000, &service, "whole");
    // Built beforehand: the time until it serves is waited for.
    pylon_testkit::command::program();
    let starting = std::thread::spawn(move || Binary::start(&document));
    let asked = |to, path: &str| {
        let mut raw = Raw::try_connect(to).ok()?;
        Some(raw.send(request("GET", path, &[("host", "localhost")], b"")).response())
    };
    // Whoever gets in gets the answer of the last route.
    let (mut served, mut ready) = (0, 0);
    until(ms(20_000), "it serves and is ready", || {
        ready += asked(admin, "/readyz").map_or(0, |answer| u32::from(answer.status() == 200));
        let answer = asked(address, "/last");
        assert!(answer.is_some() || ready == 0, "it says that it is ready, and is not");
        served += answer.map_or(0, |answer| {
            assert_eq!((answer.status(), answer.text().as_str()), (200, "whole"));
            1
        });
        served > 3 && ready > 3
    });
    starting.join().unwrap();
}

/// Changes that come faster than they can be applied.
struct Flood {
    routes: usize,
    /// For how many seconds there are fifty of them each second.
    seconds: u32,
    /// How much longer the 99th of a hundred requests may take meanwhile.
    times: f64,
    more: Duration,
}

/// Fifty a second, each with another document, by those who ask and wait for the answer. Answers how many there were.
fn fifty_a_second(
    gate: &Binary,
    seconds: u32,
    document: &dyn Fn(usize) -> String,
    ask_for: (&'static str, &'static str),
) -> usize {
    let (admin, each) = (gate.admin, Duration::from_millis(20));
    let (begun, number) = (now(), 50 * seconds);
    // Over the old one in one step, so that nobody reads half a document; or left beside it.
    let (beside, place) = (gate.folder().join("next"), gate.folder().join("pylon.yaml"));
    let asking: Vec<_> = (1..=number)
        .map(|number| {
            pause((begun + each * number).saturating_duration_since(now()));
            std::fs::write(&beside, document(number as usize)).unwrap();
            if ask_for.0 == "POST" {
                std::fs::rename(&beside, &place).unwrap();
            }
            std::thread::spawn(move || {
                let answer = ask(admin, ask_for.0, ask_for.1, &[("host", "localhost")], b"");
                assert_eq!(answer.status(), 200, "{}", answer.text());
            })
        })
        .collect();
    for asked in asking {
        asked.join().expect("each who asks is answered");
    }
    number as usize
}

#[expect(clippy::print_stderr, reason = "the figures are what the long form is run for")]
fn floods(flood: &Flood) {
    let service = Upstream::named("x");
    // All but the end of it is made once.
    let whole = pylon_testkit::binary::complete(&many(flood.routes, &service, "turn0"));
    let document = |number: usize| whole.replacen("body: turn0 ", &format!("body: turn{number} "), 1);
    let gate = Binary::start_with(&document(0), &["--watch", "on"], |_| {});
    let applied = || gate.metric("pylon_config_reloads_total{outcome=\"applied\"}").unwrap();
    let load = Load::start(&Plan { address: gate.address(), clients: 4, rate: 200, path: "/", text: "x" });
    // As busy, without a change: the files are written beside, and somebody else is asked.
    let quiet = (flood.seconds / 3).max(1);
    fifty_a_second(&gate, quiet, &document, ("GET", "/readyz"));
    load.phase(1);
    let begun = now();
    let changes = fifty_a_second(&gate, flood.seconds, &document, ("POST", "/api/reload"));
    // Whoever asked last was answered when the last one served.
    assert_eq!(gate.get("/last").text(), format!("turn{changes}"));
    let took = begun.elapsed();
    load.phase(2);
    let by_asking = applied();
    // In the files alone, without anybody who asks: they come to rest first.
    let last = changes + 50;
    for number in changes + 1..=last {
        std::fs::write(gate.folder().join("pylon.yaml"), document(number)).unwrap();
        pause(ms(20));
    }
    let at_last = format!("turn{last}");
    until(ms(15_000), "the last one of the files serves", || gate.get("/last").text() == at_last);
    let by_files = applied() - by_asking;
    let times = load.end();
    let (before, during) = (times.of_phase(0, 990), times.of_phase(1, 990));
    eprintln!(
        "{changes} changes among {} routes, fifty a second: {by_asking} reloads in {took:?}; p99 {before:?} before, {during:?} during them",
        flood.routes
    );
    assert!(took < Duration::from_secs(flood.seconds.into()) + ms(9000), "{changes} changes took {took:?}");
    // As many as there is time for, whoever asked meanwhile.
    assert!((1.0..=changes as f64 / 2.0).contains(&by_asking) && by_files <= 4.0, "{by_asking} and {by_files} reloads");
    let most = before.mul_f64(flood.times).max(before + flood.more);
    assert!(during <= most, "p99 {before:?} before, {during:?} during the changes");
}

/// The bound is wider than that of the long form: a build for debugging compiles documents slowly, and other tests run.
#[test]
fn fifty_changes_a_second_are_put_together_and_the_last_one_is_in_force() {
    floods(&Flood { routes: 4000, seconds: 1, times: 10.0, more: ms(250) });
}

#[test]
#[ignore = "takes two minutes and wants the machine for itself"]
fn fifty_changes_a_second_for_a_minute_among_ten_thousand_routes_are_not_felt() {
    let seconds = u32::try_from(figure("SECONDS", 60)).unwrap();
    floods(&Flood { routes: figure("ROUTES", 10_000), seconds, times: 1.2, more: ms(5) });
}
