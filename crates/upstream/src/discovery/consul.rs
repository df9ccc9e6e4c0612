//! Services of Consul: the healthy instances of one, by blocking queries.
//!
//! `/v1/health/service/<name>?passing=1` with `index` and `wait` answers when something changed, or when `wait` is over
//! (<https://developer.hashicorp.com/consul/api-docs/features/blocking>). An index that goes backwards, or is 0, begins anew. Where
//! answers come at once and say nothing new, blocking does not work there, and the service is asked each 30 s.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue, StatusCode};
use pylon_core::secret::SecretSpec;
use pylon_core::short::{FromScalar, OneOrMany};
use pylon_core::spec::{FieldPath, SpecError};
use pylon_net::timer::sleep;
use pylon_net::tls::spec::UpstreamTlsSpec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::agents::{Reading, credential};
use super::ledger::Backoff;
use super::query;
use super::source::Report;
use super::target::{HEAVIEST, Target};
use crate::fetch::{Ask, FetchError, Remote, Whole};

const TOKEN: HeaderName = HeaderName::from_static("x-consul-token");
const INDEX: HeaderName = HeaderName::from_static("x-consul-index");
const FILTERED: HeaderName = HeaderName::from_static("x-consul-results-filtered-by-acls");

/// How long Consul waits for a change, in the form that it reads.
const WAIT: (&str, Duration) = ("55s", Duration::from_secs(55));
/// Beyond that: Consul adds up to a sixteenth of it, and an answer needs its time.
const SLACK: Duration = Duration::from_secs(15);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// How often a service is asked where blocking does not work.
const POLL: Duration = Duration::from_secs(30);
/// An answer that comes sooner and says nothing new was not waited for.
const AT_ONCE: Duration = Duration::from_secs(1);
/// After how many such in a row polling begins.
const FUTILE: u32 = 3;
/// The least time between two questions, however fast a service changes.
const PAUSE: Duration = Duration::from_millis(200);
/// The largest answer, in bytes.
const LARGEST: usize = 16 * 1024 * 1024;

/// An agent of Consul.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsulSpec {
    /// The agent's HTTP API: a URL, or `unix:` and the path of its socket. Required. Example: `http://127.0.0.1:8500`.
    pub address: String,
    /// The ACL token, which needs `service:read` and `node:read`: `env:NAME` or `file:PATH`. Default: none, the anonymous token.
    /// Example: `env:CONSUL_HTTP_TOKEN`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<SecretSpec>,
    /// The data centre that is asked, where an upstream does not say. Default: that of the agent. Example: `eu-1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datacenter: Option<String>,
    /// TLS towards the agent, where its address begins with `https://`. Default: verified by the system's roots.
    /// Example: `{ ca: certs/consul.pem }`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<UpstreamTlsSpec>,
}

/// A service of Consul. Short: its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsulServiceSpec {
    /// The name of the service. Required. Example: `orders`.
    pub service: String,
    /// Tags that an instance must have, all of them: one or a list. Default: none. Example: `[http, v2]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<OneOrMany<String>>,
    /// The data centre that is asked. Default: that of `discovery.consul`. Example: `eu-1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datacenter: Option<String>,
    /// An expression of Consul's own that instances must meet. Default: none. Example: `Service.Meta.version == v2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
}

impl FromScalar for ConsulServiceSpec {
    const EXPECTING: &'static str = "the name of a service of Consul";

    fn from_scalar(text: &str) -> Result<Self, String> {
        Ok(Self { service: text.to_owned(), tags: None, datacenter: None, filter: None })
    }
}

/// An agent that is asked.
#[derive(Debug)]
pub(crate) struct Agent {
    remote: Remote,
    token: Option<HeaderValue>,
    datacenter: Option<String>,
}

