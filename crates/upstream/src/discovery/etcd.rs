//! Keys of etcd below a prefix, each of which names an endpoint, by the JSON gateway of its API (version 3).
//!
//! A range says what is there, and a watch from the revision after it on what changes
//! (<https://etcd.io/docs/v3.5/dev-guide/api_grpc_gateway/>). A watch that is ended (its revision was compacted, the member lost its
//! leader), breaks or is silent for a minute is followed by another range: nothing is missed, and a connection that is dead without
//! a word is found. Members are asked in turn when one fails. The gateway knows no certificates as users: with `user`, a token
//! is fetched by name and password, and anew when it is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue, StatusCode, header};
use parking_lot::Mutex;
use pylon_core::secret::{Secret, SecretSpec};
use pylon_core::short::{FromScalar, OneOrMany};
use pylon_core::spec::{FieldPath, SpecError};
use pylon_net::timer::sleep;
use pylon_net::tls::spec::UpstreamTlsSpec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::keys::{Keys, Range, Told, not_understood};
use super::agents::Reading;
use super::ledger::Backoff;
use super::query;
use super::source::Report;
use crate::fetch::{Answer, Ask, FetchError, Remote};

mod keys;

/// By which a member that has lost its leader ends a watch.
const REQUIRE_LEADER: HeaderName = HeaderName::from_static("grpc-metadata-hasleader");

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a watch may be silent before the range is read again.
const SILENCE: Duration = Duration::from_secs(60);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// The least time between two ranges, however often watches end.
const PAUSE: Duration = Duration::from_millis(200);
/// The largest answer, and the largest line of a watch, in bytes.
const LARGEST: usize = 32 * 1024 * 1024;

/// An etcd cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EtcdSpec {
    /// The URLs of members, one or a list: they are asked in turn when one fails. Required.
    /// Example: `[https://10.0.0.1:2379, https://10.0.0.2:2379]`.
    pub endpoints: OneOrMany<String>,
    /// The user that is signed in, where the cluster demands one. Default: none. Example: `pylon`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Its password: `env:NAME` or `file:PATH`. Default: none. Example: `env:ETCD_PASSWORD`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretSpec>,
    /// TLS towards members with `https://`. Default: verified by the system's roots. Example: `{ ca: certs/etcd.pem }`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<UpstreamTlsSpec>,
}

/// Keys that name endpoints. Short: the prefix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EtcdPrefixSpec {
    /// What the keys begin with. Required. Example: `/services/orders/`.
    pub prefix: String,
}

impl FromScalar for EtcdPrefixSpec {
    const EXPECTING: &'static str = "a prefix of keys of etcd";

    fn from_scalar(text: &str) -> Result<Self, String> {
        Ok(Self { prefix: text.to_owned() })
    }
}

/// A cluster that is asked.
#[derive(Debug)]
pub(crate) struct Cluster {
    members: Vec<Remote>,
    /// The member that answered last.
    at: AtomicUsize,
    user: Option<(String, Secret)>,
    token: Mutex<Option<HeaderValue>>,
}

impl Cluster {
    pub(crate) fn compile(spec: &EtcdSpec, cx: &Reading<'_>) -> Result<Self, Vec<SpecError>> {
        let (root, mut errors, mut members) = (FieldPath::root(), Vec::new(), Vec::new());
        for (index, url) in spec.endpoints.0.iter().enumerate() {
            let at = root.clone().key("endpoints").index(index);
            match Remote::new(url, &at, spec.tls.as_ref(), cx.resolver) {
                Ok(member) => members.push(member),
                Err(found) => errors.extend(found),
            }
        }
        if spec.endpoints.0.is_empty() {
            errors.push(SpecError::new(root.clone().key("endpoints"), "no member of the cluster is named"));
        }
        let user = match (&spec.user, &spec.password) {
            (Some(user), Some(password)) => match (cx.reveal)(password) {
                Ok(secret) => Some((user.clone(), secret)),
                Err(error) => {
                    errors.push(error.below(&root.key("password")));
                    None
                }
            },
            (None, None) => None,
            _ => {
                let error = SpecError::new(root, "`user` and `password` belong together");
                errors.push(error.help("write both, or neither"));
                None
            }
        };
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self { members, at: AtomicUsize::new(0), user, token: Mutex::default() })
    }

    /// Asks the member that answered last.
    async fn ask(&self, path: &str, body: &Value) -> Result<Answer, String> {
        let token = self.token().await?;
        let answer = self.send(path, body, token.as_ref()).await?;
        if answer.status == StatusCode::OK {
            return Ok(answer);
        }
        let refusal = self.refusal(answer).await?;
        if token.is_some() && (refusal.contains("auth token") || refusal.contains("revision of auth store")) {
            *self.token.lock() = None;
            let token = self.token().await?;
            let answer = self.send(path, body, token.as_ref()).await?;
            return if answer.status == StatusCode::OK { Ok(answer) } else { Err(self.refusal(answer).await?) };
        }
        Err(refusal)
    }

    async fn send(&self, path: &str, body: &Value, token: Option<&HeaderValue>) -> Result<Answer, String> {
        let member = self.members.get(self.at.load(Relaxed)).or(self.members.first()).ok_or("there is no member")?;
        let mut ask = Ask::post(path, "application/json", body.to_string())
            .with(REQUIRE_LEADER, HeaderValue::from_static("true"));
        if let Some(token) = token {
            ask = ask.with(header::AUTHORIZATION, token.clone());
        }
        member.ask(&ask, now() + PATIENCE).await.map_err(|error| match error {
            // It names the member by itself.
            FetchError::Connect(..) => error.to_string(),
            error => format!("{}: {error}", member.shown()),
        })
    }

    async fn refusal(&self, answer: Answer) -> Result<String, String> {
        let whole = answer.whole(LARGEST, now() + PATIENCE).await.map_err(|error| error.to_string())?;
        Ok(query::refusal(&whole))
    }

    /// The token of the user, if there is one; fetched where there is none at hand.
    async fn token(&self) -> Result<Option<HeaderValue>, String> {
        let Some((name, password)) = &self.user else { return Ok(None) };
        if let Some(token) = &*self.token.lock() {
            return Ok(Some(token.clone()));
        }
        let body = json!({ "name": name, "password": String::from_utf8_lossy(password.expose()) });
        let answer = self.send("/v3/auth/authenticate", &body, None).await?;
        if answer.status != StatusCode::OK {
            return Err(format!("the user `{name}` cannot be signed in: {}", self.refusal(answer).await?));
        }
        let whole = answer.whole(LARGEST, now() + PATIENCE).await.map_err(|error| error.to_string())?;
        let body: Value = serde_json::from_slice(&whole.body).unwrap_or_default();
        let token = body.get("token").and_then(Value::as_str).and_then(|token| HeaderValue::from_str(token).ok());
        let mut token = token.ok_or("the answer to a sign-in has no token")?;
        token.set_sensitive(true);
        *self.token.lock() = Some(token.clone());
        Ok(Some(token))
    }

    /// The next member is to be asked. Says whether the round begins anew.
    fn turn(&self) -> bool {
        let next = self.at.load(Relaxed).saturating_add(1) % self.members.len().max(1);
        self.at.store(next, Relaxed);
        next == 0
    }
}

