//! Bodies: every split of the bytes, trailers both ways, full duplex, large ones, broken ones.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;
use pylon_core::body::{Body, BodyError};
use pylon_core::rejection::{
    REQUEST_BODY_BROKEN, REQUEST_BODY_TOO_LARGE, Rejection, UPSTREAM_HEADERS_TOO_LARGE, UPSTREAM_PROTOCOL,
};

use super::fixture::{Service, call, channel_body, data, exchange, get, request, sized_body, to, whole};
use crate::call::CallOptions;

#[tokio::test]
async fn an_answer_split_at_any_byte_is_the_same_answer() {
    const ANSWERS: [&str; 3] = [
        "HTTP/1.1 103 Early Hints\r\na: b\r\n\r\nHTTP/1.1 200 OK\r\nx-a: 1\r\ncontent-length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;ext=\"1\"\r\nhel\r\n02\r\nlo\r\n0\r\nx-sum: 9\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ];
    let service = Service::new(|mut peer, _| async move {
        while let Some(head) = peer.head().await {
            let mut numbers = head.split(['/', ' ']).filter_map(|part| part.parse::<usize>().ok());
            let (which, at) = (numbers.next().unwrap(), numbers.next().unwrap());
            let (first, second) = ANSWERS[which].as_bytes().split_at(at);
            peer.write(first).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
            peer.write(second).await;
        }
    })
    .await;
    let upstream = to(&service, "");
    for (which, answer) in ANSWERS.iter().enumerate() {
        for at in 0..answer.len() {
            let (answer, _) = get(&upstream, &format!("/{which}/{at}")).await;
            let (body, trailers) = whole(answer.unwrap()).await;
            assert_eq!((body.as_ref(), trailers.is_some()), (&b"hello"[..], which == 1), "{which} at {at}");
        }
    }
    assert_eq!(service.connections(), 1);
}

#[tokio::test]
async fn trailers_pass_both_ways_but_for_those_that_may_not_trail() {
    let service = Service::new(|mut peer, _| async move {
        peer.head().await;
        peer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n").await;
        peer.write(b"grpc-status: 0\r\ncontent-length: 99\r\nhost: evil\r\n\r\n").await;
    })
    .await;
    let (answer, _) = get(&to(&service, ""), "/").await;
    let (body, trailers) = whole(answer.unwrap()).await;
    let trailers = trailers.unwrap();
    assert_eq!((body.as_ref(), trailers.len(), trailers["grpc-status"].as_bytes()), (&b"ok"[..], 1, &b"0"[..]));
}

#[tokio::test]
async fn trailers_of_a_request_are_sent_behind_its_chunks() {
    let service = Service::new(|mut peer, _| async move {
        peer.head().await;
        let body = peer.until(b"\r\n\r\n").await.unwrap();
        assert_eq!(body, b"3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n");
        peer.write(b"HTTP/1.1 204 No Content\r\n\r\n").await;
    })
    .await;
    let (sender, body) = channel_body();
    sender.send(data("abc")).await.unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("7"));
    trailers.insert("transfer-encoding", HeaderValue::from_static("chunked"));
    sender.send(Ok(Frame::trailers(trailers))).await.unwrap();
    drop(sender);
    call(&to(&service, ""), request(&Method::POST, "/", body)).await.0.unwrap();
}

#[tokio::test]
async fn both_directions_flow_at_once() {
    let service = Service::new(|mut peer, _| async move {
        while peer.head().await.is_some() {
            peer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            for _ in 0..20 {
                let ping = peer.bytes(9).await.unwrap();
                peer.write(&ping).await;
            }
            assert_eq!(peer.bytes(5).await.unwrap(), b"0\r\n\r\n");
            peer.write(b"0\r\n\r\n").await;
        }
    })
    .await;
    let upstream = to(&service, "");
    for _ in 0..2 {
        let (sender, body) = channel_body();
        let (answer, _) = call(&upstream, request(&Method::POST, "/", body)).await;
        let mut answer = answer.unwrap().into_body();
        for round in 0..20 {
            let ping = format!("ping{}", round % 10).get(..4).unwrap().to_owned();
            sender.send(data(&ping)).await.unwrap();
            let pong = answer.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(pong, ping);
        }
        drop(sender);
        assert!(answer.frame().await.is_none());
    }
    assert_eq!(service.connections(), 1, "it ended cleanly and is used again");
}

#[tokio::test]
async fn large_bodies_arrive_whole_both_ways() {
    let service = Service::new(|mut peer, _| async move {
        while let Some((_, body)) = peer.request().await {
            peer.write(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes()).await;
            peer.write(&body).await;
        }
    })
    .await;
    let upstream = to(&service, "");
    let bytes: Bytes = (0..4_000_000_u32).map(|n| (n % 251) as u8).collect::<Vec<_>>().into();
    let (answer, _) = call(&upstream, request(&Method::PUT, "/", bytes.clone())).await;
    let answer = answer.unwrap();
    assert_eq!(answer.body().size_hint().exact(), Some(4_000_000));
    assert!(whole(answer).await.0 == bytes);

    let (sender, body) = sized_body(4_000_000);
    let pieces = bytes.clone();
    tokio::spawn(async move {
        for piece in pieces.chunks(70_000) {
            sender.send(Ok(Frame::data(Bytes::copy_from_slice(piece)))).await.unwrap();
        }
    });
    let (answer, cx) = call(&upstream, request(&Method::POST, "/", body)).await;
    assert!(cx.trail.reused && whole(answer.unwrap()).await.0 == bytes);
}

