//! FAILURES 16, 17 and 33: what is sent again when the route asks for it, what is not, and how much of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use http::Method;
use pylon_core::attempts::{Cause, Retried};
use pylon_core::body::Body;
use pylon_core::exchange::Timer;
use pylon_core::rejection::Rejection;

use super::fixture::{Service, call_by, channel_body, data, options, request, sized_body, to, upstream, whole};
use crate::upstream::Upstream;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nx-own: yes\r\ncontent-length: 3\r\n\r\nown";

/// Where a service fails, once it has executed a request.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    BeforeTheHead,
    WithinTheHead,
    ByStatus,
    WithinTheBody,
}

/// A service that counts what it executes, fails the first time at this stage, and is well from then on.
async fn fails_once(stage: Stage, executed: &Arc<AtomicUsize>) -> Service {
    let executed = Arc::clone(executed);
    Service::new(move |mut peer, _| {
        let executed = Arc::clone(&executed);
        async move {
            while peer.request().await.is_some() {
                if executed.fetch_add(1, SeqCst) > 0 {
                    peer.write(OK).await;
                    continue;
                }
                let said: &[u8] = match stage {
                    Stage::BeforeTheHead => b"",
                    Stage::WithinTheHead => b"HTTP/1.1 200 O",
                    Stage::WithinTheBody => b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
                    Stage::ByStatus => BUSY,
                };
                peer.write(said).await;
                if stage != Stage::ByStatus {
                    return;
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn only_what_may_be_executed_twice_is_wherever_it_fails() {
    for stage in [Stage::BeforeTheHead, Stage::WithinTheHead, Stage::ByStatus, Stage::WithinTheBody] {
        for method in [Method::GET, Method::PUT, Method::POST, Method::PATCH] {
            for retry in ["null", "2", r#"{"methods": "any"}"#] {
                let executed = Arc::new(AtomicUsize::new(0));
                let service = fails_once(stage, &executed).await;
                let upstream = to(&service, "");
                let body = if method == Method::GET { Body::Empty } else { Body::from("abc") };
                let (answer, cx) =
                    call_by(&upstream, &options(&upstream, retry, "null"), request(&method, "/", body)).await;
                let idempotent = matches!(method, Method::GET | Method::PUT);
                // The head of an answer has gone to the client once there is one.
                let again = stage != Stage::WithinTheBody && (retry == "2" && idempotent || retry.contains("any"));
                let said = format!("{stage:?} {method} {retry}");
                assert_eq!(executed.load(SeqCst), 1 + usize::from(again), "{said}");
                assert_eq!(
                    (cx.trail.attempts, cx.trail.retries.len()),
                    (1 + u32::from(again), usize::from(again)),
                    "{said}"
                );
                match stage {
                    _ if again => assert_eq!(whole(answer.unwrap()).await.0, "ok", "{said}"),
                    Stage::ByStatus => {
                        let answer = answer.unwrap();
                        assert_eq!(
                            (answer.status().as_u16(), answer.headers()["x-own"].as_bytes()),
                            (503, &b"yes"[..]),
                            "{said}"
                        );
                        assert_eq!(whole(answer).await.0, "own", "{said}");
                    }
                    Stage::WithinTheBody => assert_eq!(answer.unwrap().status(), 200, "{said}"),
                    _ => assert!(answer.is_err(), "{said}"),
                }
            }
        }
    }
}

#[tokio::test]
async fn a_post_that_could_not_leave_is_sent_to_another_endpoint_without_being_asked_for() {
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let service = Service::saying(OK).await;
    let upstream = upstream(&format!(r#"{{"endpoints": ["http://{nobody}", "{}"]}}"#, service.url()));
    for _ in 0..4 {
        let (answer, cx) =
            call_by(&upstream, &options(&upstream, "null", "null"), request(&Method::POST, "/", "abc")).await;
        answer.unwrap();
        assert!(cx.trail.retries.iter().all(|cause| *cause == Cause::Connect));
    }
}

#[tokio::test]
async fn an_endpoint_that_comes_back_within_the_backoff_is_reached_at_the_second_try() {
    let address = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let upstream = upstream(&format!(r#"{{"endpoints": ["http://{address}"]}}"#));
    let retry = r#"{"attempts": 5, "backoff": {"base": "200ms", "max": "2s"}}"#;
    let service = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Service::named(address).await
    });
    let (answer, cx) = call_by(&upstream, &options(&upstream, retry, "null"), request(&Method::POST, "/", "abc")).await;
    answer.unwrap();
    assert!(cx.trail.attempts >= 2 && cx.trail.retries.iter().all(|cause| *cause == Cause::Connect));
    drop(service.await);
}

#[tokio::test]
async fn each_attempt_goes_to_an_endpoint_that_was_not_tried_while_there_is_one() {
    let mut services = Vec::new();
    for _ in 0..4 {
        services.push(Service::saying(BUSY).await);
    }
    let urls: Vec<_> = services.iter().map(|service| format!("{:?}", service.url())).collect();
    let upstream = upstream(&format!(r#"{{"endpoints": [{}], "balance": "random"}}"#, urls.join(",")));
    for round in 1..=3 {
        let (answer, cx) =
            call_by(&upstream, &options(&upstream, "3", "null"), request(&Method::GET, "/", Body::Empty)).await;
        assert_eq!((answer.unwrap().status().as_u16(), cx.trail.attempts), (503, 4));
        assert_eq!(cx.trail.retries, [Cause::Status(503); 3]);
        let attempts: Vec<_> = upstream.view().endpoints.iter().map(|endpoint| endpoint.attempts).collect();
        assert_eq!(attempts, [round; 4]);
    }
    // And what was turned down was read to its end: each connection was used again.
    assert!(services.iter().all(|service| service.connections() == 1));
}

/// How many requests the service gets for so many of clients, where it fails all of them.
async fn load(upstream: &Upstream, service: &AtomicUsize, requests: usize) -> usize {
    let options = options(upstream, "3", "null");
    let before = service.load(SeqCst);
    for _ in 0..requests {
        let answer = call_by(upstream, &options, request(&Method::GET, "/", Body::Empty)).await.0.unwrap();
        assert_eq!(answer.status(), 503);
        assert_eq!(whole(answer).await.0, "own");
    }
    service.load(SeqCst) - before
}

#[tokio::test]
async fn a_service_that_fails_always_gets_no_more_than_its_budget_beside_the_requests() {
    let executed = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&executed);
    let service = Service::new(move |mut peer, _| {
        let executed = Arc::clone(&counter);
        async move {
            while peer.request().await.is_some() {
                executed.fetch_add(1, SeqCst);
                peer.write(BUSY).await;
            }
        }
    })
    .await;
    for (budget, share) in [(r#"{"ratio": "20%", "floor": "0/s"}"#, 20), (r#"{"ratio": "0%", "floor": "0/s"}"#, 0)] {
        let upstream = to(&service, &format!(r#", "retry_budget": {budget}"#));
        let seen = load(&upstream, &executed, 200).await;
        assert!((200..=200 + 2 * share).contains(&seen), "{seen} requests with {budget}");
        // What is left between is lost with time alone.
        assert!(seen >= 200 + 2 * share * 8 / 10, "{seen} requests with {budget}");
    }
    let upstream = to(&service, r#", "retry_budget": {"ratio": "0%", "floor": "0/s"}"#);
    let (_, cx) = call_by(&upstream, &options(&upstream, "3", "null"), request(&Method::GET, "/", Body::Empty)).await;
    assert_eq!((cx.trail.retry_refused, cx.trail.attempts), (Some(Retried::BudgetExhausted), 1));
}

#[tokio::test]
async fn what_a_service_asks_for_is_waited_for_and_too_long_a_wait_is_passed_on() {
    for (after, attempts) in [("0", 2), ("1", 2), ("60", 1), ("Wed, 21 Oct 2065 07:28:00 GMT", 1)] {
        let service = Service::new(move |mut peer, _| async move {
            peer.request().await;
            peer.write(format!("HTTP/1.1 503 Busy\r\nretry-after: {after}\r\ncontent-length: 0\r\n\r\n").as_bytes())
                .await;
            peer.request().await;
            peer.write(OK).await;
        })
        .await;
        let upstream = to(&service, "");
        let begun = tokio::time::Instant::now();
        let (answer, cx) =
            call_by(&upstream, &options(&upstream, "2", "null"), request(&Method::GET, "/", Body::Empty)).await;
        let answer = answer.unwrap();
        assert_eq!(cx.trail.attempts, attempts, "{after}");
        if attempts == 2 {
            assert_eq!(answer.status(), 200);
            assert!(begun.elapsed() >= Duration::from_secs(after.parse().unwrap()), "{after}");
        } else {
            assert_eq!((answer.status().as_u16(), cx.trail.retry_refused), (503, Some(Retried::TooLate)));
            assert_eq!(answer.headers()["retry-after"], after);
        }
    }
}

#[tokio::test]
async fn an_attempt_that_is_late_is_given_up_and_another_one_made_but_never_past_the_whole() {
    let executed = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&executed);
    let late = Service::new(move |mut peer, _| {
        let executed = Arc::clone(&counter);
        async move {
            peer.request().await;
            if executed.fetch_add(1, SeqCst) == 0 {
                peer.head().await;
            }
            peer.write(OK).await;
        }
    })
    .await;
    let upstream = to(&late, "");
    let options_of = |upstream: &Upstream, retry: &str| options(upstream, retry, "null");
    let per_try = options_of(&upstream, r#"{"per_try": "100ms"}"#);
    let (answer, cx) = call_by(&upstream, &per_try, request(&Method::GET, "/", Body::Empty)).await;
    answer.unwrap();
    assert_eq!((cx.trail.attempts, cx.trail.retries.as_slice()), (2, &[Cause::Timeout(Timer::PerTry)][..]));
    // The timers of the whole exchange are the last word.
    let silent = Service::new(|mut peer, _| async move { while peer.request().await.is_some() {} }).await;
    for (timeout, timer) in [(r#""250ms""#, Timer::Response), (r#"{"total": "250ms"}"#, Timer::Total)] {
        let upstream = to(&silent, &format!(r#", "timeout": {timeout}"#));
        let options =
            options_of(&upstream, r#"{"attempts": 5, "per_try": "100ms", "backoff": {"base": "1ms", "max": "1ms"}}"#);
        let (answer, cx) = call_by(&upstream, &options, request(&Method::GET, "/", Body::Empty)).await;
        let rejection = Rejection::from(answer.unwrap_err());
        assert_eq!((cx.trail.timer, cx.trail.attempts), (Some(timer), 3), "{timeout}");
        assert_eq!(rejection.detail.unwrap(), format!("the {timer} timer (250ms) fired"));
    }
    // And where all attempts are used up, the 504 names the timer of the last.
    let upstream = to(&silent, "");
    let options = options_of(&upstream, r#"{"attempts": 1, "per_try": "80ms"}"#);
    let (answer, cx) = call_by(&upstream, &options, request(&Method::GET, "/", Body::Empty)).await;
    assert_eq!(Rejection::from(answer.unwrap_err()).detail.unwrap(), "the per_try timer (80ms) fired");
    assert_eq!((cx.trail.timer, cx.trail.attempts), (Some(Timer::PerTry), 2));
}

#[tokio::test]
async fn a_stream_is_sent_again_as_far_as_it_is_held_and_the_rest_follows() {
    let (told, mut heard) = tokio::sync::mpsc::channel(64);
    let service = Service::new(move |mut peer, number| {
        let told = told.clone();
        async move {
            if number == 0 {
                // Reads the head and the beginning of the body, and is gone.
                peer.head().await;
                peer.bytes(3).await;
                return;
            }
            let (_, body) = peer.request().await.unwrap();
            told.try_send(String::from_utf8(body).unwrap()).unwrap();
            peer.write(OK).await;
        }
    })
    .await;
    let upstream = to(&service, "");
    let options = options(&upstream, r#"{"methods": "any", "max_body": "16B"}"#, "null");
    let (sender, body) = sized_body(6);
    sender.send(data("abc")).await.unwrap();
    let rest = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        sender.send(data("def")).await.unwrap();
        sender
    });
    let (answer, cx) = call_by(&upstream, &options, request(&Method::POST, "/", body)).await;
    answer.unwrap();
    assert_eq!((heard.recv().await.unwrap().as_str(), cx.trail.attempts), ("abcdef", 2));
    drop(rest.await);
}

#[tokio::test]
async fn a_body_that_is_longer_than_what_is_held_is_sent_once_and_the_log_says_why() {
    let service = Service::saying(BUSY).await;
    let upstream = to(&service, "");
    let options = options(&upstream, r#"{"methods": "any", "max_body": "4B"}"#, "null");
    let (sender, body) = channel_body();
    for _ in 0..3 {
        sender.send(data("abc")).await.unwrap();
    }
    drop(sender);
    let (answer, cx) = call_by(&upstream, &options, request(&Method::POST, "/", body)).await;
    assert_eq!(whole(answer.unwrap()).await.0, "own");
    assert_eq!((cx.trail.attempts, cx.trail.retry_refused), (1, Some(Retried::BodyGone)));
}

#[tokio::test]
async fn a_client_that_leaves_while_a_retry_is_waited_for_ends_all_of_it() {
    let service = Service::saying(b"HTTP/1.1 503 Busy\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n").await;
    let upstream = to(&service, "");
    let options = options(&upstream, "2", "null");
    let call = call_by(&upstream, &options, request(&Method::GET, "/", Body::Empty));
    assert!(tokio::time::timeout(Duration::from_millis(200), call).await.is_err(), "it waits");
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let view = upstream.view();
    assert_eq!((view.endpoints[0].attempts, view.endpoints[0].in_flight), (1, 0));
}

#[tokio::test]
async fn a_call_of_grpc_that_is_refused_in_its_head_is_made_again_where_that_is_allowed() {
    // The words of gRPC are told apart from its wire here: over HTTP/1.1, which no service speaks it by.
    let service = Service::new(|mut peer, _| async move {
        peer.request().await;
        peer.write(b"HTTP/1.1 200 OK\r\ngrpc-status: 14\r\ncontent-length: 0\r\n\r\n").await;
        peer.request().await;
        peer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    })
    .await;
    for (methods, attempts) in [("any", 2), ("idempotent", 1)] {
        let upstream = to(&service, "");
        let options = options(&upstream, &format!(r#"{{"methods": "{methods}"}}"#), "null");
        let request = request(&Method::POST, "/", "call");
        let mut cx = super::fixture::exchange(&Method::POST, "/");
        cx.grpc = true;
        upstream.call(request, &mut cx, &options).await.unwrap();
        assert_eq!(cx.trail.attempts, attempts);
        let causes = if attempts == 2 { vec![Cause::Grpc("unavailable")] } else { Vec::new() };
        assert_eq!(cx.trail.retries, causes);
    }
}

#[tokio::test]
async fn garbage_is_followed_by_a_retry_where_it_is_named_and_nowhere_else() {
    let executed = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&executed);
    let service = Service::new(move |mut peer, _| {
        let executed = Arc::clone(&counted);
        async move {
            while peer.request().await.is_some() {
                let first = executed.fetch_add(1, SeqCst) == 0;
                peer.write(if first { b"HTTP/1.1 maybe\r\n\r\n" } else { OK }).await;
            }
        }
    })
    .await;
    let upstream = to(&service, "");
    let named = options(&upstream, r#"{"on": ["protocol"]}"#, "null");
    let (answer, cx) = call_by(&upstream, &named, request(&Method::GET, "/", Body::Empty)).await;
    assert_eq!((answer.unwrap().status().as_u16(), &cx.trail.retries[..]), (200, &[Cause::Protocol][..]));
    executed.store(0, SeqCst);
    let usual = options(&upstream, "2", "null");
    let (answer, cx) = call_by(&upstream, &usual, request(&Method::GET, "/", Body::Empty)).await;
    assert!(answer.is_err() && cx.trail.retries.is_empty() && executed.load(SeqCst) == 1);
}
