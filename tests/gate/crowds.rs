//! Failure 34 in numbers: a crowd of slow clients of all kinds, and somebody good who must not notice; and slowhttptest.
//!
//! The full form, with 10,000 clients, is run by `cargo xtask soak crowds`.

use std::process::Command;
use std::time::Duration;

use pylon_testkit::answer::{Answer, chunk};
use pylon_testkit::binary::Binary;
use pylon_testkit::client::{Raw, request};
use pylon_testkit::http2::{PREFACE, frame, hpack};
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{ms, now, pause, until};

/// How many of each kind there are.
struct Crowd {
    heads: usize,
    bodies: usize,
    readers: usize,
    /// With heads of HTTP/2 that do not end.
    blocks: usize,
}

/// The 99th of a hundred durations of good requests, all of which must be answered well.
fn slowest(gate: &Binary, many: usize) -> Duration {
    let mut client = gate.connect();
    let mut took: Vec<Duration> = (0..many)
        .map(|number| {
            let begun = now();
            // Some on a connection of their own, as newcomers have to get in, too.
            let answer = if number % 4 == 0 { gate.get("/good") } else { client.get("/good") };
            assert_eq!((answer.status(), answer.text().as_str()), (200, "good"));
            begun.elapsed()
        })
        .collect();
    took.sort_unstable();
    took[many * 99 / 100 - 1]
}

#[expect(clippy::print_stderr, reason = "the figures are what the long form is run for")]
fn endures(crowd: &Crowd) {
    let upstream = Upstream::http(|request| match request.target() {
        "/large" => Answer::bytes(1 << 20),
        _ => Answer::text("good"),
    });
    let all = crowd.heads + crowd.bodies + crowd.readers + crowd.blocks;
    // Beyond the crowd there is no room: the good ones have to get in by somebody's leaving.
    let gate = Binary::start(&format!(
        "upstreams: {{ api: {{ endpoints: [{}] }} }}
routes:
  - {{ match: /upload, respond: 200, request_limits: {{ body: 1KiB }} }}
  - {{ match: \"/{{*rest}}\", forward: api }}
limits: {{ connections: {all} }}
telemetry: {{ access_log: off }}",
        upstream.url()
    ));
    let alone = slowest(&gate, 200);
    let memory = gate.process.memory();
    let mut slow: Vec<(Raw, Vec<u8>)> = Vec::with_capacity(all);
    let mut add = |many: usize, first: Vec<u8>, then: &[u8]| {
        for _ in 0..many {
            let mut client = gate.connect();
            client.patience(ms(20));
            let _ = client.try_send(&first);
            slow.push((client, then.to_vec()));
        }
    };
    let post = request("POST", "/slow-upload", &[("transfer-encoding", "chunked")], b"");
    let get = hpack(&[(":method", "GET"), (":scheme", "http"), (":authority", "a.test"), (":path", "/good")]);
    let block = [PREFACE, &frame(4, 0, 0, &[]), &frame(1, 0, 1, &get)].concat();
    add(crowd.bodies, post, &chunk(b"a"));
    add(crowd.readers, request("GET", "/large", &[], b""), b"");
    add(crowd.blocks, block, &frame(9, 0, 1, &hpack(&[("x-a", "b")])));
    add(crowd.heads, b"GET /good HTTP/1.1\r\nhost: gate.test\r\n".to_vec(), b"x-a: b\r\n");
    for (client, then) in &mut slow {
        let _ = client.try_send(then.as_slice());
    }
    let among = slowest(&gate, 200);
    let grown = gate.process.memory().saturating_sub(memory);
    eprintln!("{all} slow clients: p99 {alone:?} alone, {among:?} among them; {} KiB more resident", grown >> 10);
    assert!(among < alone * 10 + ms(300), "{among:?} among the slow, {alone:?} alone");
    // A debug build; the buffers of a connection that was read from and of one that is written to among it.
    assert!(grown < (all as u64) * (64 << 10) + (20 << 20), "{} KiB for {all} connections", grown >> 10);
    drop(slow);
    until(ms(20_000), "they are gone", || gate.metric("pylon_connections").is_some_and(|open| open < 5.0));
    assert_eq!(gate.get("/good").status(), 200);
}

#[test]
fn a_crowd_of_slow_clients_does_not_hurt_a_good_one() {
    endures(&Crowd { heads: 900, bodies: 150, readers: 50, blocks: 100 });
}

#[test]
#[ignore = "wants 20,000 files and a minute"]
fn ten_thousand_slow_clients_do_not_hurt_a_good_one() {
    endures(&Crowd { heads: 8000, bodies: 500, readers: 200, blocks: 1300 });
}

/// slowhttptest plays slowloris, slow bodies, ranges without end, and slow reading.
#[test]
fn slowhttptest_finds_the_service_available() {
    let upstream = Upstream::http(|request| match request.target() {
        "/large" => Answer::bytes(1 << 20),
        _ => Answer::text("good"),
    });
    // Its own probe has to come in when the room is full.
    let gate = Binary::start(&format!(
        "upstreams: {{ api: {{ endpoints: [{}] }} }}\nroutes: [{{ match: \"/{{*rest}}\", forward: api }}]\nlimits: {{ connections: 300 }}",
        upstream.url()
    ));
    let url = |path: &str| format!("http://{}{path}", gate.address());
    let modes = [
        ("-H", "/", vec![]),
        ("-B", "/", vec![]),
        ("-R", "/", vec![]),
        ("-X", "/large", vec!["-w", "10", "-y", "20", "-n", "1", "-z", "32", "-k", "1"]),
    ];
    let running: Vec<_> = modes
        .into_iter()
        .map(|(mode, path, more)| {
            let mut command = Command::new("slowhttptest");
            command.args([mode, "-c", "60", "-r", "60", "-i", "1", "-l", "4", "-p", "5", "-u", &url(path)]).args(more);
            let child = command.stdout(std::process::Stdio::piped()).spawn();
            (mode, child.expect("slowhttptest is installed: run `./test --install`"))
        })
        .collect();
    pause(ms(1000));
    assert_eq!(gate.get("/good").text(), "good");
    for (mode, child) in running {
        let said = String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout).into_owned();
        assert!(said.contains("YES") && !said.contains("service available:   NO"), "{mode}: {said}");
    }
}
