//! `pylon explain`: which route a request meets and why, told from a compiled document; of one that serves, with the state
//! of what the request would meet there.

mod calls;
mod live;

use std::collections::HashSet;
use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use pylon_config::compile::Origin;
use pylon_config::load::Source;
use pylon_config::locate::locate;
use pylon_core::Request;
use pylon_core::body::Body;
use pylon_core::connection::Scheme;
use pylon_core::spec::FieldPath;
use pylon_policy::registry::CATALOGUE;
use pylon_proxy::explain::{Explained, explain};
use pylon_proxy::snapshot::Snapshot;
use serde::{Deserialize, Serialize};

use crate::diff::flat;
use crate::prepare::Prepared;

pub(crate) use live::{Unexplained, live};

/// A request to be explained.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The method.
    pub method: String,
    /// The URL: `http://api.example.com/users/7`, or a path.
    pub url: String,
    /// Header fields, in order.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// The address that the request would come from.
    #[serde(default = "loopback")]
    pub client: IpAddr,
}

fn loopback() -> IpAddr {
    IpAddr::from([127, 0, 0, 1])
}

/// What is told of a document's routes beyond what serves; it holds neither the files nor their trees.
#[derive(Debug)]
pub(crate) struct Told {
    /// The hash of the document.
    pub(crate) hash: String,
    /// In the order of the routes; the last is that of requests without a route.
    routes: Vec<ToldRoute>,
}

#[derive(Debug)]
struct ToldRoute {
    /// `pylon.yaml:7`.
    place: Arc<str>,
    action: Arc<str>,
    policies: Vec<ToldPolicy>,
}

#[derive(Debug)]
struct ToldPolicy {
    key: &'static str,
    /// As JSON.
    value: Arc<str>,
    place: Arc<str>,
    shadow: bool,
}

impl Told {
    /// Of a document. What routes have in common stands in memory once.
    pub(crate) fn of(prepared: &Prepared) -> Self {
        let mut words = HashSet::new();
        let mut one = |text: String| {
            let text: Arc<str> = text.into();
            match words.get(&text) {
                Some(known) => Arc::clone(known),
                None => {
                    words.insert(Arc::clone(&text));
                    text
                }
            }
        };
        let routes = prepared.compiled.origins.iter().map(|origin| ToldRoute {
            place: one(place(&prepared.source, &origin.at)),
            action: one(origin.action.clone()),
            policies: policies(&prepared.source, origin, &mut one),
        });
        Self { hash: prepared.compiled.snapshot.hash.clone(), routes: routes.collect() }
    }

    fn route(&self, index: Option<usize>) -> Option<&ToldRoute> {
        index.map_or_else(|| self.routes.last(), |index| self.routes.get(index))
    }
}

fn policies(source: &Source, origin: &Origin, one: &mut impl FnMut(String) -> Arc<str>) -> Vec<ToldPolicy> {
    let told = CATALOGUE.iter().filter_map(|entry| {
        let (spec, at) = origin.policies.iter().find(|(spec, _)| spec.key() == entry.key)?;
        Some(ToldPolicy {
            key: entry.key,
            // Who may ask the admin API need not be who may read the document.
            value: one(flat::shown(entry.key, &serde_json::to_value(spec).unwrap_or_default()).to_string()),
            place: one(place(source, at)),
            shadow: origin.shadow.iter().any(|key| key == entry.key),
        })
    });
    told.collect()
}

fn place(source: &Source, at: &FieldPath) -> String {
    let (file, span) = locate(&source.root, at).mark();
    source.line_of(file, span)
}

/// Explains by a document that is at hand, or says why the question is none.
pub fn answer(prepared: &Prepared, question: &Question) -> Result<String, String> {
    Ok(of(&prepared.compiled.snapshot, &Told::of(prepared), question)?.0)
}

/// The text, and what it is about.
fn of(snapshot: &Snapshot, told: &Told, question: &Question) -> Result<(String, Explained), String> {
    let scheme = if question.url.starts_with("https://") { Scheme::Https } else { Scheme::Http };
    let request = request(question)?;
    let asked = format!("{} {}", question.method, question.url);
    let explained = explain(snapshot, request, SocketAddr::new(question.client, 0), scheme);
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = Report { snapshot, told, explained: &explained, asked: &asked }.write(&mut text);
    Ok((text, explained))
}

