//! What is known of a client's connection before its first byte: addresses, scheme, and a way to send interim answers.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::HeaderValue;
use parking_lot::Mutex;

use crate::by_host::ByHost;
use crate::certificate::ClientCertificate;
use crate::rejection::Reason;

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
    /// The client's address as the connection tells it (before `trusted_proxies` are looked at): that at the other end of
    /// the socket, or the one in the PROXY header of a balancer. `0.0.0.0:0` where there is none.
    pub peer: SocketAddr,
    /// Whether the client came by a Unix socket, so that it has no address.
    pub unix: bool,
    /// The address of `peer` as text, for the forwarding fields of each request.
    pub peer_text: HeaderValue,
    /// The address that accepted.
    pub local: SocketAddr,
    /// How the client speaks to us.
    pub scheme: Scheme,
    /// Interim answers that wait to be written.
    pub interim: Interim,
    /// What the connection is busy with, and since when.
    pub activity: Activity,
    /// Whether the client has closed its sending side, or the socket broke.
    pub ended: AtomicBool,
    /// Whether the client does not take what is sent to it, so that it is being given up.
    pub stalled: AtomicBool,
    /// Turns true when nothing new is to be served by this connection: its listener demands something else by now.
    pub withdrawn: OnceLock<Arc<AtomicBool>>,
    /// What was demanded in the handshake, where a listener makes demands by host.
    pub met: OnceLock<Met>,
    /// The certificate that the client showed and that was verified.
    pub certificate: OnceLock<ClientCertificate>,
    /// For what the client's bytes were refused, once they were: nothing behind is read.
    pub malformed: OnceLock<Malformed>,
}

/// The demands that a connection has met.
#[derive(Debug)]
pub struct Met {
    /// Those of all hosts of its listener.
    pub by_host: Arc<ByHost>,
    /// The number of its own.
    pub number: usize,
}

/// Why what a client sent is no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed {
    /// The code.
    pub reason: &'static Reason,
    /// What in particular, for client and log.
    pub what: &'static str,
}

impl Connection {
    /// A connection that was accepted at `opened`.
    pub fn new(peer: SocketAddr, local: SocketAddr, scheme: Scheme, opened: Instant) -> Self {
        let text = peer.ip().to_string();
        let peer_text = HeaderValue::from_str(&text).unwrap_or(UNKNOWN);
        let (interim, activity) = (Interim::default(), Activity::new(opened));
        Self {
            peer,
            unix: false,
            peer_text,
            local,
            scheme,
            interim,
            activity,
            ended: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            withdrawn: OnceLock::new(),
            met: OnceLock::new(),
            certificate: OnceLock::new(),
            malformed: OnceLock::new(),
        }
    }

    /// A connection by a Unix socket, which was accepted at `opened`. Its address is in no network that anybody allows.
    pub fn by_unix_socket(scheme: Scheme, opened: Instant) -> Self {
        let nowhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        Self { unix: true, peer_text: UNKNOWN, ..Self::new(nowhere, nowhere, scheme, opened) }
    }

    /// The addresses of this connection, without the client at its other end.
    pub(crate) fn aside(&self, opened: Instant) -> Self {
        let aside = Self::new(self.peer, self.local, self.scheme, opened);
        Self { unix: self.unix, peer_text: self.peer_text.clone(), ..aside }
    }

    /// Whether requests for `host`, as [`HostName::as_str`](crate::host::HostName::as_str) gives it, may come by this
    /// connection: it has met the very demands that the host makes, and they have not been changed since.
    pub fn may_ask_for(&self, host: Option<&str>) -> bool {
        let withdrawn = self.withdrawn.get().is_some_and(|withdrawn| withdrawn.load(Ordering::Acquire));
        !withdrawn && self.met.get().is_none_or(|met| met.by_host.of(host) == met.number)
    }
}

/// What forwarding fields say of a client without an address (RFC 7239 §6.2).
const UNKNOWN: HeaderValue = HeaderValue::from_static("unknown");

/// The phases of an HTTP/1 connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Between two exchanges, or before the first.
    Idle,
    /// A head has begun to arrive.
    Head,
    /// A request is being answered.
    Serving,
    /// The answer is complete but not yet written out.
    Flushing,
}

/// What a connection is busy with, and since when. Written by the connection's own task, so relaxed atomics do.
#[derive(Debug)]
pub struct Activity {
    opened: Instant,
    phase: AtomicU8,
    since: AtomicU64,
}

impl Activity {
    fn new(opened: Instant) -> Self {
        Self { opened, phase: AtomicU8::new(Phase::Idle as u8), since: AtomicU64::new(0) }
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Idle,
            1 => Phase::Head,
            2 => Phase::Serving,
            _ => Phase::Flushing,
        }
    }

    /// When the phase began.
    pub fn since(&self) -> Instant {
        self.opened + Duration::from_micros(self.since.load(Ordering::Relaxed))
    }

    /// Goes to `phase` at `now`.
    pub fn enter(&self, phase: Phase, now: Instant) {
        let since = now.saturating_duration_since(self.opened).as_micros();
        self.since.store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Goes to `phase` without a look at the clock: the time of the phase before stays.
    pub fn pass_to(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }
}

/// Interim (1xx) answers on their way to the client, in the form of HTTP/1.1, written before the final answer.
///
/// The connection writes them ahead of the answer that is awaited, `100 Continue` and 103 (RFC 8297) alike.
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
