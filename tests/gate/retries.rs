//! Failures 16, 17, 33 and 40, end to end: what is sent again, how much of it, who is told, and what a client that leaves ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::time::Duration;

use pylon_testkit::answer::Answer;
use pylon_testkit::binary::Binary;
use pylon_testkit::client::request;
use pylon_testkit::command::pylon;
use pylon_testkit::http2::Http2;
use pylon_testkit::http2_service::Http2Service;
use pylon_testkit::upstream::{End, Upstream};
use pylon_testkit::wait::{ms, now, until};

/// A gateway before these services, whose route says more.
fn gate(services: &[&Upstream], of_upstream: &str, of_route: &str) -> Binary {
    let urls: Vec<_> = services.iter().map(|service| service.url()).collect();
    Binary::start(&format!(
        "workers: 1\nupstreams: {{ api: {{ endpoints: [{}], {of_upstream} }} }}\nroutes: [{{ match: \"/{{*rest}}\", forward: api, {of_route} }}]",
        urls.join(", ")
    ))
}

fn busy() -> Upstream {
    Upstream::http(|_| Answer::new(503).body("busy"))
}

#[test]
fn a_service_that_fails_always_gets_its_budget_and_no_more_whatever_the_number_of_workers() {
    let service = busy();
    let document = format!(
        "workers: 2\nupstreams: {{ api: {{ endpoints: [{}], retry_budget: {{ ratio: 20%, floor: 0/s }} }} }}\nroutes: [{{ match: \"/{{*rest}}\", forward: api, retry: {{ attempts: 3, backoff: {{ base: 1ms }} }} }}]",
        service.url()
    );
    let gate = Binary::start(&document);
    for _ in 0..100 {
        let answer = gate.get("/");
        assert_eq!((answer.status(), answer.text().as_str()), (503, "busy"));
    }
    let seen = service.requests();
    assert!((105..=120).contains(&seen), "{seen} requests for 100 of clients");
    let outcome = |outcome| {
        gate.metric(&format!("pylon_upstream_retries_total{{upstream=\"api\",outcome=\"{outcome}\"}}")).unwrap()
    };
    assert_eq!(outcome("granted") as usize, seen - 100);
    assert!(outcome("budget_exhausted") >= 80.0, "{}", outcome("budget_exhausted"));
}

#[test]
fn one_service_of_three_that_fails_is_noticed_by_nobody() {
    let (bad, one, other) = (busy(), Upstream::named("well"), Upstream::named("well"));
    let gate = gate(&[&bad, &one, &other], "", "retry: { attempts: 1, backoff: { base: 1ms } }");
    for number in 0..12 {
        let path = format!("/{number}");
        assert_eq!(gate.get(&path).text(), "well");
    }
    let tried = bad.requests();
    assert!(tried >= 3, "{tried}");
    let again: usize = (0..12).filter(|number| gate.logged(&format!("/{number}"))["retries"][0] == "503").count();
    assert_eq!(again, tried);
}

#[test]
fn a_small_order_is_sent_again_where_the_route_says_that_it_may() {
    let service = Upstream::script(|peer| {
        let first = peer.number == 0;
        while let Ok(request) = peer.request() {
            if first {
                return;
            }
            peer.answer(&Answer::text(&request.text()), "POST");
        }
    });
    let gate = gate(&[&service], "", "retry: { attempts: 1, methods: any }");
    let mut client = gate.connect();
    client.send(request("POST", "/order", &[("content-length", "7")], b"a chair"));
    let answer = client.response();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "a chair"));
    let line = gate.logged("/order");
    assert_eq!((line["attempts"].as_u64(), line["retries"][0].as_str()), (Some(2), Some("reset")), "{line}");
}

#[test]
fn a_call_of_grpc_that_is_told_unavailable_is_made_again_with_what_is_left_of_its_time() {
    let service = Http2Service::start(|call| async move {
        if call.number == 0 {
            call.answer(200, &[("grpc-status", "14"), ("content-type", "application/grpc")], b"", &[]).await;
        } else {
            call.answer(200, &[("content-type", "application/grpc")], b"", &[("grpc-status", "0")]).await;
        }
    });
    let gate = Binary::start(&format!(
        "upstreams: {{ api: {{ endpoints: [\"{}\"], protocol: http2 }} }}\nroutes: [{{ match: \"/{{*rest}}\", forward: api, retry: {{ on: unavailable, methods: any }} }}]",
        service.url()
    ));
    let fields = [("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", "5S")];
    let answer = Http2::connect(gate.address()).ask("POST", "http://api.test/shop.Orders/Get", &fields, b"").unwrap();
    assert_eq!((answer.status, answer.field("grpc-status")), (200, None));
    let line = gate.logged("/shop.Orders/Get");
    assert_eq!((line["grpc_status"].as_u64(), line["retries"][0].as_str()), (Some(0), Some("unavailable")), "{line}");
    let told = service.heads().last().unwrap().headers["grpc-timeout"].to_str().unwrap().to_owned();
    let micros: u64 = told.strip_suffix('u').expect("less than the client said").parse().unwrap();
    assert!(micros < 5_000_000, "{told}");
    assert_eq!(service.connections(), 1, "the answer that was turned down cost no connection");
}

