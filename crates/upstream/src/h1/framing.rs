//! Where the body of a response ends (RFC 9112 §6.3) and how the chunked coding is undone (§7.1). Pure.
//!
//! Stricter than the RFC allows: any transfer coding but a sole `chunked`, a transfer coding beside a length, lengths
//! that differ, bare line feeds and folded trailers are errors.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use memchr::{memchr, memmem};

/// The longest line that may begin a chunk, extensions included, in bytes.
pub const MAX_CHUNK_LINE: usize = 4096;
/// The longest trailer section, in bytes.
pub const MAX_TRAILERS: usize = 16 * 1024;

/// Why bytes from an upstream could not be framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// `Transfer-Encoding` is something else than a sole `chunked`.
    #[error("the transfer coding is not a sole `chunked`")]
    TransferCoding,
    /// `Transfer-Encoding` beside `Content-Length`, or in HTTP/1.0.
    #[error("a transfer coding beside a content length, or in HTTP/1.0")]
    Ambiguous,
    /// `Content-Length` is no number, or several that differ.
    #[error("the content length is not one number")]
    ContentLength,
    /// The line before a chunk is not valid.
    #[error("a chunk does not begin with a valid size")]
    ChunkSize,
    /// The line before a chunk is too long.
    #[error("the line before a chunk is longer than 4096 bytes")]
    ChunkLine,
    /// No line end after the data of a chunk.
    #[error("a chunk is not followed by a line end")]
    ChunkEnd,
    /// The trailer section is not valid or too long.
    #[error("the trailers are not valid")]
    Trailers,
    /// The connection ended before the body did.
    #[error("the connection closed before the body was complete")]
    Incomplete,
}

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// There is no body.
    Empty,
    /// So many bytes, at least one.
    Fixed(u64),
    /// Chunks, then trailers.
    Chunked,
    /// All that comes until the connection closes.
    UntilClose,
}

/// What the fields of a response say of its length, gathered while its head is read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Claims {
    length: Option<u64>,
    chunked: bool,
}

impl Claims {
    /// Takes in a `Content-Length` field. Equal repeats count as one (RFC 9112 §6.3, rule 5). Answers true for the first.
    pub fn content_length(&mut self, value: &[u8]) -> Result<bool, FramingError> {
        let first = self.length.is_none();
        for item in value.split(|&byte| byte == b',') {
            let length = decimal(item.trim_ascii()).ok_or(FramingError::ContentLength)?;
            if self.length.is_some_and(|known| known != length) {
                return Err(FramingError::ContentLength);
            }
            self.length = Some(length);
        }
        Ok(first)
    }

    /// Takes in a `Transfer-Encoding` field.
    pub fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), FramingError> {
        if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(FramingError::TransferCoding);
        }
        self.chunked = true;
        Ok(())
    }

    /// The length that was claimed.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// Decides (RFC 9112 §6.3). `http10` says that the response is of HTTP/1.0.
    pub fn decide(&self, method: &Method, status: StatusCode, http10: bool) -> Result<Length, FramingError> {
        if self.chunked && (self.length.is_some() || http10) {
            return Err(FramingError::Ambiguous);
        }
        if method == Method::HEAD || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
            return Ok(Length::Empty);
        }
        Ok(match self.length {
            _ if self.chunked => Length::Chunked,
            Some(0) => Length::Empty,
            Some(length) => Length::Fixed(length),
            None => Length::UntilClose,
        })
    }
}

/// Digits only, no sign, no overflow.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |sum, &byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 { None } else { sum.checked_mul(10)?.checked_add(u64::from(digit)) }
    })
}

/// One step of a body.
#[derive(Debug)]
pub enum Piece {
    /// Bytes of the body.
    Data(Bytes),
    /// The fields after the last chunk; then the body is over.
    Trailers(HeaderMap),
    /// More bytes are needed.
    More,
    /// The body is over. What is left in the buffer does not belong to it.
    End,
}

/// Takes a body out of the bytes of a connection.
#[derive(Debug)]
pub struct Decoder {
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Fixed(u64),
    UntilClose,
    Size,
    Chunk(u64),
    ChunkEnd,
    Trailers,
    Done,
}

impl Decoder {
    /// A decoder at the first byte after the head.
    pub fn new(length: Length) -> Self {
        let state = match length {
            Length::Empty | Length::Fixed(0) => State::Done,
            Length::Fixed(length) => State::Fixed(length),
            Length::Chunked => State::Size,
            Length::UntilClose => State::UntilClose,
        };
        Self { state }
    }

