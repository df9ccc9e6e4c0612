//! A service that reads strictly and remembers: whole requests, and what was no request at all.

use std::sync::{Arc, Mutex};

use pylon_testkit::answer::Answer;
use pylon_testkit::message::{Message, ReadError};
use pylon_testkit::upstream::Upstream;

/// A strict service.
pub(crate) struct Strict {
    pub(crate) upstream: Upstream,
    malformed: Arc<Mutex<Vec<String>>>,
}

impl Strict {
    /// A service that answers each request by its target.
    pub(crate) fn start() -> Self {
        Self::answering(|request| Answer::text(request.target()))
    }

    /// A service that answers each request by `answer`.
    pub(crate) fn answering(answer: impl Fn(&Message) -> Answer + Send + Sync + 'static) -> Self {
        let malformed = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&malformed);
        let upstream = Upstream::script(move |peer| {
            loop {
                match peer.request() {
                    Ok(request) => {
                        if !peer.answer(&answer(&request), request.method()) {
                            return;
                        }
                    }
                    Err(ReadError::Malformed(what)) => {
                        kept.lock().unwrap().push(what);
                        return;
                    }
                    Err(_) => return,
                }
            }
        });
        Self { upstream, malformed }
    }

    /// The targets of the requests from number `from` on.
    pub(crate) fn targets(&self, from: usize) -> Vec<String> {
        self.upstream.seen()[from..].iter().map(|request| request.target().to_owned()).collect()
    }

    /// What came that was no request.
    pub(crate) fn malformed(&self) -> Vec<String> {
        self.malformed.lock().unwrap().clone()
    }
}
