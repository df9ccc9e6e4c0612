//! From the keys `timeout`, `retry` and `hedge` of a route to what its calls are made by.

use std::sync::Arc;

use pylon_core::spec::FieldPath;
use pylon_upstream::call::CallOptions;
use pylon_upstream::call::hedge::Hedge;
use pylon_upstream::call::retry::Retry;
use pylon_upstream::call::retry::spec::RetrySpec;
use pylon_upstream::timeouts::TimeoutSpec;
use pylon_upstream::upstream::OfRoute;

use super::{Caller, Compiler};

/// What a route says of its calls.
#[derive(Debug, Default)]
pub(super) struct Calls<'a> {
    /// Who calls; nobody of whom breakers are told, where that is none.
    pub(super) caller: Option<Caller<'a>>,
    timeout: Option<&'a TimeoutSpec>,
    retry: Option<OwnRetry>,
    hedge: Option<Arc<Hedge>>,
}

/// What a route itself says of retries: none where it says `off`.
#[derive(Debug)]
struct OwnRetry(Option<Arc<Retry>>);

impl Calls<'_> {
    pub(super) fn said(&self) -> OfRoute<'_> {
        OfRoute { timeout: self.timeout, retry: self.retry.as_ref().map(|own| &own.0), hedge: self.hedge.as_ref() }
    }
}

impl Compiler<'_> {
    /// What a route says of its calls; what is wrong with it is noted.
    pub(super) fn calls<'s>(&mut self, caller: Caller<'s>, at: &FieldPath) -> Calls<'s> {
        let (spec, _) = caller;
        let retry = spec.retry.as_ref().map(|retry| OwnRetry(self.retry(retry, &at.clone().key("retry"))));
        // Each route has its own: the share is one of its requests.
        let hedge = spec.hedge.as_ref().or(self.document.defaults.hedge.as_ref());
        Calls {
            caller: Some(caller),
            timeout: spec.timeout.as_ref(),
            retry,
            hedge: hedge.and_then(Hedge::compile).map(Arc::new),
        }
    }

    /// The retry that is written: none where it is `off`, or wrong.
    pub(super) fn retry(&mut self, spec: &RetrySpec, at: &FieldPath) -> Option<Arc<Retry>> {
        Retry::compile(spec).map_err(|errors| self.note(at, errors)).ok().flatten().map(Arc::new)
    }
}

/// `, up to 2 retries on connect, 503, hedged after p95, at most 5%`.
pub(super) fn in_words(options: &CallOptions) -> String {
    let retry = options.retry.as_ref().map(|retry| format!(", {retry}"));
    let hedge = options.hedge.as_ref().map(|hedge| format!(", {hedge}"));
    [retry, hedge].into_iter().flatten().collect()
}
