//! Compares a history with the model and finds breaches of seven invariants.
//!
//! In: the lists that clients got, the registrations, and when all faults were over.
//! Out: a text for each breach. Pure.
//!
//! I1: every list is a state that was registered at some time. I2: no stream goes
//! back to an older state. I3: after the faults, every live stream gets the newest
//! state within a bound. I4: no list is empty unless all backends are deregistered.
//! I5: nothing leaks and nothing panics. I6: memory stays within its bound. I7: no response
//! breaks the rules of xDS, which `support/crowd/xds.rs` lists.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::model::Model;
use crate::support::crowd::{Content, History, Received, Set};

/// When the faults ended, and how long the newest state may take after that.
#[derive(Debug, Clone, Copy)]
pub struct Settled {
    /// When all faults were over and the last registration was written.
    pub at: Instant,
    /// How long after `at` the newest state may reach a client.
    pub within: Duration,
}

/// The resources that a process uses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Vitals {
    pub files: u64,
    pub streams: u64,
    /// Resident memory in KiB.
    pub memory: u64,
}

/// Returns breaches of I1 to I4, and of I7. `names` holds, for each client, its service and
/// whether its stream is live.
pub fn lists(
    history: &History,
    model: &Model,
    names: &[(String, bool)],
    settled: Option<Settled>,
) -> Vec<String> {
    let broken = history.broken.iter();
    let mut breaches: Vec<_> = broken.map(|what| format!("I7: {what}")).collect();
    let mut places = Places::new(history, model);
    let mut last: HashMap<u32, (usize, Instant)> = HashMap::new();
    for received in &history.received {
        let (name, _) = &names[received.client as usize];
        let who = || format!("client {} of {name}, stream {}", received.client, received.stream);
        match places.find(received, name) {
            Place::BeforeAll => {}
            Place::Step { newest, .. } => drop(last.insert(received.client, (newest, received.at))),
            Place::Older => breaches.push(format!("I2: {} went back", who())),
            Place::None => breaches.push(match received.what {
                Content::Servers(index) => {
                    let set = &history.sets[index as usize];
                    format!("I1: {} got a list that never was: {set:?}", who())
                }
                Content::Nothing | Content::Fallback => {
                    format!("I4: {} was told of no server: {:?}", who(), received.what)
                }
            }),
        }
        if breaches.len() >= BREACHES_MAX {
            return breaches;
        }
    }
    if let Some(settled) = settled {
        breaches.extend(late(model, names, settled, &last));
    }
    breaches
}

/// Returns, for every list, how long its client waited for the oldest change in it,
/// shortest first.
pub fn lags(history: &History, model: &Model, names: &[(String, bool)]) -> Vec<Duration> {
    let mut places = Places::new(history, model);
    let mut lags = Vec::new();
    for received in &history.received {
        let name = &names[received.client as usize].0;
        let before = places.of(received);
        if let (Place::Step { first, .. }, Some(before)) = (places.find(received, name), before)
            && first > before
        {
            lags.push(received.at.saturating_duration_since(model.steps(name)[before + 1].at));
        }
    }
    lags.sort_unstable();
    lags
}

/// The step of its service that each stream has reached.
struct Places<'a> {
    history: &'a History,
    model: &'a Model,
    now: HashMap<(u32, u32), usize>,
    /// The steps of a service for which a list is right.
    fitting: HashMap<(&'a str, Content), Vec<usize>>,
    steps: HashMap<&'a str, Steps<'a>>,
}

/// The steps of a service, indexed by their lists.
#[derive(Default)]
struct Steps<'a> {
    /// Steps for which exactly one list is right.
    exact: HashMap<&'a Set, Vec<usize>>,
    others: Vec<usize>,
}

/// How a list relates to the steps of its service.
enum Place {
    /// Empty, and sent before anything was registered.
    BeforeAll,
    /// Right at `first`, and last right at `newest`.
    Step {
        first: usize,
        newest: usize,
    },
    /// Right once, but not since the step of the stream's former list.
    Older,
    None,
}

impl<'a> Places<'a> {
    fn new(history: &'a History, model: &'a Model) -> Self {
        let (now, fitting, steps) = Default::default();
        Self { history, model, now, fitting, steps }
    }

