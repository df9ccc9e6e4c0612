//! Failure 43: a restart finds nothing, or something that was never good. The history of documents, the way back to one of
//! them, and what a start serves where the document on disk cannot be used.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use pylon_testkit::binary::Binary;
use pylon_testkit::client::ask;
use pylon_testkit::command::{Outcome, program, pylon};
use pylon_testkit::wait;
use serde_json::Value;
use tempfile::TempDir;

fn says(text: &str) -> String {
    format!("workers: 1\nroutes:\n  - match: /\n    respond: {{ status: 200, body: {text} }}\n")
}

/// A gateway with this document and state folder.
fn start(document: &str, state: &TempDir) -> Binary {
    start_as(document, state, |_| {})
}

fn start_as(document: &str, state: &TempDir, prepare: impl FnOnce(&Path)) -> Binary {
    Binary::start_with(document, &["--state", state.path().to_str().unwrap()], prepare)
}

/// A command about the state folder, such as `history`.
fn command(state: &TempDir, arguments: &[&str]) -> Outcome {
    let state = ["--state", state.path().to_str().unwrap()];
    pylon(Path::new("."), arguments.iter().copied().chain(state))
}

/// The revisions by number, who and why, the newest first.
fn history(state: &TempDir) -> Vec<(u64, String, Value)> {
    let outcome = command(state, &["history", "--format", "json"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    let told: Vec<Value> = serde_json::from_str(&outcome.stdout).unwrap();
    told.iter()
        .map(|one| (one["number"].as_u64().unwrap(), one["who"].as_str().unwrap().to_owned(), one["why"].clone()))
        .collect()
}

#[test]
fn each_document_that_comes_into_force_is_a_revision_with_a_number() {
    let state = tempfile::tempdir().unwrap();
    let gate = start(&says("one"), &state);
    gate.apply(&says("two"));
    // The same again is no other document, and what is refused never was in force.
    gate.apply(&says("two"));
    gate.write("routes: nonsense\n");
    assert_eq!(gate.reload().status(), 422);
    assert_eq!(history(&state), [(2, "admin".into(), Value::Null), (1, "start".into(), Value::Null)]);
    let told = gate.admin("/api/history").json();
    assert_eq!(
        (&told[0]["number"], &told[0]["in_force"], &told[1]["in_force"]),
        (&2.into(), &true.into(), &false.into())
    );
    let snapshot = gate.admin("/api/snapshot").json();
    assert_eq!((&snapshot["revision"], &snapshot["hash"]), (&2.into(), &told[0]["hash"]));
    assert_eq!((gate.metric("pylon_config_revision"), gate.metric("pylon_config_stands_in")), (Some(2.0), Some(0.0)));
    let table = command(&state, &["history"]).stdout;
    let marks: Vec<_> = table.lines().map(|line| line.chars().take(10).collect::<String>()).collect();
    assert_eq!(marks[..3], ["revision  ", "*      2  ", "       1  "], "{table}");
    // As it was written, and for nobody else to read.
    assert!(command(&state, &["history", "show", "1"]).stdout.contains("body: one"));
    let mode = |path: &str| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(state.path().join(path)).unwrap().permissions().mode() & 0o777
    };
    assert_eq!((mode("revisions"), mode("revisions/00000001.revision")), (0o700, 0o600));
}

#[test]
fn a_secret_is_in_the_history_as_the_reference_that_it_is_in_the_document() {
    let state = tempfile::tempdir().unwrap();
    let document = "admin: { address: 127.0.0.1:0, token: file:token }\n".to_owned() + &says("one");
    let gate = start_as(&document, &state, |folder| std::fs::write(folder.join("token"), "hunter2").unwrap());
    let shown = command(&state, &["history", "show", "1", "--format", "json"]).stdout;
    assert!(shown.contains("file:token") && !shown.contains("hunter2"), "{shown}");
    // The rules of the admin API hold for the history, too.
    let unarmed = command(&state, &["rollback", "1"]);
    assert_eq!(unarmed.code, Some(2));
    assert!(unarmed.stderr.contains("demands a token"), "{}", unarmed.stderr);
    let token = gate.folder().join("token");
    let armed = command(&state, &["rollback", "1", "--token", &format!("file:{}", token.display())]);
    assert_eq!(armed.code, Some(0), "{}", armed.stderr);
    let page = [("host", "localhost"), ("origin", "https://evil.example"), ("authorization", "Bearer hunter2")];
    assert_eq!(ask(gate.admin, "POST", "/api/rollback/1", &page, b"").status(), 403);
}

#[test]
fn a_rollback_serves_at_once_and_the_next_change_of_the_file_ends_it() {
    let state = tempfile::tempdir().unwrap();
    let gate = start(&says("one"), &state);
    gate.apply(&says("two"));
    let outcome = command(&state, &["rollback", "1", "--why", "two is slow"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), "revision 3 serves: the document of revision 1\n"));
    assert!(outcome.stderr.contains("the files are left as they are"), "{}", outcome.stderr);
    assert_eq!(gate.get("/").text(), "one");
    let (number, who, why) = history(&state).swap_remove(0);
    assert_eq!((number, why), (3, "rollback to revision 1: two is slow".into()));
    assert!(who.ends_with(" by admin"), "{who}");
    let snapshot = gate.admin("/api/snapshot").json();
    assert_eq!(
        (&snapshot["revision"], &snapshot["in_place_of"]),
        (&3.into(), &"a document that was rolled back".into())
    );
    assert_eq!(gate.metric("pylon_config_stands_in"), Some(1.0));
    // A restart stays with it for as long as the file is the one that was rolled back.
    drop(gate);
    let gate = start(&says("two"), &state);
    assert_eq!(gate.get("/").text(), "one");
    assert!(gate.stderr().contains("to which was rolled back"), "{}", gate.stderr());
    gate.apply(&says("three"));
    assert_eq!((gate.get("/").text().as_str(), history(&state)[0].0), ("three", 4));
    assert_eq!(gate.metric("pylon_config_stands_in"), Some(0.0));
    let missing = command(&state, &["rollback", "99"]);
    assert_eq!(missing.code, Some(2));
    assert!(missing.stderr.contains("there is no revision 99"), "{}", missing.stderr);
}

