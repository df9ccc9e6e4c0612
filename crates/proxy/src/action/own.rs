//! Lets a policy answer at a route that it brought along (decision 0016).

use std::sync::Arc;

use http::header::ALLOW;
use http::{HeaderName, HeaderValue};
use pylon_core::rejection::ROUTE_METHOD;
use pylon_core::{Response, rejection::Rejection};
use pylon_policy::own::Handler;
use pylon_policy::policy::Stop;

use crate::reject;

/// What answers at such a route.
#[derive(Debug)]
pub struct Own {
    pub(crate) handler: Arc<dyn Handler>,
    /// The methods that it takes in any case. `GET` brings `HEAD` with it, which a handler may refuse whose answers have effects.
    allow: Option<(HeaderName, HeaderValue)>,
}

impl Own {
    /// With the methods of the route.
    pub fn new(handler: Arc<dyn Handler>, methods: &[&'static str]) -> Self {
        Self { handler, allow: reject::allow(methods.iter()) }
    }

    /// What the client gets of what the handler said: a method that is refused is told with those that are not (RFC 9110 §15.5.6).
    pub(crate) fn told(&self, answer: Result<Response, Stop>) -> Result<Response, Stop> {
        let bare = |no: &Rejection| no.reason == &ROUTE_METHOD && no.headers.iter().all(|(name, _)| name != ALLOW);
        match (answer, &self.allow) {
            (Err(Stop::Reject(no)), Some((name, value))) if bare(&no) => {
                Err(no.with_header(name.clone(), value.clone()).into())
            }
            (answer, _) => answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pylon_core::Request;
    use pylon_core::exchange::Exchange;
    use pylon_core::rejection::CALLER_MISSING;
    use pylon_policy::policy::Step;

    #[derive(Debug)]
    struct Never;

    impl Handler for Never {
        fn answer<'a>(&'a self, _: &'a mut Request, _: &'a mut Exchange) -> Step<'a, Response> {
            Step::Done(Err((&ROUTE_METHOD).into()))
        }
    }

    #[test]
    fn a_method_that_is_refused_is_told_with_those_that_are_taken() {
        let own = Own::new(Arc::new(Never), &["GET", "POST"]);
        let headers = |stop: Stop| match own.told(Err(stop)) {
            Err(Stop::Reject(no)) => no.headers.into_vec(),
            other => panic!("{other:?}"),
        };
        assert_eq!(headers((&ROUTE_METHOD).into()), [(ALLOW, HeaderValue::from_static("GET, POST"))]);
        // What the handler itself has said counts.
        let said = ROUTE_METHOD.with_header(ALLOW, HeaderValue::from_static("POST"));
        assert_eq!(headers(said.into()), [(ALLOW, HeaderValue::from_static("POST"))]);
        assert_eq!(headers((&CALLER_MISSING).into()), []);
        assert!(own.told(Ok(Response::default())).is_ok_and(|answer| answer.headers().is_empty()));
    }
}
