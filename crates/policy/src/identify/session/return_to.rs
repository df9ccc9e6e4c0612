//! Where a browser goes after a login: to a path of the same origin, whatever it is read as, and nowhere else.
//!
//! A value that leads away turns a login page into bait (RFC 9700 §4.11). Browsers take `\` for `/`, drop tabs and line breaks, and take
//! what begins with two slashes for a host; whoever stands behind may decode once more. So a path is refused if it says anything of that
//! in any number of decodings. What was asked for, before the login, goes the same way.

use percent_encoding::percent_decode_str;

/// The longest path with its query, in bytes: it travels in a cookie.
const LONGEST: usize = 2048;
/// How often a path is decoded. What is still encoded then was made to deceive.
const DECODINGS: usize = 4;

/// `target` if it is a path of the same origin, with or without a query.
pub(super) fn safe(target: &str) -> Option<&str> {
    if target.len() > LONGEST || !target.bytes().all(|byte| byte.is_ascii_graphic()) || target.contains(['\\', '#']) {
        return None;
    }
    let path = target.split('?').next().unwrap_or_default();
    let mut text = path.to_owned();
    for _ in 0..DECODINGS {
        if !stays(&text) {
            return None;
        }
        let decoded = percent_decode_str(&text).decode_utf8().ok()?.into_owned();
        if decoded == text {
            return Some(target);
        }
        text = decoded;
    }
    None
}

/// Whether no reader takes this path for anything but a path here.
fn stays(path: &str) -> bool {
    let begins = path.strip_prefix('/').is_some_and(|rest| !rest.starts_with(['/', '\\']));
    // Dots would go away, and leave two slashes at the beginning: `/.//host`.
    begins && !path.contains(['\\', '\u{7f}']) && !path.contains("//") && !path.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_path_of_the_same_origin_is_gone_back_to() {
        for good in [
            "/",
            "/a",
            "/a/b?c=d&e=%2F%2Fx",
            "/a?b=https://other.test//x",
            "/%41",
            "/a%20b",
            "/caf%C3%A9",
            "/a@b:c",
            "/a/../b",
            "/a?x=%5C",
            "/100%25",
        ] {
            assert_eq!(safe(good), Some(good));
        }
    }

    #[test]
    fn nothing_leads_to_another_origin() {
        for bad in [
            "",
            "a",
            "//evil.test",
            "///evil.test",
            "/\\evil.test",
            "\\\\evil.test",
            "\\/evil.test",
            "/\t/evil.test",
            "/\n/evil.test",
            "/\r/evil.test",
            "https://evil.test",
            "https:evil.test",
            "javascript:alert(1)",
            "data:text/html,x",
            "?a",
            "#a",
            "/a#b",
            "/%2Fevil.test",
            "/%2f/evil.test",
            "/%5Cevil.test",
            "/%5c%5cevil.test",
            "/%252Fevil.test",
            "/%25252fevil.test",
            "/%2525252525252fevil.test",
            "/.//evil.test",
            "/..//evil.test",
            "/a//b",
            "/%09/evil.test",
            "/%0d%0aset-cookie:a=b",
            "/%00",
            "/a\u{a0}",
            "/\u{2f}/evil.test",
            "/\u{ff0f}evil.test",
            " /a",
            "/ /evil.test",
            "/a\\b",
            "/%7f",
            "/%ff",
        ] {
            assert_eq!(safe(bad), None, "{bad:?}");
        }
        assert_eq!(safe(&format!("/{}", "a".repeat(LONGEST))), None);
    }

    /// What browsers do with a reference, as far as it says who is asked (WHATWG URL §4.4): blanks at the ends, tabs and line breaks go,
    /// backslashes are slashes.
    fn leaves(target: &str) -> bool {
        let text: String = target.trim_matches(|c: char| c <= ' ').chars().filter(|c| !"\t\r\n".contains(*c)).collect();
        let text = text.replace('\\', "/");
        !text.starts_with('/') || text.starts_with("//")
    }

    proptest! {
        #[test]
        fn no_text_that_leads_away_is_taken(text in "[/\\\\a%25fcFC.@:?#\\t\\r\\n 0-]{0,16}") {
            if safe(&text).is_some() {
                let mut reading = text.split('?').next().unwrap_or_default().to_owned();
                for _ in 0..8 {
                    prop_assert!(!leaves(&reading), "{}", text);
                    reading = percent_decode_str(&reading).decode_utf8_lossy().into_owned();
                }
            }
        }
    }
}
