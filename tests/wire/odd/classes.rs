// xtask: table
//! Why others take a request in another way than Pylon does. The first class that holds is the one.

use std::fmt;

use super::outcome::{Class as Became, Outcome};
use super::requests::Odd;

/// A request that Pylon and another proxy take differently.
pub(crate) struct Difference<'a> {
    pub(crate) odd: &'a Odd,
    pub(crate) peer: &'static str,
    pub(crate) ours: &'a Outcome,
    pub(crate) theirs: &'a Outcome,
}

impl fmt::Display for Difference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: Pylon {}, {} {}", self.odd.family, self.odd.name, self.ours, self.peer, self.theirs)
    }
}

/// A class of differences.
pub(crate) struct Class {
    pub(crate) name: &'static str,
    pub(crate) why: &'static str,
    pub(crate) holds: fn(&Difference<'_>) -> bool,
}

pub(crate) static CLASSES: &[Class] = &[
    Class {
        name: "Chunks become a length",
        why: "nginx takes a small body in chunks apart and sends its length. Pylon sends chunks on as chunks, so that nothing has to wait and trailers pass.",
        holds: |d| d.is("nginx") && d.ours_sends_chunks() && d.they_send_no_chunks(),
    },
    Class {
        name: "More than one empty line between requests",
        why: "RFC 9112 §2.2 asks for one to be ignored, and for CR LF only. Who ignores any number of any kind resynchronises where an attacker likes.",
        holds: |d| {
            let bytes = d.bytes();
            let before = ["\n", "\r\n\r\n", "\r\n\n"].iter().any(|lines| bytes.starts_with(lines));
            let between = ["\r\n\r\n\n", "\n\r\n\r\nGET", "\n\r\n\r", "hello\r\n\r\n", "hello\n", "hello\r\n\n"];
            let between = between.iter().any(|lines| bytes.contains(lines)) || bytes.ends_with("\n\r");
            (before || between) && d.they_are_more_lenient()
        },
    },
    Class {
        name: "CONNECT and TRACE",
        why: "Pylon forwards neither and says 501; the end of the request is beyond doubt, so the connection goes on. HAProxy forwards TRACE. Both refuse CONNECT by another status and a close.",
        holds: |d| d.method_is("CONNECT") || d.method_is("TRACE"),
    },
    Class {
        name: "Expectations that nobody knows",
        why: "417 is what RFC 9110 §10.1.1 has for them. Others pass them on or ignore them.",
        holds: |d| d.bytes().contains("Expect: ") && matches!(d.ours.class, Became::Declined(4)),
    },
    Class {
        name: "Trailers that nginx reads over",
        why: "nginx drops all trailers and hardly looks at them. Pylon passes trailers and holds them to the rules of fields.",
        holds: |d| d.is("nginx") && d.family("trailer") && d.we_refuse(),
    },
    Class {
        name: "Trailers that HAProxy passes as they are",
        why: "HAProxy sends trailers on without a look at each, malformed ones too, which the service then has to read.",
        holds: |d| d.is("HAProxy") && d.family("trailer") && d.we_refuse(),
    },
    Class {
        name: "Lines that end by LF alone",
        why: "RFC 9112 §2.2 allows to take them. A reader before or behind that does not sees other lines: Pylon takes CR LF alone.",
        holds: |d| bare_lf(d.bytes()) && d.we_refuse(),
    },
    Class {
        name: "A CR without its LF",
        why: "RFC 9112 §2.2 forbids it; somebody reads it as a line end, or as a blank.",
        holds: |d| bare_cr(d.bytes()) && d.we_refuse(),
    },
    Class {
        name: "Two Host fields",
        why: "RFC 9112 §3.2 demands 400.",
        holds: |d| d.bytes().to_ascii_lowercase().matches("\r\nhost:").count() > 1 && d.we_refuse(),
    },
    Class {
        name: "Folded lines",
        why: "RFC 9112 §5.2 deprecates them and lets a server refuse them. HAProxy joins them, other readers take the second line for a field.",
        holds: |d| (d.bytes().contains("\r\n ") || d.bytes().contains("\r\n\t")) && d.we_refuse(),
    },
    Class {
        name: "HTTP/0.9",
        why: "A line without a version. nginx serves it as HTTP/0.9, without a status line; Pylon speaks 1.0 and 1.1 alone.",
        holds: |d| d.is("nginx") && d.we_refuse() && !d.line().contains(" HTTP/"),
    },
    Class {
        name: "Versions",
        why: "Pylon takes HTTP/1.1 and HTTP/1.0 and answers 400 to all else. nginx and HAProxy take other minor versions (HAProxy other major ones too), and nginx says 505 to some.",
        holds: |d| d.family("version") && d.we_refuse(),
    },
    Class {
        name: "Blanks in the request line",
        why: "Readers that split at any white space and those that split at the first and the last blank see different targets.",
        holds: |d| d.we_refuse() && (d.line().contains("  ") || d.line().contains('\t') || d.line().ends_with(' ')),
    },
    Class {
        name: "Long methods",
        why: "A method of more than 64 bytes is nobody's method.",
        holds: |d| d.method().len() > 64 && d.we_refuse(),
    },
    Class {
        name: "Methods not in capitals",
        why: "nginx takes capitals, `_` and `-` alone. RFC 9110 §9.1 allows any token; what a method means is the service's business.",
        holds: |d| {
            let odd =
                |method: &str| method.bytes().any(|byte| !byte.is_ascii_uppercase() && byte != b'-' && byte != b'_');
            d.is("nginx") && d.we_pass() && (odd(d.method()) || d.family("length") || d.family("line end"))
        },
    },
    Class {
        name: "PRI as a method of HTTP/1.1",
        why: "HAProxy keeps the name for the preface of HTTP/2. In a request of HTTP/1.1 it is a token like any other.",
        holds: |d| d.is("HAProxy") && d.method_is("PRI") && d.we_pass(),
    },
    Class {
        name: "A WebSocket handshake that is none",
        why: "HAProxy demands its fields of every request that names WebSocket. Where a route does not allow WebSocket, Pylon takes the offer away and passes the request.",
        holds: |d| d.is("HAProxy") && d.bytes().contains("Upgrade: websocket") && d.we_pass(),
    },
    Class {
        name: "Transfer-Encoding beside Content-Length",
        why: "RFC 9112 §6.1 allows to take the coding and to close. Pylon refuses: who sends both is broken or means harm.",
        holds: |d| d.has("Content-Length:") && d.has("Transfer-Encoding:") && d.we_refuse() && d.they_pass(),
    },
    Class {
        name: "Transfer-Encoding in HTTP/1.0",
        why: "RFC 9112 §6.1: its framing is faulty. HAProxy takes the chunks and closes.",
        holds: |d| d.has("Transfer-Encoding") && d.line().ends_with("HTTP/1.0") && d.we_refuse() && d.they_pass(),
    },
    Class {
        name: "Transfer-Encoding that is not just chunked",
        why: "Pylon says 400 and closes, nginx 501. HAProxy takes lists with empty members.",
        holds: |d| {
            d.has("Transfer-Encoding")
                && (d.family("coding") || d.family("length and coding") || d.family("line end"))
                && d.we_refuse()
                && !d.has("Transfer-\u{c3}")
        },
    },
    Class {
        name: "Tabs around a value",
        why: "RFC 9110 §5.6.3 allows them. nginx strips blanks alone, and refuses what is left.",
        holds: |d| d.is("nginx") && d.we_pass() && d.bytes().contains('\t'),
    },
    Class {
        name: "A length twice, or as a list",
        why: "RFC 9112 §6.3 allows to take equal ones for one. Pylon refuses: nobody sends them by honest means.",
        holds: |d| d.is("HAProxy") && d.family("length") && d.we_refuse() && d.they_pass(),
    },
    Class {
        name: "Lengths beyond 2^63",
        why: "Pylon refuses them at once. HAProxy waits for the body, and refuses a chunk of 2^63 - 1 bytes that Pylon would wait for; so does nginx.",
        holds: |d| {
            d.theirs.class == Became::Waits && d.has("1844674407370955161")
                || d.ours.class == Became::Waits && d.bytes().contains("7fffffffffffffff")
        },
    },
    Class {
        name: "Lines before chunks",
        why: "RFC 9112 §7.1.1 knows blanks around extensions and bids ignore extensions. Blanks, malformed extensions and long ones have let requests be hidden: Pylon takes well-formed short ones and drops them.",
        holds: |d| (d.family("chunk") || d.family("pipeline")) && d.they_are_more_lenient(),
    },
    Class {
        name: "Fields that nginx drops",
        why: "nginx leaves out fields whose names it does not like, and passes the rest (`ignore_invalid_headers`). A service might have read them otherwise: Pylon refuses.",
        holds: |d| d.is("nginx") && d.we_refuse() && d.they_pass() && (bad_field(d.bytes()) || d.family("line end")),
    },
    Class {
        name: "Control bytes in fields",
        why: "RFC 9110 §5.5 calls them invalid and dangerous. nginx passes all but NUL, HAProxy NUL too.",
        holds: |d| d.we_refuse() && d.they_pass() && bad_value(d.bytes()),
    },
    Class {
        name: "Hosts that are none",
        why: "nginx and HAProxy pass most of what stands in Host. Pylon routes by it, so it has to be a host with or without a port (RFC 9110 §7.2).",
        holds: |d| (d.family("host") || d.family("byte") || d.family("line end")) && d.we_refuse() && d.they_pass(),
    },
    Class {
        name: "Fragments",
        why: "A fragment never belongs into a request (RFC 9112 §3.2). nginx takes targets that have one.",
        holds: |d| d.line().contains('#') && d.we_refuse() && d.they_pass(),
    },
    Class {
        name: "Targets with bytes that must be encoded",
        why: "Bytes beyond ASCII, DEL and some marks are no part of a URI (RFC 3986 §2).",
        holds: |d| {
            d.family("target")
                && d.we_refuse()
                && d.line().chars().any(|c| !c.is_ascii_graphic() && c != ' ' || "<>`\"\\{}^|".contains(c))
                && !d.line().contains("http")
        },
    },
    Class {
        name: "Paths with two meanings",
        why: "Pylon refuses `%00`, broken escapes, encoded slashes (unless a route allows them) and a way above the root, in order; the end of the request is beyond doubt, so the connection goes on. nginx refuses some of them and closes; HAProxy does not read paths.",
        holds: |d| d.family("target") && matches!(d.ours.class, Became::Declined(4)),
    },
    Class {
        name: "Targets in absolute and other forms",
        why: "Pylon wants the host of an absolute target to be that of the Host field, to the letter, a scheme that it serves, and a path. HAProxy and nginx pass some that differ.",
        holds: |d| d.family("target") && d.we_refuse() && d.they_pass(),
    },
    Class {
        name: "An absolute target without a path",
        why: "HAProxy refuses a query without a path. Pylon reads it as RFC 9112 §3.2.2 has it, with the path `/`.",
        holds: |d| d.is("HAProxy") && d.line().contains("http://gate.test?x") && d.we_pass(),
    },
    Class {
        name: "Sizes",
        why: "A head of HAProxy has to fit its buffer of 16 KiB, one of Pylon `limits.request_headers`, 64 KiB, and 100 fields. nginx was given four buffers of 64 KiB and counts no fields.",
        holds: |d| d.family("field") || d.family("target") && d.odd.bytes.len() > 8_000,
    },
];

impl Difference<'_> {
    fn is(&self, peer: &str) -> bool {
        self.peer == peer
    }

