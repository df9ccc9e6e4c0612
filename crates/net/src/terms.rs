//! What holds for the connections of a listener. It may change while the listener accepts: whoever comes later meets the new
//! terms, and whoever is there already stays under those that it was accepted by, or has to come again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::accept::Front;
use crate::drain::Drain;

/// The terms of one listener, on all workers.
#[derive(Debug)]
pub struct Desk {
    in_force: ArcSwap<Terms>,
    /// Those before, for as long as a connection is under them.
    before: Mutex<Vec<Weak<Terms>>>,
    accepting: AtomicUsize,
}

/// What holds for connections that were accepted while it was in force.
#[derive(Debug)]
pub(crate) struct Terms {
    pub(crate) front: Front,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// One for each worker that has had a connection under these terms, or more.
    drains: Vec<Weak<Drain>>,
    over: Option<Over>,
}

/// What becomes of those who are there when terms are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// They go after the exchange that they are in.
    Leaving,
    /// And nothing new is served to them: they have not met what is demanded now.
    Withdrawn,
}

impl Desk {
    /// These terms, to begin with.
    pub fn new(front: Front) -> Self {
        Self {
            in_force: ArcSwap::from_pointee(Terms::new(front)),
            before: Mutex::default(),
            accepting: AtomicUsize::new(0),
        }
    }

    /// What holds for connections that are accepted now.
    pub fn front(&self) -> Front {
        self.in_force.load().front.clone()
    }

    /// Puts other terms in force. `over` says what becomes of those who are under those before; nothing unless given.
    pub fn change(&self, front: Front, over: Option<Over>) {
        let old = self.in_force.swap(Arc::new(Terms::new(front)));
        let mut before = self.before.lock();
        before.retain(|terms| terms.strong_count() > 0);
        before.push(Arc::downgrade(&old));
        drop(old);
        if let Some(over) = over {
            before.iter().filter_map(Weak::upgrade).for_each(|terms| terms.end(over));
        }
    }

    /// All who are there go after the exchange that they are in.
    pub fn end(&self) {
        for terms in self.all() {
            terms.end(Over::Leaving);
        }
    }

    /// How many connections are open of those that were told to go.
    pub fn leaving(&self) -> usize {
        self.over().iter().map(|drain| drain.open()).sum()
    }

    /// Cuts those that were told to go and are there still. Answers how many.
    pub fn cut(&self) -> usize {
        self.over().iter().map(|drain| drain.cut()).sum()
    }

    /// How many sockets of it are open still.
    pub fn accepting(&self) -> usize {
        self.accepting.load(Ordering::Acquire)
    }

    /// Counts a socket for as long as the answer lives.
    pub(crate) fn accepts(self: &Arc<Self>) -> Accepts {
        self.accepting.fetch_add(1, Ordering::Relaxed);
        Accepts(Arc::clone(self))
    }

    /// The terms for a connection that is accepted now.
    pub(crate) fn terms(&self) -> Arc<Terms> {
        self.in_force.load_full()
    }

    fn all(&self) -> Vec<Arc<Terms>> {
        let before = self.before.lock();
        before.iter().filter_map(Weak::upgrade).chain([self.terms()]).collect()
    }

    fn over(&self) -> Vec<Arc<Drain>> {
        let mut drains = Vec::new();
        for terms in self.all() {
            let state = terms.state.lock();
            if state.over.is_some() {
                drains.extend(state.drains.iter().filter_map(Weak::upgrade));
            }
        }
        drains
    }
}

impl Terms {
    fn new(front: Front) -> Self {
        Self { front, state: Mutex::default() }
    }

    /// The part of a worker's drain for connections under these terms.
    pub(crate) fn branch_of(self: &Arc<Self>, trunk: &Arc<Drain>) -> Arc<Drain> {
        let branch = trunk.branch(self);
        let mut state = self.state.lock();
        state.drains.retain(|drain| drain.strong_count() > 0);
        state.drains.push(Arc::downgrade(&branch));
        if let Some(over) = state.over {
            branch.end(over);
        }
        branch
    }

    fn end(&self, over: Over) {
        let mut state = self.state.lock();
        // Who may not ask any more does not come to do so again.
        if state.over != Some(Over::Withdrawn) {
            state.over = Some(over);
        }
        state.drains.iter().filter_map(Weak::upgrade).for_each(|drain| drain.end(over));
    }
}

/// A listening socket.
pub(crate) struct Accepts(Arc<Desk>);

impl Drop for Accepts {
    fn drop(&mut self) {
        self.0.accepting.fetch_sub(1, Ordering::Release);
    }
}
