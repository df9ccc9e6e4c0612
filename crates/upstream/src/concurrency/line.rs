//! The queue before a limit: higher classes first, in turn between callers, each until its own deadline; never longer than it may be.
//!
//! Within a class, callers are told apart by a hash into a bounded number of buckets that are served in turn (stochastic
//! fairness queueing, McKenney 1990). In a full queue, whoever comes displaces the newest of the lowest class below his own; within
//! his own class, the newest of the caller who has most of it (as FQ-CoDel does, RFC 8290 §4.1.3), unless that is himself.
//! So nobody fills the queue while others want in. Deadlines take the place of CoDel's control of delay: nobody who would
//! be answered too late is sent at all.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use pylon_core::priority::Priority;

/// How many callers of a class are told apart at the most.
pub(crate) const BUCKETS: usize = 64;

/// How many wait, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waits {
    pub(crate) most: usize,
    pub(crate) wait: Duration,
}

/// Those who wait. Time is an argument.
#[derive(Debug)]
pub(crate) struct Line<T> {
    classes: [Class<T>; Priority::ALL.len()],
    next: u64,
}

#[derive(Debug)]
struct Class<T> {
    /// Empty until somebody of this class waits.
    buckets: Vec<VecDeque<Entry<T>>>,
    /// The buckets with somebody in them, the next one first.
    turn: VecDeque<usize>,
    len: usize,
}

#[derive(Debug)]
struct Entry<T> {
    id: u64,
    until: Instant,
    who: T,
}

/// A place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    class: Priority,
    bucket: usize,
    id: u64,
}

/// What came of joining.
#[derive(Debug)]
pub(crate) enum Joined<T> {
    /// There was room.
    Room(Ticket),
    /// Somebody else of this class had to go.
    Instead(Ticket, Priority, T),
    /// There is no room for him.
    Full(T),
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        let class = || Class { buckets: Vec::new(), turn: VecDeque::new(), len: 0 };
        Self { classes: std::array::from_fn(|_| class()), next: 0 }
    }
}

impl<T> Line<T> {
    /// How many wait, the least class first.
    pub(crate) fn waiting(&self) -> [usize; Priority::ALL.len()] {
        self.classes.each_ref().map(|class| class.len)
    }

    fn len(&self) -> usize {
        self.classes.iter().map(|class| class.len).sum()
    }

    /// Puts `who` into the queue until `until`; `caller` is the hash of who sent it.
    pub(crate) fn join(&mut self, class: Priority, caller: u64, until: Instant, most: usize, who: T) -> Joined<T> {
        let bucket = (caller % BUCKETS as u64) as usize;
        let gone = if self.len() < most {
            None
        } else {
            match self.displace(class, bucket) {
                Some(gone) => Some(gone),
                None => return Joined::Full(who),
            }
        };
        self.next = self.next.wrapping_add(1);
        let ticket = Ticket { class, bucket, id: self.next };
        if let Some(line) = self.classes.get_mut(class as usize) {
            line.push(bucket, Entry { id: ticket.id, until, who });
        }
        match gone {
            None => Joined::Room(ticket),
            Some((class, gone)) => Joined::Instead(ticket, class, gone),
        }
    }

    /// The next one, among those whose class `may` go on. Those whose time is over are left in `late`.
    pub(crate) fn next(
        &mut self,
        now: Instant,
        may: impl Fn(Priority) -> bool,
        late: &mut Vec<(Priority, T)>,
    ) -> Option<(Priority, T)> {
        for (class, line) in Priority::ALL.into_iter().zip(&mut self.classes).rev() {
            if !may(class) {
                continue;
            }
            while let Some(entry) = line.pop() {
                if entry.until > now {
                    return Some((class, entry.who));
                }
                late.push((class, entry.who));
            }
        }
        None
    }

