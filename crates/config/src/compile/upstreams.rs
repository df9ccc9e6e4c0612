//! From the key `upstreams` to upstreams: those of the snapshot before where nothing of them has changed.

use std::sync::Arc;

use pylon_core::names::UpstreamName;
use pylon_core::short::Short;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_upstream::locality::LocalitySpec;
use pylon_upstream::spec::UpstreamSpec;
use pylon_upstream::timeouts::TimeoutSpec;
use pylon_upstream::upstream::{Building, Upstream};

use super::{Compiler, Context};
use crate::plain;
use crate::suggest;
use crate::tree::Node;

impl Compiler<'_> {
    pub(super) fn upstreams(&mut self) {
        let base = FieldPath::root().key("upstreams");
        let defaults = &self.document.defaults;
        let wrong = defaults.breaker.iter().flat_map(|breaker| breaker.check(true));
        self.note(&FieldPath::root().key("defaults").key("breaker"), wrong);
        let inherited = defaults.retry.as_ref();
        // What is wrong there is told there, and not of each upstream.
        let at = FieldPath::root().key("defaults").key("retry");
        let inherited = inherited.filter(|retry| self.retry(retry, &at).is_some());
        for (name, spec) in &self.document.upstreams {
            let written = spec.timeout.as_ref().map(|short| &short.0);
            // The nearer wins: the route's, else the upstream's, else that of `defaults`.
            let timeout = layered(written, self.document.defaults.timeout.as_ref()).map(Short);
            let retry = spec.retry.clone().or_else(|| inherited.cloned().map(Short));
            let spec = UpstreamSpec { timeout, retry, ..spec.clone() };
            match self.living(UpstreamName::from(name.as_str()), &spec) {
                Ok(upstream) => _ = self.upstreams.insert(UpstreamName::from(name.as_str()), upstream),
                Err(errors) => self.note(&base.clone().key(name), errors),
            }
        }
    }

    /// The upstream of the snapshot before, where nothing of it has changed, or a new one.
    fn living(&self, name: UpstreamName, spec: &UpstreamSpec) -> Result<Arc<Upstream>, Vec<SpecError>> {
        let Context { carry, resolver, agents, metrics, secrets, .. } = *self.cx;
        let locality = self.locality();
        let defined = serde_json::to_string(spec).ok();
        // A secret is not in what is written, and may have changed where it is kept.
        let sticky = spec.balance.sticky.as_ref().and_then(|sticky| secrets.reveal()(sticky.key.as_ref()?).ok());
        let sticky = sticky.map(|key| blake3::hash(key.expose()));
        let (names, asked) = (resolver.identity(), agents.identity(spec.discover.as_ref()));
        let key = defined.map(|spec| format!("{name} {spec} {names} {asked} {locality:?} {sticky:?}"));
        // A document that is tried has upstreams of its own, on the pools of the one in force.
        if let Some(upstream) = key.as_ref().and_then(|key| carry.own().living(key)) {
            return Ok(upstream);
        }
        let secrets = secrets.reveal();
        let cx = Building { carry, resolver, yaml: plain::read, agents, secrets, locality: &locality };
        let upstream = Upstream::compile(name.clone(), spec, &cx)?;
        let upstream = Arc::new(upstream.counted_in(metrics.upstream(&name)));
        if let Some(key) = key {
            carry.own().hold(key, &upstream);
        }
        Ok(upstream)
    }
}

impl Compiler<'_> {
    /// The upstream of this name; `missing` is what is wrong where there is none.
    pub(super) fn upstream(&mut self, name: &str, at: &FieldPath, missing: &str) -> Option<Arc<Upstream>> {
        let upstream = self.upstreams.get(&UpstreamName::from(name)).map(Arc::clone);
        if upstream.is_none() {
            self.no_upstream(name, at, missing);
        }
        upstream
    }

    /// Says that there is no such upstream, unless it is there and merely wrong.
    fn no_upstream(&mut self, name: &str, at: &FieldPath, missing: &str) {
        let entries = self.source.root.get("upstreams").map(Node::entries).unwrap_or_default();
        if entries.iter().any(|(key, _)| &*key.text == name) {
            return;
        }
        let error = SpecError::new(at.clone(), missing);
        let mut diagnostic = self.source.error(&error).label(format!("no upstream is named `{name}`"));
        let near = suggest::closest(name, entries.iter().map(|(key, _)| &*key.text));
        if let Some((key, _)) = entries.iter().find(|(key, _)| Some(&*key.text) == near) {
            let line = self.source.line_of(key.file, key.span);
            diagnostic = diagnostic.help(format!("did you mean `{}` (defined at {line})?", key.text));
        } else if entries.is_empty() {
            diagnostic =
                diagnostic.help(format!("add `upstreams: {{ {name}: {{ endpoints: [http://127.0.0.1:3000] }} }}`"));
        } else {
            diagnostic = diagnostic
                .help(format!("the upstreams are {}", suggest::listed(entries.iter().map(|(key, _)| &*key.text))));
        }
        self.wrong.push(diagnostic);
    }

    /// Where the gateway stands: what is written, else what the environment says.
    fn locality(&self) -> LocalitySpec {
        let said = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let LocalitySpec { zone, region } = self.document.locality.clone();
        LocalitySpec { zone: zone.or_else(|| said("PYLON_ZONE")), region: region.or_else(|| said("PYLON_REGION")) }
    }
}

/// The nearer timers, and where they say nothing, the farther.
fn layered(near: Option<&TimeoutSpec>, far: Option<&TimeoutSpec>) -> Option<TimeoutSpec> {
    let (Some(near), Some(far)) = (near, far) else { return near.or(far).cloned() };
    Some(TimeoutSpec {
        connect: near.connect.or(far.connect),
        first_byte: near.first_byte.or(far.first_byte),
        response: near.response.or(far.response),
        idle: near.idle.or(far.idle),
        total: near.total.or(far.total),
        header: near.header.as_ref().or(far.header.as_ref()).cloned(),
    })
}
