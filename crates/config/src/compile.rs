//! From specs to a snapshot. `pylon run`, `pylon check` and `pylon explain` take this same way; none of it touches the
//! network or a socket.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use pylon_core::carry::Carry;
use pylon_core::host::HostPattern;
use pylon_core::names::{RouteId, UpstreamName};
use pylon_core::spec::{FieldPath, SpecError};
use pylon_net::resolve::Resolver;
use pylon_observe::metrics::Metrics;
use pylon_policy::consumers::Consumers;
use pylon_policy::policy::{Around, Service, Upstreams};
use pylon_policy::registry::AnySpec;
use pylon_proxy::action::Action;
use pylon_proxy::forwarding::TrustedProxies;
use pylon_proxy::removal::{OnRemoval, Streams};
use pylon_proxy::snapshot::{Route, Settings, Snapshot};
use pylon_proxy::websocket::WebSocket;
use pylon_route::matching::RouteMatch;
use pylon_route::rewrite::Rewrite;
use pylon_route::table::Table;
use pylon_upstream::discovery::agents::Agents;
use pylon_upstream::upstream::Upstream;

use self::own::Contributed;
use crate::diagnostic::Diagnostic;
use crate::document::{Document, RouteSpec};
use crate::load::{Source, SourceFile};
use crate::plan::{self, PlainSecrets};
use crate::stores::Stores;

mod action;
mod calls;
mod fallback;
mod mirror;
mod own;
mod policies;
mod tcp;
mod upstreams;

/// The id of the last route in log and metrics: requests that no route takes.
pub const NOWHERE: &str = "(none)";

/// What a snapshot is compiled with.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The living state of older snapshots.
    pub carry: &'a Carry,
    /// Where series come from.
    pub metrics: &'a Metrics,
    /// Resolves the names of endpoints.
    pub resolver: &'a Resolver,
    /// Who is asked for endpoints.
    pub agents: &'a Agents,
    /// The name of this process in `Via`.
    pub pseudonym: &'a str,
    /// How secrets may be written.
    pub secrets: PlainSecrets,
    /// The folder in which a gateway that runs keeps what must outlive its process, if there is one.
    pub state: Option<&'a Path>,
}

/// A document compiled, and what is known of it beyond what serves.
#[derive(Debug)]
pub struct Compiled {
    /// What serves.
    pub snapshot: Snapshot,
    /// Where each route's parts were written, in the order of the routes; the last is that of requests without a route.
    pub origins: Vec<Origin>,
    /// What is allowed but hardly meant.
    pub warnings: Vec<Diagnostic>,
}

/// Where the parts of a route come from.
#[derive(Debug)]
pub struct Origin {
    /// The route itself.
    pub at: FieldPath,
    /// Its effective policies, each with the place where it was written.
    pub policies: Vec<(AnySpec, FieldPath)>,
    /// The policies among them that are watched and not enforced.
    pub shadow: Vec<String>,
    /// What it does, in words: `forward to users`.
    pub action: String,
}

/// Compiles a document whose parts were read without error.
pub fn compile(source: &Source, document: &Document, cx: &Context<'_>) -> Result<Compiled, Vec<Diagnostic>> {
    let around = Around::new(Arc::default(), cx.resolver.clone(), cx.secrets.reveal());
    let (upstreams, own, wrong) = (BTreeMap::new(), Vec::new(), Vec::new());
    let mut compiler = Compiler { source, document, cx, around, upstreams, own, wrong };
    compiler.around.state = cx.state.map(Path::to_owned);
    compiler.around.asks_for_certificates = asks_for_certificates(document);
    compiler.consumers();
    compiler.stores();
    compiler.upstreams();
    compiler.around.upstreams = Upstreams {
        all: compiler.upstreams.clone(),
        written: document.upstreams.iter().map(|(name, _)| name.clone()).collect(),
        max_head: document.limits.response_headers.as_usize(),
    };
    let (mut routes, mut origins, mut matches) = compiler.routes();
    let nowhere = compiler.nowhere();
    for (route, origin, matching) in compiler.own_routes(&matches) {
        routes.push(route);
        origins.push(origin);
        matches.push(matching);
    }
    let table = compiler.table(matches);
    let tcp = compiler.tcp();
    match (table, nowhere) {
        (Some(table), Some((nowhere, origin))) if compiler.wrong.is_empty() => {
            let warnings = lints(source, &table, &origins);
            let settings = Settings {
                trusted_proxies: TrustedProxies::compile(&document.trusted_proxies),
                pseudonym: cx.pseudonym.to_owned(),
                reason_header: document.telemetry.reason_header,
            };
            let (upstreams, services) = (compiler.upstreams, compiler.around.services.into_all());
            let snapshot = Snapshot { table, routes, nowhere, settings, upstreams, services, tcp, hash: hash(source) };
            let origins = origins.into_iter().chain([origin]).collect();
            Ok(Compiled { snapshot, origins, warnings })
        }
        _ => Err(compiler.wrong),
    }
}

