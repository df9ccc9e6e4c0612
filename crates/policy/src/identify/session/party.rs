//! The gateway as a relying party of one issuer: what it knows of the issuer, the tokens that it gets there, and the caller that they make.
//!
//! Lives as long as a document holds it. What it asks of the issuer it asks on the control runtime, never on a worker, and finishes
//! though the client that caused it has gone.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Release},
};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::{HeaderValue, StatusCode, header};
use parking_lot::Mutex;
use pylon_core::caller::Caller;
use pylon_core::connection::Scheme;
use pylon_core::secret::{Reveal, Secret, SecretSpec};
use pylon_observe::clock::unix_now;
use pylon_upstream::fetch::Ask;
use pylon_upstream::oauth::{self, Form, Granted, Refused};
use pylon_upstream::outbound::spec::ClientAuthSpec;
use serde_json::{Map, Value};
use tokio::runtime::Handle;

use super::cookies::Names;
use super::flights::Flights;
use super::login::{Desk, Login};
use super::pkce;
use super::proof::{self, Fits, Logout, text};
use super::revoked::{Name, Revoked};
use super::ring::Ring;
use super::sharing::names;
use super::shelf::Shelf;
use super::ticket::{self, Ticket, Times};
use crate::identify::jwt::issuer::{Issuer, Signed};
use crate::identify::jwt::json;
use crate::identify::jwt::service::{Demand, KeySet};
use crate::identify::jwt::source::Target;
use crate::identify::jwt::token::{self, Token};
use crate::policy::Service;

/// How long one question to the issuer may take.
const ASKING: Duration = Duration::from_secs(10);
/// The longest answer of an issuer, in bytes.
const LONGEST: usize = 64 * 1024;

/// The gateway as a client of one issuer.
#[derive(Debug)]
pub(super) struct Party {
    pub(super) issuer: Issuer,
    pub(super) set: Arc<KeySet>,
    pub(super) client: Client,
    /// What is asked for, with blanks between.
    pub(super) scopes: Box<str>,
    /// What else is said when a login begins.
    pub(super) params: Box<[(Box<str>, Box<str>)]>,
    pub(super) ring: Ring,
    pub(super) names: Names,
    /// Below which path it answers.
    pub(super) path: Box<str>,
    /// Where browsers reach it, where that is written.
    pub(super) origin: Option<Box<str>>,
    pub(super) after_logout: Option<Box<str>>,
    pub(super) times: Times,
    pub(super) userinfo: bool,
    /// Whether services are sent access tokens.
    pub(super) sends: bool,
    pub(super) memory: Arc<Memory>,
    /// What gateways share, where that is written.
    pub(super) shelf: Option<Shelf>,
    pub(super) targets: Mutex<HashMap<&'static str, (String, Target)>>,
    pub(super) control: OnceLock<Handle>,
}

/// What proves the gateway to the issuer.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) id: Box<str>,
    pub(super) secret: Option<SecretSpec>,
    pub(super) auth: ClientAuthSpec,
    pub(super) reveal: Reveal,
}

