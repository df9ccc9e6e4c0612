//! Reads host names, of requests and in documents, and says which pattern takes which name.
//!
//! Names are compared in lower case and without the trailing dot or port (RFC 9110 §4.2.3, RFC 3986 §3.2.2). IDNA is not
//! done: names beyond ASCII are written in punycode. `_` is allowed, since private names use it.

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv6Addr;

/// The longest name that is read, in bytes (RFC 1035 §2.3.4).
pub const MAX_HOST: usize = 255;

/// Why a host is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HostError {
    /// There is no name.
    Empty,
    /// The name is longer than [`MAX_HOST`].
    TooLong,
    /// A label is empty or a character stands where it may not.
    Character,
    /// The port is not a number up to 65,535.
    Port,
    /// A port stands where only a name may.
    PortRefused,
    /// The address in brackets is not an IPv6 address.
    Address,
    /// A `*` that is not the whole first label.
    Wildcard,
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the host is empty",
            Self::TooLong => "the host is longer than 255 bytes",
            Self::Character => {
                "the host has an empty label or a character that is none of letters, digits, `-`, `_` and `.`"
            }
            Self::Port => "the port is not a number up to 65535",
            Self::PortRefused => "a port has no place here: routes match the name only",
            Self::Address => "the address in brackets is not an IPv6 address",
            Self::Wildcard => "`*` stands alone or as the whole first label of a name, as in `*.example.com`",
        })
    }
}

impl std::error::Error for HostError {}

/// The host of a request: lower case, no trailing dot, the port split off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostName<'a> {
    name: Cow<'a, str>,
    port: Option<u16>,
}

impl<'a> HostName<'a> {
    /// Reads a `Host` field or an authority. Nothing is allocated for a name in lower case.
    ///
    /// Errors: user information, commas, spaces, bytes above ASCII, empty labels, bad ports and bad addresses.
    pub fn parse(text: &'a [u8]) -> Result<Self, HostError> {
        let text = std::str::from_utf8(text).map_err(|_| HostError::Character)?;
        if let Some(plain) = read_plain(text) {
            return Ok(plain);
        }
        let (name, port) = split_port(text)?;
        Ok(Self { name: read_name(name)?, port })
    }

    /// The name as routes compare it.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The port, if one was written.
    pub fn port(&self) -> Option<u16> {
        self.port
    }
}

/// What hosts a route takes.
///
/// `*.example.com` takes names with one or more labels before `example.com`, not `example.com` itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// This name only.
    Exact(Box<str>),
    /// Any name that ends in a dot and this one.
    Wildcard(Box<str>),
    /// Any name, and none.
    Any,
}

impl HostPattern {
    /// Reads a pattern as a person writes it.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let wildcard = text.strip_prefix("*.");
        let rest = wildcard.unwrap_or(text);
        if rest.contains('*') {
            return Err(HostError::Wildcard);
        }
        let (name, port) = split_port(rest)?;
        if port.is_some() || name.len() != rest.len() {
            return Err(HostError::PortRefused);
        }
        let name = read_name(name)?.into_owned().into_boxed_str();
        match wildcard {
            // Below an address there are no names.
            Some(_) if name.starts_with('[') || name.parse::<std::net::Ipv4Addr>().is_ok() => Err(HostError::Wildcard),
            Some(_) => Ok(Self::Wildcard(name)),
            None => Ok(Self::Exact(name)),
        }
    }

    /// Whether a request's host, as [`HostName::as_str`] gives it, is taken.
    pub fn takes(&self, host: Option<&str>) -> bool {
        match (self, host) {
            (Self::Any, _) => true,
            (Self::Exact(name), Some(host)) => **name == *host,
            (Self::Wildcard(name), Some(host)) => {
                host.strip_suffix(&**name).and_then(|left| left.strip_suffix('.')).is_some_and(|left| !left.is_empty())
            }
            (_, None) => false,
        }
    }

    /// Whether each name that `other` takes is taken here too.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::Wildcard(name), Self::Wildcard(below)) => name == below || self.takes(Some(below)),
            (_, Self::Exact(name)) => self.takes(Some(name)),
            (_, Self::Any | Self::Wildcard(_)) => false,
        }
    }

    /// Whether there are names that both take. Patterns lie within each other or apart.
    pub fn meets(&self, other: &Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// How specific the pattern is: greater comes first.
    pub fn rank(&self) -> (u8, usize) {
        match self {
            Self::Exact(_) => (2, 0),
            Self::Wildcard(name) => (1, labels(name)),
            Self::Any => (0, 0),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(name) => write!(f, "*.{name}"),
            Self::Any => f.write_str("*"),
        }
    }
}

