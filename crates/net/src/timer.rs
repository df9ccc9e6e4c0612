//! Timers for the data path: one coarse wheel for each worker, in steps of 10 ms.
//!
//! A timer of the runtime costs about 2,000 instructions when armed and dropped for each request; here it is a few
//! links in a list. A timer never fires early and at most two steps late. Off the workers (control plane, tests
//! without [`run`]) the runtime's own timer is used.
//!
//! The wheel itself is woken by a timer of the system (timerfd_create(2)), and the runtime of a worker has none: it would read
//! the clock before and after each wait for sockets, and have the system arm a timer for each.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use crate::promised::Promised;

/// The step of the wheel.
pub const STEP: Duration = Duration::from_millis(10);
/// Slots of the wheel: one turn takes 10.24 s; longer timers stay for several turns.
const SLOTS: usize = 1024;
/// The end of a list.
const NONE: u32 = u32::MAX;

thread_local! {
    static WHEEL: RefCell<Option<Wheel>> = const { RefCell::new(None) };
    /// How often the wheel has fired something.
    static FIRED: Cell<u32> = const { Cell::new(0) };
}

/// The deadline passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the deadline passed")]
pub struct Elapsed;

/// Waits for `future`, at most until `at`. Without a deadline it just waits.
pub async fn timeout_at<F: Future>(at: Option<Instant>, future: F) -> Result<F::Output, Elapsed> {
    let Some(at) = at else { return Ok(future.await) };
    let mut future = pin!(future);
    let mut sleep = sleep_until(at);
    std::future::poll_fn(move |cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => Pin::new(&mut sleep).poll(cx).map(|()| Err(Elapsed)),
    })
    .await
}

/// A future that is ready once `at` has passed. It costs nothing until it is first polled.
pub fn sleep_until(at: Instant) -> Sleep {
    Sleep { at, state: State::Idle }
}

/// See [`sleep_until`].
#[derive(Debug)]
pub struct Sleep {
    at: Instant,
    state: State,
}

#[derive(Debug)]
enum State {
    Idle,
    /// In the wheel of the thread that polled it first.
    Wheel {
        entry: u32,
        since: Since,
    },
    /// On the runtime's timer.
    Runtime(Pin<Box<tokio::time::Sleep>>),
    Fired,
}

/// Since when a timer is known to run, and to wake whom. A task comes by for each of its sockets, and most often nothing has fired.
#[derive(Debug)]
struct Since {
    fired: u32,
    promised: Promised,
}

impl Since {
    fn now(waker: &Waker) -> Self {
        Self { fired: FIRED.get(), promised: Promised::to(waker) }
    }

    fn holds(&self, waker: &Waker) -> bool {
        self.fired == FIRED.get() && self.promised.is(waker)
    }
}

impl Sleep {
    /// When it fires.
    pub fn at(&self) -> Instant {
        self.at
    }

    /// Moves the deadline. A later deadline on the same wheel keeps its place until the old one comes.
    pub fn reset(&mut self, at: Instant) {
        self.cancel();
        self.at = at;
    }

