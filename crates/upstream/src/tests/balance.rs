//! Which endpoint a call goes to: tiers and their way back, warming up, reports of load, cookies.

use std::time::Duration;

use http::Method;
use http::header::SET_COOKIE;
use pylon_core::body::Body;
use pylon_core::carry::Carry;

use super::fixture::{Service, call, carried, get, request, upstream, whole};
use crate::breaker::word::Force;
use crate::standing::Bar;
use crate::upstream::Upstream;

/// A service that says its name, with further fields.
async fn saying(name: &str, fields: &str) -> Service {
    Service::saying(format!("HTTP/1.1 200 OK\r\n{fields}content-length: {}\r\n\r\n{name}", name.len())).await
}

async fn met(upstream: &Upstream) -> String {
    let (answer, _) = get(upstream, "/").await;
    String::from_utf8(whole(answer.unwrap()).await.0.to_vec()).unwrap()
}

/// How many of so many requests met that service.
async fn count(upstream: &Upstream, name: &str, of: usize) -> usize {
    let mut count = 0;
    for _ in 0..of {
        count += usize::from(met(upstream).await == name);
    }
    count
}

#[tokio::test]
async fn the_second_priority_stands_in_at_once_and_the_first_comes_back_when_it_has_stayed() {
    let (first, second) = (saying("first", "").await, saying("second", "").await);
    let upstream = upstream(&format!(
        r#"{{"endpoints": ["{}", {{"url": "{}", "priority": 1}}], "balance": {{"return_after": "300ms"}}, "breaker": true}}"#,
        first.url(),
        second.url()
    ));
    assert_eq!(count(&upstream, "first", 10).await, 10);
    upstream.bar(&first.addr.to_string(), Bar::Unhealthy, true);
    assert_eq!(count(&upstream, "second", 10).await, 10);
    let back = tokio::time::Instant::now();
    upstream.bar(&first.addr.to_string(), Bar::Unhealthy, false);
    while met(&upstream).await == "second" {
        tokio::task::yield_now().await;
    }
    assert!(back.elapsed() >= Duration::from_millis(300));
    assert_eq!(count(&upstream, "first", 10).await, 10);
    let order = |service: &Service, force| upstream.force(force, Some(&service.addr.to_string()), None).unwrap();
    order(&first, Force::Open);
    order(&second, Force::Open);
    assert!(get(&upstream, "/").await.0.is_err(), "a breaker is not doubted, however few are left");
    order(&first, Force::Auto);
    assert_eq!(met(&upstream).await, "first", "whom nobody trusts yet is better than nobody");
}

#[tokio::test]
async fn the_next_tier_takes_what_the_first_cannot_carry_and_a_dead_tier_is_no_reason_for_panic() {
    let (near, far) = (saying("near", "").await, saying("far", "").await);
    let (other, third) = (saying("near", "").await, saying("near", "").await);
    let upstream = upstream(&format!(
        r#"{{"endpoints": [{{"url": "{}", "zone": "here"}}, {{"url": "{}", "zone": "here"}}, {{"url": "{}", "zone": "here"}}, {{"url": "{}", "zone": "there"}}]}}"#,
        near.url(),
        other.url(),
        third.url(),
        far.url()
    ));
    assert_eq!(count(&upstream, "near", 20).await, 20);
    upstream.bar(&near.addr.to_string(), Bar::Unhealthy, true);
    upstream.bar(&other.addr.to_string(), Bar::Unhealthy, true);
    // A third is left, which carries 46 %.
    let near_by = count(&upstream, "near", 200).await;
    assert!((60..125).contains(&near_by), "{near_by} of 200 stayed near");
    assert_eq!(upstream.view().tiers.iter().map(|tier| tier.requests).collect::<Vec<_>>(), [46, 54]);
    upstream.bar(&third.addr.to_string(), Bar::Unhealthy, true);
    assert_eq!(count(&upstream, "far", 20).await, 20);
}