/// Reads a name in lower case with or without a port: the common case, in one pass. `None` if it is not one.
fn read_plain(text: &str) -> Option<HostName<'_>> {
    let mut previous = b'.';
    let mut port = None;
    let mut end = text.len();
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => {}
            b'.' if previous != b'.' => {}
            b':' => {
                end = at;
                port = Some(read_digits(text.get(at + 1..)?)?);
                break;
            }
            _ => return None,
        }
        previous = byte;
    }
    let name = text.get(..end).filter(|name| previous != b'.' && name.len() <= MAX_HOST)?;
    Some(HostName { name: Cow::Borrowed(name), port })
}

fn read_digits(text: &str) -> Option<u16> {
    let digit = |port: u16, byte: u8| {
        let digit = byte.is_ascii_digit().then(|| u16::from(byte & 0x0f))?;
        port.checked_mul(10)?.checked_add(digit)
    };
    text.bytes().try_fold(0, digit).filter(|_| !text.is_empty())
}

/// How many labels a name has.
pub fn labels(name: &str) -> usize {
    name.bytes().filter(|byte| *byte == b'.').count() + 1
}

/// Splits `name:port`. Brackets of an address stay with the name.
fn split_port(text: &str) -> Result<(&str, Option<u16>), HostError> {
    let after_address = text.find(']').map_or(0, |at| at + 1);
    let tail = text.get(after_address..).unwrap_or_default();
    let Some(colon) = tail.find(':') else { return Ok((text, None)) };
    let (name, port) =
        (text.get(..after_address + colon).unwrap_or_default(), tail.get(colon + 1..).unwrap_or_default());
    if port.is_empty() {
        return Ok((name, None));
    }
    read_digits(port).map(|port| (name, Some(port))).ok_or(HostError::Port)
}

