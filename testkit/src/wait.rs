//! Waiting with a bound: until something is so, never for a fixed time in the hope that it will be.

use std::time::{Duration, Instant};

/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(5);

/// The clock of tests.
#[expect(clippy::disallowed_methods, reason = "tests of the real binary run by the real clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// Sleeps: only where time itself is what a script plays, such as a service that is slow.
#[expect(clippy::disallowed_methods, reason = "a script plays a slow service in a thread of its own")]
pub fn pause(span: Duration) {
    std::thread::sleep(span);
}

/// Milliseconds, in short.
pub fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Looks until `look` finds something, for `limit` at the most; then panics, naming `what` was waited for.
pub fn eventually<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(now() < until, "not within {limit:?}: {what}");
        pause(STEP);
    }
}

/// Looks until `is_so` holds, for `limit` at the most; then panics, naming `what` was waited for.
pub fn until(limit: Duration, what: &str, mut is_so: impl FnMut() -> bool) {
    eventually(limit, what, || is_so().then_some(()));
}
