//! What the answers of etcd say: the keys below a prefix, as a range lists them and a watch changes them. Pure.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use crate::discovery::target::Target;

#[derive(Debug, Deserialize)]
pub(super) struct Range {
    pub(super) header: Header,
    pub(super) kvs: Option<Vec<Pair>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Header {
    revision: Option<String>,
}

impl Header {
    pub(super) fn revision(&self) -> Result<i64, String> {
        let revision = self.revision.as_ref().and_then(|text| text.parse().ok());
        revision.ok_or_else(|| "the answer has no revision".to_owned())
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Pair {
    key: String,
    #[serde(default)]
    value: String,
}

/// A line of a watch.
#[derive(Debug, Deserialize)]
struct Line {
    result: Option<Watched>,
    error: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Watched {
    canceled: bool,
    cancel_reason: String,
    compact_revision: Option<String>,
    events: Option<Vec<Event>>,
}

#[derive(Debug, Deserialize)]
struct Event {
    /// `PUT` where it is left out.
    #[serde(rename = "type", default)]
    kind: String,
    kv: Pair,
}

/// What is there, by key. Pure.
#[derive(Debug, Default)]
pub(super) struct Keys(BTreeMap<Vec<u8>, Vec<u8>>);

/// What a line of a watch comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    News,
    Nothing,
    /// The watch is over, and nothing is amiss: another range is due.
    Over,
}

impl Keys {
    pub(super) fn put(&mut self, pair: &Pair) -> Result<(), String> {
        self.0.insert(decoded(&pair.key)?, decoded(&pair.value)?);
        Ok(())
    }

    /// Takes in a line of a watch.
    pub(super) fn take(&mut self, line: &[u8]) -> Result<Told, String> {
        let line: Line = serde_json::from_slice(line).map_err(|error| not_understood(&error))?;
        if let Some(error) = line.error {
            let message = error.get("message").and_then(Value::as_str).map_or_else(|| error.to_string(), str::to_owned);
            return Err(format!("the watch ended: {message}"));
        }
        let watched = line.result.unwrap_or_default();
        if watched.canceled {
            // What was compacted is read anew; who lost the leader, or the right to look, is to be heard.
            let compacted = watched.compact_revision.is_some_and(|revision| revision != "0");
            return if compacted { Ok(Told::Over) } else { Err(format!("the watch ended: {}", watched.cancel_reason)) };
        }
        let events = watched.events.unwrap_or_default();
        for event in &events {
            if event.kind == "DELETE" {
                self.0.remove(&decoded(&event.kv.key)?);
            } else {
                self.put(&event.kv)?;
            }
        }
        Ok(if events.is_empty() { Told::Nothing } else { Told::News })
    }

    pub(super) fn targets(&self) -> (Vec<Target>, Option<String>) {
        let mut trouble = None;
        let mut targets = Vec::with_capacity(self.0.len());
        for (key, value) in &self.0 {
            match target(value) {
                Ok(target) => targets.extend(target),
                Err(error) => trouble = Some(format!("key `{}`: {error}", String::from_utf8_lossy(key))),
            }
        }
        (targets, trouble)
    }
}

/// `host:port`, or a map; in etcd's own naming one with `Addr`, which is none where `Op` says that it was deleted.
fn target(value: &[u8]) -> Result<Option<Target>, String> {
    let text = std::str::from_utf8(value).map_err(|_| "its value is not text".to_owned())?.trim();
    let parse = |text: &str| Target::parse(text).ok_or_else(|| format!("`{text}` is not a host with a port"));
    if !text.starts_with('{') {
        return parse(text).map(Some);
    }
    let value: Value = serde_json::from_str(text).map_err(|error| format!("its value is no JSON: {error}"))?;
    if value.get("Op").and_then(Value::as_u64) == Some(1) {
        return Ok(None);
    }
    let address = value.get("address").or_else(|| value.get("Addr")).and_then(Value::as_str);
    let address = address.ok_or_else(|| "its value has no `address`".to_owned())?;
    let target = match value.get("port") {
        None => parse(address)?,
        Some(port) => {
            let port = port.as_u64().and_then(|port| u16::try_from(port).ok());
            let target = port.and_then(|port| Target::new(address, port));
            target.ok_or_else(|| format!("`{address}` with its port is no endpoint"))?
        }
    };
    let says = |name: &str| value.get(name).map(|said| said.as_str().map_or_else(|| said.to_string(), str::to_owned));
    target.described(says).map(Some)
}

fn decoded(text: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(text).map_err(|error| format!("the answer is not understood: {error}"))
}

pub(super) fn not_understood(error: &serde_json::Error) -> String {
    format!("the answer is not understood: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(pairs: &[(&str, &str)]) -> Keys {
        Keys(pairs.iter().map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec())).collect())
    }

