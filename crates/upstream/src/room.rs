//! Room for one more connection to an endpoint, where not any number may be open: a short wait, and whoever comes free first.
//!
//! A connection that idles at another worker is closed, since a socket stays with the worker that made it.

use std::io;
use std::time::{Duration, Instant};

use pylon_net::timer::timeout_at;

use crate::dial::Way;
use crate::endpoint::Lane;
use crate::error::{Fault, Shed};
use crate::pool::Place;

/// How often somebody who waits looks for a stream on a connection that carries many, which nobody tells him of.
const LOOK: Duration = Duration::from_millis(10);

/// What there is room for.
#[derive(Debug)]
pub(crate) enum Room {
    /// A new connection.
    New(Place),
    /// None is needed: one came free, or a place on one.
    Free(Way),
}

/// Finds room, at most until `deadline`. `fresh` says that only a new connection will do.
pub(crate) async fn room(lane: &Lane, fresh: bool, deadline: Instant) -> Result<Room, Fault> {
    let Some((most, wait)) = lane.limits.most else {
        let place = lane.slot.place(u32::MAX).ok_or_else(|| Fault::Connect(io::ErrorKind::AddrNotAvailable.into()));
        return place.map(Room::New);
    };
    let until = deadline.min(now() + wait);
    loop {
        if let Some(place) = lane.slot.place(most) {
            return Ok(Room::New(place));
        }
        if !fresh && let Some(way) = free(lane) {
            return Ok(Room::Free(way));
        }
        lane.slot.close_one();
        if let Some(place) = lane.slot.place(most) {
            return Ok(Room::New(place));
        }
        let now = now();
        if now >= until {
            return Err(Fault::Overloaded(Shed::Connections(most)));
        }
        let look = if lane.speaks_http2() { until.min(now + LOOK) } else { until };
        // Whether something came free or time is over shows at the next turn.
        let _over = timeout_at(Some(look), lane.slot.freed()).await;
    }
}

fn free(lane: &Lane) -> Option<Way> {
    if lane.tells() {
        return None;
    }
    if lane.speaks_http2() {
        return lane.slot.multiplexed.take(now()).map(Way::Shared);
    }
    lane.slot.take(now()).map(Way::Alone)
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
