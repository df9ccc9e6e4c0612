// xtask: table
//! A thousand odd requests: a few good ones, changed in one place each, by tables.

/// One of them.
#[derive(Debug, Clone)]
pub(crate) struct Odd {
    /// The table that it comes from.
    pub(crate) family: &'static str,
    /// What was changed.
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// All of them, in the same order each time.
pub(crate) fn all() -> Vec<Odd> {
    let mut all = Vec::new();
    for (family, made) in [
        ("method", methods()),
        ("target", targets()),
        ("version", versions()),
        ("request line", lines()),
        ("host", hosts()),
        ("field", fields()),
        ("length", lengths()),
        ("coding", codings()),
        ("length and coding", both()),
        ("chunk", chunks()),
        ("trailer", trailers()),
        ("line end", line_ends()),
        ("byte", bytes()),
        ("pipeline", pipelines()),
        ("hop by hop", hops()),
    ] {
        all.extend(made.into_iter().map(|(name, bytes)| Odd { family, name, bytes }));
    }
    all
}

type Made = Vec<(String, Vec<u8>)>;

const GET: &str = "GET /case HTTP/1.1\r\nHost: gate.test\r\nX: y\r\n\r\n";
const KNOWN: &str = "POST /case HTTP/1.1\r\nHost: gate.test\r\nContent-Length: 5\r\n\r\nhello";
const CHUNKED: &str =
    "POST /case HTTP/1.1\r\nHost: gate.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";

/// `from` changed to each of `tos` within each of `bases`.
fn changed(bases: &[&str], from: &str, tos: &[&str]) -> Made {
    let mut made = Vec::new();
    for to in tos {
        for base in bases {
            assert!(base.contains(from), "{from:?} in {base:?}");
            made.push((format!("{} with {to:?}", kind(base)), base.replacen(from, to, 1).into_bytes()));
        }
    }
    made
}

fn kind(base: &str) -> &'static str {
    match base {
        GET => "GET",
        KNOWN => "POST",
        _ => "POST in chunks",
    }
}

fn methods() -> Made {
    let long = ["M".repeat(64), "M".repeat(65), "M".repeat(1000), "M".repeat(20_000)];
    let mut made = changed(&[GET], "GET", &long.each_ref().map(String::as_str));
    for one in &mut made {
        one.0 =
            format!("GET with a method of {} bytes", one.1.iter().position(|byte| *byte == b' ').unwrap_or_default());
    }
    made.extend(changed(
        &[GET],
        "GET",
        &[
            "get",
            "Get",
            "BREW",
            "M-SEARCH",
            "PATCH",
            "OPTIONS",
            "DELETE",
            "TRACE",
            "CONNECT",
            "PRI",
            "G",
            "GET1",
            "1",
            "!#$%&'*+-.^_`|~",
            "G\0T",
            "G(T",
            "G/T",
            "G:T",
            "G\u{e9}T",
            "G\u{7f}T",
            "\"GET\"",
            "GET,",
            "<GET>",
            "G\tT",
            "",
        ],
    ));
    made.extend(changed(&[KNOWN, CHUNKED], "POST", &["GET", "PUT", "BREW", "OPTIONS", "DELETE", "TRACE", "CONNECT"]));
    made
}

