//! Keys that the gateway makes, in the state folder: so a restart, and another process that takes over, go on with them.
//!
//! `mint/` there has a file for each ring, readable by its owner alone, replaced whole and under a lock, by which two processes that run
//! beside each other take turns. It holds the private halves of the keys that sign and will sign; of those before, the public halves.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::key::Key;
use super::ring::LEEWAY;
use super::rotation::{Moment, Rotation};
use crate::replace;

/// The largest file that is read, in bytes: it has a few keys.
const LARGEST: u64 = 1 << 20;

/// The file of one ring.
#[derive(Debug)]
pub(super) struct Disk {
    folder: PathBuf,
    path: PathBuf,
    issuer: String,
}

/// What it says. Moments are seconds since 1970, spans are seconds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    pub(super) issuer: String,
    pub(super) rotate: u64,
    pub(super) ttl: u64,
    /// The key that signs.
    pub(super) signing: String,
    pub(super) since: u64,
    pub(super) next: Option<Next>,
    pub(super) past: Vec<Past>,
}

/// The key that will sign.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Next {
    pub(super) key: String,
    pub(super) published: u64,
}

/// A key that has signed.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Past {
    pub(super) key: Value,
    pub(super) until: u64,
}

impl Disk {
    /// That of the ring of this name, in this state folder. Nothing is written yet.
    pub(super) fn new(state: &Path, name: &str, issuer: &str) -> Self {
        let folder = state.join("mint");
        let hash = digest(&SHA256, name.as_bytes());
        let file = hash.as_ref().first_chunk().copied().map(u64::from_be_bytes).unwrap_or_default();
        Self { path: folder.join(format!("{file:016x}.json")), folder, issuer: issuer.to_owned() }
    }

    /// For people.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What is written, if anything is.
    pub(super) fn read(&self) -> Result<Option<Written>, String> {
        read(&self.path)
    }

    /// Does what is due, on the disk first: goes on with what is written there, and writes it if anything has changed. The error says
    /// what of it could not be done; `rotation` serves in any case.
    pub(super) fn turn(&self, rotation: &mut Rotation, now: Moment) -> Result<(), String> {
        let _turn = self.lock().map_err(|error| format!("{}: {error}", self.folder.display()))?;
        let mut changed = match self.read() {
            Ok(Some(written)) => rotation.follow(&written, now).map_err(str::to_owned),
            Ok(None) => Ok(true),
            Err(problem) => Err(problem),
        };
        if let Err(problem) = &changed {
            // It is kept for whoever wants to know how that came.
            let aside = self.path.with_extension("damaged");
            tracing::warn!(
                problem,
                aside = %aside.display(),
                "keys of `mint` cannot be read, and new ones are made: tokens signed by those before are not known any more"
            );
            fs::rename(&self.path, aside).map_err(|error| format!("{}: {error}", self.path.display()))?;
            changed = Ok(true);
        }
        if rotation.turn(now.at)? || changed.is_ok_and(|changed| changed) {
            let written = rotation.written(&self.issuer, now)?;
            let text = serde_json::to_vec_pretty(&written).map_err(|error| error.to_string())?;
            replace::whole(&self.path, &text, 0o600).map_err(|error| format!("{}: {error}", self.path.display()))?;
        }
        Ok(())
    }

    /// The public keys of other rings of this issuer, whose tokens may still be about, and for how long.
    pub(super) fn others(&self) -> Vec<(Vec<Value>, Duration)> {
        let of_issuer = |written: &Written| written.issuer == self.issuer;
        self.files().into_iter().filter_map(|path| read(&path).ok()?).filter(of_issuer).map(published).collect()
    }

    /// Takes away the files of rings that have not been used for so long that none of their tokens is about.
    pub(super) fn sweep(&self, now: Moment) {
        let Ok(_turn) = self.lock() else { return };
        for path in self.files() {
            let over = |written: Written| {
                let unused = written.rotate.saturating_mul(2).saturating_add(written.ttl);
                written.since.saturating_add(unused).saturating_add(LEEWAY.as_secs()) < now.unix
            };
            if read(&path).is_ok_and(|written| written.is_some_and(over)) {
                // What cannot be taken away now is taken away another time.
                let _ = fs::remove_file(path);
            }
        }
    }

    /// All files but its own.
    fn files(&self) -> Vec<PathBuf> {
        let all = fs::read_dir(&self.folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
        all.filter(|path| path.extension().is_some_and(|end| end == "json") && *path != self.path).collect()
    }

    /// The turn of this process, until it is dropped.
    fn lock(&self) -> io::Result<File> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let path = self.folder.join("lock");
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        file.lock()?;
        Ok(file)
    }
}

fn read(path: &Path) -> Result<Option<Written>, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Ok(meta) if meta.len() > LARGEST => return Err(wrong(&"it is larger than 1 MiB")),
        _ => {}
    }
    let bytes = fs::read(path).map_err(|error| wrong(&error))?;
    serde_json::from_slice(&bytes).map(Some).map_err(|error| wrong(&error))
}

/// All public keys, and how long the tokens of a ring that is no longer used live.
fn published(written: Written) -> (Vec<Value>, Duration) {
    let private = std::iter::once(written.signing).chain(written.next.map(|next| next.key));
    let keys = private.filter_map(|key| Some(Key::unpacked(&key).ok()?.public().clone()));
    let keys = keys.chain(written.past.into_iter().map(|past| past.key)).collect();
    (keys, Duration::from_secs(written.ttl))
}

#[cfg(test)]
mod tests {
    use super::super::spec::MadeSpec;
    use super::*;
    use std::collections::HashSet;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Instant;

