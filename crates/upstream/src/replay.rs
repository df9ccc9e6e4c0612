//! Keeps the body of a request so that it can be sent once more: what was read of it, up to a cap in bytes.
//!
//! What was read is kept, and the rest stays where it is: with the client. So a request whose first attempt took little or
//! nothing of a long body can still be sent again. A body that is asked for again is taken from whoever had it before:
//! there it ends as one that broke off, never as one that is complete.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;
use pylon_core::body::{Body, BodyError};

/// A body that can be had again.
#[derive(Debug)]
pub struct KeptBody(Kept);

#[derive(Debug)]
enum Kept {
    Empty,
    Full(Bytes),
    Stream(Arc<Mutex<Source>>),
}

/// A streaming body, and what was read of it.
#[derive(Debug)]
struct Source {
    stream: Body,
    read: Vec<u8>,
    trailers: Option<HeaderMap>,
    cap: usize,
    /// More was read than is kept, or the stream broke: there is no beginning any more.
    lost: bool,
    ended: bool,
    /// Who may read it: the last that it was given to.
    holder: u32,
}

impl KeptBody {
    /// Keeps `body`, of which up to `cap` bytes are held.
    pub fn of(body: &mut Body, cap: usize) -> Self {
        Self(match body {
            Body::Full(bytes) => Kept::Full(bytes.clone()),
            body if body.is_empty() => Kept::Empty,
            body => {
                let (stream, read) = (std::mem::take(body), Vec::new());
                let source = Source { stream, read, trailers: None, cap, lost: false, ended: false, holder: 0 };
                let source = Arc::new(Mutex::new(source));
                *body = Replayed::give(&source);
                Kept::Stream(source)
            }
        })
    }

    /// Whether the whole of it can be had again.
    pub fn is_whole(&self) -> bool {
        match &self.0 {
            Kept::Empty | Kept::Full(_) => true,
            Kept::Stream(source) => !source.lock().lost,
        }
    }

    /// Whether any of it was read, so that the client has been told to send it.
    pub fn was_begun(&self) -> bool {
        match &self.0 {
            Kept::Empty | Kept::Full(_) => false,
            Kept::Stream(source) => {
                let held = source.lock();
                !held.read.is_empty() || held.ended
            }
        }
    }

    /// The body once more, taken from whoever has it.
    pub fn again(&self) -> Body {
        match &self.0 {
            Kept::Empty => Body::Empty,
            Kept::Full(bytes) => Body::Full(bytes.clone()),
            Kept::Stream(source) => {
                let mut held = source.lock();
                held.holder = held.holder.wrapping_add(1);
                drop(held);
                Replayed::give(source)
            }
        }
    }
}

impl Source {
    fn keep(&mut self, data: &[u8]) {
        if self.lost {
            return;
        }
        if self.read.len().saturating_add(data.len()) > self.cap {
            self.lost = true;
            self.read = Vec::new();
        } else {
            self.read.extend_from_slice(data);
        }
    }
}

/// The body as one upstream reads it.
#[derive(Debug)]
struct Replayed {
    source: Arc<Mutex<Source>>,
    holder: u32,
    /// What was read before, and has yet to be given out.
    again: Bytes,
    trailers: Option<HeaderMap>,
    /// Length of what is left, where that is known.
    left: Option<u64>,
}

impl Replayed {
    fn give(source: &Arc<Mutex<Source>>) -> Body {
        let held = source.lock();
        let again = Bytes::copy_from_slice(&held.read);
        let left = held.stream.size_hint().exact().map(|rest| rest.saturating_add(again.len() as u64));
        let (holder, trailers) = (held.holder, held.trailers.clone());
        drop(held);
        Body::stream(Self { source: Arc::clone(source), holder, again, trailers, left })
    }

    fn given(&mut self, frame: &Frame<Bytes>) {
        if let (Some(left), Some(data)) = (&mut self.left, frame.data_ref()) {
            *left = left.saturating_sub(data.len() as u64);
        }
    }
}

