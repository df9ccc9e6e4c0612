//! Full handshakes of TLS, one after the other in some lanes, each with one request that is the last of its connection.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustls::ClientConfig;

use crate::bench::client::{Answer, Client};
use crate::bench::load::{Drive, Load};
use crate::bench::race::Course;

#[derive(Debug)]
pub(crate) struct Handshakes {
    pub(crate) client: Arc<ClientConfig>,
    pub(crate) right: Answer,
}

impl Drive for Handshakes {
    /// Every answer is looked at in any case.
    fn run(&self, port: u16, course: Course, _look: bool) -> Result<Load> {
        let start = Instant::now();
        let end = start + Duration::from_secs(u64::from(course.seconds));
        let mut latencies = Vec::new();
        thread::scope(|scope| {
            let lanes: Vec<_> = (0..course.connections).map(|_| scope.spawn(|| self.lane(port, end))).collect();
            for lane in lanes {
                let Ok(of_lane) = lane.join() else { bail!("a lane of the load panicked") };
                latencies.extend(of_lane?);
            }
            Ok(())
        })?;
        Ok(Load::of(latencies, start.elapsed()))
    }

    fn check(&self, port: u16) -> Result<()> {
        let answer = Client::connect_tls(port, &self.client)?.get_last("/s")?;
        if answer != self.right {
            bail!("the answer is {} with {} bytes", answer.status, answer.body.len());
        }
        Ok(())
    }
}

impl Handshakes {
    fn lane(&self, port: u16, end: Instant) -> Result<Vec<Duration>> {
        let mut latencies = Vec::new();
        while Instant::now() < end {
            let start = Instant::now();
            self.check(port)?;
            latencies.push(start.elapsed());
        }
        Ok(latencies)
    }
}
