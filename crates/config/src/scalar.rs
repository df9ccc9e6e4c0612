//! What a plain scalar means: the core schema of YAML 1.2 (§10.3.2).

use crate::tree::{Style, Value};

/// The value of a scalar without quotes.
pub(crate) fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true, text.into()),
        "false" | "False" | "FALSE" => return Value::Bool(false, text.into()),
        _ => {}
    }
    if let Some(number) = integer(text) {
        return Value::Int(number, text.into());
    }
    match float(text) {
        Some(number) => Value::Float(number, text.into()),
        None => Value::Str(text.into(), Style::Plain),
    }
}

/// `[-+]?[0-9]+`, `0o[0-7]+` or `0x[0-9a-fA-F]+`, if it lies between −2⁶³ and 2⁶⁴−1.
fn integer(text: &str) -> Option<i128> {
    let number = if let Some(digits) = text.strip_prefix("0x") {
        of_digits(digits, 16)?
    } else if let Some(digits) = text.strip_prefix("0o") {
        of_digits(digits, 8)?
    } else if let Some(digits) = text.strip_prefix('-') {
        -of_digits(digits, 10)?
    } else {
        of_digits(text.strip_prefix('+').unwrap_or(text), 10)?
    };
    (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&number).then_some(number)
}

fn of_digits(digits: &str, radix: u32) -> Option<i128> {
    // `from_str_radix` would take another sign.
    let all = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    all.then(|| i128::from_str_radix(digits, radix).ok()).flatten()
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`, or one of the words for infinity and not-a-number.
fn float(text: &str) -> Option<f64> {
    match text {
        ".nan" | ".NaN" | ".NAN" => return Some(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Some(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Some(f64::NEG_INFINITY),
        _ => {}
    }
    // Rust reads the same grammar, and besides it `inf`, `infinity` and `nan`, which are words here.
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let starts = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    starts.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yes_and_off_are_strings() {
        for word in ["yes", "no", "on", "off", "y", "n", "Yes", "OFF", "nan", "inf", "infinity", "tRUE"] {
            assert_eq!(plain(word), Value::Str(word.into(), Style::Plain));
        }
    }

    #[test]
    fn numbers_keep_their_text() {
        assert_eq!(plain("08"), Value::Int(8, "08".into()));
        assert_eq!(plain("0x10"), Value::Int(16, "0x10".into()));
        assert_eq!(plain("0o17"), Value::Int(15, "0o17".into()));
        assert_eq!(plain("-3"), Value::Int(-3, "-3".into()));
        assert_eq!(plain("+3"), Value::Int(3, "+3".into()));
        assert_eq!(plain("1e3"), Value::Float(1000.0, "1e3".into()));
        assert_eq!(plain(".5"), Value::Float(0.5, ".5".into()));
        assert_eq!(plain("-.inf"), Value::Float(f64::NEG_INFINITY, "-.inf".into()));
    }

    #[test]
    fn what_only_looks_like_a_number_is_a_string() {
        for text in
            ["1000/min", "10s", "5%", "1.2.3", "0x", "-", "+", "--3", "0x-1", "1_000", "12:30", ".", "e5", "0b1"]
        {
            assert!(matches!(plain(text), Value::Str(..)), "{text}");
        }
    }

    #[test]
    fn a_whole_number_too_large_for_64_bits_is_a_float() {
        assert!(matches!(plain("18446744073709551615"), Value::Int(..)));
        assert!(matches!(plain("18446744073709551616"), Value::Float(..)));
        assert!(matches!(plain(&"9".repeat(400)), Value::Float(..)));
    }
}
