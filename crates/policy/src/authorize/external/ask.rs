//! Asks: makes the question of a request, sends it through the upstream, and reads the verdict out of the answer.

use std::sync::LazyLock;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, COOKIE, LOCATION, TE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use pylon_core::Request;
use pylon_core::body::{Body, BodyError};
use pylon_core::caller::Caller;
use pylon_core::connection::Scheme;
use pylon_core::exchange::Exchange;
use pylon_core::fields;
use pylon_net::timer::timeout_at;
use pylon_observe::clock::unix_now;

use super::check::{self, Said};
use super::{Edits, LONGEST_BODY, Refusal, Service, Verdict, facts};
use crate::bodies;

/// What messages of gRPC add to a body at most, and some more.
const FRAMES: usize = 32 * 1024;

const ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
const ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");
const ORIGINAL_HOST: HeaderName = HeaderName::from_static("x-original-host");
const ORIGINAL_CLIENT: HeaderName = HeaderName::from_static("x-original-client");
const SENT_URI: HeaderName = HeaderName::from_static("x-sent-uri");
/// What others who ask call these two, so that their services need not be changed.
const FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// A question that can be sent.
#[derive(Debug)]
pub(super) struct Question {
    method: Method,
    headers: HeaderMap,
    body: Bytes,
    exchange: Box<Exchange>,
}

impl Question {
    /// The same once more.
    pub(super) fn again(&self) -> Self {
        let (method, headers, body) = (self.method.clone(), self.headers.clone(), self.body.clone());
        let mut exchange = self.exchange.aside();
        (exchange.priority, exchange.grpc) = (self.exchange.priority, self.exchange.grpc);
        Self { method, headers, body, exchange }
    }
}

impl Service {
    /// The question whether a request may pass.
    pub(super) fn question(&self, req: &Request, cx: &Exchange) -> Question {
        let mut exchange = cx.aside();
        // Somebody waits for it, unlike for others of its kind.
        exchange.priority = cx.priority;
        (exchange.upstream_path, exchange.upstream_host) = (None, None);
        exchange.grpc = self.by_grpc;
        let (method, headers, body) = if self.by_grpc {
            exchange.path = check_path().clone();
            (Method::POST, grpc_headers(self.timeout.as_millis()), self.message(req, cx))
        } else {
            exchange.path = self.path.clone();
            (Method::GET, self.http_headers(req.headers(), cx), Bytes::new())
        };
        Question { method, headers, body, exchange }
    }

    /// Sends a question and reads the verdict. Whatever goes wrong is none.
    pub(super) async fn ask(&self, question: Question) -> Verdict {
        let now = tokio::time::Instant::now().into_std();
        match timeout_at(Some(now + self.timeout), self.exchange(question)).await {
            Ok(verdict) => verdict,
            Err(_) => Verdict::Nothing("there was no answer in time".to_owned()),
        }
    }

    async fn exchange(&self, mut question: Question) -> Verdict {
        let mut request = Request::new(Body::from(question.body));
        *request.method_mut() = question.method;
        *request.headers_mut() = question.headers;
        question.exchange.started = tokio::time::Instant::now().into_std();
        let answer = match self.upstream.call(request, &mut question.exchange, &self.options).await {
            Ok(answer) => answer,
            Err(error) => return Verdict::Nothing(error.to_string()),
        };
        let (head, body) = answer.into_parts();
        if self.by_grpc {
            self.by_message(head.status, &head.headers, body).await
        } else {
            self.by_status(head.status, &head.headers, body).await
        }
    }

    async fn by_status(&self, status: StatusCode, headers: &HeaderMap, body: Body) -> Verdict {
        let body = bodies::whole(body, LONGEST_BODY).await;
        if status.is_success() {
            return match body {
                Ok(_) | Err(BodyError::TooLarge(_)) => {
                    Verdict::Pass(Box::new(Edits { set: chosen(headers, &self.copy), remove: Vec::new() }))
                }
                Err(_) => Verdict::Nothing("the answer broke off".to_owned()),
            };
        }
        // A refusal whose words are too many, or broke off, is still one.
        let body = body.map(|(body, _)| body).unwrap_or_default();
        let mut told: HeaderMap = chosen(headers, &self.answer).into_iter().collect();
        if !body.is_empty() {
            told.extend(chosen(headers, &[CONTENT_TYPE, CONTENT_ENCODING]));
        }
        refuse(status, headers.contains_key(LOCATION), told, body)
    }