fn targets() -> Made {
    let mut made = changed(
        &[GET],
        "/case",
        &[
            "/",
            "//",
            "//case",
            "/case/",
            "/case?",
            "/case??",
            "/case?a=b&c",
            "/case?a[]=1",
            "/case?a=%zz",
            "/%zz",
            "/%",
            "/%4",
            "/%00",
            "/%2e%2e/case",
            "/%2f",
            "/../case",
            "/a/../case",
            "/a/./case",
            "/..",
            "/.",
            "/case#",
            "/case#x",
            "/case?#x",
            "#",
            "/ca\\se",
            "\\case",
            "/ca<se>",
            "/ca\"se",
            "/ca{se}",
            "/ca|se",
            "/ca^se",
            "/ca`se",
            "/ca;se",
            "/ca:se",
            "/ca@se",
            "/ca,se",
            "/ca'se",
            "/ca(se)",
            "/ca*se",
            "/ca!se",
            "/ca$se",
            "/ca~se",
            "/\u{e9}",
            "/case?\u{e9}",
            "/ca\tse",
            "/ca\x0bse",
            "/ca\0se",
            "/ca\x7fse",
            "/ca\x1bse",
            "case",
            "?case",
            "*",
            "gate.test:80",
            "gate.test",
            ":80",
            "http://gate.test/case",
            "http://gate.test",
            "http://gate.test?x",
            "http://gate.test/",
            "HTTP://gate.test/case",
            "http://GATE.test/case",
            "http://gate.test:80/case",
            "http://other.test/case",
            "http://gate.test:81/case",
            "http://user@gate.test/case",
            "http:///case",
            "http:/case",
            "http:case",
            "http://",
            "https://gate.test/case",
            "ftp://gate.test/case",
            "ws://gate.test/case",
            "javascript:case",
            "http://gate.test/case#x",
            "http://[::1]/case",
            "http://gate.test/../case",
            "http://gate.test\\@other.test/",
            "http://gate.test, other.test/case",
        ],
    );
    for length in [1_000, 7_000, 15_000, 30_000, 60_000, 70_000] {
        let target = format!("/{}", "a".repeat(length));
        made.push((format!("GET with a target of {length} bytes"), GET.replacen("/case", &target, 1).into_bytes()));
    }
    made
}

fn versions() -> Made {
    changed(
        &[GET, KNOWN],
        "HTTP/1.1",
        &[
            "HTTP/1.0",
            "HTTP/1.2",
            "HTTP/1.9",
            "HTTP/2.0",
            "HTTP/2",
            "HTTP/3.0",
            "HTTP/0.9",
            "HTTP/1",
            "HTTP/1.",
            "HTTP/.1",
            "HTTP/1.10",
            "HTTP/1.01",
            "HTTP/01.1",
            "HTTP/11.1",
            "HTTP/1.1.1",
            "HTTP/1,1",
            "HTTP 1.1",
            "http/1.1",
            "Http/1.1",
            "HTTPS/1.1",
            "HTTP/1.1x",
            "xHTTP/1.1",
            "HTTP/1.x",
            "HTTP/x.1",
            "HTTP/-1.1",
            "HTTP/+1.1",
            "HTTP\\1.1",
            "HTTP/ 1.1",
            "HTTP/1. 1",
            "ICY/1.1",
            "SIP/2.0",
            "HTTP/1.1\0",
            "HTTP/\u{661}.1",
            "",
        ],
    )
}

fn lines() -> Made {
    let mut made = Vec::new();
    for base in [GET, KNOWN] {
        let (line, rest) = base.split_once("\r\n").unwrap_or_default();
        let method = line.split(' ').next().unwrap_or_default();
        for odd in [
            format!(" {line}"),
            format!("\t{line}"),
            format!("{line} "),
            format!("{line}\t"),
            format!("{line} x"),
            line.replacen(' ', "  ", 1),
            line.replacen(' ', "\t", 1),
            line.replacen(' ', " \t", 1),
            line.replacen(' ', "\x0b", 1),
            line.replacen(' ', "\x0c", 1),
            line.replacen(' ', "\r", 1),
            line.replacen(' ', "", 1),
            line.replace(" HTTP", "  HTTP"),
            line.replace(" HTTP", "\tHTTP"),
            line.replace(" HTTP", "\x0bHTTP"),
            line.replace(" HTTP", "\rHTTP"),
            line.replace(" HTTP", " /x HTTP"),
            line.replace(" HTTP", "%20HTTP"),
            line.replace(" HTTP", "HTTP"),
            line.replace(" /case", ""),
            line.replace("/case ", " "),
            line.replace(' ', "\u{a0}"),
            format!("{method} /case"),
            format!("{method} /case "),
            method.to_owned(),
            format!("{method} "),
            format!("\r\n{line}"),
            format!("\r\n\r\n{line}"),
            format!("\r\n\r\n\r\n\r\n{line}"),
            format!("\n{line}"),
            format!("\n\n{line}"),
            format!("\r{line}"),
            format!("\0{line}"),
            format!("\u{feff}{line}"),
            format!("x\r\n{line}"),
            format!(" \r\n{line}"),
            line.to_lowercase(),
        ] {
            made.push((format!("{} with the line {odd:?}", kind(base)), format!("{odd}\r\n{rest}").into_bytes()));
        }
    }
    made
}

