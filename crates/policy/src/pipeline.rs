//! Runs the policies of one route: in on the request, in the order of the registry, and back out on the response.
//!
//! The way back meets the policies that were reached, in reverse; what a guard refused also meets those that mark
//! refusals for browsers (`cors`), since a page must be able to read why. A policy in shadow judges a copy of the
//! request's head; its verdict is noted and nothing that it does takes effect. Only a policy that waits makes the future wait,
//! and what it needs meanwhile is boxed, so that the future of every other request stays small.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use pylon_core::body::{Body, BodyError};
use pylon_core::exchange::Exchange;
use pylon_core::priority::Priority;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::{Request, Response};
use smallvec::SmallVec;

use crate::authorize::anonymous::{Anonymous, AnonymousSpec};
use crate::policy::{Compiling, Policy as _, Step, Stop};
use crate::registry::{AnyMemo, AnyPolicy, AnySpec, CATALOGUE, Entry, Phase, entry};

/// The code that stands in the log for a policy in shadow that would have answered instead of refusing.
const ANSWERED: &str = "answered";

/// The policies of one route, in the order that requests meet them.
#[derive(Debug, Default)]
pub struct Pipeline {
    stations: Box<[Station]>,
}

#[derive(Debug)]
struct Station {
    policy: AnyPolicy,
    shadow: bool,
}

/// What policies remember until the response: those that were reached, and those that mark what a guard refused.
///
/// Dropping it gives back what they hold.
#[derive(Debug, Default)]
pub struct Memos(SmallVec<[Option<AnyMemo>; 4]>);

impl Pipeline {
    /// Compiles `specs`, which may come in any order, each key once. `shadow` lists the keys among them that run in shadow.
    ///
    /// Errors come all at once; their paths begin with the key of a policy, or with `shadow`.
    pub fn build(specs: &[AnySpec], shadow: &[String], cx: &Compiling<'_>) -> Result<Self, Vec<SpecError>> {
        let mut errors = check_shadow(shadow, specs);
        let mut stations = Vec::with_capacity(specs.len());
        for spec in specs {
            let key = spec.key();
            match spec.compile(cx) {
                Ok(policies) => {
                    let shadow = shadow.iter().any(|name| name == key);
                    stations.extend(policies.into_iter().map(|policy| Station { policy, shadow }));
                }
                Err(found) => {
                    let base = FieldPath::root().key(key);
                    errors.extend(found.into_iter().map(|error| error.below(&base)));
                }
            }
        }
        demand_caller(&mut stations, specs, cx).unwrap_or_else(|found| errors.extend(found));
        stations.sort_by_key(|station| station.policy.place());
        if errors.is_empty() { Ok(Self { stations: stations.into() }) } else { Err(errors) }
    }

    /// Whether there is no policy at all.
    pub fn is_empty(&self) -> bool {
        self.stations.is_empty()
    }

    /// Whether a preflight is answered here, so that the route of the method asked for must meet it.
    pub fn answers_preflights(&self) -> bool {
        self.stations.iter().any(|station| matches!(station.policy, AnyPolicy::Cors(_)))
    }

    /// The class that a request has here, without taking it in.
    pub fn priority(&self, req: &Request, cx: &Exchange) -> Priority {
        let class = |station: &Station| match &station.policy {
            AnyPolicy::Priority(policy) => Some(policy.class(req, cx)),
            _ => None,
        };
        self.stations.iter().find_map(class).unwrap_or_default()
    }

    /// The keys of the policies in the order that requests meet them, and whether each is in shadow.
    pub fn keys(&self) -> impl Iterator<Item = (&'static str, bool)> {
        self.stations.iter().map(|station| (station.policy.key(), station.shadow))
    }

    /// Takes a request in. A stop says that it goes no further, and why; the memos go to [`Pipeline::response`] in any case.
    pub async fn request(&self, req: &mut Request, cx: &mut Exchange) -> (Memos, Option<Stop>) {
        let mut memos = Memos::default();
        for station in &self.stations {
            if station.shadow {
                Box::pin(station.rehearse(req, cx)).await;
                memos.0.push(None);
                continue;
            }
            let outcome = match station.policy.on_request(req, cx) {
                Step::Done(outcome) => outcome,
                Step::Wait(waiting) => waiting.await,
            };
            match outcome {
                Ok(memo) => memos.0.push(Some(memo)),
                Err(stop) => {
                    self.refused(req, &mut memos);
                    return (memos, Some(stop));
                }
            }
        }
        (memos, None)
    }

