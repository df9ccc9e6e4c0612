//! The fields of a head, or behind the last chunk (RFC 9112 §5, §6): each byte is looked at once, in whatever pieces they come, but for
//! those of a line that is no whole and right one: they are looked at once more.

use std::ops::Range;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use pylon_core::spare;

use crate::classes::{TOKEN, control, run};
use crate::fault::Fault;
use crate::names::{self, CONNECTION, CONTENT_LENGTH, EXPECT, OTHER, TE, TRANSFER_ENCODING, UPGRADE};
use crate::trailers::may_trail;
use crate::{answer, names_option, options};

/// How many fields the head of a request, or trailers, may have.
const MAX_FIELDS: usize = 100;
/// The longest body, and the longest chunk: many readers count in signed numbers of 64 bits.
const MAX_LENGTH: u64 = i64::MAX as u64;

/// Reads fields out of a buffer that holds them from their first byte on.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    /// Up to here all is fine.
    pub(crate) at: usize,
    state: State,
    /// Where the name of the field under way begins, its colon stands, and which name it is.
    start: usize,
    colon: usize,
    known: u8,
    list: Vec<Field>,
    pub(crate) said: Said,
    place: Place,
    /// Of HTTP/1.0.
    pub(crate) old: bool,
}

/// Where fields stand, which says what they may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Place {
    #[default]
    Request,
    Answer,
    /// Behind a body: none of them frames anything.
    Trailers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// At the beginning of a field, or of the empty line.
    #[default]
    Field,
    Name,
    Value,
    /// Behind the CR of a field.
    LineLf,
    /// Behind the CR of the empty line.
    EndLf,
}

/// Where a field stands.
#[derive(Debug, Clone, Copy)]
struct Field {
    known: u8,
    start: usize,
    colon: usize,
    value: usize,
    end: usize,
}

/// What the fields say of the message and its connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is what one field says")]
pub(crate) struct Said {
    pub(crate) length: Option<u64>,
    pub(crate) chunked: bool,
    pub(crate) upgrade: bool,
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
    /// The client waits to be told that its body is wanted.
    pub(crate) expects: bool,
    /// The client reads trailers.
    pub(crate) trailers: bool,
}

/// How much of a field is handed on.
enum Kept {
    All,
    /// So many bytes of its value.
    Some(usize),
    Nothing,
}

impl Said {
    /// The length of an answer: equal repeats count as one (RFC 9112 §6.3, rule 5).
    fn lengths(&mut self, value: &[u8]) -> Result<Kept, Fault> {
        if let (None, Ok(length)) = (self.length, decimal(value)) {
            self.length = Some(length);
            return Ok(Kept::All);
        }
        let first = self.length.is_none();
        for item in value.split(|byte| *byte == b',') {
            let length = decimal(item.trim_ascii())?;
            if self.length.is_some_and(|known| known != length) {
                return Err(Fault::Lengths);
            }
            self.length = Some(length);
        }
        let one = value.iter().position(|byte| *byte == b',').and_then(|end| value.get(..end)).unwrap_or(value);
        Ok(if first { Kept::Some(one.trim_ascii_end().len()) } else { Kept::Nothing })
    }
}

impl Fields {
    /// For the fields behind a body.
    pub(crate) fn of_trailers() -> Self {
        Self { place: Place::Trailers, ..Self::default() }
    }

    /// Begins anew at `at`, in the memory it has; `old` says that the message is of HTTP/1.0.
    pub(crate) fn begin(&mut self, at: usize, place: Place, old: bool) {
        self.list.clear();
        let list = std::mem::take(&mut self.list);
        *self = Self { at, list, place, old, ..Self::default() };
    }

    /// Gives back what only long heads need.
    pub(crate) fn rest(&mut self) {
        if self.list.capacity() > 16 {
            self.list = Vec::new();
        }
    }

