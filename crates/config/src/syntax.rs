//! Says in plain words what the YAML parser could not read, and what to write instead.

use granit_parser::{ErrorKind, ScanError};

use crate::diagnostic::{Diagnostic, Place};
use crate::parse;
use crate::tree::{MAX_DEPTH, Span};

/// The diagnostic for a text that is not YAML.
pub(crate) fn explain(name: &str, text: &str, error: &ScanError) -> Diagnostic {
    let marker = error.marker();
    let start = parse::byte(marker);
    let spot = Span { start, end: start, line: marker.line().max(1) as u32, column: marker.col() as u32 + 1 };
    if is_about_tabs(error.kind()) {
        let tab = Lines::new(text, spot).tab().unwrap_or(spot);
        return Diagnostic::error("a tab cannot be used as indentation")
            .at(Place::new(name, text, tab))
            .label("a tab")
            .help("indent with spaces, two for each level");
    }
    let lines = Lines::new(text, spot);
    let diagnostic = Diagnostic::error(title(error.kind(), &lines)).at(Place::new(name, text, spot));
    if is_about_colons(error.kind())
        && let Some((line, key, rest)) = lines.glued_colon()
    {
        return diagnostic
            .help(format!("if `{key}` in line {line} is a key, a space is missing after its colon: `{key}: {rest}`"));
    }
    match help(error.kind(), &lines) {
        Some(help) => diagnostic.help(help),
        None => diagnostic,
    }
}

fn is_about_tabs(kind: &ErrorKind) -> bool {
    use ErrorKind as K;
    matches!(
        kind,
        K::TabInPlainScalar
            | K::TabInBlockIndentation
            | K::TabNotAllowed
            | K::TabInIndentation
            | K::TabAtBlockScalarStart
    )
}

fn is_about_colons(kind: &ErrorKind) -> bool {
    use ErrorKind as K;
    matches!(kind, K::MappingValueNotAllowed | K::SimpleKeyExpected | K::InvalidSimpleKey | K::ExpectedBlockMappingKey)
}

fn title(kind: &ErrorKind, lines: &Lines<'_>) -> String {
    use ErrorKind as K;
    let text = match kind {
        K::MappingValueNotAllowed if lines.has_colon_before() => "a second `: ` in one line",
        K::MappingValueNotAllowed | K::MappingKeyNotAllowed => "a key cannot stand here",
        K::ExpectedBlockMappingKey if lines.is_item() => "an item of a sequence among the keys of a map",
        K::ExpectedBlockMappingKey => "this line does not fit into the map before it",
        K::ExpectedBlockSequenceEntry => "expected one more item, `- …`, of the sequence before this line",
        K::SimpleKeyExpected | K::InvalidSimpleKey => "expected a key with a colon",
        K::ExpectedFlowMappingSeparator | K::UnexpectedEofFlowMapping => "expected `,` or `}`",
        K::ExpectedFlowSequenceSeparator | K::InvalidColonPlacement | K::UnexpectedEofFlowSequence => {
            "expected `,` or `]`"
        }
        K::UnknownAnchor => "no anchor before this has that name",
        K::MissingAnchorOrAliasName => "text without quotes cannot begin with `*` or `&`",
        K::UnclosedQuotedScalar => "this quote is never closed",
        K::InvalidTrailingSingleQuotedScalar | K::InvalidTrailingDoubleQuotedScalar => "text after a closing quote",
        K::UnknownQuotedScalarEscape => "an escape in this text is not known",
        K::BlockSequenceEntryNotAllowed | K::BlockEntryInFlowCollection => "a sequence with dashes cannot begin here",
        K::MisplacedFlowCollectionEnd => "this bracket closes nothing",
        K::CommentNotSeparated => "a comment needs a space before its `#`",
        K::RecursionLimitExceeded => {
            return format!("this stands deeper than {MAX_DEPTH} collections inside each other");
        }
        K::UnclosedFlowCollection { open } => return format!("this `{open}` is never closed"),
        K::MismatchedFlowCollectionEnd { open, close } => return format!("`{open}` is closed by `{close}`"),
        K::UnexpectedCharacter { character } if character.is_control() => {
            return format!("the character U+{:04X} is not allowed in a document", u32::from(*character));
        }
        K::UnexpectedCharacter { character } => return format!("text without quotes cannot begin with `{character}`"),
        other => return format!("this is not YAML: {other}"),
    };
    text.to_owned()
}

