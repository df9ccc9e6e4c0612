//! Reads dictionaries of structured fields (RFC 9651, and RFC 8941 before it), and writes their parts in the one form that there is.
//!
//! Stricter than the standard where a leniency would give one text two meanings: a key that stands twice makes the whole of no
//! use (RFC 9651 §4.2.2 takes the last one), since two readers that pick different ones disagree about what was signed.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::GetAll;
use http::{HeaderMap, HeaderName, HeaderValue};

/// The longest field that is read, in bytes, all its lines together.
pub const LONGEST: usize = 16 * 1024;

/// A value by itself (RFC 9651 §3.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bare {
    /// A whole number of at most 15 digits.
    Integer(i64),
    /// A number with a fraction, in thousandths.
    Decimal(i64),
    /// A text of visible ASCII and blanks.
    Text(String),
    /// A word.
    Token(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Yes or no.
    Boolean(bool),
    /// A moment, in seconds since 1970.
    Date(i64),
    /// A text of any letters.
    Display(String),
}

/// What is said of a value, by name and in order.
pub type Params = Vec<(String, Bare)>;

/// A value with parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The value.
    pub value: Bare,
    /// Its parameters.
    pub params: Params,
}

/// A member of a dictionary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Member {
    /// One value.
    Item(Item),
    /// A list of values, with parameters of its own.
    List(Vec<Item>, Params),
}

/// The members of a dictionary, in order.
pub type Dictionary = Vec<(String, Member)>;

/// The dictionary that the lines of a field are together (RFC 9651 §4.2). None where they are none.
pub fn dictionary(lines: GetAll<'_, HeaderValue>) -> Option<Dictionary> {
    let mut text = Vec::new();
    for line in lines {
        if !text.is_empty() {
            text.push(b',');
        }
        text.extend_from_slice(line.as_bytes());
    }
    parse(&text)
}

/// The same of one text.
pub fn parse(text: &[u8]) -> Option<Dictionary> {
    if text.len() > LONGEST {
        return None;
    }
    let mut reader = Reader(text);
    reader.skip(b" ");
    let members = reader.dictionary()?;
    reader.skip(b" ");
    reader.0.is_empty().then_some(members)
}

/// The dictionary of the field of this name.
pub(crate) fn field(headers: &HeaderMap, name: &HeaderName) -> Option<Dictionary> {
    dictionary(headers.get_all(name))
}