#[test]
fn a_rollback_without_a_gateway_serves_at_the_next_start() {
    let state = tempfile::tempdir().unwrap();
    let gate = start(&says("one"), &state);
    gate.apply(&says("two"));
    let folder = gate.folder().to_owned();
    drop(gate);
    assert!(!folder.exists());
    let outcome = command(&state, &["rollback", "1"]);
    assert_eq!(outcome.stdout, "revision 3 serves at the next start: the document of revision 1\n");
    assert_eq!(start(&says("two"), &state).get("/").text(), "one");
    assert_eq!(start(&says("new"), &state).get("/").text(), "new");
}

#[test]
fn a_start_serves_the_last_good_revision_where_the_document_is_broken_or_gone_and_says_so() {
    let state = tempfile::tempdir().unwrap();
    let gate = start(&says("one"), &state);
    gate.apply(&says("two"));
    drop(gate);
    let broken = start_as("routes: nonsense\n", &state, |_| {});
    assert_eq!(broken.get("/").text(), "two");
    let log = broken.stderr();
    assert!(log.contains("THE DOCUMENT CANNOT BE USED") && log.contains("revision=2"), "{log}");
    assert!(log.contains("`routes` is a list of routes"), "the reasons are told as well: {log}");
    let (snapshot, last) = (broken.admin("/api/snapshot").json(), broken.admin("/api/reload").json());
    assert_eq!(
        (&snapshot["revision"], &snapshot["in_place_of"], &last["outcome"]),
        (&2.into(), &"a document that cannot be used".into(), &"refused".into())
    );
    assert!(last["text"].as_str().unwrap().contains("`routes` is a list of routes"), "{last}");
    assert_eq!(broken.metric("pylon_config_stands_in"), Some(1.0));
    assert_eq!(broken.metric("pylon_config_last_reload_successful"), Some(0.0));
    broken.apply(&says("three"));
    assert_eq!((broken.get("/").text().as_str(), broken.metric("pylon_config_stands_in")), ("three", Some(0.0)));
    drop(broken);
    // A revision that is damaged is passed over, and told.
    std::fs::write(state.path().join("revisions/00000003.revision"), "pylon-revision 1 9 0\n{}").unwrap();
    let gone = start_as("", &state, |folder| std::fs::remove_file(folder.join("pylon.yaml")).unwrap());
    assert_eq!(gone.get("/").text(), "two");
    assert!(gone.stderr().contains("00000003.revision is damaged"), "{}", gone.stderr());
    assert!(command(&state, &["history"]).stdout.contains("it is not as long as it was written"));
}

