//! A double of the part of Kubernetes' API server that lists and watches EndpointSlices, written from its documented protocol
//! (<https://kubernetes.io/docs/reference/using-api/api-concepts/>).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::answer::{Answer, chunk};
use crate::message::Message;
use crate::upstream::{Peer, Upstream};
use crate::wait::now;

/// An API server. It ends when it is dropped.
#[derive(Debug)]
pub struct ApiServer {
    service: Upstream,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    /// What is older cannot be watched from.
    oldest: u64,
    slices: BTreeMap<String, Value>,
    /// By version, in order.
    events: Vec<(u64, Value)>,
    /// Rises when all watches are to end.
    ended: u64,
    lists: usize,
    watches: usize,
    /// The token that is taken, where one is demanded.
    token: Option<String>,
    /// How many slices a page has, whatever is asked for.
    page: usize,
}

impl ApiServer {
    /// A server that demands this token, if any, and gives so many slices on a page.
    ///
    /// # Panics
    /// Never: nothing panics while it holds the lock.
    pub fn start(token: Option<&str>, page: usize) -> Self {
        let shared = Arc::<Shared>::default();
        {
            let mut state = shared.state.lock().unwrap();
            (state.version, state.page, state.token) = (100, page, token.map(str::to_owned));
        }
        let of_script = Arc::clone(&shared);
        let service = Upstream::script(move |peer| {
            while let Ok(request) = peer.request() {
                if !of_script.serve(peer, &request) {
                    return;
                }
            }
        });
        Self { service, shared }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.service.address()
    }

    /// The requests that came.
    pub fn seen(&self) -> Vec<Message> {
        self.service.seen()
    }

    /// Puts a slice of `service` in the namespace `shop`, with these endpoints, each an address and whether it is ready.
    pub fn slice(&self, name: &str, service: &str, endpoints: &[(SocketAddr, bool)]) {
        let mut groups: BTreeMap<u16, Vec<Value>> = BTreeMap::new();
        for (at, ready) in endpoints {
            let conditions = json!({ "ready": ready, "serving": true, "terminating": !ready });
            let endpoint = json!({ "addresses": [at.ip().to_string()], "conditions": conditions, "zone": "eu-1a" });
            groups.entry(at.port()).or_default().push(endpoint);
        }
        assert!(groups.len() <= 1, "a slice has one port of each name");
        let (port, endpoints) = groups.into_iter().next().unwrap_or((80, Vec::new()));
        let mut object = json!({
            "metadata": { "name": name, "namespace": "shop", "labels": { "kubernetes.io/service-name": service } },
            "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{ "name": "http", "port": port, "protocol": "TCP" }],
        });
        self.change(|state| {
            object["metadata"]["resourceVersion"] = state.version.to_string().into();
            let kind = if state.slices.contains_key(name) { "MODIFIED" } else { "ADDED" };
            state.slices.insert(name.to_owned(), object.clone());
            json!({ "type": kind, "object": object })
        });
    }

    /// Takes a slice away.
    ///
    /// # Panics
    /// If it is not there.
    pub fn remove(&self, name: &str) {
        self.change(|state| {
            let mut object = state.slices.remove(name).expect("the slice is there");
            object["metadata"]["resourceVersion"] = state.version.to_string().into();
            json!({ "type": "DELETED", "object": object })
        });
    }

    /// Forgets what was: a watch from an older version is answered with 410, in its stream.
    pub fn compact(&self) {
        let mut state = self.shared.state.lock().unwrap();
        // Something else changed meanwhile, as it does in a cluster.
        state.version += 50;
        state.oldest = state.version;
        state.events.clear();
    }

    /// Ends all watches, in good order.
    pub fn end_watches(&self) {
        self.shared.state.lock().unwrap().ended += 1;
        self.shared.changed.notify_all();
    }

    /// Takes another token from now on.
    pub fn demand(&self, token: &str) {
        self.shared.state.lock().unwrap().token = Some(token.to_owned());
    }

