//! The stage of a case: its services, and a gateway in this process under its document.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use pylon_config::diagnostic::render_all;
use pylon_config::load::Source;
use pylon_config::plan::PlainSecrets;
use pylon_control::gateway::Gateway;
use pylon_control::prepare;
use pylon_testkit::answer::Answer;
use pylon_testkit::binary::complete;
use pylon_testkit::client::{Raw, request};
use pylon_testkit::message::Message;
use pylon_testkit::tls::Authority;
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait;
use serde_json::Value;
use tempfile::TempDir;

use crate::case::{Case, Scripted, Step};
use crate::expect;

/// How long a line of the access log may take: it is written out four times a second.
const LOG: Duration = Duration::from_secs(10);

/// Services and gateway of one case.
pub(crate) struct Stage {
    gateway: Gateway,
    services: BTreeMap<String, Upstream>,
    folder: TempDir,
    /// Who issues certificates, where requests come under TLS.
    authority: Option<Authority>,
    /// How many exchanges there were.
    played: usize,
}

/// What came of a step.
pub(crate) struct Played {
    pub(crate) answer: Message,
    /// The requests that services saw, each with the name of the service.
    pub(crate) seen: Vec<(String, Message)>,
    /// The line of the access log.
    pub(crate) log: Option<Value>,
}

impl Stage {
    /// Starts the services and the gateway.
    pub(crate) fn set(case: &Case) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mut document = case.document.clone();
        let mut services = BTreeMap::new();
        for name in names(&document) {
            let service = service(case.upstreams.get(&name));
            document = document.replace(&format!("http://{name}"), &service.url());
            services.insert(name, service);
        }
        if let Some(unused) = case.upstreams.keys().find(|name| !services.contains_key(*name)) {
            return Err(format!("`{unused}` is scripted, but the document has no http://{unused}"));
        }
        let authority = document.contains("certs/").then(|| {
            let authority = Authority::default();
            std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
            authority.issue(&["gate.test"]).write(folder.path(), "gate");
            authority
        });
        document = document.replace("certs/", &format!("{}/", folder.path().display()));
        let log = folder.path().join("access.log");
        let mut document = complete(&document);
        for (key, line) in [
            ("workers:", "workers: 1".to_owned()),
            ("trusted_proxies:", "trusted_proxies: 127.0.0.1".to_owned()),
            ("telemetry:", format!("telemetry: {{ access_log: {} }}", log.display())),
        ] {
            if !document.lines().any(|other| other.starts_with(key)) {
                document = document + &line + "\n";
            }
        }
        let wrong = |wrong: Vec<_>| render_all(&wrong, false);
        let source = Source::from_text("document", &document).map_err(wrong)?;
        let prepared = prepare::from_source(source, PlainSecrets::Refused).map_err(wrong)?;
        let gateway = Gateway::start(prepared).map_err(|error| error.to_string())?;
        Ok(Self { gateway, services, folder, authority, played: 0 })
    }

    /// Plays one step.
    pub(crate) fn play(&mut self, step: &Step) -> Result<(), String> {
        let before: BTreeMap<String, usize> =
            self.services.iter().map(|(name, service)| (name.clone(), service.requests())).collect();
        let answer = self.send(step)?;
        self.played += 1;
        let mut seen = Vec::new();
        for (name, service) in &self.services {
            seen.extend(service.seen().into_iter().skip(before[name]).map(|request| (name.clone(), request)));
        }
        let log = step.expect.log.is_some().then(|| self.log());
        expect::check(&step.expect, &Played { answer, seen, log })
    }

    /// Ends the gateway in good order.
    pub(crate) fn close(self) {
        self.gateway.shut_down(Duration::from_secs(1));
    }

    fn send(&self, step: &Step) -> Result<Message, String> {
        let send = &step.send;
        let mut fields: Vec<(&str, &str)> =
            send.header.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        fields.extend(send.from.as_deref().map(|from| ("x-forwarded-for", from)));
        let mut raw = Raw::connect(self.gateway.listeners[0].tcp().unwrap());
        if let Some(authority) = &self.authority {
            let shown = send.certificate.as_ref().map(|name| authority.issue(&[name]));
            let config = Arc::new(authority.client(rustls::DEFAULT_VERSIONS, shown.as_ref()));
            raw = raw.try_tls(&config, "gate.test").map_err(|error| format!("no handshake: {error}"))?;
        }
        raw.send(request(&send.method, &send.path, &fields, send.body.as_bytes()));
        raw.try_response(&send.method).map_err(|error| format!("no answer: {error:?}"))
    }

    fn log(&self) -> Value {
        let path = self.folder.path().join("access.log");
        let line = wait::eventually(LOG, "the line of the access log", || {
            let text = std::fs::read_to_string(&path).ok()?;
            text.lines().nth(self.played - 1).map(str::to_owned)
        });
        serde_json::from_str(&line).unwrap()
    }
}

/// The names of scripted services in a document: `api.test` of `http://api.test`.
fn names(document: &str) -> BTreeSet<String> {
    document
        .split("http://")
        .skip(1)
        .map(|rest| rest.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-' && letter != '.'))
        .filter_map(|mut words| words.next())
        .filter(|name| name.rsplit_once('.').is_some_and(|(_, last)| last == "test"))
        .map(str::to_owned)
        .collect()
}

fn service(scripted: Option<&Scripted>) -> Upstream {
    let Some(scripted) = scripted else { return Upstream::echo() };
    let mut answer = Answer::new(scripted.status).after(Duration::from_millis(scripted.delay_ms));
    for (name, value) in &scripted.header {
        answer = answer.field(name, value);
    }
    let answer = answer.body(scripted.body.as_str());
    Upstream::http(move |_| answer.clone())
}
