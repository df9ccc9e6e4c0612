//! Binding listening sockets. On TCP one for each worker on the same address, shared out by the kernel (SO_REUSEPORT);
//! a Unix socket, which knows no such thing, is one that all workers hold.

use std::borrow::Cow;
use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};

/// How many connections may wait to be accepted on each socket.
const BACKLOG: i32 = 4096;
/// Who may connect to a Unix socket where nothing else is said: owner and group.
const MODE: u32 = 0o660;

/// Where a listener listens: `0.0.0.0:8080`, or `unix:` and a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// An address and a port.
    Tcp(SocketAddr),
    /// A path in the file system.
    Unix(PathBuf),
}

/// A listening socket.
#[derive(Debug)]
pub enum Listener {
    /// On an address and a port.
    Tcp(TcpListener),
    /// On a path.
    Unix(UnixListener),
}

/// The sockets of one listener.
#[derive(Debug)]
pub struct Bound {
    /// Where they listen; a port that was left open is filled in.
    pub address: Address,
    /// One for each worker.
    pub sockets: Vec<Listener>,
    /// The file of a Unix socket.
    pub file: Option<SocketFile>,
}

/// The file of a Unix socket that is ours. It is removed when this is dropped, unless another has taken its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    id: FileId,
}

/// Device and inode: by these a file is known, whatever stands at its path.
pub type FileId = (u64, u64);

/// Binds `address` once for each of `workers`. Port 0 takes a free port, the same for all. `mode` are the permissions of a
/// Unix socket.
pub fn bind(address: &Address, mode: Option<u32>, workers: usize) -> io::Result<Bound> {
    match address {
        Address::Tcp(address) => {
            let sockets = bind_tcp(*address, workers)?;
            let address = sockets.first().map_or(Ok(*address), TcpListener::local_addr)?;
            let sockets = sockets.into_iter().map(Listener::Tcp).collect();
            Ok(Bound { address: Address::Tcp(address), sockets, file: None })
        }
        Address::Unix(path) => {
            let (socket, file) = bind_unix(path, mode.unwrap_or(MODE))?;
            let mut sockets = Vec::new();
            for _ in 1..workers.max(1) {
                sockets.push(Listener::Unix(socket.try_clone()?));
            }
            sockets.push(Listener::Unix(socket));
            Ok(Bound { address: address.clone(), sockets, file: Some(file) })
        }
    }
}

/// Binds a TCP address once for each of `workers`.
///
/// Before the first bind a plain bind probes the address: with SO_REUSEPORT alone a second gateway would share the
/// port in silence.
pub fn bind_tcp(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    drop(open(address, false)?);
    let first = open(address, true)?;
    let address = first.local_addr()?;
    let mut all = vec![first];
    for _ in 1..workers.max(1) {
        all.push(open(address, true)?);
    }
    for listener in &all {
        Socket::from(listener.try_clone()?).listen(BACKLOG)?;
    }
    Ok(all)
}

fn open(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    if shared {
        socket.set_reuse_port(true)?;
    }
    // Each connection has it from here: a client that vanished without a word is noticed in some two minutes.
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15));
    socket.set_tcp_keepalive(&keepalive.with_retries(4))?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn bind_unix(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    let address = SockAddr::unix(path)?;
    clear(path, &address)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address)?;
    let file = fs::symlink_metadata(path)?;
    let file = SocketFile { path: path.to_owned(), id: (file.dev(), file.ino()) };
    // Nobody can connect before `listen`, so there is no moment with other permissions.
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    Ok((socket.into(), file))
}

/// Removes the socket that a gateway has left at `path` which ended without a goodbye. What is no socket stays, and so does
/// one that somebody listens on.
fn clear(path: &Path, address: &SockAddr) -> io::Result<()> {
    let in_use = |why: &str| io::Error::new(io::ErrorKind::AddrInUse, why.to_owned());
    let there = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        there => there?,
    };
    if !there.file_type().is_socket() {
        return Err(in_use("a file that is no socket stands there"));
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    match probe.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => Err(in_use("another process listens there")),
    }
}

impl SocketFile {
    /// The file at `path` with this id, which another process has made and leaves to this one.
    pub fn taken_over(path: PathBuf, id: FileId) -> Self {
        Self { path, id }
    }

    /// Which file it is.
    pub fn id(&self) -> FileId {
        self.id
    }

