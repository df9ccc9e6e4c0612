//! Heads and bodies of requests.

use proptest::prelude::*;

use crate as pylon_http1;
use crate::classes::control;
use crate::fault::Fault;
use crate::request::{HeadReader, Refusal};

#[path = "oracle.rs"]
mod oracle;

use oracle::{Read, read};

/// Whole, and cut at every place.
fn all_ways(bytes: &[u8]) -> Read {
    let whole = read([bytes]);
    assert_eq!(whole, read(bytes.chunks(1)), "byte by byte: {:?}", String::from_utf8_lossy(bytes));
    for cut in 1..bytes.len().min(400) {
        let (a, b) = bytes.split_at(cut);
        assert_eq!(whole, read([a, b]), "cut at {cut}: {:?}", String::from_utf8_lossy(bytes));
    }
    whole
}

fn refusal(bytes: impl AsRef<[u8]>) -> Option<Refusal> {
    all_ways(bytes.as_ref()).refused.map(|(_, refusal)| refusal)
}

fn fault(bytes: impl AsRef<[u8]>) -> Option<Fault> {
    refusal(bytes).map(|refusal| match refusal {
        Refusal::Fault(fault) => fault,
        other => panic!("{other:?}"),
    })
}

fn get(lines: &str) -> String {
    format!("GET /a HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

fn chunks(body: &str) -> String {
    format!("POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
}

#[test]
fn requests_end_where_their_framing_says() {
    let chunked = chunks("5;a=b;c=\"d e\\\"\"\r\nhello\r\nA\r\n0123456789\r\n000\r\nX-Sum: 5\r\n\r\n");
    let parts = [
        get(""),
        "\r\nPOST /a HTTP/1.1\r\ncontent-length:\t5 \r\n\r\nhello".to_owned(),
        "GET /b HTTP/1.0\r\nX: \u{e9}\t\r\nX-Empty:\r\n\r\n".to_owned(),
        "POST / HTTP/1.1\r\ntransfer-ENCODING:chunkeD\t\r\n\r\n0\r\n\r\n".to_owned(),
        chunked,
        "PUT http://a/?b HTTP/1.1\r\nContent-Length: 00\r\n\r\n".to_owned(),
    ];
    let Read { ends, refused, .. } = all_ways(parts.concat().as_bytes());
    assert_eq!(refused, None);
    let mut at = 0;
    let wanted: Vec<usize> = (parts.iter())
        .map(|part| {
            at += part.len();
            at
        })
        .collect();
    assert_eq!(ends, wanted);
}

#[test]
fn a_request_for_another_protocol_is_told_apart() {
    let upgrade = |bytes: &str| match &read([bytes.as_bytes()]).upgrades[..] {
        [upgrade] => *upgrade,
        other => panic!("{bytes:?}: {other:?}"),
    };
    assert!(upgrade(&get("Connection: upgrade\r\nUPGRADE: websocket\r\n")));
    assert!(upgrade("POST / HTTP/1.1\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nhi"));
    assert!(!upgrade(&get("X-Upgrade: websocket\r\nConnection: upgrade\r\n")));
    assert!(!upgrade("GET / HTTP/1.0\r\nUpgrade: websocket\r\n\r\n"), "HTTP/1.0 knows no upgrade");
}

#[test]
fn request_lines_have_one_form() {
    use Fault::{Fragment, LeadingLines, Method, MethodTooLong, RequestLine, Target, TargetTooLong, Version};
    for (line, wanted) in [
        ("GET /a HTTP/1.1 ", RequestLine),
        ("GET  /a HTTP/1.1", RequestLine),
        ("GET /a  HTTP/1.1", RequestLine),
        (" GET /a HTTP/1.1", RequestLine),
        ("GET /a", RequestLine),
        ("GET", RequestLine),
        ("GET\t/a HTTP/1.1", RequestLine),
        ("GET /a\tHTTP/1.1", RequestLine),
        ("G\0T /a HTTP/1.1", Method),
        ("G\u{c9}T /a HTTP/1.1", Method),
        ("G(T /a HTTP/1.1", Method),
        ("GET /a#b HTTP/1.1", Fragment),
        ("GET /\u{e9} HTTP/1.1", Target),
        ("GET /\0 HTTP/1.1", Target),
        ("GET /\x7f HTTP/1.1", Target),
        ("GET /a HTTP/1.2", Version),
        ("GET /a HTTP/2.0", Version),
        ("GET /a http/1.1", Version),
        ("GET /a HTTP/1.10", Version),
        ("GET /a HTTP/1.1x", Version),
        ("PRI * HTTP/2.0", Version),
        ("\r\n\r\nGET /a HTTP/1.1", LeadingLines),
        ("\nGET /a HTTP/1.1", LeadingLines),
    ] {
        assert_eq!(fault(format!("{line}\r\nHost: a\r\n\r\n")), Some(wanted), "{line:?}");
    }
    for (length, wanted) in [(64, None), (65, Some(MethodTooLong))] {
        assert_eq!(fault(format!("{} / HTTP/1.1\r\n\r\n", "M".repeat(length))), wanted);
    }
    for (length, wanted) in [(65_534, None), (65_535, Some(TargetTooLong))] {
        assert_eq!(fault(format!("GET {} HTTP/1.1\r\n\r\n", "/".repeat(length))), wanted);
    }
}

#[test]
fn fields_have_one_form() {
    use Fault::{BareCr, BareLf, BlankBeforeColon, Control, EmptyName, Fold, Name, NoColon};
    for (lines, wanted) in [
        ("X: a\n", BareLf),
        ("X: a\n\r\n", BareLf),
        ("X\n: a\r\n", NoColon),
        ("X: a\rb\r\n", BareCr),
        ("X: a\r\r\n", BareCr),
        ("\rX: a\r\n", BareCr),
        ("\n", BareLf),
        ("X: a\r\n b\r\n", Fold),
        ("X: a\r\n\tb\r\n", Fold),
        ("X : a\r\n", BlankBeforeColon),
        ("X\t: a\r\n", BlankBeforeColon),
        ("X y: a\r\n", BlankBeforeColon),
        ("Xa\r\n", NoColon),
        (": a\r\n", EmptyName),
        ("X(y): a\r\n", Name),
        ("X\u{e9}: a\r\n", Name),
        ("X\0: a\r\n", Name),
        ("X: a\0\r\n", Control),
        ("X: \x01\r\n", Control),
        ("X: aaaaaaaaaaaaaaaa\x1f\r\n", Control),
        ("X: aaaaaaaaaaaaaaaa\x7f\r\n", Control),
    ] {
        assert_eq!(fault(get(lines)), Some(wanted), "{lines:?}");
        assert_eq!(fault(chunks(&format!("0\r\n{lines}\r\n"))), Some(wanted), "as a trailer: {lines:?}");
    }
    assert_eq!(fault(get("X: \u{e9}\t\u{80}\r\n")), None);
    assert_eq!(fault(" Host: a\r\n\r\n".replacen(' ', "GET /a HTTP/1.1\r\n ", 1)), Some(Fold));
}

#[test]
fn a_body_has_one_length() {
    use Fault::{Coding, Codings, Length, LengthAndCoding, Lengths, OldCoding, TooLong};
    let (length, coding) = ("Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n");
    for value in ["+5", "-5", "0x5", "5 5", "5,5", "5, 5", ",5", "5.0", "\"5\"", "", " ", "five", "5\0", "\u{665}"] {
        assert_eq!(fault(get(&format!("Content-Length: {value}\r\n"))), Some(Length), "{value:?}");
    }
    for value in ["9223372036854775808", "18446744073709551621", "99999999999999999999999"] {
        assert_eq!(fault(get(&format!("Content-Length: {value}\r\n"))), Some(TooLong), "{value}");
    }
    for value in [
        "xchunked",
        "chunkedx",
        "chunked, chunked",
        "identity, chunked",
        "gzip",
        "chunked;q=1",
        "\"chunked\"",
        ",chunked",
        "chunked,",
        "",
        "chunked\0",
        "chunke",
        "chunk ed",
        "chun\u{212a}ed",
        "\x0bchunked",
    ] {
        assert_eq!(fault(get(&format!("Transfer-Encoding: {value}\r\n"))), Some(Coding), "{value:?}");
    }
    for (lines, wanted) in [
        (format!("{length}{length}"), Lengths),
        (format!("{length}Content-Length: 6\r\n"), Lengths),
        (format!("{length}{coding}"), LengthAndCoding),
        (format!("{coding}{length}"), LengthAndCoding),
        (format!("{coding}{coding}"), Codings),
        (format!("{coding}transfer-encoding:\r\n"), Codings),
        ("Content-Length: 5\n\r\n".to_owned(), Fault::BareLf),
    ] {
        assert_eq!(fault(get(&lines)), Some(wanted), "{lines:?}");
    }
    assert_eq!(fault(format!("POST /a HTTP/1.0\r\n{coding}\r\n")), Some(OldCoding));
    assert_eq!(fault(get("Transfer_Encoding: x\r\nContent_Length: x\r\nX-Content-Length: x\r\n")), None);
}

#[test]
fn chunks_have_one_form() {
    use Fault::{BareCr, BareLf, ChunkBlank, ChunkEnd, ChunkLine, ChunkSize, Extension, Extensions, TooLong, Trailers};
    for (body, wanted) in [
        ("", None),
        ("\r\n", Some(ChunkSize)),
        ("g\r\n", Some(ChunkSize)),
        ("-5\r\n", Some(ChunkSize)),
        ("+5\r\n", Some(ChunkSize)),
        ("0x5\r\n", Some(ChunkSize)),
        (" 5\r\n", Some(ChunkSize)),
        (";a\r\n", Some(ChunkSize)),
        ("5 \r\nhello\r\n", Some(ChunkBlank)),
        ("5\t;a\r\n", Some(ChunkBlank)),
        ("5; a\r\n", Some(ChunkBlank)),
        ("5;a =b\r\n", Some(ChunkBlank)),
        ("5;\r\n", Some(Extension)),
        ("5;=b\r\n", Some(Extension)),
        ("5;a=\r\n", Some(Extension)),
        ("5;a=\"b\r\n", Some(Extension)),
        ("5;a=\"b\"c\r\n", Some(Extension)),
        ("5;\"a\"\r\n", Some(Extension)),
        ("5;a=b=c\r\n", Some(Extension)),
        ("5;a=\0\r\n", Some(Extension)),
        ("8000000000000000\r\n", Some(TooLong)),
        ("10000000000000005\r\n", Some(TooLong)),
        ("5\nhello\r\n", Some(BareLf)),
        ("5;a\n", Some(BareLf)),
        ("5\rhello", Some(BareCr)),
        ("5;a\rb\r\n", Some(BareCr)),
        ("5\r\nhello!\r\n", Some(ChunkEnd)),
        ("6\r\nhello\r\n0\r\n\r\n", Some(ChunkEnd)),
        ("5\r\nhello\n", Some(ChunkEnd)),
        ("5\r\nhello\r0", Some(ChunkEnd)),
        ("5\r\nhello0\r\n", Some(ChunkEnd)),
        ("0\r\n\n", Some(BareLf)),
        ("0\n\n", Some(BareLf)),
        ("0\r\nX: a\r\n\n", Some(BareLf)),
        ("7fffffffffffffff\r\n", None),
    ] {
        assert_eq!(fault(chunks(body)), wanted, "{body:?}");
    }
    let line = |length: usize| chunks(&format!("1;{}\r\nx\r\n", "a".repeat(length - 2)));
    assert_eq!((fault(line(256)), fault(line(257))), (None, Some(ChunkLine)));
    let many = |count: usize| chunks(&format!("1;{}\r\nx\r\n", "a".repeat(128)).repeat(count));
    assert_eq!((fault(many(128)), fault(many(129))), (None, Some(Extensions)));
    let long = |length: usize| chunks(&format!("0\r\nX: {}\r\n\r\n", "a".repeat(length - 7)));
    assert_eq!((fault(long(16 * 1024)), fault(long(16 * 1024 + 1))), (None, Some(Trailers)));
}

#[test]
fn a_fault_stands_where_it_is_and_requests_before_it_do_not_mind() {
    let bytes = [get(""), get("X : y\r\n")].concat();
    let Read { ends, refused, .. } = all_ways(bytes.as_bytes());
    assert_eq!(ends, [get("").len()]);
    assert_eq!(refused, Some((bytes.find(" :").unwrap(), Refusal::Fault(Fault::BlankBeforeColon))));
}

#[test]
fn every_fault_has_words_and_a_code_of_a_client_error() {
    for (index, fault) in Fault::ALL.iter().enumerate() {
        assert!((400..500).contains(&fault.reason().status), "{fault:?}");
        assert!(Fault::ALL.iter().skip(index + 1).all(|other| other.what() != fault.what()), "{fault:?}");
    }
}

#[test]
fn a_head_has_a_longest_length_and_a_hundred_fields_at_the_most() {
    let look = |text: &str, limit: usize| {
        let mut buf = bytes::BytesMut::from(text.as_bytes());
        HeadReader::default().read(&mut buf, limit).map(|head| head.is_some())
    };
    let whole = get("X: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n");
    assert_eq!(look(&whole, whole.len()), Ok(true));
    assert_eq!(look(&whole, whole.len() - 1), Err(Refusal::TooLarge));
    assert_eq!(look(&whole[..40], 41), Ok(false));
    assert_eq!(look(&whole[..40], 40), Err(Refusal::TooLarge), "no byte more would be fine");
    let target = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(60));
    assert_eq!(look(&target, 50), Err(Refusal::TargetTooLarge));
    assert_eq!(look(&target[..50], 50), Err(Refusal::TargetTooLarge));
    let fields = |count: usize| format!("GET /a HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(count));
    assert_eq!((refusal(fields(100)), refusal(fields(101))), (None, Some(Refusal::TooLarge)));
    let trailers = |count: usize| chunks(&format!("0\r\n{}\r\n", "X: y\r\n".repeat(count)));
    assert_eq!((fault(trailers(100)), fault(trailers(101))), (None, Some(Fault::ManyTrailers)));
}

#[test]
fn values_share_the_memory_that_they_were_read_into() {
    let text = "GET /a?b HTTP/1.1\r\nHost: \t a b \r\nX-Other:\r\nx-OTHER: c\r\n\r\nbehind";
    let mut buf = bytes::BytesMut::from(text.as_bytes());
    let range = buf.as_ptr_range();
    let head = HeadReader::default().read(&mut buf, 1024).unwrap().unwrap();
    let headers = head.request.headers();
    assert_eq!(headers["host"], "a b");
    assert!(range.contains(&headers["host"].as_bytes().as_ptr()));
    let others: Vec<_> = headers.get_all("x-other").iter().collect();
    assert_eq!(others, ["", "c"]);
    assert_eq!((head.request.uri().path(), &buf[..]), ("/a", &b"behind"[..]));
}

#[test]
fn a_connection_is_kept_by_the_rules_of_its_version() {
    let keeps = |version: &str, fields: &str| {
        let mut buf = bytes::BytesMut::from(format!("GET / HTTP/{version}\r\n{fields}\r\n").as_bytes());
        HeadReader::default().read(&mut buf, 1024).unwrap().unwrap().keep_alive
    };
    assert!(keeps("1.1", "") && keeps("1.1", "connection: x\r\n") && keeps("1.0", "connection: Keep-Alive\r\n"));
    assert!(!keeps("1.0", "") && !keeps("1.1", "connection: x, Close\r\n"));
    assert!(!keeps("1.1", "connection: keep-alive\r\nconnection: close\r\n"));
}

/// Five good requests.
fn five() -> Vec<u8> {
    let chunked = chunks("5;a=b\r\nhello\r\n0\r\nX-Sum: 5\r\n\r\n");
    let known = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    let upgrade = get("Connection: upgrade\r\nUpgrade: websocket\r\n");
    [&get("X: y\r\n"), known, &chunked, &upgrade, &get("")].concat().into_bytes()
}

#[test]
fn a_target_that_is_no_uri_is_refused_once_its_head_is_whole() {
    let bytes = [get(""), "GET [ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), get("")].concat();
    let Read { ends, refused, .. } = all_ways(bytes.as_bytes());
    assert_eq!(ends, [get("").len()]);
    assert_eq!(refused, Some((bytes.len() - get("").len(), Refusal::Uri)));
    assert_eq!(oracle::check(bytes.as_bytes()), 1);
}

#[test]
fn hyper_sees_all_that_pass() {
    assert_eq!(oracle::check(&five()), 5);
}

/// Pieces of which requests are made, right and wrong.
const PIECES: [&str; 40] = [
    "GET",
    "POST",
    " ",
    "  ",
    "\t",
    "/",
    "/a?b#c",
    "HTTP/1.1",
    "HTTP/1.0",
    "HTTP/2.0",
    "\r\n",
    "\r\n\r\n",
    "\n",
    "\r",
    "Host: a",
    "X",
    ":",
    "Content-Length",
    "Content-Length: 5",
    "Content-Length: 5, 5",
    "Transfer-Encoding",
    "Transfer-Encoding: chunked",
    "chunked",
    "Upgrade: websocket",
    "5",
    "0",
    "0\r\n\r\n",
    "5\r\nhello\r\n",
    "hello",
    ";a=b",
    ";a=\"b\"",
    "\0",
    "\u{7f}",
    "\u{e9}",
    "GET / HTTP/1.1\r\n",
    "POST /a HTTP/1.1\r\nHost: a\r\n",
    "Content-Length: 5\r\n\r\nhello",
    "Transfer-Encoding: chunked\r\n\r\n",
    "X-Sum: 5\r\n",
    "ffffffffffffffff",
];

proptest! {
    #[test]
    fn it_does_not_matter_how_the_bytes_are_cut(
        picks in prop::collection::vec(0..PIECES.len(), 0..24),
        cuts in prop::collection::vec(0_usize..200, 0..6),
    ) {
        let bytes: Vec<u8> = picks.iter().flat_map(|pick| PIECES[*pick].bytes()).collect();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let whole = read([&bytes[..]]);
        prop_assert_eq!(&whole, &read(bytes.chunks(1)));
        prop_assert_eq!(&whole, &read(cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]])));
    }

    #[test]
    fn hyper_never_sees_another_request_than_ours(picks in prop::collection::vec(0..PIECES.len(), 0..24)) {
        let bytes: Vec<u8> = picks.iter().flat_map(|pick| PIECES[*pick].bytes()).collect();
        oracle::check(&bytes);
    }

    #[test]
    fn good_requests_with_one_byte_changed_mean_the_same_to_hyper(at in 0..400_usize, byte: u8, insert: bool) {
        let mut bytes = five();
        let at = at.min(bytes.len() - 1);
        if insert {
            bytes.insert(at, byte);
        } else {
            bytes[at] = byte;
        }
        oracle::check(&bytes);
    }

    #[test]
    fn control_bytes_are_found_as_one_by_one(bytes in prop::collection::vec(prop_oneof![8 => 0x20..=255_u8, 1 => 0..=255_u8], 0..64)) {
        prop_assert_eq!(control(&bytes), bytes.iter().position(u8::is_ascii_control));
    }
}
