//! Proofs about the log: what a line holds, and that a sink which is stuck or broken costs lines and never memory.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;

use http::{HeaderValue, Method};
use proptest::prelude::*;
use pylon_core::exchange::{Exchange, Failing, Injected, StandIn, StoodIn, Timer};
use pylon_core::rejection;
use serde_json::{Value, json};

use super::*;
use crate::clock::monotonic;
use crate::ending::{End, Ending};
use crate::series::RouteShard;
use crate::tests::{ending, exchange, route};

fn line_of(route: &RouteShard, exchange: &Exchange, ending: &Ending, redaction: &Redaction) -> Value {
    let mut out = Vec::new();
    let (started, took) = (Duration::from_millis(1_000), Duration::from_micros(1_042));
    Line { route, exchange, ending, started, took }.write(&mut out, &mut Stamp::default(), redaction);
    assert_eq!(out.split(|&byte| byte == b'\n').count(), 2);
    assert_eq!(out.last(), Some(&b'\n'));
    serde_json::from_slice(&out).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&out)))
}

fn log_to(sink: Sink, capacity: usize) -> (AccessLog, Arc<LogCounts>) {
    let counts = Arc::new(LogCounts::default());
    let open = Open::start(sink, capacity, &counts).unwrap();
    (AccessLog { open: Some(open), redaction: Arc::default(), headers: Box::default() }, counts)
}

fn open(path: &Path) -> (AccessLog, Arc<LogCounts>) {
    let plan = LogPlan { to: LogTarget::File(path.into()), redact: Box::default(), headers: Box::default() };
    let counts = Arc::new(LogCounts::default());
    (AccessLog::open(&plan, Arc::default(), &counts).unwrap(), counts)
}

fn record(log: &AccessLog, lines: u64) {
    let (series, exchange, ending) = (route("r"), exchange("/some/path?with=query"), ending(200, End::Complete));
    let (started, took) = (Duration::from_secs(1), Duration::from_millis(1));
    for _ in 0..lines {
        log.record(&Line { route: series.mine(), exchange: &exchange, ending: &ending, started, took });
    }
}

fn counted(counts: &LogCounts) -> (u64, u64) {
    (counts.written.load(Ordering::Relaxed), counts.dropped.load(Ordering::Relaxed))
}

/// Waits up to ten seconds.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if holds() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    panic!("it never came true that {what}");
}

#[test]
fn a_line_tells_all_that_happened() {
    let mut exchange = exchange("/users/7?x=1&token=abc");
    exchange.trail.upstream = Some("users".into());
    exchange.trail.endpoint = Some("10.0.0.1:8080".parse().unwrap());
    exchange.trail.attempts = 2;
    exchange.trail.reused = true;
    exchange.trail.upstream_time = Some(Duration::from_micros(10_500));
    exchange.trail.timer = Some(Timer::FirstByte);
    exchange.trail.refuse(&rejection::UPSTREAM_TIMEOUT.because("the first_byte timer (10s) fired"));
    let on = Failing::Call(&rejection::UPSTREAM_CONNECT);
    exchange.trail.fallback = Some(StandIn { by: StoodIn::Respond, on, from: Some("orders".into()) });
    exchange.trail.injected = Some(Injected::Both);
    exchange.trail.shadowed.push(("ip_filter", "ip_filter.denied"));
    exchange.trail.shadowed.push(("maintenance", "maintenance.on"));
    exchange.trail.noted.push((http::header::USER_AGENT, HeaderValue::from_bytes(b"a \"b\" \xff").unwrap()));
    let redaction = Redaction::new(["token".into()].into());
    let line = line_of(route("GET /users/{id}").mine(), &exchange, &ending(504, End::Complete), &redaction);
    assert_eq!(
        line,
        json!({
            "time": "1970-01-01T00:00:01.000Z",
            "id": "id-1",
            "client": "203.0.113.9",
            "method": "GET",
            "host": "api.example",
            "path": "/users/7?x=1&token=***",
        "protocol": "HTTP/1.1",
            "status": 504,
            "bytes_in": 10,
            "bytes_out": 1234,
            "duration_ms": 1.042,
            "route": "GET /users/{id}",
            "upstream": "users",
            "endpoint": "10.0.0.1:8080",
            "attempts": 2,
            "reused": true,
            "upstream_ms": 10.5,
            "injected": ["delay", "abort"],
            "fallback": "respond",
            "fallback_on": "upstream.connect",
            "fallback_from": "orders",
            "reason": "upstream.timeout",
            "detail": "the first_byte timer (10s) fired",
            "timer": "first_byte",
            "shadow": [
                { "policy": "ip_filter", "code": "ip_filter.denied" },
                { "policy": "maintenance", "code": "maintenance.on" },
            ],
            "headers": { "user-agent": "a \"b\" \u{FFFD}" },
            "end": "complete",
        })
    );
}