fn hosts() -> Made {
    let mut made = Vec::new();
    for host in [
        "",
        " ",
        "gate.test:80",
        "gate.test:",
        "gate.test:0",
        "gate.test:65535",
        "gate.test:65536",
        "gate.test:x",
        "gate.test:80:80",
        "gate.test:+80",
        "gate.test: 80",
        "GATE.test",
        "gate.test.",
        ".gate.test",
        "gate..test",
        ".",
        "-",
        "gate_test",
        "gate.test, other.test",
        "gate.test other.test",
        "gate.test\tother.test",
        "gate.test/",
        "gate.test/x",
        "gate.test?x",
        "gate.test#x",
        "gate.test\\x",
        "user@gate.test",
        "user:word@gate.test",
        "@gate.test",
        "http://gate.test",
        "[::1]",
        "[::1]:80",
        "[::1",
        "::1",
        "[::1]x",
        "[::1%25eth0]",
        "[v1.x]",
        "127.0.0.1",
        "0x7f.1",
        "2130706433",
        "g%61te.test",
        "gate%00.test",
        "gate\0.test",
        "g\u{e4}te.test",
        "xn--gte-test",
        "*",
        "gate.test;x",
        "gate.test'",
        "\"gate.test\"",
        "<gate.test>",
        "${x}",
        "{{x}}",
        "gate.test\x0b",
        "gate.test\x7f",
        "a,b",
    ] {
        made.push((format!("GET with the host {host:?}"), GET.replacen("gate.test", host, 1).into_bytes()));
    }
    let get = |lines: &str, version: &str| format!("GET /case HTTP/{version}\r\n{lines}\r\n").into_bytes();
    for lines in [
        "",
        "Host: gate.test\r\nHost: gate.test\r\n",
        "Host: gate.test\r\nHost: other.test\r\n",
        "Host: gate.test\r\nhost: other.test\r\n",
        "Host:\r\nHost: gate.test\r\n",
        "Host: gate.test\r\nX: y\r\nHost: other.test\r\n",
        "host: gate.test\r\n",
        "HOST:gate.test\r\n",
        "Host : gate.test\r\n",
        "Host\t: gate.test\r\n",
        " Host: gate.test\r\n",
        "Host: gate.test\r\n .other\r\n",
        "Host: gate.test\r\nX-Forwarded-Host: other.test\r\n",
        "Host: gate.test\r\nHost : other.test\r\n",
    ] {
        for version in ["1.1", "1.0"] {
            made.push((format!("GET of HTTP/{version} with {lines:?}"), get(lines, version)));
        }
    }
    made
}

