//! What passes between the two sides of a WebSocket, and how that ends: by either side, by a timer or by the gateway.
//!
//! Whoever ends it, the other side learns of it at once: by a Close frame where one can stand, and by the end of its
//! connection.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pylon_core::exchange::Timer;
use pylon_net::timer::{Sleep, sleep_until};
use pylon_net::websocket::frame::{Code, Sender, Violation};
use pylon_observe::ending::End;
use tokio::io::{AsyncRead, AsyncWrite};

use self::way::Way;
use crate::websocket::WebSocket;

mod way;

/// What one read takes, and what may wait for the other side, in bytes each way.
const BUFFER: usize = 16 * 1024;
/// How long the sides may take to answer a Close of the gateway's.
pub(super) const CLOSING: Duration = Duration::from_secs(5);
/// How long the gateway waits for the frames under way when it ends; its own grace time is mostly shorter.
pub(super) const DRAINING: Duration = Duration::from_secs(600);
/// In so many steps of it the idle time is watched: it is over by one of them too late at the most, never too early.
const STEPS: u32 = 16;
/// How long one side may still take after the other has ended.
const LINGER: Duration = Duration::from_secs(2);

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into());
}

/// Two sides and what passes between them. First comes what each message touches.
#[repr(C)]
pub(super) struct Relay<C, S> {
    client: C,
    service: S,
    up: Way,
    down: Way,
    timer: Sleep,
    ending: Option<Ending>,
    /// What one of them has broken.
    why: Option<Violation>,
    rules: WebSocket,
    /// When it must end, however busy it is.
    until: Option<Instant>,
    /// When something last passed, as far as the timer has seen it: each message would have to read the clock to tell.
    moved: Instant,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// There is something new to do.
    Again,
    Wait,
    Over,
}

/// The end has begun.
struct Ending {
    how: End,
    /// When it is over at the latest.
    until: Instant,
    /// Whether the gateway has said so by a Close of its own.
    by_close: bool,
    /// Both sides have it, so that it is only for their answers that it waits.
    told: bool,
}

