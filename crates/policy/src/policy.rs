//! What a policy is: a spec that a person writes, a thing compiled from it, and what it does on the way in and out.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use http::HeaderValue;
use parking_lot::Mutex;
use pylon_core::carry::Carry;
use pylon_core::exchange::Exchange;
use pylon_core::names::UpstreamName;
use pylon_core::rejection::{Reason, Rejection};
use pylon_core::secret::Reveal;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::{Request, Response};
use pylon_net::resolve::Resolver;
use pylon_observe::insight::{StoreReading, SupplyReading};
use pylon_store::link::Redis;
use pylon_upstream::call::CallOptions;
use pylon_upstream::spec::Speaks;
use pylon_upstream::upstream::{OfRoute, Upstream};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;

use crate::consumers::Consumers;
use crate::keys::KeyStore;
use crate::own::{OwnRoute, OwnRoutes};

/// One concern, applied once to each request of a route.
///
/// A policy whose line in the registry says `judges` can run in shadow. Such a policy decides on the way in, by the head
/// of the request and the exchange, and changes nothing in the exchange.
pub trait Policy: Sized + fmt::Debug + Send + Sync + 'static {
    /// What is written in a document.
    type Spec: DeserializeOwned + Serialize + PartialEq + Clone + fmt::Debug + JsonSchema;
    /// What the policy remembers from the request to its response: unit for most, boxed if over 16 bytes.
    /// What it holds is given back when the exchange is dropped.
    type Memo: fmt::Debug + Send + 'static;

    /// Whether all callers that it proves are consumers of the document, so that they are in no other groups.
    const PROVES_CONSUMERS: bool = false;

    /// Makes the policy from its spec, or tells everything that is wrong with it, with paths from the spec's own root.
    fn compile(spec: &Self::Spec, cx: &Compiling<'_>) -> Result<Self, Vec<SpecError>>;

    /// Meets a request on its way in. A stop ends the way: the policies behind are never reached.
    fn on_request<'a>(&'a self, req: &'a mut Request, cx: &'a mut Exchange) -> Step<'a, Self::Memo>;

    /// What stands in `WWW-Authenticate` where no credential came, if this policy takes any (RFC 9110 §11.6.1).
    fn challenge(&self) -> Option<HeaderValue> {
        None
    }

    /// Meets a request that a guard refused before this policy was reached. What it remembers of it brings the policy onto
    /// the way out of the refusal; most have no business there.
    fn on_refused(&self, req: &Request) -> Option<Self::Memo> {
        let _ = req;
        None
    }

    /// Meets the response on its way out, if [`Policy::on_request`] let the request pass, also a rejection made further in, or
    /// if [`Policy::on_refused`] remembered it.
    /// A stop replaces the response.
    fn on_response<'a>(&'a self, memo: Self::Memo, res: &'a mut Response, cx: &'a mut Exchange) -> Step<'a, ()> {
        let _ = (memo, res, cx);
        Step::Done(Ok(()))
    }
}

/// What is at hand while a document is compiled.
#[derive(Debug, Clone, Copy)]
pub struct Compiling<'a> {
    /// The living state of older snapshots.
    pub carry: &'a Carry,
    /// What the document has beside its routes.
    pub around: &'a Around,
}

impl Compiling<'_> {
    /// Contributes a route to the document.
    pub fn own_route(&self, route: OwnRoute) {
        self.around.own.add(route);
    }
}

/// What a document has beside its routes, for policies that need it.
#[derive(Debug)]
pub struct Around {
    /// Those who may ask, by their credentials.
    pub consumers: Arc<Consumers>,
    /// Whether any listener asks clients for certificates.
    pub asks_for_certificates: bool,
    /// Where API keys are kept beside the document, if anywhere.
    pub keys: Option<KeyStore>,
    /// The store that gateways share, if there is one.
    pub store: Option<Arc<Redis>>,
    /// Finds the services that policies ask.
    pub resolver: Resolver,
    /// Reads secrets.
    pub secrets: Reveal,
    /// The folder in which a gateway that runs keeps what must outlive its process, if there is one. Nothing is written there while a
    /// document is compiled.
    pub state: Option<PathBuf>,
    /// What policies have to have done off the workers.
    pub services: Services,
    /// The services that policies ask.
    pub upstreams: Upstreams,
    /// The routes that policies contribute.
    pub own: OwnRoutes,
}

impl Around {
    /// Nothing has been asked to be done yet.
    pub fn new(consumers: Arc<Consumers>, resolver: Resolver, secrets: Reveal) -> Self {
        Self {
            consumers,
            asks_for_certificates: false,
            keys: None,
            store: None,
            resolver,
            secrets,
            state: None,
            services: Services::default(),
            upstreams: Upstreams::default(),
            own: OwnRoutes::default(),
        }
    }
}