impl Agent {
    pub(crate) fn compile(spec: &ConsulSpec, cx: &Reading<'_>) -> Result<Self, Vec<SpecError>> {
        let remote = Remote::new(&spec.address, &FieldPath::root().key("address"), spec.tls.as_ref(), cx.resolver);
        let token = credential(spec.token.as_ref(), "token", cx);
        match (remote, token) {
            (Ok(remote), Ok(token)) => Ok(Self { remote, token, datacenter: spec.datacenter.clone() }),
            (remote, token) => Err(remote.err().into_iter().flatten().chain(token.err()).collect()),
        }
    }
}

/// A service that is looked for.
#[derive(Debug)]
pub(crate) struct Service {
    agent: Arc<Agent>,
    /// Path and query, but for the index.
    path: String,
}

impl Service {
    pub(crate) fn compile(spec: &ConsulServiceSpec, agent: Arc<Agent>) -> Result<Self, SpecError> {
        if spec.service.is_empty() {
            return Err(SpecError::new(FieldPath::root(), "this is no name of a service"));
        }
        let mut path = format!("/v1/health/service/{}?passing=1", query::escaped(&spec.service));
        for tag in spec.tags.iter().flat_map(|tags| &tags.0) {
            query::add(&mut path, "tag", tag);
        }
        if let Some(datacenter) = spec.datacenter.as_ref().or(agent.datacenter.as_ref()) {
            query::add(&mut path, "dc", datacenter);
        }
        if let Some(filter) = &spec.filter {
            query::add(&mut path, "filter", filter);
        }
        Ok(Self { agent, path })
    }

    pub(crate) async fn follow(&self, report: &Report) {
        let mut cursor = Cursor::default();
        let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
        loop {
            let asked = now();
            let wait = match self.look(cursor.index).await {
                Ok(Found { targets, trouble, index }) => {
                    backoff.reset();
                    report.found(targets, trouble);
                    cursor.answered(index, now().saturating_duration_since(asked), fastrand::f64())
                }
                Err(error) => {
                    // Whoever comes back may count anew, and is to answer at once.
                    cursor = Cursor::default();
                    report.failed(error);
                    backoff.next(fastrand::f64())
                }
            };
            sleep(wait).await;
        }
    }

    async fn look(&self, index: u64) -> Result<Found, String> {
        let mut path = self.path.clone();
        if index > 0 {
            query::add(&mut path, "index", &index.to_string());
            query::add(&mut path, "wait", WAIT.0);
        }
        let mut ask = Ask::get(path);
        if let Some(token) = &self.agent.token {
            ask = ask.with(TOKEN, token.clone());
        }
        let time = if index > 0 { WAIT.1 + SLACK } else { SLACK };
        let answer = self.agent.remote.fetch(&ask, LARGEST, now() + time).await;
        read(&answer.map_err(|error: FetchError| error.to_string())?)
    }
}

/// What an answer says.
#[derive(Debug)]
struct Found {
    targets: Vec<Target>,
    trouble: Option<String>,
    /// None where there is none that can be waited by.
    index: Option<u64>,
}

/// Where blocking queries stand. Pure.
#[derive(Debug, Default)]
struct Cursor {
    /// The index to wait by; 0 to be answered at once.
    index: u64,
    /// Answers in a row that were not waited for though they were to be, or cannot be waited by.
    futile: u32,
}

