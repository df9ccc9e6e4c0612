//! The state of a breaker as one word that all workers read: closed, open or half open, and how many probes are out.
//!
//! Pure: each change makes another word of this one, and the shell puts it in place by compare-and-swap. Every change of
//! state begins another epoch, so that whoever reports late changes nothing of what came after.

/// What a breaker does with calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// All pass.
    Closed,
    /// None passes until the open time is over.
    Open,
    /// A few pass, by which it is judged.
    HalfOpen,
}

/// What a person has ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Force {
    /// Nothing: the breaker judges by itself.
    #[default]
    Auto,
    /// No call passes.
    Open,
    /// All calls pass, whatever becomes of them.
    Closed,
}

/// What becomes of a call that comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It passes.
    Free,
    /// It passes as a probe, once this word has taken the other's place.
    Probe(Word),
    /// It does not pass.
    Refused,
}

/// Phase (2 bits), order (2), probes under way (8), probes that went well (8), epoch (32).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word(u64);

const OUT: u32 = 4;
const PASSED: u32 = 12;
const EPOCH: u32 = 20;

impl Word {
    /// Closed, by its own judgement.
    pub(crate) const NEW: Self = Self(0);

    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    pub(crate) fn phase(self) -> Phase {
        match self.0 & 3 {
            0 => Phase::Closed,
            1 => Phase::Open,
            _ => Phase::HalfOpen,
        }
    }

    pub(crate) fn force(self) -> Force {
        match self.0 >> 2 & 3 {
            0 => Force::Auto,
            1 => Force::Open,
            _ => Force::Closed,
        }
    }

    /// Probes under way.
    pub(crate) fn out(self) -> u8 {
        (self.0 >> OUT) as u8
    }

    /// Probes that went well since it is half open.
    pub(crate) fn passed(self) -> u8 {
        (self.0 >> PASSED) as u8
    }

    /// Rises with each change of phase.
    pub(crate) fn epoch(self) -> u32 {
        (self.0 >> EPOCH) as u32
    }

    /// Whether calls pass without being asked for anything: closed, and not ordered to be open; or ordered to be closed.
    pub(crate) fn is_free(self) -> bool {
        match self.force() {
            Force::Auto => self.phase() == Phase::Closed,
            Force::Open => false,
            Force::Closed => true,
        }
    }

    /// Whether calls are judged: it is closed, and nothing is ordered.
    pub(crate) fn judges(self) -> bool {
        self.phase() == Phase::Closed && self.force() == Force::Auto
    }

    /// What becomes of a call that comes. `is_due` says whether the open time is over; at most `probes` are under way at once,
    /// and no more than are needed.
    pub(crate) fn admit(self, is_due: impl FnOnce() -> bool, probes: u8) -> Admission {
        if self.is_free() {
            return Admission::Free;
        }
        if self.force() != Force::Auto {
            return Admission::Refused;
        }
        match self.phase() {
            Phase::Open if is_due() => Admission::Probe(self.next(Phase::HalfOpen, 1, 0)),
            Phase::HalfOpen if u16::from(self.out()) + u16::from(self.passed()) < u16::from(probes.max(1)) => {
                Admission::Probe(self.with(self.out().saturating_add(1), self.passed()))
            }
            _ => Admission::Refused,
        }
    }

    /// A probe of `epoch` ended and says nothing. None where that is not asked for any more.
    pub(crate) fn given_back(self, epoch: u32) -> Option<Self> {
        self.awaits(epoch).then(|| self.with(self.out().saturating_sub(1), self.passed()))
    }

    /// A probe of `epoch` went well, and closes it where enough have. None where that is not asked for any more.
    pub(crate) fn passed_one(self, epoch: u32, probes: u8) -> Option<Self> {
        let passed = self.passed().saturating_add(1);
        self.awaits(epoch).then(|| {
            if passed < probes {
                self.with(self.out().saturating_sub(1), passed)
            } else {
                self.next(Phase::Closed, 0, 0)
            }
        })
    }

    /// A probe of `epoch` went badly, and opens it again. None where that is not asked for any more.
    pub(crate) fn failed_one(self, epoch: u32) -> Option<Self> {
        self.awaits(epoch).then(|| self.next(Phase::Open, 0, 0))
    }

    /// Calls went badly: it opens. None where it does not judge.
    pub(crate) fn tripped(self) -> Option<Self> {
        self.judges().then(|| self.next(Phase::Open, 0, 0))
    }

    /// The same under an order. Whatever was ordered before, it begins anew.
    pub(crate) fn forced(self, force: Force) -> Self {
        let order = match force {
            Force::Auto => 0,
            Force::Open => 1,
            Force::Closed => 2,
        };
        let anew = self.next(Phase::Closed, 0, 0);
        Self(anew.0 & !0b1100 | order << 2)
    }

    fn awaits(self, epoch: u32) -> bool {
        self.phase() == Phase::HalfOpen && self.epoch() == epoch
    }

    fn with(self, out: u8, passed: u8) -> Self {
        let kept = self.0 & !(0xFFFF << OUT);
        Self(kept | u64::from(out) << OUT | u64::from(passed) << PASSED)
    }

