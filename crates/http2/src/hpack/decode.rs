//! Reads blocks of fields.

use std::borrow::Cow;
use std::collections::VecDeque;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::{OVERHEAD, TABLE, huffman, integer, names};

/// One field of a message, or pseudo-field (RFC 9113 §8.3, RFC 8441 §4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// `:method`.
    Method(Method),
    /// `:scheme`.
    Scheme(Bytes),
    /// `:authority`.
    Authority(Bytes),
    /// `:path`.
    Path(Bytes),
    /// `:protocol`.
    Protocol(Bytes),
    /// `:status`.
    Status(StatusCode),
    /// Any other.
    Regular(HeaderName, HeaderValue),
}

/// The state of the compression is lost, and with it the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a block of fields cannot be read")]
pub struct Error;

/// What a block came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Its size (RFC 9113 §6.5.2): of each field, the lengths of name and value, and 32.
    pub size: usize,
    /// A name or a value has a byte that it may not have; a pseudo-field is unknown, there twice, or behind others.
    pub malformed: bool,
}

/// The table of a peer that sends, and what is done with it.
#[derive(Debug)]
pub struct Decoder {
    entries: VecDeque<Entry>,
    size: usize,
    max: usize,
}

#[derive(Debug, Clone)]
struct Entry {
    name: Name,
    /// None where it is malformed.
    field: Option<Field>,
    size: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    Pseudo(Pseudo),
    Regular(HeaderName),
    Malformed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pseudo {
    Method,
    Scheme,
    Authority,
    Path,
    Protocol,
    Status,
}

/// The rules of a message that concern the order of its fields.
#[derive(Default)]
struct Order {
    seen: u8,
    regular: bool,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { entries: VecDeque::new(), size: 0, max: TABLE }
    }
}

impl Decoder {
    /// Reads one whole block. Fields go to `take` one by one until their size has passed `limit`; what comes behind that is
    /// read for the table's sake alone.
    pub fn decode(&mut self, mut block: &[u8], limit: usize, mut take: impl FnMut(Field)) -> Result<Summary, Error> {
        let mut summary = Summary::default();
        let mut order = Order::default();
        let mut begun = false;
        while let Some(first) = block.first() {
            // Sizes of the table stand in front alone (§4.2).
            if first & 0xe0 == 0x20 {
                let size = integer::read(&mut block, 5).filter(|size| *size <= TABLE && !begun).ok_or(Error)?;
                self.max = size;
                self.evict(0);
                continue;
            }
            begun = true;
            let (field, size) = if first & 0x80 != 0 {
                let index = integer::read(&mut block, 7).ok_or(Error)?;
                self.indexed(index)?
            } else {
                self.literal(*first, &mut block)?
            };
            summary.size = summary.size.saturating_add(size);
            match field {
                Some(field) if order.allows(&field) => {
                    if summary.size <= limit {
                        take(field);
                    }
                }
                _ => summary.malformed = true,
            }
        }
        Ok(summary)
    }

    fn indexed(&self, index: usize) -> Result<(Option<Field>, usize), Error> {
        if index < names::DYNAMIC {
            let (field, size) = static_field(index).ok_or(Error)?;
            return Ok((Some(field), size));
        }
        let entry = self.entries.get(index.saturating_sub(names::DYNAMIC)).ok_or(Error)?;
        Ok((entry.field.clone(), entry.size))
    }

    /// A literal (§6.2), whose first octet is `first`.
    fn literal(&mut self, first: u8, block: &mut &[u8]) -> Result<(Option<Field>, usize), Error> {
        let indexing = first & 0x40 != 0;
        let index = integer::read(block, if indexing { 6 } else { 4 }).ok_or(Error)?;
        let (name, length) = if index == 0 {
            let text = read_string(block)?;
            (Name::read(&text), text.len())
        } else {
            self.name(index)?
        };
        let value = Bytes::from(read_string(block)?.into_owned());
        let size = length.saturating_add(value.len()).saturating_add(OVERHEAD);
        if !indexing {
            return Ok((name.with(value, first & 0x10 != 0), size));
        }
        let field = name.clone().with(value, false);
        self.insert(Entry { name, field: field.clone(), size });
        Ok((field, size))
    }

    /// A name by its index, and its length.
    fn name(&self, index: usize) -> Result<(Name, usize), Error> {
        if let Some(entry) = index.checked_sub(names::DYNAMIC) {
            let entry = self.entries.get(entry).ok_or(Error)?;
            return Ok((entry.name.clone(), entry.name_length()));
        }
        if let Some(name) = names::name(index) {
            return Ok((Name::Regular(name.clone()), name.as_str().len()));
        }
        let (pseudo, length) = match index {
            1 => (Pseudo::Authority, 10),
            2 | 3 => (Pseudo::Method, 7),
            4 | 5 => (Pseudo::Path, 5),
            6 | 7 => (Pseudo::Scheme, 7),
            8..=14 => (Pseudo::Status, 7),
            _ => return Err(Error),
        };
        Ok((Name::Pseudo(pseudo), length))
    }

