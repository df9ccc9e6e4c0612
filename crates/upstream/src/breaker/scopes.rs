//! The breakers of one upstream: of its endpoints, of itself, and of the routes that call it.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pylon_core::carry::Carry;
use pylon_core::exchange::Trail;
use pylon_core::spec::SpecError;
use pylon_core::worker;
use pylon_observe::upstream::UpstreamSeries;

use super::lease::Pass;
use super::spec::{BreakerSpec, Scope};
use super::state::{State, Whose};
use super::view::BreakerView;
use super::word::Force;
use super::{Fuse, Rules};
use crate::error::Fault;
use crate::standing::{Bars, Standing};
use crate::upstream::Upstream;

/// The breakers of an upstream, as its document has them.
#[derive(Debug)]
pub(crate) struct Breakers {
    upstream: Arc<str>,
    rules: Option<Arc<Rules>>,
    per_endpoint: bool,
    per_route: bool,
    /// Whether this upstream is to have none, though its document has one for all routes.
    off: bool,
    /// Of the upstream as a whole. Where there is none by the document, it stands for orders alone.
    whole: Option<Breaker>,
    judges_whole: bool,
    /// Those of routes, for the admin API.
    routes: Mutex<Vec<Weak<State>>>,
}

/// A breaker that any worker may ask.
#[derive(Debug)]
pub struct Breaker {
    fuses: Box<[Arc<Fuse>]>,
}

impl Breaker {
    fn new(state: &Arc<State>, rules: &Arc<Rules>) -> Self {
        Self { fuses: (0..=worker::count()).map(|place| Fuse::new(state, place, rules, None)).collect() }
    }

    fn mine(&self) -> Option<&Arc<Fuse>> {
        self.fuses.get(mine().min(self.fuses.len().saturating_sub(1)))
    }

    fn state(&self) -> Option<&Arc<State>> {
        self.fuses.first().map(|fuse| fuse.state())
    }
}

/// The place of the current worker.
fn mine() -> usize {
    worker::current().map_or(worker::count(), |id| id.min(worker::count()))
}

impl Breakers {
    pub(crate) fn compile(upstream: &str, spec: Option<&BreakerSpec>, carry: &Carry) -> Result<Self, Vec<SpecError>> {
        let errors = spec.map(|spec| spec.check(false)).unwrap_or_default();
        if !errors.is_empty() {
            return Err(errors);
        }
        let off = spec.is_some_and(|spec| !spec.on);
        let spec = spec.filter(|spec| spec.on);
        let has = |scope| spec.is_some_and(|spec| spec.has(scope));
        let rules = spec.map(|spec| Arc::new(Rules::compile(spec)));
        let upstream: Arc<str> = upstream.into();
        let whole = rules.as_ref().map(|rules| {
            let whose = Whose { upstream: Arc::clone(&upstream), scope: Scope::Upstream, name: "".into() };
            let state = carry.own().keep(format!("breaker of {upstream:?}"), || State::new(whose, now()));
            Breaker::new(&state, rules)
        });
        Ok(Self {
            upstream,
            rules,
            per_endpoint: has(Scope::Endpoint),
            per_route: has(Scope::Route),
            off,
            whole,
            judges_whole: has(Scope::Upstream),
            routes: Mutex::default(),
        })
    }

    /// Counts what happens to the upstream's own in `series`.
    pub(crate) fn counted_in(&self, series: &Arc<UpstreamSeries>) {
        if let Some(state) = self.whole.as_ref().filter(|_| self.judges_whole).and_then(Breaker::state) {
            state.counted_in(Some(series));
        }
    }

    /// What the current worker tells of calls at an endpoint: the endpoint's own breaker, and the upstream's.
    pub(crate) fn fuses(
        &self,
        id: &Arc<str>,
        standing: &Arc<Standing>,
        series: Option<&Arc<UpstreamSeries>>,
    ) -> [Option<Arc<Fuse>>; 2] {
        let own = self.rules.as_ref().filter(|_| self.per_endpoint).map(|rules| {
            let whose = || Whose { upstream: Arc::clone(&self.upstream), scope: Scope::Endpoint, name: Arc::clone(id) };
            let mut kept = standing.breaker.lock();
            let state = kept.get_or_insert_with(|| Arc::new(State::new(whose(), now())));
            state.counted_in(series);
            Fuse::new(state, mine(), rules, Some(standing))
        });
        if own.is_none() {
            // Nobody will ask it any more.
            *standing.breaker.lock() = None;
        }
        let whole = self.whole.as_ref().filter(|_| self.judges_whole).and_then(Breaker::mine);
        [own, whole.map(Arc::clone)]
    }

    /// Without the bar of breakers that this document has not, or that are held closed by order.
    pub(crate) fn heed(&self, bars: Bars) -> Bars {
        let held = || self.force() == Force::Closed;
        if self.per_endpoint && !held() { bars } else { bars.without(Bars::OPEN) }
    }

    /// What is ordered for the upstream as a whole.
    fn force(&self) -> Force {
        self.whole.as_ref().and_then(Breaker::state).map_or(Force::Auto, |state| state.word().force())
    }

