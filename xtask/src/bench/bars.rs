//! The bars that this version must clear, in one table. The project's word on speed stands here and is held by `bench`.

use super::figures::Spread;
use super::report::{Table, number};

/// One bar: a figure that a row measures, and what it may be.
#[derive(Debug)]
struct Bar {
    /// The row, and the figure of it.
    figure: &'static str,
    says: &'static str,
    limit: Limit,
}

#[derive(Debug, Clone, Copy)]
enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

use Limit::{AtLeast, AtMost};

const BARS: &[Bar] = &[
    Bar { figure: "log: cpu/nginx", says: "CPU per request at 100 B ÷ nginx", limit: AtMost(1.0) },
    Bar { figure: "10k: cpu/nginx", says: "CPU per request at 10 KiB ÷ nginx", limit: AtMost(1.0) },
    Bar { figure: "1m: cpu/nginx", says: "CPU per request at 1 MiB ÷ nginx", limit: AtMost(0.6) },
    Bar { figure: "latency: p50", says: "median latency at half load ÷ nginx-forwarding", limit: AtMost(1.0) },
    Bar {
        figure: "latency: p99",
        says: "99th percentile of latency at half load ÷ nginx-forwarding",
        limit: AtMost(1.0),
    },
    Bar { figure: "routes: speed/first", says: "requests/s, first of 10,000 routes ÷ 10 routes", limit: AtLeast(0.9) },
    Bar {
        figure: "routes: speed/middle",
        says: "requests/s, middle of 10,000 routes ÷ 10 routes",
        limit: AtLeast(0.9),
    },
    Bar { figure: "routes: speed/last", says: "requests/s, last of 10,000 routes ÷ 10 routes", limit: AtLeast(0.9) },
    Bar { figure: "routes: speed/none", says: "requests/s, none of 10,000 routes ÷ none of 10", limit: AtLeast(0.9) },
    Bar { figure: "routes: capacity/last", says: "requests per CPU second, last of 10,000 ÷ 10", limit: AtLeast(0.9) },
    Bar {
        figure: "routes: capacity/none",
        says: "requests per CPU second, none of 10,000 ÷ none of 10",
        limit: AtLeast(0.9),
    },
    Bar { figure: "change: start", says: "ms to the first answer with 10,000 routes", limit: AtMost(2000.0) },
    Bar { figure: "change: asked", says: "ms until a change among 10,000 routes is live", limit: AtMost(1000.0) },
    Bar { figure: "change: seen", says: "ms until a changed file of 10,000 routes is live", limit: AtMost(1000.0) },
    Bar {
        figure: "tls: cpu/least",
        says: "CPU per request over TLS ÷ the less of nginx and HAProxy",
        limit: AtMost(0.85),
    },
    Bar { figure: "http2: cpu/haproxy", says: "CPU per request over HTTP/2 ÷ HAProxy", limit: AtMost(1.0) },
    Bar { figure: "handshakes: capacity/nginx", says: "handshakes per CPU second ÷ nginx", limit: AtLeast(1.0) },
    Bar { figure: "grpc: cpu/haproxy", says: "CPU per call of gRPC ÷ HAProxy", limit: AtMost(1.0) },
    Bar { figure: "websocket: cpu/nginx", says: "CPU per message of WebSocket ÷ nginx", limit: AtMost(1.0) },
    Bar { figure: "websockets: cpu/nginx", says: "the same over 1,000 WebSockets", limit: AtMost(1.0) },
    Bar {
        figure: "policies: cpu/envoy",
        says: "CPU per request behind token, CORS and headers ÷ Envoy",
        limit: AtMost(0.25),
    },
    Bar { figure: "policies: cpu/nginx", says: "the same ÷ nginx with headers and no token", limit: AtMost(1.3) },
    Bar { figure: "idle-tls: pylon", says: "KiB per idle connection under TLS", limit: AtMost(32.0) },
    Bar { figure: "idle: pylon", says: "KiB per idle connection", limit: AtMost(16.0) },
    Bar { figure: "empty: pylon", says: "MiB resident, empty", limit: AtMost(25.0) },
    Bar { figure: "start: pylon", says: "ms from the start to the first answer", limit: AtMost(100.0) },
];

impl Limit {
    /// Judged by the median; a figure that is no number clears nothing.
    fn cleared_by(self, figure: Spread) -> bool {
        match self {
            AtMost(most) => figure.median <= most,
            AtLeast(least) => figure.median >= least,
        }
    }

    fn shown(self) -> String {
        match self {
            AtMost(most) => format!("≤ {most}"),
            AtLeast(least) => format!("≥ {least}"),
        }
    }
}

/// The bars that these figures answer, as a table, and how many were missed.
pub(crate) fn judge(figures: &[(String, Spread)]) -> Option<(Table, usize)> {
    let mut table = Table::new(&["bar", "wanted", "measured", ""]);
    let (mut asked, mut missed) = (0, 0);
    for bar in BARS {
        let Some((_, figure)) = figures.iter().find(|(name, _)| name == bar.figure) else { continue };
        let cleared = bar.limit.cleared_by(*figure);
        asked += 1;
        missed += usize::from(!cleared);
        let verdict = if cleared { "cleared" } else { "**missed**" };
        table.row(&[bar.says.to_owned(), bar.limit.shown(), number(*figure, 2), verdict.to_owned()]);
    }
    (asked > 0).then_some((table, missed))
}

#[cfg(test)]
mod tests {
    use super::judge;
    use crate::bench::figures::Spread;

    fn missed(figure: &str, value: f64) -> Option<usize> {
        judge(&[(figure.to_owned(), Spread::of([value]))]).map(|(_, missed)| missed)
    }

    #[test]
    fn a_bar_is_cleared_up_to_its_limit() {
        assert_eq!(missed("log: cpu/nginx", 1.0), Some(0));
        assert_eq!(missed("log: cpu/nginx", 1.01), Some(1));
        assert_eq!(missed("routes: speed/last", 0.89), Some(1));
        assert_eq!(missed("start: pylon", f64::NAN), Some(1));
    }

    #[test]
    fn figures_without_a_bar_are_not_judged() {
        assert_eq!(missed("log: cpu/haproxy", 9.0), None);
    }
}
