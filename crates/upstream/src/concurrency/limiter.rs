//! The limit of one upstream, for all workers: who may go on, who waits, who is refused. Time is an argument.
//!
//! Who comes while there is room writes one word and takes no lock. The lock of the queue is taken by whoever finds no room, and
//! by whoever leaves while somebody waits: he hands his place over.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::time::Instant;

use parking_lot::Mutex;
use pylon_core::priority::Priority;
use tokio::sync::oneshot;

use super::gradient::{Bounds, Gradient, Window};
use super::line::{Joined, Line, Ticket, Waits};
use super::permit::{Gate, Permit};
use super::shares::{self, About, cap};
use super::word::Word;
use crate::error::Shed;

/// What a document says of the limit: exactly one of `limit` and `bounds`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    pub(crate) limit: Option<u32>,
    pub(crate) bounds: Option<Bounds>,
    pub(crate) waits: Waits,
}

/// What somebody who waits is told.
pub(crate) type Verdict = Result<Permit, Shed>;

/// The limit of one upstream.
#[derive(Debug)]
pub(crate) struct Limiter {
    beginning: Instant,
    shared: Shared,
    queue: Mutex<Queue>,
    found: Mutex<Option<Gradient>>,
    /// Those refused, by class.
    shed: [AtomicU64; Priority::ALL.len()],
}

/// What each request looks at, on a cache line of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Shared {
    word: Word,
    limit: AtomicU32,
    about: AtomicU64,
}

#[derive(Debug)]
struct Queue {
    line: Line<Waiter>,
    waits: Waits,
}

/// Somebody who waits.
#[derive(Debug)]
struct Waiter {
    gate: Arc<Gate>,
    tell: oneshot::Sender<Verdict>,
}

/// What became of somebody who found no room.
#[derive(Debug)]
pub(crate) enum Turn {
    /// There was room after all.
    Now(Permit),
    /// He waits until this instant at the most.
    Wait(Ticket, Instant, oneshot::Receiver<Verdict>),
    /// He is refused.
    Shed(Shed),
}

/// What is to be told once the lock is given back: a permit that nobody takes comes back here.
type News = Vec<(oneshot::Sender<Verdict>, Verdict)>;

