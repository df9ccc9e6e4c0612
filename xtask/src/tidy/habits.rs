//! Refuses what hides edges, silences checks or is not finished: `#[allow]`, globs, preludes, bare ignores, debris.

use super::Finding;
use super::source::Source;

/// What must not stand in code, tests included, and what to write instead.
const ANYWHERE: &[(&str, &str)] = &[
    ("#[allow(", "write `#[expect(lint, reason = \"…\")]`"),
    ("#![allow(", "write `#![expect(lint, reason = \"…\")]`"),
    ("todo!(", "finish it, or leave it out"),
    ("unimplemented!(", "finish it, or leave it out"),
    ("dbg!(", "take it away"),
];

pub(crate) fn check(source: &Source<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, test, code) in source.numbered() {
        for (what, remedy) in ANYWHERE.iter().filter(|(what, _)| code.contains(what)) {
            let what = what.trim_end_matches('(');
            findings.push(Finding::fail(source.path, line, format!("`{what}`: {remedy}")));
        }
        // Only an ignore with text behind its equals sign says why.
        if code.contains("#[ignore]") {
            let message = "a test is ignored without a reason: `#[ignore = \"why\"]`, or make it run";
            findings.push(Finding::fail(source.path, line, message));
        }
        if !test && is_use(code) && (code.contains("::*") || code.contains("{*")) {
            findings.push(Finding::fail(source.path, line, "a glob import hides where names come from: name them"));
        }
        if !test && (code.contains("mod prelude") || (is_use(code) && code.contains("crate::prelude"))) {
            findings.push(Finding::fail(
                source.path,
                line,
                "a prelude gives names two origins: import each from its module",
            ));
        }
    }
    findings
}

fn is_use(code: &str) -> bool {
    let code = code.trim_start();
    let bare = code.strip_prefix("pub(crate) ").or_else(|| code.strip_prefix("pub ")).unwrap_or(code);
    bare.starts_with("use ")
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::tidy::source::Source;

    fn found(text: &str) -> usize {
        check(&Source::read("crates/core/src/x.rs", text)).len()
    }

    #[test]
    fn silenced_lints_and_debris_are_found() {
        assert_eq!(found("#[allow(dead_code)]\nfn f() { todo!() }\n"), 2);
        assert_eq!(found("#[expect(dead_code, reason = \"soon\")]\nfn f() {}\n"), 0);
        assert_eq!(found("// todo!() is a word here\nconst A: &str = \"dbg!(x)\";\n"), 0);
    }

    #[test]
    fn an_ignored_test_says_why() {
        let test =
            |ignore: &str| format!("#[cfg(test)]\nmod tests {{\n    #[test]\n    {ignore}\n    fn f() {{}}\n}}\n");
        assert_eq!(found(&test("#[ignore]")), 1);
        assert_eq!(found(&test("#[ignore = \"needs an hour\"]")), 0);
    }

    #[test]
    fn globs_and_preludes_are_found_outside_tests() {
        assert_eq!(found("use crate::pool::*;\n"), 1);
        assert_eq!(found("pub mod prelude;\n"), 1);
        assert_eq!(found("#[cfg(test)]\nmod tests {\n    use super::*;\n}\n"), 0);
        assert_eq!(found("fn f() { let a = b::c() * 2; }\n"), 0);
    }
}