    fn routes(&self) -> Vec<Arc<State>> {
        let mut routes = self.routes.lock();
        routes.retain(|weak| weak.strong_count() > 0);
        routes.iter().filter_map(Weak::upgrade).collect()
    }

    /// The upstream's own, where it judges or is under an order, and those of routes.
    pub(crate) fn view(&self, now: Instant) -> Vec<BreakerView> {
        let whole = self.whole.as_ref().and_then(Breaker::state);
        let whole = whole.filter(|state| self.judges_whole || state.word().force() != Force::Auto);
        let mut views: Vec<_> = whole.map(|state| state.view(now)).into_iter().collect();
        views.extend(self.routes().iter().map(|state| state.view(now)));
        views
    }

    /// That of an endpoint.
    pub(crate) fn view_of(&self, standing: &Standing, now: Instant) -> Option<BreakerView> {
        standing.breaker.lock().as_ref().filter(|_| self.per_endpoint).map(|state| state.view(now))
    }
}

/// Why no order was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoBreaker {
    /// None at all.
    #[error("the upstream has no breaker: write `breaker: true` beside its endpoints")]
    AtAll,
    /// None for endpoints.
    #[error("the breaker of this upstream is not per endpoint")]
    PerEndpoint,
    /// No such endpoint.
    #[error("the upstream has no endpoint `{0}`")]
    Endpoint(String),
    /// No such route, or one without a breaker.
    #[error("no route `{0}` has a breaker for calls of this upstream")]
    Route(String),
}

impl Upstream {
    /// The breaker of a route's calls here, where the route has one of its own, this upstream has one for each route, or there is
    /// a `usual` one.
    pub fn breaker_for(
        &self,
        route: &str,
        own: Option<&BreakerSpec>,
        usual: Option<&BreakerSpec>,
        carry: &Carry,
    ) -> Option<Arc<Breaker>> {
        let breakers = &self.breakers;
        let of_upstream = breakers.rules.as_ref().filter(|_| breakers.per_route);
        let rules = match (own, of_upstream) {
            (None, Some(rules)) => Arc::clone(rules),
            (own, _) => {
                let spec = own.or(usual.filter(|_| !breakers.off)).filter(|spec| spec.on)?;
                Arc::new(Rules::compile(spec))
            }
        };
        let key = format!("breaker of {:?} for {route:?}", breakers.upstream);
        let whose = || Whose { upstream: Arc::clone(&breakers.upstream), scope: Scope::Route, name: route.into() };
        let state = carry.own().keep(key, || State::new(whose(), now()));
        state.counted_in(self.series.as_ref());
        let mut routes = breakers.routes.lock();
        routes.retain(|weak| weak.strong_count() > 0 && !std::ptr::addr_eq(weak.as_ptr(), Arc::as_ptr(&state)));
        routes.push(Arc::downgrade(&state));
        Some(Arc::new(Breaker::new(&state, &rules)))
    }

    /// Whether an attempt passes the breakers of the upstream and of its route. Two loads where both are closed.
    pub(crate) fn admit(&self, route: Option<&Breaker>, trail: &mut Trail, now: Instant) -> Result<Pass, Fault> {
        let mut pass = Pass::default();
        let whole = self.breakers.whole.as_ref().and_then(Breaker::mine);
        for fuse in whole.into_iter().chain(route.and_then(Breaker::mine)) {
            match fuse.admit(now) {
                Ok(None) => {}
                Ok(Some(probe)) => pass.probe(probe),
                Err(after) => {
                    self.note(trail);
                    return Err(self.refused(fuse.state().scope(), after));
                }
            }
        }
        pass.route = route.and_then(Breaker::mine).map(Arc::clone);
        Ok(pass)
    }

    /// An open breaker refuses an attempt.
    pub(crate) fn refused(&self, scope: Scope, after: Option<Duration>) -> Fault {
        if let Some(series) = &self.series {
            series.mine().held_back(scope.counted());
        }
        Fault::Open { scope, after }
    }

    /// Puts the breaker of an endpoint, of a route or of the whole upstream under an order, or takes the order back. For the
    /// whole it stands above those of its endpoints.
    pub fn force(&self, force: Force, endpoint: Option<&str>, route: Option<&str>) -> Result<(), NoBreaker> {
        let (breakers, now) = (&self.breakers, now());
        if let Some(route) = route {
            let states = breakers.routes();
            let state = states.iter().find(|state| state.is_named(route));
            state.ok_or_else(|| NoBreaker::Route(route.to_owned()))?.force(force, now, None);
            return Ok(());
        }
        let whole = breakers.whole.as_ref().and_then(Breaker::state).ok_or(NoBreaker::AtAll)?;
        let Some(id) = endpoint else {
            whole.force(force, now, None);
            self.standings().rouse();
            return Ok(());
        };
        if !breakers.per_endpoint {
            return Err(NoBreaker::PerEndpoint);
        }
        let known = self.endpoint_id(id).ok_or_else(|| NoBreaker::Endpoint(id.to_owned()))?;
        let standing = self.standings().of(&known);
        breakers.fuses(&known, &standing, self.series.as_ref());
        let state = standing.breaker.lock().as_ref().map(Arc::clone);
        if let Some(state) = state {
            state.force(force, now, Some(&standing));
        }
        Ok(())
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
