//! The table of routes: which route takes a request.
//!
//! Candidates are tried in this order, and the first one whose method and predicates hold takes the request:
//!
//! 1. by host: the exact name, then wildcards with more labels before ones with fewer, then `*`;
//! 2. within a host, templates before regular expressions; among templates the more specific first, at the first segment
//!    that differs: literal text, a part with text around it (more text first), a whole segment, the rest;
//! 3. of the same path, more predicates first (the method counts as one); then fewer methods;
//! 4. then as they stand in the document.
//!
//! When a candidate fails, the next one is tried, across hosts too. If nothing but the method kept candidates away, the
//! answer is 405. Costs do not depend on the number of routes: one or two hashes for the host and one step per segment;
//! regular expressions alone are tried one by one.

use std::fmt;
use std::ops::ControlFlow;

use crate::hash::QuickMap;
use crate::matching::{PathMatch, RouteMatch, regex_captures};
use crate::normalise::{EncodedSlash, MAX_PATH, has_encoded_slash};
use crate::pattern::{Captures, Pattern};
use crate::predicate::{Expression, Head, MethodSet, bit};
use crate::spec::PathsSpec;
use crate::tree::{Builder, Spans, Text, Tree, Visitor};
use pylon_core::host::{HostPattern, labels};

/// All routes, compiled for search. Immutable.
#[derive(Debug)]
pub struct Table {
    routes: Vec<RouteMatch>,
    /// What decides about most candidates, close together.
    gates: Vec<Gate>,
    hosts: Hosts,
    tree: Tree,
    options: PathsSpec,
}

/// What a request meets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A route.
    Found(Found),
    /// Routes exist, but for other methods: 405, with these in `Allow`.
    MethodNotAllowed(MethodSet),
    /// No route: 404.
    NotFound,
}

/// The route that takes a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its index in the list that the table was built of.
    pub route: usize,
    /// What the variable parts took; named by [`Table::names`].
    pub captures: Captures,
    /// Why the request must be refused although it has a route.
    pub stop: Option<Stop>,
}

/// Why a matched request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The path has `%2F` and the route does not keep it: 400.
    EncodedSlash,
}

/// Two routes of which the second could never be told from the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Duplicate {
    /// The index of the first.
    pub first: usize,
    /// The index of the second.
    pub second: usize,
    /// What both match.
    pub text: String,
}

impl fmt::Display for Duplicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "duplicate route: `{}` is matched by another route already", self.text)
    }
}

impl std::error::Error for Duplicate {}

impl Table {
    /// Builds a table. Indices in answers are those of `routes`. Errors: all pairs of routes that match the same.
    pub fn build(routes: Vec<RouteMatch>) -> Result<Self, Vec<Duplicate>> {
        Self::build_with(routes, PathsSpec::default())
    }

    /// Builds a table with options, see [`Table::build`].
    pub fn build_with(mut routes: Vec<RouteMatch>, options: PathsSpec) -> Result<Self, Vec<Duplicate>> {
        if options.ignore_case {
            routes.iter_mut().for_each(fold_regex);
        }
        let mut builder = Builder::default();
        let mut hosts = Hosts::default();
        let mut seen = QuickMap::default();
        let mut duplicates = Vec::new();
        for (index, route) in routes.iter().enumerate() {
            let folded = match &route.path {
                PathMatch::Template(pattern) if options.ignore_case => Some(pattern.folded()),
                PathMatch::Template(pattern) => Some(pattern.clone()),
                PathMatch::Regex(_) => None,
            };
            let shape = folded.as_ref().map_or_else(|| route.path.to_string(), Pattern::shape);
            let demands = demands(route);
            for pattern in &route.hosts {
                let host = hosts.entry(pattern, &mut builder);
                if let Some(&first) = seen.get(&(host, shape.clone(), demands.clone())) {
                    duplicates.push(Duplicate { first, second: index, text: route.to_string() });
                    continue;
                }
                seen.insert((host, shape.clone(), demands.clone()), index);
                let Some(entry) = hosts.entries.get_mut(host) else { continue };
                match &folded {
                    Some(pattern) => {
                        builder.add(entry.root, pattern).into_iter().for_each(|list| list.push(index as u32));
                    }
                    None => entry.regexes.push(index as u32),
                }
            }
        }
        if !duplicates.is_empty() {
            return Err(duplicates);
        }
        let order = |a: &u32, b: &u32| match (routes.get(*a as usize), routes.get(*b as usize)) {
            (Some(a), Some(b)) => a.compare_demands(b),
            _ => std::cmp::Ordering::Equal,
        };
        for entry in &mut hosts.entries {
            entry.regexes.sort_by(order);
        }
        let tree = builder.finish(order);
        let gates = routes.iter().map(Gate::of).collect();
        Ok(Self { routes, gates, hosts, tree, options })
    }

