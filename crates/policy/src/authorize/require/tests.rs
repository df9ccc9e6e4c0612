//! What `require` is held to: all that is written must hold, by type, and whoever is nobody does not pass.

use std::sync::Arc;

use proptest::prelude::*;
use pylon_core::rejection::Rejection;
use serde_json::json;

use super::*;
use crate::policy::Stop;
use crate::testing::{Seen, compile, compiling, now};

fn policy(json: &Value) -> Require {
    compile(&json.to_string()).unwrap()
}

fn bearer(claims: &Value) -> Caller {
    let Value::Object(claims) = claims.clone() else { panic!("claims are a map") };
    Caller {
        by: "jwt",
        subject: "ann".into(),
        scopes: ["orders:read".into(), "orders:write".into()].into(),
        groups: ["staff".into()].into(),
        claims,
        ..Caller::default()
    }
}

fn judge(policy: &Require, caller: Option<Caller>) -> Result<(), Rejection> {
    let (mut req, mut cx) = Seen::get("/").start();
    cx.caller = caller.map(Arc::new);
    now(policy.on_request(&mut req, &mut cx)).map_err(|stop| match stop {
        Stop::Reject(no) => no,
        Stop::Reply(reply) => panic!("{reply:?}"),
    })
}

fn passes(spec: &Value, claims: &Value) -> bool {
    match judge(&policy(spec), Some(bearer(claims))) {
        Ok(()) => true,
        Err(no) => {
            assert_eq!((no.reason.code, no.detail), ("caller.forbidden", None), "{spec}");
            assert!(no.note.is_some(), "{spec}");
            false
        }
    }
}

#[test]
fn all_scopes_are_needed_and_one_of_any() {
    for (spec, holds) in [
        (json!("orders:read"), true),
        (json!(["orders:read", "orders:write"]), true),
        (json!(["orders:read", "orders:pay"]), false),
        (json!("orders"), false),
        (json!("Orders:read"), false),
        (json!({ "any_scope": ["orders:pay", "orders:read"] }), true),
        (json!({ "any_scope": ["orders:pay"] }), false),
        (json!({ "any_group": ["partners", "staff"] }), true),
        (json!({ "any_group": "partners" }), false),
        (json!({ "subjects": ["ann", "bob"] }), true),
        (json!({ "subjects": ["bob"] }), false),
        (json!({ "consumers": "app" }), false),
        (json!({ "by": ["api_key", "jwt"] }), true),
        (json!({ "by": "api_key" }), false),
        (json!({ "scopes": "orders:read", "any_group": "staff", "subjects": "ann", "by": "jwt" }), true),
        (json!({ "scopes": "orders:read", "any_group": "staff", "subjects": "bob", "by": "jwt" }), false),
    ] {
        assert_eq!(passes(&spec, &json!({})), holds, "{spec}");
    }
}

#[test]
fn a_claim_has_its_type() {
    let claims = json!({
        "tenant": "acme", "level": 2, "big": 9_007_199_254_740_993_u64, "ratio": 1.0, "verified": true, "text": "1",
        "roles": ["user", 3, true], "realm": { "roles": ["admin"] }, "nothing": null, "map": {}, "none": []
    });
    for (wanted, holds) in [
        (json!({ "tenant": "acme" }), true),
        (json!({ "tenant": ["other", "acme"] }), true),
        (json!({ "tenant": "ACME" }), false),
        (json!({ "level": [1, 2] }), true),
        (json!({ "level": "2" }), false),
        (json!({ "level": 2.0 }), true),
        (json!({ "ratio": 1 }), true),
        (json!({ "big": 9_007_199_254_740_992_u64 }), false),
        (json!({ "big": 9_007_199_254_740_993_u64 }), true),
        (json!({ "text": 1 }), false),
        (json!({ "verified": true }), true),
        (json!({ "verified": "true" }), false),
        (json!({ "verified": false }), false),
        (json!({ "absent": false }), false),
        (json!({ "nothing": false }), false),
        (json!({ "roles": "user" }), true),
        (json!({ "roles": [3] }), true),
        (json!({ "roles": "3" }), false),
        (json!({ "roles": "use" }), false),
        (json!({ "none": "" }), false),
        (json!({ "map": "" }), false),
        (json!({ "realm.roles": "admin" }), true),
        (json!({ "realm.roles": "user" }), false),
        (json!({ "tenant": "acme", "level": 3 }), false),
    ] {
        assert_eq!(passes(&json!({ "claims": wanted }), &claims), holds, "{wanted}");
    }
}

