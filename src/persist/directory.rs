//! Locks the directory of the saved state for one process, and opens its files safely.
//!
//! In: a path. Out: a lock that lasts while its file is open, and open files. Only the owner
//! can read the files. It never follows symbolic links, so that another process that can
//! write to the directory cannot choose which file is read or overwritten, and it never
//! waits for pipes or devices.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use tokio::fs;

use super::{StateError, Store};

/// The reason why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("--state-dir {dir:?} cannot be used: {reason}")]
pub struct OpenError {
    dir: PathBuf,
    reason: String,
}

/// The name of a file that is not yet completely written.
pub(super) const NEW: &str = "state.new";
const LOCK: &str = "lock";
/// Only the owner has access, because metadata may be confidential.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

impl Store {
    /// Locks a directory for this store, and creates it if necessary.
    ///
    /// # Errors
    /// Returns an error if the directory cannot be written to or another process uses it.
    pub async fn open(
        dir: &Path,
        prefixes: impl IntoIterator<Item = String>,
    ) -> Result<Self, OpenError> {
        let unusable = |error: io::Error| {
            let remedy = match error.kind() {
                ErrorKind::WouldBlock => "give each balancer a directory of its own",
                ErrorKind::IsADirectory => "move it away",
                _ => "give a directory that this process may write to",
            };
            OpenError { dir: dir.to_owned(), reason: format!("{error}: {remedy}") }
        };
        let lock = claim(dir).await.map_err(unusable)?;
        let store = Self { dir: dir.to_owned(), prefixes: prefixes.into_iter().collect(), lock };
        store.tidy().await.map_err(unusable)?;
        Ok(store)
    }

    /// Removes unfinished files of crashed processes, and checks that a file can be created.
    async fn tidy(&self) -> io::Result<()> {
        for file in [self.file(), self.backup()] {
            if fs::symlink_metadata(&file).await.is_ok_and(|found| found.is_dir()) {
                let error = format!("{file:?} is a directory");
                return Err(io::Error::new(ErrorKind::IsADirectory, error));
            }
        }
        let mut entries = fs::read_dir(&self.dir).await?;
        while let Some(entry) = entries.next_entry().await? {
            if entry.file_name().to_string_lossy().starts_with(NEW) {
                fs::remove_file(entry.path()).await?;
            }
        }
        let new = self.dir.join(NEW);
        create(&new).await?;
        fs::remove_file(&new).await
    }
}

/// Creates the directory if necessary, and locks it. Returns the open lock file.
pub(super) async fn claim(dir: &Path) -> io::Result<File> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(DIRECTORY_MODE).create(dir).await?;
    let mut options = options();
    let lock = fs::OpenOptions::from(options.write(true).create(true).clone());
    let lock = lock.open(dir.join(LOCK)).await.map_err(in_words)?.into_std().await;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(Errno::WOULDBLOCK) => {
            Err(io::Error::new(ErrorKind::WouldBlock, "another process uses it"))
        }
        // Some network disks have no locks; the lock is a help and not required.
        Err(error) => {
            tracing::warn!(dir = %dir.display(), %error, "the directory of the state cannot be locked: make sure that no other process uses it");
            Ok(lock)
        }
    }
}

/// Opens an existing regular file to read it.
pub(super) fn open_to_read(path: &Path) -> Result<File, StateError> {
    regular(options().read(true).open(path).map_err(in_words)?)
}

/// Opens an existing regular file to change its modification time.
pub(super) async fn open_to_touch(path: &Path) -> io::Result<File> {
    let mut options = options();
    let options = fs::OpenOptions::from(options.write(true).clone());
    let file = options.open(path).await.map_err(in_words)?.into_std().await;
    regular(file).map_err(io::Error::other)
}

/// Creates a file. Removes an old file of that name first.
pub(super) async fn create(path: &Path) -> io::Result<fs::File> {
    match fs::remove_file(path).await {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = options();
    fs::OpenOptions::from(options.write(true).create_new(true).clone()).open(path).await
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    options.mode(FILE_MODE).custom_flags(flags.cast_signed());
    options
}

fn regular(file: File) -> Result<File, StateError> {
    if file.metadata()?.is_file() { Ok(file) } else { Err(StateError::NotAFile) }
}

/// Replaces the system's error for a symbolic link, which says "too many levels of links".
fn in_words(error: io::Error) -> io::Error {
    match error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) {
        true => io::Error::other("it is a symbolic link"),
        false => error,
    }
}
