//! Failure 45 again: a schema that does not say what the parser says.

use std::path::Path;

use pylon_config::de;
use pylon_config::load::Source;
use pylon_testkit::binary::complete;
use pylon_testkit::command::pylon;
use serde_json::Value;

use crate::documents::{files, told_documents};

/// The document as JSON, as an editor hands it to a schema.
fn json(name: &str, document: &str) -> Value {
    let source = Source::from_text(name, document).unwrap_or_else(|wrong| panic!("{name}: {wrong:?}"));
    de::read(&source.root).unwrap_or_else(|wrong| panic!("{name}: {wrong:?}"))
}

fn schema() -> jsonschema::Validator {
    let outcome = pylon(Path::new("."), ["schema"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let schema: Value = serde_json::from_str(&outcome.stdout).unwrap();
    jsonschema::validator_for(&schema).expect("the schema is one")
}

/// Everything that the parser is known to accept: what readers are told to copy, and the documents of the case files.
fn accepted() -> Vec<(String, String)> {
    let mut all = told_documents();
    for path in files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("cases"), "yaml") {
        let case = json("case", &std::fs::read_to_string(&path).unwrap());
        all.push((path.display().to_string(), complete(case["document"].as_str().unwrap())));
    }
    all
}

#[test]
fn what_the_parser_accepts_the_schema_accepts() {
    let schema = schema();
    let all = accepted();
    assert!(all.len() > 30, "{}", all.len());
    for (name, document) in all {
        let wrong: Vec<String> = schema
            .iter_errors(&json(&name, &document))
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n"));
    }
}

#[test]
fn what_the_parser_refuses_as_a_key_the_schema_refuses() {
    let schema = schema();
    for document in [
        "route: []",
        "listeners: [{ adress: 127.0.0.1:0 }]",
        "limits: { request_header: 1KiB }",
        "admin: { tokens: x }",
        "telemetry: { access_logs: off }",
        "upstreams: { a: { endpoint: [http://127.0.0.1:1] } }",
        "upstreams: { a: { endpoints: [http://127.0.0.1:1], timeout: { read: 1s } } }",
        "routes: [{ match: /x, respond: 200, corse: x }]",
        "routes: [{ match: { pth: /x }, respond: 200 }]",
        "routes: [{ match: /x, respond: 200, ip_filter: { alow: 10.0.0.0/8 } }]",
        "routes: [{ match: /x, respond: { stats: 200 } }]",
        "defaults: { ip_filer: { allow: 10.0.0.0/8 } }",
    ] {
        assert!(!schema.is_valid(&json("bad", &complete(document))), "the schema accepts\n{document}");
    }
}
