//! Frames as a peer writes them, against one side of a connection: what it must not lose, keep, or forget by them.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use http::{Method, Request, StatusCode};
use tokio::io::{AsyncRead as _, AsyncWrite as _, DuplexStream, ReadBuf};

use super::{LIMITS, is_clean};
use crate::client::{self, Driver, Requests};
use crate::server::Server;
use crate::{Error, PREFACE, Reason, RecvStream, SendStream};

/// Indexed fields of the static table, and an authority.
const GET: &[u8] = b"\x82\x86\x84\x41\x01a";
const POST: &[u8] = b"\x83\x86\x84\x41\x01a";
/// A GET that leaves the table as it is.
const PLAIN: &[u8] = b"\x82\x86\x84\x01\x01a";
const ENDS: u8 = 5;
const OPEN: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
    [&[a, b, c, kind, flags], &stream.to_be_bytes()[..], payload].concat()
}

fn settings() -> Vec<u8> {
    frame(4, 0, 0, &[])
}

fn greeting() -> Vec<u8> {
    [&PREFACE[..], &settings()].concat()
}

/// Writes as much as the pipe takes.
fn write(pipe: &mut DuplexStream, bytes: &[u8]) -> usize {
    let cx = &mut Context::from_waker(Waker::noop());
    let mut wrote = 0;
    while let Poll::Ready(more) = Pin::new(&mut *pipe).poll_write(cx, &bytes[wrote..]) {
        wrote += more.unwrap();
        if wrote == bytes.len() {
            break;
        }
    }
    wrote
}

/// The frames that are there: kind, flags, stream and payload.
fn read(pipe: &mut DuplexStream) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let cx = &mut Context::from_waker(Waker::noop());
    let (mut all, mut room) = (Vec::new(), vec![0; 1 << 20]);
    loop {
        let mut buf = ReadBuf::new(&mut room);
        match Pin::new(&mut *pipe).poll_read(cx, &mut buf) {
            Poll::Ready(Ok(())) if !buf.filled().is_empty() => all.extend_from_slice(buf.filled()),
            _ => break,
        }
    }
    let (mut frames, mut rest) = (Vec::new(), &all[..]);
    while let [a, b, c, kind, flags, s, t, u, v, more @ ..] = rest {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        frames.push((*kind, *flags, u32::from_be_bytes([*s, *t, *u, *v]), more[..length].to_vec()));
        rest = &more[length..];
    }
    frames
}

type Taken = (Request<RecvStream>, SendStream);

/// What the server has taken until it waits, and how it ended where it did.
fn take(server: &mut Server<DuplexStream>) -> (Vec<Taken>, Poll<Option<Error>>) {
    let cx = &mut Context::from_waker(Waker::noop());
    let mut taken = Vec::new();
    loop {
        match server.poll_accept(cx) {
            Poll::Ready(Some(Ok(accepted))) => taken.push(accepted),
            Poll::Ready(Some(Err(error))) => return (taken, Poll::Ready(Some(error))),
            Poll::Ready(None) => return (taken, Poll::Ready(None)),
            Poll::Pending => return (taken, Poll::Pending),
        }
    }
}

fn server(pipe: usize) -> (DuplexStream, Server<DuplexStream>) {
    let (near, far) = tokio::io::duplex(pipe);
    (near, Server::new(far, BytesMut::new(), LIMITS))
}

#[test]
fn a_request_taken_back_before_it_is_looked_at_gives_back_the_room_of_its_body() {
    let (mut pipe, mut server) = server(1 << 20);
    let bytes = [
        greeting(),
        frame(1, OPEN, 1, POST),
        frame(0, 0, 1, &[b'x'; 3000]),
        frame(0, 0, 1, &[b'x'; 5000]),
        frame(3, 0, 1, &[0, 0, 0, 8]),
    ];
    write(&mut pipe, &bytes.concat());
    let (taken, end) = take(&mut server);
    assert!(taken.is_empty() && end.is_pending(), "{end:?}");
    is_clean(server.shared());
}

#[test]
fn data_that_was_handed_over_and_never_released_is_given_back_with_its_stream() {
    let (mut pipe, mut server) = server(1 << 20);
    let bytes = [greeting(), frame(1, OPEN, 1, POST), frame(0, 0, 1, &[b'x'; 9000]), frame(0, 1, 1, b"more")];
    write(&mut pipe, &bytes.concat());
    let (mut taken, _) = take(&mut server);
    let (mut request, mut sending) = taken.pop().unwrap();
    let cx = &mut Context::from_waker(Waker::noop());
    let Poll::Ready(Some(Ok(data))) = request.body_mut().poll_data(cx) else { panic!("no data") };
    assert_eq!(data.len(), 9000);
    request.body_mut().release(4000);
    sending.answer(StatusCode::OK, true, |_| {}).unwrap();
    drop((request, sending));
    is_clean(server.shared());
}

