//! What a session that a browser shows comes to at a moment: whom it proves, whether it is written anew or renewed, or why it is over.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use pylon_core::Request;
use pylon_core::caller::Caller;
use pylon_core::exchange::Exchange;
use pylon_core::rejection::CALLER_UNKNOWN;
use pylon_observe::clock::unix_now;
use pylon_upstream::oauth::bearer;

use super::party::Failed;
use super::renewal::{AGAIN, renewed};
use super::spec::TokenSpec;
use super::ticket::{Standing, Ticket};
use super::{After, Session};
use crate::policy::Stop;

/// For how long a worker need not ask the store of all gateways again: whoever logged out elsewhere is out after that.
const SHARED: Duration = Duration::from_secs(1);

/// What a session comes to.
pub(super) enum Found {
    /// It is good until then.
    Good(Arc<Caller>),
    /// It is good, and is written anew.
    Fresh(Arc<Caller>, Ticket),
    /// It is over, for this reason.
    Over(Cow<'static, str>),
    /// Its tokens are to be renewed; until this moment it would go on without.
    Renew(Ticket, u64),
}

impl Session {
    /// What a session in cookies comes to that no worker has seen lately.
    pub(super) fn find(&self, crumb: &[u8], envelope: &[u8], generation: u64, cx: &Exchange) -> Found {
        let party = &*self.doors.party;
        match party.in_cookie(envelope, party.names.of(cx.scheme)) {
            Ok((ticket, anew)) => self.weigh(crumb, ticket, anew, generation, cx),
            Err(why) => Found::Over(why),
        }
    }

    /// The same where the store is asked that gateways share. Where that does not answer, nobody knows.
    pub(super) async fn ask(
        &self,
        crumb: &[u8],
        envelope: &[u8],
        generation: u64,
        req: &mut Request,
        cx: &mut Exchange,
    ) -> Result<Option<Box<After>>, Stop> {
        let party = &self.doors.party;
        let found = match party.known(envelope, party.names.of(cx.scheme)).await {
            Ok((ticket, anew)) => self.weigh(crumb, ticket, anew, generation, cx),
            Err(Failed::Refused(why)) => Found::Over(why),
            Err(failed @ Failed::Unknown(_)) => return Err(failed.rejection().into()),
        };
        match found {
            Found::Renew(ticket, until) => self.renew(ticket, until, crumb, req, cx).await,
            found => Ok(self.take(found, req, cx)),
        }
    }

    /// What a session comes to at this moment; `anew` says that it is to be written anew in any case.
    fn weigh(&self, crumb: &[u8], ticket: Ticket, anew: bool, generation: u64, cx: &Exchange) -> Found {
        let party = &*self.doors.party;
        let seconds = unix_now().as_secs();
        let (next, touch) = match ticket.stands(seconds, party.times, party.sends) {
            Standing::Over(why) => return Found::Over(why.into()),
            Standing::Good(next) => (next, false),
            Standing::Touch(next) => (next, true),
            // Whether it was ended is looked at first: the issuer is not asked for what is over.
            Standing::Renew(until) => {
                return match party.claims(&ticket) {
                    Ok(_) => Found::Renew(ticket, until),
                    Err(why) => Found::Over(why.into()),
                };
            }
        };
        match self.caller(&ticket) {
            Ok(caller) => {
                let until = cx.started + self.counts_for(next.saturating_sub(seconds));
                self.proofs.keep(crumb, generation, &caller, cx.started, until);
                if touch || anew { Found::Fresh(caller, ticket) } else { Found::Good(caller) }
            }
            Err(why) => Found::Over(why),
        }
    }

    /// The same where tokens are to be renewed.
    pub(super) async fn renew(
        &self,
        ticket: Ticket,
        until: u64,
        crumb: &[u8],
        req: &mut Request,
        cx: &mut Exchange,
    ) -> Result<Option<Box<After>>, Stop> {
        let party = &self.doors.party;
        let generation = party.memory.generation();
        let found = match renewed(party, &ticket).await {
            Ok(new) => match self.caller(&new) {
                Ok(caller) => Found::Fresh(caller, new),
                Err(why) => Found::Over(why),
            },
            Err(Failed::Refused(why)) => Found::Over(why),
            Err(Failed::Unknown(why)) => {
                let left = until.saturating_sub(unix_now().as_secs());
                if left == 0 {
                    return Err(CALLER_UNKNOWN.privately(why).into());
                }
                match self.caller(&ticket) {
                    Ok(caller) => {
                        let end = cx.started + self.counts_for(left.min(AGAIN));
                        self.proofs.keep(crumb, generation, &caller, cx.started, end);
                        Found::Good(caller)
                    }
                    Err(why) => Found::Over(why),
                }
            }
        };
        Ok(self.take(found, req, cx))
    }

    /// For how long a worker need not look again at what is good for so many seconds.
    fn counts_for(&self, seconds: u64) -> Duration {
        let left = Duration::from_secs(seconds);
        if self.doors.party.shelf.is_some() { left.min(SHARED) } else { left }
    }

    /// The caller of a session, unless it was ended.
    fn caller(&self, ticket: &Ticket) -> Result<Arc<Caller>, Cow<'static, str>> {
        let party = &*self.doors.party;
        let claims = party.claims(ticket)?;
        let mut caller = party.caller(ticket, claims)?;
        self.consumers.of_token(&party.issuer.rules.issuer, &mut caller);
        let mut told = self.telling.lines(&caller).into_vec();
        for (name, token, behind) in &self.tokens.sent {
            let token = match token {
                TokenSpec::AccessToken => ticket.access.as_deref(),
                TokenSpec::IdToken => Some(&*ticket.id_token),
            };
            let line = token.and_then(|token| if *behind { bearer(token.as_bytes()) } else { secret(token) });
            told.extend(line.map(|line| (name.clone(), line)));
        }
        caller.told = told.into();
        Ok(Arc::new(caller))
    }
}

/// A token alone, as the value of a header.
fn secret(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(token).ok()?;
    value.set_sensitive(true);
    Some(value)
}
