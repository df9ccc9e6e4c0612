//! Lets pages of other origins call a route: cross-origin resource sharing, by the Fetch standard.
//!
//! ```yaml
//! cors: https://a.example
//! ```
//! ```yaml
//! cors:
//!   origins: [https://a.example, "https://*.example.com"]
//!   methods: [GET, PUT]
//!   headers: [content-type, x-tenant]
//!   expose: [x-total]
//!   credentials: true
//!   max_age: 1h
//! ```
//!
//! **Preflights** (`OPTIONS` with `Origin` and `Access-Control-Request-Method`) are answered here with 204, before
//! anybody asks for credentials and before limits count, since browsers send neither. The service never sees them. A
//! preflight of an origin that is not allowed gets the same 204 without CORS headers, which is how a browser learns that it
//! must not send the request.
//!
//! **Other requests** pass, whatever their origin: CORS tells browsers who may read an answer, and is no access control.
//! The answer carries the CORS headers if the origin is allowed, also when the gateway made it (401, 403, 429, 502): a
//! page can then see what went wrong. Guards (`ip_filter`, `maintenance`, `request_limits`) still judge first, preflights
//! too; their refusals carry the headers as well. CORS headers of the service are replaced.
//!
//! **Vary** is kept correct: `Origin` is added wherever the answer depends on it, and what the service varies by stays.
//! With `origins: "*"` every answer says `*`, and nothing varies.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use pylon_core::body::Body;
use pylon_core::exchange::Exchange;
use pylon_core::kept;
use pylon_core::short::{FromScalar, OneOrMany, Short};
use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::units::Span;
use pylon_core::{Request, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::origin::{Origin, Origins, Verdict};
use crate::policy::{Compiling, Policy, Step, Stop};
use crate::vary;

/// Which pages of other origins may call, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CorsSpec {
    /// The origins that may call: `https://a.example`, `https://*.example.com` (any name below, of one or more labels), or
    /// `*` for all. One or a list. Required.
    #[schemars(example = vec!["https://a.example", "https://*.example.com"])]
    pub origins: OneOrMany<String>,
    /// The methods that may be used. Default: every method that the route lets through.
    #[serde(default)]
    #[schemars(example = vec!["GET", "PUT"])]
    pub methods: OneOrMany<String>,
    /// The request headers that may be sent beyond those that are always safe. Default: those that the page asks for.
    #[serde(default)]
    #[schemars(example = vec!["content-type", "x-tenant"])]
    pub headers: OneOrMany<String>,
    /// The response headers that a page may read beyond those that are always safe. Default: none.
    #[serde(default)]
    #[schemars(example = vec!["x-total"])]
    pub expose: OneOrMany<String>,
    /// Whether cookies and HTTP authentication may be sent along. Not together with origin `*`. Default: `false`.
    #[serde(default)]
    #[schemars(example = true)]
    pub credentials: bool,
    /// How long a browser may remember the answer to a preflight, in whole seconds. Default: `10m`.
    #[serde(default = "ten_minutes")]
    #[schemars(example = &"1h")]
    pub max_age: Span,
    /// Whether pages of public origins may call when this gateway stands in a private network. Default: `false`.
    #[serde(default)]
    #[schemars(example = true)]
    pub private_network: bool,
}

fn ten_minutes() -> Span {
    Span::from_secs(600)
}

impl FromScalar for CorsSpec {
    const EXPECTING: &'static str = "an origin such as `https://a.example`";

    fn from_scalar(text: &str) -> Result<Self, String> {
        Origin::parse(text).map_err(|bad| format!("{}: {}", bad.problem, bad.help))?;
        Ok(Self {
            origins: OneOrMany(vec![text.into()]),
            methods: OneOrMany::default(),
            headers: OneOrMany::default(),
            expose: OneOrMany::default(),
            credentials: false,
            max_age: ten_minutes(),
            private_network: false,
        })
    }
}

/// The sharing at work: every value that does not depend on the request is ready.
#[derive(Debug)]
pub struct Cors {
    origins: Origins,
    /// None: the method that was asked for.
    methods: Option<HeaderValue>,
    /// None: the headers that were asked for.
    headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    max_age: HeaderValue,
    credentials: bool,
    private_network: bool,
}

