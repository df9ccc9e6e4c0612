//! What tokens of an issuer have to say beyond their signature: ID tokens (OpenID Connect Core 1.0 §3.1.3.7, §12.2) and logout tokens
//! (OpenID Connect Back-Channel Logout 1.0 §2.6). Pure.

use aws_lc_rs::digest::{Algorithm, SHA256, SHA384, SHA512, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::identify::jwt::claims::{Rules, Why};
use crate::identify::jwt::token::Token;

/// How long ago a logout token may have been made, in seconds, beside what clocks may differ.
const FRESH: u64 = 300;
/// The longest name of a user (§2) or of an issuer's session.
const LONGEST_NAME: usize = 255;
/// The member of `events` that makes a logout token (Back-Channel Logout §2.4).
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// What an ID token must fit to.
#[derive(Debug)]
pub(super) enum Fits<'a> {
    /// A login with this nonce.
    Login { nonce: &'a str },
    /// The ID token that a session has.
    Session(&'a Map<String, Value>),
}

/// What a logout token ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Logout {
    pub(super) sid: Option<String>,
    pub(super) subject: Option<String>,
    /// Its own name, and until when it is good.
    pub(super) name: String,
    pub(super) until: u64,
}

/// Whether a signed ID token is one for this client, this access token and this login or session.
pub(super) fn id_token(
    token: &Token<'_>,
    rules: &Rules,
    client: &str,
    access: &str,
    fits: &Fits<'_>,
    now: u64,
) -> Result<(), Why> {
    let claims = &token.claims;
    if !rules.are_its(claims) {
        return Err("the ID token is of another issuer (`iss`)".into());
    }
    // An access token or a logout token is no ID token, though the same key signed it.
    if token.typ.as_deref().is_some_and(|typ| !typ.eq_ignore_ascii_case("JWT")) || claims.contains_key("events") {
        return Err("the ID token is a token for something else".into());
    }
    rules.audience(claims)?;
    rules.time(claims, now)?;
    if !claims.contains_key("iat") {
        return Err("the ID token does not say when it was made (`iat`)".into());
    }
    let others = claims.get("aud").and_then(Value::as_array).is_some_and(|all| all.len() > 1);
    match (claims.get("azp"), others) {
        (None, false) => {}
        (Some(Value::String(party)), _) if party == client => {}
        (None, true) => return Err("the ID token is for several and does not say who asked for it (`azp`)".into()),
        (Some(_), _) => return Err("somebody else asked for the ID token (`azp`)".into()),
    }
    if let Some(hash) = claims.get("at_hash")
        && hash.as_str() != at_hash(&token.alg, access).as_deref()
    {
        return Err("the ID token belongs to another access token (`at_hash`)".into());
    }
    if text(claims, "sub").is_none_or(|subject| subject.is_empty() || subject.len() > LONGEST_NAME) {
        return Err("the ID token names nobody (`sub`)".into());
    }
    match fits {
        Fits::Login { nonce } if text(claims, "nonce") == Some(nonce) => Ok(()),
        Fits::Login { .. } => Err("the ID token is of another login (`nonce`)".into()),
        Fits::Session(before) => {
            let same = |name: &str| claims.get(name) == before.get(name);
            let same_if_there = |name: &str| claims.get(name).is_none() || before.get(name).is_none() || same(name);
            if same("iss")
                && same("sub")
                && same_if_there("nonce")
                && same_if_there("auth_time")
                && same_if_there("sid")
            {
                return Ok(());
            }
            Err("the new ID token is of somebody else, or of another login".into())
        }
    }
}

/// What a signed logout token ends.
pub(super) fn logout_token(token: &Token<'_>, rules: &Rules, now: u64) -> Result<Logout, Why> {
    let claims = &token.claims;
    if !rules.are_its(claims) {
        return Err("the logout token is of another issuer (`iss`)".into());
    }
    if token.typ.as_deref().is_some_and(|typ| !typ.eq_ignore_ascii_case("JWT") && !is_logout(typ)) {
        return Err("the logout token is a token for something else (`typ`)".into());
    }
    rules.audience(claims)?;
    let until = rules.time(claims, now)?;
    let made =
        claims.get("iat").and_then(Value::as_u64).ok_or("the logout token does not say when it was made (`iat`)")?;
    if made.saturating_add(FRESH).saturating_add(rules.leeway) < now {
        return Err("the logout token was made too long ago (`iat`)".into());
    }
    if !claims.get("events").and_then(|events| events.get(EVENT)).is_some_and(Value::is_object) {
        return Err("it is no logout token (`events`)".into());
    }
    // What has a nonce is an ID token that somebody would use in its place.
    if claims.contains_key("nonce") {
        return Err("it is no logout token (`nonce`)".into());
    }
    let name = |claim: &str| match claims.get(claim) {
        None => Ok(None),
        Some(Value::String(name)) if !name.is_empty() && name.len() <= LONGEST_NAME => Ok(Some(name.clone())),
        Some(_) => Err(Why::from(format!("`{claim}` is no name"))),
    };
    let (sid, subject) = (name("sid")?, name("sub")?);
    if sid.is_none() && subject.is_none() {
        return Err("the logout token ends nothing (`sid`, `sub`)".into());
    }
    let own = name("jti")?.ok_or("the logout token has no name (`jti`)")?;
    Ok(Logout { sid, subject, name: own, until: until.saturating_add(rules.leeway) })
}

/// A claim that is text.
pub(super) fn text<'c>(claims: &'c Map<String, Value>, name: &str) -> Option<&'c str> {
    claims.get(name).and_then(Value::as_str)
}

