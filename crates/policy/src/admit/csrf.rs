//! Refuses requests that another site has a browser send with its user's cookies: cross-site request forgery.
//!
//! ```yaml
//! csrf: true
//! ```
//! ```yaml
//! csrf:
//!   origins: [https://app.example.com]               # may send requests here besides this host itself
//!   token: { cookie: __Host-csrf, header: x-csrf-token }
//! ```
//!
//! Browsers say where a request comes from, and no page can change it: `Sec-Fetch-Site` (Fetch Metadata) under TLS, `Origin` everywhere
//! (Fetch §3.2). The first that is there decides:
//!
//! | what the request says | what becomes of it |
//! |---|---|
//! | `GET`, `HEAD`, `OPTIONS`, `TRACE`, unless a WebSocket is asked for | passes: such a request must change nothing (RFC 9110 §9.2.1) |
//! | `Sec-Fetch-Site: same-origin` or `none` (the user's own doing) | passes |
//! | `Sec-Fetch-Site: same-site` or `cross-site` | passes if its `Origin` is in `origins` |
//! | an `Origin` with the host and port that are asked for; under TLS with `https` | passes |
//! | any other `Origin`, `null` and several too | passes if it is in `origins` |
//! | neither, and no cookie | passes: it is no browser, or one that sends nothing of its user's |
//! | neither, but cookies | refused |
//!
//! What is refused is answered with 403, before anybody looks for credentials.
//!
//! **A token** besides, for pages that want two locks: the gateway sets a cookie with a value by lot on answers to those who have none, and
//! demands of each request with cookies that may change something that the page has copied the cookie's value into a header. The name should begin
//! with `__Host-`, so that no neighbouring host can set it (RFC 6265bis §4.1.3.2); that takes TLS.
//!
//! In shadow nothing is set: let the token wait until the rest is enforced.

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{COOKIE, HOST, ORIGIN, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue};
use pylon_core::connection::Scheme;
use pylon_core::exchange::Exchange;
use pylon_core::host::HostName;
use pylon_core::rejection::{CSRF_CROSS_SITE, CSRF_TOKEN, Rejection};
use pylon_core::secret::Secret;
use pylon_core::short::{FromScalar, OneOrMany, Short};
use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::{Request, Response, fields, kept};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::identity::{self, Found, Place};
use crate::origin::{Origin, Origins, Verdict};
use crate::policy::{Compiling, Policy, Step, Stop};
use crate::written;

static FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// The length of a token, in bytes before they are written in base64url.
const TOKEN: usize = 24;

/// Which pages may send requests that change something. Short: `true`, pages of the same host alone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CsrfSpec {
    /// Origins whose pages may send requests here, one or a list: `https://app.example.com`, `https://*.example.com`. Default: none but the
    /// host that is asked for.
    #[serde(default, skip_serializing_if = "written::is_empty")]
    #[schemars(example = vec!["https://app.example.com"])]
    pub origins: OneOrMany<String>,
    /// A cookie whose value pages have to copy into a header. Default: none is asked for.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "TokenSpec", example = TokenSpec { cookie: "__Host-csrf".into(), header: "x-csrf-token".into() })]
    pub token: Option<TokenSpec>,
}

/// The two places of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenSpec {
    /// The cookie, which the gateway sets. Required.
    #[schemars(example = &"__Host-csrf")]
    pub cookie: String,
    /// The header into which pages copy it. Default: `x-csrf-token`.
    #[serde(default = "csrf_header")]
    #[schemars(example = &"x-csrf-token")]
    pub header: String,
}

fn csrf_header() -> String {
    "x-csrf-token".to_owned()
}

impl FromScalar for CsrfSpec {
    const EXPECTING: &'static str = "`true`, or a map with `origins`";

    fn from_scalar(text: &str) -> Result<Self, String> {
        match text {
            "true" => Ok(Self::default()),
            _ => Err(format!("`{text}` is neither `true` nor `off`")),
        }
    }
}

