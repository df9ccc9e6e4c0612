//! What identity policies share: where a credential stands, what it comes to, and what services are told of the caller.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use http::header::{AUTHORIZATION, COOKIE, WWW_AUTHENTICATE};
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue};
use percent_encoding::percent_decode;
use pylon_core::Request;
use pylon_core::body::Body;
use pylon_core::caller::{Caller, Fact};
use pylon_core::exchange::Exchange;
use pylon_core::fields::trailers::WithoutTrailers;
use pylon_core::fields::{self, Alike};
use pylon_core::kept;
use pylon_core::rejection::{CALLER_INVALID, CALLER_UNKNOWN, Rejection};
use pylon_core::spec::{FieldPath, SpecError};

use crate::policy::Stop;
use crate::proofs::Proofs;

/// What an identity policy makes of a credential.
#[derive(Debug)]
pub(crate) enum Proof {
    /// It is of another kind or of another issuer.
    NotMine,
    /// It proves who is asking, and until when that may be taken for proved.
    Caller(Caller, Instant),
    /// It is of this policy's kind and proves nothing. Why is for the log alone.
    Invalid(Cow<'static, str>),
    /// Whether it proves anything cannot be found out now. Why is for the log alone.
    Unknown(Cow<'static, str>),
}

/// How one identity policy looks for credentials and what it does with those that prove something.
#[derive(Debug)]
pub(crate) struct Identity {
    /// Where credentials may stand; the first that is there counts.
    pub(crate) places: Box<[Place]>,
    /// What services are told of the caller.
    pub(crate) telling: Telling,
    /// Whether services see the credential.
    pub(crate) forward: bool,
    /// What goes with a refusal (RFC 9110 §11.6.1).
    pub(crate) challenge: HeaderValue,
    /// Credentials that were proved before.
    pub(crate) proofs: Proofs,
}

/// What came of a look for credentials.
#[derive(Debug)]
pub(crate) enum Look {
    /// There is nothing more to find out.
    Settled(Result<(), Stop>),
    /// This has to be proved.
    Shown(Shown),
}

/// A credential that was shown.
#[derive(Debug)]
pub(crate) struct Shown {
    /// The credential itself.
    pub(crate) credential: Box<[u8]>,
    place: usize,
    generation: u64,
}

impl Shown {
    /// The same, to be proved by what is of this generation.
    pub(crate) fn renewed(self, generation: u64) -> Self {
        Self { generation, ..self }
    }
}

impl Identity {
    /// Takes away what the client says of itself, and looks for a credential. `generation` counts the changes of what proofs rest on.
    pub(crate) fn look(&self, req: &mut Request, cx: &mut Exchange, generation: u64) -> Look {
        self.telling.clean(req);
        self.search(req, cx, generation)
    }

    /// Looks for a credential, where what the client says of itself has been taken away.
    pub(crate) fn search(&self, req: &mut Request, cx: &mut Exchange, generation: u64) -> Look {
        let mut other = false;
        for (place, at) in self.places.iter().enumerate() {
            let credential = match at.find(req, cx) {
                Found::Nothing => continue,
                Found::Other => {
                    other = true;
                    continue;
                }
                Found::Several => return Look::Settled(Err(self.invalid("there are several credentials").into())),
                Found::One(credential) => credential,
            };
            let known = self.proofs.find(&credential, generation, cx.started);
            return match known {
                Some(caller) => {
                    self.accept(caller, place, req, cx);
                    Look::Settled(Ok(()))
                }
                None => Look::Shown(Shown { credential: credential.into_owned().into(), place, generation }),
            };
        }
        cx.unclaimed |= other;
        Look::Settled(Ok(()))
    }

    /// Looks whether a credential that stands in no request was proved before: what is to be proved, unless it was.
    pub(crate) fn recognise(&self, credential: &[u8], req: &mut Request, cx: &mut Exchange) -> Option<Shown> {
        match self.proofs.find(credential, 0, cx.started) {
            Some(caller) => {
                self.accept(caller, usize::MAX, req, cx);
                None
            }
            None => Some(Shown { credential: credential.into(), place: usize::MAX, generation: 0 }),
        }
    }

    /// Takes in what a credential has come to.
    pub(crate) fn settle(&self, shown: &Shown, proof: Proof, req: &mut Request, cx: &mut Exchange) -> Result<(), Stop> {
        match proof {
            Proof::NotMine => cx.unclaimed = true,
            Proof::Caller(mut caller, until) => {
                caller.told = self.telling.lines(&caller);
                let caller = Arc::new(caller);
                self.proofs.keep(&shown.credential, shown.generation, &caller, cx.started, until);
                self.accept(caller, shown.place, req, cx);
            }
            Proof::Invalid(why) => return Err(self.invalid(why).into()),
            Proof::Unknown(why) => return Err(CALLER_UNKNOWN.privately(why).into()),
        }
        Ok(())
    }

    fn accept(&self, caller: Arc<Caller>, place: usize, req: &mut Request, cx: &mut Exchange) {
        if !self.forward
            && let Some(place) = self.places.get(place)
        {
            place.strip(req, cx);
        }
        for (name, value) in &caller.told {
            req.headers_mut().insert(name.clone(), value.clone());
        }
        // A later policy tells more of the user than an earlier one: a token more than the certificate of a connection.
        cx.caller = Some(caller);
    }

    /// The refusal of a credential: the same to the client whatever is wrong, the reason in the log.
    pub(crate) fn invalid(&self, why: impl Into<Cow<'static, str>>) -> Rejection {
        CALLER_INVALID.privately(why).with_header(WWW_AUTHENTICATE, self.challenge.clone())
    }
}

/// Where a credential stands in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a header; behind a scheme where one is named (RFC 9110 §11.4).
    Header(HeaderName, Option<Box<str>>),
    /// In the query.
    Query(Box<str>),
    /// In a cookie.
    Cookie(Box<str>),
}

/// What stands there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<'r> {
    /// Nothing.
    Nothing,
    /// Something of another scheme.
    Other,
    /// A credential.
    One(Cow<'r, [u8]>),
    /// More than one: it cannot be known which is meant.
    Several,
}

impl Place {
    /// `Authorization: Bearer …` (RFC 6750 §2.1).
    pub(crate) fn bearer() -> Self {
        Self::Header(AUTHORIZATION, Some("Bearer".into()))
    }

