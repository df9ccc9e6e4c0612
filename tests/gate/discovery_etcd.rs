//! Discovery by a real etcd: watch, compaction, users, and its end and return.

use std::net::SocketAddr;

use pylon_testkit::binary::Binary;
use pylon_testkit::etcd::Etcd;
use pylon_testkit::terminator::Terminator;
use pylon_testkit::tls::Authority;
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::until;

use crate::discovery::{NEWS, becomes, complains, document, figures, nobody, rolls, source, view};

fn gate(etcd: &Etcd) -> Binary {
    Binary::start(&document(&format!("etcd: {{ endpoints: [{}] }}", etcd.url()), "etcd: /s/"))
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[test]
fn keys_are_endpoints_from_the_moment_they_are_set_until_they_are_deleted() {
    let etcd = Etcd::start();
    etcd.put("/s/a", "127.0.0.1:7001");
    etcd.put("/t/other", "127.0.0.1:7009");
    let gate = gate(&etcd);
    becomes(&gate, &[at(7001)]);
    etcd.put("/s/b", r#"{"address": "127.0.0.1", "port": 7002, "weight": 3, "zone": "eu-1a"}"#);
    etcd.put("/s/c", r#"{"Op":0,"Addr":"127.0.0.1:7003","Metadata":null}"#);
    becomes(&gate, &[at(7001), at(7002), at(7003)]);
    let endpoints = view(&gate)["endpoints"].clone();
    let b = endpoints.as_array().unwrap().iter().find(|one| one["endpoint"] == "127.0.0.1:7002").unwrap();
    assert_eq!((&b["weight"], &b["zone"], &b["source"]), (&3.into(), &"eu-1a".into(), &"etcd".into()));
    assert_eq!(figures(&gate, "etcd", "/s/"), (Some(3.0), Some(0.0), true));
    etcd.put("/s/c", "nonsense");
    etcd.delete("/s/a");
    becomes(&gate, &[at(7002)]);
    complains(&gate, "key `/s/c`: `nonsense` is not a host with a port");
    etcd.delete("/s/c");
    etcd.delete("/s/b");
    becomes(&gate, &[]);
    nobody(&gate, "/gone", "etcd `/s/` names none");
}

#[test]
fn a_service_is_replaced_under_load_without_a_lost_request() {
    let etcd = Etcd::start();
    let gate = gate(&etcd);
    rolls(
        &gate,
        |at| etcd.put(&format!("/s/{}", at.port()), &at.to_string()),
        |at| etcd.delete(&format!("/s/{}", at.port())),
    );
}

#[test]
fn what_was_known_outlives_etcd_and_news_counts_once_it_is_back_whatever_was_compacted() {
    let mut etcd = Etcd::start();
    let service = Upstream::named("x");
    etcd.put("/s/a", &service.address().to_string());
    let gate = gate(&etcd);
    becomes(&gate, &[service.address()]);
    etcd.kill();
    complains(&gate, "no connection to");
    assert_eq!((gate.get("/").text().as_str(), &source(&gate)["stale"]), ("x", &true.into()));
    etcd.revive();
    // The revision from which the gateway would go on is forgotten.
    etcd.put("/s/b", "127.0.0.1:7002");
    etcd.put("/s/a", &service.address().to_string());
    etcd.compact();
    becomes(&gate, &[service.address(), at(7002)]);
    until(NEWS, "the source is well", || source(&gate)["error"].is_null() && source(&gate)["stale"] == false);
    assert!(figures(&gate, "etcd", "/s/").1 >= Some(1.0));
}

#[test]
fn members_are_asked_in_turn_and_a_source_that_is_away_at_the_start_is_found_when_it_comes() {
    let mut etcd = Etcd::start();
    etcd.put("/s/a", "127.0.0.1:7001");
    etcd.kill();
    let members = format!("etcd: {{ endpoints: [http://{}, {}] }}", Upstream::nobody(), etcd.url());
    let gate = Binary::start(&document(&members, "etcd: /s/"));
    nobody(&gate, "/early", "etcd `/s/`");
    assert_eq!(source(&gate)["age_seconds"], serde_json::Value::Null);
    etcd.revive();
    becomes(&gate, &[at(7001)]);
}

#[test]
fn a_user_is_signed_in_and_signed_in_again_when_the_token_is_refused() {
    let mut etcd = Etcd::start();
    etcd.put("/s/a", "127.0.0.1:7001");
    etcd.demand_users("reader", "open sesame", "/s/", "/s0");
    let users = |password: &str| {
        let etcd = format!("etcd: {{ endpoints: [{}], user: reader, password: file:password }}", etcd.url());
        Binary::start_with(&document(&etcd, "etcd: /s/"), &[], |folder| {
            std::fs::write(folder.join("password"), password).unwrap();
        })
    };
    let gate = users("open sesame\n");
    becomes(&gate, &[at(7001)]);
    let stranger = users("wrong");
    complains(&stranger, "the user `reader` cannot be signed in");
    assert!(!stranger.stderr().contains("wrong"), "a password is never shown");
    // Tokens do not outlive the process that gave them.
    etcd.kill();
    complains(&gate, "no connection to");
    etcd.revive();
    etcd.sign_in();
    etcd.put("/s/b", "127.0.0.1:7002");
    becomes(&gate, &[at(7001), at(7002)]);
}

#[test]
fn under_tls_only_who_is_verified_is_believed() {
    let (authority, etcd) = (Authority::default(), Etcd::start());
    etcd.put("/s/a", "127.0.0.1:7001");
    let secure =
        Terminator::before(etcd.address(), authority.server(&authority.issue(&["localhost"]), &["http/1.1"], true));
    let gate = |tls: &str| {
        let etcd = format!("etcd: {{ endpoints: [\"{}\"], tls: {{ {tls} }} }}", secure.url("localhost"));
        Binary::start_with(&document(&etcd, "etcd: /s/"), &[], |folder| {
            std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
            std::fs::write(folder.join("other.pem"), Authority::new("another").pem()).unwrap();
            authority.issue(&["gate.test"]).write(folder, "gate");
        })
    };
    let known = gate("ca: ca.pem, client_cert: { cert: gate.pem, key: gate.key }");
    becomes(&known, &[at(7001)]);
    etcd.put("/s/b", "127.0.0.1:7002");
    becomes(&known, &[at(7001), at(7002)]);
    assert!(secure.shaken().iter().all(|shaken| shaken.certificate));
    complains(&gate("ca: other.pem"), "UnknownIssuer");
}
