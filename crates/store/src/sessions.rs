//! Sessions that gateways share: sealed by whoever keeps them here, found by their id, and taken away by whom they are of.
//!
//! A session has a time after which it is gone by itself, and which is put off while it is used. It stands in indexes, such as that of its
//! user or of the session at the identity provider, so that all sessions of one of them end at its word (OpenID Connect Back-Channel Logout
//! 1.0). An index lives as long as the last session in it can. What is kept is opaque here: whoever keeps it seals it, so that nobody reads
//! or forges it who reaches the store.
//!
//! Nothing but [`Sessions::set`] makes a session: whatever else is done to one that was taken away meanwhile leaves it away.

use std::sync::Arc;
use std::time::Duration;

use crate::command::{Command, Reply, StoreError};
use crate::link::Redis;

/// How many ids are taken away by one command.
const AT_ONCE: usize = 512;

/// Puts a value in place of another one, if that is still there, for what is left of its time.
const EXCHANGE: &str = "\
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
return 1";

/// Takes a value away, if it is this one.
const TAKE: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end return redis.call('DEL', KEYS[1])";

/// What is kept of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// As whoever keeps it has sealed it.
    pub sealed: Vec<u8>,
    /// For how long it is there if nothing puts that off.
    pub left: Duration,
}

/// For how long a session is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spans {
    /// If it is not used.
    pub unused: Duration,
    /// However much it is used: its indexes are there for so long.
    pub longest: Duration,
}

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
    pub async fn get(&self, id: &str) -> Result<Option<Kept>, StoreError> {
        let key = self.session(id);
        let replies = self.store.run(&[Command::new("GET").arg(&key), Command::new("PTTL").arg(&key)], false).await?;
        let [sealed, left] = <[Reply; 2]>::try_from(replies).map_err(|_| StoreError::Odd)?;
        // Below zero: it went in between.
        let left = Duration::from_millis(u64::try_from(left.number()?).unwrap_or_default());
        Ok(sealed.bytes()?.map(|sealed| Kept { sealed, left }))
    }

    /// Keeps `sealed` under this id, in place of what was there, and in these indexes: all or nothing of it.
    pub async fn set(&self, id: &str, sealed: &[u8], spans: Spans, indexes: &[&str]) -> Result<(), StoreError> {
        let keep = Command::new("SET").arg(self.session(id)).arg(sealed).arg("PX").number(millis(spans.unused));
        self.store.run(&self.indexed(keep, id, spans, indexes), true).await.map(|_| ())
    }

    /// Keeps `sealed` for `unused` in place of what is there; false where nothing is there any more.
    pub async fn replace(&self, id: &str, sealed: &[u8], unused: Duration) -> Result<bool, StoreError> {
        let keep = Command::new("SET").arg(self.session(id)).arg(sealed).arg("PX").number(millis(unused)).arg("XX");
        Ok(self.one(keep).await? == Reply::Done)
    }

    /// Keeps `after` in place of `before` for what is left of its time; false where something else is there, or nothing.
    pub async fn exchange(&self, id: &str, before: &[u8], after: &[u8]) -> Result<bool, StoreError> {
        let keep = Command::new("EVAL").arg(EXCHANGE).arg("1").arg(self.session(id)).arg(before).arg(after);
        Ok(self.one(keep).await?.number()? > 0)
    }

    /// Puts the end of a session off that is used, and that of its indexes; false where it is there no more.
    pub async fn touch(&self, id: &str, spans: Spans, indexes: &[&str]) -> Result<bool, StoreError> {
        let touch = Command::new("PEXPIRE").arg(self.session(id)).number(millis(spans.unused));
        let replies = self.store.run(&self.indexed(touch, id, spans, indexes), true).await?;
        Ok(replies.into_iter().next().ok_or(StoreError::Odd)?.number()? > 0)
    }

    /// Has one session for whoever comes by this word, and for as long, so that nobody else does what can be done once; false where
    /// somebody else has it.
    pub async fn lock(&self, id: &str, word: &str, span: Duration) -> Result<bool, StoreError> {
        let lock = Command::new("SET").arg(self.locked(id)).arg(word).arg("PX").number(millis(span)).arg("NX");
        Ok(self.one(lock).await? == Reply::Done)
    }

    /// Leaves one session to others, if whoever comes by this word has it.
    pub async fn unlock(&self, id: &str, word: &str) -> Result<(), StoreError> {
        self.one(Command::new("EVAL").arg(TAKE).arg("1").arg(self.locked(id)).arg(word)).await.map(|_| ())
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

    /// A command, and behind it those by which the session stands in these indexes.
    fn indexed(&self, first: Command, id: &str, spans: Spans, indexes: &[&str]) -> Vec<Command> {
        let mut commands = vec![first];
        for index in indexes {
            let (index, longest) = (self.index(index), millis(spans.longest));
            commands.push(Command::new("SADD").arg(&index).arg(id));
            // Its first time, and from then on only longer ones.
            commands.push(Command::new("PEXPIRE").arg(&index).number(longest).arg("NX"));
            commands.push(Command::new("PEXPIRE").arg(&index).number(longest).arg("GT"));
        }
        commands
    }

    async fn one(&self, command: Command) -> Result<Reply, StoreError> {
        self.store.run(&[command], false).await?.into_iter().next().ok_or(StoreError::Odd)
    }

    fn session(&self, id: &str) -> String {
        self.store.key(&format!("session:{id}"))
    }

    fn locked(&self, id: &str) -> String {
        self.store.key(&format!("session-lock:{id}"))
    }

    fn index(&self, index: &str) -> String {
        self.store.key(&format!("sessions:{index}"))
    }
}

/// As the store takes times.
pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX).clamp(1, 1 << 50)
}
