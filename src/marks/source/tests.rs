//! Marks that come, go, end, and cannot be read.

use super::*;
use crate::registry::Cause;

const PREFIX: &str = "/lookaside/marks/z.test/";
const DRAIN: &str = "drain/hello/10.0.0.1:1";

/// The wall clock of the tests.
fn wall() -> Moment {
    Moment(1_000_000_000)
}

fn known() -> Known {
    Known { wall, keys: BTreeMap::new(), unheard: None }
}

fn key(below: &str) -> Key {
    Key::new(format!("{PREFIX}{below}").as_bytes())
}

fn entry(below: &str, value: &str, revision: i64) -> Entry<Read> {
    let key = key(below);
    let decode = decode(&Zone::new("z.test").unwrap());
    let stored = Stored { key: &key.0, value: value.as_bytes(), lease: 0, revision };
    Entry { meaning: decode(stored), key: key.clone(), leased: false }
}

fn reset(all: Vec<Entry<Read>>, went_back: bool) -> Event<Read> {
    Event::Reset { revision: 1, all, went_back }
}

fn put(below: &str, value: &str, revision: i64) -> Event<Read> {
    Event::Apply { revision, changes: vec![Change::Put(entry(below, value, revision))] }
}

fn states(known: &Known) -> Vec<(String, &'static str)> {
    let shown = |shown: &Shown| (shown.mark.key.to_string(), shown.state.as_str());
    known.report().marks.iter().map(shown).collect()
}

fn in_force(known: &Known) -> bool {
    known.in_force() != Marks::default()
}

#[test]
fn a_mark_is_in_force_until_it_is_deleted_or_over() {
    let mut known = known();
    known.take(reset(Vec::new(), false));
    known.take(put(DRAIN, "", 2));
    assert!(in_force(&known) && known.next_end().is_none());
    known.take(put(DRAIN, r#"{"until":"2001-09-09T01:46:41Z"}"#, 3));
    assert!(in_force(&known));
    assert_eq!(known.next_end(), Some(Duration::from_secs(1)));
    known.take(put(DRAIN, r#"{"until":"2001-09-09T01:46:40Z"}"#, 4));
    assert!(!in_force(&known) && known.next_end().is_none());
    assert_eq!(states(&known), [(DRAIN.to_owned(), "over")]);
    known.take(put(DRAIN, "{}", 5));
    assert!(in_force(&known));
    let changes = vec![Change::Delete(key(DRAIN), Cause::InDoubt)];
    known.take(Event::Apply { revision: 6, changes });
    assert!(!in_force(&known) && known.keys.is_empty());
}

#[test]
fn a_mark_that_ended_while_etcd_was_away_is_over() {
    let mut known = known();
    let past = r#"{"until":"2001-09-09T01:46:39Z"}"#;
    known.take(reset(vec![entry(DRAIN, past, 1)], false));
    assert!(!in_force(&known));
}

#[test]
fn a_value_that_cannot_be_read_leaves_the_former_in_force() {
    let mut known = known();
    known.take(put(DRAIN, "{}", 2));
    known.take(put(DRAIN, "soon", 3));
    assert!(in_force(&known));
    let report = known.report();
    assert!(report.refused[0].1.contains("no JSON object"), "{report:?}");
    known.take(put("drain/hello/", "", 4));
    known.take(put("freeze/hello", "", 5));
    assert_eq!(known.report().refused.len(), 3);
    assert_eq!(states(&known), [(DRAIN.to_owned(), "in force")]);
    known.take(put(DRAIN, "", 6));
    assert_eq!(known.report().refused.len(), 2);
}

#[test]
fn losing_etcd_ends_no_mark_and_going_back_neither() {
    let mut known = known();
    known.take(put(DRAIN, "{}", 2));
    let since = crate::clock::now();
    known.take(Event::Stale { since, reason: "refused".to_owned() });
    assert!(in_force(&known) && known.report().unheard.is_some());
    known.take(reset(Vec::new(), true));
    assert_eq!(states(&known), [(DRAIN.to_owned(), "kept")]);
    assert!(known.report().unheard.is_none());
    // Listed again, by the same etcd.
    known.take(reset(Vec::new(), false));
    assert!(in_force(&known));
    // Put and deleted, it is gone.
    known.take(put(DRAIN, "", 7));
    assert_eq!(states(&known), [(DRAIN.to_owned(), "in force")]);
    known.take(reset(Vec::new(), false));
    assert!(!in_force(&known));
}

#[test]
fn a_release_is_told_once_and_with_its_age() {
    let release = |age: u64| {
        let age = Duration::from_secs(age);
        vec![News::Release { service: "hello".to_owned(), age }]
    };
    let value = r#"{"set":"2001-09-09T01:46:00Z"}"#;
    let mut known = known();
    let listed = || reset(vec![entry("release/hello", value, 2)], false);
    assert_eq!(known.take(listed()), release(40));
    assert_eq!(known.take(listed()), Vec::new());
    assert_eq!(known.take(put("release/hello", value, 3)), release(0));
    assert!(!in_force(&known));
}

#[test]
fn more_marks_than_anybody_needs_are_refused() {
    let mut known = known();
    let below = |n: usize| format!("drain/hello/id{n}");
    let all = (0..=KEYS_MAX).map(|n| entry(&below(n), "", 1)).collect();
    known.take(reset(all, false));
    assert_eq!(known.keys.len(), KEYS_MAX);
}
