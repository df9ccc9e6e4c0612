//! Injects faults into requests that ask for it by a header: a delay, or a failure in place of the service's answer.
//!
//! ```yaml
//! fault: { when_header: x-fault, delay: 2s }
//! ```
//! ```yaml
//! fault:
//!   when_header: { name: x-fault, value: rehearsal }
//!   delay: { by: 500ms, share: 50% }
//!   abort: { status: 503, share: 10% }     # or grpc_status: 14
//! ```
//!
//! Only requests with that header meet a fault, so that a rehearsal harms nobody else. With a `value` that outsiders do not
//! know they cannot ask for one. The header goes on to the service, where the next gateway may look for it.
//!
//! A delay counts from the request's arrival. Where both fall on a request, it is delayed and then refused. The code of the
//! refusal is `fault.injected`; the access log has `injected`, and `pylon_faults_injected_total` counts. The service is not
//! called, and no `fallback` is met.

use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName};
use pylon_core::Request;
use pylon_core::exchange::{Exchange, Injected};
use pylon_core::rejection::{FAULT_INJECTED, Rejection, Told};
use pylon_core::short::{FromScalar, Short};
use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::units::{Percent, Span};
use pylon_net::timer::sleep_until;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::policy::{Compiling, Policy, Step};
use crate::written;

/// The longest delay: who may ask for it holds a connection and a request for so long.
const LONGEST: Duration = Duration::from_secs(60);

/// Faults for requests that ask for them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FaultSpec {
    /// The header by which a request asks for a fault: its name, or a map with a value. Required.
    #[schemars(example = &"x-fault")]
    pub when_header: Short<WhenHeaderSpec>,
    /// How long requests are held back, and which share of them; at most `60s`. Default: not at all.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Short<DelaySpec>", example = &"2s")]
    pub delay: Option<Short<DelaySpec>>,
    /// The status by which requests are refused, and which share of them. Default: none are.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Short<AbortSpec>", example = 503)]
    pub abort: Option<Short<AbortSpec>>,
}

/// The header that asks for a fault. Short: its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WhenHeaderSpec {
    /// The name. Required.
    #[schemars(example = &"x-fault")]
    pub name: String,
    /// The value that it must have. Default: any.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"rehearsal")]
    pub value: Option<String>,
}

/// A delay. Short: how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DelaySpec {
    /// How long, from the request's arrival. Required.
    #[schemars(example = &"2s")]
    pub by: Span,
    /// The share of requests that are held back. Default: `100%`.
    #[serde(default = "all")]
    #[schemars(example = &"50%")]
    pub share: Percent,
}

/// A refusal. Short: the status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AbortSpec {
    /// The status, 400 to 599. Default: 503, or what `grpc_status` stands for.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u16", example = 503)]
    pub status: Option<u16>,
    /// The code that calls of gRPC are refused by, 1 to 16. Default: what `status` stands for.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u8", example = 14)]
    pub grpc_status: Option<u8>,
    /// The share of requests that are refused. Default: `100%`.
    #[serde(default = "all")]
    #[schemars(example = &"10%")]
    pub share: Percent,
}

fn all() -> Percent {
    Percent::from_basis_points(10_000)
}

impl FromScalar for WhenHeaderSpec {
    const EXPECTING: &'static str = "the name of a header";

    fn from_scalar(text: &str) -> Result<Self, String> {
        Ok(Self { name: text.to_owned(), value: None })
    }
}

impl FromScalar for DelaySpec {
    const EXPECTING: &'static str = "a span of time such as `2s`";

    fn from_scalar(text: &str) -> Result<Self, String> {
        Ok(Self { by: Span::parse(text)?, share: all() })
    }
}

impl FromScalar for AbortSpec {
    const EXPECTING: &'static str = "a status such as `503`";

    fn from_scalar(text: &str) -> Result<Self, String> {
        let status = text.parse().map_err(|_| format!("`{text}` is not a status"))?;
        Ok(Self { status: Some(status), grpc_status: None, share: all() })
    }
}

