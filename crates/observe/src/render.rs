//! The Prometheus text format (version 0.0.4) of all metrics of the [`catalogue`].
//!
//! Each family is written whole, and its routes and upstreams in the order of their names, so that two scrapes can be
//! compared. A histogram always shows all its bounds: a bound that came and went would ruin rates over time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use pylon_core::exchange::StoodIn;
use pylon_core::rejection;

use crate::catalogue::{self, Metric};
use crate::histogram::{BOUNDS, BUCKETS};
use crate::json::Decimal;
use crate::metrics::{Certificate, Metrics, ProcessTotals};
use crate::outcomes::{Evicted, Handshake, Mirrored, Refused};
use crate::process::Process;
use crate::series::{CLASSES, RouteSeries, Total};
use crate::tcp::TcpEnd;

mod supplies;
mod upstreams;

/// The media type of what [`Metrics::render`] writes.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(crate) fn render(metrics: &Metrics, now: Instant, out: &mut String) {
    let totals = metrics.totals();
    let series = metrics.routes();
    let routes: Vec<_> = series.iter().map(|s| Named::new(s.route().as_str(), s.total())).collect();
    answers(out, &catalogue::REQUESTS, &catalogue::REQUEST_DURATION, routes);
    single(out, &catalogue::REQUESTS_IN_FLIGHT, totals.in_flight);
    head(out, &catalogue::REJECTIONS);
    for (reason, count) in rejection::ALL.iter().zip(&totals.rejections) {
        labelled(out, &catalogue::REJECTIONS, &[reason.code], *count);
    }
    head(out, &catalogue::SHADOW);
    for ((policy, code), count) in metrics.shadows() {
        labelled(out, &catalogue::SHADOW, &[policy, code], count);
    }
    fallbacks(out, &series);
    by_name(out, &catalogue::FAULTS, &["delay", "abort"], &totals.faults);
    by_name(out, &catalogue::MIRRORED, &Mirrored::NAMES, &totals.mirrored);
    single(out, &catalogue::CLIENT_ABORTS, totals.client_aborts);
    upstreams::render(out, &metrics.upstreams(), now);
    supplies::render(out, &metrics.supplies(now));
    single(out, &catalogue::CONNECTIONS, totals.open);
    single(out, &catalogue::CONNECTIONS_ACCEPTED, totals.accepted);
    single(out, &catalogue::PROXY_HEADERS_REFUSED, totals.proxy_headers_refused);
    single(out, &catalogue::TUNNELS, totals.tunnels);
    tcp(out, &totals);
    single(out, &catalogue::CONNECTIONS_MOST, metrics.most_connections());
    by_name(out, &catalogue::CONNECTIONS_REFUSED, &Refused::NAMES, &totals.refused);
    by_name(out, &catalogue::CONNECTIONS_EVICTED, &Evicted::NAMES, &totals.evicted);
    single(out, &catalogue::SHEDDING, metrics.is_shedding().into());
    by_name(out, &catalogue::TLS_HANDSHAKES, &Handshake::NAMES, &totals.handshakes);
    certificates(out, &metrics.certificates());
    single(out, &catalogue::LOG_WRITTEN, metrics.log().written.load(Ordering::Relaxed));
    single(out, &catalogue::LOG_DROPPED, metrics.log().dropped.load(Ordering::Relaxed));
    head(out, &catalogue::BUILD_INFO);
    labelled(out, &catalogue::BUILD_INFO, &[env!("CARGO_PKG_VERSION")], 1);
    state(out, metrics, now);
}

fn fallbacks(out: &mut String, series: &[Arc<RouteSeries>]) {
    head(out, &catalogue::FALLBACKS);
    let mut counts: Vec<_> = series.iter().map(|one| (one.route().as_str(), one.fallbacks())).collect();
    counts.retain(|(_, counts)| counts.iter().any(|count| *count > 0));
    counts.sort_unstable_by_key(|(route, _)| *route);
    for (route, counts) in counts {
        for (by, count) in StoodIn::NAMES.iter().zip(counts) {
            labelled(out, &catalogue::FALLBACKS, &[route, by], count);
        }
    }
}

