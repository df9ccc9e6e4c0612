//! Sessions that a store of all gateways keeps: a browser has an id, sealed, and never the session itself.
//!
//! The store lets a session go when it was not used for as long as it may be idle; a session that was taken away there comes back by nothing
//! that a gateway has in its hands. Tokens are renewed by one gateway at a time, since an issuer takes what they are renewed by once: whoever
//! comes second waits for what the first one keeps, and looks again before it asks.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pylon_net::timer::sleep;
use pylon_observe::clock::unix_now;
use pylon_store::sessions::{Kept, Spans};
use serde_json::{Map, Value};

use super::cookies::Jar;
use super::party::{Failed, Party, now};
use super::pkce::fresh;
use super::proof::text;
use super::revoked::Name;
use super::shelf::Shelf;
use super::ticket::Ticket;
use crate::identify::jwt::token;

/// How soon it is looked again whether another gateway has renewed a session.
const LOOK: Duration = Duration::from_millis(50);
/// For how long a gateway waits for another one.
const PATIENCE: Duration = Duration::from_secs(10);
/// By how much the clocks of gateways and store may let a session seem to last longer than it can.
const SLACK: Duration = Duration::from_secs(5);
/// How often, and how soon, it is tried again to keep new tokens while the store is away.
const TRIES: usize = 40;
const AGAIN: Duration = Duration::from_millis(500);

const UNOPENED: &str = "it does not open: it is forged, of another client, or its key is gone";

impl Party {
    /// The session that a browser shows, unless it was ended, and whether it is to be written anew.
    pub(super) async fn known(&self, envelope: &[u8], jar: Jar<'_>) -> Result<(Ticket, bool), Failed> {
        let in_cookie = || self.in_cookie(envelope, jar).map_err(Failed::Refused);
        let Some(shelf) = &self.shelf else { return in_cookie() };
        if !shelf.holds {
            let (ticket, anew) = in_cookie()?;
            let ended = shelf.is_ended(&names(&ticket.id, &claims(&ticket)?), ticket.begun).await?;
            return if ended { Err(Failed::Refused("it was ended by a logout".into())) } else { Ok((ticket, anew)) };
        }
        let (id, current) = self.shown_id(envelope, jar).ok_or_else(unopened)?;
        let kept = shelf.get(&id).await?.ok_or_else(gone)?;
        let (ticket, sealed_now) = self.unsealed(&id, &kept).ok_or_else(unopened)?;
        if !sealed_now {
            // Its key goes: it is sealed by the one that has come.
            shelf.exchange(&id, &kept.sealed, &self.sealed(&ticket)?).await?;
        }
        let spans = self.spans(&ticket);
        // Too soon, or too late by far where `idle` was longer before.
        let touch = kept.left.saturating_add(Duration::from_secs((self.times.idle / 10).max(1))) <= spans.unused
            || kept.left > spans.unused.saturating_add(SLACK);
        if touch && !shelf.touch(&id, spans, &owners(&claims(&ticket)?)).await? {
            return Err(gone());
        }
        Ok((ticket, touch || !current))
    }

    /// Keeps a session that has begun, where gateways share them.
    pub(super) async fn keep(&self, ticket: &Ticket) -> Result<(), Failed> {
        let Some(shelf) = self.shelf.as_ref().filter(|shelf| shelf.holds) else { return Ok(()) };
        let sealed = self.sealed(ticket)?;
        let spans = self.spans(ticket);
        let claims = claims(ticket)?;
        if shelf.set(&ticket.id, &sealed, spans, (&owners(&claims), ticket.begun)).await? {
            Ok(())
        } else {
            Err(Failed::Refused("it was ended by a logout meanwhile".into()))
        }
    }

