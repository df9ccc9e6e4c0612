//! HTTP/1.1 towards clients (RFC 9112), on a codec of our own.
//!
//! A connection is one task: it reads a head, polls the answer's future, writes what comes of it, and begins anew. There is
//! no task and no channel for a body: what the answer waits for is read where its future is polled. The bytes themselves are
//! read by [`pylon_http1`].

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use pylon_core::body::Body;
use pylon_core::connection::{Connection, Malformed, Phase};
use pylon_core::spare;
use pylon_http1::Length;
use pylon_http1::request::{Head, HeadReader, Refusal};

use crate::client_body::{ClientBody, Source};
use crate::drain::Open;
use crate::handler::Handler;
use crate::limits::Told;
use crate::stream::Stream;

mod encode;
mod out;
mod send;
pub(crate) mod upload;
mod watch;
mod wire;

use encode::{Asked, Framing, Known};
use send::Sending;
use upload::Feed;
use watch::{End, Watch};
use wire::Wire;

/// What a client sends that knows that the other side speaks HTTP/2 (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection whose first bytes are the preface of HTTP/2, and what has been read of it.
#[derive(Debug)]
pub(crate) struct Preface {
    pub(crate) stream: Stream,
    pub(crate) read: Vec<u8>,
}

/// What becomes of a connection that HTTP/1.1 is over on.
pub(crate) enum Left<T> {
    /// It is closed.
    Nothing,
    /// The client begins HTTP/2.
    Preface(Preface),
    /// An answer has switched protocols. What follows was read as far as this.
    Switched(T, Stream, Bytes),
}

/// Serves one client connection until it ends, or has to, or something else is spoken on it. `preface` says that a client may
/// as well begin HTTP/2.
pub(crate) async fn serve<H: Handler>(
    stream: Stream,
    preface: bool,
    connection: Arc<Connection>,
    handler: Arc<H>,
    told: Told,
    open: &Open,
) -> Left<H::Tunnel> {
    let wanted = pin!(open.drain().wanted());
    let mut session = Session {
        wire: Wire::new(stream, &connection, open.limits().write_time),
        watch: Watch::new(open, &connection, wanted),
        reader: HeadReader::default(),
        fresh: preface,
        head: told.head,
    };
    let mut last_words = None;
    loop {
        let next = match poll_fn(|cx| session.poll_head(cx)).await {
            Came::Head(head) => session.exchange(head, &handler, open).await,
            Came::Preface => {
                return Left::Preface(Preface { stream: session.wire.stream, read: session.wire.buf.to_vec() });
            }
            Came::Refused(status) => {
                last_words = Some(handler.refuse(status, &connection, told));
                Next::Close
            }
            Came::End(End::Slow) => {
                let answer = handler.refuse(408, &connection, open.limits().told());
                let _ = session.wire.stream.try_write(&answer);
                Next::Drop
            }
            Came::End(End::Drained) => Next::Close,
            Came::End(End::Cut) => Next::Drop,
        };
        match next {
            Next::Again => {}
            Next::Close => break,
            Next::Drop => return Left::Nothing,
            Next::Tunnel(tunnel) => {
                // It is no idle connection, whatever became of the exchange that began it.
                connection.activity.enter(Phase::Serving, now());
                return Left::Switched(tunnel, session.wire.stream, session.wire.buf.freeze());
            }
        }
    }
    if let Some(answer) = last_words {
        // A fresh answer of some hundred bytes fits the socket's buffer; if it does not, the client is not reading.
        let _ = session.wire.stream.try_write(&answer);
    }
    let close = async {
        session.wire.close().await;
        Some(())
    };
    open.while_seated(close).await;
    Left::Nothing
}

/// A connection and who watches over it.
struct Session<'a, 'd> {
    wire: Wire,
    watch: Watch<'a, 'd>,
    reader: HeadReader,
    /// Hardly anything has been read yet, and HTTP/2 would be welcome.
    fresh: bool,
    /// The longest head, in bytes.
    head: usize,
}

/// What came instead of nothing.
#[expect(clippy::large_enum_variant, reason = "it lives for a moment")]
enum Came {
    Head(Head),
    /// The client begins HTTP/2.
    Preface,
    /// What is no request; the answer has this status.
    Refused(u16),
    End(End),
}

