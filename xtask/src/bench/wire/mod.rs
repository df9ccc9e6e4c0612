//! The rows of what is spoken on the wire: TLS, HTTP/2, gRPC and WebSocket. Access log and metrics are on in all of them.

mod grpc;
mod h2load;
mod handshakes;
mod http2;
mod service;
pub(crate) mod tls;
mod websocket;

use std::rc::Rc;

use anyhow::Result;
use rustls::crypto::aws_lc_rs::kx_group::{X25519, X25519MLKEM768};

use super::client::Client;
use super::figures::Spread;
use super::load::{Drive, Wrk};
use super::programs::Program;
use super::race::{Entrant, Outcome, race};
use super::report::{Section, Table, lanes, number};
use super::rows::{CONNECTIONS, RIGHT, Setting, end_all, ratios};
use super::stage::Running;
use h2load::{H2load, STREAMS};
use handshakes::Handshakes;
use http2::Reply;
use websocket::WebSockets;

/// Connections of HTTP/2, with many streams on each.
const FEW: u32 = 8;
/// Clients that shake hands, one after the other each.
const SHAKING: u32 = 8;

/// One row: who runs by which configuration, before which service, under which load.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) row: &'static str,
    pub(crate) title: String,
    pub(crate) configuration: &'static str,
    pub(crate) service: u16,
    pub(crate) connections: u32,
    /// What is counted.
    pub(crate) unit: &'static str,
    pub(crate) drive: Rc<dyn Drive>,
    /// Another load on ours, for the record.
    pub(crate) besides: Option<(&'static str, Rc<dyn Drive>)>,
}

pub(crate) fn tls_row(setting: &Setting<'_>) -> Result<Section> {
    let service = setting.stage.backend.port;
    let client = tls::issue(&setting.stage.home)?.client(&[X25519])?;
    let plan = Plan {
        row: "tls",
        title: "100 bytes under TLS 1.3, with access log and metrics".to_owned(),
        configuration: "tls",
        service,
        connections: CONNECTIONS,
        unit: "request",
        drive: Rc::new(Wrk { path: "/s".to_owned(), headers: Vec::new(), expect: RIGHT, service, tls: Some(client) }),
        besides: None,
    };
    let (outcome, mut section) = plan.run(setting)?;
    if ["pylon", "nginx", "haproxy"].iter().all(|name| outcome.labels.iter().any(|label| label == name)) {
        let least = outcome.ratio_to_least("pylon", ["nginx", "haproxy"], |sample| sample.cpu);
        section.figures.push(("tls: cpu/least".to_owned(), least));
    }
    Ok(section)
}

pub(crate) fn handshakes_row(setting: &Setting<'_>) -> Result<Section> {
    let service = setting.stage.backend.port;
    let right = Client::connect(service)?.get("/s")?;
    let trust = tls::issue(&setting.stage.home)?;
    let classic = Handshakes { client: trust.client(&[X25519])?, right };
    let right = Client::connect(service)?.get("/s")?;
    let quantum = Handshakes { client: trust.client(&[X25519MLKEM768, X25519])?, right };
    let plan = Plan {
        row: "handshakes",
        title: "Full handshakes of TLS 1.3 (ECDSA P-256, X25519), each with one request, with access log and metrics"
            .to_owned(),
        configuration: "tls",
        service,
        connections: SHAKING,
        unit: "handshake",
        drive: Rc::new(classic),
        besides: Some(("pylon with X25519MLKEM768", Rc::new(quantum))),
    };
    let (outcome, mut section) = plan.run(setting)?;
    let mut table = Table::new(&["program", "handshakes per second of CPU"]);
    for label in &outcome.labels {
        table.row(&[label.clone(), number(outcome.spread(label, |sample| 1e6 / sample.cpu), 0)]);
        if outcome.labels.first().is_some_and(|ours| ours == "pylon" && ours != label) {
            let ratio = outcome.ratio("pylon", label, |sample| 1.0 / sample.cpu);
            section.figures.push((format!("handshakes: capacity/{label}"), ratio));
        }
    }
    section.tables.push(table);
    Ok(section)
}