    /// Finds the route for a request. Nothing is allocated for up to four captures of a template.
    pub fn find(&self, head: &Head<'_>) -> Outcome {
        let mut finder = Finder { table: self, head, method: bit(head.method), winner: None, wrong_method: false };
        if self.walk(head, &mut finder).is_continue() && finder.wrong_method {
            let mut allowed = Allowed { table: self, head, methods: MethodSet::new() };
            // The visitor never breaks off.
            let _ = self.walk(head, &mut allowed);
            if !allowed.methods.is_empty() {
                return Outcome::MethodNotAllowed(allowed.methods);
            }
        }
        match finder.winner {
            Some((route, spans)) => Outcome::Found(self.found(route, spans, head)),
            None => Outcome::NotFound,
        }
    }

    /// The routes, as they were given.
    pub fn routes(&self) -> &[RouteMatch] {
        &self.routes
    }

    /// What holds for the whole table.
    pub fn options(&self) -> PathsSpec {
        self.options
    }

    /// The names of a route's captures, in the order of [`Captures`].
    pub fn names(&self, route: usize) -> Vec<&str> {
        self.routes.get(route).map(|route| route.path.names()).unwrap_or_default()
    }

    /// Tells the visitor of all candidates, in order: the one walk behind `find` and `explain`.
    pub(crate) fn walk<V: Visitor>(&self, head: &Head<'_>, visitor: &mut V) -> ControlFlow<()> {
        if head.path.len() > MAX_PATH {
            return ControlFlow::Continue(());
        }
        let text = Text::new(head.path, self.options.ignore_case);
        self.hosts.each(head.host, |entry| {
            self.tree.walk(entry.root, &text, visitor)?;
            for &route in &entry.regexes {
                if let Some(PathMatch::Regex(expression)) = self.route(route).map(|route| &route.path)
                    && expression.is_match(head.path.as_bytes())
                {
                    visitor.candidate(route, &mut Spans::new())?;
                }
            }
            ControlFlow::Continue(())
        })
    }

    pub(crate) fn route(&self, index: u32) -> Option<&RouteMatch> {
        self.routes.get(index as usize)
    }

    /// The answer for the route that won.
    pub(crate) fn found(&self, index: u32, spans: Spans, head: &Head<'_>) -> Found {
        let gate = self.gates.get(index as usize);
        let captures = if gate.is_some_and(|gate| gate.is_regex)
            && let Some(PathMatch::Regex(expression)) = self.route(index).map(|route| &route.path)
        {
            regex_captures(expression, head.path)
        } else {
            Captures(spans)
        };
        let rejects = gate.is_none_or(|gate| gate.rejects_slash);
        let stop = (rejects && has_encoded_slash(head.path)).then_some(Stop::EncodedSlash);
        Found { route: index as usize, captures, stop }
    }
}

/// What a route asks for besides host and path, as text.
fn demands(route: &RouteMatch) -> String {
    let methods = route.methods.as_ref().map(MethodSet::to_string);
    let predicates = route.predicates.iter().map(|predicate| format!("{predicate}\n"));
    predicates.fold(methods.unwrap_or_default(), |all, predicate| all + "\n" + &predicate)
}

fn fold_regex(route: &mut RouteMatch) {
    if let PathMatch::Regex(expression) = &route.path
        // It compiled before, and case adds little; if it is too large now, it stays as it was.
        && let Ok(folded) = Expression::new(expression.as_str(), true)
    {
        route.path = PathMatch::Regex(folded);
    }
}

/// The part of a route that most requests need.
#[derive(Debug, Clone, Copy)]
struct Gate {
    /// The methods that have a bit of their own; all bits when every method is taken.
    methods: u16,
    /// Nothing but the method is asked for, and no method without a bit.
    method_only: bool,
    is_regex: bool,
    rejects_slash: bool,
}

