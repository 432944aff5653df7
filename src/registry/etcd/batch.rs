//! Watch responses → changes by revision. Pure.
//!
//! In: the responses of one watch stream in order. Out: all changes of each
//! revision together, once. Never hands out a part of a revision that etcd cut
//! into fragments, nor a revision twice.

use std::collections::HashMap;

use etcd_client::proto::{PbEvent, PbWatchResponse};

use super::prefixes::Prefixes;
use crate::registry::{Change, Key};

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
    pub(super) fn take(
        &mut self,
        response: PbWatchResponse,
        prefixes: &Prefixes,
    ) -> Vec<(i64, Vec<Change>)> {
        let new = || Watcher { last: self.listed, parts: Vec::new() };
        let watcher = self.watchers.entry(response.watch_id).or_insert_with(new);
        watcher.parts.extend(response.events);
        if response.fragment {
            return Vec::new();
        }
        let mut batches: Vec<(i64, Vec<Change>)> = Vec::new();
        for event in std::mem::take(&mut watcher.parts) {
            let Some(kv) = event.kv else { continue };
            if kv.mod_revision <= watcher.last {
                continue;
            }
            let change = match event.r#type {
                DELETE => Change::Delete(Key::new(&kv.key)),
                _ => Change::Put(prefixes.entry(&kv.key, &kv.value)),
            };
            match batches.last_mut() {
                Some((revision, changes)) if *revision == kv.mod_revision => changes.push(change),
                _ => batches.push((kv.mod_revision, vec![change])),
            }
        }
        watcher.last = batches.last().map_or(watcher.last, |(revision, _)| *revision);
        batches
    }
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

    /// As text: `revision:+put-delete`.
    fn take(batches: &mut Batches, response: PbWatchResponse) -> Vec<String> {
        let prefix = Prefix { path: "/".to_owned(), format: Format::Plain };
        let text = |change: &Change| match change {
            Change::Put(entry) => format!("+{}", entry.key),
            Change::Delete(key) => format!("-{key}"),
        };
        let found = batches.take(response, &Prefixes::new(vec![prefix]));
        found
            .iter()
            .map(|(revision, changes)| {
                format!("{revision}:{}", changes.iter().map(text).collect::<String>())
            })
            .collect()
    }

    #[test]
    fn changes_of_a_revision_stay_together_and_in_order() {
        let mut batches = Batches::after(10);
        let events = vec![event(0, "/a/1", 11), event(DELETE, "/a/2", 11), event(0, "/a/2", 12)];
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
    fn an_event_without_a_key_costs_nothing() {
        let mut batches = Batches::after(0);
        let events = vec![PbEvent::default(), event(0, "/a/1", 1)];
        assert_eq!(take(&mut batches, response(0, false, events)), ["1:+/a/1"]);
    }
}
