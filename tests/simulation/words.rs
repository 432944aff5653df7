//! What operators said in a run: who was drained when, and what empty services do. Pure.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::history::{Record, Set, What};
use crate::plan::{self, Host, Plan, Step};
use crate::world::Outcome;

pub struct Words {
    /// From when to when each backend was drained.
    drains: Vec<(usize, u64, u64)>,
    /// A backend's addresses.
    addresses: Vec<[SocketAddr; 2]>,
    services: Vec<usize>,
    /// Whether calls of services without backends fail at last.
    pub drops: bool,
    /// Since when etcd may have lost what was said.
    lost: u64,
}

impl Words {
    pub fn of(plan: &Plan, outcome: &Outcome) -> Self {
        let address = |backend: &plan::Backend, port: u16| {
            SocketAddr::new(outcome.addresses[&Host::Machine(backend.machine)], port)
        };
        let addresses = plan.backends.iter();
        let addresses = addresses.map(|one| one.ports.map(|port| address(one, port)));
        let mut words = Self {
            drains: Vec::new(),
            addresses: addresses.collect(),
            services: plan.backends.iter().map(|backend| backend.service).collect(),
            drops: false,
            lost: u64::MAX,
        };
        let loses = |(_, step): &&(u64, Step)| {
            matches!(step, Step::Disk(plan::Disk::Empty | plan::Disk::Copy))
        };
        if let Some((at, _)) = plan.steps.iter().find(loses) {
            words.lost = *at;
        }
        let mut open: BTreeMap<usize, usize> = BTreeMap::new();
        for Record { at, what } in &outcome.records {
            let (at, What::Said(step)) = (*at, what) else { continue };
            let (backend, until) = match *step {
                Step::Drain(backend, until) => (backend, until.map_or(u64::MAX, |end| end * 1_000)),
                Step::Undrain(backend) => (backend, at),
                Step::Drops(drops) => {
                    words.drops = drops;
                    continue;
                }
                _ => continue,
            };
            if let Some(before) = open.remove(&backend) {
                let end = &mut words.drains[before].2;
                *end = at.min(*end);
            }
            open.insert(backend, words.drains.len());
            words.drains.push((backend, at, until));
        }
        words
    }

    /// Whether etcd held all that time what was said.
    pub fn are_sure(&self, from: u64, until: u64) -> bool {
        until < self.lost || from > plan::HEAL + 1_000
    }

    /// Who was drained, at each moment between two.
    pub fn between(&self, from: u64, until: u64) -> Vec<Set> {
        let ends = self.drains.iter().flat_map(|(_, begun, ended)| [*begun, *ended]);
        let ends = ends.filter(|end| from < *end && *end <= until);
        std::iter::once(from).chain(ends).map(|at| self.at(at)).collect()
    }

    pub fn at(&self, at: u64) -> Set {
        let drained = self.drains.iter().filter(|(_, begun, ended)| *begun <= at && at < *ended);
        drained.flat_map(|(backend, ..)| self.addresses[*backend]).collect()
    }

    /// The drains at a moment: since when, and whom.
    pub fn drained(&self, at: u64) -> impl Iterator<Item = (u64, [SocketAddr; 2])> {
        let drains =
            self.drains.iter().filter(move |(_, begun, ended)| *begun <= at && at < *ended);
        drains.map(|(backend, begun, _)| (*begun, self.addresses[*backend]))
    }

    /// Whether a backend had been drained by then.
    pub fn ever(&self, addr: SocketAddr, by: u64) -> bool {
        let mut all = self.drains.iter().filter(|(_, begun, _)| *begun <= by);
        all.any(|(backend, ..)| self.addresses[*backend].contains(&addr))
    }

    /// Whether one of a service's had.
    pub fn any(&self, service: usize, by: u64) -> bool {
        let mut all = self.drains.iter().filter(|(_, begun, _)| *begun <= by);
        all.any(|(backend, ..)| self.services[*backend] == service)
    }
}
