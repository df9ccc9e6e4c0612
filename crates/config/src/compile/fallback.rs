//! From the key `fallback` of routes and `defaults` to what stands in for an answer that fails.

use std::fmt::Write as _;

use pylon_core::spec::FieldPath;
use pylon_proxy::fallback::Fallback;
use pylon_proxy::fallback::spec::FallbackRuleSpec;

use super::Compiler;
use super::calls::Calls;
use crate::document::{ActionSpec, RouteSpec};

impl Compiler<'_> {
    /// What stands in on a route, and in words. Nothing where nothing is written, and where what is written is wrong.
    pub(super) fn fallback(
        &mut self,
        spec: &RouteSpec,
        at: &FieldPath,
        calls: &Calls<'_>,
    ) -> Option<(Box<Fallback>, String)> {
        if !matches!(spec.action, ActionSpec::Forward(_) | ActionSpec::Split(_)) {
            return None;
        }
        let (written, at) = match (&spec.fallback, &self.document.defaults.fallback) {
            (Some(own), _) => (own, at.clone().key("fallback")),
            (None, Some(inherited)) => (inherited, FieldPath::root().key("defaults").key("fallback")),
            (None, None) => return None,
        };
        let rules: Vec<&FallbackRuleSpec> = written.0.iter().map(|rule| &rule.0).collect();
        if rules.is_empty() {
            return None;
        }
        let before = self.wrong.len();
        let base = at.clone();
        let compiled = Fallback::compile(&rules, |place, name| self.forward(name, calls, &place.clone().below(&base)));
        if let Err(errors) = &compiled {
            self.note(&at, errors.iter().cloned());
        }
        self.tell_once(before);
        Some((Box::new(compiled.ok()?), in_words(&rules)))
    }

    /// What is wrong in `defaults` is wrong for many routes, and is said once.
    fn tell_once(&mut self, before: usize) {
        let new = self.wrong.split_off(before);
        for diagnostic in new {
            if !self.wrong.contains(&diagnostic) {
                self.wrong.push(diagnostic);
            }
        }
    }
}

/// `else forward to backup, else respond 200`.
fn in_words(rules: &[&FallbackRuleSpec]) -> String {
    let mut words = String::new();
    for rule in rules {
        let on: Vec<_> = rule.on.iter().map(ToString::to_string).collect();
        // Writing to a string does not fail.
        let _ = match on.as_slice() {
            [] => write!(words, ", else "),
            on => write!(words, ", on {} ", on.join(", ")),
        };
        let _ = match (&rule.forward, &rule.respond) {
            (Some(name), _) => write!(words, "forward to {name}"),
            (None, Some(respond)) => write!(words, "respond {}", respond.status),
            (None, None) => Ok(()),
        };
        if let Some(after) = rule.after {
            let _ = write!(words, " (after {after})");
        }
    }
    words
}
