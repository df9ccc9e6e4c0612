//! The examples of RFC 7520 that are signed in the compact form (§4.1 to §4.4), and what RFC 7515, RFC 7517, RFC 7519 and RFC 7797 show besides.
//! Examples in the JSON forms, detached ones and those of encryption are of forms that tokens never have here.

use serde_json::{Map, Value, json};

use super::key::{Keys, Verdict};
use super::spec::AlgorithmSpec as Algorithm;
use super::token::{self, Refused, Token, decode};

/// RFC 7520 §4: what is signed in all examples.
const PAYLOAD: &str = concat!(
    "SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUg",
    "cm9hZCwgYW5kIGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0",
    "IGJlIHN3ZXB0IG9mZiB0by4",
);

/// RFC 7520 §3.3.
fn rsa() -> Value {
    json!({
        "kty": "RSA", "kid": "bilbo.baggins@hobbiton.example", "use": "sig", "e": "AQAB",
        "n": concat!(
            "n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWTDvNd7nqQ0VEiZQHz_AJmSCpMaJMRB",
            "SFKrKb2wqVwGU_NsYOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZcD",
            "1NNLYD5lFHpPI9bTwJlsde3uhGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_",
            "qixoR7jig3__kRhuaxwUkRz5iaiQkqgc5gHdrNP5zw",
        ),
    })
}

/// RFC 7520 §3.1.
fn p521() -> Value {
    json!({
        "kty": "EC", "kid": "bilbo.baggins@hobbiton.example", "use": "sig", "crv": "P-521",
        "x": "AHKZLLOsCOzz5cY97ewNUajB957y-C-U88c3v13nmGZx6sYl_oJXu9A5RkTKqjqvjyekWF-7ytDyRXYgCF5cj0Kt",
        "y": "AdymlHvOiLxXkEhayXQnNCvDX4h9htZaCJN34kfmC6pV5OhQHiraVySsUdaQkAgDPrwQrJmbnX9cwlGfP-HqHZR1",
    })
}

fn set(key: &Value) -> Keys {
    Keys::read(json!({ "keys": [key] }).to_string().as_bytes()).unwrap()
}

/// What keys say of a signature of the payload with this header.
fn judged(keys: &Keys, algorithm: Algorithm, header: &str, payload: &str, signature: &str) -> Verdict {
    let text = format!("{header}.{payload}");
    let named: Value = serde_json::from_slice(&decode(header.as_bytes()).unwrap()).unwrap();
    let kid = named["kid"].as_str().map(Into::into);
    let alg = named["alg"].as_str().unwrap();
    assert_eq!(Algorithm::of(alg), Some(algorithm));
    let signature = decode(signature.as_bytes()).unwrap();
    let token = Token { alg: alg.into(), kid, typ: None, claims: Map::new(), signed: text.as_bytes(), signature };
    keys.judge(&token, algorithm, &[algorithm])
}

#[test]
fn the_signed_examples_of_rfc_7520_are_good_and_with_one_letter_changed_bad() {
    let secret = decode(b"hJtXIZ2uSN5kbQfbtTNWbpdmhkV8FJG-Onbc6mxCcYg").unwrap();
    for (keys, algorithm, header, signature) in [
        (
            set(&rsa()),
            Algorithm::Rs256,
            "eyJhbGciOiJSUzI1NiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9",
            concat!(
                "MRjdkly7_-oTPTS3AXP41iQIGKa80A0ZmTuV5MEaHoxnW2e5CZ5NlKtainoFmKZopdHM1O2U4mwzJdQx996ivp83xuglII7PNDi8",
                "4wnB-BDkoBwA78185hX-Es4JIwmDLJK3lfWRa-XtL0RnltuYv746iYTh_qHRD68BNt1uSNCrUCTJDt5aAE6x8wW1Kt9eRo4QPocS",
                "adnHXFxnt8Is9UzpERV0ePPQdLuW3IS_de3xyIrDaLGdjluPxUAhb6L2aXic1U12podGU0KLUQSE_oI-ZnmKJ3F4uOZDnd6QZWJu",
                "shZ41Axf_fcIe8u9ipH84ogoree7vjbU5y18kDquDg",
            ),
        ),
        (
            set(&rsa()),
            Algorithm::Ps384,
            "eyJhbGciOiJQUzM4NCIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9",
            concat!(
                "cu22eBqkYDKgIlTpzDXGvaFfz6WGoz7fUDcfT0kkOy42miAh2qyBzk1xEsnk2IpN6-tPid6VrklHkqsGqDqHCdP6O8TTB5dDDItl",
                "lVo6_1OLPpcbUrhiUSMxbbXUvdvWXzg-UD8biiReQFlfz28zGWVsdiNAUf8ZnyPEgVFn442ZdNqiVJRmBqrYRXe8P_ijQ7p8Vdz0",
                "TTrxUeT3lm8d9shnr2lfJT8ImUjvAA2Xez2Mlp8cBE5awDzT0qI0n6uiP1aCN_2_jLAeQTlqRHtfa64QQSUmFAAjVKPbByi7xho0",
                "uTOcbH510a6GYmJUAfmWjwZ6oD4ifKo8DYM-X72Eaw",
            ),
        ),
        (
            set(&p521()),
            Algorithm::Es512,
            "eyJhbGciOiJFUzUxMiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9",
            concat!(
                "AE_R_YZCChjn4791jSQCrdPZCNYqHXCTZH0-JZGYNlaAjP2kqaluUIIUnC9qvbu9Plon7KRTzoNEuT4Va2cmL1eJAQy3mtPBu_u_",
                "sDDyYjnAMDxXPn7XrT0lw-kvAD890jl8e2puQens_IEKBpHABlsbEPX6sFY8OcGDqoRuBomu9xQ2",
            ),
        ),
        (
            Keys::secret(&secret),
            Algorithm::Hs256,
            "eyJhbGciOiJIUzI1NiIsImtpZCI6IjAxOGMwYWU1LTRkOWItNDcxYi1iZmQ2LWVlZjMxNGJjNzAzNyJ9",
            "s0h6KThzkfBBBkLspW1h84VsJZFTsPPqMDA7g1Md7p0",
        ),
    ] {
        assert_eq!(judged(&keys, algorithm, header, PAYLOAD, signature), Verdict::Good, "{algorithm:?}");
        let changed = PAYLOAD.replacen('S', "T", 1);
        assert_ne!(judged(&keys, algorithm, header, &changed, signature), Verdict::Good, "{algorithm:?}");
        let first = if signature.starts_with('A') { "B" } else { "A" };
        let changed = format!("{first}{}", &signature[1..]);
        assert_ne!(judged(&keys, algorithm, header, PAYLOAD, &changed), Verdict::Good, "{algorithm:?}");
    }
}

