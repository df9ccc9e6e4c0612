//! Takes tokens apart: JWS in the compact form with claims within (RFC 7515 §7.1, RFC 7519). Nothing here is proved yet.
//!
//! Strict where leniency would give one token two spellings: base64url without padding, blanks or spare bits (RFC 7515 §2),
//! members that stand once. A header that asks for what is not understood (`crit`, `b64`) is refused (RFC 7515 §4.1.11,
//! RFC 7797 §6). Keys that a token brings with it (`jwk`, `jku`, `x5c`, `x5u`) are not even looked at.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::json;

/// The longest token, in bytes.
pub const LONGEST: usize = 16 * 1024;

/// A token as it stands.
#[derive(Debug)]
pub struct Token<'t> {
    /// The algorithm that its maker names.
    pub alg: Box<str>,
    /// The name of the key that its maker names.
    pub kid: Option<Box<str>>,
    /// What it is, by its maker.
    pub typ: Option<Box<str>>,
    /// What it says.
    pub claims: Map<String, Value>,
    /// What the signature is of.
    pub signed: &'t [u8],
    /// The signature.
    pub signature: Vec<u8>,
}

/// Why a token cannot be looked at further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It is no token of this form: it may be one of another.
    Foreign,
    /// It is one, and wrong.
    Wrong(&'static str),
}

/// Takes `token` apart.
pub fn read(token: &[u8]) -> Result<Token<'_>, Refused> {
    use Refused::{Foreign, Wrong};
    if token.len() > LONGEST {
        return Err(Wrong("the token is longer than 16 KiB"));
    }
    let mut parts = token.split(|byte| *byte == b'.');
    let (Some(head), Some(payload), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Foreign);
    };
    let decoded = decode(head).filter(|bytes| bytes.trim_ascii_start().first() == Some(&b'{')).ok_or(Foreign)?;
    let header = json::object(&decoded).ok_or(Wrong("the header is no JSON whose members stand once"))?;
    if header.contains_key("crit") {
        return Err(Wrong("the header has critical parts that are not understood"));
    }
    if header.get("b64").is_some_and(|value| *value != Value::Bool(true)) {
        return Err(Wrong("the payload is not encoded"));
    }
    let text = |name: &str| match header.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str().into())),
        Some(_) => Err(Wrong("`alg`, `kid` or `typ` of the header is no text")),
    };
    let (alg, kid, typ) = (text("alg")?, text("kid")?, text("typ")?);
    let claims = decode(payload).ok_or(Wrong("the payload is no base64url"))?;
    let claims = json::object(&claims).ok_or(Wrong("the claims are no JSON whose members stand once"))?;
    let signed = token.get(..head.len().saturating_add(payload.len()).saturating_add(1)).ok_or(Foreign)?;
    let signature = decode(signature).ok_or(Wrong("the signature is no base64url"))?;
    let alg = alg.ok_or(Wrong("the header names no algorithm"))?;
    Ok(Token { alg, kid, typ, claims, signed, signature })
}

