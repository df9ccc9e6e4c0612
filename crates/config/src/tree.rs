//! What was written, as a tree: every value and every key knows its file, line, column and bytes.
//!
//! Scalars follow the core schema of YAML 1.2 (§10.3): `true`, `false`, `null`, numbers; `yes`, `no`, `on` and `off` are
//! strings, and what stands in quotes is always a string. Numbers and booleans keep the text they were written as, so
//! that `08` or `1e3` can still be read as a string.

use serde::Serialize;

use crate::diagnostic::Diagnostic;
use crate::parse;

/// The largest file that is read, in bytes: 16 MiB.
pub const MAX_FILE: usize = 16 << 20;
/// The most nodes of one file, aliases written out.
pub const MAX_NODES: usize = 1_000_000;
/// The most collections inside each other.
pub const MAX_DEPTH: usize = 64;

/// Which file of a [`crate::load::Source`] something stands in: an index into its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct FileId(pub u32);

/// A range of a file's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Span {
    /// The first byte, counted from 0.
    pub start: u32,
    /// The byte after the last one; never below `start`.
    pub end: u32,
    /// The line of the first byte, counted from 1.
    pub line: u32,
    /// The column of the first byte, in characters, counted from 1.
    pub column: u32,
}

/// A value with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// What it is.
    pub value: Value,
    /// Where it stands. A block collection reaches from its first key or dash to the end of its last value.
    pub span: Span,
    /// The file it stands in.
    pub file: FileId,
}

/// A key of a map with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The key, always as text: `404:` is the key `404`.
    pub text: Box<str>,
    /// Where it stands.
    pub span: Span,
    /// The file it stands in: the maps of a folder are merged, so two keys of one map may stand in two files.
    pub file: FileId,
}

/// How a string was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Without quotes.
    Plain,
    /// In single or double quotes, or as a block (`|`, `>`).
    Quoted,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`, `~`, or nothing at all after a colon or a dash.
    Null,
    /// `true` or `false`, and as written.
    Bool(bool, Box<str>),
    /// A whole number from −2⁶³ to 2⁶⁴−1, and as written.
    Int(i128, Box<str>),
    /// Any other number, and as written.
    Float(f64, Box<str>),
    /// A string.
    Str(Box<str>, Style),
    /// A sequence.
    Seq(Vec<Node>),
    /// A map in the order of the file. No key stands twice.
    Map(Vec<(Key, Node)>),
}

impl Node {
    /// Reads `text`, which diagnostics call `name`. A text without any value is [`Value::Null`].
    ///
    /// # Errors
    /// One diagnostic for a syntax error (the parser cannot go on behind it), one for each duplicate key, tag, merge key
    /// or key that is not a scalar, and one where a limit of this module is exceeded.
    pub fn parse(file: FileId, name: &str, text: &str) -> Result<Self, Vec<Diagnostic>> {
        parse::parse(file, name, text)
    }

    /// The value of `key`, if this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|(_, node)| node)
    }

    /// The key and value of `key`, if this is a map that has it.
    pub fn entry(&self, key: &str) -> Option<&(Key, Self)> {
        self.entries().iter().find(|(k, _)| &*k.text == key)
    }

    /// The entries, if this is a map; else none.
    pub fn entries(&self) -> &[(Key, Self)] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items, if this is a sequence; else none.
    pub fn items(&self) -> &[Self] {
        match &self.value {
            Value::Seq(items) => items,
            _ => &[],
        }
    }

    /// The text of a scalar as it was written (quotes and escapes resolved); `None` for null and for collections.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Bool(_, text) | Value::Int(_, text) | Value::Float(_, text) | Value::Str(text, _) => Some(text),
            Value::Null | Value::Seq(_) | Value::Map(_) => None,
        }
    }

    /// What this is, in the words of a message: "a sequence", "nothing", "`08`".
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(_, text) | Value::Int(_, text) | Value::Float(_, text) => format!("`{text}`"),
            Value::Str(text, _) => format!("the string \"{}\"", shorten(text)),
            Value::Seq(_) => "a sequence".to_owned(),
            Value::Map(_) => "a map".to_owned(),
        }
    }
}

/// At most 40 characters of the first line of `text`.
fn shorten(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let mut short: String = line.chars().take(40).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
