//! When the keys of an issuer are fetched, and for how long those at hand serve. Pure: time and lot are arguments.
//!
//! Keys are fetched ahead of the end of their freshness, and more and more rarely while that fails; those at hand go on for the
//! time that the document says. A token whose key is not among them has them fetched at once, but not again within the cool-down: names
//! of keys are made up easily. Whoever asks while a fetch is under way waits for that one.

use std::time::{Duration, Instant};

const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// What is known of a set of keys.
#[derive(Debug)]
pub(super) struct Renewal {
    /// For how long keys serve while no others come.
    valid_for: Duration,
    cool_down: Duration,
    /// When keys last came.
    got: Option<Instant>,
    /// When a token last had them fetched.
    demanded: Option<Instant>,
    /// Whether a fetch is under way.
    asking: bool,
    /// When they are fetched next.
    next: Instant,
    error: Option<String>,
    in_a_row: u32,
    failures: u64,
}

impl Renewal {
    /// Nothing is known, and keys are wanted at once.
    pub(super) fn new(valid_for: Duration, cool_down: Duration, now: Instant) -> Self {
        Self {
            valid_for,
            cool_down,
            got: None,
            demanded: None,
            asking: true,
            next: now,
            error: None,
            in_a_row: 0,
            failures: 0,
        }
    }

    /// A fetch begins.
    pub(super) fn begin(&mut self) {
        self.asking = true;
    }

    /// Keys came that are fresh for so long.
    pub(super) fn came(&mut self, fresh: Duration, now: Instant, lot: f64) {
        self.asking = false;
        self.got = Some(now);
        // They are renewed well before they may no longer serve, whatever the issuer says.
        let fresh = fresh.min(self.valid_for / 2);
        // Not at the same moment everywhere: up to a tenth of the time earlier by lot.
        self.next = now + fresh.mul_f64(1.0 - 0.1 * lot);
        self.error = None;
        self.in_a_row = 0;
    }

    /// None came.
    pub(super) fn failed(&mut self, error: String, now: Instant, lot: f64) {
        self.asking = false;
        let wait = FIRST_RETRY.saturating_mul(1 << self.in_a_row.min(16)).min(LAST_RETRY);
        self.next = now + wait.mul_f64(0.9 + 0.2 * lot);
        self.error = Some(error);
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.failures = self.failures.saturating_add(1);
    }

    /// A token names a key that is not there. Says whether an answer is worth waiting for: one that is under way, or one that is
    /// now asked for.
    pub(super) fn demand(&mut self, now: Instant) -> bool {
        if self.asking {
            return true;
        }
        let cooling = self.demanded.is_some_and(|before| now.saturating_duration_since(before) < self.cool_down);
        if cooling {
            return false;
        }
        (self.demanded, self.next, self.asking) = (Some(now), now, true);
        true
    }

    /// Whether the keys at hand may serve.
    pub(super) fn serves(&self, now: Instant) -> bool {
        self.got.is_some_and(|got| now.saturating_duration_since(got) < self.valid_for)
    }

    /// Whether a fetch is under way, or about to be.
    pub(super) fn is_asking(&self) -> bool {
        self.asking
    }

    /// When they are fetched next.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// When keys last came.
    pub(super) fn got(&self) -> Option<Instant> {
        self.got
    }

    /// How often none came.
    pub(super) fn failures(&self) -> u64 {
        self.failures
    }

    /// Why none came when they were last asked for.
    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }
}

