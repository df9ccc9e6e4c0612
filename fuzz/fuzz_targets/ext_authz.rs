//! Any bytes as the answer of an authorization service: never a panic, the same fields once they are written again, and a yes only where
//! the message has a status that is none of failure.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pylon_policy::authorize::external::check::{Said, answer};
use pylon_policy::protobuf::{Value, Writer, fields};

fuzz_target!(|bytes: &[u8]| {
    let mut body = vec![0];
    body.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or_default().to_be_bytes());
    body.extend_from_slice(bytes);
    let said = answer(&body);
    // Whole or not at all.
    for end in [body.len() / 2, body.len() - 1] {
        assert!(answer(&body[..end]).is_err());
    }
    let Ok(read) = fields(bytes).collect::<Result<Vec<_>, _>>() else {
        assert!(said.is_err());
        return;
    };
    if let Ok(Said::Allowed { .. }) = said {
        let status = read.iter().rev().find_map(|field| match field {
            (1, Value::Bytes(status)) => Some(*status),
            _ => None,
        });
        let codes = fields(status.unwrap()).map(Result::unwrap).filter(|(number, _)| *number == 1);
        assert!(codes.last().is_none_or(|(_, code)| code == Value::Number(0)));
    }
    let mut again = Writer::default();
    for (number, value) in &read {
        match value {
            Value::Number(value) => again.number(*number, *value),
            Value::Bytes(value) => again.bytes(*number, value),
            Value::Other => {}
        }
    }
    let again = again.into_bytes();
    let kept = read.into_iter().filter(|(_, value)| !matches!(value, Value::Other | Value::Number(0) | Value::Bytes([])));
    assert!(fields(&again).map(Result::unwrap).eq(kept));
});
