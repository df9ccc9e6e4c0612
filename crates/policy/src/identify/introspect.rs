//! Knows callers by tokens that say nothing themselves: the authorization server is asked what they are (RFC 7662).
//!
//! ```yaml
//! introspect: { issuer: https://id.example.com, client_id: gate, client_secret: env:GATE_SECRET }
//! ```
//! ```yaml
//! introspect:
//!   url: https://id.example.com/oauth2/introspect
//!   client_id: gate
//!   client_secret: file:/run/secrets/gate
//!   audience: api
//!   ttl: 10s
//!   headers: { x-user: subject }
//! ```
//!
//! **Who is asked.** The server at `url`, or the one that the `issuer` tells as its `introspection_endpoint` (OpenID Connect Discovery). It is asked under
//! TLS, or on this machine, as the client that `client_id` and `client_secret` name.
//!
//! **What it says.** `active: true` makes a caller of the other members: `sub` is the subject, or where there is none `username` or `client_id`; `scope`
//! becomes the scopes, `groups_claim` the groups; all of them are claims, for `require`, `headers` and `tokens` of consumers. `exp` counts, and so does
//! `aud` with `audience`, and `iss` with `issuer`. Anything else is answered with 401.
//!
//! **How often.** What was said of a token is remembered for `ttl`, and no longer than until its `exp`; that it is not active, for `inactive_ttl`. So
//! one that is revoked passes for at most `ttl`. Requests that show the same token at once wait for one question. Tokens are remembered by
//! a hash alone, 8192 of them, and never stand in the log.
//!
//! **When nobody answers** within `timeout`, or not in a way that can be understood, requests are answered with 503 (`introspect.unavailable`) unless
//! the token is remembered, and for a second nobody is asked. Nothing turns that into a yes.
//!
//! Beside `jwt`, a token that one of its issuers has signed is known by that, and nobody is asked.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::header::RETRY_AFTER;
use pylon_core::Request;
use pylon_core::caller::Caller;
use pylon_core::exchange::Exchange;
use pylon_core::rejection::INTROSPECT_UNAVAILABLE;
use pylon_core::short::OneOrMany;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_net::timer::timeout_at;
use pylon_observe::clock::unix_now;

use self::asking::{Answer, Asking, Found};
use self::spec::IntrospectSpec;
use crate::consumers::Consumers;
use crate::identify::jwt::claims::Rules;
use crate::identify::jwt::compiled::within;
use crate::identity::{Identity, Look, Proof, Shown};
use crate::policy::{Compiling, Policy, Service, Step, Stop};
use crate::proofs::Proofs;

mod asking;
pub mod spec;

/// How much longer than for its answer a request waits for whoever asks.
const GRACE: Duration = Duration::from_millis(250);

/// The policy at work.
#[derive(Debug)]
pub struct Introspect {
    identity: Identity,
    asking: Arc<Asking>,
    consumers: Arc<Consumers>,
    /// The name by which consumers name its tokens.
    issuer: Box<str>,
    timeout: Duration,
}

impl Policy for Introspect {
    type Spec = IntrospectSpec;
    type Memo = ();

    fn compile(spec: &Self::Spec, cx: &Compiling<'_>) -> Result<Self, Vec<SpecError>> {
        let mut errors = Vec::new();
        let at = |key: &str| FieldPath::root().key(key);
        within(spec.timeout, 0, 30, &at("timeout"), "of at most `30s`", &mut errors);
        within(spec.ttl, 1, 300, &at("ttl"), "from `1s` to `5m`", &mut errors);
        within(spec.inactive_ttl, 0, 60, &at("inactive_ttl"), "of at most `1m`", &mut errors);
        let identity = spec.common().identity(Proofs::by_hash(), &mut errors);
        let rules = rules(spec, &mut errors);
        let asking = Asking::new(spec, rules, cx).map_err(|found| errors.extend(found));
        let (Some(identity), Ok(asking), true) = (identity, asking, errors.is_empty()) else { return Err(errors) };
        cx.around.services.add(Arc::clone(&asking) as Arc<dyn Service>);
        let consumers = Arc::clone(&cx.around.consumers);
        let issuer = spec.issuer.as_deref().or(spec.url.as_deref()).unwrap_or_default().into();
        Ok(Self { identity, asking, consumers, issuer, timeout: spec.timeout.duration() })
    }