    fn cancel(&mut self) {
        if let State::Wheel { entry, .. } = std::mem::replace(&mut self.state, State::Idle) {
            WHEEL.with_borrow_mut(|wheel| {
                if let Some(wheel) = wheel {
                    wheel.remove(entry);
                }
            });
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let at = self.at;
        match &mut self.state {
            State::Fired => return Poll::Ready(()),
            State::Runtime(sleep) => return sleep.as_mut().poll(cx),
            State::Wheel { since, .. } if since.holds(cx.waker()) => return Poll::Pending,
            State::Wheel { entry, since } => {
                let entry = *entry;
                let fired =
                    WHEEL.with_borrow_mut(|wheel| wheel.as_mut().is_none_or(|wheel| wheel.poll(entry, cx.waker())));
                if !fired {
                    *since = Since::now(cx.waker());
                    return Poll::Pending;
                }
                self.cancel();
                self.state = State::Fired;
                return Poll::Ready(());
            }
            State::Idle => {}
        }
        let entry = WHEEL.with_borrow_mut(|wheel| wheel.as_mut().map(|wheel| wheel.insert(at, cx.waker())));
        match entry {
            Some(entry) => {
                self.state = State::Wheel { entry, since: Since::now(cx.waker()) };
                Poll::Pending
            }
            None => {
                let mut sleep = Box::pin(tokio::time::sleep_until(at.into()));
                let first = sleep.as_mut().poll(cx);
                self.state = State::Runtime(sleep);
                first
            }
        }
    }
}

/// A future that is ready once `span` has passed.
pub async fn sleep(span: Duration) {
    sleep_until(tokio::time::Instant::now().into_std() + span).await;
}

/// Waits for `future`, at most for `span`.
pub async fn timeout<F: Future>(span: Duration, future: F) -> Result<F::Output, Elapsed> {
    timeout_at(Some(tokio::time::Instant::now().into_std() + span), future).await
}

/// Gives the current thread a wheel and drives it for ever. Every worker spawns this once, before it accepts.
pub fn run(alarm: Alarm) -> impl Future<Output = ()> {
    drive(async move |at| alarm.ring(at).await)
}

/// See [`run`]. `alarm` waits until a moment, or gives up at once where the system does.
fn drive(alarm: impl AsyncFn(Instant)) -> impl Future<Output = ()> {
    let wakeup = Arc::new(Notify::new());
    let start = tokio::time::Instant::now().into_std();
    WHEEL.set(Some(Wheel::new(start, Arc::clone(&wakeup))));
    async move {
        loop {
            let next = WHEEL.with_borrow(|wheel| wheel.as_ref().and_then(Wheel::next_tick));
            match next {
                None => wakeup.notified().await,
                Some(tick) => {
                    let due = start + STEP * u32::try_from(tick).unwrap_or(u32::MAX);
                    tokio::select! {
                        () = alarm(due) => {}
                        // An earlier timer that is armed meanwhile cuts the wait short.
                        () = wakeup.notified() => {}
                    }
                }
            }
            let now = tokio::time::Instant::now().into_std();
            let due = WHEEL.with_borrow_mut(|wheel| wheel.as_mut().map(|wheel| wheel.advance(now)).unwrap_or_default());
            for waker in due {
                waker.wake();
            }
        }
    }
}

/// A timer of the system.
#[derive(Debug)]
pub struct Alarm(AsyncFd<OwnedFd>);

impl Alarm {
    /// One that the present runtime watches. It fails where the system has no file left to give.
    pub fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // SAFETY: what is watched is owned, and is closed by nobody else.
        #[expect(unsafe_code, reason = "the runtime cannot know that of a type")]
        let watched = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) };
        Ok(Self(watched?))
    }

    /// Waits until `at`, or less long where it had rung for an earlier wait that was given up.
    async fn ring(&self, at: Instant) {
        // None at all would disarm it.
        let left = at.saturating_duration_since(tokio::time::Instant::now().into_std()).max(Duration::from_nanos(1));
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        let armed =
            timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: never, it_value: value });
        // What it counts need not be read: the next time is told as the first is.
        if armed.is_ok()
            && let Ok(mut rung) = self.0.readable().await
        {
            rung.clear_ready();
        }
    }
}

/// Timers by the tick at which they fire: doubly linked lists in one arena, so that arming and dropping touch no heap.
#[derive(Debug)]
struct Wheel {
    start: Instant,
    /// All ticks up to this one have fired.
    done: u64,
    /// The tick for which the driver waits; an earlier timer must wake it.
    waited: u64,
    heads: Vec<u32>,
    entries: Vec<Entry>,
    free: u32,
    armed: usize,
    wakeup: Arc<Notify>,
}

#[derive(Debug)]
struct Entry {
    tick: u64,
    previous: u32,
    next: u32,
    waker: Option<Waker>,
    fired: bool,
}

#[expect(
    clippy::indexing_slicing,
    reason = "indices come from the arena itself and slots are taken modulo their number"
)]
impl Wheel {
    fn new(start: Instant, wakeup: Arc<Notify>) -> Self {
        Self {
            start,
            done: 0,
            waited: u64::MAX,
            heads: vec![NONE; SLOTS],
            entries: Vec::new(),
            free: NONE,
            armed: 0,
            wakeup,
        }
    }