/// What the request's origin may see in the response.
#[derive(Debug)]
pub enum Grant {
    /// Nothing.
    Nothing,
    /// As everybody.
    Any,
    /// As the origin at this place of the list.
    Listed(usize),
    /// As this origin, which fits a pattern.
    Fits(Box<HeaderValue>),
}

/// Everybody.
static ANY: HeaderValue = HeaderValue::from_static("*");
/// What an answer varies by that is not for everybody.
const VARIES: HeaderValue = HeaderValue::from_static("Origin");
static ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");
static REQUEST_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-request-private-network");

/// What a service might say for itself.
static FOREIGN: [HeaderName; 7] = [
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
    HeaderName::from_static("access-control-allow-private-network"),
];

impl Policy for Cors {
    type Spec = Short<CorsSpec>;
    type Memo = Grant;

    fn compile(spec: &Self::Spec, _: &Compiling<'_>) -> Result<Self, Vec<SpecError>> {
        let mut errors = Vec::new();
        let origins = origins(&spec.origins, spec.credentials, &mut errors);
        let methods = list(&spec.methods, "methods", &mut errors, method);
        let headers = list(&spec.headers, "headers", &mut errors, header);
        let expose = match (&*spec.expose, spec.credentials) {
            ([all], false) if all == "*" => Some(HeaderValue::from_static("*")),
            (names, _) => list(names, "expose", &mut errors, exposed),
        };
        if !errors.is_empty() {
            return Err(errors);
        }
        let max_age = HeaderValue::from(spec.max_age.duration().as_secs());
        let (credentials, private_network) = (spec.credentials, spec.private_network);
        Ok(Self { origins, methods, headers, expose, max_age, credentials, private_network })
    }

    fn on_request<'a>(&'a self, req: &'a mut Request, _: &'a mut Exchange) -> Step<'a, Grant> {
        let grant = self.grant(req.headers());
        if req.method() == Method::OPTIONS
            && req.headers().contains_key(ORIGIN)
            && let Some(asked) = req.headers().get(ACCESS_CONTROL_REQUEST_METHOD)
        {
            return Step::Done(Err(Stop::Reply(self.preflight(&grant, asked, req.headers()))));
        }
        Step::Done(Ok(grant))
    }

    fn on_refused(&self, req: &Request) -> Option<Grant> {
        Some(self.grant(req.headers()))
    }

    fn on_response<'a>(&'a self, grant: Grant, res: &'a mut Response, _: &'a mut Exchange) -> Step<'a, ()> {
        let headers = res.headers_mut();
        // Most services say nothing of CORS: one look over the names is cheaper than a search for each.
        if headers.keys().any(|name| name.as_str().starts_with("access-control-")) {
            for name in &FOREIGN {
                headers.remove(name);
            }
        }
        if self.allow(&grant, headers)
            && let Some(expose) = &self.expose
        {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
        if self.origins != Origins::Any {
            vary::add(headers, VARIES);
        }
        Step::Done(Ok(()))
    }
}

impl Cors {
    fn grant(&self, headers: &HeaderMap) -> Grant {
        // Two origins are none: it cannot be known which one the browser means.
        let once = || headers.keys_len() == headers.len() || headers.get_all(ORIGIN).iter().nth(1).is_none();
        let origin = headers.get(ORIGIN).filter(|_| once());
        match (self.origins.judge(origin), origin) {
            (Verdict::Any, _) => Grant::Any,
            (Verdict::Listed(index), _) => Grant::Listed(index),
            (Verdict::Fits, Some(origin)) => Grant::Fits(Box::new(origin.clone())),
            (Verdict::Fits | Verdict::Refused, _) => Grant::Nothing,
        }
    }

    /// Writes who may read the response, and answers whether anybody may.
    fn allow(&self, grant: &Grant, headers: &mut HeaderMap) -> bool {
        let origin = match grant {
            Grant::Nothing => None,
            Grant::Any => Some(&ANY),
            Grant::Listed(index) => self.origins.listed(*index),
            Grant::Fits(origin) => Some(&**origin),
        };
        let Some(origin) = origin else { return false };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        true
    }

