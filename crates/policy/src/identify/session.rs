//! Lets people log in with their browser at an identity provider (OpenID Connect), and knows them by a cookie from then on.
//!
//! ```yaml
//! session:
//!   issuer: https://id.example.com
//!   client_id: shop
//!   client_secret: env:SHOP_SECRET
//!   keys: env:SESSION_KEY               # 32 bytes or more: `openssl rand -base64 48`
//! ```
//! ```yaml
//! session:
//!   issuer: https://id.example.com
//!   client_id: shop                     # a public client: no secret
//!   keys: [env:SESSION_KEY, env:SESSION_KEY_BEFORE]
//!   scopes: [profile, email, offline_access]
//!   groups_claim: groups
//!   headers: { x-user: subject, x-email: claims.email }
//!   tokens: { authorization: access_token }
//!   after_logout: /goodbye
//! ```
//! ```yaml
//! session:
//!   issuer: https://id.example.com
//!   client_id: shop
//!   keys: env:SESSION_KEY
//!   store: redis                        # sessions stand in `stores: { redis: … }`, and not in cookies
//! ```
//!
//! **Who is sent to log in.** A browser that goes to a page without a session is redirected to the issuer, and comes back to that page.
//! Whatever else asks (`fetch`, XHR, forms, WebSockets, programs) is answered with 401, and `/.session/login?return_to=/path` is where a page
//! can send its user. Where `anonymous: allow` is written, nobody is sent. A caller whom `api_key`, `basic`, `signature` or `jwt` has
//! proved has no need of a session.
//!
//! **The places.** Register `https://your-host/.session/callback` with the issuer as the address to come back to, and
//! `…/.session/backchannel` as that for back-channel logouts; `…/.session/logout` logs out here and at the issuer. They are found on the hosts
//! of the routes that hold the policy, and `path` moves them.
//!
//! **Logins** go by authorization code with PKCE, `state` and `nonce`, each sealed in a cookie of its own, for ten minutes and for five tabs
//! at once. What comes back must belong to this browser; it is used once. `iss` of the answer (RFC 9207), and issuer, audience,
//! `azp`, `nonce`, `at_hash`, times and signature of the ID token are checked. A browser returns to a path of the same origin or to `/`.
//!
//! **Sessions** stand sealed (AES-256-GCM) in cookies: `__Host-` under HTTPS, `HttpOnly`, `SameSite=Lax`, in several parts where they are long.
//! The first of `keys` seals, all of them open: put a new one before the old, and take the old one out after `lifetime`. All instances with the
//! same keys share all sessions. A session ends after `lifetime`, or when it was not used for `idle`.
//!
//! With `store: redis` they stand in the Redis of `stores`, sealed just so, and a browser has an id of 256 bits alone, which is sealed, too.
//! Redis takes away what was not used for `idle`. A worker asks it once a second for each session at the most. Where it does not answer, nobody
//! knows who has a session: requests that show one get 503, as do browsers that would have to log in. Nobody waits longer than `stores.redis.timeout`.
//!
//! **Renewal.** Where the issuer gives a refresh token (often by the scope `offline_access`), tokens are renewed ahead of their end, once for
//! all requests that come together; with `store: redis`, for those at all gateways. If the issuer says no, the session ends; if it does not answer, the session goes on until the
//! end of its tokens, and its requests are answered with 503 after that.
//!
//! **Logouts** end a session at once, also for copies of its cookie: by `/.session/logout`, or by the issuer (Back-Channel Logout). With `store: redis`
//! it is taken away for all gateways. Where sessions stand in cookies, logouts are noted: with `logouts: redis` in the Redis of `stores`, for all
//! gateways, who ask it as above; else in the memory of this process, a hundred thousand at most; if more come, older sessions end early. Other
//! instances do not know of those, and neither does this one after a restart: there, a session ends by its times or by the next renewal.
//!
//! **Services** see neither the cookies nor any token, unless `tokens` names one. What `headers` and `tokens` name is told to them, and what a
//! client sends under these names, in whatever spelling, is taken away first.

use std::borrow::Cow;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use http::header::{CACHE_CONTROL, COOKIE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue};
use pylon_core::body::Body;
use pylon_core::caller::Caller;
use pylon_core::exchange::Exchange;
use pylon_core::fields::Alike;
use pylon_core::fields::trailers::WithoutTrailers;
use pylon_core::rejection::CALLER_MISSING;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::{Request, Response};

