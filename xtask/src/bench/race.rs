//! Runs some programs in turns under the same load and reads what each request cost them.

use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result};

use super::figures::Spread;
use super::load::Drive;
use super::machine::{Processor, TICKS_A_SECOND};
use super::stage::{Running, Stage};

/// One lane of the race: a program, and the load on it.
#[derive(Debug)]
pub(crate) struct Entrant<'a> {
    pub(crate) label: String,
    pub(crate) running: &'a Running,
    pub(crate) drive: Rc<dyn Drive>,
}

/// How long and how hard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Course {
    pub(crate) rounds: u32,
    pub(crate) seconds: u32,
    pub(crate) connections: u32,
}

/// What one run of one entrant cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// Processor time per request, in microseconds.
    pub(crate) cpu: f64,
    pub(crate) per_second: f64,
    /// Microseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// MiB.
    pub(crate) resident: f64,
    /// What somebody else took of the proxy's processor, in percent of the time: the machine's owner, or another program.
    pub(crate) disturbed: f64,
}

/// The samples of each entrant, round by round.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) labels: Vec<String>,
    pub(crate) samples: Vec<Vec<Sample>>,
}

impl Entrant<'_> {
    fn check(&self) -> Result<()> {
        self.drive.check(self.running.port).with_context(|| self.label.clone())
    }
}

impl Outcome {
    fn of(&self, label: &str) -> &[Sample] {
        let index = self.labels.iter().position(|known| known == label);
        index.and_then(|index| self.samples.get(index)).map_or(&[], Vec::as_slice)
    }

    /// One figure of an entrant over the rounds.
    pub(crate) fn spread(&self, label: &str, figure: impl Fn(&Sample) -> f64) -> Spread {
        Spread::of(self.of(label).iter().map(figure))
    }

    /// One entrant's figure over another's, pair by pair within a round.
    pub(crate) fn ratio(&self, ours: &str, theirs: &str, figure: impl Fn(&Sample) -> f64) -> Spread {
        Spread::of(self.of(ours).iter().zip(self.of(theirs)).map(|(ours, theirs)| figure(ours) / figure(theirs)))
    }

    /// One entrant's figure over the least of two others', pair by pair within a round.
    pub(crate) fn ratio_to_least(&self, ours: &str, others: [&str; 2], figure: impl Fn(&Sample) -> f64) -> Spread {
        let [one, other] = others.map(|other| self.of(other).iter().map(&figure));
        let least = one.zip(other).map(|(one, other)| one.min(other));
        Spread::of(self.of(ours).iter().zip(least).map(|(ours, least)| figure(ours) / least))
    }
}

/// Warms everybody up, looking at each answer, then runs the rounds A B C, A B C.
pub(crate) fn race(stage: &Stage, entrants: &[Entrant<'_>], course: Course) -> Result<Outcome> {
    let warm = Course { seconds: course.seconds.min(2), ..course };
    for entrant in entrants {
        entrant.check()?;
        entrant.drive.run(entrant.running.port, warm, true).with_context(|| entrant.label.clone())?;
    }
    let mut samples = vec![Vec::new(); entrants.len()];
    for round in 1..=course.rounds {
        eprintln!("  round {round} of {}", course.rounds);
        for (entrant, samples) in entrants.iter().zip(&mut samples) {
            samples.push(run(stage, entrant, course)?);
        }
        stage.empty_logs()?;
    }
    entrants.iter().try_for_each(Entrant::check)?;
    Ok(Outcome { labels: entrants.iter().map(|entrant| entrant.label.clone()).collect(), samples })
}

/// One run of one entrant.
fn run(stage: &Stage, entrant: &Entrant<'_>, course: Course) -> Result<Sample> {
    let running = entrant.running;
    let (usage, processor, start) = (running.usage()?, Processor::read(stage.processors.proxy)?, Instant::now());
    let load = entrant.drive.run(running.port, course, false).with_context(|| entrant.label.clone())?;
    let (after, later) = (running.usage()?, Processor::read(stage.processors.proxy)?);
    let own = after.ticks.saturating_sub(usage.ticks) as f64;
    let others = (later.busy.saturating_sub(processor.busy) as f64 - own).max(0.0);
    let stolen = later.stolen.saturating_sub(processor.stolen) as f64;
    Ok(Sample {
        cpu: own / TICKS_A_SECOND * 1e6 / load.requests as f64,
        per_second: load.per_second,
        p50: load.p50,
        p99: load.p99,
        resident: after.resident as f64 / 1024.0,
        disturbed: (others + stolen) / (start.elapsed().as_secs_f64() * TICKS_A_SECOND) * 100.0,
    })
}

#[cfg(test)]
mod tests {
    use super::{Outcome, Sample};

    #[test]
    fn the_least_of_two_is_sought_round_by_round() {
        let of = |cpu| Sample { cpu, per_second: 1.0, p50: 1.0, p99: 1.0, resident: 1.0, disturbed: 0.0 };
        let outcome = Outcome {
            labels: ["ours", "a", "b"].map(str::to_owned).to_vec(),
            samples: [[6.0, 6.0], [3.0, 12.0], [6.0, 2.0]].map(|cpus| cpus.map(of).to_vec()).to_vec(),
        };
        let ratio = outcome.ratio_to_least("ours", ["a", "b"], |sample| sample.cpu);
        assert_eq!((ratio.low, ratio.high), (2.0, 3.0));
        assert!(outcome.ratio_to_least("ours", ["a", "c"], |sample| sample.cpu).median.is_nan());
    }
}
