//! What is known of something that is looked up again and again: the last good answer, its age, and the last error.
//!
//! Pure: the time is an argument. Whoever waits for news is woken by a change of what was found, and by the first answer.

use std::time::{Duration, Instant};

use pylon_observe::insight::SourceReading;
use tokio::sync::watch;

/// The most that one source may name. What names more is taken for a mistake.
pub(crate) const MOST: usize = 10_000;

/// What is known at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Known<T> {
    /// Sorted, each once.
    pub(crate) found: Vec<T>,
    /// When `found` was last confirmed.
    pub(crate) at: Option<Instant>,
    /// Why the last attempt failed, or which part of the last answer is of no use.
    pub(crate) error: Option<String>,
    /// Whether `found` is that of an earlier answer, since the last attempt brought none.
    pub(crate) stale: bool,
    /// Whether there has been an answer at all, good or bad.
    pub(crate) asked: bool,
    /// How many attempts have failed.
    pub(crate) failures: u64,
}

/// Keeps what is known.
#[derive(Debug)]
pub(crate) struct Ledger<T> {
    known: watch::Sender<Known<T>>,
    /// For how long the last good answer is used while no other comes; none where it is used until one does.
    keep: Option<Duration>,
}

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self { found: Vec::new(), at: None, error: None, stale: false, asked: false, failures: 0 }
    }
}

impl<T> Known<T> {
    /// In figures, of a source of this kind that looks for `name`.
    pub(crate) fn reading(&self, source: &'static str, name: String, now: Instant) -> SourceReading {
        let age = self.at.map(|at| now.saturating_duration_since(at));
        SourceReading { source, name, endpoints: self.found.len() as u64, age, failures: self.failures }
    }
}

impl<T: Ord + Clone> Ledger<T> {
    pub(crate) fn new(keep: Option<Duration>) -> Self {
        Self { known: watch::Sender::new(Known::default()), keep }
    }

    /// Everything that is known.
    pub(crate) fn known(&self) -> Known<T> {
        self.known.borrow().clone()
    }

    /// What was found last.
    pub(crate) fn found(&self) -> Vec<T> {
        self.known.borrow().found.clone()
    }

    /// Wakes those who wait for news.
    pub(crate) fn watch(&self) -> watch::Receiver<Known<T>> {
        self.known.subscribe()
    }

    /// Wakes all who wait, though nothing changed here.
    pub(crate) fn poke(&self) {
        self.known.send_modify(|_| ());
    }

    /// Takes in a good answer; `trouble` names what in it was of no use.
    pub(crate) fn learn(&self, mut found: Vec<T>, trouble: Option<String>, now: Instant) {
        found.sort_unstable();
        found.dedup();
        if found.len() > MOST {
            return self
                .fail(format!("{} endpoints are more than the {MOST} that an upstream may have", found.len()), now);
        }
        self.known.send_if_modified(|known| {
            let news = known.found != found || !known.asked;
            let failures = known.failures;
            *known = Known { found, at: Some(now), error: trouble, stale: false, asked: true, failures };
            news
        });
    }

    /// The last good answer still holds.
    pub(crate) fn confirm(&self, now: Instant) {
        self.known.send_if_modified(|known| {
            if known.at.is_some() {
                known.at = Some(now);
                if std::mem::take(&mut known.stale) {
                    known.error = None;
                }
            }
            false
        });
    }

    /// Takes in a failure. What was found last goes once it is too old.
    pub(crate) fn fail(&self, error: String, now: Instant) {
        self.known.send_if_modified(|known| {
            let mut news = !known.asked;
            known.asked = true;
            known.error = Some(error);
            known.stale = true;
            known.failures = known.failures.saturating_add(1);
            let age = known.at.map(|at| now.saturating_duration_since(at));
            if self.keep.is_some_and(|keep| age.is_some_and(|age| age > keep)) {
                news |= !known.found.is_empty();
                known.found.clear();
            }
            news
        });
    }
}

/// How long to wait after failures in a row: doubled each time, up to a limit, and a tenth more or less by lot.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    last: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(first: Duration, last: Duration) -> Self {
        Self { first, last, failures: 0 }
    }

    /// Something went well.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Something failed: how long to wait. `lot` is from 0 to 1.
    pub(crate) fn next(&mut self, lot: f64) -> Duration {
        let wait = self.first.saturating_mul(1_u32 << self.failures.min(16)).min(self.last);
        self.failures = self.failures.saturating_add(1);
        wait.mul_f64(0.9 + 0.2 * lot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    #[test]
    fn the_last_good_answer_outlives_failures_for_as_long_as_is_written() {
        let (ledger, start) = (Ledger::new(Some(Duration::from_secs(10))), start());
        ledger.learn(vec![2, 1, 2], None, start);
        ledger.fail("away".to_owned(), start + Duration::from_secs(10));
        let known = ledger.known();
        assert_eq!((known.found, known.stale, known.at), (vec![1, 2], true, Some(start)));
        ledger.fail("away".to_owned(), start + Duration::from_secs(11));
        assert!(ledger.found().is_empty());
        let forever = Ledger::new(None);
        forever.learn(vec![1], None, start);
        forever.fail("away".to_owned(), start + Duration::from_secs(1_000_000));
        assert_eq!(forever.found(), [1]);
    }

    #[test]
    fn only_what_changes_is_news() {
        let (ledger, start) = (Ledger::new(None), start());
        let mut news = ledger.watch();
        let mut is_news = || {
            let changed = news.has_changed().unwrap();
            news.mark_unchanged();
            changed
        };
        ledger.fail("not there yet".to_owned(), start);
        assert!(is_news(), "the first answer, though bad, ends the wait for it");
        ledger.fail("not there yet".to_owned(), start);
        assert!(!is_news());
        ledger.learn(vec![1], None, start);
        assert!(is_news());
        ledger.learn(vec![1], Some("half of it is of no use".to_owned()), start);
        ledger.confirm(start);
        assert!(!is_news());
        assert_eq!((ledger.known().failures, ledger.known().stale), (2, false));
        assert!(ledger.known().error.is_some(), "what was of no use is still so");
    }

    #[test]
    fn an_answer_with_far_too_much_in_it_is_a_mistake() {
        let (ledger, start) = (Ledger::new(None), start());
        ledger.learn(vec![1], None, start);
        ledger.learn((0..=MOST).collect(), None, start);
        assert_eq!((ledger.found(), ledger.known().stale), (vec![1], true));
    }

    #[test]
    fn waits_double_up_to_a_limit_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(3));
        let waits: Vec<_> = (0..4).map(|_| backoff.next(0.5).as_millis()).collect();
        assert_eq!(waits, [1000, 2000, 3000, 3000]);
        backoff.reset();
        assert_eq!((backoff.next(0.0).as_millis(), backoff.next(1.0).as_millis()), (900, 2200));
    }
}
