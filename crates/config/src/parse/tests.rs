//! What the parser reads, what it refuses, and how it says so.

use proptest::prelude::*;

use super::*;
use crate::diagnostic::render_all;

fn read(text: &str) -> Node {
    parse(FileId::default(), "t.yaml", text).unwrap_or_else(|errors| panic!("{}", render_all(&errors, false)))
}

fn refused(text: &str) -> String {
    let errors = parse(FileId::default(), "t.yaml", text).expect_err(text);
    render_all(&errors, false)
}

fn slice(text: &str, span: Span) -> &str {
    &text[span.start as usize..span.end as usize]
}

#[test]
fn every_value_and_key_knows_its_place() {
    let text = "upstreams:\n  users:\n    endpoints: [http://a:1, 'b']\n# comment\nroutes:\n- match: GET /\n  n: 08\n";
    let root = read(text);
    let (key, users) = &root.get("upstreams").unwrap().entries()[0];
    assert_eq!((slice(text, key.span), key.span.line, key.span.column), ("users", 2, 3));
    let endpoints = users.get("endpoints").unwrap();
    assert_eq!(slice(text, endpoints.span), "[http://a:1, 'b']");
    assert_eq!(slice(text, endpoints.items()[1].span), "'b'");
    assert_eq!(endpoints.items()[1].value, Value::Str("b".into(), Style::Quoted));
    let route = &root.get("routes").unwrap().items()[0];
    assert_eq!(slice(text, route.span), "match: GET /\n  n: 08");
    assert_eq!(route.get("n").unwrap().text(), Some("08"));
    assert_eq!(slice(text, root.span), text.trim_end());
}

#[test]
fn a_text_without_a_value_is_null() {
    for text in ["", "\n\n", "# only a comment\n", "---\n", "~"] {
        assert_eq!(read(text).value, Value::Null, "{text:?}");
    }
}

#[test]
fn anchors_and_aliases_stand_for_their_values() {
    let root = read("a: &x { n: 1, l: [2] }\nb: *x\nc: &k word\nd: { *k : 3 }\n");
    assert_eq!(root.get("a"), root.get("b"));
    assert_eq!(root.get("d").unwrap().get("word").unwrap().value, Value::Int(3, "3".into()));
}

