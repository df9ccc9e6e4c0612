//! Names and values of headers that stand in documents, kept so that a request copies them for nothing.
//!
//! A header made of static bytes is copied without allocation and without touching a count that other workers write
//! too. Each distinct text is kept once for the life of the process, up to `CAP` bytes in all; what is over is counted
//! like any other, so that a thousand reloads with new texts cost a bound and no more.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::header::InvalidHeaderValue;
use http::{HeaderName, HeaderValue};
use parking_lot::Mutex;

/// The most that is kept, in bytes.
const CAP: usize = 256 * 1024;

static KEPT: Mutex<Kept> = Mutex::new(Kept { texts: BTreeSet::new(), bytes: 0 });

struct Kept {
    texts: BTreeSet<&'static str>,
    bytes: usize,
}

impl Kept {
    fn keep(&mut self, text: &str) -> Option<&'static str> {
        if let Some(kept) = self.texts.get(text) {
            return Some(kept);
        }
        if self.bytes + text.len() > CAP {
            return None;
        }
        let kept: &'static str = Box::leak(text.into());
        self.bytes += kept.len();
        self.texts.insert(kept);
        Some(kept)
    }
}

/// A header value that is cheap to clone.
pub fn value(text: &str) -> Result<HeaderValue, InvalidHeaderValue> {
    let checked = HeaderValue::from_str(text)?;
    let kept = KEPT.lock().keep(text);
    kept.map_or(Ok(checked), |kept| HeaderValue::from_maybe_shared(Bytes::from_static(kept.as_bytes())))
}

/// The same name, cheap to clone.
pub fn name(name: &HeaderName) -> HeaderName {
    // The text comes from a valid name, which is what `from_static` panics without.
    KEPT.lock().keep(name.as_str()).map_or_else(|| name.clone(), HeaderName::from_static)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_once_and_no_more_than_the_cap() {
        let mut kept = Kept { texts: BTreeSet::new(), bytes: 0 };
        let first = kept.keep("x-a").unwrap();
        assert!(std::ptr::eq(first, kept.keep("x-a").unwrap()));
        assert!(kept.keep(&"y".repeat(CAP)).is_none());
        assert_eq!(kept.bytes, 3);
    }

    #[test]
    fn names_and_values_stay_what_they_were() {
        assert_eq!(value("a b").unwrap(), "a b");
        assert!(value("a\nb").is_err());
        let custom = HeaderName::from_bytes(b"X-Custom_Name").unwrap();
        assert_eq!(name(&custom), custom);
        assert_eq!(name(&http::header::VARY), http::header::VARY);
    }
}
