//! Failures 45, 46 and 49: documents that cannot be used, and what is said of them; examples that do not work.
//!
//! Every bad document is refused as a whole with exit code 2 and a diagnostic that has its place; nothing is half-started.

use std::path::{Path, PathBuf};

use pylon_config::diagnostic::render_all;
use pylon_config::keys;
use pylon_config::load::Source;
use pylon_testkit::command::{Outcome, pylon};
use pylon_testkit::upstream::Upstream;
use tempfile::TempDir;

/// A folder with this document in `pylon.yaml`.
fn folder(document: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("pylon.yaml"), document).unwrap();
    folder
}

/// What `pylon check` says of a bad document. `pylon run` says the same and starts nothing.
pub(crate) fn refused(document: &str) -> String {
    let folder = folder(document);
    let check = pylon(folder.path(), ["check", "pylon.yaml"]);
    assert_eq!((check.code, check.stdout.as_str()), (Some(2), ""), "{}", check.stderr);
    let run = pylon(folder.path(), ["run", "pylon.yaml"]);
    assert_eq!(run.code, Some(2), "{}", run.stderr);
    // `check` ends with a count besides.
    assert_eq!(check.stderr.rsplit_once("\n1 error").map(|(text, _)| text.trim_end()), Some(run.stderr.trim_end()));
    check.stderr
}

const HEAD: &str = "listeners: [{ address: 127.0.0.1:0 }]\nadmin: { address: 127.0.0.1:0 }\n";

pub(crate) fn with_head(rest: &str) -> String {
    format!("{HEAD}{rest}")
}

