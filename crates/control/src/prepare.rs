//! From a path to everything that can be known without a socket: what `pylon check`, `explain` and `run` share.

use std::path::Path;
use std::sync::Arc;

use pylon_config::compile::{self, Compiled, Context};
use pylon_config::diagnostic::Diagnostic;
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
    /// The living state behind it.
    pub carry: Carry,
    /// The metrics that its routes count in.
    pub metrics: Arc<Metrics>,
    /// The name of this process in `Via`.
    pub pseudonym: String,
}

/// Reads, checks and compiles the document at `path`, a file or a folder. All that is wrong is told at once.
pub fn prepare(path: &Path, secrets: PlainSecrets) -> Result<Prepared, Vec<Diagnostic>> {
    from_source(Source::read(path)?, secrets)
}

/// The same for a document that is at hand.
pub fn from_source(source: Source, secrets: PlainSecrets) -> Result<Prepared, Vec<Diagnostic>> {
    let (document, mut wrong) = document::read(&source);
    let plan = plan::compile(&source, &document, secrets).map_err(|more| wrong.extend(more)).ok();
    if let Some(plan) = &plan {
        // Before anything is made that has a slot for each worker.
        pylon_core::worker::set_count(plan.workers);
    }
    let carry = Carry::default();
    let metrics = Arc::new(Metrics::new(tokio::time::Instant::now().into_std()));
    let resolver = match Resolver::new(&document.discovery.dns.servers) {
        Ok(resolver) => resolver,
        Err(error) => {
            let at = FieldPath::root().key("discovery");
            wrong.push(source.error(&SpecError::new(at, format!("names cannot be resolved: {error}"))));
            return Err(wrong);
        }
    };
    let pseudonym = format!("pylon-{:08x}", fastrand::u32(..));
    let context = Context { carry: &carry, metrics: &metrics, resolver: &resolver, pseudonym: &pseudonym };
    let compiled = compile::compile(&source, &document, &context).map_err(|more| wrong.extend(more)).ok();
    match (plan, compiled) {
        (Some(plan), Some(compiled)) if wrong.is_empty() => {
            Ok(Prepared { source, document, plan, compiled, carry, metrics, pseudonym })
        }
        _ => {
            wrong.sort_by_key(|diagnostic| {
                diagnostic.place.as_ref().map(|place| (place.file.clone(), place.line, place.column))
            });
            Err(wrong)
        }
    }
}

#[cfg(test)]
mod tests {
    use pylon_core::body::Body;
    use pylon_core::connection::{Connection, Scheme};
    use pylon_net::handler::Handler;
    use pylon_observe::Observer;
    use pylon_proxy::engine::{Engine, Told};
    use pylon_proxy::world::World;

    use super::*;

    #[tokio::test]
    async fn the_future_of_an_exchange_stays_under_a_kibibyte() {
        let text = "listeners: [{ address: 127.0.0.1:0 }]\ntelemetry: { access_log: off }\nroutes: [{ match: /, respond: 200 }]\n";
        let source = Source::from_text("t.yaml", text).unwrap();
        let prepared = from_source(source, PlainSecrets::Refused).unwrap();
        let now = tokio::time::Instant::now().into_std();
        let observer = Arc::new(Observer::open(&prepared.plan.telemetry, prepared.metrics, now).unwrap());
        let told = Told {
            request_headers: prepared.document.limits.request_headers,
            header_timeout: prepared.document.limits.header_timeout,
        };
        let engine =
            Arc::new(Engine::new(Arc::new(World::new(prepared.compiled.snapshot)), observer, told, Arc::default()));
        let address = "127.0.0.1:1".parse().unwrap();
        let connection = Arc::new(Connection::new(address, address, Scheme::Http, now));
        let request = http::Request::builder().header("host", "a").body(Body::Empty).unwrap();
        let future = engine.serve(request, connection, now);
        let size = size_of_val(&future);
        assert!(size <= 1024, "{size} bytes");
        assert_eq!(future.await.status(), 200);
    }
}
