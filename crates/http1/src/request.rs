//! Reads the heads of requests (RFC 9112 §2 to §6), strictly and in one pass: what two readers may understand differently is
//! refused. Pure: it sees bytes as they come, in whatever pieces, and goes on where it was.
//!
//! Left to others: `Host` and the path (the proxy's reading of heads).

use bytes::BytesMut;
use http::{Method, Request, Uri, Version};

use crate::Length;
use crate::classes::{TARGET, TOKEN, is, run};
use crate::fault::Fault;
use crate::fields::{Fields, Place};

/// The longest method, in bytes.
pub const MAX_METHOD: usize = 64;
/// The longest target, in bytes: [`Uri`] counts no further.
pub const MAX_TARGET: usize = u16::MAX as usize - 1;

/// A head that is whole.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is what one field says")]
pub struct Head {
    /// Method, target, version and fields.
    pub request: Request<()>,
    /// Where its body ends.
    pub length: Length,
    /// Whether another request may follow (RFC 9112 §9.3).
    pub keep_alive: bool,
    /// Whether it asks to go on in another protocol, so that what follows may be no HTTP/1.1.
    pub upgrade: bool,
    /// Whether the client waits to be told that its body is wanted.
    pub expects: bool,
    /// Whether the client reads trailers.
    pub trailers: bool,
}

/// Why there is no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// What came is malformed.
    Fault(Fault),
    /// The head is longer than the limit.
    TooLarge,
    /// The target alone is.
    TargetTooLarge,
    /// The target is no URI.
    Uri,
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::ManyFields => Self::TooLarge,
            fault => Self::Fault(fault),
        }
    }
}

/// Finds heads in bytes that come piece by piece.
#[derive(Debug, Default)]
pub struct HeadReader {
    state: State,
    /// Up to here the request line is fine.
    at: usize,
    /// An empty line stood before it.
    led: bool,
    start: usize,
    method: usize,
    target: usize,
    fields: Fields,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// Before a request line.
    #[default]
    Start,
    StartLf,
    Method,
    Target,
    /// So many bytes of the version have come.
    Version(u8),
    /// Behind the CR of the request line.
    LineLf,
    Fields,
}

const VERSION: &[u8; 7] = b"HTTP/1.";

impl HeadReader {
    /// Takes a head out of `buf` once it is whole there; `limit` bounds its length in bytes.
    pub fn read(&mut self, buf: &mut BytesMut, limit: usize) -> Result<Option<Head>, Refusal> {
        if buf.is_empty() {
            return Ok(None);
        }
        if !self.look(buf)? {
            return if buf.len() >= limit { Err(self.too_large(limit)) } else { Ok(None) };
        }
        if self.fields.at > limit {
            return Err(self.too_large(limit));
        }
        self.take(buf).map(Some)
    }

    /// How many bytes of those that were not taken were found fine.
    pub fn at(&self) -> usize {
        if self.state == State::Fields { self.fields.at } else { self.at }
    }

    /// Gives back what only long heads need.
    pub fn rest(&mut self) {
        self.fields.rest();
    }

    fn too_large(&self, limit: usize) -> Refusal {
        let line = if self.state == State::Target { usize::MAX } else { self.target };
        if line >= limit { Refusal::TargetTooLarge } else { Refusal::TooLarge }
    }

    /// Goes on in `bytes`. Answers whether the head is whole.
    fn look(&mut self, bytes: &[u8]) -> Result<bool, Fault> {
        while self.state != State::Fields {
            let rest = bytes.get(self.at..).unwrap_or_default();
            let Some(&byte) = rest.first() else { return Ok(false) };
            match self.state {
                State::Start => match byte {
                    b'\r' if !self.led => self.go(State::StartLf),
                    b'\r' | b'\n' => return Err(Fault::LeadingLines),
                    _ => (self.start, self.state) = (self.at, State::Method),
                },
                State::StartLf if byte == b'\n' => {
                    self.led = true;
                    self.go(State::Start);
                }
                State::Method => self.method(rest)?,
                State::Target => self.target(rest)?,
                State::Version(so_far) => self.version(rest, so_far)?,
                State::LineLf if byte == b'\n' => {
                    self.go(State::Fields);
                    let old = bytes.get(self.at.saturating_sub(3)) == Some(&b'0');
                    self.fields.begin(self.at, Place::Request, old);
                }
                State::StartLf | State::LineLf => return Err(Fault::BareCr),
                State::Fields => {}
            }
        }
        self.fields.read(bytes)
    }

