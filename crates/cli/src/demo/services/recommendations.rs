//! The sample service `recommendations`: what a user may like. The first is slow; its successor, `v2`, is quick.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::demo::services::inventory::ITEMS;
use crate::demo::services::reply::{Ask, Reply, Service};
use crate::demo::services::users;

/// How long the answers of each take in turn, in milliseconds. Of the first, three in ten take more than the 600 ms that
/// the document allows, and the third is one of them: whoever tries a few times sees it.
const FIRST: [u64; 10] = [240, 310, 880, 420, 270, 700, 350, 900, 200, 460];
const SECOND: [u64; 5] = [35, 20, 45, 60, 25];

#[derive(Debug)]
pub(super) struct Recommendations {
    name: &'static str,
    model: &'static str,
    times: &'static [u64],
    answers: AtomicUsize,
}

impl Recommendations {
    pub(super) const fn first() -> Self {
        Self { name: "recommendations", model: "v1", times: &FIRST, answers: AtomicUsize::new(0) }
    }

    pub(super) const fn second() -> Self {
        Self { name: "recommendations-v2", model: "v2", times: &SECOND, answers: AtomicUsize::new(0) }
    }
}

impl Service for Recommendations {
    fn name(&self) -> &'static str {
        self.name
    }

    fn answer(&self, ask: &Ask<'_>) -> Reply {
        let Some(user) = ask.below("/recommendations") else { return Reply::not_found() };
        if !ask.reads() {
            return Reply::only("GET, HEAD");
        }
        let Some(user) = user.parse().ok().filter(|user| users::exists(*user)) else { return Reply::not_found() };
        let before = self.answers.fetch_add(1, Ordering::Relaxed);
        let millis = self.times.iter().cycle().nth(before % self.times.len()).copied().unwrap_or_default();
        let picks: Vec<_> = ITEMS
            .iter()
            .cycle()
            .skip(user)
            .take(3)
            .map(|item| json!({ "sku": item.sku, "title": item.title }))
            .collect();
        Reply::ok(json!({ "user": user, "model": self.model, "items": picks })).after(Duration::from_millis(millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Request, StatusCode};

    #[test]
    fn the_slow_service_takes_from_200_to_900_ms_in_the_same_order_each_time() {
        let (head, ()) = Request::get("/recommendations/2").body(()).unwrap().into_parts();
        let ask = Ask { head: &head, body: &[] };
        for _ in 0..2 {
            let service = Recommendations::first();
            let replies: Vec<Reply> = (0..20).map(|_| service.reply(&ask)).collect();
            assert!(replies.iter().all(|reply| reply.status == StatusCode::OK));
            let times: Vec<u64> = replies.iter().map(|reply| reply.after.as_millis() as u64).collect();
            assert_eq!(times, [FIRST, FIRST].concat());
            assert_eq!((times.iter().min(), times.iter().max()), (Some(&200), Some(&900)));
        }
    }

    #[test]
    fn nobody_is_recommended_anything_who_is_not_a_user() {
        for path in ["/recommendations/9", "/recommendations/x", "/recommendations/"] {
            let (head, ()) = Request::get(path).body(()).unwrap().into_parts();
            let reply = Recommendations::second().reply(&Ask { head: &head, body: &[] });
            assert_eq!(reply.status, StatusCode::NOT_FOUND, "{path}");
        }
    }
}
