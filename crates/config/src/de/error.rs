//! The error that serde carries through the visitors, and how it becomes a sentence for a person.

use std::fmt;

use pylon_core::spec::FieldPath;
use serde::de::{self, Expected, Unexpected};

use super::{Problem, Reader, Trail};
use crate::locate;
use crate::suggest;
use crate::tree::{FileId, Key, Node, Span, Style, Value};

/// What stops a visitor.
#[derive(Debug)]
pub(super) enum Error {
    /// It has been recorded already.
    Reported,
    /// It has been found just now, and nobody has said where.
    Fresh(Kind),
    /// It has been found and has its place.
    Placed(Box<Problem>),
}

#[derive(Debug)]
pub(super) enum Kind {
    Custom(String),
    /// What was expected, and what serde says was found.
    Type {
        expected: String,
        found: String,
    },
    Length {
        expected: String,
        found: usize,
    },
    UnknownKey(&'static [&'static str]),
    UnknownVariant {
        written: String,
        known: &'static [&'static str],
    },
    Missing(&'static str),
    Duplicate(&'static str),
}

impl Error {
    /// The problem to record, if it has not been.
    pub(super) fn into_problem(self) -> Option<Problem> {
        match self {
            Self::Placed(problem) => Some(*problem),
            Self::Reported | Self::Fresh(_) => None,
        }
    }

    /// An error about the value at `reader`, unless it has its place already.
    pub(super) fn at(self, reader: Reader<'_, '_>) -> Self {
        let Self::Fresh(kind) = self else { return self };
        let Reader { node, trail, log } = reader;
        let consequence = match kind {
            Kind::Missing(key) => log.explains_missing(node, key),
            _ => log.has_gap(node),
        };
        if consequence {
            return Self::Reported;
        }
        let span = locate::mark(trail.key.filter(|key| key.file == node.file), node);
        Self::Placed(Box::new(kind.about(node, trail).into_problem(node.file, span)))
    }

    /// An error about the key `key` of the map at `reader`.
    pub(super) fn at_key(self, reader: Reader<'_, '_>, key: &Key) -> Self {
        let Self::Fresh(kind) = self else { return self };
        let here = reader.trail.path();
        let path = here.clone().key(&*key.text);
        let told = match kind {
            Kind::UnknownKey(known) => {
                if let Some(near) = suggest::closest(&key.text, known.iter().copied())
                    && let Some(near) = known.iter().find(|known| **known == near)
                {
                    reader.log.suggest(reader.node, near);
                }
                Told {
                    title: format!("unknown key `{}`", key.text),
                    label: format!(
                        "{} has no such key",
                        if here.0.is_empty() { "the document".to_owned() } else { format!("`{here}`") }
                    ),
                    help: key_help(&key.text, known).into_iter().collect(),
                    path,
                }
            }
            Kind::UnknownVariant { written, known } => unknown_variant(&written, known, path),
            Kind::Type { expected, .. } => Told {
                title: format!("expected {}, found the key `{}`", in_words(&expected), key.text),
                label: format!("a key of `{here}`"),
                help: Vec::new(),
                path,
            },
            other => Told { title: other.sentence(), label: format!("a key of `{here}`"), help: Vec::new(), path },
        };
        Self::Placed(Box::new(told.into_problem(key.file, key.span)))
    }
}

/// A kind of error in words.
struct Told {
    title: String,
    label: String,
    help: Vec<String>,
    path: FieldPath,
}

impl Told {
    fn into_problem(self, file: FileId, span: Span) -> Problem {
        let label = (!self.label.is_empty()).then_some(self.label);
        Problem { file, span, path: self.path, title: self.title, label, help: self.help }
    }
}

impl Kind {
    fn about(self, node: &Node, trail: &Trail<'_>) -> Told {
        let path = trail.path();
        let label = if path.0.is_empty() { String::new() } else { format!("`{path}`") };
        match self {
            Self::Type { expected, .. } => {
                let expected = in_words(&expected);
                let help = type_help(&expected, node).into_iter().collect();
                Told { title: format!("expected {expected}, found {}", node.describe()), label, help, path }
            }
            Self::UnknownVariant { written, known } => unknown_variant(&written, known, path),
            Self::Missing(key) => {
                let label = if label.is_empty() { label } else { format!("in {label}") };
                Told { title: format!("`{key}` is missing"), label, help: Vec::new(), path: path.key(key) }
            }
            other => Told { title: other.sentence(), label, help: Vec::new(), path },
        }
    }

    fn sentence(self) -> String {
        match self {
            Self::Custom(text) => text,
            Self::Type { expected, found } => format!("expected {}, found {found}", in_words(&expected)),
            Self::Length { expected, found } => format!("expected {}, found {found}", in_words(&expected)),
            Self::UnknownKey(_) => "unknown key".to_owned(),
            Self::UnknownVariant { written, .. } => format!("unknown word `{written}`"),
            Self::Missing(key) => format!("`{key}` is missing"),
            Self::Duplicate(key) => format!("`{key}` is given twice, under two of its names"),
        }
    }
}

/// What may help for a key that is not known: a space, or another word.
fn key_help(key: &str, known: &[&str]) -> Option<String> {
    if let Some((word, rest)) = key.split_once(':')
        && known.contains(&word)
    {
        return Some(format!("a space is missing after the colon: `{word}: {rest}`"));
    }
    suggest::help(key, known, "keys")
}

fn unknown_variant(written: &str, known: &[&str], path: FieldPath) -> Told {
    let label = if path.0.is_empty() { String::new() } else { format!("`{path}`") };
    let title = format!("`{written}` is none of the words known here");
    Told { title, label, help: suggest::help(written, known, "words").into_iter().collect(), path }
}

/// What may help where something of another type was expected.
fn type_help(expected: &str, node: &Node) -> Option<String> {
    let Value::Str(text, style) = &node.value else {
        let brace = matches!(node.value, Value::Map(_) | Value::Seq(_)) && expected.starts_with("a string");
        return brace.then(|| "text that begins with `{` or `[` goes in quotes".to_owned());
    };
    if *style == Style::Plain && expected.contains("map") {
        let (key, rest) = text.split_once(':')?;
        let word = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'));
        let space_missing = word && !rest.is_empty() && !rest.starts_with("//");
        return space_missing.then(|| format!("a space is missing after the colon: `{key}: {rest}`"));
    }
    if expected.starts_with("`true`") && matches!(&*text.to_lowercase(), "yes" | "no" | "on" | "off" | "y" | "n") {
        return Some("write `true` or `false`: YAML 1.2 reads other words as text".to_owned());
    }
    let bare = *style == Style::Quoted && (expected.contains("number") || expected.starts_with("`true`"));
    (bare && !matches!(crate::scalar::plain(text), Value::Str(..) | Value::Null))
        .then(|| format!("take the quotes away: `{text}`"))
}

/// serde's name of a type as a person would say it.
fn in_words(expected: &str) -> String {
    let range = |least: &str, most: String| format!("a whole number from {least} to {most}");
    match expected {
        "a boolean" => "`true` or `false`".to_owned(),
        "u8" => range("0", u8::MAX.to_string()),
        "u16" => range("0", u16::MAX.to_string()),
        "u32" => range("0", u32::MAX.to_string()),
        "u64" | "usize" | "u128" => "a whole number, 0 or more".to_owned(),
        "i8" => range("-128", i8::MAX.to_string()),
        "i16" => range("-32768", i16::MAX.to_string()),
        "i32" => range("-2147483648", i32::MAX.to_string()),
        "i64" | "isize" | "i128" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "unit" => "nothing".to_owned(),
        "option" => "a value".to_owned(),
        "a character" => "one character".to_owned(),
        _ if expected.starts_with("struct ") => "a map".to_owned(),
        _ if expected.starts_with("unit struct ") => "nothing".to_owned(),
        _ if expected.starts_with("a tuple of size ") => {
            format!("a sequence of {} items", expected.trim_start_matches("a tuple of size "))
        }
        _ if expected.starts_with("tuple struct ") => "a sequence".to_owned(),
        _ if expected.starts_with("an array of length ") => {
            format!("a sequence of {} items", expected.trim_start_matches("an array of length "))
        }
        _ if expected.starts_with("struct variant ") => "a map".to_owned(),
        _ if expected.starts_with("nonzero ") || expected.starts_with("a nonzero ") => {
            "a whole number other than 0".to_owned()
        }
        _ => expected.to_owned(),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Placed(problem) => f.write_str(&problem.title),
            Self::Fresh(Kind::Custom(text)) => f.write_str(text),
            Self::Fresh(kind) => write!(f, "{kind:?}"),
            Self::Reported => f.write_str("this cannot be read"),
        }
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self::Fresh(Kind::Custom(text.to_string()))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::Fresh(Kind::Type { expected: expected.to_string(), found: found.to_string() })
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn invalid_length(found: usize, expected: &dyn Expected) -> Self {
        Self::Fresh(Kind::Length { expected: expected.to_string(), found })
    }

    fn unknown_variant(written: &str, known: &'static [&'static str]) -> Self {
        Self::Fresh(Kind::UnknownVariant { written: written.to_owned(), known })
    }

    fn unknown_field(_: &str, known: &'static [&'static str]) -> Self {
        Self::Fresh(Kind::UnknownKey(known))
    }

    fn missing_field(key: &'static str) -> Self {
        Self::Fresh(Kind::Missing(key))
    }

    fn duplicate_field(key: &'static str) -> Self {
        Self::Fresh(Kind::Duplicate(key))
    }
}
