//! What the tests of the pipeline hold it to: order, ways back, stops, waiting, shadow, and the size of its futures.

use super::*;
use crate::registry::read_spec;
use crate::testing::{Frames, Json, Seen, compiling, run, stopped};
use http::HeaderMap;
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, RETRY_AFTER};

fn spec(key: &str, json: &str) -> AnySpec {
    read_spec(key, Json(json)).unwrap().unwrap()
}

fn probe(json: &str) -> AnySpec {
    spec("probe", json)
}

fn try_build(specs: &[AnySpec], shadow: &[&str]) -> Result<Pipeline, Vec<SpecError>> {
    let shadow: Vec<String> = shadow.iter().map(|key| (*key).into()).collect();
    compiling(|cx| Pipeline::build(specs, &shadow, cx))
}

fn build(specs: &[AnySpec], shadow: &[&str]) -> Pipeline {
    try_build(specs, shadow).unwrap()
}

fn render(stop: Stop, cx: &mut Exchange) -> Response {
    let rejection = match stop {
        Stop::Reply(reply) => return reply,
        Stop::Reject(rejection) => rejection,
    };
    cx.trail.refuse(&rejection);
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = rejection.reason.status();
    response
        .headers_mut()
        .extend(rejection.headers.into_iter().map(|(name, value)| (Some(name), value)).collect::<Vec<_>>());
    response
}

/// One request through the pipeline and back, as `serve` does it: what the service saw, if it saw anything, and the answer.
fn pass(pipeline: &Pipeline, seen: &Seen) -> (Option<HeaderMap>, Response, Box<Exchange>) {
    let (mut req, mut cx) = seen.start();
    let (memos, stop) = run(pipeline.request(&mut req, &mut cx));
    let (service, mut res) = match stop {
        None => (Some(req.headers().clone()), Response::new(Body::Empty)),
        Some(stop) => (None, render(stop, &mut cx)),
    };
    run(pipeline.response(memos, &mut res, &mut cx, render));
    (service, res, cx)
}

fn notes(headers: &HeaderMap) -> Vec<&str> {
    headers.get_all("x-probe").iter().map(|value| value.to_str().unwrap()).collect()
}

