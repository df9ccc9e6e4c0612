//! Computes host, path and query for the upstream, and checks the path again as if a client had sent it.
//!
//! Captured values go into a path as they stand in the request's normal path, still encoded, and into a query encoded
//! anew. A rewrite that would make a dot segment or an encoded slash out of harmless parts is refused, not repaired:
//! `^/api(?<rest>.*)` to `/v1/{rest}` must not turn `/api/../admin` or `/api..` into a way out of `/v1`.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use http::HeaderValue;
use http::uri::PathAndQuery;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use pylon_core::spec::{FieldPath, SpecError};

use crate::matching::RouteMatch;
use crate::normalise::{PathError, PathRules, decode, has_encoded_slash, normalise};
use crate::pattern::Captures;
use crate::predicate::{decoded, query_pairs};
use crate::segment::canonical;
use crate::spec::{QueryRewriteSpec, RewriteSpec};
use pylon_core::host::HostName;

/// What is encoded in a name or value of a query.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Why a rewritten request is refused: 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RewriteError {
    /// The new path has a dot segment.
    Dots,
    /// The new path has an encoded slash that the client did not send.
    EncodedSlash,
    /// The new path would be refused if a client had sent it.
    Path(PathError),
    /// Path and query together are no request target, or are too long.
    Target,
}

impl fmt::Display for RewriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dots => f.write_str("the rewritten path has a dot segment"),
            Self::EncodedSlash => f.write_str("the rewritten path has an encoded slash"),
            Self::Path(error) => write!(f, "after the rewrite {error}"),
            Self::Target => f.write_str("the rewritten path and query are no request target"),
        }
    }
}

impl std::error::Error for RewriteError {}

/// A compiled rewrite.
#[derive(Debug, Clone)]
pub struct Rewrite {
    path: PathRewrite,
    host: Option<HeaderValue>,
    query: Option<QueryRewrite>,
}

#[derive(Debug, Clone)]
enum PathRewrite {
    Template(Template),
    /// Canonical segments to take away, and text to put in their place: empty, or with a slash before and none behind.
    Prefix {
        strip: Vec<Box<[u8]>>,
        add: String,
    },
}

#[derive(Debug, Clone)]
struct QueryRewrite {
    remove: Vec<String>,
    /// Names, encoded, with the values that they get.
    set: Vec<(String, Template)>,
}

/// Text with captures in it.
#[derive(Debug, Clone)]
struct Template(Vec<Part>);

#[derive(Debug, Clone)]
enum Part {
    Text(String),
    Capture(usize),
}

impl Rewrite {
    /// Compiles a rewrite for a route; all that is wrong is reported at once.
    pub fn compile(spec: &RewriteSpec, route: &RouteMatch) -> Result<Self, Vec<SpecError>> {
        let mut errors = Vec::new();
        if *spec == RewriteSpec::default() {
            errors.push(SpecError::new(FieldPath::root(), "the rewrite says nothing").help("write the new path"));
        }
        let names = route.path().names();
        let path = compile_path(spec, &names, &mut errors);
        let host = spec.host.as_ref().and_then(|text| compile_host(text, &mut errors));
        let query = spec.query.as_ref().map(|query| compile_query(query, &names, &mut errors));
        if errors.is_empty() { Ok(Self { path, host, query }) } else { Err(errors) }
    }

    /// The host that the upstream is told, if the rewrite says one.
    pub fn host(&self) -> Option<&HeaderValue> {
        self.host.as_ref()
    }

    /// The target for the upstream. `path` is the request's normal path, from which `captures` were taken; the result
    /// is in normal form and has no dot segment. Errors are the client's fault: 400.
    pub fn apply(&self, path: &str, query: Option<&str>, captures: &Captures) -> Result<PathAndQuery, RewriteError> {
        let composed = match &self.path {
            PathRewrite::Template(template) => {
                let mut out = String::with_capacity(path.len());
                template.write(&mut out, path, captures, String::push_str);
                Cow::Owned(out)
            }
            PathRewrite::Prefix { strip, add } => replace_prefix(path, strip, add),
        };
        let mut target = check(&composed, path)?.into_owned();
        match &self.query {
            Some(rewrite) => rewrite.write(&mut target, path, query.unwrap_or_default(), captures),
            None => {
                if let Some(query) = query {
                    target.push('?');
                    target.push_str(query);
                }
            }
        }
        PathAndQuery::from_maybe_shared(Bytes::from(target)).map_err(|_| RewriteError::Target)
    }
}

