//! The watchers of one stream, each with its own place in the store's history.
//!
//! In: the client's requests, and the store. Out: one response per call, within the bytes
//! that the caller has reserved. It queues nothing: a watcher that falls behind reads the
//! history later, or is cancelled because the history was compacted.

use std::collections::BTreeMap;

use etcd_client::proto as pb;
use pb::PbWatchRequestUnion as Request;

use tokio::sync::OwnedSemaphorePermit;

use super::store::{Change, Span, Store};

/// The most watchers of a stream. A client can watch ten thousand single keys; one that
/// leaks watchers gets an error before each write costs milliseconds.
const WATCHERS_MAX: usize = 10_000;
/// The most revisions read in one call, so that other callers do not wait for the store
/// while a watcher catches up.
const REVISIONS_PER_CALL: usize = 1_000;
/// The length at which a response is cut for a watcher that accepts fragments, as in etcd
/// (its limit for requests), in bytes.
const FRAGMENT: usize = super::REQUEST_MAX;
/// The watch id in an answer to a progress request (rpc.proto).
const ALL_WATCHERS: i64 = -1;
// `WatchCreateRequest.FilterType` in etcd's rpc.proto.
const NO_PUT: i32 = 0;
const NO_DELETE: i32 = 1;

/// All watchers of one stream.
#[derive(Default)]
pub(super) struct Watchers {
    by_id: BTreeMap<i64, Watcher>,
    next_id: i64,
    /// The id of the watcher that is served first. After each response the next watcher is,
    /// so a busy watcher does not starve the others.
    next_served: i64,
    progress_asked: bool,
}

struct Watcher {
    span: Span,
    /// The next revision to read, and the number of its changes that are sent.
    revision: i64,
    done: usize,
    puts: bool,
    deletions: bool,
    previous: bool,
    fragments: bool,
    /// Whether the client wants progress responses while nothing happens, and whether one
    /// is due.
    wants_progress: bool,
    progress_due: bool,
    /// The reservation of its keys' bytes.
    _permit: Option<OwnedSemaphorePermit>,
}

/// The next thing that a stream must do.
pub(super) enum NextStep {
    /// Send this response, and call again.
    Send(pb::PbWatchResponse),
    /// Reserve this many bytes, and call again.
    Needs(usize),
    /// Call again soon: there are more revisions to read.
    Behind,
    /// Wait: all watchers have read the newest revision.
    Idle,
}

impl Watchers {
    /// Handles a client's request. Returns the answer, if there is one at once. A new watcher
    /// takes over `permit`, the reservation for its keys; without one it is refused.
    pub(super) fn handle(
        &mut self,
        request: pb::PbWatchRequest,
        permit: Option<OwnedSemaphorePermit>,
        store: &Store,
    ) -> Option<pb::PbWatchResponse> {
        match request.request_union? {
            Request::CreateRequest(request) => {
                // An empty key means the smallest key, \0.
                let key = if request.key.is_empty() { vec![0] } else { request.key };
                let newest = store.revision();
                let start = request.start_revision;
                let watcher = Watcher {
                    span: Span::new(&key, &request.range_end),
                    revision: if start == 0 { newest + 1 } else { start },
                    done: 0,
                    puts: !request.filters.contains(&NO_PUT),
                    deletions: !request.filters.contains(&NO_DELETE),
                    previous: request.prev_kv,
                    fragments: request.fragment,
                    wants_progress: request.progress_notify,
                    progress_due: false,
                    _permit: permit,
                };
                let added = self.add(request.watch_id, watcher);
                Some(pb::PbWatchResponse {
                    watch_id: added.unwrap_or(-1),
                    created: true,
                    canceled: added.is_err(),
                    cancel_reason: added.err().unwrap_or_default().to_owned(),
                    ..response(newest)
                })
            }
            Request::CancelRequest(request) => {
                self.by_id.remove(&request.watch_id)?;
                Some(pb::PbWatchResponse {
                    watch_id: request.watch_id,
                    canceled: true,
                    ..response(store.revision())
                })
            }
            Request::ProgressRequest(_) => {
                self.progress_asked = true;
                None
            }
        }
    }

    /// Returns whether any watcher wants progress responses.
    pub(super) fn want_progress(&self) -> bool {
        self.by_id.values().any(|watcher| watcher.wants_progress)
    }

    /// Makes a progress response due for each watcher that wants one.
    pub(super) fn progress_is_due(&mut self) {
        for watcher in self.by_id.values_mut() {
            watcher.progress_due = watcher.wants_progress;
        }
    }

