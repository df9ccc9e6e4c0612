use pylon_config::load::Source;
use pylon_config::plan::PlainSecrets;

use super::*;
use crate::prepare::from_source;

const HEAD: &str = "listeners: [{ address: 127.0.0.1:0 }]\n";

fn prepared(rest: &str) -> Prepared {
    let source = Source::from_text("t.yaml", &format!("{HEAD}{rest}")).unwrap();
    from_source(source, PlainSecrets::Allowed).unwrap_or_else(|wrong| panic!("{wrong:?}"))
}

fn between(old: &str, new: &str) -> Diff {
    Diff::between(("old", &prepared(old)), ("new", &prepared(new)))
}

#[test]
fn a_document_written_otherwise_is_the_same() {
    let diff = between(
        "upstreams: { a: { endpoints: [\"http://10.0.0.1\"] } }\nroutes: [{ match: GET /x, forward: a, timeout: 1000ms }]\n",
        "routes:\n  - match: { methods: [GET], path: /x }\n    timeout: { response: 1s }\n    forward: a\nupstreams:\n  a:\n    endpoints: [http://10.0.0.1]\n",
    );
    assert_eq!(diff.changes, []);
    assert_ne!(diff.old.hash, diff.new.hash);
}

#[test]
fn a_plain_secret_that_becomes_another_is_told_and_not_shown() {
    let diff = between("admin: { token: hunter2 }\n", "admin: { token: swordfish }\n");
    assert_eq!(diff.changes.len(), 1);
    let told = format!("{diff}{}", serde_json::to_string(&diff).unwrap());
    assert!(told.matches("(a plain secret, #").count() >= 2, "{told}");
    assert!(!told.contains("hunter2") && !told.contains("swordfish"), "{told}");
    assert!(between("admin: { token: hunter2 }\n", "admin: { token: hunter2 }\n").is_empty());
}

#[test]
fn routes_that_change_places_are_told_so() {
    let diff = between(
        "routes: [{ match: /a, respond: 200 }, { match: /b, respond: 200 }]\n",
        "routes: [{ match: /b, respond: 200 }, { match: /new, respond: 200 }, { match: /a, respond: 200 }]\n",
    );
    let kinds: Vec<_> = diff.changes.iter().map(|change| (change.kind, change.id.as_str())).collect();
    assert_eq!(kinds, [(Kind::Added, "/new"), (Kind::Moved, "(order)")]);
}

#[test]
fn a_line_that_no_gateway_wrote_is_counted_however_long_it_is() {
    let same = prepared("routes: [{ match: /a, respond: 200 }]\n");
    let long = "x".repeat(3 * 1024 * 1024);
    let good =
        r#"{"time":"t","client":"10.0.0.1","method":"GET","host":"a","path":"/a","protocol":"HTTP/1.1","route":"/a"}"#;
    let log = format!("{long}\n{good}\n\n{{\"time\":1}}\n{good}");
    let traffic = traffic::replay(&same, &same, log.as_bytes()).unwrap();
    assert_eq!((traffic.requests, traffic.changed, traffic.unreadable, traffic.unlike_log), (2, 0, 3, 0));
}