/// The new path in normal form, or why it is refused. `before` is the path as the client sent it, in normal form.
fn check<'a>(after: &'a str, before: &str) -> Result<Cow<'a, str>, RewriteError> {
    // Looked at decoded, since text and value may have made a triplet together.
    let dots = |segment: &str| matches!(canonical(segment.as_bytes(), false).as_slice(), b"." | b"..");
    if after.split('/').any(dots) {
        return Err(RewriteError::Dots);
    }
    let path = normalise(after, PathRules::SERVE).map_err(RewriteError::Path)?;
    if has_encoded_slash(&path) && !has_encoded_slash(before) {
        return Err(RewriteError::EncodedSlash);
    }
    Ok(path)
}

/// Takes whole segments from the front, compared as the router compares literals, and puts `add` in their place.
fn replace_prefix<'a>(path: &'a str, strip: &[Box<[u8]>], add: &str) -> Cow<'a, str> {
    let mut left = path;
    for wanted in strip {
        let segment = left.strip_prefix('/').map(|rest| rest.split_once('/').map_or(rest, |(segment, _)| segment));
        match segment {
            Some(segment) if canonical(segment.as_bytes(), false).as_slice() == &**wanted => {
                left = left.get(segment.len() + 1..).unwrap_or_default();
            }
            _ => {
                left = path;
                break;
            }
        }
    }
    if add.is_empty() && !left.is_empty() {
        return Cow::Borrowed(left);
    }
    let slash = if add.is_empty() { "/" } else { "" };
    Cow::Owned(format!("{add}{left}{slash}"))
}

impl Template {
    fn write(&self, out: &mut String, path: &str, captures: &Captures, value: impl Fn(&mut String, &str)) {
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Capture(position) => value(out, captures.value(*position, path).unwrap_or_default()),
            }
        }
    }

    /// What comes out for captures of one plain letter.
    fn sample(&self) -> String {
        let text = self.0.iter().map(|part| match part {
            Part::Text(text) => text.as_str(),
            Part::Capture(_) => "x",
        });
        text.collect()
    }
}

impl QueryRewrite {
    fn write(&self, target: &mut String, path: &str, query: &str, captures: &Captures) {
        let mut mark = '?';
        let is_replaced = |name: &str| {
            let name = decoded(name);
            let removed = self.remove.iter().any(|removed| *removed.as_bytes() == *name);
            removed || self.set.iter().any(|(set, _)| *decoded(set) == *name)
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            if query_pairs(pair).all(|(name, _)| !is_replaced(name)) {
                target.push(std::mem::replace(&mut mark, '&'));
                target.push_str(pair);
            }
        }
        for (name, template) in &self.set {
            target.push(std::mem::replace(&mut mark, '&'));
            target.push_str(name);
            target.push('=');
            template.write(target, path, captures, |out, value| {
                let plain: Vec<u8> = percent_decode_str(value).collect();
                out.extend(percent_encode(&plain, QUERY));
            });
        }
    }
}

fn key(name: &str) -> FieldPath {
    FieldPath::root().key(name)
}

fn compile_path(spec: &RewriteSpec, names: &[&str], errors: &mut Vec<SpecError>) -> PathRewrite {
    if let Some(text) = &spec.path {
        for (other, given) in [("strip_prefix", &spec.strip_prefix), ("add_prefix", &spec.add_prefix)] {
            if given.is_some() {
                errors.push(SpecError::new(key(other), "a rewrite has either `path` or prefixes"));
            }
        }
        return PathRewrite::Template(compile_template(text, names, key("path"), true, errors));
    }
    let mut prefix = |name: &str, text: &Option<String>| {
        let text = text.as_deref().map_or("", |text| text.trim_end_matches('/'));
        // The empty prefix takes or adds nothing; `/` alone means the same.
        let normal = if text.is_empty() { Ok(Cow::Borrowed("")) } else { normalise(text, PathRules::default()) };
        match normal {
            Ok(normal) => normal.into_owned(),
            Err(error) => {
                errors.push(SpecError::new(key(name), format!("`{text}` is no prefix: {error}")).help("write `/api`"));
                String::new()
            }
        }
    };
    let strip = prefix("strip_prefix", &spec.strip_prefix);
    let add = prefix("add_prefix", &spec.add_prefix);
    let strip =
        strip.split('/').skip(1).map(|segment| canonical(segment.as_bytes(), false).as_slice().into()).collect();
    PathRewrite::Prefix { strip, add }
}

