//! Makes a spec of a part of the tree, by serde, and tells everything that is wrong in it at once.
//!
//! serde stops at the first error. So whatever holds parts of its own (a map, a sequence, what stands inside an
//! `Option`) is tried again without the part that failed, until the rest has been looked at too; the spec itself is
//! then an error all the same. What follows only from a missing part ("`x` is missing", when `x` was wrong) is not said.
//!
//! Rules: a scalar that is asked for as a string gives the text as it was written; a string in quotes is never a number or
//! a boolean; an enum is a word, or a map with one key; a struct is a map and never a sequence.

mod access;
mod error;

use std::cell::RefCell;
use std::collections::HashSet;

use pylon_core::spec::{FieldPath, Step};
use serde::Deserialize;
use serde::de::{self, DeserializeOwned, Expected, Unexpected, Visitor};

use crate::de::access::{EnumParts, Items, MapParts};
use crate::de::error::Error;
use crate::tree::{FileId, Key, Node, Span, Value};

/// Problems of one call; further ones are not looked for.
const MAX_PROBLEMS: usize = 100;

/// One thing that is wrong in a part of the tree. [`crate::load::Source::diagnostic`] shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file it stands in.
    pub file: FileId,
    /// Where: the value that is wrong, or the key that is unknown.
    pub span: Span,
    /// The field, from the root of the document.
    pub path: FieldPath,
    /// What is wrong, as a sentence without a full stop.
    pub title: String,
    /// What stands beside the mark.
    pub label: Option<String>,
    /// What to do about it.
    pub help: Vec<String>,
}

/// Reads a spec from `node`, the root of a document.
///
/// # Errors
/// Everything that is wrong, in the order of the document; never empty.
pub fn read<T: DeserializeOwned>(node: &Node) -> Result<T, Vec<Problem>> {
    read_at(node, &FieldPath::root())
}

/// Reads a spec from `node`, which stands at `base` in its document.
///
/// # Errors
/// As [`read`].
pub fn read_at<T: DeserializeOwned>(node: &Node, base: &FieldPath) -> Result<T, Vec<Problem>> {
    read_entry(None, node, base)
}

/// As [`read_at`], for the value of `key`: what is wrong with a block that reaches over several lines is then shown at
/// its key.
///
/// # Errors
/// As [`read`].
pub fn read_entry<T: DeserializeOwned>(key: Option<&Key>, node: &Node, base: &FieldPath) -> Result<T, Vec<Problem>> {
    let log = Log::default();
    let trail = Trail { base, key, steps: None };
    let read = attempt::<T>(Reader { node, trail: &trail, log: &log });
    let mut problems = log.problems.into_inner();
    problems.sort_by_key(|problem| (problem.file, problem.span.start));
    match read {
        Ok(value) if problems.is_empty() => Ok(value),
        _ if problems.is_empty() => Err(vec![Problem {
            file: node.file,
            span: node.span,
            path: base.clone(),
            title: "this cannot be read".to_owned(),
            label: None,
            help: Vec::new(),
        }]),
        _ => Err(problems),
    }
}

/// What is wrong so far, and what has been set aside because of it.
#[derive(Default)]
struct Log {
    problems: RefCell<Vec<Problem>>,
    /// Parts of maps and sequences that failed, by address: the tree does not change while it is read.
    aside: RefCell<HashSet<usize>>,
    /// Known keys that were suggested for unknown ones, with the address of the map.
    suggested: RefCell<HashSet<(usize, &'static str)>>,
}

impl Log {
    fn is_aside(&self, part: &Node) -> bool {
        self.aside.borrow().contains(&address(part))
    }

    fn set_aside(&self, part: &Node) {
        self.aside.borrow_mut().insert(address(part));
    }

    fn record(&self, error: Error) {
        if let Some(problem) = error.into_problem()
            && self.problems.borrow().len() < MAX_PROBLEMS
        {
            self.problems.borrow_mut().push(problem);
        }
    }

    fn is_full(&self) -> bool {
        self.problems.borrow().len() >= MAX_PROBLEMS
    }

    fn suggest(&self, map: &Node, key: &'static str) {
        self.suggested.borrow_mut().insert((address(map), key));
    }

    /// Whether some part of `node` has been set aside, so that what is said of the whole may follow from that.
    fn has_gap(&self, node: &Node) -> bool {
        node.items().iter().any(|item| self.is_aside(item))
            || node.entries().iter().any(|(_, part)| self.is_aside(part))
    }

    /// Whether `key` of `map` was there, but wrong or misspelt.
    fn explains_missing(&self, map: &Node, key: &'static str) -> bool {
        self.suggested.borrow().contains(&(address(map), key)) || map.get(key).is_some_and(|part| self.is_aside(part))
    }
}

fn address(node: &Node) -> usize {
    std::ptr::from_ref(node).addr()
}

/// The way from the base to a node, kept on the stack.
struct Trail<'a> {
    base: &'a FieldPath,
    /// The key whose value the node is.
    key: Option<&'a Key>,
    /// The way to the collection that holds the node, and the last step.
    steps: Option<(&'a Trail<'a>, Last<'a>)>,
}

#[derive(Clone, Copy)]
enum Last<'a> {
    Key(&'a Key),
    Index(usize),
}

impl<'a> Trail<'a> {
    fn key(&'a self, key: &'a Key) -> Self {
        Self { base: self.base, key: Some(key), steps: Some((self, Last::Key(key))) }
    }

