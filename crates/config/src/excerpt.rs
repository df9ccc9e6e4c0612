//! The line that a diagnostic shows, made safe and short: tabs become spaces, control characters become `�`, and a long
//! line keeps what stands around the mark. Widths are cells of a terminal (Unicode Standard Annex #11).

use unicode_width::UnicodeWidthChar;

/// Cells of a line that are shown at most.
const WIDTH: usize = 110;
/// Cells that stay before the mark when a line is cut.
const BEFORE: usize = 40;
/// A tab reaches to the next multiple of this.
const TAB: usize = 4;
/// Bytes of a line that are looked at on either side of the mark's start.
const REACH: usize = 2048;

/// One line, ready to be printed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Excerpt {
    /// The line as shown.
    pub(crate) text: String,
    /// Cells before the mark.
    pub(crate) at: usize,
    /// Cells under the mark, at least 1.
    pub(crate) width: usize,
}

impl Excerpt {
    /// The line of `text` in which byte `start` stands, with the bytes up to `end` marked as far as the line reaches.
    pub(crate) fn new(text: &str, start: usize, end: usize) -> Self {
        let start = boundary(text, start);
        let (before, after) = text.split_at(start);
        let (before, cut_left) = last_line(before);
        let (after, cut_right) = first_line(after);
        let marked = boundary(after, end.saturating_sub(start));
        let cells = Cells::of(before, after, marked);
        cells.cut(cut_left, cut_right)
    }

    /// The same with stars in place of what is marked, for a value that must not be printed.
    pub(crate) fn masked(&self) -> Self {
        let mut text = String::with_capacity(self.text.len());
        let mut at = 0;
        let mut hidden = false;
        for c in self.text.chars() {
            if at < self.at || at >= self.at + self.width {
                text.push(c);
            } else if !hidden {
                text.push_str("***");
                hidden = true;
            }
            at += width_of(c);
        }
        Self { text, at: self.at, width: 3 }
    }
}

/// Makes text from a document or the system safe for a terminal: line breaks become spaces, other control characters
/// and marks that turn the direction of writing become `�`.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c == '\n' || c == '\t' { ' ' } else { safe(c) }).collect()
}

/// Characters of `text`, from `start` on, that lie before `end` and before the end of the line.
pub(crate) fn length_on_line(text: &str, start: usize, end: usize) -> usize {
    let start = boundary(text, start);
    let end = boundary(text, end.min(start.saturating_add(REACH))).max(start);
    let part = text.get(start..end).unwrap_or_default();
    part.chars().take_while(|c| !matches!(c, '\n' | '\r')).count()
}

/// The characters of a line with their cells.
struct Cells {
    shown: Vec<(char, usize)>,
    /// Index of the first marked character.
    from: usize,
    /// Index behind the last marked one.
    to: usize,
}

impl Cells {
    fn of(before: &str, after: &str, marked: usize) -> Self {
        let mut cells = Self { shown: Vec::new(), from: 0, to: 0 };
        let mut column = 0;
        cells.push_all(before, &mut column);
        cells.from = cells.shown.len();
        let (inside, outside) = after.split_at(marked);
        cells.push_all(inside, &mut column);
        cells.to = cells.shown.len();
        cells.push_all(outside, &mut column);
        cells
    }

    fn push_all(&mut self, text: &str, column: &mut usize) {
        for c in text.chars() {
            if c == '\t' {
                let spaces = TAB - *column % TAB;
                self.shown.extend(std::iter::repeat_n((' ', 1), spaces));
                *column += spaces;
            } else {
                let c = safe(c);
                let width = width_of(c);
                self.shown.push((c, width));
                *column += width;
            }
        }
    }

    /// Keeps [`WIDTH`] cells around the mark.
    fn cut(self, cut_left: bool, cut_right: bool) -> Excerpt {
        let trimmed = self.shown.iter().rposition(|(c, _)| *c != ' ').map_or(0, |last| last + 1).max(self.to);
        let shown = self.shown.get(..trimmed).unwrap_or_default();
        let width = |range: std::ops::Range<usize>| -> usize {
            shown.get(range).unwrap_or_default().iter().map(|(_, width)| width).sum()
        };
        let mut first = 0;
        if width(0..shown.len()) > WIDTH && width(0..self.to) > WIDTH {
            // The mark would fall out at the right: let the line start a little before it.
            first = self.from;
            let mut room = BEFORE;
            while let Some((_, cell)) = first.checked_sub(1).and_then(|before| shown.get(before))
                && *cell <= room
            {
                room -= *cell;
                first -= 1;
            }
        }
        let mut last = first;
        let mut room = WIDTH;
        while let Some((_, cell)) = shown.get(last)
            && *cell <= room
        {
            room -= *cell;
            last += 1;
        }
        let left = if first > 0 || cut_left { "…" } else { "" };
        let right = if last < shown.len() || cut_right { "…" } else { "" };
        let middle: String = shown.get(first..last).unwrap_or_default().iter().map(|(c, _)| c).collect();
        Excerpt {
            text: format!("{left}{middle}{right}"),
            at: width(first..self.from) + left.chars().count(),
            width: width(self.from..self.to.min(last).max(self.from)).max(1),
        }
    }
}

