//! Streams of all kinds that are open at the same time, for tests of what may not end them.

use std::sync::{Arc, Condvar, Mutex};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use pylon_testkit::binary::Binary;
use pylon_testkit::client::{Raw, request};
use pylon_testkit::http2::{Http2, Stream};
use pylon_testkit::http2_service::Http2Service;
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::ms;
use pylon_testkit::websocket::{TEXT, WebSocket, echo};

/// What services of streams are told to say next.
#[derive(Debug, Default)]
struct Turn {
    number: Mutex<usize>,
    changed: Condvar,
}

/// A service of each kind of stream.
#[derive(Debug)]
pub(crate) struct Services {
    sockets: Upstream,
    events: Upstream,
    calls: Http2Service,
    turn: Arc<Turn>,
}

/// Streams that are open.
#[derive(Debug)]
pub(crate) struct Streams {
    sockets: Vec<WebSocket>,
    events: Vec<Raw>,
    client: Http2,
    calls: Vec<(SendStream<Bytes>, RecvStream)>,
    turn: Arc<Turn>,
}

impl Services {
    pub(crate) fn start() -> Self {
        let turn = Arc::<Turn>::default();
        let told = Arc::clone(&turn);
        let events = Upstream::script(move |peer| {
            let _ = peer.request();
            let mut going = peer.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n");
            let mut said = 0;
            while going {
                let number = told.number.lock().unwrap();
                let (number, _) = told.changed.wait_timeout_while(number, ms(500), |number| *number == said).unwrap();
                said = *number;
                drop(number);
                going = peer.send(format!("data: {said}\n\n"));
            }
        });
        let calls = Http2Service::start(|mut call| async move {
            let mut sending = call.begin(200, &[("content-type", "application/grpc")]);
            while let Some(Ok(data)) = call.request.body_mut().data().await {
                let _ = call.request.body_mut().flow_control().release_capacity(data.len());
                if sending.send_data(data, false).is_err() {
                    return;
                }
            }
        });
        Self { sockets: echo(), events, calls, turn }
    }

    /// Their entries in `upstreams`.
    pub(crate) fn upstreams(&self) -> String {
        format!(
            "  sockets: {{ endpoints: [{}] }}\n  events: {{ endpoints: [{}] }}\n  \
               calls: {{ endpoints: [\"{}\"], protocol: http2 }}\n",
            self.sockets.url(),
            self.events.url(),
            self.calls.url()
        )
    }

    /// Their entries in `routes`.
    pub(crate) fn routes() -> &'static str {
        "  - { match: /ws, forward: sockets, websocket: true }\n  - { match: /events, forward: events }\n  \
           - { match: /test.Echo/Chat, forward: calls }\n"
    }

    /// Opens so many of each kind.
    pub(crate) fn open(&self, gate: &Binary, each: usize) -> Streams {
        let sockets = (0..each).map(|_| WebSocket::begin(gate.connect(), "/ws", &[])).collect();
        let events = (0..each).map(|_| {
            let mut raw = gate.connect();
            raw.send(request("GET", "/events", &[], b""));
            assert_eq!(raw.head().status(), 200);
            raw
        });
        let events = events.collect();
        let mut client = Http2::connect(gate.address());
        let uri = format!("http://{}/test.Echo/Chat", gate.address());
        let fields = [("content-type", "application/grpc"), ("te", "trailers")];
        let calls = (0..each).map(|_| {
            let Stream { sending, answer } = client.open("POST", &uri, &fields, false).unwrap();
            let answer = client.wait(answer).unwrap();
            assert_eq!(answer.status(), 200);
            (sending, answer.into_body())
        });
        let calls = calls.collect();
        Streams { sockets, events, client, calls, turn: Arc::clone(&self.turn) }
    }
}

impl Streams {
    /// Wants something new over each of them.
    pub(crate) fn speak(&mut self) {
        let mut number = self.turn.number.lock().unwrap();
        *number += 1;
        let event = format!("data: {}\n\n", *number);
        drop(number);
        self.turn.changed.notify_all();
        for socket in &mut self.sockets {
            socket.echoes(TEXT, event.as_bytes());
        }
        for (sending, answer) in &mut self.calls {
            sending.send_data(Bytes::from(event.clone()), false).unwrap();
            let mut back = Vec::new();
            while back.len() < event.len() {
                let data = self.client.wait(answer.data()).expect("the call is open").unwrap();
                answer.flow_control().release_capacity(data.len()).unwrap();
                back.extend_from_slice(&data);
            }
            assert_eq!(back, event.as_bytes());
        }
        for stream in &mut self.events {
            let mut seen = Vec::new();
            while !String::from_utf8_lossy(&seen).contains(&event) {
                let more = stream.some().unwrap();
                assert!(!more.is_empty(), "a stream of events has ended");
                seen.extend(more);
            }
        }
    }
}
