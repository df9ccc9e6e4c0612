//! The plain paths: methods, bodies, lengths, reuse.

use http::{Method, StatusCode};
use pylon_core::body::Body;

use super::fixture::{Service, call, channel_body, data, get, request, to, whole};

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
