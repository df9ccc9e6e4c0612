// xtask: table
//! Requests whose beginning or end two readers may see in different places, and what must become of each.
//!
//! Sources: RFC 9112 §2.2, §3.2, §5, §6, §7.1 and §11.2; RFC 9110 §7.2; the advisories named in failure 4.

/// What must become of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// It is refused with 4xx, the connection is closed, and the service sees nothing whole of it.
    Refused,
    /// It reaches the service as one request, and so does the request behind it.
    Passes,
    /// It reaches the service as one request, and nothing behind it on this connection does.
    Last,
    /// It is refused with 4xx or 501, but its end is beyond doubt: the request behind it passes.
    Declined,
}

use Want::{Declined, Last, Passes, Refused};

/// A name, the bytes, and what must become of them.
pub(crate) type Case = (String, Vec<u8>, Want);

/// What a smuggler hides within a body.
const HIDDEN: &str = "GET /smuggled HTTP/1.1\r\nHost: gate.test\r\n\r\n";

/// Every case.
pub(crate) fn all() -> Vec<Case> {
    [lengths(), codings(), both(), heads(), lines(), hosts(), targets(), chunks(), trailers(), sizes()].concat()
}

/// A POST with these header lines, each with its line end, and this body.
fn post(lines: &str, body: &str) -> Vec<u8> {
    format!("POST /case HTTP/1.1\r\nHost: gate.test\r\n{lines}\r\n{body}").into_bytes()
}

fn case(name: impl Into<String>, bytes: Vec<u8>, want: Want) -> Case {
    (name.into(), bytes, want)
}

/// Content-Length in all forms that somebody reads as a number.
fn lengths() -> Vec<Case> {
    let mut all: Vec<Case> = [
        "+5",
        "-5",
        "-0",
        "0x5",
        "5 5",
        "5,5",
        "5, 5",
        "5, 6",
        ",5",
        "5,",
        "5;",
        "5.0",
        "5e0",
        "\"5\"",
        "",
        "five",
        "٥",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "18446744073709551621",
        "99999999999999999999999999999",
        "4294967301z",
    ]
    .into_iter()
    .map(|length| case(format!("length {length:?}"), post(&format!("Content-Length: {length}\r\n"), "hello"), Refused))
    .collect();
    let fields = [
        ("two unequal lengths", "Content-Length: 5\r\nContent-Length: 6\r\n", Refused),
        ("two unequal lengths, the longer first", "Content-Length: 6\r\nContent-Length: 5\r\n", Refused),
        ("three lengths, the last unequal", "Content-Length: 5\r\nContent-Length: 5\r\nContent-Length: 4\r\n", Refused),
        ("two equal lengths", "Content-Length: 5\r\nContent-Length: 5\r\n", Refused),
        ("two lengths of one number in two spellings", "Content-Length: 5\r\nContent-Length: 05\r\n", Refused),
        ("a length with a leading zero", "Content-Length: 05\r\n", Passes),
        ("a length between tabs", "Content-Length:\t5\t\r\n", Passes),
        ("a length without a blank", "Content-Length:5\r\n", Passes),
        ("a length in capitals", "CONTENT-LENGTH: 5\r\n", Passes),
        ("a length that Connection names", "Content-Length: 5\r\nConnection: content-length\r\n", Passes),
        ("a length that Connection names first", "Connection: Content-Length, x\r\nContent-Length: 5\r\n", Passes),
        ("a second length with an underscore", "Content-Length: 5\r\nContent_Length: 50\r\n", Passes),
        ("a length on a folded line", "Content-Length:\r\n 5\r\n", Refused),
        ("a blank before the colon of a length", "Content-Length : 5\r\n", Refused),
        ("a tab before the colon of a length", "Content-Length\t: 5\r\n", Refused),
        ("a length with a NUL", "Content-Length: 5\0\r\n", Refused),
        ("a length with a form feed", "Content-Length: \x0c5\r\n", Refused),
        ("a length with a vertical tab", "Content-Length: 5\x0b\r\n", Refused),
    ];
    all.extend(fields.map(|(name, lines, want)| case(name, post(lines, "hello"), want)));
    all
}

