use super::*;
use proptest::prelude::*;

fn frame(first: u8, masked: bool, length: u64) -> Vec<u8> {
    let mask: u8 = if masked { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match length {
        0..=125 => bytes.push(mask | length as u8),
        126..=0xFFFF => {
            bytes.push(mask | 0x7E);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(mask | 0x7F);
            bytes.extend_from_slice(&length.to_be_bytes());
        }
    }
    if masked {
        bytes.extend_from_slice(&[1, 2, 3, 4]);
    }
    bytes.resize(bytes.len() + length.min(100_000) as usize, 0x88);
    bytes
}

fn broken(sender: Sender, frames: &[Vec<u8>]) -> Option<(usize, Violation)> {
    Frames::new(sender, Some(1000)).advance(&frames.concat()).err().map(|broken| (broken.good, broken.why))
}

#[test]
fn what_breaks_the_protocol_is_found_where_it_begins() {
    use Sender::{Client, Service};
    let hello = frame(0x81, true, 5);
    let whole = hello.len();
    for (second, why) in [
        (frame(0x81, false, 5), Violation::Unmasked),
        (frame(0x83, true, 5), Violation::Opcode),
        (frame(0x8B, true, 5), Violation::Opcode),
        (frame(0x09, true, 5), Violation::FragmentedControl),
        (frame(0x88, true, 126), Violation::LongControl),
        (frame(0x80, true, 5), Violation::Fragments),
        (vec![0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0], Violation::Length),
        (vec![0x82, 0xFF, 0x7F, 0, 0, 0, 0, 0, 0, 0], Violation::TooLong),
        (frame(0x82, true, 1001), Violation::TooLong),
    ] {
        assert_eq!(broken(Client, &[hello.clone(), second]), Some((whole, why)));
    }
    assert_eq!(broken(Service, &[frame(0x81, true, 5)]), Some((0, Violation::Masked)));
    assert_eq!(broken(Service, &[frame(0x01, false, 5), frame(0x81, false, 5)]), Some((7, Violation::Fragments)));
}

#[test]
fn fragments_are_one_message_and_control_frames_may_stand_between() {
    let pieces = [
        frame(0x02, true, 600),
        frame(0x89, true, 125),
        frame(0x00, true, 300),
        frame(0x80, true, 100),
        frame(0x81, true, 0),
    ];
    assert_eq!(broken(Sender::Client, &pieces), None);
    let pieces = [frame(0x02, true, 600), frame(0x00, true, 401)];
    assert_eq!(broken(Sender::Client, &pieces).map(|(_, why)| why), Some(Violation::TooLong));
    // The reserved bits belong to extensions.
    assert_eq!(broken(Sender::Service, &[frame(0xF1, false, 3)]), None);
}

#[test]
fn a_close_has_come_when_it_is_whole() {
    let mut frames = Frames::new(Sender::Client, None);
    let close = close(Sender::Client, Code::GoingAway, [9, 8, 7, 6]);
    let (first, last) = close.split_at(close.len() - 1);
    frames.advance(first).unwrap();
    assert!(!frames.has_closed() && !frames.at_boundary());
    frames.advance(last).unwrap();
    assert!(frames.has_closed() && frames.at_boundary());
    assert_eq!(super::close(Sender::Service, Code::Protocol, [0; 4]), [0x88, 2, 3, 0xEA]);
}

#[test]
fn a_frame_is_finished_and_nothing_more() {
    let mut frames = Frames::new(Sender::Service, None);
    let wire = [frame(0x82, false, 70_000), frame(0x81, false, 3)].concat();
    frames.advance(&wire[..10]).unwrap();
    assert_eq!(frames.finish_frame(&wire[10..]), Ok(70_000));
    assert!(frames.at_boundary());
    assert_eq!(frames.finish_frame(&wire[70_010..]), Ok(0));
}

proptest! {
    #[test]
    fn frames_end_where_they_end_however_the_bytes_are_cut(
        lengths in prop::collection::vec(prop_oneof![0_u64..4, 120_u64..130, 65_530_u64..65_540], 1..8),
        client: bool,
        cuts in prop::collection::vec(1_usize..70_000, 1..20),
    ) {
        let sender = if client { Sender::Client } else { Sender::Service };
        let wires: Vec<_> = lengths.iter().map(|length| frame(0x82, client, *length)).collect();
        let wire = wires.concat();
        let ends: Vec<usize> = wires.iter().scan(0, |at, wire| { *at += wire.len(); Some(*at) }).collect();
        let (mut frames, mut at, mut sizes) = (Frames::new(sender, None), 0, cuts.iter().cycle());
        while at < wire.len() {
            let next = (at + sizes.next().unwrap()).min(wire.len());
            frames.advance(&wire[at..next]).unwrap();
            at = next;
            prop_assert_eq!(frames.at_boundary(), ends.contains(&at), "at {}", at);
        }
    }

    #[test]
    fn any_bytes_are_judged_alike_however_they_are_cut(bytes in prop::collection::vec(any::<u8>(), 0..300), cut: usize) {
        let mut whole = Frames::new(Sender::Client, None);
        let verdict = whole.advance(&bytes).map_err(|broken| broken.why);
        let mut parts = Frames::new(Sender::Client, None);
        let (first, last) = bytes.split_at(cut % (bytes.len() + 1));
        let apart = parts.advance(first).and_then(|()| parts.advance(last)).map_err(|broken| broken.why);
        prop_assert_eq!(verdict, apart);
        if verdict.is_ok() {
            prop_assert_eq!(whole.at_boundary(), parts.at_boundary());
        }
    }
}
