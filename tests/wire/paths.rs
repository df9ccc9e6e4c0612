//! Failures 2 and 3: gateway and service disagree about a path, so that a guarded part is reached by another spelling of
//! it; or a rewrite opens the hole again.

use std::collections::BTreeMap;

use pylon_testkit::binary::Binary;
use pylon_testkit::client::{Raw, request};
use pylon_testkit::message::Message;
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{ms, until};

use crate::spellings::{self, is_guarded};
use crate::strict::Strict;

/// Sends `target` as it is, whatever bytes it has, on `client`, which is made anew where the gateway closed it.
fn send(gate: &Binary, client: &mut Option<Raw>, target: &str) -> Message {
    let mut raw = client.take().unwrap_or_else(|| gate.connect());
    let answer = raw.send(request("GET", target, &[], b"")).response();
    if answer.field("connection").as_deref() != Some("close") {
        *client = Some(raw);
    }
    answer
}

/// Sends every spelling; how many passed, and how many were refused. There is no third way.
fn send_all(gate: &Binary, spellings: &[String]) -> (usize, usize) {
    let mut client = None;
    let (mut passed, mut refused) = (0, 0);
    for spelling in spellings {
        match send(gate, &mut client, spelling).status() {
            200 => passed += 1,
            400 | 403 => refused += 1,
            status => panic!("{spelling:?} is answered with {status}"),
        }
    }
    (passed, refused)
}

