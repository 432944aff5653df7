//! Saves the last good lists to disk, for a start without etcd.
//!
//! In: a directory, and the catalog's changes. Out: one file that is always whole (written
//! to a new file, synced, renamed), with its predecessor as `state.bak`. It is read once,
//! at the start. A file that is torn, corrupt or foreign is logged and never served. A
//! directory that cannot be used at the start is an error. Later disk faults are logged and
//! counted and never disturb serving. Writing takes a bounded part of time and disk.
#![expect(clippy::disallowed_types, reason = "only the wall clock outlives a process")]

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crc32fast::Hasher;
use serde::{Deserialize, Serialize};
use tokio::fs::{self, File};
use tokio::io::{AsyncWriteExt, BufWriter};
use tokio::time::{Instant, sleep, timeout};

use crate::catalog::{self, Catalog, Restored, ServiceSnapshot};
use crate::model::{BackendAddr, Endpoint, ServiceName, Weight};
use crate::telemetry::Counters;

mod directory;
mod operator_state;

pub use directory::OpenError;
pub use operator_state::OperatorState;
use operator_state::OperatorText;

/// The directory of the saved state.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    /// The prefixes of the registrations in the state. A state with other prefixes belongs to
    /// another balancer and is not served.
    prefixes: Vec<String>,
    /// The lock file, open. It keeps other processes from using the directory.
    lock: std::fs::File,
}

/// The content of a file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Content {
    /// Each service's endpoints.
    pub services: Vec<(ServiceName, Vec<Endpoint>)>,
    /// The decisions of operators.
    pub operator_state: OperatorState,
}

/// The reason why a file is not served.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The file is a pipe, a device or a directory.
    #[error("it is not a regular file")]
    NotAFile,
    /// The file is longer than any saved state.
    #[error("it has {0} bytes, at most {STATE_MAX} are read")]
    TooLong(u64),
    /// The file does not begin like a saved state.
    #[error("it is no state of lookaside's")]
    Foreign,
    /// Another version of the format.
    #[error("it has version {0}, this program knows {VERSION}")]
    Version(u32),
    /// The state of a balancer with other prefixes.
    #[error("it was made of the prefixes {0:?}: each balancer needs a directory of its own")]
    Prefixes(Vec<String>),
    /// The end of the file is missing.
    #[error("its end is missing")]
    Torn,
    /// The checksum does not match.
    #[error("its checksum is wrong")]
    Corrupt,
    /// A line is invalid.
    #[error("line {line}: {reason}")]
    Content {
        /// Counted from 1.
        line: usize,
        /// The problem.
        reason: String,
    },
}

/// The first line of a file.
#[derive(Serialize, Deserialize)]
struct Head {
    format: String,
    version: u32,
    prefixes: Vec<String>,
    #[serde(flatten)]
    operator_state: OperatorText,
}

/// Each line between the first and the last.
#[derive(Serialize, Deserialize)]
struct Service {
    service: String,
    endpoints: Vec<Backend>,
}

#[derive(Serialize, Deserialize)]
struct Backend {
    id: String,
    addr: std::net::SocketAddr,
    weight: u32,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    meta: BTreeMap<String, String>,
}

/// The last line of a file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tail {
    /// The checksum of all bytes before this line.
    crc32: u32,
}

const FORMAT: &str = "lookaside state";
const VERSION: u32 = 1;
/// The shortest pause between two writes. Changes in between are written together; losing
/// the last second in a crash does no harm, because etcd has newer data.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// A pause is at least this many times as long as the write before it. So writing takes at
/// most 5 % of the time, however slow the disk is.
const PAUSE_TIMES: u32 = 19;
/// The most bytes written per second on average: 22 GB a day, which flash disks endure for
/// years. A thousand backends are 100 kB.
const BYTES_PER_SECOND: u64 = 256 << 10;
/// The longest pause because of a state's size. On a fast disk, the saved state is at most
/// this old.
const PAUSE_FOR_SIZE_MAX: Duration = Duration::from_secs(60);
/// The longest file that is read, in bytes: a state of ten million backends.
const STATE_MAX: u64 = 1 << 30;
/// The time after which an unchanged state's file gets a new modification time, which
/// shows that the state is still true.
const TOUCH_EVERY: Duration = Duration::from_secs(30);
/// The pause after a failed write. Disks fill and empty in minutes.
const RETRY: Duration = Duration::from_secs(10);
/// The limit for one write; a network disk may hang for ever.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// The number of services written before the task yields: some hundred microseconds of work.
const CHUNK: usize = 32;

