//! Reads prose for American spelling and every text for paths that exist on one machine only.

use super::Finding;

/// Words in prose whose British form is ours. Words that are also Rust's or HTTP's own (serialize, authorize, license)
/// are left alone.
const SPELLING: &[(&str, &str)] = &[
    ("analyze", "analyse"),
    ("behavior", "behaviour"),
    ("canceled", "cancelled"),
    ("catalog", "catalogue"),
    ("center", "centre"),
    ("color", "colour"),
    ("favor", "favour"),
    ("honor", "honour"),
    ("initialize", "initialise"),
    ("labeled", "labelled"),
    ("minimize", "minimise"),
    ("neighbor", "neighbour"),
    ("normalize", "normalise"),
    ("optimize", "optimise"),
    ("organize", "organise"),
    ("recognize", "recognise"),
    ("summarize", "summarise"),
];

/// Top folders that hold what one machine has and another has not.
const PRIVATE: [&str; 4] = ["work", "tmp", "root", "Users"];

pub(crate) fn check(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let markdown = extension(path) == Some("md");
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        if let Some(folder) = PRIVATE.iter().find(|folder| has_path(line, folder)) {
            let message = format!(
                "a path below `/{folder}`, which is not on every machine: make it relative, or a temporary folder"
            );
            findings.push(Finding::fail(path, index + 1, message));
        }
        fenced ^= markdown && line.trim_start().starts_with("```");
        let prose = if fenced { "" } else { prose(path, line) };
        for (american, british) in american(prose) {
            findings.push(Finding::fail(path, index + 1, format!("`{american}` is spelt `{british}` here")));
        }
    }
    findings
}

/// The part of a line that people read: all of it in a Markdown file, the comment in Rust and shell.
fn prose<'a>(path: &str, line: &'a str) -> &'a str {
    let mark = match extension(path) {
        Some("md") => return line,
        Some("rs") => "//",
        Some("yaml" | "toml" | "sh") => "# ",
        _ => return "",
    };
    let comment = line.trim_start();
    if comment.starts_with(mark.trim_end()) {
        comment
    } else {
        line.split_once(mark).map_or("", |(_, comment)| comment)
    }
}

fn extension(path: &str) -> Option<&str> {
    path.rsplit_once('.').map(|(_, extension)| extension)
}

/// The American words of a line outside back-quotes and addresses.
fn american(prose: &str) -> Vec<(&'static str, &'static str)> {
    let mut found = Vec::new();
    for plain in prose.split('`').step_by(2) {
        for word in plain.split_whitespace().filter(|word| !word.contains("://")) {
            let word = word.trim_matches(|c: char| !c.is_alphabetic()).to_lowercase();
            let hit = SPELLING.iter().find(|(american, _)| is_form_of(&word, american));
            found.extend(hit.copied());
        }
    }
    found
}

/// Whether a word is the American one or an ending of it; `catalogue` is no form of `catalog`.
fn is_form_of(word: &str, american: &str) -> bool {
    let stem = american.strip_suffix('e').unwrap_or(american);
    word.strip_prefix(stem).is_some_and(|ending| {
        word.starts_with(american)
            && matches!(ending, "" | "e" | "s" | "es" | "ed" | "al" | "ing" | "able" | "er" | "ers")
            || (stem != american && ending == "ing")
    })
}

fn has_path(line: &str, folder: &str) -> bool {
    let path = format!("/{folder}/");
    line.match_indices(&path).any(|(at, _)| {
        let before = line.get(..at).and_then(|head| head.chars().next_back());
        let after = line.get(at + path.len()..).and_then(|tail| tail.chars().next());
        // Inside an address or a longer path it is somebody else's folder.
        !before.is_some_and(|c| c.is_alphanumeric() || "_-./}$*~".contains(c))
            && after.is_some_and(|c| c.is_ascii_lowercase() || c == '.')
    })
}

#[cfg(test)]
mod tests {
    use super::check;

    fn found(path: &str, text: &str) -> usize {
        check(path, text).len()
    }

    #[test]
    fn american_spelling_in_prose_is_found() {
        assert_eq!(found("README.md", "The behavior of colors.\n"), 2);
        assert_eq!(found("README.md", "Normalizing the path.\n"), 1);
        assert_eq!(found("crates/core/src/x.rs", "let color = 1; // the color\n"), 1);
        assert_eq!(found("README.md", "The behaviour of the catalogue; a favourite centre.\n"), 0);
    }

    #[test]
    fn code_and_addresses_are_not_prose() {
        assert_eq!(found("README.md", "Use `color` here.\n```css\ncolor: red\n```\n"), 0);
        assert_eq!(found("README.md", "See https://example.com/behavior for more.\n"), 0);
        assert_eq!(found("crates/core/src/x.rs", "fn initialize() {}\n"), 0);
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        let line = |folder: &str| format!("file: /{folder}/pylon/x\n");
        assert_eq!(found("a.yaml", &line("tmp")), 1);
        assert_eq!(found("a.yaml", &line("work")), 1);
        assert_eq!(found("a.yaml", &line("var")), 0);
        assert_eq!(found("a.yaml", "url: https://example.com/work/items\n"), 0);
        assert_eq!(found("a.yaml", "path: target/tmp/x\n"), 0);
    }
}
