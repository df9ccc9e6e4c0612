//! Looks after the certificates of listeners, and what their clients are verified by: reads them again when their files
//! change, and tells when they end.

use std::sync::Arc;
use std::time::Duration;

use pylon_net::tls::certificates::{Change, Kind};
use pylon_net::tls::server::ServerTls;
use pylon_observe::clock::unix_now;
use pylon_observe::metrics::{Certificate, Metrics};
use tokio::runtime::Handle;
use tokio::sync::watch;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The TLS of all listeners.
pub(crate) type All = Arc<Vec<Arc<ServerTls>>>;

/// Looks after the certificates of the listeners that there are, for as long as the runtime lives.
pub(crate) fn follow(control: &Handle, mut listeners: watch::Receiver<All>, metrics: &Arc<Metrics>) {
    let metrics = Arc::clone(metrics);
    tell(&listeners.borrow_and_update(), &metrics);
    control.spawn(async move {
        loop {
            // An error means that the gateway is gone.
            let changed = match tokio::time::timeout(LOOK, listeners.changed()).await {
                Ok(Ok(())) => true,
                Ok(Err(_)) => return,
                Err(_) => false,
            };
            let all = Arc::clone(&listeners.borrow_and_update());
            let looked = Arc::clone(&all);
            // Files may stand on a disk that is slow.
            let news = tokio::task::spawn_blocking(move || look(&looked)).await.is_ok_and(|news| news);
            if changed || news {
                tell(&all, &metrics);
            }
        }
    });
}

/// Whether anything has changed.
fn look(all: &[Arc<ServerTls>]) -> bool {
    let now = unix_now();
    let changes: Vec<_> = all.iter().flat_map(|tls| tls.refresh(now)).collect();
    for change in &changes {
        match change {
            Change::Renewed(cert) => tracing::info!(cert = %cert.display(), "what was read anew is in force"),
            Change::Refused(cert, trouble) => {
                tracing::warn!(cert = %cert.display(), %trouble, "what was read before stays in force");
            }
        }
    }
    !changes.is_empty()
}

fn tell(all: &[Arc<ServerTls>], metrics: &Metrics) {
    let mut told: Vec<Certificate> = Vec::new();
    for found in all.iter().flat_map(|tls| tls.in_force()) {
        let (cert, is_list) = (found.file.display().to_string(), found.kind == Kind::Revocations);
        if told.iter().all(|other| other.cert != cert) {
            told.push(Certificate { cert, is_list, expires: found.expires, stale: found.trouble.is_some() });
        }
    }
    metrics.certificates_in_force(told);
}
