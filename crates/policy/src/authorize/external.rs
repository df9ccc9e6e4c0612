//! Asks a service of yours whether a request may pass: forward-auth over HTTP, or Envoy's `ext_authz` over gRPC, such as OPA.
//!
//! ```yaml
//! external:
//!   http: auth-service                 # an upstream of the document
//!   path: /verify
//!   headers: [authorization, cookie]   # what of the request it sees
//!   copy: [x-user, x-roles]            # what of its answer goes on to the service
//!   timeout: 200ms
//!   cache: { ttl: 10s, by: [authorization, cookie, method, path] }
//! ```
//! ```yaml
//! external: { grpc: opa }              # an upstream with `protocol: http2`, or under TLS
//! ```
//!
//! Over HTTP the service gets a `GET` without a body. It is told `X-Original-Method`, `X-Original-Uri` (as the client asked, path and query
//! in their normal form), `X-Sent-Uri` (as it will be sent, where a rewrite changes it), `X-Original-Host` and `X-Original-Client` (the
//! client's address), besides `X-Forwarded-*`; and of a caller that is known `X-Caller-By`, `-Subject`, `-Consumer`, `-Plan`, `-Groups`,
//! `-Scopes` and `-Claims` (JSON). Over gRPC the same stands in the attributes of the `CheckRequest`: method, path, host and headers under
//! `request.http`, the address under `source`, and `sent_path` and `caller.…` under `context_extensions`.
//!
//! A status of 2xx lets the request pass. A status of 4xx, or of 3xx with a `Location`, refuses it: the client gets that status, the body up to
//! 64 KiB, its content type and what `answer` names. Anything else is no verdict: a status of 5xx, silence, a connection that fails, an answer
//! that cannot be read. Then the request is answered with 503 (`external.unavailable`) and never passed on; nothing turns that
//! into a yes.
//!
//! What `copy` names is taken away from the request first, in every spelling, from headers and trailers, whether or not the answer has
//! it: a service behind can rely on these headers being those of the verdict.
//!
//! The upstream has all that upstreams have: its pool, TLS, breaker, health checks and metrics. `timeout` bounds the whole question.
//!
//! With `cache` a request passes, for `ttl`, since one like it did. What decides must be named under `by`; a request with no header of those
//! named is asked about each time. Requests that are alike and come at once wait for one question. Refusals are not remembered.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, SET_COOKIE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use pylon_core::body::Body;
use pylon_core::caller::{Caller, Fact};
use pylon_core::exchange::Exchange;
use pylon_core::fields::Alike;
use pylon_core::fields::trailers::WithoutTrailers;
use pylon_core::rejection::{EXTERNAL_DENIED, EXTERNAL_UNAVAILABLE, Rejection, Told};
use pylon_core::spec::SpecError;
use pylon_core::worker::PerWorker;
use pylon_core::{Request, Response};
use pylon_upstream::call::CallOptions;
use pylon_upstream::upstream::Upstream;

use self::alike::By;
use self::ask::Question;
use self::spec::ExternalSpec;
use crate::memory::{Known, Memory, News, Tell};
use crate::policy::{Compiling, Policy, Step, Stop};

mod alike;
mod ask;
pub mod check;
pub mod spec;

/// The longest body of an answer that is read, in bytes.
const LONGEST_BODY: usize = 64 * 1024;
/// The most that is remembered of one answer's headers, in bytes.
const LONGEST_COPY: usize = 4096;

/// The facts that a service is told of a caller: as headers and as extensions of a `CheckRequest`.
static FACTS: [(HeaderName, &str, Fact); 6] = [
    (HeaderName::from_static("x-caller-by"), "caller.by", Fact::By),
    (HeaderName::from_static("x-caller-subject"), "caller.subject", Fact::Subject),
    (HeaderName::from_static("x-caller-consumer"), "caller.consumer", Fact::Consumer),
    (HeaderName::from_static("x-caller-plan"), "caller.plan", Fact::Plan),
    (HeaderName::from_static("x-caller-groups"), "caller.groups", Fact::Groups),
    (HeaderName::from_static("x-caller-scopes"), "caller.scopes", Fact::Scopes),
];
static CLAIMS: (HeaderName, &str) = (HeaderName::from_static("x-caller-claims"), "caller.claims");

