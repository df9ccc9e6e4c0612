//! A fixed answer: `respond: 404`, or `respond: { status: 200, body: "hello\n" }`.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use pylon_core::Response;
use pylon_core::body::Body;
use pylon_core::short::FromScalar;
use pylon_core::spec::{FieldPath, SpecError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An answer that is always the same. Short: the status, `respond: 404`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RespondSpec {
    /// The status, 200 to 599. Default 200. Example: `404`.
    #[serde(default = "ok")]
    pub status: u16,
    /// The body. Default: none. Example: `"hello\n"`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub body: String,
    /// Header fields of the answer. `content-type` is `text/plain; charset=utf-8` where a body stands and none is
    /// written. Default: none. Example: `{ cache-control: no-store }`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

fn ok() -> u16 {
    200
}

impl FromScalar for RespondSpec {
    const EXPECTING: &'static str = "a status such as `404`";

    fn from_scalar(text: &str) -> Result<Self, String> {
        let status = text.parse().map_err(|_| format!("`{text}` is not a status"))?;
        Ok(Self { status, body: String::new(), headers: BTreeMap::new() })
    }
}

/// A compiled `respond`.
#[derive(Debug)]
pub struct Respond {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Respond {
    /// Compiles the spec.
    pub fn compile(spec: &RespondSpec) -> Result<Self, Vec<SpecError>> {
        let mut errors = Vec::new();
        let status = StatusCode::from_u16(spec.status).ok().filter(|status| (200..600).contains(&status.as_u16()));
        if status.is_none() {
            errors.push(SpecError::new(
                FieldPath::root().key("status"),
                format!("{} is not a status from 200 to 599", spec.status),
            ));
        }
        if matches!(spec.status, 204 | 304) && !spec.body.is_empty() {
            errors.push(SpecError::new(
                FieldPath::root().key("body"),
                format!("an answer with status {} has no body", spec.status),
            ));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &spec.headers {
            match field(name, value) {
                Ok((name, value)) => drop(headers.insert(name, value)),
                Err(problem) => errors.push(SpecError::new(FieldPath::root().key("headers").key(name), problem)),
            }
        }
        if !spec.body.is_empty() && !headers.contains_key(CONTENT_TYPE) {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        }
        match status {
            Some(status) if errors.is_empty() => Ok(Self { status, headers, body: Bytes::from(spec.body.clone()) }),
            _ => Err(errors),
        }
    }

    pub(crate) fn answer(&self) -> Response {
        let mut response = Response::new(Body::from(self.body.clone()));
        *response.status_mut() = self.status;
        response.headers_mut().clone_from(&self.headers);
        response
    }
}

fn field(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let parsed = HeaderName::try_from(name).map_err(|_| format!("`{name}` is not a header name"))?;
    if parsed == CONTENT_LENGTH || parsed == TRANSFER_ENCODING || parsed == http::header::CONNECTION {
        return Err(format!("`{name}` is set by the gateway itself"));
    }
    let value =
        HeaderValue::try_from(value).map_err(|_| "the value has a character that no header may have".to_owned())?;
    Ok((parsed, value))
}
