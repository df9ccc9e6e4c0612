use super::*;

use pylon_core::rejection::{UPSTREAM_CONNECT, UPSTREAM_RESET};

fn rules(json: &str) -> Vec<FallbackRuleSpec> {
    serde_json::from_str(json).unwrap()
}

fn wrong(json: &str) -> Vec<String> {
    let rules = rules(json);
    let errors = Fallback::compile(&rules.iter().collect::<Vec<_>>(), |_, _| None).unwrap_err();
    errors.iter().map(|error| format!("{}: {}", error.at, error.problem)).collect()
}

#[test]
fn all_that_is_wrong_is_told_at_its_place() {
    assert_eq!(
        wrong(
            r#"[{ "on": "5xx" }, { "respond": 503, "forward": "b" }, { "on": "late", "respond": 99, "max_body": "1KiB" }]"#
        ),
        [
            "[0]: nothing stands in",
            "[1]: two things would stand in",
            "[2].on: `late` means nothing without `after`",
            "[2].max_body: `max_body` means nothing without `forward`",
            "[2].respond.status: 99 is not a status from 200 to 599",
        ]
    );
    assert_eq!(
        wrong(r#"[{ "after": "1s", "respond": 503 }, { "after": "2s", "forward": "b", "max_body": "1GiB" }]"#),
        ["[1].max_body: more than 16MiB of each request would be held", "[1].after: two rules say `after`"]
    );
    assert_eq!(wrong(r#"[{ "respond": 1 }]"#), ["respond.status: 1 is not a status from 200 to 599"]);
}

#[test]
fn a_failure_is_judged_by_what_the_client_would_be_told() {
    let call =
        |reason: &'static pylon_core::rejection::Reason| Failure { on: Failing::Call(reason), status: reason.status };
    let answer = |status| Failure { on: Failing::Status(status), status };
    let words =
        [When::Open, When::Failed, When::Timeout, When::Class(5), When::Status(503), When::Class(4), When::Overloaded];
    for (failure, expected) in [
        (call(&UPSTREAM_NO_ENDPOINT), [true, false, false, true, true, false, false]),
        (call(&UPSTREAM_CONNECT), [false, true, false, true, false, false, false]),
        (call(&UPSTREAM_RESET), [false, true, false, true, false, false, false]),
        (call(&UPSTREAM_TIMEOUT), [false, false, true, true, false, false, false]),
        (call(&UPSTREAM_OVERLOADED), [false, false, false, true, true, false, true]),
        (answer(503), [false, false, false, true, true, false, false]),
        (answer(404), [false, false, false, false, false, true, false]),
    ] {
        assert_eq!(words.map(|when| failure.meets(when)), expected, "{:?}", failure.on);
        assert!(!failure.meets(When::Late));
    }
}
