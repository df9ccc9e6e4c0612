//! Failure 4: a client hides a second request within the first, because gateway and service disagree about its end.

use pylon_testkit::answer::{Answer, chunk};
use pylon_testkit::binary::Binary;
use pylon_testkit::client::Raw;
use pylon_testkit::message::{Message, ReadError};
use pylon_testkit::wait::{ms, pause, until};

use crate::before;
use crate::corpus::{self, Want};
use crate::strict::Strict;

/// Sent behind every case on the same connection.
const BEHIND: &str = "GET /behind HTTP/1.1\r\nHost: gate.test\r\n\r\n";

/// Everything that is answered on one connection, at the most `most`, and whether it was closed in good order then.
fn answers(client: &mut Raw, most: usize) -> (Vec<Message>, Result<bool, String>) {
    let mut all = Vec::new();
    while all.len() < most {
        match client.try_response("GET") {
            Ok(answer) => all.push(answer),
            Err(ReadError::Closed) => return (all, Ok(true)),
            Err(other) => return (all, Err(format!("{other:?}"))),
        }
    }
    (all, Ok(false))
}

/// What is wrong with how the gateway took one case, if anything.
fn fault(gate: &Binary, strict: &Strict, bytes: &[u8], want: Want) -> Option<String> {
    let from = strict.upstream.requests();
    let mut client = gate.connect();
    client.patience(ms(4000));
    // A gateway that has refused already need not take the rest.
    let _ = client.try_send([bytes, BEHIND.as_bytes()].concat());
    let most = if matches!(want, Want::Passes | Want::Declined) { 2 } else { 3 };
    let (answers, end) = answers(&mut client, most);
    let statuses: Vec<u16> = answers.iter().map(Message::status).collect();
    let targets = strict.targets(from);
    let told = format!("answers {statuses:?}, end {end:?}, the service saw {targets:?}");
    let passed: Vec<String> = answers.iter().filter(|answer| answer.status() == 200).map(Message::text).collect();
    if passed != targets {
        return Some(format!("not one request for each answer: {told}"));
    }
    let right = match want {
        _ if statuses.is_empty() => false,
        Want::Passes => statuses == [200, 200] && targets[1] == "/behind" && end == Ok(false),
        Want::Refused => {
            statuses.len() == 1 && matches!(statuses[0], 400 | 405 | 414 | 431) && targets.is_empty() && end == Ok(true)
        }
        Want::Last => {
            statuses[0] == 200
                && statuses[1..].iter().all(|status| *status == 400)
                && targets == ["/case"]
                && end == Ok(true)
        }
        Want::Declined => {
            statuses.len() == 2 && matches!(statuses[0], 400 | 501) && targets == ["/behind"] && end == Ok(false)
        }
    };
    (!right).then_some(told)
}

#[test]
fn no_request_can_be_hidden_within_another() {
    let strict = Strict::start();
    // The corpus is of HTTP/1; what begins HTTP/2 is tried in `gate/http2.rs`.
    let gate = before(&strict.upstream, "listeners: [{ address: 127.0.0.1:0, http2: false }]");
    let corpus = corpus::all();
    assert!(corpus.len() >= 200, "{}", corpus.len());
    let faults: Vec<String> = (corpus.iter())
        .filter_map(|(name, bytes, want)| Some(format!("{name}: {}", fault(&gate, &strict, bytes, *want)?)))
        .collect();
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), corpus.len(), faults.join("\n"));
    assert_eq!(strict.malformed(), Vec::<String>::new());
    for request in strict.upstream.seen() {
        let both = request.field("content-length").is_some() && request.field("transfer-encoding").is_some();
        assert!(!both && !request.target().contains("smuggled"), "{request:?}");
        for name in ["content_length", "transfer_encoding", "connection", "upgrade"] {
            assert_eq!(request.field(name), None, "{request:?}");
        }
        assert_eq!(request.fields.iter().filter(|(name, _)| name == "host").count(), 1, "{request:?}");
        for name in ["content-length", "transfer-encoding", "host"] {
            assert_eq!(request.trailer(name), None, "{request:?}");
        }
    }
}