fn fields() -> Made {
    let mut made = Vec::new();
    let long = "a".repeat(9_000);
    for line in [
        "X: a\r\n",
        "X:a\r\n",
        "X:\r\n",
        "X: \r\n",
        "X:\t\r\n",
        "X: a \r\n",
        "X: a\t\r\n",
        "X:  a\r\n",
        "X : a\r\n",
        "X\t: a\r\n",
        "X  : a\r\n",
        " X: a\r\n",
        "\tX: a\r\n",
        "X a: b\r\n",
        "X\r\n",
        "X a\r\n",
        ": a\r\n",
        ":\r\n",
        " : a\r\n",
        "X: a\r\n b\r\n",
        "X: a\r\n\tb\r\n",
        "X: a\r\n \r\n",
        "X:\r\n a\r\n",
        "X: a\r\n   \t b\r\n",
        "X(y): a\r\n",
        "X[y]: a\r\n",
        "X\"y\": a\r\n",
        "X/y: a\r\n",
        "X@y: a\r\n",
        "X=y: a\r\n",
        "X?y: a\r\n",
        "X{y}: a\r\n",
        "X<y>: a\r\n",
        "X\\y: a\r\n",
        "X,y: a\r\n",
        "X;y: a\r\n",
        "X_y: a\r\n",
        "X.y: a\r\n",
        "X!#$%&'*+-.^_`|~: a\r\n",
        "X\0: a\r\n",
        "X\x0b: a\r\n",
        "X\x7f: a\r\n",
        "X\u{e9}: a\r\n",
        "X: \0\r\n",
        "X: a\0b\r\n",
        "X: \x01\r\n",
        "X: a\x07b\r\n",
        "X: a\x08b\r\n",
        "X: a\x0bb\r\n",
        "X: a\x0cb\r\n",
        "X: a\x1bb\r\n",
        "X: a\x1fb\r\n",
        "X: a\x7fb\r\n",
        "X: \u{e9}\r\n",
        "X: a\tb\r\n",
        "X: \"\r\n",
        "X: a:b\r\n",
        "X: a\rb\r\n",
        "X: a\nb\r\n",
        "X: a\r\r\n",
        "X: a\n\r\n",
        "X: a\r\n\r",
        "\rX: a\r\n",
        "GET /smuggled HTTP/1.1\r\n",
        "X: a\r\nX: b\r\n",
        "1: a\r\n",
        "-: a\r\n",
        "Cookie: a=b; c\r\n",
        "Cookie: a\r\nCookie: b\r\n",
        "Expect: 100-continue\r\n",
        "Expect: other\r\n",
        "Date: x\r\n",
    ] {
        for base in [GET, KNOWN] {
            let bytes = base.replacen("Host: gate.test\r\n", &format!("Host: gate.test\r\n{line}"), 1).into_bytes();
            made.push((format!("{} with {line:?}", kind(base)), bytes));
        }
    }
    for (name, lines) in [
        ("a value of 9 kB", format!("X: {long}\r\n")),
        ("a name of 9 kB", format!("{long}: x\r\n")),
        ("nine values of 9 kB", format!("X: {long}\r\n").repeat(9)),
        ("90 fields", "X: y\r\n".repeat(90)),
        ("120 fields", "X: y\r\n".repeat(120)),
    ] {
        made.push((format!("GET with {name}"), GET.replacen("X: y\r\n", &lines, 1).into_bytes()));
    }
    made
}

fn post(lines: &str, body: &str, version: &str) -> Vec<u8> {
    format!("POST /case HTTP/{version}\r\nHost: gate.test\r\n{lines}\r\n{body}").into_bytes()
}

