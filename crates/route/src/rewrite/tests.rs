//! What rewrites make of paths and queries, and what they must never make.

use proptest::prelude::{Strategy, prop_assert, proptest};
use pylon_core::short::Short;

use super::*;
use crate::matching::PathMatch;
use crate::spec::MatchSpec;

fn route(json: &str) -> RouteMatch {
    let quoted = if json.starts_with('{') { json.to_owned() } else { format!("{json:?}") };
    RouteMatch::compile(&serde_json::from_str::<Short<MatchSpec>>(&quoted).unwrap()).unwrap()
}

fn compile(rewrite: &str, of: &RouteMatch) -> Result<Rewrite, Vec<String>> {
    let quoted = if rewrite.starts_with('{') { rewrite.to_owned() } else { format!("{rewrite:?}") };
    let spec = serde_json::from_str::<Short<RewriteSpec>>(&quoted).unwrap();
    Rewrite::compile(&spec, of)
        .map_err(|all| all.iter().map(|error| format!("{}: {}", error.at, error.problem)).collect())
}

/// The target for a request that comes in as `sent`; `None` if the normaliser refuses it or the route does not match.
fn target(of: &str, rewrite: &str, sent: &str) -> Option<Result<String, RewriteError>> {
    let of = route(of);
    let rewrite = compile(rewrite, &of).unwrap();
    let (path, query) = sent.split_once('?').map_or((sent, None), |(path, query)| (path, Some(query)));
    let path = normalise(path, PathRules::SERVE).ok()?;
    let captures = of.path().matches(&path, false)?;
    Some(rewrite.apply(&path, query, &captures).map(|target| target.to_string()))
}

fn becomes(of: &str, rewrite: &str, sent: &str) -> String {
    target(of, rewrite, sent).unwrap().unwrap()
}

