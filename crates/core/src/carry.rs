//! Living state that outlives a snapshot: a typed, weak map by name and by what defines the thing.
//!
//! A snapshot that is compiled asks here first; what an older snapshot still holds under the same key is shared, so a
//! reload that does not touch an upstream keeps its pool. Nothing is kept alive by being listed here.
//!
//! While a document is rolled out two are in force, and each kind of state says whose it is. What the gateway owes the
//! world outside is *shared* between the two: pools, resolved names, limits, quotas, sessions ([`Carry::keep`]). What judges a
//! service by what a document makes of it is each document's *own*: breakers, outliers, limits of concurrency, caches, and
//! the upstreams that hold them ([`Carry::own`]). Otherwise the candidate would harm the one that it is compared with.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// The state handed from one snapshot to the next.
///
/// A candidate is compiled with a [fork](Carry::fork). If it is promoted, the documents after it are compiled with that fork, and
/// find what the candidate has learned; if it is taken back, the fork is dropped, and with it all that was its own.
#[derive(Debug, Default)]
pub struct Carry {
    all: Arc<Mutex<Kept>>,
    /// Which of the worlds in force this is of.
    world: World,
}

/// Counted up by each fork.
type World = u64;

/// The type, the world that it belongs to alone, and the name.
type Key = (TypeId, Option<World>, String);

#[derive(Debug, Default)]
struct Kept {
    things: HashMap<Key, Weak<dyn Any + Send + Sync>>,
    /// At this size the dead are swept out, so that sweeping costs little for each that is added.
    sweep_at: usize,
    /// The last world there was.
    last: World,
}

impl Carry {
    /// The same state for a document that is tried beside the one in force: what is shared is found in both, what is
    /// [its own](Carry::own) it has yet to make.
    pub fn fork(&self) -> Self {
        let mut kept = self.all.lock();
        kept.last += 1;
        Self { all: Arc::clone(&self.all), world: kept.last }
    }

    /// What one world in force has for itself.
    pub fn own(&self) -> Own<'_> {
        Own(self)
    }

    /// The living `T` under `key`, or a new one, shared by all documents in force. `key` names the thing and everything that
    /// defines it.
    pub fn keep<T: Send + Sync + 'static>(&self, key: impl Into<String>, make: impl FnOnce() -> T) -> Arc<T> {
        self.all.lock().keep((TypeId::of::<T>(), None, key.into()), make)
    }

    /// The living `T` under `key`, for what cannot be made under the lock or may fail to be made.
    pub fn living<T: Send + Sync + 'static>(&self, key: &str) -> Option<Arc<T>> {
        self.all.lock().living(&(TypeId::of::<T>(), None, key.to_owned()))
    }

    /// Lists `thing` under `key` for as long as it lives.
    pub fn hold<T: Send + Sync + 'static>(&self, key: impl Into<String>, thing: &Arc<T>) {
        self.all.lock().hold((TypeId::of::<T>(), None, key.into()), thing);
    }
}

/// State that two documents in force do not share. It outlives reloads as the rest does.
#[derive(Debug, Clone, Copy)]
pub struct Own<'c>(&'c Carry);

impl Own<'_> {
    /// As [`Carry::keep`].
    pub fn keep<T: Send + Sync + 'static>(&self, key: impl Into<String>, make: impl FnOnce() -> T) -> Arc<T> {
        self.0.all.lock().keep(self.key::<T>(key), make)
    }

    /// As [`Carry::living`].
    pub fn living<T: Send + Sync + 'static>(&self, key: &str) -> Option<Arc<T>> {
        self.0.all.lock().living(&self.key::<T>(key))
    }

    /// As [`Carry::hold`].
    pub fn hold<T: Send + Sync + 'static>(&self, key: impl Into<String>, thing: &Arc<T>) {
        self.0.all.lock().hold(self.key::<T>(key), thing);
    }

    fn key<T: 'static>(self, key: impl Into<String>) -> Key {
        (TypeId::of::<T>(), Some(self.0.world), key.into())
    }
}