    /// The first tick that is not before `at`.
    fn tick_of(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.start);
        u64::try_from(since.as_nanos().div_ceil(STEP.as_nanos())).unwrap_or(u64::MAX)
    }

    fn insert(&mut self, at: Instant, waker: &Waker) -> u32 {
        let tick = self.tick_of(at).max(self.done + 1);
        let slot = slot_of(tick);
        let next = self.heads[slot];
        let entry = Entry { tick, previous: NONE, next, waker: Some(waker.clone()), fired: false };
        let index = if self.free == NONE {
            self.entries.push(entry);
            (self.entries.len() - 1) as u32
        } else {
            let index = self.free;
            self.free = self.entries[index as usize].next;
            self.entries[index as usize] = entry;
            index
        };
        if next != NONE {
            self.entries[next as usize].previous = index;
        }
        self.heads[slot] = index;
        self.armed += 1;
        if tick < self.waited {
            self.waited = tick;
            self.wakeup.notify_one();
        }
        index
    }

    /// Whether the timer has fired; if not, `waker` is the one to wake.
    fn poll(&mut self, index: u32, waker: &Waker) -> bool {
        let Some(entry) = self.entries.get_mut(index as usize) else { return true };
        if !entry.fired && !entry.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            entry.waker = Some(waker.clone());
        }
        entry.fired
    }

    fn remove(&mut self, index: u32) {
        if self.entries.get(index as usize).is_none() {
            return;
        }
        if !self.entries[index as usize].fired {
            self.unlink(index);
        }
        let entry = &mut self.entries[index as usize];
        entry.waker = None;
        entry.next = self.free;
        self.free = index;
    }

    fn unlink(&mut self, index: u32) {
        let Entry { tick, previous, next, .. } = self.entries[index as usize];
        if previous == NONE {
            self.heads[slot_of(tick)] = next;
        } else {
            self.entries[previous as usize].next = next;
        }
        if next != NONE {
            self.entries[next as usize].previous = previous;
        }
        self.armed -= 1;
    }

    /// The next tick at which something may fire, or nothing when no timer is armed. Looks one turn ahead at the most.
    fn next_tick(&self) -> Option<u64> {
        if self.armed == 0 {
            return None;
        }
        let last = self.done + SLOTS as u64;
        let ahead = (self.done + 1..last).find(|tick| self.heads[slot_of(*tick)] != NONE);
        Some(ahead.unwrap_or(last))
    }

    /// Fires all that is due at `now` and gives the wakers, to be woken without the wheel being borrowed.
    fn advance(&mut self, now: Instant) -> Vec<Waker> {
        let reached = (now.saturating_duration_since(self.start).as_nanos() / STEP.as_nanos()) as u64;
        let mut due = Vec::new();
        let first = self.done + 1;
        // After a long sleep one turn covers every slot.
        for tick in first.max((reached + 1).saturating_sub(SLOTS as u64))..=reached {
            let mut index = self.heads[slot_of(tick)];
            while index != NONE {
                let next = self.entries[index as usize].next;
                if self.entries[index as usize].tick <= reached {
                    self.unlink(index);
                    let entry = &mut self.entries[index as usize];
                    entry.fired = true;
                    FIRED.set(FIRED.get().wrapping_add(1));
                    due.extend(entry.waker.take());
                }
                index = next;
            }
        }
        self.done = self.done.max(reached);
        self.waited = self.next_tick().unwrap_or(u64::MAX);
        due
    }
}

