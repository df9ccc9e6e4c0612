//! Heads and bodies of answers.

use bytes::BytesMut;
use http::{HeaderMap, Method};
use proptest::prelude::*;

use crate::Length;
use crate::answer::{Head, HeadReader, Refusal};
use crate::body::{Decoder, Incomplete, MAX_ANSWER_CHUNK_LINE, MAX_TRAILERS, Piece};
use crate::fault::Fault;

fn read(bytes: &[u8]) -> Result<Option<Head>, Refusal> {
    HeadReader::default().read(&mut BytesMut::from(bytes), &Method::GET, 64 * 1024)
}

/// What an answer with these fields says of its length.
fn length(method: &Method, line: &str, fields: &str) -> Result<Length, Refusal> {
    let text = format!("{line}\r\n{fields}\r\n");
    let head = HeadReader::default().read(&mut BytesMut::from(text.as_bytes()), method, 64 * 1024)?;
    Ok(head.unwrap().length)
}

#[test]
fn fields_share_the_memory_that_they_were_read_into() {
    let mut buf = BytesMut::from(&b"HTTP/1.1 200 OK\r\nx-a:  one two \t\r\nx-b:\r\ncontent-length: 2\r\n\r\nok"[..]);
    let range = buf.as_ptr_range();
    let head = HeadReader::default().read(&mut buf, &Method::GET, 1024).unwrap().unwrap();
    assert_eq!((head.headers["x-a"].as_bytes(), head.headers["x-b"].as_bytes()), (&b"one two"[..], &b""[..]));
    assert!(range.contains(&head.headers["x-a"].as_bytes().as_ptr()));
    assert_eq!((head.length, head.keep_alive, &buf[..]), (Length::Fixed(2), true, &b"ok"[..]));
}

#[test]
fn a_connection_is_kept_by_the_rules_of_its_version() {
    let keeps = |version: &str, fields: &str| {
        let head = format!("HTTP/{version} 200 OK\r\ncontent-length: 0\r\n{fields}\r\n");
        read(head.as_bytes()).unwrap().unwrap().keep_alive
    };
    assert!(keeps("1.1", "") && keeps("1.1", "connection: x\r\n") && keeps("1.0", "connection: Keep-Alive\r\n"));
    assert!(!keeps("1.0", "") && !keeps("1.1", "connection: x, close\r\n"));
    assert!(!keeps("1.1", "connection: keep-alive\r\nconnection: close\r\n"));
    assert!(!keeps("1.1", "connection: close\r\nconnection: keep-alive\r\n"));
    let until_close = read(b"HTTP/1.1 200 OK\r\n\r\n").unwrap().unwrap();
    assert_eq!((until_close.length, until_close.keep_alive), (Length::UntilClose, false));
    let amiss = read(b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n").unwrap().unwrap();
    assert_eq!((amiss.length, amiss.keep_alive), (Length::Empty, false));
}

#[test]
fn reasons_may_be_anything_or_nothing() {
    for line in ["HTTP/1.1 200", "HTTP/1.1 200 ", "HTTP/1.1 200 Sehr g\u{fc}t", "HTTP/1.1 200 a\tb"] {
        assert!(read(format!("{line}\r\ncontent-length: 0\r\n\r\n").as_bytes()).unwrap().is_some(), "{line}");
    }
    for line in [
        "HTTP/1.1  200 OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 099 OK",
        "http/1.1 200 OK",
        "HTTP/1.2 200 OK",
        "HTTP/2.0 200 OK",
        "\r\nHTTP/1.1 200 OK",
    ] {
        let refused = read(format!("{line}\r\ncontent-length: 0\r\n\r\n").as_bytes()).map(drop);
        assert_eq!(refused, Err(Refusal::StatusLine), "{line}");
    }
}

#[test]
fn what_cannot_become_a_status_line_is_not_waited_for() {
    let line = "HTTP/1.1 200 ";
    for length in 0..line.len() {
        assert!(read(&line.as_bytes()[..length]).unwrap().is_none(), "{length}");
    }
    for text in ["\n", "HTTP/2", "HTTP/1.2", "HTTP/1.1\r", "HTTP/1.1 2x", "\u{81}\u{5}hello\r\n\r\n", "SSH-2.0"] {
        assert_eq!(read(text.as_bytes()).map(drop), Err(Refusal::StatusLine), "{text:?}");
    }
}

#[test]
fn what_breaks_a_head_is_refused() {
    for (text, fault) in [
        ("HTTP/1.1 200 OK\n", Fault::BareLf),
        ("HTTP/1.1 200 O\0K\r\n", Fault::Control),
        ("HTTP/1.1 200 OK\r\r\n", Fault::BareCr),
        ("HTTP/1.1 200 OK\r\nx: a\n", Fault::BareLf),
        ("HTTP/1.1 200 OK\r\nx: a\r\n b\r\n", Fault::Fold),
        ("HTTP/1.1 200 OK\r\nx : a\r\n", Fault::BlankBeforeColon),
        ("HTTP/1.1 200 OK\r\nno colon\r\n", Fault::BlankBeforeColon),
        ("HTTP/1.1 200 OK\r\nx: a\0b\r\n", Fault::Control),
        ("HTTP/1.1 200 OK\r\n: b\r\n", Fault::EmptyName),
    ] {
        assert_eq!(read(text.as_bytes()).map(drop), Err(Refusal::Fault(fault)), "{text:?}");
    }
    let fields = |count: usize| format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(count));
    assert!(read(fields(128).as_bytes()).unwrap().is_some());
    assert_eq!(read(fields(129).as_bytes()).map(drop), Err(Refusal::TooMany));
}

