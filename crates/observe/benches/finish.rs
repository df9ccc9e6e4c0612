//! What an exchange costs the observer: `cargo bench -p pylon-observe`. Goal: under 600 ns and no allocation.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use divan::{AllocProfiler, Bencher};
use http::{HeaderValue, Method, Version};
use pylon_core::connection::{Connection, Scheme};
use pylon_core::exchange::{Exchange, Head};
use pylon_core::short::{FromScalar, Short};
use pylon_core::worker;
use pylon_observe::Observer;
use pylon_observe::ending::{End, Ending};
use pylon_observe::metrics::Metrics;
use pylon_observe::series::RouteSeries;
use pylon_observe::spec::{AccessLogSpec, TelemetrySpec};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    worker::enter(0);
    divan::main();
}

#[expect(clippy::disallowed_methods, reason = "a bench has no runtime whose clock could be stopped")]
fn now() -> Instant {
    Instant::now()
}

fn exchange() -> Box<Exchange> {
    let address = ([203, 0, 113, 9], 4711).into();
    let mut exchange = Exchange::begin(Head {
        connection: Arc::new(Connection::new(address, address, Scheme::Http, now())),
        client: address.ip(),
        from_trusted_proxy: false,
        scheme: Scheme::Http,
        request_id: HeaderValue::from_static("0192f0c1-2b3a-7c4d-8e5f-001122334455"),
        started: now(),
        method: Method::GET,
        version: Version::HTTP_11,
        host: Some("api.example.com".into()),
        path: http::uri::PathAndQuery::from_static("/users/1234567?fields=name,orders&limit=10"),
    });
    exchange.trail.upstream = Some("users".into());
    exchange.trail.endpoint = Some(([10, 0, 0, 1], 8080).into());
    exchange.trail.attempts = 1;
    exchange.trail.reused = true;
    exchange.trail.upstream_time = Some(Duration::from_micros(742));
    exchange
}

fn finish(bencher: Bencher<'_, '_>, log: &str, recent: bool) {
    worker::enter(0);
    let log = AccessLogSpec::from_scalar(log).unwrap_or_default();
    let spec = TelemetrySpec { access_log: Short(log), recent, ..TelemetrySpec::default() };
    let Some(observer) = spec.compile().ok().and_then(|telemetry| Observer::open(&telemetry, metrics(), now()).ok())
    else {
        return;
    };
    let series = observer.metrics().route(&"GET /users/{id}".into());
    let (exchange, ended) = (exchange(), now());
    let once = || {
        series.mine().begin();
        let ending = Ending { status: 200, sent: 100, received: 0, ended, how: End::Complete };
        observer.finish(series.mine(), black_box(&exchange), black_box(ending));
    };
    (0..1000).for_each(|_| once());
    bencher.bench_local(once);
}

#[divan::bench]
fn log_metrics_and_recent(bencher: Bencher<'_, '_>) {
    finish(bencher, "/dev/null", true);
}

#[divan::bench]
fn log_and_metrics(bencher: Bencher<'_, '_>) {
    finish(bencher, "/dev/null", false);
}

#[divan::bench]
fn metrics_only(bencher: Bencher<'_, '_>) {
    finish(bencher, "off", false);
}

fn ten_thousand(metrics: &Metrics) -> Vec<Arc<RouteSeries>> {
    (0..10_000).map(|n| metrics.route(&format!("GET /service-{n}/users/{{id}}").into())).collect()
}

/// The bytes allocated are what 10,000 idle routes cost, with the texts of their ids.
#[divan::bench(sample_count = 10)]
fn ten_thousand_idle_routes() -> Vec<Arc<RouteSeries>> {
    ten_thousand(&Metrics::new(now()))
}

#[divan::bench(sample_count = 10)]
fn scrape_of_ten_thousand_routes(bencher: Bencher<'_, '_>) {
    let metrics = metrics();
    let routes = ten_thousand(&metrics);
    let observer = AccessLogSpec::from_scalar("off").ok().and_then(|log| {
        let spec = TelemetrySpec { access_log: Short(log), recent: false, ..TelemetrySpec::default() };
        Observer::open(&spec.compile().ok()?, Arc::clone(&metrics), now()).ok()
    });
    let Some(observer) = observer else { return };
    let exchange = exchange();
    for route in &routes {
        route.mine().begin();
        let ending = Ending { status: 200, sent: 100, received: 0, ended: now(), how: End::Complete };
        observer.finish(route.mine(), &exchange, ending);
    }
    bencher.bench_local(|| {
        let mut out = String::new();
        metrics.render(now(), &mut out);
        out
    });
}

fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new(now()))
}
