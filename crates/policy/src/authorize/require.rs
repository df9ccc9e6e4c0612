//! Lets callers pass by what is known of them: scopes, groups, claims, names.
//!
//! ```yaml
//! require: orders:read                 # a scope, or a list of scopes, all of which the caller must have
//! ```
//! ```yaml
//! require:
//!   scopes: [orders:read, orders:write]    # all of them
//!   any_scope: [admin, support]            # at least one of them
//!   any_group: [partners, staff]           # at least one of them
//!   consumers: [shop-app, till]            # the caller is one of them
//!   subjects: [ann, bob]                   # the caller is one of them
//!   claims: { tenant: acme, level: [1, 2], email_verified: true }
//!   by: jwt                                # what proved who it is: one, or a list of which it is one
//! ```
//!
//! All that is written must hold. A caller for whom it does not is answered with 403, and the log says which part did not hold. Where
//! nobody proved who is asking, which passes with `anonymous: allow`, the answer is 401.
//!
//! A claim must have the value that is written, or one of those in the list; where the claim is a list itself, it must contain one. Values
//! keep their types: the number `1` is not the text `"1"`, and a claim that is not there has no value. `realm.roles` is a claim
//! `roles` within `realm`.
//!
//! A bearer token that lacks scopes is told which it takes (`WWW-Authenticate`, RFC 6750 §3.1), so that a client can ask for them.
//!
//! Consumers that are named must stand under `consumers`; so must groups, where nothing else tells which groups a caller is in.

use std::collections::BTreeMap;

use http::HeaderValue;
use http::header::WWW_AUTHENTICATE;
use pylon_core::Request;
use pylon_core::caller::Caller;
use pylon_core::exchange::Exchange;
use pylon_core::rejection::{CALLER_FORBIDDEN, CALLER_MISSING, Rejection};
use pylon_core::short::{FromList, Listed, OneOrMany};
use pylon_core::spec::{FieldPath, SpecError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::consumers::Consumers;
use crate::policy::{Compiling, Policy, Step};
use crate::written;

/// Those whose callers show a bearer token (RFC 6750).
const BEARERS: [&str; 2] = ["jwt", "introspect"];

/// What must be known of a caller. Short: a scope or a list of scopes, all of which it must have.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RequireSpec {
    /// Scopes, one or a list, all of which the caller must have. Default: none is asked for.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OneOrMany<String>", example = vec!["orders:read", "orders:write"])]
    pub scopes: Option<OneOrMany<String>>,
    /// Scopes of which the caller must have at least one. Default: none is asked for.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OneOrMany<String>", example = vec!["admin", "support"])]
    pub any_scope: Option<OneOrMany<String>>,
    /// Groups, one or a list, of which the caller must be in at least one. Default: none is asked for.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OneOrMany<String>", example = vec!["partners", "staff"])]
    pub any_group: Option<OneOrMany<String>>,
    /// Consumers of the document, one or a list, of which the caller must be one. Default: any caller.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OneOrMany<String>", example = vec!["shop-app"])]
    pub consumers: Option<OneOrMany<String>>,
    /// Subjects, one or a list, of which the caller's must be one. Default: any subject.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OneOrMany<String>", example = vec!["ann"])]
    pub subjects: Option<OneOrMany<String>>,
    /// Claims by name, each with the value that it must have or a list of values of which it must have one. Default: none is asked for.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "BTreeMap<String, Value>", example = serde_json::json!({ "tenant": "acme", "level": [1, 2] }))]
    pub claims: Option<BTreeMap<String, Value>>,
    /// The policies, one or a list, of which one must have proved who the caller is. Default: any of the route.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OneOrMany<String>", example = &"jwt")]
    pub by: Option<OneOrMany<String>>,
}

impl FromList for RequireSpec {
    type Item = String;

    fn from_list(items: OneOrMany<String>) -> Self {
        Self { scopes: Some(items), ..Self::default() }
    }
}

impl RequireSpec {
    /// What is wrong where only the document's consumers can be in groups: groups in which none of them is.
    pub(crate) fn check_groups(&self, consumers: &Consumers) -> Vec<SpecError> {
        let known = consumers.groups();
        let groups = self.any_group.iter().flat_map(|groups| groups.iter().enumerate());
        let strange = groups.filter(|(_, group)| !consumers.is_broken() && !known.contains(group.as_str()));
        strange
            .map(|(i, group)| {
                let at = FieldPath::root().key("any_group").index(i);
                let error = SpecError::new(at, format!("no consumer is in a group `{group}`"));
                error.help(listed("the groups of consumers are", known.iter().copied(), "no consumer is in any group"))
            })
            .collect()
    }

