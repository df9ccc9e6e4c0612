//! Failures 7, 8 and 9: a client forges or deletes what the gateway vouches for, or picks the address that it is judged by.

use pylon_testkit::answer::chunk;
use pylon_testkit::binary::Binary;
use pylon_testkit::client::request;
use pylon_testkit::message::Message;
use pylon_testkit::upstream::Upstream;

use crate::before;

/// What only the gateway says.
const VOUCHED: [&str; 8] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
];

/// A name with `-` and `_` in every combination, in three cases.
fn spellings(name: &str) -> Vec<String> {
    let gaps: Vec<usize> = name.match_indices('-').map(|(at, _)| at).collect();
    let mut all = Vec::new();
    for bits in 0..1_u32 << gaps.len() {
        let mut spelled = name.to_owned();
        for (_, at) in gaps.iter().enumerate().filter(|(nth, _)| bits >> nth & 1 == 1) {
            spelled.replace_range(*at..=*at, "_");
        }
        all.extend([spelled.to_uppercase(), spelled.clone(), spelled[..1].to_uppercase() + &spelled[1..]]);
    }
    all
}

/// The values of every field of `seen` that reads as `name`, whatever its hyphens.
fn alike(seen: &Message, name: &str) -> Vec<(String, String)> {
    seen.fields.iter().filter(|(other, _)| other.replace('_', "-") == name).cloned().collect()
}

#[test]
fn no_spelling_of_a_forwarding_field_gets_past() {
    let upstream = Upstream::echo();
    let gate = before(&upstream, "");
    let mut client = gate.connect();
    for name in VOUCHED {
        for spelled in spellings(name) {
            for value in ["for=6.6.6.6", "6.6.6.6", "evil.test", "https", ""] {
                let twice = [(spelled.as_str(), value), ("x-between", "1"), (spelled.as_str(), value)];
                assert_eq!(client.ask("GET", "/", &twice, b"").status(), 200);
            }
        }
    }
    for seen in upstream.seen() {
        let text = format!("{:?}", seen.fields);
        assert!(!text.contains("6.6.6.6") && !text.contains("evil") && !text.contains("https"), "{text}");
        for name in ["x-forwarded-port", "x-forwarded-prefix", "x-real-ip"] {
            assert_eq!(alike(&seen, name), [], "{text}");
        }
        for (name, value) in
            [("x-forwarded-for", "127.0.0.1"), ("x-forwarded-proto", "http"), ("x-forwarded-host", "gate.test")]
        {
            assert_eq!(alike(&seen, name), [(name.to_owned(), value.to_owned())], "{text}");
        }
        assert_eq!((alike(&seen, "forwarded").len(), alike(&seen, "x-request-id").len()), (1, 1), "{text}");
    }
}

#[test]
fn no_value_of_connection_deletes_what_the_gateway_says() {
    let upstream = Upstream::echo();
    let gate = before(&upstream, "");
    let all = VOUCHED.join(", ") + ", via, host, content-length, x-hop";
    let values = [
        all.clone(),
        all.to_uppercase(),
        format!("close, {all}"),
        "X-Forwarded-For".into(),
        "x_forwarded_for, via".into(),
        ",,x-forwarded-host,".into(),
        "\tx-request-id\t".into(),
        "keep-alive,forwarded".into(),
    ];
    for value in values {
        let answer = gate.ask("POST", "/", &[("connection", &value), ("x-hop", "1")], b"hello");
        assert_eq!((answer.status(), answer.json()["body"].as_str()), (200, Some("hello")));
        let seen = upstream.last();
        for name in [
            "forwarded",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-request-id",
            "via",
            "host",
            "content-length",
        ] {
            assert_eq!(alike(&seen, name).len(), 1, "{value}: {name} of {seen:?}");
        }
        assert_eq!(seen.field("connection"), None);
        assert_eq!(seen.field("x-request-id"), answer.field("x-request-id"));
    }
}

