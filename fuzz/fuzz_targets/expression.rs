//! Any text as an expression over any request: read or refused, and evaluated to yes, no or an error within its bounds.

#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use pylon_cel::{Expression, Facts, LONGEST};
use pylon_core::caller::Caller;
use serde_json::json;

fuzz_target!(|input: (&str, &str, &str, &[u8])| {
    let (source, path, query, header) = input;
    let Ok(expression) = Expression::read(source) else { return };
    assert!(source.len() <= LONGEST);
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(header) {
        headers.append(HeaderName::from_static("x"), value);
    }
    let claims = json!({ "level": 3, "roles": [path, "admin"], "realm": { "name": query } });
    let caller = Caller {
        claims: claims.as_object().cloned().unwrap_or_default(),
        groups: ["staff".into(), path.into()].into(),
        ..Caller::default()
    };
    for caller in [None, Some(&caller)] {
        let facts = Facts {
            method: "GET",
            path,
            sent_path: path,
            query,
            host: "a.test",
            scheme: "https",
            headers: &headers,
            client: [192, 0, 2, 1].into(),
            time: 1_800_000_000,
            id: "id-1",
            caller,
            decode: str::to_owned,
        };
        let (first, again) = (expression.holds(&facts), expression.holds(&facts));
        // Maps have no order, and errors may show one.
        assert_eq!(first.as_ref().ok(), again.as_ref().ok());
    }
});
