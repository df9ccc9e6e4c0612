//! What claims have to say, and the caller that they make (RFC 7519 §4.1, RFC 8725 §3). Times are seconds since 1970.

use std::borrow::Cow;

use pylon_core::caller::{Caller, claim};
use serde_json::{Map, Value};

/// What is asked of the claims of one issuer.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) issuer: Box<str>,
    /// None where tokens for anybody are taken.
    pub(crate) audiences: Option<Box<[Box<str>]>>,
    pub(crate) leeway: u64,
    /// Claims by path, with the values of which they must have one; no values where any will do.
    pub(crate) required: Box<[(Box<str>, Vec<Value>)]>,
    pub(crate) subject: Box<str>,
    pub(crate) scopes: Option<Box<str>>,
    pub(crate) groups: Option<Box<str>>,
    pub(crate) typ: Option<Box<str>>,
}

/// Why claims make no caller: for the log alone.
pub(crate) type Why = Cow<'static, str>;

impl Rules {
    /// Whether these claims are of this issuer.
    pub(crate) fn are_its(&self, claims: &Map<String, Value>) -> bool {
        claims.get("iss").and_then(Value::as_str) == Some(&self.issuer)
    }

    /// Whether a token of this type is meant for us (RFC 8725 §3.11).
    pub(crate) fn takes(&self, typ: Option<&str>) -> bool {
        let plain = typ.map(|typ| match typ.split_at_checked("application/".len()) {
            Some((before, rest)) if before.eq_ignore_ascii_case("application/") => rest,
            _ => typ,
        });
        match (&self.typ, plain) {
            (Some(wanted), Some(typ)) => wanted.eq_ignore_ascii_case(typ),
            (Some(_), None) => false,
            (None, Some(typ)) => typ.eq_ignore_ascii_case("JWT") || typ.eq_ignore_ascii_case("at+jwt"),
            (None, None) => true,
        }
    }

    /// The caller of whom signed claims speak at `now`.
    pub(crate) fn caller(&self, claims: Map<String, Value>, now: u64) -> Result<Caller, Why> {
        let until = self.time(&claims, now)?;
        self.audience(&claims)?;
        self.named("jwt", claims, Some(until))
    }

    /// The caller whom claims name that were found to be good, as `by` knows it until then.
    pub(crate) fn named(
        &self,
        by: &'static str,
        claims: Map<String, Value>,
        until: Option<u64>,
    ) -> Result<Caller, Why> {
        for (path, values) in &self.required {
            let Some(found) = claim(&claims, path).filter(|value| !value.is_null()) else {
                return Err(format!("the claim `{path}` is not there").into());
            };
            let has = |wanted: &Value| found == wanted || found.as_array().is_some_and(|list| list.contains(wanted));
            if !values.is_empty() && !values.iter().any(has) {
                return Err(format!("the claim `{path}` has another value").into());
            }
        }
        let subject = claim(&claims, &self.subject).and_then(Value::as_str).filter(|subject| !subject.is_empty());
        let subject = subject.ok_or_else(|| format!("the claim `{}` names nobody", self.subject))?.into();
        let scopes = match &self.scopes {
            Some(path) => claim(&claims, path),
            None => claims.get("scope").or_else(|| claims.get("scp")),
        };
        let scopes = scopes.map(|value| words(value, true)).unwrap_or_default();
        let groups = self.groups.as_ref().and_then(|path| claim(&claims, path));
        let groups = groups.map(|value| words(value, false)).unwrap_or_default();
        let (consumer, told) = (None, Box::default());
        Ok(Caller { by, subject, consumer, scopes, groups, claims, until, told })
    }

    /// The end of a token whose time it is.
    pub(crate) fn time(&self, claims: &Map<String, Value>, now: u64) -> Result<u64, Why> {
        let until = date(claims, "exp")?.ok_or("it has no end (`exp`)")?;
        if until.saturating_add(self.leeway) <= now {
            return Err("its time is over (`exp`)".into());
        }
        let soonest = now.saturating_add(self.leeway);
        if date(claims, "nbf")?.is_some_and(|from| from > soonest) {
            return Err("its time has not come (`nbf`)".into());
        }
        if date(claims, "iat")?.is_some_and(|made| made > soonest) {
            return Err("it was made in the future (`iat`)".into());
        }
        Ok(until)
    }

    /// Whether it is for us.
    pub(crate) fn audience(&self, claims: &Map<String, Value>) -> Result<(), Why> {
        let Some(audiences) = &self.audiences else { return Ok(()) };
        let ours = |value: &Value| value.as_str().is_some_and(|text| audiences.iter().any(|one| **one == *text));
        let is_ours = match claims.get("aud") {
            None => return Err("it is for nobody (`aud`)".into()),
            Some(Value::Array(many)) => many.iter().any(ours),
            Some(one) => ours(one),
        };
        if is_ours { Ok(()) } else { Err("it is for others (`aud`)".into()) }
    }
}

/// A moment (RFC 7519 §2: a number, and nothing else). Parts of a second do not count.
fn date(claims: &Map<String, Value>, name: &'static str) -> Result<Option<u64>, Why> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let read =
        value.as_u64().or_else(|| value.as_f64().filter(|seconds| *seconds >= 0.0).map(|seconds| seconds as u64));
    read.map(Some).ok_or_else(|| format!("`{name}` is no moment").into())
}

