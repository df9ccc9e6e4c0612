//! What tokens that are asked about are held to: who they make a caller, how often somebody is asked, and that nothing opens by itself.

use pylon_core::carry::Carry;
use pylon_testkit::answer::Answer as Reply;
use pylon_testkit::upstream::Upstream;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::*;
use crate::testing::{Seen, compiling};

/// A server that says this of every token, and a policy that asks it.
fn stage(said: &Value, more: &str) -> (Upstream, Introspect) {
    let said = said.clone();
    let server = Upstream::http(move |_| Reply::json(&said));
    let policy = policy(&format!(
        r#"{{ "url": "{}/introspect", "client_id": "gate", "client_secret": "s3cret", "headers": {{ "x-user": "consumer" }}{more} }}"#,
        server.url()
    ));
    (server, policy.unwrap())
}

fn policy(json: &str) -> Result<Introspect, String> {
    let spec = serde_json::from_str(json).map_err(|error| error.to_string())?;
    compiling(|cx| {
        let made = Introspect::compile(&spec, &Compiling { carry: &Carry::default(), ..*cx });
        if let (Ok(policy), Ok(control)) = (&made, Handle::try_current()) {
            Service::start(&*policy.asking, &control);
        }
        made.map_err(|errors| {
            errors.iter().map(|error| format!("{}: {}", error.at, error.problem)).collect::<Vec<_>>().join("\n")
        })
    })
}

