//! The program `pylon` as a command that ends: what it prints and with which code.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::process::Process;

/// How long a command may take: far more than any needs.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a command left behind.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The exit code.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it said beside that.
    pub stderr: String,
}

/// Runs `pylon` with these arguments in the folder `at`, to its end.
///
/// # Panics
/// If it does not end in 20 s.
pub fn pylon<A: AsRef<OsStr>>(at: &Path, arguments: impl IntoIterator<Item = A>) -> Outcome {
    let mut child = base(at).args(arguments).stdin(Stdio::null()).spawn().expect("pylon starts");
    let stdout = collect(child.stdout.take().unwrap());
    let stderr = collect(child.stderr.take().unwrap());
    let code = Process::new(child).code(PATIENCE);
    Outcome { code, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

/// Reads a pipe to its end in a thread of its own.
fn collect(pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || std::io::read_to_string(pipe).unwrap_or_default())
}

/// The program with output to be read and an environment that does not change it.
pub(crate) fn base(at: &Path) -> Command {
    let mut command = Command::new(program());
    command.current_dir(at).stdout(Stdio::piped()).stderr(Stdio::piped()).env("NO_COLOR", "1");
    // There is no balancer that would have to see the end coming, but where a test plays one.
    command.env("PYLON_DRAIN_DELAY", "off");
    // A test says itself when a document is read again.
    command.env("PYLON_WATCH", "off");
    for name in ["RUST_LOG", "PYLON_STATE", "STATE_DIRECTORY", "PYLON_ADMIN_TOKEN", "KUBERNETES_SERVICE_HOST"] {
        command.env_remove(name);
    }
    command
}

/// The program: what `PYLON` names, else what cargo builds in the profile of this test, once per test program.
///
/// # Panics
/// If it cannot be built.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(program) = std::env::var_os("PYLON") {
            return program.into();
        }
        // target/PROFILE/deps/THIS-TEST
        let this = std::env::current_exe().unwrap();
        let folder = this.parent().and_then(Path::parent).expect("a folder for the profile");
        let profile = match folder.file_name().and_then(OsStr::to_str) {
            Some("debug") | None => "dev",
            Some(other) => other,
        };
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let built = Command::new(cargo)
            .current_dir(root)
            .args(["build", "--quiet", "--package", "pylon-cli", "--profile", profile])
            .status()
            .expect("cargo starts");
        assert!(built.success(), "pylon does not build");
        folder.join("pylon")
    })
}

/// A program that a test needs, on the path or where Debian puts those of administrators.
///
/// # Panics
/// If it is not installed.
pub fn installed(name: &str) -> PathBuf {
    find(name).unwrap_or_else(|| panic!("{name} is not installed: run `./test --install`"))
}

/// A program on the path or where Debian puts those of administrators, if there is one.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}
