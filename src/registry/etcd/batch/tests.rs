//! Tests of batches: responses go in, batches come out as text.

use super::super::prefixes::Prefixes;
use super::*;
use crate::registry::record::{Format, Prefix};
use crate::registry::{Reading, Rejected};

type Found = Batch<Result<Reading, Rejected>>;
use etcd_client::proto::PbKeyValue;

fn event(r#type: i32, key: &str, mod_revision: i64) -> PbEvent {
    let value = if r#type == DELETE { vec![] } else { b"10.0.0.1:1".to_vec() };
    let kv = PbKeyValue { key: key.into(), value, mod_revision, ..PbKeyValue::default() };
    PbEvent { r#type, kv: Some(kv), prev_kv: None }
}

/// Returns a key that was written at revision 1.
fn key(name: &str, lease: i64) -> (Key, Written) {
    (Key::new(name.as_bytes()), Written { lease, revision: 1 })
}

fn response(watch_id: i64, fragment: bool, events: Vec<PbEvent>) -> PbWatchResponse {
    PbWatchResponse { watch_id, fragment, events, ..PbWatchResponse::default() }
}

/// Takes a response and shows the batches as text:
/// `revision:+put-deregistered~swept?in-doubt key=lease Otherwise`.
fn take(batches: &mut Batches, response: PbWatchResponse) -> Vec<String> {
    let prefix = Prefix { path: "/".to_owned(), format: Format::Plain };
    let decode = Prefixes::new(vec![prefix]).decode();
    let watcher = usize::try_from(response.watch_id).unwrap();
    batches.take(watcher, response).unwrap();
    let found: Vec<Found> = std::iter::from_fn(|| batches.next(&decode)).collect();
    show(&found)
}

fn show(found: &[Found]) -> Vec<String> {
    let text = |change: &Change| match change {
        Change::Put(entry) => format!("+{}", entry.key),
        Change::Delete(key, Cause::Deregistered) => format!("-{key}"),
        Change::Delete(key, Cause::Swept) => format!("~{key}"),
        Change::Delete(key, Cause::InDoubt) => format!("?{key}"),
    };
    found
        .iter()
        .map(|Batch { revision, changes, leases, cause_if_alive }| {
            let changes: String = changes.iter().map(text).collect();
            let asked = leases.iter().map(|(key, lease)| format!(" {key}={lease}"));
            let asked: String = asked.collect();
            let else_ =
                if asked.is_empty() { String::new() } else { format!(" {cause_if_alive:?}") };
            format!("{revision}:{changes}{asked}{else_}")
        })
        .collect()
}

#[test]
fn changes_of_a_revision_stay_together_and_in_order() {
    let mut batches = Batches::after(10, 1, Keys::new());
    let events = vec![event(0, "/a/1", 11), event(DELETE, "/a/2", 11), event(0, "/a/2", 12)];
    let found = take(&mut batches, response(0, false, events));
    assert_eq!(found, ["11:+/a/1-/a/2", "12:+/a/2"]);
    assert!(take(&mut batches, response(0, false, vec![])).is_empty());
}

#[test]
fn fragments_are_joined_each_watcher_for_itself() {
    let mut batches = Batches::after(1, 2, Keys::new());
    assert!(take(&mut batches, response(0, true, vec![event(0, "/a/1", 2)])).is_empty());
    let other = take(&mut batches, response(1, false, vec![event(0, "/b/1", 2)]));
    assert!(other.is_empty(), "it is of one revision with what is unfinished");
    assert!(take(&mut batches, response(0, true, vec![event(0, "/a/2", 2)])).is_empty());
    let whole = take(&mut batches, response(0, false, vec![event(0, "/a/3", 2)]));
    assert_eq!(whole, ["2:+/b/1+/a/1+/a/2+/a/3"]);
}

#[test]
fn what_is_whole_does_not_wait_for_the_last_fragment() {
    let mut batches = Batches::after(1, 1, Keys::new());
    let events = vec![event(0, "/a/1", 2), event(0, "/a/2", 3)];
    assert_eq!(take(&mut batches, response(0, true, events)), ["2:+/a/1"]);
    assert_eq!(take(&mut batches, response(0, false, vec![])), ["3:+/a/2"]);
}

#[test]
fn a_revision_without_end_ends_the_stream() {
    let mut batches = Batches::after(1, 1, Keys::new());
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

    let mut batches = Batches::after(1, 1, Keys::new());
    batches.take(0, response(0, true, vec![event(0, "/a/1", 2)])).unwrap();
    assert_eq!((batches.sign(), batches.sign()), (Ok(()), Ok(())));
    assert!(batches.sign().is_err());
}

#[test]
fn revisions_that_go_back_end_the_stream() {
    let mut batches = Batches::after(10, 1, Keys::new());
    let events = vec![event(0, "/a/1", 12), event(0, "/a/1", 11)];
    let refused = batches.take(0, response(0, false, events)).unwrap_err();
    assert_eq!(refused.to_string(), "revisions go back from 12 to 11");
}

#[test]
fn a_transaction_is_one_batch_whichever_watchers_it_comes_through() {
    let leases = || [key("/a/1", 7), key("/b/1", 8)].into();
    let gone =
        |watcher, key, revision| response(watcher, false, vec![event(DELETE, key, revision)]);
    let mut batches = Batches::after(1, 2, leases());
    batches.settle();
    assert!(take(&mut batches, gone(0, "/a/1", 2)).is_empty());
    assert_eq!(batches.waiting(), Some(true));
    let whole = take(&mut batches, gone(1, "/b/1", 2));
    assert_eq!(whole, ["2:?/a/1?/b/1 /a/1=7 /b/1=8 Swept"]);
    assert_eq!(batches.waiting(), None);

    // The next revision shows that the last one is complete, whichever watcher delivers
    // it.
    let put = |watcher, revision| response(watcher, false, vec![event(0, "/a/2", revision)]);
    assert!(take(&mut batches, put(0, 3)).is_empty());
    assert_eq!(batches.waiting(), Some(false));
    assert_eq!(take(&mut batches, put(0, 4)), ["3:+/a/2"]);
    assert_eq!(take(&mut batches, put(1, 5)), ["4:+/a/2"]);
    let decode = Prefixes::new(vec![Prefix { path: "/".into(), format: Format::Plain }]).decode();
    let waited = batches.next_pending(&decode).into_iter().collect::<Vec<_>>();
    assert_eq!(show(&waited), ["5:+/a/2"]);

    // Watchers that catch up do so one after the other, with several revisions each.
    let mut batches = Batches::after(1, 2, leases());
    let several = vec![event(DELETE, "/a/1", 2), event(0, "/a/1", 4)];
    assert!(take(&mut batches, response(0, false, several)).is_empty());
    let several = vec![event(DELETE, "/b/1", 2), event(0, "/b/1", 3)];
    let found = take(&mut batches, response(1, false, several));
    assert_eq!(found, ["2:?/a/1?/b/1 /a/1=7 /b/1=8 Swept", "3:+/b/1"]);
    assert_eq!(show(&batches.next_pending(&decode).into_iter().collect::<Vec<_>>()), ["4:+/a/1"]);
}

#[test]
fn what_was_handed_out_is_not_handed_out_again() {
    let mut batches = Batches::after(10, 1, Keys::new());
    let events = || vec![event(0, "/a/1", 10), event(0, "/a/1", 11)];
    assert_eq!(take(&mut batches, response(0, false, events())), ["11:+/a/1"]);
    assert!(take(&mut batches, response(0, false, events())).is_empty());
}

#[test]
fn the_lease_says_what_can_be_told_of_a_deletion() {
    #[track_caller]
    fn check(gone: &[(&str, i64)], expected: &str) {
        let keys = gone.iter().map(|(name, lease)| key(name, *lease)).collect();
        let events = gone.iter().map(|(key, _)| event(DELETE, key, 2)).collect();
        let found = take(&mut Batches::after(1, 1, keys), response(0, false, events));
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
    let mut batches = Batches::after(1, 1, [key("/a/1", 1), key("/a/2", 1)].into());
    let puts = vec![put("/a/1", 2, 9), put("/a/2", 3, 0), put("/a/3", 4, 8)];
    take(&mut batches, response(0, false, puts));
    let gone = (1..=3).map(|n| event(DELETE, &format!("/a/{n}"), 4 + n)).collect();
    let found = take(&mut batches, response(0, false, gone));
    let expected = ["5:?/a/1 /a/1=9 Deregistered", "6:-/a/2", "7:?/a/3 /a/3=8 Deregistered"];
    assert_eq!(found, expected);
    assert!(batches.keys.is_empty(), "nothing is kept of what is gone");
}

#[test]
fn an_event_without_a_key_costs_nothing() {
    let mut batches = Batches::after(0, 1, Keys::new());
    let events = vec![PbEvent::default(), event(0, "/a/1", 1)];
    assert_eq!(take(&mut batches, response(0, false, events)), ["1:+/a/1"]);
}
