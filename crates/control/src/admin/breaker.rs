//! Orders to circuit breakers: held open or closed by a person, or left to judge by themselves again.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State as Shared};
use axum::http::header::ORIGIN;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use pylon_core::names::UpstreamName;
use pylon_upstream::breaker::scopes::NoBreaker;
use pylon_upstream::breaker::word::Force;
use serde::Deserialize;

use crate::gateway::State;

/// An order.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    state: Wanted,
    /// The endpoint that it is for, as `/api/upstreams` names it.
    endpoint: Option<String>,
    /// The route that it is for, by its id.
    route: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Wanted {
    Open,
    Closed,
    Auto,
}

/// Puts a breaker under an order until the next one, or the end of the process: 200 with the upstream as it is then, 404 where
/// there is no such upstream, endpoint or route, 409 where there is no breaker.
pub(super) async fn order(
    Shared(state): Shared<Arc<State>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Json(order): Json<Order>,
) -> Response {
    if headers.contains_key(ORIGIN) {
        return (StatusCode::FORBIDDEN, "the admin API does nothing for web pages\n").into_response();
    }
    if order.endpoint.is_some() && order.route.is_some() {
        let text = "a breaker is that of an endpoint or that of a route: leave one of them out\n";
        return (StatusCode::UNPROCESSABLE_ENTITY, text).into_response();
    }
    let force = match order.state {
        Wanted::Open => Force::Open,
        Wanted::Closed => Force::Closed,
        Wanted::Auto => Force::Auto,
    };
    let name = UpstreamName::from(name);
    let stage = state.world.stage();
    let Some(upstream) = stage.stable().upstreams.get(&name) else {
        return (StatusCode::NOT_FOUND, format!("there is no upstream `{name}`\n")).into_response();
    };
    let (endpoint, route) = (order.endpoint.as_deref(), order.route.as_deref());
    let ordered = upstream.force(force, endpoint, route);
    // Of two documents in force each has breakers of its own; whoever gives an order means both.
    for other in stage.all().iter().skip(1).filter_map(|snapshot| snapshot.upstreams.get(&name)) {
        let _where_it_has_one = other.force(force, endpoint, route);
    }
    match ordered {
        Ok(()) => Json(upstream.view()).into_response(),
        Err(why @ (NoBreaker::Endpoint(_) | NoBreaker::Route(_))) => {
            (StatusCode::NOT_FOUND, format!("{why}\n")).into_response()
        }
        Err(why) => (StatusCode::CONFLICT, format!("{why}\n")).into_response(),
    }
}
