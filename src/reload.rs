//! Values made from files, and made again when the files change.
//!
//! In: the files that flags name, and a function that makes a value from them. Out: the
//! newest valid value. If a changed file cannot be used, the former value stays, and the
//! log says so once. Files are polled every two seconds and not watched: Kubernetes
//! replaces a directory by swapping a symbolic link, which a watch of the file misses.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

pub use expiry::expiry;
pub use server_tls::{Chain, ServerTls};

use crate::clock;
use crate::telemetry::{Counters, Credential};

mod expiry;
mod server_tls;

/// A value made from files, or a fixed one. Clones share it.
pub struct Reloading<T>(Arc<Inner<T>>);

struct Inner<T> {
    /// The use of the value, in one word: `serve`, `etcd`.
    used_for: &'static str,
    files: Vec<File>,
    make: Make<T>,
    state: Mutex<State<T>>,
    /// Whether the value is a password or has certificates, which metrics then count.
    credential: bool,
    /// Notifies of each change of the value or the fault.
    changes: watch::Sender<()>,
}

/// A file and the flag that names it.
#[derive(Debug, Clone)]
pub struct File {
    /// The flag, with its dashes.
    pub flag: &'static str,
    /// The file's path.
    pub path: PathBuf,
}

/// A value made from files.
pub struct Loaded<T> {
    /// The value.
    pub value: T,
    /// The use of each certificate in the value, and its end in seconds since 1970.
    pub expiries: Vec<(&'static str, i64)>,
}

/// When the end of a certificate was reported last, by its use.
type Warned = BTreeMap<&'static str, Instant>;

/// Makes a value from the contents of the files, in their order.
type Make<T> = Box<dyn Fn(&[Vec<u8>]) -> Result<Loaded<T>, Vec<String>> + Send + Sync>;

struct State<T> {
    loaded: Loaded<T>,
    contents: Vec<Vec<u8>>,
    /// How often the value was replaced.
    version: u64,
    fault: Option<Fault>,
    /// The number of reported faults.
    failures: u64,
}

/// The reason why the current files cannot be used.
struct Fault {
    text: String,
    since: Instant,
    reported: bool,
}

/// The time between two looks at the files. Clients see a replaced certificate within
/// seconds, and a look costs microseconds.
const CHECK_EVERY: Duration = Duration::from_secs(2);
/// How long a fault may last before it is reported. A certificate and its key are two
/// files, so a replacement may be under way.
const SETTLES_WITHIN: Duration = Duration::from_secs(5);
/// The limit for reading a file: a remote file system may not answer.
const READ_WITHIN: Duration = Duration::from_secs(2);
/// The longest file that is read, in bytes. The longest chain of certificates is a fraction
/// of it.
const FILE_MAX: u64 = 1 << 20;
/// How long before its end a certificate is reported, in seconds: 30 days. Most set-ups renew a
/// certificate of 90 days when a third of its time is left.
const WARN_BEFORE: i64 = 30 * 24 * 3600;
/// The time between two log lines about a certificate that ends soon.
const WARN_EVERY: Duration = Duration::from_secs(24 * 3600);

impl<T: Clone> Reloading<T> {
    /// Returns a value that never changes.
    pub fn fixed(value: T) -> Self {
        let loaded = Loaded { value, expiries: Vec::new() };
        let state = State { loaded, contents: Vec::new(), version: 0, fault: None, failures: 0 };
        let make: Make<T> = Box::new(|_| Err(Vec::new()));
        Self::with("", Vec::new(), state, make)
    }

    /// Returns a value that is not a credential, made from a file that the caller has just read.
    pub fn already_read(
        used_for: &'static str,
        file: File,
        contents: Vec<u8>,
        value: T,
        make: impl Fn(&[u8]) -> Result<T, Vec<String>> + Send + Sync + 'static,
    ) -> Self {
        let loaded = |value| Loaded { value, expiries: Vec::new() };
        let contents = vec![contents];
        let state = State { loaded: loaded(value), contents, version: 0, fault: None, failures: 0 };
        let make = Box::new(move |contents: &[Vec<u8>]| make(&contents[0]).map(loaded));
        let mut inner = Self::with(used_for, vec![file], state, make);
        if let Some(inner) = Arc::get_mut(&mut inner.0) {
            inner.credential = false;
        }
        inner
    }

