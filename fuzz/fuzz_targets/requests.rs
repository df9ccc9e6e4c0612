//! Any bytes from a client of HTTP/1.1: they mean the same however the network splits them, and two other readers, one of them
//! hyper, never see another request, or another body.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pylon_http1;
#[path = "../../crates/http1/src/tests/oracle.rs"]
mod oracle;

fuzz_target!(|bytes: &[u8]| {
    oracle::check(bytes);
});
