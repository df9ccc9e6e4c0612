//! Tokens of any bytes: they are taken apart or refused, and what the signature is of is always their beginning.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pylon_policy::identify::jwt::token;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(read) = token::read(bytes) {
        assert!(bytes.starts_with(read.signed) && bytes.len() <= token::LONGEST);
        assert_eq!(bytes.get(read.signed.len()), Some(&b'.'));
    }
});
