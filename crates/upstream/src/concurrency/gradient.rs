//! Finds out how many requests a service can take: as many as it answers hardly later than when it is idle. Spans are seconds.
//!
//! A gradient on the latency of the idle service, as in Netflix's concurrency-limits (`Gradient2Limit`) and Envoy's
//! adaptive concurrency filter: in each window `gradient = idle latency × (1 + tolerance) ÷ latency`, within ½ and 1, and
//! `limit ← limit × gradient + √limit`, smoothed. The root is what may queue at the service, so that it never runs dry.
//!
//! Under lasting overload no request meets an idle service, and what passes for idle latency would drift up with the queue, as it
//! does in `Gradient2Limit`. Envoy measures it anew at a fixed low limit, which costs throughput each time. Here it is done as
//! BBR does (draft-ietf-ccwg-bbr §5.3.4, ProbeRTT): what is under way falls to a half, for one latency and the next; that is
//! below what the service can take unless the limit was twice as much, and then the next probe follows soon.
//! Both latencies are means without the slowest tenth: routes of different cost do not look like a queue, and a few that hang
//! decide nothing. (Of exponential service times a median of as many samples strays half as far again.)

use std::time::{Duration, Instant};

/// Within what the limit is found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bounds {
    pub(crate) min: u32,
    pub(crate) max: u32,
    /// How much longer than idle answers may take, as a share.
    pub(crate) tolerance: f64,
}

/// One answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) began: Instant,
    pub(crate) took: Duration,
}

/// What was heard of the service since the last tick.
#[derive(Debug, Default)]
pub(crate) struct Window {
    pub(crate) samples: Vec<Sample>,
    /// The most that were under way, and how many are now.
    pub(crate) peak: u32,
    pub(crate) under_way: u32,
    /// Answers that say that it is too much, or did not come in time.
    pub(crate) drops: u32,
}

/// Where a limit begins, before anything is known.
const FIRST: f64 = 20.0;
/// A window has so many samples, or a few and its time is over.
const ENOUGH: usize = 20;
const A_FEW: usize = 3;
const LONGEST_WINDOW: Duration = Duration::from_secs(1);
/// The share of drops from which the limit falls, and to what.
const DROPS: f64 = 0.1;
const BACK_OFF: f64 = 0.9;
/// How fast the limit follows.
const SMOOTHING: f64 = 0.5;
/// The time between probes, from the first to the last of a calm upstream.
const SOONEST: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_secs(32);
/// How long a probe waits until enough requests have left, at the least.
const PATIENCE: Duration = Duration::from_secs(3);
/// How many latencies the requests of a probe have for coming, and their answers after that. Whoever stopped at the first answers
/// would have those of the quick ones alone.
const COMING: f64 = 1.5;
const ANSWERING: f64 = 3.0;

/// A limit that is found out. Time and samples are arguments.
#[derive(Debug, Clone)]
pub(crate) struct Gradient {
    bounds: Bounds,
    limit: f64,
    /// The latency of the idle service.
    idle: Option<f64>,
    /// That of now, smoothed.
    latency: Option<f64>,
    phase: Phase,
    seen: Seen,
    /// When the idle latency is looked for next, how long after the last time, and what the limit was then.
    probe_at: Instant,
    apart: Duration,
    limit_then: f64,
}

#[derive(Debug, Clone)]
enum Phase {
    Steady,
    /// No more than `cap` go on, until no more than that are under way, or `until`.
    Draining {
        cap: u32,
        until: Instant,
    },
    /// What begins from `since` until `until` meets an idle service; after that its answers are waited for, until `end`.
    Probing {
        cap: u32,
        since: Instant,
        until: Instant,
        end: Instant,
        took: Vec<f64>,
        lifted: bool,
    },
}

/// A window that is not over.
#[derive(Debug, Clone, Default)]
struct Seen {
    since: Option<Instant>,
    took: Vec<f64>,
    peak: u32,
    drops: u32,
}

impl Gradient {
    pub(crate) fn new(bounds: Bounds, now: Instant) -> Self {
        let limit = FIRST.clamp(bounds.min.into(), bounds.max.max(bounds.min).into());
        Self {
            bounds,
            limit,
            idle: None,
            latency: None,
            phase: Phase::Steady,
            seen: Seen::default(),
            probe_at: now + SOONEST,
            apart: SOONEST,
            limit_then: limit,
        }
    }

