//! Writes blocks of fields.

use std::collections::VecDeque;

use bytes::BytesMut;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use super::{OVERHEAD, TABLE, integer, names};

/// How many places the index of the table has: a few more than there are usual entries. Where two share one, the newer wins,
/// and the other is sent again.
const PLACES: usize = 128;
/// Values from this size on would push out too much of what comes again.
const LONG: usize = TABLE / 4;

const INDEXED: u8 = 0x80;
const WITH_INDEXING: u8 = 0x40;
const NEVER_INDEXED: u8 = 0x10;
const WITHOUT_INDEXING: u8 = 0x00;

/// The table of what we have sent, which the peer keeps as well.
#[derive(Debug)]
pub struct Encoder {
    entries: VecDeque<Entry>,
    size: usize,
    max: usize,
    /// The least size since the last block, where the peer has changed it (§4.2).
    changed: Option<usize>,
    /// How many entries there have ever been.
    inserted: u32,
    /// Where in that count a field, or a name, was seen last; 0 for nowhere.
    fields: Box<[u32; PLACES]>,
    names: Box<[u32; PLACES]>,
}

#[derive(Debug)]
struct Entry {
    name: Name,
    value: Box<[u8]>,
    size: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    /// A pseudo-field, by its place in the static table.
    Pseudo(usize),
    Regular(HeaderName),
}

impl Default for Encoder {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            size: 0,
            max: TABLE,
            changed: None,
            inserted: 0,
            fields: Box::new([0; PLACES]),
            names: Box::new([0; PLACES]),
        }
    }
}

impl Encoder {
    /// The peer keeps a table of this size.
    pub fn set_max(&mut self, size: usize) {
        let size = size.min(TABLE);
        if size == self.max {
            return;
        }
        self.changed = Some(self.changed.unwrap_or(self.max).min(size));
        self.max = size;
        self.evict(0);
    }

    /// Begins a block.
    pub fn begin(&mut self, out: &mut BytesMut) {
        if let Some(least) = self.changed.take() {
            if least < self.max {
                integer::write(out, 0x20, 5, least);
            }
            integer::write(out, 0x20, 5, self.max);
        }
    }

    /// Writes `:method`.
    pub fn method(&mut self, method: &Method, out: &mut BytesMut) {
        match *method {
            Method::GET => integer::write(out, INDEXED, 7, 2),
            Method::POST => integer::write(out, INDEXED, 7, 3),
            _ => self.indexing(Name::Pseudo(names::METHOD), method.as_str().as_bytes(), out),
        }
    }

    /// Writes `:scheme`, which is `http` or `https`.
    pub fn scheme(&mut self, tls: bool, out: &mut BytesMut) {
        integer::write(out, INDEXED, 7, names::SCHEME.saturating_add(tls.into()));
    }

    /// Writes `:authority`.
    pub fn authority(&mut self, authority: &[u8], out: &mut BytesMut) {
        self.indexing(Name::Pseudo(names::AUTHORITY), authority, out);
    }

    /// Writes `:path`, in parts that follow each other.
    pub fn path(&mut self, parts: [&[u8]; 2], out: &mut BytesMut) {
        let length = parts.iter().map(|part| part.len()).sum();
        if matches!(parts, [b"/", b""] | [b"", b"/"]) {
            return integer::write(out, INDEXED, 7, names::PATH);
        }
        integer::write(out, WITHOUT_INDEXING, 4, names::PATH);
        integer::write(out, 0, 7, length);
        for part in parts {
            out.extend_from_slice(part);
        }
    }

    /// Writes `:protocol`.
    pub fn protocol(&mut self, protocol: &[u8], out: &mut BytesMut) {
        integer::write(out, WITHOUT_INDEXING, 4, 0);
        write_string(out, b":protocol");
        write_string(out, protocol);
    }