    fn insert(&mut self, entry: Entry) {
        self.evict(entry.size);
        // One larger than the table empties it, and is not there then (§4.4).
        if entry.size <= self.max {
            self.size = self.size.saturating_add(entry.size);
            self.entries.push_front(entry);
        }
    }

    /// Makes room for `more`.
    fn evict(&mut self, more: usize) {
        while self.size.saturating_add(more) > self.max
            && let Some(entry) = self.entries.pop_back()
        {
            self.size = self.size.saturating_sub(entry.size);
        }
    }
}

impl Entry {
    fn name_length(&self) -> usize {
        match &self.name {
            Name::Regular(name) => name.as_str().len(),
            Name::Pseudo(Pseudo::Authority) => 10,
            Name::Pseudo(Pseudo::Path) => 5,
            Name::Pseudo(Pseudo::Protocol) => 9,
            Name::Pseudo(Pseudo::Method | Pseudo::Scheme | Pseudo::Status) => 7,
            // Whoever uses such a name again has a message that is refused; its size is no matter.
            Name::Malformed => 0,
        }
    }
}

impl Name {
    fn read(text: &[u8]) -> Self {
        Self::Pseudo(match text {
            b":method" => Pseudo::Method,
            b":scheme" => Pseudo::Scheme,
            b":authority" => Pseudo::Authority,
            b":path" => Pseudo::Path,
            b":protocol" => Pseudo::Protocol,
            b":status" => Pseudo::Status,
            _ => return HeaderName::from_lowercase(text).map_or(Self::Malformed, Self::Regular),
        })
    }

    /// The field of this name with a value; none where either is malformed.
    fn with(self, value: Bytes, never: bool) -> Option<Field> {
        Some(match self {
            Self::Regular(name) => {
                let mut value = HeaderValue::from_maybe_shared(value).ok()?;
                value.set_sensitive(never);
                Field::Regular(name, value)
            }
            Self::Pseudo(Pseudo::Method) => Field::Method(Method::from_bytes(&value).ok()?),
            Self::Pseudo(Pseudo::Status) => Field::Status(StatusCode::from_bytes(&value).ok()?),
            Self::Pseudo(Pseudo::Scheme) => Field::Scheme(value),
            Self::Pseudo(Pseudo::Authority) => Field::Authority(value),
            Self::Pseudo(Pseudo::Path) => Field::Path(value),
            Self::Pseudo(Pseudo::Protocol) => Field::Protocol(value),
            Self::Malformed => return None,
        })
    }
}

impl Order {
    fn allows(&mut self, field: &Field) -> bool {
        let bit = match field {
            Field::Regular(..) => {
                self.regular = true;
                return true;
            }
            Field::Method(_) => 1,
            Field::Scheme(_) => 2,
            Field::Authority(_) => 4,
            Field::Path(_) => 8,
            Field::Protocol(_) => 16,
            Field::Status(_) => 32,
        };
        let allowed = !self.regular && self.seen & bit == 0;
        self.seen |= bit;
        allowed
    }
}

/// A field of the static table, and its size.
fn static_field(index: usize) -> Option<(Field, usize)> {
    let text = |text: &'static str| Bytes::from_static(text.as_bytes());
    let status = |code| StatusCode::from_u16(code).map(Field::Status).ok();
    let (field, length) = match index {
        1 => (Field::Authority(Bytes::new()), 10),
        2 => (Field::Method(Method::GET), 10),
        3 => (Field::Method(Method::POST), 11),
        4 => (Field::Path(text("/")), 6),
        5 => (Field::Path(text("/index.html")), 16),
        6 => (Field::Scheme(text("http")), 11),
        7 => (Field::Scheme(text("https")), 12),
        8 => (status(200)?, 10),
        9 => (status(204)?, 10),
        10 => (status(206)?, 10),
        11 => (status(304)?, 10),
        12 => (status(400)?, 10),
        13 => (status(404)?, 10),
        14 => (status(500)?, 10),
        _ => {
            let name = names::name(index)?;
            let value = if index == names::ACCEPT_ENCODING { "gzip, deflate" } else { "" };
            let length = name.as_str().len().saturating_add(value.len());
            (Field::Regular(name.clone(), HeaderValue::from_static(value)), length)
        }
    };
    Some((field, length.saturating_add(OVERHEAD)))
}

/// Reads a string (§5.2): as it stands there, where it is not coded.
fn read_string<'a>(block: &mut &'a [u8]) -> Result<Cow<'a, [u8]>, Error> {
    let coded = block.first().is_some_and(|first| first & 0x80 != 0);
    let length = integer::read(block, 7).ok_or(Error)?;
    let (text, rest) = block.split_at_checked(length).ok_or(Error)?;
    *block = rest;
    if !coded {
        return Ok(Cow::Borrowed(text));
    }
    let mut read = Vec::new();
    huffman::decode(text, &mut read).ok_or(Error)?;
    Ok(Cow::Owned(read))
}
