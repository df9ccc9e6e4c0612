//! Path templates: `/users/{id}`, `/files/{name}.json`, `/orders/{*rest}`.
//!
//! A template is compared segment by segment. Literals are compared decoded and without parameters; `{id}` takes one
//! segment of at least one character, `{*rest}` everything after its slash, which may be nothing: `/orders/{*rest}` takes
//! `/orders/` and not `/orders`. A trailing slash counts: `/users/` and `/users` are two paths. Constraints within braces
//! are not done: a path that needs them is a regular expression (`regex:`).

use std::cmp::{Ordering, Reverse};
use std::fmt;

use smallvec::SmallVec;

use crate::normalise::is_unreserved;
use crate::segment;

mod parse;

use parse::{check_names, error, parse_segment};

/// The most segments that a template may have: it bounds the depth of a search.
pub const MAX_SEGMENTS: usize = 64;

/// A part of a path, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Where it begins.
    pub start: u16,
    /// How long it is.
    pub len: u16,
}

impl Span {
    pub(crate) fn new(start: usize, len: usize) -> Self {
        // Longer paths never get here: see `normalise::MAX_PATH`.
        Self { start: u16::try_from(start).unwrap_or(u16::MAX), len: u16::try_from(len).unwrap_or(u16::MAX) }
    }
}

/// What the variable parts of a template took, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Captures(pub(crate) SmallVec<[Span; 4]>);

impl Captures {
    /// The value at `position`, as it stands in the path: still percent-encoded. `path` is the one that was matched.
    pub fn value<'p>(&self, position: usize, path: &'p str) -> Option<&'p str> {
        let span = self.0.get(position)?;
        let start = usize::from(span.start);
        path.get(start..start + usize::from(span.len))
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One part between two slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Segment {
    /// Canonical text, see [`crate::segment`].
    Literal(Box<[u8]>),
    /// A variable part, with what stands before and after it.
    Param { name: Box<str>, prefix: Box<[u8]>, suffix: Box<[u8]> },
    /// All that is left.
    Rest { name: Box<str> },
}

/// A compiled template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    segments: Vec<Segment>,
}

/// What is wrong in a template, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternError {
    /// The byte of the template, counted from 0.
    pub at: usize,
    /// What is wrong, as a sentence without a full stop.
    pub problem: String,
    /// What to write instead.
    pub help: Option<&'static str>,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at character {})", self.problem, self.at + 1)
    }
}

impl std::error::Error for PatternError {}

impl Pattern {
    /// Reads a template.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err(error(0, "a path begins with a slash", Some("write `/users/{id}`")));
        };
        let mut segments = Vec::new();
        let mut at = 1;
        for part in rest.split('/') {
            if matches!(segments.last(), Some(Segment::Rest { .. })) {
                return Err(error(at - 1, "`{*…}` takes all that is left, so nothing may follow it", None));
            }
            if segments.len() == MAX_SEGMENTS {
                return Err(error(at, "a template has at most 64 segments", None));
            }
            let last = at + part.len() == text.len();
            if part.is_empty() && !last {
                return Err(error(at, "an empty segment never matches: `//` in a request becomes `/`", None));
            }
            segments.push(parse_segment(part, at)?);
            at += part.len() + 1;
        }
        check_names(&segments)?;
        Ok(Self { segments })
    }

    /// `/{*rest}`: every path.
    pub fn every() -> Self {
        Self { segments: vec![Segment::Rest { name: "rest".into() }] }
    }

    /// The names of the variable parts, in the order of [`Captures`].
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(Segment::name)
    }

    /// The same template for a table in which case does not count.
    pub(crate) fn folded(&self) -> Self {
        let fold = |text: &[u8]| fold(text, true);
        let segments = self.segments.iter().map(|segment| match segment {
            Segment::Literal(text) => Segment::Literal(fold(text)),
            Segment::Param { name, prefix, suffix } => {
                Segment::Param { name: name.clone(), prefix: fold(prefix), suffix: fold(suffix) }
            }
            Segment::Rest { name } => Segment::Rest { name: name.clone() },
        });
        Self { segments: segments.collect() }
    }

    /// The text without the names of its variable parts: equal for templates that take the same paths.
    pub(crate) fn shape(&self) -> String {
        let mut nameless = self.clone();
        for segment in &mut nameless.segments {
            match segment {
                Segment::Literal(_) => {}
                Segment::Param { name, .. } | Segment::Rest { name } => *name = "".into(),
            }
        }
        nameless.to_string()
    }

    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Whether a literal part holds an encoded slash.
    pub(crate) fn has_encoded_slash(&self) -> bool {
        self.segments.iter().any(|segment| match segment {
            Segment::Literal(text) => text.contains(&b'/'),
            Segment::Param { prefix, suffix, .. } => prefix.contains(&b'/') || suffix.contains(&b'/'),
            Segment::Rest { .. } => false,
        })
    }

    /// Whether every path is taken.
    pub(crate) fn is_every(&self) -> bool {
        matches!(self.segments.as_slice(), [Segment::Rest { .. }])
    }

    /// Matches one path by itself, without a tree: what `explain` says of routes that are no candidates, and the
    /// measure that tests hold the tree against.
    pub fn matches(&self, path: &str, ignore_case: bool) -> Option<Captures> {
        let bytes = path.as_bytes();
        let mut captures = Captures::default();
        // Where the next segment begins; `None` when the path is used up.
        let mut next = if bytes.first() == Some(&b'/') { Some(1) } else { None };
        for segment in &self.segments {
            let start = next?;
            let left = bytes.get(start..)?;
            let length = left.iter().position(|byte| *byte == b'/');
            let text = left.get(..length.unwrap_or(left.len()))?;
            next = length.map(|length| start + length + 1);
            match segment {
                Segment::Literal(literal) => {
                    let literal: &[u8] = literal;
                    let same = segment::canonical(text, ignore_case).as_slice() == &*fold(literal, ignore_case);
                    same.then_some(())?;
                }
                Segment::Param { prefix, suffix, .. } if prefix.is_empty() && suffix.is_empty() => {
                    (!text.is_empty()).then_some(())?;
                    captures.0.push(Span::new(start, text.len()));
                }
                Segment::Param { prefix, suffix, .. } => {
                    let (prefix, suffix) = (fold(prefix, ignore_case), fold(suffix, ignore_case));
                    let (offset, length) = segment::between(text, &prefix, &suffix, false, ignore_case)?;
                    captures.0.push(Span::new(start + offset, length));
                }
                Segment::Rest { .. } => {
                    captures.0.push(Span::new(start, left.len()));
                    next = None;
                }
            }
        }
        next.is_none().then_some(captures)
    }

    /// Orders templates, the more specific first: at the first segment that differs, literal before a part with text
    /// around it (more text first) before a whole segment before the rest. Equal means the same shape.
    pub fn compare(&self, other: &Self) -> Ordering {
        for (ours, theirs) in self.segments.iter().zip(&other.segments) {
            let order = ours.order().cmp(&theirs.order());
            if order != Ordering::Equal {
                return order;
            }
        }
        self.segments.len().cmp(&other.segments.len())
    }
}

