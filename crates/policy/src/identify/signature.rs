//! Knows consumers by requests that they sign (HTTP Message Signatures, RFC 9421), with the body by its digest (RFC 9530).
//!
//! ```yaml
//! signature: true
//! ```
//! ```yaml
//! signature:
//!   components: ["@method", "@authority", "@path", "@query", x-tenant]
//!   max_age: 1m
//!   tag: shop                       # only signatures that were made for this
//!   headers: { x-consumer: consumer }
//! ```
//!
//! **Keys** stand with the document's `consumers`: `signatures: { keyid: billing-2026, algorithm: ed25519, key: file:keys/billing.pem }`. The `keyid` of a
//! signature says which one is meant, and the key says by which algorithm: `ed25519`, `ecdsa-p256-sha256`, `ecdsa-p384-sha384`,
//! `rsa-pss-sha512` or, by a secret that both share, `hmac-sha256`. A signature that names another one in `alg` is refused.
//!
//! **What is signed.** Each signature covers what `components` names, by default `@method`, `@authority`, `@path` and `@query`, so that nothing of
//! it can be changed, nor a query added; `@target-uri` covers authority, path and query. A request with a body covers `content-digest`
//! besides, by `sha-256` or `sha-512`; the body is read whole before the request goes on, up to `body`, and compared. Path and query are
//! signed letter by letter as the client sends them, whatever the gateway's normal form is. Fields that end at the gateway
//! or are written by it (`Connection`, `TE`, `X-Forwarded-…`) cannot be covered; nor can parts by `sf`, `tr` and `req`.
//!
//! **When.** `created` must be there, not older than `max_age`; `expires` counts where it is there. Clocks may differ by `leeway`.
//!
//! **Once.** A signature is good once: its `nonce`, or where it has none all that it covers, is remembered by the process until its time is
//! over. A client that repeats a request signs it anew; one that sends two that are alike within a second gives each a `nonce`. Several
//! gateways do not know of each other's: what one has seen another still takes, within `max_age`. With `once: false` nothing is
//! remembered.
//!
//! **Several signatures.** Those by keys that are not known, and with `tag` those that have another one, do not count. Of the others there
//! is one: two are refused, since it could not be said who asks.
//!
//! Whatever is wrong, the client is answered with 401 and no more; the reason stands in the log. `Signature` and `Signature-Input` go no
//! further than the gateway unless `forward: true` is written. Checking one takes some 30 to 150 µs of the worker.
//!
//! In shadow the digest of a body that streams is not compared, since its end comes after the verdict.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use pylon_core::Request;
use pylon_core::body::Body;
use pylon_core::caller::Caller;
use pylon_core::exchange::Exchange;
use pylon_core::kept;
use pylon_core::rejection::{CALLER_UNKNOWN, Rejection};
use pylon_core::short::{FromScalar, OneOrMany, Short};
use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::units::{ByteSize, Span};
use pylon_observe::clock::unix_now;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::base::{CONTENT_DIGEST, Required};
use self::digest::Digests;
use self::input::{Input, SIGNATURE, SIGNATURE_INPUT, Signed};
use self::once::{Once, Seen};
use crate::bodies;
use crate::consumers::Consumers;
use crate::consumers::signatures::SigningKey;
use crate::identify::jwt::compiled::within;
use crate::identity::{Identity, Proof, Telling};
use crate::policy::{Compiling, Policy, Step, Stop};
use crate::proofs::{self, Proofs};
use crate::written;

mod base;
mod digest;
mod input;
mod once;

/// The largest body that may be allowed, in bytes.
const LARGEST_BODY: u64 = 64 << 20;

