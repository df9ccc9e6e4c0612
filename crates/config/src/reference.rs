//! The reference as Markdown pages, made from the same tables and types as the reader: nothing of it is written by hand.

use std::fmt::Write as _;

use pylon_core::rejection;
use pylon_observe::catalogue;
use pylon_policy::registry::CATALOGUE;
use serde_json::{Map, Value};

use crate::keys::{KeyDoc, ROUTE, TOP};
use crate::schema;

/// Every page: its file name and its text.
pub fn pages() -> Vec<(&'static str, String)> {
    vec![
        ("document.md", document()),
        ("routes.md", routes()),
        ("policies.md", policies()),
        ("refusals.md", refusals()),
        ("metrics.md", metrics()),
    ]
}

fn document() -> String {
    let schema = schema::document();
    let mut out = String::from("# Keys of a document\n\n");
    for key in TOP {
        section(&mut out, key, &schema, "properties");
    }
    out.push_str(UNITS);
    out
}

const UNITS: &str = "\
## Units

| kind | written as |
|---|---|
| span of time | `250ms`, `10s`, `1m30s`, `12h`, `7d` |
| size | `512B`, `64KiB`, `10MiB`, `1GiB`, or in powers of ten `64kB`, `10MB` |
| share | `5%`, `0.5%` |
| rate | `10/s`, `600/min`, `100/h` |
| network | `10.0.0.0/8`, `2001:db8::/32`, `192.0.2.7` |
| secret | `env:NAME`, `file:PATH` |
";

fn routes() -> String {
    let schema = schema::document();
    let mut out =
        String::from("# Keys of a route\n\nA route takes these keys and those of [policies](policies.md).\n\n");
    let Some(route) = schema.pointer("/properties/routes/items") else { return out };
    let whole = merged(route, &schema);
    for key in ROUTE {
        section(&mut out, key, &whole, "properties");
    }
    out
}

fn policies() -> String {
    let schema = schema::document();
    let mut out = String::from(
        "# Policies\n\nIn the order in which a request meets them. Each stands on a route or under `defaults`; the nearer wins, whole policy by whole policy, and `off` takes one away.\n\n",
    );
    let route = schema.pointer("/properties/routes/items/properties").and_then(Value::as_object);
    for entry in CATALOGUE {
        let shadow = if entry.shadow { "can run in `shadow`" } else { "cannot run in `shadow`" };
        let _ = writeln!(
            out,
            "## `{}`: {}\n\nPhase {:?}; {shadow}.\n\n{}\n",
            entry.key,
            entry.title,
            entry.phase,
            entry.doc.trim()
        );
        if let Some(property) = route.and_then(|route| route.get(entry.key)) {
            fields(&mut out, property, &schema);
        }
    }
    out
}

fn refusals() -> String {
    let mut out = String::from(
        "# Refusals\n\nEvery answer that the gate itself makes when it says no: a problem (RFC 9457) whose `code` is stable. The access log has the code under `reason`.\n\n| code | status | title | rule |\n|---|---|---|---|\n",
    );
    for reason in rejection::ALL {
        let _ = writeln!(out, "| `{}` | {} | {} | {} |", reason.code, reason.status, reason.title, reason.rule);
    }
    out
}

fn metrics() -> String {
    let mut out = String::from(
        "# Metrics\n\nAt `/metrics` of the admin API, in the text format of Prometheus.\n\n| name | kind | labels | meaning |\n|---|---|---|---|\n",
    );
    for metric in catalogue::ALL {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let _ =
            writeln!(out, "| `{}` | {} | {} | {} |", metric.name, metric.kind.as_str(), labels.join(", "), metric.help);
    }
    out
}

fn section(out: &mut String, key: &KeyDoc, schema: &Value, within: &str) {
    let _ = writeln!(out, "## `{}`\n\n{}\n\n```yaml\n{}\n```\n", key.key, key.doc, key.example);
    if let Some(property) = schema.get(within).and_then(|all| all.get(key.key)) {
        let root = schema::document();
        fields(out, property, &root);
    }
}

/// A table of the fields of a spec, the fields of specs in it below their own path.
fn fields(out: &mut String, schema: &Value, root: &Value) {
    let mut rows = Vec::new();
    collect(schema, root, "", 0, &mut rows);
    if rows.is_empty() {
        return;
    }
    out.push_str("| key | meaning |\n|---|---|\n");
    for (path, text) in rows {
        let _ = writeln!(out, "| `{path}` | {} |", text.replace('\n', " ").replace('|', "\\|"));
    }
    out.push('\n');
}

fn collect(schema: &Value, root: &Value, path: &str, depth: usize, rows: &mut Vec<(String, String)>) {
    if depth > 8 {
        return;
    }
    let schema = merged(schema, root);
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        for (key, property) in properties {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let whole = merged(property, root);
            rows.push((path.clone(), whole.get("description").and_then(Value::as_str).unwrap_or_default().to_owned()));
            collect(property, root, &path, depth + 1, rows);
        }
    }
    for (key, name) in [("items", "[]"), ("additionalProperties", "NAME")] {
        if let Some(inner @ Value::Object(_)) = schema.get(key) {
            let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            collect(inner, root, path.trim_end_matches(".[]"), depth + 1, rows);
        }
    }
    for inner in schema.get("anyOf").and_then(Value::as_array).into_iter().flatten() {
        collect(inner, root, path, depth + 1, rows);
    }
}

/// A schema with its references followed; what stands at the place itself wins.
fn merged(schema: &Value, root: &Value) -> Value {
    let mut whole = Map::new();
    merge(schema, root, &mut whole, 0);
    Value::Object(whole)
}

fn merge(schema: &Value, root: &Value, whole: &mut Map<String, Value>, depth: usize) {
    let Some(object) = schema.as_object() else { return };
    for (key, value) in object {
        if key != "$ref" && key != "allOf" {
            whole.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    if depth > 8 {
        return;
    }
    let reference = object.get("$ref").and_then(Value::as_str).and_then(|path| root.pointer(path.strip_prefix('#')?));
    for inner in reference.into_iter().chain(object.get("allOf").and_then(Value::as_array).into_iter().flatten()) {
        merge(inner, root, whole, depth + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_has_every_key_refusal_and_metric() {
        let text: String = pages().into_iter().map(|(_, text)| text).collect();
        let keys = TOP.iter().chain(ROUTE).map(|key| key.key).chain(CATALOGUE.iter().map(|entry| entry.key));
        let codes = rejection::ALL.iter().map(|reason| reason.code);
        let metrics = catalogue::ALL.iter().map(|metric| metric.name);
        for word in keys.chain(codes).chain(metrics) {
            assert!(text.contains(&format!("`{word}`")), "{word} is missing");
        }
        assert!(text.contains("| `NAME.timeout.connect` |"), "fields of nested specs are missing: {text}");
    }
}
