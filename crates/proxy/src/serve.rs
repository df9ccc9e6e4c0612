//! One exchange, from head to the head of its answer: the function that a newcomer should read first.

use std::sync::Arc;
use std::time::Instant;

use http::Method;
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN};
use pylon_core::connection::Connection;
use pylon_core::exchange::Exchange;
use pylon_core::rejection::{REQUEST_ENCODED_SLASH, ROUTE_METHOD, ROUTE_NOT_FOUND, ROUTE_REWRITE, Rejection};
use pylon_core::{Request, Response};
use pylon_policy::pipeline::Memos;
use pylon_policy::policy::{Step, Stop};
use pylon_route::predicate::Head;
use pylon_route::table::{self, Found, Outcome};

use crate::action::Decision;
use crate::action::forward::Forward;
use crate::engine::{Begun, Engine};
use crate::fallback::Terms;
use crate::snapshot::{Route, Settings, Snapshot};
use crate::tail::{Ongoing, Tail, Tailed};
use crate::{action, forwarding, head, reject, websocket};

/// Answers one request by the snapshot that it meets now.
///
/// What needs no waiting is done before the future is made, and what is large lives in the [`Ongoing`]'s one allocation:
/// every connection has room for this future, so it stays under 1 KiB (held by a test in `control`).
pub(crate) fn serve(
    engine: &Engine,
    mut request: Request,
    connection: Arc<Connection>,
    started: Instant,
) -> impl Future<Output = http::Response<Tailed>> + Send + use<> {
    let client =
        |stable: &Snapshot| forwarding::client(request.headers(), &connection, &stable.settings.trusted_proxies);
    let Begun { world, observer, via } = engine.begin(request.version(), client);
    let (mut exchange, read) =
        head::read(&mut request, connection, started, &world.settings, &via, || engine.fresh_id(started));
    let (index, found) = match read.and_then(|()| engine.admit()) {
        Ok(()) => find(&world, &request, &exchange),
        Err(no) => (None, Err(no)),
    };
    let route = world.route(index);
    let found = found.and_then(|found| rewrite(route, found, &mut exchange));
    observer.note(request.headers(), &mut exchange);
    let stay = route.streams.as_ref().map(|streams| streams.begin());
    let counts = (Arc::clone(route.series.mine()), stay);
    let mut ongoing = Ongoing::begin(exchange, request, found, counts, observer);
    async move {
        let response = answer(world.route(index), &mut ongoing, &world.settings).await;
        ongoing.answered(response)
    }
}

/// Policies on the way in, the action, policies on the way out: those that the memos name.
async fn answer(route: &Route, ongoing: &mut Ongoing, settings: &Settings) -> Response {
    let tail = ongoing.tail();
    let (memos, forward) = inbound(route, tail).await;
    if let Some(forward) = forward {
        if let Some(mirror) = &route.mirror {
            mirror.copy(&mut tail.request, &tail.exchange, &tail.observer);
        }
        let websocket = route.websocket.as_ref();
        let answer = match &route.fallback {
            None => {
                let answer = forward.send(&mut tail.request, &mut tail.exchange).await;
                Forward::receive(answer, websocket, &tail.exchange)
            }
            // Boxed, so that requests of other routes need no room for it.
            Some(fallback) => {
                let terms = Terms { websocket, told: settings.reason_header };
                Box::pin(fallback.answer(forward, &mut tail.request, &mut tail.exchange, terms)).await
            }
        };
        tail.answer = answer.map_err(Stop::Reject);
    }
    let render = |stop: Stop, cx: &mut Exchange| match stop {
        Stop::Reply(response) => response,
        Stop::Reject(no) => reject::render(no, cx, settings),
    };
    let mut response = match tail.take_answer() {
        Ok(response) => response,
        Err(stop) => render(stop, &mut tail.exchange),
    };
    route.pipeline.response(memos, &mut response, &mut tail.exchange, render).await;
    response
}

