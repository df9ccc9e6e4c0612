use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use pylon_core::short::Short;
use pylon_observe::metrics::Metrics;

use super::spec::Scope;
use super::state::Whose;
use super::word::{Force, Phase};
use super::*;
use crate::standing::{Bar, Bars, Standings};

fn rules(text: &str) -> Arc<Rules> {
    let spec: Short<BreakerSpec> = serde_json::from_str(text).unwrap();
    Arc::new(Rules::compile(&spec))
}

fn state(now: Instant) -> Arc<State> {
    Arc::new(State::new(Whose { upstream: "users".into(), scope: Scope::Endpoint, name: "a:1".into() }, now))
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

const FAILED: Call = Call { failed: true, slow: false };

#[test]
fn many_workers_at_once_get_no_more_probes_than_are_allowed() {
    let began = now();
    let (state, rules) = (state(began), rules(r#"{"consecutive": 1, "probes": 3, "open": "1s"}"#));
    let fuse = Fuse::new(&state, 0, &rules, None);
    fuse.tell(FAILED, began);
    assert_eq!(fuse.admit(began).err(), Some(state.opens_in(state.word(), began)));
    for round in 1..50 {
        let then = began + Duration::from_secs(100 * round);
        let granted = AtomicUsize::new(0);
        let start = std::sync::Barrier::new(4);
        let mut probes: Vec<Probe> = std::thread::scope(|scope| {
            let worker = |place| {
                let fuse = Fuse::new(&state, place, &rules, None);
                let (granted, start) = (&granted, &start);
                scope.spawn(move || {
                    start.wait();
                    let mine: Vec<_> = (0..50).filter_map(|_| fuse.admit(then).ok().flatten()).collect();
                    granted.fetch_add(mine.len(), SeqCst);
                    mine
                })
            };
            let workers: Vec<_> = (0..4).map(worker).collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        });
        assert_eq!((granted.load(SeqCst), state.word().out()), (3, 3));
        // One client goes away: its probe is another's.
        drop(probes.pop());
        let again = fuse.admit(then).unwrap().expect("a probe that was given back");
        assert!(fuse.admit(then).is_err(), "and no more than that");
        again.end(Call::GOOD, then);
        probes.pop().unwrap().end(Call::GOOD, then);
        assert_eq!(state.word().phase(), Phase::HalfOpen, "all three have to go well");
        probes.pop().unwrap().end(FAILED, then);
        assert_eq!(state.word().phase(), Phase::Open);
    }
}

#[test]
fn an_endpoint_is_barred_for_as_long_as_its_breaker_is_not_closed() {
    let began = now();
    let standings = Standings::default();
    let standing = standings.of(&"a:1".into());
    let (state, rules) = (state(began), rules(r#"{"consecutive": 2, "open": "1s", "open_max": "8s"}"#));
    let fuse = Fuse::new(&state, 0, &rules, Some(&standing));
    fuse.tell(FAILED, began);
    assert_eq!(standing.bars(), Bars::NONE);
    fuse.tell(FAILED, began);
    assert!(standing.bars().has(Bar::Open) && standings.news() == 1);
    let then = began + Duration::from_secs(2);
    let probe = fuse.admit(then).unwrap().unwrap();
    assert!(standing.bars().has(Bar::Open), "one that is half open is for probes alone");
    probe.end(FAILED, then);
    assert!(fuse.admit(then + Duration::from_millis(1_500)).is_err(), "twice as long as at first");
    let then = then + Duration::from_millis(2_500);
    fuse.admit(then).unwrap().unwrap().end(Call::GOOD, then);
    assert_eq!((standing.bars(), state.word().phase()), (Bars::NONE, Phase::Closed));
    state.force(Force::Open, then, Some(&standing));
    assert!(standing.bars().has(Bar::Open) && fuse.admit(then).err() == Some(None), "nobody knows for how long");
    state.force(Force::Closed, then, Some(&standing));
    (0..50).for_each(|_| fuse.tell(FAILED, then));
    assert!(standing.bars() == Bars::NONE && matches!(fuse.admit(then), Ok(None)), "whatever becomes of calls");
    state.force(Force::Auto, then, Some(&standing));
    fuse.tell(FAILED, then);
    assert_eq!(state.word().phase(), Phase::Closed, "it begins anew");
    fuse.tell(FAILED, then);
    assert_eq!(state.word().phase(), Phase::Open);
}

#[test]
fn good_calls_of_all_workers_count_and_a_changed_threshold_keeps_them() {
    let began = now();
    let state = state(began);
    let (half, most) = (rules(r#"{"errors": "50%"}"#), rules(r#"{"errors": "90%"}"#));
    let before: Vec<_> = (0..2).map(|place| Fuse::new(&state, place, &half, None)).collect();
    (0..20).for_each(|n| before[n % 2].tell(Call::GOOD, began));
    (0..19).for_each(|_| before[0].tell(FAILED, began));
    assert_eq!(state.word().phase(), Phase::Closed, "19 of 39");
    let after = Fuse::new(&state, 0, &most, None);
    after.tell(FAILED, began);
    assert_eq!(state.word().phase(), Phase::Closed, "half is not enough any more");
    let view = state.view(began);
    assert_eq!((view.calls, view.failed, view.state), (40, 20, "closed"));
    // Buckets of another length tell nothing of what was before, and who still has the old ones is not heard.
    let other = Fuse::new(&state, 0, &rules(r#"{"window": "20s"}"#), None);
    (0..40).for_each(|_| before[0].tell(FAILED, began));
    assert_eq!((state.view(began).calls, state.word().phase()), (0, Phase::Closed));
    (0..20).for_each(|_| other.tell(FAILED, began));
    assert_eq!(state.word().phase(), Phase::Open);
    assert_eq!(state.view(began).why.as_deref(), Some("20 of 20 calls failed"));
}

#[test]
fn breakers_are_counted_by_the_state_that_they_are_in() {
    let began = now();
    let metrics = Metrics::new(began);
    let series = metrics.upstream(&"users".into());
    let state = state(began);
    state.counted_in(Some(&series));
    let fuse = Fuse::new(&state, 0, &rules(r#"{"consecutive": 1}"#), None);
    fuse.tell(FAILED, began);
    let rendered = || {
        let mut text = String::new();
        metrics.render(began, &mut text);
        text
    };
    let text = rendered();
    for line in [
        r#"pylon_breakers{upstream="users",scope="endpoint",state="open"} 1"#,
        r#"pylon_breakers{upstream="users",scope="endpoint",state="closed"} 0"#,
        r#"pylon_breaker_changes_total{upstream="users",scope="endpoint",state="open"} 1"#,
    ] {
        assert!(text.contains(line), "{text}");
    }
    drop((fuse, state));
    assert!(rendered().contains(r#"pylon_breakers{upstream="users",scope="endpoint",state="open"} 0"#));
}

#[test]
fn a_call_is_judged_by_the_statuses_that_are_written() {
    let rules = rules(r#"{"statuses": [429, "5xx"], "slow": "1s"}"#);
    let quick = Duration::from_millis(1_000);
    for (status, failed) in [(200, false), (404, false), (429, true), (500, true), (599, true), (101, false)] {
        assert_eq!(rules.by_status(status, quick), Call { failed, slow: false }, "{status}");
    }
    assert!(rules.by_status(200, Duration::from_millis(1_001)).slow);
}