/// The upstreams of a document, for policies that call one.
#[derive(Debug, Default)]
pub struct Upstreams {
    /// Those that can be called, by name.
    pub all: BTreeMap<UpstreamName, Arc<Upstream>>,
    /// The names of all that are written, also of those that are wrong, which has been told.
    pub written: Vec<String>,
    /// The longest head of an answer: `limits.response_headers`, in bytes.
    pub max_head: usize,
}

impl Upstreams {
    /// The upstream of this name, and how it is called where nothing else is said.
    pub fn find(&self, name: &str) -> Result<(Arc<Upstream>, CallOptions), SpecError> {
        let wrong = |problem: String| SpecError::new(FieldPath::root(), problem);
        match self.all.get(&UpstreamName::from(name)) {
            Some(upstream) if upstream.speaks() == Speaks::Bytes => {
                let error = wrong(format!("the endpoints of `{name}` are `tcp://`, which is not HTTP"));
                Err(error.help("write them as `http://host:port`"))
            }
            Some(upstream) => {
                let options = upstream.options(&OfRoute::default(), self.max_head);
                Ok((Arc::clone(upstream), options))
            }
            None if self.written.iter().any(|written| written == name) => {
                Err(wrong(format!("the upstream `{name}` cannot be used")).help("see what is wrong with it"))
            }
            None if self.written.is_empty() => {
                let help = format!("add `upstreams: {{ {name}: {{ endpoints: [http://127.0.0.1:3000] }} }}`");
                Err(wrong(format!("no upstream is named `{name}`")).help(help))
            }
            None => {
                let names: Vec<String> = self.written.iter().take(24).map(|name| format!("`{name}`")).collect();
                let help = format!("the upstreams are {}", names.join(", "));
                Err(wrong(format!("no upstream is named `{name}`")).help(help))
            }
        }
    }
}

/// Work that a policy has done off the workers, such as keys that are fetched again. It lives as long as a snapshot holds it.
pub trait Service: fmt::Debug + Send + Sync {
    /// Begins it on the control runtime, once: it is called for each document that holds the service.
    fn start(&self, control: &Handle);

    /// Waits until it has come to a first result, good or bad.
    fn settle(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// What there is to be seen of it, where it is something that requests rest on.
    fn look(&self, now: Instant) -> Option<SupplyReading> {
        let _ = now;
        None
    }
}

impl Service for Redis {
    fn start(&self, control: &Handle) {
        Self::start(self, control);
    }

    fn settle(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(Self::settle(self))
    }

    fn look(&self, _: Instant) -> Option<SupplyReading> {
        let StoreReading { name, address, up, calls: _, failures, error } = self.reading();
        Some(SupplyReading { kind: name, from: address, up, failures, error, ..SupplyReading::default() })
    }
}

/// The services of a document.
#[derive(Debug, Default)]
pub struct Services(Mutex<Vec<Arc<dyn Service>>>);

impl Services {
    /// Adds one, unless it is there already.
    pub fn add(&self, service: Arc<dyn Service>) {
        let mut all = self.0.lock();
        if !all.iter().any(|other| Arc::ptr_eq(other, &service)) {
            all.push(service);
        }
    }

    /// All that were added.
    pub fn into_all(self) -> Vec<Arc<dyn Service>> {
        self.0.into_inner()
    }
}

/// What a policy answers: at once, or later by a boxed future for its cold path.
pub enum Step<'a, T> {
    /// It is decided.
    Done(Result<T, Stop>),
    /// It must be waited for.
    Wait(Waiting<'a, T>),
}

/// The cold path of a policy that has to wait, for a store or a service.
pub type Waiting<'a, T> = Pin<Box<dyn Future<Output = Result<T, Stop>> + Send + 'a>>;

impl<'a, T: 'a> Step<'a, T> {
    /// The same step with another memo.
    pub fn map<U: 'a>(self, wrap: fn(T) -> U) -> Step<'a, U> {
        match self {
            Self::Done(outcome) => Step::Done(outcome.map(wrap)),
            Self::Wait(waiting) => Step::Wait(Box::pin(async move { waiting.await.map(wrap) })),
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Step<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(outcome) => f.debug_tuple("Done").field(outcome).finish(),
            Self::Wait(_) => f.write_str("Wait"),
        }
    }
}

/// Why a request goes no further.
#[derive(Debug)]
pub enum Stop {
    /// The policy has the answer, such as that to a preflight.
    Reply(Response),
    /// The policy refuses; `proxy` writes the answer.
    Reject(Rejection),
}

impl From<Rejection> for Stop {
    fn from(rejection: Rejection) -> Self {
        Self::Reject(rejection)
    }
}

impl From<&'static Reason> for Stop {
    fn from(reason: &'static Reason) -> Self {
        Self::Reject(reason.into())
    }
}
