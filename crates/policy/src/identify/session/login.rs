//! A login under way: what the gateway must know again when the browser comes back, sealed in a cookie of its own for each.
//!
//! So two tabs can log in at once. What comes back belongs to this browser and this login, or it is refused: nobody can have somebody
//! else finish a login of theirs (RFC 6749 §10.12, RFC 9700 §4.7).

use std::fmt;

use http::{HeaderMap, HeaderValue};
use pylon_core::secret::Secret;
use pylon_upstream::oauth::Form;
use serde::{Deserialize, Serialize};

use super::cookies::Jar;
use super::pkce::{challenge, fresh};
use super::ring::Ring;

/// How long a login may take, in seconds.
pub(super) const LASTS: u64 = 600;
/// How many may be under way in one browser.
pub(super) const MOST: usize = 5;

/// A login under way.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Login {
    /// What the issuer brings back.
    #[serde(rename = "s")]
    pub(super) state: String,
    /// What stands in the ID token.
    #[serde(rename = "n")]
    pub(super) nonce: String,
    /// What proves that the code is ours (RFC 7636).
    #[serde(rename = "v")]
    pub(super) verifier: String,
    /// Where the browser goes afterwards.
    #[serde(rename = "t")]
    pub(super) to: String,
    /// Where the issuer sends it back to.
    #[serde(rename = "u")]
    pub(super) uri: String,
    /// When it began, in seconds since 1970.
    #[serde(rename = "a")]
    pub(super) at: u64,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("to", &self.to).field("at", &self.at).finish_non_exhaustive()
    }
}

/// Where logins are sealed and kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Desk<'a> {
    pub(super) ring: &'a Ring,
    pub(super) jar: Jar<'a>,
    /// What envelopes are bound to.
    pub(super) bound: &'a [u8],
}

impl Login {
    /// A new one; none where the system gives no random numbers.
    pub(super) fn begin(to: &str, uri: String, now: u64) -> Option<Self> {
        Some(Self { state: fresh()?, nonce: fresh()?, verifier: fresh()?, to: to.to_owned(), uri, at: now })
    }

    /// What is asked of the issuer (OpenID Connect Core 1.0 §3.1.2.1).
    pub(super) fn form(&self, client: &str, scopes: &str, params: &[(Box<str>, Box<str>)]) -> Form {
        let form = Form::default()
            .with("response_type", "code")
            .with("client_id", client)
            .with("redirect_uri", &self.uri)
            .with("scope", scopes)
            .with("state", &self.state)
            .with("nonce", &self.nonce)
            .with("code_challenge", challenge(&self.verifier))
            .with("code_challenge_method", "S256");
        params.iter().fold(form, |form, (name, value)| form.with(name, &**value))
    }

    fn is_over(&self, now: u64) -> bool {
        now >= self.at.saturating_add(LASTS)
    }
}

