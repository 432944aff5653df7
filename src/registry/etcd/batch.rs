//! Watch responses → changes by revision. Pure.
//!
//! In: the responses of one watch stream in order. Out: all changes of each
//! revision together, once, whichever watchers they came through. Never hands
//! out a part of a revision that etcd cut into fragments.

use std::collections::{BTreeMap, HashMap};

use etcd_client::proto::{PbEvent, PbWatchResponse};

use super::connect::Trouble;
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
    leases: Leases,
    /// One of each range.
    watchers: Vec<Watcher>,
    /// What is not handed out yet, by revision.
    held: BTreeMap<i64, Vec<PbEvent>>,
    /// Of revisions up to here nothing more is expected: etcd tells all watchers
    /// of one revision before it tells any of the next.
    passed: i64,
}

#[derive(Debug)]
struct Watcher {
    /// The last revision that came whole. Only events count: up to 3.5.7 and
    /// 3.4.24 etcd's progress answers can run ahead of events still to come.
    last: i64,
    /// The beginning of a revision whose end has not arrived.
    parts: Vec<PbEvent>,
    /// How long they are.
    bytes: usize,
    /// Signs of life since they came.
    signs: u32,
}

/// etcd's `mvccpb.Event.EventType.DELETE`.
const DELETE: i32 = 1;
/// What is kept of one revision before its end has arrived. etcd takes requests
/// of 1.5 MiB, and 300,000 keys that go in one stroke are not longer than this.
const PARTS_MAX: usize = 64 << 20;
/// What an event costs besides its key and value.
const EVENT: usize = 128;
/// etcd sends the parts of an answer in one go. So many signs of life between
/// two of them mean that the rest never comes.
const SIGNS_MAX: u32 = 2;

impl Batches {
    /// For so many watchers that start right after this revision, at which these
    /// keys had leases.
    pub(super) fn after(listed: i64, watchers: usize, leases: Leases) -> Self {
        let watcher = || Watcher { last: listed, parts: Vec::new(), bytes: 0, signs: 0 };
        let watchers = std::iter::repeat_with(watcher).take(watchers).collect();
        Self { leases, watchers, held: BTreeMap::new(), passed: listed }
    }

    /// Takes in what one watcher said.
    ///
    /// # Errors
    /// When its revisions do not rise, or one of them never ends.
    pub(super) fn take(&mut self, watcher: usize, said: PbWatchResponse) -> Result<(), Trouble> {
        let Self { watchers, held, passed, .. } = self;
        let watcher = &mut watchers[watcher];
        let mut first = None;
        for event in said.events {
            let Some(kv) = &event.kv else { continue };
            let revision = kv.mod_revision;
            // It was told already.
            if revision <= watcher.last {
                continue;
            }
            let open = watcher.parts.first().map_or(revision, revision_of);
            if revision < open {
                return Err(Trouble(format!("revisions go back from {open} to {revision}")));
            }
            if revision > open {
                watcher.close(held);
            }
            first.get_or_insert(revision);
            watcher.bytes += kv.key.len() + kv.value.len() + EVENT;
            watcher.parts.push(event);
            watcher.signs = 0;
        }
        if !said.fragment {
            watcher.close(held);
        } else if watcher.bytes > PARTS_MAX {
            return Err(Trouble(format!("one revision is longer than {PARTS_MAX} bytes")));
        }
        if let Some(first) = first {
            *passed = (*passed).max(first - 1);
        }
        Ok(())
    }

    /// Takes note of a sign of life.
    ///
    /// # Errors
    /// When a watcher has left a revision unfinished for too long.
    pub(super) fn sign(&mut self) -> Result<(), Trouble> {
        for watcher in self.watchers.iter_mut().filter(|watcher| !watcher.parts.is_empty()) {
            watcher.signs += 1;
            if watcher.signs > SIGNS_MAX {
                return Err(Trouble("the rest of a fragmented answer does not come".into()));
            }
        }
        Ok(())
    }

