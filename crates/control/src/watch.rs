//! Looks after the files of the document, and asks for a reload when what they hold has changed.
//!
//! Twice a second the files are looked at, and those of a folder are listed anew. A look costs one call for each file: its
//! device, number, length and times. These change with every way of writing: in place, by a rename, by a link that leads
//! elsewhere, by taking away and writing again. A change counts once the next look, which is sooner then, found the same, so
//! that a file that is still being written is left alone; and only if the content has changed, too.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pylon_config::load::{Source, paths};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::history::start::Because;
use crate::prepare::Prepared;
use crate::reload::{Cause, Reloader, Who};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How long files must rest after a change.
const REST: Duration = Duration::from_millis(250);

/// What the files held when they were read last.
#[derive(Debug)]
pub(crate) struct Seen(AtomicU64);

impl Seen {
    /// Of the document that the process starts with. Where a revision stands in for the files, what they hold now is
    /// known already, and only a change of it counts.
    pub(crate) fn of(prepared: &Prepared, because: &Because) -> Self {
        match (because, &prepared.origin.path) {
            (Because::LastGood(..) | Because::RolledBack(_), Some(path)) => Self(AtomicU64::new(content(path))),
            _ => Self::read(&prepared.source),
        }
    }

    /// Of files that have been read.
    fn read(source: &Source) -> Self {
        let files = source.files.iter().map(|file| (file.path.as_path(), Some(file.text.as_bytes())));
        Self(AtomicU64::new(hash(files)))
    }

    /// Notes what the files hold now. To be called before they are read for good: what changes in between is seen then.
    pub(crate) fn note(&self, path: &Path) {
        self.0.store(content(path), Ordering::Relaxed);
    }

    fn is(&self, content: u64) -> bool {
        self.0.load(Ordering::Relaxed) == content
    }
}

/// Looks after the files at `path` until the answer is aborted.
pub(crate) fn follow(control: &Handle, path: PathBuf, seen: Arc<Seen>, reloader: Reloader) -> AbortHandle {
    let mut watch = Watch::default();
    let watching = control.spawn(async move {
        loop {
            tokio::time::sleep(if watch.rests() { LOOK } else { REST }).await;
            let (path, seen) = (path.clone(), Arc::clone(&seen));
            // Files may stand on a disk that is slow.
            let looked = tokio::task::spawn_blocking(move || {
                let has_changed = watch.look(stamps(&path)) && !seen.is(content(&path));
                (watch, has_changed)
            });
            let Ok((next, has_changed)) = looked.await else { return };
            watch = next;
            if has_changed {
                reloader.ask(Cause { who: Who::File, why: None });
            }
        }
    });
    watching.abort_handle()
}

/// What tells two states of a file apart: device, number, length, and the times of its last changes.
type Stamp = (u64, u64, u64, [i64; 4]);

/// The files, each with its stamp where it is there.
type Stamps = Vec<(PathBuf, Option<Stamp>)>;

/// What the last looks found.
#[derive(Debug, Default)]
struct Watch {
    last: Option<Stamps>,
    settled: Option<Stamps>,
}

impl Watch {
    /// Whether nothing has changed since the last change that counted.
    fn rests(&self) -> bool {
        self.last == self.settled
    }

    /// Whether there is a change that has come to rest.
    fn look(&mut self, now: Stamps) -> bool {
        let rests = self.last.as_ref() == Some(&now);
        let is_news = rests && self.settled != self.last;
        if is_news {
            self.settled = Some(now.clone());
        }
        self.last = Some(now);
        is_news
    }
}

fn stamps(path: &Path) -> Stamps {
    let files = paths(path).unwrap_or_default();
    let stamp = |path: PathBuf| {
        let stamp = fs::metadata(&path).ok().map(|file| {
            let times = [file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()];
            (file.dev(), file.ino(), file.size(), times)
        });
        (path, stamp)
    };
    files.into_iter().map(stamp).collect()
}

/// A number for what the files hold; not for comparing with another process's.
fn content(path: &Path) -> u64 {
    let files: Vec<_> = paths(path).unwrap_or_default().into_iter().map(|path| (fs::read(&path).ok(), path)).collect();
    hash(files.iter().map(|(bytes, path)| (path.as_path(), bytes.as_deref().map(without_mark))))
}

/// What is read of a file: a byte order mark is no part of it.
fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes)
}

fn hash<'f>(files: impl Iterator<Item = (&'f Path, Option<&'f [u8]>)>) -> u64 {
    let mut hasher = DefaultHasher::new();
    files.for_each(|file| file.hash(&mut hasher));
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(modified: i64) -> Stamps {
        vec![("a.yaml".into(), Some((0, 0, 0, [modified, 0, 0, 0])))]
    }

    #[test]
    fn a_change_counts_when_two_looks_in_a_row_find_the_same_and_only_once() {
        let mut watch = Watch::default();
        let looks = [(1, false), (1, true), (1, false), (2, false), (3, false), (4, false), (4, true), (4, false)];
        for (modified, counts) in looks {
            assert_eq!(watch.look(at(modified)), counts, "{modified}");
            // The look behind a change is the sooner one.
            assert_eq!(watch.rests(), counts || watch.settled == Some(at(modified)), "{modified}");
        }
        // Away for a moment, as an editor does it, and back.
        assert!(!watch.look(Vec::new()) && !watch.look(at(4)) && !watch.look(at(4)));
    }

    #[test]
    fn what_was_read_is_known_again_and_anything_else_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        fs::write(&file, "\u{feff}routes: []\n").unwrap();
        for path in [folder.path(), &file] {
            let seen = Seen::read(&Source::read(path).unwrap());
            assert!(seen.is(content(path)));
            fs::write(&file, "routes: [ ]\n").unwrap();
            assert!(!seen.is(content(path)));
            fs::remove_file(&file).unwrap();
            assert!(!seen.is(content(path)));
            seen.note(path);
            assert!(seen.is(content(path)));
            fs::write(&file, "routes: []\n").unwrap();
        }
    }
}
