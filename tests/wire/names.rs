//! Failure 27: the name of a service is resolved once, or an old answer is used for ever, or a name that is gone takes
//! everything else with it.

use std::net::{Ipv4Addr, SocketAddr};

use pylon_testkit::answer::Answer;
use pylon_testkit::binary::Binary;
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{ms, now, until};
use serde_json::Value;

use crate::dns::{NameServer, Says};

const TWO: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const THREE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

fn named_at(address: SocketAddr, name: &'static str) -> Upstream {
    Upstream::script_at(address, move |peer| peer.serve(|_| Answer::text(name)))
}

/// Two services at one port of two addresses.
fn services() -> (Upstream, Upstream, u16) {
    let two = named_at((TWO, 0).into(), "two");
    let port = two.address().port();
    (two, named_at((THREE, port).into(), "three"), port)
}

/// What the admin API says of the first source of an upstream.
fn view(gate: &Binary, upstream: &str) -> Value {
    let views = gate.admin("/api/upstreams").json();
    views.as_array().unwrap().iter().find(|view| view["name"] == upstream).unwrap()["sources"][0].clone()
}

#[test]
fn traffic_follows_a_name_to_its_new_address_within_the_ttl_and_a_second() {
    for form in ["discover: { dns: \"svc.test:PORT\" }", "endpoints: [\"http://svc.test:PORT\"]"] {
        let (two, three, port) = services();
        let server = NameServer::start();
        server.says("svc.test", Says::Addresses(vec![TWO]));
        let gate = Binary::start(&format!(
            "{}upstreams: {{ api: {{ {} }} }}\nroutes: [{{ match: \"/{{*rest}}\", forward: api }}]",
            server.document(),
            form.replace("PORT", &port.to_string())
        ));
        let mut client = gate.connect();
        until(ms(3000), "the name is resolved", || client.get("/").status() == 200);
        assert_eq!(client.get("/").text(), "two");
        assert!(two.open() > 0);
        for (to, name, gone) in [(THREE, "three", &two), (TWO, "two", &three)] {
            server.says("svc.test", Says::Addresses(vec![to]));
            let begun = now();
            until(ms(2000), "the traffic has moved", || {
                let answer = client.get("/");
                assert_eq!(answer.status(), 200, "{}", answer.text());
                answer.text() == name
            });
            until(ms(1000), "no connection to the address that is gone is kept", || gone.open() == 0);
            assert!(begun.elapsed() < ms(3000));
            assert_eq!(client.get("/").text(), name);
        }
    }
}

#[test]
fn every_address_of_a_discovered_name_gets_its_share_and_loses_it() {
    let (_two, _three, port) = services();
    let server = NameServer::start();
    server.says("svc.test", Says::Addresses(vec![TWO, THREE]));
    let gate = Binary::start(&format!(
        "{}upstreams: {{ api: {{ discover: {{ dns: \"svc.test:{port}\" }} }} }}\nroutes: [{{ match: /, forward: api }}]",
        server.document()
    ));
    let mut client = gate.connect();
    until(ms(3000), "the name is resolved", || client.get("/").status() == 200);
    let mut share = |name: &str| (0..20).filter(|_| client.get("/").text() == name).count();
    assert_eq!(share("two"), 10);
    server.says("svc.test", Says::Addresses(vec![THREE]));
    until(ms(3000), "one address is left", || share("three") == 20);
}

#[test]
fn a_name_server_that_fails_leaves_the_last_good_answer() {
    let (_two, _three, port) = services();
    let server = NameServer::start();
    for name in ["fails.test", "gone.test"] {
        server.says(name, Says::Addresses(vec![TWO]));
    }
    let gate = Binary::start(&format!(
        "{}upstreams:
  fails: {{ discover: {{ dns: \"fails.test:{port}\" }} }}
  gone: {{ endpoints: [\"http://gone.test:{port}\"] }}
routes: [{{ match: /fails, forward: fails }}, {{ match: /gone, forward: gone }}]",
        server.document()
    ));
    let both = |text: &str| ["/fails", "/gone"].iter().all(|path| gate.get(path).text() == text);
    until(ms(3000), "the names are resolved", || both("two"));
    server.says("fails.test", Says::Failure);
    server.says("gone.test", Says::Unknown);
    until(ms(8000), "the gateway has noticed", || {
        assert!(both("two"), "the last good answer is used");
        ["fails", "gone"].iter().all(|name| view(&gate, name)["stale"] == true)
    });
    assert!(both("two"));
    assert_ne!(view(&gate, "gone")["error"], Value::Null);
    for name in ["fails.test", "gone.test"] {
        server.says(name, Says::Addresses(vec![THREE]));
    }
    until(ms(8000), "both names are asked for again", || both("three"));
}

#[test]
fn a_name_that_is_not_there_at_the_start_stops_nothing_else_and_may_come_later() {
    let (_two, _three, port) = services();
    let server = NameServer::start();
    let gate = Binary::start(&format!(
        "{}upstreams:
  later: {{ discover: {{ dns: \"later.test:{port}\" }} }}
  host: {{ endpoints: [\"http://later.test:{port}\"] }}
  here: {{ endpoints: [\"http://{TWO}:{port}\"] }}
routes: [{{ match: /later, forward: later }}, {{ match: /host, forward: host }}, {{ match: /here, forward: here }}]",
        server.document()
    ));
    assert_eq!(gate.get("/here").text(), "two");
    for path in ["/later", "/host"] {
        let answer = gate.get(path);
        assert!(matches!(answer.status(), 502 | 503), "{path}: {answer:?}");
        assert!(answer.code().is_some_and(|code| code.starts_with("upstream.")), "{path}: {answer:?}");
    }
    assert_eq!(gate.get("/here").text(), "two");
    server.says("later.test", Says::Addresses(vec![THREE]));
    until(ms(8000), "the name is found", || ["/later", "/host"].iter().all(|path| gate.get(path).text() == "three"));
}
