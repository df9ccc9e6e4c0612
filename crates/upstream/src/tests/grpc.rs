//! What calls of gRPC tell of their endpoint, and streams of HTTP/2 that a service has not looked at.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Response};
use pylon_core::attempts::Cause;
use pylon_core::body::Body;

use super::fixture::{Peer, Service, exchange, get, request, upstream, whole};
use crate::call::CallOptions;
use crate::upstream::{OfRoute, Upstream};

/// Where a service tells the status of a call.
#[derive(Clone, Copy)]
enum Where {
    Head,
    Trailers,
    Nowhere,
}

/// A service of gRPC that answers each call so.
async fn service(code: &'static str, place: Where) -> Service {
    Service::new(move |peer, _| async move {
        let mut connection = h2::server::handshake(peer.stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let answer = Response::builder().header("content-type", "application/grpc");
            if matches!(place, Where::Head) {
                respond.send_response(answer.header("grpc-status", code).body(()).unwrap(), true).unwrap();
                continue;
            }
            let mut body = respond.send_response(answer.body(()).unwrap(), false).unwrap();
            let ends = matches!(place, Where::Nowhere);
            body.send_data(Bytes::from_static(b"\x00\x00\x00\x00\x00"), ends).unwrap();
            if !ends {
                let status = (HeaderName::from_static("grpc-status"), HeaderValue::from_static(code));
                body.send_trailers(http::HeaderMap::from_iter([status])).unwrap();
            }
        }
    })
    .await
}

fn judged(services: [&Service; 2]) -> Arc<Upstream> {
    let [one, other] = services.map(Service::url);
    upstream(&format!(
        r#"{{"endpoints": ["{one}", "{other}"], "protocol": "http2", "outliers": {{"failures": 3, "errors": "0%"}}, "breaker": {{"consecutive": 3}}}}"#
    ))
}

async fn called(upstream: &Upstream) {
    let mut cx = exchange(&Method::POST, "/users.v1.Users/Get");
    cx.grpc = true;
    let options = upstream.options(&OfRoute::default(), CallOptions::default().max_head);
    let call = upstream.call(request(&Method::POST, "/users.v1.Users/Get", Body::Empty), &mut cx, &options);
    whole(call.await.unwrap()).await;
}

#[tokio::test]
async fn a_call_of_grpc_counts_by_its_own_status_wherever_that_stands() {
    let good = service("0", Where::Trailers).await;
    for (code, place, counts) in [
        ("14", Where::Head, true),
        ("13", Where::Trailers, true),
        ("0", Where::Nowhere, true),
        ("5", Where::Head, false),
        ("8", Where::Trailers, false),
        ("0", Where::Head, false),
    ] {
        let told = service(code, place).await;
        let upstream = judged([&told, &good]);
        for _ in 0..6 {
            called(&upstream).await;
        }
        let endpoints = upstream.view().endpoints;
        let expected: &[&str] = if counts { &["ejected", "breaker_open"] } else { &[] };
        assert_eq!(endpoints[0].barred, expected, "code {code}");
        assert!(endpoints[1].barred.is_empty());
    }
}

/// An endpoint that refuses every stream tells nothing against itself; each request is answered by the other one.
async fn refuses(refusing: &Service) {
    let good = Service::new(|peer, _| async move {
        let mut connection = h2::server::handshake(peer.stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            respond.send_response(Response::new(()), true).unwrap();
        }
    })
    .await;
    let upstream = judged([refusing, &good]);
    let mut refused = 0;
    for _ in 0..10 {
        let (answer, cx) = get(&upstream, "/").await;
        assert_eq!(answer.unwrap().status(), 200);
        refused += cx.trail.retries.iter().filter(|cause| **cause == Cause::Refused).count();
    }
    assert!(refused >= 5, "{refused}");
    let view = upstream.view();
    assert!(view.endpoints[0].barred.is_empty() && view.endpoints[0].attempts >= 5, "{:?}", view.endpoints[0]);
    assert_eq!(view.endpoints[0].breaker.as_ref().unwrap().failed, 0);
}

#[tokio::test]
async fn a_stream_that_is_refused_unseen_is_no_failure_of_its_endpoint() {
    refuses(
        &Service::new(|peer, _| async move {
            let mut connection = h2::server::handshake(peer.stream).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                respond.send_reset(h2::Reason::REFUSED_STREAM);
            }
        })
        .await,
    )
    .await;
}

#[tokio::test]
async fn nor_is_one_that_a_connection_leaves_behind_when_it_goes_away() {
    refuses(
        &Service::new(|mut peer: Peer, _| async move {
            // The client's preface and settings; its HEADERS are the frame of type 1.
            peer.bytes(24).await;
            peer.write(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00").await;
            loop {
                let Some(head) = peer.bytes(9).await else { return };
                let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
                peer.bytes(length).await;
                if head[3] == 1 {
                    break;
                }
            }
            // GOAWAY, the last stream that was looked at being none, for no error (RFC 9113 §6.8).
            peer.write(b"\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00").await;
            peer.bytes(1).await;
        })
        .await,
    )
    .await;
}

#[tokio::test]
async fn nor_is_a_connection_that_goes_away_before_it_was_used() {
    refuses(
        &Service::new(|mut peer: Peer, _| async move {
            peer.bytes(24).await;
            let settings = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00";
            let goaway = b"\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
            peer.write(&[&settings[..], goaway].concat()).await;
            peer.until(b"never").await;
        })
        .await,
    )
    .await;
}
