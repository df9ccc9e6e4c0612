//! What a person writes about matching and rewriting: the keys `match` and `rewrite` of a route.

use std::collections::BTreeMap;

use pylon_core::short::{FromScalar, OneOrMany, Short};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::normalise::EncodedSlash;

/// How the paths of all routes are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PathsSpec {
    /// Whether `/Admin` is `/admin`, letters of ASCII alone: for services that do not tell them apart, so that no spelling
    /// gets past a guarded route. Services see the path as it was sent. Default: `false`.
    /// Example: `true`.
    pub ignore_case: bool,
}

/// What a request must look like. Short: `GET /users/{id}`, `/users`, `GET,POST /x`, `api.example.com/x`,
/// `POST api.example.com/x`. All that is written must hold.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MatchSpec {
    /// The methods, in upper case; one or a list. `GET` brings `HEAD` with it. Default: every method.
    /// Example: `[GET, POST]`.
    #[serde(skip_serializing_if = "is_empty", deserialize_with = "some")]
    pub methods: OneOrMany<String>,
    /// The hosts, one or a list: `api.example.com`, `*.example.com` (one label or more before it), `*`. Without port.
    /// Default: every host.
    /// Example: `api.example.com`.
    #[serde(skip_serializing_if = "is_empty", deserialize_with = "some")]
    pub host: OneOrMany<String>,
    /// The template of the path: `/users/{id}`, `/files/{name}.json`, `/orders/{*rest}`. Default: every path.
    /// Example: `/users/{id}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// A regular expression that the whole path must fit, instead of `path`. Tried after all templates of its host.
    /// Named groups (`(?<id>[0-9]+)`) are captures. It sees the path in normal form: letters and digits decoded,
    /// reserved characters as they were sent (`%3A` is not `:`), parameters (`;v=1`) included.
    /// Default: none. Example: `^/v[0-9]+/users$`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
    /// Header fields by name: a value, `"*"` for any value, or a map. One field of several that fits is enough.
    /// Default: none. Example: `{ x-beta: "1" }`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Short<ValueSpec>>,
    /// Query parameters by name, compared decoded.
    /// Default: none. Example: `{ page: "*" }`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub query: BTreeMap<String, Short<ValueSpec>>,
    /// Cookies by name.
    /// Default: none. Example: `{ theme: dark }`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub cookies: BTreeMap<String, Short<ValueSpec>>,
    /// Networks of the client, one or a list: `10.0.0.0/8`, `2001:db8::/32`, `192.0.2.7`.
    /// Default: every client. Example: `10.0.0.0/8`.
    #[serde(skip_serializing_if = "is_empty", deserialize_with = "some")]
    pub client: OneOrMany<String>,
    /// Whether `%2F` in the path is answered with 400 (`reject`, the default) or kept (`keep`). Keep it only for an
    /// upstream that does not take it for a separator.
    /// Example: `keep`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoded_slash: Option<EncodedSlash>,
}

impl FromScalar for MatchSpec {
    const EXPECTING: &'static str = "a match such as `GET /users/{id}`";

    fn from_scalar(text: &str) -> Result<Self, String> {
        let mut words = text.split_ascii_whitespace();
        let (first, second) = (words.next().unwrap_or_default(), words.next());
        if words.next().is_some() {
            return Err(format!("`{text}` has more than two words: write methods, then host and path"));
        }
        let (methods, place) = second.map_or((None, first), |place| (Some(first), place));
        let Some(slash) = place.find('/') else {
            return Err(format!("`{place}` has no path: write `/{{*rest}}` for every path"));
        };
        let (host, path) = place.split_at(slash);
        let mut spec = Self { path: Some(path.to_owned()), ..Self::default() };
        if let Some(methods) = methods {
            spec.methods = OneOrMany(methods.split(',').map(str::to_owned).collect());
        }
        if !host.is_empty() {
            spec.host = OneOrMany(vec![host.to_owned()]);
        }
        Ok(spec)
    }
}

