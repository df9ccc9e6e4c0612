//! The streams of a connection (RFC 9113 §5): what has come on each, how wide its windows are, and how it ended.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::task::{Context, Waker};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::error::Error;

/// Payloads from this size on are kept as they came; smaller ones are copied together, so that many small ones do not hold
/// a whole buffer each.
pub(crate) const LARGE: usize = 4096;

/// One stream.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    /// 0 where there is none.
    pub(crate) id: u32,
    /// How many handles there are.
    pub(crate) handles: u8,
    pub(crate) received: Received,
    /// The peer sends nothing more.
    pub(crate) receive_over: bool,
    /// Nobody reads what comes.
    pub(crate) unread: bool,
    /// How much the peer may send.
    pub(crate) receive_window: i64,
    /// What was handed to the reader, who has not said yet that it is taken.
    pub(crate) lent: usize,
    /// What was taken and is not told to the peer yet.
    pub(crate) taken: u32,
    /// What is missing of the announced length.
    pub(crate) length_left: Option<u64>,
    pub(crate) reader: Option<Waker>,
    /// Whether a final head has been sent or, on a client, received.
    pub(crate) answered: bool,
    /// The answer has no body, whatever its fields say.
    pub(crate) bodiless: bool,
    /// We send nothing more.
    pub(crate) send_over: bool,
    /// How much we may send; less than nothing where the peer has taken some of it back.
    pub(crate) send_window: i64,
    pub(crate) writer: Option<Waker>,
    /// Stands among those that wait for the connection.
    pub(crate) queued: bool,
    /// How it ended before its time.
    pub(crate) failed: Option<Error>,
}

/// The head of an answer.
pub(crate) type Answer = (StatusCode, HeaderMap);

/// What has come and was not taken yet.
#[derive(Debug, Default)]
pub(crate) struct Received {
    /// Seldom there, and so not looked at where it is not.
    pub(crate) interim: Option<VecDeque<Answer>>,
    pub(crate) answer: Option<Answer>,
    pieces: VecDeque<Bytes>,
    tail: Vec<u8>,
    /// How much data there is.
    pub(crate) data: usize,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Received {
    /// Adds a small payload.
    pub(crate) fn copy(&mut self, payload: &[u8]) {
        self.data = self.data.saturating_add(payload.len());
        self.tail.extend_from_slice(payload);
    }

    /// Adds a large one.
    pub(crate) fn push(&mut self, payload: Bytes) {
        self.data = self.data.saturating_add(payload.len());
        if !self.tail.is_empty() {
            self.pieces.push_back(std::mem::take(&mut self.tail).into());
        }
        self.pieces.push_back(payload);
    }

    /// Takes some of the data.
    pub(crate) fn take(&mut self) -> Option<Bytes> {
        if self.data == 0 {
            return None;
        }
        let piece = self.pieces.pop_front().unwrap_or_else(|| std::mem::take(&mut self.tail).into());
        self.data = self.data.saturating_sub(piece.len());
        Some(piece)
    }

    /// Drops all, and answers how much data that was.
    pub(crate) fn clear(&mut self) -> usize {
        self.interim = None;
        self.answer = None;
        if !self.pieces.is_empty() {
            self.pieces.clear();
        }
        self.tail = Vec::new();
        self.trailers = None;
        std::mem::take(&mut self.data)
    }
}

impl Stream {
    /// Makes this place that of another stream, and keeps its room.
    fn begin(&mut self, id: u32, receive_window: i64, send_window: i64) {
        self.received.clear();
        // Each by itself: a place is taken and given back by every stream, and a whole one is long to copy.
        self.id = id;
        self.handles = 0;
        (self.receive_over, self.unread, self.answered, self.bodiless) = (false, false, false, false);
        (self.send_over, self.queued) = (false, false);
        (self.receive_window, self.send_window) = (receive_window, send_window);
        (self.lent, self.taken) = (0, 0);
        self.length_left = None;
        self.reader = None;
        self.writer = None;
        self.failed = None;
    }

    /// Whether neither side sends any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.failed.is_some() || (self.receive_over && self.send_over)
    }

    /// Whether nothing is left to be read.
    pub(crate) fn is_read(&self) -> bool {
        self.receive_over && self.received.data == 0 && self.received.trailers.is_none()
    }

    pub(crate) fn wake_reader(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    pub(crate) fn wake_writer(&mut self) {
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }

    pub(crate) fn wake(&mut self) {
        self.wake_reader();
        self.wake_writer();
    }
}

/// Notes by whom to be called.
pub(crate) fn register(waker: &mut Option<Waker>, cx: &Context<'_>) {
    if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *waker = Some(cx.waker().clone());
    }
}

/// Where a stream stands.
pub(crate) type Key = u32;

/// All streams of a connection.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    places: Vec<Stream>,
    free: Vec<Key>,
    /// Those that are not closed.
    open: HashMap<u32, Key, BuildHasherDefault<IdHasher>>,
}

impl Streams {
    /// How many are not closed.
    pub(crate) fn open(&self) -> usize {
        self.open.len()
    }

    /// Begins a stream.
    pub(crate) fn begin(&mut self, id: u32, receive_window: i64, send_window: i64) -> Key {
        let key = self.free.pop().unwrap_or_else(|| {
            self.places.push(Stream::default());
            self.places.len().saturating_sub(1) as Key
        });
        if let Some(place) = self.places.get_mut(key as usize) {
            place.begin(id, receive_window, send_window);
        }
        self.open.insert(id, key);
        key
    }

    /// The stream that stands there, if it is this one.
    pub(crate) fn get(&mut self, key: Key, id: u32) -> Option<&mut Stream> {
        self.places.get_mut(key as usize).filter(|stream| stream.id == id)
    }

    /// The stream that stands there, whichever it is.
    pub(crate) fn at(&mut self, key: Key) -> Option<&mut Stream> {
        self.places.get_mut(key as usize).filter(|stream| stream.id != 0)
    }

    /// A stream that is not closed.
    pub(crate) fn find(&mut self, id: u32) -> Option<(Key, &mut Stream)> {
        let key = *self.open.get(&id)?;
        self.places.get_mut(key as usize).map(|stream| (key, stream))
    }

    /// The stream is closed: no frame finds it any more.
    pub(crate) fn close(&mut self, id: u32) {
        self.open.remove(&id);
    }

    /// Gives the place of a closed stream back that nobody holds.
    pub(crate) fn free(&mut self, key: Key) {
        if let Some(place) = self.places.get_mut(key as usize) {
            place.begin(0, 0, 0);
            self.free.push(key);
        }
        if self.open.is_empty() && self.free.len() == self.places.len() && self.places.len() > KEEP {
            self.places.truncate(KEEP);
            self.places.shrink_to_fit();
            self.free.retain(|key| (*key as usize) < KEEP);
            self.open.shrink_to_fit();
        }
    }

    /// How many places are taken.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.places.iter().filter(|place| place.id != 0).count()
    }

    /// All that are not closed.
    pub(crate) fn each_open(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.places.iter_mut().filter(|stream| stream.id != 0 && !stream.is_closed())
    }
}

/// How many places are kept where there is no stream.
const KEEP: usize = 16;

/// Numbers of streams are in nobody's gift: they only grow, and few of them are open.
#[derive(Debug, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u32(&mut self, id: u32) {
        self.0 = u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
