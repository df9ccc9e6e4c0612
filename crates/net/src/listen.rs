//! Binding listening sockets: one for each worker on the same address, shared out by the kernel (SO_REUSEPORT).

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// How many connections may wait to be accepted on each socket.
const BACKLOG: i32 = 4096;

/// Binds `address` once for each of `workers`. Port 0 takes a free port, the same for all.
///
/// Before the first bind a plain bind probes the address: with SO_REUSEPORT alone a second gateway would share the
/// port in silence.
pub fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
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
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_use_is_refused_even_by_another_gateway_that_shares_ports() {
        let mine = bind("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        assert_eq!(mine.len(), 2);
        let address = mine[0].local_addr().unwrap();
        assert_eq!(mine[1].local_addr().unwrap(), address);
        assert_eq!(bind(address, 2).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
