// xtask: table
//! The keys of a document and of a route, each with its meaning, its type and an example: schema, reference and the
//! reader's list of known keys come out of these two tables. The keys of policies stand in the registry.

use pylon_core::networks::PeerSpec;
use pylon_core::short::{OneOrMany, Short};
use pylon_net::spec::{LimitsSpec, ListenerSpec};
use pylon_observe::spec::TelemetrySpec;
use pylon_policy::consumers::ConsumerSpec;
use pylon_proxy::action::redirect::RedirectSpec;
use pylon_proxy::action::respond::RespondSpec;
use pylon_proxy::action::split::{SplitSpec, StickySpec};
use pylon_proxy::fallback::spec::FallbackSpec;
use pylon_proxy::forwarding::TrustedProxiesSpec;
use pylon_proxy::mirror::MirrorSpec;
use pylon_proxy::removal::OnRemoval;
use pylon_proxy::websocket::WebSocketSpec;
use pylon_route::spec::{MatchSpec, PathsSpec, RewriteSpec};
use pylon_upstream::breaker::spec::BreakerSpec;
use pylon_upstream::call::hedge::spec::HedgeSpec;
use pylon_upstream::call::retry::spec::RetrySpec;
use pylon_upstream::discovery::agents::DiscoverySpec;
use pylon_upstream::locality::LocalitySpec;
use pylon_upstream::spec::UpstreamSpec;
use pylon_upstream::timeouts::TimeoutSpec;
use schemars::{Schema, SchemaGenerator, json_schema};

use crate::admin::AdminSpec;
use crate::schema;
use crate::stores::StoresSpec;

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct KeyDoc {
    /// As it is written.
    pub key: &'static str,
    /// What it means, with its default.
    pub doc: &'static str,
    /// What may stand there, in YAML.
    pub example: &'static str,
    /// Its type.
    pub schema: fn(&mut SchemaGenerator) -> Schema,
}

