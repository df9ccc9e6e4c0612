//! Sends clients that come by cleartext to the same address under HTTPS, with `308 Permanent Redirect`.
//!
//! ```yaml
//! https_redirect: true        # to port 443
//! ```
//! ```yaml
//! https_redirect: 8443        # to another port
//! ```
//!
//! A request that came under TLS passes; so does one for which a trusted proxy says `X-Forwarded-Proto: https`. 308
//! keeps method and body (RFC 9110 §15.4.9), so a `POST` stays a `POST`. Path and query are those of the client after
//! normalisation. The host is the one asked for; a request that names none, or none that can stand in an address, is
//! refused with 400. A redirect cannot protect what the first request sent in cleartext: keep credentials out of it, and
//! tell browsers by `Strict-Transport-Security`.

use std::num::NonZeroU16;

use http::header::LOCATION;
use http::{HeaderValue, StatusCode};
use pylon_core::body::Body;
use pylon_core::connection::Scheme;
use pylon_core::exchange::Exchange;
use pylon_core::rejection::REQUEST_HOST;
use pylon_core::short::{FromScalar, Short};
use pylon_core::spec::SpecError;
use pylon_core::{Request, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::policy::{Compiling, Policy, Step, Stop};

/// Where clients that come by cleartext are sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpsRedirectSpec {
    /// The port that answers HTTPS, as clients reach it: 1 to 65535. Default: 443, which does not show in the address.
    #[serde(default = "standard")]
    #[schemars(example = 8443)]
    pub port: NonZeroU16,
}

fn standard() -> NonZeroU16 {
    NonZeroU16::MIN.saturating_add(442)
}

impl FromScalar for HttpsRedirectSpec {
    const EXPECTING: &'static str = "`true`, or the port that answers HTTPS";

    fn from_scalar(text: &str) -> Result<Self, String> {
        match text {
            "true" => Ok(Self { port: standard() }),
            "false" => Err("`false` is not a redirect: `https_redirect: off` takes it away".into()),
            port => {
                port.parse().map(|port| Self { port }).map_err(|_| format!("`{port}` is neither `true` nor a port"))
            }
        }
    }
}

/// The redirect at work.
#[derive(Debug)]
pub struct HttpsRedirect {
    port: NonZeroU16,
}

impl Policy for HttpsRedirect {
    type Spec = Short<HttpsRedirectSpec>;
    type Memo = ();

    fn compile(spec: &Self::Spec, _: &Compiling<'_>) -> Result<Self, Vec<SpecError>> {
        Ok(Self { port: spec.port })
    }

    fn on_request<'a>(&'a self, _: &'a mut Request, cx: &'a mut Exchange) -> Step<'a, ()> {
        match cx.scheme {
            Scheme::Https => Step::Done(Ok(())),
            Scheme::Http => Step::Done(Err(self.redirect(cx))),
        }
    }
}

impl HttpsRedirect {
    fn redirect(&self, cx: &Exchange) -> Stop {
        let Some(host) = cx.host.as_deref().filter(|host| is_host(host)) else { return (&REQUEST_HOST).into() };
        // `OPTIONS *` has no path.
        let path = if cx.path.path().starts_with('/') { cx.path.as_str() } else { "/" };
        let location = match self.port.get() {
            443 => format!("https://{host}{path}"),
            port => format!("https://{host}:{port}{path}"),
        };
        let Ok(location) = HeaderValue::try_from(location) else { return (&REQUEST_HOST).into() };
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
        response.headers_mut().insert(LOCATION, location);
        Stop::Reply(response)
    }
}

/// Whether `host` can stand in an address and be nothing but a host there.
fn is_host(host: &str) -> bool {
    let name = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Seen, compile, now, stopped};

    fn location(policy: &HttpsRedirect, seen: &Seen) -> String {
        let (mut req, mut cx) = seen.start();
        match now(policy.on_request(&mut req, &mut cx)) {
            Err(Stop::Reply(response)) => {
                assert_eq!(response.status(), 308);
                response.headers()[LOCATION].to_str().unwrap().into()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn cleartext_is_sent_to_the_same_path_under_https() {
        let policy = compile::<HttpsRedirect>("true").unwrap();
        let seen = Seen::get("/a%20b?x=1&y=%2F").host("api.example.com");
        assert_eq!(location(&policy, &seen), "https://api.example.com/a%20b?x=1&y=%2F");
        assert_eq!(location(&policy, &Seen::get("/").host("[::1]")), "https://[::1]/");
        assert_eq!(location(&compile("8443").unwrap(), &seen), "https://api.example.com:8443/a%20b?x=1&y=%2F");
        assert_eq!(location(&compile(r#"{ "port": 8443 }"#).unwrap(), &Seen::get("*").host("a")), "https://a:8443/");
    }

    #[test]
    fn what_came_under_tls_passes() {
        let policy = compile::<HttpsRedirect>("true").unwrap();
        let (mut req, mut cx) = Seen::get("/").scheme(Scheme::Https).start();
        assert!(now(policy.on_request(&mut req, &mut cx)).is_ok());
    }

    #[test]
    fn a_host_that_is_none_never_reaches_the_location() {
        let policy = compile::<HttpsRedirect>("true").unwrap();
        for host in ["", "a/b", "a@b", "a:1", "[::1", "a b", "a\\b", "[x]"] {
            let (mut req, mut cx) = Seen::get("/").host(host).start();
            assert_eq!(stopped(now(policy.on_request(&mut req, &mut cx))), "request.host", "{host}");
        }
    }

    #[test]
    fn a_wrong_port_is_an_error_and_false_says_how_to_take_it_away() {
        for spec in ["0", "65536", "-1", "\"yes\"", r#"{ "port": 0 }"#, r#"{ "prot": 443 }"#, "false"] {
            assert!(compile::<HttpsRedirect>(spec).is_err(), "{spec}");
        }
        assert!(compile::<HttpsRedirect>("false").unwrap_err().contains("`https_redirect: off`"));
    }
}
