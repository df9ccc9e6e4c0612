//! The static table (RFC 7541 appendix A).

use http::HeaderName;

/// Where the dynamic table begins.
pub(super) const DYNAMIC: usize = 62;

pub(super) const AUTHORITY: usize = 1;
pub(super) const METHOD: usize = 2;
pub(super) const PATH: usize = 4;
pub(super) const SCHEME: usize = 6;
pub(super) const STATUS: usize = 8;
pub(super) const ACCEPT_ENCODING: usize = 16;

/// The same names twice: as they are written, which can be looked at while this is compiled, and as names.
macro_rules! names {
    ($($text:literal)*) => {
        const TEXTS: [&str; COUNT] = [$($text),*];
        static NAMES: [HeaderName; COUNT] = [$(HeaderName::from_static($text)),*];
    };
}

const COUNT: usize = 47;

// The names behind those of pseudo-fields, the first at 15.
names! {
    "accept-charset" "accept-encoding" "accept-language" "accept-ranges" "accept" "access-control-allow-origin"
    "age" "allow" "authorization" "cache-control" "content-disposition" "content-encoding" "content-language"
    "content-length" "content-location" "content-range" "content-type" "cookie" "date" "etag" "expect" "expires"
    "from" "host" "if-match" "if-modified-since" "if-none-match" "if-range" "if-unmodified-since"
    "last-modified" "link" "location" "max-forwards" "proxy-authenticate" "proxy-authorization" "range"
    "referer" "refresh" "retry-after" "server" "set-cookie" "strict-transport-security" "transfer-encoding"
    "user-agent" "vary" "via" "www-authenticate"
}

/// Where each name stands, by `place`: no two have the same, which is looked at while this is compiled. 0 is nowhere.
#[expect(clippy::indexing_slicing, reason = "computed when this is compiled, where an index out of bounds is an error")]
const INDEX: [u8; 128] = {
    let mut table = [0; 128];
    let mut at = 0;
    while at < COUNT {
        let place = place(TEXTS[at].as_bytes());
        assert!(table[place] == 0, "two names have the same place");
        table[place] = at as u8 + 15;
        at += 1;
    }
    table
};

/// Of a name that is not empty.
const fn place(name: &[u8]) -> usize {
    let [first, .., last] = name else { return 0 };
    let (_, [middle, ..]) = name.split_at(name.len() / 2) else { return 0 };
    (name.len() + *first as usize * 44 + *last as usize * 45 + *middle as usize * 7) % 128
}

/// The name of an entry that is no pseudo-field.
pub(super) fn name(index: usize) -> Option<&'static HeaderName> {
    NAMES.get(index.checked_sub(15)?)
}

/// Where a name stands.
pub(super) fn index(name: &HeaderName) -> Option<usize> {
    let index = usize::from(*INDEX.get(place(name.as_str().as_bytes()))?);
    self::name(index).filter(|known| *known == name).map(|_| index)
}