/// RFC 6750 §3.1.
#[test]
fn a_bearer_that_lacks_scopes_is_told_which_it_takes_and_others_are_not() {
    let told = |spec: Value, by: &'static str| {
        let no = judge(&policy(&spec), Some(Caller { by, ..bearer(&json!({})) })).unwrap_err();
        no.headers.iter().map(|(_, value)| value.to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let scopes = json!({ "scopes": ["orders:read", "orders:pay"] });
    assert_eq!(told(scopes.clone(), "jwt"), ["Bearer error=\"insufficient_scope\", scope=\"orders:read orders:pay\""]);
    assert_eq!(
        told(json!({ "any_scope": ["a", "b"] }), "introspect"),
        ["Bearer error=\"insufficient_scope\", scope=\"a b\""]
    );
    assert!(told(scopes, "api_key").is_empty());
    // More scopes would not help this one.
    assert!(told(json!({ "scopes": "orders:pay", "subjects": "bob" }), "jwt").is_empty());
}

#[test]
fn whoever_is_nobody_is_asked_for_credentials() {
    let mut policy = policy(&json!({ "by": "api_key" }));
    policy.challenge_by(vec![HeaderValue::from_static("ApiKey")]);
    let no = judge(&policy, None).unwrap_err();
    assert_eq!((no.reason.code, no.headers[0].1.to_str().unwrap()), ("caller.missing", "ApiKey"));
}

#[test]
fn the_documents_consumers_are_known() {
    let policy = policy(&json!({ "consumers": ["app"] }));
    let app = compiling(|cx| Arc::clone(cx.around.consumers.get("app").unwrap()));
    assert!(judge(&policy, Some(Caller::consumer("api_key", &app))).is_ok());
}

#[test]
fn what_would_require_nothing_or_could_never_hold_is_refused_at_load() {
    for (spec, place, wrong) in [
        (json!({}), "", "nothing is required"),
        (json!([]), "scopes", "is empty"),
        (json!({ "any_group": [], "subjects": "ann" }), "any_group", "is empty"),
        (json!({ "claims": {} }), "claims", "is empty"),
        (json!({ "claims": { "a": [] } }), "claims.a", "no value"),
        (json!({ "claims": { "a": null } }), "claims.a", "no value"),
        (json!({ "claims": { "a": { "b": 1 } } }), "claims.a", "no value"),
        (json!({ "claims": { "a": [1, [2]] } }), "claims.a", "no value"),
        (json!("orders:read orders:write"), "scopes[0]", "is not a scope"),
        (json!(""), "scopes[0]", "is not a scope"),
        (json!("a\"b"), "scopes[0]", "is not a scope"),
        (json!({ "subjects": "" }), "subjects[0]", "no name"),
        (json!({ "consumers": ["app", "ap"] }), "consumers[1]", "no consumer is named `ap`"),
    ] {
        let errors = compile::<Require>(&spec.to_string()).unwrap_err();
        assert!(errors.starts_with(&format!("{place}: ")) && errors.contains(wrong), "{spec}: {errors}");
    }
    for spec in [
        r#"{ "scope": "a" }"#,
        r#"{ "scopes": null }"#,
        r#"{ "claims": null }"#,
        r#"{ "by": null }"#,
        r#"{ "claims": ["a"] }"#,
        "null",
        "true",
        "1",
    ] {
        assert!(compile::<Require>(spec).is_err(), "{spec}");
    }
}

fn value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        any::<bool>().prop_map(Value::from),
        (-3_i64..3).prop_map(Value::from),
        "[01a]?".prop_map(Value::from),
    ];
    prop_oneof![scalar.clone(), proptest::collection::vec(scalar, 0..3).prop_map(Value::from), Just(Value::Null)]
}

proptest! {
    /// Against what the sentence of the manual says, with the texts of JSON as the oracle of sameness.
    #[test]
    fn a_claim_holds_where_it_shares_a_value_with_what_is_written(claim in value(), wanted in value()) {
        let list = |value: &Value| -> Vec<String> {
            let items = match value { Value::Array(items) => items.clone(), one => vec![one.clone()] };
            items.iter().filter(|item| !item.is_null()).map(ToString::to_string).collect()
        };
        let Ok(policy) = compile::<Require>(&json!({ "claims": { "c": wanted } }).to_string()) else { return Ok(()) };
        let holds = list(&claim).iter().any(|one| list(&wanted).contains(one));
        prop_assert_eq!(judge(&policy, Some(bearer(&json!({ "c": claim })))).is_ok(), holds);
    }
}
