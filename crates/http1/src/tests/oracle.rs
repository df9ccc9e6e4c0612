//! Two other readers as the oracle of ours: the simplest one there is, and hyper's codec. None of them ever sees another
//! request, or another body, and ours means the same however the network splits the bytes. Shared with the fuzz target
//! `requests`.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::rt::ReadBufCursor;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;

use super::pylon_http1::body::{Decoder, Piece};
use super::pylon_http1::request::{HeadReader, Refusal};

/// Method, number of fields, and body.
pub(super) type Seen = (String, usize, Vec<u8>);

/// What was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) requests: Vec<Seen>,
    /// Where each of them ends.
    pub(super) ends: Vec<usize>,
    /// Whether each asks for another protocol.
    pub(super) upgrades: Vec<bool>,
    /// Where and why it ended early.
    pub(super) refused: Option<(usize, Refusal)>,
}

/// The longest head.
const LIMIT: usize = 1 << 20;

/// Panics where the readers disagree. Answers how many requests hyper saw.
pub(super) fn check(bytes: &[u8]) -> usize {
    let read = read([bytes]);
    assert_eq!(read, self::read(bytes.chunks(1)));
    assert_eq!(read, self::read(bytes.chunks(7)));
    let mut begin = 0;
    for (end, seen) in read.ends.iter().zip(&read.requests) {
        assert_eq!(seen, &understood(&bytes[begin..*end]));
        begin = *end;
    }
    // What hyper gets: all that is fine.
    let good = read.refused.map_or(bytes.len(), |(at, _)| at);
    let seen = serve(bytes[..good].to_vec());
    assert!(seen.len() <= read.requests.len(), "hyper saw more: {seen:?} for {read:?}");
    for (seen, ours) in seen.iter().zip(&read.requests) {
        assert_eq!(seen, ours);
    }
    seen.len()
}

/// Reads requests out of these pieces.
pub(super) fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Read {
    let (mut read, mut buf, mut fed) = (Read::default(), BytesMut::new(), 0);
    let (mut reader, mut under_way) = (HeadReader::default(), None::<(Seen, bool, Decoder)>);
    for piece in pieces {
        fed += piece.len();
        buf.extend_from_slice(piece);
        loop {
            let Some((seen, upgrade, decoder)) = &mut under_way else {
                match reader.read(&mut buf, LIMIT) {
                    Ok(None) => break,
                    Ok(Some(head)) => {
                        let seen = (head.request.method().to_string(), head.request.headers().len(), Vec::new());
                        under_way = Some((seen, head.upgrade, Decoder::of_request(head.length)));
                    }
                    Err(refusal) => {
                        read.refused = Some((fed - buf.len() + reader.at(), refusal));
                        return read;
                    }
                }
                continue;
            };
            match decoder.next(&mut buf) {
                Ok(Piece::Data(data)) => {
                    seen.2.extend_from_slice(&data);
                    decoder.finish_if_whole(&mut buf);
                }
                Ok(Piece::Trailers(_)) => {}
                Ok(Piece::More) => break,
                Ok(Piece::End) => {
                    read.requests.push(std::mem::take(seen));
                    read.upgrades.push(*upgrade);
                    read.ends.push(fed - buf.len());
                    under_way = None;
                }
                Err(fault) => {
                    read.refused = Some((fed - buf.len(), Refusal::Fault(fault)));
                    return read;
                }
            }
        }
    }
    read
}

/// A request that was let pass, read in the simplest way: strictness makes it the only one.
fn understood(bytes: &[u8]) -> Seen {
    let bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let end = find(bytes, b"\r\n\r\n").expect("a head that ends");
    let (head, mut body) = (&bytes[..end], &bytes[end + 4..]);
    let method = head.split(|byte| *byte == b' ').next().unwrap_or_default();
    let fields: Vec<&[u8]> = head.split(|byte| *byte == b'\n').skip(1).collect();
    let chunked = fields.iter().any(|field| field.to_ascii_lowercase().starts_with(b"transfer-encoding:"));
    let data = if chunked {
        let mut data = Vec::new();
        loop {
            let line = find(body, b"\r\n").expect("a line");
            let digits = body[..line].split(|byte| *byte == b';').next().unwrap_or_default();
            let size = usize::from_str_radix(std::str::from_utf8(digits).expect("digits"), 16).expect("a size");
            body = &body[line + 2..];
            if size == 0 {
                break data;
            }
            data.extend_from_slice(&body[..size]);
            body = body[size..].strip_prefix(b"\r\n").expect("the end of a chunk");
        }
    } else {
        body.to_vec()
    };
    (String::from_utf8_lossy(method).into_owned(), fields.len(), data)
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// The requests that hyper makes of these bytes, those whose bodies came whole.
fn serve(bytes: Vec<u8>) -> Vec<Seen> {
    let seen: Rc<RefCell<Vec<Seen>>> = Rc::default();
    let service = service_fn(|request: http::Request<Incoming>| {
        let seen = Rc::clone(&seen);
        async move {
            let (head, mut body) = request.into_parts();
            let (mut data, mut whole) = (Vec::new(), true);
            while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                match frame.map(Frame::into_data) {
                    Ok(Ok(bytes)) => data.extend_from_slice(&bytes),
                    Ok(Err(_trailers)) => {}
                    Err(_) => whole = false,
                }
            }
            if whole {
                seen.borrow_mut().push((head.method.to_string(), head.headers.len(), data));
            }
            Ok::<_, Infallible>(http::Response::new(String::new()))
        }
    });
    let mut builder = Builder::new();
    builder.ignore_invalid_headers(false).max_header_size(64 * 1024);
    let mut connection = pin!(builder.serve_connection(Memory { bytes, at: 0 }, service));
    let mut cx = Context::from_waker(Waker::noop());
    // Until nothing more comes of it.
    let (mut before, mut idle) = (0, 0);
    while idle < 32 && connection.as_mut().poll(&mut cx).is_pending() {
        let now = seen.borrow().len();
        idle = if now > before { 0 } else { idle + 1 };
        before = now;
    }
    seen.take()
}

/// A client that has sent everything, and stays. (hyper drops the last request of one that is gone.)
struct Memory {
    bytes: Vec<u8>,
    at: usize,
}

impl hyper::rt::Read for Memory {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let left = &self.bytes[self.at..];
        if left.is_empty() {
            return Poll::Pending;
        }
        let taken = left.len().min(buf.remaining());
        buf.put_slice(&left[..taken]);
        self.at += taken;
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Memory {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
