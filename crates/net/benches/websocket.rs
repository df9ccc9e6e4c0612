//! What it costs to follow the frames of a WebSocket, for each read of a tunnel.

use divan::Bencher;
use divan::counter::BytesCount;
use pylon_net::websocket::frame::{Frames, Sender};

fn main() {
    divan::main();
}

/// As many whole frames of a client as fit into one read of 16 KiB.
fn read(payload: usize) -> Vec<u8> {
    let mut frame = vec![0x82];
    match payload {
        0..=125 => frame.push(0x80 | payload as u8),
        _ => {
            frame.push(0xFE);
            frame.extend_from_slice(&(payload as u16).to_be_bytes());
        }
    }
    frame.resize(frame.len() + 4 + payload, 7);
    frame.repeat(16 * 1024 / frame.len())
}

#[divan::bench(args = [16, 125, 1024, 8000])]
fn follow(bencher: Bencher, payload: usize) {
    let bytes = read(payload);
    let mut frames = Frames::new(Sender::Client, Some(1 << 20));
    bencher.counter(BytesCount::of_slice(&bytes)).bench_local(|| frames.advance(divan::black_box(&bytes)).is_ok());
}
