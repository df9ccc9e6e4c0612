//! What a sample service is: a name, and a reply to what it is asked. No sockets and no clock here.

use std::time::Duration;

use http::{Method, StatusCode, request};
use serde_json::{Value, json};

/// A sample service.
pub(super) trait Service: Send + Sync + 'static {
    /// Its name, which is its upstream's name in the document.
    fn name(&self) -> &'static str;

    /// The reply to anything but a question after its health, which [`Service::reply`] answers.
    fn answer(&self, ask: &Ask<'_>) -> Reply;

    /// The reply to anything.
    fn reply(&self, ask: &Ask<'_>) -> Reply {
        match ask.path() {
            "/healthz" => ask.only_get(|| Reply::ok(json!({ "status": "ok", "service": self.name() }))),
            _ => self.answer(ask),
        }
    }
}

/// A request with its whole body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) head: &'a request::Parts,
    pub(super) body: &'a [u8],
}

impl<'a> Ask<'a> {
    pub(super) fn path(&self) -> &'a str {
        self.head.uri.path()
    }

    /// The path below `folder`, if it is one more segment.
    pub(super) fn below(&self, folder: &str) -> Option<&'a str> {
        let name = self.path().strip_prefix(folder)?.strip_prefix('/')?;
        (!name.is_empty() && !name.contains('/')).then_some(name)
    }

    /// The first query parameter of that name, as it was sent.
    pub(super) fn query(&self, name: &str) -> Option<&'a str> {
        let pairs = self.head.uri.query()?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.into_iter().find_map(|(key, value)| (key == name).then_some(value))
    }

    pub(super) fn reads(&self) -> bool {
        self.head.method == Method::GET || self.head.method == Method::HEAD
    }

    /// `reply` to GET and HEAD, a 405 to all else.
    pub(super) fn only_get(&self, reply: impl FnOnce() -> Reply) -> Reply {
        if self.reads() { reply() } else { Reply::only("GET, HEAD") }
    }
}

/// What a service answers.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) body: Value,
    /// How long to wait before answering.
    pub(super) after: Duration,
    pub(super) location: Option<String>,
    pub(super) allow: Option<&'static str>,
}

impl Reply {
    pub(super) fn ok(body: Value) -> Self {
        Self { status: StatusCode::OK, body, after: Duration::ZERO, location: None, allow: None }
    }

    pub(super) fn created(location: String, body: Value) -> Self {
        Self { status: StatusCode::CREATED, location: Some(location), ..Self::ok(body) }
    }

    pub(super) fn refusal(status: StatusCode, message: &str) -> Self {
        let error = status.canonical_reason().unwrap_or("Error");
        Self { status, ..Self::ok(json!({ "error": error, "message": message })) }
    }

    pub(super) fn not_found() -> Self {
        Self::refusal(StatusCode::NOT_FOUND, "there is nothing here")
    }

    pub(super) fn only(methods: &'static str) -> Self {
        let message = format!("this takes {methods} only");
        Self { allow: Some(methods), ..Self::refusal(StatusCode::METHOD_NOT_ALLOWED, &message) }
    }

    pub(super) fn after(self, after: Duration) -> Self {
        Self { after, ..self }
    }
}
