//! What it costs to write the head of a request and to read that of an answer.

use bytes::BytesMut;
use divan::Bencher;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method};
use pylon_upstream::h1::encode::{Framing, RequestHead, request};
use pylon_upstream::h1::framing::{Decoder, Length};
use pylon_upstream::h1::parse::HeadReader;

fn main() {
    divan::main();
}

const FIELDS: [(&str, &str); 8] = [
    ("host", "api.example.com"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"),
    ("accept", "application/json"),
    ("accept-encoding", "gzip, br, zstd"),
    ("x-forwarded-for", "192.0.2.1"),
    ("x-forwarded-proto", "https"),
    ("x-request-id", "0192f0c4-7a3b-7c1e-9b1f-2d3e4f5a6b7c"),
    ("via", "1.1 pylon"),
];

#[divan::bench]
fn write_a_request(bencher: Bencher) {
    let headers: HeaderMap =
        FIELDS.iter().filter_map(|(name, value)| Some((name.parse().ok()?, HeaderValue::from_static(value)))).collect();
    let path = PathAndQuery::from_static("/users/42?expand=orders");
    let fallback = HeaderValue::from_static("10.0.0.1:8080");
    let head = RequestHead {
        method: &Method::GET,
        path: &path,
        headers: &headers,
        host: None,
        announced: b"",
        fallback_host: &fallback,
        framing: Framing::Empty,
        websocket: false,
        expects: false,
    };
    let mut out = Vec::with_capacity(1024);
    bencher.bench_local(|| {
        out.clear();
        request(&mut out, &head).is_ok()
    });
}

#[divan::bench]
fn read_an_answer(bencher: Bencher) {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nserver: nginx/1.22.1\r\ndate: Tue, 24 Nov 2026 04:00:00 GMT\r\n\
        content-type: application/json\r\ncontent-length: 100\r\nlast-modified: Mon, 23 Nov 2026 04:00:00 GMT\r\n\
        etag: \"6743\"\r\naccept-ranges: bytes\r\n\r\n";
    bencher
        .with_inputs(|| BytesMut::from(ANSWER))
        .bench_local_values(|mut buf| HeadReader::default().read(&mut buf, &Method::GET, 64 * 1024));
}

#[divan::bench]
fn undo_a_chunked_kilobyte(bencher: Bencher) {
    let wire = [&b"400\r\n"[..], &[b'x'; 1024], b"\r\n0\r\n\r\n"].concat();
    bencher.with_inputs(|| BytesMut::from(&wire[..])).bench_local_values(|mut buf| {
        let mut decoder = Decoder::new(Length::Chunked);
        let first = decoder.next(&mut buf);
        decoder.finish_if_whole(&mut buf);
        (first, decoder.is_done())
    });
}
