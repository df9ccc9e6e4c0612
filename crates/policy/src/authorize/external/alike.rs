//! Says which requests are alike, so that a verdict on one counts for the other.

use http::{HeaderMap, HeaderName};
use pylon_core::exchange::Exchange;

/// The longest key, in bytes; a request with a longer one is asked about by itself.
const LONGEST_KEY: usize = 4096;

/// What has to be the same for two requests to be alike.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct By(pub(super) Box<[Part]>);

/// One part of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Method,
    /// Path and query, as the client asked and as they are sent.
    Path,
    Host,
    Client,
    Header(HeaderName),
}

impl Part {
    pub(super) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "method" => Self::Method,
            "path" => Self::Path,
            "host" => Self::Host,
            "client" => Self::Client,
            name => Self::Header(HeaderName::try_from(name).ok()?),
        })
    }
}

impl By {
    /// The key of a request: each part with its length, so that no two requests that differ have the same. All that is known of the
    /// caller is part of it, since the service is told. None where it is too long, or where the request has no header of those named.
    pub(super) fn key(&self, headers: &HeaderMap, cx: &Exchange) -> Option<Box<[u8]>> {
        let mut key = Vec::with_capacity(256);
        let (mut personal, mut said) = (false, cx.caller.is_some());
        if let Some(caller) = cx.caller.as_deref() {
            for (_, name, value) in super::facts(caller) {
                put(&mut key, name.as_bytes());
                put(&mut key, value.as_bytes());
            }
        }
        for part in &self.0 {
            match part {
                Part::Method => put(&mut key, cx.method.as_str().as_bytes()),
                Part::Path => {
                    put(&mut key, cx.path.as_str().as_bytes());
                    put(&mut key, cx.sent_path().as_str().as_bytes());
                }
                Part::Host => put(&mut key, cx.host.as_deref().unwrap_or_default().as_bytes()),
                Part::Client => put(&mut key, cx.client.to_canonical().to_string().as_bytes()),
                Part::Header(name) => {
                    personal = true;
                    let lines = headers.get_all(name);
                    key.extend_from_slice(&lines.iter().count().to_be_bytes());
                    for line in lines {
                        said = true;
                        put(&mut key, line.as_bytes());
                    }
                }
            }
        }
        (key.len() <= LONGEST_KEY && (said || !personal)).then(|| key.into())
    }
}

fn put(key: &mut Vec<u8>, part: &[u8]) {
    key.extend_from_slice(&part.len().to_be_bytes());
    key.extend_from_slice(part);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing::Seen;
    use pylon_core::caller::Caller;

    fn key(by: &[&str], seen: &Seen) -> Option<Box<[u8]>> {
        let (req, cx) = seen.start();
        By(by.iter().map(|part| Part::parse(part).unwrap()).collect()).key(req.headers(), &cx)
    }

    #[test]
    fn requests_are_alike_where_all_that_is_named_is_the_same() {
        let all = ["authorization", "method", "path", "host", "client"];
        let seen = Seen::get("/a?b=1").host("h").header("authorization", "x");
        let first = key(&all, &seen).unwrap();
        assert_eq!(key(&all, &seen.clone().header("x-other", "1")).as_ref(), Some(&first));
        for other in [
            Seen::get("/a?b=2").host("h").header("authorization", "x"),
            Seen::get("/a").host("h").header("authorization", "x"),
            Seen::options("/a?b=1").host("h").header("authorization", "x"),
            Seen::get("/a?b=1").host("i").header("authorization", "x"),
            Seen::get("/a?b=1").host("h").header("authorization", "y"),
            seen.clone().header("authorization", "x"),
            seen.clone().client("192.0.2.2"),
        ] {
            assert_ne!(key(&all, &other).unwrap(), first, "{other:?}");
        }
        // No part runs over into the next.
        let two = |a, b| key(&["a", "b"], &Seen::get("/").header("a", a).header("b", b));
        assert_ne!(two("xy", "z"), two("x", "yz"));
    }

    #[test]
    fn whoever_shows_nothing_is_like_nobody() {
        assert_eq!(key(&["authorization", "path"], &Seen::get("/")), None);
        assert!(key(&["path"], &Seen::get("/")).is_some());
        assert!(key(&["authorization", "cookie"], &Seen::get("/").header("cookie", "a=1")).is_some());
        assert_eq!(key(&["a"], &Seen::get("/").header("a", &"x".repeat(LONGEST_KEY))), None);
    }

    #[test]
    fn callers_of_whom_different_things_are_known_are_not_alike() {
        let by = By([Part::Header(HeaderName::from_static("cookie"))].into());
        let (req, mut cx) = Seen::get("/").header("cookie", "a=1").start();
        let mut keys = vec![by.key(req.headers(), &cx).unwrap()];
        let ann = Caller { by: "jwt", subject: "ann".into(), ..Caller::default() };
        let writes = Caller { scopes: ["write".into()].into(), ..ann.clone() };
        let mut claims = ann.clone();
        claims.claims.insert("tenant".into(), "acme".into());
        for caller in [Caller { by: "api_key", ..ann.clone() }, ann, writes, claims] {
            cx.caller = Some(Arc::new(caller));
            keys.push(by.key(req.headers(), &cx).unwrap());
        }
        assert!(keys.iter().enumerate().all(|(i, key)| !keys[..i].contains(key)));
    }
}
