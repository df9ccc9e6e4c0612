//! WebSocket on HTTP/1.1: what passes, what is let pass where, and what does not before the service has switched.

use std::sync::Arc;

use crate::documents::{refused, with_head};
use pylon_testkit::answer::{Answer, alphabet};
use pylon_testkit::binary::Binary;
use pylon_testkit::client::request;
use pylon_testkit::terminator::Terminator;
use pylon_testkit::tls::Authority;
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{ms, until};
use pylon_testkit::websocket::{
    ACCEPT, BINARY, CLOSE, KEY, PING, PONG, TEXT, WebSocket, code, echo, frame, from_client, handshake, next, switching,
};

/// A gateway that lets WebSockets to this service pass, and nothing to `/admin`.
pub(crate) fn gate(upstream: &Upstream, websocket: &str) -> Binary {
    Binary::start(&document(upstream, websocket))
}

pub(crate) fn document(upstream: &Upstream, websocket: &str) -> String {
    format!(
        "upstreams: {{ chat: {{ endpoints: [{}] }} }}
routes:
  - {{ match: \"/{{*rest}}\", forward: chat, websocket: {websocket} }}
  - {{ match: \"/admin/{{*rest}}\", forward: chat, ip_filter: {{ allow: 10.0.0.0/8 }}, websocket: true }}
  - {{ match: /plain, forward: chat }}",
        upstream.url()
    )
}

#[test]
fn messages_of_every_size_pass_both_ways_and_are_told_in_one_record() {
    let upstream = echo();
    let gate = gate(&upstream, "true");
    let mut client = WebSocket::begin(gate.connect(), "/chat?room=1", &[("origin", "https://a.test")]);
    assert_eq!(client.answer.field("sec-websocket-accept").as_deref(), Some(ACCEPT));
    assert_eq!(client.answer.field("upgrade").as_deref(), Some("websocket"));
    assert_eq!(client.answer.field("connection").as_deref(), Some("upgrade"));
    assert!(client.answer.field("x-request-id").is_some());
    let seen = upstream.last();
    assert_eq!(seen.field("sec-websocket-key").as_deref(), Some(KEY));
    assert_eq!(seen.field("connection").as_deref(), Some("upgrade"));
    assert_eq!(seen.field("origin").as_deref(), Some("https://a.test"));
    assert_eq!(seen.field("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    let mut bytes = 0;
    for length in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
        client.echoes(BINARY, &alphabet(length));
        bytes += from_client(BINARY, &alphabet(length)).len();
    }
    client.send(PING, b"there?");
    let pong = client.frame();
    assert_eq!((pong.opcode, pong.payload.as_slice()), (PONG, &b"there?"[..]));
    // A message in three pieces with a ping between.
    for (first, payload) in [(TEXT, "one "), (0x80 | PING, "?"), (0, "two "), (0x80, "three")] {
        client.raw.send(frame(first, payload.as_bytes(), Some([1, 2, 3, 4])));
        let back = client.frame();
        assert_eq!(back.payload, payload.as_bytes());
        bytes += payload.len() + 6;
    }
    assert_eq!(gate.metric("pylon_tunnels"), Some(1.0));
    assert_eq!(gate.metric("pylon_requests_in_flight"), Some(1.0));
    client.send(CLOSE, &[&code(1000)[..], b"bye"].concat());
    assert_eq!(client.frame().payload, [&code(1000)[..], b"bye"].concat());
    client.raw.expect_closed();
    bytes += 12 + 11;
    let line = gate.logged("/chat?room=1");
    assert_eq!((line["status"].as_u64(), line["end"].as_str()), (Some(101), Some("complete")), "{line}");
    assert_eq!(line["bytes_in"].as_u64(), Some(bytes as u64), "{line}");
    assert!(line["bytes_out"].as_u64().unwrap() > 1 << 20);
    until(ms(2000), "it is counted as over", || gate.metric("pylon_tunnels") == Some(0.0));
    assert_eq!(gate.metric("pylon_requests_total{route=\"/{*rest}\",status_class=\"1xx\"}"), Some(1.0));
}

#[test]
fn a_route_without_the_key_drops_the_offer_and_one_with_it_serves_plain_requests_too() {
    let upstream = echo();
    let gate = gate(&upstream, "true");
    let mut client = gate.connect();
    assert_eq!(client.send(handshake("/plain", &[])).response().text(), "plain");
    assert_eq!(upstream.last().field("upgrade"), None);
    assert_eq!(client.ask("POST", "/chat", &[], b"x").text(), "plain");
    assert_eq!(client.get("/chat").text(), "plain");
    // None but a sole `websocket` is an offer; what is none is dropped.
    for offer in [
        &[("upgrade", "h2c"), ("connection", "Upgrade, HTTP2-Settings"), ("http2-settings", "AAMAAABkAAQAAP__")][..],
        &[("upgrade", "websocket, h2c"), ("connection", "upgrade")],
        &[("upgrade", "websocket"), ("upgrade", "h2c"), ("connection", "upgrade")],
        &[("upgrade", "connect-udp"), ("connection", "upgrade")],
        &[("upgrade", "websocket")],
    ] {
        let fields = [offer, &[("sec-websocket-version", "13"), ("sec-websocket-key", KEY)]].concat();
        assert_eq!(client.ask("GET", "/chat", &fields, b"").text(), "plain", "{offer:?}");
        let seen = upstream.last();
        assert!(["upgrade", "connection", "http2-settings"].iter().all(|name| seen.field(name).is_none()), "{seen:?}");
    }
    client.send(handshake("/chat", &[]).strip_suffix(b"\r\n").unwrap());
    assert_eq!(client.send("\r\n").head().status(), 101, "on a connection that was used before");
    // HTTP/1.0 knows no upgrade (RFC 9110 §7.8).
    let old = String::from_utf8(handshake("/chat", &[])).unwrap().replace("HTTP/1.1", "HTTP/1.0");
    assert_eq!(gate.connect().send(old).response().text(), "plain");
}

#[test]
fn a_handshake_that_is_wrong_is_refused_behind_the_policies() {
    let upstream = echo();
    let gate = gate(&upstream, "true");
    let wire = String::from_utf8(handshake("/chat", &[])).unwrap();
    for (wrong, status, reason) in [
        (wire.replace("GET", "POST"), 400, "websocket.handshake"),
        (wire.replace(KEY, "c2hvcnQ="), 400, "websocket.handshake"),
        (wire.replace("sec-websocket-key", "x-key"), 400, "websocket.handshake"),
        (wire.replace("\r\n\r\n", &format!("\r\nsec-websocket-key: {KEY}\r\n\r\n")), 400, "websocket.handshake"),
        (wire.replace("\r\n\r\n", "\r\ncontent-length: 5\r\n\r\nhello"), 400, "websocket.handshake"),
        (wire.replace(": 13", ": 8"), 426, "websocket.version"),
        (wire.replace("sec-websocket-version", "x-version"), 426, "websocket.version"),
        (wire.replace("/chat", "/admin/chat").replace(KEY, "?"), 403, "ip_filter.denied"),
        (wire.replace("/chat", "/admin/chat"), 403, "ip_filter.denied"),
    ] {
        let answer = gate.connect().send(&wrong).response();
        assert_eq!((answer.status(), answer.code().as_deref()), (status, Some(reason)), "{wrong}");
        if status == 426 {
            assert_eq!(answer.field("sec-websocket-version").as_deref(), Some("13"));
            assert_eq!(answer.field("upgrade").as_deref(), Some("websocket"));
        }
    }
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn nothing_reaches_the_service_before_it_has_switched() {
    let upstream = Upstream::script(|peer| {
        let Ok(request) = peer.request() else { return };
        // What came now would be dropped here and missed below.
        peer.wait_for_end(ms(300));
        peer.send([switching(&request, "").into_bytes(), frame(0x81, b"at once", None)].concat());
        let early = next(peer).unwrap();
        peer.send(frame(0x81, &early.payload, None));
        peer.wait_for_end(ms(5000));
    });
    let gate = gate(&upstream, "true");
    let mut client = gate.connect();
    client.send([handshake("/chat", &[]), from_client(TEXT, b"early")].concat());
    let answer = client.head();
    assert_eq!(answer.status(), 101);
    let mut client = WebSocket { raw: client, answer };
    assert_eq!(client.frame().payload, b"at once", "what came with the 101 is not lost");
    assert_eq!(client.frame().payload, b"early");
}

#[test]
fn bytes_behind_a_handshake_that_the_service_refuses_are_requests_like_any_other() {
    let upstream = Upstream::http(|request| match request.field("upgrade") {
        Some(_) => Answer::new(403).body("no"),
        None => Answer::text(request.target()),
    });
    let gate = gate(&upstream, "true");
    let mut client = gate.connect();
    let behind = [request("GET", "/admin/x", &[], b""), request("GET", "/behind", &[], b"")].concat();
    client.send([handshake("/chat", &[]), behind].concat());
    let refused = client.response();
    assert_eq!((refused.status(), refused.text().as_str()), (403, "no"));
    assert_eq!(client.response().code().as_deref(), Some("ip_filter.denied"));
    assert_eq!(client.response().text(), "/behind");
    // The service's connection is one for ordinary requests still.
    assert_eq!(upstream.connections(), 1);
    assert_eq!(gate.logged("/chat")["status"], 403);
}

#[test]
fn any_answer_but_a_proved_switch_is_an_answer_or_a_fault_of_the_service() {
    let ok = format!(
        "HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {ACCEPT}\r\n\r\n"
    );
    for (head, status) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned(), 200),
        ("HTTP/1.1 426 Upgrade Required\r\nsec-websocket-version: 13\r\ncontent-length: 0\r\n\r\n".to_owned(), 426),
        ("HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n".to_owned(), 302),
        (ok.replace(ACCEPT, "s3pPLMBiTxaQ9kYGzzhZRbK+xOO="), 502),
        (ok.replace("sec-websocket-accept", "x-accept"), 502),
        (ok.replace("upgrade: websocket", "upgrade: h2c"), 502),
        (ok.replace("upgrade: websocket", "upgrade: websocket\r\nupgrade: h2c"), 502),
        (ok.replace("connection: upgrade", "connection: close"), 502),
        ("\u{81}\u{5}hello\r\n\r\n".to_owned(), 502),
        ("HTTP/1.1 101 X\r\n\r\n".to_owned(), 502),
    ] {
        let script = head.clone();
        let upstream = Upstream::script(move |peer| {
            while peer.request().is_ok() {
                peer.send(&script);
            }
        });
        let gate = gate(&upstream, "true");
        let mut client = gate.connect();
        let answer = client.send(handshake("/chat", &[])).response();
        assert_eq!(answer.status(), status, "{head:?}: {answer:?}");
        if status == 502 {
            assert_eq!(answer.code().as_deref(), Some("upstream.protocol"), "{head:?}");
            assert_eq!(answer.field("sec-websocket-accept"), None);
        }
        // A switch that nobody asked for is one still, on a route that would allow it.
        if head == ok.replace(ACCEPT, "s3pPLMBiTxaQ9kYGzzhZRbK+xOO=") {
            assert_eq!(client.get("/chat").status(), 502);
        }
    }
}

#[test]
fn protocol_and_extensions_are_the_matter_of_the_two_ends_and_no_policys() {
    let upstream = Upstream::script(|peer| {
        let Ok(request) = peer.request() else { return };
        let more = "sec-websocket-protocol: chat.v2\r\nsec-websocket-extensions: permessage-deflate\r\nx-inner: 1\r\n";
        peer.send(switching(&request, more));
        // A compressed message: the first reserved bit is set.
        peer.send(frame(0xC1, &[0xF2, 0x48, 0xCD, 0xC9, 0xC9, 7, 0], None));
        let _ = next(peer);
    });
    let gate = Binary::start(&format!(
        "upstreams: {{ chat: {{ endpoints: [{}] }} }}
routes:
  - match: /chat
    forward: chat
    websocket: {{}}
    headers:
      request: {{ set: {{ sec-websocket-key: forged }} }}
      response: {{ set: {{ x-seen: \"1\", sec-websocket-accept: forged, sec-websocket-protocol: forged }}, remove: [x-inner, sec-websocket-extensions] }}",
        upstream.url()
    ));
    let offers = [("sec-websocket-protocol", "chat.v1, chat.v2"), ("sec-websocket-extensions", "permessage-deflate")];
    let mut client = WebSocket::begin(gate.connect(), "/chat", &offers);
    let seen = upstream.last();
    for (name, value) in offers {
        assert_eq!(seen.field(name).as_deref(), Some(value));
    }
    let answer = &client.answer;
    for (name, value) in [
        ("sec-websocket-accept", ACCEPT),
        ("sec-websocket-protocol", "chat.v2"),
        ("sec-websocket-extensions", "permessage-deflate"),
        ("upgrade", "websocket"),
        ("x-seen", "1"),
    ] {
        assert_eq!(answer.field(name).as_deref(), Some(value), "{answer:?}");
    }
    assert_eq!(answer.field("x-inner"), None);
    assert_eq!(client.frame().payload.len(), 7);
}

#[test]
fn it_passes_under_tls() {
    let authority = Authority::default();
    let upstream = echo();
    let document = format!(
        "listeners: [{{ address: 127.0.0.1:0, tls: {{ certificates: [{{ cert: a.pem, key: a.key }}] }} }}]\n{}",
        document(&upstream, "true")
    );
    let gate = Binary::start_with(&document, &[], |folder| authority.issue(&["gate.test"]).write(folder, "a"));
    let config = Arc::new(authority.client(rustls::DEFAULT_VERSIONS, None));
    let mut client = WebSocket::begin(gate.connect().try_tls(&config, "gate.test").unwrap(), "/chat", &[]);
    assert_eq!(upstream.last().field("x-forwarded-proto").as_deref(), Some("https"));
    for length in [1, 70_000, 1 << 20] {
        client.echoes(BINARY, &alphabet(length));
    }
    client.send(CLOSE, &code(1000));
    assert_eq!(client.frame().code(), Some(1000));
    client.raw.expect_closed();
    assert_eq!(gate.logged("/chat")["end"], "complete");
}

#[test]
fn it_passes_to_a_service_under_tls() {
    let (authority, upstream) = (Authority::default(), echo());
    let secure = Terminator::before(
        upstream.address(),
        authority.server(&authority.issue(&["localhost"]), &["http/1.1"], false),
    );
    let document = format!(
        "upstreams: {{ chat: {{ endpoints: [\"{}\"], tls: {{ ca: ca.pem }} }} }}
routes: [{{ match: /chat, forward: chat, websocket: true }}]",
        secure.url("localhost")
    );
    let gate =
        Binary::start_with(&document, &[], |folder| std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap());
    let mut client = WebSocket::begin(gate.connect(), "/chat", &[]);
    for length in [1, 70_000, 1 << 20] {
        client.echoes(BINARY, &alphabet(length));
    }
    client.send(CLOSE, &code(1000));
    assert_eq!(client.frame().code(), Some(1000));
    client.raw.expect_closed();
    assert_eq!(gate.logged("/chat")["end"], "complete");
}

#[test]
fn what_breaks_the_protocol_ends_with_1002_and_what_is_too_long_with_1009() {
    let upstream = echo();
    let gate = gate(&upstream, "{ max_message: 1KiB }");
    for (path, wrong, expected) in [
        ("/mask", frame(0x81, b"unmasked", None), 1002),
        ("/opcode", frame(0x83, b"reserved", Some([0; 4])), 1002),
        ("/pieces", frame(0x09, b"of a ping", Some([0; 4])), 1002),
        ("/nothing", frame(0x80, b"continued", Some([0; 4])), 1002),
        ("/long", frame(0x82, &[0; 1025], Some([0; 4])), 1009),
        ("/length", vec![0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4], 1002),
    ] {
        let mut client = WebSocket::begin(gate.connect(), path, &[]);
        client.echoes(TEXT, b"good");
        client.raw.send(&wrong);
        assert_eq!(client.frame().code(), Some(expected), "{wrong:?}");
    }
    let line = gate.logged("/mask");
    assert_eq!((line["status"].as_u64(), line["end"].as_str()), (Some(101), Some("client_broke")), "{line}");
    assert_eq!(line["detail"], "a frame of a client is not masked");
    let masks = Upstream::script(|peer| {
        let Ok(request) = peer.request() else { return };
        peer.send(switching(&request, ""));
        peer.send(frame(0x81, b"masked", Some([1, 2, 3, 4])));
        assert_eq!(next(peer).unwrap().code(), Some(1002));
    });
    let gate = self::gate(&masks, "true");
    let mut client = WebSocket::begin(gate.connect(), "/broken", &[]);
    assert_eq!(client.frame().code(), Some(1011));
    client.send(CLOSE, &code(1000));
    assert_eq!(gate.logged("/broken")["end"], "upstream_broke");
}

#[test]
fn it_stands_beside_an_action_that_asks_a_service() {
    for (route, message) in [
        ("{ match: /x, respond: 204, websocket: true }", "`websocket` means nothing without `forward` or `split`"),
        ("{ match: /x, forward: chat, websocket: maybe }", "neither `true` nor `false`"),
        ("{ match: /x, forward: chat, websocket: { idel: 5m } }", "did you mean `idle`"),
    ] {
        let document = format!("upstreams: {{ chat: {{ endpoints: [http://127.0.0.1:9] }} }}\nroutes: [{route}]");
        let said = refused(&with_head(&document));
        assert!(said.contains(message), "{said}");
    }
    let upstream = echo();
    let off = gate(&upstream, "false");
    assert_eq!(off.connect().send(handshake("/chat", &[])).response().text(), "plain");
    let split = Binary::start(&format!(
        "upstreams: {{ a: {{ endpoints: [{0}] }}, b: {{ endpoints: [{0}] }} }}
routes: [{{ match: /chat, split: {{ a: 50%, b: 50% }}, websocket: true }}]",
        upstream.url()
    ));
    WebSocket::begin(split.connect(), "/chat", &[]).echoes(TEXT, b"x");
}
