//! Holds what came of a step against what was expected of it.

use std::collections::BTreeMap;

use pylon_testkit::message::Message;
use serde_json::Value;

use crate::case::{Expect, Seen};
use crate::stage::Played;

/// Everything that differs, in one text.
pub(crate) fn check(expect: &Expect, played: &Played) -> Result<(), String> {
    let mut wrong = Vec::new();
    let answer = &played.answer;
    if answer.status() != expect.status {
        wrong.push(format!(
            "the status is {}, not {}; the body is {:?}",
            answer.status(),
            expect.status,
            answer.text()
        ));
    }
    fields(&mut wrong, "the answer", answer, &expect.header, &expect.no_header);
    if let Some(body) = &expect.body
        && *body != answer.text()
    {
        wrong.push(format!("the body is {:?}, not {body:?}", answer.text()));
    }
    if let Some(json) = &expect.json {
        match serde_json::from_slice(&answer.body) {
            Ok(body) => members(&mut wrong, "body", json, &body),
            Err(error) => wrong.push(format!("the body is no JSON ({error}): {:?}", answer.text())),
        }
    }
    if let Some(calls) = expect.upstream_calls
        && calls != played.seen.len()
    {
        wrong.push(format!("the services saw {} requests, not {calls}", played.seen.len()));
    }
    if let Some(seen) = &expect.upstream {
        upstream(&mut wrong, seen, played);
    }
    if let (Some(log), Some(line)) = (&expect.log, &played.log) {
        members(&mut wrong, "log", log, line);
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n  ")) }
}

fn upstream(wrong: &mut Vec<String>, seen: &Seen, played: &Played) {
    let Some((name, request)) = played.seen.last() else {
        wrong.push("no service saw the request".to_owned());
        return;
    };
    for (what, expected, is) in [
        ("the service", &seen.name, name.as_str()),
        ("the method that the service saw", &seen.method, request.method()),
        ("the path that the service saw", &seen.path, request.target()),
        ("the body that the service saw", &seen.body, &request.text()),
    ] {
        if let Some(expected) = expected
            && expected != is
        {
            wrong.push(format!("{what} is {is:?}, not {expected:?}"));
        }
    }
    fields(wrong, "the request that the service saw", request, &seen.header, &seen.no_header);
}

fn fields(
    wrong: &mut Vec<String>,
    whose: &str,
    message: &Message,
    expected: &BTreeMap<String, String>,
    absent: &[String],
) {
    for (name, value) in expected {
        match message.field(&name.to_ascii_lowercase()) {
            Some(is) if is == *value => {}
            Some(is) => wrong.push(format!("`{name}` of {whose} is {is:?}, not {value:?}")),
            None => wrong.push(format!("{whose} has no `{name}`")),
        }
    }
    for name in absent {
        if let Some(is) = message.field(&name.to_ascii_lowercase()) {
            wrong.push(format!("{whose} has `{name}`: {is:?}"));
        }
    }
}

/// The members of an object that are expected, and theirs; all else must be equal.
fn members(wrong: &mut Vec<String>, at: &str, expected: &Value, is: &Value) {
    match (expected, is) {
        (Value::Object(expected), Value::Object(is)) => {
            for (key, value) in expected {
                match is.get(key) {
                    Some(is) => members(wrong, &format!("{at}.{key}"), value, is),
                    None => wrong.push(format!("there is no {at}.{key}")),
                }
            }
        }
        _ if expected == is => {}
        _ => wrong.push(format!("{at} is {is}, not {expected}")),
    }
}