    /// What is wrong where callers are known by `present` alone: policies of which none of this route is.
    pub(crate) fn check_by(&self, present: &[&str]) -> Vec<SpecError> {
        let named = self.by.iter().flat_map(|by| by.iter().enumerate());
        let strange = named.filter(|(_, by)| !present.contains(&by.as_str()));
        strange
            .map(|(i, by)| {
                let at = FieldPath::root().key("by").index(i);
                let error = SpecError::new(at, format!("nothing here finds out who is asking by `{by}`"));
                error.help(listed("what does so here:", present.iter().copied(), "add a policy that does"))
            })
            .collect()
    }
}

/// Claims by name, each with the values of which it must have one.
type Claims = Box<[(Box<str>, Box<[Value]>)]>;

/// The demands at work.
#[derive(Debug)]
pub struct Require {
    scopes: Box<[Box<str>]>,
    any_scope: Box<[Box<str>]>,
    any_group: Box<[Box<str>]>,
    consumers: Box<[Box<str>]>,
    subjects: Box<[Box<str>]>,
    claims: Claims,
    by: Box<[Box<str>]>,
    /// What tells a bearer which scopes it takes; none where no scope is asked for.
    insufficient: Option<HeaderValue>,
    challenges: Box<[HeaderValue]>,
}

impl Policy for Require {
    type Spec = Listed<RequireSpec>;
    type Memo = ();

    fn compile(spec: &Self::Spec, cx: &Compiling<'_>) -> Result<Self, Vec<SpecError>> {
        let mut errors = Vec::new();
        let spec = &spec.0;
        if *spec == RequireSpec::default() {
            let error = SpecError::new(FieldPath::root(), "nothing is required, so every caller would pass");
            errors.push(error.help("write for example `require: { scopes: orders:read }`"));
        }
        let scopes = words("scopes", spec.scopes.as_ref(), scope, &mut errors);
        let any_scope = words("any_scope", spec.any_scope.as_ref(), scope, &mut errors);
        let any_group = words("any_group", spec.any_group.as_ref(), some, &mut errors);
        let subjects = words("subjects", spec.subjects.as_ref(), some, &mut errors);
        let by = words("by", spec.by.as_ref(), some, &mut errors);
        let known = &cx.around.consumers;
        let consumer = |name: &str| match known.get(name) {
            None if !known.is_broken() => {
                let names = known.names().map(pylon_core::names::ConsumerName::as_str);
                Err((
                    format!("no consumer is named `{name}`"),
                    listed("the consumers are", names, "add it under `consumers`"),
                ))
            }
            _ => Ok(()),
        };
        let consumers = words("consumers", spec.consumers.as_ref(), consumer, &mut errors);
        let claims = claims(spec.claims.as_ref(), &mut errors);
        if !errors.is_empty() {
            return Err(errors);
        }
        let asked = if scopes.is_empty() { &any_scope } else { &scopes };
        let told = format!("Bearer error=\"insufficient_scope\", scope=\"{}\"", asked.join(" "));
        let insufficient = if asked.is_empty() { None } else { HeaderValue::try_from(told).ok() };
        let challenges = Box::default();
        Ok(Self { scopes, any_scope, any_group, consumers, subjects, claims, by, insufficient, challenges })
    }

    fn on_request<'a>(&'a self, _: &'a mut Request, cx: &'a mut Exchange) -> Step<'a, ()> {
        Step::Done(match cx.caller.as_deref() {
            Some(caller) => self.judge(caller).map_err(Into::into),
            None => Err(self.nobody().into()),
        })
    }
}

impl Require {
    /// What stands in `WWW-Authenticate` where nobody has proved who is asking.
    pub(crate) fn challenge_by(&mut self, challenges: Vec<HeaderValue>) {
        self.challenges = challenges.into();
    }

    fn judge(&self, caller: &Caller) -> Result<(), Rejection> {
        let no = |what: String| Err(CALLER_FORBIDDEN.privately(what));
        let is_one = |of: &[Box<str>], word: &str| of.is_empty() || of.iter().any(|one| **one == *word);
        if !is_one(&self.by, caller.by) {
            return no(format!("{} is known by `{}`, which is not in `by`", caller.subject, caller.by));
        }
        let consumer = caller.consumer.as_ref().map_or("", |consumer| consumer.name.as_str());
        if !is_one(&self.consumers, consumer) {
            return no(format!("{} is none of the consumers", caller.subject));
        }
        if !is_one(&self.subjects, &caller.subject) {
            return no(format!("{} is none of the subjects", caller.subject));
        }
        if !self.any_group.is_empty() && !self.any_group.iter().any(|group| caller.is_in(group)) {
            return no(format!("{} is in none of the groups", caller.subject));
        }
        if let Some((name, _)) = self.claims.iter().find(|(name, wanted)| !has(caller.claim(name), wanted)) {
            return no(format!("the claim `{name}` of {} does not have the value that is required", caller.subject));
        }
        // Last: whoever is told to ask for more scopes must be one whom they would help.
        if let Some(scope) = self.scopes.iter().find(|scope| !caller.has_scope(scope)) {
            return Err(self.insufficient(caller, format!("{} has no scope `{scope}`", caller.subject)));
        }
        if !self.any_scope.is_empty() && !self.any_scope.iter().any(|scope| caller.has_scope(scope)) {
            return Err(self.insufficient(caller, format!("{} has none of the scopes", caller.subject)));
        }
        Ok(())
    }

