//! One exchange, from head to the head of its answer: the function that a newcomer should read first.

use std::sync::Arc;
use std::time::Instant;

use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN};
use http::{Method, StatusCode};
use pylon_core::connection::Connection;
use pylon_core::exchange::Exchange;
use pylon_core::rejection::{REQUEST_ENCODED_SLASH, ROUTE_METHOD, ROUTE_NOT_FOUND, ROUTE_REWRITE, Rejection};
use pylon_core::{Request, Response};
use pylon_policy::policy::Stop;
use pylon_route::predicate::Head;
use pylon_route::table::{self, Found, Outcome};

use crate::engine::Engine;
use crate::snapshot::{Route, Settings, Snapshot};
use crate::tail::{Ongoing, Tailed};
use crate::{action, head, hop, reject};

/// Answers one request by the snapshot that it met.
pub(crate) async fn serve(
    engine: &Engine,
    world: &Snapshot,
    mut request: Request,
    connection: Arc<Connection>,
    started: Instant,
) -> http::Response<Tailed> {
    let (mut exchange, read) =
        head::read(&mut request, connection, started, &world.settings, || engine.fresh_id(started));
    let (route, found) = match read {
        Ok(()) => find(world, &request, &exchange),
        Err(no) => (&world.nowhere, Err(no)),
    };
    let found = found.and_then(|found| rewrite(route, found, &mut exchange));

    let observer = engine.observer();
    observer.note(request.headers(), &mut exchange);
    let mut ongoing = Ongoing::begin(exchange, Arc::clone(route.series.mine()), observer);
    let request = request.map(|body| ongoing.count_request(body));
    let cx = ongoing.exchange();
    let mut response = answer(route, request, found, cx, &world.settings).await;
    hop::finish(response.headers_mut(), &cx.request_id);
    let bodiless = cx.method == Method::HEAD || has_no_body(response.status());
    ongoing.answered(response, bodiless)
}

/// Policies on the way in, the action, policies on the way out: always exactly those that were reached.
async fn answer(
    route: &Route,
    mut request: Request,
    found: Result<Found, Rejection>,
    cx: &mut Exchange,
    settings: &Settings,
) -> Response {
    let (memos, stop) = route.pipeline.request(&mut request, cx).await;
    let answer = match (stop, found) {
        (Some(stop), _) => Err(stop),
        (None, Err(no)) => Err(Stop::Reject(no)),
        (None, Ok(found)) => action::answer(&route.action, request, &found, cx).await.map_err(Stop::Reject),
    };
    let render = |stop: Stop, cx: &mut Exchange| match stop {
        Stop::Reply(response) => response,
        Stop::Reject(no) => reject::render(no, cx, settings),
    };
    let mut response = match answer {
        Ok(response) => response,
        Err(stop) => render(stop, cx),
    };
    route.pipeline.response(memos, &mut response, cx, render).await;
    response
}

/// The route that takes the request; what none takes ends at the last route, with the reason.
pub(crate) fn find<'w>(world: &'w Snapshot, request: &Request, cx: &Exchange) -> (&'w Route, Result<Found, Rejection>) {
    let no = match with_head(world, request, cx, |head| world.table.find(&head)) {
        Outcome::Found(found) => {
            let Some(route) = world.routes.get(found.route) else {
                return (&world.nowhere, Err(Rejection::from(&ROUTE_NOT_FOUND)));
            };
            let verdict = match found.stop {
                None => Ok(found),
                Some(table::Stop::EncodedSlash) => Err(Rejection::from(&REQUEST_ENCODED_SLASH)),
            };
            return (route, verdict);
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
    (&world.nowhere, Err(no))
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

fn has_no_body(status: StatusCode) -> bool {
    status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}
