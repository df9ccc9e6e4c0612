//! Header values with placeholders: `{client.ip}`, `{request.id}`, `{host}`, `{path}`, `{method}`, and of the caller `{caller.subject}` and
//! the like; `{{` and `}}` are braces.

use bytes::Bytes;
use http::HeaderValue;
use pylon_core::caller;
use pylon_core::exchange::Exchange;
use pylon_core::kept;

/// A value that is ready, or is made for each request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Template {
    /// The same each time.
    Fixed(HeaderValue),
    /// Put together from the facts of a request.
    Made(Box<[Part]>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    Text(Box<str>),
    Fact(Fact),
}

/// What is known of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fact {
    ClientIp,
    RequestId,
    Host,
    Path,
    Method,
    /// Of the caller, where there is one and this is known of it.
    Caller(caller::Fact),
}

const FACTS: [(&str, Fact); 5] = [
    ("client.ip", Fact::ClientIp),
    ("request.id", Fact::RequestId),
    ("host", Fact::Host),
    ("path", Fact::Path),
    ("method", Fact::Method),
];

/// What is wrong with a value as written, and what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadTemplate {
    pub(crate) problem: String,
    pub(crate) help: String,
}

impl Template {
    /// Reads a value as written.
    pub(crate) fn parse(text: &str) -> Result<Self, BadTemplate> {
        if let Some(odd) = text.chars().find(|c| !matches!(c, ' '..='~' | '\t')) {
            let help = if odd.is_ascii() {
                "a value is one line of visible characters"
            } else {
                "a header holds ASCII alone: percent-encode what is beyond it"
            };
            return Err(BadTemplate {
                problem: format!("the value holds {odd:?}, which no header may"),
                help: help.into(),
            });
        }
        let parts = split(text)?;
        match parts.as_slice() {
            [] => Ok(Self::Fixed(HeaderValue::from_static(""))),
            [Part::Text(fixed)] => kept::value(fixed).map(Self::Fixed).map_err(|_| BadTemplate {
                problem: format!("`{text}` cannot stand in a header"),
                help: "a value is one line of visible characters".into(),
            }),
            _ => Ok(Self::Made(parts.into())),
        }
    }

    /// The value for one request; nothing if a fact is not there or cannot stand in a header.
    pub(crate) fn render(&self, cx: &Exchange) -> Option<HeaderValue> {
        let parts = match self {
            Self::Fixed(value) => return Some(value.clone()),
            Self::Made(parts) => parts,
        };
        if let [Part::Fact(Fact::RequestId)] = &**parts {
            return Some(cx.request_id.clone());
        }
        let mut text = Vec::with_capacity(64);
        for part in parts {
            match part {
                Part::Text(fixed) => text.extend_from_slice(fixed.as_bytes()),
                Part::Fact(Fact::Caller(fact)) => text.extend_from_slice(cx.caller.as_ref()?.fact(fact)?.as_bytes()),
                Part::Fact(fact) => fact.write(cx, &mut text),
            }
        }
        HeaderValue::from_maybe_shared(Bytes::from(text)).ok()
    }
}

impl Fact {
    fn named(name: &str) -> Option<Self> {
        match name.strip_prefix("caller.") {
            Some(fact) => caller::Fact::parse(fact).map(Self::Caller),
            None => FACTS.iter().find(|(known, _)| *known == name).map(|(_, fact)| fact.clone()),
        }
    }

    fn write(&self, cx: &Exchange, text: &mut Vec<u8>) {
        match self {
            Self::ClientIp => text.extend_from_slice(cx.client.to_canonical().to_string().as_bytes()),
            Self::RequestId => text.extend_from_slice(cx.request_id.as_bytes()),
            Self::Host => text.extend_from_slice(cx.host.as_deref().unwrap_or_default().as_bytes()),
            Self::Path => text.extend_from_slice(cx.path.path().as_bytes()),
            Self::Method => text.extend_from_slice(cx.method.as_str().as_bytes()),
            // Which may not be there.
            Self::Caller(_) => {}
        }
    }
}

