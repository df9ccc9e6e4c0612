//! WebSocket on HTTP/2 (RFC 8441): extended CONNECT.

use std::sync::mpsc::channel;

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use pylon_testkit::answer::{Answer, alphabet};
use pylon_testkit::binary::Binary;
use pylon_testkit::http2::{Http2, send};
use pylon_testkit::upstream::{End, Upstream};
use pylon_testkit::wait::{ms, pause, until};
use pylon_testkit::websocket::{BINARY, CLOSE, Frame, KEY, TEXT, code, echo, from_client, switching};

use crate::websocket::{document, gate};

pub(crate) const V13: (&str, &str) = ("sec-websocket-version", "13");

/// A WebSocket on a stream.
pub(crate) struct Open<'c> {
    connection: &'c Http2,
    pub(crate) sending: SendStream<Bytes>,
    reading: RecvStream,
    ahead: Vec<u8>,
}

impl Open<'_> {
    pub(crate) fn send(&mut self, opcode: u8, payload: &[u8]) {
        let bytes = Bytes::from(from_client(opcode, payload));
        self.connection.wait(send(&mut self.sending, bytes)).unwrap();
    }

    pub(crate) fn frame(&mut self) -> Frame {
        Frame::read(|length| {
            while self.ahead.len() < length {
                let data =
                    self.connection.wait(self.reading.data()).ok_or("the stream ended")?.map_err(|_| "broken")?;
                let _ = self.reading.flow_control().release_capacity(data.len());
                self.ahead.extend_from_slice(&data);
            }
            Ok::<_, &str>(self.ahead.drain(..length).collect())
        })
        .unwrap()
    }

    pub(crate) fn ends(&mut self) -> bool {
        // The end may come as a frame without content.
        while let Some(Ok(data)) = self.connection.wait(self.reading.data()) {
            if !data.is_empty() {
                return false;
            }
        }
        true
    }
}

pub(crate) fn open<'c>(client: &'c mut Http2, path: &str, more: &[(&str, &str)]) -> Open<'c> {
    let fields = [&[V13], more].concat();
    let stream = client.connect_protocol("websocket", &format!("http://gate.test{path}"), &fields).unwrap();
    let sending = stream.sending;
    let answer = client.wait(stream.answer).unwrap();
    assert_eq!(answer.status(), 200, "{answer:?}");
    for name in ["sec-websocket-accept", "upgrade", "connection", "transfer-encoding", "content-length"] {
        assert!(!answer.headers().contains_key(name), "{name} in {answer:?}");
    }
    Open { connection: client, sending, reading: answer.into_body(), ahead: Vec::new() }
}

#[test]
fn a_stream_becomes_a_websocket_of_http_1_for_the_service() {
    let upstream = echo();
    let gate = gate(&upstream, "true");
    let mut client = Http2::connect(gate.address());
    let mut stream = open(&mut client, "/chat", &[("origin", "https://a.test"), ("sec-websocket-protocol", "v1")]);
    let seen = upstream.last();
    assert_eq!(seen.start, "GET /chat HTTP/1.1");
    assert_eq!(seen.field("host").as_deref(), Some("gate.test"));
    assert_eq!(seen.field("sec-websocket-protocol").as_deref(), Some("v1"));
    assert_ne!(seen.field("sec-websocket-key").as_deref(), Some(KEY));
    for length in [0, 126, 70_000, 1 << 20] {
        // Sent piece by piece, or two full windows would wait for each other.
        stream.send(BINARY, &alphabet(length));
        assert!(stream.frame().payload == alphabet(length));
    }
    stream.send(CLOSE, &code(1000));
    assert_eq!(stream.frame().code(), Some(1000));
    assert!(stream.ends());
    let line = gate.logged("/chat");
    assert_eq!((line["status"].as_u64(), line["end"].as_str()), (Some(101), Some("complete")), "{line}");
    assert_eq!((line["protocol"].as_str(), line["method"].as_str()), (Some("HTTP/2"), Some("GET")));
    // The connection goes on.
    assert_eq!(client.ask("GET", "http://gate.test/plain", &[], b"").unwrap().text(), "plain");
}

