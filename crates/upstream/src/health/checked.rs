//! An endpoint that is checked for as long as somebody holds it: one task, whoever follows what it finds.
//!
//! Endpoints with the same probe are checked once, however many upstreams and documents have them; they are found in a
//! [`Registry`], which `Carry` keeps by all that tells what is asked. When it is asked and how many answers count may differ: then
//! there are two, and the second begins with what the first has found.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pylon_net::timer;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::probe::{Aim, Probe};
use super::spec::Schedule;
use super::state::{State, Told, Verdict};
use crate::endpoint::Endpoint;

/// The endpoints that are checked by one probe.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    all: Mutex<Listed>,
}

#[derive(Debug, Default)]
struct Listed {
    checked: HashMap<Arc<str>, Vec<Weak<Checked>>>,
    /// At this size the dead are swept out.
    sweep_at: usize,
}

/// An endpoint that is checked.
#[derive(Debug)]
pub(crate) struct Checked {
    probe: Arc<Probe>,
    schedule: Schedule,
    aim: ArcSwap<Aim>,
    state: Mutex<State>,
    /// Checks that passed, and that failed.
    counts: [AtomicU64; 2],
    followers: Mutex<Vec<Weak<Notify>>>,
    task: Mutex<Option<AbortHandle>>,
}

impl Registry {
    /// The living one, or a new one. `news` is told of each change of its verdict.
    pub(crate) fn of(
        &self,
        endpoint: &Endpoint,
        probe: &Arc<Probe>,
        schedule: Schedule,
        news: &Arc<Notify>,
    ) -> Arc<Checked> {
        let mut all = self.all.lock();
        if all.checked.len() >= all.sweep_at {
            all.checked.retain(|_, list| list.iter().any(|one| one.strong_count() > 0));
            all.sweep_at = (all.checked.len() * 2).max(64);
        }
        let list = all.checked.entry(Arc::clone(&endpoint.id)).or_default();
        list.retain(|one| one.strong_count() > 0);
        let living: Vec<_> = list.iter().filter_map(Weak::upgrade).collect();
        let found = living.iter().find(|one| one.schedule == schedule).map(Arc::clone);
        let found = found.unwrap_or_else(|| {
            let learned = living.first().map(|one| one.state()).unwrap_or_default();
            let new = Arc::new(Checked::new(probe, schedule, Aim::at(endpoint), learned));
            list.push(Arc::downgrade(&new));
            new
        });
        found.followers.lock().push(Arc::downgrade(news));
        found
    }
}

impl Checked {
    fn new(probe: &Arc<Probe>, schedule: Schedule, aim: Aim, state: State) -> Self {
        Self {
            probe: Arc::clone(probe),
            schedule,
            aim: ArcSwap::from_pointee(aim),
            state: Mutex::new(state),
            counts: [AtomicU64::new(0), AtomicU64::new(0)],
            followers: Mutex::default(),
            task: Mutex::default(),
        }
    }

    /// Begins to check on `handle`, once.
    pub(crate) fn start(self: &Arc<Self>, handle: &Handle) {
        let mut task = self.task.lock();
        if task.as_ref().is_none_or(AbortHandle::is_finished) {
            let ask = |probe: Arc<Probe>, aim: Arc<Aim>, timeout| async move { probe.run(&aim, timeout).await };
            *task = Some(handle.spawn(follow(Arc::downgrade(self), ask)).abort_handle());
        }
    }

    /// Says where the endpoint is now.
    pub(crate) fn aim(&self, endpoint: &Endpoint) {
        if !self.aim.load().is_at(endpoint) {
            self.aim.store(Arc::new(Aim::at(endpoint)));
        }
    }

    /// What has been found.
    pub(crate) fn state(&self) -> State {
        self.state.lock().clone()
    }

    /// What is thought of it.
    pub(crate) fn verdict(&self) -> Verdict {
        self.state.lock().verdict
    }

    /// How many checks passed, and how many failed.
    pub(crate) fn counts(&self) -> [u64; 2] {
        self.counts.each_ref().map(|count| count.load(Relaxed))
    }

    /// Takes in a result; answers with the time until the next check, from the beginning of this one.
    fn learn(&self, result: Result<(), String>, began: Instant) -> Duration {
        let [passed, failed] = &self.counts;
        if result.is_ok() { passed } else { failed }.fetch_add(1, Relaxed);
        let mut state = self.state.lock();
        let told = state.take(result, self.schedule.thresholds, began.into_std());
        let wait = state.wait(told, self.schedule.every, fastrand::f64());
        drop(state);
        if told == Told::Changed {
            self.followers.lock().retain(|follower| {
                let Some(news) = follower.upgrade() else { return false };
                news.notify_one();
                true
            });
        }
        wait
    }
}

