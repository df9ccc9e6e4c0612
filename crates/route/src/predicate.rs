//! What a request must hold besides host and path: method, header, query parameter, cookie, client network.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use http::{HeaderMap, HeaderName, Method, header};
use ipnet::IpNet;
use percent_encoding::percent_decode;
use regex::bytes::{Regex, RegexBuilder};

/// The most memory that one compiled expression may take, in bytes.
pub(crate) const REGEX_SIZE: usize = 1 << 20;

/// What matching looks at.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// The host, as [`pylon_core::host::HostName::as_str`] gives it; `None` when the request has none.
    pub host: Option<&'a str>,
    /// The path in normal form, see [`mod@crate::normalise`].
    pub path: &'a str,
    /// The method.
    pub method: &'a Method,
    /// The fields.
    pub headers: &'a HeaderMap,
    /// The query without its question mark.
    pub query: Option<&'a str>,
    /// The address of the client, after `trusted_proxies`.
    pub client: IpAddr,
}

/// A set of methods. `GET` brings `HEAD` with it (RFC 9110 §9.3.2).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MethodSet {
    known: u16,
    other: Vec<Method>,
}

const KNOWN: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
    Method::TRACE,
    Method::CONNECT,
];

const GET_BIT: u16 = 1;
const HEAD_BIT: u16 = 2;

impl MethodSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a method, and `HEAD` with `GET`.
    pub fn insert(&mut self, method: Method) {
        match bit(&method) {
            0 if self.other.contains(&method) => {}
            0 => self.other.push(method),
            GET_BIT => self.known |= GET_BIT | HEAD_BIT,
            bit => self.known |= bit,
        }
    }

    /// Whether the method is in the set.
    pub fn contains(&self, method: &Method) -> bool {
        match bit(method) {
            0 => self.other.contains(method),
            bit => self.known & bit != 0,
        }
    }

    /// Adds all of another set.
    pub fn extend(&mut self, other: &Self) {
        self.known |= other.known;
        for method in &other.other {
            self.insert(method.clone());
        }
    }

    /// Whether each method of `other` is in this set.
    pub fn covers(&self, other: &Self) -> bool {
        other.known & !self.known == 0 && other.other.iter().all(|method| self.other.contains(method))
    }

    /// Whether the two sets have a method in common.
    pub fn meets(&self, other: &Self) -> bool {
        self.known & other.known != 0 || other.other.iter().any(|method| self.other.contains(method))
    }

    /// How many methods the set has.
    pub fn len(&self) -> usize {
        self.known.count_ones() as usize + self.other.len()
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.known == 0 && self.other.is_empty()
    }

    /// The methods, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = &Method> {
        KNOWN.iter().filter(|method| self.known & bit(method) != 0).chain(&self.other)
    }

    /// The bits of the common methods, and whether these are all.
    pub(crate) fn bits(&self) -> (u16, bool) {
        (self.known, self.other.is_empty())
    }

    /// Puts the methods into their one order, so that equal sets compare equal.
    pub(crate) fn sort(&mut self) {
        self.other.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    }

    /// The methods as a person writes them: `HEAD` goes without saying beside `GET`.
    pub(crate) fn short(&self) -> String {
        let said = |method: &&Method| !(**method == Method::HEAD && self.contains(&Method::GET));
        self.iter().filter(said).map(Method::as_str).collect::<Vec<_>>().join(",")
    }
}

/// As the `Allow` field lists them (RFC 9110 §10.2.1).
impl fmt::Display for MethodSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, method) in self.iter().enumerate() {
            write!(f, "{}{method}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// The bit of a common method, 0 for others.
pub(crate) fn bit(method: &Method) -> u16 {
    match *method {
        Method::GET => GET_BIT,
        Method::HEAD => HEAD_BIT,
        Method::POST => 4,
        Method::PUT => 8,
        Method::PATCH => 16,
        Method::DELETE => 32,
        Method::OPTIONS => 64,
        Method::TRACE => 128,
        Method::CONNECT => 256,
        _ => 0,
    }
}

/// What a value must be. Where a name has several values, one that fits is enough.
#[derive(Debug, Clone)]
pub enum ValueTest {
    /// There is a value.
    Present,
    /// There is none.
    Absent,
    /// The value is this text.
    Is(Box<str>),
    /// The value begins with this text.
    StartsWith(Box<str>),
    /// The whole value fits this expression.
    Matches(Expression),
}

impl ValueTest {
    fn check<'v>(&self, mut values: impl Iterator<Item = Cow<'v, [u8]>>) -> bool {
        match self {
            Self::Present => values.next().is_some(),
            Self::Absent => values.next().is_none(),
            Self::Is(text) => values.any(|value| *value == *text.as_bytes()),
            Self::StartsWith(text) => values.any(|value| value.starts_with(text.as_bytes())),
            Self::Matches(expression) => values.any(|value| expression.is_match(&value)),
        }
    }

    /// Whether each set of values that this test takes is taken by `other` too. `false` when that is not known.
    pub(crate) fn implies(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Absent, Self::Absent) => true,
            (Self::Absent, _) | (_, Self::Absent) => false,
            (_, Self::Present) => true,
            (Self::Is(ours), Self::Is(theirs)) => ours == theirs,
            (Self::Is(ours) | Self::StartsWith(ours), Self::StartsWith(theirs)) => ours.starts_with(&**theirs),
            (Self::Is(ours), Self::Matches(theirs)) => theirs.is_match(ours.as_bytes()),
            (Self::Matches(ours), Self::Matches(theirs)) => ours.text == theirs.text,
            _ => false,
        }
    }
}

