//! HTTP/2 towards services: many requests on a connection, what may be sent again, and who waits for whom.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::Reason;
use pylon_testkit::answer::alphabet;
use pylon_testkit::binary::Binary;
use pylon_testkit::client::{Raw, request};
use pylon_testkit::http2::{Http2, send};
use pylon_testkit::http2_service::{Call, Http2Service, broken_off};
use pylon_testkit::terminator::Terminator;
use pylon_testkit::tls::Authority;
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{ms, now, pause, until};

fn gate(url: &str, more: &str) -> Binary {
    Binary::start(&document(url, &format!("protocol: http2, {more}"), "workers: 1"))
}

fn document(url: &str, upstream: &str, more: &str) -> String {
    format!(
        "upstreams: {{ api: {{ endpoints: [\"{url}\"], {upstream} }} }}
routes: [{{ match: \"/{{*rest}}\", forward: api }}]
{more}"
    )
}

/// Gives the body and the trailers back.
async fn mirror(mut call: Call) {
    let Ok((body, trailers)) = call.body().await else { return };
    let trailers: Vec<_> = trailers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    call.answer(200, &[("x-a", "1")], &body, &trailers).await;
}

#[test]
fn a_request_of_either_version_is_one_of_http_2_for_the_service() {
    let service = Http2Service::start(mirror);
    let gate = gate(&service.url(), "");
    let fields = [("host", "api.test:81"), ("x-b", "1"), ("x-b", "2"), ("te", "trailers"), ("connection", "x-b")];
    let answer = gate.connect().ask("GET", "/x?y=z", &fields, b"");
    assert_eq!((answer.status(), answer.field("x-a").as_deref()), (200, Some("1")));
    let head = service.heads().pop().unwrap();
    assert_eq!(head.start, "GET http://api.test:81/x?y=z");
    for (name, value) in [("x-forwarded-for", Some("127.0.0.1")), ("x-forwarded-host", Some("api.test:81"))] {
        assert_eq!(head.headers.get(name).map(|value| value.to_str().unwrap()), value, "{name}");
    }
    for gone in ["host", "connection", "x-b", "transfer-encoding", "keep-alive"] {
        assert!(!head.headers.contains_key(gone), "{gone}");
    }
    assert!(head.headers["via"].to_str().unwrap().starts_with("1.1 pylon-"));
    let mut client = Http2::connect(gate.address());
    let answer = client.ask("POST", "http://api.test/y", &[], b"hello").unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
    assert!(!service.heads().pop().unwrap().headers.contains_key("content-length"), "none was announced");
    assert_eq!(gate.ask("POST", "/y", &[], b"hello").text(), "hello");
    assert_eq!(service.heads().pop().unwrap().headers["content-length"], "5");
    assert_eq!(service.connections(), 1);
    let line = gate.logged_with("/y", "protocol", "HTTP/1.1");
    assert_eq!((line["upstream"].as_str(), line["reused"].as_bool()), (Some("api"), Some(true)), "{line}");
}

#[test]
fn bodies_and_trailers_pass_both_ways() {
    let service = Http2Service::start(mirror);
    let gate = gate(&service.url(), "");
    let body = alphabet(3_000_000);
    let mut first = gate.connect();
    for _ in 0..2 {
        let answer = first.ask("POST", "/", &[], &body);
        assert!(answer.status() == 200 && answer.body == body);
    }
    first.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    assert_eq!(first.response().text(), "hello");
    let mut second = Http2::connect(gate.address());
    let mut stream = second.open("POST", "http://a/", &[("te", "trailers")], false).unwrap();
    second.wait(send(&mut stream.sending, Bytes::from(body.clone()))).unwrap();
    stream.sending.send_trailers([("x-sum".parse().unwrap(), "7".parse().unwrap())].into_iter().collect()).unwrap();
    let answer = second.answer(stream).unwrap();
    assert!(answer.body == body && answer.trailers["x-sum"] == "7");
    assert_eq!(service.connections(), 1);
}

#[test]
fn under_tls_the_protocol_is_agreed_on() {
    let authority = Authority::default();
    let issued = authority.issue(&["localhost"]);
    let (new, old) = (Http2Service::start(mirror), Upstream::named("old"));
    let prepare = |folder: &std::path::Path| std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    for (alpn, protocol, new_answers, status) in [
        (&["h2", "http/1.1"][..], "auto", true, 200),
        (&["http/1.1"][..], "auto", false, 200),
        (&[][..], "auto", false, 200),
        (&["h2", "http/1.1"][..], "http1", false, 200),
        (&["h2"][..], "http2", true, 200),
        (&[][..], "http2", false, 502),
    ] {
        let behind = if new_answers { new.address() } else { old.address() };
        let secure = Terminator::before(behind, authority.server(&issued, alpn, false));
        let upstream = format!("tls: {{ ca: ca.pem }}, protocol: {protocol}");
        let gate = Binary::start_with(&document(&secure.url("localhost"), &upstream, ""), &[], prepare);
        let mut client = gate.connect();
        for _ in 0..3 {
            let answer = client.ask("POST", "/", &[], b"new");
            assert_eq!(answer.status(), status, "{alpn:?} {protocol}: {}", answer.text());
            if status == 200 {
                assert_eq!(answer.text(), if new_answers { "new" } else { "old" }, "{alpn:?} {protocol}");
            }
        }
        if status == 200 {
            assert_eq!(secure.shaken().len(), 1, "{alpn:?} {protocol}: one connection for all");
        }
    }
    assert!(new.heads()[0].start.starts_with("POST https://"));
}

#[test]
fn more_connections_are_opened_when_streams_run_out() {
    let service = Http2Service::with(
        |builder| {
            builder.max_concurrent_streams(10);
        },
        |call| async move {
            call.pause(ms(300)).await;
            call.answer(200, &[], b"ok", &[]).await;
        },
    );
    let gate = gate(&service.url(), "pool: { idle: 500ms }");
    let mut clients: Vec<_> = (0..60).map(|_| gate.connect()).collect();
    for client in &mut clients {
        client.send(request("GET", "/", &[], b""));
    }
    for client in &mut clients {
        assert_eq!(client.response().text(), "ok");
    }
    assert_eq!(service.most(), 60, "nobody waited for a stream of another");
    assert!((6..=12).contains(&service.connections()), "{}", service.connections());
    until(ms(5_000), "idle connections are closed", || service.open() == 0);
}

#[test]
fn many_that_come_at_once_share_one_dial() {
    let service = Http2Service::start(|call| async move { call.answer(200, &[], b"ok", &[]).await });
    let gate = gate(&service.url(), "");
    let mut client = Http2::connect(gate.address());
    let requests: Vec<_> = (0..80).map(|n| (format!("http://a/{n}"), Vec::new())).collect();
    assert!(client.ask_all(&requests).into_iter().all(|answer| answer.unwrap().status == 200));
    assert_eq!(service.connections(), 1);
}

#[test]
fn a_service_that_goes_away_loses_no_request() {
    let service = Http2Service::start(|mut call| async move {
        let Ok((body, _)) = call.body().await else { return };
        call.pause(ms(2)).await;
        call.answer(200, &[], &body, &[]).await;
    });
    let gate = gate(&service.url(), "");
    let address = gate.address();
    let workers: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = Raw::connect(address);
                (0..150).filter(|_| client.ask("POST", "/", &[], b"hello").text() == "hello").count()
            })
        })
        .collect();
    for _ in 0..10 {
        pause(ms(40));
        service.go_away();
    }
    let right: usize = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
    let wrong: Vec<_> = gate.log().into_iter().filter(|line| line["status"] != 200).collect();
    assert_eq!(right, 8 * 150, "{wrong:#?}");
    assert_eq!(service.requests(), 8 * 150, "none was sent twice");
    assert!(service.connections() > 5, "{}", service.connections());
}