/// Who asks by this token, or the code of the refusal with its note.
async fn meet(policy: &Introspect, token: &str) -> Result<Arc<Caller>, String> {
    let (mut req, mut cx) =
        Seen::get("/").header("authorization", &format!("Bearer {token}")).header("x-user", "root").start();
    let outcome = match policy.on_request(&mut req, &mut cx) {
        Step::Done(outcome) => outcome,
        Step::Wait(waiting) => waiting.await,
    };
    assert!(!req.headers().contains_key("x-user") && outcome.is_err() == req.headers().contains_key("authorization"));
    match outcome {
        Ok(()) => Ok(cx.caller.clone().unwrap()),
        Err(Stop::Reject(no)) => Err(format!("{}: {}", no.reason.code, no.note.unwrap_or_default())),
        Err(Stop::Reply(reply)) => panic!("{reply:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_active_makes_the_caller_that_the_server_names() {
    let until = unix_now().as_secs() + 60;
    let said = json!({ "active": true, "sub": "ann", "scope": "read write", "realm": { "roles": ["a"] }, "exp": until, "aud": ["api"] });
    let (server, policy) = stage(&said, r#", "audience": "api", "groups_claim": "realm.roles""#);
    for _ in 0..3 {
        let caller = meet(&policy, "opaque").await.unwrap();
        assert_eq!((caller.by, &*caller.subject, caller.until), ("introspect", "ann", Some(until)));
        assert!(caller.has_scope("write") && caller.is_in("a"));
    }
    assert_eq!(server.requests(), 1, "it is remembered");
    let asked = server.last();
    assert_eq!((asked.method(), asked.target()), ("POST", "/introspect"));
    assert_eq!(asked.body, b"token=opaque&token_type_hint=access_token");
    // `gate:s3cret`
    assert_eq!(asked.field("authorization").as_deref(), Some("Basic Z2F0ZTpzM2NyZXQ="));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_subject_is_named_by_user_or_client() {
    for (said, subject) in [
        (json!({ "active": true, "username": "bob", "client_id": "shop" }), "bob"),
        (json!({ "active": true, "client_id": "shop" }), "shop"),
    ] {
        let (_server, policy) = stage(&said, "");
        assert_eq!(&*meet(&policy, "t").await.unwrap().subject, subject);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_no_clear_yes_is_a_no() {
    let now = unix_now().as_secs();
    for (said, why) in [
        (json!({ "active": false, "sub": "ann" }), "not active"),
        (json!({ "sub": "ann" }), "does not say"),
        (json!({ "active": "true", "sub": "ann" }), "does not say"),
        (json!({ "active": 1, "sub": "ann" }), "does not say"),
        (json!({ "active": true, "sub": "ann", "exp": now }), "is over"),
        (json!({ "active": true, "sub": "ann", "exp": "never" }), "no moment"),
        (json!({ "active": true, "sub": "ann", "aud": "others" }), "others"),
        (json!({ "active": true, "sub": "ann" }), "for nobody"),
        (json!({ "active": true, "aud": "api" }), "names nobody"),
        (json!({ "active": true, "aud": "api", "sub": "" }), "names nobody"),
        (json!({ "active": true, "sub": "ann", "aud": "api", "iss": "https://evil.test" }), "another issuer"),
    ] {
        let (_server, policy) = stage(&said, r#", "audience": "api", "issuer": "https://id.test""#);
        let error = meet(&policy, "t").await.unwrap_err();
        assert!(error.starts_with("caller.invalid: ") && error.contains(why), "{said}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_answer_is_a_503_and_is_left_alone_for_a_while() {
    for said in [
        Reply::text("<html>"),
        Reply::text("{\"active\":true,\"active\":true,\"sub\":\"ann\"}"),
        Reply::new(500).body("{\"active\":true,\"sub\":\"ann\"}"),
        Reply::new(401).body("{\"active\":true,\"sub\":\"ann\"}"),
    ] {
        let server = Upstream::http(move |_| said.clone());
        let policy =
            policy(&format!(r#"{{ "url": "{}", "client_id": "gate", "client_secret": "s3cret", "headers": {{ "x-user": "consumer" }} }}"#, server.url()))
                .unwrap();
        for number in 0..20 {
            let error = meet(&policy, &format!("t{number}")).await.unwrap_err();
            assert!(error.starts_with("introspect.unavailable: ") && !error.contains("s3cret"), "{error}");
        }
        assert!(server.requests() < 20, "{}", server.requests());
    }
    let nobody = Upstream::nobody();
    let policy =
        policy(&format!(r#"{{ "url": "http://{nobody}", "client_id": "gate", "client_secret": "s3cret", "headers": {{ "x-user": "consumer" }} }}"#)).unwrap();
    assert!(meet(&policy, "t").await.unwrap_err().starts_with("introspect.unavailable: "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_show_one_token_wait_for_one_question() {
    let (server, policy) = stage(&json!({ "active": true, "sub": "ann" }), "");
    let policy = Arc::new(policy);
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let policy = Arc::clone(&policy);
        all.spawn(async move { meet(&policy, "t").await.is_ok() });
    }
    assert!(all.join_all().await.into_iter().all(|is_ok| is_ok));
    assert_eq!(server.requests(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_token_is_not_asked_about() {
    let (server, policy) = stage(&json!({ "active": true, "sub": "ann" }), "");
    for odd in ["a b", "a&token=b", "=", "a=b", "\"x\"", &"x".repeat(4097)] {
        assert!(meet(&policy, odd).await.unwrap_err().starts_with("caller.invalid: "), "{odd}");
    }
    assert_eq!(server.requests(), 0);
    assert!(meet(&policy, "a-._~+/1==").await.is_ok());
}

#[test]
fn without_a_place_to_ask_nobody_passes() {
    // No runtime was given, as before the document is in force.
    let policy = policy(r#"{ "url": "http://127.0.0.1:9", "client_id": "gate", "client_secret": "s" }"#).unwrap();
    let (mut req, mut cx) = Seen::get("/").header("authorization", "Bearer t").start();
    let Step::Done(Err(Stop::Reject(no))) = policy.on_request(&mut req, &mut cx) else { panic!("it is let pass") };
    assert_eq!(no.reason.code, "introspect.unavailable");
}

#[test]
fn what_could_not_be_meant_is_refused_at_load() {
    let with = |more: &str| format!(r#"{{ "client_id": "gate", "client_secret": "s"{more} }}"#);
    for (json, at) in [
        (with(""), ": nothing says who is asked"),
        (with(r#", "url": "http://id.test/x""#), "url: "),
        (with(r#", "issuer": "http://id.test""#), "issuer: "),
        (with(r#", "url": "https://id.test", "timeout": "1m""#), "timeout: "),
        (with(r#", "url": "https://id.test", "ttl": "1h""#), "ttl: "),
        (with(r#", "url": "https://id.test", "inactive_ttl": "2m""#), "inactive_ttl: "),
        (with(r#", "url": "https://id.test", "audience": """#), "audience: "),
        (with(r#", "url": "https://id.test", "from": {}"#), "from: "),
        (with(r#", "url": "https://id.test", "headers": { "host": "subject" }"#), "headers.host: "),
        (r#"{ "url": "https://id.test", "client_id": "", "client_secret": "s" }"#.to_owned(), "client_id: "),
        (
            r#"{ "url": "https://id.test", "client_id": "g", "client_secret": "env:NONE" }"#.to_owned(),
            "client_secret: ",
        ),
        (r#"{ "url": "https://id.test", "client_id": "g" }"#.to_owned(), "missing field"),
    ] {
        let error = policy(&json).unwrap_err();
        assert!(error.contains(at), "{json}: {error}");
    }
}