    /// Returns the next response, if there is one and its events take at most `room` bytes.
    pub(super) fn next_response(&mut self, store: &Store, room: usize) -> NextStep {
        let later = self.by_id.range_mut(self.next_served..).map(|(&id, watcher)| (id, watcher));
        let mut budget = REVISIONS_PER_CALL;
        let mut step = None;
        for (id, watcher) in later {
            match watcher.step(store, room, &mut budget) {
                Step::Nothing => {}
                other => {
                    step = Some((id, other));
                    break;
                }
            }
        }
        match step {
            Some((id, Step::Response(response))) => {
                self.next_served = after(id);
                NextStep::Send(pb::PbWatchResponse { watch_id: id, ..response })
            }
            Some((id, Step::Compacted)) => {
                self.by_id.remove(&id);
                self.next_served = after(id);
                NextStep::Send(pb::PbWatchResponse {
                    watch_id: id,
                    canceled: true,
                    compact_revision: store.compacted(),
                    ..response(0)
                })
            }
            Some((id, Step::Needs(bytes))) => {
                self.next_served = id;
                NextStep::Needs(bytes)
            }
            Some((id, _)) => {
                self.next_served = id;
                NextStep::Behind
            }
            None if self.next_served > i64::MIN => {
                // The last watcher is served. Start again at the first: only a whole round
                // without a response means that all watchers are up to date.
                self.next_served = i64::MIN;
                NextStep::Behind
            }
            None if self.progress_asked => {
                self.progress_asked = false;
                let watch_id = ALL_WATCHERS;
                NextStep::Send(pb::PbWatchResponse { watch_id, ..response(store.revision()) })
            }
            None => NextStep::Idle,
        }
    }

    fn add(&mut self, wanted: i64, watcher: Watcher) -> Result<i64, &'static str> {
        if watcher.span.is_empty() {
            return Err("mvcc: watcher range is empty");
        }
        if self.by_id.len() >= WATCHERS_MAX || watcher._permit.is_none() {
            return Err("etcdserver: too many watchers");
        }
        let mut id = wanted;
        if id == 0 {
            while self.by_id.contains_key(&self.next_id) {
                self.next_id += 1;
            }
            id = self.next_id;
            self.next_id += 1;
        } else if self.by_id.contains_key(&id) {
            return Err("mvcc: duplicate watch ID provided on the WatchStream");
        }
        self.by_id.insert(id, watcher);
        Ok(id)
    }
}

enum Step {
    Response(pb::PbWatchResponse),
    /// The response needs this many bytes, more than `room`.
    Needs(usize),
    Compacted,
    /// The budget of revisions is used up.
    Behind,
    Nothing,
}

impl Watcher {
    fn step(&mut self, store: &Store, room: usize, budget: &mut usize) -> Step {
        if self.revision < store.compacted() {
            return Step::Compacted;
        }
        while self.revision <= store.revision() {
            if *budget == 0 {
                return Step::Behind;
            }
            *budget -= 1;
            let changes = store.changes(self.revision).unwrap_or_default();
            let (bytes, next) = self.measure(changes, store);
            if bytes > room {
                return Step::Needs(bytes);
            }
            let events = self.events(&changes[..next.unwrap_or(changes.len())], store);
            let at = self.revision;
            match next {
                Some(next) => self.done = next,
                None => (self.revision, self.done) = (at + 1, 0),
            }
            if !events.is_empty() {
                self.progress_due = false;
                let fragment = next.is_some();
                return Step::Response(pb::PbWatchResponse { events, fragment, ..response(at) });
            }
        }
        if std::mem::take(&mut self.progress_due) {
            return Step::Response(response(store.revision()));
        }
        Step::Nothing
    }

    /// Returns the length of the events of one revision that are still to be sent, in bytes,
    /// and the index of the next change if the response is cut into fragments.
    fn measure(&self, changes: &[Change], store: &Store) -> (usize, Option<usize>) {
        let mut bytes = 0;
        for (index, change) in changes.iter().enumerate().skip(self.done) {
            if !self.wants(change) {
                continue;
            }
            let mut length = change.length();
            if self.shows_previous(change) {
                length += store.length_at(&change.key, change.revision() - 1);
            }
            if self.fragments && bytes + length > FRAGMENT && bytes > 0 {
                return (bytes, Some(index));
            }
            bytes += length;
        }
        (bytes, None)
    }

    /// Returns the events that this watcher must get of `changes`, without those already sent.
    fn events(&self, changes: &[Change], store: &Store) -> Vec<pb::PbEvent> {
        let wanted = changes.iter().skip(self.done).filter(|change| self.wants(change));
        let event = |change: &Change| {
            let previous = self.shows_previous(change);
            let prev_kv = previous.then(|| store.at(&change.key, change.revision() - 1)).flatten();
            let r#type = i32::from(!change.is_put());
            pb::PbEvent { r#type, kv: Some(change.to_pb()), prev_kv }
        };
        wanted.map(event).collect()
    }

    fn wants(&self, change: &Change) -> bool {
        let wanted = if change.is_put() { self.puts } else { self.deletions };
        wanted && self.span.contains(&change.key)
    }

    fn shows_previous(&self, change: &Change) -> bool {
        self.previous && !change.is_creation()
    }
}

/// Returns the id that comes next. Clients can choose ids, so the smallest follows the
/// greatest.
fn after(id: i64) -> i64 {
    id.checked_add(1).unwrap_or(i64::MIN)
}

fn response(revision: i64) -> pb::PbWatchResponse {
    let header = Some(pb::PbResponseHeader { revision, ..Default::default() });
    pb::PbWatchResponse { header, ..Default::default() }
}