/// Saves the state until the catalog is closed.
pub async fn run(mut store: Store, catalog: Catalog, counters: Arc<Counters>) {
    let mut changes = catalog.watch_changes();
    let mut status = catalog.watch_status();
    // Nothing is saved before the registry is read; a restored state is saved already.
    if status.wait_for(|status| status.synced && status.restored.is_none()).await.is_err() {
        return;
    }
    changes.mark_unchanged();
    let (mut write, mut failed) = (true, false);
    loop {
        let began = Instant::now();
        let saved = match write {
            true => {
                let operator_state = OperatorState::of(&catalog);
                timeout(WRITE_TIMEOUT, store.save(&catalog.services(), &operator_state)).await
            }
            false => timeout(WRITE_TIMEOUT, store.touch()).await,
        };
        let dir = store.dir.display();
        match saved.unwrap_or_else(|elapsed| Err(elapsed.into())) {
            Ok(bytes) => {
                if failed {
                    tracing::info!(%dir, "state is saved again");
                }
                counters.states_saved.increment();
                failed = false;
                sleep(pause(began.elapsed(), bytes)).await;
                write = match timeout(TOUCH_EVERY, changes.changed()).await {
                    Ok(Ok(())) => true,
                    Ok(Err(_)) => return,
                    Err(_) => false,
                };
            }
            Err(error) => {
                if !failed {
                    tracing::error!(%dir, %error, "state cannot be saved: a restart without etcd would serve nothing or old lists");
                }
                counters.states_failed.increment();
                (failed, write) = (true, true);
                sleep(RETRY.max(pause(began.elapsed(), 0))).await;
                if changes.has_changed().is_err() {
                    return;
                }
            }
        }
    }
}

/// Returns the pause after a write of `bytes` that took `took`.
fn pause(took: Duration, bytes: u64) -> Duration {
    let for_size = Duration::from_millis(bytes.saturating_mul(1_000) / BYTES_PER_SECOND);
    PAUSE_MIN.max(took.saturating_mul(PAUSE_TIMES)).max(for_size.min(PAUSE_FOR_SIZE_MAX))
}

impl Store {
    /// Returns the newest state that can be served: `state`, else `state.bak`. Logs each
    /// file that cannot.
    #[must_use]
    pub fn load(&self) -> Option<(Restored, OperatorState)> {
        [self.file(), self.backup()].iter().find_map(|file| match self.read(file) {
            Ok(found) => Some(found),
            Err(StateError::Io(error)) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                let file = file.display();
                tracing::error!(%file, %error, "saved state cannot be used");
                None
            }
        })
    }

    fn read(&self, file: &Path) -> Result<(Restored, OperatorState), StateError> {
        let mut file = directory::open_to_read(file)?;
        let metadata = file.metadata()?;
        if metadata.len() > STATE_MAX {
            return Err(StateError::TooLong(metadata.len()));
        }
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut file, &mut bytes)?;
        let Content { services, operator_state } = parse(&bytes, &self.prefixes)?;
        let saved = metadata.modified()?;
        // If the clock was set back, the state counts as new, never as old.
        let age = SystemTime::now().duration_since(saved).unwrap_or_default();
        let saved = humantime::format_rfc3339_seconds(saved).to_string();
        Ok((Restored { saved, age, services }, operator_state))
    }

    /// Sets the file's modification time to now and writes nothing else: the state is still
    /// true.
    async fn touch(&self) -> io::Result<u64> {
        let file = directory::open_to_touch(&self.file()).await?;
        file.set_modified(SystemTime::now()).map(|()| 0)
    }

    /// Writes the state. Returns the number of its bytes.
    async fn save(
        &mut self,
        services: &[Arc<catalog::Service>],
        operator_state: &OperatorState,
    ) -> io::Result<u64> {
        if !fs::try_exists(&self.dir).await? {
            self.lock = directory::claim(&self.dir).await?;
        }
        let new = self.dir.join(directory::NEW);
        let written = self.write(&new, services, operator_state).await;
        if written.is_err() {
            let _ = fs::remove_file(&new).await;
        }
        let bytes = written?;
        match fs::rename(self.file(), self.backup()).await {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::rename(&new, self.file()).await?;
        File::open(&self.dir).await?.sync_all().await?;
        Ok(bytes)
    }

    async fn write(
        &self,
        new: &Path,
        services: &[Arc<catalog::Service>],
        operator_state: &OperatorState,
    ) -> io::Result<u64> {
        let mut file = BufWriter::with_capacity(1 << 16, directory::create(new).await?);
        let (mut hasher, mut bytes) = (Hasher::new(), 0);
        let mut chunk = line(&self.head(operator_state))?;
        let mut chunks = services.chunks(CHUNK);
        loop {
            hasher.update(&chunk);
            bytes += chunk.len() as u64;
            file.write_all(&chunk).await?;
            chunk.clear();
            let Some(services) = chunks.next() else { break };
            for service in services {
                chunk.extend(line(&Service::from(&*service.snapshot))?);
            }
            tokio::task::yield_now().await;
        }
        file.write_all(&line(&Tail { crc32: hasher.finalize() })?).await?;
        file.flush().await?;
        file.into_inner().sync_all().await?;
        Ok(bytes)
    }

    fn head(&self, operator_state: &OperatorState) -> Head {
        Head {
            format: FORMAT.to_owned(),
            version: VERSION,
            prefixes: self.prefixes.clone(),
            operator_state: operator_state.into(),
        }
    }

    fn file(&self) -> PathBuf {
        self.dir.join("state")
    }

    fn backup(&self) -> PathBuf {
        self.dir.join("state.bak")
    }
}

