//! What signed requests are held to: the test cases of RFC 9421 (appendix B), and what somebody would try who has no key.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pylon_core::carry::Carry;
use pylon_core::secret::{Secret, SecretSpec};
use pylon_testkit::issuer::{Signer, unix_now};
use pylon_testkit::signing::{content_digest, covered, now_by, sign};

use super::*;
use crate::consumers::ConsumerSpec;
use crate::policy::{Around, Step};
use crate::testing::{ED25519_PEM, Frames, Seen as Sent, compiling, run};

const RSA_PEM: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAr4tmm3r20Wd/PbqvP1s2
+QEtvpuRaV8Yq40gjUR8y2Rjxa6dpG2GXHbPfvMs8ct+Lh1GH45x28Rw3Ry53mm+
oAXjyQ86OnDkZ5N8lYbggD4O3w6M6pAvLkhk95AndTrifbIFPNU8PPMO7OyrFAHq
gDsznjPFmTOtCEcN2Z1FpWgchwuYLPL+Wokqltd11nqqzi+bJ9cvSKADYdUAAN5W
Utzdpiy6LbTgSxP7ociU4Tn0g5I6aDZJ7A8Lzo0KSyZYoA485mqcO0GVAdVw9lq4
aOT9v6d+nb4bnNkQVklLQ3fVAvJm+xdDOp9LCNCN48V2pnDOkFV6+U9nV5oyc6XI
2wIDAQAB
-----END PUBLIC KEY-----";
const P256_PEM: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEqIVYZVLCrPZHGHjP17CTW0/+D9Lf
w0EkjqF7xB4FivAxzic30tMM4GF+hR6Dxh71Z50VGGdldkkDXZCnTNnoXQ==
-----END PUBLIC KEY-----";
const SECRET: &str = "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==";
const DIGEST: &str =
    "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:";

/// The keys of appendix B.1.
fn keys_of_the_standard() -> Consumers {
    let key = |keyid: &str, algorithm: &str, key: &str| serde_json::json!({ "keyid": keyid, "algorithm": algorithm, "key": key });
    consumers(serde_json::json!([
        key("test-key-rsa-pss", "rsa-pss-sha512", RSA_PEM),
        key("test-key-ecc-p256", "ecdsa-p256-sha256", P256_PEM),
        key("test-key-ed25519", "ed25519", ED25519_PEM),
        { "keyid": "test-shared-secret", "algorithm": "hmac-sha256", "secret": SECRET },
    ]))
}

/// Consumers with one, `app`, that has these keys. Secrets are written in base64.
fn consumers(keys: serde_json::Value) -> Consumers {
    let spec: ConsumerSpec =
        serde_json::from_value(serde_json::json!({ "groups": "apps", "signatures": keys })).unwrap();
    let decoded = |spec: &SecretSpec| match spec {
        SecretSpec::Plain(secret) => Ok(Secret::new(STANDARD.decode(secret.expose()).unwrap())),
        _ => unreachable!(),
    };
    Consumers::compile(&[("app".to_owned(), spec)], decoded).unwrap()
}

/// Whether the one signature of a request is by the key that it names. Its time does not count.
fn holds(seen: &Sent) -> Result<bool, String> {
    let (req, cx) = seen.start();
    let Input::All(all) = input::read(req.headers()) else { return Err("it cannot be read".to_owned()) };
    let [signed] = &all[..] else { return Err("there are several".to_owned()) };
    let keys = keys_of_the_standard();
    let key = keys.signing_key(signed.keyid.as_deref().unwrap()).unwrap();
    let base = base::base(signed, &req, &cx).map_err(Cow::into_owned)?;
    Ok(key.made(&base, &signed.signature))
}

/// The request of appendix B.2.
fn request_of_the_standard() -> Sent {
    Sent::post("/foo?param=Value&Pet=dog")
        .header("host", "example.com")
        .header("date", "Tue, 20 Apr 2021 02:07:55 GMT")
        .header("content-type", "application/json")
        .header("content-digest", DIGEST)
        .header("content-length", "18")
        .body("{\"hello\": \"world\"}")
}

