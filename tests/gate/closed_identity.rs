//! Failures 1 and 7: whatever is mistyped, left out or missing in what knows callers and says what they may do, nobody comes in by it.
//!
//! Each key of each policy is mutated, one at a time, in a gateway that runs. The document is refused then, and the one before goes on guarding;
//! or it is taken, and who has not what the right one asks for is turned away by it as well.

use std::path::Path;

use pylon_policy::registry::{CATALOGUE, Phase};
use pylon_testkit::answer::Answer;
use pylon_testkit::binary::Binary;
use pylon_testkit::issuer::Signer;
use pylon_testkit::upstream::Upstream;
use serde_json::{Map, Value, json};

/// `printf key-of-shop | sha256sum`.
const HASH: &str = "sha256:625ec9a8bfc54cc62de07d58b187d9e967e1fbcaa61cf9acd03ce7995c261a8d";

/// Sessions that nobody has sealed.
const FORGED: [(&str, &str); 1] =
    [("cookie", "pylon_session=1.AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA; shop=1.AQAAAA")];

/// One policy, as fully written as it can be.
struct Case {
    key: &'static str,
    spec: Value,
    /// What stands beside it on the route.
    beside: Value,
    method: &'static str,
    /// What is sent with the request that must not pass.
    fields: &'static [(&'static str, &'static str)],
}

impl Case {
    fn new(key: &'static str, spec: Value) -> Self {
        Self { key, spec, beside: json!({}), method: "GET", fields: &[] }
    }

    /// A credential that is good and not enough.
    fn with_key(mut self) -> Self {
        self.beside["api_key"] = json!("x-api-key");
        self.fields = &[("x-api-key", "key-of-shop")];
        self
    }
}

fn cases() -> Vec<Case> {
    let told = json!({ "x-user": "subject", "x-plan": "plan" });
    let jwt = |more: Value| {
        let mut spec = json!({ "issuer": "https://id.test", "audience": "api" });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let case = Case::new("jwt", spec);
        Case { fields: &[("authorization", "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ.")], ..case }
    };
    let session = |more: Value| {
        let mut spec = json!({ "issuer": "http://127.0.0.1:1", "client_id": "shop", "keys": ["env:TOKEN_SECRET"] });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Case { fields: &FORGED, ..Case::new("session", spec) }
    };
    vec![
        Case::new("api_key", json!({ "header": "x-api-key", "query": "key", "cookie": "key", "headers": told, "forward": false })),
        Case::new("basic", json!({ "realm": "Office", "headers": told, "forward": false })),
        Case::new(
            "signature",
            json!({
                "components": ["@method", "@authority", "@path", "@query"], "max_age": "1m", "leeway": "10s", "body": "64KiB",
                "once": true, "tag": "shop", "headers": told, "forward": false,
            }),
        ),
        Case::new("client_cert", json!({ "trust_domain": "example.org", "headers": told })),
        jwt(json!({
            "jwks": "file:keys.json", "algorithms": ["ES256"], "leeway": "10s", "required": { "tenant": ["a"] },
            "subject_claim": "sub", "scopes_claim": "scope", "groups_claim": "roles", "typ": "JWT",
            "from": { "header": "authorization", "cookie": "token", "query": "token" }, "headers": told, "forward": false,
            "keys_valid_for": "1h", "cool_down": "10s",
        })),
        jwt(json!({ "secret": "env:TOKEN_SECRET" })),
        // Nobody is there who could tell the keys.
        jwt(json!({ "issuer": "http://127.0.0.1:1" })),
        jwt(json!({ "jwks": "http://127.0.0.1:1/keys.json" })),
        Case {
            fields: &[("authorization", "Bearer opaque")],
            // Nobody is there who could say what a token is.
            ..Case::new(
                "introspect",
                json!({
                    "url": "http://127.0.0.1:1/introspect", "client_id": "gate", "client_secret": "env:TOKEN_SECRET", "auth": "basic",
                    "audience": ["api"], "required": { "tenant": ["a"] }, "subject_claim": "sub", "scopes_claim": "scope",
                    "groups_claim": "roles", "from": { "header": "authorization", "cookie": "token", "query": "token" },
                    "headers": told, "forward": false, "timeout": "1s", "ttl": "10s", "inactive_ttl": "2s",
                }),
            )
        },
        session(json!({
            "client_secret": "env:TOKEN_SECRET", "auth": "basic", "scopes": ["email"], "params": { "prompt": "consent" }, "path": "/auth",
            "origin": "https://a.test", "cookie": "shop", "lifetime": "8h", "idle": "1h", "after_logout": "/goodbye", "userinfo": false,
            "algorithms": ["ES256"], "leeway": "10s", "subject_claim": "sub", "groups_claim": "roles", "headers": told,
            "tokens": { "authorization": "access_token" },
        })),
        // Nobody is there who could say whose a session is, or whether it was ended.
        session(json!({ "store": "redis" })),
        session(json!({ "logouts": "redis" })),
        Case { beside: json!({ "api_key": "x-api-key" }), ..Case::new("anonymous", json!("deny")) },
        Case::new(
            "require",
            json!({
                "scopes": ["none"], "any_scope": ["none"], "any_group": ["none"], "consumers": ["other"], "subjects": ["none"],
                "claims": { "a": 1, "b": ["x"] }, "by": ["api_key"],
            }),
        )
        .with_key(),
        Case::new(
            "external",
            json!({
                "http": "auth", "path": "/check", "headers": ["cookie"], "copy": ["x-user"], "answer": ["x-why"], "timeout": "2s",
                "cache": { "ttl": "10s", "by": ["cookie"] },
            }),
        ),
        Case::new("external", json!({ "http": "dead" })),
        Case::new("expression", json!("caller.subject == \"root\" && caller.groups.exists(group, group == \"staff\")")).with_key(),
        Case {
            method: "POST",
            fields: &[("cookie", "csrf=a"), ("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")],
            ..Case::new("csrf", json!({ "origins": ["https://a.example"], "token": { "cookie": "csrf", "header": "x-csrf" } }))
        },
        Case {
            beside: json!({ "api_key": "x-api-key" }),
            ..Case::new(
                "mint",
                json!({
                    "issuer": "gate", "audience": ["a"], "ttl": "60s", "header": "x-identity", "claims": { "plan": "plan" },
                    "jwks": "/keys.json", "algorithm": "ES256", "rotate": "1h",
                }),
            )
        },
    ]
}