/// The request as a client would send it: the URL's host in the Host field.
fn request(question: &Question) -> Result<Request, String> {
    let target = match question.url.split_once("://") {
        Some(("http" | "https", rest)) => rest,
        Some((scheme, _)) => return Err(format!("`{scheme}` is neither http nor https")),
        None => &question.url,
    };
    let method = http::Method::from_bytes(question.method.as_bytes());
    let method = method.map_err(|_| format!("`{}` is not a method", question.method))?;
    let slash = target.find('/').unwrap_or(target.len());
    let (host, path) = target.split_at(slash);
    let path = path.split('#').next().filter(|path| !path.is_empty()).unwrap_or("/");
    let mut builder = http::Request::builder().method(method).uri(path);
    if !question.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        builder = builder.header(http::header::HOST, if host.is_empty() { "localhost" } else { host });
    }
    for (name, value) in &question.headers {
        let name = http::HeaderName::try_from(name).map_err(|_| format!("`{name}` is not a header name"))?;
        let value = http::HeaderValue::try_from(value).map_err(|_| format!("`{value}` is not a header value"))?;
        builder = builder.header(name, value);
    }
    builder.body(Body::Empty).map_err(|error| format!("`{}` is not a URL: {error}", question.url))
}

struct Report<'a> {
    snapshot: &'a Snapshot,
    told: &'a Told,
    explained: &'a Explained,
    asked: &'a str,
}

impl Report<'_> {
    fn write(&self, out: &mut String) -> fmt::Result {
        let cx = &self.explained.met.exchange;
        writeln!(out, "{}\n", self.asked)?;
        writeln!(out, "  host    {}", cx.host.as_deref().unwrap_or("(none)"))?;
        writeln!(out, "  path    {}", cx.path)?;
        writeln!(out, "  client  {} by {}", cx.client, cx.scheme.as_str())?;
        self.candidates(out)?;
        if let Some(no) = &self.explained.met.refusal {
            write!(out, "\nrefused with {}: {} ({})", no.reason.status, no.reason.title, no.reason.code)?;
            match &no.detail {
                Some(detail) => writeln!(out, ": {detail}")?,
                None => writeln!(out)?,
            }
        }
        let Some(told) = self.told.route(self.explained.met.route) else { return Ok(()) };
        self.route(out, told)?;
        policies_in_words(out, told)
    }

    fn candidates(&self, out: &mut String) -> fmt::Result {
        let Some(explanation) = &self.explained.explanation else { return Ok(()) };
        if explanation.candidates.is_empty() {
            return writeln!(out, "\nno route has this host and path");
        }
        writeln!(out, "\ncandidates, in the order in which they are tried")?;
        let width = explanation.candidates.iter().map(|one| one.text.chars().count()).max().unwrap_or(0);
        for (number, candidate) in explanation.candidates.iter().enumerate() {
            let place = self.told.route(Some(candidate.route)).map(|told| &*told.place).unwrap_or_default();
            writeln!(out, "  {}. {:width$}  {}  ({place})", number + 1, candidate.text, candidate.verdict)?;
        }
        Ok(())
    }

    fn route(&self, out: &mut String, told: &ToldRoute) -> fmt::Result {
        let met = &self.explained.met;
        let route = met.route.and_then(|index| self.snapshot.routes.get(index)).unwrap_or(&self.snapshot.nowhere);
        writeln!(out, "\nroute   {}  ({})", route.id, told.place)?;
        writeln!(out, "action  {}", told.action)?;
        if let Some(path) = &met.exchange.upstream_path {
            writeln!(out, "sends   {path}")?;
        }
        if let Some(host) = &met.exchange.upstream_host {
            writeln!(out, "host    {}", String::from_utf8_lossy(host.as_bytes()))?;
        }
        calls::write(out, &route.action)
    }
}

fn policies_in_words(out: &mut String, told: &ToldRoute) -> fmt::Result {
    if told.policies.is_empty() {
        return writeln!(out, "\nno policies");
    }
    writeln!(out, "\npolicies, in the order in which the request meets them")?;
    for ToldPolicy { key, value, place, shadow } in &told.policies {
        let shadow = if *shadow { ", in shadow" } else { "" };
        writeln!(out, "  {key:15} {value}  ({place}{shadow})")?;
    }
    Ok(())
}
