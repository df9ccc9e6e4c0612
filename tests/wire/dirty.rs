//! Failure 6: an upstream connection that is not clean goes back to the pool, and one user reads another's answer.

use pylon_testkit::answer::Answer;
use pylon_testkit::binary::Binary;
use pylon_testkit::client::{Raw, request};
use pylon_testkit::message::Message;
use pylon_testkit::upstream::{Peer, Upstream};
use pylon_testkit::wait::ms;

use crate::counter;

/// What a service leaves on the connection behind its answer.
const EVIL: &str = "HTTP/1.1 200 OK\r\nx-tag: evil\r\ncontent-length: 4\r\n\r\nevil";

/// What an exchange is like. Those before [`CLEAN`] leave a connection that can be used again.
const KINDS: [&str; 18] = [
    "plain",
    "chunked",
    "interim",
    "head",
    "304",
    "204",
    "upload",
    "early",
    "leftover",
    "chunked-leftover",
    "head-body",
    "304-body",
    "204-body",
    "slow",
    "close",
    "cut",
    "abort",
    "leave",
];
const CLEAN: usize = 7;

/// A service that does as the field `x-kind` says and names the tag of the request in its answer.
fn service() -> Upstream {
    Upstream::script(|peer| while serve(peer).is_some() {})
}

fn serve(peer: &mut Peer) -> Option<()> {
    let head = peer.head().ok()?;
    let (kind, tag) = (head.field("x-kind")?, head.field("x-tag")?);
    let plain = format!("HTTP/1.1 200 OK\r\nx-tag: {tag}\r\ncontent-length: {}\r\n\r\n", tag.len());
    let chunked = format!(
        "HTTP/1.1 200 OK\r\nx-tag: {tag}\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{tag}\r\n0\r\n\r\n",
        tag.len()
    );
    let bare = |status: u16| format!("HTTP/1.1 {status} X\r\nx-tag: {tag}\r\n\r\n");
    if kind == "early" {
        // What comes of the body is taken for a head then, which ends the connection.
        return peer.send(plain + &tag).then_some(());
    }
    if let Some(length) = head.field("content-length") {
        peer.exactly(length.parse().ok()?).ok()?;
    }
    let sent = match kind.as_str() {
        "chunked" => peer.send(chunked),
        "interim" => peer
            .send(format!("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n{plain}{tag}")),
        "head" => peer.send(plain),
        "304" => peer.send(bare(304)),
        "204" => peer.send(bare(204)),
        "leftover" => peer.send(format!("{plain}{tag}{EVIL}")),
        "chunked-leftover" => peer.send(chunked + EVIL),
        "head-body" => peer.send(format!("{plain}{EVIL}")),
        "304-body" => peer.send(bare(304) + EVIL),
        "204-body" => peer.send(bare(204) + EVIL),
        "slow" | "leave" => {
            peer.pause(ms(100));
            peer.send(plain + &tag)
        }
        "close" => !peer.send(format!("HTTP/1.1 200 OK\r\nx-tag: {tag}\r\nconnection: close\r\n\r\n{tag}")),
        "cut" => !peer.send(format!("HTTP/1.1 200 OK\r\nx-tag: {tag}\r\ncontent-length: 1000\r\n\r\n{tag}")),
        "abort" => peer.answer(&Answer::bytes(300_000).field("x-tag", &tag), "GET"),
        _ => peer.send(plain + &tag),
    };
    sent.then_some(())
}

fn gate(service: &Upstream) -> Binary {
    Binary::start(&format!(
        "workers: 1
upstreams: {{ api: {{ endpoints: [{}], pool: {{ max_idle: 1 }} }} }}
routes:
  - {{ match: \"/{{*rest}}\", forward: api }}
  - {{ match: /slow, forward: api, timeout: 40ms }}
telemetry: {{ access_log: off }}",
        service.url()
    ))
}

/// One exchange. Answers with whether it came to its end; panics when the answer is somebody else's.
fn exchange(gate: &Binary, client: &mut Option<Raw>, kind: &str, tag: &str) -> bool {
    let mut raw = client.take().unwrap_or_else(|| gate.connect());
    let body = vec![b'x'; if kind == "early" { 30_000 } else { 300 }];
    let (method, body) = match kind {
        "head" | "head-body" => ("HEAD", &[][..]),
        "upload" | "early" => ("POST", &body[..]),
        _ => ("GET", &[][..]),
    };
    let path = if kind == "slow" { "/slow" } else { "/" };
    if raw.try_send(request(method, path, &[("x-kind", kind), ("x-tag", tag)], body)).is_err() {
        return false;
    }
    let is_mine = |answer: &Message| {
        let whose = answer.field("x-tag");
        assert_eq!(whose.as_deref(), Some(tag), "{kind} got the answer of another: {answer:?}");
    };
    match kind {
        "leave" => {
            raw.abort();
            return true;
        }
        "abort" => {
            is_mine(&raw.head());
            raw.abort();
            return true;
        }
        _ => {}
    }
    loop {
        let Ok(answer) = raw.try_response(method) else { return false };
        if answer.status() < 200 {
            continue;
        }
        if answer.status() >= 500 {
            assert_ne!(answer.code(), None, "{kind}: {answer:?}");
        } else {
            is_mine(&answer);
            assert!(answer.body.is_empty() || answer.text() == tag, "{kind}: {answer:?}");
        }
        if answer.field("connection").as_deref() != Some("close") {
            *client = Some(raw);
        }
        return answer.status() < 500;
    }
}

#[test]
fn nobody_reads_the_answer_of_another() {
    let service = service();
    let gate = gate(&service);
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let gate = &gate;
            scope.spawn(move || {
                let mut client = None;
                let mut state = thread;
                for round in 0..1250 {
                    // Any generator will do (Knuth's constants); the order is the same in every run.
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let draw = (state >> 33) as usize;
                    let kind = match KINDS[draw % KINDS.len()] {
                        // They cost their time.
                        "slow" | "leave" if !draw.is_multiple_of(5) => "plain",
                        kind => kind,
                    };
                    let ended = exchange(gate, &mut client, kind, &format!("{thread}-{round}-{kind}"));
                    let may_fail = matches!(kind, "early" | "slow" | "cut");
                    assert!(ended || may_fail, "{kind} in round {round} of {thread} got no answer");
                }
            });
        }
    });
    let mut client = None;
    assert!(exchange(&gate, &mut client, "plain", "last"));
}

#[test]
fn a_connection_that_ended_cleanly_is_used_again() {
    let service = service();
    let gate = gate(&service);
    let mut client = None;
    for round in 0..1000 {
        let kind = KINDS[round % CLEAN];
        assert!(exchange(&gate, &mut client, kind, &format!("{round}-{kind}")), "{kind}");
    }
    let (attempts, reuses) = (counter(&gate, "api", "attempts"), counter(&gate, "api", "reuses"));
    assert_eq!(attempts, 1000);
    assert!(reuses * 100 >= attempts * 99, "{reuses} of {attempts} were on a connection that was there already");
    assert_eq!((counter(&gate, "api", "idle"), service.connections() as u64), (1, attempts - reuses));
}
