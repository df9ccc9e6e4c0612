//! Takes turns: one after the other where weights are equal, else the smooth weighted turn that nginx has made known, in
//! which an endpoint of weight 5 is not chosen five times in a row.

use super::Weights;

/// Whose turn it is.
#[derive(Debug)]
pub(super) struct Turn {
    next: usize,
    /// Where weights differ: who is owed how much.
    owed: Vec<i64>,
}

impl Turn {
    /// `offset` is where to begin.
    pub(super) fn new(weights: &Weights, offset: usize) -> Self {
        let next = offset.checked_rem(weights.all.len()).unwrap_or(0);
        Self { next, owed: if weights.equal { Vec::new() } else { vec![0; weights.all.len()] } }
    }

    /// Weights have changed. Who is owed something stays owed, so that the light ones get their turn however often they change.
    pub(super) fn adapt(&mut self, weights: &Weights) {
        if !weights.equal {
            self.owed.resize(weights.all.len(), 0);
        }
    }

    /// The next one that is not skipped.
    pub(super) fn next(&mut self, weights: &Weights, skip: impl Fn(usize) -> bool) -> Option<usize> {
        if weights.equal { Some(self.in_turn(weights.all.len(), skip)) } else { self.smooth(weights, skip) }
    }

    fn in_turn(&mut self, len: usize, skip: impl Fn(usize) -> bool) -> usize {
        let mut index = self.next;
        for _ in 0..len {
            if !skip(index) {
                break;
            }
            index = (index + 1) % len;
        }
        self.next = (index + 1) % len;
        index
    }

    /// Each round everyone is owed their weight; who is owed most is chosen and pays the whole round.
    fn smooth(&mut self, weights: &Weights, skip: impl Fn(usize) -> bool) -> Option<usize> {
        let mut best: Option<(usize, i64)> = None;
        let mut round = 0_i64;
        for (index, (owed, &weight)) in self.owed.iter_mut().zip(&weights.all).enumerate() {
            if skip(index) {
                continue;
            }
            *owed += i64::from(weight);
            round += i64::from(weight);
            if best.is_none_or(|(_, most)| *owed > most) {
                best = Some((index, *owed));
            }
        }
        let (index, _) = best?;
        if let Some(owed) = self.owed.get_mut(index) {
            *owed -= round;
        }
        Some(index)
    }
}
