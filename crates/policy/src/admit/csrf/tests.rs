//! What requests from other sites are held to, and what passes.

use http::{Method, StatusCode};
use proptest::prelude::*;
use pylon_core::body::Body;

use super::*;
use crate::testing::{Seen, compile, now, stopped};

fn post() -> Seen {
    Seen::get("/x").method(Method::POST).host("a.example").header("host", "a.example")
}

/// `passes`, or the code of the refusal.
fn met(policy: &Csrf, seen: &Seen) -> &'static str {
    let (mut req, mut cx) = seen.start();
    match now(policy.on_request(&mut req, &mut cx)) {
        Ok(_) => "passes",
        Err(stop) => stopped::<()>(Err(stop)),
    }
}

fn csrf(spec: &str) -> Csrf {
    compile(spec).unwrap()
}

#[test]
fn what_a_page_of_another_site_sends_is_refused_and_what_is_of_here_passes() {
    let policy = csrf(r#"{ "origins": ["https://app.example", "https://*.b.example"] }"#);
    for (fields, outcome) in [
        (&[("sec-fetch-site", "same-origin"), ("origin", "https://a.example")][..], "passes"),
        (&[("sec-fetch-site", "none")], "passes"),
        (&[("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")], "csrf.cross_site"),
        // Where Fetch metadata is there, an origin that looks like this host is of another page all the same.
        (&[("sec-fetch-site", "same-site"), ("origin", "http://a.example")], "csrf.cross_site"),
        (&[("sec-fetch-site", "cross-site"), ("origin", "https://app.example")], "passes"),
        (&[("sec-fetch-site", "same-site"), ("origin", "https://x.b.example")], "passes"),
        (&[("sec-fetch-site", "cross-site")], "csrf.cross_site"),
        (&[("sec-fetch-site", "Same-Origin")], "csrf.cross_site"),
        (&[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")], "csrf.cross_site"),
        (&[("origin", "http://a.example")], "passes"),
        (&[("origin", "https://a.example")], "passes"),
        (&[("origin", "https://a.example:8443")], "csrf.cross_site"),
        (&[("origin", "https://a.example.evil.example")], "csrf.cross_site"),
        (&[("origin", "https://evil.example")], "csrf.cross_site"),
        (&[("origin", "https://app.example")], "passes"),
        (&[("origin", "null")], "csrf.cross_site"),
        (&[("origin", "")], "csrf.cross_site"),
        (&[("origin", "https://a.example"), ("origin", "https://evil.example")], "csrf.cross_site"),
        (&[("cookie", "session=1")], "csrf.cross_site"),
        (&[("cookie", "session=1"), ("origin", "https://a.example")], "passes"),
        (&[("authorization", "Bearer x")], "passes"),
        (&[], "passes"),
    ] {
        let seen = fields.iter().fold(post(), |seen, (name, value)| seen.header(name, value));
        assert_eq!(met(&policy, &seen), outcome, "{fields:?}");
    }
}

#[test]
fn methods_that_change_nothing_pass_and_all_others_are_judged() {
    let evil = |method: Method| post().method(method).header("origin", "https://evil.example").header("cookie", "a=1");
    for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE] {
        assert_eq!(met(&csrf("true"), &evil(method)), "passes");
    }
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::from_bytes(b"PURGE").unwrap()] {
        assert_eq!(met(&csrf("true"), &evil(method)), "csrf.cross_site");
    }
}

#[test]
fn a_page_without_tls_does_not_act_on_a_host_with_it() {
    let seen = |origin| post().scheme(Scheme::Https).header("origin", origin);
    assert_eq!(met(&csrf("true"), &seen("http://a.example")), "csrf.cross_site");
    assert_eq!(met(&csrf("true"), &seen("https://a.example")), "passes");
    assert_eq!(met(&csrf("true"), &seen("https://a.example:443")), "passes");
    let port =
        Seen::get("/").method(Method::POST).header("host", "a.example:8443").header("origin", "http://a.example:8443");
    assert_eq!(met(&csrf("true"), &port), "passes");
}

#[test]
fn a_handshake_for_a_websocket_is_judged_though_it_is_a_get() {
    let policy = csrf("true");
    for (origin, outcome) in [("https://evil.example", "csrf.cross_site"), ("https://a.example", "passes")] {
        let (mut req, mut cx) = post().method(Method::GET).header("origin", origin).start();
        let key = Ok(HeaderValue::from_static("x"));
        cx.websocket = Some(Box::new(pylon_core::exchange::Handshake { key, allowed: false }));
        let outcome_of = match now(policy.on_request(&mut req, &mut cx)) {
            Ok(_) => "passes",
            Err(stop) => stopped::<()>(Err(stop)),
        };
        assert_eq!(outcome_of, outcome);
    }
}

#[test]
fn a_token_is_set_once_and_then_asked_for() {
    let policy = csrf(r#"{ "token": { "cookie": "__Host-csrf" } }"#);
    let set = |seen: Seen| {
        let (mut req, mut cx) = seen.start();
        let lacks = now(policy.on_request(&mut req, &mut cx)).unwrap();
        let mut res = Response::new(Body::Empty);
        now(policy.on_response(lacks, &mut res, &mut cx)).unwrap();
        assert_eq!(res.status(), StatusCode::OK);
        res.headers().get(SET_COOKIE).map(|value| value.to_str().unwrap().to_owned())
    };
    let first = set(Seen::get("/").scheme(Scheme::Https)).unwrap();
    assert!(first.starts_with("__Host-csrf=") && first.ends_with("; Path=/; SameSite=Lax; Secure"), "{first}");
    assert_ne!(Some(&first), set(Seen::get("/").scheme(Scheme::Https)).as_ref());
    let value = first.trim_start_matches("__Host-csrf=").split(';').next().unwrap();
    assert_eq!((value.len(), set(Seen::get("/").header("cookie", &format!("__Host-csrf={value}")))), (32, None));

    let sent = |cookie: &str, header: Option<&str>| {
        let seen = post().header("origin", "https://a.example").header("cookie", cookie);
        met(&policy, &header.map_or(seen.clone(), |header| seen.header("x-csrf-token", header)))
    };
    assert_eq!(sent("__Host-csrf=abc", Some("abc")), "passes");
    for (cookie, header) in [
        ("__Host-csrf=abc", None),
        ("__Host-csrf=abc", Some("abd")),
        ("__Host-csrf=abc", Some("")),
        ("__Host-csrf=", Some("")),
        ("__Host-csrf=abc; __Host-csrf=def", Some("abc")),
        ("session=1", Some("abc")),
    ] {
        assert_eq!(sent(cookie, header), "csrf.token", "{cookie} {header:?}");
    }
    // Nothing of a user's is sent along, so there is nothing to guard.
    assert_eq!(met(&policy, &post()), "passes");
    let evil =
        post().header("origin", "https://evil.example").header("cookie", "__Host-csrf=a").header("x-csrf-token", "a");
    assert_eq!(met(&policy, &evil), "csrf.cross_site");
}

#[test]
fn what_would_open_everything_is_an_error() {
    for (spec, place) in [
        (r#"{ "origins": "*" }"#, "origins[0]: "),
        (r#"{ "origins": ["https://a.example", "null"] }"#, "origins[1]: "),
        (r#"{ "token": { "cookie": "a b" } }"#, "token.cookie: "),
        (r#"{ "token": { "cookie": "a", "header": "host" } }"#, "token.header: "),
    ] {
        let error = compile::<Csrf>(spec).unwrap_err();
        assert!(error.starts_with(place), "{spec}: {error}");
    }
    for spec in
        ["false", "\"https://a.example\"", r#"{ "origin": "x" }"#, r#"{ "token": true }"#, r#"{ "token": null }"#]
    {
        assert!(compile::<Csrf>(spec).is_err(), "{spec}");
    }
}

proptest! {
    #[test]
    fn no_origin_but_its_own_acts_with_cookies(origin in "[ -~]{0,40}") {
        let seen = post().header("cookie", "a=1").header("origin", &origin);
        let passes = met(&csrf("true"), &seen) == "passes";
        let own = ["http://a.example", "https://a.example", "http://a.example:80", "https://a.example:443"];
        prop_assert!(!passes || own.contains(&origin.to_ascii_lowercase().trim_end_matches('.')));
    }
}
