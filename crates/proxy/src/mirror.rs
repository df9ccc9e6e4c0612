//! Sends a copy of some requests to another upstream, whose answers nobody sees: `mirror: { to: orders-next, share: 10% }`.
//!
//! The client's exchange knows nothing of the copy and waits for nothing of it. The copy leaves when the request's body was
//! read to its end, in a task of its own on the same worker, and has its own time. How many are under way is bounded, and so
//! is what is held of bodies: what is over is not mirrored, and counted.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{AUTHORIZATION, COOKIE, EXPECT};
use http::{HeaderMap, HeaderName, Method};
use http_body::{Body as _, Frame, SizeHint};
use pylon_core::Request;
use pylon_core::body::{Body, BodyError};
use pylon_core::exchange::Exchange;
use pylon_core::short::FromScalar;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::units::{ByteSize, Percent, Span};
use pylon_observe::outcomes::Mirrored;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::action::forward::Forward;
use crate::engine::Shared;

/// Marks copies, in the form of the lines that the gateway vouches for.
const MARK: &[u8] = b"x-pylon-mirror: 1\r\n";
const MARK_NAME: HeaderName = HeaderName::from_static("x-pylon-mirror");
/// How much of a body may be held.
const MOST_BODY: ByteSize = ByteSize::new(1024 * 1024);
/// How many copies may be under way.
const MOST_COPIES: u32 = 10_000;

/// A copy of requests for another upstream. Short: its name, for all requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MirrorSpec {
    /// The name of the upstream that gets copies. Required. Example: `orders-next`.
    pub to: String,
    /// The share of requests that are copied. Default `100%`. Example: `10%`.
    #[serde(default = "all")]
    pub share: Percent,
    /// The longest body that is copied; a request with a longer one is not. A size; default `64KiB`, at most `1MiB`.
    /// Example: `256KiB`.
    #[serde(default = "usual_body")]
    pub max_body: ByteSize,
    /// What becomes of `Authorization` and `Cookie` in copies: `strip` or `keep`. Default `strip`. Example: `keep`.
    #[serde(default)]
    pub credentials: CredentialsSpec,
    /// How long a copy may take, to the last byte of its answer. A span of time; default `10s`. Example: `2s`.
    #[serde(default = "ten_seconds")]
    pub timeout: Span,
    /// How many copies may be under way at once, 1 to 10000; a request beyond that is not copied. Default 64. Example: `500`.
    #[serde(default = "usual_copies")]
    pub at_most: u32,
}

/// What becomes of the client's credentials in copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CredentialsSpec {
    /// They are left out.
    #[default]
    Strip,
    /// They go along.
    Keep,
}

fn all() -> Percent {
    Percent::from_basis_points(10_000)
}

fn usual_body() -> ByteSize {
    ByteSize::new(64 * 1024)
}

fn ten_seconds() -> Span {
    Span::from_secs(10)
}

fn usual_copies() -> u32 {
    64
}

impl FromScalar for MirrorSpec {
    const EXPECTING: &'static str = "the name of an upstream";

    fn from_scalar(text: &str) -> Result<Self, String> {
        Ok(Self {
            to: text.to_owned(),
            share: all(),
            max_body: usual_body(),
            credentials: CredentialsSpec::default(),
            timeout: ten_seconds(),
            at_most: usual_copies(),
        })
    }
}

/// A compiled `mirror`.
#[derive(Debug)]
pub struct Mirror {
    /// In hundredths of a percent.
    share: u16,
    max_body: u64,
    sink: Arc<Sink>,
}

/// Where copies go.
#[derive(Debug)]
struct Sink {
    forward: Forward,
    keeps_credentials: bool,
    at_most: u32,
    under_way: AtomicU32,
}

