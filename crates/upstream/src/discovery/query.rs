//! What requests of finders have in common: queries that are escaped, and refusals in words.

use std::fmt::Write as _;

use serde_json::Value;

use crate::fetch::Whole;

/// Adds a parameter to a path that has a query already.
pub(crate) fn add(path: &mut String, name: &str, value: &str) {
    path.push('&');
    path.push_str(name);
    path.push('=');
    path.push_str(&escaped(value));
}

/// For a segment of a path or a value of a query (RFC 3986 §2.1): all but unreserved characters are escaped.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Nothing fails that is written into memory.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// What an answer says that is none: its status, and its message where it has one.
pub(crate) fn refusal(answer: &Whole) -> String {
    let message = serde_json::from_slice::<Value>(&answer.body).ok().and_then(|body| {
        let text = |key: &str| body.get(key).and_then(Value::as_str).map(str::to_owned);
        text("message").or_else(|| text("error"))
    });
    let message = message.unwrap_or_else(|| answer.excerpt());
    if message.is_empty() { answer.status.to_string() } else { format!("{}: {message}", answer.status) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_end_a_value_is_escaped() {
        let mut path = "/v1?a=1".to_owned();
        add(&mut path, "filter", r#"Meta.v == "a&b" ü"#);
        assert_eq!(path, "/v1?a=1&filter=Meta.v%20%3D%3D%20%22a%26b%22%20%C3%BC");
    }
}