/// What people write instead of a value, and what is not there when it is looked for.
fn values() -> Vec<Value> {
    vec![
        Value::Null,
        json!(""),
        json!([]),
        json!([""]),
        json!([null]),
        json!({}),
        json!(true),
        json!(0),
        json!(-1),
        json!("nonsense"),
        json!("env:NOT_THERE_AT_ALL"),
        json!("file:not-there"),
        json!("http://127.0.0.1:1"),
        json!("0s"),
    ]
}

/// What people mistype in a key.
fn misspelt(key: &str) -> [String; 4] {
    [format!("{key}s"), key[..key.len() - 1].to_owned(), key.to_uppercase(), key.replacen(['_', 'e'], "-", 1)]
}

/// Everything that comes of changing one key or value within `value`.
fn mutations(value: &Value) -> Vec<Value> {
    let mut all = values();
    match value {
        Value::Object(members) => {
            for (key, inner) in members {
                let with = |name: Option<&str>, value: &Value| {
                    let mut changed: Map<String, Value> = members.clone();
                    changed.remove(key);
                    changed.extend(name.map(|name| (name.to_owned(), value.clone())));
                    Value::Object(changed)
                };
                all.push(with(None, inner));
                all.extend(misspelt(key).iter().map(|name| with(Some(name.as_str()), inner)));
                all.extend(mutations(inner).iter().map(|inner| with(Some(key.as_str()), inner)));
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                all.extend(mutations(item).into_iter().map(|item| {
                    let mut changed = items.clone();
                    changed[index] = item;
                    Value::Array(changed)
                }));
            }
        }
        _ => {}
    }
    all.retain(|other| other != value);
    all
}

/// The surroundings that all cases share.
struct Around {
    service: Upstream,
    auth: Upstream,
}

