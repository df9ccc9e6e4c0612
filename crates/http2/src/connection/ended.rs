//! What is remembered of streams that are closed (RFC 9113 §5.1).

use std::collections::VecDeque;

/// So many that are over are remembered, so that it can be told what is wrong with frames on them.
const OVER: usize = 128;
/// And so many of those that we reset, so that what was on its way to them is no fault.
const RESET: usize = 1024;

/// Why a stream is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Both sides have ended it, or the peer has reset it.
    Over,
    /// We reset it: the peer may not know yet.
    Reset,
}

/// The streams that were closed last, the newest at the end. Neither kind pushes the other out.
#[derive(Debug, Default)]
pub(super) struct Ended {
    over: VecDeque<u32>,
    reset: VecDeque<u32>,
}

impl Ended {
    pub(super) fn find(&self, id: u32) -> Option<Ending> {
        let has = |ended: &VecDeque<u32>| ended.iter().rev().any(|ended| *ended == id);
        if has(&self.reset) {
            return Some(Ending::Reset);
        }
        has(&self.over).then_some(Ending::Over)
    }

    pub(super) fn add(&mut self, id: u32, ending: Ending) {
        let (ended, most) = match ending {
            Ending::Over => (&mut self.over, OVER),
            Ending::Reset => (&mut self.reset, RESET),
        };
        if ended.len() >= most {
            ended.pop_front();
        }
        ended.push_back(id);
    }
}