    /// Looks there.
    pub(crate) fn find<'r>(&'r self, req: &'r Request, cx: &'r Exchange) -> Found<'r> {
        match self {
            Self::Header(name, scheme) => {
                let mut lines = req.headers().get_all(name).iter();
                let Some(line) = lines.next() else { return Found::Nothing };
                if lines.next().is_some() {
                    return Found::Several;
                }
                let value = line.as_bytes();
                match scheme {
                    None => Found::One(value.into()),
                    Some(scheme) => behind(scheme, value).map_or(Found::Other, |value| Found::One(value.into())),
                }
            }
            Self::Query(name) => {
                let mut values = cx.path.query().into_iter().flat_map(|query| pairs(query, name));
                let Some(value) = values.next() else { return Found::Nothing };
                if values.next().is_some() {
                    return Found::Several;
                }
                Found::One(percent_decode(value.as_bytes()).into())
            }
            Self::Cookie(name) => {
                let lines = req.headers().get_all(COOKIE).iter();
                let mut values =
                    lines.flat_map(|line| crumbs(line.as_bytes())).filter_map(|crumb| value_of(crumb, name));
                let Some(value) = values.next() else { return Found::Nothing };
                if values.next().is_some() {
                    return Found::Several;
                }
                Found::One(value.into())
            }
        }
    }

    /// Takes the credential out of what services see, and out of what is logged.
    pub(crate) fn strip(&self, req: &mut Request, cx: &mut Exchange) {
        match self {
            Self::Header(name, _) => _ = req.headers_mut().remove(name),
            Self::Query(name) => {
                if let Some(path) = without(&cx.path, name) {
                    let before = std::mem::replace(&mut cx.path, path);
                    // What is signed is what the client wrote.
                    cx.written_path.get_or_insert(before);
                }
                if let Some(path) = cx.upstream_path.as_ref().and_then(|path| without(path, name)) {
                    cx.upstream_path = Some(path);
                }
            }
            Self::Cookie(name) => {
                without_cookies(req, |crumb| value_of(crumb, name).is_some());
            }
        }
    }
}

/// Takes out the cookies, as `name=value`, that are `gone`.
pub(crate) fn without_cookies(req: &mut Request, gone: impl Fn(&[u8]) -> bool) {
    let lines: Vec<HeaderValue> = (req.headers().get_all(COOKIE).iter())
        .filter_map(|line| {
            let rest = crumbs(line.as_bytes()).filter(|crumb| !gone(crumb));
            HeaderValue::from_bytes(&rest.collect::<Vec<_>>().join(&b"; "[..])).ok()
        })
        .filter(|line| !line.is_empty())
        .collect();
    req.headers_mut().remove(COOKIE);
    for line in lines {
        req.headers_mut().append(COOKIE, line);
    }
}