#[test]
fn what_was_refused_unseen_is_sent_again_and_what_broke_off_is_not() {
    let service = Http2Service::start(|call| async move {
        match (call.path(), call.number) {
            ("/refused", number) if number % 3 != 2 => call.reset(Reason::REFUSED_STREAM),
            ("/broken", _) => call.reset(Reason::INTERNAL_ERROR),
            _ => call.answer(200, &[], b"ok", &[]).await,
        }
    });
    let gate = gate(&service.url(), "");
    let mut client = gate.connect();
    assert_eq!(client.ask("POST", "/refused", &[], b"").text(), "ok");
    assert_eq!(gate.logged("/refused")["attempts"], 3);
    assert_eq!(service.requests(), 3);
    for method in ["GET", "POST"] {
        let answer = client.ask(method, "/broken", &[], b"");
        assert_eq!(answer.code().as_deref(), Some("upstream.reset"), "{method}");
    }
    assert_eq!((service.requests(), service.connections()), (5, 1));
    let endless = Http2Service::start(|call| async move { call.reset(Reason::REFUSED_STREAM) });
    let gate = self::gate(&endless.url(), "");
    assert_eq!(gate.get("/").status(), 502);
    assert_eq!(endless.requests(), 3);
}

#[test]
fn a_client_that_is_gone_cancels_its_stream_and_no_other() {
    let cancelled: Arc<Mutex<Vec<Reason>>> = Arc::default();
    let told = Arc::clone(&cancelled);
    let service = Http2Service::start(move |mut call| {
        let told = Arc::clone(&told);
        async move {
            let reason = match call.path() {
                "/head" => call.cancelled().await,
                "/body" => {
                    let mut stream = call.begin(200, &[]);
                    stream.send_data(Bytes::from_static(b"first"), false).unwrap();
                    broken_off(&mut stream).await
                }
                _ => return call.answer(200, &[], b"ok", &[]).await,
            };
            told.lock().unwrap().extend(reason);
        }
    });
    let gate = gate(&service.url(), "");
    let mut before = gate.connect();
    before.send(request("GET", "/head", &[], b""));
    let mut within = gate.connect();
    within.send(request("GET", "/body", &[], b""));
    assert_eq!(within.head().status(), 200);
    until(ms(2_000), "both are under way", || service.requests() == 2);
    let began = now();
    before.abort();
    within.abort();
    until(ms(2_000), "both are cancelled", || cancelled.lock().unwrap().len() == 2);
    assert!(began.elapsed() < ms(1_000), "{:?}", began.elapsed());
    assert_eq!(*cancelled.lock().unwrap(), [Reason::CANCEL, Reason::CANCEL]);
    assert_eq!(gate.get("/after").text(), "ok");
    assert_eq!(service.connections(), 1, "the connection is as good as before");
    assert_eq!(
        (gate.logged("/head")["status"].as_u64(), gate.logged("/body")["status"].as_u64()),
        (Some(499), Some(499))
    );
}

