//! Copies of requests: what they carry, and that no client notices them.

use std::time::Duration;

use pylon_testkit::answer::Answer;
use pylon_testkit::binary::Binary;
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{now, until};

const SOON: Duration = Duration::from_secs(10);

fn gate(to: &Upstream, mirror: &str) -> (Binary, Upstream) {
    let service = Upstream::echo();
    let document = format!(
        "upstreams:
  api: {{ endpoints: [\"{}\"] }}
  next: {{ endpoints: [\"{}\"] }}
routes:
  - match: \"/{{*rest}}\"
    rewrite: \"/v2/{{rest}}\"
    forward: api
    mirror: {{ to: next, {mirror} }}
",
        service.url(),
        to.url()
    );
    (Binary::start(&document), service)
}

fn count(gate: &Binary, outcome: &str) -> u64 {
    gate.metric(&format!("pylon_mirrored_requests_total{{outcome=\"{outcome}\"}}")).unwrap_or_default() as u64
}

#[test]
fn a_copy_is_the_request_as_it_is_forwarded_without_the_credentials_of_the_client() {
    let next = Upstream::echo();
    let (gate, service) = gate(&next, "share: 100%");
    let fields = [("authorization", "Bearer x"), ("cookie", "a=b"), ("x-tag", "7"), ("x-pylon-mirror", "0")];
    let answer = gate.ask("POST", "/orders?a=b", &fields, b"one order");
    assert_eq!(answer.json()["body"], "one order");
    assert_eq!(service.last().field("x-pylon-mirror"), None, "what the client says of mirrors is dropped");
    until(SOON, "the copy", || count(&gate, "answered") == 1);
    let copy = next.last();
    assert_eq!((copy.method(), copy.target(), copy.text()), ("POST", "/v2/orders?a=b", "one order".to_owned()));
    assert_eq!(copy.field("x-pylon-mirror").as_deref(), Some("1"));
    assert_eq!((copy.field("authorization"), copy.field("cookie")), (None, None));
    assert_eq!(copy.field("x-tag").as_deref(), Some("7"));
    for told in ["x-request-id", "x-forwarded-for", "host"] {
        assert_eq!(copy.field(told), service.last().field(told), "{told}");
    }
}

#[test]
fn a_client_does_not_notice_a_mirror_that_is_slow_or_gone_or_says_something_early() {
    let silent = Upstream::script(|peer| {
        if peer.head().is_ok() {
            peer.send("HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n");
            peer.wait_for_end(SOON);
        }
    });
    let (slow, _service) = gate(&silent, "timeout: 1s, at_most: 2");
    let begun = now();
    let mut client = slow.connect();
    for _ in 0..5 {
        let answer = client.get("/x");
        assert_eq!((answer.status(), answer.field("link")), (200, None));
    }
    assert!(begun.elapsed() < Duration::from_millis(900), "a client waited for its copy");
    assert_eq!(count(&slow, "full"), 3, "no more than two copies were under way");
    until(SOON, "the end of the copies", || count(&slow, "failed") == 2);

    let gone = Upstream::echo();
    let (gate, _service) = gate(&gone, "credentials: keep");
    drop(gone);
    assert_eq!(gate.get("/x").status(), 200);
    until(SOON, "a copy that fails", || count(&gate, "failed") == 1);
}

#[test]
fn only_bodies_that_are_short_and_whole_are_copied() {
    let next = Upstream::http(|_| Answer::text("thanks"));
    let (gate, _service) = gate(&next, "max_body: 8B");
    assert_eq!(gate.ask("POST", "/long", &[], b"nine bytes").status(), 200);
    assert_eq!(count(&gate, "too_large"), 1);
    // Of unknown length.
    let mut client = gate.connect();
    client.send(
        "POST /chunks HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfive \r\n5\r\nmore \r\n0\r\n\r\n",
    );
    assert_eq!(client.response().status(), 200);
    assert_eq!(count(&gate, "too_large"), 2);
    client.send("POST /broken HTTP/1.1\r\nhost: a\r\ncontent-length: 8\r\n\r\nfour");
    client.abort();
    until(SOON, "a body that broke off", || count(&gate, "incomplete") == 1);
    let mut client = gate.connect();
    client.send("POST /chunks HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfive \r\n0\r\n\r\n");
    assert_eq!(client.response().status(), 200);
    until(SOON, "the copy", || count(&gate, "answered") == 1);
    assert_eq!(next.last().text(), "five ");
    assert_eq!(next.requests(), 1);
}