fn lengths() -> Made {
    let mut made = Vec::new();
    for value in [
        "5",
        "05",
        "0005",
        " 5",
        "\t5",
        "5 ",
        "5\t",
        "+5",
        "-5",
        "-0",
        "--5",
        "0x5",
        "5h",
        "5.0",
        "5e0",
        "5,5",
        "5, 5",
        "5,6",
        ",5",
        "5,",
        "5;",
        "5 5",
        "\"5\"",
        "'5'",
        "(5)",
        "five",
        "",
        " ",
        "\u{665}",
        "5\0",
        "\x0b5",
        "5\x0b",
        "\x0c5",
        "5\x7f",
        "0",
        "00",
        "4",
        "6",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "18446744073709551621",
        "99999999999999999999999",
        "4294967301",
        "1_0",
        "0b101",
        "5\r\n ",
        "\r\n 5",
    ] {
        made.push((
            format!("POST with the length {value:?}"),
            post(&format!("Content-Length: {value}\r\n"), "hello", "1.1"),
        ));
    }
    for lines in [
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 6\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 05\r\n",
        "Content-Length: 5\r\nContent-Length:\r\n",
        "Content-Length:\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: x\r\n",
        "Content-Length: 0\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\ncontent-length: 5\r\n",
        "Content-Length: 5\r\nX: y\r\nContent-Length: 0\r\n",
        "CONTENT-LENGTH: 5\r\n",
        "Content-Length : 5\r\n",
        "Content-Length\t: 5\r\n",
        " Content-Length: 5\r\n",
        "Content-Length 5\r\n",
        "Content_Length: 5\r\n",
        "Content-Length: 5\r\nContent_Length: 50\r\n",
        "Content Length: 5\r\n",
        "Content-Length\0: 5\r\n",
        "Content-\u{e9}Length: 5\r\n",
        "X: y\nContent-Length: 5\r\n",
        "X: y\rContent-Length: 5\r\n",
        "",
    ] {
        for version in ["1.1", "1.0"] {
            made.push((format!("POST of HTTP/{version} with {lines:?}"), post(lines, "hello", version)));
        }
    }
    made
}

fn codings() -> Made {
    let body = "5\r\nhello\r\n0\r\n\r\n";
    let mut made = Vec::new();
    for value in [
        "chunked",
        "CHUNKED",
        "Chunked",
        "cHuNkEd",
        " chunked",
        "\tchunked",
        "chunked ",
        "chunked\t",
        "  chunked  ",
        "xchunked",
        "chunkedx",
        "chunke",
        "chunked chunked",
        "chunked, chunked",
        "chunked,chunked",
        "chunked, identity",
        "identity, chunked",
        "identity",
        "gzip",
        "gzip, chunked",
        "chunked, gzip",
        "deflate, chunked",
        "compress",
        "chunked;q=1",
        "chunked; x",
        "chunked;",
        "\"chunked\"",
        "'chunked'",
        ",chunked",
        "chunked,",
        ", chunked",
        "chunked, ",
        ",,chunked",
        "",
        " ",
        "cow",
        "trailers, chunked",
        "chunked/1",
        "chunked\0",
        "chunked\x0b",
        "\x0bchunked",
        "\x0cchunked",
        "chunked\x0c",
        "chunked\x7f",
        "\u{a0}chunked",
        "chunKed\u{17f}",
        "chun\u{212a}ed",
        "x",
        "chunked\r\n ",
        "\r\n chunked",
        "\r\n\tchunked",
        "identity\r\n , chunked",
    ] {
        made.push((
            format!("POST with the coding {value:?}"),
            post(&format!("Transfer-Encoding: {value}\r\n"), body, "1.1"),
        ));
    }
    for lines in [
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding:\r\n",
        "Transfer-Encoding:\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nX: y\r\ntransfer-encoding: x\r\n",
        "TRANSFER-ENCODING: chunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding\t: chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
        "Transfer Encoding: chunked\r\n",
        "Transfer_Encoding: chunked\r\n",
        "Transfer-Encoding chunked\r\n",
        "Transfer-Encoding\0: chunked\r\n",
        "Transfer-\u{e9}Encoding: chunked\r\n",
        "X: y\nTransfer-Encoding: chunked\r\n",
        "X: y\rTransfer-Encoding: chunked\r\n",
        "X-Transfer-Encoding: chunked\r\n",
        "TE: chunked\r\n",
    ] {
        for version in ["1.1", "1.0"] {
            made.push((format!("POST of HTTP/{version} with {lines:?}"), post(lines, body, version)));
        }
    }
    made
}

