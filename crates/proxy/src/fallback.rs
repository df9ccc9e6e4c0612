//! What stands in for the answer of the action where that fails, is late, or has a status that says so.
//!
//! Rules are looked at in their order; the first that holds is taken. Where its upstream fails too, those behind it judge
//! that failure. Only what an upstream has to answer for counts: never the refusal of a policy, nor what the client itself
//! broke. A timer that bounds the whole exchange (`total`, the `grpc-timeout` of the client) bounds what stands in as well.

use std::time::{Duration, Instant};

use http::HeaderValue;
use http_body::Body as _;
use pylon_core::exchange::{Exchange, Failing, StandIn, StoodIn, Timer};
use pylon_core::rejection::{Rejection, UPSTREAM_NO_ENDPOINT, UPSTREAM_OPEN, UPSTREAM_OVERLOADED, UPSTREAM_TIMEOUT};
use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::units::ByteSize;
use pylon_core::{Request, Response};
use pylon_upstream::error::{Blame, CallError, Fault};

use self::spec::{FallbackRuleSpec, When};
use crate::action::forward::Forward;
use crate::action::respond::Respond;
use crate::grpc;
use crate::hop::PYLON_FALLBACK;
use crate::replay::Kept;
use crate::websocket::WebSocket;

pub mod spec;

/// How much of a request's body is held, where nothing is written.
const USUAL_BODY: ByteSize = ByteSize::new(64 * 1024);
/// How much may be held.
const MOST_BODY: ByteSize = ByteSize::new(16 * 1024 * 1024);

/// A compiled `fallback`.
#[derive(Debug)]
pub struct Fallback {
    rules: Box<[Rule]>,
    /// How much of a request's body is held; none where no rule would send it again.
    keep: Option<usize>,
    /// How long the head of the answer is waited for, from the request's arrival, and the rule that says so.
    after: Option<(Duration, usize)>,
}

#[derive(Debug)]
struct Rule {
    on: Box<[When]>,
    remedy: Remedy,
}

#[derive(Debug)]
enum Remedy {
    Respond(Respond),
    Forward(Forward),
}

/// What the route says beside its fallback.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms<'a> {
    pub(crate) websocket: Option<&'a WebSocket>,
    /// Whether the answer says that it stands in for another.
    pub(crate) told: bool,
}

impl Fallback {
    /// Compiles rules; `resolve` makes the forward of a rule to an upstream by its name, or has told that there is none.
    pub fn compile(
        rules: &[&FallbackRuleSpec],
        mut resolve: impl FnMut(&FieldPath, &str) -> Option<Forward>,
    ) -> Result<Self, Vec<SpecError>> {
        let mut errors = Vec::new();
        let mut fallback = Self { rules: Box::default(), keep: None, after: None };
        let mut compiled = Vec::new();
        for (index, spec) in rules.iter().enumerate() {
            // One rule alone is hardly written as a list.
            let base = if rules.len() > 1 { FieldPath::root().index(index) } else { FieldPath::root() };
            let mut wrong = |error: SpecError| errors.push(error.below(&base));
            check(spec).into_iter().for_each(&mut wrong);
            if let Some(span) = spec.after
                && let Some(_) = fallback.after.replace((span.duration(), index))
            {
                let error = SpecError::new(FieldPath::root().key("after"), "two rules say `after`");
                wrong(error.help("a request is given up once: keep one of them"));
            }
            let remedy = if let Some(respond) = &spec.respond {
                let at = FieldPath::root().key("respond");
                let compiled = Respond::compile(respond);
                compiled
                    .map_err(|found| found.into_iter().for_each(|error| wrong(error.below(&at))))
                    .ok()
                    .map(Remedy::Respond)
            } else if let Some(name) = &spec.forward {
                fallback.keep = fallback.keep.max(Some(spec.max_body.unwrap_or(USUAL_BODY).as_usize()));
                resolve(&base.clone().key("forward"), name).map(Remedy::Forward)
            } else {
                None
            };
            compiled.extend(remedy.map(|remedy| Rule { on: conditions(spec), remedy }));
        }
        fallback.rules = compiled.into();
        if errors.is_empty() { Ok(fallback) } else { Err(errors) }
    }

