//! The certificates of a listener: chosen by name in the handshake, read again from disk when their files change.
//!
//! A wildcard stands for exactly one label (RFC 9525 §6.3). A pair of files that cannot be used, since it is being
//! written or broken, leaves the one before in place. Files are followed through links, so that a volume whose links
//! are swapped is seen.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::chain::{self, Chain, Trouble};
use super::spec::CertificateSpec;

/// How long a file must have been left alone before an unchanged time of change is believed: the clocks of file systems are
/// coarse.
const SETTLED: Duration = Duration::from_secs(2);

/// All certificates of a listener.
#[derive(Debug)]
pub struct Certificates {
    pairs: Vec<Pair>,
    by_name: ArcSwap<ByName>,
}

/// What stands in a file, as it is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    /// The file that it came from.
    pub file: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// The names that it is for.
    pub names: Vec<String>,
    /// When it ends, or the first of its parts, in seconds since 1970.
    pub expires: i64,
    /// Why what is now in the files is not in force, if it is not.
    pub trouble: Option<String>,
}

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A certificate that the listener shows.
    Certificate,
    /// The roots by which clients are verified.
    Roots,
    /// The certificates of clients that are revoked.
    Revocations,
}

/// What a look at the files has brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// What stands in the file now is in force from the next handshake on.
    Renewed(PathBuf),
    /// The files changed but cannot be used; what was read before stays in force.
    Refused(PathBuf, String),
}

#[derive(Debug)]
struct Pair {
    cert: PathBuf,
    key: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    chain: Chain,
    seen: [Stamp; 2],
    trouble: Option<Trouble>,
}

/// Tells whether a file has changed; none where it cannot be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp(Option<(u64, u64, u64, Duration)>);

/// What the handshake chooses from.
#[derive(Debug, Default)]
struct ByName {
    exact: HashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
    /// By what stands behind `*.`.
    wildcard: HashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
    all: Vec<Arc<CertifiedKey>>,
}

impl Certificates {
    /// Reads all pairs. What cannot be used is told with its place in the list.
    pub(crate) fn load(specs: &[CertificateSpec]) -> Result<Self, Vec<(usize, Trouble)>> {
        let mut pairs = Vec::new();
        let mut wrong = Vec::new();
        for (index, spec) in specs.iter().enumerate() {
            let seen = [Stamp::of(&spec.cert), Stamp::of(&spec.key)];
            match chain::read(&spec.cert, &spec.key) {
                Ok(chain) => {
                    let state = Mutex::new(State { chain, seen, trouble: None });
                    pairs.push(Pair { cert: spec.cert.clone(), key: spec.key.clone(), state });
                }
                Err(trouble) => wrong.push((index, trouble)),
            }
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let by_name = ArcSwap::from_pointee(ByName::of(&pairs));
        Ok(Self { pairs, by_name })
    }

    /// Looks at the files, and takes in what is new. `now` is the time since 1970. Reads disks: not for a worker.
    pub fn refresh(&self, now: Duration) -> Vec<Change> {
        let changes: Vec<_> = self.pairs.iter().filter_map(|pair| pair.refresh(now)).collect();
        if changes.iter().any(|change| matches!(change, Change::Renewed(_))) {
            self.by_name.store(Arc::new(ByName::of(&self.pairs)));
        }
        changes
    }

    /// What is in force, in the order of the document.
    pub fn in_force(&self) -> Vec<InForce> {
        let view = |pair: &Pair| {
            let state = pair.state.lock();
            InForce {
                file: pair.cert.clone(),
                kind: Kind::Certificate,
                names: state.chain.names.iter().map(ToString::to_string).collect(),
                expires: state.chain.expires,
                trouble: state.trouble.clone(),
            }
        };
        self.pairs.iter().map(view).collect()
    }
}

impl Pair {
    fn refresh(&self, now: Duration) -> Option<Change> {
        let mut state = self.state.lock();
        let seen = [Stamp::of(&self.cert), Stamp::of(&self.key)];
        if seen == state.seen && seen.iter().all(|stamp| stamp.is_settled(now)) {
            return None;
        }
        let changed = seen != state.seen;
        state.seen = seen;
        match chain::read(&self.cert, &self.key) {
            Ok(chain) => {
                state.trouble = None;
                let same = state.chain.key.cert == chain.key.cert;
                state.chain = chain;
                (!same).then(|| Change::Renewed(self.cert.clone()))
            }
            Err(trouble) => {
                let told = state.trouble.as_ref() == Some(&trouble) && !changed;
                state.trouble = Some(trouble.clone());
                (!told).then(|| Change::Refused(self.cert.clone(), trouble))
            }
        }
    }
}

impl Stamp {
    pub(super) fn of(path: &Path) -> Self {
        let changed = |file: &Metadata| Duration::new(file.mtime().max(0) as u64, file.mtime_nsec() as u32);
        Self(std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino(), file.len(), changed(&file))))
    }

    pub(super) fn is_settled(self, now: Duration) -> bool {
        self.0.is_none_or(|(.., changed)| now.saturating_sub(changed) > SETTLED)
    }
}

impl ByName {
    fn of(pairs: &[Pair]) -> Self {
        let mut by_name = Self::default();
        for pair in pairs {
            let chain = pair.state.lock().chain.clone();
            for name in &chain.names {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut by_name.wildcard, parent),
                    None => (&mut by_name.exact, &**name),
                };
                map.entry(name.into()).or_default().push(Arc::clone(&chain.key));
            }
            by_name.all.push(chain.key);
        }
        by_name
    }

    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let name = name.map(str::to_ascii_lowercase);
        let exact = name.as_deref().and_then(|name| self.exact.get(name));
        let wildcard = || self.wildcard.get(name.as_deref()?.split_once('.')?.1);
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        let of = |keys: &[Arc<CertifiedKey>]| keys.iter().find(fits).cloned();
        let chosen = exact.and_then(|keys| of(keys)).or_else(|| wildcard().and_then(|keys| of(keys)));
        // Where none fits, the handshake fails by one that does not: then the alert says why.
        chosen.or_else(|| of(&self.all)).or_else(|| self.all.first().cloned())
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.by_name.load().choose(hello.server_name(), hello.signature_schemes())
    }
}

#[cfg(test)]
mod tests;
