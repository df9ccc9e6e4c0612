//! A breaker as the process holds it: one word that all workers read, and behind a lock what is needed only where calls fail.
//!
//! A worker that lets a call pass loads the word. Probes are taken and given back by compare-and-swap. The state changes under
//! the lock but for one step, from open to half open, which the first probe makes. The lock is held for a few hundred
//! instructions, by whoever has a failure or the end of a probe to tell.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed},
};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pylon_core::worker;
use pylon_observe::breakers::BreakerState;
use pylon_observe::upstream::UpstreamSeries;

use super::judge::{BUCKETS, Call, Good, Judge, Limits, Why};
use super::spec::Scope;
use super::view::BreakerView;
use super::word::{Admission, Force, Phase, Word};
use crate::standing::{Bar, Standing};

/// Whose breaker it is.
#[derive(Debug, Clone)]
pub(crate) struct Whose {
    pub(crate) upstream: Arc<str>,
    pub(crate) scope: Scope,
    /// The endpoint or the route; empty where it is the upstream's own.
    pub(crate) name: Arc<str>,
}

/// A breaker. It outlives snapshots through `Carry`, and is each world's own.
#[derive(Debug)]
pub(crate) struct State {
    /// On a line of its own: all workers read it, few events write it.
    word: Apart<AtomicU64>,
    /// When the open time is over, in milliseconds since `born`. Written before the word says that it is open.
    until: AtomicU64,
    born: Instant,
    inner: Mutex<Inner>,
    whose: Whose,
    series: OnceLock<Arc<UpstreamSeries>>,
}

#[derive(Debug)]
#[repr(align(128))]
struct Apart<T>(T);

#[derive(Debug)]
struct Inner {
    judge: Judge,
    tallies: Arc<Tallies>,
    /// Of the present state: why, and when it began, in milliseconds since `born`.
    why: Option<Why>,
    since: u64,
    opened: u64,
}

/// A change of state, for the log.
#[derive(Debug)]
struct Turn {
    from: BreakerState,
    to: BreakerState,
    ordered: bool,
    why: Why,
}

/// Good calls, by worker and bucket.
#[derive(Debug)]
pub(crate) struct Tallies {
    /// The length of a bucket, in milliseconds.
    bucket: u64,
    workers: Box<[Apart<[AtomicU64; BUCKETS]>]>,
}

impl Tallies {
    fn new(bucket: u64) -> Self {
        let one = |_| Apart(std::array::from_fn(|_| AtomicU64::new(0)));
        Self { bucket, workers: (0..=worker::count()).map(one).collect() }
    }

    /// A call of the bucket `at` went well, by the worker whose place is `mine`.
    pub(super) fn good(&self, mine: usize, at: u32) {
        let Some(place) = self.workers.get(mine).and_then(|own| own.0.get(at as usize % BUCKETS)) else { return };
        // Nobody else writes here, but the threads that are no worker, who share a place and lose a call at the worst.
        if let Some(next) = Good(place.load(Relaxed)).and_one(at) {
            place.store(next.0, Relaxed);
        }
    }

    fn all(&self) -> impl Iterator<Item = Good> {
        self.workers.iter().flat_map(|own| &own.0).map(|place| Good(place.load(Relaxed)))
    }
}

impl State {
    pub(crate) fn new(whose: Whose, now: Instant) -> Self {
        Self {
            word: Apart(AtomicU64::new(Word::NEW.bits())),
            until: AtomicU64::new(0),
            born: now,
            inner: Mutex::new(Inner {
                judge: Judge::default(),
                tallies: Arc::new(Tallies::new(0)),
                why: None,
                since: 0,
                opened: 0,
            }),
            whose,
            series: OnceLock::new(),
        }
    }

    /// Counts what happens here in `series`.
    pub(crate) fn counted_in(&self, series: Option<&Arc<UpstreamSeries>>) {
        if let Some(series) = series {
            self.series.get_or_init(|| {
                series.breakers.appeared(self.whose.scope.counted());
                Arc::clone(series)
            });
        }
    }

