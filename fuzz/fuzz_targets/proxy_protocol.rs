//! Any first bytes of a connection: never a panic, a header within its bounds, and the same meaning whatever follows it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pylon_net::proxy_protocol::{Header, parse};

fuzz_target!(|input: (u16, &[u8])| {
    let (cut, bytes) = input;
    let part = &bytes[..usize::from(cut).min(bytes.len())];
    let settled = parse(part);
    match settled {
        // Only what is within the bounds of either version may go on.
        Ok(Header::Partial) => return assert!(part.len() < 16 + 4096),
        Ok(Header::Whole { length, .. }) => assert!((15..=16 + 4096).contains(&length) && length <= part.len()),
        Err(_) => {}
    }
    assert_eq!(parse(bytes), settled);
});