#[test]
fn frames_of_streams_behind_the_last_do_not_end_those_that_run() {
    let (mut pipe, mut server) = server(1 << 20);
    write(&mut pipe, &[greeting(), frame(1, ENDS, 1, GET)].concat());
    let (mut taken, _) = take(&mut server);
    server.end_gracefully();
    write(&mut pipe, &frame(6, 1, 0, b"farewell"));
    let late = [
        frame(1, OPEN, 3, POST),
        frame(0, 0, 3, &[b'x'; 5000]),
        frame(8, 0, 3, &[0, 0, 0, 9]),
        frame(0, 1, 3, &[b'x'; 5000]),
        frame(3, 0, 3, &[0, 0, 0, 8]),
    ];
    write(&mut pipe, &late.concat());
    let (more, end) = take(&mut server);
    assert!(more.is_empty() && end.is_pending(), "{end:?}");
    let (request, mut sending) = taken.pop().unwrap();
    sending.answer(StatusCode::OK, true, |_| {}).unwrap();
    drop((request, sending));
    assert!(matches!(take(&mut server).1, Poll::Ready(None)));
    is_clean(server.shared());
    let told = read(&mut pipe);
    assert!(told.iter().any(|(kind, flags, stream, _)| (*kind, *flags, *stream) == (1, ENDS, 1)), "{told:?}");
    let lasts: Vec<_> = told.iter().filter(|frame| frame.0 == 7).map(|frame| frame.3[..4].to_vec()).collect();
    assert_eq!(lasts, [[0x7f, 0xff, 0xff, 0xff], [0, 0, 0, 1]]);
}

#[test]
fn the_last_stream_of_a_farewell_never_grows() {
    let (mut pipe, mut server) = server(1 << 20);
    write(&mut pipe, &[greeting(), frame(1, ENDS, 1, GET)].concat());
    let (_taken, _) = take(&mut server);
    server.end_gracefully();
    // A stream that is too late, and then what ends the connection.
    let bytes = [frame(6, 1, 0, b"farewell"), frame(1, ENDS, 7, GET), frame(5, 4, 7, &[0, 0, 0, 2])];
    write(&mut pipe, &bytes.concat());
    assert!(matches!(take(&mut server).1, Poll::Ready(Some(_))));
    let lasts: Vec<_> = read(&mut pipe).into_iter().filter(|frame| frame.0 == 7).map(|frame| frame.3[3]).collect();
    assert_eq!(lasts, [0xff, 1, 1]);
}

#[test]
fn a_stream_that_we_reset_is_remembered_behind_many_that_ended_well() {
    let (mut pipe, mut server) = server(1 << 20);
    write(&mut pipe, &[greeting(), frame(1, OPEN, 1, POST)].concat());
    let (mut taken, _) = take(&mut server);
    // Answered before its body: the rest is on its way still.
    let (request, mut sending) = taken.pop().unwrap();
    sending.answer(StatusCode::PAYLOAD_TOO_LARGE, true, |_| {}).unwrap();
    drop((request, sending));
    for number in 0..300 {
        write(&mut pipe, &frame(1, ENDS, 3 + 2 * number, GET));
        for (request, mut sending) in take(&mut server).0 {
            sending.answer(StatusCode::OK, true, |_| {}).unwrap();
            drop(request);
        }
    }
    read(&mut pipe);
    write(&mut pipe, &[frame(0, 0, 1, b"late"), frame(1, ENDS, 1, b"\x00\x01t\x01x")].concat());
    let (_, end) = take(&mut server);
    assert!(end.is_pending(), "{end:?}");
    assert!(read(&mut pipe).iter().all(|frame| frame.0 != 3 && frame.0 != 7));
}

#[test]
fn a_stream_that_has_not_begun_is_never_reset() {
    for priority in [&b"\0\0\0\x01\0"[..], b"\0\0\0"] {
        let (mut pipe, mut server) = server(1 << 20);
        write(&mut pipe, &[greeting(), frame(2, 0, 1, priority), frame(1, ENDS, 1, GET)].concat());
        let (taken, end) = take(&mut server);
        assert!(taken.is_empty() && matches!(end, Poll::Ready(Some(Error::Ended { .. }))), "{end:?}");
        let told = read(&mut pipe);
        assert!(told.iter().all(|frame| frame.0 != 3) && told.iter().any(|frame| frame.0 == 7), "{told:?}");
    }
}