/// The keys of a document.
pub const TOP: &[KeyDoc] = &[
    KeyDoc {
        key: "listeners",
        doc: "Addresses that accept connections. Required: at least one.",
        example: "listeners: [{ address: 0.0.0.0:8080 }]",
        schema: |g| g.subschema_for::<Vec<ListenerSpec>>(),
    },
    KeyDoc {
        key: "upstreams",
        doc: "The services behind the gate, by name. Default: none.",
        example: "upstreams: { users: { endpoints: [http://10.0.0.1:8080] } }",
        schema: |g| {
            let upstream = g.subschema_for::<UpstreamSpec>();
            json_schema!({ "type": "object", "additionalProperties": upstream })
        },
    },
    KeyDoc {
        key: "consumers",
        doc: "Who may call, by name: applications, partners, teams, with their groups and the hashes of their API keys. Default: none.",
        example: "consumers: { shop-app: { groups: partners, keys: [\"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"] } }",
        schema: |g| {
            let consumer = g.subschema_for::<ConsumerSpec>();
            json_schema!({ "type": "object", "additionalProperties": consumer })
        },
    },
    KeyDoc {
        key: "stores",
        doc: "Where is kept what changes without the document. Default: nowhere.",
        example: "stores: { keys: keys.json }",
        schema: |g| g.subschema_for::<StoresSpec>(),
    },
    KeyDoc {
        key: "routes",
        doc: "What requests look like and what becomes of them. The most specific route takes a request, wherever it stands. Default: none, so that everything is answered with 404.",
        example: "routes: [{ match: \"GET /users/{id}\", forward: users }]",
        schema: |g| {
            let route = schema::route(g);
            json_schema!({ "type": "array", "items": route })
        },
    },
    KeyDoc {
        key: "paths",
        doc: "How the paths of all routes are compared. Default: letter by letter, `/Admin` is not `/admin`.",
        example: "paths: { ignore_case: true }",
        schema: |g| g.subschema_for::<PathsSpec>(),
    },
    KeyDoc {
        key: "defaults",
        doc: "Policies, `timeout`, `retry`, `hedge`, `fallback` and `shadow` of every route that does not say otherwise, policy by policy; requests that no route takes meet them too. Default: none.",
        example: "defaults: { cors: https://shop.example, timeout: 10s }",
        schema: schema::defaults,
    },
    KeyDoc {
        key: "trusted_proxies",
        doc: "Proxies before this gate: their networks, one or a list, or a map; `unix` stands for those that come by Unix sockets. Their forwarding field and request ids count; those of everybody else are overwritten. Default: nobody is trusted.",
        example: "trusted_proxies: [10.0.0.0/8]",
        schema: |g| {
            let (networks, full) = (g.subschema_for::<OneOrMany<PeerSpec>>(), g.subschema_for::<TrustedProxiesSpec>());
            json_schema!({ "anyOf": [networks, full] })
        },
    },
    KeyDoc {
        key: "limits",
        doc: "What clients and upstreams may send, and how slowly.",
        example: "limits: { request_headers: 32KiB, idle_timeout: 60s }",
        schema: |g| g.subschema_for::<LimitsSpec>(),
    },
    KeyDoc {
        key: "locality",
        doc: "Where this gateway stands, as its zone or as a map: endpoints in the same zone are asked first, those in another region last. Default: what the environment says in `PYLON_ZONE` and `PYLON_REGION`, if anything.",
        example: "locality: { zone: eu-1a, region: eu-1 }",
        schema: |g| g.subschema_for::<Short<LocalitySpec>>(),
    },
    KeyDoc {
        key: "discovery",
        doc: "Who is asked for the names of upstreams, and for endpoints that are found at run time. Default: the name servers of the system, and the API server of Kubernetes that the gateway runs in.",
        example: "discovery: { consul: { address: http://127.0.0.1:8500 } }",
        schema: |g| g.subschema_for::<DiscoverySpec>(),
    },
    KeyDoc {
        key: "telemetry",
        doc: "Access log and what else the gate tells of its work.",
        example: "telemetry: { access_log: /var/log/pylon/access.log }",
        schema: |g| g.subschema_for::<TelemetrySpec>(),
    },
    KeyDoc {
        key: "admin",
        doc: "The admin API: probes, metrics, a view of what runs, and reloads.",
        example: "admin: { address: 127.0.0.1:9901 }",
        schema: |g| g.subschema_for::<AdminSpec>(),
    },
    KeyDoc {
        key: "workers",
        doc: "How many threads serve traffic, from 1 to 256. Default: one for each core.",
        example: "workers: 4",
        schema: |_| json_schema!({ "type": "integer", "minimum": 1, "maximum": 256 }),
    },
];

