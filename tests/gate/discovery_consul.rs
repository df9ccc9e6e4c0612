//! Discovery by Consul: the real one where it is installed, else a double that follows the documented protocol.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use pylon_testkit::answer::Answer;
use pylon_testkit::binary::Binary;
use pylon_testkit::consul::{Consul, TOKEN};
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::until;
use serde_json::json;

use crate::discovery::{NEWS, becomes, complains, document, figures, nobody, rolls, source, view};

fn gate(consul: &Consul, discover: &str) -> Binary {
    Binary::start(&document(&format!("consul: {{ address: {} }}", consul.url()), discover))
}

/// Follows a service through everything that may happen to its instances.
fn follows(consul: &Consul) {
    let [a, b] = [Upstream::nobody(), Upstream::nobody()];
    let meta = json!({ "zone": "eu-1a", "region": "eu-1", "priority": "2", "owner": "shop" });
    consul.register("orders", a, &json!({ "Weights": { "Passing": 3, "Warning": 1 }, "Meta": meta }));
    let gate = gate(consul, "consul: orders");
    becomes(&gate, &[a]);
    let endpoint = view(&gate)["endpoints"][0].clone();
    let told = ["weight", "priority", "zone", "region"].map(|key| endpoint[key].clone());
    assert_eq!(told, [json!(3), json!(2), json!("eu-1a"), json!("eu-1")]);
    consul.register("orders", b, &json!({}));
    becomes(&gate, &[a, b]);
    assert_eq!(figures(&gate, "consul", "orders"), (Some(2.0), Some(0.0), true));
    consul.check("orders", a, false);
    becomes(&gate, &[b]);
    consul.check("orders", a, true);
    becomes(&gate, &[a, b]);
    consul.deregister("orders", a);
    consul.deregister("orders", b);
    becomes(&gate, &[]);
    nobody(&gate, "/gone", "consul `orders` names none");
}

#[test]
fn instances_that_pass_are_endpoints_with_what_consul_says_of_them() {
    follows(&Consul::start(false));
}

/// Whoever has no Consul tests against it, so it must not be the last to be tested.
#[test]
fn the_double_is_followed_as_consul_is() {
    follows(&Consul::double(false));
    is_closed(&Consul::double(true));
}

#[test]
fn an_instance_needs_each_of_the_tags() {
    let consul = Consul::start(false);
    let all = [Upstream::nobody(), Upstream::nobody(), Upstream::nobody()];
    for (at, tags) in all.iter().zip([json!(["http", "v2"]), json!(["http"]), json!(["v2"])]) {
        consul.register("orders", *at, &json!({ "Tags": tags }));
    }
    let gate = gate(&consul, "consul: { service: orders, tags: [http, v2] }");
    becomes(&gate, &all[..1]);
}

#[test]
fn a_service_is_replaced_under_load_without_a_lost_request() {
    let consul = Consul::start(false);
    let gate = gate(&consul, "consul: orders");
    rolls(&gate, |at| consul.register("orders", at, &json!({})), |at| consul.deregister("orders", at));
}

#[test]
fn a_token_opens_what_is_closed_and_one_that_is_refused_is_told() {
    is_closed(&Consul::start(true));
}

/// Shows its services to whoever has the token, and to nobody else.
fn is_closed(consul: &Consul) {
    let at = Upstream::nobody();
    consul.register("orders", at, &json!({}));
    let gate = |token: &str| {
        let consul = format!("consul: {{ address: {}, token: file:token }}", consul.url());
        Binary::start_with(&document(&consul, "consul: orders"), &[], |folder| {
            std::fs::write(folder.join("token"), token).unwrap();
        })
    };
    becomes(&gate(TOKEN), &[at]);
    let stranger = gate("99999999-0000-0000-0000-000000000000");
    complains(&stranger, "403 Forbidden: ACL not found");
    assert!(!stranger.stderr().contains("99999999"), "a token is never shown");
}

#[test]
fn what_was_known_outlives_consul() {
    let mut consul = Consul::start(false);
    let service = Upstream::named("x");
    consul.register("orders", service.address(), &json!({}));
    let gate = gate(&consul, "consul: orders");
    becomes(&gate, &[service.address()]);
    if consul.is_real() {
        consul.kill();
        complains(&gate, "");
    } else {
        drop(consul);
        // A double that is gone closes its connections.
        complains(&gate, "");
    }
    assert_eq!((gate.get("/").text().as_str(), &source(&gate)["stale"]), ("x", &true.into()));
}

/// An agent that answers by a list: each answer with its index, if it has one, and the port of its one instance.
fn scripted(answers: Vec<(Option<u64>, u16)>) -> (Upstream, Arc<Mutex<Vec<String>>>) {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let (told, turn) = (Arc::clone(&asked), AtomicUsize::new(0));
    let agent = Upstream::http(move |request| {
        told.lock().unwrap().push(request.target().to_owned());
        let (index, port) = answers[turn.fetch_add(1, SeqCst).min(answers.len() - 1)];
        let answer = Answer::json(&json!([{
            "Node": { "Address": "127.0.0.1" }, "Service": { "ID": "a", "Service": "orders", "Address": "", "Port": port },
        }]));
        match index {
            Some(index) => answer.field("x-consul-index", &index.to_string()),
            None => answer,
        }
    });
    (agent, asked)
}

#[test]
fn an_index_that_goes_backwards_begins_anew() {
    let (agent, asked) =
        scripted(vec![(Some(90), 7001), (Some(7), 7002), (Some(8), 7003), (Some(9), 7004), (None, 7005)]);
    let gate = Binary::start(&document(&format!("consul: {{ address: {} }}", agent.url()), "consul: orders"));
    becomes(&gate, &[([127, 0, 0, 1], 7005).into()]);
    let asked = asked.lock().unwrap();
    let base = "/v1/health/service/orders?passing=1";
    let blocking = |index: u64| format!("{base}&index={index}&wait=55s");
    assert_eq!(asked[..4], [base.to_owned(), blocking(90), base.to_owned(), blocking(8)]);
}

#[test]
fn where_blocking_does_not_work_it_is_not_asked_in_a_hurry() {
    let (agent, asked) = scripted(vec![(None, 7001)]);
    let gate = Binary::start(&document(&format!("consul: {{ address: {} }}", agent.url()), "consul: orders"));
    until(NEWS, "it was asked three times", || asked.lock().unwrap().len() >= 3);
    let age = || source(&gate)["age_seconds"].as_u64();
    until(NEWS, "it is left alone for some seconds", || age() >= Some(5));
    assert_eq!(asked.lock().unwrap().len(), 3);
}
