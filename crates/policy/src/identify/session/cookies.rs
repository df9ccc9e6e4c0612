//! The cookies that a browser keeps for the gateway (RFC 6265bis): a session, in as many parts as it needs, and a few logins under way.
//!
//! Under HTTPS their names begin with `__Host-`, by which browsers keep other hosts and cleartext from writing them. All are `HttpOnly`,
//! `SameSite=Lax` and, under HTTPS, `Secure`. Browsers take up to 4 KiB for name and value together; what is longer goes into
//! parts, whose number stands before the first, and what parts of different writings come to does not open.

use std::borrow::Cow;
use std::fmt::Write as _;

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use pylon_core::Request;
use pylon_core::connection::Scheme;

use crate::identity::{crumbs, without_cookies};

/// The longest value of one cookie, in bytes: name and value have 4096 (RFC 6265bis §5.6), of which a name has up to 160.
const PART: usize = 3900;
/// The most parts of a session.
pub(super) const PARTS: usize = 8;
/// How much of a state tells logins apart, in letters.
const TAG: usize = 12;

/// The names of cookies.
#[derive(Debug)]
pub(super) struct Names {
    secure: Box<str>,
    plain: Box<str>,
}

/// The cookies of one scheme.
#[derive(Debug, Clone, Copy)]
pub(super) struct Jar<'n> {
    name: &'n str,
    secure: bool,
}

/// A session as it stands in a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kept<'h> {
    /// There is none.
    Nothing,
    /// There is one, in one cookie: its whole `name=value`, and the envelope.
    Whole(&'h [u8], &'h [u8]),
    /// There is one, in several.
    Parts(Vec<u8>),
    /// What is there cannot be a session.
    Broken,
}

impl Names {
    pub(super) fn new(name: &str) -> Self {
        Self { secure: format!("__Host-{name}").into(), plain: name.into() }
    }

    /// Those of the scheme that a browser uses.
    pub(super) fn of(&self, scheme: Scheme) -> Jar<'_> {
        match scheme {
            Scheme::Https => Jar { name: &self.secure, secure: true },
            Scheme::Http => Jar { name: &self.plain, secure: false },
        }
    }

    /// Takes all cookies of the gateway out of a request, of whatever scheme.
    pub(super) fn strip(&self, req: &mut Request) {
        let (secure, plain) = (Jar { name: &self.secure, secure: true }, Jar { name: &self.plain, secure: false });
        let is_ours = |crumb: &[u8]| {
            // Some servers take a cookie without a value for one of this name.
            let name = crumb.split(|byte| *byte == b'=').next().unwrap_or_default();
            secure.owns(name) || plain.owns(name)
        };
        let has = |line: &HeaderValue| crumbs(line.as_bytes()).any(is_ours);
        if req.headers().get_all(COOKIE).iter().any(has) {
            without_cookies(req, is_ours);
        }
    }
}