    fn family(&self, family: &str) -> bool {
        self.odd.family == family
    }

    /// The bytes as text: odd bytes that are no UTF-8 are of no concern here.
    fn bytes(&self) -> &str {
        std::str::from_utf8(&self.odd.bytes)
            .unwrap_or_else(|error| std::str::from_utf8(&self.odd.bytes[..error.valid_up_to()]).unwrap_or_default())
    }

    fn has(&self, text: &str) -> bool {
        self.bytes().to_ascii_lowercase().contains(&text.to_ascii_lowercase())
    }

    /// The request line.
    fn line(&self) -> &str {
        self.bytes().trim_start_matches(['\r', '\n']).lines().next().unwrap_or_default()
    }

    fn method(&self) -> &str {
        self.line().split(' ').next().unwrap_or_default()
    }

    fn method_is(&self, method: &str) -> bool {
        self.method() == method
    }

    fn we_refuse(&self) -> bool {
        matches!(self.ours.class, Became::Refused(4))
    }

    fn we_pass(&self) -> bool {
        passes(&self.ours.class)
    }

    fn they_pass(&self) -> bool {
        passes(&self.theirs.class) || self.theirs.class == Became::Malformed
    }

    fn they_are_more_lenient(&self) -> bool {
        let short = matches!(self.ours.class, Became::Refused(4) | Became::Last(_));
        short && self.they_pass()
    }

