//! Tokens that were made lately, for each worker: a caller who asks again needs no new one.
//!
//! A caller is known by the one allocation that its credential was turned into; it is held here, so that no other can stand in its place.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use http::HeaderValue;
use pylon_core::caller::Caller;
use pylon_core::worker::PerWorker;

/// What a worker keeps at most; as many again may be on their way out.
const MOST: usize = 2048;

/// The tokens of one policy.
#[derive(Debug, Default)]
pub(super) struct KeptTokens(PerWorker<Known>);

/// Two halves: what is used of the old one moves to the new one, and what is not is dropped with it.
#[derive(Debug, Default)]
struct Known {
    new: HashMap<usize, Token>,
    old: HashMap<usize, Token>,
}

#[derive(Debug)]
struct Token {
    caller: Arc<Caller>,
    value: HeaderValue,
    until: Instant,
}

impl KeptTokens {
    /// The token of this caller, if it may still be given out.
    pub(super) fn find(&self, caller: &Arc<Caller>, now: Instant) -> Option<HeaderValue> {
        self.0.with(|known| known.find(caller, now))
    }

    /// Keeps the token of this caller until then.
    pub(super) fn keep(&self, caller: &Arc<Caller>, value: &HeaderValue, until: Instant) {
        let token = Token { caller: Arc::clone(caller), value: value.clone(), until };
        self.0.with(|known| known.insert(place(caller), token));
    }
}

impl Known {
    fn find(&mut self, caller: &Arc<Caller>, now: Instant) -> Option<HeaderValue> {
        let at = place(caller);
        if !self.new.contains_key(&at) {
            let token = self.old.remove(&at)?;
            self.insert(at, token);
        }
        let token = self.new.get(&at).filter(|token| Arc::ptr_eq(&token.caller, caller) && token.until > now)?;
        Some(token.value.clone())
    }

    fn insert(&mut self, at: usize, token: Token) {
        if self.new.len() >= MOST {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(at, token);
    }
}

fn place(caller: &Arc<Caller>) -> usize {
    Arc::as_ptr(caller).addr()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[expect(clippy::disallowed_methods, reason = "a moment to count from")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_token_is_given_to_its_caller_alone_and_until_its_time() {
        let (tokens, now) = (KeptTokens::default(), start());
        let (ann, other) = (Arc::new(Caller::default()), Arc::new(Caller::default()));
        tokens.keep(&ann, &HeaderValue::from_static("a"), now + Duration::from_secs(5));
        assert_eq!(tokens.find(&ann, now).unwrap(), "a");
        assert!(tokens.find(&other, now).is_none());
        assert!(tokens.find(&ann, now + Duration::from_secs(5)).is_none());
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_is_used_stays() {
        let (tokens, now) = (KeptTokens::default(), start());
        let (until, value) = (now + Duration::from_secs(5), HeaderValue::from_static("a"));
        let ann = Arc::new(Caller::default());
        tokens.keep(&ann, &value, until);
        for number in 0..3 * MOST {
            tokens.keep(&Arc::new(Caller::default()), &value, until);
            assert!(number % 100 > 0 || tokens.find(&ann, now).is_some());
        }
        tokens.0.with(|known| assert!(known.new.len() + known.old.len() <= 2 * MOST));
    }
}
