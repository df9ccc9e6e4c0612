//! What a session is, as it is sealed for a browser to keep, and how it stands at a moment. Pure: times are seconds since 1970.
//!
//! A session ends when its lifetime is over or it has not been used for as long as it may be idle. Tokens are renewed ahead of their end,
//! where the issuer gave something to renew them by; what is idle is written anew each tenth of that time, not at each request.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// For how long an access token is taken to be good where nobody says it.
const UNSAID: u64 = 300;
/// How long before its end an access token is renewed, at the most.
const AHEAD: u64 = 60;

/// A session.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ticket {
    /// Its name, made by chance.
    #[serde(rename = "i")]
    pub(super) id: String,
    /// When it began.
    #[serde(rename = "b")]
    pub(super) begun: u64,
    /// When it was last seen in use.
    #[serde(rename = "s")]
    pub(super) seen: u64,
    /// The ID token, which says who is asking.
    #[serde(rename = "t")]
    pub(super) id_token: String,
    /// What the issuer told besides, where it was asked.
    #[serde(rename = "u", default, skip_serializing_if = "Map::is_empty")]
    pub(super) told: Map<String, Value>,
    /// The scopes that were granted.
    #[serde(rename = "c")]
    pub(super) scopes: String,
    /// The access token, where services are sent it or claims are asked with it.
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    pub(super) access: Option<String>,
    /// What tokens are renewed by.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub(super) refresh: Option<String>,
    /// When the access token was given.
    #[serde(rename = "g")]
    pub(super) given: u64,
    /// When it ends.
    #[serde(rename = "e")]
    pub(super) ends: u64,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("begun", &self.begun).field("seen", &self.seen).finish_non_exhaustive()
    }
}

/// How long sessions may last, in seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// From the login on.
    pub(super) lifetime: u64,
    /// From one use to the next.
    pub(super) idle: u64,
}

/// How a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is over, for this reason.
    Over(&'static str),
    /// It goes on. Nothing has to be done about it before this moment.
    Good(u64),
    /// It goes on, and is to be written anew.
    Touch(u64),
    /// Its tokens are to be renewed; until this moment it would go on without.
    Renew(u64),
}

/// The end of an access token that was given now.
pub(super) fn end(now: u64, seconds: Option<u64>) -> u64 {
    now.saturating_add(seconds.unwrap_or(UNSAID))
}

impl Ticket {
    /// How it stands at `now`; `sends` says whether services are sent its access token.
    pub(super) fn stands(&self, now: u64, times: Times, sends: bool) -> Standing {
        let end = self.end(times);
        if now >= self.begun.saturating_add(times.lifetime) {
            return Standing::Over("its lifetime is over");
        }
        if now >= end {
            return Standing::Over("it was not used for too long");
        }
        if self.refresh.is_some() {
            let due = self.renewal();
            if now >= due {
                return Standing::Renew(self.ends.min(end));
            }
            return self.used(now, times, due.min(end));
        }
        if sends {
            if now >= self.ends {
                return Standing::Over("its access token is over, and there is nothing to renew it by");
            }
            return self.used(now, times, self.ends.min(end));
        }
        self.used(now, times, end)
    }

    /// When it ends if it is not used again.
    pub(super) fn end(&self, times: Times) -> u64 {
        self.begun.saturating_add(times.lifetime).min(self.seen.saturating_add(times.idle))
    }

    fn used(&self, now: u64, times: Times, next: u64) -> Standing {
        let touch = self.seen.saturating_add((times.idle / 10).max(1));
        if now >= touch { Standing::Touch(next) } else { Standing::Good(next.min(touch)) }
    }

