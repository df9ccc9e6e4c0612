//! Writes what was measured as Markdown tables, on the terminal and into the page of the manual.

use std::fmt::{self, Write};
use std::fs;
use std::path::Path;

use anyhow::Result;

use super::figures::Spread;
use super::race::{Outcome, Sample};

/// Above this share of time, in percent, somebody else had the processor too often for the figure to be trusted.
const DISTURBED: f64 = 6.0;

const PAGES: [&str; 2] = ["docs/src/benchmarks.md", "docs/benchmarks.md"];

/// One row of the bench on the page.
#[derive(Debug)]
pub(crate) struct Section {
    row: &'static str,
    title: String,
    pub(crate) tables: Vec<Table>,
    /// What the bars are held against, by name.
    pub(crate) figures: Vec<(String, Spread)>,
}

impl Section {
    pub(crate) fn new(row: &'static str, title: &str) -> Self {
        Self { row, title: title.to_owned(), tables: Vec::new(), figures: Vec::new() }
    }
}

#[derive(Debug)]
pub(crate) struct Table {
    lines: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(heads: &[&str]) -> Self {
        Self { lines: vec![heads.iter().map(|head| (*head).to_owned()).collect()] }
    }

    pub(crate) fn row(&mut self, cells: &[String]) {
        self.lines.push(cells.to_vec());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, cells) in self.lines.iter().enumerate() {
            writeln!(f, "| {} |", cells.join(" | "))?;
            if index == 0 {
                writeln!(f, "|{}", "---|".repeat(cells.len()))?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "## {}\n", self.title)?;
        self.tables.iter().try_for_each(|table| writeln!(f, "{table}"))
    }
}

/// A median, with its range where there is one; a dash for what was not measured.
pub(crate) fn number(figure: Spread, digits: usize) -> String {
    let Spread { median, low, high } = figure;
    if median.is_nan() {
        return "–".to_owned();
    }
    let plain = format!("{median:.digits$}");
    let (low, high) = (format!("{low:.digits$}"), format!("{high:.digits$}"));
    if low == high { plain } else { format!("{plain} ({low} to {high})") }
}

/// The share of time that others took, with a warning where it is large.
pub(crate) fn marked(disturbed: f64) -> String {
    let mark = if disturbed > DISTURBED { " (do not trust)" } else { "" };
    format!("{disturbed:.1}{mark}")
}

/// What each entrant of a race cost for one `unit`, such as a request.
pub(crate) fn lanes(outcome: &Outcome, unit: &str) -> Table {
    let (cpu, speed) = (format!("CPU µs per {unit}"), format!("{unit}s/s"));
    let mut table = Table::new(&["program", &cpu, &speed, "p50 µs", "p99 µs", "resident MiB", "disturbed %"]);
    for label in &outcome.labels {
        let disturbed = outcome.spread(label, |sample| sample.disturbed);
        let middle =
            |figure: fn(&Sample) -> f64, digits| number(Spread::of([outcome.spread(label, figure).median]), digits);
        table.row(&[
            label.clone(),
            number(outcome.spread(label, |sample| sample.cpu), 1),
            middle(|sample| sample.per_second, 0),
            middle(|sample| sample.p50, 0),
            middle(|sample| sample.p99, 0),
            middle(|sample| sample.resident, 1),
            marked(disturbed.median),
        ]);
    }
    table
}

/// Puts a section into the page in the place of the one that the same row made before.
pub(crate) fn publish(root: &Path, section: &Section, how: &str) -> Result<String> {
    let page = PAGES.iter().find(|page| root.join(page).exists());
    let page = page.unwrap_or(if root.join("docs/src").exists() { &PAGES[0] } else { &PAGES[1] });
    let file = root.join(page);
    let before = fs::read_to_string(&file).unwrap_or_else(|_| HEAD.to_owned());
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&file, replaced(&before, section.row, &format!("{section}{how}\n"))?)?;
    Ok((*page).to_owned())
}

const HEAD: &str = "# Benchmarks

Each section is written by `cargo xtask bench`; nothing here is typed by hand. The proxy runs with one worker on a
processor of its own, load and service on another. Programs run in turns, A B C, A B C; a ratio is taken within a round,
and what is shown is the median with its range. Every answer is checked. Figures of different machines do not compare;
ratios nearly do.
";

/// The page with the part between the row's marks replaced, or added at its end.
fn replaced(page: &str, row: &str, text: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- bench: {row} -->\n"), format!("<!-- /bench: {row} -->\n"));
    let mut out = String::new();
    let old = page.split_once(&begin).and_then(|(head, rest)| Some((head, rest.split_once(&end)?.1)));
    match old {
        Some((head, tail)) => write!(out, "{head}{begin}{text}{end}{tail}")?,
        None => write!(out, "{}\n\n{begin}{text}{end}", page.trim_end())?,
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::{Table, number, replaced};
    use crate::bench::figures::Spread;

    #[test]
    fn a_section_takes_the_place_of_the_one_before() {
        let first = replaced("# Page\n", "log", "one\n").unwrap();
        let second = replaced(&first, "10k", "two\n").unwrap();
        let third = replaced(&second, "log", "three\n").unwrap();
        assert!(third.starts_with("# Page\n\n<!-- bench: log -->\nthree\n<!-- /bench: log -->\n"), "{third}");
        assert!(third.contains("two\n") && !third.contains("one\n"), "{third}");
    }

    #[test]
    fn figures_show_their_range_where_there_is_one() {
        assert_eq!(number(Spread::of([1.0, 2.0, 3.0]), 1), "2.0 (1.0 to 3.0)");
        assert_eq!(number(Spread::of([2.0]), 1), "2.0");
        assert_eq!(number(Spread::of([f64::NAN]), 1), "–");
        let mut table = Table::new(&["a", "b"]);
        table.row(&["1".into(), "2".into()]);
        assert_eq!(table.to_string(), "| a | b |\n|---|---|\n| 1 | 2 |\n");
    }
}