/// What becomes of a connection behind an exchange.
enum Next<T> {
    /// Another request may come.
    Again,
    /// It ends in good order.
    Close,
    /// It ends.
    Drop,
    Tunnel(T),
}

/// The client is gone, or has to go.
#[derive(Debug)]
struct Gone;

impl Session<'_, '_> {
    /// Reads until a head is whole.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Came> {
        // Before anything is begun.
        if let Poll::Ready(end) = self.watch.poll(cx) {
            return Poll::Ready(Came::End(end));
        }
        loop {
            if self.is_preface() {
                return Poll::Ready(Came::Preface);
            }
            match self.reader.read(&mut self.wire.buf, self.head) {
                Ok(Some(head)) => return Poll::Ready(Came::Head(head)),
                Ok(None) => {}
                Err(refusal) => return Poll::Ready(Came::Refused(self.refused(refusal))),
            }
            let activity = &self.wire.connection.activity;
            if !self.wire.buf.is_empty() && activity.phase() == Phase::Idle {
                // Read ahead with the request before.
                activity.enter(Phase::Head, now());
            }
            if !ready!(self.wire.poll_fill(cx)) {
                // Half a head is nobody's.
                return Poll::Ready(Came::End(End::Drained));
            }
        }
    }

    fn is_preface(&mut self) -> bool {
        let buf = &self.wire.buf;
        if !self.fresh || buf.len() <= 2 {
            return false;
        }
        self.fresh = false;
        buf.iter().zip(PREFACE).all(|(byte, of)| byte == of)
    }

    fn refused(&self, refusal: Refusal) -> u16 {
        match refusal {
            Refusal::Fault(fault) => {
                let malformed = Malformed { reason: fault.reason(), what: fault.what() };
                let _ = self.wire.connection.malformed.set(malformed);
                400
            }
            Refusal::Uri => 400,
            Refusal::TooLarge => 431,
            Refusal::TargetTooLarge => 414,
        }
    }

    /// One request and its answer.
    async fn exchange<H: Handler>(&mut self, head: Head, handler: &Arc<H>, open: &Open) -> Next<H::Tunnel> {
        let connection = Arc::clone(&self.wire.connection);
        let started = begin(&connection);
        let upgrade = head.upgrade;
        let asked = Asked {
            head: head.request.method() == Method::HEAD,
            old: head.request.version() == Version::HTTP_10,
            keep_alive: head.keep_alive,
            trailers: head.trailers,
        };
        let (request, feed) = if head.length == Length::Empty {
            (head.request.map(|()| Body::Empty), None)
        } else {
            let (request, feed) = self.request(head).await;
            (ClientBody::wrap(request, open.limits().body, &connection), Some(feed))
        };
        let answer = {
            let mut future = pin!(Arc::clone(handler).serve(request, connection, started));
            let wait = |wire: &mut Wire, cx: &mut Context<'_>| {
                let polled = future.as_mut().poll(cx);
                wire.take_interim();
                if polled.is_pending()
                    && !wire.out.is_empty()
                    && let Poll::Ready(Err(_)) = wire.poll_write(cx)
                {
                    return Poll::Ready(Err(Gone));
                }
                polled.map(Ok)
            };
            match self.beside(feed.as_ref(), wait).await {
                Ok(answer) => answer,
                Err(Gone) => return Next::Drop,
            }
        };
        let tunnel = match answer.status() {
            StatusCode::SWITCHING_PROTOCOLS => Some(upgrade),
            status if status.is_informational() => Some(false),
            _ => None,
        };
        match tunnel {
            None => self.send::<H>(answer, asked, feed, open).await,
            Some(upgrade) => self.switch::<H>(answer, upgrade, feed).await,
        }
    }

    /// A request with a body, and what that is fed by.
    async fn request(&mut self, head: Head) -> (Request<Source>, Feed) {
        let driver = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        let (upload, feed) = upload::begin(head.length, std::mem::take(&mut self.wire.buf), driver);
        (head.request.map(|()| Source::Http1 { upload, expects: head.expects }), feed)
    }

    /// Runs `step` until it is ready, and reads what it waits for beside it.
    async fn beside<T>(
        &mut self,
        feed: Option<&Feed>,
        mut step: impl FnMut(&mut Wire, &mut Context<'_>) -> Poll<Result<T, Gone>>,
    ) -> Result<T, Gone> {
        poll_fn(|cx| {
            if self.watch.poll(cx).is_ready() {
                return Poll::Ready(Err(Gone));
            }
            loop {
                if let Poll::Ready(done) = step(&mut self.wire, cx) {
                    return Poll::Ready(done);
                }
                if !ready!(self.wire.poll_client(feed, cx)) {
                    return Poll::Ready(Err(Gone));
                }
            }
        })
        .await
    }

    /// Sends an answer, head and body.
    async fn send<H: Handler>(
        &mut self,
        answer: Response<H::Body>,
        mut asked: Asked,
        feed: Option<Feed>,
        open: &Open,
    ) -> Next<H::Tunnel> {
        asked.keep_alive &= !open.drain().is_leaving();
        let (head, body) = answer.into_parts();
        let known = if body.is_end_stream() {
            Known::Empty
        } else {
            body.size_hint().exact().map_or(Known::Nothing, Known::Length)
        };
        let written = encode::answer(self.wire.out.line(), head.status, &head.headers, known, asked);
        spare::give_map(head.headers);
        let mut sending = Sending::new(written.framing, asked.trailers);
        let sent = {
            let mut body = pin!(Some(body));
            if known == Known::Empty || written.framing == Framing::Empty {
                // Its end is that of the exchange.
                body.set(None);
                sending.skip();
            }
            self.beside(feed.as_ref(), |wire, cx| sending.poll(wire, body.as_mut(), cx)).await
        };
        if self.wire.connection.interim.is_waiting() {
            // Too late: the answer had begun.
            drop(self.wire.connection.interim.take());
        }
        match sent {
            Err(Gone) => return Next::Drop,
            Ok(false) => {
                if written.framing == Framing::UntilClose {
                    // Its end would look like that of the whole answer.
                    self.wire.stream.reset_at_close();
                }
                return Next::Drop;
            }
            Ok(true) => {}
        }
        self.rest();
        // What the client was told holds, also where a drain has begun since: it may have sent its next request.
        if self.is_over(feed).await && written.keep_alive { Next::Again } else { Next::Close }
    }

    /// Sends the head of an answer behind which another protocol is spoken.
    async fn switch<H: Handler>(
        &mut self,
        mut answer: Response<H::Body>,
        upgrade: bool,
        feed: Option<Feed>,
    ) -> Next<H::Tunnel> {
        let Some(tunnel) = H::switched(&mut answer).filter(|_| upgrade) else {
            tracing::warn!(status = %answer.status(), "an answer that is none");
            return Next::Drop;
        };
        let asked = Asked { head: false, old: false, keep_alive: true, trailers: false };
        let line = self.wire.out.line();
        encode::answer(line, answer.status(), answer.headers(), Known::Empty, asked);
        let wrote = self.beside(feed.as_ref(), |wire, cx| wire.poll_write(cx).map_err(|_| Gone)).await;
        self.wire.out.rest();
        if wrote.is_ok() && self.is_over(feed).await { Next::Tunnel(tunnel) } else { Next::Drop }
    }

    /// The answer is written out.
    fn rest(&mut self) {
        self.wire.out.rest();
        self.reader.rest();
        let activity = &self.wire.connection.activity;
        if activity.phase() == Phase::Flushing {
            activity.pass_to(Phase::Idle);
        } else {
            activity.enter(Phase::Idle, now());
        }
    }

    /// Whether the request is over as well, so that what follows it is known.
    async fn is_over(&mut self, feed: Option<Feed>) -> bool {
        let Some(feed) = feed else { return true };
        let wire = &mut self.wire;
        match poll_fn(|cx| Poll::Ready(feed.finish(&mut wire.stream, cx))).await {
            Some(behind) => {
                wire.buf = behind;
                true
            }
            None => false,
        }
    }
}

/// The head is complete: the exchange began when its first byte came, or now when it was read ahead with the one before.
fn begin(connection: &Connection) -> Instant {
    let activity = &connection.activity;
    let started = if activity.phase() == Phase::Head { activity.since() } else { now() };
    activity.enter(Phase::Serving, started);
    started
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