/// Keys that are looked for.
#[derive(Debug)]
pub(crate) struct Prefix {
    cluster: Arc<Cluster>,
    /// The first key and the one behind the last, as the API takes them.
    from: String,
    to: String,
}

impl Prefix {
    pub(crate) fn compile(spec: &EtcdPrefixSpec, cluster: Arc<Cluster>) -> Result<Self, SpecError> {
        if spec.prefix.is_empty() {
            return Err(SpecError::new(FieldPath::root(), "an empty prefix would take all keys for endpoints"));
        }
        let (from, to) = (STANDARD.encode(&spec.prefix), STANDARD.encode(behind(spec.prefix.as_bytes())));
        Ok(Self { cluster, from, to })
    }

    pub(crate) async fn follow(&self, report: &Report) {
        let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
        loop {
            let mut good = false;
            if let Err(error) = self.look(report, &mut good).await {
                if good {
                    backoff.reset();
                }
                report.failed(error);
                // The others are asked before anybody is waited for.
                if self.cluster.turn() {
                    sleep(backoff.next(fastrand::f64())).await;
                    continue;
                }
            } else {
                backoff.reset();
            }
            sleep(PAUSE.mul_f64(0.5 + fastrand::f64())).await;
        }
    }

    /// A range, and a watch for as long as it speaks. `good` says that the range was answered.
    async fn look(&self, report: &Report, good: &mut bool) -> Result<(), String> {
        let body = json!({ "key": self.from, "range_end": self.to });
        let answer = self.cluster.ask("/v3/kv/range", &body).await?;
        let whole = answer.whole(LARGEST, now() + PATIENCE).await.map_err(|error| error.to_string())?;
        let range: Range = serde_json::from_slice(&whole.body).map_err(|error| not_understood(&error))?;
        let mut keys = Keys::default();
        range.kvs.iter().flatten().try_for_each(|pair| keys.put(pair))?;
        *good = true;
        tell(report, &keys);
        let after = range.header.revision()?.saturating_add(1);
        let create = json!({ "key": self.from, "range_end": self.to, "start_revision": after.to_string(), "progress_notify": true });
        let mut watch = self.cluster.ask("/v3/watch", &json!({ "create_request": create })).await?;
        loop {
            let line = match watch.line(LARGEST, now() + SILENCE).await {
                Ok(Some(line)) => line,
                // What is silent may be dead.
                Ok(None) | Err(FetchError::Late) => return Ok(()),
                Err(error) => return Err(error.to_string()),
            };
            match keys.take(&line)? {
                Told::News => tell(report, &keys),
                Told::Nothing => report.confirmed(),
                Told::Over => return Ok(()),
            }
        }
    }
}

fn tell(report: &Report, keys: &Keys) {
    let (targets, trouble) = keys.targets();
    report.found(targets, trouble);
}

/// The least key that does not begin with `prefix`; all that come after it where there is none.
fn behind(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last.saturating_add(1));
            return end;
        }
    }
    vec![0]
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_key_that_does_not_begin_with_it() {
        assert_eq!((behind(b"/a/"), behind(b"a\xff"), behind(b"\xff")), (b"/a0".to_vec(), b"b".to_vec(), vec![0]));
    }
}