    /// Goes on in `bytes`. Answers whether the empty line behind the fields is there, up to `at`.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Result<bool, Fault> {
        if self.state == State::Field {
            self.lines(bytes)?;
        }
        loop {
            let rest = bytes.get(self.at..).unwrap_or_default();
            let Some(&byte) = rest.first() else { return Ok(false) };
            match self.state {
                State::Value => match control(rest) {
                    None => {
                        self.at = bytes.len();
                        return Ok(false);
                    }
                    Some(plain) => {
                        self.at = self.at.saturating_add(plain);
                        self.value(bytes)?;
                    }
                },
                State::LineLf | State::EndLf if byte != b'\n' => return Err(Fault::BareCr),
                State::LineLf => self.go(State::Field),
                State::EndLf => {
                    self.go(State::Field);
                    return Ok(true);
                }
                State::Field => match byte {
                    b'\r' => self.go(State::EndLf),
                    b' ' | b'\t' => return Err(Fault::Fold),
                    b'\n' => return Err(Fault::BareLf),
                    _ => (self.start, self.state) = (self.at, State::Name),
                },
                State::Name => {
                    self.at = self.at.saturating_add(run(rest, TOKEN, usize::MAX));
                    if !self.name(bytes)? {
                        return Ok(false);
                    }
                }
            }
        }
    }

    /// The usual case, quickly: fields that are there as a whole. The others, and what is wrong, are left to who reads on.
    fn lines(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        while let Some(rest) = bytes.get(self.at..) {
            let (known, length) = names::find(rest).unwrap_or_else(|| (OTHER, run(rest, TOKEN, usize::MAX)));
            let Some((name, [b':', behind @ ..])) = rest.split_at_checked(length) else { break };
            let Some(plain) = control(behind) else { break };
            let Some((value, [b'\r', b'\n', ..])) = behind.split_at_checked(plain) else { break };
            if name.is_empty() {
                break;
            }
            (self.start, self.colon, self.known) = (self.at, self.at.saturating_add(length), known);
            // Where a fault is found, that is how far all was fine.
            self.at = self.colon;
            self.may_frame()?;
            self.at = self.colon.saturating_add(value.len()).saturating_add(1);
            self.keep(value)?;
            self.at = self.at.saturating_add(2);
        }
        Ok(())
    }

    /// At the end of a name, or of the bytes: then it answers false.
    fn name(&mut self, bytes: &[u8]) -> Result<bool, Fault> {
        match bytes.get(self.at) {
            None => Ok(false),
            Some(b':') if self.at == self.start => Err(Fault::EmptyName),
            Some(b':') => {
                self.colon = self.at;
                let found = names::find(bytes.get(self.start..).unwrap_or_default());
                self.known = found.map_or(OTHER, |(known, _)| known);
                self.may_frame()?;
                self.go(State::Value);
                Ok(true)
            }
            Some(b' ' | b'\t') => Err(Fault::BlankBeforeColon),
            Some(b'\r' | b'\n') => Err(Fault::NoColon),
            Some(_) => Err(Fault::Name),
        }
    }

    /// Whether a field of this name may still frame the body.
    fn may_frame(&self) -> Result<(), Fault> {
        let said = &self.said;
        if self.place == Place::Trailers {
            return Ok(());
        }
        match self.known {
            CONTENT_LENGTH if said.length.is_some() && self.place == Place::Request => Err(Fault::Lengths),
            CONTENT_LENGTH if said.chunked => Err(Fault::LengthAndCoding),
            TRANSFER_ENCODING if self.old => Err(Fault::OldCoding),
            TRANSFER_ENCODING if said.chunked => Err(Fault::Codings),
            TRANSFER_ENCODING if said.length.is_some() => Err(Fault::LengthAndCoding),
            _ => Ok(()),
        }
    }

    /// At a control byte within a value.
    fn value(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        match bytes.get(self.at) {
            Some(b'\t') => {
                self.go(State::Value);
                Ok(())
            }
            Some(b'\r') => {
                self.keep(bytes.get(self.colon.saturating_add(1)..self.at).unwrap_or_default())?;
                self.go(State::LineLf);
                Ok(())
            }
            Some(b'\n') => Err(Fault::BareLf),
            _ => Err(match self.known {
                CONTENT_LENGTH if self.place != Place::Trailers => Fault::Length,
                TRANSFER_ENCODING if self.place != Place::Trailers => Fault::Coding,
                _ => Fault::Control,
            }),
        }
    }

    /// Takes in a field whose value is whole; `raw` is what stands behind its colon.
    fn keep(&mut self, raw: &[u8]) -> Result<(), Fault> {
        let value = trim(raw);
        let from = self.colon.saturating_add(1);
        let start = from.saturating_add(value.start);
        let frames = self.known != OTHER && self.place != Place::Trailers;
        let kept = if frames { self.learn(raw.get(value.clone()).unwrap_or_default())? } else { Kept::All };
        let end = match kept {
            Kept::All => from.saturating_add(value.end),
            Kept::Some(length) => start.saturating_add(length),
            Kept::Nothing => return Ok(()),
        };
        let most = if self.place == Place::Answer { answer::MAX_FIELDS } else { MAX_FIELDS };
        if self.list.len() >= most {
            return Err(if self.place == Place::Trailers { Fault::ManyTrailers } else { Fault::ManyFields });
        }
        self.list.push(Field { known: self.known, start: self.start, colon: self.colon, value: start, end });
        Ok(())
    }

    /// Takes in what a field says that concerns framing or the connection, and says how much of it is handed on.
    fn learn(&mut self, value: &[u8]) -> Result<Kept, Fault> {
        let said = &mut self.said;
        match self.known {
            CONTENT_LENGTH if self.place == Place::Answer => return said.lengths(value),
            CONTENT_LENGTH => said.length = Some(decimal(value)?),
            TRANSFER_ENCODING if value.eq_ignore_ascii_case(b"chunked") => {
                said.chunked = true;
                if self.place == Place::Answer {
                    return Ok(Kept::Nothing);
                }
            }
            TRANSFER_ENCODING => return Err(Fault::Coding),
            UPGRADE => said.upgrade = !self.old,
            CONNECTION => {
                for option in options(value) {
                    said.close |= option.eq_ignore_ascii_case(b"close");
                    said.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            EXPECT => said.expects |= value.eq_ignore_ascii_case(b"100-continue"),
            TE => said.trailers |= names_option(value, b"trailers"),
            _ => {}
        }
        Ok(Kept::All)
    }

    /// The fields that were read, out of `bytes`, which hold them.
    pub(crate) fn take(&mut self, bytes: &Bytes) -> Result<HeaderMap, Fault> {
        let mut map = spare::take_map(self.list.len());
        for field in self.list.drain(..) {
            let name = match names::name(field.known) {
                Some(name) => name.clone(),
                None => HeaderName::from_bytes(bytes.get(field.start..field.colon).unwrap_or_default())
                    .map_err(|_| Fault::Name)?,
            };
            if self.place == Place::Trailers && !may_trail(&name) {
                continue;
            }
            let value = bytes.slice(field.value..field.end);
            // SAFETY: what stands between a colon and the CR of its line was found to hold no control byte but tabs above.
            #[expect(unsafe_code, reason = "each byte of a value would be looked at once more")]
            let value = unsafe { HeaderValue::from_maybe_shared_unchecked(value) };
            map.try_append(name, value).map_err(|_| Fault::ManyFields)?;
        }
        Ok(map)
    }

    fn go(&mut self, state: State) {
        self.at = self.at.saturating_add(1);
        self.state = state;
    }
}

/// Where a value stands in `raw`, without the blanks around it.
fn trim(raw: &[u8]) -> Range<usize> {
    // The usual case, at once.
    if let [b' ', b'!'..=u8::MAX, .., b'!'..=u8::MAX] = raw {
        return 1..raw.len();
    }
    let begun = raw.trim_ascii_start();
    let start = raw.len().saturating_sub(begun.len());
    start..start.saturating_add(begun.trim_ascii_end().len())
}

fn decimal(value: &[u8]) -> Result<u64, Fault> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Fault::Length);
    }
    value.iter().try_fold(0, |so_far, digit| append(so_far, 10, digit.wrapping_sub(b'0')))
}

/// One more digit.
pub(crate) fn append(so_far: u64, radix: u64, digit: u8) -> Result<u64, Fault> {
    let value = so_far.checked_mul(radix).and_then(|value| value.checked_add(u64::from(digit)));
    value.filter(|value| *value <= MAX_LENGTH).ok_or(Fault::TooLong)
}
