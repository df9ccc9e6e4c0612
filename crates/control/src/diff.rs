//! `pylon diff`: what changes between two documents, told from their specs and not from their text.
//!
//! Parts are paired by what names them: listeners by address, upstreams by name, routes by id. A key is told by its path
//! below the part. Values that hold secrets are compared and never shown.

pub(crate) mod flat;
mod logged;
mod parts;
pub mod traffic;
mod words;

use std::collections::HashMap;

use serde::Serialize;
use serde_json::Value;

use crate::prepare::Prepared;
use parts::Piece;

/// What changes from one document to another.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Diff {
    /// The document before.
    pub old: Side,
    /// The document after.
    pub new: Side,
    /// What changes, part by part.
    pub changes: Vec<Change>,
    /// What it means for requests of a log, where one was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic: Option<traffic::Traffic>,
}

/// One of the two documents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Side {
    /// How the user named it.
    pub document: String,
    /// The hash of its content.
    pub hash: String,
}

/// One part of the document that changes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// What kind of part.
    pub part: Part,
    /// Which one: the address of a listener, the name of an upstream, the id of a route, the key of a setting.
    pub id: String,
    /// Whether it comes, goes or becomes another.
    pub kind: Kind,
    /// What it is or was, in a few words, where it comes or goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    /// The keys that change.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeyChange>,
}

/// The parts of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// An item of `listeners`.
    Listener,
    /// A key that stands by itself, such as `limits`.
    Setting,
    /// The key `defaults`.
    Defaults,
    /// An item of `upstreams`.
    Upstream,
    /// An item of `routes`.
    Route,
}

/// What becomes of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is another.
    Changed,
    /// It stands in another place among its like.
    Moved,
}

/// One key that changes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KeyChange {
    /// Its path below the part: `timeout.response`.
    pub key: String,
    /// The value before; null where there was none.
    pub old: Value,
    /// The value after; null where there is none.
    pub new: Value,
    /// How many routes meet the change of a default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routes: Option<usize>,
}

impl Diff {
    /// Compares two documents, which the user calls by these names.
    pub fn between(old: (&str, &Prepared), new: (&str, &Prepared)) -> Self {
        let side = |(name, prepared): (&str, &Prepared)| Side {
            document: name.to_owned(),
            hash: prepared.compiled.snapshot.hash.clone(),
        };
        let (before, after) = (parts::of(old.1), parts::of(new.1));
        let mut changes = changes(before, after);
        parts::count_routes(&mut changes, old.1, new.1);
        if parts::are_reordered(old.1, new.1) {
            changes.push(Change {
                part: Part::Route,
                id: "(order)".to_owned(),
                kind: Kind::Moved,
                what: Some("routes stand in another order, which decides between equally specific ones".to_owned()),
                keys: Vec::new(),
            });
        }
        Self { old: side(old), new: side(new), changes, traffic: None }
    }

    /// Whether the two mean the same.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// What is gone or another, in the order of the old document, then what is new, in the order of the new one.
fn changes(before: Vec<Piece>, after: Vec<Piece>) -> Vec<Change> {
    let mut later: HashMap<(Part, String), Vec<Piece>> = HashMap::new();
    let order: Vec<_> = after.iter().map(|piece| (piece.part, piece.id.clone())).collect();
    for piece in after.into_iter().rev() {
        later.entry((piece.part, piece.id.clone())).or_default().push(piece);
    }
    let mut changes = Vec::new();
    for old in before {
        match later.get_mut(&(old.part, old.id.clone())).and_then(Vec::pop) {
            None => changes.push(whole(old, Kind::Removed)),
            Some(new) => changes.extend(changed(old, &new)),
        }
    }
    for key in order {
        if let Some(new) = later.get_mut(&key).and_then(Vec::pop) {
            changes.push(whole(new, Kind::Added));
        }
    }
    changes.sort_by_key(|change| change.part as u8);
    changes
}

fn whole(piece: Piece, kind: Kind) -> Change {
    Change { part: piece.part, id: piece.id, kind, what: Some(piece.words), keys: Vec::new() }
}

fn changed(old: Piece, new: &Piece) -> Option<Change> {
    let keys = flat::keys(&old.value, &new.value);
    (!keys.is_empty()).then(|| Change { part: old.part, id: old.id, kind: Kind::Changed, what: None, keys })
}

#[cfg(test)]
mod tests;
