//! Resolves host names to addresses of both families, and says for how long they hold.
//!
//! Queries run on the runtime that awaits them: the control runtime, never a data-plane worker. Literal addresses and
//! names in the system's hosts file need no query. Nothing is cached here: whoever asks keeps the answer for its TTL.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;

mod system;

use system::System;

/// Where the system names its servers, and where those listen.
const SYSTEM: &str = "/etc/resolv.conf";
const PORT: u16 = 53;
/// The longest TTL that is believed: one day. Literal addresses hold as long.
const MAX_TTL: Duration = Duration::from_secs(24 * 3600);
/// How long names of the hosts file hold: there is no TTL, and the file may be edited.
const HOSTS_TTL: Duration = Duration::from_secs(60);

/// A client of name servers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Resolver {
    servers: Servers,
    identity: Arc<str>,
}

/// Whom it asks.
#[derive(Clone)]
enum Servers {
    Written(Arc<TokioResolver>),
    OfSystem(Arc<System>),
}

/// The addresses of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// At least one, in the order of the answer.
    pub addrs: Vec<IpAddr>,
    /// For how long they hold.
    pub ttl: Duration,
}

/// One record of type SRV (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Srv {
    /// Lower ones come first.
    pub priority: u16,
    /// The share among those of one priority.
    pub weight: u16,
    /// Where the service listens.
    pub port: u16,
    /// The host, with the dot at its end.
    pub target: String,
}

/// Why a name has no addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The configuration of the system or the list of servers is of no use.
    #[error("the resolver cannot be set up: {0}")]
    Setup(String),
    /// No server gave an answer, or the answer says no.
    #[error("`{0}` cannot be resolved: {1}")]
    Lookup(String, String),
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Written(_) => f.write_str("Written"),
            Self::OfSystem(system) => system.fmt(f),
        }
    }
}

impl Resolver {
    /// A resolver that asks `servers`, or those of the system where the list is empty, whichever they are at that time.
    pub fn new(servers: &[SocketAddr]) -> Result<Self, ResolveError> {
        let setup = |error: &dyn fmt::Display| ResolveError::Setup(error.to_string());
        if servers.is_empty() {
            let system = System::read(PathBuf::from(SYSTEM), PORT).map_err(|error| setup(&error))?;
            return Ok(Self::of_system(Arc::new(system)));
        }
        let mut written = ResolverOpts::default();
        written.timeout = Duration::from_secs(2);
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.iter().map(server).collect());
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let client = builder.with_options(options(written)).build().map_err(|error| setup(&error))?;
        Ok(Self { servers: Servers::Written(Arc::new(client)), identity: format!("{servers:?}").into() })
    }

    fn of_system(system: Arc<System>) -> Self {
        Self { servers: Servers::OfSystem(system), identity: "system".into() }
    }

    /// Who is to be asked now.
    fn client(&self) -> Arc<TokioResolver> {
        match &self.servers {
            Servers::Written(client) => Arc::clone(client),
            Servers::OfSystem(system) => system.client(),
        }
    }

    /// Which servers are asked: what one resolver has learnt is not for those who ask others.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The addresses of `host`, in both families.
    pub async fn lookup_ip(&self, host: &str) -> Result<Resolved, ResolveError> {
        if let Ok(literal) = host.parse::<IpAddr>() {
            return Ok(Resolved { addrs: vec![literal], ttl: MAX_TTL });
        }
        let asked = tokio::time::Instant::now().into_std();
        let failed = |problem: String| ResolveError::Lookup(host.to_owned(), problem);
        let answer = self.client().lookup_ip(host).await.map_err(|error| failed(error.to_string()))?;
        let mut addrs: Vec<IpAddr> = Vec::new();
        for addr in answer.iter() {
            if !addrs.contains(&addr) {
                addrs.push(addr);
            }
        }
        if addrs.is_empty() {
            return Err(failed("the answer holds no address".to_owned()));
        }
        // A lookup in the hosts file claims to hold for the longest time there is.
        let ttl = answer.valid_until().saturating_duration_since(asked);
        Ok(Resolved { addrs, ttl: if ttl >= MAX_TTL { HOSTS_TTL } else { ttl } })
    }

    /// The records of type SRV of `name`, and for how long they hold.
    pub async fn lookup_srv(&self, name: &str) -> Result<(Vec<Srv>, Duration), ResolveError> {
        let asked = tokio::time::Instant::now().into_std();
        let answer = self.client().srv_lookup(name).await;
        let answer = answer.map_err(|error| ResolveError::Lookup(name.to_owned(), error.to_string()))?;
        let records = answer.answers().iter().filter_map(|record| match &record.data {
            RData::SRV(srv) => {
                Some(Srv { priority: srv.priority, weight: srv.weight, port: srv.port, target: srv.target.to_ascii() })
            }
            _ => None,
        });
        let records: Vec<_> = records.collect();
        if records.is_empty() {
            return Err(ResolveError::Lookup(name.to_owned(), "the answer holds no record of type SRV".to_owned()));
        }
        Ok((records, answer.valid_until().saturating_duration_since(asked)))
    }
}

/// Those of ours among what is written.
fn options(mut written: ResolverOpts) -> ResolverOpts {
    written.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    written.use_hosts_file = ResolveHosts::Always;
    written.cache_size = 0;
    written
}

fn server(at: &SocketAddr) -> NameServerConfig {
    let mut connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = at.port();
    }
    NameServerConfig::new(at.ip(), true, connections.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn literals_and_localhost_need_no_server() {
        // Nothing answers at this address.
        let resolver = Resolver::new(&["127.0.0.1:9".parse().unwrap()]).unwrap();
        let six = resolver.lookup_ip("::1").await.unwrap();
        assert_eq!(six.addrs, ["::1".parse::<IpAddr>().unwrap()]);
        let local = resolver.lookup_ip("localhost").await.unwrap();
        assert!(local.addrs.iter().all(IpAddr::is_loopback) && local.addrs.contains(&"127.0.0.1".parse().unwrap()));
    }
}
