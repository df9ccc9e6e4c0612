use super::*;
use proptest::prelude::*;

const FAILED: Call = Call { failed: true, slow: false };
const SLOW: Call = Call { failed: false, slow: true };

fn limits() -> Limits {
    Limits {
        errors: 5_000,
        slow: None,
        in_a_row: None,
        least: 20,
        open: Duration::from_secs(5),
        open_max: Duration::from_secs(60),
        probes: 1,
    }
}

/// Two workers that count good calls, and the judge that reads them.
#[derive(Default)]
struct Sim {
    judge: Judge,
    good: [[u64; BUCKETS]; 2],
}

impl Sim {
    fn good(&mut self, worker: usize, at: u32, many: u32) {
        for _ in 0..many {
            let place = &mut self.good[worker % 2][at as usize % BUCKETS];
            if let Some(next) = Good(*place).and_one(at) {
                *place = next.0;
            }
        }
    }

    fn all(&self) -> impl Iterator<Item = Good> + use<> {
        self.good.into_iter().flatten().map(Good)
    }

    fn bad(&mut self, call: Call, at: u32, limits: &Limits) -> Option<Why> {
        let good = self.all();
        self.judge.bad(call, at, good, limits)
    }

    fn closes(&mut self, at: u32) {
        let good = self.all();
        self.judge.closes(at, good);
    }
}

#[test]
fn it_opens_at_half_of_twenty_calls_and_not_before() {
    let mut sim = Sim::default();
    sim.good(0, 5, 6);
    sim.good(1, 6, 5);
    for _ in 0..10 {
        assert_eq!(sim.bad(FAILED, 6, &limits()), None, "fewer than half");
    }
    assert_eq!(sim.bad(FAILED, 7, &limits()), Some(Why::Errors(11, 22)));
    let mut few = Sim::default();
    assert!((0..19).all(|_| few.bad(FAILED, 1, &limits()).is_none()), "too few calls to judge");
    assert_eq!(few.bad(FAILED, 1, &limits()), Some(Why::Errors(20, 20)));
}

#[test]
fn what_is_older_than_the_window_does_not_count() {
    let mut sim = Sim::default();
    sim.good(0, 0, 1_000);
    for _ in 0..19 {
        assert_eq!(sim.bad(FAILED, 9, &limits()), None);
    }
    assert_eq!(sim.bad(FAILED, 10, &limits()), Some(Why::Errors(20, 20)), "the good ones are too old");
    let mut sim = Sim::default();
    assert!((0..19).all(|_| sim.bad(FAILED, 0, &limits()).is_none()));
    assert_eq!(sim.bad(FAILED, 10, &limits()), None, "the bad ones are too old");
}

#[test]
fn slow_calls_open_it_though_none_fails() {
    let mut sim = Sim::default();
    let limits = Limits { slow: Some(5_000), ..limits() };
    sim.good(0, 3, 10);
    assert!((0..9).all(|_| sim.bad(SLOW, 3, &limits).is_none()));
    assert_eq!(sim.bad(SLOW, 3, &limits), Some(Why::Slow(10, 20)));
}

#[test]
fn failures_in_a_row_open_it_at_once_and_a_good_or_slow_call_breaks_the_row() {
    let mut sim = Sim::default();
    let limits = Limits { in_a_row: Some(3), ..limits() };
    assert_eq!((sim.bad(FAILED, 1, &limits), sim.bad(FAILED, 1, &limits)), (None, None));
    sim.good(1, 1, 1);
    assert_eq!((sim.bad(FAILED, 1, &limits), sim.bad(SLOW, 1, &limits)), (None, None));
    assert_eq!((sim.bad(FAILED, 2, &limits), sim.bad(FAILED, 50, &limits)), (None, None));
    assert_eq!(sim.bad(FAILED, 90, &limits), Some(Why::InARow(3)), "however long it takes");
}

