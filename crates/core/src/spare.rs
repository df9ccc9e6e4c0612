//! What a thread has and nobody uses at the moment: buffers to read into and to write from, and maps of fields.
//!
//! An idle connection holds none. Each list is short, so that a burst does not leave its memory behind; what was used last is
//! used next, while it is still near.

use std::cell::RefCell;

use bytes::BytesMut;
use http::HeaderMap;

/// The room that a read is given where nothing says that more will come, in bytes.
pub const READ: usize = 16 * 1024;
/// How many buffers of each kind a thread keeps.
const SPARE: usize = 32;
/// And how many maps: a connection of HTTP/2 has many requests under way, each with its answer and their trailers.
const MAPS: usize = 64;
/// Maps that grew over this are not kept, in fields.
const FIELDS: usize = 64;
/// Buffers that grew over this are not kept, in bytes.
const KEEP: usize = 64 * 1024;

thread_local! {
    static READS: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
    static WRITES: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static FREE_MAPS: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
}

/// An empty map with room for so many fields.
pub fn take_map(fields: usize) -> HeaderMap {
    let mut map = FREE_MAPS.with_borrow_mut(Vec::pop).unwrap_or_default();
    if map.capacity() < fields {
        map.reserve(fields);
    }
    map
}

/// Gives back a map that nobody reads any more.
pub fn give_map(mut map: HeaderMap) {
    if map.capacity() == 0 || map.capacity() > FIELDS {
        return;
    }
    map.clear();
    FREE_MAPS.with_borrow_mut(|kept| {
        if kept.len() < MAPS {
            kept.push(map);
        }
    });
}

/// A buffer with room for [`READ`] bytes, made anew only when all are in use.
pub fn take_read() -> BytesMut {
    // Slices of it may still be on their way to a client; then it cannot be had back yet.
    let kept = READS.with_borrow_mut(Vec::pop).and_then(|mut buf| buf.try_reclaim(READ).then_some(buf));
    kept.unwrap_or_else(|| BytesMut::with_capacity(READ))
}

/// Gives back a buffer that holds nothing any more.
pub fn give_read(mut buf: BytesMut) {
    if buf.capacity() == 0 || buf.capacity() > KEEP {
        return;
    }
    buf.clear();
    READS.with_borrow_mut(|kept| {
        if kept.len() < SPARE {
            kept.push(buf);
        }
    });
}

/// An empty buffer to write into.
pub fn take_write() -> Vec<u8> {
    WRITES.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Gives back what was written from.
pub fn give_write(mut buf: Vec<u8>) {
    if buf.capacity() == 0 || buf.capacity() > KEEP {
        return;
    }
    buf.clear();
    WRITES.with_borrow_mut(|kept| {
        if kept.len() < SPARE {
            kept.push(buf);
        }
    });
}
