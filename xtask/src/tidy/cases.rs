//! Wants a case file for each policy, since the case file is also the policy's page in the manual.

use std::path::Path;

use anyhow::Result;

use super::Finding;

/// Where policies live: one file each, in the folder of its phase.
const POLICIES: &str = "crates/policy/src/";
const PHASES: [&str; 6] = ["guard", "admit", "identify", "authorize", "limit", "shape"];

/// The one file that lists every policy with its key.
const REGISTRY: &str = "crates/policy/src/registry.rs";

/// Modules of a phase that are no policies but the pure cores of some.
const CORES: [&str; 1] = ["crates/policy/src/limit/bucket.rs"];

pub(crate) fn check(root: &Path, paths: &[String]) -> Result<Vec<Finding>> {
    if !paths.iter().any(|path| path == REGISTRY) {
        return Ok(Vec::new());
    }
    let registry = std::fs::read_to_string(root.join(REGISTRY))?;
    Ok(without_cases(paths, &registry))
}

fn without_cases(paths: &[String], registry: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for path in paths {
        let Some(stem) = policy(path) else { continue };
        if !registry.contains(stem) {
            findings.push(Finding::fail(
                path,
                1,
                format!("no line of {REGISTRY} names the policy `{stem}`: enter it there"),
            ));
        }
        let folder = format!("tests/cases/{stem}/");
        if !paths.iter().any(|case| case.strip_prefix(&folder).is_some_and(|case| case.contains(".yaml"))) {
            let message = format!("the policy `{stem}` has no case file: write `{folder}<a sentence>.yaml`");
            findings.push(Finding::fail(path, 1, message));
        }
    }
    findings
}

/// The key of the policy whose file this is: the stem of the file, as `registry.rs` has it.
fn policy(path: &str) -> Option<&str> {
    if CORES.contains(&path) {
        return None;
    }
    let (phase, file) = path.strip_prefix(POLICIES)?.split_once('/')?;
    let stem = file.strip_suffix(".rs")?;
    let counts = PHASES.contains(&phase) && !stem.contains('/') && stem != "mod" && stem != "tests";
    counts.then_some(stem)
}

#[cfg(test)]
mod tests {
    use super::without_cases;

    const REGISTRY: &str = "guard::ip_filter ip_filter: IpFilter,\nadmit::cors cors: Cors,\n";

    fn found(paths: &[&str]) -> usize {
        let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        without_cases(&paths, REGISTRY).len()
    }

    #[test]
    fn a_policy_has_a_case_file_and_a_line_in_the_registry() {
        let cors = "crates/policy/src/admit/cors.rs";
        assert_eq!(found(&[cors]), 1);
        assert_eq!(found(&[cors, "tests/cases/cors/a preflight is answered.yaml"]), 0);
        assert_eq!(found(&["crates/policy/src/guard/bots.rs", "tests/cases/bots/one.yaml"]), 1);
    }

    #[test]
    fn what_is_no_policy_needs_no_case_file() {
        let others =
            ["crates/policy/src/guard/mod.rs", "crates/policy/src/pipeline.rs", "crates/policy/src/limit/bucket.rs"];
        assert_eq!(found(&others), 0);
    }
}
