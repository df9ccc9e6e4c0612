//! Reads the members of a query or of a body in the form `application/x-www-form-urlencoded`, each of which stands once.

use percent_encoding::percent_decode_str;

/// The most members that are looked at.
const MOST: usize = 64;

/// Members by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Members(Vec<(String, String)>);

impl Members {
    /// None where one stands twice (RFC 6749 §3.1), is no text, or there are too many.
    pub(super) fn read(form: &str) -> Option<Self> {
        let mut all = Vec::<(String, String)>::new();
        for pair in form.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if all.len() >= MOST || all.iter().any(|(known, _)| *known == name) {
                return None;
            }
            all.push((name, value));
        }
        Some(Self(all))
    }

    /// What stands there under this name and is not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, value)| known == name && !value.is_empty());
        found.map(|(_, value)| value.as_str())
    }
}

fn decode(text: &str) -> Option<String> {
    let blanks = text.replace('+', " ");
    Some(percent_decode_str(&blanks).decode_utf8().ok()?.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use pylon_upstream::oauth::Form;

    #[test]
    fn members_are_read_once_or_not_at_all() {
        let members = Members::read("code=a%2Fb&state=x+y&&empty=&alone").unwrap();
        assert_eq!((members.get("code"), members.get("state")), (Some("a/b"), Some("x y")));
        assert_eq!((members.get("empty"), members.get("alone"), members.get("none")), (None, None, None));
        for odd in ["a=1&a=2", "a=1&%61=2", "state=%ff", &"x=1&".repeat(2)] {
            assert_eq!(Members::read(odd), None, "{odd}");
        }
        let many: Vec<String> = (0..=MOST).map(|number| format!("{number}=1")).collect();
        assert_eq!(Members::read(&many.join("&")), None);
        assert_eq!(Members::read(""), Some(Members::default()));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(name in "[a-z]{1,8}", value in ".{1,40}") {
            let members = Members::read(Form::default().with(&name, &value).text()).unwrap();
            prop_assert_eq!(members.get(&name), Some(&*value));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,80}") {
            let _ = Members::read(&text);
        }
    }
}
