//! A name server that answers by script (RFC 1035 §4), over UDP on loopback.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};

use pylon_testkit::wait::ms;

/// What the server says of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Says {
    /// These addresses, for one second.
    Addresses(Vec<Ipv4Addr>),
    /// SERVFAIL.
    Failure,
    /// NXDOMAIN, as for every name that it has not been told of.
    Unknown,
}

/// A server that runs for as long as it is held.
pub(crate) struct NameServer {
    pub(crate) address: SocketAddr,
    said: Arc<Mutex<HashMap<String, Says>>>,
}

impl NameServer {
    pub(crate) fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(ms(500))).unwrap();
        let address = socket.local_addr().unwrap();
        let said = Arc::new(Mutex::new(HashMap::new()));
        let weak = Arc::downgrade(&said);
        std::thread::spawn(move || {
            let mut query = [0; 1500];
            while let Some(said) = weak.upgrade() {
                let Ok((length, from)) = socket.recv_from(&mut query) else { continue };
                if let Some(answer) = answer(&query[..length], &said.lock().unwrap()) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self { address, said }
    }

    /// From now on says this of a name.
    pub(crate) fn says(&self, name: &str, says: Says) {
        self.said.lock().unwrap().insert(name.to_owned(), says);
    }

    /// Lines of a document by which this server is asked.
    pub(crate) fn document(&self) -> String {
        format!("discovery: {{ dns: {{ servers: [\"{}\"] }} }}\n", self.address)
    }
}

fn answer(query: &[u8], said: &HashMap<String, Says>) -> Option<Vec<u8>> {
    let mut at = 12;
    let mut name = Vec::new();
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        name.push(String::from_utf8_lossy(query.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let question = query.get(12..at + 4)?;
    let wants_four = query.get(at..at + 2)? == [0, 1];
    let (code, addresses) = match said.get(&name.join(".")) {
        Some(Says::Addresses(addresses)) => (0, if wants_four { addresses.clone() } else { Vec::new() }),
        Some(Says::Failure) => (2, Vec::new()),
        Some(Says::Unknown) | None => (3, Vec::new()),
    };
    let mut out = query[..2].to_vec();
    out.extend([0x81, 0x80 | code, 0, 1, 0, addresses.len() as u8, 0, 0, 0, 0]);
    out.extend_from_slice(question);
    for address in addresses {
        // A pointer to the question's name, A, IN, one second, four bytes.
        out.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        out.extend(address.octets());
    }
    Some(out)
}
