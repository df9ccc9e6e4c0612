//! Moments that gateways share, by name: when something was ended, or that it was used. They are of one clock, that of the store, since the
//! clocks of gateways differ. Moments are seconds since 1970.

use std::sync::Arc;
use std::time::Duration;

use crate::command::{Command, Reply, StoreError};
use crate::link::Redis;
use crate::sessions::millis;

/// The marks of all gateways that share a store.
#[derive(Debug, Clone)]
pub struct Marks {
    store: Arc<Redis>,
}

impl Marks {
    /// Those in `store`.
    pub fn new(store: Arc<Redis>) -> Self {
        Self { store }
    }

    /// This moment, by the clock of the store.
    pub async fn now(&self) -> Result<u64, StoreError> {
        let time = self.run(Command::new("TIME")).await?.list()?;
        time.first().and_then(|seconds| number(seconds)).ok_or(StoreError::Odd)
    }

    /// Notes a moment under this name for so long, in place of what was there.
    pub async fn set(&self, name: &str, moment: u64, span: Duration) -> Result<(), StoreError> {
        let set = Command::new("SET").arg(self.key(name)).number(moment).arg("PX").number(millis(span));
        self.run(set).await.map(|_| ())
    }

    /// Notes a moment under this name for good, unless there is one. Gives the one that counts.
    pub async fn settle(&self, name: &str, moment: u64) -> Result<u64, StoreError> {
        let key = self.key(name);
        let set = Command::new("SET").arg(&key).number(moment).arg("NX");
        let replies = self.store.run(&[set, Command::new("GET").arg(&key)], true).await?;
        let counts = replies.into_iter().nth(1).ok_or(StoreError::Odd)?.bytes()?;
        counts.and_then(|counts| number(&counts)).ok_or(StoreError::Odd)
    }

    /// What is noted under each of these names.
    pub async fn get(&self, names: &[String]) -> Result<Vec<Option<u64>>, StoreError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let get = names.iter().fold(Command::new("MGET"), |get, name| get.arg(self.key(name)));
        let Reply::List(marks) = self.run(get).await? else { return Err(StoreError::Odd) };
        if marks.len() != names.len() {
            return Err(StoreError::Odd);
        }
        let mark = |reply: Reply| match reply.bytes()? {
            None => Ok(None),
            // What is no number was not noted here: nobody knows what it means.
            Some(bytes) => number(&bytes).map(Some).ok_or(StoreError::Odd),
        };
        marks.into_iter().map(mark).collect()
    }

    async fn run(&self, command: Command) -> Result<Reply, StoreError> {
        self.store.run(&[command], false).await?.into_iter().next().ok_or(StoreError::Odd)
    }

    fn key(&self, name: &str) -> String {
        self.store.key(&format!("mark:{name}"))
    }
}

fn number(bytes: &[u8]) -> Option<u64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}
