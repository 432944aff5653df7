//! Holds one registration in etcd: a key under a lease, for as long as wanted.
//!
//! In: what to register, and where etcd is. Out: the key, there again whenever
//! it was lost, and gone when the holder lets go. Nothing that happens to etcd
//! ends it. What it does is always the same: compare what etcd has with what it
//! should have, and mend the difference; a watch only makes it look earlier.

mod keeper;

use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use self::keeper::Keeper;
use crate::registry::Registration;
use crate::registry::etcd::Connect;
use crate::registry::record::{self, Format};

/// What is to be registered.
#[derive(Debug, Clone)]
pub struct Options {
    /// How etcd is reached.
    pub connect: Connect,
    /// What stands before the service in the key.
    pub prefix: String,
    /// The backend.
    pub registration: Registration,
    /// How long the key outlives a holder that vanished; see [`TTL_DEFAULT`].
    pub ttl: Duration,
    /// How key and value are written; `Auto` is the simplest that can carry it.
    pub format: Format,
}

/// How a registration is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// The key is there.
    Registered,
    /// It may not be there; this is being mended.
    Trying {
        /// What went wrong last; empty before the first answer.
        reason: String,
    },
}

/// A registration. Dropping it removes the key too, but in the background and
/// without a word: [`Held::withdraw`] waits.
#[derive(Debug)]
#[must_use = "dropping it removes the registration"]
pub struct Held {
    key: String,
    ttl: Duration,
    status_rx: watch::Receiver<Status>,
    /// Its end is the signal to withdraw.
    stop_tx: oneshot::Sender<()>,
    task: JoinHandle<Result<(), RegisterError>>,
}

/// Why something cannot be registered, or its key could not be removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// Outside of [`TTL_MIN`] and [`TTL_MAX`].
    #[error("the time to live is {0:?}: expected 2s to 1h")]
    Ttl(Duration),
    /// Empty, or with something in it that would change the key's meaning.
    #[error("the id {0:?} cannot be used: it must not be empty nor hold '/', spaces or controls")]
    Id(String),
    /// The format has no place for something.
    #[error("{0}")]
    Format(String),
    /// The key is still there.
    #[error("the key could not be removed: {reason}; it goes by itself within {ttl:?}")]
    NotWithdrawn {
        /// What went wrong.
        reason: String,
        /// The lease's time to live.
        ttl: Duration,
    },
}

/// Three keepalives may be lost, and a backend that died without a word is
/// listed for a quarter of a minute.
pub const TTL_DEFAULT: Duration = Duration::from_secs(15);
/// etcd grants no shorter lease: an election must fit into it.
pub const TTL_MIN: Duration = Duration::from_secs(2);
/// A backend that died is listed for this long: more cannot be meant.
pub const TTL_MAX: Duration = Duration::from_secs(3600);

/// Registers, and keeps it registered until the answer is dropped or withdrawn.
/// Returns at once; [`Held::status`] tells when the key is there.
///
/// # Errors
/// When the options are wrong. That etcd is away is no error.
pub async fn hold(options: Options) -> Result<Held, RegisterError> {
    let ttl = options.ttl;
    let keeper = Keeper::new(options)?;
    let key = keeper.key().to_owned();
    let (status_tx, status_rx) = watch::channel(Status::Trying { reason: String::new() });
    let (stop_tx, stop_rx) = oneshot::channel();
    let task = tokio::spawn(keeper.run(status_tx, stop_rx));
    Ok(Held { key, ttl, status_rx, stop_tx, task })
}

impl Held {
    /// The key in etcd.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// How it is doing, now and later.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status_rx.clone()
    }

    /// Removes the key and waits until it is gone, for a few seconds at most.
    ///
    /// # Errors
    /// When etcd did not answer in time; then the lease's end removes the key.
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

/// # Errors
/// When no lease should live that long, or could live that briefly.
pub fn check_ttl(ttl: Duration) -> Result<(), RegisterError> {
    if (TTL_MIN..=TTL_MAX).contains(&ttl) { Ok(()) } else { Err(RegisterError::Ttl(ttl)) }
}

/// # Errors
/// When the text cannot be a key's last segment.
pub fn check_id(id: &str) -> Result<(), RegisterError> {
    let bad = |c: char| c == '/' || c.is_whitespace() || c.is_control();
    if id.is_empty() || id.contains(bad) { Err(RegisterError::Id(id.to_owned())) } else { Ok(()) }
}

/// # Errors
/// When the format has no place for something the registration says.
pub fn check_format(
    format: &Format,
    prefix: &str,
    registration: &Registration,
) -> Result<(), RegisterError> {
    key_and_value(format, prefix, registration).map(drop)
}

/// The key and the value.
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
