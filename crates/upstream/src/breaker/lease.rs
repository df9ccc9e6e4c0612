//! What breakers, and whoever ejects outliers, are told of a call: at the head of its answer, and for calls of gRPC at their end.
//!
//! Failures are: no answer by the fault of the upstream, a timer of the gateway, a status that counts, a body that the upstream
//! breaks off. A call of gRPC is judged by the status in its head or its trailers: UNKNOWN, INTERNAL, UNAVAILABLE and DATA_LOSS
//! fail (the classes that Envoy takes for errors of a server, without UNIMPLEMENTED, which tells of the request), and
//! DEADLINE_EXCEEDED where the deadline is not the client's own. A client that goes away tells nothing, nor does a client whose
//! own deadline is over, unless the call was slow by then: otherwise one client could open the breaker of all. To outliers each
//! answer of 5xx is a failure, whatever statuses a breaker counts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;

use super::judge::Call;
use super::{Fuse, Probe, Rules};
use crate::endpoint::Lease;

/// What lets an attempt pass, beside the endpoint's own breaker.
#[derive(Debug, Default)]
pub(crate) struct Pass {
    /// The breaker of the route.
    pub(crate) route: Option<Arc<Fuse>>,
    /// Those that are half open and let it through. An attempt that is dropped gives them back.
    probes: Option<Box<Probes>>,
    /// What was known at the head of an answer whose end tells how the call went.
    end: Option<Box<End>>,
}

#[derive(Debug, Default)]
struct Probes(Vec<Probe>);

impl Probes {
    fn of(&mut self, fuse: &Arc<Fuse>) -> Option<Probe> {
        let place = self.0.iter().position(|probe| probe.is_of(fuse))?;
        Some(self.0.swap_remove(place))
    }
}

impl Pass {
    /// Both let it pass.
    pub(crate) fn join(&mut self, other: Self) {
        self.route = other.route.or(self.route.take());
        other.probes.into_iter().flat_map(|probes| probes.0).for_each(|probe| self.probe(probe));
    }

    /// One that is half open lets it pass.
    pub(crate) fn probe(&mut self, probe: Probe) {
        self.probes.get_or_insert_default().0.push(probe);
    }
}

/// What is known at the head of a call whose end tells how it went.
#[derive(Debug, Clone, Copy)]
struct End {
    at: Instant,
    took: Duration,
    own_deadline: bool,
}

/// What the head of an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// The status of HTTP tells all.
    Http(u16),
    /// The status of gRPC tells all.
    Grpc(u16),
    /// The status of gRPC comes at the end.
    Later,
}

impl Said {
    /// What a head says. A status of HTTP other than 200 tells of a call of gRPC, too, that it failed.
    pub(crate) fn of(grpc: bool, status: u16, headers: &HeaderMap) -> Self {
        if !grpc || status != 200 {
            return Self::Http(status);
        }
        grpc_status(headers).map_or(Self::Later, Self::Grpc)
    }

    /// The status of HTTP.
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::Http(status) => status,
            Self::Grpc(_) | Self::Later => 200,
        }
    }

    /// Whether it tells of a failure already.
    pub(crate) fn is_failure(self) -> bool {
        match self {
            Self::Http(status) => status >= 500,
            Self::Grpc(code) => fails(code, false),
            Self::Later => false,
        }
    }
}

impl Lease {
    /// The head of the answer is here, after so long. `own_deadline` says whether the client set the time that it has.
    pub(crate) fn answered(&mut self, said: Said, took: Duration, at: Instant, own_deadline: bool) {
        if !self.is_judged() {
            return;
        }
        match said {
            Said::Http(status) => {
                self.watch(status >= 500, took);
                self.tell(at, |rules| rules.by_status(status, took));
            }
            Said::Grpc(code) => self.tell_code(code, End { at, took, own_deadline }),
            Said::Later => self.pass.end = Some(Box::new(End { at, took, own_deadline })),
        }
    }

