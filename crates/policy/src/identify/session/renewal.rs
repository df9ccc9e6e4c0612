//! New tokens for a session, ahead of the end of those that it has.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use pylon_net::timer::timeout_at;

use super::party::{Failed, Party, now};
use super::ticket::Ticket;

/// How long a request waits for new tokens.
const PATIENCE: Duration = Duration::from_secs(10);
/// How soon an issuer that did not answer is asked again, in seconds.
pub(super) const AGAIN: u64 = 5;

/// The same session with new tokens: asked for once for all who come together.
pub(super) async fn renewed(party: &Arc<Party>, ticket: &Ticket) -> Result<Ticket, Failed> {
    let unknown = |why: &'static str| Err(Failed::Unknown(why.into()));
    let Some(control) = party.control.get() else { return unknown("the gateway has not begun yet") };
    let named = format!("{}\0{}\0{}", ticket.id, ticket.ends, ticket.refresh.as_deref().unwrap_or_default());
    let Ok(key) = digest(&SHA256, named.as_bytes()).as_ref().try_into() else { return unknown("no hash") };
    let stale = |outcome: &Result<Ticket, Failed>, age: Duration| {
        matches!(outcome, Err(Failed::Unknown(_))) && age >= Duration::from_secs(AGAIN)
    };
    let flight = party.memory.flights.join(key, now(), stale, |tell| {
        let (party, ticket) = (Arc::clone(party), ticket.clone());
        control.spawn(async move {
            let outcome = match party.shelf.as_ref().filter(|shelf| shelf.holds) {
                Some(shelf) => party.renew_shared(shelf, &ticket).await,
                None => party.renew(&ticket).await,
            };
            if let Err(failed) = &outcome {
                tracing::debug!(?failed, "a session is not renewed");
            }
            tell.send_replace(Some(Arc::new(outcome)));
        });
    });
    let Some(mut flight) = flight else { return unknown("too many sessions are being renewed") };
    let deadline: Instant = now() + PATIENCE;
    match timeout_at(Some(deadline), flight.wait_for(Option::is_some)).await {
        Ok(Ok(outcome)) => {
            outcome.as_ref().map_or_else(|| unknown("nothing came of it"), |outcome| (**outcome).clone())
        }
        Ok(Err(_)) => unknown("the gateway ends"),
        Err(_) => unknown("new tokens did not come in time"),
    }
}
