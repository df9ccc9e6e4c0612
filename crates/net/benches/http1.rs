//! What reading a request costs.

use bytes::BytesMut;
use divan::Bencher;
use pylon_net::http1::body::{Decoder, Piece};
use pylon_net::http1::head::{HeadReader, Length};

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
fn read(bencher: Bencher, which: &str) {
    let bytes = match which {
        "small" => SMALL,
        "browser" => BROWSER,
        _ => CHUNKED,
    };
    let (mut reader, mut buf) = (HeadReader::default(), BytesMut::with_capacity(16 * 1024));
    bencher.bench_local(|| {
        buf.reserve(bytes.len());
        buf.extend_from_slice(divan::black_box(bytes));
        let head = reader.read(&mut buf, 64 * 1024).ok().flatten();
        let mut decoder = Decoder::new(head.as_ref().map_or(Length::Empty, |head| head.length));
        while matches!(decoder.next(&mut buf), Ok(Piece::Data(_))) {}
        head
    });
}
