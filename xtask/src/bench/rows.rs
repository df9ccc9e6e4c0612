//! The rows of the bench: what is started, what is asked of it, and which figures come out.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::ValueEnum;

use super::client::{self, Client};
use super::figures::Spread;
use super::latency;
use super::load::{Drive, Expect, Wrk};
use super::policies;
use super::programs::Program;
use super::race::{Course, Entrant, Outcome, race};
use super::report::{Section, Table, lanes, number};
use super::scale;
use super::stage::{Running, Stage};
use super::wire;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Row {
    /// 100 bytes, no access log
    Plain,
    /// 100 bytes with access log and metrics
    Log,
    /// 10 KiB with access log and metrics
    #[value(name = "10k")]
    TenKib,
    /// 1 MiB with access log and metrics
    #[value(name = "1m")]
    OneMib,
    /// 10,000 routes against 10
    Routes,
    /// 10,000 routes: the start, and one change among them
    Change,
    /// Latency at a fixed rate, half of what nginx can do
    Latency,
    /// 100 bytes under TLS 1.3
    Tls,
    /// Full handshakes of TLS 1.3
    Handshakes,
    /// 100 bytes over HTTP/2 in cleartext
    Http2,
    /// Calls of gRPC in cleartext
    Grpc,
    /// Messages of 100 bytes over open WebSockets
    #[value(name = "websocket")]
    WebSocket,
    /// The same over as many as stand open before a busy gateway
    #[value(name = "websockets")]
    WebSockets,
    /// 100 bytes behind a token, CORS and headers
    Policies,
    /// Memory of an idle connection
    Idle,
    /// Memory of an idle connection under TLS
    IdleTls,
    /// Memory before the first request
    Empty,
    /// From the start to the first answer
    Start,
}

/// What all rows need to know.
#[derive(Debug)]
pub(crate) struct Setting<'a> {
    pub(crate) stage: &'a Stage,
    pub(crate) programs: &'a [Program],
    pub(crate) rounds: u32,
    pub(crate) seconds: u32,
}

/// What the service answers unless a row says otherwise.
pub(crate) const RIGHT: Expect = Expect { status: 200, length: Some(100) };
pub(crate) const CONNECTIONS: u32 = 64;

/// How many connections idle, and how long they idle before memory is read.
const IDLE: usize = 2_000;
const SETTLED: Duration = Duration::from_millis(1500);

const STARTS: usize = 10;

impl Row {
    pub(crate) fn run(self, setting: &Setting<'_>) -> Result<Section> {
        match self {
            Self::Plain => setting.load("plain", "100 bytes, without access log", "/s", RIGHT, CONNECTIONS, false),
            Self::Log => setting.load("log", "100 bytes, with access log and metrics", "/s", RIGHT, CONNECTIONS, true),
            Self::TenKib => {
                let expect = Expect { status: 200, length: Some(10 * 1024) };
                setting.load("10k", "10 KiB, with access log and metrics", "/10k", expect, CONNECTIONS, true)
            }
            Self::OneMib => {
                let expect = Expect { status: 200, length: Some(1024 * 1024) };
                setting.load("1m", "1 MiB, with access log and metrics", "/1m", expect, 8, true)
            }
            Self::Routes => setting.routes(),
            Self::Change => scale::run(setting),
            Self::Latency => latency::run(setting),
            Self::Tls => wire::tls_row(setting),
            Self::Handshakes => wire::handshakes_row(setting),
            Self::Http2 => wire::http2_row(setting),
            Self::Grpc => wire::grpc_row(setting),
            Self::WebSocket => wire::websocket_row("websocket", 50, setting),
            Self::WebSockets => wire::websocket_row("websockets", 1_000, setting),
            Self::Policies => policies::row(setting),
            Self::Idle => setting.idle(),
            Self::IdleTls => wire::idle_row(setting),
            Self::Empty => setting.empty(),
            Self::Start => setting.start(),
        }
    }
}