    /// Takes somebody out who waits no longer; none where he has gone already.
    pub(crate) fn leave(&mut self, ticket: Ticket) -> Option<T> {
        let class = self.classes.get_mut(ticket.class as usize)?;
        let bucket = class.buckets.get_mut(ticket.bucket)?;
        let index = bucket.iter().position(|entry| entry.id == ticket.id)?;
        let entry = bucket.remove(index)?;
        class.removed(ticket.bucket);
        Some(entry.who)
    }

    /// Makes room for one of `class` in `bucket`, where somebody has to yield to him.
    fn displace(&mut self, class: Priority, bucket: usize) -> Option<(Priority, T)> {
        let (lowest, line) = Priority::ALL.into_iter().zip(&mut self.classes).find(|(_, line)| line.len > 0)?;
        if lowest > class {
            return None;
        }
        let (longest, most) = line.longest()?;
        let own = line.buckets.get(bucket).map_or(0, VecDeque::len);
        // With one more of his own he must still have no more than whoever yields keeps.
        if lowest == class && most <= own.saturating_add(1) {
            return None;
        }
        let entry = line.buckets.get_mut(longest)?.pop_back()?;
        line.removed(longest);
        Some((lowest, entry.who))
    }
}

impl<T> Class<T> {
    fn push(&mut self, bucket: usize, entry: Entry<T>) {
        if self.buckets.is_empty() {
            self.buckets.resize_with(BUCKETS, VecDeque::new);
        }
        let Some(entries) = self.buckets.get_mut(bucket) else { return };
        if entries.is_empty() {
            self.turn.push_back(bucket);
        }
        entries.push_back(entry);
        self.len = self.len.saturating_add(1);
    }

    fn pop(&mut self) -> Option<Entry<T>> {
        let bucket = self.turn.pop_front()?;
        let entries = self.buckets.get_mut(bucket)?;
        let entry = entries.pop_front()?;
        if !entries.is_empty() {
            self.turn.push_back(bucket);
        }
        self.len = self.len.saturating_sub(1);
        Some(entry)
    }

    /// One has been taken out of a bucket otherwise than in turn.
    fn removed(&mut self, bucket: usize) {
        self.len = self.len.saturating_sub(1);
        if self.buckets.get(bucket).is_none_or(VecDeque::is_empty) {
            self.turn.retain(|other| *other != bucket);
        }
    }