#[test]
fn without_a_state_folder_no_history_is_kept_and_a_broken_document_is_fatal() {
    let mut gate = Binary::start(&says("one"));
    wait::until(Duration::from_secs(5), "it is told", || gate.stderr().contains("no history of documents is kept"));
    let answer = gate.admin("/api/history");
    assert_eq!((answer.status(), gate.admin("/api/snapshot").json()["revision"].clone()), (404, Value::Null));
    assert_eq!(ask(gate.admin, "POST", "/api/rollback/1", &[("host", "localhost")], b"").status(), 404);
    assert_eq!(gate.end(), Some(0));
    let outcome = pylon(Path::new("."), ["history"]);
    assert_eq!(outcome.code, Some(2));
    assert!(outcome.stderr.contains("give `--state FOLDER`"), "{}", outcome.stderr);
}

#[test]
fn a_state_folder_that_cannot_be_written_is_told_and_what_serves_goes_on() {
    let state = tempfile::tempdir().unwrap();
    let gate = start(&says("one"), &state);
    let revisions = state.path().join("revisions");
    std::fs::remove_dir_all(&revisions).unwrap();
    std::fs::write(&revisions, "in the way").unwrap();
    gate.apply(&says("two"));
    assert_eq!(gate.get("/").text(), "two");
    assert_eq!(
        (gate.metric("pylon_config_revision"), gate.metric("pylon_config_revision_unsaved")),
        (Some(0.0), Some(1.0))
    );
    assert!(gate.stderr().contains("not in the history"), "{}", gate.stderr());
}

/// A process that writes a revision is killed at whatever it is doing, thirty times.
#[test]
fn whatever_was_acknowledged_is_whole_after_any_number_of_kills() {
    let state = tempfile::tempdir().unwrap();
    let gate = start(&says("one"), &state);
    gate.apply(&says("two"));
    drop(gate);
    let (mut newest, mut killed) = (2, 0);
    // How long a command takes when nobody kills it says when to kill the next ones.
    let begun = wait::now();
    assert_eq!(command(&state, &["rollback", "1"]).code, Some(0));
    let usual = begun.elapsed();
    for round in 0..30_u32 {
        let mut child = Command::new(program())
            .args(["rollback", if round % 2 == 0 { "2" } else { "1" }, "--state", state.path().to_str().unwrap()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait::pause(usual.mul_f64(f64::from(round) / 29.0).max(Duration::from_micros(100)));
        child.kill().unwrap();
        killed += u32::from(!child.wait().unwrap().success());
        let mut said = String::new();
        child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        let acknowledged = said.strip_prefix("revision ").and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
        newest = acknowledged.unwrap_or(newest).max(newest);
        let all = history(&state);
        assert!(all[0].0 >= newest, "{newest} was acknowledged, the newest is {}", all[0].0);
    }
    assert!(killed > 5, "the kills came too late to mean anything: {killed}");
    let all = history(&state);
    assert!(all.iter().zip(all.iter().skip(1)).all(|(newer, older)| newer.0 == older.0 + 1), "{all:?}");
    assert!(["one", "two"].contains(&start(&says("two"), &state).get("/").text().as_str()));
}
