//! What a service sees of a request, and a client of an answer, over every form that HTTP/1 has for them.

use pylon_testkit::answer::{Answer, chunk};
use pylon_testkit::binary::Binary;
use pylon_testkit::client::{Raw, request};
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{ms, until};

/// A gateway that forwards everything to this service; `more` are further lines of its document.
pub(crate) fn before(upstream: &Upstream, more: &str) -> Binary {
    Binary::start(&format!(
        "upstreams: {{ api: {{ endpoints: [{}] }} }}\nroutes: [{{ match: \"/{{*rest}}\", forward: api }}]\n{more}",
        upstream.url()
    ))
}

#[test]
fn a_service_learns_who_asks_and_by_which_way() {
    let upstream = Upstream::echo();
    let gate = before(&upstream, "");
    let forged = [("x-forwarded-for", "203.0.113.9"), ("forwarded", "for=203.0.113.9"), ("x-request-id", "mine")];
    let fields: Vec<_> = [("host", "Shop.example:8080")].into_iter().chain(forged).collect();
    let answer = gate.ask("GET", "/a?b=c", &fields, b"");
    assert_eq!(answer.status(), 200);
    let seen = answer.json();
    assert_eq!(seen["path"], "/a?b=c");
    let headers = &seen["headers"];
    assert_eq!(headers["host"], "Shop.example:8080");
    assert_eq!(headers["x-forwarded-for"], "127.0.0.1");
    assert_eq!(headers["x-forwarded-proto"], "http");
    assert_eq!(headers["x-forwarded-host"], "Shop.example:8080");
    assert_eq!(headers["forwarded"], "for=127.0.0.1;host=\"Shop.example:8080\";proto=http");
    assert!(headers["via"].as_str().unwrap().starts_with("1.1 pylon-"), "{headers}");
    assert_ne!(headers["x-request-id"], "mine", "an id of somebody who is not trusted");
    assert_eq!(headers["x-request-id"], answer.field("x-request-id").unwrap());
    let line = gate.logged("/a?b=c");
    assert_eq!(line["id"], headers["x-request-id"]);
    assert_eq!(line["client"], "127.0.0.1");
}

#[test]
fn a_trusted_proxy_is_believed_and_its_request_id_goes_on() {
    let upstream = Upstream::echo();
    let gate = before(&upstream, "trusted_proxies: [127.0.0.1]");
    let fields = [("x-forwarded-for", "198.51.100.1, 203.0.113.9"), ("x-request-id", "from-the-edge-7")];
    let answer = gate.ask("GET", "/", &fields, b"");
    let headers = &answer.json()["headers"];
    assert_eq!(headers["x-forwarded-for"], "198.51.100.1, 203.0.113.9, 127.0.0.1");
    assert_eq!(headers["x-request-id"], "from-the-edge-7");
    assert_eq!(answer.field("x-request-id").as_deref(), Some("from-the-edge-7"));
    assert_eq!(gate.logged("/")["client"], "203.0.113.9");
}

#[test]
fn fields_of_one_hop_end_here_both_ways() {
    let upstream = Upstream::http(|seen| {
        let mut answer =
            Answer::text("x").field("connection", "x-inner").field("x-inner", "1").field("keep-alive", "5");
        if seen.field("x-hop").is_some() || seen.field("keep-alive").is_some() || seen.field("upgrade").is_some() {
            answer = Answer::new(500);
        }
        answer
    });
    let gate = before(&upstream, "");
    let fields = [("connection", "x-hop, upgrade"), ("x-hop", "1"), ("keep-alive", "9"), ("upgrade", "h2c")];
    let answer = gate.ask("GET", "/", &fields, b"");
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.field("x-inner"), None);
    assert_eq!(answer.field("keep-alive"), None);
}

#[test]
fn answers_without_a_body_keep_the_connection_usable() {
    let upstream = Upstream::http(|seen| match seen.target() {
        "/204" => Answer::new(204),
        "/304" => Answer::new(304).field("etag", "\"7\""),
        _ => Answer::bytes(1000),
    });
    let gate = before(&upstream, "");
    let mut client = gate.connect();
    for _ in 0..3 {
        let head = client.ask("HEAD", "/x", &[], b"");
        assert_eq!((head.status(), head.field("content-length").as_deref()), (200, Some("1000")));
        let none = client.get("/204");
        assert_eq!((none.status(), none.field("content-length"), none.field("transfer-encoding")), (204, None, None));
        let same = client.get("/304");
        assert_eq!((same.status(), same.field("etag").as_deref()), (304, Some("\"7\"")));
        assert_eq!(client.get("/x").body.len(), 1000);
    }
    assert_eq!(upstream.connections(), 1, "every answer left the upstream's connection clean");
}

#[test]
fn trailers_pass_both_ways() {
    let upstream = Upstream::http(|seen| {
        let sum = seen.trailer("x-sum").unwrap_or_default();
        let te = seen.field("te").unwrap_or_default();
        Answer::new(200)
            .field("x-te", &te)
            .field("trailer", "x-got, x-forwarded-for")
            .pieces(vec![b"one".to_vec(), b"two".to_vec()], ms(0))
            .trailer("x-got", &sum)
            .trailer("x-forwarded-for", "9.9.9.9")
    });
    let gate = before(&upstream, "");
    let fields = [("te", "trailers"), ("trailer", "x-sum"), ("transfer-encoding", "chunked")];
    let body = [chunk(b"hello"), b"0\r\nx-sum: 5\r\nx-forwarded-for: 9.9.9.9\r\n\r\n".to_vec()].concat();
    let answer = gate.ask("POST", "/", &fields, &body);
    assert_eq!(answer.text(), "onetwo");
    assert_eq!(answer.field("x-te").as_deref(), Some("trailers"));
    assert_eq!(answer.trailer("x-got").as_deref(), Some("5"));
    assert_eq!(answer.trailer("x-forwarded-for"), None, "a trailer cannot vouch for anything");
    assert_eq!(upstream.last().trailers, [("x-sum".to_owned(), "5".to_owned())]);
}