    fn on_request<'a>(&'a self, req: &'a mut Request, cx: &'a mut Exchange) -> Step<'a, ()> {
        self.identity.telling.clean(req);
        // A token that was proved by its signature need not be asked about.
        if cx.caller.as_ref().is_some_and(|caller| caller.by == "jwt") {
            return Step::Done(Ok(()));
        }
        let shown = match self.identity.search(req, cx, 0) {
            Look::Settled(outcome) => return Step::Done(outcome),
            Look::Shown(shown) => shown,
        };
        if !is_token(&shown.credential) {
            let proof = Proof::Invalid("this is no token (RFC 6750 §2.1)".into());
            return Step::Done(self.identity.settle(&shown, proof, req, cx));
        }
        match self.asking.look(&shown.credential, cx.started) {
            Found::Known(answer) => Step::Done(self.settle(&shown, &answer, req, cx)),
            Found::Resting(why) => Step::Done(Err(unavailable(why))),
            Found::Asked(mut news) => Step::Wait(Box::pin(async move {
                let until = cx.started + self.timeout + GRACE;
                let heard = timeout_at(Some(until), news.wait_for(Option::is_some)).await;
                let answer = heard.ok().and_then(Result::ok).and_then(|answer| answer.clone());
                match answer {
                    Some(answer) => self.settle(&shown, &answer, req, cx),
                    None => Err(unavailable("nobody answered in time".to_owned())),
                }
            })),
        }
    }

    fn challenge(&self) -> Option<HeaderValue> {
        Some(HeaderValue::from_static("Bearer realm=\"pylon\""))
    }
}

impl Introspect {
    fn settle(&self, shown: &Shown, answer: &Answer, req: &mut Request, cx: &mut Exchange) -> Result<(), Stop> {
        let proof = match answer {
            Answer::Caller(caller, until) => {
                let mut caller: Caller = caller.clone();
                self.consumers.of_token(&self.issuer, &mut caller);
                let over = caller.until.is_some_and(|until| until <= unix_now().as_secs());
                if over { Proof::Invalid("its time is over (`exp`)".into()) } else { Proof::Caller(caller, *until) }
            }
            Answer::Invalid(why) => Proof::Invalid(why.clone()),
            Answer::Nothing(why) => return Err(unavailable(why.clone())),
        };
        self.identity.settle(shown, proof, req, cx)
    }
}

fn unavailable(why: String) -> Stop {
    INTROSPECT_UNAVAILABLE.privately(why).with_header(RETRY_AFTER, HeaderValue::from_static("1")).into()
}

fn rules(spec: &IntrospectSpec, errors: &mut Vec<SpecError>) -> Rules {
    let at = |key: &str| FieldPath::root().key(key);
    if spec.issuer.as_ref().is_some_and(String::is_empty) {
        errors.push(SpecError::new(at("issuer"), "this is empty"));
    }
    let OneOrMany(audience) = &spec.audience;
    if audience.iter().any(String::is_empty) {
        errors.push(SpecError::new(at("audience"), "an audience has a name"));
    }
    Rules {
        issuer: spec.issuer.as_deref().unwrap_or_default().into(),
        audiences: (!audience.is_empty()).then(|| audience.iter().map(|one| one.as_str().into()).collect()),
        ..spec.common().rules(errors)
    }
}

/// Whether it can be a bearer token (RFC 6750 §2.1), and one of a length that is asked about.
fn is_token(token: &[u8]) -> bool {
    let end = token.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last.saturating_add(1));
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte);
    (1..=4096).contains(&token.len()) && end > 0 && token.iter().take(end).all(fits)
}

#[cfg(test)]
mod tests;
