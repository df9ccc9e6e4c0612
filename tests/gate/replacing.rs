//! Failure 26: 502 and 503 while a service is replaced, instance by instance. What is gone gets no new request, what is under
//! way there ends well, and clients notice nothing.

use std::thread::Scope;

use pylon_testkit::answer::Answer;
use pylon_testkit::binary::Binary;
use pylon_testkit::load::{Load, Plan};
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{ms, pause, until};

/// An instance of the service. What asks for `/slow` is under way for a while.
fn instance() -> Upstream {
    Upstream::http(|request| {
        let answer = Answer::text("x");
        if request.target() == "/slow" { answer.after(ms(800)) } else { answer }
    })
}

/// How many requests an instance has seen that were not meant to take long.
fn quick(instance: &Upstream) -> usize {
    instance.seen().iter().filter(|request| request.target() != "/slow").count()
}

/// Replaces each of three instances in turn under load; `tell` makes the gateway know those that there are.
fn replace(gate: &Binary, first: Vec<Upstream>, tell: impl Fn(&[&Upstream])) {
    let load = Load::start(&Plan { address: gate.address(), clients: 8, rate: 400, path: "/x", text: "x" });
    let mut instances = first;
    std::thread::scope(|scope| {
        for turn in 0..6 {
            until(ms(10_000), "all instances have work", || instances.iter().all(|one| quick(one) > 5));
            let slow = under_way(gate, scope);
            let next = instance();
            let old = instances.remove(0);
            instances.push(next);
            let told: Vec<_> = instances.iter().collect();
            tell(&told);
            let (seen, answered) = (quick(&old), load.answers());
            until(ms(10_000), "there are further answers", || load.answers() > answered + 40);
            assert_eq!(quick(&old), seen, "turn {turn}: a request went to an instance that is gone");
            for client in slow {
                assert_eq!(client.join().unwrap(), 200, "turn {turn}: what was under way is lost");
            }
            drop(old);
        }
    });
    load.end();
}

/// Requests that take a while, at whichever instances their turn comes.
fn under_way<'s>(gate: &'s Binary, scope: &'s Scope<'s, '_>) -> Vec<std::thread::ScopedJoinHandle<'s, u16>> {
    let slow = (0..6).map(|_| scope.spawn(|| gate.get("/slow").status())).collect();
    // They have to be on their way before anybody is told.
    pause(ms(100));
    slow
}

fn document(upstream: &str) -> String {
    format!(
        "workers: 2
telemetry: {{ access_log: off }}
upstreams: {{ api: {{ {upstream} }} }}
routes: [{{ match: \"/{{*rest}}\", forward: api }}]"
    )
}

#[test]
fn instances_that_a_reload_replaces_lose_no_request() {
    let written = |instances: &[&Upstream]| {
        let urls: Vec<_> = instances.iter().map(|one| one.url()).collect();
        document(&format!("endpoints: [{}]", urls.join(", ")))
    };
    let first: Vec<_> = (0..3).map(|_| instance()).collect();
    let gate = Binary::start(&written(&first.iter().collect::<Vec<_>>()));
    replace(&gate, first, |instances| gate.apply(&written(instances)));
}

#[test]
fn instances_that_a_file_replaces_lose_no_request() {
    let listed = |instances: &[&Upstream]| {
        let targets: Vec<_> = instances.iter().map(|one| format!("\"{}\"", one.address())).collect();
        format!("[{{ \"targets\": [{}] }}]", targets.join(", "))
    };
    let first: Vec<_> = (0..3).map(|_| instance()).collect();
    let text = listed(&first.iter().collect::<Vec<_>>());
    let gate = Binary::start_with(&document("discover: { file: targets.json }"), &[], |folder| {
        std::fs::write(folder.join("targets.json"), text).unwrap();
    });
    replace(&gate, first, |instances| {
        std::fs::write(gate.folder().join("targets.json"), listed(instances)).unwrap();
        let mut wanted: Vec<_> = instances.iter().map(|one| one.address().to_string()).collect();
        wanted.sort();
        until(ms(5000), "the file counts", || {
            let view: serde_json::Value = serde_json::from_str(&gate.admin("/api/upstreams").text()).unwrap();
            let endpoints = view[0]["endpoints"].as_array().unwrap();
            let mut known: Vec<_> = endpoints.iter().map(|one| one["endpoint"].as_str().unwrap().to_owned()).collect();
            known.sort();
            known == wanted
        });
        // Each worker looks before it chooses; what it had chosen by then is on its way.
        pause(ms(50));
    });
}

#[test]
fn a_service_whose_last_instance_is_gone_is_a_503_that_says_so() {
    let gate = Binary::start_with(&document("discover: { file: targets.json }"), &[], |folder| {
        std::fs::write(folder.join("targets.json"), "[]").unwrap();
    });
    let answer = gate.get("/x");
    assert_eq!((answer.status(), answer.code().as_deref()), (503, Some("upstream.no_endpoint")));
    let one = instance();
    std::fs::write(gate.folder().join("targets.json"), format!("[{{ \"targets\": [\"{}\"] }}]", one.address()))
        .unwrap();
    until(ms(5000), "the file counts", || gate.get("/x").status() == 200);
}
