//! Holds one registration in etcd: a key with a lease, or several, for as long as needed.
//!
//! In: the registration, and how to reach etcd. Out: the key, written again whenever it
//! was lost, and removed when the holder withdraws it. No failure of etcd ends it. It repeats
//! one step: it compares the key in etcd with the wanted one and repairs the difference. A
//! watch only makes it compare earlier.

mod keeper;
pub mod leased_keys;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use self::keeper::Keeper;
use crate::registry::Registration;
use crate::registry::etcd::Connect;
use crate::registry::record::{self, Format};

/// The registration to hold, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// How to reach etcd.
    pub connect: Connect,
    /// The prefix of the key, before the service.
    pub prefix: String,
    /// The registration of the backend.
    pub registration: Registration,
    /// How long the key outlives a holder that vanished; see [`TTL_DEFAULT`].
    pub ttl: Duration,
    /// The format of key and value. `Auto` is the simplest that can carry the
    /// registration.
    pub format: Format,
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: String,
    /// Its value; `None`: it is not written yet.
    pub value: Option<String>,
}

/// The state of a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// The key exists in etcd.
    Registered,
    /// The key may not exist; the task is repairing it.
    Trying {
        /// The last error; empty before the first answer.
        reason: String,
    },
}

/// A registration that is being held. Dropping it removes the key too, but in the
/// background and without reporting an error; [`Held::withdraw`] waits.
#[derive(Debug)]
#[must_use = "dropping it removes the registration"]
pub struct Held {
    key: String,
    ttl: Duration,
    status_rx: watch::Receiver<Status>,
    /// Dropping it is the signal to withdraw.
    stop_tx: oneshot::Sender<()>,
    task: JoinHandle<Result<(), RegisterError>>,
}

/// Why a registration cannot be held, or its key could not be removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// The time to live is not within [`TTL_MIN`] and [`TTL_MAX`].
    #[error("the time to live is {0:?}: expected 2s to 1h")]
    Ttl(Duration),
    /// The id is empty, or contains characters that would change the key's meaning.
    #[error("the id {0:?} cannot be used: it must not be empty nor hold '/', spaces or controls")]
    Id(String),
    /// The format cannot carry a part of the registration.
    #[error("{0}")]
    Format(String),
    /// The key still exists in etcd.
    #[error("the key could not be removed: {reason}; it expires within {ttl:?}")]
    NotWithdrawn {
        /// The error.
        reason: String,
        /// The lease's time to live.
        ttl: Duration,
    },
}

/// The default time to live. Two keepalives may be lost. The key of a backend that died
/// stays in etcd for at most 15 s.
pub const TTL_DEFAULT: Duration = Duration::from_secs(15);
/// The shortest time to live: etcd grants no shorter lease, because an election must
/// fit into it.
pub const TTL_MIN: Duration = Duration::from_secs(2);
/// The longest time to live. The key of a dead backend stays this long, so a longer
/// time is a mistake.
pub const TTL_MAX: Duration = Duration::from_secs(3600);

/// Starts to hold a registration, until the result is dropped or withdrawn. Returns at
/// once; [`Held::status`] shows when the key exists.
///
/// # Errors
/// If the options are invalid. An outage of etcd is no error.
pub async fn hold(options: Options) -> Result<Held, RegisterError> {
    let ttl = options.ttl;
    Ok(start(Keeper::new(options)?, ttl))
}

/// Starts to hold keys with one lease, until the result is dropped or withdrawn. Their
/// values are the newest of `wanted_rx`; the keys themselves must never change. A value is
/// written when it changes and whenever its key was lost. Withdrawing removes the keys in
/// order.
///
/// # Errors
/// If the time to live is not within [`TTL_MIN`] and [`TTL_MAX`].
pub async fn hold_keys(
    connect: Connect,
    ttl: Duration,
    wanted_rx: watch::Receiver<Arc<[KeyValue]>>,
) -> Result<Held, RegisterError> {
    check_ttl(ttl)?;
    Ok(start(Keeper::of(connect, ttl, wanted_rx), ttl))
}

fn start(keeper: Keeper, ttl: Duration) -> Held {
    let key = keeper.key().to_owned();
    let (status_tx, status_rx) = watch::channel(Status::Trying { reason: String::new() });
    let (stop_tx, stop_rx) = oneshot::channel();
    let task = tokio::spawn(keeper.run(status_tx, stop_rx));
    Held { key, ttl, status_rx, stop_tx, task }
}

impl Held {
    /// Returns the key in etcd.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Returns the state of the registration, now and later.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status_rx.clone()
    }

    /// Removes the key and waits until etcd has removed it, for at most a few seconds.
    ///
    /// # Errors
    /// If etcd did not answer in time; then the end of the lease removes the key.
    pub async fn withdraw(self) -> Result<(), RegisterError> {
        drop(self.stop_tx);
        match self.task.await {
            Ok(result) => result,
            Err(error) => {
                let (reason, ttl) = (error.to_string(), self.ttl);
                Err(RegisterError::NotWithdrawn { reason, ttl })
            }
        }
    }
}

/// Checks a time to live.
///
/// # Errors
/// If it is not within [`TTL_MIN`] and [`TTL_MAX`].
pub fn check_ttl(ttl: Duration) -> Result<(), RegisterError> {
    if (TTL_MIN..=TTL_MAX).contains(&ttl) { Ok(()) } else { Err(RegisterError::Ttl(ttl)) }
}

/// Checks an id.
///
/// # Errors
/// If it cannot be the last segment of a key.
pub fn check_id(id: &str) -> Result<(), RegisterError> {
    let bad = |c: char| c == '/' || c.is_whitespace() || c.is_control();
    if id.is_empty() || id.contains(bad) { Err(RegisterError::Id(id.to_owned())) } else { Ok(()) }
}

/// Checks that a format can carry a registration.
///
/// # Errors
/// If it cannot: the part that it cannot carry.
pub fn check_format(
    format: &Format,
    prefix: &str,
    registration: &Registration,
) -> Result<(), RegisterError> {
    key_and_value(format, prefix, registration).map(drop)
}

/// Checks the options, and returns the key and the value.
fn written(options: &Options) -> Result<(String, String), RegisterError> {
    let Options { registration, prefix, .. } = options;
    check_ttl(options.ttl)?;
    check_id(&registration.id)?;
    key_and_value(&options.format, prefix, registration)
}

fn key_and_value(
    format: &Format,
    prefix: &str,
    registration: &Registration,
) -> Result<(String, String), RegisterError> {
    let written = record::write(format, prefix, registration);
    written.map_err(|error| RegisterError::Format(error.to_string()))
}
