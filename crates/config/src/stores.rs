//! The key `stores`: where is kept what changes without the document, and what gateways share.

use std::path::Path;
use std::sync::Arc;

use pylon_core::carry::Carry;
use pylon_core::secret::Reveal;
use pylon_core::short::Short;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::units::Span;
use pylon_net::resolve::Resolver;
use pylon_policy::keys::shared::SharedKeys;
use pylon_policy::keys::{KeyFile, KeyStore};
use pylon_store::link::Redis;
use pylon_store::spec::RedisSpec;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// What `keys` says for the store.
const REDIS: &str = "redis";

/// Where is kept what changes without the document.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoresSpec {
    /// Where API keys are that `pylon keys` writes: a file, which is watched and must be there, or `redis`. A key holds, and is revoked, within
    /// a second. Default: the keys of `consumers` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"keys.json")]
    pub keys: Option<String>,
    /// A Redis or Valkey that gateways share. They start and serve without it, too. Default: none.
    #[serde(default, deserialize_with = "written", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Short<RedisSpec>", example = &"redis://redis.internal:6379")]
    pub redis: Option<Short<RedisSpec>>,
    /// For how long API keys of Redis serve while it is away, from a second to a day. Default: `5m`.
    #[serde(default, deserialize_with = "written", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Span", example = &"1m")]
    pub keys_valid_for: Option<Span>,
}

/// What stands behind the stores of a document.
#[derive(Debug, Default)]
pub struct Stores {
    /// The store that gateways share.
    pub redis: Option<Arc<Redis>>,
    /// Where API keys are kept.
    pub keys: Option<KeyStore>,
}

impl StoresSpec {
    /// The stores, which are the same as in the document before where nothing of them has changed.
    pub fn open(&self, carry: &Carry, resolver: &Resolver, secrets: Reveal) -> Result<Stores, Vec<SpecError>> {
        let redis = self.redis.as_ref().map(|spec| redis(spec, carry, resolver, secrets)).transpose()?;
        let valid_for = self.keys_valid_for.unwrap_or(Span::from_secs(300));
        let at = |key: &str| FieldPath::root().key(key);
        if self.keys_valid_for.is_some() && self.keys.as_deref() != Some(REDIS) {
            let error =
                SpecError::new(at("keys_valid_for"), "`keys_valid_for` means nothing here: no API keys are in Redis");
            return Err(vec![error.help("take it out, or write `keys: redis`")]);
        }
        if !(1..=86_400).contains(&valid_for.duration().as_secs()) {
            let error = SpecError::new(at("keys_valid_for"), format!("`{valid_for}` is out of bounds"));
            return Err(vec![error.help("write a time from `1s` to `1d`")]);
        }
        let keys = match (self.keys.as_deref(), &redis) {
            (None, _) => None,
            (Some(REDIS), Some(redis)) => {
                let name = format!("keys {valid_for} of {:p}", Arc::as_ptr(redis));
                Some(KeyStore::Shared(carry.keep(name, || SharedKeys::new(Arc::clone(redis), valid_for.duration()))))
            }
            (Some(REDIS), None) => {
                let error = SpecError::new(at("keys"), "the API keys are in Redis, and no Redis is written");
                return Err(vec![
                    error.help("add `redis: redis://host:6379` beside it; a file of this name is `./redis`"),
                ]);
            }
            (Some(path), _) => Some(KeyStore::File(file(path, carry).map_err(|error| vec![error])?)),
        };
        Ok(Stores { redis, keys })
    }
}

fn redis(spec: &RedisSpec, carry: &Carry, resolver: &Resolver, secrets: Reveal) -> Result<Arc<Redis>, Vec<SpecError>> {
    let written = serde_json::to_string(spec).unwrap_or_default();
    let name = format!("redis {written} {}", resolver.identity());
    if let Some(redis) = carry.living::<Redis>(&name) {
        return Ok(redis);
    }
    let redis = Redis::new(spec, resolver, secrets).map_err(|errors| -> Vec<_> {
        errors.into_iter().map(|error| error.below(&FieldPath::root().key("redis"))).collect()
    })?;
    let redis = Arc::new(redis);
    carry.hold(name, &redis);
    Ok(redis)
}

fn file(path: &str, carry: &Carry) -> Result<Arc<KeyFile>, SpecError> {
    let name = format!("keys {path}");
    if let Some(file) = carry.living::<KeyFile>(&name) {
        return Ok(file);
    }
    let file = KeyFile::open(Path::new(path)).map_err(|problem| {
        let error = SpecError::new(
            FieldPath::root().key("keys"),
            format!("the API keys in `{path}` cannot be read: {problem}"),
        );
        error.help(format!("`pylon keys create CONSUMER --store {path}` makes the file with a first key"))
    })?;
    let file = Arc::new(file);
    carry.hold(name, &file);
    Ok(file)
}

/// A key may be left out but not left empty: `redis:` with nothing behind it would be none.
fn written<'de, T: Deserialize<'de>, D: Deserializer<'de>>(source: D) -> Result<Option<T>, D::Error> {
    T::deserialize(source).map(Some)
}
