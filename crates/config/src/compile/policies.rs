//! From the policies of a route and of `defaults` to the pipeline that its requests meet.

use pylon_core::spec::{FieldPath, SpecError, Step};
use pylon_policy::pipeline::Pipeline;
use pylon_policy::policy::Compiling;
use pylon_policy::registry::AnySpec;

use super::Compiler;
use crate::document::PolicyEntry;

/// The pipeline, its policies with the place where each was written, and those among them that are in shadow.
type Effective = (Pipeline, Vec<(AnySpec, FieldPath)>, Vec<String>);

impl Compiler<'_> {
    /// The effective policies of a route: its own, and those of `defaults` that it neither replaces nor turns off.
    pub(super) fn pipeline(
        &mut self,
        own: &[PolicyEntry],
        shadow: Option<&[String]>,
        at: &FieldPath,
    ) -> Option<Effective> {
        let inherited =
            self.document.defaults.policies.iter().filter(|entry| own.iter().all(|mine| mine.key != entry.key));
        let policies =
            (own.iter().chain(inherited)).filter_map(|entry| Some((entry.spec.clone()?, entry.at.clone()))).collect();
        self.pipeline_of(policies, shadow, at)
    }

    /// The pipeline of these policies. Where nothing is said of a shadow, `defaults` says which of them are in it.
    pub(super) fn pipeline_of(
        &mut self,
        policies: Vec<(AnySpec, FieldPath)>,
        shadow: Option<&[String]>,
        at: &FieldPath,
    ) -> Option<Effective> {
        let present = |key: &String| policies.iter().any(|(spec, _)| spec.key() == key);
        let shadow: Vec<String> = match shadow {
            Some(shadow) => shadow.to_vec(),
            None => self.document.defaults.shadow.iter().filter(|key| present(key)).cloned().collect(),
        };
        let specs: Vec<AnySpec> = policies.iter().map(|(spec, _)| spec.clone()).collect();
        match Pipeline::build(&specs, &shadow, &Compiling { carry: self.cx.carry, around: &self.around }) {
            Ok(pipeline) => Some((pipeline, policies, shadow)),
            Err(errors) => {
                for error in errors {
                    let error = placed(error, &policies, at);
                    self.note(&FieldPath::root(), [error]);
                }
                None
            }
        }
    }
}

/// An error of a pipeline begins with the key of a policy: its place is where that policy was written.
fn placed(error: SpecError, policies: &[(AnySpec, FieldPath)], route: &FieldPath) -> SpecError {
    let key = match error.at.0.first() {
        Some(Step::Key(key)) => key.clone(),
        _ => return error.below(route),
    };
    match policies.iter().find(|(spec, _)| spec.key() == key) {
        Some((_, at)) => SpecError { at: FieldPath(error.at.0.into_iter().skip(1).collect()).below(at), ..error },
        None => error.below(route),
    }
}
