//! Sets of IP networks and of peers: which addresses are trusted, allowed or denied.

use std::borrow::Cow;
use std::net::IpAddr;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// One network as written: `10.0.0.0/8`, `2001:db8::/32`, or a lone address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network(IpNet);

impl Network {
    /// Reads `10.0.0.0/8` or `10.0.0.1`. Host bits that are set are an error, since they are nearly always a slip.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is not a network: write it as `10.0.0.0/8` or `2001:db8::/32`");
        let net = match text.parse::<IpNet>() {
            Ok(net) => net,
            Err(_) => IpNet::from(text.parse::<IpAddr>().map_err(|_| bad())?),
        };
        if net.addr() != net.network() {
            return Err(format!("`{text}` has bits set behind its mask: the network is `{}`", net.trunc()));
        }
        Ok(Self(net))
    }

    /// The network itself.
    pub fn net(self) -> IpNet {
        self.0
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

impl JsonSchema for Network {
    fn schema_name() -> Cow<'static, str> {
        "Network".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "A network such as `10.0.0.0/8`, or a lone address" })
    }
}

/// A set of networks that answers in O(log n): sorted, disjoint ranges of addresses, IPv4 and IPv6 apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkSet {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl NetworkSet {
    /// The union of `networks`.
    pub fn new(networks: impl IntoIterator<Item = Network>) -> Self {
        let mut set = Self::default();
        for Network(net) in networks {
            match net {
                IpNet::V4(net) => set.v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => set.v6.push((net.network().to_bits(), net.broadcast().to_bits())),
            }
        }
        merge(&mut set.v4);
        merge(&mut set.v6);
        set
    }

    /// Whether no address is in it.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether `ip` is in it. An IPv4 address mapped into IPv6 counts as IPv4.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match ip.to_canonical() {
            IpAddr::V4(ip) => within(&self.v4, ip.to_bits()),
            IpAddr::V6(ip) => within(&self.v6, ip.to_bits()),
        }
    }
}

/// Who is at the other end of a socket: a network, or `unix` for all that come by Unix sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerSpec {
    /// Peers with an address in it.
    Network(Network),
    /// Peers by Unix sockets.
    Unix,
}

/// The word for peers by Unix sockets.
const UNIX: &str = "unix";

impl Serialize for PeerSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Network(network) => network.serialize(serializer),
            Self::Unix => serializer.serialize_str(UNIX),
        }
    }
}

impl<'de> Deserialize<'de> for PeerSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == UNIX {
            return Ok(Self::Unix);
        }
        Network::parse(&text).map(Self::Network).map_err(de::Error::custom)
    }
}

impl JsonSchema for PeerSpec {
    fn schema_name() -> Cow<'static, str> {
        "Peer".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "A network such as `10.0.0.0/8`, a lone address, or `unix`" })
    }
}

/// A set of peers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerSet {
    networks: NetworkSet,
    unix: bool,
}

impl PeerSet {
    /// All of these.
    pub fn new(peers: &[PeerSpec]) -> Self {
        let networks = peers.iter().filter_map(|peer| match peer {
            PeerSpec::Network(network) => Some(*network),
            PeerSpec::Unix => None,
        });
        Self { networks: NetworkSet::new(networks), unix: peers.contains(&PeerSpec::Unix) }
    }

    /// Whether nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.unix
    }

    /// Whether a peer is in it; none is one by a Unix socket.
    pub fn contains(&self, peer: Option<IpAddr>) -> bool {
        peer.map_or(self.unix, |ip| self.networks.contains(ip))
    }

    /// Whether an address is in one of the networks.
    pub fn has(&self, ip: IpAddr) -> bool {
        self.networks.contains(ip)
    }
}

/// Sorts ranges and joins those that overlap.
fn merge<T: Ord + Copy>(ranges: &mut Vec<(T, T)>) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, kept| {
        let joins = next.0 <= kept.1;
        if joins {
            kept.1 = kept.1.max(next.1);
        }
        joins
    });
}

fn within<T: Ord>(ranges: &[(T, T)], address: T) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= address);
    after.checked_sub(1).and_then(|i| ranges.get(i)).is_some_and(|(_, last)| address <= *last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_set_agrees_with_looking_at_each_network(nets in prop::collection::vec((any::<u32>(), 0_u8..=32), 0..20), ip in any::<u32>()) {
            let nets: Vec<_> = nets.into_iter()
                .map(|(bits, len)| Network(ipnet::Ipv4Net::new(bits.into(), len).unwrap().trunc().into())).collect();
            let ip = IpAddr::V4(ip.into());
            prop_assert_eq!(NetworkSet::new(nets.clone()).contains(ip), nets.iter().any(|n| n.net().contains(&ip)));
        }
    }

    #[test]
    fn host_bits_behind_the_mask_are_refused_with_the_network_meant() {
        assert_eq!(
            Network::parse("10.0.0.1/8"),
            Err("`10.0.0.1/8` has bits set behind its mask: the network is `10.0.0.0/8`".into())
        );
        assert!(
            Network::parse("10.0.0.1").is_ok() && Network::parse("::1").is_ok() && Network::parse("localhost").is_err()
        );
    }

    #[test]
    fn a_peer_by_a_unix_socket_is_in_a_set_that_says_so_and_in_no_network() {
        let all = PeerSpec::Network(Network::parse("0.0.0.0/0").unwrap());
        let (networks, both) = (PeerSet::new(&[all]), PeerSet::new(&[all, PeerSpec::Unix]));
        assert!(networks.contains(Some("10.0.0.1".parse().unwrap())) && !networks.contains(None));
        assert!(both.contains(None) && !PeerSet::new(&[PeerSpec::Unix]).contains(Some("127.0.0.1".parse().unwrap())));
    }

    #[test]
    fn a_mapped_address_counts_as_ipv4() {
        let set = NetworkSet::new([Network::parse("10.0.0.0/8").unwrap()]);
        assert!(set.contains("::ffff:10.1.2.3".parse().unwrap()) && !set.contains("::1".parse().unwrap()));
    }
}
