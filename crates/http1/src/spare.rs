//! What a thread has and nobody uses at the moment: maps of fields, and readers of answers with their memory.

use std::cell::RefCell;

use http::HeaderMap;

use crate::answer::HeadReader;

/// How many of each a thread keeps.
const SPARE: usize = 32;
/// Maps that grew over this are not kept, in fields.
const FIELDS: usize = 64;

// Boxed, so that a call that waits for an answer has room for it.
type Readers = Vec<Box<HeadReader>>;

thread_local! {
    static MAPS: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
    static READERS: RefCell<Readers> = const { RefCell::new(Vec::new()) };
}

/// An empty map with room for so many fields.
pub fn take_map(fields: usize) -> HeaderMap {
    let mut map = MAPS.with_borrow_mut(Vec::pop).unwrap_or_default();
    map.reserve(fields);
    map
}

/// Gives back a map that nobody reads any more.
pub fn give_map(mut map: HeaderMap) {
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

/// A reader that has read nothing yet.
pub fn take_reader() -> Box<HeadReader> {
    READERS.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Gives back a reader whose last head was whole.
pub fn give_reader(mut reader: Box<HeadReader>) {
    reader.rest();
    READERS.with_borrow_mut(|kept| {
        if kept.len() < SPARE {
            kept.push(reader);
        }
    });
}