#[test]
fn an_unknown_key_is_told_with_the_key_that_was_meant() {
    insta::assert_snapshot!(refused(&with_head(
        "routes:\n  - match: /x\n    respond: 200\n    cors: { orgins: [\"https://a.example\"] }\n"
    )), @r#"
    error: unknown key `orgins`
      ┌ pylon.yaml:6:13
     6│     cors: { orgins: ["https://a.example"] }
      │             ^^^^^^ `routes[0].cors` has no such key
      = help: did you mean `origins`?
    1 error
    "#);
}

#[test]
fn a_wrong_unit_is_told_with_one_that_is_right() {
    insta::assert_snapshot!(refused(&with_head("routes: [{ match: /x, respond: 200, request_limits: { body: 10MX } }]\n")), @r"
    error: `MX` is not a unit of size: use B, KiB, MiB, GiB, kB, MB or GB
      ┌ pylon.yaml:3:61
     3│ routes: [{ match: /x, respond: 200, request_limits: { body: 10MX } }]
      │                                                             ^^^^ `routes[0].request_limits.body`
    1 error
    ");
    insta::assert_snapshot!(refused(&with_head("upstreams: { a: { endpoints: [\"http://127.0.0.1:1\"], timeout: 10 } }\n")), @r#"
    error: `10` has no unit: write `10s`, `10ms` or `10m`
      ┌ pylon.yaml:3:63
     3│ upstreams: { a: { endpoints: ["http://127.0.0.1:1"], timeout: 10 } }
      │                                                               ^^ `upstreams.a.timeout`
    1 error
    "#);
}

#[test]
fn two_routes_for_the_same_requests_are_told_with_both_places() {
    insta::assert_snapshot!(refused(&with_head(
        "routes:\n  - { match: \"GET /users/{id}\", respond: 200 }\n  - { match: GET /other, respond: 200 }\n  - { match: \"GET /users/{name}\", respond: 404 }\n"
    )), @r#"
    error: duplicate route: `GET /users/{name}` is matched by another route already
      ┌ pylon.yaml:6:14
     6│   - { match: "GET /users/{name}", respond: 404 }
      │              ^^^^^^^^^^^^^^^^^^^ `routes[2].match`
      ┌ pylon.yaml:4:14
     4│   - { match: "GET /users/{id}", respond: 200 }
      │              ----------------- the first stands here
      = help: remove one of them, or let them differ in method, header or query
    1 error
    "#);
}

#[test]
fn an_unknown_upstream_is_told_with_the_one_that_was_meant() {
    insta::assert_snapshot!(refused(&with_head(
        "upstreams: { users: { endpoints: [http://127.0.0.1:1] } }\nroutes:\n  - match: /x\n    forward: usres\n"
    )), @r"
    error: this route forwards to an upstream that does not exist
      ┌ pylon.yaml:6:14
     6│     forward: usres
      │              ^^^^^ no upstream is named `usres`
      = help: did you mean `users` (defined at pylon.yaml:3)?
    1 error
    ");
}

#[test]
fn a_capability_that_is_not_built_is_no_key_that_does_nothing() {
    insta::assert_snapshot!(refused(&with_head("routes: [{ match: /x, respond: 200, quota: { requests: 1000 } }]\n")), @r"
    error: `quota` is not built yet
      ┌ pylon.yaml:3:37
     3│ routes: [{ match: /x, respond: 200, quota: { requests: 1000 } }]
      │                                     ^^^^^
      = help: remove it: a key that does nothing would only look as if it did
    1 error
    ");
}

#[test]
fn text_that_is_no_yaml_is_told_with_its_place() {
    insta::assert_snapshot!(refused("listeners: [{ address: 127.0.0.1:0 }\nroutes: []\n"), @r"
    error: expected `,` or `]`
      ┌ pylon.yaml:2:7
     2│ routes: []
      │       ^
      = help: between brackets, commas separate the entries, and text that contains `{`, `}`, `[`, `]` or `,` goes in quotes
    1 error
    ");
}

#[test]
fn a_document_without_a_listener_is_told_so() {
    insta::assert_snapshot!(refused("routes: []\n"), @r"
    error: there is no listener
      ┌ pylon.yaml:1:1
     1│ routes: []
      │ ^^^^^^^^^^ `listeners`
      = help: add `listeners: [{ address: 0.0.0.0:8080 }]`
    1 error
    ");
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let folder = folder(&with_head(
        "limtis: {}\nupstreams: { a: { endpoints: [ftp://x] } }\nroutes:\n  - { match: /x, forward: b, cors: { origin: x } }\n  - { macth: /y, respond: 20 }\n",
    ));
    let outcome = pylon(folder.path(), ["check", "pylon.yaml"]);
    assert_eq!(outcome.code, Some(2));
    for wrong in ["`limtis`", "ftp://x", "no upstream is named `b`", "`origin`", "`macth`"] {
        assert!(outcome.stderr.contains(wrong), "nothing of {wrong} in\n{}", outcome.stderr);
    }
}

#[test]
fn a_missing_file_or_an_empty_folder_is_fatal() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    std::fs::create_dir(folder.path().join("dangling")).unwrap();
    std::os::unix::fs::symlink("nowhere", folder.path().join("dangling/pylon.yaml")).unwrap();
    let says = |path: &str| {
        let check = pylon(folder.path(), ["check", path]);
        let run = pylon(folder.path(), ["run", path]);
        assert_eq!((check.code, run.code), (Some(2), Some(2)), "{path}");
        check.stderr
    };
    insta::assert_snapshot!(says("pylon.yaml"), @r"
    error: there is no file or folder pylon.yaml
      = help: write one, or name another: `pylon check FILE`
      = help: `pylon demo` writes a sample document and says where
    1 error
    ");
    insta::assert_snapshot!(says("empty"), @r"
    error: the folder empty holds no document
      = help: Pylon reads the files in it that end in `.yaml`, `.yml` or `.json`
    1 error
    ");
    insta::assert_snapshot!(says("dangling"), @r"
    error: there is no file or folder dangling/pylon.yaml
      = help: write one, or name another: `pylon check FILE`
      = help: `pylon demo` writes a sample document and says where
    1 error
    ");
}

#[test]
fn a_port_in_use_is_told_with_its_key_and_nothing_is_left_running() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, free) = (taken.local_addr().unwrap(), Upstream::nobody());
    let document =
        format!("listeners: [{{ address: {free} }}, {{ address: {address} }}]\nadmin: {{ address: 127.0.0.1:0 }}\n");
    let folder = folder(&document);
    let outcome = pylon(folder.path(), ["run", "pylon.yaml"]);
    assert_eq!(outcome.code, Some(2));
    let address = address.to_string();
    insta::assert_snapshot!(outcome.stderr.replace(&address, "ADDRESS"), @r"error: cannot listen on ADDRESS (listeners[1].address): Address already in use (os error 98)");
    assert!(std::net::TcpStream::connect(free).is_err());
}

#[test]
fn a_second_gateway_on_the_same_port_is_refused_and_does_not_share_it() {
    let first = pylon_testkit::binary::Binary::start("routes: [{ match: /, respond: 200 }]");
    let document = format!("listeners: [{{ address: {} }}]\nadmin: {{ address: 127.0.0.1:0 }}\n", first.address());
    let outcome = pylon(folder(&document).path(), ["run", "pylon.yaml"]);
    assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("listeners[0].address"), "{}", outcome.stderr);
    assert_eq!(first.get("/").status(), 200);
}

#[test]
fn a_document_may_be_spread_over_a_folder_and_a_clash_is_told_with_both_places() {
    let folder = folder("routes: [{ match: /a, respond: 200 }]\n");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("base.yaml", HEAD);
    write("upstreams.yml", "upstreams: { users: { endpoints: [http://127.0.0.1:1] } }\n");
    write("users.json", "{ \"routes\": [{ \"match\": \"/users\", \"forward\": \"users\" }] }");
    write("notes.txt", "not: [a document");
    let outcome = pylon(folder.path(), ["check", "."]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(outcome.stdout.contains("fine (2 routes, 1 upstream"), "{}", outcome.stdout);
    write("again.yaml", "upstreams: { users: { endpoints: [http://127.0.0.1:2] } }\n");
    let outcome = pylon(folder.path(), ["check", "."]);
    assert_eq!(outcome.code, Some(2));
    assert!(
        outcome.stderr.contains("again.yaml:1") && outcome.stderr.contains("upstreams.yml:1"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn a_check_asks_no_network_and_opens_no_socket() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let document = format!(
        "listeners: [{{ address: {} }}]\nadmin: {{ address: 127.0.0.1:0 }}\n\
         discovery: {{ dns: {{ servers: [127.0.0.1:1] }} }}\n\
         upstreams: {{ far: {{ endpoints: [http://nowhere.invalid] }}, away: {{ discover: {{ dns: nowhere.invalid:80 }} }} }}\n\
         routes: [{{ match: /, forward: far }}, {{ match: /away, forward: away }}]\n",
        taken.local_addr().unwrap()
    );
    let folder = folder(&document);
    let outcome = pylon(folder.path(), ["check"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(outcome.stdout.starts_with("pylon.yaml: fine (2 routes, 2 upstreams, document "), "{}", outcome.stdout);
}

#[test]
fn diagnostics_are_there_as_json_for_editors() {
    let folder = folder(&with_head("routes:\n  - match: /x\n    forward: usres\n"));
    let Outcome { code, stdout, .. } = pylon(folder.path(), ["check", "--format", "json", "pylon.yaml"]);
    assert_eq!(code, Some(2));
    let list: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let one = &list[0];
    assert_eq!(one["severity"], "error");
    assert_eq!(one["title"], "this route forwards to an upstream that does not exist");
    assert_eq!(one["path"], "routes[0].forward");
    assert_eq!((one["place"]["file"].as_str(), one["place"]["line"].as_u64()), (Some("pylon.yaml"), Some(5)));
    assert_eq!(one["place"]["column"], 14);
    let fine = folder_check_json(&with_head("routes: [{ match: /x, respond: 200 }]\n"));
    assert_eq!(fine, serde_json::json!([]));
}

fn folder_check_json(document: &str) -> serde_json::Value {
    let folder = folder(document);
    serde_json::from_str(&pylon(folder.path(), ["check", "--format", "json"]).stdout).unwrap()
}

#[test]
fn a_route_that_can_never_match_is_a_warning() {
    let folder = folder(&with_head(
        "routes:\n  - { match: { path: /x, client: 10.0.0.0/8 }, respond: 200 }\n  - { match: { path: /x, client: 10.1.0.0/16 }, respond: 404 }\n",
    ));
    let outcome = pylon(folder.path(), ["check"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    insta::assert_snapshot!(outcome.stderr, @r"
    warning: this route can never match: `/x if client is in 10.0.0.0/8` always comes first
      ┌ pylon.yaml:5:14
     5│   - { match: { path: /x, client: 10.1.0.0/16 }, respond: 404 }
      │              ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      ┌ pylon.yaml:4:14
     4│   - { match: { path: /x, client: 10.0.0.0/8 }, respond: 200 }
      │              -------------------------------- this one comes first
    ");
}

/// The root of the project.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every file below `folder` with this ending.
pub(crate) fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|extension| extension == ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Whole documents that readers are told to copy: those in the manual's pages and the examples, each with its place.
pub(crate) fn told_documents() -> Vec<(String, String)> {
    let root = root();
    let mut documents: Vec<(String, String)> = files(&root.join("examples"), "yaml")
        .into_iter()
        .map(|path| (path.strip_prefix(&root).unwrap().display().to_string(), std::fs::read_to_string(&path).unwrap()))
        .collect();
    let pages =
        files(&root.join("docs"), "md").into_iter().chain(["README.md", "CONTRIBUTING.md"].map(|page| root.join(page)));
    for page in pages {
        let Ok(text) = std::fs::read_to_string(&page) else { continue };
        for (number, block) in text.split("\n```yaml\n").skip(1).enumerate() {
            let block = block.split("\n```").next().unwrap().to_owned() + "\n";
            if block.lines().any(|line| line.starts_with("listeners:")) {
                documents
                    .push((format!("{}, block {}", page.strip_prefix(&root).unwrap().display(), number + 1), block));
            }
        }
    }
    documents
}

#[test]
fn every_document_that_readers_are_told_to_copy_passes_the_check() {
    let documents = told_documents();
    assert!(documents.len() >= 5, "{}", documents.len());
    for (place, document) in documents {
        // Secrets are the reader's own: what a document wants from the environment or from files stands there.
        let document = document.replace("env:", "file:").lines().map(with_a_secret).collect::<Vec<_>>().join("\n");
        let folder = folder(&document);
        std::fs::write(folder.path().join("secret"), "a-secret-of-thirty-two-bytes-or-some-more").unwrap();
        std::fs::copy(root().join("examples/jwt/partner.jwks"), folder.path().join("keys")).unwrap();
        let outcome = pylon(folder.path(), ["check", "pylon.yaml"]);
        assert_eq!(outcome.code, Some(0), "{place}:\n{}", outcome.stderr);
    }
}

/// What the types themselves give as an example of each key, in the reference and in the schema.
#[test]
fn the_example_of_every_key_is_one() {
    let check = |key: &str, document: &str| {
        let source = Source::from_text(key, document).unwrap_or_else(|wrong| panic!("{}", render_all(&wrong, false)));
        let (_, wrong) = pylon_config::document::read(&source);
        assert!(wrong.is_empty(), "{key}:\n{}", render_all(&wrong, false));
    };
    for entry in keys::TOP {
        check(entry.key, entry.example);
    }
    for entry in keys::ROUTE {
        let mut route = entry.example.to_owned();
        if entry.key != "match" {
            route += "\nmatch: /x";
        }
        if !["forward", "split", "redirect", "respond"].contains(&entry.key) {
            route += if entry.key == "sticky" { "\nsplit: { a: 50%, b: 50% }" } else { "\nforward: users" };
        }
        check(entry.key, &format!("routes:\n  - {}\n", route.replace('\n', "\n    ")));
    }
}

/// The line with `file:secret` where a secret comes from elsewhere.
fn with_a_secret(line: &str) -> String {
    let Some((before, after)) = line.split_once("file:") else { return line.to_owned() };
    if after.starts_with(' ') {
        // The key `file`, not a secret.
        return line.to_owned();
    }
    let end = after.find([' ', ',', '}']).unwrap_or(after.len());
    let file = if before.ends_with("jwks: ") { "keys" } else { "secret" };
    format!("{before}file:{file}{}", &after[end..])
}