/// The faults at work.
#[derive(Debug)]
pub struct Fault {
    header: HeaderName,
    value: Option<Box<[u8]>>,
    delay: Option<(Duration, u16)>,
    abort: Option<(Rejection, u16)>,
}

impl Policy for Fault {
    type Spec = FaultSpec;
    type Memo = ();

    fn compile(spec: &Self::Spec, _: &Compiling<'_>) -> Result<Self, Vec<SpecError>> {
        let root = FieldPath::root;
        let mut errors = Vec::new();
        let header = HeaderName::from_bytes(spec.when_header.name.as_bytes()).map_err(|_| {
            let problem = format!("`{}` is not a header name", spec.when_header.name);
            errors.push(SpecError::new(root().key("when_header"), problem));
        });
        if spec.delay.is_none() && spec.abort.is_none() {
            let error = SpecError::new(root(), "no fault is written, so none would be injected");
            errors.push(error.help("add `delay: 2s` or `abort: 503`"));
        }
        let delay = spec.delay.as_ref().map(|delay| (delay.by.duration(), delay.share.basis_points()));
        if delay.is_some_and(|(by, _)| by > LONGEST) {
            let error = SpecError::new(root().key("delay"), "a request would be held back for more than `60s`");
            errors.push(error.help("write at most `60s`"));
        }
        let abort = spec.abort.as_ref().map(|abort| {
            check(abort, &mut errors);
            let mut refusal = Rejection::from(&FAULT_INJECTED);
            refusal.told = Some(Told { status: abort.status, grpc: abort.grpc_status });
            (refusal, abort.share.basis_points())
        });
        let value = spec.when_header.value.as_ref().map(|value| value.as_bytes().into());
        match header {
            Ok(header) if errors.is_empty() => Ok(Self { header, value, delay, abort }),
            _ => Err(errors),
        }
    }

    fn on_request<'a>(&'a self, req: &'a mut Request, cx: &'a mut Exchange) -> Step<'a, ()> {
        if !self.is_asked_for(req.headers()) {
            return Step::Done(Ok(()));
        }
        let (delay, abort) = self.fate(|| fastrand::u16(..10_000));
        cx.trail.injected = match (delay, abort) {
            (None, None) => None,
            (Some(_), None) => Some(Injected::Delay),
            (None, Some(_)) => Some(Injected::Abort),
            (Some(_), Some(_)) => Some(Injected::Both),
        };
        let outcome = abort.map_or(Ok(()), |refusal| Err(refusal.clone().into()));
        match delay {
            None => Step::Done(outcome),
            Some(by) => {
                let at = until(cx.started, by, cx.deadline);
                Step::Wait(Box::pin(async move {
                    sleep_until(at).await;
                    outcome
                }))
            }
        }
    }
}

impl Fault {
    fn is_asked_for(&self, headers: &HeaderMap) -> bool {
        match &self.value {
            None => headers.contains_key(&self.header),
            Some(value) => headers.get_all(&self.header).iter().any(|asked| asked.as_bytes() == &**value),
        }
    }

    /// What falls on one request. `draw` is a number below 10,000, drawn anew for each fault.
    fn fate(&self, mut draw: impl FnMut() -> u16) -> (Option<Duration>, Option<&Rejection>) {
        let delay = self.delay.filter(|(_, share)| draw() < *share).map(|(by, _)| by);
        let abort = self.abort.as_ref().filter(|(_, share)| draw() < *share).map(|(refusal, _)| refusal);
        (delay, abort)
    }
}

fn check(abort: &AbortSpec, errors: &mut Vec<SpecError>) {
    let at = |key: &str| FieldPath::root().key("abort").key(key);
    if let Some(status) = abort.status.filter(|status| !(400..600).contains(status)) {
        errors.push(SpecError::new(at("status"), format!("{status} is not a status from 400 to 599")));
    }
    if let Some(code) = abort.grpc_status.filter(|code| !(1..=16).contains(code)) {
        errors.push(SpecError::new(at("grpc_status"), format!("{code} is not a code of gRPC from 1 to 16")));
    }
}

