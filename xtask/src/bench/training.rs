//! The load under which a binary counts what is often run: rows of the bench, and what none of them measures.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::client::Client;
use super::load::Wrk;
use super::policies;
use super::race::{Entrant, race};
use super::rows::{CONNECTIONS, RIGHT, Row, Setting};

/// The rows that show each way through the data path: in cleartext, under TLS, in all that is spoken.
const ROWS: &[Row] = &[
    Row::Plain,
    Row::Log,
    Row::TenKib,
    Row::OneMib,
    Row::Tls,
    Row::Handshakes,
    Row::Http2,
    Row::Grpc,
    Row::WebSocket,
    Row::WebSockets,
    Row::Policies,
];

/// Policies and upstreams as services have them: what no load comes by is compiled to be small.
const DOCUMENTS: &[&str] =
    &["bench/documents/resilient.yaml", "bench/documents/guarded.yaml", "bench/documents/two-workers.yaml"];

/// How many clients send bodies, in turn.
const SENDERS: usize = 8;
/// The length of a body that a client sends.
const SENT: usize = 10 * 1024;

pub(crate) fn run(setting: &Setting<'_>) -> Result<()> {
    ROWS.iter().try_for_each(|row| row.run(setting).map(drop))?;
    DOCUMENTS.iter().try_for_each(|document| requests(setting, document))?;
    bodies(setting)
}

/// Requests of callers who show who they are.
fn requests(setting: &Setting<'_>, document: &str) -> Result<()> {
    let (stage, service) = (setting.stage, setting.stage.backend.port);
    for program in setting.programs {
        let running = stage.start(*program, document)?;
        let headers = policies::shown(&stage.home)?;
        let drive = Rc::new(Wrk { path: "/s".to_owned(), headers, expect: RIGHT, service, tls: None });
        let entrant = Entrant { label: document.to_owned(), running: &running, drive };
        race(stage, &[entrant], setting.course(CONNECTIONS))?;
        running.end()?;
    }
    Ok(())
}

/// Bodies that clients send, with a length and in chunks.
fn bodies(setting: &Setting<'_>) -> Result<()> {
    for program in setting.programs {
        let running = setting.stage.start(*program, "bench/documents/guarded.yaml")?;
        let mut clients = (0..SENDERS).map(|_| Client::connect(running.port)).collect::<Result<Vec<_>>>()?;
        let end = Instant::now() + Duration::from_secs(u64::from(setting.seconds));
        let body = vec![b'u'; SENT];
        while Instant::now() < end {
            for (number, client) in clients.iter_mut().enumerate() {
                let status = client.post("/s", &body, number % 2 == 0)?.status;
                ensure!(status == 200, "a body is answered by {status}");
            }
        }
        running.end()?;
    }
    Ok(())
}
