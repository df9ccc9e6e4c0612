//! How an exchange ended: what the data plane tells when the last byte is gone, or the client is.

use std::time::Instant;

use pylon_core::body::BodyError;
use pylon_core::exchange::Timer;

/// The status that is logged and counted for a client that went away (nginx made it known; no RFC has it).
const CLIENT_GONE: u16 = 499;

/// The status of a tunnel, on HTTP/2 too, where the client sees 200.
const SWITCHED: u16 = 101;

/// The end of one exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// The status that was sent, or was about to be.
    pub status: u16,
    /// Length of the answer's body as far as it was sent, in bytes.
    pub sent: u64,
    /// Length of the request's body as far as it was received, in bytes.
    pub received: u64,
    /// When it was over.
    pub ended: Instant,
    /// How.
    pub how: End,
}

impl Ending {
    /// The status for log and metrics: 499 when the client went away, but for tunnels, which end when either side leaves.
    pub(crate) fn logged_status(&self) -> u16 {
        if self.how == End::ClientGone && self.status != SWITCHED { CLIENT_GONE } else { self.status }
    }

    /// Whether the protocol was switched, so that what took its time was a tunnel and not an answer.
    pub(crate) fn is_of_tunnel(&self) -> bool {
        self.status == SWITCHED
    }
}

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The answer was sent whole; a WebSocket was closed by its own rules.
    Complete,
    /// The client went away before the end.
    ClientGone,
    /// The client's body broke off.
    ClientBroke,
    /// The upstream's body broke off.
    UpstreamBroke,
    /// A timer fired while a body was under way.
    Timeout(Timer),
    /// A body was longer than its limit.
    TooLarge,
    /// A tunnel was ended because the gateway ends.
    Drained,
    /// The route was removed, and its streams end with it (`on_removal: close`).
    Removed,
}

impl End {
    /// The name in the access log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientGone => "client_gone",
            Self::ClientBroke => "client_broke",
            Self::UpstreamBroke => "upstream_broke",
            Self::Timeout(_) => "timeout",
            Self::TooLarge => "too_large",
            Self::Drained => "drained",
            Self::Removed => "route_removed",
        }
    }

    /// The timer that fired.
    pub(crate) fn timer(self) -> Option<Timer> {
        match self {
            Self::Timeout(timer) => Some(timer),
            _ => None,
        }
    }
}

impl From<&BodyError> for End {
    fn from(error: &BodyError) -> Self {
        match error {
            BodyError::Client(_) | BodyError::Malformed(_) => Self::ClientBroke,
            BodyError::Upstream(_) | BodyError::Reset(_) => Self::UpstreamBroke,
            BodyError::Timeout(timer) => Self::Timeout(*timer),
            BodyError::TooLarge(_) => Self::TooLarge,
            BodyError::Removed => Self::Removed,
        }
    }
}
