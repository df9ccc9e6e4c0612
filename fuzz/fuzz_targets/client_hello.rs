//! Any first bytes of a connection that should be TLS: never a panic, and the same name whatever follows.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pylon_net::client_hello::{Hello, parse};

fuzz_target!(|input: (u16, &[u8])| {
    let (cut, bytes) = input;
    let part = &bytes[..usize::from(cut).min(bytes.len())];
    let settled = parse(part);
    match &settled {
        Ok(Hello::Partial(needed)) => return assert!(*needed > part.len() && *needed <= 16 << 10),
        Ok(Hello::Whole { name: Some(name) }) => {
            assert!(name.bytes().all(|byte| !byte.is_ascii_uppercase() && byte.is_ascii_graphic()));
        }
        _ => {}
    }
    assert_eq!(parse(bytes), settled);
});
