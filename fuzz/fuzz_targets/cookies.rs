//! Any bytes as cookies, and any content sealed into some: what was sealed comes back whole, and what was not does not open.

#![no_main]

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use pylon_core::cookie;
use pylon_policy::identify::session::fuzzing::{opened, sealed};

fuzz_target!(|input: (bool, usize, Vec<&[u8]>, &[u8])| {
    let (https, flipped, lines, content) = input;
    let mut headers = HeaderMap::new();
    for line in &lines {
        if let Ok(line) = HeaderValue::from_bytes(line) {
            headers.append(COOKIE, line);
        }
    }
    if let Some(value) = cookie::value(&headers, "pylon_session") {
        assert!(
            lines.iter().any(|line| line.windows(value.len().max(1)).any(|part| part == value) || value.is_empty())
        );
    }
    // Nobody who does not know the secret makes one that opens.
    assert_eq!(opened(&headers, https), None);
    let Some(set) = sealed(content, https) else { return };
    let pairs: Vec<&[u8]> =
        set.iter().map(|line| line.as_bytes().split(|byte| *byte == b';').next().unwrap()).collect();
    let mut sent = pairs.join(&b"; "[..]);
    let with = |sent: &[u8]| {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::from_bytes(sent).unwrap());
        opened(&headers, https)
    };
    assert_eq!(with(&sent).map(|(content, _)| content).as_deref(), Some(content));
    // Another letter anywhere, and it is another cookie, or none.
    let place = flipped % sent.len();
    sent[place] = if sent[place] == b'A' { b'B' } else { b'A' };
    assert_eq!(with(&sent), None);
});
