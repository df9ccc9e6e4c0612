//! The bounded queue between the workers' buffers and the writer thread. Its bound counts the memory that is held.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// How large a batch grows before it is handed over, in bytes.
pub(crate) const BATCH: usize = 256 * 1024;

/// How many empty buffers are kept for the workers' next batches.
const SPARE: usize = 4;

/// Whole lines, each ended by a line feed.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) bytes: Vec<u8>,
    pub(crate) lines: u64,
}

impl Batch {
    /// Makes room for a whole batch at once, where there is none.
    pub(crate) fn reserve(&mut self) {
        if self.bytes.capacity() == 0 {
            self.bytes.reserve_exact(BATCH);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.lines = 0;
        if self.bytes.capacity() > 2 * BATCH {
            self.bytes = Vec::new();
        }
    }
}

/// What the writer does next.
#[derive(Debug)]
pub(crate) enum Work {
    /// Open the file anew.
    Reopen,
    /// Write this and give it back.
    Write(Batch),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    /// Something for the writer to do.
    work: Condvar,
    /// The writer has ended.
    ended: Condvar,
    capacity: usize,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Batch>,
    /// Memory of the batches that wait, in bytes.
    held: usize,
    /// Lines that the writer has taken and not written yet.
    writing: u64,
    spare: Vec<Batch>,
    reopen: bool,
    closed: bool,
    ended: bool,
}

impl Queue {
    /// Holds up to `capacity` bytes.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { state: Mutex::default(), work: Condvar::new(), ended: Condvar::new(), capacity }
    }

    /// Takes over a batch and leaves an empty one in its place. Answers false, and takes nothing, when there is no room.
    pub(crate) fn push(&self, batch: &mut Batch) -> bool {
        if batch.lines == 0 {
            return true;
        }
        let mut state = self.state.lock();
        if state.closed || !state.append(batch, self.capacity) {
            return false;
        }
        drop(state);
        self.work.notify_one();
        true
    }

    /// The same at the end of the process, when each worker may hand over one last batch beyond the bound.
    pub(crate) fn push_last(&self, batch: &mut Batch) {
        let mut state = self.state.lock();
        if batch.lines > 0 && !state.closed {
            state.append(batch, usize::MAX);
        }
    }

    /// Asks the writer to open its file anew.
    pub(crate) fn reopen(&self) {
        self.state.lock().reopen = true;
        self.work.notify_one();
    }

    /// Takes nothing more; the writer ends when it has written what waits.
    pub(crate) fn end(&self) {
        self.state.lock().closed = true;
        self.work.notify_one();
    }

    /// The same, and waits for the writer, `within` at most; then gives up what waits. Answers how many lines that were.
    pub(crate) fn close(&self, within: Duration) -> u64 {
        self.end();
        let mut state = self.state.lock();
        self.ended.wait_while_for(&mut state, |state| !state.ended, within);
        state.held = 0;
        let waiting: u64 = state.waiting.drain(..).map(|batch| batch.lines).sum();
        waiting + std::mem::take(&mut state.writing)
    }

    /// Waits for work; none when the queue is closed and empty. What was taken before is given back first.
    pub(crate) fn next(&self, done: Option<Batch>) -> Option<Work> {
        let mut state = self.state.lock();
        state.writing = 0;
        if let Some(mut batch) = done
            && state.spare.len() < SPARE
        {
            batch.clear();
            state.spare.push(batch);
        }
        loop {
            if std::mem::take(&mut state.reopen) {
                return Some(Work::Reopen);
            }
            if let Some(batch) = state.waiting.pop_front() {
                state.held -= batch.bytes.capacity();
                state.writing = batch.lines;
                return Some(Work::Write(batch));
            }
            if state.closed {
                state.ended = true;
                self.ended.notify_all();
                return None;
            }
            self.work.wait(&mut state);
        }
    }

    /// Whether the queue is closed, for a writer that waits for its sink.
    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Memory that waits, in bytes.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.state.lock().held
    }
}

impl State {
    fn append(&mut self, batch: &mut Batch, capacity: usize) -> bool {
        // Small batches of a quiet time share one buffer, so that a stuck sink does not fill the queue with air.
        if let Some(last) = self.waiting.back_mut()
            && last.bytes.capacity() - last.bytes.len() >= batch.bytes.len()
        {
            last.bytes.extend_from_slice(&batch.bytes);
            last.lines += batch.lines;
            batch.clear();
            return true;
        }
        if self.held.saturating_add(batch.bytes.capacity()) > capacity {
            return false;
        }
        self.held += batch.bytes.capacity();
        let empty = self.spare.pop().unwrap_or_default();
        self.waiting.push_back(std::mem::replace(batch, empty));
        true
    }
}
