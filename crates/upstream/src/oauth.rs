//! What the gateway says to an authorization server, whatever it asks it for: the form, the proof of who asks, and the answer
//! (RFC 6749 §2.3.1, §5). Secrets and tokens never stand in what is told of it.

use std::fmt::{self, Write as _};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value};

use crate::fetch::{Ask, Whole};
use crate::outbound::spec::ClientAuthSpec;

/// The client as which the gateway asks.
#[derive(Clone, Copy)]
pub struct Client<'a> {
    /// Its name.
    pub id: &'a str,
    /// What proves it; none where the client is public.
    pub secret: Option<&'a [u8]>,
    /// Where the proof stands.
    pub auth: ClientAuthSpec,
}

impl fmt::Debug for Client<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A body in the form `application/x-www-form-urlencoded`.
#[derive(Default)]
pub struct Form(String);

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Form({} bytes)", self.0.len())
    }
}

impl Form {
    /// With a member more.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        self.0.push_str(name);
        self.0.push('=');
        encode(value.as_ref(), &mut self.0);
        self
    }

    /// The text, which may stand in a query as well.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// A request of this form by `client`, to the path of the service's own URL.
    pub fn ask(self, client: &Client<'_>) -> Result<Ask, String> {
        let accept = (header::ACCEPT, HeaderValue::from_static("application/json"));
        let post = |form: Self| Ask::post("", "application/x-www-form-urlencoded", form.0).with(accept.0, accept.1);
        match (client.secret, client.auth) {
            (None, _) => Ok(post(self.with("client_id", client.id))),
            (Some(secret), ClientAuthSpec::Post) => {
                Ok(post(self.with("client_id", client.id).with("client_secret", secret)))
            }
            (Some(secret), ClientAuthSpec::Basic) => {
                // RFC 6749 §2.3.1: each in the form of a body before both go together.
                let (mut id, mut proof) = (String::new(), String::new());
                encode(client.id.as_bytes(), &mut id);
                encode(secret, &mut proof);
                let value = credentials(id.as_bytes(), proof.as_bytes()).ok_or("the secret cannot be sent")?;
                Ok(post(self).with(header::AUTHORIZATION, value))
            }
        }
    }
}

/// Why an authorization server gave nothing. What it says is shown as far as it is one of the words that there are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It says no: the status, and the word of its error (RFC 6749 §5.2).
    #[error("the answer is {0}{word}", word = .1.as_ref().map(|word| format!(", `{word}`")).unwrap_or_default())]
    Status(u16, Option<String>),
    /// What it says cannot be used.
    #[error("{0}")]
    Odd(&'static str),
}

/// The members of an answer that says yes; none where its body is no object.
pub fn members(answer: &Whole) -> Result<Map<String, Value>, Refused> {
    let members: Map<String, Value> = serde_json::from_slice(&answer.body).unwrap_or_default();
    if answer.status == StatusCode::OK {
        return Ok(members);
    }
    let word = members.get("error").and_then(Value::as_str).filter(|word| is_word(word));
    Err(Refused::Status(answer.status.as_u16(), word.map(str::to_owned)))
}

/// A token that was given.
pub struct Granted {
    /// The token, which can stand in a header.
    pub access_token: String,
    /// For how long it is good, where that is said.
    pub expires_in: Option<Duration>,
    /// All that was said.
    pub members: Map<String, Value>,
}

impl fmt::Debug for Granted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Granted").field("expires_in", &self.expires_in).finish_non_exhaustive()
    }
}

/// The token in an answer to a request for one (RFC 6749 §5.1).
pub fn granted(answer: &Whole) -> Result<Granted, Refused> {
    let members = members(answer)?;
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    let kind = text("token_type").ok_or(Refused::Odd("the answer has no `token_type`"))?;
    if !kind.eq_ignore_ascii_case("bearer") {
        return Err(Refused::Odd("the answer's `token_type` is not `bearer`"));
    }
    let access_token = text("access_token").ok_or(Refused::Odd("the answer has no `access_token`"))?.to_owned();
    if bearer(access_token.as_bytes()).is_none() {
        return Err(Refused::Odd("the answer's `access_token` is no token"));
    }
    let expires_in = match members.get("expires_in") {
        None | Some(Value::Null) => None,
        // Some write it as text.
        Some(value) => {
            let seconds = value.as_u64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
            let seconds = seconds.filter(|seconds| *seconds > 0);
            let odd = Refused::Odd("the answer's `expires_in` is no number of seconds");
            Some(Duration::from_secs(seconds.ok_or(odd)?))
        }
    };
    Ok(Granted { access_token, expires_in, members })
}

/// `Bearer` and the token (RFC 6750 §2.1); none where it is no token.
pub fn bearer(token: &[u8]) -> Option<HeaderValue> {
    let graphic = !token.is_empty() && token.iter().all(u8::is_ascii_graphic);
    graphic.then(|| sensitive(&[b"Bearer ", token].concat())).flatten()
}

/// `Basic` and both, in the form of RFC 7617.
pub(crate) fn credentials(user: &[u8], password: &[u8]) -> Option<HeaderValue> {
    let text = STANDARD.encode([user, b":", password].concat());
    sensitive(format!("Basic {text}").as_bytes())
}

/// A value that is told to nobody; none where it cannot stand in a header.
pub(crate) fn sensitive(bytes: &[u8]) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_bytes(bytes).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Whether it looks like `invalid_client`, and can hold no secret of length.
fn is_word(word: &str) -> bool {
    word.len() <= 40 && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

/// Appends `bytes` in the form of a body.
fn encode(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => out.push(char::from(*byte)),
            b' ' => out.push('+'),
            // Writing to a string does not fail.
            _ => _ = write!(out, "%{byte:02X}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_proves_itself_in_one_place_and_a_public_one_names_itself() {
        let ask = |secret: Option<&'static [u8]>, auth| {
            let form = Form::default().with("grant_type", "authorization_code").with("code", "a/b");
            form.ask(&Client { id: "gate 1", secret, auth }).unwrap()
        };
        let basic = ask(Some(b"p:w%"), ClientAuthSpec::Basic);
        // `gate+1:p%3Aw%25`
        assert_eq!(basic.headers["authorization"], "Basic Z2F0ZSsxOnAlM0F3JTI1");
        assert_eq!(basic.body, "grant_type=authorization_code&code=a%2Fb");
        let post = ask(Some(b"p:w"), ClientAuthSpec::Post);
        assert!(!post.headers.contains_key("authorization"));
        assert_eq!(post.body, "grant_type=authorization_code&code=a%2Fb&client_id=gate+1&client_secret=p%3Aw");
        let public = ask(None, ClientAuthSpec::Basic);
        assert!(!public.headers.contains_key("authorization"));
        assert_eq!(public.body, "grant_type=authorization_code&code=a%2Fb&client_id=gate+1");
        let client = Client { id: "gate", secret: Some(b"hunter2"), auth: ClientAuthSpec::Post };
        assert!(!format!("{client:?} {:?}", Form::default().with("a", "hunter2")).contains("hunter2"));
    }
}
