//! A WebSocket under way: bytes both ways, its end by either side, by a timer or by the gateway, and its one record.
//!
//! It is carried on by a task of its own, and holds no buffer while nothing waits.
//! Whoever ends it, the other side learns of it at once: by a Close frame where one can stand, and by the end of its
//! connection. `total` does not apply.

use std::cell::RefCell;
use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use pylon_core::body::Body;
use pylon_core::exchange::Timer;
use pylon_net::client_side::ClientSide;
use pylon_net::drain::Drain;
use pylon_net::timer::{Sleep, sleep_until};
use pylon_net::websocket::frame::{Code, Sender, Violation};
use pylon_observe::ending::End;
use tokio::io::{AsyncRead, AsyncWrite};

use self::way::Way;
use super::{Switch, WebSocket};
use crate::removal::Stay;
use crate::tail::Tail;

mod way;

/// What one read takes, and what may wait for the other side, in bytes each way.
const BUFFER: usize = 16 * 1024;
/// How long the sides may take to answer a Close of the gateway's.
const CLOSING: Duration = Duration::from_secs(5);
/// How long the gateway waits for the frames under way when it ends; its own grace time is mostly shorter.
const DRAINING: Duration = Duration::from_secs(600);
/// In so many steps of it the idle time is watched: it is over by one of them too late at the most, never too early.
const STEPS: u32 = 16;
/// How long one side may still take after the other has ended.
const LINGER: Duration = Duration::from_secs(2);

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into());
}

/// A connection that has switched protocols.
#[derive(Debug)]
pub struct Tunnel {
    tail: Box<Tail>,
    switch: Box<Switch>,
}

impl Tunnel {
    /// The tunnel of an exchange whose answer has this body.
    pub(crate) fn new(tail: Box<Tail>, body: Body) -> Option<Self> {
        let Body::Tunnel(switch) = body else { return None };
        Some(Self { tail, switch: switch.downcast().ok()? })
    }
}

impl pylon_net::handler::Tunnel for Tunnel {
    async fn run(self, client: ClientSide, drain: &Drain) {
        let Self { mut tail, switch } = self;
        let _open = tail.observer.metrics().tunnelled();
        tail.switched();
        let Switch { service, rules, .. } = *switch;
        let mut stay = tail.stay.take();
        let mut recorded = Recorded { relay: Relay::new(client, service, rules, now()), tail };
        let mut wanted = pin!(drain.wanted());
        let mut listening: Option<Waker> = None;
        poll_fn(|cx| {
            let relay = &mut recorded.relay;
            // Who will be told is listed under a lock, which not every message needs.
            let listed = listening.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
            if !listed {
                listening = Some(cx.waker().clone());
            }
            if relay.ending.is_none() && (!listed && wanted.as_mut().poll(cx).is_ready() || drain.has_begun()) {
                relay.close(End::Drained, (Code::GoingAway, Code::GoingAway), now() + DRAINING);
            }
            let is_over = |stay: &mut Stay| if listed { stay.is_over() } else { stay.poll_over(cx).is_ready() };
            if relay.ending.is_none() && stay.as_mut().is_some_and(is_over) {
                relay.close(End::Removed, (Code::GoingAway, Code::GoingAway), now() + CLOSING);
            }
            relay.poll(cx)
        })
        .await;
    }
}

/// The record is written however the tunnel ends: dropped in mid-life, it is because the gateway does not wait any more.
struct Recorded {
    relay: Relay<ClientSide, pylon_upstream::service_side::ServiceSide>,
    tail: Box<Tail>,
}

impl Drop for Recorded {
    fn drop(&mut self) {
        let how = self.relay.ending.as_ref().map_or(End::Drained, |ending| ending.how);
        if let Some(why) = self.relay.why {
            self.tail.exchange.trail.detail = Some(why.to_string().into());
        }
        self.tail.ended(self.relay.up.passed, self.relay.down.passed, how);
    }
}

