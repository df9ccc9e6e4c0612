//! `pylon keys`: makes, lists, revokes and replaces API keys where the gateway looks for them, a file or Redis, and hashes passwords.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use pylon_config::diagnostic::Diagnostic;
use pylon_config::document;
use pylon_config::load::Source;
use pylon_config::plan::PlainSecrets;
use pylon_core::carry::Carry;
use pylon_core::units::Span;
use pylon_net::resolve::Resolver;
use pylon_policy::consumers::{KeyHash, moment};
use pylon_policy::keys::{KeyRecord, KeyRing, fresh, hash_password, shared};
use pylon_store::link::Redis;
use tokio::runtime::Runtime;

use crate::output;

/// See [`super::Command::Keys`].
#[derive(Debug, Args)]
pub(super) struct Keys {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make a key and print it: it is shown this once, and only its hash is kept.
    Create {
        /// The consumer of the document that the key belongs to.
        consumer: String,
        /// When it ends: a span such as `90d`, a date, or a moment by RFC 3339. Without it, never.
        #[arg(long)]
        expires: Option<String>,
        /// What people want to know of it.
        #[arg(long)]
        note: Option<String>,
        #[command(flatten)]
        store: MaybeStore,
    },
    /// List the keys of a store: never the keys themselves.
    List {
        #[command(flatten)]
        store: Store,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Take a key away. A gateway that watches the store refuses it within a second.
    Revoke {
        /// The id of the key, as `list` shows it.
        id: String,
        #[command(flatten)]
        store: Store,
    },
    /// Make a new key for the consumer of another one, which ends after a while.
    Rotate {
        /// The id of the key that is replaced.
        id: String,
        /// How long the old key still holds; `0s` for no longer than now.
        #[arg(long, default_value = "24h")]
        keep: String,
        #[command(flatten)]
        store: Store,
    },
    /// Hash a password for `consumers: { …: { basic: { user: …, password: … } } }`; it is read from the terminal or standard input.
    Password,
}

#[derive(Debug, Args)]
struct Store {
    /// The file of keys, as `stores: { keys: … }` names it in the document.
    #[arg(long, env = "PYLON_KEYS", required_unless_present = "document", conflicts_with = "document")]
    store: Option<PathBuf>,
    /// The document that says where keys are: a file, or Redis.
    #[arg(long)]
    document: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct MaybeStore {
    /// The file of keys, as `stores: { keys: … }` names it in the document. Without it, what belongs into the document is printed.
    #[arg(long, env = "PYLON_KEYS", conflicts_with = "document")]
    store: Option<PathBuf>,
    /// The document that says where keys are: a file, or Redis.
    #[arg(long)]
    document: Option<PathBuf>,
}

/// Where keys are.
enum Place {
    File(PathBuf),
    Redis(Box<Shared>),
}

/// Redis, and what it takes to talk to it.
struct Shared {
    store: Arc<Redis>,
    runtime: Runtime,
}

impl Place {
    fn find(store: Option<PathBuf>, document: Option<PathBuf>) -> anyhow::Result<Option<Self>> {
        match (store, document) {
            (Some(path), _) => Ok(Some(Self::File(path))),
            (None, Some(document)) => Self::of_document(&document).map(Some),
            (None, None) => Ok(None),
        }
    }

    fn of_document(path: &Path) -> anyhow::Result<Self> {
        let failed = |wrong: Vec<Diagnostic>| anyhow!("`{}` cannot be used: {}", path.display(), titles(&wrong));
        let source = Source::read(path).map_err(failed)?;
        let (document, wrong) = document::read(&source);
        if wrong.iter().any(Diagnostic::is_error) {
            return Err(failed(wrong));
        }
        let stores = &document.stores;
        match stores.keys.as_deref() {
            None => bail!("`{}` does not say where keys are: add `stores: {{ keys: keys.json }}`", path.display()),
            Some("redis") => {}
            Some(file) => return Ok(Self::File(file.into())),
        }
        let resolver = Resolver::new(&document.discovery.dns.servers).context("names cannot be resolved")?;
        let opened = stores.open(&Carry::default(), &resolver, PlainSecrets::Refused.reveal());
        let opened = opened.map_err(|wrong| {
            let titles: Vec<_> =
                wrong.iter().map(|error| format!("`stores.{}`: {}", error.at, error.problem)).collect();
            anyhow!("`{}` cannot be used: {}", path.display(), titles.join("; "))
        })?;
        let store = opened.redis.context("there is no Redis")?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        store.start(runtime.handle());
        runtime.block_on(store.settle());
        Ok(Self::Redis(Box::new(Shared { store, runtime })))
    }

