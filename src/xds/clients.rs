//! The table of open xDS streams, and what each was last sent.
//!
//! In: a row per stream, removed when the stream is dropped, however it ends. Out:
//! [`ClientView`]s for the admin port, one for each name that a stream wants, and what one of
//! them was sent. A push touches only its own row, never the table.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lookaside_http2::{GracefulClose, Pieces};

use crate::load::Calls;
use crate::model::{ClientIdentity, ClientKind, ServiceName, Subset};
use crate::streams::held_bytes::{WeakHeldBytes, count_held};
use crate::streams::shared_texts::SharedTexts;
use crate::telemetry::{ClientView, Counters, SentResources, Told, WantedNames, XdsView};

use super::assignment::Assignment;
use super::resources::{Kind, plain_shared_name};
use super::session::{Push, Verdict};
use super::watches::{StreamWatch, Watch, Watches};

mod sent;

/// The rows of all open streams.
#[derive(Default)]
pub(super) struct Clients {
    rows: Mutex<Rows>,
    /// The user agents and the names of all rows.
    pub(super) texts: SharedTexts,
}

#[derive(Default)]
struct Rows {
    by_number: HashMap<u64, Arc<Row>>,
    next: u64,
}

/// The client at the other end of a stream.
pub(super) struct Peer {
    pub(super) identity: ClientIdentity,
    pub(super) user_agent: Arc<str>,
    pub(super) kind: ClientKind,
    /// The zone in which it says that it is.
    pub(super) zone: Option<Arc<str>>,
}

/// A stream's row. It is removed when this is dropped.
pub(super) struct ClientRow {
    table: Arc<Clients>,
    number: u64,
    row: Arc<Row>,
}

struct Row {
    peer: Peer,
    opened: Instant,
    /// Ends the client's connection.
    close: Arc<GracefulClose>,
    now: Mutex<Now>,
}

struct Now {
    /// What was sent for each name, sorted by name.
    names: Vec<NameRow>,
    /// What was sent of each type.
    sent: [Sent; Kind::ALL.len()],
    /// Since when a response with assignments has had no answer.
    unanswered_since: Option<Instant>,
    /// Since when there has been something newer than that response.
    behind_since: Option<Instant>,
    /// The newest response of each type, if it is long and not shared. In a box, because
    /// hardly any is.
    long: Option<Box<[WeakHeldBytes; Kind::ALL.len()]>>,
    /// Whether its connection has been asked to end.
    close_requested: bool,
}

/// The newest response of a type, and what the client says of it.
#[derive(Clone, Default)]
struct Sent {
    /// Its version and nonce; the nonce is 0 before the first response.
    version: u64,
    nonce: u64,
    /// Whether the client has not answered it.
    unanswered: bool,
    /// The version of the newest response that it accepted. Never 0, so that the absence of it
    /// takes no room.
    accepted: Option<NonZeroU64>,
    /// Its words about the newest response that it refused, until it accepts one.
    refusal: Option<Arc<str>>,
}

struct NameRow {
    name: Arc<str>,
    watch: Option<Arc<Watch>>,
    /// The calls that the client has reported of the name.
    calls: Option<Arc<Mutex<Calls>>>,
    /// The newest meaning of the name that the stream has seen.
    seen: u64,
    service: Option<ServiceName>,
    subset: Option<Subset>,
    revision: i64,
    told: Told,
    backends: u32,
    pushed_at: Instant,
    /// The version of its assignment.
    version: u64,
    held: WeakHeldBytes,
}

/// A client that has not answered for this long, while there is something newer, never
/// will. Its connection is ended, so that it connects again.
const STALLED_MAX: Duration = Duration::from_secs(60);
/// A response with more bytes of its own, listeners of some hundred names, counts as held while
/// the client has not taken it.
const LONG: usize = 64 * 1024;
/// How long a stream must have been behind before its connection may be ended to free
/// memory. A client that reads has long taken the next assignment by then.
const BEHIND_MIN: Duration = Duration::from_secs(1);

impl Clients {
    /// Returns the number of open streams.
    pub(super) fn len(&self) -> usize {
        self.lock().by_number.len()
    }

