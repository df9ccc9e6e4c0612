//! The codec as the oracle of the scanner: it never sees another request, or another body, than the scanner let pass, and
//! the scanner means the same however the network splits the bytes. Shared with the fuzz target `requests`.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::rt::ReadBufCursor;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;

use super::strict::{Event, POISON, Scanner};

/// Method, number of fields, and body.
type Seen = (String, usize, Vec<u8>);

/// Panics where the two disagree. Answers how many requests the codec saw.
pub(super) fn check(bytes: &[u8]) -> usize {
    let (ends, good) = scan([bytes]);
    assert_eq!((&ends, good), (&scan(bytes.chunks(1)).0, scan(bytes.chunks(1)).1));
    assert_eq!((&ends, good), (&scan(bytes.chunks(7)).0, scan(bytes.chunks(7)).1));
    let mut begin = 0;
    let passed: Vec<Seen> = ends
        .iter()
        .map(|end| {
            let one = &bytes[begin..*end];
            begin = *end;
            understood(one)
        })
        .collect();
    // What the codec gets: all that is fine, and poison behind it.
    let mut given = bytes[..good].to_vec();
    if good < bytes.len() {
        given.extend_from_slice(POISON);
    }
    let seen = serve(given);
    assert!(seen.len() <= passed.len(), "the codec saw more: {seen:?} for {passed:?}");
    for (seen, passed) in seen.iter().zip(&passed) {
        assert_eq!(seen, passed);
    }
    seen.len()
}

/// Where requests end, and how many bytes are fine.
fn scan<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<usize>, usize) {
    let (mut scanner, mut ends, mut at) = (Scanner::default(), Vec::new(), 0);
    for mut piece in pieces {
        while !piece.is_empty() {
            let (fine, event) = scanner.scan(piece);
            at += fine;
            piece = &piece[fine..];
            match event {
                Event::More => {}
                Event::End { .. } => ends.push(at),
                Event::Fault(_) => return (ends, at),
            }
        }
    }
    (ends, at)
}

/// A request that the scanner let pass, read in the simplest way: strictness makes it the only one.
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

/// The requests that the codec makes of these bytes, those whose bodies came whole.
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

/// A client that has sent everything, and stays. (The codec drops the last request of one that is gone.)
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
