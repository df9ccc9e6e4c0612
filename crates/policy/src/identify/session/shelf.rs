//! What gateways share of sessions by a store: the sessions themselves, or, where those stand in cookies, which of them were ended.
//!
//! Whoever reads the store learns neither ids nor users: all names are hashes, bound to issuer and client. What was ended is noted with the
//! moment at which it was, by the clock of the store, by which sessions begin as well; a note stays as long as a session can last. A store
//! that has lost its notes ends all sessions of cookies that began before it, since nobody knows which of them were ended.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pylon_store::command::StoreError;
use pylon_store::link::Redis;
use pylon_store::marks::Marks;
use pylon_store::sessions::{Kept, Sessions, Spans};

use super::party::Failed;
use super::revoked::{LONGEST, Name};

/// For how long one gateway has a session for itself while it renews its tokens: longer than the issuer and the store may take together.
const ALONE: Duration = Duration::from_secs(40);

/// What gateways share.
#[derive(Debug)]
pub(super) struct Shelf {
    store: Arc<Redis>,
    sessions: Sessions,
    marks: Marks,
    /// Whose sessions they are.
    realm: Box<str>,
    /// Whether sessions stand there, and not in cookies.
    pub(super) holds: bool,
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Unknown(error.to_string().into())
    }
}

impl Shelf {
    /// That of one client of an issuer.
    pub(super) fn new(store: &Arc<Redis>, issuer: &str, client: &str, holds: bool) -> Self {
        let (sessions, marks) = (Sessions::new(Arc::clone(store)), Marks::new(Arc::clone(store)));
        Self { store: Arc::clone(store), sessions, marks, realm: format!("{issuer}\0{client}").into(), holds }
    }

    /// Whether the store answered lately: nobody logs in for a session that could not be kept.
    pub(super) fn is_up(&self) -> bool {
        self.store.reading().up
    }

    /// This moment, for a session that begins.
    pub(super) async fn moment(&self) -> Result<u64, Failed> {
        let moment = self.marks.now().await?;
        // Never before that from which on marks are known, else it would be over as it begins.
        if self.holds { Ok(moment) } else { Ok(moment.max(self.settled(moment).await?)) }
    }

    /// From when on marks are known; from the next second on, where none were. Of a session that began within this second nobody knows
    /// whether it was ended before they were lost.
    async fn settled(&self, moment: u64) -> Result<u64, Failed> {
        Ok(self.marks.settle(&self.since(), moment.saturating_add(1)).await?)
    }

    /// What is kept of a session.
    pub(super) async fn get(&self, id: &str) -> Result<Option<Kept>, Failed> {
        Ok(self.sessions.get(&self.named(Name::Session(id))).await?)
    }

