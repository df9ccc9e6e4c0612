//! One of two processes is killed in the middle of an upgrade: the other serves, and nothing is in the way of the next.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::JoinHandle;

use pylon_testkit::binary::Binary;
use pylon_testkit::client::{Raw, ask, get, request};
use pylon_testkit::command::{Outcome, program};
use pylon_testkit::process::{kill, runs};
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{eventually, ms, pause, until};
use tempfile::TempDir;

use crate::upgrade::{Heir, gate, upgrade, upgraded};

/// An upgrade whose new process has its sockets and does not come to serve before there is a file `go`.
struct Begun {
    gate: Binary,
    heir: Heir,
    asking: JoinHandle<Outcome>,
    _kept: (Upstream, Upstream, TempDir),
}

/// An upgrade that has come to the moment at which the new process serves, and the one before has not left its place yet,
/// as it stands still.
struct Between {
    gate: Binary,
    heir: Heir,
    asking: JoinHandle<Outcome>,
    _kept: (Upstream, Upstream, TempDir),
}

fn begun() -> Begun {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("gate.sock");
    let more = format!("listeners: [{{ address: 127.0.0.1:0 }}, {{ address: \"unix:{}\" }}]\n", socket.display());
    let (gate, service, sockets) = gate(&more, "off");
    let slow = format!(
        "#!/bin/sh\necho $$ > pid.part; mv pid.part pid\nwhile [ ! -e go ]; do sleep 0.01; done\nexec {} \"$@\"\n",
        program().display()
    );
    let at = |name: &str| gate.folder().join(name);
    std::fs::write(at("slow"), slow).unwrap();
    std::fs::set_permissions(at("slow"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let asking = std::thread::spawn({
        let folder = gate.folder().to_owned();
        move || upgrade(&folder, &["--binary", "slow"])
    });
    let heir = eventually(ms(9000), "the new process runs", || {
        std::fs::read_to_string(at("pid")).ok()?.trim().parse().ok().map(Heir)
    });
    // It has its sockets at once, and is waited for.
    pause(ms(200));
    Begun { gate, heir, asking, _kept: (service, sockets, folder) }
}

fn between() -> Between {
    let Begun { gate, heir, asking, _kept: kept } = begun();
    gate.process.freeze();
    std::fs::write(gate.folder().join("go"), "").unwrap();
    // The one before stands still, so whoever answers is the new one.
    assert_eq!(get(gate.address(), "/").text(), "x");
    pause(ms(200));
    Between { gate, heir, asking, _kept: kept }
}

fn ready(gate: &Binary) {
    until(ms(9000), "it is in charge", || gate.admin("/readyz").status() == 200);
    assert_eq!(get(gate.address(), "/").text(), "x");
}

#[test]
fn the_new_process_goes_on_by_itself_where_the_one_before_is_killed_while_it_is_still_loading() {
    let Begun { mut gate, heir, asking, _kept } = begun();
    gate.process.kill();
    assert_ne!(asking.join().unwrap().code, Some(0), "whoever asked is not told that it was done");
    // The sockets are on their way to the new process: whoever comes waits in their queues.
    let waiting: Vec<_> = (0..8)
        .map(|_| {
            let mut client = Raw::connect(gate.address());
            client.send(request("GET", "/", &[], b""));
            client
        })
        .collect();
    std::fs::write(gate.folder().join("go"), "").unwrap();
    for mut client in waiting {
        assert_eq!(client.response().text(), "x");
    }
    ready(&gate);
    let told = gate.admin("/api/upgrade").json();
    assert_eq!(told["outcome"], "orphaned");
    assert!(gate.admin("/metrics").text().contains("pylon_upgrades_total{outcome=\"orphaned\"} 1"));
    let next = upgraded(gate.folder(), &[]);
    until(ms(9000), "the second ends", || !runs(heir.0));
    ready(&gate);
    assert!(runs(next.0));
}

#[test]
fn nor_does_a_document_that_is_broken_by_then_keep_it_from_serving() {
    let Begun { mut gate, heir, asking, _kept } = begun();
    std::fs::write(gate.folder().join("pylon.yaml"), "routes: [").unwrap();
    gate.process.kill();
    asking.join().unwrap();
    std::fs::write(gate.folder().join("go"), "").unwrap();
    assert_eq!(get(gate.address(), "/").text(), "x");
    ready(&gate);
    assert!(gate.admin("/api/snapshot").json()["in_place_of"].is_string(), "the last good revision is served");
    assert!(runs(heir.0));
}

#[test]
fn a_gateway_that_ends_on_purpose_takes_the_process_with_it_that_was_to_follow() {
    let Begun { mut gate, heir, asking, _kept } = begun();
    gate.process.terminate();
    assert_eq!(gate.process.code(ms(9000)), Some(0));
    assert_ne!(asking.join().unwrap().code, Some(0));
    std::fs::write(gate.folder().join("go"), "").unwrap();
    until(ms(5000), "it does not serve on", || !runs(heir.0));
}

#[test]
fn the_new_process_serves_where_the_one_before_is_killed_before_it_has_left_its_place() {
    let Between { mut gate, heir, asking, _kept } = between();
    gate.process.kill();
    assert_ne!(asking.join().unwrap().code, Some(0), "whoever asked is not told that it was done");
    ready(&gate);
    until(ms(5000), "it says so", || gate.stderr().contains("this one takes its place"));
    assert!(runs(heir.0));
    // It is in charge of the sockets' files, too: another can follow it, and takes them with it at its end.
    let next = upgraded(gate.folder(), &[]);
    until(ms(9000), "the second ends", || !runs(heir.0));
    ready(&gate);
    pylon_testkit::process::terminate(next.0);
    until(ms(9000), "the third ends", || !runs(next.0));
    assert!(!gate.folder().join("upgrade.sock").exists(), "the last takes the files with it");
}

#[test]
fn the_one_before_serves_on_where_the_new_process_is_killed_as_soon_as_it_serves() {
    let Between { gate, heir, asking, _kept } = between();
    kill(heir.0);
    until(ms(5000), "it has died", || !runs(heir.0));
    gate.process.thaw();
    let outcome = asking.join().unwrap();
    assert!(outcome.code == Some(1) && outcome.stderr.contains("signal: 9"), "{}", outcome.stderr);
    ready(&gate);
    let next = upgraded(gate.folder(), &[]);
    ready(&gate);
    assert!(runs(next.0));
}

/// Nobody is left then; the next start finds files of sockets that nobody listens at.
#[test]
fn what_a_process_leaves_that_is_killed_after_an_upgrade_is_not_in_the_way_of_the_next_start() {
    let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (socket, asked) = (folder.path().join("gate.sock"), folder.path().join("upgrade.sock"));
    let document = format!(
        "listeners: [{{ address: 127.0.0.1:0 }}, {{ address: \"unix:{}\" }}]\nroutes: [{{ match: /, respond: 204 }}]\n",
        socket.display()
    );
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (asked, state) = (text(&asked), text(state.path()));
    let arguments = ["--drain-delay", "off", "--upgrade-socket", &asked, "--state", &state];
    let mut gate = Binary::start_with(&document, &arguments, |_| {});
    let outcome = pylon_testkit::command::pylon(folder.path(), ["upgrade", "--upgrade-socket", &asked]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let heir = Heir(outcome.stdout.split(' ').nth(2).unwrap().parse().unwrap());
    assert_eq!(gate.process.code(ms(9000)), Some(0));
    kill(heir.0);
    until(ms(5000), "nobody is left", || !runs(heir.0));
    assert!(socket.exists(), "the file of the socket stays behind");
    let again = Binary::start_with(&document, &arguments, |_| {});
    assert_eq!(again.get("/").status(), 204);
    assert!(UnixStream::connect(&socket).is_ok() && UnixStream::connect(&asked).is_ok());
    assert_eq!(ask(again.admin, "GET", "/api/history", &[("host", "localhost")], b"").status(), 200);
}
