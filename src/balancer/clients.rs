//! The table of open streams, and what each was last sent.
//!
//! In: a row per stream, removed when the stream is dropped, however it ends. Out:
//! [`ClientView`]s and [`SentList`]s for the admin port. A push touches only its own row, never
//! the table.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use lookaside_http2::GracefulClose;

use crate::load::Calls;
use crate::model::{ClientIdentity, ClientKind, ServiceName, Subset};
use crate::streams::held_bytes::{HeldBytes, WeakHeldBytes};
use crate::streams::shared_texts::SharedTexts;
use crate::telemetry::{ClientView, SentList, Told};

use super::cycle::Window;
use super::encode::{self, EncodedList};
use super::session::Push;
use super::views::View;

/// The rows of all open streams.
#[derive(Default)]
pub(super) struct Clients {
    rows: DashMap<u64, Arc<Row>>,
    next: AtomicU64,
    /// The user agents and the names of all rows.
    pub(super) texts: SharedTexts,
}

/// The client at the other end of a stream.
pub(super) struct Peer {
    pub(super) identity: ClientIdentity,
    pub(super) user_agent: Arc<str>,
    pub(super) kind: ClientKind,
    pub(super) name: Arc<str>,
}

/// A stream's row. It is removed when this is dropped.
pub(super) struct ClientRow {
    table: Arc<Clients>,
    id: u64,
    row: Arc<Row>,
}

/// A stream that holds a list although there is a newer one.
struct Behind {
    since: Instant,
    pushed_at: Instant,
    list: Arc<HeldBytes>,
    row: Arc<Row>,
}

struct Row {
    peer: Peer,
    opened: Instant,
    view: Arc<View>,
    /// Ends the client's connection.
    close: Arc<GracefulClose>,
    now: Mutex<Now>,
}

/// A client that has not read a newer list after this time never will, although its
/// connection is alive. Its connection is ended, so that it connects again.
const STALLED_MAX: Duration = Duration::from_secs(60);
/// How long a stream must have been behind before its connection may be ended to free
/// memory. A client that reads has long taken the next list by then.
const BEHIND_MIN: Duration = Duration::from_secs(1);

struct Now {
    service: Option<ServiceName>,
    told: Told,
    entries: u32,
    revision: i64,
    pushed_at: Instant,
    calls: Calls,
    /// The newest version of its view that it has seen; 0 at first.
    seen: u64,
    /// Since when its view has had a newer version.
    behind_since: Option<Instant>,
    /// The list that it was sent, and which part of it.
    held: WeakHeldBytes,
    window: Window,
    /// Whether its connection has been asked to end.
    close_requested: bool,
    /// The subset of the backends that its list has; `None`: all.
    subset: Option<Subset>,
}

impl Clients {
    /// Returns the number of open streams.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Adds a row for a stream that opens now.
    pub(super) fn register(
        self: &Arc<Self>,
        peer: Peer,
        view: Arc<View>,
        close: Arc<GracefulClose>,
        opened: Instant,
    ) -> ClientRow {
        let now = Now {
            service: None,
            told: Told::Nothing,
            entries: 0,
            revision: 0,
            pushed_at: opened,
            calls: Calls::default(),
            seen: 0,
            behind_since: None,
            held: WeakHeldBytes::default(),
            window: Window::default(),
            close_requested: false,
            subset: None,
        };
        let row = Arc::new(Row { peer, opened, view, close, now: Mutex::new(now) });
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.rows.insert(id, row.clone());
        ClientRow { table: self.clone(), id, row }
    }

    /// Ends the connections of stalled streams. Returns how many streams these are.
    pub(super) fn sweep(&self, now: Instant) -> usize {
        self.rows.iter().filter(|row| row.close_if_stalled(now)).count()
    }

