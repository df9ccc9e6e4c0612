//! The document as typed specs, read part by part from the tree so that everything wrong in it is told at once.
//!
//! The keys stand in [`keys`]; a route also takes the keys of policies, which the registry knows. Keys of
//! capabilities that are not built yet are errors that say so: nothing is parsed and ignored.

use pylon_core::short::{OneOrMany, Several, Short};
use pylon_core::spec::FieldPath;
use pylon_net::spec::{LimitsSpec, ListenerSpec};
use pylon_observe::spec::TelemetrySpec;
use pylon_policy::consumers::ConsumerSpec;
use pylon_policy::registry::{self, AnySpec, CATALOGUE, LEFT_OUT, SpecReader};
use pylon_proxy::action::redirect::RedirectSpec;
use pylon_proxy::action::respond::RespondSpec;
use pylon_proxy::action::split::{SplitSpec, StickySpec};
use pylon_proxy::fallback::spec::FallbackSpec;
use pylon_proxy::forwarding::TrustedProxiesSpec;
use pylon_proxy::mirror::MirrorSpec;
use pylon_proxy::removal::OnRemoval;
use pylon_proxy::websocket::WebSocketSpec;
use pylon_route::spec::{MatchSpec, PathsSpec, RewriteSpec};
use pylon_upstream::breaker::spec::BreakerSpec;
use pylon_upstream::call::hedge::spec::{HedgeSpec, ShortHedge};
use pylon_upstream::call::retry::spec::{RetrySpec, ShortRetry};
use pylon_upstream::discovery::agents::DiscoverySpec;
use pylon_upstream::locality::LocalitySpec;
use pylon_upstream::spec::UpstreamSpec;
use pylon_upstream::timeouts::TimeoutSpec;
use serde::de::DeserializeOwned;

use crate::admin::AdminSpec;
use crate::de;
use crate::diagnostic::Diagnostic;
use crate::keys::{self, KeyDoc};
use crate::load::Source;
use crate::stores::StoresSpec;
use crate::suggest;
use crate::tree::{Key, Node, Value};

mod route;

/// A document, read.
#[derive(Debug, Default)]
pub struct Document {
    /// Where clients are accepted.
    pub listeners: Vec<ListenerSpec>,
    /// What clients and upstreams may send.
    pub limits: LimitsSpec,
    /// How many workers there are; by default as many as cores.
    pub workers: Option<usize>,
    /// The admin API.
    pub admin: AdminSpec,
    /// Log and metrics.
    pub telemetry: TelemetrySpec,
    /// Peers whose forwarding fields count.
    pub trusted_proxies: TrustedProxiesSpec,
    /// How paths are compared.
    pub paths: PathsSpec,
    /// Where the gateway stands.
    pub locality: LocalitySpec,
    /// Who is asked for names and endpoints.
    pub discovery: DiscoverySpec,
    /// The upstreams by name, in the order of the document.
    pub upstreams: Vec<(String, UpstreamSpec)>,
    /// Who may call, by name, in the order of the document.
    pub consumers: Vec<(String, ConsumerSpec)>,
    /// Where is kept what changes without the document.
    pub stores: StoresSpec,
    /// What holds for each route that does not say otherwise.
    pub defaults: Defaults,
    /// The routes, in the order of the document.
    pub routes: Vec<RouteSpec>,
}

/// The key `defaults`.
#[derive(Debug, Default)]
pub struct Defaults {
    /// Policies of every route.
    pub policies: Vec<PolicyEntry>,
    /// Policies that are watched, not enforced.
    pub shadow: Vec<String>,
    /// Timers of every route.
    pub timeout: Option<TimeoutSpec>,
    /// When a request is sent once more, on every route.
    pub retry: Option<RetrySpec>,
    /// When a request is sent twice, on every route.
    pub hedge: Option<HedgeSpec>,
    /// What stands in on every route.
    pub fallback: Option<FallbackSpec>,
    /// When the calls of each route are held back.
    pub breaker: Option<BreakerSpec>,
}

