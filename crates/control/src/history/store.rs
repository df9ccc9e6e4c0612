//! The state folder: `revisions/00000007.revision` and so on, and `lock`, by which processes take turns.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use pylon_observe::clock::{rfc3339, unix_now};

use super::disk::{Disk, System};
use super::form::{self, Damage};
use super::{Draft, KEPT, Revision};

/// How much is written at once.
const PIECE: usize = 64 * 1024;

/// A state folder.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
}

/// One revision of the folder.
#[derive(Debug)]
pub struct Entry {
    /// Its number, by the name of its file.
    pub number: u64,
    /// The revision, if it is whole.
    pub revision: Result<Revision, StoreError>,
}

/// What is wrong with a state folder.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be used.
    #[error("the state folder {0} cannot be used")]
    Folder(PathBuf, #[source] io::Error),
    /// A revision cannot be written.
    #[error("the revision cannot be written to {0}")]
    Write(PathBuf, #[source] io::Error),
    /// A revision cannot be read.
    #[error("{0} cannot be read")]
    Read(PathBuf, #[source] io::Error),
    /// A revision is not what was written.
    #[error("{0} is damaged: {1}")]
    Damaged(PathBuf, Damage),
    /// There is no such revision.
    #[error("there is no revision {0}")]
    Missing(u64),
}

impl Store {
    /// Opens a folder to write to; what is missing is made, for its owner alone.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let wrong = |error| StoreError::Folder(folder.to_owned(), error);
        let store = Self { folder: folder.to_owned() };
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(store.revisions()).map_err(wrong)?;
        // Told now rather than with the first revision.
        drop(store.lock()?);
        Ok(store)
    }

    /// Opens a folder that is there.
    pub fn existing(folder: &Path) -> Result<Self, StoreError> {
        let store = Self { folder: folder.to_owned() };
        match fs::read_dir(store.revisions()) {
            Ok(_) => Ok(store),
            Err(error) => Err(StoreError::Folder(folder.to_owned(), error)),
        }
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// All revisions, the newest first.
    pub fn entries(&self) -> Result<impl Iterator<Item = Entry> + use<'_>, StoreError> {
        let numbers = self.numbers()?;
        Ok(numbers.into_iter().rev().map(|number| Entry { number, revision: self.read(number) }))
    }

    /// The newest revision that is whole.
    pub fn newest(&self) -> Result<Option<Revision>, StoreError> {
        Ok(self.entries()?.find_map(|entry| entry.revision.ok()))
    }

    /// The revision with this number.
    pub fn read(&self, number: u64) -> Result<Revision, StoreError> {
        let path = self.path(number);
        let bytes = fs::read(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => StoreError::Missing(number),
            _ => StoreError::Read(path.clone(), error),
        })?;
        match form::read(&bytes) {
            Ok(revision) if revision.number == number => Ok(revision),
            Ok(_) => Err(StoreError::Damaged(path, Damage::Content)),
            Err(damage) => Err(StoreError::Damaged(path, damage)),
        }
    }

    /// Writes a revision and gives it once it is on the disk. Where the newest has the same content, and stands over the
    /// same files, that one is given and nothing is written.
    pub fn append(&self, draft: Draft) -> Result<Revision, StoreError> {
        self.append_by(&mut System, draft)
    }

    pub(super) fn append_by(&self, disk: &mut impl Disk, draft: Draft) -> Result<Revision, StoreError> {
        let _turn = self.lock()?;
        let numbers = self.numbers()?;
        if let Some(newest) = self.newest()?
            && newest.files == draft.files
            && newest.over == draft.over
            && numbers.last() == Some(&newest.number)
        {
            return Ok(newest);
        }
        let number = numbers.last().map_or(1, |last| last.saturating_add(1));
        let Draft { hash, who, why, over, document, files } = draft;
        let revision = Revision { number, hash, at: rfc3339(unix_now()), who, why, over, document, files };
        self.write(disk, &revision).map_err(|error| StoreError::Write(self.folder.clone(), error))?;
        let surplus = (numbers.len() + 1).saturating_sub(KEPT);
        for old in numbers.iter().take(surplus) {
            // What cannot be taken away now is taken away with the next.
            let _ = disk.remove(&self.path(*old));
        }
        Ok(revision)
    }

    fn write(&self, disk: &mut impl Disk, revision: &Revision) -> io::Result<()> {
        let bytes = form::write(revision)?;
        // Whoever died while writing has left it behind: the next one begins it anew.
        let beside = self.revisions().join(".writing");
        let written = (|| {
            let mut file = disk.create(&beside)?;
            for piece in bytes.chunks(PIECE) {
                disk.write(&mut file, piece)?;
            }
            disk.sync(&file)?;
            disk.rename(&beside, &self.path(revision.number))?;
            disk.sync_folder(&self.revisions())
        })();
        if written.is_err() {
            let _ = disk.remove(&beside);
        }
        written
    }

    /// The turn of this process, until it is dropped.
    fn lock(&self) -> Result<File, StoreError> {
        let open = || {
            let path = self.folder.join("lock");
            let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
            file.lock()?;
            Ok(file)
        };
        open().map_err(|error| StoreError::Folder(self.folder.clone(), error))
    }

    /// The numbers of all revisions, the oldest first.
    fn numbers(&self) -> Result<Vec<u64>, StoreError> {
        let folder = self.revisions();
        let wrong = |error| StoreError::Folder(self.folder.clone(), error);
        let mut numbers = Vec::new();
        for entry in fs::read_dir(folder).map_err(wrong)? {
            let name = entry.map_err(wrong)?.file_name();
            let number =
                name.to_str().and_then(|name| name.strip_suffix(".revision")).and_then(|name| name.parse::<u64>().ok());
            numbers.extend(number);
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.revisions().join(format!("{number:08}.revision"))
    }

    fn revisions(&self) -> PathBuf {
        self.folder.join("revisions")
    }
}

#[cfg(test)]
mod tests;
