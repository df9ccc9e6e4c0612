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
    kept: Mutex<HashMap<(TypeId, String), Weak<dyn Any + Send + Sync>>>,
}

impl Carry {
    /// The living `T` under `key`, or a new one. `key` names the thing and everything that defines it.
    pub fn keep<T: Send + Sync + 'static>(&self, key: impl Into<String>, make: impl FnOnce() -> T) -> Arc<T> {
        let mut kept = self.kept.lock();
        kept.retain(|_, weak| weak.strong_count() > 0);
        let key = (TypeId::of::<T>(), key.into());
        let living = kept.get(&key).and_then(Weak::upgrade).and_then(|any| any.downcast::<T>().ok());
        living.unwrap_or_else(|| {
            let new = Arc::new(make());
            let weak: Weak<dyn Any + Send + Sync> = Arc::downgrade(&(Arc::clone(&new) as Arc<dyn Any + Send + Sync>));
            kept.insert(key, weak);
            new
        })
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
}
