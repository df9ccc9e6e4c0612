//! What reading a message costs.

use bytes::BytesMut;
use divan::Bencher;
use http::Method;
use pylon_http1::body::{Decoder, Piece};
use pylon_http1::{Length, answer, request};

fn main() {
    divan::main();
}

const SMALL: &[u8] = b"GET /s HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n";
const BROWSER: &[u8] = b"GET /users/42?expand=orders HTTP/1.1\r\nHost: api.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\nAccept: application/json\r\n\
    Accept-Encoding: gzip, br, zstd\r\nAccept-Language: en-GB,en;q=0.9\r\nConnection: keep-alive\r\n\
    Cookie: session=0192f0c47a3b7c1e9b1f2d3e4f5a6b7c\r\n\r\n";
const CHUNKED: &[u8] = b"POST /s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";

#[divan::bench(args = ["small", "browser", "chunked"])]
fn read_a_request(bencher: Bencher, which: &str) {
    let bytes = match which {
        "small" => SMALL,
        "browser" => BROWSER,
        _ => CHUNKED,
    };
    let (mut reader, mut buf) = (request::HeadReader::default(), BytesMut::with_capacity(16 * 1024));
    bencher.bench_local(|| {
        buf.reserve(bytes.len());
        buf.extend_from_slice(divan::black_box(bytes));
        let head = reader.read(&mut buf, 64 * 1024).ok().flatten();
        let mut decoder = Decoder::of_request(head.as_ref().map_or(Length::Empty, |head| head.length));
        while matches!(decoder.next(&mut buf), Ok(Piece::Data(_))) {}
        head
    });
}

#[divan::bench]
fn read_an_answer(bencher: Bencher) {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nserver: nginx/1.22.1\r\ndate: Tue, 24 Nov 2026 04:00:00 GMT\r\n\
        content-type: application/json\r\ncontent-length: 100\r\nlast-modified: Mon, 23 Nov 2026 04:00:00 GMT\r\n\
        etag: \"6743\"\r\naccept-ranges: bytes\r\n\r\n";
    bencher
        .with_inputs(|| BytesMut::from(ANSWER))
        .bench_local_values(|mut buf| answer::HeadReader::default().read(&mut buf, &Method::GET, 64 * 1024));
}

#[divan::bench]
fn undo_a_chunked_kilobyte(bencher: Bencher) {
    let wire = [&b"400\r\n"[..], &[b'x'; 1024], b"\r\n0\r\n\r\n"].concat();
    bencher.with_inputs(|| BytesMut::from(&wire[..])).bench_local_values(|mut buf| {
        let mut decoder = Decoder::of_answer(Length::Chunked);
        let first = decoder.next(&mut buf);
        decoder.finish_if_whole(&mut buf);
        (first, decoder.is_done())
    });
}