    /// Where good calls are counted in buckets of this length. Where another length was in use, what was counted is forgotten.
    pub(crate) fn tallies(&self, bucket: u64) -> Arc<Tallies> {
        let mut inner = self.inner.lock();
        if inner.tallies.bucket != bucket {
            inner.tallies = Arc::new(Tallies::new(bucket));
            inner.judge.forget();
        }
        Arc::clone(&inner.tallies)
    }

    pub(crate) fn scope(&self) -> Scope {
        self.whose.scope
    }

    /// Whether it is that of the endpoint or the route with this name.
    pub(crate) fn is_named(&self, name: &str) -> bool {
        *self.whose.name == *name
    }

    pub(crate) fn word(&self) -> Word {
        Word::from_bits(self.word.0.load(Acquire))
    }

    /// Whether a call may pass; the epoch of the probe that it then is, where it is one. Else in how long to ask again.
    pub(crate) fn admit(&self, now: Instant, probes: u8) -> Result<Option<u32>, Option<Duration>> {
        let mut word = self.word();
        loop {
            match word.admit(|| self.millis(now) >= self.until.load(Relaxed), probes) {
                Admission::Free => return Ok(None),
                Admission::Refused => return Err(self.opens_in(word, now)),
                Admission::Probe(next) => match self.swap(word, next) {
                    Ok(()) => {
                        if word.phase() == Phase::Open {
                            let turn = self.changed(&mut self.inner.lock(), word, next, Why::Due, now);
                            self.log(Some(&turn));
                        }
                        return Ok(Some(next.epoch()));
                    }
                    Err(other) => word = other,
                },
            }
        }
    }

    /// A call that was no probe went badly.
    pub(super) fn bad(
        &self,
        call: Call,
        (now, bucket): (Instant, u32),
        tallies: &Arc<Tallies>,
        limits: &Limits,
        standing: Option<&Standing>,
    ) {
        if !self.word().judges() {
            return;
        }
        let mut inner = self.inner.lock();
        // Somebody with a document of before, whose buckets have another length, is not heard any more.
        if !Arc::ptr_eq(&inner.tallies, tallies) || !self.word().judges() {
            return;
        }
        let Some(why) = inner.judge.bad(call, bucket, tallies.all(), limits) else { return };
        let turn = self.open(&mut inner, Word::tripped, why, now, limits);
        self.bar(standing);
        drop(inner);
        self.log(turn.as_ref());
    }

    /// A probe of `epoch` went so.
    pub(super) fn probed(
        &self,
        epoch: u32,
        call: Call,
        (now, bucket): (Instant, u32),
        limits: &Limits,
        standing: Option<&Standing>,
    ) {
        let mut inner = self.inner.lock();
        let turn = if call.is_good() {
            let step = self.change(|word| word.passed_one(epoch, limits.probes));
            step.filter(|(_, after)| after.phase() == Phase::Closed).map(|(before, after)| {
                let tallies = Arc::clone(&inner.tallies);
                inner.judge.closes(bucket, tallies.all());
                self.changed(&mut inner, before, after, Why::Recovered(limits.probes), now)
            })
        } else if self.word().failed_one(epoch).is_some() {
            // Asked first, since the open time is set before the word changes; it stays true while the lock is held.
            self.open(&mut inner, |word| word.failed_one(epoch), Why::ProbeFailed(call), now, limits)
        } else {
            None
        };
        self.bar(standing);
        drop(inner);
        self.log(turn.as_ref());
    }

    /// A probe of `epoch` ended without telling anything.
    pub(super) fn give_back(&self, epoch: u32) {
        self.change(|word| word.given_back(epoch));
    }

    /// Puts it under an order, or under none. It begins anew.
    pub(crate) fn force(&self, force: Force, now: Instant, standing: Option<&Standing>) {
        let mut inner = self.inner.lock();
        let before = self.word();
        if before.force() == force && force != Force::Auto {
            return;
        }
        let turn = self.change(|word| Some(word.forced(force))).map(|(before, after)| {
            let tallies = Arc::clone(&inner.tallies);
            inner.judge.closes(self.bucket(now, tallies.bucket), tallies.all());
            self.changed(&mut inner, before, after, Why::Ordered, now)
        });
        self.bar(standing);
        drop(inner);
        self.log(turn.as_ref());
    }

