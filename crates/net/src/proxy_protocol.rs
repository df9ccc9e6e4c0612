//! The PROXY protocol, by which a balancer tells who its client is before the first byte of the client.
//!
//! Versions 1 and 2 after HAProxy's `proxy-protocol.txt`, read strictly: one blank between the fields of version 1,
//! decimal numbers without leading zeros, addresses of the family that is named. Of version 2, streams over IPv4, IPv6
//! and Unix sockets; what follows the addresses is passed over, but a checksum (CRC32c) that is there must be right.
//! Nothing is read beyond the header, since what follows is TLS or HTTP.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;

use crate::socket::Socket;
use crate::timer::timeout_at;

/// The longest header of version 1, with its line feed.
const LONGEST_V1: usize = 107;
/// The longest header of version 2 behind its first 16 bytes. Addresses take up to 216; the rest is for additions, of
/// which some balancers send a few hundred bytes.
const LONGEST_V2: usize = 4096;
/// What a header of version 1 begins with.
const V1: &[u8] = b"PROXY ";
/// What a header of version 2 begins with.
const V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The type of the addition that holds the checksum.
const CRC32C: u8 = 3;

/// A version of the protocol, as it is written to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// One line of text.
    V1,
    /// Binary.
    V2,
}

/// What the first bytes of a connection come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// All of them belong to a header, which goes on.
    Partial,
    /// A header.
    Whole {
        /// How many bytes it has.
        length: usize,
        /// The client's address. None where the balancer speaks for itself, to see whether we are well, or does not know
        /// an address.
        client: Option<SocketAddr>,
    },
}

/// Why the first bytes of a connection are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// They do not begin like one.
    #[error("there is no PROXY header")]
    Missing,
    /// It is too long.
    #[error("the PROXY header is too long")]
    TooLong,
    /// It is not what the protocol says.
    #[error("the PROXY header has no valid {0}")]
    Invalid(&'static str),
}

/// Why a connection that must begin with a header is not served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// It ended before its first byte: somebody looked whether we are there.
    #[error("the connection was empty")]
    Empty,
    /// There is no header that can be used.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The socket failed, ended, or was too slow.
    #[error("no whole PROXY header: {0}")]
    Broken(#[from] io::Error),
}

/// Reads the header of a connection, and nothing behind it. Answers with the client's address where one is told.
pub(crate) async fn read(socket: &mut Socket, deadline: Instant) -> Result<Option<SocketAddr>, Refused> {
    let late = |_| Refused::Broken(io::ErrorKind::TimedOut.into());
    timeout_at(Some(deadline), take(socket)).await.map_err(late)?
}

async fn take(socket: &mut Socket) -> Result<Option<SocketAddr>, Refused> {
    let mut head: Vec<u8> = Vec::new();
    let mut scratch = [0; 256];
    loop {
        let n = socket.peek(&mut scratch).await?;
        if n == 0 {
            return Err(if head.is_empty() {
                Refused::Empty
            } else {
                io::Error::from(io::ErrorKind::UnexpectedEof).into()
            });
        }
        let before = head.len();
        head.extend_from_slice(scratch.get(..n).unwrap_or_default());
        let found = parse(&head)?;
        let ours = match found {
            Header::Partial => n,
            Header::Whole { length, .. } => length.saturating_sub(before),
        };
        socket.read_exact(scratch.get_mut(..ours).unwrap_or_default()).await?;
        if let Header::Whole { client, .. } = found {
            return Ok(client);
        }
    }
}

/// Reads a header from the first bytes of a connection; what follows it is not looked at.
pub fn parse(bytes: &[u8]) -> Result<Header, Malformed> {
    if begins(bytes, V2) {
        v2(bytes)
    } else if begins(bytes, V1) {
        v1(bytes)
    } else {
        Err(Malformed::Missing)
    }
}

/// Whether `bytes` begin with `mark`, as far as they go.
fn begins(bytes: &[u8], mark: &[u8]) -> bool {
    bytes.iter().zip(mark).all(|(byte, of)| byte == of)
}

/// `PROXY TCP4 192.0.2.1 198.51.100.1 4711 443`, CR, LF.
fn v1(bytes: &[u8]) -> Result<Header, Malformed> {
    let Some(end) = bytes.iter().take(LONGEST_V1).position(|byte| *byte == b'\n') else {
        return if bytes.len() < LONGEST_V1 { Ok(Header::Partial) } else { Err(Malformed::TooLong) };
    };
    let length = end.saturating_add(1);
    let line = bytes.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(Malformed::Invalid("end of line"))?;
    let line = std::str::from_utf8(line).map_err(|_| Malformed::Invalid("text"))?;
    let mut fields = line.split(' ').skip(1);
    let family = fields.next();
    if family == Some("UNKNOWN") {
        return Ok(Header::Whole { length, client: None });
    }
    let mut address = || -> Result<IpAddr, Malformed> {
        let text = fields.next().unwrap_or_default();
        let ip = match family {
            Some("TCP4") => text.parse::<Ipv4Addr>().map(IpAddr::V4).ok(),
            Some("TCP6") => text.parse::<Ipv6Addr>().map(IpAddr::V6).ok(),
            _ => return Err(Malformed::Invalid("family")),
        };
        ip.ok_or(Malformed::Invalid("address"))
    };
    let (client, _) = (address()?, address()?);
    let (source, _) = (port(fields.next())?, port(fields.next())?);
    match fields.next() {
        None => Ok(Header::Whole { length, client: Some(SocketAddr::new(client, source)) }),
        Some(_) => Err(Malformed::Invalid("end of line")),
    }
}

