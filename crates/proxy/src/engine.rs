//! One worker's engine: what `net` calls for each request, and what the worker keeps for itself.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::header::RETRY_AFTER;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Version};
use parking_lot::Mutex;
use pylon_core::Request;
use pylon_core::connection::Connection;
use pylon_core::exchange::{Exchange, Head};
use pylon_core::rejection::{OVERLOADED, REQUEST_HEADERS_TOO_LARGE, REQUEST_TIMEOUT, REQUEST_URI_TOO_LONG, Rejection};
use pylon_core::units::{ByteSize, Span};
use pylon_net::caps::Caps;
use pylon_net::handler::{Handler, Incoming};
use pylon_net::limits::Told;
use pylon_observe::Observer;
use pylon_observe::ending::{End, Ending};

use crate::request_id::RequestIds;
use crate::snapshot::Snapshot;
use crate::tail::Tailed;
use crate::websocket::tunnel::Tunnel;
use crate::world::{Pinned, View, World};
use crate::{reject, serve, tcp};

/// When to come again while memory is short, in seconds.
const RETRY: HeaderValue = HeaderValue::from_static("5");
/// For a pseudonym that no field can hold; there is none.
const UNNAMED: HeaderValue = HeaderValue::from_static("1.1 pylon");

/// The data plane on one worker.
#[derive(Debug)]
pub struct Engine {
    world: Arc<World>,
    observer: Arc<Observer>,
    caps: Arc<Caps>,
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

/// What a request goes by from its beginning: the worker's own counts, so that no other core writes them.
#[derive(Debug)]
pub(crate) struct Begun {
    /// The snapshot that it stays with.
    pub(crate) world: Arc<Pinned>,
    pub(crate) observer: Arc<Shared>,
    /// The item for `Via`.
    pub(crate) via: HeaderValue,
}

/// What only this worker touches, so that the lock is never waited for.
#[derive(Debug)]
struct Own {
    view: View,
    ids: RequestIds,
    /// The worker's own count of the observer.
    observer: Arc<Shared>,
    /// The worker's own copies of the item for `Via`, by the version of the request: their bytes are counted, too.
    via: [HeaderValue; 3],
}

impl Engine {
    /// An engine for one worker.
    pub fn new(world: Arc<World>, observer: Arc<Observer>, caps: Arc<Caps>) -> Self {
        let pseudonym = &world.current().settings.pseudonym;
        let via = |version| HeaderValue::try_from(format!("{version} {pseudonym}")).unwrap_or(UNNAMED);
        let own = Own {
            view: View::new(&world),
            ids: RequestIds::default(),
            observer: Arc::new(Shared(Arc::clone(&observer))),
            via: ["1.0", "1.1", "2"].map(via),
        };
        Self { world, observer, caps, own: Mutex::new(own) }
    }

    /// What a request that begins now goes by. `client` is asked for only while a document is rolled out.
    pub(crate) fn begin(&self, version: Version, client: impl FnOnce(&Snapshot) -> IpAddr) -> Begun {
        let mut own = self.own.lock();
        let [one, usual, two] = &own.via;
        let via = match version {
            Version::HTTP_10 => one,
            Version::HTTP_2 => two,
            _ => usual,
        };
        let via = via.clone();
        Begun { world: own.view.pick(&self.world, client), observer: Arc::clone(&own.observer), via }
    }

    /// Takes up the snapshot in force, so that a worker without requests does not hold on to the one before.
    pub fn renew(&self) {
        self.own.lock().view.renew(&self.world);
    }

    /// Turns a request away while memory is short.
    pub(crate) fn admit(&self) -> Result<(), Rejection> {
        if self.caps.is_shedding() {
            return Err(OVERLOADED.with_header(RETRY_AFTER, RETRY));
        }
        Ok(())
    }

    /// An id for a request that brought none that counts.
    pub(crate) fn fresh_id(&self, now: Instant) -> HeaderValue {
        self.own.lock().ids.next(self.observer.wall(), now)
    }
}

impl Handler for Engine {
    type Body = Tailed;
    type Tunnel = Tunnel;

    fn serve(
        self: Arc<Self>,
        request: Request,
        connection: Arc<Connection>,
        started: Instant,
    ) -> impl Future<Output = http::Response<Tailed>> + Send {
        serve::serve(&self, request, connection, started)
    }

    fn carry(self: Arc<Self>, incoming: Incoming) -> impl Future<Output = ()> + Send {
        let begun = self.begin(Version::HTTP_11, |_| incoming.connection.peer.ip());
        tcp::carry(begun, incoming)
    }

    fn switched(answer: &mut http::Response<Tailed>) -> Option<Tunnel> {
        answer.body_mut().take_tunnel()
    }

    fn refuse(&self, status: u16, connection: &Arc<Connection>, limits: Told) -> Vec<u8> {
        let world = self.begin(Version::HTTP_11, |_| connection.peer.ip()).world;
        let malformed = connection.malformed.get().filter(|_| status == 400);
        let reason = malformed.map_or_else(|| reject::of_codec(status), |malformed| malformed.reason);
        let detail = if let Some(malformed) = malformed {
            Some(malformed.what.to_owned())
        } else if [&REQUEST_HEADERS_TOO_LARGE, &REQUEST_URI_TOO_LONG].contains(&reason) {
            let limit = ByteSize::new(limits.head as u64);
            Some(format!("the limit is {limit} (limits.request_headers)"))
        } else if reason == &REQUEST_TIMEOUT {
            let limit = Span::from_millis(u64::try_from(limits.head_time.as_millis()).unwrap_or(u64::MAX));
            Some(format!("the client_header timer ({limit}) fired (limits.header_timeout)"))
        } else {
            None
        };
        let now = tokio::time::Instant::now().into_std();
        let mut exchange = Exchange::begin(unread(connection, now));
        exchange.trail.refuse(&Rejection { detail: detail.clone().map(Cow::Owned), ..Rejection::from(reason) });
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
