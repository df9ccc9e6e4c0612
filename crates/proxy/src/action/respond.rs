//! A fixed answer: `respond: 404`, or `respond: { status: 200, body: "hello\n" }`.
//!
//! What is in a file is read while a document is compiled, up to 1 MiB, and stays as it was until the next.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use pylon_core::Response;
use pylon_core::body::Body;
use pylon_core::short::FromScalar;
use pylon_core::spec::{FieldPath, SpecError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::grpc;

/// The longest file that is taken for a body, in bytes.
const LARGEST_FILE: u64 = 1 << 20;
/// The longest body that becomes the message of a call of gRPC, in bytes: it goes in a header.
const LONGEST_MESSAGE: usize = 1024;

/// An answer that is always the same. Short: the status, `respond: 404`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RespondSpec {
    /// The status, 200 to 599. Default 200. Example: `404`.
    #[serde(default = "ok")]
    pub status: u16,
    /// The body as text. Default: none. Example: `"hello\n"`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub body: String,
    /// The body as JSON, in place of `body`. Default: none. Example: `{ items: [], complete: false }`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub json: Option<serde_json::Value>,
    /// The body as the content of a file, in place of `body`: read when the document is, up to 1 MiB. Default: none.
    /// Example: `pages/sorry.html`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Header fields of the answer. Where none is written, `content-type` is `text/plain; charset=utf-8` for `body`,
    /// `application/json` for `json`, and what the name of a `file` says. Default: none.
    /// Example: `{ cache-control: no-store }`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

fn ok() -> u16 {
    200
}

/// `null` is a value, too.
fn present<'de, D: serde::Deserializer<'de>>(source: D) -> Result<Option<serde_json::Value>, D::Error> {
    serde_json::Value::deserialize(source).map(Some)
}

impl FromScalar for RespondSpec {
    const EXPECTING: &'static str = "a status such as `404`";

    fn from_scalar(text: &str) -> Result<Self, String> {
        let status = text.parse().map_err(|_| format!("`{text}` is not a status"))?;
        Ok(Self { status, body: String::new(), json: None, file: None, headers: BTreeMap::new() })
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
        let (body, kind) = body(spec).unwrap_or_else(|error| {
            errors.push(error);
            (Bytes::new(), "")
        });
        if matches!(spec.status, 204 | 304) && !body.is_empty() {
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
        if !body.is_empty() && !headers.contains_key(CONTENT_TYPE) {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        match status {
            Some(status) if errors.is_empty() => Ok(Self { status, headers, body }),
            _ => Err(errors),
        }
    }

    /// The answer that clients of gRPC understand: its status, and its text as the message.
    pub(crate) fn grpc_answer(&self) -> Response {
        let text = str::from_utf8(&self.body).ok().map(str::trim).filter(|text| text.len() <= LONGEST_MESSAGE);
        grpc::stand_in(self.status.as_u16(), text.unwrap_or_default())
    }

    pub(crate) fn answer(&self) -> Response {
        let mut response = Response::new(Body::from(self.body.clone()));
        *response.status_mut() = self.status;
        response.headers_mut().clone_from(&self.headers);
        response
    }
}

/// The body, and its type where none is written.
fn body(spec: &RespondSpec) -> Result<(Bytes, &'static str), SpecError> {
    let written = [("body", !spec.body.is_empty()), ("json", spec.json.is_some()), ("file", spec.file.is_some())];
    let mut written = written.iter().filter(|(_, is)| *is).map(|(key, _)| *key);
    if let (Some(first), Some(second)) = (written.next(), written.next()) {
        let problem = format!("the body is written twice, as `{first}` and as `{second}`");
        return Err(SpecError::new(FieldPath::root().key(second), problem).help("keep one of them"));
    }
    if let Some(json) = &spec.json {
        return Ok((Bytes::from(json.to_string()), "application/json"));
    }
    match &spec.file {
        Some(path) => content(path).map(|bytes| (bytes, kind_of(path))).map_err(|problem| {
            SpecError::new(FieldPath::root().key("file"), format!("`{path}` cannot be used: {problem}"))
        }),
        None => Ok((Bytes::from(spec.body.clone()), "text/plain; charset=utf-8")),
    }
}

fn content(path: &str) -> Result<Bytes, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    // One byte more, so that a file over the limit is known as such.
    file.take(LARGEST_FILE + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err("it is longer than 1 MiB".to_owned());
    }
    Ok(Bytes::from(bytes))
}

/// The media type that a name stands for, as far as it is one of those that fixed answers have.
fn kind_of(path: &str) -> &'static str {
    match Path::new(path).extension().and_then(|extension| extension.to_str()) {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("json") => "application/json",
        Some("txt") => "text/plain; charset=utf-8",
        Some("xml") => "application/xml",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
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

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(json: &str) -> Result<Respond, Vec<SpecError>> {
        Respond::compile(&serde_json::from_str::<RespondSpec>(json).unwrap())
    }

    #[test]
    fn a_body_is_text_json_or_the_content_of_a_file() {
        let folder = std::env::temp_dir().join(format!("pylon-respond-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let page = folder.join("sorry.html");
        std::fs::write(&page, "<p>sorry</p>").unwrap();
        let file = format!(r#"{{ "file": "{}" }}"#, page.display());
        for (spec, body, kind) in [
            (r#"{ "body": "hello" }"#, "hello", "text/plain; charset=utf-8"),
            (r#"{ "json": { "items": [] } }"#, r#"{"items":[]}"#, "application/json"),
            (r#"{ "json": null }"#, "null", "application/json"),
            (&file, "<p>sorry</p>", "text/html; charset=utf-8"),
        ] {
            let answer = compile(spec).unwrap().answer();
            assert_eq!(answer.headers()[CONTENT_TYPE], kind, "{spec}");
            assert!(matches!(answer.body(), Body::Full(bytes) if *bytes == body), "{spec}");
        }
        std::fs::write(&page, vec![b' '; (1 << 20) + 1]).unwrap();
        let problem = compile(&file).unwrap_err().remove(0).problem;
        assert!(problem.ends_with("cannot be used: it is longer than 1 MiB"), "{problem}");
        std::fs::remove_dir_all(folder).unwrap();
        assert!(compile(&file).is_err());
    }

    #[test]
    fn a_body_is_written_once() {
        let wrong = compile(r#"{ "body": "a", "json": 1 }"#).unwrap_err().remove(0);
        assert_eq!(wrong.problem, "the body is written twice, as `body` and as `json`");
    }
}