    /// The next revision of which all is there.
    pub(super) fn next(&mut self, prefixes: &Prefixes) -> Option<Batch> {
        let (&revision, _) = self.held.first_key_value()?;
        let heard = |watcher: &Watcher| watcher.last >= revision;
        if revision > self.passed && !self.watchers.iter().all(heard) {
            return None;
        }
        self.next_held(prefixes)
    }

    /// The next revision, for those who have waited for more of it in vain.
    pub(super) fn next_held(&mut self, prefixes: &Prefixes) -> Option<Batch> {
        let (&revision, _) = self.held.first_key_value()?;
        let unfinished = |watcher: &Watcher| {
            watcher.parts.first().is_some_and(|event| revision_of(event) <= revision)
        };
        if self.watchers.iter().any(unfinished) {
            return None;
        }
        let events = self.held.remove(&revision)?;
        Some(batch(revision, &events, prefixes, &mut self.leases))
    }

    /// Whether anything waits for more of its revision, and if so, whether keys
    /// are gone by it.
    pub(super) fn waiting(&self) -> Option<bool> {
        let (_, events) = self.held.first_key_value()?;
        Some(events.iter().any(|event| event.r#type == DELETE))
    }
}

impl Watcher {
    /// The revision that was open is whole.
    fn close(&mut self, held: &mut BTreeMap<i64, Vec<PbEvent>>) {
        let Some(revision) = self.parts.first().map(revision_of) else { return };
        let parts = std::mem::take(&mut self.parts);
        held.entry(revision).or_default().extend(parts);
        (self.last, self.bytes) = (revision, 0);
    }
}

fn revision_of(event: &PbEvent) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
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
        let prefixes = Prefixes::new(vec![prefix]);
        let watcher = usize::try_from(response.watch_id).unwrap();
        batches.take(watcher, response).unwrap();
        let found: Vec<Batch> = std::iter::from_fn(|| batches.next(&prefixes)).collect();
        show(&found)
    }

    fn show(found: &[Batch]) -> Vec<String> {
        let text = |change: &Change| match change {
            Change::Put(entry) => format!("+{}", entry.key),
            Change::Delete(key, Cause::Deregistered) => format!("-{key}"),
            Change::Delete(key, Cause::Swept) => format!("~{key}"),
            Change::Delete(key, Cause::InDoubt) => format!("?{key}"),
        };
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
        let mut batches = Batches::after(10, 1, Leases::new());
        let events = vec![event(0, "/a/1", 11), event(DELETE, "/a/2", 11), event(0, "/a/2", 12)];
        let found = take(&mut batches, response(0, false, events));
        assert_eq!(found, ["11:+/a/1-/a/2", "12:+/a/2"]);
        assert!(take(&mut batches, response(0, false, vec![])).is_empty());
    }

    #[test]
    fn fragments_are_joined_each_watcher_for_itself() {
        let mut batches = Batches::after(1, 2, Leases::new());
        assert!(take(&mut batches, response(0, true, vec![event(0, "/a/1", 2)])).is_empty());
        let other = take(&mut batches, response(1, false, vec![event(0, "/b/1", 2)]));
        assert!(other.is_empty(), "it is of one revision with what is unfinished");
        assert!(take(&mut batches, response(0, true, vec![event(0, "/a/2", 2)])).is_empty());
        let whole = take(&mut batches, response(0, false, vec![event(0, "/a/3", 2)]));
        assert_eq!(whole, ["2:+/b/1+/a/1+/a/2+/a/3"]);
    }

    #[test]
    fn what_is_whole_does_not_wait_for_the_last_fragment() {
        let mut batches = Batches::after(1, 1, Leases::new());
        let events = vec![event(0, "/a/1", 2), event(0, "/a/2", 3)];
        assert_eq!(take(&mut batches, response(0, true, events)), ["2:+/a/1"]);
        assert_eq!(take(&mut batches, response(0, false, vec![])), ["3:+/a/2"]);
    }

