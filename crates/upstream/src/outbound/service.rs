//! The token service: asked for a token ahead of its end, by one task for all requests (RFC 6749 §4.4).
//!
//! Lives on the control runtime, and from one document to the next where nothing of it has changed. Whoever needs a token while
//! there is none waits for the answer that is under way; where the last one brought none, nobody waits.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Release},
};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use parking_lot::Mutex;
use pylon_core::secret::Reveal;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_net::resolve::Resolver;
use pylon_net::timer::timeout_at;
use pylon_observe::insight::TokenReading;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use super::spec::OAuth2Spec;
use super::token::Flow;
use crate::error::Fault;
use crate::fetch::{Ask, Remote, Whole};
use crate::oauth::{self, Form, bearer};
use crate::view::TokenView;

/// How long one request for a token may take.
const ASKING: Duration = Duration::from_secs(10);
/// The longest answer, in bytes.
const LONGEST: usize = 64 * 1024;

/// A token service, and the token that it gave last.
#[derive(Debug)]
pub(crate) struct TokenService {
    client: Client,
    held: Arc<Held>,
    task: Mutex<Option<AbortHandle>>,
}

/// What it is asked with.
#[derive(Debug, Clone)]
struct Client {
    remote: Remote,
    spec: OAuth2Spec,
    secrets: Reveal,
}

/// What the task writes and the workers read.
#[derive(Debug)]
struct Held {
    flow: Mutex<(Flow, Option<HeaderValue>)>,
    token: ArcSwapOption<Token>,
    /// Rises with each change.
    generation: AtomicU64,
    /// How many answers there have been, good or bad.
    answers: watch::Sender<u64>,
    wanted: Notify,
}

/// A token that may be sent.
#[derive(Debug)]
pub(super) struct Token {
    /// As it stands in `Authorization`.
    pub(super) value: HeaderValue,
    pub(super) until: Instant,
}

impl TokenService {
    /// All that is wrong is told from the key `oauth2` down.
    pub(super) fn new(spec: &OAuth2Spec, resolver: &Resolver, secrets: Reveal) -> Result<Self, Vec<SpecError>> {
        let root = FieldPath::root();
        let at = root.clone().key("token_url");
        let mut errors = Vec::new();
        let remote = Remote::new(&spec.token_url, &at, spec.tls.as_ref(), resolver);
        let remote = remote.map_err(|found| errors.extend(found)).ok();
        if remote.as_ref().is_some_and(|remote| !remote.is_private()) {
            let problem = "secrets would go over the network in cleartext (RFC 6749 §3.2)";
            errors.push(SpecError::new(at, problem).help("write `https://`, or an address of this machine"));
        }
        let secret = secrets(&spec.client_secret);
        errors.extend(secret.err().map(|error| error.below(&root.clone().key("client_secret"))));
        if spec.client_id.is_empty() {
            errors.push(SpecError::new(root.key("client_id"), "this client has no name"));
        }
        let Some(remote) = remote.filter(|_| errors.is_empty()) else { return Err(errors) };
        let held = Held {
            flow: Mutex::new((Flow::new(now()), None)),
            token: ArcSwapOption::empty(),
            generation: AtomicU64::new(1),
            answers: watch::Sender::new(0),
            wanted: Notify::new(),
        };
        let client = Client { remote, spec: spec.clone(), secrets };
        Ok(Self { client, held: Arc::new(held), task: Mutex::default() })
    }

    /// Begins to ask on `handle`, once.
    pub(super) fn start(&self, handle: &Handle) {
        let mut task = self.task.lock();
        if task.as_ref().is_none_or(AbortHandle::is_finished) {
            *task = Some(handle.spawn(look_after(self.client.clone(), Arc::clone(&self.held))).abort_handle());
        }
    }

    /// Waits for the first answer, good or bad.
    pub(super) async fn settle(&self) {
        // An error means that the service is gone, and with it the question.
        let _gone = self.held.answers.subscribe().wait_for(|answers| *answers > 0).await.is_err();
    }

    /// Rises with each change.
    pub(super) fn generation(&self) -> u64 {
        self.held.generation.load(Acquire)
    }

