//! The rules of a stream: each bug of other servers that a client met is a test.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::settings::ServiceSettings;
use crate::xds::pb::envoy::service::discovery::v3::DiscoveryResponse;

const NOW: fn() -> Instant = Instant::now;

fn assignment(version: u64, members: u64) -> Arc<Assignment> {
    let mut one = Assignment::none();
    (one.version, one.members) = (version, members);
    Arc::new(one)
}

/// Returns a resource by settings that say nothing.
fn plain(kind: Kind, name: &str) -> Resource {
    Resource::new(kind, name, &ServiceSettings::DEFAULT)
}

fn session() -> Session<()> {
    Session::new()
}

fn ask(session: &mut Session<()>, kind: Kind, names: &[&str], nonce: u64) -> Verdict {
    request(session, kind, names, nonce, None)
}

fn request(
    session: &mut Session<()>,
    kind: Kind,
    names: &[&str],
    nonce: u64,
    error: Option<&str>,
) -> Verdict {
    let names = Names::of(names);
    let nonce = if nonce == 0 { String::new() } else { nonce.to_string() };
    let request = Request { kind, names, nonce, error: error.map(ToOwned::to_owned) };
    session.take(request, usize::MAX, |name| name.into(), |_| ()).verdict
}

/// Returns the type, the nonce and the names of the next response.
fn next(session: &mut Session<()>) -> Option<(Kind, u64, Vec<String>)> {
    match step(session, NOW(), plain) {
        Step::Send(push) => Some(read(&push)),
        Step::WaitUntil(_) | Step::Again | Step::Nothing => None,
    }
}

/// Takes steps until there is something to send, or nothing to do.
fn step(
    session: &mut Session<()>,
    now: Instant,
    resource: impl Fn(Kind, &str) -> Resource,
) -> Step {
    loop {
        let step = session.step(now, Duration::ZERO, &resource);
        if !matches!(step, Step::Again) {
            return step;
        }
    }
}

fn read(push: &Push) -> (Kind, u64, Vec<String>) {
    let bytes = push.pieces.concat();
    let response = DiscoveryResponse::decode(&bytes[5..]).unwrap();
    assert_eq!(response.type_url, push.kind.url());
    // Every resource begins with its name, in the field 1.
    let name = |any: &prost_types::Any| {
        let length = usize::from(any.value[1]);
        String::from_utf8(any.value[2..2 + length].to_vec()).unwrap()
    };
    let names = response.resources.iter().map(name).collect();
    (push.kind, response.nonce.parse().unwrap(), names)
}

fn offer(session: &mut Session<()>, name: &str, version: u64) {
    assert!(session.is_open());
    session.offer(name, assignment(version, version));
}

fn names(all: &[&str]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}

#[test]
fn a_client_gets_listener_cluster_and_endpoints() {
    let session = &mut session();
    assert_eq!(next(session), None);
    ask(session, Kind::Listener, &["a"], 0);
    assert_eq!(next(session), Some((Kind::Listener, 1, names(&["a"]))));
    assert_eq!(ask(session, Kind::Listener, &["a"], 1), Verdict::Accepted);
    ask(session, Kind::Cluster, &["a"], 0);
    assert_eq!(next(session), Some((Kind::Cluster, 2, names(&["a"]))));
    ask(session, Kind::Endpoints, &["a"], 0);
    assert_eq!(next(session), None, "nothing is known of it yet");
    offer(session, "a", 7);
    assert_eq!(next(session), Some((Kind::Endpoints, 3, names(&["a"]))));
    assert_eq!(ask(session, Kind::Cluster, &["a"], 2), Verdict::Accepted);
    assert_eq!(ask(session, Kind::Endpoints, &["a"], 3), Verdict::Accepted);
    offer(session, "a", 7);
    assert_eq!(next(session), None, "it has that");
}

#[test]
fn a_longer_list_of_names_with_an_old_nonce_is_a_new_subscription() {
    let session = &mut session();
    ask(session, Kind::Listener, &["hello"], 0);
    next(session);
    ask(session, Kind::Listener, &["hello"], 1);
    assert_eq!(ask(session, Kind::Listener, &["hello", "other"], 1), Verdict::None);
    // Listeners that are missing are deleted, so both are there.
    assert_eq!(next(session), Some((Kind::Listener, 2, names(&["hello", "other"]))));
    ask(session, Kind::Listener, &["hello", "other"], 2);
    ask(session, Kind::Listener, &["hello"], 2);
    assert_eq!(next(session), None, "a shorter list needs no answer");
}

