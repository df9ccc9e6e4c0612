//! What is known of a token that the gateway gets for itself, and when the next is asked for. Pure: time and lot are arguments.
//!
//! A token counts as good for `expires_in` from when it was asked for (RFC 6749 §5.1); where that is not said, for five minutes.
//! After four fifths of that another one is asked for, and while that fails the one at hand goes on until its end. A service
//! that answers 401 has one token taken out of use; the next is then spared for a while, so that a service which answers so for
//! reasons of its own does not turn each request into one for a token.

use std::time::{Duration, Instant};

use pylon_observe::insight::TokenReading;

use crate::discovery::ledger::Backoff;

/// How long a token is good where its service does not say.
const UNSAID: Duration = Duration::from_secs(300);
/// No token is taken to be good for longer.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(15);
/// For how long no further token is taken out of use after one was.
const SPARED: Duration = Duration::from_secs(30);

/// What is known of a token.
#[derive(Debug)]
pub(crate) struct Flow {
    /// The end of the token at hand.
    until: Option<Instant>,
    /// Whether the service has refused it.
    refused: bool,
    /// When a token was last taken out of use.
    refusal: Option<Instant>,
    /// When the next is asked for.
    next: Instant,
    error: Option<String>,
    obtained: u64,
    failures: u64,
    backoff: Backoff,
    /// When the token at hand was asked for.
    asked: Option<Instant>,
}

impl Flow {
    /// Nothing is known, and a token wanted at once.
    pub(crate) fn new(now: Instant) -> Self {
        let backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
        let (until, refusal, error, asked) = (None, None, None, None);
        Self { until, refused: false, refusal, next: now, error, obtained: 0, failures: 0, backoff, asked }
    }

    /// A token came for which it was asked at `asked`.
    pub(crate) fn came(&mut self, asked: Instant, expires_in: Option<Duration>, lot: f64) {
        let good = expires_in.unwrap_or(UNSAID).min(LONGEST);
        (self.until, self.asked) = (Some(asked + good), Some(asked));
        self.obtained = self.obtained.saturating_add(1);
        // Not at the same moment everywhere: up to a tenth of the time earlier by lot.
        self.next = asked + good.mul_f64(0.8 - 0.1 * lot);
        self.refused = false;
        self.error = None;
        self.backoff.reset();
    }

    /// None came.
    pub(crate) fn failed(&mut self, error: String, now: Instant, lot: f64) {
        self.next = now + self.backoff.next(lot);
        // One that was refused is better than none: that it was may have had another reason.
        self.refused = false;
        self.error = Some(error);
        self.failures = self.failures.saturating_add(1);
    }

    /// The service refused the token at hand. Says whether another is to be asked for, at once.
    pub(crate) fn refused(&mut self, now: Instant) -> bool {
        let spared = self.refusal.is_some_and(|before| now.saturating_duration_since(before) < SPARED);
        if spared || self.until.is_none() {
            return false;
        }
        (self.refused, self.refusal, self.next) = (true, Some(now), now);
        true
    }

    /// Until when the token at hand may be sent.
    pub(crate) fn usable(&self) -> Option<Instant> {
        self.until.filter(|_| !self.refused)
    }

    /// When the next is asked for.
    pub(crate) fn next(&self) -> Instant {
        self.next
    }

    /// Why none came when one was last asked for.
    pub(crate) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// How many came, how often none did, and how old the one is that may be sent.
    pub(crate) fn reading(&self, now: Instant) -> TokenReading {
        let fresh = self.usable().filter(|until| now < *until).and(self.asked);
        let age = fresh.map(|asked| now.saturating_duration_since(asked));
        TokenReading { obtained: self.obtained, failed: self.failures, age }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn start() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    #[test]
    fn a_token_is_renewed_ahead_of_its_end_and_used_until_then() {
        let start = start();
        let mut flow = Flow::new(start);
        assert_eq!((flow.next(), flow.usable()), (start, None));
        flow.came(start, Some(secs(100)), 0.0);
        assert_eq!((flow.next(), flow.usable()), (start + secs(80), Some(start + secs(100))));
        flow.came(start, Some(secs(100)), 1.0);
        assert_eq!(flow.next(), start + secs(70));
        flow.came(start, None, 0.0);
        assert_eq!(flow.usable(), Some(start + secs(300)));
        flow.came(start, Some(Duration::MAX), 0.0);
        assert_eq!(flow.usable(), Some(start + LONGEST));
    }

    #[test]
    fn an_outage_leaves_the_token_at_hand_and_is_asked_after_more_and_more_rarely() {
        let start = start();
        let mut flow = Flow::new(start);
        flow.came(start, Some(secs(100)), 0.0);
        let mut now = start + secs(80);
        let mut waits = Vec::new();
        for _ in 0..6 {
            flow.failed("away".to_owned(), now, 0.5);
            waits.push(flow.next() - now);
            now = flow.next();
            assert_eq!(flow.usable(), Some(start + secs(100)));
        }
        assert_eq!(waits, [1, 2, 4, 8, 15, 15].map(secs));
        let read = |flow: &Flow, now| (flow.reading(now).obtained, flow.reading(now).failed, flow.reading(now).age);
        assert_eq!((flow.error(), read(&flow, start + secs(90))), (Some("away"), (1, 6, Some(secs(90)))));
        assert_eq!(read(&flow, start + secs(100)), (1, 6, None), "it has run out");
        flow.came(now, Some(secs(100)), 0.0);
        assert_eq!(read(&flow, now + secs(1)), (2, 6, Some(secs(1))));
        assert_eq!((flow.error(), flow.usable()), (None, Some(now + secs(100))));
    }

    #[test]
    fn a_refusal_takes_one_token_out_of_use_and_spares_the_next() {
        let start = start();
        let mut flow = Flow::new(start);
        assert!(!flow.refused(start), "there is none");
        flow.came(start, Some(secs(100)), 0.0);
        assert!(flow.refused(start + secs(1)));
        assert_eq!((flow.usable(), flow.next()), (None, start + secs(1)));
        flow.came(start + secs(1), Some(secs(100)), 0.0);
        assert!(!flow.refused(start + secs(2)), "it is not the token's fault");
        assert_eq!(flow.usable(), Some(start + secs(101)));
        assert!(flow.refused(start + secs(31)));
    }

    #[test]
    fn a_token_that_was_refused_goes_on_where_no_other_comes() {
        let start = start();
        let mut flow = Flow::new(start);
        flow.came(start, Some(secs(100)), 0.0);
        assert!(flow.refused(start));
        flow.failed("away".to_owned(), start, 0.5);
        assert_eq!(flow.usable(), Some(start + secs(100)));
    }
}
