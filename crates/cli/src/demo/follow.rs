//! Shows traffic as it happens, until a signal or the clock ends it.

use std::io::{self, Write};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::demo::Gateway;
use crate::demo::traffic::Traffic;

/// How often the gateway is asked for new exchanges: often enough to look live, too seldom to cost anything.
const POLL: Duration = Duration::from_millis(100);

/// SIGINT (Ctrl-C) and SIGTERM.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes both signals over from their default, which would end the process at once. Needs a runtime.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Writes each new exchange of `gateway` to `out` until a signal comes or `end` is reached.
pub(super) async fn follow(
    out: &mut impl Write,
    colour: bool,
    gateway: &mut impl Gateway,
    mut signals: Signals,
    end: Option<Instant>,
) -> io::Result<()> {
    let mut traffic = Traffic::new(colour);
    let mut poll = interval(POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let over = async {
        match end {
            Some(end) => sleep_until(end).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(over);
    let mut last = false;
    while !last {
        tokio::select! {
            () = signals.next() => last = true,
            () = &mut over => last = true,
            _ = poll.tick() => {}
        }
        // After the end as well: what came in the last tenth of a second is shown.
        let lines = traffic.lines(gateway.recent());
        if !lines.is_empty() {
            out.write_all(lines.as_bytes())?;
            out.flush()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::traffic::{Batch, Recent};
    use jiff::Timestamp;

    /// Yields one exchange at each call, and asks the process to end at the third.
    struct Busy(u64, rustix::process::Signal);

    impl Gateway for Busy {
        fn recent(&mut self) -> Batch {
            self.0 += 1;
            if self.0 == 3 {
                rustix::process::kill_process(rustix::process::getpid(), self.1).unwrap();
            }
            Batch {
                exchanges: vec![Recent {
                    time: Timestamp::UNIX_EPOCH,
                    method: "GET".into(),
                    path: format!("/{}", self.0),
                    status: 200,
                    duration: Duration::from_millis(1),
                    route: "/{*rest}".into(),
                    upstream: None,
                    note: None,
                }],
                missed: 0,
            }
        }

        fn stop(self) -> u64 {
            self.0
        }
    }

    // One test for both signals: they are the process's, and two tests would take each other's.
    #[tokio::test]
    async fn interrupt_and_terminate_end_it_and_the_last_exchanges_are_still_shown() {
        for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
            let (mut out, mut gateway) = (Vec::new(), Busy(0, signal));
            let signals = Signals::listen().unwrap();
            let end = Instant::now() + Duration::from_secs(20);
            follow(&mut out, false, &mut gateway, signals, Some(end)).await.unwrap();
            let out = String::from_utf8(out).unwrap();
            assert!(Instant::now() < end - Duration::from_secs(10), "the signal did not end it");
            assert_eq!(out.matches("GET ").count() as u64, gateway.stop(), "{out}");
        }
    }
}
