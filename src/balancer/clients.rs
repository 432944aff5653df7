//! Which streams are open, and what each was told.
//!
//! In: a row per stream, removed when the stream is dropped, however it ends.
//! Out: [`ClientView`]s for those who show them. A push touches its own row
//! only, never the table.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dashmap::DashMap;

use crate::http2::Leave;
use crate::load::Calls;
use crate::model::{ClientKind, ServiceName};
use crate::telemetry::ClientView;

use super::session::Told;
use super::views::View;

/// All rows.
#[derive(Default)]
pub(super) struct Clients {
    rows: DashMap<u64, Arc<Row>>,
    next: AtomicU64,
}

/// Who is at the other end.
pub(super) struct Peer {
    pub(super) addr: SocketAddr,
    pub(super) user_agent: String,
    pub(super) kind: ClientKind,
    pub(super) name: String,
}

/// A stream's row, for as long as the stream lives.
pub(super) struct Registered {
    table: Arc<Clients>,
    id: u64,
    row: Arc<Row>,
}

struct Row {
    peer: Peer,
    opened: Instant,
    view: Arc<View>,
    /// Told when the client's connection must end.
    leave: Arc<Leave>,
    now: Mutex<Now>,
}

/// A client that has not taken what is new for it after this long never will,
/// though its connection lives: it is let go, and begins anew.
const STALLED_MAX: Duration = Duration::from_secs(60);

struct Now {
    service: Option<ServiceName>,
    told: &'static str,
    entries: usize,
    revision: i64,
    told_at: Instant,
    calls: Calls,
    /// The newest of its view that it has seen; none at first.
    seen: u64,
    /// Since when there has been something newer.
    behind_since: Option<Instant>,
}

impl Clients {
    /// Adds a row for a stream that opens now.
    pub(super) fn register(
        self: &Arc<Self>,
        peer: Peer,
        view: Arc<View>,
        leave: Arc<Leave>,
        opened: Instant,
    ) -> Registered {
        let now = Now {
            service: None,
            told: "nothing",
            entries: 0,
            revision: 0,
            told_at: opened,
            calls: Calls::default(),
            seen: 0,
            behind_since: None,
        };
        let row = Arc::new(Row { peer, opened, view, leave, now: Mutex::new(now) });
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.rows.insert(id, row.clone());
        Registered { table: self.clone(), id, row }
    }

    /// Lets those go that take nothing, and says how many these are.
    pub(super) fn sweep(&self, now: Instant) -> usize {
        self.rows.iter().filter(|row| row.let_go_if_stalled(now)).count()
    }

    /// Every open stream, oldest first.
    pub(super) fn view(&self) -> Vec<ClientView> {
        let mut rows: Vec<_> =
            self.rows.iter().map(|row| (*row.key(), row.value().clone())).collect();
        rows.sort_unstable_by_key(|&(id, _)| id);
        rows.iter().map(|(_, row)| row.view()).collect()
    }
}

impl Registered {
    pub(super) fn kind(&self) -> ClientKind {
        self.row.peer.kind
    }

    /// The stream has been asked for what is new, and knows this.
    pub(super) fn saw(&self, version: u64) {
        let mut now = self.row.now.lock().unwrap_or_else(PoisonError::into_inner);
        now.seen = version;
        now.behind_since = None;
    }

    /// The same, and it was handed something new.
    pub(super) fn told(
        &self,
        version: u64,
        told: &Told,
        meaning: Option<(&ServiceName, i64)>,
        at: Instant,
    ) {
        let mut now = self.row.now.lock().unwrap_or_else(PoisonError::into_inner);
        now.seen = version;
        now.behind_since = None;
        now.told = told.what;
        now.entries = told.entries;
        now.told_at = at;
        match meaning {
            Some((service, revision)) => {
                now.revision = revision;
                if now.service.as_ref() != Some(service) {
                    now.service = Some(service.clone());
                }
            }
            None => now.service = None,
        }
    }

    /// The client reported; returns the service that it is to be counted for.
    pub(super) fn reported(&self, calls: Calls) -> Option<ServiceName> {
        let mut now = self.row.now.lock().unwrap_or_else(PoisonError::into_inner);
        now.calls.add(calls);
        now.service.clone()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.table.rows.remove(&self.id);
    }
}

impl Row {
    fn let_go_if_stalled(&self, at: Instant) -> bool {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if now.seen == self.view.version() {
            now.behind_since = None;
            return false;
        }
        let since = *now.behind_since.get_or_insert(at);
        let stalled = at.saturating_duration_since(since) >= STALLED_MAX;
        if stalled {
            self.leave.ask();
        }
        stalled
    }

    fn view(&self) -> ClientView {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        ClientView {
            peer: self.peer.addr,
            user_agent: self.peer.user_agent.clone(),
            kind: self.peer.kind,
            name: self.peer.name.clone(),
            service: now.service.clone(),
            told: now.told,
            entries: now.entries,
            revision: now.revision,
            opened: self.opened,
            told_at: now.told_at,
            calls: now.calls,
        }
    }
}
