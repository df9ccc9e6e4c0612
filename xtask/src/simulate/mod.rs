//! `cargo xtask simulate`: compares the ways to choose an endpoint over endpoints that are unlike, with the real balancers in a
//! simulated world, and writes the table into the manual.

mod worker;
mod world;

use std::fmt::Write as _;

use anyhow::{Context, Result, bail};
use pylon_upstream::balance::Method;

use self::world::{Outcome, Scenario, Site, Way};
use crate::shell;

/// Where the table stands, between two marks.
const PAGE: &str = "docs/src/balancing-simulation.md";
const BEGIN: &str = "<!-- simulation: begin -->";
const END: &str = "<!-- simulation: end -->";

const WAYS: [Way; 6] = [
    Way { name: "round_robin", method: Method::RoundRobin, orca: false },
    Way { name: "random", method: Method::Random, orca: false },
    Way { name: "least_request", method: Method::LeastRequest, orca: false },
    Way { name: "ewma", method: Method::Ewma, orca: false },
    Way { name: "round_robin, orca", method: Method::RoundRobin, orca: true },
    Way { name: "prequal", method: Method::Prequal, orca: false },
];

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The seed: the same makes the same table
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long each run is, in simulated seconds, 15 of warm-up included
    #[arg(long, default_value_t = 135)]
    seconds: u64,
    /// Print the table, and do not write it into the manual
    #[arg(long)]
    print: bool,
}

pub(crate) fn run(options: &Options) -> Result<bool> {
    if options.seconds < 30 {
        bail!("a run of less than 30 seconds tells little");
    }
    let table = table(options);
    println!("{table}");
    if !options.print {
        write(&table)?;
        println!("written to {PAGE}");
    }
    Ok(true)
}

fn table(options: &Options) -> String {
    let mut out = String::new();
    for scenario in scenarios(options.seconds) {
        // Writing to a string does not fail.
        let _ = writeln!(out, "\n**{}.** {}\n", scenario.name, scenario.words);
        let _ = writeln!(out, "| method | p50 | p99 | p99.9 | over 5 s |\n|---|--:|--:|--:|--:|");
        for way in WAYS {
            let outcome = world::run(&scenario, way, options.seed);
            let at = |quantile| in_millis(quantile_of(&outcome, quantile));
            let given_up = outcome.given_up as f64 * 100.0 / outcome.times.len().max(1) as f64;
            let _ = writeln!(out, "| {} | {} | {} | {} | {given_up:.1} % |", way.name, at(0.5), at(0.99), at(0.999));
        }
    }
    out
}

fn quantile_of(outcome: &Outcome, quantile: f64) -> u64 {
    let rank = (outcome.times.len() as f64 * quantile) as usize;
    outcome.times.get(rank.min(outcome.times.len().saturating_sub(1))).copied().unwrap_or(0)
}

fn in_millis(nanos: u64) -> String {
    format!("{:.0} ms", nanos as f64 / 1e6)
}

fn scenarios(seconds: u64) -> Vec<Scenario> {
    let site = |places, millis| Site { places, millis, slows: 1.0 };
    let mut slowed = vec![site(8, 20.0); 10];
    if let Some(first) = slowed.first_mut() {
        first.slows = 6.0;
    }
    let mut unlike = vec![site(4, 40.0); 3];
    unlike.extend([site(8, 20.0); 4]);
    unlike.extend([site(16, 12.0); 3]);
    vec![
        Scenario {
            name: "Alike",
            words: "Ten endpoints with 8 places and 20 ms on average, at 80 % of what they can do.",
            sites: vec![site(8, 20.0); 10],
            load: 0.8,
            seconds,
        },
        Scenario {
            name: "Unlike",
            words: "Three endpoints with 4 places and 40 ms, four with 8 and 20 ms, three with 16 and 12 ms, all of equal written \
                    weight, at 70 %.",
            sites: unlike,
            load: 0.7,
            seconds,
        },
        Scenario {
            name: "One slows down",
            words: "Ten alike, one of which is six times slower in the middle third, at 60 %.",
            sites: slowed,
            load: 0.6,
            seconds,
        },
    ]
}

fn write(table: &str) -> Result<()> {
    let path = shell::root()?.join(PAGE);
    let page = std::fs::read_to_string(&path).with_context(|| format!("{PAGE} cannot be read"))?;
    let (before, rest) = page.split_once(BEGIN).with_context(|| format!("{PAGE} has no mark `{BEGIN}`"))?;
    let (_, behind) = rest.split_once(END).with_context(|| format!("{PAGE} has no mark `{END}`"))?;
    std::fs::write(&path, format!("{before}{BEGIN}\n{table}\n{END}{behind}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p99(scenario: &str, way: &str, seed: u64) -> u64 {
        let scenarios = scenarios(60);
        let scenario = scenarios.iter().find(|one| one.name == scenario).unwrap();
        let way = WAYS.into_iter().find(|one| one.name == way).unwrap();
        quantile_of(&world::run(scenario, way, seed), 0.99)
    }

    #[test]
    fn a_seed_makes_the_same_run() {
        assert_eq!(p99("Unlike", "ewma", 7), p99("Unlike", "ewma", 7));
        assert_ne!(p99("Unlike", "ewma", 7), p99("Unlike", "ewma", 8));
    }

    #[test]
    fn who_looks_at_load_or_latency_is_spared_by_an_endpoint_that_slows_down() {
        for seed in [1, 2] {
            let turns = p99("One slows down", "round_robin", seed);
            for way in ["least_request", "ewma", "round_robin, orca", "prequal"] {
                let other = p99("One slows down", way, seed);
                assert!(other * 10 < turns, "{way}: {other} against {turns} (seed {seed})");
            }
            let (turns, probes) = (p99("Unlike", "round_robin", seed), p99("Unlike", "prequal", seed));
            assert!(probes * 10 < turns, "{probes} against {turns} (seed {seed})");
        }
    }
}
