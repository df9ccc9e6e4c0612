//! A way between two processes on which messages and open files pass (unix(7), SCM_RIGHTS): a pair of sockets that keep
//! messages apart, one of which a child gets as its standard input.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_type};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg, sendmsg, socketpair,
};

/// The longest message, in bytes.
pub const LONGEST: usize = 64 * 1024;
/// The most files with one message: the kernel's bound (`SCM_MAX_FD`) is 253.
pub const MOST_FILES: usize = 128;

/// One end of it.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// What came.
#[derive(Debug)]
pub struct Received {
    /// The message.
    pub bytes: Vec<u8>,
    /// Files that came with it.
    pub files: Vec<OwnedFd>,
}

impl Channel {
    /// Both ends: one to keep, and one to give away.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(ours), theirs))
    }

    /// The end that this process was given.
    pub fn given(end: OwnedFd) -> io::Result<Self> {
        if socket_type(&end)? != SocketType::SEQPACKET {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no channel"));
        }
        Ok(Self(end))
    }

    /// How long to wait for a message, or for room for one.
    pub fn patience(&self, span: Duration) -> io::Result<()> {
        set_socket_timeout(&self.0, Timeout::Recv, Some(span))?;
        set_socket_timeout(&self.0, Timeout::Send, Some(span))?;
        Ok(())
    }

    /// Sends a message with files, which the other side gets as its own.
    pub fn send(&self, bytes: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FILES))];
        let mut with = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() && !with.push(SendAncillaryMessage::ScmRights(files)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "these are too many files"));
        }
        sendmsg(&self.0, &[IoSlice::new(bytes)], &mut with, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Whether the other side is gone and has left no message.
    pub fn is_cut(&self) -> bool {
        let mut byte = [0];
        let got = recv(&self.0, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT);
        matches!(got, Ok((0, _)) | Err(rustix::io::Errno::CONNRESET))
    }

    /// The next message; none when the other side is gone.
    pub fn receive(&self) -> io::Result<Option<Received>> {
        let mut bytes = vec![0; LONGEST];
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FILES))];
        let mut with = RecvAncillaryBuffer::new(&mut space);
        let got = loop {
            match recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut with, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                // Gone with a message unread.
                Err(rustix::io::Errno::CONNRESET) => return Ok(None),
                got => break got?,
            }
        };
        if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is too long, or has lost its files"));
        }
        let mut files = Vec::new();
        for message in with.drain() {
            if let RecvAncillaryMessage::ScmRights(more) = message {
                files.extend(more);
            }
        }
        bytes.truncate(got.bytes);
        Ok((got.bytes > 0).then_some(Received { bytes, files }))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn messages_stay_apart_and_bring_open_sockets() {
        let (ours, theirs) = Channel::pair().unwrap();
        let theirs = Channel::given(theirs).unwrap();
        let sockets: Vec<_> = (0..MOST_FILES).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let files: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        ours.send(b"many", &files).unwrap();
        ours.send(b"none", &[]).unwrap();
        assert!(!theirs.is_cut());
        drop(ours);
        assert!(!theirs.is_cut(), "what was sent before counts");
        let got = theirs.receive().unwrap().unwrap();
        assert_eq!((got.bytes.as_slice(), got.files.len()), (&b"many"[..], MOST_FILES));
        for (file, socket) in got.files.into_iter().zip(&sockets) {
            assert_eq!(TcpListener::from(file).local_addr().unwrap(), socket.local_addr().unwrap());
        }
        let got = theirs.receive().unwrap().unwrap();
        assert_eq!((got.bytes.as_slice(), got.files.len()), (&b"none"[..], 0));
        assert!(theirs.is_cut());
        assert!(theirs.receive().unwrap().is_none(), "the other side is gone");
        assert!(theirs.send(b"x", &[]).is_err());
    }

    #[test]
    fn patience_ends() {
        let (ours, _theirs) = Channel::pair().unwrap();
        ours.patience(Duration::from_millis(20)).unwrap();
        assert_eq!(ours.receive().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
