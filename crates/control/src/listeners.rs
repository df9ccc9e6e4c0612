//! The listeners of the process, and what another document changes of them. What is new is bound before anything changes, so
//! that nothing has changed where that fails.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pylon_config::diagnostic::Diagnostic;
use pylon_config::plan::Plan;
use pylon_net::accept::Speaks;
use pylon_net::inherit::{Inheritance, Role};
use pylon_net::listen::Address;
use pylon_net::spec::{self, ListenerSpec};
use pylon_net::terms::{Desk, Over};
use pylon_net::tls::server::{Security, ServerTls};
use pylon_net::tls::spec::TlsSpec;
use serde::Serialize;
use tokio::sync::watch;

use crate::certificates;
use crate::gateway::StartError;
use crate::handover::Offer;
use crate::prepare::Prepared;
use crate::sockets::{self, Sockets};
use crate::worker::Listening;

mod wrong;

/// How often it is looked whether sockets and connections are gone that are to go.
const LOOK: Duration = Duration::from_millis(10);
/// How long a reload waits for the sockets of listeners that go, at most.
const CLOSING: Duration = Duration::from_secs(5);

/// All listening sockets.
#[derive(Debug)]
pub(crate) struct Ports {
    all: Mutex<All>,
    workers: usize,
    /// How long connections may take to end that have to go.
    grace: Duration,
    certificates: watch::Sender<certificates::All>,
    /// Held by whoever changes which sockets there are, or hands them over.
    pub(crate) changing: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug)]
struct All {
    /// In the order of the document.
    listeners: Vec<Port>,
    /// Those that are not for traffic.
    others: Vec<Sockets>,
    /// Those that are gone, until their connections are, too.
    leaving: Vec<(Address, Arc<Desk>)>,
    /// Nothing changes any more: the process ends, or another one serves.
    closed: bool,
}

/// A listener.
#[derive(Debug)]
struct Port {
    id: Arc<str>,
    spec: ListenerSpec,
    sockets: Sockets,
    desk: Arc<Desk>,
}

/// What a document changes, with all that is new bound. Dropped, nothing has changed.
#[derive(Debug)]
pub(crate) struct Change {
    added: Vec<(usize, Port)>,
    /// For each worker.
    listening: Vec<Vec<Listening>>,
    modes: Vec<(Arc<str>, Option<u32>)>,
}

/// What follows from a change once the document is in force.
#[derive(Debug)]
pub(crate) struct Changed {
    /// For each worker.
    pub(crate) listening: Vec<Vec<Listening>>,
    gone: Vec<Port>,
}

impl Changed {
    /// The ids of listeners that are gone.
    pub(crate) fn gone(&self) -> impl Iterator<Item = &Arc<str>> {
        self.gone.iter().map(|port| &port.id)
    }
}

/// A listener as the admin API shows it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ListenerView {
    /// Where it listens.
    address: Address,
    /// The address as it is written; none of a listener that is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    written: Option<Address>,
    /// `http` or `tcp`.
    protocol: &'static str,
    tls: bool,
    /// Whether it accepts; otherwise it is gone, and only its connections are there.
    accepting: bool,
    /// How many connections are there that were told to go.
    leaving: usize,
}

impl Ports {
    /// Binds everything, or takes it from `inheritance`.
    pub(crate) fn open(
        prepared: &Prepared,
        inheritance: &mut Inheritance,
        upgrade: Option<&Path>,
        grace: Duration,
    ) -> Result<Self, StartError> {
        let plan = &prepared.plan;
        let mut listeners = Vec::new();
        for (index, (id, spec)) in identified(&prepared.document.listeners).enumerate() {
            let port = Port::open(plan, index, (id, spec), plan.workers, inheritance).map_err(|source| {
                StartError::Bind { address: spec.address.clone(), key: format!("listeners[{index}].address"), source }
            })?;
            listeners.push(port);
        }
        let others = sockets::open_others(plan, inheritance, upgrade)?;
        // What a gateway before this one leaves, it closes itself; what the manager of services hands over waits for ever.
        if let Some((_, address)) = inheritance.left().find(|(role, _)| *role == Role::Any) {
            return Err(StartError::Unclaimed(address.clone()));
        }
        let certificates = watch::Sender::new(certificates_of(&listeners));
        let all = Mutex::new(All { listeners, others, leaving: Vec::new(), closed: false });
        Ok(Self { all, workers: plan.workers, grace, certificates, changing: Arc::default() })
    }