#[test]
fn nobody_sends_more_than_the_other_side_takes() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let service = Http2Service::start(move |mut call| {
        let counted = Arc::clone(&counted);
        async move {
            if call.path() == "/up" {
                // Reads nothing of it.
                call.cancelled().await;
                return;
            }
            let mut stream = call.begin(200, &[]);
            for _ in 0..1_000 {
                if send(&mut stream, Bytes::from(vec![b'x'; 64 << 10])).await.is_err() {
                    return;
                }
                counted.fetch_add(64 << 10, SeqCst);
            }
            let _ = stream.send_data(Bytes::new(), true);
        }
    });
    let gate = gate(&service.url(), "");
    for http2 in [false, true] {
        sent.store(0, SeqCst);
        let (mut one, mut two) = (gate.connect(), Http2::connect(gate.address()));
        let _held = if http2 {
            let stream = two.open("GET", "http://a/down", &[], true).unwrap();
            Some(two.head(stream).unwrap())
        } else {
            one.send(request("GET", "/down", &[], b""));
            one.head();
            None
        };
        pause(ms(500));
        let stood = sent.load(SeqCst);
        pause(ms(300));
        // Sockets of loopback hold some megabytes; the 64 MB that there are do not come.
        assert!(sent.load(SeqCst) == stood && stood < 16 << 20, "{stood}");
    }
    let mut client = gate.connect();
    client.send("POST /up HTTP/1.1\r\nhost: a\r\ncontent-length: 100000000\r\n\r\n");
    client.patience(ms(500));
    let mut taken = 0;
    while client.try_send(vec![b'x'; 64 << 10]).is_ok() {
        taken += 64 << 10;
        assert!(taken < 32 << 20, "the gateway takes what nobody reads");
    }
}

