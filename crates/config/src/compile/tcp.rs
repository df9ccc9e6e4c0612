//! From the key `tcp` of listeners to where their connections go.

use std::collections::HashMap;
use std::sync::Arc;

use pylon_core::by_host::ByHost;
use pylon_core::host::HostPattern;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_net::spec::{self, TcpSpec};
use pylon_proxy::tcp::Tcp;
use pylon_upstream::spec::Speaks;
use pylon_upstream::upstream::Upstream;

use super::Compiler;

impl Compiler<'_> {
    /// Where connections go, by the ids of listeners.
    pub(super) fn tcp(&mut self) -> HashMap<Arc<str>, Arc<Tcp>> {
        let document = self.document;
        let ids = spec::ids(&document.listeners);
        let mut all = HashMap::new();
        for (index, (listener, id)) in document.listeners.iter().zip(ids).enumerate() {
            if let Some(tcp) = &listener.tcp {
                let at = FieldPath::root().key("listeners").index(index).key("tcp");
                all.insert(id, Arc::new(self.carried(tcp, &at)));
            }
        }
        all
    }

    fn carried(&mut self, spec: &TcpSpec, at: &FieldPath) -> Tcp {
        let forward = spec.forward.as_ref().and_then(|name| {
            // Where the short form is written there is no key `forward`; the place is then the nearest that there is.
            self.target(name, &at.clone().key("forward"))
        });
        let mut targets = vec![forward];
        let mut by_name = ByHost::default();
        for (name, upstream) in &spec.sni {
            let at = at.clone().key("sni").key(name);
            let problem = match HostPattern::parse(name) {
                Ok(HostPattern::Any) => {
                    Some("`*` is every name: write the upstream of all others as `forward`".to_owned())
                }
                Ok(pattern) => {
                    let fresh = by_name.set(pattern, targets.len());
                    (!fresh).then(|| format!("`{name}` is written twice"))
                }
                Err(error) => Some(format!("`{name}` is no name of a host: {error}")),
            };
            self.note(&at, problem.map(|problem| SpecError::new(FieldPath::root(), problem)));
            targets.push(self.target(upstream, &at));
        }
        Tcp { by_name, targets, idle: spec.idle.duration() }
    }

    fn target(&mut self, name: &str, at: &FieldPath) -> Option<Arc<Upstream>> {
        let missing = "this listener forwards to an upstream that does not exist";
        let upstream = self.upstream(name, at, missing)?;
        if upstream.speaks() == Speaks::Http {
            let problem = format!("the endpoints of `{name}` speak HTTP, and this listener does not");
            let error = SpecError::new(at.clone(), problem);
            self.note(&FieldPath::root(), [error.help("write its endpoints as `tcp://host:port`")]);
            return None;
        }
        if upstream.counts_requests() {
            let problem =
                format!("`{name}` has `concurrency`, and connections of this listener have no requests to count");
            let error = SpecError::new(at.clone(), problem);
            self.note(
                &FieldPath::root(),
                [error.help("bound them by `pool.max_connections` of an upstream of their own")],
            );
            return None;
        }
        Some(upstream)
    }
}
