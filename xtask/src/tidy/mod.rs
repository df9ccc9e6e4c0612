//! Holds the source against the rules of the house (`CONTRIBUTING.md`), those that no compiler and no linter knows.

mod cases;
mod dialers;
mod habits;
mod heads;
mod ladder;
mod sizes;
mod source;
mod waits;
mod words;

use std::fmt;
use std::path::Path;

use anyhow::Result;

use crate::shell;
use source::Source;

/// One thing that tidy found, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    path: String,
    /// Counted from 1.
    line: usize,
    fatal: bool,
    message: String,
}

impl Finding {
    fn fail(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, fatal: true, message: message.into() }
    }

    fn warn(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, fatal: false, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let note = if self.fatal { "" } else { "warning: " };
        write!(f, "{}:{}: {note}{}", self.path, self.line, self.message)
    }
}

/// Checks the whole project; `false` when a finding is fatal.
pub(crate) fn run() -> Result<bool> {
    let root = shell::root()?;
    let paths = files(&root)?;
    let mut findings = ladder::check(&root)?;
    findings.extend(cases::check(&root, &paths)?);
    for path in &paths {
        let Ok(text) = std::fs::read_to_string(root.join(path)) else { continue };
        findings.extend(of_file(path, &text));
    }
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    let fatal = findings.iter().filter(|finding| finding.fatal).count();
    println!("tidy: {} files, {fatal} failures, {} warnings", paths.len(), findings.len() - fatal);
    Ok(fatal == 0)
}

/// Everything that can be said of one file by itself.
fn of_file(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = words::check(path, text);
    if Path::new(path).extension().is_some_and(|extension| extension == "rs") {
        let source = Source::read(path, text);
        findings.extend(heads::check(&source));
        findings.extend(sizes::check(&source));
        findings.extend(dialers::check(&source));
        findings.extend(habits::check(&source));
        findings.extend(waits::check(&source));
    }
    findings
}

/// What git tracks or would track: nothing that is ignored.
fn files(root: &Path) -> Result<Vec<String>> {
    let mut git = shell::command("git")?;
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let mut paths: Vec<String> = shell::output(&mut git)?
        .split('\0')
        .filter(|path| !path.is_empty() && root.join(path).is_file())
        .map(str::to_owned)
        .collect();
    paths.sort();
    paths.dedup();
    Ok(paths)
}