#[tokio::test]
async fn a_body_without_a_length_ends_with_its_connection() {
    let service = Service::new(|mut peer, _| async move {
        peer.head().await;
        peer.write(b"HTTP/1.1 200 OK\r\n\r\nall ").await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        peer.write(b"of it").await;
    })
    .await;
    let upstream = to(&service, "");
    assert_eq!(whole(get(&upstream, "/").await.0.unwrap()).await.0, "all of it");
    assert_eq!(upstream.view().endpoints[0].idle, 0);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_an_error_and_not_a_short_body() {
    for answer in [
        "content-length: 10\r\n\r\nshort",
        "transfer-encoding: chunked\r\n\r\n5\r\nhel",
        "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        let service = Service::new(move |mut peer, _| async move {
            peer.head().await;
            peer.write(format!("HTTP/1.1 200 OK\r\n{answer}").as_bytes()).await;
        })
        .await;
        let (answer, _) = get(&to(&service, ""), "/").await;
        assert!(matches!(answer.unwrap().into_body().collect().await.unwrap_err(), BodyError::Upstream(_)));
    }
}

#[tokio::test]
async fn a_client_s_broken_body_is_the_client_s_fault() {
    let service = Service::new(|mut peer, _| async move {
        peer.request().await;
    })
    .await;
    let upstream = to(&service, "");
    for (error, reason) in
        [(BodyError::Client("reset".into()), &REQUEST_BODY_BROKEN), (BodyError::TooLarge(5), &REQUEST_BODY_TOO_LARGE)]
    {
        let (sender, body) = channel_body();
        sender.send(data("abc")).await.unwrap();
        sender.send(Err(error)).await.unwrap();
        let (answer, _) = call(&upstream, request(&Method::POST, "/", body)).await;
        assert_eq!(Rejection::from(answer.unwrap_err()).reason, reason);
    }
    for (length, sent) in [(2, "abc"), (4, "abc")] {
        let (sender, body) = sized_body(length);
        sender.send(data(sent)).await.unwrap();
        drop(sender);
        let (answer, _) = call(&upstream, request(&Method::POST, "/", body)).await;
        assert_eq!(Rejection::from(answer.unwrap_err()).reason, &REQUEST_BODY_BROKEN);
    }
}

#[tokio::test]
async fn a_head_over_its_limit_names_the_setting() {
    let long = format!("HTTP/1.1 200 OK\r\nx-long: {}\r\ncontent-length: 0\r\n\r\n", "a".repeat(70_000));
    let service = Service::saying(long).await;
    let upstream = to(&service, "");
    let rejection = Rejection::from(get(&upstream, "/").await.0.unwrap_err());
    assert_eq!(rejection.reason, &UPSTREAM_HEADERS_TOO_LARGE);
    let note = rejection.note.unwrap();
    assert!(note.contains("65536 bytes") && note.contains("limits.response_headers"), "{note}");
    let options = CallOptions { max_head: 100_000, ..CallOptions::default() };
    let mut cx = exchange(&Method::GET, "/");
    let answer = upstream.call(request(&Method::GET, "/", Body::Empty), &mut cx, &options).await.unwrap();
    assert_eq!(answer.headers()["x-long"].len(), 70_000);
    let many = Service::saying(format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(200))).await;
    assert_eq!(Rejection::from(get(&to(&many, ""), "/").await.0.unwrap_err()).reason, &UPSTREAM_HEADERS_TOO_LARGE);
}

#[tokio::test]
async fn a_head_that_can_be_read_in_two_ways_is_refused() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ncontent-length: 1, 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\na",
        "HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551616\r\n\r\na",
        "HTTP/1.1 200 OK\r\na: b\r\n folded\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length : 0\r\n\r\n",
        "HTTP/1.1 200 OK\ncontent-length: 0\n\n",
        "HTTP/1.1 200 OK\r\na: b\rc\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\na: b\0c\r\ncontent-length: 0\r\n\r\n",
        "\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        "HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        "SSH-2.0-OpenSSH\r\n\r\n",
    ] {
        let service = Service::saying(answer).await;
        let upstream = to(&service, "");
        let error = get(&upstream, "/").await.0.expect_err(answer);
        assert_eq!(Rejection::from(error).reason, &UPSTREAM_PROTOCOL, "{}", answer.escape_debug());
        assert_eq!(upstream.view().endpoints[0].idle, 0);
    }
    let service = Service::saying("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2, 2\r\n\r\nok").await;
    let answer = get(&to(&service, ""), "/").await.0.unwrap();
    assert_eq!(answer.headers().get_all("content-length").iter().collect::<Vec<_>>(), ["2"]);
}
