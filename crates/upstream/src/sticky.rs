//! Keeps a client at its endpoint by a cookie.
//!
//! The cookie's value names the endpoint by a keyed hash (HMAC-SHA-256, the first 128 bits), never by its address: who does not
//! know the key can neither make a name nor learn anything from one. Gateways with the same key understand each other's cookies,
//! and so does the same gateway after a restart. Cookies are those of RFC 6265.

use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use http::{HeaderMap, HeaderValue};
use pylon_core::carry::Carry;
use pylon_core::cookie;
use pylon_core::secret::{Secret, SecretSpec};
use pylon_core::short::FromScalar;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::units::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::spec::UpstreamSpec;
use crate::upstream::Building;

/// Keeps a client at its endpoint by a cookie. Short: the name of the cookie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StickyCookieSpec {
    /// The name of the cookie, which should be the gateway's alone. No default. Example: `pylon_users`.
    pub cookie: String,
    /// The key of the hash by which endpoints are named. Default: one that is drawn when the process starts, so that clients lose
    /// their endpoints with a restart, and that other gateways do not have. Example: `env:STICKY_KEY`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<SecretSpec>,
    /// For how long a browser keeps the cookie. A span of time; default: until it is closed. Example: `12h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Span>,
    /// The paths that it is sent with. Default `/`. Example: `/shop`.
    #[serde(default = "root")]
    pub path: String,
    /// Whether it is sent with requests from other sites: `lax`, `strict` or `none`. Default `lax`. Example: `strict`.
    #[serde(default)]
    pub same_site: SameSite,
}

/// Whether a cookie is sent with requests from other sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SameSite {
    /// Where a link is followed.
    #[default]
    Lax,
    /// Never.
    Strict,
    /// Always, which browsers allow with `Secure` alone.
    None,
}

fn root() -> String {
    "/".to_owned()
}

impl FromScalar for StickyCookieSpec {
    const EXPECTING: &'static str = "the name of a cookie";

    fn from_scalar(text: &str) -> Result<Self, String> {
        Ok(Self { cookie: text.to_owned(), key: None, ttl: None, path: root(), same_site: SameSite::Lax })
    }
}

/// The name of an endpoint in cookies.
pub(crate) type Name = NonZero<u128>;

/// A compiled `sticky`.
#[derive(Debug)]
pub(crate) struct Sticky {
    cookie: String,
    key: hmac::Key,
    /// The key that was drawn where none is written: it lives for as long as somebody uses it, reloads included.
    _drawn: Option<Arc<Secret>>,
    /// What stands behind the value, with and without `Secure`.
    attributes: [String; 2],
}

impl Sticky {
    /// The errors are told from `sticky` down.
    pub(crate) fn compile(spec: &StickyCookieSpec, key: &Secret) -> Result<Self, SpecError> {
        let wrong = |key: &str, problem: String| SpecError::new(FieldPath::root().key(key), problem);
        // RFC 6265 §4.1.1: a name is a token, a path has neither a control character nor a semicolon.
        if http::HeaderName::try_from(&spec.cookie).is_err() {
            return Err(wrong("cookie", format!("`{}` is not a name for a cookie", spec.cookie)));
        }
        let graphic = |byte: u8| (0x20..0x7f).contains(&byte) && byte != b';';
        if !spec.path.starts_with('/') || !spec.path.bytes().all(graphic) {
            return Err(wrong("path", format!("`{}` is not a path", spec.path)));
        }
        if key.expose().len() < 16 {
            let error = wrong("key", "the key is shorter than 16 bytes".to_owned());
            return Err(error.help("make one with `openssl rand -hex 32`"));
        }
        let age = spec.ttl.map(|ttl| format!("; Max-Age={}", whole(ttl.duration()))).unwrap_or_default();
        let site = match spec.same_site {
            SameSite::Lax => "Lax",
            SameSite::Strict => "Strict",
            SameSite::None => "None",
        };
        let attributes = format!("; Path={}{age}; HttpOnly; SameSite={site}", spec.path);
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose());
        let attributes = [attributes.clone(), attributes + "; Secure"];
        Ok(Self { cookie: spec.cookie.clone(), key, _drawn: None, attributes })
    }

    /// The name of an endpoint of an upstream.
    pub(crate) fn name(&self, upstream: &str, endpoint: &str) -> Name {
        let tag = hmac::sign(&self.key, format!("pylon endpoint\0{upstream}\0{endpoint}").as_bytes());
        let first = tag.as_ref().first_chunk().copied().unwrap_or_default();
        Name::new(u128::from_be_bytes(first)).unwrap_or(Name::MIN)
    }

    /// The endpoint that a request names; none where it names none, or not in this form.
    pub(crate) fn find(&self, headers: &HeaderMap) -> Option<Name> {
        let value = cookie::value(headers, &self.cookie)?;
        let digits = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
        if value.len() != 32 || !value.iter().all(digits) {
            return None;
        }
        Name::new(u128::from_str_radix(std::str::from_utf8(value).ok()?, 16).ok()?)
    }

    /// The field that gives a client the cookie.
    pub(crate) fn field(&self, name: Name, secure: bool) -> Option<HeaderValue> {
        let [plain, with_secure] = &self.attributes;
        let attributes = if secure { with_secure } else { plain };
        HeaderValue::from_str(&format!("{}={name:032x}{attributes}", self.cookie)).ok()
    }

    /// The cookie's name, for views.
    pub(crate) fn cookie(&self) -> &str {
        &self.cookie
    }
}

