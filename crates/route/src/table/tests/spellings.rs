//! Failure 2: gateway and backend disagree about the path. No spelling of a guarded path may pass by another route.

use super::{Outcome, PathsSpec, Table, ask, compile};
use crate::normalise::{PathRules, normalise};

/// What the most lenient backend makes of a path: it decodes, takes a backslash for a slash, ends at a NUL, drops
/// parameters, merges slashes, resolves dots and stays at the root when they climb.
fn backend_reads(path: &str, ignore_case: bool) -> String {
    let bare: Vec<&str> = path.split('/').map(|segment| segment.split(';').next().unwrap()).collect();
    let decoded: Vec<u8> = percent_encoding::percent_decode_str(&bare.join("/")).collect();
    let text = String::from_utf8_lossy(&decoded).replace('\\', "/");
    let mut stack = Vec::new();
    for segment in text.split('\0').next().unwrap().split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                stack.pop();
            }
            _ => stack.push(if ignore_case { segment.to_lowercase() } else { segment.to_owned() }),
        }
    }
    format!("/{}", stack.join("/"))
}

fn spellings() -> Vec<String> {
    let before = [
        "/",
        "//",
        "///",
        "/./",
        "/x/../",
        "/%2e/",
        "/x/%2e%2e/",
        "/x/.%2E/",
        "/x/..;/",
        "/;/",
        "/.;a/",
        "/;x=y/",
        "/x%2f..%2f",
        "/%2f",
        "/x/..%2F",
        "/%5c",
        "/\\",
        "/x\\..\\",
        "/..//",
        "/../",
        "/x//../",
        "/%2F/",
        "/%252f",
        "/x/..%252f",
        "/....//",
        "/%2e%2e%2f",
        "/x/%2e%2e;/",
        "/x%5c..%5c",
        "/%00/",
        "/x%00/../",
    ];
    let words = [
        "admin",
        "Admin",
        "ADMIN",
        "%61dmin",
        "%61%64%6d%69%6e",
        "a%64min",
        "%41dmin",
        "adm%69n",
        "adm%49n",
        "%2561dmin",
        "admi%6e",
        "adm\u{131}n",
    ];
    let after = [
        "",
        "/",
        "//",
        "/.",
        "/x/..",
        "/./",
        ";x",
        ";",
        ";a=b/",
        "%00",
        "%00.png",
        "%2f",
        "%2Fx",
        "%5c",
        "\\",
        "#",
        "?",
        "/..;/admin",
        "%23",
        "%3f",
        "/%2e",
        "/%2e%2e/admin",
        "/users",
        "%3Bx",
        "%09",
        "/;/x",
    ];
    let mut all = Vec::new();
    for before in before {
        for word in words {
            all.extend(after.map(|after| format!("{before}{word}{after}")));
        }
    }
    all
}

#[test]
fn no_spelling_of_admin_reaches_it_by_another_route() {
    let spellings = spellings();
    assert!(spellings.len() >= 200);
    for ignore_case in [false, true] {
        let routes = ["/admin", "/admin/{*rest}", "/{*rest}"].map(compile).into();
        let table = Table::build_with(routes, PathsSpec { ignore_case }).unwrap();
        let mut passed = 0;
        for spelling in &spellings {
            let Ok(path) = normalise(spelling, PathRules::SERVE) else { continue };
            let Outcome::Found(found) = table.find(&ask(&path).head()) else { panic!("{spelling}") };
            let read = backend_reads(&path, ignore_case);
            let is_admin = read == "/admin" || read.starts_with("/admin/");
            if found.stop.is_none() {
                passed += 1;
                assert!(!is_admin || found.route < 2, "{spelling} is sent as {path} and read as {read}");
            }
        }
        assert!(passed > 200, "the corpus must not be refused as a whole: {passed}");
    }
}