impl Around {
    fn document(&self, case: &Case, key: &str, spec: &Value) -> String {
        let mut route = json!({ "match": "/x", "forward": "api" });
        let members = route.as_object_mut().unwrap();
        members.extend(case.beside.as_object().unwrap().clone());
        members.insert(key.to_owned(), spec.clone());
        let consumers = json!({
            "shop": { "groups": "partners", "plan": "gold", "keys": [HASH], "certificates": ["a.test"],
                "signatures": [{ "keyid": "s", "algorithm": "hmac-sha256", "secret": "env:TOKEN_SECRET" }], "basic": {
                "user": "ann", "password": "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHRzYWx0$1CXPjoUzKMX8iGY0uGM5ZVU0JBL8eGkeBkbpFLYvmrQ",
            } },
            "other": { "groups": "none" },
        });
        let upstreams = json!({
            "api": { "endpoints": [self.service.url()] },
            "auth": { "endpoints": [self.auth.url()] },
            "dead": { "endpoints": ["http://127.0.0.1:1"] },
        });
        format!(
            "workers: 1\nlisteners: [{{ address: 127.0.0.1:0 }}, {{ address: 127.0.0.1:0, tls: {{ \
             certificates: [{{ cert: a.pem, key: a.key }}], client_cert: {{ ca: ca.pem, required: false }} }} }}]\n\
             stores: {{ redis: \"redis://127.0.0.1:1\" }}\nconsumers: {consumers}\nupstreams: {upstreams}\nroutes: [{route}]\n"
        )
    }
}

fn prepare(folder: &Path) {
    let authority = pylon_testkit::tls::Authority::new("closed");
    std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    authority.issue(&["a.test"]).write(folder, "a");
    let keys = json!({ "keys": [Signer::new("ES256", "a").jwk()] });
    std::fs::write(folder.join("keys.json"), keys.to_string()).unwrap();
}

/// Tries every mutation of the cases with these keys.
fn stays_closed(keys: &[&str]) {
    let around = Around { service: Upstream::named("x"), auth: Upstream::http(|_| Answer::new(403)) };
    let secret = [("TOKEN_SECRET", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")];
    for case in cases().iter().filter(|case| keys.contains(&case.key)) {
        let right = around.document(case, case.key, &case.spec);
        let gate = Binary::start_in(&right, &secret, prepare);
        let turned_away = |what: &str| {
            let status = gate.ask(case.method, "/x", case.fields, b"").status();
            assert!(matches!(status, 401 | 403 | 404 | 500..), "{status} by {what}");
            if case.key != "csrf" {
                let status = gate.ask(case.method, "/x", &[], b"").status();
                assert!(matches!(status, 401 | 403 | 404 | 500..), "{status} without credentials by {what}");
            }
        };
        turned_away("what is right");
        let mut all: Vec<(String, Value)> =
            misspelt(case.key).iter().map(|key| (key.clone(), case.spec.clone())).collect();
        all.extend(mutations(&case.spec).into_iter().map(|spec| (case.key.to_owned(), spec)));
        let (mut refused, count) = (0, all.len());
        for (key, spec) in all {
            // `off` takes a policy away, and `false` is not among the mutations either: both are what they say.
            let written = around.document(case, &key, &spec);
            gate.write(&written);
            let answer = gate.reload();
            match answer.status() {
                200 => turned_away(&format!("{key}: {spec}")),
                422 => refused += 1,
                other => panic!("{other} for {key}: {spec}: {}", answer.text()),
            }
        }
        turned_away("what is left");
        assert!(refused * 2 >= count, "{}: only {refused} of {count} were refused", case.key);
    }
    assert_eq!(around.service.requests(), 0, "nothing has reached the service");
}

#[test]
fn a_mutation_of_what_knows_callers_lets_nobody_in() {
    stays_closed(&["api_key", "basic", "signature", "client_cert"]);
}

#[test]
fn a_mutation_of_what_checks_tokens_lets_nobody_in() {
    stays_closed(&["jwt", "introspect"]);
}

#[test]
fn a_mutation_of_what_knows_browsers_lets_nobody_in() {
    stays_closed(&["session"]);
}

#[test]
fn a_mutation_of_what_says_who_may_lets_nobody_in() {
    stays_closed(&["anonymous", "require", "expression", "external", "mint"]);
}

#[test]
fn a_mutation_of_what_guards_against_other_sites_lets_none_in() {
    stays_closed(&["csrf"]);
}

#[test]
fn every_policy_that_knows_callers_or_says_what_they_may_is_tried() {
    let cases = cases();
    for entry in CATALOGUE.iter().filter(|entry| matches!(entry.phase, Phase::Identify | Phase::Authorize)) {
        assert!(cases.iter().any(|case| case.key == entry.key), "`{}` has no case here", entry.key);
    }
}
