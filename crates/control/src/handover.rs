//! Hands the listening sockets over to another process that takes this one's place, and takes them from one.
//!
//! The process that serves starts the one that follows it, as its child, with one end of a channel for its standard input.
//! The child gets all listening sockets as they are, then reads its document and binds what is new in it; once it serves it
//! says so. Only then does the first one leave the sockets to it, and says that too. Whatever goes wrong before leaves the
//! first one as it was, and the child is ended.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use pylon_core::units::Span;
use pylon_net::channel::{Channel, LONGEST, MOST_FILES};
use pylon_net::inherit::{Inheritance, Legacy, Role};
use pylon_net::listen::{Address, FileId, Listener};
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedMutexGuard;

mod heir;

pub(crate) use heir::Heir;

/// Tells a child that its standard input is a channel.
const VARIABLE: &str = "PYLON_TAKE_OVER";
/// How long each step of a hand-over may take that needs no thought.
const STEP: Duration = Duration::from_secs(10);
/// How long a process that serves and waits may take to hear that it is in charge.
const HEARING: Duration = Duration::from_secs(2);
/// How much of a reason is told, in bytes: it stands in one message with little else.
const REASON: usize = LONGEST / 4;

/// What is told to a child.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ToChild {
    /// The sockets of one address come with this, or some of them where there are many.
    Sockets { index: usize, role: Role, address: Address, held: bool, file: Option<FileId> },
    /// These were all. Another document is to be read than the arguments name.
    Begin { document: Option<PathBuf> },
    /// The sockets are yours.
    TakeCharge,
}

/// What a child tells.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ToParent {
    /// It serves, on the sockets with these numbers among others.
    Ready { taken: Vec<usize> },
    /// It does not, and why.
    Failed { why: String },
    /// It has heard that it is in charge.
    InCharge,
}

/// Why the process that was to follow does not.
#[derive(Debug, thiserror::Error)]
pub enum HandOverError {
    /// It cannot be started.
    #[error("{} cannot be started: {source}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It told why.
    #[error("the new process does not start: {0}")]
    Refused(String),
    /// It ended.
    #[error("the new process ended before it was ready: {0}")]
    Ended(ExitStatus),
    /// It did not come to be ready.
    #[error("the new process was not ready within {0}")]
    Late(Span),
    /// The channel broke.
    #[error("the sockets cannot be handed over: {0}")]
    Channel(#[from] io::Error),
}

/// Which process is to follow.
#[derive(Debug)]
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Another document than they name.
    pub document: Option<PathBuf>,
    /// How long it may take to be ready.
    pub patience: Span,
}

/// The sockets of one address, to be handed over.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) role: Role,
    pub(crate) written: Address,
    pub(crate) held: bool,
    pub(crate) file: Option<FileId>,
    pub(crate) sockets: Vec<Listener>,
}

/// A process that serves, and waits to be told that it is in charge. It is ended if it is not told.
#[derive(Debug)]
pub struct Successor {
    heir: Heir,
    channel: Channel,
    /// Nothing changes of the sockets before this is over.
    unchanged: Option<OwnedMutexGuard<()>>,
    /// The numbers of the offers that it has taken.
    pub(crate) taken: Vec<usize>,
}

impl Successor {
    /// Starts it as `heir` and waits until it serves. Blocks.
    pub(crate) fn start(launch: &Launch, offers: &[Offer], heir: Heir) -> Result<Self, HandOverError> {
        let (channel, end) = Channel::pair()?;
        let mut command = Command::new(&launch.program);
        command.args(&launch.arguments).env(VARIABLE, "1").stdin(Stdio::from(end));
        for meant_for_this_one in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"] {
            command.env_remove(meant_for_this_one);
        }
        let started = heir.start(&mut command);
        // It holds the other end of the channel.
        drop(command);
        started.map_err(|source| HandOverError::Start { program: launch.program.clone(), source })?;
        let mut successor = Self { heir, channel, unchanged: None, taken: Vec::new() };
        match successor.hand_over(launch, offers) {
            Ok(()) => Ok(successor),
            Err(HandOverError::Channel(error)) if is_gone(&error) => Err(successor.heir.ended()),
            Err(error) => Err(error),
        }
    }

    fn hand_over(&mut self, launch: &Launch, offers: &[Offer]) -> Result<(), HandOverError> {
        let until = now() + launch.patience.duration();
        let late = |error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => HandOverError::Late(launch.patience),
            _ => HandOverError::Channel(error),
        };
        self.channel.patience(launch.patience.duration())?;
        for (index, offer) in offers.iter().enumerate() {
            for some in offer.sockets.chunks(MOST_FILES) {
                let (role, address) = (offer.role, offer.written.clone());
                let message = ToChild::Sockets { index, role, address, held: offer.held, file: offer.file };
                let files: Vec<_> = some.iter().map(AsFd::as_fd).collect();
                self.channel.send(&encode(&message)?, &files).map_err(late)?;
            }
        }
        self.channel.send(&encode(&ToChild::Begin { document: launch.document.clone() })?, &[]).map_err(late)?;
        let left = until.saturating_duration_since(now()).max(Duration::from_millis(1));
        self.channel.patience(left)?;
        match self.channel.receive().map_err(late)?.map(|got| decode(&got.bytes)).transpose()? {
            Some(ToParent::Ready { taken }) => {
                self.taken = taken;
                Ok(())
            }
            Some(ToParent::Failed { why }) => Err(HandOverError::Refused(why)),
            Some(ToParent::InCharge) => Err(io::Error::from(io::ErrorKind::InvalidData).into()),
            None => Err(io::Error::from(io::ErrorKind::BrokenPipe).into()),
        }
    }

    /// Keeps the sockets as they are for as long as it lives.
    pub(crate) fn keep(mut self, unchanged: OwnedMutexGuard<()>) -> Self {
        self.unchanged = Some(unchanged);
        self
    }

    /// The id of its process.
    pub fn id(&self) -> u32 {
        self.heir.id()
    }

    /// Tells it that it is in charge from now on, and waits until it has heard it: one that is dying hears nothing.
    pub(crate) fn take_charge(&self) -> Result<(), HandOverError> {
        match self.ask_to_take_charge() {
            Ok(()) => {
                self.heir.let_go();
                Ok(())
            }
            Err(error) if is_gone(&error) => Err(self.heir.ended()),
            Err(error) => Err(error.into()),
        }
    }

    fn ask_to_take_charge(&self) -> io::Result<()> {
        self.channel.patience(HEARING)?;
        self.channel.send(&encode(&ToChild::TakeCharge)?, &[])?;
        match self.channel.receive()?.map(|got| decode(&got.bytes)).transpose()? {
            Some(ToParent::InCharge) => Ok(()),
            Some(_) => Err(io::ErrorKind::InvalidData.into()),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        // Before its end of the channel is closed: by that the process would see that it alone is left.
        self.heir.end();
    }
}