    fn with(used_for: &'static str, files: Vec<File>, state: State<T>, make: Make<T>) -> Self {
        let (state, changes) = (Mutex::new(state), watch::Sender::new(()));
        Self(Arc::new(Inner { used_for, files, make, state, credential: true, changes }))
    }

    /// Reads the files for the first time and makes the value.
    ///
    /// # Errors
    /// Returns all problems, each beginning with its flag.
    pub fn open(
        used_for: &'static str,
        files: Vec<File>,
        make: impl Fn(&[Vec<u8>]) -> Result<Loaded<T>, Vec<String>> + Send + Sync + 'static,
    ) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let read = |file: &File| {
            let path = &file.path;
            let contents = std::fs::read(path);
            let problem = match &contents {
                Ok(bytes) if bytes.is_empty() => format!("{}: {path:?} is empty", file.flag),
                Ok(_) => return contents.ok(),
                Err(error) => format!("{}: cannot read {path:?}: {error}", file.flag),
            };
            problems.push(problem);
            None
        };
        let contents: Vec<Vec<u8>> = files.iter().filter_map(read).collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        let loaded = make(&contents)?;
        let state = State { loaded, contents, version: 0, fault: None, failures: 0 };
        Ok(Self::with(used_for, files, state, Box::new(make)))
    }

    /// Returns the newest valid value.
    #[must_use]
    pub fn value(&self) -> T {
        self.state().loaded.value.clone()
    }

    /// Returns how often the value was replaced.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.state().version
    }

    /// Returns since when the current files cannot be used, and why, once it has been reported.
    #[must_use]
    pub fn fault(&self) -> Option<(Instant, String)> {
        let state = self.state();
        let fault = state.fault.as_ref().filter(|fault| fault.reported)?;
        Some((fault.since, fault.text.clone()))
    }

    /// Returns a receiver that wakes when the value or the fault changes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.changes.subscribe()
    }

    /// Looks at the files now, so that the value is as new as the files.
    pub async fn refresh(&self) {
        self.check_files(false).await;
    }

    async fn check_files(&self, now: bool) {
        if self.0.files.is_empty() {
            return;
        }
        let mut contents = Vec::new();
        for file in &self.0.files {
            match read(file).await {
                Ok(Some(bytes)) => contents.push(bytes),
                // A pipe was read at the start and cannot be read again.
                Ok(None) => return,
                Err(fault) => return self.record_fault(fault, now),
            }
        }
        self.replace(contents, now);
    }

    fn replace(&self, contents: Vec<Vec<u8>>, now: bool) {
        let mut state = self.state();
        if contents == state.contents {
            if state.fault.take().is_some() {
                self.0.changes.send_replace(());
            }
            return;
        }
        match (self.0.make)(&contents) {
            Ok(loaded) => {
                let (version, failures) = (state.version + 1, state.failures);
                *state = State { loaded, contents, version, fault: None, failures };
                drop(state);
                self.0.changes.send_replace(());
                info!(used_for = self.0.used_for, "files changed and are used from now on");
            }
            Err(problems) => {
                drop(state);
                self.record_fault(problems.join(", "), now);
            }
        }
    }

    /// Records a fault. Reports it if it has lasted for [`SETTLES_WITHIN`], or at once with
    /// `now`.
    fn record_fault(&self, text: String, now: bool) {
        let mut state = self.state();
        let fault = match state.fault.take() {
            Some(fault) if fault.text == text => fault,
            _ => Fault { text, since: clock::now(), reported: false },
        };
        let fault = state.fault.insert(fault);
        let due = now || clock::now().duration_since(fault.since) >= SETTLES_WITHIN;
        if fault.reported || !due {
            return;
        }
        fault.reported = true;
        let (used_for, fault) = (self.0.used_for, fault.text.clone());
        state.failures += 1;
        drop(state);
        self.0.changes.send_replace(());
        let remedy = "repair the file: it is read again every two seconds";
        warn!(used_for, fault, remedy, "changed files cannot be used: the former are kept");
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for Reloading<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> fmt::Debug for Reloading<T> {
    /// Leaves out the value, because it may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reloading").field(&self.0.files).finish()
    }
}