    /// Ends the session that a browser shows, wherever it is known. Gives it back, if there was one.
    pub(super) async fn end_shown(&self, envelope: &[u8], jar: Jar<'_>) -> Result<Option<Ticket>, Failed> {
        let ticket = match &self.shelf {
            Some(shelf) if shelf.holds => {
                let Some((id, _)) = self.shown_id(envelope, jar) else { return Ok(None) };
                let kept = shelf.get(&id).await?;
                let ticket = kept.and_then(|kept| self.unsealed(&id, &kept)).map(|(ticket, _)| ticket);
                if let Some(ticket) = &ticket {
                    shelf.delete(&id, &owners(&claims(ticket)?)).await?;
                }
                ticket
            }
            shared => {
                let ticket = self.in_cookie(envelope, jar).ok().map(|(ticket, _)| ticket);
                if let (Some(shelf), Some(ticket)) = (shared, &ticket) {
                    shelf.end(Name::Session(&ticket.id)).await?;
                }
                ticket
            }
        };
        if let Some(ticket) = &ticket {
            // A copy of the cookie counts no more.
            self.memory.end(Name::Session(&ticket.id), unix_now().as_secs());
        }
        Ok(ticket)
    }

    /// Ends all sessions of a name at the word of the issuer, by a token of this name that is good once, until then.
    pub(super) async fn end_named(&self, name: Name<'_>, token: &str, until: u64) -> Result<(), Failed> {
        let (once, moment) = (format!("t{token}"), unix_now().as_secs());
        let used = || Failed::Refused("the logout token was used before".into());
        let Some(shelf) = &self.shelf else {
            if !self.memory.first(&once, until) {
                return Err(used());
            }
            self.memory.end(name, moment);
            return Ok(());
        };
        if shelf.is_used(&once).await? {
            return Err(used());
        }
        let ended = shelf.end(name).await?;
        self.memory.end(name, ended);
        // At last: if something went wrong before, the issuer may say it again.
        shelf.use_up(&once, until.saturating_sub(moment)).await
    }

    /// The same session with new tokens, which another gateway may have got by now.
    pub(super) async fn renew_shared(self: &Arc<Self>, shelf: &Shelf, before: &Ticket) -> Result<Ticket, Failed> {
        let word = fresh().ok_or(Failed::Unknown("the system gives no random numbers".into()))?;
        let (id, deadline): (&str, Instant) = (&before.id, now() + PATIENCE);
        while !shelf.lock(id, &word).await? {
            sleep(LOOK).await;
            if let Some(renewed) = self.renewed_elsewhere(shelf, before).await? {
                return Ok(renewed);
            }
            if now() >= deadline {
                return Err(Failed::Unknown("another gateway gets new tokens, and they did not come in time".into()));
            }
        }
        let outcome = self.renew_alone(shelf, before).await;
        if let Err(Unkept { ticket, why }) = outcome {
            // What the issuer gave must not be lost with the store's absence: it may take the old one no more.
            let party = Arc::clone(self);
            tokio::spawn(async move { party.keep_later(ticket, &word).await });
            return Err(why);
        }
        shelf.unlock(id, &word).await;
        outcome.unwrap_or_else(|unkept| Err(unkept.why))
    }

    /// The session as another gateway has renewed it; none where it is as it was before.
    async fn renewed_elsewhere(&self, shelf: &Shelf, before: &Ticket) -> Result<Option<Ticket>, Failed> {
        let kept = shelf.get(&before.id).await?.ok_or_else(gone)?;
        let (ticket, _) = self.unsealed(&before.id, &kept).ok_or_else(unopened)?;
        let same = (ticket.ends, &ticket.refresh) == (before.ends, &before.refresh);
        Ok((!same).then_some(ticket))
    }

    /// The same while no other gateway does.
    async fn renew_alone(&self, shelf: &Shelf, before: &Ticket) -> Result<Result<Ticket, Failed>, Unkept> {
        match self.renewed_elsewhere(shelf, before).await {
            Ok(None) => {}
            Ok(Some(renewed)) => return Ok(Ok(renewed)),
            Err(failed) => return Ok(Err(failed)),
        }
        let ticket = match self.renew(before).await {
            Ok(ticket) => ticket,
            Err(failed) => {
                if let (Failed::Refused(_), Ok(claims)) = (&failed, claims(before))
                    && let Err(why) = shelf.delete(&before.id, &owners(&claims)).await
                {
                    tracing::debug!(?why, "a session that is over is not taken away yet");
                }
                return Ok(Err(failed));
            }
        };
        match self.replace(shelf, &ticket).await {
            Ok(true) => Ok(Ok(ticket)),
            Ok(false) => Ok(Err(gone())),
            Err(why) => Err(Unkept { ticket, why }),
        }
    }