fn tcp(out: &mut String, totals: &ProcessTotals) {
    head(out, &catalogue::TCP_CONNECTIONS);
    for (name, count) in TcpEnd::NAMES.iter().zip(totals.tcp_ends) {
        labelled(out, &catalogue::TCP_CONNECTIONS, &[name], count);
    }
    head(out, &catalogue::TCP_BYTES);
    for (name, count) in ["in", "out"].iter().zip(totals.tcp_bytes) {
        labelled(out, &catalogue::TCP_BYTES, &[name], count);
    }
}

fn certificates(out: &mut String, certificates: &[Certificate]) {
    head(out, &catalogue::CERTIFICATE_EXPIRES);
    let expires = |certificate: &Certificate| u64::try_from(certificate.expires).unwrap_or(0);
    for certificate in certificates.iter().filter(|certificate| !certificate.is_list) {
        labelled(out, &catalogue::CERTIFICATE_EXPIRES, &[&certificate.cert], expires(certificate));
    }
    head(out, &catalogue::CRL_NEXT_UPDATE);
    for list in certificates.iter().filter(|certificate| certificate.is_list) {
        labelled(out, &catalogue::CRL_NEXT_UPDATE, &[&list.cert], expires(list));
    }
    head(out, &catalogue::CERTIFICATE_STALE);
    for certificate in certificates {
        labelled(out, &catalogue::CERTIFICATE_STALE, &[&certificate.cert], certificate.stale.into());
    }
}

/// The document in force and the process.
fn state(out: &mut String, metrics: &Metrics, now: Instant) {
    let age = |since: Instant| now.saturating_duration_since(since).as_nanos() as u64;
    fraction(out, &catalogue::UPTIME, age(metrics.started()), 9);
    if let Some(snapshot) = metrics.snapshot() {
        head(out, &catalogue::SNAPSHOT_INFO);
        labelled(out, &catalogue::SNAPSHOT_INFO, &[&snapshot.hash], 1);
        fraction(out, &catalogue::SNAPSHOT_AGE, age(snapshot.since), 9);
    }
    metrics.reloads.render(out);
    metrics.upgrades.render(out);
    let process = Process::look();
    if let Some(bytes) = process.resident {
        single(out, &catalogue::PROCESS_MEMORY, bytes);
    }
    if let Some(hundredths) = process.cpu {
        fraction(out, &catalogue::PROCESS_CPU, hundredths, 2);
    }
    if let Some(descriptors) = process.descriptors {
        single(out, &catalogue::PROCESS_FDS, descriptors);
    }
}

/// A series with its name, escaped for a label.
struct Named {
    name: String,
    total: Total,
}

impl Named {
    fn new(name: &str, total: Total) -> Self {
        let mut escaped = String::with_capacity(name.len());
        escape(&mut escaped, name);
        Self { name: escaped, total }
    }
}

/// The two families that routes and upstreams have in common: answers by class, and their durations.
fn answers(out: &mut String, by_class: &Metric, durations: &Metric, mut series: Vec<Named>) {
    series.retain(|named| named.total.is_used());
    series.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let label = by_class.labels.first().copied().unwrap_or_default();
    head(out, by_class);
    for named in &series {
        for (class, count) in CLASSES.iter().zip(named.total.classes).filter(|(_, count)| *count > 0) {
            extend(out, &[by_class.name, "{", label, "=\"", &named.name, "\",status_class=\"", class, "\"} "]);
            number(out, count);
        }
    }
    head(out, durations);
    let line = durations.name.len() + label.len() + 40;
    for Named { name, total } in &series {
        out.reserve((BUCKETS + 2) * (line + name.len()));
        let bounds = BOUNDS.iter().map(|(_, text)| *text).chain(std::iter::once("+Inf"));
        let mut so_far = 0;
        for (bound, count) in bounds.zip(total.durations.buckets) {
            so_far += count;
            extend(out, &[durations.name, "_bucket{", label, "=\"", name, "\",le=\"", bound, "\"} "]);
            number(out, so_far);
        }
        extend(out, &[durations.name, "_sum{", label, "=\"", name, "\"} "]);
        decimal(out, total.durations.sum, 9);
        extend(out, &[durations.name, "_count{", label, "=\"", name, "\"} "]);
        number(out, so_far);
    }
}

