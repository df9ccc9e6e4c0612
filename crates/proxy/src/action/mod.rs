//! How a route obtains its answer, once its policies have let the request pass.

pub mod forward;
pub mod redirect;
pub mod respond;
pub mod split;

use pylon_core::exchange::Exchange;
use pylon_core::rejection::{ROUTE_NOT_FOUND, Rejection};
use pylon_core::{Request, Response};
use pylon_route::table::Found;

use self::forward::Forward;
use self::redirect::Redirect;
use self::respond::Respond;
use self::split::Split;

/// What a route does.
#[derive(Debug)]
pub enum Action {
    /// Sends the request to an upstream.
    Forward(Forward),
    /// Sends it to one of several upstreams, by weight.
    Split(Split),
    /// Sends the client elsewhere.
    Redirect(Redirect),
    /// Answers by itself.
    Respond(Respond),
    /// Answers 404: the last route.
    NotFound,
}

/// Obtains the answer.
pub(crate) async fn answer(
    action: &Action,
    request: Request,
    found: &Found,
    cx: &mut Exchange,
) -> Result<Response, Rejection> {
    match action {
        Action::Forward(forward) => forward.answer(request, cx).await,
        Action::Split(split) => split.pick(&request, cx).answer(request, cx).await,
        Action::Redirect(redirect) => redirect.answer(found, cx),
        Action::Respond(respond) => Ok(respond.answer()),
        Action::NotFound => Err(Rejection::from(&ROUTE_NOT_FOUND)),
    }
}