    /// The token at hand, unless it was refused.
    pub(super) fn token(&self) -> Option<Arc<Token>> {
        self.held.token.load_full()
    }

    /// Waits until there is a token, and says when there was.
    pub(super) async fn obtained(&self, deadline: Instant) -> Result<Instant, Fault> {
        let mut answers = self.held.answers.subscribe();
        loop {
            let now = now();
            if self.held.token.load().as_ref().is_some_and(|token| now < token.until) {
                return Ok(now);
            }
            if let Some(error) = self.held.flow.lock().0.error() {
                return Err(Fault::Credential(format!("`{}` gave no token: {error}", self.client.remote.shown())));
            }
            if !matches!(timeout_at(Some(deadline), answers.changed()).await, Ok(Ok(()))) {
                return Err(Fault::Credential(format!("`{}` gave no token in time", self.client.remote.shown())));
            }
        }
    }

    /// The service answered 401 to a request with `sent` in `Authorization`.
    pub(super) fn refused(&self, sent: &HeaderValue) {
        let held = &self.held;
        let mut flow = held.flow.lock();
        if flow.1.as_ref() == Some(sent) && flow.0.refused(now()) {
            held.publish(&flow.0, flow.1.as_ref());
            held.wanted.notify_one();
        }
    }

    /// In figures.
    pub(super) fn reading(&self, now: Instant) -> TokenReading {
        self.held.flow.lock().0.reading(now)
    }

    /// What the admin API shows.
    pub(super) fn view(&self, now: Instant) -> TokenView {
        let flow = &self.held.flow.lock().0;
        let TokenReading { obtained, failed, age } = flow.reading(now);
        TokenView {
            from: self.client.remote.shown(),
            good_for_seconds: flow.usable().map(|until| until.saturating_duration_since(now).as_secs()),
            error: flow.error().map(str::to_owned),
            obtained,
            age_seconds: age.map(|age| age.as_secs()),
            failures: failed,
        }
    }
}

impl Drop for TokenService {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut() {
            task.abort();
        }
    }
}

impl Held {
    fn publish(&self, flow: &Flow, token: Option<&HeaderValue>) {
        let usable = flow.usable().zip(token);
        self.token.store(usable.map(|(until, value)| Arc::new(Token { value: value.clone(), until })));
        self.generation.fetch_add(1, Release);
    }
}

async fn look_after(client: Client, held: Arc<Held>) {
    loop {
        let next = held.flow.lock().0.next();
        if next > now() {
            let wanted = timeout_at(Some(next), held.wanted.notified()).await;
            if wanted.is_ok() {
                continue;
            }
        }
        let asked = now();
        let answer = client.ask(asked + ASKING).await;
        let mut flow = held.flow.lock();
        match answer {
            Ok((token, expires_in)) => {
                if flow.0.error().is_some() {
                    tracing::info!(from = client.remote.shown(), "there is a new token again");
                }
                flow.0.came(asked, expires_in, fastrand::f64());
                flow.1 = Some(token);
            }
            Err(error) => {
                if flow.0.error().is_none() {
                    tracing::warn!(from = client.remote.shown(), %error, "there is no new token");
                }
                flow.0.failed(error, now(), fastrand::f64());
            }
        }
        held.publish(&flow.0, flow.1.as_ref());
        drop(flow);
        held.answers.send_modify(|answers| *answers = answers.wrapping_add(1));
    }
}

impl Client {
    async fn ask(&self, deadline: Instant) -> Result<(HeaderValue, Option<Duration>), String> {
        let (secrets, secret) = (self.secrets, self.spec.client_secret.clone());
        // It may stand in a file, and that on a disk that is slow.
        let secret = tokio::task::spawn_blocking(move || secrets(&secret)).await.map_err(|_| "the gateway ends")?;
        let secret = secret.map_err(|error| error.problem)?;
        let ask = request(&self.spec, secret.expose())?;
        let answer = self.remote.fetch(&ask, LONGEST, deadline).await.map_err(|error| error.to_string())?;
        read(&answer)
    }
}