/// What signatures have to cover, and for how long they are good. Short: `true`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignatureSpec {
    /// What a signature must cover, besides `content-digest` where there is a body: names of headers in lower case, `@method`,
    /// `@authority`, `@scheme`, `@path`, `@query`, `@target-uri` and `@request-target`. Default: `@method`, `@authority`, `@path` and `@query`.
    #[serde(default = "request")]
    #[schemars(example = vec!["@method", "@authority", "@path", "@query", "x-tenant"])]
    pub components: OneOrMany<String>,
    /// How old a signature may be, by its `created`, from a second to an hour. Default: `5m`.
    #[serde(default = "five_minutes")]
    #[schemars(example = &"1m")]
    pub max_age: Span,
    /// How far clocks may differ, at most five minutes. Default: `30s`.
    #[serde(default = "thirty_seconds")]
    #[schemars(example = &"10s")]
    pub leeway: Span,
    /// The longest body of a signed request, as a size in bytes, at most 64 MiB: it is kept in memory until it is compared. Default: `1MiB`.
    #[serde(default = "one_mebibyte")]
    #[schemars(example = &"4MiB")]
    pub body: ByteSize,
    /// Whether a signature is good once. Default: `true`.
    #[serde(default = "yes")]
    #[schemars(example = false)]
    pub once: bool,
    /// What signatures are made for: only those with this `tag` count. Default: any.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"shop")]
    pub tag: Option<String>,
    /// What services are told of the caller: facts by header. Default: nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(example = BTreeMap::from([("x-consumer", "consumer")]))]
    pub headers: BTreeMap<String, String>,
    /// Whether services see the signature. Default: `false`.
    #[serde(default)]
    #[schemars(example = true)]
    pub forward: bool,
}

impl FromScalar for SignatureSpec {
    const EXPECTING: &'static str = "`true`";

    fn from_scalar(text: &str) -> Result<Self, String> {
        if text != "true" {
            return Err(format!("`{text}` is not {}; `off` takes the policy away", Self::EXPECTING));
        }
        let (components, max_age, leeway, body) = (request(), five_minutes(), thirty_seconds(), one_mebibyte());
        Ok(Self { components, max_age, leeway, body, once: true, tag: None, headers: BTreeMap::new(), forward: false })
    }
}

/// The policy at work.
#[derive(Debug)]
pub struct Signature {
    identity: Identity,
    consumers: Arc<Consumers>,
    required: Box<[Required]>,
    /// Both in seconds.
    max_age: u64,
    leeway: u64,
    /// The longest body, in bytes.
    body: usize,
    tag: Option<Box<str>>,
    once: Option<Arc<Once>>,
    forward: bool,
}

impl Policy for Signature {
    type Spec = Short<SignatureSpec>;
    type Memo = ();

    const PROVES_CONSUMERS: bool = true;

    fn compile(spec: &Self::Spec, cx: &Compiling<'_>) -> Result<Self, Vec<SpecError>> {
        let at = |key: &str| FieldPath::root().key(key);
        let mut errors = Vec::new();
        let required = base::required(&spec.components, &mut errors);
        within(spec.max_age, 1, 3600, &at("max_age"), "from `1s` to `1h`", &mut errors);
        within(spec.leeway, 0, 300, &at("leeway"), "at most `5m`", &mut errors);
        if spec.body.bytes() > LARGEST_BODY {
            let error =
                SpecError::new(at("body"), format!("`{}` is more than a request may keep in memory", spec.body));
            errors.push(error.help("write `64MiB` at the most"));
        }
        if spec.tag.as_ref().is_some_and(String::is_empty) {
            errors.push(SpecError::new(at("tag"), "this is empty"));
        }
        let telling = Telling::compile(&spec.headers);
        let telling =
            telling.map_err(|found| errors.extend(found.into_iter().map(|error| error.below(&at("headers")))));
        let consumers = Arc::clone(&cx.around.consumers);
        if consumers.has_no_signing_key() {
            let error = SpecError::new(FieldPath::root(), "no consumer has a key to sign by, so nobody could call");
            let help =
                "add `consumers: { app: { signatures: { keyid: app, algorithm: ed25519, key: file:app.pem } } }`";
            errors.push(error.help(help));
        }
        let names: Vec<&str> = spec.components.iter().map(String::as_str).collect();
        let challenge = kept::value(&format!("Signature components=\"{} content-digest\"", names.join(" ")));
        let (Ok(telling), Ok(challenge), true) = (telling, challenge, errors.is_empty()) else { return Err(errors) };
        let (max_age, leeway) = (spec.max_age.duration().as_secs(), spec.leeway.duration().as_secs());
        // Both headers go by hand: they are no place where one credential stands.
        let identity =
            Identity { places: Box::default(), telling, forward: true, challenge, proofs: Proofs::default() };
        Ok(Self {
            identity,
            consumers,
            required,
            max_age,
            leeway,
            body: spec.body.as_usize(),
            tag: spec.tag.as_deref().map(Into::into),
            // One for all routes and documents: a signature that one of them took is no longer good for another.
            once: spec.once.then(|| cx.carry.keep("signatures that were used", Once::default)),
            forward: spec.forward,
        })
    }

