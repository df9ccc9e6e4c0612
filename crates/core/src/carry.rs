//! Living state that outlives a snapshot: a typed, weak map by name and by what defines the thing.
//!
//! A snapshot that is compiled asks here first; what an older snapshot still holds under the same key is shared, so a
//! reload that does not touch an upstream keeps its pool. Nothing is kept alive by being listed here.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// The state handed from one snapshot to the next.
#[derive(Debug, Default)]
pub struct Carry {
    kept: Mutex<Kept>,
}

type Key = (TypeId, String);

#[derive(Debug, Default)]
struct Kept {
    things: HashMap<Key, Weak<dyn Any + Send + Sync>>,
    /// At this size the dead are swept out, so that sweeping costs little for each that is added.
    sweep_at: usize,
}

impl Carry {
    /// The living `T` under `key`, or a new one. `key` names the thing and everything that defines it.
    pub fn keep<T: Send + Sync + 'static>(&self, key: impl Into<String>, make: impl FnOnce() -> T) -> Arc<T> {
        let mut kept = self.kept.lock();
        let key = (TypeId::of::<T>(), key.into());
        kept.living(&key).unwrap_or_else(|| {
            let new = Arc::new(make());
            kept.hold(key, &new);
            new
        })
    }

    /// The living `T` under `key`, for what cannot be made under the lock or may fail to be made.
    pub fn living<T: Send + Sync + 'static>(&self, key: &str) -> Option<Arc<T>> {
        self.kept.lock().living(&(TypeId::of::<T>(), key.to_owned()))
    }

    /// Lists `thing` under `key` for as long as it lives.
    pub fn hold<T: Send + Sync + 'static>(&self, key: impl Into<String>, thing: &Arc<T>) {
        self.kept.lock().hold((TypeId::of::<T>(), key.into()), thing);
    }
}

impl Kept {
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
        assert!(carry.kept.lock().things.len() <= 128);
        assert!(carry.living::<u32>("x").is_some());
    }
}
