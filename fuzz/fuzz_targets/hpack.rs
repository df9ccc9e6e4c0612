//! Any bytes as blocks of fields: the decoder never panics, keeps to its limit, and what it has read is written and read again
//! as the same.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use pylon_http2::hpack::{Decoder, Encoder, Field};

fuzz_target!(|bytes: &[u8]| {
    let (mut decoder, mut encoder, mut again) = (Decoder::default(), Encoder::default(), Decoder::default());
    // Blocks end at this byte, which stands in few of them.
    for block in bytes.split(|byte| *byte == 0xfd) {
        let mut fields = Vec::new();
        let Ok(summary) = decoder.decode(block, 4096, |field| fields.push(field)) else { return };
        let size: usize = fields.iter().map(size).sum();
        assert!(size <= 4096 && size <= summary.size);
        encoder.set_max(block.len() * 64);
        let mut out = BytesMut::new();
        encoder.begin(&mut out);
        let mut written = Vec::new();
        for field in fields {
            match &field {
                Field::Regular(name, value) => encoder.field(name, value, &mut out),
                Field::Authority(authority) if written.is_empty() => encoder.authority(authority, &mut out),
                Field::Status(status) if written.is_empty() => encoder.status(*status, &mut out),
                _ => continue,
            }
            written.push(field);
        }
        let mut read = Vec::new();
        let summary = again.decode(&out, usize::MAX, |field| read.push(field)).unwrap();
        assert!(!summary.malformed);
        assert_eq!(read, written);
    }
});

fn size(field: &Field) -> usize {
    32 + match field {
        Field::Regular(name, value) => name.as_str().len() + value.len(),
        Field::Method(method) => 7 + method.as_str().len(),
        Field::Status(_) => 10,
        Field::Scheme(value) => 7 + value.len(),
        Field::Authority(value) => 10 + value.len(),
        Field::Path(value) => 5 + value.len(),
        Field::Protocol(value) => 9 + value.len(),
    }
}