/// The text in the one way that it is written: `/a:b` for `/a%3Ab`.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            f.write_str("/")?;
            match segment {
                Segment::Literal(text) => write_start(f, text)?,
                Segment::Param { name, prefix, suffix } => {
                    write_start(f, prefix)?;
                    write!(f, "{{{name}}}")?;
                    write_literal(f, suffix)?;
                }
                Segment::Rest { name } => write!(f, "{{*{name}}}")?,
            }
        }
        Ok(())
    }
}

impl Segment {
    fn name(&self) -> Option<&str> {
        match self {
            Self::Literal(_) => None,
            Self::Param { name, .. } | Self::Rest { name } => Some(name),
        }
    }

    fn order(&self) -> (u8, Reverse<usize>, Reverse<usize>, &[u8], &[u8]) {
        match self {
            Self::Literal(text) => (0, Reverse(0), Reverse(0), text, &[]),
            Self::Param { prefix, suffix, .. } if prefix.is_empty() && suffix.is_empty() => {
                (2, Reverse(0), Reverse(0), &[], &[])
            }
            Self::Param { prefix, suffix, .. } => affix_order(prefix, suffix),
            Self::Rest { .. } => (3, Reverse(0), Reverse(0), &[], &[]),
        }
    }
}

/// The order of parts with text around them: more text first, then more before than after, then by the text.
pub(crate) fn affix_order<'a>(
    prefix: &'a [u8],
    suffix: &'a [u8],
) -> (u8, Reverse<usize>, Reverse<usize>, &'a [u8], &'a [u8]) {
    (1, Reverse(prefix.len() + suffix.len()), Reverse(prefix.len()), prefix, suffix)
}

/// Literal text as it is compared in a table with or without case.
pub(crate) fn fold(text: &[u8], ignore_case: bool) -> Box<[u8]> {
    if ignore_case { text.to_ascii_lowercase().into() } else { text.into() }
}

/// Writes text that begins a segment. What would be read as a mistake there is written encoded.
fn write_start(f: &mut fmt::Formatter<'_>, text: &[u8]) -> fmt::Result {
    let mistaken = match text {
        b"*" | b"**" => true,
        [b':', second, ..] => second.is_ascii_alphabetic(),
        _ => false,
    };
    match text.split_first() {
        Some((first, rest)) if mistaken => {
            write!(f, "%{first:02X}")?;
            write_literal(f, rest)
        }
        _ => write_literal(f, text),
    }
}

