//! The row that compares latencies at a rate that everybody can carry: half of what nginx can do at most.
//!
//! Load and service share a processor here, so that what a proxy gives the service to read is part of the latency. The bar
//! is therefore set against an nginx that sends the fields that we send; nginx as it comes stands beside it.

use std::time::Duration;

use anyhow::{Context, Result};

use super::client;
use super::figures::{Spread, percentile};
use super::load::{Drive, Wrk};
use super::machine::Watch;
use super::programs::Program;
use super::report::{Section, Table, marked, number};
use super::rows::{CONNECTIONS, RIGHT, Setting, end_all};
use super::stage::Running;

/// Connections of the load at a fixed rate.
const LANES: u32 = 16;

/// Whom the bar is set against.
const REFERENCE: Program = Program::NginxForwarding;

/// Somebody who is measured, and what was seen round by round.
#[derive(Debug)]
struct Lane {
    name: &'static str,
    port: u16,
    seen: Vec<Seen>,
}

/// One round of one lane. Latencies are microseconds.
#[derive(Debug, Clone, Copy)]
struct Seen {
    p50: f64,
    p99: f64,
    /// What others took of both processors, in percent: here the load must not starve either.
    disturbed: f64,
}

pub(crate) fn run(setting: &Setting<'_>) -> Result<Section> {
    let mut running = setting.start_all(true)?;
    if setting.programs.contains(&Program::Nginx) {
        running.push(setting.stage.start(REFERENCE, REFERENCE.template(true))?);
    }
    let (rate, mut lanes) = lanes(setting, &running)?;
    let lasting = Duration::from_secs(u64::from(setting.seconds));
    for round in 0..=setting.rounds {
        for lane in &mut lanes {
            let watch = Watch::begin(setting.stage.processors)?;
            let latencies = client::paced(lane.port, "/s", rate, LANES, lasting)?;
            let (p50, p99) = (percentile(&latencies, 0.5), percentile(&latencies, 0.99));
            // The first round warms up.
            if round > 0 {
                lane.seen.push(Seen { p50, p99, disturbed: watch.end()? });
            }
        }
        setting.stage.empty_logs()?;
    }
    end_all(running)?;
    let title = format!("Latency at {rate:.0} requests/s, half of what nginx can do, with access log and metrics");
    let mut section = Section::new("latency", &title);
    section.tables.push(table(&lanes));
    section.figures = figures(&lanes);
    Ok(section)
}

/// The rate, and who is measured at it: the service itself, then every proxy that can carry it.
fn lanes(setting: &Setting<'_>, running: &[Running]) -> Result<(f64, Vec<Lane>)> {
    let wrk = Wrk {
        path: "/s".to_owned(),
        headers: Vec::new(),
        expect: RIGHT,
        service: setting.stage.backend.port,
        tls: None,
    };
    let most = |running: &Running| Ok(wrk.run(running.port, setting.course(CONNECTIONS), false)?.per_second);
    let most: Vec<f64> = running.iter().map(most).collect::<Result<_>>()?;
    let reference = running.iter().position(|running| running.program == Program::Nginx).unwrap_or(0);
    let rate = most.get(reference).context("nobody to measure")? / 2.0;
    let lane = |name, port| Lane { name, port, seen: Vec::new() };
    let mut lanes = vec![lane("direct", setting.stage.backend.port)];
    // Who cannot carry the rate has a queue and no latency to speak of.
    let able = running.iter().zip(&most).filter(|(_, most)| **most > rate * 1.2);
    lanes.extend(able.map(|(running, _)| lane(running.program.name(), running.port)));
    Ok((rate, lanes))
}

fn table(lanes: &[Lane]) -> Table {
    let heads = ["program", "p50 µs", "p99 µs", "added p50 µs", "added p99 µs", "disturbed %"];
    let mut table = Table::new(&heads);
    let direct = lanes.first().map_or(&[][..], |lane| &lane.seen);
    for Lane { name, seen, .. } in lanes {
        let plain = |pick: fn(&Seen) -> f64| number(Spread::of(seen.iter().map(pick)), 0);
        let added = |pick: fn(&Seen) -> f64| {
            number(Spread::of(seen.iter().zip(direct).map(|(through, direct)| pick(through) - pick(direct))), 0)
        };
        let disturbed = Spread::of(seen.iter().map(|seen| seen.disturbed)).median;
        let cells = [plain(|seen| seen.p50), plain(|seen| seen.p99), added(|seen| seen.p50), added(|seen| seen.p99)];
        let row: Vec<String> = [(*name).to_owned()].into_iter().chain(cells).chain([marked(disturbed)]).collect();
        table.row(&row);
    }
    table
}

/// Ours over nginx. The way to the service costs both the same, so that whole latencies compare as the added ones do.
fn figures(lanes: &[Lane]) -> Vec<(String, Spread)> {
    let of = |name: &str| lanes.iter().find(|lane| lane.name == name).map(|lane| lane.seen.as_slice());
    let (Some(ours), Some(theirs)) = (of("pylon"), of(REFERENCE.name())) else { return Vec::new() };
    let ratio = |pick: fn(&Seen) -> f64| Spread::of(ours.iter().zip(theirs).map(|(a, b)| pick(a) / pick(b)));
    vec![("latency: p50".into(), ratio(|seen| seen.p50)), ("latency: p99".into(), ratio(|seen| seen.p99))]
}
