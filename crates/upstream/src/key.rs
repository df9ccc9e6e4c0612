//! The key of a request that decides where it goes, for methods of choice that look one up.

use http::{HeaderMap, HeaderName};
use pylon_core::caller::Fact;
use pylon_core::cookie;
use pylon_core::exchange::Exchange;
use pylon_core::spec::{FieldPath, SpecError};

use crate::balance::hash;
use crate::balance::spec::BySpec;
use crate::spec::{Speaks, UpstreamSpec};

/// Which key of a request decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyBy {
    Client,
    Header(HeaderName),
    Cookie(String),
    Query(String),
    Caller(Fact, String),
}

impl KeyBy {
    /// The errors are told from `by` down.
    pub(crate) fn compile(spec: &BySpec) -> Result<Self, SpecError> {
        match (&spec.header, &spec.cookie, &spec.query, &spec.caller) {
            (None, None, None, None) => Ok(Self::Client),
            (Some(name), None, None, None) => HeaderName::try_from(name)
                .map(Self::Header)
                .map_err(|_| SpecError::new(FieldPath::root().key("header"), format!("`{name}` is not a header name"))),
            (None, Some(name), None, None) => Ok(Self::Cookie(name.clone())),
            (None, None, Some(name), None) => Ok(Self::Query(name.clone())),
            (None, None, None, Some(name)) => {
                let fact = Fact::parse(name).map(|fact| Self::Caller(fact, name.clone()));
                fact.ok_or_else(|| {
                    let at = FieldPath::root().key("caller");
                    let error = SpecError::new(at, format!("nothing of a caller is named `{name}`"));
                    error.help(format!("write {}", Fact::WORDS))
                })
            }
            _ => Err(SpecError::new(FieldPath::root(), "an endpoint is chosen by one thing only")
                .help("keep one of `header`, `cookie`, `query` and `caller`")),
        }
    }

    /// The hash of the key; of the client's address where the request has no such key.
    pub(crate) fn hash(&self, headers: &HeaderMap, cx: &Exchange) -> u64 {
        let found = match self {
            Self::Caller(fact, _) => {
                cx.caller.as_ref().and_then(|caller| caller.fact(fact)).map(|value| hash(value.as_bytes()))
            }
            _ => self.find(headers, cx.path.query()).map(hash),
        };
        found.unwrap_or_else(|| of_client(cx.client))
    }

    fn find<'r>(&self, headers: &'r HeaderMap, query: Option<&'r str>) -> Option<&'r [u8]> {
        match self {
            Self::Client | Self::Caller(..) => None,
            Self::Header(name) => headers.get(name).map(http::HeaderValue::as_bytes),
            Self::Cookie(name) => cookie::value(headers, name),
            Self::Query(name) => query?.split('&').find_map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                (key == name).then_some(value.as_bytes())
            }),
        }
    }

    /// In words, for views: `header x-tenant`.
    pub(crate) fn in_words(&self) -> String {
        match self {
            Self::Client => "client".to_owned(),
            Self::Header(name) => format!("header {name}"),
            Self::Cookie(name) => format!("cookie {name}"),
            Self::Query(name) => format!("query {name}"),
            Self::Caller(_, name) => format!("caller {name}"),
        }
    }
}

/// Which key of a request decides, where one does; or what is wrong with how endpoints are chosen.
pub(crate) fn compile(spec: &UpstreamSpec) -> Result<Option<KeyBy>, Vec<SpecError>> {
    let mut errors = spec.balance.check(spec.speaks() == Some(Speaks::Bytes));
    let by = spec.balance.by.as_deref().cloned().unwrap_or_default();
    let key = KeyBy::compile(&by).map_err(|error| errors.push(error.below(&FieldPath::root().key("by"))));
    let base = FieldPath::root().key("balance");
    match key {
        Ok(key) if errors.is_empty() => Ok(spec.balance.method.is_keyed().then_some(key)),
        _ => Err(errors.into_iter().map(|error| error.below(&base)).collect()),
    }
}

/// The hash of a client's address, which is the same whichever family of sockets it came by.
pub(crate) fn of_client(client: std::net::IpAddr) -> u64 {
    match client.to_canonical() {
        std::net::IpAddr::V4(four) => hash(&four.octets()),
        std::net::IpAddr::V6(six) => hash(&six.octets()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::fixture::exchange;
    use http::{HeaderValue, Method};
    use pylon_core::caller::Caller;
    use std::sync::Arc;

    fn by(header: Option<&str>, cookie: Option<&str>, query: Option<&str>) -> KeyBy {
        let own = |name: Option<&str>| name.map(str::to_owned);
        KeyBy::compile(&BySpec { header: own(header), cookie: own(cookie), query: own(query), caller: None }).unwrap()
    }

    #[test]
    fn a_key_is_found_where_it_is_written_to_be_and_else_the_client_counts() {
        let mut headers = HeaderMap::new();
        headers.insert("x-tenant", HeaderValue::from_static("acme"));
        headers.insert("cookie", HeaderValue::from_static("a=1; session=s7"));
        let with = exchange(&Method::GET, "/x?page=2&id=9&flag");
        assert_eq!(by(Some("x-tenant"), None, None).hash(&headers, &with), hash(b"acme"));
        assert_eq!(by(None, Some("session"), None).hash(&headers, &with), hash(b"s7"));
        assert_eq!(by(None, None, Some("id")).hash(&headers, &with), hash(b"9"));
        assert_eq!(by(None, None, Some("flag")).hash(&headers, &with), hash(b""));
        let client = hash(&[127, 0, 0, 1]);
        for by in [by(None, None, None), by(Some("x-other"), None, None), by(None, None, Some("i"))] {
            assert_eq!(by.hash(&headers, &with), client, "{by:?}");
        }
    }

    #[test]
    fn a_caller_goes_where_it_went_whatever_address_it_has() {
        let of = |caller: &str| KeyBy::compile(&BySpec { caller: Some(caller.into()), ..BySpec::default() });
        let mut with = exchange(&Method::GET, "/");
        let (tenant, subject) = (of("claims.tenant").unwrap(), of("subject").unwrap());
        assert_eq!(tenant.hash(&HeaderMap::new(), &with), hash(&[127, 0, 0, 1]), "nobody is known");
        let mut caller = Caller { subject: "ann".into(), ..Caller::default() };
        caller.claims.insert("tenant".into(), "acme".into());
        with.caller = Some(Arc::new(caller));
        assert_eq!(tenant.hash(&HeaderMap::new(), &with), hash(b"acme"));
        assert_eq!(subject.hash(&HeaderMap::new(), &with), hash(b"ann"));
        assert_eq!(of("plan").unwrap().hash(&HeaderMap::new(), &with), hash(&[127, 0, 0, 1]));
        assert!(of("tenant").is_err());
    }

    #[test]
    fn one_thing_decides() {
        let spec = BySpec { header: Some("a".to_owned()), query: Some("b".to_owned()), ..BySpec::default() };
        assert!(KeyBy::compile(&spec).is_err());
        assert!(KeyBy::compile(&BySpec { header: Some("a b".to_owned()), ..BySpec::default() }).is_err());
    }
}
