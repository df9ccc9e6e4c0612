//! What is left of a client's time goes on to the service, and bounds every attempt.

use std::time::Duration;

use http::Method;
use pylon_core::body::Body;
use pylon_core::exchange::Timer;
use pylon_core::rejection::Rejection;
use tokio::sync::mpsc::{Receiver, channel};

use super::fixture::{Service, exchange, options, request, to};
use crate::call::CallOptions;
use crate::upstream::OfRoute;

/// A service that tells the value of a field of each request, and fails it the first time.
async fn tells(field: &'static str) -> (Service, Receiver<Option<String>>) {
    let (told, heard) = channel(64);
    let service = Service::new(move |mut peer, _| {
        let told = told.clone();
        async move {
            for answer in [
                &b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"[..],
                b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            ] {
                let Some(head) = peer.head().await else { return };
                let value = head.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(": "));
                told.try_send(value.map(str::to_owned)).unwrap();
                peer.write(answer).await;
            }
        }
    })
    .await;
    (service, heard)
}

#[tokio::test]
async fn a_deadline_in_a_field_is_told_to_the_service_shorter_with_each_attempt() {
    let (service, mut heard) = tells("x-timeout-ms").await;
    let upstream = to(&service, r#", "timeout": {"header": "x-timeout-ms"}"#);
    let retry = options(&upstream, r#"{"backoff": {"base": "200ms", "max": "200ms"}}"#, "null");
    let mut request = request(&Method::GET, "/", Body::Empty);
    request.headers_mut().insert("x-timeout-ms", "5000".parse().unwrap());
    let mut cx = exchange(&Method::GET, "/");
    tokio::time::sleep(Duration::from_millis(20)).await;
    upstream.call(request, &mut cx, &retry).await.unwrap();
    let mut next = || heard.try_recv().unwrap().unwrap().parse::<u64>().unwrap();
    let (first, second) = (next(), next());
    assert!(first <= 4980 && second <= first && second > 2000, "{first}, then {second}");
}

#[tokio::test]
async fn a_deadline_in_a_field_ends_the_exchange_as_the_total_does() {
    let silent = Service::new(|mut peer, _| async move { while peer.request().await.is_some() {} }).await;
    let upstream = to(&silent, r#", "timeout": {"header": "x-timeout-ms", "total": "10s"}"#);
    for (said, attempts) in [("150", 1), ("0", 0)] {
        let mut request = request(&Method::GET, "/", Body::Empty);
        request.headers_mut().insert("x-timeout-ms", said.parse().unwrap());
        let mut cx = exchange(&Method::GET, "/");
        let options = upstream.options(&OfRoute::default(), CallOptions::default().max_head);
        let error = upstream.call(request, &mut cx, &options).await.unwrap_err();
        assert!(Rejection::from(error).detail.unwrap().starts_with("the total timer"));
        assert_eq!((cx.trail.timer, cx.trail.attempts), (Some(Timer::Total), attempts));
    }
}

#[tokio::test]
async fn a_field_that_the_route_does_not_name_is_passed_on_as_it_came() {
    let (service, mut heard) = tells("x-timeout-ms").await;
    let upstream = to(&service, r#", "timeout": {"total": "10s"}"#);
    let mut request = request(&Method::GET, "/", Body::Empty);
    request.headers_mut().insert("x-timeout-ms", "1".parse().unwrap());
    let mut cx = exchange(&Method::GET, "/");
    let options = upstream.options(&OfRoute::default(), CallOptions::default().max_head);
    assert_eq!(upstream.call(request, &mut cx, &options).await.unwrap().status(), 503);
    assert_eq!(heard.try_recv().unwrap().as_deref(), Some("1"));
}

#[tokio::test]
async fn a_service_of_grpc_is_told_what_is_left_of_the_whole() {
    let (service, mut heard) = tells("grpc-timeout").await;
    let upstream = to(&service, r#", "timeout": {"total": "2s"}"#);
    let mut cx = exchange(&Method::POST, "/");
    cx.grpc = true;
    cx.deadline = Some(cx.started + Duration::from_secs(9));
    let mut request = request(&Method::POST, "/", Body::Empty);
    request.headers_mut().insert("grpc-timeout", "9S".parse().unwrap());
    let options = upstream.options(&OfRoute::default(), CallOptions::default().max_head);
    upstream.call(request, &mut cx, &options).await.unwrap();
    let told = heard.try_recv().unwrap().unwrap();
    let micros: u64 = told.strip_suffix('u').unwrap().parse().unwrap();
    assert!(micros <= 2_000_000 && micros > 1_000_000, "{told}");
}
