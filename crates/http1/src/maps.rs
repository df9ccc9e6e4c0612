//! Maps of fields of a thread that nobody uses at the moment, so that a head needs no memory of its own.

use std::cell::RefCell;

use http::HeaderMap;

/// How many a thread keeps.
const SPARE: usize = 32;
/// Maps that grew over this are not kept, in fields.
const FIELDS: usize = 64;

thread_local! {
    static MAPS: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
}

/// An empty map with room for so many fields.
pub fn take(fields: usize) -> HeaderMap {
    let mut map = MAPS.with_borrow_mut(Vec::pop).unwrap_or_default();
    map.reserve(fields);
    map
}

/// Gives back a map that nobody reads any more.
pub fn give(mut map: HeaderMap) {
    if map.capacity() == 0 || map.capacity() > FIELDS {
        return;
    }
    map.clear();
    MAPS.with_borrow_mut(|kept| {
        if kept.len() < SPARE {
            kept.push(map);
        }
    });
}
