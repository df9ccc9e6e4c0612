//! One proxy before one strict service, and what becomes of a request there.

use std::fmt;
use std::net::SocketAddr;

use pylon_testkit::answer::Answer;
use pylon_testkit::binary::Binary;
use pylon_testkit::client::Raw;
use pylon_testkit::haproxy::Haproxy;
use pylon_testkit::message::{Message, ReadError};
use pylon_testkit::nginx::Nginx;
use pylon_testkit::wait::{ms, now, pause};

use crate::strict::Strict;

/// Sent behind each request: who keeps the connection answers it and closes.
const BEHIND: &str = "GET /behind HTTP/1.1\r\nHost: gate.test\r\nConnection: close\r\n\r\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    Pylon,
    Nginx,
    Haproxy,
}

/// A proxy and its service.
pub(crate) struct Lane {
    strict: Strict,
    address: SocketAddr,
    _proxy: Proxy,
}

#[expect(dead_code, reason = "held for as long as the lane is used")]
enum Proxy {
    Pylon(Binary),
    Nginx(Nginx),
    Haproxy(Haproxy),
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) class: Class,
    /// The final statuses that the client saw, for people.
    pub(crate) statuses: Vec<u16>,
    /// The framing of each request that the service saw whole, and what it saw that was none.
    seen: Vec<String>,
}

/// Classes of outcomes that are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Class {
    /// The service saw it and the request behind it, each once.
    Passed(&'static str),
    /// The service saw it, and the connection was closed behind it.
    Last(&'static str),
    /// An error, and a close.
    Refused(u16),
    /// An error, and the connection goes on.
    Declined(u16),
    /// A close without a word.
    Dropped,
    /// More bytes were waited for.
    Waits,
    /// The proxy answered by itself and not by an error.
    Answered,
    /// The service saw another number of requests.
    Several(usize),
    /// The service got something that is no strict HTTP/1.1.
    Malformed,
    /// The answer was none of HTTP/1.1.
    Unreadable,
}

impl Lane {
    pub(crate) fn start(which: Which) -> Self {
        let strict = Strict::answering(|_| Answer::new(200));
        let service = strict.upstream.address();
        let (address, proxy) = match which {
            Which::Pylon => {
                let gate = Binary::start(&format!(
                    "listeners: [{{ address: 127.0.0.1:0, http2: false }}]
limits: {{ header_timeout: 2s, body_timeout: 2s }}
upstreams: {{ api: {{ endpoints: [http://{service}] }} }}
routes: [{{ match: \"/{{*rest}}\", forward: api }}]"
                ));
                (gate.address(), Proxy::Pylon(gate))
            }
            Which::Nginx => {
                let nginx = Nginx::start(&format!(
                    "client_header_timeout 2s; client_body_timeout 2s; client_header_buffer_size 64k;
large_client_header_buffers 4 64k; proxy_request_buffering off; proxy_http_version 1.1; lingering_close off;
location / {{ proxy_pass http://{service}; proxy_set_header Host $http_host; proxy_set_header Connection \"\"; }}"
                ));
                (nginx.address(), Proxy::Nginx(nginx))
            }
            Which::Haproxy => {
                let haproxy = Haproxy::start(|address| {
                    format!(
                        "listen gate\n mode http\n bind {address}\n timeout client 2s\n timeout http-request 2s\n server one {service}"
                    )
                });
                (haproxy.address(), Proxy::Haproxy(haproxy))
            }
        };
        Self { strict, address, _proxy: proxy }
    }

    pub(crate) fn outcome(&self, bytes: &[u8]) -> Outcome {
        let (from, malformed) = (self.strict.upstream.requests(), self.strict.malformed().len());
        let (begun, open) = (now(), self.strict.upstream.open());
        let mut client = Raw::connect(self.address);
        client.patience(ms(4000));
        let _ = client.try_send([bytes, BEHIND.as_bytes()].concat());
        let (mut statuses, mut readable) = (Vec::new(), true);
        loop {
            match client.try_response("GET") {
                Ok(answer) if answer.status() < 200 => {}
                Ok(answer) => statuses.push(answer.status()),
                Err(ReadError::Malformed(_)) => {
                    readable = false;
                    break;
                }
                Err(_) => break,
            }
        }
        let waited = begun.elapsed() >= ms(1800);
        // What was refused half-way may have reached the service in part: its connection ends before the next request.
        while statuses.first() != Some(&200) && self.strict.upstream.open() > open && begun.elapsed() < ms(500) {
            pause(ms(1));
        }
        let mut seen: Vec<String> = self.strict.upstream.seen()[from..].iter().map(told).collect();
        let behind = seen.last().is_some_and(|last| last.starts_with("GET /behind "));
        let requests = seen.len();
        let odd = self.strict.malformed().split_off(malformed);
        let framing = self.strict.upstream.seen()[from..].first().map_or("", framing);
        let class = match (requests, statuses.first()) {
            // Whether the proxy or the service was first to notice a bad trailer is chance: an error it is either way.
            (_, Some(400..)) if odd.iter().any(|what| what.starts_with("the field")) => Class::Refused(4),
            _ if !odd.is_empty() => Class::Malformed,
            _ if !readable => Class::Unreadable,
            (2, Some(200)) if behind => Class::Passed(framing),
            (1, Some(200)) if !behind => match statuses.get(1) {
                None | Some(400..) => Class::Last(framing),
                Some(_) => Class::Answered,
            },
            (1, Some(status @ 400..)) if behind => Class::Declined(status / 100),
            (1, Some(_)) if behind => Class::Answered,
            (0 | 1, Some(408)) => Class::Waits,
            (0 | 1, None) if waited => Class::Waits,
            (0, None) => Class::Dropped,
            (0, Some(status @ 400..)) => Class::Refused(status / 100),
            (0, Some(_)) => Class::Answered,
            (requests, _) => Class::Several(requests),
        };
        seen.extend(odd);
        Outcome { class, statuses, seen }
    }
}

impl Outcome {
    /// What must hold of Pylon, whatever others do: a request for each good answer, one framing each, nothing malformed.
    pub(crate) fn is_sound(&self) -> bool {
        let good = self.statuses.iter().filter(|status| **status == 200).count();
        let sound = !matches!(self.class, Class::Malformed | Class::Unreadable | Class::Answered);
        sound
            && self.seen.len() == good
            && self.seen.iter().all(|seen| !seen.contains("smuggled") && !seen.contains("both"))
    }
}

fn told(request: &Message) -> String {
    format!("{} {} {}", request.method(), request.target().get(..40).unwrap_or(request.target()), framing(request))
}

fn framing(request: &Message) -> &'static str {
    match (request.field("content-length"), request.field("transfer-encoding")) {
        (Some(_), Some(_)) => "both",
        (Some(length), None) if length == "0" => "no body",
        (Some(_), None) => "a length",
        (None, Some(_)) => "chunks",
        (None, None) => "no body",
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed(framing) => write!(f, "passes with {framing}"),
            Self::Last(framing) => write!(f, "passes with {framing}, then closes"),
            Self::Refused(status) => write!(f, "{status}xx and a close"),
            Self::Declined(status) => write!(f, "{status}xx"),
            Self::Dropped => f.write_str("closes without a word"),
            Self::Waits => f.write_str("waits for more"),
            Self::Answered => f.write_str("answers by itself"),
            Self::Several(requests) => write!(f, "passes {requests} requests"),
            Self::Malformed => f.write_str("passes bytes that are no strict HTTP/1.1"),
            Self::Unreadable => f.write_str("answers without a status line"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (answers {:?}, the service saw {:?})", self.class, self.statuses, self.seen)
    }
}
