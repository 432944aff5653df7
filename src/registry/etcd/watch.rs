//! Checks and interprets the responses of one watch stream. Pure.
//!
//! In: the responses of one stream, in order. Out: for each one, its meaning: a watcher
//! was opened, a sign of life, events of one range, or a violation that ends the
//! stream. It rejects a peer that answers for another cluster, goes back to an older
//! state, or sends what was not asked for.
//!
//! A sign of life is the answer to a watcher that is created on the same stream and
//! canceled when the next is asked for. Every peer answers that; etcd's gRPC proxies answer no progress
//! request, and some panic on one.

use std::collections::HashMap;

use etcd_client::proto::{PbEvent, PbWatchResponse};

use super::connect::EtcdError;
use super::prefixes::Range;

/// One watch stream. At most one new watcher is asked for at a time: proxies choose the
/// ids of watchers as they like, so only the order shows which request an answer
/// belongs to.
#[derive(Debug)]
pub(super) struct Watch {
    cluster: u64,
    /// The greatest revision that the store is known to have had.
    newest: i64,
    ranges: Vec<Range>,
    /// The index of the range that each watcher watches, by the watcher's id.
    ids: HashMap<i64, usize>,
    asked: Option<Ask>,
    /// How many signs of life in a row had an older revision.
    behind: u32,
}

/// A watcher to create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// A watcher of the range with this index.
    Range(usize),
    /// A watcher of a key that is never written: its answer is a sign of life.
    SignOfLife,
}

/// The meaning of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WatchMessage {
    /// No meaning; the response is ignored.
    Nothing,
    /// A range is watched from now on.
    Opened,
    /// A sign of life. The watcher with this id is no longer needed.
    SignOfLife(i64),
    /// A sign of life, but etcd refuses new watchers.
    Denied,
    /// Events of the range with this index.
    Events(usize),
}

/// How many signs of life in a row may have an older revision. A follower behind a
/// proxy may lag by one second for each. A store that stays behind has been replaced by
/// an older one.
const BEHIND_MAX: u32 = 3;

impl Watch {
    /// Starts a stream for these ranges, which were listed at the revision `listed`.
    pub(super) fn new(cluster: u64, listed: i64, ranges: &[Range]) -> Self {
        Self {
            cluster,
            newest: listed,
            ranges: ranges.to_vec(),
            ids: HashMap::new(),
            asked: None,
            behind: 0,
        }
    }

    /// Returns the watcher to ask for now, or `None` while an answer is due.
    pub(super) fn ask(&mut self) -> Option<Ask> {
        if self.asked.is_some() {
            return None;
        }
        let opened = self.ids.len();
        self.asked =
            Some(if opened < self.ranges.len() { Ask::Range(opened) } else { Ask::SignOfLife });
        self.asked
    }

    /// Returns whether all ranges are watched.
    pub(super) fn open(&self) -> bool {
        self.ids.len() == self.ranges.len()
    }

    /// Returns whether an answer is due.
    pub(super) fn awaits_answer(&self) -> bool {
        self.asked.is_some()
    }

    /// Returns whether a range is not watched yet and may be asked for.
    pub(super) fn opening(&self) -> bool {
        self.asked.is_none() && self.ids.len() < self.ranges.len()
    }

    /// Returns the greatest revision that the store is known to have had.
    pub(super) fn newest(&self) -> i64 {
        self.newest
    }

    /// Returns the meaning of a response.
    ///
    /// # Errors
    /// If the response must be rejected, or if etcd canceled the watcher of a range.
    pub(super) fn take(&mut self, response: &PbWatchResponse) -> Result<WatchMessage, EtcdError> {
        // Proxies that answer by themselves leave out the cluster. The rest of such a
        // header is a guess.
        let header = response.header.as_ref().filter(|header| header.cluster_id != 0);
        let revision = header.map(|header| header.revision);
        if let Some(header) = header
            && self.cluster != 0
            && header.cluster_id != self.cluster
        {
            return Err(EtcdError("another etcd cluster answered within a watch".into()));
        }
        if response.created {
            return self.created(response, revision);
        }
        let range = self.ids.get(&response.watch_id).copied();
        if response.canceled {
            return match range {
                Some(_) => Err(canceled(response)),
                // The watcher was created for a sign of life.
                None => Ok(WatchMessage::Nothing),
            };
        }
        if response.events.is_empty() && !response.fragment {
            return Ok(WatchMessage::Nothing);
        }
        let range = range.ok_or_else(|| EtcdError("events of an unknown watcher".into()))?;
        for event in &response.events {
            self.check(event, range, revision)?;
        }
        Ok(WatchMessage::Events(range))
    }

