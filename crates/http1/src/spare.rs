//! Readers of answers that a thread has and nobody uses at the moment, with their memory.

use std::cell::RefCell;

use crate::answer::HeadReader;

/// How many a thread keeps.
const SPARE: usize = 32;

// Boxed, so that a call that waits for an answer has room for it.
type Readers = Vec<Box<HeadReader>>;

thread_local! {
    static READERS: RefCell<Readers> = const { RefCell::new(Vec::new()) };
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