/// The keys of a route besides those of policies.
pub const ROUTE: &[KeyDoc] = &[
    KeyDoc {
        key: "name",
        doc: "The stable id of the route in log, metrics and admin API; unique. Default: the canonical text of its match.",
        example: "name: user-by-id",
        schema: |_| json_schema!({ "type": "string" }),
    },
    KeyDoc {
        key: "match",
        doc: "What a request must look like. Required.",
        example: "match: GET /users/{id}",
        schema: |g| g.subschema_for::<Short<MatchSpec>>(),
    },
    KeyDoc {
        key: "forward",
        doc: "Action: sends the request to the upstream of this name. A route has exactly one action.",
        example: "forward: users",
        schema: |_| json_schema!({ "type": "string" }),
    },
    KeyDoc {
        key: "split",
        doc: "Action: sends requests to several upstreams by share; together the shares are 100%.",
        example: "split: { orders: 95%, orders-next: 5% }",
        schema: |g| g.subschema_for::<SplitSpec>(),
    },
    KeyDoc {
        key: "sticky",
        doc: "By what a `split` sticks: `client` (the default: the client's address), `none`, or a cookie or header.",
        example: "sticky: { cookie: session }",
        schema: |g| g.subschema_for::<Short<StickySpec>>(),
    },
    KeyDoc {
        key: "websocket",
        doc: "Whether a `forward` or `split` lets WebSockets pass, beside other requests: `true`, or a map. Default: `false`, so that an `Upgrade` is dropped.",
        example: "websocket: { idle: 10m }",
        schema: |g| g.subschema_for::<Short<WebSocketSpec>>(),
    },
    KeyDoc {
        key: "on_removal",
        doc: "What becomes of the route's streams (WebSockets, event streams, calls of gRPC, long downloads) when a reload removes the route: `keep`, so that they go on to their own end, or `close`, so that they end a second later. What was written when a stream began counts. Default: `keep`.",
        example: "on_removal: close",
        schema: |g| g.subschema_for::<OnRemoval>(),
    },
    KeyDoc {
        key: "redirect",
        doc: "Action: sends the client elsewhere.",
        example: "redirect: { to: \"/users/{id}\", status: 308 }",
        schema: |g| g.subschema_for::<Short<RedirectSpec>>(),
    },
    KeyDoc {
        key: "respond",
        doc: "Action: answers by itself, always the same.",
        example: "respond: { status: 200, body: \"hello\\n\" }",
        schema: |g| g.subschema_for::<Short<RespondSpec>>(),
    },
    KeyDoc {
        key: "rewrite",
        doc: "What becomes of host, path and query on the way to the upstream. Default: nothing, they go as they came.",
        example: "rewrite: /v2/users/{id}",
        schema: |g| g.subschema_for::<Short<RewriteSpec>>(),
    },
    KeyDoc {
        key: "timeout",
        doc: "How long the upstream may take for this route; key by key, the nearer wins over `upstreams` and `defaults`. A scalar bounds the time to the head of the answer.",
        example: "timeout: 5s",
        schema: |g| g.subschema_for::<Short<TimeoutSpec>>(),
    },
    KeyDoc {
        key: "breaker",
        doc: "When this route's calls are held back from its upstream: `true`, a share of failed calls, or a map; the nearer wins over `per: route` of the upstream, and that over `defaults`. `off` takes away what those say. It is beside those of the upstream and its endpoints. Default: none.",
        example: "breaker: { errors: 30%, consecutive: 5 }",
        schema: |g| g.subschema_for::<Short<BreakerSpec>>(),
    },
    KeyDoc {
        key: "retry",
        doc: "When a request is sent once more, to an endpoint that was not tried: how many attempts may follow the first, or a map; the nearer wins over `upstreams` and `defaults`, as a whole. `off` takes away what those say. Default: only where the service has certainly not acted on the request.",
        example: "retry: { attempts: 2, on: [connect, 503], per_try: 1s }",
        schema: |g| g.subschema_for::<Short<RetrySpec>>(),
    },
    KeyDoc {
        key: "hedge",
        doc: "When a request is sent a second time because the first attempt is late; the first good answer is taken. `off` takes away what `defaults` says. Default: never.",
        example: "hedge: { after: p95, at_most: 5% }",
        schema: |g| g.subschema_for::<Short<HedgeSpec>>(),
    },
    KeyDoc {
        key: "fallback",
        doc: "What stands in where the upstream fails, is late or has a status that says so: one rule or a list, of which the first that holds is taken. `off` takes away what `defaults` says. Default: nothing, the client is told of the failure.",
        example: "fallback: { on: 5xx, respond: { json: { items: [] } } }",
        schema: |g| {
            let rules = g.subschema_for::<FallbackSpec>();
            json_schema!({ "anyOf": [rules, { "const": "off" }] })
        },
    },
    KeyDoc {
        key: "mirror",
        doc: "Another upstream that gets a copy of requests, as its name or as a map; its answers are thrown away and the client notices nothing. Default: none.",
        example: "mirror: { to: orders-next, share: 10% }",
        schema: |g| g.subschema_for::<Short<MirrorSpec>>(),
    },
    KeyDoc {
        key: "shadow",
        doc: "Policies, one or a list, whose verdict is counted and logged but not enforced. Default: none.",
        example: "shadow: [ip_filter]",
        schema: |g| g.subschema_for::<OneOrMany<String>>(),
    },
];

/// Keys that are planned and not built: errors that say so.
pub const LATER: &[&str] = &[
    "clients",
    "aggregate",
    "transcode",
    "cache",
    "rate_limit",
    "quota",
    "views",
    "compress",
    "body",
    "waf",
    "bots",
    "security_headers",
    "validate",
];
