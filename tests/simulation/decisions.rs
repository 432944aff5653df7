//! The decisions of operators in a run.
//!
//! In: a plan and its history. Out: which backends were drained when, and whether calls
//! of empty services fail. Pure.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::history::{Record, Set, What};
use crate::plan::{self, Host, Plan, Step};
use crate::world::Outcome;

pub struct OperatorDecisions {
    /// Backend, beginning and end of each drain.
    drains: Vec<(usize, u64, u64)>,
    /// The two addresses of each backend.
    addresses: Vec<[SocketAddr; 2]>,
    services: Vec<usize>,
    /// Whether calls of services without backends fail at the end of the run.
    pub drops: bool,
    /// When etcd may first have lost marks and settings.
    lost: u64,
}

impl OperatorDecisions {
    pub fn of(plan: &Plan, outcome: &Outcome) -> Self {
        let address = |backend: &plan::Backend, port: u16| {
            SocketAddr::new(outcome.addresses[&Host::Machine(backend.machine)], port)
        };
        let addresses = plan.backends.iter();
        let addresses = addresses.map(|one| one.ports.map(|port| address(one, port)));
        let mut decisions = Self {
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
            decisions.lost = *at;
        }
        let mut open: BTreeMap<usize, usize> = BTreeMap::new();
        for Record { at, what } in &outcome.records {
            let (at, What::Decided(step)) = (*at, what) else { continue };
            let (backend, until) = match *step {
                Step::Drain(backend, until) => (backend, until.map_or(u64::MAX, |end| end * 1_000)),
                Step::Undrain(backend) => (backend, at),
                Step::Drops(drops) => {
                    decisions.drops = drops;
                    continue;
                }
                _ => continue,
            };
            if let Some(before) = open.remove(&backend) {
                let end = &mut decisions.drains[before].2;
                *end = at.min(*end);
            }
            open.insert(backend, decisions.drains.len());
            decisions.drains.push((backend, at, until));
        }
        decisions
    }

    /// Returns whether etcd held all marks and settings from `from` to `until`.
    pub fn are_sure(&self, from: u64, until: u64) -> bool {
        until < self.lost || from > plan::HEAL + 1_000
    }

    /// Returns the drained addresses at `from` and after each change up to `until`.
    pub fn between(&self, from: u64, until: u64) -> Vec<Set> {
        let ends = self.drains.iter().flat_map(|(_, begun, ended)| [*begun, *ended]);
        let ends = ends.filter(|end| from < *end && *end <= until);
        std::iter::once(from).chain(ends).map(|at| self.at(at)).collect()
    }

    pub fn at(&self, at: u64) -> Set {
        let drained = self.drains.iter().filter(|(_, begun, ended)| *begun <= at && at < *ended);
        drained.flat_map(|(backend, ..)| self.addresses[*backend]).collect()
    }

    /// Returns the drains in force at a moment: beginning and addresses of each.
    pub fn drained(&self, at: u64) -> impl Iterator<Item = (u64, [SocketAddr; 2])> {
        let drains =
            self.drains.iter().filter(move |(_, begun, ended)| *begun <= at && at < *ended);
        drains.map(|(backend, begun, _)| (*begun, self.addresses[*backend]))
    }

    /// Returns whether a backend was drained at any time up to `by`.
    pub fn ever(&self, addr: SocketAddr, by: u64) -> bool {
        let mut all = self.drains.iter().filter(|(_, begun, _)| *begun <= by);
        all.any(|(backend, ..)| self.addresses[*backend].contains(&addr))
    }

    /// Returns whether any backend of a service was drained at any time up to `by`.
    pub fn any(&self, service: usize, by: u64) -> bool {
        let mut all = self.drains.iter().filter(|(_, begun, _)| *begun <= by);
        all.any(|(backend, ..)| self.services[*backend] == service)
    }
}
