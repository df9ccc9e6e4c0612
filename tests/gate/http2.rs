//! HTTP/2 towards clients: what passes, what is bounded, and that nobody else pays for a flood.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use pylon_testkit::answer::{Answer, alphabet};
use pylon_testkit::binary::Binary;
use pylon_testkit::client::Raw;
use pylon_testkit::http2::{Http2, PREFACE, frame, hpack, send};
use pylon_testkit::tls::Authority;
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{ms, pause, until};

fn gate(upstream: &Upstream, more: &str) -> Binary {
    Binary::start(&format!(
        "upstreams: {{ api: {{ endpoints: [{}] }} }}\nroutes: [{{ match: \"/{{*rest}}\", forward: api }}]\n{more}",
        upstream.url()
    ))
}

/// A service that gives bodies and trailers back.
fn mirror() -> Upstream {
    Upstream::http(|request| {
        let answer = Answer::text("").body(request.body.clone());
        match request.trailer("x-sum") {
            Some(sum) => answer.pieces(vec![request.body.clone()], ms(0)).trailer("x-sum", &sum),
            None => answer,
        }
    })
}

#[test]
fn a_request_of_http_2_is_one_of_http_1_for_the_service() {
    let echo = Upstream::echo();
    let gate = gate(&echo, "");
    let mut client = Http2::connect(gate.address());
    let fields = [("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers"), ("x-a", "1"), ("x-a", "2")];
    let answer = client.ask("GET", "http://api.test:81/x?y=z", &fields, b"").unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.field("x-request-id").is_some() && answer.field("connection").is_none());
    let seen = echo.seen().pop().unwrap();
    assert_eq!(seen.start, "GET /x?y=z HTTP/1.1");
    for (name, value) in [
        ("host", "api.test:81"),
        ("cookie", "a=1; b=2"),
        ("te", "trailers"),
        ("x-a", "1, 2"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", "api.test:81"),
        ("x-forwarded-proto", "http"),
    ] {
        assert_eq!(seen.field(name).as_deref(), Some(value), "{name}");
    }
    assert!(seen.field("via").unwrap().starts_with("2 pylon-"));
    assert_eq!(client.ask("GET", "http://api.test:81/logged", &[], b"").unwrap().status, 200);
    let line = gate.logged("/logged");
    assert_eq!((line["protocol"].as_str(), line["host"].as_str()), (Some("HTTP/2"), Some("api.test")), "{line}");
}

