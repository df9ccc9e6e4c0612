//! Whether calls go so badly that a breaker opens, and for how long: a sliding window of ten buckets.
//!
//! Pure: the time is the number of a bucket, and randomness an argument. Calls that went well are counted by each worker
//! apart, and are read here when one went badly: only then can a breaker open. Shares are in hundredths of a percent.

use std::fmt;
use std::time::Duration;

/// How many buckets a window has.
pub(crate) const BUCKETS: usize = 10;

/// When a breaker opens, and how it comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// The share of failed calls.
    pub(crate) errors: u16,
    /// The share of slow calls; none where no call is slow.
    pub(crate) slow: Option<u16>,
    /// So many failed calls in a row.
    pub(crate) in_a_row: Option<u32>,
    /// Shares are of at least so many calls.
    pub(crate) least: u32,
    pub(crate) open: Duration,
    pub(crate) open_max: Duration,
    /// How many calls are let through to find out, and have to go well.
    pub(crate) probes: u8,
}

/// How a call went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Call {
    pub(crate) failed: bool,
    pub(crate) slow: bool,
}

impl Call {
    pub(crate) const GOOD: Self = Self { failed: false, slow: false };

    pub(crate) fn is_good(self) -> bool {
        self == Self::GOOD
    }
}

/// Why a breaker changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// So many of so many calls failed.
    Errors(u64, u64),
    /// So many of so many calls were slow.
    Slow(u64, u64),
    /// So many calls failed in a row.
    InARow(u32),
    /// The open time is over.
    Due,
    /// A probe failed, or was slow.
    ProbeFailed(Call),
    /// So many probes went well.
    Recovered(u8),
    /// A person ordered it.
    Ordered,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errors(failed, total) => write!(f, "{failed} of {total} calls failed"),
            Self::Slow(slow, total) => write!(f, "{slow} of {total} calls were slow"),
            Self::InARow(failed) => write!(f, "{failed} calls failed in a row"),
            Self::Due => f.write_str("the open time is over"),
            Self::ProbeFailed(call) if call.failed => f.write_str("a probe failed"),
            Self::ProbeFailed(_) => f.write_str("a probe was slow"),
            Self::Recovered(1) => f.write_str("a probe went well"),
            Self::Recovered(probes) => write!(f, "{probes} probes went well"),
            Self::Ordered => f.write_str("by order"),
        }
    }
}

/// The calls of a window that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Window {
    pub(crate) calls: u64,
    pub(crate) failed: u64,
    pub(crate) slow: u64,
}

/// One bucket of good calls: its number in the upper half, how many in the lower. What is put in it later is never less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Good(pub(crate) u64);

impl Good {
    /// With one more of the bucket `at`; none where it has been used for a later one since.
    pub(crate) fn and_one(self, at: u32) -> Option<Self> {
        if self.bucket() == at {
            let full = self.0 & u64::from(u32::MAX) == u64::from(u32::MAX);
            return Some(if full { self } else { Self(self.0 + 1) });
        }
        (self.bucket() < at).then_some(Self(u64::from(at) << 32 | 1))
    }

    fn bucket(self) -> u32 {
        (self.0 >> 32) as u32
    }

    fn count(self) -> u64 {
        self.0 & u64::from(u32::MAX)
    }
}

/// What is remembered of calls that went badly, and of how often that opened the breaker.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    ring: [Bad; BUCKETS],
    /// Nothing before this bucket counts, nor the first `skip` good calls of it.
    floor: u32,
    skip: u64,
    in_a_row: u32,
    /// The sum of all buckets of good calls when one failed last: it is another when there were good ones since.
    good: u64,
    /// How often it opened since it was closed.
    openings: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Bad {
    bucket: u32,
    calls: u32,
    failed: u32,
    slow: u32,
}