    fn next(self, phase: Phase, out: u8, passed: u8) -> Self {
        let phase = match phase {
            Phase::Closed => 0,
            Phase::Open => 1,
            Phase::HalfOpen => 2,
        };
        let epoch = u64::from(self.epoch().wrapping_add(1)) << EPOCH;
        Self(self.0 & 0b1100 | phase | epoch).with(out, passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn open() -> Word {
        Word::NEW.tripped().unwrap()
    }

    #[test]
    fn a_call_passes_when_closed_and_waits_for_the_open_time_when_open() {
        assert_eq!(Word::NEW.admit(|| false, 1), Admission::Free);
        assert_eq!(open().admit(|| false, 1), Admission::Refused);
        let Admission::Probe(half) = open().admit(|| true, 1) else { panic!("it is due") };
        assert_eq!((half.phase(), half.out(), half.passed()), (Phase::HalfOpen, 1, 0));
        assert_eq!(half.admit(|| true, 1), Admission::Refused, "one probe at a time");
        let closed = half.passed_one(half.epoch(), 1).unwrap();
        assert_eq!((closed.phase(), closed.out()), (Phase::Closed, 0));
    }

    #[test]
    fn a_probe_that_reports_late_changes_nothing() {
        let Admission::Probe(half) = open().admit(|| true, 2) else { panic!("it is due") };
        let Admission::Probe(both) = half.admit(|| true, 2) else { panic!("there is room for another") };
        let again = both.failed_one(half.epoch()).unwrap();
        assert_eq!(again.phase(), Phase::Open);
        let late = half.epoch();
        assert_eq!((again.passed_one(late, 2), again.failed_one(late), again.given_back(late)), (None, None, None));
        let Admission::Probe(next) = again.admit(|| true, 2) else { panic!("it is due") };
        assert_eq!((next.passed_one(late, 2), next.given_back(late)), (None, None), "it is of an epoch before");
    }

    #[test]
    fn an_order_stands_above_what_the_breaker_finds() {
        let shut = Word::NEW.forced(Force::Open);
        assert_eq!((shut.admit(|| true, 1), shut.tripped()), (Admission::Refused, None));
        let held = open().forced(Force::Closed);
        assert_eq!((held.admit(|| false, 1), held.tripped()), (Admission::Free, None));
        let auto = shut.forced(Force::Auto);
        assert_eq!((auto.admit(|| false, 1), auto.judges()), (Admission::Free, true));
    }

    /// What may happen to a breaker.
    #[derive(Debug, Clone, Copy)]
    enum Event {
        Ask,
        Due,
        Trip,
        Pass(usize),
        Fail(usize),
        Drop(usize),
        Order(u8),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let one = prop_oneof![
            8 => Just(Event::Ask),
            3 => Just(Event::Due),
            2 => Just(Event::Trip),
            4 => any::<usize>().prop_map(Event::Pass),
            2 => any::<usize>().prop_map(Event::Fail),
            3 => any::<usize>().prop_map(Event::Drop),
            1 => (0_u8..3).prop_map(Event::Order),
        ];
        prop::collection::vec(one, 0..200)
    }

    proptest! {
        #[test]
        fn there_are_never_more_probes_at_once_than_are_allowed(events in events(), probes in 1_u8..6) {
            let (mut word, mut due) = (Word::NEW, false);
            // All that are under way, with the epoch that they are of.
            let mut under_way: Vec<u32> = Vec::new();
            for event in events {
                match event {
                    Event::Ask => match word.admit(|| due, probes) {
                        Admission::Probe(next) => {
                            word = next;
                            due = false;
                            under_way.push(word.epoch());
                        }
                        Admission::Free => prop_assert!(word.is_free()),
                        Admission::Refused => prop_assert!(!word.is_free()),
                    },
                    Event::Due => due = true,
                    Event::Trip => word = word.tripped().unwrap_or(word),
                    Event::Order(0) => word = word.forced(Force::Auto),
                    Event::Order(1) => word = word.forced(Force::Open),
                    Event::Order(_) => word = word.forced(Force::Closed),
                    Event::Pass(_) | Event::Fail(_) | Event::Drop(_) if under_way.is_empty() => {}
                    Event::Pass(n) => {
                        let epoch = under_way.swap_remove(n % under_way.len());
                        word = word.passed_one(epoch, probes).unwrap_or(word);
                    }
                    Event::Fail(n) => {
                        let epoch = under_way.swap_remove(n % under_way.len());
                        word = word.failed_one(epoch).unwrap_or(word);
                    }
                    Event::Drop(n) => {
                        let epoch = under_way.swap_remove(n % under_way.len());
                        word = word.given_back(epoch).unwrap_or(word);
                    }
                }
                let of_now = under_way.iter().filter(|epoch| **epoch == word.epoch()).count();
                prop_assert!(of_now <= usize::from(probes), "{of_now} of {probes}");
                if word.phase() == Phase::HalfOpen {
                    prop_assert_eq!(of_now, usize::from(word.out()), "each one under way is counted, and no other");
                    prop_assert!(word.passed() < probes, "enough have gone well, and it is not closed");
                }
            }
        }
    }
}
