//! Heads and trailers out of decoded fields, held to the rules of HTTP/2 (RFC 9113 §8.2 and §8.3, RFC 8441 §4).

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, Parts, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version};

use pylon_core::spare;

use crate::hpack::Field;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// What a CONNECT asks its stream to become (RFC 8441).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protocol(Bytes);

impl Protocol {
    /// Its name, as it was sent.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A message that breaks the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The fields of a block, as they come.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    method: Option<Method>,
    scheme: Option<Bytes>,
    authority: Option<Bytes>,
    path: Option<Bytes>,
    protocol: Option<Bytes>,
    status: Option<StatusCode>,
    regular: HeaderMap,
    malformed: bool,
}

impl Fields {
    /// With room for `usual` fields.
    pub(crate) fn new(usual: usize) -> Self {
        Self { regular: spare::take_map(usual), ..Self::default() }
    }

    pub(crate) fn take(&mut self, field: Field) {
        match field {
            Field::Method(method) => self.method = Some(method),
            Field::Scheme(scheme) => self.scheme = Some(scheme),
            Field::Authority(authority) => self.authority = Some(authority),
            Field::Path(path) => self.path = Some(path),
            Field::Protocol(protocol) => self.protocol = Some(protocol),
            Field::Status(status) => self.status = Some(status),
            Field::Regular(name, value) => {
                self.malformed |=
                    is_of_http1(&name, &value) || is_padded(&value) || self.regular.try_append(name, value).is_err();
            }
        }
    }

    /// As the head of a request.
    pub(crate) fn request<B>(self, body: B) -> Result<Request<B>, Malformed> {
        let method = self.method.ok_or(Malformed)?;
        let tunnel = method == Method::CONNECT && self.protocol.is_none();
        let has_target = self.scheme.is_some() && self.path.is_some();
        if self.malformed
            || self.status.is_some()
            || tunnel && (self.scheme.is_some() || self.path.is_some() || self.authority.is_none())
            || !tunnel && !has_target
            || self.protocol.is_some() && (method != Method::CONNECT || self.authority.is_none())
        {
            return Err(Malformed);
        }
        let mut parts = Parts::default();
        if let Some(authority) = self.authority {
            parts.authority = Some(Authority::from_maybe_shared(authority).map_err(|_| Malformed)?);
        }
        if let Some(scheme) = self.scheme {
            let scheme = match &scheme[..] {
                b"http" => Scheme::HTTP,
                b"https" => Scheme::HTTPS,
                other => Scheme::try_from(other).map_err(|_| Malformed)?,
            };
            // A URI cannot have a scheme and no authority.
            parts.scheme = parts.authority.is_some().then_some(scheme);
        }
        if let Some(path) = self.path {
            // A path that is empty, or of another form, is one of no request but CONNECT (§8.3.1).
            if !path.starts_with(b"/") && &path[..] != b"*" {
                return Err(Malformed);
            }
            parts.path_and_query = Some(PathAndQuery::from_maybe_shared(path).map_err(|_| Malformed)?);
        }
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Malformed)?;
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = self.regular;
        if let Some(protocol) = self.protocol {
            request.extensions_mut().insert(Protocol(protocol));
        }
        Ok(request)
    }

    /// As the head of an answer.
    pub(crate) fn answer(self) -> Result<(StatusCode, HeaderMap), Malformed> {
        match self.status {
            Some(status) if !self.malformed && !self.has_request_fields() => Ok((status, self.regular)),
            _ => Err(Malformed),
        }
    }

    /// As trailers.
    pub(crate) fn trailers(self) -> Result<HeaderMap, Malformed> {
        if self.malformed || self.status.is_some() || self.has_request_fields() {
            return Err(Malformed);
        }
        Ok(self.regular)
    }

    fn has_request_fields(&self) -> bool {
        self.method.is_some()
            || self.scheme.is_some()
            || self.authority.is_some()
            || self.path.is_some()
            || self.protocol.is_some()
    }
}

/// Whether white space stands around a value (§8.2.1).
fn is_padded(value: &HeaderValue) -> bool {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    blank(value.as_bytes().first()) || blank(value.as_bytes().last())
}