    fn created(
        &mut self,
        response: &PbWatchResponse,
        at: Option<i64>,
    ) -> Result<WatchMessage, EtcdError> {
        match self.asked.take() {
            None => Err(EtcdError("a watcher that was not asked for".into())),
            Some(Ask::Range(_)) if response.canceled => Err(canceled(response)),
            Some(Ask::Range(range)) => match self.ids.insert(response.watch_id, range) {
                None => Ok(WatchMessage::Opened),
                Some(_) => Err(EtcdError("two watchers have the same id".into())),
            },
            Some(Ask::SignOfLife) => {
                self.look_back(at)?;
                let denied = response.canceled;
                Ok(if denied {
                    WatchMessage::Denied
                } else {
                    WatchMessage::SignOfLife(response.watch_id)
                })
            }
        }
    }

    /// Checks that the store is not older than it was.
    fn look_back(&mut self, at: Option<i64>) -> Result<(), EtcdError> {
        let Some(at) = at else { return Ok(()) };
        self.behind = if at < self.newest { self.behind + 1 } else { 0 };
        if self.behind >= BEHIND_MAX {
            let newest = self.newest;
            return Err(EtcdError(format!("etcd went back from revision {newest} to {at}")));
        }
        self.newest = self.newest.max(at);
        Ok(())
    }

    fn check(&mut self, event: &PbEvent, range: usize, at: Option<i64>) -> Result<(), EtcdError> {
        let Some(kv) = &event.kv else { return Ok(()) };
        if !self.ranges[range].contains(&kv.key) {
            return Err(EtcdError("an event of a key that is not watched".into()));
        }
        let revision = kv.mod_revision;
        if at.is_some_and(|at| revision > at) {
            return Err(EtcdError(format!("an event of the future, of revision {revision}")));
        }
        self.newest = self.newest.max(revision);
        Ok(())
    }
}

