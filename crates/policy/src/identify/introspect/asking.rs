//! Asks the authorization server what a token is: one question for all who show it at once, and for a while no other.
//!
//! Shared by all workers, routes and documents that would ask alike. Questions are tasks of the control runtime, so that they come to an end
//! though the client that caused them goes away. A token is known here by its hash.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use parking_lot::Mutex;
use pylon_core::caller::Caller;
use pylon_core::secret::Reveal;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::units::Span;
use pylon_net::timer::timeout_at;
use pylon_observe::clock::unix_now;
use pylon_observe::insight::SupplyReading;
use pylon_upstream::oauth;
use serde_json::{Map, Value};
use tokio::runtime::Handle;

use super::spec::IntrospectSpec;
use crate::identify::jwt::claims::Rules;
use crate::identify::jwt::compiled::fetched;
use crate::identify::jwt::json;
use crate::identify::jwt::service::{Demand, KeySet};
use crate::identify::jwt::source::Target;
use crate::memory::{Known, Memory, News, Tell};
use crate::policy::{Compiling, Service};

/// The longest answer, in bytes.
const LONGEST: usize = 64 * 1024;
/// How many questions may be under way.
const MOST_FLIGHTS: usize = 256;
/// For how long nobody is asked after a question that was not answered.
const REST: Duration = Duration::from_secs(1);

/// What a token comes to.
#[derive(Debug)]
pub(super) enum Answer {
    /// It makes this caller, until then.
    Caller(Caller, Instant),
    /// It makes none. Why is for the log alone.
    Invalid(Cow<'static, str>),
    /// Nobody said. Why is for the log alone.
    Nothing(String),
}

/// What is found of a token.
#[derive(Debug)]
pub(super) enum Found {
    /// It is remembered.
    Known(Arc<Answer>),
    /// It is being asked about.
    Asked(News<Answer>),
    /// Nobody is asked now, and why.
    Resting(String),
}

/// The server, and what it said lately.
#[derive(Debug)]
pub(super) struct Asking {
    server: Server,
    spec: IntrospectSpec,
    rules: Rules,
    secrets: Reveal,
    state: Mutex<State>,
    /// Where questions run: none until the document is in force.
    control: OnceLock<Handle>,
}

/// Where is asked.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one for each policy")]
enum Server {
    At(Target),
    /// Where the issuer says.
    Told(Arc<KeySet>),
}

#[derive(Debug)]
struct State {
    memory: Memory<Answer>,
    /// Until when nobody is asked, and why; none again once somebody has answered.
    rest: Option<(Instant, String)>,
    /// When somebody last answered.
    answered: Option<Instant>,
    /// How many questions were not answered.
    failures: u64,
}

impl Asking {
    /// One for all that would ask alike. Errors begin at the key `introspect`.
    pub(super) fn new(spec: &IntrospectSpec, rules: Rules, cx: &Compiling<'_>) -> Result<Arc<Self>, Vec<SpecError>> {
        let at = |key: &str| FieldPath::root().key(key);
        let mut errors = Vec::new();
        let secret = (cx.around.secrets)(&spec.client_secret);
        errors.extend(secret.err().map(|error| error.below(&at("client_secret"))));
        if spec.client_id.is_empty() {
            errors.push(SpecError::new(at("client_id"), "this client has no name"));
        }
        let server = Server::new(spec, cx).map_err(|found| errors.extend(found));
        let (Ok(server), true) = (server, errors.is_empty()) else { return Err(errors) };
        let written = serde_json::to_string(spec).unwrap_or_default();
        let name = format!("introspection {written} {}", cx.around.resolver.identity());
        let state = Mutex::new(State { memory: Memory::new(MOST_FLIGHTS), rest: None, answered: None, failures: 0 });
        let (spec, secrets, control) = (spec.clone(), cx.around.secrets, OnceLock::new());
        Ok(cx.carry.keep(name, || Self { server, spec, rules, secrets, state, control }))
    }

