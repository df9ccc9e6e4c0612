//! The buffer of a thread into which the heads of requests are written.

use std::cell::RefCell;

/// Buffers that grew over this are not kept, in bytes.
const KEEP: usize = 64 * 1024;

thread_local! {
    static HEAD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
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
