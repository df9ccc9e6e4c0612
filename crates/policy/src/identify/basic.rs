//! Knows consumers by a name and a password (RFC 7617).
//!
//! ```yaml
//! basic: true
//! ```
//! ```yaml
//! basic:
//!   realm: Back office            # what browsers show when they ask
//!   headers: { x-user: subject }
//! ```
//!
//! Names and hashes of passwords stand with the document's `consumers`, as `basic: { user: ann, password: "$argon2id$…" }`. `pylon keys
//! password` makes such a hash of a password that is typed in. It is slow on purpose, so it is computed off the workers, by few threads
//! and in a short queue: who sends wrong passwords in masses is answered with 503 and takes nothing from other routes. A password that
//! was right is remembered for five minutes and costs nothing then.
//!
//! Passwords cross the network in every request: let clients come under TLS (`https_redirect`). A wrong name takes as long as a wrong
//! password, and both are told the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use argon2::{Argon2, PasswordVerifier as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use http::header::AUTHORIZATION;
use pylon_core::Request;
use pylon_core::caller::Caller;
use pylon_core::exchange::Exchange;
use pylon_core::kept;
use pylon_core::short::{FromScalar, Short};
use pylon_core::spec::{FieldPath, SpecError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::consumers::{Consumers, Login};
use crate::identity::{Identity, Look, Place, Proof, Telling};
use crate::policy::{Compiling, Policy, Step};
use crate::pool::POOL;
use crate::proofs::{self, Proofs};
use crate::written;

/// How long a password may take to be checked, its turn included.
const DEADLINE: Duration = Duration::from_secs(3);
/// The longest name and password that are looked at, in bytes.
const LONGEST: usize = 1024;
/// What is checked where nobody has the name, so that this takes as long: the usual costs, and nobody's password.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Name and password. Short: `true`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BasicSpec {
    /// What is protected, in a word or two: browsers show it. Default: `pylon`.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"Back office")]
    pub realm: Option<String>,
    /// What services are told of the caller: facts by header. Default: nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(example = BTreeMap::from([("x-user", "subject")]))]
    pub headers: BTreeMap<String, String>,
    /// Whether services see name and password. Default: `false`.
    #[serde(default)]
    #[schemars(example = true)]
    pub forward: bool,
}

impl FromScalar for BasicSpec {
    const EXPECTING: &'static str = "`true`";

    fn from_scalar(text: &str) -> Result<Self, String> {
        if text == "true" {
            return Ok(Self { realm: None, headers: BTreeMap::new(), forward: false });
        }
        Err(format!("`{text}` is not {}; `off` takes the policy away", Self::EXPECTING))
    }
}

/// The policy at work.
#[derive(Debug)]
pub struct Basic {
    identity: Identity,
    consumers: Arc<Consumers>,
}

impl Policy for Basic {
    type Spec = Short<BasicSpec>;
    type Memo = ();

    const PROVES_CONSUMERS: bool = true;

    fn compile(spec: &Self::Spec, cx: &Compiling<'_>) -> Result<Self, Vec<SpecError>> {
        let at = |key: &str| FieldPath::root().key(key);
        let mut errors = Vec::new();
        let realm = spec.realm.as_deref().unwrap_or("pylon");
        if realm.is_empty() || !realm.bytes().all(|byte| matches!(byte, b' '..=b'~') && !b"\"\\".contains(&byte)) {
            let error = SpecError::new(at("realm"), "this cannot stand between the quotes of a challenge");
            errors.push(error.help("use visible ASCII characters but `\"` and `\\`"));
        }
        let challenge = kept::value(&format!("Basic realm=\"{realm}\", charset=\"UTF-8\""));
        let telling = Telling::compile(&spec.headers);
        let telling =
            telling.map_err(|found| errors.extend(found.into_iter().map(|error| error.below(&at("headers")))));
        let consumers = Arc::clone(&cx.around.consumers);
        if consumers.has_no_login() {
            let error = SpecError::new(FieldPath::root(), "no consumer has a password, so nobody could call");
            errors.push(error.help("add `consumers: { ann: { basic: { user: ann, password: $argon2id$… } } }`"));
        }
        let (Ok(telling), Ok(challenge), true) = (telling, challenge, errors.is_empty()) else { return Err(errors) };
        let places = [Place::Header(AUTHORIZATION, Some("Basic".into()))].into();
        let identity = Identity { places, telling, forward: spec.forward, challenge, proofs: Proofs::default() };
        Ok(Self { identity, consumers })
    }