#[test]
fn what_is_vouched_for_cannot_come_as_a_trailer() {
    let upstream = Upstream::echo();
    let gate = before(&upstream, "");
    let names = VOUCHED.into_iter().chain([
        "content-length",
        "transfer-encoding",
        "host",
        "connection",
        "te",
        "trailer",
        "authorization",
        "cookie",
        "upgrade",
        "via",
        "expect",
    ]);
    for spelled in names.flat_map(spellings) {
        let body = [chunk(b"hello"), format!("0\r\n{spelled}: 6.6.6.6\r\nx-sum: 5\r\n\r\n").into_bytes()].concat();
        let fields = [("transfer-encoding", "chunked"), ("te", "trailers"), ("trailer", &spelled)];
        assert_eq!(gate.ask("POST", "/", &fields, &body).status(), 200, "{spelled}");
        assert_eq!(upstream.last().trailers, [("x-sum".to_owned(), "5".to_owned())], "{spelled}");
    }
}

#[test]
fn a_field_that_the_document_sets_cannot_be_had_beforehand() {
    let upstream = Upstream::echo();
    let gate = Binary::start(&format!(
        "upstreams: {{ api: {{ endpoints: [{}] }} }}
routes:
  - match: \"/{{*rest}}\"
    forward: api
    headers: {{ request: {{ set: {{ x-user-id: \"{{client.ip}}\", x-tenant: blue }}, remove: [x-internal-role] }} }}",
        upstream.url()
    ));
    for name in ["x-user-id", "x-tenant", "x-internal-role"] {
        for spelled in spellings(name) {
            for connection in ["keep-alive", spelled.as_str()] {
                let fields = [(spelled.as_str(), "root"), ("connection", connection), (spelled.as_str(), "admin")];
                assert_eq!(gate.ask("GET", "/", &fields, b"").status(), 200);
                let seen = upstream.last();
                assert_eq!(alike(&seen, "x-user-id"), [("x-user-id".to_owned(), "127.0.0.1".to_owned())], "{spelled}");
                assert_eq!(alike(&seen, "x-tenant"), [("x-tenant".to_owned(), "blue".to_owned())], "{spelled}");
                assert_eq!(alike(&seen, "x-internal-role"), [], "{spelled}");
            }
            let body = [chunk(b"hello"), format!("0\r\n{spelled}: root\r\n\r\n").into_bytes()].concat();
            let fields = [("transfer-encoding", "chunked"), ("te", "trailers")];
            assert_eq!(gate.ask("POST", "/", &fields, &body).status(), 200, "{spelled}");
            assert_eq!(upstream.last().trailers, [], "{spelled}");
        }
    }
}

/// A gateway with a filter by address that lets 203.0.113.0/24 in.
fn filtered(upstream: &Upstream, trusted: &str) -> Binary {
    Binary::start(&format!(
        "{trusted}
upstreams: {{ api: {{ endpoints: [{}] }} }}
routes: [{{ match: \"/{{*rest}}\", forward: api, ip_filter: {{ allow: 203.0.113.0/24 }} }}]",
        upstream.url()
    ))
}

#[test]
fn by_default_no_forwarding_field_is_believed() {
    let upstream = Upstream::echo();
    for trusted in ["", "trusted_proxies: [10.0.0.0/8]"] {
        let gate = filtered(&upstream, trusted);
        for (index, name) in
            ["x-forwarded-for", "forwarded", "x-real-ip", "x_forwarded_for", "true-client-ip", "x-client-ip"]
                .into_iter()
                .enumerate()
        {
            for (way, value) in ["203.0.113.9", "for=203.0.113.9", "203.0.113.9, 127.0.0.1"].into_iter().enumerate() {
                let path = format!("/{index}/{way}");
                assert_eq!(gate.ask("GET", &path, &[(name, value)], b"").status(), 403, "{name}: {value}");
                assert_eq!(gate.logged(&path)["client"], "127.0.0.1");
            }
        }
    }
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn filter_log_and_service_agree_on_the_rightmost_address_that_is_not_trusted() {
    let upstream = Upstream::echo();
    let gate = filtered(&upstream, "trusted_proxies: [127.0.0.1, 10.0.0.0/8]");
    let cases: [(&[(&str, &str)], &str); 14] = [
        (&[("x-forwarded-for", "203.0.113.9")], "203.0.113.9"),
        (&[("x-forwarded-for", "198.51.100.1, 203.0.113.9")], "203.0.113.9"),
        (&[("x-forwarded-for", "203.0.113.9, 198.51.100.1")], "198.51.100.1"),
        (&[("x-forwarded-for", "203.0.113.9, 10.0.0.7")], "203.0.113.9"),
        (&[("x-forwarded-for", "203.0.113.9, 198.51.100.1, 10.0.0.7")], "198.51.100.1"),
        (&[("x-forwarded-for", "203.0.113.9"), ("x-forwarded-for", "198.51.100.1")], "198.51.100.1"),
        (&[("x-forwarded-for", "203.0.113.9, junk, 10.0.0.7")], "10.0.0.7"),
        (&[("x-forwarded-for", "203.0.113.9, ")], "127.0.0.1"),
        (&[("x-forwarded-for", "203.0.113.9:4711")], "203.0.113.9"),
        (&[("x-forwarded-for", "::ffff:203.0.113.9")], "203.0.113.9"),
        (&[("x_forwarded_for", "203.0.113.9")], "127.0.0.1"),
        (&[("x-real-ip", "203.0.113.9")], "127.0.0.1"),
        (&[("forwarded", "for=203.0.113.9")], "127.0.0.1"),
        (&[("forwarded", "for=203.0.113.9"), ("x-forwarded-for", "198.51.100.1")], "198.51.100.1"),
    ];
    for (index, (fields, client)) in cases.into_iter().enumerate() {
        let path = format!("/{index}");
        let status = gate.ask("GET", &path, fields, b"").status();
        assert_eq!(status, if client.starts_with("203.") { 200 } else { 403 }, "{fields:?}");
        assert_eq!(gate.logged(&path)["client"], client, "{fields:?}");
        if status == 200 {
            let sent = upstream.last().field("x-forwarded-for").unwrap();
            let hops: Vec<&str> = sent.split(", ").collect();
            assert_eq!(hops.last(), Some(&"127.0.0.1"), "{fields:?}: {sent}");
            let judged = hops.iter().rev().find(|hop| !hop.starts_with("127.") && !hop.starts_with("10.")).unwrap();
            let judged = judged.trim_start_matches("::ffff:").split(':').next();
            assert_eq!(judged, Some(client), "the service, by the same rule, finds another in {sent}");
        }
    }
}

#[test]
fn where_proxies_write_forwarded_the_other_fields_are_not_believed() {
    let upstream = Upstream::echo();
    let gate = filtered(&upstream, "trusted_proxies: { networks: [127.0.0.1, 10.0.0.0/8], header: forwarded }");
    let cases: [(&[(&str, &str)], &str); 6] = [
        (&[("forwarded", "for=198.51.100.1, for=203.0.113.9;proto=https")], "203.0.113.9"),
        (&[("forwarded", "for=203.0.113.9, for=\"198.51.100.1:80\", for=10.0.0.7")], "198.51.100.1"),
        (&[("forwarded", "for=203.0.113.9"), ("forwarded", "For=198.51.100.1")], "198.51.100.1"),
        (&[("forwarded", "for=203.0.113.9, for=unknown")], "127.0.0.1"),
        (&[("x-forwarded-for", "203.0.113.9")], "127.0.0.1"),
        (&[("forwarded", "for=198.51.100.1"), ("x-forwarded-for", "203.0.113.9")], "198.51.100.1"),
    ];
    for (index, (fields, client)) in cases.into_iter().enumerate() {
        let path = format!("/{index}");
        let status = gate.ask("GET", &path, fields, b"").status();
        assert_eq!(status, if client.starts_with("203.") { 200 } else { 403 }, "{fields:?}");
        assert_eq!(gate.logged(&path)["client"], client, "{fields:?}");
    }
}

#[test]
fn an_answer_cannot_forge_what_the_gateway_says_of_itself() {
    let upstream = Upstream::http(|_| {
        pylon_testkit::answer::Answer::text("x")
            .field("x-pylon-reason", "ip_filter.denied")
            .field("x-request-id", "forged")
            .field("connection", "x-secret, x-request-id")
            .field("x-secret", "1")
    });
    let gate = before(&upstream, "telemetry: { reason_header: true }");
    let answer = gate.connect().send(request("GET", "/", &[], b"")).response();
    assert_eq!((answer.field("x-pylon-reason"), answer.field("x-secret")), (None, None));
    assert_eq!(answer.field("x-request-id"), upstream.last().field("x-request-id"));
}