    /// The answer of `forward`, or what stands in for it.
    pub(crate) async fn answer(
        &self,
        forward: &Forward,
        request: &mut Request,
        cx: &mut Exchange,
        terms: Terms<'_>,
    ) -> Result<Response, Rejection> {
        let after = self.after.filter(|(_, index)| self.can_stand_in(*index, request));
        let kept = self.keep.map(|cap| Kept::of(request, cap));
        let mut answer = first(forward, std::mem::take(request), cx, after.map(|(span, _)| span)).await;
        let late = after.filter(|(span, _)| is_late(&answer, forward, *span)).map(|(_, index)| index);
        for (index, rule) in self.rules.iter().enumerate().skip(late.unwrap_or(0)) {
            let Some(failure) = Failure::of(&answer, cx) else { break };
            if late != Some(index) && !rule.on.iter().any(|when| failure.meets(*when)) {
                continue;
            }
            match (&rule.remedy, &kept) {
                (Remedy::Respond(respond), _) => {
                    note(cx, StoodIn::Respond, failure.on);
                    let mut answer = if cx.grpc { respond.grpc_answer() } else { respond.answer() };
                    mark(&mut answer, cx, terms);
                    return Ok(answer);
                }
                (Remedy::Forward(other), Some(kept)) if kept.is_whole() && !is_over(cx) => {
                    note(cx, StoodIn::Forward, failure.on);
                    // First what is there, which may still read the body, and then the body once more.
                    drop(answer);
                    answer = second(other, kept.again(), cx).await;
                }
                (Remedy::Forward(_), _) => note(cx, StoodIn::BodyGone, failure.on),
            }
        }
        let mut answer = Forward::receive(answer, terms.websocket, cx)?;
        mark(&mut answer, cx, terms);
        Ok(answer)
    }

    /// Whether what stands in for a late answer could still do so then: who is given up must have somebody else to go to.
    fn can_stand_in(&self, index: usize, request: &Request) -> bool {
        match (self.rules.get(index).map(|rule| &rule.remedy), self.keep) {
            (Some(Remedy::Respond(_)), _) => true,
            (Some(Remedy::Forward(_)), Some(keep)) => {
                request.body().size_hint().exact().is_some_and(|length| length <= keep as u64)
            }
            _ => false,
        }
    }
}

/// What is wrong with a rule by itself.
fn check(spec: &FallbackRuleSpec) -> Vec<SpecError> {
    let mut errors = Vec::new();
    let mut wrong = |key: Option<&str>, problem: &str, help: &str| {
        let at = key.map_or_else(FieldPath::root, |key| FieldPath::root().key(key));
        errors.push(SpecError::new(at, problem).help(help));
    };
    match (&spec.respond, &spec.forward) {
        (None, None) => wrong(None, "nothing stands in", "add `respond: 503` or `forward: NAME`"),
        (Some(_), Some(_)) => {
            wrong(None, "two things would stand in", "keep one of `respond` and `forward`, or write two rules");
        }
        _ => {}
    }
    if spec.after.is_none() && spec.on.contains(&When::Late) {
        wrong(Some("on"), "`late` means nothing without `after`", "say how long is waited: `after: 300ms`");
    }
    if let Some(size) = spec.max_body {
        if spec.forward.is_none() {
            wrong(Some("max_body"), "`max_body` means nothing without `forward`", "leave it out");
        }
        if size > MOST_BODY {
            wrong(Some("max_body"), "more than 16MiB of each request would be held", "write at most `16MiB`");
        }
    }
    errors
}

fn conditions(spec: &FallbackRuleSpec) -> Box<[When]> {
    if spec.on.is_empty() {
        [When::Open, When::Overloaded, When::Failed, When::Timeout].into()
    } else {
        spec.on.0.clone().into()
    }
}