/// Bytes written in base64url, in the one way that there is.
pub(crate) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(text: &str) -> String {
        URL_SAFE_NO_PAD.encode(text)
    }

    fn made(header: &str, claims: &str) -> String {
        format!("{}.{}.{}", encode(header), encode(claims), encode("signature"))
    }

    fn wrong(token: &str) -> &'static str {
        match read(token.as_bytes()) {
            Err(Refused::Wrong(why)) => why,
            other => panic!("{token}: {other:?}"),
        }
    }

    #[test]
    fn a_token_is_taken_apart() {
        let text = made(r#"{"alg":"RS256","kid":"a","typ":"JWT","jwk":{"kty":"oct"}}"#, r#"{"iss":"x"}"#);
        let token = read(text.as_bytes()).unwrap();
        assert_eq!((&*token.alg, token.kid.as_deref(), token.typ.as_deref()), ("RS256", Some("a"), Some("JWT")));
        assert_eq!((token.claims["iss"].as_str(), &token.signature[..]), (Some("x"), &b"signature"[..]));
        assert_eq!(token.signed, text.rsplit_once('.').unwrap().0.as_bytes());
    }

    #[test]
    fn what_is_no_token_of_this_form_may_be_that_of_somebody_else() {
        let good = made(r#"{"alg":"RS256"}"#, "{}");
        for foreign in
            ["", "opaque", "a.b", "a.b.c", "..", "a.b.c.d.e", &format!("{good}.x"), &good.replacen('.', "", 1)]
        {
            assert_eq!(read(foreign.as_bytes()).unwrap_err(), Refused::Foreign, "{foreign}");
        }
        assert_eq!(read(made("[]", "{}").as_bytes()).unwrap_err(), Refused::Foreign);
    }

    #[test]
    fn one_token_has_one_spelling() {
        // The last letter of two bytes carries two bits that say nothing: `eyJh` and so on.
        let good = format!("{}.{}.{}", encode(r#"{"alg":"x"}"#), encode("{}"), encode("ab"));
        assert!(read(good.as_bytes()).is_ok());
        assert!(good.ends_with("YWI"));
        wrong(&good.replace("YWI", "YWJ"));
        for added in ["=", " ", "\n", "\t", "%3D", "+", "/", "\0"] {
            wrong(&format!("{good}{added}"));
            assert!(read(format!("{added}{good}").as_bytes()).is_err());
            assert!(read(good.replace('.', &format!("{added}.")).as_bytes()).is_err());
        }
    }

    #[test]
    fn a_header_that_asks_for_what_is_not_understood_is_refused() {
        for (header, why) in [
            (r#"{"alg":"RS256","crit":["exp"],"exp":1}"#, "critical"),
            (r#"{"alg":"RS256","crit":[]}"#, "critical"),
            (r#"{"alg":"RS256","crit":["b64"],"b64":false}"#, "critical"),
            (r#"{"alg":"RS256","b64":false}"#, "not encoded"),
            (r#"{"alg":"RS256","b64":"false"}"#, "not encoded"),
            (r#"{"alg":"RS256","alg":"none"}"#, "stand once"),
            (r#"{"kid":"a"}"#, "names no algorithm"),
            (r#"{"alg":null}"#, "is no text"),
            (r#"{"alg":["RS256"]}"#, "is no text"),
            (r#"{"alg":"RS256","kid":7}"#, "is no text"),
        ] {
            assert!(wrong(&made(header, "{}")).contains(why), "{header}");
        }
    }

    #[test]
    fn claims_that_can_be_read_in_two_ways_are_refused() {
        for claims in [r#"{"iss":"a","iss":"b"}"#, "[]", "", "null", "{\"a\":1", "\"text\""] {
            assert!(wrong(&made(r#"{"alg":"RS256"}"#, claims)).contains("claims"), "{claims}");
        }
        assert!(wrong(&"a".repeat(LONGEST + 1)).contains("16 KiB"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
        }

        #[test]
        fn nothing_that_looks_like_a_token_makes_it_panic(header in ".{0,60}", claims in ".{0,60}") {
            let text = made(&header, &claims);
            if let Ok(token) = read(text.as_bytes()) {
                prop_assert!(text.as_bytes().starts_with(token.signed));
            }
        }

        #[test]
        fn what_is_read_is_what_was_written(kid in "[a-z]{1,20}", subject in "[a-zA-Z0-9 ]{0,40}") {
            let text = made(&format!(r#"{{"alg":"ES256","kid":"{kid}"}}"#), &format!(r#"{{"sub":"{subject}"}}"#));
            let token = read(text.as_bytes()).unwrap();
            prop_assert_eq!(token.kid.as_deref(), Some(&*kid));
            prop_assert_eq!(token.claims["sub"].as_str(), Some(&*subject));
        }
    }
}
