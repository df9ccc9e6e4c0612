//! Names of header fields that a document may touch, and their removal in every spelling.
//!
//! Many servers read `X_User_Id` and `X-User-Id` as one (CGI turns both into `HTTP_X_USER_ID`), so a client could smuggle
//! one spelling past a gateway that removes only the other.

use http::{HeaderMap, HeaderName};
use smallvec::SmallVec;

use crate::kept;

pub mod trailers;

/// What the gateway writes itself, with what to do instead. `*` at the end stands for any rest.
const MANAGED: &[(&str, &str)] = &[
    ("host", "the host that is sent is changed by `rewrite: { host: … }`"),
    ("content-length", FRAMING),
    ("transfer-encoding", FRAMING),
    ("trailer", FRAMING),
    ("te", FRAMING),
    ("expect", FRAMING),
    ("connection", HOP),
    ("keep-alive", HOP),
    ("proxy-connection", HOP),
    ("upgrade", HOP),
    ("http2-settings", HOP),
    ("x-forwarded-*", VOUCHED),
    ("forwarded", VOUCHED),
    ("via", VOUCHED),
    ("x-request-id", VOUCHED),
];
const FRAMING: &str = "the gateway writes it, by the body that it sends: take this line out";
const HOP: &str = "it belongs to one connection and is never passed on: take this line out";
const VOUCHED: &str = "services must be able to trust it, so only the gateway writes it: choose another name";

/// What is wrong with a name as written, and what to do instead.
#[derive(Debug, PartialEq, Eq)]
pub struct BadName {
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub help: String,
}

/// Reads the name of a header that a document may set or remove.
pub fn parse(text: &str) -> Result<HeaderName, BadName> {
    let name = HeaderName::from_bytes(text.as_bytes()).map_err(|_| BadName {
        problem: format!("`{text}` is not a header name"),
        help: "a name is made of letters, digits and `-`, such as `x-tenant`".into(),
    })?;
    let dashed = dashed(&name);
    let is = |managed: &str| managed.strip_suffix('*').map_or(dashed == managed, |start| dashed.starts_with(start));
    match MANAGED.iter().find(|(managed, _)| is(managed)) {
        Some((_, help)) => {
            Err(BadName { problem: format!("`{text}` is written by the gateway"), help: (*help).into() })
        }
        None => Ok(name),
    }
}

/// The spelling with hyphens alone: two names that agree in it are alike.
pub fn dashed(name: &HeaderName) -> String {
    name.as_str().replace('_', "-")
}

/// Names whose every spelling is removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alike {
    names: Box<[HeaderName]>,
    /// A bit for each length that a name has, by which most headers of a request are passed over.
    lengths: u64,
}

impl Alike {
    /// The set of `names`.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a HeaderName>) -> Self {
        // A name with hyphens in place of underscores is as valid as it was.
        let dashed = names.into_iter().filter_map(|name| HeaderName::try_from(dashed(name)).ok());
        let names: Box<[HeaderName]> = dashed.map(|name| kept::name(&name)).collect();
        let lengths = names.iter().fold(0, |lengths, name| lengths | bit(name));
        Self { names, lengths }
    }

    /// Whether there is nothing to remove.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Takes all of them away. One look over the names that came is cheaper than a search for each of ours.
    pub fn remove_from(&self, headers: &mut HeaderMap) {
        let found: SmallVec<[HeaderName; 2]> = headers.keys().filter(|key| self.has(key)).cloned().collect();
        for name in found {
            headers.remove(name);
        }
    }

    fn has(&self, key: &HeaderName) -> bool {
        self.lengths & bit(key) != 0
            && self.names.iter().any(|name| is_alike(name.as_str().as_bytes(), key.as_str().as_bytes()))
    }
}

/// The bit that stands for the length of a name; long names share the last.
fn bit(name: &HeaderName) -> u64 {
    1 << name.as_str().len().min(63)
}

/// Whether `key` is `dashed` but for underscores in place of hyphens.
fn is_alike(dashed: &[u8], key: &[u8]) -> bool {
    dashed.len() == key.len() && dashed.iter().zip(key).all(|(a, b)| a == b || (*a == b'-' && *b == b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    #[test]
    fn what_the_gateway_vouches_for_is_refused_in_every_spelling() {
        for name in [
            "host",
            "Content-Length",
            "X-Forwarded-For",
            "x_forwarded_for",
            "X-Forwarded-Anything",
            "Via",
            "x-request_id",
            "TE",
        ] {
            assert!(parse(name).is_err(), "{name}");
        }
        assert!(parse("x y").is_err() && parse("").is_err() && parse(":path").is_err());
        assert_eq!(parse("X-Tenant").map(|name| name.to_string()), Ok("x-tenant".into()));
    }

    proptest! {
        #[test]
        fn no_spelling_of_a_name_survives(name in "[a-z]{1,3}([-_][a-z]{1,3}){0,3}", flips in any::<u8>()) {
            let mut nth = 0;
            let spelling: String = name.chars().map(|c| if c == '-' || c == '_' {
                nth += 1;
                if flips >> nth & 1 == 1 { '_' } else { '-' }
            } else { c }).collect();
            let mut headers = HeaderMap::new();
            headers.append(HeaderName::try_from(&spelling).unwrap(), HeaderValue::from_static("forged"));
            headers.append("x-other_name", HeaderValue::from_static("stays"));
            Alike::new([&HeaderName::try_from(&name).unwrap()]).remove_from(&mut headers);
            prop_assert!(!headers.contains_key(&spelling));
            prop_assert!(headers.contains_key("x-other_name"));
        }
    }
}
