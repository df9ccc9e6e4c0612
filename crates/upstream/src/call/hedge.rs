//! Hedging: a first attempt that is late gets a second one beside it, at another endpoint, and the first good answer is taken.
//!
//! After J. Dean and L. A. Barroso, "The Tail at Scale", 2013. The loser is dropped at once: over HTTP/1 its connection is closed,
//! over HTTP/2 its stream is reset; it counts neither as a failure nor as an answer, but the time that it had counts for the
//! quantile, which would come to know quick answers alone otherwise. The clock runs from the start of the attempt; while its
//! connection is being made nothing is sent elsewhere, for that has timers of its own.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use pylon_core::attempts::Hedged;
use pylon_core::exchange::{Exchange, Trail};
use pylon_core::worker::PerWorker;
use pylon_net::timer::timeout_at;

use self::spec::{After, HedgeSpec};
use super::attempt::concluded;
use super::deadline::{Times, await_head, tell};
use super::outcome::Missed;
use super::outgoing::{Outgoing, is_idempotent};
use super::past::Past;
use super::{CallOptions, Came, now};
use crate::breaker::lease::Said;
use crate::endpoint::{Lane, Lease};
use crate::error::Fault;
use crate::flight::{Flight, Head};
use crate::upstream::Upstream;

pub mod spec;

/// What one hedge costs: shares are hundredths of a percent.
const TOKEN: u32 = 10_000;
/// How many hedges a worker may save up.
const SAVED: u32 = 10 * TOKEN;

/// A compiled [`HedgeSpec`], with what each worker may still send twice.
#[derive(Debug)]
pub struct Hedge {
    after: After,
    share: u32,
    tokens: PerWorker<u32>,
}

impl Hedge {
    /// Compiles what is written: none where that is `off`.
    pub fn compile(spec: &HedgeSpec) -> Option<Self> {
        let share = u32::from(spec.at_most.basis_points());
        (share > 0).then(|| Self { after: spec.after, share, tokens: PerWorker::default() })
    }

    /// Whether a request may be sent twice at all.
    pub(super) fn fits(out: &Outgoing, cx: &Exchange) -> bool {
        out.is_at_hand() && is_idempotent(&out.method) && cx.websocket.is_none()
    }

    fn delay(&self, lane: &Lane) -> Option<Duration> {
        match self.after {
            After::Quantile(percent) => lane.slot.pace.quantile(percent),
            After::Fixed(span) => Some(span.duration()),
        }
    }

    /// Counts a request that might be sent twice.
    fn put(&self) {
        self.tokens.with(|tokens| *tokens = tokens.saturating_add(self.share).min(SAVED));
    }

    fn has_one(&self) -> bool {
        self.tokens.with(|tokens| *tokens >= TOKEN)
    }

    fn take(&self) {
        self.tokens.with(|tokens| *tokens = tokens.saturating_sub(TOKEN));
    }
}

impl fmt::Display for Hedge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at_most = pylon_core::units::Percent::from_basis_points(u16::try_from(self.share).unwrap_or(u16::MAX));
        write!(f, "hedged after {}, at most {at_most}", self.after)
    }
}

/// The attempt that came first, on its way.
struct First {
    lease: Lease,
    flight: Option<Flight>,
    began: Instant,
    sent: Instant,
}

/// The one beside it, with an exchange of its own: what it notes counts only if it wins.
struct Second {
    lease: Lease,
    out: Outgoing,
    cx: Box<Exchange>,
    past: Past,
}

/// What came of the two so far.
#[derive(Default)]
struct Ends {
    first: Option<Result<Head, Fault>>,
    second: Option<Came>,
}

impl Upstream {
    /// An attempt, and a second one beside it where it is late and that is allowed. Answers with who was asked, and what came.
    pub(super) async fn hedged(
        &self,
        hedge: &Hedge,
        lease: Lease,
        out: &mut Outgoing,
        cx: &mut Exchange,
        options: &CallOptions,
        past: &mut Past,
    ) -> (Lease, Came) {
        hedge.put();
        let Some(delay) = hedge.delay(&lease.lane) else {
            let came = self.attempt(&lease.lane, out, cx, options, past).await;
            return (lease, came);
        };
        let began = past.began;
        let (flight, sent) = match self.launched(&lease.lane, out, cx, options, past).await {
            Ok(launched) => launched,
            Err(fault) => return (lease, Err(fault)),
        };
        let (mut first, times) = (First { lease, flight: Some(flight), began, sent }, Times { began: &began, sent });
        let in_time = {
            let head = await_head(&mut first.flight, &out.method, cx, options, times);
            before(head, began + delay).await
        };
        let head = match in_time {
            Some(head) => head,
            None => match self.second(hedge, out, cx, options, past) {
                Some(second) => return self.race(first, Box::new(second), out, cx, options, past).await,
                None => {
                    self.tell(Hedged::Skipped, cx);
                    await_head(&mut first.flight, &out.method, cx, options, times).await
                }
            },
        };
        (first.lease, concluded(first.flight, head, out))
    }

    /// The second attempt, where there is another endpoint and both bounds allow it.
    fn second(
        &self,
        hedge: &Hedge,
        out: &Outgoing,
        cx: &Exchange,
        options: &CallOptions,
        past: &Past,
    ) -> Option<Second> {
        if self.endpoints() < 2 || !hedge.has_one() {
            return None;
        }
        let mut out = out.twin()?;
        let now = now();
        let lease = self.lease(&out.headers, past, &mut Trail::default(), options).ok()?;
        let another = !past.tried().contains(&lease.lane.id());
        if !another || !self.may_spend(now) {
            return None;
        }
        hedge.take();
        let mut aside = cx.aside();
        aside.deadline = cx.deadline;
        tell(&mut out, &aside, options, now);
        Some(Second { lease, out, cx: aside, past: Past::new(past.wish, now, cx.started) })
    }