#[test]
fn nothing_else_is_connected_to_and_only_where_a_route_allows_it() {
    let upstream = echo();
    let gate = gate(&upstream, "true");
    let mut client = Http2::connect(gate.address());
    for (protocol, path, fields, status, reason) in [
        ("connect-udp", "/chat", &[V13][..], 501, "request.method"),
        ("h2c", "/chat", &[V13], 501, "request.method"),
        ("websocket", "/plain", &[V13], 501, "request.method"),
        ("websocket", "/admin/chat", &[V13], 403, "ip_filter.denied"),
        ("websocket", "/chat", &[("sec-websocket-version", "8")], 426, "websocket.version"),
        ("websocket", "/chat", &[], 426, "websocket.version"),
    ] {
        let uri = format!("http://gate.test{path}");
        let stream = client.connect_protocol(protocol, &uri, fields).unwrap();
        let answer = client.answer(stream).unwrap();
        let code = serde_json::from_slice::<serde_json::Value>(&answer.body).unwrap()["code"].clone();
        assert_eq!((answer.status, code.as_str()), (status, Some(reason)), "{protocol} {path}");
    }
    assert_eq!(upstream.requests(), 0);
    // An upgrade as HTTP/1.1 knows it is no message of HTTP/2.
    let fields = [("connection", "upgrade"), ("upgrade", "websocket"), V13, ("sec-websocket-key", KEY)];
    assert!(client.ask("GET", "http://gate.test/chat", &fields, b"").is_err());
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn a_success_that_is_no_switch_does_not_pass_for_one() {
    let upstream = Upstream::http(|request| match request.target() {
        "/ok" => Answer::text("a page"),
        _ => Answer::new(403).body("no"),
    });
    let gate = gate(&upstream, "true");
    let mut client = Http2::connect(gate.address());
    for (path, status) in [("/ok", 502), ("/no", 403)] {
        let stream = client.connect_protocol("websocket", &format!("http://gate.test{path}"), &[V13]).unwrap();
        let answer = client.answer(stream).unwrap();
        assert_eq!(answer.status, status, "{}", answer.text());
    }
}

#[test]
fn a_stream_that_is_open_keeps_its_connection_and_one_that_is_reset_ends_at_the_service() {
    let (told, ended) = channel();
    let upstream = Upstream::script(move |peer| {
        let Ok(request) = peer.request() else { return };
        peer.send(switching(&request, ""));
        let _ = told.send(peer.wait_for_end(ms(10_000)));
    });
    let document = format!("limits: {{ idle_timeout: 200ms, write_timeout: 300ms }}\n{}", document(&upstream, "true"));
    let gate = Binary::start(&document);
    let mut client = Http2::connect(gate.address());
    let mut stream = open(&mut client, "/chat", &[]);
    pause(ms(700));
    stream.send(TEXT, b"still here");
    until(ms(5000), "the service has it", || upstream.received(0).ends_with(&from_client(TEXT, b"still here")));
    stream.sending.send_reset(h2::Reason::CANCEL);
    drop(stream);
    assert_ne!(ended.recv_timeout(ms(5000)).unwrap(), End::Open);
    assert_eq!(gate.logged("/chat")["end"], "client_gone");
    until(ms(5000), "the idle connection is ended", || client.has_ended());
}

#[test]
fn the_end_of_the_gateway_closes_streams_with_1001() {
    let upstream = echo();
    let mut gate = gate(&upstream, "true");
    let mut client = Http2::connect(gate.address());
    let mut stream = open(&mut client, "/chat", &[]);
    gate.process.terminate();
    assert_eq!(stream.frame().code(), Some(1001));
    stream.send(CLOSE, &code(1001));
    assert!(stream.ends());
    drop(stream);
    // Whether the socket is closed before or after the client's last frame is in the hands of the two.
    let _ends = client.end();
    assert_eq!(gate.process.code(ms(5000)), Some(0));
    assert_eq!(gate.logged("/chat")["end"], "drained");
}