    /// Whether the body is over.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// How many bytes are certainly still to come, where that is known.
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Done => Some(0),
            State::Fixed(left) => Some(left),
            _ => None,
        }
    }

    /// How many bytes of data are known to come before anything else: a hint for the size of a read.
    pub fn run(&self) -> u64 {
        match self.state {
            State::Fixed(left) | State::Chunk(left) => left,
            _ => 0,
        }
    }

    /// Takes the next piece out of `buf`.
    pub fn next(&mut self, buf: &mut BytesMut) -> Result<Piece, FramingError> {
        loop {
            match self.state {
                State::Done => return Ok(Piece::End),
                _ if buf.is_empty() => return Ok(Piece::More),
                State::UntilClose => return Ok(Piece::Data(buf.split().freeze())),
                State::Fixed(left) => {
                    let (data, left) = take(buf, left);
                    self.state = if left == 0 { State::Done } else { State::Fixed(left) };
                    return Ok(Piece::Data(data));
                }
                State::Chunk(left) => {
                    let (data, left) = take(buf, left);
                    self.state = if left == 0 { State::ChunkEnd } else { State::Chunk(left) };
                    return Ok(Piece::Data(data));
                }
                State::ChunkEnd => match buf.as_ref() {
                    [b'\r', b'\n', ..] => {
                        buf.advance(2);
                        self.state = State::Size;
                    }
                    [b'\r'] => return Ok(Piece::More),
                    _ => return Err(FramingError::ChunkEnd),
                },
                State::Size => match chunk_line(buf)? {
                    None => return Ok(Piece::More),
                    Some(0) => self.state = State::Trailers,
                    Some(size) => self.state = State::Chunk(size),
                },
                State::Trailers => return self.trailers(buf),
            }
        }
    }

    /// Ends a chunked body whose last chunk stands alone in `buf`, so that small answers need no stream.
    pub fn finish_if_whole(&mut self, buf: &mut BytesMut) {
        if self.state == State::ChunkEnd && buf.as_ref() == b"\r\n0\r\n\r\n" {
            buf.clear();
            self.state = State::Done;
        }
    }

    /// Says that the connection has ended. An error where the body had not.
    pub fn close(&mut self) -> Result<(), FramingError> {
        match self.state {
            State::Done | State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(FramingError::Incomplete),
        }
    }

    fn trailers(&mut self, buf: &mut BytesMut) -> Result<Piece, FramingError> {
        if buf.starts_with(b"\r\n") {
            buf.advance(2);
            self.state = State::Done;
            return Ok(Piece::End);
        }
        let Some(end) = memmem::find(buf, b"\r\n\r\n") else {
            return if buf.len() >= MAX_TRAILERS.saturating_add(4) {
                Err(FramingError::Trailers)
            } else {
                Ok(Piece::More)
            };
        };
        if end > MAX_TRAILERS {
            return Err(FramingError::Trailers);
        }
        let section = buf.split_to(end.saturating_add(4)).freeze();
        self.state = State::Done;
        Ok(Piece::Trailers(trailer_fields(&section)?))
    }
}

fn take(buf: &mut BytesMut, left: u64) -> (Bytes, u64) {
    let here = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
    (buf.split_to(here).freeze(), left.saturating_sub(here as u64))
}

/// Takes the line before a chunk, and answers the size of the chunk once the whole line is there.
fn chunk_line(buf: &mut BytesMut) -> Result<Option<u64>, FramingError> {
    let window = buf.get(..MAX_CHUNK_LINE).unwrap_or(buf);
    let Some(end) = memchr(b'\n', window) else {
        return if buf.len() >= MAX_CHUNK_LINE { Err(FramingError::ChunkLine) } else { Ok(None) };
    };
    let line = window.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(FramingError::ChunkSize)?;
    let size = chunk_size(line).ok_or(FramingError::ChunkSize)?;
    buf.advance(end.saturating_add(1));
    Ok(Some(size))
}

