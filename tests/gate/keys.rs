//! `pylon keys` and a gateway that watches what it writes; names and passwords. Failures 1 and 11.

use std::path::Path;

use pylon_testkit::binary::Binary;
use pylon_testkit::command::{Outcome, pylon};
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{ms, now, until};

fn keys(at: &Path, arguments: &[&str]) -> Outcome {
    let outcome = pylon(at, ["keys"].iter().chain(arguments));
    assert_eq!(outcome.code, Some(0), "{arguments:?}: {}", outcome.stderr);
    outcome
}

/// Makes a key in `keys.json` and gives back its id and the key itself.
fn create(at: &Path, more: &[&str]) -> (String, String) {
    let outcome = keys(at, &[&["create", "shop-app", "--store", "keys.json"], more].concat());
    let id = outcome.stderr.split_whitespace().next().unwrap().to_owned();
    (id, outcome.stdout.trim().to_owned())
}

fn document(service: &Upstream) -> String {
    format!(
        "workers: 2\nstores: {{ keys: keys.json }}\nconsumers: {{ shop-app: {{ groups: partners }} }}\n\
         upstreams: {{ api: {{ endpoints: [\"{}\"] }} }}\n\
         routes:\n  - {{ match: \"/{{*rest}}\", forward: api, api_key: x-api-key }}\n  - {{ match: /open, respond: 204 }}\n",
        service.url()
    )
}

fn status(gate: &Binary, key: &str) -> u16 {
    gate.ask("GET", "/x", &[("x-api-key", key)], b"").status()
}

#[test]
fn a_key_holds_once_it_is_made_and_no_longer_than_until_it_is_revoked() {
    let service = Upstream::named("x");
    let mut first = None;
    let gate = Binary::start_with(&document(&service), &[], |folder| first = Some(create(folder, &[])));
    let (first, key) = first.unwrap();
    assert!(key.starts_with("pk_") && key.len() == 46, "{key}");
    // Known to all workers by now.
    assert!((0..8).all(|_| status(&gate, &key) == 200));
    let (second, other) = create(gate.folder(), &["--note", "for the night"]);
    until(ms(5000), "the new key holds", || (0..4).all(|_| status(&gate, &other) == 200));
    let listed = keys(gate.folder(), &["list", "--store", "keys.json"]).stdout;
    assert!(listed.contains(&first) && listed.contains(&second) && listed.contains("for the night"), "{listed}");
    keys(gate.folder(), &["revoke", &first, "--store", "keys.json"]);
    let revoked = now();
    until(ms(5000), "the old key is out", || (0..4).all(|_| status(&gate, &key) == 401));
    assert!(revoked.elapsed() < ms(3000), "{:?}", revoked.elapsed());
    assert_eq!(status(&gate, &other), 200);
    let file = std::fs::read_to_string(gate.folder().join("keys.json")).unwrap();
    for secret in [&key, &other] {
        assert!(!file.contains(secret.as_str()) && !listed.contains(secret.as_str()));
        assert!(!gate.stdout().contains(secret.as_str()) && !gate.stderr().contains(secret.as_str()));
    }
}

#[test]
fn a_key_that_is_replaced_holds_as_long_as_is_said() {
    let service = Upstream::named("x");
    let mut first = None;
    let gate =
        Binary::start_with(&document(&service), &[], |folder| first = Some(create(folder, &["--expires", "90d"])));
    let (first, key) = first.unwrap();
    let rotated = |keep: &str, id: &str| {
        keys(gate.folder(), &["rotate", id, "--keep", keep, "--store", "keys.json"]).stdout.trim().to_owned()
    };
    let second = rotated("1h", &first);
    until(ms(5000), "both hold", || (0..4).all(|_| status(&gate, &second) == 200 && status(&gate, &key) == 200));
    let third = rotated("0s", &first);
    until(ms(5000), "the old one is out", || (0..4).all(|_| status(&gate, &key) == 401));
    assert_eq!((status(&gate, &second), status(&gate, &third)), (200, 200));
}

#[test]
fn a_file_of_keys_that_breaks_while_it_is_watched_changes_nothing_and_opens_nothing() {
    let service = Upstream::named("x");
    let mut first = None;
    let gate = Binary::start_with(&document(&service), &[], |folder| first = Some(create(folder, &[])));
    let (_, key) = first.unwrap();
    let file = gate.folder().join("keys.json");
    for broken in ["{", "{ \"keys\": [{ \"id\": 1 }] }", "null\n null"] {
        std::fs::write(&file, broken).unwrap();
        until(ms(5000), "that is told", || gate.stderr().contains("API keys cannot be read"));
        assert_eq!(
            (status(&gate, &key), status(&gate, "pk_other"), gate.get("/x").status()),
            (200, 401, 401),
            "{broken}"
        );
    }
    std::fs::remove_file(&file).unwrap();
    until(ms(5000), "that is told", || gate.stderr().contains("No such file"));
    assert_eq!((status(&gate, &key), gate.get("/x").status()), (200, 401));
    // A document that is loaded anew wants them to be there.
    let without = pylon(gate.folder(), ["check"]);
    assert_eq!(without.code, Some(2));
    assert!(without.stderr.contains("pylon keys create CONSUMER --store keys.json"), "{}", without.stderr);
}

