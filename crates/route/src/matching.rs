//! One route's match, compiled: hosts, path, methods and predicates.

use std::cmp::{Ordering, Reverse};
use std::fmt;

use http::{HeaderName, Method};
use ipnet::IpNet;
use pylon_core::spec::{FieldPath, SpecError};

use crate::normalise::EncodedSlash;
use crate::pattern::{Captures, Pattern, Span};
use crate::predicate::{Expression, Head, MethodSet, Predicate, ValueTest};
use crate::spec::{MatchSpec, ValueSpec};
use pylon_core::host::HostPattern;

/// How a route matches the path.
#[derive(Debug, Clone)]
pub enum PathMatch {
    /// By a template.
    Template(Pattern),
    /// By a regular expression that must fit the whole path.
    Regex(Expression),
}

impl PathMatch {
    /// The names of the captures, in the order of [`Captures`].
    pub fn names(&self) -> Vec<&str> {
        match self {
            Self::Template(pattern) => pattern.names().collect(),
            Self::Regex(expression) => expression.regex().capture_names().flatten().collect(),
        }
    }

    /// Matches one path by itself.
    pub(crate) fn matches(&self, path: &str, ignore_case: bool) -> Option<Captures> {
        match self {
            Self::Template(pattern) => pattern.matches(path, ignore_case),
            Self::Regex(expression) => expression.is_match(path.as_bytes()).then(|| regex_captures(expression, path)),
        }
    }
}

impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Template(pattern) => pattern.fmt(f),
            Self::Regex(expression) => write!(f, "~{}", expression.as_str()),
        }
    }
}

/// The named groups of an expression that fits. A group that took no part is empty.
pub(crate) fn regex_captures(expression: &Expression, path: &str) -> Captures {
    let regex = expression.regex();
    let mut captures = Captures::default();
    if regex.captures_len() == 1 {
        return captures;
    }
    if let Some(groups) = regex.captures(path.as_bytes()) {
        for (name, group) in regex.capture_names().zip(groups.iter()) {
            if name.is_some() {
                captures.0.push(group.map_or(Span::new(0, 0), |group| Span::new(group.start(), group.len())));
            }
        }
    }
    captures
}

/// A route's match, ready for a [`crate::table::Table`].
#[derive(Debug, Clone)]
pub struct RouteMatch {
    pub(crate) hosts: Vec<HostPattern>,
    pub(crate) path: PathMatch,
    pub(crate) methods: Option<MethodSet>,
    pub(crate) predicates: Vec<Predicate>,
    pub(crate) encoded_slash: EncodedSlash,
}

/// The first thing that keeps a request from a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mismatch {
    /// The host is another.
    Host {
        /// What the route takes.
        wanted: String,
    },
    /// The path is another.
    Path {
        /// What the route takes.
        wanted: String,
    },
    /// The method is not among the route's.
    Method {
        /// What the route takes.
        wanted: MethodSet,
    },
    /// A predicate does not hold.
    Predicate {
        /// What the route wants.
        wanted: String,
    },
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { wanted } => write!(f, "the host is not {wanted}"),
            Self::Path { wanted } => write!(f, "the path is not {wanted}"),
            Self::Method { wanted } => write!(f, "the method is none of {wanted}"),
            Self::Predicate { wanted } => write!(f, "does not hold: {wanted}"),
        }
    }
}

