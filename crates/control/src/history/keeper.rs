//! The history of the gateway that runs: records what comes into force, and knows which revision that is.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pylon_config::load::Source;
use pylon_observe::reloads::Reloads;
use serde::Serialize;

use super::start::Because;
use super::{Draft, Revision, Store};
use crate::prepare::Prepared;

/// How long a revision may take to be written before the gateway goes on without.
const PATIENCE: Duration = Duration::from_secs(5);

/// The history that a gateway is started with.
#[derive(Debug, Default)]
pub struct Past {
    /// The state folder, where there is one.
    pub store: Option<Store>,
    /// Why the document that it starts with is that one.
    pub because: Because,
}

/// What serves, as far as the history knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct InForce {
    /// The number of the revision; none where no history is kept, or where it could not be written.
    pub(crate) revision: Option<u64>,
    /// In place of what, if the document on disk is not what serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) in_place_of: Option<&'static str>,
}

/// Keeps the history.
#[derive(Debug)]
pub(crate) struct Keeper {
    store: Option<Store>,
    document: Option<PathBuf>,
    in_force: Mutex<InForce>,
    /// Tells other programs that this one runs, for as long as it lives.
    _presence: Option<File>,
}

impl Keeper {
    /// For a gateway that starts with this, and whose admin API listens at `admin`.
    pub(crate) async fn start(past: Past, prepared: &Prepared, admin: Option<SocketAddr>) -> Self {
        let Past { store, because } = past;
        let presence = store.as_ref().and_then(|store| {
            let told = tell_presence(store, admin);
            told.inspect_err(|error| tracing::warn!(%error, "other programs cannot tell that this gateway runs")).ok()
        });
        let (revision, in_place_of) = match because {
            Because::Document => (None, None),
            // It is in the history already, and stands there as what it is.
            Because::RolledBack(number) => (Some(number), Some(ROLLED_BACK)),
            Because::LastGood(number, _) => (Some(number), Some(BROKEN)),
        };
        let in_force = Mutex::new(InForce { revision, in_place_of });
        let keeper = Self { store, document: prepared.origin.path.clone(), in_force, _presence: presence };
        let told = &prepared.lasting.metrics.reloads;
        match because {
            Because::Document => keeper.applied(&prepared.source, "start".to_owned(), None, told).await,
            Because::RolledBack(_) => keeper.tell(told, false),
            Because::LastGood(..) => {
                told.refused();
                keeper.tell(told, false);
            }
        }
        keeper
    }

    /// The state folder.
    pub(crate) fn store(&self) -> Option<&Store> {
        self.store.as_ref()
    }

    /// What serves.
    pub(crate) fn in_force(&self) -> InForce {
        self.in_force.lock().clone()
    }

    /// Of a document that has come into force from its files.
    pub(crate) async fn applied(&self, source: &Source, who: String, why: Option<String>, told: &Reloads) {
        self.in_force.lock().in_place_of = None;
        let draft = Draft::of(source, self.document.as_deref(), who, why);
        self.append(draft, told).await;
    }

    /// Of a revision that was put in force again.
    pub(crate) async fn rolled_back(&self, draft: Draft, told: &Reloads) {
        self.in_force.lock().in_place_of = Some(ROLLED_BACK);
        self.append(draft, told).await;
    }

    /// Writes on another thread, for disks may be slow. What cannot be written is told and serves all the same.
    async fn append(&self, draft: Draft, told: &Reloads) {
        let Some(store) = self.store.clone() else {
            self.tell(told, false);
            return;
        };
        let writing = tokio::task::spawn_blocking(move || store.append(draft));
        let problem = match tokio::time::timeout(PATIENCE, writing).await {
            Ok(Ok(Ok(revision))) => {
                self.in_force.lock().revision = Some(revision.number);
                tracing::info!(revision = revision.number, document = revision.hash, "kept in the history");
                self.tell(told, false);
                return;
            }
            Ok(Ok(Err(error))) => causes(&error),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("it is not written after {} s", PATIENCE.as_secs()),
        };
        self.in_force.lock().revision = None;
        tracing::error!(problem, "the document in force is not in the history: a restart may not find it");
        self.tell(told, true);
    }

    fn tell(&self, told: &Reloads, unsaved: bool) {
        let in_force = self.in_force();
        told.revision(in_force.revision.unwrap_or(0), unsaved, in_force.in_place_of.is_some());
    }
}

const BROKEN: &str = "a document that cannot be used";
const ROLLED_BACK: &str = "a document that was rolled back";

/// A gateway that runs with a state folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    /// Where its admin API listens, if it does.
    pub admin: Option<SocketAddr>,
}

/// The gateway that runs with this folder, if one does.
pub fn running(store: &Store) -> std::io::Result<Option<Running>> {
    let mut file = match File::open(presence(store)) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            Ok(Some(Running { admin: text.trim().parse().ok() }))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Holds a shared lock, which the gateway before and the one that takes over from it may both have.
fn tell_presence(store: &Store, admin: Option<SocketAddr>) -> std::io::Result<File> {
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(presence(store))?;
    file.try_lock_shared().map_err(std::io::Error::from)?;
    let text = admin.map_or_else(|| "-\n".to_owned(), |admin| format!("{admin}\n"));
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(text.as_bytes())?;
    Ok(file)
}

fn presence(store: &Store) -> PathBuf {
    store.folder().join("running")
}

/// An error with its causes.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

/// What a revision becomes on its way back into force.
#[derive(Debug)]
pub(crate) struct Rollback {
    pub(crate) revision: Arc<Revision>,
    pub(crate) draft: Draft,
}