    /// Brings policies that were not reached onto the way out of a guard's answer.
    #[cold]
    fn refused(&self, req: &Request, memos: &mut Memos) {
        let guard =
            |station: &Station| CATALOGUE.get(station.policy.place()).is_some_and(|entry| entry.phase == Phase::Guard);
        let reached = memos.0.len();
        if self.stations.get(reached).is_some_and(guard) {
            memos.0.push(None);
            let behind = self.stations.iter().skip(reached.saturating_add(1));
            memos.0.extend(behind.map(|station| if station.shadow { None } else { station.policy.on_refused(req) }));
        }
    }

    /// Takes a response out, past the policies that the request has reached: also a response that the gateway made itself.
    ///
    /// A policy that stops replaces the response by what `render` makes of the stop, and the policies further out see the
    /// new one.
    #[expect(
        clippy::manual_async_fn,
        reason = "a block holds what it captures once; a function would hold the memos twice"
    )]
    pub fn response<R>(
        &self,
        mut memos: Memos,
        res: &mut Response,
        cx: &mut Exchange,
        render: R,
    ) -> impl Future<Output = ()>
    where
        R: Fn(Stop, &mut Exchange) -> Response,
    {
        async move {
            while let Some(memo) = memos.0.pop() {
                let (Some(memo), Some(station)) = (memo, self.stations.get(memos.0.len())) else { continue };
                let outcome = match station.policy.on_response(memo, res, cx) {
                    Step::Done(outcome) => outcome,
                    Step::Wait(waiting) => waiting.await,
                };
                if let Err(stop) = outcome {
                    *res = render(stop, cx);
                }
            }
        }
    }
}

/// Wherever a policy finds out who is asking, a caller is demanded, unless the document says otherwise. A shadow lifts nothing.
fn demand_caller(stations: &mut Vec<Station>, specs: &[AnySpec], cx: &Compiling<'_>) -> Result<(), Vec<SpecError>> {
    let identifying: Vec<&AnySpec> =
        specs.iter().filter(|spec| entry(spec.key()).is_some_and(|entry| entry.phase == Phase::Identify)).collect();
    let errors = check_demands(&identifying, specs, cx);
    if identifying.is_empty() || !errors.is_empty() {
        return if errors.is_empty() { Ok(()) } else { Err(errors) };
    }
    if !specs.iter().any(|spec| matches!(spec, AnySpec::Anonymous(_))) {
        let policy = AnyPolicy::Anonymous(Anonymous::compile(&AnonymousSpec::Deny, cx)?);
        stations.push(Station { policy, shadow: false });
    }
    let enforced = stations.iter().filter(|station| !station.shadow);
    let challenges: Vec<_> = enforced.filter_map(|station| station.policy.challenge()).collect();
    for station in stations {
        match &mut station.policy {
            AnyPolicy::Anonymous(anonymous) => anonymous.challenge_by(challenges.clone()),
            AnyPolicy::Require(require) => require.challenge_by(challenges.clone()),
            #[cfg(feature = "cel")]
            AnyPolicy::Expression(expression) => expression.challenge_by(challenges.clone()),
            _ => {}
        }
    }
    Ok(())
}

