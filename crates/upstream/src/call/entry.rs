//! The permit of an exchange, where its upstream has a limit of concurrency: taken before the first attempt, kept for all.

use std::time::Instant;

use pylon_core::exchange::Exchange;

use super::{CallOptions, now};
use crate::concurrency::permit::Permit;
use crate::error::Fault;
use crate::upstream::Upstream;

impl Upstream {
    /// Takes a permit, or waits for one. `began` becomes the moment at which the first attempt may begin.
    pub(super) async fn permit(
        &self,
        cx: &mut Exchange,
        began: &mut Instant,
        options: &CallOptions,
    ) -> Result<Option<Permit>, Fault> {
        let Some(concurrency) = &self.concurrency else { return Ok(None) };
        let answer = cx.started + options.timeouts.response;
        let deadline = cx.deadline.map_or(answer, |total| total.min(answer));
        match concurrency.admit(cx.priority, cx.client, *began, deadline) {
            None => Ok(None),
            Some(Ok(permit)) => Ok(Some(permit)),
            Some(Err(waiting)) => {
                let outcome = waiting.await;
                let turn = now();
                cx.trail.queued = Some(turn.saturating_duration_since(*began));
                *began = turn;
                outcome.map(Some).map_err(|shed| {
                    self.name_in(&mut cx.trail);
                    Fault::Overloaded(shed)
                })
            }
        }
    }
}
