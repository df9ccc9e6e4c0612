//! A WebSocket under way, for as long as both sides, the gateway and the route go on with it, and its one record.
//!
//! It is carried on by a task of its own, and holds no buffer while nothing waits. `total` does not apply.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use pylon_core::body::Body;
use pylon_net::client_side::ClientSide;
use pylon_net::drain::Drain;
use pylon_net::websocket::frame::Code;
use pylon_observe::ending::End;
use pylon_observe::series::OpenTunnel;
use pylon_upstream::service_side::ServiceSide;
use tokio::sync::futures::OwnedNotified;

use self::relay::{CLOSING, DRAINING, Relay};
use super::Switch;
use crate::removal::Stay;
use crate::tail::Tail;

mod relay;

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
    fn run(self, client: ClientSide, drain: Arc<Drain>) -> impl Future<Output = ()> + Send + 'static {
        let Self { mut tail, switch } = self;
        let open = tail.observer.metrics().tunnelled();
        tail.switched();
        let Switch { service, rules, .. } = *switch;
        UnderWay {
            listening: None,
            stay: tail.stay.take(),
            relay: Relay::new(client, service, rules),
            wanted: Box::pin(drain.wanted_owned()),
            drain,
            tail,
            _open: open,
        }
    }
}

/// The record is written however it ends: dropped in mid-life, it is because the gateway does not wait any more.
///
/// A message comes by as few lines of the memory as it can: each of them has left the nearest cache since the last one.
#[repr(C, align(64))]
struct UnderWay {
    /// The task that is told of the end of the route and of the gateway: who is told is listed under a lock, which not every
    /// message needs.
    listening: Option<Waker>,
    stay: Option<Stay>,
    drain: Arc<Drain>,
    relay: Relay<ClientSide, ServiceSide>,
    wanted: Pin<Box<OwnedNotified>>,
    tail: Box<Tail>,
    _open: OpenTunnel,
}

impl UnderWay {
    /// What comes of it is looked at with every turn.
    #[cold]
    fn listen(&mut self, cx: &mut Context<'_>) {
        self.listening = Some(cx.waker().clone());
        let _ = self.wanted.as_mut().poll(cx);
    }
}

impl Future for UnderWay {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let listed = this.listening.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if !listed {
            this.listen(cx);
        }
        if !this.relay.is_ending() && this.drain.has_begun() {
            this.relay.close(End::Drained, (Code::GoingAway, Code::GoingAway), DRAINING);
        }
        let is_over = |stay: &mut Stay| if listed { stay.is_over() } else { stay.poll_over(cx).is_ready() };
        if !this.relay.is_ending() && this.stay.as_mut().is_some_and(is_over) {
            this.relay.close(End::Removed, (Code::GoingAway, Code::GoingAway), CLOSING);
        }
        this.relay.poll(cx)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(why) = self.relay.why() {
            self.tail.exchange.trail.detail = Some(why.to_string().into());
        }
        let (up, down) = self.relay.passed();
        self.tail.ended(up, down, self.relay.how().unwrap_or(End::Drained));
    }
}