    /// Waits for both, until one of them brings a good answer or neither can.
    async fn race(
        &self,
        first: First,
        mut second: Box<Second>,
        out: &mut Outgoing,
        cx: &mut Exchange,
        options: &CallOptions,
        past: &mut Past,
    ) -> (Lease, Came) {
        let First { mut lease, mut flight, began, sent } = first;
        let times = Times { began: &began, sent };
        let mut ends = Ends::default();
        {
            let mut one = pin!(await_head(&mut flight, &out.method, cx, options, times));
            let Second { lease, out, cx, past } = &mut *second;
            let mut other = pin!(self.attempt(&lease.lane, out, cx, options, past));
            poll_fn(|task| {
                if ends.first.is_none()
                    && let Poll::Ready(head) = one.as_mut().poll(task)
                {
                    ends.first = Some(head);
                }
                if !ends.is_settled()
                    && ends.second.is_none()
                    && let Poll::Ready(came) = other.as_mut().poll(task)
                {
                    ends.second = Some(came);
                }
                if ends.is_settled() { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
        cx.trail.attempts = cx.trail.attempts.saturating_add(second.cx.trail.attempts);
        past.remember(&second.lease.lane);
        let (now, grpc) = (now(), cx.grpc);
        let said = |head: &Head| Said::of(grpc, head.status(), head.headers());
        match ends.into_winner() {
            Winner::First(head, loser) => {
                self.tell(Hedged::Lost, cx);
                let loser = loser.map(|came| came.map(|(_, head)| said(&head)));
                lost(&mut second.lease, loser, second.past.began, now);
                (lease, concluded(flight, head, out))
            }
            Winner::Second(came, loser) => {
                self.tell(Hedged::Won, cx);
                lost(&mut lease, loser.map(|head| head.map(|head| said(&head))), began, now);
                let Trail { endpoint, socket, reused, .. } = std::mem::take(&mut second.cx.trail);
                (cx.trail.endpoint, cx.trail.socket, cx.trail.reused) = (endpoint, socket, reused);
                past.began = second.past.began;
                (second.lease, came)
            }
        }
    }

    fn tell(&self, what: Hedged, cx: &mut Exchange) {
        cx.trail.hedge = Some(what);
        if let Some(series) = &self.series {
            series.mine().hedged(what);
        }
    }
}

/// Whose answer is taken, and what the other one had come to by then.
enum Winner {
    First(Result<Head, Fault>, Option<Came>),
    Second(Came, Option<Result<Head, Fault>>),
}

impl Ends {
    fn first_is_good(&self) -> bool {
        matches!(&self.first, Some(Ok(head)) if is_good(head))
    }

    fn second_is_good(&self) -> bool {
        matches!(&self.second, Some(Ok((_, head))) if is_good(head))
    }

    fn is_settled(&self) -> bool {
        self.first_is_good() || self.second_is_good() || self.first.is_some() && self.second.is_some()
    }

    /// A good answer, else any answer, else the failure of the first.
    fn into_winner(self) -> Winner {
        let first = self.first_is_good()
            || !self.second_is_good() && (matches!(self.first, Some(Ok(_))) || !matches!(self.second, Some(Ok(_))));
        match (self.first, self.second) {
            (Some(head), second) if first => Winner::First(head, second),
            (first, Some(came)) => Winner::Second(came, first),
            (Some(head), None) => Winner::First(head, None),
            (None, None) => Winner::First(Err(Fault::Connect(std::io::ErrorKind::NotConnected.into())), None),
        }
    }
}

/// Whether nobody would rather have the other's answer.
fn is_good(head: &Head) -> bool {
    head.status() < 500
}

/// Takes in how the loser did: what it brought counts as ever, and where it was cut short, the time that it had.
fn lost(lease: &mut Lease, came: Option<Result<Said, Fault>>, began: Instant, now: Instant) {
    match came {
        Some(Ok(said)) => lease.heard(said, began, now, false),
        Some(Err(fault)) => lease.missed(Missed::of(&fault.into_error(), false, false), began, now),
        None => lease.lane.slot.pace.record(now.saturating_duration_since(began)),
    }
}

/// What `future` brings before `at`.
async fn before<F: Future>(future: F, at: Instant) -> Option<F::Output> {
    timeout_at(Some(at), future).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pylon_core::units::Percent;

    #[test]
    fn no_more_than_the_share_is_sent_twice_whatever_is_late() {
        for (seed, points) in (0..200_u64).zip([1_u16, 100, 500, 2500].into_iter().cycle()) {
            let at_most = Percent::from_basis_points(points);
            let hedge = Hedge::compile(&HedgeSpec { at_most, ..HedgeSpec::default() }).unwrap();
            let (mut rng, mut sent) = (fastrand::Rng::with_seed(seed), 0_u64);
            for request in 1..=5000_u64 {
                hedge.put();
                if rng.u8(..4) == 0 && hedge.has_one() {
                    hedge.take();
                    sent += 1;
                }
                assert!(sent * 10_000 <= request * u64::from(points), "{sent} of {request}");
            }
        }
        assert!(
            Hedge::compile(&HedgeSpec { at_most: Percent::from_basis_points(0), ..HedgeSpec::default() }).is_none()
        );
    }
}