    /// How many lists, pages of them included, and how many watches there were.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.shared.state.lock().unwrap();
        (state.lists, state.watches)
    }

    fn change(&self, change: impl FnOnce(&mut State) -> Value) {
        let mut state = self.shared.state.lock().unwrap();
        state.version += 1;
        let event = change(&mut state);
        let version = state.version;
        state.events.push((version, event));
        self.shared.changed.notify_all();
    }
}

impl Shared {
    /// Whether the connection may go on.
    fn serve(&self, peer: &mut Peer, request: &Message) -> bool {
        let target = request.target().to_owned();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let value = |key: &str| {
            query.split('&').filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == key).map(|(_, v)| v)
        };
        let refuse = |code: u16, message: &str| {
            Answer::new(code).body(json!({ "kind": "Status", "code": code, "message": message }).to_string())
        };
        let token = self.state.lock().unwrap().token.clone();
        if token.is_some_and(|token| request.field("authorization") != Some(format!("Bearer {token}"))) {
            return peer.answer(&refuse(401, "Unauthorized"), "GET");
        }
        let service = value("labelSelector").and_then(|text| text.strip_prefix("kubernetes.io%2Fservice-name%3D"));
        let Some(service) = service.filter(|_| path == "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices")
        else {
            return peer.answer(&refuse(403, "endpointslices.discovery.k8s.io is forbidden"), "GET");
        };
        if value("watch").is_some() {
            let from = value("resourceVersion").unwrap_or_default().parse().unwrap_or_default();
            let seconds = value("timeoutSeconds").and_then(|text| text.parse().ok()).unwrap_or(60);
            self.watch(peer, service, from, Duration::from_secs(seconds));
            return false;
        }
        peer.answer(&self.list(service, value("continue")), "GET")
    }

    fn list(&self, service: &str, from: Option<&str>) -> Answer {
        let mut state = self.state.lock().unwrap();
        state.lists += 1;
        let skip: usize = from.and_then(|text| text.parse().ok()).unwrap_or_default();
        let all: Vec<_> = state.slices.values().filter(|slice| is_of(slice, service)).cloned().collect();
        let items: Vec<_> = all.iter().skip(skip).take(state.page).cloned().collect();
        let more = (skip + items.len() < all.len()).then(|| (skip + items.len()).to_string());
        let metadata = json!({ "resourceVersion": state.version.to_string(), "continue": more });
        Answer::json(&json!({ "kind": "EndpointSliceList", "metadata": metadata, "items": items }))
    }

    fn watch(&self, peer: &mut Peer, service: &str, mut from: u64, span: Duration) {
        let until = now() + span;
        peer.send("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n");
        let mut state = self.state.lock().unwrap();
        state.watches += 1;
        let ended = state.ended;
        loop {
            let mut lines = Vec::new();
            if from < state.oldest {
                let status = json!({ "kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version" });
                lines.push(json!({ "type": "ERROR", "object": status }));
            }
            lines.extend(
                state
                    .events
                    .iter()
                    .filter(|(version, event)| *version > from && is_of(&event["object"], service))
                    .map(|(_, e)| e.clone()),
            );
            let gone = from < state.oldest;
            from = from.max(state.version);
            let over = gone || state.ended > ended || now() >= until;
            drop(state);
            let text = lines.iter().fold(String::new(), |text, line| text + &line.to_string() + "\n");
            if !text.is_empty() && !peer.send(chunk(text.as_bytes())) {
                return;
            }
            if over {
                peer.send("0\r\n\r\n");
                return;
            }
            state = self.state.lock().unwrap();
            if state.version == from && state.ended == ended {
                state = self.changed.wait_timeout(state, Duration::from_millis(500)).unwrap().0;
            }
        }
    }
}

fn is_of(slice: &Value, service: &str) -> bool {
    slice["metadata"]["labels"]["kubernetes.io/service-name"] == service
}