    /// Keeps a session that has begun, where it is found by all of its names. Says false if it was ended meanwhile.
    pub(super) async fn set(
        &self,
        id: &str,
        sealed: &str,
        spans: Spans,
        (names, begun): (&[Name<'_>], u64),
    ) -> Result<bool, Failed> {
        let key = self.named(Name::Session(id));
        let indexes: Vec<String> = names.iter().map(|name| self.named(*name)).collect();
        let found_by: Vec<&str> = indexes.iter().map(String::as_str).collect();
        self.sessions.set(&key, sealed.as_bytes(), spans, &found_by).await?;
        // A logout that came before it was kept has left its mark, and one that comes later finds it.
        let marks = self.marks.get(&indexes).await?;
        let ended = marks.into_iter().flatten().any(|moment| begun <= moment);
        if ended {
            self.sessions.delete(&key, &found_by).await?;
        }
        Ok(!ended)
    }

    /// Keeps a session that goes on with new tokens; false if it was ended meanwhile.
    pub(super) async fn replace(&self, id: &str, sealed: &str, unused: Duration) -> Result<bool, Failed> {
        Ok(self.sessions.replace(&self.named(Name::Session(id)), sealed.as_bytes(), unused).await?)
    }

    /// Keeps a session that is sealed anew, unless somebody has changed it.
    pub(super) async fn exchange(&self, id: &str, before: &[u8], after: &str) -> Result<bool, Failed> {
        Ok(self.sessions.exchange(&self.named(Name::Session(id)), before, after.as_bytes()).await?)
    }

    /// Notes that a session is used, which is found by these names; false if it was ended meanwhile.
    pub(super) async fn touch(&self, id: &str, spans: Spans, names: &[Name<'_>]) -> Result<bool, Failed> {
        let indexes: Vec<String> = names.iter().map(|name| self.named(*name)).collect();
        let indexes: Vec<&str> = indexes.iter().map(String::as_str).collect();
        Ok(self.sessions.touch(&self.named(Name::Session(id)), spans, &indexes).await?)
    }

    /// Takes one session away, which is found by these names.
    pub(super) async fn delete(&self, id: &str, names: &[Name<'_>]) -> Result<(), Failed> {
        let indexes: Vec<String> = names.iter().map(|name| self.named(*name)).collect();
        let indexes: Vec<&str> = indexes.iter().map(String::as_str).collect();
        self.sessions.delete(&self.named(Name::Session(id)), &indexes).await?;
        Ok(())
    }

    /// Ends all sessions of this name that began until now, and takes those away that stand there. Says when that was.
    pub(super) async fn end(&self, name: Name<'_>) -> Result<u64, Failed> {
        let (named, moment) = (self.named(name), self.moment().await?);
        // First the mark: a session that is kept from here on is seen by it.
        self.marks.set(&named, moment, Duration::from_secs(LONGEST)).await?;
        self.sessions.delete_by(&named).await?;
        Ok(moment)
    }

    /// Whether a session of cookies, of these names, that began then was ended.
    pub(super) async fn is_ended(&self, names: &[Name<'_>], begun: u64) -> Result<bool, Failed> {
        let mut all = vec![self.since()];
        all.extend(names.iter().map(|name| self.named(*name)));
        let mut marks = self.marks.get(&all).await?.into_iter();
        let since = match marks.next().flatten() {
            Some(since) => since,
            None => self.settled(self.marks.now().await?).await?,
        };
        Ok(begun < since || marks.flatten().any(|ended| begun <= ended))
    }

    /// Whether what is good once was used.
    pub(super) async fn is_used(&self, once: &str) -> Result<bool, Failed> {
        Ok(self.marks.get(&[self.hashed("o", once)]).await?.into_iter().flatten().next().is_some())
    }

    /// Notes that what is good once was used, for so many seconds.
    pub(super) async fn use_up(&self, once: &str, seconds: u64) -> Result<(), Failed> {
        Ok(self.marks.set(&self.hashed("o", once), 1, Duration::from_secs(seconds.max(1))).await?)
    }

    /// Has one session for whoever comes by this word.
    pub(super) async fn lock(&self, id: &str, word: &str) -> Result<bool, Failed> {
        Ok(self.sessions.lock(&self.named(Name::Session(id)), word, ALONE).await?)
    }

    /// Leaves it to others. If that fails, they have it after a while.
    pub(super) async fn unlock(&self, id: &str, word: &str) {
        if let Err(error) = self.sessions.unlock(&self.named(Name::Session(id)), word).await {
            tracing::debug!(%error, "a session is not left to other gateways yet");
        }
    }

    /// Under which name stands from when on marks are known.
    fn since(&self) -> String {
        self.hashed("f", "")
    }

    fn named(&self, name: Name<'_>) -> String {
        self.hashed("n", &name.key())
    }

    fn hashed(&self, kind: &str, name: &str) -> String {
        let mut context = Context::new(&SHA256);
        for part in [kind, &self.realm, name] {
            context.update(&part.len().to_be_bytes());
            context.update(part.as_bytes());
        }
        URL_SAFE_NO_PAD.encode(context.finish())
    }
}