impl<C, S> Relay<C, S>
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    pub(super) fn new(client: C, service: S, rules: WebSocket) -> Self {
        let now = now();
        let until = rules.max_lifetime.map(|span| now + span);
        let first = now + rules.idle / STEPS;
        let first = until.map_or(first, |until| until.min(first));
        Self {
            client,
            service,
            up: Way::new(Sender::Client, rules.max_message),
            down: Way::new(Sender::Service, rules.max_message),
            rules,
            until,
            moved: now,
            timer: sleep_until(first),
            ending: None,
            why: None,
        }
    }

    /// Whether its end has begun.
    pub(super) fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// How it ends, if it does.
    pub(super) fn how(&self) -> Option<End> {
        self.ending.as_ref().map(|ending| ending.how)
    }

    /// What one of them has broken.
    pub(super) fn why(&self) -> Option<Violation> {
        self.why
    }

    /// How much was passed on, in bytes: to the service, and to the client.
    pub(super) fn passed(&self) -> (u64, u64) {
        (self.up.passed(), self.down.passed())
    }

    /// Begins the end by a Close to both sides, the first of `codes` to the service, the second to the client. It is over
    /// within `span`.
    #[cold]
    pub(super) fn close(&mut self, how: End, codes: (Code, Code), span: Duration) {
        if self.ending.is_none() {
            self.up.close(codes.0);
            self.down.close(codes.1);
            self.begin_to_end(how, span, true);
        }
    }

    fn begin_to_end(&mut self, how: End, span: Duration, by_close: bool) {
        let until = now() + span;
        self.timer.reset(until);
        self.ending = Some(Ending { how, until, by_close, told: false });
    }

    /// Ready when it is over.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let (up, down) = SCRATCH.with_borrow_mut(|scratch| {
                let up = self.up.poll(cx, &mut self.client, &mut self.service, scratch);
                (up, self.down.poll(cx, &mut self.service, &mut self.client, scratch))
            });
            let goes_on = self.ending.is_none() && self.up.goes_on() && self.down.goes_on();
            let step = if goes_on { Step::Wait } else { self.conclude(cx, up, down) };
            if step == Step::Over {
                return Poll::Ready(());
            }
            if step == Step::Wait && self.poll_timer(cx).is_pending() {
                return Poll::Pending;
            }
            if self.ending.as_ref().is_some_and(|ending| ending.until <= now()) {
                return Poll::Ready(());
            }
        }
    }

    /// Looks what becomes of it, where somebody has made an end.
    #[cold]
    fn conclude(&mut self, cx: &mut Context<'_>, up: Result<(), Violation>, down: Result<(), Violation>) -> Step {
        let before = self.ending.is_some();
        let broken = self.look(up, down);
        if self.is_over() {
            // As far as it goes at once: what has not been taken by now nobody waits for.
            let _ = Pin::new(&mut self.client).poll_shutdown(cx);
            let _ = Pin::new(&mut self.service).poll_shutdown(cx);
            return Step::Over;
        }
        if broken || before != self.ending.is_some() { Step::Again } else { Step::Wait }
    }

    /// Draws the consequences of what the two ways came to. Whether a Close now waits to be written.
    fn look(&mut self, up: Result<(), Violation>, down: Result<(), Violation>) -> bool {
        let mut broken = false;
        for (fault, of_client) in [(up, true), (down, false)] {
            let Err(why) = fault else { continue };
            broken = true;
            let (how, codes) = if of_client {
                (End::ClientBroke, (Code::GoingAway, why.code()))
            } else {
                (End::UpstreamBroke, (why.code(), Code::Internal))
            };
            if self.ending.is_none() {
                self.why = Some(why);
            }
            self.close(how, codes, CLOSING);
        }
        if self.ending.is_none() {
            // A WebSocket is closed by frames: the end of a connection without one is no half-close.
            let closed = self.up.has_closed() || self.down.has_closed();
            if self.client_is_gone() {
                let how = if closed { End::Complete } else { End::ClientGone };
                self.begin_to_end(how, LINGER, false);
            } else if self.service_is_gone() {
                self.begin_to_end(if closed { End::Complete } else { End::UpstreamBroke }, LINGER, false);
            } else if self.up.has_closed() && self.down.has_closed() {
                // The service closes its connection first (RFC 6455 §7.1.1).
                self.begin_to_end(End::Complete, LINGER, false);
            }
        }
        broken
    }

    fn client_is_gone(&self) -> bool {
        self.up.is_dry() || self.down.is_stuck()
    }

    fn service_is_gone(&self) -> bool {
        self.down.is_dry() || self.up.is_stuck()
    }

    fn is_over(&mut self) -> bool {
        let (client_gone, service_gone) = (self.client_is_gone(), self.service_is_gone());
        let flushed = self.up.is_flushed() && self.down.is_flushed();
        let (up, down) = (&self.up, &self.down);
        let Some(ending) = &mut self.ending else { return false };
        if client_gone && service_gone || ending.how == End::ClientGone {
            return true;
        }
        if !ending.by_close {
            return up.has_closed() && down.has_closed() && flushed && (client_gone || service_gone);
        }
        let client_done = client_gone || (down.has_told() && up.has_closed());
        let service_done = service_gone || (up.has_told() && down.has_closed());
        if client_done && service_done {
            return true;
        }
        if !ending.told && (client_gone || down.has_told()) && (service_gone || up.has_told()) {
            ending.told = true;
            ending.until = ending.until.min(now() + CLOSING);
            self.timer.reset(ending.until);
        }
        false
    }

    /// Ready where a timer has begun the end, or has ended it.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while Pin::new(&mut self.timer).poll(cx).is_ready() {
            if self.fired() {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    /// Whether that was the time for something; else the timer goes on.
    #[cold]
    fn fired(&mut self) -> bool {
        let now = now();
        if let Some(ending) = &self.ending {
            self.timer.reset(ending.until);
            return ending.until <= now;
        }
        if self.up.has_moved() | self.down.has_moved() {
            self.moved = now;
        }
        let idle = self.moved + self.rules.idle;
        let fired = if self.until.is_some_and(|until| until <= now) { Some(Timer::MaxLifetime) } else { None };
        if let Some(timer) = fired.or((idle <= now).then_some(Timer::Idle)) {
            self.close(End::Timeout(timer), (Code::GoingAway, Code::GoingAway), CLOSING);
            return true;
        }
        let next = idle.min(now + self.rules.idle / STEPS);
        self.timer.reset(self.until.map_or(next, |until| until.min(next)));
        false
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
