//! Who is asked for endpoints: the key `discovery`, compiled. What an upstream looks for there is its own.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use http::HeaderValue;
use pylon_core::secret::{Reveal, SecretSpec};
use pylon_core::spec::{FieldPath, SpecError};
use pylon_net::resolve::Resolver;
use pylon_net::spec::DnsSpec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::consul::{Agent, ConsulSpec};
use super::etcd::{Cluster, EtcdSpec};
use super::file::ReadYaml;
use super::kubernetes::access::{Access, KubernetesSpec};
use super::spec::{DiscoverSpec, Written};

/// Who is asked for names and endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DiscoverySpec {
    /// Name servers. Default: those of the system. Example: `{ servers: [10.0.0.2:53] }`.
    pub dns: DnsSpec,
    /// The agent of Consul, for upstreams with `discover: { consul: … }`. Default: none.
    /// Example: `{ address: http://127.0.0.1:8500 }`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consul: Option<ConsulSpec>,
    /// The members of an etcd cluster, for upstreams with `discover: { etcd: … }`. Default: none.
    /// Example: `{ endpoints: [http://127.0.0.1:2379] }`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd: Option<EtcdSpec>,
    /// The API server of Kubernetes, for upstreams with `discover: { kubernetes: … }`. Default: that of the cluster that the
    /// gateway runs in. Example: `{ kubeconfig: /etc/pylon/kubeconfig }`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<KubernetesSpec>,
}

/// What the key is compiled with.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a> {
    /// Who resolves host names.
    pub resolver: &'a Resolver,
    /// Reads files of YAML.
    pub yaml: ReadYaml,
    /// Reads secrets.
    pub reveal: Reveal,
}

/// Who is asked.
#[derive(Debug)]
pub struct Agents {
    pub(crate) consul: Option<Arc<Agent>>,
    pub(crate) etcd: Option<Arc<Cluster>>,
    pub(crate) kubernetes: Arc<Access>,
    /// Of Consul, etcd and Kubernetes: what tells them from others of their kind.
    identities: [String; 3],
}

impl Agents {
    /// From what is written. All that is wrong is told at once, from the key `discovery` down.
    pub fn compile(spec: &DiscoverySpec, cx: &Reading<'_>) -> Result<Self, Vec<SpecError>> {
        let mut errors = Vec::new();
        let consul = spec.consul.as_ref().map(|consul| Agent::compile(consul, cx));
        let consul = part(consul.transpose(), "consul", &mut errors).flatten();
        let etcd = spec.etcd.as_ref().map(|etcd| Cluster::compile(etcd, cx));
        let etcd = part(etcd.transpose(), "etcd", &mut errors).flatten();
        let kubernetes = Access::compile(spec.kubernetes.as_ref(), cx);
        let kubernetes = part(kubernetes, "kubernetes", &mut errors);
        let identities = [
            format!("{:?} {}", spec.consul, fingerprint(spec.consul.iter().filter_map(|spec| spec.token.as_ref()), cx)),
            format!("{:?} {}", spec.etcd, fingerprint(spec.etcd.iter().filter_map(|spec| spec.password.as_ref()), cx)),
            format!("{:?}", spec.kubernetes),
        ];
        match kubernetes {
            Some(kubernetes) if errors.is_empty() => Ok(Self {
                consul: consul.map(Arc::new),
                etcd: etcd.map(Arc::new),
                kubernetes: Arc::new(kubernetes),
                identities,
            }),
            _ => Err(errors),
        }
    }

    /// What tells apart two that are asked for the same: empty where it is nobody of these.
    pub fn identity(&self, discover: Option<&DiscoverSpec>) -> &str {
        let [consul, etcd, kubernetes] = &self.identities;
        match discover.map(DiscoverSpec::written) {
            Some(Ok(Written::Consul(_))) => consul,
            Some(Ok(Written::Etcd(_))) => etcd,
            Some(Ok(Written::Kubernetes(_))) => kubernetes,
            _ => "",
        }
    }
}

/// A secret as the value of a field, which does not show. The error is told at `key`.
pub(crate) fn credential(
    spec: Option<&SecretSpec>,
    key: &str,
    cx: &Reading<'_>,
) -> Result<Option<HeaderValue>, SpecError> {
    let at = || FieldPath::root().key(key);
    let Some(spec) = spec else { return Ok(None) };
    let secret = (cx.reveal)(spec).map_err(|error| error.below(&at()))?;
    let value = HeaderValue::from_bytes(secret.expose());
    let mut value = value.map_err(|_| SpecError::new(at(), "this secret has bytes that no header may have"))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

fn part<T>(compiled: Result<T, Vec<SpecError>>, key: &str, errors: &mut Vec<SpecError>) -> Option<T> {
    let below = FieldPath::root().key(key);
    compiled.map_err(|found| errors.extend(found.into_iter().map(|error| error.below(&below)))).ok()
}

/// So that another secret at the same place makes another agent. It stays in memory.
fn fingerprint<'a>(specs: impl Iterator<Item = &'a SecretSpec>, cx: &Reading<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    for secret in specs.filter_map(|spec| (cx.reveal)(spec).ok()) {
        secret.expose().hash(&mut hasher);
    }
    hasher.finish()
}
