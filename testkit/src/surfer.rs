//! A browser without pages: it keeps cookies as RFC 6265bis says, follows redirects, and sends what a person would type at the identity
//! provider of the tests.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::client;
use crate::message::Message;

/// What a browser says that goes to a page.
pub const PAGE: (&str, &str) = ("accept", "text/html,application/xhtml+xml");

/// A browser. Clones have the same cookies at first.
#[derive(Debug, Clone, Default)]
pub struct Surfer {
    cookies: BTreeMap<Key, String>,
}

/// By what a cookie is told from others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    /// Host and port.
    host: String,
    /// Below which path it is sent.
    path: String,
    name: String,
}

/// An answer, and where it came from.
#[derive(Debug)]
pub struct Landed {
    /// The address of the page.
    pub url: String,
    /// The answer.
    pub answer: Message,
}

impl Surfer {
    /// Goes to a page without following redirects.
    pub fn visit(&mut self, url: &str) -> Message {
        self.ask("GET", url, &[PAGE], b"")
    }

    /// Asks for something.
    ///
    /// # Panics
    /// If `url` is no `http://` address of numbers.
    pub fn ask(&mut self, method: &str, url: &str, fields: &[(&str, &str)], body: &[u8]) -> Message {
        let (host, path) = parts(url);
        let address: SocketAddr = host.parse().expect("an address of numbers");
        let cookies: Vec<String> = (self.cookies.iter())
            .filter(|(key, _)| key.host == host && path.starts_with(&key.path))
            .map(|(key, value)| format!("{}={value}", key.name))
            .collect();
        let cookies = cookies.join("; ");
        let mut all = vec![("host", host)];
        if !cookies.is_empty() {
            all.push(("cookie", &cookies));
        }
        all.extend(fields);
        let answer = client::ask(address, method, path, &all, body);
        self.keep(host, &answer);
        answer
    }

    /// Goes to a page, wherever it leads.
    ///
    /// # Panics
    /// If it leads nowhere.
    pub fn follow(&mut self, url: &str) -> Landed {
        let mut url = url.to_owned();
        for _ in 0..12 {
            let answer = self.visit(&url);
            match answer.field("location") {
                Some(location) if answer.status() / 100 == 3 => url = resolved(&url, &location),
                _ => return Landed { url, answer },
            }
        }
        panic!("it never ends: {url}");
    }

    /// Logs in where the identity provider asks for a name, and goes where that leads.
    ///
    /// # Panics
    /// If nobody asks for a name there.
    pub fn log_in(&mut self, at: &Landed, name: &str) -> Landed {
        let back = self.name_given(at, name);
        self.follow(&back)
    }

    /// The same up to the address to which the identity provider sends the browser back.
    ///
    /// # Panics
    /// If nobody asks for a name there.
    pub fn name_given(&mut self, at: &Landed, name: &str) -> String {
        assert!(at.url.contains("/interaction/"), "nobody asks for a name at {}: {}", at.url, at.answer.text());
        let provider = parts(&at.url).0.to_owned();
        let body = format!("prompt=login&login={name}&password=x");
        let form = [PAGE, ("content-type", "application/x-www-form-urlencoded")];
        let mut answer = self.ask("POST", &at.url, &form, body.as_bytes());
        let mut url = at.url.clone();
        loop {
            let location = answer.field("location").unwrap_or_else(|| panic!("{url}: {}", answer.text()));
            url = resolved(&url, &location);
            if parts(&url).0 != provider {
                return url;
            }
            answer = self.visit(&url);
        }
    }

    /// A browser that has the cookies of one site for another one as well, as if both were the same behind a balancer.
    #[must_use]
    pub fn also_at(&self, from: &str, to: &str) -> Self {
        let (from, to) = (parts(from).0, parts(to).0);
        let mut all = self.clone();
        for (key, value) in self.cookies.iter().filter(|(key, _)| key.host == from) {
            all.cookies.insert(Key { host: to.to_owned(), ..key.clone() }, value.clone());
        }
        all
    }

    /// The value of a cookie that it keeps for a host.
    pub fn value(&self, url: &str, name: &str) -> Option<&str> {
        let host = parts(url).0;
        self.cookies.iter().find(|(key, _)| key.host == host && key.name == name).map(|(_, value)| value.as_str())
    }

    /// Has it keep another value in the place of one that it keeps.
    ///
    /// # Panics
    /// If it keeps none of this name.
    #[must_use]
    pub fn with_value(&self, url: &str, name: &str, value: &str) -> Self {
        let (host, mut all) = (parts(url).0, self.clone());
        let kept = all.cookies.iter_mut().find(|(key, _)| key.host == host && key.name == name);
        value.clone_into(kept.expect("a cookie of this name").1);
        all
    }

    /// The names of the cookies that it keeps for a host.
    pub fn names(&self, url: &str) -> Vec<String> {
        let host = parts(url).0;
        self.cookies.keys().filter(|key| key.host == host).map(|key| key.name.clone()).collect()
    }

    fn keep(&mut self, host: &str, answer: &Message) {
        for (_, line) in answer.fields.iter().filter(|(name, _)| name == "set-cookie") {
            let mut parts = line.split(';').map(str::trim);
            let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else { continue };
            let over = |part: &str| {
                let part = part.to_ascii_lowercase();
                part == "max-age=0" || part.starts_with("expires=thu, 01 jan 1970")
            };
            let path = parts.clone().find_map(|part| part.strip_prefix("Path=").or(part.strip_prefix("path=")));
            let path = path.unwrap_or("/").to_owned();
            let key = Key { host: host.to_owned(), path, name: name.to_owned() };
            if parts.any(over) {
                self.cookies.remove(&key);
            } else {
                assert!(name.len() + value.len() <= 4096, "browsers do not keep {name}");
                self.cookies.insert(key, value.to_owned());
            }
        }
    }
}

/// Host and port, and what stands behind them.
fn parts(url: &str) -> (&str, &str) {
    let rest = url.strip_prefix("http://").unwrap_or_else(|| panic!("no address: {url}"));
    match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, "/"),
    }
}

fn resolved(base: &str, location: &str) -> String {
    if location.starts_with('/') { format!("http://{}{location}", parts(base).0) } else { location.to_owned() }
}
