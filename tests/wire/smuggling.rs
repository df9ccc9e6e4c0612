//! Failure 4: a client hides a second request within the first, because gateway and service disagree about its end.

use pylon_testkit::binary::Binary;
use pylon_testkit::client::Raw;
use pylon_testkit::message::{Message, ReadError};
use pylon_testkit::wait::ms;

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
        _ if statuses.is_empty() => want == Want::Silence && targets.is_empty() && end == Ok(true),
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
        Want::Silence => false,
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
fn lines_that_end_by_a_lone_lf_are_one_request_or_none() {
    let strict = Strict::start();
    let gate = before(&strict.upstream, "");
    let length = BEHIND.len();
    for bytes in [
        "GET /case HTTP/1.1\nHost: gate.test\n\n".to_owned(),
        "GET /case HTTP/1.1\r\nHost: gate.test\nX: y\r\n\r\n".to_owned(),
        "GET /case HTTP/1.1\r\nHost: gate.test\r\nX: y\n\r\n".to_owned(),
        "GET /case HTTP/1.1\r\nHost: gate.test\r\n\n".to_owned(),
        format!(
            "POST /case HTTP/1.1\r\nHost: gate.test\r\nX: y\nContent-Length: {length}\r\n\r\n{}",
            BEHIND.replace("behind", "smuggled")
        ),
        format!(
            "POST /case HTTP/1.1\r\nHost: gate.test\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{}\r\n0\r\n\r\n",
            BEHIND.replace("behind", "smuggled")
        ),
    ] {
        let from = strict.upstream.requests();
        let mut client = gate.connect();
        client.patience(ms(4000));
        let _ = client.try_send([bytes.as_bytes(), BEHIND.as_bytes()].concat());
        let first = client.response();
        if first.status() == 200 {
            assert_eq!((first.text(), client.response().text()), ("/case".into(), "/behind".into()), "{bytes:?}");
            assert_eq!(strict.targets(from), ["/case", "/behind"]);
        } else {
            assert_eq!(first.status(), 400, "{bytes:?}");
            client.expect_closed();
            assert!(strict.targets(from).is_empty(), "{bytes:?}");
        }
    }
    assert_eq!(strict.malformed(), Vec::<String>::new());
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
    // hyper stops at the lone LF but has read on to the next CR LF CR LF: what stands between is lost where the trailers
    // should be refused (as they are where there is no field before). Not one byte of it may reach a service.
    let strict = Strict::start();
    let gate = before(&strict.upstream, "");
    let head = "POST /case HTTP/1.1\r\nHost: gate.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n";
    for trailers in ["\n", "X: y\n\n", "X: y\r\n\n"] {
        let from = strict.upstream.requests();
        let mut client = gate.connect();
        client.patience(ms(300));
        let _ = client.try_send(format!("{head}{trailers}{}", BEHIND.replace("behind", "smuggled")));
        let (answers, _) = answers(&mut client, 2);
        assert!(answers.len() <= 1, "{trailers:?}: {answers:?}");
        assert!(strict.targets(from).iter().all(|target| target == "/case"), "{trailers:?}");
        assert!(strict.upstream.seen()[from..].iter().all(|seen| !format!("{seen:?}").contains("smuggled")));
    }
}
