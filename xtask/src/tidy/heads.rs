//! Wants the first line of each module to say, in a sentence, what the module is for.

use super::Finding;
use super::sizes::TABLE;
use super::source::Source;

/// The shortest sentence that still says something, in letters.
const SHORTEST: usize = 15;

pub(crate) fn check(source: &Source<'_>) -> Option<Finding> {
    let shipped = source.path.contains("/src/") && !source.path.ends_with("tests.rs");
    if !shipped {
        return None;
    }
    let mut lines = source.text.lines().enumerate();
    let mut head = lines.next();
    if head.is_some_and(|(_, line)| line.starts_with(TABLE)) {
        head = lines.next();
    }
    let (index, line) = head.unwrap_or((0, ""));
    let remedy = "begin the file with `//! What it is for, as a sentence.`";
    let Some(sentence) = line.strip_prefix("//! ") else {
        return Some(Finding::fail(source.path, index + 1, format!("no module doc in the first line: {remedy}")));
    };
    // A sentence may run over into the next lines; a heading or a lone name is none.
    if sentence.len() < SHORTEST || sentence.starts_with('#') {
        return Some(Finding::fail(source.path, index + 1, format!("the module doc is no sentence: {remedy}")));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::tidy::source::Source;

    fn fails(path: &str, text: &str) -> bool {
        check(&Source::read(path, text)).is_some()
    }

    #[test]
    fn a_module_begins_with_a_sentence() {
        assert!(!fails("crates/core/src/units.rs", "//! Reads and prints quantities with their units.\n"));
        assert!(!fails("crates/core/src/units.rs", "// xtask: table\n//! Lists every rejection that we know.\n"));
        assert!(fails("crates/core/src/units.rs", "use std::fmt;\n"));
        assert!(fails("crates/core/src/units.rs", "//! Units\n"));
        assert!(fails("crates/core/src/units.rs", "//! # The units of the domain\n"));
        assert!(fails("crates/core/src/units.rs", ""));
    }

    #[test]
    fn tests_and_benches_need_no_head() {
        assert!(!fails("crates/route/benches/find.rs", "fn main() {}\n"));
        assert!(!fails("tests/gate.rs", "fn main() {}\n"));
    }
}
