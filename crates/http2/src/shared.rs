//! A connection as its driver, its streams and those who open more of them hold it.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::connection::Connection;
use crate::error::Reason;
use crate::stream::Key;

/// What bounds a connection.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How many streams a client may have open.
    pub streams: u32,
    /// How many bytes of one stream may have come and wait to be read.
    pub stream_window: u32,
    /// The same of all streams together.
    pub connection_window: u32,
    /// The size of a head (RFC 9113 §6.5.2).
    pub head: u32,
    /// How many requests a client may take back before they are accepted, more than there are others (CVE-2023-44487).
    pub resets: usize,
    /// How many streams the peer may make us reset, more than there are streams that end well (CVE-2025-8671).
    pub mistakes: usize,
}

/// Which side we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Server,
    Client,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Shared(Mutex<Connection>);

impl Shared {
    pub(crate) fn new(role: Role, limits: Limits) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Connection::new(role, limits))))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Connection> {
        self.0.lock()
    }
}

impl Connection {
    /// Has the driver write what there is.
    pub(crate) fn wake_driver(&mut self) {
        if !self.woken
            && let Some(driver) = &self.driver
        {
            self.woken = true;
            driver.wake_by_ref();
        }
    }
}

/// What holds one stream. The last that is dropped ends it.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) shared: Arc<Shared>,
    pub(crate) key: Key,
    pub(crate) id: u32,
}

impl Handle {
    /// A handle to a stream that is there.
    pub(crate) fn new(shared: &Arc<Shared>, connection: &mut Connection, key: Key, id: u32) -> Self {
        if let Some(stream) = connection.streams.get(key, id) {
            stream.handles = stream.handles.saturating_add(1);
        }
        Self { shared: Arc::clone(shared), key, id }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut connection = self.shared.lock();
        let server = connection.role == crate::shared::Role::Server;
        let Some(stream) = connection.streams.get(self.key, self.id) else { return };
        stream.handles = stream.handles.saturating_sub(1);
        if stream.handles > 0 {
            return;
        }
        let unread = stream.received.clear();
        if !stream.is_closed() {
            // An answer that is whole may leave a request that is not (RFC 9113 §8.1).
            let answered = server && stream.send_over;
            connection.end_stream(self.id, if answered { Reason::NO_ERROR } else { Reason::CANCEL });
        }
        connection.take_back(unread);
        connection.streams.free(self.key);
        if !connection.out.is_empty() || connection.is_finished() {
            connection.wake_driver();
        }
    }
}