#[test]
fn what_stands_behind_a_good_request_is_refused_all_the_same() {
    let strict = Strict::start();
    let gate = before(&strict.upstream, "listeners: [{ address: 127.0.0.1:0, http2: false }]");
    let mut faults = Vec::new();
    for (name, bytes, want) in corpus::all() {
        let from = strict.upstream.requests();
        let mut client = gate.connect();
        client.patience(ms(4000));
        let _ = client.try_send([BEHIND.as_bytes(), &bytes[..], BEHIND.as_bytes()].concat());
        let most = if matches!(want, Want::Passes | Want::Declined) { 3 } else { 4 };
        let (answers, end) = answers(&mut client, most);
        let statuses: Vec<u16> = answers.iter().map(Message::status).collect();
        let right = match want {
            Want::Passes => statuses == [200, 200, 200],
            Want::Declined => statuses.len() == 3 && statuses[2] == 200,
            Want::Last => statuses[..2] == [200, 200] && end == Ok(true),
            Want::Refused => {
                statuses.len() == 2 && statuses[0] == 200 && (400..500).contains(&statuses[1]) && end == Ok(true)
            }
        };
        let targets = strict.targets(from);
        let passed = statuses.iter().filter(|status| **status == 200).count();
        if !right || targets.len() != passed || targets[0] != "/behind" {
            faults.push(format!("{name}: answers {statuses:?}, end {end:?}, the service saw {targets:?}"));
        }
    }
    assert!(faults.is_empty(), "{}:\n{}", faults.len(), faults.join("\n"));
    assert_eq!(strict.malformed(), Vec::<String>::new());
}

#[test]
fn what_would_be_refused_as_a_head_is_only_bytes_within_a_body() {
    let strict = Strict::answering(|request| Answer::new(200).body(request.body.clone()));
    let gate = before(&strict.upstream, "");
    let mut client = gate.connect();
    let mut sent = 0;
    for (name, bytes, _) in corpus::all() {
        if bytes.len() > 20_000 {
            continue;
        }
        let answer = client.ask("POST", "/known", &[], &bytes);
        assert!(answer.status() == 200 && answer.body == bytes, "{name}: {answer:?}");
        let wire = [chunk(&bytes), b"0\r\n\r\n".to_vec()].concat();
        let answer = client.ask("POST", "/chunked", &[("transfer-encoding", "chunked")], &wire);
        assert!(answer.status() == 200 && answer.body == bytes, "{name}: {answer:?}");
        sent += 2;
    }
    assert_eq!(strict.upstream.requests(), sent);
    assert_eq!(strict.upstream.connections(), 1);
}

#[test]
fn it_does_not_matter_where_the_network_cuts_a_request() {
    let strict = Strict::start();
    let gate = before(&strict.upstream, "");
    let head = "POST / HTTP/1.1\r\nHost: a\r\n";
    for (bytes, status) in [
        (format!("{head}Content-Length: 2\r\n\r\nhi"), 200),
        (format!("{head}Transfer-Encoding: chunked\r\n\r\n2;a=b\r\nhi\r\n0\r\n\r\n"), 200),
        (format!("{head}Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi"), 400),
        (format!("{head}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"), 400),
        (format!("{head}X: a\nY: b\r\n\r\n"), 400),
        (format!("{head}X: a\r\n b\r\n\r\n"), 400),
        (format!("{head}Transfer-Encoding: chunked\r\n\r\n2 \r\nhi\r\n0\r\n\r\n"), 400),
        (format!("{head}Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX : a\r\n\r\n"), 400),
        (format!("{head}Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\n"), 400),
    ] {
        let cut_at = |cut: usize| {
            let mut client = gate.connect();
            client.send(&bytes[..cut]);
            pause(ms(3));
            let _ = client.try_send(&bytes[cut..]);
            let answer = client.response();
            assert_eq!(answer.status(), status, "cut at {cut} of {bytes:?}: {answer:?}");
            if status == 400 {
                client.expect_closed();
            }
        };
        let cuts: Vec<usize> = (1..bytes.len()).collect();
        for some in cuts.chunks(16) {
            std::thread::scope(|scope| {
                for cut in some {
                    scope.spawn(|| cut_at(*cut));
                }
            });
        }
    }
    assert!(strict.targets(0).iter().all(|target| target == "/"));
    assert_eq!(strict.malformed(), Vec::<String>::new());
}

