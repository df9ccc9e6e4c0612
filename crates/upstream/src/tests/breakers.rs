//! FAILURE 29: one bad endpoint of three is isolated; what opens a breaker, what does not, and how it comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use http::Method;
use pylon_core::Response;
use pylon_core::body::Body;
use pylon_core::carry::Carry;
use pylon_core::exchange::Exchange;
use pylon_core::rejection::{Rejection, UPSTREAM_CONNECT, UPSTREAM_OPEN, UPSTREAM_RESET};
use tokio::sync::Semaphore;

use super::fixture::{Service, call, carried, exchange, get, request, to, upstream, whole};
use crate::breaker::scopes::NoBreaker;
use crate::breaker::spec::BreakerSpec;
use crate::breaker::word::Force;
use crate::call::CallOptions;
use crate::error::{CallError, Fault};
use crate::upstream::{OfRoute, Upstream};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const BAD: &str = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 3\r\n\r\nbad";

/// A service that answers well or badly, as it is told, and counts.
struct Moody {
    service: Service,
    well: Arc<AtomicBool>,
    seen: Arc<AtomicUsize>,
}

impl Moody {
    async fn new(well: bool) -> Self {
        let (well, seen) = (Arc::new(AtomicBool::new(well)), Arc::new(AtomicUsize::new(0)));
        let (mood, counter) = (Arc::clone(&well), Arc::clone(&seen));
        let service = Service::new(move |mut peer, _| {
            let (mood, counter) = (Arc::clone(&mood), Arc::clone(&counter));
            async move {
                while peer.request().await.is_some() {
                    counter.fetch_add(1, SeqCst);
                    let answer = if mood.load(SeqCst) { OK } else { BAD };
                    if !peer.write(answer.as_bytes()).await {
                        break;
                    }
                }
            }
        })
        .await;
        Self { service, well, seen }
    }

    fn seen(&self) -> usize {
        self.seen.load(SeqCst)
    }
}

