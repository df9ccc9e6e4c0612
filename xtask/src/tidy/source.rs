//! Reads Rust just well enough for the checks: which characters are code, which lines are tests, where functions are.

/// A Rust file with its comments and literals told apart from its code.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    pub(crate) path: &'a str,
    pub(crate) text: &'a str,
    /// As many lines as `text`, where comments and the contents of literals are blanks.
    pub(crate) code: Vec<String>,
    /// Whether a line belongs to a `#[cfg(test)]` item, or the whole file is test code.
    pub(crate) test: Vec<bool>,
}

/// A function and the lines it takes, from `fn` to its closing brace.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) lines: usize,
}

impl<'a> Source<'a> {
    pub(crate) fn read(path: &'a str, text: &'a str) -> Self {
        let code: Vec<String> = mask(text).lines().map(str::to_owned).collect();
        let whole = path.split('/').any(|part| matches!(part, "tests" | "benches" | "fuzz_targets" | "testkit"))
            || path.ends_with("tests.rs");
        let test = if whole { vec![true; code.len()] } else { test_lines(&code) };
        Self { path, text, code, test }
    }

    /// The lines of code outside tests, numbered from 1.
    pub(crate) fn shipped(&self) -> impl Iterator<Item = (usize, &str)> {
        self.numbered().filter(|(_, test, _)| !test).map(|(line, _, code)| (line, code))
    }

    /// The lines of code, each with its number and whether it is a test's.
    pub(crate) fn numbered(&self) -> impl Iterator<Item = (usize, bool, &str)> {
        self.code.iter().zip(&self.test).enumerate().map(|(index, (code, test))| (index + 1, *test, code.as_str()))
    }

    /// The functions outside tests, in the order they stand.
    pub(crate) fn functions(&self) -> Vec<Function> {
        let mut found = Vec::new();
        for (line, code) in self.shipped() {
            for name in names_after_fn(code) {
                if let Some(last) = closing_line(&self.code, line - 1, &format!("fn {name}")) {
                    found.push(Function { name, line, lines: last + 2 - line });
                }
            }
        }
        found
    }
}

/// The names that follow the word `fn` in a line.
fn names_after_fn(code: &str) -> Vec<String> {
    let mut words = code.split(|c: char| !is_word(c)).filter(|word| !word.is_empty());
    let mut names = Vec::new();
    while let Some(word) = words.next() {
        if word == "fn"
            && let Some(name) = words.next().filter(|name| code.contains(&format!("fn {name}")))
        {
            names.push(name.to_owned());
        }
    }
    names
}

/// The index of the line that closes the item which starts at `start`, behind the text `after`; none for a declaration
/// that ends in a semicolon.
fn closing_line(code: &[String], start: usize, after: &str) -> Option<usize> {
    let (mut braces, mut round) = (0_i32, 0_i32);
    for (offset, line) in code.iter().skip(start).enumerate() {
        let skip = if offset == 0 { line.find(after).map_or(0, |at| at + after.len()) } else { 0 };
        for letter in line.chars().skip(skip) {
            match letter {
                '(' | '[' => round += 1,
                ')' | ']' => round -= 1,
                '{' => braces += 1,
                ';' if braces == 0 && round == 0 => return None,
                '}' => {
                    braces -= 1;
                    // A const generic in the head closes inside the parentheses; the body closes outside them.
                    if braces <= 0 && round == 0 {
                        return Some(start + offset);
                    }
                }
                _ => {}
            }
        }
    }
    None
}

fn test_lines(code: &[String]) -> Vec<bool> {
    let mut test = vec![false; code.len()];
    for (index, line) in code.iter().enumerate() {
        let Some(mark) = ["#[cfg(test)]", "#[cfg(all(test"].into_iter().find(|mark| line.contains(mark)) else {
            continue;
        };
        let last = closing_line(code, index, mark).unwrap_or(index + 1);
        test.iter_mut().take(last + 1).skip(index).for_each(|flag| *flag = true);
    }
    test
}

