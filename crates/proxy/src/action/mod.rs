//! How a route obtains its answer, once its policies have let the request pass.

pub mod forward;
pub mod own;
pub mod redirect;
pub mod respond;
pub mod split;

use pylon_core::exchange::Exchange;
use pylon_core::rejection::{ROUTE_NOT_FOUND, Rejection};
use pylon_core::{Request, Response};
use pylon_route::table::Found;

use self::forward::Forward;
use self::own::Own;
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
    /// Answers as a policy does that has this route for itself.
    Own(Own),
    /// Answers 404: the last route.
    NotFound,
}

/// What an action comes to for one request.
pub(crate) enum Decision<'a> {
    /// The answer is here.
    Answer(Result<Response, Rejection>),
    /// It is to be had from an upstream.
    Forward(&'a Forward),
    /// It is to be had from a policy.
    Own(&'a Own),
}

/// Decides, without waiting. `found` is what the router made of the request.
pub(crate) fn decide<'a>(
    action: &'a Action,
    request: &Request,
    found: &Result<Found, Rejection>,
    cx: &Exchange,
) -> Decision<'a> {
    let found = match found {
        Ok(found) => found,
        Err(no) => return Decision::Answer(Err(no.clone())),
    };
    match action {
        Action::Forward(forward) => Decision::Forward(forward),
        Action::Split(split) => Decision::Forward(split.pick(request, cx)),
        Action::Redirect(redirect) => Decision::Answer(redirect.answer(found, cx)),
        Action::Respond(respond) => Decision::Answer(Ok(respond.answer())),
        Action::Own(own) => Decision::Own(own),
        Action::NotFound => Decision::Answer(Err(Rejection::from(&ROUTE_NOT_FOUND))),
    }
}
