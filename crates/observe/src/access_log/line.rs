//! One line of the access log, as JSON. Absent values are left out.
//!
//! | member | what it tells |
//! |---|---|
//! | `time` | when the head of the request was read: RFC 3339, UTC, milliseconds |
//! | `id` | the request id |
//! | `client` | the client address, after `trusted_proxies`; `unix` where it came by a Unix socket |
//! | `method`, `host`, `path` | what was asked for: host in lower case, path normalised, with its query, secrets as `***` |
//! | `protocol` | what the client spoke: `HTTP/1.0`, `HTTP/1.1` or `HTTP/2` |
//! | `status` | what the client was answered; 499 when it went away before the end; 101 for a WebSocket, on HTTP/2 too |
//! | `bytes_in`, `bytes_out` | lengths of the bodies, or what a WebSocket carried each way, in bytes |
//! | `duration_ms` | from the head of the request to the last byte of the answer |
//! | `route` | the id of the route |
//! | `caller`, `consumer`, `identified_by` | who asked, once proved: the subject, the consumer of the document, the policy |
//! | `upstream`, `endpoint`, `attempts`, `reused` | who was called, how often, and whether on a connection from the pool |
//! | `retries` | why each attempt but the first was made: `stale`, `connect`, `refused`, `reset`, a timer, a status, a code of gRPC |
//! | `retry_refused` | why no further attempt was made where one was called for: `budget_exhausted`, `too_late` or `body_gone` |
//! | `hedge` | a second attempt beside one that was late: `won`, `lost` or `skipped` |
//! | `upstream_ms` | from the first attempt to the head of the answer |
//! | `priority` | the class of the request, where it is not `normal` |
//! | `queued_ms` | how long it waited for its turn at an upstream whose limit was reached |
//! | `grpc_status` | how a call of gRPC ended: the number that the client was told, by the service or by the gateway |
//! | `reason`, `detail` | why the gateway itself refused; an upstream cannot fake it |
//! | `timer` | the timer that ended the exchange |
//! | `shadow` | what policies in shadow would have refused: `policy` and `code` |
//! | `headers` | the headers of the request that `access_log.headers` lists |
//! | `end` | `complete`, `client_gone`, `client_broke`, `upstream_broke`, `timeout`, `too_large` or `drained` |
//!
//! A connection that is carried byte by byte has a line of its own when it is over ([`crate::tcp`]): `time` is that of its
//! acceptance, `protocol` is `tcp`, `host` the name in its TLS, `bytes_in` and `bytes_out` all that went through, and `end`
//! one of `complete`, `client_gone`, `upstream_broke`, `idle`, `unreached`, `no_hello`, `unknown_name` or `cut`.
//!
//! A value that comes from outside is cut with `…`: the path after 8 KiB, any other after 1 KiB.

use std::io::Write as _;
use std::time::Duration;

use http::Version;
use pylon_core::caller::Caller;
use pylon_core::exchange::{Exchange, Failing, Trail};
use pylon_core::priority::Priority;

use crate::clock::Stamp;
use crate::ending::Ending;
use crate::json;
use crate::redact::Redaction;
use crate::series::RouteShard;
use crate::tcp::client;

/// What a usual line does not exceed, in bytes; a longer one makes its buffer grow.
pub(crate) const USUAL: usize = 2048;

/// The longest path that is told, in bytes.
const PATH: usize = 8192;

/// The longest other value from outside that is told, in bytes.
const VALUE: usize = 1024;

/// All that a line is made from.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    pub(crate) route: &'a RouteShard,
    pub(crate) exchange: &'a Exchange,
    pub(crate) ending: &'a Ending,
    /// Time since 1970 at the start.
    pub(crate) started: Duration,
    /// From start to end.
    pub(crate) took: Duration,
}