/// The process that serves, as the one sees it that is to follow.
#[derive(Debug)]
pub struct Predecessor(Channel);

/// What it leaves.
#[derive(Debug)]
pub struct Left {
    /// The process.
    pub predecessor: Predecessor,
    /// Its sockets.
    pub sockets: Inheritance,
    /// Another document than the arguments name.
    pub document: Option<PathBuf>,
}

/// How a process came to be in charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charge {
    /// The one before has left its place.
    Given,
    /// The one before has died.
    Orphaned,
}

impl Predecessor {
    /// What the process that started this one leaves to it, if it was started to follow.
    pub fn from_environment() -> io::Result<Option<Left>> {
        if std::env::var_os(VARIABLE).is_none() {
            return Ok(None);
        }
        let channel = Channel::given(io::stdin().as_fd().try_clone_to_owned()?)?;
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        channel.patience(STEP)?;
        let mut all: Vec<Legacy> = Vec::new();
        loop {
            let Some(got) = channel.receive()? else { return Err(io::ErrorKind::UnexpectedEof.into()) };
            match decode(&got.bytes)? {
                ToChild::Sockets { index, role, address, held, file } => match all.get_mut(index) {
                    Some(legacy) => legacy.sockets.extend(got.files),
                    None => all.push(Legacy { role, written: address, held, file, sockets: got.files }),
                },
                ToChild::Begin { document } => {
                    let (predecessor, sockets) = (Self(channel), Inheritance::new(all));
                    return Ok(Some(Left { predecessor, sockets, document }));
                }
                ToChild::TakeCharge => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }

    /// Tells that this process will not serve.
    pub fn fail(&self, why: &str) {
        let mut end = why.len().min(REASON);
        while !why.is_char_boundary(end) {
            end -= 1;
        }
        let why = why.get(..end).unwrap_or_default().to_owned();
        // If nobody hears it, it stands on standard error all the same.
        let _ = encode(&ToParent::Failed { why }).and_then(|message| self.0.send(&message, &[]));
    }

    /// Whether it has died: then nobody serves.
    pub fn is_gone(&self) -> bool {
        self.0.is_cut()
    }

    /// Tells that this process serves, and waits to be put in charge. An error means that it is not to serve.
    pub fn ready(&self, taken: Vec<usize>) -> io::Result<Charge> {
        let told = match self.tell_and_hear(&ToParent::Ready { taken }) {
            Err(error) if is_gone(&error) => None,
            told => told?,
        };
        match told {
            Some(ToChild::TakeCharge) => {
                // If that one has died since, nobody else serves.
                let _ = self.0.send(&encode(&ToParent::InCharge)?, &[]);
                Ok(Charge::Given)
            }
            // It ends a process that it does not want before it closes its end. This one runs, so the one before has died,
            // and nobody else is left to serve.
            None => {
                tracing::warn!("the process before ended without a word: this one takes its place");
                Ok(Charge::Orphaned)
            }
            Some(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "the process before did not leave its place")),
        }
    }

    fn tell_and_hear(&self, message: &ToParent) -> io::Result<Option<ToChild>> {
        self.0.send(&encode(message)?, &[])?;
        self.0.patience(STEP)?;
        self.0.receive()?.map(|got| decode(&got.bytes)).transpose()
    }
}

fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    serde_json::to_vec(message).map_err(io::Error::other)
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> io::Result<T> {
    serde_json::from_slice(bytes).map_err(io::Error::other)
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(program: &str, arguments: &[&str], patience: u64) -> HandOverError {
        let launch = Launch {
            program: program.into(),
            arguments: arguments.iter().map(OsString::from).collect(),
            document: None,
            patience: Span::from_millis(patience),
        };
        Successor::start(&launch, &[], Heir::default()).unwrap_err()
    }

    #[test]
    fn a_process_that_does_not_come_to_be_ready_is_told_of_and_ended() {
        let told = launch("/nowhere/pylon", &[], 1000).to_string();
        assert!(told.starts_with("/nowhere/pylon cannot be started"), "{told}");
        for (script, patience, why) in [
            ("exit 3", 9000, "exit status: 3"),
            ("kill -9 $$", 9000, "signal: 9"),
            ("exec <&-; exec sleep 60", 9000, "signal: 9"),
            ("exec sleep 60", 100, "within 100ms"),
        ] {
            let told = launch("/bin/sh", &["-c", script], patience).to_string();
            assert!(told.contains(why), "{script}: {told}");
        }
    }
}
