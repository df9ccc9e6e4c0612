//! The page of the manual that tells the differences.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use pylon_testkit::haproxy::Haproxy;
use pylon_testkit::nginx::Nginx;

use super::classes::{CLASSES, Difference};
use super::outcome::{Class, Outcome};
use super::requests::Odd;

/// Where the page is written each time.
pub(super) fn made() -> PathBuf {
    root().join("target/odd-requests.md")
}

/// The page as the manual has it.
pub(super) fn kept() -> String {
    std::fs::read_to_string(root().join("docs/src/reference/odd-requests.md")).unwrap_or_default()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The versions of nginx and HAProxy that a page names.
pub(super) fn versions(page: &str) -> Option<(String, String)> {
    let behind = |word: &str| Some(page.split_once(word)?.1.split([' ', ',', '\n']).next()?.to_owned());
    Some((behind("nginx ")?, behind("HAProxy ")?))
}

/// What must be the same in both: the classes and their reasons. Numbers may differ by one where a proxy and the service
/// find a fault at the same time.
pub(super) fn shape(page: &str) -> String {
    let classes = page.split("## An example").next().unwrap_or_default();
    classes.chars().filter(|c| !c.is_ascii_digit()).collect()
}

pub(super) fn write(all: &[Odd], found: &BTreeMap<usize, Vec<Difference<'_>>>, outcomes: [&[Outcome]; 3]) -> String {
    let mut page = format!(
        "<!-- Made by the test `wire::odd` from what it sees; it fails where this page tells other classes. -->
# Odd requests

{} requests that are wrong or unusual in one place each were sent through Pylon, through nginx {}, and through
HAProxy {}, each before a service that reads strictly. nginx passes bodies on as they come
(`proxy_request_buffering off`) and HAProxy has its defaults. Compared is what becomes of a request: whether the service
sees it, how often and how framed, the class of the status, and whether the connection goes on.

",
        all.len(),
        Nginx::version(),
        Haproxy::version()
    );
    page += "| | the same as Pylon | another way |\n|---|---|---|\n";
    for (name, theirs) in [("nginx", outcomes[1]), ("HAProxy", outcomes[2])] {
        let other = outcomes[0].iter().zip(theirs).filter(|(ours, theirs)| ours.class != theirs.class).count();
        writeln!(page, "| {name} | {} | {other} |", all.len() - other).unwrap();
    }
    let malformed =
        outcomes.map(|outcomes| outcomes.iter().filter(|outcome| outcome.class == Class::Malformed).count());
    let [ours, nginx, haproxy] = malformed;
    writeln!(page, "\nWhat a strict reader cannot read was passed on, and not refused meanwhile, in {ours} cases by Pylon, {nginx} by nginx and").unwrap();
    writeln!(page, "{haproxy} by HAProxy.").unwrap();
    page += "\n## Why they differ\n\n| class | nginx | HAProxy | why |\n|---|---|---|---|\n";
    for (index, class) in CLASSES.iter().enumerate() {
        let Some(differences) = found.get(&index) else { continue };
        let count = |peer: &str| differences.iter().filter(|difference| difference.peer == peer).count();
        let name = escape(class.name);
        writeln!(page, "| {name} | {} | {} | {} |", count("nginx"), count("HAProxy"), escape(class.why)).unwrap();
    }
    page += "\n## An example of each\n\n| class | request | Pylon | other |\n|---|---|---|---|\n";
    for (index, class) in CLASSES.iter().enumerate() {
        let Some(first) = found.get(&index).and_then(|differences| differences.first()) else { continue };
        let request = escape(&first.odd.name);
        let (ours, peer, theirs) = (&first.ours.class, first.peer, &first.theirs.class);
        writeln!(page, "| {} | {request} | {ours} | {peer} {theirs} |", escape(class.name)).unwrap();
    }
    page
}

fn escape(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}
