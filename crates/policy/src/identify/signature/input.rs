//! Reads which signatures a request has, and what each says of itself (RFC 9421 §4).

use http::{HeaderMap, HeaderName};

use crate::structured::{self, Bare, Item, Member, Params};

pub(super) const SIGNATURE: HeaderName = HeaderName::from_static("signature");
pub(super) const SIGNATURE_INPUT: HeaderName = HeaderName::from_static("signature-input");

/// The most signatures of one request.
const MOST: usize = 8;
/// The most components that one covers.
const MOST_COMPONENTS: usize = 64;

/// What is found in a request.
#[derive(Debug)]
pub(super) enum Input {
    /// It is not signed.
    Nothing,
    /// It is, in a way that cannot be read.
    Wrong(&'static str),
    /// It is signed so.
    All(Vec<Signed>),
}

/// One signature. Nothing of it is proved yet.
#[derive(Debug)]
pub(super) struct Signed {
    /// What it covers, in order.
    pub(super) components: Vec<Item>,
    /// All that it says of itself, in order.
    pub(super) params: Params,
    pub(super) keyid: Option<String>,
    pub(super) alg: Option<String>,
    /// In seconds since 1970, as the other moment is.
    pub(super) created: Option<u64>,
    pub(super) expires: Option<u64>,
    pub(super) nonce: Option<String>,
    pub(super) tag: Option<String>,
    pub(super) signature: Vec<u8>,
}

/// Reads them all.
pub(super) fn read(headers: &HeaderMap) -> Input {
    match (headers.contains_key(&SIGNATURE), headers.contains_key(&SIGNATURE_INPUT)) {
        (false, false) => return Input::Nothing,
        (true, true) => {}
        _ => return Input::Wrong("one of `Signature` and `Signature-Input` is missing"),
    }
    read_both(headers).map_or_else(Input::Wrong, Input::All)
}

fn read_both(headers: &HeaderMap) -> Result<Vec<Signed>, &'static str> {
    let inputs = structured::field(headers, &SIGNATURE_INPUT).ok_or("`Signature-Input` is no dictionary")?;
    let signatures = structured::field(headers, &SIGNATURE).ok_or("`Signature` is no dictionary")?;
    if inputs.is_empty() || inputs.len() != signatures.len() || inputs.len() > MOST {
        return Err("`Signature` and `Signature-Input` do not belong together, or hold too many");
    }
    let mut all = Vec::with_capacity(inputs.len());
    for (label, input) in inputs {
        let Member::List(components, params) = input else { return Err("`Signature-Input` holds what is no list") };
        let of_label = signatures.iter().find(|(other, _)| *other == label).map(|(_, member)| member);
        let signature = match of_label {
            Some(Member::Item(Item { value: Bare::Bytes(bytes), params })) if params.is_empty() => bytes.clone(),
            Some(_) => return Err("`Signature` holds what is no signature"),
            None => return Err("a signature has another name than what it covers"),
        };
        if components.len() > MOST_COMPONENTS || components.iter().any(|it| !matches!(it.value, Bare::Text(_))) {
            return Err("a signature covers what is no component, or too many");
        }
        let signed = signed(components, params, signature);
        all.push(signed.ok_or("a parameter of a signature is of the wrong kind")?);
    }
    Ok(all)
}

fn signed(components: Vec<Item>, params: Params, signature: Vec<u8>) -> Option<Signed> {
    let find = |name: &str| params.iter().find(|(key, _)| key == name).map(|(_, value)| value);
    let text = |name: &str| match find(name) {
        None => Some(None),
        Some(Bare::Text(text)) => Some(Some(text.clone())),
        Some(_) => None,
    };
    let moment = |name: &str| match find(name) {
        None => Some(None),
        Some(Bare::Integer(seconds)) => u64::try_from(*seconds).ok().map(Some),
        Some(_) => None,
    };
    let (keyid, alg, nonce, tag) = (text("keyid")?, text("alg")?, text("nonce")?, text("tag")?);
    let (created, expires) = (moment("created")?, moment("expires")?);
    Some(Signed { components, params, keyid, alg, created, expires, nonce, tag, signature })
}
