//! What a policy is: a spec that a person writes, a thing compiled from it, and what it does on the way in and out.

use std::fmt;
use std::pin::Pin;

use pylon_core::carry::Carry;
use pylon_core::exchange::Exchange;
use pylon_core::rejection::{Reason, Rejection};
use pylon_core::spec::SpecError;
use pylon_core::{Request, Response};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// One concern, applied once to each request of a route.
///
/// A policy whose line in the registry says `judges` can run in shadow. Such a policy decides on the way in, by the head
/// of the request and the exchange, and changes nothing in the exchange.
pub trait Policy: Sized + fmt::Debug + Send + Sync + 'static {
    /// What is written in a document.
    type Spec: DeserializeOwned + Serialize + PartialEq + Clone + fmt::Debug + JsonSchema;
    /// What the policy remembers from the request to its response: unit for most, boxed if over 16 bytes.
    /// What it holds is given back when the exchange is dropped.
    type Memo: fmt::Debug + Send + 'static;

    /// Makes the policy from its spec, or tells everything that is wrong with it, with paths from the spec's own root.
    fn compile(spec: &Self::Spec, cx: &Compiling<'_>) -> Result<Self, Vec<SpecError>>;

    /// Meets a request on its way in. A stop ends the way: the policies behind are never reached.
    fn on_request<'a>(&'a self, req: &'a mut Request, cx: &'a mut Exchange) -> Step<'a, Self::Memo>;

    /// Meets a request that a guard refused before this policy was reached. What it remembers of it brings the policy onto
    /// the way out of the refusal; most have no business there.
    fn on_refused(&self, req: &Request) -> Option<Self::Memo> {
        let _ = req;
        None
    }

    /// Meets the response on its way out, if [`Policy::on_request`] let the request pass, also a rejection made further in, or
    /// if [`Policy::on_refused`] remembered it.
    /// A stop replaces the response.
    fn on_response<'a>(&'a self, memo: Self::Memo, res: &'a mut Response, cx: &'a mut Exchange) -> Step<'a, ()> {
        let _ = (memo, res, cx);
        Step::Done(Ok(()))
    }
}

/// What is at hand while a document is compiled.
#[derive(Debug, Clone, Copy)]
pub struct Compiling<'a> {
    /// The living state of older snapshots.
    pub carry: &'a Carry,
}

/// What a policy answers: at once, or later by a boxed future for its cold path.
pub enum Step<'a, T> {
    /// It is decided.
    Done(Result<T, Stop>),
    /// It must be waited for.
    Wait(Waiting<'a, T>),
}

/// The cold path of a policy that has to wait, for a store or a service.
pub type Waiting<'a, T> = Pin<Box<dyn Future<Output = Result<T, Stop>> + Send + 'a>>;

impl<'a, T: 'a> Step<'a, T> {
    /// The same step with another memo.
    pub fn map<U: 'a>(self, wrap: fn(T) -> U) -> Step<'a, U> {
        match self {
            Self::Done(outcome) => Step::Done(outcome.map(wrap)),
            Self::Wait(waiting) => Step::Wait(Box::pin(async move { waiting.await.map(wrap) })),
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Step<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(outcome) => f.debug_tuple("Done").field(outcome).finish(),
            Self::Wait(_) => f.write_str("Wait"),
        }
    }
}

/// Why a request goes no further.
#[derive(Debug)]
pub enum Stop {
    /// The policy has the answer, such as that to a preflight.
    Reply(Response),
    /// The policy refuses; `proxy` writes the answer.
    Reject(Rejection),
}

impl From<Rejection> for Stop {
    fn from(rejection: Rejection) -> Self {
        Self::Reject(rejection)
    }
}

impl From<&'static Reason> for Stop {
    fn from(reason: &'static Reason) -> Self {
        Self::Reject(reason.into())
    }
}
