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
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, Response};
use http_body::{Body, Frame};
use pylon_core::body::BodyError;
use pylon_core::connection::Interim;
use pylon_core::spare;
use pylon_http2::{Fields, Reason, SendStream};

use super::connect::Switch;
use super::{Open, interim, now};
use crate::date;
use crate::handler::Handler;
use crate::timer::{self, Sleep};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

pin_project_lite::pin_project! {
    /// A stream under way. Its answer is dropped before it ceases to count as open.
    pub(super) struct Exchange<H: Handler, F> {
        #[pin]
        step: Step<F, H::Body>,
        // None once the stream is a tunnel.
        stream: Option<SendStream>,
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
    pub(super) fn new(future: F, stream: SendStream, switch: Option<Switch>, open: Open, patience: Duration) -> Self {
        Self { step: Step::Waiting { future }, stream: Some(stream), switch, open: Some(open), patience }
    }
}

impl<H: Handler, F: Future<Output = Response<H::Body>>> Future for Exchange<H, F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        loop {
            let Some(stream) = this.stream.as_mut() else { return Poll::Ready(()) };
            match this.step.as_mut().project() {
                Projected::Waiting { future } => {
                    // Before the body of the request could tell of it.
                    if stream.poll_failed(cx).is_ready() {
                        return Poll::Ready(());
                    }
                    let polled = future.poll(cx);
                    if let Some(waiting) = interim(this.open.as_ref()) {
                        interim::send(waiting, stream);
                    }
                    let mut answer = ready!(polled);
                    let tunnel = this.switch.take().and_then(|switch| Some((switch, H::switched(&mut answer)?)));
                    // Asked before the codec has its lock, which a body that is a stream of this connection takes as well.
                    let over = answer.body().is_end_stream();
                    let length = if over { None } else { answer.body().size_hint().exact() };
                    let ends = tunnel.is_none() && over;
                    let head = |fields: &mut Fields<'_>| write(fields, answer.headers(), length);
                    if let Err(error) = stream.answer(answer.status(), ends, head) {
                        tracing::debug!(%error, "an answer could not be sent");
                        return Poll::Ready(());
                    }
                    let body = body_alone(answer);
                    match (tunnel, this.open.take()) {
                        (Some((switch, tunnel)), Some(open)) => {
                            if let Some(stream) = this.stream.take() {
                                switch.run(tunnel, stream, open);
                            }
                        }
                        (_, open) if !ends => {
                            *this.open = open;
                            let sending = Sending { rest: Bytes::new(), timer: None };
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
                Projected::Sending { body, sending } => {
                    let polled = sending.poll(cx, stream, body, *this.patience);
                    if let Some(waiting) = interim(this.open.as_ref()) {
                        // Too late: the answer has begun.
                        drop(waiting.take());
                    }
                    if matches!(ready!(polled), End::Stalled) {
                        give_up(this.open.as_ref(), || this.step.set(Step::Over));
                    }
                    return Poll::Ready(());
                }
                Projected::Over => return Poll::Ready(()),
            }
        }
    }
}

/// The body of an answer whose head is written: the next one has a use for the map.
fn body_alone<B>(answer: Response<B>) -> B {
    let (head, body) = answer.into_parts();
    spare::give_map(head.headers);
    body
}

/// Interim answers that this stream has queued since it was polled, if there are some.
fn interim(open: Option<&Open>) -> Option<&Interim> {
    open.map(|open| &open.0.connection.interim).filter(|interim| interim.is_waiting())
}

/// Ends an exchange whose client takes nothing: its end is told by its body, which `drop_body` drops.
fn give_up(open: Option<&Open>, drop_body: impl FnOnce()) {
    let stalled = |is| {
        if let Some(open) = open {
            open.0.connection.stalled.store(is, Ordering::Relaxed);
        }
    };
    stalled(true);
    drop_body();
    stalled(false);
}

impl Sending {
    /// Sends what there is, as far as there is room.
    fn poll<B>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut SendStream,
        mut body: Pin<&mut B>,
        patience: Duration,
    ) -> Poll<End>
    where
        B: Body<Data = Bytes, Error = BodyError>,
    {
        if stream.poll_failed(cx).is_ready() {
            return Poll::Ready(End::Over);
        }
        loop {
            while !self.rest.is_empty() {
                if let Some(end) = ready!(self.poll_room(cx, stream, patience)) {
                    return Poll::Ready(end);
                }
                let last = body.is_end_stream();
                if stream.send(&mut self.rest, last).is_err() || last && self.rest.is_empty() {
                    return Poll::Ready(End::Over);
                }
            }
            let Some(frame) = ready!(body.as_mut().poll_frame(cx)) else {
                let _ = stream.end();
                return Poll::Ready(End::Over);
            };
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) => self.rest = data,
                Ok(Err(frame)) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        let _ = stream.trailers(&trailers);
                        spare::give_map(trailers);
                        return Poll::Ready(End::Over);
                    }
                }
                Err(error) => {
                    stream.reset(reason(&error));
                    return Poll::Ready(End::Over);
                }
            }
        }
    }

    /// Waits until the client takes something: ready with none when it does.
    fn poll_room(&mut self, cx: &mut Context<'_>, stream: &mut SendStream, patience: Duration) -> Poll<Option<End>> {
        match stream.poll_room(cx) {
            Poll::Ready(Ok(())) => {
                self.timer = None;
                Poll::Ready(None)
            }
            Poll::Ready(Err(_)) => Poll::Ready(Some(End::Over)),
            Poll::Pending => {
                let timer = self.timer.get_or_insert_with(|| timer::sleep_until(now() + patience));
                Pin::new(timer).poll(cx).map(|()| Some(End::Stalled))
            }
        }
    }
}

/// Writes the fields of an answer: without what has a meaning on HTTP/1 alone (RFC 9113 §8.2.2), with what every answer has.
/// Its length is that of its body, where that is known and the fields do not say.
fn write(fields: &mut Fields<'_>, headers: &HeaderMap, length: Option<u64>) {
    let (mut dated, mut sized) = (false, false);
    for (name, value) in headers {
        match *name {
            CONNECTION | TE | TRANSFER_ENCODING | UPGRADE => continue,
            DATE => dated = true,
            CONTENT_LENGTH => sized = true,
            _ if *name == KEEP_ALIVE || *name == PROXY_CONNECTION => continue,
            _ => {}
        }
        fields.field(name, value);
    }
    if !dated {
        fields.field(&DATE, &date::now());
    }
    if let Some(length) = length.filter(|_| !sized) {
        fields.bytes(&CONTENT_LENGTH, itoa::Buffer::new().format(length).as_bytes());
    }
}

/// What the client is told of a body that breaks off: the code that the upstream gave, where it gave one.
fn reason(error: &BodyError) -> Reason {
    match error {
        BodyError::Reset(code) => Reason::from(*code),
        _ => Reason::INTERNAL_ERROR,
    }
}