    fn on_request<'a>(&'a self, req: &'a mut Request, cx: &'a mut Exchange) -> Step<'a, ()> {
        // What a proof rests on is compiled with this policy, so that it never changes under it.
        let shown = match self.identity.look(req, cx, 0) {
            Look::Settled(outcome) => return Step::Done(outcome),
            Look::Shown(shown) => shown,
        };
        let Some((user, password)) = parts(&shown.credential) else {
            let proof = Proof::Invalid("this is no name and password".into());
            return Step::Done(self.identity.settle(&shown, proof, req, cx));
        };
        Step::Wait(Box::pin(async move {
            let proof = self.prove(&user, password, now()).await;
            self.identity.settle(&shown, proof, req, cx)
        }))
    }

    fn challenge(&self) -> Option<HeaderValue> {
        Some(self.identity.challenge.clone())
    }
}

impl Basic {
    async fn prove(&self, user: &str, password: Vec<u8>, now: Instant) -> Proof {
        let login = self.consumers.login_by(user);
        let hash: Arc<str> = login.map_or_else(|| NOBODY.into(), |login: &Login| Arc::clone(&login.hash));
        let check = move || Argon2::default().verify_password(&password, &*hash).is_ok();
        match (POOL.run(now + DEADLINE, check).await, login) {
            (Err(why), _) => Proof::Unknown(why.to_string().into()),
            (Ok(true), Some(login)) => {
                let caller = Caller { subject: user.into(), ..Caller::consumer("basic", &login.consumer) };
                Proof::Caller(caller, now + proofs::LONGEST)
            }
            (Ok(false), Some(login)) => Proof::Invalid(format!("a wrong password of {}", login.consumer.name).into()),
            (Ok(_), None) => Proof::Invalid("nobody has this name".into()),
        }
    }
}

/// Name and password (RFC 7617 §2): the name ends at the first colon.
fn parts(credential: &[u8]) -> Option<(String, Vec<u8>)> {
    if credential.len() > LONGEST {
        return None;
    }
    let plain = STANDARD.decode(credential).ok()?;
    let colon = plain.iter().position(|byte| *byte == b':')?;
    let (user, password) = plain.split_at(colon);
    Some((std::str::from_utf8(user).ok()?.to_owned(), password.get(1..)?.to_vec()))
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Stop;
    use crate::testing::{Seen, compile};

    async fn meet(policy: &Basic, credential: &str) -> (Result<(), &'static str>, Request, Box<Exchange>) {
        let (mut req, mut cx) = Seen::get("/").header("authorization", credential).start();
        let outcome = match policy.on_request(&mut req, &mut cx) {
            Step::Done(outcome) => outcome,
            Step::Wait(waiting) => waiting.await,
        };
        let outcome = outcome.map_err(|stop| match stop {
            Stop::Reject(no) => no.reason.code,
            Stop::Reply(_) => "answered",
        });
        (outcome, req, cx)
    }

    fn shown(text: &str) -> String {
        format!("Basic {}", STANDARD.encode(text))
    }

    #[tokio::test]
    async fn a_right_password_proves_who_it_is_and_goes_no_further() {
        let policy: Basic = compile(r#"{ "headers": { "x-user": "subject" } }"#).unwrap();
        // The second time it is known already.
        for _ in 0..2 {
            let (outcome, req, cx) = meet(&policy, &shown("ann:open: sesame")).await;
            assert_eq!(outcome, Ok(()));
            let caller = cx.caller.as_ref().unwrap();
            assert_eq!((caller.by, &*caller.subject, caller.is_in("apps")), ("basic", "ann", true));
            assert_eq!((req.headers().len(), &req.headers()["x-user"]), (1, &HeaderValue::from_static("ann")));
        }
    }

    #[tokio::test]
    async fn everything_else_is_refused_alike() {
        let policy: Basic = compile("true").unwrap();
        let long = shown(&"x".repeat(LONGEST));
        for wrong in [
            &*shown("ann:open sesame"),
            &shown("ann:"),
            &shown("ann"),
            &shown(":open: sesame"),
            &shown("bob:open: sesame"),
            &shown(""),
            "Basic",
            "Basic *",
            &long,
        ] {
            let (outcome, _, cx) = meet(&policy, wrong).await;
            let other_scheme = wrong == "Basic";
            assert_eq!(outcome, if other_scheme { Ok(()) } else { Err("caller.invalid") }, "{wrong}");
            assert_eq!((cx.caller.is_some(), cx.unclaimed), (false, other_scheme), "{wrong}");
        }
    }

    #[test]
    fn what_could_not_be_meant_is_refused_at_load() {
        for (json, wrong) in [
            ("false", "is not `true`"),
            (r#"{ "realm": "a\"b" }"#, "cannot stand between"),
            (r#"{ "realm": "" }"#, "cannot stand between"),
            (r#"{ "headers": { "host": "subject" } }"#, "written by the gateway"),
            (r#"{ "realms": "x" }"#, "unknown field"),
        ] {
            let error = compile::<Basic>(json).unwrap_err();
            assert!(error.contains(wrong), "{json}: {error}");
        }
    }
}
