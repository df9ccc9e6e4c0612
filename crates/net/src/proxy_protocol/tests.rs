use proptest::prelude::*;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

use super::*;

fn whole(bytes: &[u8], client: Option<&str>) {
    let client = client.map(|text| text.parse().unwrap());
    assert_eq!(parse(bytes), Ok(Header::Whole { length: bytes.len(), client }));
    let longer = [bytes, b"GET / HTTP/1.1\r\n"].concat();
    assert_eq!(parse(&longer), Ok(Header::Whole { length: bytes.len(), client }));
    for n in 0..bytes.len() {
        assert_eq!(parse(&bytes[..n]), Ok(Header::Partial), "the first {n} bytes");
    }
}

fn second(command: u8, family: u8, told: &[u8]) -> Vec<u8> {
    let length = u16::try_from(told.len()).unwrap().to_be_bytes();
    [V2.as_slice(), &[0x20 | command, family], &length, told].concat()
}

const FOUR: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 1, 0x12, 0x67, 1, 0xbb];

#[test]
fn version_1_is_one_line() {
    whole(b"PROXY TCP4 192.0.2.1 198.51.100.1 4711 443\r\n", Some("192.0.2.1:4711"));
    whole(b"PROXY TCP6 2001:db8::1 2001:db8::2 65535 0\r\n", Some("[2001:db8::1]:65535"));
    whole(b"PROXY UNKNOWN\r\n", None);
    whole(b"PROXY UNKNOWN ffff::1 what ever\r\n", None);
    let longest = b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    assert_eq!(longest.len(), LONGEST_V1);
    whole(longest, None);
}

#[test]
fn what_is_nearly_version_1_is_refused() {
    for (text, why) in [
        ("GET / HTTP/1.1\r\n", Malformed::Missing),
        ("proxy TCP4", Malformed::Missing),
        ("PROXY\tTCP4", Malformed::Missing),
        ("PROXY TCP4 192.0.2.1 198.51.100.1 4711 443\n", Malformed::Invalid("end of line")),
        ("PROXY TCP4 192.0.2.1 198.51.100.1 4711 443 \r\n", Malformed::Invalid("end of line")),
        ("PROXY TCP4 192.0.2.1  198.51.100.1 4711 443\r\n", Malformed::Invalid("address")),
        ("PROXY TCP4 2001:db8::1 2001:db8::2 4711 443\r\n", Malformed::Invalid("address")),
        ("PROXY TCP6 192.0.2.1 198.51.100.1 4711 443\r\n", Malformed::Invalid("address")),
        ("PROXY TCP4 192.0.2.01 198.51.100.1 4711 443\r\n", Malformed::Invalid("address")),
        ("PROXY TCP4 192.0.2.1 198.51.100.1 +471 443\r\n", Malformed::Invalid("port")),
        ("PROXY TCP4 192.0.2.1 198.51.100.1 047 443\r\n", Malformed::Invalid("port")),
        ("PROXY TCP4 192.0.2.1 198.51.100.1 65536 443\r\n", Malformed::Invalid("port")),
        ("PROXY TCP4 192.0.2.1 198.51.100.1 4711\r\n", Malformed::Invalid("port")),
        ("PROXY UDP4 192.0.2.1 198.51.100.1 4711 443\r\n", Malformed::Invalid("family")),
        ("PROXY \r\n", Malformed::Invalid("family")),
    ] {
        assert_eq!(parse(text.as_bytes()), Err(why), "{text:?}");
    }
    let endless = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat();
    assert_eq!(parse(&endless[..LONGEST_V1 - 1]), Ok(Header::Partial));
    assert_eq!(parse(&endless), Err(Malformed::TooLong));
}

#[test]
fn version_2_tells_addresses_and_its_additions_are_passed_over() {
    whole(&second(1, 0x11, &FOUR), Some("192.0.2.1:4711"));
    let six: Vec<u8> = [[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]; 2].concat();
    let six = [six.as_slice(), &[0x12, 0x67, 1, 0xbb]].concat();
    whole(&second(1, 0x21, &six), Some("[2001:db8::1]:4711"));
    whole(&second(1, 0x31, &[0; 216]), None);
    whole(&second(1, 0x00, b""), None);
    whole(&second(0, 0x00, b""), None);
    // What stands in a LOCAL header is the balancer's own.
    whole(&second(0, 0x11, &FOUR), None);
    // An authority (type 2) and an empty addition.
    whole(&second(1, 0x11, &[&FOUR[..], b"\x02\0\x06a.test\x04\0\0"].concat()), Some("192.0.2.1:4711"));
}