/// Digits alone, without leading zeros.
fn port(text: Option<&str>) -> Result<u16, Malformed> {
    let text = text.unwrap_or_default();
    let port = text.parse().map_err(|_| Malformed::Invalid("port"))?;
    if text.starts_with('+') || (text.starts_with('0') && text.len() > 1) {
        return Err(Malformed::Invalid("port"));
    }
    Ok(port)
}

fn v2(bytes: &[u8]) -> Result<Header, Malformed> {
    let Some((first, rest)) = bytes.split_first_chunk::<16>() else { return Ok(Header::Partial) };
    let [.., version_and_command, family, high, low] = *first;
    let told = usize::from(u16::from_be_bytes([high, low]));
    if version_and_command >> 4 != 2 {
        return Err(Malformed::Invalid("version"));
    }
    if told > LONGEST_V2 {
        return Err(Malformed::TooLong);
    }
    let Some(told) = rest.get(..told) else { return Ok(Header::Partial) };
    let whole = first.len().saturating_add(told.len());
    let client = match (version_and_command & 0xf, family) {
        // What the balancer says of its own connections, or cannot say, is not looked at.
        (0, _) | (1, 0x00) => None,
        (1, 0x11) => {
            let ([a, b, c, d, _, _, _, _, high, low, _, _], additions) =
                told.split_first_chunk::<12>().ok_or(Malformed::Invalid("address"))?;
            check(bytes, whole, additions)?;
            Some(SocketAddr::new(Ipv4Addr::new(*a, *b, *c, *d).into(), u16::from_be_bytes([*high, *low])))
        }
        (1, 0x21) => {
            let (addresses, additions) = told.split_first_chunk::<36>().ok_or(Malformed::Invalid("address"))?;
            check(bytes, whole, additions)?;
            let (client, rest) = addresses.split_first_chunk::<16>().ok_or(Malformed::Invalid("address"))?;
            let port = rest.get(16..18).and_then(|port| port.first_chunk::<2>()).copied().unwrap_or_default();
            Some(SocketAddr::new(Ipv6Addr::from(*client).into(), u16::from_be_bytes(port)))
        }
        (1, 0x31) => {
            let (_, additions) = told.split_first_chunk::<216>().ok_or(Malformed::Invalid("address"))?;
            check(bytes, whole, additions)?;
            None
        }
        (1, _) => return Err(Malformed::Invalid("family")),
        _ => return Err(Malformed::Invalid("command")),
    };
    Ok(Header::Whole { length: whole, client })
}

/// The header by which a service is told of a client that reached us at `local`. Of a client without an address it says that
/// nothing is known.
pub fn header(version: Version, client: Option<SocketAddr>, local: SocketAddr) -> Vec<u8> {
    let (client, local) = match client {
        None => return unknown(version),
        Some(client) if client.is_ipv4() == local.is_ipv4() => (client, local),
        // One of them is mapped, so that both are of one family.
        Some(client) => (mapped(client), mapped(local)),
    };
    match version {
        Version::V1 => {
            let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (client.ip(), local.ip());
            format!("PROXY {family} {from} {to} {} {}\r\n", client.port(), local.port()).into_bytes()
        }
        Version::V2 => {
            let (family, length) = if client.is_ipv4() { (0x11, 12) } else { (0x21, 36) };
            let mut header = [V2.as_slice(), &[0x21, family, 0, length]].concat();
            for ip in [client.ip(), local.ip()] {
                match ip {
                    IpAddr::V4(ip) => header.extend_from_slice(&ip.octets()),
                    IpAddr::V6(ip) => header.extend_from_slice(&ip.octets()),
                }
            }
            header.extend_from_slice(&client.port().to_be_bytes());
            header.extend_from_slice(&local.port().to_be_bytes());
            header
        }
    }
}

fn unknown(version: Version) -> Vec<u8> {
    match version {
        Version::V1 => b"PROXY UNKNOWN\r\n".to_vec(),
        Version::V2 => [V2.as_slice(), &[0x21, 0, 0, 0]].concat(),
    }
}

fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

/// Goes through what follows the addresses, each with a type and a length; `additions` are the last bytes of the header,
/// which has `length`.
fn check(bytes: &[u8], length: usize, mut additions: &[u8]) -> Result<(), Malformed> {
    while let Some(([kind, high, low], rest)) = additions.split_first_chunk::<3>() {
        let value = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, after) = rest.split_at_checked(value).ok_or(Malformed::Invalid("addition"))?;
        if *kind == CRC32C {
            let told = value.first_chunk::<4>().filter(|_| value.len() == 4).ok_or(Malformed::Invalid("checksum"))?;
            let place = length.saturating_sub(rest.len());
            let counted = bytes.iter().take(length).enumerate();
            let zeroed = counted.map(|(i, byte)| if i.wrapping_sub(place) < 4 { 0 } else { *byte });
            if crc32c(zeroed) != u32::from_be_bytes(*told) {
                return Err(Malformed::Invalid("checksum"));
            }
        }
        additions = after;
    }
    if additions.is_empty() { Ok(()) } else { Err(Malformed::Invalid("addition")) }
}

/// RFC 3720 appendix B.4: the polynomial of Castagnoli, reflected.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    !bytes.fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & 0_u32.wrapping_sub(crc & 1)))
    })
}

#[cfg(test)]
mod tests;
