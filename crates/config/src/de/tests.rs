//! How parts of a document become values, and how what is wrong with them is told.

use std::collections::BTreeMap;

use proptest::prelude::*;
use pylon_core::short::{FromScalar, OneOrMany, Short};
use serde::Deserialize;
use serde_json::Value as Json;

use super::*;
use crate::diagnostic::render_all;
use crate::load::Source;

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    upstreams: BTreeMap<String, Upstream>,
    #[serde(default)]
    routes: Vec<Route>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Upstream {
    endpoints: Vec<String>,
    #[serde(default)]
    balance: Balance,
    timeout: Option<Span>,
}

#[derive(Debug, Deserialize, PartialEq, Default)]
#[serde(rename_all = "snake_case")]
enum Balance {
    #[default]
    RoundRobin,
    LeastRequest,
    Hash(String),
    Sticky {
        cookie: String,
    },
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Route {
    #[serde(rename = "match")]
    matching: String,
    forward: Option<String>,
    cors: Option<Cors>,
    respond: Option<Respond>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Cors {
    allow_origins: Vec<String>,
    #[serde(default)]
    credentials: bool,
    max_age: Option<Span>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Respond {
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    by_status: BTreeMap<u16, String>,
}

/// Seconds, written `10s`.
#[derive(Debug, PartialEq)]
struct Span(u64);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;
        impl de::Visitor<'_> for Written {
            type Value = Span;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a duration such as `10s`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                let seconds = text.strip_suffix('s').and_then(|number| number.parse().ok());
                seconds.map(Span).ok_or_else(|| E::custom(format!("`{text}` is not a duration such as `10s`")))
            }
        }
        deserializer.deserialize_str(Written)
    }
}

