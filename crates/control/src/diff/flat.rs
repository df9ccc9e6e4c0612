//! Compares two values key by key, and shows what may be shown.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::KeyChange;

/// Words in the name of a key or a field whose value is taken for a secret, in lower case.
const SECRET: [&str; 9] =
    ["authorization", "cookie", "secret", "token", "password", "api-key", "api_key", "apikey", "credential"];

/// What stands in place of a secret.
const HIDDEN: &str = "(hidden)";

/// The keys in which two values differ, by their paths; lists are compared whole.
pub(super) fn keys(old: &Value, new: &Value) -> Vec<KeyChange> {
    let mut found = Vec::new();
    walk("", old, new, &mut found);
    found
}

fn walk(path: &str, old: &Value, new: &Value, found: &mut Vec<KeyChange>) {
    if old == new {
        return;
    }
    if let (Value::Object(old), Value::Object(new)) = (old, new) {
        // In the order of the old value; what is new comes last.
        let mut seen = BTreeSet::new();
        for key in old.keys().chain(new.keys()).filter(|key| seen.insert(key.as_str())) {
            let null = Value::Null;
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            walk(&path, old.get(key).unwrap_or(&null), new.get(key).unwrap_or(&null), found);
        }
        return;
    }
    let (old, new) = (shown(path, old), shown(path, new));
    found.push(KeyChange { key: path.to_owned(), old, new, routes: None });
}

/// A value without what looks like a secret in it: by the name of its key, or of a key within it.
pub(crate) fn shown(path: &str, value: &Value) -> Value {
    let name = path.rsplit('.').next().unwrap_or_default().to_lowercase();
    let hides = SECRET.iter().any(|word| name.contains(word));
    match value {
        Value::String(text) if hides && !is_reference(text) => HIDDEN.into(),
        Value::Array(items) => items.iter().map(|item| shown(path, item)).collect(),
        Value::Object(map) => {
            Value::Object(map.iter().map(|(key, value)| (key.clone(), shown(key, value))).collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}

/// Whether the text says where a secret is kept, or that one is.
fn is_reference(text: &str) -> bool {
    text.starts_with("env:") || text.starts_with("file:") || text.starts_with("(a")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_told_by_their_paths_and_lists_whole() {
        let old = json!({ "timeout": { "response": "5s", "idle": "1s" }, "list": [1, 2], "gone": 1 });
        let new = json!({ "timeout": { "response": "7s", "idle": "1s" }, "list": [1, 3], "came": { "a": 1 } });
        let told: Vec<_> = keys(&old, &new)
            .into_iter()
            .map(|change| format!("{} {} {}", change.key, change.old, change.new))
            .collect();
        assert_eq!(told, ["timeout.response \"5s\" \"7s\"", "list [1,2] [1,3]", "gone 1 null", r#"came null {"a":1}"#]);
    }

    #[test]
    fn what_looks_like_a_secret_is_compared_and_not_shown() {
        let old = json!({ "headers": { "request": { "set": { "Authorization": "Bearer abc", "x-a": "1" } } } });
        let new = json!({ "headers": { "request": { "set": { "Authorization": "Bearer xyz", "x-a": "1" } } } });
        let found = keys(&old, &new);
        assert_eq!(found.len(), 1);
        assert_eq!((&found[0].old, &found[0].new), (&json!(HIDDEN), &json!(HIDDEN)));
        let whole = keys(&json!({}), &new);
        assert!(!format!("{whole:?}").contains("xyz") && format!("{whole:?}").contains("x-a"));
        let named = keys(&json!({ "token": "env:A" }), &json!({ "token": "env:B" }));
        assert_eq!((&named[0].old, &named[0].new), (&json!("env:A"), &json!("env:B")));
    }
}
