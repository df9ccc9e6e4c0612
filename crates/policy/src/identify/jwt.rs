//! Knows callers by signed tokens (JWT, RFC 7519), such as an identity provider issues.
//!
//! ```yaml
//! jwt: { issuer: https://id.example.com, audience: api }
//! ```
//! ```yaml
//! jwt:
//!   - issuer: https://id.example.com
//!     audience: [api, shop]
//!     groups_claim: realm_access.roles
//!     headers: { x-user: subject, x-email: claims.email }
//!   - issuer: partner
//!     audience: api
//!     jwks: file:partner.jwks          # or a URL; `secret: env:NAME` for a shared secret
//!     headers: { x-user: subject, x-email: claims.email }
//! ```
//!
//! **Who issues.** Of several issuers the token's `iss` decides which one is meant; keys of others are never tried. A token of an issuer that
//! no policy of the route names is answered with 401, as is anything else in its place that no policy takes. The same answer
//! goes to every token that is wrong; what is wrong with it stands in the log alone.
//!
//! **Keys.** Without `jwks` and `secret`, the issuer tells where its keys are (OpenID Connect Discovery). They are fetched when the
//! document comes into force and again before they grow old: by `Cache-Control`, between a minute and a day, else every ten
//! minutes. A token with a key that is not known has them fetched once for all who wait, at most once in `cool_down`. While
//! the issuer is down, the keys at hand serve for `keys_valid_for`. Until keys have come for the first time, requests with
//! tokens are answered with 503, and all other routes are served. An answer without any key that can be used counts as no answer.
//!
//! **Algorithms.** RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA (Ed25519), and with a `secret` HS256, HS384 and
//! HS512. The key decides which one is right, never the token: its kind and curve, its `alg`, and what `algorithms` allows.
//! RSA keys have 2048 to 8192 bits, secrets at least the length of their hash. Keys within a token (`jwk`, `jku`, `x5c`, `x5u`)
//! are never used; `crit` and unencoded payloads are refused.
//!
//! **Claims.** `iss`, `aud`, `exp` and the subject must be there; `nbf` and `iat` count where they are. `required` demands more.
//! `scope` or `scp` becomes the scopes, `groups_claim` the groups, for `require`; consumers may name tokens of theirs.
//!
//! **Services** do not see the token unless `forward: true` is written. What `headers` names is told to them, and what a client
//! sends under these names, in whatever spelling, is taken away first, with or without a token.
//!
//! A token that was good is remembered by each worker until its end, for five minutes at most, and until keys change. Checking
//! one that is new takes some 50 to 200 µs of the worker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use pylon_core::Request;
use pylon_core::exchange::Exchange;
use pylon_core::rejection::CALLER_UNKNOWN;
use pylon_core::short::Several;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_observe::clock::unix_now;

use crate::consumers::Consumers;
use crate::identity::{Identity, Look, Proof, Shown};
use crate::policy::{Compiling, Policy, Step, Stop};
use crate::proofs;

use self::compiled::group;
use self::issuer::{Issuer, Judged};
use self::spec::JwtSpec;

pub(crate) mod claims;
pub(crate) mod compiled;
pub(crate) mod issuer;
pub(crate) mod json;
pub(crate) mod key;
mod renewal;
pub(crate) mod service;
pub(crate) mod source;
pub mod spec;
pub mod token;

/// How long a request waits for keys.
const PATIENCE: Duration = Duration::from_secs(5);

/// The policy at work.
#[derive(Debug)]
pub struct Jwt {
    /// Issuers whose tokens stand in the same places and are told of in the same way.
    groups: Box<[Group]>,
}

/// Issuers that share one look.
#[derive(Debug)]
struct Group {
    identity: Identity,
    issuers: Box<[Issuer]>,
    consumers: Arc<Consumers>,
}

/// What is still to be found out about a credential.
#[derive(Debug)]
struct Pending {
    group: usize,
    shown: Shown,
    issuer: usize,
    seen: u64,
}

impl Policy for Jwt {
    type Spec = Several<JwtSpec>;
    type Memo = ();

    fn compile(spec: &Self::Spec, cx: &Compiling<'_>) -> Result<Self, Vec<SpecError>> {
        if spec.is_empty() {
            let error = SpecError::new(FieldPath::root(), "no issuer is written, so nobody could call");
            return Err(vec![error.help("write `jwt: { issuer: https://id.example.com, audience: api }`")]);
        }
        Ok(Self { groups: group(&spec.0, cx)? })
    }

