//! Runs wrk and reads what it prints.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell;

/// What a right answer looks like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expect {
    pub(crate) status: u16,
    /// The length of the body in bytes; any length without it.
    pub(crate) length: Option<usize>,
}

/// What one run of wrk saw. Latencies are microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Load {
    pub(crate) requests: u64,
    pub(crate) per_second: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Answers whose status is 400 or more.
    failed: u64,
    /// Connections that broke.
    broken: u64,
    /// Answers that the script refused; nothing when it did not look.
    wrong: Option<u64>,
}

/// One run against a port; with `look` every status and length is checked, which costs wrk much of its speed.
pub(crate) fn wrk(port: u16, path: &str, connections: u32, seconds: u32, expect: Expect, look: bool) -> Result<Load> {
    let mut wrk = Command::new("wrk");
    wrk.args(["--latency", "-t1", &format!("-c{connections}"), &format!("-d{seconds}s")]);
    if look {
        wrk.arg("-s").arg(shell::root()?.join("bench/check.lua"));
    }
    wrk.arg(format!("http://127.0.0.1:{port}{path}"));
    if look {
        let length = expect.length.map_or("-1".to_owned(), |length| length.to_string());
        wrk.args(["--", &expect.status.to_string(), &length]);
    }
    let load = parse(&shell::output(&mut wrk)?)?;
    check(&load, expect).with_context(|| format!("{path} at port {port}"))?;
    if look && load.wrong != Some(0) {
        bail!("{path} at port {port}: {:?} of {} answers had another status or length", load.wrong, load.requests);
    }
    Ok(load)
}

fn check(load: &Load, expect: Expect) -> Result<()> {
    let should_fail = if expect.status >= 400 { load.requests } else { 0 };
    if load.requests == 0 {
        bail!("there was no answer at all");
    }
    if load.failed != should_fail {
        bail!("{} of {} answers failed, {should_fail} should", load.failed, load.requests);
    }
    if load.broken > 0 {
        bail!("{} connections broke", load.broken);
    }
    Ok(())
}

fn parse(text: &str) -> Result<Load> {
    let line = |mark: &str| text.lines().map(str::trim).find_map(|line| line.strip_prefix(mark)).map(str::trim);
    let requests = text.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok());
    let per_second = line("Requests/sec:").and_then(|rate| rate.parse().ok());
    let errors = line("Socket errors:").unwrap_or_default();
    let broken = errors.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse::<u64>().ok()).sum();
    Ok(Load {
        requests: requests.with_context(|| format!("wrk said no number of requests:\n{text}"))?,
        per_second: per_second.context("wrk said no rate")?,
        p50: line("50%").and_then(micros).context("wrk said no median")?,
        p99: line("99%").and_then(micros).context("wrk said no 99th percentile")?,
        failed: line("Non-2xx or 3xx responses:").and_then(|count| count.parse().ok()).unwrap_or(0),
        broken,
        wrong: line("Wrong answers:").and_then(|count| count.parse().ok()),
    })
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
        let load = parse(OUTPUT).unwrap();
        assert_eq!((load.requests, load.per_second, load.p50, load.p99), (150_000, 50000.12, 1190.0, 2250.0));
        assert!(check(&load, RIGHT).is_ok());
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
