//! YAML that is no document: files that the gateway reads while it runs, such as lists of endpoints.

use serde_json::Value;

use crate::de;
use crate::tree::{FileId, Node};

/// Reads YAML, and so JSON. The error is the first thing that is wrong, in a sentence.
pub fn read(text: &str) -> Result<Value, String> {
    let first = |line: Option<u32>, title: String| match line {
        Some(line) => format!("line {line}: {title}"),
        None => title,
    };
    let node = Node::parse(FileId(0), "", text).map_err(|wrong| {
        wrong.into_iter().next().map_or_else(
            || "it cannot be read".to_owned(),
            |wrong| first(wrong.place.map(|place| place.line), wrong.title),
        )
    })?;
    de::read(&node).map_err(|wrong| {
        let wrong = wrong.into_iter().next();
        wrong.map_or_else(|| "it cannot be read".to_owned(), |wrong| first(Some(wrong.span.line), wrong.title))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn yaml_and_json_are_read_alike() {
        let written = json!([{ "targets": ["10.0.0.1:80"], "labels": { "weight": "3" } }]);
        assert_eq!(read("- targets: ['10.0.0.1:80']\n  labels: { weight: \"3\" }\n"), Ok(written.clone()));
        assert_eq!(read(&written.to_string()), Ok(written));
        assert_eq!(read(""), Ok(Value::Null));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, line) in [("- a\n- [b\n", "line "), ("a: 1\na: 2\n", "line 2")] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with(line), "{error}");
        }
    }
}