#[test]
fn what_is_absent_is_left_out() {
    let mut exchange = exchange("/");
    exchange.host = None;
    let line = line_of(route("r").mine(), &exchange, &ending(404, End::Complete), &Redaction::default());
    let members: Vec<_> = line.as_object().unwrap().keys().map(String::as_str).collect();
    let always = [
        "time",
        "id",
        "client",
        "method",
        "path",
        "protocol",
        "status",
        "bytes_in",
        "bytes_out",
        "duration_ms",
        "route",
        "end",
    ];
    assert_eq!(members, always);
}

#[test]
fn a_client_that_went_away_is_logged_as_499_and_a_timer_by_its_name() {
    let line = line_of(route("r").mine(), &exchange("/"), &ending(200, End::ClientGone), &Redaction::default());
    assert_eq!((&line["status"], &line["end"]), (&json!(499), &json!("client_gone")));
    let line =
        line_of(route("r").mine(), &exchange("/"), &ending(200, End::Timeout(Timer::Idle)), &Redaction::default());
    assert_eq!((&line["status"], &line["end"], &line["timer"]), (&json!(200), &json!("timeout"), &json!("idle")));
}

#[test]
fn a_path_of_any_length_makes_a_line_of_bounded_length() {
    let long = format!("/{}", "a".repeat(60_000));
    let line = line_of(route("r").mine(), &exchange(&long), &ending(200, End::Complete), &Redaction::default());
    let path = line["path"].as_str().unwrap();
    assert!(path.ends_with('…') && path.len() < 9_000);
}

proptest! {
    #[test]
    fn every_line_is_json_and_gives_back_what_went_in(
        path in r#"/[!-~äß€"\\]{0,60}"#, host in any::<String>(), detail in any::<String>(), id in "[ -~]{0,40}", name in any::<String>(),
        header in proptest::collection::vec(0x20_u8..0x7f, 0..60), v6 in any::<[u16; 8]>(), method in "[A-Z!#$%&'*+.^_`|~-]{1,30}",
    ) {
        let path = path.replace('#', "");
        let Ok(target) = path.parse::<http::uri::PathAndQuery>() else { return Ok(()) };
        let mut exchange = exchange("/");
        exchange.path = target;
        exchange.host = Some(host.clone().into());
        exchange.client = v6.into();
        exchange.method = Method::from_bytes(method.as_bytes()).unwrap();
        exchange.request_id = HeaderValue::from_str(&id).unwrap();
        exchange.trail.noted.push((http::header::REFERER, HeaderValue::from_bytes(&header).unwrap()));
        exchange.trail.refuse(&rejection::INTERNAL.because(detail.clone()));
        let line = line_of(route(&name).mine(), &exchange, &ending(500, End::Complete), &Redaction::default());
        prop_assert_eq!(line["path"].as_str().unwrap(), path);
        prop_assert_eq!(line["route"].as_str().unwrap(), name);
        prop_assert_eq!(line["id"].as_str().unwrap(), id);
        prop_assert_eq!(line["method"].as_str().unwrap(), method);
        prop_assert_eq!(line["headers"]["referer"].as_str().unwrap().as_bytes(), header);
        prop_assert_eq!(line["client"].as_str().unwrap(), exchange.client.to_string());
        for (member, text) in [("host", &host), ("detail", &detail)] {
            let told = line[member].as_str().unwrap();
            prop_assert_eq!(told.trim_end_matches('…'), crate::json::cut(text, 1024).0.trim_end_matches('…'));
        }
    }
}

