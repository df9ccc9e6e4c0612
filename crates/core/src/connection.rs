//! What is known of a client's connection before its first byte: addresses, scheme, and a way to send interim answers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

/// The scheme by which the client reached the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Cleartext.
    Http,
    /// Under TLS.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// 80 or 443.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// One client connection; shared by the exchanges on it.
#[derive(Debug)]
pub struct Connection {
    /// The address at the other end of the socket (before `trusted_proxies` are looked at).
    pub peer: SocketAddr,
    /// The address that accepted.
    pub local: SocketAddr,
    /// How the client speaks to us.
    pub scheme: Scheme,
    /// Interim answers that wait to be written.
    pub interim: Interim,
}

impl Connection {
    /// A connection with no interim answers waiting.
    pub fn new(peer: SocketAddr, local: SocketAddr, scheme: Scheme) -> Self {
        Self { peer, local, scheme, interim: Interim::default() }
    }
}

/// Interim (1xx) answers on their way to the client, written by the socket's adapter before the final answer.
///
/// hyper's server writes `100 Continue` itself and knows no other interim answer; 103 (RFC 8297) goes this way.
#[derive(Debug, Default)]
pub struct Interim {
    waiting: AtomicBool,
    bytes: Mutex<Vec<u8>>,
}

/// How many bytes of interim answers may wait; what is over is dropped, as RFC 9110 §15.2 allows.
const CAP: usize = 16 * 1024;

impl Interim {
    /// Queues one whole interim answer in wire format. Answers false when it was dropped for want of room.
    pub fn push(&self, wire: &[u8]) -> bool {
        let mut bytes = self.bytes.lock();
        if bytes.len() + wire.len() > CAP {
            return false;
        }
        bytes.extend_from_slice(wire);
        self.waiting.store(true, Ordering::Release);
        true
    }

    /// Whether something waits. One relaxed load, for the write path.
    pub fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Acquire)
    }

    /// Takes all that waits.
    pub fn take(&self) -> Vec<u8> {
        let mut bytes = self.bytes.lock();
        self.waiting.store(false, Ordering::Release);
        std::mem::take(&mut bytes)
    }
}
