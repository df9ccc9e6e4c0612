//! What is wrong with a document, told to a person: the place, the cause, the remedy. As text and as JSON.
//!
//! A diagnostic holds the line it shows, so it can be printed without the sources. What comes from a document is made
//! safe for a terminal before it is printed.

use std::fmt::Write as _;

use serde::{Serialize, Serializer, ser::SerializeStruct};

use crate::excerpt::{self, Excerpt};
use crate::tree::Span;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The document cannot be used.
    Error,
    /// The document can be used, but hardly does what its author wanted.
    Warning,
}

/// A place in a file, with the line to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, as the user named it.
    pub file: String,
    /// The line, counted from 1.
    pub line: u32,
    /// The column in characters, counted from 1.
    pub column: u32,
    /// How many characters are meant, as far as the first line reaches; 0 for a place between characters.
    pub length: u32,
    /// The bytes that are meant.
    pub span: Span,
    excerpt: Excerpt,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, as a sentence without a full stop.
    pub title: String,
    /// Where, if it is in a file.
    pub place: Option<Place>,
    /// What stands beside the mark.
    pub label: Option<String>,
    /// Other places that have to do with it, and how.
    #[serde(serialize_with = "related_as_maps")]
    pub related: Vec<(Place, String)>,
    /// What to do about it.
    pub help: Vec<String>,
    /// The field: `routes[2].cors.allow_origins`. Empty for the document as a whole.
    pub path: String,
}

impl Place {
    /// The place of `span` in `text`, which is the whole text of `file`.
    pub fn new(file: impl Into<String>, text: &str, span: Span) -> Self {
        let (start, end) = (span.start as usize, span.end as usize);
        Self {
            file: file.into(),
            line: span.line,
            column: span.column,
            length: excerpt::length_on_line(text, start, end) as u32,
            span,
            excerpt: Excerpt::new(text, start, end),
        }
    }

    /// The same with stars in place of what is marked: for a secret.
    pub fn masked(mut self) -> Self {
        self.excerpt = self.excerpt.masked();
        self
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut place = serializer.serialize_struct("Place", 6)?;
        place.serialize_field("file", &self.file)?;
        place.serialize_field("line", &self.line)?;
        place.serialize_field("column", &self.column)?;
        place.serialize_field("length", &self.length)?;
        place.serialize_field("span", &[self.span.start, self.span.end])?;
        place.serialize_field("text", &self.excerpt.text)?;
        place.end()
    }
}

impl Diagnostic {
    /// An error without a place.
    pub fn error(title: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            title: title.into(),
            place: None,
            label: None,
            related: Vec::new(),
            help: Vec::new(),
            path: String::new(),
        }
    }

    /// A warning without a place.
    pub fn warning(title: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(title) }
    }

    /// The same at `place`.
    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// The same with words beside the mark.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// The same with another place that has to do with it.
    pub fn related(mut self, place: Place, label: impl Into<String>) -> Self {
        self.related.push((place, label.into()));
        self
    }

    /// The same with one more remedy.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// The same for the field at `path`.
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Whether this is an error.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// The diagnostic as lines of text, the last one ended too; with the colours of a terminal if `colour`.
    pub fn render(&self, colour: bool) -> String {
        let ink = Ink { colour };
        let mut out = String::new();
        let (word, style) = match self.severity {
            Severity::Error => ("error", RED),
            Severity::Warning => ("warning", YELLOW),
        };
        out.push_str(&ink.paint(style, word));
        out.push_str(&ink.paint(BOLD, &format!(": {}", excerpt::clean(&self.title))));
        out.push('\n');
        let gutter = self.gutter();
        if let Some(place) = &self.place {
            block(&mut out, ink, gutter, place, ('^', style), self.label.as_deref().unwrap_or_default());
        }
        for (place, label) in &self.related {
            block(&mut out, ink, gutter, place, ('-', BLUE), label);
        }
        for help in &self.help {
            let text = help.lines().map(excerpt::clean).collect::<Vec<_>>().join(&format!("\n{:gutter$}  ", ""));
            let _ = writeln!(out, "{:gutter$}{} {text}", "", ink.paint(BOLD, "= help:"));
        }
        out
    }

    /// Digits of the largest line number shown, at least 2.
    fn gutter(&self) -> usize {
        let lines = self.place.iter().chain(self.related.iter().map(|(place, _)| place)).map(|place| place.line);
        lines.max().unwrap_or_default().to_string().len().max(2)
    }
}

/// All of them as text, an empty line between two.
pub fn render_all(diagnostics: &[Diagnostic], colour: bool) -> String {
    diagnostics.iter().map(|diagnostic| diagnostic.render(colour)).collect::<Vec<_>>().join("\n")
}