    /// Keeps new tokens once the store is back, and leaves the session to others then.
    async fn keep_later(&self, ticket: Ticket, word: &str) {
        let Some(shelf) = &self.shelf else { return };
        for _ in 0..TRIES {
            sleep(AGAIN).await;
            if self.replace(shelf, &ticket).await.is_ok() {
                break;
            }
        }
        shelf.unlock(&ticket.id, word).await;
    }

    async fn replace(&self, shelf: &Shelf, ticket: &Ticket) -> Result<bool, Failed> {
        shelf.replace(&ticket.id, &self.sealed(ticket)?, self.spans(ticket).unused).await
    }

    /// The session that stands in cookies, and whether it is to be written anew; else why it is none.
    pub(super) fn in_cookie(&self, envelope: &[u8], jar: Jar<'_>) -> Result<(Ticket, bool), Cow<'static, str>> {
        let (ticket, current) = self.opened(envelope, jar).ok_or(UNOPENED)?;
        Ok((ticket, !current))
    }

    /// The id in an envelope, and whether the key that seals now sealed it.
    fn shown_id(&self, envelope: &[u8], jar: Jar<'_>) -> Option<(String, bool)> {
        let opened = self.ring.open(&self.bound("session id", jar.name()), envelope)?;
        Some((String::from_utf8(opened.content).ok()?, opened.current))
    }

    /// An id, as a browser keeps it.
    pub(super) fn sealed_id(&self, ticket: &Ticket, jar: Jar<'_>) -> Option<String> {
        self.ring.seal(&self.bound("session id", jar.name()), ticket.id.as_bytes())
    }

    /// A session, as the store keeps it: it opens under its own id and no other.
    fn sealed(&self, ticket: &Ticket) -> Result<String, Failed> {
        let content = serde_json::to_vec(ticket).ok();
        let sealed = content.and_then(|content| self.ring.seal(&self.bound("kept session", &ticket.id), &content));
        sealed.ok_or(Failed::Unknown("a session cannot be sealed".into()))
    }

    /// A session that is kept, and whether the key that seals now sealed it.
    fn unsealed(&self, id: &str, kept: &Kept) -> Option<(Ticket, bool)> {
        let opened = self.ring.open(&self.bound("kept session", id), &kept.sealed)?;
        let ticket: Ticket = serde_json::from_slice(&opened.content).ok()?;
        // That it is there at all says that it was used: the store lets it go otherwise.
        Some((Ticket { seen: unix_now().as_secs(), ..ticket }, opened.current))
    }

    /// For how long a session is kept from now on.
    fn spans(&self, ticket: &Ticket) -> Spans {
        let left = ticket.begun.saturating_add(self.times.lifetime).saturating_sub(unix_now().as_secs());
        Spans { unused: Duration::from_secs(left.min(self.times.idle)), longest: Duration::from_secs(left) }
    }
}

/// New tokens that could not be kept.
struct Unkept {
    ticket: Ticket,
    why: Failed,
}

/// What the ID token of a session says.
fn claims(ticket: &Ticket) -> Result<Map<String, Value>, Failed> {
    let token = token::read(ticket.id_token.as_bytes());
    Ok(token.map_err(|_| Failed::Refused("its ID token cannot be read".into()))?.claims)
}

/// By whom a session is found beside its own name: the issuer's session that it is part of, and its user.
fn owners(claims: &Map<String, Value>) -> Vec<Name<'_>> {
    text(claims, "sid").map(Name::Sid).into_iter().chain(text(claims, "sub").map(Name::Subject)).collect()
}

/// All names of a session.
pub(super) fn names<'n>(id: &'n str, claims: &'n Map<String, Value>) -> Vec<Name<'n>> {
    [vec![Name::Session(id)], owners(claims)].concat()
}

fn unopened() -> Failed {
    Failed::Refused(UNOPENED.into())
}

fn gone() -> Failed {
    Failed::Refused("it was ended, or not used for too long".into())
}

#[cfg(test)]
mod tests;