#[test]
fn lines_reach_the_file_at_a_tick_and_its_mode_is_0640() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let (log, counts) = open(&path);
    record(&log, 3);
    assert_eq!(counted(&counts), (0, 0));
    log.tick(monotonic());
    eventually("three lines are written", || counted(&counts) == (3, 0));
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.lines().count() == 3 && text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
    // The umask may take rights away, but none are given beyond these.
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777 & !0o640, 0);
}

#[test]
fn nothing_is_lost_at_the_end_of_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let (log, counts) = open(&path);
    record(&log, 20_000);
    assert_eq!(log.close(Duration::from_secs(10)), 0);
    assert_eq!(counted(&counts), (20_000, 0));
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 20_000);
}

#[test]
fn a_rotated_file_is_left_and_a_new_one_begun() {
    let folder = tempfile::tempdir().unwrap();
    let (path, old) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
    let (log, counts) = open(&path);
    record(&log, 2);
    log.tick(monotonic());
    eventually("the first lines are written", || counted(&counts) == (2, 0));
    fs::rename(&path, &old).unwrap();
    log.reopen();
    eventually("the new file is there", || path.exists());
    record(&log, 3);
    assert_eq!(log.close(Duration::from_secs(10)), 0);
    assert_eq!(fs::read_to_string(&old).unwrap().lines().count(), 2);
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 3);
}

#[test]
fn a_folder_that_is_missing_is_an_error_that_names_the_file() {
    let plan = LogPlan {
        to: LogTarget::File("/no/such/folder/a.log".into()),
        redact: Box::default(),
        headers: Box::default(),
    };
    let error = AccessLog::open(&plan, Arc::default(), &Arc::default()).unwrap_err();
    assert!(error.to_string().starts_with("the access log `/no/such/folder/a.log` cannot be opened"), "{error}");
}

#[test]
fn a_pipe_that_nobody_reads_costs_lines_and_no_memory_and_recovers_when_a_reader_comes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let (log, counts) = open(&path);
    let queue = Arc::clone(&log.open.as_ref().unwrap().queue);
    // 60,000 lines of some 230 bytes are more than the queue, the pipe and the buffers hold together.
    for _ in 0..60 {
        record(&log, 1_000);
        assert!(queue.held() <= QUEUE, "{}", queue.held());
    }
    let lost = counted(&counts).1;
    assert!(lost > 0);
    // The writer is stuck in the system, so the end of the process does not wait for it beyond its deadline; here a
    // reader comes instead.
    let mut reader = fs::File::open(&path).unwrap();
    let (enough, read) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let (stop, into) = (Arc::clone(&enough), Arc::clone(&read));
    std::thread::spawn(move || {
        let mut piece = vec![0; 65_536];
        while !stop.load(Ordering::Relaxed) {
            let n = reader.read(&mut piece).unwrap();
            into.lock().extend_from_slice(&piece[..n]);
        }
    });
    eventually("what waited is written", || queue.held() == 0);
    record(&log, 100);
    log.tick(monotonic());
    eventually("new lines are written again", || counted(&counts).0 + lost == 60_100);
    assert_eq!(counted(&counts).1, lost);
    enough.store(true, Ordering::Relaxed);
    eventually("the reader has it all", || {
        read.lock().split(|&byte| byte == b'\n').skip(1).count() as u64 + lost == 60_100
    });
    let read = read.lock();
    assert!(
        read.split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
            .all(|line| serde_json::from_slice::<Value>(line).is_ok())
    );
}