/// The guard at work.
#[derive(Debug)]
pub struct Csrf {
    origins: Origins,
    token: Option<Token>,
}

#[derive(Debug)]
struct Token {
    name: Box<str>,
    cookie: Place,
    header: HeaderName,
}

impl Policy for Csrf {
    type Spec = Short<CsrfSpec>;
    /// Whether the answer is to bring the cookie.
    type Memo = bool;

    fn compile(spec: &Self::Spec, _: &Compiling<'_>) -> Result<Self, Vec<SpecError>> {
        let (mut origins, mut errors) = (Vec::new(), Vec::new());
        for (index, text) in spec.origins.iter().enumerate() {
            let at = FieldPath::root().key("origins").index(index);
            match Origin::parse(text) {
                Ok(Origin::Any) => {
                    let error = SpecError::new(at, "`*` would let every site act for your users");
                    errors.push(error.help("name the origins, or take the policy away with `csrf: off`"));
                }
                Ok(origin) => origins.push(origin),
                Err(bad) => errors.push(SpecError::new(at, bad.problem).help(bad.help)),
            }
        }
        let token = spec.token.as_ref().map(Token::compile).transpose();
        match token {
            Ok(token) if errors.is_empty() => Ok(Self { origins: Origins::new(origins), token }),
            Ok(_) => Err(errors),
            Err(more) => Err(errors.into_iter().chain(more).collect()),
        }
    }

    fn on_request<'a>(&'a self, req: &'a mut Request, cx: &'a mut Exchange) -> Step<'a, bool> {
        let lacks = self.token.as_ref().is_some_and(|token| token.shown(req, cx).is_none());
        // A handshake for a WebSocket is a GET, and opens a door for whatever the page says afterwards.
        if req.method().is_safe() && cx.websocket.is_none() {
            return Step::Done(Ok(lacks));
        }
        let verdict = self.judge(req.headers(), cx).and_then(|()| match &self.token {
            Some(token) if req.headers().contains_key(COOKIE) => token.check(req, cx),
            _ => Ok(()),
        });
        Step::Done(verdict.map(|()| lacks).map_err(Stop::from))
    }

    fn on_response<'a>(&'a self, lacks: bool, res: &'a mut Response, cx: &'a mut Exchange) -> Step<'a, ()> {
        if let (true, Some(token)) = (lacks, &self.token)
            && let Some(cookie) = token.cookie(cx.scheme)
        {
            res.headers_mut().append(SET_COOKIE, cookie);
        }
        Step::Done(Ok(()))
    }
}

impl Csrf {
    /// Whether the page that sends this may.
    fn judge(&self, headers: &HeaderMap, cx: &Exchange) -> Result<(), Rejection> {
        let (site, origin) = (Line::of(headers, &FETCH_SITE), Line::of(headers, &ORIGIN));
        match (site, origin) {
            (Line::One(site), _) if site == "same-origin" || site == "none" => Ok(()),
            (Line::Absent, Line::One(origin)) if is_here(origin, headers, cx.scheme) => Ok(()),
            (_, Line::One(origin)) if self.origins.judge(Some(origin)) != Verdict::Refused => Ok(()),
            (Line::Absent, Line::Absent) if !headers.contains_key(COOKIE) => Ok(()),
            (Line::Absent, Line::Absent) => {
                Err(CSRF_CROSS_SITE.privately("it has cookies and says nothing of where it comes from"))
            }
            (site, origin) => {
                let told = |line: Line<'_>| match line {
                    Line::Absent => "not there".to_owned(),
                    Line::Several => "several".to_owned(),
                    Line::One(value) => value.as_bytes().escape_ascii().take(200).map(char::from).collect(),
                };
                let (site, origin) = (told(site), told(origin));
                Err(CSRF_CROSS_SITE.privately(format!("`Sec-Fetch-Site` is {site}, `Origin` {origin}")))
            }
        }
    }
}

