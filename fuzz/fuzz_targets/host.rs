//! Any bytes as a host of a request, any text as a host pattern: names are stable, patterns take what they are made of.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pylon_core::host::{HostName, HostPattern};

fuzz_target!(|input: (&[u8], &str)| {
    let (bytes, text) = input;
    if let Ok(host) = HostName::parse(bytes) {
        let again = HostName::parse(host.as_str().as_bytes()).map(|host| host.as_str().to_owned());
        assert_eq!(again.as_deref(), Ok(host.as_str()));
        assert!(!host.as_str().bytes().any(|byte| byte.is_ascii_uppercase() || byte.is_ascii_whitespace()));
        if !host.as_str().starts_with('[') {
            let pattern = HostPattern::parse(host.as_str()).expect("a host is a pattern of itself");
            assert!(pattern.takes(Some(host.as_str())));
        }
    }
    if let Ok(pattern) = HostPattern::parse(text) {
        let written = pattern.to_string();
        assert_eq!(HostPattern::parse(&written), Ok(pattern.clone()));
        let sample = written.replacen('*', "a", 1);
        if let Ok(host) = HostName::parse(sample.as_bytes()) {
            assert!(pattern.takes(Some(host.as_str())));
        }
    }
});
