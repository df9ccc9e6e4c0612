//! Tokens that are minted, held to what they promise by the policy that checks tokens, and the rotation of keys in a time of its own.

use std::io::Write as _;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::header::{AUTHORIZATION, CACHE_CONTROL};
use pylon_core::Response;
use pylon_core::body::Body;
use pylon_core::carry::Carry;
use serde_json::{Value, json};

use super::ring::{FRESH, LEEWAY, Ring};
use super::rotation::Rotation;
use super::spec::MadeSpec;
use super::*;
use crate::identify::jwt::Jwt;
use crate::testing::{Seen, compile, compiling, now, run};

fn spec(more: &Value) -> MintSpec {
    let mut spec = json!({ "issuer": "https://gate.test", "audience": "orders" });
    for (name, value) in more.as_object().unwrap() {
        spec[name] = value.clone();
    }
    serde_json::from_value(spec).unwrap()
}

/// The policy, and what answers where its keys are published.
fn mint(more: &Value) -> (Mint, Arc<dyn crate::own::Handler>) {
    compiling(|cx| {
        let mint = Mint::compile(&spec(more), cx).unwrap();
        (mint, cx.around.own.take().remove(0).handler)
    })
}

fn ann() -> Arc<Caller> {
    Arc::new(Caller {
        by: "jwt",
        subject: "ann".into(),
        scopes: ["orders:read".into(), "orders:write".into()].into(),
        groups: ["staff".into()].into(),
        claims: json!({ "email": "ann@a.test", "level": 3, "nothing": null }).as_object().unwrap().clone(),
        ..Caller::default()
    })
}

/// What a service sees in `header`.
fn seen(mint: &Mint, caller: Option<&Arc<Caller>>, seen: Seen, header: &str) -> Option<String> {
    let (mut req, mut cx) = seen.start();
    cx.caller = caller.cloned();
    match mint.on_request(&mut req, &mut cx) {
        Step::Done(outcome) => outcome.unwrap(),
        Step::Wait(_) => panic!("it waits"),
    }
    let mut lines = req.headers().get_all(header).iter();
    let line = lines.next().map(|line| line.to_str().unwrap().to_owned());
    assert!(lines.next().is_none());
    line
}

fn said(token: &str) -> Value {
    let claims = token.strip_prefix("Bearer ").unwrap_or(token).split('.').nth(1).unwrap().to_owned();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap()
}

fn published(handler: &dyn crate::own::Handler) -> (Response, Value) {
    let (mut req, mut cx) = Seen::get("/.well-known/jwks.json").start();
    let response = now(handler.answer(&mut req, &mut cx)).unwrap();
    let Body::Full(set) = response.body() else { panic!("no set") };
    let set = serde_json::from_slice(set).unwrap();
    (response, set)
}

/// Who shows `token`, by the policy that checks tokens with the keys of this set.
fn checked(set: &Value, token: &str) -> Option<Arc<Caller>> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(file, "{set}").unwrap();
    let path = file.path().display();
    let jwt: Jwt = compile(&format!(
        r#"{{ "issuer": "https://gate.test", "audience": "orders", "jwks": "file:{path}", "groups_claim": "groups" }}"#
    ))
    .unwrap();
    let (mut req, mut cx) = Seen::get("/").header("authorization", token).start();
    let _refused = now(jwt.on_request(&mut req, &mut cx)).is_err();
    cx.caller
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

#[test]
fn a_service_knows_the_caller_by_the_published_keys() {
    for algorithm in ["ES256", "EdDSA"] {
        let (mint, handler) = mint(&json!({
            "algorithm": algorithm,
            "claims": { "email": "claims.email", "level": "claims.level", "n": "claims.nothing", "plan": "plan" },
        }));
        let token = seen(&mint, Some(&ann()), Seen::get("/"), "authorization").unwrap();
        let (response, set) = published(&*handler);
        assert_eq!(response.headers()[CACHE_CONTROL], "public, max-age=300");
        let caller = checked(&set, &token).unwrap();
        assert_eq!((&*caller.subject, &*caller.groups[0], caller.scopes.len()), ("ann", "staff", 2), "{algorithm}");
        let said = said(&token);
        assert_eq!((&said["email"], &said["level"]), (&json!("ann@a.test"), &json!(3)));
        assert!(said.get("n").is_none() && said.get("plan").is_none());
        assert_eq!(said["exp"].as_u64().unwrap() - said["iat"].as_u64().unwrap(), 60);
        assert_eq!(said["jti"].as_str().unwrap().len(), 22);
        // With a letter of the claims changed nobody is known by it.
        let forged = token.replacen(".eyJ", ".eyK", 1);
        assert!(checked(&set, &forged).is_none());
        assert!(set["keys"][0].get("d").is_none());
    }
}

