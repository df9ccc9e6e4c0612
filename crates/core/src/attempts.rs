//! Why a request is sent more than once, and what comes of it: words that the attempt loop, the log and the metrics share.

use std::fmt;

use crate::exchange::Timer;

/// Why an attempt was followed by another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A connection from the pool had been closed by the service.
    Stale,
    /// No connection could be made.
    Connect,
    /// The service said that it had not looked at the request.
    Refused,
    /// The connection ended before the answer.
    Reset,
    /// This timer fired.
    Timeout(Timer),
    /// The answer was no valid HTTP.
    Protocol,
    /// The answer had this status.
    Status(u16),
    /// The answer to a call of gRPC told this code.
    Grpc(&'static str),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stale => f.write_str("stale"),
            Self::Connect => f.write_str("connect"),
            Self::Refused => f.write_str("refused"),
            Self::Reset => f.write_str("reset"),
            Self::Timeout(timer) => timer.fmt(f),
            Self::Protocol => f.write_str("protocol"),
            Self::Status(status) => status.fmt(f),
            Self::Grpc(code) => f.write_str(code),
        }
    }
}

/// What became of the wish for one more attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Retried {
    /// It was made without being asked for: the service has certainly not acted on the request.
    Safe,
    /// It was made.
    Granted,
    /// It was not: the budget of the upstream is spent.
    BudgetExhausted,
    /// It was not: it would have come too late, or sooner than the service wants.
    TooLate,
    /// It was not: the body of the request could not be sent again.
    BodyGone,
}

impl Retried {
    /// The names in log and metrics, in the order of the variants.
    pub const NAMES: [&'static str; 5] = ["safe", "granted", "budget_exhausted", "too_late", "body_gone"];

    /// The name in log and metrics.
    pub fn as_str(self) -> &'static str {
        Self::NAMES.get(self as usize).copied().unwrap_or_default()
    }
}

/// What a hedge came to: a second attempt beside the first, which was late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Hedged {
    /// Its answer was the first.
    Won,
    /// The first attempt answered before it after all, or it was no better.
    Lost,
    /// It was not sent: as many as may be had been, the budget of the upstream was spent, or there was no other endpoint.
    Skipped,
}

impl Hedged {
    /// The names in log and metrics, in the order of the variants.
    pub const NAMES: [&'static str; 3] = ["won", "lost", "skipped"];

    /// The name in log and metrics.
    pub fn as_str(self) -> &'static str {
        Self::NAMES.get(self as usize).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_a_name_of_its_own() {
        assert_eq!(Retried::BodyGone.as_str(), "body_gone");
        assert_eq!(Hedged::Skipped.as_str(), "skipped");
        let causes = [Cause::Stale, Cause::Timeout(Timer::PerTry), Cause::Status(503), Cause::Grpc("unavailable")];
        assert_eq!(causes.map(|cause| cause.to_string()), ["stale", "per_try", "503", "unavailable"]);
    }
}
