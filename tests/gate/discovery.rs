//! Endpoints that are found at run time: what the tests of each source have in common, and failures 26 and 27, which each of
//! them shows to be absent: no request is lost while a service is replaced, and what was known outlives the loss of a source.

use std::net::SocketAddr;
use std::time::Duration;

use pylon_testkit::binary::Binary;
use pylon_testkit::load::{Load, Plan};
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{eventually, ms, until};
use serde_json::Value;

/// How long news may take on a busy machine.
pub(crate) const NEWS: Duration = Duration::from_secs(60);

/// A gateway whose upstream `api` looks for `discover`, by what the document says under `discovery`; `more` upstreams and keys.
pub(crate) fn document(discovery: &str, discover: &str) -> String {
    format!(
        "discovery: {{ {discovery} }}
upstreams: {{ api: {{ discover: {{ {discover} }} }}, other: {{ endpoints: [http://127.0.0.1:1] }} }}
routes: [{{ match: \"/{{*rest}}\", forward: api }}, {{ match: /ours, respond: 204 }}]"
    )
}

/// What the admin API shows of the upstream.
pub(crate) fn view(gate: &Binary) -> Value {
    let all = gate.admin("/api/upstreams").json();
    all.as_array().unwrap().iter().find(|one| one["name"] == "api").cloned().unwrap()
}

/// What it shows of its source.
pub(crate) fn source(gate: &Binary) -> Value {
    view(gate)["sources"][0].clone()
}

/// Waits until the upstream has these endpoints.
pub(crate) fn becomes(gate: &Binary, wanted: &[SocketAddr]) {
    let mut wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
    wanted.sort_unstable();
    let has = || {
        let view = view(gate);
        let endpoints = view["endpoints"].as_array().unwrap().iter();
        let mut has: Vec<_> = endpoints.map(|one| one["endpoint"].as_str().unwrap().to_owned()).collect();
        has.sort_unstable();
        has
    };
    until(NEWS, &format!("the endpoints are {wanted:?}"), || has() == wanted);
}

/// Waits until the source tells of trouble that has this in it.
pub(crate) fn complains(gate: &Binary, why: &str) {
    eventually(NEWS, &format!("the source complains of `{why}`"), || {
        source(gate)["error"].as_str().is_some_and(|error| error.contains(why)).then_some(())
    });
}

/// A client is told that there is nobody, and the log why.
pub(crate) fn nobody(gate: &Binary, path: &str, why: &str) {
    let answer = gate.get(path);
    assert_eq!((answer.status(), answer.code().as_deref()), (503, Some("upstream.no_endpoint")), "{}", answer.text());
    let logged = gate.logged(path).to_string();
    assert!(logged.contains(why), "{logged}");
    assert_eq!(gate.get("/ours").status(), 204, "the rest of the gateway goes on");
}

/// Replaces a service instance by instance while it is asked, as a rollout does: the new one is put in, then the old one is
/// taken out, and ends only once the gateway no longer knows it. Nobody notices.
pub(crate) fn rolls(gate: &Binary, put: impl Fn(SocketAddr), take: impl Fn(SocketAddr)) {
    let mut all: Vec<Upstream> = (0..3).map(|_| Upstream::named("x")).collect();
    let addresses = |all: &[Upstream]| all.iter().map(Upstream::address).collect::<Vec<_>>();
    for one in &all {
        put(one.address());
    }
    becomes(gate, &addresses(&all));
    let load = Load::start(&Plan { address: gate.address(), clients: 4, rate: 100, path: "/x", text: "x" });
    for _ in 0..4 {
        let (new, old) = (Upstream::named("x"), all.remove(0));
        put(new.address());
        all.push(new);
        take(old.address());
        becomes(gate, &addresses(&all));
        drop(old);
    }
    let before = load.answers();
    until(ms(10_000), "the new ones are asked", || load.answers() > before + 20);
    load.end();
    assert!(all.iter().all(|one| one.requests() > 0), "each of the new ones has its share");
}

/// The figures of the source in `/metrics`, by its kind and name: endpoints, failures, and whether it has an age.
pub(crate) fn figures(gate: &Binary, kind: &str, name: &str) -> (Option<f64>, Option<f64>, bool) {
    let labels = format!("{{upstream=\"api\",source=\"{kind}\",name=\"{name}\"}}");
    let metric = |family: &str| gate.metric(&format!("pylon_discovery_{family}{labels}"));
    (metric("endpoints"), metric("failures_total"), metric("age_seconds").is_some())
}
