// xtask: table
//! Every metric, declared once: name, kind, labels, unit and help. The exposition and the reference are made from it.
//!
//! Labels are bounded: `route` is the id of a route and never a path, `upstream` a name of the document, `name` a source that
//! the document names, `code` and `policy` come from tables of the program. Routes and upstreams appear with their first request and vanish when no
//! snapshot holds them any more; classes of status appear with their first answer.

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises, from 0 at the start of the process.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts by bounds, with sum and count.
    Histogram,
}

impl Kind {
    /// The word that the Prometheus text format uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// The name as it is scraped.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// The labels, in the order in which they are written.
    pub labels: &'static [&'static str],
    /// What is counted or measured: `requests`, `seconds`, `bytes`.
    pub unit: &'static str,
    /// A sentence without a full stop.
    pub help: &'static str,
}

macro_rules! catalogue {
    ($( $NAME:ident = $Kind:ident $name:literal [$($label:literal),*] $unit:literal, $help:literal; )*) => {
        $(
            #[doc = $help]
            pub static $NAME: Metric =
                Metric { name: $name, kind: Kind::$Kind, labels: &[$($label),*], unit: $unit, help: $help };
        )*

        /// Every metric there is, in the order in which they are exposed.
        pub static ALL: &[&Metric] = &[$(&$NAME),*];
    };
}