/// What is known of sessions beside their cookies, for all documents in force.
#[derive(Default)]
pub(super) struct Memory {
    revoked: Mutex<Revoked>,
    /// Whether what was ended is looked up here: somebody keeps sessions in cookies and shares no logouts.
    alone: AtomicBool,
    /// Rises whenever sessions are ended.
    generation: AtomicU64,
    pub(super) flights: Flights<Result<Ticket, Failed>>,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

/// Why nothing came of a question to the issuer. The reasons are for the log alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failed {
    /// It says no, or what it gave is not good.
    Refused(Cow<'static, str>),
    /// Nobody knows: it does not answer, or not as it should.
    Unknown(Cow<'static, str>),
}

impl Memory {
    /// Rises whenever sessions are ended.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Acquire)
    }

    /// Has it noted here from now on what was ended.
    pub(super) fn look_here(&self) {
        self.alone.store(true, Release);
    }

    /// Ends the sessions of this name that began until `moment`.
    pub(super) fn end(&self, name: Name<'_>, moment: u64) {
        if self.alone.load(Acquire) {
            self.revoked.lock().end(name, moment);
        }
        self.generation.fetch_add(1, Release);
    }

    /// Notes that what can be used once was used, and says whether it is the first time.
    pub(super) fn first(&self, once: &str, until: u64) -> bool {
        self.revoked.lock().first(once, until, unix_now().as_secs())
    }

    pub(super) fn is_ended(&self, names: &[Name<'_>], begun: u64) -> bool {
        self.revoked.lock().is_ended(names, begun)
    }
}

impl Party {
    /// What envelopes are bound to that are for this.
    pub(super) fn bound(&self, purpose: &str, cookie: &str) -> Vec<u8> {
        [purpose, &self.issuer.rules.issuer, &self.client.id, cookie].join("\0").into_bytes()
    }

    /// What seals logins for browsers that use this scheme.
    pub(super) fn with_desk<T>(&self, scheme: Scheme, work: impl FnOnce(&Desk<'_>) -> T) -> T {
        let jar = self.names.of(scheme);
        let bound = self.bound("login", jar.name());
        work(&Desk { ring: &self.ring, jar, bound: &bound })
    }

    /// The claims of a session, if it was not ended; else why it was.
    pub(super) fn claims(&self, ticket: &Ticket) -> Result<Map<String, Value>, &'static str> {
        let Ok(token) = token::read(ticket.id_token.as_bytes()) else { return Err("its ID token cannot be read") };
        if self.memory.is_ended(&names(&ticket.id, &token.claims), ticket.begun) {
            return Err("it was ended by a logout");
        }
        let mut claims = token.claims;
        for (name, value) in &ticket.told {
            claims.entry(name).or_insert_with(|| value.clone());
        }
        Ok(claims)
    }

    /// The caller of whom a session speaks.
    pub(super) fn caller(&self, ticket: &Ticket, claims: Map<String, Value>) -> Result<Caller, Cow<'static, str>> {
        let end = ticket.begun.saturating_add(self.times.lifetime);
        let mut caller = self.issuer.rules.named("session", claims, Some(end))?;
        caller.scopes = ticket.scopes.split(' ').filter(|scope| !scope.is_empty()).map(Into::into).collect();
        Ok(caller)
    }

    /// Has `work` done on the control runtime, to its end.
    pub(super) async fn off<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Failed>> + Send + 'static,
    ) -> Result<T, Failed> {
        let unknown = |why| Err(Failed::Unknown(Cow::Borrowed(why)));
        let Some(control) = self.control.get() else { return unknown("the gateway has not begun yet") };
        match control.spawn(work).await {
            Ok(outcome) => outcome,
            Err(_) => unknown("the gateway ends"),
        }
    }

    /// All that the issuer tells of itself. Waits for it where it is on its way.
    pub(super) async fn told(&self, deadline: Instant) -> Result<Arc<Map<String, Value>>, Failed> {
        loop {
            if let Some(told) = self.set.told() {
                return Ok(told);
            }
            match self.set.demand() {
                Demand::Wait(seen) if self.set.answered(seen, deadline).await => {}
                Demand::Wait(_) => return Err(Failed::Unknown("the issuer did not tell of itself in time".into())),
                Demand::Absent => return Err(Failed::Unknown("the issuer tells nothing of itself".into())),
                Demand::Unknown(why) => return Err(Failed::Unknown(why.into())),
            }
        }
    }

