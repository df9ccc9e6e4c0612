//! The life of a gateway that serves: signals, upgrades, and how it comes to its end.

use std::ffi::OsString;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use pylon_control::gateway::Gateway;
use pylon_control::handover::{HandOverError, Launch, Successor};
use pylon_control::manager::Manager;
use pylon_control::reload::{Cause, Who};
use pylon_control::upgrade::{Answer, Asked, Caller, Request};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::Delay;

/// How this process was started, to start the next one.
#[derive(Debug)]
pub(super) struct Own {
    program: PathBuf,
    arguments: Vec<OsString>,
    /// The document, where it is another than the arguments name.
    pub(super) document: Option<PathBuf>,
}

impl Own {
    /// By the command line. The program is the one that was named, not what a link led to at that time.
    pub(super) fn new(document: Option<PathBuf>) -> std::io::Result<Self> {
        let mut arguments = std::env::args_os();
        let named = arguments.next().map(PathBuf::from).filter(|named| named.components().count() > 1);
        let program = match named {
            Some(named) => std::path::absolute(named)?,
            // Found by way of PATH.
            None => std::env::current_exe()?,
        };
        Ok(Self { program, arguments: arguments.collect(), document })
    }

    fn launch(&self, request: Request) -> Launch {
        Launch {
            program: request.binary.unwrap_or_else(|| self.program.clone()),
            arguments: self.arguments.clone(),
            document: request.document.or_else(|| self.document.clone()),
            patience: request.timeout,
        }
    }
}

/// Why it comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Interrupted,
    Terminated,
    /// Another process serves.
    HandedOver,
}

/// An upgrade that is under way: who asked, and the process that is to come.
struct UnderWay {
    caller: Caller,
    successor: Pin<Box<dyn Future<Output = Result<Successor, HandOverError>>>>,
}

/// What happens to a gateway.
enum Event {
    End(End),
    Reload,
    Rotate,
    Upgrade(Asked),
    Successor(Caller, Result<Successor, HandOverError>),
}

/// A gateway under signals.
pub(super) struct Life<'a> {
    gateway: &'a mut Gateway,
    manager: &'a Arc<Manager>,
    own: &'a Own,
    upgrades: Option<mpsc::Receiver<Asked>>,
    under_way: Option<UnderWay>,
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    rotate: Signal,
}

impl<'a> Life<'a> {
    /// Listens to signals. It needs the gateway's runtime.
    pub(super) fn new(gateway: &'a mut Gateway, manager: &'a Arc<Manager>, own: &'a Own) -> std::io::Result<Self> {
        let upgrades = gateway.upgrades();
        Ok(Self {
            gateway,
            manager,
            own,
            upgrades,
            under_way: None,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            rotate: signal(SignalKind::user_defined1())?,
        })
    }

    /// Until the drain is due: at SIGINT, or `delay` after SIGTERM or after another process has taken this one's place. From
    /// then on a signal ends the process at once.
    pub(super) async fn run(mut self, delay: Delay) {
        let watchdog = self.gateway.watch(self.manager);
        let end = self.serve().await;
        match end {
            End::HandedOver => {
                // Only the main process is listened to.
                if let Some(watchdog) = watchdog {
                    watchdog.abort();
                }
                tracing::info!("another process serves: exchanges under way finish");
            }
            End::Interrupted | End::Terminated => {
                // It would go on by itself where this process ends while it starts.
                self.under_way = None;
                self.manager.stopping();
                self.gateway.leave();
                tracing::info!("ending: exchanges under way finish, a second signal ends at once");
            }
        }
        let Self { mut interrupt, mut terminate, .. } = self;
        if end == End::HandedOver {
            // It has not been asked to end yet.
            tokio::select! {
                () = wait(delay) => {}
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        tokio::spawn(async move {
            tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} }
            end_at_once();
        });
        if end == End::Terminated {
            if let Delay(Some(delay)) = delay {
                tracing::info!(%delay, "balancers have time to see it: whoever comes meanwhile is served");
            }
            wait(delay).await;
        }
    }

    async fn serve(&mut self) -> End {
        loop {
            match self.event().await {
                Event::End(end) => return end,
                Event::Reload => self.reload(),
                Event::Rotate => self.gateway.observer.reopen(),
                Event::Upgrade(asked) => {
                    let Asked { request, caller } = asked;
                    let launch = self.own.launch(request);
                    tracing::info!(program = %launch.program.display(), "an upgrade is asked for");
                    let successor = Box::pin(self.gateway.succeed(launch));
                    self.under_way = Some(UnderWay { caller, successor });
                }
                Event::Successor(caller, successor) => {
                    let outcome = successor.and_then(|successor| self.hand_over(successor));
                    if let Err(error) = &outcome {
                        tracing::error!(%error, "no upgrade: this process serves on");
                    }
                    let upgraded = outcome.is_ok();
                    caller.tell(outcome.map_or_else(|error| Answer::Failed(error.to_string()), Answer::Upgraded)).await;
                    if upgraded {
                        return End::HandedOver;
                    }
                }
            }
        }
    }

    async fn event(&mut self) -> Event {
        let Self { upgrades, under_way, interrupt, terminate, hang_up, rotate, .. } = self;
        tokio::select! {
            _ = interrupt.recv() => Event::End(End::Interrupted),
            _ = terminate.recv() => Event::End(End::Terminated),
            _ = hang_up.recv() => Event::Reload,
            _ = rotate.recv() => Event::Rotate,
            successor = ready(under_way) => match under_way.take() {
                Some(UnderWay { caller, .. }) => Event::Successor(caller, successor),
                None => Event::Rotate,
            },
            asked = next(upgrades), if under_way.is_none() => Event::Upgrade(asked),
        }
    }

    /// Gives the place to a process that serves. Answers its id.
    fn hand_over(&mut self, successor: Successor) -> Result<u32, HandOverError> {
        let id = successor.id();
        // As long as this one is the main process, only this one may say so.
        self.manager.main_process(id);
        let handed = self.gateway.hand_over(successor);
        if handed.is_err() {
            self.manager.main_process(std::process::id());
        }
        handed.map(|()| id)
    }

    fn reload(&self) {
        let (reloader, manager) = (self.gateway.reloader().clone(), Arc::clone(self.manager));
        tokio::spawn(async move {
            manager.reloading();
            reloader.reload(Cause { who: Who::Signal, why: None }).await;
            manager.ready();
        });
    }
}

/// The next one that asks; nobody does where there is no socket for it.
async fn next(upgrades: &mut Option<mpsc::Receiver<Asked>>) -> Asked {
    if let Some(asked) = upgrades
        && let Some(asked) = asked.recv().await
    {
        return asked;
    }
    std::future::pending().await
}

/// The process that is to come, once it is ready or has failed.
async fn ready(under_way: &mut Option<UnderWay>) -> Result<Successor, HandOverError> {
    match under_way {
        Some(under_way) => under_way.successor.as_mut().await,
        None => std::future::pending().await,
    }
}

async fn wait(delay: Delay) {
    if let Delay(Some(delay)) = delay {
        tokio::time::sleep(delay.duration()).await;
    }
}

#[expect(clippy::exit, reason = "the second signal asks for exactly this")]
fn end_at_once() {
    std::process::exit(130);
}

/// Ends a process that serves but was not put in charge: its sockets are another's, and nothing of them may be touched.
#[expect(clippy::exit, reason = "an orderly end would close sockets by which another process serves")]
pub(super) fn stand_down(error: &std::io::Error) -> ! {
    tracing::error!(%error, "this process was not put in charge, and ends");
    std::process::exit(1);
}