impl Kept {
    fn keep<T: Send + Sync + 'static>(&mut self, key: Key, make: impl FnOnce() -> T) -> Arc<T> {
        self.living(&key).unwrap_or_else(|| {
            let new = Arc::new(make());
            self.hold(key, &new);
            new
        })
    }

    fn living<T: Send + Sync + 'static>(&self, key: &Key) -> Option<Arc<T>> {
        self.things.get(key).and_then(Weak::upgrade).and_then(|any| any.downcast::<T>().ok())
    }

    fn hold<T: Send + Sync + 'static>(&mut self, key: Key, thing: &Arc<T>) {
        if self.things.len() >= self.sweep_at {
            self.things.retain(|_, weak| weak.strong_count() > 0);
            self.sweep_at = (self.things.len() * 2).max(64);
        }
        let weak: Weak<dyn Any + Send + Sync> = Arc::downgrade(&(Arc::clone(thing) as Arc<dyn Any + Send + Sync>));
        self.things.insert(key, weak);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_alive_is_shared_and_what_is_gone_is_made_anew() {
        let carry = Carry::default();
        let first = carry.keep("pool a", || 1_u32);
        assert!(Arc::ptr_eq(&first, &carry.keep("pool a", || 2)));
        assert_eq!(*carry.keep("pool b", || 3_u32), 3);
        drop(first);
        assert_eq!(*carry.keep("pool a", || 4_u32), 4);
    }

    #[test]
    fn the_same_key_holds_one_thing_of_each_type() {
        let carry = Carry::default();
        let number = carry.keep("x", || 1_u32);
        let text = carry.keep("x", || "one");
        assert_eq!((*number, *text), (1, "one"));
    }

    #[test]
    fn what_is_held_is_found_by_its_key_while_it_lives_and_the_dead_do_not_pile_up() {
        let carry = Carry::default();
        let thing = Arc::new(1_u32);
        carry.hold("x", &thing);
        assert!(carry.living::<u32>("x").is_some_and(|found| Arc::ptr_eq(&found, &thing)));
        assert!(carry.living::<u32>("y").is_none() && carry.living::<u64>("x").is_none());
        for n in 0..10_000 {
            drop(carry.keep(format!("gone {n}"), || n));
        }
        assert!(carry.all.lock().things.len() <= 128);
        assert!(carry.living::<u32>("x").is_some());
    }

    #[test]
    fn a_candidate_shares_what_is_shared_and_has_the_rest_for_itself() {
        let carry = Carry::default();
        let (pool, breaker) = (carry.keep("a", || "pool"), carry.own().keep("a", || "closed"));
        let fork = carry.fork();
        assert!(Arc::ptr_eq(&pool, &fork.keep("a", || "another pool")));
        assert!(fork.own().living::<&str>("a").is_none());
        let open = fork.own().keep("a", || "open");
        assert_eq!((*open, *carry.own().keep("a", || "half open"), *breaker), ("open", "closed", "closed"));
        // Nor do two candidates, one after the other, though the first may still have requests.
        assert!(carry.fork().own().living::<&str>("a").is_none());
        assert!(fork.fork().own().living::<&str>("a").is_none());
    }

    #[test]
    fn documents_after_a_promotion_find_what_the_candidate_has_learned_and_those_after_a_taking_back_do_not() {
        let carry = Carry::default();
        let stable = Arc::new(1_u32);
        carry.own().hold("a", &stable);
        let fork = carry.fork();
        let candidate = fork.own().keep("a", || 2_u32);
        let promoted = fork;
        assert!(Arc::ptr_eq(&candidate, &promoted.own().keep("a", || 3)));
        assert!(Arc::ptr_eq(&stable, &carry.own().keep("a", || 3)));
    }
}
