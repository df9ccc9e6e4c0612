//! Which origins a document allows, and whether an `Origin` header is one of them (RFC 6454 §7, Fetch §3.2).

use http::HeaderValue;
use pylon_core::kept;

/// A set of allowed origins.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Origins {
    /// Every origin.
    Any,
    /// Those listed, sorted, and those that fit a pattern.
    Some { exact: Box<[HeaderValue]>, patterns: Box<[Pattern]> },
}

/// What the set says to one `Origin` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is not allowed.
    Refused,
    /// Every origin is.
    Any,
    /// It is the one at this place of the list.
    Listed(usize),
    /// It fits a pattern.
    Fits,
}

/// `https://*.example.com:8443`: any name of one or more labels below the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// `https://`
    before: Box<str>,
    /// `.example.com:8443`
    behind: Box<str>,
}

/// One origin as written.
#[derive(Debug, PartialEq)]
pub(crate) enum Origin {
    /// `*`
    Any,
    /// One origin in the form that browsers send.
    Exact(HeaderValue),
    /// Many under one name.
    Pattern(Pattern),
}

/// What is wrong with an origin as written, and what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadOrigin {
    pub(crate) problem: String,
    pub(crate) help: String,
}

impl Origins {
    /// The set of `origins`.
    pub(crate) fn new(origins: Vec<Origin>) -> Self {
        let (mut exact, mut patterns) = (Vec::new(), Vec::new());
        for origin in origins {
            match origin {
                Origin::Any => return Self::Any,
                Origin::Exact(value) => exact.push(value),
                Origin::Pattern(pattern) => patterns.push(pattern),
            }
        }
        exact.sort_unstable();
        exact.dedup();
        Self::Some { exact: exact.into(), patterns: patterns.into() }
    }

    /// Looks up the one `Origin` of a request. Browsers send it in lower case and without a default port.
    pub(crate) fn judge(&self, origin: Option<&HeaderValue>) -> Verdict {
        let Self::Some { exact, patterns } = self else { return Verdict::Any };
        let Some(origin) = origin else { return Verdict::Refused };
        if let Ok(index) = exact.binary_search(origin) {
            return Verdict::Listed(index);
        }
        if patterns.iter().any(|pattern| pattern.fits(origin.as_bytes())) { Verdict::Fits } else { Verdict::Refused }
    }

    /// The origin at a place that [`Verdict::Listed`] names.
    pub(crate) fn listed(&self, index: usize) -> Option<&HeaderValue> {
        match self {
            Self::Any => None,
            Self::Some { exact, .. } => exact.get(index),
        }
    }
}

impl Pattern {
    fn fits(&self, origin: &[u8]) -> bool {
        let below =
            origin.strip_prefix(self.before.as_bytes()).and_then(|rest| rest.strip_suffix(self.behind.as_bytes()));
        // Only letters of a host may stand for the star: a slash or a colon would name another host.
        below.is_some_and(|labels| {
            labels.split(|b| *b == b'.').all(|label| !label.is_empty() && label.iter().copied().all(is_label))
        })
    }
}

