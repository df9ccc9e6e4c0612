//! Endpoints: what their addresses are, and the immutable set of them that requests choose from.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderValue, Uri};
use pylon_core::connection::Connection;
use pylon_net::proxy_protocol::{self, Version};
use pylon_net::stream::Stream;
use pylon_net::tls::client::Towards;
use pylon_observe::upstream::UpstreamShard;

use crate::balance::Method;
use crate::balance::table::Table;
use crate::breaker::Fuse;
use crate::breaker::lease::Pass;
use crate::concurrency::permit::Permit;
use crate::gauge::Gauge;
use crate::h1::conn::Conn;
use crate::locality::{Distance, LocalitySpec, Whereabouts};
use crate::outliers::Watched;
use crate::pool::{Limits, Pool, Slot};
use crate::standing::Standing;
use crate::sticky::Name;

/// Host and port, as written in a URL or as `name:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Whether it is reached under TLS.
    pub(crate) tls: bool,
    /// The path, where it is a Unix socket.
    pub(crate) path: Option<Arc<str>>,
    /// As it stands in `Host`: with brackets, and without the scheme's own port.
    pub(crate) authority: HeaderValue,
}

impl Place {
    /// Reads `http://host:port`, `https://host:port`, `tcp://host:port` or `unix:/path`. The error is a problem and a remedy.
    pub(crate) fn from_url(url: &str) -> Result<Self, (String, Option<String>)> {
        if let Some(path) = url.strip_prefix("unix:") {
            return Self::from_path(path)
                .map_err(|why| (format!("`{url}` {why}"), Some("write it as `unix:/run/app.sock`".to_owned())));
        }
        let bad = |problem: &str| {
            let forms = "write it as `http://host:port`, `https://host:port` or `tcp://host:port`";
            (format!("`{url}` {problem}"), Some(forms.to_owned()))
        };
        let Some((scheme, _)) = url.split_once("://") else { return Err(bad("has no scheme")) };
        let tls = scheme.eq_ignore_ascii_case("https");
        let bytes = scheme.eq_ignore_ascii_case("tcp");
        if !tls && !bytes && !scheme.eq_ignore_ascii_case("http") {
            return Err(bad("has a scheme that is not known"));
        }
        let uri: Uri = url.parse().map_err(|_| bad("is not a URL"))?;
        if uri.path() != "/" || uri.query().is_some() || url.contains('#') {
            return Err((
                format!("`{url}` has a path"),
                Some("an endpoint is scheme, host and port; paths are changed by a route's `rewrite`".to_owned()),
            ));
        }
        let authority = uri.authority().ok_or_else(|| bad("has no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("has a user name or password"));
        }
        let port = match authority.port() {
            None if authority.as_str() != authority.host() => return Err(bad("has no valid port")),
            None if bytes => return Err(bad("has no port")),
            None => default_port(tls),
            Some(port) => port.as_u16(),
        };
        Self::new(authority.host(), port, tls).ok_or_else(|| bad("has no valid host or port"))
    }

    fn from_path(text: &str) -> Result<Self, String> {
        pylon_net::listen::path_of(text)?;
        Ok(Self {
            host: format!("unix:{text}"),
            port: 0,
            tls: false,
            path: Some(text.into()),
            authority: HeaderValue::from_static("localhost"),
        })
    }

    /// Reads `name:port`.
    pub(crate) fn from_name(text: &str, tls: bool) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        Self::new(host, port.parse().ok()?, tls)
    }

    /// None where that is no host, or no port.
    pub(crate) fn new(host: &str, port: u16, tls: bool) -> Option<Self> {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let named = bare.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
        if port == 0 || bare.is_empty() || !(named || bare.parse::<IpAddr>().is_ok()) {
            return None;
        }
        let text = if port == default_port(tls) { host.to_owned() } else { format!("{host}:{port}") };
        let authority = HeaderValue::from_str(&text.to_ascii_lowercase()).ok()?;
        Some(Self { host: bare.to_ascii_lowercase(), port, tls, path: None, authority })
    }

    /// What tells it from other places.
    pub(crate) fn id(&self) -> Arc<str> {
        match &self.path {
            Some(path) => format!("unix:{path}").into(),
            None if self.host.contains(':') => format!("[{}]:{}", self.host, self.port).into(),
            None => format!("{}:{}", self.host, self.port).into(),
        }
    }

    /// The one address, where the host is one. That of a Unix socket is nowhere.
    pub(crate) fn literal(&self) -> Option<SocketAddr> {
        if self.path.is_some() {
            return Some(NOWHERE);
        }
        self.host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, self.port))
    }
}

/// In place of the address of a Unix socket, which has none.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

