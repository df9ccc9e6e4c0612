//! Fields that may be left out but not left empty: `allow:` with nothing behind it is an error, not an absence.
//!
//! A person who writes a key means something by it; a filter or a limit must not vanish because its value did.

use pylon_core::short::OneOrMany;
use serde::{Deserialize, Deserializer};

/// For `deserialize_with`, beside `default`: what stands there must be a `T`.
pub(crate) fn value<'de, D: Deserializer<'de>, T: Deserialize<'de>>(source: D) -> Result<Option<T>, D::Error> {
    T::deserialize(source).map(Some)
}

/// For `skip_serializing_if`: nothing stands there.
pub(crate) fn is_empty<T>(list: &OneOrMany<T>) -> bool {
    list.0.is_empty()
}
