//! The part of the admin API that explains a request by the document in force.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::explain::{Question, Unexplained, live};
use crate::gateway::State;

/// 200 with the explanation, 400 where the question is none, 503 in the moment in which the document changes.
pub(super) async fn explain(Shared(state): Shared<Arc<State>>, Json(question): Json<Question>) -> Response {
    match live(&state, &question) {
        Ok(live) => Json(live).into_response(),
        Err(problem) => {
            let status = match problem {
                Unexplained::NoQuestion(_) => StatusCode::BAD_REQUEST,
                Unexplained::Changing => StatusCode::SERVICE_UNAVAILABLE,
            };
            (status, format!("{problem}\n")).into_response()
        }
    }
}