/// What is known of a caller, with the names by which it is told.
fn facts(caller: &Caller) -> Vec<(&'static HeaderName, &'static str, String)> {
    let told = FACTS.iter().filter_map(|(header, name, fact)| Some((header, *name, caller.fact(fact)?)));
    let claims = serde_json::to_string(&caller.claims).ok().filter(|_| !caller.claims.is_empty());
    told.chain(claims.map(|claims| (&CLAIMS.0, CLAIMS.1, claims))).collect()
}

/// What a question came to.
#[derive(Debug)]
enum Verdict {
    /// The request may pass, with these changes.
    Pass(Box<Edits>),
    /// It may not.
    Refuse(Box<Refusal>),
    /// There is none. Why is for the log alone.
    Nothing(String),
}

/// What becomes of the headers of a request that passes.
#[derive(Debug, Default)]
struct Edits {
    set: Vec<(HeaderName, HeaderValue)>,
    remove: Vec<HeaderName>,
}

/// What the client is told.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Verdict {
    /// Whether it may be that of another client that is alike: a cookie is for one alone.
    fn may_be_shared(&self) -> bool {
        !matches!(self, Self::Refuse(refusal) if refusal.headers.contains_key(SET_COOKIE))
    }

    /// Whether it may be remembered.
    fn may_be_kept(&self) -> bool {
        let Self::Pass(edits) = self else { return false };
        let size = |(name, value): &(HeaderName, HeaderValue)| name.as_str().len().saturating_add(value.len());
        let set: usize = edits.set.iter().map(size).sum();
        set.saturating_add(edits.remove.iter().map(|name| name.as_str().len()).sum()) <= LONGEST_COPY
    }
}

/// The policy at work.
#[derive(Debug)]
pub struct External {
    service: Arc<Service>,
    /// What the service may set: it goes, in every spelling, whoever asks.
    forged: Arc<Alike>,
    cache: Option<Arc<Cache>>,
}

/// Whoever is asked.
#[derive(Debug)]
struct Service {
    upstream: Arc<Upstream>,
    options: CallOptions,
    by_grpc: bool,
    path: PathAndQuery,
    headers: Box<[HeaderName]>,
    copy: Box<[HeaderName]>,
    answer: Box<[HeaderName]>,
    timeout: Duration,
}

/// Which requests are alike, and what is known of them.
#[derive(Debug)]
struct Cache {
    ttl: Duration,
    by: By,
    workers: PerWorker<Memory<Verdict>>,
}

impl Policy for External {
    type Spec = ExternalSpec;
    type Memo = ();

    fn compile(spec: &Self::Spec, cx: &Compiling<'_>) -> Result<Self, Vec<SpecError>> {
        let mut errors = Vec::new();
        let read = spec::read(spec, &mut errors);
        let found = spec::upstream(spec, &cx.around.upstreams).map_err(|error| errors.push(error));
        let (Ok((upstream, mut options)), true) = (found, errors.is_empty()) else { return Err(errors) };
        let timeout = spec.timeout.duration();
        options.hedge = None;
        options.timeouts.total = Some(timeout);
        options.timeouts.response = options.timeouts.response.min(timeout);
        let forged = Arc::new(Alike::new(&read.copy));
        let cache = read.cache.map(|(ttl, by)| Cache { ttl: ttl.duration(), by, workers: PerWorker::default() });
        let spec::Read { path, headers, copy, answer, .. } = read;
        let by_grpc = spec.grpc.is_some();
        let service = Service { upstream, options, by_grpc, path, headers, copy, answer, timeout };
        Ok(Self { service: Arc::new(service), forged, cache: cache.map(Arc::new) })
    }

