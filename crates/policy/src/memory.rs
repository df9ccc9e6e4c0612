//! Remembers for a while what was found out of a key, and lets all who ask for the same wait for one answer.
//!
//! What is remembered is bounded in number and in time, and so are the answers that are waited for. Time is an argument.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

/// What is remembered at most; as much again may be on its way out.
pub(crate) const MOST: usize = 4096;

/// What a question came to; none until then.
pub(crate) type News<V> = watch::Receiver<Option<Arc<V>>>;
/// Whoever tells.
pub(crate) type Tell<V> = watch::Sender<Option<Arc<V>>>;

/// What is remembered. Two halves: what is found in the old one moves to the new one, and what is not is dropped with it.
#[derive(Debug)]
pub(crate) struct Memory<V> {
    new: HashMap<Box<[u8]>, Kept<V>>,
    old: HashMap<Box<[u8]>, Kept<V>>,
    flights: HashMap<Box<[u8]>, News<V>>,
    most_flights: usize,
}

#[derive(Debug)]
struct Kept<V> {
    value: Arc<V>,
    until: Instant,
}

/// What is known of a key.
#[derive(Debug)]
pub(crate) enum Known<V> {
    /// It was found out before.
    Kept(Arc<V>),
    /// It is being asked about.
    Asked(News<V>),
    /// Nothing; whoever asks is to tell what comes of it.
    Nothing(Tell<V>),
    /// Nothing, and nobody is to ask: there is no room for more.
    Full,
}

impl<V> Default for Memory<V> {
    fn default() -> Self {
        Self::new(MOST)
    }
}

impl<V> Memory<V> {
    /// One in which so many answers may be waited for.
    pub(crate) fn new(most_flights: usize) -> Self {
        Self { new: HashMap::new(), old: HashMap::new(), flights: HashMap::new(), most_flights }
    }

    /// Looks for a key.
    pub(crate) fn look(&mut self, key: &[u8], now: Instant) -> Known<V> {
        if let Some(value) = self.find(key, now) {
            return Known::Kept(value);
        }
        // One whose teller is gone came to no end.
        if let Some(news) = self.flights.get(key).filter(|news| news.has_changed().is_ok()) {
            return Known::Asked(news.clone());
        }
        if self.flights.len() >= self.most_flights {
            return Known::Full;
        }
        let (tell, news) = watch::channel(None);
        self.flights.insert(key.into(), news);
        Known::Nothing(tell)
    }

    /// A question has come to an end. What may be remembered is, until `until`.
    pub(crate) fn settle(&mut self, key: Box<[u8]>, value: Option<&Arc<V>>, until: Instant) {
        self.flights.remove(&key);
        if let Some(value) = value {
            self.keep(key, Kept { value: Arc::clone(value), until });
        }
    }

    /// What was found out of a key before; nobody is asked.
    pub(crate) fn find(&mut self, key: &[u8], now: Instant) -> Option<Arc<V>> {
        if let Some(kept) = self.new.get(key) {
            return (kept.until > now).then(|| Arc::clone(&kept.value));
        }
        let (key, kept) = self.old.remove_entry(key)?;
        let value = (kept.until > now).then(|| Arc::clone(&kept.value))?;
        self.keep(key, kept);
        Some(value)
    }

    fn keep(&mut self, key: Box<[u8]>, kept: Kept<V>) {
        if self.new.len() >= MOST {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(key, kept);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a moment to count from")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn one_question_is_asked_for_all_that_are_alike_and_its_answer_counts_until_its_end() {
        let (mut memory, now) = (Memory::new(8), start());
        let secs = Duration::from_secs;
        let Known::Nothing(tell) = memory.look(b"a", now) else { panic!("nothing is known") };
        let Known::Asked(news) = memory.look(b"a", now) else { panic!("it is asked about") };
        let answer = Arc::new("yes");
        memory.settle(Box::from(*b"a"), Some(&answer), now + secs(10));
        tell.send_replace(Some(answer));
        assert!(news.borrow().is_some());
        assert!(matches!(memory.look(b"a", now + secs(9)), Known::Kept(_)));
        assert!(matches!(memory.look(b"a", now + secs(10)), Known::Nothing(_)));
        memory.settle(Box::from(*b"a"), None, now);
        assert!(matches!(memory.look(b"b", now), Known::Nothing(_)));
    }

    #[test]
    fn what_is_remembered_and_what_is_waited_for_is_bounded() {
        let (mut memory, now) = (Memory::new(100), start());
        let answer = Arc::new("yes");
        for number in 0..5 * MOST {
            memory.settle(number.to_string().into_bytes().into(), Some(&answer), now + Duration::from_secs(9));
        }
        assert!(memory.new.len() + memory.old.len() <= 2 * MOST);
        let _asked: Vec<_> = (0..200).map(|n| memory.look(format!("f{n}").as_bytes(), now)).collect();
        assert_eq!(memory.flights.len(), 100);
        assert!(matches!(memory.look(b"more", now), Known::Full));
    }
}