    /// Gives it other permissions; those of [`bind`] where none are written.
    pub fn set_mode(&self, mode: Option<u32>) -> io::Result<()> {
        if !self.is_there() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "another file stands at its path by now"));
        }
        fs::set_permissions(&self.path, Permissions::from_mode(mode.unwrap_or(MODE)))
    }

    fn is_there(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.id)
    }

    /// Leaves the file to another process.
    pub fn leave(mut self) {
        self.path = PathBuf::new();
    }
}

impl Listener {
    /// The same socket once more.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(socket) => Self::Tcp(socket.try_clone()?),
            Self::Unix(socket) => Self::Unix(socket.try_clone()?),
        })
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_there() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Address {
    /// Reads `0.0.0.0:8080` or `unix:/run/pylon.sock`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return path_of(path).map(Self::Unix).map_err(|why| format!("`{text}` {why}"));
        }
        let bad = || format!("`{text}` is not an address with a port: write `0.0.0.0:8080` or `unix:/run/pylon.sock`");
        text.parse().map(Self::Tcp).map_err(|_| bad())
    }

    /// The address and port, where it is one.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Whether two listeners would be in each other's way. Free ports are not.
    pub fn collides(&self, other: &Self) -> bool {
        self == other && !matches!(self, Self::Tcp(address) if address.port() == 0)
    }
}

/// The path of a Unix socket, where it can be one (unix(7): 107 bytes at the most).
pub fn path_of(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() || text.contains('\0') || text.starts_with('@') {
        return Err("has no path of a socket".to_owned());
    }
    let path = PathBuf::from(text);
    SockAddr::unix(&path).map_err(|_| "is longer than the path of a socket can be (107 bytes)".to_owned())?;
    Ok(path)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl JsonSchema for Address {
    fn schema_name() -> Cow<'static, str> {
        "Address".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "`0.0.0.0:8080`, or `unix:` and a path" })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn an_address_in_use_is_refused_even_by_another_gateway_that_shares_ports() {
        let mine = bind_tcp("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        assert_eq!(mine.len(), 2);
        let address = mine[0].local_addr().unwrap();
        assert_eq!(mine[1].local_addr().unwrap(), address);
        assert_eq!(bind_tcp(address, 2).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    fn in_folder(name: &str) -> (tempfile::TempDir, PathBuf, Address) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        (folder, path.clone(), Address::Unix(path))
    }

    #[test]
    fn a_unix_socket_is_one_for_all_workers_with_the_permissions_asked_for_and_is_removed_at_the_end() {
        let (_folder, path, address) = in_folder("a.sock");
        for (mode, is) in [(None, 0o660), (Some(0o666), 0o666)] {
            let bound = bind(&address, mode, 3).unwrap();
            assert_eq!(bound.sockets.len(), 3);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, is);
            UnixStream::connect(&path).unwrap();
            assert_eq!(bind(&address, None, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
            UnixStream::connect(&path).unwrap();
            drop(bound);
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_socket_that_nobody_listens_on_is_replaced_and_any_other_file_stays() {
        let (_folder, path, address) = in_folder("a.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(bind(&address, None, 1).unwrap());
        fs::write(&path, "precious").unwrap();
        assert_eq!(bind(&address, None, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn the_file_of_another_is_not_removed() {
        let (_folder, path, address) = in_folder("a.sock");
        let bound = bind(&address, None, 1).unwrap();
        // So that its inode cannot be given to the next.
        let kept = path.with_extension("kept");
        fs::rename(&path, &kept).unwrap();
        let other = UnixListener::bind(&path).unwrap();
        drop(bound);
        assert!(path.exists() && UnixStream::connect(&path).is_ok());
        drop(other);
    }

    #[test]
    fn an_address_is_a_port_or_a_path() {
        assert_eq!(Address::parse("unix:/run/a.sock").unwrap().to_string(), "unix:/run/a.sock");
        assert_eq!(Address::parse("[::1]:80").unwrap().to_string(), "[::1]:80");
        for bad in ["", "80", "localhost:80", "unix:", "unix:@a", &format!("unix:/{}", "a".repeat(107))] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
        let (free, taken) = (Address::parse("127.0.0.1:0").unwrap(), Address::parse("127.0.0.1:80").unwrap());
        assert!(!free.collides(&free) && taken.collides(&taken) && !taken.collides(&free));
    }
}