/// One endpoint of a set.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// What tells it from the other endpoints of its upstream, whatever its addresses are now.
    pub(crate) id: Arc<str>,
    pub(crate) authority: HeaderValue,
    /// The path of a Unix socket.
    pub(crate) path: Option<Arc<str>>,
    pub(crate) addrs: Arc<[SocketAddr]>,
    pub(crate) weight: u32,
    /// Where it stands, if its source says so.
    pub(crate) whereabouts: Whereabouts,
    /// From 0, which comes first.
    pub(crate) priority: u32,
    /// Its name in cookies, where clients stay at endpoints.
    pub(crate) name: Option<Name>,
    /// When it joined others that were there already.
    pub(crate) joined: Option<Instant>,
    pub(crate) source: &'static str,
    /// None in cleartext.
    pub(crate) tls: Option<Towards>,
    pub(crate) pool: Arc<Pool>,
    /// Of the pool, when it was told of `addrs`.
    pub(crate) epoch: u32,
}

/// Begins the id of an endpoint under TLS whose place is another endpoint in cleartext.
pub(crate) const UNDER_TLS: &str = "https://";

impl Endpoint {
    /// As people know it.
    pub(crate) fn shown(&self) -> String {
        match &self.path {
            Some(path) => format!("unix:{path}"),
            None if self.id.starts_with(UNDER_TLS) => self.id.to_string(),
            None => String::from_utf8_lossy(self.authority.as_bytes()).into_owned(),
        }
    }
}

impl PartialEq for Endpoint {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.pool, &other.pool)
            && self.id == other.id
            && self.addrs == other.addrs
            && self.weight == other.weight
            && (&self.whereabouts, self.priority) == (&other.whereabouts, other.priority)
    }
}

/// The endpoints of an upstream at one time. Never changed: another set takes its place.
#[derive(Debug, Default)]
pub(crate) struct EndpointSet {
    pub(crate) endpoints: Vec<Endpoint>,
    /// The most preferred first. Every endpoint stands in one.
    pub(crate) levels: Vec<Arc<Level>>,
}

/// The endpoints of a set that are equally preferred.
#[derive(Debug)]
pub(crate) struct Level {
    /// The priority that is written, and how far they are.
    pub(crate) rank: (u32, Distance),
    /// By index in the set.
    pub(crate) members: Vec<usize>,
    /// Where keys are looked up, if they are.
    pub(crate) table: Option<Arc<Table>>,
}

impl EndpointSet {
    /// Sorts endpoints into levels; `method` says which table each needs.
    pub(crate) fn new(endpoints: Vec<Endpoint>, method: Method, own: &LocalitySpec) -> Self {
        let mut ranks: BTreeMap<(u32, Distance), Vec<usize>> = BTreeMap::new();
        for (index, endpoint) in endpoints.iter().enumerate() {
            let distance = own.distance(&endpoint.whereabouts);
            ranks.entry((endpoint.priority, distance)).or_default().push(index);
        }
        let level = |(rank, members): ((u32, Distance), Vec<usize>)| {
            let named = members.iter().filter_map(|index| endpoints.get(*index));
            let table = Table::new(method, named.map(|endpoint| (&*endpoint.id, endpoint.weight))).map(Arc::new);
            Arc::new(Level { rank, members, table })
        };
        let levels = ranks.into_iter().map(level).collect();
        Self { endpoints, levels }
    }
}

/// What one worker has of an endpoint. Its reference count is written by that worker alone.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) authority: HeaderValue,
    /// The path of a Unix socket.
    pub(crate) path: Option<Arc<str>>,
    pub(crate) addrs: Arc<[SocketAddr]>,
    pub(crate) tls: Option<Towards>,
    pub(crate) slot: Arc<Slot>,
    pub(crate) standing: Arc<Standing>,
    /// Where it is told how attempts went, where outliers are ejected.
    pub(crate) watched: Option<Watched>,
    pub(crate) weight: u32,
    /// The endpoint's name in cookies.
    pub(crate) name: Option<Name>,
    /// When the endpoint joined others that were there already.
    pub(crate) joined: Option<Instant>,
    /// What is measured of the endpoint, where the choice asks for it.
    pub(crate) gauge: Option<Arc<Gauge>>,
    /// The breakers that hear of each call here: the endpoint's own, and the upstream's.
    pub(crate) fuses: [Option<Arc<Fuse>>; 2],
    /// Which generation of the endpoint's addresses `addrs` are: connections made to them belong to it.
    pub(crate) epoch: u32,
    pub(crate) metrics: Option<Arc<UpstreamShard>>,
    pub(crate) limits: Limits,
    /// Whether all workers see what is under way here.
    pub(crate) shared: bool,
    /// Whether HTTP/2 is spoken without asking.
    http2: bool,
    /// How the endpoint is told of the client, at the beginning of each connection.
    tells: Option<Version>,
}

/// Who judges an endpoint.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) standing: Arc<Standing>,
    pub(crate) fuses: [Option<Arc<Fuse>>; 2],
    pub(crate) watched: Option<Watched>,
}

/// What an upstream says of all its lanes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) limits: Limits,
    /// Whether all workers see what is under way.
    pub(crate) shared: bool,
    /// Whether HTTP/2 is spoken without asking.
    pub(crate) http2: bool,
    /// How endpoints are told of the client.
    pub(crate) tells: Option<Version>,
}