#[test]
fn one_caller_gets_one_token_for_a_while_and_another_caller_another() {
    let (mint, _) = mint(&json!({ "audience": ["a", "b"] }));
    let (ann, bob) = (ann(), Arc::new(Caller { subject: "bob".into(), ..Caller::default() }));
    let token = |caller| seen(&mint, Some(caller), Seen::get("/"), "authorization").unwrap();
    let (first, again, other) = (token(&ann), token(&ann), token(&bob));
    assert_eq!(first, again);
    assert_eq!((&said(&other)["sub"], &said(&other)["aud"]), (&json!("bob"), &json!(["a", "b"])));
    assert_ne!(said(&first)["jti"], said(&other)["jti"]);
    assert!(said(&other).get("scope").is_none() && said(&other).get("groups").is_none());
}

#[test]
fn a_token_ends_with_the_credential_of_its_caller() {
    let (mint, _) = mint(&json!({}));
    let end = unix_now().as_secs() + 20;
    let caller = Arc::new(Caller { until: Some(end), ..Caller::default() });
    let token = seen(&mint, Some(&caller), Seen::get("/"), "authorization").unwrap();
    assert_eq!(said(&token)["exp"], json!(end));
}

#[test]
fn nobody_gets_no_token_and_what_a_client_sends_in_its_place_goes_in_every_spelling() {
    let (mint, _) = mint(&json!({ "header": "x-identity" }));
    let forged = || Seen::get("/").header("x-identity", "a.b.c").header("X_Identity", "a.b.c");
    assert_eq!(seen(&mint, None, forged(), "x-identity"), None);
    assert_eq!(seen(&mint, None, forged(), "x_identity"), None);
    let token = seen(&mint, Some(&ann()), forged(), "x-identity").unwrap();
    assert_eq!((token.split('.').count(), said(&token)["sub"].as_str()), (3, Some("ann")));
    assert_eq!(seen(&mint, Some(&ann()), forged(), "x_identity"), None);
}

#[test]
fn a_token_that_is_too_long_is_a_refusal() {
    let (mint, _) = mint(&json!({ "claims": { "all": "claims.all" } }));
    let claims = json!({ "all": "x".repeat(9000) }).as_object().unwrap().clone();
    let (mut req, mut cx) = Seen::get("/").start();
    cx.caller = Some(Arc::new(Caller { claims, ..Caller::default() }));
    assert_eq!(crate::testing::stopped(now(mint.on_request(&mut req, &mut cx))), "mint.unavailable");
    assert!(!req.headers().contains_key(AUTHORIZATION));
}

#[tokio::test]
async fn keys_of_every_kind_are_taken_and_rsa_signs_elsewhere() {
    let rsa = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let rsa = aws_lc_rs::encoding::AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&rsa).unwrap();
    let ec =
        aws_lc_rs::signature::EcdsaKeyPair::generate(&aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let ed = aws_lc_rs::signature::Ed25519KeyPair::generate().unwrap();
    let all = [
        pem("PRIVATE KEY", rsa.as_ref()),
        format!(
            "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{}",
            pem("PRIVATE KEY", ec.to_pkcs8v1().unwrap().as_ref())
        ),
        pem("PRIVATE KEY", ed.to_pkcs8v1().unwrap().as_ref()),
    ];
    for first in 0..3 {
        let mut keys = all.clone();
        keys.rotate_left(first);
        let (mint, handler) = mint(&json!({ "keys": keys }));
        let (mut req, mut cx) = Seen::get("/").start();
        cx.caller = Some(ann());
        match mint.on_request(&mut req, &mut cx) {
            Step::Done(outcome) => outcome.unwrap(),
            Step::Wait(waiting) => {
                assert_eq!(first, 0);
                waiting.await.unwrap();
            }
        }
        let (_, set) = published(&*handler);
        assert_eq!(set["keys"].as_array().unwrap().len(), 3);
        assert!(checked(&set, req.headers()[AUTHORIZATION].to_str().unwrap()).is_some(), "{first}");
    }
}

