//! How streams and connections end before their time, and the codes for it (RFC 9113 §7).

use std::fmt;
use std::io;
use std::sync::Arc;

/// An error code, as RST_STREAM and GOAWAY carry it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reason(u32);

macro_rules! reasons {
    ($($code:literal $name:ident $says:literal,)*) => {
        impl Reason {
            $(#[doc = $says] pub const $name: Self = Self($code);)*

            fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($code => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

reasons! {
    0x0 NO_ERROR "Nothing is wrong.",
    0x1 PROTOCOL_ERROR "The peer broke the protocol.",
    0x2 INTERNAL_ERROR "Something unexpected happened.",
    0x3 FLOW_CONTROL_ERROR "The peer sent more than its window allows.",
    0x4 SETTINGS_TIMEOUT "Settings were not acknowledged in time.",
    0x5 STREAM_CLOSED "A frame came on a stream that is over.",
    0x6 FRAME_SIZE_ERROR "A frame has a size that it may not have.",
    0x7 REFUSED_STREAM "The stream was not looked at: its request may be sent again.",
    0x8 CANCEL "The stream is not wanted any more.",
    0x9 COMPRESSION_ERROR "The state of the field compression is lost.",
    0xa CONNECT_ERROR "A tunnel broke off.",
    0xb ENHANCE_YOUR_CALM "The peer does too much.",
    0xc INADEQUATE_SECURITY "TLS is not good enough.",
    0xd HTTP_1_1_REQUIRED "HTTP/1.1 is to be used.",
}

impl From<u32> for Reason {
    fn from(code: u32) -> Self {
        Self(code)
    }
}

impl From<Reason> for u32 {
    fn from(reason: Reason) -> Self {
        reason.0
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#x}", self.0),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Who ended something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The other side.
    Peer,
    /// This side.
    Us,
}

/// Why a stream, or all of them, ended before its time.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The stream was reset.
    #[error("the stream was reset by {} with {reason}", who(*.by))]
    Reset {
        /// With this code.
        reason: Reason,
        /// By whom.
        by: By,
    },
    /// The connection was ended by an error.
    #[error("the connection was ended by {} with {reason}{}", who(*.by), because(.why))]
    Ended {
        /// With this code.
        reason: Reason,
        /// By whom.
        by: By,
        /// For what fault, where this side found one.
        why: &'static str,
    },
    /// The peer has told that it will not look at this stream, nor at any later one (§6.8).
    #[error("the peer takes no more streams on this connection")]
    Refused,
    /// The socket failed, or ended.
    #[error("the connection broke: {0}")]
    Io(Arc<io::Error>),
    /// This side has ended the stream already.
    #[error("the stream is over")]
    Over,
}

fn who(by: By) -> &'static str {
    match by {
        By::Peer => "the other side",
        By::Us => "this side",
    }
}

fn because(why: &str) -> String {
    if why.is_empty() { String::new() } else { format!(": {why}") }
}

impl Error {
    pub(crate) fn io(kind: io::ErrorKind) -> Self {
        Self::Io(Arc::new(kind.into()))
    }

    /// The code, where there is one.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Reset { reason, .. } | Self::Ended { reason, .. } => Some(*reason),
            Self::Refused => Some(Reason::REFUSED_STREAM),
            Self::Io(_) | Self::Over => None,
        }
    }

    /// The code of a reset that the peer sent.
    pub fn reset_by_peer(&self) -> Option<Reason> {
        match self {
            Self::Reset { reason, by: By::Peer } => Some(*reason),
            _ => None,
        }
    }

    /// Whether the peer has certainly not looked at the request, which may be sent again therefore (§8.7).
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused | Self::Reset { reason: Reason::REFUSED_STREAM, by: By::Peer })
    }

    /// Whether the peer has ended the connection in good order (§6.8).
    pub fn is_parting(&self) -> bool {
        matches!(self, Self::Refused | Self::Over | Self::Ended { reason: Reason::NO_ERROR, by: By::Peer, .. })
    }

    /// Whether the peer broke the protocol.
    pub fn is_fault_of_peer(&self) -> bool {
        matches!(self, Self::Reset { by: By::Us, .. } | Self::Ended { by: By::Us, .. })
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(error) => Self::new(error.kind(), error.to_string()),
            other => Self::other(other),
        }
    }
}

/// A fault that ends the whole connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fatal {
    pub(crate) reason: Reason,
    pub(crate) why: &'static str,
}

impl Fatal {
    pub(crate) const fn new(reason: Reason, why: &'static str) -> Self {
        Self { reason, why }
    }

    pub(crate) const fn protocol(why: &'static str) -> Self {
        Self::new(Reason::PROTOCOL_ERROR, why)
    }

    pub(crate) const fn calm(why: &'static str) -> Self {
        Self::new(Reason::ENHANCE_YOUR_CALM, why)
    }
}
