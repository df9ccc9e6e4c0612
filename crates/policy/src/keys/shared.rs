//! API keys in a store that gateways share: `pylon keys` writes them there, and each gateway holds all of them at hand.
//!
//! A gateway asks twice a second whether they have changed, so that whoever is revoked is out within a second, and no request waits for the
//! store. While that is away, the keys at hand go on for a time that the document bounds, and then none does. A key that is not at hand
//! is refused as long as the store answers; once it does not, nobody knows, and that is what the client is told.
//!
//! The hash `PREFIX:keys` has a record for each id, in JSON; `PREFIX:keys:version` rises with each change.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Release},
};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pylon_net::timer::sleep;
use pylon_observe::insight::SupplyReading;
use pylon_store::command::{Command, Reply, StoreError};
use pylon_store::link::Redis;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::{FiledKey, KeyRecord, KeyRing, Known};
use crate::consumers::KeyHash;
use crate::policy::Service;

/// How often it is asked whether keys have changed.
const LOOK: Duration = Duration::from_millis(500);
/// After how long without an answer nobody knows whether a key was made meanwhile.
const SILENCE: Duration = Duration::from_secs(3);
/// How often all are read though nothing is said to have changed.
const ANEW: Duration = Duration::from_secs(60);
/// The most keys.
const MOST: usize = 300_000;
/// How often a change is tried that somebody else's comes before.
const TRIES: usize = 8;

/// Changes records only if nobody else has meanwhile: version, then ids with their records, or with nothing to take them away.
const CHANGE: &str = "\
if (redis.call('GET', KEYS[2]) or '') ~= ARGV[1] then return 0 end
for i = 2, #ARGV, 2 do
  if ARGV[i + 1] == '' then redis.call('HDEL', KEYS[1], ARGV[i]) else redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
redis.call('INCR', KEYS[2])
return 1";

/// The keys of a store, all of them at hand.
#[derive(Debug)]
pub struct SharedKeys {
    held: Arc<Held>,
    task: Mutex<Option<AbortHandle>>,
}

#[derive(Debug)]
struct Held {
    store: Arc<Redis>,
    /// For how long keys serve while the store is away.
    valid_for: Duration,
    known: ArcSwap<Known>,
    /// Rises with each change.
    generation: AtomicU64,
    state: Mutex<State>,
    /// How many looks there have been, good or bad.
    looks: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// When the store last answered.
    heard: Option<Instant>,
    /// What was read last, and when.
    read: Option<(Vec<u8>, Instant)>,
    error: Option<String>,
    failures: u64,
}

impl SharedKeys {
    /// Those in `store`. They serve for `valid_for` while that is away.
    pub fn new(store: Arc<Redis>, valid_for: Duration) -> Self {
        let held = Held {
            store,
            valid_for,
            known: ArcSwap::default(),
            generation: AtomicU64::new(1),
            state: Mutex::default(),
            looks: watch::Sender::new(0),
        };
        Self { held: Arc::new(held), task: Mutex::default() }
    }

    /// Counts the changes.
    pub(crate) fn generation(&self) -> u64 {
        self.held.generation.load(Acquire)
    }

    /// The key that has this hash. The error says that nobody knows, and why.
    pub(crate) fn key_by(&self, hash: &KeyHash) -> Result<Option<FiledKey>, String> {
        if let Some(key) = self.held.known.load().get(hash) {
            return Ok(Some(key.clone()));
        }
        let state = self.held.state.lock();
        let silent = state.heard.is_none_or(|heard| now().saturating_duration_since(heard) > SILENCE);
        if silent {
            Err(state.error.clone().unwrap_or_else(|| "the keys were not read yet".to_owned()))
        } else {
            Ok(None)
        }
    }
}

impl Held {
    /// Looks whether anything has changed, and reads it.
    async fn look(&self) {
        let outcome = self.news().await;
        let now = now();
        let mut state = self.state.lock();
        match outcome {
            Ok(news) => {
                state.heard = Some(now);
                if state.error.take().is_some() {
                    tracing::info!("API keys of the store are up to date again");
                }
                if let Some((version, known)) = news {
                    state.read = Some((version, now));
                    self.replace(known);
                }
            }
            Err(why) => {
                if state.error.is_none() {
                    tracing::warn!(why, "API keys of the store cannot be read; those at hand go on for their time");
                }
                state.error = Some(why);
                state.failures = state.failures.saturating_add(1);
                let too_old = state.heard.is_some_and(|heard| now.saturating_duration_since(heard) >= self.valid_for);
                if too_old && !self.known.load().is_empty() {
                    tracing::warn!("the API keys at hand are too old to serve");
                    // Of whoever had one of them nobody knows any more.
                    (state.read, state.heard) = (None, None);
                    self.replace(Known::default());
                }
            }
        }
        drop(state);
        self.looks.send_modify(|looks| *looks = looks.wrapping_add(1));
    }

    fn replace(&self, known: Known) {
        if known != **self.known.load() {
            tracing::info!(keys = known.len(), "API keys have changed");
            self.known.store(Arc::new(known));
            self.generation.fetch_add(1, Release);
        }
    }