#[test]
fn a_name_that_was_dropped_is_sent_again() {
    let session = &mut session();
    for round in 0..3 {
        let nonce = 2 * round;
        ask(session, Kind::Listener, &["a"], nonce);
        assert_eq!(next(session), Some((Kind::Listener, nonce + 1, names(&["a"]))));
        ask(session, Kind::Endpoints, &["a"], nonce);
        offer(session, "a", 7);
        assert_eq!(next(session), Some((Kind::Endpoints, nonce + 2, names(&["a"]))));
        ask(session, Kind::Listener, &["a"], nonce + 1);
        ask(session, Kind::Endpoints, &["a"], nonce + 2);
        // Idle: no names, the nonce of the last response.
        ask(session, Kind::Listener, &[], nonce + 1);
        ask(session, Kind::Endpoints, &[], nonce + 2);
        assert_eq!(next(session), None);
    }
}

#[test]
fn no_names_and_a_star_want_nothing() {
    let session = &mut session();
    for kind in Kind::ALL {
        ask(session, kind, &[], 0);
        ask(session, kind, &["*", ""], 0);
    }
    assert_eq!((next(session), session.names().len()), (None, 0));
}

#[test]
fn the_newest_content_waits_for_an_answer() {
    let session = &mut session();
    ask(session, Kind::Endpoints, &["a", "b"], 0);
    offer(session, "a", 1);
    assert_eq!(next(session), Some((Kind::Endpoints, 1, names(&["a"]))));
    assert!(!session.is_open());
    assert_eq!(next(session), None);
    // An answer to something else is none.
    assert_eq!(ask(session, Kind::Endpoints, &["a", "b"], 9), Verdict::None);
    assert!(!session.is_open());
    assert_eq!(ask(session, Kind::Endpoints, &["a", "b"], 1), Verdict::Accepted);
    for (name, version) in [("a", 2), ("a", 3), ("b", 4)] {
        offer(session, name, version);
    }
    assert_eq!(next(session), Some((Kind::Endpoints, 2, names(&["a", "b"]))));
}

#[test]
fn a_refusal_counts_once_and_nothing_is_repeated() {
    let session = &mut session();
    ask(session, Kind::Endpoints, &["a"], 0);
    offer(session, "a", 1);
    next(session);
    let no = Verdict::Refused("no".to_owned());
    assert_eq!(request(session, Kind::Endpoints, &["a"], 1, Some("no")), no);
    offer(session, "a", 1);
    assert_eq!(next(session), None);
    // Node repeats its error with every later request.
    assert_eq!(request(session, Kind::Endpoints, &["a", "b"], 1, Some("no")), Verdict::None);
    offer(session, "a", 2);
    assert_eq!(next(session), Some((Kind::Endpoints, 2, names(&["a"]))));
    assert_eq!(ask(session, Kind::Endpoints, &["a", "b"], 2), Verdict::Accepted);
}

#[test]
fn changes_of_weights_alone_wait_and_other_changes_do_not() {
    let (session, damping) = (&mut session(), Duration::from_secs(10));
    let start = NOW();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut nonce = 0;
    let mut next = |version, members, seconds| {
        ask(session, Kind::Endpoints, &["a"], nonce);
        session.offer("a", assignment(version, members));
        match session.step(at(seconds), damping, plain) {
            Step::Send(push) => {
                nonce = read(&push).1;
                Some(Ok(push.version))
            }
            Step::WaitUntil(until) => Some(Err(until - start)),
            Step::Again | Step::Nothing => None,
        }
    };
    assert_eq!(next(1, 1, 0), Some(Ok(1)));
    assert_eq!(next(2, 1, 1), Some(Err(Duration::from_secs(10))));
    assert_eq!(next(1, 1, 2), None, "the weight is as it was");
    assert_eq!(next(3, 1, 3), Some(Err(Duration::from_secs(10))));
    assert_eq!(next(4, 2, 4), Some(Ok(4)), "a backend came or went");
    assert_eq!(next(5, 2, 13), Some(Err(Duration::from_secs(14))));
    assert_eq!(next(5, 2, 14), Some(Ok(5)));
}

