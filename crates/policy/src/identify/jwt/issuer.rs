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
pub(crate) struct Issuer {
    pub(crate) rules: Rules,
    pub(crate) keys: Keeping,
    /// None where the keys say it.
    pub(crate) algorithms: Box<[Algorithm]>,
}

/// How its keys are kept.
#[derive(Debug)]
pub(crate) enum Keeping {
    /// As a secret, which never changes.
    Secret(Keys),
    /// By a service that fetches them.
    Fetched(Arc<KeySet>),
}

/// What a token of this issuer comes to.
#[derive(Debug)]
pub(crate) enum Judged {
    Caller(Caller),
    Invalid(Cow<'static, str>),
    Unknown(Cow<'static, str>),
    /// Keys are on their way: wait for more answers than these.
    Wait(u64),
}

/// What the signature of a token comes to.
#[derive(Debug)]
pub(crate) enum Signed {
    /// A key of the issuer made it.
    Good,
    /// None did.
    Bad(Cow<'static, str>),
    /// Nobody knows: the issuer does not tell its keys.
    Unknown(Cow<'static, str>),
    /// Keys are on their way: wait for more answers than these.
    Wait(u64),
}

impl Issuer {
    /// Rises when keys change.
    pub(crate) fn generation(&self) -> u64 {
        match &self.keys {
            Keeping::Secret(_) => 0,
            Keeping::Fetched(set) => set.generation(),
        }
    }

    /// See [`KeySet::answered`].
    pub(crate) async fn answered(&self, seen: u64, deadline: Instant) -> bool {
        match &self.keys {
            Keeping::Secret(_) => false,
            Keeping::Fetched(set) => set.answered(seen, deadline).await,
        }
    }

    /// Checks type, signature and claims, in this order: what is not signed is not believed.
    pub(crate) fn judge(&self, token: Token<'_>, now: u64) -> Judged {
        if !self.rules.takes(token.typ.as_deref()) {
            return Judged::Invalid("it is a token for something else (`typ`)".into());
        }
        match self.signed(&token) {
            Signed::Good => match self.rules.caller(token.claims, now) {
                Ok(caller) => Judged::Caller(caller),
                Err(why) => Judged::Invalid(why),
            },
            Signed::Bad(why) => Judged::Invalid(why),
            Signed::Unknown(why) => Judged::Unknown(why),
            Signed::Wait(seen) => Judged::Wait(seen),
        }
    }

    /// Checks the signature alone.
    pub(crate) fn signed(&self, token: &Token<'_>) -> Signed {
        let Some(algorithm) = Algorithm::of(&token.alg) else {
            return Signed::Bad("its algorithm is not known (`alg`)".into());
        };
        let verdict = match &self.keys {
            Keeping::Secret(keys) => keys.judge(token, algorithm, &self.algorithms),
            Keeping::Fetched(set) => match set.keys() {
                Some(keys) => keys.judge(token, algorithm, &self.algorithms),
                None => Verdict::NoKey,
            },
        };
        match (verdict, &self.keys) {
            (Verdict::Good, _) => Signed::Good,
            (Verdict::NoKey, Keeping::Fetched(set)) => match set.demand() {
                Demand::Wait(seen) => Signed::Wait(seen),
                Demand::Absent => Signed::Bad("the issuer has no such key".into()),
                Demand::Unknown(why) => Signed::Unknown(why.into()),
            },
            (Verdict::Bad | Verdict::NoKey, _) => Signed::Bad("its signature is not by the key that it names".into()),
        }
    }
}
