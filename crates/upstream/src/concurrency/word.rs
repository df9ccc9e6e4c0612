//! How many are under way and how many wait, in one atomic word, so that nobody who leaves overlooks one who waits.
//!
//! The lower half counts those under way, the upper half those who wait. The latter is written under the queue's lock alone.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed},
};

const ONE_WAITS: u64 = 1 << 32;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Word(AtomicU64);

impl Word {
    /// One more is under way, where there are fewer than `cap`.
    pub(crate) fn enter(&self, cap: u32) -> bool {
        self.update(|word| (under_way(word) < cap).then(|| word.saturating_add(1)))
    }

    /// One has left, where nobody waits; otherwise nothing has happened, and who waits must be looked at.
    pub(crate) fn leave(&self) -> bool {
        self.update(|word| (waiting(word) == 0).then(|| word.saturating_sub(1)))
    }

    /// One has left. Under the lock.
    pub(crate) fn left(&self) {
        self.0.fetch_sub(1, AcqRel);
    }

    /// One more waits, where as many as `cap` are under way; where there is room he is under way instead. Under the lock.
    pub(crate) fn waits(&self, cap: u32) -> bool {
        self.update(|word| (under_way(word) >= cap).then(|| word.saturating_add(ONE_WAITS)))
    }

    /// So many wait no longer. Under the lock.
    pub(crate) fn wait_no_longer(&self, many: usize) {
        self.0.fetch_sub(ONE_WAITS.saturating_mul(many as u64), AcqRel);
    }

    pub(crate) fn under_way(&self) -> u32 {
        under_way(self.0.load(Relaxed))
    }

    pub(crate) fn waiting(&self) -> u32 {
        waiting(self.0.load(Acquire))
    }

    fn update(&self, next: impl Fn(u64) -> Option<u64>) -> bool {
        self.0.fetch_update(AcqRel, Acquire, next).is_ok()
    }
}

fn under_way(word: u64) -> u32 {
    word as u32
}

fn waiting(word: u64) -> u32 {
    (word >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leaves_sees_who_waits() {
        let word = Word::default();
        assert!(word.enter(2) && word.enter(2) && !word.enter(2));
        assert!(!word.waits(3), "there is room for one more");
        assert!(word.waits(2) && word.waits(2));
        assert!(!word.leave(), "somebody waits");
        assert_eq!((word.under_way(), word.waiting()), (2, 2));
        word.wait_no_longer(2);
        assert!(word.leave());
        word.left();
        assert_eq!((word.under_way(), word.waiting()), (0, 0));
    }
}
