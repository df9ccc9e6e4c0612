//! What sources of endpoints tell of themselves: asked for when somebody looks, so that ages are true.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::catalogue;
use crate::render::{decimal, extend, head, labelled, labels};
use crate::series::UpstreamSeries;

/// One source of endpoints at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceReading {
    /// What it is: `dns`, `consul`, `host name`.
    pub source: &'static str,
    /// What is looked for.
    pub name: String,
    /// How many endpoints it names, or addresses of a host name.
    pub endpoints: u64,
    /// How long ago they were last confirmed; none where they never were.
    pub age: Option<Duration>,
    /// How many attempts have failed.
    pub failures: u64,
}

/// Reads the sources of an upstream at that moment. None once the upstream is gone.
pub type ReadSources = Box<dyn Fn(Instant) -> Option<Vec<SourceReading>> + Send + Sync>;

/// Who tells of an upstream's sources: more than one while a document takes the place of another.
#[derive(Default)]
pub(crate) struct Sources(Mutex<Vec<ReadSources>>);

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

impl Sources {
    pub(crate) fn told_by(&self, read: ReadSources, now: Instant) {
        let mut readers = self.0.lock();
        readers.retain(|read| read(now).is_some());
        readers.push(read);
    }

    /// What the newest that is there tells.
    fn read(&self, now: Instant) -> Vec<SourceReading> {
        self.0.lock().iter().rev().find_map(|read| read(now)).unwrap_or_default()
    }
}

/// Writes the families of sources.
pub(crate) fn render(out: &mut String, series: &[Arc<UpstreamSeries>], now: Instant) {
    let mut all: Vec<_> = series
        .iter()
        .flat_map(|one| one.sources().read(now).into_iter().map(|source| (one.upstream(), source)))
        .collect();
    all.sort_unstable_by(|(a, x), (b, y)| (a.as_str(), x.source, &x.name).cmp(&(b.as_str(), y.source, &y.name)));
    for metric in [&catalogue::DISCOVERY_ENDPOINTS, &catalogue::DISCOVERY_FAILURES] {
        head(out, metric);
        for (upstream, source) in &all {
            let failures = metric.name == catalogue::DISCOVERY_FAILURES.name;
            let value = if failures { source.failures } else { source.endpoints };
            labelled(out, metric, &[upstream.as_str(), source.source, &source.name], value);
        }
    }
    head(out, &catalogue::DISCOVERY_AGE);
    for (upstream, source) in &all {
        if let Some(age) = source.age {
            labels(out, &catalogue::DISCOVERY_AGE, &[upstream.as_str(), source.source, &source.name]);
            extend(out, &[" "]);
            decimal(out, u64::try_from(age.as_millis()).unwrap_or(u64::MAX), 3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_that_lives_tells_and_those_that_are_gone_are_let_go() {
        let (sources, now) = (Sources::default(), crate::clock::monotonic());
        let reading =
            |name: &str| SourceReading { source: "file", name: name.to_owned(), endpoints: 1, age: None, failures: 0 };
        let first = Arc::new(reading("first"));
        let told = |reading: &Arc<SourceReading>| -> ReadSources {
            let weak = Arc::downgrade(reading);
            Box::new(move |_| weak.upgrade().map(|reading| vec![(*reading).clone()]))
        };
        sources.told_by(told(&first), now);
        let second = Arc::new(reading("second"));
        sources.told_by(told(&second), now);
        assert_eq!(sources.read(now), [reading("second")]);
        drop(second);
        assert_eq!(sources.read(now), [reading("first")], "a candidate was taken back");
        drop(first);
        sources.told_by(told(&Arc::new(reading("third"))), now);
        assert_eq!((sources.read(now), sources.0.lock().len()), (Vec::new(), 1));
    }
}
