//! From a path to everything that can be known without a socket: what `pylon check`, `explain` and `run` share.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pylon_config::compile::{self, Compiled, Context};
use pylon_config::diagnostic::Diagnostic;
use pylon_config::discovery;
use pylon_config::document::{self, Document};
use pylon_config::load::Source;
use pylon_config::plan::{self, PlainSecrets, Plan};
use pylon_core::carry::Carry;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_net::resolve::Resolver;
use pylon_observe::metrics::Metrics;

/// A document that has been read, checked and compiled.
#[derive(Debug)]
pub struct Prepared {
    /// What was written.
    pub source: Source,
    /// What it says.
    pub document: Document,
    /// What holds for the process.
    pub plan: Plan,
    /// What serves.
    pub compiled: Compiled,
    /// What it shares with the documents before and after it.
    pub lasting: Arc<Lasting>,
    /// Where the next one is read.
    pub origin: Origin,
}

/// What outlives a document.
#[derive(Debug)]
pub struct Lasting {
    /// The living state behind snapshots.
    pub carry: Carry,
    /// The metrics that routes count in.
    pub metrics: Arc<Metrics>,
    /// The name of this process in `Via`.
    pub pseudonym: String,
}

/// Where documents come from, and how they are read.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// The file or folder; none of a document that was at hand.
    pub path: Option<PathBuf>,
    /// How secrets may be written.
    pub secrets: PlainSecrets,
    /// The state folder of a gateway that runs, if it has one.
    pub state: Option<PathBuf>,
}

impl Default for Lasting {
    /// At the start of a process, once it is known how many workers there are.
    fn default() -> Self {
        Self {
            carry: Carry::default(),
            metrics: Arc::new(Metrics::new(tokio::time::Instant::now().into_std())),
            pseudonym: format!("pylon-{:08x}", fastrand::u32(..)),
        }
    }
}

/// Reads, checks and compiles the document at `path`, a file or a folder. All that is wrong is told at once.
pub fn prepare(path: &Path, secrets: PlainSecrets) -> Result<Prepared, Vec<Diagnostic>> {
    at(path, Origin { path: Some(path.to_owned()), secrets, state: None })
}

/// The same of a gateway that is to run.
pub(crate) fn at(path: &Path, origin: Origin) -> Result<Prepared, Vec<Diagnostic>> {
    Understood::new(Source::read(path)?, origin).first()
}

/// The same for a document that is at hand.
pub fn from_source(source: Source, secrets: PlainSecrets) -> Result<Prepared, Vec<Diagnostic>> {
    revived(source, Origin { path: None, secrets, state: None })
}

/// The same for a revision that stands in for the document of a gateway that is to run.
pub(crate) fn revived(source: Source, origin: Origin) -> Result<Prepared, Vec<Diagnostic>> {
    Understood::new(source, origin).first()
}

/// The same for a document that is to follow one which runs, with what that one has.
pub(crate) fn again(source: Source, origin: &Origin, lasting: &Arc<Lasting>) -> Result<Prepared, Vec<Diagnostic>> {
    Understood::new(source, origin.clone()).compile(lasting)
}

/// A document whose parts have been read.
struct Understood {
    source: Source,
    document: Document,
    plan: Option<Plan>,
    origin: Origin,
    wrong: Vec<Diagnostic>,
}

impl Understood {
    fn new(source: Source, origin: Origin) -> Self {
        let (document, mut wrong) = document::read(&source);
        let plan = plan::compile(&source, &document, origin.secrets).map_err(|more| wrong.extend(more)).ok();
        Self { source, document, plan, origin, wrong }
    }

    fn first(self) -> Result<Prepared, Vec<Diagnostic>> {
        if let Some(plan) = &self.plan {
            // Before anything is made that has a slot for each worker.
            pylon_core::worker::set_count(plan.workers);
        }
        self.compile(&Arc::new(Lasting::default()))
    }

