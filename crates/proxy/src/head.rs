//! Reading the head of a request once: target form, host, path, client, id. What follows works on its result alone.
//!
//! RFC 9112 §3.2 (target forms), RFC 9110 §7.2 (Host). The request's URI is replaced by the normalised path and query,
//! so that every later look at it, and the upstream, sees the same bytes.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Uri, Version};
use pylon_core::Request;
use pylon_core::connection::Connection;
use pylon_core::exchange::{Exchange, Head};
use pylon_core::host::HostName;
use pylon_core::rejection::{
    REQUEST_HOST, REQUEST_METHOD, REQUEST_MISDIRECTED, REQUEST_PATH, REQUEST_TARGET, Rejection,
};
use pylon_route::normalise::{PathRules, check_query, normalise};

use crate::snapshot::Settings;
use crate::{forwarding, grpc, hop, http2, websocket};

/// Reads the head. The exchange exists even where the request is refused, so that the refusal is logged.
pub(crate) fn read(
    request: &mut Request,
    connection: Arc<Connection>,
    started: Instant,
    settings: &Settings,
    via: &HeaderValue,
    fresh_id: impl FnOnce() -> HeaderValue,
) -> (Box<Exchange>, Result<(), Rejection>) {
    if request.version() == Version::HTTP_2 {
        http2::adapt(request);
    }
    let found = hop::look(request.headers());
    let trusted = &settings.trusted_proxies;
    let origin = forwarding::origin(request.headers(), &connection, trusted, &found);
    let mut request_id = (origin.trusted.then(|| request.headers().get(hop::X_REQUEST_ID)).flatten())
        .filter(|id| crate::request_id::is_acceptable(id))
        .cloned()
        .unwrap_or_else(fresh_id);
    // HTTP/2 shall not remember it for later messages: it never comes again, and would be looked for among all before it.
    request_id.set_sensitive(true);
    let (host, path, verdict) = match understand(request, &found) {
        Ok((host, path)) => {
            let verdict = check_demands(&connection, host.as_deref())
                .and_then(|()| forwarding::check_loop(request.headers(), &found, &settings.pseudonym));
            (host, path, verdict)
        }
        Err(no) => {
            let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
            (None, path, Err(no))
        }
    };
    let asked = if found.upgrade { websocket::asked(request) } else { None };
    hop::strip_request(request.headers_mut(), &found);
    let announced =
        forwarding::announce(request.headers_mut(), &connection, (origin, trusted), &found, via, &request_id);
    let written = request.uri().path_and_query().filter(|written| **written != path).cloned();
    *request.uri_mut() = Uri::from(path.clone());
    let mut exchange = Exchange::begin(Head {
        client: origin.client,
        from_trusted_proxy: origin.trusted,
        scheme: origin.scheme,
        request_id,
        started,
        method: request.method().clone(),
        version: request.version(),
        host,
        path,
        connection,
    });
    exchange.announced = announced;
    exchange.written_path = written;
    if grpc::is_call(request.headers()) {
        exchange.grpc = true;
        exchange.deadline = grpc::timeout(request.headers()).map(|span| started + span);
    }
    exchange.websocket = asked;
    (exchange, verdict)
}

/// Host and normalised path of a request that means one thing only.
fn understand(request: &mut Request, found: &hop::Found) -> Result<(Option<Box<str>>, PathAndQuery), Rejection> {
    hop::check(found, request.headers(), request.version() == Version::HTTP_10)?;
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return Err(Rejection::from(&REQUEST_METHOD));
    }
    check_authority(request)?;
    let host = match request.headers().get(HOST) {
        None => None,
        Some(value) => {
            let name = HostName::parse(value.as_bytes()).map_err(|error| REQUEST_HOST.because(error.to_string()))?;
            Some(Box::from(name.as_str()))
        }
    };
    let path = normal_path(request.uri())?;
    Ok((host, path))
}

/// Absolute form names the host once more; it has to be the same (RFC 9112 §3.2.2).
fn check_authority(request: &Request) -> Result<(), Rejection> {
    let Some(authority) = request.uri().authority() else { return Ok(()) };
    if !matches!(request.uri().scheme_str(), Some("http" | "https")) {
        return Err(REQUEST_TARGET.because("the scheme of the target is neither http nor https"));
    }
    let host = request.headers().get(HOST).map_or(&b""[..], HeaderValue::as_bytes);
    if authority.as_str().as_bytes().eq_ignore_ascii_case(host) {
        Ok(())
    } else {
        Err(REQUEST_TARGET.because("the target names another host than the Host field"))
    }
}

/// A connection that was opened for one host must not reach another that demands more, or something else, of clients.
fn check_demands(connection: &Connection, host: Option<&str>) -> Result<(), Rejection> {
    if connection.may_ask_for(host) { Ok(()) } else { Err(Rejection::from(&REQUEST_MISDIRECTED)) }
}

fn normal_path(uri: &Uri) -> Result<PathAndQuery, Rejection> {
    let written = match uri.path_and_query() {
        Some(written) if written.as_str() != "*" => written,
        _ => return Err(REQUEST_TARGET.because("the target has no path")),
    };
    if let Some(query) = written.query() {
        check_query(query.as_bytes()).map_err(|error| REQUEST_TARGET.because(error.to_string()))?;
    }
    match normalise(written.path(), PathRules::SERVE).map_err(|error| REQUEST_PATH.because(error.to_string()))? {
        Cow::Borrowed(path) if path.len() == written.path().len() => Ok(written.clone()),
        path => {
            let mut text = path.into_owned();
            if let Some(query) = written.query() {
                text.push('?');
                text.push_str(query);
            }
            PathAndQuery::try_from(text).map_err(|_| Rejection::from(&REQUEST_PATH))
        }
    }
}
