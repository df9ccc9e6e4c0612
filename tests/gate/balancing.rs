//! How endpoints are chosen: the same for the same key, and otherwise for another reason.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use pylon_testkit::answer::Answer;
use pylon_testkit::binary::Binary;
use pylon_testkit::client::ask;
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::until;

const SOON: Duration = Duration::from_secs(20);

fn services(count: usize) -> Vec<Upstream> {
    (0..count).map(|n| Upstream::named(&format!("service {n}"))).collect()
}

fn document<'a>(services: impl IntoIterator<Item = &'a Upstream>, balance: &str) -> String {
    let urls: Vec<_> = services.into_iter().map(Upstream::url).collect();
    let urls = urls.join(", ");
    format!(
        "upstreams: {{ api: {{ endpoints: [{urls}], balance: {balance} }} }}\nroutes: [{{ match: \"/{{*rest}}\", forward: api }}]\n"
    )
}

/// Ends a service, and waits until nobody is met where it was.
fn leave(service: Upstream) -> SocketAddr {
    let address = service.address();
    drop(service);
    until(SOON, "the end of a service", || TcpStream::connect(address).is_err());
    address
}

fn met(gate: &Binary, tenant: &str) -> String {
    gate.ask("GET", "/", &[("x-tenant", tenant)], b"").text()
}

/// Whom each tenant meets.
fn all_met(gate: &Binary) -> BTreeMap<String, String> {
    (0..40).map(|n| format!("tenant-{n}")).map(|tenant| (tenant.clone(), met(gate, &tenant))).collect()
}

#[test]
fn a_key_meets_the_same_endpoint_on_every_gateway_and_one_that_goes_moves_few_others() {
    for method in ["maglev", "ring_hash"] {
        let services = services(4);
        let balance = format!("{{ method: {method}, by: {{ header: x-tenant }} }}");
        let gate = Binary::start(&document(&services, &balance));
        let before = all_met(&gate);
        assert_eq!(all_met(&gate), before);
        // The order in which endpoints are written makes no difference.
        let other = Binary::start(&document(services.iter().rev(), &balance));
        assert_eq!(all_met(&other), before);
        let fewer = Binary::start(&document(&services[1..], &balance));
        let stayed = all_met(&fewer).iter().filter(|(tenant, met)| before[*tenant] == **met).count();
        let own = before.values().filter(|met| *met == "service 0").count();
        assert!(own > 0 && own < 25, "{own} of 40 keys met the first of four");
        assert!(stayed >= 40 - own - 5, "{stayed} of 40 keys stayed, and {own} could not");
    }
}

#[test]
fn a_key_of_an_endpoint_that_is_away_meets_another_and_comes_back() {
    let mut services = services(3);
    let gate = Binary::start(&document(&services, "{ method: maglev, by: { header: x-tenant } }"));
    let (tenant, was) = all_met(&gate).into_iter().find(|(_, met)| met == "service 2").unwrap();
    let address = leave(services.pop().unwrap());
    let meanwhile = met(&gate, &tenant);
    assert!(meanwhile != was && meanwhile.starts_with("service"), "{meanwhile}");
    assert_eq!(met(&gate, &tenant), meanwhile, "and always the same");
    let _back = Upstream::script_at(address, |peer| peer.serve(|_| Answer::text("service 2")));
    assert_eq!(met(&gate, &tenant), was);
}

/// A service that says its name, and how busy it is when it is asked for that.
fn telling(name: &'static str, rif: &Arc<AtomicU32>) -> Upstream {
    let rif = Arc::clone(rif);
    Upstream::http(move |request| {
        let rif = rif.load(SeqCst);
        match request.target() {
            "/load" => Answer::json(&serde_json::json!({ "rif": rif, "latency_ms": 5 + 5 * rif })),
            _ => Answer::text(name),
        }
    })
}

#[test]
fn by_probes_who_says_that_it_is_busy_is_left_alone_until_it_says_otherwise() {
    let [one, other] = [0, 80].map(|rif| Arc::new(AtomicU32::new(rif)));
    let services = [telling("one", &one), telling("other", &other)];
    let gate = Binary::start(&document(&services, "{ method: prequal, probe: { path: /load } }"));
    let all_meet = |name: &str| (0..16).all(|_| gate.get("/").text() == name);
    until(SOON, "one alone is met", || all_meet("one"));
    one.store(80, SeqCst);
    other.store(0, SeqCst);
    until(SOON, "the other alone is met", || all_meet("other"));
    let asked = services[0].seen().iter().filter(|request| request.target() == "/load").count();
    assert!(asked > 0, "nobody has asked it");
    let requests = gate.metric("pylon_upstream_requests_total{upstream=\"api\",status_class=\"2xx\"}").unwrap();
    let seen = services.iter().flat_map(Upstream::seen).filter(|request| request.target() != "/load").count();
    assert_eq!(requests as usize, seen, "what the gateway asks for itself is no request");
}

#[test]
fn the_faster_of_two_gets_most_requests_by_ewma() {
    let slow = Upstream::http(|_| Answer::text("slow").after(Duration::from_millis(300)));
    let fast = Upstream::named("fast");
    let gate = Binary::start(&document([&slow, &fast], "ewma"));
    for _ in 0..60 {
        gate.get("/");
    }
    assert!(fast.requests() >= 50, "the fast one had {} of 60", fast.requests());
    assert!(slow.requests() >= 1);
}

/// The first upstream of the admin API.
fn view(gate: &Binary) -> serde_json::Value {
    gate.admin("/api/upstreams").json()[0].clone()
}