#[test]
fn curl_speaks_it_with_and_without_tls() {
    let authority = Authority::default();
    let document = "listeners:
  - { address: 127.0.0.1:0 }
  - { address: 127.0.0.1:0, tls: { certificates: [{ cert: a.pem, key: a.key }] } }
routes: [{ match: \"/{*rest}\", respond: { body: hello } }]";
    let gate = Binary::start_with(document, &[], |folder| {
        authority.issue(&["localhost"]).write(folder, "a");
        std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    });
    let curl = |arguments: &[&str]| {
        let ca = gate.folder().join("ca.pem").display().to_string();
        let mut curl = std::process::Command::new("curl");
        curl.args(["-sS", "--cacert", &ca, "-w", " %{http_version}"]).args(arguments);
        let output = curl.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let (plain, tls) = (gate.listeners[0].port(), gate.listeners[1].port());
    assert_eq!(curl(&["--http2-prior-knowledge", &format!("http://localhost:{plain}/")]), "hello 2");
    assert_eq!(curl(&["--http1.1", &format!("http://localhost:{plain}/")]), "hello 1.1");
    assert_eq!(curl(&["--http2", &format!("https://localhost:{tls}/")]), "hello 2");
    assert_eq!(curl(&["--http1.1", &format!("https://localhost:{tls}/")]), "hello 1.1");
    // An offer to upgrade from HTTP/1.1 is not taken (RFC 9113 §3.1).
    assert_eq!(curl(&["--http2", &format!("http://localhost:{plain}/")]), "hello 1.1");
}

#[test]
fn large_bodies_and_trailers_pass_both_ways() {
    let mirror = mirror();
    let gate = gate(&mirror, "");
    let mut client = Http2::connect(gate.address());
    let body = alphabet(5_000_000);
    let answer = client.ask("POST", "http://gate.test/x", &[], &body).unwrap();
    assert!(answer.status == 200 && answer.body == body);
    let fields = [("trailer", "x-sum"), ("te", "trailers")];
    let mut stream = client.open("POST", "http://gate.test/y", &fields, false).unwrap();
    let sending = &mut stream.sending;
    client.wait(async move {
        send(sending, Bytes::from_static(b"hello")).await.unwrap();
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-sum", "5".parse().unwrap());
        sending.send_trailers(trailers).unwrap();
    });
    let answer = client.answer(stream).unwrap();
    assert_eq!(
        (answer.text().as_str(), answer.trailers.get("x-sum").map(http::HeaderValue::as_bytes)),
        ("hello", Some(&b"5"[..]))
    );
    assert_eq!(mirror.seen().last().unwrap().trailer("x-sum").as_deref(), Some("5"));
}

#[test]
fn many_streams_at_once_get_each_its_own_answer() {
    let tags = Upstream::tags();
    let gate = gate(&tags, "workers: 1");
    let mut client = Http2::connect(gate.address());
    for round in 0..4 {
        let requests: Vec<_> = (0..100)
            .map(|number| ("http://gate.test/".to_owned(), vec![("x-tag", format!("{round}-{number}"))]))
            .collect();
        for (answer, (_, fields)) in client.ask_all(&requests).into_iter().zip(&requests) {
            let answer = answer.unwrap();
            assert_eq!((answer.status, answer.text()), (200, fields[0].1.clone()));
        }
    }
}

#[test]
fn what_means_two_things_is_refused() {
    let echo = Upstream::echo();
    let gate = gate(&echo, "");
    let mut client = Http2::connect(gate.address());
    for (uri, fields, status) in [
        ("http://a.test/", &[("host", "b.test")][..], 400),
        ("http://user@a.test/", &[], 400),
        ("http://a.test/", &[("host", "a.test"), ("host", "a.test")], 400),
        ("http://a.test/%00", &[], 400),
        ("http://a.test/x/..%2fadmin", &[], 400),
        ("http://a.test/", &[("expect", "more")], 417),
        ("http://a.test/", &[("host", "a.test")], 200),
    ] {
        let answer = client.ask("GET", uri, fields, b"").unwrap();
        assert_eq!(answer.status, status, "{uri} {fields:?}: {}", answer.text());
    }
    // A stream of CONNECT is answered, or reset.
    assert_eq!(client.ask("CONNECT", "http://a.test:443/", &[], b"").map_or(501, |answer| answer.status), 501);
    assert_eq!(echo.requests(), 1);
}

/// Fields that mean something in HTTP/1.1 alone must not be carried over (RFC 9113 §8.2.2, §8.3).
#[test]
fn nothing_of_http_1_can_be_smuggled_in() {
    let echo = Upstream::echo();
    let gate = gate(&echo, "");
    let head = |more: &[(&str, &str)]| {
        let usual = [(":method", "POST"), (":scheme", "http"), (":authority", "a.test"), (":path", "/")];
        hpack(&[&usual[..], more].concat())
    };
    for more in [
        &[("transfer-encoding", "chunked")][..],
        &[("connection", "keep-alive")],
        &[("connection", "x-a"), ("x-a", "1")],
        &[("upgrade", "websocket")],
        &[("keep-alive", "1")],
        &[("proxy-connection", "close")],
        &[("te", "gzip")],
        &[("content-length", "5")],
        &[("content-length", "2"), ("content-length", "3")],
        &[("X-Upper", "1")],
        &[("x-a", "1\r\nx-b: 2")],
        &[("x-a\r\nx-b", "1")],
        &[("x a", "1")],
        &[("x:a", "1")],
        &[(":path", "/other")],
        &[("x-a", "\0")],
    ] {
        let mut client = gate.connect();
        client.send([PREFACE, &frame(4, 0, 0, &[]), &frame(1, 0x4, 1, &head(more)), &frame(0, 1, 1, b"abc")].concat());
        // SETTINGS, then a reset of the stream, the end of the connection, or an answer of our own.
        let mut seen = Vec::new();
        until(ms(5000), "the gateway refuses", || {
            seen.extend(client.some().unwrap_or_default());
            frames(&seen).iter().any(|(kind, ..)| matches!(kind, 1 | 3 | 7))
        });
        if let Some((_, _, payload)) = frames(&seen).into_iter().find(|(kind, ..)| *kind == 1) {
            // `:status: 400` is number 12 of the static table (RFC 7541, appendix A).
            assert_eq!(payload[0], 0x8c, "{more:?}: {payload:?}");
        }
    }
    assert_eq!(echo.requests(), 0, "{:?}", echo.seen());
}

#[test]
fn the_id_of_a_request_takes_no_room_in_the_table_of_the_connection() {
    let echo = Upstream::echo();
    let gate = gate(&echo, "");
    let get = hpack(&[(":method", "GET"), (":scheme", "http"), (":authority", "a.test"), (":path", "/")]);
    let mut client = Raw::connect(gate.address());
    client.send([PREFACE.to_vec(), frame(4, 0, 0, &[]), frame(1, 5, 1, &get)].concat());
    let head = loop {
        let (kind, length) = match client.exactly(9)[..] {
            [high, middle, low, kind, ..] => (kind, u32::from_be_bytes([0, high, middle, low])),
            _ => unreachable!(),
        };
        let payload = client.exactly(length as usize);
        if kind == 1 {
            break payload;
        }
    };
    // A literal that is never indexed (RFC 7541 §6.2.3).
    let id = b"\x10\x0cx-request-id";
    assert!(head.windows(id.len()).any(|part| part == id), "{head:02x?}");
}

/// Kind, stream and payload of the whole frames.
pub(crate) fn frames(mut bytes: &[u8]) -> Vec<(u8, u32, Vec<u8>)> {
    let mut all = Vec::new();
    while bytes.len() >= 9 {
        let length = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as usize;
        if bytes.len() < 9 + length {
            break;
        }
        let stream = u32::from_be_bytes([bytes[5] & 0x7f, bytes[6], bytes[7], bytes[8]]);
        all.push((bytes[3], stream, bytes[9..9 + length].to_vec()));
        bytes = &bytes[9 + length..];
    }
    all
}

/// Failure 34: rapid reset, CONTINUATION without end, control frames and empty frames by the thousand.
#[test]
fn a_flood_ends_its_own_connection_and_nobody_else_notices() {
    let slow = Upstream::http(|_| Answer::text("late").after(ms(300)));
    let gate = gate(&slow, "workers: 1\nlimits: { idle_timeout: 2s }");
    let mut good = Http2::connect(gate.address());
    let get = hpack(&[(":method", "GET"), (":scheme", "http"), (":authority", "a.test"), (":path", "/")]);
    let post = hpack(&[(":method", "POST"), (":scheme", "http"), (":authority", "a.test"), (":path", "/")]);
    let rapid_reset = |n: u32| [frame(1, 0x5, 2 * n + 1, &get), frame(3, 0, 2 * n + 1, &[0, 0, 0, 8])].concat();
    // The client's mistake makes the gateway reset the stream: a window update of nothing.
    let made_reset = |n: u32| [frame(1, 0x4, 2 * n + 1, &post), frame(8, 0, 2 * n + 1, &[0; 4])].concat();
    let continuation = |n: u32| if n == 0 { frame(1, 0, 1, &get) } else { frame(9, 0, 1, &hpack(&[("x-a", "b")])) };
    let empty_data = |n: u32| if n == 0 { frame(1, 0x4, 1, &post) } else { frame(0, 0, 1, &[]) };
    type Flood<'a> = (&'a str, &'a dyn Fn(u32) -> Vec<u8>);
    let floods: [Flood<'_>; 4] = [
        ("rapid reset", &rapid_reset),
        ("made you reset", &made_reset),
        ("continuation", &continuation),
        ("empty data", &empty_data),
    ];
    for (name, flood) in floods {
        let before = gate.process.cpu();
        let mut attacker = gate.connect();
        attacker.send([PREFACE, &frame(4, 0, 0, &[])].concat());
        let bytes: Vec<u8> = (0..20_000).flat_map(flood).collect();
        let sent = bytes.chunks(16 * 1024).try_for_each(|chunk| attacker.try_send(chunk));
        let ended = sent.is_err() || {
            attacker.patience(ms(5000));
            loop {
                match attacker.some() {
                    Ok(bytes) if bytes.is_empty() => break true,
                    Ok(_) => {}
                    Err(error) => break error.kind() == std::io::ErrorKind::ConnectionReset,
                }
            }
        };
        assert!(ended, "{name} goes on");
        let cost = gate.process.cpu().saturating_sub(before);
        assert!(cost < CORE_SECOND, "{name} cost {cost:?}");
        assert_eq!(good.ask("GET", "http://gate.test/", &[], b"").unwrap().text(), "late", "{name}");
    }
    assert!(slow.requests() < 600, "{} requests got through", slow.requests());
}

/// What a flood may cost on one connection: a second of a core in a release, and a build for tests is slower.
const CORE_SECOND: Duration = Duration::from_secs(if cfg!(debug_assertions) { 3 } else { 1 });

/// Failure 35: frames that every client may send, by the ten thousand: they are read, cost little, and pile up nowhere.
#[test]
fn control_frames_by_the_thousand_cost_little_and_harm_nobody() {
    let echo = Upstream::echo();
    let gate = gate(&echo, "workers: 1\nlimits: { write_timeout: 500ms }");
    let mut good = Http2::connect(gate.address());
    let before_all = gate.process.memory();
    for (name, flood) in [
        ("settings", frame(4, 0, 0, &[])),
        ("settings that change something", frame(4, 0, 0, &[0, 4, 0, 0, 0xff, 0xff])),
        ("pings", frame(6, 0, 0, &[0; 8])),
        ("priorities", frame(2, 0, 3, &[0, 0, 0, 0, 1])),
        ("windows", frame(8, 0, 0, &1_u32.to_be_bytes())),
        ("frames that nobody knows", frame(0x42, 0, 0, b"what?")),
    ] {
        for reads in [true, false] {
            let before = gate.process.cpu();
            let mut attacker = gate.connect();
            attacker.send([PREFACE, &frame(4, 0, 0, &[])].concat());
            attacker.patience(ms(3000));
            let mut reader = attacker.second_hand();
            let reading = reads.then(|| std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink())));
            for _ in 0..100 {
                // Whoever does not read the answers is at some time not read any more, and then let go.
                if attacker.try_send(flood.repeat(200)).is_err() {
                    break;
                }
            }
            assert_eq!(good.ask("GET", "http://gate.test/", &[], b"").unwrap().status, 200, "{name}");
            let cost = gate.process.cpu().saturating_sub(before);
            assert!(cost < CORE_SECOND, "{name} cost {cost:?}");
            attacker.abort();
            if let Some(reading) = reading {
                let _ = reading.join();
            }
        }
    }
    let grown = gate.process.memory().saturating_sub(before_all);
    assert!(grown < 16 << 20, "{} KiB", grown >> 10);
}

/// Failure 36 on HTTP/2: bodies of 16 MiB by the hundred, to somebody who does not read, both ways.
#[test]
fn a_hundred_large_bodies_of_http_2_stay_out_of_memory() {
    const LENGTH: usize = 16 << 20;
    let awake = Arc::new(AtomicBool::new(false));
    let sleeper = Arc::clone(&awake);
    let body: Arc<[u8]> = alphabet(LENGTH).into();
    let sent = Arc::clone(&body);
    let upstream = Upstream::script(move |peer| {
        let Ok(head) = peer.head() else { return };
        if head.target() == "/download" {
            peer.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n"));
            peer.send(&sent[..]);
        } else {
            until(ms(20_000), "the service is woken", || sleeper.load(SeqCst));
        }
    });
    let gate = gate(&upstream, "");
    let mut clients: Vec<Http2> = (0..10).map(|_| Http2::connect(gate.address())).collect();
    let mut held = Vec::new();
    for client in &mut clients {
        for _ in 0..10 {
            let stream = client.open("GET", "http://gate.test/download", &[], true).unwrap();
            held.push(client.head(stream).unwrap());
        }
    }
    pause(ms(500));
    let memory = gate.process.memory();
    assert!(memory <= 200 << 20, "{} MiB resident with downloads that nobody reads", memory >> 20);
    drop((held, clients));
    let mut clients: Vec<Http2> = (0..10).map(|_| Http2::connect(gate.address())).collect();
    let data = Bytes::from_owner(body);
    let mut streams = Vec::new();
    for client in &mut clients {
        for _ in 0..10 {
            let mut stream = client.open("POST", "http://gate.test/upload", &[], false).unwrap();
            // Waits in the client for the windows.
            stream.sending.send_data(data.clone(), true).unwrap();
            streams.push(stream);
        }
    }
    until(ms(20_000), "the service has them all", || upstream.open() >= 100);
    pause(ms(500));
    let memory = gate.process.memory();
    assert!(memory <= 200 << 20, "{} MiB resident with uploads that nobody reads", memory >> 20);
    awake.store(true, SeqCst);
}

#[test]
fn a_head_without_bounds_is_refused_and_its_neighbours_are_not() {
    let echo = Upstream::echo();
    let gate = gate(&echo, "limits: { request_headers: 8KiB }");
    let mut client = Http2::connect(gate.address());
    let long = "x".repeat(9000);
    match client.ask("GET", "http://gate.test/", &[("x-long", &long)], b"") {
        Ok(answer) => assert_eq!(answer.status, 431),
        Err(error) => assert!(error.is_reset(), "{error}"),
    }
    assert_eq!(client.ask("GET", "http://gate.test/", &[], b"").unwrap().status, 200);
    assert_eq!(echo.requests(), 1);
}

#[test]
fn a_client_that_reads_slowly_holds_the_service_back() {
    let large =
        Upstream::http(
            |request| if request.target() == "/small" { Answer::text("small") } else { Answer::bytes(64 << 20) },
        );
    let gate = gate(&large, "workers: 1");
    let before = gate.metric("process_resident_memory_bytes").unwrap();
    let mut client = Http2::connect(gate.address());
    // Heads alone are read; the windows of the bodies stay shut.
    let held: Vec<_> = (0..8)
        .map(|_| client.open("GET", "http://gate.test/", &[], true).and_then(|stream| client.head(stream)).unwrap())
        .collect();
    let mut other = Http2::connect(gate.address());
    assert_eq!(other.ask("GET", "http://gate.test/small", &[], b"").unwrap().text(), "small");
    let grown = gate.metric("process_resident_memory_bytes").unwrap() - before;
    assert!(grown < 24e6, "{grown} bytes for 8 answers of 64 MiB that nobody reads");
    drop(held);
}

#[test]
fn a_stream_that_the_client_takes_back_ends_the_call_and_is_logged() {
    let silent = Upstream::script(|peer| {
        if peer.request().is_ok() {
            peer.wait_for_end(ms(5000));
        }
    });
    let gate = gate(&silent, "");
    let mut client = Http2::connect(gate.address());
    let mut stream = client.open("GET", "http://gate.test/gone", &[], true).unwrap();
    until(ms(5000), "the service has the request", || silent.requests() == 1);
    stream.sending.send_reset(h2::Reason::CANCEL);
    until(ms(5000), "the service is let go", || silent.open() == 0);
    assert_eq!(gate.logged("/gone")["status"], 499);
}

#[test]
fn the_end_of_the_gateway_lets_streams_finish_and_an_idle_connection_is_told() {
    let slow = Upstream::http(|_| Answer::text("late").after(ms(400)));
    let mut gate = gate(&slow, "limits: { idle_timeout: 300ms }");
    let mut idle = Http2::connect(gate.address());
    assert_eq!(idle.ask("GET", "http://gate.test/", &[], b"").unwrap().status, 200);
    until(ms(3000), "the idle connection ends", || idle.has_ended());
    assert!(idle.end().is_ok(), "in good order");
    let mut busy = Http2::connect(gate.address());
    let stream = busy.open("GET", "http://gate.test/", &[], true).unwrap();
    until(ms(3000), "the service has the request", || slow.requests() == 2);
    assert_eq!(gate.end(), Some(0));
    assert_eq!(busy.answer(stream).unwrap().text(), "late");
    assert!(busy.end().is_ok());
}

#[test]
fn it_is_not_spoken_where_the_document_says_so() {
    let authority = Authority::default();
    let document = "listeners:
  - { address: 127.0.0.1:0, http2: false }
  - { address: 127.0.0.1:0, http2: false, tls: { certificates: [{ cert: a.pem, key: a.key }] } }
routes: [{ match: \"/{*rest}\", respond: { body: hello } }]";
    let gate = Binary::start_with(document, &[], |folder| authority.issue(&["gate.test"]).write(folder, "a"));
    let mut client = gate.connect();
    assert_eq!(client.send(PREFACE).response().code().as_deref(), Some("request.target"));
    client.expect_closed();
    let mut config = rustls::ClientConfig::clone(&authority.plain_client());
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut client = Raw::connect(gate.listeners[1]).try_tls(&Arc::new(config), "gate.test").unwrap();
    assert_eq!(client.session().alpn_protocol(), Some(&b"http/1.1"[..]));
    assert_eq!(client.get("/").text(), "hello");
}

#[test]
fn half_a_preface_reaches_nobody() {
    let echo = Upstream::echo();
    let gate = gate(&echo, "");
    for bytes in [
        &b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"[..],
        b"PRI / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
    ] {
        let mut client = gate.connect();
        client.send(bytes);
        let rest = client.rest();
        let served = rest.windows(4).any(|window| window == b" 200");
        assert_eq!(served, bytes[4] == b'/', "{:?}", String::from_utf8_lossy(&rest));
    }
    assert_eq!(echo.seen().iter().map(|request| request.start.as_str()).collect::<Vec<_>>(), ["PRI / HTTP/1.1"]);
}
