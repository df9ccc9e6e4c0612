//! Any bytes as the frames of a WebSocket: never a panic, and the same verdict and the same ends however they are split.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pylon_net::websocket::frame::{Broken, Frames, Sender};

fuzz_target!(|input: (u8, u8, bool, u16, &[u8])| {
    let (first, second, client, limit, bytes) = input;
    let sender = if client { Sender::Client } else { Sender::Service };
    let limit = (limit > 0).then_some(u64::from(limit));
    let (a, b) = (usize::from(first).min(bytes.len()), usize::from(second).min(bytes.len()));
    let (a, b) = (a.min(b), a.max(b));
    let whole = follow(sender, limit, &[bytes]);
    let split = follow(sender, limit, &[&bytes[..a], &bytes[a..b], &bytes[b..]]);
    assert_eq!(whole, split);
    // A frame that is to be finished ends where it would have ended anyway, and no later.
    let mut frames = Frames::new(sender, limit);
    if frames.advance(&bytes[..a]).is_ok()
        && let Ok(taken) = frames.finish_frame(&bytes[a..])
    {
        assert!(frames.at_boundary() || taken == bytes.len() - a);
        let mut same = Frames::new(sender, limit);
        assert_eq!(same.advance(&bytes[..a + taken]), Ok(()));
        assert_eq!(same.at_boundary(), frames.at_boundary());
    }
});

/// Whether a frame is under way and a Close has come, or what is wrong.
fn follow(sender: Sender, limit: Option<u64>, pieces: &[&[u8]]) -> Result<(bool, bool), String> {
    let mut frames = Frames::new(sender, limit);
    for piece in pieces {
        if let Err(Broken { good, why, .. }) = frames.advance(piece) {
            assert!(good <= piece.len());
            return Err(why.to_string());
        }
    }
    Ok((frames.at_boundary(), frames.has_closed()))
}
