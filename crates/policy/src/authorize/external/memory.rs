//! Remembers for a while which requests were let pass, so that one like them need not be asked about, and lets requests that are alike
//! wait for one question. Each worker remembers for itself; time is an argument.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, HeaderName};
use pylon_core::exchange::Exchange;
use tokio::sync::watch;

use super::Verdict;

/// What a worker remembers at most, in verdicts; as many again may be on their way out.
const MOST: usize = 4096;
/// How many questions a worker waits for at most, on behalf of requests that are alike.
const MOST_FLIGHTS: usize = 4096;
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

/// What a question came to; none until then.
pub(super) type News = watch::Receiver<Option<Arc<Verdict>>>;
/// Whoever tells.
pub(super) type Tell = watch::Sender<Option<Arc<Verdict>>>;

/// What one worker remembers.
#[derive(Debug, Default)]
pub(super) struct Memory {
    new: HashMap<Box<[u8]>, Passed>,
    old: HashMap<Box<[u8]>, Passed>,
    flights: HashMap<Box<[u8]>, News>,
}

#[derive(Debug, Clone)]
struct Passed {
    verdict: Arc<Verdict>,
    until: Instant,
}

/// What is known of a request.
#[derive(Debug)]
pub(super) enum Known {
    /// One like it was let pass.
    Passed(Arc<Verdict>),
    /// One like it is being asked about.
    Asked(News),
    /// Nothing; whoever asks is to tell what comes of it.
    Nothing(Tell),
    /// Nothing, and there is no room for more.
    Full,
}

impl Memory {
    /// Looks for a request.
    pub(super) fn look(&mut self, key: &[u8], now: Instant) -> Known {
        if let Some(verdict) = self.find(key, now) {
            return Known::Passed(verdict);
        }
        // One whose teller is gone came to no end.
        if let Some(news) = self.flights.get(key).filter(|news| news.has_changed().is_ok()) {
            return Known::Asked(news.clone());
        }
        if self.flights.len() >= MOST_FLIGHTS {
            return Known::Full;
        }
        let (tell, news) = watch::channel(None);
        self.flights.insert(key.into(), news);
        Known::Nothing(tell)
    }

    /// A question has come to an end. What was let pass is remembered until `until`.
    pub(super) fn settle(&mut self, key: Box<[u8]>, passed: Option<&Arc<Verdict>>, until: Instant) {
        self.flights.remove(&key);
        if let Some(verdict) = passed {
            self.keep(key, Passed { verdict: Arc::clone(verdict), until });
        }
    }

    fn find(&mut self, key: &[u8], now: Instant) -> Option<Arc<Verdict>> {
        if let Some(passed) = self.new.get(key) {
            return (passed.until > now).then(|| Arc::clone(&passed.verdict));
        }
        let (key, passed) = self.old.remove_entry(key)?;
        let verdict = (passed.until > now).then(|| Arc::clone(&passed.verdict))?;
        self.keep(key, passed);
        Some(verdict)
    }

    fn keep(&mut self, key: Box<[u8]>, passed: Passed) {
        if self.new.len() >= MOST {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(key, passed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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

    #[expect(clippy::disallowed_methods, reason = "a moment to count from")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn one_question_is_asked_for_all_that_are_alike_and_its_verdict_counts_until_its_end() {
        let (mut memory, now) = (Memory::default(), start());
        let secs = Duration::from_secs;
        let Known::Nothing(tell) = memory.look(b"a", now) else { panic!("nothing is known") };
        let Known::Asked(news) = memory.look(b"a", now) else { panic!("it is asked about") };
        let verdict = Arc::new(Verdict::Pass(Box::default()));
        memory.settle(Box::from(*b"a"), Some(&verdict), now + secs(10));
        tell.send_replace(Some(verdict));
        assert!(news.borrow().is_some());
        assert!(matches!(memory.look(b"a", now + secs(9)), Known::Passed(_)));
        assert!(matches!(memory.look(b"a", now + secs(10)), Known::Nothing(_)));
        memory.settle(Box::from(*b"a"), None, now);
        assert!(matches!(memory.look(b"b", now), Known::Nothing(_)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut memory, now) = (Memory::default(), start());
        let verdict = Arc::new(Verdict::Pass(Box::default()));
        for number in 0..5 * MOST {
            memory.settle(number.to_string().into_bytes().into(), Some(&verdict), now + Duration::from_secs(9));
        }
        assert!(memory.new.len() + memory.old.len() <= 2 * MOST);
        let _asked: Vec<_> = (0..2 * MOST_FLIGHTS).map(|n| memory.look(format!("f{n}").as_bytes(), now)).collect();
        assert_eq!(memory.flights.len(), MOST_FLIGHTS);
        assert!(matches!(memory.look(b"more", now), Known::Full));
    }
}
