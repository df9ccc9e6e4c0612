//! Runs the long forms of tests that are too long for every change: the same code, with more clients and more time.
//!
//! Each is a test that is ignored with a reason, and a line of the table below.

use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::bench::machine;
use crate::shell;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only tell what there is
    #[arg(long)]
    list: bool,
    /// Build the gateway and the tests as users build them
    #[arg(long)]
    release: bool,
    /// Which to run, one after another; all without it
    names: Vec<String>,
}

/// A long form.
#[derive(Debug)]
struct Soak {
    name: &'static str,
    /// What it shows, as a sentence.
    shows: &'static str,
    /// The package and, where it is no unit test, the file of tests.
    package: &'static str,
    target: Option<&'static str>,
    /// The test by its whole path.
    test: &'static str,
    /// How long it runs once it is built, roughly.
    takes: &'static str,
    /// How many files one process of it opens.
    files: u64,
}

const SOAKS: &[Soak] = &[
    Soak {
        name: "churn",
        shows: "10,000 additions and removals of a route and an upstream leave neither memory nor series",
        package: "pylon-tests",
        target: Some("gate"),
        test: "churn::ten_thousand_additions_and_removals_leave_no_memory",
        takes: "2 min",
        files: 1_000,
    },
    Soak {
        name: "cycles",
        shows: "100,000 additions and removals with clients that go away leave resident memory within a tenth",
        package: "pylon-tests",
        target: Some("gate"),
        test: "churn::a_hundred_thousand_additions_and_removals_with_clients_that_go_away_leave_memory_within_a_tenth",
        takes: "30 min",
        files: 1_000,
    },
    Soak {
        name: "flood",
        shows: "fifty changes a second for a minute among 10,000 routes are put together and not felt",
        package: "pylon-tests",
        target: Some("gate"),
        test: "churn::fifty_changes_a_second_for_a_minute_among_ten_thousand_routes_are_not_felt",
        takes: "2 min",
        files: 4_000,
    },
    Soak {
        name: "snapshots",
        shows: "1,000 reloads with streams open keep one route table in memory",
        package: "pylon-tests",
        target: Some("gate"),
        test: "churn::a_thousand_reloads_with_streams_open_keep_one_route_table_in_memory",
        takes: "1 min",
        files: 1_000,
    },
    Soak {
        name: "reloads",
        shows: "100 reloads at 2,000 requests/s with 200 streams open fail nothing, close nothing and are not felt",
        package: "pylon-tests",
        target: Some("gate"),
        test: "reload_load::a_hundred_reloads_at_two_thousand_requests_a_second_fail_nothing_and_are_not_felt",
        takes: "1 min",
        files: 2_000,
    },
    Soak {
        name: "thousand",
        shows: "1,000 reloads at 10,000 requests/s fail no request",
        package: "pylon-tests",
        target: Some("gate"),
        test: "reload_load::a_thousand_reloads_at_ten_thousand_requests_a_second_fail_no_request",
        takes: "5 min",
        files: 2_000,
    },
    Soak {
        name: "files",
        shows: "each way of writing a file, ten times in a row, is in force within two seconds",
        package: "pylon-tests",
        target: Some("gate"),
        test: "reload_files::ten_changes_in_a_row_are_each_in_force_within_two_seconds_however_they_are_written",
        takes: "1 min",
        files: 1_000,
    },
    Soak {
        name: "upgrades",
        shows: "ten upgrades of the binary under load lose no request",
        package: "pylon-tests",
        target: Some("gate"),
        test: "upgrade::ten_upgrades_under_load_lose_no_request",
        takes: "1 min",
        files: 1_000,
    },
    Soak {
        name: "crowds",
        shows: "10,000 slow clients of all kinds neither hurt a good one nor cost more memory than they may",
        package: "pylon-tests",
        target: Some("gate"),
        test: "crowds::ten_thousand_slow_clients_do_not_hurt_a_good_one",
        takes: "1 min",
        files: 20_000,
    },
    Soak {
        name: "overload",
        shows: "at three times the load goodput stays at 90 % of the capacity and 99 % of what is critical comes through",
        package: "pylon-tests",
        target: Some("gate"),
        test: "overload::at_three_times_the_load_each_round_of_many_keeps_goodput_and_without_a_limit_none_does",
        takes: "1 min",
        files: 2_000,
    },
    Soak {
        name: "keepalive",
        shows: "requests around the 5 s that a service keeps a connection never fail, for an hour",
        package: "pylon-tests",
        target: Some("wire"),
        test: "keepalive::requests_around_a_keep_alive_of_five_seconds_never_fail_for_an_hour",
        takes: "1 h",
        files: 1_000,
    },
    Soak {
        name: "testssl",
        shows: "testssl.sh finds nothing in all that it looks at",
        package: "pylon-tests",
        target: Some("gate"),
        test: "conformance::testssl_finds_nothing_at_all",
        takes: "2 min",
        files: 1024,
    },
];

