//! What tokens are held to: what is good proves a caller, and nothing else does. Failure 11.

use std::io::Write as _;

use pylon_testkit::issuer::{Signer, encode};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::*;
use crate::testing::{Seen, compile, now};

/// An issuer whose keys are in a file.
struct Issued {
    signers: Vec<Signer>,
    file: NamedTempFile,
}

impl Issued {
    fn by(signers: Vec<Signer>) -> Self {
        let keys: Vec<Value> = signers.iter().map(Signer::jwk).collect();
        Self::with(signers, &json!({ "keys": keys }))
    }

    fn with(signers: Vec<Signer>, set: &Value) -> Self {
        let mut file = NamedTempFile::new().unwrap();
        write!(file, "{set}").unwrap();
        Self { signers, file }
    }

    fn policy(&self, more: &str) -> Jwt {
        let path = self.file.path().display();
        compile(&format!(r#"{{ "issuer": "https://id.test", "audience": "api", "jwks": "file:{path}"{more} }}"#))
            .unwrap()
    }
}

fn claims() -> Value {
    let now = unix_now().as_secs();
    json!({ "iss": "https://id.test", "sub": "ann", "aud": "api", "iat": now, "exp": now + 600 })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn secret(alg: &str, more: &str) -> (Jwt, Signer) {
    let secret = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let text = std::str::from_utf8(secret).unwrap();
    let json = format!(r#"{{ "issuer": "https://id.test", "audience": "api", "secret": "{text}"{more} }}"#);
    (compile(&json).unwrap(), Signer::secret(alg, secret))
}

/// What becomes of a request: the caller's name, or a code, `unclaimed`, `nobody` or `waits`.
fn meet(policy: &Jwt, seen: &Seen) -> (String, Request, Box<Exchange>) {
    let (mut req, mut cx) = seen.start();
    let outcome = match policy.on_request(&mut req, &mut cx) {
        Step::Wait(_) => "waits".to_owned(),
        step @ Step::Done(_) => match now(step) {
            Ok(()) => String::new(),
            Err(Stop::Reject(no)) => no.reason.code.to_owned(),
            Err(Stop::Reply(reply)) => panic!("{reply:?}"),
        },
    };
    let outcome = match &cx.caller {
        _ if !outcome.is_empty() => outcome,
        Some(caller) => caller.subject.to_string(),
        None if cx.unclaimed => "unclaimed".to_owned(),
        None => "nobody".to_owned(),
    };
    (outcome, req, cx)
}

fn shown(policy: &Jwt, token: &str) -> String {
    meet(policy, &Seen::get("/").header("authorization", &format!("Bearer {token}"))).0
}

#[test]
fn tokens_of_every_algorithm_prove_their_callers() {
    for alg in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"] {
        let issued = Issued::by(vec![Signer::new(alg, "k1")]);
        let (policy, token) = (issued.policy(""), issued.signers[0].token(&claims()));
        // The second time it is known already.
        assert_eq!([shown(&policy, &token), shown(&policy, &token)], ["ann", "ann"], "{alg}");
        let (head, signature) = token.rsplit_once('.').unwrap();
        let other = issued.signers[0].sign(b"another text");
        for wrong in
            [format!("{head}."), format!("{head}.{}", encode(&other)), format!("{head}.AAAA{}", &signature[4..])]
        {
            assert_eq!(shown(&policy, &wrong), "caller.invalid", "{alg}");
        }
    }
    for alg in ["HS256", "HS384", "HS512"] {
        let (policy, signer) = secret(alg, &format!(r#", "algorithms": "{alg}""#));
        assert_eq!(shown(&policy, &signer.token(&claims())), "ann", "{alg}");
    }
}

#[test]
fn without_a_token_nobody_is_proved_and_other_credentials_are_for_others() {
    let (policy, _) = secret("HS256", "");
    let outcome = |seen: &Seen| meet(&policy, seen).0;
    assert_eq!(outcome(&Seen::get("/")), "nobody");
    for other in ["Basic YTpi", "Bearer", "Bearer opaque", "Bearer a.b.c", "Bearer a.b.c.d.e"] {
        assert_eq!(outcome(&Seen::get("/").header("authorization", other)), "unclaimed", "{other}");
    }
    let twice = Seen::get("/").header("authorization", "Bearer a").header("authorization", "Bearer b");
    assert_eq!(outcome(&twice), "caller.invalid");
}

#[test]
fn a_token_of_another_issuer_is_for_others() {
    let (policy, signer) = secret("HS256", "");
    for other in
        [json!("https://id.test/"), json!("https://ID.TEST"), json!(7), json!(["https://id.test"]), Value::Null]
    {
        assert_eq!(shown(&policy, &signer.token(&with("iss", other.clone()))), "unclaimed", "{other}");
    }
}

#[test]
fn of_two_issuers_the_one_that_is_named_is_asked_and_no_other() {
    let (a, b) = (Issued::by(vec![Signer::new("ES256", "k")]), Issued::by(vec![Signer::new("ES256", "k")]));
    let at = |issuer: &str, issued: &Issued, more: &str| {
        format!(
            r#"{{ "issuer": "{issuer}", "audience": "api", "jwks": "file:{}"{more} }}"#,
            issued.file.path().display()
        )
    };
    for more in ["", r#", "forward": true"#, r#", "headers": { "x-user": "subject" }"#] {
        let policy: Jwt = compile(&format!("[{}, {}]", at("a", &a, ""), at("b", &b, more))).unwrap();
        let token = |issued: &Issued, issuer: &str| issued.signers[0].token(&with("iss", json!(issuer)));
        assert_eq!([shown(&policy, &token(&a, "a")), shown(&policy, &token(&b, "b"))], ["ann", "ann"]);
        assert_eq!([shown(&policy, &token(&b, "a")), shown(&policy, &token(&a, "b"))], ["caller.invalid"; 2]);
        assert_eq!(shown(&policy, &token(&a, "c")), "unclaimed");
    }
}

/// The list of attacks, each with a token that is right but for it.
mod attacks {
    use super::*;

    fn rsa() -> Issued {
        Issued::by(vec![Signer::new("RS256", "k1")])
    }

    fn header(alg: &str) -> Value {
        json!({ "alg": alg, "kid": "k1", "typ": "JWT" })
    }

    fn refused(policy: &Jwt, token: &str) {
        assert_eq!(shown(policy, token), "caller.invalid", "{token}");
    }

    #[test]
    fn no_algorithm() {
        let (issued, (by_secret, _)) = (rsa(), secret("HS256", ""));
        for alg in ["none", "None", "NONE", "nOnE", "", "rs256", "RS256 ", "HS257"] {
            let text =
                format!("{}.{}", encode(header(alg).to_string().as_bytes()), encode(claims().to_string().as_bytes()));
            for policy in [&issued.policy(""), &by_secret] {
                refused(policy, &format!("{text}."));
                refused(policy, &issued.signers[0].signed(&text));
            }
        }
    }

    #[test]
    fn the_public_key_as_a_secret() {
        let issued = rsa();
        let jwk = issued.signers[0].jwk();
        let n = token::decode(jwk["n"].as_str().unwrap().as_bytes()).unwrap();
        for secret in [n.clone(), jwk.to_string().into_bytes(), std::fs::read(issued.file.path()).unwrap(), Vec::new()]
        {
            for alg in ["HS256", "HS384", "HS512"] {
                refused(&issued.policy(""), &Signer::secret(alg, &secret).token_with(&header(alg), &claims()));
            }
        }
    }

    #[test]
    fn a_key_that_the_token_brings_with_it() {
        let (issued, mine) = (rsa(), Signer::new("RS256", "k1"));
        for (name, value) in [
            ("jwk", mine.jwk()),
            ("jku", json!("http://127.0.0.1:1/keys")),
            ("x5u", json!("http://127.0.0.1:1/cert")),
            ("x5c", json!(["MIIB"])),
        ] {
            let mut header = header("RS256");
            header[name] = value;
            refused(&issued.policy(""), &mine.token_with(&header, &claims()));
            assert_eq!(shown(&issued.policy(""), &issued.signers[0].token_with(&header, &claims())), "ann");
        }
    }

    #[test]
    fn critical_parts_that_are_not_understood() {
        let issued = rsa();
        for (name, value) in
            [("crit", json!(["b64"])), ("crit", json!(["x"])), ("crit", json!([])), ("b64", json!(false))]
        {
            let mut header = header("RS256");
            header[name] = value;
            refused(&issued.policy(""), &issued.signers[0].token_with(&header, &claims()));
        }
    }

    #[test]
    fn another_algorithm_of_the_same_key() {
        // Each signature is right by the algorithm that the token names, and the key names another.
        let signer = Signer::new("PS256", "k1");
        let mut jwk = signer.jwk();
        jwk["alg"] = json!("RS256");
        let issued = Issued::with(vec![signer], &json!({ "keys": [jwk] }));
        refused(&issued.policy(""), &issued.signers[0].token(&claims()));
        refused(&issued.policy(r#", "algorithms": ["RS256", "PS256"]"#), &issued.signers[0].token(&claims()));
        // A key that names none is one of RS256, unless the document says otherwise.
        let signer = Signer::new("PS256", "k1");
        let mut jwk = signer.jwk();
        jwk.as_object_mut().unwrap().remove("alg");
        let issued = Issued::with(vec![signer], &json!({ "keys": [jwk] }));
        refused(&issued.policy(""), &issued.signers[0].token(&claims()));
        assert_eq!(shown(&issued.policy(r#", "algorithms": "PS256""#), &issued.signers[0].token(&claims())), "ann");
    }

    #[test]
    fn another_curve() {
        let issued = Issued::by(vec![Signer::new("ES256", "k1")]);
        for alg in ["ES384", "ES512", "EdDSA"] {
            refused(&issued.policy(""), &Signer::new(alg, "k1").token(&claims()));
            refused(&issued.policy(""), &issued.signers[0].token_with(&header(alg), &claims()));
        }
    }

    #[test]
    fn a_signature_of_zeros() {
        for (alg, length) in [("ES256", 64), ("ES384", 96), ("ES512", 132), ("EdDSA", 64), ("RS256", 256)] {
            let issued = Issued::by(vec![Signer::new(alg, "k1")]);
            let token = issued.signers[0].token(&claims());
            let (text, _) = token.rsplit_once('.').unwrap();
            for byte in [0, 0xff] {
                refused(&issued.policy(""), &format!("{text}.{}", encode(&vec![byte; length])));
            }
        }
    }

    #[test]
    fn a_signature_in_another_form() {
        let issued = Issued::by(vec![Signer::new("ES256", "k1")]);
        let token = issued.signers[0].token(&claims());
        let (text, signature) = token.rsplit_once('.').unwrap();
        let raw = token::decode(signature.as_bytes()).unwrap();
        let (r, s) = raw.split_at(32);
        // As in X.509; a number with its first bit set has a zero before it.
        let number = |bytes: &[u8]| [&[2, 33, 0][..], bytes].concat();
        let der = [&[0x30, 70][..], &number(r), &number(s)].concat();
        for other in [der, [r, s, &[0]].concat(), [&[0], r, s].concat(), r.to_vec()] {
            refused(&issued.policy(""), &format!("{text}.{}", encode(&other)));
        }
    }

    #[test]
    fn another_spelling_of_the_same_token() {
        let issued = rsa();
        let policy = issued.policy("");
        let token = issued.signers[0].token(&claims());
        let (text, signature) = token.rsplit_once('.').unwrap();
        assert_eq!(shown(&policy, &token), "ann");
        // 256 bytes end with a letter that has two bits to spare.
        let last = signature.as_bytes()[signature.len() - 1];
        let spare = (b'A'..=b'z').filter(|byte| byte.is_ascii_alphanumeric() && *byte != last).map(char::from);
        for letter in spare {
            refused(&policy, &format!("{text}.{}{letter}", &signature[..signature.len() - 1]));
        }
        for more in ["=", "==", "%3D", "A", "\tA", "\u{e9}"] {
            refused(&policy, &format!("{token}{more}"));
        }
        for foreign in [format!("{token}."), format!(".{token}"), format!("=.{token}"), token.replacen('.', "=.", 1)] {
            assert_eq!(shown(&policy, &foreign), "unclaimed", "{foreign}");
        }
    }

    #[test]
    fn members_that_stand_twice() {
        let issued = rsa();
        let signer = &issued.signers[0];
        let twice = |text: &str| text.replacen('{', r#"{"iss":"https://id.test","sub":"root","#, 1);
        let of = |header: &str, claims: &str| {
            signer.signed(&format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes())))
        };
        refused(&issued.policy(""), &of(&header("RS256").to_string(), &twice(&claims().to_string())));
        let header = header("RS256").to_string().replacen('{', r#"{"alg":"none","#, 1);
        refused(&issued.policy(""), &of(&header, &claims().to_string()));
    }

    #[test]
    fn a_time_that_is_not_now_and_an_audience_that_is_not_ours() {
        let issued = rsa();
        let (policy, now) = (issued.policy(""), unix_now().as_secs());
        for (name, value) in [
            ("exp", json!(now - 31)),
            ("exp", json!(0)),
            ("exp", json!((now + 600).to_string())),
            ("exp", Value::Null),
            ("nbf", json!(now + 600)),
            ("iat", json!(now + 600)),
            ("aud", json!("shop")),
            ("aud", json!(["shop", "web"])),
            ("aud", Value::Null),
            ("sub", Value::Null),
        ] {
            refused(&policy, &issued.signers[0].token(&with(name, value)));
        }
    }

    #[test]
    fn a_name_of_a_key_that_is_no_name() {
        let issued = rsa();
        for kid in ["../../../../dev/null", "' OR 1=1 --", "k1\0", "K1", "http://127.0.0.1:1/", "|/bin/id", ""] {
            let token = issued.signers[0].token_with(&json!({ "alg": "RS256", "kid": kid }), &claims());
            // A name that no key has brings the keys anew, and nothing more.
            assert_eq!(shown(&issued.policy(""), &token), "waits", "{kid}");
        }
    }

    #[test]
    fn a_huge_token() {
        let issued = rsa();
        let most = "x".repeat(8 * 1024);
        assert_eq!(shown(&issued.policy(""), &issued.signers[0].token(&with("x", json!(most)))), "ann");
        refused(&issued.policy(""), &issued.signers[0].token(&with("x", json!(most.repeat(2)))));
        let mut deep = json!(1);
        for _ in 0..100 {
            deep = json!([deep]);
        }
        refused(&issued.policy(""), &issued.signers[0].token(&with("x", deep)));
    }

    #[test]
    fn a_token_for_something_else() {
        let issued = rsa();
        for typ in ["logout+jwt", "dpop+jwt", "secevent+jwt", "jwk+jwt"] {
            let header = json!({ "alg": "RS256", "kid": "k1", "typ": typ });
            refused(&issued.policy(""), &issued.signers[0].token_with(&header, &claims()));
        }
        refused(&issued.policy(r#", "typ": "at+jwt""#), &issued.signers[0].token(&claims()));
    }

    #[test]
    fn a_blank_or_short_key() {
        for blank in ["", "short", &"x".repeat(31)] {
            let json = format!(r#"{{ "issuer": "a", "audience": "api", "secret": "{blank}" }}"#);
            let error = compile::<Jwt>(&json).unwrap_err();
            assert!(error.contains("fewer than 32 bytes"), "{error}");
            assert!(blank.is_empty() || !error.contains(blank), "{error}");
        }
        let json = format!(
            r#"{{ "issuer": "a", "audience": "b", "algorithms": ["HS256", "HS512"], "secret": "{}" }}"#,
            "x".repeat(63)
        );
        assert!(compile::<Jwt>(&json).unwrap_err().contains("fewer than 64 bytes"));
    }
}

#[test]
fn a_token_is_found_where_it_is_said_to_stand_and_goes_no_further() {
    for (from, place) in [
        (r#"{ "header": "x-token" }"#, "header"),
        (r#"{ "cookie": "token" }"#, "cookie"),
        (r#"{ "query": "access_token" }"#, "query"),
        (r#"{ "header": "authorization", "cookie": "token" }"#, "cookie"),
    ] {
        for forward in [false, true] {
            let (policy, signer) = secret("HS256", &format!(r#", "from": {from}, "forward": {forward}"#));
            let token = signer.token(&claims());
            let seen = match place {
                "header" => Seen::get("/a").header("x-token", &token),
                "cookie" => Seen::get("/a").header("cookie", &format!("token={token}")),
                _ => Seen::get(&format!("/a?access_token={token}")),
            };
            let (outcome, req, cx) = meet(&policy, &seen);
            assert_eq!(outcome, "ann", "{from}");
            let told = format!("{:?} {}", req.headers(), cx.path);
            assert_eq!(told.contains(&token), forward, "{from}: {told}");
        }
        let (policy, signer) = secret("HS256", &format!(r#", "from": {from}"#));
        if !from.contains("authorization") {
            assert_eq!(shown(&policy, &signer.token(&claims())), "nobody", "{from}");
        }
    }
}

#[test]
fn services_are_told_what_the_token_says_and_never_what_the_client_says() {
    let headers = r#", "headers": { "x-user": "subject", "x-email": "claims.email", "x-roles": "groups" }, "groups_claim": "realm.roles""#;
    let (policy, signer) = secret("HS256", headers);
    let forged = Seen::get("/").header("x-user", "root").header("X_Email", "root").header("x-roles", "root");
    assert!(meet(&policy, &forged).1.headers().is_empty());
    let token = signer.token(&with("realm", json!({ "roles": ["a", "b"] })));
    let (_, req, _) = meet(&policy, &forged.header("authorization", &format!("Bearer {token}")));
    let told: Vec<_> = ["x-user", "x-roles"].iter().map(|name| req.headers()[*name].to_str().unwrap()).collect();
    assert_eq!((told.as_slice(), req.headers().len()), (&["ann", "a,b"][..], 2));
}

#[test]
fn what_could_not_be_meant_is_refused_at_load() {
    let good = r#""issuer": "https://id.test", "audience": "api""#;
    for (json, wrong) in [
        ("[]".to_owned(), "no issuer is written"),
        (r#"{ "issuer": "", "audience": "api" }"#.to_owned(), "has a name"),
        (r#"{ "issuer": "http://id.test", "audience": "api" }"#.to_owned(), "who stands between"),
        (r#"{ "issuer": "id", "audience": "api" }"#.to_owned(), "issuer: "),
        (r#"{ "issuer": "https://id.test", "audience": [] }"#.to_owned(), "nobody"),
        (r#"{ "issuer": "https://id.test", "audience": "" }"#.to_owned(), "nobody"),
        (r#"{ "issuer": "https://id.test", "audience": ["*", "api"] }"#.to_owned(), "nobody"),
        (format!(r#"{{ {good}, "algorithms": "HS256" }}"#), "needs a secret"),
        (format!(r#"{{ {good}, "algorithms": "RS256", "secret": "{}" }}"#, "x".repeat(64)), "has no secret"),
        (
            format!(r#"{{ {good}, "jwks": "https://id.test/k", "secret": "{}" }}"#, "x".repeat(64)),
            "means nothing beside",
        ),
        (format!(r#"{{ {good}, "secret": "env:NOT_THERE" }}"#), "secret: "),
        (format!(r#"{{ {good}, "leeway": "6m" }}"#), "out of bounds"),
        (format!(r#"{{ {good}, "keys_valid_for": "1s" }}"#), "out of bounds"),
        (format!(r#"{{ {good}, "cool_down": "1ms" }}"#), "out of bounds"),
        (format!(r#"{{ {good}, "from": {{}} }}"#), "nothing says where"),
        (format!(r#"{{ {good}, "from": {{ "header": "x y" }} }}"#), "not the name of a header"),
        (format!(r#"{{ {good}, "from": {{ "cookie": "a=b" }} }}"#), "cannot be the name"),
        (format!(r#"{{ {good}, "headers": {{ "x-user": "user" }} }}"#), "nothing of a caller"),
        (format!(r#"{{ {good}, "required": {{ "a": null }} }}"#), "cannot be the value"),
        (format!(r#"{{ {good}, "required": {{ "a": [] }} }}"#), "cannot be the value"),
        (format!(r#"{{ {good}, "required": "" }}"#), "a claim has a name"),
        (format!(r#"{{ {good}, "typ": "" }}"#), "this is empty"),
        (format!("[{{ {good} }}, {{ {good} }}]"), "[1].issuer: this issuer is written before"),
    ] {
        let error = compile::<Jwt>(&json).unwrap_err();
        assert!(error.contains(wrong), "{json}: {error}");
    }
    for json in [
        "{}",
        r#"{ "issuer": "https://id.test" }"#,
        r#"{ "audience": "api" }"#,
        r#"{ "issuer": "https://id.test", "audience": "api", "algoritms": "RS256" }"#,
        r#"{ "issuer": "https://id.test", "audience": "api", "algorithms": "none" }"#,
        r#"{ "issuer": "https://id.test", "audience": "api", "jwks": null }"#,
        r#"{ "issuer": "https://id.test", "audience": "api", "secret": null }"#,
        r#"{ "issuer": "https://id.test", "audience": "api", "required": 7 }"#,
    ] {
        assert!(serde_json::from_str::<<Jwt as Policy>::Spec>(json).is_err(), "{json}");
    }
}