/// A writer that stands still while its gate is shut, and that may fail.
#[derive(Clone, Default)]
struct Gate {
    shut: Arc<AtomicBool>,
    broken: Arc<AtomicBool>,
    out: Arc<Mutex<Vec<u8>>>,
}

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        while self.shut.load(Ordering::Relaxed) {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        if self.broken.load(Ordering::Relaxed) {
            return Err(io::Error::other("no space left"));
        }
        // In small pieces, as a pipe would; the last piece breaks off inside a line.
        let taken = bytes.len().min(10_007);
        self.out.lock().extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_sink_that_stands_still_never_makes_a_request_wait_and_the_end_keeps_its_deadline() {
    let gate = Gate::default();
    gate.shut.store(true, Ordering::Relaxed);
    let (log, counts) = log_to(Sink::of(gate.clone()), 256 * 1024);
    let before = monotonic();
    record(&log, 20_000);
    assert!(before.elapsed() < Duration::from_secs(5));
    let dropped = counted(&counts).1;
    assert!(dropped > 10_000, "{dropped}");
    let before = monotonic();
    let left = log.close(Duration::from_millis(100));
    assert!(left > 0 && before.elapsed() < Duration::from_secs(5));
    assert_eq!(counted(&counts).1, dropped + left);
    assert_eq!(counted(&counts).1 + counted(&counts).0, 20_000);
    gate.shut.store(false, Ordering::Relaxed);
}

#[test]
fn small_batches_of_a_quiet_time_do_not_fill_the_queue_of_a_stuck_sink() {
    let gate = Gate::default();
    gate.shut.store(true, Ordering::Relaxed);
    let (log, counts) = log_to(Sink::of(gate.clone()), 256 * 1024);
    for _ in 0..500 {
        record(&log, 1);
        log.tick(monotonic());
    }
    assert_eq!(counted(&counts).1, 0);
    gate.shut.store(false, Ordering::Relaxed);
    assert_eq!(log.close(Duration::from_secs(10)), 0);
    assert_eq!(counted(&counts), (500, 0));
}

#[test]
fn a_sink_that_fails_is_counted_and_the_lines_after_it_are_whole() {
    let gate = Gate::default();
    let (log, counts) = log_to(Sink::of(gate.clone()), QUEUE);
    record(&log, 10);
    log.tick(monotonic());
    eventually("the first lines are written", || counted(&counts) == (10, 0));
    gate.broken.store(true, Ordering::Relaxed);
    record(&log, 10);
    log.tick(monotonic());
    eventually("the lines are dropped", || counted(&counts) == (10, 10));
    gate.broken.store(false, Ordering::Relaxed);
    record(&log, 10);
    assert_eq!(log.close(Duration::from_secs(10)), 0);
    assert_eq!(counted(&counts), (20, 10));
    let out = gate.out.lock();
    assert!(out.split(|&b| b == b'\n').filter(|l| !l.is_empty()).all(|l| serde_json::from_slice::<Value>(l).is_ok()));
}

#[test]
fn a_line_that_broke_off_does_not_spoil_the_next() {
    struct Full(Arc<Mutex<Vec<u8>>>, usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let room = if self.0.lock().len() >= 500 && self.1 > 0 { 0 } else { bytes.len().min(500) };
            if room == 0 {
                self.1 -= 1;
                return Err(io::Error::other("no space left"));
            }
            self.0.lock().extend_from_slice(&bytes[..room]);
            Ok(room)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let out = Arc::new(Mutex::new(Vec::new()));
    let (log, counts) = log_to(Sink::of(Full(Arc::clone(&out), 1)), QUEUE);
    record(&log, 10);
    log.tick(monotonic());
    eventually("the rest of the batch is dropped", || counted(&counts).0 + counted(&counts).1 == 10);
    let first = counted(&counts);
    assert!(first.0 > 0 && first.1 > 0, "{first:?}");
    record(&log, 10);
    assert_eq!(log.close(Duration::from_secs(10)), 0);
    assert_eq!(counted(&counts), (first.0 + 10, first.1));
    let out = out.lock();
    let good = out.split(|&b| b == b'\n').filter(|l| serde_json::from_slice::<Value>(l).is_ok()).count();
    assert_eq!(good as u64, first.0 + 10);
}