    /// Ends the connections of streams with superseded lists, those first that have been
    /// behind for longest, until the others hold at most `max` bytes. Returns how many
    /// streams these are.
    pub(super) fn free_memory(&self, now: Instant, max: usize) -> usize {
        let mut behind: Vec<_> = self.rows.iter().filter_map(|row| row.behind(now)).collect();
        // Of streams that came behind together, the one that was sent its list first
        // comes first.
        behind.sort_unstable_by_key(|behind| (behind.since, behind.pushed_at));
        let mut holders: HashMap<*const HeldBytes, usize> = HashMap::new();
        let mut held = 0;
        for Behind { list, .. } in &behind {
            let holders = holders.entry(Arc::as_ptr(list)).or_default();
            held += if *holders == 0 { list.bytes.len() } else { 0 };
            *holders += 1;
        }
        let mut gone = 0;
        for Behind { list, since, row, .. } in behind {
            if held <= max || now.saturating_duration_since(since) < BEHIND_MIN {
                break;
            }
            row.request_close();
            gone += 1;
            if let Some(holders) = holders.get_mut(&Arc::as_ptr(&list)) {
                *holders -= 1;
                held -= if *holders == 0 { list.bytes.len() } else { 0 };
            }
        }
        gone
    }

    /// Returns every open stream, the oldest first.
    pub(super) fn view(&self) -> Vec<ClientView> {
        let mut rows: Vec<_> =
            self.rows.iter().map(|row| (*row.key(), row.value().clone())).collect();
        rows.sort_unstable_by_key(|&(id, _)| id);
        rows.iter().map(|(id, row)| row.view(*id)).collect()
    }

    /// Returns the list that a stream was sent last; `None` if it is not open.
    pub(super) fn sent(&self, id: u64) -> Option<SentList> {
        let row = self.rows.get(&id)?.value().clone();
        Some(row.sent())
    }
}

impl ClientRow {
    pub(super) fn kind(&self) -> ClientKind {
        self.row.peer.kind
    }

    /// Returns the client's address.
    pub(super) fn ip(&self) -> IpAddr {
        self.row.peer.identity.addr.ip()
    }

    /// Returns who the client is.
    pub(super) fn identity(&self) -> &ClientIdentity {
        &self.row.peer.identity
    }

    /// Returns whether the client may no longer be served, whatever it asks for.
    pub(super) fn is_refused(&self) -> bool {
        self.row.close.is_refused()
    }

    /// Records that the stream has seen this version.
    pub(super) fn note_seen(&self, version: u64, subset: Option<Subset>) {
        let mut now = self.row.now.lock().unwrap_or_else(PoisonError::into_inner);
        now.seen = version;
        now.subset = subset;
        now.behind_since = None;
    }

    /// Records that the stream has seen this version and was sent a new message.
    pub(super) fn pushed(
        &self,
        version: u64,
        push: &Push,
        service_and_revision: Option<(&ServiceName, i64)>,
        subset: Option<Subset>,
        at: Instant,
    ) {
        let mut now = self.row.now.lock().unwrap_or_else(PoisonError::into_inner);
        now.seen = version;
        now.subset = subset;
        now.behind_since = None;
        now.told = push.told;
        now.entries = push.entries;
        now.pushed_at = at;
        (now.held, now.window) = (push.held.clone(), push.window);
        match service_and_revision {
            Some((service, revision)) => {
                now.revision = revision;
                if now.service.as_ref() != Some(service) {
                    now.service = Some(service.clone());
                }
            }
            None => now.service = None,
        }
    }

    /// Adds a client's report. Returns the service to count it for.
    pub(super) fn add_report(&self, calls: Calls) -> Option<ServiceName> {
        let mut now = self.row.now.lock().unwrap_or_else(PoisonError::into_inner);
        now.calls.add(calls);
        now.service.clone()
    }
}

impl Drop for ClientRow {
    fn drop(&mut self) {
        self.table.rows.remove(&self.id);
    }
}

impl Row {
    fn close_if_stalled(&self, at: Instant) -> bool {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if now.seen == self.view.version() {
            now.behind_since = None;
            return false;
        }
        let since = *now.behind_since.get_or_insert(at);
        let stalled = at.saturating_duration_since(since) >= STALLED_MAX;
        if stalled && !std::mem::replace(&mut now.close_requested, true) {
            self.close.request();
            return true;
        }
        false
    }

    fn behind(self: &Arc<Self>, at: Instant) -> Option<Behind> {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if now.seen == self.view.version() {
            now.behind_since = None;
            return None;
        }
        let since = *now.behind_since.get_or_insert(at);
        let list = now.held.upgrade()?;
        (!now.close_requested).then(|| Behind {
            since,
            pushed_at: now.pushed_at,
            list,
            row: self.clone(),
        })
    }

