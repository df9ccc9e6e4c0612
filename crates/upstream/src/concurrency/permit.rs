//! A place under the limit of an upstream, and what one worker has of that limit.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::gradient::Sample;
use super::limiter::Limiter;
use crate::flight::{Flight, Head};

/// The most that is kept of one worker between two ticks. What comes beyond tells nothing new.
const SAMPLES: usize = 256;

/// What one worker has of a limit. Its reference count is written by that worker alone.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Gate {
    pub(crate) limiter: Arc<Limiter>,
    heard: Mutex<Heard>,
}

/// What one worker has heard of the service since the last tick.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) samples: Vec<Sample>,
    /// The most that were under way.
    pub(crate) peak: u32,
    /// Answers that say that it is too much, and answers that did not come in time.
    pub(crate) drops: u32,
}

/// A place under the limit; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit(Arc<Gate>);

impl Gate {
    pub(crate) fn new(limiter: Arc<Limiter>) -> Self {
        Self { limiter, heard: Mutex::default() }
    }

    /// What was heard since the last time.
    pub(crate) fn take(&self) -> Heard {
        std::mem::take(&mut *self.heard.lock())
    }
}

impl Permit {
    pub(crate) fn new(gate: &Arc<Gate>) -> Self {
        Self(Arc::clone(gate))
    }

    pub(crate) fn of(gate: Arc<Gate>) -> Self {
        Self(gate)
    }

    /// The head of an answer came. What is left of the permit: a WebSocket does not keep it.
    pub(crate) fn heard(self, head: &Head, flight: &Flight, began: Instant, now: Instant) -> Option<Self> {
        let status = head.status();
        // While the client was sending, the service was not at fault.
        self.answered(status, flight.moved().map_or(began, |moved| moved.max(began)), now);
        (status != 101).then_some(self)
    }

    /// The head of an answer took from `began` until `now`; 429 and 503 say that it was too much, and other failures nothing.
    pub(crate) fn answered(&self, status: u16, began: Instant, now: Instant) {
        let mut heard = self.0.heard.lock();
        heard.peak = heard.peak.max(self.0.limiter.under_way());
        if status == 429 || status == 503 {
            heard.drops = heard.drops.saturating_add(1);
        } else if status < 500 && heard.samples.len() < SAMPLES {
            heard.samples.push(Sample { began, took: now.saturating_duration_since(began) });
        }
    }

    /// No answer came in time.
    pub(crate) fn timed_out(&self) {
        let mut heard = self.0.heard.lock();
        heard.drops = heard.drops.saturating_add(1);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.limiter.leave(|| tokio::time::Instant::now().into_std());
    }
}

/// What tells callers apart: the address, and of IPv6 the network of 64 bits that one customer has.
pub(crate) fn caller(client: IpAddr) -> u64 {
    match client.to_canonical() {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_customer_are_one_caller() {
        let of = |text: &str| caller(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
