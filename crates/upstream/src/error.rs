//! Why a call to an upstream failed: whose fault it is, whether to try again, and what the client is told.

use std::io;
use std::time::Duration;

use http::HeaderValue;
use http::header::RETRY_AFTER;
use pylon_core::body::BodyError;
use pylon_core::exchange::Timer;
use pylon_core::rejection::{
    INTERNAL, Reason, Rejection, UPSTREAM_CONNECT, UPSTREAM_CREDENTIAL, UPSTREAM_HEADERS_TOO_LARGE,
    UPSTREAM_NO_ENDPOINT, UPSTREAM_OPEN, UPSTREAM_OVERLOADED, UPSTREAM_PROTOCOL, UPSTREAM_RESET, UPSTREAM_TIMEOUT,
    UPSTREAM_TLS,
};
use pylon_core::units::Span;
use pylon_http1::answer::Refusal;

use crate::breaker::spec::Scope;
use crate::h1::encode::EncodeError;
use crate::head::HeadError;

/// A call that brought no answer.
#[derive(Debug, thiserror::Error)]
#[error("{at:?}: {source}")]
pub struct CallError {
    /// Whose fault it is.
    pub blame: Blame,
    /// Whether another attempt is safe.
    pub retry: Retry,
    /// How far the last attempt came.
    pub at: Step,
    /// What happened.
    pub source: Fault,
}

/// Whose fault a failed call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The client's: its body broke off. Never counted against the upstream.
    Client,
    /// The upstream's.
    Upstream,
    /// Our own.
    Gateway,
}

/// Whether another attempt is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It would fail again, or there is no time left.
    Never,
    /// The upstream may have acted on the request (RFC 9110 §9.2.2).
    IfIdempotent,
    /// The upstream has certainly not seen the request.
    Always,
}

/// The steps of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Choosing an endpoint.
    Pick,
    /// Making a connection.
    Connect,
    /// Writing the request.
    Send,
    /// Waiting for the head of the answer.
    Head,
}

/// What happened to an attempt.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// No endpoint is known, and why, where that is known.
    #[error("there is no endpoint{0}")]
    NoEndpoint(String),
    /// No credential is at hand, and without one nothing is sent.
    #[error("there is no credential: {0}")]
    Credential(String),
    /// A breaker is open.
    #[error("the breaker of the {} is open", .scope.as_str())]
    Open {
        /// Which one; that of an endpoint where no other endpoint is left.
        scope: Scope,
        /// In how long it lets a request through, if that is known.
        after: Option<Duration>,
    },
    /// As much is under way as may be, and there was no turn.
    #[error("overloaded: {0}")]
    Overloaded(Shed),
    /// No connection could be made.
    #[error("no connection: {0}")]
    Connect(io::Error),
    /// The handshake of TLS came to nothing.
    #[error("no TLS: {0}")]
    Tls(io::Error),
    /// A WebSocket for a service that is to be spoken to by HTTP/2 alone, and does not allow it there.
    #[error(
        "the service's settings allow no WebSocket on HTTP/2 (SETTINGS_ENABLE_CONNECT_PROTOCOL), and `protocol` of the upstream rules out HTTP/1.1"
    )]
    Alone,
    /// The request cannot be written.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The connection took no byte of the request.
    #[error("the connection took nothing: {0}")]
    Unsent(io::Error),
    /// The upstream says that it has not looked at the request (RFC 9113 §8.7).
    #[error("the request was refused unseen: {0}")]
    Refused(String),
    /// The answer breaks HTTP/2.
    #[error("the answer breaks HTTP/2, or its headers are far over `limits.response_headers`: {0}")]
    Protocol(String),
    /// The connection ended before the answer's head was whole.
    #[error("the connection ended before the answer: {source}")]
    Reset {
        /// What the socket says.
        source: io::Error,
        /// Whether a byte of the answer, or an interim answer, had come, or the upstream itself broke the stream off.
        answered: bool,
    },
    /// The answer's head is not acceptable.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// The client's body failed.
    #[error(transparent)]
    Body(BodyError),
    /// A timer fired.
    #[error("the {0} timer ({span}) fired", span = span(*.1))]
    Timeout(Timer, Duration),
}

/// Why there was no turn for a request, though its upstream may be well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Shed {
    /// It found the queue full, or had to yield.
    #[error("the queue is full")]
    Full,
    /// Its turn did not come in time.
    #[error("the turn did not come in time")]
    Late,
    /// As many connections to the endpoint are open as may be, and none came free in time.
    #[error("all {0} connections to the endpoint that may be open are in use")]
    Connections(u32),
}

