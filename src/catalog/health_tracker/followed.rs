//! Decides about the health of one service's backends.
//!
//! In: answers of health checks, the service's endpoints, the reports of its clients, the
//! time. Out: its [`Health`], and when that changes next without an input. Pure. It counts
//! a backend as unhealthy only if the backend itself says so, or if the reports of clients
//! do not say otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::facts::panic::{self, Panic};
use crate::facts::reported::{Reported, Totals, Verdict};
use crate::facts::rise_fall::{Change, RiseFall, Thresholds};
use crate::load::ServiceCalls;
use crate::marks::ServiceMarks;
use crate::model::{BackendAddr, Endpoint};
use crate::settings::{HealthCheck, HealthKind, ServiceSettings};

use super::{Health, HealthAnswer, millis};

/// A service whose backends are checked. Times are in milliseconds.
#[derive(Debug)]
pub(super) struct Followed {
    pub(super) check: Arc<HealthCheck>,
    pub(super) settings: Arc<ServiceSettings>,
    pub(super) addresses: BTreeSet<BackendAddr>,
    /// The backends whose newest answers are not all good. All others are healthy.
    troubled: BTreeMap<BackendAddr, Troubled>,
    /// The backends that were not listed and are healthy again, and must start slowly.
    pub(super) cold: BTreeSet<BackendAddr>,
    panic: Panic,
    pub(super) reported: Reported,
    pub(super) health: Health,
    /// When the health changes next. The tracker has it too.
    pub(super) due: Option<Instant>,
}

/// A backend with trouble.
#[derive(Debug)]
struct Troubled {
    state: RiseFall,
    /// The newest failure.
    why: HealthAnswer,
    /// Whether it counts as unhealthy.
    counted: bool,
    /// What clients report of their calls to it, if they say which backends they call.
    reported: Option<Reported>,
}

/// A moment, twice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Time {
    pub(super) instant: Instant,
    pub(super) millis: u64,
}

/// A balancer alone decides about at most this part of a service's weight: a fifth. Beyond
/// it, it asks whether clients report answered calls before it counts a backend that it
/// cannot reach as unhealthy.
const ALONE: u64 = 5;
/// The longest time for which the reports of clients outweigh what this balancer sees.
const UNCONFIRMED_MAX: u64 = 600_000;
/// The shortest span in which clients report: those that report every second do not all
/// do it at once.
const SPAN_MIN: u64 = 15_000;
/// The longest span: clients that report more rarely are not waited for.
const SPAN_MAX: u64 = 90_000;

impl Followed {
    pub(super) fn new(check: Arc<HealthCheck>, settings: Arc<ServiceSettings>, now: u64) -> Self {
        Self {
            check,
            settings,
            addresses: BTreeSet::new(),
            troubled: BTreeMap::new(),
            cold: BTreeSet::new(),
            panic: Panic::default(),
            reported: Reported::new(now),
            health: Health::default(),
            due: None,
        }
    }

    /// Records an answer. Returns whether the health may change.
    pub(super) fn record(&mut self, addr: BackendAddr, answer: HealthAnswer, now: u64) -> bool {
        let healthy = answer.is_healthy();
        let health = &self.settings.health;
        // `fall` is for lost packets. What the backend itself says is certain.
        let fall = if answer.is_explicit() { 1 } else { health.fall };
        let one = self.troubled.entry(addr).or_insert_with(|| Troubled {
            state: RiseFall::new(now),
            why: answer,
            counted: false,
            reported: None,
        });
        let was_own_word = one.why.is_own_word();
        if !healthy && !one.counted {
            one.why = answer;
        }
        match one.state.record(healthy, Thresholds { rise: health.rise, fall }, now) {
            Some(Change::Fell) => true,
            Some(rose) => {
                let left_out = one.counted && !self.health.panic;
                if left_out && health.kind != HealthKind::Observe && rose.is_cold_start() {
                    self.cold.insert(addr);
                }
                self.troubled.remove(&addr);
                true
            }
            None if healthy && one.state.is_healthy() => {
                self.troubled.remove(&addr);
                false
            }
            None => !one.state.is_healthy() && was_own_word != one.why.is_own_word(),
        }
    }

