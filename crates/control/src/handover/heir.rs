//! The process that is to follow, as long as the one before decides whether it lives.

use std::io;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;

use parking_lot::Mutex;

use super::HandOverError;

/// A process that is ended by whoever does not want it any more, also while another thread waits for it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heir(Arc<Mutex<Life>>);

#[derive(Debug, Default)]
enum Life {
    #[default]
    Unborn,
    Running(Child),
    /// Ended, or its own master.
    Over,
}

impl Heir {
    /// Starts it, unless nobody wants it any more.
    pub(super) fn start(&self, command: &mut Command) -> io::Result<()> {
        let mut life = self.0.lock();
        match *life {
            Life::Unborn => *life = Life::Running(command.spawn()?),
            Life::Running(_) | Life::Over => return Err(io::Error::other("it is not wanted any more")),
        }
        Ok(())
    }

    /// The id of its process.
    pub(super) fn id(&self) -> u32 {
        match &*self.0.lock() {
            Life::Running(child) => child.id(),
            Life::Unborn | Life::Over => 0,
        }
    }

    /// Lets it live on by itself.
    pub(super) fn let_go(&self) {
        *self.0.lock() = Life::Over;
    }

    /// Ends it, and says how it ended.
    pub(super) fn end(&self) -> Option<io::Result<ExitStatus>> {
        let mut life = self.0.lock();
        let Life::Running(mut child) = std::mem::replace(&mut *life, Life::Over) else { return None };
        // One that is exiting keeps the status that it exits with.
        let _ = child.kill();
        Some(child.wait())
    }

    /// Ends one that has gone already, or has closed its end of the channel.
    pub(super) fn ended(&self) -> HandOverError {
        match self.end() {
            Some(ended) => ended.map_or_else(HandOverError::Channel, HandOverError::Ended),
            None => io::Error::other("it is not wanted any more").into(),
        }
    }

    /// Ends it with what is given back, unless that is [kept](Wanted::keep).
    pub(crate) fn wanted(&self) -> Wanted {
        Wanted(Some(self.clone()))
    }
}

/// For as long as somebody waits for it.
#[derive(Debug)]
pub(crate) struct Wanted(Option<Heir>);

impl Wanted {
    /// Somebody else looks after it.
    pub(crate) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        if let Some(heir) = &self.0 {
            heir.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleep() -> Command {
        let mut command = Command::new("/bin/sleep");
        command.arg("60");
        command
    }

    #[test]
    fn a_process_that_nobody_waits_for_any_more_is_ended_or_not_even_started() {
        let heir = Heir::default();
        let wanted = heir.wanted();
        heir.start(&mut sleep()).unwrap();
        assert_ne!(heir.id(), 0);
        drop(wanted);
        assert_eq!(heir.id(), 0);
        let heir = Heir::default();
        drop(heir.wanted());
        assert!(heir.start(&mut sleep()).is_err());
        let heir = Heir::default();
        let wanted = heir.wanted();
        heir.start(&mut sleep()).unwrap();
        wanted.keep();
        assert!(heir.end().is_some());
    }
}
