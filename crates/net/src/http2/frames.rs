//! Looks at what a client of HTTP/2 sends, frame by frame, to know whether a head is on its way (RFC 9113 §4.1).
//!
//! h2 reads frames and keeps no time. What counts as a head here has to be whole within the time for heads: the preface
//! with its SETTINGS, and a block of HEADERS with its CONTINUATIONs. Nothing is held but the nine bytes before a payload.

/// The length of what every client begins with (§3.4).
const PREFACE: u8 = 24;
const HEADER: usize = 9;

const HEADERS: u8 = 0x1;
const SETTINGS: u8 = 0x4;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;

/// Where in the stream of frames a client is.
#[derive(Debug)]
pub(crate) struct Frames {
    /// What is missing of the preface.
    preface: u8,
    /// Whether the first SETTINGS are whole.
    settled: bool,
    header: [u8; HEADER],
    have: usize,
    /// What is missing of the payload.
    left: u32,
    /// Whether a block of fields has begun and not ended.
    in_block: bool,
    /// How many heads are over.
    heads: u64,
}

impl Frames {
    pub(crate) fn new() -> Self {
        Self { preface: PREFACE, settled: false, header: [0; HEADER], have: 0, left: 0, in_block: false, heads: 0 }
    }

    /// Looks at the next bytes.
    pub(crate) fn see(&mut self, mut bytes: &[u8]) {
        let skipped = bytes.len().min(self.preface.into());
        self.preface -= skipped as u8;
        bytes = bytes.get(skipped..).unwrap_or_default();
        while !bytes.is_empty() {
            if self.left > 0 {
                let payload = bytes.len().min(self.left as usize);
                self.left -= payload as u32;
                bytes = bytes.get(payload..).unwrap_or_default();
            } else {
                for (into, byte) in self.header.iter_mut().skip(self.have).zip(bytes) {
                    *into = *byte;
                }
                let taken = bytes.len().min(HEADER - self.have);
                self.have += taken;
                bytes = bytes.get(taken..).unwrap_or_default();
                if self.have < HEADER {
                    return;
                }
                self.begin();
            }
            if self.left == 0 {
                self.end();
            }
        }
    }

    /// The number of the head that is on its way, if there is one.
    pub(crate) fn head(&self) -> Option<u64> {
        (self.preface > 0 || !self.settled || self.in_block).then_some(self.heads)
    }

    fn begin(&mut self) {
        let [a, b, c, kind, ..] = self.header;
        self.left = u32::from_be_bytes([0, a, b, c]);
        self.in_block |= matches!(kind, HEADERS | CONTINUATION);
    }

    fn end(&mut self) {
        let [_, _, _, kind, flags, ..] = self.header;
        self.have = 0;
        match kind {
            SETTINGS if !self.settled => {
                self.settled = true;
                self.heads += 1;
            }
            HEADERS | CONTINUATION if flags & END_HEADERS != 0 => {
                self.in_block = false;
                self.heads += 1;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let [_, a, b, c] = (payload as u32).to_be_bytes();
        let mut bytes = vec![a, b, c, kind, flags, 0, 0, 0, 1];
        bytes.resize(9 + payload, 0xff);
        bytes
    }

    fn begun() -> Frames {
        let mut frames = Frames::new();
        frames.see(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        assert_eq!(frames.head(), Some(0));
        frames.see(&frame(SETTINGS, 0, 18));
        frames
    }

    #[test]
    fn the_preface_is_a_head_up_to_its_settings() {
        assert_eq!(Frames::new().head(), Some(0));
        assert_eq!(begun().head(), None);
    }

    #[test]
    fn a_block_of_fields_is_a_head_from_its_first_byte_to_its_last() {
        let mut frames = begun();
        let headers = frame(HEADERS, 0, 5);
        frames.see(&headers[..8]);
        assert_eq!(frames.head(), None, "it could be any frame yet");
        frames.see(&headers[8..10]);
        assert_eq!(frames.head(), Some(1));
        frames.see(&headers[10..]);
        assert_eq!(frames.head(), Some(1));
        frames.see(&frame(CONTINUATION, 0, 0));
        assert_eq!(frames.head(), Some(1));
        frames.see(&frame(CONTINUATION, END_HEADERS, 3));
        assert_eq!(frames.head(), None);
        frames.see(&frame(HEADERS, END_HEADERS, 0));
        assert_eq!(frames.head(), None);
        // The next one is another head, so its time is its own.
        frames.see(&frame(HEADERS, 0, 0));
        assert_eq!(frames.head(), Some(3));
    }

    #[test]
    fn bodies_and_control_frames_are_no_heads() {
        let mut frames = begun();
        for (kind, payload) in [(0, 16_384), (3, 4), (6, 8), (8, 4), (SETTINGS, 0), (0x42, 7)] {
            let bytes = frame(kind, 0, payload);
            frames.see(&bytes[..bytes.len() - payload / 2]);
            assert_eq!(frames.head(), None, "{kind}");
            frames.see(&bytes[bytes.len() - payload / 2..]);
            assert_eq!(frames.head(), None, "{kind}");
        }
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_bytes_are_cut(
            kinds in prop::collection::vec((0_u8..10, any::<bool>(), 0_usize..40), 0..20),
            cuts in prop::collection::vec(1_usize..30, 1..60),
        ) {
            let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
            for (kind, ends, payload) in kinds {
                bytes.extend(frame(kind, if ends { END_HEADERS } else { 0 }, payload));
            }
            let mut whole = Frames::new();
            whole.see(&bytes);
            let mut pieces = Frames::new();
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (piece, more) = rest.split_at((*cut).min(rest.len()));
                pieces.see(piece);
                rest = more;
            }
            prop_assert_eq!(format!("{whole:?}"), format!("{pieces:?}"));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            Frames::new().see(&bytes);
        }
    }
}