    /// Returns the step that the list's stream had reached before this list, if any.
    fn of(&self, received: &Received) -> Option<usize> {
        self.now.get(&(received.client, received.stream)).copied()
    }

    fn find(&mut self, received: &Received, name: &'a str) -> Place {
        let steps = self.model.steps(name);
        let place = self.of(received).unwrap_or(0);
        let fitting = self.fitting(name, received.what);
        let written = |index: &usize| steps[*index].at <= received.at;
        let next = fitting.partition_point(|&index| index < place);
        let found = fitting[next..].iter().copied().find(written);
        let (newest, once) = (fitting.last().copied(), fitting.iter().any(written));
        let empty = !matches!(received.what, Content::Servers(_));
        match (found, newest) {
            (Some(first), Some(newest)) => {
                self.now.insert((received.client, received.stream), first);
                Place::Step { first, newest }
            }
            _ if empty && steps.first().is_none_or(|first| received.at < first.at) => {
                Place::BeforeAll
            }
            _ if once => Place::Older,
            _ => Place::None,
        }
    }

    fn fitting(&mut self, name: &'a str, what: Content) -> &[usize] {
        static NOTHING: Set = Set::new();
        let set = match what {
            Content::Servers(index) => &self.history.sets[index as usize],
            Content::Nothing | Content::Fallback => &NOTHING,
        };
        let steps = self.model.steps(name);
        let found = self.steps.entry(name).or_insert_with(|| {
            let mut found = Steps::default();
            for (n, step) in steps.iter().enumerate() {
                match step.is_exact() {
                    true => found.exact.entry(&step.may).or_default().push(n),
                    false => found.others.push(n),
                }
            }
            found
        });
        self.fitting.entry((name, what)).or_insert_with(|| {
            let mut all = found.exact.get(set).cloned().unwrap_or_default();
            all.extend(found.others.iter().filter(|&&n| steps[n].allows(set)));
            all.sort_unstable();
            all
        })
    }
}

/// Returns breaches of I3. A list that is right for several steps counts as the last
/// of them.
fn late(
    model: &Model,
    names: &[(String, bool)],
    Settled { at, within }: Settled,
    last: &HashMap<u32, (usize, Instant)>,
) -> Vec<String> {
    let mut breaches = Vec::new();
    for (client, (name, _)) in (0_u32..).zip(names).filter(|(_, (_, live))| *live) {
        let Some(newest) = model.steps(name).len().checked_sub(1) else { continue };
        match last.get(&client) {
            Some(&(step, received)) if step == newest && received <= at + within => {}
            Some(&(step, received)) if step == newest => {
                let late = received.saturating_duration_since(at);
                breaches.push(format!("I3: client {client} of {name} is told after {late:?} only"));
            }
            Some(_) => breaches.push(format!("I3: client {client} of {name} has an old list")),
            None => breaches.push(format!("I3: client {client} of {name} has no list")),
        }
        if breaches.len() >= BREACHES_MAX {
            break;
        }
    }
    breaches
}

/// Returns breaches of I5. Call it once all clients have ended.
pub fn leaks(log: &str, before: Vitals, after: Vitals) -> Vec<String> {
    let mut breaches = Vec::new();
    if log.contains("panicked at") {
        breaches.push(format!("I5: a panic: {log}"));
    }
    // etcd's connections and probes open and close a few files.
    if after.files > before.files + before.files / 100 + 8 {
        breaches.push(format!("I5: {} open files, and {} before", after.files, before.files));
    }
    if after.streams > before.streams {
        breaches.push(format!("I5: {} streams, and {} before", after.streams, before.streams));
    }
    breaches
}

/// Returns a breach of I6 if the process uses more than `bound` KiB.
pub fn memory(now: Vitals, bound: u64) -> Vec<String> {
    let over = now.memory > bound;
    over.then(|| format!("I6: {} KiB of memory, at most {bound}", now.memory)).into_iter().collect()
}