/// When a request goes on. Nobody waits beyond the end of the whole exchange.
fn until(started: Instant, by: Duration, deadline: Option<Instant>) -> Instant {
    let at = started + by;
    deadline.map_or(at, |deadline| deadline.min(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Stop;
    use crate::testing::{Seen, compile, now, stopped};
    use std::collections::VecDeque;

    fn fault(spec: &str) -> Fault {
        compile(spec).unwrap()
    }

    #[test]
    fn only_requests_that_ask_for_a_fault_meet_one() {
        let any = fault(r#"{ "when_header": "x-fault", "abort": 503 }"#);
        let one = fault(r#"{ "when_header": { "name": "x-fault", "value": "yes" }, "abort": 503 }"#);
        for (header, by_any, by_one) in
            [(None, false, false), (Some(("x-fault", "no")), true, false), (Some(("x-fault", "yes")), true, true)]
        {
            for (policy, meets) in [(&any, by_any), (&one, by_one)] {
                let seen = header.map_or(Seen::get("/"), |(name, value)| Seen::get("/").header(name, value));
                let (mut req, mut cx) = seen.start();
                let outcome = now(policy.on_request(&mut req, &mut cx));
                assert_eq!(outcome.is_err(), meets, "{header:?}");
                assert_eq!(cx.trail.injected.is_some(), meets);
                if meets {
                    assert_eq!(stopped(outcome), "fault.injected");
                }
            }
        }
    }

    #[test]
    fn each_fault_falls_on_its_own_share() {
        let policy = fault(
            r#"{ "when_header": "x-f", "delay": { "by": "1s", "share": "50%" }, "abort": { "status": 500, "share": "0.01%" } }"#,
        );
        for (draws, delayed, refused) in
            [([4_999, 0], true, true), ([5_000, 0], false, true), ([0, 1], true, false), ([9_999, 9_999], false, false)]
        {
            let mut draws = VecDeque::from(draws);
            let (delay, abort) = policy.fate(|| draws.pop_front().unwrap());
            assert_eq!((delay.is_some(), abort.is_some()), (delayed, refused));
        }
        let never = fault(r#"{ "when_header": "x-f", "abort": { "share": "0%" } }"#);
        assert!(never.fate(|| 0).1.is_none());
        let always = fault(r#"{ "when_header": "x-f", "abort": 500 }"#);
        assert!(always.fate(|| 9_999).1.is_some());
    }

    #[test]
    fn a_refusal_says_what_is_written() {
        for (abort, status, grpc) in [
            ("429", Some(429), None),
            (r#"{ "grpc_status": 14 }"#, None, Some(14)),
            (r#"{ "status": 500, "grpc_status": 13 }"#, Some(500), Some(13)),
        ] {
            let policy = fault(&format!(r#"{{ "when_header": "x-f", "abort": {abort} }}"#));
            let (mut req, mut cx) = Seen::get("/").header("x-f", "").start();
            let Err(Stop::Reject(no)) = now(policy.on_request(&mut req, &mut cx)) else { panic!("it passed") };
            assert_eq!(no.told, Some(Told { status, grpc }));
        }
    }

    #[test]
    fn a_delay_ends_with_the_exchange() {
        let (_, cx) = Seen::get("/").start();
        let (started, second) = (cx.started, Duration::from_secs(1));
        assert_eq!(until(started, second, None), started + second);
        assert_eq!(until(started, second, Some(started + second / 2)), started + second / 2);
    }

    #[test]
    fn all_that_is_wrong_is_told_at_its_place() {
        let text = compile::<Fault>(
            r#"{ "when_header": "a b", "delay": "2m", "abort": { "status": 200, "grpc_status": 0 } }"#,
        );
        let text = text.unwrap_err();
        let places: Vec<_> = text.lines().map(|line| line.split(": ").next().unwrap()).collect();
        assert_eq!(places, ["when_header", "delay", "abort.status", "abort.grpc_status"]);
        for spec in [
            "{}",
            r#"{ "delay": "1s" }"#,
            r#"{ "when_header": "x" }"#,
            r#"{ "when_header": "x", "delay": null }"#,
            r#"{ "when_header": "x", "abort": "no" }"#,
        ] {
            assert!(compile::<Fault>(spec).is_err(), "{spec}");
        }
    }
}