/// The arrow with the place, the line, the mark.
fn block(out: &mut String, ink: Ink, gutter: usize, place: &Place, (mark, style): (char, &str), label: &str) {
    let bar = ink.paint(BLUE, &format!("{:gutter$}│", ""));
    let arrow = ink.paint(BLUE, &format!("{:gutter$}┌", ""));
    let number = ink.paint(BLUE, &format!("{:>gutter$}│", place.line));
    let _ = writeln!(out, "{arrow} {}:{}:{}", excerpt::clean(&place.file), place.line, place.column);
    let shown = &place.excerpt;
    out.push_str(format!("{number} {}", shown.text).trim_end());
    let marks = mark.to_string().repeat(shown.width);
    let marks = ink.paint(style, format!("{marks} {}", excerpt::clean(label)).trim_end());
    let _ = writeln!(out, "\n{bar} {:at$}{marks}", "", at = shown.at);
}

const RED: &str = "1;31";
const YELLOW: &str = "1;33";
const BLUE: &str = "1;34";
const BOLD: &str = "1";

/// Whether and how to colour.
#[derive(Clone, Copy)]
struct Ink {
    colour: bool,
}

impl Ink {
    fn paint(self, style: &str, text: &str) -> String {
        if self.colour { format!("\u{1b}[{style}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

fn related_as_maps<S: Serializer>(related: &[(Place, String)], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Related<'a> {
        place: &'a Place,
        label: &'a str,
    }
    serializer.collect_seq(related.iter().map(|(place, label)| Related { place, label }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "upstreams:\n  users: {}\nroutes:\n  - match: /\n    forward: usres\n";

    fn place(part: &str, line: u32) -> Place {
        let start = TEXT.find(part).unwrap();
        let before = &TEXT[..start];
        let column = start - before.rfind('\n').map_or(0, |at| at + 1) + 1;
        let span = Span { start: start as u32, end: (start + part.len()) as u32, line, column: column as u32 };
        Place::new("pylon.yaml", TEXT, span)
    }

    fn unknown() -> Diagnostic {
        Diagnostic::error("this route forwards to an upstream that does not exist")
            .at(place("usres", 41))
            .label("no upstream is named `usres`")
            .help("did you mean `users` (defined at pylon.yaml:7)?")
            .path("routes[0].forward")
    }

    #[test]
    fn a_diagnostic_has_the_look_of_the_design() {
        insta::assert_snapshot!(unknown().render(false), @r"
        error: this route forwards to an upstream that does not exist
          ┌ pylon.yaml:41:14
        41│     forward: usres
          │              ^^^^^ no upstream is named `usres`
          = help: did you mean `users` (defined at pylon.yaml:7)?
        ");
    }

    #[test]
    fn related_places_follow_in_the_same_gutter() {
        let diagnostic =
            Diagnostic::warning("two things meet").at(place("match", 1204)).related(place("users", 2), "here");
        insta::assert_snapshot!(diagnostic.render(false), @r"
        warning: two things meet
            ┌ pylon.yaml:1204:5
        1204│   - match: /
            │     ^^^^^
            ┌ pylon.yaml:2:3
           2│   users: {}
            │   ----- here
        ");
    }

    #[test]
    fn a_diagnostic_without_a_place_has_a_title_and_help() {
        let diagnostic = Diagnostic::error("nothing to read").help("first\nsecond").help("another");
        insta::assert_snapshot!(diagnostic.render(false), @r"
        error: nothing to read
          = help: first
            second
          = help: another
        ");
    }

    #[test]
    fn colour_comes_only_when_asked_for() {
        assert!(!unknown().render(false).contains('\u{1b}'));
        assert!(unknown().render(true).contains("\u{1b}[1;31merror\u{1b}[0m"));
        let hostile = Diagnostic::error("unknown key `\u{1b}[2J`").label("\u{1b}").help("\u{1b}");
        assert!(!hostile.render(false).contains('\u{1b}'));
    }

    #[test]
    fn a_diagnostic_is_json_for_machines() {
        let json = serde_json::to_value(unknown().related(place("users", 2), "here")).unwrap();
        assert_eq!(json["severity"], "error");
        assert_eq!(json["path"], "routes[0].forward");
        assert_eq!(json["place"]["line"], 41);
        assert_eq!(json["place"]["column"], 14);
        assert_eq!(json["place"]["length"], 5);
        assert_eq!(json["place"]["file"], "pylon.yaml");
        assert_eq!(json["place"]["text"], "    forward: usres");
        assert_eq!(json["related"][0]["label"], "here");
    }
}
