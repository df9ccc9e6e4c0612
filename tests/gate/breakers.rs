//! Circuit breakers of the real program (failure 29): what opens them, whom they spare, how they come back, and who may order
//! them about.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use pylon_testkit::answer::Answer;
use pylon_testkit::binary::Binary;
use pylon_testkit::client::ask;
use pylon_testkit::http2::Http2;
use pylon_testkit::http2_service::Http2Service;
use pylon_testkit::message::Message;
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{ms, now, pause, until};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);

/// A service that answers 500 while it is `ill`.
fn moody() -> (Upstream, Arc<AtomicBool>) {
    let ill = Arc::new(AtomicBool::new(true));
    let mood = Arc::clone(&ill);
    (Upstream::http(move |_| Answer::new(if mood.load(SeqCst) { 500 } else { 200 })), ill)
}

fn document(services: &[&Upstream], breaker: &str, more: &str) -> String {
    let urls: Vec<_> = services.iter().map(|service| format!("\"{}\"", service.url())).collect();
    format!(
        "upstreams:
  api: {{ endpoints: [{}], {breaker} }}
routes:
  - {{ match: \"/{{*rest}}\", forward: api }}
{more}",
        urls.join(", ")
    )
}

fn gate(services: &[&Upstream], breaker: &str) -> Binary {
    Binary::start(&document(services, breaker, ""))
}

fn order(gate: &Binary, body: &Value) -> Message {
    let fields = [("host", "localhost"), ("content-type", "application/json")];
    ask(gate.admin, "POST", "/api/upstreams/api/breaker", &fields, body.to_string().as_bytes())
}

/// What the admin API shows of the breakers of endpoints.
fn breakers(gate: &Binary) -> Vec<Value> {
    let upstreams = gate.admin("/api/upstreams").json();
    upstreams[0]["endpoints"].as_array().unwrap().iter().map(|one| one["breaker"].clone()).collect()
}

#[test]
fn one_bad_endpoint_of_three_is_isolated_while_the_others_answer_every_request() {
    let (bad, _ill) = moody();
    let (one, other) = (Upstream::named("one"), Upstream::named("other"));
    let gate = gate(&[&bad, &one, &other], "breaker: { errors: 50%, min_requests: 5, open: 1h, per: endpoint }");
    let mut failed = 0;
    let mut client = gate.connect();
    until(SOON, "the breaker opens", || {
        failed += usize::from(client.get("/x").status() == 500);
        breakers(&gate)[0]["state"] == "open"
    });
    assert_eq!((failed, bad.requests()), (5, 5), "it opens with the fifth failure, whoever of the workers saw them");
    let before = (one.requests(), other.requests());
    let workers: Vec<_> = (0..8)
        .map(|_| {
            let mut client = gate.connect();
            thread::spawn(move || (0..50).all(|_| client.get("/x").status() == 200))
        })
        .collect();
    assert!(workers.into_iter().all(|worker| worker.join().unwrap()), "others keep 100 % success");
    assert_eq!(bad.requests(), 5);
    let (of_one, of_other) = (one.requests() - before.0, other.requests() - before.1);
    assert!(of_one + of_other == 400 && of_one.abs_diff(of_other) < 100, "{of_one} and {of_other}");
    assert_eq!(gate.metric("pylon_breakers{upstream=\"api\",scope=\"endpoint\",state=\"open\"}"), Some(1.0));
    assert_eq!(gate.metric("pylon_breakers{upstream=\"api\",scope=\"endpoint\",state=\"closed\"}"), Some(2.0));
    assert_eq!(gate.stderr().matches("a breaker opened").count(), 1, "told once: {}", gate.stderr());
}

#[test]
fn an_open_breaker_refuses_at_once_with_retry_after_and_is_told_everywhere() {
    let (bad, _ill) = moody();
    let gate = gate(&[&bad], "breaker: { consecutive: 3, open: 20s }");
    let mut client = gate.connect();
    for _ in 0..3 {
        assert_eq!(client.get("/before").status(), 500);
    }
    let answer = client.get("/after");
    assert_eq!((answer.status(), answer.json()["code"].clone()), (503, json!("upstream.open")));
    let after: u64 = answer.field("retry-after").unwrap().parse().unwrap();
    assert!((15..=22).contains(&after), "{after}");
    assert_eq!(bad.requests(), 3);
    let line = gate.logged("/after");
    assert_eq!((line["reason"].as_str(), line["upstream"].as_str()), (Some("upstream.open"), Some("api")), "{line}");
    assert_eq!(gate.metric("pylon_breaker_held_back_total{upstream=\"api\",scope=\"endpoint\"}"), Some(1.0));
    assert_eq!(gate.metric("pylon_rejections_total{code=\"upstream.open\"}"), Some(1.0));
    let question = json!({ "method": "GET", "url": "/x" });
    let fields = [("host", "localhost"), ("content-type", "application/json")];
    let explained = ask(gate.admin, "POST", "/api/explain", &fields, question.to_string().as_bytes()).text();
    assert!(explained.contains("3 calls failed in a row"), "{explained}");
}

#[test]
fn it_closes_by_itself_once_a_probe_goes_well_and_waits_longer_each_time_until_then() {
    let (service, ill) = moody();
    let gate = gate(&[&service], "breaker: { consecutive: 2, open: 100ms, open_max: 10m }");
    let mut client = gate.connect();
    let mut probes = Vec::new();
    let mut last = now();
    until(SOON, "four probes", || {
        if client.get("/x").status() == 500 {
            probes.push(last.elapsed());
            last = now();
        }
        probes.len() == 2 + 4
    });
    for (wait, least) in probes.iter().skip(2).zip([85, 175, 355, 715]) {
        assert!(*wait >= ms(least), "{probes:?}");
    }
    ill.store(false, SeqCst);
    until(SOON, "it closes", || client.get("/x").status() == 200);
    assert!((0..50).all(|_| client.get("/x").status() == 200));
    assert_eq!(breakers(&gate)[0]["why"], "a probe went well");
}

#[test]
fn half_open_admits_a_bounded_number_however_many_come() {
    let ill = Arc::new(AtomicBool::new(true));
    let (begun, at_first_end) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (mood, counter, first) = (Arc::clone(&ill), Arc::clone(&begun), Arc::clone(&at_first_end));
    let service = Upstream::http(move |_| {
        if mood.load(SeqCst) {
            return Answer::new(500);
        }
        counter.fetch_add(1, SeqCst);
        pause(ms(1_500));
        let _later_ones_do_not_count = first.compare_exchange(0, counter.load(SeqCst), SeqCst, SeqCst);
        Answer::new(200)
    });
    let gate = gate(&[&service], "breaker: { consecutive: 2, open: 50ms, open_max: 50ms, probes: 3 }");
    let mut client = gate.connect();
    while client.get("/x").status() == 500 {}
    ill.store(false, SeqCst);
    pause(ms(80));
    let callers: Vec<_> = (0..24)
        .map(|_| {
            let mut client = gate.connect();
            thread::spawn(move || client.get("/x").status())
        })
        .collect();
    let answers: Vec<_> = callers.into_iter().map(|caller| caller.join().unwrap()).collect();
    let (passed, probes) = (answers.iter().filter(|status| **status == 200).count(), at_first_end.load(SeqCst));
    assert_eq!(passed, begun.load(SeqCst));
    // On a slow machine some may come when the probes have closed it: what counts is how many were under way before.
    assert!((1..=3).contains(&probes) && passed >= probes, "{probes} probes, {answers:?}");
    assert!(answers.iter().all(|status| [200, 503].contains(status)), "{answers:?}");
}

#[test]
fn slow_calls_open_it_and_a_timer_that_fires_does() {
    let slow = Upstream::http(|_| Answer::new(200).after(ms(60)));
    let gate = gate(&[&slow], "breaker: { slow: 30ms, slow_ratio: 100%, min_requests: 4, open: 1h }");
    let mut client = gate.connect();
    let answers: Vec<_> = (0..5).map(|_| client.get("/x").status()).collect();
    assert_eq!(answers, [200, 200, 200, 200, 503]);
    let hanging = Upstream::http(|_| Answer::new(200).after(ms(20_000)));
    let late = self::gate(&[&hanging], "timeout: 50ms, breaker: { consecutive: 3, open: 1h }");
    let mut client = late.connect();
    let answers: Vec<_> = (0..4).map(|_| client.get("/x").status()).collect();
    assert_eq!(answers, [504, 504, 504, 503]);
}

#[test]
fn an_order_of_the_admin_api_holds_over_reloads_and_until_it_is_taken_back() {
    let (service, ill) = moody();
    ill.store(false, SeqCst);
    let gate = gate(&[&service], "breaker: { errors: 50% }");
    assert_eq!(gate.get("/x").status(), 200);
    let answer = order(&gate, &json!({ "state": "open" }));
    assert_eq!((answer.status(), answer.json()["breakers"][0]["forced"].clone()), (200, json!(true)));
    let refused = gate.get("/x");
    assert_eq!((refused.status(), refused.field("retry-after")), (503, None), "nobody knows how long");
    gate.apply(&document(&[&service], "breaker: { errors: 60% }, timeout: 7s", ""));
    assert_eq!(gate.get("/x").status(), 503);
    assert_eq!(order(&gate, &json!({ "state": "closed" })).status(), 200);
    ill.store(true, SeqCst);
    assert!((0..50).all(|_| gate.get("/x").status() == 500), "held closed, whatever comes of it");
    assert_eq!(order(&gate, &json!({ "state": "auto" })).status(), 200);
    until(SOON, "it judges again", || gate.get("/x").status() == 503);
    // One endpoint by its name.
    let endpoint = service.address().to_string();
    assert_eq!(order(&gate, &json!({ "state": "closed", "endpoint": endpoint })).status(), 200);
    assert_eq!((gate.get("/x").status(), breakers(&gate)[0]["forced"].clone()), (500, json!(true)));
    for (body, status) in [
        (json!({ "state": "ajar" }), 422),
        (json!({ "state": "open", "endpoint": "10.9.9.9:1" }), 404),
        (json!({ "state": "open", "route": "nowhere" }), 404),
        (json!({ "state": "open", "endpoint": endpoint, "route": "nowhere" }), 422),
    ] {
        assert_eq!(order(&gate, &body).status(), status, "{body}");
    }
    let page = [("host", "localhost"), ("content-type", "application/json"), ("origin", "http://evil.test")];
    let body = json!({ "state": "open" }).to_string();
    assert_eq!(ask(gate.admin, "POST", "/api/upstreams/api/breaker", &page, body.as_bytes()).status(), 403);
    assert_eq!(ask(gate.admin, "POST", "/api/upstreams/none/breaker", &page[..2], body.as_bytes()).status(), 404);
    gate.apply(&document(&[&service], "timeout: 7s", ""));
    assert_eq!(order(&gate, &json!({ "state": "open" })).status(), 409, "there is none any more");
    assert_eq!(gate.get("/x").status(), 500);
}

#[test]
fn a_reload_keeps_what_a_breaker_has_found_out() {
    let (service, _ill) = moody();
    let gate = gate(&[&service], "breaker: { consecutive: 2, open: 1h }");
    while gate.get("/x").status() == 500 {}
    assert_eq!(service.requests(), 2);
    gate.apply(&document(&[&service], "breaker: { consecutive: 9, open: 2h }, timeout: 7s", ""));
    assert_eq!((gate.get("/x").status(), service.requests()), (503, 2), "thresholds are no part of who it is");
    assert_eq!(breakers(&gate)[0]["opened"], 1);
    // Without one, what it found out does not hold any more; nor when it comes back.
    gate.apply(&document(&[&service], "timeout: 7s", ""));
    assert_eq!(gate.get("/x").status(), 500);
}

#[test]
fn the_breaker_of_a_route_leaves_other_routes_alone_and_a_fallback_takes_what_it_refuses() {
    let (service, _ill) = moody();
    let more = "  - { match: \"/guarded/{*rest}\", name: guarded, forward: api, breaker: { consecutive: 2, open: 1h } }
  - match: \"/soft/{*rest}\"
    name: soft
    forward: api
    breaker: { consecutive: 2, open: 1h }
    fallback: { on: open, respond: { json: { kind: stand-in } } }
";
    let gate = Binary::start(&document(&[&service], "timeout: 9s", more));
    let statuses = |path: &str| [0; 3].map(|_| gate.get(path).status());
    assert_eq!(statuses("/guarded/x"), [500, 500, 503]);
    assert_eq!(statuses("/free"), [500, 500, 500]);
    assert_eq!(statuses("/soft/x"), [500, 500, 200]);
    assert_eq!(gate.get("/soft/y").json(), json!({ "kind": "stand-in" }));
    let shown = gate.admin("/api/upstreams").json()[0]["breakers"].clone();
    let shown: Vec<_> = shown.as_array().unwrap().iter().map(|one| (&one["route"], &one["state"])).collect();
    assert_eq!(shown, [(&json!("guarded"), &json!("open")), (&json!("soft"), &json!("open"))]);
    assert_eq!(order(&gate, &json!({ "state": "auto", "route": "guarded" })).status(), 200);
    assert_eq!(gate.get("/guarded/x").status(), 500);
}

#[test]
fn calls_of_grpc_are_judged_by_their_status_wherever_it_stands_and_told_unavailable() {
    let service = Http2Service::start(|call| async move {
        match call.path() {
            "/late" => call.answer(200, &[], b"", &[("grpc-status", "14")]).await,
            "/early" => call.answer(200, &[("grpc-status", "13")], b"", &[]).await,
            "/mine" => call.answer(200, &[], b"", &[("grpc-status", "5")]).await,
            _ => call.answer(200, &[], b"", &[("grpc-status", "0")]).await,
        }
    });
    let fields = [("content-type", "application/grpc"), ("te", "trailers")];
    for path in ["/late", "/early"] {
        let gate = Binary::start(&format!(
            "upstreams: {{ api: {{ endpoints: [\"{}\"], protocol: http2, breaker: {{ consecutive: 3, open: 1h }} }} }}
routes: [{{ match: \"/{{*rest}}\", forward: api }}]",
            service.url()
        ));
        let mut client = Http2::connect(gate.address());
        let mut status = |path: &str| {
            let answer = client.ask("POST", &format!("http://api.test{path}"), &fields, b"").unwrap();
            let of =
                |fields: &http::HeaderMap| fields.get("grpc-status").map(|value| value.to_str().unwrap().to_owned());
            answer.field("grpc-status").or_else(|| of(&answer.trailers)).unwrap()
        };
        for _ in 0..20 {
            assert_eq!((status("/mine"), status("/well")), ("5".to_owned(), "0".to_owned()));
        }
        let before = service.requests();
        let failed: Vec<_> = (0..3).map(|_| status(path)).collect();
        assert!(failed.iter().all(|status| ["13", "14"].contains(&status.as_str())), "{failed:?}");
        assert_eq!(service.requests(), before + 3);
        assert_eq!((status("/well"), service.requests()), ("14".to_owned(), before + 3), "held back");
        gate.logged_with("/well", "grpc_status", 0);
    }
}
