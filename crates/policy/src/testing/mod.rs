//! What the tests of policies share: requests and exchanges made in memory, and futures driven without a runtime.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use argon2::PasswordHasher as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use http_body::Frame;
use pylon_core::Request;
use pylon_core::body::{Body, BodyError};
use pylon_core::carry::Carry;
use pylon_core::connection::{Connection, Scheme};
use pylon_core::exchange::{Exchange, Head};
use pylon_core::secret::{Secret, SecretSpec};
use pylon_core::spec::{FieldPath, SpecError};
use pylon_net::resolve::Resolver;

use serde::de::DeserializeOwned;

use crate::consumers::{ConsumerSpec, Consumers, KeyHash};
use crate::policy::{Around, Compiling, Policy, Step, Stop};
use crate::registry::SpecReader;

pub(crate) mod probe;

/// A request as a policy sees it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    method: Method,
    path: String,
    host: Option<Box<str>>,
    client: String,
    scheme: Scheme,
    headers: HeaderMap,
    body: Bytes,
}

impl Seen {
    pub(crate) fn get(path: &str) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            host: None,
            client: "192.0.2.1".into(),
            scheme: Scheme::Http,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    pub(crate) fn post(path: &str) -> Self {
        Self { method: Method::POST, ..Self::get(path) }
    }

    pub(crate) fn options(path: &str) -> Self {
        Self { method: Method::OPTIONS, ..Self::get(path) }
    }

    pub(crate) fn method(self, method: Method) -> Self {
        Self { method, ..self }
    }

    pub(crate) fn host(mut self, host: &str) -> Self {
        self.host = Some(host.into());
        self
    }

    pub(crate) fn client(mut self, address: &str) -> Self {
        self.client = address.into();
        self
    }

    pub(crate) fn scheme(mut self, scheme: Scheme) -> Self {
        self.scheme = scheme;
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::from_str(value).unwrap());
        self
    }

    pub(crate) fn body(mut self, body: &'static str) -> Self {
        self.body = Bytes::from_static(body.as_bytes());
        self
    }

    pub(crate) fn exchange(&self) -> Box<Exchange> {
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 80));
        Exchange::begin(Head {
            connection: Arc::new(Connection::new(anywhere, anywhere, self.scheme, start())),
            client: self.client.parse().unwrap(),
            from_trusted_proxy: false,
            scheme: self.scheme,
            request_id: HeaderValue::from_static("id-1"),
            started: start(),
            method: self.method.clone(),
            version: Version::HTTP_11,
            host: self.host.clone(),
            path: self.path.parse().unwrap(),
        })
    }

    pub(crate) fn start(&self) -> (Request, Box<Exchange>) {
        let mut req = Request::new(Body::from(self.body.clone()));
        *req.method_mut() = self.method.clone();
        *req.headers_mut() = self.headers.clone();
        (req, self.exchange())
    }
}

#[expect(clippy::disallowed_methods, reason = "an exchange wants a moment, and no test looks at it")]
fn start() -> Instant {
    Instant::now()
}

/// Reads and compiles a policy from JSON. The error is a text: that of the reader, or all of the compiler's.
pub(crate) fn compile<P: Policy>(json: &str) -> Result<P, String> {
    compile_with(json, |_| {})
}

/// The same in a document that `change` changes.
pub(crate) fn compile_with<P: Policy>(json: &str, change: impl FnOnce(&mut Around)) -> Result<P, String> {
    let spec = serde_json::from_str(json).map_err(|error| error.to_string())?;
    compiling_with(change, |cx| P::compile(&spec, cx)).map_err(|errors| {
        let texts = errors.iter().map(|error| format!("{}: {}", error.at, error.problem));
        texts.collect::<Vec<_>>().join("\n")
    })
}

