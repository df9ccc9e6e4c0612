//! Starts and ends the programs of a bench: the service behind, and proxies pinned to a processor of their own.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::client::Client;
use super::machine::{self, Processors, Usage};
use super::programs::Program;
use crate::shell;

/// How long a program may take until it listens, and until it is gone.
const PATIENCE: Duration = Duration::from_secs(20);

/// The scratch folder, the processors, and the service that every proxy stands before.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) home: PathBuf,
    pub(crate) processors: Processors,
    pub(crate) backend: Running,
}

/// A program that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) program: Program,
    pub(crate) port: u16,
    child: Child,
    /// The file by which it was started.
    conf: PathBuf,
    /// What the program says, its access log among it where it logs to standard output.
    said: PathBuf,
}

impl Stage {
    /// Lays out the folder and starts the service.
    pub(crate) fn set(name: &str, processors: Processors) -> Result<Self> {
        let home = shell::scratch(name)?;
        let www = home.join("www");
        fs::create_dir_all(&www)?;
        fs::write(www.join("10k"), "k".repeat(10 * 1024))?;
        fs::write(www.join("1m"), "m".repeat(1024 * 1024))?;
        let port = free_ports(1)?.first().copied().context("no free port")?;
        let conf = configure(&home, "bench/peers/backend.conf", "backend", &ports(port, 0, 0))?;
        let backend = Running::start(Program::Nginx, &conf, port, processors.load, &home, &[])?;
        backend.wait_until_it_listens()?;
        Ok(Self { home, processors, backend })
    }

    /// Starts a proxy by one of the files in `bench/`, and waits until it listens.
    pub(crate) fn start(&self, program: Program, template: &str) -> Result<Running> {
        self.start_before(self.backend.port, program, template)
    }

    /// The same before another service.
    pub(crate) fn start_before(&self, service: u16, program: Program, template: &str) -> Result<Running> {
        let running = self.spawn_before(service, program, template, &[])?;
        running.wait_until_it_listens()?;
        Ok(running)
    }

    /// Starts a proxy and does not wait; where there are words in `under`, below that command and as one process.
    pub(crate) fn spawn(&self, program: Program, template: &str, under: &[String]) -> Result<Running> {
        self.spawn_before(self.backend.port, program, template, under)
    }

    fn spawn_before(&self, service: u16, program: Program, template: &str, under: &[String]) -> Result<Running> {
        let free = free_ports(2)?;
        let &[port, admin] = free.as_slice() else { bail!("no free ports") };
        let name = Path::new(template).file_stem().and_then(|stem| stem.to_str()).unwrap_or("proxy");
        let name = format!("{}-{name}", program.name());
        let conf = configure(&self.home, template, &name, &ports(service, port, admin))?;
        Running::start(program, &conf, port, self.processors.proxy, &self.home, under)
    }

    /// Empties the logs, so that a long bench does not fill the disk.
    pub(crate) fn empty_logs(&self) -> Result<()> {
        for entry in fs::read_dir(&self.home)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                OpenOptions::new().write(true).open(&path)?.set_len(0)?;
            }
        }
        Ok(())
    }
}

impl Running {
    fn start(
        program: Program,
        conf: &Path,
        port: u16,
        processor: usize,
        home: &Path,
        under: &[String],
    ) -> Result<Self> {
        let said = conf.with_extension("out.log");
        let out = OpenOptions::new().create(true).append(true).open(&said)?;
        out.set_len(0)?;
        let mut command = Command::new("taskset");
        command.args(["-c", &processor.to_string()]).args(under).args(program.words(conf, home, !under.is_empty())?);
        command.current_dir(home).stdin(Stdio::null()).stderr(File::try_clone(&out)?).stdout(out);
        let child = command.spawn().with_context(|| format!("cannot start {}", shell::shown(&command)))?;
        Ok(Self { program, port, child, conf: conf.to_owned(), said })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file by which it was started.
    pub(crate) fn configuration(&self) -> &Path {
        &self.conf
    }

    pub(crate) fn usage(&self) -> Result<Usage> {
        machine::usage(self.pid())
    }

    pub(crate) fn wait_until_it_listens(&self) -> Result<()> {
        self.wait_until_it_listens_for(PATIENCE)
    }

    /// The same with more patience.
    pub(crate) fn wait_until_it_listens_for(&self, patience: Duration) -> Result<()> {
        self.wait_for(Duration::from_millis(20), patience, |port| Client::connect(port).is_ok())
    }

    /// Asks until the answer is 200, and tells when that was.
    pub(crate) fn first_answer(&self, path: &str, patience: Duration) -> Result<Instant> {
        let right =
            |port| Client::connect(port).and_then(|mut client| client.get(path)).is_ok_and(|got| got.status == 200);
        self.wait_for(Duration::from_micros(500), patience, right)?;
        Ok(Instant::now())
    }

    fn wait_for(&self, step: Duration, patience: Duration, ready: impl Fn(u16) -> bool) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < patience {
            if ready(self.port) {
                return Ok(());
            }
            if !Path::new(&format!("/proc/{}/exe", self.pid())).exists() {
                break;
            }
            thread::sleep(step);
        }
        let said = fs::read_to_string(&self.said).unwrap_or_default();
        bail!("{} does not answer at port {}; it said:\n{}", self.program.name(), self.port, said.trim());
    }

    /// Asks the program to end and waits until it has; kills what does not listen.
    pub(crate) fn end(mut self) -> Result<()> {
        self.stop()
    }

    fn stop(&mut self) -> Result<()> {
        let family = machine::family(self.pid())?;
        signal("TERM", &[self.pid()])?;
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(10));
        }
        signal("KILL", &family)?;
        self.child.wait()?;
        bail!("{} did not end when asked to", self.program.name());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After `end` there is nothing left to stop; on the way out of an error nobody reads another one.
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = self.stop();
        }
    }
}

/// Signals processes that we started, each by its id.
fn signal(name: &str, pids: &[u32]) -> Result<()> {
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    let script = format!("kill -{name} {}", pids.join(" "));
    Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).status().context("cannot run sh")?;
    Ok(())
}

/// Fills in a template and writes the outcome to the scratch folder.
fn configure(home: &Path, template: &str, name: &str, words: &HashMap<&str, u16>) -> Result<PathBuf> {
    let source = shell::root()?.join(template);
    let mut text = fs::read_to_string(&source).with_context(|| format!("cannot read {}", source.display()))?;
    text = text.replace("@HOME@", &home.display().to_string());
    for (word, port) in words {
        text = text.replace(&format!("@{word}@"), &port.to_string());
    }
    let extension = source.extension().and_then(|extension| extension.to_str()).unwrap_or("conf");
    let file = home.join(format!("{name}.{extension}"));
    fs::write(&file, text)?;
    Ok(file)
}

fn ports(backend: u16, port: u16, admin: u16) -> HashMap<&'static str, u16> {
    HashMap::from([("BACKEND", backend), ("PORT", port), ("ADMIN", admin)])
}

/// Ports that nobody listens on at this moment.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    // All are held until the last is known, so that none is given twice.
    let held: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<std::io::Result<_>>()?;
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}
