//! Failure 16: a retry repeats what must not be done twice, or the retry's ban eats the service's own answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use pylon_testkit::answer::Answer;
use pylon_testkit::binary::Binary;
use pylon_testkit::upstream::{Peer, Upstream};

use crate::before;

/// Where a service fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It resets each connection once it is accepted.
    Accept,
    /// It resets once it has the head.
    Head,
    /// It closes in good order once it has everything.
    Close,
    /// It resets once it has everything.
    Reset,
    /// It answers with half a head.
    HalfHead,
    /// It answers with no HTTP.
    Nonsense,
    /// It answers with half a body.
    HalfBody,
}

use Stage::{Accept, Close, HalfBody, HalfHead, Head, Nonsense, Reset};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Fails on every request but those for `/warm`, and counts how often it could have acted on one.
fn play(peer: &mut Peer, stage: Stage, acted: &AtomicUsize) -> Option<()> {
    if stage == Accept {
        peer.reset();
        return None;
    }
    let head = peer.head().ok()?;
    if head.target() == "/warm" {
        return peer.send(OK).then_some(());
    }
    acted.fetch_add(1, SeqCst);
    if stage == Head {
        peer.reset();
        return None;
    }
    if let Some(length) = head.field("content-length") {
        peer.exactly(length.parse().ok()?).ok()?;
    }
    match stage {
        Reset => peer.reset(),
        HalfHead => drop(peer.send("HTTP/1.1 200 OK\r\ncontent-le")),
        Nonsense => drop(peer.send("220 mail.test ESMTP\r\n")),
        HalfBody => drop(peer.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")),
        Accept | Head | Close => {}
    }
    None
}

const METHODS: [(&str, &[u8]); 7] = [
    ("GET", b""),
    ("HEAD", b""),
    ("DELETE", b""),
    ("PUT", b"hello"),
    ("POST", b"hello"),
    ("POST", b""),
    ("PATCH", b"hello"),
];

#[test]
fn what_must_not_be_done_twice_is_not_wherever_the_service_fails() {
    for stage in [Accept, Head, Close, Reset, HalfHead, Nonsense, HalfBody] {
        let acted = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&acted);
        let upstream = Upstream::script(move |peer| while play(peer, stage, &counted).is_some() {});
        let gate = before(&upstream, "workers: 1");
        for (method, body) in METHODS {
            for warm in [false, true] {
                let told = format!("{method} with {} bytes, {stage:?}, warm: {warm}", body.len());
                let mut client = gate.connect();
                if warm && stage != Accept {
                    assert_eq!(client.get("/warm").status(), 200, "{told}");
                }
                let before = acted.load(SeqCst);
                let answer = client.ask_or_cut(method, body);
                let times = acted.load(SeqCst) - before;
                let once = matches!(method, "POST" | "PATCH") || !matches!(stage, Head | Close | Reset) || !warm;
                assert!(times <= if once { 1 } else { 2 }, "{told}: {times} times");
                match answer {
                    Some(status) if stage == HalfBody && method == "HEAD" => assert_eq!(status, 200, "{told}"),
                    Some(status) => assert_eq!(status, 502, "{told}"),
                    None => assert_eq!(stage, HalfBody, "{told}"),
                }
            }
        }
    }
}

/// Asking where the answer may be cut.
trait AskOrCut {
    /// The status; none where the answer is cut within its body.
    fn ask_or_cut(&mut self, method: &str, body: &[u8]) -> Option<u16>;
}

impl AskOrCut for pylon_testkit::client::Raw {
    fn ask_or_cut(&mut self, method: &str, body: &[u8]) -> Option<u16> {
        self.send(pylon_testkit::client::request(method, "/case", &[], body));
        self.try_response(method).ok().map(|answer| answer.status())
    }
}

#[test]
fn what_was_provably_not_sent_is_tried_elsewhere_whatever_the_method() {
    let upstream = Upstream::echo();
    let gate = Binary::start(&format!(
        "upstreams: {{ api: {{ endpoints: [http://{}, {}] }}, none: {{ endpoints: [http://{}] }} }}
routes: [{{ match: \"/{{*rest}}\", forward: api }}, {{ match: /none, forward: none }}]",
        Upstream::nobody(),
        upstream.url(),
        Upstream::nobody()
    ));
    for round in 0..4 {
        for (method, body) in METHODS {
            assert_eq!(gate.ask(method, "/", &[], body).status(), 200, "{method} in round {round}");
        }
    }
    assert_eq!(upstream.requests(), 4 * METHODS.len());
    for (method, body) in METHODS {
        let answer = gate.ask(method, "/none", &[], body);
        assert_eq!(answer.status(), 502, "{method}");
    }
}

#[test]
fn a_service_that_says_no_is_heard() {
    let upstream = Upstream::http(|seen| Answer::new(seen.target()[1..].parse().unwrap()).body("its own words"));
    let gate = before(&upstream, "");
    let mut client = gate.connect();
    let statuses = [400, 401, 403, 404, 408, 409, 421, 425, 429, 500, 502, 503, 504, 599];
    for status in statuses {
        for (method, body) in METHODS {
            let answer = client.ask(method, &format!("/{status}"), &[], body);
            assert_eq!(answer.status(), status);
            assert_eq!(answer.text(), if method == "HEAD" { "" } else { "its own words" });
        }
    }
    assert_eq!(upstream.requests(), statuses.len() * METHODS.len(), "each was asked once");
}
