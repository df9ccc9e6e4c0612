//! The client connections of one worker: who is there, who goes first when room is needed, and how they are told.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pylon_core::connection::{Connection, Phase};
use pylon_observe::outcomes::{Evicted, Refused};
use tokio::task::AbortHandle;

use crate::caps::{Caps, Held};

/// How many of those who go first are found by one look at all.
const FOUND: usize = 32;
/// How long nobody is looked for after a look at all has found nobody.
const BARREN: Duration = Duration::from_millis(10);

/// The connections of one worker.
#[derive(Debug)]
pub(crate) struct Guests {
    caps: Arc<Caps>,
    roster: Mutex<Roster>,
}

#[derive(Debug, Default)]
struct Roster {
    seats: Vec<Option<Arc<Seat>>>,
    free: Vec<usize>,
    /// Those who go next, the first of them last.
    next: Vec<Found>,
    barren_until: Option<Instant>,
    numbers: u64,
}

/// A connection's place. It is given back when its guest leaves.
#[derive(Debug)]
pub(crate) struct Seat {
    index: usize,
    /// No two seats have the same.
    number: u64,
    accepted: Instant,
    state: AtomicU8,
    waker: Mutex<Option<Waker>>,
    connection: OnceLock<Arc<Connection>>,
    held: OnceLock<Held>,
    /// What serves it.
    server: Mutex<Server>,
    /// Its place in the count of all has gone to another.
    given: AtomicBool,
}

/// The task that serves a connection: one after the other may.
#[derive(Debug, Default)]
struct Server {
    /// The task, and the number of the part of the drain that it belongs to.
    task: Option<(u64, AbortHandle)>,
    /// It was cut, and so is every task that follows.
    cut: bool,
}

/// The states of a seat.
const FRESH: u8 = 0;
const WATCHED: u8 = 1;
const EVICTED: u8 = 2;

/// Somebody who may go, as seen at a look. Greater goes earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    /// Whether idle, rather than slow with a head.
    idle: bool,
    /// How many connections its address has, in powers of two: small differences say nothing.
    held: u32,
    /// For how long.
    lasted: Duration,
    number: u64,
    index: usize,
}

impl Guests {
    pub(crate) fn new(caps: Arc<Caps>) -> Self {
        Self { caps, roster: Mutex::default() }
    }

    /// A seat for a connection from `address`, or of nobody that is known yet. Tells who had to leave for it.
    pub(crate) fn seat(&self, address: Option<IpAddr>, now: Instant) -> Result<(Arc<Seat>, Option<Evicted>), Refused> {
        if self.caps.is_shedding() {
            return Err(Refused::Memory);
        }
        let held = address.map(|address| self.caps.hold(address)).transpose()?.flatten();
        let mut roster = self.roster.lock();
        let evicted = if self.caps.enter() { None } else { Some(roster.make_room(now).ok_or(Refused::InAll)?) };
        let seat = roster.add(now);
        if let Some(held) = held {
            let _ = seat.held.set(held);
        }
        Ok((seat, evicted))
    }

    /// Counts the connection for the address that a balancer tells, if that may have one more.
    pub(crate) fn is_from(&self, seat: &Seat, address: IpAddr) -> Result<(), Refused> {
        if let Some(held) = self.caps.hold(address)? {
            let _ = seat.held.set(held);
        }
        Ok(())
    }

    /// The guest of this seat has left.
    pub(crate) fn leave(&self, seat: &Seat) {
        self.roster.lock().remove(seat);
        if !seat.given.load(Ordering::Relaxed) {
            self.caps.leave();
        }
    }

    /// Cuts all connections of a part of the drain. Answers how many.
    pub(crate) fn cut(&self, part: u64) -> usize {
        let tasks: Vec<_> = self.roster.lock().seats.iter().flatten().filter_map(|seat| seat.cut(part)).collect();
        tasks.iter().for_each(AbortHandle::abort);
        tasks.len()
    }

    /// Closes all connections that are idle. Answers how many.
    pub(crate) fn clear(&self) -> usize {
        let roster = self.roster.lock();
        let idle = |seat: &&Arc<Seat>| seat.connection.get().is_some_and(|it| it.activity.phase() == Phase::Idle);
        roster.seats.iter().flatten().filter(idle).filter(|seat| seat.evict()).count()
    }
}

