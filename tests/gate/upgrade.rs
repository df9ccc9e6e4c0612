//! Another process takes the place of the one that runs, with its sockets: nobody is refused or lost meanwhile, and where
//! the new one does not come to serve, the old one goes on. The manager of services is told, and may hand over sockets.

use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use pylon_testkit::binary::Binary;
use pylon_testkit::client::{Raw, get, request};
use pylon_testkit::command::{Outcome, program, pylon};
use pylon_testkit::http2::Http2;
use pylon_testkit::process::{Lines, Process, kill};
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{eventually, ms, until};
use pylon_testkit::websocket::{CLOSE, TEXT, WebSocket, echo};

/// A process that took over, which is no child of this one. It is killed when it is dropped.
pub(crate) struct Heir(pub(crate) u32);

impl Drop for Heir {
    fn drop(&mut self) {
        kill(self.0);
    }
}

/// A gateway that can be upgraded, before a service that answers `x` and one of WebSockets.
pub(crate) fn gate(more: &str, delay: &str) -> (Binary, Upstream, Upstream) {
    let (service, sockets) = (Upstream::named("x"), echo());
    let document = format!(
        "{more}upstreams: {{ api: {{ endpoints: [{}] }}, ws: {{ endpoints: [{}] }} }}\n\
         routes:\n  - {{ match: /ws, forward: ws, websocket: true }}\n  - {{ match: \"/{{*rest}}\", forward: api }}\n",
        service.url(),
        sockets.url()
    );
    let arguments = ["--drain-delay", delay, "--upgrade-socket", "upgrade.sock", "--state", "state"];
    (Binary::start_with(&document, &arguments, |_| {}), service, sockets)
}

pub(crate) fn upgrade(folder: &Path, more: &[&str]) -> Outcome {
    pylon(folder, [&["upgrade", "--upgrade-socket", "upgrade.sock"], more].concat())
}

/// Upgrades, and gives the new process.
pub(crate) fn upgraded(folder: &Path, more: &[&str]) -> Heir {
    let outcome = upgrade(folder, more);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let words: Vec<_> = outcome.stdout.split(' ').collect();
    Heir(words[2].parse().unwrap())
}

/// Clients that keep their connections for as long as they are told to, until `stop`; each counts its answers.
fn load(address: SocketAddr, stop: &Arc<AtomicBool>, answers: &Arc<AtomicUsize>) -> Vec<std::thread::JoinHandle<()>> {
    let kept = |stop: Arc<AtomicBool>, answers: Arc<AtomicUsize>, once: bool| {
        std::thread::spawn(move || {
            while !stop.load(SeqCst) {
                let mut client = Raw::connect(address);
                loop {
                    let answer = client.get("/");
                    assert_eq!(answer.text(), "x");
                    answers.fetch_add(1, SeqCst);
                    if once || stop.load(SeqCst) || answer.field("connection").is_some() {
                        break;
                    }
                }
            }
        })
    };
    let mut clients: Vec<_> =
        [false, false, false, true, true].map(|once| kept(Arc::clone(stop), Arc::clone(answers), once)).into();
    let (stop, answers) = (Arc::clone(stop), Arc::clone(answers));
    clients.push(std::thread::spawn(move || {
        while !stop.load(SeqCst) {
            let mut http2 = Http2::connect(address);
            // Until it is told to go: what it had asked before is answered.
            while let Ok(answer) = http2.ask("GET", &format!("http://{address}/"), &[], b"") {
                assert_eq!(answer.text(), "x");
                answers.fetch_add(1, SeqCst);
                if stop.load(SeqCst) || http2.has_ended() {
                    break;
                }
            }
        }
    }));
    clients
}