/// RFC 7517, appendix A.1: one of the keys is there for encryption. Appendix A.3: secrets never come in a set.
#[test]
fn of_the_sets_of_rfc_7517_those_keys_are_taken_that_are_for_signatures() {
    let mut keys = json!({ "keys": [
        {
            "kty": "EC", "crv": "P-256", "use": "enc", "kid": "1",
            "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
            "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
        },
        {
            "kty": "RSA", "alg": "RS256", "kid": "2011-04-29", "e": "AQAB",
            "n": concat!(
                "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMst",
                "n64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajr",
                "n1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
            ),
        },
    ] });
    let read = Keys::read(keys.to_string().as_bytes()).unwrap();
    assert_eq!((read.len(), read.left_out.len()), (1, 1));
    keys["keys"][1]["d"] = json!("X4cTteJY");
    assert!(Keys::read(keys.to_string().as_bytes()).is_err(), "a private key");
    let secrets = json!({ "keys": [
        { "kty": "oct", "alg": "A128KW", "k": "GawgguFyGrWKav7AX4VKUg" },
        { "kty": "oct", "kid": "HMAC key used in JWS spec Appendix A.1 example", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow" },
    ] });
    assert!(Keys::read(secrets.to_string().as_bytes()).is_err());
}

/// RFC 7519 §6.1 (unsecured), RFC 7515, appendix E (critical parts that nobody understands), RFC 7797 §4.2 (not encoded), RFC 7516, appendix A.3
/// (encrypted).
#[test]
fn examples_that_ask_for_what_is_not_done_here_are_refused() {
    let claims = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let unsecured = format!("eyJhbGciOiJub25lIn0.{claims}.");
    let read = token::read(unsecured.as_bytes()).unwrap();
    assert_eq!((Algorithm::of(&read.alg), read.signature.len()), (None, 0));
    let critical = "eyJhbGciOiJub25lIiwNCiAiY3JpdCI6WyJodHRwOi8vZXhhbXBsZS5jb20vVU5ERUZJTkVEIl0sDQogImh0dHA6Ly9leGFtcGxlLmNvbS9VTkRFRklORUQiOnRydWUNCn0.RkFJTA.";
    assert!(matches!(token::read(critical.as_bytes()), Err(Refused::Wrong(_))));
    let plain = "eyJhbGciOiJIUzI1NiIsImI2NCI6ZmFsc2UsImNyaXQiOlsiYjY0Il19..A5dxf2s96_n5FLueVuW1Z_vh161FwXZC4YLPff6dmDY";
    assert!(matches!(token::read(plain.as_bytes()), Err(Refused::Wrong(_))));
    let encrypted = "eyJhbGciOiJBMTI4S1ciLCJlbmMiOiJBMTI4Q0JDLUhTMjU2In0.6KB707dM9YTIgHtLvtgWQ8mKwboJW3of9locizkDTHzBC2IlrT1oOQ.AxY8DCtDaGlsbGljb3RoZQ.KDlTtXchhZTGufMYmOYGS4HffxPSUrfmqCHXaI9wOGY.U0m_YmjN04DJvceFICbCVQ";
    assert_eq!(token::read(encrypted.as_bytes()).unwrap_err(), Refused::Foreign);
}