    /// The addresses that accept, in the order of the document.
    pub(crate) fn addresses(&self) -> Vec<Address> {
        self.all.lock().listeners.iter().map(|port| port.sockets.address.clone()).collect()
    }

    /// The TLS of the listeners that there are.
    pub(crate) fn certificates(&self) -> watch::Receiver<certificates::All> {
        self.certificates.subscribe()
    }

    /// The sockets of all listeners for each worker.
    pub(crate) fn share_out(&self) -> io::Result<Vec<Vec<Listening>>> {
        share_out(self.all.lock().listeners.iter(), self.workers)
    }

    /// Does something with the sockets that are not for traffic.
    pub(crate) fn with_others<T>(&self, look: impl FnOnce(&[Sockets]) -> T) -> T {
        look(&self.all.lock().others)
    }

    /// Whether nothing is to change any more.
    pub(crate) fn are_closed(&self) -> bool {
        self.all.lock().closed
    }

    /// All sockets once more, to be handed over.
    pub(crate) fn offers(&self) -> io::Result<Vec<Offer>> {
        self.all.lock().sockets().map(|(sockets, _)| sockets.offer()).collect()
    }

    /// Leaves the sockets with these numbers among the offers to the process that has them, and closes the others.
    pub(crate) fn hand_over(&self, taken: &[usize]) {
        let mut all = self.all.lock();
        all.closed = true;
        for (index, (sockets, _)) in all.sockets().enumerate() {
            if taken.contains(&index) { sockets.leave() } else { sockets.close() }
        }
    }

    /// The process before this one has left its place.
    pub(crate) fn in_charge(&self) {
        self.all.lock().sockets().for_each(|(sockets, mode)| sockets.in_charge(mode));
    }

    /// Closes all that is for traffic.
    pub(crate) fn close(&self) {
        let mut all = self.all.lock();
        all.closed = true;
        all.listeners.iter_mut().for_each(|port| port.sockets.close());
    }

    /// Binds what a document adds, so that only what cannot fail is left. What is wrong is told, and nothing has changed.
    pub(crate) fn prepare(&self, prepared: &Prepared) -> Result<Change, Vec<Diagnostic>> {
        let all = self.all.lock();
        let mut change = Change { added: Vec::new(), listening: Vec::new(), modes: Vec::new() };
        let mut wrong = Vec::new();
        let specs: Vec<_> = identified(&prepared.document.listeners).collect();
        for port in all.listeners.iter().filter(|port| specs.iter().all(|(id, _)| *id != port.id)) {
            if port.sockets.door.is_held() {
                wrong.push(wrong::held(&prepared.source, &port.spec.address));
            }
        }
        for (index, (id, spec)) in specs.into_iter().enumerate() {
            match all.listeners.iter().find(|port| port.id == id) {
                Some(port) if port.spec.mode != spec.mode => {
                    change.modes.push((id, port.spec.mode.map(|mode| mode.0)));
                    if let Err(error) = port.sockets.set_mode(spec.mode.map(|mode| mode.0)) {
                        wrong.push(wrong::mode(&prepared.source, index, &error));
                    }
                }
                Some(_) => {}
                None => {
                    match Port::open(&prepared.plan, index, (id, spec), self.workers, &mut Inheritance::default()) {
                        Ok(port) => change.added.push((index, port)),
                        Err(error) => {
                            let ours = all.listeners.iter().map(|port| &port.sockets.address);
                            wrong.push(wrong::bind(&prepared.source, index, &spec.address, &error, ours));
                        }
                    }
                }
            }
        }
        match share_out(change.added.iter().map(|(_, port)| port), self.workers) {
            Ok(listening) => change.listening = listening,
            Err(error) => wrong.push(Diagnostic::error(format!("the workers cannot get their sockets: {error}"))),
        }
        if wrong.is_empty() {
            return Ok(change);
        }
        all.revert(&change);
        Err(wrong)
    }