fn is_logout(typ: &str) -> bool {
    let plain = typ.get(.."application/".len()).filter(|start| start.eq_ignore_ascii_case("application/"));
    let plain = plain.and_then(|start| typ.get(start.len()..)).unwrap_or(typ);
    plain.eq_ignore_ascii_case("logout+jwt")
}

/// The left half of the hash of an access token, by the algorithm of the ID token's signature (§3.1.3.6).
fn at_hash(alg: &str, access: &str) -> Option<String> {
    let by: &'static Algorithm = match alg.get(alg.len().checked_sub(3)?..)? {
        "256" => &SHA256,
        "384" => &SHA384,
        "512" => &SHA512,
        // Ed25519 hashes by SHA-512 itself (RFC 8032 §5.1).
        _ if alg == "EdDSA" || alg == "Ed25519" => &SHA512,
        _ => return None,
    };
    let hash = digest(by, access.as_bytes());
    let half = hash.as_ref().get(..hash.as_ref().len() / 2)?;
    Some(URL_SAFE_NO_PAD.encode(half))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: u64 = 1_000_000;

    fn rules() -> Rules {
        Rules {
            issuer: "https://id.test".into(),
            audiences: Some(["shop".into()].into()),
            leeway: 30,
            required: Box::default(),
            subject: "sub".into(),
            scopes: None,
            groups: None,
            typ: None,
        }
    }

    fn token(alg: &str, typ: Option<&str>, claims: Value) -> Token<'static> {
        let Value::Object(mut claims) = claims else { unreachable!() };
        claims.retain(|_, value| !value.is_null());
        Token { alg: alg.into(), kid: None, typ: typ.map(Into::into), claims, signed: b"", signature: Vec::new() }
    }

    fn id_claims(change: Value) -> Value {
        let mut claims =
            json!({ "iss": "https://id.test", "sub": "ann", "aud": "shop", "nonce": "n", "iat": NOW, "exp": NOW + 60 });
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    }

    fn login(claims: Value) -> Result<(), Why> {
        id_token(&token("RS256", None, claims), &rules(), "shop", "at", &Fits::Login { nonce: "n" }, NOW)
    }

    #[test]
    fn an_id_token_of_this_login_is_taken() {
        for good in [
            json!({}),
            json!({ "aud": ["shop"] }),
            json!({ "aud": ["shop", "web"], "azp": "shop" }),
            json!({ "azp": "shop" }),
            json!({ "at_hash": at_hash("RS256", "at").unwrap() }),
            json!({ "exp": NOW - 29 }),
        ] {
            assert_eq!(login(id_claims(good.clone())), Ok(()), "{good}");
        }
    }

    #[test]
    fn an_id_token_of_anything_else_is_not() {
        for (bad, why) in [
            (json!({ "iss": "https://id.test/" }), "iss"),
            (json!({ "iss": null }), "iss"),
            (json!({ "aud": "web" }), "aud"),
            (json!({ "aud": null }), "aud"),
            (json!({ "aud": [] }), "aud"),
            (json!({ "aud": ["shop", "web"] }), "azp"),
            (json!({ "azp": "web" }), "azp"),
            (json!({ "azp": ["shop"] }), "azp"),
            (json!({ "aud": ["shop", "web"], "azp": "web" }), "azp"),
            (json!({ "exp": NOW - 30 }), "exp"),
            (json!({ "exp": null }), "exp"),
            (json!({ "iat": null }), "iat"),
            (json!({ "iat": NOW + 31 }), "iat"),
            (json!({ "nbf": NOW + 31 }), "nbf"),
            (json!({ "nonce": "m" }), "nonce"),
            (json!({ "nonce": "" }), "nonce"),
            (json!({ "nonce": null }), "nonce"),
            (json!({ "nonce": ["n"] }), "nonce"),
            (json!({ "at_hash": "x" }), "at_hash"),
            (json!({ "at_hash": 7 }), "at_hash"),
            (json!({ "at_hash": at_hash("RS256", "other").unwrap() }), "at_hash"),
            (json!({ "at_hash": at_hash("RS384", "at").unwrap() }), "at_hash"),
            (json!({ "sub": "" }), "sub"),
            (json!({ "sub": null }), "sub"),
            (json!({ "sub": "x".repeat(256) }), "sub"),
            (json!({ "events": {} }), "something else"),
        ] {
            let found = login(id_claims(bad.clone())).unwrap_err();
            assert!(found.contains(why), "{bad}: {found}");
        }
        for typ in ["at+jwt", "logout+jwt", "application/jwt", "dpop+jwt"] {
            let token = token("RS256", Some(typ), id_claims(json!({})));
            assert!(id_token(&token, &rules(), "shop", "at", &Fits::Login { nonce: "n" }, NOW).is_err(), "{typ}");
        }
    }

    #[test]
    fn the_hash_of_an_access_token_goes_by_the_algorithm() {
        // The example of OpenID Connect Core 1.0, A.3 and A.4.
        assert_eq!(
            at_hash("RS256", "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y").as_deref(),
            Some("77QmUPtjPfzWtF2AnpK9RQ")
        );
        for (alg, length) in [("ES256", 22), ("PS384", 32), ("ES512", 43), ("EdDSA", 43), ("Ed25519", 43)] {
            assert_eq!(at_hash(alg, "a").unwrap().len(), length, "{alg}");
        }
        assert_eq!((at_hash("none", "a"), at_hash("", "a"), at_hash("HS", "a")), (None, None, None));
    }

    #[test]
    fn a_new_id_token_is_of_the_same_user_and_login() {
        let Value::Object(before) = id_claims(json!({ "sid": "s", "auth_time": 7 })) else { unreachable!() };
        let fits = |change| {
            let token = token("RS256", Some("JWT"), id_claims(change));
            id_token(&token, &rules(), "shop", "at", &Fits::Session(&before), NOW)
        };
        for good in [json!({}), json!({ "nonce": null }), json!({ "sid": "s", "auth_time": 7 })] {
            assert_eq!(fits(good.clone()), Ok(()), "{good}");
        }
        for bad in [
            json!({ "sub": "bob" }),
            json!({ "nonce": "m" }),
            json!({ "sid": "t" }),
            json!({ "auth_time": 8 }),
            json!({ "exp": 1 }),
        ] {
            assert!(fits(bad.clone()).is_err(), "{bad}");
        }
    }

    fn logout(typ: Option<&str>, change: &Value) -> Result<Logout, Why> {
        let mut claims = json!({
            "iss": "https://id.test", "aud": "shop", "iat": NOW, "exp": NOW + 120, "jti": "j", "sub": "ann", "sid": "s",
            "events": { EVENT: {} },
        });
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        logout_token(&token("RS256", typ, claims), &rules(), NOW)
    }

    #[test]
    fn a_logout_token_says_what_it_ends() {
        let all = logout(Some("logout+jwt"), &json!({})).unwrap();
        assert_eq!((all.sid.as_deref(), all.subject.as_deref(), &*all.name), (Some("s"), Some("ann"), "j"));
        for (typ, change) in [
            (None, json!({ "sid": null })),
            (Some("JWT"), json!({ "sub": null })),
            (Some("application/logout+jwt"), json!({ "iat": NOW - 330 })),
        ] {
            assert!(logout(typ, &change).is_ok(), "{change}");
        }
    }

    #[test]
    fn nothing_else_ends_anything() {
        for (bad, why) in [
            (json!({ "iss": "https://other.test" }), "iss"),
            (json!({ "aud": "web" }), "aud"),
            (json!({ "exp": NOW - 30 }), "exp"),
            (json!({ "exp": null }), "exp"),
            (json!({ "iat": null }), "iat"),
            (json!({ "iat": NOW - 331 }), "iat"),
            (json!({ "iat": NOW + 31 }), "iat"),
            (json!({ "events": null }), "events"),
            (json!({ "events": {} }), "events"),
            (json!({ "events": [EVENT] }), "events"),
            (json!({ "events": { EVENT: true } }), "events"),
            (json!({ "nonce": "n" }), "nonce"),
            (json!({ "sid": null, "sub": null }), "ends nothing"),
            (json!({ "sid": "" }), "`sid`"),
            (json!({ "sub": 7 }), "`sub`"),
            (json!({ "jti": null }), "jti"),
        ] {
            let found = logout(None, &bad).unwrap_err();
            assert!(found.contains(why), "{bad}: {found}");
        }
        assert!(logout(Some("at+jwt"), &json!({})).is_err());
    }
}