impl<'n> Jar<'n> {
    /// What envelopes in these cookies are bound to, beside the policy.
    pub(super) fn name(&self) -> &'n str {
        self.name
    }

    /// The session in a request.
    pub(super) fn session<'h>(&self, headers: &'h HeaderMap) -> Kept<'h> {
        let mut parts: [Option<&[u8]>; PARTS] = [None; PARTS];
        let mut whole = None;
        for (crumb, name, value) in cookies(headers) {
            let Some(slot) = self.place(name).and_then(|place| parts.get_mut(place)) else { continue };
            // A second of the same name was not written here: who wrote it is not known.
            if slot.replace(value).is_some() {
                return Kept::Broken;
            }
            if name.len() == self.name.len() {
                whole = Some(crumb);
            }
        }
        let Some((crumb, [first, rest @ ..])) = whole.zip(Some(parts)) else { return Kept::Nothing };
        let Some((count, first)) = first.and_then(numbered) else { return Kept::Broken };
        if count == 1 {
            return Kept::Whole(crumb, first);
        }
        let rest: Option<Vec<&[u8]>> = rest.into_iter().take(count.saturating_sub(1)).collect();
        match rest {
            Some(rest) => Kept::Parts([&[first], &rest[..]].concat().concat()),
            None => Kept::Broken,
        }
    }

    /// The envelope of the login whose state begins like `state`.
    pub(super) fn login<'h>(&self, headers: &'h HeaderMap, state: &str) -> Option<&'h [u8]> {
        let wanted = self.login_name(state)?;
        let mut found = cookies(headers).filter(|(_, name, _)| *name == wanted.as_bytes()).map(|(.., value)| value);
        let login = found.next()?;
        found.next().is_none().then_some(login)
    }

    /// All logins in a request: name and envelope.
    pub(super) fn logins<'h>(&self, headers: &'h HeaderMap) -> Vec<(&'h str, &'h [u8])> {
        let login = |(_, name, value): (_, &'h [u8], &'h [u8])| {
            let tag = name.strip_prefix(self.name.as_bytes())?.strip_prefix(b"-login-")?;
            (!tag.is_empty()).then_some((std::str::from_utf8(name).ok()?, value))
        };
        cookies(headers).filter_map(login).collect()
    }

    /// Writes a session that browsers keep for so many seconds, and takes away parts that one before it had; none where it is too
    /// long for cookies.
    pub(super) fn write(&self, envelope: &str, seconds: u64, headers: &HeaderMap) -> Option<Vec<HeaderValue>> {
        let parts: Vec<&[u8]> = envelope.as_bytes().chunks(PART).collect();
        if parts.len() > PARTS {
            return None;
        }
        let mut lines = Vec::with_capacity(parts.len());
        for (place, part) in parts.iter().enumerate() {
            let count = if place == 0 { format!("{}.", parts.len()) } else { String::new() };
            let value = format!("{count}{}", std::str::from_utf8(part).ok()?);
            lines.push(self.line(&self.part_name(place), &value, seconds)?);
        }
        lines.extend(self.surplus(headers, parts.len()));
        Some(lines)
    }

    /// Takes the session away.
    pub(super) fn forget(&self, headers: &HeaderMap) -> Vec<HeaderValue> {
        self.surplus(headers, 0)
    }

    /// Writes a login that browsers keep for so many seconds.
    pub(super) fn write_login(&self, state: &str, envelope: &str, seconds: u64) -> Option<HeaderValue> {
        self.line(&self.login_name(state)?, envelope, seconds)
    }

    /// Takes a login away.
    pub(super) fn forget_login(&self, name: &str) -> Option<HeaderValue> {
        self.line(name, "", 0)
    }

    /// The name of the cookie of the login with this state.
    pub(super) fn login_name(&self, state: &str) -> Option<String> {
        let tag = state.get(..TAG)?;
        let valid = tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        valid.then(|| format!("{}-login-{tag}", self.name))
    }

    /// The parts of a session in a request from this one on, as lines that take them away.
    fn surplus(&self, headers: &HeaderMap, from: usize) -> Vec<HeaderValue> {
        let mut places: Vec<usize> = cookies(headers).filter_map(|(_, name, _)| self.place(name)).collect();
        places.sort_unstable();
        places.dedup();
        let gone = places.into_iter().filter(|place| *place >= from);
        gone.filter_map(|place| self.line(&self.part_name(place), "", 0)).collect()
    }

    fn line(&self, name: &str, value: &str, seconds: u64) -> Option<HeaderValue> {
        let mut line = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax");
        if self.secure {
            line.push_str("; Secure");
        }
        let mut line = HeaderValue::from_maybe_shared(bytes::Bytes::from(line)).ok()?;
        line.set_sensitive(true);
        Some(line)
    }

    fn part_name(&self, place: usize) -> Cow<'n, str> {
        if place == 0 {
            return self.name.into();
        }
        let mut name = format!("{}-", self.name);
        // Writing to a string does not fail.
        let _written = write!(name, "{place}");
        name.into()
    }

    /// Which part of a session has this name.
    fn place(&self, name: &[u8]) -> Option<usize> {
        let rest = name.strip_prefix(self.name.as_bytes())?;
        match rest {
            [] => Some(0),
            [b'-', digit @ b'1'..=b'9'] => Some(usize::from(digit.wrapping_sub(b'0'))).filter(|place| *place < PARTS),
            _ => None,
        }
    }

    fn owns(&self, name: &[u8]) -> bool {
        let rest = name.strip_prefix(self.name.as_bytes());
        self.place(name).is_some() || rest.is_some_and(|rest| rest.starts_with(b"-login-"))
    }
}