    /// In how long it lets a probe through; none where nobody knows.
    pub(crate) fn opens_in(&self, word: Word, now: Instant) -> Option<Duration> {
        match (word.force(), word.phase()) {
            (Force::Auto, Phase::Open) => {
                Some(Duration::from_millis(self.until.load(Relaxed).saturating_sub(self.millis(now))))
            }
            // The probes that are under way will tell.
            (Force::Auto, _) => Some(Duration::ZERO),
            _ => None,
        }
    }

    pub(crate) fn bucket(&self, at: Instant, length: u64) -> u32 {
        // Wraps after years at the shortest length: what is older than a window is of no interest by then.
        (self.millis(at) / length.max(1)) as u32
    }

    pub(crate) fn view(&self, now: Instant) -> BreakerView {
        let inner = self.inner.lock();
        let word = self.word();
        let bucket = self.bucket(now, inner.tallies.bucket);
        let window = inner.judge.window(bucket, inner.tallies.all());
        BreakerView::new(
            &self.whose,
            word,
            (inner.why.as_ref(), Duration::from_millis(self.millis(now).saturating_sub(inner.since))),
            window,
            (inner.opened, self.opens_in(word, now)),
        )
    }

    fn open(
        &self,
        inner: &mut Inner,
        step: impl Fn(Word) -> Option<Word>,
        why: Why,
        now: Instant,
        limits: &Limits,
    ) -> Option<Turn> {
        let span = inner.judge.opens(limits, fastrand::u64(..));
        let until = self.millis(now).saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
        self.until.store(until, Relaxed);
        let (before, after) = self.change(step)?;
        inner.opened = inner.opened.saturating_add(1);
        Some(self.changed(inner, before, after, why, now))
    }

    /// Lays or lifts the bar of an endpoint by what the word says now. Under the lock, so that the last one is right.
    fn bar(&self, standing: Option<&Standing>) {
        if let Some(standing) = standing {
            standing.bar(Bar::Open, !self.word().is_free());
        }
    }

    /// Takes a step from whatever the word is; says from which to which, if it was taken.
    fn change(&self, step: impl Fn(Word) -> Option<Word>) -> Option<(Word, Word)> {
        let mut word = self.word();
        loop {
            let next = step(word)?;
            match self.swap(word, next) {
                Ok(()) => return Some((word, next)),
                Err(other) => word = other,
            }
        }
    }

    fn swap(&self, word: Word, next: Word) -> Result<(), Word> {
        let swapped = self.word.0.compare_exchange(word.bits(), next.bits(), AcqRel, Acquire);
        swapped.map(|_| ()).map_err(Word::from_bits)
    }

    fn changed(&self, inner: &mut Inner, before: Word, after: Word, why: Why, now: Instant) -> Turn {
        (inner.why, inner.since) = (Some(why), self.millis(now));
        let (from, to) = (shown(before), shown(after));
        if let Some(series) = self.series.get() {
            series.breakers.changed(self.whose.scope.counted(), from, to);
        }
        Turn { from, to, ordered: after.force() != Force::Auto, why }
    }

    /// Not under the lock: whoever takes the log may be slow.
    fn log(&self, turn: Option<&Turn>) {
        let Some(Turn { from, to, ordered, why }) = turn else { return };
        let Whose { upstream, scope, name } = &self.whose;
        let (name, scope, from, state) = (&**name, scope.as_str(), from.as_str(), to.as_str());
        if *to == BreakerState::Open {
            tracing::warn!(%upstream, scope, name, from, state, ordered, %why, "a breaker opened");
        } else {
            tracing::info!(%upstream, scope, name, from, state, ordered, %why, "a breaker changed");
        }
    }

    fn millis(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.born);
        since.as_secs().saturating_mul(1000).saturating_add(u64::from(since.subsec_millis()))
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if let Some(series) = self.series.get() {
            series.breakers.gone(self.whose.scope.counted(), shown(self.word()));
        }
    }
}

/// The state as it is shown: what is ordered stands above what was found.
pub(super) fn shown(word: Word) -> BreakerState {
    match (word.force(), word.phase()) {
        (Force::Open, _) | (Force::Auto, Phase::Open) => BreakerState::Open,
        (Force::Closed, _) | (Force::Auto, Phase::Closed) => BreakerState::Closed,
        (Force::Auto, Phase::HalfOpen) => BreakerState::HalfOpen,
    }
}