#[test]
fn a_client_that_leaves_ends_both_attempts_of_a_hedge_and_is_counted_nowhere() {
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let (told, ended) = channel();
        let met = Arc::new(AtomicUsize::new(0));
        let silent = || {
            let (told, met) = (told.clone(), Arc::clone(&met));
            Upstream::script(move |peer| {
                if peer.head().is_ok() {
                    met.fetch_add(1, SeqCst);
                    let _ = told.send(peer.wait_for_end(ms(10_000)));
                }
            })
        };
        let (one, other) = (silent(), silent());
        let gate = gate(&[&one, &other], "", "hedge: { after: 30ms, at_most: 100% }, retry: 2");
        let mut client = gate.connect();
        client.send(request("GET", "/gone", &[], b""));
        // A connection alone is not the request: one that is aborted before its head was read tells nothing.
        until(ms(5000), "both services have the request", || met.load(SeqCst) == 2);
        let begun = now();
        client.abort();
        for _ in 0..2 {
            assert_ne!(ended.recv_timeout(ms(10_000)).unwrap(), End::Open);
        }
        best = best.min(begun.elapsed());
        let line = gate.logged("/gone");
        assert_eq!((line["status"].as_u64(), line["end"].as_str()), (Some(499), Some("client_gone")), "{line}");
        assert_eq!((&line["retries"], &line["hedge"]), (&serde_json::Value::Null, &serde_json::Value::Null), "{line}");
        let text = gate.admin("/metrics").text();
        assert!(!text.contains("pylon_upstream_requests_total{upstream=\"api\",status_class=\"none\"}"), "{text}");
        if best <= ms(100) {
            return;
        }
    }
    panic!("the services saw it only after {best:?}");
}

#[test]
fn the_loser_of_a_hedge_is_gone_at_once_and_the_winner_told_of() {
    let (told, ended) = channel();
    let slow = Upstream::script(move |peer| {
        while peer.head().is_ok() {
            let _ = told.send(peer.wait_for_end(ms(10_000)));
        }
    });
    let quick = Upstream::named("quick");
    let gate = gate(&[&slow, &quick], "", "hedge: { after: 50ms, at_most: 100% }");
    for path in ["/a", "/b"] {
        assert_eq!(gate.get(path).text(), "quick");
    }
    assert_ne!(ended.recv_timeout(ms(5000)).unwrap(), End::Open);
    let lines = ["/a", "/b"].map(|path| gate.logged(path));
    let won = lines.iter().filter(|line| line["hedge"] == "won" && line["attempts"] == 2).count();
    // Which worker a client meets is not for it to say, and each begins at another endpoint.
    let quick_first = lines.iter().filter(|line| line["attempts"] == 1).count();
    assert!(won >= 1 && won + quick_first == 2, "{lines:?}");
    assert_eq!(gate.metric("pylon_upstream_hedges_total{upstream=\"api\",outcome=\"won\"}"), Some(won as f64));
    let text = gate.admin("/metrics").text();
    assert!(!text.contains("pylon_upstream_requests_total{upstream=\"api\",status_class=\"none\"}"), "{text}");
}

#[test]
fn explain_says_what_holds_for_a_route_and_check_what_is_wrong_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let document = |route: &str| {
        let text = format!(
            "listeners: [{{ address: 127.0.0.1:0 }}]\nupstreams: {{ api: {{ endpoints: [http://10.0.0.1:80], retry: {{ on: [connect, 5xx] }} }} }}\nroutes:\n  - match: /\n    forward: api\n{route}"
        );
        std::fs::write(folder.path().join("pylon.yaml"), text).unwrap();
    };
    let explained = |route: &str| {
        document(route);
        let outcome = pylon(folder.path(), ["explain", "GET", "http://a/"].iter());
        let line = outcome.stdout.lines().find(|line| line.trim_start().starts_with("action")).map(str::to_owned);
        line.unwrap_or_else(|| panic!("{}{}", outcome.stdout, outcome.stderr)).trim().to_owned()
    };
    assert_eq!(
        explained("    hedge: p99\n"),
        "action  forward to api, up to 2 retries on connect, 5xx, hedged after p99, at most 5%"
    );
    assert_eq!(
        explained("    retry: { attempts: 1, on: 503, methods: any }\n"),
        "action  forward to api, up to 1 retry on 503, any method"
    );
    assert_eq!(explained("    retry: off\n"), "action  forward to api");
    document("    retry: { attempts: 9, on: unavailable }\n");
    let outcome = pylon(folder.path(), ["check", "pylon.yaml"].iter());
    assert_eq!(outcome.code, Some(2));
    for problem in ["9 attempts after the first are too many", "calls of gRPC are sent by POST"] {
        assert!(
            outcome.stderr.contains(problem) || outcome.stdout.contains(problem),
            "{}{}",
            outcome.stdout,
            outcome.stderr
        );
    }
}
