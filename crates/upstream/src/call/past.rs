//! What earlier attempts of an exchange have taught, and whether another one is safe without being asked for.

use std::time::{Duration, Instant};

use http::Method;
use pylon_core::Response;
use pylon_core::attempts::Cause;
use pylon_core::exchange::{Exchange, Timer};
use smallvec::SmallVec;

use super::outgoing::{Outgoing, is_idempotent};
use crate::concurrency::permit::Permit;
use crate::endpoint::Lane;
use crate::error::{CallError, Fault, Shed};
use crate::upstream::choice::Wish;

/// How many further endpoints are tried after one that could not be connected to.
const CONNECT_RETRIES: u8 = 2;

/// What earlier attempts of the same exchange have taught.
pub(super) struct Past {
    /// Where the request is to go.
    pub(super) wish: Wish,
    /// When the present attempt began.
    pub(super) began: Instant,
    /// The endpoints that were met, each once.
    tried: SmallVec<[usize; 2]>,
    connect_failures: u8,
    /// How many retries were made that the route asks for.
    pub(super) retries: u8,
    /// A pooled connection died under the request: only a fresh one will do, once.
    pub(super) stale: bool,
    /// Nothing of the present attempt has left yet.
    pub(super) unsent: bool,
    /// Held for all attempts, where the upstream has a limit.
    pub(super) permit: Option<Permit>,
    /// What the attempt before came to, as far as that is still here.
    pub(super) last: Option<Box<Result<Response, CallError>>>,
    /// From the request's arrival to the first attempt, in microseconds: short, since it lives with each call that waits.
    first: u32,
}

impl Past {
    /// Nothing yet, of a request that arrived at `started` and whose first attempt begins now.
    pub(super) fn new(wish: Wish, began: Instant, started: Instant) -> Self {
        let first = u32::try_from(began.saturating_duration_since(started).as_micros()).unwrap_or(u32::MAX);
        let tried = SmallVec::new();
        Self {
            wish,
            began,
            tried,
            connect_failures: 0,
            retries: 0,
            stale: false,
            unsent: false,
            permit: None,
            last: None,
            first,
        }
    }

    /// From the first attempt to `began`.
    pub(super) fn took(&self, started: Instant) -> Duration {
        self.began.saturating_duration_since(started + Duration::from_micros(u64::from(self.first)))
    }

    pub(super) fn tried(&self) -> &[usize] {
        &self.tried
    }

    pub(super) fn remember(&mut self, lane: &Lane) {
        if !self.tried.contains(&lane.id()) {
            self.tried.push(lane.id());
        }
    }

    /// Whether a pooled connection died under a request that goes out again on a fresh one: the peer may close an idle
    /// connection at any time, which tells nothing against it.
    pub(super) fn is_stale(&self, fault: &Fault, method: &Method, cx: &Exchange) -> bool {
        let died = match fault {
            Fault::Unsent(_) => true,
            Fault::Reset { answered: false, .. } => is_idempotent(method),
            _ => false,
        };
        died && cx.trail.reused && !self.stale
    }

    /// Whether another attempt is safe and of use, and by what name. Never after a timer that bounds all attempts.
    pub(super) fn again(&mut self, error: &CallError, out: &Outgoing, cx: &Exchange) -> Option<Cause> {
        match &error.source {
            Fault::Connect(_)
            | Fault::Tls(_)
            | Fault::Timeout(Timer::Connect, _)
            | Fault::Overloaded(Shed::Connections(_))
                if self.connect_failures < CONNECT_RETRIES =>
            {
                self.connect_failures = self.connect_failures.saturating_add(1);
                Some(Cause::Connect)
            }
            Fault::Refused(_) if self.connect_failures < CONNECT_RETRIES => {
                self.connect_failures = self.connect_failures.saturating_add(1);
                out.can_be_sent_again().then_some(Cause::Refused)
            }
            // The peer may close an idle connection at any time (RFC 9112 §9.3.1); one more try on a fresh one.
            Fault::Unsent(_) | Fault::Reset { answered: false, .. } if cx.trail.reused && !self.stale => {
                self.stale = true;
                let safe = matches!(error.source, Fault::Unsent(_)) || is_idempotent(&out.method);
                (safe && out.can_be_sent_again()).then_some(Cause::Stale)
            }
            _ => None,
        }
    }
}
