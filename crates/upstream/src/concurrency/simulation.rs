//! Services with a capacity, and more load than that, over seeds: what comes through, and whose.
//!
//! Time is tokio's own and stopped, so that a minute takes a moment; the code is that which serves.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pylon_core::carry::Carry;
use pylon_core::priority::Priority::{self, Critical, Normal};
use pylon_net::resolve::Resolver;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until};

use super::Limited;
use crate::spec::UpstreamSpec;
use crate::upstream::Building;

/// A service and those who call it.
#[derive(Debug, Clone, Copy)]
struct World {
    slots: usize,
    /// How long it takes on the average, and whether it always takes the same.
    service: Duration,
    steady: bool,
    /// How much is asked for, in relation to what it can do.
    load: f64,
    /// How long clients wait for an answer.
    patience: Duration,
    seconds: u64,
}

const WORLD: World = World {
    slots: 8,
    service: Duration::from_millis(40),
    steady: true,
    load: 3.0,
    patience: Duration::from_secs(1),
    seconds: 18,
};

/// What came of it, behind the first third.
#[derive(Debug, Default)]
struct Outcome {
    asked: BTreeMap<Priority, u32>,
    served: BTreeMap<Priority, u32>,
    /// The limit at the end.
    limit: u32,
}

impl Outcome {
    /// What was served in time, in relation to what the service can do.
    fn goodput(&self, world: World) -> f64 {
        let served: u32 = self.served.values().sum();
        let capacity = world.slots as f64 / world.service.as_secs_f64() * (world.seconds * 2 / 3) as f64;
        f64::from(served) / capacity
    }

    fn success(&self, class: Priority) -> f64 {
        f64::from(self.served.get(&class).copied().unwrap_or(0))
            / f64::from(self.asked.get(&class).copied().unwrap_or(1))
    }
}

fn limited(written: &str) -> Arc<Limited> {
    let document = format!(r#"{{ "endpoints": ["http://a:1"], "concurrency": {written} }}"#);
    let spec: UpstreamSpec = serde_json::from_str(&document).unwrap();
    let (carry, resolver) = (Carry::default(), Resolver::new(&["127.0.0.1:9".parse().unwrap()]).unwrap());
    let cx = Building {
        carry: &carry,
        resolver: &resolver,
        yaml: |text| Err(text.to_owned()),
        agents: &crate::tests::fixture::agents("{}", &resolver),
        secrets: |_| Ok(pylon_core::secret::Secret::new("")),
        locality: &crate::locality::LocalitySpec::default(),
    };
    let limited = Limited::compile(&"u".into(), &spec, &cx).unwrap().unwrap();
    limited.start(&Handle::current());
    Arc::new(limited)
}

/// A tenth is critical, by lot; callers are a hundred.
async fn run(world: World, limited: &Arc<Limited>, seed: u64) -> Outcome {
    let mut lots = fastrand::Rng::with_seed(seed);
    let (slots, outcome) = (Arc::new(Semaphore::new(world.slots)), Arc::new(Mutex::new(Outcome::default())));
    let (begin, rate) = (Instant::now(), world.load * world.slots as f64 / world.service.as_secs_f64());
    let (counted, end) = (begin + Duration::from_secs(world.seconds / 3), begin + Duration::from_secs(world.seconds));
    let mut at = begin;
    while at < end {
        at += exponential(&mut lots, Duration::from_secs_f64(1.0 / rate));
        sleep_until(at).await;
        let class = if lots.u32(..10) == 0 { Critical } else { Normal };
        let took = if world.steady { world.service } else { exponential(&mut lots, world.service) };
        let client = Ipv4Addr::from_bits(lots.u32(..100)).into();
        let (limited, slots, outcome) = (Arc::clone(limited), Arc::clone(&slots), Arc::clone(&outcome));
        tokio::spawn(async move {
            let (asked, patience) = (Instant::now(), world.patience);
            let is_counted = asked >= counted;
            if is_counted {
                *outcome.lock().asked.entry(class).or_default() += 1;
            }
            let exchange = async {
                let deadline = (asked + patience).into_std();
                let permit = match limited.admit(class, client, asked.into_std(), deadline).unwrap() {
                    Ok(permit) => permit,
                    Err(waiting) => waiting.await.ok()?,
                };
                let began = Instant::now();
                let _slot = slots.acquire().await.ok()?;
                sleep(took).await;
                permit.answered(200, began.into_std(), Instant::now().into_std());
                Some(())
            };
            let answered = matches!(tokio::time::timeout(patience, exchange).await, Ok(Some(())));
            if answered && is_counted {
                *outcome.lock().served.entry(class).or_default() += 1;
            }
        });
    }
    // Those under way are answered, or have lost patience.
    sleep(world.patience * 2).await;
    let mut outcome = std::mem::take(&mut *outcome.lock());
    outcome.limit = limited.view().limit;
    outcome
}

fn exponential(lots: &mut fastrand::Rng, mean: Duration) -> Duration {
    mean.mul_f64(-(1.0 - lots.f64()).ln())
}

#[tokio::test(start_paused = true)]
async fn at_three_times_the_load_a_limit_that_is_found_out_keeps_goodput_and_critical_requests() {
    let mut wrong = 0;
    for seed in 0..2 {
        for (slots, millis, steady) in [(8, 40, true), (8, 40, false), (2, 20, true)] {
            let world = World { slots, service: Duration::from_millis(millis), steady, ..WORLD };
            let outcome = run(world, &limited(r#""adaptive""#), seed).await;
            let (goodput, critical) = (outcome.goodput(world), outcome.success(Critical));
            println!(
                "{slots} slots of {millis} ms, steady {steady}, seed {seed}: goodput {goodput:.3}, critical {critical:.4}, normal {:.3}, limit {}",
                outcome.success(Normal),
                outcome.limit
            );
            wrong += usize::from(goodput < 0.9 || critical < 0.99);
        }
    }
    assert_eq!(wrong, 0, "see above");
}
