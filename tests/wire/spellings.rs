//! Ways to write one path, and what the most lenient service makes of a path that it gets.

/// Written before the first segment: all of them lead to the root, for somebody.
const BEFORE: [&str; 42] = [
    "/",
    "//",
    "///",
    "/./",
    "/.//",
    "/x/../",
    "/x//../",
    "/x/y/../../",
    "/../",
    "/..//",
    "/%2e/",
    "/%2E/",
    "/x/%2e%2e/",
    "/x/.%2E/",
    "/x/%2e./",
    "/%2f",
    "/%2F",
    "/%2f/",
    "/x%2f..%2f",
    "/x/..%2F",
    "/x/..%2f..%2f",
    "/%2e%2e%2f",
    "/x%2f%2e%2e/",
    "/\\",
    "/x\\..\\",
    "/x/..\\",
    "/%5c",
    "/x%5c..%5c",
    "/;/",
    "/;x=y/",
    "/.;a/",
    "/x/..;/",
    "/x/..;a=b/",
    "/x/%2e%2e;/",
    "/x;y/../",
    "/....//",
    "/x/.../",
    "/%00/",
    "/%252f",
    "/x/..%252f",
    "/%ef%bc%8f",
    "/x/%c0%ae%c0%ae/",
];

/// The guarded word.
const WORDS: [&str; 12] = [
    "admin",
    "%61dmin",
    "a%64min",
    "adm%69n",
    "admi%6e",
    "admi%6E",
    "%61%64%6d%69%6e",
    "%61%64%6D%69%6E",
    "%2561dmin",
    "admin%00",
    "admin%",
    "ad%0amin",
];

/// Written behind it.
const BEHIND: [&str; 18] = [
    "",
    "/",
    "//",
    "/.",
    "/./",
    "/x",
    "/x/..",
    "/x/../",
    "/../admin",
    ";",
    ";x",
    ";x/y",
    "/;x",
    "/x;y/../z",
    "%2f",
    "%2fx",
    "%5cx",
    "?x=/../open",
];

/// Forms that do not come of the parts above.
const OTHERS: [&str; 22] = [
    "http://gate.test/admin",
    "http://gate.test//admin",
    "HTTP://GATE.TEST/admin",
    "http://gate.test/x/../admin",
    "http://gate.test/%61dmin",
    "http://gate.test/%2fadmin",
    "http://gate.test:80/admin",
    "http://gate.test\\admin",
    "http:/admin",
    "//gate.test/admin",
    "admin",
    "./admin",
    "\\admin",
    "?/admin",
    "/?/../admin",
    "/x?/../../admin",
    "/#/admin",
    "/x#/../admin",
    "/admin#",
    "/admin?",
    "/.%00./admin",
    "/x/..%00/admin",
];

/// Every spelling, some thousands.
pub(crate) fn all() -> Vec<String> {
    let mut all: Vec<String> = OTHERS.iter().map(|text| (*text).to_owned()).collect();
    for before in BEFORE {
        for word in WORDS {
            // All ways behind the plain word, a few behind the others: what is behind does not hang on the spelling before.
            let behind = if word == "admin" { &BEHIND[..] } else { &BEHIND[..6] };
            all.extend(behind.iter().map(|behind| format!("{before}{word}{behind}")));
        }
    }
    all
}

/// The spellings whose guarded word is written in other cases: every third.
pub(crate) fn in_other_cases() -> Vec<String> {
    let cases: [fn(&str) -> String; 2] =
        [|text| text.replace("admin", "ADMIN"), |text| text.replace("admin", "aDmIn").replace("%6d", "%4D")];
    let spellings = all();
    let cased = spellings.iter().step_by(3).flat_map(|text| cases.map(|case| case(text)));
    cased.filter(|text| !spellings.contains(text)).collect()
}

/// What a service reads that drops parameters, decodes once more, takes a backslash for a slash, ends at a NUL, merges
/// slashes, resolves dots and stays at the root when they climb.
pub(crate) fn service_reads(target: &str) -> String {
    let path = target.split(['?', '#']).next().unwrap();
    let bare: Vec<&str> = path.split('/').map(|segment| segment.split(';').next().unwrap()).collect();
    let text = String::from_utf8_lossy(&decoded(&bare.join("/"))).replace('\\', "/");
    let mut stack: Vec<&str> = Vec::new();
    for segment in text.split('\0').next().unwrap().split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(stack.pop()),
            // Parameters whose semicolon came encoded.
            _ => stack.push(segment.split(';').next().unwrap()),
        }
    }
    format!("/{}", stack.join("/"))
}

/// Whether a service would answer from its guarded part.
pub(crate) fn is_guarded(target: &str) -> bool {
    let read = service_reads(target);
    read == "/admin" || read.starts_with("/admin/")
}

fn decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let pair = bytes.get(at + 1..at + 3).and_then(|pair| std::str::from_utf8(pair).ok());
        match pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) if bytes[at] == b'%' => {
                out.push(byte);
                at += 3;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    out
}

#[test]
fn the_lenient_service_is_lenient() {
    for target in [
        "/admin",
        "//admin/x",
        "/%61dmin",
        "/x/..;/admin",
        "/x%2f..%2fadmin",
        "/..\\admin;y?z",
        "/admin%00.html",
        "/x/../admin%3bx",
    ] {
        assert!(is_guarded(target), "{target}");
    }
    for target in ["/", "/administrator", "/x/admin", "/%2561dmin", "/x?/admin"] {
        assert!(!is_guarded(target), "{target}");
    }
}
