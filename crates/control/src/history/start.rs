//! What a start serves: the document, or a revision in its place.

use std::path::Path;

use pylon_config::diagnostic::Diagnostic;
use pylon_config::plan::PlainSecrets;

use super::{Store, hash_of_files};
use crate::prepare::{self, Origin, Prepared, revived};

/// What a start serves.
#[derive(Debug)]
pub struct Chosen {
    /// The document, prepared.
    pub prepared: Prepared,
    /// Why it is that one.
    pub because: Because,
}

/// Why a start serves what it serves.
#[derive(Debug, Default)]
pub enum Because {
    /// The document is fine.
    #[default]
    Document,
    /// It was rolled back to this revision, and the files have not changed since.
    RolledBack(u64),
    /// The document cannot be used, for these reasons; this revision is the last good one.
    LastGood(u64, Vec<Diagnostic>),
}

/// Chooses. What is wrong with the document is an error where no revision can stand in for it.
pub fn choose(path: &Path, secrets: PlainSecrets, store: Option<&Store>) -> Result<Chosen, Vec<Diagnostic>> {
    let state = store.map(|store| store.folder().to_owned());
    let origin = Origin { path: Some(path.to_owned()), secrets, state };
    if let Some(chosen) = store.and_then(|store| rolled_back(path, &origin, store)) {
        return Ok(chosen);
    }
    let wrong = match prepare::at(path, origin.clone()) {
        Ok(prepared) => return Ok(Chosen { prepared, because: Because::Document }),
        Err(wrong) => wrong,
    };
    match store.and_then(|store| last_good(&origin, store)) {
        Some((number, prepared)) => Ok(Chosen { prepared, because: Because::LastGood(number, wrong) }),
        None => Err(wrong),
    }
}

fn rolled_back(path: &Path, origin: &Origin, store: &Store) -> Option<Chosen> {
    let newest = store.newest().ok()??;
    if !newest.stands_over(&hash_of_files(path)?) {
        return None;
    }
    let prepared = newest.source().and_then(|source| revived(source, origin.clone()));
    match prepared {
        Ok(prepared) => Some(Chosen { prepared, because: Because::RolledBack(newest.number) }),
        Err(_) => {
            tracing::warn!(revision = newest.number, "the revision that was rolled back to cannot be used any more");
            None
        }
    }
}

fn last_good(origin: &Origin, store: &Store) -> Option<(u64, Prepared)> {
    for entry in store.entries().ok()? {
        let number = entry.number;
        match entry.revision {
            Err(error) => tracing::warn!(%error, "a revision is passed over"),
            Ok(revision) => match revision.source().and_then(|source| revived(source, origin.clone())) {
                Ok(prepared) => return Some((number, prepared)),
                Err(_) => tracing::warn!(revision = number, "a revision is passed over: it cannot be used any more"),
            },
        }
    }
    None
}
