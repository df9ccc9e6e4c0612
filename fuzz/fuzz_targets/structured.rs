//! Any bytes as a dictionary of structured fields: read or refused, the same once it is written again, and the same over several lines.

#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use pylon_policy::structured::{Bare, Item, LONGEST, Member, dictionary, parse, write_member};

fuzz_target!(|bytes: &[u8]| {
    let Some(read) = parse(bytes) else { return };
    assert!(bytes.len() <= LONGEST);
    let mut again = String::new();
    for (index, (key, member)) in read.iter().enumerate() {
        assert!(read.iter().take(index).all(|(other, _)| other != key));
        if index > 0 {
            again.push_str(", ");
        }
        again.push_str(key);
        match member {
            Member::Item(Item { value: Bare::Boolean(true), params }) if params.is_empty() => {}
            member => {
                again.push('=');
                write_member(member, &mut again);
            }
        }
    }
    // A form of its own may be longer than what was read, and then over the bound.
    if again.len() <= LONGEST {
        assert_eq!(parse(again.as_bytes()).as_ref(), Some(&read), "{again}");
    }
    let (mut headers, name) = (HeaderMap::new(), HeaderName::from_static("x"));
    for (key, member) in &read {
        let mut line = format!("{key}=");
        write_member(member, &mut line);
        headers.append(&name, HeaderValue::try_from(line).expect("what is written can stand in a field"));
    }
    let lines = dictionary(headers.get_all(&name));
    assert!(lines.as_ref() == Some(&read) || lines.is_none() && again.len() > LONGEST / 2);
});
