//! Remembers which credentials were proved: a worker that sees one again need not prove it again.
//!
//! What is remembered is bounded in number and in time, and all of it is forgotten when what it rests on has changed: keys,
//! revocations, consumers. A credential is found by a keyed hash and then compared whole, so that nobody learns from the time
//! that takes what others have shown.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use pylon_core::caller::Caller;
use pylon_core::worker::PerWorker;

/// No proof counts for longer, whatever the credential says: who was revoked elsewhere is out after that.
pub(crate) const LONGEST: Duration = Duration::from_secs(300);

/// What a worker remembers at most, in credentials; as many again may be on their way out.
const MOST: usize = 4096;
/// The longest credential that is remembered, in bytes.
const LONGEST_CREDENTIAL: usize = 4096;

/// The credentials that were proved lately, for each worker.
#[derive(Debug, Default)]
pub(crate) struct Proofs {
    workers: PerWorker<Known>,
    by_hash: bool,
}

/// Two halves: what is found in the old one moves to the new one, and what is not is dropped with it.
#[derive(Debug, Default)]
struct Known {
    generation: u64,
    new: HashMap<Box<[u8]>, Proved>,
    old: HashMap<Box<[u8]>, Proved>,
}

#[derive(Debug, Clone)]
struct Proved {
    caller: Arc<Caller>,
    until: Instant,
}

impl Proofs {
    /// Those of which only hashes are kept.
    pub(crate) fn by_hash() -> Self {
        Self { by_hash: true, ..Self::default() }
    }

    fn key<'c>(&self, credential: &'c [u8]) -> Cow<'c, [u8]> {
        if self.by_hash { digest(&SHA256, credential).as_ref().to_vec().into() } else { credential.into() }
    }

    /// Who showed `credential` before, if that still counts at `now` under `generation`.
    pub(crate) fn find(&self, credential: &[u8], generation: u64, now: Instant) -> Option<Arc<Caller>> {
        self.workers.with(|known| known.find(&self.key(credential), generation, now))
    }

    /// Remembers who showed `credential`. It counts until `until`, and no longer than [`LONGEST`].
    pub(crate) fn keep(&self, credential: &[u8], generation: u64, caller: &Arc<Caller>, now: Instant, until: Instant) {
        if credential.len() <= LONGEST_CREDENTIAL && until > now {
            let proved = Proved { caller: Arc::clone(caller), until: until.min(now + LONGEST) };
            self.workers.with(|known| known.keep(&self.key(credential), generation, proved));
        }
    }
}

impl Known {
    fn find(&mut self, credential: &[u8], generation: u64, now: Instant) -> Option<Arc<Caller>> {
        self.renew(generation);
        if let Some(proved) = self.new.get(credential) {
            return (proved.until > now).then(|| Arc::clone(&proved.caller));
        }
        let (credential, proved) = self.old.remove_entry(credential)?;
        let caller = (proved.until > now).then(|| Arc::clone(&proved.caller))?;
        self.insert(credential, proved);
        Some(caller)
    }

    fn keep(&mut self, credential: &[u8], generation: u64, proved: Proved) {
        // What was proved before a change counts no more.
        if generation >= self.generation {
            self.renew(generation);
            self.insert(credential.into(), proved);
        }
    }

    fn insert(&mut self, credential: Box<[u8]>, proved: Proved) {
        if self.new.len() >= MOST {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(credential, proved);
    }

    fn renew(&mut self, generation: u64) {
        if generation > self.generation {
            *self = Self { generation, ..Self::default() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn somebody(subject: &str) -> Arc<Caller> {
        Arc::new(Caller { subject: subject.into(), ..Caller::default() })
    }

    #[expect(clippy::disallowed_methods, reason = "a moment to count from")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_proof_counts_until_its_end_and_five_minutes_at_most() {
        let (proofs, now) = (Proofs::default(), start());
        let secs = Duration::from_secs;
        proofs.keep(b"short", 1, &somebody("a"), now, now + secs(10));
        proofs.keep(b"long", 1, &somebody("b"), now, now + secs(100_000));
        proofs.keep(b"over", 1, &somebody("c"), now, now);
        let found =
            |credential: &[u8], after| proofs.find(credential, 1, now + secs(after)).map(|it| it.subject.clone());
        assert_eq!(found(b"short", 9).as_deref(), Some("a"));
        assert_eq!(found(b"short", 10), None);
        assert_eq!(found(b"long", 299).as_deref(), Some("b"));
        assert_eq!(found(b"long", 300), None);
        assert_eq!((found(b"over", 0), found(b"shor", 0), found(b"", 0)), (None, None, None));
    }

    #[test]
    fn nothing_outlives_the_generation_that_it_rests_on() {
        let (proofs, now) = (Proofs::default(), start());
        proofs.keep(b"x", 1, &somebody("a"), now, now + LONGEST);
        assert!(proofs.find(b"x", 1, now).is_some());
        assert!(proofs.find(b"x", 2, now).is_none());
        // Begun before the change and finished after it.
        proofs.keep(b"x", 1, &somebody("a"), now, now + LONGEST);
        assert!(proofs.find(b"x", 2, now).is_none());
    }

    #[test]
    fn where_hashes_are_kept_credentials_are_not() {
        let (proofs, now) = (Proofs::by_hash(), start());
        proofs.keep(b"secret", 1, &somebody("a"), now, now + LONGEST);
        assert!(proofs.find(b"secret", 1, now).is_some() && proofs.find(b"secre", 1, now).is_none());
        proofs.workers.with(|known| assert!(!known.new.contains_key(&b"secret"[..])));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_used_stays() {
        let (proofs, now) = (Proofs::default(), start());
        proofs.keep(b"used", 1, &somebody("u"), now, now + LONGEST);
        for number in 0..10 * MOST {
            proofs.keep(number.to_string().as_bytes(), 1, &somebody("n"), now, now + LONGEST);
            assert!(number % 100 > 0 || proofs.find(b"used", 1, now).is_some());
        }
        proofs.keep(&[b'x'; LONGEST_CREDENTIAL + 1], 1, &somebody("n"), now, now + LONGEST);
        assert!(proofs.find(&[b'x'; LONGEST_CREDENTIAL + 1], 1, now).is_none());
        proofs.workers.with(|known| assert!(known.new.len() + known.old.len() <= 2 * MOST));
    }
}
