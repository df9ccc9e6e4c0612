//! Says whether requests without a caller pass. They do not wherever a policy finds out who is asking.
//!
//! ```yaml
//! anonymous: allow        # or deny, which holds where nothing is written
//! ```
//!
//! A route with any policy that finds out who is asking (`api_key` and the like) demands a caller: without a credential it answers
//! 401 and says in `WWW-Authenticate` what it takes. With `anonymous: allow` such requests pass, without a caller. A
//! credential that is shown and not good is answered with 401 either way, and so is one that no policy of the route takes:
//! somebody who shows it means to be known.
//!
//! A policy that runs in shadow neither knows the caller nor lifts the demand for one.

use http::HeaderValue;
use http::header::WWW_AUTHENTICATE;
use pylon_core::Request;
use pylon_core::exchange::Exchange;
use pylon_core::rejection::{CALLER_INVALID, CALLER_MISSING, Reason, Rejection};
use pylon_core::spec::SpecError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::policy::{Compiling, Policy, Step};

/// Whether requests without a caller pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AnonymousSpec {
    /// They pass.
    Allow,
    /// They are answered with 401.
    Deny,
}

/// The demand for a caller.
#[derive(Debug)]
pub struct Anonymous {
    pass: bool,
    challenges: Box<[HeaderValue]>,
}

impl Anonymous {
    /// What stands in `WWW-Authenticate` of its refusals.
    pub(crate) fn challenge_by(&mut self, challenges: Vec<HeaderValue>) {
        self.challenges = challenges.into();
    }

    fn refuse(&self, reason: &'static Reason, note: &'static str) -> Rejection {
        let no = reason.privately(note);
        self.challenges.iter().fold(no, |no, challenge| no.with_header(WWW_AUTHENTICATE, challenge.clone()))
    }
}

impl Policy for Anonymous {
    type Spec = AnonymousSpec;
    type Memo = ();

    fn compile(spec: &Self::Spec, _: &Compiling<'_>) -> Result<Self, Vec<SpecError>> {
        Ok(Self { pass: *spec == AnonymousSpec::Allow, challenges: Box::default() })
    }

    fn on_request<'a>(&'a self, _: &'a mut Request, cx: &'a mut Exchange) -> Step<'a, ()> {
        Step::Done(match (&cx.caller, cx.unclaimed) {
            (Some(_), _) => Ok(()),
            (None, true) => Err(self.refuse(&CALLER_INVALID, "no policy of this route takes this credential").into()),
            (None, false) if self.pass => Ok(()),
            (None, false) => Err(self.refuse(&CALLER_MISSING, "there is no credential").into()),
        })
    }
}
