//! Where a server of Redis is, and the way there: names are resolved and connections made as those of traffic are.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use pylon_core::spec::{FieldPath, SpecError};
use pylon_net::dial::connect;
use pylon_net::resolve::Resolver;
use pylon_net::stream::Stream;
use pylon_net::tls::client::{Alpn, ClientTls, Towards};

use crate::spec::RedisSpec;

const DEFAULT_PORT: u16 = 6379;

/// Where it is.
#[derive(Debug)]
pub(crate) struct Address {
    host: String,
    port: u16,
    pub(crate) database: i64,
    tls: Option<(Arc<ClientTls>, Towards)>,
    resolver: Resolver,
}

impl Address {
    /// Errors begin at the key `redis`.
    pub(crate) fn new(spec: &RedisSpec, resolver: &Resolver) -> Result<Self, Vec<SpecError>> {
        let at = |key: &str| FieldPath::root().key(key);
        let bad = |problem: &str| {
            let error = SpecError::new(at("url"), format!("`{}` {problem}", spec.url));
            vec![error.help("write it as `redis://host:port/database`, or `rediss://` for TLS")]
        };
        let (secure, rest) = match (spec.url.strip_prefix("redis://"), spec.url.strip_prefix("rediss://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err(bad("is no URL of Redis")),
        };
        let (authority, database) = rest.split_once('/').unwrap_or((rest, "0"));
        if authority.contains('@') {
            return Err(bad("has a user name or password, which stand under `username` and `password`"));
        }
        let database = match database {
            "" => 0,
            number => number
                .parse()
                .ok()
                .filter(|number| (0..=1_000_000).contains(number))
                .ok_or_else(|| bad("has no valid database"))?,
        };
        let uri: http::uri::Authority = authority.parse().map_err(|_| bad("has no valid host and port"))?;
        let host = uri.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let port = match uri.port_u16() {
            Some(port) => port,
            None if uri.as_str() == uri.host() => DEFAULT_PORT,
            None => return Err(bad("has no valid port")),
        };
        if host.is_empty() || port == 0 {
            return Err(bad("has no valid host and port"));
        }
        let tls = match (secure, &spec.tls) {
            (false, None) => None,
            (false, Some(_)) => {
                let error =
                    SpecError::new(at("tls"), format!("`tls` is written, but `{}` is not reached under TLS", spec.url));
                return Err(vec![error.help("write the address as `rediss://host:port`")]);
            }
            (true, tls) => {
                let loaded = ClientTls::load(&tls.clone().unwrap_or_default(), Alpn::None);
                let tls = Arc::new(loaded.map_err(|errors| -> Vec<_> {
                    errors.into_iter().map(|error| error.below(&at("tls"))).collect()
                })?);
                let towards = tls.towards(&host).ok_or_else(|| bad("has a host for which no certificate can be"))?;
                Some((tls, towards))
            }
        };
        Ok(Self { host, port, database, tls, resolver: resolver.clone() })
    }

    /// For people.
    pub(crate) fn shown(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Makes a connection.
    pub(crate) async fn connect(&self, deadline: Instant) -> io::Result<Stream> {
        let resolved = self.resolver.lookup_ip(&self.host).await.map_err(io::Error::other)?;
        let addresses: Vec<_> = resolved.addrs.into_iter().map(|ip| SocketAddr::new(ip, self.port)).collect();
        let socket = connect(&addresses, Some(deadline)).await?;
        let Some((tls, towards)) = &self.tls else { return Ok(Stream::Plain(socket)) };
        let files = Arc::clone(tls);
        // Renewed roots and certificates count from here on. What cannot be read leaves those before in force.
        let _read = tokio::task::spawn_blocking(move || files.refresh(pylon_observe::clock::unix_now())).await;
        towards.connect(socket, false).await
    }
}
