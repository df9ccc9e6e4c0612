//! One issuer: its keys, and what its tokens have to say.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use pylon_core::caller::Caller;

use super::claims::Rules;
use super::key::{Keys, Verdict};
use super::service::{Demand, KeySet};
use super::spec::AlgorithmSpec as Algorithm;
use super::token::Token;

/// An issuer of tokens.
#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) rules: Rules,
    pub(super) keys: Keeping,
    /// None where the keys say it.
    pub(super) algorithms: Box<[Algorithm]>,
}

/// How its keys are kept.
#[derive(Debug)]
pub(super) enum Keeping {
    /// As a secret, which never changes.
    Secret(Keys),
    /// By a service that fetches them.
    Fetched(Arc<KeySet>),
}

/// What a token of this issuer comes to.
#[derive(Debug)]
pub(super) enum Judged {
    Caller(Caller),
    Invalid(Cow<'static, str>),
    Unknown(Cow<'static, str>),
    /// Keys are on their way: wait for more answers than these.
    Wait(u64),
}

impl Issuer {
    /// Rises when keys change.
    pub(super) fn generation(&self) -> u64 {
        match &self.keys {
            Keeping::Secret(_) => 0,
            Keeping::Fetched(set) => set.generation(),
        }
    }

    /// See [`KeySet::answered`].
    pub(super) async fn answered(&self, seen: u64, deadline: Instant) -> bool {
        match &self.keys {
            Keeping::Secret(_) => false,
            Keeping::Fetched(set) => set.answered(seen, deadline).await,
        }
    }

    /// Checks type, signature and claims, in this order: what is not signed is not believed.
    pub(super) fn judge(&self, token: Token<'_>, now: u64) -> Judged {
        if !self.rules.takes(token.typ.as_deref()) {
            return Judged::Invalid("it is a token for something else (`typ`)".into());
        }
        let Some(algorithm) = Algorithm::of(&token.alg) else {
            return Judged::Invalid("its algorithm is not known (`alg`)".into());
        };
        let verdict = match &self.keys {
            Keeping::Secret(keys) => keys.judge(&token, algorithm, &self.algorithms),
            Keeping::Fetched(set) => match set.keys() {
                Some(keys) => keys.judge(&token, algorithm, &self.algorithms),
                None => Verdict::NoKey,
            },
        };
        match (verdict, &self.keys) {
            (Verdict::Good, _) => match self.rules.caller(token.claims, now) {
                Ok(caller) => Judged::Caller(caller),
                Err(why) => Judged::Invalid(why),
            },
            (Verdict::NoKey, Keeping::Fetched(set)) => match set.demand() {
                Demand::Wait(seen) => Judged::Wait(seen),
                Demand::Absent => Judged::Invalid("the issuer has no such key".into()),
                Demand::Unknown(why) => Judged::Unknown(why.into()),
            },
            (Verdict::Bad | Verdict::NoKey, _) => {
                Judged::Invalid("its signature is not by the key that it names".into())
            }
        }
    }
}