pub(crate) fn head(out: &mut String, metric: &Metric) {
    extend(out, &["# HELP ", metric.name, " ", metric.help, "\n# TYPE ", metric.name, " ", metric.kind.as_str(), "\n"]);
}

pub(crate) fn single(out: &mut String, metric: &Metric, value: u64) {
    head(out, metric);
    extend(out, &[metric.name, " "]);
    number(out, value);
}

/// A number with a point before its last `places` digits.
fn fraction(out: &mut String, metric: &Metric, value: u64, places: u32) {
    head(out, metric);
    extend(out, &[metric.name, " "]);
    decimal(out, value, places);
}

pub(crate) fn labelled(out: &mut String, metric: &Metric, values: &[&str], value: u64) {
    labels(out, metric, values);
    out.push(' ');
    number(out, value);
}

/// The name of a metric with its labels.
pub(crate) fn labels(out: &mut String, metric: &Metric, values: &[&str]) {
    out.push_str(metric.name);
    for (i, (label, text)) in metric.labels.iter().zip(values).enumerate() {
        extend(out, &[if i == 0 { "{" } else { "," }, label, "=\""]);
        escape(out, text);
        out.push('"');
    }
    out.push('}');
}

pub(crate) fn by_name(out: &mut String, metric: &Metric, names: &[&str], counts: &[u64]) {
    head(out, metric);
    for (name, count) in names.iter().zip(counts) {
        labelled(out, metric, &[name], *count);
    }
}

/// The value of a label, escaped as the text format demands.
fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            _ => out.push(c),
        }
    }
}

fn number(out: &mut String, value: u64) {
    extend(out, &[Decimal::new(value).as_str(), "\n"]);
}

pub(crate) fn decimal(out: &mut String, value: u64, places: u32) {
    let unit = 10_u64.pow(places);
    out.push_str(Decimal::new(value / unit).as_str());
    let rest = Decimal::new(unit + value % unit);
    // The leading 1 of `unit + rest` keeps the zeros after the point.
    extend(out, &[".", rest.as_str().get(1..).unwrap_or_default(), "\n"]);
}