    /// The same within other bounds.
    pub(crate) fn within(self, bounds: Bounds) -> Self {
        let limit = self.limit.clamp(bounds.min.into(), bounds.max.max(bounds.min).into());
        Self { bounds, limit, ..self }
    }

    /// How many may be under way now.
    pub(crate) fn limit(&self) -> u32 {
        let found = self.limit as u32;
        match self.phase {
            Phase::Steady | Phase::Probing { lifted: true, .. } => found.max(1),
            Phase::Draining { cap, .. } | Phase::Probing { cap, .. } => cap.min(found).max(1),
        }
    }

    pub(crate) fn baseline(&self) -> Option<f64> {
        self.idle
    }

    /// Takes in what was heard, and says how many may be under way from now on.
    pub(crate) fn tick(&mut self, now: Instant, window: &Window) -> u32 {
        match &mut self.phase {
            Phase::Steady => self.steady(now, window),
            Phase::Draining { cap, until } => {
                if window.under_way <= *cap || now >= *until {
                    let cap = *cap;
                    let latency = self.idle.unwrap_or(0.0).max(self.latency.unwrap_or(0.0));
                    let until = now + seconds(COMING * latency).max(Duration::from_millis(150));
                    let end = until + seconds(ANSWERING * latency).max(Duration::from_millis(50));
                    self.phase = Phase::Probing { cap, since: now, until, end, took: Vec::new(), lifted: false };
                }
            }
            Phase::Probing { since, until, end, took, lifted, .. } => {
                let (of_probe, end) = (*since..*until, *end);
                let fresh = window.samples.iter().filter(|sample| of_probe.contains(&sample.began));
                took.extend(fresh.map(|sample| sample.took.as_secs_f64()));
                *lifted = now >= of_probe.end;
                if now >= end {
                    let found = if took.len() >= A_FEW { usual(took) } else { None };
                    self.probed(now, found);
                }
            }
        }
        self.limit()
    }

    fn steady(&mut self, now: Instant, window: &Window) {
        let seen = &mut self.seen;
        if !window.samples.is_empty() || window.drops > 0 {
            seen.since.get_or_insert(now);
        }
        seen.took.extend(window.samples.iter().map(|sample| sample.took.as_secs_f64()));
        seen.peak = seen.peak.max(window.peak);
        seen.drops = seen.drops.saturating_add(window.drops);
        let old = seen.since.is_some_and(|since| now.saturating_duration_since(since) >= LONGEST_WINDOW);
        let many = seen.took.len().saturating_add(seen.drops as usize);
        if many >= ENOUGH || old && many >= A_FEW {
            let seen = std::mem::take(&mut self.seen);
            self.step(now, seen);
        } else if old {
            // Too little to go by, and what is older tells nothing of now.
            self.seen = Seen::default();
        }
    }

    /// A window is over.
    fn step(&mut self, now: Instant, mut seen: Seen) {
        let many = seen.took.len() as f64 + f64::from(seen.drops);
        if f64::from(seen.drops) > many * DROPS {
            self.set(self.limit * BACK_OFF);
            return;
        }
        let Some(usual) = usual(&mut seen.took) else { return };
        if self.idle.is_none() && self.latency.replace(usual).is_none() {
            // The first answers of all are those of the quick ones.
            return;
        }
        let calm = seen.peak <= self.bounds.min;
        let idle = match self.idle {
            None => usual,
            // Who has next to nothing to do is as good as idle.
            Some(idle) if calm => idle + (usual - idle) * 0.2,
            Some(idle) => idle,
        };
        self.idle = Some(idle);
        let latency = self.latency.map_or(usual, |latency| latency + (usual - latency) * SMOOTHING);
        self.latency = Some(latency);
        let gradient = (idle * (1.0 + self.bounds.tolerance) / latency.max(f64::MIN_POSITIVE)).clamp(0.5, 1.0);
        let aim = self.limit * gradient + self.limit.sqrt();
        // What is not used up says nothing of what would be too much.
        if aim < self.limit || f64::from(seen.peak) * 2.0 >= self.limit {
            self.set(self.limit + (aim - self.limit) * SMOOTHING);
        }
        let collapsed = self.limit < self.limit_then * 0.6 && now + self.apart >= self.probe_at + SOONEST;
        if (now >= self.probe_at || collapsed) && !calm {
            let cap = (seen.peak / 2).max(self.bounds.min);
            self.phase = Phase::Draining { cap, until: now + self.patience() };
        }
    }

