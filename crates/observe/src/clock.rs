//! The wall clock: unix time of an [`Instant`] without a system call, and its text (RFC 3339, UTC, milliseconds).
//!
//! This is the only place that reads `SystemTime`. Time before 1970 reads as 1970; the year has four digits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::json::digit;

/// Ties the monotonic clock to unix time. Anchored anew by [`Wall::anchor`], so that it follows the system's clock.
#[derive(Debug)]
pub struct Wall {
    epoch: Instant,
    /// Nanoseconds from 1970 to `epoch`, as the system's clock sees it at the last anchoring. Good until the year 2554.
    offset: AtomicU64,
}

impl Wall {
    /// A wall clock anchored at `now`, which must be the present.
    pub fn new(now: Instant) -> Self {
        Self { epoch: now, offset: AtomicU64::new(nanos(unix_now())) }
    }

    /// Anchors anew at `now`, which must be the present: for the tick of the control plane, not for each request.
    pub fn anchor(&self, now: Instant) {
        let since = nanos(now.saturating_duration_since(self.epoch));
        self.offset.store(nanos(unix_now()).saturating_sub(since), Ordering::Relaxed);
    }

    /// Time since 1970 at `at`. No system call.
    pub fn unix(&self, at: Instant) -> Duration {
        let offset = Duration::from_nanos(self.offset.load(Ordering::Relaxed));
        match at.checked_duration_since(self.epoch) {
            Some(after) => offset.saturating_add(after),
            None => offset.saturating_sub(self.epoch.saturating_duration_since(at)),
        }
    }

    /// The text of `at`: `2026-11-24T04:17:00.123Z`.
    pub fn text(&self, at: Instant) -> String {
        rfc3339(self.unix(at))
    }
}

/// The text of a time since 1970: `2026-11-24T04:17:00.123Z`.
pub fn rfc3339(unix: Duration) -> String {
    let mut out = Vec::with_capacity(24);
    Stamp::default().write(&mut out, unix);
    String::from_utf8(out).unwrap_or_default()
}

/// Writes times and remembers the text of the last second: each worker has its own.
#[derive(Debug)]
pub(crate) struct Stamp {
    second: u64,
    text: [u8; 20],
}

impl Default for Stamp {
    fn default() -> Self {
        Self { second: 0, text: to_the_second(0) }
    }
}

impl Stamp {
    /// Appends `2026-11-24T04:17:00.123Z`.
    pub(crate) fn write(&mut self, out: &mut Vec<u8>, unix: Duration) {
        if unix.as_secs() != self.second {
            self.second = unix.as_secs();
            self.text = to_the_second(self.second);
        }
        let millis = u64::from(unix.subsec_millis());
        out.extend_from_slice(&self.text);
        out.extend_from_slice(&[digit(millis, 100), digit(millis, 10), digit(millis, 1), b'Z']);
    }
}

/// The monotonic clock for a thread that belongs to no runtime.
#[expect(clippy::disallowed_methods, reason = "the writer of the log has no runtime whose clock a test could stop")]
pub(crate) fn monotonic() -> Instant {
    Instant::now()
}

/// The present, since 1970, by a look at the system's clock.
#[expect(clippy::disallowed_methods, reason = "the one place that reads wall time")]
pub fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// `2026-11-24T04:17:00.`, by the civil calendar extended over all years (days are counted in eras of 400 years that
/// begin on 1 March, so that the leap day comes last).
fn to_the_second(unix: u64) -> [u8; 20] {
    let (days, second) = (unix / 86_400 + 719_468, unix % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    [
        digit(year, 1000),
        digit(year, 100),
        digit(year, 10),
        digit(year, 1),
        b'-',
        digit(month, 10),
        digit(month, 1),
        b'-',
        digit(day, 10),
        digit(day, 1),
        b'T',
        digit(hour, 10),
        digit(hour, 1),
        b':',
        digit(minute, 10),
        digit(minute, 1),
        b':',
        digit(second, 10),
        digit(second, 1),
        b'.',
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days_read_as_the_calendar_has_them() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (1_709_164_800, "2024-02-29T00:00:00.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799, "9999-12-31T23:59:59.000Z"),
        ] {
            assert_eq!(rfc3339(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn each_day_for_four_hundred_years_follows_the_one_before() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..146_097_u64 {
            let text = rfc3339(Duration::from_secs(days * 86_400));
            assert_eq!(text, format!("{year:04}-{month:02}-{day:02}T00:00:00.000Z"));
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 => 28 + i32::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > length {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year) = (1, year + 1);
            }
        }
    }

    #[test]
    fn the_remembered_second_gives_way_to_the_next() {
        let (mut stamp, mut out) = (Stamp::default(), Vec::new());
        for millis in [1_999, 2_000, 2_001, 1_000] {
            stamp.write(&mut out, Duration::from_millis(millis));
        }
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "1970-01-01T00:00:01.999Z1970-01-01T00:00:02.000Z1970-01-01T00:00:02.001Z1970-01-01T00:00:01.000Z"
        );
    }

    #[test]
    fn instants_before_and_after_the_anchor_keep_their_distance() {
        let now = monotonic();
        let wall = Wall::new(now + Duration::from_secs(5));
        let anchored = wall.unix(now + Duration::from_secs(5));
        assert_eq!(wall.unix(now) + Duration::from_secs(5), anchored);
        assert_eq!(wall.unix(now + Duration::from_secs(7)), anchored + Duration::from_secs(2));
    }

    #[test]
    fn the_wall_follows_the_clock_of_the_system_when_anchored_anew() {
        let now = monotonic();
        let wall = Wall::new(now);
        wall.offset.store(0, Ordering::Relaxed);
        wall.anchor(monotonic());
        let drift = wall.unix(monotonic()).abs_diff(unix_now());
        assert!(drift < Duration::from_secs(1), "{drift:?}");
    }
}