    async fn by_message(&self, status: StatusCode, headers: &HeaderMap, body: Body) -> Verdict {
        let nothing = |why: &str| Verdict::Nothing(why.to_owned());
        if status != StatusCode::OK {
            return Verdict::Nothing(format!("the service says {}, which is no answer of gRPC", status.as_u16()));
        }
        let Ok((message, trailers)) = bodies::whole(body, LONGEST_BODY.saturating_add(FRAMES)).await else {
            return nothing("the answer broke off, or is too long");
        };
        // A call that has no message ends with its head.
        match trailers.as_ref().unwrap_or(headers).get(GRPC_STATUS).map(HeaderValue::as_bytes) {
            Some(b"0") => {}
            Some(code) => return Verdict::Nothing(format!("the call failed with code {}", code.escape_ascii())),
            None => return nothing("the call has no status"),
        }
        match check::answer(&message) {
            Ok(Said::Allowed { headers, remove }) => {
                let remove = remove.iter().filter_map(|name| fields::parse(name).ok()).collect();
                let set: HeaderMap = parsed(headers);
                Verdict::Pass(Box::new(Edits { set: chosen(&set, &self.copy), remove }))
            }
            Ok(Said::Denied { status, headers, body }) => {
                let Ok(status) = StatusCode::from_u16(status) else { return nothing("it denies by no status") };
                let (headers, body) = (parsed(headers), if body.len() > LONGEST_BODY { Vec::new() } else { body });
                let mut told: HeaderMap = chosen(&headers, &self.answer).into_iter().collect();
                if !body.is_empty() {
                    told.extend(chosen(&headers, &[CONTENT_TYPE]));
                }
                refuse(status, headers.contains_key(LOCATION), told, Bytes::from(body))
            }
            Err(check::Unclear) => nothing("the answer is no `CheckResponse` that says one thing"),
        }
    }

    fn http_headers(&self, all: &HeaderMap, cx: &Exchange) -> HeaderMap {
        let mut headers: HeaderMap = chosen(all, &self.headers).into_iter().collect();
        let mut tell = |name: &HeaderName, value: &str| {
            headers.remove(name);
            // What cannot stand in a header is not told, and then speaks for nobody.
            headers.extend(HeaderValue::from_str(value).ok().map(|value| (name.clone(), value)));
        };
        tell(&ORIGINAL_METHOD, cx.method.as_str());
        tell(&ORIGINAL_URI, cx.path.as_str());
        tell(&ORIGINAL_HOST, cx.host.as_deref().unwrap_or_default());
        tell(&ORIGINAL_CLIENT, &cx.client.to_canonical().to_string());
        tell(&SENT_URI, cx.sent_path().as_str());
        tell(&FORWARDED_METHOD, cx.method.as_str());
        tell(&FORWARDED_URI, cx.path.as_str());
        for (name, _, value) in cx.caller.as_deref().map(facts).unwrap_or_default() {
            tell(name, &value);
        }
        headers
    }

    fn message(&self, req: &Request, cx: &Exchange) -> Bytes {
        let headers = self.headers.iter().filter_map(|name| Some((name.as_str(), joined(req.headers(), name)?)));
        let caller = cx.caller.as_deref();
        let client = cx.client.to_canonical();
        let connection = &cx.connection;
        let own = connection.peer.ip().to_canonical() == client;
        let mut extensions = vec![("sent_path", cx.sent_path().as_str().to_owned())];
        extensions.extend(caller.map(facts).unwrap_or_default().into_iter().map(|(_, name, value)| (name, value)));
        let now = unix_now();
        let question = check::Question {
            id: cx.request_id.as_bytes(),
            method: cx.method.as_str(),
            path: cx.path.as_str(),
            host: cx.host.as_deref().unwrap_or_default(),
            scheme: if cx.scheme == Scheme::Https { "https" } else { "http" },
            protocol: if cx.version == Version::HTTP_2 { "HTTP/2" } else { "HTTP/1.1" },
            headers: headers.collect(),
            source: (client.to_string(), if own { connection.peer.port() } else { 0 }),
            principal: caller.map_or("", |caller: &Caller| &caller.subject),
            destination: (connection.local.ip().to_canonical().to_string(), connection.local.port()),
            time: (now.as_secs(), now.subsec_nanos()),
            extensions,
        };
        Bytes::from(question.body())
    }
}

/// A refusal, where the status is one.
fn refuse(status: StatusCode, has_location: bool, headers: HeaderMap, body: Bytes) -> Verdict {
    let redirects = status.is_redirection() && status != StatusCode::NOT_MODIFIED && has_location;
    if status.is_client_error() || redirects {
        Verdict::Refuse(Box::new(Refusal { status, headers, body }))
    } else {
        Verdict::Nothing(format!("the service says {}, which is no verdict", status.as_u16()))
    }
}

fn check_path() -> &'static PathAndQuery {
    static PATH: LazyLock<PathAndQuery> = LazyLock::new(|| PathAndQuery::from_static(check::PATH));
    &PATH
}

fn grpc_headers(millis: u128) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.extend(HeaderValue::try_from(format!("{millis}m")).ok().map(|value| (GRPC_TIMEOUT, value)));
    headers
}

/// Those of `headers` that have one of `names`.
fn chosen(headers: &HeaderMap, names: &[HeaderName]) -> Vec<(HeaderName, HeaderValue)> {
    let lines = |name| headers.get_all(name).iter();
    names.iter().flat_map(|name| lines(name).map(|value| (name.clone(), value.clone()))).collect()
}

/// All lines of a header in one, as text.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    let lines: Vec<_> =
        headers.get_all(name).iter().map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned()).collect();
    let between = if *name == COOKIE { "; " } else { "," };
    (!lines.is_empty()).then(|| lines.join(between).into_bytes())
}

/// The headers of a message; what is none is left out.
fn parsed(headers: Vec<check::Header>) -> HeaderMap {
    let header =
        |(name, value): check::Header| Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?));
    headers.into_iter().filter_map(header).collect()
}