/// The action's own answer; `after` bounds the time to its head.
async fn first(
    forward: &Forward,
    request: Request,
    cx: &mut Exchange,
    after: Option<Duration>,
) -> Result<Response, CallError> {
    match after {
        None => forward.upstream.call(request, cx, &forward.options).await,
        Some(span) => {
            let mut options = forward.options.clone();
            options.timeouts.response = options.timeouts.response.min(span);
            forward.upstream.call(request, cx, &options).await
        }
    }
}

/// The answer of another upstream, which has its own time from now on.
async fn second(forward: &Forward, request: Request, cx: &mut Exchange) -> Result<Response, CallError> {
    let trail = &mut cx.trail;
    (trail.upstream, trail.endpoint, trail.socket) = (None, None, None);
    (trail.upstream_time, trail.timer) = (None, None);
    let mut options = forward.options.clone();
    let passed = now().saturating_duration_since(cx.started);
    options.timeouts.response = options.timeouts.response.saturating_add(passed);
    forward.upstream.call(request, cx, &options).await
}

fn is_late(answer: &Result<Response, CallError>, forward: &Forward, after: Duration) -> bool {
    let timer = |error: &CallError| matches!(error.source, Fault::Timeout(Timer::Response, _));
    after <= forward.options.timeouts.response && answer.as_ref().is_err_and(timer)
}

/// Whether the whole exchange is out of time, so that nobody else needs to be asked.
fn is_over(cx: &Exchange) -> bool {
    cx.deadline.is_some_and(|deadline| deadline <= now())
}

/// In what way an answer failed, by what the client would be told.
struct Failure {
    on: Failing,
    status: u16,
}

impl Failure {
    /// None where nothing failed, or where it is not the upstream's fault.
    fn of(answer: &Result<Response, CallError>, cx: &Exchange) -> Option<Self> {
        match answer {
            Ok(answer) => {
                let of_call = if cx.grpc { grpc::failed(answer.headers()) } else { None };
                let status = of_call.unwrap_or(answer.status().as_u16());
                (status >= 400).then_some(Self { on: Failing::Status(status), status })
            }
            // Overload is nobody's failure, and no answer either.
            Err(error) if error.blame == Blame::Upstream || error.reason() == &UPSTREAM_OVERLOADED => {
                let reason = error.reason();
                Some(Self { on: Failing::Call(reason), status: reason.status })
            }
            Err(_) => None,
        }
    }

    fn meets(&self, when: When) -> bool {
        let kind = match self.on {
            Failing::Status(_) => None,
            Failing::Call(reason) if reason == &UPSTREAM_TIMEOUT => Some(When::Timeout),
            Failing::Call(reason) if [&UPSTREAM_NO_ENDPOINT, &UPSTREAM_OPEN].contains(&reason) => Some(When::Open),
            Failing::Call(reason) if reason == &UPSTREAM_OVERLOADED => Some(When::Overloaded),
            Failing::Call(_) => Some(When::Failed),
        };
        match when {
            When::Class(class) => self.status / 100 == class,
            When::Status(status) => self.status == status,
            // Has a way of its own: see `late` above.
            When::Late => false,
            word => kind == Some(word),
        }
    }
}

fn note(cx: &mut Exchange, by: StoodIn, on: Failing) {
    let trail = &mut cx.trail;
    let stands = matches!(trail.fallback, Some(StandIn { by: StoodIn::Forward, .. }));
    if !(stands && by == StoodIn::BodyGone) {
        trail.fallback = Some(StandIn { by, on, from: trail.upstream.clone() });
    }
}

/// Says in the answer that it stands in for another, and why.
fn mark(answer: &mut Response, cx: &Exchange, terms: Terms<'_>) {
    let Some(StandIn { by: StoodIn::Respond | StoodIn::Forward, on, .. }) = &cx.trail.fallback else { return };
    if terms.told {
        let value = match on {
            Failing::Call(reason) => HeaderValue::from_static(reason.code),
            Failing::Status(status) => HeaderValue::from(*status),
        };
        answer.headers_mut().insert(PYLON_FALLBACK, value);
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
