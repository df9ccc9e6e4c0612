//! One direction of a tunnel: what one side sends, checked frame by frame and written to the other at once.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pylon_net::websocket::frame::{self, Broken, Code, Frames, Sender, Violation};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// One direction.
#[derive(Debug)]
pub(super) struct Way {
    sender: Sender,
    frames: Frames,
    /// What was read and is not written yet: without memory while the other side keeps up.
    waiting: Vec<u8>,
    written: usize,
    /// How much was passed on, in bytes.
    passed: u64,
    /// The gateway's own Close, to be written where no frame is under way.
    code: Option<Code>,
    /// It is written, or never can be: nothing is passed on any more.
    told: bool,
    /// The source's own Close has come.
    closed: bool,
    /// What the source sends is no WebSocket any more. Whether the sink got whole frames up to there.
    broken: Option<bool>,
    moved: bool,
    /// Something may still stand in the buffers of TLS.
    unflushed: bool,
    /// The source has ended.
    dry: bool,
    /// The sink was told the end.
    shut: bool,
    /// The sink takes nothing any more.
    stuck: bool,
}

impl Way {
    pub(super) fn new(sender: Sender, limit: Option<u64>) -> Self {
        Self {
            sender,
            frames: Frames::new(sender, limit),
            waiting: Vec::new(),
            written: 0,
            passed: 0,
            code: None,
            told: false,
            closed: false,
            broken: None,
            moved: false,
            unflushed: false,
            dry: false,
            shut: false,
            stuck: false,
        }
    }

    /// Has a Close written as soon as no frame is under way. Nothing is passed on behind it.
    pub(super) fn close(&mut self, code: Code) {
        self.code = Some(code);
    }

    /// Whether it may go on as it has begun: neither side, nor the gateway, has made an end of anything.
    pub(super) fn goes_on(&self) -> bool {
        !(self.closed | self.dry | self.stuck | self.told) && self.code.is_none() && self.broken.is_none()
    }

    /// How much was passed on, in bytes.
    pub(super) fn passed(&self) -> u64 {
        self.passed
    }

    /// Whether something was read or written since this was last asked.
    pub(super) fn has_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Whether the source's own Close has come.
    pub(super) fn has_closed(&self) -> bool {
        self.closed
    }

    /// Whether the gateway's Close is with the sink, as far as that is possible.
    pub(super) fn has_told(&self) -> bool {
        self.told && self.is_flushed()
    }

    /// Whether nothing waits.
    pub(super) fn is_flushed(&self) -> bool {
        self.waiting.is_empty() && !self.unflushed
    }

    /// Whether nothing more comes from the source.
    pub(super) fn is_dry(&self) -> bool {
        self.dry
    }

