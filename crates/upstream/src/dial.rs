//! Making a connection for a request: socket, TLS, and whichever version of HTTP the endpoint speaks.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use pylon_core::exchange::{Exchange, Timer};
use pylon_net::dial::{connect, connect_unix};
use pylon_net::stream::Stream;
use pylon_net::timer::timeout_at;
use pylon_observe::upstream::UpstreamShard;
use tokio::io::AsyncWriteExt as _;

use crate::call::CallOptions;
use crate::endpoint::Lane;
use crate::error::Fault;
use crate::h1::conn::{Conn, Life, Open};
use crate::h2;
use crate::h2::conn::Place;
use crate::h2::pool::{Dial, PATIENCE, Turn};
use crate::pool;
use crate::room::{Room, room};

/// A connection, or a place on one, that a request can be sent on.
#[derive(Debug)]
pub(crate) enum Way {
    /// One that carries one exchange at a time.
    Alone(Conn),
    /// A stream of one that carries many.
    Shared(Place),
}

/// When a dial must be over, and the timer that says so.
#[derive(Debug, Clone, Copy)]
struct Bound {
    at: Instant,
    timer: Timer,
    span: Duration,
}

/// Makes a connection, and says when it stood. Where it is to carry many exchanges, another's dial may bring it.
///
/// `fresh` wants no connection that has been used before. `websocket` wants one that carries this exchange and no other, unless nothing but HTTP/2 is to be spoken.
pub(crate) async fn dial(
    lane: &Lane,
    cx: &mut Exchange,
    options: &CallOptions,
    websocket: bool,
    fresh: bool,
) -> Result<(Way, Instant), Fault> {
    let alone = lane.tells() || websocket && !lane.wants_http2();
    cx.trail.endpoint = lane.addrs.first().copied();
    cx.trail.socket.clone_from(&lane.path);
    let bound = Bound::new(cx, options);
    let pool = &lane.slot.multiplexed;
    let dial = loop {
        if alone || !lane.speaks_http2() {
            break pool.dial();
        }
        let wait = match pool.turn() {
            Turn::Dial(dial) => break dial,
            Turn::Wait(wait) => wait,
        };
        let patience = (now() + PATIENCE).min(bound.at);
        let waited = timeout_at(Some(patience), wait.dialled()).await;
        if let Some(place) = pool.take(now()) {
            cx.trail.endpoint = Some(place.conn().addr);
            return Ok((Way::Shared(place), now()));
        }
        if waited.is_err() {
            break pool.dial();
        }
    };
    let place = match room(lane, fresh || alone && lane.speaks_http2(), bound.at).await? {
        Room::New(place) => place,
        Room::Free(way) => {
            cx.trail.reused = true;
            lane.slot.counters.reused();
            return Ok((way, now()));
        }
    };
    let header = lane.header(cx.client, &cx.connection);
    let made = async {
        let stream = reach(lane, bound.at, alone, header).await?;
        make(lane, dial, bound, (stream, place), options.max_head, alone).await
    };
    match made.await {
        Ok(made) => Ok(made),
        Err(fault @ Fault::Refused(_)) => Err(fault),
        Err(fault) => {
            lane.slot.counters.connect_failed();
            if let Some(metrics) = &lane.metrics {
                metrics.connect_failed();
            }
            Err(match fault {
                Fault::Connect(error) | Fault::Tls(error) if error.kind() == io::ErrorKind::TimedOut => {
                    Fault::Timeout(bound.timer, bound.span)
                }
                fault => fault,
            })
        }
    }
}

async fn make(
    lane: &Lane,
    dial: Dial<'_>,
    bound: Bound,
    (stream, place): (Stream, pool::Place),
    max_head: usize,
    alone: bool,
) -> Result<(Way, Instant), Fault> {
    lane.slot.counters.connected();
    let addr = match lane.addrs.as_ref() {
        [only] => *only,
        _ => stream.peer_addr().map_err(Fault::Connect)?,
    };
    let stood = now();
    let expires = stood + lane.limits.lifetime.mul_f64(0.9 + 0.2 * fastrand::f64());
    let open = Open { _counted: lane.metrics.as_ref().map(UpstreamShard::connected), _place: Some(place) };
    if !lane.begins_http2(&stream) {
        if !alone {
            dial.without_http2();
        }
        let life = Box::new(Life { addr, expires, epoch: lane.epoch, _open: open });
        return Ok((Way::Alone(Conn { stream, buf: BytesMut::new(), life }), stood));
    }
    let begun = timeout_at(Some(bound.at), h2::conn::Conn::begin(stream, addr, expires, max_head, open)).await;
    let conn = match begun {
        Ok(Ok(conn)) => conn,
        // It went away in good order before it was used (RFC 9113 §6.8): nobody has failed.
        Ok(Err(error)) if error.is_parting() => return Err(Fault::Refused(error.to_string())),
        Ok(Err(error)) => return Err(Fault::Connect(io::Error::other(format!("no HTTP/2: {error}")))),
        Err(_) => return Err(Fault::Connect(io::ErrorKind::TimedOut.into())),
    };
    let place = conn.place().ok_or_else(|| Fault::Refused("the connection allows no stream".to_owned()))?;
    dial.done(&conn);
    Ok((Way::Shared(place), now()))
}

/// A socket to the lane's endpoint, with `header` at its beginning, and, where it is spoken to so, TLS on it; `alone` leaves
/// HTTP/2 out of what is offered.
pub(crate) async fn reach(
    lane: &Lane,
    deadline: Instant,
    alone: bool,
    header: Option<Vec<u8>>,
) -> Result<Stream, Fault> {
    let connected = match &lane.path {
        Some(path) => connect_unix(Path::new(&**path), Some(deadline)).await,
        None => connect(&lane.addrs, Some(deadline)).await,
    };
    let mut socket = connected.map_err(Fault::Connect)?;
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    if let Some(header) = header {
        let told = timeout_at(Some(deadline), socket.write_all(&header)).await.map_err(late);
        told.and_then(|told| told).map_err(Fault::Connect)?;
    }
    let Some(tls) = &lane.tls else { return Ok(Stream::Plain(socket)) };
    let shaken = timeout_at(Some(deadline), tls.connect(socket, alone)).await.map_err(late);
    shaken.and_then(|shaken| shaken).map_err(Fault::Tls)
}

impl Bound {
    fn new(cx: &Exchange, options: &CallOptions) -> Self {
        let timeouts = &options.timeouts;
        let connect = Self { at: now() + timeouts.connect, timer: Timer::Connect, span: timeouts.connect };
        let response = Self { at: cx.started + timeouts.response, timer: Timer::Response, span: timeouts.response };
        let total =
            cx.deadline.map(|at| Self { at, timer: Timer::Total, span: at.saturating_duration_since(cx.started) });
        let per_try = options.per_try().map(|span| Self { at: now() + span, timer: Timer::PerTry, span });
        [connect, response].into_iter().chain(per_try).chain(total).min_by_key(|bound| bound.at).unwrap_or(connect)
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
