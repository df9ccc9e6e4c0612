//! FAILURES 29: endpoints that do worse than they should are left out by how requests fare there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use pylon_core::carry::Carry;

use super::fixture::{Service, carried, get, upstream};
use crate::outliers::judge::Why;
use crate::upstream::Upstream;

/// A service that fails while its switch is on, and takes its time.
struct Faulty {
    service: Service,
    fails: Arc<AtomicBool>,
    requests: Arc<AtomicUsize>,
}

impl Faulty {
    async fn new(takes: Duration) -> Self {
        let (fails, requests) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (failing, counted) = (Arc::clone(&fails), Arc::clone(&requests));
        let service = Service::new(move |mut peer, _| {
            let (fails, requests) = (Arc::clone(&failing), Arc::clone(&counted));
            async move {
                while peer.request().await.is_some() {
                    requests.fetch_add(1, SeqCst);
                    if !takes.is_zero() {
                        tokio::time::sleep(takes).await;
                    }
                    let status = if fails.load(SeqCst) { "500 Broken" } else { "200 OK" };
                    peer.write(format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nok").as_bytes()).await;
                }
            }
        })
        .await;
        Self { service, fails, requests }
    }

    fn fails(&self, whether: bool) {
        self.fails.store(whether, SeqCst);
    }

    fn requests(&self) -> usize {
        self.requests.load(SeqCst)
    }
}

async fn three() -> [Faulty; 3] {
    [Faulty::new(Duration::ZERO).await, Faulty::new(Duration::ZERO).await, Faulty::new(Duration::ZERO).await]
}

fn document(services: &[Faulty], outliers: &str) -> String {
    let urls: Vec<_> = services.iter().map(|one| format!("\"{}\"", one.service.url())).collect();
    format!(r#"{{"endpoints": [{}], "outliers": {outliers}}}"#, urls.join(", "))
}

/// Sends so many requests, and says how many failed.
async fn send(upstream: &Upstream, count: usize) -> usize {
    let mut failed = 0;
    for _ in 0..count {
        failed += usize::from(!matches!(get(upstream, "/").await.0, Ok(answer) if answer.status() == 200));
    }
    failed
}

fn ejected(upstream: &Upstream) -> Vec<bool> {
    upstream.view().endpoints.iter().map(|one| one.barred.contains(&"ejected")).collect()
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("not within 20 s: {what}"));
}

/// Lets the task that judges see the endpoints.
async fn known(upstream: &Upstream) {
    let all = || upstream.view().endpoints.iter().all(|one| one.ejection.is_some());
    until("the endpoints are known", all).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
}

#[tokio::test]
async fn the_one_of_three_that_fails_is_out_after_five_failures_in_a_row() {
    let services = three().await;
    let upstream = upstream(&document(&services, r#""on""#));
    known(&upstream).await;
    services[0].fails(true);
    assert_eq!(send(&upstream, 15).await, 5, "each of three had five");
    assert_eq!(ejected(&upstream), [true, false, false]);
    let before = services[0].requests();
    assert_eq!((send(&upstream, 50).await, services[0].requests()), (0, before));
    let view = upstream.view();
    let ejection = view.endpoints[0].ejection.as_ref().unwrap();
    assert_eq!((ejection.because, ejection.times), (Some(Why::Failures), 1));
    assert!((20..=30).contains(&ejection.for_seconds.unwrap()) && !view.panic);
}

#[tokio::test]
async fn one_that_cannot_be_connected_to_costs_no_request_and_is_out_soon() {
    let services = three().await;
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let upstream = upstream(&document(&services, r#""on""#).replacen('[', &format!(r#"["http://{nobody}", "#), 1));
    known(&upstream).await;
    assert_eq!(send(&upstream, 40).await, 0, "the next attempt goes elsewhere");
    assert_eq!(ejected(&upstream), [true, false, false, false]);
    let attempts = || upstream.view().endpoints[0].attempts;
    assert_eq!(attempts(), 5);
    assert_eq!((send(&upstream, 40).await, attempts()), (0, 5));
}

#[tokio::test]
async fn who_comes_back_gets_requests_again_and_is_out_for_longer_the_next_time() {
    let services = three().await;
    let upstream = upstream(&document(&services, r#"{"eject": "1s"}"#));
    known(&upstream).await;
    services[0].fails(true);
    send(&upstream, 15).await;
    assert_eq!(ejected(&upstream), [true, false, false]);
    until("it is back", || ejected(&upstream) == [false; 3]).await;
    assert_eq!(send(&upstream, 15).await, 5, "it has five again");
    let ejection = upstream.view().endpoints[0].ejection.clone().unwrap();
    assert_eq!(ejection.times, 2);
    services[0].fails(false);
    until("it is back", || ejected(&upstream) == [false; 3]).await;
    assert_eq!(send(&upstream, 30).await, 0);
}

#[tokio::test]
async fn a_lone_endpoint_is_never_out_and_of_two_one_stays() {
    let services = three().await;
    for one in &services {
        one.fails(true);
    }
    let lone = upstream(&document(&services[..1], r#""on""#));
    known(&lone).await;
    assert_eq!((send(&lone, 20).await, ejected(&lone)), (20, vec![false]));
    let two = upstream(&document(&services[..2], r#""on""#));
    known(&two).await;
    send(&two, 40).await;
    assert_eq!(ejected(&two).iter().filter(|out| **out).count(), 1);
}

#[tokio::test]
async fn where_all_may_be_out_and_are_all_are_used() {
    let services = three().await;
    for one in &services {
        one.fails(true);
    }
    let upstream = upstream(&document(&services, r#"{"at_most": "100%"}"#));
    known(&upstream).await;
    send(&upstream, 30).await;
    assert_eq!((ejected(&upstream), upstream.view().panic), (vec![true; 3], true));
    for one in &services {
        one.fails(false);
    }
    let before: Vec<_> = services.iter().map(Faulty::requests).collect();
    assert_eq!(send(&upstream, 9).await, 0);
    let after: Vec<_> = services.iter().zip(before).map(|(one, before)| one.requests() - before).collect();
    assert_eq!(after, [3; 3]);
}

#[tokio::test]
async fn failures_between_successes_count_by_their_share() {
    let services = three().await;
    let upstream = upstream(&document(&services, r#"{"requests": 8, "errors": "50%", "window": "5s"}"#));
    known(&upstream).await;
    for round in 0..10 {
        services[0].fails(round % 2 == 0);
        send(&upstream, 3).await;
    }
    until("the second is over", || ejected(&upstream) == [true, false, false]).await;
    assert_eq!(upstream.view().endpoints[0].ejection.as_ref().unwrap().because, Some(Why::Errors));
}

#[tokio::test]
async fn one_that_takes_much_longer_than_the_others_is_out() {
    let services = [
        Faulty::new(Duration::from_millis(1)).await,
        Faulty::new(Duration::from_millis(300)).await,
        Faulty::new(Duration::from_millis(1)).await,
    ];
    let upstream = upstream(&document(&services, r#"{"requests": 5, "slow": 3, "window": "20s"}"#));
    known(&upstream).await;
    send(&upstream, 18).await;
    until("the second is over", || ejected(&upstream) == [false, true, false]).await;
    assert_eq!(upstream.view().endpoints[1].ejection.as_ref().unwrap().because, Some(Why::Slow));
}

#[tokio::test]
async fn what_was_found_outlives_a_document_and_one_that_is_tried_judges_for_itself() {
    let services = three().await;
    let carry = Carry::default();
    let written = document(&services, r#""on""#);
    let before = carried(&written, &[], &carry);
    known(&before).await;
    services[0].fails(true);
    send(&before, 15).await;
    let after = carried(&written.replacen('{', r#"{"timeout": "9s", "#, 1), &[], &carry);
    assert_eq!(ejected(&after), [true, false, false]);
    assert_eq!(send(&after, 30).await, 0);
    let tried = carried(&written, &[], &carry.fork());
    assert_eq!(ejected(&tried), [false; 3]);
    // Where nothing is ejected any more, nobody is out.
    let plain = written.replace(r#", "outliers": "on""#, "");
    let plain = carried(&plain, &[], &carry);
    assert_eq!(ejected(&plain), [false; 3]);
}