/// The request for a token (RFC 6749 §4.4.2).
fn request(spec: &OAuth2Spec, secret: &[u8]) -> Result<Ask, String> {
    let mut form = Form::default().with("grant_type", "client_credentials");
    if !spec.scopes.is_empty() {
        form = form.with("scope", spec.scopes.join(" "));
    }
    if let Some(audience) = &spec.audience {
        form = form.with("audience", audience);
    }
    form.ask(&oauth::Client { id: &spec.client_id, secret: Some(secret), auth: spec.auth })
}

/// The answer to it (RFC 6749 §5).
fn read(answer: &Whole) -> Result<(HeaderValue, Option<Duration>), String> {
    let granted = oauth::granted(answer).map_err(|refused| refused.to_string())?;
    let token = bearer(granted.access_token.as_bytes()).ok_or("the answer's `access_token` is no token")?;
    Ok((token, granted.expires_in))
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};

    use super::*;

    fn spec(more: &str) -> OAuth2Spec {
        let text = format!(
            r#"{{"token_url": "https://id.test/token", "client_id": "gate 1", "client_secret": "env:X"{more}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn answer(status: u16, body: &str) -> Result<(HeaderValue, Option<Duration>), String> {
        let status = StatusCode::from_u16(status).unwrap();
        read(&Whole { status, headers: HeaderMap::new(), body: Bytes::copy_from_slice(body.as_bytes()) })
    }

    #[test]
    fn the_secret_goes_in_the_field_or_in_the_body_and_never_in_both() {
        let ask = request(&spec(r#", "scopes": ["a", "b c"], "audience": "https://x?y""#), b"p:w%").unwrap();
        assert_eq!(ask.body, "grant_type=client_credentials&scope=a+b+c&audience=https%3A%2F%2Fx%3Fy");
        // `gate+1:p%3Aw%25`
        assert_eq!(ask.headers["authorization"], "Basic Z2F0ZSsxOnAlM0F3JTI1");
        assert!(ask.headers["authorization"].is_sensitive() && !format!("{ask:?}").contains("Z2F0"));
        let ask = request(&spec(r#", "auth": "post""#), b"p:w").unwrap();
        assert_eq!(ask.body, "grant_type=client_credentials&client_id=gate+1&client_secret=p%3Aw");
        assert!(!ask.headers.contains_key("authorization"));
    }

    #[test]
    fn an_answer_is_a_token_and_its_time() {
        let (token, expires_in) =
            answer(200, r#"{"access_token": "abc", "token_type": "bearer", "expires_in": 60}"#).unwrap();
        assert_eq!((token.as_bytes(), expires_in), (&b"Bearer abc"[..], Some(Duration::from_secs(60))));
        assert!(token.is_sensitive());
        let unsaid = answer(200, r#"{"access_token": "abc", "token_type": "Bearer", "scope": "x"}"#);
        assert_eq!(unsaid.unwrap().1, None);
        let text = answer(200, r#"{"access_token": "abc", "token_type": "Bearer", "expires_in": "60"}"#);
        assert_eq!(text.unwrap().1, Some(Duration::from_secs(60)));
    }

    #[test]
    fn what_is_no_answer_is_told_without_what_stands_in_it() {
        for (status, body, error) in [
            (401, r#"{"error": "invalid_client"}"#, "the answer is 401, `invalid_client`"),
            (400, r#"{"error": "The Secret hunter2 is wrong"}"#, "the answer is 400"),
            (500, "oops", "the answer is 500"),
            (200, "oops", "the answer has no `token_type`"),
            (200, r#"{"token_type": "mac", "access_token": "a"}"#, "the answer's `token_type` is not `bearer`"),
            (200, r#"{"token_type": "bearer"}"#, "the answer has no `access_token`"),
            (200, r#"{"token_type": "bearer", "access_token": "a b"}"#, "the answer's `access_token` is no token"),
            (
                200,
                r#"{"token_type": "bearer", "access_token": "a", "expires_in": 0}"#,
                "the answer's `expires_in` is no number of seconds",
            ),
        ] {
            assert_eq!(answer(status, body).unwrap_err(), error);
        }
    }
}
