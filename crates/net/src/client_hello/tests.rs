use std::sync::Arc;

use proptest::prelude::*;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::*;

/// The first message of a real client.
fn real(name: &str) -> Vec<u8> {
    let config = ClientConfig::builder_with_provider(crate::tls::provider()).with_safe_default_protocol_versions();
    let config = config.unwrap().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(config), name.to_owned().try_into().unwrap()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

fn told(name: Option<&str>) -> Hello {
    Hello::Whole { name: name.map(Into::into) }
}

/// A message with these extensions, in one record.
fn with(extensions: &[u8]) -> Vec<u8> {
    let mut body = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 1], &[1, 0]].concat();
    body.extend_from_slice(&u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend_from_slice(extensions);
    record(&body)
}

fn record(body: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(body.len()).unwrap().to_be_bytes();
    let message = [&[CLIENT_HELLO, a, b, c], body].concat();
    records(&message, message.len())
}

fn records(message: &[u8], each: usize) -> Vec<u8> {
    let record = |piece: &[u8]| [&[22, 3, 1][..], &u16::try_from(piece.len()).unwrap().to_be_bytes(), piece].concat();
    message.chunks(each).flat_map(record).collect()
}

fn sni(name: &[u8]) -> Vec<u8> {
    let n = u16::try_from(name.len()).unwrap();
    [&[0, 0][..], &(n + 5).to_be_bytes(), &(n + 3).to_be_bytes(), &[0], &n.to_be_bytes(), name].concat()
}

#[test]
fn the_name_of_a_real_client_is_read_however_it_comes() {
    let bytes = real("Api.Example.com");
    assert_eq!(parse(&bytes), Ok(told(Some("api.example.com"))));
    assert_eq!(parse(&[&bytes[..], b"more"].concat()), Ok(told(Some("api.example.com"))));
    for n in 0..bytes.len() {
        let Ok(Hello::Partial(needed)) = parse(&bytes[..n]) else { panic!("the first {n} bytes") };
        assert!(needed > n && needed <= bytes.len());
    }
    for each in [1, 3, 100] {
        assert_eq!(parse(&records(&bytes[5..], each)), Ok(told(Some("api.example.com"))), "records of {each}");
    }
    assert_eq!(parse(&real("192.0.2.1")), Ok(told(None)));
}

#[test]
fn a_message_without_a_name_asks_for_none() {
    assert_eq!(parse(&with(b"")), Ok(told(None)));
    let bare = [&[3, 1][..], &[7; 32], &[0], &[0, 2, 0, 5], &[1, 0]].concat();
    assert_eq!(parse(&record(&bare)), Ok(told(None)));
    assert_eq!(parse(&with(&sni(b"A.test."))), Ok(told(Some("a.test"))));
}

#[test]
fn a_name_that_could_be_read_in_two_ways_is_refused() {
    let wrong = Err(NoHello::Invalid("name"));
    let two = [0, 0, 0, 12, 0, 10, 0, 0, 2, b'a', b'b', 0, 0, 2, b'c', b'd'];
    for extensions in [
        [sni(b"a.test"), sni(b"b.test")].concat(),
        two.to_vec(),
        sni(b""),
        sni(b"a.test\0.b.test"),
        sni(b"a test"),
        sni(b"a:443"),
        sni("ä.test".as_bytes()),
        vec![0, 0, 0, 0],
        vec![0, 0, 0, 2, 0, 0],
    ] {
        assert_eq!(parse(&with(&extensions)), wrong, "{extensions:?}");
    }
}

#[test]
fn what_is_no_tls_is_told_by_its_first_byte_and_what_is_endless_by_its_length() {
    assert_eq!(parse(b"G"), Err(NoHello::OtherProtocol));
    assert_eq!(parse(b"\x16\x02"), Err(NoHello::OtherProtocol));
    assert_eq!(parse(b"\x80\x2e\x01\x03\x01"), Err(NoHello::OtherProtocol));
    assert_eq!(parse(b"\x16\x03\x01\0\0"), Err(NoHello::Invalid("record")));
    assert_eq!(parse(b"\x16\x03\x01\0\x04\x02\0\0\0"), Err(NoHello::Invalid("type")));
    assert_eq!(parse(b"\x16\x03\x01\x40\0"), Err(NoHello::TooLong));
    assert_eq!(parse(b"\x16\x03\x01\0\x04\x01\xff\xff\xff"), Err(NoHello::TooLong));
    assert_eq!(parse(&with(&[0, 1, 0, 9, 0])), Err(NoHello::Invalid("length")));
    // Cut into the smallest records, a message of no great length becomes too long.
    let slow = records(&[&[CLIENT_HELLO, 0, 0x3f, 0][..], &[0; 0x3f00]].concat(), 1);
    assert_eq!(parse(&slow[..LONGEST]), Err(NoHello::TooLong));
}

proptest! {
    #[test]
    fn whatever_comes_it_means_the_same_with_more_behind_it(
        at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(), each in 1_usize..200)
    {
        let mut bytes = records(&with(&sni(b"a.test"))[5..], each);
        let place = at.index(bytes.len());
        bytes[place] = byte;
        let part = &bytes[..cut.index(bytes.len() + 1)];
        match parse(part) {
            Ok(Hello::Partial(needed)) => prop_assert!(needed > part.len() && needed <= LONGEST),
            settled => prop_assert_eq!(parse(&bytes), settled),
        }
    }
}
