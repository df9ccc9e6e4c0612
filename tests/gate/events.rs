//! Server-sent events: each goes out at once, a stream lives for as long as something comes, and silence ends it.

use std::collections::HashMap;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};

use h2::RecvStream;
use pylon_testkit::answer::chunk;
use pylon_testkit::binary::Binary;
use pylon_testkit::client::{Raw, request};
use pylon_testkit::http2::Http2;
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{eventually, ms, now, pause};

/// What makes the service send an event, by the path of the stream.
type Triggers = Arc<Mutex<HashMap<String, Sender<String>>>>;

/// A service that sends an event when it is told to, with or without chunks.
fn service() -> (Upstream, Triggers) {
    let triggers = Triggers::default();
    let shared = Arc::clone(&triggers);
    let upstream = Upstream::script(move |peer| {
        let Ok(request) = peer.request() else { return };
        let (trigger, triggered) = channel();
        shared.lock().unwrap().insert(request.target().to_owned(), trigger);
        let chunked = !request.target().contains("close");
        let framing = if chunked { "transfer-encoding: chunked" } else { "connection: close" };
        peer.send(format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{framing}\r\n\r\n"));
        for event in triggered {
            let event = event.into_bytes();
            if !peer.send(if chunked { chunk(&event) } else { event }) {
                return;
            }
        }
    });
    (upstream, triggers)
}

fn gate(upstream: &Upstream, timeout: &str) -> Binary {
    Binary::start(&format!(
        "upstreams: {{ news: {{ endpoints: [{}] }} }}
routes: [{{ match: \"/{{*rest}}\", forward: news, timeout: {timeout} }}]",
        upstream.url()
    ))
}

/// A client that has the head of its stream.
enum Client {
    Http1(Box<Raw>),
    Http2(Box<Http2>, RecvStream),
}

impl Client {
    fn open(gate: &Binary, path: &str, http2: bool) -> Self {
        if http2 {
            let mut client = Http2::connect(gate.address());
            let stream = client.open("GET", &format!("http://gate.test{path}"), &[], true).unwrap();
            let answer = client.head(stream).unwrap();
            assert_eq!(answer.headers()["content-type"], "text/event-stream");
            return Self::Http2(Box::new(client), answer.into_body());
        }
        let mut client = gate.connect();
        let head = client.send(request("GET", path, &[], b"")).head();
        assert_eq!(head.field("content-type").as_deref(), Some("text/event-stream"));
        Self::Http1(Box::new(client))
    }

    /// Reads until this text is there.
    fn sees(&mut self, wanted: &str) {
        let mut seen = String::new();
        while !seen.contains(wanted) {
            let bytes = match self {
                Self::Http1(client) => client.some().unwrap(),
                Self::Http2(client, stream) => client.wait(stream.data()).unwrap().unwrap().to_vec(),
            };
            assert!(!bytes.is_empty(), "the stream ended before {wanted:?}");
            seen.push_str(&String::from_utf8_lossy(&bytes));
        }
    }

    /// Wants the stream to be cut, not ended.
    fn must_be_cut(self) {
        match self {
            Self::Http1(mut client) => {
                let rest = client.rest();
                assert!(!rest.ends_with(b"0\r\n\r\n"), "half a stream passes for a whole one");
            }
            Self::Http2(client, mut stream) => {
                while let Some(data) = client.wait(stream.data()) {
                    if data.is_err() {
                        return;
                    }
                }
                panic!("half a stream passes for a whole one");
            }
        }
    }
}

fn trigger(triggers: &Triggers, path: &str) -> Sender<String> {
    eventually(ms(5000), "the service has the request", || triggers.lock().unwrap().get(path).cloned())
}

#[test]
fn each_event_is_seen_before_the_next_is_sent() {
    let (upstream, triggers) = service();
    let gate = gate(&upstream, "30s");
    let paths = ["/h1/a", "/h1/b", "/h1/close", "/h2/a", "/h2/b", "/h2/close"];
    let mut clients: Vec<_> =
        paths.iter().map(|path| (Client::open(&gate, path, path.contains("h2")), trigger(&triggers, path))).collect();
    for number in 0..20 {
        for (client, trigger) in &mut clients {
            let event = format!("data: {number} {}\n\n", "x".repeat(number * 97));
            trigger.send(event.clone()).unwrap();
            client.sees(&format!("data: {number} "));
        }
    }
    drop(clients);
    assert_eq!(gate.metric("pylon_upstream_connect_failures_total{upstream=\"news\"}"), Some(0.0));
}

#[test]
fn a_stream_lives_while_something_comes_and_a_silent_one_is_cut_by_the_idle_timer() {
    let (upstream, triggers) = service();
    let gate = gate(&upstream, "{ first_byte: 400ms, response: 400ms, idle: 700ms }");
    for (path, http2) in [("/h1", false), ("/h2", true)] {
        let mut client = Client::open(&gate, path, http2);
        let trigger = trigger(&triggers, path);
        let begun = now();
        for number in 0..5 {
            pause(ms(250));
            // A comment is enough.
            trigger.send(format!(": {number}\n\n")).unwrap();
            client.sees(&format!(": {number}\n"));
        }
        assert!(begun.elapsed() > ms(1200));
        let silent = now();
        client.must_be_cut();
        assert!(silent.elapsed() >= ms(600), "after {:?}", silent.elapsed());
        let line = gate.logged(path);
        assert_eq!(
            (line["status"].as_u64(), line["end"].as_str(), line["timer"].as_str()),
            (Some(200), Some("timeout"), Some("idle")),
            "{line}"
        );
    }
}

#[test]
fn a_client_that_leaves_its_stream_frees_the_service() {
    let (upstream, triggers) = service();
    let gate = gate(&upstream, "30s");
    for (path, http2) in [("/h1", false), ("/h2", true)] {
        let mut client = Client::open(&gate, path, http2);
        let trigger = trigger(&triggers, path);
        trigger.send("data: 1\n\n".to_owned()).unwrap();
        client.sees("data: 1");
        drop(client);
        triggers.lock().unwrap().clear();
        eventually(ms(5000), "the service's stream ends", || {
            let gone = trigger.send("data: 2\n\n".to_owned()).is_err();
            gone.then_some(())
        });
        assert_eq!(gate.logged(path)["end"], "client_gone");
    }
}

#[test]
fn a_stream_that_the_service_ends_ends_and_one_that_it_breaks_off_is_cut() {
    let upstream = Upstream::script(|peer| {
        while let Ok(request) = peer.request() {
            peer.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
            peer.send(chunk(b"data: 1\n\n"));
            if request.target() == "/broken" {
                return;
            }
            peer.send("0\r\n\r\n");
        }
    });
    let gate = gate(&upstream, "30s");
    let mut client = gate.connect();
    assert_eq!(client.get("/whole").text(), "data: 1\n\n");
    client.send(request("GET", "/broken", &[], b""));
    assert!(client.try_response("GET").is_err(), "half a stream passes for a whole one");
    assert_eq!(gate.logged("/broken")["end"], "upstream_broke");
}