/// A place in query or cookies by its name as written.
pub(crate) fn place_named(name: &str, place: fn(Box<str>) -> Place) -> Result<Place, SpecError> {
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        let error = SpecError::new(FieldPath::root(), format!("`{name}` cannot be the name of it"));
        return Err(error.help("use letters, digits, `-`, `_` and `.`"));
    }
    Ok(place(name.into()))
}

/// What stands behind the name of a scheme and blanks.
fn behind<'v>(scheme: &str, value: &'v [u8]) -> Option<&'v [u8]> {
    let (named, rest) = value.split_at_checked(scheme.len())?;
    let is_it = named.eq_ignore_ascii_case(scheme.as_bytes()) && rest.first() == Some(&b' ');
    is_it.then(|| rest.trim_ascii())
}

/// The raw values of `name` in a query.
fn pairs<'q>(query: &'q str, name: &'q str) -> impl Iterator<Item = &'q str> {
    query.split('&').filter(|pair| is_of(pair, name)).map(|pair| pair.split_once('=').map_or("", |(_, value)| value))
}

/// Whether a pair of a query has this name, in whatever spelling.
fn is_of(pair: &str, name: &str) -> bool {
    let written = pair.split_once('=').map_or(pair, |(written, _)| written);
    percent_decode(written.as_bytes()).eq(name.bytes())
}

/// The path without the pairs of its query that have this name; none where there are none.
fn without(path: &PathAndQuery, name: &str) -> Option<PathAndQuery> {
    let query = path.query()?;
    pairs(query, name).next()?;
    let rest: Vec<&str> = query.split('&').filter(|pair| !is_of(pair, name)).collect();
    let text = match rest.as_slice() {
        [] => path.path().to_owned(),
        rest => format!("{}?{}", path.path(), rest.join("&")),
    };
    PathAndQuery::try_from(text).ok()
}

/// The cookies of a line, each as `name=value`.
pub(crate) fn crumbs(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b';').map(<[u8]>::trim_ascii).filter(|crumb| !crumb.is_empty())
}

fn value_of<'c>(crumb: &'c [u8], name: &str) -> Option<&'c [u8]> {
    crumb.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

/// Headers that only the gateway writes: what a client sends in them goes, in every spelling, whoever asks.
#[derive(Debug)]
pub(crate) struct Reserved(Arc<Alike>);

impl Reserved {
    pub(crate) fn new<'a>(names: impl IntoIterator<Item = &'a HeaderName>) -> Self {
        Self(Arc::new(Alike::new(names)))
    }

    /// Takes away what the client sends in them, in headers and trailers.
    pub(crate) fn clean(&self, req: &mut Request) {
        if self.0.is_empty() {
            return;
        }
        self.0.remove_from(req.headers_mut());
        if matches!(req.body(), Body::Stream(_)) {
            let body = std::mem::take(req.body_mut());
            *req.body_mut() = Body::stream(WithoutTrailers::new(body, Arc::clone(&self.0)));
        }
    }
}

/// What services are told of the caller, by header. Written as names of headers with the names of facts.
#[derive(Debug)]
pub(crate) struct Telling {
    /// What clients might say of themselves.
    forged: Reserved,
    facts: Box<[(HeaderName, Fact)]>,
}

impl Telling {
    /// Reads the written form; errors begin at its own root.
    pub(crate) fn compile(spec: &BTreeMap<String, String>) -> Result<Self, Vec<SpecError>> {
        let (mut facts, mut errors) = (Vec::new(), Vec::new());
        for (header, fact) in spec {
            let at = || FieldPath::root().key(header);
            let name = fields::parse(header).map_err(|bad| SpecError::new(at(), bad.problem).help(bad.help));
            let name = name.map_err(|error| errors.push(error)).ok();
            let read = Fact::parse(fact);
            if read.is_none() {
                let error = SpecError::new(at(), format!("nothing of a caller is named `{fact}`"));
                errors.push(error.help(format!("write {}", Fact::WORDS)));
            }
            facts.extend(name.zip(read).map(|(name, fact)| (kept::name(&name), fact)));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self { forged: Reserved::new(facts.iter().map(|(name, _)| name)), facts: facts.into() })
    }