    fn request_close(&self) {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).close_requested = true;
        self.close.request();
    }

    fn sent(&self) -> SentList {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let (told, held, window) = (now.told, now.held.clone(), now.window);
        drop(now);
        let entries = match told {
            Told::List => held.upgrade().map(|list| encode::shown(&list.bytes, window)),
            Told::Unreachable => Some(EncodedList::unreachable().shown()),
            Told::Drop => Some(EncodedList::drop_all().shown()),
            _ => Some(Vec::new()),
        };
        SentList { entries }
    }

    fn view(&self, stream: u64) -> ClientView {
        let zone = self.view.client_zone(self.peer.identity.addr.ip());
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        ClientView {
            stream,
            peer: self.peer.identity.addr,
            certificate: self.peer.identity.certificate.clone(),
            user_agent: self.peer.user_agent.clone(),
            kind: self.peer.kind,
            name: self.peer.name.clone(),
            zone,
            subset: now.subset,
            service: now.service.clone(),
            told: now.told,
            entries: now.entries as usize,
            revision: now.revision,
            opened: self.opened,
            pushed_at: now.pushed_at,
            calls: now.calls,
            xds: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use lookaside_http2::Pieces;

    use super::super::views::Views;
    use super::*;
    use crate::catalog::Catalog;
    use crate::model::{Target, Zone};
    use crate::streams::held_bytes::count_held;
    use crate::telemetry::Counters;

    /// A connection's task and its socket are stored at multiples of 128 bytes, so that a step
    /// of 16 bytes more here can take 128 bytes more for each stream.
    const ROW_MAX: usize = 264;

    #[test]
    fn a_row_takes_no_further_step_of_memory() {
        assert!(size_of::<Row>() <= ROW_MAX, "{} bytes", size_of::<Row>());
    }

    #[test]
    fn connections_that_held_old_lists_for_longest_are_closed_first() {
        let counters: Arc<Counters> = Arc::default();
        let views = Views::new(Catalog::new(), counters.clone());
        let target = Target::parse("hello", &Zone::new("zone").unwrap()).unwrap();
        let view = views.view(&target).unwrap();
        let clients: Arc<Clients> = Arc::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let open = |version, held: &WeakHeldBytes| {
            let addr: std::net::SocketAddr = "192.0.2.1:1".parse().unwrap();
            let kind = ClientKind::Go;
            let peer = Peer { identity: addr.into(), user_agent: "".into(), kind, name: "".into() };
            let close: Arc<GracefulClose> = Arc::default();
            let client = clients.register(peer, view.clone(), close.clone(), start);
            let (message, held) = (Pieces::default(), held.clone());
            let push =
                Push { message, told: Told::List, entries: 1, held, window: Window::default() };
            client.pushed(version, &push, None, None, start);
            (client, close)
        };
        let list = |_| count_held(vec![7; 1_000].into(), &counters, |all| &all.list_bytes);
        let lists: Vec<_> = (0..4).map(list).collect();
        // Two streams hold each of three old lists, and come behind one after the other.
        let mut old = Vec::new();
        for n in 0..6 {
            old.push(open(view.version() + 1, &lists[n / 2].1));
            assert_eq!(clients.free_memory(at(n as u64), 3_000), 0);
        }
        let newest = open(view.version(), &lists[3].1);
        // No more than needed, and none that came behind less than a second ago.
        assert_eq!(clients.free_memory(at(5), 1_500), 4);
        assert_eq!(clients.free_memory(at(5), 0), 1);
        assert_eq!(clients.free_memory(at(10), 1_000), 0);
        assert_eq!(clients.free_memory(at(10), 999), 1);
        let asked = |all: &[(ClientRow, Arc<GracefulClose>)]| {
            all.iter().map(|(_, close)| close.is_requested()).collect::<Vec<_>>()
        };
        assert_eq!((asked(&old), asked(&[newest])), (vec![true; 6], vec![false]));
        drop(lists);
        assert_eq!(counters.list_bytes.now(), 0);
    }
}