#[test]
fn commands_that_cannot_be_meant_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |arguments: &[&str]| {
        let outcome = pylon(folder.path(), ["keys"].iter().chain(arguments));
        assert_eq!(outcome.code, Some(2), "{arguments:?}");
        outcome.stderr
    };
    assert!(refused(&["create", "a", "--expires", "soon"]).contains("`90d`"));
    assert!(refused(&["list", "--store", "none.json"]).contains("cannot read `none.json`"));
    create(folder.path(), &[]);
    assert!(refused(&["revoke", "k_none", "--store", "keys.json"]).contains("pylon keys list"));
    let printed = pylon(folder.path(), ["keys", "create", "app", "--expires", "2030-01-01"]);
    assert!(printed.stderr.contains("consumers: { app: { keys: [{ hash: \"sha256:"), "{}", printed.stderr);
}

/// The hash of `open: sesame`, at the costs of `pylon keys password`.
const HASHED: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$RbTyYYmEmF9RUWbUJq6JSQ$d3nEWhkAHt5pNUOLbH7uQmV6O539Iz1k7O5UdxZjmGM";

fn with_passwords(service: &Upstream) -> String {
    format!(
        "workers: 2\nconsumers: {{ ann: {{ basic: {{ user: ann, password: \"{HASHED}\" }} }} }}\n\
         upstreams: {{ api: {{ endpoints: [\"{}\"] }} }}\n\
         routes:\n  - {{ match: \"/{{*rest}}\", forward: api, basic: {{ realm: Back office, headers: {{ x-user: subject }} }} }}\n  - {{ match: /open, respond: 204 }}\n",
        service.url()
    )
}

#[test]
fn a_name_and_a_password_open_what_nothing_else_opens() {
    let service = Upstream::echo();
    let gate = Binary::start(&with_passwords(&service));
    // Base64 of `ann:open: sesame`, and of the same with another password, and another name.
    let (right, wrong, other) = ("YW5uOm9wZW46IHNlc2FtZQ==", "YW5uOm9wZW4gc2VzYW1l", "Ym9iOm9wZW46IHNlc2FtZQ==");
    let ask = |credential: &str| {
        gate.ask("GET", "/x", &[("authorization", &format!("Basic {credential}")), ("x-user", "root")], b"")
    };
    for _ in 0..4 {
        let answer = ask(right);
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.json()["headers"]["x-user"], "ann");
        assert!(answer.json()["headers"]["authorization"].is_null());
    }
    let refused: Vec<_> = [wrong, other, "", "****"].iter().map(|credential| ask(credential)).collect();
    for answer in &refused {
        assert_eq!(answer.status(), 401);
        assert_eq!(answer.field("www-authenticate").as_deref(), Some("Basic realm=\"Back office\", charset=\"UTF-8\""));
        assert_eq!(answer.json()["code"], "caller.invalid");
    }
    assert_eq!(gate.get("/x").json()["code"], "caller.missing");
    assert!(!gate.stdout().contains(right) && !gate.stdout().contains("sesame"));
}

#[test]
fn who_sends_wrong_passwords_in_masses_holds_up_nobody_else() {
    let service = Upstream::named("x");
    let gate = Binary::start(&with_passwords(&service));
    let floods: Vec<_> = (0..100)
        .map(|number: u32| {
            let mut raw = gate.connect();
            // Each another password, of which none is remembered.
            let credential = format!("YW5uOnRyeS{:06}", 100_000 + number);
            raw.send(pylon_testkit::client::request(
                "GET",
                "/x",
                &[("host", "a"), ("authorization", &format!("Basic {credential}"))],
                b"",
            ));
            raw
        })
        .collect();
    let began = now();
    for _ in 0..20 {
        assert_eq!(gate.get("/open").status(), 204);
    }
    assert!(began.elapsed() < ms(5000), "{:?}", began.elapsed());
    let statuses: Vec<u16> = floods.into_iter().map(|mut raw| raw.response().status()).collect();
    assert!(statuses.iter().all(|status| [401, 503].contains(status)), "{statuses:?}");
    assert!(statuses.contains(&503), "the queue has an end: {statuses:?}");
    assert_eq!(service.requests(), 0);
}
