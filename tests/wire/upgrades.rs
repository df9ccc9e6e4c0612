//! Failure 5: an Upgrade opens a tunnel past every policy.

use pylon_testkit::answer::Answer;
use pylon_testkit::binary::Binary;
use pylon_testkit::client::request;
use pylon_testkit::upstream::{End, Upstream};
use pylon_testkit::wait::{ms, pause, until};

use crate::before;
use crate::strict::Strict;

const OFFERS: [&[(&str, &str)]; 8] = [
    &[("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c"), ("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA")],
    &[("connection", "Upgrade"), ("upgrade", "h2c"), ("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA")],
    &[("upgrade", "h2c"), ("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA")],
    &[("connection", "HTTP2-Settings"), ("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA")],
    &[
        ("Connection", "keep-alive, Upgrade"),
        ("Upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ],
    &[("connection", "x"), ("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "h2c")],
    &[("connection", "UPGRADE"), ("upgrade", "TLS/1.0, HTTP/2.0")],
    &[("connection", "upgrade"), ("upgrade", "connect-udp")],
];

#[test]
fn an_upgrade_reaches_no_service_and_what_follows_is_a_request_like_any_other() {
    let strict = Strict::start();
    let gate = Binary::start(&format!(
        "upstreams: {{ api: {{ endpoints: [{}] }} }}
routes:
  - {{ match: \"/{{*rest}}\", forward: api }}
  - {{ match: \"/admin/{{*rest}}\", forward: api, ip_filter: {{ allow: 10.0.0.0/8 }} }}",
        strict.upstream.url()
    ));
    for (index, offer) in OFFERS.iter().enumerate() {
        for method in ["GET", "POST"] {
            let from = strict.upstream.requests();
            let path = format!("/{method}/{index}");
            let ahead = [
                request(method, &path, offer, if method == "POST" { b"hello" } else { b"" }),
                request("GET", "/admin/x", &[], b""),
                request("GET", "/behind", &[], b""),
            ];
            let mut client = gate.connect();
            client.send(ahead.concat());
            assert_eq!(client.response().text(), path);
            assert_eq!(client.response().code().as_deref(), Some("ip_filter.denied"), "the way past the policy");
            assert_eq!(client.response().text(), "/behind");
            assert_eq!(strict.targets(from), [path.as_str(), "/behind"]);
        }
    }
    for seen in strict.upstream.seen() {
        for name in ["connection", "upgrade", "http2-settings", "keep-alive"] {
            assert_eq!(seen.field(name), None, "{seen:?}");
        }
    }
    assert_eq!(strict.malformed(), Vec::<String>::new());
}

#[test]
fn what_follows_a_refused_upgrade_is_read_as_strictly_as_the_rest() {
    let strict = Strict::answering(|request| Answer::text(request.target()).after(ms(100)));
    let gate = before(&strict.upstream, "");
    let offer = request("GET", "/case", OFFERS[4], b"");
    let good = request("GET", "/behind", &[], b"");
    let bad = b"GET /behind HTTP/1.1\r\nHost: gate.test\r\nX : y\r\n\r\n".to_vec();
    for (behind, statuses) in [
        (vec![good.clone(), bad.clone()], vec![200, 200, 400]),
        (vec![bad, good.clone()], vec![200, 400]),
        (vec![offer.clone(), good.clone()], vec![200, 200, 200]),
    ] {
        for apart in [false, true] {
            let mut client = gate.connect();
            if apart {
                // While the answer to the offer is waited for.
                client.send(&offer);
                for part in &behind {
                    pause(ms(20));
                    client.send(part);
                }
            } else {
                client.send([offer.clone(), behind.concat()].concat());
            }
            for status in &statuses {
                assert_eq!(client.response().status(), *status, "{behind:?}");
            }
            if statuses.contains(&400) {
                client.expect_closed();
            }
        }
    }
    assert_eq!(strict.malformed(), Vec::<String>::new());
    assert_eq!(strict.upstream.requests(), 2 * (2 + 1 + 3));
}

#[test]
fn a_connect_is_refused_and_settles_nothing_of_the_upgrade_behind_it() {
    let strict = Strict::answering(|request| Answer::text(request.target()).after(ms(50)));
    let gate = before(&strict.upstream, "");
    let connect = request("CONNECT", "gate.test:443", &[], b"");
    let bad = b"GET /behind HTTP/1.1\r\nHost: gate.test\r\nX : y\r\n\r\n".to_vec();
    let mut client = gate.connect();
    client.send([connect, request("GET", "/case", OFFERS[4], b""), bad].concat());
    let statuses = [(); 3].map(|()| client.response().status());
    assert_eq!(statuses, [501, 200, 400]);
    client.expect_closed();
    assert_eq!(strict.targets(0), ["/case"]);
}

#[test]
fn a_client_that_leaves_while_its_upgrade_is_looked_at_is_noticed() {
    let upstream = Upstream::script(|peer| {
        if peer.request().is_ok() {
            assert_ne!(peer.wait_for_end(ms(5000)), End::Open);
        }
    });
    let gate = before(&upstream, "");
    let mut client = gate.connect();
    client.send(request("GET", "/case", OFFERS[4], b""));
    until(ms(5000), "the service has it", || upstream.requests() == 1);
    client.abort();
    assert_eq!(gate.logged("/case")["status"], 499);
}

#[test]
fn where_a_route_lets_websockets_pass_nothing_else_does_and_a_refused_one_opens_no_way() {
    // This service answers every request, and so refuses to switch.
    let strict = Strict::start();
    let gate = Binary::start(&format!(
        "upstreams: {{ api: {{ endpoints: [{}] }} }}
routes:
  - {{ match: \"/{{*rest}}\", forward: api, websocket: true }}
  - {{ match: \"/admin/{{*rest}}\", forward: api, ip_filter: {{ allow: 10.0.0.0/8 }}, websocket: true }}",
        strict.upstream.url()
    ));
    for (index, offer) in OFFERS.iter().enumerate() {
        let from = strict.upstream.requests();
        let path = format!("/offer/{index}");
        let behind = [request("GET", "/admin/x", &[], b""), request("GET", "/behind", &[], b"")].concat();
        let mut client = gate.connect();
        client.send([request("GET", &path, offer, b""), behind].concat());
        assert_eq!(client.response().text(), path, "{offer:?}");
        assert_eq!(client.response().code().as_deref(), Some("ip_filter.denied"), "the way past the policy: {offer:?}");
        assert_eq!(client.response().text(), "/behind");
        assert_eq!(strict.targets(from), [path.as_str(), "/behind"]);
    }
    for seen in strict.upstream.seen() {
        let upgrade = seen.field("upgrade");
        assert_eq!(upgrade.is_some(), seen.target() == "/offer/4", "{seen:?}");
        assert!(upgrade.is_none_or(|protocol| protocol == "websocket"), "{seen:?}");
        assert_eq!(seen.field("connection").as_deref(), seen.field("upgrade").map(|_| "upgrade"), "{seen:?}");
        assert_eq!((seen.field("http2-settings"), seen.field("keep-alive")), (None, None));
    }
    // A service that switches to something else, or to nothing that was asked for, is at fault there, too.
    let rogue = Upstream::script(move |peer| {
        while peer.request().is_ok() {
            peer.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n");
        }
    });
    let gate = Binary::start(&format!(
        "upstreams: {{ api: {{ endpoints: [{}] }} }}
routes: [{{ match: \"/{{*rest}}\", forward: api, websocket: true }}]",
        rogue.url()
    ));
    for offer in OFFERS {
        assert_eq!(gate.ask("GET", "/case", offer, b"").status(), 502, "{offer:?}");
    }
}

#[test]
fn the_frames_of_http_2_behind_an_upgrade_reach_nobody() {
    let strict = Strict::start();
    let gate = before(&strict.upstream, "");
    let mut client = gate.connect();
    client.send(request("GET", "/case", OFFERS[0], b""));
    let _ = client.try_send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    assert_eq!(client.response().text(), "/case");
    assert!(client.try_response("GET").map_or(true, |answer| answer.status() == 400));
    assert_eq!(strict.targets(0), ["/case"]);
}

#[test]
fn a_service_that_switches_protocols_unasked_is_at_fault() {
    for (head, offer) in [
        ("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n", OFFERS[4]),
        ("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n", OFFERS[0]),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n", &[]),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil", &[]),
    ] {
        let upstream = Upstream::script(move |peer| {
            while peer.request().is_ok() {
                peer.send(head);
            }
        });
        let gate = before(&upstream, "");
        let mut client = gate.connect();
        let answer = client.ask("GET", "/case", offer, b"");
        assert_eq!(answer.status(), 502, "{head:?}: {answer:?}");
        assert_eq!(answer.field("upgrade"), None);
        // The connection that was switched serves nobody else.
        assert_eq!(client.ask("GET", "/again", &[], b"").status(), 502);
        assert_eq!(upstream.connections(), 2);
    }
}
