//! How a gateway ends: requests under way finish, a second signal ends at once, the demo ends by Ctrl-C.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use pylon_testkit::answer::Answer;
use pylon_testkit::binary::Binary;
use pylon_testkit::client::{Raw, request};
use pylon_testkit::command::program;
use pylon_testkit::process::{Lines, Process};
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{ms, until};

use crate::forwarding::before;

#[test]
fn requests_under_way_finish_when_the_end_is_asked_for() {
    let upstream = Upstream::http(|_| Answer::text("late").after(ms(500)));
    let mut gate = before(&upstream, "");
    let mut clients: Vec<Raw> = (0..20).map(|_| gate.connect()).collect();
    let mut idle = gate.connect();
    for client in &mut clients {
        client.send(request("GET", "/late", &[], b""));
    }
    until(ms(5000), "the service has all requests", || upstream.requests() == 20);
    gate.process.terminate();
    for client in &mut clients {
        let answer = client.response();
        assert_eq!((answer.status(), answer.text().as_str()), (200, "late"));
        assert_eq!(answer.field("connection").as_deref(), Some("close"), "the client is told not to come again");
        client.expect_closed();
    }
    idle.expect_closed();
    assert_eq!(gate.process.code(ms(5000)), Some(0));
    assert_eq!(gate.log().len(), 20, "the log is written out to the last line");
}

#[test]
fn under_load_no_request_that_was_taken_is_lost() {
    let upstream = Upstream::named("x");
    let mut gate = before(&upstream, "telemetry: { access_log: off }");
    let (address, ending) = (gate.address(), Arc::new(AtomicBool::new(false)));
    let answered = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (ending, answered) = (Arc::clone(&ending), Arc::clone(&answered));
            std::thread::spawn(move || {
                // Until the gateway closes, as it says it will, or accepts no more.
                while let Ok(mut client) = Raw::try_connect(address) {
                    loop {
                        if client.try_send(request("GET", "/", &[], b"")).is_err() {
                            break;
                        }
                        match client.try_response("GET") {
                            Ok(answer) => {
                                assert_eq!(answer.text(), "x");
                                answered.fetch_add(1, SeqCst);
                                if answer.field("connection").is_some() {
                                    break;
                                }
                            }
                            // A connection that was idle may be closed under a request, but only when the end is near.
                            Err(error) => {
                                assert!(ending.load(SeqCst), "lost in mid-life: {error:?}");
                                break;
                            }
                        }
                    }
                }
            })
        })
        .collect();
    until(ms(5000), "there is load", || answered.load(SeqCst) > 200);
    ending.store(true, SeqCst);
    assert_eq!(gate.end(), Some(0));
    for client in clients {
        client.join().unwrap();
    }
}

#[test]
fn readiness_ends_before_the_gateway_does() {
    let upstream = Upstream::http(|_| Answer::text("late").after(ms(600)));
    let mut gate = before(&upstream, "");
    let mut client = gate.connect();
    client.send(request("GET", "/", &[], b""));
    until(ms(5000), "the service has the request", || upstream.requests() == 1);
    gate.process.terminate();
    until(ms(400), "it is not ready any more", || gate.admin("/readyz").status() == 503);
    assert_eq!(gate.admin("/livez").status(), 200);
    assert_eq!(client.response().text(), "late");
    assert_eq!(gate.process.code(ms(5000)), Some(0));
}

#[test]
fn a_second_signal_ends_at_once() {
    let upstream = Upstream::http(|_| Answer::text("never").after(ms(9000)));
    let mut gate = before(&upstream, "");
    let mut client = gate.connect();
    client.send(request("GET", "/", &[], b""));
    until(ms(5000), "the service has the request", || upstream.requests() == 1);
    gate.process.interrupt();
    until(ms(5000), "the first signal is heard", || gate.stderr().contains("a second signal ends at once"));
    assert!(gate.process.ended().is_none());
    gate.process.interrupt();
    assert_eq!(gate.process.code(ms(2000)), Some(130));
}

#[test]
fn who_does_not_finish_in_the_grace_time_is_cut() {
    let upstream = Upstream::http(|_| Answer::text("never").after(ms(9000)));
    let document = format!(
        "upstreams: {{ api: {{ endpoints: [{}] }} }}\nroutes: [{{ match: \"/{{*rest}}\", forward: api }}]",
        upstream.url()
    );
    let mut gate = Binary::start_with(&document, &["--grace", "300ms"], |_| {});
    let mut client = gate.connect();
    client.send(request("GET", "/", &[], b""));
    until(ms(5000), "the service has the request", || upstream.requests() == 1);
    gate.process.terminate();
    assert_eq!(gate.process.code(ms(3000)), Some(0));
    assert!(client.try_response("GET").is_err());
    assert!(gate.stderr().contains("cut connections"), "{}", gate.stderr());
}

/// A running demo on free ports, and what it prints.
fn demo(folder: &std::path::Path) -> (Process, Lines) {
    let mut child = Command::new(program())
        .args(["demo", "--port", "0", "--dir"])
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = Lines::read(child.stdout.take().unwrap());
    (Process::new(child), lines)
}

#[test]
fn the_demo_serves_shows_its_traffic_and_ends_by_ctrl_c() {
    let folder = tempfile::tempdir().unwrap();
    let (mut process, lines) = demo(folder.path());
    let address = pylon_testkit::wait::eventually(ms(9000), "the demo says where it listens", || {
        let text = lines.text();
        let line = text.lines().find(|line| line.trim_start().starts_with("gateway"))?;
        line.rsplit_once("http://")?.1.trim().parse().ok()
    });
    let get = |path: &str| pylon_testkit::client::get(address, path);
    assert_eq!(get("/users/1").status(), 200);
    assert_eq!(get("/hello").text(), "hello\n");
    assert_eq!(get("/admin/report").status(), 403);
    assert_eq!(get("/old/users/1").field("location").as_deref(), Some("/users/1"));
    until(ms(5000), "the traffic is shown", || lines.text().contains("ip_filter.denied"));
    assert!(!lines.text().contains('\u{1b}'), "no colours into a pipe");
    process.interrupt();
    assert_eq!(process.code(ms(9000)), Some(0));
    until(ms(2000), "the closing line is there", || lines.text().contains("4 requests served"));
}
