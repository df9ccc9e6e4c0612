//! What the tests of CORS hold it to: preflights, answers, `Vary`, and specs that would open more than was meant.

use super::*;
use crate::testing::{Seen, compile, now};
use http::header::VARY;
use proptest::prelude::*;

const A: &str = "https://a.example";

fn cors(spec: &str) -> Cors {
    compile(spec).unwrap()
}

fn preflight(policy: &Cors, seen: &Seen) -> Response {
    let (mut req, mut cx) = seen.start();
    match now(policy.on_request(&mut req, &mut cx)) {
        Err(Stop::Reply(response)) => response,
        other => panic!("{other:?}"),
    }
}

fn answer(policy: &Cors, seen: &Seen, upstream: &[(&'static str, &'static str)]) -> HeaderMap {
    let (mut req, mut cx) = seen.start();
    let grant = now(policy.on_request(&mut req, &mut cx)).unwrap();
    let mut res = Response::new(Body::Empty);
    for (name, value) in upstream {
        res.headers_mut().append(*name, HeaderValue::from_static(value));
    }
    now(policy.on_response(grant, &mut res, &mut cx)).unwrap();
    res.headers().clone()
}

fn asks(origin: &str, method: &str) -> Seen {
    Seen::options("/").header("origin", origin).header("access-control-request-method", method)
}

fn from(origin: &str) -> Seen {
    Seen::get("/").header("origin", origin)
}

fn text(headers: &HeaderMap, name: impl http::header::AsHeaderName) -> String {
    headers.get(name).map_or_else(String::new, |value| value.to_str().unwrap().into())
}

#[test]
fn a_preflight_is_answered_with_what_was_asked_for() {
    let response = preflight(
        &cors(r#""https://a.example""#),
        &asks(A, "PUT").header("access-control-request-headers", "x-a, x-b"),
    );
    assert_eq!(response.status(), 204);
    let headers = response.headers();
    assert_eq!(text(headers, ACCESS_CONTROL_ALLOW_ORIGIN), A);
    assert_eq!(text(headers, ACCESS_CONTROL_ALLOW_METHODS), "PUT");
    assert_eq!(text(headers, ACCESS_CONTROL_ALLOW_HEADERS), "x-a, x-b");
    assert_eq!(text(headers, ACCESS_CONTROL_MAX_AGE), "600");
    assert_eq!(text(headers, VARY), "Access-Control-Request-Method, Access-Control-Request-Headers, Origin");
    assert!(!headers.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS) && !headers.contains_key(&ALLOW_PRIVATE_NETWORK));
}

#[test]
fn a_preflight_is_answered_with_the_lists_of_the_document() {
    let policy = cors(
        r#"{ "origins": "https://*.example.com", "methods": ["GET", "PUT"], "headers": "x-tenant", "credentials": true,
             "max_age": "1h", "private_network": true }"#,
    );
    let seen = asks("https://x.example.com", "DELETE").header("access-control-request-headers", "x-other");
    let headers =
        preflight(&policy, &seen.clone().header("access-control-request-private-network", "true")).headers().clone();
    assert_eq!(text(&headers, ACCESS_CONTROL_ALLOW_ORIGIN), "https://x.example.com");
    assert_eq!(text(&headers, ACCESS_CONTROL_ALLOW_METHODS), "GET, PUT");
    assert_eq!(text(&headers, ACCESS_CONTROL_ALLOW_HEADERS), "x-tenant");
    assert_eq!(text(&headers, ACCESS_CONTROL_ALLOW_CREDENTIALS), "true");
    assert_eq!(text(&headers, ACCESS_CONTROL_MAX_AGE), "3600");
    assert_eq!(text(&headers, &ALLOW_PRIVATE_NETWORK), "true");
    let unasked = preflight(&policy, &seen);
    assert!(!unasked.headers().contains_key(&ALLOW_PRIVATE_NETWORK));
    assert!(text(unasked.headers(), VARY).ends_with("Origin, Access-Control-Request-Private-Network"));
}