    /// Puts a change in force for whoever comes from now on. None where it is too late for changes.
    pub(crate) fn put_in_force(self: &Arc<Self>, change: Change, prepared: &Prepared) -> Option<Changed> {
        let mut all = self.all.lock();
        if all.closed {
            all.revert(&change);
            return None;
        }
        let mut before = std::mem::take(&mut all.listeners);
        let mut added = change.added;
        for (index, (id, spec)) in identified(&prepared.document.listeners).enumerate() {
            let port = match before.iter().position(|port| port.id == id) {
                Some(kept) => {
                    let mut port = before.swap_remove(kept);
                    if port.renew(spec, &prepared.plan, index) {
                        tokio::spawn(Arc::clone(self).see_off(Arc::clone(&port.desk)));
                    }
                    Some(port)
                }
                None => added.iter().position(|(of, _)| *of == index).map(|at| added.swap_remove(at).1),
            };
            all.listeners.extend(port);
        }
        self.certificates.send_replace(certificates_of(&all.listeners));
        Some(Changed { listening: change.listening, gone: before })
    }

    /// Closes the listeners that are gone. Answers once nobody waits at their sockets any more; their connections end meanwhile
    /// and later.
    pub(crate) async fn close_gone(self: &Arc<Self>, gone: Changed) {
        let mut desks = Vec::new();
        for mut port in gone.gone {
            let address = port.sockets.address.clone();
            tracing::info!(%address, "a listener is gone: its connections end");
            self.all.lock().leaving.push((address, Arc::clone(&port.desk)));
            port.sockets.close();
            port.desk.end();
            tokio::spawn(Arc::clone(self).see_off(Arc::clone(&port.desk)));
            desks.push(port.desk);
        }
        let until = tokio::time::Instant::now() + CLOSING;
        while desks.iter().any(|desk| desk.accepting() > 0) && tokio::time::Instant::now() < until {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until the connections are gone that have to go, and cuts those that do not go in time.
    async fn see_off(self: Arc<Self>, desk: Arc<Desk>) {
        let until = tokio::time::Instant::now() + self.grace;
        let is_gone = |desk: &Arc<Desk>| self.all.lock().leaving.iter().any(|(_, gone)| Arc::ptr_eq(gone, desk));
        while desk.leaving() > 0 || (is_gone(&desk) && desk.accepting() > 0) {
            if tokio::time::Instant::now() >= until {
                let connections = desk.cut();
                tracing::warn!(connections, "cut connections of a listener that had not ended within the grace time");
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        self.all.lock().leaving.retain(|(_, gone)| !Arc::ptr_eq(gone, &desk));
    }

    /// For the admin API.
    pub(crate) fn view(&self) -> Vec<ListenerView> {
        let all = self.all.lock();
        let open = all
            .listeners
            .iter()
            .map(|port| ListenerView::of(&port.sockets.address, Some(&port.spec.address), &port.desk, !all.closed));
        open.chain(all.leaving.iter().map(|(address, desk)| ListenerView::of(address, None, desk, false))).collect()
    }
}

impl All {
    /// All sockets in the order in which they are offered, each with the permissions that it is to have.
    fn sockets(&mut self) -> impl Iterator<Item = (&mut Sockets, Option<u32>)> {
        let listeners = self.listeners.iter_mut().map(|port| (&mut port.sockets, port.spec.mode.map(|mode| mode.0)));
        listeners.chain(self.others.iter_mut().map(|sockets| (sockets, Some(crate::upgrade::MODE))))
    }

    /// Gives back permissions that have been changed already.
    fn revert(&self, change: &Change) {
        for (id, mode) in &change.modes {
            if let Some(port) = self.listeners.iter().find(|port| port.id == *id) {
                // Where it cannot be changed, it has not been.
                let _ = port.sockets.set_mode(*mode);
            }
        }
    }
}

impl Port {
    fn open(
        plan: &Plan,
        index: usize,
        (id, spec): (Arc<str>, &ListenerSpec),
        workers: usize,
        inheritance: &mut Inheritance,
    ) -> io::Result<Self> {
        let front = plan.listeners.get(index).map(|listener| listener.front.clone());
        let front = front.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let mode = spec.mode.map(|mode| mode.0);
        let sockets = Sockets::open(Role::Listener, &spec.address, mode, workers, inheritance)?;
        Ok(Self { id, spec: spec.clone(), sockets, desk: Arc::new(Desk::new(front)) })
    }

    /// Takes on what another document says of it. Answers whether those who are there have to go.
    fn renew(&mut self, spec: &ListenerSpec, plan: &Plan, index: usize) -> bool {
        let Some(listener) = plan.listeners.get(index).filter(|_| *spec != self.spec) else { return false };
        let (mut front, now) = (listener.front.clone(), self.desk.front());
        if spec.tls == self.spec.tls && front.speaks.alpn() == now.speaks.alpn() {
            // Sessions can be resumed still.
            front.security = now.security;
        }
        let over = (demands(spec) != demands(&self.spec)).then_some(Over::Withdrawn);
        self.desk.change(front, over);
        self.spec = spec.clone();
        tracing::info!(address = %self.sockets.address, reconnect = over.is_some(), "a listener has changed");
        over.is_some()
    }
}

impl ListenerView {
    fn of(address: &Address, written: Option<&Address>, desk: &Desk, accepting: bool) -> Self {
        let front = desk.front();
        Self {
            address: address.clone(),
            written: written.cloned(),
            protocol: if matches!(front.speaks, Speaks::Http { .. }) { "http" } else { "tcp" },
            tls: matches!(front.security, Security::Tls(_)),
            accepting,
            leaving: desk.leaving(),
        }
    }
}

/// What tells connections that may be served from those that may not: what is demanded of clients, whom they are told apart
/// by, and what they speak. Certificates of the gateway are no demands.
fn demands(spec: &ListenerSpec) -> impl PartialEq {
    let tls = spec.tls.as_ref().map(|tls| TlsSpec { certificates: Vec::new(), ..tls.clone() });
    (tls, spec.proxy_protocol.clone(), spec.tcp.is_some())
}

fn identified(specs: &[ListenerSpec]) -> impl Iterator<Item = (Arc<str>, &ListenerSpec)> {
    spec::ids(specs).into_iter().zip(specs)
}

fn certificates_of(listeners: &[Port]) -> Arc<Vec<Arc<ServerTls>>> {
    let tls = listeners.iter().filter_map(|port| match port.desk.front().security {
        Security::Cleartext => None,
        Security::Tls(tls) => Some(tls),
    });
    Arc::new(tls.collect())
}

/// The sockets that each worker is to serve.
fn share_out<'p>(ports: impl Iterator<Item = &'p Port> + Clone, workers: usize) -> io::Result<Vec<Vec<Listening>>> {
    let of_worker = |id| {
        let mut own = Vec::new();
        for port in ports.clone() {
            for socket in port.sockets.of_worker(id, workers)? {
                own.push(Listening { socket, door: Arc::clone(&port.sockets.door), desk: Arc::clone(&port.desk) });
            }
        }
        Ok(own)
    };
    (0..workers).map(of_worker).collect()
}
