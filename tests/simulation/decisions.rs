//! The decisions of operators in a run.
//!
//! In: a plan and its history. Out: which backends were drained when, which documents and
//! marks for clients were in force when, and whether calls of empty services fail. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::history::{Record, Set, What};
use crate::plan::{self, Host, Plan, Step};
use crate::policies::{Document, Mark, Policy};
use crate::world::Outcome;

pub struct OperatorDecisions {
    /// Backend, beginning and end of each drain.
    drains: Vec<(usize, u64, u64)>,
    /// The two addresses of each backend.
    addresses: Vec<[SocketAddr; 2]>,
    services: Vec<usize>,
    marks: Vec<ClientMark>,
    /// Each document, and when it was applied.
    documents: Vec<(u64, Document)>,
    /// Whether calls of services without backends fail at the end of the run.
    pub drops: bool,
    /// When etcd may first have lost marks and settings.
    lost: u64,
}

/// A mark for the clients of a service.
#[derive(Debug, Clone, Copy)]
pub struct ClientMark {
    pub service: usize,
    pub mark: Mark,
    pub begun: u64,
    /// When it ended: by its own end, another mark or an operator.
    pub ended: u64,
    /// Its own end, which a balancer knows without etcd.
    pub own_end: u64,
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
            marks: Vec::new(),
            documents: vec![(0, Document::default())],
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
                Step::Rules(number) => {
                    decisions.documents.push((at, plan.policies.documents[number]));
                    continue;
                }
                Step::Mark(service, mark, until) => {
                    decisions.end_mark(service, mark, at);
                    let own_end = until.map_or(u64::MAX, |end| end * 1_000);
                    let mark = ClientMark { service, mark, begun: at, ended: own_end, own_end };
                    decisions.marks.push(mark);
                    continue;
                }
                Step::Unmark(service, mark) => {
                    decisions.end_mark(service, mark, at);
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

    /// Ends a mark of the same key.
    fn end_mark(&mut self, service: usize, mark: Mark, at: u64) {
        let is_fallback = |mark: Mark| mark == Mark::Fallback;
        for one in &mut self.marks {
            if one.service == service && is_fallback(one.mark) == is_fallback(mark) {
                one.ended = at.min(one.ended);
            }
        }
    }

    /// Returns the settings of a service that a balancer may have had at some time. `sure`:
    /// it had those that etcd had.
    pub fn policies(&self, service: usize, from: u64, until: u64, sure: bool) -> Vec<Policy> {
        let until = self.documents.partition_point(|(at, _)| *at <= until);
        let before = self.documents.partition_point(|(at, _)| *at <= from);
        let first = if sure { before - 1 } else { 0 };
        self.documents[first..until].iter().map(|(_, document)| document[service]).collect()
    }

    /// Returns when the newest document was applied.
    pub fn settings_at(&self) -> u64 {
        self.documents.last().map_or(0, |(at, _)| *at)
    }

    /// Returns the percentages of the calls that clients of a service may have had to drop at
    /// some time.
    pub fn sheds(&self, service: usize, from: u64, until: u64, sure: bool) -> BTreeSet<u32> {
        let shed = |mark: &Mark| match mark {
            Mark::Shed(percent) => Some(*percent),
            Mark::Fallback => None,
        };
        self.told(service, from, until, sure, &shed)
            .into_iter()
            .map(Option::unwrap_or_default)
            .collect()
    }

    /// Returns whether clients of a service may have had to use DNS at some time: which of
    /// the answers are possible.
    pub fn fallbacks(&self, service: usize, from: u64, until: u64, sure: bool) -> BTreeSet<bool> {
        let fallback = |mark: &Mark| (*mark == Mark::Fallback).then_some(true);
        self.told(service, from, until, sure, &fallback)
            .into_iter()
            .map(|one| one.is_some())
            .collect()
    }

    fn told<T>(
        &self,
        service: usize,
        from: u64,
        until: u64,
        sure: bool,
        what: &dyn Fn(&Mark) -> Option<T>,
    ) -> Vec<Option<T>> {
        let own = || {
            let own = self.marks.iter().filter(|one| one.service == service);
            own.filter_map(|one| Some((what(&one.mark)?, one)))
        };
        if !sure {
            // Every balancer ends a mark itself, whatever it knows of etcd.
            let ever = own().filter(|(_, one)| one.begun <= until && from < one.own_end);
            return ever.map(|(what, _)| Some(what)).chain([None]).collect();
        }
        let mut all: Vec<Option<T>> = own()
            .filter(|(_, one)| one.begun < one.ended && one.begun <= until && from < one.ended)
            .map(|(what, _)| Some(what))
            .collect();
        if !own().any(|(_, one)| one.begun <= from && until < one.ended) {
            all.push(None);
        }
        all
    }

    /// Returns the marks for the clients of a service that are in force at a time.
    pub fn marks(&self, service: usize, at: u64) -> impl Iterator<Item = &ClientMark> {
        let own = self.marks.iter().filter(move |one| one.service == service);
        own.filter(move |one| one.begun <= at && at < one.ended)
    }

    /// Returns the marks for the clients of a service that have ended by themselves.
    pub fn ended_marks(&self, service: usize, at: u64) -> impl Iterator<Item = &ClientMark> {
        let own = self.marks.iter().filter(move |one| one.service == service);
        own.filter(move |one| one.begun < one.ended && one.ended == one.own_end && one.ended <= at)
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
