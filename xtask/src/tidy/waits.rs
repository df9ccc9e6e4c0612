//! Keeps waiting on a worker to its own wheel (`pylon_net::timer`): its runtime has no timers, and would panic.

use super::Finding;
use super::source::Source;

/// The rungs whose code may run on a worker.
const RUNGS: [&str; 7] = [
    "crates/net/src/",
    "crates/store/src/",
    "crates/cache/src/",
    "crates/upstream/src/",
    "crates/policy/src/",
    "crates/proxy/src/",
    "crates/wasm/src/",
];

/// The wheel itself, and what is a test by the word of the module above it.
const EXCEPT: [&str; 2] = ["crates/net/src/timer.rs", "crates/upstream/src/concurrency/simulation.rs"];

const NAMES: [&str; 3] = ["sleep", "timeout", "interval"];

pub(crate) fn check(source: &Source<'_>) -> Vec<Finding> {
    let path = source.path;
    if !RUNGS.iter().any(|rung| path.starts_with(rung)) || EXCEPT.contains(&path) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (line, code) in source.shipped() {
        let of_runtime = code.split("tokio::time::").skip(1).any(|rest| {
            let named = rest.split(';').next().unwrap_or_default();
            let names = named.strip_prefix('{').map_or_else(|| vec![named], |names| names.split([',', '}']).collect());
            names.iter().any(|name| NAMES.iter().any(|wait| name.trim_start().starts_with(wait)))
        });
        if of_runtime {
            let message = "a worker's runtime has no timers: wait by `pylon_net::timer`, which works everywhere";
            findings.push(Finding::fail(path, line, message));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::tidy::source::Source;

    fn found(path: &str, text: &str) -> usize {
        check(&Source::read(path, text)).len()
    }

    #[test]
    fn a_wait_by_the_runtime_is_found_where_a_worker_may_come_by() {
        for code in [
            "async fn f() { tokio::time::sleep(LOOK).await; }\n",
            "async fn f() { tokio::time::timeout_at(now, it).await; }\n",
            "use tokio::time::{Instant, sleep_until};\n",
        ] {
            assert_eq!(found("crates/policy/src/keys.rs", code), 1, "{code}");
            assert_eq!(found("crates/control/src/manager.rs", code), 0);
            assert_eq!(found("crates/net/src/timer.rs", code), 0);
            assert_eq!(found("crates/upstream/src/tests/retry.rs", code), 0);
        }
    }

    #[test]
    fn reading_the_clock_is_no_wait() {
        assert_eq!(found("crates/net/src/http1.rs", "fn f() { tokio::time::Instant::now(); sleep_until(at); }\n"), 0);
        assert_eq!(found("crates/net/src/http1.rs", "use tokio::time::Instant;\n"), 0);
    }
}