use crate::consumers::Consumers;
use crate::identity::Telling;
use crate::policy::{Compiling, Policy, Step, Stop};
use crate::proofs::Proofs;

use self::browser::navigates;
use self::cookies::Kept;
use self::doors::{Arrival, Doors};
use self::finding::Found;
use self::return_to::safe;
use self::spec::{SessionSpec, TokenSpec};

mod browser;
mod compiled;
mod cookies;
mod doors;
mod finding;
mod flights;
mod form;
pub mod fuzzing;
mod login;
mod logout;
mod pages;
mod party;
mod pkce;
mod proof;
mod renewal;
mod return_to;
mod revoked;
mod ring;
mod sharing;
mod shelf;
pub mod spec;
mod ticket;

/// The policy at work.
#[derive(Debug)]
pub struct Session {
    doors: Arc<Doors>,
    telling: Telling,
    tokens: Tokens,
    consumers: Arc<Consumers>,
    proofs: Proofs,
}

/// Which tokens services are sent.
#[derive(Debug)]
struct Tokens {
    /// What clients might send in their place.
    forged: Arc<Alike>,
    /// The header, the token, and whether it stands behind `Bearer`.
    sent: Box<[(HeaderName, TokenSpec, bool)]>,
}

/// What is left to do with the answer.
#[derive(Debug)]
pub enum After {
    /// A session is written anew, or taken away.
    Write(Vec<HeaderValue>),
    /// A browser came to a page without a session: if a caller is demanded, it is sent to log in.
    Ask(Visit),
}

/// A browser that came to a page without a session.
#[derive(Debug)]
pub struct Visit {
    to: String,
    arrival: Arrival,
    /// What takes an old session away.
    cookies: Vec<HeaderValue>,
}

impl Policy for Session {
    // It is larger than those of others.
    type Spec = Box<SessionSpec>;
    type Memo = Option<Box<After>>;

    fn compile(spec: &Self::Spec, cx: &Compiling<'_>) -> Result<Self, Vec<SpecError>> {
        let mut errors = Vec::new();
        let telling = Telling::compile(&spec.headers).map_err(|found| {
            errors.extend(found.into_iter().map(|error| error.below(&FieldPath::root().key("headers"))));
        });
        let tokens = compiled::tokens(spec).map_err(|found| errors.extend(found));
        let doors = compiled::doors(spec, cx).map_err(|found| errors.extend(found));
        let (Ok(telling), Ok(tokens), Ok(doors), true) = (telling, tokens, doors, errors.is_empty()) else {
            return Err(errors);
        };
        for route in doors.routes() {
            cx.own_route(route);
        }
        Ok(Self { doors, telling, tokens, consumers: Arc::clone(&cx.around.consumers), proofs: Proofs::default() })
    }

    fn on_request<'a>(&'a self, req: &'a mut Request, cx: &'a mut Exchange) -> Step<'a, Self::Memo> {
        self.clean(req, cx);
        let party = &*self.doors.party;
        let jar = party.names.of(cx.scheme);
        let generation = party.memory.generation();
        // A certificate says which machine is asking; who sits before it says the session.
        let known = cx.caller.as_ref().is_some_and(|caller| caller.by != "client_cert");
        let (crumb, envelope) = match jar.session(req.headers()) {
            Kept::Nothing => return Step::Done(Ok(self.nobody(None, known, req, cx))),
            Kept::Broken => {
                return Step::Done(Ok(self.nobody(Some("its cookies are not whole".into()), known, req, cx)));
            }
            Kept::Whole(crumb, envelope) => {
                if let Some(caller) = self.proofs.find(crumb, generation, cx.started).filter(|_| !known) {
                    party.names.strip(req);
                    accept(caller, req, cx);
                    return Step::Done(Ok(None));
                }
                (crumb.to_vec(), envelope.to_vec())
            }
            Kept::Parts(envelope) => {
                // It is too long to be remembered as it is.
                let crumb = digest(&SHA256, &envelope).as_ref().to_vec();
                if let Some(caller) = self.proofs.find(&crumb, generation, cx.started).filter(|_| !known) {
                    party.names.strip(req);
                    accept(caller, req, cx);
                    return Step::Done(Ok(None));
                }
                (crumb, envelope)
            }
        };
        if known {
            party.names.strip(req);
            return Step::Done(Ok(None));
        }
        if party.shelf.is_some() {
            return Step::Wait(Box::pin(async move { self.ask(&crumb, &envelope, generation, req, cx).await }));
        }
        match self.find(&crumb, &envelope, generation, cx) {
            Found::Renew(ticket, until) => {
                Step::Wait(Box::pin(async move { self.renew(ticket, until, &crumb, req, cx).await }))
            }
            found => Step::Done(Ok(self.take(found, req, cx))),
        }
    }

    fn on_response<'a>(&'a self, memo: Self::Memo, res: &'a mut Response, cx: &'a mut Exchange) -> Step<'a, ()> {
        match memo.map(|after| *after) {
            None => {}
            Some(After::Write(cookies)) => write(res, cookies),
            Some(After::Ask(visit)) if cx.trail.reason == Some(&CALLER_MISSING) => {
                return Step::Wait(Box::pin(async move {
                    let begun = self.doors.party.begin(&visit.to, &visit.arrival, visit.cookies).await;
                    Err(begun.map_or_else(Stop::Reject, Stop::Reply))
                }));
            }
            Some(After::Ask(visit)) => write(res, visit.cookies),
        }
        Step::Done(Ok(()))
    }
}

