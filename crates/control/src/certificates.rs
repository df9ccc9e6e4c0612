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
pub(crate) fn follow(control: &Handle, listeners: watch::Receiver<All>, metrics: &Arc<Metrics>) {
    let metrics = Arc::clone(metrics);
    tell(&listeners, &metrics);
    control.spawn(async move {
        // An error means that the gateway is gone.
        while listeners.has_changed().is_ok() {
            tokio::time::sleep(LOOK).await;
            let all = Arc::clone(&listeners.borrow());
            // Files may stand on a disk that is slow.
            if tokio::task::spawn_blocking(move || look(&all)).await.is_ok_and(|news| news) {
                tell(&listeners, &metrics);
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

/// Lets the metrics show what is in force. No other set comes into force while it does, so that the last word is right.
pub(crate) fn tell(listeners: &watch::Receiver<All>, metrics: &Metrics) {
    let all = listeners.borrow();
    let mut told: Vec<Certificate> = Vec::new();
    for found in all.iter().flat_map(|tls| tls.in_force()) {
        let (cert, is_list) = (found.file.display().to_string(), found.kind == Kind::Revocations);
        if told.iter().all(|other| other.cert != cert) {
            told.push(Certificate { cert, is_list, expires: found.expires, stale: found.trouble.is_some() });
        }
    }
    metrics.certificates_in_force(told);
}
