//! Publishes the keys of one issuer (RFC 7517 §5): those of all rings that sign in its name, and those of rings that are gone for as
//! long as their tokens live.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use parking_lot::Mutex;
use pylon_core::body::Body;
use pylon_core::exchange::Exchange;
use pylon_core::rejection::INTERNAL;
use pylon_core::{Request, Response};
use serde_json::Value;

use super::key;
use super::ring::{FRESH, Ring};
use crate::own::Handler;
use crate::policy::Step;

/// One name under which tokens are signed.
#[derive(Debug, Default)]
pub(super) struct Issuer(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    rings: Vec<Weak<Ring>>,
    /// Public keys of rings that are gone, each until then.
    past: Vec<(Value, Instant)>,
}

impl Issuer {
    /// A ring signs in this name from now on.
    pub(super) fn add(&self, ring: &Arc<Ring>) {
        let mut state = self.0.lock();
        state.rings.retain(|ring| ring.strong_count() > 0);
        state.rings.push(Arc::downgrade(ring));
    }

    /// A ring is gone, and its keys stay until then.
    pub(super) fn retire(&self, keys: Vec<Value>, until: Instant) {
        let mut state = self.0.lock();
        state.past.retain(|(key, _)| !keys.contains(key));
        state.past.extend(keys.into_iter().map(|key| (key, until)));
    }

    /// The set, and for how long it may be kept.
    pub(super) fn published(&self, now: Instant) -> (Value, Duration) {
        let (rings, past) = {
            let mut state = self.0.lock();
            state.past.retain(|(_, until)| *until > now);
            let rings: Vec<Arc<Ring>> = state.rings.iter().filter_map(Weak::upgrade).collect();
            (rings, state.past.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>())
        };
        let (mut all, mut fresh) = (Vec::<Value>::new(), FRESH);
        for ring in &rings {
            let (keys, lead) = ring.public(now);
            fresh = fresh.min(lead);
            all.extend(keys);
        }
        all.extend(past);
        let mut set = Vec::<Value>::new();
        for key in all {
            if !set.contains(&key) {
                set.push(key);
            }
        }
        (key::set(set.into_iter()), fresh)
    }
}

impl Handler for Issuer {
    fn answer<'a>(&'a self, _: &'a mut Request, cx: &'a mut Exchange) -> Step<'a, Response> {
        let (set, fresh) = self.published(cx.started);
        let Ok(cache) = HeaderValue::try_from(format!("public, max-age={}", fresh.as_secs())) else {
            return Step::Done(Err((&INTERNAL).into()));
        };
        let mut response = Response::new(Body::from(set.to_string()));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
        headers.insert(CACHE_CONTROL, cache);
        Step::Done(Ok(response))
    }
}
