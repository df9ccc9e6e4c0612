//! What the gateway does to each attempt on its way to a service: headers of its own, and a credential of its own in place of
//! the client's.
//!
//! It is done to the head that is about to be sent, so that a second attempt has what is in force then, and nothing before the
//! attempt loop ever sees a secret. Where a credential is written but none is at hand, nothing is sent. Each worker has its own copy of
//! what is sent, taken anew when one of two numbers has risen.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, HeaderName};
use pylon_core::body::Body;
use pylon_core::fields::Alike;
use pylon_core::fields::trailers::WithoutTrailers;
use pylon_core::names::UpstreamName;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::worker::PerWorker;
use pylon_observe::insight::TokenReading;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use self::service::TokenService;
use self::spec::OutboundSpec;
use self::values::{AUTHORIZATION, Lines, Values, name_of, own};
use crate::error::Fault;
use crate::upstream::Building;
use crate::view::OutboundView;

mod service;
pub mod spec;
mod token;
mod values;

/// A compiled `outbound`.
#[derive(Debug)]
pub(crate) struct Outbound {
    /// What is taken away, and what is replaced, in every spelling.
    remove: Arc<Alike>,
    values: Arc<Values>,
    token: Option<Arc<TokenService>>,
    credential: Option<&'static str>,
    /// The names that are written, added or taken away, for people.
    names: Vec<String>,
    workers: PerWorker<Mine>,
}

/// What one worker has of it.
#[derive(Debug, Default)]
struct Mine {
    /// The generations that the rest is of.
    seen: (u64, u64),
    lines: Lines,
    /// Until when the credential may be sent, where it has an end.
    until: Option<Instant>,
}

impl Outbound {
    /// All that is wrong is told at once, from the key `outbound` down.
    pub(crate) fn compile(spec: &OutboundSpec, cx: &Building<'_>) -> Result<Self, Vec<SpecError>> {
        let mut errors = contradictions(spec);
        let headers = FieldPath::root().key("headers");
        let mut remove = Vec::new();
        for (index, name) in spec.headers.remove.iter().enumerate() {
            let name = name_of(name, &headers.clone().key("remove").index(index));
            remove.extend(name.map_err(|error| errors.push(error)));
        }
        let replaced = spec.headers.set.keys().filter_map(|name| HeaderName::try_from(name.as_str()).ok());
        remove.extend(replaced);
        let values = Values::new(spec, cx.secrets).map_err(|found| errors.extend(found)).ok();
        let token = spec.oauth2.as_ref().map(|oauth2| {
            let made = TokenService::new(oauth2, cx.resolver, cx.secrets);
            let made = made.map_err(|found| {
                errors.extend(found.into_iter().map(|error| error.below(&FieldPath::root().key("oauth2"))));
            });
            made.ok().map(|made| {
                let written = serde_json::to_string(oauth2).unwrap_or_default();
                // One for all upstreams and documents that would ask alike.
                cx.carry.keep(format!("token {written} {}", cx.resolver.identity()), || made)
            })
        });
        let Some(values) = values.filter(|_| errors.is_empty()) else { return Err(errors) };
        let credential = match spec {
            OutboundSpec { basic: Some(_), .. } => Some("basic"),
            OutboundSpec { bearer: Some(_), .. } => Some("bearer"),
            OutboundSpec { oauth2: Some(_), .. } => Some("oauth2"),
            _ => None,
        };
        let written = spec.headers.set.keys().chain(spec.headers.add.keys()).chain(spec.headers.remove.iter());
        Ok(Self {
            remove: Arc::new(Alike::new(&remove)),
            values: Arc::new(values),
            token: token.flatten(),
            credential,
            names: written.map(|name| name.to_ascii_lowercase()).collect(),
            workers: PerWorker::default(),
        })
    }

    /// Begins to look after files and tokens on `handle`, the control runtime.
    pub(crate) fn start(&self, upstream: &UpstreamName, handle: &Handle) -> Option<AbortHandle> {
        if let Some(token) = &self.token {
            token.start(handle);
        }
        let looks = self.values.are_in_files();
        looks.then(|| handle.spawn(Arc::clone(&self.values).look_after(upstream.clone())).abort_handle())
    }