/// What comes after the last line break, and whether it was cut.
fn last_line(text: &str) -> (&str, bool) {
    let from = text.rfind(['\n', '\r']).map_or(0, |at| at + 1);
    let line = text.get(from..).unwrap_or_default();
    if line.len() <= REACH {
        return (line, false);
    }
    (line.get(boundary(line, line.len() - REACH)..).unwrap_or_default(), true)
}

/// What comes before the first line break, and whether it was cut.
fn first_line(text: &str) -> (&str, bool) {
    let line = text.split(['\n', '\r']).next().unwrap_or_default();
    if line.len() <= REACH {
        return (line, false);
    }
    (line.get(..boundary(line, REACH)).unwrap_or_default(), true)
}

/// The nearest boundary of a character at or before `at`.
fn boundary(text: &str, at: usize) -> usize {
    text.floor_char_boundary(at)
}

fn safe(c: char) -> char {
    let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    if c.is_control() || turns || matches!(c, '\u{2028}' | '\u{2029}') { '\u{fffd}' } else { c }
}

fn width_of(c: char) -> usize {
    c.width().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(text: &str, part: &str) -> (String, String) {
        let start = text.find(part).unwrap();
        let excerpt = Excerpt::new(text, start, start + part.len());
        (excerpt.text, format!("{}{}", " ".repeat(excerpt.at), "^".repeat(excerpt.width)))
    }

    #[test]
    fn the_mark_stands_under_its_word() {
        let (line, mark) = marked("a: 1\n  b: word # more\nc: 3\n", "word");
        assert_eq!(line, "  b: word # more");
        assert_eq!(mark, "     ^^^^");
    }

    #[test]
    fn a_tab_reaches_to_the_next_stop() {
        let (line, mark) = marked("a:\tb\t c", "b");
        assert_eq!(line, "a:  b    c");
        assert_eq!(mark, "    ^");
    }

    #[test]
    fn wide_characters_take_two_cells() {
        let (line, mark) = marked("名前: 値段 x", "値段");
        assert_eq!(line, "名前: 値段 x");
        assert_eq!(mark, "      ^^^^");
    }

    #[test]
    fn control_characters_cannot_reach_the_terminal() {
        let (line, _) = marked("a: \u{1b}[31m\u{202e}x", "x");
        assert_eq!(line, "a: \u{fffd}[31m\u{fffd}x");
        assert_eq!(clean("a\u{1b}\nb"), "a\u{fffd} b");
    }

    #[test]
    fn a_long_line_keeps_what_is_around_the_mark() {
        let text = format!("{}: word{}", "k".repeat(5000), ", more".repeat(900));
        let (line, mark) = marked(&text, "word");
        assert!(line.starts_with("…kk") && line.ends_with('…'), "{line}");
        assert!(line.chars().count() <= WIDTH + 2);
        let at = mark.find('^').unwrap();
        assert_eq!(line.chars().skip(at).take(4).collect::<String>(), "word");
    }

    #[test]
    fn a_mark_of_several_lines_ends_with_its_first_line() {
        let text = "a:\n  b: 1\n  c: 2\n";
        let excerpt = Excerpt::new(text, 5, 16);
        assert_eq!((excerpt.text.as_str(), excerpt.at, excerpt.width), ("  b: 1", 2, 4));
        assert_eq!(length_on_line(text, 5, 16), 4);
    }

    #[test]
    fn places_outside_the_text_are_survived() {
        let excerpt = Excerpt::new("ab", 900, 5);
        assert_eq!((excerpt.text.as_str(), excerpt.at, excerpt.width), ("ab", 2, 1));
        assert_eq!(Excerpt::new("", 0, 0).width, 1);
        assert_eq!(Excerpt::new("ä", 1, 1).at, 0);
    }

    #[test]
    fn a_masked_excerpt_hides_the_marked_value() {
        let text = "token: hunter2 # c";
        let masked = Excerpt::new(text, 7, 14).masked();
        assert_eq!(masked.text, "token: *** # c");
        assert_eq!((masked.at, masked.width), (7, 3));
    }
}
