//! FAILURES 33 and 24: each timer by its name; a stalled dial blocks nobody.

use std::time::Duration;

use http::Method;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use pylon_core::body::{Body, BodyError};
use pylon_core::exchange::Timer;
use pylon_core::rejection::{Rejection, UPSTREAM_TIMEOUT};

use crate::error::Blame;

use super::fixture::{Service, call, channel_body, data, get, request, sized_body, to, whole};

async fn silent() -> Service {
    Service::new(|mut peer, _| async move { while peer.request().await.is_some() {} }).await
}

#[tokio::test]
async fn the_504_names_the_timer_that_fired() {
    let service = silent().await;
    for (timeout, timer, told) in [
        (r#""150ms""#, Timer::Response, "the response timer (150ms) fired"),
        (r#"{"first_byte": "120ms"}"#, Timer::FirstByte, "the first_byte timer (120ms) fired"),
        (r#"{"total": "130ms"}"#, Timer::Total, "the total timer (130ms) fired"),
    ] {
        let upstream = to(&service, &format!(r#", "timeout": {timeout}"#));
        let (answer, cx) = get(&upstream, "/").await;
        let rejection = Rejection::from(answer.unwrap_err());
        assert_eq!((rejection.reason, cx.trail.timer), (&UPSTREAM_TIMEOUT, Some(timer)));
        assert_eq!(rejection.detail.as_deref(), Some(told));
        assert_eq!(upstream.view().endpoints[0].idle, 0);
    }
}

#[tokio::test]
async fn a_connect_that_hangs_is_the_connect_timer() {
    // A listener whose queue is full answers no SYN.
    let listener = tokio::net::TcpSocket::new_v4().unwrap();
    listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = listener.listen(1).unwrap();
    let addr = listener.local_addr().unwrap();
    let mut queue = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_millis(200), tokio::net::TcpStream::connect(addr)).await
    {
        queue.push(stream);
        assert!(queue.len() < 64);
    }
    let service = Service::saying("HTTP/1.1 204 No Content\r\n\r\n").await;
    let document = format!(r#"{{"endpoints": ["http://{addr}"], "timeout": {{"connect": "100ms"}}}}"#);
    let (answer, cx) = get(&super::fixture::upstream(&document), "/").await;
    assert_eq!(Rejection::from(answer.unwrap_err()).detail.as_deref(), Some("the connect timer (100ms) fired"));
    assert_eq!(cx.trail.timer, Some(Timer::Connect));
    let both = format!(r#"{{"endpoints": ["http://{addr}", "{}"], "timeout": {{"connect": "100ms"}}}}"#, service.url());
    let upstream = super::fixture::upstream(&both);
    for _ in 0..2 {
        get(&upstream, "/").await.0.unwrap();
    }
}

#[tokio::test]
async fn a_body_that_pauses_too_long_ends_by_the_idle_timer_and_one_that_goes_on_does_not() {
    let service = Service::new(|mut peer, _| async move {
        let head = peer.head().await.unwrap();
        peer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        for _ in 0..6 {
            tokio::time::sleep(Duration::from_millis(60)).await;
            peer.write(b"1\r\nx\r\n").await;
        }
        if head.contains("/stops") {
            peer.head().await;
        }
        peer.write(b"0\r\n\r\n").await;
    })
    .await;
    let upstream = to(&service, r#", "timeout": {"idle": "150ms"}"#);
    let (answer, _) = get(&upstream, "/goes-on").await;
    assert_eq!(whole(answer.unwrap()).await.0, "xxxxxx");
    let (answer, _) = get(&upstream, "/stops").await;
    let error = answer.unwrap().into_body().collect().await.unwrap_err();
    assert_eq!(error, BodyError::Timeout(Timer::Idle));
}

#[tokio::test]
async fn total_bounds_the_body_as_well() {
    let service = Service::new(|mut peer, _| async move {
        peer.head().await;
        peer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await;
        while peer.write(b"x").await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let (answer, _) = get(&to(&service, r#", "timeout": {"total": "200ms"}"#), "/").await;
    let answer = answer.unwrap();
    assert_eq!(answer.body().size_hint().exact(), Some(1000));
    assert_eq!(answer.into_body().collect().await.unwrap_err(), BodyError::Timeout(Timer::Total));
}

#[tokio::test]
async fn an_upload_that_makes_progress_outlasts_the_response_timer() {
    let service = Service::saying("HTTP/1.1 204 No Content\r\n\r\n").await;
    let upstream = to(&service, r#", "timeout": "150ms""#);
    let (sender, body) = sized_body(8);
    tokio::spawn(async move {
        for _ in 0..8 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            sender.send(data("x")).await.unwrap();
        }
    });
    call(&upstream, request(&Method::PUT, "/", body)).await.0.unwrap();
}

#[tokio::test]
async fn a_client_that_stands_still_in_its_upload_is_not_blamed_on_the_upstream() {
    let service = Service::saying("HTTP/1.1 204 No Content\r\n\r\n").await;
    let upstream = to(&service, r#", "timeout": {"response": "50ms", "total": "300ms"}"#);
    let (sender, body) = channel_body();
    let (answer, cx) = call(&upstream, request(&Method::PUT, "/", body)).await;
    assert!(answer.is_err() && cx.trail.timer == Some(Timer::Total), "{:?}", cx.trail.timer);
    drop(sender);

    let (sender, body) = channel_body();
    sender.send(Err(BodyError::Timeout(Timer::ClientBody))).await.unwrap();
    let (answer, cx) = call(&upstream, request(&Method::PUT, "/", body)).await;
    assert_eq!(answer.unwrap_err().blame, Blame::Client);
    assert_eq!(cx.trail.timer, Some(Timer::ClientBody));
}

#[tokio::test]
async fn idle_and_old_connections_are_closed_by_the_sweep() {
    let service = Service::saying("HTTP/1.1 204 No Content\r\n\r\n").await;
    for pool in [r#"{"idle": "40ms"}"#, r#"{"lifetime": "40ms"}"#] {
        let upstream = to(&service, &format!(r#", "pool": {pool}"#));
        get(&upstream, "/").await.0.unwrap();
        upstream.sweep(tokio::time::Instant::now().into_std());
        assert_eq!(upstream.view().endpoints[0].idle, 1);
        tokio::time::sleep(Duration::from_millis(60)).await;
        upstream.sweep(tokio::time::Instant::now().into_std());
        assert_eq!(upstream.view().endpoints[0].idle, 0);
    }
    let none = to(&service, r#", "pool": {"max_idle": 0}"#);
    call(&none, request(&Method::GET, "/", Body::Empty)).await.0.unwrap();
    assert_eq!(none.view().endpoints[0].idle, 0);
}