    /// A connection stands that carries bytes, and nothing else is known of it.
    pub(crate) fn connected(&mut self, asked: Instant, at: Instant) {
        if self.is_judged() {
            let took = at.saturating_duration_since(asked);
            self.watch(false, took);
            self.tell(at, |rules| Call { failed: false, slow: rules.is_slow(took) });
        }
    }

    /// No answer came in so long, by the fault of the upstream.
    pub(crate) fn failed(&mut self, took: Duration, at: Instant) {
        if self.is_judged() {
            self.watch(true, took);
            self.tell(at, |rules| Call { failed: true, slow: rules.is_slow(took) });
        }
    }

    /// The client's own deadline was over after so long: only slowness is the upstream's.
    pub(crate) fn ran_out(&mut self, took: Duration, at: Instant) {
        let slow = |rules: &Rules| rules.is_slow(took);
        if self.is_judged() && self.fuses().any(|fuse| slow(&fuse.rules)) {
            self.tell(at, |rules| Call { failed: false, slow: slow(rules) });
        }
    }

    /// The first data of the answer: a probe need not wait for the end of a stream.
    pub(crate) fn goes_on(&mut self) {
        if let Pass { end: Some(end), probes: Some(probes), .. } = &mut self.pass {
            probes.0.drain(..).for_each(|probe| probe.end(Call::GOOD, end.at));
        }
    }

    /// The answer is over, with these trailers, if any.
    pub(crate) fn ended(&mut self, trailers: Option<&HeaderMap>) {
        let Some(end) = self.pass.end.take() else { return };
        // A call that ends without a status is UNKNOWN.
        let code = trailers.and_then(grpc_status).unwrap_or(2);
        // What went well is counted to the moment of its head: a bad one needs the present.
        let at = if code == 0 { end.at } else { now() };
        self.tell_code(code, End { at, ..*end });
    }

    /// The answer broke off by the fault of the upstream.
    pub(crate) fn broke(&mut self) {
        if let Some(end) = self.pass.end.take() {
            self.watch(true, end.took);
        }
        if self.is_judged() {
            self.tell(now(), |_| Call { failed: true, slow: false });
        }
    }

    fn is_judged(&self) -> bool {
        let lane = &self.lane;
        self.pass.route.is_some() || lane.watched.is_some() || lane.fuses.iter().any(Option::is_some)
    }

    /// Tells whoever ejects outliers.
    fn watch(&self, failed: bool, took: Duration) {
        match &self.lane.watched {
            Some(watched) if failed => watched.failed(),
            Some(watched) => watched.passed(took),
            None => {}
        }
    }

    /// A call of gRPC has come to this.
    fn tell_code(&mut self, code: u16, End { at, took, own_deadline }: End) {
        let failed = fails(code, own_deadline);
        self.watch(failed, took);
        self.tell(at, |rules| Call { failed, slow: rules.is_slow(took) });
    }

    fn fuses(&self) -> impl Iterator<Item = &Arc<Fuse>> {
        self.lane.fuses.iter().flatten().chain(&self.pass.route)
    }

    /// Tells each breaker how the call went by its own rules.
    fn tell(&mut self, at: Instant, call: impl Fn(&Rules) -> Call) {
        let Pass { route, probes, .. } = &mut self.pass;
        for fuse in self.lane.fuses.iter().flatten().chain(route.iter()) {
            let call = call(&fuse.rules);
            match probes.as_mut().and_then(|probes| probes.of(fuse)) {
                Some(probe) => probe.end(call, at),
                None => fuse.tell(call, at),
            }
        }
    }
}

/// Whether a code of gRPC tells against the service.
fn fails(code: u16, own_deadline: bool) -> bool {
    match code {
        2 | 13 | 14 | 15 => true,
        4 => !own_deadline,
        _ => false,
    }
}

/// The status of gRPC in a head or in trailers; what is no number is 2 (UNKNOWN).
fn grpc_status(fields: &HeaderMap) -> Option<u16> {
    let status = fields.get("grpc-status")?;
    Some(status.to_str().ok().and_then(|text| text.parse().ok()).unwrap_or(2))
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