struct Reader<'t>(&'t [u8]);

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn take(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// Takes the next byte if it is this one.
    fn eat(&mut self, byte: u8) -> bool {
        let is_it = self.peek() == Some(byte);
        if is_it {
            self.take();
        }
        is_it
    }

    fn skip(&mut self, blanks: &[u8]) {
        while self.peek().is_some_and(|byte| blanks.contains(&byte)) {
            self.take();
        }
    }

    fn take_while(&mut self, fits: impl Fn(u8) -> bool) -> String {
        let end = self.0.iter().position(|byte| !fits(*byte)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at_checked(end).unwrap_or((self.0, b""));
        self.0 = rest;
        String::from_utf8_lossy(taken).into_owned()
    }

    fn dictionary(&mut self) -> Option<Dictionary> {
        let mut members = Dictionary::new();
        while self.peek().is_some() {
            let key = self.key()?;
            let member = if self.eat(b'=') {
                self.member()?
            } else {
                Member::Item(Item { value: Bare::Boolean(true), params: self.params()? })
            };
            if members.iter().any(|(other, _)| *other == key) {
                return None;
            }
            members.push((key, member));
            self.skip(b" \t");
            if self.0.is_empty() {
                break;
            }
            if !self.eat(b',') {
                return None;
            }
            self.skip(b" \t");
            // Nothing may stand behind the last comma.
            self.peek()?;
        }
        Some(members)
    }

    fn member(&mut self) -> Option<Member> {
        if !self.eat(b'(') {
            return self.item().map(Member::Item);
        }
        let mut items = Vec::new();
        loop {
            self.skip(b" ");
            if self.eat(b')') {
                return Some(Member::List(items, self.params()?));
            }
            items.push(self.item()?);
            if !matches!(self.peek()?, b' ' | b')') {
                return None;
            }
        }
    }

    fn item(&mut self) -> Option<Item> {
        Some(Item { value: self.bare()?, params: self.params()? })
    }

    fn params(&mut self) -> Option<Params> {
        let mut params = Params::new();
        while self.eat(b';') {
            self.skip(b" ");
            let key = self.key()?;
            let value = if self.eat(b'=') { self.bare()? } else { Bare::Boolean(true) };
            if params.iter().any(|(other, _)| *other == key) {
                return None;
            }
            params.push((key, value));
        }
        Some(params)
    }

    fn key(&mut self) -> Option<String> {
        if !self.peek().is_some_and(|byte| byte.is_ascii_lowercase() || byte == b'*') {
            return None;
        }
        Some(self.take_while(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte)))
    }

    fn bare(&mut self) -> Option<Bare> {
        match self.peek()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.text().map(Bare::Text),
            b':' => self.bytes().map(Bare::Bytes),
            b'?' => {
                self.take();
                match self.take()? {
                    b'0' => Some(Bare::Boolean(false)),
                    b'1' => Some(Bare::Boolean(true)),
                    _ => None,
                }
            }
            b'@' => {
                self.take();
                match self.number()? {
                    Bare::Integer(seconds) => Some(Bare::Date(seconds)),
                    _ => None,
                }
            }
            b'%' => self.display().map(Bare::Display),
            byte if byte.is_ascii_alphabetic() || byte == b'*' => {
                Some(Bare::Token(self.take_while(|byte| is_token(byte) || b":/".contains(&byte))))
            }
            _ => None,
        }
    }

    fn number(&mut self) -> Option<Bare> {
        let sign = if self.eat(b'-') { -1 } else { 1 };
        let whole = self.take_while(|byte| byte.is_ascii_digit());
        if whole.is_empty() {
            return None;
        }
        if !self.eat(b'.') {
            return (whole.len() <= 15).then(|| whole.parse::<i64>().ok()).flatten().map(|it| Bare::Integer(sign * it));
        }
        let fraction = self.take_while(|byte| byte.is_ascii_digit());
        if whole.len() > 12 || !(1..=3).contains(&fraction.len()) {
            return None;
        }
        let thousandths: i64 = format!("{whole}{fraction:0<3}").parse().ok()?;
        Some(Bare::Decimal(sign * thousandths))
    }

    fn text(&mut self) -> Option<String> {
        self.take();
        let mut text = String::new();
        loop {
            match self.take()? {
                b'"' => return Some(text),
                b'\\' => match self.take()? {
                    byte @ (b'"' | b'\\') => text.push(byte.into()),
                    _ => return None,
                },
                byte @ b' '..=b'~' => text.push(byte.into()),
                _ => return None,
            }
        }
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        self.take();
        let encoded = self.take_while(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
        if !self.eat(b':') {
            return None;
        }
        STANDARD.decode(encoded).ok()
    }

    fn display(&mut self) -> Option<String> {
        self.take();
        if !self.eat(b'"') {
            return None;
        }
        let mut bytes = Vec::new();
        let nibble = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        loop {
            match self.take()? {
                b'"' => return String::from_utf8(bytes).ok(),
                b'%' => bytes.push(nibble(self.take()?)? << 4 | nibble(self.take()?)?),
                byte @ b' '..=b'~' => bytes.push(byte),
                _ => return None,
            }
        }
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Writes a member (RFC 9651 §4.1).
pub fn write_member(member: &Member, out: &mut String) {
    match member {
        Member::Item(item) => write_item(item, out),
        Member::List(items, params) => write_list(items, params, out),
    }
}

/// Writes a list of values.
pub fn write_list(items: &[Item], params: &Params, out: &mut String) {
    out.push('(');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(' ');
        }
        write_item(item, out);
    }
    out.push(')');
    write_params(params, out);
}

/// Writes a value with its parameters.
pub fn write_item(item: &Item, out: &mut String) {
    write_bare(&item.value, out);
    write_params(&item.params, out);
}

fn write_params(params: &Params, out: &mut String) {
    for (key, value) in params {
        out.push(';');
        out.push_str(key);
        if *value != Bare::Boolean(true) {
            out.push('=');
            write_bare(value, out);
        }
    }
}