    /// Takes what clients have reported since the start. Returns whether the health may change.
    pub(super) fn hear(&mut self, calls: &ServiceCalls, now: u64) -> bool {
        let (span, all) = (self.span(), calls.all);
        let totals = Totals {
            finished: all.finished.saturating_sub(all.dropped),
            failed_to_send: all.failed_to_send,
            answered: all.known_received,
        };
        self.reported.add(totals, span, now);
        for (addr, one) in &mut self.troubled {
            let Some(calls) = calls.backends.get(&addr.socket_addr()) else { continue };
            // Whether a call that failed has reached its backend is not known.
            let answered = calls.succeeded;
            let totals = Totals { finished: answered, failed_to_send: 0, answered };
            one.reported.get_or_insert_with(|| Reported::new(now)).add(totals, span, now);
        }
        let unconfirmed = self.health.unconfirmed.keys();
        unconfirmed
            .filter_map(|addr| self.troubled.get(addr))
            .any(|one| self.until(one, now) <= now)
    }

    /// Returns until when a backend that this balancer cannot reach stays healthy, by what
    /// clients report.
    fn until(&self, one: &Troubled, now: u64) -> u64 {
        let span = self.span();
        let until = |reported: &Reported| match reported.verdict(span, now) {
            Verdict::TooSoon => reported.early_until(span),
            Verdict::Answered => one.state.since().saturating_add(UNCONFIRMED_MAX),
            Verdict::Unknown => 0,
        };
        until(&self.reported).max(one.reported.as_ref().map_or(0, until))
    }

    /// Decides which backends are unhealthy, and whether the service is in panic. Returns
    /// whether that changed.
    pub(super) fn decide(
        &mut self,
        endpoints: &[Endpoint],
        marks: &ServiceMarks,
        now: Time,
    ) -> bool {
        let weight = |one: &Endpoint| match one.takes_calls() && marks.drain(one).is_none() {
            true => u64::from(one.weight.0),
            false => 0,
        };
        let total: u64 = endpoints.iter().map(weight).sum();
        let (mut unhealthy, mut unreached) = (0, 0);
        let mut fallen = Vec::new();
        let endpoints = if self.troubled.is_empty() { &[] } else { endpoints };
        for endpoint in endpoints {
            let Some(one) = self.troubled.get_mut(&endpoint.addr) else { continue };
            if one.state.is_healthy() {
                continue;
            }
            one.counted |= one.why.is_own_word();
            if one.counted && !one.why.is_own_word() {
                unreached += weight(endpoint);
            }
            fallen.push((endpoint.addr, weight(endpoint)));
        }
        let mut due = None;
        let mut health = Health::default();
        for (addr, weight) in fallen {
            let Some(one) = self.troubled.get(&addr) else { continue };
            if !one.counted {
                let alone = (unreached + weight) * ALONE <= total || weight == 0;
                let until = if alone { 0 } else { self.until(one, now.millis) };
                if until > now.millis {
                    due = due.into_iter().chain([until]).min();
                    health.unconfirmed.insert(addr, one.why);
                    continue;
                }
                unreached += weight;
            }
            unhealthy += weight;
            health.unhealthy.insert(addr, one.why);
        }
        for addr in health.unhealthy.keys() {
            self.troubled.entry(*addr).and_modify(|one| one.counted = true);
        }
        let settings = &self.settings.health;
        let rules = panic::Rules { percent: settings.panic, interval: millis(settings.interval) };
        health.panic = self.panic.update(total - unhealthy, total, rules, now.millis);
        due = due.into_iter().chain(self.panic.leaves_at(rules)).min();
        self.due = due
            .map(|due| now.instant + Duration::from_millis(due.saturating_sub(now.millis).max(1)));
        let changed = self.health != health;
        self.health = health;
        changed
    }

    /// Forgets a backend that left the service.
    pub(super) fn forget(&mut self, addr: BackendAddr) {
        self.troubled.remove(&addr);
        self.cold.remove(&addr);
    }

    /// Returns whether not all of the newest answers of a backend are good.
    pub(super) fn is_troubled(&self, addr: BackendAddr) -> bool {
        self.troubled.contains_key(&addr)
    }

    /// Returns whether the reports of clients are needed to decide about a backend.
    pub(super) fn is_in_question(&self) -> bool {
        self.troubled.values().any(|one| !one.counted && !one.why.is_own_word())
    }

    /// Returns a time in which every client reports, in milliseconds; 0 if clients do not
    /// report.
    pub(super) fn span(&self) -> u64 {
        match millis(self.settings.report_interval) {
            0 => 0,
            every => (every * 3 / 2).clamp(SPAN_MIN, SPAN_MAX),
        }
    }
}
