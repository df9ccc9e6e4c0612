//! Sets, adds and removes headers of requests on their way in and of responses on their way out.
//!
//! ```yaml
//! headers:
//!   request:
//!     set: { x-client: "{client.ip}", x-gateway: pylon }
//!     remove: [x-debug]
//!   response:
//!     set: { cache-control: no-store }
//!     add: { link: ["</a>; rel=a", "</b>; rel=b"] }
//!     remove: [server, x-powered-by]
//! ```
//!
//! Removal comes first, then `set`, which replaces, then `add`, which leaves what is there. Values may hold
//! `{client.ip}`, `{request.id}`, `{host}`, `{path}` (without the query) and `{method}`, all as the client asked; `{{` and
//! `}}` stand for plain braces. Of a caller that a policy of the route has found out they may hold `{caller.subject}`, `{caller.consumer}`,
//! `{caller.plan}`, `{caller.groups}`, `{caller.scopes}`, `{caller.by}`, `{caller.metadata.NAME}` and `{caller.claims.NAME}`. A header one
//! of whose placeholders is not known of the caller is left out.
//!
//! A header that is removed, or set on a request, is first taken away in every spelling, `x_client` as well as `x-client`,
//! and from the trailers too: a service that takes them for one can rely on the value being the gateway's.
//!
//! Headers that the gateway writes itself cannot be touched: those of framing and of the connection, and those that it
//! vouches for, such as `X-Forwarded-For`, `Via` and `X-Request-Id`. A refusal made before this policy is not changed by
//! it.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use http_body::Body as _;
use pylon_core::body::Body;
use pylon_core::exchange::Exchange;
use pylon_core::fields::trailers::WithoutTrailers;
use pylon_core::fields::{self, Alike};
use pylon_core::kept;
use pylon_core::short::OneOrMany;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::{Request, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::policy::{Compiling, Policy, Step};
use crate::template::Template;

/// Which headers are changed, in which direction.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeadersSpec {
    /// What is changed in the request before the service sees it. Default: nothing.
    #[serde(default)]
    #[schemars(example = EditsSpec::example())]
    pub request: EditsSpec,
    /// What is changed in the response before the client sees it. Default: nothing.
    #[serde(default)]
    #[schemars(example = EditsSpec::example())]
    pub response: EditsSpec,
}

/// What is changed in one direction: first `remove`, then `set`, then `add`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EditsSpec {
    /// Headers to write, in place of what is there. Values may hold placeholders. Default: none.
    #[serde(default)]
    #[schemars(example = EditsSpec::example().set)]
    pub set: BTreeMap<String, String>,
    /// Headers to add to what is there, one value or a list for each. Values may hold placeholders. Default: none.
    #[serde(default)]
    #[schemars(example = EditsSpec::example().add)]
    pub add: BTreeMap<String, OneOrMany<String>>,
    /// Headers to take away, in every spelling. Default: none.
    #[serde(default)]
    #[schemars(example = vec!["x-debug"])]
    pub remove: OneOrMany<String>,
}

impl EditsSpec {
    fn example() -> Self {
        Self {
            set: BTreeMap::from([("x-client".into(), "{client.ip}".into())]),
            add: BTreeMap::from([("x-tag".into(), OneOrMany(vec!["a".into(), "b".into()]))]),
            remove: OneOrMany(vec!["x-debug".into()]),
        }
    }
}

/// The changes at work.
#[derive(Debug)]
pub struct Headers {
    request: Edits,
    response: Edits,
}

/// The changes in one direction.
#[derive(Debug)]
struct Edits {
    remove: Arc<Alike>,
    set: Box<[(HeaderName, Template)]>,
    add: Box<[(HeaderName, Template)]>,
}

impl Policy for Headers {
    type Spec = HeadersSpec;
    type Memo = ();

    fn compile(spec: &Self::Spec, _: &Compiling<'_>) -> Result<Self, Vec<SpecError>> {
        if *spec == HeadersSpec::default() {
            let error = SpecError::new(FieldPath::root(), "no change is written, so nothing would be changed");
            return Err(vec![error.help("write for example `headers: { response: { remove: [server] } }`")]);
        }
        let mut errors = Vec::new();
        let request = Edits::compile(&spec.request, Direction::Request, &mut errors);
        let response = Edits::compile(&spec.response, Direction::Response, &mut errors);
        if errors.is_empty() { Ok(Self { request, response }) } else { Err(errors) }
    }