impl PartialEq for ValueTest {
    fn eq(&self, other: &Self) -> bool {
        self.implies(other) && other.implies(self)
    }
}

impl fmt::Display for ValueTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Present => f.write_str("is present"),
            Self::Absent => f.write_str("is absent"),
            Self::Is(text) => write!(f, "is `{text}`"),
            Self::StartsWith(text) => write!(f, "starts with `{text}`"),
            Self::Matches(expression) => write!(f, "matches `{}`", expression.text),
        }
    }
}

/// A regular expression that must fit the whole of a text. It runs in linear time.
#[derive(Debug, Clone)]
pub struct Expression {
    text: Box<str>,
    regex: Regex,
}

impl Expression {
    /// Compiles an expression; the error is a sentence. `ignore_case` lets letters of both cases fit.
    pub fn new(text: &str, ignore_case: bool) -> Result<Self, String> {
        // By itself first: `a)|(b` must not escape the brackets that anchor it.
        let build = |text: &str| {
            RegexBuilder::new(text)
                .size_limit(REGEX_SIZE)
                .dfa_size_limit(REGEX_SIZE)
                .case_insensitive(ignore_case)
                .build()
        };
        build(text).map_err(|error| explain_regex(&error))?;
        let regex = build(&format!(r"\A(?:{text})\z")).map_err(|error| explain_regex(&error))?;
        Ok(Self { text: text.into(), regex })
    }

    /// The expression as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the whole of a text fits.
    pub fn is_match(&self, text: &[u8]) -> bool {
        self.regex.is_match(text)
    }

    pub(crate) fn regex(&self) -> &Regex {
        &self.regex
    }
}

fn explain_regex(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(limit) => format!("the expression needs more than {limit} bytes of memory"),
        // The last line of regex's message says what is wrong; the lines before it draw it.
        _ => {
            error.to_string().lines().last().unwrap_or("no regular expression").trim_start_matches("error: ").to_owned()
        }
    }
}

/// One thing that a request must hold.
#[derive(Debug, Clone, PartialEq)]
pub enum Predicate {
    /// A header field.
    Header(HeaderName, ValueTest),
    /// A parameter of the query, name and value decoded (`+` is a space).
    Query(Box<str>, ValueTest),
    /// A cookie (RFC 6265 §4.2), quotes around its value removed.
    Cookie(Box<str>, ValueTest),
    /// The client's address lies in one of these networks.
    Client(Vec<IpNet>),
}

impl Predicate {
    /// Whether the request holds it.
    pub fn check(&self, head: &Head<'_>) -> bool {
        match self {
            Self::Header(name, test) => {
                test.check(head.headers.get_all(name).iter().map(|value| Cow::Borrowed(value.as_bytes())))
            }
            Self::Query(name, test) => {
                let pairs = query_pairs(head.query.unwrap_or_default());
                test.check(pairs.filter(|(key, _)| decoded(key) == name.as_bytes()).map(|(_, value)| decoded(value)))
            }
            Self::Cookie(name, test) => {
                let pairs = cookies(head.headers);
                test.check(pairs.filter(|(key, _)| *key == name.as_bytes()).map(|(_, value)| Cow::Borrowed(value)))
            }
            Self::Client(nets) => {
                let client = head.client.to_canonical();
                nets.iter().any(|net| net.contains(&client))
            }
        }
    }

    /// Whether each request that holds this predicate holds `other` too.
    pub(crate) fn implies(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Header(ours, test), Self::Header(theirs, other)) => ours == theirs && test.implies(other),
            (Self::Query(ours, test), Self::Query(theirs, other)) => ours == theirs && test.implies(other),
            (Self::Cookie(ours, test), Self::Cookie(theirs, other)) => ours == theirs && test.implies(other),
            (Self::Client(ours), Self::Client(theirs)) => {
                ours.iter().all(|net| theirs.iter().any(|wider| wider.contains(net)))
            }
            _ => false,
        }
    }
}

