//! How often the scenes of the plans reach what they are for.
//!
//! In: the history of each seed. Out: the scenes that too few seeds reach, because any program
//! keeps a promise that nothing tests. Pure, but for the table of all seeds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex, MutexGuard};

use crate::check::Check;
use crate::history::{Record, What};
use crate::plan::{BALANCERS, Host};
use crate::policies::{FLEET, ZONES};
use crate::streams::Stream;
use crate::world::FLEET_PORTS;

/// A state that a run may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scene {
    /// A balancer does not reach more than a fifth of a service, and does not leave it out
    /// although it has waited for reports.
    Doubted,
    /// A balancer that reached no etcd since its start obeys a saved mark for clients.
    SavedMark,
    /// A saved mark ends while its balancer reaches no etcd.
    SavedMarkEnds,
    /// A service has cells, and at the end it is to have none.
    CellsGone,
    /// Clients of a zone get only a part of a service's backends.
    ZoneKept,
    /// Calls of a zone cross into another one that has room.
    ZoneCrossed,
    /// A service has zones, and at the end it is to have none.
    ZonesGone,
    /// The same, and after the settings nothing changes the service.
    ZonesGoneAlone,
}

/// How many of the usual seeds reach each scene at least.
const LEAST: [(Scene, usize); 8] = [
    (Scene::Doubted, 8),
    (Scene::SavedMark, 8),
    (Scene::SavedMarkEnds, 4),
    (Scene::CellsGone, 4),
    (Scene::ZoneKept, 6),
    (Scene::ZoneCrossed, 6),
    (Scene::ZonesGone, 4),
    (Scene::ZonesGoneAlone, 8),
];

impl Scene {
    /// Returns the scene with a name.
    pub fn named(name: &str) -> Option<Self> {
        LEAST.map(|(scene, _)| scene).into_iter().find(|scene| format!("{scene:?}") == name)
    }
}

/// What the seeds of this process have reached.
#[derive(Default)]
pub struct Coverage {
    seeds: Mutex<BTreeMap<u64, Progress>>,
    changed: Condvar,
}

enum Progress {
    Runs,
    Reached(BTreeSet<Scene>),
}

impl Coverage {
    pub const fn new() -> Self {
        Self { seeds: Mutex::new(BTreeMap::new()), changed: Condvar::new() }
    }

    /// Notes that a seed begins to run. Returns whether no other thread runs it or has run it.
    pub fn begin(&self, seed: u64) -> bool {
        let mut seeds = self.lock();
        let is_new = !seeds.contains_key(&seed);
        seeds.entry(seed).or_insert(Progress::Runs);
        is_new
    }

    /// Notes what a seed has reached.
    pub fn end(&self, seed: u64, reached: BTreeSet<Scene>) {
        self.lock().insert(seed, Progress::Reached(reached));
        self.changed.notify_all();
    }

