//! Answers `503 Service Unavailable` in place of a service that is being worked on.
//!
//! ```yaml
//! maintenance: true
//! ```
//! ```yaml
//! maintenance:
//!   retry_after: 10m
//!   message: We are moving to a new database.
//!   allow: [10.0.0.0/8]       # these clients still reach the service
//! ```
//!
//! The code of the refusal is `maintenance.on`. `message` becomes its `detail`; `retry_after` its `Retry-After`. With
//! `on: false` all else can stay written while the service is up.

use std::time::Duration;

use http::HeaderValue;
use http::header::RETRY_AFTER;
use pylon_core::Request;
use pylon_core::exchange::Exchange;
use pylon_core::networks::{Network, NetworkSet};
use pylon_core::rejection::{MAINTENANCE, Rejection};
use pylon_core::short::{FromScalar, OneOrMany, Short};
use pylon_core::spec::SpecError;
use pylon_core::units::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::policy::{Compiling, Policy, Step};
use crate::written;

/// Whether, and how, a route is under maintenance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MaintenanceSpec {
    /// Whether it is on. Default: `true`.
    #[serde(default = "yes")]
    #[schemars(example = false)]
    pub on: bool,
    /// When clients should try again, in whole seconds: `Retry-After`. Default: not said.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Span", example = &"10m")]
    pub retry_after: Option<Span>,
    /// A sentence for the clients. Default: none.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"We are moving to a new database.")]
    pub message: Option<String>,
    /// Clients that pass all the same, as networks. Default: none.
    #[serde(default)]
    #[schemars(example = vec!["10.0.0.0/8"])]
    pub allow: OneOrMany<Network>,
}

fn yes() -> bool {
    true
}

impl FromScalar for MaintenanceSpec {
    const EXPECTING: &'static str = "`true` or `false`";

    fn from_scalar(text: &str) -> Result<Self, String> {
        let on = text.parse().map_err(|_| format!("`{text}` is neither `true` nor `false`"))?;
        Ok(Self { on, retry_after: None, message: None, allow: OneOrMany::default() })
    }
}

/// The maintenance at work.
#[derive(Debug)]
pub struct Maintenance {
    /// What to answer; none when the service is up.
    refusal: Option<Rejection>,
    allow: NetworkSet,
}

impl Policy for Maintenance {
    type Spec = Short<MaintenanceSpec>;
    type Memo = ();

    fn compile(spec: &Self::Spec, _: &Compiling<'_>) -> Result<Self, Vec<SpecError>> {
        let mut refusal = Rejection::from(&MAINTENANCE);
        refusal.detail = spec.message.clone().map(Into::into);
        if let Some(span) = spec.retry_after {
            refusal = refusal.with_header(RETRY_AFTER, HeaderValue::from(whole_seconds(span.duration())));
        }
        Ok(Self { refusal: spec.on.then_some(refusal), allow: NetworkSet::new(spec.allow.iter().copied()) })
    }

    fn on_request<'a>(&'a self, _: &'a mut Request, cx: &'a mut Exchange) -> Step<'a, ()> {
        Step::Done(match &self.refusal {
            Some(refusal) if !self.allow.contains(cx.client) => Err(refusal.clone().into()),
            _ => Ok(()),
        })
    }
}

/// Rounded up: a client that comes back early would only be told again.
fn whole_seconds(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Stop;
    use crate::testing::{Seen, compile, now, stopped};

    fn outcome(policy: &Maintenance, client: &str) -> Result<(), Stop> {
        let (mut req, mut cx) = Seen::get("/").client(client).start();
        now(policy.on_request(&mut req, &mut cx))
    }

    #[test]
    fn it_is_on_when_it_stands_there_and_off_when_it_says_so() {
        assert_eq!(stopped(outcome(&compile("true").unwrap(), "192.0.2.1")), "maintenance.on");
        assert_eq!(stopped(outcome(&compile("{}").unwrap(), "192.0.2.1")), "maintenance.on");
        assert!(outcome(&compile("false").unwrap(), "192.0.2.1").is_ok());
        assert!(outcome(&compile(r#"{ "on": false, "retry_after": "1m" }"#).unwrap(), "192.0.2.1").is_ok());
    }

    #[test]
    fn it_says_why_and_when_to_come_back() {
        let policy = compile(r#"{ "retry_after": "1500ms", "message": "Moving." }"#).unwrap();
        let Err(Stop::Reject(rejection)) = outcome(&policy, "192.0.2.1") else { panic!("it passed") };
        assert_eq!(rejection.detail.as_deref(), Some("Moving."));
        assert_eq!(rejection.headers.as_slice(), [(RETRY_AFTER, HeaderValue::from_static("2"))]);
    }

    #[test]
    fn those_who_work_on_it_pass() {
        let policy = compile(r#"{ "allow": ["10.0.0.0/8", "::1"] }"#).unwrap();
        assert!(outcome(&policy, "10.1.2.3").is_ok() && outcome(&policy, "::ffff:10.1.2.3").is_ok());
        assert!(outcome(&policy, "::1").is_ok() && outcome(&policy, "11.0.0.1").is_err());
    }
}
