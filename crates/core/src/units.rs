//! Quantities that carry their unit: spans of time, sizes in bytes, rates, shares in percent.
//!
//! Written with a unit, always: `10s`, `250ms`, `1m30s`; `64KiB`, `10MB`; `5%`. A bare number is an error that says so.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A span of time, from 1 ms to 10 years: `250ms`, `30s`, `1m30s`, `12h`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(Duration);

impl Span {
    /// A span of whole milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// A span of whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// As a duration of the standard library.
    pub const fn duration(self) -> Duration {
        self.0
    }

    /// Reads `1m30s`. The error is a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        const MAX: u64 = 10 * 365 * 24 * 3600 * 1000;
        let bad = || format!("`{text}` is not a span of time");
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(bad());
        }
        if rest.bytes().all(|b| b.is_ascii_digit()) {
            return Err(format!("`{text}` has no unit: write `{text}s`, `{text}ms` or `{text}m`"));
        }
        let mut millis = 0_u64;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
            let number: u64 = rest.get(..digits).and_then(|n| n.parse().ok()).ok_or_else(bad)?;
            rest = rest.get(digits..).unwrap_or_default();
            let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            let factor = match rest.get(..letters).unwrap_or_default() {
                "ms" => 1,
                "s" => 1000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                other => return Err(format!("`{other}` is not a unit of time: use ms, s, m, h or d")),
            };
            rest = rest.get(letters..).unwrap_or_default();
            millis = number.checked_mul(factor).and_then(|n| millis.checked_add(n)).ok_or_else(bad)?;
        }
        match millis {
            0 => Err(format!("`{text}` is no time at all: the shortest span is 1ms")),
            1..=MAX => Ok(Self::from_millis(millis)),
            _ => Err(format!("`{text}` is longer than ten years")),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = self.0.as_millis();
        for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
            if millis >= size {
                write!(f, "{}{unit}", millis / size)?;
                millis %= size;
            }
        }
        Ok(())
    }
}

/// A number of bytes: `512B`, `64KiB`, `10MiB`, `1GiB`, or in powers of ten `64kB`, `10MB`, `1GB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

impl ByteSize {
    /// A size of `bytes`.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// How many bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// How many bytes, capped to what memory can address.
    pub const fn as_usize(self) -> usize {
        if self.0 > usize::MAX as u64 { usize::MAX } else { self.0 as usize }
    }

    /// Reads `64KiB`. The error is a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let trimmed = text.trim();
        let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
        let number: u64 = trimmed
            .get(..digits)
            .and_then(|n| n.parse().ok())
            .ok_or_else(|| format!("`{text}` is not a size in bytes"))?;
        let factor = match trimmed.get(digits..).unwrap_or_default().trim_start() {
            "" => return Err(format!("`{text}` has no unit: write `{text}B`, `{text}KiB` or `{text}MiB`")),
            "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "kB" => 1000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            other => return Err(format!("`{other}` is not a unit of size: use B, KiB, MiB, GiB, kB, MB or GB")),
        };
        number.checked_mul(factor).map(Self).ok_or_else(|| format!("`{text}` is too large"))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, size) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
            if self.0 >= size && self.0.is_multiple_of(size) {
                return write!(f, "{}{unit}", self.0 / size);
            }
        }
        write!(f, "{}B", self.0)
    }
}

/// A number of bytes for each second: `240B/s`, `1KiB/s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteRate(ByteSize);

impl ByteRate {
    /// A rate of `bytes` for each second.
    pub const fn new(bytes: u64) -> Self {
        Self(ByteSize(bytes))
    }

    /// How many bytes for each second.
    pub const fn bytes(self) -> u64 {
        self.0.0
    }

    /// Reads `1KiB/s`. The error is a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.trim().strip_suffix("/s") {
            Some(size) => ByteSize::parse(size).map(Self),
            None => Err(format!("`{text}` is not a rate: write it with a size and `/s`, such as `240B/s`")),
        }
    }
}

impl fmt::Display for ByteRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.0)
    }
}

/// So many for each second, minute or hour: `10/s`, `600/min`, `100/h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    count: u32,
    unit: RateUnit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum RateUnit {
    Second,
    Minute,
    Hour,
}

impl Rate {
    /// A rate of `count` for each second.
    pub const fn per_second(count: u32) -> Self {
        Self { count, unit: RateUnit::Second }
    }

    /// How many there are in each [`Self::period`].
    pub const fn count(self) -> u32 {
        self.count
    }

    /// The time in which there are [`Self::count`].
    pub const fn period(self) -> Duration {
        Duration::from_secs(match self.unit {
            RateUnit::Second => 1,
            RateUnit::Minute => 60,
            RateUnit::Hour => 3600,
        })
    }

