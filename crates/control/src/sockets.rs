//! The listening sockets of the process: bound or taken over, shared out to the workers, and handed over or closed.
//!
//! How many there are for an address is settled when it is first bound, and stays, whatever the number of workers of a later
//! process: one worker may serve several of them, and one of them may be served by several workers. One of each is kept
//! here beside those that the workers have, to be handed over.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use pylon_config::plan::Plan;
use pylon_net::door::Door;
use pylon_net::inherit::{Inheritance, Role};
use pylon_net::listen::{self, Address, FileId, Listener, SocketFile};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::admin;
use crate::gateway::{StartError, State};
use crate::handover::Offer;
use crate::upgrade::{self, Asked};

/// The sockets of one address.
#[derive(Debug)]
pub(crate) struct Sockets {
    role: Role,
    written: Address,
    /// Where they listen; a port that was left open is filled in.
    pub(crate) address: Address,
    /// Whether they accept.
    pub(crate) door: Arc<Door>,
    file: Option<SocketFile>,
    /// The file that is ours once the process before has left it.
    waiting: Option<FileId>,
    kept: Vec<Listener>,
}

impl Sockets {
    /// Takes those of `written` from `inheritance`, or binds them, one for each of `workers`.
    pub(crate) fn open(
        role: Role,
        written: &Address,
        mode: Option<u32>,
        workers: usize,
        inheritance: &mut Inheritance,
    ) -> io::Result<Self> {
        let legacy = inheritance.take(role, written);
        let held = legacy.as_ref().is_some_and(|legacy| legacy.held);
        let waiting = legacy.as_ref().and_then(|legacy| legacy.file);
        let mut bound = match legacy {
            Some(legacy) => legacy.into_bound()?,
            None => listen::bind(written, mode, workers)?,
        };
        if matches!(written, Address::Unix(_)) {
            // They are one socket.
            bound.sockets.truncate(1);
        }
        let door = Arc::new(if held { Door::held() } else { Door::default() });
        let (file, kept) = (bound.file, bound.sockets);
        Ok(Self { role, written: written.clone(), address: bound.address, door, file, waiting, kept })
    }

    /// Those that worker `id` of `workers` is to serve.
    pub(crate) fn of_worker(&self, id: usize, workers: usize) -> io::Result<Vec<Listener>> {
        let all = self.kept.len();
        (0..all.max(workers))
            .filter(|index| index % workers == id)
            .filter_map(|index| self.kept.get(index % all))
            .map(Listener::try_clone)
            .collect()
    }

    /// Once more, to be handed over.
    pub(crate) fn offer(&self) -> io::Result<Offer> {
        Ok(Offer {
            role: self.role,
            written: self.written.clone(),
            held: self.door.is_held(),
            file: self.file.as_ref().map(SocketFile::id),
            sockets: self.kept.iter().map(Listener::try_clone).collect::<io::Result<_>>()?,
        })
    }

    /// The process before has left its place. The file of a Unix socket gets the permissions that are written by now.
    pub(crate) fn in_charge(&mut self, mode: Option<u32>) {
        if let (Some(id), Address::Unix(path)) = (self.waiting.take(), &self.address) {
            let file = SocketFile::taken_over(path.clone(), id);
            if let Err(error) = file.set_mode(mode) {
                tracing::warn!(path = %path.display(), %error, "the permissions of the socket cannot be set");
            }
            self.file = Some(file);
        }
    }

    /// Leaves them to the process that has them, too.
    pub(crate) fn leave(&mut self) {
        if let Some(file) = self.file.take() {
            file.leave();
        }
        self.kept.clear();
        self.door.leave();
    }

    /// Lets nobody new in: they are closed when nobody waits any more.
    pub(crate) fn close(&mut self) {
        // Before the door, so that nobody comes to a Unix socket any more, and so that the workers' are the last.
        self.file = None;
        self.kept.clear();
        self.door.close();
    }

    /// Gives the file of a Unix socket other permissions.
    pub(crate) fn set_mode(&self, mode: Option<u32>) -> io::Result<()> {
        match &self.file {
            Some(file) => file.set_mode(mode),
            None => Err(io::Error::other("the manager of services has made its file")),
        }
    }
}

/// Opens the sockets that are not for traffic: that of the admin API, and that for upgrades at `upgrade`.
pub(crate) fn open_others(
    plan: &Plan,
    inheritance: &mut Inheritance,
    upgrade: Option<&Path>,
) -> Result<Vec<Sockets>, StartError> {
    let mut all = Vec::new();
    let mut open = |role, address: &Address, mode, key: &str| {
        let bind = |source| StartError::Bind { address: address.clone(), key: key.to_owned(), source };
        all.push(Sockets::open(role, address, mode, 1, inheritance).map_err(bind)?);
        Ok::<_, StartError>(())
    };
    if let Some(admin) = &plan.admin {
        open(Role::Admin, &Address::Tcp(admin.address), None, "admin.address")?;
    }
    if let Some(path) = upgrade {
        open(Role::Upgrade, &Address::Unix(path.to_owned()), Some(upgrade::MODE), "--upgrade-socket")?;
    }
    Ok(all)
}

/// Where the admin API listens, if it does.
pub(crate) fn admin(all: &[Sockets]) -> Option<SocketAddr> {
    all.iter().find(|sockets| sockets.role == Role::Admin)?.address.tcp()
}

/// Serves by the sockets that are not for traffic. Answers who asks for upgrades.
pub(crate) fn serve_others(
    all: &[Sockets],
    control: &Handle,
    state: &Arc<State>,
) -> io::Result<Option<mpsc::Receiver<Asked>>> {
    let mut upgrades = None;
    for sockets in all {
        let door = Arc::clone(&sockets.door);
        match (sockets.role, sockets.kept.first().map(Listener::try_clone).transpose()?) {
            (Role::Admin, Some(Listener::Tcp(socket))) => {
                control.spawn(admin::serve(socket, door, Arc::clone(state)));
            }
            (Role::Upgrade, Some(Listener::Unix(socket))) => {
                let (asks, asked) = mpsc::channel(1);
                upgrades = Some(asked);
                control.spawn(upgrade::listen(socket, door, asks));
            }
            _ => {}
        }
    }
    Ok(upgrades)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_socket_has_a_worker_and_every_worker_a_socket() {
        let written = Address::parse("127.0.0.1:0").unwrap();
        for bound in 1..5 {
            let sockets = Sockets::open(Role::Listener, &written, None, bound, &mut Inheritance::default()).unwrap();
            for workers in 1..5 {
                let counts: Vec<_> = (0..workers).map(|id| sockets.of_worker(id, workers).unwrap().len()).collect();
                assert!(counts.iter().all(|count| *count > 0), "{bound} sockets, {workers} workers: {counts:?}");
                assert_eq!(counts.iter().sum::<usize>(), bound.max(workers));
            }
        }
    }
}