#[test]
fn a_key_that_stands_twice_is_an_error_that_names_both_places() {
    insta::assert_snapshot!(refused("users: 1\norders: 2\n\"users\": 3\nusers: 4\n"), @r#"
    error: the key `users` stands twice in this map
      ┌ t.yaml:3:1
     3│ "users": 3
      │ ^^^^^^^ here again
      ┌ t.yaml:1:1
     1│ users: 1
      │ ----- first here
      = help: take one of the two away; Pylon does not choose between them

    error: the key `users` stands twice in this map
      ┌ t.yaml:4:1
     4│ users: 4
      │ ^^^^^ here again
      ┌ t.yaml:1:1
     1│ users: 1
      │ ----- first here
      = help: take one of the two away; Pylon does not choose between them
    "#);
}

#[test]
fn merge_keys_and_tags_are_errors_and_the_rest_is_looked_at_too() {
    insta::assert_snapshot!(refused("a: &a { n: 1 }\nb:\n  <<: *a\n  c: !secret x\n  c: 2\n"), @r"
    error: merge keys (`<<`) are not part of the language
      ┌ t.yaml:3:3
     3│   <<: *a
      │   ^^
      = help: write the keys out; policies that many routes share may stand once under `defaults`

    error: tags (`!…`) are not part of the language
      ┌ t.yaml:4:6
     4│   c: !secret x
      │      ^^^^^^^
      = help: take the tag away; text that begins with `!` goes in quotes

    error: the key `c` stands twice in this map
      ┌ t.yaml:5:3
     5│   c: 2
      │   ^ here again
      ┌ t.yaml:4:3
     4│   c: !secret x
      │   - first here
      = help: take one of the two away; Pylon does not choose between them
    ");
}

#[test]
fn a_second_document_is_an_error() {
    insta::assert_snapshot!(refused("a: 1\n---\nb: 2\n"), @r"
    error: a file holds one document, but a second one begins here
      ┌ t.yaml:2:1
     2│ ---
      │ ^^^
      = help: take the line `---` away, or write a file for each part and give Pylon the folder
    ");
}

#[test]
fn a_tab_as_indentation_is_shown_where_it_stands() {
    insta::assert_snapshot!(refused("routes:\n  - match: /\n\tforward: users\n"), @r"
    error: a tab cannot be used as indentation
      ┌ t.yaml:3:1
     3│     forward: users
      │ ^^^^ a tab
      = help: indent with spaces, two for each level
    ");
}

#[test]
fn json_may_be_indented_with_tabs() {
    assert_eq!(
        read("{\n\t\"a\": {\n\t\t\"b\":\t\"x\ty\"\n\t}\n}\n").get("a").unwrap().get("b").unwrap().text(),
        Some("x\ty")
    );
}

#[test]
fn a_missing_space_after_a_colon_is_pointed_out() {
    insta::assert_snapshot!(refused("listeners:\n  - address:0.0.0.0\n    tls: {}\n"), @r"
    error: a key cannot stand here
      ┌ t.yaml:3:8
     3│     tls: {}
      │        ^
      = help: if `address` in line 2 is a key, a space is missing after its colon: `address: 0.0.0.0`
    ");
}

#[test]
fn a_star_without_quotes_is_pointed_out() {
    insta::assert_snapshot!(refused("host: *.example.com\n"), @r#"
    error: no anchor before this has that name
      ┌ t.yaml:1:7
     1│ host: *.example.com
      │       ^
      = help: text that begins with `*` goes in quotes: `"*.example.com"`
    "#);
    insta::assert_snapshot!(refused("allow_origins: *\n"), @r#"
    error: text without quotes cannot begin with `*` or `&`
      ┌ t.yaml:1:16
     1│ allow_origins: *
      │                ^
      = help: put the text in quotes: `"*"`
    "#);
}

#[test]
fn a_path_template_between_brackets_needs_quotes() {
    insta::assert_snapshot!(refused("match: { path: /users/{id} }\n"), @r"
    error: expected `,` or `}`
      ┌ t.yaml:1:23
     1│ match: { path: /users/{id} }
      │                       ^
      = help: between brackets, commas separate the entries, and text that contains `{`, `}`, `[`, `]` or `,` goes in quotes
    ");
}

#[test]
fn wrong_indentation_is_pointed_out() {
    insta::assert_snapshot!(refused("a:\n    b: 1\n  c: 2\n"), @r"
    error: this line does not fit into the map before it
      ┌ t.yaml:3:3
     3│   c: 2
      │   ^
      = help: look at the indentation: the keys of one map, and the dashes of one sequence, begin in the same column
    ");
    insta::assert_snapshot!(refused("a: 1\n- b\n"), @r"
    error: an item of a sequence among the keys of a map
      ┌ t.yaml:2:3
     2│ - b
      │   ^
      = help: a map has keys, a sequence has dashes: perhaps the line before needs a key, or this one fewer spaces
    ");
}

#[test]
fn a_second_colon_in_a_line_is_pointed_out() {
    insta::assert_snapshot!(refused("title: Users: all of them\n"), @r"
    error: a second `: ` in one line
      ┌ t.yaml:1:13
     1│ title: Users: all of them
      │             ^
      = help: text that contains `: ` goes in quotes
    ");
}

#[test]
fn an_unclosed_quote_and_bracket_are_pointed_out() {
    insta::assert_snapshot!(refused("a: \"x\nb: 1\n"), @r#"
    error: this quote is never closed
      ┌ t.yaml:1:4
     1│ a: "x
      │    ^
    "#);
    insta::assert_snapshot!(refused("a: [1, 2\n"), @r"
    error: this `[` is never closed
      ┌ t.yaml:1:4
     1│ a: [1, 2
      │    ^
      = help: each `{` needs its `}`, each `[` its `]`; as text they go in quotes
    ");
}

#[test]
fn other_traps_of_yaml_are_errors() {
    for text in [
        "? [a]\n: b\n",
        ": x\n",
        "a: @b\n",
        "a: `b`\n",
        "a: \"\\q\"\n",
        "a: *a\n",
        "a: &a [*a]\n",
        "a: 'it's'\n",
        "a: ]\n",
    ] {
        refused(text);
    }
}

#[test]
fn nesting_is_bounded() {
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    read(&deep(MAX_DEPTH));
    assert!(refused(&deep(MAX_DEPTH + 1)).contains("64 collections"));
    refused(&"[".repeat(100_000));
    refused(&"- ".repeat(10_000));
    // By an alias inside a collection that is deep itself.
    let text = format!("a: &a {}\nb: {}*a{}\n", deep(40), "[".repeat(40), "]".repeat(40));
    assert!(refused(&text).contains("64 collections"));
}

#[test]
fn aliases_that_name_aliases_are_bounded() {
    let level = |i: usize| format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(", "));
    let levels: Vec<_> = (1..12).map(level).collect();
    assert!(refused(&format!("a0: &a0 x\n{}", levels.concat())).contains("1000000 values"));
    let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), vec!["*a"; 100].join(", "));
    refused(&text);
}

#[test]
fn a_file_above_the_limit_is_refused() {
    assert!(refused(&"#".repeat(MAX_FILE + 1)).contains("16 MiB"));
}

#[test]
fn carriage_returns_end_lines_as_well() {
    let root = read("a: 1\r\nb:\r\n  c: 2\r\n");
    assert_eq!(root.get("b").unwrap().entry("c").unwrap().0.span.line, 3);
    assert!(refused("a: 1\r\na: 2\r\n").contains("t.yaml:2:1"));
}

/// Text that is nearly YAML.
fn scribble() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("a: "),
        Just("b:"),
        Just("\n"),
        Just("  "),
        Just("\n  "),
        Just("\n    "),
        Just("- "),
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just(", "),
        Just("\""),
        Just("'"),
        Just("&x "),
        Just("*x"),
        Just("<<: "),
        Just("!t "),
        Just("|\n"),
        Just(">-\n"),
        Just("#"),
        Just("---\n"),
        Just("...\n"),
        Just("\t"),
        Just("? "),
        Just("%YAML 1.2\n"),
        Just("1e3"),
        Just("null"),
        Just("é名"),
        Just("\u{feff}"),
        Just("\r"),
        Just("\\"),
        Just("\u{0}"),
        Just("\u{85}"),
        Just("\u{2028}"),
    ];
    proptest::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

fn check_spans(node: &Node, text: &str) {
    assert!(node.span.start <= node.span.end && node.span.end as usize <= text.len());
    assert!(text.is_char_boundary(node.span.start as usize) && text.is_char_boundary(node.span.end as usize));
    node.items().iter().for_each(|item| check_spans(item, text));
    for (key, value) in node.entries() {
        assert!(key.span.start <= key.span.end && text.get(key.span.start as usize..key.span.end as usize).is_some());
        check_spans(value, text);
    }
}

proptest! {
    #[test]
    fn no_text_panics_and_every_place_lies_in_the_text(text in prop_oneof![scribble(), any::<String>(), "[ -~\n\t]{0,200}"]) {
        match parse(FileId::default(), "t", &text) {
            Ok(node) => check_spans(&node, &text),
            Err(errors) => {
                prop_assert!(!errors.is_empty());
                prop_assert!(!render_all(&errors, true).is_empty());
            }
        }
    }
}
