//! Caps on the connections of clients, in all and for each address: one truth for the process, and room made in good order.
//!
//! Over the cap an idle connection of the same worker is closed for the new one: of the address that holds the most,
//! the one that has been idle for the longest. Where none is idle, one whose head is still on its way goes. A connection
//! that is being served is never closed for another: then the new one is turned away. An IPv6 address counts with its
//! /64, since whoever has one has all of it. What is kept of an address goes with its last connection.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pylon_core::networks::PeerSet;
use pylon_observe::outcomes::Refused;

/// Locks among which addresses are spread, so that workers seldom meet.
const SHARDS: usize = 64;

/// How many connections there may be, and how many there are.
#[derive(Debug)]
pub struct Caps {
    most: AtomicUsize,
    per_address: AtomicUsize,
    /// Proxies, each of which stands for many clients: they are not counted by address.
    exempt: ArcSwap<PeerSet>,
    open: AtomicUsize,
    by_address: Vec<Mutex<HashMap<IpAddr, Arc<AtomicUsize>>>>,
    hasher: RandomState,
    shedding: AtomicBool,
}

impl Caps {
    /// At most `most` connections in all and `per_address` from one address, but for those in `exempt`.
    pub fn new(most: usize, per_address: Option<usize>, exempt: PeerSet) -> Self {
        Self {
            most: AtomicUsize::new(most),
            per_address: AtomicUsize::new(per_address.unwrap_or(usize::MAX)),
            exempt: ArcSwap::from_pointee(exempt),
            open: AtomicUsize::new(0),
            by_address: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            shedding: AtomicBool::new(false),
        }
    }

    /// Sets other caps, as [`Caps::new`] does. Who is there already stays.
    pub fn set(&self, most: usize, per_address: Option<usize>, exempt: PeerSet) {
        self.most.store(most, Ordering::Relaxed);
        self.per_address.store(per_address.unwrap_or(usize::MAX), Ordering::Relaxed);
        self.exempt.store(Arc::new(exempt));
    }

    /// The cap in all.
    pub fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Whether memory is short, so that nothing new is taken in.
    pub fn is_shedding(&self) -> bool {
        self.shedding.load(Ordering::Relaxed)
    }

    /// Says whether memory is short.
    pub fn shed(&self, whether: bool) {
        self.shedding.store(whether, Ordering::Relaxed);
    }

    /// Counts one more connection, if there is room.
    pub(crate) fn enter(&self) -> bool {
        let most = self.most();
        let more = |open| (open < most).then_some(open + 1);
        self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Counts one connection less.
    pub(crate) fn leave(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts one more connection of an address, if it may have one.
    pub(crate) fn hold(self: &Arc<Self>, address: IpAddr) -> Result<Option<Held>, Refused> {
        if self.exempt.load().has(address) {
            return Ok(None);
        }
        let address = counted(address);
        let mut shard = self.shard(address).lock();
        let count = shard.entry(address).or_default();
        if count.load(Ordering::Relaxed) >= self.per_address.load(Ordering::Relaxed) {
            return Err(Refused::PerAddress);
        }
        count.fetch_add(1, Ordering::Relaxed);
        Ok(Some(Held { count: Arc::clone(count), address, caps: Arc::clone(self) }))
    }

    #[expect(clippy::indexing_slicing, reason = "taken modulo the number of shards")]
    fn shard(&self, address: IpAddr) -> &Mutex<HashMap<IpAddr, Arc<AtomicUsize>>> {
        &self.by_address[(self.hasher.hash_one(address) % SHARDS as u64) as usize]
    }
}

impl Default for Caps {
    fn default() -> Self {
        Self::new(usize::MAX, None, PeerSet::default())
    }
}

/// A connection that counts for its address until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    count: Arc<AtomicUsize>,
    address: IpAddr,
    caps: Arc<Caps>,
}

impl Held {
    /// How many connections the address has.
    pub(crate) fn of_address(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut shard = self.caps.shard(self.address).lock();
        // Under the lock, so that nobody counts on what is being taken out.
        if self.count.fetch_sub(1, Ordering::Relaxed) == 1 {
            shard.remove(&self.address);
        }
    }
}

/// What of an address is counted.
fn counted(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pylon_core::networks::PeerSpec;

    fn caps(most: usize, per_address: usize) -> Arc<Caps> {
        let trusted = pylon_core::networks::Network::parse("10.0.0.0/8").unwrap();
        Arc::new(Caps::new(most, Some(per_address), PeerSet::new(&[PeerSpec::Network(trusted)])))
    }

    #[test]
    fn ten_are_ten_however_many_threads_count() {
        let caps = caps(10, 1);
        let entered = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| (0..100).filter(|_| caps.enter()).count())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        assert_eq!((entered, caps.open()), (10, 10));
        caps.leave();
        assert!(caps.enter() && !caps.enter());
    }

    #[test]
    fn an_address_has_its_share_and_what_is_kept_of_it_goes_with_its_last_connection() {
        let caps = caps(100, 2);
        let hold = |text: &str| caps.hold(text.parse().unwrap());
        let first = [hold("192.0.2.1"), hold("192.0.2.1")];
        assert!(hold("192.0.2.1").is_err() && hold("192.0.2.2").is_ok());
        // One subscriber has a whole /64.
        let six = [hold("2001:db8::1"), hold("2001:db8::ffff:1")];
        assert!(hold("2001:db8::2").is_err() && hold("2001:db8:0:1::1").is_ok());
        assert!((0..100).all(|_| matches!(hold("10.1.2.3"), Ok(None))), "a proxy is no client");
        drop((first, six));
        assert!(caps.by_address.iter().all(|shard| shard.lock().is_empty()));
        assert!(hold("192.0.2.1").is_ok());
    }
}
