//! Error answers of the gateway: the only writer of error bodies (RFC 9457, `application/problem+json`).
//!
//! The `code` member is stable and belongs to the gateway: an upstream's body passes through untouched, but the header
//! `X-Pylon-Reason` and the log's `reason` are never an upstream's.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use pylon_core::Response;
use pylon_core::body::Body;
use pylon_core::exchange::Exchange;
use pylon_core::rejection::{
    INTERNAL, REQUEST_BODY_BROKEN, REQUEST_FRAMING, REQUEST_HEADERS_TOO_LARGE, REQUEST_HOST, REQUEST_METHOD,
    REQUEST_TARGET, REQUEST_TIMEOUT, REQUEST_URI_TOO_LONG, Reason, Rejection,
};
use serde::Serialize;

use crate::grpc;
use crate::hop::PYLON_REASON;
use crate::snapshot::Settings;

/// The members of a problem (RFC 9457 §3.1), with the request's id and the code as extensions.
#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

/// The answer that a refusal becomes, noted in the exchange for the log.
pub(crate) fn render(rejection: Rejection, cx: &mut Exchange, settings: &Settings) -> Response {
    cx.trail.refuse(&rejection);
    let reason = rejection.reason;
    if cx.grpc {
        let mut response = grpc::render(&rejection);
        if settings.reason_header {
            response.headers_mut().insert(PYLON_REASON, HeaderValue::from_static(reason.code));
        }
        return response;
    }
    let status = status(&rejection);
    let body = problem((reason, status), rejection.detail.as_deref(), cx.request_id.to_str().ok());
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if settings.reason_header {
        headers.insert(PYLON_REASON, HeaderValue::from_static(reason.code));
    }
    if breaks_connection(reason) {
        // What follows on this connection cannot be trusted to be the next request.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    for (name, value) in rejection.headers {
        headers.append(name, value);
    }
    response
}

/// The whole answer, in wire format, to what the codec could not make a request of.
pub(crate) fn wire(reason: &'static Reason, detail: Option<&str>) -> Vec<u8> {
    let status = reason.status();
    let body = problem((reason, status), detail, None);
    let mut wire = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default(),
        body.len()
    )
    .into_bytes();
    wire.extend_from_slice(&body);
    wire
}

/// What a status of the codec means in our words.
pub(crate) fn of_codec(status: u16) -> &'static Reason {
    match StatusCode::from_u16(status) {
        Ok(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE) => &REQUEST_HEADERS_TOO_LARGE,
        Ok(StatusCode::URI_TOO_LONG) => &REQUEST_URI_TOO_LONG,
        Ok(StatusCode::REQUEST_TIMEOUT) => &REQUEST_TIMEOUT,
        Ok(StatusCode::NOT_IMPLEMENTED) => &REQUEST_METHOD,
        Ok(StatusCode::INTERNAL_SERVER_ERROR) => &INTERNAL,
        _ => &REQUEST_FRAMING,
    }
}

/// The methods of an `Allow` field.
pub(crate) fn allow(methods: impl Iterator<Item = impl std::fmt::Display>) -> Option<(http::HeaderName, HeaderValue)> {
    let list: Vec<String> = methods.map(|method| method.to_string()).collect();
    HeaderValue::try_from(list.join(", ")).ok().map(|value| (ALLOW, value))
}

fn breaks_connection(reason: &'static Reason) -> bool {
    [&REQUEST_BODY_BROKEN, &REQUEST_FRAMING, &REQUEST_HOST, &REQUEST_TARGET, &REQUEST_TIMEOUT].contains(&reason)
}

/// The status that the client is told.
fn status(rejection: &Rejection) -> StatusCode {
    let told = rejection.told.and_then(|told| told.status.or(told.grpc.map(|code| grpc::status_for(code.into()))));
    told.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or_else(|| rejection.reason.status())
}

fn problem((reason, status): (&Reason, StatusCode), detail: Option<&str>, request_id: Option<&str>) -> Bytes {
    let problem = Problem {
        kind: format!("urn:pylon:problem:{}", reason.code),
        title: reason.title,
        status: status.as_u16(),
        detail,
        code: reason.code,
        request_id,
    };
    serde_json::to_vec(&problem).map(Bytes::from).unwrap_or_default()
}
