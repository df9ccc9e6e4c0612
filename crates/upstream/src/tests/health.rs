//! FAILURES 28: checks over real sockets, and what becomes of what they have found when endpoints and documents change.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use pylon_core::carry::Carry;
use tempfile::NamedTempFile;

use super::fixture::{Peer, Service, carried, get, upstream, whole};
use crate::breaker::word::Force;
use crate::health::state::Verdict;
use crate::upstream::Upstream;

/// A service that is well while its switch is on, and says its name otherwise.
struct Switched {
    service: Service,
    well: Arc<AtomicBool>,
    checks: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Switched {
    async fn new() -> Self {
        let (well, checks, requests) =
            (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (is_well, seen, asked) = (Arc::clone(&well), Arc::clone(&checks), Arc::clone(&requests));
        let service = Service::new(move |mut peer, _| {
            let (well, checks, requests) = (Arc::clone(&is_well), Arc::clone(&seen), Arc::clone(&asked));
            async move {
                while let Some(head) = peer.head().await {
                    let status = if !head.starts_with("GET /healthz") {
                        requests.fetch_add(1, SeqCst);
                        "200 OK"
                    } else {
                        checks.fetch_add(1, SeqCst);
                        if well.load(SeqCst) { "200 OK" } else { "503 Not Now" }
                    };
                    peer.write(format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nok").as_bytes()).await;
                }
            }
        })
        .await;
        Self { service, well, checks, requests }
    }

    fn is(&self, well: bool) {
        self.well.store(well, SeqCst);
    }
}

fn verdict(upstream: &Upstream, service: &Service) -> Verdict {
    let endpoints = upstream.view().endpoints;
    let one = endpoints.iter().find(|one| one.addresses == [service.addr]).unwrap();
    one.health.as_ref().unwrap().state
}

fn barred(upstream: &Upstream, service: &Service) -> bool {
    let endpoints = upstream.view().endpoints;
    endpoints.iter().any(|one| one.addresses == [service.addr] && one.barred == ["unhealthy"])
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("not within 20 s: {what}"));
}

const QUICK: &str = r#""every": "20ms", "timeout": "5s""#;

fn document(services: &[&Switched], health: &str) -> String {
    let urls: Vec<_> = services.iter().map(|one| format!("\"{}\"", one.service.url())).collect();
    format!(r#"{{"endpoints": [{}], "health": {{{health}}}}}"#, urls.join(", "))
}

#[tokio::test]
async fn an_unhealthy_endpoint_gets_no_requests_until_it_has_passed_again() {
    let (a, b) = (Switched::new().await, Switched::new().await);
    let upstream = upstream(&document(&[&a, &b], &format!(r#""path": "/healthz", {QUICK}"#)));
    until("both are healthy", || [&a, &b].iter().all(|one| verdict(&upstream, &one.service) == Verdict::Healthy)).await;
    a.is(false);
    until("one is barred", || barred(&upstream, &a.service)).await;
    let before = a.requests.load(SeqCst);
    for _ in 0..10 {
        get(&upstream, "/x").await.0.unwrap();
    }
    assert_eq!((a.requests.load(SeqCst), b.requests.load(SeqCst)), (before, 10));
    let view = upstream.view();
    let health = view.endpoints[0].health.as_ref().unwrap();
    assert_eq!(health.last_error.as_deref(), Some("the status 503 is not 200-399"));
    assert!(health.failed_in_a_row >= 3 && health.for_seconds.is_some() && !view.panic);
    a.is(true);
    until("it is back", || !barred(&upstream, &a.service)).await;
    for _ in 0..10 {
        get(&upstream, "/x").await.0.unwrap();
    }
    assert_eq!(a.requests.load(SeqCst), before + 5);
}

#[tokio::test]
async fn where_too_few_are_left_all_are_used_and_that_is_told() {
    let (a, b, c) = (Switched::new().await, Switched::new().await, Switched::new().await);
    for one in [&a, &b] {
        one.is(false);
    }
    let health = format!(r#""path": "/healthz", {QUICK}"#);
    let document = document(&[&a, &b, &c], &health);
    let half = upstream(&document);
    let low = upstream(&document.replacen('{', r#"{"panic": "30%", "#, 1));
    for upstream in [&half, &low] {
        until("two are barred", || [&a, &b].iter().all(|one| barred(upstream, &one.service))).await;
    }
    assert!(half.view().panic && !low.view().panic);
    for _ in 0..9 {
        get(&half, "/x").await.0.unwrap();
    }
    assert_eq!([&a, &b, &c].map(|one| one.requests.load(SeqCst)), [3; 3]);
    for _ in 0..9 {
        get(&low, "/x").await.0.unwrap();
    }
    assert_eq!([&a, &b, &c].map(|one| one.requests.load(SeqCst)), [3, 3, 12]);
}

#[tokio::test]
async fn endpoints_come_and_go_without_a_word_about_the_others_and_what_is_gone_is_not_asked() {
    let (a, b, c) = (Switched::new().await, Switched::new().await, Switched::new().await);
    a.is(false);
    let file = NamedTempFile::new().unwrap();
    let write = |of: &[&Switched]| {
        let targets: Vec<_> = of.iter().map(|one| one.service.addr.to_string()).collect();
        std::fs::write(file.path(), serde_json::json!([{ "targets": targets }]).to_string()).unwrap();
    };
    write(&[&a, &b]);
    let found = format!(r#""discover": {{"file": "{}"}}"#, file.path().display());
    let upstream = upstream(&format!(r#"{{{found}, "health": {{"path": "/healthz", {QUICK}}}}}"#));
    until("one is barred", || barred(&upstream, &a.service)).await;
    let since = || {
        let view = upstream.view();
        let one = view.endpoints.iter().find(|one| one.addresses == [a.service.addr]).unwrap();
        one.health.as_ref().unwrap().failed_in_a_row
    };
    let failed = since();
    write(&[&a, &c]);
    until("the set has changed", || upstream.view().endpoints.iter().any(|one| one.addresses == [c.service.addr]))
        .await;
    until("who came is checked", || c.checks.load(SeqCst) > 3).await;
    assert!(barred(&upstream, &a.service) && since() > failed, "its count went on");
    // One that is under way may still come.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (gone, stays) = (b.checks.load(SeqCst), a.checks.load(SeqCst));
    until("others are checked", || a.checks.load(SeqCst) > stays + 5).await;
    assert_eq!(b.checks.load(SeqCst), gone);
}

#[tokio::test]
async fn what_was_found_outlives_a_document_and_two_in_force_ask_once() {
    let (a, b) = (Switched::new().await, Switched::new().await);
    a.is(false);
    let carry = Carry::default();
    let health = r#""path": "/healthz", "every": "200ms", "timeout": "5s""#;
    let first = document(&[&a, &b], health);
    let before = carried(&first, &[], &carry);
    until("one is barred", || barred(&before, &a.service)).await;
    let checks = a.service.connections();
    // Another timeout of requests makes another upstream.
    let changed = first.replacen('{', r#"{"timeout": "9s", "#, 1);
    let after = carried(&changed, &[], &carry);
    until("it is taken up", || verdict(&after, &a.service) == Verdict::Unhealthy).await;
    assert!(barred(&after, &a.service));
    let tried = carried(&changed, &[], &carry.fork());
    until("the one that is tried knows it too", || barred(&tried, &a.service)).await;
    assert!(a.service.connections() <= checks + 2, "not each of three has found that out by itself");
    drop((before, tried));
    // Other thresholds begin with what is known.
    let strict = carried(&changed.replace("200ms", "100ms"), &[], &carry);
    until("it is taken up", || verdict(&strict, &a.service) == Verdict::Unhealthy).await;
    // Who checks no more chooses all.
    let plain = format!(r#"{{"endpoints": ["{}", "{}"]}}"#, a.service.url(), b.service.url());
    let blind = carried(&plain, &[], &carry);
    assert!(!barred(&blind, &a.service));
    for _ in 0..4 {
        get(&blind, "/x").await.0.unwrap();
    }
    assert_eq!(a.requests.load(SeqCst), 2);
    drop(blind);
    until("the one before has the say again", || barred(&strict, &a.service)).await;
    // One that comes into force again has it too, whoever still lives.
    let (blind, handle) = (carried(&plain, &[], &carry), tokio::runtime::Handle::current());
    assert!(!barred(&blind, &a.service));
    strict.start(&handle);
    until("the one before is back in force", || barred(&strict, &a.service)).await;
    blind.start(&handle);
    assert!(!barred(&blind, &a.service));
    drop(blind);
    drop((after, strict));
    let checks = a.checks.load(SeqCst);
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(a.checks.load(SeqCst) <= checks + 1, "nobody holds it, so nobody asks");
}

#[tokio::test]
async fn what_was_found_is_held_from_the_start_and_not_from_the_first_turn_of_the_task_that_judges() {
    let (a, b) = (Switched::new().await, Switched::new().await);
    a.is(false);
    let carry = Carry::default();
    let first = document(&[&a, &b], &format!(r#""path": "/healthz", {QUICK}"#));
    let before = carried(&first, &[], &carry);
    until("one is barred", || barred(&before, &a.service)).await;
    let after = carried(&first.replacen('{', r#"{"timeout": "9s", "#, 1), &[], &carry);
    // No task has had a turn since: on a busy machine one may wait for it for longer than the document before lives.
    drop(before);
    assert_eq!(verdict(&after, &a.service), Verdict::Unhealthy);
    let failed = after.view().endpoints[0].health.as_ref().unwrap().failed;
    until("it goes on", || after.view().endpoints[0].health.as_ref().unwrap().failed > failed + 3).await;
    // Other checks have to find out for themselves, and meanwhile who was barred stays so.
    let other = carried(&first.replace("/healthz", "/healthz?other"), &[], &carry);
    drop(after);
    assert_eq!((verdict(&other, &a.service), barred(&other, &a.service)), (Verdict::Unknown, true));
    let checks = a.checks.load(SeqCst);
    until("the first check", || a.checks.load(SeqCst) > checks).await;
    assert!(barred(&other, &a.service), "one that failed once is not better known than before");
    a.is(true);
    until("it has passed", || !barred(&other, &a.service)).await;
    assert_eq!(a.requests.load(SeqCst), 0);
}

/// What a check of one endpoint has found: none where it is well.
async fn found(document: &str) -> Option<String> {
    let upstream = upstream(document);
    let mut error = None;
    until("a check", || {
        let health = upstream.view().endpoints[0].health.clone().unwrap();
        error = (health.passed == 0).then_some(health.last_error).flatten();
        health.passed > 0 || health.failed > 0
    })
    .await;
    error
}

fn to(url: &str, health: &str) -> String {
    format!(r#"{{"endpoints": ["{url}"], "health": {{{health}, "every": "20ms"}}}}"#)
}

#[tokio::test]
async fn status_and_body_decide() {
    let body = "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 302 Found\r\nlocation: /\r\ntransfer-encoding: chunked\r\n\r\n3\r\nall\r\n5\r\n well\r\n0\r\n\r\n";
    let service = Service::saying(body).await;
    let url = service.url();
    assert_eq!(found(&to(&url, r#""path": "/""#)).await, None, "a redirect is not followed");
    assert_eq!(found(&to(&url, r#""path": "/", "status": [302, 404], "body": "all well""#)).await, None);
    assert_eq!(
        found(&to(&url, r#""path": "/", "status": ["2xx", 304]"#)).await.as_deref(),
        Some("the status 302 is not 200-299 or 304")
    );
    assert_eq!(
        found(&to(&url, r#""path": "/", "body": "not well""#)).await.as_deref(),
        Some("the body does not contain `not well`")
    );
    let endless = Service::new(|mut peer: Peer, _| async move {
        peer.head().await;
        peer.write(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while peer.write(&[b'x'; 1024]).await {}
    })
    .await;
    let error = found(&to(&endless.url(), r#""path": "/", "body": "y""#)).await;
    assert_eq!(
        error.as_deref(),
        Some("the body does not contain `y`"),
        "of a body without an end the beginning is read"
    );
}

#[tokio::test]
async fn a_body_that_nobody_looks_at_is_read_to_its_end_and_the_connection_closed_cleanly() {
    let (sender, mut ends) = tokio::sync::mpsc::channel(8);
    let service = Service::new(move |mut peer: Peer, number| {
        let sender = sender.clone();
        async move {
            peer.head().await;
            let status = if number == 0 { "200 OK" } else { "503 Not Now" };
            peer.write(format!("HTTP/1.1 {status}\r\ncontent-length: 60000\r\n\r\n").as_bytes()).await;
            for _ in 0..60 {
                tokio::task::yield_now().await;
                peer.write(&[b'x'; 1000]).await;
            }
            // An end, and not a reset: whoever closes before it has read everything sends one.
            let end = tokio::io::AsyncReadExt::read(&mut peer.stream, &mut [0; 8]).await;
            let _ = sender.send(end.map_err(|error| error.kind())).await;
        }
    })
    .await;
    assert_eq!(found(&to(&service.url(), r#""path": "/""#)).await, None);
    assert_eq!(ends.recv().await, Some(Ok(0)));
    assert!(found(&to(&service.url(), r#""path": "/""#)).await.is_some());
    assert_eq!(ends.recv().await, Some(Ok(0)), "though its status told all");
}

#[tokio::test]
async fn what_is_asked_is_what_is_written() {
    let (sender, mut heads) = tokio::sync::mpsc::channel(8);
    let service = Service::new(move |mut peer, _| {
        let sender = sender.clone();
        async move {
            if let Some(head) = peer.head().await {
                let _ = sender.send(head).await;
                peer.write(b"HTTP/1.1 204 No Content\r\n\r\n").await;
            }
        }
    })
    .await;
    let port = service.addr.port();
    let health = format!(r#""path": "/h?a=b", "host": "users.test", "port": {port}, "headers": {{"x-probe": "1"}}"#);
    assert_eq!(found(&to("tcp://127.0.0.1:9", &health)).await, None);
    let head = heads.recv().await.unwrap().to_ascii_lowercase();
    assert!(head.starts_with("get /h?a=b http/1.1\r\nhost: users.test\r\n"), "{head}");
    assert!(head.contains("x-probe: 1\r\n") && head.contains("user-agent: pylon/"), "{head}");
}

#[tokio::test]
async fn who_does_not_answer_or_is_not_there_fails() {
    let silent = Service::new(|mut peer, _| async move { while peer.request().await.is_some() {} }).await;
    let error = found(&to(&silent.url(), r#""path": "/", "timeout": "50ms""#)).await;
    assert_eq!(error.as_deref(), Some("no answer within 50ms"));
    assert_eq!(found(&to(&silent.url(), r#""tcp": true"#)).await, None, "a connection is all that was asked for");
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for health in [r#""tcp": true"#, r#""path": "/""#, r#""grpc": """#] {
        let error = found(&to(&format!("http://{nobody}"), health)).await.unwrap();
        assert!(error.starts_with("no connection: "), "{error}");
    }
    let rude = Service::new(|mut peer, _| async move { drop(peer.head().await) }).await;
    let error = found(&to(&rude.url(), r#""path": "/""#)).await;
    assert_eq!(error.as_deref(), Some("the connection was closed before an answer"));
}

/// A service of gRPC that answers each check with these bytes and status.
async fn grpc(message: &'static [u8], status: &'static str) -> Service {
    Service::new(move |peer, _| async move {
        let mut connection = h2::server::handshake(peer.stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let path = request.uri().path().to_owned();
            let answer = http::Response::builder().header("content-type", "application/grpc");
            if path != "/grpc.health.v1.Health/Check" {
                respond.send_response(answer.header("grpc-status", "12").body(()).unwrap(), true).unwrap();
                continue;
            }
            let mut body = respond.send_response(answer.body(()).unwrap(), false).unwrap();
            body.send_data(Bytes::from_static(message), false).unwrap();
            let trailers = http::HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-status"),
                http::HeaderValue::from_static(status),
            )]);
            body.send_trailers(trailers).unwrap();
        }
    })
    .await
}

#[tokio::test]
async fn a_service_of_grpc_is_asked_by_its_own_protocol() {
    let serving = grpc(b"\x00\x00\x00\x00\x02\x08\x01", "0").await;
    assert_eq!(found(&to(&serving.url(), r#""grpc": "users.v1.Users""#)).await, None);
    let not_serving = grpc(b"\x00\x00\x00\x00\x02\x08\x02", "0").await;
    assert_eq!(found(&to(&not_serving.url(), r#""grpc": """#)).await.as_deref(), Some("it says NOT_SERVING"));
    let unknown = grpc(b"", "5").await;
    let error = found(&to(&unknown.url(), r#""grpc": "x""#)).await;
    assert_eq!(error.as_deref(), Some("the service is not known there (NOT_FOUND)"));
}

#[tokio::test]
async fn over_http2_a_path_is_asked_by_http2() {
    let service = Service::new(|peer, _| async move {
        let mut connection = h2::server::handshake(peer.stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let well = request.uri().path() == "/healthz";
            let status = if well { 200 } else { 500 };
            let answer = http::Response::builder().status(status).body(()).unwrap();
            let mut body = respond.send_response(answer, false).unwrap();
            body.send_data(Bytes::from_static(b"status: UP"), true).unwrap();
        }
    })
    .await;
    let document = |path: &str, body: &str| {
        let health = format!(r#""path": "{path}", "body": "{body}""#);
        to(&service.url(), &health).replacen('{', r#"{"protocol": "http2", "#, 1)
    };
    assert_eq!(found(&document("/healthz", "UP")).await, None);
    assert_eq!(found(&document("/x", "UP")).await.as_deref(), Some("the status 500 is not 200-399"));
    assert_eq!(found(&document("/healthz", "DOWN")).await.as_deref(), Some("the body does not contain `DOWN`"));
}

#[tokio::test]
async fn until_there_is_a_verdict_an_endpoint_may_be_chosen() {
    let service = Service::new(|mut peer, _| async move {
        while let Some(head) = peer.head().await {
            // Checks are never answered.
            if head.starts_with("GET /x ") {
                peer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            }
        }
    })
    .await;
    let upstream = upstream(&to(&service.url(), r#""path": "/healthz", "timeout": "30s""#));
    assert_eq!(verdict(&upstream, &service), Verdict::Unknown);
    assert_eq!(whole(get(&upstream, "/x").await.0.unwrap()).await.0, "ok");
}

#[tokio::test]
async fn a_check_begins_with_the_header_of_the_proxy_protocol_where_requests_do() {
    let (sender, mut heads) = tokio::sync::mpsc::channel(8);
    let service = Service::new(move |mut peer, _| {
        let sender = sender.clone();
        async move {
            if let Some(head) = peer.head().await {
                let _ = sender.send(head).await;
                peer.write(b"HTTP/1.1 204 No Content\r\n\r\n").await;
            }
        }
    })
    .await;
    let document = to(&service.url(), r#""path": "/""#).replacen('{', r#"{"proxy_protocol": "v1", "#, 1);
    assert_eq!(found(&document).await, None);
    assert!(heads.recv().await.unwrap().starts_with("PROXY UNKNOWN\r\nGET / HTTP/1.1\r\n"));
}

#[tokio::test]
async fn one_place_in_cleartext_and_under_tls_is_two_endpoints() {
    // Closes on whoever begins with TLS.
    let service = Service::new(|mut peer: Peer, _| async move {
        while peer.bytes(1).await.is_some_and(|first| first == b"G") && peer.head().await.is_some() {
            peer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let address = service.addr;
    let upstream = upstream(&format!(
        r#"{{"endpoints": ["http://{address}", "https://{address}"], "tls": {{"verify": false}}, "panic": "0%",
            "health": {{"path": "/healthz", {QUICK}}}, "outliers": {{"failures": 2}}, "breaker": {{"consecutive": 2}}}}"#
    ));
    let under_tls = format!("https://{address}");
    let barred = |endpoint: &str| {
        let endpoints = upstream.view().endpoints;
        endpoints.iter().find(|one| one.endpoint == endpoint).unwrap().barred.clone()
    };
    for _ in 0..4 {
        assert_eq!(whole(get(&upstream, "/x").await.0.unwrap()).await.0, "ok");
    }
    until("no TLS is found there", || barred(&under_tls) == ["unhealthy", "ejected", "breaker_open"]).await;
    assert!(barred(&address.to_string()).is_empty());
    assert_eq!(upstream.force(Force::Closed, Some(&under_tls), None), Ok(()));
    assert_eq!(barred(&under_tls), ["unhealthy", "ejected"]);
}