    fn shown(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Redis(shared) => shared.store.reading().address,
        }
    }

    fn read(&self) -> anyhow::Result<KeyRing> {
        match self {
            Self::File(path) => {
                let text = std::fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
                KeyRing::parse(&text).map_err(|problem| anyhow!("`{}` cannot be read: {problem}", path.display()))
            }
            Self::Redis(shared) => {
                shared.runtime.block_on(shared::list(&shared.store)).map_err(|problem| anyhow!(problem))
            }
        }
    }

    fn change<T>(&self, change: impl FnMut(&mut KeyRing) -> Result<T, String>) -> anyhow::Result<T> {
        let outcome = match self {
            Self::File(path) => KeyRing::change(path, change),
            Self::Redis(shared) => shared.runtime.block_on(shared::change(&shared.store, change)),
        };
        outcome.map_err(|problem| anyhow!(problem))
    }
}

/// What is wrong with a document, in short.
fn titles(wrong: &[Diagnostic]) -> String {
    wrong.iter().map(|one| one.title.clone()).collect::<Vec<_>>().join("; ")
}

impl Store {
    fn place(self) -> anyhow::Result<Place> {
        Place::find(self.store, self.document)?.context("nothing says where keys are")
    }
}

impl Keys {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match self.what {
            What::Create { consumer, expires, note, store } => {
                create(&consumer, expires.as_deref(), note, Place::find(store.store, store.document)?)?;
            }
            What::List { store, json } => list(&store.place()?, json)?,
            What::Revoke { id, store } => revoke(&store.place()?, &id)?,
            What::Rotate { id, keep, store } => rotate(&store.place()?, &id, &keep)?,
            What::Password => output::line(&hash_password(&password()?).map_err(|problem| anyhow!(problem))?),
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A new key and its record.
fn new(consumer: &str, expires: Option<String>, note: Option<String>) -> anyhow::Result<(String, KeyRecord)> {
    let key = fresh().map_err(|problem| anyhow!(problem))?;
    let hash = KeyHash::of(key.as_bytes()).to_string();
    let id = format!("k_{}", hash.get(7..15).unwrap_or_default());
    let created = Some(now().to_string());
    Ok((key, KeyRecord { id, consumer: consumer.to_owned(), hash, created, expires, note }))
}

fn create(consumer: &str, expires: Option<&str>, note: Option<String>, store: Option<Place>) -> anyhow::Result<()> {
    if consumer.is_empty() {
        bail!("the consumer has no name");
    }
    let expires = expires.map(end).transpose()?;
    let (key, record) = new(consumer, expires, note)?;
    match store {
        Some(place) => {
            place.change(|ring| {
                ring.keys.push(record.clone());
                Ok(())
            })?;
            let KeyRecord { id, consumer, .. } = &record;
            output::note(&format!("{id} of {consumer} is in {}; the key is shown this once:", place.shown()));
        }
        None => {
            output::note("The key is shown this once; what belongs into the document:");
            output::note(&format!("  consumers: {{ {consumer}: {{ keys: [{}] }} }}", written(&record)));
        }
    }
    output::line(&key);
    Ok(())
}

/// A record as it stands in a document.
fn written(record: &KeyRecord) -> String {
    match &record.expires {
        None => format!("\"{}\"", record.hash),
        Some(expires) => format!("{{ hash: \"{}\", expires: \"{expires}\" }}", record.hash),
    }
}

fn list(place: &Place, json: bool) -> anyhow::Result<()> {
    let ring = place.read()?;
    if json {
        output::line(&serde_json::to_string_pretty(&ring)?);
        return Ok(());
    }
    let width = ring.keys.iter().map(|key| key.consumer.chars().count()).max().unwrap_or(0).max(8);
    output::line(&format!("{:12}  {:width$}  {:20}  {:20}  note", "id", "consumer", "created", "expires"));
    for key in &ring.keys {
        let over = key.expires.as_deref().and_then(|text| moment(text).ok()).is_some_and(|until| until <= seconds());
        let of = |value: &Option<String>| value.clone().unwrap_or_default();
        let expires = if over { "(over)".to_owned() } else { of(&key.expires) };
        let created: String = of(&key.created).chars().take(19).collect();
        let line = format!("{:12}  {:width$}  {created:20}  {expires:20}  {}", key.id, key.consumer, of(&key.note));
        output::line(line.trim_end());
    }
    Ok(())
}

fn revoke(place: &Place, id: &str) -> anyhow::Result<()> {
    let consumer = place.change(|ring| {
        let index = find(ring, id)?;
        Ok(ring.keys.remove(index).consumer)
    })?;
    output::note(&format!("{id} of {consumer} is revoked"));
    Ok(())
}

fn rotate(place: &Place, id: &str, keep: &str) -> anyhow::Result<()> {
    let until = if keep == "0s" { now().to_string() } else { end(keep)? };
    let key = place.change(|ring| {
        let index = find(ring, id)?;
        let old = ring.keys.get_mut(index).ok_or("the key is gone")?;
        let (key, record) = new(&old.consumer, None, old.note.clone()).map_err(|error| error.to_string())?;
        // One that would have ended sooner still does.
        let sooner = old.expires.as_deref().and_then(|text| moment(text).ok()) <= moment(&until).ok();
        if old.expires.is_none() || !sooner {
            old.expires = Some(until.clone());
        }
        ring.keys.push(record);
        Ok(key)
    })?;
    output::note(&format!("{id} still holds until {until}; the new key is shown this once:"));
    output::line(&key);
    Ok(())
}

fn find(ring: &KeyRing, id: &str) -> Result<usize, String> {
    let found = ring.keys.iter().position(|key| key.id == id);
    found.ok_or_else(|| format!("there is no key `{id}`: `pylon keys list` shows those that are there"))
}

/// When a key ends: a span from now on, a date, or a moment.
fn end(text: &str) -> anyhow::Result<String> {
    if moment(text).is_ok() {
        return Ok(text.to_owned());
    }
    let span: Span =
        text.parse().map_err(|_| anyhow!("`{text}` is neither a span such as `90d`, nor a date, nor a moment"))?;
    let until = Timestamp::from_second(i64::try_from(seconds() + span.duration().as_secs())?)?;
    Ok(until.to_string())
}

fn now() -> Timestamp {
    i64::try_from(seconds()).ok().and_then(|now| Timestamp::from_second(now).ok()).unwrap_or_default()
}

fn seconds() -> u64 {
    pylon_observe::clock::unix_now().as_secs()
}

/// A password from the terminal, where it is not shown, or the first line of standard input.
fn password() -> anyhow::Result<Vec<u8>> {
    let input = std::io::stdin();
    let hidden = input.is_terminal().then(|| {
        output::note("Password:");
        Hidden::begin()
    });
    let mut line = String::new();
    input.lock().read_line(&mut line)?;
    drop(hidden);
    let password = line.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        bail!("there is no password: type one, or give it on standard input");
    }
    Ok(password.as_bytes().to_owned())
}

/// Keeps a terminal from showing what is typed, until it is dropped.
struct Hidden(Option<rustix::termios::Termios>);

impl Hidden {
    fn begin() -> Self {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let before = tcgetattr(std::io::stdin()).ok();
        if let Some(mut modes) = before.clone() {
            modes.local_modes.remove(LocalModes::ECHO);
            let _shown = tcsetattr(std::io::stdin(), OptionalActions::Now, &modes).is_err();
        }
        Self(before)
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _shown =
                rustix::termios::tcsetattr(std::io::stdin(), rustix::termios::OptionalActions::Now, before).is_err();
        }
    }
}
