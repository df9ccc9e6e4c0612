//! What the gateway does to each attempt on its way out: headers and credentials of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use http_body::Frame;
use pylon_core::body::Body;
use pylon_core::carry::Carry;
use pylon_core::rejection::{Rejection, UPSTREAM_CREDENTIAL};
use pylon_net::resolve::Resolver;
use tokio::runtime::Handle;

use super::fixture::{Peer, Service, agents, call, channel_body, data, get, request, revealed, to, upstream, whole};
use crate::locality::LocalitySpec;
use crate::outbound::spec::OutboundSpec;
use crate::spec::UpstreamSpec;
use crate::upstream::{Building, Upstream};

/// A service that answers with the request that it got.
async fn echo() -> Service {
    Service::new(|mut peer, _| async move { while answered(&mut peer).await {} }).await
}

async fn answered(peer: &mut Peer) -> bool {
    let Some((head, body)) = peer.request().await else { return false };
    let seen = [head.as_bytes(), &body].concat();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", seen.len());
    peer.write(&[answer.as_bytes(), &seen].concat()).await
}

/// What the service saw of a GET with these fields, as text.
async fn seen(upstream: &Upstream, fields: &[(&'static str, &'static str)]) -> String {
    let mut get = request(&Method::GET, "/", Body::Empty);
    for (name, value) in fields {
        get.headers_mut().append(*name, HeaderValue::from_static(value));
    }
    let (answer, _) = call(upstream, get).await;
    String::from_utf8(whole(answer.unwrap()).await.0.to_vec()).unwrap()
}

/// The value of a line of what the service saw; none where there is none, or several.
fn line<'a>(seen: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = seen.lines().filter_map(|line| line.split_once(": ").filter(|(key, _)| *key == name));
    lines.next().map(|(_, value)| value).filter(|_| lines.next().is_none())
}

