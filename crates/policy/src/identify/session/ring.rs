//! Seals what a browser keeps for the gateway, so that nobody else can read it, change it or use it for something else.
//!
//! An envelope is base64url of version, name of the key, salt, ciphertext and tag. The cipher is AES-256-GCM (NIST SP 800-38D); its key and
//! nonce are made anew for each envelope from the secret and 128 bits of chance (HKDF, RFC 5869), so that no number of envelopes
//! brings a nonce back under one key. What an envelope is for goes in as associated data. The first secret of the document seals,
//! all of them open.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pylon_core::secret::Secret;

/// The form of envelopes that is written and read.
const VERSION: u8 = 1;
/// The length of a key's name, in bytes.
const NAME: usize = 4;
/// The length of the salt, in bytes.
const SALT: usize = 16;
/// Version, name and salt.
const HEAD: usize = 1 + NAME + SALT;
/// The length of a key of the cipher, in bytes.
const KEY: usize = 32;

/// The least length of a secret, in bytes.
pub(super) const SHORTEST: usize = 32;

/// The secrets that envelopes are sealed with.
#[derive(Debug)]
pub(super) struct Ring {
    keys: Box<[SealingKey]>,
}

struct SealingKey {
    name: [u8; NAME],
    root: Prk,
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x?}", self.name)
    }
}

/// What was in an envelope.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) content: Vec<u8>,
    /// Whether the key that seals now sealed it; otherwise it is time to seal it anew.
    pub(super) current: bool,
}

/// How many bytes are wanted of a key's material.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl Ring {
    /// A ring of `secrets`, of which the first seals.
    pub(super) fn new<'s>(secrets: impl IntoIterator<Item = &'s Secret>) -> Option<Self> {
        let keys = secrets.into_iter().map(SealingKey::new).collect::<Option<Vec<_>>>()?;
        (!keys.is_empty()).then(|| Self { keys: keys.into() })
    }

    /// An envelope around `content` that only opens under the same `bound`.
    pub(super) fn seal(&self, bound: &[u8], content: &[u8]) -> Option<String> {
        let key = self.keys.first()?;
        let mut head = [VERSION; HEAD];
        let (_, rest) = head.split_at_mut(1);
        let (name, salt) = rest.split_at_mut(NAME);
        name.copy_from_slice(&key.name);
        rand::fill(salt).ok()?;
        let (cipher, nonce) = key.material(salt)?;
        let mut sealed = content.to_vec();
        cipher.seal_in_place_append_tag(nonce, Aad::from([&head, bound].concat()), &mut sealed).ok()?;
        Some(URL_SAFE_NO_PAD.encode([&head[..], &sealed].concat()))
    }

    /// What is in an envelope; none where it is not whole, not of this ring or for something else.
    pub(super) fn open(&self, bound: &[u8], envelope: &[u8]) -> Option<Opened> {
        let mut bytes = URL_SAFE_NO_PAD.decode(envelope).ok()?;
        let (head, sealed) = bytes.split_at_mut_checked(HEAD)?;
        let (version, rest) = head.split_first()?;
        let (name, salt) = rest.split_at_checked(NAME)?;
        if *version != VERSION {
            return None;
        }
        // Names are short: two keys may have the same one.
        let named = self.keys.iter().enumerate().filter(|(_, key)| key.name == name);
        for (place, key) in named {
            let (cipher, nonce) = key.material(salt)?;
            let aad = Aad::from([&*head, bound].concat());
            // What fails to open is wiped, so each try has a copy of its own.
            let mut copy = sealed.to_vec();
            if let Ok(content) = cipher.open_in_place(nonce, aad, &mut copy) {
                return Some(Opened { content: content.to_vec(), current: place == 0 });
            }
        }
        None
    }
}

impl SealingKey {
    fn new(secret: &Secret) -> Option<Self> {
        let root = Salt::new(HKDF_SHA256, b"pylon session").extract(secret.expose());
        let mut name = [0; NAME];
        root.expand(&[b"name"], Length(NAME)).ok()?.fill(&mut name).ok()?;
        Some(Self { name, root })
    }