/// `chunk-size [ BWS ";" chunk-ext ]`. Extensions are dropped, but must hold no control characters.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (number, rest) = line.split_at_checked(digits)?;
    if number.is_empty() || number.len() > 16 {
        return None;
    }
    let extension = rest.trim_ascii_start();
    let extended =
        extension.first() == Some(&b';') && !rest.iter().any(|&byte| byte.is_ascii_control() && byte != b'\t');
    if !rest.is_empty() && !extended {
        return None;
    }
    number.iter().try_fold(0_u64, |sum, &byte| {
        let digit = (byte as char).to_digit(16)?;
        sum.checked_mul(16)?.checked_add(u64::from(digit))
    })
}

fn trailer_fields(section: &Bytes) -> Result<HeaderMap, FramingError> {
    let mut fields = HeaderMap::new();
    let mut rest = section.clone();
    while let Some(end) = memchr(b'\n', &rest) {
        let mut line = rest.split_to(end.saturating_add(1));
        if !line.ends_with(b"\r\n") {
            return Err(FramingError::Trailers);
        }
        line.truncate(line.len().saturating_sub(2));
        if line.is_empty() {
            break;
        }
        let colon = memchr(b':', &line).ok_or(FramingError::Trailers)?;
        let name = HeaderName::from_bytes(&line.split_to(colon)).map_err(|_| FramingError::Trailers)?;
        line.advance(1);
        let value = line.slice_ref(line.trim_ascii());
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| FramingError::Trailers)?;
        if may_trail(&name) {
            fields.try_append(name, value).map_err(|_| FramingError::Trailers)?;
        }
    }
    Ok(fields)
}

