//! Tests of marks that are set, removed, end, or cannot be decoded.

use super::*;
use crate::registry::Cause;

const PREFIX: &str = "/lookaside/marks/z.test/";
const DRAIN: &str = "drain/hello/10.0.0.1:1";

/// The wall clock of the tests.
fn wall() -> Timestamp {
    Timestamp(1_000_000_000)
}

fn known() -> KeyStates {
    let (last_answer, outage) = (clock::now(), None);
    KeyStates { wall, keys: BTreeMap::new(), beyond: 0, is_read: false, last_answer, outage }
}

fn key(below: &str) -> Key {
    Key::new(format!("{PREFIX}{below}").as_bytes())
}

fn entry(below: &str, value: &str, revision: i64) -> Entry<DecodedMark> {
    let key = key(below);
    let decode = decode(&Zone::new("z.test").unwrap());
    let stored = Stored { key: &key.0, value: value.as_bytes(), lease: 0, revision };
    Entry { decoded: decode(stored), key: key.clone(), leased: false }
}

fn reset(all: Vec<Entry<DecodedMark>>, went_back: bool) -> Event<DecodedMark> {
    Event::Reset { revision: 1, all, went_back }
}

fn put(below: &str, value: &str, revision: i64) -> Event<DecodedMark> {
    Event::Apply { revision, changes: vec![Change::Put(entry(below, value, revision))] }
}

fn states(known: &KeyStates) -> Vec<(String, &'static str)> {
    let shown = |shown: &MarkStatus| (shown.mark.key.to_string(), shown.state.as_str());
    known.report().marks.iter().map(shown).collect()
}

fn in_force(known: &KeyStates) -> bool {
    known.in_force() != Marks::default()
}