impl Desk<'_> {
    /// The cookies by which a browser keeps `login`: beside others that are under way, of which the oldest go if there are too many.
    pub(super) fn keep(&self, login: &Login, headers: &HeaderMap, now: u64) -> Option<Vec<HeaderValue>> {
        let content = serde_json::to_vec(login).ok()?;
        let envelope = self.ring.seal(self.bound, &content)?;
        let mut others = Vec::new();
        for (name, envelope) in self.jar.logins(headers) {
            // What cannot be read, or is over, is the oldest.
            let at = self.open(envelope).filter(|other| !other.is_over(now)).map_or(0, |other| other.at);
            others.push((at, name));
        }
        others.sort_unstable();
        let over = others.iter().filter(|(at, _)| *at == 0).count();
        let gone = over.max(others.len().saturating_sub(MOST.saturating_sub(1)));
        let mut lines: Vec<_> = others.iter().take(gone).filter_map(|(_, name)| self.jar.forget_login(name)).collect();
        lines.push(self.jar.write_login(&login.state, &envelope, LASTS)?);
        Some(lines)
    }

    /// The login that `state` belongs to, if this browser began it and it is not over.
    pub(super) fn find(&self, state: &str, headers: &HeaderMap, now: u64) -> Option<Login> {
        let login = self.open(self.jar.login(headers, state)?)?;
        let same = Secret::new(&login.state).matches(state.as_bytes());
        (same && !login.is_over(now)).then_some(login)
    }

    fn open(&self, envelope: &[u8]) -> Option<Login> {
        let opened = self.ring.open(self.bound, envelope)?;
        serde_json::from_slice(&opened.content).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identify::session::cookies::Names;
    use crate::testing::Seen;
    use pylon_core::connection::Scheme;

    const NOW: u64 = 1_000_000;

    fn ring() -> Ring {
        Ring::new([&Secret::new("x".repeat(32))]).unwrap()
    }

    fn with_desk<T>(work: impl FnOnce(&Desk<'_>) -> T) -> T {
        let (ring, names) = (ring(), Names::new("s"));
        work(&Desk { ring: &ring, jar: names.of(Scheme::Https), bound: b"login" })
    }

    fn login(to: &str, at: u64) -> Login {
        Login::begin(to, "https://shop.test/.session/callback".to_owned(), at).unwrap()
    }

    /// What a browser keeps after these lines.
    fn browser(before: &[String], lines: &[HeaderValue]) -> Vec<String> {
        let mut kept = before.to_vec();
        for line in lines {
            let line = line.to_str().unwrap();
            let pair = line.split(';').next().unwrap();
            let name = pair.split_once('=').unwrap().0;
            kept.retain(|other| other.split_once('=').unwrap().0 != name);
            if !line.contains("Max-Age=0;") {
                kept.push(pair.to_owned());
            }
        }
        kept
    }

    fn headers(kept: &[String]) -> HeaderMap {
        Seen::get("/").header("cookie", &kept.join("; ")).start().0.headers().clone()
    }

    #[test]
    fn a_login_is_found_again_by_its_state_and_by_no_other() {
        with_desk(|desk| {
            let (one, other) = (login("/a", NOW), login("/b", NOW));
            let kept = browser(&[], &desk.keep(&one, &HeaderMap::new(), NOW).unwrap());
            let kept = browser(&kept, &desk.keep(&other, &headers(&kept), NOW).unwrap());
            let headers = headers(&kept);
            assert_eq!(desk.find(&one.state, &headers, NOW).unwrap(), one);
            assert_eq!(desk.find(&other.state, &headers, NOW + LASTS - 1).unwrap(), other);
            assert_eq!(desk.find(&one.state, &headers, NOW + LASTS), None, "it is over");
            assert_eq!(desk.find(&one.state, &HeaderMap::new(), NOW), None, "another browser began it");
            let near = format!("{}x", &one.state[..one.state.len() - 1]);
            assert_eq!(desk.find(&near, &headers, NOW), None);
            assert_eq!(desk.find("", &headers, NOW), None);
            let foreign = Desk { bound: b"session", ..*desk };
            assert_eq!(foreign.find(&one.state, &headers, NOW), None);
        });
    }

    #[test]
    fn a_browser_keeps_a_few_logins_and_the_oldest_go() {
        with_desk(|desk| {
            let (mut kept, mut all) = (vec!["__Host-s-login-garbage=x".to_owned()], Vec::new());
            for number in 0..8 {
                let login = login("/", NOW + number);
                kept = browser(&kept, &desk.keep(&login, &headers(&kept), NOW + number).unwrap());
                all.push(login);
                assert!(kept.len() <= MOST);
            }
            let found = |login: &&Login| desk.find(&login.state, &headers(&kept), NOW + 8).is_some();
            let left: Vec<u64> = all.iter().filter(found).map(|login| login.at - NOW).collect();
            assert_eq!(left, [3, 4, 5, 6, 7]);
            let later = login("/", NOW + LASTS + 5);
            kept = browser(&kept, &desk.keep(&later, &headers(&kept), NOW + LASTS + 5).unwrap());
            assert_eq!(kept.len(), 3, "those that are over are gone");
        });
    }

    #[test]
    fn an_issuer_is_asked_for_a_code_that_is_bound_to_this_login() {
        let login = login("/a", NOW);
        let form = login.form("shop", "openid email", &[("prompt".into(), "login".into())]);
        let text = form.text();
        for member in [
            "response_type=code&client_id=shop",
            "redirect_uri=https%3A%2F%2Fshop.test%2F.session%2Fcallback",
            "scope=openid+email",
            &format!("state={}&nonce={}", login.state, login.nonce),
            &format!("code_challenge={}&code_challenge_method=S256", challenge(&login.verifier)),
            "prompt=login",
        ] {
            assert!(text.contains(member), "{member}: {text}");
        }
        assert!(!text.contains(&login.verifier) && !format!("{login:?}").contains(&login.verifier));
    }
}
