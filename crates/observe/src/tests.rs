//! Proofs about the observer as a whole, and the exchanges that other tests begin with.

use http::{HeaderName, HeaderValue, Method, Version};
use pylon_core::connection::{Connection, Scheme};
use pylon_core::exchange::{Head, Timer};
use pylon_core::rejection;
use pylon_core::worker;

use super::*;
use crate::clock::monotonic;
use crate::series::{RouteSeries, Sharded};
use crate::spec::{AccessLogSpec, TelemetrySpec};

/// A GET of `path` from 203.0.113.9 that began now.
pub(crate) fn exchange(path: &str) -> Box<Exchange> {
    let address = "203.0.113.9:4711".parse().unwrap();
    let now = monotonic();
    Exchange::begin(Head {
        connection: Arc::new(Connection::new(address, address, Scheme::Http, now)),
        client: address.ip(),
        from_trusted_proxy: false,
        scheme: Scheme::Http,
        request_id: HeaderValue::from_static("id-1"),
        started: now,
        method: Method::GET,
        version: Version::HTTP_11,
        host: Some("api.example".into()),
        path: path.parse().unwrap(),
    })
}

/// 10 bytes in, 1,234 bytes out, now.
pub(crate) fn ending(status: u16, how: End) -> Ending {
    Ending { status, sent: 1234, received: 10, ended: monotonic(), how }
}

/// A series that no registry knows.
pub(crate) fn route(id: &str) -> Arc<RouteSeries> {
    Arc::new(RouteSeries::new(id.into(), Arc::new(Sharded::new())))
}

fn observer(recent: bool) -> Observer {
    let off = AccessLogSpec { enabled: false, headers: vec!["user-agent".into()], ..AccessLogSpec::default() };
    let spec = TelemetrySpec { access_log: pylon_core::short::Short(off), recent, ..TelemetrySpec::default() };
    let metrics = Arc::new(Metrics::new(monotonic()));
    Observer::open(&spec.compile().unwrap(), metrics, monotonic()).unwrap()
}

fn scraped(observer: &Observer) -> String {
    let mut out = String::new();
    observer.metrics().render(monotonic(), &mut out);
    out
}

#[test]
fn one_call_counts_measures_and_remembers_an_exchange() {
    let observer = observer(true);
    let series = observer.metrics().route(&"GET /a".into());
    let mut refused = exchange("/a?token=abc");
    refused.trail.refuse(&(&rejection::IP_DENIED).into());
    refused.trail.shadowed.push(("maintenance", "maintenance.on"));
    series.mine().begin();
    observer.finish(series.mine(), &refused, ending(403, End::Complete));
    let text = scraped(&observer);
    for line in [
        "pylon_requests_total{route=\"GET /a\",status_class=\"4xx\"} 1",
        "pylon_request_duration_seconds_count{route=\"GET /a\"} 1",
        "pylon_requests_in_flight 0",
        "pylon_rejections_total{code=\"ip_filter.denied\"} 1",
        "pylon_rejections_total{code=\"route.not_found\"} 0",
        "pylon_shadow_total{policy=\"maintenance\",code=\"maintenance.on\"} 1",
        "pylon_client_aborts_total 0",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
    }
    let recent = observer.recent();
    assert_eq!(recent.len(), 1);
    assert_eq!(
        (recent[0].path.as_str(), recent[0].status, recent[0].reason),
        ("/a?token=***", 403, Some("ip_filter.denied"))
    );
}

#[test]
fn a_client_that_went_away_counts_as_499_and_as_an_abort() {
    let observer = observer(true);
    let series = observer.metrics().route(&"r".into());
    series.mine().begin();
    observer.finish(series.mine(), &exchange("/"), ending(200, End::ClientGone));
    let text = scraped(&observer);
    assert!(text.contains("pylon_client_aborts_total 1\n"));
    assert!(text.contains("pylon_requests_total{route=\"r\",status_class=\"4xx\"} 1\n"));
    assert_eq!((observer.recent()[0].status, observer.recent()[0].end), (499, "client_gone"));
}

#[test]
fn the_ring_keeps_the_last_64_of_each_worker_and_a_cursor_sees_each_once() {
    let observer = observer(true);
    let series = observer.metrics().route(&"r".into());
    let mut cursor = Cursor::default();
    let finish = |range: std::ops::Range<u32>| {
        for n in range {
            observer.finish(series.mine(), &exchange(&format!("/{n}")), ending(200, End::Timeout(Timer::Idle)));
        }
    };
    let seen = |cursor: &mut Cursor| observer.recent_since(cursor).into_iter().map(|r| r.path).collect::<Vec<_>>();
    finish(0..100);
    assert_eq!(seen(&mut cursor), (36..100).map(|n| format!("/{n}")).collect::<Vec<_>>());
    assert!(seen(&mut cursor).is_empty());
    finish(100..103);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            worker::enter(0);
            finish(103..105);
        });
    });
    assert_eq!(seen(&mut cursor), ["/100", "/101", "/102", "/103", "/104"]);
    assert_eq!(observer.recent()[0].timer, Some("idle"));
}

#[test]
fn nothing_is_remembered_when_that_is_switched_off() {
    let observer = observer(false);
    let series = observer.metrics().route(&"r".into());
    observer.finish(series.mine(), &exchange("/"), ending(200, End::Complete));
    assert!(observer.recent().is_empty());
}

#[test]
fn only_listed_headers_are_noted() {
    let observer = observer(true);
    let mut exchange = exchange("/");
    let mut headers = HeaderMap::new();
    headers.insert(HeaderName::from_static("user-agent"), HeaderValue::from_static("curl"));
    headers.insert(HeaderName::from_static("x-other"), HeaderValue::from_static("1"));
    observer.note(&headers, &mut exchange);
    assert_eq!(exchange.trail.noted, [(http::header::USER_AGENT, HeaderValue::from_static("curl"))]);
}

#[test]
fn recent_exchanges_read_like_the_log() {
    let observer = observer(true);
    let series = observer.metrics().route(&"r".into());
    let exchange = exchange("/x");
    let mut over = ending(200, End::Complete);
    over.ended = exchange.started + Duration::from_micros(1_500);
    observer.finish(series.mine(), &exchange, over);
    let json = serde_json::to_value(&observer.recent()[0]).unwrap();
    assert_eq!((&json["duration_ms"], &json["method"], &json["end"]), (&1.5.into(), &"GET".into(), &"complete".into()));
    assert_eq!(json["time"], observer.wall().text(exchange.started));
    assert!(json.get("reason").is_none());
}