    /// A probe is over, and found this latency, if any.
    fn probed(&mut self, now: Instant, found: Option<f64>) {
        self.phase = Phase::Steady;
        self.seen = Seen::default();
        let same = match (self.idle, found) {
            (Some(idle), Some(found)) => (found / idle.max(f64::MIN_POSITIVE) - 1.0).abs() < 0.3,
            _ => false,
        };
        self.apart = if same { (self.apart * 2).min(LATEST) } else { SOONEST };
        self.idle = match (self.idle, found) {
            // Lots decide between one probe and the next; what is far off is no lot.
            (Some(idle), Some(found)) if (0.6..1.7).contains(&(found / idle.max(f64::MIN_POSITIVE))) => {
                Some(idle + (found - idle) * 0.4)
            }
            (idle, found) => found.or(idle),
        };
        self.latency = None;
        self.probe_at = now + self.apart;
        self.limit_then = self.limit;
    }

    fn set(&mut self, limit: f64) {
        self.limit = limit.clamp(self.bounds.min.into(), self.bounds.max.max(self.bounds.min).into());
    }

    fn patience(&self) -> Duration {
        PATIENCE.max(self.idle.map_or(Duration::ZERO, |idle| seconds(idle * 4.0)))
    }
}

fn seconds(span: f64) -> Duration {
    Duration::from_secs_f64(span.clamp(0.0, 60.0))
}

/// The mean without the slowest tenth.
fn usual(took: &mut [f64]) -> Option<f64> {
    took.sort_unstable_by(f64::total_cmp);
    let kept = took.get(..took.len() - took.len() / 10)?;
    (!kept.is_empty()).then(|| kept.iter().sum::<f64>() / kept.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: Bounds = Bounds { min: 3, max: 1000, tolerance: 0.25 };

    fn start() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn window(now: Instant, took: f64, under_way: u32) -> Window {
        let took = Duration::from_secs_f64(took);
        let samples = vec![Sample { began: now.checked_sub(took).unwrap(), took }; ENOUGH];
        Window { samples, peak: under_way, under_way, drops: 0 }
    }

    #[test]
    fn a_limit_that_is_not_used_up_stays() {
        let (mut gradient, mut now) = (Gradient::new(BOUNDS, start()), start());
        for _ in 0..100 {
            now += Duration::from_millis(100);
            assert_eq!(gradient.tick(now, &window(now, 0.01, 3)), 20);
        }
    }

    #[test]
    fn a_service_that_says_that_it_is_too_much_gets_less() {
        let (mut gradient, mut now) = (Gradient::new(BOUNDS, start()), start());
        for _ in 0..100 {
            now += Duration::from_millis(100);
            gradient.tick(now, &Window { drops: 5, ..window(now, 0.01, 20) });
        }
        assert_eq!(gradient.limit(), 3);
    }

    #[test]
    fn other_bounds_hold_at_once() {
        let gradient = Gradient::new(BOUNDS, start()).within(Bounds { max: 5, ..BOUNDS });
        assert_eq!(gradient.limit(), 5);
        assert_eq!(Gradient::new(Bounds { min: 50, ..BOUNDS }, start()).limit(), 50);
    }

    proptest! {
        #[test]
        fn whatever_is_heard_the_limit_stays_within_its_bounds(
            min in 1_u32..50, more in 0_u32..500,
            heard in prop::collection::vec((0.0_f64..10.0, 0_u32..600, 0_u32..30, 0_usize..40), 1..200),
        ) {
            let bounds = Bounds { min, max: min + more, tolerance: 0.25 };
            let (mut gradient, mut now) = (Gradient::new(bounds, start()), start());
            for (took, under_way, drops, many) in heard {
                now += Duration::from_millis(100);
                let took = Duration::from_secs_f64(took);
                let samples = vec![Sample { began: now, took }; many];
                let limit = gradient.tick(now, &Window { samples, peak: under_way, under_way, drops });
                prop_assert!((bounds.min..=bounds.max).contains(&limit), "{limit}");
            }
        }
    }
}
