//! The file of `--audit-log`.
//!
//! In: whole lines. Out: the same, appended to a file that is opened again on request, so
//! that it can be rotated. A line that cannot be written is not lost: it is on standard error
//! too, with the fault.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::text;

/// The file; clones share it.
#[derive(Debug, Clone)]
pub(super) struct AuditFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    file: Mutex<File>,
}

impl AuditFile {
    /// Opens the file, or makes it, for its owner alone.
    ///
    /// # Errors
    /// If it cannot be opened for appending.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = Mutex::new(open(path)?);
        Ok(Self(Arc::new(Inner { path: path.to_owned(), file })))
    }

    /// Opens the path again: the former file may have been renamed.
    pub(super) fn reopen(&self) {
        match open(&self.0.path) {
            Ok(file) => *self.0.file.lock().unwrap_or_else(PoisonError::into_inner) = file,
            Err(error) => {
                let path = self.0.path.display();
                let remedy = "make it writable and send SIGHUP: the former file is used until then";
                tracing::error!(%path, %error, remedy, "the audit log cannot be opened again");
            }
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

impl Write for AuditFile {
    /// Writes a whole line: the subscriber calls this once for each line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let (json, end) = text.strip_suffix('\n').map_or((&*text, ""), |json| (json, "\n"));
        let shown = format!("{}{end}", text::shown_json(json));
        let mut file = self.0.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.write_all(shown.as_bytes()) {
            drop(file);
            // Not by a log line: this is the middle of one.
            let path = self.0.path.display();
            let _ = writeln!(io::stderr(), "audit log {path}: {error}: {shown}");
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_appended_and_a_renamed_file_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        std::fs::write(&path, "before\n").unwrap();
        let mut file = AuditFile::open(&path).unwrap();
        file.write_all(b"{\"a\":\"\xc2\x9b\"}\n").unwrap();
        let rotated = directory.path().join("audit.log.1");
        std::fs::rename(&path, &rotated).unwrap();
        file.write_all(b"{}\n").unwrap();
        file.reopen();
        file.write_all(b"{\"b\":1}\n").unwrap();
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        let old = read(&rotated);
        assert!(old.starts_with("before\n{\"a\":\"") && old.ends_with("}\n{}\n"), "{old}");
        assert!(!old.contains('\u{9b}'), "{old:?}");
        assert_eq!(read(&path), "{\"b\":1}\n");
        assert!(AuditFile::open(directory.path()).is_err());
    }
}
