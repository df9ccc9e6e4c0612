//! Endpoints as sources name them: a host and a port, and what is known of them besides.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::endpoint::Place;
use crate::locality::Whereabouts;

/// The largest weight, and the highest number of a priority, that a source may give.
pub(crate) const HEAVIEST: u32 = 65_535;

/// One endpoint that a source names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Target {
    /// Address or name, without brackets; under TLS its certificate must be for it.
    pub(crate) host: Arc<str>,
    pub(crate) port: u16,
    /// Where it is reached, if that is not for `host` to say.
    pub(crate) addr: Option<IpAddr>,
    /// From 1 on.
    pub(crate) weight: u32,
    /// From 0, which comes first.
    pub(crate) priority: u32,
    pub(crate) whereabouts: Whereabouts,
}

impl Target {
    /// An endpoint of weight 1. None where that is no host, or no port.
    pub(crate) fn new(host: &str, port: u16) -> Option<Self> {
        let place = Place::new(host, port, false)?;
        Some(Self::at(&place))
    }

    /// Reads `host:port` or `[::1]:port`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let place = Place::from_name(text, false)?;
        Some(Self::at(&place))
    }

    fn at(place: &Place) -> Self {
        let (host, whereabouts) = (place.host.as_str().into(), Whereabouts::default());
        Self { host, port: place.port, addr: None, weight: 1, priority: 0, whereabouts }
    }

    /// With what its source `says` of `weight`, `priority`, `zone` and `region`.
    pub(crate) fn described(self, says: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let number = |name: &str, usual: u32, least: u32| match says(name) {
            None => Ok(usual),
            Some(text) => {
                let read = text.parse().ok().filter(|number| (least..=HEAVIEST).contains(number));
                read.ok_or_else(|| format!("the {name} `{text}` is not from {least} to {HEAVIEST}"))
            }
        };
        let (weight, priority) = (number("weight", 1, 1)?, number("priority", 0, 0)?);
        let whereabouts = Whereabouts::new(says("zone").as_deref(), says("region").as_deref());
        Ok(Self { weight, priority, whereabouts, ..self })
    }

    /// What tells it from others, whatever else is said of it.
    pub(crate) fn key(&self) -> Key {
        (Arc::clone(&self.host), self.port, self.addr)
    }

    /// As it is shown, and spoken to where a service wants its own name. Under TLS the port 443 is left out of it.
    pub(crate) fn place(&self, tls: bool) -> Option<Place> {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.to_string() };
        Place::new(&host, self.port, tls)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.addr {
            Some(addr) => SocketAddr::new(addr, self.port).fmt(f),
            None if self.host.contains(':') => write!(f, "[{}]:{}", self.host, self.port),
            None => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Host, port and fixed address.
pub(crate) type Key = (Arc<str>, u16, Option<IpAddr>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_host_and_a_port() {
        let six = Target::parse("[::1]:8080").unwrap();
        assert_eq!((&*six.host, six.port), ("::1", 8080));
        assert_eq!(six.place(true).unwrap().authority, "[::1]:8080");
        assert_eq!(Target::new("::1", 443).unwrap().place(true).unwrap().authority, "[::1]");
        assert_eq!(&*Target::parse("Users.Internal:80").unwrap().host, "users.internal");
        for bad in ["users", "users:0", "users:x", "http://users:80", "a b:80", ":80", "users:80/path"] {
            assert!(Target::parse(bad).is_none(), "{bad}");
        }
        let says = |name: &str| Some(if name == "priority" { "7" } else { "3" }.to_owned());
        let described = six.clone().described(says).unwrap();
        let Whereabouts { zone, region, .. } = described.whereabouts;
        assert_eq!((described.weight, described.priority), (3, 7));
        assert_eq!((zone.as_deref(), region.as_deref()), (Some("3"), Some("3")));
        assert_eq!(six.clone().described(|_| None), Ok(six.clone()));
        let error = six.described(|_| Some("high".to_owned())).unwrap_err();
        assert_eq!(error, "the weight `high` is not from 1 to 65535");
    }
}
