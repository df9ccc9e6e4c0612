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

use crate::identity::{Found, Place};
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

    /// The refusal of a credential that nobody takes. A bearer token is told that it is none that is taken (RFC 6750 §3.1).
    fn refuse_other(&self, req: &Request, cx: &Exchange) -> Rejection {
        let bearer = matches!(Place::bearer().find(req, cx), Found::One(_));
        let no = CALLER_INVALID.privately("no policy of this route takes this credential");
        self.challenges.iter().fold(no, |no, challenge| {
            let of_bearer = bearer && challenge.as_bytes().starts_with(b"Bearer ");
            let told = [challenge.as_bytes(), b", error=\"invalid_token\""].concat();
            let told = of_bearer.then(|| HeaderValue::try_from(told).ok()).flatten();
            no.with_header(WWW_AUTHENTICATE, told.unwrap_or_else(|| challenge.clone()))
        })
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

    fn on_request<'a>(&'a self, req: &'a mut Request, cx: &'a mut Exchange) -> Step<'a, ()> {
        Step::Done(match (&cx.caller, cx.unclaimed) {
            (Some(_), _) => Ok(()),
            (None, true) => Err(self.refuse_other(req, cx).into()),
            (None, false) if self.pass => Ok(()),
            (None, false) => Err(self.refuse(&CALLER_MISSING, "there is no credential").into()),
        })
    }
}