/// Writing to a string does not fail.
fn write_bare(value: &Bare, out: &mut String) {
    match value {
        Bare::Integer(number) => _ = write!(out, "{number}"),
        Bare::Decimal(thousandths) => {
            let (whole, fraction) = (thousandths.unsigned_abs() / 1000, thousandths.unsigned_abs() % 1000);
            let fraction = format!("{fraction:03}");
            let (first, rest) = fraction.split_at_checked(1).unwrap_or(("0", ""));
            let sign = if *thousandths < 0 { "-" } else { "" };
            _ = write!(out, "{sign}{whole}.{first}{}", rest.trim_end_matches('0'));
        }
        Bare::Text(text) => {
            out.push('"');
            for letter in text.chars() {
                if matches!(letter, '"' | '\\') {
                    out.push('\\');
                }
                out.push(letter);
            }
            out.push('"');
        }
        Bare::Token(word) => out.push_str(word),
        Bare::Bytes(bytes) => _ = write!(out, ":{}:", STANDARD.encode(bytes)),
        Bare::Boolean(yes) => out.push_str(if *yes { "?1" } else { "?0" }),
        Bare::Date(seconds) => _ = write!(out, "@{seconds}"),
        Bare::Display(text) => {
            out.push_str("%\"");
            for byte in text.bytes() {
                match byte {
                    b'"' | b'%' => _ = write!(out, "%{byte:02x}"),
                    b' '..=b'~' => out.push(byte.into()),
                    _ => _ = write!(out, "%{byte:02x}"),
                }
            }
            out.push('"');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(members: &Dictionary) -> String {
        let mut out = String::new();
        for (key, member) in members {
            if !out.is_empty() {
                out.push_str(", ");
            }
            out.push_str(key);
            match member {
                Member::Item(Item { value: Bare::Boolean(true), params }) => write_params(params, &mut out),
                member => {
                    out.push('=');
                    write_member(member, &mut out);
                }
            }
        }
        out
    }

    /// RFC 9651 §3 and §4.1: what is read is written in the one form that there is.
    #[test]
    fn a_dictionary_is_read_and_written_in_its_one_form() {
        for (text, form) in [
            ("", ""),
            ("en=\"Applepie\", da=:w4ZibGV0w6ZydGU=:", "en=\"Applepie\", da=:w4ZibGV0w6ZydGU=:"),
            ("a=?0, b, c; foo=bar", "a=?0, b, c;foo=bar"),
            ("rating=1.5, feelings=(joy sadness)", "rating=1.5, feelings=(joy sadness)"),
            ("a=(1 2), b=3, c=4;aa=bb, d=(5 6);valid", "a=(1 2), b=3, c=4;aa=bb, d=(5 6);valid"),
            ("  a=1 ,\tb=( \"x\"  y;q ) ", "a=1, b=(\"x\" y;q)"),
            ("a=-0, b=0042, c=-1.50, d=12.000", "a=0, b=42, c=-1.5, d=12.0"),
            ("a=\"x\\\"\\\\y\", b=*t/1:2", "a=\"x\\\"\\\\y\", b=*t/1:2"),
            ("a=@1659578233, b=%\"f%c3%bc%c3%bc %25\"", "a=@1659578233, b=%\"f%c3%bc%c3%bc %25\""),
            ("a=();b=?1;c", "a=();b;c"),
        ] {
            assert_eq!(parse(text.as_bytes()).map(|members| written(&members)).as_deref(), Some(form), "{text}");
        }
        let mut headers = HeaderMap::new();
        headers.append("x", HeaderValue::from_static("a=1"));
        headers.append("x", HeaderValue::from_static("b=2"));
        assert_eq!(field(&headers, &HeaderName::from_static("x")).map(|it| written(&it)).as_deref(), Some("a=1, b=2"));
    }

    #[test]
    fn what_is_no_dictionary_or_could_be_read_in_two_ways_is_refused() {
        for bad in [
            "A=1",
            "1=1",
            "=1",
            "a=",
            "a=1,",
            "a=1,,b=2",
            ",a=1",
            "a=1 b=2",
            "a==1",
            "a=1;",
            "a=1;B=2",
            "a=(1",
            "a=1)",
            "a=(1,2)",
            "a=(\"x\"y)",
            "a=(1 (2))",
            "a=\"x",
            "a=\"\\x\"",
            "a=\"\u{e9}\"",
            "a=:AA",
            "a=:A:",
            "a=:AB=:",
            "a=:A A=:",
            "a=?2",
            "a=?",
            "a=1.",
            "a=.5",
            "a=1.2345",
            "a=1234567890123456",
            "a=1234567890123.1",
            "a=-",
            "a=--1",
            "a=+1",
            "a=@1.5",
            "a=@",
            "a=%x",
            "a=%\"%C3\"",
            "a=%\"%ff\"",
            "a=%\"%4",
            "a=1, a=1",
            "a=1;x;x=2",
            "a=\t1",
            "\ta=1",
            "a=1\n",
            "a=1\0",
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(parse(&vec![b' '; LONGEST + 1]), None);
    }

    proptest! {
        #[test]
        fn whatever_is_read_reads_the_same_once_it_is_written(text in "[a-c]=[(\"]?[-?@%:\"0-9a-z;=., ()]{0,12}[)\"]?(, ?[d-f](=[0-9.]{1,4})?)?") {
            if let Some(members) = parse(text.as_bytes()) {
                let form = written(&members);
                prop_assert_eq!(parse(form.as_bytes()), Some(members), "{}", form);
            }
        }

        #[test]
        fn no_bytes_are_too_much(text in proptest::collection::vec(any::<u8>(), 0..64)) {
            parse(&text);
        }
    }
}
