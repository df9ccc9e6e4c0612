//! What becomes of those who came by what another document does not have any more: routes and listeners.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use pylon_proxy::removal::Streams;
use pylon_proxy::snapshot::Snapshot;
use pylon_proxy::world::{Stage, World};

/// How long answers of a route that is gone may take to end by themselves.
const SHORT: Duration = Duration::from_secs(1);

/// Ends the streams of routes that are gone, where they are to end with them, once what is short has had time to end by itself.
pub(super) fn end_streams(before: &Stage, world: &Arc<World>) {
    let now = world.current();
    let ids: HashSet<_> = now.routes.iter().map(|route| &route.id).collect();
    let mut gone = Vec::new();
    for snapshot in before.all() {
        let routes = snapshot.routes.iter().filter(|route| !ids.contains(&route.id));
        gone.extend(routes.filter_map(|route| route.streams.clone()));
    }
    if gone.is_empty() {
        return;
    }
    let world = Arc::clone(world);
    tokio::spawn(async move {
        tokio::time::sleep(SHORT).await;
        let now = world.current();
        // A route may be back by now.
        let is_back = |streams: &Arc<Streams>| {
            now.routes.iter().filter_map(|route| route.streams.as_ref()).any(|other| Arc::ptr_eq(other, streams))
        };
        gone.iter().filter(|streams| !is_back(streams)).for_each(|streams| streams.end());
    });
}

/// Whoever has come by a listener that is gone, and was not looked at yet, is carried where it was to go.
pub(super) fn keep_ways<'c>(next: &mut Snapshot, current: &Snapshot, gone: impl Iterator<Item = &'c Arc<str>>) {
    for listener in gone {
        if let Some(way) = current.tcp.get(listener) {
            next.tcp.insert(Arc::clone(listener), Arc::clone(way));
        }
    }
}
