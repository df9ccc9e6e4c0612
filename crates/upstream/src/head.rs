//! Why the head of an answer is not taken, whatever protocol it came by.

use pylon_http1::answer::Refusal;
use pylon_http1::fault::Fault;

/// Why the head of an answer is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// It is too long, or no head.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A switch of protocols that nobody asked for.
    #[error("the upstream switched protocols unasked")]
    Switched,
    /// A switch of protocols that does not prove that the handshake was understood.
    #[error("the upstream's switch to WebSocket is not valid: {0}")]
    Handshake(&'static str),
    /// More interim answers than anyone needs.
    #[error("too many interim answers")]
    Interim,
}

impl HeadError {
    /// Whether it is longer than it may be, or has more fields.
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::Refused(Refusal::TooLarge { .. } | Refusal::TooMany))
    }
}

/// What came with a head is its beginning of a body.
impl From<Fault> for HeadError {
    fn from(fault: Fault) -> Self {
        Refusal::from(fault).into()
    }
}
