//! From the action of a route to what answers its requests.

use std::collections::BTreeMap;

use pylon_core::spec::{FieldPath, SpecError};
use pylon_proxy::action::Action;
use pylon_proxy::action::forward::Forward;
use pylon_proxy::action::redirect::Redirect;
use pylon_proxy::action::respond::Respond;
use pylon_proxy::action::split::{Split, SplitSpec};
use pylon_route::matching::RouteMatch;
use pylon_upstream::spec::Speaks;

use super::calls::{self, Calls};
use super::{Caller, Compiler};
use crate::document::{ActionSpec, RouteSpec};

/// The action with its words, if there is one, and what is wrong, by paths from the route.
type Outcome = (Option<(Action, String)>, Vec<SpecError>);

impl Compiler<'_> {
    /// What a route does, and in words.
    pub(super) fn action(
        &mut self,
        spec: &RouteSpec,
        at: &FieldPath,
        matching: &RouteMatch,
        calls: &Calls<'_>,
    ) -> Option<(Action, String)> {
        let compiled = match &spec.action {
            ActionSpec::Forward(name) => {
                let at = at.clone().key("forward");
                let forward = self.forward(name, calls, &at).map(|forward| {
                    let words = format!("forward to {name}{}", calls::in_words(&forward.options));
                    (Action::Forward(forward), words)
                });
                (forward, Vec::new())
            }
            ActionSpec::Split(shares) => self.split(shares, spec, calls, at)?,
            ActionSpec::Redirect(redirect) => match Redirect::compile(redirect, matching) {
                Ok(compiled) => {
                    (Some((Action::Redirect(compiled), format!("redirect to {}", redirect.to))), Vec::new())
                }
                Err(errors) => (None, below("redirect", errors)),
            },
            ActionSpec::Respond(respond) => match Respond::compile(respond) {
                Ok(compiled) => (Some((Action::Respond(compiled), format!("respond {}", respond.status))), Vec::new()),
                Err(errors) => (None, below("respond", errors)),
            },
        };
        let (action, errors) = compiled;
        self.note(at, errors);
        action
    }

    /// Requests divided among several upstreams; nothing where one of these cannot be had, which has been told.
    fn split(&mut self, shares: &SplitSpec, spec: &RouteSpec, calls: &Calls<'_>, at: &FieldPath) -> Option<Outcome> {
        let at = at.clone().key("split");
        let words = shares.iter().map(|(name, share)| format!("{share} to {name}")).collect::<Vec<_>>().join(", ");
        let mut forwards = BTreeMap::new();
        for name in shares.keys() {
            forwards.insert(name.clone(), self.forward(name, calls, &at.clone().key(name))?);
        }
        // Of each upstream, where they differ.
        let mut more: Vec<String> = forwards.values().map(|forward| calls::in_words(&forward.options)).collect();
        more.dedup();
        let words = words + &more.concat();
        let resolve =
            |name: &str| forwards.remove(name).ok_or_else(|| SpecError::new(FieldPath::root(), "no such upstream"));
        Some(match Split::compile(shares, &spec.sticky, resolve) {
            Ok(split) => (Some((Action::Split(split), format!("split {words}"))), Vec::new()),
            Err(errors) => (None, below("split", errors)),
        })
    }

    /// What calls the upstream of this name.
    pub(super) fn forward(&mut self, name: &str, calls: &Calls<'_>, at: &FieldPath) -> Option<Forward> {
        let upstream = self.upstream(name, at, "this route forwards to an upstream that does not exist")?;
        if upstream.speaks() == Speaks::Bytes {
            let error =
                SpecError::new(at.clone(), format!("the endpoints of `{name}` are `tcp://`, which is not HTTP"));
            self.note(&FieldPath::root(), [error.help("write them as `http://host:port`")]);
            return None;
        }
        let mut options = upstream.options(&calls.said(), self.document.limits.response_headers.as_usize());
        let usual = self.document.defaults.breaker.as_ref();
        let breaker =
            |(spec, id): Caller<'_>| upstream.breaker_for(id.as_str(), spec.breaker.as_ref(), usual, self.cx.carry);
        options.breaker = calls.caller.and_then(breaker);
        Some(Forward { upstream, options })
    }
}

fn below(key: &str, errors: Vec<SpecError>) -> Vec<SpecError> {
    errors.into_iter().map(|error| error.below(&FieldPath::root().key(key))).collect()
}