/// Two sides and what passes between them.
struct Relay<C, S> {
    client: C,
    service: S,
    up: Way,
    down: Way,
    rules: WebSocket,
    /// When it must end, however busy it is.
    until: Option<Instant>,
    /// When something last passed, as far as the timer has seen it.
    moved: Instant,
    /// Something has passed since: each message would have to read the clock to tell when.
    stirred: bool,
    timer: Sleep,
    ending: Option<Ending>,
    /// What one of them has broken.
    why: Option<Violation>,
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
    fn new(client: C, service: S, rules: WebSocket, now: Instant) -> Self {
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
            stirred: false,
            timer: sleep_until(first),
            ending: None,
            why: None,
        }
    }

    /// Begins the end by a Close to both sides, the first of `codes` to the service, the second to the client.
    fn close(&mut self, how: End, codes: (Code, Code), until: Instant) {
        if self.ending.is_none() {
            self.up.close(codes.0);
            self.down.close(codes.1);
            self.begin_to_end(how, until, true);
        }
    }

    fn begin_to_end(&mut self, how: End, until: Instant, by_close: bool) {
        self.timer.reset(until);
        self.ending = Some(Ending { how, until, by_close, told: false });
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let (up, down) = SCRATCH.with_borrow_mut(|scratch| {
                let up = self.up.poll(cx, &mut self.client, &mut self.service, scratch);
                (up, self.down.poll(cx, &mut self.service, &mut self.client, scratch))
            });
            self.stirred |= self.up.has_moved() | self.down.has_moved();
            let goes_on = self.ending.is_none() && self.up.goes_on() && self.down.goes_on();
            let waits = goes_on || {
                let before = self.ending.is_some();
                let broken = self.look(up, down);
                if self.is_over() {
                    // As far as it goes at once: what has not been taken by now nobody waits for.
                    let _ = Pin::new(&mut self.client).poll_shutdown(cx);
                    let _ = Pin::new(&mut self.service).poll_shutdown(cx);
                    return Poll::Ready(());
                }
                !broken && before == self.ending.is_some()
            };
            if waits && self.poll_timer(cx).is_pending() {
                return Poll::Pending;
            }
            if self.ending.as_ref().is_some_and(|ending| ending.until <= now()) {
                return Poll::Ready(());
            }
        }
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
            self.close(how, codes, now() + CLOSING);
        }
        if self.ending.is_none() {
            // A WebSocket is closed by frames: the end of a connection without one is no half-close.
            let closed = self.up.has_closed() || self.down.has_closed();
            if self.client_is_gone() {
                let how = if closed { End::Complete } else { End::ClientGone };
                self.begin_to_end(how, now() + LINGER, false);
            } else if self.service_is_gone() {
                self.begin_to_end(if closed { End::Complete } else { End::UpstreamBroke }, now() + LINGER, false);
            } else if self.up.has_closed() && self.down.has_closed() {
                // The service closes its connection first (RFC 6455 §7.1.1).
                self.begin_to_end(End::Complete, now() + LINGER, false);
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
            let now = now();
            if let Some(ending) = &self.ending {
                if ending.until <= now {
                    return Poll::Ready(());
                }
                self.timer.reset(ending.until);
                continue;
            }
            if std::mem::take(&mut self.stirred) {
                self.moved = now;
            }
            let idle = self.moved + self.rules.idle;
            let fired = if self.until.is_some_and(|until| until <= now) { Some(Timer::MaxLifetime) } else { None };
            if let Some(timer) = fired.or((idle <= now).then_some(Timer::Idle)) {
                self.close(End::Timeout(timer), (Code::GoingAway, Code::GoingAway), now + CLOSING);
                return Poll::Ready(());
            }
            let next = idle.min(now + self.rules.idle / STEPS);
            self.timer.reset(self.until.map_or(next, |until| until.min(next)));
        }
        Poll::Pending
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
