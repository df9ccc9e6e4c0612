//! Whether a listener accepts, and how it stops.

use std::pin::pin;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::Notify;

/// The states of a door. From the first it goes to one of the others, and stays there.
const OPEN: u8 = 0;
const CLOSED: u8 = 1;
const LEFT: u8 = 2;

/// The door of one listener, on all workers: open at first.
#[derive(Debug, Default)]
pub struct Door {
    state: AtomicU8,
    changed: Notify,
    /// Another process holds the socket as well, such as the system's manager of services.
    held: bool,
}

/// How a door was shut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shut {
    /// Nobody is behind it any more: who waits in the queue is served still.
    Closed,
    /// Another process accepts, and takes who waits.
    Left,
}

impl Door {
    /// A door of a socket that another process holds, too: what waits at the end is left to that one.
    pub fn held() -> Self {
        Self { held: true, ..Self::default() }
    }

    /// Whether another process held the socket from the beginning.
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// Nobody new is let in. Who waits is accepted still, and the socket is closed behind the last.
    pub fn close(&self) {
        self.shut(if self.held { LEFT } else { CLOSED });
    }

    /// Accepting is left to another process that holds the socket.
    pub fn leave(&self) {
        self.shut(LEFT);
    }

    fn shut(&self, how: u8) {
        let _ = self.state.compare_exchange(OPEN, how, Ordering::Relaxed, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    fn look(&self) -> Option<Shut> {
        match self.state.load(Ordering::Relaxed) {
            OPEN => None,
            CLOSED => Some(Shut::Closed),
            _ => Some(Shut::Left),
        }
    }

    /// Waits until the door is shut.
    pub async fn is_shut(&self) -> Shut {
        let mut changed = pin!(self.changed.notified());
        loop {
            // Told from here on, polled or not.
            changed.as_mut().enable();
            if let Some(shut) = self.look() {
                return shut;
            }
            changed.as_mut().await;
            changed.set(self.changed.notified());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_door_is_shut_once_and_those_who_come_later_see_it() {
        let door = Door::default();
        let (shut, ()) = tokio::join!(door.is_shut(), async { door.leave() });
        assert_eq!(shut, Shut::Left);
        door.close();
        assert_eq!(door.is_shut().await, Shut::Left);
    }

    #[tokio::test]
    async fn what_waits_at_a_socket_that_another_holds_is_left_to_it() {
        let (held, own) = (Door::held(), Door::default());
        held.close();
        own.close();
        assert_eq!((held.is_shut().await, own.is_shut().await), (Shut::Left, Shut::Closed));
    }
}
