//! The history of documents: each that was put in force is a revision with a number, kept as it was written.
//!
//! A state folder holds the last [`KEPT`] revisions, one file each, readable by its owner alone. A revision that has been
//! acknowledged is on disk: it was written beside, synced, renamed, and the folder synced. Secrets stay the references that
//! they are in the document. Processes that share a folder take turns.

mod disk;
mod form;
pub mod keeper;
pub mod start;
mod store;

use std::path::{Path, PathBuf};

use pylon_config::diagnostic::Diagnostic;
use pylon_config::load::{Source, SourceFile};
use serde::{Deserialize, Serialize};

pub use form::Damage;
pub use store::{Entry, Store, StoreError};

/// How many revisions are kept.
pub const KEPT: usize = 50;

/// A document as it was put in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revision {
    /// Its number: one more than that before.
    pub number: u64,
    /// The hash of its content, as the admin API and metrics tell it.
    pub hash: String,
    /// When it came into force (RFC 3339).
    pub at: String,
    /// Who did it.
    pub who: String,
    /// Why, in their words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Of a rollback: the hash of the files that it stands over, for as long as they stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<String>,
    /// Where the files of the gateway stand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<PathBuf>,
    /// The files, as they were written.
    pub files: Vec<Filed>,
}

/// One file of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filed {
    /// Its path, as it was read.
    pub name: PathBuf,
    /// Its text.
    pub text: String,
}

/// What is to become a revision.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The hash of its content.
    pub hash: String,
    /// Who wants it.
    pub who: String,
    /// Why, in their words.
    pub why: Option<String>,
    /// Of a rollback: the hash of the files that it stands over.
    pub over: Option<String>,
    /// Where the files of the gateway stand.
    pub document: Option<PathBuf>,
    /// The files.
    pub files: Vec<Filed>,
}

impl Draft {
    /// Of a document that was read from `document`.
    pub fn of(source: &Source, document: Option<&Path>, who: impl Into<String>, why: Option<String>) -> Self {
        Self {
            hash: pylon_config::compile::hash(source),
            who: who.into(),
            why,
            over: None,
            document: document.map(absolute),
            files: source.files.iter().map(|file| Filed { name: file.path.clone(), text: file.text.clone() }).collect(),
        }
    }

    /// That puts an older revision in force again, over the files as they are now.
    pub fn rollback(to: &Revision, newest: &Revision, who: impl Into<String>, why: Option<String>) -> Self {
        let document = newest.document.clone().or_else(|| to.document.clone());
        let now = document.as_deref().and_then(hash_of_files);
        // Where the files cannot be read, they count as those that were applied last.
        let over = now.or_else(|| newest.over.clone()).unwrap_or_else(|| newest.hash.clone());
        Self {
            hash: to.hash.clone(),
            who: who.into(),
            why: Some(match why {
                Some(why) => format!("rollback to revision {}: {why}", to.number),
                None => format!("rollback to revision {}", to.number),
            }),
            over: Some(over),
            document,
            files: to.files.clone(),
        }
    }
}

impl Revision {
    /// The document, to be compiled.
    pub fn source(&self) -> Result<Source, Vec<Diagnostic>> {
        let files = self.files.iter().map(|file| SourceFile { path: file.name.clone(), text: file.text.clone() });
        Source::from_files(files.collect())
    }

    /// Whether it stands in place of these files, because it was rolled back to while they were the same.
    pub fn stands_over(&self, files: &str) -> bool {
        self.over.as_deref() == Some(files)
    }
}

/// The hash of the files at `path` as they are now, whether they make a document or not; none where they cannot be read.
pub(crate) fn hash_of_files(path: &Path) -> Option<String> {
    let files = pylon_config::load::files(path).ok()?;
    Some(pylon_config::compile::hash_of(&files))
}

/// The path as it is found from any folder.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
