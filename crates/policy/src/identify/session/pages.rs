//! What people read where a login or logout ends at the gateway: short pages without scripts, styles or pictures of others.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, SET_COOKIE};
use http::{HeaderValue, StatusCode};
use pylon_core::Response;
use pylon_core::body::Body;
use pylon_core::exchange::Exchange;
use pylon_core::rejection::Rejection;

/// The page of a refusal, which is noted in the exchange. `again` is a path at which a login can begin anew.
pub(super) fn refusal(rejection: &Rejection, cx: &mut Exchange, again: &str) -> Response {
    let detail = rejection.detail.as_deref().unwrap_or("What went wrong stands in the log of the gateway.");
    refused(rejection, cx, (rejection.reason.title, detail), ("Log in again", again))
}

/// The page of a logout that cannot be done now. `again` is a path at which it can be tried again.
pub(super) fn not_logged_out(rejection: &Rejection, cx: &mut Exchange, again: &str) -> Response {
    let text = ("You are not logged out", "This cannot be done now, and your session goes on. Try again in a moment.");
    refused(rejection, cx, text, ("Log out again", again))
}

/// The page of a logout that is done.
pub(super) fn logged_out() -> Response {
    page("You are logged out", "You can close this window.", "")
}

/// Sends a browser to `location`, by GET, with these cookies (RFC 9110 §15.4.4).
pub(super) fn see_other(location: &str, cookies: Vec<HeaderValue>) -> Option<Response> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::SEE_OTHER;
    let headers = response.headers_mut();
    headers.insert(LOCATION, HeaderValue::try_from(location).ok()?);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // What stands in the address of this request is for nobody else.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    set(&mut response, cookies);
    Some(response)
}

/// Adds these cookies.
pub(super) fn set(response: &mut Response, cookies: Vec<HeaderValue>) {
    for cookie in cookies {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
}

fn refused(
    rejection: &Rejection,
    cx: &mut Exchange,
    (title, sentence): (&str, &str),
    (link, to): (&str, &str),
) -> Response {
    cx.trail.refuse(rejection);
    let mut response = page(title, sentence, &format!("<p><a href=\"{}\">{link}</a></p>", escape(to)));
    *response.status_mut() = rejection.reason.status();
    response
}

fn page(title: &str, sentence: &str, more: &str) -> Response {
    let (title, sentence) = (escape(title), escape(sentence));
    let body = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>{title}</title>\n<h1>{title}</h1>\n<p>{sentence}</p>\n{more}\n</html>\n"
    );
    let mut response = Response::new(Body::from(Bytes::from(body)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, letter| {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(letter),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Seen;
    use pylon_core::rejection::SESSION_LOGIN;

    #[test]
    fn nothing_that_came_from_outside_becomes_part_of_the_page() {
        let mut cx = Seen::get("/").exchange();
        let rejection = SESSION_LOGIN.because("<script>alert(1)</script>");
        let response = refusal(&rejection, &mut cx, "/a\"onclick='x");
        assert_eq!(response.status(), 400);
        let Body::Full(body) = response.body() else { panic!("{response:?}") };
        let body = std::str::from_utf8(body).unwrap();
        assert!(!body.contains("<script") && !body.contains("\"onclick") && body.contains("&lt;script&gt;"), "{body}");
        assert_eq!(cx.trail.reason, Some(&SESSION_LOGIN));
    }

    #[test]
    fn a_location_that_cannot_stand_in_a_header_is_none() {
        assert!(see_other("/a\r\nset-cookie: x", Vec::new()).is_none());
        assert_eq!(see_other("/a", Vec::new()).unwrap().headers()[LOCATION], "/a");
    }
}
