//! Slow start: an endpoint that is new, or comes back, gets its share by and by, so that its caches and pools can warm up.

use std::time::Duration;

/// The part of its weight that an endpoint begins with.
const FIRST: f64 = 0.1;

/// Which part of its weight counts of an endpoint that is there for `age`, where it has all of it after `span`.
pub fn part(age: Duration, span: Duration) -> f64 {
    if age >= span {
        return 1.0;
    }
    (age.as_secs_f64() / span.as_secs_f64()).clamp(FIRST, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_grows_evenly_from_a_tenth() {
        let at = |seconds| part(Duration::from_secs(seconds), Duration::from_secs(60));
        for (seconds, wanted) in [(0, 0.1), (3, 0.1), (6, 0.1), (30, 0.5), (60, 1.0), (600, 1.0)] {
            assert!((at(seconds) - wanted).abs() < 1e-9, "{seconds} s: {}", at(seconds));
        }
        assert!((part(Duration::ZERO, Duration::ZERO) - 1.0).abs() < f64::EPSILON);
    }
}
