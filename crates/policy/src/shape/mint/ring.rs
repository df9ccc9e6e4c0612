//! The keys that sign and how they are replaced. Time is an argument.
//!
//! Keys that a document names stay as they are. Those that the gateway makes come one after the other: a new one is published for `lead`
//! before it signs, so that whoever checks tokens has it by then, and the one before stays published until its last token has ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pylon_core::carry::Carry;
use serde_json::Value;

use super::issuer::Issuer;
use super::key::Key;
use super::spec::{MadeSpec, MintSpec};

/// For how long those who check tokens may keep the set.
pub(super) const FRESH: Duration = Duration::from_secs(300);
/// How far clocks may differ: for so long a key stays published after its last token has ended.
pub(super) const LEEWAY: Duration = Duration::from_secs(60);

/// The keys of one issuer by one source.
#[derive(Debug)]
pub(super) struct Ring {
    issuer: Arc<Issuer>,
    /// How long tokens live.
    ttl: Duration,
    kept: Kept,
}

#[derive(Debug)]
enum Kept {
    /// Keys of the document, the first of which signs.
    Given(Box<[Arc<Key>]>),
    /// Keys that the gateway makes.
    Made(Mutex<Rotation>),
}

/// Keys that follow each other.
#[derive(Debug)]
pub(super) struct Rotation {
    kind: MadeSpec,
    every: Duration,
    ttl: Duration,
    signing: Arc<Key>,
    since: Instant,
    /// The one that is next, published since then.
    next: Option<(Arc<Key>, Instant)>,
    /// Those before, each until then.
    past: Vec<(Arc<Key>, Instant)>,
}

impl Ring {
    /// The living ring of this issuer, or a new one. `keys` are those that the document names.
    pub(super) fn find(
        spec: &MintSpec,
        keys: Vec<Key>,
        issuer: &Arc<Issuer>,
        carry: &Carry,
    ) -> Result<Arc<Self>, &'static str> {
        let (ttl, kind, every) = (spec.ttl.duration(), spec.algorithm.unwrap_or_default(), spec.rotation().duration());
        let kids: Vec<&str> = keys.iter().map(Key::kid).collect();
        let name = match kids.as_slice() {
            [] => format!("mint {} {ttl:?} {kind:?} {every:?}", spec.issuer),
            kids => format!("mint {} {ttl:?} {}", spec.issuer, kids.join(" ")),
        };
        if let Some(ring) = carry.living::<Self>(&name) {
            return Ok(ring);
        }
        let kept = if keys.is_empty() {
            let now = tokio::time::Instant::now().into_std();
            Kept::Made(Mutex::new(Rotation::new(kind, every, ttl, now)?))
        } else {
            Kept::Given(keys.into_iter().map(Arc::new).collect())
        };
        let ring = Arc::new(Self { issuer: Arc::clone(issuer), ttl, kept });
        issuer.add(&ring);
        carry.hold(name, &ring);
        Ok(ring)
    }

    /// The key that signs now.
    pub(super) fn signing(&self, now: Instant) -> Result<Arc<Key>, &'static str> {
        match &self.kept {
            Kept::Given(keys) => keys.first().map(Arc::clone).ok_or("there is no key"),
            Kept::Made(rotation) => {
                let mut rotation = rotation.lock();
                rotation.turn(now)?;
                Ok(Arc::clone(&rotation.signing))
            }
        }
    }

    /// The public halves of all keys by which a token may be signed or may have been, and for how long that may be relied on.
    pub(super) fn public(&self, now: Instant) -> (Vec<Value>, Duration) {
        match &self.kept {
            Kept::Given(keys) => (keys.iter().map(|key| key.public().clone()).collect(), FRESH),
            Kept::Made(rotation) => {
                let mut rotation = rotation.lock();
                // Where no key can be made, those at hand go on.
                let _as_before = rotation.turn(now).is_err();
                (rotation.published().map(|key| key.public().clone()).collect(), rotation.lead())
            }
        }
    }
}

impl Drop for Ring {
    /// Tokens that its keys have signed are still about.
    fn drop(&mut self) {
        let now = tokio::time::Instant::now().into_std();
        let (keys, _) = self.public(now);
        self.issuer.retire(keys, now + self.ttl + LEEWAY);
    }
}

impl Rotation {
    pub(super) fn new(kind: MadeSpec, every: Duration, ttl: Duration, now: Instant) -> Result<Self, &'static str> {
        let signing = Arc::new(Key::make(kind)?);
        Ok(Self { kind, every, ttl, signing, since: now, next: None, past: Vec::new() })
    }

    /// For how long a key is published before it signs.
    fn lead(&self) -> Duration {
        FRESH.min(self.every / 4)
    }

    /// Does what is due.
    pub(super) fn turn(&mut self, now: Instant) -> Result<(), &'static str> {
        self.past.retain(|(_, until)| *until > now);
        let (due, lead) = (self.since + self.every, self.lead());
        match &self.next {
            None if now + lead >= due => self.next = Some((Arc::new(Key::make(self.kind)?), now)),
            Some((next, published)) if now >= due && now >= *published + lead => {
                let before = std::mem::replace(&mut self.signing, Arc::clone(next));
                self.past.push((before, now + self.ttl + LEEWAY));
                (self.next, self.since) = (None, now);
            }
            _ => {}
        }
        Ok(())
    }

    /// All keys that are published: the one that signs, the next, and those before.
    pub(super) fn published(&self) -> impl Iterator<Item = &Arc<Key>> {
        let next = self.next.iter().map(|(key, _)| key);
        std::iter::once(&self.signing).chain(next).chain(self.past.iter().map(|(key, _)| key))
    }
}