impl http_body::Body for Replayed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let source = Arc::clone(&this.source);
        let mut source = source.lock();
        if source.holder != this.holder {
            let gone = "the request has gone to another attempt".to_owned();
            return Poll::Ready(Some(Err(BodyError::Client(gone))));
        }
        if !this.again.is_empty() {
            let frame = Frame::data(std::mem::take(&mut this.again));
            this.given(&frame);
            return Poll::Ready(Some(Ok(frame)));
        }
        if source.ended {
            return Poll::Ready(this.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let frame = ready!(Pin::new(&mut source.stream).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    source.keep(data);
                }
                if let Some(trailers) = frame.trailers_ref() {
                    source.trailers = Some(trailers.clone());
                    source.ended = true;
                }
                this.given(frame);
            }
            Some(Err(_)) => source.lost = true,
            None => source.ended = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let source = self.source.lock();
        let over = source.ended || source.stream.is_end_stream();
        source.holder == self.holder && over && self.again.is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map(SizeHint::with_exact).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::task::Waker;

    /// A stream of these pieces, then trailers if there are any.
    #[derive(Debug)]
    struct Pieces(VecDeque<Frame<Bytes>>);

    impl http_body::Body for Pieces {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            Poll::Ready(self.0.pop_front().map(Ok))
        }
    }

    fn body(pieces: &[&'static str], trailers: bool) -> Body {
        let mut frames: VecDeque<_> =
            pieces.iter().map(|text| Frame::data(Bytes::from_static(text.as_bytes()))).collect();
        if trailers {
            frames.push_back(Frame::trailers(HeaderMap::from_iter([(
                http::HeaderName::from_static("x-sum"),
                http::HeaderValue::from_static("1"),
            )])));
        }
        Body::stream(Pieces(frames))
    }

    fn next(body: &mut Body) -> Option<Result<Frame<Bytes>, BodyError>> {
        match Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(frame) => frame,
            Poll::Pending => panic!("the stream waits"),
        }
    }

    fn text(body: &mut Body) -> (String, bool) {
        let (mut all, mut trailers) = (String::new(), false);
        while let Some(frame) = next(body) {
            match frame.unwrap().into_data() {
                Ok(data) => all.push_str(str::from_utf8(&data).unwrap()),
                Err(_) => trailers = true,
            }
        }
        (all, trailers)
    }

    #[test]
    fn what_was_read_comes_again_and_the_rest_follows() {
        let mut first = body(&["one ", "two ", "three"], true);
        let kept = KeptBody::of(&mut first, 100);
        assert_eq!(next(&mut first).unwrap().unwrap().into_data().unwrap(), "one ");
        assert!(kept.was_begun());
        let mut second = kept.again();
        assert_eq!(text(&mut second), ("one two three".into(), true));
        assert!(second.is_empty());
        // And once more, now that all of it was read.
        assert_eq!(text(&mut kept.again()), ("one two three".into(), true));
    }

    #[test]
    fn whoever_had_the_body_before_sees_it_break_off_and_not_end() {
        let mut first = body(&["one ", "two"], false);
        let kept = KeptBody::of(&mut first, 100);
        let mut second = kept.again();
        assert!(!kept.was_begun(), "nothing was read yet");
        assert!(!first.is_empty());
        assert!(matches!(next(&mut first), Some(Err(BodyError::Client(_)))));
        assert_eq!(text(&mut second), ("one two".into(), false));
    }

    #[test]
    fn a_body_beyond_the_cap_passes_and_cannot_be_had_again() {
        let mut first = body(&["one ", "two ", "three"], false);
        let kept = KeptBody::of(&mut first, 8);
        next(&mut first).unwrap().unwrap();
        next(&mut first).unwrap().unwrap();
        assert!(kept.is_whole());
        next(&mut first).unwrap().unwrap();
        assert!(!kept.is_whole());
        assert!(next(&mut first).is_none());
    }

    #[test]
    fn bodies_that_are_at_hand_are_whole() {
        for mut first in [Body::Empty, Body::from("text")] {
            let expected = format!("{first:?}");
            let kept = KeptBody::of(&mut first, 1);
            drop(first);
            assert!(kept.is_whole());
            assert_eq!(format!("{:?}", kept.again()), expected);
        }
    }
}
