//! One attempt at one endpoint: what is sent, on which connection, and the wait for the head of its answer.

use std::io;
use std::time::Instant;

use http::HeaderValue;
use pylon_core::exchange::Exchange;

use super::deadline::{Times, await_head};
use super::outgoing::Outgoing;
use super::past::Past;
use super::{CallOptions, Came};
use crate::dial::{Way, dial};
use crate::endpoint::Lane;
use crate::error::Fault;
use crate::flight::{Flight, Head};
use crate::h1;
use crate::h1::encode::RequestHead;
use crate::h1::pump::EXPECT;
use crate::h2;
use crate::upstream::{Host, Upstream};

impl Upstream {
    /// Sends the request and waits for the head of its answer.
    pub(super) async fn attempt(
        &self,
        lane: &Lane,
        out: &mut Outgoing,
        cx: &mut Exchange,
        options: &CallOptions,
        past: &mut Past,
    ) -> Came {
        let (flight, sent) = self.launched(lane, out, cx, options, past).await?;
        let (mut flight, times) = (Some(flight), Times { began: &past.began, sent });
        let head = await_head(&mut flight, &out.method, cx, options, times).await;
        concluded(flight, head, out)
    }

    /// The first half of an attempt: sends what can be sent at once, and says when.
    pub(super) async fn launched(
        &self,
        lane: &Lane,
        out: &mut Outgoing,
        cx: &mut Exchange,
        options: &CallOptions,
        past: &mut Past,
    ) -> Result<(Flight, Instant), Fault> {
        cx.trail.attempts = cx.trail.attempts.saturating_add(1);
        let sent = self.dress(out, cx, options, past.began).await?;
        out.keep(options.retry.as_deref());
        if let Some(flight) = self.launch_pooled(lane, out, cx, past)? {
            return Ok((flight, sent));
        }
        // Boxed, so that a request that finds a connection is no larger for those that find none.
        let (way, sent) = Box::pin(self.dialled(lane, cx, options, past)).await?;
        Ok((self.launch(way, lane, out, cx, sent)?, sent))
    }

    async fn dialled(
        &self,
        lane: &Lane,
        cx: &mut Exchange,
        options: &CallOptions,
        past: &mut Past,
    ) -> Result<(Way, Instant), Fault> {
        past.unsent = true;
        let websocket = key(cx).is_some();
        let dialled = dial(lane, cx, options, websocket, past.stale).await;
        past.unsent = dialled.is_err();
        dialled
    }

    /// Writes what `outbound` says into the head of an attempt, and says when it can leave.
    async fn dress(
        &self,
        out: &mut Outgoing,
        cx: &mut Exchange,
        options: &CallOptions,
        began: Instant,
    ) -> Result<Instant, Fault> {
        let Some(outbound) = &self.outbound else { return Ok(began) };
        let mut began = began;
        if !outbound.dress(&mut out.headers, &mut out.body, !out.dressed, began) {
            let latest = cx.started + options.timeouts.response;
            let latest = cx.deadline.map_or(latest, |at| at.min(latest));
            began = Box::pin(outbound.obtained(latest)).await?;
            if !outbound.dress(&mut out.headers, &mut out.body, !out.dressed, began) {
                return Err(Fault::Credential("the one that came had no time left".to_owned()));
            }
        }
        out.dressed = true;
        Ok(began)
    }

    /// Sends on a connection from the pool, where there is one and the past does not speak against it.
    fn launch_pooled(
        &self,
        lane: &Lane,
        out: &mut Outgoing,
        cx: &mut Exchange,
        past: &mut Past,
    ) -> Result<Option<Flight>, Fault> {
        past.unsent = false;
        // A WebSocket has its connection to itself, and so HTTP/1.1, where that may be spoken.
        let alone = key(cx).is_some() && !lane.wants_http2() || !lane.speaks_http2();
        let pooled = match (past.stale, alone) {
            (true, _) => None,
            (false, true) => lane.slot.take(past.began).map(Way::Alone),
            (false, false) => lane.slot.multiplexed.take(past.began).map(Way::Shared),
        };
        cx.trail.reused = pooled.is_some();
        let Some(way) = pooled else { return Ok(None) };
        lane.slot.counters.reused();
        self.launch(way, lane, out, cx, past.began).map(Some)
    }

    fn launch(
        &self,
        way: Way,
        lane: &Lane,
        out: &mut Outgoing,
        cx: &mut Exchange,
        now: Instant,
    ) -> Result<Flight, Fault> {
        cx.trail.endpoint = Some(match &way {
            Way::Alone(conn) => conn.life.addr,
            Way::Shared(place) => place.conn().addr,
        });
        cx.trail.socket.clone_from(&lane.path);
        let head = RequestHead {
            method: &out.method,
            path: cx.sent_path(),
            headers: &out.headers,
            host: cx.upstream_host.as_ref().or(match &self.host {
                Host::Keep => None,
                Host::Endpoint => Some(&lane.authority),
                Host::Name(name) => Some(name),
            }),
            announced: &cx.announced,
            fallback_host: &lane.authority,
            framing: out.framing,
            websocket: key(cx).is_some(),
            expects: out.expects,
        };
        match way {
            Way::Alone(conn) => {
                let expecting = out.expects.then(|| now + EXPECT);
                h1::exchange::Flight::launch(conn, &head, &mut out.body, expecting).map(Flight::Http1)
            }
            Way::Shared(place) => {
                let tls = lane.tls.is_some();
                h2::exchange::Flight::launch(place, &head, tls, &mut out.body).map(Flight::Http2)
            }
        }
    }
}

/// The key of the handshake, where the service is to be asked for a WebSocket.
pub(super) fn key(cx: &Exchange) -> Option<&HeaderValue> {
    cx.websocket.as_ref().filter(|handshake| handshake.allowed)?.key.as_ref().ok()
}

/// What an attempt came to, once its flight brought a head or a fault.
pub(super) fn concluded(flight: Option<Flight>, head: Result<Head, Fault>, out: &mut Outgoing) -> Came {
    // Only now, since what lives across a wait is counted for every connection.
    let Some(flight) = flight else { return Err(Fault::Connect(io::ErrorKind::NotConnected.into())) };
    match head {
        Ok(head) => Ok((flight, head)),
        Err(fault) => {
            match fault {
                Fault::Timeout(..) => flight.gave_up(),
                Fault::Refused(_) => flight.take_back().into_iter().for_each(|body| out.body = body),
                _ => {}
            }
            Err(fault)
        }
    }
}