fn help(kind: &ErrorKind, lines: &Lines<'_>) -> Option<String> {
    use ErrorKind as K;
    let text = match kind {
        K::MappingValueNotAllowed if lines.has_colon_before() => "text that contains `: ` goes in quotes",
        K::ExpectedBlockMappingKey if lines.is_item() => {
            "a map has keys, a sequence has dashes: perhaps the line before needs a key, or this one fewer spaces"
        }
        K::MappingValueNotAllowed
        | K::MappingKeyNotAllowed
        | K::ExpectedBlockMappingKey
        | K::ExpectedBlockSequenceEntry => {
            "look at the indentation: the keys of one map, and the dashes of one sequence, begin in the same column"
        }
        K::SimpleKeyExpected | K::InvalidSimpleKey => "write `key: value`, with a space after the colon",
        K::ExpectedFlowMappingSeparator
        | K::UnexpectedEofFlowMapping
        | K::ExpectedFlowSequenceSeparator
        | K::InvalidColonPlacement
        | K::UnexpectedEofFlowSequence => {
            "between brackets, commas separate the entries, and text that contains `{`, `}`, `[`, `]` or `,` goes in quotes"
        }
        K::UnclosedFlowCollection { .. } | K::MismatchedFlowCollectionEnd { .. } | K::MisplacedFlowCollectionEnd => {
            "each `{` needs its `}`, each `[` its `]`; as text they go in quotes"
        }
        K::MissingAnchorOrAliasName => "put the text in quotes: `\"*\"`",
        K::UnknownAnchor => "text that begins with `*` goes in quotes: `\"*.example.com\"`",
        K::InvalidTrailingSingleQuotedScalar => "inside single quotes, write a quote twice: `'it''s'`",
        K::InvalidTrailingDoubleQuotedScalar => {
            "inside double quotes, write a quote as `\\\"`, or quote the text as a whole"
        }
        K::UnknownQuotedScalarEscape => "write `\\\\` for a backslash, or use single quotes, which know no escapes",
        K::BlockSequenceEntryNotAllowed => {
            "begin the sequence on a line of its own; text that is a dash goes in quotes"
        }
        K::BlockEntryInFlowCollection => "between brackets, items have no dashes: `[a, b]`",
        K::UnexpectedCharacter { character } if !character.is_control() => {
            return Some(format!("put the text in quotes: `\"{character}…\"`"));
        }
        _ => return None,
    };
    Some(text.to_owned())
}

/// The lines around an error.
struct Lines<'t> {
    text: &'t str,
    spot: Span,
    /// Byte at which the line of the error begins.
    begin: usize,
}

impl<'t> Lines<'t> {
    fn new(text: &'t str, spot: Span) -> Self {
        let at = text.floor_char_boundary(spot.start as usize);
        let begin = text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
        Self { text, spot, begin }
    }

    /// The line of the error.
    fn line(&self) -> &'t str {
        self.text.get(self.begin..).and_then(|rest| rest.lines().next()).unwrap_or_default()
    }

    /// The last line before that which is not blank, and its number.
    fn line_before(&self) -> (u32, &'t str) {
        let before = self.text.get(..self.begin).unwrap_or_default();
        let mut number = self.spot.line;
        for line in before.lines().rev().take(100) {
            number = number.saturating_sub(1);
            if !line.trim().is_empty() {
                return (number, line);
            }
        }
        (number, "")
    }

    /// The first tab in the indentation of the line of the error, or of those that follow: the parser sometimes stops at
    /// the end of the line before.
    fn tab(&self) -> Option<Span> {
        let mut begin = self.begin;
        for (i, line) in self.text.get(self.begin..)?.split_inclusive('\n').take(20).enumerate() {
            let indentation = line.len() - line.trim_start_matches([' ', '\t']).len();
            let tab = line.find('\t').filter(|tab| *tab < indentation);
            // What is written after the spot is what the parser minds.
            if let Some(tab) = tab
                && begin + tab + 1 >= self.spot.start as usize
            {
                let start = (begin + tab) as u32;
                return Some(Span { start, end: start + 1, line: self.spot.line + i as u32, column: tab as u32 + 1 });
            }
            begin += line.len();
        }
        None
    }

    /// A word, a colon and no space behind it, at the beginning of the line of the error or of the one before.
    fn glued_colon(&self) -> Option<(u32, &'t str, &'t str)> {
        let (number, before) = self.line_before();
        let glued = |number, line| glued(line).map(|(key, rest)| (number, key, rest));
        glued(self.spot.line, self.line()).or_else(|| glued(number, before))
    }

    /// Whether a colon and a space stand in this line before the error.
    fn has_colon_before(&self) -> bool {
        let at = self.text.floor_char_boundary(self.spot.start as usize);
        self.text.get(self.begin..at).is_some_and(|before| before.contains(": "))
    }

    /// Whether the line begins with a dash.
    fn is_item(&self) -> bool {
        self.line().trim_start().starts_with("- ")
    }
}

/// The key and the value of `key:value`. Not of `http://…`, nor of more than one word.
fn glued(line: &str) -> Option<(&str, &str)> {
    let mut line = line.trim();
    while let Some(item) = line.strip_prefix("- ") {
        line = item.trim_start();
    }
    let (key, rest) = line.split_once(':')?;
    let word = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'));
    (word && !rest.is_empty() && !rest.starts_with([' ', '/', ':'])).then_some((key, rest))
}