    /// Writes `:status`.
    pub fn status(&mut self, status: StatusCode, out: &mut BytesMut) {
        let index = match status.as_u16() {
            200 => 8,
            204 => 9,
            206 => 10,
            304 => 11,
            400 => 12,
            404 => 13,
            500 => 14,
            _ => return self.indexing(Name::Pseudo(names::STATUS), status.as_str().as_bytes(), out),
        };
        integer::write(out, INDEXED, 7, index);
    }

    /// Writes a field.
    pub fn field(&mut self, name: &HeaderName, value: &HeaderValue, out: &mut BytesMut) {
        if value.is_sensitive() {
            self.literal(NEVER_INDEXED, name, value.as_bytes(), out);
        } else {
            self.bytes(name, value.as_bytes(), out);
        }
    }

    /// Writes a field whose value is one of [`HeaderValue`], whatever holds it.
    pub fn bytes(&mut self, name: &HeaderName, value: &[u8], out: &mut BytesMut) {
        match Habit::of(name, value) {
            Habit::Stays => {
                let hash = hash(name.as_str().as_bytes(), 0);
                self.indexed(hash, |entry| matches!(entry, Name::Regular(of) if of == name), name, value, out);
            }
            Habit::Changes => self.literal(WITHOUT_INDEXING, name, value, out),
            Habit::Secret => self.literal(NEVER_INDEXED, name, value, out),
        }
    }

    /// Writes a field of which it is known that it never comes again.
    pub fn once(&mut self, name: &HeaderName, value: &[u8], out: &mut BytesMut) {
        self.literal(WITHOUT_INDEXING, name, value, out);
    }

    fn indexed(
        &mut self,
        of_name: u64,
        is_name: impl Fn(&Name) -> bool,
        name: &HeaderName,
        value: &[u8],
        out: &mut BytesMut,
    ) {
        let of_field = hash(value, of_name);
        let known = self.entry(self.fields.get(place(of_field)).copied());
        if let Some((index, entry)) = known
            && *entry.value == *value
            && is_name(&entry.name)
        {
            return integer::write(out, INDEXED, 7, index);
        }
        match self.name_index(of_name, &is_name).or_else(|| names::index(name)) {
            Some(index) => integer::write(out, WITH_INDEXING, 6, index),
            None => {
                integer::write(out, WITH_INDEXING, 6, 0);
                write_string(out, name.as_str().as_bytes());
            }
        }
        write_string(out, value);
        let size = name.as_str().len().saturating_add(value.len()).saturating_add(OVERHEAD);
        self.insert(Name::Regular(name.clone()), value, size, of_name, of_field);
    }

    /// The same for a pseudo-field that is not in the static table with this value.
    fn indexing(&mut self, name: Name, value: &[u8], out: &mut BytesMut) {
        let Name::Pseudo(index) = name else { return };
        let of_name = (index as u64).wrapping_mul(FACTOR);
        let of_field = hash(value, of_name);
        let known = self.entry(self.fields.get(place(of_field)).copied());
        if let Some((index, entry)) = known
            && *entry.value == *value
            && entry.name == name
        {
            return integer::write(out, INDEXED, 7, index);
        }
        let length: usize = if index == names::AUTHORITY { 10 } else { 7 };
        let size = length.saturating_add(value.len()).saturating_add(OVERHEAD);
        if size > LONG {
            integer::write(out, WITHOUT_INDEXING, 4, index);
            return write_string(out, value);
        }
        integer::write(out, WITH_INDEXING, 6, index);
        write_string(out, value);
        self.insert(name, value, size, of_name, of_field);
    }

    /// A literal that does not go into the table.
    fn literal(&mut self, kind: u8, name: &HeaderName, value: &[u8], out: &mut BytesMut) {
        let known = names::index(name).or_else(|| {
            let is_name = |entry: &Name| matches!(entry, Name::Regular(of) if of == name);
            self.name_index(hash(name.as_str().as_bytes(), 0), is_name)
        });
        match known {
            Some(index) => integer::write(out, kind, 4, index),
            None => {
                integer::write(out, kind, 4, 0);
                write_string(out, name.as_str().as_bytes());
            }
        }
        write_string(out, value);
    }

