//! API keys beside the document: in a file, or in a [store](shared) that gateways share.
//!
//! The file: `pylon keys` writes it, the gateway watches it, and who is revoked is out within a second.
//!
//! It holds hashes and never a key. What cannot be read when a document is loaded is an error; what cannot be read later leaves the
//! keys that are known in force, and is told.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Release},
};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use argon2::{Argon2, PasswordHasher as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use pylon_net::timer::sleep;
use pylon_observe::insight::SupplyReading;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use self::shared::SharedKeys;
use crate::consumers::{KeyHash, moment};
use crate::policy::Service;
use crate::replace;

pub mod shared;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// The largest file, in bytes: some 300,000 keys.
const LARGEST: u64 = 64 << 20;

/// The file as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRing {
    /// The keys, in the order in which they were made.
    pub keys: Vec<KeyRecord>,
}

/// One key in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    /// By what people tell it from others.
    pub id: String,
    /// The consumer of the document that it belongs to.
    pub consumer: String,
    /// `sha256:` and 64 hexadecimal digits.
    pub hash: String,
    /// When it was made (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// When it ends: a date or a moment by RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// What people want to know of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A key of the file, as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FiledKey {
    pub(crate) id: Box<str>,
    pub(crate) consumer: Box<str>,
    pub(crate) until: Option<u64>,
}

type Known = HashMap<KeyHash, FiledKey>;

/// Where keys are kept beside the document.
#[derive(Debug, Clone)]
pub enum KeyStore {
    /// In a file.
    File(Arc<KeyFile>),
    /// In a store that gateways share.
    Shared(Arc<SharedKeys>),
}

impl KeyStore {
    /// Counts the changes.
    pub(crate) fn generation(&self) -> u64 {
        match self {
            Self::File(file) => file.generation(),
            Self::Shared(keys) => keys.generation(),
        }
    }

    /// The key that has this hash. The error says that nobody knows, and why.
    pub(crate) fn key_by(&self, hash: &KeyHash) -> Result<Option<FiledKey>, String> {
        match self {
            Self::File(file) => Ok(file.key_by(hash)),
            Self::Shared(keys) => keys.key_by(hash),
        }
    }

    /// What it has to have done.
    pub fn service(&self) -> Arc<dyn Service> {
        match self {
            Self::File(file) => Arc::clone(file) as Arc<dyn Service>,
            Self::Shared(keys) => Arc::clone(keys) as Arc<dyn Service>,
        }
    }
}

/// The file, and what it said last.
#[derive(Debug)]
pub struct KeyFile {
    filed: Arc<Filed>,
    task: Mutex<Option<AbortHandle>>,
}

#[derive(Debug)]
struct Filed {
    path: PathBuf,
    known: ArcSwap<Known>,
    /// Rises with each change.
    generation: AtomicU64,
    stamp: Mutex<Stamp>,
    error: Mutex<Option<String>>,
    failures: AtomicU64,
}

/// By what a change is noticed.
type Stamp = Option<(SystemTime, u64)>;

/// A new key: 256 bits of chance behind a word that scanners for secrets can look for.
pub fn fresh() -> Result<String, &'static str> {
    let mut chance = [0; 32];
    aws_lc_rs::rand::fill(&mut chance).map_err(|_| "the system gives no random numbers")?;
    Ok(format!("pk_{}", URL_SAFE_NO_PAD.encode(chance)))
}

/// The hash of a password, by Argon2id at the costs that RFC 9106 and OWASP advise for logins: 19 MiB, two passes.
pub fn hash_password(password: &[u8]) -> Result<String, String> {
    let mut salt = [0; 16];
    aws_lc_rs::rand::fill(&mut salt).map_err(|_| "the system gives no random numbers".to_owned())?;
    let hash = Argon2::default().hash_password_with_salt(password, &salt);
    hash.map(|hash| hash.to_string()).map_err(|error| error.to_string())
}