/// All that is wrong with a spec, each with its place.
fn wrong(outbound: &str) -> Vec<String> {
    let outbound: OutboundSpec = serde_json::from_str(outbound).unwrap();
    let spec: UpstreamSpec = serde_json::from_str(r#"{"endpoints": ["http://127.0.0.1:9"]}"#).unwrap();
    let spec = UpstreamSpec { outbound: Some(outbound), ..spec };
    let resolver = Resolver::new(&["127.0.0.1:9".parse().unwrap()]).unwrap();
    let yaml = |_: &str| Err("none here".to_owned());
    let cx = Building {
        carry: &Carry::default(),
        resolver: &resolver,
        yaml,
        agents: &agents("{}", &resolver),
        secrets: revealed,
        locality: &LocalitySpec::default(),
    };
    let errors = Upstream::compile("users".into(), &spec, &cx).err().unwrap_or_default();
    errors.into_iter().map(|error| format!("{}: {}", error.at, error.problem)).collect()
}

#[tokio::test]
async fn headers_are_removed_set_and_added_in_every_spelling() {
    let service = echo().await;
    let outbound =
        r#", "outbound": {"headers": {"set": {"X-Key": "mine"}, "add": {"x-tag": ["b", "c"]}, "remove": ["cookie"]}}"#;
    let seen = seen(
        &to(&service, outbound),
        &[("x-key", "forged"), ("x_key", "forged"), ("x-tag", "a"), ("cookie", "c"), ("authorization", "client's")],
    )
    .await;
    assert_eq!((line(&seen, "x-key"), line(&seen, "authorization")), (Some("mine"), Some("client's")));
    assert!(!seen.contains("forged") && !seen.contains("cookie"), "{seen}");
    let tags: Vec<_> = seen.lines().filter_map(|line| line.strip_prefix("x-tag: ")).collect();
    assert_eq!(tags, ["a", "b", "c"]);
}

#[tokio::test]
async fn what_is_set_cannot_come_in_trailers() {
    let service = Service::new(|mut peer, _| async move {
        peer.head().await;
        let body = peer.until(b"\r\n\r\n").await.unwrap();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        peer.write(&[answer.as_bytes(), &body].concat()).await;
    })
    .await;
    let upstream = to(&service, r#", "outbound": {"headers": {"set": {"x-key": "mine"}}}"#);
    let (sender, body) = channel_body();
    let trailers = [("x_key", "forged"), ("x-sum", "1")];
    let trailers = trailers.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    sender.send(data("abc")).await.unwrap();
    sender.send(Ok(Frame::trailers(HeaderMap::from_iter(trailers)))).await.unwrap();
    drop(sender);
    let (answer, _) = call(&upstream, request(&Method::POST, "/", body)).await;
    assert_eq!(whole(answer.unwrap()).await.0, "3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n");
}

#[tokio::test]
async fn a_credential_takes_the_place_of_the_clients() {
    let service = echo().await;
    let basic = to(&service, r#", "outbound": {"basic": {"user": "gate", "password": "open sesame"}}"#);
    let fields = [("authorization", "Bearer client"), ("authorization", "Bearer other")];
    assert_eq!(line(&seen(&basic, &fields).await, "authorization"), Some("Basic Z2F0ZTpvcGVuIHNlc2FtZQ=="));
    let bearer = to(&service, r#", "outbound": {"bearer": "token-1"}"#);
    assert_eq!(line(&seen(&bearer, &fields).await, "authorization"), Some("Bearer token-1"));
}

#[tokio::test]
async fn a_second_attempt_has_everything_once() {
    // The second request of a connection finds it closed, which is worth another attempt.
    let service = Service::new(|mut peer, _| async move {
        answered(&mut peer).await;
        peer.request().await;
    })
    .await;
    let upstream = to(&service, r#", "outbound": {"bearer": "t", "headers": {"add": {"x-tag": "a"}}}"#);
    seen(&upstream, &[]).await;
    let again = seen(&upstream, &[]).await;
    assert_eq!((line(&again, "x-tag"), line(&again, "authorization")), (Some("a"), Some("Bearer t")));
    assert_eq!(service.connections(), 2);
}

#[tokio::test]
async fn a_token_in_a_file_is_read_again_and_one_that_is_gone_stays() {
    let service = echo().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "one\n").unwrap();
    let upstream = to(&service, &format!(r#", "outbound": {{"bearer": "file:{}"}}"#, path.display()));
    assert_eq!(line(&seen(&upstream, &[]).await, "authorization"), Some("Bearer one"));
    std::fs::write(&path, "two\n").unwrap();
    eventually(async || line(&seen(&upstream, &[]).await, "authorization") == Some("Bearer two")).await;
    std::fs::remove_file(&path).unwrap();
    eventually(async || upstream.view().outbound.unwrap().error.is_some()).await;
    assert_eq!(line(&seen(&upstream, &[]).await, "authorization"), Some("Bearer two"));
}

#[tokio::test]
async fn no_secret_is_ever_printed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, "hunter2").unwrap();
    let file = format!("file:{}", path.display());
    let id = Tokens::new(Duration::from_secs(60)).await;
    for outbound in [
        format!(
            r#"{{"basic": {{"user": "gate", "password": "{file}"}}, "headers": {{"set": {{"x-key": "{file}"}}}}}}"#
        ),
        format!(r#"{{"bearer": "{file}"}}"#),
        r#"{"bearer": "hunter2"}"#.to_owned(),
        id.outbound(""),
    ] {
        let service = echo().await;
        let upstream = to(&service, &format!(r#", "outbound": {outbound}"#));
        seen(&upstream, &[]).await;
        let (view, debug) = (serde_json::to_string(&upstream.view()).unwrap(), format!("{upstream:?}"));
        let spec: OutboundSpec = serde_json::from_str(&outbound).unwrap();
        let written = format!("{spec:?}{}", serde_json::to_string(&spec).unwrap());
        for secret in ["hunter2", "aHVudGVyMg", "Z2F0ZTpodW50ZXIy", "token-"] {
            for text in [&view, &debug, &written] {
                assert!(!text.contains(secret), "{secret} in {text}");
            }
        }
    }
}

#[tokio::test]
async fn what_cannot_be_meant_is_told_with_its_place() {
    for (outbound, error) in [
        ("{}", "outbound: nothing is written"),
        (r#"{"bearer": "a", "basic": {"user": "u", "password": "p"}}"#, "outbound.bearer: both `basic` and `bearer`"),
        (
            r#"{"bearer": "a", "headers": {"remove": "Authorization"}}"#,
            "outbound.headers: `Authorization` is written by `bearer`",
        ),
        (r#"{"headers": {"set": {"host": "a"}}}"#, "outbound.headers.set.host: `host` is written by the gateway"),
        (r#"{"headers": {"set": {"x-a": "a\nb"}}}"#, "outbound.headers.set.x-a: this value cannot stand in a header"),
        (r#"{"headers": {"set": {"x-a": "env:NONE"}}}"#, "outbound.headers.set.x-a: no variable"),
        (r#"{"headers": {"remove": ["x y"]}}"#, "outbound.headers.remove[0]: `x y` is not a header name"),
        (r#"{"basic": {"user": "a:b", "password": "p"}}"#, "outbound.basic.user: `a:b` is no user name"),
        (r#"{"bearer": "a b"}"#, "outbound.bearer: this is no token"),
        (
            r#"{"oauth2": {"token_url": "http://id.test/t", "client_id": "g", "client_secret": "s"}}"#,
            "outbound.oauth2.token_url: secrets would go over the network in cleartext",
        ),
        (
            r#"{"oauth2": {"token_url": "id.test", "client_id": "g", "client_secret": "env:NONE"}}"#,
            "outbound.oauth2.token_url: `id.test` has no scheme",
        ),
    ] {
        let errors = wrong(outbound);
        assert!(errors.iter().any(|told| told.starts_with(error)), "{outbound}: {errors:?}");
        assert!(errors.iter().all(|told| told.starts_with("outbound")), "{outbound}: {errors:?}");
    }
    assert_eq!(wrong(r#"{"oauth2": {"token_url": "id.test", "client_id": "", "client_secret": "env:NONE"}}"#).len(), 3);
}

/// A token service: each answer is another token.
struct Tokens {
    service: Service,
    asked: Arc<AtomicUsize>,
    away: Arc<AtomicBool>,
}

impl Tokens {
    /// Tokens that are good for so long.
    async fn new(good: Duration) -> Self {
        let (asked, away) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let shared = (Arc::clone(&asked), Arc::clone(&away));
        let service = Service::new(move |mut peer, _| {
            let (asked, away) = (Arc::clone(&shared.0), Arc::clone(&shared.1));
            async move {
                let Some((head, body)) = peer.request().await else { return };
                assert!(head.starts_with("POST /token HTTP/1.1\r\n"), "{head}");
                assert_eq!(String::from_utf8(body).unwrap(), "grant_type=client_credentials&scope=read+write");
                assert_eq!(line(&head, "authorization"), Some("Basic Z2F0ZTpodW50ZXIy"), "{head}");
                let number = asked.fetch_add(1, SeqCst) + 1;
                // Long enough for all who want one to have asked.
                tokio::time::sleep(Duration::from_millis(50)).await;
                let (status, answer) = if away.load(SeqCst) {
                    ("503 Service Unavailable", String::new())
                } else {
                    let secs = good.as_secs();
                    let member = format!(r#""access_token": "token-{number}", "token_type": "Bearer""#);
                    ("200 OK", format!(r#"{{{member}, "expires_in": {secs}}}"#))
                };
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{answer}", answer.len());
                peer.write(answer.as_bytes()).await;
            }
        })
        .await;
        Self { service, asked, away }
    }

    fn outbound(&self, more: &str) -> String {
        let url = self.service.url();
        format!(
            r#"{{"oauth2": {{"token_url": "{url}/token", "client_id": "gate", "client_secret": "hunter2",
                "scopes": ["read", "write"]{more}}}}}"#
        )
    }

    fn to(&self, service: &Service) -> Arc<Upstream> {
        to(service, &format!(r#", "outbound": {}"#, self.outbound("")))
    }

    fn asked(&self) -> usize {
        self.asked.load(SeqCst)
    }
}

#[tokio::test]
async fn fifty_requests_that_want_a_token_ask_for_one() {
    let (service, tokens) = (echo().await, Tokens::new(Duration::from_secs(60)).await);
    let upstream = Arc::new(tokens.to(&service));
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let upstream = Arc::clone(&upstream);
            tokio::spawn(async move {
                let seen = seen(&upstream, &[("authorization", "Bearer client")]).await;
                line(&seen, "authorization").map(str::to_owned)
            })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap().as_deref(), Some("Bearer token-1"));
    }
    assert_eq!(tokens.asked(), 1);
    let view = upstream.view().outbound.unwrap();
    let token = view.token.unwrap();
    assert_eq!((view.credential, token.from), (Some("oauth2"), tokens.service.addr.to_string()));
    assert!(matches!(token.good_for_seconds, Some(50..=60)), "{token:?}", token = token.good_for_seconds);
}

#[tokio::test]
async fn a_token_is_renewed_before_its_end_so_that_nobody_waits() {
    let (service, tokens) = (echo().await, Tokens::new(Duration::from_secs(1)).await);
    let upstream = tokens.to(&service);
    upstream.settle().await;
    // Longer than three tokens last.
    let end = tokio::time::Instant::now() + Duration::from_secs(3);
    while tokio::time::Instant::now() < end {
        let number = tokens.asked();
        let seen = seen(&upstream, &[]).await;
        let token = line(&seen, "authorization").unwrap().strip_prefix("Bearer token-").unwrap();
        assert!(token.parse::<usize>().unwrap() + 1 >= number, "an old token: {token} of {number}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!((4..=7).contains(&tokens.asked()), "{}", tokens.asked());
}

#[tokio::test]
async fn an_outage_of_the_token_service_counts_from_the_end_of_the_last_token_and_ends_by_itself() {
    let (service, tokens) = (echo().await, Tokens::new(Duration::from_secs(2)).await);
    let upstream = tokens.to(&service);
    upstream.settle().await;
    tokens.away.store(true, SeqCst);
    eventually(async || upstream.view().outbound.unwrap().token.unwrap().error.is_some()).await;
    assert_eq!(line(&seen(&upstream, &[]).await, "authorization"), Some("Bearer token-1"), "it is still good");
    let mut cut = None;
    eventually(async || {
        let (answer, cx) = get(&upstream, "/").await;
        cut = answer.err().map(|error| (error, cx));
        cut.is_some()
    })
    .await;
    let (error, cx) = cut.unwrap();
    assert!(error.to_string().contains("gave no token: the answer is 503"), "{error}");
    assert_eq!(Rejection::from(error).reason, &UPSTREAM_CREDENTIAL);
    assert_eq!(cx.trail.attempts, 1);
    tokens.away.store(false, SeqCst);
    eventually(async || get(&upstream, "/").await.0.is_ok()).await;
}

#[tokio::test]
async fn without_a_token_nothing_is_sent() {
    let (service, tokens) = (echo().await, Tokens::new(Duration::from_secs(60)).await);
    tokens.away.store(true, SeqCst);
    let upstream = tokens.to(&service);
    for _ in 0..3 {
        assert!(get(&upstream, "/").await.0.is_err());
    }
    assert_eq!((service.connections(), tokens.asked()), (0, 1), "who comes after a failure does not ask again");
}

#[tokio::test]
async fn a_401_takes_a_token_out_of_use_once() {
    // A service that takes the second token, and later none.
    let refuses = Arc::new(AtomicBool::new(false));
    let by = Arc::clone(&refuses);
    let service = Service::new(move |mut peer, _| {
        let refuses = Arc::clone(&by);
        async move {
            while let Some((head, _)) = peer.request().await {
                let good = line(&head, "authorization") == Some("Bearer token-2") && !refuses.load(SeqCst);
                let status = if good { "200 OK" } else { "401 Unauthorized" };
                peer.write(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await;
            }
        }
    })
    .await;
    let tokens = Tokens::new(Duration::from_secs(60)).await;
    let upstream = tokens.to(&service);
    let status = async || get(&upstream, "/").await.0.unwrap().status().as_u16();
    assert_eq!((status().await, status().await, tokens.asked()), (401, 200, 2));
    refuses.store(true, SeqCst);
    for _ in 0..20 {
        assert_eq!(status().await, 401);
    }
    assert_eq!(tokens.asked(), 2, "it is not the token's fault, and not asked for with each request");
}

#[tokio::test]
async fn a_token_outlives_the_document_that_asked_for_it() {
    let (service, tokens, carry) = (echo().await, Tokens::new(Duration::from_secs(60)).await, Carry::default());
    let resolver = Resolver::new(&["127.0.0.1:9".parse().unwrap()]).unwrap();
    let compiled = |more: &str| {
        let text = format!(r#"{{"endpoints": ["{}"], "outbound": {}{more}}}"#, service.url(), tokens.outbound(""));
        let yaml = |_: &str| Err("none here".to_owned());
        let cx = Building {
            carry: &carry,
            resolver: &resolver,
            yaml,
            agents: &agents("{}", &resolver),
            secrets: revealed,
            locality: &LocalitySpec::default(),
        };
        let upstream = Upstream::compile("users".into(), &serde_json::from_str(&text).unwrap(), &cx).unwrap();
        let upstream = Arc::new(upstream);
        upstream.start(&Handle::current());
        upstream
    };
    let first = compiled("");
    seen(&first, &[]).await;
    let second = compiled(r#", "timeout": "3s""#);
    drop(first);
    assert_eq!(line(&seen(&second, &[]).await, "authorization"), Some("Bearer token-1"));
    assert_eq!(tokens.asked(), 1);
}

#[tokio::test]
async fn the_clients_own_credential_goes_along_where_none_is_written() {
    let service = echo().await;
    let plain = upstream(&format!(r#"{{"endpoints": ["{}"]}}"#, service.url()));
    assert_eq!(
        line(&seen(&plain, &[("authorization", "Bearer client")]).await, "authorization"),
        Some("Bearer client")
    );
}

async fn eventually(mut holds: impl AsyncFnMut() -> bool) {
    let end = tokio::time::Instant::now() + Duration::from_secs(15);
    while !holds().await {
        assert!(tokio::time::Instant::now() < end, "it does not come to be so");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