/// The text with comments, strings and characters blanked, line by line as long as before.
fn mask(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(&letter) = letters.get(at) {
        let next = letters.get(at + 1).copied();
        let fresh = at == 0 || !letters.get(at - 1).is_some_and(|c| is_word(*c));
        let end = match letter {
            '/' if next == Some('/') => line_end(&letters, at),
            '/' if next == Some('*') => comment_end(&letters, at),
            '"' => string_end(&letters, at),
            'r' if fresh => raw_end(&letters, at).unwrap_or(at),
            'b' | 'c' if fresh && next == Some('r') => raw_end(&letters, at + 1).unwrap_or(at),
            '\'' => character_end(&letters, at).unwrap_or(at),
            _ => at,
        };
        if end == at {
            out.push(letter);
            at += 1;
        } else {
            let hidden = letters.get(at..end).unwrap_or_default();
            out.extend(hidden.iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

fn line_end(letters: &[char], from: usize) -> usize {
    letters.iter().skip(from).position(|c| *c == '\n').map_or(letters.len(), |length| from + length)
}

fn comment_end(letters: &[char], from: usize) -> usize {
    let (mut depth, mut at) = (0_usize, from);
    loop {
        match (letters.get(at), letters.get(at + 1)) {
            (Some('/'), Some('*')) => (depth, at) = (depth + 1, at + 2),
            (Some('*'), Some('/')) if depth <= 1 => return at + 2,
            (Some('*'), Some('/')) => (depth, at) = (depth - 1, at + 2),
            (Some(_), _) => at += 1,
            (None, _) => return letters.len(),
        }
    }
}

fn string_end(letters: &[char], from: usize) -> usize {
    let mut at = from + 1;
    loop {
        match letters.get(at) {
            Some('\\') => at += 2,
            Some('"') => return at + 1,
            Some(_) => at += 1,
            None => return letters.len(),
        }
    }
}

/// The end of a raw string whose `r` stands at `from`, or nothing when it is no raw string.
fn raw_end(letters: &[char], from: usize) -> Option<usize> {
    let hashes = letters.iter().skip(from + 1).take_while(|c| **c == '#').count();
    let mut at = from + 1 + hashes;
    if letters.get(at) != Some(&'"') {
        return None;
    }
    loop {
        at += 1;
        let closing = letters.get(at)? == &'"' && letters.iter().skip(at + 1).take(hashes).all(|c| *c == '#');
        if closing {
            return Some(at + 1 + hashes);
        }
    }
}

/// The end of a character literal, or nothing when the apostrophe begins a lifetime.
fn character_end(letters: &[char], from: usize) -> Option<usize> {
    match (letters.get(from + 1)?, letters.get(from + 2)?) {
        ('\\', _) => letters.iter().skip(from + 3).position(|c| *c == '\'').map(|length| from + 4 + length),
        (_, '\'') => Some(from + 3),
        _ => None,
    }
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

#[cfg(test)]
mod tests {
    use super::{Function, Source, mask};

    #[test]
    fn comments_and_literals_are_no_code() {
        assert_eq!(mask("a // b\nc"), "a     \nc");
        assert_eq!(mask("a /* b /* c */ \n */ d"), "a              \n    d");
        assert_eq!(mask(r#"x("to\"do", 'a', '\'', b"z") 'static"#), "x(        ,    ,     , b   ) 'static");
        assert_eq!(mask("r#\"a \" b\"# for"), "           for");
    }

    #[test]
    fn a_test_module_is_known_from_its_attribute_to_its_brace() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n";
        let source = Source::read("crates/core/src/x.rs", text);
        assert_eq!(source.test, [false, true, true, true, true, false]);
        assert!(Source::read("crates/core/src/x/tests.rs", text).test.iter().all(|test| *test));
    }

    #[test]
    fn functions_are_measured_to_their_closing_brace() {
        let text = "trait T {\n    fn short(&self) -> [u8; 4];\n    fn long(&self)\n    where\n        Self: Sized,\n    {\n        let a = \"}\";\n    }\n}\nconst F: fn(u8) = g;\n";
        let functions = Source::read("crates/core/src/x.rs", text).functions();
        assert_eq!(functions, [Function { name: "long".into(), line: 3, lines: 6 }]);
    }
}