impl Roster {
    fn add(&mut self, now: Instant) -> Arc<Seat> {
        self.numbers = self.numbers.wrapping_add(1);
        let index = self.free.pop().unwrap_or(self.seats.len());
        let seat = Arc::new(Seat {
            index,
            number: self.numbers,
            accepted: now,
            state: AtomicU8::new(FRESH),
            waker: Mutex::default(),
            connection: OnceLock::new(),
            held: OnceLock::new(),
            server: Mutex::default(),
            given: AtomicBool::new(false),
        });
        match self.seats.get_mut(index) {
            Some(place) => *place = Some(Arc::clone(&seat)),
            None => self.seats.push(Some(Arc::clone(&seat))),
        }
        seat
    }

    fn remove(&mut self, seat: &Seat) {
        if let Some(place) = self.seats.get_mut(seat.index) {
            *place = None;
            self.free.push(seat.index);
        }
    }

    /// Sends somebody away, whose place in the count goes to the one that asks.
    fn make_room(&mut self, now: Instant) -> Option<Evicted> {
        loop {
            while let Some(found) = self.next.pop() {
                // Much may have happened since the look: who has been busy meanwhile stays.
                let Some(seat) = self.seats.get(found.index).and_then(Option::as_ref) else { continue };
                let still = seat.look(now).is_some_and(|seen| {
                    seen.number == found.number && seen.idle == found.idle && seen.lasted >= found.lasted
                });
                if still && seat.evict() {
                    seat.given.store(true, Ordering::Relaxed);
                    return Some(if found.idle { Evicted::Idle } else { Evicted::Slow });
                }
            }
            if self.barren_until.is_some_and(|until| now < until) {
                return None;
            }
            self.next = self.first_to_go(now);
            if self.next.is_empty() {
                self.barren_until = Some(now + BARREN);
                return None;
            }
        }
    }

    /// Those who go first, the first of them last. Looks at everybody, so that is done once for many.
    fn first_to_go(&self, now: Instant) -> Vec<Found> {
        let mut best: Vec<Found> = Vec::with_capacity(2 * FOUND);
        for found in self.seats.iter().flatten().filter_map(|seat| seat.look(now)) {
            if best.len() == 2 * FOUND {
                best.sort_unstable_by(|a, b| b.cmp(a));
                best.truncate(FOUND);
            }
            best.push(found);
        }
        best.sort_unstable_by(|a, b| b.cmp(a));
        best.truncate(FOUND);
        best.reverse();
        best
    }
}

impl Seat {
    /// Says which connection it is, once that is known.
    pub(crate) fn is(&self, connection: &Arc<Connection>) {
        let _ = self.connection.set(Arc::clone(connection));
    }

    /// Says which task serves it from now on, under which part of the drain.
    pub(crate) fn is_served_by(&self, part: u64, task: AbortHandle) {
        let mut server = self.server.lock();
        if server.cut {
            task.abort();
        }
        server.task = Some((part, task));
    }

    /// Takes it for cut where it belongs to this part of the drain, and answers what is to be aborted.
    fn cut(&self, part: u64) -> Option<AbortHandle> {
        let mut server = self.server.lock();
        let task = server.task.as_ref().filter(|(of, _)| *of == part).map(|(_, task)| task.clone());
        server.cut |= task.is_some();
        task
    }

    /// Whether the connection has to go. Until then `cx` will be woken when it has to.
    pub(crate) fn is_evicted(&self, cx: &Context<'_>) -> bool {
        match self.state.load(Ordering::Acquire) {
            WATCHED => false,
            EVICTED => true,
            // The waker of a task stays the same for its life.
            _ => {
                *self.waker.lock() = Some(cx.waker().clone());
                self.state.compare_exchange(FRESH, WATCHED, Ordering::AcqRel, Ordering::Acquire).is_err()
            }
        }
    }

    /// Answers false where that was done before.
    fn evict(&self) -> bool {
        let before = self.state.swap(EVICTED, Ordering::AcqRel);
        if let Some(waker) = self.waker.lock().take() {
            waker.wake();
        }
        before != EVICTED
    }