    /// Adds a row for a stream that opens now.
    pub(super) fn register(
        self: &Arc<Self>,
        peer: Peer,
        close: Arc<GracefulClose>,
        opened: Instant,
    ) -> ClientRow {
        let now = Now {
            names: Vec::new(),
            sent: Default::default(),
            unanswered_since: None,
            behind_since: None,
            long: None,
            close_requested: false,
        };
        let row = Arc::new(Row { peer, opened, close, now: Mutex::new(now) });
        let mut rows = self.lock();
        let number = rows.next;
        rows.next += 1;
        rows.by_number.insert(number, row.clone());
        drop(rows);
        ClientRow { table: self.clone(), number, row }
    }

    /// Ends the connections of stalled streams. Returns how many streams these are.
    pub(super) fn sweep(&self, now: Instant) -> usize {
        self.all().iter().filter(|(_, row)| row.close_if_behind(now, STALLED_MAX)).count()
    }

    /// Ends the connections of streams that hold a superseded assignment: of a quarter of
    /// them, those first that have been behind for longest. Returns how many streams these
    /// are.
    pub(super) fn free_memory(&self, now: Instant) -> usize {
        let rows = self.all();
        let mut behind: Vec<_> = rows
            .iter()
            .filter_map(|(_, row)| Some((row.behind_since(now)?, row)))
            .filter(|(since, _)| now.saturating_duration_since(*since) >= BEHIND_MIN)
            .collect();
        behind.sort_unstable_by_key(|&(since, _)| since);
        let quarter = behind.len().div_ceil(4);
        behind[..quarter].iter().filter(|(_, row)| row.close_if_behind(now, BEHIND_MIN)).count()
    }

    /// Returns every name on every open stream, the oldest stream first.
    pub(super) fn view(&self) -> Vec<ClientView> {
        self.all().iter().flat_map(|(number, row)| row.views(*number)).collect()
    }

    /// Returns what a stream was sent last; `None` if it is not open.
    pub(super) fn sent(
        &self,
        number: u64,
        wanted: &WantedNames,
        watches: &Watches,
    ) -> Option<SentResources> {
        let row = self.lock().by_number.get(&number)?.clone();
        Some(row.sent(wanted, watches))
    }

    fn all(&self) -> Vec<(u64, Arc<Row>)> {
        let mut all: Vec<_> =
            self.lock().by_number.iter().map(|(n, row)| (*n, row.clone())).collect();
        all.sort_unstable_by_key(|&(number, _)| number);
        all
    }

