//! The way of a client's bytes to the codec: past the scanner, with a stop behind a request for another protocol, and
//! with an end at the first byte that must reach nobody.

use std::task::Poll;

use pylon_core::connection::{Connection, Malformed};

use crate::strict::{Event, POISON, Scanner};

/// What has come in and how far it may go.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    scanner: Scanner,
    door: Door,
    /// Bytes behind a request for another protocol.
    held: Vec<u8>,
    refused_upgrade: bool,
}

#[derive(Debug, Default)]
enum Door {
    /// What the scanner finds fine may pass.
    #[default]
    Open,
    /// A request for another protocol has passed: what follows waits for its answer.
    Asked,
    /// The answer was 101: bytes pass as they are.
    Raw,
    /// Something was refused; this is left to be told to the codec.
    Shut(&'static [u8]),
}

impl Inbound {
    /// Looks at bytes that were read. Answers how many of them, from the first, may pass now; what follows is kept here
    /// or dropped.
    pub(super) fn admit(&mut self, bytes: &[u8], connection: &Connection) -> usize {
        let mut passed: usize = 0;
        loop {
            let rest = bytes.get(passed..).unwrap_or_default();
            match self.door {
                Door::Open => {}
                Door::Raw => return bytes.len(),
                Door::Asked => {
                    self.held.extend_from_slice(rest);
                    return passed;
                }
                Door::Shut(_) => return passed,
            }
            let (fine, event) = self.scanner.scan(rest);
            passed = passed.saturating_add(fine);
            match event {
                Event::More => return passed,
                Event::End { upgrade: false } => {}
                Event::End { upgrade: true } => {
                    self.door = Door::Asked;
                    self.learn(connection);
                }
                Event::Fault(fault) => {
                    let _ = connection.malformed.set(Malformed { reason: fault.reason(), what: fault.what() });
                    self.door = Door::Shut(POISON);
                }
            }
        }
    }

    /// Gives the codec what is kept here. Nothing where it has to be read from the socket.
    pub(super) fn poll_kept(
        &mut self,
        connection: &Connection,
        buf: &mut hyper::rt::ReadBufCursor<'_>,
    ) -> Option<Poll<()>> {
        loop {
            self.learn(connection);
            if let Door::Shut(left) = &mut self.door {
                let (now, later) = left.split_at(left.len().min(buf.remaining()));
                *left = later;
                buf.put_slice(now);
                return Some(if now.is_empty() { Poll::Pending } else { Poll::Ready(()) });
            }
            if self.held.is_empty() {
                return None;
            }
            if matches!(self.door, Door::Asked) {
                // The answer wakes the connection.
                return Some(Poll::Pending);
            }
            let kept = std::mem::take(&mut self.held);
            let (now, later) = kept.split_at(kept.len().min(buf.remaining()));
            let passed = self.admit(now, connection);
            buf.put_slice(now.get(..passed).unwrap_or_default());
            if !matches!(self.door, Door::Shut(_)) {
                self.held.extend_from_slice(later);
            }
            if passed > 0 {
                return Some(Poll::Ready(()));
            }
        }
    }

    /// What was kept back.
    pub(super) fn into_held(self) -> Vec<u8> {
        self.held
    }

    /// Whether another protocol was asked for, in vain.
    pub(super) fn has_refused_upgrade(&mut self, connection: &Connection) -> bool {
        self.learn(connection);
        self.refused_upgrade
    }

    /// Whether the target of a request is under way.
    pub(super) fn is_in_target(&self) -> bool {
        self.scanner.is_in_target()
    }

    /// Opens a door that waits for an answer, once that is known.
    fn learn(&mut self, connection: &Connection) {
        if matches!(self.door, Door::Asked)
            && let Some(accepted) = connection.upgrade.take()
        {
            self.refused_upgrade = !accepted;
            self.door = if accepted { Door::Raw } else { Door::Open };
        }
    }
}
