//! The admin API: probes, metrics, a view of what runs, and reloads. The only writer of it.
//!
//! It listens on loopback; elsewhere it demands a bearer token (RFC 6750). It refuses what came through the gateway
//! itself, and hosts that are not its own, so that no route and no web page reaches it by a detour.

mod breaker;
mod explain;
pub mod history;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::{Request, State as Shared};
use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN, VIA, WWW_AUTHENTICATE};
use axum::http::uri::Authority;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use pylon_net::door::Door;
use pylon_observe::reloads::Outcome;
use serde::Serialize;

use crate::gateway::State;
use crate::grpc_health;
use crate::history::keeper::InForce;
use crate::prepare::Prepared;
use crate::reload::{Cause, Who};

/// A route as the admin API shows it.
#[derive(Debug, Clone, Serialize)]
pub struct RouteView {
    /// Its stable id.
    pub id: String,
    /// Its match, in canonical text.
    #[serde(rename = "match")]
    pub matching: String,
    /// What it does.
    pub action: String,
    /// Its effective policies, in the order of the document.
    pub policies: Vec<&'static str>,
    /// Those that are watched and not enforced.
    pub shadow: Vec<String>,
    /// Where it is written.
    pub at: String,
}

/// The routes of a document in its order.
pub(crate) fn route_views(prepared: &Prepared) -> Vec<RouteView> {
    let snapshot = &prepared.compiled.snapshot;
    (snapshot.routes.iter().zip(snapshot.table.routes()).zip(&prepared.compiled.origins))
        .map(|((route, matching), origin)| RouteView {
            id: route.id.to_string(),
            matching: matching.to_string(),
            action: origin.action.clone(),
            policies: origin.policies.iter().map(|(spec, _)| spec.key()).collect(),
            shadow: origin.shadow.clone(),
            at: origin.at.to_string(),
        })
        .collect()
}

/// Serves the admin API until its runtime ends, or another process does.
pub(crate) async fn serve(socket: std::net::TcpListener, door: Arc<Door>, state: Arc<State>) {
    let listener = match tokio::net::TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the admin API cannot listen");
            return;
        }
    };
    let left = async move {
        door.is_shut().await;
    };
    if let Err(error) = axum::serve(listener, router(state)).with_graceful_shutdown(left).await {
        tracing::error!(%error, "the admin API ended");
    }
}

fn router(state: Arc<State>) -> Router {
    let guarded = Router::new()
        .route("/metrics", get(metrics))
        .route("/api/routes", get(routes))
        .route("/api/listeners", get(listeners))
        .route("/api/upstreams", get(upstreams))
        .route("/api/upstreams/{name}/breaker", post(breaker::order))
        .route("/api/supplies", get(supplies))
        .route("/api/snapshot", get(snapshot))
        .route("/api/recent", get(recent))
        .route("/api/reload", get(last_reload).post(reload))
        .route("/api/upgrade", get(last_upgrade))
        .route("/api/explain", post(explain::explain))
        .route("/api/history", get(history::list))
        .route("/api/rollback/{number}", post(history::roll_back))
        .layer(middleware::from_fn_with_state(Arc::clone(&state), authenticate));
    Router::new()
        .route("/livez", get(|| async { "live\n" }))
        .route("/readyz", get(ready))
        .route("/grpc.health.v1.Health/Check", post(grpc_health::check))
        .route("/grpc.health.v1.Health/Watch", post(grpc_health::watch))
        .merge(guarded)
        .layer(middleware::from_fn_with_state(Arc::clone(&state), no_detour))
        .with_state(state)
}

/// Refuses detours: requests that the gateway itself forwarded, and names that somebody else points at this address.
async fn no_detour(Shared(state): Shared<Arc<State>>, request: Request, next: Next) -> Response {
    let through_us = request
        .headers()
        .get_all(VIA)
        .iter()
        .any(|via| via.to_str().is_ok_and(|via| via.split([',', ' ']).any(|word| word == state.pseudonym)));
    if through_us {
        return (StatusCode::FORBIDDEN, "the admin API cannot be reached through the gateway\n").into_response();
    }
    if state.facts.borrow().token.is_none() && !has_own_host(&request) {
        return (StatusCode::FORBIDDEN, "the admin API answers to its address and to localhost only\n").into_response();
    }
    next.run(request).await
}

/// Whether the Host is an address or `localhost`: a page cannot send that from another site's name (DNS rebinding).
fn has_own_host(request: &Request) -> bool {
    let written = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    // HTTP/2 has it in the target.
    let Some(host) = written.or_else(|| request.uri().authority().map(Authority::as_str)) else { return true };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty() => name,
        _ => host,
    };
    name == "localhost" || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
}