#[test]
fn a_refusal_says_what_is_wrong_and_stands_in_the_log() {
    let strict = Strict::start();
    let gate = before(&strict.upstream, "");
    let with = |lines: &str| format!("POST /a HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    for (bytes, code, detail) in [
        (with("X: a\n"), "request.framing", "a line ends by LF without CR"),
        (with("X : a\r\n"), "request.framing", "a blank stands before the colon of a field"),
        (
            with("Content-Length: 0\r\nContent-Length: 0\r\n"),
            "request.framing",
            "there are several Content-Length fields",
        ),
        (with("").replace("/a", "/a#b"), "request.target", "the target has a fragment"),
        (with("").replace("POST ", "POST  "), "request.target", "the request line is not"),
        (with("").replace("/1.1", "/1.2"), "request.target", "the version is neither"),
        (
            with("Transfer-Encoding: chunked\r\n") + "5 \r\nhello\r\n0\r\n\r\n",
            "request.framing",
            "a blank stands in the line",
        ),
    ] {
        let mut client = gate.connect();
        client.send(&bytes);
        let answer = client.response();
        assert_eq!((answer.status(), answer.code().as_deref()), (400, Some(code)), "{bytes:?}");
        assert_eq!(answer.field("connection").as_deref(), Some("close"));
        assert!(answer.json()["detail"].as_str().is_some_and(|told| told.starts_with(detail)), "{answer:?}");
        client.expect_closed();
        until(ms(5000), "the refusal is logged", || {
            gate.log()
                .iter()
                .any(|line| line["reason"] == code && line["detail"].as_str().is_some_and(|told| told.contains(detail)))
        });
    }
    assert_eq!(strict.upstream.requests(), 0);
}

#[test]
fn a_body_that_is_cut_is_never_a_whole_request() {
    let strict = Strict::start();
    let gate = before(&strict.upstream, "");
    for bytes in [
        "POST /case HTTP/1.1\r\nHost: gate.test\r\nContent-Length: 6\r\n\r\nhello",
        "POST /case HTTP/1.1\r\nHost: gate.test\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello",
        "POST /case HTTP/1.1\r\nHost: gate.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "POST /case HTTP/1.1\r\nHost: gate.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        "POST /case HTTP/1.1\r\nHost: gate.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n",
        "POST /case HTTP/1.1\r\nHost: gate.test\r\nContent-Length: 5",
        "POST /ca",
    ] {
        let mut client = gate.connect();
        client.send(bytes).half_close();
        let (answers, _) = answers(&mut client, 2);
        assert!(answers.iter().all(|answer| answer.status() == 400), "{bytes:?}: {answers:?}");
    }
    assert_eq!(gate.get("/alive").text(), "/alive");
    assert_eq!(strict.targets(0), ["/alive"]);
    assert_eq!(strict.malformed(), Vec::<String>::new());
}

#[test]
fn an_answer_whose_end_is_unclear_does_not_reach_the_client_as_a_whole_one() {
    for head in [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 6",
        "Content-Length: -5",
        "Content-Length: +5",
        "Content-Length: 0x5",
        "Content-Length: 18446744073709551621",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding : chunked",
        "Content-Length : 5",
        "X: a\0b\r\nContent-Length: 5",
        "X: a\rContent-Length: 5",
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\nhello");
        let upstream = pylon_testkit::upstream::Upstream::script(move |peer| {
            while peer.request().is_ok() {
                peer.send(&answer);
            }
        });
        let gate = before(&upstream, "");
        let answer = gate.get("/");
        assert_eq!(answer.status(), 502, "{head:?}: {answer:?}");
    }
}

#[test]
fn what_a_lone_lf_hides_behind_a_trailer_is_never_a_request() {
    let strict = Strict::start();
    let gate = before(&strict.upstream, "");
    let head = "POST /case HTTP/1.1\r\nHost: gate.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n";
    for trailers in ["\n", "X: y\n\n", "X: y\r\n\n"] {
        let mut client = gate.connect();
        client.send(format!("{head}{trailers}{}", BEHIND.replace("behind", "smuggled")));
        let (answers, end) = answers(&mut client, 2);
        let statuses: Vec<u16> = answers.iter().map(Message::status).collect();
        assert_eq!((statuses, end), (vec![400], Ok(true)), "{trailers:?}");
    }
    assert_eq!(strict.targets(0), Vec::<String>::new());
}