impl Lane {
    /// The current worker's lane to an endpoint, by its slot of the endpoint's pool.
    pub(crate) fn of(
        endpoint: &Endpoint,
        slot: &Arc<Slot>,
        judged: Judged,
        metrics: Option<&Arc<UpstreamShard>>,
        gauge: Option<Arc<Gauge>>,
        terms: Terms,
    ) -> Arc<Self> {
        let Terms { limits, shared, http2, tells } = terms;
        Arc::new(Self {
            authority: endpoint.authority.clone(),
            path: endpoint.path.as_deref().map(Arc::from),
            addrs: Arc::clone(&endpoint.addrs),
            tls: endpoint.tls.clone(),
            slot: Arc::clone(slot),
            standing: judged.standing,
            joined: endpoint.joined,
            watched: judged.watched,
            weight: endpoint.weight.max(1),
            name: endpoint.name,
            gauge,
            fuses: judged.fuses,
            epoch: endpoint.epoch,
            metrics: metrics.map(Arc::clone),
            limits,
            shared,
            http2,
            tells,
        })
    }

    /// Tells the choice of an attempt, where it asks for that.
    pub(crate) fn measure(&self, began: Instant, now: Instant, failed: bool) {
        if let Some(gauge) = &self.gauge {
            gauge.observe(now.saturating_duration_since(began), failed, now);
        }
    }

    /// How many exchanges are under way here: of all workers where they see each other's, else of this one.
    pub(crate) fn load(&self) -> u32 {
        if self.shared { self.slot.load() } else { self.slot.own_load() }
    }

    /// Whether the endpoint speaks HTTP/2, as far as is known.
    pub(crate) fn speaks_http2(&self) -> bool {
        self.http2 || self.slot.multiplexed.is_known()
    }

    /// Whether nothing but HTTP/2 is to be spoken.
    pub(crate) fn wants_http2(&self) -> bool {
        self.http2
    }

    /// Whether HTTP/2 is spoken on a connection that has just been made.
    pub(crate) fn begins_http2(&self, stream: &Stream) -> bool {
        stream.agreed_on_http2() || self.http2 && self.tls.is_none()
    }

    /// Whether the endpoint is told of the client at the beginning of each connection, which is then for nobody else.
    pub(crate) fn tells(&self) -> bool {
        self.tells.is_some()
    }

    /// The PROXY header that begins a connection for `client`, who came by `connection`.
    pub(crate) fn header(&self, client: IpAddr, connection: &Connection) -> Option<Vec<u8>> {
        let version = self.tells?;
        let peer = connection.peer;
        // A port is known of the one who connected to us, and of nobody whom a proxy names.
        let port = if client == peer.ip() { peer.port() } else { 0 };
        let nobody = connection.unix && client == peer.ip();
        let client = (!nobody).then_some(SocketAddr::new(client, port));
        Some(proxy_protocol::header(version, client, connection.local))
    }

    /// Tells endpoints apart.
    pub(crate) fn id(&self) -> usize {
        Arc::as_ptr(&self.slot).addr()
    }
}

/// One exchange under way at an endpoint; ends when dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) lane: Arc<Lane>,
    /// How it passed the breakers.
    pub(crate) pass: Pass,
    /// The place that the exchange has under the upstream's limit, where there is one.
    pub(crate) permit: Option<Permit>,
}

impl Lease {
    pub(crate) fn begin(lane: &Arc<Lane>) -> Self {
        lane.slot.begin(lane.shared);
        Self { lane: Arc::clone(lane), pass: Pass::default(), permit: None }
    }

    /// Gives a clean connection back and ends the exchange.
    pub(crate) fn give_back(self, conn: Conn, now: Instant) {
        self.lane.slot.give(conn, now, &self.lane.limits);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.lane.slot.end(self.lane.shared);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_scheme_host_and_port() {
        let place = Place::from_url("http://Users.Internal:8080").unwrap();
        assert_eq!(
            (place.host.as_str(), place.port, place.authority.as_bytes()),
            ("users.internal", 8080, &b"users.internal:8080"[..])
        );
        let six = Place::from_url("http://[::1]/").unwrap();
        assert_eq!((six.literal(), six.authority.as_bytes()), (Some("[::1]:80".parse().unwrap()), &b"[::1]"[..]));
        for bad in [
            "10.0.0.1:80",
            "ftp://a",
            "http://a/b",
            "http://a:0",
            "http://u:p@a",
            "http://a:",
            "http://",
            "http://a:99999",
        ] {
            assert!(Place::from_url(bad).is_err(), "{bad}");
        }
        let secure = Place::from_url("https://a.test").unwrap();
        assert_eq!((secure.port, secure.tls, secure.authority.as_bytes()), (443, true, &b"a.test"[..]));
        assert_eq!(Place::from_url("https://a.test:80").unwrap().authority, "a.test:80");
    }

    #[test]
    fn a_name_to_discover_needs_its_port() {
        assert_eq!(Place::from_name("users.internal:8080", false).map(|place| place.port), Some(8080));
        assert!(Place::from_name("users.internal", false).is_none() && Place::from_name("a b:1", false).is_none());
    }
}