impl Setting<'_> {
    fn load(
        &self,
        row: &'static str,
        title: &str,
        path: &str,
        expect: Expect,
        connections: u32,
        log: bool,
    ) -> Result<Section> {
        let mut running = self.start_all(log)?;
        // The bars were set against an nginx as it comes; what its owner can make of it for such bodies stands beside.
        let large = expect.length.is_some_and(|length| length >= 10 * 1024);
        if large && self.programs.contains(&Program::Nginx) {
            running.push(self.stage.start(Program::NginxLarge, Program::NginxLarge.template(log))?);
        }
        let entrants: Vec<Entrant<'_>> =
            running.iter().map(|running| self.entrant(running.program.name(), running, path, expect)).collect();
        let outcome = race(self.stage, &entrants, self.course(connections))?;
        end_all(running)?;
        let mut section = Section::new(row, title);
        section.tables.push(lanes(&outcome, "request"));
        section.tables.extend(ratios(row, &outcome, "request", &mut section.figures));
        Ok(section)
    }

    fn routes(&self) -> Result<Section> {
        let few = self.stage.start(Program::Pylon, &self.routes_document(10)?)?;
        let many = self.stage.start(Program::Pylon, &self.routes_document(10_000)?)?;
        let nowhere = Expect { status: 404, length: None };
        let at = |number: usize| format!("/service-{number:05}/7/items");
        let entrants = [
            self.entrant("10, last", &few, &at(9), RIGHT),
            self.entrant("10,000, first", &many, &at(0), RIGHT),
            self.entrant("10,000, middle", &many, &at(5_000), RIGHT),
            self.entrant("10,000, last", &many, &at(9_999), RIGHT),
            self.entrant("10, none", &few, "/nowhere/7/items", nowhere),
            self.entrant("10,000, none", &many, "/nowhere/7/items", nowhere),
        ];
        let outcome = race(self.stage, &entrants, self.course(CONNECTIONS))?;
        end_all(vec![few, many])?;
        let mut section = Section::new("routes", "10,000 routes against 10, with access log and metrics");
        section.tables.push(lanes(&outcome, "request"));
        let mut table = Table::new(&["10,000 ÷ 10", "requests/s", "requests per second of CPU"]);
        for (which, base) in [("first", "10, last"), ("middle", "10, last"), ("last", "10, last"), ("none", "10, none")]
        {
            let speed = outcome.ratio(&format!("10,000, {which}"), base, |sample| sample.per_second);
            let capacity = outcome.ratio(&format!("10,000, {which}"), base, |sample| 1.0 / sample.cpu);
            table.row(&[which.to_owned(), number(speed, 3), number(capacity, 3)]);
            section.figures.push((format!("routes: speed/{which}"), speed));
            section.figures.push((format!("routes: capacity/{which}"), capacity));
        }
        section.tables.push(table);
        Ok(section)
    }

    /// The document of the `log` row with many routes in the place of its one.
    pub(crate) fn routes_document(&self, routes: usize) -> Result<String> {
        let base = fs::read_to_string(crate::shell::root()?.join(Program::Pylon.template(true)))?;
        let head: Vec<&str> = base.lines().take_while(|line| !line.starts_with("routes:")).collect();
        let mut text = format!("{}\nroutes:\n", head.join("\n"));
        for number in 0..routes {
            writeln!(text, "  - {{ match: \"GET /service-{number:05}/{{id}}/items\", forward: be }}")?;
        }
        let file: PathBuf = self.stage.home.join(format!("routes-{routes}.yaml"));
        fs::write(&file, text)?;
        file.into_os_string().into_string().ok().context("the project lies in a folder whose name is no text")
    }

    fn idle(&self) -> Result<Section> {
        let started = self.programs.iter().map(|program| (*program, program.template(true).to_owned()));
        self.idle_by("idle", "keep-alive", started.collect(), Client::connect)
    }

    /// Memory of a connection that a client makes by `connect`, idles and is of this `kind`.
    pub(crate) fn idle_by(
        &self,
        row: &'static str,
        kind: &str,
        programs: Vec<(Program, String)>,
        connect: impl Fn(u16) -> Result<Client>,
    ) -> Result<Section> {
        let mut table = Table::new(&["program", "KiB per idle connection"]);
        let mut section = Section::new(row, &format!("Memory of an idle {kind} connection, after one request each"));
        for (program, template) in programs {
            let running = self.stage.start(program, &template)?;
            connect(running.port)?.get("/s")?;
            thread::sleep(SETTLED);
            let before = running.usage()?.resident;
            let held = client::hold(|| connect(running.port), "/s", IDLE)?;
            thread::sleep(SETTLED);
            let each = running.usage()?.resident.saturating_sub(before) as f64 / held.len() as f64;
            drop(held);
            running.end()?;
            table.row(&[program.name().to_owned(), format!("{each:.1}")]);
            section.figures.push((format!("{row}: {}", program.name()), Spread::of([each])));
        }
        section.tables.push(table);
        Ok(section)
    }

    fn empty(&self) -> Result<Section> {
        let mut table = Table::new(&["program", "resident MiB"]);
        let mut section = Section::new("empty", "Resident memory before the first request");
        for program in self.programs {
            let running = self.stage.start(*program, program.template(true))?;
            thread::sleep(SETTLED);
            let resident = running.usage()?.resident as f64 / 1024.0;
            running.end()?;
            table.row(&[program.name().to_owned(), format!("{resident:.1}")]);
            section.figures.push((format!("empty: {}", program.name()), Spread::of([resident])));
        }
        section.tables.push(table);
        Ok(section)
    }

    fn start(&self) -> Result<Section> {
        let mut table = Table::new(&["program", "ms from the start to the first answer"]);
        let mut section = Section::new("start", "From the start of the process to the first answer of 200");
        for program in self.programs {
            let mut times = Vec::new();
            for _ in 0..STARTS {
                let start = Instant::now();
                let running = self.stage.spawn(*program, program.template(true), &[])?;
                let answered = running.first_answer("/s", Duration::from_secs(20))?;
                times.push(answered.duration_since(start).as_secs_f64() * 1e3);
                running.end()?;
            }
            let spread = Spread::of(times);
            table.row(&[program.name().to_owned(), number(spread, 1)]);
            section.figures.push((format!("start: {}", program.name()), spread));
        }
        section.tables.push(table);
        Ok(section)
    }

    pub(crate) fn start_all(&self, log: bool) -> Result<Vec<Running>> {
        self.programs.iter().map(|program| self.stage.start(*program, program.template(log))).collect()
    }

    fn entrant<'a>(&self, label: &str, running: &'a Running, path: &str, expect: Expect) -> Entrant<'a> {
        let drive: Rc<dyn Drive> = Rc::new(Wrk {
            path: path.to_owned(),
            headers: Vec::new(),
            expect,
            service: self.stage.backend.port,
            tls: None,
        });
        Entrant { label: label.to_owned(), running, drive }
    }

    pub(crate) fn course(&self, connections: u32) -> Course {
        Course { rounds: self.rounds, seconds: self.seconds, connections }
    }
}

/// The first entrant, which is ours, over each other, in processor time and in requests per second.
pub(crate) fn ratios(row: &str, outcome: &Outcome, unit: &str, figures: &mut Vec<(String, Spread)>) -> Option<Table> {
    let (ours, peers) = outcome.labels.split_first()?;
    let mut table = Table::new(&[&format!("{ours} ÷"), &format!("CPU per {unit}"), &format!("{unit}s/s")]);
    for peer in peers {
        let cpu = outcome.ratio(ours, peer, |sample| sample.cpu);
        let speed = outcome.ratio(ours, peer, |sample| sample.per_second);
        table.row(&[peer.clone(), number(cpu, 2), number(speed, 2)]);
        figures.push((format!("{row}: cpu/{peer}"), cpu));
    }
    (!peers.is_empty()).then_some(table)
}

pub(crate) fn end_all(running: Vec<Running>) -> Result<()> {
    running.into_iter().try_for_each(Running::end)
}
