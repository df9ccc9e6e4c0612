//! Buffers of a thread that nobody uses at the moment: what is read into, and what is written from.
//!
//! An idle connection holds none. Each list is short, so that a burst does not leave its memory behind.

use std::cell::RefCell;

use bytes::BytesMut;

/// The room that a read is given where nothing says that more will come, in bytes.
pub const READ: usize = 16 * 1024;
/// How many of each a thread keeps.
const SPARE: usize = 32;
/// Buffers that grew over this are not kept, in bytes.
const KEEP: usize = 64 * 1024;

thread_local! {
    static READS: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
    static WRITES: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
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
pub(crate) fn take_write() -> Vec<u8> {
    WRITES.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Gives back what was written from.
pub(crate) fn give_write(mut buf: Vec<u8>) {
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