fn slot_of(tick: u64) -> usize {
    (tick % SLOTS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    /// A wheel that goes by a clock that stands still.
    fn by_runtime() -> impl Future<Output = ()> {
        drive(async |at| tokio::time::sleep_until(at.into()).await)
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_fires_after_its_time_and_at_most_two_steps_late() {
        tokio::spawn(by_runtime());
        for millis in [1_u64, 9, 10, 11, 250, 10_240, 10_241, 35_000, 600_000] {
            let start = now();
            sleep_until(start + Duration::from_millis(millis)).await;
            let took = now() - start;
            assert!(took >= Duration::from_millis(millis), "{millis} ms took {took:?}");
            assert!(took <= Duration::from_millis(millis) + 2 * STEP, "{millis} ms took {took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_timer_overtakes_one_that_is_waited_for() {
        tokio::spawn(by_runtime());
        let start = now();
        let late = tokio::spawn(sleep_until(start + Duration::from_secs(60)));
        tokio::task::yield_now().await;
        sleep_until(start + Duration::from_millis(30)).await;
        assert!(now() - start < Duration::from_millis(60));
        late.await.unwrap();
        assert!(now() - start >= Duration::from_secs(60));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_polled_it_last_is_woken_whatever_fires_meanwhile() {
        tokio::spawn(by_runtime());
        let start = now();
        let mut late = sleep_until(start + Duration::from_millis(500));
        for millis in [100, 200, 300] {
            for _ in 0..2 {
                assert!(Pin::new(&mut late).poll(&mut Context::from_waker(Waker::noop())).is_pending());
            }
            let here = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut late).poll(cx)));
            assert!(here.await.is_pending());
            sleep_until(start + Duration::from_millis(millis)).await;
        }
        let woken = tokio::spawn(late);
        woken.await.unwrap();
        assert!((500..530).contains(&(now() - start).as_millis()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_timeout_lets_through_what_is_ready_and_cuts_what_is_not() {
        tokio::spawn(by_runtime());
        let at = Some(now() + Duration::from_millis(50));
        assert_eq!(timeout_at(at, async { 7 }).await, Ok(7));
        assert_eq!(timeout_at(at, std::future::pending::<()>()).await, Err(Elapsed));
        assert_eq!(timeout_at(None, async { 7 }).await, Ok(7));
    }

    #[test]
    fn a_runtime_without_timers_is_woken_by_the_system() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            tokio::spawn(run(Alarm::new().unwrap()));
            let start = now();
            let late = tokio::spawn(sleep(Duration::from_millis(120)));
            tokio::task::yield_now().await;
            // Earlier than what the system was asked for, time and again, and with nothing armed in between.
            for _ in 0..3 {
                sleep(Duration::from_millis(15)).await;
            }
            assert!(now() - start >= Duration::from_millis(45) && !late.is_finished());
            late.await.unwrap();
            assert!(now() - start >= Duration::from_millis(120));
            assert_eq!(timeout(Duration::from_millis(15), std::future::pending::<()>()).await, Err(Elapsed));
            assert_eq!(timeout(Duration::from_secs(60), async { 7 }).await, Ok(7));
        });
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_wheel_the_timer_of_the_runtime_serves() {
        WHEEL.set(None);
        let start = now();
        sleep_until(start + Duration::from_millis(20)).await;
        assert!(now() - start >= Duration::from_millis(20));
    }

    proptest! {
        #[test]
        fn whatever_is_armed_dropped_and_advanced_fires_exactly_when_due(ops in prop::collection::vec((0_u8..3, 0_u64..40_000), 1..200)) {
            let start = now();
            let mut wheel = Wheel::new(start, Arc::new(Notify::new()));
            let mut clock = start;
            let mut live: Vec<(u32, Instant)> = Vec::new();
            for (op, n) in ops {
                match op {
                    0 => {
                        let at = clock + Duration::from_millis(n);
                        live.push((wheel.insert(at, Waker::noop()), at));
                    }
                    1 if !live.is_empty() => {
                        let (index, _) = live.swap_remove(n as usize % live.len());
                        wheel.remove(index);
                    }
                    _ => {
                        clock += Duration::from_millis(n);
                        wheel.advance(clock);
                    }
                }
                for (index, at) in &live {
                    let fired = wheel.poll(*index, Waker::noop());
                    prop_assert!(!fired || *at <= clock, "fired early");
                    prop_assert!(fired || *at + 2 * STEP > clock, "fired late");
                }
            }
            for (index, _) in live {
                wheel.remove(index);
            }
            prop_assert_eq!(wheel.armed, 0);
        }
    }
}
