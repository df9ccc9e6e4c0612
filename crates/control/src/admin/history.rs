//! The part of the admin API that is about the history: which revisions there are, and the way back to one.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State as Shared};
use axum::http::header::ORIGIN;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use pylon_observe::reloads::Outcome;
use serde::{Deserialize, Serialize};

use crate::gateway::State;
use crate::history::keeper::{Rollback, causes};
use crate::history::{Draft, Entry, Revision, Store, StoreError};
use crate::reload::{Cause, Who};

/// The longest word of somebody who asks, in characters.
const WORD: usize = 200;

/// One revision as it is listed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Listed {
    /// Its number.
    pub number: u64,
    /// Whether it is the one that serves, or that the next start serves.
    pub in_force: bool,
    /// When it came into force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// Who did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The hash of its content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// What is wrong with it, where it is not whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damage: Option<String>,
}

/// All revisions of a folder, the newest first. Without a gateway that says otherwise, the newest whole one is in force.
pub fn listed(store: &Store, in_force: Option<u64>) -> Result<Vec<Listed>, StoreError> {
    let mut in_force = in_force;
    let mut all = Vec::new();
    for Entry { number, revision } in store.entries()? {
        all.push(match revision {
            Ok(Revision { at, who, why, hash, .. }) => Listed {
                number,
                in_force: *in_force.get_or_insert(number) == number,
                at: Some(at),
                who: Some(who),
                why,
                hash: Some(hash),
                damage: None,
            },
            Err(error) => Listed {
                number,
                in_force: false,
                at: None,
                who: None,
                why: None,
                hash: None,
                damage: Some(causes(&error)),
            },
        });
    }
    Ok(all)
}

/// Who asks for a rollback, in their own words.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Words {
    /// Who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The revisions.
pub(super) async fn list(Shared(state): Shared<Arc<State>>) -> Response {
    let Some(store) = state.history.store().cloned() else { return no_history() };
    let in_force = state.history.in_force().revision;
    match tokio::task::spawn_blocking(move || listed(&store, in_force)).await {
        Ok(Ok(all)) => Json(all).into_response(),
        Ok(Err(error)) => failed(&error),
        Err(error) => failed(&error),
    }
}

/// Puts a revision in force again: 200 when it serves, 422 with the reasons where it cannot be used any more.
pub(super) async fn roll_back(
    Shared(state): Shared<Arc<State>>,
    Path(number): Path<u64>,
    headers: HeaderMap,
    words: Option<Json<Words>>,
) -> Response {
    if headers.contains_key(ORIGIN) {
        return (StatusCode::FORBIDDEN, "the admin API does nothing for web pages\n").into_response();
    }
    let Some(store) = state.history.store().cloned() else { return no_history() };
    let Json(words) = words.unwrap_or_default();
    let who = words.who.map_or_else(|| "admin".to_owned(), |who| format!("{} by admin", word(&who)));
    let why = words.why.as_deref().map(word);
    let drafted = tokio::task::spawn_blocking(move || draft(&store, number, who, why)).await;
    let rollback = match drafted {
        Ok(Ok(rollback)) => rollback,
        Ok(Err(StoreError::Missing(_))) => {
            return (StatusCode::NOT_FOUND, format!("there is no revision {number}\n")).into_response();
        }
        Ok(Err(error)) => return failed(&error),
        Err(error) => return failed(&error),
    };
    let cause = Cause { who: Who::Admin, why: rollback.draft.why.clone() };
    match state.reloader.roll_back(rollback, cause).await {
        None => (StatusCode::SERVICE_UNAVAILABLE, "the gateway is ending\n").into_response(),
        Some(report) if report.outcome == Outcome::Refused => {
            (StatusCode::UNPROCESSABLE_ENTITY, Json(&*report)).into_response()
        }
        Some(_) => Json(state.history.in_force()).into_response(),
    }
}

fn draft(store: &Store, number: u64, who: String, why: Option<String>) -> Result<Rollback, StoreError> {
    let revision = store.read(number)?;
    let newest = store.newest()?.unwrap_or_else(|| revision.clone());
    let draft = Draft::rollback(&revision, &newest, who, why);
    Ok(Rollback { revision: Arc::new(revision), draft })
}

/// What somebody says of themselves, short and on one line: it goes to the history and the log.
fn word(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(WORD).collect()
}

fn no_history() -> Response {
    let text = "no history is kept: start the gateway with `--state FOLDER`\n";
    (StatusCode::NOT_FOUND, text).into_response()
}

fn failed(error: &(dyn std::error::Error + 'static)) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", causes(error))).into_response()
}