/// Returns the content of a file, or `None` if it is not a regular file.
async fn read(file: &File) -> Result<Option<Vec<u8>>, String> {
    let File { flag, path } = file;
    let reading = async {
        let about = tokio::fs::metadata(path).await?;
        if !about.is_file() {
            return Ok(None);
        }
        if about.len() > FILE_MAX {
            return Err(std::io::Error::other(format!("it is longer than {FILE_MAX} bytes")));
        }
        tokio::fs::read(path).await.map(Some)
    };
    match timeout(READ_WITHIN, reading).await {
        Ok(Ok(Some(bytes))) if bytes.is_empty() => Err(format!("{flag}: {path:?} is empty")),
        Ok(Ok(read)) => Ok(read),
        Ok(Err(error)) => Err(format!("{flag}: cannot read {path:?}: {error}")),
        Err(_) => Err(format!("{flag}: cannot read {path:?}: no answer in {READ_WITHIN:?}")),
    }
}

/// All values whose files are read again while the program runs.
#[derive(Default)]
pub struct Reloadables(Vec<Box<dyn Reload>>);

trait Reload: Send + Sync {
    fn check_files(&self, now: bool) -> BoxFuture<'_, ()>;
    fn credential(&self) -> Option<Credential>;
}

impl<T: Clone + Send + Sync + 'static> Reload for Reloading<T> {
    fn check_files(&self, now: bool) -> BoxFuture<'_, ()> {
        Box::pin(Reloading::check_files(self, now))
    }

    fn credential(&self) -> Option<Credential> {
        let state = self.state();
        self.0.credential.then(|| Credential {
            used_for: self.0.used_for,
            expiries: state.loaded.expiries.clone(),
            broken: state.fault.as_ref().is_some_and(|fault| fault.reported),
            reloads: state.version,
            failures: state.failures,
        })
    }
}

impl Reloadables {
    /// Adds a value, unless it has no files.
    pub fn add<T: Clone + Send + Sync + 'static>(&mut self, one: &Reloading<T>) {
        if !one.0.files.is_empty() {
            self.0.push(Box::new(one.clone()));
        }
    }

    /// Looks at all files every two seconds and whenever `reload` is notified, for ever. After
    /// a notification, a fault is reported at once.
    pub async fn run(self, reload: Arc<Notify>, counters: Arc<Counters>) {
        let mut tick = interval(CHECK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut warned = Warned::new();
        loop {
            let now = tokio::select! {
                _ = tick.tick() => false,
                () = reload.notified() => true,
            };
            for one in &self.0 {
                one.check_files(now).await;
            }
            let all: Vec<_> = self.0.iter().filter_map(|one| one.credential()).collect();
            warn_of_ends(&all, &mut warned);
            counters.credentials.set(all);
            if now {
                info!("looked at all files: changed files are used from now on");
            }
        }
    }
}

/// Logs certificates that end soon or have ended, each once a day.
#[expect(clippy::disallowed_types, reason = "a certificate ends on a date")]
fn warn_of_ends(all: &[Credential], warned: &mut Warned) {
    let Ok(today) = std::time::SystemTime::now().duration_since(UNIX_EPOCH) else { return };
    let today = i64::try_from(today.as_secs()).unwrap_or(i64::MAX);
    for (used_for, days) in ends_to_report(all, today, clock::now(), warned) {
        match days {
            0.. => warn!(used_for, days, "a certificate ends soon: renew it"),
            _ => warn!(used_for, days, "a certificate has ended: renew it"),
        }
    }
}

/// Returns the use of each certificate that ends soon and was not reported for a day, with
/// the days that are left. `today` is in seconds since 1970.
fn ends_to_report(
    all: &[Credential],
    today: i64,
    now: Instant,
    warned: &mut Warned,
) -> Vec<(&'static str, i64)> {
    let mut due = Vec::new();
    for &(used_for, end) in all.iter().flat_map(|one| &one.expiries) {
        let left = end.saturating_sub(today);
        let said = warned.get(used_for).is_some_and(|at| now.duration_since(*at) < WARN_EVERY);
        if ends_soon(left) && !said {
            warned.insert(used_for, now);
            due.push((used_for, left.div_euclid(24 * 3600)));
        }
    }
    due
}

/// Returns whether a certificate that ends in so many seconds is to be renewed.
#[must_use]
pub fn ends_soon(seconds: i64) -> bool {
    seconds < WARN_BEFORE
}

#[cfg(test)]
mod tests;
