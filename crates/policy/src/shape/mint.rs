//! Tells services who is asking by a token that the gateway signs itself: short-lived, for one audience, checked by published keys.
//!
//! ```yaml
//! mint: { issuer: https://gate.example.com, audience: orders }
//! ```
//! ```yaml
//! mint:
//!   issuer: https://gate.example.com
//!   audience: [orders, invoices]
//!   ttl: 2m
//!   header: x-identity                    # the token alone; in `authorization` it stands behind `Bearer`
//!   claims: { email: claims.email, plan: plan }
//!   keys: [file:/etc/pylon/mint-2.pem, file:/etc/pylon/mint-1.pem]   # the first signs, all are published
//! ```
//!
//! Headers that name the caller are believed for where they come from. A signed token is believed wherever it arrives, and a service
//! that checks it needs not trust its network. It is a JWT (RFC 7519) with `iss`, `aud`, `exp`, `iat`, `jti` and `sub`, with `scope`
//! (RFC 8693 §4.2) and `groups` where the caller has any, and with what `claims` names. It ends with the caller's own
//! credential at the latest.
//!
//! A request without a proved caller, which passes with `anonymous: allow`, gets none. Whatever a client sends in the same header goes, in
//! every spelling, whoever asks. Where a token cannot be made, the request is answered with 503 and reaches no service.
//!
//! **Keys.** Without `keys` the gateway makes its own, for ES256 or, by `algorithm`, EdDSA. With a state folder (`pylon run --state`) they stand
//! there, in `mint/`, readable by the gateway's user alone, and a restart or an upgrade goes on with them; without one they live in memory, and
//! tokens of a process that has ended are not known any more. A file that cannot be read is put aside, with a warning, and new keys are made. Of
//! several gateways with one issuer each needs the same `keys`. A new one comes every `rotate`; it is published before it signs, and the
//! one before stays published until its last token has ended. With `keys` the first signs. To replace it, add the new one behind it,
//! put it first once everybody who checks has seen it (five minutes), and take the old one out then; a key that is taken out
//! stays published for the life of its tokens. RSA keys sign in 1 to 2 ms, off the workers; the others in some 30 µs.
//!
//! Public keys are published at `/.well-known/jwks.json` (RFC 7517), by `jwks` elsewhere, on every host, without asking who is there. What
//! stands under `defaults`, such as `ip_filter` or `cors`, holds there too.
//!
//! A token is kept by each worker for half of its life and given to all requests of its caller meanwhile; so a `jti` names a token and
//! not a request. `headers` comes after `mint` and can overwrite what it sets, and so can `outbound` of an upstream.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use pylon_core::Request;
use pylon_core::caller::Caller;
use pylon_core::exchange::Exchange;
use pylon_core::rejection::MINT_UNAVAILABLE;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::{fields, kept};
use pylon_observe::clock::unix_now;

use self::claims::Claims;
use self::issuer::Issuer;
use self::kept_tokens::KeptTokens;
use self::key::Key;
use self::ring::Ring;
use self::spec::MintSpec;
use crate::identity::Reserved;
use crate::own::{Hosts, OwnRoute};
use crate::policy::{Compiling, Policy, Service, Step, Stop};
use crate::pool::POOL;

mod claims;
mod disk;
mod issuer;
mod kept_tokens;
mod key;
mod ring;
mod rotation;
pub mod spec;

/// The longest token, in bytes: services have bounds for their headers.
const LONGEST: usize = 8 * 1024;
/// How long a slow signature may take.
const SIGNING: Duration = Duration::from_secs(5);

/// The mint at work.
#[derive(Debug)]
pub struct Mint {
    ring: Arc<Ring>,
    claims: Claims,
    ttl: Duration,
    header: HeaderName,
    /// What stands before the token: `Bearer `, or nothing.
    scheme: &'static str,
    reserved: Reserved,
    tokens: KeptTokens,
}

impl Policy for Mint {
    type Spec = MintSpec;
    type Memo = ();

