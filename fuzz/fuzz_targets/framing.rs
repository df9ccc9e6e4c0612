//! Any bytes from an upstream: never a panic, and the same meaning however the network splits them.

#![no_main]

use bytes::BytesMut;
use http::Method;
use libfuzzer_sys::fuzz_target;
use pylon_http1::answer::HeadReader;
use pylon_http1::body::{Decoder, Piece};

/// Head, body, trailers, whether the body is over, and what is left behind it.
type Meaning = Result<Option<(String, Vec<u8>, String, bool, Vec<u8>)>, ()>;

fuzz_target!(|input: (u8, u8, bool, &[u8])| {
    let (first, second, head_only, bytes) = input;
    let method = if head_only { Method::HEAD } else { Method::GET };
    let (a, b) = (usize::from(first).min(bytes.len()), usize::from(second).min(bytes.len()));
    let (a, b) = (a.min(b), a.max(b));
    let whole = read(&method, &[bytes]);
    let split = read(&method, &[&bytes[..a], &bytes[a..b], &bytes[b..]]);
    assert_eq!(whole, split);
});

fn read(method: &Method, pieces: &[&[u8]]) -> Meaning {
    let (mut reader, mut buf) = (HeadReader::default(), BytesMut::new());
    let mut under_way: Option<(String, Decoder)> = None;
    let (mut data, mut trailers) = (Vec::new(), String::new());
    for piece in pieces {
        buf.extend_from_slice(piece);
        if under_way.is_none() {
            match reader.read(&mut buf, method, 4096).map_err(drop)? {
                None => continue,
                Some(head) => {
                    let text = format!("{} {:?} {}", head.status, head.headers, head.keep_alive);
                    under_way = Some((text, Decoder::of_answer(head.length)));
                }
            }
        }
        let Some((_, decoder)) = &mut under_way else { continue };
        loop {
            match decoder.next(&mut buf).map_err(drop)? {
                Piece::Data(bytes) => data.extend_from_slice(&bytes),
                Piece::Trailers(fields) => trailers = format!("{fields:?}"),
                Piece::More | Piece::End => break,
            }
            decoder.finish_if_whole(&mut buf);
        }
    }
    Ok(under_way.map(|(head, decoder)| (head, data, trailers, decoder.is_done(), buf.to_vec())))
}
