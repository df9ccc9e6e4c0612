//! Whether a browser goes to a page, which can be sent elsewhere to log in, or a program asks for something, which is told 401.
//!
//! A redirect helps nobody but a person: a script that follows it gets a login page where it wanted data, or is stopped by CORS, and a
//! form that was sent would be lost. So only a GET is redirected that a browser says is a navigation (Fetch Metadata), or that at
//! least takes HTML and is not said to be something else.

use http::header::ACCEPT;
use http::{HeaderMap, Method};
use pylon_core::exchange::Exchange;

/// Whether it is a navigation to a page.
pub(super) fn navigates(cx: &Exchange, headers: &HeaderMap) -> bool {
    if cx.method != Method::GET || cx.websocket.is_some() || cx.grpc {
        return false;
    }
    let is = |name: &str, value: &str| headers.get_all(name).iter().any(|found| found.as_bytes() == value.as_bytes());
    if headers.contains_key("sec-fetch-mode") && !is("sec-fetch-mode", "navigate")
        || headers.contains_key("sec-fetch-dest") && !is("sec-fetch-dest", "document")
        // A page that is only fetched ahead would begin a login that nobody asked for.
        || headers.contains_key("sec-purpose")
        || headers.contains_key("x-requested-with")
    {
        return false;
    }
    headers.get_all(ACCEPT).iter().any(|line| takes_html(line.as_bytes()))
}

/// Whether HTML is among what is accepted by name: programs say `*/*` too.
fn takes_html(accept: &[u8]) -> bool {
    let types = accept.split(|byte| *byte == b',').filter_map(|range| range.split(|byte| *byte == b';').next());
    types
        .map(<[u8]>::trim_ascii)
        .any(|name| name.eq_ignore_ascii_case(b"text/html") || name.eq_ignore_ascii_case(b"application/xhtml+xml"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Seen;

    fn is_page(seen: &Seen) -> bool {
        let (req, cx) = seen.start();
        navigates(&cx, req.headers())
    }

    #[test]
    fn browsers_that_go_to_a_page_are_known_by_what_they_say() {
        let page = || Seen::get("/").header("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
        assert!(is_page(&page()));
        assert!(is_page(&page().header("sec-fetch-mode", "navigate").header("sec-fetch-dest", "document")));
        assert!(is_page(&Seen::get("/").header("accept", "TEXT/HTML;q=1")));
    }

    #[test]
    fn all_else_is_a_program() {
        let page = || Seen::get("/").header("accept", "text/html");
        for (what, seen) in [
            ("no accept", Seen::get("/")),
            ("anything", Seen::get("/").header("accept", "*/*")),
            ("data", Seen::get("/").header("accept", "application/json, text/plain, */*")),
            ("a word that begins so", Seen::get("/").header("accept", "text/html5")),
            ("a fetch", page().header("sec-fetch-mode", "cors")),
            ("a picture", page().header("sec-fetch-mode", "no-cors")),
            ("a frame", page().header("sec-fetch-mode", "navigate").header("sec-fetch-dest", "iframe")),
            ("fetched ahead", page().header("sec-fetch-mode", "navigate").header("sec-purpose", "prefetch")),
            ("an XHR", page().header("x-requested-with", "XMLHttpRequest")),
            ("OPTIONS", Seen::options("/").header("accept", "text/html")),
        ] {
            assert!(!is_page(&seen), "{what}");
        }
    }
}
