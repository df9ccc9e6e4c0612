//! Which sessions were ended before their time: by a logout here, or by the issuer (OpenID Connect Back-Channel Logout 1.0).
//!
//! What a browser keeps cannot be taken away from it, nor from whoever has a copy, so it is noted here that it counts no more. The list is
//! bounded: an entry goes when all sessions that it could concern are over. If more are ended than it holds, the oldest entries go
//! earlier, and with them ends every session that is as old as they are: nothing that was ended counts again.

use std::collections::{HashMap, VecDeque};

/// How many entries there are at most: some 15 MiB.
const MOST: usize = 100_000;
/// For how long an entry counts, in seconds: no session lasts longer.
pub(super) const LONGEST: u64 = 30 * 86_400;
/// How much of what can be used once is remembered.
const MOST_USED: usize = 100_000;

/// What was ended. Times are seconds since 1970.
#[derive(Debug, Default)]
pub(super) struct Revoked {
    /// All sessions of this name that began at this moment or before.
    ended: HashMap<Box<str>, u64>,
    /// In the order in which they were noted; a name may stand several times.
    order: VecDeque<(Box<str>, u64)>,
    /// All sessions that began at this moment or before are over.
    horizon: u64,
    /// Logout tokens and states of logins that were used, until they are over.
    used: HashMap<Box<str>, u64>,
}

/// What ends a session: the session itself, one of the issuer's, or all of a user.
#[derive(Debug, Clone, Copy)]
pub(super) enum Name<'n> {
    /// The session of this name.
    Session(&'n str),
    /// Those that are part of the issuer's session of this name (`sid`).
    Sid(&'n str),
    /// Those of this user (`sub`).
    Subject(&'n str),
}

impl Name<'_> {
    /// It, told from names of other kinds.
    pub(super) fn key(self) -> Box<str> {
        match self {
            Self::Session(name) => format!("i{name}"),
            Self::Sid(name) => format!("s{name}"),
            Self::Subject(name) => format!("u{name}"),
        }
        .into()
    }
}

impl Revoked {
    /// Ends all sessions of this name that began until `now`.
    pub(super) fn end(&mut self, name: Name<'_>, now: u64) {
        self.forget(now);
        let key = name.key();
        self.ended.insert(key.clone(), now);
        self.order.push_back((key, now));
    }

    /// Whether a session of these names that began then was ended.
    pub(super) fn is_ended(&self, names: &[Name<'_>], begun: u64) -> bool {
        begun <= self.horizon && self.horizon > 0
            || names.iter().any(|name| self.ended.get(&name.key()).is_some_and(|ended| begun <= *ended))
    }

    /// Notes that a logout token or a state was used, which is good until then. Says false if it was used before, or if there are
    /// too many to tell.
    pub(super) fn first(&mut self, once: &str, until: u64, now: u64) -> bool {
        if self.used.len() >= MOST_USED {
            self.used.retain(|_, until| *until >= now);
        }
        if self.used.len() >= MOST_USED || self.used.get(once).is_some_and(|until| *until >= now) {
            return false;
        }
        self.used.insert(once.into(), until);
        true
    }

    fn forget(&mut self, now: u64) {
        while let Some((_, noted)) = self.order.front() {
            let full = self.order.len() >= MOST;
            if !full && noted.saturating_add(LONGEST) > now {
                break;
            }
            let Some((key, noted)) = self.order.pop_front() else { break };
            if full {
                self.horizon = self.horizon.max(noted);
            }
            // The same name may have been noted again since.
            if self.ended.get(&key) == Some(&noted) {
                self.ended.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_ended_by_each_of_its_names_and_one_that_begins_later_is_not() {
        for name in [Name::Session("a"), Name::Sid("b"), Name::Subject("c")] {
            let mut revoked = Revoked::default();
            let mine = [Name::Session("a"), Name::Sid("b"), Name::Subject("c")];
            assert!(!revoked.is_ended(&mine, 100));
            revoked.end(name, 200);
            assert!(revoked.is_ended(&mine, 100) && revoked.is_ended(&mine, 200) && !revoked.is_ended(&mine, 201));
            // The same word as another kind of name is another name.
            let others = [Name::Session("b"), Name::Sid("c"), Name::Subject("a")];
            assert!(!revoked.is_ended(&others, 100));
        }
    }

    #[test]
    fn what_could_concern_no_session_any_more_is_forgotten() {
        let mut revoked = Revoked::default();
        revoked.end(Name::Session("a"), 100);
        revoked.end(Name::Session("a"), 200);
        revoked.end(Name::Session("b"), 100 + LONGEST);
        assert!(revoked.is_ended(&[Name::Session("a")], 150), "it was noted again");
        revoked.end(Name::Session("b"), 200 + LONGEST);
        assert_eq!((revoked.ended.len(), revoked.order.len()), (1, 2));
    }

    #[test]
    fn what_was_ended_never_counts_again_however_much_is_ended() {
        let mut revoked = Revoked::default();
        for number in 0..3 * MOST as u64 {
            revoked.end(Name::Session(&number.to_string()), 1000 + number / 1000);
        }
        assert!(revoked.order.len() <= MOST && revoked.ended.len() <= MOST);
        for number in 0..3 * MOST as u64 {
            assert!(revoked.is_ended(&[Name::Session(&number.to_string())], 1000 + number / 1000));
        }
        assert!(!revoked.is_ended(&[Name::Session("other")], 2_000_000));
    }

    #[test]
    fn what_can_be_used_once_is() {
        let mut revoked = Revoked::default();
        assert!(revoked.first("a", 100, 50) && !revoked.first("a", 100, 50) && revoked.first("b", 100, 50));
        assert!(!revoked.first("a", 100, 100) && revoked.first("a", 200, 101));
        for number in 0..MOST_USED {
            revoked.first(&number.to_string(), 1000, 500);
        }
        assert!(!revoked.first("new", 1000, 500), "nobody knows whether it was used");
        assert!(revoked.first("new", 2000, 1001) && revoked.used.len() < 10);
    }
}