    #[test]
    fn a_revision_without_end_ends_the_stream() {
        let mut batches = Batches::after(1, 1, Leases::new());
        let mut taken = 0;
        let refused = loop {
            let mut large = event(0, "/a/1", 2);
            large.kv.as_mut().unwrap().value = vec![0; 1 << 20];
            match batches.take(0, response(0, true, vec![large])) {
                Ok(()) => taken += 1,
                Err(trouble) => break trouble.to_string(),
            }
        };
        assert_eq!((taken, refused.as_str()), (63, "one revision is longer than 67108864 bytes"));

        let mut batches = Batches::after(1, 1, Leases::new());
        batches.take(0, response(0, true, vec![event(0, "/a/1", 2)])).unwrap();
        assert_eq!((batches.sign(), batches.sign()), (Ok(()), Ok(())));
        assert!(batches.sign().is_err());
    }

    #[test]
    fn revisions_that_go_back_end_the_stream() {
        let mut batches = Batches::after(10, 1, Leases::new());
        let events = vec![event(0, "/a/1", 12), event(0, "/a/1", 11)];
        let refused = batches.take(0, response(0, false, events)).unwrap_err();
        assert_eq!(refused.to_string(), "revisions go back from 12 to 11");
    }

    #[test]
    fn a_transaction_is_one_batch_whichever_watchers_it_comes_through() {
        let leases = || [(Key::new(b"/a/1"), 7), (Key::new(b"/b/1"), 8)].into();
        let gone =
            |watcher, key, revision| response(watcher, false, vec![event(DELETE, key, revision)]);
        let mut batches = Batches::after(1, 2, leases());
        assert!(take(&mut batches, gone(0, "/a/1", 2)).is_empty());
        assert_eq!(batches.waiting(), Some(true));
        let whole = take(&mut batches, gone(1, "/b/1", 2));
        assert_eq!(whole, ["2:?/a/1?/b/1 /a/1=7 /b/1=8 Swept"]);
        assert_eq!(batches.waiting(), None);

        // The next revision says that the last is over, whoever brings it.
        let put = |watcher, revision| response(watcher, false, vec![event(0, "/a/2", revision)]);
        assert!(take(&mut batches, put(0, 3)).is_empty());
        assert_eq!(batches.waiting(), Some(false));
        assert_eq!(take(&mut batches, put(0, 4)), ["3:+/a/2"]);
        assert_eq!(take(&mut batches, put(1, 5)), ["4:+/a/2"]);
        let prefixes = Prefixes::new(vec![Prefix { path: "/".into(), format: Format::Plain }]);
        let waited = batches.next_held(&prefixes).into_iter().collect::<Vec<_>>();
        assert_eq!(show(&waited), ["5:+/a/2"]);

        // Those that catch up are told of several revisions in one response.
        let mut batches = Batches::after(1, 2, leases());
        let several = vec![event(DELETE, "/a/1", 2), event(0, "/a/1", 4)];
        assert!(take(&mut batches, response(0, false, several)).is_empty());
        let several = vec![event(DELETE, "/b/1", 2), event(0, "/b/1", 3)];
        let found = take(&mut batches, response(1, false, several));
        assert_eq!(found, ["2:?/a/1?/b/1 /a/1=7 /b/1=8 Swept", "3:+/b/1"]);
        assert_eq!(
            show(&batches.next_held(&prefixes).into_iter().collect::<Vec<_>>()),
            ["4:+/a/1"]
        );
    }

    #[test]
    fn what_was_handed_out_is_not_handed_out_again() {
        let mut batches = Batches::after(10, 1, Leases::new());
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
            let found = take(&mut Batches::after(1, 1, leases), response(0, false, events));
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
        let mut batches = Batches::after(1, 1, leases);
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
        let mut batches = Batches::after(0, 1, Leases::new());
        let events = vec![PbEvent::default(), event(0, "/a/1", 1)];
        assert_eq!(take(&mut batches, response(0, false, events)), ["1:+/a/1"]);
    }
}