impl RouteMatch {
    /// Compiles a spec; all that is wrong is reported at once.
    pub fn compile(spec: &MatchSpec) -> Result<Self, Vec<SpecError>> {
        let mut errors = Vec::new();
        if *spec == MatchSpec::default() {
            let error = SpecError::new(FieldPath::root(), "the match says nothing");
            return Err(vec![error.help("write `/{*rest}` for every request")]);
        }
        let hosts = compile_hosts(&spec.host, &mut errors);
        let path = compile_path(spec, &mut errors);
        let methods = compile_methods(&spec.methods, &mut errors);
        let predicates = compile_predicates(spec, &mut errors);
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self { hosts, path, methods, predicates, encoded_slash: spec.encoded_slash.unwrap_or_default() })
    }

    /// The hosts, never none.
    pub fn hosts(&self) -> &[HostPattern] {
        &self.hosts
    }

    /// How the path is matched.
    pub fn path(&self) -> &PathMatch {
        &self.path
    }

    /// The methods; `None` for every method.
    pub fn methods(&self) -> Option<&MethodSet> {
        self.methods.as_ref()
    }

    /// The predicates besides the method.
    pub fn predicates(&self) -> &[Predicate] {
        &self.predicates
    }

    /// What the route does with `%2F`.
    pub fn encoded_slash(&self) -> EncodedSlash {
        self.encoded_slash
    }

    /// Whether both have the same path, and hosts and methods in common: whatever else they ask for, one stands in the
    /// other's way.
    pub fn meets(&self, other: &Self, ignore_case: bool) -> bool {
        let same_path = match (&self.path, &other.path) {
            (PathMatch::Template(one), PathMatch::Template(other)) if ignore_case => {
                one.folded().shape() == other.folded().shape()
            }
            (PathMatch::Template(one), PathMatch::Template(other)) => one.shape() == other.shape(),
            _ => false,
        };
        let methods = match (&self.methods, &other.methods) {
            (Some(one), Some(other)) => one.meets(other),
            _ => true,
        };
        same_path && methods && self.hosts.iter().any(|host| other.hosts.iter().any(|other| host.meets(other)))
    }

    pub(crate) fn takes_method(&self, method: &Method) -> bool {
        self.methods.as_ref().is_none_or(|methods| methods.contains(method))
    }

    /// The first of method and predicates that does not hold; host and path are known to match.
    pub(crate) fn first_failing(&self, head: &Head<'_>) -> Option<Mismatch> {
        if let Some(wanted) = self.methods.as_ref().filter(|methods| !methods.contains(head.method)) {
            return Some(Mismatch::Method { wanted: wanted.clone() });
        }
        let failing = self.predicates.iter().find(|predicate| !predicate.check(head))?;
        Some(Mismatch::Predicate { wanted: failing.to_string() })
    }

    /// Why this route, by itself, would not take the request; `None` if it would.
    pub fn mismatch(&self, head: &Head<'_>, ignore_case: bool) -> Option<Mismatch> {
        if !self.hosts.iter().any(|host| host.takes(head.host)) {
            return Some(Mismatch::Host { wanted: join(&self.hosts, " or ") });
        }
        if self.path.matches(head.path, ignore_case).is_none() {
            return Some(Mismatch::Path { wanted: self.path.to_string() });
        }
        self.first_failing(head)
    }

    /// How many things are asked besides host and path: more come first.
    fn weight(&self) -> usize {
        self.predicates.len() + usize::from(self.methods.is_some())
    }

    /// Orders routes of the same host and path: more predicates first, then fewer methods. Ties stand as written.
    pub(crate) fn compare_demands(&self, other: &Self) -> Ordering {
        let key = |route: &Self| (Reverse(route.weight()), route.methods.as_ref().map_or(usize::MAX, MethodSet::len));
        key(self).cmp(&key(other))
    }
}

/// The canonical text: the route's id when it has no name.
impl fmt::Display for RouteMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(methods) = &self.methods {
            write!(f, "{} ", methods.short())?;
        }
        if self.hosts != [HostPattern::Any] {
            f.write_str(&join(&self.hosts, ","))?;
        }
        write!(f, "{}", self.path)?;
        for (i, predicate) in self.predicates.iter().enumerate() {
            write!(f, "{} {predicate}", if i == 0 { " if" } else { " and" })?;
        }
        Ok(())
    }
}

fn join<T: fmt::Display>(items: &[T], with: &str) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(with)
}

fn key(name: &str) -> FieldPath {
    FieldPath::root().key(name)
}

fn compile_hosts(texts: &[String], errors: &mut Vec<SpecError>) -> Vec<HostPattern> {
    let mut hosts = Vec::new();
    for (i, text) in texts.iter().enumerate() {
        match HostPattern::parse(text) {
            Ok(host) if hosts.contains(&host) => {
                errors.push(SpecError::new(key("host").index(i), format!("`{host}` stands twice")));
            }
            Ok(host) => hosts.push(host),
            Err(error) => errors.push(SpecError::new(key("host").index(i), format!("`{text}` is no host: {error}"))),
        }
    }
    if texts.is_empty() {
        hosts.push(HostPattern::Any);
    }
    hosts
}