/// RFC 9421, appendices B.2.1 to B.2.3, B.2.5 and B.2.6. B.2.4 signs an answer.
#[test]
fn the_signed_requests_of_the_standard_are_good_and_with_one_letter_changed_bad() {
    for (input, signature) in [
        (
            r#"();created=1618884473;keyid="test-key-rsa-pss";nonce="b3k2pp5k7z-50gnwp.yemd""#,
            "d2pmTvmbncD3xQm8E9ZV2828BjQWGgiwAaw5bAkgibUopemLJcWDy/lkbbHAve4cRAtx31Iq786U7it++wgGxbtRxf8Udx7zFZsckzXaJMkA7ChG52eSkFxykJeNqsrWH5S+oxNFlD4dzVuwe8DhTSja8xxbR/Z2cOGdCbzR72rgFWhzx2VjBqJzsPLMIQKhO4DGezXehhWwE56YCE+O6c0mKZsfxVrogUvA4HELjVKWmAvtl6UnCh8jYzuVG5WSb/QEVPnP5TmcAnLH1g+s++v6d4s8m0gCw1fV5/SITLq9mhho8K3+7EPYTU8IU1bLhdxO5Nyt8C8ssinQ98Xw9Q==",
        ),
        (
            r#"("@authority" "content-digest" "@query-param";name="Pet");created=1618884473;keyid="test-key-rsa-pss";tag="header-example""#,
            "LjbtqUbfmvjj5C5kr1Ugj4PmLYvx9wVjZvD9GsTT4F7GrcQEdJzgI9qHxICagShLRiLMlAJjtq6N4CDfKtjvuJyE5qH7KT8UCMkSowOB4+ECxCmT8rtAmj/0PIXxi0A0nxKyB09RNrCQibbUjsLS/2YyFYXEu4TRJQzRw1rLEuEfY17SARYhpTlaqwZVtR8NV7+4UKkjqpcAoFqWFQh62s7Cl+H2fjBSpqfZUJcsIk4N6wiKYd4je2U/lankenQ99PZfB4jY3I5rSV2DSBVkSFsURIjYErOs0tFTQosMTAoxk//0RoKUqiYY8Bh0aaUEb0rQl3/XaVe4bXTugEjHSw==",
        ),
        (
            r#"("date" "@method" "@path" "@query" "@authority" "content-type" "content-digest" "content-length");created=1618884473;keyid="test-key-rsa-pss""#,
            "bbN8oArOxYoyylQQUU6QYwrTuaxLwjAC9fbY2F6SVWvh0yBiMIRGOnMYwZ/5MR6fb0Kh1rIRASVxFkeGt683+qRpRRU5p2voTp768ZrCUb38K0fUxN0O0iC59DzYx8DFll5GmydPxSmme9v6ULbMFkl+V5B1TP/yPViV7KsLNmvKiLJH1pFkh/aYA2HXXZzNBXmIkoQoLd7YfW91kE9o/CCoC1xMy7JA1ipwvKvfrs65ldmlu9bpG6A9BmzhuzF8Eim5f8ui9eH8LZH896+QIF61ka39VBrohr9iyMUJpvRX2Zbhl5ZJzSRxpJyoEZAFL2FUo5fTIztsDZKEgM4cUA==",
        ),
        (
            r#"("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret""#,
            "pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=",
        ),
        (
            r#"("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519""#,
            "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==",
        ),
    ] {
        let with = |input: &str, signature: &str| {
            let seen = request_of_the_standard().header("signature-input", &format!("a={input}"));
            holds(&seen.header("signature", &format!("a=:{signature}:")))
        };
        assert_eq!(with(input, signature), Ok(true), "{input}");
        assert_eq!(with(&input.replace("1618884473", "1618884474"), signature), Ok(false), "{input}");
        let other =
            format!("{}{}{}", &signature[..9], if &signature[9..10] == "A" { "B" } else { "A" }, &signature[10..]);
        assert_eq!(with(input, &other), Ok(false), "{input}");
    }
}