#[test]
fn a_head_that_is_too_long_names_its_largest_field() {
    let look = |text: &str, limit: usize| {
        HeadReader::default().read(&mut BytesMut::from(text.as_bytes()), &Method::GET, limit).map(|head| head.is_some())
    };
    let whole = "HTTP/1.1 200 OK\r\nx-small: 1\r\nx-large: 1234567890123456\r\n\r\n";
    let refused = |limit: usize, length: usize| {
        Err(Refusal::TooLarge { limit, largest: Some((http::HeaderName::from_static("x-large"), length)) })
    };
    assert_eq!(look(whole, whole.len()), Ok(true));
    assert_eq!(look(whole, whole.len() - 1), refused(whole.len() - 1, 25));
    assert_eq!(look(&whole[..50], 50), Ok(false));
    assert_eq!(look(&whole[..50], 49), refused(49, 21));
}

#[test]
fn lengths_are_decided_by_the_rules_in_their_order() {
    let ok = |fields: &str| length(&Method::GET, "HTTP/1.1 200 OK", fields);
    assert_eq!(ok(""), Ok(Length::UntilClose));
    assert_eq!(ok("content-length: 0\r\n"), Ok(Length::Empty));
    assert_eq!(ok("content-length: 7 , 7,7\r\n"), Ok(Length::Fixed(7)));
    assert_eq!(ok("content-length: 7\r\nContent-Length: 7\r\n"), Ok(Length::Fixed(7)));
    assert_eq!(ok("transfer-encoding: Chunked\r\n"), Ok(Length::Chunked));
    let both = Err(Refusal::Fault(Fault::LengthAndCoding));
    assert_eq!(ok("content-length: 7\r\ntransfer-encoding: chunked\r\n"), both);
    assert_eq!(ok("transfer-encoding: chunked\r\ncontent-length: 7\r\n"), both);
    for coding in ["gzip", "chunked, chunked", "gzip, chunked", "chunked;a", "x chunked", "", "identity"] {
        assert_eq!(ok(&format!("transfer-encoding: {coding}\r\n")), Err(Refusal::Fault(Fault::Coding)), "{coding}");
    }
    let twice = "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n";
    assert_eq!(ok(twice), Err(Refusal::Fault(Fault::Codings)));
    for (value, fault) in [
        ("", Fault::Length),
        ("7,", Fault::Length),
        (",7", Fault::Length),
        ("-7", Fault::Length),
        ("7 7", Fault::Length),
        ("0x7", Fault::Length),
        ("7,8", Fault::Lengths),
        ("7\r\ncontent-length: 8", Fault::Lengths),
        ("99999999999999999999", Fault::TooLong),
        ("9223372036854775808", Fault::TooLong),
    ] {
        assert_eq!(ok(&format!("content-length: {value}\r\n")), Err(Refusal::Fault(fault)), "{value}");
    }
    let old = length(&Method::GET, "HTTP/1.0 200 OK", "transfer-encoding: chunked\r\n");
    assert_eq!(old, Err(Refusal::Fault(Fault::OldCoding)));
    for (method, line) in [
        (Method::HEAD, "HTTP/1.1 200 OK"),
        (Method::GET, "HTTP/1.1 304 Not Modified"),
        (Method::GET, "HTTP/1.0 204 No Content"),
        (Method::GET, "HTTP/1.1 103 Early Hints"),
    ] {
        assert_eq!(length(&method, line, "content-length: 5\r\n"), Ok(Length::Empty), "{line}");
    }
}

#[test]
fn one_length_is_handed_on_and_no_coding() {
    let fields = |text: &str| read(text.as_bytes()).unwrap().unwrap().headers;
    let lengths = fields("HTTP/1.1 200 OK\r\ncontent-length: 7 , 7\r\ncontent-length: 7\r\nx: y\r\n\r\n");
    assert_eq!(lengths.get_all("content-length").iter().collect::<Vec<_>>(), ["7"]);
    assert_eq!(lengths.len(), 2);
    let chunked = fields("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx: y\r\n\r\n");
    assert_eq!(chunked.keys().collect::<Vec<_>>(), ["x"]);
}