    fn on_request<'a>(&'a self, req: &'a mut Request, cx: &'a mut Exchange) -> Step<'a, ()> {
        self.identity.telling.clean(req);
        let accepted = match self.judge(req, cx) {
            Ok(None) => return Step::Done(Ok(())),
            Ok(Some(accepted)) => accepted,
            Err(no) => return Step::Done(Err(no.into())),
        };
        let Some(digests) = accepted.digests else {
            return Step::Done(self.accept(&accepted.keyid, req, cx));
        };
        if cx.in_shadow {
            return Step::Done(self.accept(&accepted.keyid, req, cx));
        }
        Step::Wait(Box::pin(async move {
            self.compare(digests, req).await?;
            self.accept(&accepted.keyid, req, cx)
        }))
    }

    fn challenge(&self) -> Option<HeaderValue> {
        Some(self.identity.challenge.clone())
    }
}

/// A signature that is good, and what is left to be compared.
#[derive(Debug)]
struct Accepted {
    keyid: Box<str>,
    digests: Option<Digests>,
}

impl Signature {
    /// Looks for the one signature that counts, and checks all of it but the body.
    fn judge(&self, req: &Request, cx: &mut Exchange) -> Result<Option<Accepted>, Rejection> {
        let all = match input::read(req.headers()) {
            Input::Nothing => return Ok(None),
            Input::Wrong(why) => return Err(self.identity.invalid(why)),
            Input::All(all) => all,
        };
        let is_ours = |signed: &&Signed| self.tag.is_none() || signed.tag.as_deref() == self.tag.as_deref();
        let ours: Vec<&Signed> = all.iter().filter(is_ours).collect();
        if ours.is_empty() {
            cx.unclaimed = true;
            return Ok(None);
        }
        let key_of = |signed: &Signed| self.consumers.signing_key(signed.keyid.as_deref()?);
        let mut known = ours.into_iter().filter_map(|signed| Some((signed, key_of(signed)?)));
        let Some((signed, key)) = known.next() else {
            return Err(self.identity.invalid("nobody has the key that the signature names"));
        };
        if known.next().is_some() {
            return Err(self.identity.invalid("there are several signatures by keys that are known"));
        }
        let until = self.check(signed, key, req).map_err(|why| self.identity.invalid(why))?;
        let covers_digest = base::covers(&signed.components, &CONTENT_DIGEST);
        let digests = if covers_digest || !req.body().is_empty() {
            Some(Digests::read(req.headers()).map_err(|why| self.identity.invalid(why))?)
        } else {
            None
        };
        let keyid: Box<str> = signed.keyid.as_deref().unwrap_or_default().into();
        let base = base::base(signed, req, cx).map_err(|why| self.identity.invalid(why))?;
        if !key.made(&base, &signed.signature) {
            return Err(self.identity.invalid(format!("it was not signed so by the key `{keyid}`")));
        }
        if let Some(once) = &self.once {
            let what = signed.nonce.as_deref().map_or(&*base, str::as_bytes);
            match once.see(&keyid, signed.nonce.is_some(), what, until, unix_now().as_secs()) {
                Seen::First => {}
                Seen::Before => return Err(self.identity.invalid("the signature was used before")),
                Seen::Full => {
                    return Err(CALLER_UNKNOWN.privately("too many signatures were used lately to remember more"));
                }
            }
        }
        Ok(Some(Accepted { keyid, digests }))
    }