impl Judge {
    /// Takes in a call that was not good, in the bucket `at`. Says why the breaker has to open, if it has to.
    pub(crate) fn bad(
        &mut self,
        call: Call,
        at: u32,
        good: impl Iterator<Item = Good>,
        limits: &Limits,
    ) -> Option<Why> {
        let place = at as usize % BUCKETS;
        let bucket = self.ring.get_mut(place)?;
        // One that is later than this call stays: workers do not look at their clocks in turn.
        if bucket.bucket < at {
            *bucket = Bad { bucket: at, ..Bad::default() };
        }
        bucket.calls = bucket.calls.saturating_add(1);
        bucket.failed = bucket.failed.saturating_add(u32::from(call.failed));
        bucket.slow = bucket.slow.saturating_add(u32::from(call.slow));
        let (window, sum) = self.read(at, good);
        self.in_a_row = match (call.failed, self.good == sum) {
            (false, _) => 0,
            (true, true) => self.in_a_row.saturating_add(1),
            (true, false) => 1,
        };
        self.good = sum;
        if limits.in_a_row.is_some_and(|limit| self.in_a_row >= limit) {
            return Some(Why::InARow(self.in_a_row));
        }
        if window.calls < u64::from(limits.least) {
            return None;
        }
        let over = |part: u64, share: u16| part.saturating_mul(10_000) >= window.calls.saturating_mul(u64::from(share));
        if window.failed > 0 && over(window.failed, limits.errors) {
            return Some(Why::Errors(window.failed, window.calls));
        }
        let slow = limits.slow.filter(|share| window.slow > 0 && over(window.slow, *share));
        slow.map(|_| Why::Slow(window.slow, window.calls))
    }

    /// The calls of the window that ends with the bucket `at`.
    pub(crate) fn window(&self, at: u32, good: impl Iterator<Item = Good>) -> Window {
        self.read(at, good).0
    }

    /// It opens: for how long, where `random` draws from all numbers. Longer each time until it is closed again, and give or
    /// take a tenth, so that several gateways do not come back at once.
    pub(crate) fn opens(&mut self, limits: &Limits, random: u64) -> Duration {
        let doubled = limits.open.saturating_mul(1_u32.checked_shl(self.openings).unwrap_or(u32::MAX));
        self.openings = self.openings.saturating_add(1);
        let tenths_of_percent = 900 + (random % 201) as u32;
        (doubled.min(limits.open_max) / 1000).saturating_mul(tenths_of_percent)
    }

    /// It is closed again: what was before the present, in the bucket `at`, is forgotten.
    pub(crate) fn closes(&mut self, at: u32, good: impl Iterator<Item = Good>) {
        let (mut skip, mut sum) = (0_u64, 0_u64);
        for bucket in good {
            sum = sum.wrapping_add(bucket.0);
            if bucket.bucket() == at {
                skip = skip.saturating_add(bucket.count());
            }
        }
        *self = Self { floor: at, skip, good: sum, ..Self::default() };
    }

    /// Buckets have another length from now on: nothing that was counted means anything any more.
    pub(crate) fn forget(&mut self) {
        *self = Self { openings: self.openings, ..Self::default() };
    }

    fn read(&self, at: u32, good: impl Iterator<Item = Good>) -> (Window, u64) {
        let counts = |bucket: u32| bucket >= self.floor && bucket <= at && at - bucket < BUCKETS as u32;
        let (mut window, mut sum) = (Window::default(), 0_u64);
        for bucket in good {
            sum = sum.wrapping_add(bucket.0);
            if counts(bucket.bucket()) {
                window.calls = window.calls.saturating_add(bucket.count());
            }
        }
        if counts(self.floor) {
            window.calls = window.calls.saturating_sub(self.skip);
        }
        for bad in self.ring.iter().filter(|bad| counts(bad.bucket)) {
            window.calls = window.calls.saturating_add(u64::from(bad.calls));
            window.failed = window.failed.saturating_add(u64::from(bad.failed));
            window.slow = window.slow.saturating_add(u64::from(bad.slow));
        }
        (window, sum)
    }
}

#[cfg(test)]
mod tests;
