//! The plain paths: methods, bodies, lengths, reuse.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use pylon_core::body::Body;

use super::fixture::{Service, call, channel_body, data, exchange, get, request, to, upstream, whole};
use crate::call::CallOptions;

const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-type: text/plain\r\n\r\nhello";

#[tokio::test]
async fn one_connection_serves_one_request_after_another() {
    let service = Service::saying(HELLO).await;
    let upstream = to(&service, "");
    for round in 0..100 {
        let (answer, cx) = get(&upstream, "/a?b=c").await;
        let answer = answer.unwrap();
        assert_eq!(
            (answer.status(), answer.headers()["content-type"].as_bytes()),
            (StatusCode::OK, &b"text/plain"[..])
        );
        assert!(matches!(answer.body(), Body::Full(_)));
        assert_eq!(whole(answer).await.0, "hello");
        assert_eq!((cx.trail.reused, cx.trail.attempts, cx.trail.endpoint), (round > 0, 1, Some(service.addr)));
        assert_eq!(cx.trail.upstream.as_deref(), Some("users"));
    }
    assert_eq!(service.connections(), 1);
    let view = upstream.view();
    assert_eq!((view.endpoints[0].connects, view.endpoints[0].reuses, view.endpoints[0].in_flight), (1, 99, 0));
}

#[tokio::test]
async fn the_head_that_is_sent_has_one_host_and_one_length() {
    let service = Service::new(|mut peer, _| async move {
        while let Some((head, body)) = peer.request().await {
            let seen = [head.as_bytes(), &body].concat();
            peer.write(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", seen.len()).as_bytes()).await;
            peer.write(&seen).await;
        }
    })
    .await;
    let upstream = to(&service, "");
    let (answer, _) = get(&upstream, "/a?b=c").await;
    assert_eq!(whole(answer.unwrap()).await.0, "GET /a?b=c HTTP/1.1\r\nhost: api.example\r\n\r\n");
    let (answer, _) = call(&upstream, request(&Method::POST, "/p", "abc")).await;
    assert_eq!(whole(answer.unwrap()).await.0, "POST /p HTTP/1.1\r\nhost: api.example\r\ncontent-length: 3\r\n\r\nabc");
    let (answer, _) = call(&upstream, request(&Method::POST, "/p", Body::Empty)).await;
    assert_eq!(whole(answer.unwrap()).await.0, "POST /p HTTP/1.1\r\nhost: api.example\r\ncontent-length: 0\r\n\r\n");

    let (sender, body) = channel_body();
    for piece in ["one", "seventeen letters"] {
        sender.send(data(piece)).await.unwrap();
    }
    drop(sender);
    let (answer, _) = call(&upstream, request(&Method::PUT, "/s", body)).await;
    assert_eq!(
        whole(answer.unwrap()).await.0,
        "PUT /s HTTP/1.1\r\nhost: api.example\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n11\r\nseventeen letters\r\n0\r\n\r\n"
    );
    assert_eq!(service.connections(), 1);
}

#[tokio::test]
async fn the_future_of_a_call_stays_small() {
    let service = Service::saying(HELLO).await;
    let upstream = to(&service, "");
    let mut cx = exchange(&Method::GET, "/");
    let options = CallOptions::default();
    let call = upstream.call(request(&Method::GET, "/", Body::Empty), &mut cx, &options);
    assert!(size_of_val(&call) <= 736, "{} bytes", size_of_val(&call));
}

#[tokio::test]
async fn the_host_that_is_sent_is_the_one_that_is_wanted() {
    let service = Service::new(|mut peer, _| async move {
        while let Some(head) = peer.head().await {
            let hosts: Vec<&str> = head.lines().filter_map(|line| line.strip_prefix("host: ")).collect();
            let hosts = hosts.join("+");
            peer.write(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{hosts}", hosts.len()).as_bytes()).await;
        }
    })
    .await;
    let endpoint = service.addr.to_string();
    for (host, sent) in [("keep", "api.example"), ("endpoint", &endpoint), ("users.internal", "users.internal")] {
        let upstream = to(&service, &format!(r#", "host": "{host}""#));
        assert_eq!(whole(get(&upstream, "/").await.0.unwrap()).await.0, sent);
        let mut cx = exchange(&Method::GET, "/");
        cx.upstream_host = Some(http::HeaderValue::from_static("rewritten"));
        let options = CallOptions::default();
        let answer = upstream.call(request(&Method::GET, "/", Body::Empty), &mut cx, &options).await;
        assert_eq!(whole(answer.unwrap()).await.0, "rewritten");
    }
}

#[tokio::test]
async fn requests_are_shared_out_by_weight_and_by_load() {
    let (a, b) = (Service::saying(HELLO).await, Service::saying(HELLO).await);
    let weighted = upstream(&format!(r#"{{"endpoints": ["{}", {{"url": "{}", "weight": 3}}]}}"#, a.url(), b.url()));
    for _ in 0..40 {
        get(&weighted, "/").await.0.unwrap();
    }
    let attempts: Vec<u64> = weighted.view().endpoints.iter().map(|endpoint| endpoint.attempts).collect();
    assert_eq!(attempts, [10, 30]);

    let slow = Service::new(|mut peer, _| async move { while peer.request().await.is_some() {} }).await;
    let least = upstream(&format!(r#"{{"endpoints": ["{}", "{}"], "balance": "least_request"}}"#, slow.url(), a.url()));
    let mut stuck = Vec::new();
    for _ in 0..8 {
        let least = Arc::clone(&least);
        stuck.push(tokio::spawn(async move { get(&least, "/").await.0.map(drop) }));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let view = least.view();
    assert_eq!(view.endpoints[0].in_flight, 1, "one is stuck there, the others went elsewhere");
    assert!(view.endpoints[1].attempts >= 7);
    for task in stuck {
        task.abort();
    }
}

#[tokio::test]
async fn what_happens_is_counted_in_the_series_of_the_upstream() {
    let service = Service::saying(HELLO).await;
    let metrics = pylon_observe::metrics::Metrics::new(tokio::time::Instant::now().into_std());
    let series = metrics.upstream(&"users".into());
    let upstream = Arc::into_inner(to(&service, "")).unwrap().counted_in(Arc::clone(&series));
    for _ in 0..3 {
        get(&upstream, "/").await.0.unwrap();
    }
    let counts = series.counts();
    assert_eq!((counts.attempts, counts.connects, counts.connect_failures, counts.open), (3, 1, 0, 1));
    drop(upstream);
    assert_eq!(series.counts().open, 0);
}