fn both() -> Made {
    let whole = "5\r\nhello\r\n0\r\n\r\n";
    let mut made = Vec::new();
    for lines in [
        "Content-Length: 15\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 15\r\n",
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: x\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: x\r\n",
        "Content-Length: 15\r\nTransfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: xchunked\r\nContent-Length: 15\r\n",
        "Content-Length: 15\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: identity\r\nContent-Length: 15\r\n",
        "Content-Length: 15\r\nTransfer-Encoding : chunked\r\n",
        "Content-Length: 15\r\nTransfer-Encoding:\r\n chunked\r\n",
        "Content-Length: 15\r\nTransfer_Encoding: chunked\r\n",
        "Content-Length: 15\r\nTransfer-Encoding: chunked, identity\r\n",
        "Content-Length: 15\r\nTransfer-Encoding:\r\n",
        "Content-Length: 15\r\nX: y\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 15\r\nConnection: content-length\r\n",
        "Transfer-Encoding: chunked\r\nConnection: transfer-encoding\r\n",
        "Content-Length: 15\r\nTransfer-Encoding: chunked\r\nConnection: content-length\r\n",
    ] {
        for version in ["1.1", "1.0"] {
            made.push((format!("POST of HTTP/{version} with {lines:?}"), post(lines, whole, version)));
        }
    }
    made
}

fn chunks() -> Made {
    let long = "x".repeat(300);
    let mut made: Made = [
        "5\r\nhello\r\n0\r\n\r\n",
        "05\r\nhello\r\n0\r\n\r\n",
        "0000000000000005\r\nhello\r\n0\r\n\r\n",
        "00000000000000000000005\r\nhello\r\n0\r\n\r\n",
        "A\r\n0123456789\r\n0\r\n\r\n",
        "a\r\n0123456789\r\n00\r\n\r\n",
        "1\r\nh\r\n4\r\nello\r\n000\r\n\r\n",
        "0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "\t5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\t\r\nhello\r\n0\r\n\r\n",
        "5  \r\nhello\r\n0\r\n\r\n",
        "5\x0b\r\nhello\r\n0\r\n\r\n",
        "5\0\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5h\r\nhello\r\n0\r\n\r\n",
        "g\r\nhello\r\n0\r\n\r\n",
        "5.\r\nhello\r\n0\r\n\r\n",
        "5,5\r\nhello\r\n0\r\n\r\n",
        "5_\r\nhello\r\n0\r\n\r\n",
        "5 5\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "\r\n5\r\nhello\r\n0\r\n\r\n",
        "\u{665}\r\nhello\r\n0\r\n\r\n",
        "10000000000000000\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "8000000000000000\r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "7fffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "fffffffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "100000005\r\nhello\r\n0\r\n\r\n",
        "5;a\r\nhello\r\n0\r\n\r\n",
        "5;a=b\r\nhello\r\n0\r\n\r\n",
        "5;a=\"b c\"\r\nhello\r\n0\r\n\r\n",
        "5;a=\"b\\\"c\"\r\nhello\r\n0\r\n\r\n",
        "5;a;b=c\r\nhello\r\n0;d\r\n\r\n",
        "5 ;a\r\nhello\r\n0\r\n\r\n",
        "5; a\r\nhello\r\n0\r\n\r\n",
        "5;a = b\r\nhello\r\n0\r\n\r\n",
        "5;\r\nhello\r\n0\r\n\r\n",
        "5;;\r\nhello\r\n0\r\n\r\n",
        "5;=\r\nhello\r\n0\r\n\r\n",
        "5;a=\r\nhello\r\n0\r\n\r\n",
        "5;a=\"b\r\nhello\r\n0\r\n\r\n",
        "5;\"a\"\r\nhello\r\n0\r\n\r\n",
        "5;a\0\r\nhello\r\n0\r\n\r\n",
        "5;a\x0bb\r\nhello\r\n0\r\n\r\n",
        "5;a\u{e9}\r\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5;a\n\r\nhello\r\n0\r\n\r\n",
        ";a\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5\r\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "5\r\nhello!\r\n0\r\n\r\n",
        "6\r\nhello\r\n0\r\n\r\n",
        "4\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\n\r\n",
        "5\r\nhello\r\n0\r\n\n",
        "5\r\nhello\r\n0\n\n",
        "5\r\nhello\r\n0\r\r\n",
        "5\r\nhello\r\n0 \r\n\r\n",
        "5\r\nhello\r\n-0\r\n\r\n",
        "5\r\nhello\r\n0;a=b\r\n\r\n",
        "hello",
        "{}",
    ]
    .iter()
    .map(|body| (format!("POST with the chunks {body:?}"), post("Transfer-Encoding: chunked\r\n", body, "1.1")))
    .collect();
    let many = "1;name=value\r\nx\r\n".repeat(2_000);
    for (name, body) in [
        ("an extension of 300 bytes", format!("5;{long}\r\nhello\r\n0\r\n\r\n")),
        ("an extension of 20 kB", format!("5;{}\r\nhello\r\n0\r\n\r\n", long.repeat(70))),
        ("2000 extensions", format!("{many}0\r\n\r\n")),
        ("300 zeros before a size", format!("{}5\r\nhello\r\n0\r\n\r\n", "0".repeat(300))),
    ] {
        made.push((format!("POST with {name}"), post("Transfer-Encoding: chunked\r\n", &body, "1.1")));
    }
    made
}

