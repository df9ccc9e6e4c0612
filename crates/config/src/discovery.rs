//! From the key `discovery` to those who are asked for endpoints. Nobody is asked yet.

use pylon_core::spec::FieldPath;
use pylon_net::resolve::Resolver;
use pylon_upstream::discovery::agents::{Agents, Reading};

use crate::diagnostic::Diagnostic;
use crate::document::Document;
use crate::load::Source;
use crate::plain;
use crate::plan::{self, PlainSecrets};

/// Makes them of what is written, or tells what is wrong with it.
pub fn compile(
    source: &Source,
    document: &Document,
    resolver: &Resolver,
    secrets: PlainSecrets,
) -> Result<Agents, Vec<Diagnostic>> {
    let base = FieldPath::root().key("discovery");
    let cx = Reading { resolver, yaml: plain::read, reveal: secrets.reveal() };
    let shown = |error: pylon_core::spec::SpecError| plan::mask(source, &error.below(&base));
    Agents::compile(&document.discovery, &cx).map_err(|errors| errors.into_iter().map(shown).collect())
}