pub(crate) fn run(options: &Options) -> Result<bool> {
    let chosen = choose(&options.names)?;
    if options.list {
        for soak in chosen {
            println!("{:<12} {:>7}  {}", soak.name, soak.takes, soak.shows);
        }
        return Ok(true);
    }
    let files = machine::raise_files()?;
    let mut failed = Vec::new();
    for soak in chosen {
        println!("{}: {} (about {})", soak.name, soak.shows, soak.takes);
        if files < soak.files {
            bail!("{} opens {} files, and the system allows {files}: `ulimit -Hn`", soak.name, soak.files);
        }
        if !soak.run(options.release)? {
            failed.push(soak.name);
        }
    }
    if !failed.is_empty() {
        println!("failed: {}", failed.join(", "));
    }
    Ok(failed.is_empty())
}

fn choose(names: &[String]) -> Result<Vec<&'static Soak>> {
    if names.is_empty() {
        return Ok(SOAKS.iter().collect());
    }
    let named = |name: &String| {
        SOAKS.iter().find(|soak| soak.name == name).with_context(|| {
            let all: Vec<_> = SOAKS.iter().map(|soak| soak.name).collect();
            format!("nothing is named `{name}`; there are {}", all.join(", "))
        })
    };
    names.iter().map(named).collect()
}

impl Soak {
    fn run(&self, release: bool) -> Result<bool> {
        // A test that does not exist would pass.
        if !shell::output(self.command(release)?.arg("--list"))?.contains(&format!("{}: test", self.test)) {
            bail!("no test of {} that is ignored is named {}", self.package, self.test);
        }
        Ok(self.command(release)?.arg("--nocapture").status()?.success())
    }

    fn command(&self, release: bool) -> Result<Command> {
        let mut command = shell::cargo()?;
        command.args(["test", "--quiet", "--package", self.package]);
        match self.target {
            Some(target) => command.args(["--test", target]),
            None => command.arg("--lib"),
        };
        if release {
            command.arg("--release");
        }
        command.args(["--", "--ignored", "--exact", self.test]);
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every test that is ignored for its length has a line in the table, and every line has its test.
    #[test]
    fn the_table_has_every_test_that_is_ignored() {
        let mut ignored = Vec::new();
        for folder in ["tests", "crates", "testkit"] {
            find(&shell::root().unwrap().join(folder), &mut ignored);
        }
        let mut table: Vec<_> = SOAKS.iter().map(|soak| soak.test.rsplit("::").next().unwrap().to_owned()).collect();
        ignored.sort();
        table.sort();
        assert_eq!(ignored, table);
    }

    /// The names of the functions behind `#[ignore`.
    fn find(folder: &std::path::Path, names: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                find(&path, names);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                for behind in text.split("\n#[ignore = ").skip(1).chain(text.split("\n    #[ignore = ").skip(1)) {
                    let name = behind.split_once("fn ").and_then(|(_, rest)| rest.split_once('(')).unwrap().0;
                    names.push(name.to_owned());
                }
            }
        }
    }

    /// The map of failures names tests that exist.
    #[test]
    fn every_test_that_the_map_of_failures_names_exists() {
        let root = shell::root().unwrap();
        let mut named = 0;
        for line in std::fs::read_to_string(root.join("tests/README.md")).unwrap().lines() {
            for name in line.split('`').skip(1).step_by(2).filter(|name| name.contains(".rs: ")) {
                let (file, test) = name.split_once(": ").unwrap();
                let text = std::fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
                assert!(text.contains(&format!("fn {test}()")), "{file} has no test {test}");
                named += 1;
            }
        }
        assert!(named > 30, "the map is not read: {named}");
    }

    #[test]
    fn a_name_that_nothing_has_is_an_error_that_tells_what_there_is() {
        let error = choose(&["crowd".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("`crowd`") && error.contains("crowds"), "{error}");
        assert_eq!(choose(&["crowds".to_owned()]).unwrap().len(), 1);
    }
}
