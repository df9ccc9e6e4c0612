//! Holds the ladder of crates against `cargo metadata`: each rung uses only rungs below it.

use std::path::Path;

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, MetadataCommand};

use super::Finding;

/// The rungs from the ground up. A rung stands here once it has content; what is not here may not be in `crates/`.
const LADDER: [&str; 16] = [
    "core", "cel", "http1", "http2", "observe", "net", "route", "store", "cache", "upstream", "wasm", "policy",
    "proxy", "config", "control", "cli",
];

/// What tests of any rung may use beside the rungs below.
const TESTKIT: &str = "pylon-testkit";

/// A package of the workspace, as far as the ladder asks.
#[derive(Debug)]
struct Package {
    name: String,
    /// The manifest, from the root of the project.
    manifest: String,
    uses: Vec<(DependencyKind, String)>,
}

pub(crate) fn check(root: &Path) -> Result<Vec<Finding>> {
    let metadata = MetadataCommand::new().current_dir(root).no_deps().exec().context("cargo metadata failed")?;
    let mut findings = Vec::new();
    for package in &metadata.packages {
        let manifest = package.manifest_path.strip_prefix(root).unwrap_or(&package.manifest_path);
        let uses = package.dependencies.iter().map(|dependency| (dependency.kind, dependency.name.clone())).collect();
        let package = Package { name: package.name.to_string(), manifest: manifest.to_string(), uses };
        findings.extend(of_package(&package));
        let text = std::fs::read_to_string(root.join(&package.manifest)).unwrap_or_default();
        findings.extend(of_manifest(&package.manifest, &text));
    }
    Ok(findings)
}

fn of_package(package: &Package) -> Vec<Finding> {
    let fail = |message: String| Finding::fail(&package.manifest, 1, message);
    let Some(folder) = package.manifest.strip_prefix("crates/").and_then(|rest| rest.strip_suffix("/Cargo.toml"))
    else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    if package.name != format!("pylon-{folder}") {
        findings.push(fail(format!("the package in this folder is `{}`: name it `pylon-{folder}`", package.name)));
    }
    let Some(rung) = rung(&package.name) else {
        findings.push(fail(format!("`{}` is no rung: enter it in xtask's `LADDER`, or move it", package.name)));
        return findings;
    };
    for (kind, used) in package.uses.iter().filter(|(_, used)| used.starts_with("pylon-")) {
        let in_tests = *kind == DependencyKind::Development;
        // A package may test itself through its own features.
        if in_tests && (used == TESTKIT || *used == package.name) {
            continue;
        }
        if self::rung(used).is_none_or(|other| other >= rung) {
            let remedy = "use only rungs below, or take what you need as a value";
            findings.push(fail(format!("`{}` uses `{used}`, which does not stand below it: {remedy}", package.name)));
        }
    }
    findings
}

/// How high a package stands, from 0.
fn rung(package: &str) -> Option<usize> {
    let name = package.strip_prefix("pylon-")?;
    LADDER.iter().position(|rung| *rung == name)
}

/// What a manifest must say by itself: versions come from the workspace, and so do the lints.
fn of_manifest(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut section = "";
    let mut lints = false;
    for (index, line) in text.lines().map(str::trim).enumerate() {
        if line.starts_with('[') {
            section = line;
        } else if section == "[lints]" && line.replace(' ', "") == "workspace=true" {
            lints = true;
        } else if is_dependencies(section)
            && line.contains('=')
            && !line.starts_with('#')
            && !line.contains("workspace")
        {
            let message = "a dependency with a version of its own: enter it in the workspace's table and write `workspace = true`";
            findings.push(Finding::fail(path, index + 1, message));
        }
    }
    if !lints {
        findings.push(Finding::fail(
            path,
            1,
            "the lints of the workspace are off here: add `[lints]` with `workspace = true`",
        ));
    }
    findings
}

fn is_dependencies(section: &str) -> bool {
    let section = section.trim_matches(['[', ']']);
    ["dependencies", "dev-dependencies", "build-dependencies"].iter().any(|name| section.ends_with(name))
}

#[cfg(test)]
mod tests {
    use cargo_metadata::DependencyKind::{Development, Normal};

    use super::{Package, of_manifest, of_package};

    fn found(folder: &str, name: &str, uses: &[(cargo_metadata::DependencyKind, &str)]) -> usize {
        let uses = uses.iter().map(|(kind, used)| (*kind, (*used).to_owned())).collect();
        of_package(&Package { name: name.into(), manifest: format!("{folder}/Cargo.toml"), uses }).len()
    }

    #[test]
    fn a_rung_may_use_only_rungs_below_it() {
        assert_eq!(found("crates/policy", "pylon-policy", &[(Normal, "pylon-core"), (Normal, "pylon-upstream")]), 0);
        assert_eq!(found("crates/upstream", "pylon-upstream", &[(Normal, "pylon-policy")]), 1);
        assert_eq!(found("crates/upstream", "pylon-upstream", &[(Development, "pylon-proxy")]), 1);
        assert_eq!(found("crates/core", "pylon-core", &[(Normal, "serde")]), 0);
    }

    #[test]
    fn only_tests_use_the_testkit() {
        assert_eq!(found("crates/proxy", "pylon-proxy", &[(Development, "pylon-testkit")]), 0);
        assert_eq!(found("crates/proxy", "pylon-proxy", &[(Normal, "pylon-testkit")]), 1);
    }

    #[test]
    fn a_crate_is_a_rung_and_bears_the_name_of_its_folder() {
        assert_eq!(found("crates/misc", "pylon-misc", &[]), 1);
        assert_eq!(found("crates/net", "pylon-sockets", &[]), 2);
        assert_eq!(found("testkit", "pylon-testkit", &[(Normal, "pylon-cli")]), 0);
    }

    #[test]
    fn versions_and_lints_come_from_the_workspace() {
        let good =
            "[package]\nname = \"a\"\n[lints]\nworkspace = true\n[dependencies]\nbytes.workspace = true\n# why\n";
        assert!(of_manifest("a/Cargo.toml", good).is_empty());
        let bad = "[package]\nname = \"a\"\n[dependencies]\nbytes = \"1\"\n";
        assert_eq!(of_manifest("a/Cargo.toml", bad).len(), 2);
    }
}