/// Transfer-Encoding in all forms that somebody reads as chunked.
fn codings() -> Vec<Case> {
    let body = "5\r\nhello\r\n0\r\n\r\n";
    let mut all: Vec<Case> = [
        "xchunked",
        "chunkedx",
        "chunked, chunked",
        "chunked, identity",
        "identity, chunked",
        "gzip, chunked",
        "chunked, gzip",
        "gzip",
        "identity",
        "chunked;q=1",
        "chunked; x",
        "\"chunked\"",
        "'chunked'",
        ",chunked",
        "chunked,",
        "chunked, ",
        ", chunked",
        "chunked chunked",
        "chunked\x0b",
        "\x0bchunked",
        "chunked\x0c",
        "chunked\0",
        "\u{a0}chunked",
        "chunKed\u{17f}",
        "chun\u{212a}ed",
        "",
        "cow",
        "trailers, chunked",
        "chunked/1",
    ]
    .into_iter()
    .map(|coding| case(format!("coding {coding:?}"), post(&format!("Transfer-Encoding: {coding}\r\n"), body), Refused))
    .collect();
    let fields = [
        ("chunked", "Transfer-Encoding: chunked\r\n", Passes),
        ("chunked in capitals", "TRANSFER-ENCODING: CHUNKED\r\n", Passes),
        ("chunked in mixed case", "tRaNsFeR-eNcOdInG: cHuNkEd\r\n", Passes),
        ("chunked behind a tab", "Transfer-Encoding:\tchunked\r\n", Passes),
        ("chunked before a blank", "Transfer-Encoding: chunked \r\n", Passes),
        ("chunked before a tab", "Transfer-Encoding: chunked\t\r\n", Passes),
        ("chunked without a blank", "Transfer-Encoding:chunked\r\n", Passes),
        ("chunked that Connection names", "Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n", Passes),
        ("chunked twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Refused),
        ("chunked, then identity", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", Refused),
        ("identity, then chunked", "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", Refused),
        ("chunked, then an empty line of it", "Transfer-Encoding: chunked\r\nTransfer-Encoding:\r\n", Refused),
        ("chunked on a folded line", "Transfer-Encoding:\r\n chunked\r\n", Refused),
        ("chunked on a line folded by a tab", "Transfer-Encoding:\r\n\tchunked\r\n", Refused),
        ("a coding folded behind chunked", "Transfer-Encoding: chunked\r\n , identity\r\n", Refused),
        ("a field before, folded over chunked", "X-Fold: x\r\n Transfer-Encoding: chunked\r\n", Refused),
        ("a blank before the colon of a coding", "Transfer-Encoding : chunked\r\n", Refused),
        ("a tab before the colon of a coding", "Transfer-Encoding\t: chunked\r\n", Refused),
        ("a blank within the name of a coding", "Transfer Encoding: chunked\r\n", Refused),
        ("a NUL within the name of a coding", "Transfer\0-Encoding: chunked\r\n", Refused),
        ("a coding without a colon", "Transfer-Encoding chunked\r\n", Refused),
        ("a field without a name", ": chunked\r\n", Refused),
        ("a coding behind a lone CR", "X: y\rTransfer-Encoding: chunked\r\n", Refused),
        ("a coding with a high byte in its name", "Transfer-\u{ae}Encoding: chunked\r\n", Refused),
    ];
    all.extend(fields.map(|(name, lines, want)| case(name, post(lines, body), want)));
    let old = "POST /case HTTP/1.0\r\nHost: gate.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    all.push(case("HTTP/1.0 with chunked", old.into(), Refused));
    let kept = "POST /case HTTP/1.0\r\nHost: gate.test\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello";
    all.push(case("HTTP/1.0 with chunked, a length and keep-alive", kept.into(), Refused));
    all.push(case("an underscore in the coding's name", post("Transfer_Encoding: chunked\r\n", ""), Passes));
    // What follows is then the next request, and none.
    all.push(case(
        "an underscore in the coding's name, with chunks",
        post("Transfer_Encoding: chunked\r\n", body),
        Last,
    ));
    all
}

/// Both lengths at once: the RFC leaves open to take the coding (§6.1), and we do not.
fn both() -> Vec<Case> {
    let chunked = format!("0\r\n\r\n{HIDDEN}");
    let length = format!("Content-Length: {}\r\n", chunked.len());
    let whole = "5\r\nhello\r\n0\r\n\r\n";
    let exact = format!("Content-Length: {}\r\n", whole.len());
    let coding = "Transfer-Encoding: chunked\r\n";
    let odd = "Transfer-Encoding: xchunked\r\n";
    vec![
        case("length, then chunked", post(&format!("{exact}{coding}"), whole), Refused),
        case("chunked, then length", post(&format!("{coding}{exact}"), whole), Refused),
        case("chunked between two lengths", post(&format!("{exact}{coding}{exact}"), whole), Refused),
        case(
            "chunked, then a length that is no number",
            post(&format!("{coding}Content-Length: x\r\n"), whole),
            Refused,
        ),
        case("a length, then another coding", post(&format!("{length}{odd}"), &chunked), Refused),
        case("another coding, then a length", post(&format!("{odd}{length}"), &chunked), Refused),
        case(
            "a length, then chunked with a blank in front",
            post(&format!("{length}Transfer-Encoding : chunked\r\n"), &chunked),
            Refused,
        ),
        case(
            "a length, then a folded chunked",
            post(&format!("{length}Transfer-Encoding:\r\n chunked\r\n"), &chunked),
            Refused,
        ),
        case(
            "a length, and chunked with an underscore",
            post(&format!("{length}Transfer_Encoding: chunked\r\n"), &chunked),
            Passes,
        ),
        case(
            "a length, and chunked under a name like it",
            post(&format!("{length}X-Transfer-Encoding: chunked\r\n"), &chunked),
            Passes,
        ),
    ]
}

/// Heads that end, or begin, in an odd way.
fn heads() -> Vec<Case> {
    let get = |lines: &str| format!("GET /case HTTP/1.1\r\nHost: gate.test\r\n{lines}\r\n").into_bytes();
    let hidden = format!("Content-Length: {}\r\n", HIDDEN.len());
    vec![
        case("GET without a body", get(""), Passes),
        case("GET with a body that is a request", [get(&hidden), HIDDEN.into()].concat(), Passes),
        case("POST with a body that is a request", post(&hidden, HIDDEN), Passes),
        case("an empty line before the request", [b"\r\n".to_vec(), get("")].concat(), Passes),
        case("two empty lines before the request", [b"\r\n\r\n".to_vec(), get("")].concat(), Refused),
        case("an LF before the request", [b"\n".to_vec(), get("")].concat(), Refused),
        case("a CR before the request", [b"\r".to_vec(), get("")].concat(), Refused),
        case("a line that ends by an LF alone", get("X: a\n"), Refused),
        case("a first line that ends by an LF alone", b"GET /case HTTP/1.1\nHost: gate.test\r\n\r\n".to_vec(), Refused),
        case("an end by an LF alone", b"GET /case HTTP/1.1\r\nHost: gate.test\r\n\n".to_vec(), Refused),
        case("a length behind an LF alone", get("X: a\nContent-Length: 44\r\n"), Refused),
        case("a folded value of blanks", get("X: a\r\n \r\n"), Refused),
        case("a high byte in a value", get("X: \u{e9}\r\n"), Passes),
        case("a tab in a value", get("X: a\tb\r\n"), Passes),
        case("an empty value", get("X:\r\n"), Passes),
        case("a blank line before the request", [b" \r\n".to_vec(), get("")].concat(), Refused),
        case("a NUL in a value", get("X: a\0b\r\n"), Refused),
        case("a NUL in a name", get("X\0: a\r\n"), Refused),
        case("a lone CR in a value", get("X: a\rContent-Length: 44\r\n"), Refused),
        case("a lone CR at the end of a value", get("X: a\r\r\n"), Refused),
        case("a control character in a value", get("X: a\x01b\r\n"), Refused),
        case("a DEL in a value", get("X: a\x7fb\r\n"), Refused),
        case("a folded value", get("X: a\r\n b\r\n"), Refused),
        case("a value folded by a tab", get("X: a\r\n\tb\r\n"), Refused),
        case("a blank before the first field", b"GET /case HTTP/1.1\r\n Host: gate.test\r\n\r\n".to_vec(), Refused),
        case("a blank before a colon", get("X : a\r\n"), Refused),
        case("a name with brackets", get("X(y): a\r\n"), Refused),
        case("a name with a high byte", get("X\u{e9}: a\r\n"), Refused),
        case("a field without a colon", get("Xa\r\n"), Refused),
        case("Connection that names Host", get("Connection: host\r\n"), Passes),
        case("Connection that names itself", get("Connection: connection\r\n"), Passes),
        case(
            "Connection that names much",
            get("Connection: host, content-length, transfer-encoding, te, via\r\n"),
            Passes,
        ),
        case("Connection that names no token", get("Connection: \"a b\", :, ,,\r\n"), Passes),
    ]
}

/// Request lines.
fn lines() -> Vec<Case> {
    let line = |line: &str| format!("{line}\r\nHost: gate.test\r\n\r\n").into_bytes();
    let refused = [
        "GET /case HTTP/1.1 ",
        "GET  /case HTTP/1.1",
        "GET /case  HTTP/1.1",
        " GET /case HTTP/1.1",
        "GET\t/case\tHTTP/1.1",
        "GET /case",
        "GET",
        "GET /case HTTP/1.2",
        "GET /case HTTP/2.0",
        "GET /case HTTP/0.9",
        "GET /case HTTP/1.1x",
        "GET /case http/1.1",
        "GET /case HTTP/01.1",
        "GET /case HTTP/1.10",
        "GET /case HTTPS/1.1",
        "G\0T /case HTTP/1.1",
        "GET\r/case HTTP/1.1",
        "G(T /case HTTP/1.1",
        "GET /ca\0se HTTP/1.1",
        "GET /ca se HTTP/1.1",
        "GET /ca\x0bse HTTP/1.1",
        "GET /ca\u{e9}se HTTP/1.1",
        "GET /ca\x7fse HTTP/1.1",
        "GET /case#/smuggled HTTP/1.1",
        "GET #/case HTTP/1.1",
        "GET http://gate.test/case#x HTTP/1.1",
        "GET  HTTP/1.1",
        "\u{feff}GET /case HTTP/1.1",
        "GET /case\r HTTP/1.1",
        "PRI * HTTP/2.0",
        "G\u{c9}T /case HTTP/1.1",
        "/case GET HTTP/1.1",
        "GET /case HTTP/1.1, HTTP/1.1",
    ];
    let mut all: Vec<Case> =
        refused.into_iter().map(|text| case(format!("line {text:?}"), line(text), Refused)).collect();
    for text in ["GET /%zz HTTP/1.1", "GET /%00 HTTP/1.1", "GET /ca\\se HTTP/1.1"] {
        all.push(case(format!("line {text:?}"), line(text), Declined));
    }
    all.push(case("a method that nobody knows", line("BREW /case HTTP/1.1"), Passes));
    all.push(case("a method in small letters", line("get /case HTTP/1.1"), Passes));
    all.push(case("CONNECT", line("CONNECT gate.test:443 HTTP/1.1"), Declined));
    all.push(case("CONNECT to a path", line("CONNECT /case HTTP/1.1"), Declined));
    all.push(case("TRACE", line("TRACE /case HTTP/1.1"), Declined));
    all.push(case("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(), Refused));
    all.push(case("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), Refused));
    all
}

/// Host fields, and their absence.
fn hosts() -> Vec<Case> {
    let with = |lines: &str| format!("GET /case HTTP/1.1\r\n{lines}\r\n").into_bytes();
    let refused = [
        ("no host", ""),
        ("two hosts", "Host: gate.test\r\nHost: other.test\r\n"),
        ("two equal hosts", "Host: gate.test\r\nHost: gate.test\r\n"),
        ("an empty host and another", "Host:\r\nHost: gate.test\r\n"),
        ("hosts with a comma", "Host: gate.test, other.test\r\n"),
        ("hosts with a blank", "Host: gate.test other.test\r\n"),
        ("a host with userinfo", "Host: user@gate.test\r\n"),
        ("a host with a password", "Host: user:word@gate.test\r\n"),
        ("a host with a path", "Host: gate.test/admin\r\n"),
        ("a host with a query", "Host: gate.test?x\r\n"),
        ("a host with a fragment", "Host: gate.test#x\r\n"),
        ("a host with a backslash", "Host: gate.test\\x\r\n"),
        ("a host with a scheme", "Host: http://gate.test\r\n"),
        ("a host with a port that is none", "Host: gate.test:x\r\n"),
        ("a host with a port too large", "Host: gate.test:65536\r\n"),
        ("a host with two ports", "Host: gate.test:80:80\r\n"),
        ("a host with a broken bracket", "Host: [::1\r\n"),
        ("a host with a percent sign", "Host: gate%2etest\r\n"),
        ("a host with a high byte", "Host: g\u{e4}te.test\r\n"),
        ("a host with a NUL", "Host: gate\0.test\r\n"),
        ("a folded host", "Host: gate.test\r\n .other\r\n"),
        ("a blank before the colon of a host", "Host : gate.test\r\n"),
    ];
    refused.into_iter().map(|(name, lines)| case(name, with(lines), Refused)).collect()
}

/// Targets in absolute form against the host, and in forms that are none.
fn targets() -> Vec<Case> {
    let to = |target: &str, host: &str| format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes();
    vec![
        case("absolute form, the same host", to("http://gate.test/case", "gate.test"), Passes),
        case("absolute form, the same host in capitals", to("http://GATE.test/case", "gate.test"), Passes),
        case("absolute form, another host", to("http://other.test/case", "gate.test"), Refused),
        case("absolute form, another port", to("http://gate.test:81/case", "gate.test"), Refused),
        case("absolute form, userinfo", to("http://user@gate.test/case", "gate.test"), Refused),
        case("absolute form, userinfo on both sides", to("http://user@gate.test/case", "user@gate.test"), Refused),
        case("absolute form, another scheme", to("ftp://gate.test/case", "gate.test"), Refused),
        case("absolute form, no host", to("http:///case", "gate.test"), Refused),
        case("absolute form without a Host field", b"GET http://gate.test/case HTTP/1.1\r\n\r\n".to_vec(), Refused),
        case("authority form with GET", to("gate.test:80", "gate.test"), Refused),
        case("asterisk form with GET", to("*", "gate.test"), Refused),
        case("no slash", to("case", "gate.test"), Refused),
        case("a question mark alone", to("?case", "gate.test"), Refused),
        case("a backslash", to("\\case", "gate.test"), Refused),
    ]
}

/// Bodies in chunks that end elsewhere for somebody.
fn chunks() -> Vec<Case> {
    let chunked = |body: &str| post("Transfer-Encoding: chunked\r\n", body);
    let long = "x".repeat(20_000);
    let refused = [
        ("a size of 2^64", "10000000000000000\r\nhello\r\n0\r\n\r\n"),
        ("a size of 2^64 + 5", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("a size of many digits", "fffffffffffffffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
        ("a negative size", "-5\r\nhello\r\n0\r\n\r\n"),
        ("a signed size", "+5\r\nhello\r\n0\r\n\r\n"),
        ("a size with 0x", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("a size with an underscore", "0_5\r\nhello\r\n0\r\n\r\n"),
        ("a size with a comma", "5,5\r\nhello\r\n0\r\n\r\n"),
        ("a size that is none", "g\r\nhello\r\n0\r\n\r\n"),
        ("no size", "\r\nhello\r\n0\r\n\r\n"),
        ("a blank before the size", " 5\r\nhello\r\n0\r\n\r\n"),
        ("two sizes", "5 5\r\nhello\r\n0\r\n\r\n"),
        ("a size behind an LF alone", "5\nhello\r\n0\r\n\r\n"),
        ("a size behind a CR alone", "5\rhello\r\n0\r\n\r\n"),
        ("an extension with an LF alone", "5;a\nhello\r\n0\r\n\r\n"),
        ("an extension with a CR alone", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
        ("a chunk longer than its size", "5\r\nhello!\r\n0\r\n\r\n"),
        ("a chunk shorter than its size", "6\r\nhello\r\n0\r\n\r\n"),
        ("a chunk without an end", "5\r\nhello0\r\n\r\n"),
        ("a chunk that ends by an LF alone", "5\r\nhello\n0\r\n\r\n"),
        ("a chunk that ends by a CR alone", "5\r\nhello\r0\r\n\r\n"),
        ("a chunk that ends by any two bytes", "5\r\nhelloXX0\r\n\r\n"),
        ("a last chunk that ends by LF alone", "5\r\nhello\r\n0\n\n"),
        ("an end by LF alone", "5\r\nhello\r\n0\r\n\n"),
        ("a size of 2^63", "8000000000000000\r\nhello\r\n0\r\n\r\n"),
        ("a blank behind the size", "5 \r\nhello\r\n0\r\n\r\n"),
        ("a tab behind the size", "5\t\r\nhello\r\n0\r\n\r\n"),
        ("a blank before an extension", "5 ;a=b\r\nhello\r\n0\r\n\r\n"),
        ("a blank within an extension", "5; a=b\r\nhello\r\n0\r\n\r\n"),
        ("an extension without a name", "5;\r\nhello\r\n0\r\n\r\n"),
        ("an extension that is no token", "5;\"GET /smuggled HTTP/1.1\"\r\nhello\r\n0\r\n\r\n"),
        ("an extension with an open quote", "5;a=\"\r\nhello\r\n0\r\n\r\n"),
        ("an extension with a NUL", "5;a=\0\r\nhello\r\n0\r\n\r\n"),
        ("no size but an extension", ";a=b\r\nhello\r\n0\r\n\r\n"),
        ("a last chunk with a blank", "5\r\nhello\r\n0 \r\n\r\n"),
    ];
    let mut all: Vec<Case> = refused.into_iter().map(|(name, body)| case(name, chunked(body), Refused)).collect();
    all.push(case("an extension of 300 bytes", chunked(&format!("5;{}\r\nhello\r\n0\r\n\r\n", &long[..300])), Refused));
    let many = "1;name=value\r\nx\r\n".repeat(2000);
    all.push(case("2000 extensions", chunked(&format!("{many}0\r\n\r\n")), Refused));
    all.push(case("extensions of 20 kB", chunked(&format!("5;{long}\r\nhello\r\n0\r\n\r\n")), Refused));
    let passes = [
        ("a size with leading zeros", "0000000005\r\nhello\r\n0\r\n\r\n".to_owned()),
        ("a size in capitals", format!("A\r\n0123456789\r\n{:X}\r\n{HIDDEN}\r\n000\r\n\r\n", HIDDEN.len())),
        ("an extension", "5;name=value\r\nhello\r\n0;last\r\n\r\n".to_owned()),
        ("an extension with a request in it", "5;a=\"GET /smuggled HTTP/1.1\"\r\nhello\r\n0\r\n\r\n".to_owned()),
        ("a chunk that is a request", format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len())),
        ("chunks of one byte", "1\r\nh\r\n1\r\ni\r\n0\r\n\r\n".to_owned()),
        ("no chunk but the last", "0\r\n\r\n".to_owned()),
    ];
    all.extend(passes.map(|(name, body)| case(name, chunked(&body), Passes)));
    all
}

/// Trailers that would frame, route or vouch if somebody took them for headers.
fn trailers() -> Vec<Case> {
    let with = |lines: &str| post("Transfer-Encoding: chunked\r\n", &format!("5\r\nhello\r\n0\r\n{lines}\r\n"));
    vec![
        case("a trailer", with("X-Sum: 5\r\n"), Passes),
        case("a trailer that is a length", with("Content-Length: 50\r\n"), Passes),
        case("a trailer that is a coding", with("Transfer-Encoding: identity\r\n"), Passes),
        case("a trailer that is a host", with("Host: other.test\r\n"), Passes),
        case("a trailer that is a request", with("GET /smuggled HTTP/1.1\r\n"), Refused),
        case("a trailer with a blank before its colon", with("X : 5\r\n"), Refused),
        case("a trailer with a NUL", with("X: \0\r\n"), Refused),
        case("a folded trailer", with("X: a\r\n b\r\n"), Refused),
        case("a trailer that ends by an LF alone", with("X: a\n"), Refused),
        case("a trailer with a lone CR", with("X: a\rY: b\r\n"), Refused),
        case("a trailer without a name", with(": a\r\n"), Refused),
        case("a trailer of 20 kB", with(&format!("X: {}\r\n", "a".repeat(20_000))), Refused),
    ]
}

/// What is too long.
fn sizes() -> Vec<Case> {
    let long = "a".repeat(100_000);
    let many = "X-Many: 1\r\n".repeat(150);
    vec![
        case("a method of 100 kB", format!("{long} /case HTTP/1.1\r\nHost: gate.test\r\n\r\n").into_bytes(), Refused),
        case("a target of 100 kB", format!("GET /{long} HTTP/1.1\r\nHost: gate.test\r\n\r\n").into_bytes(), Refused),
        case("a value of 100 kB", post(&format!("X: {long}\r\n"), ""), Refused),
        case("a name of 100 kB", post(&format!("{long}: x\r\n"), ""), Refused),
        case("a host of 100 kB", format!("GET /case HTTP/1.1\r\nHost: {long}\r\n\r\n").into_bytes(), Refused),
        case("150 fields", post(&many, ""), Refused),
        case(
            "a method of 65 bytes",
            format!("{} /case HTTP/1.1\r\nHost: gate.test\r\n\r\n", &long[..65]).into_bytes(),
            Refused,
        ),
        case(
            "a method of 64 bytes",
            format!("{} /case HTTP/1.1\r\nHost: gate.test\r\n\r\n", &long[..64]).into_bytes(),
            Passes,
        ),
    ]
}