    #[test]
    fn values_may_be_text_or_maps_or_of_etcds_own_naming() {
        let (found, trouble) = keys(&[
            ("/s/a", "10.0.0.1:80"),
            ("/s/b", r#"{"address": "10.0.0.2:81", "weight": 3, "zone": "eu-1a"}"#),
            ("/s/c", r#"{"address": "users.internal", "port": 82}"#),
            ("/s/d", r#"{"Op":0,"Addr":"10.0.0.4:83","Metadata":null}"#),
            ("/s/e", r#"{"Op":1,"Addr":"10.0.0.5:84"}"#),
        ])
        .targets();
        let zone = |one: &Target| one.whereabouts.zone.as_deref().map(str::to_owned);
        let found: Vec<_> = found.iter().map(|one| (&*one.host, one.port, one.weight, zone(one))).collect();
        assert_eq!(
            found,
            [
                ("10.0.0.1", 80, 1, None),
                ("10.0.0.2", 81, 3, Some("eu-1a".to_owned())),
                ("users.internal", 82, 1, None),
                ("10.0.0.4", 83, 1, None),
            ]
        );
        assert_eq!(trouble, None);
    }

    #[test]
    fn a_value_that_is_no_endpoint_is_told_by_its_key_and_the_others_count() {
        for (bad, why) in [
            ("nothing", "`nothing` is not a host with a port"),
            ("", "`` is not"),
            (r#"{"host": "a:1"}"#, "no `address`"),
            (r#"{"address": "a", "port": 0}"#, "is no endpoint"),
            (r#"{"address": "a:1", "weight": 0}"#, "the weight `0`"),
            ("{", "no JSON"),
        ] {
            let (found, trouble) = keys(&[("/s/bad", bad), ("/s/good", "10.0.0.1:80")]).targets();
            let trouble = trouble.unwrap();
            assert!(found.len() == 1 && trouble.starts_with("key `/s/bad`: ") && trouble.contains(why), "{trouble}");
        }
    }

    /// Lines as etcd 3.4 writes them.
    #[test]
    fn a_watch_puts_and_deletes_and_says_when_it_is_over() {
        let mut keys = keys(&[("/s/a", "10.0.0.1:80")]);
        let created = br#"{"result":{"header":{"cluster_id":"1","member_id":"2","revision":"5","raft_term":"2"},"created":true}}"#;
        assert_eq!(keys.take(created), Ok(Told::Nothing));
        let put = br#"{"result":{"header":{"revision":"6"},"events":[{"kv":{"key":"L3MvYg==","create_revision":"6","mod_revision":"6","version":"1","value":"MTAuMC4wLjI6ODA="}}]}}"#;
        assert_eq!(keys.take(put), Ok(Told::News));
        assert_eq!(keys.targets().0.len(), 2);
        let delete = br#"{"result":{"header":{"revision":"7"},"events":[{"type":"DELETE","kv":{"key":"L3MvYQ==","mod_revision":"7"}}]}}"#;
        assert_eq!(keys.take(delete), Ok(Told::News));
        assert_eq!(keys.targets().0[0].to_string(), "10.0.0.2:80");
        let compacted = br#"{"result":{"header":{"revision":"9"},"canceled":true,"compact_revision":"8"}}"#;
        assert_eq!(keys.take(compacted), Ok(Told::Over));
        for over in [
            &br#"{"result":{"header":{},"canceled":true,"cancel_reason":"rpc error: code = PermissionDenied"}}"#[..],
            br#"{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader","http_status":"Service Unavailable"}}"#,
            b"<html>",
        ] {
            assert!(keys.take(over).is_err());
        }
    }
}
