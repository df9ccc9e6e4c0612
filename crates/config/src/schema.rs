//! The JSON Schema of documents (draft 2020-12), put together from the tables of keys and the types of specs.

use pylon_policy::registry::{self, CATALOGUE};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use crate::document::Defaults;
use crate::keys::{KeyDoc, ROUTE, TOP};

/// The schema of a whole document.
pub fn document() -> Value {
    let mut generator = SchemaGenerator::default();
    let properties = properties(TOP, &mut generator);
    let definitions = generator.take_definitions(true);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Pylon document",
        "type": "object",
        "properties": properties,
        "required": ["listeners"],
        "additionalProperties": false,
        "$defs": definitions,
    })
}

/// The schema of a route: its own keys, and those of every policy.
pub(crate) fn route(generator: &mut SchemaGenerator) -> Schema {
    let mut all = properties(ROUTE, generator);
    all.extend(policies(generator));
    json_schema!({ "type": "object", "properties": all, "required": ["match"], "additionalProperties": false })
}

/// The schema of `defaults`.
pub(crate) fn defaults(generator: &mut SchemaGenerator) -> Schema {
    let mut all = properties(ROUTE, generator);
    all.retain(|key, _| Defaults::KEYS.contains(&key.as_str()));
    all.extend(policies(generator));
    json_schema!({ "type": "object", "properties": all, "additionalProperties": false })
}

fn properties(keys: &[KeyDoc], generator: &mut SchemaGenerator) -> Map<String, Value> {
    let property =
        |key: &KeyDoc, generator: &mut SchemaGenerator| described((key.schema)(generator), key.doc, key.example);
    keys.iter().map(|key| (key.key.to_owned(), property(key, generator))).collect()
}

/// Each policy as it may be written, or `off`.
fn policies(generator: &mut SchemaGenerator) -> Map<String, Value> {
    let mut all = Map::new();
    for entry in CATALOGUE {
        let Some(schema) = registry::schema(entry.key, generator) else { continue };
        let either = json!({
            "description": format!("Policy: {}.", entry.title),
            "anyOf": [schema, { "const": "off", "description": "Takes away what `defaults` says." }],
        });
        all.insert(entry.key.to_owned(), either);
    }
    all
}

/// A schema with the words of the table around it.
fn described(schema: Schema, doc: &str, example: &str) -> Value {
    let mut value = schema.to_value();
    match value.as_object_mut() {
        Some(object) if !object.contains_key("$ref") => {
            object.insert("description".to_owned(), json!(doc));
            object.insert("x-example".to_owned(), json!(example));
            value
        }
        _ => json!({ "description": doc, "x-example": example, "allOf": [value] }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every property in a schema, with its path.
    fn walk<'v>(value: &'v Value, path: &str, found: &mut Vec<(String, &'v Value)>) {
        if let Some(properties) = value.get("properties").and_then(Value::as_object) {
            for (key, property) in properties {
                found.push((format!("{path}.{key}"), property));
            }
        }
        match value {
            Value::Object(object) => {
                object.iter().for_each(|(key, inner)| walk(inner, &format!("{path}/{key}"), found));
            }
            Value::Array(items) => items.iter().for_each(|inner| walk(inner, path, found)),
            _ => {}
        }
    }

    #[test]
    fn every_field_of_a_document_says_what_it_is() {
        let schema = document();
        let mut found = Vec::new();
        walk(&schema, "", &mut found);
        assert!(found.len() > 60, "only {} fields found", found.len());
        for (path, property) in found {
            let text = property.get("description").and_then(Value::as_str).unwrap_or_default();
            assert!(text.len() > 10, "{path} has no description");
        }
    }

    #[test]
    fn every_field_of_a_spec_names_its_default_and_an_example() {
        let schema = document();
        let mut found = Vec::new();
        walk(&schema["$defs"], "", &mut found);
        let mut silent = Vec::new();
        for (path, property) in found {
            let text = property["description"].as_str().unwrap_or_default();
            let default = ["Default", "default", "Required", "required"].iter().any(|word| text.contains(word));
            let example = text.contains("Example") || property.get("examples").is_some();
            if !default || !example {
                silent.push(format!("{path}: default {default}, example {example}"));
            }
        }
        assert!(silent.is_empty(), "not told: {silent:#?}");
    }
}
