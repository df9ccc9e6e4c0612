//! The link to Redis: one connection that all share, looked after by a task of the control runtime.
//!
//! Each call has its time. One that gets no answer in it, or whose connection breaks, takes the link out of use for everybody: calls
//! fail at once then, until the task has a connection on which the server answers again. While nobody calls, the task
//! asks each second whether the server is there, so that one that is frozen is found before a request has to.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use pylon_core::secret::{Reveal, SecretSpec};
use pylon_core::spec::{FieldPath, SpecError};
use pylon_net::resolve::Resolver;
use pylon_net::timer::{sleep, timeout, timeout_at};
use pylon_observe::insight::StoreReading;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, Pipeline, RedisConnectionInfo, RedisError, Value};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use crate::address::Address;
use crate::command::{Command, Reply, StoreError};
use crate::spec::RedisSpec;

/// How long a connection may take until it can be used, its handshakes included.
const CONNECTING: Duration = Duration::from_secs(2);
/// How often it is asked whether the server is there.
const LOOK: Duration = Duration::from_secs(1);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(1);

/// A link to a server of Redis.
#[derive(Debug)]
pub struct Redis {
    shared: Arc<Shared>,
    task: Mutex<Option<AbortHandle>>,
}

struct Shared {
    address: Address,
    username: Option<String>,
    password: Option<SecretSpec>,
    secrets: Reveal,
    prefix: String,
    timeout: Duration,
    /// None while it is out of use.
    live: ArcSwapOption<Live>,
    broken: Notify,
    /// How many attempts there have been, good or bad.
    attempts: watch::Sender<u64>,
    error: Mutex<Option<String>>,
    calls: AtomicU64,
    failures: AtomicU64,
}

struct Live {
    connection: MultiplexedConnection,
    number: u64,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("address", &self.address.shown()).finish_non_exhaustive()
    }
}

