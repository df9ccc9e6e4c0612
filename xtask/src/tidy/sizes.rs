//! Keeps a file a sitting and a function a screen: tests are not counted, and tables of data may be long.

use super::Finding;
use super::source::Source;

/// The first line of a file that is a table of data and may be as long as its data.
pub(crate) const TABLE: &str = "// xtask: table";

const FILE: Limits = Limits { wanted: 400, most: 600 };
const FUNCTION: Limits = Limits { wanted: 60, most: 100 };

struct Limits {
    wanted: usize,
    most: usize,
}

pub(crate) fn check(source: &Source<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let lines = source.test.iter().filter(|test| !**test).count();
    if !source.text.starts_with(TABLE) {
        let remedy = "split it by what its parts are for";
        findings.extend(FILE.judge(
            source.path,
            1,
            &format!("the file has {lines} lines without its tests"),
            lines,
            remedy,
        ));
    }
    for function in source.functions() {
        let what = format!("`{}` has {} lines", function.name, function.lines);
        let remedy = "name its steps and make them functions";
        findings.extend(FUNCTION.judge(source.path, function.line, &what, function.lines, remedy));
    }
    findings
}

impl Limits {
    fn judge(&self, path: &str, line: usize, what: &str, lines: usize, remedy: &str) -> Option<Finding> {
        let Self { wanted, most } = self;
        if lines > *most {
            Some(Finding::fail(path, line, format!("{what}, at most are {most}: {remedy}")))
        } else if lines > *wanted {
            Some(Finding::warn(path, line, format!("{what}, wanted are {wanted}: {remedy}")))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::tidy::source::Source;

    fn verdicts(text: &str) -> Vec<bool> {
        check(&Source::read("crates/core/src/x.rs", text)).iter().map(|finding| finding.fatal).collect()
    }

    #[test]
    fn a_long_file_warns_and_a_longer_one_fails_unless_it_is_a_table() {
        assert_eq!(verdicts(&"const A: u8 = 1;\n".repeat(400)), Vec::<bool>::new());
        assert_eq!(verdicts(&"const A: u8 = 1;\n".repeat(401)), [false]);
        assert_eq!(verdicts(&"const A: u8 = 1;\n".repeat(601)), [true]);
        assert_eq!(verdicts(&format!("// xtask: table\n{}", "const A: u8 = 1;\n".repeat(601))), Vec::<bool>::new());
    }

    #[test]
    fn tests_do_not_count_towards_the_size_of_a_file() {
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "    const A: u8 = 1;\n".repeat(700));
        assert_eq!(verdicts(&tests), Vec::<bool>::new());
    }

    #[test]
    fn a_long_function_warns_and_a_longer_one_fails() {
        let function = |lines: usize| format!("fn f() {{\n{}}}\n", "    g();\n".repeat(lines - 2));
        assert_eq!(verdicts(&function(60)), Vec::<bool>::new());
        assert_eq!(verdicts(&function(61)), [false]);
        assert_eq!(verdicts(&function(101)), [true]);
    }
}
