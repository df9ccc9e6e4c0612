//! The parts of a node as serde asks for them: items, entries, keys, variants. A part that fails is recorded and set
//! aside, and the next try passes it by.

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor};

use super::error::Error;
use super::{Reader, attempt, visit_integer};
use crate::scalar;
use crate::suggest;
use crate::tree::{Key, Node, Value};

/// The items of a sequence.
pub(super) struct Items<'a, 'de> {
    owner: Reader<'a, 'de>,
    items: std::iter::Enumerate<std::slice::Iter<'de, Node>>,
}

impl<'a, 'de> Items<'a, 'de> {
    pub(super) fn new(owner: Reader<'a, 'de>, items: &'de [Node]) -> Self {
        Self { owner, items: items.iter().enumerate() }
    }

    /// How many items nobody has asked for.
    pub(super) fn left(&self) -> usize {
        self.items.len()
    }

    fn next_item(&mut self) -> Option<(usize, &'de Node)> {
        self.items.find(|(_, item)| !self.owner.log.is_aside(item))
    }

    fn read<T>(&mut self, how: impl FnOnce(Reader<'_, 'de>) -> Result<T, Error>) -> Result<Option<T>, Error> {
        let Some((index, node)) = self.next_item() else { return Ok(None) };
        let trail = self.owner.trail.index(index);
        part(Reader { node, trail: &trail, log: self.owner.log }, how).map(Some)
    }
}

/// Reads a part by `how`; where it fails, records why and sets the part aside.
fn part<'de, T>(reader: Reader<'_, 'de>, how: impl FnOnce(Reader<'_, 'de>) -> Result<T, Error>) -> Result<T, Error> {
    how(reader).map_err(|error| {
        reader.log.record(error.at(reader));
        reader.log.set_aside(reader.node);
        Error::Reported
    })
}

impl<'de> SeqAccess<'de> for &mut Items<'_, 'de> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        self.read(|reader| seed.deserialize(reader))
    }

    fn next_element<T: Deserialize<'de>>(&mut self) -> Result<Option<T>, Error> {
        self.read(attempt::<T>)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

/// The entries of a map.
pub(super) struct MapParts<'a, 'de> {
    owner: Reader<'a, 'de>,
    entries: std::slice::Iter<'de, (Key, Node)>,
    /// The entry whose key has been read and whose value has not.
    open: Option<&'de (Key, Node)>,
}

impl<'a, 'de> MapParts<'a, 'de> {
    pub(super) fn new(owner: Reader<'a, 'de>, entries: &'de [(Key, Node)]) -> Self {
        Self { owner, entries: entries.iter(), open: None }
    }

    fn value<T>(&mut self, how: impl FnOnce(Reader<'_, 'de>) -> Result<T, Error>) -> Result<T, Error> {
        let Some((key, node)) = self.open.take() else {
            return Err(<Error as de::Error>::custom("a value was asked for before its key"));
        };
        let trail = self.owner.trail.key(key);
        part(Reader { node, trail: &trail, log: self.owner.log }, how)
    }
}

impl<'de> MapAccess<'de> for MapParts<'_, 'de> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        let log = self.owner.log;
        let Some(entry) = self.entries.find(|(_, node)| !log.is_aside(node)) else { return Ok(None) };
        self.open = Some(entry);
        let (key, node) = entry;
        seed.deserialize(KeyReader(&key.text)).map(Some).map_err(|error| {
            log.record(error.at_key(self.owner, key));
            log.set_aside(node);
            Error::Reported
        })
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        self.value(|reader| seed.deserialize(reader))
    }

    fn next_value<T: Deserialize<'de>>(&mut self) -> Result<T, Error> {
        self.value(attempt::<T>)
    }

    fn next_entry<K: Deserialize<'de>, T: Deserialize<'de>>(&mut self) -> Result<Option<(K, T)>, Error> {
        match self.next_key::<K>()? {
            Some(key) => self.next_value::<T>().map(|value| Some((key, value))),
            None => Ok(None),
        }
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.entries.len())
    }
}

