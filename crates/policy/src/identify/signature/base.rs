//! Makes the text that a signature is of: each component that it covers with its value, and what it says of itself (RFC 9421 §2).
//!
//! Values are those of the request as the client sent it. What cannot be known here is refused rather than guessed: fields that are not
//! there, parameters that are not understood, components that stand twice.

use std::borrow::Cow;
use std::fmt;

use http::header::HOST;
use http::{HeaderMap, HeaderName};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};
use pylon_core::Request;
use pylon_core::connection::Scheme;
use pylon_core::exchange::Exchange;
use pylon_core::spec::{FieldPath, SpecError};

use super::header;
use super::input::Signed;
use crate::structured::{self, Bare, Item, write_item, write_list, write_member};

/// What stands as it is in a parameter of the query (URL standard, `application/x-www-form-urlencoded`).
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'*').remove(b'-').remove(b'.').remove(b'_');

/// The digest of the body.
pub(super) const CONTENT_DIGEST: Required = Required { name: Cow::Borrowed("content-digest"), within: &[] };

type Why = Cow<'static, str>;

/// What a signature must cover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Required {
    name: Cow<'static, str>,
    /// Components that say as much, and more.
    within: &'static [&'static str],
}

impl fmt::Display for Required {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Reads what is written of it.
pub(super) fn required(written: &[String], errors: &mut Vec<SpecError>) -> Box<[Required]> {
    let mut all = Vec::new();
    for (index, text) in written.iter().enumerate() {
        let within: &[&str] = match text.as_str() {
            "@method" | "@target-uri" => &[],
            "@authority" | "@scheme" => &["@target-uri"],
            "@path" | "@query" => &["@target-uri", "@request-target"],
            "@request-target" => &["@target-uri"],
            name if is_field(name) => &[],
            _ => {
                let at = FieldPath::root().key("components").index(index);
                let error = SpecError::new(at, format!("`{text}` is no component of a request that can be demanded"));
                errors.push(error.help(
                    "write the name of a header in lower case, or `@method`, `@authority`, `@scheme`, `@path`, `@query`, `@target-uri` or `@request-target`",
                ));
                continue;
            }
        };
        all.push(Required { name: text.clone().into(), within });
    }
    if written.is_empty() {
        let error = SpecError::new(FieldPath::root().key("components"), "signatures that cover nothing prove nothing");
        errors.push(error.help("leave `components` out for `@method`, `@authority`, `@path` and `@query`"));
    }
    all.into()
}

/// Whether these components have the one that is required, whole.
pub(super) fn covers(components: &[Item], required: &Required) -> bool {
    let whole = |item: &&Item| match item.params.as_slice() {
        [] => true,
        [(name, Bare::Boolean(true))] => name == "bs",
        _ => false,
    };
    components.iter().filter(whole).any(|item| match &item.value {
        Bare::Text(name) => *name == required.name || required.within.contains(&name.as_str()),
        _ => false,
    })
}

/// The text that `signed` is of.
pub(super) fn base(signed: &Signed, req: &Request, cx: &Exchange) -> Result<Vec<u8>, Why> {
    let mut base = Vec::with_capacity(512);
    let mut seen: Vec<String> = Vec::with_capacity(signed.components.len());
    for item in &signed.components {
        let mut named = String::with_capacity(32);
        write_item(item, &mut named);
        if seen.contains(&named) {
            return Err(format!("it covers {named} twice").into());
        }
        base.extend_from_slice(named.as_bytes());
        base.extend_from_slice(b": ");
        value(item, req, cx, &mut base)?;
        base.push(b'\n');
        seen.push(named);
    }
    base.extend_from_slice(b"\"@signature-params\": ");
    let mut params = String::with_capacity(256);
    write_list(&signed.components, &signed.params, &mut params);
    base.extend_from_slice(params.as_bytes());
    Ok(base)
}

/// Appends the value of one component.
fn value(item: &Item, req: &Request, cx: &Exchange, base: &mut Vec<u8>) -> Result<(), Why> {
    let Bare::Text(name) = &item.value else { return Err("it covers what is no component".into()) };
    if let (Some(derived), [(param, Bare::Text(wanted))]) = (name.strip_prefix('@'), item.params.as_slice())
        && (derived, param.as_str()) == ("query-param", "name")
    {
        base.extend_from_slice(query_param(cx, wanted)?.as_bytes());
        return Ok(());
    }
    if name.starts_with('@') {
        if !item.params.is_empty() {
            return Err(format!("it covers `{name}` in a way that is not understood").into());
        }
        return derived(name, req, cx, base);
    }
    if !is_field(name) {
        return Err("it covers what is no component".into());
    }
    let name = HeaderName::try_from(name.as_str()).map_err(|_| "it covers what is no component")?;
    if !req.headers().contains_key(&name) {
        return Err(format!("it covers `{name}`, which is not there").into());
    }
    match item.params.as_slice() {
        [] => lines(req.headers(), &name, base),
        [(param, Bare::Boolean(true))] if param == "bs" => encoded_lines(req.headers(), &name, base),
        [(param, Bare::Text(key))] if param == "key" => {
            let members = structured::field(req.headers(), &name);
            let member = members.as_ref().and_then(|all| all.iter().find(|(other, _)| other == key));
            let (_, member) = member.ok_or_else(|| format!("it covers a member of `{name}` that is not there"))?;
            let mut text = String::new();
            write_member(member, &mut text);
            base.extend_from_slice(text.as_bytes());
        }
        _ => return Err(format!("it covers `{name}` in a way that is not understood").into()),
    }
    Ok(())
}

/// RFC 9421 §2.2.
fn derived(name: &str, req: &Request, cx: &Exchange, base: &mut Vec<u8>) -> Result<(), Why> {
    let target = cx.written_path();
    let scheme = if cx.scheme == Scheme::Https { "https" } else { "http" };
    match name {
        "@method" => base.extend_from_slice(cx.method.as_str().as_bytes()),
        "@authority" => base.extend_from_slice(&authority(req.headers(), cx.scheme)?),
        "@scheme" => base.extend_from_slice(scheme.as_bytes()),
        "@path" => base.extend_from_slice(target.path().as_bytes()),
        "@query" => {
            base.push(b'?');
            base.extend_from_slice(target.query().unwrap_or_default().as_bytes());
        }
        "@request-target" => base.extend_from_slice(target.as_str().as_bytes()),
        "@target-uri" => {
            base.extend_from_slice(scheme.as_bytes());
            base.extend_from_slice(b"://");
            base.extend_from_slice(&authority(req.headers(), cx.scheme)?);
            base.extend_from_slice(target.as_str().as_bytes());
        }
        _ => return Err(format!("it covers `{name}`, which a request has not").into()),
    }
    Ok(())
}

/// Host and port, in lower case and without the port that its scheme has anyway (RFC 9421 §2.2.3).
fn authority(headers: &HeaderMap, scheme: Scheme) -> Result<Vec<u8>, Why> {
    let host = headers.get(HOST).ok_or("it covers `@authority`, and there is no host")?;
    let host = host.as_bytes().to_ascii_lowercase();
    let port: &[u8] = if scheme == Scheme::Https { b":443" } else { b":80" };
    Ok(host.strip_suffix(port).map(<[u8]>::to_vec).unwrap_or(host))
}

/// All lines of a field in one (RFC 9421 §2.1).
fn lines(headers: &HeaderMap, name: &HeaderName, base: &mut Vec<u8>) {
    for (index, line) in headers.get_all(name).iter().enumerate() {
        if index > 0 {
            base.extend_from_slice(b", ");
        }
        base.extend_from_slice(line.as_bytes().trim_ascii());
    }
}

/// All lines of a field, each as bytes that nobody can take for two (RFC 9421 §2.1.3).
fn encoded_lines(headers: &HeaderMap, name: &HeaderName, base: &mut Vec<u8>) {
    for (index, line) in headers.get_all(name).iter().enumerate() {
        if index > 0 {
            base.extend_from_slice(b", ");
        }
        let mut text = String::new();
        let value = Bare::Bytes(line.as_bytes().trim_ascii().to_vec());
        write_item(&Item { value, params: Vec::new() }, &mut text);
        base.extend_from_slice(text.as_bytes());
    }
}

/// The one parameter of the query that has this name (RFC 9421 §2.2.8).
fn query_param(cx: &Exchange, wanted: &str) -> Result<String, Why> {
    let pairs = cx.written_path().query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let mut found = pairs.filter_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (form(name) == wanted).then(|| form(value))
    });
    match (found.next(), found.next()) {
        (Some(value), None) => Ok(value),
        (None, _) => Err("it covers a parameter of the query that is not there".into()),
        (Some(_), Some(_)) => Err("it covers a parameter of the query that stands twice".into()),
    }
}

/// A name or value of a form in its one spelling.
fn form(text: &str) -> String {
    let text = text.replace('+', " ");
    let bytes: Vec<u8> = percent_decode(text.as_bytes()).collect();
    percent_encode(&bytes, FORM).to_string()
}

/// Whether it is the name of a field as signatures write it: in lower case.
fn is_field(name: &str) -> bool {
    HeaderName::from_lowercase(name.as_bytes()).is_ok_and(|it| it != header("signature-params"))
}