impl KeyRing {
    /// Changes the file at `path`, which is made if it is not there: under a lock, whole or not at all.
    pub fn change<T>(path: &Path, change: impl FnOnce(&mut Self) -> Result<T, String>) -> Result<T, String> {
        let failed = |what: &str, error: std::io::Error| format!("{what} `{}`: {error}", path.display());
        let mut beside = path.file_name().unwrap_or_default().to_owned();
        beside.push(".lock");
        let lock = File::create(path.with_file_name(beside)).map_err(|error| failed("cannot lock", error))?;
        lock.lock().map_err(|error| failed("cannot lock", error))?;
        let mut ring = match std::fs::read(path) {
            Ok(text) => {
                Self::parse(&text).map_err(|problem| format!("`{}` cannot be read: {problem}", path.display()))?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::default(),
            Err(error) => return Err(failed("cannot read", error)),
        };
        let outcome = change(&mut ring)?;
        ring.known()?;
        let mut text = serde_json::to_string_pretty(&ring).map_err(|error| error.to_string())?;
        text.push('\n');
        // Whoever makes keys may be another user than the gateway, which reads them.
        replace::whole(path, text.as_bytes(), 0o666).map_err(|error| failed("cannot write", error))?;
        Ok(outcome)
    }

    /// Reads the text of a file. The error is a sentence.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        if text.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_slice(text).map_err(|error| error.to_string())
    }

    fn known(&self) -> Result<Known, String> {
        let mut known = Known::with_capacity(self.keys.len());
        for record in &self.keys {
            let (hash, key) = record.known()?;
            if known.insert(hash, key).is_some() {
                return Err(format!("`{}` has the hash of another key", record.id));
            }
        }
        Ok(known)
    }
}

impl KeyRecord {
    fn known(&self) -> Result<(KeyHash, FiledKey), String> {
        let hash = KeyHash::parse(&self.hash).ok_or_else(|| format!("the hash of `{}` is not one", self.id))?;
        let until = self.expires.as_deref().map(moment).transpose();
        let until = until.map_err(|problem| format!("`expires` of `{}`: {problem}", self.id))?;
        Ok((hash, FiledKey { id: self.id.as_str().into(), consumer: self.consumer.as_str().into(), until }))
    }
}

impl KeyFile {
    /// Reads the file at `path`. The error is a sentence.
    pub fn open(path: &Path) -> Result<Self, String> {
        let (stamp, known) = read(path)?;
        let filed = Filed {
            path: path.to_owned(),
            known: ArcSwap::from_pointee(known),
            generation: AtomicU64::new(1),
            stamp: Mutex::new(stamp),
            error: Mutex::new(None),
            failures: AtomicU64::new(0),
        };
        Ok(Self { filed: Arc::new(filed), task: Mutex::default() })
    }

    /// Counts the changes.
    pub(crate) fn generation(&self) -> u64 {
        self.filed.generation.load(Acquire)
    }

    /// The key that has this hash.
    pub(crate) fn key_by(&self, hash: &KeyHash) -> Option<FiledKey> {
        self.filed.known.load().get(hash).cloned()
    }
}

impl Filed {
    /// Reads the file again if it has changed. What cannot be read is told once.
    fn refresh(&self) {
        let stamp = stamp(&self.path);
        if stamp.is_some() && stamp == *self.stamp.lock() {
            return;
        }
        match read(&self.path) {
            Ok((stamp, known)) => {
                *self.stamp.lock() = stamp;
                *self.error.lock() = None;
                if known != **self.known.load() {
                    tracing::info!(path = %self.path.display(), keys = known.len(), "API keys have changed");
                    self.known.store(Arc::new(known));
                    self.generation.fetch_add(1, Release);
                }
            }
            Err(problem) => {
                self.failures.fetch_add(1, Release);
                let mut error = self.error.lock();
                if error.as_ref() != Some(&problem) {
                    let path = self.path.display();
                    tracing::error!(%path, problem, "API keys cannot be read, those known before stay in force");
                    *error = Some(problem);
                }
            }
        }
    }
}

