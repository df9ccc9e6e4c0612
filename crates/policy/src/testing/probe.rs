//! A policy for the tests of the pipeline: it notes where it was, waits, changes or stops as it is told.

use std::future::poll_fn;
use std::task::Poll;

use http::{HeaderName, HeaderValue, StatusCode};
use pylon_core::body::Body;
use pylon_core::exchange::Exchange;
use pylon_core::rejection::{INTERNAL, OVERLOADED};
use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::{Request, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::policy::{Compiling, Policy, Step, Stop};

/// What the probe is told to do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProbeSpec {
    /// The name that it notes.
    #[schemars(example = &"a")]
    pub name: String,
    /// Whether it waits before each answer.
    #[schemars(example = true)]
    pub waits: bool,
    /// Whether it refuses the request.
    #[schemars(example = true)]
    pub refuses: bool,
    /// What it does instead of passing the response: `reply` or `reject`.
    #[schemars(example = &"reply")]
    pub back: String,
}

/// The probe at work.
#[derive(Debug)]
pub struct Probe(ProbeSpec);

impl Policy for Probe {
    type Spec = ProbeSpec;
    type Memo = Box<str>;

    fn compile(spec: &Self::Spec, _: &Compiling<'_>) -> Result<Self, Vec<SpecError>> {
        if spec.name.is_empty() {
            return Err(vec![SpecError::new(FieldPath::root().key("name"), "the probe has no name")]);
        }
        Ok(Self(spec.clone()))
    }

    fn on_request<'a>(&'a self, req: &'a mut Request, _: &'a mut Exchange) -> Step<'a, Box<str>> {
        let mut work = || {
            note(req.headers_mut(), &self.0.name);
            if self.0.refuses { Err(Stop::from(&OVERLOADED)) } else { Ok(self.0.name.as_str().into()) }
        };
        if !self.0.waits {
            return Step::Done(work());
        }
        Step::Wait(Box::pin(async move {
            once_more().await;
            work()
        }))
    }

    fn on_response<'a>(&'a self, memo: Box<str>, res: &'a mut Response, _: &'a mut Exchange) -> Step<'a, ()> {
        assert_eq!(*memo, *self.0.name, "each memo goes back to the policy that made it");
        let work = || match self.0.back.as_str() {
            "reply" => {
                let mut response = Response::new(Body::Empty);
                *response.status_mut() = StatusCode::IM_A_TEAPOT;
                Err(Stop::Reply(response))
            }
            "reject" => Err(Stop::from(&INTERNAL)),
            _ => {
                note(res.headers_mut(), &self.0.name);
                Ok(())
            }
        };
        if !self.0.waits {
            let mut work = work;
            return Step::Done(work());
        }
        let mut work = work;
        Step::Wait(Box::pin(async move {
            once_more().await;
            work()
        }))
    }
}

fn note(headers: &mut http::HeaderMap, name: &str) {
    headers.append(HeaderName::from_static("x-probe"), HeaderValue::from_str(name).unwrap());
}

/// Waits for one turn of the executor.
async fn once_more() {
    let mut waited = false;
    poll_fn(|_| if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}
