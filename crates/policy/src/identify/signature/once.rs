//! Remembers which signatures were used, so that none is good twice. For the whole process: whichever worker a replay meets knows of it.
//!
//! What is remembered is a hash, for as long as the signature would be good, and a bound in number. Where that is reached no further signature
//! is taken: to forget one would be to let it pass again. Time is an argument.

use std::collections::HashMap;

use aws_lc_rs::digest::{Context, SHA256};
use parking_lot::Mutex;

/// How many parts there are, each with a lock of its own, so that workers seldom meet at one.
const PARTS: usize = 16;
/// What each part remembers at most: together a million signatures, in some 50 MiB.
const MOST: usize = 1 << 16;

/// The beginning of a hash.
type Mark = [u8; 16];

/// The signatures that were used.
#[derive(Debug)]
pub(super) struct Once {
    parts: Box<[Mutex<Part>]>,
}

/// Marks with the second in which their time is over.
#[derive(Debug, Default)]
struct Part {
    marks: HashMap<Mark, u64>,
    /// At this size those whose time is over are swept out, so that sweeping costs little for each that is added.
    sweep_at: usize,
    /// The second in which that was last done.
    swept: u64,
}

/// What is known of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// It was not used so far.
    First,
    /// It was.
    Before,
    /// It cannot be remembered.
    Full,
}

impl Default for Once {
    fn default() -> Self {
        Self { parts: (0..PARTS).map(|_| Mutex::default()).collect() }
    }
}

impl Once {
    /// Notes that a signature by `keyid` is used: by its nonce, or by all that it is of. It is good until `until`, in seconds.
    pub(super) fn see(&self, keyid: &str, is_nonce: bool, what: &[u8], until: u64, now: u64) -> Seen {
        let mut context = Context::new(&SHA256);
        context.update(&[u8::from(is_nonce)]);
        context.update(&keyid.len().to_be_bytes());
        context.update(keyid.as_bytes());
        context.update(what);
        let hash = context.finish();
        let mut mark = Mark::default();
        mark.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
        let part = usize::from(mark.first().copied().unwrap_or_default()) % PARTS;
        self.parts.get(part).map_or(Seen::Full, |part| part.lock().see(mark, until, now))
    }
}

impl Part {
    fn see(&mut self, mark: Mark, until: u64, now: u64) -> Seen {
        if self.marks.get(&mark).is_some_and(|until| *until > now) {
            return Seen::Before;
        }
        if self.marks.len() >= self.sweep_at && self.swept != now {
            self.swept = now;
            self.marks.retain(|_, until| *until > now);
            self.sweep_at = self.marks.len().saturating_mul(2).clamp(256, MOST);
        }
        if self.marks.len() >= MOST {
            return Seen::Full;
        }
        self.marks.insert(mark, until);
        Seen::First
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_new_once_until_its_time_is_over() {
        let once = Once::default();
        let see = |keyid: &str, nonce: &str, now| once.see(keyid, true, nonce.as_bytes(), 100, now);
        assert_eq!([see("k", "a", 1), see("k", "a", 1), see("k", "a", 99)], [Seen::First, Seen::Before, Seen::Before]);
        assert_eq!([see("k", "b", 1), see("l", "a", 1), see("ka", "", 1)], [Seen::First; 3]);
        assert_eq!(once.see("k", false, b"a", 100, 1), Seen::First, "what is signed is no nonce");
        // It would be refused for its age by now.
        assert_eq!(see("k", "a", 100), Seen::First);
    }

    #[test]
    fn what_cannot_be_remembered_is_not_taken_and_what_is_over_makes_room() {
        let mut part = Part::default();
        let mark = |number: u64| {
            let mut mark = Mark::default();
            mark[..8].copy_from_slice(&number.to_be_bytes());
            mark
        };
        for number in 0..MOST as u64 {
            assert_eq!(part.see(mark(number), 100 + number % 2, 1), Seen::First);
        }
        assert_eq!(part.see(mark(MOST as u64), 100, 1), Seen::Full);
        assert_eq!(part.see(mark(7), 100, 1), Seen::Before);
        assert_eq!(part.see(mark(MOST as u64), 200, 100), Seen::First);
        assert_eq!(part.marks.len(), MOST / 2 + 1);
        assert_eq!(part.see(mark(7), 100, 100), Seen::Before);
    }
}