fn compile_path(spec: &MatchSpec, errors: &mut Vec<SpecError>) -> PathMatch {
    match (&spec.path, &spec.regex) {
        (Some(_), Some(_)) => {
            errors.push(SpecError::new(key("regex"), "a match has either `path` or `regex`"));
        }
        (Some(text), None) => match Pattern::parse(text) {
            Ok(pattern) => return PathMatch::Template(pattern),
            Err(error) => {
                let mut spec_error = SpecError::new(key("path"), format!("`{text}`: {error}"));
                spec_error.help = error.help.map(str::to_owned);
                errors.push(spec_error);
            }
        },
        (None, Some(text)) => match Expression::new(text, false) {
            Ok(expression) => return PathMatch::Regex(expression),
            Err(problem) => errors.push(SpecError::new(key("regex"), problem)),
        },
        (None, None) => {}
    }
    PathMatch::Template(Pattern::every())
}

fn compile_methods(texts: &[String], errors: &mut Vec<SpecError>) -> Option<MethodSet> {
    let mut methods = MethodSet::new();
    for (i, text) in texts.iter().enumerate() {
        let at = key("methods").index(i);
        match Method::from_bytes(text.as_bytes()) {
            Ok(_) if text.bytes().any(|byte| byte.is_ascii_lowercase()) => errors.push(
                SpecError::new(at, format!("`{text}` is not a method that anybody sends"))
                    .help(format!("methods are upper case: write `{}`", text.to_ascii_uppercase())),
            ),
            Ok(method) => methods.insert(method),
            Err(_) => {
                errors.push(SpecError::new(at, format!("`{text}` is no method")).help("write `GET` or `GET,POST`"));
            }
        }
    }
    methods.sort();
    (!methods.is_empty()).then_some(methods)
}

/// In a fixed order, so that the canonical text does not depend on how the spec was written.
fn compile_predicates(spec: &MatchSpec, errors: &mut Vec<SpecError>) -> Vec<Predicate> {
    let mut all = Vec::new();
    for (name, value) in &spec.headers {
        let at = key("headers").key(name);
        let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
            errors.push(SpecError::new(at, format!("`{name}` is no name of a header field")));
            continue;
        };
        if all.iter().any(|known| matches!(known, Predicate::Header(known, _) if *known == header)) {
            errors.push(SpecError::new(at, format!("`{header}` stands twice: case does not matter")));
            continue;
        }
        all.extend(compile_value(value, at, errors).map(|test| Predicate::Header(header, test)));
    }
    all.sort_by_key(ToString::to_string);
    for (name, value) in &spec.query {
        let test = compile_value(value, key("query").key(name), errors);
        all.extend(test.map(|test| Predicate::Query(name.as_str().into(), test)));
    }
    for (name, value) in &spec.cookies {
        let test = compile_value(value, key("cookies").key(name), errors);
        all.extend(test.map(|test| Predicate::Cookie(name.as_str().into(), test)));
    }
    let mut nets = Vec::new();
    for (i, text) in spec.client.iter().enumerate() {
        match read_net(text) {
            Some(net) => nets.push(net),
            None => errors.push(
                SpecError::new(key("client").index(i), format!("`{text}` is no network"))
                    .help("write `10.0.0.0/8`, `2001:db8::/32` or one address"),
            ),
        }
    }
    if !nets.is_empty() {
        nets.sort_unstable();
        nets.dedup();
        all.push(Predicate::Client(nets));
    }
    all
}

fn compile_value(spec: &ValueSpec, at: FieldPath, errors: &mut Vec<SpecError>) -> Option<ValueTest> {
    let said = [spec.is.is_some(), spec.starts_with.is_some(), spec.matches.is_some(), spec.present, spec.absent];
    if said.iter().filter(|said| **said).count() != 1 {
        let error = SpecError::new(at, "a value is tested in exactly one way");
        errors.push(error.help("write one of `is`, `starts_with`, `matches`, `present: true` and `absent: true`"));
        return None;
    }
    if let Some(text) = &spec.is {
        return Some(ValueTest::Is(text.as_str().into()));
    }
    if let Some(text) = &spec.starts_with {
        return Some(ValueTest::StartsWith(text.as_str().into()));
    }
    if let Some(text) = &spec.matches {
        return match Expression::new(text, false) {
            Ok(expression) => Some(ValueTest::Matches(expression)),
            Err(problem) => {
                errors.push(SpecError::new(at.key("matches"), problem));
                None
            }
        };
    }
    Some(if spec.present { ValueTest::Present } else { ValueTest::Absent })
}