/// What a value must be. Short: the value itself, or `"*"` for any. In full, one of the keys.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ValueSpec {
    /// The value is this text, letter by letter.
    /// Default: none. Example: `"1"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is: Option<String>,
    /// The value begins with this text.
    /// Default: none. Example: `Bearer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starts_with: Option<String>,
    /// The whole value fits this regular expression.
    /// Default: none. Example: `^[0-9]+$`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matches: Option<String>,
    /// `true`: there is a value.
    /// Default `false`. Example: `true`.
    #[serde(skip_serializing_if = "is_false")]
    pub present: bool,
    /// `true`: there is no value.
    /// Default `false`. Example: `true`.
    #[serde(skip_serializing_if = "is_false")]
    pub absent: bool,
}

impl FromScalar for ValueSpec {
    const EXPECTING: &'static str = "a value such as `1`, or `\"*\"` for any";

    fn from_scalar(text: &str) -> Result<Self, String> {
        Ok(match text {
            "*" => Self { present: true, ..Self::default() },
            _ => Self { is: Some(text.to_owned()), ..Self::default() },
        })
    }
}

/// What becomes of host, path and query on the way to the upstream. Short: the new path, `/v2/{id}`.
///
/// The new path is checked like one that a client sent: dot segments in it are answered with 400.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RewriteSpec {
    /// The new path; captures of the match by name, `/v2/{id}` or `/files/{rest}`. Not with `strip_prefix`.
    /// Default: the path stays. Example: `/v2/{id}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Whole segments to take from the front, `/api`. A path that does not begin with them stays as it is.
    /// Default: none. Example: `/api`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strip_prefix: Option<String>,
    /// Segments to put before the path, after `strip_prefix` has been taken away.
    /// Default: none. Example: `/v2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub add_prefix: Option<String>,
    /// The host that the upstream is told, with a port if need be. Default: see `upstreams`.
    /// Example: `users.internal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Changes of the query. Default: the query is passed as it came.
    /// Example: `{ remove: debug }`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<QueryRewriteSpec>,
}

impl FromScalar for RewriteSpec {
    const EXPECTING: &'static str = "a path such as `/v2/{id}`";

    fn from_scalar(text: &str) -> Result<Self, String> {
        Ok(Self { path: Some(text.to_owned()), ..Self::default() })
    }
}

/// Changes of a query: first `remove`, then `set`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QueryRewriteSpec {
    /// Parameters that get this one value, whatever the client sent; captures by name, `{id}`.
    /// Default: none. Example: `{ user: "{id}" }`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// Parameters to take away, all their values; one name or a list.
    /// Default: none. Example: `debug`.
    #[serde(skip_serializing_if = "is_empty")]
    pub remove: OneOrMany<String>,
}

/// A list with something in it: an empty one would restrict nothing, which is hardly meant.
fn some<'de, D: Deserializer<'de>>(source: D) -> Result<OneOrMany<String>, D::Error> {
    let list = OneOrMany::<String>::deserialize(source)?;
    if list.0.is_empty() {
        Err(de::Error::custom("this list is empty: leave the key out to match everything"))
    } else {
        Ok(list)
    }
}

fn is_empty(list: &OneOrMany<String>) -> bool {
    list.0.is_empty()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_reads_what_it_wrote() {
        for text in [
            r#""GET,POST *.example.com/a/{b}""#,
            r#"{"host": ["a", "b"], "regex": "/a", "headers": {"x": "*", "y": {"absent": true}}, "encoded_slash": "keep"}"#,
            r#"{"path": "/a", "query": {"v": {"matches": "[0-9]"}}, "cookies": {"c": 1}, "client": "10.0.0.0/8"}"#,
        ] {
            let spec: Short<MatchSpec> = serde_json::from_str(text).unwrap();
            let written = serde_json::to_string(&spec).unwrap();
            assert_eq!(serde_json::from_str::<Short<MatchSpec>>(&written).unwrap(), spec, "{written}");
        }
        let spec: Short<RewriteSpec> = serde_json::from_str(r#""/v2/{id}""#).unwrap();
        assert_eq!(serde_json::to_string(&spec).unwrap(), r#"{"path":"/v2/{id}"}"#);
    }

    #[test]
    fn every_key_of_a_match_has_a_description() {
        let schema = schemars::schema_for!(MatchSpec);
        let keys = schema.get("properties").and_then(|keys| keys.as_object()).unwrap();
        assert_eq!(keys.len(), 9);
        assert!(keys.values().all(|key| key.get("description").is_some()));
        assert_eq!(schema.get("additionalProperties").and_then(serde_json::Value::as_bool), Some(false));
    }
}
