//! What a load is, and the one that most rows use: wrk, which speaks HTTP/1.1 in cleartext and under TLS.

use std::fmt::Debug;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustls::ClientConfig;

use super::client::Client;
use super::figures::percentile;
use super::race::Course;
use crate::shell;

/// A way to put load on a port.
pub(crate) trait Drive: Debug {
    /// One run. With `look` every answer is looked at closely, which may cost the load much of its speed.
    fn run(&self, port: u16, course: Course, look: bool) -> Result<Load>;

    /// Holds one answer against what is right.
    fn check(&self, port: u16) -> Result<()>;
}

/// What one run of a load saw. Latencies are microseconds, and no number where the load does not tell them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Load {
    pub(crate) requests: u64,
    pub(crate) per_second: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Load {
    /// Of answers that took so long each, and all together.
    pub(crate) fn of(mut latencies: Vec<Duration>, all: Duration) -> Self {
        latencies.sort_unstable();
        Self {
            requests: latencies.len() as u64,
            per_second: latencies.len() as f64 / all.as_secs_f64(),
            p50: percentile(&latencies, 0.5),
            p99: percentile(&latencies, 0.99),
        }
    }
}

/// What a right answer looks like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expect {
    pub(crate) status: u16,
    /// The length of the body in bytes; any length without it.
    pub(crate) length: Option<usize>,
}

#[derive(Debug)]
pub(crate) struct Wrk {
    pub(crate) path: String,
    /// Fields of each request, beside those of wrk itself.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) expect: Expect,
    /// The port of the service itself, whose answers are right.
    pub(crate) service: u16,
    /// Under TLS by a client such as this.
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

/// What wrk saw.
#[derive(Debug)]
struct Seen {
    load: Load,
    /// Answers whose status is 400 or more.
    failed: u64,
    /// Connections that broke.
    broken: u64,
    /// Answers that the script refused; nothing when it did not look.
    wrong: Option<u64>,
}

impl Drive for Wrk {
    fn run(&self, port: u16, course: Course, look: bool) -> Result<Load> {
        let Self { path, expect, .. } = self;
        let mut wrk = Command::new("wrk");
        wrk.args(["--latency", "-t1", &format!("-c{}", course.connections), &format!("-d{}s", course.seconds)]);
        if look {
            wrk.arg("-s").arg(shell::root()?.join("bench/check.lua"));
        }
        for (name, value) in &self.headers {
            wrk.arg("-H").arg(format!("{name}: {value}"));
        }
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        wrk.arg(format!("{scheme}://127.0.0.1:{port}{path}"));
        if look {
            let length = expect.length.map_or("-1".to_owned(), |length| length.to_string());
            wrk.args(["--", &expect.status.to_string(), &length]);
        }
        let seen = parse(&shell::output(&mut wrk)?)?;
        check(&seen, *expect).with_context(|| format!("{path} at port {port}"))?;
        if look && seen.wrong != Some(0) {
            let (wrong, all) = (seen.wrong, seen.load.requests);
            bail!("{path} at port {port}: {wrong:?} of {all} answers had another status or length");
        }
        Ok(seen.load)
    }

    fn check(&self, port: u16) -> Result<()> {
        let mut client = match &self.tls {
            Some(tls) => Client::connect_tls(port, tls)?,
            None => Client::connect(port)?,
        };
        let got = client.get_with(&self.path, &self.headers)?;
        if got.status != self.expect.status {
            bail!("{} is answered with {}", self.path, got.status);
        }
        if got.status == 200 && got != Client::connect(self.service)?.get(&self.path)? {
            bail!("the body of {} is not what the service gives", self.path);
        }
        Ok(())
    }
}

fn check(seen: &Seen, expect: Expect) -> Result<()> {
    let all = seen.load.requests;
    let should_fail = if expect.status >= 400 { all } else { 0 };
    if all == 0 {
        bail!("there was no answer at all");
    }
    if seen.failed != should_fail {
        bail!("{} of {all} answers failed, {should_fail} should", seen.failed);
    }
    if seen.broken > 0 {
        bail!("{} connections broke", seen.broken);
    }
    Ok(())
}

fn parse(text: &str) -> Result<Seen> {
    let line = |mark: &str| text.lines().map(str::trim).find_map(|line| line.strip_prefix(mark)).map(str::trim);
    let requests = text.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok());
    let per_second = line("Requests/sec:").and_then(|rate| rate.parse().ok());
    let errors = line("Socket errors:").unwrap_or_default();
    let broken = errors.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse::<u64>().ok()).sum();
    let load = Load {
        requests: requests.with_context(|| format!("wrk said no number of requests:\n{text}"))?,
        per_second: per_second.context("wrk said no rate")?,
        p50: line("50%").and_then(micros).context("wrk said no median")?,
        p99: line("99%").and_then(micros).context("wrk said no 99th percentile")?,
    };
    let failed = line("Non-2xx or 3xx responses:").and_then(|count| count.parse().ok()).unwrap_or(0);
    let wrong = line("Wrong answers:").and_then(|count| count.parse().ok());
    Ok(Seen { load, failed, broken, wrong })
}

/// A duration of wrk's (`850.00us`, `1.19ms`, `2.00s`) in microseconds.
fn micros(text: &str) -> Option<f64> {
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6), ("m", 60e6)];
    units.iter().find_map(|(unit, factor)| text.strip_suffix(unit)?.parse::<f64>().ok().map(|number| number * factor))
}

#[cfg(test)]
mod tests {
    use super::{Expect, check, micros, parse};

    const OUTPUT: &str = "Running 3s test @ http://127.0.0.1:9010/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.20ms  100.00us   5.00ms   90.00%
    Req/Sec    50.00k     1.00k   52.00k    90.00%
  Latency Distribution
     50%    1.19ms
     75%    1.30ms
     90%    1.50ms
     99%    2.25ms
  150000 requests in 3.00s, 30.00MB read
Requests/sec:  50000.12
Transfer/sec:     10.00MB
";
    const RIGHT: Expect = Expect { status: 200, length: Some(100) };

    #[test]
    fn the_figures_of_a_run_are_read() {
        let seen = parse(OUTPUT).unwrap();
        let load = seen.load;
        assert_eq!((load.requests, load.per_second, load.p50, load.p99), (150_000, 50000.12, 1190.0, 2250.0));
        assert!(check(&seen, RIGHT).is_ok());
        assert_eq!(micros("850.00us"), Some(850.0));
    }

    #[test]
    fn failed_answers_and_broken_connections_are_errors() {
        let failed = parse(&format!("{OUTPUT}  Non-2xx or 3xx responses: 12\n")).unwrap();
        assert!(check(&failed, RIGHT).is_err());
        let broken = parse(&format!("{OUTPUT}  Socket errors: connect 0, read 3, write 0, timeout 0\n")).unwrap();
        assert!(check(&broken, RIGHT).is_err());
    }
}