    /// Whether the sink takes nothing any more.
    pub(super) fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// Carries on for as long as the source has something and the sink takes it.
    pub(super) fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        scratch: &mut [u8],
    ) -> Result<(), Violation>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        while !self.stuck {
            if !self.waiting.is_empty() && self.poll_waiting(cx, to).is_pending() {
                break;
            }
            if self.code.is_some() && self.tell() {
                continue;
            }
            if self.dry {
                self.shut(cx, to);
                break;
            }
            let mut into = ReadBuf::new(scratch);
            match Pin::new(&mut *from).poll_read(cx, &mut into) {
                Poll::Pending => {
                    self.flush(cx, to);
                    break;
                }
                Poll::Ready(Ok(())) if !into.filled().is_empty() => {
                    self.moved = true;
                    self.take(cx, into.filled(), to)?;
                }
                // How a side has gone makes no difference to the other.
                Poll::Ready(_) => self.dry = true,
            }
        }
        Ok(())
    }

    /// Judges what was read, and passes on what is good of it.
    fn take(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), Violation> {
        if self.told || self.code.is_some() || self.broken.is_some() {
            return self.take_last(cx, bytes, to);
        }
        let verdict = self.frames.advance(bytes);
        self.closed |= self.frames.has_closed();
        match verdict {
            Ok(()) => {
                self.pass(cx, bytes, to);
                Ok(())
            }
            Err(broken) => Err(self.break_off(cx, bytes, broken, to)),
        }
    }

    /// What comes where the gateway makes an end: the rest of a frame is passed on, and nothing behind it.
    #[cold]
    fn take_last(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), Violation> {
        let mut rest = bytes;
        if !self.told && self.broken.is_none() {
            let verdict = self.frames.finish_frame(bytes);
            self.closed |= self.frames.has_closed();
            let good = match verdict {
                Ok(good) => good,
                Err(broken) => return Err(self.break_off(cx, bytes, broken, to)),
            };
            self.pass(cx, bytes.get(..good).unwrap_or_default(), to);
            rest = bytes.get(good..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(());
            }
            self.tell();
        }
        if self.broken.is_none() {
            if self.frames.advance(rest).is_err() {
                self.broken = Some(false);
            }
            self.closed |= self.frames.has_closed();
        }
        Ok(())
    }

    /// Passes on what came before a frame that is wrong, and nothing behind it.
    #[cold]
    fn break_off(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        broken: Broken,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Violation {
        self.pass(cx, bytes.get(..broken.good).unwrap_or_default(), to);
        self.broken = Some(broken.clean);
        broken.why
    }

    /// Writes at once what can be; the rest waits, and nothing more is read until it is gone.
    fn pass(&mut self, cx: &mut Context<'_>, mut bytes: &[u8], to: &mut (impl AsyncWrite + Unpin)) {
        self.passed = self.passed.saturating_add(bytes.len() as u64);
        while self.waiting.is_empty() && !bytes.is_empty() {
            match Pin::new(&mut *to).poll_write(cx, bytes) {
                Poll::Ready(Ok(written)) if written > 0 => {
                    self.unflushed = true;
                    bytes = bytes.get(written..).unwrap_or_default();
                }
                Poll::Ready(_) => return self.give_up(),
                Poll::Pending => break,
            }
        }
        if !bytes.is_empty() {
            self.waiting.extend_from_slice(bytes);
        }
    }

    #[cold]
    fn poll_waiting(&mut self, cx: &mut Context<'_>, to: &mut (impl AsyncWrite + Unpin)) -> Poll<()> {
        while let Some(bytes) = self.waiting.get(self.written..).filter(|bytes| !bytes.is_empty()) {
            match ready!(Pin::new(&mut *to).poll_write(cx, bytes)) {
                Ok(written) if written > 0 => {
                    (self.moved, self.unflushed) = (true, true);
                    self.written = self.written.saturating_add(written);
                }
                _ => self.give_up(),
            }
        }
        (self.waiting, self.written) = (Vec::new(), 0);
        Poll::Ready(())
    }

    /// Puts the gateway's Close behind what waits, where a frame may begin. Whether there is something new to do.
    #[cold]
    fn tell(&mut self) -> bool {
        let Some(code) = self.code else { return false };
        if self.broken.unwrap_or_else(|| self.frames.at_boundary()) {
            self.waiting.extend(frame::close(self.sender, code, fastrand::u32(..).to_ne_bytes()));
        } else if self.broken.is_none() && !self.dry {
            return false;
        }
        self.code = None;
        self.told = true;
        true
    }

    fn flush(&mut self, cx: &mut Context<'_>, to: &mut (impl AsyncWrite + Unpin)) {
        if self.unflushed {
            match Pin::new(to).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(_)) => self.give_up(),
                Poll::Pending => {}
            }
        }
    }

    #[cold]
    fn shut(&mut self, cx: &mut Context<'_>, to: &mut (impl AsyncWrite + Unpin)) {
        if self.shut {
            return;
        }
        match Pin::new(to).poll_shutdown(cx) {
            Poll::Ready(Ok(())) => (self.shut, self.unflushed) = (true, false),
            Poll::Ready(Err(_)) => self.give_up(),
            Poll::Pending => {}
        }
    }

    #[cold]
    fn give_up(&mut self) {
        self.stuck = true;
        self.unflushed = false;
        (self.waiting, self.written) = (Vec::new(), 0);
    }
}