impl Session {
    /// Takes away what a client says of itself, but not what other policies say of it.
    fn clean(&self, req: &mut Request, cx: &Exchange) {
        self.telling.clean(req);
        if !self.tokens.sent.is_empty() {
            self.tokens.forged.remove_from(req.headers_mut());
            if matches!(req.body(), Body::Stream(_)) {
                let body = std::mem::take(req.body_mut());
                *req.body_mut() = Body::stream(WithoutTrailers::new(body, Arc::clone(&self.tokens.forged)));
            }
        }
        for (name, value) in cx.caller.iter().flat_map(|caller| &caller.told) {
            req.headers_mut().insert(name.clone(), value.clone());
        }
    }

    /// Takes in what a session has come to.
    fn take(&self, found: Found, req: &mut Request, cx: &mut Exchange) -> Option<Box<After>> {
        let party = &*self.doors.party;
        match found {
            Found::Good(caller) => {
                party.names.strip(req);
                accept(caller, req, cx);
                None
            }
            Found::Fresh(caller, ticket) => {
                let cookies = party.written(&ticket, party.names.of(cx.scheme), req.headers());
                party.names.strip(req);
                accept(caller, req, cx);
                cookies.map(|cookies| Box::new(After::Write(cookies)))
            }
            Found::Over(why) => self.nobody(Some(why), false, req, cx),
            // It is renewed before it is taken in.
            Found::Renew(..) => None,
        }
    }

    /// There is no session, or none any more, which is why.
    fn nobody(
        &self,
        why: Option<Cow<'static, str>>,
        known: bool,
        req: &mut Request,
        cx: &Exchange,
    ) -> Option<Box<After>> {
        let party = &*self.doors.party;
        let cookies = match &why {
            Some(why) => {
                tracing::debug!(%why, request_id = ?cx.request_id, "a session is over");
                party.names.of(cx.scheme).forget(req.headers())
            }
            None => Vec::new(),
        };
        let after = if !known && navigates(cx, req.headers()) {
            let mut headers = HeaderMap::new();
            for name in [HOST, COOKIE] {
                for line in req.headers().get_all(&name) {
                    headers.append(name.clone(), line.clone());
                }
            }
            let to = safe(cx.path.as_str()).unwrap_or("/").to_owned();
            Some(After::Ask(Visit { to, arrival: party.arrival(headers, cx), cookies }))
        } else {
            (!cookies.is_empty()).then_some(After::Write(cookies))
        };
        party.names.strip(req);
        after.map(Box::new)
    }
}

fn accept(caller: Arc<Caller>, req: &mut Request, cx: &mut Exchange) {
    for (name, value) in &caller.told {
        req.headers_mut().insert(name.clone(), value.clone());
    }
    cx.caller = Some(caller);
}

/// Adds cookies to an answer, which no shared cache may keep then (RFC 9111 §7.3).
fn write(res: &mut Response, cookies: Vec<HeaderValue>) {
    if !cookies.is_empty() {
        res.headers_mut().append(CACHE_CONTROL, HeaderValue::from_static("private"));
        pages::set(res, cookies);
    }
}

#[cfg(test)]
mod tests;