#[test]
fn policies_are_met_in_the_order_of_the_registry_however_they_are_written() {
    let specs = [
        spec("headers", r#"{ "request": { "set": { "x-a": "1" } } }"#),
        spec("cors", "\"https://a.example\""),
        spec("request_limits", r#"{ "body": "1MiB" }"#),
        spec("ip_filter", r#"{ "deny": "10.0.0.0/8" }"#),
        spec("maintenance", "true"),
        spec("https_redirect", "true"),
    ];
    let order = ["https_redirect", "maintenance", "ip_filter", "request_limits", "cors", "headers"];
    let forwards: Vec<_> = build(&specs, &[]).keys().map(|(key, _)| key).collect();
    assert_eq!(forwards, order);
    let backwards: Vec<_> = specs.iter().rev().cloned().collect();
    assert_eq!(build(&backwards, &[]).keys().map(|(key, _)| key).collect::<Vec<_>>(), order);
}

#[test]
fn the_way_back_is_the_way_in_reversed() {
    for waits in [false, true] {
        let specs: Vec<_> =
            ["a", "b", "c"].map(|name| probe(&format!(r#"{{ "name": "{name}", "waits": {waits} }}"#))).into();
        let (service, res, _) = pass(&build(&specs, &[]), &Seen::get("/"));
        assert_eq!(notes(&service.unwrap()), ["a", "b", "c"]);
        assert_eq!(notes(res.headers()), ["c", "b", "a"]);
    }
}

#[test]
fn a_stop_is_seen_by_those_who_were_reached_and_by_nobody_else() {
    for waits in [false, true] {
        let specs = [
            probe(r#"{ "name": "a" }"#),
            probe(&format!(r#"{{ "name": "b", "refuses": true, "waits": {waits} }}"#)),
            probe(r#"{ "name": "c" }"#),
        ];
        let (service, res, cx) = pass(&build(&specs, &[]), &Seen::get("/"));
        assert!(service.is_none());
        assert_eq!((res.status().as_u16(), notes(res.headers())), (503, vec!["a"]));
        assert_eq!(cx.trail.reason.map(|reason| reason.code), Some("gateway.overloaded"));
    }
}

#[test]
fn a_stop_on_the_way_out_replaces_the_response_and_those_outside_see_the_new_one() {
    for (back, status) in [("reply", 418), ("reject", 500)] {
        for waits in [false, true] {
            let specs = [
                probe(r#"{ "name": "a" }"#),
                probe(&format!(r#"{{ "name": "b", "back": "{back}", "waits": {waits} }}"#)),
                probe(r#"{ "name": "c" }"#),
            ];
            let (_, res, _) = pass(&build(&specs, &[]), &Seen::get("/"));
            assert_eq!((res.status().as_u16(), notes(res.headers())), (status, vec!["a"]));
        }
    }
}

/// FAILURES 48: a page can read why the gateway refused.
#[test]
fn a_refusal_made_behind_cors_carries_the_cors_headers() {
    let pipeline = build(&[spec("cors", "\"https://a.example\"")], &[]);
    let (mut req, mut cx) = Seen::get("/").header("origin", "https://a.example").start();
    let (memos, stop) = run(pipeline.request(&mut req, &mut cx));
    assert!(stop.is_none());
    let refusal = pylon_core::rejection::UPSTREAM_CONNECT.with_header(RETRY_AFTER, 1.into());
    let mut res = render(refusal.into(), &mut cx);
    run(pipeline.response(memos, &mut res, &mut cx, render));
    assert_eq!(res.status(), 502);
    assert_eq!(res.headers()[ACCESS_CONTROL_ALLOW_ORIGIN], "https://a.example");
}

/// FAILURES 48: what a guard refuses, before CORS was reached, can be read as well; the service's policies stay out.
#[test]
fn a_refusal_of_a_guard_carries_the_cors_headers_of_the_route() {
    let specs = [
        spec("maintenance", r#"{ "allow": "192.0.2.0/24" }"#),
        spec("ip_filter", r#"{ "deny": "192.0.2.1" }"#),
        spec("request_limits", r#"{ "body": "1B" }"#),
        spec("cors", "\"https://a.example\""),
        spec("headers", r#"{ "response": { "set": { "x-a": "1" } } }"#),
    ];
    let pipeline = build(&specs, &[]);
    for (client, body, status) in [("198.51.100.1", "", 503), ("192.0.2.1", "", 403), ("192.0.2.2", "12", 413)] {
        for (origin, granted) in [("https://a.example", true), ("https://evil.example", false)] {
            let seen = Seen::get("/").client(client).body(body).header("origin", origin);
            let seen = seen.header("content-length", &body.len().to_string());
            let (service, res, _) = pass(&pipeline, &seen);
            assert_eq!((service.is_some(), res.status().as_u16()), (false, status));
            assert_eq!(res.headers().contains_key(ACCESS_CONTROL_ALLOW_ORIGIN), granted, "{status} {origin}");
            assert!(!res.headers().contains_key("x-a"));
            assert_eq!(res.headers()["vary"], "Origin");
        }
    }
}

#[test]
fn a_verdict_in_shadow_is_noted_and_not_enforced() {
    let specs = [
        spec("maintenance", "true"),
        spec("ip_filter", r#"{ "deny": "192.0.2.0/24" }"#),
        spec("request_limits", r#"{ "body": "1B", "content_types": "text/plain" }"#),
    ];
    let pipeline = build(&specs, &["ip_filter", "maintenance", "request_limits"]);
    let (service, res, cx) = pass(&pipeline, &Seen::get("/").body("12").header("content-length", "2"));
    assert!(service.is_some() && res.status() == 200);
    let shadowed = [
        ("maintenance", "maintenance.on"),
        ("ip_filter", "ip_filter.denied"),
        ("request_limits", "request_limits.body"),
    ];
    assert_eq!(cx.trail.shadowed, shadowed);
    assert!(cx.trail.reason.is_none());

    let (_, _, cx) = pass(&build(&specs[1..2], &["ip_filter"]), &Seen::get("/").client("198.51.100.1"));
    assert!(cx.trail.shadowed.is_empty());
}

#[test]
fn what_a_policy_changes_in_shadow_takes_no_effect() {
    for waits in [false, true] {
        let shadowed = build(&[probe(&format!(r#"{{ "name": "a", "waits": {waits} }}"#))], &["probe"]);
        let (service, res, _) = pass(&shadowed, &Seen::get("/"));
        assert!(notes(&service.unwrap()).is_empty() && notes(res.headers()).is_empty());
    }
    let pipeline =
        build(&[spec("request_limits", r#"{ "body": "1B", "content_types": "text/plain" }"#)], &["request_limits"]);
    let (mut req, mut cx) = Seen::get("/").start();
    *req.body_mut() = Body::stream(Frames::of(&[5]));
    let (_, stop) = run(pipeline.request(&mut req, &mut cx));
    assert!(stop.is_none());
    assert_eq!(cx.trail.shadowed, [("request_limits", "request_limits.content_type")]);
    assert_eq!(crate::testing::read(req.into_body()).map(|(bytes, _)| bytes), Ok(5));
}

#[test]
fn only_policies_that_judge_can_run_in_shadow() {
    let specs = [spec("ip_filter", r#"{ "deny": "10.0.0.0/8" }"#), spec("cors", "\"*\"")];
    let told = |shadow: &[&str]| -> Vec<(String, String)> {
        try_build(&specs, shadow).unwrap_err().into_iter().map(|error| (error.at.to_string(), error.problem)).collect()
    };
    assert_eq!(
        told(&["ip_filter", "cors", "ip_fliter"]),
        [
            (
                "shadow[1]".into(),
                "`cors` gives no verdict: it answers or transforms, and in shadow it would do nothing".to_owned()
            ),
            ("shadow[2]".into(), "no policy is named `ip_fliter`".into()),
        ]
    );
    assert!(told(&["headers"]).len() == 1 && told(&["https_redirect"]).len() == 1);
    assert_eq!(told(&["maintenance"])[0].1, "there is no `maintenance` here that could run in shadow");
    assert_eq!(build(&specs, &["ip_filter"]).keys().collect::<Vec<_>>(), [("ip_filter", true), ("cors", false)]);
}

#[test]
fn all_errors_come_at_once_with_the_key_of_their_policy() {
    let specs = [
        spec("ip_filter", "{}"),
        spec("cors", r#"{ "origins": ["a.example", "https://a.example", "null"] }"#),
        spec("headers", r#"{ "request": { "remove": ["via"] } }"#),
    ];
    let places: Vec<_> = try_build(&specs, &["waf"]).unwrap_err().iter().map(|error| error.at.to_string()).collect();
    assert_eq!(places, ["shadow[0]", "ip_filter", "cors.origins[0]", "cors.origins[2]", "headers.request.remove[0]"]);
}

/// The futures of `serve` must stay under 1 KiB, and these are part of it.
#[test]
fn the_futures_are_small_and_can_be_sent() {
    fn size<F: Future + Send>(future: &F) -> usize {
        size_of_val(future)
    }
    let pipeline = build(&[probe(r#"{ "name": "a", "waits": true }"#)], &[]);
    let (mut req, mut cx) = Seen::get("/").start();
    let inward = size(&pipeline.request(&mut req, &mut cx));
    let mut res = Response::new(Body::Empty);
    let outward = size(&pipeline.response(Memos::default(), &mut res, &mut cx, render));
    assert!(inward <= 384 && outward <= 384, "{inward} bytes in, {outward} bytes out");
}

#[test]
fn a_preflight_meets_the_guards_and_nothing_behind_cors() {
    let specs = [
        spec("cors", "\"*\""),
        spec("ip_filter", r#"{ "deny": "10.0.0.0/8" }"#),
        spec("headers", r#"{ "response": { "set": { "x-a": "1" } } }"#),
    ];
    let pipeline = build(&specs, &[]);
    let preflight =
        Seen::options("/").header("origin", "https://a.example").header("access-control-request-method", "PUT");
    let (service, res, _) = pass(&pipeline, &preflight);
    assert!(service.is_none() && res.status() == 204 && !res.headers().contains_key("x-a"));
    let (mut req, mut cx) = preflight.client("10.1.1.1").start();
    let (_, stop) = run(pipeline.request(&mut req, &mut cx));
    assert_eq!(stopped(stop.map_or(Ok(()), Err)), "ip_filter.denied");
}
