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

/// The lease of each key that has one. A deletion does not say it, and to
/// have etcd look it up for each would make it slow when many go at once.
pub(super) type Leases = HashMap<Key, i64>;

/// What one watch stream has said so far.
#[derive(Debug)]
pub(super) struct Batches {
    listed: i64,
    leases: Leases,
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
    /// For watchers that start right after this revision, at which these keys
    /// had leases.
    pub(super) fn after(listed: i64, leases: Leases) -> Self {
        Self { listed, leases, watchers: HashMap::new() }
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
            .map(|events| batch(revision(&events[0]), events, prefixes, &mut self.leases))
            .collect();
        watcher.last = batches.last().map_or(last, |batch| batch.revision);
        batches
    }
}

fn batch(revision: i64, events: &[PbEvent], prefixes: &Prefixes, leases: &mut Leases) -> Batch {
    let mut changes = Vec::new();
    let mut gone = Vec::new();
    for event in events {
        let Some(kv) = &event.kv else { continue };
        let key = Key::new(&kv.key);
        if event.r#type == DELETE {
            gone.push(leases.remove(&key).unwrap_or(0));
            changes.push(Change::Delete(key, Cause::InDoubt));
            continue;
        }
        let entry = prefixes.entry(&kv.key, &kv.value, kv.lease);
        match kv.lease {
            0 => leases.remove(&key),
            lease => leases.insert(key, lease),
        };
        changes.push(Change::Put(entry));
    }
    // A process takes back its own key, or all that hang on its lease.
    let own = gone.len() == 1 || gone.iter().all(|lease| *lease != 0 && *lease == gone[0]);
    let otherwise = if own { Cause::Deregistered } else { Cause::Swept };
    let mut batch = Batch { revision, changes, leases: Vec::new(), otherwise };
    let mut gone = gone.into_iter();
    for change in &mut batch.changes {
        let Change::Delete(key, cause) = change else { continue };
        match gone.next() {
            None | Some(0) => *cause = otherwise,
            Some(lease) => batch.leases.push((key.clone(), lease)),
        }
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
        let mut batches = Batches::after(10, Leases::new());
        let events = vec![event(0, "/a/1", 11), event(DELETE, "/a/2", 11), event(0, "/a/2", 12)];
        let found = take(&mut batches, response(0, false, events));
        assert_eq!(found, ["11:+/a/1-/a/2", "12:+/a/2"]);
        assert!(take(&mut batches, response(0, false, vec![])).is_empty());
    }

    #[test]
    fn fragments_are_joined_each_watcher_for_itself() {
        let mut batches = Batches::after(1, Leases::new());
        assert!(take(&mut batches, response(0, true, vec![event(0, "/a/1", 2)])).is_empty());
        let other = take(&mut batches, response(1, false, vec![event(0, "/b/1", 2)]));
        assert_eq!(other, ["2:+/b/1"]);
        assert!(take(&mut batches, response(0, true, vec![event(0, "/a/2", 2)])).is_empty());
        let whole = take(&mut batches, response(0, false, vec![event(0, "/a/3", 2)]));
        assert_eq!(whole, ["2:+/a/1+/a/2+/a/3"]);
    }

    #[test]
    fn what_was_handed_out_is_not_handed_out_again() {
        let mut batches = Batches::after(10, Leases::new());
        let events = || vec![event(0, "/a/1", 10), event(0, "/a/1", 11)];
        assert_eq!(take(&mut batches, response(0, false, events())), ["11:+/a/1"]);
        assert!(take(&mut batches, response(0, false, events())).is_empty());
    }

    #[test]
    fn the_lease_says_what_can_be_told_of_a_deletion() {
        #[track_caller]
        fn check(gone: &[(&str, i64)], expected: &str) {
            let leased = gone.iter().filter(|(_, lease)| *lease != 0);
            let leases = leased.map(|(key, lease)| (Key::new(key.as_bytes()), *lease)).collect();
            let events = gone.iter().map(|(key, _)| event(DELETE, key, 2)).collect();
            let found = take(&mut Batches::after(1, leases), response(0, false, events));
            assert_eq!(found, [expected]);
        }
        check(&[("/a/1", 0)], "2:-/a/1");
        check(&[("/a/1", 7)], "2:?/a/1 /a/1=7 Deregistered");
        check(&[("/a/1", 0), ("/a/2", 0)], "2:~/a/1~/a/2");
        check(&[("/a/1", 7), ("/b/1", 7)], "2:?/a/1?/b/1 /a/1=7 /b/1=7 Deregistered");
        check(&[("/a/1", 7), ("/a/2", 8), ("/a/3", 0)], "2:?/a/1?/a/2~/a/3 /a/1=7 /a/2=8 Swept");
    }

    #[test]
    fn the_newest_put_says_which_lease_a_key_hangs_on() {
        let put = |key: &str, mod_revision, lease| {
            let mut event = event(0, key, mod_revision);
            event.kv.as_mut().unwrap().lease = lease;
            event
        };
        let key = |text: &str| Key::new(text.as_bytes());
        let leases = [(key("/a/1"), 1), (key("/a/2"), 1)].into();
        let mut batches = Batches::after(1, leases);
        let puts = vec![put("/a/1", 2, 9), put("/a/2", 3, 0), put("/a/3", 4, 8)];
        take(&mut batches, response(0, false, puts));
        let gone = (1..=3).map(|n| event(DELETE, &format!("/a/{n}"), 4 + n)).collect();
        let found = take(&mut batches, response(0, false, gone));
        let expected = ["5:?/a/1 /a/1=9 Deregistered", "6:-/a/2", "7:?/a/3 /a/3=8 Deregistered"];
        assert_eq!(found, expected);
        assert!(batches.leases.is_empty(), "nothing is kept of what is gone");
    }

    #[test]
    fn an_event_without_a_key_costs_nothing() {
        let mut batches = Batches::after(0, Leases::new());
        let events = vec![PbEvent::default(), event(0, "/a/1", 1)];
        assert_eq!(take(&mut batches, response(0, false, events)), ["1:+/a/1"]);
    }
}