pub(crate) fn http2_row(setting: &Setting<'_>) -> Result<Section> {
    let service = setting.stage.backend.port;
    let body = Client::connect(service)?.get("/s")?.body;
    let plan = Plan {
        row: "http2",
        title: format!(
            "100 bytes over HTTP/2 in cleartext, {FEW} connections of {STREAMS} streams, with access log and metrics"
        ),
        configuration: "http2",
        service,
        connections: FEW,
        unit: "request",
        drive: Rc::new(H2load { path: "/s", message: None, right: Reply { status: 200, body, grpc_status: None } }),
        besides: None,
    };
    Ok(plan.run(setting)?.1)
}

pub(crate) fn grpc_row(setting: &Setting<'_>) -> Result<Section> {
    let service = grpc::echo()?;
    let plan = Plan {
        row: "grpc",
        title: format!(
            "gRPC in cleartext on both sides: unary calls that echo {} bytes, {FEW} connections of {STREAMS} streams, \
             with access log and metrics",
            grpc::MESSAGE
        ),
        configuration: "grpc",
        service: service.port,
        connections: FEW,
        unit: "call",
        drive: Rc::new(grpc::drive(&setting.stage.home)?),
        besides: None,
    };
    Ok(plan.run(setting)?.1)
}

pub(crate) fn websocket_row(row: &'static str, connections: u32, setting: &Setting<'_>) -> Result<Section> {
    let service = websocket::echo()?;
    let plan = Plan {
        row,
        title: format!(
            "WebSocket: messages of {} bytes and their echoes, {connections} connections, with access log and metrics",
            websocket::MESSAGE
        ),
        configuration: "websocket",
        service: service.port,
        connections,
        unit: "message",
        drive: Rc::new(WebSockets),
        besides: None,
    };
    Ok(plan.run(setting)?.1)
}

pub(crate) fn idle_row(setting: &Setting<'_>) -> Result<Section> {
    let client = tls::issue(&setting.stage.home)?.client(&[X25519])?;
    setting.idle_by("idle-tls", "TLS 1.3", configured(setting, "tls"), |port| Client::connect_tls(port, &client))
}

/// Who takes part, and by which configuration.
fn configured(setting: &Setting<'_>, what: &str) -> Vec<(Program, String)> {
    setting.programs.iter().filter_map(|program| Some((*program, program.wired(what)?))).collect()
}

impl Plan {
    pub(crate) fn run(&self, setting: &Setting<'_>) -> Result<(Outcome, Section)> {
        let programs = configured(setting, self.configuration);
        let start =
            |(program, template): &(Program, String)| setting.stage.start_before(self.service, *program, template);
        let running: Vec<Running> = programs.iter().map(start).collect::<Result<_>>()?;
        let entrant = |running, label: &str, drive: &Rc<dyn Drive>| Entrant {
            label: label.to_owned(),
            running,
            drive: Rc::clone(drive),
        };
        let mut entrants: Vec<Entrant<'_>> =
            running.iter().map(|running| entrant(running, running.program.name(), &self.drive)).collect();
        let ours = running.iter().find(|running| running.program == Program::Pylon);
        if let (Some(ours), Some((label, drive))) = (ours, &self.besides) {
            entrants.push(entrant(ours, label, drive));
        }
        let outcome = race(setting.stage, &entrants, setting.course(self.connections))?;
        end_all(running)?;
        let mut section = Section::new(self.row, &self.title);
        section.tables.push(lanes(&outcome, self.unit));
        let mut figures: Vec<(String, Spread)> = Vec::new();
        section.tables.extend(ratios(self.row, &outcome, self.unit, &mut figures));
        section.figures = figures;
        Ok((outcome, section))
    }
}