    fn lock(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientRow {
    pub(super) fn peer(&self) -> &Peer {
        &self.row.peer
    }

    /// Returns whether the client may no longer be served, whatever it asks for.
    pub(super) fn is_refused(&self) -> bool {
        self.row.close.is_refused()
    }

    /// Sets the names that the client wants.
    pub(super) fn want(&self, names: &[Arc<str>], at: Instant) {
        let mut now = self.row.lock();
        let mut old = std::mem::take(&mut now.names).into_iter().peekable();
        // Most streams have one name, and a vector would make room for four.
        now.names.reserve_exact(names.len());
        for name in names {
            while old.next_if(|old| *old.name < **name).is_some() {}
            let kept = old.next_if(|old| old.name == *name);
            now.names.push(kept.unwrap_or_else(|| NameRow::new(name.clone(), at)));
        }
    }

    /// Records what a name means now, before it is sent.
    pub(super) fn seen(
        &self,
        name: &str,
        watch: &StreamWatch,
        version: u64,
        service: Option<(ServiceName, i64)>,
    ) {
        let mut now = self.row.lock();
        let Some(row) = now.name(name) else { return };
        row.seen = version;
        row.watch = watch.shared().cloned();
        row.subset = watch.subset();
        row.calls = watch.calls().cloned();
        (row.service, row.revision) = match service {
            Some((service, revision)) => (Some(service), revision),
            None => (None, 0),
        };
    }

    /// Records that a response is sent. Returns its bytes, which count as held while the
    /// client has not taken them, if they are many and not shared.
    pub(super) fn pushed(&self, push: Push, counters: &Arc<Counters>, at: Instant) -> Pieces {
        let Push { kind, pieces: [own, shared, end], version, nonce, assignments } = push;
        let mut now = self.row.lock();
        let (own, held) = match own.len() {
            ..LONG => (own, WeakHeldBytes::default()),
            _ => count_held(own, counters, |all| &all.assignment_bytes),
        };
        if own.len() >= LONG || now.long.is_some() {
            now.long.get_or_insert_default()[kind as usize] = held;
        }
        let sent = &mut now.sent[kind as usize];
        (sent.version, sent.nonce, sent.unanswered) = (version, nonce, true);
        if kind == Kind::Endpoints {
            now.unanswered_since = Some(at);
            now.behind_since = None;
        }
        for (name, assignment) in &assignments {
            if let Some(row) = now.name(name) {
                row.pushed(assignment, at);
            }
        }
        [own, shared, end].into()
    }

    /// Records what the client says of the newest response of a type.
    pub(super) fn answered(&self, kind: Kind, verdict: &Verdict) {
        let mut now = self.row.lock();
        let sent = &mut now.sent[kind as usize];
        match verdict {
            Verdict::None => return,
            Verdict::Refused(words) => sent.refusal = Some(words.as_str().into()),
            Verdict::Accepted => {
                (sent.accepted, sent.refusal) = (NonZeroU64::new(sent.version.max(1)), None);
            }
        }
        sent.unanswered = false;
        if kind == Kind::Endpoints {
            (now.unanswered_since, now.behind_since) = (None, None);
        }
    }
}

impl Drop for ClientRow {
    fn drop(&mut self) {
        self.table.lock().by_number.remove(&self.number);
    }
}

impl Row {
    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns since when the client has not read something newer.
    fn behind_since(&self, at: Instant) -> Option<Instant> {
        let mut now = self.lock();
        let newer = |row: &NameRow| row.watch.as_ref().is_some_and(|one| one.version() != row.seen);
        let behind =
            now.long.iter().flat_map(|all| all.iter()).any(|long| long.upgrade().is_some())
                || now.unanswered_since.is_some() && now.names.iter().any(newer);
        now.behind_since = behind.then(|| now.behind_since.unwrap_or(at));
        now.behind_since.filter(|_| !now.close_requested)
    }

    fn close_if_behind(&self, at: Instant, least: Duration) -> bool {
        let since = self.behind_since(at);
        let ended = since.is_some_and(|since| at.saturating_duration_since(since) >= least);
        if ended {
            self.lock().close_requested = true;
            self.close.request();
        }
        ended
    }

    fn views(&self, stream: u64) -> Vec<ClientView> {
        let now = self.lock();
        let endpoints = &now.sent[Kind::Endpoints as usize];
        // Of several refused types, the one that was sent last.
        let refused = now.sent.iter().filter(|sent| sent.refusal.is_some());
        let xds = XdsView {
            stated_zone: self.peer.zone.clone(),
            sent: endpoints.newest(),
            accepted: endpoints.accepted.map(NonZeroU64::get),
            refusal: refused.max_by_key(|sent| sent.nonce).and_then(|sent| sent.refusal.clone()),
        };
        let view = |row: &NameRow| ClientView {
            stream,
            peer: self.peer.identity.addr,
            certificate: self.peer.identity.certificate.clone(),
            user_agent: self.peer.user_agent.clone(),
            kind: self.peer.kind,
            name: row.name.clone(),
            target: plain_shared_name(&row.name),
            zone: row.watch.as_ref().and_then(|watch| watch.client_zone(&self.peer)),
            subset: row.subset,
            service: row.service.clone(),
            told: row.told,
            entries: row.backends as usize,
            revision: row.revision,
            opened: self.opened,
            pushed_at: row.pushed_at,
            calls: row.calls(),
            xds: Some(xds.clone()),
        };
        now.names.iter().map(view).collect()
    }
}

impl Now {
    fn name(&mut self, name: &str) -> Option<&mut NameRow> {
        let at = self.names.binary_search_by(|row| (*row.name).cmp(name)).ok()?;
        Some(&mut self.names[at])
    }
}

impl Sent {
    /// Returns the version of the newest response; `None` before the first.
    fn newest(&self) -> Option<u64> {
        (self.nonce > 0).then_some(self.version)
    }
}

impl NameRow {
    fn new(name: Arc<str>, at: Instant) -> Self {
        Self {
            name,
            watch: None,
            calls: None,
            seen: 0,
            service: None,
            subset: None,
            revision: 0,
            told: Told::Nothing,
            backends: 0,
            pushed_at: at,
            version: 0,
            held: WeakHeldBytes::default(),
        }
    }

    /// Returns the calls that the client has reported of the name.
    fn calls(&self) -> Calls {
        let Some(calls) = &self.calls else { return Calls::default() };
        *calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pushed(&mut self, assignment: &Assignment, at: Instant) {
        self.told = assignment.told;
        self.backends = u32::try_from(assignment.backends).unwrap_or(u32::MAX);
        self.pushed_at = at;
        self.version = assignment.version;
        self.held = assignment.held.clone();
    }
}
