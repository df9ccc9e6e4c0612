//! A small strict reader of HTTP/1.1 messages, for both sides (RFC 9112). What is not exactly right is an error.

use std::io::{self, Read};

/// Field names and values, in order, names in lower case.
pub type Fields = Vec<(String, String)>;

/// One message, read to its end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// The start line, without its line end.
    pub start: String,
    /// The header fields.
    pub fields: Fields,
    /// The body, out of its chunks.
    pub body: Vec<u8>,
    /// The trailer fields.
    pub trailers: Fields,
    /// The sizes of the chunks, where the body was chunked.
    pub chunks: Option<Vec<usize>>,
}

/// Why no message could be read.
#[derive(Debug)]
pub enum ReadError {
    /// The other side closed before the first byte.
    Closed,
    /// The other side closed in the middle.
    Cut(Vec<u8>),
    /// The socket failed: reset, or silent for too long.
    Io(io::Error),
    /// The bytes are no HTTP/1.1 message, and why.
    Malformed(String),
}

/// Bytes from a socket, with what was read ahead.
#[derive(Debug)]
pub struct Wire<S> {
    /// The socket.
    pub stream: S,
    ahead: Vec<u8>,
}

impl Message {
    /// The value of a field; several are joined by `, `.
    pub fn field(&self, name: &str) -> Option<String> {
        field(&self.fields, name)
    }

    /// The value of a trailer field.
    pub fn trailer(&self, name: &str) -> Option<String> {
        field(&self.trailers, name)
    }

    /// The status of an answer.
    ///
    /// # Panics
    /// If this is no answer.
    pub fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line")
    }

    /// The method of a request.
    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    /// The target of a request.
    pub fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in the body {:?}", self.text()))
    }

    /// The member `code` of a refusal of the gateway, or nothing.
    pub fn code(&self) -> Option<String> {
        if self.field("content-type").as_deref() != Some("application/problem+json") {
            return None;
        }
        serde_json::from_slice::<serde_json::Value>(&self.body).ok()?["code"].as_str().map(str::to_owned)
    }
}

fn field(fields: &Fields, name: &str) -> Option<String> {
    let values: Vec<&str> = fields.iter().filter(|(other, _)| other == name).map(|(_, value)| value.as_str()).collect();
    if values.is_empty() { None } else { Some(values.join(", ")) }
}

impl<S: Read> Wire<S> {
    /// A reader over a socket.
    pub fn new(stream: S) -> Self {
        Self { stream, ahead: Vec::new() }
    }

    /// Reads one request.
    ///
    /// # Errors
    /// As [`ReadError`] tells.
    pub fn request(&mut self) -> Result<Message, ReadError> {
        let mut message = self.head()?;
        self.body(&mut message, Some(0))?;
        Ok(message)
    }

    /// Reads one answer to a request with `method`; an interim answer (1xx) is an answer of its own.
    ///
    /// # Errors
    /// As [`ReadError`] tells.
    pub fn response(&mut self, method: &str) -> Result<Message, ReadError> {
        let mut message = self.head()?;
        if !message.start.starts_with("HTTP/1.1 ") && !message.start.starts_with("HTTP/1.0 ") {
            return Err(ReadError::Malformed(format!("the status line {:?}", message.start)));
        }
        let status = message.status();
        if method != "HEAD" && status >= 200 && status != 204 && status != 304 {
            self.body(&mut message, None)?;
        }
        Ok(message)
    }

    /// Reads a head up to its empty line.
    ///
    /// # Errors
    /// As [`ReadError`] tells.
    pub fn head(&mut self) -> Result<Message, ReadError> {
        let start = self.line(true)?;
        let fields = self.fields()?;
        Ok(Message { start, fields, ..Message::default() })
    }

    /// Reads exactly `length` bytes.
    ///
    /// # Errors
    /// As [`ReadError`] tells.
    pub fn exactly(&mut self, length: usize) -> Result<Vec<u8>, ReadError> {
        while self.ahead.len() < length {
            self.more()?;
        }
        Ok(self.ahead.drain(..length).collect())
    }

