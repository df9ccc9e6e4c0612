//! The question and the answer of `envoy.service.auth.v3.Authorization/Check`, as messages and as bodies of gRPC.
//!
//! Written and read by hand after the definitions in envoy's `api/envoy/service/auth/v3` (`attribute_context.proto`,
//! `external_auth.proto`). Of what an answer may ask for, this is understood: its verdict, headers for the service, headers to take away,
//! and status, headers and body of a refusal. An answer that changes the query is none, since passing the request on without that would
//! not be what the service allowed.

pub use crate::protobuf::Malformed as Unclear;
use crate::protobuf::{Malformed, Value, Writer, fields};

/// The path of the call.
pub const PATH: &str = "/envoy.service.auth.v3.Authorization/Check";

/// What is told of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Question<'a> {
    /// The correlation id.
    pub id: &'a [u8],
    /// The method.
    pub method: &'a str,
    /// Path and query, as the client asked.
    pub path: &'a str,
    /// The host that was asked for.
    pub host: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// `HTTP/1.1` and the like.
    pub protocol: &'a str,
    /// The headers that were chosen, names in lower case.
    pub headers: Vec<(&'a str, Vec<u8>)>,
    /// The client's address.
    pub source: (String, u16),
    /// Who the client is, where that is known.
    pub principal: &'a str,
    /// The address that it came to.
    pub destination: (String, u16),
    /// When the request came: seconds and nanoseconds since 1970.
    pub time: (u64, u32),
    /// What else is told, by name.
    pub extensions: Vec<(&'static str, String)>,
}

impl Question<'_> {
    /// The body of the call: five bytes that tell its length, and a `CheckRequest`.
    pub fn body(&self) -> Vec<u8> {
        let mut request = Writer::default();
        request.message(1, |attributes| {
            attributes.message(1, |source| {
                address(source, &self.source);
                source.bytes(4, self.principal.as_bytes());
            });
            attributes.message(2, |destination| address(destination, &self.destination));
            attributes.message(4, |request| {
                request.message(1, |time| {
                    time.number(1, self.time.0);
                    time.number(2, self.time.1.into());
                });
                request.message(2, |http| self.http(http));
            });
            for (name, value) in &self.extensions {
                attributes.entry(10, name.as_bytes(), value.as_bytes());
            }
        });
        framed(&request.into_bytes())
    }

    fn http(&self, http: &mut Writer) {
        http.bytes(1, self.id);
        http.bytes(2, self.method.as_bytes());
        for (name, value) in &self.headers {
            http.entry(3, name.as_bytes(), value);
        }
        http.bytes(4, self.path.as_bytes());
        http.bytes(5, self.host.as_bytes());
        http.bytes(6, self.scheme.as_bytes());
        http.bytes(10, self.protocol.as_bytes());
    }
}

/// `core.v3.Address` with a `SocketAddress`, as field 1 of a peer.
fn address(peer: &mut Writer, (host, port): &(String, u16)) {
    peer.message(1, |address| {
        address.message(1, |socket| {
            socket.bytes(2, host.as_bytes());
            socket.number(3, u64::from(*port));
        });
    });
}

/// A message as gRPC carries it: not compressed, with its length.
fn framed(message: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(message.len().saturating_add(5));
    body.push(0);
    body.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    body.extend_from_slice(message);
    body
}

/// A verdict, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// The request may pass.
    Allowed {
        /// Headers for the service.
        headers: Vec<Header>,
        /// Headers that the service is not to see.
        remove: Vec<String>,
    },
    /// It may not.
    Denied {
        /// The status for the client.
        status: u16,
        /// Headers for the client.
        headers: Vec<Header>,
        /// The body for the client.
        body: Vec<u8>,
    },
}

/// The name and the value of a header.
pub type Header = (String, Vec<u8>);

/// Reads the body of an answer: exactly one `CheckResponse` that says something.
pub fn answer(body: &[u8]) -> Result<Said, Malformed> {
    let Some((&[0, a, b, c, d], message)) = body.split_first_chunk() else { return Err(Malformed) };
    if usize::try_from(u32::from_be_bytes([a, b, c, d])) != Ok(message.len()) {
        return Err(Malformed);
    }
    let (mut status, mut allowed, mut denied) = (None, None, None);
    for field in fields(message) {
        match field? {
            (1, Value::Bytes(inner)) => status = Some(inner),
            (2, Value::Bytes(inner)) => denied = Some(inner),
            (3, Value::Bytes(inner)) => allowed = Some(inner),
            (1..=3, _) => return Err(Malformed),
            _ => {}
        }
    }
    // Without a status nothing is said, though its default would be that all is well.
    let ok = match number(status.ok_or(Malformed)?, 1)? {
        None => true,
        Some(code) => code == 0,
    };
    match (ok, allowed, denied) {
        (true, None, None) => Ok(Said::Allowed { headers: Vec::new(), remove: Vec::new() }),
        (true, Some(ok), None) => self::allowed(ok),
        (false, _, None) => Ok(Said::Denied { status: 403, headers: Vec::new(), body: Vec::new() }),
        (false, _, Some(denied)) => self::denied(denied),
        // It says both.
        (true, _, Some(_)) => Err(Malformed),
    }
}

/// `OkHttpResponse`.
fn allowed(message: &[u8]) -> Result<Said, Malformed> {
    let (mut headers, mut remove) = (Vec::new(), Vec::new());
    for field in fields(message) {
        match field? {
            (2, Value::Bytes(option)) => headers.extend(header(option)?),
            (5, Value::Bytes(name)) => remove.push(text(name)?),
            (2 | 5 | 7 | 8, _) => return Err(Malformed),
            _ => {}
        }
    }
    Ok(Said::Allowed { headers, remove })
}