fn split(text: &str) -> Result<Vec<Part>, BadTemplate> {
    let mut parts = Vec::new();
    let mut fixed = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, brace) = rest.split_at(at);
        fixed.push_str(before);
        if let Some(after) = brace.strip_prefix("{{").or_else(|| brace.strip_prefix("}}")) {
            fixed.push_str(if brace.starts_with('{') { "{" } else { "}" });
            rest = after;
            continue;
        }
        let Some((name, after)) = brace.strip_prefix('{').and_then(|inner| inner.split_once('}')) else {
            return Err(BadTemplate {
                problem: format!("a brace in `{text}` has no partner"),
                help: "write `{{` and `}}` for braces that stand for themselves".into(),
            });
        };
        let Some(fact) = Fact::named(name) else {
            return Err(unknown(name));
        };
        if !fixed.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut fixed).into()));
        }
        parts.push(Part::Fact(fact));
        rest = after;
    }
    fixed.push_str(rest);
    if !fixed.is_empty() {
        parts.push(Part::Text(fixed.into()));
    }
    Ok(parts)
}

fn unknown(name: &str) -> BadTemplate {
    if name.starts_with("caller.") {
        return BadTemplate {
            problem: format!("`{{{name}}}` is not a placeholder"),
            help: format!("behind `caller.` stands one of {}", caller::Fact::WORDS),
        };
    }
    let known: Vec<String> = FACTS.iter().map(|(known, _)| format!("`{{{known}}}`")).collect();
    BadTemplate {
        problem: format!("`{{{name}}}` is not a placeholder"),
        help: format!("known are {}, `{{caller.…}}`; `{{{{` and `}}}}` stand for plain braces", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Seen;
    use proptest::prelude::*;

    fn render(text: &str) -> String {
        let cx = Seen::get("/users/7?x=1").host("api.example.com").client("203.0.113.9").exchange();
        Template::parse(text).unwrap().render(&cx).unwrap().to_str().unwrap().to_owned()
    }

    #[test]
    fn placeholders_are_filled_with_the_facts_of_the_request() {
        assert_eq!(render("{method} {host}{path} by {client.ip}"), "GET api.example.com/users/7 by 203.0.113.9");
        assert_eq!(render("{request.id}"), "id-1");
        assert_eq!(render(""), "");
        assert_eq!(render("{{\"max\":{{}}}} {host}"), "{\"max\":{}} api.example.com");
    }

    #[test]
    fn what_is_not_known_of_a_caller_leaves_the_header_out() {
        let template = Template::parse("{caller.subject} of {caller.claims.tenant}").unwrap();
        let mut cx = Seen::get("/").exchange();
        assert_eq!(template.render(&cx), None);
        let mut ann = caller::Caller { subject: "ann".into(), ..caller::Caller::default() };
        cx.caller = Some(std::sync::Arc::new(ann.clone()));
        assert_eq!(template.render(&cx), None);
        ann.claims.insert("tenant".into(), "acme".into());
        cx.caller = Some(std::sync::Arc::new(ann.clone()));
        assert_eq!(template.render(&cx).unwrap(), "ann of acme");
        ann.claims.insert("tenant".into(), "acme\r\nx-admin: 1".into());
        cx.caller = Some(std::sync::Arc::new(ann));
        assert_eq!(template.render(&cx), None);
    }

    #[test]
    fn an_unknown_placeholder_is_told_which_there_are() {
        let bad = Template::parse("{client_ip}").unwrap_err();
        assert_eq!(bad.problem, "`{client_ip}` is not a placeholder");
        assert_eq!(
            bad.help,
            "known are `{client.ip}`, `{request.id}`, `{host}`, `{path}`, `{method}`, `{caller.…}`; `{{` and `}}` stand for plain braces"
        );
        let bad = Template::parse("{caller.name}").unwrap_err();
        assert!(bad.help.contains("`subject`"), "{}", bad.help);
        assert!(
            Template::parse("{host").is_err() && Template::parse("host}").is_err() && Template::parse("{}").is_err()
        );
    }

    #[test]
    fn a_value_cannot_break_out_of_its_line() {
        for text in ["a\r\nx-evil: 1", "a\n", "a\0", "\u{7f}", "é"] {
            assert!(Template::parse(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_text_without_braces_stands_as_it_is(text in "[ -z|~]*") {
            prop_assert_eq!(render(&text), text);
        }

        #[test]
        fn doubled_braces_give_any_text_back(text in "[ -~]*") {
            let doubled = text.replace('{', "{{").replace('}', "}}");
            prop_assert_eq!(render(&doubled), text);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".*") {
            let _ = Template::parse(&text);
        }
    }
}
