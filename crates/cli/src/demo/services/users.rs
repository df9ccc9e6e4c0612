//! The sample service `users`: five people of a shop, and what a service sees of a request.

use serde_json::{Map, Value, json};

use crate::demo::services::reply::{Ask, Reply, Service};

/// Name, e-mail, town and the day they joined. Ids count from 1.
const USERS: [[&str; 4]; 5] = [
    ["Ada Lovelace", "ada@example.com", "London", "2024-12-10"],
    ["Alan Turing", "alan@example.com", "Wilmslow", "2025-06-23"],
    ["Grace Hopper", "grace@example.com", "Arlington", "2025-12-09"],
    ["Edsger Dijkstra", "edsger@example.com", "Nuenen", "2026-05-11"],
    ["Barbara Liskov", "barbara@example.com", "Cambridge", "2026-11-07"],
];

/// Whether there is a user of that id.
pub(super) fn exists(id: usize) -> bool {
    (1..=USERS.len()).contains(&id)
}

#[derive(Debug)]
pub(super) struct Users;

impl Service for Users {
    fn name(&self) -> &'static str {
        "users"
    }

    fn answer(&self, ask: &Ask<'_>) -> Reply {
        match ask.path() {
            "/users" => {
                ask.only_get(|| Reply::ok(json!({ "users": (1..=USERS.len()).filter_map(user).collect::<Vec<_>>() })))
            }
            "/whoami" => ask.only_get(|| Reply::ok(seen(ask))),
            _ => match ask.below("/users") {
                Some(id) => ask.only_get(|| id.parse().ok().and_then(user).map_or_else(Reply::not_found, Reply::ok)),
                None => Reply::not_found(),
            },
        }
    }
}

fn user(id: usize) -> Option<Value> {
    let [name, email, town, joined] = USERS.get(id.checked_sub(1)?)?;
    Some(json!({ "id": id, "name": name, "email": email, "town": town, "joined": joined }))
}

/// The request as it reached this service.
fn seen(ask: &Ask<'_>) -> Value {
    let mut headers = Map::new();
    for name in ask.head.headers.keys() {
        let values = ask.head.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        headers.insert(name.to_string(), Value::from(values.collect::<Vec<_>>().join(", ")));
    }
    json!({ "method": ask.head.method.as_str(), "path": ask.path(), "query": ask.head.uri.query(), "headers": headers })
}