    fn on_request<'a>(&'a self, req: &'a mut Request, cx: &'a mut Exchange) -> Step<'a, ()> {
        self.request.apply(req.headers_mut(), cx);
        // Trailers come with bodies of unknown length alone.
        if !self.request.remove.is_empty() && req.body().size_hint().exact().is_none() {
            let body = std::mem::take(req.body_mut());
            *req.body_mut() = Body::stream(WithoutTrailers::new(body, Arc::clone(&self.request.remove)));
        }
        Step::Done(Ok(()))
    }

    fn on_response<'a>(&'a self, (): (), res: &'a mut Response, cx: &'a mut Exchange) -> Step<'a, ()> {
        self.response.apply(res.headers_mut(), cx);
        Step::Done(Ok(()))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Request,
    Response,
}

impl Edits {
    fn compile(spec: &EditsSpec, direction: Direction, errors: &mut Vec<SpecError>) -> Self {
        let at = FieldPath::root().key(if direction == Direction::Request { "request" } else { "response" });
        let mut reader = Reader { errors, changed: Vec::new() };
        let mut remove = Vec::new();
        for (i, text) in spec.remove.iter().enumerate() {
            remove.extend(reader.name(text, at.clone().key("remove").index(i), true));
        }
        let mut set = Vec::new();
        for (text, value) in &spec.set {
            let at = at.clone().key("set").key(text);
            let name = reader.name(text, at.clone(), true);
            set.extend(name.zip(reader.value(value, at)));
        }
        let mut add = Vec::new();
        for (text, values) in &spec.add {
            let at = at.clone().key("add").key(text);
            let name = reader.name(text, at.clone(), false);
            for value in values.iter() {
                add.extend(name.clone().zip(reader.value(value, at.clone())));
            }
        }
        // A service is no attacker: what it sent under another spelling is its own affair.
        let replaced = set.iter().map(|(name, _)| name).filter(|_| direction == Direction::Request);
        let remove = Arc::new(Alike::new(remove.iter().chain(replaced)));
        Self { remove, set: set.into(), add: add.into() }
    }

    fn apply(&self, headers: &mut HeaderMap, cx: &Exchange) {
        if !self.remove.is_empty() {
            self.remove.remove_from(headers);
        }
        for (name, value) in &self.set {
            match value.render(cx) {
                Some(value) => _ = headers.insert(name.clone(), value),
                // What stood there would be taken for what the gateway says.
                None => _ = headers.remove(name),
            }
        }
        for (name, value) in &self.add {
            if let Some(value) = value.render(cx) {
                headers.append(name.clone(), value);
            }
        }
    }
}

/// Reads names and values, and gathers what is wrong with them.
struct Reader<'a> {
    errors: &'a mut Vec<SpecError>,
    /// What is removed or set already, in the spelling with hyphens.
    changed: Vec<String>,
}