#[test]
fn a_sticky_cookie_outlives_a_reload_and_is_replaced_when_its_endpoint_is_lost() {
    let mut services = services(3);
    let sticky = |extra: &str| {
        document(&services, &format!("{{ method: least_request, sticky: {{ cookie: at, ttl: 1h }}{extra} }}"))
    };
    let (first, second) = (sticky(""), sticky(", slow_start: 1s"));
    let gate = Binary::start(&first);
    let answer = gate.get("/");
    let (was, cookie) = (answer.text(), answer.field("set-cookie").unwrap());
    assert!(cookie.contains("; HttpOnly; SameSite=Lax") && !cookie.contains("Secure"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let with = |cookie: &str| gate.ask("GET", "/", &[("cookie", cookie)], b"");
    assert!((0..10).all(|_| with(&cookie).text() == was));
    // Another upstream in place of the one before: names and key are the same.
    gate.apply(&second);
    assert!((0..10).all(|_| with(&cookie).text() == was && with(&cookie).field("set-cookie").is_none()));
    let index: usize = was.strip_prefix("service ").unwrap().parse().unwrap();
    leave(services.remove(index));
    let answer = with(&cookie);
    let next = answer.field("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    assert!(answer.text() != was && next != cookie);
    assert!((0..5).all(|_| with(&next).text() == answer.text()));
}

#[test]
fn the_second_priority_answers_while_the_first_is_away() {
    let (first, second) = (Upstream::named("first"), Upstream::named("second"));
    let document = format!(
        "locality: here\nupstreams: {{ api: {{ endpoints: [{{ url: \"{}\", zone: here }}, {{ url: \"{}\", priority: 1 }}] }} }}\nroutes: [{{ match: \"/{{*rest}}\", forward: api }}]\n",
        first.url(),
        second.url()
    );
    let gate = Binary::start(&document);
    assert!((0..10).all(|_| gate.get("/").text() == "first"));
    let tiers = view(&gate)["tiers"].clone();
    assert_eq!(
        (&tiers[0]["requests"], &tiers[0]["distance"], &tiers[1]["priority"]),
        (&100.into(), &"near".into(), &1.into())
    );
    let address = leave(first);
    assert!((0..10).all(|_| gate.get("/").text() == "second"));
    let _back = Upstream::script_at(address, |peer| peer.serve(|_| Answer::text("first")));
    assert!((0..10).all(|_| gate.get("/").text() == "first"));
}

#[test]
fn an_endpoint_that_is_found_later_warms_up() {
    let services = services(2);
    let targets = |services: &[Upstream]| {
        let all: Vec<_> = services.iter().map(|one| format!("\"{}\"", one.address())).collect();
        format!("[{{ \"targets\": [{}] }}]", all.join(", "))
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("targets.json");
    std::fs::write(&file, targets(&services[..1])).unwrap();
    let gate = Binary::start(&format!(
        "upstreams: {{ api: {{ discover: {{ file: \"{}\" }}, balance: {{ slow_start: 3s }} }} }}\nroutes: [{{ match: \"/{{*rest}}\", forward: api }}]\n",
        file.display()
    ));
    until(SOON, "the first endpoint", || gate.get("/").status() == 200);
    std::fs::write(&file, targets(&services)).unwrap();
    let weights = || -> Vec<f64> {
        let view = view(&gate);
        let endpoints = view["endpoints"].as_array().unwrap();
        endpoints.iter().map(|one| one["effective_weight"].as_f64().unwrap()).collect()
    };
    until(SOON, "an endpoint with a part of its weight", || weights().iter().any(|weight| *weight < 1.0));
    until(SOON, "all of its weight", || weights().iter().all(|weight| *weight >= 1.0));
}

#[test]
fn who_reports_more_room_gets_more_requests_and_clients_do_not_see_the_reports() {
    let report = |used: &'static str| {
        Upstream::http(move |_| {
            let report = format!("TEXT rps_fractional=100,application_utilization={used}");
            Answer::text("ok").field("endpoint-load-metrics", &report)
        })
    };
    let (idle, busy) = (report("0.2"), report("0.8"));
    let gate = Binary::start(&document([&idle, &busy], "{ orca: { blackout: 1ms } }"));
    let weights = || {
        let view = view(&gate);
        [0, 1].map(|index: usize| view["endpoints"][index]["effective_weight"].to_string())
    };
    until(SOON, "weights of reports", || {
        assert_eq!(gate.get("/").field("endpoint-load-metrics"), None);
        weights() == ["1.0", "0.25"]
    });
}

#[test]
fn where_a_request_would_go_is_told_where_that_is_settled() {
    let services = services(3);
    let balance = "{ method: maglev, by: { header: x-tenant }, sticky: at }";
    let gate = Binary::start(&document(&services, balance));
    let explain = |headers: serde_json::Value| {
        let question = serde_json::json!({ "method": "GET", "url": "/", "headers": headers });
        let fields = [("host", "localhost"), ("content-type", "application/json")];
        ask(gate.admin, "POST", "/api/explain", &fields, question.to_string().as_bytes()).json()
    };
    for tenant in ["acme", "initech", "umbrella"] {
        let answer = gate.ask("GET", "/", &[("x-tenant", tenant)], b"");
        let told = explain(serde_json::json!([["x-tenant", tenant]]));
        let index: usize = answer.text().strip_prefix("service ").unwrap().parse().unwrap();
        assert_eq!(told["choice"]["endpoint"], services[index].address().to_string());
        let cookie = answer.field("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        let told = explain(serde_json::json!([["x-tenant", "another"], ["cookie", cookie]]));
        assert_eq!(told["choice"]["endpoint"], services[index].address().to_string());
        assert_eq!(told["choice"]["why"], "its cookie names it");
        assert!(told["text"].as_str().unwrap().contains("the request would go to"), "{told}");
    }
}