#[test]
fn a_service_that_never_says_a_word_of_http_2_costs_the_connect_timer() {
    let silent = Upstream::script(|peer| {
        peer.wait_for_end(ms(20_000));
    });
    let gate = gate(&silent.url(), "timeout: { connect: 300ms }");
    let answer = gate.get("/");
    assert_eq!((answer.status(), answer.code().as_deref()), (504, Some("upstream.timeout")));
    assert!(answer.text().contains("connect"), "{}", answer.text());
    let old = Upstream::named("old");
    let gate = self::gate(&old.url(), "timeout: { connect: 1s }");
    assert_eq!(gate.get("/").code().as_deref(), Some("upstream.connect"), "HTTP/1 is no HTTP/2");
}

/// FAILURES 24: a frozen handshake, or a frozen connection, wedges nothing for good.
#[test]
fn a_connection_that_falls_silent_is_not_used_for_ever() {
    let frozen = Arc::new(AtomicUsize::new(0));
    let looked = Arc::clone(&frozen);
    let service = Http2Service::start(move |mut call| {
        let looked = Arc::clone(&looked);
        async move {
            if looked.load(SeqCst) == 1 {
                call.cancelled().await;
                return;
            }
            call.answer(200, &[], b"ok", &[]).await;
        }
    });
    let gate = gate(&service.url(), "timeout: { response: 400ms }");
    assert_eq!(gate.get("/").text(), "ok");
    frozen.store(1, SeqCst);
    assert_eq!(gate.get("/").status(), 504);
    frozen.store(0, SeqCst);
    assert_eq!(gate.get("/").text(), "ok");
    assert_eq!(service.connections(), 2, "the one that was silent is left alone");
}

#[test]
fn limits_interim_answers_and_early_answers_are_those_of_http_1() {
    let service = Http2Service::start(|mut call| async move {
        match call.path() {
            "/hints" => {
                call.interim(103, &[("link", "</a.css>; rel=preload")]);
                call.answer(200, &[], b"ok", &[]).await;
            }
            "/early" => call.answer(413, &[], b"too much", &[]).await,
            "/far" => call.answer(200, &[("x-far", "x".repeat(60_000).as_str())], b"", &[]).await,
            _ => call.answer(200, &[("x-over", "x".repeat(5_000).as_str())], b"", &[]).await,
        }
    });
    let gate = Binary::start(&document(&service.url(), "protocol: http2", "limits: { response_headers: 4KiB }"));
    let mut client = gate.connect();
    client.send(request("GET", "/hints", &[], b""));
    assert_eq!(client.head().status(), 103);
    assert_eq!(client.response().text(), "ok");
    client.send("POST /early HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\nhello");
    let answer = client.response();
    assert_eq!((answer.status(), answer.text().as_str()), (413, "too much"));
    assert_eq!(gate.get("/over").code().as_deref(), Some("upstream.headers_too_large"));
    assert!(gate.logged("/over")["detail"].to_string().contains("limits.response_headers"));
    assert_eq!(gate.get("/far").status(), 502);
    assert!(gate.logged("/far")["detail"].to_string().contains("limits.response_headers"));
}

