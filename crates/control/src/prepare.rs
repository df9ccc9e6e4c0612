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