/// Fields that decide framing, routing, authentication or the meaning of the head may not come after the body
/// (RFC 9110 §6.5.1); they are dropped.
pub(crate) fn may_trail(name: &HeaderName) -> bool {
    ![
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::HOST,
        header::CONNECTION,
        header::TRAILER,
        header::TE,
        header::UPGRADE,
        header::CONTENT_TYPE,
        header::CONTENT_ENCODING,
        header::CONTENT_RANGE,
        header::SET_COOKIE,
        header::AUTHORIZATION,
        header::PROXY_AUTHENTICATE,
        header::WWW_AUTHENTICATE,
        header::CACHE_CONTROL,
        header::LOCATION,
    ]
    .contains(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a body comes to: data, trailers, and what is left behind it.
    type Outcome = Result<(Vec<u8>, Option<HeaderMap>, bool, Vec<u8>), ()>;

    fn decode<'a>(length: Length, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
        let (mut decoder, mut buf) = (Decoder::new(length), BytesMut::new());
        let (mut data, mut trailers) = (Vec::new(), None);
        for piece in pieces {
            buf.extend_from_slice(piece);
            loop {
                match decoder.next(&mut buf).map_err(drop)? {
                    Piece::Data(bytes) => data.extend_from_slice(&bytes),
                    Piece::Trailers(fields) => trailers = Some(fields),
                    Piece::More | Piece::End => break,
                }
                decoder.finish_if_whole(&mut buf);
            }
        }
        Ok((data, trailers, decoder.is_done(), buf.to_vec()))
    }

    fn split<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
    }

    fn wire(chunks: &[Vec<u8>], trailers: usize) -> Vec<u8> {
        let mut wire = Vec::new();
        for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
            wire.extend_from_slice(format!("{:x};a=b\r\n", chunk.len()).as_bytes());
            wire.extend_from_slice(chunk);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(b"0\r\n");
        for number in 0..trailers {
            wire.extend_from_slice(format!("x-{number}: {number}\r\n").as_bytes());
        }
        wire.extend_from_slice(b"\r\n");
        wire
    }

    #[test]
    fn sizes_are_hexadecimal_and_nothing_else() {
        for (line, size) in
            [("0", 0), ("a", 10), ("00F", 15), ("ffffffffffffffff", u64::MAX), ("5;x", 5), ("5 ; x=\"y\"", 5)]
        {
            assert_eq!(chunk_size(line.as_bytes()), Some(size), "{line}");
        }
        for line in [
            "",
            " 5",
            "5 ",
            "0x5",
            "+5",
            "-5",
            "5,",
            "g",
            "1ffffffffffffffff",
            "00000000000000005",
            "5;a\rb",
            "5;\0",
            "5 x",
        ] {
            assert_eq!(chunk_size(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn what_breaks_the_chunked_coding_is_an_error() {
        for wire in [
            &b"5\nhello\r\n0\r\n\r\n"[..],
            b"5\r\nhelloX\r\n0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"fffffffffffffffff\r\n",
            b"0\r\na : b\r\n\r\n",
            b"0\r\n folded\r\n\r\n",
            b"0\r\nno colon\r\n\r\n",
            b"0\r\na: b\nc: d\r\n\r\n",
        ] {
            assert_eq!(decode(Length::Chunked, [wire]), Err(()), "{}", wire.escape_ascii());
        }
        let long = [b"5;".to_vec(), vec![b'x'; MAX_CHUNK_LINE], b"\r\nhello\r\n0\r\n\r\n".to_vec()].concat();
        assert_eq!(decode(Length::Chunked, [&long[..]]), Err(()));
        let endless = [b"0\r\na: ".to_vec(), vec![b'x'; MAX_TRAILERS + 10]].concat();
        assert_eq!(decode(Length::Chunked, [&endless[..]]), Err(()));
    }

    #[test]
    fn a_connection_may_end_only_where_the_body_does() {
        assert_eq!(Decoder::new(Length::UntilClose).close(), Ok(()));
        assert_eq!(Decoder::new(Length::Empty).close(), Ok(()));
        for length in [Length::Fixed(1), Length::Chunked] {
            assert_eq!(Decoder::new(length).close(), Err(FramingError::Incomplete));
        }
    }

    #[test]
    fn lengths_are_decided_by_the_rules_in_their_order() {
        let claims = |length: Option<&str>, coding: Option<&str>| {
            let mut claims = Claims::default();
            length.map(|value| claims.content_length(value.as_bytes())).transpose()?;
            coding.map(|value| claims.transfer_encoding(value.as_bytes())).transpose()?;
            claims.decide(&Method::GET, StatusCode::OK, false)
        };
        assert_eq!(claims(None, None), Ok(Length::UntilClose));
        assert_eq!(claims(Some("0"), None), Ok(Length::Empty));
        assert_eq!(claims(Some("7 , 7,7"), None), Ok(Length::Fixed(7)));
        assert_eq!(claims(None, Some("Chunked")), Ok(Length::Chunked));
        assert_eq!(claims(Some("7"), Some("chunked")), Err(FramingError::Ambiguous));
        for coding in ["gzip", "chunked, chunked", "gzip, chunked", "chunked;a", "x chunked", "", "identity"] {
            assert_eq!(claims(None, Some(coding)), Err(FramingError::TransferCoding), "{coding}");
        }
        for length in ["", "7,", "7,8", "-7", "7 7", "0x7", "99999999999999999999"] {
            assert_eq!(claims(Some(length), None), Err(FramingError::ContentLength), "{length}");
        }
        let mut fixed = Claims::default();
        assert_eq!(fixed.content_length(b"5"), Ok(true));
        assert_eq!(fixed.decide(&Method::HEAD, StatusCode::OK, false), Ok(Length::Empty));
        assert_eq!(fixed.decide(&Method::GET, StatusCode::NOT_MODIFIED, true), Ok(Length::Empty));
    }

    proptest! {
        #[test]
        fn chunks_come_out_as_they_went_in_however_they_are_split(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..6),
            trailers in 0_usize..3,
            behind in prop::collection::vec(any::<u8>(), 0..20),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let bytes = [wire(&chunks, trailers), behind.clone()].concat();
            let (data, fields, done, left) = decode(Length::Chunked, split(&bytes, &cuts)).unwrap();
            prop_assert_eq!((data, done, left), (chunks.concat(), true, behind));
            prop_assert_eq!(fields.map_or(0, |fields| fields.len()), trailers);
        }

        #[test]
        fn arbitrary_bytes_mean_the_same_however_they_are_split(
            bytes in prop::collection::vec(prop::sample::select(b"0123aF;:x \r\n\0".to_vec()), 0..60),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
            length in prop::sample::select(vec![Length::Chunked, Length::Fixed(20), Length::UntilClose, Length::Empty]),
        ) {
            prop_assert_eq!(decode(length, [&bytes[..]]), decode(length, split(&bytes, &cuts)));
        }

        #[test]
        fn a_fixed_length_takes_its_bytes_and_no_more(length in 1_u64..100, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let (data, _, done, left) = decode(Length::Fixed(length), [&bytes[..]]).unwrap();
            let taken = bytes.len().min(usize::try_from(length).unwrap());
            prop_assert_eq!((&data[..], &left[..]), bytes.split_at(taken));
            prop_assert_eq!(done, taken as u64 == length);
        }
    }
}