#[test]
fn captures_go_into_the_path_as_they_stand() {
    assert_eq!(becomes("/users/{id}", "/v2/{id}", "/users/a%20b%3F?x=1"), "/v2/a%20b%3F?x=1");
    assert_eq!(becomes("/a/{x}/{*rest}", "/{*rest}/by/{x}.json", "/a/1/b/c"), "/b/c/by/1.json");
    assert_eq!(becomes("/a/{*rest}", "/v2/{rest}", "/a/"), "/v2/");
    assert_eq!(becomes(r#"{"regex": "/v(?<n>[0-9]+)/.*"}"#, "/{n}", "/v12/x"), "/12");
    assert_eq!(becomes("/a", "/caf\u{e9}:x", "/a"), "/caf%C3%A9:x");
}

#[test]
fn prefixes_are_whole_segments() {
    let strip = r#"{"strip_prefix": "/api/v1/"}"#;
    assert_eq!(becomes("/{*rest}", strip, "/api/v1/users?x"), "/users?x");
    assert_eq!(becomes("/{*rest}", strip, "/api/v1"), "/");
    assert_eq!(becomes("/{*rest}", strip, "/api/v1/"), "/");
    assert_eq!(becomes("/{*rest}", strip, "/api/v12/x"), "/api/v12/x");
    assert_eq!(becomes("/{*rest}", strip, "/api"), "/api");
    assert_eq!(becomes("/{*rest}", strip, "/api;x/v1/y"), "/y");
    assert_eq!(becomes("/{*rest}", r#"{"strip_prefix": "/a", "add_prefix": "/b/c"}"#, "/a/x/"), "/b/c/x/");
    assert_eq!(becomes("/{*rest}", r#"{"strip_prefix": "/a", "add_prefix": "/b"}"#, "/a"), "/b");
    assert_eq!(becomes("/{*rest}", r#"{"add_prefix": "/b"}"#, "/"), "/b/");
}

#[test]
fn a_query_is_changed_by_name() {
    let rewrite = r#"{"path": "/x", "query": {"set": {"id": "{id}", "a b": "1&2"}, "remove": ["secret", "k"]}}"#;
    assert_eq!(
        becomes("/users/{id}", rewrite, "/users/a%26b+c?secret=1&q=%20x&id=9&s%65cret=2&k&&z"),
        "/x?q=%20x&z&a%20b=1%262&id=a%26b%2Bc"
    );
    assert_eq!(becomes("/u/{id}", r#"{"query": {"remove": "a"}}"#, "/u/1?a=1"), "/u/1");
    assert_eq!(becomes("/u/{id}", r#"{"query": {"set": {"a": "2"}}}"#, "/u/1"), "/u/1?a=2");
}

// Failure 3: rewrites re-open the hole.

#[test]
fn a_rewrite_never_makes_dot_segments_of_what_a_client_sends() {
    let rules = [
        ("/{*rest}", r#"{"strip_prefix": "/api"}"#),
        ("/api/{*rest}", "/{rest}"),
        ("/api/{*rest}", "/v1/{rest}"),
        (r#"{"regex": "/api(?<rest>.*)"}"#, "/{rest}"),
        (r#"{"regex": "/api(?<rest>.*)"}"#, "/v1/x{rest}"),
        (r#"{"regex": "/api(?<rest>.*)"}"#, "/v1/{rest}"),
        (r#"{"regex": "/a(?<a>.)(?<b>.*)"}"#, "/{b}/{a}"),
    ];
    let sent = [
        "/api/../admin",
        "/api%2e/admin",
        "/api./admin",
        "/api../admin",
        "/api%2e%2e/admin",
        "/api..%2fadmin",
        "/api/..%2fadmin",
        "/api/%2e%2e/admin",
        "/api..;/admin",
        "/api/..;/admin",
        "/api.;x",
        "/a..",
        "/a./b",
        "/api/%252e%252e/admin",
        "/api//..//admin",
    ];
    for (of, rewrite) in rules {
        for sent in sent {
            let Some(Ok(path)) = target(of, rewrite, sent) else { continue };
            let dotted = path.split('/').any(|segment| matches!(segment.split(';').next(), Some("." | "..")));
            assert!(!dotted, "{sent} through {rewrite} becomes {path}");
            assert_eq!(normalise(&path, PathRules::SERVE).as_deref(), Ok(path.as_str()));
        }
    }
    assert_eq!(target(r#"{"regex": "/api(?<r>.*)"}"#, "/{r}", "/api../admin"), Some(Err(RewriteError::Dots)));
    assert_eq!(target(r#"{"regex": "/api(?<r>.*)"}"#, "/{r}", "/api%2e/admin"), Some(Err(RewriteError::Dots)));
    assert_eq!(target(r#"{"regex": "/api(?<r>.*)"}"#, "/v/{r}", "/api..;x/admin"), Some(Err(RewriteError::Dots)));
}

#[test]
fn halves_of_a_triplet_do_not_make_a_slash() {
    let of = r#"{"regex": "/(?<a>.*)(?<b>[0-9A-F].*)"}"#;
    assert_eq!(target(of, "/{b}%25{a}", "/x%3F"), Some(Err(RewriteError::Path(PathError::Percent))));
    let of = r#"{"regex": "/(?<a>x%2)(?<b>.)F"}"#;
    assert_eq!(target(of, "/{a}F", "/x%2AF"), Some(Err(RewriteError::EncodedSlash)));
}

#[test]
fn mistakes_in_a_rewrite_are_named() {
    let of = route("/users/{id}");
    assert_eq!(compile("{}", &of).unwrap_err(), [": the rewrite says nothing"]);
    assert_eq!(compile("/v2/{user}", &of).unwrap_err(), ["path: the match captures no `user`"]);
    assert_eq!(compile("v2", &of).unwrap_err(), ["path: `v2` does not begin with a slash"]);
    assert_eq!(compile("/v2/{id", &of).unwrap_err(), ["path: `/v2/{id`: `{` without `}`"]);
    assert_eq!(compile("/v2/id}", &of).unwrap_err(), ["path: `/v2/id}`: `}` without `{`"]);
    assert_eq!(
        compile("/v2/../x", &of).unwrap_err(),
        ["path: `/v2/../x` never works: the rewritten path has a dot segment"]
    );
    assert_eq!(
        compile(r#"{"path": "/a", "strip_prefix": "/b"}"#, &of).unwrap_err(),
        ["strip_prefix: a rewrite has either `path` or prefixes"]
    );
    assert_eq!(
        compile(r#"{"strip_prefix": "api", "host": "a b"}"#, &of).unwrap_err()[0],
        "strip_prefix: `api` is no prefix: the path does not begin with a slash"
    );
    assert_eq!(
        compile(r#"{"query": {"set": {"a": "{x}"}}}"#, &of).unwrap_err(),
        ["query.set.a: the match captures no `x`"]
    );
}

#[test]
fn a_host_is_given_to_the_upstream() {
    let of = route("/a");
    let rewrite = compile(r#"{"host": "inner.example.com:8080"}"#, &of).unwrap();
    assert_eq!(rewrite.host().unwrap(), "inner.example.com:8080");
    assert_eq!(rewrite.apply("/a", Some("b"), &Captures::default()).unwrap(), "/a?b");
}

fn sent() -> impl Strategy<Value = String> {
    let piece =
        proptest::sample::select(vec!["/", "a", "api", ".", "..", "%2e", "%2F", "%25", ";", "%", "2", "F", "x"]);
    proptest::collection::vec(piece, 0..10).prop_map(|pieces| format!("/api{}", pieces.concat()))
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2048))]

    #[test]
    fn what_a_rewrite_makes_is_in_normal_form(sent in sent()) {
        let Ok(path) = normalise(&sent, PathRules::SERVE) else { return Ok(()) };
        for (of, rewrite) in [
            (r#"{"regex": "/api(?<a>.*?)(?<b>.?)"}"#, "/{b}{a}"),
            (r#"{"regex": "/api(?<a>.*?)(?<b>.?)"}"#, "/v1{a}/{b}"),
            ("/{*rest}", r#"{"strip_prefix": "/api", "add_prefix": "/v"}"#),
        ] {
            let of = route(of);
            let rewrite = compile(rewrite, &of).unwrap();
            let Some(captures) = of.path().matches(&path, false) else { continue };
            assert!(matches!(of.path(), PathMatch::Regex(_)) || !captures.is_empty());
            if let Ok(target) = rewrite.apply(&path, None, &captures) {
                prop_assert!(target.path().split('/').all(|segment| segment != "." && segment != ".."));
                prop_assert!(matches!(normalise(target.path(), PathRules::SERVE), Ok(Cow::Borrowed(_))), "{target}");
            }
        }
    }
}
