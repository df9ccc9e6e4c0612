//! The row of changes: how soon a gateway with 10,000 routes starts, and how soon one change among them is live.

use std::fs;
use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::client::Client;
use super::figures::Spread;
use super::programs::Program;
use super::report::{Section, Table, number};
use super::rows::Setting;

/// How often it is started, and how many changes there are of each kind after each start.
const STARTS: usize = 5;
const CHANGES: usize = 3;
const PATIENCE: Duration = Duration::from_secs(20);
/// Between changes: the files are looked at while they rest.
const REST: Duration = Duration::from_millis(1500);
const ROUTES: usize = 10_000;

pub(crate) fn run(setting: &Setting<'_>) -> Result<Section> {
    let document = setting.routes_document(ROUTES)?;
    let few = setting.stage.start(Program::Pylon, &setting.routes_document(10)?)?;
    thread::sleep(REST);
    let base = few.usage()?.resident;
    few.end()?;
    let (mut starts, mut asked, mut seen, mut memory) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let begun = Instant::now();
        let running = setting.stage.spawn(Program::Pylon, &document, &[])?;
        running.first_answer("/service-09999/7/items", PATIENCE)?;
        starts.push(milliseconds(begun));
        thread::sleep(REST);
        memory.push(running.usage()?.resident.saturating_sub(base) as f64 / ROUTES as f64);
        let file = running.configuration();
        let text = fs::read_to_string(file).context("the document of the gateway")?;
        let admin = text.split_once("admin: { address: ").and_then(|(_, rest)| rest.split_once(" }"));
        let admin = admin.context("the document says where the admin API is")?.0;
        for number in 0..2 * CHANGES {
            thread::sleep(REST);
            let path = format!("/change-{number}");
            let changed = format!("{text}  - {{ match: {path}, respond: 200 }}\n");
            let begun = Instant::now();
            fs::write(file, changed)?;
            if number < CHANGES {
                reload(admin)?;
                if Client::connect(running.port)?.get(&path)?.status != 200 {
                    bail!("the change is not live though the reload was answered");
                }
                asked.push(milliseconds(begun));
            } else {
                running.first_answer(&path, PATIENCE)?;
                seen.push(milliseconds(begun));
            }
        }
        running.end()?;
    }
    let mut table = Table::new(&["10,000 routes", "measured"]);
    let mut section = Section::new("change", "10,000 routes: the start, and one change among them");
    for (name, says, times) in [
        ("start", "ms from the start of the process to the first answer", starts),
        ("asked", "ms from the write of the file to the answer by the new document, with `POST /api/reload`", asked),
        ("seen", "ms the same where the gateway sees the change of the file by itself", seen),
        ("memory", "KiB resident for each route, after the start", memory),
    ] {
        let spread = Spread::of(times);
        table.row(&[says.to_owned(), number(spread, 1)]);
        section.figures.push((format!("change: {name}"), spread));
    }
    section.tables.push(table);
    Ok(section)
}

fn milliseconds(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e3
}

/// Asks for a reload, and wants it to be done.
fn reload(admin: &str) -> Result<()> {
    let mut stream = std::net::TcpStream::connect(admin)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream
        .write_all(b"POST /api/reload HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if !answer.starts_with("HTTP/1.1 200 ") {
        bail!("the reload is refused: {answer}");
    }
    Ok(())
}