impl Origin {
    /// Reads `https://a.example`, `https://*.example.com:8443` or `*`.
    pub(crate) fn parse(text: &str) -> Result<Self, BadOrigin> {
        let bad = |problem: String, help: String| Err(BadOrigin { problem, help });
        match text {
            "*" => return Ok(Self::Any),
            "null" => {
                return bad(
                    "`null` is the origin of sandboxed frames and local files, which any site can make".into(),
                    "name the origins that may call, or use `*` without credentials".into(),
                );
            }
            _ => {}
        }
        let lower = text.to_ascii_lowercase();
        let Some((scheme, authority)) = lower.split_once("://") else {
            return bad(
                format!("`{text}` is not an origin: it has no scheme"),
                format!("write it as `https://{lower}`"),
            );
        };
        if !scheme.starts_with(|c: char| c.is_ascii_lowercase())
            || !scheme.bytes().all(|b| is_label(b) || b"+.".contains(&b))
        {
            return bad(format!("`{scheme}` is not a scheme"), "write an origin such as `https://a.example`".into());
        }
        if let Some(end) = authority.find(['/', '?', '#']) {
            let origin = authority.get(..end).unwrap_or_default();
            return bad("an origin has no path, not even a slash".into(), format!("write `{scheme}://{origin}`"));
        }
        let (host, port) = split_port(authority);
        let port = match port.map(str::parse::<u16>) {
            None => String::new(),
            Some(Ok(80)) if scheme == "http" => String::new(),
            Some(Ok(443)) if scheme == "https" => String::new(),
            Some(Ok(port)) if port > 0 => format!(":{port}"),
            Some(_) => return bad(format!("`{text}` has no valid port"), "a port is a number from 1 to 65535".into()),
        };
        let (host, wild) = host.strip_prefix("*.").map_or((host, false), |below| (below, true));
        if !is_host(host) || (wild && host.starts_with('[')) {
            return bad(
                format!("`{text}` has no valid host"),
                "write `https://a.example` or `https://*.example.com`; a name beyond ASCII is written in punycode"
                    .into(),
            );
        }
        if wild {
            return Ok(Self::Pattern(Pattern {
                before: format!("{scheme}://").into(),
                behind: format!(".{host}{port}").into(),
            }));
        }
        kept::value(&format!("{scheme}://{host}{port}")).map(Self::Exact).or_else(|_| {
            bad(format!("`{text}` cannot stand in a header"), "write an origin such as `https://a.example`".into())
        })
    }
}

/// Splits `host:port`; the colons of an address in brackets are its own.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    host.split('.').all(|label| !label.is_empty() && label.bytes().all(is_label))
}

fn is_label(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(origins: &[&str]) -> Origins {
        Origins::new(origins.iter().map(|text| Origin::parse(text).unwrap()).collect())
    }

    fn allows(origins: &Origins, origin: &str) -> bool {
        origins.judge(Some(&HeaderValue::from_str(origin).unwrap())) != Verdict::Refused
    }

    #[test]
    fn an_origin_is_compared_in_the_form_that_browsers_send() {
        let origins = set(&["HTTPS://A.example:443", "http://[::1]:8080", "capacitor://localhost"]);
        assert!(allows(&origins, "https://a.example"));
        assert!(allows(&origins, "http://[::1]:8080"));
        assert!(allows(&origins, "capacitor://localhost"));
        assert!(!allows(&origins, "http://a.example") && !allows(&origins, "https://a.example:8443"));
        assert!(!allows(&origins, "null") && !allows(&origins, ""));
        assert_eq!(origins.judge(None), Verdict::Refused);
    }

    #[test]
    fn a_star_stands_for_labels_and_never_for_another_host() {
        let origins = set(&["https://*.example.com:8443"]);
        assert!(allows(&origins, "https://a.example.com:8443") && allows(&origins, "https://a.b.example.com:8443"));
        for other in [
            "https://example.com:8443",
            "https://.example.com:8443",
            "https://a..example.com:8443",
            "https://a.example.com",
            "http://a.example.com:8443",
            "https://evil.test/.example.com:8443",
            "https://evil.test:1.example.com:8443",
            "https://a@b.example.com:8443",
            "https://aexample.com:8443",
        ] {
            assert!(!allows(&origins, other), "{other}");
        }
    }

    #[test]
    fn what_is_no_origin_is_told_how_to_write_it() {
        for (text, help) in [
            ("a.example", "write it as `https://a.example`"),
            ("https://a.example/", "write `https://a.example`"),
            ("https://a.example/app?x", "write `https://a.example`"),
            ("https://a.example:0", "a port is a number from 1 to 65535"),
            ("https://a.example:x", "a port is a number from 1 to 65535"),
            ("null", "name the origins that may call, or use `*` without credentials"),
        ] {
            assert_eq!(Origin::parse(text).unwrap_err().help, help, "{text}");
        }
        for text in [
            "https://",
            "https://*",
            "https://a.*.example",
            "https://*.*.example",
            "https://a b",
            "://a",
            "https://é.example",
            "",
        ] {
            assert!(Origin::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_origin_that_fits_a_pattern_ends_in_its_host(origin in "https://[a-z.:/@\\\\?#]{0,8}\\.example\\.com") {
            if allows(&set(&["https://*.example.com"]), &origin) {
                let host = origin.strip_prefix("https://").unwrap();
                prop_assert!(!host.contains([':', '/', '@', '?', '#', '\\']));
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".*") {
            let _ = Origin::parse(&text);
        }
    }
}