fn trailers() -> Made {
    let long = "a".repeat(20_000);
    let many = "X: y\r\n".repeat(120);
    let mut made = Vec::new();
    for lines in [
        "X: y\r\n",
        "X: y\r\nZ: a\r\n",
        "X:\r\n",
        "X : y\r\n",
        " X: y\r\n",
        "X\r\n",
        ": y\r\n",
        "X(y): y\r\n",
        "X: y\r\n z\r\n",
        "X: \0\r\n",
        "X\0: y\r\n",
        "X: y\n",
        "X: y\rZ: a\r\n",
        "X: y\r\r\n",
        "X\u{e9}: y\r\n",
        "X: \u{e9}\r\n",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Host: other.test\r\n",
        "Connection: close\r\n",
        "Authorization: x\r\n",
        "GET /smuggled HTTP/1.1\r\n",
        "Trailer: x\r\n",
        "Content_Length: 5\r\n",
        "X-Forwarded-For: 1.2.3.4\r\n",
    ] {
        let body = format!("5\r\nhello\r\n0\r\n{lines}\r\n");
        made.push((format!("POST with the trailers {lines:?}"), post("Transfer-Encoding: chunked\r\n", &body, "1.1")));
    }
    for (name, lines) in [("a trailer of 20 kB", format!("X: {long}\r\n")), ("120 trailers", many)] {
        let body = format!("5\r\nhello\r\n0\r\n{lines}\r\n");
        made.push((format!("POST with {name}"), post("Transfer-Encoding: chunked\r\n", &body, "1.1")));
    }
    made
}

/// Every line end of each base in other forms, one at a time and all at once.
fn line_ends() -> Made {
    let mut made = Vec::new();
    for base in [GET, KNOWN, CHUNKED] {
        for end in ["\n", "\r", "\r\r\n", "\n\r", "\r\n\n", "\u{85}", "\u{2028}", "\x0b"] {
            for (at, _) in base.match_indices("\r\n") {
                let bytes = [&base[..at], end, &base[at + 2..]].concat();
                made.push((format!("{} with {end:?} at {at}", kind(base)), bytes.into_bytes()));
            }
            made.push((format!("{} with {end:?} alone", kind(base)), base.replace("\r\n", end).into_bytes()));
        }
    }
    made
}

