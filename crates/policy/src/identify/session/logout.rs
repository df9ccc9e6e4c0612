//! Logouts: a browser asks for one (OpenID Connect RP-Initiated Logout 1.0), or the issuer tells of one (Back-Channel Logout 1.0).

use std::sync::Arc;

use http::header::{CACHE_CONTROL, ORIGIN};
use http::{HeaderMap, HeaderValue};
use pylon_core::body::Body;
use pylon_core::exchange::Exchange;
use pylon_core::rejection::{SESSION_LOGOUT, SESSION_REFUSED};
use pylon_core::{Request, Response};
use pylon_upstream::oauth::Form;

use super::cookies::Kept;
use super::doors::{is_address, with_query};
use super::form::Members;
use super::pages;
use super::party::{Failed, Party};
use super::proof::text;
use crate::own::body;
use crate::policy::Stop;

/// The longest body with a logout token, in bytes.
const LONGEST_BODY: usize = 64 * 1024;
/// The longest ID token that travels in an address.
const LONGEST_HINT: usize = 4096;

impl Party {
    /// A browser logs out, here and at the issuer (OpenID Connect RP-Initiated Logout 1.0 §2).
    pub(super) async fn logout(self: &Arc<Self>, headers: &HeaderMap, cx: &mut Exchange) -> Response {
        let arrival = self.arrival(headers.clone(), cx);
        if is_foreign(headers, &arrival.origin) {
            let no = SESSION_REFUSED.because("Another site asked for this logout.");
            return pages::refusal(&no, cx, &self.again("/"));
        }
        let jar = self.names.of(cx.scheme);
        let shown = match jar.session(headers) {
            Kept::Whole(_, envelope) => Some(envelope.to_vec()),
            Kept::Parts(envelope) => Some(envelope),
            Kept::Nothing | Kept::Broken => None,
        };
        let ended = match shown {
            None => Ok(None),
            Some(envelope) => {
                let (party, scheme) = (Arc::clone(self), cx.scheme);
                self.off(async move { party.end_shown(&envelope, party.names.of(scheme)).await }).await
            }
        };
        let ticket = match ended {
            Ok(ticket) => ticket,
            // It keeps its cookie, by which it can try again: the session counts yet.
            Err(failed) => return pages::not_logged_out(&failed.rejection(), cx, &format!("{}/logout", self.path)),
        };
        let cookies = jar.forget(headers);
        let told = self.set.told();
        let endpoint = told.as_ref().and_then(|told| text(told, "end_session_endpoint")).filter(|url| is_address(url));
        let location = match (endpoint, &self.after_logout) {
            (Some(endpoint), after) => {
                let mut form = Form::default().with("client_id", &*self.client.id);
                if let Some(hint) = ticket.map(|ticket| ticket.id_token).filter(|hint| hint.len() <= LONGEST_HINT) {
                    form = form.with("id_token_hint", hint);
                }
                if let Some(after) = after {
                    form = form.with("post_logout_redirect_uri", format!("{}{after}", arrival.origin));
                }
                Some(with_query(endpoint, &form))
            }
            (None, Some(after)) => Some(after.to_string()),
            (None, None) => None,
        };
        let gone = location.and_then(|location| pages::see_other(&location, cookies.clone()));
        gone.unwrap_or_else(|| {
            let mut page = pages::logged_out();
            pages::set(&mut page, cookies);
            page
        })
    }

    /// The issuer tells of a logout (OpenID Connect Back-Channel Logout 1.0 §2.5 to §2.8).
    pub(super) async fn backchannel(self: &Arc<Self>, req: &mut Request) -> Result<Response, Stop> {
        let bytes = body(req, LONGEST_BODY).await?;
        let members = std::str::from_utf8(&bytes).ok().and_then(Members::read);
        let token = members.as_ref().and_then(|members| members.get("logout_token"));
        let token = token.ok_or_else(|| SESSION_LOGOUT.because("there is no logout token"))?.to_owned();
        let party = Arc::clone(self);
        let outcome = self.off(async move { party.log_out(&token).await }).await;
        outcome.map_err(|failed| match failed {
            Failed::Refused(why) => SESSION_LOGOUT.privately(why),
            Failed::Unknown(_) => failed.rejection(),
        })?;
        let mut response = Response::new(Body::Empty);
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }
}

/// Whether a page of another site sent the browser here.
fn is_foreign(headers: &HeaderMap, origin: &str) -> bool {
    let is = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
    match is("sec-fetch-site") {
        Some(site) => !matches!(site, b"same-origin" | b"none"),
        None => headers.get(ORIGIN).is_some_and(|from| from.as_bytes() != origin.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Seen;

    #[test]
    fn a_logout_that_another_site_asks_for_is_told_apart() {
        let foreign = |headers: &[(&str, &str)]| {
            let seen = headers.iter().fold(Seen::get("/"), |seen, (name, value)| seen.header(name, value));
            is_foreign(seen.start().0.headers(), "https://shop.test")
        };
        for own in [
            &[][..],
            &[("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "none")],
            &[("origin", "https://shop.test")],
        ] {
            assert!(!foreign(own), "{own:?}");
        }
        for other in [
            &[("sec-fetch-site", "cross-site")][..],
            &[("sec-fetch-site", "same-site")],
            &[("origin", "https://evil.test")],
            &[("origin", "null")],
            &[("origin", "https://shop.test"), ("sec-fetch-site", "cross-site")],
        ] {
            assert!(foreign(other), "{other:?}");
        }
    }
}
