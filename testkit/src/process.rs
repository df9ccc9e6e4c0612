//! A child process: what it costs, what it says, and its end. It is killed when it is dropped.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::wait;

/// Ticks of `/proc/PID/stat` in a second: fixed by the kernel's interface.
const TICKS: u64 = 100;

/// A child that runs.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

/// The lines that a child writes, as they come.
#[derive(Debug, Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<String>>>);

impl Process {
    /// Takes a child over.
    pub fn new(child: Child) -> Self {
        Self { child }
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory, in bytes.
    ///
    /// # Panics
    /// If the process is gone.
    pub fn memory(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("the process runs");
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line VmRSS");
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Processor time so far, of all threads.
    ///
    /// # Panics
    /// If the process is gone.
    pub fn cpu(&self) -> Duration {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).expect("the process runs");
        // The name in brackets may hold blanks: fields are counted from behind it.
        let fields: Vec<&str> = text.rsplit_once(") ").unwrap().1.split(' ').collect();
        let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 1000 / TICKS)
    }

    /// How many files and sockets it holds.
    ///
    /// # Panics
    /// If the process is gone.
    pub fn files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.id())).expect("the process runs").count()
    }

    /// Whether it listens at this address of IPv4: it, and not somebody who took the port first. Who only connects cannot tell, and may
    /// even be answered by himself, where the port is one that the system gives to those who connect.
    pub fn listens(&self, address: SocketAddr) -> bool {
        let Ok(table) = std::fs::read_to_string("/proc/net/tcp") else { return false };
        // Columns of proc(5): number, own address, other address, state (0A: listening), five more, inode.
        let port = format!(":{:04X}", address.port());
        let inodes = table.lines().filter_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            (columns.get(1)?.ends_with(&port) && *columns.get(3)? == "0A").then(|| columns.get(9).copied())?
        });
        let sockets: Vec<PathBuf> = inodes.map(|inode| format!("socket:[{inode}]").into()).collect();
        let Ok(files) = std::fs::read_dir(format!("/proc/{}/fd", self.id())) else { return false };
        files.flatten().any(|file| file.path().read_link().is_ok_and(|held| sockets.contains(&held)))
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends SIGINT, as Ctrl-C does.
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// Sends SIGUSR1, by which a gateway opens its log anew.
    pub fn rotate(&self) {
        self.signal(Signal::USR1);
    }

    /// Stops it as it stands, with all of its threads; what comes for it waits.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        wait::until(Duration::from_secs(5), "all threads have stopped", || threads(self.id(), "T"));
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Sends SIGHUP, by which a gateway reads its document again.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// Ends it without a goodbye.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn signal(&self, signal: Signal) {
        send(self.id(), signal);
    }

    /// Whether it has ended, and how.
    ///
    /// # Panics
    /// If the system cannot tell.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end, for `limit` at the most, and gives its exit code; none after a signal.
    pub fn code(&mut self, limit: Duration) -> Option<i32> {
        wait::eventually(limit, "the process ends", || self.ended()).code()
    }
}

/// Whether a process with this id runs, be it a child of ours or not.
pub fn runs(id: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{id}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}

/// Whether all threads of a process are in this state.
fn threads(id: u32, state: &str) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    threads.map(|thread| std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default()).all(|stat| {
        // The name in brackets may hold blanks. A thread that has gone meanwhile is in no state.
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(state))
    })
}

/// Sends SIGKILL to a process that is no child of ours, such as one that has taken over from one.
pub fn kill(id: u32) {
    send(id, Signal::KILL);
}

/// Sends SIGTERM to one.
pub fn terminate(id: u32) {
    send(id, Signal::TERM);
}

fn send(id: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Lines {
    /// Reads lines from `from` in a thread of its own until they end.
    pub fn read(from: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let into = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
                into.0.lock().unwrap().push(String::from_utf8_lossy(&line).into_owned());
            }
        });
        lines
    }

    /// All lines so far.
    ///
    /// # Panics
    /// Never: nothing panics while it holds the lock.
    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// All lines so far, as one text.
    pub fn text(&self) -> String {
        self.all().join("\n")
    }
}
