//! Watch responses → changes by revision. Pure.
//!
//! In: the responses of one watch stream in order. Out: all changes of each
//! revision together, once. Never hands out a part of a revision that etcd cut
//! into fragments, nor a revision twice.

use std::collections::HashMap;

use etcd_client::proto::{PbEvent, PbWatchResponse};

use super::prefixes::Prefixes;
use crate::registry::{Cause, Change, Key};

/// All that happened at one revision.
#[derive(Debug, PartialEq)]
pub(super) struct Batch {
    pub(super) revision: i64,
    pub(super) changes: Vec<Change>,
    /// Keys that went, each with the lease it hung on: whether that lives
    /// on tells a deregistration from an expiry.
    pub(super) leases: Vec<(Key, i64)>,
    /// What those whose lease lives on went by.
    pub(super) otherwise: Cause,
}

/// What one watch stream has said so far.
#[derive(Debug)]
pub(super) struct Batches {
    listed: i64,
    watchers: HashMap<i64, Watcher>,
}

#[derive(Debug)]
struct Watcher {
    /// The last revision handed out. Only events count: up to 3.5.7 and 3.4.24
    /// etcd's progress answers can run ahead of events still to come.
    last: i64,
    /// Fragments whose end has not arrived.
    parts: Vec<PbEvent>,
}

/// etcd's `mvccpb.Event.EventType.DELETE`.
const DELETE: i32 = 1;

impl Batches {
    /// For watchers that start right after this revision.
    pub(super) fn after(listed: i64) -> Self {
        Self { listed, watchers: HashMap::new() }
    }

    /// The changes that are complete with this response, revision by revision.
    pub(super) fn take(&mut self, response: PbWatchResponse, prefixes: &Prefixes) -> Vec<Batch> {
        let new = || Watcher { last: self.listed, parts: Vec::new() };
        let watcher = self.watchers.entry(response.watch_id).or_insert_with(new);
        watcher.parts.extend(response.events);
        if response.fragment {
            return Vec::new();
        }
        let last = watcher.last;
        let new = |event: &PbEvent| event.kv.as_ref().is_some_and(|kv| kv.mod_revision > last);
        let events: Vec<_> = std::mem::take(&mut watcher.parts).into_iter().filter(new).collect();
        let revision = |event: &PbEvent| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
        let batches: Vec<Batch> = events
            .chunk_by(|a, b| revision(a) == revision(b))
            .map(|events| batch(revision(&events[0]), events, prefixes))
            .collect();
        watcher.last = batches.last().map_or(last, |batch| batch.revision);
        batches
    }
}