/// What is written of callers and could never hold, by the policies that find out who is asking.
fn check_demands(identifying: &[&AnySpec], specs: &[AnySpec], cx: &Compiling<'_>) -> Vec<SpecError> {
    let mut errors = Vec::new();
    let present: Vec<&str> = identifying.iter().map(|spec| spec.key()).collect();
    #[cfg(feature = "cel")]
    for spec in specs {
        if let AnySpec::Expression(expression) = spec
            && identifying.is_empty()
            && expression.names_caller()
        {
            let problem = "the expression looks at the caller, and nothing here finds out who is asking";
            let error = SpecError::new(FieldPath::root().key("expression"), problem);
            errors.push(error.help("add a policy that does, such as `api_key`"));
        }
    }
    for spec in specs.iter().filter(|spec| matches!(spec, AnySpec::Anonymous(_) | AnySpec::Require(_))) {
        let at = FieldPath::root().key(spec.key());
        if identifying.is_empty() {
            let error =
                SpecError::new(at, format!("`{}` means nothing here: nothing finds out who is asking", spec.key()));
            errors.push(error.help("add a policy that does, such as `api_key`"));
        } else if let AnySpec::Require(require) = spec {
            let mut wrong = require.0.check_by(&present);
            if identifying.iter().all(|spec| spec.proves_consumers()) {
                wrong.extend(require.0.check_groups(&cx.around.consumers));
            }
            errors.extend(wrong.into_iter().map(|error| error.below(&at)));
        }
    }
    errors
}

impl Station {
    /// Lets the policy judge a copy, and notes a verdict that would have stopped the request. What it finds out of the caller
    /// counts for nothing.
    async fn rehearse(&self, req: &mut Request, cx: &mut Exchange) {
        let mut copy = Request::new(stand_in(req.body()));
        *copy.method_mut() = req.method().clone();
        *copy.uri_mut() = req.uri().clone();
        *copy.version_mut() = req.version();
        *copy.headers_mut() = req.headers().clone();
        let before = (cx.caller.clone(), cx.unclaimed, cx.path.clone(), cx.upstream_path.clone());
        let told = (cx.trail.reason.take(), cx.trail.detail.take());
        cx.in_shadow = true;
        let outcome = match self.policy.on_request(&mut copy, cx) {
            Step::Done(outcome) => outcome,
            Step::Wait(waiting) => waiting.await,
        };
        cx.in_shadow = false;
        (cx.caller, cx.unclaimed, cx.path, cx.upstream_path) = before;
        let said = std::mem::replace(&mut cx.trail.reason, told.0);
        cx.trail.detail = told.1;
        let code = match outcome {
            Ok(_) => return,
            Err(Stop::Reject(rejection)) => rejection.reason.code,
            Err(Stop::Reply(_)) => said.map_or(ANSWERED, |reason| reason.code),
        };
        cx.trail.shadowed.push((self.policy.key(), code));
    }
}

fn check_shadow(shadow: &[String], specs: &[AnySpec]) -> Vec<SpecError> {
    let verdicts: Vec<_> =
        CATALOGUE.iter().filter(|entry| entry.shadow).map(|entry| format!("`{}`", entry.key)).collect();
    let verdicts = format!("these can run in shadow: {}", verdicts.join(", "));
    let judge = |(i, key): (usize, &String)| {
        let (problem, help) = match entry(key) {
            None => (format!("no policy is named `{key}`"), verdicts.clone()),
            Some(Entry { shadow: false, .. }) => {
                let problem =
                    format!("`{key}` gives no verdict: it answers or transforms, and in shadow it would do nothing");
                (problem, verdicts.clone())
            }
            Some(_) if specs.iter().any(|spec| spec.key() == key) => return None,
            Some(_) => {
                let help = format!("write `{key}` on the route or under `defaults`, or take its name out of `shadow`");
                (format!("there is no `{key}` here that could run in shadow"), help)
            }
        };
        Some(SpecError::new(FieldPath::root().key("shadow").index(i), problem).help(help))
    };
    shadow.iter().enumerate().filter_map(judge).collect()
}

/// A body that says as much of its length as `body` and has nothing to read.
fn stand_in(body: &Body) -> Body {
    match body {
        Body::Empty | Body::Tunnel(_) => Body::Empty,
        Body::Full(bytes) => Body::Full(bytes.clone()),
        Body::Stream(_) if body.is_end_stream() => Body::Empty,
        Body::Stream(stream) => Body::stream(StandIn(stream.size_hint())),
    }
}

struct StandIn(SizeHint);

impl http_body::Body for StandIn {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(None)
    }

    fn size_hint(&self) -> SizeHint {
        self.0
    }
}

#[cfg(test)]
mod tests;
