//! From what is written of endpoints to members, names and TLS: all that is wrong is told at once.

use std::sync::Arc;
use std::time::Duration;

use pylon_core::spec::{FieldPath, SpecError};
use pylon_net::tls::client::{Alpn, ClientTls, Towards};

use crate::discovery::dns::Name;
use crate::discovery::static_list::Member;
use crate::endpoint::Place;
use crate::pool::Pool;
use crate::spec::{ProtocolSpec, Speaks, UpstreamSpec};
use crate::upstream::Building;

/// What an upstream's endpoints are made from.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) members: Vec<Member>,
    pub(crate) discovered: Option<Discovered>,
    pub(crate) tls: Option<Arc<ClientTls>>,
}

/// A name whose every address is an endpoint.
#[derive(Debug)]
pub(crate) struct Discovered {
    pub(crate) name: Arc<Name>,
    /// None in cleartext.
    pub(crate) tls: Option<Towards>,
}

struct Compiler<'a> {
    spec: &'a UpstreamSpec,
    cx: &'a Building<'a>,
    tls: Option<Arc<ClientTls>>,
    errors: Vec<SpecError>,
}

impl Sources {
    /// Reads them out of a spec.
    pub(crate) fn compile(spec: &UpstreamSpec, cx: &Building<'_>) -> Result<Self, Vec<SpecError>> {
        let mut compiler = Compiler { spec, cx, tls: None, errors: Vec::new() };
        if spec.endpoints.is_empty() && spec.discover.is_none() {
            let error = SpecError::new(FieldPath::root(), "this upstream has no endpoints");
            let help = "write `endpoints: [http://host:port]` or `discover: { dns: name:port }`";
            compiler.errors.push(error.help(help));
        }
        if spec.speaks().is_none() {
            let error =
                SpecError::new(FieldPath::root().key("endpoints"), "some endpoints speak HTTP and some `tcp://`");
            compiler
                .errors
                .push(error.help("make them two upstreams: routes forward to one, listeners with `tcp` to the other"));
        }
        compiler.protocol();
        let places = compiler.places();
        compiler.load_tls(places.iter().any(|(_, place)| place.tls) || spec.discover.is_some() && spec.tls.is_some());
        let members = compiler.members(places);
        let discovered = compiler.discovered();
        if compiler.errors.is_empty() {
            Ok(Self { members, discovered, tls: compiler.tls })
        } else {
            Err(compiler.errors)
        }
    }

    /// All names that are resolved.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Arc<Name>> {
        let discovered = self.discovered.iter().map(|discovered| &discovered.name);
        self.members.iter().filter_map(|member| member.name.as_ref()).chain(discovered)
    }
}

