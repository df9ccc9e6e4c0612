//! The name servers of the system: those of `/etc/resolv.conf`, which is looked at before each lookup, so that a change of it
//! counts from the next one on without a reload. While it cannot be used, those that were there before are asked.

use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::ResolverConfig;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::system_conf::parse_resolv_conf;
use parking_lot::Mutex;

use super::options;

/// Asks the servers that a file names.
pub(super) struct System {
    path: PathBuf,
    /// The port of the servers: the file cannot say it.
    port: u16,
    known: Mutex<Known>,
}

struct Known {
    /// What the file holds, be it of use or not.
    text: Vec<u8>,
    client: Arc<TokioResolver>,
}

impl fmt::Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("System").field(&self.path).finish()
    }
}

impl System {
    pub(super) fn read(path: PathBuf, port: u16) -> Result<Self, NetError> {
        let text =
            fs::read(&path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        let client = client(&text, port)?;
        Ok(Self { path, port, known: Mutex::new(Known { text, client }) })
    }

    /// A client of the servers that there are now. It reads a small file: for the control runtime.
    pub(super) fn client(&self) -> Arc<TokioResolver> {
        let mut known = self.known.lock();
        if let Ok(text) = fs::read(&self.path)
            && text != known.text
        {
            let path = self.path.display();
            match client(&text, self.port) {
                Ok(client) => {
                    tracing::info!(%path, "the name servers of the system have changed");
                    known.client = client;
                }
                Err(error) => tracing::warn!(%path, %error, "those before are asked: the file cannot be used"),
            }
            known.text = text;
        }
        Arc::clone(&known.client)
    }
}

fn client(text: &[u8], port: u16) -> Result<Arc<TokioResolver>, NetError> {
    let (config, written) = parse_resolv_conf(text)?;
    let mut servers = config.name_servers().to_vec();
    for connection in servers.iter_mut().flat_map(|server| &mut server.connections) {
        connection.port = port;
    }
    let config = ResolverConfig::from_parts(config.domain().cloned(), config.search().to_vec(), servers);
    let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    builder.with_options(options(written)).build().map(Arc::new)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use tokio::net::UdpSocket;

    use super::*;
    use crate::resolve::Resolver;

    /// A server that answers every question for A by its own address (RFC 1035 §4).
    async fn server(at: Ipv4Addr, port: u16) -> u16 {
        let socket = UdpSocket::bind((at, port)).await.unwrap();
        let port = socket.local_addr().unwrap().port();
        tokio::spawn(async move {
            let mut query = [0_u8; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut query).await {
                let end = 12 + query[12..length].iter().position(|&byte| byte == 0).unwrap() + 5;
                let of_four = query[end - 4..end - 2] == [0, 1];
                let mut reply = query[..2].to_vec();
                reply.extend([0x81, 0x80, 0, 1, 0, u8::from(of_four), 0, 0, 0, 0]);
                reply.extend(&query[12..end]);
                if of_four {
                    reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
                    reply.extend(at.octets());
                }
                socket.send_to(&reply, from).await.unwrap();
            }
        });
        port
    }

    #[tokio::test]
    async fn a_changed_file_counts_from_the_next_lookup_on_and_one_that_cannot_be_used_changes_nothing() {
        let [a, b] = [Ipv4Addr::new(127, 0, 0, 31), Ipv4Addr::new(127, 0, 0, 32)];
        let port = server(a, 0).await;
        server(b, port).await;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        let name = |server: Ipv4Addr| fs::write(&path, format!("search .\nnameserver {server}\n")).unwrap();
        name(a);
        let resolver = Resolver::of_system(Arc::new(System::read(path.clone(), port).unwrap()));
        let asked = async |resolver: &Resolver| resolver.lookup_ip("users.test.").await.unwrap().addrs;
        assert_eq!(asked(&resolver).await, [IpAddr::V4(a)]);
        name(b);
        // Those that were made before see it, too.
        assert_eq!(asked(&resolver.clone()).await, [IpAddr::V4(b)]);
        for broken in ["", "nameserver\n", "# half of it"] {
            fs::write(&path, broken).unwrap();
            assert_eq!(asked(&resolver).await, [IpAddr::V4(b)], "{broken:?}");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(asked(&resolver).await, [IpAddr::V4(b)]);
        name(a);
        assert_eq!(asked(&resolver).await, [IpAddr::V4(a)]);
    }
}