    /// The session that comes of a login with this code (OpenID Connect Core 1.0 §3.1.3).
    pub(super) async fn exchange(&self, login: &Login, code: &str) -> Result<Ticket, Failed> {
        let deadline = now() + ASKING;
        let begun = match &self.shelf {
            Some(shelf) => shelf.moment().await?,
            None => unix_now().as_secs(),
        };
        let form = Form::default()
            .with("grant_type", "authorization_code")
            .with("code", code)
            .with("redirect_uri", &login.uri)
            .with("code_verifier", &login.verifier);
        let granted = self.grant(form, deadline).await?;
        let raw = text(&granted.members, "id_token").ok_or(Failed::Refused("there is no ID token".into()))?;
        let fits = Fits::Login { nonce: &login.nonce };
        let claims = self.id_token(raw, &granted.access_token, &fits, deadline).await?;
        let told = self.told_of_user(&granted.access_token, &claims, deadline).await?;
        let id = pkce::fresh().ok_or(Failed::Unknown("the system gives no random numbers".into()))?;
        let given = unix_now().as_secs();
        Ok(Ticket {
            id,
            begun,
            seen: given,
            id_token: raw.to_owned(),
            told,
            scopes: text(&granted.members, "scope").unwrap_or(&self.scopes).to_owned(),
            access: self.sends.then(|| granted.access_token.clone()),
            refresh: text(&granted.members, "refresh_token").map(str::to_owned),
            given,
            ends: ticket::end(given, granted.expires_in.map(|span| span.as_secs())),
        })
    }

    /// The same session with new tokens (OpenID Connect Core 1.0 §12).
    pub(super) async fn renew(&self, before: &Ticket) -> Result<Ticket, Failed> {
        let deadline = now() + ASKING;
        let refresh = before.refresh.as_deref().ok_or(Failed::Refused("there is nothing to renew it by".into()))?;
        let form = Form::default().with("grant_type", "refresh_token").with("refresh_token", refresh);
        let granted = self.grant(form, deadline).await?;
        let old = token::read(before.id_token.as_bytes());
        let old = old.map_err(|_| Failed::Refused("its ID token cannot be read".into()))?.claims;
        let mut ticket = before.clone();
        let claims = match text(&granted.members, "id_token") {
            Some(raw) => {
                let claims = self.id_token(raw, &granted.access_token, &Fits::Session(&old), deadline).await?;
                // The issuer's own session goes on, though not each ID token names it.
                let names_it = claims.contains_key("sid") || !old.contains_key("sid");
                if names_it {
                    raw.clone_into(&mut ticket.id_token);
                }
                claims
            }
            None => old,
        };
        ticket.told = self.told_of_user(&granted.access_token, &claims, deadline).await?;
        if let Some(scopes) = text(&granted.members, "scope") {
            scopes.clone_into(&mut ticket.scopes);
        }
        if let Some(refresh) = text(&granted.members, "refresh_token") {
            ticket.refresh = Some(refresh.to_owned());
        }
        ticket.access = self.sends.then(|| granted.access_token.clone());
        ticket.given = unix_now().as_secs();
        ticket.ends = ticket::end(ticket.given, granted.expires_in.map(|span| span.as_secs()));
        Ok(ticket)
    }

    /// Ends what a logout token says (OpenID Connect Back-Channel Logout 1.0 §2.5).
    pub(super) async fn log_out(&self, raw: &str) -> Result<(), Failed> {
        let deadline = now() + ASKING;
        let token = token::read(raw.as_bytes()).map_err(|_| Failed::Refused("it is no token".into()))?;
        self.signature(&token, deadline).await?;
        let now = unix_now().as_secs();
        let logout = proof::logout_token(&token, &self.issuer.rules, now).map_err(Failed::Refused)?;
        let Logout { sid, subject, name, until } = &logout;
        let ended = match (sid, subject) {
            (Some(sid), _) => Name::Sid(sid),
            (None, Some(subject)) => Name::Subject(subject),
            (None, None) => return Ok(()),
        };
        self.end_named(ended, name, *until).await
    }

