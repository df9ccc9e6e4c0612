//! Services of Kubernetes: the ready endpoints of one, by a list and a watch of its EndpointSlices.
//!
//! (`discovery.k8s.io/v1`; <https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes>.) The list says
//! from which version on to watch; bookmarks move it forward; where it is too old (410 Gone) the list is read anew. A watch
//! lasts two minutes, and token and certificates are read anew with the next. Where a service has addresses of both families,
//! those of IPv4 are used: each pod is one endpoint.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, StatusCode, header};
use pylon_core::short::FromScalar;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_net::timer::sleep;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use self::access::{Access, Session};
use self::seen::{Page, Seen, Told, not_understood};
use super::ledger::Backoff;
use super::query;
use super::source::Report;
use crate::fetch::{Ask, FetchError};

pub mod access;
mod seen;

/// How long one answer of a list may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a watch lasts, in seconds, and how long beyond it is waited.
const WATCH: u64 = 120;
const SLACK: Duration = Duration::from_secs(15);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// The least time between two lists or watches, however often they end.
const PAUSE: Duration = Duration::from_millis(200);
/// The largest page of a list, and the largest line of a watch, in bytes.
const LARGEST: usize = 16 * 1024 * 1024;
/// How many slices a page of a list has.
const PAGE: usize = 500;
/// How many pages are read: far beyond what an upstream may have.
const PAGES: usize = 100;

/// A service of Kubernetes. Short: its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KubernetesServiceSpec {
    /// The name of the service. Required. Example: `orders`.
    pub service: String,
    /// Its namespace. Default: that of the gateway's own service account, or of the kubeconfig's context. Example: `shop`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The name of a port of the service, or the number of a port of its pods. Default: the one port there is. Example: `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<PortSpec>,
}

impl KubernetesServiceSpec {
    /// What is looked for, in a word.
    pub(crate) fn words(&self) -> String {
        let namespace = self.namespace.iter().map(|namespace| format!("{namespace}/"));
        let port = self.port.iter().map(|port| format!(":{port}"));
        namespace.chain([self.service.clone()]).chain(port).collect()
    }
}

impl FromScalar for KubernetesServiceSpec {
    const EXPECTING: &'static str = "the name of a service of Kubernetes";

    fn from_scalar(text: &str) -> Result<Self, String> {
        Ok(Self { service: text.to_owned(), namespace: None, port: None })
    }
}

/// A port by its name or number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortSpec {
    /// The name that the service gives it.
    Name(String),
    /// The number at which pods listen.
    Number(u16),
}

impl fmt::Display for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Number(number) => number.fmt(f),
        }
    }
}

impl Serialize for PortSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Name(name) => serializer.serialize_str(name),
            Self::Number(number) => serializer.serialize_u16(*number),
        }
    }
}

impl<'de> Deserialize<'de> for PortSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Port;
        impl de::Visitor<'_> for Port {
            type Value = PortSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name or the number of a port")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<PortSpec, E> {
                let number = u16::try_from(number).ok().filter(|number| *number > 0);
                number.map(PortSpec::Number).ok_or_else(|| E::custom("this is not the number of a port"))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<PortSpec, E> {
                self.visit_u64(u64::try_from(number).unwrap_or_default())
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<PortSpec, E> {
                text.parse().map_or_else(|_| Ok(PortSpec::Name(text.to_owned())), |number: u64| self.visit_u64(number))
            }
        }
        deserializer.deserialize_any(Port)
    }
}

impl JsonSchema for PortSpec {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PortSpec".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"], "description": "The name or the number of a port" })
    }
}

/// A service whose slices are followed.
#[derive(Debug)]
pub(crate) struct Slices {
    access: Arc<Access>,
    service: String,
    namespace: Option<String>,
    port: Option<PortSpec>,
}

