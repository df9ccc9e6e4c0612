//! What earlier attempts of an exchange have taught, and whether another one is safe.

use std::time::Instant;

use pylon_core::exchange::{Exchange, Timer};

use super::outgoing::{Outgoing, is_idempotent};
use crate::endpoint::Lane;
use crate::error::{CallError, Fault, Shed};

/// How many further endpoints are tried after one that could not be connected to.
const CONNECT_RETRIES: u8 = 2;
/// How many endpoints one exchange can meet: the first, one after a stale connection, and those above.
const MAX_ATTEMPTS: usize = 4;

/// What earlier attempts of the same exchange have taught.
pub(super) struct Past {
    /// When the present attempt began.
    pub(super) began: Instant,
    pub(super) tried: [usize; MAX_ATTEMPTS],
    pub(super) attempts: usize,
    pub(super) connect_failures: u8,
    /// A pooled connection died under the request: only a fresh one will do, once.
    pub(super) stale: bool,
}

impl Past {
    pub(super) fn new(began: Instant) -> Self {
        Self { began, tried: [0; MAX_ATTEMPTS], attempts: 0, connect_failures: 0, stale: false }
    }

    pub(super) fn tried(&self) -> &[usize] {
        self.tried.get(..self.attempts).unwrap_or_default()
    }

    pub(super) fn remember(&mut self, lane: &Lane) {
        if let Some(place) = self.tried.get_mut(self.attempts) {
            *place = lane.id();
            self.attempts = self.attempts.saturating_add(1);
        }
    }

    /// Whether another attempt is safe and of use. Never after a timer that bounds all attempts.
    pub(super) fn again(&mut self, error: &CallError, out: &Outgoing, cx: &Exchange) -> bool {
        match &error.source {
            Fault::Connect(_)
            | Fault::Tls(_)
            | Fault::Timeout(Timer::Connect, _)
            | Fault::Overloaded(Shed::Connections(_))
                if self.connect_failures < CONNECT_RETRIES =>
            {
                self.connect_failures = self.connect_failures.saturating_add(1);
                true
            }
            Fault::Refused(_) if self.connect_failures < CONNECT_RETRIES => {
                self.connect_failures = self.connect_failures.saturating_add(1);
                out.can_be_sent_again()
            }
            // The peer may close an idle connection at any time (RFC 9112 §9.3.1); one more try on a fresh one.
            Fault::Unsent(_) | Fault::Reset { answered: false, .. } if cx.trail.reused && !self.stale => {
                self.stale = true;
                let safe = matches!(error.source, Fault::Unsent(_)) || is_idempotent(&out.method);
                safe && out.can_be_sent_again()
            }
            _ => false,
        }
    }
}