#[test]
fn a_preflight_of_another_origin_gets_204_and_no_permission() {
    let response = preflight(&cors(r#""https://a.example""#), &asks("https://evil.example", "GET"));
    assert_eq!(response.status(), 204);
    assert!(response.headers().keys().all(|name| name == VARY), "{:?}", response.headers());
    assert!(text(response.headers(), VARY).contains("Origin"));
}

#[test]
fn what_only_looks_like_a_preflight_passes() {
    for seen in [
        Seen::options("/"),
        Seen::options("/").header("origin", A),
        Seen::options("/").header("access-control-request-method", "GET"),
        from(A).header("access-control-request-method", "GET"),
    ] {
        answer(&cors(r#""https://a.example""#), &seen, &[]);
    }
}

#[test]
fn an_answer_names_the_origin_and_what_a_page_may_read() {
    let policy = cors(
        r#"{ "origins": ["https://b.example", "https://a.example"], "expose": ["x-total", "x-next"], "credentials": true }"#,
    );
    let headers = answer(&policy, &from(A), &[]);
    assert_eq!(text(&headers, ACCESS_CONTROL_ALLOW_ORIGIN), A);
    assert_eq!(text(&headers, ACCESS_CONTROL_EXPOSE_HEADERS), "x-total, x-next");
    assert_eq!(text(&headers, ACCESS_CONTROL_ALLOW_CREDENTIALS), "true");
    assert_eq!(text(&headers, VARY), "Origin");
}

#[test]
fn the_cors_headers_of_a_service_are_replaced() {
    let theirs = [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-origin", "https://evil.example"),
        ("access-control-allow-credentials", "true"),
        ("access-control-expose-headers", "x-secret"),
        ("access-control-allow-methods", "DELETE"),
        ("vary", "accept-encoding"),
    ];
    let headers = answer(&cors(r#""https://a.example""#), &from(A), &theirs);
    assert_eq!(headers.get_all(ACCESS_CONTROL_ALLOW_ORIGIN).iter().collect::<Vec<_>>(), [A]);
    assert_eq!(text(&headers, VARY), "accept-encoding, Origin");
    assert_eq!(headers.len(), 2);
    for stranger in [from("https://evil.example"), Seen::get("/"), from(A).header("origin", A)] {
        let headers = answer(&cors(r#""https://a.example""#), &stranger, &theirs);
        assert_eq!((headers.len(), text(&headers, VARY).as_str()), (1, "accept-encoding, Origin"));
    }
}

#[test]
fn every_origin_gets_a_star_that_never_varies() {
    let policy = cors(r#"{ "origins": "*", "expose": "*" }"#);
    for seen in [from(A), Seen::get("/"), from("null")] {
        let headers = answer(&policy, &seen, &[]);
        assert_eq!(text(&headers, ACCESS_CONTROL_ALLOW_ORIGIN), "*");
        assert_eq!(text(&headers, ACCESS_CONTROL_EXPOSE_HEADERS), "*");
        assert!(!headers.contains_key(VARY) && !headers.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS));
    }
}

#[test]
fn a_spec_that_would_open_more_than_was_meant_is_an_error_at_its_place() {
    for (spec, place) in [
        (r#"{ "origins": "*", "credentials": true }"#, "origins[0]: "),
        (r#"{ "origins": ["https://a.example", "*"] }"#, "origins[1]: "),
        (r#"{ "origins": [] }"#, "origins: "),
        (r#"{ "origins": ["https://a.example/"] }"#, "origins[0]: "),
        (r#"{ "origins": "https://a.example", "methods": "get" }"#, "methods[0]: "),
        (r#"{ "origins": "https://a.example", "methods": ["GET", "*"] }"#, "methods[1]: "),
        (r#"{ "origins": "https://a.example", "headers": ["*"] }"#, "headers[0]: "),
        (r#"{ "origins": "https://a.example", "headers": ["x a"] }"#, "headers[0]: "),
        (r#"{ "origins": "https://a.example", "expose": "*", "credentials": true }"#, "expose[0]: "),
        (r#"{ "origins": "https://a.example", "expose": ["x-a", "*"] }"#, "expose[1]: "),
    ] {
        let error = compile::<Cors>(spec).unwrap_err();
        assert!(error.starts_with(place), "{spec}: {error}");
    }
    for spec in ["true", "\"a.example\"", "{}", r#"{ "origin": "*" }"#, r#"{ "origins": "*", "max_age": 600 }"#] {
        assert!(compile::<Cors>(spec).is_err(), "{spec}");
    }
}

proptest! {
    #[test]
    fn no_request_gets_more_than_its_own_origin(origin in "[ -~]{0,40}", method in "[ -~]{1,20}", names in "[ -~]{0,40}") {
        let policy = cors(r#"{ "origins": ["https://a.example", "https://*.b.example"] }"#);
        let headers = preflight(&policy, &asks(&origin, &method).header("access-control-request-headers", &names)).headers().clone();
        let allowed = text(&headers, ACCESS_CONTROL_ALLOW_ORIGIN);
        prop_assert!(allowed.is_empty() || (allowed == origin && (origin == A || origin.ends_with(".b.example"))));
        prop_assert!(text(&headers, VARY).contains("Origin"));
    }
}