    fn index(&'a self, index: usize) -> Self {
        Self { base: self.base, key: None, steps: Some((self, Last::Index(index))) }
    }

    fn path(&self) -> FieldPath {
        let mut steps = Vec::new();
        let mut trail = self;
        while let Some((parent, last)) = trail.steps {
            steps.push(match last {
                Last::Key(key) => Step::Key(key.text.to_string()),
                Last::Index(index) => Step::Index(index),
            });
            trail = parent;
        }
        steps.reverse();
        FieldPath(steps).below(self.base)
    }
}

/// A node on its way to become a value.
#[derive(Clone, Copy)]
struct Reader<'a, 'de> {
    node: &'de Node,
    trail: &'a Trail<'a>,
    log: &'a Log,
}

/// Reads a `T`, and tries again without the parts that fail until nothing new comes to light.
fn attempt<'de, T: Deserialize<'de>>(reader: Reader<'_, 'de>) -> Result<T, Error> {
    let mut failed = false;
    loop {
        let before = reader.log.aside.borrow().len();
        match T::deserialize(reader) {
            Ok(value) if !failed => return Ok(value),
            Ok(_) => return Err(Error::Reported),
            Err(error) => {
                failed = true;
                reader.log.record(error.at(reader));
                // Each try sets at least one more part aside, so this ends.
                if reader.log.aside.borrow().len() == before || reader.log.is_full() {
                    return Err(Error::Reported);
                }
            }
        }
    }
}

impl<'de> Reader<'_, 'de> {
    fn mismatch<T>(self, expected: &dyn Expected) -> Result<T, Error> {
        Err(<Error as de::Error>::invalid_type(Unexpected::Other("something else"), expected).at(self))
    }

    fn number<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Int(number, _) => visit_integer(*number, visitor).map_err(|error: Error| error.at(self)),
            Value::Float(number, _) => visitor.visit_f64(*number).map_err(|error: Error| error.at(self)),
            _ => self.mismatch(&visitor),
        }
    }

    fn string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node.text() {
            Some(text) => visitor.visit_borrowed_str(text).map_err(|error: Error| error.at(self)),
            None => self.mismatch(&visitor),
        }
    }

    fn sequence<V: Visitor<'de>>(self, items: &'de [Node], visitor: V) -> Result<V::Value, Error> {
        let mut access = Items::new(self, items);
        let value = visitor.visit_seq(&mut access).map_err(|error: Error| error.at(self))?;
        match access.left() {
            0 => Ok(value),
            left => {
                let expected = format!("{} items", items.len() - left);
                Err(<Error as de::Error>::invalid_length(items.len(), &expected.as_str()).at(self))
            }
        }
    }
}

fn visit_integer<'de, V: Visitor<'de>>(number: i128, visitor: V) -> Result<V::Value, Error> {
    match (u64::try_from(number), i64::try_from(number)) {
        (Ok(number), _) => visitor.visit_u64(number),
        (_, Ok(number)) => visitor.visit_i64(number),
        _ => visitor.visit_i128(number),
    }
}

macro_rules! forward {
    ($to:ident: $($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.$to(visitor)
        })*
    };
}

impl<'de> de::Deserializer<'de> for Reader<'_, 'de> {
    type Error = Error;

    forward!(number: deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128 deserialize_u8
        deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64);
    forward!(string: deserialize_char deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf
        deserialize_identifier);

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value, _) => visitor.visit_bool(*value),
            Value::Int(..) | Value::Float(..) => return self.number(visitor),
            Value::Str(text, _) => visitor.visit_borrowed_str(text),
            Value::Seq(items) => return self.sequence(items, visitor),
            Value::Map(entries) => visitor.visit_map(MapParts::new(self, entries)),
        }
        .map_err(|error: Error| error.at(self))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Bool(value, _) => visitor.visit_bool(*value).map_err(|error: Error| error.at(self)),
            _ => self.mismatch(&visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
        .map_err(|error: Error| error.at(self))
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Null => visitor.visit_unit().map_err(|error: Error| error.at(self)),
            _ => self.mismatch(&visitor),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self).map_err(|error: Error| error.at(self))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Seq(items) => self.sequence(items, visitor),
            _ => self.mismatch(&visitor),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Map(entries) => {
                visitor.visit_map(MapParts::new(self, entries)).map_err(|error: Error| error.at(self))
            }
            _ => self.mismatch(&visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        EnumParts::new(self, variants)
            .and_then(|parts| visitor.visit_enum(parts))
            .map_err(|error: Error| error.at(self))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit().map_err(|error: Error| error.at(self))
    }
}

#[cfg(test)]
mod tests;
