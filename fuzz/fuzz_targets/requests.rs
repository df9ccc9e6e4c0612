//! Any bytes from a client of HTTP/1.1: the strict scanner means the same however the network splits them, and the codec
//! behind it never sees another request, or another body, than the scanner let pass.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pylon_net::strict;

#[path = "../../crates/net/src/strict/oracle.rs"]
mod oracle;

fuzz_target!(|bytes: &[u8]| {
    oracle::check(bytes);
});
