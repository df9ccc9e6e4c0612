//! From what is written of endpoints to members, names and TLS: all that is wrong is told at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use pylon_core::short::Short;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::units::Span;
use pylon_net::tls::client::{Alpn, ClientTls, Towards};
use pylon_observe::insight::SourceReading;

use crate::discovery::consul::Service;
use crate::discovery::dns::{Addresses, Name};
use crate::discovery::etcd::Prefix;
use crate::discovery::file::Listed;
use crate::discovery::kubernetes::Slices;
use crate::discovery::source::{Finder, Source};
use crate::discovery::spec::{DiscoverSpec, Written};
use crate::discovery::srv::Records;
use crate::discovery::static_list::Member;
use crate::discovery::target::Target;
use crate::endpoint::Place;
use crate::locality::Whereabouts;
use crate::pool::Pool;
use crate::spec::{EndpointSpec, ProtocolSpec, Speaks, UpstreamSpec, one_hour};
use crate::upstream::Building;
use crate::view::SourceView;

/// What an upstream's endpoints are made from.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) members: Vec<Member>,
    pub(crate) discovered: Option<Arc<Source>>,
    pub(crate) tls: Option<Arc<ClientTls>>,
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
        let pool = FieldPath::root().key("pool");
        compiler.errors.extend(spec.pool.check().into_iter().map(|error| error.below(&pool)));
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

    /// The names that stand in the document and are resolved.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Arc<Name>> {
        self.members.iter().filter_map(|member| member.name.as_ref())
    }

    /// Each with what is known of it, for the admin API.
    pub(crate) fn view(&self, now: Instant) -> Vec<SourceView> {
        let named = |name: &Arc<Name>| {
            let (place, known) = (name.place(), name.known());
            let text = String::from_utf8_lossy(place.authority.as_bytes());
            SourceView::new("host name", &text, known, now, |ip| SocketAddr::new(*ip, place.port).to_string())
        };
        let written: Vec<_> = self.names().map(named).collect();
        let found = self.discovered.iter().flat_map(|source| {
            let own = SourceView::new(source.kind(), source.what(), source.known(), now, Target::to_string);
            [own].into_iter().chain(source.names().iter().map(named).collect::<Vec<_>>())
        });
        written.into_iter().chain(found).collect()
    }

    /// The same in figures, but for names that sources give in place of addresses: those have no bound.
    pub(crate) fn readings(&self, now: Instant) -> Vec<SourceReading> {
        let written = self.names().map(|name| {
            let authority = String::from_utf8_lossy(name.place().authority.as_bytes()).into_owned();
            name.known().reading("host name", authority, now)
        });
        let found = self.discovered.iter().map(|one| one.known().reading(one.kind(), one.what().to_owned(), now));
        written.chain(found).collect()
    }

    /// Why there may be no endpoint.
    pub(crate) fn why_empty(&self) -> Vec<String> {
        let mut all = Vec::new();
        let mut name = |name: &Arc<Name>| {
            let known = name.known();
            all.extend(
                known.error.or_else(|| (!known.asked).then(|| format!("`{}` is not resolved yet", name.place().host))),
            );
        };
        self.names().for_each(&mut name);
        if let Some(source) = &self.discovered {
            source.names().iter().for_each(&mut name);
            let known = source.known();
            let what = format!("{} `{}`", source.kind(), source.what());
            let empty = known.found.is_empty();
            all.extend(match known.error {
                Some(error) => Some(format!("{what}: {error}")),
                None if !known.asked => Some(format!("{what} has not answered yet")),
                None => empty.then(|| format!("{what} names none")),
            });
        }
        all
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
            let name = place.literal().is_none().then(|| self.name(&place));
            let pool = self.cx.carry.keep(self.key(&place), Pool::new);
            let Some(Short(EndpointSpec { weight, zone, region, priority, .. })) = self.spec.endpoints.get(index)
            else {
                continue;
            };
            let whereabouts = Whereabouts::new(zone.as_deref(), region.as_deref());
            members.push(Member { place, weight: *weight, whereabouts, priority: *priority, tls, pool, name });
        }
        members
    }

    fn discovered(&mut self) -> Option<Arc<Source>> {
        let discover = self.spec.discover.as_ref()?;
        let at = FieldPath::root().key("discover");
        let found = discover.written().and_then(|written| self.finder(written));
        let finder = match found {
            Ok(finder) => finder,
            Err(error) => {
                self.errors.push(error.below(&at));
                return None;
            }
        };
        if let Finder::Dns(Addresses { target, .. }) = &finder {
            let place = target.place(self.tls.is_some())?;
            if self.towards(&place, &at.key("dns")).is_none() && self.tls.is_some() {
                return None;
            }
        }
        Some(self.source(discover, finder))
    }

    fn finder(&self, written: Written<'_>) -> Result<Finder, SpecError> {
        let resolver = self.cx.resolver.clone();
        match written {
            Written::Dns(text) => match Target::parse(text) {
                Some(target) => Ok(Finder::Dns(Addresses { target, resolver })),
                None => {
                    let problem = format!("`{text}` is not a name with a port");
                    let error = SpecError::new(FieldPath::root().key("dns"), problem);
                    Err(error.help("write it as `users.internal:8080`"))
                }
            },
            Written::Srv(text) => match Target::new(text, 1) {
                Some(_) => Ok(Finder::Srv(Records { name: text.to_owned(), resolver })),
                None => {
                    let error = SpecError::new(FieldPath::root().key("srv"), format!("`{text}` is not a name"));
                    Err(error.help("write it as `_http._tcp.users.internal`"))
                }
            },
            Written::File(path) => Ok(Finder::File(Listed { path: path.clone(), yaml: self.cx.yaml })),
            Written::Consul(spec) => {
                let found = match &self.cx.agents.consul {
                    Some(agent) => Service::compile(spec, Arc::clone(agent)).map(Finder::Consul),
                    None => Err(nobody("Consul", "`discovery: { consul: { address: http://127.0.0.1:8500 } }`")),
                };
                found.map_err(|error| error.below(&FieldPath::root().key("consul")))
            }
            Written::Etcd(spec) => {
                let found = match &self.cx.agents.etcd {
                    Some(cluster) => Prefix::compile(spec, Arc::clone(cluster)).map(Finder::Etcd),
                    None => Err(nobody("etcd", "`discovery: { etcd: { endpoints: [http://127.0.0.1:2379] } }`")),
                };
                found.map_err(|error| error.below(&FieldPath::root().key("etcd")))
            }
            Written::Kubernetes(spec) => {
                let found = Slices::compile(spec, Arc::clone(&self.cx.agents.kubernetes)).map(Finder::Kubernetes);
                found.map_err(|error| error.below(&FieldPath::root().key("kubernetes")))
            }
        }
    }

    /// The living source, or a new one. It holds pools, which must not be shared with those who speak otherwise.
    fn source(&self, spec: &DiscoverSpec, finder: Finder) -> Arc<Source> {
        let (resolver, tls) = (self.cx.resolver, self.tls.clone());
        let how = self.how(tls.is_some());
        let key = format!("{spec:?}{how} {} {}", resolver.identity(), self.cx.agents.identity(Some(spec)));
        let lasting = matches!(finder, Finder::Dns(_) | Finder::Srv(_)).then(one_hour);
        let keep = spec.keep.or(lasting).map(Span::duration);
        self.cx.carry.keep(key, || Source::new(finder, spec.words(), keep, resolver.clone(), tls))
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

    fn name(&self, place: &Place) -> Arc<Name> {
        let keep = one_hour().duration();
        let key = format!("{} {}", self.key(place), self.cx.resolver.identity());
        self.cx.carry.keep(key, || Name::new(place.clone(), keep, self.cx.resolver.clone()))
    }

    /// What tells apart those who must not share connections: where, and how it is spoken to.
    fn key(&self, place: &Place) -> String {
        format!("{}:{}{}", place.host, place.port, self.how(place.tls))
    }

    fn how(&self, tls: bool) -> String {
        match self.tls.as_ref().filter(|_| tls) {
            Some(tls) => format!(" {}", tls.identity()),
            None if self.spec.protocol == ProtocolSpec::Http2 => " http2".to_owned(),
            None => String::new(),
        }
    }
}

/// Nobody is asked for endpoints of this kind.
fn nobody(whom: &str, remedy: &str) -> SpecError {
    let error = SpecError::new(FieldPath::root(), format!("the document does not say which {whom} is asked"));
    error.help(format!("write {remedy} at its top"))
}

fn alpn(protocol: ProtocolSpec) -> Alpn {
    match protocol {
        ProtocolSpec::Auto => Alpn::Either,
        ProtocolSpec::Http1 => Alpn::Http1,
        ProtocolSpec::Http2 => Alpn::Http2,
    }
}