impl Gate {
    fn of(route: &RouteMatch) -> Self {
        let (methods, method_only) = route.methods.as_ref().map_or((u16::MAX, true), MethodSet::bits);
        Self {
            methods,
            method_only: method_only && route.predicates.is_empty(),
            is_regex: matches!(route.path, PathMatch::Regex(_)),
            rejects_slash: route.encoded_slash == EncodedSlash::Reject,
        }
    }
}

struct Finder<'t, 'h> {
    table: &'t Table,
    head: &'t Head<'h>,
    /// The bit of the request's method, 0 if it has none.
    method: u16,
    winner: Option<(u32, Spans)>,
    wrong_method: bool,
}

impl Visitor for Finder<'_, '_> {
    fn candidate(&mut self, index: u32, spans: &mut Spans) -> ControlFlow<()> {
        let Some(gate) = self.table.gates.get(index as usize) else { return ControlFlow::Continue(()) };
        let (method, others) = if gate.method_only && self.method != 0 {
            (gate.methods & self.method != 0, true)
        } else {
            let Some(route) = self.table.route(index) else { return ControlFlow::Continue(()) };
            let method = route.takes_method(self.head.method);
            (method, method && route.predicates.iter().all(|predicate| predicate.check(self.head)))
        };
        if method && others {
            self.winner = Some((index, std::mem::take(spans)));
            return ControlFlow::Break(());
        }
        self.wrong_method |= !method;
        ControlFlow::Continue(())
    }
}

/// Gathers the methods of routes that only the method kept away.
struct Allowed<'t, 'h> {
    table: &'t Table,
    head: &'t Head<'h>,
    methods: MethodSet,
}

impl Visitor for Allowed<'_, '_> {
    fn candidate(&mut self, index: u32, _: &mut Spans) -> ControlFlow<()> {
        if let Some(route) = self.table.route(index)
            && let Some(methods) = &route.methods
            && route.predicates.iter().all(|predicate| predicate.check(self.head))
        {
            self.methods.extend(methods);
        }
        ControlFlow::Continue(())
    }
}

/// The hosts of all routes.
#[derive(Debug, Default)]
struct Hosts {
    exact: QuickMap<Box<str>, usize>,
    /// By the name after `*.`.
    wild: QuickMap<Box<str>, usize>,
    any: Option<usize>,
    /// The most labels that a wildcard's name has: longer endings need no look.
    most_labels: usize,
    entries: Vec<HostEntry>,
}

#[derive(Debug)]
struct HostEntry {
    root: u32,
    regexes: Vec<u32>,
}

impl Hosts {
    fn entry(&mut self, pattern: &HostPattern, builder: &mut Builder) -> usize {
        let known = match pattern {
            HostPattern::Exact(name) => self.exact.get(name).copied(),
            HostPattern::Wildcard(name) => self.wild.get(name).copied(),
            HostPattern::Any => self.any,
        };
        if let Some(known) = known {
            return known;
        }
        let index = self.entries.len();
        self.entries.push(HostEntry { root: builder.root(), regexes: Vec::new() });
        match pattern {
            HostPattern::Exact(name) => {
                self.exact.insert(name.clone(), index);
            }
            HostPattern::Wildcard(name) => {
                self.most_labels = self.most_labels.max(labels(name));
                self.wild.insert(name.clone(), index);
            }
            HostPattern::Any => self.any = Some(index),
        }
        index
    }

    /// Goes through the entries that take a host, the most specific first.
    fn each(&self, host: Option<&str>, mut visit: impl FnMut(&HostEntry) -> ControlFlow<()>) -> ControlFlow<()> {
        let mut visit = |index: Option<&usize>| match index.and_then(|index| self.entries.get(*index)) {
            Some(entry) => visit(entry),
            None => ControlFlow::Continue(()),
        };
        if let Some(host) = host {
            if !self.exact.is_empty() {
                visit(self.exact.get(host))?;
            }
            if !self.wild.is_empty() {
                let mut skip = labels(host).saturating_sub(self.most_labels + 1);
                let mut left = host;
                while let Some((_, ending)) = left.split_once('.') {
                    left = ending;
                    if skip == 0 {
                        visit(self.wild.get(ending))?;
                    } else {
                        skip -= 1;
                    }
                }
            }
        }
        visit(self.any.as_ref())
    }
}

#[cfg(test)]
mod tests;
