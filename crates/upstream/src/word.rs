//! Values that are written as one word or one number, and are refused with a sentence of what they could be.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserializer;
use serde::de::{self, Unexpected, Visitor};

/// What is written as one word or one number.
pub(crate) trait Word: Sized {
    /// What it may be, for messages: "a status from 400 to 599".
    const EXPECTING: &'static str;

    /// Reads it. None where it is no such word.
    fn parse(text: &str) -> Option<Self>;
}

/// Reads such a value out of a document.
pub(crate) fn read<'de, T: Word, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_any(Text(PhantomData))
}

struct Text<T>(PhantomData<T>);

impl<T: Word> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTING)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        T::parse(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        T::parse(&number.to_string()).ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        T::parse(&number.to_string()).ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
    }
}
