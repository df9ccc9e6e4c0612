//! From the path of a field to its place in the tree.

use pylon_core::spec::{FieldPath, Step};

use crate::tree::{FileId, Key, Node, Span, Value};

/// What stands at a path, or as near to it as the tree goes.
#[derive(Debug, Clone, Copy)]
pub struct Located<'t> {
    /// The deepest node on the path that exists.
    pub node: &'t Node,
    /// The key whose value that node is, if it is one of a map.
    pub key: Option<&'t Key>,
    /// Whether the whole path exists.
    pub complete: bool,
}

impl Located<'_> {
    /// The file and the part of it to mark.
    pub fn mark(&self) -> (FileId, Span) {
        (self.node.file, mark(self.key.filter(|key| key.file == self.node.file), self.node))
    }
}

/// Walks `path` down from `base` as far as there are nodes. A spec that was written short, as a scalar, has no nodes for
/// its fields: the scalar is then the deepest one.
pub fn locate<'t>(base: &'t Node, path: &FieldPath) -> Located<'t> {
    let mut found = Located { node: base, key: None, complete: true };
    for step in &path.0 {
        let next = match step {
            Step::Key(key) => found.node.entry(key).map(|(key, node)| (Some(key), node)),
            Step::Index(index) => found.node.items().get(*index).map(|node| (None, node)),
        };
        let Some((key, node)) = next else {
            found.complete = false;
            break;
        };
        found.node = node;
        found.key = key;
    }
    found
}

/// What to mark for `node`: a collection that begins below its key is shown at the key, and so is nothing at all.
pub(crate) fn mark(key: Option<&Key>, node: &Node) -> Span {
    match (key, &node.value) {
        (Some(key), Value::Null) if node.span.start == node.span.end => key.span,
        (Some(key), Value::Seq(_) | Value::Map(_)) if node.span.line > key.span.line => key.span,
        _ => node.span,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: FieldPath) -> (String, bool) {
        let text = "routes:\n  - match: /\n    cors:\n      max_age: 10s\n    rate_limit: 5/s\n";
        let root = Node::parse(FileId::default(), "t", text).unwrap();
        let found = locate(&root, &path);
        let (_, span) = found.mark();
        (text[span.start as usize..span.end as usize].to_owned(), found.complete)
    }

    #[test]
    fn a_path_leads_to_its_value() {
        let route = FieldPath::root().key("routes").index(0);
        assert_eq!(at(route.clone().key("cors").key("max_age")), ("10s".into(), true));
        assert_eq!(at(route.clone().key("cors")), ("cors".into(), true));
    }

    #[test]
    fn a_path_that_ends_early_leads_to_the_deepest_value() {
        let route = FieldPath::root().key("routes").index(0);
        assert_eq!(at(route.clone().key("rate_limit").key("limit")), ("5/s".into(), false));
        assert_eq!(at(route.clone().key("cors").key("origins").index(3)), ("cors".into(), false));
        assert_eq!(at(FieldPath::root().key("routes").index(7)), ("routes".into(), false));
    }
}
