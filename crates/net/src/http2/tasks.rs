//! The streams of a connection, run in its one task beside the codec: what many of them send goes out by one write.
//!
//! A task of the runtime for each stream would cost an allocation of its own, which the system's allocator is slow at, and
//! two moves of the whole exchange; here the room of a stream that is over serves the next one. Whoever is woken is noted in
//! a list, and only who stands there is polled.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;

/// How many rooms are kept where no stream runs.
const KEEP: usize = 16;
/// Stands for the codec in the list.
const CODEC: u32 = u32::MAX;

/// Streams that run, and who of them, and of the codec, has to be polled.
pub(super) struct Tasks<F> {
    rooms: Vec<Room<F>>,
    free: Vec<u32>,
    /// Whose turn it is in this round.
    turn: Vec<u32>,
    codec: Arc<Entry>,
    codec_waker: Waker,
    list: Arc<List>,
}

/// Where one stream after the other runs.
struct Room<F> {
    future: Pin<Box<Option<F>>>,
    entry: Arc<Entry>,
    waker: Waker,
}

/// What is woken.
#[derive(Debug)]
struct Entry {
    index: u32,
    /// Whether it stands in the list.
    listed: AtomicBool,
    list: Arc<List>,
}

#[derive(Debug, Default)]
struct List(Mutex<Listed>);

#[derive(Debug, Default)]
struct Listed {
    woken: Vec<u32>,
    /// The task of the connection.
    task: Option<Waker>,
    /// The task looks at the list before it sleeps: it need not be woken.
    awake: bool,
}

impl Wake for Entry {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.listed.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut listed = self.list.0.lock();
        listed.woken.push(self.index);
        if listed.awake {
            return;
        }
        listed.awake = true;
        let task = listed.task.clone();
        drop(listed);
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl Entry {
    fn new(index: u32, list: &Arc<List>) -> (Arc<Self>, Waker) {
        let entry = Arc::new(Self { index, listed: AtomicBool::new(false), list: Arc::clone(list) });
        let waker = Waker::from(Arc::clone(&entry));
        (entry, waker)
    }
}

impl<F: Future<Output = ()>> Tasks<F> {
    /// No stream yet; the codec is to be polled.
    pub(super) fn new() -> Self {
        let list = Arc::new(List::default());
        let (codec, codec_waker) = Entry::new(CODEC, &list);
        codec_waker.wake_by_ref();
        Self { rooms: Vec::new(), free: Vec::new(), turn: Vec::new(), codec, codec_waker, list }
    }

    /// By what the codec is woken.
    pub(super) fn codec_waker(&self) -> &Waker {
        &self.codec_waker
    }

    /// The task of `cx` is awake from here on, until [`Tasks::sleep`].
    pub(super) fn awake(&self, cx: &Context<'_>) {
        let mut listed = self.list.0.lock();
        listed.awake = true;
        if !listed.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            listed.task = Some(cx.waker().clone());
        }
    }

    /// Takes those that were woken for one round. Answers whether the codec is one of them.
    pub(super) fn round(&mut self) -> bool {
        self.turn.clear();
        std::mem::swap(&mut self.turn, &mut self.list.0.lock().woken);
        let codec = self.codec.listed.load(Ordering::Acquire);
        if codec {
            self.turn.retain(|index| *index != CODEC);
            self.codec.listed.store(false, Ordering::Release);
        }
        codec
    }

    /// Adds a stream, whose turn is in this round.
    pub(super) fn add(&mut self, future: F) {
        let index = self.free.pop().unwrap_or_else(|| {
            let index = u32::try_from(self.rooms.len()).unwrap_or(CODEC);
            let (entry, waker) = Entry::new(index, &self.list);
            self.rooms.push(Room { future: Box::pin(None), entry, waker });
            index
        });
        if let Some(room) = self.rooms.get_mut(index as usize) {
            room.future.set(Some(future));
            self.turn.push(index);
        }
    }

    /// Polls the streams whose turn it is.
    pub(super) fn poll(&mut self) {
        for at in 0..self.turn.len() {
            let Some(index) = self.turn.get(at).copied() else { continue };
            let Some(room) = self.rooms.get_mut(index as usize) else { continue };
            room.entry.listed.store(false, Ordering::Release);
            // A stream that is over may be woken still.
            let Some(future) = room.future.as_mut().as_pin_mut() else { continue };
            if future.poll(&mut Context::from_waker(&room.waker)).is_ready() {
                room.future.set(None);
                self.free.push(index);
            }
        }
        if self.free.len() == self.rooms.len() && self.rooms.len() > KEEP {
            self.rooms.truncate(KEEP);
            self.free.retain(|index| (*index as usize) < KEEP);
        }
    }

    /// Whether nobody was woken meanwhile, so that the task may sleep until somebody is.
    pub(super) fn sleep(&self) -> Poll<()> {
        let mut listed = self.list.0.lock();
        if !listed.woken.is_empty() {
            return Poll::Pending;
        }
        listed.awake = false;
        Poll::Ready(())
    }
}
