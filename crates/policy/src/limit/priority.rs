//! Says how much requests matter where an upstream cannot take all of them: the lowest class is shed first.
//!
//! ```yaml
//! priority: high            # or critical, normal, low
//! ```
//! ```yaml
//! priority:
//!   class: normal
//!   header: x-priority      # what it names counts,
//!   ceiling: high           # up to this,
//!   from: trusted_proxies   # and only where a trusted proxy sends it
//! ```
//!
//! ```yaml
//! priority: { caller: claims.priority, ceiling: high }     # or metadata.priority, what the document knows of a consumer
//! ```
//!
//! A class counts where the upstream has a limit (`concurrency`). While higher classes are about, `low` uses at most 60 % of
//! it, `normal` 85 %, `high` 95 %; who waits is served by class, and in a full queue the lowest yields. Requests of routes without this policy are
//! `normal`, copies made by `mirror` are `low`.
//!
//! A client can write any header. So one counts only from `trusted_proxies`, unless `from: anyone` says otherwise, and never
//! for more than `ceiling`. What `caller` names is proved, so it counts before a header; a `ceiling` may bound it. A value that is no class, and a header that comes twice, count for nothing: `class` holds. The header goes on to the
//! service as it is. The access log tells the class as `priority`, where it is not `normal`.

use http::HeaderName;
use pylon_core::Request;
use pylon_core::caller::Fact;
use pylon_core::exchange::Exchange;
use pylon_core::priority::Priority as Class;
use pylon_core::short::{FromScalar, Short};
use pylon_core::spec::{FieldPath, SpecError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::policy::{Compiling, Policy, Step};
use crate::written;

/// The class of requests. Short: the class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrioritySpec {
    /// The class where no header says otherwise: `critical`, `high`, `normal` or `low`. Default: `normal`.
    #[serde(default)]
    #[schemars(example = &"high")]
    pub class: Class,
    /// A header that names the class of a request. Default: none.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"x-priority")]
    pub header: Option<String>,
    /// A fact of the caller that names the class: `claims.NAME`, `metadata.NAME` and the like. Default: none.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"claims.priority")]
    pub caller: Option<String>,
    /// The highest class that header or caller can name; must be written beside a header. Default: none.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Class", example = &"high")]
    pub ceiling: Option<Class>,
    /// Whose header counts: that of `trusted_proxies`, or of `anyone`. Default: `trusted_proxies`.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FromSpec", example = &"anyone")]
    pub from: Option<FromSpec>,
}

/// Whose header counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FromSpec {
    /// Only that of proxies in `trusted_proxies`.
    TrustedProxies,
    /// That of every client.
    Anyone,
}

impl FromScalar for PrioritySpec {
    const EXPECTING: &'static str = "`critical`, `high`, `normal` or `low`";

    fn from_scalar(text: &str) -> Result<Self, String> {
        // As it is written in a map: in lower case.
        let class = Class::parse(text.as_bytes()).filter(|class| class.as_str() == text);
        let class = class.ok_or_else(|| format!("`{text}` is none of {}", Self::EXPECTING))?;
        Ok(Self { class, header: None, caller: None, ceiling: None, from: None })
    }
}

/// The class at work.
#[derive(Debug)]
pub struct Priority {
    class: Class,
    /// A fact of the caller that names the class, and the highest that it can name.
    proved: Option<(Fact, Class)>,
    named: Option<Named>,
}

/// A header that names the class.
#[derive(Debug)]
struct Named {
    header: HeaderName,
    ceiling: Class,
    by_anyone: bool,
}

impl Policy for Priority {
    type Spec = Short<PrioritySpec>;
    type Memo = ();

    fn compile(spec: &Self::Spec, _: &Compiling<'_>) -> Result<Self, Vec<SpecError>> {
        let at = |key: &str| FieldPath::root().key(key);
        let mut errors = Vec::new();
        let mut named = None;
        let proved = spec.caller.as_ref().and_then(|name| {
            let fact = Fact::parse(name);
            if fact.is_none() {
                let error = SpecError::new(at("caller"), format!("nothing of a caller is named `{name}`"));
                errors.push(error.help(format!("write {}", Fact::WORDS)));
            }
            Some((fact?, spec.ceiling.unwrap_or(Class::Critical)))
        });
        match (&spec.header, spec.ceiling) {
            (Some(header), ceiling) => {
                let name = HeaderName::try_from(header.as_str()).ok();
                if name.is_none() {
                    errors.push(SpecError::new(at("header"), format!("`{header}` is not the name of a header")));
                }
                if ceiling.is_none() {
                    let error = SpecError::new(at("header"), "nothing says how high the header can raise a request");
                    errors.push(error.help("add `ceiling: high`: a header can be forged"));
                }
                let by_anyone = spec.from == Some(FromSpec::Anyone);
                named = name.zip(ceiling).map(|(header, ceiling)| Named { header, ceiling, by_anyone });
            }
            (None, ceiling) => {
                let mut alone = |key| {
                    let error = SpecError::new(at(key), format!("`{key}` means nothing without `header`"));
                    errors.push(error.help("leave it out, or name the header"));
                };
                (ceiling.is_some() && spec.caller.is_none()).then(|| alone("ceiling"));
                spec.from.is_some().then(|| alone("from"));
            }
        }
        if errors.is_empty() { Ok(Self { class: spec.class, proved, named }) } else { Err(errors) }
    }