    const HOUR: Duration = Duration::from_secs(3600);
    const TTL: Duration = Duration::from_secs(60);

    fn start() -> Moment {
        crate::testing::run(async { Moment::now() })
    }

    fn after(start: Moment, seconds: u64) -> Moment {
        Moment { at: start.at + Duration::from_secs(seconds), unix: start.unix + seconds }
    }

    fn fresh(now: Instant) -> Rotation {
        Rotation::new(MadeSpec::Es256, HOUR, TTL, now).unwrap()
    }

    fn kids(rotation: &Rotation, now: Moment) -> Vec<String> {
        rotation.published(now.at).map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn processes_that_follow_each_other_sign_and_publish_as_one_would() {
        let (state, start) = (tempfile::tempdir().unwrap(), start());
        let disk = || Disk::new(state.path(), "a", "gate");
        let (mut lives, mut signers) = (fresh(start.at), Vec::<String>::new());
        disk().turn(&mut lives, start).unwrap();
        for minute in 0..150 {
            let now = after(start, minute * 60);
            if lives.is_due(now.at) {
                disk().turn(&mut lives, now).unwrap();
            }
            // One that is started now has keys of its own until it has looked at the disk.
            let mut heir = fresh(now.at);
            let written = disk().read().unwrap().unwrap();
            heir = heir.kept(&written, now).unwrap();
            assert_eq!((kids(&heir, now), heir.is_due(now.at)), (kids(&lives, now), false), "minute {minute}");
            disk().turn(&mut heir, now).unwrap();
            let signer = lives.signing().kid().to_owned();
            assert_eq!(heir.signing().kid(), signer);
            if signers.last() != Some(&signer) {
                signers.push(signer);
            }
        }
        assert_eq!(signers.iter().collect::<HashSet<_>>().len(), 3, "{signers:?}");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(disk().path()), mode(&state.path().join("mint"))), (0o600, 0o700));
        // Private are the halves of what signs and what will sign, and no other.
        let written = disk().read().unwrap().unwrap();
        assert!(written.past.iter().all(|past| past.key.get("d").is_none()));
    }

    #[test]
    fn two_that_begin_at_once_sign_by_one_key_and_what_either_has_signed_stays_known() {
        let (state, now) = (tempfile::tempdir().unwrap(), start());
        let (mut one, mut other) = (fresh(now.at), fresh(now.at));
        let gone = other.signing().kid().to_owned();
        let disk = Disk::new(state.path(), "a", "gate");
        disk.turn(&mut one, now).unwrap();
        disk.turn(&mut other, now).unwrap();
        disk.turn(&mut one, now).unwrap();
        let (ours, theirs) = (kids(&one, now), kids(&other, now));
        assert_eq!(ours.iter().collect::<HashSet<_>>(), theirs.iter().collect());
        assert_eq!(one.signing().kid(), other.signing().kid());
        assert!(ours.contains(&gone));
    }

    #[test]
    fn what_cannot_be_read_is_put_aside_and_what_cannot_be_written_is_told_and_serves() {
        let (state, now) = (tempfile::tempdir().unwrap(), start());
        let disk = Disk::new(state.path(), "a", "gate");
        let mut rotation = fresh(now.at);
        disk.turn(&mut rotation, now).unwrap();
        let whole = fs::read_to_string(disk.path()).unwrap();
        let key = rotation.written("gate", now).unwrap().signing;
        let broken = ["{".to_owned(), String::new(), whole.replace(&key, "AAAA"), whole.replace("since", "sinse")];
        for text in broken {
            fs::write(disk.path(), &text).unwrap();
            let mut next = fresh(now.at);
            disk.turn(&mut next, now).unwrap();
            assert_eq!(fs::read_to_string(disk.path().with_extension("damaged")).unwrap(), text);
            assert_eq!(disk.read().unwrap().unwrap().signing, next.signing().packed().unwrap());
        }
        let file = state.path().join("file");
        fs::write(&file, "").unwrap();
        let mut alone = fresh(now.at);
        let problem = Disk::new(&file, "a", "gate").turn(&mut alone, now).unwrap_err();
        assert!(problem.contains("file/mint"), "{problem}");
        assert_eq!(kids(&alone, now).len(), 1);
    }

    #[test]
    fn a_ring_of_other_times_stays_published_until_none_of_its_tokens_is_about() {
        let (state, now) = (tempfile::tempdir().unwrap(), start());
        let mut old = fresh(now.at);
        Disk::new(state.path(), "old", "gate").turn(&mut old, now).unwrap();
        Disk::new(state.path(), "foreign", "other gate").turn(&mut fresh(now.at), now).unwrap();
        let disk = Disk::new(state.path(), "new", "gate");
        let keys = vec![old.signing().public().clone()];
        assert_eq!(disk.others(), [(keys.clone(), TTL)]);
        disk.sweep(after(now, 7000));
        assert_eq!(disk.others(), [(keys, TTL)]);
        disk.sweep(after(now, 7500));
        assert!(disk.others().is_empty() && Disk::new(state.path(), "old", "gate").read().unwrap().is_none());
    }

    #[test]
    fn a_clock_that_was_set_back_puts_nothing_off() {
        let (state, now) = (tempfile::tempdir().unwrap(), start());
        let disk = Disk::new(state.path(), "a", "gate");
        let mut rotation = fresh(now.at);
        disk.turn(&mut rotation, Moment { unix: now.unix + 1_000_000, ..now }).unwrap();
        let kept = fresh(now.at).kept(&disk.read().unwrap().unwrap(), now).unwrap();
        assert!(kept.is_due(now.at + HOUR) && !kept.is_due(now.at));
    }
}
