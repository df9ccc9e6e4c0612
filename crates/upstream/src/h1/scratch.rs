//! Buffers of a thread: request heads are written into one, responses are read into those that idle connections gave back.

use std::cell::RefCell;

use bytes::BytesMut;

/// The room that a read for a response head is given, in bytes.
pub(crate) const READ: usize = 16 * 1024;
/// How many read buffers a thread keeps.
const SPARE: usize = 32;
/// Buffers that grew over this are not kept, in bytes.
const KEEP: usize = 64 * 1024;

thread_local! {
    static HEAD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static READS: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// Works with the empty buffer of this thread for request heads. Not to be nested.
pub(crate) fn with_head<R>(work: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    HEAD.with_borrow_mut(|head| {
        head.clear();
        let result = work(head);
        if head.capacity() > KEEP {
            *head = Vec::new();
        }
        result
    })
}

/// A buffer with room for [`READ`] bytes, made anew only when all are in use.
pub(crate) fn take_read() -> BytesMut {
    // Slices of it may still be on their way to a client; then it cannot be had back yet.
    let kept = READS.with_borrow_mut(Vec::pop).and_then(|mut buf| buf.try_reclaim(READ).then_some(buf));
    kept.unwrap_or_else(|| BytesMut::with_capacity(READ))
}

/// Gives back a buffer that holds nothing any more.
pub(crate) fn give_read(mut buf: BytesMut) {
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