#[test]
fn a_client_that_knows_no_trailers_gets_the_answer_without_them() {
    let upstream = Upstream::http(|_| {
        Answer::new(200).field("trailer", "x-sum").pieces(vec![b"one".to_vec()], ms(0)).trailer("x-sum", "3")
    });
    let gate = before(&upstream, "");
    let mut client = gate.connect();
    for _ in 0..2 {
        let answer = client.get("/");
        assert_eq!((answer.text().as_str(), answer.trailers.len()), ("one", 0));
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_body_of_unknown_length_streams_in_chunks_and_keeps_nobody_waiting() {
    let upstream = Upstream::echo();
    let gate = before(&upstream, "");
    let mut client = gate.connect();
    client.send(request("POST", "/", &[("transfer-encoding", "chunked")], b""));
    client.send(chunk(b"one,"));
    until(ms(5000), "the first chunk is there before the second is sent", || {
        upstream.received(0).windows(4).any(|window| window == b"one,")
    });
    client.send(chunk(b"two")).send("0\r\n\r\n");
    let seen = client.response().json();
    assert_eq!(seen["body"], "one,two");
    assert_eq!(seen["headers"]["transfer-encoding"], "chunked");
    assert_eq!(seen["headers"]["content-length"], serde_json::Value::Null);
}

#[test]
fn a_client_of_http_1_0_gets_an_answer_that_it_understands() {
    let upstream = Upstream::http(|_| Answer::new(200).pieces(vec![b"one".to_vec(), b"two".to_vec()], ms(0)));
    let gate = before(&upstream, "");
    let mut client = gate.connect();
    client.send("GET / HTTP/1.0\r\n\r\n");
    let answer = client.response();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "onetwo"));
    assert_eq!(answer.field("transfer-encoding"), None, "HTTP/1.0 knows no chunks");
    client.expect_closed();
    let seen = upstream.last();
    assert!(seen.start.ends_with("HTTP/1.1") && seen.field("host").is_some(), "{seen:?}");
}

#[test]
fn a_client_that_wants_to_close_is_closed_and_others_are_not() {
    let upstream = Upstream::named("x");
    let gate = before(&upstream, "");
    let mut client = gate.connect();
    assert_eq!(client.get("/").field("connection"), None);
    let last = client.ask("GET", "/", &[("connection", "close")], b"");
    assert_eq!(last.field("connection").as_deref(), Some("close"));
    client.expect_closed();
    assert_eq!(upstream.connections(), 1, "the client's wish does not end the upstream's connection");
}

#[test]
fn requests_sent_ahead_are_answered_in_order() {
    let upstream = Upstream::tags();
    let gate = before(&upstream, "");
    let mut client = gate.connect();
    let tags: Vec<String> = (0..50).map(|tag| tag.to_string()).collect();
    let all: Vec<u8> = tags.iter().flat_map(|tag| request("POST", "/", &[("x-tag", tag)], b"body")).collect();
    client.send(all);
    for tag in &tags {
        assert_eq!(client.response().text(), *tag);
    }
}

#[test]
fn a_target_in_absolute_form_means_the_same_as_one_in_origin_form() {
    let upstream = Upstream::echo();
    let gate = before(&upstream, "");
    let seen = gate.ask("GET", "http://gate.test/a?b", &[], b"").json();
    assert_eq!((seen["path"].as_str(), seen["headers"]["host"].as_str()), (Some("/a?b"), Some("gate.test")));
    let other = gate.ask("GET", "http://other.test/a", &[], b"");
    assert_eq!((other.status(), other.code().as_deref()), (400, Some("request.target")));
    assert_eq!(upstream.requests(), 1);
}

#[test]
fn targets_that_are_no_path_get_a_clear_answer() {
    let upstream = Upstream::echo();
    let gate = before(&upstream, "");
    for (method, target, status) in
        [("OPTIONS", "*", 400), ("CONNECT", "gate.test:443", 501), ("TRACE", "/", 501), ("GET", "*", 400)]
    {
        let mut client = gate.connect();
        let answer = client.ask(method, target, &[], b"");
        assert_eq!(answer.status(), status, "{method} {target}: {}", answer.text());
    }
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn a_gateway_that_forwards_to_itself_notices() {
    let address = Upstream::nobody();
    let gate = Binary::start(&format!(
        "listeners: [{{ address: {address} }}]\nupstreams: {{ me: {{ endpoints: [http://{address}] }} }}\n\
         routes: [{{ match: \"/{{*rest}}\", forward: me }}]"
    ));
    let answer = gate.get("/round");
    assert_eq!((answer.status(), answer.code().as_deref()), (508, Some("request.loop")));
}

#[test]
fn a_large_body_arrives_whole_both_ways() {
    let upstream =
        Upstream::http(|seen| Answer::new(200).field("x-got", &seen.body.len().to_string()).body(seen.body.clone()));
    let gate = before(&upstream, "");
    let body = pylon_testkit::answer::alphabet(3_000_001);
    let mut client = Raw::connect(gate.address());
    let mut sender = client.second_hand();
    let sent = body.clone();
    let sending = std::thread::spawn(move || {
        use std::io::Write;
        sender.write_all(&request("POST", "/", &[], &sent)).unwrap();
    });
    let answer = client.response();
    sending.join().unwrap();
    assert_eq!(answer.field("x-got").as_deref(), Some("3000001"));
    assert!(answer.body == body, "the body came back changed");
}