/// FAILURES 6: nobody gets another's answer, whatever happened before on the connection.
#[test]
fn nobody_gets_the_answer_of_another() {
    let service = Http2Service::start(|mut call| async move {
        let tag = call.request.headers().get("x-tag").map(|tag| tag.to_str().unwrap().to_owned()).unwrap_or_default();
        let answer = [("x-tag", tag.as_str())];
        match call.path() {
            "/early" => call.answer(401, &answer, tag.as_bytes(), &[]).await,
            "/broken" => {
                let mut stream = call.begin(200, &answer);
                let _ = stream.send_data(Bytes::from(tag.clone()), false);
                stream.send_reset(Reason::INTERNAL_ERROR);
            }
            "/slow" => {
                call.pause(ms(5)).await;
                call.answer(200, &answer, tag.as_bytes(), &[]).await;
            }
            "/none" => call.answer(204, &answer, b"", &[]).await,
            _ => {
                let _ = call.body().await;
                call.answer(200, &answer, tag.as_bytes(), &[("x-sum", &tag)]).await;
            }
        }
    });
    let gate = gate(&service.url(), "");
    let address = gate.address();
    let workers: Vec<_> = (0..6)
        .map(|worker| {
            std::thread::spawn(move || {
                let mut client = Raw::connect(address);
                for turn in 0..150 {
                    let tag = format!("{worker}-{turn}");
                    let fields = [("x-tag", tag.as_str())];
                    match turn % 7 {
                        0 => {
                            // Half of a body, and gone.
                            let mut gone = Raw::connect(address);
                            let head = format!(
                                "POST /up HTTP/1.1\r\nhost: a\r\nx-tag: {tag}\r\ncontent-length: 9\r\n\r\nhalf"
                            );
                            gone.send(head);
                            gone.abort();
                        }
                        1 => {
                            let mut gone = Raw::connect(address);
                            gone.send(request("GET", "/slow", &fields, b""));
                            gone.abort();
                        }
                        2 => {
                            let mut broken = Raw::connect(address);
                            broken.send(request("GET", "/broken", &[fields[0], ("connection", "close")], b""));
                            drop(broken.rest());
                        }
                        3 => {
                            // Answered before its body is there: the connection of the client ends, that of the service stays.
                            let mut early = Raw::connect(address);
                            early.send(format!(
                                "POST /early HTTP/1.1\r\nhost: a\r\nx-tag: {tag}\r\ncontent-length: 9\r\n\r\n"
                            ));
                            assert_eq!(early.response().text(), tag);
                        }
                        _ => {}
                    }
                    let (method, path) = [("GET", "/x"), ("HEAD", "/x"), ("GET", "/none"), ("POST", "/slow")][turn % 4];
                    client.send(request(method, path, &fields, b""));
                    let answer = client.response_to(method);
                    assert_eq!(answer.field("x-tag").as_deref(), Some(tag.as_str()), "{method} {path}");
                    assert!(answer.body.is_empty() || answer.text() == tag);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    assert_eq!(service.connections(), 1, "nothing of that costs the connection");
}

#[test]
fn no_more_connections_are_made_than_may_be_and_many_requests_share_them() {
    let open = Arc::new(AtomicUsize::new(0));
    let held = Arc::clone(&open);
    let service = Http2Service::start(move |call| {
        let held = Arc::clone(&held);
        async move {
            while held.load(SeqCst) == 0 {
                call.pause(ms(5)).await;
            }
            call.answer(200, &[], b"ok", &[]).await;
        }
    });
    let gate = gate(&service.url(), "pool: { max_connections: 1, wait: 10s }");
    let address = gate.address();
    let clients: Vec<_> =
        (0..12).map(|_| std::thread::spawn(move || Raw::connect(address).ask("GET", "/", &[], b""))).collect();
    until(ms(20_000), "all of them are there", || service.requests() == 12);
    assert_eq!(service.connections(), 1);
    open.store(1, SeqCst);
    for client in clients {
        assert_eq!(client.join().unwrap().status(), 200);
    }
    for _ in 0..20 {
        assert_eq!(gate.get("/").status(), 200);
    }
    assert_eq!((service.connections(), service.open()), (1, 1));
    let shown = gate.admin("/api/upstreams").json()[0]["endpoints"][0]["connections"].as_u64();
    assert_eq!(shown, Some(1));
}