/// For how long an answer with this `Cache-Control` is fresh (RFC 9111 §5.2.2.1): from a minute to a day, where it says nothing ten
/// minutes.
pub(super) fn freshness(cache_control: Option<&str>) -> Duration {
    const LEAST: Duration = Duration::from_secs(60);
    const MOST: Duration = Duration::from_secs(24 * 3600);
    let mut said = None;
    for part in cache_control.unwrap_or_default().split(',').map(str::trim) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        if name.eq_ignore_ascii_case("no-store") || name.eq_ignore_ascii_case("no-cache") {
            return LEAST;
        }
        if name.eq_ignore_ascii_case("max-age") {
            said = value.trim_matches('"').parse().ok().or(said);
        }
    }
    said.map_or(Duration::from_secs(600), Duration::from_secs).clamp(LEAST, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[expect(clippy::disallowed_methods, reason = "a moment to count from")]
    fn start() -> Instant {
        Instant::now()
    }

    fn renewal(now: Instant) -> Renewal {
        Renewal::new(secs(3600), secs(30), now)
    }

    #[test]
    fn keys_are_fetched_at_once_and_then_ahead_of_their_end() {
        let start = start();
        let mut renewal = renewal(start);
        assert!(renewal.is_asking() && renewal.next() == start && !renewal.serves(start));
        renewal.came(secs(600), start, 0.0);
        assert!(!renewal.is_asking() && renewal.serves(start));
        assert_eq!(renewal.next(), start + secs(600));
        renewal.came(secs(600), start, 1.0);
        assert_eq!(renewal.next(), start + secs(540));
        renewal.came(secs(86_400), start, 0.0);
        assert_eq!(renewal.next(), start + secs(1800), "half of the time for which they serve");
    }

    #[test]
    fn an_outage_leaves_the_keys_at_hand_for_as_long_as_is_written() {
        let start = start();
        let mut renewal = renewal(start);
        renewal.came(secs(600), start, 0.0);
        let (mut now, mut waits) = (renewal.next(), Vec::new());
        for _ in 0..8 {
            renewal.begin();
            renewal.failed("away".to_owned(), now, 0.5);
            waits.push((renewal.next() - now).as_secs());
            now = renewal.next();
            assert!(renewal.serves(now));
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(renewal.error(), Some("away"));
        assert!(renewal.serves(start + secs(3599)) && !renewal.serves(start + secs(3600)));
        renewal.came(secs(600), now, 0.0);
        assert_eq!((renewal.error(), renewal.serves(now + secs(3599))), (None, true));
    }

    #[test]
    fn a_key_that_is_not_there_has_them_fetched_once_within_a_cool_down() {
        let start = start();
        let mut renewal = renewal(start);
        assert!(renewal.demand(start), "the first fetch is under way");
        renewal.came(secs(600), start, 0.0);
        assert!(renewal.demand(start + secs(1)), "the fetch of the start spares nobody");
        assert_eq!(renewal.next(), start + secs(1));
        assert!(renewal.demand(start + secs(2)), "it is waited for");
        renewal.came(secs(600), start + secs(2), 0.0);
        assert!(!renewal.demand(start + secs(3)) && !renewal.demand(start + secs(30)));
        assert!(renewal.demand(start + secs(31)));
    }

    /// Whatever happens in whatever order: fetches that tokens cause are a cool-down apart, and keys serve exactly for their time.
    #[test]
    fn no_run_of_events_makes_more_fetches_than_one_for_each_cool_down() {
        for seed in 0..200 {
            let mut lots = fastrand::Rng::with_seed(seed);
            let start = start();
            let (mut now, mut renewal) = (start, renewal(start));
            let (mut demands, mut got) = (Vec::new(), None);
            for _ in 0..2000 {
                now += Duration::from_millis(lots.u64(0..3000));
                match lots.u8(0..10) {
                    0 if renewal.is_asking() => {
                        renewal.came(secs(lots.u64(60..600)), now, lots.f64());
                        got = Some(now);
                    }
                    1 if renewal.is_asking() => renewal.failed("away".to_owned(), now, lots.f64()),
                    2 if now >= renewal.next() => renewal.begin(),
                    _ => {
                        let was_asking = renewal.is_asking();
                        if renewal.demand(now) && !was_asking {
                            demands.push(now);
                        }
                    }
                }
                assert_eq!(renewal.serves(now), got.is_some_and(|got| now - got < secs(3600)), "seed {seed}");
                assert!(renewal.is_asking() || renewal.next() <= now + secs(600), "seed {seed}");
            }
            assert!(demands.is_sorted_by(|a, b| *b - *a >= secs(30)), "seed {seed}");
        }
    }

    #[test]
    fn freshness_is_what_the_issuer_says_within_bounds() {
        for (said, seconds) in [
            (None, 600),
            (Some(""), 600),
            (Some("public, max-age=3600, must-revalidate"), 3600),
            (Some("Max-Age=\"120\""), 120),
            (Some("max-age=0"), 60),
            (Some("max-age=999999999"), 86_400),
            (Some("max-age=soon"), 600),
            (Some("max-age=-1"), 600),
            (Some("s-maxage=5"), 600),
            (Some("no-store, max-age=3600"), 60),
        ] {
            assert_eq!(freshness(said), secs(seconds), "{said:?}");
        }
    }
}
