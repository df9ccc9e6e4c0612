//! Failure 39: header limits that are hidden or cannot be changed.

use pylon_testkit::answer::Answer;
use pylon_testkit::client::request;
use pylon_testkit::upstream::Upstream;

use crate::forwarding::before;

/// A field of `length` bytes.
fn wide(length: usize) -> String {
    "v".repeat(length)
}

#[test]
fn a_request_with_headers_over_the_limit_is_told_which_limit() {
    let upstream = Upstream::named("x");
    let gate = before(&upstream, "");
    let mut client = gate.connect();
    // The gateway may answer before all of it is sent.
    let _ = client.try_send(request("GET", "/", &[("x-wide", &wide(70_000))], b""));
    let answer = client.response();
    assert_eq!((answer.status(), answer.code().as_deref()), (431, Some("request.headers_too_large")));
    assert_eq!(answer.json()["detail"], "the limit is 64KiB (limits.request_headers)");
    assert_eq!(answer.field("connection").as_deref(), Some("close"));
    client.expect_closed();
    assert_eq!(upstream.requests(), 0);
    let line = gate.logged("*");
    assert_eq!((line["status"].as_u64(), line["reason"].as_str()), (Some(431), Some("request.headers_too_large")));
}

#[test]
fn headers_of_more_than_32_kib_pass_by_default_both_ways() {
    let upstream = Upstream::http(|seen| Answer::new(200).field("x-back", &seen.field("x-wide").unwrap_or_default()));
    let gate = before(&upstream, "");
    let answer = gate.ask("GET", "/", &[("x-wide", &wide(40_000))], b"");
    assert_eq!((answer.status(), answer.field("x-back").map(|back| back.len())), (200, Some(40_000)));
}

#[test]
fn the_limits_of_headers_can_be_raised_and_lowered() {
    let upstream = Upstream::http(|seen| Answer::new(200).field("x-back", &seen.field("x-wide").unwrap_or_default()));
    let raised = before(&upstream, "limits: { request_headers: 256KiB, response_headers: 256KiB }");
    let answer = raised.ask("GET", "/", &[("x-wide", &wide(150_000))], b"");
    assert_eq!((answer.status(), answer.field("x-back").map(|back| back.len())), (200, Some(150_000)));
    let lowered = before(&upstream, "limits: { request_headers: 16KiB }");
    let mut client = lowered.connect();
    let _ = client.try_send(request("GET", "/", &[("x-wide", &wide(20_000))], b""));
    assert_eq!(client.response().json()["detail"], "the limit is 16KiB (limits.request_headers)");
}

#[test]
fn an_answer_with_headers_over_the_limit_is_a_502_whose_log_names_the_header_and_the_setting() {
    let upstream = Upstream::http(|_| Answer::new(200).field("x-wide", &wide(70_000)));
    let gate = before(&upstream, "");
    let answer = gate.get("/wide");
    assert_eq!((answer.status(), answer.code().as_deref()), (502, Some("upstream.headers_too_large")));
    assert!(!answer.text().contains("limits."), "settings are none of the client's business: {}", answer.text());
    let line = gate.logged("/wide");
    let detail = line["detail"].as_str().unwrap();
    assert!(detail.contains("65536 bytes") && detail.contains("`limits.response_headers`"), "{detail}");
    assert!(detail.contains("the largest is `x-wide` with 70008 bytes"), "{detail}");
}

#[test]
fn many_small_fields_are_as_good_as_a_few_large_ones() {
    let upstream = Upstream::echo();
    let gate = before(&upstream, "");
    let names: Vec<String> = (0..80).map(|number| format!("x-{number}")).collect();
    let fields: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    let answer = gate.ask("GET", "/", &fields, b"");
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(answer.json()["headers"]["x-79"], "1");
}

#[test]
fn a_target_that_is_too_long_is_told_so() {
    let gate = before(&Upstream::named("x"), "");
    let mut client = gate.connect();
    let _ = client.try_send(request("GET", &format!("/{}", wide(80_000)), &[], b""));
    let answer = client.response();
    assert_eq!((answer.status(), answer.code().as_deref()), (414, Some("request.uri_too_long")));
    assert_eq!(answer.json()["detail"], "the limit is 64KiB (limits.request_headers)");
    client.expect_closed();
}
