//! Finds the value of a cookie in the fields of a request (RFC 6265 §4.2).

use http::HeaderMap;
use http::header::COOKIE;

/// The value of the first cookie of this name, as it was sent.
pub fn value<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    headers.get_all(COOKIE).iter().find_map(|line| {
        let pairs = line.as_bytes().split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        pairs.into_iter().find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_cookie_is_found_by_its_whole_name_in_any_of_the_lines() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("my-session=1; b=2"));
        headers.append(COOKIE, HeaderValue::from_static("session=3;b=4"));
        assert_eq!(value(&headers, "session"), Some(&b"3"[..]));
        assert_eq!(value(&headers, "b"), Some(&b"2"[..]));
        assert_eq!(value(&headers, "sess"), None);
    }
}