impl Mirror {
    /// Compiles the spec; `forward` is the way to the upstream that it names.
    pub fn compile(spec: &MirrorSpec, mut forward: Forward) -> Result<Self, Vec<SpecError>> {
        let mut errors = Vec::new();
        if spec.max_body > MOST_BODY {
            let error =
                SpecError::new(FieldPath::root().key("max_body"), "more than 1MiB of each request would be held");
            errors.push(error.help("write at most `1MiB`"));
        }
        if !(1..=MOST_COPIES).contains(&spec.at_most) {
            let problem = format!("{} is not a number of copies from 1 to 10000", spec.at_most);
            errors.push(SpecError::new(FieldPath::root().key("at_most"), problem));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let timeouts = &mut forward.options.timeouts;
        timeouts.total = Some(spec.timeout.duration());
        timeouts.response = timeouts.response.min(spec.timeout.duration());
        let sink = Sink {
            forward,
            keeps_credentials: spec.credentials == CredentialsSpec::Keep,
            at_most: spec.at_most,
            under_way: AtomicU32::new(0),
        };
        Ok(Self { share: spec.share.basis_points(), max_body: spec.max_body.bytes(), sink: Arc::new(sink) })
    }

    /// Sees to it that a copy of `request` leaves once its body was read, if the lot falls on it.
    pub(crate) fn copy(&self, request: &mut Request, cx: &Exchange, observer: &Arc<Shared>) {
        if cx.websocket.is_some() || fastrand::u16(..10_000) >= self.share {
            return;
        }
        let count = |outcome| observer.metrics().mirrored(outcome);
        if request.body().size_hint().lower() > self.max_body {
            return count(Mirrored::TooLarge);
        }
        let Some(place) = Place::take(&self.sink) else { return count(Mirrored::Full) };
        let headers = strip(request.headers().clone(), self.sink.keeps_credentials);
        let (method, exchange) = (request.method().clone(), aside(cx));
        let copy = Copy { method, headers, exchange, place, observer: Arc::clone(observer) };
        match request.body_mut() {
            Body::Full(bytes) => copy.leave(Body::Full(bytes.clone())),
            body if body.is_empty() => copy.leave(Body::Empty),
            body => {
                let room = usize::try_from(self.max_body).unwrap_or(usize::MAX);
                let watched = Watched { body: std::mem::take(body), read: Vec::new(), room, copy: Some(copy) };
                *body = Body::stream(watched);
            }
        }
    }
}

/// The fields of a copy.
fn strip(mut headers: HeaderMap, keeps_credentials: bool) -> HeaderMap {
    headers.remove(EXPECT);
    headers.remove(MARK_NAME);
    if !keeps_credentials {
        headers.remove(AUTHORIZATION);
        headers.remove(COOKIE);
    }
    headers
}

/// The facts of a copy: those of the request, but with no client at the other end.
fn aside(cx: &Exchange) -> Box<Exchange> {
    let mut aside = cx.aside();
    aside.announced.extend_from_slice(MARK);
    aside
}

/// One of the copies that may be under way.
#[derive(Debug)]
struct Place(Arc<Sink>);

impl Place {
    fn take(sink: &Arc<Sink>) -> Option<Self> {
        let more = |under_way: u32| (under_way < sink.at_most).then_some(under_way.saturating_add(1));
        sink.under_way.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self(Arc::clone(sink)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A copy that has not left yet.
#[derive(Debug)]
struct Copy {
    method: Method,
    headers: HeaderMap,
    exchange: Box<Exchange>,
    place: Place,
    observer: Arc<Shared>,
}

impl Copy {
    /// Sends it, with all of its body, from a task of its own.
    fn leave(self, body: Body) {
        // Bodies are read on a worker; nobody else has a way to send it.
        if let Ok(worker) = tokio::runtime::Handle::try_current() {
            worker.spawn(self.call(body));
        }
    }

    async fn call(mut self, body: Body) {
        let mut request = Request::new(body);
        *request.method_mut() = self.method;
        *request.headers_mut() = self.headers;
        self.exchange.started = tokio::time::Instant::now().into_std();
        let forward = &self.place.0.forward;
        let answer = forward.upstream.call(request, &mut self.exchange, &forward.options).await;
        let read = match answer {
            Ok(answer) => discard(answer.into_body()).await.is_ok(),
            Err(_) => false,
        };
        self.observer.metrics().mirrored(if read { Mirrored::Answered } else { Mirrored::Failed });
    }
}

/// Reads an answer to its end, so that its connection can be used again.
async fn discard(mut body: Body) -> Result<(), BodyError> {
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        frame?;
    }
    Ok(())
}

/// The body of a request that is copied while it is read.
#[derive(Debug)]
struct Watched {
    body: Body,
    read: Vec<u8>,
    room: usize,
    /// None once it has left, or cannot any more.
    copy: Option<Copy>,
}

impl Watched {
    fn keep(&mut self, data: &[u8]) {
        if self.copy.is_none() {
            return;
        }
        if self.read.len().saturating_add(data.len()) > self.room {
            self.read = Vec::new();
            self.give_up(Mirrored::TooLarge);
        } else {
            self.read.extend_from_slice(data);
        }
    }

    fn give_up(&mut self, why: Mirrored) {
        if let Some(copy) = self.copy.take() {
            copy.observer.metrics().mirrored(why);
        }
    }

    fn end(&mut self) {
        if let Some(copy) = self.copy.take() {
            copy.leave(Body::from(Bytes::from(std::mem::take(&mut self.read))));
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.give_up(Mirrored::Incomplete);
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.keep(data);
                }
                // Who knows the length does not ask for what comes behind it.
                if frame.is_trailers() || self.body.is_end_stream() {
                    self.end();
                }
            }
            Some(Err(_)) => self.give_up(Mirrored::Incomplete),
            None => self.end(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_mirror_is_a_name_or_a_map() {
        let short = MirrorSpec::from_scalar("next").unwrap();
        let full: MirrorSpec = serde_json::from_str(r#"{ "to": "next" }"#).unwrap();
        assert_eq!(short, full);
        assert_eq!((full.share, full.credentials), (all(), CredentialsSpec::Strip));
        assert!(serde_json::from_str::<MirrorSpec>(r#"{ "to": "next", "share": "101%" }"#).is_err());
        assert!(serde_json::from_str::<MirrorSpec>(r#"{ "share": "1%" }"#).is_err());
    }

    #[test]
    fn what_a_client_says_of_mirrors_and_its_credentials_do_not_reach_the_copy() {
        let headers: HeaderMap =
            [("x-pylon-mirror", "0"), ("authorization", "secret"), ("cookie", "a=b"), ("accept", "*/*")]
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                .into_iter()
                .collect();
        let copied = strip(headers.clone(), false);
        assert_eq!(copied.keys().collect::<Vec<_>>(), ["accept"]);
        let copied = strip(headers, true);
        assert_eq!(copied.len(), 3);
    }
}
