//! The keys that sign and those that are published. Keys that a document names stay as they are; those that the gateway makes follow each
//! other, and are kept in the state folder where there is one.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pylon_net::timer::sleep;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::disk::Disk;
use super::issuer::Issuer;
use super::key::Key;
use super::rotation::{Moment, Rotation};
use super::spec::MintSpec;
use crate::policy::{Compiling, Service};

/// For how long those who check tokens may keep the set.
pub(super) const FRESH: Duration = Duration::from_secs(300);
/// How far clocks may differ: for so long a key stays published after its last token has ended.
pub(super) const LEEWAY: Duration = Duration::from_secs(60);
/// How often it is looked whether something is due.
const LOOK: Duration = Duration::from_secs(1);

/// The keys of one issuer by one source.
#[derive(Debug)]
pub(super) struct Ring {
    issuer: Arc<Issuer>,
    /// How long tokens live.
    ttl: Duration,
    kept: Kept,
    task: Mutex<Option<AbortHandle>>,
}

#[derive(Debug)]
enum Kept {
    /// Keys of the document, the first of which signs.
    Given(Box<[Arc<Key>]>),
    /// Keys that the gateway makes.
    Made(Arc<Made>),
}

#[derive(Debug)]
struct Made {
    rotation: Mutex<Rotation>,
    /// Where they are kept, if anywhere.
    disk: Option<Disk>,
    /// Whether what is kept has been taken up.
    begun: watch::Sender<bool>,
    /// What was told last.
    problem: Mutex<Option<String>>,
}

impl Ring {
    /// The living ring of this issuer, or a new one. `keys` are those that the document names.
    pub(super) fn find(
        spec: &MintSpec,
        keys: Vec<Key>,
        issuer: &Arc<Issuer>,
        cx: &Compiling<'_>,
    ) -> Result<Arc<Self>, &'static str> {
        let (ttl, kind, every) = (spec.ttl.duration(), spec.algorithm.unwrap_or_default(), spec.rotation().duration());
        let kids: Vec<&str> = keys.iter().map(Key::kid).collect();
        let name = match kids.as_slice() {
            [] => format!("mint {} {} {kind:?} {}", spec.issuer, ttl.as_secs(), every.as_secs()),
            kids => format!("mint {} {} {}", spec.issuer, ttl.as_secs(), kids.join(" ")),
        };
        if let Some(ring) = cx.carry.living::<Self>(&name) {
            return Ok(ring);
        }
        let kept = if keys.is_empty() {
            let disk = cx.around.state.as_deref().map(|state| Disk::new(state, &name, &spec.issuer));
            let rotation = Rotation::new(kind, every, ttl, Moment::now().at)?;
            Kept::Made(Arc::new(Made::new(rotation, disk, issuer)))
        } else {
            Kept::Given(keys.into_iter().map(Arc::new).collect())
        };
        let ring = Arc::new(Self { issuer: Arc::clone(issuer), ttl, kept, task: Mutex::default() });
        issuer.add(&ring);
        cx.carry.hold(name, &ring);
        Ok(ring)
    }

    /// The key that signs now.
    pub(super) fn signing(&self) -> Result<Arc<Key>, &'static str> {
        match &self.kept {
            Kept::Given(keys) => keys.first().map(Arc::clone).ok_or("there is no key"),
            Kept::Made(made) => Ok(Arc::clone(made.rotation.lock().signing())),
        }
    }

    /// The public halves of all keys by which a token may be signed or may have been, and for how long that may be relied on.
    pub(super) fn public(&self, now: Instant) -> (Vec<Value>, Duration) {
        match &self.kept {
            Kept::Given(keys) => (keys.iter().map(|key| key.public().clone()).collect(), FRESH),
            Kept::Made(made) => {
                let rotation = made.rotation.lock();
                (rotation.published(now).cloned().collect(), rotation.lead())
            }
        }
    }
}

impl Service for Ring {
    fn start(&self, control: &Handle) {
        let Kept::Made(made) = &self.kept else { return };
        let mut task = self.task.lock();
        if task.is_none() {
            *task = Some(control.spawn(look_after(Arc::clone(made))).abort_handle());
        }
    }

    /// No request is met before the key that signs is on the disk.
    fn settle(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            if let Kept::Made(made) = &self.kept {
                // It ends early where nobody looks after the ring any more.
                let _ = made.begun.subscribe().wait_for(|begun| *begun).await;
            }
        })
    }
}

impl Drop for Ring {
    /// Tokens that its keys have signed are still about.
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
        let now = Moment::now().at;
        let (keys, _) = self.public(now);
        self.issuer.retire(keys, now + self.ttl + LEEWAY);
    }
}

async fn look_after(made: Arc<Made>) {
    loop {
        // What could not be kept is tried again.
        let wanted = !*made.begun.borrow() || made.problem.lock().is_some();
        if wanted || made.rotation.lock().is_due(Moment::now().at) {
            let turning = Arc::clone(&made);
            // The folder may stand on a disk that is slow.
            let _ended = tokio::task::spawn_blocking(move || turning.turn(Moment::now())).await;
            made.begun.send_replace(true);
        }
        sleep(LOOK).await;
    }
}

impl Made {
    /// With what is kept on the disk, as far as that can be read; what cannot is told once it is to be replaced.
    fn new(mut rotation: Rotation, disk: Option<Disk>, issuer: &Issuer) -> Self {
        let now = Moment::now();
        if let Some(disk) = &disk {
            if let Ok(Some(written)) = disk.read()
                && let Ok(kept) = rotation.kept(&written, now)
            {
                rotation = kept;
            }
            for (keys, ttl) in disk.others() {
                issuer.retire(keys, now.at + ttl + LEEWAY);
            }
        }
        Self { rotation: Mutex::new(rotation), disk, begun: watch::Sender::new(false), problem: Mutex::default() }
    }

    /// Does what is due. Requests are not held up: they go on with the keys before until it is done.
    fn turn(&self, now: Moment) {
        let mut rotation = self.rotation.lock().clone();
        let mut done = Ok(());
        if let Some(disk) = &self.disk {
            done = disk.turn(&mut rotation, now);
            if !*self.begun.borrow() {
                disk.sweep(now);
            }
        }
        // What the disk refuses holds for as long as the process lives.
        let made = rotation.turn(now.at).map(|_| ()).map_err(str::to_owned);
        *self.rotation.lock() = rotation;
        let problem = done.and(made).err();
        let mut told = self.problem.lock();
        if problem.is_some() && *told != problem {
            let path = self.disk.as_ref().map(|disk| disk.path().display().to_string());
            let problem = problem.as_deref();
            tracing::error!(
                problem,
                path,
                "keys of `mint` cannot be kept: after a restart its tokens are not known any more"
            );
        }
        *told = problem;
    }
}