    /// When its tokens are renewed: a fifth of their time ahead of its end, and a minute at the most.
    fn renewal(&self) -> u64 {
        let ahead = (self.ends.saturating_sub(self.given) / 5).min(AHEAD);
        self.ends.saturating_sub(ahead)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    const TIMES: Times = Times { lifetime: 3600, idle: 600 };

    pub(in super::super) fn ticket() -> Ticket {
        Ticket {
            id: "one".into(),
            begun: 1000,
            seen: 1000,
            id_token: "a.b.c".into(),
            told: Map::new(),
            scopes: "openid".into(),
            access: None,
            refresh: None,
            given: 1000,
            ends: 1300,
        }
    }

    #[test]
    fn a_session_ends_with_its_lifetime_or_when_nobody_uses_it() {
        let ticket = ticket();
        assert_eq!(ticket.stands(1000, TIMES, false), Standing::Good(1060));
        assert_eq!(ticket.stands(1060, TIMES, false), Standing::Touch(1600));
        assert_eq!(ticket.stands(1599, TIMES, false), Standing::Touch(1600));
        assert_eq!(ticket.stands(1600, TIMES, false), Standing::Over("it was not used for too long"));
        let used = Ticket { seen: 4500, ..ticket };
        assert_eq!(used.stands(4599, TIMES, false), Standing::Touch(4600));
        assert_eq!(used.stands(4600, TIMES, false), Standing::Over("its lifetime is over"));
    }

    #[test]
    fn tokens_are_renewed_ahead_of_their_end() {
        let ticket = Ticket { refresh: Some("r".into()), ..ticket() };
        assert_eq!(ticket.stands(1000, TIMES, true), Standing::Good(1060));
        assert_eq!(ticket.stands(1239, TIMES, true), Standing::Touch(1240));
        assert_eq!(ticket.stands(1240, TIMES, true), Standing::Renew(1300));
        let short = Ticket { ends: 1010, ..ticket.clone() };
        assert_eq!(short.stands(1007, TIMES, false), Standing::Good(1008));
        assert_eq!(short.stands(1008, TIMES, false), Standing::Renew(1010));
        let unused = Ticket { ends: 9000, ..ticket };
        assert_eq!(unused.stands(1600, TIMES, false), Standing::Over("it was not used for too long"));
    }

    #[test]
    fn an_access_token_that_is_sent_is_never_sent_beyond_its_end() {
        let ticket = ticket();
        assert_eq!(ticket.stands(1299, TIMES, true), Standing::Touch(1300));
        assert!(matches!(ticket.stands(1300, TIMES, true), Standing::Over(_)));
        assert_eq!(ticket.stands(1300, TIMES, false), Standing::Touch(1600));
    }

    #[test]
    fn it_reads_back_as_it_was_written_and_never_prints() {
        let ticket = Ticket { refresh: Some("hunter2".into()), access: Some("hunter3".into()), ..ticket() };
        let written = serde_json::to_vec(&ticket).unwrap();
        assert_eq!(serde_json::from_slice::<Ticket>(&written).unwrap(), ticket);
        let shown = format!("{ticket:?}");
        assert!(!shown.contains("hunter") && !shown.contains("a.b.c"));
        assert!(serde_json::from_slice::<Ticket>(b"{}").is_err());
    }

    proptest! {
        /// Whatever its moments are, it never goes on beyond its end, and what is said to be next lies ahead.
        #[test]
        fn it_never_outlives_its_end(
            begun in 0..5000_u64, seen in 0..5000_u64, ends in 0..5000_u64, now in 0..10_000_u64,
            refresh: bool, sends: bool, idle in 1..2000_u64,
        ) {
            let times = Times { lifetime: 3600, idle };
            let refresh = refresh.then(|| "r".to_owned());
            let ticket = Ticket { begun, seen, ends, given: begun, refresh, ..ticket() };
            let end = ticket.end(times);
            match ticket.stands(now, times, sends) {
                Standing::Over(_) => prop_assert!(now >= end || (sends && now >= ends)),
                Standing::Good(next) | Standing::Touch(next) => prop_assert!(now < next && next <= end),
                Standing::Renew(until) => prop_assert!(now < end && until <= end && ticket.refresh.is_some()),
            }
        }
    }
}