    fn longest(&self) -> Option<(usize, usize)> {
        self.buckets.iter().map(VecDeque::len).enumerate().max_by_key(|(_, len)| *len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use pylon_core::priority::Priority::{Critical, High, Low, Normal};

    fn start() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn later() -> Instant {
        start() + Duration::from_secs(60)
    }

    fn drain(line: &mut Line<u32>) -> Vec<u32> {
        std::iter::from_fn(|| line.next(start(), |_| true, &mut Vec::new()).map(|(_, who)| who)).collect()
    }

    #[test]
    fn higher_classes_go_first_and_callers_in_turn() {
        let mut line = Line::default();
        for (class, caller, who) in
            [(Normal, 1, 1), (Normal, 1, 2), (Normal, 1, 3), (Normal, 2, 4), (Low, 3, 5), (Critical, 4, 6)]
        {
            assert!(matches!(line.join(class, caller, later(), 9, who), Joined::Room(_)));
        }
        assert_eq!(line.waiting(), [1, 4, 0, 1]);
        assert_eq!(drain(&mut line), [6, 1, 4, 2, 3, 5]);
    }

    #[test]
    fn who_may_not_go_on_yet_does_not_hold_up_those_above_him() {
        let mut line = Line::default();
        let (mut late, now) = (Vec::new(), start());
        line.join(Normal, 1, later(), 9, 1);
        assert!(line.next(now, |class| class > Normal, &mut late).is_none());
        line.join(High, 1, later(), 9, 2);
        assert_eq!(line.next(now, |class| class > Normal, &mut late), Some((High, 2)));
        assert_eq!(line.waiting(), [0, 1, 0, 0]);
    }

    #[test]
    fn the_lowest_class_yields_first_and_never_to_a_lower_one() {
        let mut line = Line::default();
        line.join(Low, 1, later(), 2, 1);
        line.join(Normal, 1, later(), 2, 2);
        assert!(matches!(line.join(High, 1, later(), 2, 3), Joined::Instead(_, Low, 1)));
        assert!(matches!(line.join(Low, 2, later(), 2, 4), Joined::Full(4)));
        assert!(matches!(line.join(High, 2, later(), 2, 5), Joined::Instead(_, Normal, 2)));
        assert_eq!(drain(&mut line), [3, 5]);
        assert!(matches!(line.join(Critical, 2, later(), 0, 5), Joined::Full(5)), "nobody waits where nobody may");
    }

    #[test]
    fn nobody_fills_the_queue_while_others_want_in() {
        let mut line = Line::default();
        for who in 0..8 {
            line.join(Normal, 1, later(), 8, who);
        }
        assert!(matches!(line.join(Normal, 1, later(), 8, 8), Joined::Full(8)));
        // The other one gets a half, and no more.
        let mut yielded = Vec::new();
        for who in 10..20 {
            match line.join(Normal, 2, later(), 8, who) {
                Joined::Instead(_, Normal, gone) => yielded.push(gone),
                Joined::Full(_) => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(yielded, [7, 6, 5, 4], "the newest goes");
        assert_eq!(drain(&mut line), [0, 10, 1, 11, 2, 12, 3, 13]);
    }

    #[test]
    fn whose_time_is_over_is_not_served() {
        let (mut line, now) = (Line::default(), start());
        line.join(Normal, 1, now, 9, 1);
        line.join(Normal, 2, now + Duration::from_millis(1), 9, 2);
        let mut late = Vec::new();
        assert_eq!(line.next(now, |_| true, &mut late), Some((Normal, 2)));
        assert_eq!((late, line.waiting()), (vec![(Normal, 1)], [0; 4]));
    }

    proptest! {
        #[test]
        fn everybody_is_served_or_told_exactly_once_and_the_queue_is_never_longer_than_it_may_be(
            most in 0_usize..20,
            steps in prop::collection::vec((0_u8..5, 0_usize..4, 0_u64..200, 0_u64..30), 1..200),
        ) {
            let (mut line, start) = (Line::default(), start());
            let (mut here, mut served) = (Vec::new(), 0);
            for (n, (kind, class, caller, spare)) in steps.iter().enumerate() {
                let now = start + Duration::from_millis(n as u64);
                let class = Priority::ALL[*class];
                if *kind < 3 {
                    match line.join(class, *caller, now + Duration::from_millis(*spare), most, n) {
                        Joined::Room(ticket) => here.push((n, ticket)),
                        Joined::Instead(ticket, lower, gone) => {
                            prop_assert!(lower <= class);
                            let index = here.iter().position(|(who, _)| *who == gone);
                            here.remove(index.expect("who yields was waiting"));
                            here.push((n, ticket));
                        }
                        Joined::Full(who) => prop_assert_eq!(who, n),
                    }
                } else if *kind == 3 {
                    let mut late = Vec::new();
                    let next = line.next(now, |other| other >= class, &mut late);
                    for (_, who) in late.into_iter().chain(next) {
                        let index = here.iter().position(|(other, _)| *other == who);
                        here.remove(index.expect("who is served was waiting"));
                        served += 1;
                    }
                } else if let Some((who, ticket)) = here.pop() {
                    prop_assert_eq!(line.leave(ticket), Some(who));
                    prop_assert_eq!(line.leave(ticket), None);
                }
                prop_assert!(line.len() <= most && line.len() == here.len());
            }
            let mut late = Vec::new();
            while line.next(start, |_| true, &mut late).is_some() { served += 1; }
            prop_assert!(served <= steps.len() && line.len() == 0);
        }
    }
}
