//! One request on one connection, until the head of its answer is here.

use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header};
use pylon_core::body::Body;
use pylon_core::connection::Interim;
use pylon_http1::answer::{Head, HeadReader};
use pylon_http1::body::{Decoder, Piece};
use pylon_http1::spare::{give_reader, take_reader};
use pylon_http1::write;

use super::body::UpstreamBody;
use super::conn::Conn;
use super::encode::{self, Framing, RequestHead};
use super::pump::{Pump, PumpError};
use super::scratch;
use super::switch;
use crate::clocks::Clocks;
use crate::endpoint::Lease;
use crate::error::Fault;
use crate::head::HeadError;
use crate::service_side::ServiceSide;
use pylon_core::spare;

/// Bodies up to this size go out in one write with the head, by a copy.
const INLINE: usize = 16 * 1024;
/// How many interim answers are read before the upstream is thought to be broken.
pub(crate) const MAX_INTERIM: u8 = 32;

/// A request that has been sent, or is being sent.
#[derive(Debug)]
pub(crate) struct Flight {
    conn: Conn,
    reader: Box<HeadReader>,
    pump: Option<Box<Pump>>,
    /// Whether the upstream stopped taking the request, so that the connection is of no further use.
    cut: bool,
    interim: u8,
}

/// What reading an answer needs to know of its request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a Method,
    /// The longest head, in bytes.
    pub(crate) max_head: usize,
    /// Where interim answers go, and whether the client understands them.
    pub(crate) interim: &'a Interim,
    pub(crate) version: Version,
    /// The key of the handshake, where a switch to WebSocket is asked for.
    pub(crate) key: Option<&'a HeaderValue>,
}

impl Flight {
    /// Sends what can be sent at once. A stream is taken out of `body`; bytes at hand stay there for another attempt.
    pub(crate) fn launch(
        mut conn: Conn,
        head: &RequestHead<'_>,
        body: &mut Body,
        expecting: Option<Instant>,
    ) -> Result<Self, Fault> {
        let pump = scratch::with_head(|out| {
            encode::request(out, head)?;
            let rest = match body {
                Body::Empty | Body::Tunnel(_) => Body::Empty,
                Body::Full(bytes) if bytes.len() <= INLINE => {
                    out.extend_from_slice(bytes);
                    Body::Empty
                }
                Body::Full(bytes) => Body::Full(Bytes::clone(bytes)),
                Body::Stream(_) if head.framing == Framing::Empty => Body::Empty,
                Body::Stream(_) => std::mem::take(body),
            };
            if !matches!(rest, Body::Empty) {
                return Ok(Some(Pump::new(out, false, rest, head.framing, expecting)));
            }
            let sent = match conn.stream.try_write(out) {
                Ok(sent) => sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return Err(Fault::Unsent(error)),
            };
            let left = out.get(sent..).unwrap_or_default();
            let whole = left.is_empty() && conn.stream.is_flushed();
            Ok((!whole).then(|| Pump::new(left, sent > 0, Body::Empty, Framing::Empty, None)))
        })?;
        Ok(Self { conn, reader: take_reader(), pump, cut: false, interim: 0 })
    }

