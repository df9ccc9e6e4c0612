//! One stream of HTTP/2: waits for its answer and sends it, as far as the client makes room.
//!
//! A client that takes its request back ends it at once. One that makes no room for the next piece of its answer for
//! `limits.write_timeout` loses the stream.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, HeaderMap, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, HeaderValue, Response};
use http_body::{Body, Frame};
use pylon_core::body::BodyError;

use super::connect::Switch;
use super::{Open, date, now};
use crate::handler::Handler;
use crate::timer::{self, Sleep};

/// The largest piece of an answer that is handed over at once: by these a client shows that it takes any.
const PIECE: usize = 16 << 10;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

pin_project_lite::pin_project! {
    /// A stream under way. Its answer is dropped before it ceases to count as open.
    pub(super) struct Exchange<H: Handler, F> {
        #[pin]
        step: Step<F, H::Body>,
        reply: SendResponse<Bytes>,
        switch: Option<Switch>,
        open: Option<Open>,
        patience: Duration,
    }
}

pin_project_lite::pin_project! {
    #[project = Projected]
    enum Step<F, B> {
        /// Waits for the answer.
        Waiting { #[pin] future: F },
        /// Sends its body.
        Sending { #[pin] body: B, sending: Sending },
        Over,
    }
}

/// How far the client has taken an answer.
struct Sending {
    stream: SendStream<Bytes>,
    /// What the body has given and the client has made no room for.
    rest: Bytes,
    /// Runs while it makes none.
    timer: Option<Sleep>,
}

/// How the sending of an answer ends.
enum End {
    /// By its last byte, or by the client.
    Over,
    /// The client takes nothing.
    Stalled,
}

impl<H: Handler, F> Exchange<H, F> {
    pub(super) fn new(
        future: F,
        reply: SendResponse<Bytes>,
        switch: Option<Switch>,
        open: Open,
        patience: Duration,
    ) -> Self {
        Self { step: Step::Waiting { future }, reply, switch, open: Some(open), patience }
    }
}

impl<H: Handler, F: Future<Output = Response<H::Body>>> Future for Exchange<H, F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        loop {
            match this.step.as_mut().project() {
                Projected::Waiting { future } => {
                    // Before the body of the request could tell of it.
                    if this.reply.poll_reset(cx).is_ready() {
                        return Poll::Ready(());
                    }
                    let mut answer = ready!(future.poll(cx));
                    let tunnel = this.switch.take().and_then(|switch| Some((switch, H::switched(&mut answer)?)));
                    let (head, body) = split(answer);
                    let ends = tunnel.is_none() && body.is_end_stream();
                    let stream = match this.reply.send_response(head, ends) {
                        Ok(stream) => stream,
                        Err(error) => {
                            tracing::debug!(%error, "an answer could not be sent");
                            this.reply.send_reset(Reason::INTERNAL_ERROR);
                            return Poll::Ready(());
                        }
                    };
                    match (tunnel, this.open.take()) {
                        (Some((switch, tunnel)), Some(open)) => switch.run(tunnel, stream, open),
                        (_, open) if !ends => {
                            *this.open = open;
                            let sending = Sending { stream, rest: Bytes::new(), timer: None };
                            this.step.set(Step::Sending { body, sending });
                            continue;
                        }
                        (_, open) => {
                            drop(body);
                            drop(open);
                        }
                    }
                    return Poll::Ready(());
                }
                Projected::Sending { body, sending } => match ready!(sending.poll(cx, body, *this.patience)) {
                    End::Over => return Poll::Ready(()),
                    End::Stalled => {
                        let connection = this.open.as_ref().map(|open| &open.0.connection);
                        let stalled = |is| {
                            if let Some(connection) = connection {
                                connection.stalled.store(is, Ordering::Relaxed);
                            }
                        };
                        // The end of the exchange is told by its body, which is dropped here.
                        stalled(true);
                        this.step.set(Step::Over);
                        stalled(false);
                        return Poll::Ready(());
                    }
                },
                Projected::Over => return Poll::Ready(()),
            }
        }
    }
}

impl Sending {
    /// Sends what there is, as far as there is room.
    fn poll<B>(&mut self, cx: &mut Context<'_>, mut body: Pin<&mut B>, patience: Duration) -> Poll<End>
    where
        B: Body<Data = Bytes, Error = BodyError>,
    {
        if self.stream.poll_reset(cx).is_ready() {
            return Poll::Ready(End::Over);
        }
        loop {
            while !self.rest.is_empty() {
                if let Some(end) = ready!(self.poll_room(cx, patience)) {
                    return Poll::Ready(end);
                }
                let piece = self.rest.split_to(self.rest.len().min(PIECE));
                let last = self.rest.is_empty() && body.is_end_stream();
                if self.stream.send_data(piece, last).is_err() || last {
                    return Poll::Ready(End::Over);
                }
            }
            let Some(frame) = ready!(body.as_mut().poll_frame(cx)) else {
                let _ = self.stream.send_data(Bytes::new(), true);
                return Poll::Ready(End::Over);
            };
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) => self.rest = data,
                Ok(Err(frame)) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        let _ = self.stream.send_trailers(trailers);
                        return Poll::Ready(End::Over);
                    }
                }
                Err(error) => {
                    self.stream.send_reset(reason(&error));
                    return Poll::Ready(End::Over);
                }
            }
        }
    }

    /// Waits until the client takes something: ready with none when it does. As little as that is enough for a whole piece,
    /// so that one stream does not claim the connection's window for itself.
    fn poll_room(&mut self, cx: &mut Context<'_>, patience: Duration) -> Poll<Option<End>> {
        self.stream.reserve_capacity(1);
        while self.stream.capacity() == 0 {
            match self.stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Some(End::Over)),
                Poll::Pending => {
                    let timer = self.timer.get_or_insert_with(|| timer::sleep_until(now() + patience));
                    return Pin::new(timer).poll(cx).map(|()| Some(End::Stalled));
                }
            }
        }
        self.timer = None;
        Poll::Ready(None)
    }
}

/// The head as the codec wants it: without what has a meaning on HTTP/1 alone (RFC 9113 §8.2.2), with what every answer has.
fn split<B: Body>(answer: Response<B>) -> (Response<()>, B) {
    let (mut head, body) = answer.into_parts();
    strip(&mut head.headers);
    if !head.headers.contains_key(DATE) {
        head.headers.insert(DATE, date::now());
    }
    if !body.is_end_stream()
        && let Some(length) = body.size_hint().exact()
        && !head.headers.contains_key(CONTENT_LENGTH)
    {
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    (Response::from_parts(head, ()), body)
}

fn strip(headers: &mut HeaderMap) {
    let of_http1 = |name: &HeaderName| {
        matches!(*name, CONNECTION | TE | TRANSFER_ENCODING | UPGRADE)
            || *name == KEEP_ALIVE
            || *name == PROXY_CONNECTION
    };
    while let Some(name) = headers.keys().find(|name| of_http1(name)).cloned() {
        headers.remove(name);
    }
}

/// What the client is told of a body that breaks off: the code that the upstream gave, where it gave one.
fn reason(error: &BodyError) -> Reason {
    match error {
        BodyError::Reset(code) => Reason::from(*code),
        _ => Reason::INTERNAL_ERROR,
    }
}
