//! Limits on what a client may send, and on how slowly; and those in force, which change while connections are open.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::pace::Pace;

/// Limits on what a client may send, and on how slowly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest head, in bytes.
    pub head: usize,
    /// From the first byte of a head to its last.
    pub head_time: Duration,
    /// From the acceptance of a connection to the end of its PROXY header and TLS handshake.
    pub handshake: Duration,
    /// Between two exchanges.
    pub idle: Duration,
    /// How slowly a request's body may come.
    pub body: Pace,
    /// For how long a client may take nothing of what is sent to it.
    pub write_time: Duration,
}

impl Limits {
    /// What refusals say of them.
    pub fn told(&self) -> Told {
        Told { head: self.head, head_time: self.head_time }
    }
}

/// Limits that a refusal of the codec names: those that held for the connection.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    /// The longest head, in bytes.
    pub head: usize,
    /// From the first byte of a head to its last.
    pub head_time: Duration,
}

/// The limits in force, for all workers. Each of them is read where it is needed, so that a change holds from the next
/// connection, request or timer on.
#[derive(Debug)]
pub struct InForce {
    head: AtomicUsize,
    head_time: AtomicU64,
    handshake: AtomicU64,
    idle: AtomicU64,
    pause: AtomicU64,
    /// 0 where there is none.
    rate: AtomicU64,
    write_time: AtomicU64,
}

impl InForce {
    /// These, to begin with.
    pub fn new(limits: Limits) -> Self {
        let all = Self {
            head: AtomicUsize::new(0),
            head_time: AtomicU64::new(0),
            handshake: AtomicU64::new(0),
            idle: AtomicU64::new(0),
            pause: AtomicU64::new(0),
            rate: AtomicU64::new(0),
            write_time: AtomicU64::new(0),
        };
        all.set(limits);
        all
    }

    /// These from now on.
    pub fn set(&self, limits: Limits) {
        self.head.store(limits.head, Ordering::Relaxed);
        self.rate.store(limits.body.rate.map_or(0, NonZeroU64::get), Ordering::Relaxed);
        for (place, span) in [
            (&self.head_time, limits.head_time),
            (&self.handshake, limits.handshake),
            (&self.idle, limits.idle),
            (&self.pause, limits.body.pause),
            (&self.write_time, limits.write_time),
        ] {
            place.store(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// Those that hold now.
    pub fn get(&self) -> Limits {
        let span = |place: &AtomicU64| Duration::from_nanos(place.load(Ordering::Relaxed));
        Limits {
            head: self.head.load(Ordering::Relaxed),
            head_time: span(&self.head_time),
            handshake: span(&self.handshake),
            idle: span(&self.idle),
            body: Pace { pause: span(&self.pause), rate: NonZeroU64::new(self.rate.load(Ordering::Relaxed)) },
            write_time: span(&self.write_time),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::LimitsSpec;

    #[test]
    fn what_is_set_is_what_holds() {
        let usual = LimitsSpec::default().compile().unwrap();
        let in_force = InForce::new(usual);
        assert_eq!(in_force.get(), usual);
        let body = Pace { pause: Duration::from_millis(7), rate: None };
        let other = Limits { head: 1024, idle: Duration::MAX / 1_000_000_000, body, ..usual };
        in_force.set(other);
        assert_eq!(in_force.get(), Limits { idle: in_force.get().idle, ..other });
        assert!(in_force.get().idle > Duration::from_secs(1 << 30));
    }
}
