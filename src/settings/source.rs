//! Follows the sources of per-service settings while the balancer runs.
//!
//! In: the defaults, the `--config` file whenever it changes, and the document in etcd.
//! Out: the newest [`Settings`], and a [`Report`] of refused documents. A document is
//! taken whole or not at all: after an invalid one, the previous one stays in force. An
//! outage of etcd changes nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::{Document, Layer, Settings, changes};
use crate::clock;
use crate::model::Zone;
use crate::registry::etcd::{Stored, is_denial};
use crate::registry::{Change, Entry, Event, Key};
use crate::reload::Reloading;
use crate::telemetry::audit::TARGET;

/// The file with the tables, which is read again when it changes.
#[derive(Debug, Clone)]
pub struct FileSource {
    /// The path of the file.
    pub path: PathBuf,
    /// The newest valid tables of the file.
    pub document: Reloading<Arc<Document>>,
}

/// The decoded value of a key in etcd.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodedDocument {
    document: Result<Arc<Document>, String>,
    revision: i64,
}

/// The state of the sources, for display.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// The `--config` file, if there is one.
    pub file: Option<SourceReport>,
    /// The document in etcd.
    pub store: SourceReport,
}

/// The state of one source.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceReport {
    /// The file's path, or the key in etcd.
    pub place: String,
    /// How many of its tables are in force.
    pub tables: usize,
    /// The revision in etcd of the document in force.
    pub revision: Option<i64>,
    /// Since when the newest document is not in force, and why; `None` if it is.
    pub refused: Option<(Instant, String)>,
    /// Why the source does not answer now; `None` if it does.
    pub outage: Option<String>,
}

/// A change for the balancer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// These settings are in force from now on.
    Settings(Arc<Settings>),
    /// etcd has been read for the first time, or refuses to be read: nothing needs to
    /// wait for it any longer.
    FirstRead,
}

/// The state of the document in etcd.
#[derive(Debug, Default)]
struct Store {
    key: String,
    document: Option<(Arc<Document>, i64)>,
    refused: Option<(Instant, String)>,
    outage: Option<String>,
    /// Whether etcd has lost the document, which then stays in force.
    lost_by_etcd: bool,
}

/// How many problems of a document a log line lists; `check` lists all.
const PROBLEMS_LOGGED_MAX: usize = 10;
/// How many changed settings a log line lists.
const CHANGES_LOGGED_MAX: usize = 50;
/// The beginning of the keys that hold the settings of a zone's balancers.
const PREFIX: &str = "/lookaside/settings/";

/// Returns the key in etcd that all balancers of a zone read.
#[must_use]
pub fn key(zone: &Zone) -> String {
    format!("{PREFIX}{zone}")
}

/// Decodes a value in etcd.
#[must_use]
pub fn decode(stored: Stored<'_>) -> DecodedDocument {
    let text = std::str::from_utf8(stored.value).map_err(|_| "it is no UTF-8 text".to_owned());
    let document = text.and_then(|text| {
        Document::parse(text).map(Arc::new).map_err(|problems| {
            let logged: Vec<_> =
                problems.iter().take(PROBLEMS_LOGGED_MAX).map(ToString::to_string).collect();
            match problems.len().saturating_sub(PROBLEMS_LOGGED_MAX) {
                0 => logged.join("; "),
                more => format!("{}; and {more} more", logged.join("; ")),
            }
        })
    });
    DecodedDocument { document, revision: stored.revision }
}