    fn name_index(&self, of_name: u64, is_name: impl Fn(&Name) -> bool) -> Option<usize> {
        let (index, entry) = self.entry(self.names.get(place(of_name)).copied())?;
        is_name(&entry.name).then_some(index)
    }

    /// The entry that was inserted as this one, if it is still there, and its index.
    fn entry(&self, inserted: Option<u32>) -> Option<(usize, &Entry)> {
        let inserted = inserted.filter(|inserted| *inserted != 0)?;
        let age = self.inserted.wrapping_sub(inserted) as usize;
        self.entries.get(age).map(|entry| (age.saturating_add(names::DYNAMIC), entry))
    }

    fn insert(&mut self, name: Name, value: &[u8], size: usize, of_name: u64, of_field: u64) {
        self.evict(size);
        if size > self.max {
            return;
        }
        self.size = self.size.saturating_add(size);
        self.entries.push_front(Entry { name, value: value.into(), size });
        self.inserted = self.inserted.wrapping_add(1).max(1);
        for (places, hash) in [(&mut self.fields, of_field), (&mut self.names, of_name)] {
            if let Some(at) = places.get_mut(place(hash)) {
                *at = self.inserted;
            }
        }
    }

    fn evict(&mut self, more: usize) {
        while self.size.saturating_add(more) > self.max
            && let Some(entry) = self.entries.pop_back()
        {
            self.size = self.size.saturating_sub(entry.size);
        }
    }
}

/// What becomes of a field from one message to the next.
enum Habit {
    Stays,
    Changes,
    /// Its value must not be guessed by what a block with it comes to (§7.1).
    Secret,
}

impl Habit {
    fn of(name: &HeaderName, value: &[u8]) -> Self {
        match *name {
            header::AUTHORIZATION | header::PROXY_AUTHORIZATION | header::SET_COOKIE => Self::Secret,
            header::COOKIE if value.len() < 20 => Self::Secret,
            header::CONTENT_LENGTH
            | header::CONTENT_RANGE
            | header::ETAG
            | header::AGE
            | header::LAST_MODIFIED
            | header::LOCATION
            | header::RANGE
            | header::RETRY_AFTER
            | header::IF_MATCH
            | header::IF_NONE_MATCH
            | header::IF_MODIFIED_SINCE
            | header::IF_UNMODIFIED_SINCE
            | header::IF_RANGE => Self::Changes,
            _ if value.len() >= LONG => Self::Changes,
            _ => Self::Stays,
        }
    }
}

fn write_string(out: &mut BytesMut, text: &[u8]) {
    integer::write(out, 0, 7, text.len());
    out.extend_from_slice(text);
}

/// Spreads bits (2⁶⁴ divided by the golden ratio).
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

fn hash(bytes: &[u8], seed: u64) -> u64 {
    let mut hash = seed ^ bytes.len() as u64;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        hash = (hash.rotate_left(5) ^ u64::from_le_bytes(*word)).wrapping_mul(FACTOR);
    }
    // What is left, or the end once more: a word costs less than its bytes one by one.
    let last = match (bytes.last_chunk::<8>(), rest.first_chunk::<4>(), rest.last_chunk::<4>()) {
        (Some(word), ..) => u64::from_le_bytes(*word),
        (None, Some(head), Some(tail)) => {
            u64::from(u32::from_le_bytes(*head)) << 32 | u64::from(u32::from_le_bytes(*tail))
        }
        _ => rest.iter().fold(0, |last, byte| last << 8 | u64::from(*byte)),
    };
    (hash.rotate_left(5) ^ last).wrapping_mul(FACTOR)
}

fn place(hash: u64) -> usize {
    (hash >> 57) as usize
}