#[test]
fn once_closed_again_it_begins_anew() {
    let mut sim = Sim::default();
    sim.good(0, 4, 500);
    assert!((0..30).all(|_| sim.bad(FAILED, 4, &limits()).is_none()));
    sim.closes(4);
    assert_eq!(sim.judge.window(4, sim.all()), Window::default());
    assert!((0..19).all(|_| sim.bad(FAILED, 4, &limits()).is_none()));
    sim.good(1, 4, 1);
    assert_eq!(sim.bad(FAILED, 5, &limits()), Some(Why::Errors(20, 21)), "of the same moment, but after it closed");
}

#[test]
fn the_open_time_doubles_up_to_its_end_and_is_short_again_once_closed() {
    let mut judge = Judge::default();
    let seconds = |span: Duration| span.as_secs_f64();
    for expected in [5.0, 10.0, 20.0, 40.0, 60.0, 60.0] {
        assert!((seconds(judge.opens(&limits(), 100)) - expected).abs() < 0.01, "{expected}");
    }
    judge.closes(0, std::iter::empty());
    assert!((seconds(judge.opens(&limits(), 0)) - 4.5).abs() < 0.01);
    judge.closes(0, std::iter::empty());
    assert!((seconds(judge.opens(&limits(), 200)) - 5.5).abs() < 0.01);
    judge.openings = 4_000_000_000;
    assert!(judge.opens(&limits(), 7) <= Duration::from_secs(66), "nothing overflows");
}

#[test]
fn a_bucket_takes_no_call_of_an_earlier_turn() {
    let bucket = Good(0).and_one(15).unwrap().and_one(15).unwrap();
    assert_eq!((bucket.bucket(), bucket.count()), (15, 2));
    assert_eq!(bucket.and_one(5), None);
    assert_eq!(bucket.and_one(25).map(|next| (next.bucket(), next.count())), Some((25, 1)));
    assert_eq!(Good(u64::MAX).and_one(u32::MAX), Some(Good(u64::MAX)), "a full one stays full");
}

proptest! {
    #[test]
    fn it_never_opens_below_the_least_number_nor_the_share_and_always_above(
        calls in prop::collection::vec((0_u8..4, 0_u32..3, 0_usize..2), 1..400),
        errors in 1_u16..=10_000,
        least in 1_u32..60,
    ) {
        let limits = Limits { errors, least, slow: Some(errors), ..limits() };
        let mut sim = Sim::default();
        let mut all: Vec<(u32, Call)> = Vec::new();
        let mut at = 0;
        for (kind, passes, worker) in calls {
            at += passes;
            let call = Call { failed: kind & 1 != 0, slow: kind & 2 != 0 };
            all.push((at, call));
            // By counting, what the ring should come to.
            let of_window: Vec<Call> =
                all.iter().filter(|(then, _)| at - then < BUCKETS as u32).map(|(_, call)| *call).collect();
            let total = of_window.len() as u64;
            let failed = of_window.iter().filter(|call| call.failed).count() as u64;
            let slow = of_window.iter().filter(|call| call.slow).count() as u64;
            if call.is_good() {
                sim.good(worker, at, 1);
                continue;
            }
            let over = |part: u64| part > 0 && part * 10_000 >= total * u64::from(errors);
            let expected = match (total >= u64::from(least), over(failed), over(slow)) {
                (true, true, _) => Some(Why::Errors(failed, total)),
                (true, false, true) => Some(Why::Slow(slow, total)),
                _ => None,
            };
            prop_assert_eq!(sim.bad(call, at, &limits), expected);
            if expected.is_some() {
                sim.closes(at);
                all.clear();
            }
        }
    }

    #[test]
    fn the_open_time_stays_within_its_bounds(open in 1_u64..100_000, max in 1_u64..1_000_000, seeds in prop::collection::vec(any::<u64>(), 1..40)) {
        let open_max = Duration::from_millis(max.max(open));
        let limits = Limits { open: Duration::from_millis(open), open_max, ..limits() };
        let mut judge = Judge::default();
        for seed in seeds {
            let span = judge.opens(&limits, seed);
            prop_assert!(span >= limits.open.mul_f64(0.899) && span <= open_max.mul_f64(1.101), "{span:?}");
        }
    }
}