impl Cursor {
    /// Takes in the index of an answer that `took` so long; says how long to rest before the next question. `lot` is from 0 to 1.
    fn answered(&mut self, index: Option<u64>, took: Duration, lot: f64) -> Duration {
        let asked = std::mem::take(&mut self.index);
        match index {
            None | Some(0) => self.futile = self.futile.saturating_add(1),
            // It went backwards, since a server was restored: begin anew. Again and again, it is of no use.
            Some(index) if index < asked => self.futile = self.futile.saturating_add(1),
            // Nobody was to wait.
            Some(index) if asked == 0 => self.index = index,
            Some(index) => {
                self.index = index;
                let waited = index > asked || took >= AT_ONCE;
                self.futile = if waited { 0 } else { self.futile.saturating_add(1) };
            }
        }
        if self.futile >= FUTILE { POLL.mul_f64(0.9 + 0.2 * lot) } else { PAUSE.mul_f64(0.5 + lot) }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Instance {
    node: Node,
    service: Registered,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Node {
    address: String,
    meta: Option<BTreeMap<String, String>>,
    locality: Option<Locality>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Registered {
    #[serde(rename = "ID")]
    id: String,
    address: String,
    port: u16,
    weights: Option<Weights>,
    meta: Option<BTreeMap<String, String>>,
    locality: Option<Locality>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    passing: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Locality {
    zone: String,
    region: String,
}

fn read(answer: &Whole) -> Result<Found, String> {
    if answer.status != StatusCode::OK {
        return Err(query::refusal(answer));
    }
    let instances: Vec<Instance> =
        serde_json::from_slice(&answer.body).map_err(|error| format!("the answer is not understood: {error}"))?;
    let field = |name: &HeaderName| answer.headers.get(name).and_then(|value| value.to_str().ok());
    if instances.is_empty() && field(&FILTERED) == Some("true") {
        return Err("the token may not see the instances of this service".to_owned());
    }
    let mut trouble = None;
    let targets = instances.iter().filter_map(|instance| {
        let target = target(instance);
        if target.is_none() {
            trouble = Some(format!("instance `{}` has no address that can be used", instance.service.id));
        }
        target
    });
    let targets = targets.collect();
    Ok(Found { targets, trouble, index: field(&INDEX).and_then(|text| text.parse().ok()) })
}

fn target(Instance { node, service }: &Instance) -> Option<Target> {
    let host = if service.address.is_empty() { &node.address } else { &service.address };
    let meta = |meta: &Option<BTreeMap<String, String>>, name: &str| meta.as_ref()?.get(name).cloned();
    let place = |locality: &Option<Locality>, name: &str| {
        let Locality { zone, region } = locality.as_ref()?;
        Some(if name == "zone" { zone } else { region }.clone())
    };
    let says = |name: &str| match name {
        "weight" => Some(service.weights.as_ref()?.passing.clamp(1, HEAVIEST.into()).to_string()),
        // What is no number is for other readers.
        "priority" => [&service.meta, &node.meta].into_iter().filter_map(|of| meta(of, name)).find(is_number),
        _ => {
            let own = meta(&service.meta, name).into_iter().chain(place(&service.locality, name));
            let all = own.chain(meta(&node.meta, name)).chain(place(&node.locality, name));
            all.into_iter().find(|text| !text.is_empty())
        }
    };
    Target::new(host, service.port)?.described(says).ok()
}

#[expect(clippy::ptr_arg, reason = "it is asked of what stands in a map")]
fn is_number(text: &String) -> bool {
    text.parse::<u16>().is_ok()
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    fn answer(status: u16, fields: &[(HeaderName, &'static str)], body: &str) -> Whole {
        let headers: HeaderMap =
            fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
        Whole { status: StatusCode::from_u16(status).unwrap(), headers, body: body.to_owned().into() }
    }

    /// As Consul 1.16 answers, abridged.
    const TWO: &str = r#"[
      {"Node":{"ID":"5e","Node":"n1","Address":"10.0.0.1","Datacenter":"dc1","TaggedAddresses":{"lan":"10.0.0.1"},"Meta":{"zone":"eu-1a","priority":"high"},"Locality":{"Region":"eu-1","Zone":"eu-1x"},"CreateIndex":13},
       "Service":{"ID":"orders-1","Service":"orders","Tags":["v2"],"Address":"","Meta":null,"Port":8080,"Weights":{"Passing":3,"Warning":1},"EnableTagOverride":false},
       "Checks":[{"Node":"n1","CheckID":"serfHealth","Status":"passing"}]},
      {"Node":{"ID":"5f","Node":"n2","Address":"10.0.0.2","Datacenter":"dc1","Meta":{"zone":"eu-1b"}},
       "Service":{"ID":"orders-2","Service":"orders","Tags":[],"Address":"orders2.internal","Meta":{"zone":"eu-1c","priority":"2"},"Port":8081,"Weights":{"Passing":1,"Warning":1}},
       "Checks":[]}]"#;

    #[test]
    fn instances_have_the_address_of_their_service_else_of_their_node_and_weight_and_zone() {
        let found = read(&answer(200, &[(INDEX, "42")], TWO)).unwrap();
        let zone = |one: &Target| one.whereabouts.zone.as_deref().unwrap_or_default().to_owned();
        let region = |one: &Target| one.whereabouts.region.as_deref().unwrap_or_default().to_owned();
        let place = |one: &Target| (zone(one), region(one), one.priority);
        let targets: Vec<_> = found.targets.iter().map(|one| (&*one.host, one.port, one.weight, place(one))).collect();
        let (first, second) = (("eu-1a".into(), "eu-1".into(), 0), ("eu-1c".into(), String::new(), 2));
        assert_eq!(targets, [("10.0.0.1", 8080, 3, first), ("orders2.internal", 8081, 1, second)]);
        assert_eq!((found.index, found.trouble), (Some(42), None));
        let found = read(&answer(200, &[], r#"[{"Node":{"Address":"a b"},"Service":{"ID":"x","Port":80}}]"#)).unwrap();
        assert_eq!((found.targets.len(), found.index), (0, None));
        assert!(found.trouble.unwrap().contains("instance `x`"));
    }

    #[test]
    fn what_is_no_answer_is_told_and_nobody_takes_a_blind_token_for_an_empty_service() {
        for (refused, why) in [
            (
                answer(403, &[], "Permission denied: token with AccessorID '0' lacks permission"),
                "403 Forbidden: Permission",
            ),
            (answer(500, &[], "No cluster leader"), "500 Internal Server Error: No cluster leader"),
            (answer(200, &[(FILTERED, "true")], "[]"), "may not see"),
            (answer(200, &[], "<html>"), "not understood"),
        ] {
            let error = read(&refused).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        assert!(read(&answer(200, &[], "[]")).unwrap().targets.is_empty(), "nobody is there, and that is meant");
    }

    #[test]
    fn an_index_is_waited_by_until_it_goes_backwards_or_is_nothing() {
        let mut cursor = Cursor::default();
        let fast = Duration::from_millis(2);
        assert!(cursor.answered(Some(40), fast, 0.5) < AT_ONCE);
        assert_eq!(cursor.index, 40);
        cursor.answered(Some(41), fast, 0.5);
        cursor.answered(Some(41), Duration::from_secs(57), 0.5);
        assert_eq!((cursor.index, cursor.futile), (41, 0));
        assert!(cursor.answered(Some(7), fast, 0.5) < AT_ONCE);
        assert_eq!(cursor.index, 0, "a server was restored: ask anew");
        cursor.answered(Some(7), fast, 0.5);
        assert_eq!(cursor.index, 7);
        cursor.answered(Some(0), fast, 0.5);
        assert_eq!(cursor.index, 0);
    }

    #[test]
    fn where_blocking_does_not_work_it_is_asked_each_half_minute_and_blocks_again_once_it_does() {
        for index in [None, Some(9)] {
            let (mut cursor, fast) = (Cursor::default(), Duration::from_millis(2));
            cursor.answered(index, fast, 0.0);
            let rests: Vec<_> = (0..4).map(|_| cursor.answered(index, fast, 0.5).as_secs()).collect();
            assert_eq!(rests.last(), Some(&30), "{index:?}: {rests:?}");
            assert_eq!(rests.first(), Some(&0), "once is no pattern");
            // It is given the next chance to let somebody wait.
            cursor.answered(Some(10), fast, 0.5);
            assert!(cursor.answered(Some(10), Duration::from_secs(50), 0.5) < AT_ONCE, "{index:?}");
        }
        // One that counts back and forth is no better.
        let mut cursor = Cursor::default();
        let rests = (0..20).map(|turn| cursor.answered(Some(9 - turn % 2), Duration::from_millis(2), 0.5).as_secs());
        assert_eq!(rests.max(), Some(30));
    }
}