/// Keeps clients at endpoints, where that is written.
pub(crate) fn compile(spec: &UpstreamSpec, cx: &Building<'_>) -> Result<Option<Sticky>, SpecError> {
    let Some(sticky) = &spec.balance.sticky else { return Ok(None) };
    let at = FieldPath::root().key("balance").key("sticky");
    let compiled = match &sticky.key {
        Some(key) => {
            let key = (cx.secrets)(key).map_err(|error| error.below(&at.clone().key("key")))?;
            Sticky::compile(sticky, &key)
        }
        None => drawn_key(cx.carry).and_then(|key| {
            let compiled = Sticky::compile(sticky, &key)?;
            Ok(Sticky { _drawn: Some(key), ..compiled })
        }),
    };
    compiled.map(Some).map_err(|error| error.below(&at))
}

/// The key that this process has drawn, or a new one.
fn drawn_key(carry: &Carry) -> Result<Arc<Secret>, SpecError> {
    const KEPT: &str = "the key of sticky cookies";
    if let Some(key) = carry.living(KEPT) {
        return Ok(key);
    }
    let mut key = [0; 32];
    aws_lc_rs::rand::fill(&mut key).map_err(|_| {
        let error = SpecError::new(FieldPath::root(), "the system has no random numbers from which to draw a key");
        error.help("write one: `key: env:STICKY_KEY`")
    })?;
    let key = Arc::new(Secret::new(key));
    carry.hold(KEPT, &key);
    Ok(key)
}

fn whole(span: Duration) -> u64 {
    span.as_secs().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sticky(key: &str) -> Sticky {
        let spec = StickyCookieSpec { ttl: Some(Span::from_secs(60)), ..StickyCookieSpec::from_scalar("at").unwrap() };
        Sticky::compile(&spec, &Secret::new(key)).unwrap()
    }

    #[test]
    fn a_cookie_names_its_endpoint_and_does_not_tell_where_it_is() {
        let sticky = sticky("0123456789abcdef");
        let name = sticky.name("users", "10.0.0.1:80");
        let field = sticky.field(name, true).unwrap();
        let text = field.to_str().unwrap();
        assert!(text.ends_with("; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure") && !text.contains("10.0"));
        let mut headers = HeaderMap::new();
        let pair = text.split(';').next().unwrap();
        headers.insert("cookie", HeaderValue::from_str(&format!("a=b; {pair}")).unwrap());
        assert_eq!(sticky.find(&headers), Some(name));
        assert!(!sticky.field(name, false).unwrap().to_str().unwrap().contains("Secure"));
    }

    #[test]
    fn names_differ_by_endpoint_upstream_and_key() {
        let (one, other) = (sticky("0123456789abcdef"), sticky("0123456789abcdeg"));
        let name = one.name("users", "10.0.0.1:80");
        assert_ne!(name, one.name("users", "10.0.0.2:80"));
        assert_ne!(name, one.name("orders", "10.0.0.1:80"));
        assert_ne!(name, other.name("users", "10.0.0.1:80"));
    }

    #[test]
    fn what_is_no_name_is_no_wish() {
        let sticky = sticky("0123456789abcdef");
        for value in ["", "7", "+0000000000000000000000000000001", "0000000000000000000000000000000G"] {
            let mut headers = HeaderMap::new();
            headers.insert("cookie", HeaderValue::from_str(&format!("at={value}")).unwrap());
            assert_eq!(sticky.find(&headers), None, "{value}");
        }
    }

    #[test]
    fn what_would_break_the_field_is_refused() {
        let with = |cookie: &str, path: &str| StickyCookieSpec {
            path: path.to_owned(),
            ..StickyCookieSpec::from_scalar(cookie).unwrap()
        };
        let compile = |spec: &StickyCookieSpec, key: &str| Sticky::compile(spec, &Secret::new(key)).is_ok();
        assert!(compile(&with("a", "/x"), "0123456789abcdef"));
        assert!(!compile(&with("a b", "/"), "0123456789abcdef") && !compile(&with("a", "/;b"), "0123456789abcdef"));
        assert!(!compile(&with("a", "/"), "short"));
    }
}