impl Token {
    fn compile(spec: &TokenSpec) -> Result<Self, Vec<SpecError>> {
        let at = |key: &str| FieldPath::root().key("token").key(key);
        let mut errors = Vec::new();
        let cookie = identity::place_named(&spec.cookie, Place::Cookie);
        let cookie = cookie.map_err(|error| errors.push(error.below(&at("cookie")))).ok();
        let header = fields::parse(&spec.header);
        let header = header.map_err(|bad| errors.push(SpecError::new(at("header"), bad.problem).help(bad.help))).ok();
        match (cookie, header) {
            (Some(cookie), Some(header)) => {
                Ok(Self { name: spec.cookie.as_str().into(), cookie, header: kept::name(&header) })
            }
            _ => Err(errors),
        }
    }

    /// The cookie's value, where it is there once and is not empty.
    fn shown<'r>(&'r self, req: &'r Request, cx: &'r Exchange) -> Option<std::borrow::Cow<'r, [u8]>> {
        match self.cookie.find(req, cx) {
            Found::One(value) if !value.is_empty() => Some(value),
            _ => None,
        }
    }

    /// Whether the page has copied the cookie.
    fn check(&self, req: &Request, cx: &Exchange) -> Result<(), Rejection> {
        let Some(shown) = self.shown(req, cx) else { return Err(CSRF_TOKEN.privately("the cookie is not there once")) };
        match Line::of(req.headers(), &self.header) {
            Line::One(copy) if Secret::new(&shown).matches(copy.as_bytes()) => Ok(()),
            Line::One(_) | Line::Several => Err(CSRF_TOKEN.privately("the header is not what the cookie says")),
            Line::Absent => Err(CSRF_TOKEN.privately("the header is not there")),
        }
    }

    /// A cookie with a new value; pages have to be able to read it.
    fn cookie(&self, scheme: Scheme) -> Option<HeaderValue> {
        let mut lot = [0; TOKEN];
        SystemRandom::new().fill(&mut lot).ok()?;
        let secure = if scheme == Scheme::Https { "; Secure" } else { "" };
        let text = format!("{}={}; Path=/; SameSite=Lax{secure}", self.name, URL_SAFE_NO_PAD.encode(lot));
        HeaderValue::try_from(text).ok()
    }
}

/// What stands in a header.
#[derive(Debug, Clone, Copy)]
enum Line<'h> {
    Absent,
    One(&'h HeaderValue),
    /// It cannot be known which is meant.
    Several,
}

impl<'h> Line<'h> {
    fn of(headers: &'h HeaderMap, name: &HeaderName) -> Self {
        let mut lines = headers.get_all(name).iter();
        match (lines.next(), lines.next()) {
            (None, _) => Self::Absent,
            (Some(line), None) => Self::One(line),
            (Some(_), Some(_)) => Self::Several,
        }
    }
}

/// Whether an origin is the host and port that are asked for. Who came by TLS must not be sent by a page that did not.
fn is_here(origin: &HeaderValue, headers: &HeaderMap, scheme: Scheme) -> bool {
    let Some((of, authority)) = origin.to_str().ok().and_then(|origin| origin.split_once("://")) else { return false };
    let usual = |scheme: &str| if scheme == "https" { Some(443) } else { Some(80) };
    let is_scheme = of == "https" || (of == "http" && scheme == Scheme::Http);
    let Line::One(host) = Line::of(headers, &HOST) else { return false };
    let (Ok(origin), Ok(host)) = (HostName::parse(authority.as_bytes()), HostName::parse(host.as_bytes())) else {
        return false;
    };
    // Before a gateway that takes cleartext from a balancer, the port of neither is written.
    let origin_port = origin.port().filter(|port| Some(*port) != usual(of));
    let host_port = host.port().filter(|port| Some(*port) != usual(scheme.as_str()));
    is_scheme && origin.as_str() == host.as_str() && origin_port == host_port
}

#[cfg(test)]
mod tests;