/// The number of breaches after which checking stops.
const BREACHES_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        began: Instant,
        history: History,
        model: Model,
    }

    impl World {
        /// `a` registers at 1 s, `b` registers at 2 s, and `a` leaves at 3 s.
        fn new() -> Self {
            let mut world = Self {
                began: Instant::now(),
                history: History::default(),
                model: Model::default(),
            };
            let [a, b] = [server(1), server(2)];
            let at = |second| world.began + Duration::from_secs(second);
            world.model.put("s", a, at(1));
            world.model.put("s", b, at(2));
            world.model.delete("s", a, at(3));
            world
        }

        fn received(&mut self, second: u64, stream: u32, servers: &[u8]) {
            let what = self.history.what(|| servers.iter().map(|&n| server(n)));
            let at = self.began + Duration::from_secs(second);
            self.history.received.push(Received { client: 0, stream, at, what });
        }

        fn breaches(&self, live: bool) -> Vec<String> {
            let settled =
                Settled { at: self.began + Duration::from_secs(4), within: Duration::from_secs(2) };
            let mut all =
                lists(&self.history, &self.model, &[("s".to_owned(), live)], Some(settled));
            all.iter_mut().for_each(|breach| breach.truncate(2));
            all
        }
    }

    fn server(n: u8) -> std::net::SocketAddr {
        ([127, 0, 0, n], 1).into()
    }

    #[test]
    fn what_is_right_is_no_breach() {
        let mut world = World::new();
        world.received(0, 1, &[]);
        world.received(1, 1, &[1]);
        world.received(2, 1, &[1, 2]);
        world.received(5, 1, &[2]);
        assert_eq!(world.breaches(true), Vec::<String>::new());
        // A stream may skip steps, and a client that has ended needs no list.
        let mut world = World::new();
        world.received(1, 1, &[1]);
        assert_eq!(world.breaches(false), Vec::<String>::new());
        world.received(4, 1, &[2]);
        assert_eq!(world.breaches(true), Vec::<String>::new());
    }

    #[test]
    fn each_breach_is_found() {
        for (second, servers, breach) in
            [(2, [7].as_slice(), "I1"), (5, &[1, 2, 3], "I1"), (1, &[1, 2], "I1"), (3, &[], "I4")]
        {
            let mut world = World::new();
            world.received(second, 1, servers);
            assert_eq!(world.breaches(false), [breach], "{servers:?}");
        }
        let mut world = World::new();
        world.received(2, 1, &[1, 2]);
        world.received(3, 1, &[1]);
        assert_eq!(world.breaches(false), ["I2"]);
        // Another stream may come from another balancer, so I2 does not apply.
        let mut world = World::new();
        world.received(2, 1, &[1, 2]);
        world.received(3, 2, &[1]);
        assert_eq!(world.breaches(false), Vec::<String>::new());
        for received in [None, Some((2, [1, 2].as_slice())), Some((9, &[2]))] {
            let mut world = World::new();
            if let Some((second, servers)) = received {
                world.received(second, 1, servers);
            }
            assert_eq!(world.breaches(true), ["I3"], "{received:?}");
        }
    }

    #[test]
    fn what_is_in_doubt_may_be_listed_or_not() {
        let mut world = World::new();
        let at = world.began + Duration::from_secs(4);
        world.model.between("s", Set::new(), [server(2)].into(), at);
        world.received(5, 1, &[2]);
        world.received(5, 1, &[]);
        assert_eq!(world.breaches(true), Vec::<String>::new());
        world.received(5, 1, &[1, 2]);
        assert_eq!(world.breaches(true).first().map(String::as_str), Some("I2"));
    }

    #[test]
    fn leaks_panics_and_growth_are_found() {
        let before = Vitals { files: 20, streams: 0, memory: 10_000 };
        assert!(leaks("fine", before, before).is_empty());
        assert_eq!(leaks("thread 'x' panicked at y", before, before).len(), 1);
        assert_eq!(leaks("", before, Vitals { files: 60, ..before }).len(), 1);
        assert_eq!(leaks("", before, Vitals { streams: 1, ..before }).len(), 1);
        assert!(memory(before, 10_000).is_empty());
        assert_eq!(memory(before, 9_999).len(), 1);
    }

    #[test]
    fn a_list_is_as_late_as_the_oldest_change_in_it() {
        let mut world = World::new();
        world.received(1, 1, &[1]);
        world.received(7, 1, &[2]);
        let names = [("s".to_owned(), true)];
        let lags = lags(&world.history, &world.model, &names);
        assert_eq!(lags, [Duration::from_secs(5)]);
    }
}