    /// Goes on sending, and reads until the head of the final answer is whole.
    pub(crate) fn poll_head(&mut self, cx: &mut Context<'_>, asked: &Asked<'_>) -> Poll<Result<Head, Fault>> {
        loop {
            self.poll_pump(cx)?;
            if self.conn.buf.capacity() == 0 {
                self.conn.buf = spare::take_read();
            }
            match self.conn.poll_read(cx, spare::READ) {
                Poll::Pending => {
                    // A buffer that waits is one more that has left the processor's caches when something comes.
                    if self.conn.buf.is_empty() {
                        spare::give_read(std::mem::take(&mut self.conn.buf));
                    }
                    return Poll::Pending;
                }
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(self.reset(io::ErrorKind::UnexpectedEof.into()))),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.reset(error))),
                Poll::Ready(Ok(_)) => {}
            }
            while let Some(head) = self.next(asked)? {
                if !head.status.is_informational() || self.switches(&head, asked)? {
                    return Poll::Ready(Ok(head));
                }
                self.interim(&head, asked)?;
            }
        }
    }

    fn next(&mut self, asked: &Asked<'_>) -> Result<Option<Head>, HeadError> {
        Ok(self.reader.read(&mut self.conn.buf, asked.method, asked.max_head)?)
    }

    /// When the request's body last moved on, where it is a stream: the timers for the answer run from there.
    pub(crate) fn moved(&self) -> Option<Instant> {
        self.pump.as_ref().and_then(|pump| pump.moved())
    }

    /// Whether nothing can be sent because the client has not sent it yet.
    pub(crate) fn awaits_client(&self) -> bool {
        self.pump.as_ref().is_some_and(|pump| pump.awaits_client())
    }

    /// The answer. The connection goes back to the pool at once where all of it is here.
    pub(crate) fn answer(
        self,
        head: Head,
        lease: Lease,
        clocks: Clocks,
        now: Instant,
    ) -> Result<Response<Body>, Fault> {
        let Self { mut conn, reader, pump, cut, .. } = self;
        give_reader(reader);
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response(head, Body::Tunnel(Box::new(ServiceSide::http1(conn, lease)))));
        }
        // A body that still waits for its `100 Continue` is not wanted any more.
        let (pump, cut) = match pump {
            Some(pump) if pump.is_expecting() => (None, true),
            Some(pump) if pump.is_done() => (None, cut),
            _ if cut => (None, cut),
            pump => (pump, cut),
        };
        let keep = head.keep_alive && !cut;
        let mut decoder = Decoder::of_answer(head.length);
        let first = decoder.next(&mut conn.buf).map_err(HeadError::from)?;
        decoder.finish_if_whole(&mut conn.buf);
        let body = match first {
            Piece::Data(data) if decoder.is_done() => Body::Full(data),
            Piece::End => Body::Empty,
            first => {
                let body = UpstreamBody::new(first, decoder, conn, keep, pump, lease, clocks);
                return Ok(response(head, Body::stream(body)));
            }
        };
        // Bytes beyond the answer belong to nobody; an answer to half a request ends the connection.
        if keep && pump.is_none() && conn.buf.is_empty() {
            lease.give_back(conn, now);
        }
        Ok(response(head, body))
    }

    fn poll_pump(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        let Some(pump) = self.pump.as_mut().filter(|_| !self.cut) else { return Ok(()) };
        match pump.poll(&mut self.conn.stream, cx) {
            // One that is done stays, since it knows when the body last moved.
            Poll::Pending | Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(PumpError::Body(error))) => return Err(Fault::Body(error)),
            Poll::Ready(Err(PumpError::Write(error))) if !pump.wrote() => return Err(Fault::Unsent(error)),
            // The upstream may have answered before it stopped reading (RFC 9112 §9.5): what it said comes first.
            Poll::Ready(Err(PumpError::Write(_))) => self.cut = true,
        }
        Ok(())
    }

    /// Whether this is the switch of protocols that was asked for. One that comes before the whole request is out is not.
    fn switches(&self, head: &Head, asked: &Asked<'_>) -> Result<bool, Fault> {
        let sent = !self.cut && self.pump.as_ref().is_none_or(|pump| pump.is_done());
        match asked.key.filter(|_| sent && head.status == StatusCode::SWITCHING_PROTOCOLS) {
            Some(key) => Ok(switch::check(&head.headers, key.as_bytes()).map(|()| true)?),
            None => Ok(false),
        }
    }

    fn interim(&mut self, head: &Head, asked: &Asked<'_>) -> Result<(), Fault> {
        self.interim = self.interim.saturating_add(1);
        match head.status {
            StatusCode::SWITCHING_PROTOCOLS => return Err(HeadError::Switched.into()),
            _ if self.interim > MAX_INTERIM => return Err(HeadError::Interim.into()),
            StatusCode::CONTINUE => {
                if let Some(pump) = &mut self.pump {
                    pump.go_on();
                }
            }
            // RFC 9110 §15.2: not to be sent to a client of HTTP/1.0.
            _ if asked.version != Version::HTTP_10 => {
                asked.interim.push(&wire(head.status, &head.headers));
            }
            _ => {}
        }
        Ok(())
    }

    fn reset(&self, source: io::Error) -> Fault {
        Fault::Reset { source, answered: self.interim > 0 || !self.conn.buf.is_empty() }
    }
}

fn response(head: Head, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    response
}

/// An interim answer as it is passed on: without the fields that concern one connection only.
pub(crate) fn wire(status: StatusCode, headers: &HeaderMap) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    let named: Vec<&[u8]> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        .collect();
    for (name, value) in headers {
        let hop = [header::CONNECTION, header::UPGRADE, header::CONTENT_LENGTH, header::TE, header::TRAILER]
            .contains(name)
            || matches!(name.as_str(), "keep-alive" | "proxy-connection")
            || named.iter().any(|option| option.eq_ignore_ascii_case(name.as_str().as_bytes()));
        if !hop {
            write::field(&mut out, name, value.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
    out
}