/// A byte more at every place of a head.
fn bytes() -> Made {
    let base = "GET /case HTTP/1.1\r\nHost: gate.test\r\nX: y\r\n\r\n";
    let mut made = Vec::new();
    for byte in [b'\0', b'\t', b'\n', b'\r', b' ', b':', 0x7f, 0x80] {
        for at in 0..=base.len() {
            let bytes = [&base.as_bytes()[..at], &[byte], &base.as_bytes()[at..]].concat();
            made.push((format!("GET with 0x{byte:02x} at {at}"), bytes));
        }
    }
    made
}

fn pipelines() -> Made {
    let hidden = "GET /smuggled HTTP/1.1\r\nHost: gate.test\r\n\r\n";
    let length = hidden.len();
    let mut made: Made = Vec::new();
    for (name, parts) in [
        ("two requests", vec![GET.to_owned(), GET.to_owned()]),
        ("three requests", vec![GET.to_owned(), KNOWN.to_owned(), CHUNKED.to_owned()]),
        ("an empty line between", vec![GET.to_owned(), "\r\n".to_owned(), GET.to_owned()]),
        ("two empty lines between", vec![KNOWN.to_owned(), "\r\n\r\n".to_owned(), GET.to_owned()]),
        ("an LF between", vec![KNOWN.to_owned(), "\n".to_owned(), GET.to_owned()]),
        ("a NUL between", vec![KNOWN.to_owned(), "\0".to_owned(), GET.to_owned()]),
        ("a request in a body", vec![KNOWN.replace(": 5", &format!(": {length}")).replace("hello", hidden)]),
        ("a request in a chunk", vec![CHUNKED.replace("5\r\nhello", &format!("{length:x}\r\n{hidden}"))]),
        (
            "a request in the body of a GET",
            vec![GET.replace("X: y", &format!("Content-Length: {length}")), hidden.to_owned()],
        ),
        (
            "a request behind length 0",
            vec![KNOWN.replace(": 5", ": 0").replace("hello", ""), hidden.replace("smuggled", "second")],
        ),
        ("a request behind HTTP/1.0", vec![GET.replace("1.1", "1.0"), GET.to_owned()]),
        (
            "a request behind HTTP/1.0 and keep-alive",
            vec![GET.replace("1.1", "1.0").replace("X: y", "Connection: keep-alive"), GET.to_owned()],
        ),
        ("a request behind a close", vec![GET.replace("X: y", "Connection: close"), GET.to_owned()]),
        ("a bad request behind a good one", vec![GET.to_owned(), GET.replace("X: y", "X : y")]),
        ("a bad body behind a good one", vec![CHUNKED.to_owned(), CHUNKED.replace("5\r\n", "5 \r\n")]),
    ] {
        made.push((name.to_owned(), parts.concat().into_bytes()));
    }
    made
}

fn hops() -> Made {
    let mut made = Vec::new();
    for lines in [
        "Connection: close, x\r\n",
        "Connection: host\r\n",
        "Connection: x\r\nX: y\r\n",
        "Connection: \"a b\", :, ,,\r\n",
        "Connection:\r\n",
        "Connection: keep-alive, close\r\n",
        "Connection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\n",
        "Upgrade: websocket\r\n",
        "Connection: upgrade\r\nUpgrade: TLS/1.0\r\n",
        "Proxy-Connection: keep-alive\r\n",
        "Keep-Alive: 5\r\n",
        "TE: trailers\r\n",
        "TE: chunked\r\n",
        "Trailer: Content-Length\r\n",
        "Max-Forwards: 0\r\n",
        "Via: 1.1 x\r\n",
        "Proxy-Authorization: x\r\n",
        "Expect: 100-Continue\r\n",
        "Expect: 100-continue, x\r\n",
    ] {
        for base in [GET, KNOWN] {
            let bytes = base.replacen("Host: gate.test\r\n", &format!("Host: gate.test\r\n{lines}"), 1).into_bytes();
            made.push((format!("{} with {lines:?}", kind(base)), bytes));
        }
    }
    made
}
