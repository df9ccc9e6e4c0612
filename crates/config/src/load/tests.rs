//! Files and folders on their way to become one document.

use std::fs;

use super::*;
use crate::diagnostic::render_all;

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

/// What reading `path` says, with the name of the folder taken out.
fn refused(folder: &tempfile::TempDir, path: &Path) -> String {
    let errors = Source::read(path).expect_err("this must not be readable");
    render_all(&errors, false).replace(&folder.path().display().to_string(), "conf")
}

#[test]
fn a_file_is_a_document() {
    let folder = folder(&[("pylon.yaml", "\u{feff}routes: []\n")]);
    let source = Source::read(&folder.path().join("pylon.yaml")).unwrap();
    assert_eq!(source.files.len(), 1);
    assert!(source.root.get("routes").is_some());
    let place = source.place_of(source.root.get("routes").unwrap());
    assert_eq!((place.line, place.column), (1, 9));
}

#[test]
fn a_folder_is_one_document_in_the_order_of_its_names() {
    let folder = folder(&[
        ("20-more.yml", "routes: [{ match: /b }]\nupstreams: { b: {} }\nworkers: 2\n"),
        ("10-base.yaml", "routes:\n  - match: /a\nupstreams:\n  a: {}\n"),
        ("30-json.json", "{\"listeners\": [], \"upstreams\": {\"c\": {}}}"),
        (".hidden.yaml", "x: 1"),
        ("notes.txt", "x: 1"),
        ("empty.yaml", "# nothing yet\n"),
    ]);
    fs::create_dir(folder.path().join("inner.yaml")).unwrap();
    let source = Source::read(folder.path()).unwrap();
    let root = &source.root;
    let keys = |node: &Node| node.entries().iter().map(|(key, _)| key.text.to_string()).collect::<Vec<_>>();
    assert_eq!(keys(root), ["routes", "upstreams", "workers", "listeners"]);
    assert_eq!(keys(root.get("upstreams").unwrap()), ["a", "b", "c"]);
    let matches: Vec<_> = root.get("routes").unwrap().items().iter().filter_map(|route| route.get("match")).collect();
    assert_eq!(matches[1].text(), Some("/b"));
    assert!(source.place_of(matches[1]).file.ends_with("20-more.yml"));
}

#[test]
fn links_are_followed() {
    let folder = folder(&[("text", "routes: []\n")]);
    std::os::unix::fs::symlink(folder.path().join("text"), folder.path().join("a.yaml")).unwrap();
    assert!(Source::read(folder.path()).is_ok());
    std::os::unix::fs::symlink(folder.path().join("nowhere"), folder.path().join("b.yaml")).unwrap();
    insta::assert_snapshot!(refused(&folder, folder.path()), @r"
    error: there is no file or folder conf/b.yaml
      = help: write one, or name another: `pylon check FILE`
      = help: `pylon demo` writes a sample document and says where
    ");
}

#[test]
fn a_key_in_two_files_is_an_error_that_names_both_places() {
    let folder = folder(&[
        ("a.yaml", "upstreams:\n  users: {}\nworkers: 2\n"),
        ("b.yaml", "workers: 4\nupstreams:\n  orders: {}\n  users: {}\n"),
    ]);
    insta::assert_snapshot!(refused(&folder, folder.path()), @r"
    error: `workers` stands in two files
      ┌ conf/b.yaml:1:1
     1│ workers: 4
      │ ^^^^^^^ here again
      ┌ conf/a.yaml:3:1
     3│ workers: 2
      │ ------- first here
      = help: of the files of a folder none overrides another: take one of the two away

    error: `users` stands in two files
      ┌ conf/b.yaml:4:3
     4│   users: {}
      │   ^^^^^ here again
      ┌ conf/a.yaml:2:3
     2│   users: {}
      │   ----- first here
      = help: of the files of a folder none overrides another: take one of the two away
    ");
}

#[test]
fn all_files_of_a_folder_are_looked_at() {
    let folder = folder(&[("a.yaml", "a: [\n"), ("b.yaml", "- 1\n"), ("c.yaml", "a: 1\na: 2\n")]);
    let text = refused(&folder, folder.path());
    for file in ["a.yaml:", "b.yaml:1:1", "c.yaml:2:1"] {
        assert!(text.contains(file), "{text}");
    }
}

#[test]
fn what_is_not_there_is_fatal_with_help() {
    let folder = folder(&[]);
    insta::assert_snapshot!(refused(&folder, &folder.path().join("pylon.yaml")), @r"
    error: there is no file or folder conf/pylon.yaml
      = help: write one, or name another: `pylon check FILE`
      = help: `pylon demo` writes a sample document and says where
    ");
    insta::assert_snapshot!(refused(&folder, folder.path()), @r"
    error: the folder conf holds no document
      = help: Pylon reads the files in it that end in `.yaml`, `.yml` or `.json`
    ");
}

#[test]
fn an_empty_document_is_fatal_with_help() {
    let folder = folder(&[("pylon.yaml", "# to do\n")]);
    insta::assert_snapshot!(refused(&folder, &folder.path().join("pylon.yaml")), @r"
    error: conf/pylon.yaml is empty
      = help: the least is a listener and a route; `pylon demo` writes a sample
    ");
}

#[test]
fn a_document_that_is_no_map_is_an_error() {
    let errors = Source::from_text("pylon.yaml", "just text\n").unwrap_err();
    insta::assert_snapshot!(render_all(&errors, false), @r#"
    error: a document is a map of keys such as `routes:`, found the string "just text"
      ┌ pylon.yaml:1:1
     1│ just text
      │ ^^^^^^^^^
    "#);
}

#[test]
fn bytes_that_are_no_text_are_shown_where_they_stand() {
    let folder = folder(&[]);
    let path = folder.path().join("a.yaml");
    fs::write(&path, b"a: 1\nb: caf\xe9\n").unwrap();
    insta::assert_snapshot!(refused(&folder, &path), @r"
    error: this file is not UTF-8 text
      ┌ conf/a.yaml:2:7
     2│ b: caf
      │       ^ the first byte that is not
      = help: save the file with the encoding UTF-8
    ");
}

#[test]
fn an_error_of_a_spec_is_shown_at_the_deepest_node_of_its_path() {
    let source =
        Source::from_text("pylon.yaml", "routes:\n  - match: /\n    forward: usres\n    rate_limit: 5/s\n").unwrap();
    let base_path = FieldPath::root().key("routes").index(0);
    let route = locate::locate(&source.root, &base_path).node;
    let error =
        SpecError::new(FieldPath::root().key("forward"), "this route forwards to an upstream that does not exist");
    let diagnostic = source.spec_error(route, &base_path, &error.help("did you mean `users`?"));
    insta::assert_snapshot!(diagnostic.render(false), @r"
    error: this route forwards to an upstream that does not exist
      ┌ pylon.yaml:3:14
     3│     forward: usres
      │              ^^^^^ `routes[0].forward`
      = help: did you mean `users`?
    ");
    let error = SpecError::new(FieldPath::root().key("rate_limit").key("limit"), "too small");
    insta::assert_snapshot!(source.spec_error(route, &base_path, &error).render(false), @r"
    error: too small
      ┌ pylon.yaml:4:17
     4│     rate_limit: 5/s
      │                 ^^^ `routes[0].rate_limit.limit`
    ");
    let error = SpecError::new(FieldPath::root(), "the document needs a listener");
    insta::assert_snapshot!(source.error(&error).render(false), @r"
    error: the document needs a listener
      ┌ pylon.yaml:1:1
     1│ routes:
      │ ^^^^^^^
    ");
}