/// Words in a list, or in a text that holds one or, where `blanks` part them, several.
fn words(value: &Value, blanks: bool) -> Box<[Box<str>]> {
    match value {
        Value::String(text) if blanks => text.split(' ').filter(|word| !word.is_empty()).map(Into::into).collect(),
        Value::String(text) => [text.as_str().into()].into(),
        Value::Array(items) => items.iter().filter_map(Value::as_str).map(Into::into).collect(),
        _ => Box::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: u64 = 1_000_000;

    fn rules() -> Rules {
        Rules {
            issuer: "https://id.test".into(),
            audiences: Some(["api".into(), "shop".into()].into()),
            leeway: 30,
            required: Box::default(),
            subject: "sub".into(),
            scopes: None,
            groups: Some("realm.roles".into()),
            typ: None,
        }
    }

    fn claims(change: Value) -> Map<String, Value> {
        let mut claims = json!({ "iss": "https://id.test", "sub": "ann", "aud": "api", "exp": NOW + 60 });
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let Value::Object(mut claims) = claims else { unreachable!() };
        claims.retain(|_, value| !value.is_null());
        claims
    }

    fn caller(change: Value) -> Result<Caller, String> {
        rules().caller(claims(change), NOW).map_err(Cow::into_owned)
    }

    #[test]
    fn a_caller_is_what_its_claims_say() {
        let made = caller(json!({ "scope": "read  write", "realm": { "roles": ["a", 7, "b"] }, "x": 1 })).unwrap();
        assert_eq!((made.by, &*made.subject, made.until), ("jwt", "ann", Some(NOW + 60)));
        assert!(made.has_scope("read") && made.has_scope("write") && made.scopes.len() == 2);
        assert!(made.is_in("a") && made.is_in("b") && made.groups.len() == 2);
        assert_eq!(made.claim("x"), Some(&json!(1)));
        let listed = caller(json!({ "scp": ["read", "write all"] })).unwrap();
        assert!(listed.has_scope("write all"));
        assert!(caller(json!({ "aud": ["other", "shop"] })).is_ok());
    }

    #[test]
    fn a_token_counts_in_its_time_and_for_us_alone() {
        for (change, why) in [
            (json!({ "exp": null }), "no end"),
            (json!({ "exp": NOW - 30 }), "over"),
            (json!({ "exp": 0 }), "over"),
            (json!({ "exp": "99999999999" }), "no moment"),
            (json!({ "exp": -1 }), "no moment"),
            (json!({ "exp": true }), "no moment"),
            (json!({ "exp": [NOW + 60] }), "no moment"),
            (json!({ "nbf": NOW + 31 }), "not come"),
            (json!({ "nbf": "0" }), "no moment"),
            (json!({ "iat": NOW + 31 }), "future"),
            (json!({ "aud": null }), "nobody"),
            (json!({ "aud": "ap" }), "others"),
            (json!({ "aud": "API" }), "others"),
            (json!({ "aud": ["other"] }), "others"),
            (json!({ "aud": { "api": 1 } }), "others"),
            (json!({ "aud": [["api"]] }), "others"),
            (json!({ "sub": null }), "names nobody"),
            (json!({ "sub": "" }), "names nobody"),
            (json!({ "sub": 7 }), "names nobody"),
        ] {
            let error = caller(change.clone()).unwrap_err();
            assert!(error.contains(why), "{change}: {error}");
        }
        for good in [
            json!({ "exp": NOW - 29 }),
            json!({ "exp": NOW as f64 + 0.5 }),
            json!({ "exp": 1e300 }),
            json!({ "nbf": NOW + 30 }),
            json!({ "iat": NOW + 30 }),
        ] {
            assert!(caller(good.clone()).is_ok(), "{good}");
        }
    }

    #[test]
    fn claims_that_are_required_are_there_with_a_value_that_is_written() {
        let mut rules = rules();
        rules.required = [
            ("email".into(), Vec::new()),
            ("realm.tenant".into(), vec![json!("a"), json!("b")]),
            ("level".into(), vec![json!(3)]),
        ]
        .into();
        let ask = |change| rules.caller(claims(change), NOW).map_err(Cow::into_owned);
        let good = json!({ "email": "x", "realm": { "tenant": "b" }, "level": [1, 3] });
        assert!(ask(good.clone()).is_ok());
        for (name, value) in
            [("email", Value::Null), ("realm", json!({ "tenant": "c" })), ("realm", json!("b")), ("level", json!("3"))]
        {
            let mut change = good.clone();
            change[name] = value;
            assert!(ask(change.clone()).unwrap_err().starts_with("the claim"), "{change}");
        }
    }

    #[test]
    fn an_issuer_and_a_type_are_compared_whole() {
        let rules = rules();
        assert!(rules.are_its(&claims(json!({}))));
        for other in [json!(null), json!("https://id.test/"), json!("https://ID.test"), json!(["https://id.test"])] {
            assert!(!rules.are_its(&claims(json!({ "iss": other }))));
        }
        for (typ, taken) in [
            (None, true),
            (Some("JWT"), true),
            (Some("application/at+jwt"), true),
            (Some("logout+jwt"), false),
            (Some("dpop+jwt"), false),
            (Some(""), false),
        ] {
            assert_eq!(rules.takes(typ), taken, "{typ:?}");
        }
        let strict = Rules { typ: Some("at+jwt".into()), ..rules };
        assert!(strict.takes(Some("AT+JWT")) && !strict.takes(Some("JWT")) && !strict.takes(None));
    }
}