impl Compiler<'_> {
    /// What cannot be spoken to such a service.
    fn protocol(&mut self) {
        let at = || FieldPath::root().key("protocol");
        if self.spec.speaks() == Some(Speaks::Bytes) && self.spec.protocol != ProtocolSpec::Auto {
            let error = SpecError::new(at(), "no HTTP is spoken to `tcp://` endpoints");
            self.errors.push(error.help("leave `protocol` out"));
        }
        if self.spec.proxy_protocol.is_some() && self.spec.protocol == ProtocolSpec::Http2 {
            let problem = "a connection of HTTP/2 is for many clients, and `proxy_protocol` begins each with one";
            self.errors.push(SpecError::new(at(), problem).help("write `protocol: http1`, or leave it out"));
        }
    }

    /// Where the written endpoints are, each with its index.
    fn places(&mut self) -> Vec<(usize, Place)> {
        let mut places: Vec<(usize, Place)> = Vec::new();
        for (index, endpoint) in self.spec.endpoints.iter().enumerate() {
            let at = || FieldPath::root().key("endpoints").index(index);
            if !(1..=1000).contains(&endpoint.weight) {
                let problem = format!("the weight {} is not from 1 to 1000", endpoint.weight);
                let error = SpecError::new(at().key("weight"), problem);
                self.errors.push(error.help("leave an endpoint out to send it nothing"));
            }
            match Place::from_url(&endpoint.url) {
                Ok(place) if places.iter().any(|(_, other)| *other == place) => {
                    let error = SpecError::new(at(), format!("`{}` stands twice", endpoint.url));
                    self.errors.push(error.help("give it a weight instead"));
                }
                Ok(place) => places.push((index, place)),
                Err((problem, help)) => self.errors.push(SpecError { at: at(), problem, help }),
            }
        }
        places
    }

    fn load_tls(&mut self, wanted: bool) {
        let at = FieldPath::root().key("tls");
        match (&self.spec.tls, wanted) {
            (None, false) => {}
            (Some(_), false) => {
                let error = SpecError::new(at, "`tls` is written, but no endpoint is reached under TLS");
                self.errors.push(error.help("write endpoints as `https://host:port`"));
            }
            (spec, true) => match ClientTls::load(&spec.clone().unwrap_or_default(), alpn(self.spec.protocol)) {
                Ok(tls) => self.tls = Some(Arc::new(tls)),
                Err(errors) => self.errors.extend(errors.into_iter().map(|error| error.below(&at))),
            },
        }
    }

    fn members(&mut self, places: Vec<(usize, Place)>) -> Vec<Member> {
        let mut members = Vec::new();
        for (index, place) in places {
            let tls = self.towards(&place, &FieldPath::root().key("endpoints").index(index));
            let name = place.literal().is_none().then(|| self.name(&place, crate::spec::one_hour().duration()));
            let pool = self.cx.carry.keep(self.key(&place), Pool::new);
            let weight = self.spec.endpoints.get(index).map_or(1, |endpoint| endpoint.weight);
            members.push(Member { place, weight, tls, pool, name });
        }
        members
    }

    fn discovered(&mut self) -> Option<Discovered> {
        let discover = self.spec.discover.as_ref()?;
        let at = FieldPath::root().key("discover").key("dns");
        let Some(place) = Place::from_name(&discover.dns, self.spec.tls.is_some()) else {
            let error = SpecError::new(at, format!("`{}` is not a name with a port", discover.dns));
            self.errors.push(error.help("write it as `users.internal:8080`"));
            return None;
        };
        Some(Discovered { tls: self.towards(&place, &at), name: self.name(&place, discover.keep.duration()) })
    }

    fn towards(&mut self, place: &Place, at: &FieldPath) -> Option<Towards> {
        let tls = self.tls.as_ref().filter(|_| place.tls)?;
        let towards = tls.towards(&place.host);
        if towards.is_none() {
            let error = SpecError::new(at.clone(), format!("no certificate can be for `{}`", place.host));
            self.errors.push(error.help("say which name it is for: `tls: { server_name: users.internal }`"));
        }
        towards
    }

    fn name(&self, place: &Place, keep: Duration) -> Arc<Name> {
        // It holds pools, which must not be shared with those who speak otherwise.
        let key = format!("{} {}ms {}", self.key(place), keep.as_millis(), self.cx.resolver.identity());
        self.cx.carry.keep(key, || Name::new(place.clone(), keep, self.cx.resolver.clone()))
    }

    /// What tells apart those who must not share connections: where, and how it is spoken to.
    fn key(&self, place: &Place) -> String {
        let how = match self.tls.as_ref().filter(|_| place.tls) {
            Some(tls) => format!(" {}", tls.identity()),
            None if self.spec.protocol == ProtocolSpec::Http2 => " http2".to_owned(),
            None => String::new(),
        };
        format!("{}:{}{how}", place.host, place.port)
    }
}

fn alpn(protocol: ProtocolSpec) -> Alpn {
    match protocol {
        ProtocolSpec::Auto => Alpn::Either,
        ProtocolSpec::Http1 => Alpn::Http1,
        ProtocolSpec::Http2 => Alpn::Http2,
    }
}
