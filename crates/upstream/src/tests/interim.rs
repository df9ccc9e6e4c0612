//! FAILURES 38: interim answers, `Expect: 100-continue`, and answers that come before the body is sent.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, StatusCode, Version};
use pylon_core::body::Body;
use pylon_core::rejection::{Rejection, UPSTREAM_PROTOCOL};

use super::fixture::{Service, call, channel_body, data, exchange, get, request, to, whole};
use crate::call::CallOptions;

#[tokio::test]
async fn early_hints_reach_the_client_without_what_concerns_the_connection() {
    let service = Service::saying(
        "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nconnection: x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\n\r\n\
         HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    )
    .await;
    let (answer, cx) = get(&to(&service, ""), "/").await;
    assert_eq!(whole(answer.unwrap()).await.0, "ok");
    let wire = String::from_utf8(cx.connection.interim.take()).unwrap();
    assert_eq!(wire, "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n");
}

#[tokio::test]
async fn a_client_of_http_1_0_sees_no_interim_answer() {
    let service = Service::saying("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n").await;
    let upstream = to(&service, "");
    let mut cx = exchange(&Method::GET, "/");
    cx.version = Version::HTTP_10;
    let options = CallOptions::default();
    let answer = upstream.call(request(&Method::GET, "/", Body::Empty), &mut cx, &options).await.unwrap();
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    assert!(!cx.connection.interim.is_waiting());
}

#[tokio::test]
async fn endless_interim_answers_and_a_switch_of_protocols_are_protocol_errors() {
    for answer in ["HTTP/1.1 102 Processing\r\n\r\n".repeat(50), "HTTP/1.1 101 Switching Protocols\r\n\r\n".to_owned()]
    {
        let service = Service::saying(answer).await;
        let error = get(&to(&service, ""), "/").await.0.unwrap_err();
        assert_eq!(Rejection::from(error).reason, &UPSTREAM_PROTOCOL);
    }
}

/// A body that nobody may ask for.
struct Untouched;

impl http_body::Body for Untouched {
    type Data = bytes::Bytes;
    type Error = pylon_core::body::BodyError;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<super::fixture::Frame>> {
        panic!("the body was read");
    }
}

fn expecting(body: Body) -> pylon_core::Request {
    let mut request = request(&Method::POST, "/", body);
    request.headers_mut().insert("expect", http::HeaderValue::from_static("100-continue"));
    request
}

#[tokio::test]
async fn the_body_waits_for_the_upstream_s_continue() {
    let service = Service::new(|mut peer, _| async move {
        while let Some(head) = peer.head().await {
            assert!(head.contains("expect: 100-continue\r\n"));
            let early = tokio::time::timeout(Duration::from_millis(100), peer.bytes(1)).await;
            assert!(early.is_err(), "the body was sent before the 100");
            peer.write(b"HTTP/1.1 100 Continue\r\n\r\n").await;
            assert_eq!(peer.until(b"0\r\n\r\n").await.unwrap(), b"3\r\nabc\r\n0\r\n\r\n");
            peer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let upstream = to(&service, "");
    for round in 0..2 {
        let (sender, body) = channel_body();
        sender.send(data("abc")).await.unwrap();
        drop(sender);
        let (answer, cx) = call(&upstream, expecting(body)).await;
        assert_eq!(whole(answer.unwrap()).await.0, "ok");
        assert_eq!(cx.trail.reused, round > 0);
    }
}

#[tokio::test]
async fn a_refusal_comes_back_without_the_body_being_read() {
    let service = Service::new(|mut peer, _| async move {
        peer.head().await;
        peer.write(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nbig").await;
        peer.head().await;
    })
    .await;
    let upstream = to(&service, "");
    let (answer, _) = call(&upstream, expecting(Body::stream(Untouched))).await;
    let answer = answer.unwrap();
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(whole(answer).await.0, "big");
    assert_eq!(upstream.view().endpoints[0].idle, 0);
}

#[tokio::test]
async fn a_silent_upstream_gets_the_body_after_a_second() {
    let service = Service::new(|mut peer, _| async move {
        peer.request().await;
        peer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        peer.head().await;
    })
    .await;
    let upstream = to(&service, "");
    let (sender, body) = channel_body();
    sender.send(data("abc")).await.unwrap();
    drop(sender);
    let began = tokio::time::Instant::now();
    let (answer, _) = call(&upstream, expecting(body)).await;
    assert_eq!(whole(answer.unwrap()).await.0, "ok");
    assert!((Duration::from_millis(990)..Duration::from_secs(3)).contains(&began.elapsed()));
}

#[tokio::test]
async fn an_expectation_goes_no_further_where_the_body_is_at_hand() {
    let service = Service::new(|mut peer, _| async move {
        let (head, body) = peer.request().await.unwrap();
        assert!(!head.contains("expect") && body == b"abc");
        peer.write(b"HTTP/1.1 204 No Content\r\n\r\n").await;
    })
    .await;
    call(&to(&service, ""), expecting("abc".into())).await.0.unwrap();
}