/// A key on its way to become a value: a word, or a number or boolean where one is asked for.
struct KeyReader<'de>(&'de str);

macro_rules! key_numbers {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match scalar::plain(self.0) {
                Value::Int(number, _) => visit_integer(number, visitor),
                Value::Float(number, _) => visitor.visit_f64(number),
                _ => visitor.visit_borrowed_str(self.0),
            }
        })*
    };
}

impl<'de> de::Deserializer<'de> for KeyReader<'de> {
    type Error = Error;

    key_numbers!(deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128 deserialize_u8
        deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64);

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_str(self.0)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match scalar::plain(self.0) {
            Value::Bool(value, _) => visitor.visit_bool(value),
            _ => visitor.visit_borrowed_str(self.0),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_enum(de::value::BorrowedStrDeserializer::new(self.0))
    }

    serde::forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// A variant: a word, or the one key of a map.
pub(super) struct EnumParts<'a, 'de> {
    owner: Reader<'a, 'de>,
    name: &'de str,
    /// The key and the content, for a map.
    content: Option<(&'de Key, &'de Node)>,
}

impl<'a, 'de> EnumParts<'a, 'de> {
    pub(super) fn new(owner: Reader<'a, 'de>, variants: &'static [&'static str]) -> Result<Self, Error> {
        let expected = |most: &str| format!("{most} {}", suggest::listed(variants.iter().copied()));
        if let Some(name) = owner.node.text() {
            return Ok(Self { owner, name, content: None });
        }
        match owner.node.entries() {
            [(key, content)] => Ok(Self { owner, name: &key.text, content: Some((key, content)) }),
            [] => owner.mismatch(&expected("one of").as_str()),
            entries => Err(<Error as de::Error>::custom(format!(
                "expected exactly {}, found {}",
                expected("one of"),
                suggest::listed(entries.iter().map(|(key, _)| &*key.text))
            ))),
        }
    }

    fn content(self, kind: &str) -> Result<(&'de Key, &'de Node), Error> {
        self.content.ok_or_else(|| {
            let text = format!("`{}` needs {kind}: `{}: …`", self.name, self.name);
            <Error as de::Error>::custom(text).at(self.owner)
        })
    }

    /// Reads the content of a variant that has one.
    fn read<T>(self, kind: &str, how: impl FnOnce(Reader<'_, 'de>) -> Result<T, Error>) -> Result<T, Error> {
        let owner = self.owner;
        let (key, node) = self.content(kind)?;
        let trail = owner.trail.key(key);
        let reader = Reader { node, trail: &trail, log: owner.log };
        how(reader).map_err(|error| error.at(reader))
    }
}

impl<'de> EnumAccess<'de> for EnumParts<'_, 'de> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Error> {
        match seed.deserialize(KeyReader(self.name)) {
            Ok(variant) => Ok((variant, self)),
            Err(error) => Err(match self.content {
                Some((key, _)) => error.at_key(self.owner, key),
                None => error.at(self.owner),
            }),
        }
    }
}

impl<'de> VariantAccess<'de> for EnumParts<'_, 'de> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        let name = self.name;
        match self.content {
            None | Some((_, Node { value: Value::Null, .. })) => Ok(()),
            Some(_) => self.read("", |reader| {
                let text = format!("`{name}` stands alone: it takes no value, but has {}", reader.node.describe());
                Err(<Error as de::Error>::custom(text))
            }),
        }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        self.read("a value", |reader| seed.deserialize(reader))
    }

    fn newtype_variant<T: Deserialize<'de>>(self) -> Result<T, Error> {
        self.read("a value", attempt::<T>)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.read("a sequence", |reader| de::Deserializer::deserialize_seq(reader, visitor))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        self.read("a map", |reader| de::Deserializer::deserialize_map(reader, visitor))
    }
}