/// The same routes for all: a guarded part, an open rest.
fn guarded(upstream: &Upstream, more: &str) -> Binary {
    Binary::start(&format!(
        "upstreams: {{ api: {{ endpoints: [{}] }} }}
routes:
  - {{ match: \"/{{*rest}}\", forward: api }}
  - {{ match: /admin, forward: api, ip_filter: {{ allow: 10.0.0.0/8 }} }}
  - {{ match: \"/admin/{{*rest}}\", forward: api, ip_filter: {{ allow: 10.0.0.0/8 }} }}
{more}",
        upstream.url()
    ))
}

/// Whether every path that the service saw stands in the log as it saw it.
fn log_agrees(gate: &Binary, strict: &Strict) {
    let count = |texts: Vec<String>| {
        texts.into_iter().fold(BTreeMap::new(), |mut map: BTreeMap<String, usize>, text| {
            *map.entry(text).or_default() += 1;
            map
        })
    };
    let seen = count(strict.targets(0));
    until(ms(5000), "the log names every path as the service saw it", || {
        let passed = gate.log().into_iter().filter(|line| line["status"] == 200);
        count(passed.map(|line| line["path"].as_str().unwrap_or_default().to_owned()).collect()) == seen
    });
}

#[test]
fn no_spelling_of_a_guarded_path_reaches_it_by_another_route() {
    let strict = Strict::start();
    let gate = guarded(&strict.upstream, "");
    let spellings = spellings::all();
    assert!(spellings.len() >= 200, "{}", spellings.len());
    let (passed, refused) = send_all(&gate, &spellings);
    for target in strict.targets(0) {
        assert!(!is_guarded(&target), "{target} reached the guarded part");
    }
    assert_eq!((strict.upstream.requests(), strict.malformed()), (passed, Vec::new()));
    assert!(passed > 20 && refused > 200, "the corpus tests nothing: {passed} passed, {refused} were refused");
    log_agrees(&gate, &strict);
}

#[test]
fn a_service_that_ignores_case_is_guarded_where_the_document_says_so() {
    let strict = Strict::start();
    let gate = guarded(&strict.upstream, "paths: { ignore_case: true }\n");
    let mut client = None;
    let spellings = spellings::in_other_cases();
    assert!(spellings.len() >= 200, "{}", spellings.len());
    let (passed, refused) = send_all(&gate, &spellings);
    for target in strict.targets(0) {
        assert!(!is_guarded(&target.to_ascii_lowercase()), "{target} reached the guarded part");
    }
    assert!(passed > 5 && refused > 200, "the corpus tests nothing: {passed} passed, {refused} were refused");
    for target in ["/Admin", "/ADMIN/x", "/%41dmin"] {
        assert_eq!(send(&gate, &mut client, target).status(), 403, "{target}");
    }
    // What passes goes on as it was written.
    assert_eq!(send(&gate, &mut client, "/Orders/A").text(), "/Orders/A");
    // Without the key, letters are told apart.
    let exact = guarded(&strict.upstream, "");
    assert_eq!(exact.get("/Admin").status(), 200);
}

#[test]
fn the_plain_spellings_are_denied_and_their_neighbours_are_not() {
    let strict = Strict::start();
    let gate = guarded(&strict.upstream, "");
    let mut client = None;
    for target in
        ["/admin", "/admin/", "/admin/x", "//admin", "/%61dmin", "/x/../admin/y", "/admin;v=1", "/./admin", "/admin?x"]
    {
        assert_eq!(send(&gate, &mut client, target).status(), 403, "{target}");
    }
    for target in ["/", "/x", "/administrator", "/admi", "/x/admin", "/adminx/..", "/x?/admin", "/%2561dmin"] {
        assert_eq!(send(&gate, &mut client, target).status(), 200, "{target}");
    }
    log_agrees(&gate, &strict);
}

#[test]
fn a_rewrite_opens_no_way_to_a_guarded_path() {
    let strict = Strict::start();
    let gate = guarded(
        &strict.upstream,
        "  - { match: \"/pub/{*rest}\", forward: api, rewrite: { strip_prefix: /pub, add_prefix: /open } }
  - { match: \"/move/{*rest}\", forward: api, rewrite: \"/open/{rest}\" }
  - { match: \"/one/{name}\", forward: api, rewrite: \"/open/{name}/end\" }
  - { match: { regex: \"/re(?<rest>.*)\" }, forward: api, rewrite: \"/open{rest}\" }
  - { match: { regex: \"/slash(?<rest>.*)\" }, forward: api, rewrite: \"/open/{rest}\" }
  - { match: { path: \"/kept/{*rest}\", encoded_slash: keep }, forward: api, rewrite: \"/open/{rest}\" }
",
    );
    let mut client = None;
    let tails = spellings::all();
    let tails = tails.iter().filter(|text| text.starts_with('/')).step_by(5).map(String::as_str);
    let more = [
        "..",
        "../admin",
        "%2e%2e/admin",
        "..%2fadmin",
        "%2e%2e%2fadmin",
        "/..%2f..%2fadmin",
        "/../admin",
        "/..;/admin",
        ".%2e/admin",
        "/%2e%2e",
        "/.",
        "/%2e/admin",
        "%2e/admin",
        "//admin",
        "/x%2f..%2f..%2fadmin",
        "/x%2F%2e%2e%2F..%2Fadmin",
        "%2f..%2f..%2fadmin",
    ];
    for tail in more.into_iter().chain(tails) {
        for prefix in ["/pub", "/move", "/one", "/re", "/slash", "/kept"] {
            let target = format!("{prefix}{tail}");
            let from = strict.upstream.requests();
            let status = send(&gate, &mut client, &target).status();
            let seen = strict.targets(from);
            assert!(matches!(status, 200 | 400 | 403), "{target} is answered with {status}");
            assert_eq!(seen.len(), usize::from(status == 200), "{target}");
            for sent in seen {
                assert!(!is_guarded(&sent), "{target} came to be {sent}");
                let segments = sent.split('?').next().unwrap().split('/').skip(1);
                let dots = segments.clone().any(|segment| matches!(segment.split(';').next(), Some("." | "..")));
                assert!(!dots, "{target} came to be {sent}, with a dot segment");
            }
        }
    }
    assert_eq!(strict.malformed(), Vec::<String>::new());
}

#[test]
fn a_prefix_that_is_stripped_leaves_no_dots_and_no_second_slash() {
    let strict = Strict::start();
    let gate = Binary::start(&format!(
        "upstreams: {{ api: {{ endpoints: [{}] }} }}
routes: [{{ match: \"/api/{{*rest}}\", forward: api, rewrite: {{ strip_prefix: /api }} }}]",
        strict.upstream.url()
    ));
    let mut client = None;
    for tail in [
        "/x", "/", "//x", "/./x", "/../x", "/%2e/x", "%2e/x", "..%2fx", "/..%2fx", "/%2fx", "/;/x", "/.%2e/x", "/x/..",
        "/x/../..", "/x//y", "\\x",
    ] {
        let status = send(&gate, &mut client, &format!("/api{tail}")).status();
        assert!(matches!(status, 200 | 400 | 404), "/api{tail}: {status}");
    }
    let targets = strict.targets(0);
    assert!(targets.len() >= 5, "{targets:?}");
    for target in targets {
        assert!(target.starts_with('/') && !target.contains("//") && !target.contains("/."), "{target}");
        assert!(!target.to_ascii_lowercase().contains("%2"), "{target}");
    }
}

#[test]
fn an_encoded_slash_is_welcome_where_the_route_says_so_and_nowhere_else() {
    let strict = Strict::start();
    let gate =
        guarded(&strict.upstream, "  - { match: { path: \"/files/{*rest}\", encoded_slash: keep }, forward: api }\n");
    let mut client = None;
    assert_eq!(send(&gate, &mut client, "/files/a%2fb").text(), "/files/a%2Fb");
    assert_eq!(send(&gate, &mut client, "/files/a%2Fb/c").text(), "/files/a%2Fb/c");
    let no = send(&gate, &mut client, "/other/a%2fb");
    assert_eq!((no.status(), no.code().as_deref()), (400, Some("request.encoded_slash")));
    for target in [
        "/files/..%2fadmin",
        "/files/x%2f..%2f..%2fadmin",
        "/files/%2f..%2fadmin",
        "/files/%2e%2e%2fadmin",
        "/files/..;%2fadmin",
        "/files%2f..%2fadmin",
    ] {
        assert_eq!(send(&gate, &mut client, target).status(), 400, "{target}");
    }
    assert!(strict.targets(0).iter().all(|target| !is_guarded(target)));
}
