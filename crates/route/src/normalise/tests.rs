//! What is brought into normal form, and what is refused.

use super::*;
use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

fn serve(path: &str) -> Result<String, PathError> {
    normalise(path, PathRules::SERVE).map(Cow::into_owned)
}

#[test]
fn a_normal_path_is_borrowed() {
    for path in
        ["/", "/a/b", "/a/b/", "/users/42.json", "/a%20b/%C3%A9", "/a:b@c,d=e", "/~x", "/a%2Fb", "/a;v=1", "/a.b/c..d"]
    {
        assert!(matches!(normalise(path, PathRules::SERVE), Ok(Cow::Borrowed(same)) if same == path), "{path}");
    }
}

#[test]
fn one_spelling_is_left_of_several() {
    for (path, normal) in [
        ("//a///b//", "/a/b/"),
        ("/%61%7e%2D", "/a~-"),
        ("/%c3%a9", "/%C3%A9"),
        ("/./a/./b/.", "/a/b/"),
        ("/a/b/..", "/a/"),
        ("/a/../b", "/b"),
        ("/a/%2e%2E/b", "/b"),
        ("/a/.%2e/b", "/b"),
        ("/a/..", "/"),
        ("/a//../b", "/b"),
        ("/...", "/..."),
        ("/.a", "/.a"),
        ("/{a}|\"^`<>[]", "/%7Ba%7D%7C%22%5E%60%3C%3E%5B%5D"),
        ("/a%2fb", "/a%2Fb"),
        ("/%3a", "/%3A"),
    ] {
        assert_eq!(serve(path).as_deref(), Ok(normal), "{path}");
    }
}

#[test]
fn nothing_is_decoded_twice() {
    assert_eq!(serve("/%252f").as_deref(), Ok("/%252f"));
    assert_eq!(serve("/%252e%252e/a").as_deref(), Ok("/%252e%252e/a"));
    assert_eq!(serve("/%25%36%31").as_deref(), Ok("/%2561"));
}

#[test]
fn what_servers_read_in_several_ways_is_refused() {
    for (path, error) in [
        ("", PathError::NotAbsolute),
        ("a", PathError::NotAbsolute),
        ("*", PathError::NotAbsolute),
        ("/..", PathError::Climbs),
        ("/a/../..", PathError::Climbs),
        ("/%2e%2e/a", PathError::Climbs),
        ("/....//../..", PathError::Climbs),
        ("/a\\b", PathError::Backslash),
        ("/a%5Cb", PathError::Backslash),
        ("/a\0", PathError::Nul),
        ("/a%00", PathError::Nul),
        ("/a%0d%0a", PathError::Control),
        ("/a\tb", PathError::Control),
        ("/a%7f", PathError::Control),
        ("/a b", PathError::Bare),
        ("/\u{e9}", PathError::Bare),
        ("/a#b", PathError::Fragment),
        ("/a?b", PathError::Query),
        ("/a%", PathError::Percent),
        ("/a%2", PathError::Percent),
        ("/a%zz", PathError::Percent),
        ("/a%+1", PathError::Percent),
        ("/..;/a", PathError::Parameters),
        ("/a/.;x/b", PathError::Parameters),
        ("/;x/a", PathError::Parameters),
        ("/%2e%2e;x/a", PathError::Parameters),
        ("/x%2f..%2fa", PathError::EncodedSlash),
        ("/x/..%2fa", PathError::EncodedSlash),
        ("/%2fa", PathError::EncodedSlash),
        ("/x/%2e%2fa", PathError::EncodedSlash),
        ("/x%2f..;y%2fa", PathError::Parameters),
    ] {
        assert_eq!(serve(path), Err(error), "{path}");
    }
    let long = "/".repeat(MAX_PATH + 1);
    assert_eq!(serve(&long), Err(PathError::TooLong));
    assert_eq!(serve(&format!("/{}", "{".repeat(MAX_PATH - 1))), Err(PathError::TooLong));
}

#[test]
fn rules_may_be_stricter_or_keep_empty_segments() {
    assert_eq!(normalise("/a%2Fb", PathRules::default()), Err(PathError::EncodedSlash));
    let strict = PathRules { parameters: Parameters::Reject, ..PathRules::SERVE };
    assert_eq!(normalise("/a;v=1", strict), Err(PathError::Parameters));
    assert_eq!(normalise("/a%3Bv", strict).as_deref(), Ok("/a%3Bv"));
    let split = PathRules { merge_slashes: false, ..PathRules::SERVE };
    assert_eq!(normalise("//a//", split).as_deref(), Ok("//a//"));
    assert_eq!(normalise("/a//../b", split).as_deref(), Ok("/a/b"));
}

#[test]
fn a_query_may_hold_neither_fragment_nor_control() {
    assert_eq!(check_query(b"a=%00&b=\\&c=//"), Ok(()));
    assert_eq!(check_query(b"a#b"), Err(PathError::Fragment));
    assert_eq!(check_query(b"a\r\n"), Err(PathError::Control));
    assert_eq!(check_query(b"a\0"), Err(PathError::Nul));
}

#[test]
fn an_encoded_slash_is_seen() {
    assert!(has_encoded_slash("/a%2Fb"));
    assert!(!has_encoded_slash("/a%252F%2"));
    assert!(!has_encoded_slash("/a%2E"));
}

/// Paths made of what matters, far denser than random text.
fn paths() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[a-z./;%]{0,3}",
        proptest::sample::select(vec![
            "/", ".", "..", "%2e", "%2F", "%2f", "%25", "%5c", "%61", "%C3%A9", "%3b", ";", "a", "//", "/../", "{",
            "%7B", "%00"
        ])
        .prop_map(str::to_owned),
    ];
    proptest::collection::vec(piece, 0..10).prop_map(|pieces| format!("/{}", pieces.concat()))
}

fn rules() -> impl Strategy<Value = PathRules> {
    (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(merge_slashes, keep, parameters)| PathRules {
        merge_slashes,
        encoded_slash: if keep { EncodedSlash::Keep } else { EncodedSlash::Reject },
        parameters: if parameters { Parameters::Keep } else { Parameters::Reject },
    })
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(4096))]

    #[test]
    fn normalising_twice_changes_nothing(path in paths(), rules in rules()) {
        if let Ok(once) = normalise(&path, rules) {
            prop_assert!(matches!(normalise(&once, rules), Ok(Cow::Borrowed(again)) if again == once));
        }
    }

    #[test]
    fn a_normal_path_holds_nothing_of_what_is_refused(path in paths(), rules in rules()) {
        if let Ok(normal) = normalise(&path, rules) {
            prop_assert!(normal.starts_with('/') && normal.is_ascii());
            prop_assert!(normal.split('/').all(|segment| segment != "." && segment != ".."));
            prop_assert!(!rules.merge_slashes || !normal.contains("//"));
            prop_assert!(rules.encoded_slash == EncodedSlash::Keep || !has_encoded_slash(&normal));
            prop_assert_eq!(normal.to_ascii_lowercase().contains("%2e"), false);
        }
    }

    #[test]
    fn no_text_panics(path in any::<String>(), rules in rules()) {
        let _ = normalise(&path, rules);
        let _ = normalise(&format!("/{path}"), rules);
    }
}