/// So many upgrades in a row under load, each with another number of workers.
fn upgrades_under_load(times: usize) {
    let (gate, _service, _sockets) = gate("workers: 2\n", "300ms");
    let (address, folder) = (gate.address(), gate.folder());
    let (stop, answers) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let clients = load(address, &stop, &answers);
    let mut heirs = Vec::new();
    for number in 0..times {
        let before = answers.load(SeqCst);
        until(ms(9000), "there is load", || answers.load(SeqCst) > before + 50);
        let mut socket = WebSocket::begin(Raw::connect(address), "/ws", &[]);
        let document = std::fs::read_to_string(folder.join("pylon.yaml")).unwrap();
        let workers = format!("workers: {}\n", number % 3 + 1);
        let rest = document.split_once('\n').unwrap().1;
        std::fs::write(folder.join("pylon.yaml"), workers + rest).unwrap();
        heirs.push(upgraded(folder, &[]));
        socket.echoes(TEXT, b"still with the one before");
        assert_eq!(socket.frame().code(), Some(1001));
        socket.send(CLOSE, &[3, 233]);
    }
    let before = answers.load(SeqCst);
    until(ms(9000), "there is load to the end", || answers.load(SeqCst) > before + 50);
    stop.store(true, SeqCst);
    for client in clients {
        client.join().expect("a client lost a request");
    }
}

#[test]
fn upgrades_under_load_lose_no_request() {
    upgrades_under_load(3);
}

#[test]
#[ignore = "takes a minute; run by `cargo xtask soak`"]
fn ten_upgrades_under_load_lose_no_request() {
    upgrades_under_load(10);
}

