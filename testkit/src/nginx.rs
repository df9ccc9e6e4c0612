//! nginx as a service behind the gateway: a real server that nobody here wrote.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::command;
use crate::process::Process;
use crate::{upstream::Upstream, wait};

/// A running nginx. It ends when it is dropped.
#[derive(Debug)]
pub struct Nginx {
    address: SocketAddr,
    folder: TempDir,
    /// Its one process.
    pub process: Process,
}

impl Nginx {
    /// Starts nginx with these lines in its `server` block. Files below the folder `root` of its prefix are served.
    ///
    /// # Panics
    /// If nginx is not installed or does not start.
    pub fn start(server: &str) -> Self {
        Self::listening("", server)
    }

    /// As [`Nginx::start`], with these words behind the address that it listens on, such as `ssl`.
    ///
    /// # Panics
    /// If nginx is not installed or does not start.
    pub fn listening(words: &str, server: &str) -> Self {
        Self::start_by(|folder, address| {
            let mut http = "access_log off;\n".to_owned();
            let at = folder.display();
            for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
                writeln!(http, "{kind}_temp_path {at}/{kind};").unwrap();
            }
            format!(
                "http {{ {http}client_max_body_size 0;\nserver {{ listen {address} {words}; root {at}/root;\n{server}\n}} }}"
            )
        })
    }

    /// Starts nginx as a balancer that passes connections on as they are, with these lines in its `server` block; none
    /// where its module for that is not there.
    pub fn stream(server: &str) -> Option<Self> {
        let module = Path::new("/usr/lib/nginx/modules/ngx_stream_module.so");
        let load = format!("load_module {};", module.display());
        module.exists().then(|| {
            Self::start_by(|_, address| format!("{load}\nstream {{ server {{ listen {address};\n{server}\n}} }}"))
        })
    }

    fn start_by(blocks: impl Fn(&Path, SocketAddr) -> String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("root")).unwrap();
        // The port is free now; where somebody else is quicker, the next one is tried.
        for _ in 0..5 {
            let address = Upstream::nobody();
            let mut process = spawn(folder.path(), &blocks(folder.path(), address));
            let up = wait::eventually(Duration::from_secs(10), "nginx listens", || match process.ended() {
                Some(_) => Some(false),
                None => process.listens(address).then_some(true),
            });
            if up {
                return Self { address, folder, process };
            }
        }
        panic!(
            "nginx does not start: {}",
            std::fs::read_to_string(folder.path().join("error.log")).unwrap_or_default()
        );
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its version, as in `1.22.1`.
    ///
    /// # Panics
    /// If it is not installed.
    pub fn version() -> String {
        let output = Command::new(command::installed("nginx")).arg("-v").output().expect("nginx runs");
        // `nginx version: nginx/1.22.1`, on standard error.
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        text.trim().rsplit('/').next().unwrap_or_default().to_owned()
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The folder whose files are served.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }
}

fn spawn(folder: &Path, blocks: &str) -> Process {
    let at = folder.display();
    // Modules have to be loaded before the events are named.
    let config = format!(
        "daemon off; master_process off; error_log {at}/error.log; pid {at}/pid;\n{blocks}\n\
         events {{ worker_connections 1024; }}\n"
    );
    std::fs::write(folder.join("nginx.conf"), config).unwrap();
    let mut command = Command::new(command::installed("nginx"));
    command.arg("-p").arg(folder).arg("-c").arg(folder.join("nginx.conf")).arg("-e").arg(folder.join("error.log"));
    Process::new(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("nginx starts"))
}