fn over(services: &[&Service], breaker: &str) -> Arc<Upstream> {
    let urls: Vec<_> = services.iter().map(|service| format!("\"{}\"", service.url())).collect();
    upstream(&format!(r#"{{"endpoints": [{}], "breaker": {breaker}}}"#, urls.join(",")))
}

fn status(answer: Result<Response, CallError>) -> u16 {
    answer.map_or_else(|error| Rejection::from(error).reason.status, |answer| answer.status().as_u16())
}

/// The reason of a refusal, and the seconds after which to ask again.
fn refusal(answer: Result<Response, CallError>) -> (&'static str, Option<u64>) {
    let rejection = Rejection::from(answer.unwrap_err());
    let after = rejection.headers.iter().find(|(name, _)| name == "retry-after");
    (rejection.reason.code, after.map(|(_, value)| value.to_str().unwrap().parse().unwrap()))
}

#[tokio::test]
async fn one_bad_endpoint_of_three_is_isolated_and_the_others_answer_all() {
    let (bad, good, better) = (Moody::new(false).await, Moody::new(true).await, Moody::new(true).await);
    let upstream = over(&[&bad.service, &good.service, &better.service], r#"{"min_requests": 5, "open": "1h"}"#);
    let mut failed = 0;
    for _ in 0..15 {
        failed += usize::from(status(get(&upstream, "/").await.0) == 500);
    }
    assert_eq!((failed, bad.seen()), (5, 5), "it opens with the fifth failure");
    for _ in 0..60 {
        assert_eq!(status(get(&upstream, "/").await.0), 200);
    }
    assert_eq!((bad.seen(), good.seen(), better.seen()), (5, 35, 35), "and is left alone, while the others share");
    let view = upstream.view();
    let states: Vec<_> = view.endpoints.iter().map(|one| one.breaker.as_ref().unwrap().state).collect();
    assert_eq!(states, ["open", "closed", "closed"]);
    assert_eq!(view.endpoints[0].barred, ["breaker_open"]);
}

#[tokio::test]
async fn when_all_are_open_the_client_is_told_when_to_come_back_and_the_service_sees_nothing() {
    let bad = Moody::new(false).await;
    let upstream = over(&[&bad.service], r#"{"consecutive": 3, "open": "20s"}"#);
    for _ in 0..3 {
        assert_eq!(status(get(&upstream, "/").await.0), 500);
    }
    let (answer, cx) = get(&upstream, "/").await;
    assert_eq!(cx.trail.upstream.as_deref(), Some("users"), "for the log");
    let (code, after) = refusal(answer);
    assert!(code == "upstream.open" && (17..=22).contains(&after.unwrap()), "{code} {after:?}");
    assert_eq!((bad.seen(), cx.trail.attempts), (3, 0));
    assert_eq!(upstream.view().endpoints[0].breaker.as_ref().unwrap().why.as_deref(), Some("3 calls failed in a row"));
}

#[tokio::test]
async fn a_probe_that_goes_well_closes_it_and_one_that_does_not_doubles_the_wait() {
    let moody = Moody::new(false).await;
    let upstream = over(&[&moody.service], r#"{"consecutive": 2, "open": "50ms", "open_max": "10m"}"#);
    get(&upstream, "/").await.0.unwrap();
    // From before the call that opens it until behind the one that is let through: a busy machine makes that longer, never shorter.
    let mut opened = tokio::time::Instant::now();
    get(&upstream, "/").await.0.unwrap();
    let mut waits = Vec::new();
    while waits.len() < 4 {
        let asked = tokio::time::Instant::now();
        let (answer, _) = get(&upstream, "/").await;
        if answer.is_ok() {
            waits.push(opened.elapsed());
            opened = asked;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    for (wait, least) in waits.iter().zip([45, 90, 180, 360]) {
        assert!(*wait >= Duration::from_millis(least), "{waits:?}");
    }
    assert_eq!(moody.seen(), 6, "each probe is one request");
    moody.well.store(true, SeqCst);
    while status(get(&upstream, "/").await.0) != 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for _ in 0..20 {
        assert_eq!(status(get(&upstream, "/").await.0), 200);
    }
}

#[tokio::test]
async fn half_open_lets_through_no_more_at_once_than_it_may_and_a_client_that_leaves_gives_its_probe_back() {
    let (gate, seen, broken) =
        (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(true)));
    let (held, counter, bad) = (Arc::clone(&gate), Arc::clone(&seen), Arc::clone(&broken));
    let service = Service::new(move |mut peer, _| {
        let (held, counter, bad) = (Arc::clone(&held), Arc::clone(&counter), Arc::clone(&bad));
        async move {
            while peer.request().await.is_some() {
                if bad.load(SeqCst) {
                    peer.write(BAD.as_bytes()).await;
                    continue;
                }
                counter.fetch_add(1, SeqCst);
                held.acquire().await.unwrap().forget();
                peer.write(OK.as_bytes()).await;
            }
        }
    })
    .await;
    let upstream = Arc::new(over(&[&service], r#"{"consecutive": 2, "open": "10ms", "probes": 2}"#));
    for _ in 0..2 {
        get(&upstream, "/").await.0.unwrap();
    }
    broken.store(false, SeqCst);
    tokio::time::sleep(Duration::from_millis(15)).await;
    let ask = || {
        let upstream = Arc::clone(&upstream);
        tokio::spawn(async move { status(get(&upstream, "/").await.0) })
    };
    let calls: Vec<_> = (0..40).map(|_| ask()).collect();
    // All but two are over soon, for they wait for nothing.
    while calls.iter().filter(|call| call.is_finished()).count() < 38 {
        tokio::task::yield_now().await;
    }
    let mut waiting = Vec::new();
    for call in calls {
        if call.is_finished() {
            assert_eq!(call.await.unwrap(), 503);
        } else {
            waiting.push(call);
        }
    }
    while seen.load(SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    // One of the two clients goes away.
    let gone = waiting.pop().unwrap();
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    let third = ask();
    while seen.load(SeqCst) < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(status(get(&upstream, "/").await.0), 503, "two are under way again");
    gate.add_permits(3);
    assert_eq!((waiting.pop().unwrap().await.unwrap(), third.await.unwrap()), (200, 200));
    gate.add_permits(1);
    assert_eq!(status(get(&upstream, "/").await.0), 200, "both went well");
}

#[tokio::test]
async fn slow_calls_open_it_though_all_are_answered() {
    let service = Service::new(|mut peer, _| async move {
        while peer.request().await.is_some() {
            tokio::time::sleep(Duration::from_millis(40)).await;
            peer.write(OK.as_bytes()).await;
        }
    })
    .await;
    let upstream = over(&[&service], r#"{"slow": "20ms", "slow_ratio": "100%", "min_requests": 4, "open": "1h"}"#);
    for _ in 0..4 {
        assert_eq!(status(get(&upstream, "/").await.0), 200);
    }
    assert_eq!(refusal(get(&upstream, "/").await.0).0, UPSTREAM_OPEN.code);
    let why = upstream.view().endpoints[0].breaker.as_ref().unwrap().why.clone();
    assert_eq!(why.as_deref(), Some("4 of 4 calls were slow"));
}

/// A call that has to be over by then.
async fn within(upstream: &Upstream, deadline: Duration) -> Result<Response, CallError> {
    let mut cx: Box<Exchange> = exchange(&Method::GET, "/");
    cx.deadline = Some(cx.started + deadline);
    let options = upstream.options(&OfRoute::default(), CallOptions::default().max_head);
    upstream.call(request(&Method::GET, "/", Body::Empty), &mut cx, &options).await
}

#[tokio::test]
async fn a_timer_of_the_gateway_is_a_failure_and_the_clients_own_deadline_is_none() {
    let silent = Service::new(|mut peer, _| async move { while peer.request().await.is_some() {} }).await;
    let upstream = to(&silent, r#", "timeout": "30ms", "breaker": {"consecutive": 3, "open": "1h"}"#);
    for _ in 0..5 {
        let error = within(&upstream, Duration::from_millis(5)).await.unwrap_err();
        assert!(matches!(error.source, Fault::Timeout(..)), "{error}");
    }
    assert_eq!(upstream.view().endpoints[0].breaker.as_ref().unwrap().failed, 0);
    for _ in 0..3 {
        assert_eq!(status(get(&upstream, "/").await.0), 504);
    }
    assert_eq!(refusal(get(&upstream, "/").await.0).0, UPSTREAM_OPEN.code);
}

#[tokio::test]
async fn a_client_that_goes_away_counts_for_nothing() {
    let silent = Service::new(|mut peer, _| async move { while peer.request().await.is_some() {} }).await;
    let upstream = to(&silent, r#", "breaker": {"consecutive": 1, "open": "1h"}"#);
    for _ in 0..10 {
        let left = tokio::time::timeout(Duration::from_millis(5), get(&upstream, "/")).await;
        assert!(left.is_err());
    }
    let view = upstream.view();
    let breaker = view.endpoints[0].breaker.as_ref().unwrap();
    assert_eq!((breaker.state, breaker.calls), ("closed", 0));
}

#[tokio::test]
async fn an_answer_that_breaks_off_counts_though_its_head_was_well() {
    let closing = Service::new(|mut peer, _| async move {
        peer.request().await;
        peer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await;
    })
    .await;
    let upstream = over(&[&closing], r#"{"consecutive": 2, "open": "1h"}"#);
    for _ in 0..2 {
        let answer = get(&upstream, "/").await.0.unwrap();
        assert!(http_body_util::BodyExt::collect(answer.into_body()).await.is_err());
    }
    // The heads that went well in between break the row, but not the share.
    let breaker = upstream.view().endpoints[0].breaker.clone().unwrap();
    assert_eq!((breaker.calls, breaker.failed), (4, 2));
}

#[tokio::test]
async fn the_breaker_of_a_route_touches_no_other_route() {
    let moody = Moody::new(false).await;
    let carry = Carry::default();
    let document = format!(r#"{{"endpoints": ["{}"]}}"#, moody.service.url());
    let upstream = carried(&document, &["127.0.0.1:9".parse().unwrap()], &carry);
    let spec: BreakerSpec = serde_json::from_str(r#"{"consecutive": 2, "open": "1h"}"#).unwrap();
    let options = |route: &str, spec: Option<&BreakerSpec>| {
        let mut options = upstream.options(&OfRoute::default(), CallOptions::default().max_head);
        options.breaker = upstream.breaker_for(route, spec, None, &carry);
        options
    };
    let (one, other, none) = (options("one", Some(&spec)), options("other", Some(&spec)), options("none", None));
    assert!(none.breaker.is_none());
    let by = async |options: &CallOptions| {
        let mut cx = exchange(&Method::GET, "/");
        status(upstream.call(request(&Method::GET, "/", Body::Empty), &mut cx, options).await)
    };
    assert_eq!([by(&one).await, by(&one).await, by(&one).await], [500, 500, 503]);
    assert_eq!([by(&other).await, by(&none).await], [500, 500], "they ask the service as before");
    let view = upstream.view();
    let routes: Vec<_> = view.breakers.iter().map(|one| (one.route.as_deref().unwrap(), one.state)).collect();
    assert_eq!(routes, [("one", "open"), ("other", "closed")]);
    assert_eq!(upstream.force(Force::Auto, None, Some("one")), Ok(()));
    assert_eq!(by(&one).await, 500);
    assert_eq!(upstream.force(Force::Open, None, Some("none")), Err(NoBreaker::Route("none".to_owned())));
    assert_eq!(upstream.force(Force::Open, None, None), Err(NoBreaker::AtAll));
}

#[tokio::test]
async fn the_breaker_of_an_upstream_holds_back_from_all_its_endpoints_together() {
    let (bad, good) = (Moody::new(false).await, Moody::new(true).await);
    let both = [&bad.service, &good.service];
    let upstream = over(&both, r#"{"per": "upstream", "min_requests": 10, "open": "1h"}"#);
    let mut asked = 0;
    while status(get(&upstream, "/").await.0) != 503 {
        asked += 1;
        assert!(asked < 50, "half of the calls fail, and it does not open");
    }
    assert!((10..=12).contains(&asked), "{asked}");
    assert_eq!(upstream.view().breakers[0].state, "open");
    assert!(upstream.view().endpoints.iter().all(|one| one.barred.is_empty() && one.breaker.is_none()));
}

#[tokio::test]
async fn an_order_holds_until_the_next_one_and_over_a_change_of_the_document() {
    let service = Moody::new(true).await;
    let carry = Carry::default();
    let document = |errors: &str| {
        format!(
            r#"{{"endpoints": ["{}"], "breaker": {{"errors": "{errors}", "min_requests": 4, "open": "1h"}}}}"#,
            service.service.url()
        )
    };
    let servers = ["127.0.0.1:9".parse().unwrap()];
    let before = carried(&document("50%"), &servers, &carry);
    let endpoint = service.service.addr.to_string();
    assert_eq!(before.force(Force::Open, Some(&endpoint), None), Ok(()));
    assert_eq!(refusal(get(&before, "/").await.0), (UPSTREAM_OPEN.code, None), "until somebody says otherwise");
    let after = carried(&document("60%"), &servers, &carry);
    drop(before);
    assert_eq!(refusal(get(&after, "/").await.0).0, UPSTREAM_OPEN.code);
    assert!(after.view().endpoints[0].breaker.as_ref().unwrap().forced);
    // For the upstream as a whole, which stands above that.
    assert_eq!(after.force(Force::Closed, None, None), Ok(()));
    service.well.store(false, SeqCst);
    for _ in 0..20 {
        assert_eq!(status(get(&after, "/").await.0), 500);
    }
    assert_eq!(after.force(Force::Auto, Some(&endpoint), None), Ok(()));
    assert_eq!(after.force(Force::Auto, None, None), Ok(()));
    while status(get(&after, "/").await.0) != 503 {}
    let unknown = "10.0.0.9:1".to_owned();
    assert_eq!(after.force(Force::Open, Some(&unknown), None), Err(NoBreaker::Endpoint(unknown)));
    // Without a breaker nobody is held back, though the endpoint is known to the process as it was.
    let without = carried(&format!(r#"{{"endpoints": ["{}"]}}"#, service.service.url()), &servers, &carry);
    assert_eq!(status(get(&without, "/").await.0), 500);
}

#[tokio::test]
async fn what_an_attempt_came_to_is_told_and_not_that_nobody_is_left() {
    let mut gone = Vec::new();
    for _ in 0..2 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        gone.push(format!("\"http://{}\"", listener.local_addr().unwrap()));
    }
    let breaker = r#"{"per": "upstream", "consecutive": 1, "open": "1h"}"#;
    let upstream = upstream(&format!(r#"{{"endpoints": [{}], "breaker": {breaker}}}"#, gone.join(",")));
    let (answer, cx) = get(&upstream, "/").await;
    assert_eq!(Rejection::from(answer.unwrap_err()).reason, &UPSTREAM_CONNECT);
    assert_eq!(cx.trail.attempts, 1, "the other endpoint is held back, too");
    assert_eq!(refusal(get(&upstream, "/").await.0).0, UPSTREAM_OPEN.code);
}

#[tokio::test]
async fn a_connection_that_idled_and_was_closed_tells_nothing_against_the_service() {
    // Answers one request on each connection, and closes on the next without a word.
    let service = Service::new(|mut peer, _| async move {
        peer.request().await;
        peer.write(OK.as_bytes()).await;
        peer.request().await;
    })
    .await;
    let upstream = over(&[&service], r#"{"consecutive": 1, "open": "1h"}"#);
    for _ in 0..4 {
        assert_eq!(whole(get(&upstream, "/").await.0.unwrap()).await.0, "ok");
    }
    assert_eq!(upstream.view().endpoints[0].breaker.as_ref().unwrap().failed, 0);
    // What is not sent again is the client's loss, and counts.
    let (answer, _) = call(&upstream, request(&Method::POST, "/", Body::Empty)).await;
    assert_eq!(Rejection::from(answer.unwrap_err()).reason, &UPSTREAM_RESET);
    assert_eq!(refusal(get(&upstream, "/").await.0).0, UPSTREAM_OPEN.code);
}