    fn ours_sends_chunks(&self) -> bool {
        matches!(self.ours.class, Became::Passed("chunks") | Became::Last("chunks"))
    }

    fn they_send_no_chunks(&self) -> bool {
        matches!(self.theirs.class, Became::Passed(framing) | Became::Last(framing) if framing != "chunks")
    }
}

fn passes(class: &Became) -> bool {
    matches!(class, Became::Passed(_) | Became::Last(_) | Became::Several(_))
}

/// An LF without its CR.
fn bare_lf(text: &str) -> bool {
    text.replace("\r\n", "").contains('\n')
}

/// A CR without its LF.
fn bare_cr(text: &str) -> bool {
    text.replace("\r\n", "").contains('\r')
}

/// A field that has no colon, or whose name is no token.
fn bad_field(text: &str) -> bool {
    let head = text.split("\r\n\r\n").next().unwrap_or_default();
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    head.lines().skip(1).any(|line| match line.split_once(':') {
        Some((name, _)) => name.is_empty() || !name.bytes().all(token),
        None => true,
    })
}

/// A value with a control byte.
fn bad_value(text: &str) -> bool {
    let head = text.split("\r\n\r\n").next().unwrap_or_default();
    let values = head.lines().skip(1).filter_map(|line| Some(line.split_once(':')?.1));
    values.flat_map(str::bytes).any(|byte| byte.is_ascii_control() && byte != b'\t')
}
