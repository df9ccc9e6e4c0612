//! What the policies of a route cost each request: none, and the usual four.

use std::future::Future;
use std::hint::black_box;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use divan::Bencher;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use pylon_core::body::Body;
use pylon_core::caller::Caller;
use pylon_core::carry::Carry;
use pylon_core::connection::{Connection, Scheme};
use pylon_core::exchange::{Exchange, Head};
use pylon_core::secret::Secret;
use pylon_core::{Request, Response};
use pylon_net::resolve::Resolver;
use pylon_policy::pipeline::Pipeline;
use pylon_policy::policy::{Around, Compiling, Stop};
use pylon_policy::registry::{AnySpec, SpecReader, read_spec};

const USUAL: &[(&str, &str)] = &[
    ("ip_filter", r#"{ "allow": ["10.0.0.0/8", "192.0.2.0/24"], "deny": "10.9.0.0/16" }"#),
    ("request_limits", r#"{ "body": "1MiB", "headers": "32KiB", "header_count": 100, "uri": "8KiB" }"#),
    ("cors", r#"{ "origins": ["https://a.example", "https://b.example"], "credentials": true }"#),
    (
        "headers",
        r#"{ "request": { "set": { "x-gateway": "pylon" }, "remove": ["x-debug"] },
             "response": { "set": { "x-frame-options": "DENY" }, "remove": ["server"] } }"#,
    ),
];

fn main() {
    divan::main();
}

#[divan::bench(sample_size = 16)]
fn no_policy(bencher: Bencher<'_, '_>) {
    round(bencher, &[]);
}

#[divan::bench(sample_size = 16)]
fn ip_filter(bencher: Bencher<'_, '_>) {
    round(bencher, &only("ip_filter"));
}

#[divan::bench(sample_size = 16)]
fn request_limits(bencher: Bencher<'_, '_>) {
    round(bencher, &only("request_limits"));
}

#[divan::bench(sample_size = 16)]
fn cors(bencher: Bencher<'_, '_>) {
    round(bencher, &only("cors"));
}

#[divan::bench(sample_size = 16)]
fn headers(bencher: Bencher<'_, '_>) {
    round(bencher, &only("headers"));
}

/// A token that was good before.
#[divan::bench(sample_size = 16)]
fn known_token(bencher: Bencher<'_, '_>) {
    let secret = "0123456789abcdef0123456789abcdef";
    let spec = format!(
        r#"{{ "issuer": "id", "audience": "api", "secret": "{secret}", "headers": {{ "x-user": "subject" }} }}"#
    );
    let bearer = HeaderValue::try_from(format!("Bearer {}", token(secret))).unwrap_or_else(|_| unreachable!());
    let pipeline = pipeline(&[("jwt", &spec)]);
    let mut cx = exchange();
    let with_token = || {
        let mut req = request();
        req.headers_mut().insert("authorization", bearer.clone());
        req
    };
    assert!(run(pipeline.request(&mut with_token(), &mut cx)).1.is_none());
    bencher.with_inputs(with_token).bench_local_refs(|req| {
        let (memos, stop) = run(pipeline.request(req, &mut cx));
        assert!(stop.is_none());
        memos
    });
}

/// A token that was signed before for the same caller.
#[divan::bench(sample_size = 16)]
fn minted_token(bencher: Bencher<'_, '_>) {
    let pipeline = pipeline(&[("mint", r#"{ "issuer": "gate", "audience": "api" }"#)]);
    let mut cx = exchange();
    cx.caller = Some(Arc::new(Caller { subject: "ann".into(), ..Caller::default() }));
    bencher.with_inputs(request).bench_local_refs(|req| {
        let (memos, stop) = run(pipeline.request(req, &mut cx));
        assert!(stop.is_none());
        memos
    });
}

#[divan::bench(sample_size = 16)]
fn csrf(bencher: Bencher<'_, '_>) {
    round(bencher, &[("csrf", "true")]);
}

/// An expression without loops, which is evaluated on the worker.
#[cfg(feature = "cel")]
#[divan::bench(sample_size = 16)]
fn expression(bencher: Bencher<'_, '_>) {
    round(bencher, &[("expression", r#""request.method != 'PURGE' && !request.path.startsWith('/internal/')""#)]);
}

/// A token by a shared secret, as long as most are.
fn token(secret: &str) -> String {
    let encode = |bytes: &[u8]| base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, bytes);
    let claims = format!(r#"{{"iss":"id","aud":"api","sub":"ann","exp":4102444800,"fill":"{}"}}"#, "x".repeat(500));
    let text = format!("{}.{}", encode(br#"{"alg":"HS256"}"#), encode(claims.as_bytes()));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
    format!("{text}.{}", encode(aws_lc_rs::hmac::sign(&key, text.as_bytes()).as_ref()))
}

#[divan::bench(sample_size = 16)]
fn the_usual_four(bencher: Bencher<'_, '_>) {
    round(bencher, USUAL);
}

fn only(key: &str) -> Vec<(&'static str, &'static str)> {
    USUAL.iter().copied().filter(|(name, _)| *name == key).collect()
}

/// One request in and one response out. Making and dropping them is not counted.
fn round(bencher: Bencher<'_, '_>, specs: &[(&str, &str)]) {
    let pipeline = pipeline(specs);
    let mut cx = exchange();
    bencher.with_inputs(|| (request(), response())).bench_local_refs(|(req, res)| {
        let (memos, stop) = run(pipeline.request(req, &mut cx));
        assert!(stop.is_none());
        run(pipeline.response(memos, res, &mut cx, render));
    });
    black_box(cx);
}

fn pipeline(specs: &[(&str, &str)]) -> Pipeline {
    let specs: Vec<AnySpec> = specs
        .iter()
        .map(|(key, json)| read_spec(key, Json(json)).flatten().unwrap_or_else(|| unreachable!("{key}")))
        .collect();
    let servers = [SocketAddr::from(([127, 0, 0, 1], 53))];
    let resolver = Resolver::new(&servers).unwrap_or_else(|error| unreachable!("{error}"));
    let around = Around::new(Arc::default(), resolver, |_| Ok(Secret::new("0123456789abcdef0123456789abcdef")));
    Pipeline::build(&specs, &[], &Compiling { carry: &Carry::default(), around: &around })
        .unwrap_or_else(|errors| unreachable!("{errors:?}"))
}

struct Json<'a>(&'a str);

impl SpecReader for Json<'_> {
    fn read<T: serde::de::DeserializeOwned>(self) -> Option<T> {
        serde_json::from_str(self.0).ok()
    }
}

fn request() -> Request {
    let mut req = Request::new(Body::Empty);
    *req.headers_mut() = lines(&[
        ("host", "api.example.com"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"),
        ("accept", "application/json"),
        ("accept-encoding", "gzip, br"),
        ("accept-language", "en-GB,en;q=0.9"),
        ("origin", "https://a.example"),
        ("referer", "https://a.example/orders"),
        ("cookie", "session=0123456789abcdef"),
        ("sec-fetch-mode", "cors"),
    ]);
    req
}

fn response() -> Response {
    let mut res = Response::new(Body::Empty);
    *res.headers_mut() = lines(&[
        ("content-type", "application/json"),
        ("date", "Thu, 01 Jan 2026 00:00:00 GMT"),
        ("server", "service/1.0"),
        ("etag", "\"1\""),
    ]);
    res
}

fn lines(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(32);
    for (name, value) in lines {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers
}

#[expect(clippy::disallowed_methods, reason = "an exchange wants a moment, and no policy here looks at it")]
fn exchange() -> Box<Exchange> {
    let now = Instant::now();
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 80));
    Exchange::begin(Head {
        connection: Arc::new(Connection::new(anywhere, anywhere, Scheme::Http, now)),
        client: [192, 0, 2, 1].into(),
        from_trusted_proxy: false,
        scheme: Scheme::Http,
        request_id: HeaderValue::from_static("id-1"),
        started: now,
        method: Method::GET,
        version: Version::HTTP_11,
        host: Some("api.example.com".into()),
        path: http::uri::PathAndQuery::from_static("/orders/7?expand=items"),
    })
}

fn render(stop: Stop, _: &mut Exchange) -> Response {
    unreachable!("{stop:?}")
}

fn run<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("no policy here waits"),
    }
}