    /// Reads `10/s`. The error is a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is not a rate: write a number for each second, minute or hour, such as `10/s`");
        let (count, unit) = text.trim().split_once('/').ok_or_else(bad)?;
        let unit = match unit.trim() {
            "s" => RateUnit::Second,
            "min" => RateUnit::Minute,
            "h" => RateUnit::Hour,
            _ => return Err(bad()),
        };
        let count = count.trim();
        if count.is_empty() || !count.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(bad());
        }
        Ok(Self { count: count.parse().map_err(|_| format!("`{text}` is too much"))?, unit })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit {
            RateUnit::Second => "s",
            RateUnit::Minute => "min",
            RateUnit::Hour => "h",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

/// A share from `0%` to `100%`, in steps of a hundredth of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(u16);

impl Percent {
    /// A share in hundredths of a percent, capped to 10,000 (the whole).
    pub const fn from_basis_points(points: u16) -> Self {
        Self(if points > 10_000 { 10_000 } else { points })
    }

    /// Hundredths of a percent, 0 to 10,000.
    pub const fn basis_points(self) -> u16 {
        self.0
    }

    /// As a number from 0 to 1.
    pub fn ratio(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }

    /// Reads `5%` or `0.5%`. The error is a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(number) = text.trim().strip_suffix('%') else {
            return Err(format!("`{text}` is not a share: write it in percent, such as `5%`"));
        };
        let bad = || format!("`{text}` is not a share from 0% to 100%");
        let (whole, fraction) = number.trim().split_once('.').unwrap_or((number.trim(), ""));
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || whole.len() > 3 || fraction.len() > 2 || !digits(whole) || !digits(fraction) {
            return Err(bad());
        }
        let points = whole.parse::<u16>().map_err(|_| bad())? * 100
            + format!("{fraction:0<2}").parse::<u16>().map_err(|_| bad())?;
        if points > 10_000 { Err(bad()) } else { Ok(Self(points)) }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = (self.0 / 100, self.0 % 100);
        match fraction {
            0 => write!(f, "{whole}%"),
            _ if fraction % 10 == 0 => write!(f, "{whole}.{}%", fraction / 10),
            _ => write!(f, "{whole}.{fraction:02}%"),
        }
    }
}

macro_rules! as_text {
    ($Unit:ident, $expecting:literal, $pattern:literal) => {
        impl crate::short::FromScalar for $Unit {
            const EXPECTING: &'static str = $expecting;

            fn from_scalar(text: &str) -> Result<Self, String> {
                Self::parse(text)
            }
        }

        impl std::str::FromStr for $Unit {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                Self::parse(text)
            }
        }

        impl Serialize for $Unit {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $Unit {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $Unit;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$Unit, E> {
                        $Unit::parse(text).map_err(E::custom)
                    }

                    fn visit_u64<E: de::Error>(self, value: u64) -> Result<$Unit, E> {
                        $Unit::parse(&value.to_string()).map_err(E::custom)
                    }
                }
                deserializer.deserialize_any(Text)
            }
        }

        impl JsonSchema for $Unit {
            fn schema_name() -> Cow<'static, str> {
                stringify!($Unit).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "description": $expecting, "pattern": $pattern })
            }
        }
    };
}

as_text!(Span, "a span of time such as `30s` or `250ms`", r"^([0-9]+(ms|s|m|h|d))+$");
as_text!(ByteSize, "a size such as `64KiB` or `10MB`", r"^[0-9]+ ?(B|KiB|MiB|GiB|kB|MB|GB)$");
as_text!(ByteRate, "a rate such as `240B/s`", r"^[0-9]+ ?(B|KiB|MiB|GiB|kB|MB|GB)/s$");
as_text!(Rate, "a rate such as `10/s` or `600/min`", r"^[0-9]+ ?/ ?(s|min|h)$");
as_text!(Percent, "a share such as `5%`", r"^[0-9]{1,3}(\.[0-9]{1,2})?%$");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_span_without_a_unit_is_told_which_units_there_are() {
        assert_eq!(Span::parse("10"), Err("`10` has no unit: write `10s`, `10ms` or `10m`".into()));
        assert_eq!(Span::parse("10 sec"), Err("` sec` is not a unit of time: use ms, s, m, h or d".into()));
        assert!(Span::parse("0s").is_err() && Span::parse("").is_err() && Span::parse("s").is_err());
        assert!(Span::parse("99999999999999999999s").is_err());
    }

    #[test]
    fn sizes_know_powers_of_two_and_of_ten() {
        assert_eq!(ByteSize::parse("64KiB").map(ByteSize::bytes), Ok(65_536));
        assert_eq!(ByteSize::parse("64kB").map(ByteSize::bytes), Ok(64_000));
        assert!(ByteSize::parse("64K").is_err() && ByteSize::parse("64").is_err());
    }

    #[test]
    fn shares_are_exact_to_a_hundredth_of_a_percent() {
        assert_eq!(Percent::parse("0.05%").map(Percent::basis_points), Ok(5));
        assert_eq!(Percent::parse("100%").map(Percent::basis_points), Ok(10_000));
        assert!(Percent::parse("100.01%").is_err() && Percent::parse("5").is_err());
    }

    #[test]
    fn a_rate_is_a_number_for_each_second_minute_or_hour() {
        let rate = Rate::parse("600/min").unwrap();
        assert_eq!((rate.count(), rate.period(), rate.to_string().as_str()), (600, Duration::from_secs(60), "600/min"));
        assert_eq!(Rate::parse("0/s"), Ok(Rate::per_second(0)));
        for bad in ["10", "10/d", "/s", "-1/s", "+1/s", "1.5/s", "99999999999/s"] {
            assert!(Rate::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back_the_same(millis in 1_u64..315_360_000_000, bytes in any::<u64>(), points in 0_u16..=10_000) {
            let span = Span::from_millis(millis);
            prop_assert_eq!(Span::parse(&span.to_string()), Ok(span));
            prop_assert_eq!(ByteSize::parse(&ByteSize(bytes).to_string()), Ok(ByteSize(bytes)));
            prop_assert_eq!(ByteRate::parse(&ByteRate::new(bytes).to_string()), Ok(ByteRate::new(bytes)));
            prop_assert_eq!(Percent::parse(&Percent(points).to_string()), Ok(Percent(points)));
        }

        #[test]
        fn no_text_makes_them_panic(text in ".*") {
            let _ = (Span::parse(&text), ByteSize::parse(&text), ByteRate::parse(&text), Percent::parse(&text));
        }
    }
}
