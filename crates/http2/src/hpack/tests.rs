//! The examples of RFC 7541, what has to be refused, and what holds for any fields.

use bytes::BytesMut;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use proptest::prelude::*;

use super::{Decoder, Encoder, Error, Field, Summary};

fn text(field: Field) -> String {
    let string = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match field {
        Field::Method(method) => format!(":method: {method}"),
        Field::Scheme(scheme) => format!(":scheme: {}", string(&scheme)),
        Field::Authority(authority) => format!(":authority: {}", string(&authority)),
        Field::Path(path) => format!(":path: {}", string(&path)),
        Field::Protocol(protocol) => format!(":protocol: {}", string(&protocol)),
        Field::Status(status) => format!(":status: {}", status.as_u16()),
        Field::Regular(name, value) => format!("{name}: {}", string(value.as_bytes())),
    }
}

fn read(decoder: &mut Decoder, block: &[u8]) -> Result<(Vec<String>, Summary), Error> {
    let mut fields = Vec::new();
    let summary = decoder.decode(block, usize::MAX, |field| fields.push(text(field)))?;
    Ok((fields, summary))
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

#[test]
fn the_requests_of_the_rfc_are_read_plain_and_coded() {
    let first = [":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"];
    let second = [&first[..], &["cache-control: no-cache"]].concat();
    let third = [
        ":method: GET",
        ":scheme: https",
        ":path: /index.html",
        ":authority: www.example.com",
        "custom-key: custom-value",
    ];
    let plain = [
        "828684410f7777772e6578616d706c652e636f6d",
        "828684be58086e6f2d6361636865",
        "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
    ];
    let coded = [
        "828684418cf1e3c2e5f23a6ba0ab90f4ff",
        "828684be5886a8eb10649cbf",
        "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
    ];
    for blocks in [plain, coded] {
        let mut decoder = Decoder::default();
        let expected = [&first[..], &second, &third];
        for (block, expected) in blocks.iter().zip(expected) {
            assert_eq!(read(&mut decoder, &bytes(block)).unwrap().0, expected);
        }
    }
}

#[test]
fn the_answers_of_the_rfc_push_each_other_out_of_a_small_table() {
    // §C.6, behind a change of the table's size to 256.
    let mut decoder = Decoder::default();
    let first = "3fe101488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3";
    let fields = [
        ":status: 302",
        "cache-control: private",
        "date: Mon, 21 Oct 2013 20:13:21 GMT",
        "location: https://www.example.com",
    ];
    assert_eq!(read(&mut decoder, &bytes(first)).unwrap().0, fields);
    let second = read(&mut decoder, &bytes("4883640effc1c0bf")).unwrap().0;
    assert_eq!(second, [":status: 307", fields[1], fields[2], fields[3]]);
    let third = "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007";
    let fields = [
        ":status: 200",
        "cache-control: private",
        "date: Mon, 21 Oct 2013 20:13:22 GMT",
        "location: https://www.example.com",
        "content-encoding: gzip",
        "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
    ];
    assert_eq!(read(&mut decoder, &bytes(third)).unwrap().0, fields);
}

#[test]
fn what_no_table_holds_is_refused() {
    for block in [
        "80",             // index 0
        "be",             // beyond the table
        "ff8080808080",   // an index without end
        "ffffffffffff0f", // one that is larger than any
        "40",             // a literal without a name
        "000361",         // a string in part
        "0081ff",         // padding of a whole octet
        "3fe21f",         // a table larger than ours
        "8220",           // a size behind a field
        "7f",             // a name by half an index
    ] {
        assert_eq!(read(&mut Decoder::default(), &bytes(block)).unwrap_err(), Error, "{block}");
    }
}

#[test]
fn what_no_message_has_is_told_and_the_table_stays_right() {
    let mut decoder = Decoder::default();
    // An upper-case name, which goes into the table; a value that breaks a line; twice :path; :path behind a field.
    for (block, fields) in [
        ("4001410162", vec![]),
        ("0001610262 0a".trim(), vec![]),
        ("8484", vec![":path: /"]),
        ("00016101628 4".trim(), vec!["a: b"]),
        ("be", vec![]),
        ("00023a6101 62".trim(), vec![]),
        ("0000 0162".trim(), vec![]),
    ] {
        let (read, summary) = read(&mut decoder, &bytes(block)).unwrap();
        assert!(summary.malformed, "{block}");
        assert_eq!(read, fields, "{block}");
    }
    assert_eq!(read(&mut decoder, &bytes("400161016282be")).unwrap().0, ["a: b", "a: b"]);
}

#[test]
fn fields_beyond_the_limit_are_not_handed_over() {
    let mut encoder = Encoder::default();
    let mut block = BytesMut::new();
    let value = HeaderValue::from_bytes(&[b'x'; 900]).unwrap();
    for _ in 0..10 {
        encoder.field(&HeaderName::from_static("large"), &value, &mut block);
    }
    let mut count = 0;
    let summary = Decoder::default().decode(&block, 3000, |_| count += 1).unwrap();
    assert_eq!((count, summary.size), (3, 9370));
}

#[test]
fn what_comes_again_takes_one_byte_and_secrets_are_never_remembered() {
    let mut encoder = Encoder::default();
    let fields = [("user-agent", "x/1"), ("accept", "*/*"), ("via", "2 gate"), ("x-own", "1"), ("date", "today")];
    let mut write = |secret: &'static str| {
        let mut block = BytesMut::new();
        encoder.begin(&mut block);
        encoder.method(&Method::GET, &mut block);
        encoder.authority(b"a.test", &mut block);
        for (name, value) in fields {
            encoder.field(&HeaderName::from_static(name), &HeaderValue::from_static(value), &mut block);
        }
        let first = block.len();
        encoder.field(&http::header::AUTHORIZATION, &HeaderValue::from_static(secret), &mut block);
        (first, block)
    };
    write("Bearer a");
    let (length, block) = write("Bearer a");
    assert_eq!(length, 2 + fields.len());
    assert_eq!(block[length..], [&[0x1f, 8, 8][..], b"Bearer a"].concat());
}