/// Whether any listener asks clients for certificates, be it for some hosts.
fn asks_for_certificates(document: &Document) -> bool {
    let tls = document.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    tls.into_iter().any(|tls| tls.client_cert.is_some() || tls.hosts.iter().any(|host| host.client_cert.is_some()))
}

/// The hash of a document's content: the first 16 digits of BLAKE3 over its files.
pub fn hash(source: &Source) -> String {
    hash_of(&source.files)
}

/// The same of files that need not make a document.
pub fn hash_of(files: &[SourceFile]) -> String {
    let mut hasher = blake3::Hasher::new();
    for file in files {
        hasher.update(&(file.text.len() as u64).to_le_bytes());
        hasher.update(file.text.as_bytes());
    }
    hasher.finalize().to_hex().as_str().chars().take(16).collect()
}

/// The route that calls an upstream, and its id.
type Caller<'a> = (&'a RouteSpec, &'a RouteId);

struct Compiler<'a> {
    source: &'a Source,
    document: &'a Document,
    cx: &'a Context<'a>,
    around: Around,
    upstreams: BTreeMap<UpstreamName, Arc<Upstream>>,
    /// The routes that policies have contributed so far.
    own: Vec<Contributed>,
    wrong: Vec<Diagnostic>,
}

impl Compiler<'_> {
    fn note(&mut self, base: &FieldPath, errors: impl IntoIterator<Item = SpecError>) {
        let source = self.source;
        self.wrong.extend(errors.into_iter().map(|error| plan::mask(source, &error.below(base))));
    }

    fn consumers(&mut self) {
        match Consumers::compile(&self.document.consumers, self.cx.secrets.reveal()) {
            Ok(consumers) => self.around.consumers = Arc::new(consumers),
            Err(errors) => {
                self.around.consumers = Arc::new(Consumers::broken());
                self.note(&FieldPath::root().key("consumers"), errors);
            }
        }
    }

    fn stores(&mut self) {
        match self.document.stores.open(self.cx.carry, self.cx.resolver, self.cx.secrets.reveal()) {
            Ok(Stores { redis, keys }) => {
                let services = &self.around.services;
                if let Some(redis) = &redis {
                    services.add(Arc::clone(redis) as Arc<dyn Service>);
                }
                if let Some(keys) = &keys {
                    services.add(keys.service());
                }
                (self.around.store, self.around.keys) = (redis, keys);
            }
            Err(errors) => {
                // Whoever looks there is told of this, and of nothing that follows from it.
                self.around.consumers = Arc::new(Consumers::broken());
                self.note(&FieldPath::root().key("stores"), errors);
            }
        }
    }

    fn routes(&mut self) -> (Vec<Route>, Vec<Origin>, Vec<RouteMatch>) {
        let (mut routes, mut origins, mut matches) = (Vec::new(), Vec::new(), Vec::new());
        let mut ids: BTreeMap<RouteId, usize> = BTreeMap::new();
        for spec in &self.document.routes {
            let at = FieldPath::root().key("routes").index(spec.index);
            let matching = match RouteMatch::compile(&spec.matching) {
                Ok(matching) => matching,
                Err(errors) => {
                    self.note(&at.key("match"), errors);
                    continue;
                }
            };
            let id = RouteId::from(spec.name.clone().unwrap_or_else(|| matching.to_string()));
            if let Some(name) = &spec.name
                && let Some(first) = ids.insert(id.clone(), spec.index)
            {
                let error = SpecError::new(FieldPath::root().key("name"), format!("two routes are named `{name}`"));
                self.note(&at, [error.help(format!("the first is routes[{first}]"))]);
            }
            let Some((route, origin)) = self.route(spec, &at, id, &matching) else { continue };
            routes.push(route);
            origins.push(origin);
            matches.push(matching);
        }
        (routes, origins, matches)
    }

    fn route(
        &mut self,
        spec: &RouteSpec,
        at: &FieldPath,
        id: RouteId,
        matching: &RouteMatch,
    ) -> Option<(Route, Origin)> {
        let rewrite = spec.rewrite.as_ref().map(|rewrite| Rewrite::compile(rewrite, matching)).transpose();
        let rewrite = rewrite.map_err(|errors| self.note(&at.clone().key("rewrite"), errors)).ok();
        let calls = self.calls((spec, &id), at);
        let action = self.action(spec, at, matching, &calls);
        let fallback = self.fallback(spec, at, &calls);
        let wrong = spec.breaker.iter().flat_map(|breaker| breaker.check(true));
        self.note(&at.clone().key("breaker"), wrong);
        let mirror = self.mirror(spec, at);
        let pipeline = self.pipeline(&spec.policies, spec.shadow.as_deref(), at);
        let (pipeline, policies, shadow) = pipeline?;
        self.contributed(matching.hosts(), &policies);
        let (action, words) = action?;
        let series = self.cx.metrics.route(&id);
        let websocket = spec.websocket.as_ref().and_then(WebSocket::compile);
        let words = if websocket.is_some() { words + ", WebSockets too" } else { words };
        let (fallback, words) = match fallback {
            Some((fallback, otherwise)) => (Some(fallback), words + &otherwise),
            None => (None, words),
        };
        let words = match &spec.mirror {
            Some(mirror) => format!("{words}, {} mirrored to {}", mirror.share, mirror.to),
            None => words,
        };
        let streams = (spec.on_removal == OnRemoval::Close).then(|| self.streams(&id));
        let route = Route { id, series, pipeline, rewrite: rewrite?, action, fallback, mirror, websocket, streams };
        Some((route, Origin { at: at.clone(), policies, shadow, action: words }))
    }

    /// The streams of a route, which are the same as in the document before.
    fn streams(&self, id: &RouteId) -> Arc<Streams> {
        let key = format!("streams of {id}");
        match self.cx.carry.living::<Streams>(&key).filter(|streams| !streams.have_ended()) {
            Some(streams) => streams,
            None => {
                let streams = Arc::default();
                self.cx.carry.hold(key, &streams);
                streams
            }
        }
    }

    fn table(&mut self, matches: Vec<RouteMatch>) -> Option<Table> {
        // With routes left out because they are wrong, indices would no longer be those of the document.
        let whole = matches.len() >= self.document.routes.len();
        match Table::build_with(matches, self.document.paths) {
            Ok(table) => Some(table),
            Err(duplicates) => {
                for duplicate in duplicates.into_iter().filter(|_| whole) {
                    let at = FieldPath::root().key("routes").index(duplicate.second).key("match");
                    let error = SpecError::new(at, duplicate.to_string());
                    let first = FieldPath::root().key("routes").index(duplicate.first).key("match");
                    let (file, span) = crate::locate::locate(&self.source.root, &first).mark();
                    let diagnostic =
                        self.source.error(&error).related(self.source.place(file, span), "the first stands here");
                    self.wrong
                        .push(diagnostic.help("remove one of them, or let them differ in method, header or query"));
                }
                None
            }
        }
    }

    /// The last route, which has the policies of `defaults`.
    fn nowhere(&mut self) -> Option<(Route, Origin)> {
        let at = FieldPath::root().key("defaults");
        let (pipeline, policies, shadow) = self.pipeline(&[], None, &at)?;
        self.contributed(&[HostPattern::Any], &policies);
        let id = RouteId::from(NOWHERE);
        let series = self.cx.metrics.route(&id);
        let origin = Origin { at, policies, shadow, action: "answer 404".to_owned() };
        let (rewrite, fallback, mirror, websocket, streams) = (None, None, None, None, None);
        let action = Action::NotFound;
        Some((Route { id, series, pipeline, rewrite, action, fallback, mirror, websocket, streams }, origin))
    }
}

fn lints(source: &Source, table: &Table, origins: &[Origin]) -> Vec<Diagnostic> {
    let place = |index: usize| {
        let path = origins.get(index)?.at.clone().key("match");
        let (file, span) = crate::locate::locate(&source.root, &path).mark();
        Some((source.place(file, span), path.to_string()))
    };
    (pylon_route::lint::lint(table).into_iter())
        .map(|lint| {
            let mut diagnostic = Diagnostic::warning(&lint.why);
            if let Some((at, path)) = place(lint.route) {
                diagnostic = diagnostic.at(at).path(path);
            }
            match lint.shadowed_by.and_then(place) {
                Some((other, _)) => diagnostic.related(other, "this one comes first"),
                None => diagnostic,
            }
        })
        .collect()
}