impl Line<'_> {
    /// Appends the line with its line feed.
    pub(crate) fn write(&self, out: &mut Vec<u8>, stamp: &mut Stamp, redaction: &Redaction) {
        self.request(out, stamp, redaction);
        out.extend_from_slice(br#","status":"#);
        json::number(out, self.ending.logged_status().into());
        out.extend_from_slice(br#","bytes_in":"#);
        json::number(out, self.ending.received);
        out.extend_from_slice(br#","bytes_out":"#);
        json::number(out, self.ending.sent);
        out.extend_from_slice(br#","duration_ms":"#);
        json::millis(out, micros(self.took));
        out.extend_from_slice(self.route.logged());
        let trail = &self.exchange.trail;
        if let Some(who) = &self.exchange.caller {
            caller(out, who);
        }
        upstream(out, trail);
        if let Some(injected) = trail.injected {
            let words: &[u8] = match injected.parts() {
                (true, true) => br#""delay","abort""#,
                (true, false) => br#""delay""#,
                _ => br#""abort""#,
            };
            out.extend_from_slice(br#","injected":["#);
            out.extend_from_slice(words);
            out.push(b']');
        }
        turn(out, self.exchange);
        fallback(out, trail);
        if let Some(status) = trail.grpc_status {
            out.extend_from_slice(br#","grpc_status":"#);
            json::number(out, status.into());
        }
        if let Some(reason) = trail.reason {
            out.extend_from_slice(br#","reason":""#);
            json::escaped(out, reason.code);
            out.push(b'"');
        }
        if let Some(detail) = &trail.detail {
            out.extend_from_slice(br#","detail":"#);
            json::string(out, detail, VALUE);
        }
        if let Some(timer) = self.ending.how.timer().or(trail.timer) {
            out.extend_from_slice(br#","timer":""#);
            out.extend_from_slice(timer.as_str().as_bytes());
            out.push(b'"');
        }
        shadow(out, trail);
        headers(out, trail);
        out.extend_from_slice(br#","end":""#);
        out.extend_from_slice(self.ending.how.as_str().as_bytes());
        out.extend_from_slice(b"\"}\n");
    }

    fn request(&self, out: &mut Vec<u8>, stamp: &mut Stamp, redaction: &Redaction) {
        let exchange = self.exchange;
        out.extend_from_slice(br#"{"time":""#);
        stamp.write(out, self.started);
        out.extend_from_slice(br#"","id":"#);
        json::lossy(out, exchange.request_id.as_bytes(), VALUE);
        out.extend_from_slice(br#","client":""#);
        client(out, &exchange.connection, exchange.client);
        out.extend_from_slice(br#"","method":"#);
        json::string(out, exchange.method.as_str(), VALUE);
        if let Some(host) = &exchange.host {
            out.extend_from_slice(br#","host":"#);
            json::string(out, host, VALUE);
        }
        out.extend_from_slice(br#","path":""#);
        let (path, mark) = json::cut(exchange.path.as_str(), PATH);
        redaction.pieces(path, |piece| json::escaped(out, piece));
        out.extend_from_slice(mark.as_bytes());
        out.extend_from_slice(br#"","protocol":""#);
        out.extend_from_slice(protocol(exchange.version).as_bytes());
        out.push(b'"');
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

pub(crate) fn upstream(out: &mut Vec<u8>, trail: &Trail) {
    if let Some(upstream) = &trail.upstream {
        out.extend_from_slice(br#","upstream":"#);
        json::string(out, upstream, VALUE);
    }
    if let Some(path) = &trail.socket {
        out.extend_from_slice(br#","endpoint":"#);
        json::string(out, path, VALUE);
    } else if let Some(endpoint) = trail.endpoint {
        out.extend_from_slice(br#","endpoint":""#);
        json::socket(out, endpoint);
        out.push(b'"');
    }
    if trail.attempts > 0 {
        out.extend_from_slice(br#","attempts":"#);
        json::number(out, trail.attempts.into());
        out.extend_from_slice(if trail.reused { br#","reused":true"# } else { br#","reused":false"# });
    }
    further(out, trail);
    if let Some(took) = trail.upstream_time {
        out.extend_from_slice(br#","upstream_ms":"#);
        json::millis(out, micros(took));
    }
}

fn caller(out: &mut Vec<u8>, caller: &Caller) {
    out.extend_from_slice(br#","caller":"#);
    json::string(out, &caller.subject, VALUE);
    if let Some(consumer) = &caller.consumer {
        out.extend_from_slice(br#","consumer":"#);
        json::string(out, consumer.name.as_str(), VALUE);
    }
    out.extend_from_slice(br#","identified_by":""#);
    out.extend_from_slice(caller.by.as_bytes());
    out.push(b'"');
}

fn turn(out: &mut Vec<u8>, exchange: &Exchange) {
    if exchange.priority != Priority::Normal {
        out.extend_from_slice(br#","priority":""#);
        out.extend_from_slice(exchange.priority.as_str().as_bytes());
        out.push(b'"');
    }
    if let Some(queued) = exchange.trail.queued {
        out.extend_from_slice(br#","queued_ms":"#);
        json::millis(out, micros(queued));
    }
}

/// Why there was more than one attempt, or was not.
fn further(out: &mut Vec<u8>, trail: &Trail) {
    for (i, cause) in trail.retries.iter().enumerate() {
        out.extend_from_slice(if i == 0 { br#","retries":[""# } else { br#"",""# });
        // Writing to a vector does not fail. A word of a fixed list, or a number: there is nothing to escape.
        let _ = write!(out, "{cause}");
    }
    if !trail.retries.is_empty() {
        out.extend_from_slice(br#""]"#);
    }
    if let Some(refused) = trail.retry_refused {
        out.extend_from_slice(br#","retry_refused":""#);
        out.extend_from_slice(refused.as_str().as_bytes());
        out.push(b'"');
    }
    if let Some(hedge) = trail.hedge {
        out.extend_from_slice(br#","hedge":""#);
        out.extend_from_slice(hedge.as_str().as_bytes());
        out.push(b'"');
    }
}

fn fallback(out: &mut Vec<u8>, trail: &Trail) {
    let Some(fallback) = &trail.fallback else { return };
    out.extend_from_slice(br#","fallback":""#);
    out.extend_from_slice(fallback.by.as_str().as_bytes());
    out.extend_from_slice(br#"","fallback_on":"#);
    match fallback.on {
        Failing::Call(reason) => json::string(out, reason.code, VALUE),
        Failing::Status(status) => json::number(out, status.into()),
    }
    if let Some(from) = &fallback.from {
        out.extend_from_slice(br#","fallback_from":"#);
        json::string(out, from, VALUE);
    }
}

fn shadow(out: &mut Vec<u8>, trail: &Trail) {
    if trail.shadowed.is_empty() {
        return;
    }
    out.extend_from_slice(br#","shadow":["#);
    for (i, (policy, code)) in trail.shadowed.iter().enumerate() {
        out.extend_from_slice(if i == 0 { br#"{"policy":""# } else { br#",{"policy":""# });
        json::escaped(out, policy);
        out.extend_from_slice(br#"","code":""#);
        json::escaped(out, code);
        out.extend_from_slice(br#""}"#);
    }
    out.push(b']');
}

fn headers(out: &mut Vec<u8>, trail: &Trail) {
    if trail.noted.is_empty() {
        return;
    }
    out.extend_from_slice(br#","headers":{"#);
    for (i, (name, value)) in trail.noted.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        json::string(out, name.as_str(), VALUE);
        out.push(b':');
        json::lossy(out, value.as_bytes(), VALUE);
    }
    out.push(b'}');
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