/// Returns the content of a file.
///
/// # Errors
/// Returns an error unless the file is exactly as [`run`] wrote it for these prefixes.
pub fn parse(bytes: &[u8], prefixes: &[String]) -> Result<Content, StateError> {
    let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let head: Head = serde_json::from_slice(first).map_err(|_| StateError::Foreign)?;
    if head.format != FORMAT {
        return Err(StateError::Foreign);
    }
    if head.version != VERSION {
        return Err(StateError::Version(head.version));
    }
    if head.prefixes != prefixes {
        return Err(StateError::Prefixes(head.prefixes));
    }
    let whole = bytes.strip_suffix(b"\n").ok_or(StateError::Torn)?;
    let end = whole.iter().rposition(|byte| *byte == b'\n').ok_or(StateError::Torn)? + 1;
    let (content, tail) = whole.split_at(end);
    let tail: Tail = serde_json::from_slice(tail).map_err(|_| StateError::Torn)?;
    if crc32fast::hash(content) != tail.crc32 {
        return Err(StateError::Corrupt);
    }
    let lines = content[..end - 1].split(|byte| *byte == b'\n').enumerate().skip(1);
    let service = |(index, line)| {
        service(line).map_err(|reason| StateError::Content { line: index + 1, reason })
    };
    let operator_state = head.operator_state.read();
    Ok(Content { services: lines.map(service).collect::<Result<_, _>>()?, operator_state })
}

fn service(line: &[u8]) -> Result<(ServiceName, Vec<Endpoint>), String> {
    let Service { service, endpoints } = serde_json::from_slice(line).map_err(|e| e.to_string())?;
    let name = ServiceName::new(&service).map_err(|error| error.to_string())?;
    let endpoint = |Backend { id, addr, weight, meta }| {
        let addr = BackendAddr::new(addr.ip(), addr.port()).map_err(|error| error.to_string())?;
        Ok(Endpoint { id: id.into(), addr, weight: Weight(weight), meta: Arc::new(meta) })
    };
    Ok((name, endpoints.into_iter().map(endpoint).collect::<Result<_, String>>()?))
}

fn line(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

impl From<&ServiceSnapshot> for Service {
    fn from(snapshot: &ServiceSnapshot) -> Self {
        let backend = |endpoint: &Endpoint| Backend {
            id: endpoint.id.to_string(),
            addr: endpoint.addr.socket_addr(),
            weight: endpoint.weight.0,
            meta: (*endpoint.meta).clone(),
        };
        let endpoints = snapshot.endpoints.iter().map(backend).collect();
        Self { service: snapshot.name.to_string(), endpoints }
    }
}

#[cfg(test)]
mod tests;