    /// Takes away what the client says of itself, in headers and trailers.
    pub(crate) fn clean(&self, req: &mut Request) {
        self.forged.clean(req);
    }

    /// The lines for one caller. What it has not, or what cannot stand in a header, is left out.
    pub(crate) fn lines(&self, caller: &Caller) -> Box<[(HeaderName, HeaderValue)]> {
        let line = |(name, fact): &(HeaderName, Fact)| {
            let value = HeaderValue::try_from(caller.fact(fact)?).ok()?;
            Some((name.clone(), value))
        };
        self.facts.iter().filter_map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Seen;

    fn place(text: &str) -> Place {
        match text.split_once(' ') {
            Some(("query", name)) => Place::Query(name.into()),
            Some(("cookie", name)) => Place::Cookie(name.into()),
            _ => Place::Header(HeaderName::try_from(text).unwrap(), None),
        }
    }

    fn found(place: &Place, seen: &Seen) -> String {
        let (req, cx) = seen.start();
        match place.find(&req, &cx) {
            Found::One(value) => String::from_utf8(value.into_owned()).unwrap(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_credential_is_found_where_it_stands_once() {
        let seen = Seen::get("/a?key=1%2B2&kei=3&k%65y2=4")
            .header("x-key", "abc")
            .header("cookie", "a=1; token=t1")
            .header("cookie", "b=2;mytoken=t2")
            .header("authorization", "bearer  xyz ");
        for (at, value) in [
            ("x-key", "abc"),
            ("x-other", "Nothing"),
            ("query key", "1+2"),
            ("query key2", "4"),
            ("query ke", "Nothing"),
            ("cookie token", "t1"),
            ("cookie mytoken", "t2"),
            ("cookie toke", "Nothing"),
        ] {
            assert_eq!(found(&place(at), &seen), value, "{at}");
        }
        assert_eq!(found(&Place::bearer(), &seen), "xyz");
        for other in ["Basic abc", "Bearer", "Bearerabc", ""] {
            assert_eq!(found(&Place::bearer(), &Seen::get("/").header("authorization", other)), "Other", "{other}");
        }
    }

    #[test]
    fn two_credentials_in_one_place_are_none() {
        let seen =
            Seen::get("/a?key=1&x=2&k%65y=2").header("x-key", "1").header("x-key", "2").header("cookie", "t=1; t=1");
        for at in ["x-key", "query key", "cookie t"] {
            assert_eq!(found(&place(at), &seen), "Several", "{at}");
        }
    }

    #[test]
    fn what_is_stripped_is_gone_and_the_rest_stays() {
        let seen =
            Seen::get("/a?key=1&x=2&k%65y=2").header("cookie", "a=1; t=2").header("cookie", "t=3").header("x", "1");
        let (mut req, mut cx) = seen.start();
        cx.upstream_path = Some(PathAndQuery::from_static("/b?key=1"));
        for at in ["query key", "cookie t", "x"] {
            place(at).strip(&mut req, &mut cx);
        }
        assert_eq!((cx.path.as_str(), cx.sent_path().as_str()), ("/a?x=2", "/b"));
        let cookies: Vec<_> = req.headers().get_all(COOKIE).iter().collect();
        assert_eq!(cookies, ["a=1"]);
        assert!(!req.headers().contains_key("x"));
    }

    #[test]
    fn what_a_client_says_of_itself_never_reaches_a_service() {
        let spec =
            BTreeMap::from([("x-user".to_owned(), "subject".to_owned()), ("x-plan".to_owned(), "plan".to_owned())]);
        let telling = Telling::compile(&spec).unwrap();
        let seen = Seen::get("/").header("x-user", "root").header("X_User", "root").header("x-plan", "gold");
        let (mut req, _) = seen.start();
        telling.clean(&mut req);
        assert!(req.headers().is_empty(), "{:?}", req.headers());
        let lines = telling.lines(&Caller { subject: "ann".into(), ..Caller::default() });
        assert_eq!(*lines, [(HeaderName::from_static("x-user"), HeaderValue::from_static("ann"))]);
    }

    #[test]
    fn what_cannot_be_told_is_an_error() {
        let spec = |header: &str, fact: &str| BTreeMap::from([(header.to_owned(), fact.to_owned())]);
        for (header, fact) in [("host", "subject"), ("x-user", "sub"), ("x user", "subject")] {
            assert!(Telling::compile(&spec(header, fact)).is_err(), "{header}: {fact}");
        }
    }
}
