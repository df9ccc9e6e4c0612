//! Who clients must be: the roots and revocation lists by which their certificates are verified, read again from disk when
//! their files change.
//!
//! Where lists are given, each issuer between a client and its root must have one that has not run out (RFC 5280 §6.3):
//! what is not known to be good is refused.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::certificates::{Change, InForce, Kind, Stamp};
use super::chain::{self, Trouble};
use super::provider;
use super::spec::ClientCertSpec;

/// The client certificates that are asked for.
#[derive(Debug)]
pub(crate) struct Clients {
    spec: ClientCertSpec,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    read: Read,
    seen: Vec<Stamp>,
    trouble: Option<Trouble>,
}

/// What stands in the files.
#[derive(Debug)]
struct Read {
    roots: Vec<CertificateDer<'static>>,
    lists: Vec<CertificateRevocationListDer<'static>>,
    /// When the first of the roots ends, and the first of the lists runs out, in seconds since 1970.
    ends: i64,
    runs_out: i64,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Clients {
    /// Reads the files. What cannot be used is told with its key.
    pub(crate) fn load(spec: &ClientCertSpec) -> Result<Self, (&'static str, Trouble)> {
        let seen = stamps(spec);
        let state = Mutex::new(State { read: Read::of(spec)?, seen, trouble: None });
        Ok(Self { spec: spec.clone(), state })
    }

    /// What verifies a client now.
    pub(crate) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.state.lock().read.verifier)
    }

    /// Looks at the files, and takes in what is new. `now` is the time since 1970. Reads disks: not for a worker.
    pub(crate) fn refresh(&self, now: Duration) -> Option<Change> {
        let mut state = self.state.lock();
        let seen = stamps(&self.spec);
        if seen == state.seen && seen.iter().all(|stamp| stamp.is_settled(now)) {
            return None;
        }
        let changed = seen != state.seen;
        state.seen = seen;
        match Read::of(&self.spec) {
            Ok(read) => {
                state.trouble = None;
                let same = state.read.roots == read.roots && state.read.lists == read.lists;
                state.read = read;
                (!same).then(|| Change::Renewed(self.spec.ca.clone()))
            }
            Err((_, trouble)) => {
                let told = state.trouble.as_ref() == Some(&trouble) && !changed;
                state.trouble = Some(trouble.clone());
                (!told).then(|| Change::Refused(self.spec.ca.clone(), trouble))
            }
        }
    }

    /// What is in force: the roots, and the lists if there are any.
    pub(crate) fn in_force(&self) -> Vec<InForce> {
        let state = self.state.lock();
        let view = |file: &PathBuf, kind, expires| InForce {
            file: file.clone(),
            kind,
            names: Vec::new(),
            expires,
            trouble: state.trouble.clone(),
        };
        let roots = view(&self.spec.ca, Kind::Roots, state.read.ends);
        let lists = self.spec.crl.as_ref().map(|crl| view(crl, Kind::Revocations, state.read.runs_out));
        std::iter::once(roots).chain(lists).collect()
    }
}

impl Read {
    fn of(spec: &ClientCertSpec) -> Result<Self, (&'static str, Trouble)> {
        let at_ca = |trouble| ("ca", trouble);
        let roots = chain::certificates(&spec.ca).map_err(at_ca)?;
        let (store, ends) = chain::store(&spec.ca, &roots).map_err(at_ca)?;
        let lists = spec.crl.as_deref().map(chain::revocations).transpose();
        let (lists, runs_out) = lists.map_err(|trouble| ("crl", trouble))?.unwrap_or_default();
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider());
        let builder = if spec.required { builder } else { builder.allow_unauthenticated() };
        let builder = if lists.is_empty() { builder } else { builder.enforce_revocation_expiration() };
        let verifier = builder.with_crls(lists.iter().cloned()).build().map_err(|error| {
            let key = if spec.crl.is_some() { "crl" } else { "ca" };
            let file = spec.crl.as_ref().unwrap_or(&spec.ca);
            (key, format!("`{}` cannot be used: {error}", file.display()))
        })?;
        Ok(Self { roots, lists, ends, runs_out, verifier })
    }
}

fn stamps(spec: &ClientCertSpec) -> Vec<Stamp> {
    std::iter::once(&spec.ca).chain(&spec.crl).map(|path| Stamp::of(path)).collect()
}
