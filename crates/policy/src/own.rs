//! Routes that policies bring along: the keys by which tokens of the gateway are checked, the place to which a login comes back.
//!
//! A policy contributes one while it is compiled, by [`Compiling::own_route`](crate::policy::Compiling::own_route). Its requests meet
//! the policies of `defaults`, but for those that ask who is there and what they may do: whoever checks a token, or has yet to log in,
//! has no credential. What its answer depends on, the handler judges itself.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use pylon_core::exchange::Exchange;
use pylon_core::rejection::Rejection;
use pylon_core::spec::FieldPath;
use pylon_core::{Request, Response};

use crate::bodies;
use crate::policy::Step;

/// What answers at a policy's own route.
pub trait Handler: fmt::Debug + Send + Sync + 'static {
    /// Answers one request: at once, or later where it has to ask somebody. It bounds itself the time that this takes. `HEAD` is answered
    /// as `GET`, and the body left out for it; where answering has effects, it is refused by
    /// [`ROUTE_METHOD`](pylon_core::rejection::ROUTE_METHOD), to which the methods of the route are added.
    fn answer<'a>(&'a self, req: &'a mut Request, cx: &'a mut Exchange) -> Step<'a, Response>;
}

/// A route that a policy contributes.
#[derive(Debug, Clone)]
pub struct OwnRoute {
    /// The key of the policy.
    pub by: &'static str,
    /// What it is named, once and for all: `jwks` is `own:jwks` in log and metrics.
    pub name: &'static str,
    /// The path, without variable parts.
    pub path: String,
    /// What in the policy's spec says where it is; the spec itself where nothing does.
    pub at: FieldPath,
    /// The methods; `GET` brings `HEAD` with it.
    pub methods: &'static [&'static str],
    /// Where it is found.
    pub hosts: Hosts,
    /// What answers. Routes that hold the same policy share it: two at one place are one route if they have the same handler, and an
    /// error if not.
    pub handler: Arc<dyn Handler>,
}

/// The hosts at which a policy's own route is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hosts {
    /// Those of the routes that hold the policy.
    OfHolders,
    /// All.
    All,
}

/// The routes that were contributed while a document is compiled.
#[derive(Debug, Default)]
pub struct OwnRoutes(Mutex<Vec<OwnRoute>>);

impl OwnRoutes {
    pub(crate) fn add(&self, route: OwnRoute) {
        self.0.lock().push(route);
    }

    /// Takes out those that came since it was last asked.
    pub fn take(&self) -> Vec<OwnRoute> {
        std::mem::take(&mut *self.0.lock())
    }
}

/// The whole body of a request, of at most `cap` bytes.
///
/// # Errors
///
/// What the client is told, if it is longer, breaks off or comes too slowly.
pub async fn body(req: &mut Request, cap: usize) -> Result<Bytes, Rejection> {
    let whole = bodies::whole(std::mem::take(req.body_mut()), cap).await;
    whole.map(|(bytes, _)| bytes).map_err(|error| error.of_client().because(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Seen, compiling, now, run};
    use pylon_core::body::Body;
    use pylon_core::rejection::REQUEST_BODY_TOO_LARGE;

    #[derive(Debug)]
    struct Echo;

    impl Handler for Echo {
        fn answer<'a>(&'a self, _: &'a mut Request, cx: &'a mut Exchange) -> Step<'a, Response> {
            Step::Done(Ok(Response::new(Body::from(cx.path.to_string()))))
        }
    }

    #[test]
    fn what_a_policy_contributes_is_taken_once_and_answers() {
        let route = OwnRoute {
            by: "probe",
            name: "echo",
            path: "/echo".to_owned(),
            at: FieldPath::root(),
            methods: &["GET"],
            hosts: Hosts::All,
            handler: Arc::new(Echo),
        };
        let (taken, left) = compiling(|cx| {
            cx.own_route(route);
            (cx.around.own.take(), cx.around.own.take())
        });
        assert!(left.is_empty());
        let (mut req, mut cx) = Seen::get("/echo?a=1").start();
        let answer = now(taken[0].handler.answer(&mut req, &mut cx)).unwrap();
        assert!(matches!(answer.body(), Body::Full(text) if text == "/echo?a=1"));
    }

    #[test]
    fn a_body_is_read_whole_or_refused() {
        let read = |cap| run(body(&mut Seen::get("/").body("a=1&b=2").start().0, cap));
        assert_eq!(read(7).unwrap(), "a=1&b=2");
        assert_eq!(read(6).unwrap_err().reason, &REQUEST_BODY_TOO_LARGE);
    }
}
