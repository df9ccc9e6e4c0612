//! "Did you mean …?": the known word that is nearest to the one written.

/// The candidate nearest to `written`, if one is near enough: a third of the longer word may differ, and always one
/// letter. Upper and lower case, `-` and `_` count as equal. Ties go to the first candidate.
pub fn closest<'a, I>(written: &str, candidates: I) -> Option<&'a str>
where
    I: IntoIterator<Item = &'a str>,
{
    // Nothing that long is a slip of the finger, and the distance takes quadratic time.
    if written.len() > 128 {
        return None;
    }
    let wanted = fold(written);
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        if candidate.len() > 128 {
            continue;
        }
        let folded = fold(candidate);
        let distance = strsim::damerau_levenshtein(&wanted, &folded);
        let longer = wanted.chars().count().max(folded.chars().count());
        let near = distance <= (longer / 3).max(1) && distance < longer;
        if near && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// A list for a sentence: "`a`, `b`, `c`", cut after 24 words.
pub fn listed<'a, I>(words: I) -> String
where
    I: IntoIterator<Item = &'a str>,
{
    const MOST: usize = 24;
    let mut text = String::new();
    for (i, word) in words.into_iter().enumerate() {
        if i == MOST {
            text.push_str(", …");
            break;
        }
        if i > 0 {
            text.push_str(", ");
        }
        text.push('`');
        text.push_str(word);
        text.push('`');
    }
    text
}

/// The help for a word that is not among `known`: the nearest one, else all of them. `what` names the words in the
/// plural ("keys"). None if there are none.
pub fn help(written: &str, known: &[&str], what: &str) -> Option<String> {
    match closest(written, known.iter().copied()) {
        Some(near) => Some(format!("did you mean `{near}`?")),
        None if known.is_empty() => None,
        None => Some(format!("the {what} known here: {}", listed(known.iter().copied()))),
    }
}

fn fold(word: &str) -> String {
    word.to_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_found() {
        let known = ["allow_origins", "allow_methods", "max_age"];
        assert_eq!(closest("allow_orgins", known), Some("allow_origins"));
        assert_eq!(closest("Allow-Origins", known), Some("allow_origins"));
        assert_eq!(closest("maxage", known), Some("max_age"));
        assert_eq!(closest("usres", ["orders", "users"]), Some("users"));
    }

    #[test]
    fn a_strange_word_has_no_neighbour() {
        assert_eq!(closest("banana", ["path", "host"]), None);
        assert_eq!(closest("x", ["a", "b"]), None);
        assert_eq!(closest("", ["a"]), None);
        assert_eq!(help("banana", &["path", "host"], "keys").as_deref(), Some("the keys known here: `path`, `host`"));
    }
}