    fn method(&mut self, rest: &[u8]) -> Result<(), Fault> {
        let room = MAX_METHOD.saturating_sub(self.at.saturating_sub(self.start));
        let token = run(rest, TOKEN, room);
        self.at = self.at.saturating_add(token);
        match rest.get(token) {
            None => Ok(()),
            Some(b' ') if self.at > self.start => {
                self.method = self.at;
                self.go(State::Target);
                Ok(())
            }
            Some(b' ' | b'\t' | b'\r' | b'\n') => Err(Fault::RequestLine),
            Some(byte) if is(*byte, TOKEN) => Err(Fault::MethodTooLong),
            Some(_) => Err(Fault::Method),
        }
    }

    fn target(&mut self, rest: &[u8]) -> Result<(), Fault> {
        let from = self.method.saturating_add(1);
        let room = MAX_TARGET.saturating_sub(self.at.saturating_sub(from));
        let target = run(rest, TARGET, room);
        self.at = self.at.saturating_add(target);
        match rest.get(target) {
            None => Ok(()),
            Some(b' ') if self.at > from => {
                self.target = self.at;
                self.go(State::Version(0));
                Ok(())
            }
            Some(b'#') => Err(Fault::Fragment),
            Some(b' ' | b'\t' | b'\r' | b'\n') => Err(Fault::RequestLine),
            Some(byte) if is(*byte, TARGET) => Err(Fault::TargetTooLong),
            Some(_) => Err(Fault::Target),
        }
    }

    fn version(&mut self, rest: &[u8], so_far: u8) -> Result<(), Fault> {
        let Some(byte) = rest.first() else { return Ok(()) };
        match (so_far, byte) {
            // The usual case, at once.
            (0, _) if rest.starts_with(b"HTTP/1.1\r") => {
                (self.at, self.state) = (self.at.saturating_add(9), State::LineLf);
                return Ok(());
            }
            (0..7, _) if VERSION.get(usize::from(so_far)) == Some(byte) => {}
            (7, b'0' | b'1') => {}
            (8, b'\r') => {
                self.go(State::LineLf);
                return Ok(());
            }
            (_, b' ' | b'\t') => return Err(Fault::RequestLine),
            _ => return Err(Fault::Version),
        }
        self.go(State::Version(so_far.saturating_add(1)));
        Ok(())
    }

    fn go(&mut self, state: State) {
        self.at = self.at.saturating_add(1);
        self.state = state;
    }

    /// Takes the head off, and begins anew.
    fn take(&mut self, buf: &mut BytesMut) -> Result<Head, Refusal> {
        let said = self.fields.said;
        let bytes = buf.split_to(self.fields.at).freeze();
        let (start, end, target) = (self.start, self.method, self.target);
        // Nothing of it is in the buffer any more, whatever comes of it.
        (self.state, self.at, self.led) = (State::Start, 0, false);
        (self.start, self.method, self.target) = (0, 0, 0);
        let method = Method::from_bytes(bytes.get(start..end).unwrap_or_default());
        let target = bytes.slice(end.saturating_add(1)..target);
        let mut request = Request::new(());
        *request.method_mut() = method.map_err(|_| Fault::Method)?;
        *request.uri_mut() = Uri::from_maybe_shared(target).map_err(|_| Refusal::Uri)?;
        *request.headers_mut() = self.fields.take(&bytes)?;
        let old = self.fields.old;
        if old {
            *request.version_mut() = Version::HTTP_10;
        }
        Ok(Head {
            request,
            length: match said.length {
                _ if said.chunked => Length::Chunked,
                None | Some(0) => Length::Empty,
                Some(length) => Length::Fixed(length),
            },
            keep_alive: !said.close && (!old || said.keep_alive),
            upgrade: said.upgrade,
            expects: said.expects && !old,
            trailers: said.trailers,
        })
    }
}
