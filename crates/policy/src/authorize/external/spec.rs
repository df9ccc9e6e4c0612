//! What is written of a service that says who may pass, and what is wrong with it.

use std::sync::Arc;

use http::HeaderName;
use http::header::{AUTHORIZATION, COOKIE, LOCATION, SET_COOKIE, WWW_AUTHENTICATE};
use http::uri::PathAndQuery;
use pylon_core::short::OneOrMany;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::units::Span;
use pylon_core::{fields, kept};
use pylon_upstream::call::CallOptions;
use pylon_upstream::upstream::Upstream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::alike::{By, Part};
use crate::policy::Upstreams;
use crate::written;

/// How long a verdict may be remembered at most.
const LONGEST: Span = Span::from_secs(300);
/// How long a service may take at most.
const SLOWEST: Span = Span::from_secs(30);

/// A service that says who may pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExternalSpec {
    /// The upstream that is asked over HTTP. Default: none; one of `http` and `grpc` is required.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"auth-service")]
    pub http: Option<String>,
    /// The upstream that is asked by Envoy's `envoy.service.auth.v3.Authorization/Check`. Default: none.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"opa")]
    pub grpc: Option<String>,
    /// Path and query that are asked for over HTTP. Default: `/`.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"/verify")]
    pub path: Option<String>,
    /// Headers of the request, one or a list, that the service sees. Default: `[authorization, cookie]`.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OneOrMany<String>", example = vec!["authorization", "x-tenant"])]
    pub headers: Option<OneOrMany<String>>,
    /// Headers of the answer, one or a list, that go on with a request that passes. What the client sends under these names is taken
    /// away first, in every spelling. Default: none.
    #[serde(default, skip_serializing_if = "written::is_empty")]
    #[schemars(example = vec!["x-user", "x-roles"])]
    pub copy: OneOrMany<String>,
    /// Headers of a refusal, one or a list, that the client sees, besides its content type. Default: `[location, set-cookie,
    /// www-authenticate]`.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OneOrMany<String>", example = vec!["www-authenticate"])]
    pub answer: Option<OneOrMany<String>>,
    /// How long the service may take, to the last byte of its answer; at most `30s`. Default: `1s`.
    #[serde(default = "second")]
    #[schemars(example = Span::from_millis(200))]
    pub timeout: Span,
    /// When a request is let pass because one like it was. Default: never, each request is asked about.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "CacheSpec", example = CacheSpec::example())]
    pub cache: Option<CacheSpec>,
}

/// Which requests are alike, and for how long that counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CacheSpec {
    /// How long a request passes because one like it did; at most `5m`. Required.
    #[schemars(example = Span::from_secs(10))]
    pub ttl: Span,
    /// What has to be the same, one or a list: names of headers, `method`, `path` (with the query), `host` and `client` (its address).
    /// All headers that the service sees must be among them. What is known of the caller always is. Required.
    #[schemars(example = vec!["authorization", "cookie", "method", "path"])]
    pub by: OneOrMany<String>,
}

impl CacheSpec {
    fn example() -> Self {
        Self { ttl: Span::from_secs(10), by: OneOrMany(vec!["authorization".into(), "cookie".into(), "path".into()]) }
    }
}

fn second() -> Span {
    Span::from_secs(1)
}

/// What was read of a spec, but for the upstream.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) path: PathAndQuery,
    pub(super) headers: Box<[HeaderName]>,
    pub(super) copy: Box<[HeaderName]>,
    pub(super) answer: Box<[HeaderName]>,
    pub(super) cache: Option<(Span, By)>,
}

