//! Takes the page of the manual out of a policy's source while the crate is compiled: the module documentation.
//!
//! So the page is written once, beside the code, and the binary carries the page alone.

/// How many bytes [`page`] makes of `source`.
pub(crate) const fn length(source: &str) -> usize {
    walk::<0>(source).1
}

/// The module documentation at the top of `source`, without its `//! ` marks; `N` is its [`length`].
pub(crate) const fn page<const N: usize>(source: &str) -> [u8; N] {
    walk::<N>(source).0
}

/// The page as text.
pub(crate) const fn text(page: &'static [u8]) -> &'static str {
    match std::str::from_utf8(page) {
        Ok(text) => text,
        // Cutting a valid text at whole lines leaves it valid.
        Err(_) => "",
    }
}

#[expect(
    clippy::indexing_slicing,
    reason = "runs while the crate is compiled: an index out of bounds is a compile error"
)]
const fn walk<const N: usize>(source: &str) -> ([u8; N], usize) {
    let bytes = source.as_bytes();
    let mut page = [0; N];
    let (mut at, mut length) = (0, 0);
    while at + 3 <= bytes.len() && bytes[at] == b'/' && bytes[at + 1] == b'/' && bytes[at + 2] == b'!' {
        at += 3;
        if at < bytes.len() && bytes[at] == b' ' {
            at += 1;
        }
        let mut end = false;
        while at < bytes.len() && !end {
            if N > 0 {
                page[length] = bytes[at];
            }
            end = bytes[at] == b'\n';
            length += 1;
            at += 1;
        }
    }
    (page, length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_the_module_documentation_and_nothing_else() {
        const SOURCE: &str = "//! Does it.\n//!\n//! ```yaml\n//!   a: b\n//! ```\n\nuse x;\n//! not this\n";
        const PAGE: [u8; length(SOURCE)] = page(SOURCE);
        static KEPT: [u8; PAGE.len()] = PAGE;
        assert_eq!(text(&KEPT), "Does it.\n\n```yaml\n  a: b\n```\n");
        assert_eq!(length("use x;\n"), 0);
        assert_eq!(length("//! a"), 1);
    }
}