fn batch(revision: i64, events: &[PbEvent], prefixes: &Prefixes) -> Batch {
    // `None` when etcd no longer knows what was there.
    let lease = |event: &PbEvent| event.prev_kv.as_ref().map(|kv| kv.lease);
    let mut gone = events.iter().filter(|event| event.r#type == DELETE).map(lease);
    // A process takes back its own key, or all that hang on its lease.
    let first = gone.next();
    let own = match first {
        Some(Some(0)) => gone.next().is_none(),
        first => gone.all(|lease| Some(lease) == first),
    };
    let otherwise = if own { Cause::Deregistered } else { Cause::Swept };
    let mut batch = Batch { revision, changes: Vec::new(), leases: Vec::new(), otherwise };
    for event in events {
        let Some(kv) = &event.kv else { continue };
        batch.changes.push(match (event.r#type, lease(event)) {
            (DELETE, Some(0)) => Change::Delete(Key::new(&kv.key), otherwise),
            (DELETE, lease) => {
                let key = Key::new(&kv.key);
                batch.leases.extend(lease.map(|lease| (key.clone(), lease)));
                Change::Delete(key, Cause::InDoubt)
            }
            _ => Change::Put(prefixes.entry(&kv.key, &kv.value, kv.lease)),
        });
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::record::{Format, Prefix};
    use etcd_client::proto::PbKeyValue;

    fn event(r#type: i32, key: &str, mod_revision: i64) -> PbEvent {
        let value = if r#type == DELETE { vec![] } else { b"10.0.0.1:1".to_vec() };
        let kv = PbKeyValue { key: key.into(), value, mod_revision, ..PbKeyValue::default() };
        PbEvent { r#type, kv: Some(kv), prev_kv: None }
    }

    fn gone(key: &str, mod_revision: i64, lease: Option<i64>) -> PbEvent {
        let prev_kv = lease.map(|lease| PbKeyValue { lease, ..PbKeyValue::default() });
        PbEvent { prev_kv, ..event(DELETE, key, mod_revision) }
    }

    fn response(watch_id: i64, fragment: bool, events: Vec<PbEvent>) -> PbWatchResponse {
        PbWatchResponse { watch_id, fragment, events, ..PbWatchResponse::default() }
    }

    /// As text: `revision:+put-deregistered~swept?in-doubt key=lease Otherwise`.
    fn take(batches: &mut Batches, response: PbWatchResponse) -> Vec<String> {
        let prefix = Prefix { path: "/".to_owned(), format: Format::Plain };
        let text = |change: &Change| match change {
            Change::Put(entry) => format!("+{}", entry.key),
            Change::Delete(key, Cause::Deregistered) => format!("-{key}"),
            Change::Delete(key, Cause::Swept) => format!("~{key}"),
            Change::Delete(key, Cause::InDoubt) => format!("?{key}"),
        };
        let found = batches.take(response, &Prefixes::new(vec![prefix]));
        found
            .iter()
            .map(|Batch { revision, changes, leases, otherwise }| {
                let changes: String = changes.iter().map(text).collect();
                let asked = leases.iter().map(|(key, lease)| format!(" {key}={lease}"));
                let asked: String = asked.collect();
                let else_ =
                    if asked.is_empty() { String::new() } else { format!(" {otherwise:?}") };
                format!("{revision}:{changes}{asked}{else_}")
            })
            .collect()
    }

    #[test]
    fn changes_of_a_revision_stay_together_and_in_order() {
        let mut batches = Batches::after(10);
        let events = vec![event(0, "/a/1", 11), gone("/a/2", 11, Some(0)), event(0, "/a/2", 12)];
        let found = take(&mut batches, response(0, false, events));
        assert_eq!(found, ["11:+/a/1-/a/2", "12:+/a/2"]);
        assert!(take(&mut batches, response(0, false, vec![])).is_empty());
    }

    #[test]
    fn fragments_are_joined_each_watcher_for_itself() {
        let mut batches = Batches::after(1);
        assert!(take(&mut batches, response(0, true, vec![event(0, "/a/1", 2)])).is_empty());
        let other = take(&mut batches, response(1, false, vec![event(0, "/b/1", 2)]));
        assert_eq!(other, ["2:+/b/1"]);
        assert!(take(&mut batches, response(0, true, vec![event(0, "/a/2", 2)])).is_empty());
        let whole = take(&mut batches, response(0, false, vec![event(0, "/a/3", 2)]));
        assert_eq!(whole, ["2:+/a/1+/a/2+/a/3"]);
    }

    #[test]
    fn what_was_handed_out_is_not_handed_out_again() {
        let mut batches = Batches::after(10);
        let events = || vec![event(0, "/a/1", 10), event(0, "/a/1", 11)];
        assert_eq!(take(&mut batches, response(0, false, events())), ["11:+/a/1"]);
        assert!(take(&mut batches, response(0, false, events())).is_empty());
    }

    #[test]
    fn the_lease_says_what_can_be_told_of_a_deletion() {
        #[track_caller]
        fn check(events: &[(&str, Option<i64>)], expected: &str) {
            let events = events.iter().map(|(key, lease)| gone(key, 2, *lease)).collect();
            assert_eq!(take(&mut Batches::after(1), response(0, false, events)), [expected]);
        }
        check(&[("/a/1", Some(0))], "2:-/a/1");
        check(&[("/a/1", Some(7))], "2:?/a/1 /a/1=7 Deregistered");
        check(&[("/a/1", None)], "2:?/a/1");
        check(&[("/a/1", Some(0)), ("/a/2", Some(0))], "2:~/a/1~/a/2");
        check(&[("/a/1", Some(7)), ("/b/1", Some(7))], "2:?/a/1?/b/1 /a/1=7 /b/1=7 Deregistered");
        check(
            &[("/a/1", Some(7)), ("/a/2", Some(8)), ("/a/3", Some(0))],
            "2:?/a/1?/a/2~/a/3 /a/1=7 /a/2=8 Swept",
        );
    }

    #[test]
    fn an_event_without_a_key_costs_nothing() {
        let mut batches = Batches::after(0);
        let events = vec![PbEvent::default(), event(0, "/a/1", 1)];
        assert_eq!(take(&mut batches, response(0, false, events)), ["1:+/a/1"]);
    }
}