pub(crate) fn extend(out: &mut String, pieces: &[&str]) {
    for piece in pieces {
        out.push_str(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::monotonic;
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Weak;
    use std::time::Duration;

    use pylon_core::attempts::{Hedged, Retried};

    use crate::breakers::BreakerScope;
    use crate::insight::{Crowd, EndpointStates, Inside, Insight, SourceReading, SupplyReading, TokenReading};

    fn scraped(metrics: &Metrics) -> String {
        let mut out = String::new();
        metrics.render(monotonic(), &mut out);
        out
    }

    /// Name with labels → value.
    fn samples(text: &str) -> BTreeMap<String, f64> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| line.rsplit_once(' ').map(|(name, value)| (name.into(), value.parse().unwrap())).unwrap())
            .collect()
    }

    /// The bound that holds the share `q` of a route's durations, as Prometheus finds it, without interpolation.
    fn quantile(samples: &BTreeMap<String, f64>, route: &str, q: f64) -> f64 {
        let family = catalogue::REQUEST_DURATION.name;
        let count = samples[&format!("{family}_count{{route=\"{route}\"}}")];
        let bound = BOUNDS
            .iter()
            .find(|(_, le)| samples[&format!("{family}_bucket{{route=\"{route}\",le=\"{le}\"}}")] >= q * count);
        bound.map_or(f64::INFINITY, |(bound, _)| bound.as_secs_f64())
    }

    /// An upstream that shows everything there is.
    #[derive(Debug)]
    struct Full;

    impl Inside for Full {
        fn look(&self, _: Instant) -> Insight {
            let source = SourceReading {
                source: "consul",
                name: "orders".to_owned(),
                endpoints: 2,
                age: Some(Duration::from_millis(1500)),
                failures: 3,
            };
            Insight {
                endpoints: EndpointStates::default(),
                sources: vec![source],
                crowd: Some(Crowd { limit: 10, under_way: 10, waiting: 3, shed: [4, 0, 0, 0] }),
                token: Some(TokenReading { obtained: 5, failed: 1, age: Some(Duration::from_millis(2500)) }),
            }
        }
    }

    #[test]
    fn what_is_seen_of_an_upstream_is_told_for_as_long_as_it_is_there() {
        let metrics = Metrics::new(monotonic());
        let (upstream, full) = (metrics.upstream(&"u".into()), Arc::new(Full));
        let weak: Weak<Full> = Arc::downgrade(&full);
        upstream.open_to(weak);
        let text = scraped(&metrics);
        for line in [
            "pylon_upstream_concurrency_limit{upstream=\"u\"} 10\n",
            "pylon_upstream_queued{upstream=\"u\"} 3\n",
            "pylon_upstream_shed_total{upstream=\"u\",class=\"low\"} 4\n",
            "pylon_discovery_endpoints{upstream=\"u\",source=\"consul\",name=\"orders\"} 2\n",
            "pylon_discovery_failures_total{upstream=\"u\",source=\"consul\",name=\"orders\"} 3\n",
            "pylon_discovery_age_seconds{upstream=\"u\",source=\"consul\",name=\"orders\"} 1.500\n",
            "pylon_outbound_tokens_total{upstream=\"u\",outcome=\"obtained\"} 5\n",
            "pylon_outbound_tokens_total{upstream=\"u\",outcome=\"failed\"} 1\n",
            "pylon_outbound_token_age_seconds{upstream=\"u\"} 2.500\n",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        drop(full);
        assert!(!scraped(&metrics).contains("upstream=\"u\""));
    }

    #[test]
    fn every_metric_of_the_catalogue_is_exposed_with_its_labels_and_no_other() {
        let metrics = Metrics::new(monotonic());
        let (route, upstream) = (metrics.route(&"r".into()), metrics.upstream(&"u".into()));
        route.mine().begin();
        route.mine().end(200, Duration::from_millis(1));
        route.mine().fell_back(StoodIn::Respond);
        upstream.mine().answered(200, Duration::from_millis(1));
        let full = Arc::new(Full);
        let weak: Weak<Full> = Arc::downgrade(&full);
        upstream.open_to(weak);
        upstream.breakers.appeared(BreakerScope::Endpoint);
        upstream.mine().held_back(BreakerScope::Endpoint);
        upstream.mine().retried(Retried::Safe);
        upstream.mine().hedged(Hedged::Won);
        upstream.checked(1, 0);
        upstream.ejected(0);
        let _open = (upstream.mine().connected(), metrics.connected());
        metrics.shadow(("ip_filter", "ip_filter.denied"));
        metrics.snapshot_in_force("abc", monotonic());
        let file = |cert: &str, is_list| Certificate { cert: cert.into(), is_list, expires: 1, stale: false };
        metrics.certificates_in_force(vec![file("a.pem", false), file("a.crl", true)]);
        metrics.supplies_in_force(Box::new(|_| {
            let (items, age) = (Some(2), Some(Duration::from_secs(3)));
            vec![SupplyReading {
                kind: "jwks",
                from: "https://issuer".to_owned(),
                items,
                age,
                ..SupplyReading::default()
            }]
        }));
        let text = scraped(&metrics);
        let mut seen = BTreeSet::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, rest) = line.split_once(['{', ' ']).unwrap();
            let metric = catalogue::ALL
                .iter()
                .find(|m| ["", "_bucket", "_sum", "_count"].iter().any(|end| name == format!("{}{end}", m.name)));
            let metric = metric.unwrap_or_else(|| panic!("{name} is not in the catalogue"));
            let labels = rest
                .split(',')
                .filter_map(|pair| pair.split_once("=\""))
                .map(|(label, _)| label)
                .filter(|l| *l != "le");
            assert!(labels.eq(metric.labels.iter().copied()), "{line}");
            seen.insert(metric.name);
        }
        assert_eq!(seen, catalogue::ALL.iter().map(|m| m.name).collect());
        for metric in catalogue::ALL {
            assert!(text.contains(&format!("# TYPE {} {}\n", metric.name, metric.kind.as_str())));
        }
    }

    #[test]
    fn a_route_id_with_quotes_and_line_breaks_stays_one_label() {
        let metrics = Metrics::new(monotonic());
        let route = metrics.route(&"GET /a\"b\\c\nd".into());
        route.mine().end(204, Duration::ZERO);
        let wanted = "pylon_requests_total{route=\"GET /a\\\"b\\\\c\\nd\",status_class=\"2xx\"} 1\n";
        assert!(scraped(&metrics).contains(wanted));
    }

    #[test]
    fn quantiles_from_the_exposed_buckets_are_within_one_bucket_of_the_truth() {
        let metrics = Metrics::new(monotonic());
        let route = metrics.route(&"r".into());
        let mut all: Vec<Duration> = (0..10_000_u64).map(|i| Duration::from_micros(200 + i * i * 37 / 1000)).collect();
        for took in &all {
            route.mine().end(200, *took);
        }
        all.sort_unstable();
        let samples = samples(&scraped(&metrics));
        for q in [0.5, 0.95, 0.99] {
            let truth = all[(q * all.len() as f64) as usize - 1].as_secs_f64();
            let above = quantile(&samples, "r", q);
            let below = BOUNDS.iter().rev().map(|(b, _)| b.as_secs_f64()).find(|b| *b < above).unwrap_or(0.0);
            assert!(below < truth && truth <= above, "p{q}: {truth} is not in {below}..{above}");
        }
        let sum = samples["pylon_request_duration_seconds_sum{route=\"r\"}"];
        assert!((sum - all.iter().sum::<Duration>().as_secs_f64()).abs() < 1e-6);
    }

    #[test]
    fn series_of_dropped_routes_vanish_and_unused_ones_do_not_appear() {
        let metrics = Metrics::new(monotonic());
        let (gone, idle) = (metrics.route(&"gone".into()), metrics.route(&"idle".into()));
        gone.mine().end(200, Duration::ZERO);
        assert!(scraped(&metrics).contains("route=\"gone\""));
        drop(gone);
        let after = scraped(&metrics);
        assert!(!after.contains("route="), "{after}");
        drop(idle);
    }

    #[test]
    fn ten_thousand_routes_are_scraped_within_half_a_second() {
        let metrics = Metrics::new(monotonic());
        let routes: Vec<_> =
            (0..10_000).map(|n| metrics.route(&format!("GET /service-{n}/users/{{id}}").into())).collect();
        for route in &routes {
            route.mine().end(200, Duration::from_millis(3));
        }
        let before = monotonic();
        let text = scraped(&metrics);
        let took = before.elapsed();
        // One line for the class, 25 bounds, sum and count.
        assert_eq!(text.lines().filter(|line| line.contains("route=\"")).count(), 10_000 * 28);
        // A build without optimisation on a busy machine takes several times what a release does.
        let bound = if cfg!(debug_assertions) { 5000 } else { 500 };
        assert!(took < Duration::from_millis(bound), "{took:?}");
    }

    #[test]
    fn requests_in_flight_are_those_that_began_and_did_not_end() {
        let metrics = Metrics::new(monotonic());
        let route = metrics.route(&"r".into());
        let shard = Arc::clone(route.mine());
        (0..3).for_each(|_| shard.begin());
        // The route goes with its document; its requests are still under way.
        drop(route);
        assert!(scraped(&metrics).contains("\npylon_requests_in_flight 3\n"));
        (0..3).for_each(|_| _ = shard.end(200, Duration::ZERO));
        assert!(scraped(&metrics).contains("\npylon_requests_in_flight 0\n"));
    }
}