fn read_name(name: &str) -> Result<Cow<'_, str>, HostError> {
    if name.len() > MAX_HOST {
        return Err(HostError::TooLong);
    }
    if let Some(inner) = name.strip_prefix('[') {
        let address = inner.strip_suffix(']').and_then(|inner| inner.parse::<Ipv6Addr>().ok());
        let canonical = format!("[{}]", address.ok_or(HostError::Address)?);
        return Ok(if canonical == name { Cow::Borrowed(name) } else { Cow::Owned(canonical) });
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        return Err(HostError::Empty);
    }
    let mut upper = false;
    let mut previous = b'.';
    for byte in name.bytes() {
        match byte {
            b'.' if previous == b'.' => return Err(HostError::Character),
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {}
            b'A'..=b'Z' => upper = true,
            _ => return Err(HostError::Character),
        }
        previous = byte;
    }
    if previous == b'.' {
        return Err(HostError::Character);
    }
    Ok(if upper { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, proptest};

    fn name(text: &str) -> Result<String, HostError> {
        HostName::parse(text.as_bytes()).map(|host| host.as_str().to_owned())
    }

    #[test]
    fn case_trailing_dot_and_port_do_not_matter() {
        for text in
            ["api.example.com", "API.Example.COM", "api.example.com.", "api.example.com:8443", "API.example.com.:80"]
        {
            assert_eq!(name(text).as_deref(), Ok("api.example.com"), "{text}");
        }
        assert_eq!(HostName::parse(b"a:8443").unwrap().port(), Some(8443));
        assert_eq!(HostName::parse(b"a:").unwrap().port(), None);
        assert!(matches!(HostName::parse(b"a.b").unwrap().name, Cow::Borrowed(_)));
    }

    #[test]
    fn addresses_are_hosts_too() {
        assert_eq!(name("[::1]:80").as_deref(), Ok("[::1]"));
        assert_eq!(name("[0:0:0:0:0:0:0:1]").as_deref(), Ok("[::1]"));
        assert_eq!(name("127.0.0.1:80").as_deref(), Ok("127.0.0.1"));
        assert_eq!(name("[fe80").err(), Some(HostError::Address));
        assert!(name("[::1").is_err());
        assert_eq!(name("[::1]x").err(), Some(HostError::Address));
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in [
            "", ".", "a..b", ".a", "a b", "a,b", "user@a", "a:b", "a:65536", "a:+80", "a/b", "a\u{e9}", "a%41", "a..",
            "a:1:2",
        ] {
            assert!(name(text).is_err(), "{text}");
        }
        assert_eq!(name(&"a".repeat(256)).err(), Some(HostError::TooLong));
        assert_eq!(HostName::parse(b"a\xff").err(), Some(HostError::Character));
    }

    #[test]
    fn patterns_are_read_strictly() {
        assert_eq!(HostPattern::parse("*"), Ok(HostPattern::Any));
        assert_eq!(HostPattern::parse("*.Example.com."), Ok(HostPattern::Wildcard("example.com".into())));
        assert_eq!(HostPattern::parse("my_host"), Ok(HostPattern::Exact("my_host".into())));
        assert_eq!(HostPattern::parse("a:80"), Err(HostError::PortRefused));
        assert_eq!(HostPattern::parse("a:"), Err(HostError::PortRefused));
        for text in ["*a.com", "a.*.com", "**", "*.*.com", "*.10.0.0.1", "*.[::1]"] {
            assert_eq!(HostPattern::parse(text), Err(HostError::Wildcard), "{text}");
        }
        assert!(HostPattern::parse("*.").is_err());
    }

    #[test]
    fn a_wildcard_takes_one_label_or_more() {
        let pattern = HostPattern::parse("*.example.com").unwrap();
        assert!(pattern.takes(Some("a.example.com")));
        assert!(pattern.takes(Some("a.b.example.com")));
        assert!(!pattern.takes(Some("example.com")));
        assert!(!pattern.takes(Some("badexample.com")));
        assert!(!pattern.takes(Some(".example.com")));
        assert!(!pattern.takes(None));
        assert!(HostPattern::Any.takes(None));
    }

    #[test]
    fn patterns_lie_within_each_other_or_apart() {
        let pattern = |text: &str| HostPattern::parse(text).unwrap();
        for (outer, inner) in [
            ("*", "*"),
            ("*", "*.a.com"),
            ("*", "a.com"),
            ("*.a.com", "*.a.com"),
            ("*.a.com", "*.b.a.com"),
            ("*.a.com", "b.a.com"),
            ("a.com", "a.com"),
        ] {
            assert!(pattern(outer).covers(&pattern(inner)), "{outer} {inner}");
            assert!(outer == inner || !pattern(inner).covers(&pattern(outer)), "{inner} {outer}");
            assert!(pattern(inner).meets(&pattern(outer)), "{inner} {outer}");
        }
        for (one, other) in [("*.a.com", "a.com"), ("*.a.com", "*.ba.com"), ("a.com", "b.com"), ("*.a.com", "*.com.a")]
        {
            assert!(!pattern(one).meets(&pattern(other)) && !pattern(other).meets(&pattern(one)), "{one} {other}");
        }
    }

    proptest! {
        #[test]
        fn reading_a_host_twice_changes_nothing(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(host) = HostName::parse(&text) {
                assert_eq!(name(host.as_str()).as_deref(), Ok(host.as_str()));
            }
        }

        #[test]
        fn any_case_reads_the_same(text in "[a-zA-Z0-9_.-]{1,30}") {
            assert_eq!(name(&text), name(&text.to_ascii_lowercase()));
        }
    }
}