#[test]
fn what_cannot_sign_is_an_error_that_says_why() {
    let wrong = |more: &Value| {
        compiling(|cx| Mint::compile(&spec(more), cx))
            .map(|_| ())
            .unwrap_err()
            .iter()
            .map(|error| error.problem.clone())
            .collect::<Vec<_>>()
            .join("; ")
    };
    for (more, why) in [
        (json!({ "keys": "hello" }), "it is not in PEM"),
        (json!({ "keys": pem("PUBLIC KEY", b"x") }), "it is a public key"),
        (json!({ "keys": pem("PRIVATE KEY", b"x") }), "it is none of P-256, Ed25519 and RSA"),
        (json!({ "keys": pem("ENCRYPTED PRIVATE KEY", b"x") }), "it is encrypted by a password"),
        (json!({ "audience": "" }), "a token for nobody"),
        (json!({ "issuer": "" }), "without a name"),
        (json!({ "ttl": "2h" }), "10 seconds to an hour"),
        (json!({ "rotate": "5s" }), "every minute to 90 days"),
        (json!({ "claims": { "sub": "plan" } }), "`sub` is written by the gateway itself"),
        (json!({ "claims": { "plan": "plans" } }), "nothing of a caller is named `plans`"),
        (json!({ "header": "host" }), "`host` is written by the gateway"),
    ] {
        let told = wrong(&more);
        assert!(told.contains(why), "{more}: {told}");
    }
}

#[test]
fn a_key_is_published_before_it_signs_and_until_its_last_token_has_ended() {
    let (day, ttl, start) = (Duration::from_secs(24 * 3600), Duration::from_secs(60), tokio_now());
    let mut rotation = Rotation::new(MadeSpec::EdDsa, day, ttl, start).unwrap();
    let mut last: Vec<(String, Instant)> = Vec::new();
    let (mut signers, mut fetched): (Vec<String>, Vec<(Instant, Vec<String>)>) = (Vec::new(), Vec::new());
    for minute in 0..3 * 24 * 60 {
        let at = start + Duration::from_secs(60 * minute);
        rotation.turn(at).unwrap();
        let published = kids(rotation.published(at));
        let signer = rotation.signing().kid().to_owned();
        // Whoever fetched the set as long ago as it may be kept has the key already.
        let old = fetched.iter().rev().find(|(then, _)| *then + FRESH <= at);
        assert!(old.is_none_or(|(_, set)| set.contains(&signer)), "minute {minute}");
        fetched.push((at, published.clone()));
        if !signers.contains(&signer) {
            signers.push(signer.clone());
        }
        last.retain(|(kid, _)| *kid != signer);
        last.push((signer, at + ttl));
        for (kid, until) in &last {
            assert!(at > *until + LEEWAY || published.contains(kid), "minute {minute}");
        }
        assert!(published.len() <= 3);
    }
    assert_eq!(signers.len(), 3);
}

#[test]
fn a_ring_lives_on_from_one_document_to_the_next_and_what_is_gone_stays_published() {
    let carry = Carry::default();
    let issuer = carry.keep("i", Issuer::default);
    let ring = |keys: Vec<Key>| {
        compiling(|cx| {
            let cx = Compiling { carry: &carry, around: cx.around };
            Ring::find(&spec(&json!({})), keys, &issuer, &cx).unwrap()
        })
    };
    let (one, other) = (ring(Vec::new()), ring(Vec::new()));
    assert!(Arc::ptr_eq(&one, &other));
    let kid = one.signing().unwrap().kid().to_owned();
    let given = ring(vec![Key::make(MadeSpec::EdDsa).unwrap()]);
    drop((one, other));
    let kids = |at| kids(issuer.published(at).0["keys"].as_array().unwrap());
    let own = given.signing().unwrap().kid().to_owned();
    assert_eq!(kids(tokio_now()), [own.clone(), kid]);
    assert_eq!(kids(tokio_now() + Duration::from_secs(121)), [own]);
}

fn kids<'a>(set: impl IntoIterator<Item = &'a Value>) -> Vec<String> {
    set.into_iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

fn tokio_now() -> Instant {
    let clock = async { tokio::time::Instant::now().into_std() };
    run(clock)
}