    /// Checks what a signature says of itself: algorithm, time, and what it covers. Says when its time is over.
    fn check(&self, signed: &Signed, key: &SigningKey, req: &Request) -> Result<u64, Cow<'static, str>> {
        let now = unix_now().as_secs();
        if signed.alg.as_deref().is_some_and(|alg| alg != key.algorithm.name()) {
            return Err("the signature is by another algorithm than the key is for (`alg`)".into());
        }
        let created = signed.created.ok_or("the signature does not say when it was made (`created`)")?;
        if created > now.saturating_add(self.leeway) {
            return Err("the signature was made in the future (`created`)".into());
        }
        let mut until = created.saturating_add(self.max_age);
        if let Some(expires) = signed.expires {
            until = until.min(expires);
        }
        let until = until.saturating_add(self.leeway);
        if until <= now {
            return Err("the time of the signature is over (`created`, `expires`)".into());
        }
        let body = (!req.body().is_empty()).then_some(&CONTENT_DIGEST);
        if let Some(missing) = self.required.iter().chain(body).find(|it| !base::covers(&signed.components, it)) {
            return Err(format!("the signature does not cover `{missing}`").into());
        }
        Ok(until)
    }

    /// Reads the body and holds it to its digests. What goes on is what was compared, without trailers, which nobody has signed.
    async fn compare(&self, mut digests: Digests, req: &mut Request) -> Result<(), Stop> {
        let body = std::mem::take(req.body_mut());
        let whole = bodies::whole_with(body, self.body, |piece| digests.update(piece)).await;
        let (bytes, _) = whole.map_err(|error| error.rejection())?;
        if !digests.hold() {
            return Err(self.identity.invalid("the body is not the one of its digest (`content-digest`)").into());
        }
        *req.body_mut() = Body::from(bytes);
        Ok(())
    }

    fn accept(&self, keyid: &str, req: &mut Request, cx: &mut Exchange) -> Result<(), Stop> {
        if !self.forward {
            req.headers_mut().remove(&SIGNATURE);
            req.headers_mut().remove(&SIGNATURE_INPUT);
        }
        // The signature is good; who has the key need not be told again.
        let Some(shown) = self.identity.recognise(keyid.as_bytes(), req, cx) else { return Ok(()) };
        let Some(key) = self.consumers.signing_key(keyid) else { return Ok(()) };
        let mut caller = Caller::consumer("signature", &key.consumer);
        caller.claims.insert("keyid".into(), keyid.into());
        caller.claims.insert("alg".into(), key.algorithm.name().into());
        let until = cx.started + proofs::LONGEST;
        self.identity.settle(&shown, Proof::Caller(caller, until), req, cx)
    }
}

fn request() -> OneOrMany<String> {
    OneOrMany(["@method", "@authority", "@path", "@query"].map(String::from).into())
}

fn five_minutes() -> Span {
    Span::from_secs(300)
}

fn thirty_seconds() -> Span {
    Span::from_secs(30)
}

fn one_mebibyte() -> ByteSize {
    ByteSize::new(1 << 20)
}

fn yes() -> bool {
    true
}

/// The names of headers that are looked for.
fn header(name: &'static str) -> HeaderName {
    HeaderName::from_static(name)
}

#[cfg(test)]
mod tests;