    fn on_request<'a>(&'a self, req: &'a mut Request, cx: &'a mut Exchange) -> Step<'a, ()> {
        let key = self.cache.as_ref().and_then(|cache| Some((cache, cache.by.key(req.headers(), cx)?)));
        let known = match &key {
            Some((cache, key)) => cache.workers.with(|memory| memory.look(key, cx.started)),
            None => Known::Full,
        };
        if let Known::Kept(verdict) = known {
            self.clean(req);
            return Step::Done(apply(&verdict, req, cx));
        }
        let question = self.service.question(req, cx);
        self.clean(req);
        let heard = match (known, key) {
            (Known::Asked(news), _) => Some((news, false)),
            (Known::Nothing(tell), Some((cache, key))) => {
                let news = tell.subscribe();
                // A task of the worker's, so that it comes to an end though this client goes away.
                tokio::spawn(fly(Arc::clone(&self.service), Arc::clone(cache), key, question.again(), tell));
                Some((news, true))
            }
            _ => None,
        };
        Step::Wait(Box::pin(async move {
            let heard = match heard {
                Some((news, own)) => hear(news).await.filter(|verdict| own || verdict.may_be_shared()),
                None => None,
            };
            match heard {
                Some(verdict) => apply(&verdict, req, cx),
                None => apply(&self.service.ask(question).await, req, cx),
            }
        }))
    }
}

impl External {
    /// Takes away what only the service may say.
    fn clean(&self, req: &mut Request) {
        if self.forged.is_empty() {
            return;
        }
        self.forged.remove_from(req.headers_mut());
        if matches!(req.body(), Body::Stream(_)) {
            let body = std::mem::take(req.body_mut());
            *req.body_mut() = Body::stream(WithoutTrailers::new(body, Arc::clone(&self.forged)));
        }
    }
}

/// Asks on behalf of all requests that are alike.
async fn fly(service: Arc<Service>, cache: Arc<Cache>, key: Box<[u8]>, question: Question, tell: Tell<Verdict>) {
    let verdict = Arc::new(service.ask(question).await);
    let now = tokio::time::Instant::now().into_std();
    let kept = Some(&verdict).filter(|verdict| verdict.may_be_kept());
    cache.workers.with(|memory| memory.settle(key, kept, now + cache.ttl));
    tell.send_replace(Some(verdict));
}

/// Waits for what comes of a question; nothing where it came to no end.
async fn hear(mut news: News<Verdict>) -> Option<Arc<Verdict>> {
    news.wait_for(Option::is_some).await.ok()?.clone()
}

/// Does what a verdict says.
fn apply(verdict: &Verdict, req: &mut Request, cx: &mut Exchange) -> Result<(), Stop> {
    match verdict {
        Verdict::Pass(edits) => {
            for name in &edits.remove {
                req.headers_mut().remove(name);
            }
            for (name, value) in &edits.set {
                req.headers_mut().append(name.clone(), value.clone());
            }
            Ok(())
        }
        Verdict::Refuse(refusal) => Err(refusal.stop(cx)),
        Verdict::Nothing(why) => Err(EXTERNAL_UNAVAILABLE.privately(why.clone()).into()),
    }
}

impl Refusal {
    /// The refusal as the service wrote it; where it wrote nothing, or the call is one of gRPC, in the gateway's own form.
    fn stop(&self, cx: &mut Exchange) -> Stop {
        let mut no = EXTERNAL_DENIED.privately(format!("the service says {}", self.status.as_u16()));
        no.told = Some(Told { status: Some(self.status.as_u16()), grpc: None });
        if cx.grpc || self.body.is_empty() && !self.status.is_redirection() {
            return self.headers.iter().filter(|(name, _)| **name != CONTENT_TYPE).fold(no, with).into();
        }
        cx.trail.refuse(&no);
        let mut response = Response::new(Body::from(self.body.clone()));
        *response.status_mut() = self.status;
        response.headers_mut().clone_from(&self.headers);
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Stop::Reply(response)
    }
}

fn with(no: Rejection, (name, value): (&HeaderName, &HeaderValue)) -> Rejection {
    no.with_header(name.clone(), value.clone())
}