    fn compile(spec: &MintSpec, cx: &Compiling<'_>) -> Result<Self, Vec<SpecError>> {
        let mut errors = spec.check();
        let header = fields::parse(&spec.header).map_err(|bad| {
            errors.push(SpecError::new(FieldPath::root().key("header"), bad.problem).help(bad.help));
        });
        let claims = Claims::compile(spec).map_err(|found| errors.extend(found));
        let keys = read_keys(spec, cx).map_err(|found| errors.extend(found));
        let (Ok(header), Ok(claims), Ok(keys)) = (header, claims, keys) else { return Err(errors) };
        if !errors.is_empty() {
            return Err(errors);
        }
        let issuer = cx.carry.keep(format!("mint {}", spec.issuer), Issuer::default);
        let ring = Ring::find(spec, keys, &issuer, cx).map_err(|problem| {
            vec![SpecError::new(FieldPath::root(), problem).help("write `keys`, which are made elsewhere")]
        })?;
        cx.around.services.add(Arc::clone(&ring) as Arc<dyn Service>);
        cx.own_route(OwnRoute {
            by: "mint",
            name: "jwks",
            path: spec.jwks.clone(),
            at: FieldPath::root().key("jwks"),
            methods: &["GET"],
            hosts: Hosts::All,
            handler: issuer,
        });
        let header = kept::name(&header);
        let scheme = if header == http::header::AUTHORIZATION { "Bearer " } else { "" };
        let (ttl, reserved) = (spec.ttl.duration(), Reserved::new([&header]));
        Ok(Self { ring, claims, ttl, header, scheme, reserved, tokens: KeptTokens::default() })
    }

    fn on_request<'a>(&'a self, req: &'a mut Request, cx: &'a mut Exchange) -> Step<'a, ()> {
        self.reserved.clean(req);
        let Some(caller) = &cx.caller else { return Step::Done(Ok(())) };
        if let Some(value) = self.tokens.find(caller, cx.started) {
            req.headers_mut().insert(self.header.clone(), value);
            return Step::Done(Ok(()));
        }
        let key = match self.ring.signing() {
            Ok(key) => key,
            Err(why) => return Step::Done(Err(MINT_UNAVAILABLE.privately(why).into())),
        };
        let until = self.until(caller);
        let text = self.claims.of(caller, unix_now().as_secs(), until);
        if !key.is_slow() {
            let token = key.token(&text);
            return Step::Done(self.give(token, until, req, cx));
        }
        Step::Wait(Box::pin(async move {
            let deadline = tokio::time::Instant::now().into_std() + SIGNING;
            let token = POOL.run(deadline, move || key.token(&text)).await;
            let token = token.map_err(|why| Stop::from(MINT_UNAVAILABLE.privately(why.to_string())))?;
            self.give(token, until, req, cx)
        }))
    }
}

impl Mint {
    /// When a token for this caller ends, in seconds since 1970.
    fn until(&self, caller: &Caller) -> u64 {
        let until = unix_now().as_secs().saturating_add(self.ttl.as_secs());
        caller.until.map_or(until, |end| until.min(end))
    }

    /// Gives the service the token, and keeps it for the next request of its caller.
    fn give(&self, token: Option<String>, until: u64, req: &mut Request, cx: &Exchange) -> Result<(), Stop> {
        let token = token.ok_or_else(|| MINT_UNAVAILABLE.privately("the key does not sign"))?;
        if token.len() > LONGEST {
            let why = format!("the token would have {} bytes, of {LONGEST} at most", token.len());
            return Err(MINT_UNAVAILABLE.privately(why).into());
        }
        let value = HeaderValue::try_from(format!("{}{token}", self.scheme));
        let mut value = value.map_err(|_| MINT_UNAVAILABLE.privately("the token is no value of a header"))?;
        value.set_sensitive(true);
        if let Some(caller) = &cx.caller {
            let left = Duration::from_secs(until.saturating_sub(unix_now().as_secs()));
            self.tokens.keep(caller, &value, cx.started + left / 2);
        }
        req.headers_mut().insert(self.header.clone(), value);
        Ok(())
    }
}

/// The keys that the document names, the first of which signs.
fn read_keys(spec: &MintSpec, cx: &Compiling<'_>) -> Result<Vec<Key>, Vec<SpecError>> {
    let (mut keys, mut errors) = (Vec::<Key>::new(), Vec::new());
    for (index, written) in spec.keys.iter().enumerate() {
        let at = || FieldPath::root().key("keys").index(index);
        match (cx.around.secrets)(written).map_err(|error| error.below(&at())) {
            Ok(secret) => match Key::read(secret.expose()) {
                Ok(key) if keys.iter().any(|other| other.kid() == key.kid()) => {
                    errors.push(SpecError::new(at(), "this key stands twice"));
                }
                Ok(key) => keys.push(key),
                Err(why) => {
                    let error = SpecError::new(at(), format!("this is no key to sign with: {why}"));
                    errors.push(error.help("make one by `openssl genpkey -algorithm ed25519`"));
                }
            },
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(keys) } else { Err(errors) }
}

#[cfg(test)]
mod tests;