    /// What is known of a token. Where that is nothing, somebody is sent to ask.
    pub(super) fn look(self: &Arc<Self>, token: &[u8], now: Instant) -> Found {
        let key: Box<[u8]> = digest(&SHA256, token).as_ref().into();
        let mut state = self.state.lock();
        let resting = state.rest.as_ref().filter(|(until, _)| *until > now).map(|(_, why)| why.clone());
        if let Some(why) = resting {
            return state.memory.find(&key, now).map_or(Found::Resting(why), Found::Known);
        }
        match state.memory.look(&key, now) {
            Known::Kept(answer) => Found::Known(answer),
            Known::Asked(news) => Found::Asked(news),
            Known::Full => Found::Resting("too many tokens are being asked about".to_owned()),
            Known::Nothing(tell) => {
                let Some(control) = self.control.get() else {
                    return Found::Resting("the gateway does not serve yet".to_owned());
                };
                let news = tell.subscribe();
                control.spawn(fly(Arc::clone(self), key, token.into(), tell));
                Found::Asked(news)
            }
        }
    }

    async fn ask(&self, token: &[u8], deadline: Instant) -> Answer {
        let asked = timeout_at(Some(deadline), self.exchange(token, deadline)).await;
        let claims = match asked.unwrap_or_else(|_| Err("there was no answer in time".to_owned())) {
            Ok(claims) => claims,
            Err(why) => return Answer::Nothing(why),
        };
        match self.caller(claims) {
            Ok((caller, left)) => Answer::Caller(caller, now() + left.min(self.spec.ttl.duration())),
            Err(why) => Answer::Invalid(why),
        }
    }

    async fn exchange(&self, token: &[u8], deadline: Instant) -> Result<Map<String, Value>, String> {
        let target = self.server.target(deadline).await?;
        let (secrets, secret) = (self.secrets, self.spec.client_secret.clone());
        // It may stand in a file, and that on a disk that is slow.
        let secret = tokio::task::spawn_blocking(move || secrets(&secret)).await.map_err(|_| "the gateway ends")?;
        let secret = secret.map_err(|error| error.problem)?;
        let client = oauth::Client { id: &self.spec.client_id, secret: Some(secret.expose()), auth: self.spec.auth };
        // RFC 7662 §2.1.
        let form = oauth::Form::default().with("token", token).with("token_type_hint", "access_token");
        let answer = target.ask(form.ask(&client)?, LONGEST, deadline).await?;
        oauth::members(&answer).map_err(|refused| refused.to_string())?;
        json::object(&answer.body).ok_or_else(|| "the answer is no JSON object whose members stand once".to_owned())
    }

    /// The caller of whom an answer speaks, and for how long.
    fn caller(&self, mut claims: Map<String, Value>) -> Result<(Caller, Duration), Cow<'static, str>> {
        match claims.get("active") {
            Some(Value::Bool(true)) => {}
            Some(Value::Bool(false)) => return Err("the token is not active".into()),
            _ => return Err("the answer does not say whether the token is active".into()),
        }
        let issuer = claims.get("iss").filter(|iss| !iss.is_null());
        if self.spec.issuer.is_some() && issuer.is_some_and(|iss| iss.as_str() != Some(&self.rules.issuer)) {
            return Err("it is of another issuer (`iss`)".into());
        }
        let now = unix_now().as_secs();
        let until = match claims.get("exp") {
            None | Some(Value::Null) => None,
            Some(_) => Some(self.rules.time(&claims, now)?),
        };
        self.rules.audience(&claims)?;
        if self.spec.subject_claim.is_none() && !claims.get("sub").is_some_and(Value::is_string) {
            let other =
                ["username", "client_id"].into_iter().find_map(|name| claims.get(name).filter(|it| it.is_string()));
            if let Some(other) = other.cloned() {
                claims.insert("sub".into(), other);
            }
        }
        let caller = self.rules.named("introspect", claims, until)?;
        let left = until.map_or(Duration::MAX, |until| Duration::from_secs(until.saturating_sub(now)));
        Ok((caller, left))
    }

