use std::time::Duration;

use pylon_core::priority::Priority::{Critical, High, Low, Normal};

use super::*;

const WAITS: Waits = Waits { most: 4, wait: Duration::from_millis(100) };

fn start() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn limited(limit: u32) -> (Arc<Gate>, Instant) {
    let settings = Settings { limit: Some(limit), bounds: None, waits: WAITS };
    let start = start();
    (Arc::new(Gate::new(Arc::new(Limiter::new(&settings, start)))), start)
}

fn enter(gate: &Arc<Gate>, class: Priority, now: Instant) -> Option<Permit> {
    gate.limiter.enter(class, now).then(|| Permit::new(gate))
}

fn wait(gate: &Arc<Gate>, class: Priority, caller: u64, now: Instant) -> (Ticket, oneshot::Receiver<Verdict>) {
    assert!(!gate.limiter.enter(class, now));
    match gate.limiter.queue(gate, class, caller, now, None) {
        Turn::Wait(ticket, until, told) => {
            assert_eq!(until, now + WAITS.wait);
            (ticket, told)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn as_many_go_on_as_may_and_who_leaves_hands_his_place_over() {
    let (gate, now) = limited(2);
    let (first, second) = (enter(&gate, Normal, now).unwrap(), enter(&gate, Normal, now).unwrap());
    assert!(enter(&gate, Normal, now).is_none());
    let (_, mut normal) = wait(&gate, Normal, 1, now);
    let (_, mut high) = wait(&gate, High, 1, now);
    assert!(normal.try_recv().is_err() && high.try_recv().is_err());
    drop(first);
    let third = high.try_recv().unwrap().unwrap();
    assert_eq!((gate.limiter.under_way(), gate.limiter.by_class().0), (2, [0, 1, 0, 0]));
    // One place is left to those above, now that there are any.
    drop(second);
    assert!(normal.try_recv().is_err());
    drop(third);
    assert!(normal.try_recv().unwrap().is_ok());
    assert_eq!(gate.limiter.under_way(), 0, "a permit that was taken and dropped is given back");
}

#[test]
fn a_place_for_somebody_who_has_gone_meanwhile_goes_to_the_next() {
    let (gate, now) = limited(1);
    let first = enter(&gate, Normal, now).unwrap();
    let (_, gone) = wait(&gate, Normal, 1, now);
    let (ticket, left) = wait(&gate, Normal, 2, now);
    let (_, mut last) = wait(&gate, Normal, 3, now);
    drop(gone);
    drop(left);
    gate.limiter.give_up(Normal, ticket, false);
    drop(first);
    assert!(last.try_recv().unwrap().is_ok());
    assert_eq!((gate.limiter.under_way(), gate.limiter.by_class()), (0, ([0; 4], [0; 4])));
}

#[test]
fn the_lowest_class_is_refused_first_and_counted() {
    let (gate, now) = limited(1);
    let _first = enter(&gate, Critical, now).unwrap();
    let mut low: Vec<_> = (0..4).map(|caller| wait(&gate, Low, caller, now).1).collect();
    assert!(matches!(gate.limiter.queue(&gate, Low, 9, now, None), Turn::Shed(Shed::Full)));
    let (_, _normal) = wait(&gate, Normal, 9, now);
    let refused = low.iter_mut().filter_map(|told| told.try_recv().ok()).filter(Result::is_err).count();
    assert_eq!((refused, gate.limiter.by_class()), (1, ([3, 1, 0, 0], [2, 0, 0, 0])));
}

#[test]
fn whose_time_is_over_when_a_place_comes_is_refused() {
    let (gate, _) = limited(1);
    let long_ago = start().checked_sub(Duration::from_secs(1)).unwrap();
    let first = enter(&gate, Normal, long_ago).unwrap();
    let (ticket, mut late) = wait(&gate, Normal, 1, long_ago);
    let (_, mut next) = wait(&gate, Normal, 2, start());
    drop(first);
    assert_eq!(late.try_recv().unwrap().err(), Some(Shed::Late));
    assert!(next.try_recv().unwrap().is_ok());
    gate.limiter.give_up(Normal, ticket, true);
    assert_eq!(gate.limiter.by_class().1, [0, 1, 0, 0], "he is counted once");
}

#[test]
fn a_higher_limit_lets_those_in_who_wait() {
    let (gate, now) = limited(1);
    let _first = enter(&gate, Normal, now).unwrap();
    let mut told: Vec<_> = (0..3).map(|caller| wait(&gate, Normal, caller, now).1).collect();
    gate.limiter.set(&Settings { limit: Some(3), bounds: None, waits: WAITS }, now);
    let mut got: Vec<_> = told.iter_mut().filter_map(|told| told.try_recv().ok()).collect();
    assert_eq!((got.len(), gate.limiter.under_way()), (2, 3));
    got.clear();
    assert!(told[2].try_recv().unwrap().is_ok());
}

/// Threads that come and go at random: nobody is forgotten, and the limit holds at each moment.
#[test]
fn no_place_is_lost_and_none_is_given_twice_among_threads() {
    let (gate, _) = limited(3);
    let inside = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let (gate, inside) = (&gate, &inside);
            scope.spawn(move || {
                let mut lots = fastrand::Rng::with_seed(seed);
                for _ in 0..2_000 {
                    let class = Priority::ALL[lots.usize(..4)];
                    let permit = enter(gate, class, start()).or_else(|| {
                        match gate.limiter.queue(gate, class, lots.u64(..), start(), None) {
                            Turn::Now(permit) => Some(permit),
                            Turn::Shed(_) => None,
                            Turn::Wait(ticket, until, mut told) => loop {
                                match told.try_recv() {
                                    Ok(verdict) => break verdict.ok(),
                                    Err(_) if start() >= until || lots.u32(..50) == 0 => {
                                        gate.limiter.give_up(class, ticket, true);
                                        break None;
                                    }
                                    Err(_) => std::thread::yield_now(),
                                }
                            },
                        }
                    });
                    if permit.is_some() {
                        assert!(inside.fetch_add(1, SeqCst) < 3);
                        std::thread::yield_now();
                        inside.fetch_sub(1, SeqCst);
                    }
                }
            });
        }
    });
    assert_eq!((gate.limiter.under_way(), gate.limiter.by_class().0), (0, [0; 4]));
}
