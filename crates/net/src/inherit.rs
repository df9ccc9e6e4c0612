//! Listening sockets that another process hands over: the gateway that ran before, or the system's manager of services
//! (sd_listen_fds(3)). They are taken as they are, however many there are, and never bound anew.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::SocketType;
use rustix::net::sockopt::{socket_acceptconn, socket_type};
use serde::{Deserialize, Serialize};
use socket2::SockRef;

use crate::listen::{Address, Bound, FileId, Listener};

/// The first file that the manager of services hands over.
const FIRST: RawFd = 3;

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Traffic.
    Listener,
    /// The admin API.
    Admin,
    /// The socket by which an upgrade is asked for.
    Upgrade,
    /// Whatever has this address.
    Any,
}

/// The sockets of one address.
#[derive(Debug)]
pub struct Legacy {
    /// What they are for.
    pub role: Role,
    /// The address as the document has it, which may leave the port open.
    pub written: Address,
    /// Whether another process goes on holding them.
    pub held: bool,
    /// The file of a Unix socket that is ours to remove.
    pub file: Option<FileId>,
    /// The sockets.
    pub sockets: Vec<OwnedFd>,
}

/// All that was handed over and is not taken yet.
#[derive(Debug, Default)]
pub struct Inheritance {
    all: Vec<Option<Legacy>>,
}

impl Inheritance {
    /// All of these.
    pub fn new(all: Vec<Legacy>) -> Self {
        Self { all: all.into_iter().map(Some).collect() }
    }

    /// Takes those of this address, if there are any.
    pub fn take(&mut self, role: Role, written: &Address) -> Option<Legacy> {
        let is_it = |legacy: &Legacy| [role, Role::Any].contains(&legacy.role) && legacy.written == *written;
        self.all.iter_mut().find(|legacy| legacy.as_ref().is_some_and(is_it))?.take()
    }

    /// The numbers of those that were taken, in the order of the whole.
    pub fn taken(&self) -> Vec<usize> {
        (self.all.iter().enumerate()).filter(|(_, legacy)| legacy.is_none()).map(|(index, _)| index).collect()
    }

    /// Those that nobody has taken.
    pub fn left(&self) -> impl Iterator<Item = (Role, &Address)> {
        self.all.iter().flatten().map(|legacy| (legacy.role, &legacy.written))
    }
}

impl Legacy {
    /// The sockets as if they had been bound just now.
    pub fn into_bound(self) -> io::Result<Bound> {
        let sockets = self.sockets.into_iter().map(|socket| listener(socket, &self.written));
        let sockets = sockets.collect::<io::Result<Vec<_>>>()?;
        let address = match sockets.first() {
            Some(Listener::Tcp(first)) => Address::Tcp(first.local_addr()?),
            _ => self.written,
        };
        Ok(Bound { address, sockets, file: None })
    }
}

fn listener(socket: OwnedFd, written: &Address) -> io::Result<Listener> {
    Ok(match written {
        Address::Tcp(_) => {
            let socket = TcpListener::from(socket);
            socket.set_nonblocking(true)?;
            Listener::Tcp(socket)
        }
        Address::Unix(_) => {
            let socket = UnixListener::from(socket);
            socket.set_nonblocking(true)?;
            Listener::Unix(socket)
        }
    })
}

/// The sockets that the manager of services has opened for this process, by its three variables. None where they are meant
/// for another process.
pub fn from_manager(pid: Option<&str>, count: Option<&str>, names: Option<&str>) -> io::Result<Vec<Legacy>> {
    let meant = pid.and_then(|pid| pid.parse().ok()) == Some(std::process::id());
    let count: RawFd = count.filter(|_| meant).and_then(|count| count.parse().ok()).unwrap_or(0);
    let mut names = names.unwrap_or_default().split(':');
    let mut all: Vec<Legacy> = Vec::new();
    for number in FIRST..FIRST.saturating_add(count) {
        // SAFETY: the protocol gives these files to the process with this id, which nobody else in it has taken: it is done
        // once, at the start, and what is no open file is refused by the next call.
        #[expect(unsafe_code, reason = "files that are handed over by their number are owned by nobody yet")]
        let socket = unsafe { OwnedFd::from_raw_fd(number) };
        if let Err(error) = fcntl_setfd(&socket, FdFlags::CLOEXEC) {
            // Nothing is there, so that nothing is to be closed.
            let _ = std::os::fd::IntoRawFd::into_raw_fd(socket);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("file {number} is not open: {error}")));
        }
        let name = names.next().unwrap_or_default();
        let written = address(&socket).map_err(|why| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("file {number} ({name}) is no socket to listen on: {why}"),
            )
        })?;
        match all.iter_mut().find(|legacy| legacy.written == written) {
            Some(legacy) => legacy.sockets.push(socket),
            None => all.push(Legacy { role: Role::Any, written, held: true, file: None, sockets: vec![socket] }),
        }
    }
    Ok(all)
}

/// Where a socket listens, if it does.
fn address(socket: impl AsFd) -> Result<Address, String> {
    let tell = |error: rustix::io::Errno| error.to_string();
    if socket_type(&socket).map_err(tell)? != SocketType::STREAM || !socket_acceptconn(&socket).map_err(tell)? {
        return Err("it accepts no streams".to_owned());
    }
    let address = SockRef::from(&socket).local_addr().map_err(|error| error.to_string())?;
    let path = address.as_pathname().map(|path| Address::Unix(PathBuf::from(path)));
    address.as_socket().map(Address::Tcp).or(path).ok_or_else(|| "its address is neither a port nor a path".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen;

    fn legacy(role: Role, address: &str) -> Legacy {
        Legacy { role, written: Address::parse(address).unwrap(), held: false, file: None, sockets: Vec::new() }
    }

    #[test]
    fn sockets_are_found_by_their_address_and_purpose_each_once() {
        let free = Address::parse("127.0.0.1:0").unwrap();
        let all = vec![
            legacy(Role::Admin, "127.0.0.1:0"),
            legacy(Role::Listener, "127.0.0.1:0"),
            legacy(Role::Any, "127.0.0.1:81"),
        ];
        let mut all = Inheritance::new(all);
        assert!(all.take(Role::Listener, &free).is_some());
        assert!(all.take(Role::Listener, &free).is_none());
        assert_eq!(all.taken(), [1]);
        assert!(all.take(Role::Admin, &Address::parse("127.0.0.1:81").unwrap()).is_some());
        assert_eq!(
            all.left().map(|(role, at)| (role, at.to_string())).collect::<Vec<_>>(),
            [(Role::Admin, "127.0.0.1:0".to_owned())]
        );
    }

    #[test]
    fn a_socket_is_known_by_its_own_address_and_others_are_refused() {
        let socket = listen::bind_tcp("127.0.0.1:0".parse().unwrap(), 1).unwrap().pop().unwrap();
        assert_eq!(address(&socket), Ok(Address::Tcp(socket.local_addr().unwrap())));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        assert_eq!(address(UnixListener::bind(&path).unwrap()), Ok(Address::Unix(path)));
        assert!(address(std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).is_err());
        assert!(address(std::os::unix::net::UnixStream::pair().unwrap().0).is_err());
    }

    #[test]
    fn what_is_meant_for_another_process_is_not_touched() {
        assert!(from_manager(Some("1"), Some("1"), None).unwrap().is_empty());
        assert!(from_manager(None, Some("1"), None).unwrap().is_empty());
        assert!(from_manager(Some(&std::process::id().to_string()), None, None).unwrap().is_empty());
    }
}