fn read_net(text: &str) -> Option<IpNet> {
    let net =
        text.parse::<IpNet>().ok().or_else(|| text.parse().ok().map(|address: std::net::IpAddr| address.into()))?;
    Some(net.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pylon_core::short::Short;

    fn compile(json: &str) -> Result<RouteMatch, Vec<String>> {
        let spec: Short<MatchSpec> = serde_json::from_str(json).map_err(|error| vec![error.to_string()])?;
        RouteMatch::compile(&spec)
            .map_err(|errors| errors.iter().map(|error| format!("{}: {}", error.at, error.problem)).collect())
    }

    fn text(json: &str) -> String {
        compile(json).unwrap().to_string()
    }

    #[test]
    fn a_match_has_one_canonical_text() {
        assert_eq!(text(r#""GET /users/{id}""#), "GET /users/{id}");
        assert_eq!(text(r#""POST,GET API.example.com/x""#), "GET,POST api.example.com/x");
        assert_eq!(text(r#"{"methods": ["GET", "HEAD"], "path": "/a"}"#), "GET /a");
        assert_eq!(text(r#"{"host": ["a", "*.b"], "regex": "/v[0-9]"}"#), "a,*.b~/v[0-9]");
        assert_eq!(
            text(r#"{"headers": {"X-Beta": "1"}, "query": {"v": "*"}, "client": "10.1.2.3/8"}"#),
            "/{*rest} if header `x-beta` is `1` and query parameter `v` is present and client is in 10.0.0.0/8"
        );
    }

    #[test]
    fn matches_of_one_path_meet_where_hosts_and_methods_do() {
        let meet = |one: &str, other: &str, ignore_case| {
            compile(&format!("\"{one}\"")).unwrap().meets(&compile(&format!("\"{other}\"")).unwrap(), ignore_case)
        };
        for (one, other) in [("GET /a", "/a"), ("GET /a/{x}", "GET,POST /a/{y}"), ("GET *.b.com/a", "HEAD c.b.com/a")] {
            assert!(meet(one, other, false) && meet(other, one, false), "{one} {other}");
        }
        for (one, other) in [("GET /a", "POST /a"), ("/a", "/a/{x}"), ("/a", "/A"), ("a.com/a", "b.com/a")] {
            assert!(!meet(one, other, false) && !meet(other, one, false), "{one} {other}");
        }
        assert!(meet("/a", "/A", true));
    }

    #[test]
    fn a_number_is_a_value_too() {
        assert_eq!(text(r#"{"path": "/a", "headers": {"x-beta": 1}}"#), "/a if header `x-beta` is `1`");
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let problems = compile(
            r#"{"methods": ["get", "G T"], "host": ["a:80", "b", "b"], "path": "/{", "client": ["ten"],
                "headers": {"x y": "1", "a": {"is": "1", "absent": true}, "b": {"matches": "["}}}"#,
        )
        .unwrap_err();
        assert_eq!(
            problems,
            [
                "host[0]: `a:80` is no host: a port has no place here: routes match the name only",
                "host[2]: `b` stands twice",
                "path: `/{`: `{` without `}` (at character 2)",
                "methods[0]: `get` is not a method that anybody sends",
                "methods[1]: `G T` is no method",
                "headers.a: a value is tested in exactly one way",
                "headers.b.matches: unclosed character class",
                "headers.x y: `x y` is no name of a header field",
                "client[0]: `ten` is no network",
            ]
        );
    }

    #[test]
    fn a_match_that_says_nothing_or_too_much_is_refused() {
        assert_eq!(compile("{}").unwrap_err(), [": the match says nothing"]);
        assert_eq!(
            compile(r#"{"path": "/a", "regex": "/a"}"#).unwrap_err(),
            ["regex: a match has either `path` or `regex`"]
        );
        assert!(compile(r#""GET""#).unwrap_err()[0].contains("`GET` has no path"));
        assert!(compile(r#""GET /a b""#).unwrap_err()[0].contains("more than two words"));
        assert!(compile(r#"{"pth": "/a"}"#).unwrap_err()[0].contains("unknown field `pth`"));
    }
}