impl Service for KeyFile {
    fn start(&self, control: &Handle) {
        let mut task = self.task.lock();
        if task.is_none() {
            let filed = Arc::clone(&self.filed);
            let look = async move {
                loop {
                    sleep(LOOK).await;
                    filed.refresh();
                }
            };
            *task = Some(control.spawn(look).abort_handle());
        }
    }

    fn settle(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }

    fn look(&self, _: Instant) -> Option<SupplyReading> {
        let error = self.filed.error.lock().clone();
        Some(SupplyReading {
            kind: "key_file",
            from: self.filed.path.display().to_string(),
            up: error.is_none(),
            items: Some(self.filed.known.load().len() as u64),
            failures: self.filed.failures.load(Acquire),
            error,
            ..SupplyReading::default()
        })
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

fn read(path: &Path) -> Result<(Stamp, Known), String> {
    // Taken before the file is read: what changes meanwhile is noticed the next time.
    let stamp = stamp(path);
    if let Some((_, length)) = stamp
        && length > LARGEST
    {
        return Err(format!("it is larger than {} MiB", LARGEST >> 20));
    }
    let text = std::fs::read(path).map_err(|error| error.to_string())?;
    Ok((stamp, KeyRing::parse(&text)?.known()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(keys: &[(&str, &[u8], Option<&str>)]) -> String {
        let record = |(id, key, expires): &(&str, &[u8], Option<&str>)| KeyRecord {
            id: (*id).into(),
            consumer: "app".into(),
            hash: KeyHash::of(key).to_string(),
            created: None,
            expires: expires.map(Into::into),
            note: None,
        };
        serde_json::to_string(&KeyRing { keys: keys.iter().map(record).collect() }).unwrap()
    }

    #[test]
    fn a_change_is_noticed_and_what_cannot_be_read_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        assert!(KeyFile::open(&path).is_err(), "there is none");
        std::fs::write(&path, ring(&[("k1", b"one", None), ("k2", b"two", Some("2020-01-01"))])).unwrap();
        let file = KeyFile::open(&path).unwrap();
        assert_eq!(file.key_by(&KeyHash::of(b"one")).unwrap().id.as_ref(), "k1");
        assert_eq!(file.key_by(&KeyHash::of(b"two")).unwrap().until, Some(1_577_836_800));
        let before = file.generation();
        file.filed.refresh();
        assert_eq!(file.generation(), before);
        std::fs::write(&path, ring(&[("k2", b"two", None)])).unwrap();
        file.filed.refresh();
        assert!(file.generation() > before);
        assert_eq!(file.key_by(&KeyHash::of(b"one")), None);
        for broken in ["{", r#"{ "keys": [{ "id": "k" }] }"#, r#"{ "key": [] }"#] {
            std::fs::write(&path, broken).unwrap();
            file.filed.refresh();
            assert!(file.filed.error.lock().is_some(), "{broken}");
            assert!(file.key_by(&KeyHash::of(b"two")).is_some(), "{broken}");
        }
        std::fs::write(&path, "").unwrap();
        file.filed.refresh();
        assert_eq!((file.key_by(&KeyHash::of(b"two")), file.filed.error.lock().clone()), (None, None));
    }

    #[test]
    fn what_is_no_ring_of_keys_is_told() {
        let twice = ring(&[("k1", b"one", None), ("k2", b"one", None)]);
        let late = ring(&[("k1", b"one", Some("soon"))]);
        for (text, problem) in [
            (twice.as_str(), "`k2` has the hash of another key"),
            (late.as_str(), "`expires` of `k1`: `soon` is neither a date nor a moment"),
            (r#"{ "keys": [{ "id": "k", "consumer": "a", "hash": "x" }] }"#, "the hash of `k` is not one"),
        ] {
            assert_eq!(KeyRing::parse(text.as_bytes()).and_then(|ring| ring.known()).unwrap_err(), problem);
        }
    }
}
