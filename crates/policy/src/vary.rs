//! Adds names to `Vary` (RFC 9110 §12.5.5) without losing or repeating what already stands there.

use http::header::{Entry, VARY};
use http::{HeaderMap, HeaderValue};

/// Makes sure that `Vary` lists every name in `wanted`, whose text is a list such as `Origin, Accept`.
///
/// `*` already says more than any list and is left alone. What an upstream sent is kept, in one line.
pub(crate) fn add(headers: &mut HeaderMap, wanted: HeaderValue) {
    if let Entry::Vacant(place) = headers.entry(VARY) {
        place.insert(wanted);
        return;
    }
    let missing = |name: &&str| !lists(headers, name);
    let missing: Vec<&str> = items(&wanted).filter(missing).collect();
    if missing.is_empty() || lists(headers, "*") {
        return;
    }
    let merged: Vec<&str> = headers.get_all(VARY).iter().flat_map(items).chain(missing).collect();
    if let Ok(merged) = HeaderValue::try_from(merged.join(", ")) {
        headers.insert(VARY, merged);
    }
}

fn lists(headers: &HeaderMap, name: &str) -> bool {
    headers.get_all(VARY).iter().flat_map(items).any(|item| item.eq_ignore_ascii_case(name))
}

fn items(value: &HeaderValue) -> impl Iterator<Item = &str> {
    value.to_str().unwrap_or_default().split(',').map(str::trim).filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vary(lines: &[String]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(VARY, HeaderValue::from_str(line).unwrap());
        }
        headers
    }

    fn all(headers: &HeaderMap) -> Vec<String> {
        headers.get_all(VARY).iter().flat_map(items).map(str::to_ascii_lowercase).collect()
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nothing_is_listed_twice(
            lines in prop::collection::vec("(Origin|origin|accept|x-[a-c]|\\*|)(, ?(ORIGIN|Accept-Encoding|x-[a-c]))?", 0..4)
        ) {
            let mut headers = vary(&lines);
            let before = all(&headers);
            add(&mut headers, HeaderValue::from_static("Origin, Access-Control-Request-Method"));
            let after = all(&headers);
            prop_assert!(before.iter().all(|name| after.contains(name)));
            if before.contains(&"*".to_owned()) {
                prop_assert_eq!(&before, &after);
            } else {
                prop_assert!(after.contains(&"origin".to_owned()));
                let twice = |list: &[String]| list.iter().filter(|name| *name == "origin").count();
                prop_assert_eq!(twice(&after), twice(&before).max(1));
            }
            add(&mut headers, HeaderValue::from_static("Origin"));
            prop_assert_eq!(after, all(&headers));
        }
    }

    #[test]
    fn what_the_upstream_varies_by_stays_in_one_line() {
        let mut headers = vary(&["Accept-Encoding".into(), "x-tenant".into()]);
        add(&mut headers, HeaderValue::from_static("Origin"));
        assert_eq!(headers.get_all(VARY).iter().collect::<Vec<_>>(), ["Accept-Encoding, x-tenant, Origin"]);
    }
}