#[tokio::test]
async fn an_attempt_after_a_failed_one_goes_to_another_tier_where_its_own_has_nobody_else() {
    let (gone, second) = (saying("first", "").await, saying("second", "").await);
    let address = gone.url();
    let upstream =
        upstream(&format!(r#"{{"endpoints": ["{address}", {{"url": "{}", "priority": 7}}]}}"#, second.url()));
    drop(gone);
    let (answer, cx) = get(&upstream, "/").await;
    assert_eq!(whole(answer.unwrap()).await.0, "second");
    assert_eq!(cx.trail.attempts, 2);
}

#[tokio::test]
async fn an_endpoint_that_comes_back_gets_its_share_by_and_by() {
    let (one, other) = (saying("one", "").await, saying("other", "").await);
    let third = saying("third", "").await;
    let upstream = upstream(&format!(
        r#"{{"endpoints": ["{}", "{}", "{}"], "balance": {{"slow_start": "2s"}}}}"#,
        one.url(),
        other.url(),
        third.url()
    ));
    assert_eq!(count(&upstream, "one", 30).await, 10, "nobody warms up at the beginning");
    upstream.bar(&one.addr.to_string(), Bar::Unhealthy, true);
    assert_eq!(count(&upstream, "one", 10).await, 0);
    upstream.bar(&one.addr.to_string(), Bar::Unhealthy, false);
    let begun = tokio::time::Instant::now();
    let warm = count(&upstream, "one", 60).await;
    if begun.elapsed() < Duration::from_millis(600) {
        assert!((1..12).contains(&warm), "{warm} of 60 while it was cold");
    }
    while begun.elapsed() < Duration::from_millis(2_100) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(count(&upstream, "one", 30).await, 10);
}

#[tokio::test]
async fn reports_of_load_become_weights_and_the_client_does_not_see_them() {
    let idle = "endpoint-load-metrics: TEXT rps_fractional=100,application_utilization=0.25\r\n";
    let busy = "endpoint-load-metrics: JSON {\"rps_fractional\": 100, \"cpu_utilization\": 1.0}\r\n";
    let (idle, busy) = (saying("idle", idle).await, saying("busy", busy).await);
    let upstream = upstream(&format!(
        r#"{{"endpoints": ["{}", "{}"], "balance": {{"orca": {{"blackout": "1ms"}}}}}}"#,
        idle.url(),
        busy.url()
    ));
    let (answer, _) = get(&upstream, "/").await;
    assert!(answer.unwrap().headers().get("endpoint-load-metrics").is_none());
    get(&upstream, "/").await.0.unwrap();
    let weights = || upstream.view().endpoints.iter().map(|one| one.effective_weight).collect::<Vec<_>>();
    while weights() != [1.0, 0.25] {
        get(&upstream, "/").await.0.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let idle = count(&upstream, "idle", 50).await;
    assert!((39..=41).contains(&idle), "{idle} of 50 went to the one with four times the room");
}

#[tokio::test]
async fn a_cookie_keeps_a_client_at_its_endpoint_until_that_is_barred() {
    let (one, other) = (saying("one", "").await, saying("other", "").await);
    let document = format!(
        r#"{{"endpoints": ["{}", "{}"], "balance": {{"sticky": {{"cookie": "at", "ttl": "1h"}}}}}}"#,
        one.url(),
        other.url()
    );
    let carry = Carry::default();
    let upstream = carried(&document, &["127.0.0.1:9".parse().unwrap()], &carry);
    let with = |cookie: &str| {
        let mut request = request(&Method::GET, "/", Body::Empty);
        request.headers_mut().insert("cookie", cookie.parse().unwrap());
        request
    };
    let (answer, _) = get(&upstream, "/").await;
    let answer = answer.unwrap();
    let given = answer.headers()[SET_COOKIE].to_str().unwrap().to_owned();
    assert!(given.ends_with("; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax"), "{given}");
    let cookie = given.split(';').next().unwrap().to_owned();
    let was = whole(answer).await.0;
    for _ in 0..6 {
        let (answer, _) = call(&upstream, with(&cookie)).await;
        let answer = answer.unwrap();
        assert!(answer.headers().get(SET_COOKIE).is_none());
        assert_eq!(whole(answer).await.0, was);
    }
    let at = if was == "one" { &one } else { &other };
    upstream.bar(&at.addr.to_string(), Bar::Unhealthy, true);
    let (answer, _) = call(&upstream, with(&cookie)).await;
    let answer = answer.unwrap();
    let next = answer.headers()[SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
    let now = whole(answer).await.0;
    assert!(next != cookie && now != was);
    upstream.bar(&at.addr.to_string(), Bar::Unhealthy, false);
    let (answer, _) = call(&upstream, with(&next)).await;
    assert_eq!(whole(answer.unwrap()).await.0, now, "the new cookie counts from then on");
    // Another upstream of that name draws no other key, as long as this one lives.
    let after = carried(&document.replace("1h", "2h"), &["127.0.0.1:9".parse().unwrap()], &carry);
    let (answer, _) = call(&after, with(&next)).await;
    assert_eq!(whole(answer.unwrap()).await.0, now, "nor is a reload a reason to go elsewhere");
    // A cookie that somebody made up is worth nothing, and is replaced.
    let (answer, _) = call(&upstream, with("at=00000000000000000000000000000001")).await;
    assert!(answer.unwrap().headers().get(SET_COOKIE).is_some());
}

/// A service that says how busy it is when it is asked, and else its name.
async fn probed(name: &'static str, rif: u32, latency: u32) -> Service {
    Service::new(move |mut peer, _| async move {
        while let Some((head, _)) = peer.request().await {
            let load = || format!(r#"{{"rif": {rif}, "latency_ms": {latency}}}"#);
            let text = if head.starts_with("GET /load ") { load() } else { name.to_owned() };
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
            if !peer.write(answer.as_bytes()).await {
                return;
            }
        }
    })
    .await
}

#[tokio::test]
async fn who_answers_to_probes_that_it_is_busy_is_left_alone() {
    let (idle, busy, third) = (probed("idle", 0, 5).await, probed("busy", 90, 80).await, probed("idle", 1, 5).await);
    let upstream = upstream(&format!(
        r#"{{"endpoints": ["{}", "{}", "{}"], "balance": {{"method": "prequal", "probe": {{"path": "/load"}}}}}}"#,
        busy.url(),
        idle.url(),
        third.url()
    ));
    // Until answers are there, lots are drawn.
    let (mut busy, mut run) = (0, 0);
    for _ in 0..400 {
        if met(&upstream).await == "busy" {
            (busy, run) = (busy + 1, 0);
        } else {
            run += 1;
        }
        if run == 40 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(run, 40, "the busy one had {busy}");
}