/// A duration as it is written in a document.
fn span(duration: Duration) -> Span {
    Span::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

impl Fault {
    /// This fault as the error of a call.
    pub(crate) fn into_error(self) -> CallError {
        let (blame, retry, at) = match &self {
            Self::NoEndpoint(_) | Self::Alone | Self::Open { .. } => (Blame::Upstream, Retry::Never, Step::Pick),
            Self::Credential(_) => (Blame::Gateway, Retry::Never, Step::Pick),
            // Nobody has failed: what the service has to answer for is not counted against it twice.
            Self::Overloaded(Shed::Connections(_)) => (Blame::Gateway, Retry::Always, Step::Connect),
            Self::Overloaded(_) => (Blame::Gateway, Retry::Never, Step::Pick),
            Self::Connect(_) | Self::Tls(_) => (Blame::Upstream, Retry::Always, Step::Connect),
            Self::Encode(_) => (Blame::Gateway, Retry::Never, Step::Send),
            Self::Unsent(_) | Self::Refused(_) => (Blame::Upstream, Retry::Always, Step::Send),
            Self::Reset { .. } => (Blame::Upstream, Retry::IfIdempotent, Step::Head),
            Self::Head(_) | Self::Protocol(_) => (Blame::Upstream, Retry::Never, Step::Head),
            Self::Body(_) => (Blame::Client, Retry::Never, Step::Send),
            Self::Timeout(Timer::Connect, _) => (Blame::Upstream, Retry::Always, Step::Connect),
            Self::Timeout(Timer::FirstByte | Timer::PerTry, _) => (Blame::Upstream, Retry::IfIdempotent, Step::Head),
            Self::Timeout(..) => (Blame::Upstream, Retry::Never, Step::Head),
        };
        CallError { blame, retry, at, source: self }
    }

    fn reason(&self) -> &'static Reason {
        match self {
            Self::NoEndpoint(_) => &UPSTREAM_NO_ENDPOINT,
            Self::Credential(_) => &UPSTREAM_CREDENTIAL,
            Self::Open { .. } => &UPSTREAM_OPEN,
            Self::Overloaded(_) => &UPSTREAM_OVERLOADED,
            Self::Connect(_) => &UPSTREAM_CONNECT,
            Self::Tls(_) => &UPSTREAM_TLS,
            Self::Encode(_) => &INTERNAL,
            Self::Unsent(_) | Self::Refused(_) | Self::Reset { .. } => &UPSTREAM_RESET,
            Self::Head(error) if error.is_too_large() => &UPSTREAM_HEADERS_TOO_LARGE,
            Self::Head(_) | Self::Protocol(_) | Self::Alone => &UPSTREAM_PROTOCOL,
            Self::Body(error) => error.of_client(),
            Self::Timeout(..) => &UPSTREAM_TIMEOUT,
        }
    }
}

impl CallError {
    /// What the client would be told.
    pub fn reason(&self) -> &'static Reason {
        self.source.reason()
    }
}

impl From<CallError> for Rejection {
    fn from(error: CallError) -> Self {
        let reason = error.source.reason();
        match &error.source {
            // The timer's name and length help the client's owner and tell nothing of the inside.
            Fault::Timeout(..) => reason.because(error.source.to_string()),
            // Soon: what is under way ends in a moment.
            Fault::Overloaded(_) => {
                reason.privately(error.source.to_string()).with_header(RETRY_AFTER, HeaderValue::from_static("1"))
            }
            Fault::Head(HeadError::Refused(Refusal::TooLarge { limit, largest })) => {
                let largest = largest.as_ref().map_or_else(String::new, |(name, length)| {
                    format!(", the largest is `{name}` with {length} bytes")
                });
                reason.privately(format!(
                    "the response headers are longer than {limit} bytes{largest}: raise `limits.response_headers` if that is meant to be"
                ))
            }
            Fault::Body(error) => error.rejection(),
            Fault::Open { after, .. } => {
                let rejection = reason.privately(error.source.to_string());
                match after {
                    // Whole seconds (RFC 9110 §10.2.3), and never "at once".
                    Some(after) => {
                        let seconds = after.as_secs().saturating_add(u64::from(after.subsec_nanos() > 0)).max(1);
                        rejection.with_header(RETRY_AFTER, HeaderValue::from(seconds))
                    }
                    None => rejection,
                }
            }
            source => reason.privately(source.to_string()),
        }
    }
}