impl Defaults {
    /// The keys beside those of policies.
    pub(crate) const KEYS: [&str; 6] = ["timeout", "retry", "hedge", "fallback", "breaker", "shadow"];
}

/// One item of `routes`.
#[derive(Debug)]
pub struct RouteSpec {
    /// Its place among the routes.
    pub index: usize,
    /// Its stable id, if it has a name.
    pub name: Option<String>,
    /// What a request must look like.
    pub matching: MatchSpec,
    /// How the answer is obtained.
    pub action: ActionSpec,
    /// By what a split sticks.
    pub sticky: StickySpec,
    /// Whether WebSockets pass.
    pub websocket: Option<WebSocketSpec>,
    /// What becomes of host, path and query.
    pub rewrite: Option<RewriteSpec>,
    /// Timers of this route.
    pub timeout: Option<TimeoutSpec>,
    /// When its calls are held back.
    pub breaker: Option<BreakerSpec>,
    /// When a request is sent once more.
    pub retry: Option<RetrySpec>,
    /// When a request is sent twice.
    pub hedge: Option<HedgeSpec>,
    /// What stands in for an answer that fails: no rule where that of `defaults` is turned off, none where nothing is said.
    pub fallback: Option<FallbackSpec>,
    /// Who gets copies of its requests.
    pub mirror: Option<MirrorSpec>,
    /// What becomes of its streams when it is removed.
    pub on_removal: OnRemoval,
    /// Policies of this route, and those of `defaults` that it turns off.
    pub policies: Vec<PolicyEntry>,
    /// Policies that are watched here; none where the route does not say.
    pub shadow: Option<Vec<String>>,
}

/// One policy as written.
#[derive(Debug)]
pub struct PolicyEntry {
    /// Its key.
    pub key: String,
    /// Its spec, or none where it is turned `off`.
    pub spec: Option<AnySpec>,
    /// Where it was written.
    pub at: FieldPath,
}

/// How a route obtains its answer.
#[derive(Debug)]
pub enum ActionSpec {
    /// `forward: users`.
    Forward(String),
    /// `split: { a: 95%, b: 5% }`.
    Split(SplitSpec),
    /// `redirect: /new`.
    Redirect(RedirectSpec),
    /// `respond: 404`.
    Respond(RespondSpec),
}

/// Reads everything. What is wrong goes to the diagnostics; what is right is in the document.
pub fn read(source: &Source) -> (Document, Vec<Diagnostic>) {
    let mut reader = Reader { source, diagnostics: Vec::new() };
    let document = reader.document();
    (document, reader.diagnostics)
}

