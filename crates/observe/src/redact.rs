//! Blots out the values of query parameters that hold secrets, before a path reaches the log or the live view.
//!
//! Parameters begin after `?`, `&` or `;` (some services take the semicolon as a separator) and their values end at
//! `&`. Names are compared without regard to case and percent-encoding; a value of any length becomes `***`.

/// The names whose values are blotted out, in lower case.
#[derive(Debug, Clone, Default)]
pub(crate) struct Redaction {
    names: Box<[Box<str>]>,
    /// Bit n is set where a name is n bytes long: most parameters of a request are ruled out by their length.
    lengths: u128,
}

impl Redaction {
    pub(crate) fn new(names: Box<[Box<str>]>) -> Self {
        let lengths = names.iter().fold(0, |lengths, name| lengths | bit(name.len()));
        Self { names, lengths }
    }

    /// Hands the pieces of a path with its query to `put`, in order.
    pub(crate) fn pieces(&self, path: &str, mut put: impl FnMut(&str)) {
        let query = if self.names.is_empty() { None } else { path.find('?') };
        let Some((mut head, mut rest)) = query.and_then(|at| path.split_at_checked(at + 1)) else {
            return put(path);
        };
        loop {
            put(head);
            let end = rest.bytes().position(|byte| byte == b'&' || byte == b';').unwrap_or(rest.len());
            let parameter = rest.get(..end).unwrap_or_default();
            let value = parameter.find('=').filter(|&at| self.names(parameter.get(..at).unwrap_or_default()));
            // What a secret holds after a semicolon is part of it.
            let end = if value.is_some() { rest.find('&').unwrap_or(rest.len()) } else { end };
            match value.and_then(|at| rest.get(..=at)) {
                Some(name) => {
                    put(name);
                    put("***");
                }
                None => put(parameter),
            }
            let Some((separator, after)) = rest.split_at_checked(end).and_then(|(_, tail)| tail.split_at_checked(1))
            else {
                return;
            };
            (head, rest) = (separator, after);
        }
    }

    fn names(&self, name: &str) -> bool {
        if name.bytes().any(|byte| byte == b'%' || byte == b'+') {
            return self.names.iter().any(|redacted| decoded(name.as_bytes()).eq(redacted.bytes()));
        }
        self.lengths & bit(name.len()) != 0 && self.names.iter().any(|redacted| redacted.eq_ignore_ascii_case(name))
    }
}

/// The bit of a length; all that are too long for one share the last.
fn bit(length: usize) -> u128 {
    1 << length.min(127)
}

/// The bytes of a percent-encoded name, in lower case.
fn decoded(name: &[u8]) -> impl Iterator<Item = u8> {
    let mut rest = name;
    std::iter::from_fn(move || {
        let (byte, tail) = match rest {
            [b'%', high, low, tail @ ..] => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, tail),
                _ => (b'%', rest.get(1..)?),
            },
            [b'+', tail @ ..] => (b' ', tail),
            [byte, tail @ ..] => (*byte, tail),
            [] => return None,
        };
        rest = tail;
        Some(byte.to_ascii_lowercase())
    })
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn redacted(path: &str) -> String {
        let mut out = String::new();
        Redaction::new(["token".into(), "pass word".into()].into()).pieces(path, |piece| out.push_str(piece));
        out
    }

    #[test]
    fn secrets_are_blotted_out_however_they_are_spelt() {
        for (path, shown) in [
            ("/a", "/a"),
            ("/a?", "/a?"),
            ("/a?x=1&y", "/a?x=1&y"),
            ("/a?token=abc", "/a?token=***"),
            ("/a?x=1&Token=abc&y=2", "/a?x=1&Token=***&y=2"),
            ("/a?%74oke%6E=abc&&", "/a?%74oke%6E=***&&"),
            ("/a?pass+word=1&pass%20word=2", "/a?pass+word=***&pass%20word=***"),
            ("/a?x=1;token=a;b&c=d;e", "/a?x=1;token=***&c=d;e"),
            ("/a?token", "/a?token"),
            ("/a?token=", "/a?token=***"),
            ("/a?tokens=1&%7=2&%zz=3&=4", "/a?tokens=1&%7=2&%zz=3&=4"),
            ("/token=1?é=ü&token=ä", "/token=1?é=ü&token=***"),
        ] {
            assert_eq!(redacted(path), shown);
        }
    }

    proptest! {
        #[test]
        fn no_secret_shows_and_nothing_else_is_lost(before in "[a-z=&;%+]{0,12}", secret in "[A-Z;]{1,9}", after in "(&[a-z=&;%]{0,9})?") {
            let path = format!("/p?{before}&token={secret}{after}");
            prop_assert_eq!(redacted(&path), format!("{}&token=***{}", redacted(&format!("/p?{before}")), redacted(&format!("/?{after}")).trim_start_matches("/?")));
        }

        #[test]
        fn paths_without_secrets_stay_as_they_are(path in "/.*") {
            prop_assume!(!path.to_lowercase().contains("token") && !path.contains('%') && !path.to_lowercase().contains("pass"));
            prop_assert_eq!(redacted(&path), path);
        }
    }
}