/// Whether a field has a meaning on one connection of HTTP/1 alone (§8.2.2).
fn is_of_http1(name: &HeaderName, value: &HeaderValue) -> bool {
    *name == CONNECTION
        || *name == TRANSFER_ENCODING
        || *name == UPGRADE
        || *name == KEEP_ALIVE
        || *name == PROXY_CONNECTION
        || *name == TE && value != "trailers"
}

/// The length that the fields announce; an error where they contradict each other or say none at all (§8.1.1).
pub(crate) fn length(headers: &HeaderMap) -> Result<Option<u64>, Malformed> {
    let mut found = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        let length = digits(value.as_bytes()).ok_or(Malformed)?;
        if found.is_some_and(|before| before != length) {
            return Err(Malformed);
        }
        found = Some(length);
    }
    Ok(found)
}

fn digits(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 {
        return None;
    }
    let digit = |number: u64, byte: &u8| {
        byte.is_ascii_digit().then(|| number.checked_mul(10)?.checked_add(u64::from(byte.wrapping_sub(b'0')))).flatten()
    };
    value.iter().try_fold(0, digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn collect(fields: Vec<Field>) -> Fields {
        let mut all = Fields::new(0);
        for field in fields {
            all.take(field);
        }
        all
    }

    fn get(path: &'static str) -> Vec<Field> {
        vec![Field::Method(Method::GET), Field::Scheme(bytes("http")), Field::Path(bytes(path))]
    }

    fn regular(name: &'static str, value: &'static str) -> Field {
        Field::Regular(HeaderName::from_static(name), HeaderValue::from_static(value))
    }

    #[test]
    fn a_request_has_all_that_it_needs_and_nothing_of_an_answer() {
        assert_eq!(collect(get("/a?b")).request(()).unwrap().uri(), "/a?b");
        let with_host = [get("/"), vec![Field::Authority(bytes("a:1"))]].concat_fields();
        assert_eq!(collect(with_host).request(()).unwrap().uri(), "http://a:1/");
        for path in ["", "a", "http://x/"] {
            assert!(collect(get(path)).request(()).is_err(), "{path}");
        }
        for missing in 0..3 {
            let mut fields = get("/");
            fields.remove(missing);
            assert!(collect(fields).request(()).is_err());
        }
        let status = [get("/"), vec![Field::Status(StatusCode::OK)]].concat_fields();
        assert!(collect(status).request(()).is_err());
    }

    trait Concat {
        fn concat_fields(self) -> Vec<Field>;
    }

    impl Concat for [Vec<Field>; 2] {
        fn concat_fields(self) -> Vec<Field> {
            self.into_iter().flatten().collect()
        }
    }

    #[test]
    fn a_connect_names_a_host_alone_or_a_protocol_and_all() {
        let connect = || vec![Field::Method(Method::CONNECT), Field::Authority(bytes("a:1"))];
        assert_eq!(collect(connect()).request(()).unwrap().uri(), "a:1");
        assert!(collect([connect(), vec![Field::Path(bytes("/"))]].concat_fields()).request(()).is_err());
        let extended =
            vec![Field::Scheme(bytes("https")), Field::Path(bytes("/x")), Field::Protocol(bytes("websocket"))];
        let request = collect([connect(), extended].concat_fields()).request(()).unwrap();
        assert_eq!(request.extensions().get::<Protocol>().unwrap().as_bytes(), b"websocket");
        assert!(collect([get("/"), vec![Field::Protocol(bytes("websocket"))]].concat_fields()).request(()).is_err());
    }

    #[test]
    fn fields_of_http_1_are_refused() {
        for (name, value) in [
            ("connection", "x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("keep-alive", "1"),
            ("te", "gzip"),
        ] {
            assert!(collect([get("/"), vec![regular(name, value)]].concat_fields()).request(()).is_err(), "{name}");
        }
        assert!(collect([get("/"), vec![regular("te", "trailers")]].concat_fields()).request(()).is_ok());
    }

    #[test]
    fn lengths_agree_or_mean_nothing() {
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_LENGTH, HeaderValue::from_static(value));
            }
            length(&headers)
        };
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&["12", "12"]), Ok(Some(12)));
        for bad in [&["1", "2"][..], &["+1"], &["1,1"], &[""], &["-0"], &["99999999999999999999"]] {
            assert!(of(bad).is_err(), "{bad:?}");
        }
    }
}