struct Reader<'s> {
    source: &'s Source,
    diagnostics: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn document(&mut self) -> Document {
        let mut document = Document::default();
        let root = FieldPath::root();
        for (key, node) in self.source.root.entries() {
            let at = root.clone().key(&*key.text);
            match &*key.text {
                "listeners" => document.listeners = self.part(key, node, &at).unwrap_or_default(),
                "limits" => document.limits = self.part(key, node, &at).unwrap_or_default(),
                "workers" => document.workers = self.workers(key, node, &at),
                "admin" => document.admin = self.part(key, node, &at).unwrap_or_default(),
                "telemetry" => document.telemetry = self.part(key, node, &at).unwrap_or_default(),
                "trusted_proxies" => document.trusted_proxies = self.trusted_proxies(key, node, &at),
                "paths" => document.paths = self.part(key, node, &at).unwrap_or_default(),
                "locality" => document.locality = self.locality(key, node, &at),
                "discovery" => document.discovery = self.part(key, node, &at).unwrap_or_default(),
                "upstreams" => document.upstreams = self.named(key, node, &at, "upstream"),
                "stores" => document.stores = self.part(key, node, &at).unwrap_or_default(),
                "consumers" => document.consumers = self.named(key, node, &at, "consumer"),
                "defaults" => document.defaults = self.defaults(key, node, &at),
                "routes" => document.routes = self.routes(key, node, &at),
                other => self.unknown(key, other, &names(keys::TOP), &at),
            }
        }
        document
    }

    /// One part by serde; what is wrong in it is noted.
    fn part<T: DeserializeOwned>(&mut self, key: &Key, node: &Node, at: &FieldPath) -> Option<T> {
        let read = de::read_entry(Some(key), node, at);
        read.map_err(|problems| {
            self.diagnostics.extend(problems.into_iter().map(|problem| self.source.diagnostic(problem)));
        })
        .ok()
    }

    fn trusted_proxies(&mut self, key: &Key, node: &Node, at: &FieldPath) -> TrustedProxiesSpec {
        if matches!(node.value, Value::Map(_)) {
            return self.part(key, node, at).unwrap_or_default();
        }
        TrustedProxiesSpec { networks: self.part(key, node, at).unwrap_or_default(), ..TrustedProxiesSpec::default() }
    }

    fn locality(&mut self, key: &Key, node: &Node, at: &FieldPath) -> LocalitySpec {
        self.part::<Short<LocalitySpec>>(key, node, at).map(|short| short.0).unwrap_or_default()
    }

    fn workers(&mut self, key: &Key, node: &Node, at: &FieldPath) -> Option<usize> {
        let workers: usize = self.part(key, node, at)?;
        if (1..=256).contains(&workers) {
            return Some(workers);
        }
        self.complain(node, at, format!("{workers} is not a number of workers from 1 to 256"), None);
        None
    }

    /// A map of things by name.
    fn named<T: DeserializeOwned>(&mut self, key: &Key, node: &Node, at: &FieldPath, what: &str) -> Vec<(String, T)> {
        if !self.is_map(key, node, at, &format!("a map of {what}s by name")) {
            return Vec::new();
        }
        let mut things = Vec::new();
        for (name, node) in node.entries() {
            let at = at.clone().key(&*name.text);
            if name.text.is_empty()
                || !name.text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
            {
                let help = "use letters, digits, `-`, `_` and `.`".to_owned();
                let problem = format!("`{}` is not a name for {}", name.text, with_article(what));
                self.complain_at_key(name, &at, problem, Some(help));
            }
            if let Some(spec) = self.part(name, node, &at) {
                things.push((name.text.to_string(), spec));
            }
        }
        things
    }

    fn defaults(&mut self, key: &Key, node: &Node, at: &FieldPath) -> Defaults {
        let mut defaults = Defaults::default();
        if !self.is_map(key, node, at, "a map of policies") {
            return defaults;
        }
        for (key, node) in node.entries() {
            let at = at.clone().key(&*key.text);
            match &*key.text {
                "timeout" => defaults.timeout = self.part::<Short<TimeoutSpec>>(key, node, &at).map(|short| short.0),
                "retry" => defaults.retry = self.part::<ShortRetry>(key, node, &at).map(|short| short.0),
                "hedge" => defaults.hedge = self.part::<ShortHedge>(key, node, &at).map(|short| short.0),
                "shadow" => defaults.shadow = self.part::<OneOrMany<String>>(key, node, &at).unwrap_or_default().0,
                "fallback" => defaults.fallback = self.part(key, node, &at),
                "breaker" => defaults.breaker = self.part::<Short<BreakerSpec>>(key, node, &at).map(|short| short.0),
                _ => {
                    if let Some(entry) = self.policy(key, node, &at, &Defaults::KEYS) {
                        defaults.policies.push(entry);
                    }
                }
            }
        }
        defaults
    }

    /// What stands in on a route; `off` takes away what `defaults` says.
    fn fallback(&mut self, key: &Key, node: &Node, at: &FieldPath) -> Option<FallbackSpec> {
        if node.text() == Some("off") { Some(Several(Vec::new())) } else { self.part(key, node, at) }
    }

    fn policy(&mut self, key: &Key, node: &Node, at: &FieldPath, others: &[&str]) -> Option<PolicyEntry> {
        if !CATALOGUE.iter().any(|entry| entry.key == &*key.text) {
            let known: Vec<&str> = others.iter().copied().chain(CATALOGUE.iter().map(|entry| entry.key)).collect();
            self.unknown(key, &key.text, &known, at);
            return None;
        }
        let entry = |spec| PolicyEntry { key: key.text.to_string(), spec, at: at.clone() };
        if node.text() == Some("off") {
            return Some(entry(None));
        }
        let spec = registry::read_spec(&key.text, PartReader { reader: self, key, node, at })??;
        Some(entry(Some(spec)))
    }

    fn unknown(&mut self, key: &Key, text: &str, known: &[&str], at: &FieldPath) {
        if let Some((_, feature)) = LEFT_OUT.iter().find(|(policy, _)| *policy == text) {
            let help = format!("build it with the feature `{feature}`, which is on by default");
            self.complain_at_key(key, at, format!("this gateway was built without the policy `{text}`"), Some(help));
        } else if keys::LATER.contains(&text) {
            let help = "remove it: a key that does nothing would only look as if it did".to_owned();
            self.complain_at_key(key, at, format!("`{text}` is not built yet"), Some(help));
        } else {
            self.complain_at_key(key, at, format!("unknown key `{text}`"), suggest::help(text, known, "keys"));
        }
    }

    fn is_map(&mut self, key: &Key, node: &Node, at: &FieldPath, what: &str) -> bool {
        match node.value {
            Value::Map(_) => true,
            Value::Null => false,
            _ => {
                self.complain_at_key(key, at, format!("`{}` is {what}, not {}", key.text, node.describe()), None);
                false
            }
        }
    }

    fn complain(&mut self, node: &Node, at: &FieldPath, problem: String, help: Option<String>) {
        let place = self.source.place_of(node);
        self.push(Diagnostic::error(problem).at(place).path(at.to_string()), help);
    }

    fn complain_at_key(&mut self, key: &Key, at: &FieldPath, problem: String, help: Option<String>) {
        let place = self.source.place(key.file, key.span);
        self.push(Diagnostic::error(problem).at(place).path(at.to_string()), help);
    }

    fn push(&mut self, diagnostic: Diagnostic, help: Option<String>) {
        self.diagnostics.push(match help {
            Some(help) => diagnostic.help(help),
            None => diagnostic,
        });
    }
}

