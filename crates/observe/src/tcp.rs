//! The record of one connection that is carried byte by byte: its line in the access log and its count.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use pylon_core::connection::Connection;
use pylon_core::exchange::Trail;

use crate::clock::Stamp;
use crate::json;

/// How such a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum TcpEnd {
    /// Both sides had said all.
    Complete,
    /// The client's side broke.
    ClientGone,
    /// The service's side broke.
    UpstreamBroke,
    /// Nothing moved for too long.
    Idle,
    /// No service could be connected to.
    Unreached,
    /// The client did not begin TLS as it had to.
    NoHello,
    /// The client asked for a name that leads nowhere.
    UnknownName,
    /// The gateway ended.
    Cut,
}

impl TcpEnd {
    /// The values of the label `end` and of the member of that name, in the order of the variants.
    pub(crate) const NAMES: [&'static str; 8] =
        ["complete", "client_gone", "upstream_broke", "idle", "unreached", "no_hello", "unknown_name", "cut"];

    /// The name in log and metrics.
    pub fn as_str(self) -> &'static str {
        Self::NAMES.get(self as usize).copied().unwrap_or_default()
    }
}

/// A connection that is over.
#[derive(Debug)]
pub struct TcpRecord<'a> {
    /// The client.
    pub connection: &'a Connection,
    /// The name that it asked for by TLS.
    pub host: Option<&'a str>,
    /// What happened on the way to the service.
    pub trail: &'a Trail,
    /// When it was accepted.
    pub opened: Instant,
    /// When it was over.
    pub ended: Instant,
    /// From the client, in bytes.
    pub received: u64,
    /// To the client, in bytes.
    pub sent: u64,
    /// How.
    pub end: TcpEnd,
}

impl TcpRecord<'_> {
    /// Appends the line with its line feed; `started` is the time since 1970 at the acceptance.
    pub(crate) fn write(&self, out: &mut Vec<u8>, stamp: &mut Stamp, started: Duration) {
        out.extend_from_slice(br#"{"time":""#);
        stamp.write(out, started);
        out.extend_from_slice(br#"","client":""#);
        client(out, self.connection, self.connection.peer.ip());
        out.push(b'"');
        if let Some(host) = self.host {
            out.extend_from_slice(br#","host":"#);
            json::string(out, host, 1024);
        }
        out.extend_from_slice(br#","protocol":"tcp","bytes_in":"#);
        json::number(out, self.received);
        out.extend_from_slice(br#","bytes_out":"#);
        json::number(out, self.sent);
        out.extend_from_slice(br#","duration_ms":"#);
        let took = self.ended.saturating_duration_since(self.opened);
        json::millis(out, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        crate::access_log::line::upstream(out, self.trail);
        if let Some(detail) = &self.trail.detail {
            out.extend_from_slice(br#","detail":"#);
            json::string(out, detail, 1024);
        }
        out.extend_from_slice(br#","end":""#);
        out.extend_from_slice(self.end.as_str().as_bytes());
        out.extend_from_slice(b"\"}\n");
    }
}

/// A client's address, or that it came by a Unix socket.
pub(crate) fn client(out: &mut Vec<u8>, connection: &Connection, client: IpAddr) {
    if connection.unix && client == connection.peer.ip() {
        out.extend_from_slice(b"unix");
    } else {
        json::ip(out, client);
    }
}