fn write_literal(f: &mut fmt::Formatter<'_>, text: &[u8]) -> fmt::Result {
    for &byte in text {
        if is_unreserved(byte) || b"!$&'()*+,=:@".contains(&byte) {
            write!(f, "{}", char::from(byte))?;
        } else {
            write!(f, "%{byte:02X}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(template: &str, path: &str) -> Option<Vec<String>> {
        let captures = Pattern::parse(template).unwrap().matches(path, false)?;
        Some((0..captures.len()).map(|i| captures.value(i, path).unwrap().to_owned()).collect())
    }

    fn problem(template: &str) -> String {
        Pattern::parse(template).unwrap_err().to_string()
    }

    #[test]
    fn variable_parts_take_what_they_say() {
        assert_eq!(values("/users/{id}", "/users/42"), Some(vec!["42".into()]));
        assert_eq!(values("/users/{id}", "/users/"), None);
        assert_eq!(values("/users/{id}", "/users/4/2"), None);
        assert_eq!(values("/files/{name}.json", "/files/a.b.json"), Some(vec!["a.b".into()]));
        assert_eq!(values("/files/{name}.json", "/files/.json"), None);
        assert_eq!(values("/op/{id}:cancel", "/op/7%3Acancel"), Some(vec!["7".into()]));
        assert_eq!(values("/{a}/{b}", "/x/%20y"), Some(vec!["x".into(), "%20y".into()]));
    }

    #[test]
    fn the_rest_may_be_empty_but_not_its_slash() {
        assert_eq!(values("/orders/{*rest}", "/orders/"), Some(vec![String::new()]));
        assert_eq!(values("/orders/{*rest}", "/orders/a/b/"), Some(vec!["a/b/".into()]));
        assert_eq!(values("/orders/{*rest}", "/orders"), None);
        assert_eq!(values("/{*rest}", "/"), Some(vec![String::new()]));
    }

    #[test]
    fn a_trailing_slash_counts() {
        assert_eq!(values("/users", "/users/"), None);
        assert_eq!(values("/users/", "/users"), None);
        assert_eq!(values("/users/", "/users/"), Some(vec![]));
        assert_eq!(values("/", "/"), Some(vec![]));
    }

    #[test]
    fn literals_are_compared_as_a_server_reads_them() {
        for path in ["/a:b", "/a%3Ab", "/a:b;v=1"] {
            assert_eq!(values("/a%3Ab", path), Some(vec![]), "{path}");
        }
        assert_eq!(values("/caf\u{e9}", "/caf%C3%A9"), Some(vec![]));
        assert_eq!(values("/a%2Fb", "/a/b"), None);
        assert!(Pattern::parse("/Admin").unwrap().matches("/aDMIN", true).is_some());
    }

    #[test]
    fn a_template_is_written_in_one_way() {
        for (text, canonical) in [
            ("/a%3ab", "/a:b"),
            ("/caf\u{e9}", "/caf%C3%A9"),
            ("/x{y}.z/{*r}", "/x{y}.z/{*r}"),
            ("/%3aid/%2a", "/%3Aid/%2A"),
            ("/", "/"),
        ] {
            assert_eq!(Pattern::parse(text).unwrap().to_string(), canonical);
            assert_eq!(Pattern::parse(canonical).unwrap().to_string(), canonical);
        }
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        assert_eq!(problem("users"), "a path begins with a slash (at character 1)");
        assert_eq!(problem("/a//b"), "an empty segment never matches: `//` in a request becomes `/` (at character 4)");
        assert_eq!(problem("/a/../b"), "a dot segment never matches: they are removed from requests (at character 4)");
        assert_eq!(problem("/%2e"), "a dot segment never matches: they are removed from requests (at character 2)");
        assert_eq!(problem("/a/{id"), "`{` without `}` (at character 4)");
        assert_eq!(problem("/a/id}"), "`}` without `{` (at character 6)");
        assert_eq!(problem("/a/{}"), "the variable part has no name (at character 5)");
        assert_eq!(problem("/a/{1d}"), "`1d` is no name: letters, digits and `_`, not a digit first (at character 5)");
        assert_eq!(problem("/a/{id:[0-9]+}"), "constraints within braces are not known (at character 5)");
        assert_eq!(problem("/a/{x}-{y}"), "a segment has one variable part at most (at character 8)");
        assert_eq!(problem("/a/{*r}/b"), "`{*…}` takes all that is left, so nothing may follow it (at character 8)");
        assert_eq!(problem("/a/x{*r}"), "`{*…}` is a segment of its own (at character 5)");
        assert_eq!(problem("/a/*"), "`*` takes nothing here (at character 4)");
        assert_eq!(problem("/a/:id"), "a variable part stands in braces (at character 4)");
        assert_eq!(problem("/a?b=c"), "a query is no part of the path (at character 3)");
        assert_eq!(problem("/a%2"), "`%` is not followed by two hexadecimal digits (at character 3)");
        assert_eq!(problem("/{a}/{a}"), "`a` names two parts (at character 1)");
        assert_eq!(problem("/a b"), "a path has no spaces (at character 3)");
    }

    #[test]
    fn the_more_specific_template_comes_first() {
        let mut all: Vec<Pattern> = ["/{*r}", "/a/{*r}", "/{x}/b", "/a/{y}", "/a/v{y}.json", "/a/v{y}", "/a/b"]
            .map(|t| Pattern::parse(t).unwrap())
            .into();
        all.sort_by(Pattern::compare);
        let sorted: Vec<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!(sorted, ["/a/b", "/a/v{y}.json", "/a/v{y}", "/a/{y}", "/a/{*r}", "/{x}/b", "/{*r}"]);
    }
}
