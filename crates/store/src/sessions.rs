//! Sessions that gateways share: sealed by whoever keeps them here, found by their id, and taken away by whom they are of.
//!
//! A session has a time after which it is gone by itself. It stands in indexes, such as that of its user or of the session at the identity
//! provider, so that all sessions of one of them end at its word (OpenID Connect Back-Channel Logout 1.0). An index lives as long as the last
//! session in it. What is kept is opaque here: whoever keeps it seals it, so that nobody reads or forges it who reaches the store.

use std::sync::Arc;
use std::time::Duration;

use crate::command::{Command, StoreError};
use crate::link::Redis;

/// How many ids are taken away by one command.
const AT_ONCE: usize = 512;

/// The sessions of all gateways that share a store.
#[derive(Debug, Clone)]
pub struct Sessions {
    store: Arc<Redis>,
}

impl Sessions {
    /// Those in `store`.
    pub fn new(store: Arc<Redis>) -> Self {
        Self { store }
    }

    /// What is kept under this id; none where there is nothing, or no longer.
    pub async fn get(&self, id: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let replies = self.store.run(&[Command::new("GET").arg(self.session(id))], false).await?;
        replies.into_iter().next().ok_or(StoreError::Odd)?.bytes()
    }

    /// Keeps `sealed` under this id for `ttl`, in place of what was there, and in these indexes: all or nothing of it.
    pub async fn set(&self, id: &str, sealed: &[u8], ttl: Duration, indexes: &[&str]) -> Result<(), StoreError> {
        let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).clamp(1, 1 << 50);
        let keep = Command::new("SET").arg(self.session(id)).arg(sealed).arg("PX").number(millis);
        let mut commands = vec![keep];
        for index in indexes {
            let index = self.index(index);
            commands.push(Command::new("SADD").arg(&index).arg(id));
            // Its first time, and from then on only longer ones.
            commands.push(Command::new("PEXPIRE").arg(&index).number(millis).arg("NX"));
            commands.push(Command::new("PEXPIRE").arg(&index).number(millis).arg("GT"));
        }
        self.store.run(&commands, true).await.map(|_| ())
    }

    /// Takes one away, out of these indexes, too. Says whether it was there.
    pub async fn delete(&self, id: &str, indexes: &[&str]) -> Result<bool, StoreError> {
        let mut commands = vec![Command::new("DEL").arg(self.session(id))];
        commands.extend(indexes.iter().map(|index| Command::new("SREM").arg(self.index(index)).arg(id)));
        let replies = self.store.run(&commands, true).await?;
        Ok(replies.into_iter().next().ok_or(StoreError::Odd)?.number()? > 0)
    }

    /// Takes all away that stand in this index. Says how many there were.
    pub async fn delete_by(&self, index: &str) -> Result<u64, StoreError> {
        let index = self.index(index);
        let replies = self.store.run(&[Command::new("SMEMBERS").arg(&index)], false).await?;
        let ids = replies.into_iter().next().ok_or(StoreError::Odd)?.list()?;
        let mut gone = 0_u64;
        for ids in ids.chunks(AT_ONCE) {
            let (mut sessions, mut members) = (Command::new("DEL"), Command::new("SREM").arg(&index));
            for id in ids {
                sessions = sessions.arg(self.session(&String::from_utf8_lossy(id)));
                members = members.arg(id);
            }
            let replies = self.store.run(&[sessions, members], true).await?;
            let number = replies.into_iter().next().ok_or(StoreError::Odd)?.number()?;
            gone = gone.saturating_add(u64::try_from(number).unwrap_or_default());
        }
        Ok(gone)
    }

    fn session(&self, id: &str) -> String {
        self.store.key(&format!("session:{id}"))
    }

    fn index(&self, index: &str) -> String {
        self.store.key(&format!("sessions:{index}"))
    }
}