    fn nobody(&self) -> Rejection {
        let no = CALLER_MISSING.privately("there is no caller of whom anything could be required");
        self.challenges.iter().fold(no, |no, challenge| no.with_header(WWW_AUTHENTICATE, challenge.clone()))
    }

    fn insufficient(&self, caller: &Caller, what: String) -> Rejection {
        let no = CALLER_FORBIDDEN.privately(what);
        match &self.insufficient {
            Some(told) if BEARERS.contains(&caller.by) => no.with_header(WWW_AUTHENTICATE, told.clone()),
            _ => no,
        }
    }
}

/// Whether a claim has one of the values, or contains one.
fn has(claim: Option<&Value>, wanted: &[Value]) -> bool {
    match claim {
        None => false,
        Some(Value::Array(items)) => items.iter().any(|item| wanted.iter().any(|value| same(item, value))),
        Some(one) => wanted.iter().any(|value| same(one, value)),
    }
}

/// Whether two values are the same, of the same type. JSON has one type of number: `1` is `1.0`.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        // Whole numbers exactly: as floats, large ones would be the same as their neighbours.
        (Value::Number(a), Value::Number(b)) if !a.is_f64() && !b.is_f64() => a == b,
        (Value::Number(a), Value::Number(b)) => {
            a.as_f64().zip(b.as_f64()).is_some_and(|(a, b)| a.total_cmp(&b).is_eq())
        }
        _ => a == b,
    }
}

/// What is wrong with a word, and what to do.
type Wrong = (String, String);

/// The words of a list, which must not be empty, each checked.
fn words(
    key: &str,
    written: Option<&OneOrMany<String>>,
    check: impl Fn(&str) -> Result<(), Wrong>,
    errors: &mut Vec<SpecError>,
) -> Box<[Box<str>]> {
    let Some(written) = written else { return Box::default() };
    let at = FieldPath::root().key(key);
    if written.is_empty() {
        let error = SpecError::new(at.clone(), format!("`{key}` is empty"));
        errors.push(error.help("name at least one, or take the key out"));
    }
    for (i, word) in written.iter().enumerate() {
        if let Err((problem, help)) = check(word) {
            errors.push(SpecError::new(at.clone().index(i), problem).help(help));
        }
    }
    written.iter().map(|word| word.as_str().into()).collect()
}

fn some(word: &str) -> Result<(), Wrong> {
    if word.is_empty() { Err(("there is no name here".into(), "write one, or take it out".into())) } else { Ok(()) }
}

/// The characters of a scope (RFC 6749 §3.3).
fn scope(word: &str) -> Result<(), Wrong> {
    let may = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    if !word.is_empty() && word.bytes().all(may) {
        return Ok(());
    }
    let help = "a scope is one word, such as `orders:read`; write several as a list";
    Err((format!("`{word}` is not a scope"), help.into()))
}

fn claims(written: Option<&BTreeMap<String, Value>>, errors: &mut Vec<SpecError>) -> Claims {
    let Some(written) = written else { return Box::default() };
    let at = FieldPath::root().key("claims");
    if written.is_empty() {
        let error = SpecError::new(at.clone(), "`claims` is empty");
        errors.push(error.help("write for example `claims: { tenant: acme }`, or take the key out"));
    }
    let mut claims = Vec::new();
    for (name, value) in written {
        let values = match value {
            Value::Array(items) => items.clone(),
            one => vec![one.clone()],
        };
        let scalar = |value: &Value| matches!(value, Value::String(_) | Value::Number(_) | Value::Bool(_));
        if name.is_empty() || values.is_empty() || !values.iter().all(scalar) {
            let error = SpecError::new(at.clone().key(name), format!("`{name}` has no value that a claim could have"));
            errors.push(error.help("write a text, a number, `true` or `false`, or a list of them"));
        }
        claims.push((name.as_str().into(), values.into()));
    }
    claims.into()
}

/// `the consumers are `a`, `b``; `none` where there are none.
fn listed<'a>(what: &str, words: impl Iterator<Item = &'a str>, none: &str) -> String {
    const MOST: usize = 24;
    let words: Vec<String> = words.take(MOST).map(|word| format!("`{word}`")).collect();
    if words.is_empty() { none.to_owned() } else { format!("{what} {}", words.join(", ")) }
}

#[cfg(test)]
mod tests;