#[test]
fn a_mark_is_in_force_until_it_is_deleted_or_over() {
    let mut known = known();
    known.apply(reset(Vec::new(), false));
    known.apply(put(DRAIN, "", 2));
    assert!(in_force(&known) && known.next_end().is_none());
    known.apply(put(DRAIN, r#"{"until":"2001-09-09T01:46:41Z"}"#, 3));
    assert!(in_force(&known));
    assert_eq!(known.next_end(), Some(Duration::from_secs(1)));
    known.apply(put(DRAIN, r#"{"until":"2001-09-09T01:46:40Z"}"#, 4));
    assert!(!in_force(&known) && known.next_end().is_none());
    assert_eq!(states(&known), [(DRAIN.to_owned(), "over")]);
    known.apply(put(DRAIN, "{}", 5));
    assert!(in_force(&known));
    let changes = vec![Change::Delete(key(DRAIN), Cause::InDoubt)];
    known.apply(Event::Apply { revision: 6, changes });
    assert!(!in_force(&known) && known.keys.is_empty());
}

#[test]
fn a_mark_that_ended_while_etcd_was_away_is_over() {
    let mut known = known();
    let past = r#"{"until":"2001-09-09T01:46:39Z"}"#;
    known.apply(reset(vec![entry(DRAIN, past, 1)], false));
    assert!(!in_force(&known));
}

#[test]
fn a_value_that_cannot_be_read_leaves_the_former_in_force() {
    let mut known = known();
    known.apply(put(DRAIN, "{}", 2));
    known.apply(put(DRAIN, "soon", 3));
    assert!(in_force(&known));
    let report = known.report();
    assert!(report.refused[0].1.contains("no JSON object"), "{report:?}");
    known.apply(put("drain/hello/", "", 4));
    known.apply(put("freeze/hello", "", 5));
    assert_eq!(known.report().refused.len(), 3);
    assert_eq!(states(&known), [(DRAIN.to_owned(), "in force")]);
    known.apply(put(DRAIN, "", 6));
    assert_eq!(known.report().refused.len(), 2);
    // Each mark has one key.
    known.apply(put("drain/Hello/10.0.0.1:1", "", 7));
    let reason = known.report().refused.last().unwrap().1.clone();
    assert!(known.report().refused.iter().any(|(_, one)| one.contains(DRAIN)), "{reason}");
}

#[test]
fn losing_etcd_ends_no_mark_and_an_etcd_that_lost_it_neither() {
    let mut known = known();
    known.apply(put(DRAIN, "{}", 2));
    let since = clock::now();
    known.apply(Event::Stale { since, reason: "refused".to_owned() });
    assert!(in_force(&known) && known.report().outage.is_some());
    // The mark is missing and was not ended: it stays, whether etcd looks older or not.
    for went_back in [true, false] {
        known.apply(reset(Vec::new(), went_back));
        assert_eq!(states(&known), [(DRAIN.to_owned(), "kept")]);
    }
    assert!(known.report().outage.is_none());
    known.apply(put(DRAIN, "", 7));
    assert_eq!(states(&known), [(DRAIN.to_owned(), "in force")]);
    // The mark was ended while this balancer was away.
    known.apply(reset(vec![entry(DRAIN, r#"{"until":"2001-09-09T01:46:40Z"}"#, 8)], false));
    assert_eq!(states(&known), [(DRAIN.to_owned(), "over")]);
    known.apply(reset(Vec::new(), false));
    assert!(known.keys.is_empty(), "what is over is not kept");
    // The note of the end may have expired meanwhile.
    known.apply(put(DRAIN, "", 9));
    known.last_answer =
        clock::now().checked_sub(ENDED_FOR * 2).expect("the machine has run for long");
    known.apply(reset(Vec::new(), false));
    assert!(known.keys.is_empty());
    known.apply(put(DRAIN, "", 10));
    known.last_answer =
        clock::now().checked_sub(ENDED_FOR * 2).expect("the machine has run for long");
    known.apply(reset(Vec::new(), true));
    assert_eq!(states(&known), [(DRAIN.to_owned(), "kept")]);
}

#[test]
fn an_older_value_of_a_key_ends_no_newer_drain() {
    let endless = r#"{"set":"2001-09-09T01:40:00Z"}"#;
    let over = |set: &str| format!(r#"{{"set":"{set}","until":"2001-09-09T01:46:39Z"}}"#);
    let (earlier, later) = ("2001-09-09T01:30:00Z", "2001-09-09T01:45:00Z");
    for (value, revision, expected) in [
        // etcd was restored from a copy that was made before the newer drain.
        (over(earlier), 5, "kept"),
        // It was replaced by a short one while this balancer was away, ...
        (over(later), 12, "over"),
        // ... by an operator whose clock is behind, ...
        (over(earlier), 12, "over"),
        // ... and after etcd had gone back.
        (over(later), 5, "over"),
        // Without a time, etcd has the last word.
        (r#"{"until":"2001-09-09T01:46:39Z"}"#.to_owned(), 5, "over"),
    ] {
        let mut known = known();
        known.apply(put(DRAIN, endless, 9));
        known.apply(reset(vec![entry(DRAIN, &value, revision)], true));
        assert_eq!(states(&known), [(DRAIN.to_owned(), expected)], "{value} {revision}");
        // Whatever comes next is newer.
        known.apply(put(DRAIN, &value, revision + 1));
        assert_eq!(states(&known), [(DRAIN.to_owned(), "over")]);
    }
}

#[test]
fn a_release_is_sent_once_and_with_its_age() {
    let release = |age: u64| {
        let age = Duration::from_secs(age);
        vec![News::Release { service: "hello".to_owned(), age }]
    };
    let value = r#"{"set":"2001-09-09T01:46:00Z"}"#;
    let mut known = known();
    let listed = || reset(vec![entry("release/hello", value, 2)], false);
    assert_eq!(known.apply(listed()), release(40));
    assert_eq!(known.apply(listed()), Vec::new());
    assert_eq!(known.apply(put("release/hello", value, 3)), release(0));
    // A release without a time may be older than all held backends.
    assert_eq!(known.apply(put("release/hello", "", 4)), release(0));
    known.keys.clear();
    assert_eq!(known.apply(reset(vec![entry("release/hello", "", 4)], false)), Vec::new());
    assert!(!in_force(&known));
    known.apply(put("release/hello", value, 5));
    known.apply(reset(Vec::new(), true));
    assert!(known.keys.is_empty(), "it has acted, and is not missed");
}

#[test]
fn more_marks_than_anybody_needs_are_refused() {
    let mut known = known();
    let below = |n: usize| format!("drain/hello/id{n}");
    let all = (0..=KEYS_MAX).map(|n| entry(&below(n), "", 1)).collect();
    known.apply(reset(all, false));
    assert_eq!((known.keys.len(), known.report().beyond), (KEYS_MAX, 1));
}

#[tokio::test(start_paused = true)]
async fn an_end_comes_although_signs_of_life_never_do_end() {
    // The wall clock follows tokio's clock.
    static BEGAN: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    fn wall() -> Timestamp {
        let began = *BEGAN.get_or_init(clock::now);
        Timestamp(1_000_000_000).after(clock::now() - began)
    }
    let (events_tx, events_rx) = mpsc::channel(4);
    let (news_tx, mut news) = mpsc::channel(4);
    let (report_tx, _) = watch::channel(Report::default());
    let source = run(wall, (Vec::new(), Duration::ZERO), events_rx, news_tx, report_tx);
    let test = async {
        events_tx.send(put(DRAIN, r#"{"until":"2001-09-09T01:46:45Z"}"#, 2)).await.unwrap();
        let Some(News::InForce(marks)) = news.recv().await else { panic!("it is in force") };
        assert_eq!(marks.all().count(), 1);
        // Events arrive more often than the end of the mark is away.
        let alive = async {
            loop {
                tokio::time::sleep(Duration::from_millis(300)).await;
                events_tx.send(Event::Apply { revision: 2, changes: Vec::new() }).await.unwrap();
            }
        };
        let next = tokio::time::timeout(Duration::from_secs(7), news.recv());
        tokio::select! {
            () = alive => unreachable!("it has no end"),
            next = next => {
                let Ok(Some(News::InForce(marks))) = next else { panic!("{next:?}") };
                assert_eq!(marks.all().count(), 0);
            }
        }
    };
    tokio::select! {
        () = source => panic!("it goes on"),
        () = test => {}
    }
}
