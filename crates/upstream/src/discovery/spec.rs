//! Discovery as it is written in a document.

use std::path::PathBuf;

use pylon_core::short::Short;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::units::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::consul::ConsulServiceSpec;
use super::etcd::EtcdPrefixSpec;
use super::kubernetes::KubernetesServiceSpec;

/// Where endpoints are found at run time: exactly one source.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DiscoverSpec {
    /// A name and a port; each address (A, AAAA) that the name has is an endpoint. It is resolved again when its TTL is over
    /// (1 s at the least, 5 min at the most). Default: none. Example: `users.internal:8080`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<String>,
    /// A name with records of type SRV; each names an endpoint with port and weight. Those of the lowest priority are used.
    /// Default: none. Example: `_http._tcp.users.internal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub srv: Option<String>,
    /// A file in the form of Prometheus' `file_sd`, YAML or JSON, which counts anew when it changes; the labels `weight` and
    /// `zone` are read. Default: none. Example: `targets.yaml`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// The healthy instances of a service of Consul, as its name or as a map; `discovery.consul` says who is asked. Default: none.
    /// Example: `orders`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consul: Option<Short<ConsulServiceSpec>>,
    /// The keys of etcd below a prefix, each of which names an endpoint; `discovery.etcd` says who is asked. Default: none.
    /// Example: `/services/orders/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd: Option<Short<EtcdPrefixSpec>>,
    /// The ready endpoints of a service of Kubernetes, as its name or as a map; `discovery.kubernetes` says who is asked.
    /// Default: none. Example: `{ service: orders, namespace: shop, port: http }`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<Short<KubernetesServiceSpec>>,
    /// For how long the last good answer is used while there is no other. A span of time; default `1h` for `dns` and `srv`, else
    /// until there is another. Example: `10m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<Span>,
}

/// The one source that is written.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Written<'a> {
    Dns(&'a str),
    Srv(&'a str),
    File(&'a PathBuf),
    Consul(&'a ConsulServiceSpec),
    Etcd(&'a EtcdPrefixSpec),
    Kubernetes(&'a KubernetesServiceSpec),
}

impl DiscoverSpec {
    /// The one source that is written. The error is told from the key `discover` down.
    pub(crate) fn written(&self) -> Result<Written<'_>, SpecError> {
        let sources = [
            self.dns.as_deref().map(Written::Dns),
            self.srv.as_deref().map(Written::Srv),
            self.file.as_ref().map(Written::File),
            self.consul.as_deref().map(Written::Consul),
            self.etcd.as_deref().map(Written::Etcd),
            self.kubernetes.as_deref().map(Written::Kubernetes),
        ];
        let mut sources = sources.into_iter().flatten();
        match (sources.next(), sources.next()) {
            (Some(source), None) => Ok(source),
            (None, _) => {
                let error = SpecError::new(FieldPath::root(), "this names no source of endpoints");
                Err(error.help("write one of `dns`, `srv`, `file`, `consul`, `etcd` and `kubernetes`"))
            }
            (Some(_), Some(_)) => {
                let error = SpecError::new(FieldPath::root(), "this names several sources of endpoints");
                Err(error.help("make them upstreams of their own, with a `split` between them"))
            }
        }
    }

    /// What is looked for, in a word.
    pub(crate) fn words(&self) -> String {
        match self.written() {
            Ok(Written::Dns(name) | Written::Srv(name)) => name.to_owned(),
            Ok(Written::File(path)) => path.display().to_string(),
            Ok(Written::Consul(spec)) => spec.service.clone(),
            Ok(Written::Etcd(spec)) => spec.prefix.clone(),
            Ok(Written::Kubernetes(spec)) => spec.words(),
            Err(_) => String::new(),
        }
    }
}
