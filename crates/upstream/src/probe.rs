//! Asks endpoints how busy they are, off the path of requests, for the method `prequal` (`balance/prequal.rs`).
//!
//! Each request leaves a mark in the box of its worker; a task on the control runtime sends probes for these marks, to endpoints
//! drawn by lot, and puts the answers into the same box. A worker looks into its box when it chooses, and never waits for it. A
//! probe is a GET on a connection from the pool of the control runtime. It is answered with `rif`, the requests in flight, and
//! `latency_ms`, how long they take: as members of a JSON object, or in the fields `rif` and `latency-ms`.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use http_body::Body as _;
use parking_lot::Mutex;
use pylon_core::body::Body;
use pylon_core::connection::{Connection, Scheme};
use pylon_core::exchange::{Exchange, Head};
use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::units::Span;
use pylon_core::{Request, worker};
use pylon_net::timer::sleep;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use crate::balance::prequal::{PROBES, Probe};
use crate::call::CallOptions;
use crate::endpoint::Lane;
use crate::timeouts::Timeouts;
use crate::upstream::Upstream;

/// How often marks are looked at.
const TICK: Duration = Duration::from_millis(10);
/// The most probes for the marks of one worker in one tick, and under way at once.
const MOST: u32 = 48;
const MOST_UNDER_WAY: usize = 256;
/// The longest answer, in bytes.
const LONGEST: usize = 4096;
const AGENT: HeaderValue = HeaderValue::from_static(concat!("pylon/", env!("CARGO_PKG_VERSION")));

/// How endpoints are asked how busy they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProbeSpec {
    /// The path that is asked for, with GET. No default. Example: `/load`.
    pub path: String,
    /// How long an answer is waited for. A span of time; default `500ms`. Example: `100ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
}

/// What the probes of an upstream have in common.
#[derive(Debug)]
pub(crate) struct Probes {
    path: PathAndQuery,
    timeout: Duration,
    /// From which moment time is counted.
    born: Instant,
    boxes: Box<[Mail]>,
    under_way: AtomicUsize,
    started: AtomicBool,
}

/// What one worker and the task of probes leave for each other.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Mail {
    /// How many requests want probes.
    asked: AtomicU32,
    /// Whether there are answers.
    full: AtomicBool,
    answers: Mutex<Vec<(u64, Probe)>>,
}

/// What an endpoint says in JSON.
#[derive(Debug, Deserialize)]
struct Told {
    rif: u32,
    latency_ms: Option<f64>,
}

impl Probes {
    /// The errors are told from `probe` down.
    pub(crate) fn compile(spec: &ProbeSpec) -> Result<Self, SpecError> {
        let path = Some(&spec.path).filter(|path| path.starts_with('/')).and_then(|path| path.parse().ok());
        let Some(path) = path else {
            let error = SpecError::new(FieldPath::root().key("path"), format!("`{}` is not a path", spec.path));
            return Err(error.help("write it as `/load`"));
        };
        Ok(Self {
            path,
            timeout: spec.timeout.map_or(Duration::from_millis(500), Span::duration),
            born: now(),
            boxes: (0..=worker::count()).map(|_| Mail::default()).collect(),
            under_way: AtomicUsize::new(0),
            started: AtomicBool::new(false),
        })
    }

    /// A moment as answers tell it.
    pub(crate) fn nanos(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.born).as_nanos() as u64
    }

    /// Notes a request, and hands over the answers that came since the last, each with the generation of the set that it is of.
    pub(crate) fn collect(&self, mut learn: impl FnMut(u64, Probe)) {
        let last = self.boxes.len().saturating_sub(1);
        let Some(mail) = self.boxes.get(worker::current().map_or(last, |id| id.min(last))) else { return };
        mail.asked.fetch_add(1, Relaxed);
        if mail.full.load(Relaxed)
            && let Some(mut answers) = mail.answers.try_lock()
        {
            mail.full.store(false, Relaxed);
            for (generation, probe) in answers.drain(..) {
                learn(generation, probe);
            }
        }
    }

    fn deliver(&self, mail: usize, generation: u64, probe: Probe) {
        let Some(mail) = self.boxes.get(mail) else { return };
        let mut answers = mail.answers.lock();
        // A worker without requests does not look; what is too old is of no use to it either.
        if answers.len() >= MOST as usize {
            answers.clear();
        }
        answers.push((generation, probe));
        mail.full.store(true, Relaxed);
    }

    fn exchange(&self, now: Instant) -> Box<Exchange> {
        let nobody = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let mut exchange = Exchange::begin(Head {
            connection: Arc::new(Connection::new(nobody, nobody, Scheme::Http, now)),
            client: nobody.ip(),
            scheme: Scheme::Http,
            from_trusted_proxy: false,
            request_id: HeaderValue::from_static("probe"),
            started: now,
            method: Method::GET,
            version: Version::HTTP_11,
            host: None,
            path: self.path.clone(),
        });
        exchange.deadline = Some(now + self.timeout);
        exchange
    }
}