impl Redis {
    /// Errors begin at the key `redis`.
    pub fn new(spec: &RedisSpec, resolver: &Resolver, secrets: Reveal) -> Result<Self, Vec<SpecError>> {
        let at = |key: &str| FieldPath::root().key(key);
        let mut errors = Vec::new();
        let address = Address::new(spec, resolver).map_err(|found| errors.extend(found)).ok();
        if let Some(password) = &spec.password {
            errors.extend(secrets(password).err().map(|error| error.below(&at("password"))));
        }
        if spec.username.is_some() && spec.password.is_none() {
            let error = SpecError::new(at("username"), "this user has no password");
            errors.push(error.help("write `password: env:NAME`"));
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        if spec.prefix.is_empty() || !spec.prefix.bytes().all(plain) {
            let error =
                SpecError::new(at("prefix"), format!("`{}` cannot be what names of keys begin with", spec.prefix));
            errors.push(error.help("use letters, digits, `-`, `_`, `.` and `:`"));
        }
        let timeout = spec.timeout.duration();
        if !(Duration::from_millis(10)..=Duration::from_secs(5)).contains(&timeout) {
            let error = SpecError::new(at("timeout"), format!("`{}` is out of bounds", spec.timeout));
            errors.push(error.help("write a time from `10ms` to `5s`"));
        }
        let (Some(address), true) = (address, errors.is_empty()) else { return Err(errors) };
        let shared = Shared {
            address,
            username: spec.username.clone(),
            password: spec.password.clone(),
            secrets,
            prefix: spec.prefix.clone(),
            timeout,
            live: ArcSwapOption::empty(),
            broken: Notify::new(),
            attempts: watch::Sender::new(0),
            error: Mutex::new(Some("no connection was made so far".to_owned())),
            calls: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        };
        Ok(Self { shared: Arc::new(shared), task: Mutex::default() })
    }

    /// Begins to look after it on `control`, once.
    pub fn start(&self, control: &Handle) {
        let mut task = self.task.lock();
        if task.as_ref().is_none_or(AbortHandle::is_finished) {
            *task = Some(control.spawn(look_after(Arc::clone(&self.shared))).abort_handle());
        }
    }

    /// Waits for the first attempt, good or bad.
    pub async fn settle(&self) {
        // An error means that it is gone, and with it the question.
        let _gone = self.shared.attempts.subscribe().wait_for(|attempts| *attempts > 0).await.is_err();
    }

    /// Runs commands one after the other, and all or none where they are `whole`. Takes no longer than one call may.
    pub async fn run(&self, commands: &[Command], whole: bool) -> Result<Vec<Reply>, StoreError> {
        self.shared.run(commands, whole).await
    }

    /// The name of a key, with the prefix.
    pub fn key(&self, name: &str) -> String {
        format!("{}:{name}", self.shared.prefix)
    }

    /// In figures.
    pub fn reading(&self) -> StoreReading {
        let shared = &self.shared;
        StoreReading {
            name: "redis",
            address: shared.address.shown(),
            up: shared.live.load().is_some(),
            calls: shared.calls.load(Relaxed),
            failures: shared.failures.load(Relaxed),
            error: shared.error.lock().clone(),
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut() {
            task.abort();
        }
    }
}

impl Shared {
    async fn run(&self, commands: &[Command], whole: bool) -> Result<Vec<Reply>, StoreError> {
        self.calls.fetch_add(1, Relaxed);
        let live = self.live.load_full();
        let outcome = match &live {
            Some(live) => exchange(live.connection.clone(), commands, whole, now() + self.timeout).await,
            None => Err(StoreError::Down(self.error.lock().clone().unwrap_or_default())),
        };
        if let Err(error) = &outcome {
            self.failures.fetch_add(1, Relaxed);
            if let (Some(live), StoreError::Late | StoreError::Broken(_)) = (&live, error) {
                self.take_out(live, error);
            }
        }
        outcome
    }

    /// Takes a connection out of use that does not answer, unless another one took its place.
    fn take_out(&self, live: &Live, error: &StoreError) {
        let current = self.live.load();
        if current.as_ref().is_some_and(|current| current.number == live.number) {
            let before = self.live.compare_and_swap(&current, None);
            if before.as_ref().is_some_and(|before| before.number == live.number) {
                self.tell(error.to_string());
                self.broken.notify_one();
            }
        }
    }

    /// Notes why there is no link. It is told once.
    fn tell(&self, why: String) {
        let mut error = self.error.lock();
        if error.as_ref() != Some(&why) {
            tracing::warn!(store = self.address.shown(), why, "the store cannot be used");
        }
        *error = Some(why);
    }

    async fn connect(&self) -> Result<MultiplexedConnection, String> {
        let deadline = now() + CONNECTING;
        timeout_at(Some(deadline), self.connected(deadline))
            .await
            .unwrap_or_else(|_| Err("no connection in time".to_owned()))
    }

    async fn connected(&self, deadline: Instant) -> Result<MultiplexedConnection, String> {
        let mut info = RedisConnectionInfo::default().set_db(self.address.database).set_skip_set_lib_name();
        if let Some(username) = &self.username {
            info = info.set_username(username);
        }
        if let Some(password) = self.password.clone() {
            let secrets = self.secrets;
            // It may stand in a file, and that on a disk that is slow.
            let secret =
                tokio::task::spawn_blocking(move || secrets(&password)).await.map_err(|_| "the gateway ends")?;
            let secret = secret.map_err(|error| error.problem)?;
            info = info.set_password(String::from_utf8_lossy(secret.expose()));
        }
        let stream = self.address.connect(deadline).await.map_err(|error| error.to_string())?;
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
        let made = MultiplexedConnection::new_with_config(&info, stream, config).await;
        let (connection, driver) = made.map_err(|error| shown(&error))?;
        // It ends with the last that holds the connection.
        tokio::spawn(driver);
        exchange(connection.clone(), &[Command::new("PING")], false, deadline)
            .await
            .map_err(|error| error.to_string())?;
        Ok(connection)
    }
}

async fn look_after(shared: Arc<Shared>) {
    let (mut number, mut wait) = (0_u64, FIRST_RETRY);
    loop {
        match shared.connect().await {
            Ok(connection) => {
                number = number.wrapping_add(1);
                wait = FIRST_RETRY;
                if shared.error.lock().take().is_some() {
                    tracing::info!(store = shared.address.shown(), "the store can be used");
                }
                shared.live.store(Some(Arc::new(Live { connection, number })));
                shared.attempts.send_modify(|attempts| *attempts = attempts.wrapping_add(1));
                while shared.live.load().is_some() {
                    // Either way it is asked whether the server is there.
                    let _either = timeout(LOOK, shared.broken.notified()).await;
                    if shared.live.load().is_some() {
                        let _told = shared.run(&[Command::new("PING")], false).await.is_err();
                    }
                }
            }
            Err(why) => {
                shared.tell(why);
                shared.attempts.send_modify(|attempts| *attempts = attempts.wrapping_add(1));
                // Not all gateways at the same moment.
                sleep(wait.mul_f64(0.8 + 0.4 * fastrand::f64())).await;
                wait = wait.saturating_mul(2).min(LAST_RETRY);
            }
        }
    }
}

/// Sends commands, and reads what is answered.
async fn exchange(
    mut connection: MultiplexedConnection,
    commands: &[Command],
    whole: bool,
    deadline: Instant,
) -> Result<Vec<Reply>, StoreError> {
    let mut pipeline = Pipeline::with_capacity(commands.len());
    if whole {
        pipeline.atomic();
    }
    for command in commands {
        let mut cmd = Cmd::new();
        for argument in &command.0 {
            cmd.arg(argument.as_slice());
        }
        pipeline.add_command(cmd);
    }
    let asked = timeout_at(Some(deadline), pipeline.query_async::<Vec<Value>>(&mut connection)).await;
    match asked {
        Err(_) => Err(StoreError::Late),
        Ok(Ok(values)) => values.into_iter().map(reply).collect(),
        Ok(Err(error)) if error.is_timeout() => Err(StoreError::Late),
        Ok(Err(error)) if error.is_io_error() || error.is_connection_dropped() => {
            Err(StoreError::Broken(shown(&error)))
        }
        Ok(Err(error)) => Err(StoreError::Refused(shown(&error))),
    }
}

fn reply(value: Value) -> Result<Reply, StoreError> {
    Ok(match value {
        Value::Nil => Reply::Nothing,
        Value::Okay => Reply::Done,
        Value::Int(number) => Reply::Number(number),
        Value::BulkString(bytes) => Reply::Bytes(bytes),
        Value::SimpleString(text) => Reply::Bytes(text.into_bytes()),
        Value::Array(items) => Reply::List(items.into_iter().map(reply).collect::<Result<_, _>>()?),
        _ => return Err(StoreError::Odd),
    })
}

/// What the server says, on one line, without what was sent to it.
fn shown(error: &RedisError) -> String {
    error.to_string().lines().next().unwrap_or_default().chars().take(200).collect()
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
