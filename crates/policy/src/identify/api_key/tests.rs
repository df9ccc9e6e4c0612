//! What API keys are held to: they prove consumers, go no further, and open nothing that they do not fit.

use super::*;
use crate::policy::Stop;
use crate::testing::{Seen, compile, now};

fn policy(json: &str) -> ApiKey {
    compile(json).unwrap()
}

fn meet(policy: &ApiKey, seen: &Seen) -> (Result<(), String>, Request, Box<Exchange>) {
    let (mut req, mut cx) = seen.start();
    let outcome = now(policy.on_request(&mut req, &mut cx)).map_err(|stop| match stop {
        Stop::Reject(no) => no.reason.code.to_owned(),
        Stop::Reply(reply) => format!("{reply:?}"),
    });
    (outcome, req, cx)
}

#[test]
fn a_key_proves_its_consumer_and_goes_no_further() {
    for (json, seen) in [
        (r#""x-api-key""#, Seen::get("/a").header("x-api-key", "key-of-app")),
        (r#"{ "header": "authorization" }"#, Seen::get("/a").header("authorization", "apikey key-of-app")),
        (
            r#"{ "header": "Authorization", "scheme": "Key" }"#,
            Seen::get("/a").header("authorization", "Key key-of-app"),
        ),
        (r#"{ "query": "key" }"#, Seen::get("/a?key=key-of-app")),
        (r#"{ "header": "x-api-key", "cookie": "k" }"#, Seen::get("/a").header("cookie", "k=key-of-app")),
    ] {
        let policy = policy(json);
        // The second time it is known already.
        for _ in 0..2 {
            let (outcome, req, cx) = meet(&policy, &seen);
            assert_eq!(outcome, Ok(()), "{json}");
            let caller = cx.caller.as_ref().unwrap();
            assert_eq!((caller.by, &*caller.subject), ("api_key", "app"));
            assert!(caller.is_in("apps"));
            assert!(req.headers().is_empty() && cx.path == "/a", "{json}: {:?}", req.headers());
        }
    }
}

#[test]
fn a_key_that_is_wrong_is_refused_and_one_that_is_not_there_proves_nothing() {
    let policy = policy(r#"{ "header": "x-api-key", "query": "key" }"#);
    for wrong in ["", "key-of-ap", "key-of-app ", "KEY-OF-APP", "key-of-app,key-of-app"] {
        let (outcome, _, cx) = meet(&policy, &Seen::get("/").header("x-api-key", wrong));
        // A blank around a value is none of it (RFC 9110 §5.5); the codec takes it away before we see it.
        assert_eq!(outcome, Err("caller.invalid".to_owned()), "{wrong:?}");
        assert_eq!(cx.caller, None);
    }
    let two = Seen::get("/").header("x-api-key", "key-of-app").header("x-api-key", "key-of-app");
    assert_eq!(meet(&policy, &two).0, Err("caller.invalid".to_owned()));
    let (outcome, _, cx) = meet(&policy, &Seen::get("/?keys=key-of-app").header("x-api-keys", "key-of-app"));
    assert_eq!((outcome, cx.caller, cx.unclaimed), (Ok(()), None, false));
}

#[test]
fn services_are_told_what_the_document_says_and_never_what_the_client_says() {
    let policy = policy(
        r#"{ "header": "x-api-key", "headers": { "x-consumer": "consumer", "x-plan": "plan", "x-team": "metadata.team" } }"#,
    );
    let forged = Seen::get("/").header("x-consumer", "root").header("x_plan", "root").header("x-team", "root");
    let (_, req, _) = meet(&policy, &forged.clone());
    assert!(req.headers().is_empty(), "{:?}", req.headers());
    let (_, req, _) = meet(&policy, &forged.header("x-api-key", "key-of-app"));
    assert_eq!(
        (&req.headers()["x-consumer"], &req.headers()["x-plan"], req.headers().len()),
        (&"app".parse().unwrap(), &"gold".parse().unwrap(), 2)
    );
}

#[test]
fn what_could_not_be_meant_is_refused_at_load() {
    for (json, wrong) in [
        ("{}", "nothing says where the key stands"),
        (r#"{ "header": "x key" }"#, "not the name of a header"),
        (r#"{ "header": "x-key", "scheme": "K" }"#, "means nothing beside"),
        (r#"{ "query": "k", "scheme": "K" }"#, "means nothing without"),
        (r#"{ "header": "authorization", "scheme": "Bearer" }"#, "cannot be the scheme"),
        (r#"{ "query": "" }"#, "cannot be the name"),
        (r#"{ "cookie": "a=b" }"#, "cannot be the name"),
        (r#"{ "header": "x-key", "headers": { "x-user": "user" } }"#, "nothing of a caller"),
    ] {
        let error = compile::<ApiKey>(json).unwrap_err();
        assert!(error.contains(wrong), "{json}: {error}");
    }
    for json in [r#"{ "headers": {} , "haeder": "x" }"#, r#"{ "header": null }"#, "[]"] {
        assert!(serde_json::from_str::<<ApiKey as Policy>::Spec>(json).is_err(), "{json}");
    }
}