/// Returns the error for a watcher that etcd canceled. etcd creates a watcher at a
/// compacted revision, cancels it, and then stays silent for ever.
fn canceled(response: &PbWatchResponse) -> EtcdError {
    match (response.cancel_reason.as_str(), response.compact_revision) {
        ("", 0) => EtcdError("etcd canceled the watch".into()),
        ("", revision) => EtcdError(format!("etcd canceled the watch: compacted at {revision}")),
        (reason, _) => EtcdError(format!("etcd canceled the watch: {reason}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etcd_client::proto::{PbKeyValue, PbResponseHeader};

    fn range(start: &str, end: &str) -> Range {
        Range { start: start.into(), end: end.into() }
    }

    fn response(cluster_id: u64, revision: i64, watch_id: i64) -> PbWatchResponse {
        let header = Some(PbResponseHeader { cluster_id, revision, ..Default::default() });
        PbWatchResponse { header, watch_id, ..Default::default() }
    }

    fn created(cluster_id: u64, revision: i64, watch_id: i64) -> PbWatchResponse {
        PbWatchResponse { created: true, ..response(cluster_id, revision, watch_id) }
    }

    fn event(watch_id: i64, revision: i64, key: &str, mod_revision: i64) -> PbWatchResponse {
        let kv = PbKeyValue { key: key.into(), mod_revision, ..Default::default() };
        let event = PbEvent { kv: Some(kv), ..Default::default() };
        PbWatchResponse { events: vec![event], ..response(7, revision, watch_id) }
    }

    /// A stream of cluster 7, listed at revision 10. Watchers 0 and 1 watch its ranges.
    fn open() -> Watch {
        let mut watch = Watch::new(7, 10, &[range("/a/", "/a0"), range("/b/", "/b0")]);
        for n in 0..2_usize {
            assert!(watch.opening());
            assert_eq!(watch.ask(), Some(Ask::Range(n)));
            assert_eq!(watch.ask(), None, "one at a time");
            let id = i64::try_from(n).unwrap();
            assert_eq!(watch.take(&created(7, 10, id)).unwrap(), WatchMessage::Opened);
        }
        assert!(!watch.opening());
        watch
    }

    #[track_caller]
    fn check(watch: &mut Watch, response: &PbWatchResponse, expected: Result<WatchMessage, &str>) {
        let found = watch.take(response).map_err(|trouble| trouble.to_string());
        assert_eq!(found, expected.map_err(str::to_owned));
    }

    #[test]
    fn ranges_are_opened_one_after_the_other_and_then_life_is_asked_for() {
        let mut watch = open();
        check(&mut watch, &event(1, 12, "/b/x", 11), Ok(WatchMessage::Events(1)));
        check(&mut watch, &response(7, 12, -1), Ok(WatchMessage::Nothing));
        assert_eq!(watch.ask(), Some(Ask::SignOfLife));
        check(&mut watch, &event(0, 12, "/a/x", 12), Ok(WatchMessage::Events(0)));
        check(&mut watch, &created(7, 15, 2), Ok(WatchMessage::SignOfLife(2)));
        assert_eq!(watch.newest(), 15);
        let gone = PbWatchResponse { canceled: true, ..response(7, 12, 2) };
        check(&mut watch, &gone, Ok(WatchMessage::Nothing));
        assert_eq!(watch.ask(), Some(Ask::SignOfLife));
        let denied = PbWatchResponse { canceled: true, ..created(7, 15, -1) };
        check(&mut watch, &denied, Ok(WatchMessage::Denied));
    }

    #[test]
    fn what_must_not_be_believed_ends_the_stream() {
        let foreign = Err("another etcd cluster answered within a watch");
        check(&mut open(), &event(0, 12, "/a/x", 12), Ok(WatchMessage::Events(0)));
        check(&mut open(), &response(8, 12, 0), foreign);
        check(&mut open(), &event(5, 12, "/a/x", 12), Err("events of an unknown watcher"));
        check(&mut open(), &event(0, 12, "/b/x", 12), Err("an event of a key that is not watched"));
        let future = "an event of the future, of revision 9223372036854775807";
        check(&mut open(), &event(0, 12, "/a/x", i64::MAX), Err(future));
        check(&mut open(), &created(7, 12, 3), Err("a watcher that was not asked for"));
        let mut watch = Watch::new(7, 10, &[range("/a/", "/a0"), range("/b/", "/b0")]);
        watch.ask();
        check(&mut watch, &created(7, 10, 0), Ok(WatchMessage::Opened));
        watch.ask();
        check(&mut watch, &created(7, 10, 0), Err("two watchers have the same id"));
        let canceled = PbWatchResponse { canceled: true, ..response(7, 12, 0) };
        check(&mut open(), &canceled, Err("etcd canceled the watch"));
        let compacted = PbWatchResponse { compact_revision: 9, ..canceled };
        check(&mut open(), &compacted, Err("etcd canceled the watch: compacted at 9"));
    }

    #[test]
    fn a_store_that_stays_behind_is_an_older_one() {
        let mut watch = open();
        let mut life = |at: i64, expected| {
            assert_eq!(watch.ask(), Some(Ask::SignOfLife));
            check(&mut watch, &created(7, at, 2), expected);
        };
        life(20, Ok(WatchMessage::SignOfLife(2)));
        life(19, Ok(WatchMessage::SignOfLife(2)));
        life(19, Ok(WatchMessage::SignOfLife(2)));
        life(20, Ok(WatchMessage::SignOfLife(2)));
        life(5, Ok(WatchMessage::SignOfLife(2)));
        life(6, Ok(WatchMessage::SignOfLife(2)));
        life(7, Err("etcd went back from revision 20 to 7"));
    }

    /// One event with the greatest number would make all later ones look old.
    #[test]
    fn a_revision_that_cannot_be_is_found_out() {
        let mut watch = open();
        check(&mut watch, &event(0, i64::MAX, "/a/x", i64::MAX), Ok(WatchMessage::Events(0)));
        for _ in 0..2 {
            watch.ask();
            check(&mut watch, &created(7, 12, 2), Ok(WatchMessage::SignOfLife(2)));
        }
        watch.ask();
        assert!(watch.take(&created(7, 12, 2)).is_err());
    }

    #[test]
    fn the_guesses_of_a_proxy_are_not_taken_for_revisions() {
        let mut watch = open();
        for _ in 0..5 {
            watch.ask();
            check(&mut watch, &created(0, 1, 2), Ok(WatchMessage::SignOfLife(2)));
        }
        assert_eq!(watch.newest(), 10);
    }
}
