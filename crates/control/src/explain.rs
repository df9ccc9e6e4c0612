//! `pylon explain`: which route a request meets and why, told from the compiled document without a socket.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};

use pylon_config::compile::Origin;
use pylon_config::locate::locate;
use pylon_core::Request;
use pylon_core::body::Body;
use pylon_core::connection::Scheme;
use pylon_core::spec::FieldPath;
use pylon_policy::registry::CATALOGUE;
use pylon_proxy::explain::{Explained, explain};

use crate::prepare::Prepared;

/// A request to be explained.
#[derive(Debug)]
pub struct Question {
    /// The method.
    pub method: http::Method,
    /// The URL: `http://api.example.com/users/7`, or a path.
    pub url: String,
    /// Header fields, in order.
    pub headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// The address that the request would come from.
    pub client: IpAddr,
}

/// Explains, or says why the URL is none.
pub fn answer(prepared: &Prepared, question: Question) -> Result<String, String> {
    let scheme = if question.url.starts_with("https://") { Scheme::Https } else { Scheme::Http };
    let request = request(&question)?;
    let asked = format!("{} {}", question.method, question.url);
    let explained = explain(&prepared.compiled.snapshot, request, SocketAddr::new(question.client, 0), scheme);
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = Report { prepared, explained: &explained, asked: &asked }.write(&mut text);
    Ok(text)
}

/// The request as a client would send it: the URL's host in the Host field.
fn request(question: &Question) -> Result<Request, String> {
    let target = match question.url.split_once("://") {
        Some(("http" | "https", rest)) => rest,
        Some((scheme, _)) => return Err(format!("`{scheme}` is neither http nor https")),
        None => &question.url,
    };
    let slash = target.find('/').unwrap_or(target.len());
    let (host, path) = target.split_at(slash);
    let path = path.split('#').next().filter(|path| !path.is_empty()).unwrap_or("/");
    let mut builder = http::Request::builder().method(&question.method).uri(path);
    if !question.headers.iter().any(|(name, _)| name == http::header::HOST) {
        builder = builder.header(http::header::HOST, if host.is_empty() { "localhost" } else { host });
    }
    for (name, value) in &question.headers {
        builder = builder.header(name, value);
    }
    builder.body(Body::Empty).map_err(|error| format!("`{}` is not a URL: {error}", question.url))
}

struct Report<'a> {
    prepared: &'a Prepared,
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
        let Some(origin) = self.origin() else { return Ok(()) };
        self.route(out, origin)?;
        self.policies(out, origin)
    }

    fn origin(&self) -> Option<&Origin> {
        let origins = &self.prepared.compiled.origins;
        match self.explained.met.route {
            Some(index) => origins.get(index),
            None => origins.last(),
        }
    }

    fn candidates(&self, out: &mut String) -> fmt::Result {
        let Some(explanation) = &self.explained.explanation else { return Ok(()) };
        if explanation.candidates.is_empty() {
            return writeln!(out, "\nno route has this host and path");
        }
        writeln!(out, "\ncandidates, in the order in which they are tried")?;
        let width = explanation.candidates.iter().map(|one| one.text.chars().count()).max().unwrap_or(0);
        for (number, candidate) in explanation.candidates.iter().enumerate() {
            let place = self.prepared.compiled.origins.get(candidate.route).map(|origin| self.place(&origin.at));
            let place = place.unwrap_or_default();
            writeln!(out, "  {}. {:width$}  {}  ({place})", number + 1, candidate.text, candidate.verdict)?;
        }
        Ok(())
    }

    fn route(&self, out: &mut String, origin: &Origin) -> fmt::Result {
        let snapshot = &self.prepared.compiled.snapshot;
        let route = self.explained.met.route.and_then(|index| snapshot.routes.get(index)).unwrap_or(&snapshot.nowhere);
        writeln!(out, "\nroute   {}  ({})", route.id, self.place(&origin.at))?;
        writeln!(out, "action  {}", origin.action)?;
        let cx = &self.explained.met.exchange;
        if let Some(path) = &cx.upstream_path {
            writeln!(out, "sends   {path}")?;
        }
        if let Some(host) = &cx.upstream_host {
            writeln!(out, "host    {}", String::from_utf8_lossy(host.as_bytes()))?;
        }
        Ok(())
    }

    fn policies(&self, out: &mut String, origin: &Origin) -> fmt::Result {
        if origin.policies.is_empty() {
            return writeln!(out, "\nno policies");
        }
        writeln!(out, "\npolicies, in the order in which the request meets them")?;
        for entry in CATALOGUE {
            let Some((spec, at)) = origin.policies.iter().find(|(spec, _)| spec.key() == entry.key) else { continue };
            let value = serde_json::to_string(spec).unwrap_or_default();
            let shadow = if origin.shadow.iter().any(|key| key == entry.key) { ", in shadow" } else { "" };
            writeln!(out, "  {:15} {value}  ({}{shadow})", entry.key, self.place(at))?;
        }
        Ok(())
    }

    /// `pylon.yaml:7`.
    fn place(&self, at: &FieldPath) -> String {
        let source = &self.prepared.source;
        let (file, span) = locate(&source.root, at).mark();
        source.line_of(file, span)
    }
}
