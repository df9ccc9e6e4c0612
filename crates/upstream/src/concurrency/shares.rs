//! Which part of a limit each class may use: the lower ones leave room for those above, while there are any.
//!
//! A limit that only one class knows is that class's alone: ten means ten, as long as no request of a higher class has been
//! seen in the last ten to twenty seconds. From then on the lower ones are held to their shares.

use std::time::{Duration, Instant};

use pylon_core::priority::Priority;

/// For how long a class counts as being about, at the least.
const WINDOW: Duration = Duration::from_secs(10);
/// The part of the limit for each class while a higher one is about, in percent; the least class first.
pub(crate) const SHARES: [u32; Priority::ALL.len()] = [60, 85, 95, 100];

/// The classes that have been about lately, as one word: number of the window, then who was seen in it and in that before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct About(u64);

impl About {
    pub(crate) fn from_word(word: u64) -> Self {
        Self(word)
    }

    pub(crate) fn word(self) -> u64 {
        self.0
    }

    /// One of `class` has come, `passed` after the beginning. None where that changes nothing.
    pub(crate) fn seen(self, class: Priority, passed: Duration) -> Option<Self> {
        let window = passed.as_secs() / WINDOW.as_secs();
        let rolled = self.rolled(window);
        let next = Self(rolled.0 | bit(class));
        (next != self).then_some(next)
    }

    /// Whether somebody above `class` is about.
    pub(crate) fn above(self, class: Priority) -> bool {
        let both = (self.0 | self.0 >> 4) & 0xf;
        both >> (class as u64 + 1) != 0
    }

    fn rolled(self, window: u64) -> Self {
        let (then, now) = (self.0 >> 8, self.0 & 0xf);
        match window.saturating_sub(then) {
            0 => self,
            1 => Self(window << 8 | now << 4),
            _ => Self(window << 8),
        }
    }
}

fn bit(class: Priority) -> u64 {
    1 << class as u64
}

/// How many may be under way so that one more of `class` may come. At least one is left to those above, if there is more than one.
pub(crate) fn cap(limit: u32, class: Priority, about: About) -> u32 {
    if !about.above(class) {
        return limit.max(1);
    }
    let share = SHARES.get(class as usize).copied().unwrap_or(100);
    let part = u64::from(limit) * u64::from(share);
    u32::try_from(part.div_ceil(100)).unwrap_or(u32::MAX).min(limit.saturating_sub(1)).max(1)
}

/// How long after the beginning.
pub(crate) fn passed(beginning: Instant, now: Instant) -> Duration {
    now.saturating_duration_since(beginning)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pylon_core::priority::Priority::{Critical, High, Low, Normal};

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn the_lower_ones_leave_room_only_while_higher_ones_are_about() {
        let quiet = About::default().seen(Normal, seconds(1)).unwrap();
        assert_eq!([Low, Normal, High, Critical].map(|class| cap(100, class, quiet)), [60, 100, 100, 100]);
        let busy = quiet.seen(Critical, seconds(9)).unwrap();
        assert_eq!([Low, Normal, High, Critical].map(|class| cap(100, class, busy)), [60, 85, 95, 100]);
        assert_eq!(busy.seen(Critical, seconds(9)), None, "nothing is written twice");
        // Still about in the window after, and gone in the one behind that.
        let next = busy.seen(Low, seconds(19)).unwrap();
        assert_eq!(cap(100, Normal, next), 85);
        let gone = next.seen(Low, seconds(20)).unwrap();
        assert_eq!((cap(100, Normal, gone), cap(100, Low, gone)), (100, 100));
    }

    #[test]
    fn a_small_limit_still_leaves_one_place_and_admits_one() {
        let busy = About::default().seen(Critical, seconds(0)).unwrap();
        for (limit, caps) in [(1, [1, 1, 1, 1]), (2, [1, 1, 1, 2]), (8, [5, 7, 7, 8]), (10, [6, 9, 9, 10])] {
            assert_eq!([Low, Normal, High, Critical].map(|class| cap(limit, class, busy)), caps, "{limit}");
        }
        assert_eq!(cap(u32::MAX, Critical, busy), u32::MAX);
    }
}
