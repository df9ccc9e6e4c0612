//! Keys that the gateway makes, one after the other. Time is an argument.
//!
//! A new one is published for `lead` before it signs, so that whoever checks tokens has it by then, and the one before stays published
//! until its last token has ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pylon_observe::clock::unix_now;
use serde_json::Value;

use super::disk::{Next, Past, Written};
use super::key::Key;
use super::ring::{FRESH, LEEWAY};
use super::spec::MadeSpec;

/// Keys that follow each other.
#[derive(Debug, Clone)]
pub(super) struct Rotation {
    kind: MadeSpec,
    every: Duration,
    ttl: Duration,
    signing: Arc<Key>,
    since: Instant,
    /// The one that is next, published since then.
    next: Option<(Arc<Key>, Instant)>,
    /// The public halves of those before, each until then.
    past: Vec<(Value, Instant)>,
}

/// One moment by two clocks: that of the process, and that by which files are dated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) at: Instant,
    /// Seconds since 1970.
    pub(super) unix: u64,
}

impl Rotation {
    pub(super) fn new(kind: MadeSpec, every: Duration, ttl: Duration, now: Instant) -> Result<Self, &'static str> {
        let signing = Arc::new(Key::make(kind)?);
        Ok(Self { kind, every, ttl, signing, since: now, next: None, past: Vec::new() })
    }

    /// The one that signs.
    pub(super) fn signing(&self) -> &Arc<Key> {
        &self.signing
    }

    /// For how long a key is published before it signs.
    pub(super) fn lead(&self) -> Duration {
        FRESH.min(self.every / 4)
    }

    /// Whether a key has to be made, or has to begin to sign.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let (due, lead) = (self.since + self.every, self.lead());
        match &self.next {
            None => now + lead >= due,
            Some((_, published)) => now >= due && now >= *published + lead,
        }
    }

    /// Does what is due, and says whether there was anything.
    pub(super) fn turn(&mut self, now: Instant) -> Result<bool, &'static str> {
        self.past.retain(|(_, until)| *until > now);
        if !self.is_due(now) {
            return Ok(false);
        }
        match self.next.take() {
            None => self.next = Some((Arc::new(Key::make(self.kind)?), now)),
            Some((next, _)) => {
                let before = std::mem::replace(&mut self.signing, next);
                self.since = now;
                self.retire(before.public(), now);
            }
        }
        Ok(true)
    }

    /// The public halves of all keys by which a token may be signed or may have been: of the one that signs, of the next, and of those before.
    pub(super) fn published(&self, now: Instant) -> impl Iterator<Item = &Value> {
        let next = self.next.iter().map(|(key, _)| key.public());
        let past = self.past.iter().filter(move |(_, until)| *until > now).map(|(key, _)| key);
        std::iter::once(self.signing.public()).chain(next).chain(past)
    }

    /// Goes on with what another process, or this one before, has written. Whether that lacked the key which signed here so far: then it
    /// stays published, for its tokens may be about.
    pub(super) fn follow(&mut self, written: &Written, now: Moment) -> Result<bool, &'static str> {
        let kept = self.kept(written, now)?;
        let before = std::mem::replace(self, kept).signing;
        let known = self.published(now.at).any(|key| key == before.public());
        if !known {
            self.retire(before.public(), now.at);
        }
        Ok(!known)
    }

    fn retire(&mut self, key: &Value, now: Instant) {
        self.past.push((key.clone(), now + self.ttl + LEEWAY));
    }

    /// One of the same kind and the same times, with the keys that are written.
    pub(super) fn kept(&self, written: &Written, now: Moment) -> Result<Self, &'static str> {
        let key = |text: &str| Key::unpacked(text).map(Arc::new);
        // A clock that was set back must not put off what is due.
        let began = |unix: u64| now.of(unix).min(now.at);
        let next = written.next.as_ref().map(|next| Ok::<_, &str>((key(&next.key)?, began(next.published))));
        let last = now.at + self.ttl + LEEWAY;
        let past = written.past.iter().map(|past| (past.key.clone(), now.of(past.until).min(last)));
        Ok(Self {
            signing: key(&written.signing)?,
            since: began(written.since),
            next: next.transpose()?,
            past: past.collect(),
            ..*self
        })
    }

    /// The same for a file, in the name of this issuer.
    pub(super) fn written(&self, issuer: &str, now: Moment) -> Result<Written, &'static str> {
        let next = self.next.as_ref();
        let next = next.map(|(key, at)| Ok::<_, &str>(Next { key: key.packed()?, published: now.unix_of(*at) }));
        let past = self.past.iter().map(|(key, until)| Past { key: key.clone(), until: now.unix_of(*until) });
        Ok(Written {
            issuer: issuer.to_owned(),
            rotate: self.every.as_secs(),
            ttl: self.ttl.as_secs(),
            signing: self.signing.packed()?,
            since: now.unix_of(self.since),
            next: next.transpose()?,
            past: past.collect(),
        })
    }
}

impl Moment {
    /// The present.
    pub(super) fn now() -> Self {
        Self { at: tokio::time::Instant::now().into_std(), unix: unix_now().as_secs() }
    }

    fn of(self, unix: u64) -> Instant {
        let apart = Duration::from_secs(unix.abs_diff(self.unix));
        let other = if unix > self.unix { self.at.checked_add(apart) } else { self.at.checked_sub(apart) };
        other.unwrap_or(self.at)
    }

    fn unix_of(self, at: Instant) -> u64 {
        let (before, after) = (self.at.saturating_duration_since(at), at.saturating_duration_since(self.at));
        self.unix.saturating_sub(before.as_secs()).saturating_add(after.as_secs())
    }
}
