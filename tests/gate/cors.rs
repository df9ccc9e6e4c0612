//! Failure 48: CORS against the order of policies, and errors of the gateway that a page cannot read.

use pylon_testkit::answer::{Answer, alphabet, chunk};
use pylon_testkit::binary::Binary;
use pylon_testkit::message::Message;
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::ms;

const PAGE: &str = "https://page.example";
const ORIGIN: (&str, &str) = ("origin", "https://a.example");

fn gate(upstream: &str, more: &str) -> Binary {
    Binary::start(&format!(
        "upstreams: {{ api: {{ endpoints: [{upstream}], timeout: 200ms }} }}
defaults: {{ cors: \"https://a.example\"{more} }}
routes: [{{ match: \"GET,POST /api/{{*rest}}\", forward: api }}]"
    ))
}

fn can_be_read(answer: &Message, status: u16) {
    assert_eq!(answer.status(), status, "{}", answer.text());
    assert_eq!(answer.field("access-control-allow-origin").as_deref(), Some("https://a.example"), "{status}");
    assert!(answer.field("vary").is_some_and(|vary| vary.contains("Origin")), "{status}");
}

fn preflight(gate: &Binary) -> Message {
    let fields = [ORIGIN, ("access-control-request-method", "POST"), ("access-control-request-headers", "x-a")];
    gate.ask("OPTIONS", "/api/x", &fields, b"")
}

#[test]
fn a_preflight_is_answered_before_limits_and_without_the_service() {
    let gate = gate("http://127.0.0.1:1", ", headers: { response: { set: { x-seen: \"1\" } } }");
    let answer = preflight(&gate);
    can_be_read(&answer, 204);
    assert_eq!(answer.field("access-control-allow-methods").as_deref(), Some("POST"));
    assert_eq!(answer.field("access-control-allow-headers").as_deref(), Some("x-a"));
}

#[test]
fn only_what_guards_the_gate_stands_before_a_preflight() {
    let guarded = gate("http://127.0.0.1:1", ", ip_filter: { deny: 127.0.0.1 }");
    can_be_read(&preflight(&guarded), 403);
}

#[test]
fn what_a_guard_refuses_can_be_read_by_a_page() {
    for (guard, status) in [
        ("ip_filter: { deny: 127.0.0.1 }", 403),
        ("maintenance: true", 503),
        ("request_limits: { body: 1KiB }", 413),
        ("request_limits: { uri: 5B }", 414),
        ("https_redirect: true", 308),
    ] {
        let guarded = gate("http://127.0.0.1:1", &format!(", {guard}"));
        for path in ["/api/x", "/nowhere"] {
            can_be_read(&guarded.ask("POST", path, &[ORIGIN], &alphabet(2000)), status);
        }
        let stranger = guarded.ask("POST", "/api/x", &[("origin", "https://evil.example")], &alphabet(2000));
        assert_eq!((stranger.status(), stranger.field("access-control-allow-origin")), (status, None));
    }
}

#[test]
fn errors_of_the_gateway_can_be_read_by_a_page() {
    let nobody = gate(&format!("http://{}", Upstream::nobody()), "");
    can_be_read(&nobody.ask("GET", "/api/x", &[ORIGIN], b""), 502);
    can_be_read(&nobody.ask("GET", "/nowhere", &[ORIGIN], b""), 404);
    can_be_read(&nobody.ask("DELETE", "/api/x", &[ORIGIN], b""), 405);
    // A length that stands in the head is refused before the body is read, this one while it streams.
    let body = [chunk(&alphabet(2000)), b"0\r\n\r\n".to_vec()].concat();
    let echo = Upstream::echo();
    let limited = gate(&echo.url(), ", request_limits: { body: 1KiB }");
    can_be_read(&limited.ask("POST", "/api/x", &[ORIGIN, ("transfer-encoding", "chunked")], &body), 413);
    let silent = Upstream::script(|peer| {
        if peer.request().is_ok() {
            peer.wait_for_end(ms(5000));
        }
    });
    can_be_read(&gate(&silent.url(), "").ask("GET", "/api/x", &[ORIGIN], b""), 504);
}

/// Browsers send no credentials with a preflight, and a page has to be able to read why it was turned away.
#[test]
fn a_preflight_is_answered_before_anybody_asks_who_it_is_and_who_is_turned_away_can_read_why() {
    let service = Upstream::echo();
    let gate = Binary::start(&format!(
        "consumers: {{ app: {{ keys: [\"sha256:625ec9a8bfc54cc62de07d58b187d9e967e1fbcaa61cf9acd03ce7995c261a8d\"] }} }}
upstreams: {{ api: {{ endpoints: [{}] }}, verdicts: {{ endpoints: [\"http://{}\"] }} }}
defaults: {{ cors: \"https://a.example\", api_key: x-api-key }}
routes:
  - {{ match: \"GET,POST /api/{{*rest}}\", forward: api }}
  - {{ match: \"GET,POST /closed\", forward: api, require: {{ scopes: [admin] }} }}
  - {{ match: \"GET,POST /asked\", forward: api, external: {{ http: verdicts }} }}",
        service.url(),
        Upstream::nobody()
    ));
    for path in ["/api/x", "/closed", "/asked"] {
        let fields =
            [ORIGIN, ("access-control-request-method", "POST"), ("access-control-request-headers", "x-api-key")];
        can_be_read(&gate.ask("OPTIONS", path, &fields, b""), 204);
        can_be_read(&gate.ask("GET", path, &[ORIGIN], b""), 401);
        can_be_read(&gate.ask("GET", path, &[ORIGIN, ("x-api-key", "wrong")], b""), 401);
    }
    let key = ("x-api-key", "key-of-shop");
    can_be_read(&gate.ask("GET", "/api/x", &[ORIGIN, key], b""), 200);
    can_be_read(&gate.ask("GET", "/closed", &[ORIGIN, key], b""), 403);
    can_be_read(&gate.ask("GET", "/asked", &[ORIGIN, key], b""), 503);
    assert_eq!(service.requests(), 1);
}

#[test]
fn a_page_of_another_origin_can_read_none_of_it() {
    let gate = gate("http://127.0.0.1:1", "");
    for path in ["/api/x", "/nowhere"] {
        let answer = gate.ask("GET", path, &[("origin", "https://evil.example")], b"");
        assert_eq!(answer.field("access-control-allow-origin"), None);
        assert!(answer.field("vary").is_some_and(|vary| vary.contains("Origin")));
    }
}

/// A gateway whose routes look for callers, before a service that speaks of other pages.
fn guarded() -> (Binary, Upstream) {
    let service = Upstream::http(|_| {
        Answer::text("x").field("access-control-allow-origin", "https://evil.example").field("vary", "accept-encoding")
    });
    let gate = Binary::start(&format!(
        "consumers: {{ app: {{ keys: [\"sha256:625ec9a8bfc54cc62de07d58b187d9e967e1fbcaa61cf9acd03ce7995c261a8d\"] }} }}
defaults: {{ cors: {{ origins: [\"{PAGE}\", \"https://*.page.example\"], credentials: true }} }}
upstreams: {{ api: {{ endpoints: [\"{}\"] }} }}
routes:
  - {{ match: \"/{{*rest}}\", forward: api, api_key: x-api-key, csrf: true, mint: {{ issuer: g, audience: a }} }}
  - {{ match: /closed, forward: api, api_key: x-api-key, require: {{ scopes: none }} }}
",
        service.url()
    ));
    (gate, service)
}

#[test]
fn whatever_the_gateway_answers_a_page_can_read_it_and_caches_can_tell_pages_apart() {
    let ((gate, _service), key) = (guarded(), ("x-api-key", "key-of-shop"));
    let ask = |origin: &str, fields: &[(&str, &str)]| {
        let ((method, path), rest) = fields.split_first().unwrap();
        let fields: Vec<_> = [("origin", origin)].into_iter().chain(rest.iter().copied()).collect();
        gate.ask(method, path, &fields, b"")
    };
    for (fields, status) in [
        (
            &[
                ("OPTIONS", "/x"),
                ("access-control-request-method", "PUT"),
                ("access-control-request-headers", "x-api-key"),
            ][..],
            204,
        ),
        (&[("GET", "/x")], 401),
        (&[("GET", "/x"), ("x-api-key", "wrong")], 401),
        (&[("GET", "/closed"), key], 403),
        (&[("POST", "/x"), key, ("sec-fetch-site", "cross-site")], 403),
        (&[("GET", "/x"), key], 200),
        (&[("GET", "/.well-known/jwks.json")], 200),
    ] {
        for origin in [PAGE, "https://a.b.page.example"] {
            let answer = ask(origin, fields);
            assert_eq!(answer.status(), status, "{fields:?}: {}", answer.text());
            assert_eq!(answer.field("access-control-allow-origin").as_deref(), Some(origin), "{fields:?}");
            assert_eq!(answer.field("access-control-allow-credentials").as_deref(), Some("true"), "{fields:?}");
            assert!(answer.field("vary").is_some_and(|vary| vary.contains("Origin")), "{fields:?}");
        }
        for stranger in ["https://evil.example", "null", "https://page.example.evil.example"] {
            let answer = ask(stranger, fields);
            assert_eq!(answer.status(), status, "{fields:?}");
            assert_eq!(answer.field("access-control-allow-origin"), None, "{fields:?}");
            assert!(answer.field("vary").is_some_and(|vary| vary.contains("Origin")), "{fields:?}");
        }
    }
}
