//! Holds a history against the model: what must be true after every fault.
//!
//! In: what clients were told, what was registered, when all faults were over.
//! Out: every breach in words. Pure.
//!
//! I1 every list is what was registered at some time. I2 no stream goes back
//! to an older state. I3 after the faults every live stream gets to the newest
//! state within a bound. I4 no list is empty unless everybody deregistered. I5
//! nothing leaks and nothing panics. I6 memory stays within its bound.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::model::{Model, Step};
use crate::support::crowd::{History, Set, What};

/// After the faults.
#[derive(Debug, Clone, Copy)]
pub struct Settled {
    /// When all faults were over and the last registration was written.
    pub at: Instant,
    /// So long the newest state may take.
    pub within: Duration,
}

/// What a process holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Vitals {
    pub files: u64,
    pub streams: u64,
    /// Resident memory in KiB.
    pub memory: u64,
}

/// I1 to I4. `names` are the services of the clients, by their index, and
/// whether their streams live.
pub fn lists(
    history: &History,
    model: &Model,
    names: &[(String, bool)],
    settled: Option<Settled>,
) -> Vec<String> {
    let mut breaches = Vec::new();
    let mut places: HashMap<(u32, u32), usize> = HashMap::new();
    let mut fitting: HashMap<(&str, u32), Vec<usize>> = HashMap::new();
    let mut last: HashMap<u32, (usize, Instant)> = HashMap::new();
    let nothing = Set::new();
    for told in &history.told {
        let (name, _) = &names[told.client as usize];
        let steps = model.steps(name);
        let who = || format!("client {} of {name}, stream {}", told.client, told.stream);
        let set = match told.what {
            What::Servers(index) => &history.sets[index as usize],
            What::Nothing | What::Fallback => &nothing,
        };
        // The key of a list without servers is no index of a set.
        let key = match told.what {
            What::Servers(index) => index,
            What::Nothing | What::Fallback => u32::MAX,
        };
        let fit = fitting.entry((name, key)).or_insert_with(|| {
            (0..steps.len()).filter(|&index| allows(&steps[index], set)).collect()
        });
        let written = |index: &&usize| steps[**index].at <= told.at;
        let before_all = steps.is_empty() || told.at < steps[0].at;
        if set.is_empty() && !before_all && fit.iter().filter(written).count() == 0 {
            breaches.push(format!("I4: {} was told of no server: {:?}", who(), told.what));
            continue;
        }
        if set.is_empty() && before_all {
            continue;
        }
        let place = places.entry((told.client, told.stream)).or_default();
        let next = fit.partition_point(|index| index < place);
        match fit[next..].iter().find(written) {
            Some(&index) => {
                *place = index;
                last.insert(told.client, (*fit.last().expect("one was found"), told.at));
            }
            None if fit.iter().filter(written).count() > 0 => {
                breaches.push(format!("I2: {} went back", who()));
            }
            None => breaches.push(format!("I1: {} got a list that never was: {set:?}", who())),
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

/// I3. A list that is right for several steps counts for the last of them.
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
            Some(&(step, told)) if step == newest && told <= at + within => {}
            Some(&(step, told)) if step == newest => {
                let late = told.saturating_duration_since(at);
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

/// I5, once all clients are gone.
pub fn leaks(log: &str, before: Vitals, after: Vitals) -> Vec<String> {
    let mut breaches = Vec::new();
    if log.contains("panicked at") {
        breaches.push(format!("I5: a panic: {log}"));
    }
    // A handful comes and goes with etcd's connections and probes.
    if after.files > before.files + before.files / 100 + 8 {
        breaches.push(format!("I5: {} open files, and {} before", after.files, before.files));
    }
    if after.streams > before.streams {
        breaches.push(format!("I5: {} streams, and {} before", after.streams, before.streams));
    }
    breaches
}

/// I6.
pub fn memory(now: Vitals, bound: u64) -> Vec<String> {
    let over = now.memory > bound;
    over.then(|| format!("I6: {} KiB of memory, at most {bound}", now.memory)).into_iter().collect()
}

/// How soon each client got something that holds from the step at `at` on, for
/// the services that have such a step. Shortest first.
pub fn freshness(
    history: &History,
    model: &Model,
    names: &[(String, bool)],
    at: Instant,
) -> Vec<Duration> {
    let mut fresh: HashMap<u32, Duration> = HashMap::new();
    for told in &history.told[history.told.partition_point(|told| told.at < at)..] {
        let steps = model.steps(&names[told.client as usize].0);
        let since = steps.partition_point(|step| step.at < at);
        let What::Servers(index) = told.what else { continue };
        let set = &history.sets[index as usize];
        if !fresh.contains_key(&told.client) && steps[since..].iter().any(|s| allows(s, set)) {
            fresh.insert(told.client, told.at - at);
        }
    }
    let mut all: Vec<_> = fresh.into_values().collect();
    all.sort_unstable();
    all
}

/// Enough to see what is wrong.
const BREACHES_MAX: usize = 5;

fn allows(step: &Step, set: &Set) -> bool {
    step.allows(set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::crowd::Told;

    struct World {
        began: Instant,
        history: History,
        model: Model,
    }

    impl World {
        /// At 1 s `a` registers, at 2 s `b`, at 3 s `a` leaves.
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

        fn told(&mut self, second: u64, stream: u32, servers: &[u8]) {
            let what = self.history.what(|| servers.iter().map(|&n| server(n)));
            let at = self.began + Duration::from_secs(second);
            self.history.told.push(Told { client: 0, stream, at, what });
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
        world.told(0, 1, &[]);
        world.told(1, 1, &[1]);
        world.told(2, 1, &[1, 2]);
        world.told(5, 1, &[2]);
        assert_eq!(world.breaches(true), Vec::<String>::new());
        // Steps may be left out, and those who are gone need not be told.
        let mut world = World::new();
        world.told(1, 1, &[1]);
        assert_eq!(world.breaches(false), Vec::<String>::new());
        world.told(4, 1, &[2]);
        assert_eq!(world.breaches(true), Vec::<String>::new());
    }

    #[test]
    fn each_breach_is_found() {
        for (second, servers, breach) in
            [(2, [7].as_slice(), "I1"), (5, &[1, 2, 3], "I1"), (1, &[1, 2], "I1"), (3, &[], "I4")]
        {
            let mut world = World::new();
            world.told(second, 1, servers);
            assert_eq!(world.breaches(false), [breach], "{servers:?}");
        }
        let mut world = World::new();
        world.told(2, 1, &[1, 2]);
        world.told(3, 1, &[1]);
        assert_eq!(world.breaches(false), ["I2"]);
        // On another stream it is another balancer's word.
        let mut world = World::new();
        world.told(2, 1, &[1, 2]);
        world.told(3, 2, &[1]);
        assert_eq!(world.breaches(false), Vec::<String>::new());
        for told in [None, Some((2, [1, 2].as_slice())), Some((9, &[2]))] {
            let mut world = World::new();
            if let Some((second, servers)) = told {
                world.told(second, 1, servers);
            }
            assert_eq!(world.breaches(true), ["I3"], "{told:?}");
        }
    }

    #[test]
    fn what_is_in_doubt_may_be_told_or_not() {
        let mut world = World::new();
        let at = world.began + Duration::from_secs(4);
        world.model.between("s", Set::new(), [server(2)].into(), at);
        world.told(5, 1, &[2]);
        world.told(5, 1, &[]);
        assert_eq!(world.breaches(true), Vec::<String>::new());
        world.told(5, 1, &[1, 2]);
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
    fn freshness_is_counted_from_the_change() {
        let mut world = World::new();
        let at = world.began + Duration::from_secs(3);
        world.told(3, 1, &[1, 2]);
        world.told(7, 1, &[2]);
        let names = [("s".to_owned(), true)];
        let fresh = freshness(&world.history, &world.model, &names, at);
        assert_eq!(fresh, [Duration::from_secs(4)]);
    }
}
