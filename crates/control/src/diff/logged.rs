//! A line of the access log, read back as the request that it tells of.
//!
//! The log does not tell all of a request: fields only where `access_log.headers` lists them, and never its scheme.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::{HeaderName, HeaderValue, Version};
use pylon_core::Request;
use pylon_core::body::Body;
use serde::Deserialize;

/// Fields that the gateway itself wrote or that end at each hop: they are not the client's, so they are not replayed.
const NOT_REPLAYED: [&str; 9] =
    ["host", "via", "forwarded", "connection", "te", "transfer-encoding", "content-length", "upgrade", "expect"];

/// What is read of a line.
#[derive(Debug, Deserialize)]
pub(super) struct Line<'a> {
    #[serde(borrow)]
    pub(super) time: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) client: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) method: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) host: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) path: Cow<'a, str>,
    #[serde(borrow)]
    protocol: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) route: Option<Cow<'a, str>>,
    #[serde(borrow)]
    headers: Option<BTreeMap<Cow<'a, str>, Cow<'a, str>>>,
}

/// What a line comes to.
pub(super) enum Read {
    /// A request, and whom it came from.
    Request(Box<Request>, SocketAddr),
    /// A connection that was carried byte by byte, or a request that never came to be read.
    NoRequest,
    /// The log has cut it, or its values are none.
    Unclear,
}

impl Line<'_> {
    /// The request as the client sent it, as far as the log tells.
    pub(super) fn request(&self) -> Read {
        if self.protocol == "tcp" || self.method == "-" {
            return Read::NoRequest;
        }
        if self.path.ends_with('…') || self.host.as_ref().is_some_and(|host| host.ends_with('…')) {
            return Read::Unclear;
        }
        match (self.built(), self.peer()) {
            (Some(request), Some(peer)) => Read::Request(Box::new(request), SocketAddr::new(peer, 0)),
            _ => Read::Unclear,
        }
    }

    fn peer(&self) -> Option<IpAddr> {
        if self.client == "unix" { Some(Ipv4Addr::UNSPECIFIED.into()) } else { self.client.parse().ok() }
    }

    fn built(&self) -> Option<Request> {
        let version = if self.protocol == "HTTP/1.0" { Version::HTTP_10 } else { Version::HTTP_11 };
        let mut builder = http::Request::builder().method(&*self.method).uri(&*self.path).version(version);
        if let Some(host) = &self.host {
            builder = builder.header(http::header::HOST, &**host);
        }
        for (name, value) in self.headers.iter().flatten() {
            let (Ok(name), Ok(value)) = (HeaderName::try_from(&**name), HeaderValue::try_from(&**value)) else {
                continue;
            };
            let text = name.as_str();
            if !NOT_REPLAYED.contains(&text) && !text.starts_with("x-forwarded-") && text != "x-real-ip" {
                builder = builder.header(name, value);
            }
        }
        builder.body(Body::Empty).ok()
    }
}