/// `DeniedHttpResponse`.
fn denied(message: &[u8]) -> Result<Said, Malformed> {
    let (mut status, mut headers, mut body) = (403, Vec::new(), Vec::new());
    for field in fields(message) {
        match field? {
            (1, Value::Bytes(inner)) => {
                if let Some(code) = number(inner, 1)?.filter(|code| *code != 0) {
                    status = u16::try_from(code).map_err(|_| Malformed)?;
                }
            }
            (2, Value::Bytes(option)) => headers.extend(header(option)?),
            (3, Value::Bytes(text)) => body = text.to_vec(),
            (1..=3, _) => return Err(Malformed),
            _ => {}
        }
    }
    Ok(Said::Denied { status, headers, body })
}

/// The header of a `HeaderValueOption`.
fn header(option: &[u8]) -> Result<Option<Header>, Malformed> {
    let mut found = None;
    for field in fields(option) {
        if let (1, Value::Bytes(inner)) = field? {
            let (mut key, mut value, mut raw) = (String::new(), Vec::new(), Vec::new());
            for field in fields(inner) {
                match field? {
                    (1, Value::Bytes(bytes)) => key = text(bytes)?,
                    (2, Value::Bytes(bytes)) => value = bytes.to_vec(),
                    (3, Value::Bytes(bytes)) => raw = bytes.to_vec(),
                    _ => {}
                }
            }
            found = Some((key, if raw.is_empty() { value } else { raw }));
        }
    }
    Ok(found)
}

/// The number of a field, where it stands there.
fn number(message: &[u8], wanted: u32) -> Result<Option<u64>, Malformed> {
    let mut found = None;
    for field in fields(message) {
        match field? {
            (number, Value::Number(value)) if number == wanted => found = Some(value),
            (number, _) if number == wanted => return Err(Malformed),
            _ => {}
        }
    }
    Ok(found)
}

fn text(bytes: &[u8]) -> Result<String, Malformed> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn option(name: &str, value: &str) -> impl Fn(&mut Writer) {
        move |option| {
            option.message(1, |header| {
                header.bytes(1, name.as_bytes());
                header.bytes(2, value.as_bytes());
            });
        }
    }

    fn response(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut message = Writer::default();
        write(&mut message);
        framed(&message.into_bytes())
    }

    fn status(code: u64) -> impl Fn(&mut Writer) {
        move |message| message.message(1, |status| status.number(1, code))
    }

    #[test]
    fn a_verdict_is_read_with_what_it_asks_for() {
        let bare = Said::Allowed { headers: Vec::new(), remove: Vec::new() };
        assert_eq!(answer(&response(status(0))), Ok(bare));
        let ok = response(|message| {
            status(0)(message);
            message.message(3, |ok| {
                ok.message(2, option("x-user", "ann"));
                ok.bytes(5, b"authorization");
            });
        });
        let headers = vec![("x-user".to_owned(), b"ann".to_vec())];
        assert_eq!(answer(&ok), Ok(Said::Allowed { headers, remove: vec!["authorization".to_owned()] }));
        let denied = response(|message| {
            status(7)(message);
            message.message(2, |denied| {
                denied.message(1, |status| status.number(1, 401));
                denied.message(2, option("www-authenticate", "Bearer"));
                denied.bytes(3, b"no");
            });
        });
        let headers = vec![("www-authenticate".to_owned(), b"Bearer".to_vec())];
        assert_eq!(answer(&denied), Ok(Said::Denied { status: 401, headers, body: b"no".to_vec() }));
        assert_eq!(
            answer(&response(status(16))),
            Ok(Said::Denied { status: 403, headers: Vec::new(), body: Vec::new() })
        );
    }

    /// Nothing that is not clearly a yes is one.
    #[test]
    fn an_answer_that_says_nothing_or_two_things_allows_nothing() {
        let nothing = response(|_| {});
        let both = response(|message| {
            status(0)(message);
            message.message(2, |denied| denied.bytes(3, b"no"));
        });
        let no_status = response(|message| message.message(3, |_| {}));
        let query = response(|message| {
            status(0)(message);
            message.message(3, |ok| ok.bytes(8, b"debug"));
        });
        let wrong_type = response(|message| message.number(1, 1));
        let code_is_text = response(|message| message.message(1, |status| status.bytes(1, b"0")));
        for bad in [nothing, both, no_status, query, wrong_type, code_is_text, Vec::new(), vec![0; 4]] {
            assert_eq!(answer(&bad), Err(Malformed), "{bad:x?}");
        }
        let good = response(status(0));
        for length in 0..good.len() {
            assert_eq!(answer(&good[..length]), Err(Malformed), "{length}");
        }
        let compressed: Vec<u8> = [1].into_iter().chain(good[1..].iter().copied()).collect();
        let two: Vec<u8> = good.iter().chain(&good).copied().collect();
        assert_eq!((answer(&compressed), answer(&two)), (Err(Malformed), Err(Malformed)));
    }

    #[test]
    fn a_denial_with_an_ok_part_is_a_denial() {
        let odd = response(|message| {
            status(7)(message);
            message.message(3, |ok| ok.message(2, option("x-user", "root")));
        });
        assert!(matches!(answer(&odd), Ok(Said::Denied { status: 403, .. })));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in any::<Vec<u8>>()) {
            let _ = answer(&bytes);
            let _ = answer(&framed(&bytes));
        }
    }
}