/// Lets the registry read the spec of a policy whose type only it knows.
struct PartReader<'r, 's> {
    reader: &'r mut Reader<'s>,
    key: &'r Key,
    node: &'r Node,
    at: &'r FieldPath,
}

impl SpecReader for PartReader<'_, '_> {
    fn read<T: DeserializeOwned>(self) -> Option<T> {
        self.reader.part(self.key, self.node, self.at)
    }
}

fn with_article(what: &str) -> String {
    let article = if what.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {what}")
}

fn names(keys: &[KeyDoc]) -> Vec<&'static str> {
    keys.iter().map(|key| key.key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::render_all;

    #[test]
    fn a_policy_that_was_left_out_of_the_build_is_told_as_that() {
        let text = "routes:\n  - { match: /, respond: 200, expression: request.path == '/' }\n";
        let source = Source::from_text("t.yaml", text).unwrap();
        let told = render_all(&read(&source).1, false);
        // It depends on how these tests are built which of both can be seen.
        if registry::entry("expression").is_some() {
            assert_eq!((told.as_str(), LEFT_OUT), ("", &[][..]));
        } else {
            assert!(told.contains("this gateway was built without the policy `expression`"), "{told}");
            assert!(told.contains("build it with the feature `cel`"), "{told}");
        }
    }
}
