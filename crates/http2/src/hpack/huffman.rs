//! Huffman coded strings (RFC 7541 §5.2), read by half octets through an automaton that is made when this is compiled.

/// How many bits the code of each octet has, and last that of the end (appendix B). The codes follow from it: they are in
/// order of their length, and among the same length in order of the octets.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6,
    5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22,
    22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28,
    27, 27, 27, 27, 27, 26, 30,
];

/// What half an octet leads to.
#[derive(Clone, Copy)]
struct Step {
    /// The inner node of the tree where the next half begins.
    next: u8,
    octet: u8,
    what: u8,
}

/// An octet is whole: no code is shorter than half an octet, so there is one at the most.
const WHOLE: u8 = 1;
/// This cannot be: the end of a string is never coded in it.
const BROKEN: u8 = 2;
/// The string may end here: what comes behind the last octet is padding.
const MAY_END: u8 = 4;

/// Stands for what is no inner node.
const LEAF: u16 = 0x100;

static STEPS: [[Step; 16]; 256] = steps(&tree());

/// The two ways from each inner node: to another, or to a leaf, whose symbol stands above `LEAF`.
#[expect(clippy::indexing_slicing, reason = "computed when this is compiled, where an index out of bounds is an error")]
const fn tree() -> [[u16; 2]; 256] {
    let mut nodes = [[0_u16; 2]; 256];
    let (mut made, mut code, mut length) = (1, 0_u32, 0_u8);
    while length < 30 {
        length += 1;
        code <<= 1;
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] == length {
                let (mut node, mut bit) = (0, length);
                while bit > 1 {
                    bit -= 1;
                    let way = ((code >> bit) & 1) as usize;
                    if nodes[node][way] == 0 {
                        nodes[node][way] = made;
                        made += 1;
                    }
                    node = nodes[node][way] as usize;
                }
                nodes[node][(code & 1) as usize] = LEAF + symbol as u16;
                code += 1;
            }
            symbol += 1;
        }
    }
    nodes
}

#[expect(clippy::indexing_slicing, reason = "computed when this is compiled, where an index out of bounds is an error")]
const fn steps(tree: &[[u16; 2]; 256]) -> [[Step; 16]; 256] {
    // Padding is less than an octet of ones (§5.2).
    let mut may_end = [false; 256];
    let (mut node, mut depth) = (0, 0);
    while depth < 8 {
        may_end[node] = true;
        node = tree[node][1] as usize;
        depth += 1;
    }
    let mut steps = [[Step { next: 0, octet: 0, what: 0 }; 16]; 256];
    let mut from = 0;
    while from < 256 {
        let mut half = 0;
        while half < 16 {
            let (mut node, mut octet, mut what, mut bit) = (from, 0, 0, 4);
            while bit > 0 {
                bit -= 1;
                let next = tree[node][(half >> bit) & 1];
                if next < LEAF {
                    node = next as usize;
                    continue;
                }
                node = 0;
                if next == LEAF + 256 {
                    what |= BROKEN;
                } else {
                    octet = (next - LEAF) as u8;
                    what |= WHOLE;
                }
            }
            if may_end[node] {
                what |= MAY_END;
            }
            steps[from][half] = Step { next: node as u8, octet, what };
            half += 1;
        }
        from += 1;
    }
    steps
}

/// Appends the octets that `coded` stands for. None where it is no such string.
pub(super) fn decode(coded: &[u8], out: &mut Vec<u8>) -> Option<()> {
    // The shortest code has five bits.
    out.reserve(coded.len().saturating_mul(8) / 5);
    let (mut node, mut what) = (0, MAY_END);
    for byte in coded {
        for half in [byte >> 4, byte & 0xf] {
            let step = STEPS.get(usize::from(node))?.get(usize::from(half))?;
            if step.what & WHOLE != 0 {
                out.push(step.octet);
            } else if step.what & BROKEN != 0 {
                return None;
            }
            (node, what) = (step.next, step.what);
        }
    }
    (what & (MAY_END | BROKEN) == MAY_END).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_fill_the_tree() {
        let sum: u64 = LENGTHS.iter().map(|length| 1 << (30 - length)).sum();
        assert_eq!(sum, 1 << 30);
        assert!(tree().iter().flatten().all(|way| *way != 0));
    }

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        for (coded, text) in [
            (&b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"[..], "www.example.com"),
            (b"\xa8\xeb\x10\x64\x9c\xbf", "no-cache"),
            (b"\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f", "custom-key"),
            (
                b"\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\x95\x04\x0b\x81\x66\xe0\x82\xa6\x2d\x1b\xff",
                "Mon, 21 Oct 2013 20:13:21 GMT",
            ),
            (b"\x9d\x29\xad\x17\x18\x63\xc7\x8f\x0b\x97\xc8\xe9\xae\x82\xae\x43\xd3", "https://www.example.com"),
            (b"", ""),
        ] {
            let mut out = Vec::new();
            assert!(decode(coded, &mut out).is_some(), "{text}");
            assert_eq!(out, text.as_bytes());
        }
    }

    #[test]
    fn the_end_and_padding_that_is_none_are_refused() {
        // The code of the end; a whole octet of padding; padding that is not of ones.
        for coded in [&b"\xff\xff\xff\xff"[..], b"\xff\xff\xff\xfc", b"\x1f\xff", b"\x18", b"\xff"] {
            assert!(decode(coded, &mut Vec::new()).is_none(), "{coded:x?}");
        }
        assert!(decode(b"\x1f", &mut Vec::new()).is_some());
    }
}
