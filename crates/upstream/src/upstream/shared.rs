//! What the control runtime writes of an upstream and the workers read: the set of its endpoints, made anew with each news.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Release},
};
use std::sync::{Arc, Weak};
use std::time::Instant;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pylon_core::names::UpstreamName;
use tokio::sync::watch;

use crate::balance::Method;
use crate::call::budget::Budget;
use crate::compile::Sources;
use crate::discovery::ledger::Known;
use crate::discovery::source::Source;
use crate::discovery::static_list::Member;
use crate::endpoint::{Endpoint, EndpointSet, UNDER_TLS};
use crate::judging::Judging;
use crate::locality::LocalitySpec;
use crate::standing::Standings;
use crate::sticky::Sticky;

/// What the discovery tasks write and the workers read.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) name: UpstreamName,
    pub(super) method: Method,
    /// Where the gateway stands, as far as that counts here.
    pub(super) locality: LocalitySpec,
    pub(super) sticky: Option<Sticky>,
    pub(super) sources: Sources,
    pub(crate) set: ArcSwap<EndpointSet>,
    /// Rises with each new set.
    pub(super) generation: AtomicU64,
    pub(crate) standings: Arc<Standings>,
    pub(super) budget: Arc<Budget>,
    pub(crate) judging: Judging,
    pub(super) rebuilding: Mutex<()>,
}

impl Shared {
    /// Makes a new set where the addresses changed.
    pub(super) fn rebuild(&self) {
        let _one_at_a_time = self.rebuilding.lock();
        let written = self.sources.members.iter().filter_map(Member::endpoint);
        let found = self.sources.discovered.iter().flat_map(Source::endpoints);
        let mut next: Vec<Endpoint> = written.chain(found).collect();
        tell_apart(&mut next);
        if self.generation.load(Acquire) == 0 || self.set.load().endpoints != next {
            if let Some(sticky) = &self.sticky {
                for one in &mut next {
                    one.name = Some(sticky.name(self.name.as_str(), &one.id));
                }
            }
            join(&self.set.load().endpoints, &mut next);
            let next = EndpointSet::new(next, self.method, &self.locality);
            self.standings.retain(|id| next.endpoints.iter().any(|endpoint| *endpoint.id == *id));
            self.set.store(Arc::new(next));
            self.generation.fetch_add(1, Release);
            self.judging.these(&self.set.load());
        }
    }

    /// Has the present set judged.
    pub(crate) fn judge_all(&self) {
        let _no_other_meanwhile = self.rebuilding.lock();
        self.judging.these(&self.set.load());
    }

    /// For the log: what names and sources say.
    pub(super) fn why_empty(&self) -> String {
        self.sources.why_empty().into_iter().fold(String::new(), |all, why| format!("{all}: {why}"))
    }
}

/// One place that is reached both in cleartext and under TLS is two endpoints: what is found out about one is not the other's.
fn tell_apart(endpoints: &mut [Endpoint]) {
    let cleartext: HashSet<Arc<str>> =
        endpoints.iter().filter(|one| one.tls.is_none()).map(|one| Arc::clone(&one.id)).collect();
    for one in endpoints.iter_mut().filter(|one| one.tls.is_some() && cleartext.contains(&one.id)) {
        one.id = format!("{UNDER_TLS}{}", one.id).into();
    }
}

/// Notes when endpoints come to others that are there already. Those of the beginning are equally cold.
fn join(before: &[Endpoint], next: &mut [Endpoint]) {
    let now = tokio::time::Instant::now().into_std();
    let before: HashMap<&str, Option<Instant>> = before.iter().map(|one| (&*one.id, one.joined)).collect();
    for one in next {
        one.joined = before.get(&*one.id).copied().unwrap_or_else(|| (!before.is_empty()).then_some(now));
    }
}

/// Makes a new set of endpoints when there is news.
pub(super) async fn follow<T>(shared: Weak<Shared>, mut news: watch::Receiver<Known<T>>) {
    loop {
        match shared.upgrade() {
            Some(shared) => shared.rebuild(),
            None => return,
        }
        if news.changed().await.is_err() {
            return;
        }
    }
}