#[derive(Debug, Clone)]
enum Deed {
    Block(Vec<(String, String, bool)>),
    Table(usize),
}

fn deed() -> impl Strategy<Value = Deed> {
    // Few names and values, so that many come again; some that fill the table.
    let name = prop_oneof!["[a-d]{1,2}", Just("cookie".to_owned()), Just("date".to_owned()), "x-[a-z]{1,20}"];
    let value = prop_oneof!["[ -~]{0,3}", "[a-z]{20,40}", "[a-z]{500,1500}"];
    prop_oneof![
        6 => prop::collection::vec((name, value, any::<bool>()), 0..12).prop_map(Deed::Block),
        1 => prop_oneof![Just(0), 0..300_usize, 0..10_000_usize].prop_map(Deed::Table),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(deeds in prop::collection::vec(deed(), 0..40)) {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        for deed in deeds {
            let fields = match deed {
                Deed::Table(size) => {
                    encoder.set_max(size);
                    continue;
                }
                Deed::Block(fields) => fields,
            };
            let mut block = BytesMut::new();
            encoder.begin(&mut block);
            encoder.status(StatusCode::from_u16(200 + fields.len() as u16).unwrap(), &mut block);
            encoder.path([b"/", fields.first().map_or(b"", |field| field.0.as_bytes())], &mut block);
            let mut written = Vec::new();
            for (name, value, sensitive) in fields {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                let mut value = HeaderValue::from_str(value.as_str()).unwrap();
                value.set_sensitive(sensitive);
                encoder.field(&name, &value, &mut block);
                written.push((name, value));
            }
            let mut fields = Vec::new();
            let summary = decoder.decode(&block, usize::MAX, |field| fields.push(field)).unwrap();
            prop_assert!(!summary.malformed);
            let read: Vec<_> = fields.into_iter().skip(2).map(|field| match field {
                Field::Regular(name, value) => (name, value),
                other => panic!("{other:?}"),
            }).collect();
            prop_assert!(read.iter().zip(&written).all(|(read, sent)| !sent.1.is_sensitive() || read.1.is_sensitive()));
            prop_assert_eq!(read, written);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..6)) {
        let mut decoder = Decoder::default();
        for block in blocks {
            let _ = decoder.decode(&block, 1000, drop);
        }
    }
}
