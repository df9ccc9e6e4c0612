//! What becomes of the connections of clients that are not served to their end, and of handshakes: the labels of their counts.

/// Why a client's connection was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Refused {
    /// There are as many as there may be, and all are busy.
    InAll,
    /// Its address has as many as it may have.
    PerAddress,
    /// Memory is short.
    Memory,
}

impl Refused {
    /// The values of the label `reason`, in the order of the variants.
    pub(crate) const NAMES: [&'static str; 3] = ["connections", "connections_per_address", "memory"];
}

/// Which connection of a client was closed before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Evicted {
    /// An idle one, to make room.
    Idle,
    /// One whose handshake or head was still on its way, to make room.
    Slow,
    /// An idle one, since memory is short.
    Memory,
}

impl Evicted {
    /// The values of the label `reason`, in the order of the variants.
    pub(crate) const NAMES: [&'static str; 3] = ["idle", "slow", "memory"];
}

/// What became of a TLS handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Handshake {
    /// A new session.
    Full,
    /// A session that the client had a ticket for.
    Resumed,
    /// None.
    Failed,
}

impl Handshake {
    /// The values of the label `outcome`, in the order of the variants.
    pub(crate) const NAMES: [&'static str; 3] = ["full", "resumed", "failed"];
}

/// What became of a request that was to be mirrored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Mirrored {
    /// The copy was answered, by whatever status.
    Answered,
    /// No whole answer came in time.
    Failed,
    /// No copy: the body is too long.
    TooLarge,
    /// No copy: as many as may be are under way.
    Full,
    /// No copy: the body was not read to its end.
    Incomplete,
}

impl Mirrored {
    /// The values of the label `outcome`, in the order of the variants.
    pub(crate) const NAMES: [&'static str; 5] = ["answered", "failed", "too_large", "full", "incomplete"];
}
