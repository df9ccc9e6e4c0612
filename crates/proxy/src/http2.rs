//! What HTTP/2 writes otherwise, brought into the one form that all later steps know: that of HTTP/1.1.
//!
//! RFC 9113 §8.3.1: `:authority` becomes `Host` where there is none; a `Host` that says something else is refused by
//! [`crate::head`], as it is in absolute form. §8.2.3: the crumbs of `Cookie` become one line. Connection-specific fields
//! never get here: h2 resets their stream (§8.2.2).

use http::header::{COOKIE, HOST};
use http::{HeaderMap, HeaderValue};
use pylon_core::Request;

/// Brings the head of a request that came by HTTP/2 into the form of HTTP/1.1.
pub(crate) fn adapt(request: &mut Request) {
    let authority = request.uri().authority().filter(|_| !request.headers().contains_key(HOST));
    if let Some(authority) = authority.and_then(|authority| HeaderValue::from_str(authority.as_str()).ok()) {
        request.headers_mut().insert(HOST, authority);
    }
    join_cookies(request.headers_mut());
}

fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else { return };
    let mut whole = first.as_bytes().to_vec();
    for crumb in std::iter::once(second).chain(crumbs) {
        whole.extend_from_slice(b"; ");
        whole.extend_from_slice(crumb.as_bytes());
    }
    if let Ok(whole) = HeaderValue::from_bytes(&whole) {
        headers.insert(COOKIE, whole);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pylon_core::body::Body;

    fn adapted(uri: &str, fields: &[(&str, &str)]) -> HeaderMap {
        let mut builder = http::Request::builder().uri(uri);
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        let mut request = builder.body(Body::Empty).unwrap();
        adapt(&mut request);
        request.headers().clone()
    }

    #[test]
    fn the_authority_becomes_the_host_and_never_replaces_one() {
        assert_eq!(adapted("https://a.test:8443/x", &[])[HOST], "a.test:8443");
        assert_eq!(adapted("https://a.test/x", &[("host", "b.test")])[HOST], "b.test");
        assert!(!adapted("/x", &[]).contains_key(HOST));
    }

    #[test]
    fn the_crumbs_of_a_cookie_become_one_line() {
        let headers = adapted("https://a.test/", &[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3; d=4")]);
        let lines: Vec<_> = headers.get_all(COOKIE).iter().collect();
        assert_eq!(lines, ["a=1; b=2; c=3; d=4"]);
    }
}