/// Compiles within a document that has one consumer, `app` in group `apps`, whose API key is `key-of-app`, and whose
/// user `ann` has the password `open: sesame`.
pub(crate) fn compiling<T>(work: impl FnOnce(&Compiling<'_>) -> T) -> T {
    compiling_with(|_| {}, work)
}

fn compiling_with<T>(change: impl FnOnce(&mut Around), work: impl FnOnce(&Compiling<'_>) -> T) -> T {
    let spec: ConsumerSpec = serde_json::from_value(serde_json::json!({
        "groups": "apps",
        "plan": "gold",
        // `open: sesame`, at the least cost there is.
        "basic": { "user": "ann", "password": hashed("open: sesame") },
        "certificates": ["app.test"],
        "keys": [KeyHash::of(b"key-of-app").to_string()],
    }))
    .unwrap();
    let consumers = Consumers::compile(&[("app".to_owned(), spec)], plain_secrets).unwrap();
    let mut around = Around::new(Arc::new(consumers), resolver(), plain_secrets);
    around.asks_for_certificates = true;
    change(&mut around);
    work(&Compiling { carry: &Carry::default(), around: &around })
}

/// Names that tests ask for are none.
pub(crate) fn resolver() -> Resolver {
    Resolver::new(&[SocketAddr::from(([127, 0, 0, 1], 53))]).unwrap()
}

/// Secrets of tests are plain.
pub(crate) fn plain_secrets(spec: &SecretSpec) -> Result<Secret, SpecError> {
    match spec {
        SecretSpec::Plain(secret) => Ok(secret.clone()),
        SecretSpec::Env(_) | SecretSpec::File(_) => Err(SpecError::new(FieldPath::root(), "tests have plain secrets")),
    }
}

/// RFC 9421 §B.1.4, `test-key-ed25519`.
pub(crate) const ED25519_PEM: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=\n-----END PUBLIC KEY-----\n";

/// The hash of a password, at the least cost there is.
fn hashed(password: &str) -> String {
    let costs = argon2::Params::new(argon2::Params::MIN_M_COST, 1, 1, None).unwrap();
    let hash = argon2::Argon2::from(costs).hash_password_with_salt(password.as_bytes(), b"saltsaltsalt");
    hash.unwrap().to_string()
}

/// A spec as JSON.
pub(crate) struct Json<'a>(pub(crate) &'a str);

impl SpecReader for Json<'_> {
    fn read<T: DeserializeOwned>(self) -> Option<T> {
        serde_json::from_str(self.0).ok()
    }
}

/// The outcome of a step that does not wait.
pub(crate) fn now<T>(step: Step<'_, T>) -> Result<T, Stop> {
    match step {
        Step::Done(outcome) => outcome,
        Step::Wait(_) => panic!("the policy waits"),
    }
}

/// The code of a refusal.
pub(crate) fn stopped<T>(outcome: Result<T, Stop>) -> &'static str {
    match outcome {
        Err(Stop::Reject(rejection)) => rejection.reason.code,
        Err(Stop::Reply(response)) => panic!("the policy answers {response:?}"),
        Ok(_) => panic!("the policy lets it pass"),
    }
}

/// Drives a future that never waits for the outside.
pub(crate) fn run<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..100 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
    }
    panic!("the future does not end")
}

/// A stream of unknown length, made of frames of zeros.
#[derive(Debug)]
pub(crate) struct Frames(std::collections::VecDeque<Frame<Bytes>>);

impl Frames {
    pub(crate) fn of(sizes: &[usize]) -> Self {
        Self(sizes.iter().map(|size| Frame::data(Bytes::from(vec![0; *size]))).collect())
    }

    pub(crate) fn trailers(mut self, trailers: HeaderMap) -> Self {
        self.0.push_back(Frame::trailers(trailers));
        self
    }
}

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}

/// Reads a body to its end: how many bytes, and the trailers.
pub(crate) fn read(
    body: impl http_body::Body<Data = Bytes, Error = BodyError>,
) -> Result<(usize, HeaderMap), BodyError> {
    let mut body = pin!(body);
    let (mut bytes, mut trailers) = (0, HeaderMap::new());
    while let Some(frame) = run(std::future::poll_fn(|cx| body.as_mut().poll_frame(cx))) {
        match frame?.into_data() {
            Ok(data) => bytes += data.len(),
            Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
        }
    }
    Ok((bytes, trailers))
}