    fn material(&self, salt: &[u8]) -> Option<(LessSafeKey, Nonce)> {
        let mut bytes = [0; KEY + NONCE_LEN];
        self.root.expand(&[b"envelope", salt], Length(bytes.len())).ok()?.fill(&mut bytes).ok()?;
        let (key, nonce) = bytes.split_at(KEY);
        let cipher = UnboundKey::new(&AES_256_GCM, key).ok()?;
        Some((LessSafeKey::new(cipher), Nonce::try_assume_unique_for_key(nonce).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ring(secrets: &[&str]) -> Ring {
        let secrets: Vec<Secret> = secrets.iter().map(|text| Secret::new(text.repeat(8))).collect();
        Ring::new(&secrets).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_again_and_tells_nothing() {
        let ring = ring(&["abcd"]);
        let (one, other) = (ring.seal(b"a", b"hello").unwrap(), ring.seal(b"a", b"hello").unwrap());
        assert_ne!(one, other);
        assert!(one.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
        let opened = ring.open(b"a", one.as_bytes()).unwrap();
        assert_eq!((&opened.content[..], opened.current), (&b"hello"[..], true));
        assert!(!format!("{ring:?}").contains("abcd"));
    }

    #[test]
    fn a_ring_that_turns_opens_what_it_sealed_before_and_seals_with_the_new_key() {
        let before = ring(&["abcd"]).seal(b"a", b"x").unwrap();
        let turned = ring(&["efgh", "abcd"]);
        assert_eq!(turned.open(b"a", before.as_bytes()), Some(Opened { content: b"x".to_vec(), current: false }));
        let after = turned.seal(b"a", b"x").unwrap();
        assert!(turned.open(b"a", after.as_bytes()).is_some_and(|opened| opened.current));
        assert_eq!(ring(&["abcd"]).open(b"a", after.as_bytes()), None, "the old key does not open what the new sealed");
        assert_eq!(ring(&["efgh"]).open(b"a", before.as_bytes()), None, "a key that is gone opens nothing");
    }

    #[test]
    fn an_envelope_for_one_thing_is_none_for_another() {
        let ring = ring(&["abcd"]);
        let sealed = ring.seal(b"session of https://id.test", b"x").unwrap();
        for bound in
            [&b""[..], b"session of https://id.tesu", b"login of https://id.test", b"session of https://id.test "]
        {
            assert_eq!(ring.open(bound, sealed.as_bytes()), None);
        }
    }

    proptest! {
        #[test]
        fn no_change_of_a_single_letter_opens(content in proptest::collection::vec(any::<u8>(), 0..64), place: prop::sample::Index, letter in "[A-Za-z0-9_-]") {
            let ring = ring(&["abcd", "efgh"]);
            let sealed = ring.seal(b"a", &content).unwrap();
            let mut forged = sealed.clone().into_bytes();
            let place = place.index(forged.len());
            forged[place] = letter.as_bytes()[0];
            let opened = ring.open(b"a", &forged);
            if forged == sealed.as_bytes() {
                prop_assert_eq!(opened.unwrap().content, content);
            } else {
                prop_assert_eq!(opened, None);
            }
        }

        #[test]
        fn no_bytes_make_it_panic_or_open(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let ring = ring(&["abcd"]);
            prop_assert_eq!(ring.open(b"a", &bytes), None);
            prop_assert_eq!(ring.open(b"a", URL_SAFE_NO_PAD.encode(&bytes).as_bytes()), None);
        }

        #[test]
        fn a_part_is_nothing(content in proptest::collection::vec(any::<u8>(), 0..64), cut: prop::sample::Index) {
            let ring = ring(&["abcd"]);
            let sealed = ring.seal(b"a", &content).unwrap();
            prop_assert_eq!(ring.open(b"a", &sealed.as_bytes()[..cut.index(sealed.len())]), None);
        }
    }
}
