//! Streams of a route that a reload removes: they go on, or end so that nobody takes them for complete, as the route says.
//! Failure 18.

use bytes::Bytes;
use pylon_testkit::binary::Binary;
use pylon_testkit::client::request;
use pylon_testkit::http2::Http2;
use pylon_testkit::http2_service::{Http2Service, broken_off};
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{ms, now, pause, until};
use pylon_testkit::websocket::{CLOSE, TEXT, WebSocket, echo};

/// A service whose answers begin and do not end by themselves.
fn endless() -> Upstream {
    Upstream::script(|peer| {
        let _ = peer.request();
        peer.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n");
        peer.wait_for_end(ms(20_000));
    })
}

const REST: &str = "  - { match: /rest, respond: 204 }\n";

#[test]
fn a_websocket_is_closed_with_1001_where_its_route_says_so_and_goes_on_where_not() {
    let sockets = echo();
    let document =
        |routes: &str| format!("upstreams: {{ ws: {{ endpoints: [{}] }} }}\nroutes:\n{REST}{routes}", sockets.url());
    let routes = "  - { match: /close, forward: ws, websocket: true, on_removal: close }\n  \
                  - { match: /keep, forward: ws, websocket: true }\n  \
                  - { match: /stays, forward: ws, websocket: true, on_removal: close }\n";
    let gate = Binary::start(&document(routes));
    let begin = |path: &str| WebSocket::begin(gate.connect(), path, &[]);
    let (mut close, mut keep, mut stays) = (begin("/close"), begin("/keep"), begin("/stays"));
    let left = "  - { match: /stays, forward: ws, websocket: true, on_removal: close }\n";
    // A reload that leaves the routes alone ends nothing.
    gate.apply(&document(&format!("{routes}  - {{ match: /other, respond: 204 }}\n")));
    for socket in [&mut close, &mut keep, &mut stays] {
        socket.echoes(TEXT, b"before");
    }
    let began = now();
    gate.apply(&document(left));
    assert_eq!(gate.metric("pylon_snapshots"), Some(1.0), "streams hold no snapshot");
    assert_eq!(close.frame().code(), Some(1001));
    assert!(began.elapsed() < ms(8000));
    close.send(CLOSE, &[3, 233]);
    assert_eq!(gate.logged("/close")["end"], "route_removed");
    keep.echoes(TEXT, b"after");
    stays.echoes(TEXT, b"after");
    // The route comes back, and its streams are others.
    gate.apply(&document(routes));
    let mut again = begin("/close");
    pause(ms(1300));
    again.echoes(TEXT, b"again");
    keep.echoes(TEXT, b"to its own end");
}

#[test]
fn a_route_that_is_back_within_the_second_loses_no_stream() {
    let sockets = echo();
    let document =
        |routes: &str| format!("upstreams: {{ ws: {{ endpoints: [{}] }} }}\nroutes:\n{REST}{routes}", sockets.url());
    let route = "  - { match: /ws, forward: ws, websocket: true, on_removal: close }\n";
    let gate = Binary::start(&document(route));
    let mut socket = WebSocket::begin(gate.connect(), "/ws", &[]);
    gate.apply(&document(""));
    gate.apply(&document(route));
    pause(ms(1300));
    socket.echoes(TEXT, b"still here");
}

#[test]
fn events_are_cut_so_that_nobody_takes_them_for_complete() {
    let events = endless();
    let document =
        |routes: &str| format!("upstreams: {{ events: {{ endpoints: [{}] }} }}\nroutes:\n{REST}{routes}", events.url());
    let gate = Binary::start(&document(
        "  - { match: /close, forward: events, on_removal: close }\n  - { match: /keep, forward: events }\n",
    ));
    let (mut close, mut keep) = (gate.connect(), gate.connect());
    let mut http2 = Http2::connect(gate.address());
    for (client, path) in [(&mut close, "/close"), (&mut keep, "/keep")] {
        client.send(request("GET", path, &[("host", "a")], b""));
        assert_eq!(client.head().status(), 200);
    }
    let stream = http2.open("GET", &format!("http://{}/close", gate.address()), &[], true).unwrap();
    let mut body = http2.head(stream).unwrap().into_body();
    let first = http2.wait(body.data()).unwrap().unwrap();
    assert_eq!(first, Bytes::from_static(b"data: 1\n\n"));
    gate.apply(&document(""));
    let got = close.rest();
    assert!(got.starts_with(b"9\r\n") && !got.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&got));
    let broken = http2.wait(body.data());
    assert!(broken.is_some_and(|data| data.is_err_and(|error| error.is_reset())));
    assert_eq!(http2.ask("GET", &format!("http://{}/rest", gate.address()), &[], b"").unwrap().status, 204);
    until(ms(5000), "the services of both are let go", || events.open() == 1);
    drop(keep);
    until(ms(5000), "and of the third, when its client goes", || events.open() == 0);
}

#[test]
fn a_call_of_grpc_ends_with_a_status_of_its_own() {
    let service = Http2Service::start(|mut call| async move {
        let mut stream = call.begin(200, &[("content-type", "application/grpc")]);
        let _ = stream.send_data(Bytes::from_static(b"\0\0\0\0\x01x"), false);
        broken_off(&mut stream).await;
    });
    let document = |routes: &str| {
        format!(
            "upstreams: {{ api: {{ endpoints: [\"{}\"], protocol: http2 }} }}\nroutes:\n{REST}{routes}",
            service.url()
        )
    };
    let gate = Binary::start(&document("  - { match: \"/{*rest}\", forward: api, on_removal: close }\n"));
    let mut client = Http2::connect(gate.address());
    let call = [("content-type", "application/grpc"), ("te", "trailers")];
    let stream = client.open("POST", "http://api.test/a.B/C", &call, true).unwrap();
    until(ms(5000), "the service has it", || service.requests() == 1);
    gate.apply(&document(""));
    let answer = client.answer(stream).unwrap();
    assert_eq!((answer.status, answer.body.len()), (200, 6));
    assert_eq!(answer.trailers["grpc-status"], "14");
}

#[test]
fn what_is_short_is_finished() {
    let slow = Upstream::script(|peer| {
        let _ = peer.request();
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabc");
        peer.pause(ms(400));
        peer.send("def");
    });
    let document =
        |routes: &str| format!("upstreams: {{ slow: {{ endpoints: [{}] }} }}\nroutes:\n{REST}{routes}", slow.url());
    let gate = Binary::start(&document("  - { match: /slow, forward: slow, on_removal: close }\n"));
    let mut client = gate.connect();
    client.send(request("GET", "/slow", &[("host", "a")], b""));
    assert_eq!(client.head().status(), 200);
    gate.apply(&document(""));
    assert_eq!(client.exactly(6), b"abcdef");
}
