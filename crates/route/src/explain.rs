//! Says why a request meets the route that it meets, by the walk that serves traffic.

use std::fmt;
use std::ops::ControlFlow;

use crate::matching::Mismatch;
use crate::predicate::{Head, MethodSet};
use crate::table::{Found, Outcome, Table};
use crate::tree::{Spans, Visitor};

/// All that was considered for a request, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The routes whose host and path match, in the order in which they are tried.
    pub candidates: Vec<Candidate>,
    /// What [`Table::find`] answers.
    pub outcome: Outcome,
}

/// A route whose host and path match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its index.
    pub route: usize,
    /// Its canonical text.
    pub text: String,
    /// What became of it.
    pub verdict: Verdict,
}

/// What became of a candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It takes the request.
    Wins,
    /// This is the first thing that does not hold.
    Fails(Mismatch),
    /// It would have taken the request, but another one came first.
    Late,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wins => f.write_str("takes the request"),
            Self::Fails(mismatch) => mismatch.fmt(f),
            Self::Late => f.write_str("matches, but a more specific route came first"),
        }
    }
}

impl Table {
    /// Explains what [`Table::find`] answers, with every candidate.
    pub fn explain(&self, head: &Head<'_>) -> Explanation {
        let mut explainer =
            Explainer { table: self, head, candidates: Vec::new(), found: None, allowed: MethodSet::new() };
        // The visitor never breaks off.
        let _ = self.walk(head, &mut explainer);
        let outcome = match explainer.found {
            Some(found) => Outcome::Found(found),
            None if !explainer.allowed.is_empty() => Outcome::MethodNotAllowed(explainer.allowed),
            None => Outcome::NotFound,
        };
        Explanation { candidates: explainer.candidates, outcome }
    }

    /// Why one route, by itself, would not take the request: for routes that are no candidates. `None` if it would, or
    /// if there is no such route.
    pub fn why_not(&self, route: usize, head: &Head<'_>) -> Option<Mismatch> {
        self.routes().get(route)?.mismatch(head, self.options().ignore_case)
    }
}

struct Explainer<'t, 'h> {
    table: &'t Table,
    head: &'t Head<'h>,
    candidates: Vec<Candidate>,
    found: Option<Found>,
    allowed: MethodSet,
}

impl Visitor for Explainer<'_, '_> {
    fn candidate(&mut self, index: u32, spans: &mut Spans) -> ControlFlow<()> {
        let Some(route) = self.table.route(index) else { return ControlFlow::Continue(()) };
        // A route with several hosts may come up once for each; the first time decides.
        if self.candidates.iter().any(|known| known.route == index as usize) {
            return ControlFlow::Continue(());
        }
        let verdict = match route.first_failing(self.head) {
            Some(mismatch) => Verdict::Fails(mismatch),
            None if self.found.is_some() => Verdict::Late,
            None => {
                self.found = Some(self.table.found(index, spans.clone(), self.head));
                Verdict::Wins
            }
        };
        if let Verdict::Fails(Mismatch::Method { wanted }) = &verdict
            && route.predicates.iter().all(|predicate| predicate.check(self.head))
        {
            self.allowed.extend(wanted);
        }
        self.candidates.push(Candidate { route: index as usize, text: route.to_string(), verdict });
        ControlFlow::Continue(())
    }
}