/// What a body comes to: data, trailers, and what is left behind it.
type Outcome = Result<(Vec<u8>, Option<HeaderMap>, bool, Vec<u8>), Fault>;

fn decode<'a>(length: Length, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let (mut decoder, mut buf) = (Decoder::of_answer(length), BytesMut::new());
    let (mut data, mut trailers) = (Vec::new(), None);
    for piece in pieces {
        buf.extend_from_slice(piece);
        loop {
            match decoder.next(&mut buf)? {
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
        wire.extend_from_slice(format!("{:x} ; a = b\r\n", chunk.len()).as_bytes());
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
fn sizes_are_hexadecimal_and_anything_behind_a_semicolon() {
    for (line, size) in
        [("3", 3), ("a", 10), ("00F", 15), ("5;x", 5), ("5 ; x=\"y\"", 5), ("5;", 5), ("5\t; (any) \u{e9}", 5)]
    {
        let body = format!("{line}\r\n{}\r\n0\r\n\r\n", "x".repeat(size));
        assert_eq!(decode(Length::Chunked, [body.as_bytes()]).map(|it| (it.0.len(), it.2)), Ok((size, true)), "{line}");
    }
    for line in ["", " 5", "5 ", "0x5", "+5", "-5", "5,", "g", "8000000000000000", "5;a\rb", "5;\0", "5 x"] {
        assert!(decode(Length::Chunked, [format!("{line}\r\nhello\r\n0\r\n\r\n").as_bytes()]).is_err(), "{line}");
    }
}

#[test]
fn what_breaks_the_chunked_coding_is_an_error() {
    for (wire, fault) in [
        (&b"5\nhello\r\n0\r\n\r\n"[..], Fault::BareLf),
        (b"5\r\nhelloX\r\n0\r\n\r\n", Fault::ChunkEnd),
        (b"5\r\nhello\n0\r\n\r\n", Fault::ChunkEnd),
        (b"fffffffffffffffff\r\n", Fault::TooLong),
        (b"0\r\na : b\r\n\r\n", Fault::BlankBeforeColon),
        (b"0\r\n folded\r\n\r\n", Fault::Fold),
        (b"0\r\nnocolon\r\n\r\n", Fault::NoColon),
        (b"0\r\na: b\nc: d\r\n\r\n", Fault::BareLf),
    ] {
        assert_eq!(decode(Length::Chunked, [wire]), Err(fault), "{}", wire.escape_ascii());
    }
    let line = |length: usize| [b"5;".to_vec(), vec![b'x'; length - 2], b"\r\nhello\r\n0\r\n\r\n".to_vec()].concat();
    let most = usize::from(MAX_ANSWER_CHUNK_LINE);
    assert!(decode(Length::Chunked, [&line(most)[..]]).is_ok());
    assert_eq!(decode(Length::Chunked, [&line(most + 1)[..]]), Err(Fault::ChunkLine));
    let endless = [b"0\r\na: ".to_vec(), vec![b'x'; MAX_TRAILERS + 10]].concat();
    assert_eq!(decode(Length::Chunked, [&endless[..]]), Err(Fault::Trailers));
}

#[test]
fn trailers_that_would_say_something_of_the_message_are_dropped() {
    let body = b"0\r\ncontent-length: 5\r\nSet-Cookie: a=b\r\nx-sum: 1\r\n\r\n";
    let (_, trailers, done, _) = decode(Length::Chunked, [&body[..]]).unwrap();
    assert_eq!(trailers.unwrap().keys().collect::<Vec<_>>(), ["x-sum"]);
    assert!(done);
}

#[test]
fn a_connection_may_end_only_where_the_body_does() {
    assert_eq!(Decoder::of_answer(Length::UntilClose).close(), Ok(()));
    assert_eq!(Decoder::of_answer(Length::Empty).close(), Ok(()));
    for length in [Length::Fixed(1), Length::Chunked] {
        assert_eq!(Decoder::of_answer(length).close(), Err(Incomplete));
    }
}

proptest! {
    #[test]
    fn a_head_is_the_same_however_it_is_split(
        bytes in prop::collection::vec(prop::sample::select(b"HTTP/1. 20OK:ab\r\n\r\n".to_vec()), 0..60),
        cut in any::<prop::sample::Index>(),
    ) {
        let bytes = [&b"HTTP/1.1 200 OK\r\n"[..], &bytes].concat();
        let (mut reader, mut buf) = (HeadReader::default(), BytesMut::new());
        let (first, second) = bytes.split_at(cut.index(bytes.len()));
        buf.extend_from_slice(first);
        let early = reader.read(&mut buf, &Method::GET, 1024);
        let late = match early {
            Ok(None) => {
                buf.extend_from_slice(second);
                reader.read(&mut buf, &Method::GET, 1024)
            }
            early => early,
        };
        prop_assert_eq!(format!("{:?}", late), format!("{:?}", read(&bytes)));
    }

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
