//! WebSocket to services of HTTP/2 (RFC 8441 towards the upstream): only where their settings allow it.

use std::sync::mpsc::channel;

use h2::Reason;
use pylon_testkit::answer::alphabet;
use pylon_testkit::binary::Binary;
use pylon_testkit::client::request;
use pylon_testkit::http2::Http2;
use pylon_testkit::http2_service::{Http2Service, broken_off};
use pylon_testkit::http2_websocket::{allow, echo, give_back};
use pylon_testkit::wait::{ms, until};
use pylon_testkit::websocket::{ACCEPT, BINARY, CLOSE, PING, PONG, TEXT, WebSocket, code, handshake};

use crate::websocket_http2::open;

fn gate(service: &Http2Service, websocket: &str) -> Binary {
    Binary::start(&format!(
        "workers: 1
upstreams: {{ chat: {{ endpoints: [{}], protocol: http2 }} }}
routes:
  - {{ match: \"/{{*rest}}\", forward: chat, websocket: {websocket} }}
  - {{ match: /plain, forward: chat }}",
        service.url()
    ))
}

#[test]
fn websockets_and_plain_requests_share_a_connection_to_a_service_that_allows_them() {
    let service = echo();
    let gate = gate(&service, "true");
    assert_eq!(gate.get("/plain").text(), "plain");
    let mut first = WebSocket::begin(gate.connect(), "/chat?room=1", &[("sec-websocket-protocol", "v1")]);
    assert_eq!(first.answer.field("sec-websocket-accept").as_deref(), Some(ACCEPT));
    assert_eq!(first.answer.field("sec-websocket-protocol").as_deref(), Some("v1"));
    assert_eq!(first.answer.field("upgrade").as_deref(), Some("websocket"));
    let seen = service.heads().pop().unwrap();
    assert_eq!(seen.start, "CONNECT http://gate.test/chat?room=1");
    assert_eq!(seen.headers["sec-websocket-version"], "13");
    assert_eq!(seen.headers["sec-websocket-protocol"], "v1");
    assert_eq!(seen.headers["x-forwarded-for"], "127.0.0.1");
    for name in ["sec-websocket-key", "upgrade", "connection", "content-length", "host"] {
        assert!(!seen.headers.contains_key(name), "{name} in {seen:?}");
    }
    let mut second = WebSocket::begin(gate.connect(), "/chat", &[]);
    for length in [0, 126, 70_000, 1 << 20] {
        first.echoes(BINARY, &alphabet(length));
        second.echoes(TEXT, &alphabet(length / 2));
    }
    first.send(PING, b"there?");
    let pong = first.frame();
    assert_eq!((pong.opcode, pong.payload.as_slice()), (PONG, &b"there?"[..]));
    assert_eq!(gate.get("/plain").text(), "plain");
    assert_eq!((service.connections(), service.most()), (1, 3));
    first.send(CLOSE, &code(1000));
    assert_eq!(first.frame().code(), Some(1000));
    first.raw.expect_closed();
    let line = gate.logged("/chat?room=1");
    assert_eq!((line["status"].as_u64(), line["end"].as_str()), (Some(101), Some("complete")), "{line}");
    second.echoes(TEXT, b"still here");
}

#[test]
fn a_stream_of_the_client_becomes_a_stream_of_the_service() {
    let service = echo();
    let gate = gate(&service, "true");
    let mut client = Http2::connect(gate.address());
    let mut stream = open(&mut client, "/chat", &[]);
    assert_eq!(service.heads()[0].start, "CONNECT http://gate.test/chat");
    for length in [0, 70_000, 1 << 20] {
        stream.send(BINARY, &alphabet(length));
        assert!(stream.frame().payload == alphabet(length));
    }
    stream.send(CLOSE, &code(1000));
    assert_eq!(stream.frame().code(), Some(1000));
    assert!(stream.ends());
    assert_eq!(gate.logged("/chat")["end"], "complete");
}

#[test]
fn a_service_whose_settings_do_not_allow_it_is_not_asked() {
    let service = Http2Service::start(give_back);
    let gate = gate(&service, "true");
    for path in ["/chat", "/again"] {
        assert_eq!(gate.connect().send(handshake(path, &[])).response().status(), 502);
        let line = gate.logged(path);
        assert_eq!(line["reason"], "upstream.protocol", "{line}");
        assert!(line["detail"].as_str().unwrap().contains("SETTINGS_ENABLE_CONNECT_PROTOCOL"), "{line}");
    }
    assert_eq!(service.requests(), 0);
    assert_eq!(gate.get("/plain").text(), "plain");
}

#[test]
fn a_refusal_passes_and_its_stream_is_over() {
    let (told, ended) = channel();
    let refusing = Http2Service::with(allow, move |mut call| {
        let told = told.clone();
        async move {
            let mut stream = call.begin(403, &[]);
            let _ = stream.send_data("not you".into(), true);
            let _ = told.send(call.body().await.is_ok());
        }
    });
    let gate = gate(&refusing, "true");
    let mut client = gate.connect();
    let answer = client.send(handshake("/chat", &[])).response();
    assert_eq!((answer.status(), answer.text().as_str()), (403, "not you"));
    assert!(ended.recv_timeout(ms(5000)).unwrap());
    // The client's connection goes on.
    assert_eq!(client.send(request("GET", "/plain", &[], b"")).response().status(), 403);
}

#[test]
fn whoever_ends_it_the_other_side_learns_of_it() {
    let (told, reset) = channel();
    let service = Http2Service::with(allow, move |mut call| {
        let told = told.clone();
        async move {
            let mut stream = call.begin(200, &[]);
            let _ = told.send(broken_off(&mut stream).await);
        }
    });
    let gate = gate(&service, "true");
    drop(WebSocket::begin(gate.connect(), "/gone", &[]));
    assert_eq!(reset.recv_timeout(ms(5000)).unwrap(), Some(Reason::CANCEL));
    assert_eq!(gate.logged("/gone")["end"], "client_gone");
    let breaking = Http2Service::with(allow, |mut call| async move {
        let _stream = call.begin(200, &[]);
        call.pause(ms(100)).await;
        call.reset(Reason::INTERNAL_ERROR);
    });
    let gate = self::gate(&breaking, "true");
    let mut client = WebSocket::begin(gate.connect(), "/broken", &[]);
    client.raw.expect_closed();
    assert_eq!(gate.logged("/broken")["end"], "upstream_broke");
}

#[test]
fn sizes_and_idle_time_are_bounded_and_the_end_of_the_gateway_closes_with_1001() {
    let service = echo();
    let mut gate = gate(&service, "{ idle: 300ms, max_message: 1KiB }");
    let mut large = WebSocket::begin(gate.connect(), "/large", &[]);
    large.send(TEXT, &alphabet(1025));
    assert_eq!(large.frame().code(), Some(1009));
    let mut idle = WebSocket::begin(gate.connect(), "/idle", &[]);
    assert_eq!(idle.frame().code(), Some(1001));
    assert_eq!(gate.logged("/idle")["timer"], "idle");
    let mut last = WebSocket::begin(gate.connect(), "/last", &[]);
    last.echoes(TEXT, b"hello");
    gate.process.terminate();
    assert_eq!(last.frame().code(), Some(1001));
    last.send(CLOSE, &code(1001));
    last.raw.expect_closed();
    assert_eq!(gate.process.code(ms(5000)), Some(0));
}

/// HTTP/2 has no 101 (RFC 9113 §8.6); passed on, it would be a switch that nobody has asked for.
#[test]
fn a_101_of_http_2_never_reaches_a_client() {
    let service = Http2Service::start(|mut call| async move {
        call.interim(101, &[("x-a", "b")]);
        call.answer(200, &[], b"plain", &[]).await;
    });
    let gate = gate(&service, "true");
    let mut client = gate.connect();
    let answer = client.get("/plain");
    assert_eq!(answer.status(), 502, "{answer:?}");
    until(ms(2000), "the log has it", || gate.logged("/plain")["reason"] == "upstream.protocol");
}