/// Sends the settings whenever they change, until a receiver is dropped. `current`
/// holds the settings in force at the start.
pub async fn run(
    mut current: Settings,
    file: Option<FileSource>,
    key: String,
    mut events: mpsc::Receiver<Event<DecodedDocument>>,
    news_tx: mpsc::Sender<News>,
    report_tx: watch::Sender<Report>,
) {
    // The saved document is in force until etcd has been read.
    let saved = current.document(Layer::Store).cloned();
    let document = saved.map(|document| (document, 0));
    let mut store = Store { key, document, ..Store::default() };
    let mut changes = file.as_ref().map(|file| file.document.changes());
    let (mut sure, mut first_read_sent) = (false, false);
    loop {
        let document = file.as_ref().map(|file| file.document.value());
        let settings = current.with(document, store.document.as_ref().map(|one| one.0.clone()));
        if settings != current {
            audit(&current, &settings, file.as_ref(), &store);
            current = settings;
            let news = News::Settings(Arc::new(current.clone()));
            if news_tx.send(news).await.is_err() {
                return;
            }
        }
        let first = sure && !std::mem::replace(&mut first_read_sent, true);
        if first && news_tx.send(News::FirstRead).await.is_err() {
            return;
        }
        report_tx.send_replace(Report {
            file: file.as_ref().map(FileSource::report),
            store: store.report(),
        });
        let changed = async {
            match &mut changes {
                Some(changes) => changes.changed().await.is_ok(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => {
                    sure |= match &event {
                        Event::Stale { reason, .. } => is_denial(reason),
                        Event::Reset { .. } | Event::Apply { .. } => true,
                    };
                    store.take(event);
                }
                None => return,
            },
            lives = changed => if !lives { changes = None },
            () = news_tx.closed() => return,
        }
    }
}

/// Logs what differs in each layer.
fn audit(before: &Settings, after: &Settings, file: Option<&FileSource>, store: &Store) {
    for layer in [Layer::File, Layer::Store] {
        let of = |settings: &Settings| settings.document(layer).cloned();
        let all = changes(of(before).as_deref(), of(after).as_deref());
        if all.is_empty() {
            continue;
        }
        let (place, revision) = match layer {
            Layer::Store => (store.key.clone(), store.document.as_ref().map(|(_, at)| *at)),
            _ => (file.map(|file| file.path.display().to_string()).unwrap_or_default(), None),
        };
        let (source, count) = (layer.as_str(), all.len());
        let shown = all.iter().take(CHANGES_LOGGED_MAX).map(String::as_str);
        let changes = shown.collect::<Vec<_>>().join("; ");
        info!(target: TARGET, source, place, revision, count, changes, "settings change");
    }
}

impl FileSource {
    fn report(&self) -> SourceReport {
        SourceReport {
            place: self.path.display().to_string(),
            tables: self.document.value().len(),
            revision: None,
            refused: self.document.fault(),
            outage: None,
        }
    }
}

impl Store {
    fn take(&mut self, event: Event<DecodedDocument>) {
        self.outage = None;
        match event {
            Event::Reset { all, went_back, .. } => {
                let own = all.into_iter().find(|entry| self.is_own(&entry.key));
                match own {
                    Some(entry) => self.put(entry),
                    // etcd was emptied or replaced, so the document was lost and not
                    // deleted, however often etcd is read afterwards.
                    None if (went_back || self.lost_by_etcd) && self.document.is_some() => {
                        self.lost_by_etcd = true;
                        self.refuse(
                            "etcd went back to a state without settings".to_owned(),
                            "apply them again, or put and delete the key",
                        );
                    }
                    None => self.delete(),
                }
            }
            Event::Apply { changes, .. } => {
                for change in changes {
                    match change {
                        Change::Put(entry) if self.is_own(&entry.key) => self.put(entry),
                        Change::Delete(key, _) if self.is_own(&key) => self.delete(),
                        _ => {}
                    }
                }
            }
            Event::Stale { reason, .. } => self.outage = Some(reason),
        }
    }

    fn put(&mut self, entry: Entry<DecodedDocument>) {
        self.lost_by_etcd = false;
        let DecodedDocument { document, revision } = entry.decoded;
        match document {
            Ok(document) => {
                if self.document.as_ref().is_none_or(|(_, known)| *known != revision) {
                    let tables = document.len();
                    info!(key = self.key, revision, tables, "settings in etcd are in force");
                }
                self.document = Some((document, revision));
                self.refused = None;
            }
            Err(reason) => {
                let reason = format!("revision {revision}: {reason}");
                self.refuse(reason, "correct the document and apply it again");
            }
        }
    }

    fn refuse(&mut self, reason: String, remedy: &str) {
        if self.refused.as_ref().is_some_and(|(_, known)| *known == reason) {
            return;
        }
        warn!(
            target: TARGET,
            key = self.key,
            reason, remedy, "settings refused: the previous ones stay in force"
        );
        self.refused = Some((clock::now(), reason));
    }

    fn delete(&mut self) {
        if self.document.take().is_some() {
            info!(key = self.key, "settings in etcd were deleted: file and flags are in force");
        }
        self.refused = None;
        self.lost_by_etcd = false;
    }

    fn is_own(&self, key: &Key) -> bool {
        *key.0 == *self.key.as_bytes()
    }

    fn report(&self) -> SourceReport {
        SourceReport {
            place: self.key.clone(),
            tables: self.document.as_ref().map_or(0, |(document, _)| document.len()),
            revision: self.document.as_ref().map(|(_, revision)| *revision),
            refused: self.refused.clone(),
            outage: self.outage.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "/lookaside/settings/zone";

    fn entry(key: &str, value: &str, revision: i64) -> Entry<DecodedDocument> {
        let stored = Stored { key: key.as_bytes(), value: value.as_bytes(), lease: 0, revision };
        Entry { key: Key::new(key.as_bytes()), decoded: decode(stored), leased: false }
    }

    fn reset(all: Vec<Entry<DecodedDocument>>, went_back: bool) -> Event<DecodedDocument> {
        Event::Reset { revision: 9, all, went_back }
    }

    #[test]
    fn a_wrong_document_leaves_the_former_in_force() {
        let mut store = Store { key: KEY.to_owned(), ..Store::default() };
        let put = |value, revision| Event::Apply {
            revision,
            changes: vec![Change::Put(entry(KEY, value, revision))],
        };
        let mut check = |event, revision: Option<i64>, refused: Option<&str>| {
            store.take(event);
            let report = store.report();
            assert_eq!(report.revision, revision);
            let found = report.refused.map(|(_, why)| why).unwrap_or_default();
            assert!(found.contains(refused.unwrap_or_default()), "{found}");
            assert_eq!(found.is_empty(), refused.is_none(), "{found}");
        };
        check(reset(vec![entry("/lookaside/settings/zone2", "guard", 1)], false), None, None);
        check(put("version = 2", 2), None, Some("version is 2"));
        check(put("[service.a]\nguard = 1", 3), Some(3), None);
        check(put("[service.a]\nguard = 101", 4), Some(3), Some("revision 4: 2:9: "));
        check(put("[service.a]\nguard = 100", 5), Some(5), None);
        let stale = Event::Stale { since: crate::clock::now(), reason: String::new() };
        check(stale, Some(5), None);
        // A document of an older state is used; an older state without one is not.
        check(reset(vec![entry(KEY, "[service.a]\nguard = 1", 3)], true), Some(3), None);
        check(reset(Vec::new(), true), Some(3), Some("went back"));
        check(reset(Vec::new(), false), Some(3), Some("went back"));
        check(put("[service.a]\nguard = 101", 4), Some(3), Some("revision 4: 2:9: "));
        check(reset(Vec::new(), false), None, None);
        check(reset(vec![entry(KEY, "", 4)], false), Some(4), None);
        check(reset(Vec::new(), false), None, None);
        check(put("", 5), Some(5), None);
        let changes = vec![Change::Delete(Key::new(KEY.as_bytes()), crate::registry::Cause::Swept)];
        check(Event::Apply { revision: 6, changes }, None, None);
    }
}