/// Reads all but the upstream.
pub(super) fn read(spec: &ExternalSpec, errors: &mut Vec<SpecError>) -> Read {
    let at = |key: &str| FieldPath::root().key(key);
    let path = match (&spec.path, &spec.grpc) {
        (None, _) => PathAndQuery::from_static("/"),
        (Some(_), Some(_)) => {
            let error = SpecError::new(at("path"), "a call of gRPC has its own path");
            errors.push(error.help("leave `path` out: it belongs to `http`"));
            PathAndQuery::from_static("/")
        }
        (Some(text), None) => PathAndQuery::try_from(text.as_str())
            .ok()
            .filter(|path| path.as_str().starts_with('/') && !text.contains('#'))
            .unwrap_or_else(|| {
                let error = SpecError::new(at("path"), format!("`{text}` is not a path"));
                errors.push(error.help("write a path that begins with `/`, such as `/verify`"));
                PathAndQuery::from_static("/")
            }),
    };
    if spec.timeout.duration().is_zero() || spec.timeout > SLOWEST {
        let error = SpecError::new(at("timeout"), format!("{} is no time for a verdict", spec.timeout));
        errors.push(error.help("write more than nothing and at most `30s`: every request waits for it"));
    }
    let headers = match &spec.headers {
        None => Box::from([AUTHORIZATION, COOKIE]),
        Some(names) => self::names(names, "headers", errors),
    };
    let answer = match &spec.answer {
        None => Box::from([LOCATION, SET_COOKIE, WWW_AUTHENTICATE]),
        Some(names) => self::names(names, "answer", errors),
    };
    let copy = self::names(&spec.copy, "copy", errors);
    let cache = spec.cache.as_ref().map(|cache| (cache.ttl, by(cache, &headers, errors)));
    Read { path, headers, copy, answer, cache }
}

/// The upstream that is asked, and how it is called.
pub(super) fn upstream(spec: &ExternalSpec, upstreams: &Upstreams) -> Result<(Arc<Upstream>, CallOptions), SpecError> {
    let (key, name) = match (&spec.http, &spec.grpc) {
        (Some(name), None) => ("http", name),
        (None, Some(name)) => ("grpc", name),
        (None, None) => {
            let error = SpecError::new(FieldPath::root(), "nothing says who is asked");
            return Err(error.help("write `http: NAME` or `grpc: NAME`, with the name of an upstream"));
        }
        (Some(_), Some(_)) => {
            let error = SpecError::new(FieldPath::root(), "both `http` and `grpc` say who is asked");
            return Err(error.help("leave one of them out"));
        }
    };
    let at = FieldPath::root().key(key);
    let (upstream, options) = upstreams.find(name).map_err(|error| error.below(&at))?;
    if key == "grpc" && !upstream.may_speak_http2() {
        let error = SpecError::new(at, format!("`{name}` is not spoken to by HTTP/2, which gRPC needs"));
        return Err(error.help("write `protocol: http2` there, or reach it under TLS"));
    }
    Ok((upstream, options))
}

fn names(written: &OneOrMany<String>, key: &str, errors: &mut Vec<SpecError>) -> Box<[HeaderName]> {
    let mut names = Vec::new();
    for (i, text) in written.iter().enumerate() {
        match fields::parse(text) {
            Ok(name) => names.push(kept::name(&name)),
            Err(bad) => errors.push(SpecError::new(FieldPath::root().key(key).index(i), bad.problem).help(bad.help)),
        }
    }
    names.into()
}

/// By what requests are alike.
fn by(spec: &CacheSpec, sent: &[HeaderName], errors: &mut Vec<SpecError>) -> By {
    let at = FieldPath::root().key("cache");
    if spec.ttl.duration().is_zero() || spec.ttl > LONGEST {
        let error = SpecError::new(at.clone().key("ttl"), format!("{} is no time to remember a verdict", spec.ttl));
        errors.push(error.help("write more than nothing and at most `5m`"));
    }
    let at = at.key("by");
    if spec.by.is_empty() {
        let error = SpecError::new(at.clone(), "by nothing all requests would be alike");
        errors.push(error.help("name what a verdict rests on, such as `[authorization, method, path]`"));
    }
    let mut parts = Vec::new();
    for (i, text) in spec.by.iter().enumerate() {
        match Part::parse(text) {
            Some(part) => parts.push(part),
            None => {
                let error = SpecError::new(at.clone().index(i), format!("`{text}` is not the name of a header"));
                errors.push(error.help("write names of headers, `method`, `path`, `host` or `client`"));
            }
        }
    }
    // What the service sees may decide: without this, one client would pass by the credential of another.
    for name in sent.iter().filter(|name| !parts.contains(&Part::Header((*name).clone()))) {
        let problem = format!("the service sees `{name}`, and requests that differ in it would count as alike");
        let error = SpecError::new(at.clone(), problem);
        errors.push(error.help(format!("add `{name}` to `by`, or write `headers` without it")));
    }
    By(parts.into())
}
