//! Runs h2load, which speaks HTTP/2 in cleartext by prior knowledge, and reads what it prints.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::http2::{Reply, ask};
use super::tls::NAME;
use crate::bench::load::{Drive, Load};
use crate::bench::race::Course;
use crate::shell;

/// Streams at once on each connection.
pub(crate) const STREAMS: u32 = 16;

/// How many answers are looked at closely before a race; h2load itself looks at statuses and lengths alone.
const LOOKED_AT: u32 = 500;

#[derive(Debug)]
pub(crate) struct H2load {
    pub(crate) path: &'static str,
    pub(crate) message: Option<Message>,
    pub(crate) right: Reply,
}

/// A message of gRPC, as h2load reads it and as it is.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) file: PathBuf,
    pub(crate) bytes: Vec<u8>,
}

/// What h2load saw.
#[derive(Debug, PartialEq)]
struct Seen {
    started: u64,
    done: u64,
    succeeded: u64,
    /// Answers whose status is 2xx.
    well: u64,
    /// Bytes in all bodies.
    data: u64,
    per_second: f64,
}

impl Drive for H2load {
    fn run(&self, port: u16, course: Course, look: bool) -> Result<Load> {
        if look {
            self.ask(port, LOOKED_AT)?;
        }
        let mut h2load = Command::new("h2load");
        h2load.args(["-t1", &format!("-c{}", course.connections), &format!("-m{STREAMS}")]);
        h2load.arg(format!("-D{}", course.seconds)).args(["-H", &format!(":authority: {NAME}")]);
        if let Some(message) = &self.message {
            h2load.args(["-H", "content-type: application/grpc", "-H", "te: trailers"]).arg("-d").arg(&message.file);
        }
        h2load.arg(format!("http://127.0.0.1:{port}{}", self.path));
        let text = shell::output(&mut h2load)?;
        let seen = parse(&text).with_context(|| format!("h2load said:\n{text}"))?;
        check(&seen, self.right.body.len() as u64)?;
        Ok(Load { requests: seen.done, per_second: seen.per_second, p50: f64::NAN, p99: f64::NAN })
    }

    fn check(&self, port: u16) -> Result<()> {
        self.ask(port, 1)
    }
}

impl H2load {
    fn ask(&self, port: u16, times: u32) -> Result<()> {
        let message = self.message.as_ref().map(|message| message.bytes.as_slice());
        ask(port, self.path, message, times, &self.right)
    }
}

fn check(seen: &Seen, length: u64) -> Result<()> {
    let Seen { started, done, succeeded, well, data, .. } = *seen;
    if done == 0 {
        bail!("there was no answer at all");
    }
    if succeeded != done || well < done {
        bail!("of {done} answers {succeeded} were whole, and {well} had a status of 2xx");
    }
    // What had begun when time was over may have come in part.
    if data < done * length || data > started * length {
        bail!("{done} answers of {length} bytes had {data} bytes");
    }
    Ok(())
}

fn parse(text: &str) -> Result<Seen> {
    let line = |mark: &str| text.lines().find_map(|line| line.trim().strip_prefix(mark));
    // A number stands before its word, a number of bytes in brackets before it.
    let before = |line: Option<&str>, word: &str| -> Result<u64> {
        let parts = line.into_iter().flat_map(|line| line.split(',')).map(str::trim);
        let part = parts.filter_map(|part| part.strip_suffix(word)).map(str::trim).next();
        let part = part.map(|part| part.rsplit_once('(').map_or(part, |(_, bytes)| bytes.trim_end_matches(')')));
        part.and_then(|part| part.parse().ok()).with_context(|| format!("no number of {word}"))
    };
    let requests = line("requests:");
    let per_second = line("finished in").and_then(|line| line.split(',').nth(1)?.trim().strip_suffix(" req/s"));
    Ok(Seen {
        started: before(requests, "started")?,
        done: before(requests, "done")?,
        succeeded: before(requests, "succeeded")?,
        well: before(line("status codes:"), "2xx")?,
        data: before(line("traffic:"), "data")?,
        per_second: per_second.and_then(|rate| rate.parse().ok()).context("no rate")?,
    })
}

#[cfg(test)]
mod tests {
    use super::{Seen, check, parse};

    const OUTPUT: &str = "
finished in 1.00s, 28333.00 req/s, 2.08MB/s
requests: 28333 total, 28461 started, 28333 done, 28333 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 28333 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 2.08MB (2182033) total, 1.32MB (1388317) headers (space savings 50.51%), 276.69KB (283330) data
                     min         max         mean         sd        +/- sd
time for request:      141us     50.39ms      4.35ms      4.29ms    95.07%
";

    #[test]
    fn the_figures_of_a_run_are_read() {
        let seen = parse(OUTPUT).unwrap();
        let (done, data) = (28_333, 283_330);
        assert_eq!(seen, Seen { started: 28_461, done, succeeded: done, well: done, data, per_second: 28333.0 });
        assert!(check(&seen, 10).is_ok());
    }

    #[test]
    fn answers_that_failed_or_have_another_length_are_errors() {
        let seen = parse(OUTPUT).unwrap();
        assert!(check(&seen, 9).is_err());
        assert!(check(&seen, 11).is_err());
        assert!(check(&Seen { well: 28_332, ..seen }, 10).is_err());
    }
}