    fn compile(self, lasting: &Arc<Lasting>) -> Result<Prepared, Vec<Diagnostic>> {
        let Self { source, document, plan, origin, mut wrong } = self;
        let resolver = match Resolver::new(&document.discovery.dns.servers) {
            Ok(resolver) => resolver,
            Err(error) => {
                let at = FieldPath::root().key("discovery");
                wrong.push(source.error(&SpecError::new(at, format!("names cannot be resolved: {error}"))));
                return Err(wrong);
            }
        };
        let agents = match discovery::compile(&source, &document, &resolver, origin.secrets) {
            Ok(agents) => agents,
            Err(more) => {
                wrong.extend(more);
                return Err(wrong);
            }
        };
        let Lasting { carry, metrics, pseudonym } = &**lasting;
        let (secrets, state) = (origin.secrets, origin.state.as_deref());
        let context = Context { carry, metrics, resolver: &resolver, agents: &agents, pseudonym, secrets, state };
        let compiled = compile::compile(&source, &document, &context).map_err(|more| wrong.extend(more)).ok();
        match (plan, compiled) {
            (Some(plan), Some(compiled)) if wrong.is_empty() => {
                Ok(Prepared { source, document, plan, compiled, lasting: Arc::clone(lasting), origin })
            }
            _ => {
                wrong.sort_by_key(|diagnostic| {
                    diagnostic.place.as_ref().map(|place| (place.file.clone(), place.line, place.column))
                });
                Err(wrong)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use pylon_core::body::Body;
    use pylon_core::connection::{Connection, Scheme};
    use pylon_net::handler::Handler;
    use pylon_observe::Observer;
    use pylon_proxy::engine::Engine;
    use pylon_proxy::world::World;

    use super::*;

    #[tokio::test]
    async fn the_future_of_an_exchange_stays_under_a_kibibyte() {
        let text = "listeners: [{ address: 127.0.0.1:0 }]\ntelemetry: { access_log: off }\nroutes: [{ match: /, respond: 200 }]\n";
        let source = Source::from_text("t.yaml", text).unwrap();
        let prepared = from_source(source, PlainSecrets::Refused).unwrap();
        let now = tokio::time::Instant::now().into_std();
        let observer =
            Arc::new(Observer::open(&prepared.plan.telemetry, Arc::clone(&prepared.lasting.metrics), now).unwrap());
        let engine = Arc::new(Engine::new(Arc::new(World::new(prepared.compiled.snapshot)), observer, Arc::default()));
        let address = "127.0.0.1:1".parse().unwrap();
        let connection = Arc::new(Connection::new(address, address, Scheme::Http, now));
        let request = http::Request::builder().header("host", "a").body(Body::Empty).unwrap();
        let future = engine.serve(request, connection, now);
        let size = size_of_val(&future);
        assert!(size <= 1024, "{size} bytes");
        assert_eq!(future.await.status(), 200);
    }

    #[tokio::test]
    async fn a_reload_keeps_an_upstream_that_it_does_not_touch_and_a_candidate_has_one_of_its_own() {
        let text = "listeners: [{ address: 127.0.0.1:0 }]\nupstreams: { a: { endpoints: [http://127.0.0.1:1] } }\nroutes: [{ match: /, forward: a }]\n";
        let source = || Source::from_text("t.yaml", text).unwrap();
        let first = from_source(source(), PlainSecrets::Refused).unwrap();
        let Lasting { carry, metrics, pseudonym } = &*first.lasting;
        let forked = Lasting { carry: carry.fork(), metrics: Arc::clone(metrics), pseudonym: pseudonym.clone() };
        let again = |lasting: &Arc<Lasting>| again(source(), &first.origin, lasting).unwrap();
        let [reloaded, candidate] = [&first.lasting, &Arc::new(forked)].map(again);
        let [of_first, of_reloaded, of_candidate] = [&first, &reloaded, &candidate]
            .map(|prepared| Arc::as_ptr(prepared.compiled.snapshot.upstreams.values().next().unwrap()));
        assert_eq!(of_first, of_reloaded);
        assert_ne!(of_first, of_candidate);
    }
}
