//! The socket by which `pylon upgrade` asks a running gateway to give its place to another process: one line of JSON there,
//! one back. It belongs to the gateway's user, and nobody but that user and root is listened to.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pylon_core::units::Span;
use pylon_net::door::Door;
use pylon_observe::upgrades::Outcome;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

/// Who may connect.
pub const MODE: u32 = 0o600;
/// The longest line.
const LONGEST: u64 = 64 * 1024;
/// How long a caller may take to ask.
const ASKING: Duration = Duration::from_secs(5);
/// How long a caller may take to hear the answer.
const TELLING: Duration = Duration::from_secs(1);

/// What is asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Another program than the one at the gateway's own path.
    pub binary: Option<PathBuf>,
    /// Another document than the gateway's own.
    pub document: Option<PathBuf>,
    /// How long the new process may take to be ready.
    pub timeout: Span,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The process with this id serves from now on.
    Upgraded(u32),
    /// The one before serves on, and why.
    Failed(String),
}

/// What became of the last upgrade that this process had a part in.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What became of it.
    pub outcome: Outcome,
    /// When (RFC 3339).
    pub at: String,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A request that waits for its answer.
#[derive(Debug)]
pub struct Asked {
    /// The request.
    pub request: Request,
    /// Who waits for the answer.
    pub caller: Caller,
}

/// Who waits for an answer.
#[derive(Debug)]
pub struct Caller {
    answer: oneshot::Sender<Answer>,
    /// Ends when the answer is written out.
    told: oneshot::Receiver<()>,
}

impl Caller {
    /// Tells what came of it, and waits shortly until that is written out: a process that has given its place away may end at once.
    /// Whoever does not wait any more finds it in the log.
    pub async fn tell(self, answer: Answer) {
        if self.answer.send(answer).is_ok() {
            let _ = tokio::time::timeout(TELLING, self.told).await;
        }
    }
}

/// Listens to callers until another process does.
pub(crate) async fn listen(socket: std::os::unix::net::UnixListener, door: Arc<Door>, asks: mpsc::Sender<Asked>) {
    let socket = match UnixListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(%error, "upgrades cannot be asked for");
            return;
        }
    };
    loop {
        let accepted = tokio::select! { accepted = socket.accept() => accepted, _ = door.is_shut() => return };
        let caller = match accepted {
            Ok((caller, _)) => caller,
            Err(error) => {
                tracing::warn!(%error, "the upgrade socket cannot accept");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        match caller.peer_cred() {
            Ok(peer) if may_ask(peer.uid()) => {
                tokio::spawn(serve(caller, asks.clone()));
            }
            peer => tracing::warn!(?peer, "somebody else asks for an upgrade, and is not listened to"),
        }
    }
}

fn may_ask(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

async fn serve(caller: tokio::net::UnixStream, asks: mpsc::Sender<Asked>) {
    let (from, mut to) = caller.into_split();
    let mut line = String::new();
    let mut from = tokio::io::BufReader::new(from.take(LONGEST));
    let read = tokio::time::timeout(ASKING, from.read_line(&mut line)).await;
    let read = read.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    // Dropped when the answer is written out.
    let (_telling, told) = oneshot::channel();
    let answer = match read.and_then(|_| serde_json::from_str(&line).map_err(io::Error::other)) {
        Ok(request) => {
            let (answer, answered) = oneshot::channel();
            match asks.try_send(Asked { request, caller: Caller { answer, told } }) {
                Ok(()) => answered.await.unwrap_or_else(|_| Answer::Failed("the gateway is ending".to_owned())),
                Err(_) => Answer::Failed("the gateway is ending, or an upgrade is under way".to_owned()),
            }
        }
        Err(error) => Answer::Failed(format!("this is no request for an upgrade: {error}")),
    };
    let mut line = serde_json::to_vec(&answer).unwrap_or_default();
    line.push(b'\n');
    // A caller that has gone finds the outcome in the log.
    let _ = to.write_all(&line).await;
}

/// Asks the gateway that listens at `path`, and waits for what comes of it.
pub fn ask(path: &Path, request: &Request) -> io::Result<Answer> {
    let mut gateway = UnixStream::connect(path)?;
    // It answers by itself when the time is over.
    gateway.set_read_timeout(Some(request.timeout.duration() + Duration::from_secs(30)))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    gateway.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(gateway.take(2 * LONGEST)).read_line(&mut answer)?;
    if answer.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the gateway closed without an answer"));
    }
    Ok(serde_json::from_str(&answer)?)
}
