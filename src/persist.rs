//! The last good lists on disk, for a start while the registry is away.
//!
//! In: a directory, and the catalog as it changes. Out: one file, always whole:
//! written beside, synced, renamed; its predecessor stays as `state.bak`. Read
//! once, at the start. A file that is torn, corrupt or not ours is told of and
//! never served. Nothing here can hold up serving or bring it down: a full or
//! broken disk is an alarm.
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
use tokio::time::{sleep, timeout};

use crate::catalog::{Catalog, Restored, ServiceSnapshot};
use crate::model::{BackendAddr, Endpoint, ServiceName, Weight};
use crate::telemetry::Counters;

/// Where the state is kept.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
    /// Where the registrations lie that it was made of: another balancer's
    /// state is none of ours.
    prefixes: Vec<String>,
}

/// Why a file is not served.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It cannot be read at all.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It does not begin as ours do.
    #[error("it is no state of lookaside's")]
    Foreign,
    /// A later version wrote it.
    #[error("it has version {0}, this program knows {VERSION}")]
    Version(u32),
    /// It is of another balancer.
    #[error("it was made of the prefixes {0:?}: each balancer needs a directory of its own")]
    Prefixes(Vec<String>),
    /// Its end is missing.
    #[error("its end is missing")]
    Torn,
    /// It is not what was written.
    #[error("its checksum is wrong")]
    Corrupt,
    /// A line of it makes no sense.
    #[error("line {line}: {reason}")]
    Content {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
}

/// The first line.
#[derive(Serialize, Deserialize)]
struct Head {
    format: String,
    version: u32,
    prefixes: Vec<String>,
}

/// Each line between.
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

/// The last line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tail {
    /// Of all bytes before this line.
    crc32: u32,
}

const FORMAT: &str = "lookaside state";
const VERSION: u32 = 1;
/// What changes in between is written together: a disk is not for every
/// change, and after a crash etcd knows better than the last second.
const PAUSE: Duration = Duration::from_secs(1);
/// How often a file that is still true is marked as such.
const MARK_EVERY: Duration = Duration::from_secs(30);
/// After a failure. Disks fill and empty in minutes.
const RETRY: Duration = Duration::from_secs(10);
/// For one writing; a network disk may hang for ever.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// Services written before others may run: some hundred microseconds.
const CHUNK: usize = 32;

/// Keeps the state until the catalog is gone.
pub async fn run(store: Store, catalog: Catalog, counters: Arc<Counters>) {
    let mut changes = catalog.watch_changes();
    let (mut failed, mut kept) = (false, false);
    loop {
        let changed = match timeout(MARK_EVERY, changes.changed()).await {
            Ok(Ok(())) => true,
            Ok(Err(_)) => return,
            Err(_) => false,
        };
        // What is unread is not to be kept; what was restored is kept already.
        let status = catalog.status();
        if !status.synced || status.restored.is_some() {
            continue;
        }
        let saved = match changed || failed || !kept {
            true => timeout(WRITE_TIMEOUT, store.save(&catalog.services())).await,
            false => timeout(WRITE_TIMEOUT, store.mark()).await,
        };
        let dir = store.dir.display();
        match saved.unwrap_or_else(|elapsed| Err(elapsed.into())) {
            Ok(()) => {
                if failed {
                    tracing::info!(%dir, "state is saved again");
                }
                counters.states_saved.increment();
                (failed, kept) = (false, true);
                sleep(PAUSE).await;
            }
            Err(error) => {
                if !failed {
                    tracing::error!(%dir, %error, "state cannot be saved: a restart while the registry is away would serve nothing, or old lists");
                }
                counters.states_failed.increment();
                failed = true;
                changes.mark_changed();
                sleep(RETRY).await;
            }
        }
    }
}

impl Store {
    /// In a directory, which need not be there yet.
    #[must_use]
    pub fn new(dir: &Path, prefixes: impl IntoIterator<Item = String>) -> Self {
        Self { dir: dir.to_owned(), prefixes: prefixes.into_iter().collect() }
    }

    /// What was saved last, or before that. What cannot be served is told of.
    #[must_use]
    pub fn load(&self) -> Option<Restored> {
        [self.file(), self.backup()].iter().find_map(|file| match self.read(file) {
            Ok(restored) => Some(restored),
            Err(StateError::Io(error)) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                let file = file.display();
                tracing::error!(%file, %error, "saved state cannot be used");
                None
            }
        })
    }

    fn read(&self, file: &Path) -> Result<Restored, StateError> {
        let bytes = std::fs::read(file)?;
        let services = parse(&bytes, &self.prefixes)?;
        let saved = std::fs::metadata(file)?.modified()?;
        // A clock that was set back makes it new, never old.
        let age = SystemTime::now().duration_since(saved).unwrap_or_default();
        let saved = humantime::format_rfc3339_seconds(saved).to_string();
        Ok(Restored { saved, age, services })
    }

    /// Still true.
    async fn mark(&self) -> io::Result<()> {
        let file = File::options().write(true).open(self.file()).await?.into_std().await;
        file.set_modified(SystemTime::now())
    }

    async fn save(&self, services: &[Arc<ServiceSnapshot>]) -> io::Result<()> {
        fs::create_dir_all(&self.dir).await?;
        let new = self.dir.join(format!("state.new.{}", std::process::id()));
        if let Err(error) = self.write(&new, services).await {
            let _ = fs::remove_file(&new).await;
            return Err(error);
        }
        match fs::rename(self.file(), self.backup()).await {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::rename(&new, self.file()).await?;
        File::open(&self.dir).await?.sync_all().await
    }

    async fn write(&self, new: &Path, services: &[Arc<ServiceSnapshot>]) -> io::Result<()> {
        let mut file = BufWriter::with_capacity(1 << 16, File::create(new).await?);
        let mut hasher = Hasher::new();
        let mut chunk = line(&self.head())?;
        for services in services.chunks(CHUNK) {
            for service in services {
                chunk.extend(line(&Service::from(&**service))?);
            }
            hasher.update(&chunk);
            file.write_all(&chunk).await?;
            chunk.clear();
            tokio::task::yield_now().await;
        }
        hasher.update(&chunk);
        file.write_all(&chunk).await?;
        file.write_all(&line(&Tail { crc32: hasher.finalize() })?).await?;
        file.flush().await?;
        file.into_inner().sync_all().await
    }

    fn head(&self) -> Head {
        Head { format: FORMAT.to_owned(), version: VERSION, prefixes: self.prefixes.clone() }
    }

    fn file(&self) -> PathBuf {
        self.dir.join("state")
    }

    fn backup(&self) -> PathBuf {
        self.dir.join("state.bak")
    }
}

/// The services that a file holds: all of them, or why none.
///
/// # Errors
/// When it is not wholly what [`run`] wrote for these prefixes.
pub fn parse(
    bytes: &[u8],
    prefixes: &[String],
) -> Result<Vec<(ServiceName, Vec<Endpoint>)>, StateError> {
    let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let head: Head = serde_json::from_slice(first).map_err(|_| StateError::Foreign)?;
    match head {
        Head { format, .. } if format != FORMAT => return Err(StateError::Foreign),
        Head { version, .. } if version != VERSION => return Err(StateError::Version(version)),
        Head { prefixes: other, .. } if other != prefixes => {
            return Err(StateError::Prefixes(other));
        }
        _ => {}
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
    lines.map(service).collect()
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
