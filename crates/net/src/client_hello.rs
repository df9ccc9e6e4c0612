//! Which name a client asks for in the first message of TLS, read without taking part in the handshake.
//!
//! RFC 8446 §4.1.2, RFC 5246 §7.4.1.2 and RFC 6066 §3, as far as the name goes; what else the message says is between the
//! client and the service. Where the name could be read in two ways the message is refused, since the service might read it
//! in the other one. Of an encrypted message (ECH) the outer name counts.

use std::io;
use std::time::Instant;

use bytes::BytesMut;
use tokio::io::AsyncReadExt as _;

use crate::socket::Socket;
use crate::timer::timeout_at;

/// How long the message with its records may be. Those of browsers have 2 KiB.
const LONGEST: usize = 16 << 10;
/// How much is read at once.
const STEP: usize = 4 << 10;
/// The type of records of the handshake.
const HANDSHAKE: u8 = 22;
/// The type of the message.
const CLIENT_HELLO: u8 = 1;

/// What the first bytes of a connection come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hello {
    /// The beginning of a message; at least so many bytes are needed to go on.
    Partial(usize),
    /// A message.
    Whole {
        /// The name that is asked for, in lower case and without a dot at its end.
        name: Option<Box<str>>,
    },
}

/// Why the first bytes of a connection are no message that begins TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoHello {
    /// They do not begin like one.
    #[error("this is not TLS")]
    OtherProtocol,
    /// It is too long.
    #[error("the first message of TLS is too long")]
    TooLong,
    /// It is not what TLS says.
    #[error("the first message of TLS has no valid {0}")]
    Invalid(&'static str),
}

/// Why no name is known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unread {
    /// The bytes are none that begin TLS.
    #[error(transparent)]
    NoHello(#[from] NoHello),
    /// The socket failed, ended, or was too slow.
    #[error("no whole first message of TLS: {0}")]
    Broken(#[from] io::Error),
}

/// Reads until the name is known. Answers with what was read, which is for the service, and the name.
pub(crate) async fn read(socket: &mut Socket, deadline: Instant) -> Result<(BytesMut, Option<Box<str>>), Unread> {
    let reading = async {
        let (mut bytes, mut needed) = (BytesMut::new(), 1);
        loop {
            while bytes.len() < needed {
                bytes.reserve(STEP);
                if socket.read_buf(&mut bytes).await? == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
            }
            match parse(&bytes)? {
                Hello::Partial(more) => needed = more,
                Hello::Whole { name } => return Ok((bytes, name)),
            }
        }
    };
    timeout_at(Some(deadline), reading).await.map_err(|_| Unread::Broken(io::ErrorKind::TimedOut.into()))?
}

/// Reads the name from the first bytes of a connection; what follows the message is not looked at.
pub fn parse(bytes: &[u8]) -> Result<Hello, NoHello> {
    let (mut rest, mut message) = (bytes, Vec::new());
    loop {
        let read = bytes.len().saturating_sub(rest.len());
        if rest.first().is_some_and(|kind| *kind != HANDSHAKE) || rest.get(1).is_some_and(|major| *major != 3) {
            return Err(if read == 0 { NoHello::OtherProtocol } else { NoHello::Invalid("record") });
        }
        let Some(([_, _, _, high, low], after)) = rest.split_first_chunk::<5>() else {
            return partial(read.saturating_add(5));
        };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if length == 0 || length > LONGEST {
            return Err(NoHello::Invalid("record"));
        }
        let Some((fragment, after)) = after.split_at_checked(length) else {
            return partial(read.saturating_add(5).saturating_add(length));
        };
        message.extend_from_slice(fragment);
        if let Some(&[kind, a, b, c]) = message.first_chunk::<4>() {
            if kind != CLIENT_HELLO {
                return Err(NoHello::Invalid("type"));
            }
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            if length > LONGEST {
                return Err(NoHello::TooLong);
            }
            if let Some(body) = message.get(4..).and_then(|body| body.get(..length)) {
                return Ok(Hello::Whole { name: name(body)? });
            }
        }
        rest = after;
    }
}

fn partial(needed: usize) -> Result<Hello, NoHello> {
    if needed > LONGEST { Err(NoHello::TooLong) } else { Ok(Hello::Partial(needed)) }
}

/// The name in the body of a message.
fn name(body: &[u8]) -> Result<Option<Box<str>>, NoHello> {
    const CUT: NoHello = NoHello::Invalid("length");
    // Version and random.
    let mut rest = body.get(34..).ok_or(CUT)?;
    // Session, cipher suites, compression.
    vector::<1>(&mut rest).ok_or(CUT)?;
    vector::<2>(&mut rest).ok_or(CUT)?;
    vector::<1>(&mut rest).ok_or(CUT)?;
    if rest.is_empty() {
        return Ok(None);
    }
    let mut extensions = vector::<2>(&mut rest).filter(|_| rest.is_empty()).ok_or(CUT)?;
    let mut found = None;
    while let Some((kind, mut after)) = extensions.split_first_chunk::<2>() {
        let content = vector::<2>(&mut after).ok_or(CUT)?;
        extensions = after;
        if *kind == [0, 0] && found.replace(server_name(content)?).is_some() {
            return Err(NoHello::Invalid("name"));
        }
    }
    if extensions.is_empty() { Ok(found) } else { Err(CUT) }
}

/// The one name of the extension.
fn server_name(mut content: &[u8]) -> Result<Box<str>, NoHello> {
    const WRONG: NoHello = NoHello::Invalid("name");
    let list = vector::<2>(&mut content).filter(|_| content.is_empty()).ok_or(WRONG)?;
    // 0 is a host name; no other type was ever defined.
    let (0, mut rest) = list.split_first().ok_or(WRONG).map(|(kind, rest)| (*kind, rest))? else { return Err(WRONG) };
    let name = vector::<2>(&mut rest).filter(|name| rest.is_empty() && !name.is_empty()).ok_or(WRONG)?;
    let name = name.strip_suffix(b".").unwrap_or(name);
    let is_host = name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    let text = std::str::from_utf8(name).ok().filter(|_| is_host).ok_or(WRONG)?;
    Ok(text.to_ascii_lowercase().into())
}

/// Takes bytes with their length, of `N` bytes, before them.
fn vector<'b, const N: usize>(rest: &mut &'b [u8]) -> Option<&'b [u8]> {
    let (length, after) = rest.split_first_chunk::<N>()?;
    let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    let (content, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(content)
}

#[cfg(test)]
mod tests;