    /// The version and all keys, if they may have changed.
    async fn news(&self) -> Result<Option<(Vec<u8>, Known)>, String> {
        let read = self.state.lock().read.clone();
        let version = Command::new("GET").arg(self.store.key("keys:version"));
        let replies = self.store.run(std::slice::from_ref(&version), false).await.map_err(|error| error.to_string())?;
        let now_at = first(replies).and_then(Reply::bytes).map_err(|error| error.to_string())?.unwrap_or_default();
        if read.is_some_and(|(before, at)| before == now_at && now().saturating_duration_since(at) < ANEW) {
            return Ok(None);
        }
        let (version, ring) = read_all(&self.store).await?;
        Ok(Some((version, known_of(&ring))))
    }
}

/// What can be used of a ring: a record that is wrong takes nobody else's key away.
fn known_of(ring: &KeyRing) -> Known {
    let mut known = Known::with_capacity(ring.keys.len());
    for record in &ring.keys {
        match record.known() {
            Ok((hash, key)) => _ = known.insert(hash, key),
            Err(problem) => tracing::warn!(id = record.id, problem, "an API key of the store is left out"),
        }
    }
    known
}

/// All records, with their version.
async fn read_all(store: &Redis) -> Result<(Vec<u8>, KeyRing), String> {
    let commands = [Command::new("GET").arg(store.key("keys:version")), Command::new("HGETALL").arg(store.key("keys"))];
    let replies = store.run(&commands, true).await.map_err(|error| error.to_string())?;
    let [version, records] = <[Reply; 2]>::try_from(replies).map_err(|_| StoreError::Odd.to_string())?;
    let version = version.bytes().map_err(|error| error.to_string())?.unwrap_or_default();
    let items = records.list().map_err(|error| error.to_string())?;
    if items.len() / 2 > MOST {
        return Err(format!("the store has more than {MOST} keys"));
    }
    let mut keys = Vec::with_capacity(items.len() / 2);
    for pair in items.chunks_exact(2) {
        let [id, record] = pair else { continue };
        match serde_json::from_slice::<KeyRecord>(record) {
            Ok(record) => keys.push(record),
            Err(error) => {
                let id = String::from_utf8_lossy(id).into_owned();
                tracing::warn!(id, %error, "a record of the store is no API key");
            }
        }
    }
    keys.sort_by(|a, b| (&a.created, &a.id).cmp(&(&b.created, &b.id)));
    Ok((version, KeyRing { keys }))
}

/// All records, for people.
pub async fn list(store: &Redis) -> Result<KeyRing, String> {
    read_all(store).await.map(|(_, ring)| ring)
}

/// Changes records as [`KeyRing::change`] does in a file: all of the change or nothing, and none that somebody else has come before.
pub async fn change<T>(store: &Redis, mut change: impl FnMut(&mut KeyRing) -> Result<T, String>) -> Result<T, String> {
    for _ in 0..TRIES {
        let (version, before) = read_all(store).await?;
        let mut ring = before.clone();
        let outcome = change(&mut ring)?;
        ring.known()?;
        let mut command =
            Command::new("EVAL").arg(CHANGE).arg("2").arg(store.key("keys")).arg(store.key("keys:version"));
        command = command.arg(&version);
        let records: HashMap<&str, &KeyRecord> =
            before.keys.iter().map(|record| (record.id.as_str(), record)).collect();
        for record in ring.keys.iter().filter(|record| records.get(record.id.as_str()) != Some(record)) {
            command = command.arg(&record.id).arg(serde_json::to_string(record).map_err(|error| error.to_string())?);
        }
        for gone in before.keys.iter().filter(|record| ring.keys.iter().all(|other| other.id != record.id)) {
            command = command.arg(&gone.id).arg("");
        }
        let replies = store.run(&[command], false).await.map_err(|error| error.to_string())?;
        if first(replies).and_then(Reply::number) == Ok(1) {
            return Ok(outcome);
        }
    }
    Err("others change the keys of the store all the time: try again".to_owned())
}

fn first(replies: Vec<Reply>) -> Result<Reply, StoreError> {
    replies.into_iter().next().ok_or(StoreError::Odd)
}

impl Service for SharedKeys {
    fn start(&self, control: &Handle) {
        self.held.store.start(control);
        let mut task = self.task.lock();
        if task.is_none() {
            let held = Arc::clone(&self.held);
            let look = async move {
                held.store.settle().await;
                loop {
                    held.look().await;
                    sleep(LOOK).await;
                }
            };
            *task = Some(control.spawn(look).abort_handle());
        }
    }

    fn settle(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            // An error means that it is gone, and with it the question.
            let _gone = self.held.looks.subscribe().wait_for(|looks| *looks > 0).await.is_err();
        })
    }

    fn look(&self, now: Instant) -> Option<SupplyReading> {
        let state = self.held.state.lock();
        Some(SupplyReading {
            kind: "shared_keys",
            from: self.held.store.reading().address,
            up: state.error.is_none() && state.heard.is_some(),
            items: Some(self.held.known.load().len() as u64),
            age: state.heard.map(|heard| now.saturating_duration_since(heard)),
            next: None,
            failures: state.failures,
            error: state.error.clone(),
        })
    }
}

impl Drop for SharedKeys {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