    /// Waits until the token service has had a first answer, good or bad.
    pub(crate) async fn settle(&self) {
        if let Some(token) = &self.token {
            token.settle().await;
        }
    }

    /// Does what is to be done to a head, and to the trailers of a body where it is the first time. Not where there is no
    /// credential that could be sent: then it says false, and the request must not go out.
    pub(crate) fn dress(&self, headers: &mut HeaderMap, body: &mut Body, first: bool, now: Instant) -> bool {
        let dressed = self.workers.with(|mine| {
            self.refresh(mine);
            if mine.until.is_some_and(|until| now >= until) {
                return false;
            }
            if first {
                self.remove.remove_from(headers);
                for (name, value) in &mine.lines.set {
                    headers.insert(name.clone(), value.clone());
                }
                for (name, value) in &mine.lines.add {
                    headers.append(name.clone(), value.clone());
                }
            }
            match (&mine.lines.credential, self.credential) {
                (Some(value), _) => _ = headers.insert(AUTHORIZATION, value.clone()),
                (None, Some(_)) => return false,
                (None, None) => {}
            }
            true
        });
        if dressed && first && !self.remove.is_empty() && matches!(body, Body::Stream(_)) {
            let streamed = std::mem::take(body);
            *body = Body::stream(WithoutTrailers::new(streamed, Arc::clone(&self.remove)));
        }
        dressed
    }

    /// Waits until there is a credential that could be sent, and says when there was.
    pub(crate) async fn obtained(&self, deadline: Instant) -> Result<Instant, Fault> {
        match &self.token {
            Some(token) => token.obtained(deadline).await,
            None => Err(Fault::Credential("there is no credential".to_owned())),
        }
    }

    /// The service answered 401 to a request with these headers.
    pub(crate) fn refused(&self, sent: &HeaderMap) {
        if let (Some(token), Some(sent)) = (&self.token, sent.get(AUTHORIZATION)) {
            token.refused(sent);
        }
    }

    /// What is known of the token, where the gateway gets one.
    pub(crate) fn reading(&self, now: Instant) -> Option<TokenReading> {
        Some(self.token.as_ref()?.reading(now))
    }

    /// What the admin API shows.
    pub(crate) fn view(&self, now: Instant) -> OutboundView {
        OutboundView {
            credential: self.credential,
            headers: self.names.clone(),
            token: self.token.as_ref().map(|token| token.view(now)),
            error: self.values.error(),
        }
    }

    fn refresh(&self, mine: &mut Mine) {
        let seen = (self.values.generation(), self.token.as_ref().map_or(0, |token| token.generation()));
        if mine.seen == seen {
            return;
        }
        let mut lines = self.values.copied();
        let token = self.token.as_ref().and_then(|token| token.token());
        mine.until = token.as_ref().map(|token| token.until);
        if let Some(token) = token {
            lines.credential = Some(own(&token.value));
        }
        (mine.seen, mine.lines) = (seen, lines);
    }
}

/// What cannot be meant.
fn contradictions(spec: &OutboundSpec) -> Vec<SpecError> {
    let mut errors = Vec::new();
    let root = FieldPath::root;
    if *spec == OutboundSpec::default() {
        let error = SpecError::new(root(), "nothing is written that would be done");
        errors.push(error.help("write for example `outbound: { headers: { set: { x-api-key: env:USERS_KEY } } }`"));
    }
    let written =
        [("basic", spec.basic.is_some()), ("bearer", spec.bearer.is_some()), ("oauth2", spec.oauth2.is_some())];
    let mut credentials = written.into_iter().filter_map(|(key, is_there)| is_there.then_some(key));
    let Some(first) = credentials.next() else { return errors };
    for other in credentials {
        let error = SpecError::new(root().key(other), format!("both `{first}` and `{other}` are written"));
        errors.push(error.help("a request carries one credential: take one of them out"));
    }
    let headers = &spec.headers;
    let names = headers.set.keys().chain(headers.add.keys()).chain(headers.remove.iter());
    for name in names.filter(|name| name.eq_ignore_ascii_case(AUTHORIZATION.as_str())) {
        let error = SpecError::new(root().key("headers"), format!("`{name}` is written by `{first}`"));
        errors.push(error.help("take it out of `headers`"));
    }
    errors
}
