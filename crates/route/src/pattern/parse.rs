//! Reads the segments of a template, each mistake with its place.

use super::{PatternError, Segment};
use crate::normalise::triplet;

pub(super) fn error(at: usize, problem: impl Into<String>, help: Option<&'static str>) -> PatternError {
    PatternError { at, problem: problem.into(), help }
}

pub(super) fn parse_segment(part: &str, at: usize) -> Result<Segment, PatternError> {
    if part.starts_with(':') && part.as_bytes().get(1).is_some_and(u8::is_ascii_alphabetic) {
        return Err(error(
            at,
            "a variable part stands in braces",
            Some("write `{id}`, or `%3Aid` for a literal colon"),
        ));
    }
    let Some(open) = part.find('{') else {
        if let Some(close) = part.find('}') {
            return Err(error(at + close, "`}` without `{`", None));
        }
        if part == "*" || part == "**" {
            return Err(error(at, "`*` takes nothing here", Some("write `{*rest}` for all that is left")));
        }
        let text = literal(part, at)?;
        if matches!(&*text, b"." | b"..") {
            return Err(error(at, "a dot segment never matches: they are removed from requests", None));
        }
        return Ok(Segment::Literal(text));
    };
    let (prefix, after) = part.split_at(open);
    let Some(close) = after.find('}') else {
        return Err(error(at + open, "`{` without `}`", None));
    };
    let name = after.get(1..close).unwrap_or_default();
    let suffix = after.get(close + 1..).unwrap_or_default();
    if let Some(second) = suffix.find(['{', '}']) {
        let second = at + open + close + 1 + second;
        return Err(error(second, "a segment has one variable part at most", Some("use `regex:` for such a path")));
    }
    if let Some(rest) = name.strip_prefix('*') {
        if !prefix.is_empty() || !suffix.is_empty() {
            return Err(error(at + open, "`{*…}` is a segment of its own", None));
        }
        return Ok(Segment::Rest { name: read_name(rest, at + open + 2)? });
    }
    Ok(Segment::Param {
        name: read_name(name, at + open + 1)?,
        prefix: literal(prefix, at)?,
        suffix: literal(suffix, at + open + close + 1)?,
    })
}

fn read_name(name: &str, at: usize) -> Result<Box<str>, PatternError> {
    if name.is_empty() {
        return Err(error(at, "the variable part has no name", Some("write `{id}` or `{*rest}`")));
    }
    if name.contains(':') {
        return Err(error(at, "constraints within braces are not known", Some("use `regex:` for such a path")));
    }
    let first = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    if !first || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err(error(at, format!("`{name}` is no name: letters, digits and `_`, not a digit first"), None));
    }
    Ok(name.into())
}

/// Literal text in canonical form: decoded once.
fn literal(text: &str, at: usize) -> Result<Box<[u8]>, PatternError> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while let Some(&byte) = bytes.get(i) {
        let here = at + i;
        let value = match byte {
            b'%' => {
                i += 2;
                triplet(bytes.get(i - 1), bytes.get(i))
                    .ok_or_else(|| error(here, "`%` is not followed by two hexadecimal digits", Some("write `%25`")))?
            }
            b'?' => return Err(error(here, "a query is no part of the path", Some("match it by `query:`"))),
            b'#' => return Err(error(here, "fragments are not sent to servers", None)),
            b';' => return Err(error(here, "parameters take no part in matching", Some("leave them out"))),
            _ if byte.is_ascii_whitespace() => {
                return Err(error(here, "a path has no spaces", Some("write `%20` for a literal space")));
            }
            _ => byte,
        };
        if value.is_ascii_control() || value == b'\\' {
            return Err(error(here, "requests with this character are refused", None));
        }
        out.push(value);
        i += 1;
    }
    Ok(out.into())
}

pub(super) fn check_names(segments: &[Segment]) -> Result<(), PatternError> {
    let mut seen: Vec<&str> = Vec::new();
    for name in segments.iter().filter_map(Segment::name) {
        if seen.contains(&name) {
            return Err(error(0, format!("`{name}` names two parts"), Some("give each part a name of its own")));
        }
        seen.push(name);
    }
    Ok(())
}