    /// Tokens, for what `form` says.
    async fn grant(&self, form: Form, deadline: Instant) -> Result<Granted, Failed> {
        let unknown = |why: String| Failed::Unknown(format!("the issuer gave no tokens: {why}").into());
        let client = &self.client;
        let secret = client.secret.as_ref().map(client.reveal).transpose().map_err(|error| unknown(error.problem))?;
        let secret = secret.as_ref().map(Secret::expose);
        let ask = form.ask(&oauth::Client { id: &client.id, secret, auth: client.auth }).map_err(unknown)?;
        let target = self.target("token_endpoint", deadline).await?;
        let answer = target.ask(ask, LONGEST, deadline).await.map_err(unknown)?;
        oauth::granted(&answer).map_err(|refused| match &refused {
            Refused::Status(_, Some(word)) if word == "invalid_grant" => {
                Failed::Refused("the issuer gives no tokens for this any more: `invalid_grant`".into())
            }
            _ => unknown(refused.to_string()),
        })
    }

    /// The claims of an ID token that is good.
    async fn id_token(
        &self,
        raw: &str,
        access: &str,
        fits: &Fits<'_>,
        deadline: Instant,
    ) -> Result<Map<String, Value>, Failed> {
        let token = token::read(raw.as_bytes());
        let token = token.map_err(|_| Failed::Refused("the ID token cannot be read".into()))?;
        self.signature(&token, deadline).await?;
        let (rules, client) = (&self.issuer.rules, &self.client.id);
        proof::id_token(&token, rules, client, access, fits, unix_now().as_secs()).map_err(Failed::Refused)?;
        Ok(token.claims)
    }

    async fn signature(&self, token: &Token<'_>, deadline: Instant) -> Result<(), Failed> {
        loop {
            match self.issuer.signed(token) {
                Signed::Good => return Ok(()),
                Signed::Bad(why) => return Err(Failed::Refused(why)),
                Signed::Unknown(why) => return Err(Failed::Unknown(why)),
                Signed::Wait(seen) if self.issuer.answered(seen, deadline).await => {}
                Signed::Wait(_) => return Err(Failed::Unknown("the keys of the issuer did not come in time".into())),
            }
        }
    }

    /// What the issuer knows of the user, where it is to be asked (OpenID Connect Core 1.0 §5.3).
    async fn told_of_user(
        &self,
        access: &str,
        claims: &Map<String, Value>,
        deadline: Instant,
    ) -> Result<Map<String, Value>, Failed> {
        if !self.userinfo {
            return Ok(Map::new());
        }
        let unknown = |why: String| Failed::Unknown(format!("the issuer does not tell of the user: {why}").into());
        let bearer = oauth::bearer(access.as_bytes()).ok_or_else(|| unknown("the token cannot be sent".into()))?;
        let ask = Ask::get("")
            .with(header::ACCEPT, HeaderValue::from_static("application/json"))
            .with(header::AUTHORIZATION, bearer);
        let target = self.target("userinfo_endpoint", deadline).await?;
        let answer = target.ask(ask, LONGEST, deadline).await.map_err(unknown)?;
        if answer.status != StatusCode::OK {
            return Err(unknown(format!("the answer is {}", answer.status.as_u16())));
        }
        let told = json::object(&answer.body).ok_or_else(|| unknown("the answer is no JSON object".into()))?;
        // §5.3.2: a token of somebody else may have been put in place.
        if told.get("sub").is_none() || told.get("sub") != claims.get("sub") {
            return Err(Failed::Refused("the issuer tells of another user".into()));
        }
        Ok(told)
    }

    /// What is at the place that the issuer names so.
    async fn target(&self, name: &'static str, deadline: Instant) -> Result<Target, Failed> {
        let told = self.told(deadline).await?;
        let url = text(&told, name);
        let url = url.ok_or_else(|| Failed::Unknown(format!("the issuer does not tell its `{name}`").into()))?;
        if let Some((known, target)) = self.targets.lock().get(name)
            && known == url
        {
            return Ok(target.clone());
        }
        let target = self.set.target(url, name).map_err(|why| Failed::Unknown(why.into()))?;
        self.targets.lock().insert(name, (url.to_owned(), target.clone()));
        Ok(target)
    }
}

impl Service for Party {
    fn start(&self, control: &Handle) {
        // A second document that holds it has the same runtime.
        let _same = self.control.set(control.clone()).is_err();
    }

    fn settle(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }
}

/// This moment.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