    fn on_request<'a>(&'a self, req: &'a mut Request, cx: &'a mut Exchange) -> Step<'a, ()> {
        for group in &self.groups {
            group.identity.telling.clean(req);
        }
        match self.go_on(0, req, cx) {
            Ok(None) => Step::Done(Ok(())),
            Ok(Some(pending)) => Step::Wait(Box::pin(self.wait(pending, req, cx))),
            Err(stop) => Step::Done(Err(stop)),
        }
    }

    fn challenge(&self) -> Option<HeaderValue> {
        Some(HeaderValue::from_static("Bearer realm=\"pylon\""))
    }
}

impl Jwt {
    /// Looks in all groups from `first` on, until a caller is proved or something has to be waited for.
    fn go_on(&self, first: usize, req: &mut Request, cx: &mut Exchange) -> Result<Option<Pending>, Stop> {
        for (index, group) in self.groups.iter().enumerate().skip(first) {
            match group.identity.search(req, cx, group.generation()) {
                Look::Settled(outcome) => outcome?,
                Look::Shown(shown) => match group.prove(&shown.credential, cx.started) {
                    Ok(proof) => group.identity.settle(&shown, proof, req, cx)?,
                    Err((issuer, seen)) => return Ok(Some(Pending { group: index, shown, issuer, seen })),
                },
            }
            if cx.caller.as_ref().is_some_and(|caller| caller.by == "jwt") {
                break;
            }
        }
        Ok(None)
    }

    /// The same where keys are on their way.
    async fn wait(&self, pending: Pending, req: &mut Request, cx: &mut Exchange) -> Result<(), Stop> {
        let deadline = cx.started + PATIENCE;
        let mut next = Some(pending);
        while let Some(Pending { group: index, shown, issuer, seen }) = next {
            let Some(group) = self.groups.get(index) else { return Ok(()) };
            if !group.answered(issuer, seen, deadline).await {
                return Err(CALLER_UNKNOWN.privately("the keys of the issuer did not come in time").into());
            }
            let shown = shown.renewed(group.generation());
            next = match group.prove(&shown.credential, cx.started) {
                Ok(proof) => {
                    group.identity.settle(&shown, proof, req, cx)?;
                    if cx.caller.as_ref().is_some_and(|caller| caller.by == "jwt") {
                        return Ok(());
                    }
                    self.go_on(index + 1, req, cx)?
                }
                Err((issuer, seen)) => Some(Pending { group: index, shown, issuer, seen }),
            };
        }
        Ok(())
    }
}

impl Group {
    /// Rises when keys of any issuer change.
    fn generation(&self) -> u64 {
        self.issuers.iter().fold(0, |sum, issuer| sum.wrapping_add(issuer.generation()))
    }

    async fn answered(&self, issuer: usize, seen: u64, deadline: Instant) -> bool {
        match self.issuers.get(issuer) {
            Some(issuer) => issuer.answered(seen, deadline).await,
            None => false,
        }
    }

    /// What a token comes to. Where keys are on their way, whose, and how many answers there have been.
    fn prove(&self, credential: &[u8], now: Instant) -> Result<Proof, (usize, u64)> {
        let token = match token::read(credential) {
            Ok(token) => token,
            Err(token::Refused::Foreign) => return Ok(Proof::NotMine),
            Err(token::Refused::Wrong(why)) => return Ok(Proof::Invalid(why.into())),
        };
        let issuers = self.issuers.iter().enumerate();
        let Some((index, issuer)) = issuers.into_iter().find(|(_, issuer)| issuer.rules.are_its(&token.claims)) else {
            return Ok(Proof::NotMine);
        };
        match issuer.judge(token, unix_now().as_secs()) {
            Judged::Caller(mut caller) => {
                self.consumers.of_token(&issuer.rules.issuer, &mut caller);
                let end = caller.until.unwrap_or_default().saturating_add(issuer.rules.leeway);
                let left = Duration::from_secs(end.saturating_sub(unix_now().as_secs()));
                Ok(Proof::Caller(caller, now + left.min(proofs::LONGEST)))
            }
            Judged::Invalid(why) => Ok(Proof::Invalid(why)),
            Judged::Unknown(why) => Ok(Proof::Unknown(why)),
            Judged::Wait(seen) => Err((index, seen)),
        }
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod vectors;
