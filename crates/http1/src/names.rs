//! Names of fields that are seen often, told without a hash of theirs and without a copy.

use http::HeaderName;

/// The same names twice: as they are written, which can be looked at while this is compiled, and as names.
macro_rules! names {
    ($($text:literal)*) => {
        const TEXTS: [&str; COUNT] = [$($text),*];
        static NAMES: [HeaderName; COUNT] = [$(HeaderName::from_static($text)),*];
    };
}

const COUNT: usize = 82;

names! {
    "host" "connection" "accept" "accept-encoding" "accept-language" "accept-charset" "accept-ranges" "user-agent"
    "content-length" "content-type" "content-encoding" "content-language" "content-disposition" "content-location"
    "content-range" "transfer-encoding" "cookie" "set-cookie" "authorization" "cache-control" "pragma" "origin"
    "referer" "te" "trailer" "upgrade" "expect" "via" "forwarded" "from" "range" "if-match" "if-none-match"
    "if-modified-since" "if-unmodified-since" "if-range" "date" "dnt" "upgrade-insecure-requests"
    "access-control-request-method" "access-control-request-headers" "access-control-allow-origin"
    "access-control-allow-credentials" "access-control-expose-headers" "sec-websocket-key" "sec-websocket-version"
    "sec-websocket-protocol" "sec-websocket-extensions" "sec-websocket-accept" "proxy-authorization"
    "proxy-connection" "keep-alive" "x-forwarded-for" "x-forwarded-proto" "x-forwarded-host" "x-real-ip"
    "x-request-id" "traceparent" "tracestate" "grpc-timeout" "sec-fetch-mode" "sec-fetch-site" "sec-fetch-dest"
    "sec-fetch-user" "priority" "max-forwards" "server" "etag" "last-modified" "expires" "age" "location" "vary"
    "link" "allow" "retry-after" "strict-transport-security" "x-content-type-options" "x-frame-options"
    "content-security-policy" "referrer-policy" "www-authenticate"
}

/// The place of a name that is none of these.
pub(crate) const OTHER: u8 = u8::MAX;

pub(crate) const CONNECTION: u8 = at("connection");
pub(crate) const CONTENT_LENGTH: u8 = at("content-length");
pub(crate) const EXPECT: u8 = at("expect");
pub(crate) const TE: u8 = at("te");
pub(crate) const TRANSFER_ENCODING: u8 = at("transfer-encoding");
pub(crate) const UPGRADE: u8 = at("upgrade");

/// Where each name stands, by `place`: no two have the same, which is looked at while this is compiled.
#[expect(clippy::indexing_slicing, reason = "computed when this is compiled, where an index out of bounds is an error")]
static INDEX: [u8; 512] = {
    let mut table = [OTHER; 512];
    let mut at = 0;
    while at < COUNT {
        let place = place(TEXTS[at].as_bytes());
        assert!(table[place] == OTHER, "two names have the same place");
        table[place] = at as u8;
        at += 1;
    }
    table
};

/// A number below 512 for a name, whatever its case.
const fn place(name: &[u8]) -> usize {
    let [first, .., last] = name else { return 0 };
    let (_, [middle, ..]) = name.split_at(name.len() / 2) else { return 0 };
    let (_, [third, ..]) = name.split_at(name.len().saturating_sub(3)) else { return 0 };
    (name.len() * 187 + low(*first) * 140 + low(*last) * 90 + low(*middle) * 239 + low(*third) * 205) % 512
}

/// In lower case, where it is a letter.
const fn low(byte: u8) -> usize {
    (byte | 0x20) as usize
}

#[expect(clippy::indexing_slicing, reason = "computed when this is compiled, where an index out of bounds is an error")]
const fn at(name: &str) -> u8 {
    let mut at = 0;
    while at < COUNT {
        if eq(TEXTS[at].as_bytes(), name.as_bytes()) {
            return at as u8;
        }
        at += 1;
    }
    OTHER
}

#[expect(clippy::indexing_slicing, reason = "computed when this is compiled, where an index out of bounds is an error")]
const fn eq(one: &[u8], other: &[u8]) -> bool {
    let mut at = 0;
    while at < one.len() && at < other.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    one.len() == other.len()
}

/// Which of these names `written` is, in whatever case; [`OTHER`] where it is none.
pub(crate) fn find(written: &[u8]) -> u8 {
    let index = INDEX.get(place(written)).copied().unwrap_or(OTHER);
    match TEXTS.get(usize::from(index)) {
        Some(name) if name.as_bytes().eq_ignore_ascii_case(written) => index,
        _ => OTHER,
    }
}

/// The name at a place.
pub(crate) fn name(index: u8) -> Option<&'static HeaderName> {
    NAMES.get(usize::from(index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_mean_something_here_are_known() {
        for index in [CONNECTION, CONTENT_LENGTH, EXPECT, TE, TRANSFER_ENCODING, UPGRADE] {
            assert_ne!(index, OTHER);
        }
    }

    #[test]
    fn names_are_found_in_any_case_and_nothing_else_is() {
        for text in TEXTS {
            assert_eq!(name(find(text.to_ascii_uppercase().as_bytes())).unwrap(), text);
            assert_eq!(find(format!("{text}x").as_bytes()), OTHER);
        }
        for other in ["", "x", "hosts", "hos\x14", "content_length", "Content-Lengtj", "te\u{212a}"] {
            assert_eq!(find(other.as_bytes()), OTHER, "{other:?}");
        }
    }
}
