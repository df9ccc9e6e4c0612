//! What an API server says of EndpointSlices: those of a service, as a list names them and a watch changes them. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::PortSpec;
use crate::discovery::target::Target;
use crate::locality::Whereabouts;

#[derive(Debug, Deserialize)]
pub(super) struct Page {
    pub(super) metadata: ListMeta,
    pub(super) items: Option<Vec<Slice>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ListMeta {
    pub(super) resource_version: String,
    #[serde(rename = "continue")]
    pub(super) next: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Slice {
    pub(super) metadata: Meta,
    #[serde(default)]
    address_type: String,
    endpoints: Option<Vec<Listed>>,
    ports: Option<Vec<Port>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Meta {
    pub(super) name: String,
    resource_version: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Listed {
    addresses: Vec<String>,
    conditions: Option<Conditions>,
    zone: Option<String>,
    hints: Option<Hints>,
}

/// For whom an endpoint is meant (topology-aware routing).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Hints {
    for_zones: Option<Vec<ForZone>>,
}

#[derive(Debug, Deserialize)]
struct ForZone {
    name: String,
}

impl Listed {
    fn whereabouts(&self) -> Whereabouts {
        let zones = self.hints.as_ref().and_then(|hints| hints.for_zones.as_ref());
        let serves = zones.map(|zones| zones.iter().map(|zone| Arc::from(zone.name.as_str())).collect());
        Whereabouts { serves, ..Whereabouts::new(self.zone.as_deref(), None) }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Port {
    name: Option<String>,
    #[serde(rename = "port")]
    number: Option<u16>,
    protocol: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    object: Value,
}

/// What a line of a watch comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    News,
    Nothing,
    /// The version is too old: the list is to be read anew.
    Gone,
}

/// The slices of a service, and their version. Pure.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) slices: BTreeMap<String, Slice>,
    pub(super) version: String,
}

impl Seen {
    /// Takes in a line of a watch.
    pub(super) fn take(&mut self, line: &[u8]) -> Result<Told, String> {
        let Line { kind, object } = serde_json::from_slice(line).map_err(|error| not_understood(&error))?;
        if kind == "ERROR" {
            let message = object.get("message").and_then(Value::as_str).unwrap_or_default().to_owned();
            return if object.get("code").and_then(Value::as_u64) == Some(410) {
                Ok(Told::Gone)
            } else {
                Err(format!("the watch ended: {message}"))
            };
        }
        if kind == "BOOKMARK" {
            let version = object.pointer("/metadata/resourceVersion").and_then(Value::as_str);
            version.unwrap_or_default().clone_into(&mut self.version);
            return Ok(Told::Nothing);
        }
        let slice: Slice = serde_json::from_value(object).map_err(|error| not_understood(&error))?;
        slice.metadata.resource_version.clone_into(&mut self.version);
        match kind.as_str() {
            "ADDED" | "MODIFIED" => _ = self.slices.insert(slice.metadata.name.clone(), slice),
            "DELETED" => _ = self.slices.remove(&slice.metadata.name),
            // A word of a later version of the API.
            _ => return Ok(Told::Nothing),
        }
        Ok(Told::News)
    }

    /// The endpoints that are ready, at the port that is asked for.
    pub(super) fn targets(&self, wanted: Option<&PortSpec>) -> (Vec<Target>, Option<String>) {
        let mut trouble = None;
        let ready = |listed: &&Listed| {
            // What is not said is `true` of `ready` and `false` of `terminating`.
            let conditions = listed.conditions.as_ref();
            let (ready, terminating) = (conditions.and_then(|c| c.ready), conditions.and_then(|c| c.terminating));
            ready != Some(false) && terminating != Some(true)
        };
        let has = |family: &str| {
            let slices = self.slices.values().filter(|slice| slice.address_type == family);
            slices.flat_map(|slice| slice.endpoints.iter().flatten()).any(|listed| ready(&listed))
        };
        let both = has("IPv4") && has("IPv6");
        let mut targets = Vec::new();
        for slice in self.slices.values().filter(|slice| !(both && slice.address_type == "IPv6")) {
            let mut endpoints = slice.endpoints.iter().flatten().filter(ready).peekable();
            if endpoints.peek().is_none() {
                continue;
            }
            let port = match port(slice, wanted) {
                Ok(port) => port,
                Err(error) => {
                    trouble = Some(format!("slice `{}`: {error}", slice.metadata.name));
                    continue;
                }
            };
            for listed in endpoints {
                let target = listed.addresses.first().and_then(|address| Target::new(address, port));
                match target {
                    Some(target) => targets.push(Target { whereabouts: listed.whereabouts(), ..target }),
                    None => {
                        trouble = Some(format!("slice `{}`: an endpoint has no address of use", slice.metadata.name));
                    }
                }
            }
        }
        (targets, trouble)
    }
}

fn port(slice: &Slice, wanted: Option<&PortSpec>) -> Result<u16, String> {
    let ports = || {
        let ports = slice.ports.iter().flatten();
        ports.filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"))
    };
    let found = match wanted {
        Some(PortSpec::Name(name)) => {
            ports().find(|port| port.name.as_deref() == Some(name)).and_then(|port| port.number)
        }
        // A slice without ports, or with one that has no number, is for all of them.
        Some(PortSpec::Number(number)) => {
            let has = ports().next().is_none() || ports().any(|port| port.number.is_none_or(|port| port == *number));
            has.then_some(*number)
        }
        None => {
            let mut all = ports().filter_map(|port| port.number);
            match (all.next(), all.next()) {
                (Some(only), None) => Some(only),
                (Some(_), Some(_)) => return Err(format!("there are several ports, {}: write `port`", shown(ports()))),
                (None, _) => return Err("there is no port: write `port`".to_owned()),
            }
        }
    };
    found.ok_or_else(|| {
        let wanted = wanted.map(ToString::to_string).unwrap_or_default();
        format!("there is no port `{wanted}`, but {}", shown(ports()))
    })
}

fn shown<'a>(ports: impl Iterator<Item = &'a Port>) -> String {
    let text = |port: &Port| {
        let (name, number) = (port.name.as_deref().unwrap_or_default(), port.number.unwrap_or_default());
        format!("`{name}` ({number})")
    };
    let all: Vec<_> = ports.map(text).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

pub(super) fn not_understood(error: &serde_json::Error) -> String {
    format!("the answer is not understood: {error}")
}

#[cfg(test)]
mod tests;
