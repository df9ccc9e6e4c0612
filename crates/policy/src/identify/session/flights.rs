//! One renewal for all who wait for it: requests of one session come together, and an issuer takes what tokens are renewed by once.
//!
//! What came of it stays for a while, for requests that left the browser before it had the new cookie. The number of renewals that are
//! known is bounded.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

/// For how long what came of a renewal is known.
const KNOWN: Duration = Duration::from_secs(60);
/// How many are known at most.
const MOST: usize = 10_000;

/// By what a renewal is known: a hash of what it renews.
pub(super) type Key = [u8; 32];

/// What somebody waits for.
pub(super) type Waits<T> = watch::Receiver<Option<Arc<T>>>;

/// Renewals under way, and those that ended lately.
#[derive(Debug)]
pub(super) struct Flights<T> {
    all: Mutex<HashMap<Key, Flight<T>>>,
}

#[derive(Debug)]
struct Flight<T> {
    outcome: Waits<T>,
    begun: Instant,
}

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self { all: Mutex::default() }
    }
}

impl<T> Flights<T> {
    /// Joins the renewal of this name, or has one begun by `begin`, which gets what it tells its outcome to. `stale` says of an
    /// outcome of this age whether it is worth another try. None where too many are known.
    pub(super) fn join(
        &self,
        key: Key,
        now: Instant,
        stale: impl Fn(&T, Duration) -> bool,
        begin: impl FnOnce(watch::Sender<Option<Arc<T>>>),
    ) -> Option<Waits<T>> {
        let mut all = self.all.lock();
        if let Some(flight) = all.get(&key) {
            let age = now.saturating_duration_since(flight.begun);
            let lost = flight.outcome.has_changed().is_err() && flight.outcome.borrow().is_none();
            let over = lost || flight.outcome.borrow().as_ref().is_some_and(|outcome| stale(outcome, age));
            if !over {
                return Some(flight.outcome.clone());
            }
        }
        if all.len() >= MOST {
            all.retain(|_, flight| now.saturating_duration_since(flight.begun) < KNOWN);
            if all.len() >= MOST {
                return None;
            }
        }
        let (tell, outcome) = watch::channel(None);
        all.insert(key, Flight { outcome: outcome.clone(), begun: now });
        drop(all);
        begin(tell);
        Some(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a moment to count from")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn those_who_come_together_have_one_renewal_and_those_who_come_late_its_outcome() {
        let (flights, now, never) = (Flights::<u32>::default(), start(), |_: &u32, _: Duration| false);
        let mut begun = Vec::new();
        let first = flights.join([1; 32], now, never, |tell| begun.push(tell)).unwrap();
        let second = flights.join([1; 32], now, never, |_| panic!("there is one under way")).unwrap();
        assert!(first.borrow().is_none());
        begun[0].send_replace(Some(Arc::new(7)));
        let late = flights.join([1; 32], now + Duration::from_secs(30), never, |_| panic!("it is known")).unwrap();
        for outcome in [first, second, late] {
            assert_eq!(outcome.borrow().as_deref(), Some(&7));
        }
        let mut another = false;
        flights.join([2; 32], now, never, |_| another = true).unwrap();
        assert!(another);
    }

    #[test]
    fn what_failed_or_was_lost_is_tried_again() {
        let (flights, now, never) = (Flights::<u32>::default(), start(), |_: &u32, _: Duration| false);
        let mut count = 0;
        let old = |_: &u32, age: Duration| age >= Duration::from_secs(5);
        for (after, begun) in [(0, 1), (4, 1), (5, 2), (9, 2), (10, 3)] {
            let begin = |tell: watch::Sender<_>| {
                count += 1;
                tell.send_replace(Some(Arc::new(0)));
            };
            flights.join([1; 32], now + Duration::from_secs(after), old, begin).unwrap();
            assert_eq!(count, begun, "after {after} s");
        }
        flights.join([2; 32], now, never, drop).unwrap();
        let mut again = false;
        flights.join([2; 32], now, never, |_| again = true).unwrap();
        assert!(again, "who would have told the outcome is gone");
    }

    #[test]
    fn no_more_are_known_than_may_be() {
        let (flights, now, never) = (Flights::<u32>::default(), start(), |_: &u32, _: Duration| false);
        let key = |number: usize| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_le_bytes());
            key
        };
        let mut told = Vec::new();
        for number in 0..MOST {
            flights.join(key(number), now, never, |tell| told.push(tell)).unwrap();
        }
        assert!(flights.join(key(MOST), now, never, |_| panic!("too many")).is_none());
        assert!(flights.join(key(MOST), now + KNOWN, never, |_| {}).is_some());
        assert_eq!(flights.all.lock().len(), 1);
    }
}
