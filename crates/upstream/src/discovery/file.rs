//! Endpoints in a file of the form that Prometheus calls `file_sd`, in YAML or JSON.
//!
//! ```yaml
//! - targets: [10.0.0.1:8080, "10.0.0.2:8080"]
//!   labels: { weight: "3", priority: "1", zone: eu-1a, region: eu-1 }      # others are for other readers
//! ```
//!
//! The file is read twice a second, links being followed, so that no way of changing it is missed. What is new counts once
//! it was the same a quarter of a second later. What cannot be read, or is no such list, leaves the endpoints as they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pylon_net::timer::sleep;
use serde_json::{Map, Value};

use super::source::Report;
use super::target::Target;

/// Reads YAML, which JSON is part of. The error is a sentence.
pub type ReadYaml = fn(&str) -> Result<Value, String>;

/// How often the file is read.
const LOOK: Duration = Duration::from_millis(500);
/// For how long it must be the same.
const REST: Duration = Duration::from_millis(250);
/// The largest file, in bytes.
const LARGEST: u64 = 16 * 1024 * 1024;

/// A file that is read again and again.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) path: PathBuf,
    pub(crate) yaml: ReadYaml,
}

impl Listed {
    pub(crate) async fn follow(&self, report: &Report) {
        let mut before: Option<Result<String, String>> = None;
        // What was taken in last, and what came of it.
        let mut held: Option<(Result<String, String>, Result<(), String>)> = None;
        loop {
            let path = self.path.clone();
            // Files may stand on a disk that is slow.
            let Ok(text) = tokio::task::spawn_blocking(move || read(&path)).await else { return };
            let rests = before.as_ref().is_none_or(|before| *before == text);
            match &held {
                Some((same, Ok(()))) if *same == text => report.confirmed(),
                Some((same, Err(error))) if *same == text => report.failed(error.clone()),
                _ if rests => held = Some((text.clone(), self.tell(&text, report))),
                _ => {}
            }
            before = Some(text);
            sleep(if rests { LOOK } else { REST }).await;
        }
    }

    fn tell(&self, text: &Result<String, String>, report: &Report) -> Result<(), String> {
        let read = text.clone().and_then(|text| (self.yaml)(&text)).and_then(|value| targets(&value));
        read.map(|targets| report.found(targets, None)).inspect_err(|error| report.failed(error.clone()))
    }
}

fn read(path: &Path) -> Result<String, String> {
    let file = fs::metadata(path).map_err(|error| error.to_string())?;
    if !file.is_file() {
        return Err("this is no file".to_owned());
    }
    if file.len() > LARGEST {
        return Err("the file is larger than 16 MiB".to_owned());
    }
    fs::read_to_string(path).map_err(|error| error.to_string())
}

fn targets(value: &Value) -> Result<Vec<Target>, String> {
    let Value::Array(groups) = value else {
        return Err("it is not a list of maps with `targets`".to_owned());
    };
    let mut all = Vec::new();
    for (index, group) in groups.iter().enumerate() {
        let of_group = group.as_object().ok_or_else(|| "it is not a map".to_owned()).and_then(self::group);
        all.extend(of_group.map_err(|error| format!("item {}: {error}", index.saturating_add(1)))?);
    }
    Ok(all)
}

fn group(group: &Map<String, Value>) -> Result<Vec<Target>, String> {
    if let Some(key) = group.keys().find(|key| !matches!(key.as_str(), "targets" | "labels")) {
        return Err(format!("unknown key `{key}`"));
    }
    let targets = group.get("targets").and_then(Value::as_array).ok_or("it has no list `targets`")?;
    let label = |name: &str| group.get("labels").and_then(|labels| labels.get(name)).map(text);
    let target = |target: &Value| {
        let written = text(target);
        let target = Target::parse(&written).ok_or_else(|| format!("`{written}` is not a host with a port"))?;
        target.described(label)
    };
    targets.iter().map(target).collect()
}

/// Numbers may be written without quotes.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn groups_give_their_labels_to_their_targets() {
        let found = targets(&json!([
            { "targets": ["10.0.0.1:80", "users.internal:81"], "labels": { "weight": "3", "zone": "a", "job": "x" } },
            { "targets": ["[::1]:82"] },
        ]))
        .unwrap();
        let a = Some("a".to_owned());
        let zone = |one: &Target| one.whereabouts.zone.as_deref().map(str::to_owned);
        let found: Vec<_> = found.iter().map(|one| (&*one.host, one.port, one.weight, zone(one))).collect();
        assert_eq!(found, [("10.0.0.1", 80, 3, a.clone()), ("users.internal", 81, 3, a), ("::1", 82, 1, None)]);
        assert_eq!(targets(&json!([])), Ok(Vec::new()), "nobody is there, and that is meant");
    }

    #[test]
    fn what_is_no_such_list_is_refused_whole() {
        for (bad, why) in [
            (json!(null), "not a list"),
            (json!({}), "not a list"),
            (json!(["a:1"]), "item 1: it is not a map"),
            (json!([{ "targets": ["a:1"] }, { "labels": {} }]), "item 2: it has no list `targets`"),
            (json!([{ "targets": ["a"] }]), "`a` is not a host with a port"),
            (json!([{ "targets": ["a:1"], "weight": 3 }]), "unknown key `weight`"),
            (json!([{ "targets": ["a:1"], "labels": { "weight": "0" } }]), "the weight `0`"),
        ] {
            let error = targets(&bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