/// A listener is sent again only if the settings change it, and then with all others.
#[test]
fn other_settings_are_sent_where_they_matter() {
    let session = &mut session();
    ask(session, Kind::Listener, &["a", "b"], 0);
    assert_eq!(next(session), Some((Kind::Listener, 1, vec!["a".into(), "b".into()])));
    ask(session, Kind::Cluster, &["a"], 0);
    assert_eq!(next(session), Some((Kind::Cluster, 2, vec!["a".into()])));
    ask(session, Kind::Listener, &["a", "b"], 1);
    ask(session, Kind::Cluster, &["a"], 2);
    let mut settings = ServiceSettings::DEFAULT;
    settings.guard = 3;
    session.settle("a", |kind, name| Resource::new(kind, name, &settings));
    assert_eq!(next(session), None);
    settings.xds.timeout = Duration::from_secs(1);
    let slow = |kind, name: &str| match name {
        "a" => Resource::new(kind, name, &settings),
        _ => plain(kind, name),
    };
    session.settle("a", slow);
    let again = step(session, NOW(), slow);
    let Step::Send(push) = again else { panic!("a response") };
    assert_eq!(read(&push), (Kind::Listener, 3, vec!["a".into(), "b".into()]));
    session.settle("a", slow);
    session.settle("nobody", slow);
    ask(session, Kind::Listener, &["a", "b"], 3);
    assert_eq!(next(session), None);
}

/// A response with many names is made in several steps.
#[test]
fn names_that_come_while_a_response_is_made_are_in_it() {
    let session = &mut session();
    let many: Vec<_> = (0..100).map(|n| format!("b{n:03}")).collect();
    let all: Vec<_> = many.iter().map(String::as_str).collect();
    ask(session, Kind::Listener, &all, 0);
    assert!(matches!(session.step(NOW(), Duration::ZERO, plain), Step::Again));
    // It comes before those that have been made.
    let more = [&["a"], &all[..]].concat();
    ask(session, Kind::Listener, &more, 0);
    assert_eq!(next(session), Some((Kind::Listener, 1, names(&more))));
}

/// What a client does or what happens to a name.
#[derive(Debug, Clone)]
enum Act {
    Want(Kind, Vec<usize>),
    Answer(Kind, bool),
    Change(usize),
    Push,
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let kind = || prop::sample::select(Kind::ALL.to_vec());
    let some = prop::collection::vec(0..NAMES.len(), 0..4);
    let act = prop_oneof![
        (kind(), some).prop_map(|(kind, names)| Act::Want(kind, names)),
        (kind(), any::<bool>()).prop_map(|(kind, good)| Act::Answer(kind, good)),
        (0..NAMES.len()).prop_map(Act::Change),
        Just(Act::Push),
    ];
    prop::collection::vec(act, 0..60)
}

