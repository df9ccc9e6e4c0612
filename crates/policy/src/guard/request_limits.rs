//! Turns away requests that are larger, or of another kind, than a service wants to see.
//!
//! ```yaml
//! request_limits:
//!   body: 1MiB                       # 413 beyond
//!   headers: 32KiB                   # 431
//!   header_count: 100                # 431
//!   uri: 8KiB                        # 414
//!   content_types: [application/json, image/*]   # 415
//! ```
//!
//! What is not written is not limited here; the limits of the listener hold all the same. A body is judged by its length
//! before a byte of it is read; one of unknown length is counted as it streams and breaks off beyond the cap: the client
//! is answered 413 if the head of the answer has not been sent yet, else the connection is closed. Headers count as
//! they stand in HTTP/1: name, value and four bytes for each. The target is path and query after normalisation.
//! `content_types` concern requests that have a body; parameters such as `charset` do not count.
//!
//! In shadow a body of unknown length is not counted, since its end comes after the verdict.

use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use http_body::Body as _;
use pylon_core::Request;
use pylon_core::body::Body;
use pylon_core::exchange::Exchange;
use pylon_core::kept;
use pylon_core::rejection::{LIMIT_BODY, LIMIT_CONTENT_TYPE, LIMIT_HEADERS, LIMIT_URI, Rejection};
use pylon_core::short::OneOrMany;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::units::ByteSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bodies::Capped;
use crate::policy::{Compiling, Policy, Step};
use crate::written;

/// How large a request may be, and of which kinds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestLimitsSpec {
    /// The longest body, as a size in bytes. Default: no limit here.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ByteSize", example = &"1MiB")]
    pub body: Option<ByteSize>,
    /// All headers together, as a size in bytes. Default: no limit here.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ByteSize", example = &"32KiB")]
    pub headers: Option<ByteSize>,
    /// How many header lines. Default: no limit here.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", example = 100)]
    pub header_count: Option<u32>,
    /// The longest path with query, as a size in bytes. Default: no limit here.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ByteSize", example = &"8KiB")]
    pub uri: Option<ByteSize>,
    /// The media types that a body may have, `type/subtype` or `type/*`. Default: all.
    #[serde(default)]
    #[schemars(example = vec!["application/json", "image/*"])]
    pub content_types: OneOrMany<String>,
}

/// The limits at work.
#[derive(Debug)]
pub struct RequestLimits {
    body: Option<u64>,
    headers: Option<ByteSize>,
    header_count: Option<usize>,
    uri: Option<ByteSize>,
    kinds: Option<Kinds>,
}

/// The media types that are accepted, and the `Accept` header that says so (RFC 9110 §15.5.16).
#[derive(Debug)]
struct Kinds {
    kinds: Box<[Kind]>,
    accept: HeaderValue,
}

/// One media type; no subtype means any.
#[derive(Debug)]
struct Kind {
    main: Box<str>,
    sub: Option<Box<str>>,
}

impl Policy for RequestLimits {
    type Spec = RequestLimitsSpec;
    type Memo = ();

    fn compile(spec: &Self::Spec, _: &Compiling<'_>) -> Result<Self, Vec<SpecError>> {
        if *spec == RequestLimitsSpec::default() {
            let error = SpecError::new(FieldPath::root(), "no limit is written, so nothing would be limited");
            return Err(vec![error.help("write for example `request_limits: { body: 1MiB }`")]);
        }
        Ok(Self {
            body: spec.body.map(ByteSize::bytes),
            headers: spec.headers,
            header_count: spec.header_count.map(|count| count as usize),
            uri: spec.uri,
            kinds: Kinds::compile(&spec.content_types)?,
        })
    }

    fn on_request<'a>(&'a self, req: &'a mut Request, cx: &'a mut Exchange) -> Step<'a, ()> {
        if let Err(rejection) = self.judge(req, cx) {
            return Step::Done(Err(rejection.into()));
        }
        if let Some(cap) = self.body
            && req.body().size_hint().upper().is_none_or(|most| most > cap)
        {
            let body = std::mem::take(req.body_mut());
            *req.body_mut() = Body::stream(Capped::new(body, cap));
        }
        Step::Done(Ok(()))
    }
}