impl Slices {
    pub(crate) fn compile(spec: &KubernetesServiceSpec, access: Arc<Access>) -> Result<Self, SpecError> {
        // RFC 1123, as names of Kubernetes are.
        let label = |text: &str| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
        };
        let wrong = |key: &str, text: &str| {
            let error = SpecError::new(FieldPath::root().key(key), format!("`{text}` is not a name of Kubernetes"));
            Err(error.help("names have small letters, digits and `-`"))
        };
        match &spec.namespace {
            _ if !label(&spec.service) => wrong("service", &spec.service),
            Some(namespace) if !label(namespace) => wrong("namespace", namespace),
            namespace => Ok(Self {
                access,
                service: spec.service.clone(),
                namespace: namespace.clone(),
                port: spec.port.clone(),
            }),
        }
    }

    pub(crate) async fn follow(&self, report: &Report) {
        let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
        loop {
            let mut good = false;
            let looked = self.look(report, &mut good).await;
            if good {
                backoff.reset();
            }
            let wait = match looked {
                Ok(()) => PAUSE.mul_f64(0.5 + fastrand::f64()),
                Err(error) => {
                    report.failed(error);
                    backoff.next(fastrand::f64())
                }
            };
            sleep(wait).await;
        }
    }

    /// A list, and watches for as long as their version is known. `good` says that the list was answered.
    async fn look(&self, report: &Report, good: &mut bool) -> Result<(), String> {
        let mut seen = self.list().await?;
        *good = true;
        self.tell(report, &seen);
        loop {
            let session = self.access.session().await?;
            let mut path = self.path(&session);
            let seconds = WATCH.saturating_sub(fastrand::u64(0..=WATCH / 10));
            query::add(&mut path, "watch", "1");
            query::add(&mut path, "allowWatchBookmarks", "true");
            query::add(&mut path, "resourceVersion", &seen.version);
            query::add(&mut path, "timeoutSeconds", &seconds.to_string());
            let end = now() + Duration::from_secs(seconds) + SLACK;
            let answer = session.remote.ask(&ask(path, &session), now() + PATIENCE).await;
            let mut watch = answer.map_err(|error| error.to_string())?;
            if watch.status == StatusCode::GONE {
                return Ok(());
            }
            if watch.status != StatusCode::OK {
                let whole = watch.whole(LARGEST, now() + PATIENCE).await.map_err(|error| error.to_string())?;
                return Err(query::refusal(&whole));
            }
            report.confirmed();
            loop {
                let line = match watch.line(LARGEST, end).await {
                    Ok(Some(line)) => line,
                    Ok(None) => break,
                    // What is silent beyond its time is dead.
                    Err(FetchError::Late) => return Ok(()),
                    Err(error) => return Err(error.to_string()),
                };
                match seen.take(&line)? {
                    Told::News => self.tell(report, &seen),
                    Told::Nothing => report.confirmed(),
                    Told::Gone => return Ok(()),
                }
            }
            sleep(PAUSE.mul_f64(0.5 + fastrand::f64())).await;
        }
    }

    async fn list(&self) -> Result<Seen, String> {
        let session = self.access.session().await?;
        let mut seen = Seen::default();
        let mut next = String::new();
        for _ in 0..PAGES {
            let mut path = self.path(&session);
            query::add(&mut path, "limit", &PAGE.to_string());
            if !next.is_empty() {
                query::add(&mut path, "continue", &next);
            }
            let answer = session.remote.fetch(&ask(path, &session), LARGEST, now() + PATIENCE).await;
            let answer = answer.map_err(|error| error.to_string())?;
            if answer.status != StatusCode::OK {
                return Err(query::refusal(&answer));
            }
            let page: Page = serde_json::from_slice(&answer.body).map_err(|error| not_understood(&error))?;
            for slice in page.items.unwrap_or_default() {
                seen.slices.insert(slice.metadata.name.clone(), slice);
            }
            seen.version = page.metadata.resource_version;
            next = page.metadata.next.unwrap_or_default();
            if next.is_empty() {
                return Ok(seen);
            }
        }
        Err(format!("the list has more than {PAGES} pages"))
    }

    fn tell(&self, report: &Report, seen: &Seen) {
        let (targets, trouble) = seen.targets(self.port.as_ref());
        report.found(targets, trouble);
    }

    fn path(&self, session: &Session) -> String {
        let namespace = self.namespace.as_ref().unwrap_or(&session.namespace);
        let mut path = format!("/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices", query::escaped(namespace));
        path.push_str("?labelSelector=");
        path.push_str(&query::escaped(&format!("kubernetes.io/service-name={}", self.service)));
        path
    }
}

fn ask(path: String, session: &Session) -> Ask {
    let ask = Ask::get(path).with(header::ACCEPT, HeaderValue::from_static("application/json"));
    match &session.authorization {
        Some(authorization) => ask.with(header::AUTHORIZATION, authorization.clone()),
        None => ask,
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