    /// Notes what came of a question.
    fn settle(&self, key: Box<[u8]>, answer: &Arc<Answer>) {
        let mut state = self.state.lock();
        let now = now();
        match &**answer {
            Answer::Caller(_, until) => state.memory.settle(key, Some(answer), *until),
            Answer::Invalid(_) => state.memory.settle(key, Some(answer), now + self.spec.inactive_ttl.duration()),
            Answer::Nothing(why) => {
                if state.rest.is_none() {
                    tracing::warn!(from = self.server.shown(), why, "tokens cannot be asked about");
                }
                state.memory.settle(key, None, now);
                state.rest = Some((now + REST, why.clone()));
                state.failures = state.failures.saturating_add(1);
                return;
            }
        }
        state.answered = Some(now);
        if state.rest.take().is_some() {
            tracing::info!(from = self.server.shown(), "tokens can be asked about again");
        }
    }
}

impl Service for Asking {
    fn start(&self, control: &Handle) {
        self.control.get_or_init(|| control.clone());
    }

    fn settle(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }

    fn look(&self, now: Instant) -> Option<SupplyReading> {
        let state = self.state.lock();
        Some(SupplyReading {
            kind: "introspection",
            from: self.server.shown(),
            // Where nobody was asked yet, nothing is known against it.
            up: state.rest.is_none(),
            age: state.answered.map(|answered| now.saturating_duration_since(answered)),
            failures: state.failures,
            error: state.rest.as_ref().map(|(_, why)| why.clone()),
            ..SupplyReading::default()
        })
    }
}

impl Server {
    fn new(spec: &IntrospectSpec, cx: &Compiling<'_>) -> Result<Self, Vec<SpecError>> {
        match (&spec.url, &spec.issuer) {
            (Some(url), _) => {
                let at = FieldPath::root().key("url");
                Target::new(url, &at, spec.tls.as_ref(), &cx.around.resolver).map(Self::At)
            }
            (None, Some(issuer)) => {
                let times = (Span::from_secs(24 * 3600), Span::from_secs(30));
                fetched(issuer, None, spec.tls.as_ref(), times, cx).map(Self::Told)
            }
            (None, None) => {
                let error = SpecError::new(FieldPath::root(), "nothing says who is asked about tokens");
                Err(vec![error.help("write `url: https://…`, or the `issuer` that tells it")])
            }
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::At(target) => target.shown(),
            Self::Told(keys) => keys.shown(),
        }
    }

    /// Where is asked. Waits for the word of the issuer where there is none yet.
    async fn target(&self, deadline: Instant) -> Result<Cow<'_, Target>, String> {
        let keys = match self {
            Self::At(target) => return Ok(Cow::Borrowed(target)),
            Self::Told(keys) => keys,
        };
        let told = match keys.told() {
            Some(told) => told,
            None => {
                match keys.demand() {
                    Demand::Wait(seen) => _ = keys.answered(seen, deadline).await,
                    Demand::Unknown(why) => return Err(why),
                    Demand::Absent => {}
                }
                keys.told().ok_or_else(|| format!("`{}` has not told where is asked", keys.shown()))?
            }
        };
        let url = told.get("introspection_endpoint").and_then(Value::as_str);
        let url = url.ok_or("the issuer does not tell where is asked (`introspection_endpoint`)")?;
        keys.target(url, "introspection_endpoint").map(Cow::Owned)
    }
}

/// Asks on behalf of all who show the token.
async fn fly(asking: Arc<Asking>, key: Box<[u8]>, token: Box<[u8]>, tell: Tell<Answer>) {
    let answer = Arc::new(asking.ask(&token, now() + asking.spec.timeout.duration()).await);
    Asking::settle(&asking, key, &answer);
    tell.send_replace(Some(answer));
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