impl fmt::Display for Predicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name, test) => write!(f, "header `{name}` {test}"),
            Self::Query(name, test) => write!(f, "query parameter `{name}` {test}"),
            Self::Cookie(name, test) => write!(f, "cookie `{name}` {test}"),
            Self::Client(nets) => {
                f.write_str("client is in ")?;
                for (i, net) in nets.iter().enumerate() {
                    write!(f, "{}{net}", if i == 0 { "" } else { " or " })?;
                }
                Ok(())
            }
        }
    }
}

/// The pairs of a query, as they are written.
pub(crate) fn query_pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// A name or value of a query, decoded as forms are.
pub(crate) fn decoded(text: &str) -> Cow<'_, [u8]> {
    let bytes = text.as_bytes();
    if memchr::memchr2(b'+', b'%', bytes).is_none() {
        return Cow::Borrowed(bytes);
    }
    let spaced: Vec<u8> = bytes.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    Cow::Owned(percent_decode(&spaced).collect())
}

fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    let pairs = headers.get_all(header::COOKIE).iter().flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    pairs.filter_map(|pair| {
        let at = memchr::memchr(b'=', pair)?;
        let value = pair.get(at + 1..)?.trim_ascii();
        let bare = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
        Some((pair.get(..at)?.trim_ascii(), bare))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use std::net::Ipv4Addr;

    fn holds(
        predicate: &Predicate,
        headers: &[(&'static str, &'static str)],
        query: Option<&str>,
        client: IpAddr,
    ) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        predicate.check(&Head { host: None, path: "/", method: &Method::GET, headers: &map, query, client })
    }

    const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn one_value_of_several_is_enough() {
        let beta = Predicate::Header(HeaderName::from_static("x-beta"), ValueTest::Is("1".into()));
        assert!(holds(&beta, &[("x-beta", "0"), ("x-beta", "1")], None, HOME));
        assert!(!holds(&beta, &[("x-beta", "11")], None, HOME));
        let none = Predicate::Header(HeaderName::from_static("x-beta"), ValueTest::Absent);
        assert!(holds(&none, &[], None, HOME));
        assert!(!holds(&none, &[("x-beta", "")], None, HOME));
    }

    #[test]
    fn a_query_is_compared_decoded() {
        let test = Predicate::Query("a b".into(), ValueTest::Is("c&d".into()));
        assert!(holds(&test, &[], Some("x=1&a+b=c%26d"), HOME));
        assert!(holds(&test, &[], Some("a%20b=c%26d&"), HOME));
        assert!(!holds(&test, &[], Some("a b"), HOME));
        assert!(!holds(&test, &[], None, HOME));
        assert!(holds(&Predicate::Query("v".into(), ValueTest::Present), &[], Some("v"), HOME));
    }

    #[test]
    fn cookies_are_found_in_any_field() {
        let test = Predicate::Cookie("lane".into(), ValueTest::StartsWith("blu".into()));
        assert!(holds(&test, &[("cookie", "a=1; lane=\"blue\""), ("cookie", "b=2")], None, HOME));
        assert!(holds(&test, &[("cookie", "a=1"), ("cookie", "lane=blue")], None, HOME));
        assert!(!holds(&test, &[("cookie", "xlane=blue; lane2=blue; lane")], None, HOME));
    }

    #[test]
    fn an_expression_fits_the_whole_value() {
        let test = Expression::new("a|b", false).unwrap();
        assert!(test.is_match(b"a") && !test.is_match(b"ab") && !test.is_match(b"a\n"));
        assert!(Expression::new("a)|(b", false).is_err());
        assert!(Expression::new("(a{1000}){1000}", false).unwrap_err().contains("memory"));
        assert!(Expression::new("[", false).unwrap_err().contains("unclosed"));
    }

    #[test]
    fn a_client_in_mapped_form_is_the_client() {
        let test = Predicate::Client(vec!["127.0.0.0/8".parse().unwrap()]);
        assert!(holds(&test, &[], None, "::ffff:127.0.0.1".parse().unwrap()));
        assert!(!holds(&test, &[], None, "::1".parse().unwrap()));
    }

    #[test]
    fn get_brings_head() {
        let mut set = MethodSet::new();
        set.insert(Method::POST);
        set.insert(Method::GET);
        assert_eq!(set.to_string(), "GET, HEAD, POST");
        assert_eq!(set.short(), "GET,POST");
        assert!(!set.contains(&Method::from_bytes(b"PURGE").unwrap()));
    }
}