proptest! {
    /// Whatever a client does, it ends with the newest content of exactly what it wants,
    /// never has two unanswered responses of a type, and never loses a listener.
    #[test]
    fn a_client_ends_with_what_it_wants(acts in acts()) {
        let mut session = session();
        let mut wanted: BTreeMap<Kind, BTreeSet<&str>> = BTreeMap::new();
        let mut newest = BTreeMap::from(NAMES.map(|name| (name, 1_u64)));
        let mut open: BTreeMap<Kind, u64> = BTreeMap::new();
        let mut last: BTreeMap<Kind, u64> = BTreeMap::new();
        let mut has: BTreeMap<&str, u64> = BTreeMap::new();
        let end = [Act::Push, Act::Answer(Kind::Listener, true), Act::Answer(Kind::Cluster, true),
            Act::Answer(Kind::Endpoints, true)];
        let end = (0..6).flat_map(|_| end.clone());
        for act in acts.into_iter().chain(end) {
            match act {
                Act::Want(kind, names) => {
                    let names: BTreeSet<_> = names.into_iter().map(|name| NAMES[name]).collect();
                    if kind == Kind::Endpoints {
                        has.retain(|name, _| names.contains(name));
                    }
                    let all: Vec<_> = names.iter().copied().collect();
                    wanted.insert(kind, names);
                    let answered = open.remove(&kind).is_some();
                    let nonce = last.get(&kind).copied().unwrap_or(0);
                    let verdict = ask(&mut session, kind, &all, nonce);
                    prop_assert_eq!(verdict == Verdict::Accepted, answered);
                }
                Act::Answer(kind, good) => {
                    let Some(nonce) = open.remove(&kind) else { continue };
                    let all: Vec<_> = wanted.get(&kind).into_iter().flatten().copied().collect();
                    request(&mut session, kind, &all, nonce, (!good).then_some("no"));
                }
                Act::Change(name) => *newest.get_mut(NAMES[name]).unwrap() += 1,
                Act::Push => loop {
                    let ready = session.is_open();
                    for name in NAMES.into_iter().filter(|_| ready) {
                        session.offer(name, assignment(newest[name], 0));
                    }
                    let next = step(&mut session, NOW(), plain);
                    let Step::Send(push) = next else { break };
                    let (kind, nonce, names) = read(&push);
                    prop_assert_eq!(open.insert(kind, nonce), None);
                    prop_assert!(last.insert(kind, nonce) < Some(nonce));
                    if kind != Kind::Endpoints {
                        let all: BTreeSet<_> = names.iter().map(String::as_str).collect();
                        prop_assert_eq!(&all, &wanted[&kind]);
                    }
                    for (name, assignment) in &push.assignments {
                        let name = NAMES.into_iter().find(|one| **one == **name).unwrap();
                        prop_assert!(wanted[&kind].contains(name));
                        has.insert(name, assignment.version);
                    }
                },
            }
        }
        let names = wanted.remove(&Kind::Endpoints).unwrap_or_default();
        let expected: BTreeMap<_, _> = names.into_iter().map(|name| (name, newest[name])).collect();
        prop_assert_eq!(has, expected);
    }
}

/// As Node does for each of its targets.
#[test]
fn only_names_that_are_added_at_the_end_are_compared() {
    let mut session = session();
    let mut take = |names: &[&str], room: usize| {
        let mut new = Vec::new();
        let request = Request {
            kind: Kind::Endpoints,
            names: Names::of(names),
            nonce: String::new(),
            error: None,
        };
        let share = |name: &str| name.into();
        let taken = session.take(request, room, share, |name| new.push(name.to_string()));
        (taken.compared, taken.changed, new.concat(), session.left_out())
    };
    let room = usize::MAX;
    assert_eq!(take(&["c"], room), (Compared::All, true, "c".to_owned(), 0));
    assert_eq!(take(&["c", "a"], room), (Compared::Ends, true, "a".to_owned(), 0));
    assert_eq!(take(&["c", "a"], room), (Compared::Nothing, false, String::new(), 0));
    let again = ["c", "a", "*", "", "a"];
    assert_eq!(take(&again, room), (Compared::Ends, false, String::new(), 0));
    assert_eq!(take(&["c", "b", "a"], room), (Compared::All, true, "b".to_owned(), 0));
    let more = ["c", "b", "a", "d", "e"];
    assert_eq!(take(&more, 4 * 97), (Compared::Ends, true, "d".to_owned(), 1));
    assert_eq!(take(&more, room), (Compared::All, true, "e".to_owned(), 0));
}

proptest! {
    /// Whatever is added or taken away, a stream wants the names of its last request.
    #[test]
    fn the_names_of_the_last_request_are_wanted(
        requests in prop::collection::vec((any::<bool>(), prop::collection::vec("[a-e*]{0,2}", 0..4)), 1..9),
    ) {
        let (mut session, mut names) = (session(), Vec::new());
        for (anew, more) in requests {
            if anew {
                names.clear();
            }
            names.extend(more);
            let all: Vec<_> = names.iter().map(String::as_str).collect();
            ask(&mut session, Kind::Endpoints, &all, 0);
            let wanted: BTreeSet<_> = all.into_iter().filter(|name| !matches!(*name, "" | "*")).collect();
            let found = session.names();
            prop_assert_eq!(found.iter().map(|name| &**name).collect::<Vec<_>>(), wanted.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(session.cost(), wanted.iter().map(|name| 96 + name.len()).sum::<usize>());
        }
    }
}
