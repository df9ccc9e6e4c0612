//! Failure 1: what protects a route fails open when it is broken, misspelt or half-written. Every mutation here must be
//! refused when the document is read, or leave the route closed.

use pylon_testkit::binary::{Binary, complete};
use pylon_testkit::client::ask;
use pylon_testkit::command::pylon;

/// The client of these tests comes from 127.0.0.1, which none of the documents lets in.
const FILTER: &str = "routes:
  - match: /x
    respond: 200
    ip_filter: { allow: [10.0.0.0/8], deny: [10.9.0.0/16] }
";

const DEFAULT_FILTER: &str = "defaults:
  ip_filter: { allow: [10.0.0.0/8] }
routes:
  - { match: /x, respond: 200 }
";

const PROXY: &str = "trusted_proxies: [10.0.0.0/8]
routes:
  - match: /x
    respond: 200
    ip_filter: { allow: 203.0.113.0/24 }
";

const TOKEN: &str = "admin: { address: 127.0.0.1:0, token: file:token }
routes: [{ match: /x, respond: 200 }]
";

/// What people mistype in a key.
fn misspelt(key: &str) -> Vec<String> {
    let middle = key.len() / 2;
    let mut all = vec![
        format!("{key}s"),
        format!("{key}_"),
        key.to_uppercase(),
        key[1..].to_owned(),
        key[..key.len() - 1].to_owned(),
        format!("{}{}", &key[..middle], &key[middle + 1..]),
        key.replace('_', "-"),
        format!("\"{key} \""),
    ];
    all.retain(|other| other != key);
    all
}

/// What people write instead of a value.
const VALUES: [&str; 16] = [
    "",
    "null",
    "~",
    "[]",
    "{}",
    "[null]",
    "[\"\"]",
    "\"\"",
    "true",
    "0",
    "[10.0.0.0/33]",
    "[10.0.0.1/8]",
    "[10.0.0]",
    "[internal]",
    "[*]",
    "{ networks: [10.0.0.0/8] }",
];

/// Every document that comes of mistyping one of `keys` and of writing something else for one of `values`.
fn mutations(document: &str, keys: &[&str], values: &[&str]) -> Vec<String> {
    let mut all = Vec::new();
    for key in keys {
        let written = format!("{key}:");
        assert!(document.contains(&written), "{key}");
        all.extend(misspelt(key).iter().map(|other| document.replacen(&written, &format!("{other}:"), 1)));
    }
    for value in values {
        assert!(document.contains(value), "{value}");
        all.extend(VALUES.iter().map(|other| document.replacen(value, other, 1)));
    }
    all
}

/// Whether the document is refused, with exit code 2 and a diagnostic that has a place.
fn is_refused(document: &str) -> bool {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("pylon.yaml"), complete(document)).unwrap();
    let outcome = pylon(folder.path(), ["check", "pylon.yaml"]);
    match outcome.code {
        Some(2) => {
            assert!(outcome.stderr.contains("error: ") && outcome.stderr.contains("pylon.yaml:"), "{}", outcome.stderr);
            true
        }
        Some(0) => false,
        other => panic!("exit code {other:?} for\n{document}\n{}", outcome.stderr),
    }
}

/// Wants every mutation refused, or the route closed to this client.
fn stays_closed(mutations: &[String], fields: &[(&str, &str)]) {
    let mut refused = 0;
    for document in mutations {
        if is_refused(document) {
            refused += 1;
            continue;
        }
        let status = Binary::start(document).ask("GET", "/x", fields, b"").status();
        assert!(status >= 400, "the answer is {status} by\n{document}");
    }
    assert!(refused * 10 >= mutations.len() * 7, "only {refused} of {} were refused", mutations.len());
}

#[test]
fn a_filter_that_is_misspelt_or_half_written_lets_nobody_in() {
    assert!(!is_refused(FILTER));
    let keys = ["ip_filter", "allow", "deny"];
    stays_closed(&mutations(FILTER, &keys, &["[10.0.0.0/8]", "[10.9.0.0/16]"]), &[]);
    stays_closed(&mutations(FILTER, &[], &["{ allow: [10.0.0.0/8], deny: [10.9.0.0/16] }"]), &[]);
}

#[test]
fn a_filter_for_all_routes_that_is_misspelt_lets_nobody_in() {
    assert!(!is_refused(DEFAULT_FILTER));
    stays_closed(&mutations(DEFAULT_FILTER, &["defaults", "ip_filter", "allow"], &["[10.0.0.0/8]"]), &[]);
    stays_closed(&mutations(DEFAULT_FILTER, &[], &["{ allow: [10.0.0.0/8] }"]), &[]);
}

#[test]
fn a_list_of_trusted_proxies_that_is_wrong_trusts_nobody() {
    assert!(!is_refused(PROXY));
    let mut all = mutations(PROXY, &["trusted_proxies"], &["[10.0.0.0/8]"]);
    // A list that is empty trusts nobody, and so is right.
    all.extend(mutations(PROXY, &["ip_filter", "allow"], &["203.0.113.0/24"]));
    let claims = [("x-forwarded-for", "203.0.113.9"), ("forwarded", "for=203.0.113.9"), ("x-real-ip", "203.0.113.9")];
    stays_closed(&all, &claims);
}

#[test]
fn a_token_that_is_missing_empty_or_misspelt_opens_nothing() {
    let start = |document: &str, token: Option<&str>| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pylon.yaml"), complete(document)).unwrap();
        if let Some(token) = token {
            std::fs::write(folder.path().join("token"), token).unwrap();
        }
        pylon(folder.path(), ["check", "pylon.yaml"])
    };
    assert_eq!(start(TOKEN, Some("s3cret")).code, Some(0));
    for (document, token) in [
        (TOKEN.to_owned(), None),
        (TOKEN.to_owned(), Some("")),
        (TOKEN.to_owned(), Some("\n")),
        (TOKEN.replace("file:token", "env:PYLON_TEST_TOKEN_THAT_IS_NOT_SET"), None),
        (TOKEN.replace("file:token", "s3cret-in-the-open"), None),
        (TOKEN.replace("file:token", "\"\""), None),
        (TOKEN.replace("file:token", "null"), None),
        (TOKEN.replace("file:token", "file:"), None),
        (TOKEN.replace("file:token", "env:"), None),
        (TOKEN.replace("file:token", "[]"), None),
        (TOKEN.replace("token:", "tokens:"), Some("s3cret")),
        (TOKEN.replace("token:", "Token:"), Some("s3cret")),
        (TOKEN.replace("admin:", "admins:"), Some("s3cret")),
    ] {
        let outcome = start(&document, token);
        assert_eq!(outcome.code, Some(2), "{document}\n{}", outcome.stdout);
        assert!(!outcome.stderr.contains("s3cret-in-the-open"), "a secret is printed: {}", outcome.stderr);
    }
}

#[test]
fn a_guard_in_front_of_a_broken_upstream_still_guards() {
    let gate = Binary::start(
        "upstreams: { gone: { endpoints: [http://127.0.0.1:1] } }
routes: [{ match: /x, forward: gone, ip_filter: { allow: 10.0.0.0/8 } }]",
    );
    assert_eq!(ask(gate.address(), "GET", "/x", &[], b"").status(), 403);
}