impl RequestLimits {
    fn judge(&self, req: &Request, cx: &Exchange) -> Result<(), Rejection> {
        if let Some(most) = self.uri
            && cx.path.as_str().len() as u64 > most.bytes()
        {
            return Err(LIMIT_URI.because(format!("`uri` allows {most}")));
        }
        if let Some(most) = self.header_count
            && req.headers().len() > most
        {
            return Err(LIMIT_HEADERS.because(format!("`header_count` allows {most}")));
        }
        if let Some(most) = self.headers
            && size(req.headers()) > most.bytes()
        {
            return Err(LIMIT_HEADERS.because(format!("`headers` allows {most}")));
        }
        if let Some(cap) = self.body
            && least(req) > cap
        {
            return Err(LIMIT_BODY.because(format!("`body` allows {}", ByteSize::new(cap))));
        }
        match &self.kinds {
            Some(kinds) if !req.body().is_empty() && !kinds.accept(req.headers()) => {
                Err(LIMIT_CONTENT_TYPE.with_header(ACCEPT, kinds.accept.clone()))
            }
            _ => Ok(()),
        }
    }
}

/// The size of all header lines in HTTP/1: `name: value` and the end of the line.
fn size(headers: &HeaderMap) -> u64 {
    headers.iter().map(|(name, value)| (name.as_str().len() + value.len() + 4) as u64).sum()
}

/// How long the body is at least, by what it says itself and by what the head says.
fn least(req: &Request) -> u64 {
    let written = req.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    // A length beyond the range of numbers is beyond every limit; what is no number is refused with the framing.
    let written = written.filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()));
    let written = written.map_or(0, |text| text.parse().unwrap_or(u64::MAX));
    req.body().size_hint().lower().max(written)
}

impl Kinds {
    fn compile(spec: &[String]) -> Result<Option<Self>, Vec<SpecError>> {
        if spec.is_empty() {
            return Ok(None);
        }
        let (mut kinds, mut errors) = (Vec::new(), Vec::new());
        for (i, text) in spec.iter().enumerate() {
            match Kind::parse(text) {
                Some(kind) => kinds.push(kind),
                None => {
                    let at = FieldPath::root().key("content_types").index(i);
                    let problem = format!("`{text}` is not a media type");
                    errors.push(
                        SpecError::new(at, problem).help("write `application/json` or `image/*`, without parameters"),
                    );
                }
            }
        }
        match kept::value(&spec.join(", ")) {
            Ok(accept) if errors.is_empty() => Ok(Some(Self { kinds: kinds.into(), accept })),
            _ => Err(errors),
        }
    }

    /// Whether there is one `Content-Type` and it is among the accepted.
    fn accept(&self, headers: &HeaderMap) -> bool {
        let mut lines = headers.get_all(CONTENT_TYPE).iter();
        let (Some(line), None) = (lines.next(), lines.next()) else { return false };
        let text = line.to_str().unwrap_or_default();
        let essence = text.split_once(';').map_or(text, |(essence, _)| essence).trim();
        let Some((main, sub)) = essence.split_once('/') else { return false };
        let fits = |kind: &Kind| {
            kind.main.eq_ignore_ascii_case(main)
                && kind.sub.as_ref().map_or(is_token(sub), |want| want.eq_ignore_ascii_case(sub))
        };
        self.kinds.iter().any(fits)
    }
}

impl Kind {
    fn parse(text: &str) -> Option<Self> {
        let (main, sub) = text.split_once('/').filter(|(main, _)| is_token(main) && *main != "*")?;
        match sub {
            "*" => Some(Self { main: main.into(), sub: None }),
            _ => is_token(sub).then(|| Self { main: main.into(), sub: Some(sub.into()) }),
        }
    }
}

