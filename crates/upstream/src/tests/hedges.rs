//! Failure 40 and the slow tail: a second attempt beside one that is late, whose loser is gone at once and counts for nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use http::Method;
use pylon_core::attempts::Hedged;
use pylon_core::body::Body;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::Instant;

use super::fixture::{Service, call_by, channel_body, data, options, request, upstream, whole};
use crate::upstream::Upstream;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A service that never answers, and tells when its connections end.
async fn silent() -> (Service, Receiver<Instant>) {
    let (told, heard) = channel(64);
    let service = Service::new(move |mut peer, _| {
        let told = told.clone();
        async move {
            while peer.request().await.is_some() {}
            let _ = told.try_send(Instant::now());
        }
    })
    .await;
    (service, heard)
}

fn both(one: &Service, other: &Service, more: &str) -> Arc<Upstream> {
    upstream(&format!(r#"{{"endpoints": ["{}", "{}"]{more}}}"#, one.url(), other.url()))
}

const ALL: &str = r#"{"after": "50ms", "at_most": "100%"}"#;

#[tokio::test]
async fn a_late_attempt_gets_another_beside_it_and_the_loser_is_gone_at_once() {
    let (late, mut ended) = silent().await;
    let quick = Service::saying(OK).await;
    let upstream = both(&late, &quick, "");
    let options = options(&upstream, "null", ALL);
    let mut won = 0;
    for _ in 0..4 {
        let (answer, cx) = call_by(&upstream, &options, request(&Method::GET, "/", Body::Empty)).await;
        let answered = Instant::now();
        assert_eq!(whole(answer.unwrap()).await.0, "ok");
        if cx.trail.hedge == Some(Hedged::Won) {
            won += 1;
            assert_eq!((cx.trail.attempts, cx.trail.endpoint), (2, Some(quick.addr)));
            let gone = tokio::time::timeout(Duration::from_secs(5), ended.recv()).await.unwrap().unwrap();
            assert!(gone.saturating_duration_since(answered) < Duration::from_millis(100));
        } else {
            assert_eq!((cx.trail.attempts, cx.trail.hedge), (1, None));
        }
    }
    assert!(won >= 1, "endpoints are asked in turn");
    assert!(upstream.view().endpoints.iter().all(|endpoint| endpoint.in_flight == 0));
}

#[tokio::test]
async fn an_answer_that_failed_is_not_taken_while_the_other_may_be_better() {
    let failing = Service::new(|mut peer, _| async move {
        while peer.request().await.is_some() {
            tokio::time::sleep(Duration::from_millis(120)).await;
            peer.write(b"HTTP/1.1 500 No\r\ncontent-length: 3\r\n\r\nbad").await;
        }
    })
    .await;
    let slow = Service::new(|mut peer, _| async move {
        while peer.request().await.is_some() {
            tokio::time::sleep(Duration::from_millis(250)).await;
            peer.write(OK).await;
        }
    })
    .await;
    let upstream = both(&failing, &slow, "");
    let options = options(&upstream, "null", ALL);
    for _ in 0..4 {
        let (answer, cx) = call_by(&upstream, &options, request(&Method::GET, "/", Body::Empty)).await;
        assert_eq!(whole(answer.unwrap()).await.0, "ok");
        assert_eq!((cx.trail.attempts, cx.trail.endpoint), (2, Some(slow.addr)));
    }
}

#[tokio::test]
async fn what_must_not_be_sent_twice_is_not_and_neither_is_what_is_over_the_bounds() {
    let slow = || async {
        Service::new(|mut peer, _| async move {
            while peer.request().await.is_some() {
                tokio::time::sleep(Duration::from_millis(120)).await;
                peer.write(OK).await;
            }
        })
        .await
    };
    let (one, other) = (slow().await, slow().await);
    let (sender, stream) = channel_body();
    sender.send(data("abc")).await.unwrap();
    drop(sender);
    let no_budget = r#", "retry_budget": {"ratio": "0%", "floor": "0/s"}"#;
    for (more, hedge, method, body, said) in [
        ("", ALL, Method::POST, Body::from("abc"), None),
        ("", ALL, Method::PUT, stream, None),
        ("", r#""p95""#, Method::GET, Body::Empty, None),
        ("", r#"{"after": "50ms", "at_most": "5%"}"#, Method::GET, Body::Empty, Some(Hedged::Skipped)),
        (no_budget, ALL, Method::GET, Body::Empty, Some(Hedged::Skipped)),
    ] {
        let upstream = both(&one, &other, more);
        let options = options(&upstream, "null", hedge);
        let (answer, cx) = call_by(&upstream, &options, request(&method, "/", body)).await;
        answer.unwrap();
        assert_eq!((cx.trail.attempts, cx.trail.hedge), (1, said), "{method} {hedge} {more}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_both() {
    let ((one, mut first), (other, mut second)) = (silent().await, silent().await);
    let upstream = both(&one, &other, "");
    let options = options(&upstream, "null", ALL);
    let call = call_by(&upstream, &options, request(&Method::GET, "/", Body::Empty));
    assert!(tokio::time::timeout(Duration::from_millis(400), call).await.is_err());
    let left = Instant::now();
    for ended in [&mut first, &mut second] {
        let gone = tokio::time::timeout(Duration::from_secs(5), ended.recv()).await.unwrap().unwrap();
        assert!(gone.saturating_duration_since(left) < Duration::from_millis(100));
    }
}

/// A service that takes 5 ms, and 3 of 100 times 200 ms.
async fn tailed(executed: &Arc<AtomicUsize>) -> Service {
    let executed = Arc::clone(executed);
    Service::new(move |mut peer, _| {
        let executed = Arc::clone(&executed);
        async move {
            while peer.request().await.is_some() {
                let slow = executed.fetch_add(1, SeqCst) % 33 == 20;
                tokio::time::sleep(Duration::from_millis(if slow { 200 } else { 5 })).await;
                if !peer.write(OK).await {
                    return;
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn hedging_halves_the_time_of_the_slowest_hundredth_for_a_twentieth_of_load() {
    const REQUESTS: usize = 1500;
    let mut told = Vec::new();
    for hedge in ["null", r#""p95""#] {
        let executed = Arc::new(AtomicUsize::new(0));
        let (one, other) = (tailed(&executed).await, tailed(&executed).await);
        let upstream = both(&one, &other, "");
        let options = options(&upstream, "null", hedge);
        let mut times = Vec::new();
        for request_number in 0..REQUESTS + 200 {
            let begun = Instant::now();
            call_by(&upstream, &options, request(&Method::GET, "/", Body::Empty)).await.0.unwrap();
            // The quantile is learnt first.
            if request_number >= 200 {
                times.push(begun.elapsed());
            }
        }
        times.sort_unstable();
        told.push((times[REQUESTS * 99 / 100], executed.load(SeqCst)));
    }
    let [(before, load), (after, hedged_load)] = told[..] else { unreachable!() };
    assert!(after * 2 <= before, "p99 {before:?} without, {after:?} with a hedge");
    assert!(hedged_load <= load + load / 20, "{hedged_load} requests in place of {load}");
}