    /// Waits until seeds have run that have begun. Returns the scenes that too few of them
    /// reach, each with the number of seeds that reach it.
    pub fn missing(&self, of: impl Iterator<Item = u64> + Clone) -> Vec<(Scene, usize)> {
        let mut seeds = self.lock();
        let runs = |seeds: &BTreeMap<u64, Progress>| {
            of.clone().any(|seed| matches!(seeds.get(&seed), Some(Progress::Runs)))
        };
        while runs(&seeds) {
            seeds = self.changed.wait(seeds).expect("no holder panics");
        }
        let reached = |scene: Scene| {
            let reaches = |seed: &u64| match seeds.get(seed) {
                Some(Progress::Reached(reached)) => reached.contains(&scene),
                _ => false,
            };
            of.clone().filter(reaches).count()
        };
        let all = LEAST.map(|(scene, least)| (scene, reached(scene), least));
        println!("seeds that reach each scene: {all:?}");
        let few = all.into_iter().filter(|(_, reached, least)| reached < least);
        few.map(|(scene, reached, _)| (scene, reached)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Progress>> {
        self.seeds.lock().expect("no holder panics")
    }
}

/// How long a balancer doubts before the reports of clients count, in milliseconds: 15 s, and
/// the time between two looks.
const DOUBTED: u64 = 16_000;

impl Check<'_> {
    /// Notes which scenes the run reached.
    pub fn scenes(&mut self, streams: &[Stream]) {
        let mut reached = BTreeSet::new();
        for stream in streams {
            reached.extend(self.saved_marks(stream));
        }
        reached.extend(self.doubts());
        reached.extend((0..BALANCERS).flat_map(|balancer| self.fleet_scenes(balancer)));
        self.reached.extend(reached);
    }

    /// Returns what a stream's client was told by a balancer that had only its saved state.
    fn saved_marks(&self, stream: &Stream) -> Vec<Scene> {
        let balancer = Host::Balancer(stream.balancer);
        let mut reached = Vec::new();
        for received in &stream.received {
            let (since, at) = (stream.since, received.at);
            let saved = |begun: u64| begun < since && self.has_heard(stream, begun, received.sent);
            if !self.faults.apart_throughout(Host::Etcd, balancer, since, at) {
                continue;
            }
            if self.decisions.marks(stream.service, at).any(|one| saved(one.begun)) {
                reached.push(Scene::SavedMark);
            }
            let ended = |end: u64| since < end && end < at;
            let mut ended_marks = self.decisions.ended_marks(stream.service, at);
            if ended_marks.any(|one| saved(one.begun) && ended(one.ended)) {
                reached.push(Scene::SavedMarkEnds);
            }
        }
        reached
    }

    fn doubts(&self) -> Option<Scene> {
        let mut since = BTreeMap::new();
        for Record { at, what } in self.records {
            match what {
                What::Decides { balancer, service, digest } if digest.unconfirmed > 0 => {
                    let begun = *since.entry((*balancer, *service)).or_insert(*at);
                    if *at >= begun + DOUBTED {
                        return Some(Scene::Doubted);
                    }
                }
                What::Decides { balancer, service, .. } => {
                    let begun = since.remove(&(*balancer, *service));
                    if begun.is_some_and(|begun| *at >= begun + DOUBTED) {
                        return Some(Scene::Doubted);
                    }
                }
                What::Crashed(Host::Balancer(balancer)) => {
                    since.retain(|(one, _), _| one != balancer)
                }
                _ => {}
            }
        }
        None
    }

    /// Returns what happened to the large service at a balancer since its last start.
    fn fleet_scenes(&self, balancer: usize) -> Vec<Scene> {
        let mut digests = Vec::new();
        for Record { what, .. } in self.records {
            match what {
                What::Decides { balancer: one, service: FLEET, digest } if *one == balancer => {
                    digests.push(digest);
                }
                What::Crashed(Host::Balancer(one)) if *one == balancer => digests.clear(),
                _ => {}
            }
        }
        let policy = self.policy_at_end(FLEET);
        let held = self.truth.service(FLEET).last();
        let is_part = |all: usize| held.is_some_and(|held| all < held.set.len());
        let other = |zone: &str, port: u16| {
            let own = self.plan.policies.layout.zone(usize::from(port) - usize::from(FLEET_PORTS));
            own != zone && ZONES.contains(&own)
        };
        let kept =
            digests.last().is_some_and(|last| last.zones.values().any(|own| is_part(own.len())));
        let crosses = digests.iter().any(|one| {
            let both = ZONES.iter().all(|zone| one.demand.get(*zone).is_some_and(|one| *one > 0));
            let mut zones = one.zones.iter();
            both && zones.any(|(zone, own)| own.iter().any(|addr| other(zone, addr.port())))
        });
        let had_cells = digests.iter().any(|one| !one.subsets.is_empty());
        let had_zones = digests.iter().any(|one| !one.zones.is_empty());
        let alone = held.is_none_or(|held| held.at < self.decisions.settings_at());
        let all = [
            (policy.zones && kept, Scene::ZoneKept),
            (crosses, Scene::ZoneCrossed),
            (had_cells && !policy.cells, Scene::CellsGone),
            (had_zones && !policy.zones, Scene::ZonesGone),
            (had_zones && !policy.zones && policy.abrupt && alone, Scene::ZonesGoneAlone),
        ];
        all.into_iter().filter(|one| one.0).map(|one| one.1).collect()
    }
}