/// The way in. Where it does not end at an upstream, the answer is left in the tail.
async fn inbound<'r>(route: &'r Route, tail: &mut Tail) -> (Memos, Option<&'r Forward>) {
    let (memos, stop) = route.pipeline.request(&mut tail.request, &mut tail.exchange).await;
    if let Some(stop) = stop {
        tail.answer = Err(stop);
        return (memos, None);
    }
    if tail.found.is_ok()
        && let Err(no) = websocket::permit(route.websocket.as_ref(), &mut tail.request, &mut tail.exchange)
    {
        tail.answer = Err(no.into());
        return (memos, None);
    }
    match action::decide(&route.action, &tail.request, &tail.found, &tail.exchange) {
        Decision::Forward(forward) => (memos, Some(forward)),
        Decision::Answer(answer) => {
            tail.answer = answer.map_err(Stop::Reject);
            (memos, None)
        }
        Decision::Own(own) => {
            let answer = match own.handler.answer(&mut tail.request, &mut tail.exchange) {
                Step::Done(answer) => answer,
                Step::Wait(waiting) => waiting.await,
            };
            tail.answer = own.told(answer);
            (memos, None)
        }
    }
}

/// The route that takes the request, by its index; what none takes ends at the last route, with the reason.
pub(crate) fn find(world: &Snapshot, request: &Request, cx: &Exchange) -> (Option<usize>, Result<Found, Rejection>) {
    let no = match with_head(world, request, cx, |head| world.table.find(&head)) {
        Outcome::Found(found) => {
            let index = Some(found.route);
            return match found.stop {
                None => (index, Ok(found)),
                Some(table::Stop::EncodedSlash) => (index, Err(Rejection::from(&REQUEST_ENCODED_SLASH))),
            };
        }
        Outcome::MethodNotAllowed(methods) => {
            let no = Rejection::from(&ROUTE_METHOD);
            match reject::allow(methods.iter()) {
                Some((name, value)) => no.with_header(name, value),
                None => no,
            }
        }
        Outcome::NotFound => Rejection::from(&ROUTE_NOT_FOUND),
    };
    (None, Err(no))
}

/// What the router looks at. A preflight asks on behalf of another method (Fetch §3.2): it is looked at as if it had that
/// method, where the route that it then meets answers preflights.
pub(crate) fn with_head<T>(world: &Snapshot, request: &Request, cx: &Exchange, look: impl FnOnce(Head<'_>) -> T) -> T {
    let head = Head {
        host: cx.host.as_deref(),
        path: cx.path.path(),
        method: request.method(),
        headers: request.headers(),
        query: cx.path.query(),
        client: cx.client,
    };
    match preflight(world, request, head) {
        Some(method) => look(Head { method: &method, ..head }),
        None => look(head),
    }
}

fn preflight(world: &Snapshot, request: &Request, head: Head<'_>) -> Option<Method> {
    if request.method() != Method::OPTIONS || !request.headers().contains_key(ORIGIN) {
        return None;
    }
    let wanted = request.headers().get(ACCESS_CONTROL_REQUEST_METHOD)?;
    let method = Method::from_bytes(wanted.as_bytes()).ok()?;
    match world.table.find(&Head { method: &method, ..head }) {
        Outcome::Found(found) if world.routes.get(found.route)?.pipeline.answers_preflights() => Some(method),
        _ => None,
    }
}

/// Computes what is sent, before the first policy, so that all of them see both.
pub(crate) fn rewrite(route: &Route, found: Found, cx: &mut Exchange) -> Result<Found, Rejection> {
    let Some(rewrite) = &route.rewrite else { return Ok(found) };
    let sent = rewrite.apply(cx.path.path(), cx.path.query(), &found.captures);
    cx.upstream_path = Some(sent.map_err(|error| ROUTE_REWRITE.because(error.to_string()))?);
    cx.upstream_host = rewrite.host().cloned();
    Ok(found)
}
