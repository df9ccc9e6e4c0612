//! The first words of the demo: which document runs, where the gateway listens, and what to try with curl.

use std::path::Path;

use crate::demo::traffic::{BOLD, CYAN, DIM, paint};

/// What the banner tells.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    /// Where the document stands.
    pub(crate) document: &'a Path,
    /// The port of the gateway on 127.0.0.1.
    pub(crate) listen: u16,
    /// The port of the admin API on 127.0.0.1.
    pub(crate) admin: u16,
}

/// What to try: the arguments of curl, with `@` for the gateway's address, and what each shows.
pub(crate) const TRIES: &[(&str, &str)] = &[
    ("-i @/users/1", "A service answers. The gate adds a request id and takes `x-powered-by` away."),
    ("@/whoami", "What a service sees behind the gate: the client's address, the request id, the way it came."),
    (
        "-i @/orders -H 'content-type: application/json' -d '{\"user\":1,\"sku\":\"lamp-2\",\"quantity\":1}'",
        "An order is placed: 201. Leave out the -H, and the gate refuses the body: 415.",
    ),
    (
        "-i -X OPTIONS @/orders -H 'origin: https://shop.example' -H 'access-control-request-method: POST'",
        "A preflight of a browser: the gate answers it, and no service sees it.",
    ),
    ("-i @/recommendations/1", "A slow service. What takes over 600 ms ends as a 504 that names the timer."),
    ("-i @/inventory/lamp-2", "A flaky service: every fifth answer is a 503."),
    (
        "-i @/admin/report",
        "403: only 10.0.0.0/8 may. Add -H 'x-forwarded-for: 10.1.2.3', as a trusted proxy would: 200.",
    ),
    ("-iL @/old/users/1", "A redirect keeps old addresses alive: 308, then the user."),
];

/// The whole banner, with colours where `colour` says so.
pub(crate) fn text(facts: &Facts<'_>, colour: bool) -> String {
    let gateway = format!("http://127.0.0.1:{}", facts.listen);
    let mut text = String::new();
    let mut line = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    line(&paint(colour, BOLD, "Pylon demo: one gate in front of five small services"));
    line("");
    line(&format!("  document   {}", facts.document.display()));
    line(&format!("  gateway    {}", paint(colour, BOLD, &gateway)));
    line(&format!("  admin      http://127.0.0.1:{}   (/metrics, /readyz)", facts.admin));
    line("");
    line("Try in another terminal:");
    for (arguments, shows) in TRIES {
        let arguments = arguments.replacen('@', &gateway, 1);
        line("");
        line(&format!("  {}", paint(colour, CYAN, &format!("curl {arguments}"))));
        line(&format!("    {}", paint(colour, DIM, shows)));
    }
    line("");
    line("Requests show up below as they are answered. Ctrl-C ends the demo.");
    line("");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_to_try_is_whole_and_goes_to_the_gateway() {
        let text = text(&Facts { document: Path::new("demo/pylon.yaml"), listen: 8081, admin: 9902 }, false);
        let curls: Vec<&str> = text.lines().filter(|line| line.starts_with("  curl ")).collect();
        assert_eq!(curls.len(), TRIES.len());
        for curl in curls {
            assert!(curl.contains("http://127.0.0.1:8081/") && !curl.contains('@'), "{curl}");
            assert_eq!(curl.matches('\'').count() % 2, 0, "{curl}");
        }
        assert!(text.contains("  document   demo/pylon.yaml\n") && text.contains("http://127.0.0.1:9902 "));
        assert!(text.is_ascii() && !text.contains('\x1b'));
    }

    #[test]
    fn colour_changes_nothing_but_the_look() {
        let facts = Facts { document: Path::new("pylon.yaml"), listen: 1, admin: 2 };
        let mut plain = String::new();
        for piece in text(&facts, true).split('\x1b') {
            let rest = piece.strip_prefix('[').and_then(|p| p.split_once('m')).map_or(piece, |(_, rest)| rest);
            plain.push_str(rest);
        }
        assert_eq!(plain, text(&facts, false));
    }
}