    /// None for one that is served, or that is on its way out.
    fn look(&self, now: Instant) -> Option<Found> {
        if self.state.load(Ordering::Relaxed) == EVICTED {
            return None;
        }
        let (idle, since) = match self.connection.get().map(|connection| &connection.activity) {
            // The handshake is still on its way.
            None => (false, self.accepted),
            Some(activity) => match activity.phase() {
                Phase::Idle => (true, activity.since()),
                Phase::Head => (false, activity.since()),
                Phase::Serving | Phase::Flushing => return None,
            },
        };
        let held = self.held.get().map_or(0, |held| held.of_address().checked_ilog2().unwrap_or(0));
        let lasted = now.saturating_duration_since(since);
        Some(Found { idle, held, lasted, number: self.number, index: self.index })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pylon_core::connection::Scheme;
    use pylon_core::networks::PeerSet;

    fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    /// A connection of `address` that entered `phase` this many seconds after the start.
    fn arrive(guests: &Guests, start: Instant, address: &str, phase: Phase, second: u64) -> Arc<Seat> {
        let address: IpAddr = address.parse().unwrap();
        let (seat, _) = guests.seat(Some(address), start).unwrap();
        let peer = (address, 1).into();
        let connection = Arc::new(Connection::new(peer, peer, Scheme::Http, start));
        connection.activity.enter(phase, start + Duration::from_secs(second));
        seat.is(&connection);
        seat
    }

    fn evicted(seat: &Seat) -> bool {
        seat.state.load(Ordering::Relaxed) == EVICTED
    }

    #[test]
    fn the_longest_idle_of_the_address_with_the_most_goes_first_then_the_slow_and_the_busy_never() {
        let caps = Arc::new(Caps::new(6, None, PeerSet::default()));
        let (guests, start) = (Guests::new(Arc::clone(&caps)), now());
        let seats = [
            ("192.0.2.1", Phase::Idle, 1),
            ("192.0.2.7", Phase::Idle, 5),
            ("192.0.2.7", Phase::Idle, 4),
            ("192.0.2.7", Phase::Serving, 0),
            ("192.0.2.7", Phase::Serving, 0),
            ("192.0.2.9", Phase::Head, 0),
        ]
        .map(|(address, phase, second)| arrive(&guests, start, address, phase, second));
        let later = start + Duration::from_secs(60);
        let mut order = Vec::new();
        for expected in [Evicted::Idle, Evicted::Idle, Evicted::Idle, Evicted::Slow] {
            let (seat, how) = guests.seat(Some("198.51.100.1".parse().unwrap()), later).unwrap();
            assert_eq!(how, Some(expected));
            // The new one is busy at once.
            let peer = ("198.51.100.1".parse::<IpAddr>().unwrap(), 1).into();
            let connection = Arc::new(Connection::new(peer, peer, Scheme::Http, later));
            connection.activity.enter(Phase::Serving, later);
            seat.is(&connection);
            order.extend((0..6).filter(|at| evicted(&seats[*at]) && !order.contains(at)).collect::<Vec<_>>());
        }
        assert_eq!(order, [2, 1, 0, 5]);
        assert_eq!(guests.seat(None, later + BARREN).err(), Some(Refused::InAll));
        // Whoever was sent away has given its place in the count already.
        assert_eq!(caps.open(), 6);
        for seat in &seats {
            guests.leave(seat);
        }
        assert_eq!(caps.open(), 4);
    }

    #[test]
    fn who_became_busy_after_the_look_stays() {
        let caps = Arc::new(Caps::new(3, None, PeerSet::default()));
        let (guests, start) = (Guests::new(caps), now());
        let seats = [1, 2, 3].map(|second| arrive(&guests, start, "192.0.2.1", Phase::Idle, second));
        let later = start + Duration::from_secs(60);
        let (first, _) = guests.seat(None, later).unwrap();
        assert!(evicted(&seats[0]));
        let busy = &seats[1].connection.get().unwrap().activity;
        busy.enter(Phase::Serving, later);
        busy.enter(Phase::Idle, later);
        guests.seat(None, later).unwrap();
        assert!(!evicted(&seats[1]) && evicted(&seats[2]), "it has been idle for no time now");
        guests.leave(&first);
    }

    #[test]
    fn under_pressure_nobody_is_let_in_and_the_idle_go() {
        let caps = Arc::new(Caps::default());
        let (guests, start) = (Guests::new(Arc::clone(&caps)), now());
        let idle = arrive(&guests, start, "192.0.2.1", Phase::Idle, 0);
        let busy = arrive(&guests, start, "192.0.2.1", Phase::Serving, 0);
        caps.shed(true);
        assert_eq!(guests.seat(None, start).err(), Some(Refused::Memory));
        assert_eq!((guests.clear(), guests.clear()), (1, 0));
        assert!(evicted(&idle) && !evicted(&busy));
        caps.shed(false);
        assert!(guests.seat(None, start).is_ok());
    }

    #[test]
    fn a_place_is_used_again() {
        let caps = Arc::new(Caps::default());
        let (guests, start) = (Guests::new(Arc::clone(&caps)), now());
        for _ in 0..1000 {
            let seat = arrive(&guests, start, "192.0.2.1", Phase::Idle, 0);
            guests.leave(&seat);
        }
        assert_eq!((guests.roster.lock().seats.len(), caps.open()), (1, 0));
    }
}
