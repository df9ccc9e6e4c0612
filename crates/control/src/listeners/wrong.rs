//! Why the listeners of a document cannot be opened, said of the key and with what helps.

use std::io;

use pylon_config::diagnostic::Diagnostic;
use pylon_config::load::Source;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_net::listen::Address;

/// An address cannot be listened on. `ours` are those where this process listens already.
pub(super) fn bind<'a>(
    source: &Source,
    index: usize,
    address: &Address,
    error: &io::Error,
    mut ours: impl Iterator<Item = &'a Address>,
) -> Diagnostic {
    let at = FieldPath::root().key("listeners").index(index).key("address");
    let unix = matches!(address, Address::Unix(_));
    let help = match error.kind() {
        io::ErrorKind::AddrInUse => match ours.find(|other| same_port(other, address)) {
            Some(other) => {
                format!("this gateway itself listens on `{other}`: take that out by a reload of its own first")
            }
            None if unix => "remove what stands there, or choose another path".to_owned(),
            None => "choose another port, or end what listens there: `ss -ltnp` tells who does".to_owned(),
        },
        io::ErrorKind::PermissionDenied if unix => {
            "the gateway's user must be allowed to write in the folder of the socket".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 take the capability CAP_NET_BIND_SERVICE: choose another one, or give it".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => "choose an address that this machine has".to_owned(),
        io::ErrorKind::NotFound if unix => "make the folder of the socket".to_owned(),
        _ => "choose another address".to_owned(),
    };
    source.error(&SpecError::new(at, format!("cannot listen on {address}: {error}")).help(help))
}

fn same_port(ours: &Address, other: &Address) -> bool {
    match (ours.tcp(), other.tcp()) {
        (Some(ours), Some(other)) => ours.port() == other.port(),
        _ => ours == other,
    }
}

/// The permissions of a Unix socket cannot be changed.
pub(super) fn mode(source: &Source, index: usize, error: &io::Error) -> Diagnostic {
    let at = FieldPath::root().key("listeners").index(index).key("mode");
    let error = SpecError::new(at, format!("the permissions of this socket cannot be changed: {error}"));
    source.error(&error.help("leave them as they were, or choose another path"))
}

/// A listener that is gone from the document has its socket from the manager of services.
pub(super) fn held(source: &Source, address: &Address) -> Diagnostic {
    let problem = format!("the manager of services has opened {address}, where clients would wait for ever");
    let error = SpecError::new(FieldPath::root().key("listeners"), problem);
    source.error(&error.help("keep the listener, or take the address out of the socket unit and restart the gateway"))
}
