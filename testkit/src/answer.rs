//! What a scripted service answers: status, fields, and a body in one piece, in chunks, or as events over time.

use std::fmt::Write as _;
use std::time::Duration;

/// An answer, written out when its request has been read.
#[derive(Debug, Clone)]
pub struct Answer {
    status: u16,
    fields: Vec<(String, String)>,
    body: Body,
    trailers: Vec<(String, String)>,
    /// How long the service thinks before it answers.
    pub(crate) delay: Duration,
    /// Whether the service closes behind the answer.
    pub(crate) close: bool,
}

#[derive(Debug, Clone)]
enum Body {
    Whole(Vec<u8>),
    Pieces { pieces: Vec<Vec<u8>>, each: Duration },
}

impl Answer {
    /// An answer with this status and no body.
    pub fn new(status: u16) -> Self {
        Self {
            status,
            fields: Vec::new(),
            body: Body::Whole(Vec::new()),
            trailers: Vec::new(),
            delay: Duration::ZERO,
            close: false,
        }
    }

    /// 200 with a text.
    pub fn text(text: &str) -> Self {
        Self::new(200).field("content-type", "text/plain").body(text)
    }

    /// 200 with JSON.
    pub fn json(value: &serde_json::Value) -> Self {
        Self::new(200).field("content-type", "application/json").body(value.to_string())
    }

    /// 200 with `length` bytes that count through the alphabet.
    pub fn bytes(length: usize) -> Self {
        Self::new(200).body(alphabet(length))
    }

    /// `count` server-sent events, one in each span.
    pub fn events(count: usize, each: Duration) -> Self {
        let pieces = (0..count).map(|index| format!("data: {index}\n\n").into_bytes()).collect();
        Self::new(200).field("content-type", "text/event-stream").pieces(pieces, each)
    }

    /// Adds a field.
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The body, with its length in the head.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Body::Whole(body.into());
        self
    }

    /// The body in chunks, with a pause behind each.
    pub fn pieces(mut self, pieces: Vec<Vec<u8>>, each: Duration) -> Self {
        self.body = Body::Pieces { pieces, each };
        self
    }

    /// Adds a trailer field, behind a body in chunks.
    pub fn trailer(mut self, name: &str, value: &str) -> Self {
        self.trailers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Thinks for a while first.
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Closes the connection behind the answer, and says so.
    pub fn and_close(mut self) -> Self {
        self.close = true;
        self.field("connection", "close")
    }

    /// The parts to write, each with the pause behind it. An answer to HEAD, 204 and 304 is a head alone.
    pub(crate) fn parts(&self, method: &str) -> Vec<(Vec<u8>, Duration)> {
        let mut head = format!("HTTP/1.1 {} Scripted\r\n", self.status);
        for (name, value) in &self.fields {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        let bodiless = method == "HEAD" || matches!(self.status, 204 | 304);
        match &self.body {
            Body::Whole(body) => {
                if !matches!(self.status, 204 | 304) {
                    write!(head, "content-length: {}\r\n", body.len()).unwrap();
                }
                let mut bytes = (head + "\r\n").into_bytes();
                if !bodiless {
                    bytes.extend_from_slice(body);
                }
                vec![(bytes, Duration::ZERO)]
            }
            Body::Pieces { pieces, each } => {
                let mut parts = vec![((head + "transfer-encoding: chunked\r\n\r\n").into_bytes(), Duration::ZERO)];
                if !bodiless {
                    parts.extend(pieces.iter().map(|piece| (chunk(piece), *each)));
                    parts.push((self.last_chunk(), Duration::ZERO));
                }
                parts
            }
        }
    }

    fn last_chunk(&self) -> Vec<u8> {
        let mut last = "0\r\n".to_owned();
        for (name, value) in &self.trailers {
            write!(last, "{name}: {value}\r\n").unwrap();
        }
        (last + "\r\n").into_bytes()
    }
}

/// `length` bytes that count through the alphabet, so that a shift or a gap shows.
pub fn alphabet(length: usize) -> Vec<u8> {
    (b'a'..=b'z').cycle().take(length).collect()
}

/// One chunk in wire format.
pub fn chunk(data: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{:x}\r\n", data.len()).into_bytes();
    bytes.extend_from_slice(data);
    bytes.extend_from_slice(b"\r\n");
    bytes
}
