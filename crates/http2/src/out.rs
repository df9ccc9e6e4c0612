//! Bytes on their way out: small frames in one buffer, large payloads as they are.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf as _, Bytes, BytesMut};

/// Payloads from this size on are not copied.
const LARGE: usize = 4096;
/// A buffer that has grown beyond this is given back when it is empty.
const KEEP: usize = 64 << 10;
/// And beyond this where no stream is open.
const KEEP_QUIET: usize = 4096;
/// How many pieces are written at once.
pub(crate) const PIECES: usize = 16;

/// What is to be written, in order.
#[derive(Debug, Default)]
pub(crate) struct Out {
    pieces: VecDeque<Bytes>,
    in_pieces: usize,
    /// What comes behind the pieces.
    pub(crate) tail: BytesMut,
}

impl Out {
    pub(crate) fn len(&self) -> usize {
        self.in_pieces.saturating_add(self.tail.len())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends a payload.
    pub(crate) fn push(&mut self, payload: Bytes) {
        if payload.len() < LARGE {
            self.tail.extend_from_slice(&payload);
            return;
        }
        let before = self.tail.split().freeze();
        self.in_pieces = self.in_pieces.saturating_add(before.len()).saturating_add(payload.len());
        self.pieces.push_back(before);
        self.pieces.push_back(payload);
    }

    /// What may be written next, if that is one piece.
    pub(crate) fn single(&self) -> Option<&[u8]> {
        self.pieces.is_empty().then_some(&self.tail)
    }

    /// What may be written next. Answers how many slices there are.
    pub(crate) fn slices<'a>(&'a self, into: &mut [IoSlice<'a>; PIECES]) -> usize {
        let all = self.pieces.iter().map(|piece| &piece[..]).chain([&self.tail[..]]);
        let mut count: usize = 0;
        for (slice, piece) in into.iter_mut().zip(all) {
            *slice = IoSlice::new(piece);
            count = count.saturating_add(1);
        }
        count
    }

    /// So much has been written.
    pub(crate) fn advance(&mut self, mut wrote: usize) {
        while let Some(piece) = self.pieces.front_mut() {
            if wrote < piece.len() {
                piece.advance(wrote);
                self.in_pieces = self.in_pieces.saturating_sub(wrote);
                return;
            }
            wrote = wrote.saturating_sub(piece.len());
            self.in_pieces = self.in_pieces.saturating_sub(piece.len());
            self.pieces.pop_front();
        }
        if wrote < self.tail.len() {
            self.tail.advance(wrote);
        } else if self.tail.capacity() > KEEP {
            self.tail = BytesMut::new();
        } else {
            self.tail.clear();
        }
    }
    /// Gives back what an idle connection has no need of.
    pub(crate) fn trim(&mut self) {
        if self.is_empty() && self.tail.capacity() > KEEP_QUIET {
            self.tail = BytesMut::new();
        }
    }
}
