//! One worker's engine: what `net` calls for each request, and what the worker keeps for itself.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Version};
use parking_lot::Mutex;
use pylon_core::Request;
use pylon_core::connection::Connection;
use pylon_core::exchange::{Exchange, Head};
use pylon_core::rejection::{REQUEST_HEADERS_TOO_LARGE, REQUEST_TIMEOUT, Rejection};
use pylon_core::units::{ByteSize, Span};
use pylon_net::http1::Handler;
use pylon_observe::Observer;
use pylon_observe::ending::{End, Ending};

use crate::request_id::RequestIds;
use crate::tail::Tailed;
use crate::world::{Pinned, View, World};
use crate::{reject, serve};

/// The data plane on one worker.
#[derive(Debug)]
pub struct Engine {
    world: Arc<World>,
    observer: Arc<Observer>,
    told: Told,
    own: Mutex<Own>,
}

/// The observer of the process, under a count that one worker alone writes.
#[derive(Debug)]
pub(crate) struct Shared(Arc<Observer>);

impl std::ops::Deref for Shared {
    type Target = Observer;

    fn deref(&self) -> &Observer {
        &self.0
    }
}

/// Limits that a refusal of the codec names.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    /// `limits.request_headers`.
    pub request_headers: ByteSize,
    /// `limits.header_timeout`.
    pub header_timeout: Span,
}

/// What only this worker touches, so that the lock is never waited for.
#[derive(Debug)]
struct Own {
    view: View,
    ids: RequestIds,
    /// The worker's own count of the observer.
    observer: Arc<Shared>,
    /// The worker's own copy of the item for `Via`: its bytes are counted, too.
    via: HeaderValue,
}

impl Engine {
    /// An engine for one worker.
    pub fn new(world: Arc<World>, observer: Arc<Observer>, told: Told) -> Self {
        let via = format!("1.1 {}", world.current().settings.pseudonym);
        let own = Own {
            view: View::new(&world),
            ids: RequestIds::default(),
            observer: Arc::new(Shared(Arc::clone(&observer))),
            via: HeaderValue::try_from(via).unwrap_or_else(|_| HeaderValue::from_static("1.1 pylon")),
        };
        Self { world, observer, told, own: Mutex::new(own) }
    }

    /// The snapshot for a request that begins now.
    pub(crate) fn pick(&self) -> Arc<Pinned> {
        self.own.lock().view.pick(&self.world)
    }

    pub(crate) fn fresh_id(&self, now: Instant) -> HeaderValue {
        self.own.lock().ids.next(self.observer.wall(), now)
    }

    pub(crate) fn observer(&self) -> Arc<Shared> {
        Arc::clone(&self.own.lock().observer)
    }

    pub(crate) fn via(&self) -> HeaderValue {
        self.own.lock().via.clone()
    }
}

impl Handler for Engine {
    type Body = Tailed;

    fn serve(
        self: Arc<Self>,
        request: Request,
        connection: Arc<Connection>,
        started: Instant,
    ) -> impl Future<Output = http::Response<Tailed>> + Send {
        serve::serve(&self, request, connection, started)
    }

    fn refuse(&self, status: u16, connection: &Arc<Connection>) -> Vec<u8> {
        let reason = reject::of_codec(status);
        let detail = if reason == &REQUEST_HEADERS_TOO_LARGE {
            Some(format!("the limit is {} (limits.request_headers)", self.told.request_headers))
        } else if reason == &REQUEST_TIMEOUT {
            Some(format!("the client_header timer ({}) fired (limits.header_timeout)", self.told.header_timeout))
        } else {
            None
        };
        let now = tokio::time::Instant::now().into_std();
        let mut exchange = Exchange::begin(unread(connection, now));
        exchange.trail.refuse(&Rejection { detail: detail.clone().map(Cow::Owned), ..Rejection::from(reason) });
        let world = self.pick();
        let shard = world.nowhere.series.mine();
        shard.begin();
        let ending = Ending { status: reason.status, sent: 0, received: 0, ended: now, how: End::Complete };
        self.observer.finish(shard, &exchange, ending);
        reject::wire(reason, detail.as_deref())
    }
}

/// The head of a request that could not be read: `-` for its method and `*` for its path.
fn unread(connection: &Arc<Connection>, now: Instant) -> Head {
    Head {
        client: connection.peer.ip(),
        from_trusted_proxy: false,
        scheme: connection.scheme,
        request_id: HeaderValue::from_static("-"),
        started: now,
        method: Method::from_bytes(b"-").unwrap_or_default(),
        version: Version::HTTP_11,
        host: None,
        path: PathAndQuery::from_static("*"),
        connection: Arc::clone(connection),
    }
}
