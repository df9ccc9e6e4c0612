//! Sends the body of an answer, as far as the client takes it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;

use super::Gone;
use super::encode::Framing;
use super::out::Unframed;
use super::wire::Wire;

/// How far an answer has been sent.
#[derive(Debug)]
pub(super) struct Sending {
    framing: Framing,
    /// Whether the client reads trailers.
    trailers: bool,
    /// All of it is on its way.
    over: bool,
}

impl Sending {
    /// The body of an answer whose head was written; `trailers` says whether the client reads some.
    pub(super) fn new(framing: Framing, trailers: bool) -> Self {
        Self { framing, trailers, over: false }
    }

    /// There is no body to send.
    pub(super) fn skip(&mut self) {
        self.over = true;
    }

    /// Sends what there is. Ready once all of it is written out, with false where the body broke off.
    pub(super) fn poll<B>(
        &mut self,
        wire: &mut Wire,
        mut body: Pin<&mut Option<B>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, Gone>>
    where
        B: http_body::Body<Data = Bytes>,
    {
        loop {
            let mut pending = false;
            while !self.over && !pending && wire.out.has_room() {
                let Some(source) = body.as_mut().as_pin_mut() else { break };
                match source.poll_frame(cx) {
                    Poll::Pending => pending = true,
                    Poll::Ready(frame) => {
                        if self.take(wire, body.as_mut(), frame).is_err() {
                            // What came before may still help the client.
                            let _ = wire.poll_write(cx);
                            return Poll::Ready(Ok(false));
                        }
                    }
                }
            }
            match ready!(wire.poll_write(cx)) {
                Err(_) => return Poll::Ready(Err(Gone)),
                Ok(()) if self.over => return Poll::Ready(Ok(true)),
                Ok(()) if pending => return Poll::Pending,
                Ok(()) => {}
            }
        }
    }

    /// Puts one frame on its way.
    fn take<B, E>(
        &mut self,
        wire: &mut Wire,
        mut body: Pin<&mut Option<B>>,
        frame: Option<Result<Frame<Bytes>, E>>,
    ) -> Result<(), Unframed>
    where
        B: http_body::Body<Data = Bytes>,
    {
        let frame = match frame {
            None => None,
            Some(frame) => Some(frame.map_err(|_| Unframed)?),
        };
        let Some(frame) = frame else {
            self.over = true;
            return wire.out.end(self.framing, None);
        };
        match frame.into_data() {
            Ok(data) => {
                self.over = body.as_ref().as_pin_ref().is_none_or(|body| body.get_ref().is_end_stream());
                wire.out.data(&mut self.framing, data, self.over)?;
                if self.over && self.framing != Framing::Chunked {
                    wire.out.end(self.framing, None)?;
                }
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    self.over = true;
                    wire.out.end(self.framing, Some(&trailers).filter(|_| self.trailers))?;
                }
            }
        }
        if self.over {
            body.set(None);
        }
        Ok(())
    }
}