/// Sends `request` again and again on new streams, reads nothing, and answers how much the server holds for the client.
fn unread(mut request: impl FnMut(u32) -> Vec<u8>) -> usize {
    let (mut pipe, mut server) = server(4 << 10);
    write(&mut pipe, &greeting());
    let mut most = 0;
    let mut bytes = Vec::new();
    for number in 0..40_000 {
        bytes.extend(request(1 + 2 * number));
        let wrote = write(&mut pipe, &bytes);
        bytes.drain(..wrote);
        for (request, mut sending) in take(&mut server).0 {
            let long =
                http::HeaderValue::from_static("a value that no other field has, so that each answer takes some room");
            sending.answer(StatusCode::OK, true, |fields| fields.once(&http::header::ETAG, long.as_bytes())).unwrap();
            drop(request);
        }
        most = most.max(server.held());
        if bytes.len() > 100_000 {
            break;
        }
    }
    most
}

#[test]
fn answers_do_not_pile_up_for_a_client_that_reads_none() {
    let held = unread(|stream| frame(1, ENDS, stream, GET));
    assert!(held < 512 << 10, "{held} bytes wait");
}

#[test]
fn heads_that_are_too_large_are_not_answered_without_end() {
    // One field in the table, and then so often that it is beyond the limit.
    let large = |stream: u32| {
        let value = [b'v'; 3000];
        let first = [&b"\x40\x01n\x7f\xb9\x16"[..], &value].concat();
        let block = if stream == 1 { [PLAIN, &first].concat() } else { [PLAIN, &[0xbe; 6]].concat() };
        frame(1, OPEN, stream, &block)
    };
    let held = unread(large);
    assert!(held < 512 << 10, "{held} bytes wait");
}

fn client() -> (DuplexStream, Requests, Driver<DuplexStream>) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let (requests, driver) = client::begin(far, LIMITS);
    (near, requests, driver)
}

#[test]
fn an_answer_that_can_have_no_content_has_none() {
    for (method, status) in [(Method::HEAD, b"\x88"), (Method::GET, b"\x89"), (Method::GET, b"\x8b")] {
        let (mut pipe, requests, mut driver) = client();
        let cx = &mut Context::from_waker(Waker::noop());
        let (mut answer, _sending) =
            requests.send(&method, true, |fields| fields.request(&method, false, b"a.test", [b"/", b""])).unwrap();
        let length = [&status[..], b"\x5c\x015"].concat();
        write(&mut pipe, &[settings(), frame(1, OPEN, 1, &length), frame(0, 1, 1, b"hello")].concat());
        assert!(Pin::new(&mut driver).poll(cx).is_pending());
        let Poll::Ready(Ok(head)) = answer.poll(cx) else { panic!("no answer") };
        let Poll::Ready(Some(Err(error))) = head.into_body().poll(cx) else { panic!("content, or none at all") };
        assert_eq!(error.reason(), Some(Reason::PROTOCOL_ERROR), "{method} {status:x?}");
    }
}

#[test]
fn an_answer_without_content_ends_by_a_frame_without_any() {
    let (mut pipe, requests, mut driver) = client();
    let cx = &mut Context::from_waker(Waker::noop());
    let (mut answer, _sending) = requests
        .send(&Method::HEAD, true, |fields| fields.request(&Method::HEAD, false, b"a.test", [b"/", b""]))
        .unwrap();
    write(&mut pipe, &[settings(), frame(1, OPEN, 1, b"\x88\x5c\x015"), frame(0, 1, 1, b"")].concat());
    assert!(Pin::new(&mut driver).poll(cx).is_pending());
    let Poll::Ready(Ok(head)) = answer.poll(cx) else { panic!("no answer") };
    assert!(matches!(head.into_body().poll(cx), Poll::Ready(None)));
}

#[test]
fn what_is_around_a_value_is_no_part_of_it() {
    for value in [&b" a"[..], b"a ", b"\ta", b"a\t", b" "] {
        let (mut pipe, mut server) = server(1 << 20);
        let field = [&b"\x00\x01n"[..], &[value.len() as u8], value].concat();
        write(&mut pipe, &[greeting(), frame(1, ENDS, 1, &[GET, &field].concat())].concat());
        let (taken, _) = take(&mut server);
        assert!(taken.is_empty(), "{value:?}");
        assert!(read(&mut pipe).contains(&(3, 0, 1, vec![0, 0, 0, 1])));
    }
}