/// Whether it is a token (RFC 9110 §5.6.2).
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Stop;
    use crate::testing::{Frames, Seen, compile, now, read, stopped};
    use pylon_core::body::BodyError;

    fn code(spec: &str, seen: &Seen) -> &'static str {
        let policy = compile::<RequestLimits>(spec).unwrap();
        let (mut req, mut cx) = seen.start();
        now(policy.on_request(&mut req, &mut cx)).map_or_else(|stop| stopped(Err::<(), Stop>(stop)), |()| "passed")
    }

    #[test]
    fn each_limit_lets_its_own_size_pass_and_not_one_more() {
        let uri = r#"{ "uri": "8B" }"#;
        assert_eq!(code(uri, &Seen::get("/1234567")), "passed");
        assert_eq!(code(uri, &Seen::get("/1234?67x")), "request_limits.uri");
        let count = r#"{ "header_count": 2 }"#;
        assert_eq!(code(count, &Seen::get("/").header("a", "1").header("a", "2")), "passed");
        assert_eq!(
            code(count, &Seen::get("/").header("a", "1").header("a", "2").header("b", "3")),
            "request_limits.headers"
        );
        let headers = r#"{ "headers": "10B" }"#;
        assert_eq!(code(headers, &Seen::get("/").header("abc", "123")), "passed");
        assert_eq!(code(headers, &Seen::get("/").header("abc", "1234")), "request_limits.headers");
    }

    #[test]
    fn a_body_is_judged_by_its_length_before_it_is_read() {
        let spec = r#"{ "body": "10B" }"#;
        let long = |length: &str| Seen::get("/").header("content-length", length);
        assert_eq!(code(spec, &long("10")), "passed");
        assert_eq!(code(spec, &long("11")), "request_limits.body");
        assert_eq!(code(spec, &long("99999999999999999999999")), "request_limits.body");
        assert_eq!(code(spec, &Seen::get("/").body("12345678901")), "request_limits.body");
    }

    #[test]
    fn a_body_of_unknown_length_breaks_off_beyond_the_cap() {
        let policy = compile::<RequestLimits>(r#"{ "body": "10B" }"#).unwrap();
        for (sizes, want) in [(&[5_usize, 5][..], Ok(10)), (&[5, 6], Err(BodyError::TooLarge(10)))] {
            let (mut req, mut cx) = Seen::get("/").start();
            *req.body_mut() = Body::stream(Frames::of(sizes));
            now(policy.on_request(&mut req, &mut cx)).unwrap();
            assert_eq!(read(req.into_body()).map(|(bytes, _)| bytes), want);
        }
    }

    #[test]
    fn a_body_of_known_length_is_not_wrapped() {
        let policy = compile::<RequestLimits>(r#"{ "body": "10B" }"#).unwrap();
        let (mut req, mut cx) = Seen::get("/").body("hello").start();
        now(policy.on_request(&mut req, &mut cx)).unwrap();
        assert!(matches!(req.body(), Body::Full(_)));
    }

    #[test]
    fn a_body_must_be_of_an_accepted_kind() {
        let spec = r#"{ "content_types": ["application/json", "image/*"] }"#;
        let sent = |kind: &str| Seen::get("/").header("content-type", kind).body("{}");
        for kind in ["application/json", "Application/JSON; charset=utf-8", "image/png"] {
            assert_eq!(code(spec, &sent(kind)), "passed", "{kind}");
        }
        for kind in [
            "text/plain",
            "application/json, text/plain",
            "image/",
            "image",
            "",
            "application/jsonx",
            "image/png, text/html",
        ] {
            assert_eq!(code(spec, &sent(kind)), "request_limits.content_type", "{kind}");
        }
        assert_eq!(code(spec, &Seen::get("/").body("{}")), "request_limits.content_type");
        let twice = sent("application/json").header("content-type", "application/json");
        assert_eq!(code(spec, &twice), "request_limits.content_type");
        assert_eq!(code(spec, &Seen::get("/")), "passed");
    }

    #[test]
    fn the_refusal_names_the_limit_and_says_what_is_accepted() {
        let policy = compile::<RequestLimits>(r#"{ "uri": "1KiB", "content_types": "text/*" }"#).unwrap();
        let (mut req, mut cx) = Seen::get(&format!("/{}", "x".repeat(1024))).start();
        let Err(Stop::Reject(rejection)) = now(policy.on_request(&mut req, &mut cx)) else { panic!("it passed") };
        assert_eq!(rejection.detail.as_deref(), Some("`uri` allows 1KiB"));
        let (mut req, mut cx) = Seen::get("/").body("x").start();
        let Err(Stop::Reject(rejection)) = now(policy.on_request(&mut req, &mut cx)) else { panic!("it passed") };
        assert_eq!(rejection.headers.as_slice(), [(ACCEPT, HeaderValue::from_static("text/*"))]);
    }

    #[test]
    fn limits_that_limit_nothing_are_errors() {
        for spec in ["{}", r#"{ "body": 10 }"#, r#"{ "bodies": "1MiB" }"#, r#"{ "header_count": -1 }"#, "true"] {
            assert!(compile::<RequestLimits>(spec).is_err(), "{spec}");
        }
        for kind in ["*/*", "json", "text/", "/x", "text/plain; charset=utf-8", "a/b/c"] {
            let error =
                compile::<RequestLimits>(&format!(r#"{{ "content_types": ["text/*", "{kind}"] }}"#)).unwrap_err();
            assert!(error.starts_with("content_types[1]: "), "{error}");
        }
    }
}