fn compile_host(text: &str, errors: &mut Vec<SpecError>) -> Option<HeaderValue> {
    match (HostName::parse(text.as_bytes()), HeaderValue::from_str(text)) {
        (Ok(_), Ok(value)) => Some(value),
        (Err(error), _) => {
            errors.push(SpecError::new(key("host"), format!("`{text}` is no host: {error}")));
            None
        }
        (Ok(_), Err(_)) => None,
    }
}

fn compile_query(spec: &QueryRewriteSpec, names: &[&str], errors: &mut Vec<SpecError>) -> QueryRewrite {
    let at = key("query").key("set");
    let set = spec.set.iter().map(|(name, value)| {
        let template = compile_template(value, names, at.clone().key(name), false, errors);
        (percent_encode(name.as_bytes(), QUERY).to_string(), template)
    });
    QueryRewrite { set: set.collect(), remove: spec.remove.0.clone() }
}

/// Reads `/v2/{id}`. Text of a path is brought into normal form, text of a query is encoded.
fn compile_template(text: &str, names: &[&str], at: FieldPath, is_path: bool, errors: &mut Vec<SpecError>) -> Template {
    let mut parts = Vec::new();
    if is_path && !text.starts_with('/') {
        errors
            .push(SpecError::new(at.clone(), format!("`{text}` does not begin with a slash")).help("write `/v2/{id}`"));
    }
    let mut left = text;
    loop {
        let (plain, rest) = left.split_once('{').map_or((left, None), |(plain, rest)| (plain, Some(rest)));
        if !plain.is_empty() {
            match template_text(plain, is_path) {
                Ok(plain) => parts.push(Part::Text(plain)),
                Err(problem) => errors.push(SpecError::new(at.clone(), format!("`{text}`: {problem}"))),
            }
        }
        let Some(rest) = rest else { break };
        let Some((name, after)) = rest.split_once('}') else {
            errors.push(SpecError::new(at.clone(), format!("`{text}`: `{{` without `}}`")));
            break;
        };
        let name = name.strip_prefix('*').unwrap_or(name);
        match names.iter().position(|known| *known == name) {
            Some(position) => parts.push(Part::Capture(position)),
            None => errors.push(unknown_capture(name, names, at.clone())),
        }
        left = after;
    }
    let template = Template(parts);
    if is_path && errors.is_empty() {
        // The template by itself must be sound, whatever the client sends.
        let sample = template.sample();
        if let Err(error) = check(&sample, &sample) {
            errors.push(SpecError::new(at, format!("`{text}` never works: {error}")));
        }
    }
    template
}

fn template_text(text: &str, is_path: bool) -> Result<String, String> {
    if text.contains('}') {
        return Err("`}` without `{`".to_owned());
    }
    if is_path {
        return clean(text).map_err(|error| error.to_string());
    }
    Ok(percent_encode(text.as_bytes(), QUERY).to_string())
}

/// Text of a document as it stands in a normal path: the document may hold characters beyond ASCII, a path may not.
fn clean(text: &str) -> Result<String, PathError> {
    let mut ascii = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_ascii() {
            ascii.push(character);
        } else {
            ascii.extend(percent_encode(character.encode_utf8(&mut [0; 4]).as_bytes(), QUERY));
        }
    }
    String::from_utf8(decode(ascii.as_bytes())?).map_err(|_| PathError::Bare)
}

fn unknown_capture(name: &str, names: &[&str], at: FieldPath) -> SpecError {
    let error = SpecError::new(at, format!("the match captures no `{name}`"));
    if names.is_empty() {
        return error.help("capture it in the path of the match: `/users/{id}`");
    }
    let known: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    error.help(format!("it captures {}", known.join(", ")))
}

#[cfg(test)]
mod tests;