impl Limiter {
    pub(crate) fn new(settings: &Settings, beginning: Instant) -> Self {
        let found = settings.bounds.map(|bounds| Gradient::new(bounds, beginning));
        let limit = found.as_ref().map_or(settings.limit.unwrap_or(u32::MAX), Gradient::limit);
        Self {
            beginning,
            shared: Shared { word: Word::default(), limit: AtomicU32::new(limit), about: AtomicU64::new(0) },
            queue: Mutex::new(Queue { line: Line::default(), waits: settings.waits }),
            found: Mutex::new(found),
            shed: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Takes up what another document says. What was found out stays, as far as it allows.
    pub(crate) fn set(&self, settings: &Settings, now: Instant) {
        let limit = {
            let mut found = self.found.lock();
            *found = settings.bounds.map(|bounds| match found.take() {
                Some(known) => known.within(bounds),
                None => Gradient::new(bounds, now),
            });
            found.as_ref().map_or(settings.limit.unwrap_or(u32::MAX), Gradient::limit)
        };
        self.queue.lock().waits = settings.waits;
        self.allow(limit, now);
    }

    /// Whether one of `class` may go on at once.
    pub(crate) fn enter(&self, class: Priority, now: Instant) -> bool {
        self.note(class, now);
        self.shared.word.enter(self.cap(class))
    }

    /// What becomes of one who may not go on at once; `caller` is the hash of who sent it, `deadline` when he needs nothing any more.
    pub(crate) fn queue(
        &self,
        gate: &Arc<Gate>,
        class: Priority,
        caller: u64,
        now: Instant,
        deadline: Option<Instant>,
    ) -> Turn {
        let (tell, told) = oneshot::channel();
        let mut queue = self.queue.lock();
        let until = deadline.map_or(now + queue.waits.wait, |at| at.min(now + queue.waits.wait));
        while !self.shared.word.waits(self.cap(class)) {
            // Somebody left meanwhile.
            if self.shared.word.enter(self.cap(class)) {
                return Turn::Now(Permit::new(gate));
            }
        }
        let most = queue.waits.most;
        let joined = queue.line.join(class, caller, until, most, Waiter { gate: Arc::clone(gate), tell });
        let (ticket, yields) = match joined {
            Joined::Full(_) => {
                self.shared.word.wait_no_longer(1);
                return self.refuse(class, Shed::Full);
            }
            Joined::Room(ticket) => (ticket, None),
            Joined::Instead(ticket, lower, waiter) => {
                self.shared.word.wait_no_longer(1);
                (ticket, Some((lower, waiter)))
            }
        };
        drop(queue);
        if let Some((lower, waiter)) = yields {
            self.count(lower);
            let _gone = waiter.tell.send(Err(Shed::Full));
        }
        Turn::Wait(ticket, until, told)
    }

    /// Somebody waits no longer; `late` where that is since his time is over, and not since he is gone.
    pub(crate) fn give_up(&self, class: Priority, ticket: Ticket, late: bool) {
        let waiter = {
            let mut queue = self.queue.lock();
            let waiter = queue.line.leave(ticket);
            if waiter.is_some() {
                self.shared.word.wait_no_longer(1);
            }
            waiter
        };
        if waiter.is_some() && late {
            self.count(class);
        }
    }

    /// One has left; his place goes to the next one. `now` is asked for where somebody waits.
    pub(crate) fn leave(&self, now: impl FnOnce() -> Instant) {
        if self.shared.word.leave() {
            return;
        }
        let now = now();
        let mut news = News::new();
        {
            let mut queue = self.queue.lock();
            // The place is still taken: whose cap is above what is left without it may have it.
            let rest = self.shared.word.under_way().saturating_sub(1);
            if !self.next(&mut queue.line, now, |class| rest < self.cap(class), &mut news) {
                self.shared.word.left();
            }
            self.fill(&mut queue.line, now, &mut news);
        }
        tell(news);
    }

    /// From now on so many may be under way.
    fn allow(&self, limit: u32, now: Instant) {
        let before = self.shared.limit.swap(limit, SeqCst);
        if limit <= before || self.shared.word.waiting() == 0 {
            return;
        }
        let mut news = News::new();
        self.fill(&mut self.queue.lock().line, now, &mut news);
        tell(news);
    }

    /// What has been heard of the service since the last time; for each tick. Does nothing where the limit is written.
    pub(crate) fn tick(&self, now: Instant, window: &mut Window) {
        let limit = {
            let mut found = self.found.lock();
            let Some(gradient) = &mut *found else { return };
            window.under_way = self.shared.word.under_way();
            gradient.tick(now, window)
        };
        self.allow(limit, now);
    }

    /// Whether the limit is found out.
    pub(crate) fn is_adaptive(&self) -> bool {
        self.found.lock().is_some()
    }

    /// How long the service takes when it is idle, in seconds, where that is known.
    pub(crate) fn baseline(&self) -> Option<f64> {
        self.found.lock().as_ref().and_then(Gradient::baseline)
    }

    pub(crate) fn limit(&self) -> u32 {
        self.shared.limit.load(Relaxed)
    }

    pub(crate) fn under_way(&self) -> u32 {
        self.shared.word.under_way()
    }

    /// How many wait, and how many were refused, the least class first.
    pub(crate) fn by_class(&self) -> ([usize; Priority::ALL.len()], [u64; Priority::ALL.len()]) {
        let waiting = self.queue.lock().line.waiting();
        (waiting, self.shed.each_ref().map(|count| count.load(Relaxed)))
    }

    /// Gives places to those who wait, while there are any.
    fn fill(&self, line: &mut Line<Waiter>, now: Instant, news: &mut News) {
        for class in Priority::ALL.into_iter().rev() {
            while line.waiting().get(class as usize).is_some_and(|many| *many > 0)
                && self.shared.word.enter(self.cap(class))
            {
                if !self.next(line, now, |other| other >= class, news) {
                    self.shared.word.left();
                }
            }
        }
    }

    /// Gives a place that is taken already to the next one who may have it. Whether there was one.
    fn next(&self, line: &mut Line<Waiter>, now: Instant, may: impl Fn(Priority) -> bool, news: &mut News) -> bool {
        let mut late = Vec::new();
        let next = line.next(now, may, &mut late);
        self.shared.word.wait_no_longer(late.len() + usize::from(next.is_some()));
        for (class, waiter) in late {
            self.count(class);
            news.push((waiter.tell, Err(Shed::Late)));
        }
        let Some((_, Waiter { gate, tell })) = next else { return false };
        news.push((tell, Ok(Permit::of(gate))));
        true
    }

    /// How many may be under way so that one more of `class` may come.
    pub(crate) fn cap(&self, class: Priority) -> u32 {
        cap(self.shared.limit.load(Relaxed), class, About::from_word(self.shared.about.load(Relaxed)))
    }

    /// One of `class` is about. Writes once in ten seconds for each class.
    fn note(&self, class: Priority, now: Instant) {
        let passed = shares::passed(self.beginning, now);
        let _unchanged = self
            .shared
            .about
            .fetch_update(Relaxed, Relaxed, |word| About::from_word(word).seen(class, passed).map(About::word));
    }

    fn refuse(&self, class: Priority, why: Shed) -> Turn {
        self.count(class);
        Turn::Shed(why)
    }

    fn count(&self, class: Priority) {
        if let Some(count) = self.shed.get(class as usize) {
            count.fetch_add(1, Relaxed);
        }
    }
}

/// Tells those who waited. Without the lock: a permit that nobody takes gives its place back at once.
fn tell(news: News) {
    for (tell, verdict) in news {
        let _gone = tell.send(verdict);
    }
}

#[cfg(test)]
mod tests;