/// All cookies of a request: whole, name and value.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8], &[u8])> {
    headers.get_all(COOKIE).iter().flat_map(|line| crumbs(line.as_bytes())).filter_map(|crumb| {
        let equals = crumb.iter().position(|byte| *byte == b'=')?;
        Some((crumb, crumb.get(..equals)?, crumb.get(equals.saturating_add(1)..)?))
    })
}

/// The number of parts, and what stands behind it.
fn numbered(value: &[u8]) -> Option<(usize, &[u8])> {
    let (count, rest) = value.split_first()?;
    let count = usize::from(count.checked_sub(b'0')?);
    (1..=PARTS).contains(&count).then_some(())?;
    Some((count, rest.strip_prefix(b".")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Seen;
    use proptest::prelude::*;

    /// What a browser that keeps to the rules sends after these lines were set.
    fn sent(lines: &[HeaderValue], before: &[(String, String)]) -> Vec<(String, String)> {
        let mut kept = before.to_vec();
        for line in lines {
            let line = line.to_str().unwrap();
            let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
            assert!(name.len() + value.len() <= 4096);
            kept.retain(|(other, _)| other != name);
            if !line.contains("Max-Age=0;") {
                kept.push((name.to_owned(), value.to_owned()));
            }
        }
        kept
    }

    fn request(cookies: &[(String, String)]) -> Request {
        let line: Vec<String> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        Seen::get("/").header("cookie", &line.join("; ")).start().0
    }

    fn envelope(jar: Jar<'_>, req: &Request) -> Option<Vec<u8>> {
        match jar.session(req.headers()) {
            Kept::Whole(crumb, envelope) => {
                assert!(crumb.ends_with(envelope));
                Some(envelope.to_vec())
            }
            Kept::Parts(envelope) => Some(envelope),
            Kept::Nothing | Kept::Broken => None,
        }
    }

    #[test]
    fn cookies_are_for_this_host_alone_and_no_script_reads_them() {
        let names = Names::new("pylon_session");
        let line = |scheme| names.of(scheme).write("abc", 60, &HeaderMap::new()).unwrap().remove(0);
        assert_eq!(
            line(Scheme::Https),
            "__Host-pylon_session=1.abc; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure"
        );
        assert_eq!(line(Scheme::Http), "pylon_session=1.abc; Path=/; Max-Age=60; HttpOnly; SameSite=Lax");
        assert!(line(Scheme::Https).is_sensitive());
        // What came by cleartext is no session under TLS.
        let (req, _) = Seen::get("/").header("cookie", "pylon_session=1.abc").start();
        assert_eq!(names.of(Scheme::Https).session(req.headers()), Kept::Nothing);
        assert_eq!(envelope(names.of(Scheme::Http), &req).as_deref(), Some(&b"abc"[..]));
    }

    #[test]
    fn a_long_session_has_parts_and_a_shorter_one_takes_them_away() {
        let names = Names::new("s");
        let jar = names.of(Scheme::Https);
        let long = "x".repeat(2 * PART + 1);
        let browser = sent(&jar.write(&long, 60, &HeaderMap::new()).unwrap(), &[]);
        assert_eq!(browser.len(), 3);
        let req = request(&browser);
        assert_eq!(envelope(jar, &req).as_deref(), Some(long.as_bytes()));
        let browser = sent(&jar.write("short", 60, req.headers()).unwrap(), &browser);
        assert_eq!(browser, [("__Host-s".to_owned(), "1.short".to_owned())]);
        assert_eq!(sent(&jar.forget(request(&browser).headers()), &browser), []);
        assert!(jar.write(&"x".repeat(PARTS * PART + 1), 60, &HeaderMap::new()).is_none());
    }

    #[test]
    fn what_is_not_as_it_was_written_is_no_session() {
        let names = Names::new("s");
        let jar = names.of(Scheme::Http);
        for (line, kept) in [
            ("s-1=x; t=1.y", Kept::Nothing),
            ("s=1.x; s=1.y", Kept::Broken),
            ("s=1.x; s=1.x", Kept::Broken),
            ("s=x", Kept::Broken),
            ("s=", Kept::Broken),
            ("s=0.x", Kept::Broken),
            ("s=9.x", Kept::Broken),
            ("s=2.x", Kept::Broken),
            ("s=3.x; s-1=y", Kept::Broken),
            ("s=2.x; s-2=y", Kept::Broken),
            ("s=1.x; s-1=y", Kept::Whole(b"s=1.x", b"x")),
        ] {
            let (req, _) = Seen::get("/").header("cookie", line).start();
            assert_eq!(jar.session(req.headers()), kept, "{line}");
        }
    }

    #[test]
    fn logins_are_told_apart_by_their_states() {
        let names = Names::new("s");
        let jar = names.of(Scheme::Https);
        let (one, other) = ("aaaaaaaaaaaa111", "bbbbbbbbbbbb222");
        let lines = [one, other].map(|state| jar.write_login(state, state, 600).unwrap());
        let browser = sent(&lines, &[]);
        let req = request(&browser);
        assert_eq!(jar.login(req.headers(), one), Some(one.as_bytes()));
        assert_eq!(jar.login(req.headers(), other), Some(other.as_bytes()));
        assert_eq!(jar.logins(req.headers()).len(), 2);
        for odd in ["", "short", "cccccccccccc", "aaaaaaaaaaa=;", "aaaaaaaaaaa\r\n", "äaaaaaaaaaaaa"] {
            assert_eq!(jar.login(req.headers(), odd), None, "{odd}");
        }
        let gone = jar.forget_login(&jar.login_name(one).unwrap()).unwrap();
        assert_eq!(sent(&[gone], &browser).len(), 1);
    }

    #[test]
    fn services_see_none_of_them_and_all_others() {
        let names = Names::new("s");
        let line = "a=1; s=x; __Host-s=1.x; s-1=2; __Host-s-7=3; __Host-s-login-abc=4; s2=5; s-9x=6; s; b=7";
        let (mut req, _) = Seen::get("/").header("cookie", line).header("cookie", "s-login-x=1").start();
        names.strip(&mut req);
        let rest: Vec<_> = req.headers().get_all(COOKIE).iter().collect();
        assert_eq!(rest, ["a=1; s2=5; s-9x=6; b=7"]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(length in 0..PARTS * PART, before in 0..PARTS * PART) {
            let names = Names::new("pylon_session");
            let jar = names.of(Scheme::Https);
            let browser = sent(&jar.write(&"y".repeat(before), 9, &HeaderMap::new()).unwrap(), &[]);
            let text = "x".repeat(length);
            let browser = sent(&jar.write(&text, 9, request(&browser).headers()).unwrap(), &browser);
            if length > 0 {
                prop_assert_eq!(envelope(jar, &request(&browser)), Some(text.into_bytes()));
            }
        }

        #[test]
        fn no_line_makes_it_panic(line in "[s\\-=;. 0-9a-c_\\x21-\\x7e]{0,80}") {
            let names = Names::new("s");
            let (mut req, _) = Seen::get("/").header("cookie", &line).start();
            let jar = names.of(Scheme::Http);
            let _ = (jar.session(req.headers()), jar.logins(req.headers()));
            names.strip(&mut req);
            prop_assert!(jar.session(req.headers()) == Kept::Nothing);
        }
    }
}