catalogue! {
    REQUESTS = Counter "pylon_requests_total" ["route", "status_class"] "requests",
        "Requests answered, by route and class of status; a client that went away counts as 4xx (499)";
    REQUEST_DURATION = Histogram "pylon_request_duration_seconds" ["route"] "seconds",
        "From the head of the request to the last byte of the answer; of a WebSocket, the time to the 101";
    REQUESTS_IN_FLIGHT = Gauge "pylon_requests_in_flight" [] "requests",
        "Requests whose answer is not over yet";
    REJECTIONS = Counter "pylon_rejections_total" ["code"] "requests",
        "Requests that the gateway itself refused, by the code of the refusal";
    SHADOW = Counter "pylon_shadow_total" ["policy", "code"] "requests",
        "Requests that a policy in shadow would have refused";
    FALLBACKS = Counter "pylon_fallbacks_total" ["route", "by"] "requests",
        "Requests whose upstream failed and that met a fallback: `respond` or `forward`; `body_gone` where another upstream could not be asked since the body could not be sent again";
    FAULTS = Counter "pylon_faults_injected_total" ["kind"] "requests",
        "Requests into which the policy `fault` injected a `delay` or an `abort`";
    MIRRORED = Counter "pylon_mirrored_requests_total" ["outcome"] "requests",
        "Requests that were to be mirrored: `answered` or `failed`; without a copy where it was `too_large`, as many as may be were under way (`full`), or the body was `incomplete`";
    CLIENT_ABORTS = Counter "pylon_client_aborts_total" [] "requests",
        "Requests whose client went away before the end of the answer";
    UPSTREAM_REQUESTS = Counter "pylon_upstream_requests_total" ["upstream", "status_class"] "attempts",
        "Attempts at an upstream, by class of status; `none` where no answer came";
    UPSTREAM_DURATION = Histogram "pylon_upstream_duration_seconds" ["upstream"] "seconds",
        "From the start of an attempt to the head of its answer, or to its failure";
    UPSTREAM_CONNECTS = Counter "pylon_upstream_connects_total" ["upstream"] "connections",
        "Connections made to an upstream";
    UPSTREAM_CONNECT_FAILURES = Counter "pylon_upstream_connect_failures_total" ["upstream"] "connections",
        "Connections to an upstream that could not be made";
    UPSTREAM_CONNECTIONS = Gauge "pylon_upstream_connections" ["upstream"] "connections",
        "Connections to an upstream that are open now, idle ones included";
    BREAKERS = Gauge "pylon_breakers" ["upstream", "scope", "state"] "breakers",
        "Circuit breakers that are `closed`, `half_open` or `open` now, each for an `endpoint`, an `upstream` or a `route`";
    BREAKER_CHANGES = Counter "pylon_breaker_changes_total" ["upstream", "scope", "state"] "changes",
        "How often a circuit breaker came into a state";
    BREAKER_HELD_BACK = Counter "pylon_breaker_held_back_total" ["upstream", "scope"] "attempts",
        "Attempts that an open circuit breaker held back; of an `endpoint` where no other endpoint was left";
    UPSTREAM_LIMIT = Gauge "pylon_upstream_concurrency_limit" ["upstream"] "requests",
        "Requests that may be under way at an upstream with `concurrency`, as it is written or was found out";
    UPSTREAM_UNDER_WAY = Gauge "pylon_upstream_concurrency" ["upstream"] "requests",
        "Requests under way at an upstream with `concurrency`, WebSockets apart";
    UPSTREAM_QUEUED = Gauge "pylon_upstream_queued" ["upstream"] "requests",
        "Requests that wait for their turn at an upstream with `concurrency`";
    UPSTREAM_SHED = Counter "pylon_upstream_shed_total" ["upstream", "class"] "requests",
        "Requests refused since there was no turn for them at an upstream with `concurrency`, by their class of priority";
    UPSTREAM_RETRIES = Counter "pylon_upstream_retries_total" ["upstream", "outcome"] "attempts",
        "Further attempts that were called for: made as `safe`, since the service had certainly not acted on the request, or `granted`; not made with `budget_exhausted`, where it was `too_late`, or with the `body_gone`";
    UPSTREAM_HEDGES = Counter "pylon_upstream_hedges_total" ["upstream", "outcome"] "requests",
        "Requests that were late and were to be sent a second time: the second attempt `won` or `lost`, or was `skipped` for want of budget or of another endpoint";
    UPSTREAM_ENDPOINTS = Gauge "pylon_upstream_endpoints" ["upstream", "state"] "endpoints",
        "Endpoints of an upstream that may be chosen (`available`) and those that may not: `unhealthy`, `ejected`, or `breaker_open`";
    UPSTREAM_PANIC = Gauge "pylon_upstream_panic" ["upstream"] "1",
        "1 while so few endpoints are left that health and ejections are ignored";
    HEALTH_CHECKS = Counter "pylon_health_checks_total" ["upstream", "outcome"] "checks",
        "Health checks of endpoints that `passed` and that `failed`, repeated ones too";
    EJECTIONS = Counter "pylon_ejections_total" ["upstream", "reason"] "ejections",
        "Endpoints that were left out for a while: for `failures` in a row, for too many `errors`, or since they were `slow`";
    DISCOVERY_ENDPOINTS = Gauge "pylon_discovery_endpoints" ["upstream", "source", "name"] "endpoints",
        "Endpoints that a source of an upstream names, or addresses that a host name has";
    DISCOVERY_FAILURES = Counter "pylon_discovery_failures_total" ["upstream", "source", "name"] "attempts",
        "Attempts to hear from a source that failed";
    DISCOVERY_AGE = Gauge "pylon_discovery_age_seconds" ["upstream", "source", "name"] "seconds",
        "Time since what a source names was last confirmed; nothing where it never was";
    SUPPLY_UP = Gauge "pylon_supply_up" ["kind", "from"] "1",
        "0 where something that policies rest on (keys of issuers, a server that is asked about tokens, API keys, a store) could not be had when it was last wanted, otherwise 1";
    SUPPLY_ITEMS = Gauge "pylon_supply_items" ["kind", "from"] "items",
        "How much of it is at hand, such as keys";
    SUPPLY_AGE = Gauge "pylon_supply_age_seconds" ["kind", "from"] "seconds",
        "Time since it was last confirmed, or last answered; nothing where it never was";
    SUPPLY_FAILURES = Counter "pylon_supply_failures_total" ["kind", "from"] "attempts",
        "Attempts to have it that failed";
    OUTBOUND_TOKENS = Counter "pylon_outbound_tokens_total" ["upstream", "outcome"] "tokens",
        "Tokens that were asked for to be sent to an upstream (`outbound.oauth2`): `obtained`, or `failed`; upstreams that ask alike share them";
    OUTBOUND_TOKEN_AGE = Gauge "pylon_outbound_token_age_seconds" ["upstream"] "seconds",
        "Time since the token at hand was asked for; nothing where there is none that may be sent";
    CONNECTIONS = Gauge "pylon_connections" [] "connections",
        "Client connections that are open now";
    CONNECTIONS_ACCEPTED = Counter "pylon_connections_total" [] "connections",
        "Client connections accepted";
    PROXY_HEADERS_REFUSED = Counter "pylon_proxy_headers_refused_total" [] "connections",
        "Client connections closed because they had to begin with a PROXY header and had none that could be used";
    TUNNELS = Gauge "pylon_tunnels" [] "tunnels",
        "WebSockets that are open now";
    TCP_CONNECTIONS = Counter "pylon_tcp_connections_total" ["end"] "connections",
        "Connections of `tcp` listeners that are over, by how they ended, as in the access log";
    TCP_BYTES = Counter "pylon_tcp_bytes_total" ["direction"] "bytes",
        "Bytes that `tcp` listeners have carried on connections that are over: `in` from clients, `out` to clients";
    CONNECTIONS_MOST = Gauge "pylon_connections_max" [] "connections",
        "Client connections that may be open";
    CONNECTIONS_REFUSED = Counter "pylon_connections_refused_total" ["reason"] "connections",
        "Client connections closed at once: over a cap (`connections`, `connections_per_address`), or for want of `memory`";
    CONNECTIONS_EVICTED = Counter "pylon_connections_evicted_total" ["reason"] "connections",
        "Client connections closed to make room: `idle` ones, `slow` ones whose head was on its way; idle ones for want of `memory`";
    SHEDDING = Gauge "pylon_shedding" [] "1",
        "1 while new work is turned away since memory is short";
    TLS_HANDSHAKES = Counter "pylon_tls_handshakes_total" ["outcome"] "handshakes",
        "TLS handshakes with clients: `full`, `resumed` or `failed`";
    CERTIFICATE_EXPIRES = Gauge "pylon_certificate_expires_timestamp_seconds" ["cert"] "seconds",
        "When a certificate in force ends, since 1970: that of a listener, or the first of the roots for its clients";
    CRL_NEXT_UPDATE = Gauge "pylon_crl_next_update_timestamp_seconds" ["crl"] "seconds",
        "When the first of the revocation lists in force runs out, since 1970";
    CERTIFICATE_STALE = Gauge "pylon_certificate_stale" ["cert"] "1",
        "1 where the files of a certificate, of roots or of revocation lists changed and cannot be used, so that older ones are in force";
    LOG_WRITTEN = Counter "pylon_access_log_written_total" [] "lines",
        "Lines written to the access log";
    LOG_DROPPED = Counter "pylon_access_log_dropped_total" [] "lines",
        "Lines of the access log dropped because its sink was too slow or failed";
    BUILD_INFO = Gauge "pylon_build_info" ["version"] "1",
        "The version of the program";
    UPTIME = Gauge "pylon_uptime_seconds" [] "seconds",
        "Time since the process started";
    SNAPSHOT_INFO = Gauge "pylon_snapshot_info" ["hash"] "1",
        "The document in force, by the hash of its content";
    SNAPSHOT_AGE = Gauge "pylon_snapshot_age_seconds" [] "seconds",
        "Time since the document in force was put in force";
    CONFIG_RELOADS = Counter "pylon_config_reloads_total" ["outcome"] "reloads",
        "Reloads of the document: `applied`, or `refused` with the one before kept in force";
    CONFIG_LAST_RELOAD = Gauge "pylon_config_last_reload_successful" [] "1",
        "0 where the last document that was to be put in force was refused, otherwise 1";
    CONFIG_LAST_SUCCESS = Gauge "pylon_config_last_success_timestamp_seconds" [] "seconds",
        "When a document was put in force last, since 1970";
    CONFIG_RESTART = Gauge "pylon_config_restart_needed" [] "1",
        "1 while the document in force says something that only a restart applies";
    CONFIG_REVISION = Gauge "pylon_config_revision" [] "1",
        "The number of the revision in force; 0 where no history is kept, or where it could not be written";
    CONFIG_UNSAVED = Gauge "pylon_config_revision_unsaved" [] "1",
        "1 while the document in force could not be written to the history";
    CONFIG_STANDS_IN = Gauge "pylon_config_stands_in" [] "1",
        "1 while a revision is in force in place of the document on disk: that one is broken, or was rolled back";
    SNAPSHOTS = Gauge "pylon_snapshots" [] "snapshots",
        "Compiled documents in memory: the one in force, and those before it that requests still hold";
    UPGRADES = Counter "pylon_upgrades_total" ["outcome"] "upgrades",
        "Upgrades that this process had a part in: `succeeded` or `orphaned` where it took the place of one that left it or died, `failed` where it was to be followed and serves on";
    PROCESS_MEMORY = Gauge "process_resident_memory_bytes" [] "bytes",
        "Memory of the process that is resident";
    PROCESS_CPU = Counter "process_cpu_seconds_total" [] "seconds",
        "Processor time of the process, user and system";
    PROCESS_FDS = Gauge "process_open_fds" [] "descriptors",
        "File descriptors that are open";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_follow_the_conventions_of_prometheus() {
        for metric in ALL {
            assert_eq!(ALL.iter().filter(|other| other.name == metric.name).count(), 1, "{}", metric.name);
            assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
            assert!(metric.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", metric.name);
            assert_eq!(metric.unit == "seconds", metric.name.contains("_seconds"), "{}", metric.name);
            assert!(!metric.help.is_empty() && !metric.help.ends_with('.'), "{}", metric.name);
        }
    }
}
