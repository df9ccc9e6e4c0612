//! Tells the system's manager of services how the process is doing (sd_notify(3)): a datagram to the socket that it names.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Where to tell it; nowhere, if nobody asked.
#[derive(Debug, Default)]
pub struct Notify(Option<(UnixDatagram, SocketAddr)>);

impl Notify {
    /// To the socket with this name (`NOTIFY_SOCKET`): a path, or `@` and an abstract name.
    pub fn to(name: &str) -> io::Result<Self> {
        let address = match name.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        // A manager that does not read is no reason to stand still.
        socket.set_nonblocking(true)?;
        Ok(Self(Some((socket, address))))
    }

    /// Tells these variables, one a line.
    pub fn tell(&self, variables: &str) {
        let Some((socket, address)) = &self.0 else { return };
        if let Err(error) = socket.send_to_addr(variables.as_bytes(), address) {
            tracing::warn!(%error, variables, "the manager of services cannot be told");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_by_a_path_and_by_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("pylon-notify-{}", std::process::id());
        let by_name = SocketAddr::from_abstract_name(&name).unwrap();
        for (listens, name) in [
            (UnixDatagram::bind(&path).unwrap(), path.to_str().unwrap().to_owned()),
            (UnixDatagram::bind_addr(&by_name).unwrap(), format!("@{name}")),
        ] {
            Notify::to(&name).unwrap().tell("READY=1");
            let mut text = [0; 64];
            let length = listens.recv(&mut text).unwrap();
            assert_eq!(&text[..length], b"READY=1");
        }
        Notify::default().tell("READY=1");
    }
}