async fn authenticate(Shared(state): Shared<Arc<State>>, request: Request, next: Next) -> Response {
    let facts = Arc::clone(&state.facts.borrow());
    let Some(token) = &facts.token else { return next.run(request).await };
    let offered = request.headers().get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    if offered.is_some_and(|offered| token.matches(offered)) {
        return next.run(request).await;
    }
    (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")], "a bearer token is needed\n").into_response()
}

async fn ready(Shared(state): Shared<Arc<State>>) -> Response {
    let no = |why: &'static str| (StatusCode::SERVICE_UNAVAILABLE, why).into_response();
    if !state.ready.load(Ordering::Relaxed) {
        no("draining\n")
    } else if state.bounds.caps.is_shedding() {
        no("memory is short\n")
    } else {
        "ready\n".into_response()
    }
}

async fn metrics(Shared(state): Shared<Arc<State>>) -> Response {
    let mut text = String::with_capacity(16 * 1024);
    state.observer.metrics().render(tokio::time::Instant::now().into_std(), &mut text);
    ([(CONTENT_TYPE, pylon_observe::render::CONTENT_TYPE)], text).into_response()
}

async fn routes(Shared(state): Shared<Arc<State>>) -> Response {
    let facts = Arc::clone(&state.facts.borrow());
    Json(&facts.routes).into_response()
}

async fn listeners(Shared(state): Shared<Arc<State>>) -> Response {
    Json(state.ports.view()).into_response()
}

async fn upstreams(Shared(state): Shared<Arc<State>>) -> Response {
    let snapshot = state.world.current();
    let views: Vec<_> = snapshot.upstreams.values().map(|upstream| upstream.view()).collect();
    Json(views).into_response()
}

async fn supplies(Shared(state): Shared<Arc<State>>) -> Response {
    Json(state.observer.metrics().supplies(tokio::time::Instant::now().into_std())).into_response()
}

async fn last_reload(Shared(state): Shared<Arc<State>>) -> Response {
    let last = Arc::clone(&state.last.borrow());
    Json(&*last).into_response()
}

/// What became of the last upgrade; `null` where there was none.
async fn last_upgrade(Shared(state): Shared<Arc<State>>) -> Response {
    Json(&*state.upgraded.lock()).into_response()
}

/// Puts the document in force that the files hold now: 200 when it serves, 422 with the reasons when it does not.
async fn reload(Shared(state): Shared<Arc<State>>, request: Request) -> Response {
    // Browsers name the page that sends this; none has any business here, whoever sits before it.
    if request.headers().contains_key(ORIGIN) {
        return (StatusCode::FORBIDDEN, "the admin API does nothing for web pages\n").into_response();
    }
    let cause = Cause { who: Who::Admin, why: None };
    let Some(report) = state.reloader.reload(cause).await else {
        return (StatusCode::SERVICE_UNAVAILABLE, "the gateway is ending\n").into_response();
    };
    let status = match report.outcome {
        Outcome::Applied => StatusCode::OK,
        Outcome::Refused => StatusCode::UNPROCESSABLE_ENTITY,
    };
    (status, Json(&*report)).into_response()
}

async fn recent(Shared(state): Shared<Arc<State>>) -> Response {
    Json(state.observer.recent()).into_response()
}

#[derive(Serialize)]
struct SnapshotView {
    version: &'static str,
    hash: String,
    #[serde(flatten)]
    in_force: InForce,
    age_seconds: u64,
    routes: usize,
    upstreams: usize,
    workers: Vec<WorkerView>,
}

#[derive(Serialize)]
struct WorkerView {
    open_connections: usize,
    accepted_connections: usize,
}

async fn snapshot(Shared(state): Shared<Arc<State>>) -> Response {
    let snapshot = state.world.current();
    let now = tokio::time::Instant::now().into_std();
    Json(SnapshotView {
        version: env!("CARGO_PKG_VERSION"),
        hash: snapshot.hash.clone(),
        in_force: state.history.in_force(),
        age_seconds: now.saturating_duration_since(state.facts.borrow().since).as_secs(),
        routes: snapshot.routes.len(),
        upstreams: snapshot.upstreams.len(),
        workers: (state.drains.iter())
            .map(|drain| WorkerView { open_connections: drain.open(), accepted_connections: drain.accepted() })
            .collect(),
    })
    .into_response()
}
