//! From the key `mirror` of a route to who gets copies of its requests.

use pylon_core::spec::{FieldPath, SpecError};
use pylon_proxy::mirror::Mirror;

use super::Compiler;
use super::calls::Calls;
use crate::document::{ActionSpec, RouteSpec};

impl Compiler<'_> {
    /// Who gets copies. Nothing where nothing is written, and where what is written is wrong.
    pub(super) fn mirror(&mut self, spec: &RouteSpec, at: &FieldPath) -> Option<Mirror> {
        let mirror = spec.mirror.as_ref()?;
        let at = at.clone().key("mirror");
        let to = at.clone().key("to");
        if matches!(&spec.action, ActionSpec::Forward(name) if *name == mirror.to) {
            let error = SpecError::new(
                FieldPath::root(),
                "the mirror is the upstream itself, which would get each request twice",
            );
            self.note(&to, [error.help("name another upstream")]);
        }
        let mut forward = self.forward(&mirror.to, &Calls::default(), &to)?;
        // Nobody waits for the answer to a copy.
        forward.options.once();
        Mirror::compile(mirror, forward).map_err(|errors| self.note(&at, errors)).ok()
    }
}