    /// Reads what is there, at least a byte; nothing at the end.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn some(&mut self) -> io::Result<Vec<u8>> {
        if self.ahead.is_empty() {
            match self.more() {
                Err(ReadError::Io(error)) => return Err(error),
                _ => return Ok(std::mem::take(&mut self.ahead)),
            }
        }
        Ok(std::mem::take(&mut self.ahead))
    }

    /// Reads to the end.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut all = std::mem::take(&mut self.ahead);
        self.stream.read_to_end(&mut all)?;
        Ok(all)
    }

    /// Reads the body that `message` announces. `without` is its length where it announces none; none is up to the end.
    fn body(&mut self, message: &mut Message, without: Option<usize>) -> Result<(), ReadError> {
        let (length, coding) = (message.field("content-length"), message.field("transfer-encoding"));
        match (length, coding.as_deref()) {
            (Some(_), Some(_)) => return Err(ReadError::Malformed("both lengths stand in one head".into())),
            (Some(length), None) => {
                let length = length.parse().map_err(|_| ReadError::Malformed(format!("the length {length:?}")))?;
                message.body = self.exactly(length)?;
            }
            (None, Some(coding)) if coding.eq_ignore_ascii_case("chunked") => self.chunks(message)?,
            (None, Some(coding)) => return Err(ReadError::Malformed(format!("the coding {coding:?}"))),
            (None, None) => match without {
                Some(length) => message.body = self.exactly(length)?,
                None => message.body = self.rest().map_err(ReadError::Io)?,
            },
        }
        Ok(())
    }

    fn chunks(&mut self, message: &mut Message) -> Result<(), ReadError> {
        let mut sizes = Vec::new();
        loop {
            let line = self.line(false)?;
            let size = usize::from_str_radix(&line, 16)
                .map_err(|_| ReadError::Malformed(format!("the line of a chunk {line:?}")))?;
            if size == 0 {
                message.trailers = self.fields()?;
                message.chunks = Some(sizes);
                return Ok(());
            }
            sizes.push(size);
            message.body.extend(self.exactly(size)?);
            if self.exactly(2)? != b"\r\n" {
                return Err(ReadError::Malformed("no line end behind a chunk".into()));
            }
        }
    }

    fn fields(&mut self) -> Result<Fields, ReadError> {
        let mut fields = Vec::new();
        loop {
            let line = self.line(false)?;
            if line.is_empty() {
                return Ok(fields);
            }
            let bad = || ReadError::Malformed(format!("the field {line:?}"));
            let (name, value) = line.split_once(':').ok_or_else(bad)?;
            let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if name.is_empty() || !name.bytes().all(is_token) {
                return Err(bad());
            }
            fields.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()));
        }
    }

    /// One line without its CR LF; a lone CR or LF in it is an error.
    fn line(&mut self, first: bool) -> Result<String, ReadError> {
        let mut looked = 0;
        loop {
            if let Some(end) = self.ahead[looked..].iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.ahead.drain(..=looked + end).collect();
                let line = line.strip_suffix(b"\r\n").filter(|line| !line.contains(&b'\r'));
                let line = line.ok_or_else(|| ReadError::Malformed("a lone CR or LF in a head".into()))?;
                return Ok(String::from_utf8_lossy(line).into_owned());
            }
            looked = self.ahead.len();
            match self.more() {
                Err(ReadError::Cut(bytes)) if first && bytes.is_empty() => return Err(ReadError::Closed),
                other => other?,
            }
        }
    }

    fn more(&mut self) -> Result<(), ReadError> {
        let mut bytes = [0; 16 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(0) => Err(ReadError::Cut(self.ahead.clone())),
            Ok(read) => {
                self.ahead.extend_from_slice(&bytes[..read]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(ReadError::Io(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Message, ReadError> {
        Wire::new(bytes).response("GET")
    }

    #[test]
    fn chunks_and_trailers_are_told_apart_from_the_body() {
        let wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n";
        let message = read(wire).unwrap();
        assert_eq!(message.body, b"abcde");
        assert_eq!(message.chunks, Some(vec![3, 2]));
        assert_eq!(message.trailer("x-sum").as_deref(), Some("5"));
    }

    #[test]
    fn what_is_not_exactly_right_is_an_error() {
        for wire in [
            "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0, 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc",
        ] {
            assert!(read(wire.as_bytes()).is_err(), "{wire:?}");
        }
    }
}