    fn preflight(&self, grant: &Grant, asked: &HeaderValue, request: &HeaderMap) -> Response {
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        if self.allow(grant, headers) {
            // The route that answers was found by the method asked for, so it lets this method through.
            let asked = Method::from_bytes(asked.as_bytes()).is_ok().then(|| asked.clone());
            if let Some(methods) = self.methods.clone().or(asked) {
                headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
            }
            let asked = request.get(ACCESS_CONTROL_REQUEST_HEADERS).filter(|list| is_list_of_names(list));
            if let Some(names) = self.headers.as_ref().or(asked) {
                headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
            }
            if self.private_network && request.get(&REQUEST_PRIVATE_NETWORK).is_some_and(|value| value == "true") {
                headers.insert(ALLOW_PRIVATE_NETWORK.clone(), HeaderValue::from_static("true"));
            }
            headers.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        }
        self.vary_preflight(headers);
        response
    }

    fn vary_preflight(&self, headers: &mut HeaderMap) {
        let asked = "Access-Control-Request-Method, Access-Control-Request-Headers";
        vary::add(headers, HeaderValue::from_static(asked));
        if self.origins != Origins::Any {
            vary::add(headers, VARIES);
        }
        if self.private_network {
            vary::add(headers, HeaderValue::from_static("Access-Control-Request-Private-Network"));
        }
    }
}

fn origins(spec: &[String], credentials: bool, errors: &mut Vec<SpecError>) -> Origins {
    let at = FieldPath::root().key("origins");
    if spec.is_empty() {
        let error = SpecError::new(at.clone(), "`origins` is empty: no page could call");
        errors.push(error.help("name an origin, or take the policy away with `cors: off`"));
    }
    let mut origins = Vec::new();
    for (i, text) in spec.iter().enumerate() {
        let at = at.clone().index(i);
        match Origin::parse(text) {
            Ok(Origin::Any) if credentials => {
                let error = SpecError::new(at, "`*` with `credentials: true` would let every site act for your users");
                errors.push(error.help("name the origins, or leave `credentials` out"));
            }
            Ok(Origin::Any) if spec.len() > 1 => {
                let error = SpecError::new(at, "`*` already allows every origin");
                errors.push(error.help("leave `*` out, or the others"));
            }
            Ok(origin) => origins.push(origin),
            Err(bad) => errors.push(SpecError::new(at, bad.problem).help(bad.help)),
        }
    }
    Origins::new(origins)
}

/// The list as one header value; none if nothing is listed.
fn list(
    spec: &[String],
    key: &str,
    errors: &mut Vec<SpecError>,
    check: fn(&str) -> Result<(), (String, &'static str)>,
) -> Option<HeaderValue> {
    for (i, text) in spec.iter().enumerate() {
        if let Err((problem, help)) = check(text) {
            errors.push(SpecError::new(FieldPath::root().key(key).index(i), problem).help(help));
        }
    }
    if spec.is_empty() { None } else { kept::value(&spec.join(", ")).ok() }
}

fn method(text: &str) -> Result<(), (String, &'static str)> {
    match Method::from_bytes(text.as_bytes()) {
        Ok(_) if text == "*" => {
            Err(("`*` is not a method".into(), "leave `methods` out: the route's own are allowed then"))
        }
        Ok(_) if text.bytes().any(|b| b.is_ascii_lowercase()) => {
            Err((format!("`{text}` is not a method that browsers send"), "methods are written in capitals"))
        }
        Ok(_) => Ok(()),
        Err(_) => Err((format!("`{text}` is not a method"), "write a method such as `PUT`")),
    }
}

fn header(text: &str) -> Result<(), (String, &'static str)> {
    if text == "*" {
        return Err((
            "`*` leaves `authorization` out".into(),
            "leave `headers` out: what the page asks for is allowed then",
        ));
    }
    name(text)
}

fn exposed(text: &str) -> Result<(), (String, &'static str)> {
    if text == "*" {
        return Err((
            "`*` exposes nothing beside others or with credentials".into(),
            "name the headers that pages may read",
        ));
    }
    name(text)
}

fn name(text: &str) -> Result<(), (String, &'static str)> {
    let valid = HeaderName::from_bytes(text.as_bytes()).is_ok();
    if valid { Ok(()) } else { Err((format!("`{text}` is not a header name"), "write a name such as `x-tenant`")) }
}

/// Whether it is a list of field names and nothing that could mean more in a response.
fn is_list_of_names(list: &HeaderValue) -> bool {
    list.as_bytes().iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~, ".contains(b))
}

#[cfg(test)]
mod tests;