    fn on_request<'a>(&'a self, req: &'a mut Request, cx: &'a mut Exchange) -> Step<'a, ()> {
        cx.priority = self.class(req, cx);
        Step::Done(Ok(()))
    }
}

impl Priority {
    /// The class of a request.
    pub(crate) fn class(&self, req: &Request, cx: &Exchange) -> Class {
        let named = || self.named.as_ref().and_then(|named| named.class(req, cx));
        self.proved(cx).or_else(named).unwrap_or(self.class)
    }

    fn proved(&self, cx: &Exchange) -> Option<Class> {
        let (fact, ceiling) = self.proved.as_ref()?;
        let named = cx.caller.as_ref()?.fact(fact)?;
        Some(Class::parse(named.as_bytes())?.min(*ceiling))
    }
}

impl Named {
    fn class(&self, req: &Request, cx: &Exchange) -> Option<Class> {
        if !self.by_anyone && !cx.from_trusted_proxy {
            return None;
        }
        let mut values = req.headers().get_all(&self.header).iter();
        let value = values.next().filter(|_| values.next().is_none())?;
        Some(Class::parse(value.as_bytes().trim_ascii())?.min(self.ceiling))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Seen, compile, now};
    use pylon_core::caller::Caller;
    use std::sync::Arc;

    fn class_of(policy: &str, headers: &[&str], trusted: bool) -> Class {
        let policy: Priority = compile(policy).unwrap();
        let seen = headers.iter().fold(Seen::get("/"), |seen, value| seen.header("x-priority", value));
        let (mut req, mut cx) = seen.start();
        cx.from_trusted_proxy = trusted;
        assert!(now(policy.on_request(&mut req, &mut cx)).is_ok());
        cx.priority
    }

    #[test]
    fn a_route_has_the_class_that_is_written() {
        assert_eq!(class_of("\"critical\"", &["low"], true), Class::Critical);
        assert_eq!(class_of("{}", &[], false), Class::Normal);
        assert_eq!(class_of(r#"{ "class": "low" }"#, &[], false), Class::Low);
    }

    #[test]
    fn a_header_counts_from_trusted_proxies_and_up_to_the_ceiling() {
        let policy = r#"{ "class": "normal", "header": "x-priority", "ceiling": "high" }"#;
        for (headers, trusted, class) in [
            (&["High"][..], true, Class::High),
            (&["critical"], true, Class::High),
            (&[" low "], true, Class::Low),
            (&["high"], false, Class::Normal),
            (&["urgent"], true, Class::Normal),
            (&["high", "high"], true, Class::Normal),
            (&[], true, Class::Normal),
        ] {
            assert_eq!(class_of(policy, headers, trusted), class, "{headers:?} {trusted}");
        }
        let anyone = r#"{ "header": "x-priority", "ceiling": "normal", "from": "anyone" }"#;
        assert_eq!(class_of(anyone, &["low"], false), Class::Low);
        assert_eq!(class_of(anyone, &["critical"], false), Class::Normal);
    }

    #[test]
    fn what_is_proved_of_the_caller_counts_before_a_header() {
        let class = |policy: &str, claim: Option<&str>| {
            let policy: Priority = compile(policy).unwrap();
            let (mut req, mut cx) = Seen::get("/").header("x-priority", "low").start();
            let mut caller = Caller::default();
            caller.claims.extend(claim.map(|claim| ("class".to_owned(), claim.into())));
            cx.caller = Some(Arc::new(caller));
            assert!(now(policy.on_request(&mut req, &mut cx)).is_ok());
            cx.priority
        };
        let alone = r#"{ "caller": "claims.class" }"#;
        let bound = r#"{ "caller": "claims.class", "ceiling": "high" }"#;
        let both = r#"{ "caller": "claims.class", "header": "x-priority", "ceiling": "high", "from": "anyone" }"#;
        assert_eq!(class(alone, Some("critical")), Class::Critical);
        assert_eq!(class(bound, Some("critical")), Class::High);
        assert_eq!((class(alone, Some("urgent")), class(alone, None)), (Class::Normal, Class::Normal));
        assert_eq!((class(both, Some("critical")), class(both, None)), (Class::High, Class::Low));
        assert!(compile::<Priority>(r#"{ "caller": "class" }"#).is_err());
    }

    #[test]
    fn a_header_without_a_ceiling_and_a_ceiling_without_a_header_are_errors() {
        for (policy, places) in [
            (r#"{ "header": "x-priority" }"#, &["header"][..]),
            (r#"{ "header": "a b", "ceiling": "high" }"#, &["header"]),
            (r#"{ "ceiling": "high", "from": "anyone" }"#, &["ceiling", "from"]),
        ] {
            let text = compile::<Priority>(policy).unwrap_err();
            let told: Vec<_> = text.lines().map(|line| line.split(": ").next().unwrap()).collect();
            assert_eq!(told, places, "{policy}");
        }
        for policy in ["\"urgent\"", "\"High\"", r#"{ "header": null, "ceiling": "high" }"#, r#"{ "level": "high" }"#] {
            assert!(compile::<Priority>(policy).is_err(), "{policy}");
        }
    }
}
