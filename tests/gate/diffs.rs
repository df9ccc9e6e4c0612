//! Failure 45: a change is live before anybody could see what it does.

use pylon_testkit::binary::Binary;
use pylon_testkit::command::{Outcome, pylon};
use serde_json::Value;
use tempfile::TempDir;

/// A folder with both documents, and what `pylon diff` says of them.
fn diff(old: &str, new: &str, arguments: &[&str], log: &str) -> (TempDir, Outcome) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("old.yaml", old), ("new.yaml", new), ("access.log", log)] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let outcome = pylon(folder.path(), ["diff", "old.yaml", "new.yaml"].iter().chain(arguments));
    (folder, outcome)
}

const OLD: &str = "listeners: [{ address: 127.0.0.1:8080 }]
upstreams:
  users: { endpoints: [http://10.0.0.1:8080], timeout: 5s }
  staff: { endpoints: [http://10.0.0.2:8080] }
defaults:
  ip_filter: { deny: 192.0.2.0/24 }
routes:
  - match: GET /users/{id}
    name: user
    forward: users
    headers: { request: { set: { authorization: Bearer hunter2 } } }
  - match: /legacy
    respond: 410
  - match: \"/{*rest}\"
    name: rest
    split: { users: 50%, staff: 50% }
";

const NEW: &str = "listeners: [{ address: 127.0.0.1:8080 }, { address: 127.0.0.1:8081 }]
limits: { idle_timeout: 60s }
upstreams:
  users: { endpoints: [http://10.0.0.1:8080, http://10.0.0.3:8080], timeout: { response: 7s } }
  staff: { endpoints: [http://10.0.0.2:8080] }
defaults:
  ip_filter: { deny: [192.0.2.0/24, 198.51.100.0/24] }
  cors: https://shop.example
routes:
  - match: GET /users/{id}
    name: user
    forward: staff
    headers: { request: { set: { authorization: Bearer swordfish } } }
  - match: GET /users/me
    forward: users
    cors: off
  - match: \"/{*rest}\"
    name: rest
    split: { users: 60%, staff: 40% }
";

#[test]
fn what_becomes_of_streams_is_a_change() {
    let other = OLD.replace("    forward: users\n", "    forward: users\n    on_removal: close\n");
    let (_folder, outcome) = diff(OLD, &other, &[], "");
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stdout.contains("on_removal"), "{}", outcome.stdout);
}

#[test]
fn what_changes_is_told_in_words() {
    let (_folder, outcome) = diff(OLD, NEW, &[], "");
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(1), ""));
    insta::assert_snapshot!(outcome.stdout, @r#"
    --- old.yaml  9df2d0939768dc9f
    +++ new.yaml  98f4713645046a92

    + listener 127.0.0.1:8081: in cleartext

    ~ limits
        idle_timeout  1m15s → 1m

    ~ defaults
        ip_filter.deny  ["192.0.2.0/24"] → ["192.0.2.0/24","198.51.100.0/24"]  (2 routes inherit it)
        cors            (none) → {"origins":["https://shop.example"],"methods":[],"headers":[],"expose":[],"credentials":false,"max_a…  (2 routes inherit it)

    ~ upstream users
        endpoints         [{"url":"http://10.0.0.1:8080","weight":1}] → [{"url":"http://10.0.0.1:8080","weight":1},{"url":"http://10.0.0.3:8080","weight":1}]
        timeout.response  5s → 7s

    ~ route user
        forward                            users → staff
        headers.request.set.authorization  (hidden) → (hidden)

    - route /legacy: respond 410

    ~ route rest
        split.staff  50% → 40%
        split.users  50% → 60%

    + route GET /users/me: forward to users

    8 parts change
    "#);
}

#[test]
fn what_changes_is_told_as_json_without_a_secret() {
    let (_folder, outcome) = diff(OLD, NEW, &["--format", "json"], "");
    assert_eq!(outcome.code, Some(1));
    assert!(!outcome.stdout.contains("hunter2") && !outcome.stdout.contains("swordfish"), "{}", outcome.stdout);
    let told: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let changes = told["changes"].as_array().unwrap();
    let user = changes.iter().find(|change| change["id"] == "user").unwrap();
    assert_eq!((user["part"].as_str(), user["kind"].as_str()), (Some("route"), Some("changed")));
    let keys: Vec<_> = user["keys"].as_array().unwrap().iter().map(|key| key["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["forward", "headers.request.set.authorization"]);
    assert_eq!((&user["keys"][0]["old"], &user["keys"][0]["new"]), (&"users".into(), &"staff".into()));
    assert_eq!(told["traffic"], Value::Null);
}

#[test]
fn the_exit_code_is_that_of_diff() {
    let (_folder, same) = diff(OLD, &format!("# The same.\n{OLD}"), &[], "");
    assert_eq!(same.code, Some(0), "{}", same.stderr);
    assert!(same.stdout.ends_with("nothing changes: the two are written differently and mean the same\n"));
    let (_folder, broken) = diff(OLD, "routes: nonsense\n", &[], "");
    assert_eq!((broken.code, broken.stdout.as_str()), (Some(2), ""));
    assert!(broken.stderr.contains("new.yaml:1"), "{}", broken.stderr);
    let (_folder, missing) = diff(OLD, NEW, &["--log", "nowhere.log"], "");
    assert_eq!(missing.code, Some(2));
    assert!(missing.stderr.contains("cannot open the log nowhere.log"), "{}", missing.stderr);
}

#[test]
fn a_log_shows_which_requests_would_be_answered_otherwise() {
    let line = |client: &str, method: &str, path: &str, route: &str| {
        format!(
            r#"{{"time":"2026-11-24T10:00:00.000Z","id":"1","client":"{client}","method":"{method}","host":"api.example","path":"{path}","protocol":"HTTP/1.1","status":200,"route":"{route}"}}"#
        )
    };
    let mut log = vec![
        line("10.1.1.1", "GET", "/users/7?token=***", "user"),
        line("10.1.1.1", "GET", "/users/me", "user"),
        line("10.1.1.2", "GET", "/users/8", "user"),
        line("10.1.1.1", "GET", "/legacy", "/legacy"),
        "not a line".to_owned(),
        r#"{"time":"2026-11-24T10:00:00.000Z","client":"10.1.1.1","protocol":"tcp","end":"complete"}"#.to_owned(),
        line("10.1.1.1", "GET", "/somewhere/…", "rest"),
        line("10.1.1.1", "GET", "/users/9", "gone"),
    ];
    // Of the clients of a split only those change whose share does.
    log.extend((0..40).map(|n| line(&format!("10.9.0.{n}"), "POST", "/users/1", "rest")));
    let (_folder, outcome) = diff(OLD, NEW, &["--log", "access.log"], &log.join("\n"));
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(1), ""));
    let (_, told) = outcome.stdout.split_once("of 45 requests").unwrap_or_else(|| panic!("{}", outcome.stdout));
    insta::assert_snapshot!(told, @"
     in the log 45 would be answered otherwise

          19  other policies (ip_filter, cors), the upstream is set otherwise
              such as POST api.example/users/1 from 10.9.0.2 at 2026-11-24T10:00:00.000Z
              old  rest: split 50% to staff, 50% to users (to users)
              new  rest: split 40% to staff, 60% to users (to users)

          18  other policies (ip_filter, cors)
              such as POST api.example/users/1 from 10.9.0.0 at 2026-11-24T10:00:00.000Z
              old  rest: split 50% to staff, 50% to users (to staff)
              new  rest: split 40% to staff, 60% to users (to staff)

           3  other policies (ip_filter, cors), another upstream
              such as POST api.example/users/1 from 10.9.0.6 at 2026-11-24T10:00:00.000Z
              old  rest: split 50% to staff, 50% to users (to staff)
              new  rest: split 40% to staff, 60% to users (to users)

           3  other policies (ip_filter, cors, headers), another upstream
              such as GET api.example/users/7?token=*** from 10.1.1.1 at 2026-11-24T10:00:00.000Z
              old  user: forward to users
              new  user: forward to staff

           1  another route, other policies (ip_filter, cors), another upstream
              such as GET api.example/legacy from 10.1.1.1 at 2026-11-24T10:00:00.000Z
              old  /legacy: respond 410
              new  rest: split 40% to staff, 60% to users (to users)

           1  another route, other policies (ip_filter, headers), the upstream is set otherwise
              such as GET api.example/users/me from 10.1.1.1 at 2026-11-24T10:00:00.000Z
              old  user: forward to users
              new  GET /users/me: forward to users

           2  lines that could not be read, or that the log has cut
           1  lines about connections without a request
           1  requests that met another route than by the old document: it was another one, or a route looks at what the log does not tell
    ");
}

#[test]
fn the_log_of_a_gateway_can_be_read_back() {
    let document = |more: &str| {
        format!(
            "listeners: [{{ address: 127.0.0.1:0 }}]\nadmin: {{ address: 127.0.0.1:0 }}\ntelemetry: {{ access_log: {{ headers: [x-beta] }} }}\nroutes:\n  - {{ match: \"/{{*rest}}\", respond: 200 }}\n{more}"
        )
    };
    let mut gate = Binary::start(&document(""));
    for path in ["/a", "/b?q=%C3%BC", "/%62", "/..%2fx"] {
        gate.get(path);
    }
    gate.ask("GET", "/beta", &[("host", "x"), ("x-beta", "1")], b"");
    gate.logged("/beta");
    gate.end();
    let new = document("  - { match: { path: /beta, headers: { x-beta: \"1\" } }, respond: 204 }\n");
    let (_folder, outcome) = diff(&document(""), &new, &["--log", "access.log", "--format", "json"], &gate.stdout());
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    let told: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let traffic = &told["traffic"];
    assert_eq!(
        (&traffic["requests"], &traffic["changed"], &traffic["unreadable"], &traffic["unlike_log"]),
        (&5.into(), &1.into(), &0.into(), &0.into())
    );
    assert_eq!(traffic["groups"][0]["example"]["path"], "/beta");
}