impl Drop for Checked {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut() {
            task.abort();
        }
    }
}

/// Checks for as long as somebody holds the endpoint, which this does not while it asks.
async fn follow<F>(checked: Weak<Checked>, ask: impl Fn(Arc<Probe>, Arc<Aim>, Duration) -> F)
where
    F: Future<Output = Result<(), String>>,
{
    let mut at = Instant::now();
    let Some(every) = checked.upgrade().map(|checked| checked.schedule.every) else { return };
    // Not all endpoints at the same moment.
    at += (every / 10).min(Duration::from_secs(1)).mul_f64(fastrand::f64());
    loop {
        timer::sleep_until(at.into()).await;
        let order = checked.upgrade().map(|it| (Arc::clone(&it.probe), it.aim.load_full(), it.schedule.timeout));
        let Some((probe, aim, timeout)) = order else { return };
        let began = Instant::now();
        let result = ask(probe, aim, timeout).await;
        let Some(checked) = checked.upgrade() else { return };
        at = began + checked.learn(result, began);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::probe::Ask;
    use crate::health::state::Thresholds;

    const EVERY: Duration = Duration::from_secs(10);

    fn checked() -> Arc<Checked> {
        let probe = Probe { ask: Ask::Tcp, port: None, http2: false, tells: None };
        let thresholds = Thresholds { rise: 2, fall: 3 };
        let schedule = Schedule { every: EVERY, timeout: Duration::from_secs(2), thresholds };
        Arc::new(Checked::new(&Arc::new(probe), schedule, Aim::nowhere(), State::default()))
    }

    /// Follows with answers of a list, the last of which stays; tells when it was asked.
    fn play(checked: &Arc<Checked>, answers: &'static [bool]) -> Arc<Mutex<Vec<Instant>>> {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&asked);
        tokio::spawn(follow(Arc::downgrade(checked), move |_, _, _| {
            let mut asked = noted.lock();
            let answer = answers.get(asked.len()).or(answers.last()).copied().unwrap();
            asked.push(Instant::now());
            async move { if answer { Ok(()) } else { Err("away".to_owned()) } }
        }));
        asked
    }

    #[tokio::test(start_paused = true)]
    async fn checks_come_one_after_the_other_give_or_take_a_tenth_of_the_interval() {
        let (checked, began) = (checked(), Instant::now());
        let asked = play(&checked, &[true]);
        tokio::time::sleep(EVERY * 100).await;
        let asked = asked.lock().clone();
        assert!(asked[0] - began <= Duration::from_secs(1), "the first comes soon");
        let pauses: Vec<_> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(pauses.iter().all(|pause| (9.0..=11.01).contains(&pause.as_secs_f64())), "{pauses:?}");
        assert!(pauses.iter().max().unwrap().as_secs_f64() - pauses.iter().min().unwrap().as_secs_f64() > 0.5);
        assert!((90..=111).contains(&asked.len()) && checked.counts() == [asked.len() as u64, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_follows_is_told_when_the_verdict_changes_and_one_that_is_gone_is_asked_no_more() {
        let (checked, news) = (checked(), Arc::new(Notify::new()));
        checked.followers.lock().push(Arc::downgrade(&news));
        let asked = play(&checked, &[true, false]);
        let began = Instant::now();
        news.notified().await;
        assert_eq!((checked.verdict(), asked.lock().len()), (Verdict::Healthy, 1));
        news.notified().await;
        // One that passed, then three that failed and were repeated a second later.
        assert_eq!((checked.verdict(), asked.lock().len()), (Verdict::Unhealthy, 7));
        assert!(began.elapsed() <= EVERY * 4, "{:?}", began.elapsed());
        drop(checked);
        tokio::time::sleep(EVERY * 10).await;
        assert_eq!(asked.lock().len(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn while_nothing_is_known_checks_come_each_second() {
        let checked = checked();
        let asked = play(&checked, &[false]);
        let began = Instant::now();
        while checked.verdict() == Verdict::Unknown {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!((checked.verdict(), asked.lock().len()), (Verdict::Unhealthy, 6));
        assert!(began.elapsed() <= Duration::from_secs(8), "{:?}", began.elapsed());
    }
}