fn good<T: DeserializeOwned>(text: &str) -> T {
    let node = Node::parse(FileId::default(), "t", text).unwrap();
    read(&node).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn bad<T: DeserializeOwned>(text: &str) -> String {
    let source = Source::from_text("pylon.yaml", text).unwrap();
    let problems = read::<T>(&source.root).err().expect("this must not be readable");
    let diagnostics: Vec<_> = problems.into_iter().map(|problem| source.diagnostic(problem)).collect();
    render_all(&diagnostics, false)
}

#[test]
fn a_document_becomes_its_types() {
    let text = "
upstreams:
  users: { endpoints: [http://a:1], balance: least_request, timeout: 10s }
  orders: { endpoints: [], balance: { hash: header:x } }
  tips: { endpoints: [], balance: { sticky: { cookie: 08 } } }
routes:
  - match: GET /
    respond: { status: 204, headers: { x-debug: true, x-n: 1e3 }, by_status: { 404: none, 0x10: hex } }
    cors: null
";
    let document: Document = good(text);
    assert_eq!(document.upstreams["users"].balance, Balance::LeastRequest);
    assert_eq!(document.upstreams["users"].timeout, Some(Span(10)));
    assert_eq!(document.upstreams["orders"].balance, Balance::Hash("header:x".into()));
    assert_eq!(document.upstreams["tips"].balance, Balance::Sticky { cookie: "08".into() });
    let respond = document.routes[0].respond.as_ref().unwrap();
    assert_eq!(respond.headers["x-debug"], "true");
    assert_eq!(respond.headers["x-n"], "1e3");
    assert_eq!(respond.by_status[&16], "hex");
}

#[test]
fn all_unknown_keys_and_wrong_values_are_told_in_one_run() {
    let text = "
upstreams:
  users:
    endpoints: http://a:1
    balance: least_requests
    time_out: 10s
  orders: {}
routes:
  - match: GET /
    forwrd: users
    cors:
      allow_orgins: ['*']
      credentials: yes
      max_age: [10s]
  - match: POST /
    respond: { status: 70000 }
rotues: []
";
    insta::assert_snapshot!(bad::<Document>(text), @r#"
    error: expected a sequence, found the string "http://a:1"
      ┌ pylon.yaml:4:16
     4│     endpoints: http://a:1
      │                ^^^^^^^^^^ `upstreams.users.endpoints`

    error: `least_requests` is none of the words known here
      ┌ pylon.yaml:5:14
     5│     balance: least_requests
      │              ^^^^^^^^^^^^^^ `upstreams.users.balance`
      = help: did you mean `least_request`?

    error: unknown key `time_out`
      ┌ pylon.yaml:6:5
     6│     time_out: 10s
      │     ^^^^^^^^ `upstreams.users` has no such key
      = help: did you mean `timeout`?

    error: `endpoints` is missing
      ┌ pylon.yaml:7:11
     7│   orders: {}
      │           ^^ in `upstreams.orders`

    error: unknown key `forwrd`
      ┌ pylon.yaml:10:5
    10│     forwrd: users
      │     ^^^^^^ `routes[0]` has no such key
      = help: did you mean `forward`?

    error: unknown key `allow_orgins`
      ┌ pylon.yaml:12:7
    12│       allow_orgins: ['*']
      │       ^^^^^^^^^^^^ `routes[0].cors` has no such key
      = help: did you mean `allow_origins`?

    error: expected `true` or `false`, found the string "yes"
      ┌ pylon.yaml:13:20
    13│       credentials: yes
      │                    ^^^ `routes[0].cors.credentials`
      = help: write `true` or `false`: YAML 1.2 reads other words as text

    error: expected a duration such as `10s`, found a sequence
      ┌ pylon.yaml:14:16
    14│       max_age: [10s]
      │                ^^^^^ `routes[0].cors.max_age`

    error: expected a whole number from 0 to 65535, found `70000`
      ┌ pylon.yaml:16:24
    16│     respond: { status: 70000 }
      │                        ^^^^^ `routes[1].respond.status`

    error: unknown key `rotues`
      ┌ pylon.yaml:17:1
    17│ rotues: []
      │ ^^^^^^ the document has no such key
      = help: did you mean `routes`?
    "#);
}

#[test]
fn an_unknown_key_without_a_neighbour_lists_the_known_ones() {
    insta::assert_snapshot!(bad::<Document>("routes: [{ match: /, banana: 1 }]"), @r"
    error: unknown key `banana`
      ┌ pylon.yaml:1:22
     1│ routes: [{ match: /, banana: 1 }]
      │                      ^^^^^^ `routes[0]` has no such key
      = help: the keys known here: `match`, `forward`, `cors`, `respond`
    ");
}

#[test]
fn a_key_without_its_space_is_pointed_out() {
    insta::assert_snapshot!(bad::<Document>("routes:\n  - { match: /, forward:users }\n"), @r"
    error: unknown key `forward:users`
      ┌ pylon.yaml:2:17
     2│   - { match: /, forward:users }
      │                 ^^^^^^^^^^^^^ `routes[0]` has no such key
      = help: a space is missing after the colon: `forward: users`
    ");
    insta::assert_snapshot!(bad::<Document>("routes:\n  - match:/users\n"), @r#"
    error: expected a map, found the string "match:/users"
      ┌ pylon.yaml:2:5
     2│   - match:/users
      │     ^^^^^^^^^^^^ `routes[0]`
      = help: a space is missing after the colon: `match: /users`
    "#);
}

#[test]
fn a_missing_key_is_placed_at_its_map() {
    insta::assert_snapshot!(bad::<Document>("routes:\n  - forward: users\n    cors:\n      max_age: 3s\n"), @r"
    error: `match` is missing
      ┌ pylon.yaml:2:5
     2│   - forward: users
      │     ^^^^^^^^^^^^^^ in `routes[0]`

    error: `allow_origins` is missing
      ┌ pylon.yaml:3:5
     3│     cors:
      │     ^^^^ in `routes[0].cors`
    ");
}

#[test]
fn a_missing_key_that_was_only_misspelt_or_wrong_is_not_told_twice() {
    let text = bad::<Document>("routes:\n  - { mtach: / }\n  - { match: [] }\n");
    assert_eq!(text.matches("error:").count(), 2, "{text}");
    assert!(!text.contains("missing"), "{text}");
}

#[test]
fn an_empty_value_is_shown_at_its_key() {
    insta::assert_snapshot!(bad::<Document>("routes:\n"), @r"
    error: expected a sequence, found nothing
      ┌ pylon.yaml:1:1
     1│ routes:
      │ ^^^^^^ `routes`
    ");
}

#[test]
fn a_wrong_word_gets_the_one_that_was_meant() {
    insta::assert_snapshot!(bad::<Document>("upstreams: { a: { endpoints: [], balance: round-robn } }"), @r"
    error: `round-robn` is none of the words known here
      ┌ pylon.yaml:1:43
     1│ upstreams: { a: { endpoints: [], balance: round-robn } }
      │                                           ^^^^^^^^^^ `upstreams.a.balance`
      = help: did you mean `round_robin`?
    ");
    insta::assert_snapshot!(bad::<Document>("upstreams: { a: { endpoints: [], balance: { hsh: x } } }"), @r"
    error: `hsh` is none of the words known here
      ┌ pylon.yaml:1:45
     1│ upstreams: { a: { endpoints: [], balance: { hsh: x } } }
      │                                             ^^^ `upstreams.a.balance.hsh`
      = help: did you mean `hash`?
    ");
}

#[test]
fn variants_are_held_to_their_form() {
    insta::assert_snapshot!(bad::<Document>("upstreams: { a: { endpoints: [], balance: hash } }"), @r"
    error: `hash` needs a value: `hash: …`
      ┌ pylon.yaml:1:43
     1│ upstreams: { a: { endpoints: [], balance: hash } }
      │                                           ^^^^ `upstreams.a.balance`
    ");
    insta::assert_snapshot!(bad::<Document>("upstreams: { a: { endpoints: [], balance: { least_request: { n: 2 } } } }"), @r"
    error: `least_request` stands alone: it takes no value, but has a map
      ┌ pylon.yaml:1:60
     1│ upstreams: { a: { endpoints: [], balance: { least_request: { n: 2 } } } }
      │                                                            ^^^^^^^^ `upstreams.a.balance.least_request`
    ");
    insta::assert_snapshot!(bad::<Document>("upstreams: { a: { endpoints: [], balance: { hash: x, sticky: y } } }"), @r"
    error: expected exactly one of `round_robin`, `least_request`, `hash`, `sticky`, found `hash`, `sticky`
      ┌ pylon.yaml:1:43
     1│ upstreams: { a: { endpoints: [], balance: { hash: x, sticky: y } } }
      │                                           ^^^^^^^^^^^^^^^^^^^^^^ `upstreams.a.balance`
    ");
    insta::assert_snapshot!(bad::<Document>("upstreams: { a: { endpoints: [], balance: [hash] } }"), @r"
    error: expected one of `round_robin`, `least_request`, `hash`, `sticky`, found a sequence
      ┌ pylon.yaml:1:43
     1│ upstreams: { a: { endpoints: [], balance: [hash] } }
      │                                           ^^^^^^ `upstreams.a.balance`
    ");
    insta::assert_snapshot!(bad::<Document>("upstreams: { a: { endpoints: [], balance: { sticky: { cooky: [] } } } }"), @r"
    error: `cookie` is missing
      ┌ pylon.yaml:1:53
     1│ upstreams: { a: { endpoints: [], balance: { sticky: { cooky: [] } } } }
      │                                                     ^^^^^^^^^^^^^ in `upstreams.a.balance.sticky`
    ");
}

#[test]
fn numbers_and_booleans_in_quotes_are_strings() {
    insta::assert_snapshot!(bad::<Document>("routes: [{ match: /, respond: { status: '200' } }]"), @r#"
    error: expected a whole number from 0 to 65535, found the string "200"
      ┌ pylon.yaml:1:41
     1│ routes: [{ match: /, respond: { status: '200' } }]
      │                                         ^^^^^ `routes[0].respond.status`
      = help: take the quotes away: `200`
    "#);
    insta::assert_snapshot!(bad::<Document>("routes: [{ match: /, cors: { allow_origins: [], credentials: 'true' } }]"), @r#"
    error: expected `true` or `false`, found the string "true"
      ┌ pylon.yaml:1:62
     1│ routes: [{ match: /, cors: { allow_origins: [], credentials: 'true' } }]
      │                                                              ^^^^^^ `routes[0].cors.credentials`
      = help: take the quotes away: `true`
    "#);
}

#[test]
fn a_wrong_key_of_a_map_with_typed_keys_is_told() {
    insta::assert_snapshot!(bad::<Document>("routes: [{ match: /, respond: { status: 200, by_status: { many: x } } }]"), @r"
    error: expected a whole number from 0 to 65535, found the key `many`
      ┌ pylon.yaml:1:59
     1│ routes: [{ match: /, respond: { status: 200, by_status: { many: x } } }]
      │                                                           ^^^^ a key of `routes[0].respond.by_status`
    ");
}

#[test]
fn a_sequence_is_no_struct() {
    insta::assert_snapshot!(bad::<Document>("routes: [[/, users]]"), @r"
    error: expected a map, found a sequence
      ┌ pylon.yaml:1:10
     1│ routes: [[/, users]]
      │          ^^^^^^^^^^ `routes[0]`
    ");
}

#[test]
fn braces_without_quotes_are_no_string() {
    insta::assert_snapshot!(bad::<Document>("routes: [{ match: { id } }]"), @r"
    error: expected a string, found a map
      ┌ pylon.yaml:1:19
     1│ routes: [{ match: { id } }]
      │                   ^^^^^^ `routes[0].match`
      = help: text that begins with `{` or `[` goes in quotes
    ");
}

#[test]
fn tuples_and_arrays_want_all_their_items_and_no_more() {
    assert_eq!(good::<(u8, String)>("[1, 2]"), (1, "2".to_owned()));
    assert_eq!(good::<[i64; 2]>("[-1, 2]"), [-1, 2]);
    let problems = |text: &str| read::<(u8, u8)>(&Node::parse(FileId::default(), "t", text).unwrap()).unwrap_err();
    assert_eq!(problems("[1, 2, 3]")[0].title, "expected 2 items, found 3");
    assert_eq!(problems("[1]")[0].title, "expected a sequence of 2 items, found 1");
    assert_eq!(problems("[1, x]").len(), 1);
}

#[test]
fn all_wrong_items_of_a_sequence_are_told() {
    let node = Node::parse(FileId::default(), "t", "[1, x, 300, 4, [], -1]").unwrap();
    let problems = read_at::<Vec<u8>>(&node, &FieldPath::root().key("ports")).unwrap_err();
    let paths: Vec<_> = problems.iter().map(|problem| problem.path.to_string()).collect();
    assert_eq!(paths, ["ports[1]", "ports[2]", "ports[4]", "ports[5]"]);
    assert_eq!(problems[1].title, "expected a whole number from 0 to 255, found `300`");
}

#[test]
fn what_is_said_of_the_whole_is_kept_back_while_parts_are_wrong() {
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Loose {
        a: Option<u8>,
        b: Option<u8>,
    }
    #[derive(Debug, Deserialize)]
    #[serde(try_from = "Loose")]
    struct Either;
    impl TryFrom<Loose> for Either {
        type Error = &'static str;
        fn try_from(loose: Loose) -> Result<Self, &'static str> {
            if loose.a.is_some() == loose.b.is_some() { Err("exactly one of `a` and `b` is needed") } else { Ok(Self) }
        }
    }
    let titles = |text: &str| {
        let problems = read::<Either>(&Node::parse(FileId::default(), "t", text).unwrap()).unwrap_err();
        problems.into_iter().map(|problem| problem.title).collect::<Vec<_>>()
    };
    assert_eq!(titles("{}"), ["exactly one of `a` and `b` is needed"]);
    assert_eq!(titles("{ a: x }"), ["expected a whole number from 0 to 255, found the string \"x\""]);
    good::<Either>("{ b: 1 }");
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Rate {
    limit: u32,
    per: Option<String>,
}

impl FromScalar for Rate {
    const EXPECTING: &'static str = "a rate such as `10/s`";

    fn from_scalar(text: &str) -> Result<Self, String> {
        let limit = text.strip_suffix("/s").and_then(|limit| limit.parse().ok());
        limit.map(|limit| Self { limit, per: None }).ok_or_else(|| format!("`{text}` is not a rate such as `10/s`"))
    }
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Limits {
    rate: Short<Rate>,
    names: OneOrMany<String>,
}

#[test]
fn a_spec_may_be_written_short_or_in_full() {
    let limits: Limits = good("{ rate: 10/s, names: x }");
    assert_eq!((limits.rate.limit, limits.names.0.len()), (10, 1));
    let limits: Limits = good("{ rate: { limit: 10, per: caller }, names: [x, y] }");
    assert_eq!((limits.rate.limit, limits.names.0.len()), (10, 2));
    insta::assert_snapshot!(bad::<Limits>("rate: { limit: many, pr: caller }\nnames: { x: y }\n"), @r#"
    error: expected a whole number from 0 to 4294967295, found the string "many"
      ┌ pylon.yaml:1:16
     1│ rate: { limit: many, pr: caller }
      │                ^^^^ `rate.limit`

    error: unknown key `pr`
      ┌ pylon.yaml:1:22
     1│ rate: { limit: many, pr: caller }
      │                      ^^ `rate` has no such key
      = help: did you mean `per`?

    error: expected one value or a list of them, found a map
      ┌ pylon.yaml:2:8
     2│ names: { x: y }
      │        ^^^^^^^^ `names`
    "#);
    insta::assert_snapshot!(bad::<Limits>("rate: 10/x\nnames: []\n"), @r"
    error: `10/x` is not a rate such as `10/s`
      ┌ pylon.yaml:1:7
     1│ rate: 10/x
      │       ^^^^ `rate`
    ");
    insta::assert_snapshot!(bad::<Limits>("rate: [10/s]\nnames: [x, [y]]\n"), @r"
    error: expected a rate such as `10/s`, or a map, found a sequence
      ┌ pylon.yaml:1:7
     1│ rate: [10/s]
      │       ^^^^^^ `rate`

    error: expected a string, found a sequence
      ┌ pylon.yaml:2:12
     2│ names: [x, [y]]
      │            ^^^ `names[1]`
      = help: text that begins with `{` or `[` goes in quotes
    ");
}

#[test]
fn a_thousand_wrong_keys_end_with_the_hundredth() {
    let unknown: Vec<_> = (0..1000).map(|i| format!("unknown{i}: {{ x: 1 }}\n")).collect();
    let text = format!("match: /\n{}", unknown.concat());
    let problems = read::<Route>(&Node::parse(FileId::default(), "t", &text).unwrap()).unwrap_err();
    assert_eq!(problems.len(), MAX_PROBLEMS);
}

fn json() -> impl Strategy<Value = Json> {
    let text = prop_oneof![
        any::<String>(),
        "[ -~]{0,12}",
        Just("<<".to_owned()),
        Just("null".to_owned()),
        Just("\t\n\r".to_owned())
    ];
    let number = any::<f64>().prop_filter_map("finite", |n| serde_json::Number::from_f64(n).map(Json::Number));
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::Bool),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        number,
        text.clone().prop_map(Json::String),
    ];
    leaf.prop_recursive(6, 64, 8, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Json::Array),
            proptest::collection::vec((text.clone(), inner), 0..6)
                .prop_map(|entries| Json::Object(entries.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn json_reads_the_same_as_by_serde_json(value in json()) {
        for text in [serde_json::to_string(&value).unwrap(), serde_json::to_string_pretty(&value).unwrap()] {
            let node = Node::parse(FileId::default(), "t", &text)
                .map_err(|errors| TestCaseError::fail(format!("{text}\n{}", render_all(&errors, false))))?;
            let read: Json = read(&node).map_err(|problems| TestCaseError::fail(format!("{text}\n{problems:?}")))?;
            prop_assert_eq!(&read, &value);
        }
    }

    #[test]
    fn no_tree_panics_the_reader(value in json(), key in "upstreams|routes|match|cors|balance|x") {
        let mut map = serde_json::Map::new();
        map.insert(key, value);
        let text = serde_json::to_string(&Json::Object(map)).unwrap();
        if let Ok(source) = Source::from_text("t", &text) {
            for problems in [
                read::<Document>(&source.root).err(),
                read::<Route>(&source.root).err(),
                read::<BTreeMap<Balance2, Upstream>>(&source.root).err(),
                read::<Vec<(u8, Option<Span>)>>(&source.root).err(),
            ]
            .into_iter()
            .flatten()
            {
                prop_assert!(!problems.is_empty());
                for problem in problems {
                    source.diagnostic(problem).render(false);
                }
            }
        }
    }
}

#[derive(Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
enum Balance2 {
    Cors,
    Match,
}