#[test]
fn the_process_before_ends_and_the_new_one_has_all_of_its_addresses() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate.sock");
    let more = format!("listeners: [{{ address: 127.0.0.1:0 }}, {{ address: \"unix:{}\" }}]\n", path.display());
    let (mut gate, _service, _sockets) = gate(&more, "off");
    let mode = std::fs::metadata(gate.folder().join("upgrade.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "nobody else may ask");
    let first = upgraded(gate.folder(), &[]);
    assert_eq!(gate.process.code(ms(9000)), Some(0));
    assert_eq!(get(gate.address(), "/").text(), "x");
    assert_eq!(gate.admin("/readyz").status(), 200);
    assert!(UnixStream::connect(&path).is_ok(), "the file of the Unix socket has not gone with the first");
    let second = upgraded(gate.folder(), &[]);
    until(ms(9000), "the second in a row has ended, too", || !pylon_testkit::process::runs(first.0));
    assert_eq!(get(gate.address(), "/").text(), "x");
    pylon_testkit::process::terminate(second.0);
    until(ms(9000), "the last takes the files with it", || !path.exists());
}

#[test]
fn a_failed_upgrade_leaves_the_old_one_in_charge_and_says_why() {
    let (gate, _service, _sockets) = gate("", "off");
    let folder = gate.folder();
    std::fs::write(folder.join("broken.yaml"), "routes: [{ match: /, forward: nowhere }]\n").unwrap();
    let script = |name: &str, text: &str| {
        std::fs::write(folder.join(name), format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(folder.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    script("crash", "kill -SEGV $$");
    script("hang", "exec sleep 60");
    for (arguments, why) in [
        (vec!["--document", "broken.yaml"], "nowhere"),
        (vec!["--binary", "missing"], "cannot be started"),
        (vec!["--binary", "/bin/true"], "exit status: 0"),
        (vec!["--binary", "crash"], "signal: 11"),
        (vec!["--binary", "hang", "--timeout", "200ms"], "within 200ms"),
    ] {
        let outcome = upgrade(folder, &arguments);
        assert_eq!(outcome.code, Some(1), "{arguments:?}: {}", outcome.stdout);
        assert!(outcome.stderr.contains(why), "{arguments:?}: {}", outcome.stderr);
        assert_eq!(gate.get("/").text(), "x");
        assert_eq!(gate.admin("/readyz").status(), 200);
    }
    let told = gate.admin("/api/upgrade").json();
    assert!(told["outcome"] == "failed" && told["why"].as_str().unwrap().contains("within 200ms"), "{told}");
    assert!(gate.admin("/metrics").text().contains("pylon_upgrades_total{outcome=\"failed\"} 5"));
    let _heir = upgraded(folder, &[]);
    assert_eq!(get(gate.address(), "/").text(), "x");
    // Counts are those of the process that serves.
    assert_eq!(gate.admin("/api/upgrade").json()["outcome"], "succeeded");
    let metrics = gate.admin("/metrics").text();
    assert!(metrics.contains("pylon_upgrades_total{outcome=\"succeeded\"} 1"), "{metrics}");
    assert!(metrics.contains("pylon_upgrades_total{outcome=\"failed\"} 0"), "{metrics}");
}

#[test]
fn a_new_process_that_is_killed_in_the_middle_changes_nothing() {
    let (gate, _service, _sockets) = gate("", "off");
    let folder = gate.folder().to_owned();
    std::fs::write(folder.join("slow"), "#!/bin/sh\necho $$ > pid.part; mv pid.part pid; exec sleep 60\n").unwrap();
    std::fs::set_permissions(folder.join("slow"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let asking = std::thread::spawn({
        let folder = folder.clone();
        move || upgrade(&folder, &["--binary", "slow"])
    });
    let pid = eventually(ms(9000), "the new process runs", || {
        std::fs::read_to_string(folder.join("pid")).ok()?.trim().parse().ok()
    });
    assert_eq!(gate.get("/").text(), "x");
    kill(pid);
    let outcome = asking.join().unwrap();
    assert!(outcome.code == Some(1) && outcome.stderr.contains("signal: 9"), "{}", outcome.stderr);
    assert_eq!(gate.get("/").text(), "x");
}

/// Starts `pylon run` as a manager of services does: by a shell that puts its own id where the gateway looks for it.
fn managed(folder: &Path, notify: &str, more: &[(&str, &str)], stdin: Stdio) -> (Process, Lines) {
    let script = format!("exec 3<&0; LISTEN_PID=$$ exec {} run --drain-delay off", program().display());
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &script]).current_dir(folder).env("NOTIFY_SOCKET", notify).envs(more.iter().copied());
    let mut child = command.stdin(stdin).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = Lines::read(child.stderr.take().unwrap());
    (Process::new(child), lines)
}

/// The next thing that the manager is told.
fn told(socket: &UnixDatagram) -> String {
    let mut text = [0; 256];
    let length = socket.recv(&mut text).expect("the manager is told something");
    String::from_utf8_lossy(&text[..length]).into_owned()
}

#[test]
fn a_socket_of_the_manager_is_taken_and_the_manager_is_told_of_each_step() {
    let folder = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let document = format!(
        "listeners: [{{ address: \"{address}\" }}]\nadmin: {{ enabled: false }}\nroutes: [{{ match: /, respond: 200 }}]\n"
    );
    std::fs::write(folder.path().join("pylon.yaml"), document).unwrap();
    let manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    manager.set_read_timeout(Some(ms(9000))).unwrap();
    let socket = listener.as_fd().try_clone_to_owned().unwrap();
    let variables = [("LISTEN_FDS", "1"), ("WATCHDOG_USEC", "200000")];
    let notify = folder.path().join("notify");
    let (mut process, lines) = managed(folder.path(), notify.to_str().unwrap(), &variables, Stdio::from(socket));
    // A client that comes before the gateway does waits in the manager's socket.
    let mut early = Raw::connect(address);
    early.send(request("GET", "/", &[], b""));
    assert!(told(&manager).starts_with("READY=1"), "{}", lines.text());
    assert_eq!(early.response().status(), 200);
    assert_eq!([told(&manager), told(&manager)], ["WATCHDOG=1", "WATCHDOG=1"]);
    // A process that stands still is not taken for one that is well.
    process.freeze();
    manager.set_nonblocking(true).unwrap();
    while manager.recv(&mut [0; 256]).is_ok() {}
    pylon_testkit::wait::pause(ms(400));
    assert!(manager.recv(&mut [0; 256]).is_err(), "it feeds the watchdog while it stands still");
    process.thaw();
    manager.set_nonblocking(false).unwrap();
    process.terminate();
    let stopping = (0..20).any(|_| told(&manager).starts_with("STOPPING=1"));
    assert!(stopping);
    assert_eq!(process.code(ms(9000)), Some(0));
    // Who comes now waits for the next process: the manager's socket is neither closed nor barred.
    let mut waits = Raw::connect(address);
    drop((process, lines));
    waits.send(request("GET", "/", &[], b""));
}