impl Reader<'_> {
    fn name(&mut self, text: &str, at: FieldPath, once: bool) -> Option<HeaderName> {
        let name = match fields::parse(text) {
            Ok(name) => kept::name(&name),
            Err(bad) => {
                self.errors.push(SpecError::new(at, bad.problem).help(bad.help));
                return None;
            }
        };
        let dashed = fields::dashed(&name);
        if once && self.changed.contains(&dashed) {
            let error = SpecError::new(at, format!("`{text}` is removed or set twice"));
            self.errors.push(error.help("a header stands once in `remove` or `set`; `set` replaces by itself"));
            return None;
        }
        self.changed.extend(once.then_some(dashed));
        Some(name)
    }

    fn value(&mut self, text: &str, at: FieldPath) -> Option<Template> {
        Template::parse(text).map_err(|bad| self.errors.push(SpecError::new(at, bad.problem).help(bad.help))).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Frames, Seen, compile, now, read};
    use http::HeaderValue;
    use proptest::prelude::*;

    fn request(spec: &str, seen: &Seen) -> HeaderMap {
        let policy = compile::<Headers>(spec).unwrap();
        let (mut req, mut cx) = seen.start();
        now(policy.on_request(&mut req, &mut cx)).unwrap();
        req.headers().clone()
    }

    fn response(spec: &str, headers: &[(&'static str, &'static str)]) -> HeaderMap {
        let policy = compile::<Headers>(spec).unwrap();
        let (_, mut cx) = Seen::get("/").start();
        let mut res = Response::new(Body::Empty);
        for (name, value) in headers {
            res.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        now(policy.on_response((), &mut res, &mut cx)).unwrap();
        res.headers().clone()
    }

    fn lines(headers: &HeaderMap, name: &str) -> Vec<String> {
        headers.get_all(name).iter().map(|value| value.to_str().unwrap().into()).collect()
    }

    #[test]
    fn set_replaces_add_leaves_and_remove_takes_away() {
        let spec = r#"{ "request": { "set": { "X-A": "new {client.ip}" }, "add": { "x-b": ["2", "3"] }, "remove": ["x-c"] } }"#;
        let seen = Seen::get("/").header("x-a", "old").header("x-a", "older").header("x-b", "1").header("x-c", "1");
        let headers = request(spec, &seen);
        assert_eq!(lines(&headers, "x-a"), ["new 192.0.2.1"]);
        assert_eq!(lines(&headers, "x-b"), ["1", "2", "3"]);
        assert!(!headers.contains_key("x-c"));
    }

    #[test]
    fn a_response_is_changed_by_its_own_list() {
        let spec = r#"{ "response": { "set": { "x-id": "{request.id}" }, "add": { "vary": "x" }, "remove": ["server", "x-powered-by"] } }"#;
        let headers = response(
            spec,
            &[("server", "x/1"), ("x-powered-by", "y"), ("x_powered_by", "y"), ("vary", "a"), ("x-id", "0")],
        );
        assert_eq!(
            (lines(&headers, "x-id"), lines(&headers, "vary")),
            (vec!["id-1".into()], vec!["a".into(), "x".into()])
        );
        assert_eq!(headers.len(), 3);
    }

    /// FAILURES 7 and 8: what the gateway sets cannot be forged under another spelling, nor as a trailer.
    #[test]
    fn a_client_cannot_forge_a_header_that_the_gateway_sets() {
        let spec = r#"{ "request": { "set": { "x-user-id": "gateway" } } }"#;
        let seen = Seen::get("/").header("x-user-id", "root").header("X_User_Id", "root").header("x-user_id", "root");
        let headers = request(spec, &seen);
        assert_eq!(lines(&headers, "x-user-id"), ["gateway"]);
        assert_eq!(headers.len(), 1);

        let policy = compile::<Headers>(spec).unwrap();
        let (mut req, mut cx) = Seen::get("/").start();
        let trailers = HeaderMap::from_iter([(HeaderName::from_static("x_user-id"), HeaderValue::from_static("root"))]);
        *req.body_mut() = Body::stream(Frames::of(&[1]).trailers(trailers));
        now(policy.on_request(&mut req, &mut cx)).unwrap();
        assert_eq!(read(req.into_body()), Ok((1, HeaderMap::new())));
    }

    #[test]
    fn what_the_gateway_writes_itself_cannot_be_touched() {
        for edit in [
            r#""set": { "X-Forwarded-For": "1" }"#,
            r#""add": { "content_length": "1" }"#,
            r#""remove": ["connection"]"#,
            r#""set": { "host": "a" }"#,
        ] {
            for direction in ["request", "response"] {
                let error = compile::<Headers>(&format!(r#"{{ "{direction}": {{ {edit} }} }}"#)).unwrap_err();
                assert!(error.starts_with(direction) && error.ends_with("is written by the gateway"), "{error}");
            }
        }
    }

    #[test]
    fn all_that_is_wrong_is_told_at_its_place() {
        let spec = r#"{ "request": { "set": { "x-a": "{who}", "x_b": "1\r\n2" }, "add": { "x c": "1" }, "remove": ["x-d", "x_d", "x-b"] } }"#;
        let error = compile::<Headers>(spec).unwrap_err();
        let places: Vec<_> = error.lines().map(|line| line.split(": ").next().unwrap()).collect();
        assert_eq!(
            places,
            ["request.remove[1]", "request.set.x-a", "request.set.x_b", "request.set.x_b", "request.add.x c"]
        );
        for spec in ["{}", r#"{ "request": {} }"#, r#"{ "requests": {} }"#, r#"{ "request": { "sets": {} } }"#, "true"]
        {
            assert!(compile::<Headers>(spec).is_err(), "{spec}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_a_client_sends_breaks_a_value_out_of_its_line(path in "/[ -\"$-~]{0,20}", host in "[!-~]{0,20}") {
            prop_assume!(path.parse::<http::uri::PathAndQuery>().is_ok());
            let headers = request(r#"{ "request": { "set": { "x-a": "{host} {path}" } } }"#, &Seen::get(&path).host(&host));
            let without_query = path.split('?').next().unwrap();
            prop_assert_eq!(lines(&headers, "x-a"), [format!("{host} {without_query}")]);
        }
    }
}