#[test]
fn what_is_nearly_version_2_is_refused() {
    let with = |additions: &[u8]| second(1, 0x11, &[&FOUR[..], additions].concat());
    let mut version_1 = second(1, 0x11, &FOUR);
    version_1[12] = 0x11;
    for (bytes, why) in [
        (version_1, Malformed::Invalid("version")),
        (second(2, 0x11, &FOUR), Malformed::Invalid("command")),
        (second(1, 0x12, &FOUR), Malformed::Invalid("family")),
        (second(1, 0x41, &FOUR), Malformed::Invalid("family")),
        (second(1, 0x11, &FOUR[..11]), Malformed::Invalid("address")),
        (second(1, 0x21, &[0; 35]), Malformed::Invalid("address")),
        (second(1, 0x31, &[0; 215]), Malformed::Invalid("address")),
        (with(b"\x02\0"), Malformed::Invalid("addition")),
        (with(b"\x02\0\x07a.test"), Malformed::Invalid("addition")),
        (with(b"\x03\0\x04abcd"), Malformed::Invalid("checksum")),
        (with(b"\x03\0\x03abc"), Malformed::Invalid("checksum")),
    ] {
        assert_eq!(parse(&bytes), Err(why), "{bytes:?}");
    }
    let long = u16::try_from(LONGEST_V2 + 1).unwrap().to_be_bytes();
    assert_eq!(parse(&[V2.as_slice(), &[0x21, 0x11], &long].concat()), Err(Malformed::TooLong));
}

#[test]
fn a_checksum_that_is_right_is_accepted_wherever_it_stands() {
    assert_eq!(crc32c(b"123456789".iter().copied()), 0xe306_9283);
    for (before, after) in [(&b""[..], &b""[..]), (b"\x02\0\x06a.test", b"\x04\0\x01x")] {
        let mut bytes = second(1, 0x11, &[&FOUR, before, b"\x03\0\x04\0\0\0\0", after].concat());
        let sum = crc32c(bytes.iter().copied()).to_be_bytes();
        let place = 16 + 12 + before.len() + 3;
        bytes[place..place + 4].copy_from_slice(&sum);
        whole(&bytes, Some("192.0.2.1:4711"));
        bytes[16] ^= 1;
        assert_eq!(parse(&bytes), Err(Malformed::Invalid("checksum")));
    }
}

#[test]
fn what_is_written_is_what_the_protocol_says() {
    let (client, local) = ("192.0.2.1:4711".parse().unwrap(), "198.51.100.1:443".parse().unwrap());
    assert_eq!(header(Version::V1, Some(client), local), b"PROXY TCP4 192.0.2.1 198.51.100.1 4711 443\r\n");
    assert_eq!(header(Version::V2, Some(client), local), second(1, 0x11, &FOUR));
    let six = "[2001:db8::1]:4711".parse().unwrap();
    let mixed = b"PROXY TCP6 2001:db8::1 ::ffff:198.51.100.1 4711 443\r\n";
    assert_eq!(header(Version::V1, Some(six), local), mixed);
    assert_eq!(header(Version::V1, None, local), b"PROXY UNKNOWN\r\n");
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(client: Option<SocketAddr>, local: SocketAddr, second in any::<bool>()) {
        let version = if second { Version::V2 } else { Version::V1 };
        let bytes = header(version, client, local);
        let Ok(Header::Whole { length, client: told }) = parse(&bytes) else { panic!("{bytes:?}") };
        let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        prop_assert_eq!((length, told.map(plain)), (bytes.len(), client.map(plain)));
    }

    #[test]
    fn whatever_comes_a_header_means_the_same_with_more_behind_it(
        version in 0_usize..3, tail in prop::collection::vec(any::<u8>(), 0..300), cut in 0_usize..300)
    {
        let begin: &[u8] = [&b""[..], b"PROXY TCP4 ", b"\r\n\r\n\0\r\nQUIT\n\x21"][version];
        let bytes = [begin, &tail].concat();
        let part = &bytes[..cut.min(bytes.len())];
        match parse(part) {
            Ok(Header::Partial) => {}
            settled => {
                if let Ok(Header::Whole { length, .. }) = settled {
                    prop_assert!(length <= part.len());
                }
                prop_assert_eq!(parse(&bytes), settled);
            }
        }
    }
}

#[tokio::test]
async fn nothing_behind_the_header_is_read_however_it_comes() {
    let v2 = second(1, 0x11, &[&FOUR[..], b"\x04\x02\x00", &[0; 512]].concat());
    for header in [b"PROXY TCP4 192.0.2.1 198.51.100.1 4711 443\r\n".as_slice(), &v2] {
        for piece in [1, 7, 300, 4096] {
            let (mut client, server) = UnixStream::pair().unwrap();
            let mut socket = Socket::from(server);
            let bytes = [header, b"\x16\x03\x01"].concat();
            let sending = async {
                for piece in bytes.chunks(piece) {
                    client.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
            };
            let deadline = tokio::time::Instant::now().into_std() + std::time::Duration::from_secs(5);
            let (told, ()) = tokio::join!(read(&mut socket, deadline), sending);
            assert_eq!(told.unwrap(), Some("192.0.2.1:4711".parse().unwrap()));
            let mut rest = [0; 8];
            assert_eq!(socket.try_read(&mut rest).unwrap(), 3, "pieces of {piece}");
            assert_eq!(&rest[..3], b"\x16\x03\x01");
        }
    }
}