/// RFC 9421, appendix B.3: a proxy that ends TLS vouches for what it forwards.
#[test]
fn what_a_proxy_vouches_for_is_good() {
    let certificate = ":MIIBqDCCAU6gAwIBAgIBBzAKBggqhkjOPQQDAjA6MRswGQYDVQQKDBJMZXQncyBBdXRoZW50aWNhdGUxGzAZBgNVBAMMEkxBIEludGVybWVkaWF0ZSBDQTAeFw0yMDAxMTQyMjU1MzNaFw0yMTAxMjMyMjU1MzNaMA0xCzAJBgNVBAMMAkJDMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE8YnXXfaUgmnMtOXU/IncWalRhebrXmckC8vdgJ1p5Be5F/3YC8OthxM4+k1M6aEAEFcGzkJiNy6J84y7uzo9M6NyMHAwCQYDVR0TBAIwADAfBgNVHSMEGDAWgBRm3WjLa38lbEYCuiCPct0ZaSED2DAOBgNVHQ8BAf8EBAMCBsAwEwYDVR0lBAwwCgYIKwYBBQUHAwIwHQYDVR0RAQH/BBMwEYEPYmRjQGV4YW1wbGUuY29tMAoGCCqGSM49BAMCA0gAMEUCIBHda/r1vaL6G3VliL4/Di6YK0Q6bMjeSkC3dFCOOB8TAiEAx/kHSB4urmiZ0NX5r5XarmPk0wmuydBVoU4hBVZ1yhk=:";
    let seen = Sent::post("/foo?param=Value&Pet=dog")
        .header("host", "service.internal.example")
        .header("client-cert", certificate)
        .header("signature-input", r#"ttrp=("@path" "@query" "@method" "@authority" "client-cert");created=1618884473;keyid="test-key-ecc-p256""#)
        .header("signature", "ttrp=:xVMHVpawaAC/0SbHrKRs9i8I3eOs5RtTMGCWXm/9nvZzoHsIg6Mce9315T6xoklyy0yzhD9ah4JHRwMLOgmizw==:");
    assert_eq!(holds(&seen), Ok(true));
}

/// RFC 9421, appendix B.4: what may change on the way, and what may not.
#[test]
fn what_is_not_covered_may_change_and_what_is_covered_may_not() {
    let with = |method: &str, path: &str, host: &str, accept: &[&str]| {
        let seen = if method == "GET" { Sent::get(path) } else { Sent::post(path) };
        let seen = accept.iter().fold(seen.header("host", host), |seen, line| seen.header("accept", line));
        let seen = seen.header(
            "signature-input",
            r#"transform=("@method" "@path" "@authority" "accept");created=1618884473;keyid="test-key-ed25519""#,
        );
        holds(&seen.header(
            "signature",
            "transform=:ZT1kooQsEHpZ0I1IjCqtQppOmIqlJPeo7DHR3SoMn0s5JZ1eRGS0A+vyYP9t/LXlh5QMFFQ6cpLt2m0pmj3NDA==:",
        ))
    };
    let path = "/demo?name1=Value1&Name2=value2";
    assert_eq!(with("GET", path, "example.org", &["application/json", "*/*"]), Ok(true));
    assert_eq!(with("GET", &format!("{path}&param=added"), "EXAMPLE.org:80", &["application/json", " */* "]), Ok(true));
    assert_eq!(with("GET", path, "example.org", &["application/json, */*"]), Ok(true));
    assert_eq!(with("POST", path, "example.org", &["application/json", "*/*"]), Ok(false));
    assert_eq!(with("GET", path, "example.com", &["application/json", "*/*"]), Ok(false));
    assert_eq!(with("GET", path, "example.org", &["*/*", "application/json"]), Ok(false));
}

/// RFC 9421 §2.1 and §2.2: how parts of a request are written where they are signed.
#[test]
fn components_are_written_as_the_standard_has_it() {
    let seen = Sent::post("/path?param=value&foo=bar&baz=bat%2Dman&qux=&var=this%20is%20a%20big%0Avalue&a+b=1")
        .header("host", "www.Example.com:80")
        .header("x-lines", " first ")
        .header("x-lines", "second, third")
        .header("x-empty", "")
        .header("x-dict", "a=1, b=2;x=1;y=2, c=(a b c), d");
    let written = |component: &str| {
        let (req, mut cx) = seen.start();
        cx.written_path = Some("/a/../path?x".parse().unwrap()).filter(|_| component == "\"@path\"");
        let inputs = crate::structured::parse(format!("a=({component})").as_bytes()).unwrap();
        let Some((_, crate::structured::Member::List(components, params))) = inputs.into_iter().next() else {
            unreachable!()
        };
        let (keyid, alg, nonce, tag) = (None, None, None, None);
        let signed =
            Signed { components, params, keyid, alg, nonce, tag, created: None, expires: None, signature: Vec::new() };
        let base = base::base(&signed, &req, &cx).map_err(Cow::into_owned)?;
        let text = String::from_utf8(base).unwrap();
        Ok::<_, String>(text.lines().next().unwrap().strip_prefix(&format!("{component}: ")).unwrap().to_owned())
    };
    for (component, value) in [
        ("\"@method\"", "POST"),
        ("\"@authority\"", "www.example.com"),
        ("\"@scheme\"", "http"),
        ("\"@path\"", "/a/../path"),
        ("\"@query-param\";name=\"param\"", "value"),
        ("\"@query-param\";name=\"baz\"", "bat-man"),
        ("\"@query-param\";name=\"qux\"", ""),
        ("\"@query-param\";name=\"var\"", "this%20is%20a%20big%0Avalue"),
        ("\"@query-param\";name=\"a%20b\"", "1"),
        ("\"x-lines\"", "first, second, third"),
        ("\"x-lines\";bs", ":Zmlyc3Q=:, :c2Vjb25kLCB0aGlyZA==:"),
        ("\"x-empty\"", ""),
        ("\"x-dict\";key=\"a\"", "1"),
        ("\"x-dict\";key=\"b\"", "2;x=1;y=2"),
        ("\"x-dict\";key=\"c\"", "(a b c)"),
        ("\"x-dict\";key=\"d\"", "?1"),
    ] {
        assert_eq!(written(component).as_deref(), Ok(value), "{component}");
    }
    assert!(written("\"@target-uri\"").unwrap().starts_with("http://www.example.com/path?param=value&"));
    assert!(written("\"@request-target\"").unwrap().starts_with("/path?param=value&"));
    for refused in [
        "\"@status\"",
        "\"@method\";req",
        "\"@query-param\"",
        "\"@query-param\";name=\"none\"",
        "\"x-none\"",
        "\"X-Lines\"",
        "\"x-lines\";sf",
        "\"x-lines\";tr",
        "\"x-lines\";key=\"a\"",
        "\"x-dict\";key=\"e\"",
        "\"@path\" \"@path\"",
        "\"\"",
        "\"@\"",
    ] {
        assert!(written(refused).is_err(), "{refused}");
    }
}

/// A policy whose consumers have a key `k` of this signer, and another one, `other`.
struct Stage {
    signer: Signer,
    other: Signer,
    policy: Signature,
}

impl Stage {
    fn new(json: &str) -> Self {
        let (signer, other) = (Signer::new("EdDSA", "k"), Signer::new("ES256", "other"));
        let keys = serde_json::json!([
            { "keyid": "k", "algorithm": "ed25519", "key": signer.pem() },
            { "keyid": "other", "algorithm": "ecdsa-p256-sha256", "key": other.pem() },
        ]);
        Self { policy: compile_with(json, keys).unwrap(), signer, other }
    }

    /// What the policy says of a request: who asks, or the note of the refusal.
    fn meet(&self, seen: &Sent) -> Result<Option<Arc<Caller>>, String> {
        let (mut req, mut cx) = seen.start();
        self.meet_with(&mut req, &mut cx)
    }

    fn meet_with(&self, req: &mut Request, cx: &mut Exchange) -> Result<Option<Arc<Caller>>, String> {
        let outcome = match self.policy.on_request(req, cx) {
            Step::Done(outcome) => outcome,
            Step::Wait(waiting) => run(waiting),
        };
        match outcome {
            Ok(()) => Ok(cx.caller.clone()),
            Err(Stop::Reject(no)) => {
                assert!(cx.caller.is_none());
                Err(no.note.or(no.detail).map_or_else(|| no.reason.code.to_owned(), Cow::into_owned))
            }
            Err(Stop::Reply(reply)) => panic!("{reply:?}"),
        }
    }

    /// A GET of `/a` that is signed as it has to be.
    fn signed(&self, params: &str) -> Sent {
        with(
            Sent::get("/a").header("host", "a.test"),
            &sign(&self.signer, &covered("GET", "a.test", "/a", "?"), params),
        )
    }
}

fn with(seen: Sent, fields: &[(&str, String)]) -> Sent {
    fields.iter().fold(seen, |seen, (name, value)| seen.header(name, value))
}

fn compile_with(json: &str, keys: serde_json::Value) -> Result<Signature, String> {
    let spec = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let around = compiling(|cx| Around::new(Arc::new(consumers(keys)), cx.around.resolver.clone(), cx.around.secrets));
    let made = Signature::compile(&spec, &Compiling { carry: &Carry::default(), around: &around });
    made.map_err(|errors| {
        let texts: Vec<_> = errors.iter().map(|error| format!("{}: {}", error.at, error.problem)).collect();
        texts.join("\n")
    })
}

#[test]
fn a_signed_request_says_who_asks_and_its_signature_goes_no_further() {
    let stage = Stage::new(r#"{ "headers": { "x-consumer": "consumer", "x-key": "claims.keyid" } }"#);
    for number in 0..2 {
        let seen =
            stage.signed(&now_by("k", &number.to_string())).header("x-consumer", "root").header("x_consumer", "root");
        let (mut req, mut cx) = seen.start();
        let caller = stage.meet_with(&mut req, &mut cx).unwrap().unwrap();
        assert_eq!((caller.by, &*caller.subject, caller.is_in("apps")), ("signature", "app", true));
        let sent: BTreeMap<_, _> =
            req.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(sent, BTreeMap::from([("host", "a.test"), ("x-consumer", "app"), ("x-key", "k")]));
    }
    let seen = Sent::get("/a").header("x-consumer", "root");
    let (mut req, mut cx) = seen.start();
    assert_eq!(stage.meet_with(&mut req, &mut cx), Ok(None));
    assert!(req.headers().is_empty() && !cx.unclaimed);
}

#[test]
fn a_request_that_was_changed_or_not_signed_as_it_has_to_be_is_refused() {
    let stage = Stage::new("true");
    let (host, now) = (Sent::get("/a").header("host", "a.test"), unix_now());
    let whole = covered("GET", "a.test", "/a", "?");
    let by =
        |signer: &Signer, covered: &[(&str, &str)], params: &str| with(host.clone(), &sign(signer, covered, params));
    let params = |more: &str| format!("created={now};keyid=\"k\"{more}");
    let good = sign(&stage.signer, &whole, &params(""));
    let mine = Signer::new("EdDSA", "k");
    for (attack, seen, why) in [
        ("somebody else's key", by(&mine, &whole, &params("")), "was not signed so"),
        (
            "another key's name",
            by(&stage.signer, &whole, &format!("created={now};keyid=\"other\"")),
            "was not signed so",
        ),
        (
            "a name that nobody has",
            by(&stage.signer, &whole, &format!("created={now};keyid=\"x\"")),
            "nobody has the key",
        ),
        ("no name", by(&stage.signer, &whole, &format!("created={now}")), "nobody has the key"),
        ("another algorithm", by(&stage.signer, &whole, &params(";alg=\"hmac-sha256\"")), "another algorithm"),
        ("no algorithm at all", by(&stage.signer, &whole, &params(";alg=\"none\"")), "another algorithm"),
        ("no time", by(&stage.signer, &whole, "keyid=\"k\""), "when it was made"),
        ("too old", by(&stage.signer, &whole, &format!("created={};keyid=\"k\"", now - 331)), "is over"),
        ("over by its own word", by(&stage.signer, &whole, &params(&format!(";expires={}", now - 31))), "is over"),
        ("of the future", by(&stage.signer, &whole, &format!("created={};keyid=\"k\"", now + 60)), "in the future"),
        ("of before all time", by(&stage.signer, &whole, "created=-1;keyid=\"k\""), "of the wrong kind"),
        ("a time in words", by(&stage.signer, &whole, "created=\"now\";keyid=\"k\""), "of the wrong kind"),
        ("nothing covered", by(&stage.signer, &[], &params("")), "does not cover `@method`"),
        ("no method", by(&stage.signer, &whole[1..], &params("")), "does not cover `@method`"),
        ("no query", by(&stage.signer, &whole[..3], &params("")), "does not cover `@query`"),
        (
            "a part for the whole",
            by(&stage.signer, &[whole[0], whole[1], whole[2], ("\"@query-param\";name=\"x\"", "")], &params("")),
            "`@query`",
        ),
        ("another method", with(Sent::post("/a").header("host", "a.test"), &good), "was not signed so"),
        ("another host", with(Sent::get("/a").header("host", "b.test"), &good), "was not signed so"),
        ("another path", with(Sent::get("/b").header("host", "a.test"), &good), "was not signed so"),
        ("a query added", with(Sent::get("/a?x=1").header("host", "a.test"), &good), "was not signed so"),
        (
            "a field that is gone",
            by(&stage.signer, &[&whole[..], &[("\"x-a\"", "1")]].concat(), &params("")),
            "is not there",
        ),
        (
            "a field that was added to",
            by(&stage.signer, &[&whole[..], &[("\"x-a\"", "1")]].concat(), &params(""))
                .header("x-a", "1")
                .header("x-a", "2"),
            "was not signed so",
        ),
        ("no signature", host.clone().header(good[0].0, &good[0].1), "is missing"),
        ("no input", host.clone().header(good[1].0, &good[1].1), "is missing"),
        (
            "signature of another label",
            host.clone().header(good[0].0, &good[0].1).header("signature", &good[1].1.replace("sig=", "gis=")),
            "another name",
        ),
        ("the same label twice", with(with(host.clone(), &good), &good), "no dictionary"),
        (
            "two signatures",
            with(
                with(host.clone(), &good),
                &sign(&stage.other, &whole, &format!("created={now};keyid=\"other\""))
                    .map(|(name, value)| (name, value.replacen("sig=", "two=", 1))),
            ),
            "several signatures",
        ),
        (
            "a signature that is a text",
            host.clone().header(good[0].0, &good[0].1).header("signature", "sig=\"x\""),
            "no signature",
        ),
        ("an empty one", host.clone().header(good[0].0, &good[0].1).header("signature", "sig=::"), "was not signed so"),
        (
            "another form",
            host.clone().header("signature-input", "keyId=\"k\"").header("signature", "keyId=\"k\""),
            "no dictionary",
        ),
    ] {
        let error = stage.meet(&seen).expect_err(attack);
        assert!(error.contains(why), "{attack}: {error}");
    }
    assert!(stage.meet(&with(host.clone(), &good)).is_ok());
}

#[test]
fn a_signature_is_good_once_unless_the_document_says_otherwise() {
    let (stage, now) = (Stage::new("true"), unix_now());
    let plain = stage.signed(&format!("created={now};keyid=\"k\""));
    assert!(stage.meet(&plain).is_ok());
    assert_eq!(stage.meet(&plain).unwrap_err(), "the signature was used before");
    assert!(stage.meet(&stage.signed(&now_by("k", "n"))).is_ok());
    // The nonce is what counts, whatever else is new.
    let again = stage.signed(&format!("created={};keyid=\"k\";nonce=\"n\"", now - 1));
    assert_eq!(stage.meet(&again).unwrap_err(), "the signature was used before");
    let often = Stage::new(r#"{ "once": false }"#);
    let seen = often.signed(&now_by("k", "n"));
    assert!(often.meet(&seen).is_ok() && often.meet(&seen).is_ok());
}

#[test]
fn a_body_is_signed_by_its_digest_and_no_other_one_passes() {
    let stage = Stage::new(r#"{ "body": "1KiB" }"#);
    let body = "a body";
    let request = |digest: &str, nonce: &str| {
        let mut whole = covered("POST", "a.test", "/a", "?");
        whole.push(("\"content-digest\"", digest));
        let seen = Sent::post("/a").header("host", "a.test").header("content-digest", digest);
        with(seen, &sign(&stage.signer, &whole, &now_by("k", nonce)))
    };
    let (mut req, mut cx) = request(&content_digest(body.as_bytes()), "1").body(body).start();
    assert!(stage.meet_with(&mut req, &mut cx).unwrap().is_some());
    assert!(matches!(req.body(), Body::Full(bytes) if &bytes[..] == body.as_bytes()));
    // Nothing is the body of nothing.
    assert!(stage.meet(&request(&content_digest(b""), "2")).is_ok());
    let unsigned = with(
        Sent::post("/a").header("host", "a.test"),
        &sign(&stage.signer, &covered("POST", "a.test", "/a", "?"), &now_by("k", "3")),
    );
    for (attack, seen, why) in [
        ("another body", request(&content_digest(b"a body"), "4").body("a bodY"), "not the one of its digest"),
        ("no body", request(&content_digest(b"a body"), "5"), "not the one of its digest"),
        ("a body that was added", unsigned.clone().body(body), "does not cover `content-digest`"),
        ("with its digest", unsigned.header("content-digest", &content_digest(b"a body")).body(body), "does not cover"),
        ("a digest that is none", request("md5=:CY9rzUYh03PK3k6DJie09g==:", "6").body(body), "neither"),
        (
            "one of two wrong",
            request(&format!("{}, sha-512=:AAAA:", content_digest(b"a body")), "7").body(body),
            "not the one",
        ),
        ("a text", request("sha-256=\"x\"", "8").body(body), "no digest"),
    ] {
        let error = stage.meet(&seen).expect_err(attack);
        assert!(error.contains(why), "{attack}: {error}");
    }
    let (mut req, mut cx) = request(&content_digest(&[0; 1025]), "9").start();
    *req.body_mut() = Body::stream(Frames::of(&[1000, 25]));
    assert_eq!(stage.meet_with(&mut req, &mut cx).unwrap_err(), "the body is longer than 1024 bytes");
    let (mut req, mut cx) = request(&content_digest(&[0; 1024]), "10").start();
    *req.body_mut() = Body::stream(Frames::of(&[1000, 24]));
    assert!(stage.meet_with(&mut req, &mut cx).is_ok());
}

#[test]
fn with_a_tag_signatures_for_something_else_do_not_count() {
    let stage = Stage::new(r#"{ "tag": "shop", "components": ["@target-uri", "@method"] }"#);
    let whole = [("\"@method\"", "GET"), ("\"@target-uri\"", "http://a.test/a")];
    let seen = Sent::get("/a").header("host", "a.test");
    let tagged = |tag: &str| sign(&stage.signer, &whole, &format!("created={};keyid=\"k\";tag=\"{tag}\"", unix_now()));
    assert!(stage.meet(&with(seen.clone(), &tagged("shop"))).unwrap().is_some());
    let (mut req, mut cx) = with(seen, &tagged("bank")).start();
    assert_eq!(stage.meet_with(&mut req, &mut cx), Ok(None));
    assert!(cx.unclaimed, "a credential that nobody takes is refused at the end of the phase");
}

#[test]
fn what_could_not_be_meant_is_refused_at_load() {
    let key = serde_json::json!([{ "keyid": "k", "algorithm": "ed25519", "key": ED25519_PEM }]);
    for (json, wrong) in [
        ("false", "is not `true`"),
        (r#"{ "components": [] }"#, "prove nothing"),
        (r#"{ "components": ["@status"] }"#, "components[0]"),
        (r#"{ "components": ["X-Tenant"] }"#, "components[0]"),
        (r#"{ "max_age": "2h" }"#, "max_age: "),
        (r#"{ "leeway": "10m" }"#, "leeway: "),
        (r#"{ "body": "65MiB" }"#, "body: "),
        (r#"{ "tag": "" }"#, "tag: "),
        (r#"{ "headers": { "host": "subject" } }"#, "headers.host: "),
        (r#"{ "nonce": true }"#, "unknown field"),
    ] {
        let error = compile_with(json, key.clone()).unwrap_err();
        assert!(error.contains(wrong), "{json}: {error}");
    }
    assert!(compile_with("true", serde_json::json!([])).unwrap_err().contains("nobody could call"));
}