impl Upstream {
    /// Begins to probe endpoints on `handle`, the control runtime, where the method of choice asks for that. Once is enough.
    pub(crate) fn start_probes(self: &Arc<Self>, handle: &Handle) {
        let Some(probes) = self.probes() else { return };
        if probes.started.swap(true, Relaxed) {
            return;
        }
        let upstream = Arc::downgrade(self);
        // It ends with the upstream.
        handle.spawn(async move {
            loop {
                sleep(TICK).await;
                match upstream.upgrade() {
                    Some(upstream) => upstream.send_probes(),
                    None => return,
                }
            }
        });
    }

    /// Sends the probes that were asked for since the last time.
    fn send_probes(self: &Arc<Self>) {
        let Some(probes) = self.probes() else { return };
        for (number, mail) in probes.boxes.iter().enumerate() {
            let wanted = mail.asked.swap(0, Relaxed).saturating_mul(PROBES).min(MOST);
            for _ in 0..wanted {
                if probes.under_way.load(Relaxed) >= MOST_UNDER_WAY {
                    return;
                }
                let Some((generation, index, lane)) = self.any_lane() else { break };
                probes.under_way.fetch_add(1, Relaxed);
                let upstream = Arc::clone(self);
                tokio::spawn(async move {
                    let told = upstream.probe(&lane).await;
                    let Some(probes) = upstream.probes() else { return };
                    probes.under_way.fetch_sub(1, Relaxed);
                    if let Some((rif, latency)) = told {
                        let at = probes.nanos(now());
                        probes.deliver(number, generation, Probe { index, rif, latency, at });
                    }
                });
            }
        }
    }

    /// What an endpoint answers: requests in flight, and how long they take in seconds.
    async fn probe(&self, lane: &Arc<Lane>) -> Option<(u32, f64)> {
        let (probes, began) = (self.probes()?, now());
        let mut cx = probes.exchange(began);
        let mut request = Request::new(Body::Empty);
        request.headers_mut().insert(header::USER_AGENT, AGENT);
        let timeouts = Timeouts { response: probes.timeout, idle: probes.timeout, ..self.timeouts() };
        let options = CallOptions { timeouts, max_head: 16 * 1024, ..CallOptions::default() };
        let answer = self.ask(lane, request, &mut cx, &options).await.ok()?;
        if answer.status() != StatusCode::OK {
            return None;
        }
        let (head, mut body) = answer.into_parts();
        let mut text = Vec::new();
        while let Some(frame) = poll_fn(|task| Pin::new(&mut body).poll_frame(task)).await {
            if let Ok(data) = frame.ok()?.into_data() {
                text.extend_from_slice(&data);
            }
            if text.len() > LONGEST {
                return None;
            }
        }
        told(&head.headers, &text, now().saturating_duration_since(began))
    }
}

/// Reads an answer; without a latency in it, the time of the probe itself counts.
fn told(headers: &HeaderMap, body: &[u8], took: Duration) -> Option<(u32, f64)> {
    let field = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let Told { rif, latency_ms } = match field("rif") {
        Some(rif) => {
            let latency_ms = field("latency-ms").map(str::parse).transpose().ok()?;
            Told { rif: rif.parse().ok()?, latency_ms }
        }
        None => serde_json::from_slice(body).ok()?,
    };
    let seconds = latency_ms.map_or(took.as_secs_f64(), |millis: f64| millis / 1000.0);
    (seconds.is_finite() && seconds >= 0.0).then_some((rif, seconds))
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_from_fields_or_from_json() {
        let took = Duration::from_millis(20);
        let none = HeaderMap::new();
        assert_eq!(told(&none, br#"{"rif": 3, "latency_ms": 12.5, "more": 1}"#, took), Some((3, 0.0125)));
        assert_eq!(told(&none, br#"{"rif": 3}"#, took), Some((3, 0.02)));
        let mut fields = HeaderMap::new();
        fields.insert("rif", HeaderValue::from_static("7"));
        assert_eq!(told(&fields, b"", took), Some((7, 0.02)));
        fields.insert("latency-ms", HeaderValue::from_static("4"));
        assert_eq!(told(&fields, b"", took), Some((7, 0.004)));
        fields.insert("latency-ms", HeaderValue::from_static("-4"));
        assert_eq!(told(&fields, b"", took), None);
        assert_eq!(told(&none, b"ok", took), None);
    }

    #[test]
    fn a_worker_gets_the_answers_of_its_own_box_and_an_overfull_one_is_emptied() {
        let spec = ProbeSpec { path: "/load".to_owned(), timeout: None };
        let probes = Probes::compile(&spec).unwrap();
        let own = probes.boxes.len() - 1;
        let probe = Probe { index: 1, rif: 2, latency: 0.1, at: 5 };
        for n in 0..=u64::from(MOST) {
            probes.deliver(own, n, probe);
        }
        let mut got = Vec::new();
        probes.collect(|generation, probe| got.push((generation, probe)));
        assert_eq!(got, [(u64::from(MOST), probe)]);
        probes.collect(|_, _| panic!("nothing came since"));
        assert_eq!(probes.boxes[own].asked.load(Relaxed), 2);
        assert!(Probes::compile(&ProbeSpec { path: "load".to_owned(), timeout: None }).is_err());
    }
}
