//! The promises of traffic policy that must hold in every run.
//!
//! In: the lists of a run, and what operators and backends did. Out: every breach. Pure.
//!
//! - **P1** Balancers that know the same about a service decide the same, byte for byte
//!   (`agreement.rs`); the lists of keys, and of clients without a zone, also if their clients
//!   differ. The cells of a service are a partition of its list.
//! - **P2** A backend is left out for its health only if it was not well, or the balancer
//!   could not reach it, in the last ten seconds. A backend that says all the time that it
//!   is not serving, or that hangs or refuses, is in no list, unless too few are well.
//! - **P3** While a client reports answered calls, no more than a fifth of a service comes to
//!   be left out because the balancer cannot reach it.
//! - **P4** Clients drop calls or use DNS only if a mark says so, or the service gets too
//!   many calls. They do so while such a mark is in force that the balancer knows, also if
//!   the balancer started anew with a saved state and without etcd. A mark ends in time, also
//!   without etcd.
//! - **P5** At the end every list has exactly the backends that the settings in force ask
//!   for, and each has its due share. Nothing but what health took comes back in a panic.
//! - **P6** With the demand in force, every backend gets its share of the calls of all zones,
//!   and no calls cross needlessly (`zones.rs`). At the end the demand is that of the clients.

use std::net::SocketAddr;

use crate::agreement::Digest;
use crate::check::{Check, FRESH};
use crate::decisions::ClientMark;
use crate::history::{Record, Set, What};
use crate::plan::{Host, Protocol};
use crate::policies::{FLEET, Health, Kind, Mark, Policy, Split, ZONES};
use crate::streams::{ReceivedList, Stream};
use crate::xds_client;

/// How long a balancer takes at most to find out that the health of a backend has changed:
/// three checks, each an interval (1 s, 10 % more or less) after the last and up to a second
/// long, and the way to the client.
const CHECKED: u64 = 10_000;
/// How long a panic lasts at most after its cause: the checks, and two intervals.
const PANIC: u64 = CHECKED + 3_000;
/// How long a client is connected before its reports say that calls are answered: two
/// reports, each after five seconds, and the way.
const HEARD: u64 = 12_000;
/// How long clients shed calls at most after the last calls too many: they report every five
/// seconds, a backend each second, and the part falls by 10 points a second.
const SHED: u64 = 25_000;
/// How long after its last list a Node client may wait for other shares: ten seconds, and the
/// way.
const DAMPED: u64 = 10_500;
/// By how much the drops in a list may differ from the part, in hundredths of a percent.
const DROPS_OFF: u32 = 100;
/// A backend in slow start has ten times fewer entries than the others, and rounded.
const STARTING: u32 = 20;

impl Check<'_> {
    /// Checks one list of a stream. It is the client's newest until then.
    pub fn policy(&mut self, stream: &Stream, received: &ReceivedList, until: u64) {
        // The list is checked once more as if it were sent again before the next one.
        let last = until.saturating_sub(FRESH);
        let balancer = Host::Balancer(stream.balancer);
        let late = last > received.at
            && !self.faults.apart(balancer, stream.client_host, last.saturating_sub(FRESH), until);
        let again = ReceivedList { at: until, sent: last, ..received.clone() };
        for one in [received, &again].into_iter().take(1 + usize::from(late)) {
            if let Some(why) = self.wrong_orders(stream, one) {
                self.breach(one.at, stream, &format!("P4 {why}"));
            }
        }
        if self.is_told(stream, received) {
            return;
        }
        if let Some(addr) = self.sick_and_listed(stream, received) {
            self.breach(received.at, stream, &format!("P2 {addr} is not well and listed"));
        }
        if let Some((left_out, all)) = self.too_many_unreached(stream, received) {
            let text = format!("P3 {left_out} of {all} are left out because they are not reached");
            self.breach(received.at, stream, &text);
        }
        let (least, most) = (received.shares.iter().min(), received.shares.iter().max());
        let even =
            |policy: &Policy| policy.split.is_none() && policy.shed.is_none() && !policy.zones;
        let uneven = most > least.map(|least| STARTING * least).as_ref();
        if uneven && self.policies(stream, 0, received.at).iter().all(even) {
            self.breach(received.at, stream, &format!("P5 uneven: {:?}", received.shares));
        }
    }

    /// Returns the settings that a balancer may have had for a stream's service at some time.
    fn policies(&self, stream: &Stream, from: u64, until: u64) -> Vec<Policy> {
        let sure = self.is_sure(stream, from, until);
        self.decisions.policies(stream.service, from, until, sure)
    }

    /// Returns whether a balancer knew all that operators had decided.
    fn is_sure(&self, stream: &Stream, from: u64, until: u64) -> bool {
        let calm = self.faults.calm(Host::Balancer(stream.balancer), from, until);
        calm && self.decisions.are_sure(from, until)
    }

    /// Returns whether a rule may ever have left out backends of a stream's service.
    pub fn has_rules(&self, stream: &Stream, until: u64) -> bool {
        let all = self.decisions.policies(stream.service, 0, until, false);
        let leaves_out = |one: &Policy| one.health_acts().is_some() || one.split.is_some();
        all.iter().any(|one| leaves_out(one) || one.cells || one.zones)
    }

    /// Returns whether a rule may have left a registered backend out of a list.
    pub fn may_omit(&self, stream: &Stream, received: &ReceivedList, addr: SocketAddr) -> bool {
        let from = received.sent.saturating_sub(CHECKED);
        let omits = |policy: Policy| {
            let sick = policy
                .health_acts()
                .is_some_and(|health| !self.is_well(stream, addr, health.kind, from, received.at));
            let split = policy.split.is_some_and(|split| self.splits_off(split, addr, received));
            sick || split || policy.cells || policy.zones
        };
        self.policies(stream, from.saturating_sub(FRESH), received.at).into_iter().any(omits)
    }

    /// Returns whether checks of a backend had to succeed all the time.
    fn is_well(
        &self,
        stream: &Stream,
        addr: SocketAddr,
        kind: Kind,
        from: u64,
        until: u64,
    ) -> bool {
        let reached = !self.unreached(stream, addr, from, until);
        reached && self.behaviour.always(addr, from, until, |state| state.passes(kind))
    }

    fn unreached(&self, stream: &Stream, addr: SocketAddr, from: u64, until: u64) -> bool {
        let machine = self.machines[&addr.ip()];
        self.faults.apart(Host::Balancer(stream.balancer), machine, from, until)
    }

    /// Returns whether a split may have left a backend to other clients, or without calls.
    fn splits_off(&self, split: Split, addr: SocketAddr, received: &ReceivedList) -> bool {
        let is_canary = self.behaviour.backend(addr) == Some(split.canary);
        let nothing = if is_canary { 0 } else { 100 };
        let shares =
            [received.sent.saturating_sub(FRESH), received.at].map(|at| split.share.at(at));
        split.by_clients || shares.contains(&nothing)
    }

    /// Returns a backend that is listed although its checks have failed for long, and enough
    /// others are well.
    fn sick_and_listed(&self, stream: &Stream, received: &ReceivedList) -> Option<SocketAddr> {
        let (from, at) = (received.sent.checked_sub(PANIC)?, received.at);
        let before = from.saturating_sub(FRESH);
        let policies = self.policies(stream, before, at);
        let health = policies.first()?.health_acts()?;
        if stream.since > before || policies.iter().any(|one| one.health != Some(health)) {
            return None;
        }
        let held = self.truth.service(stream.service);
        let last = held.iter().rposition(|held| held.at <= before)?;
        let now = || held[last..].iter().take_while(|held| held.at <= at);
        let always = |addr: &SocketAddr| now().all(|held| held.set.contains(addr));
        let all: Set = held
            .iter()
            .take_while(|held| held.at <= at)
            .flat_map(|held| &held.set)
            .copied()
            .collect();
        let well = all.iter().filter(|addr| {
            let well = self.is_well(stream, **addr, health.kind, from, at);
            well && always(addr) && !self.decisions.ever(**addr, at)
        });
        let well = well.count();
        if well == 0 || 100 * well < (health.panic as usize + 5) * all.len() {
            return None;
        }
        let sick = |addr: &SocketAddr| {
            let fails = self.behaviour.always(*addr, from, at, |state| !state.passes(health.kind));
            fails && always(addr) && !self.unreached(stream, *addr, before, at)
        };
        received.list.iter().copied().find(sick)
    }

    /// Returns how many backends of how many have come to be left out because the balancer
    /// cannot reach them, if that is more than a fifth although the stream's client has
    /// reported answered calls all the time.
    fn too_many_unreached(
        &self,
        stream: &Stream,
        received: &ReceivedList,
    ) -> Option<(usize, usize)> {
        let (heard, at) = (stream.opened + HEARD, received.at);
        let grpclb = self.plan.clients[stream.client].protocol == Protocol::Grpclb;
        let balancer = Host::Balancer(stream.balancer);
        let silent = self.faults.apart(balancer, stream.client_host, stream.opened, at);
        if !grpclb || silent || received.sent <= heard {
            return None;
        }
        // All of these were healthy, or in doubt, when the client began to be heard.
        let before = stream.received.iter().rfind(|one| one.at <= heard)?;
        let from = heard - CHECKED;
        let other = |one: &Policy| {
            // If one failure is enough, a backend that is cut off while it answers is silent.
            let sure = one.health_acts().is_none_or(|health| health.panic == 0 && health.fall > 1);
            one.split.is_some() || one.cells || one.zones || !sure
        };
        let drops_all = self.decisions.sheds(stream.service, from, at, false).contains(&100);
        if self.policies(stream, from, at).iter().any(other) || drops_all {
            return None;
        }
        let held = self.truth.service(stream.service);
        let first = held.iter().rposition(|held| held.at <= from)?;
        let since = || held[first..].iter().take_while(|held| held.at <= at);
        let serves = |addr: &SocketAddr| {
            let serves = self.behaviour.always(*addr, from, at, |state| state.passes(Kind::Grpc));
            let registered = since().all(|held| held.set.contains(addr));
            serves && registered && !self.decisions.ever(*addr, at)
        };
        // If no backend is healthy, all are listed, and that says nothing.
        let some_are_well =
            before.list.iter().any(|addr| serves(addr) && !self.unreached(stream, *addr, from, at));
        let unreached = |addr: &&SocketAddr| {
            let machine = self.machines[&addr.ip()];
            serves(addr) && !self.faults.slow(balancer, machine, from, at)
        };
        let left_out = before.list.difference(&received.list).filter(unreached).count();
        let most = held.iter().take_while(|held| held.at <= at).map(|held| held.set.len()).max()?;
        (some_are_well && 5 * left_out > most).then_some((left_out, most))
    }

    /// Returns whether clients are told something in place of backends: to use DNS, or to
    /// drop every call.
    pub fn is_told(&self, stream: &Stream, received: &ReceivedList) -> bool {
        received.fallback || (received.list.is_empty() && self.may_drop_all(stream, received))
    }

    fn may_drop_all(&self, stream: &Stream, received: &ReceivedList) -> bool {
        self.sheds(stream, received).contains(&100)
    }

    fn sheds(&self, stream: &Stream, received: &ReceivedList) -> Vec<u32> {
        let (from, at) = (received.sent.saturating_sub(FRESH), received.at);
        let sure = self.is_sure(stream, from, at);
        self.decisions.sheds(stream.service, from, at, sure).into_iter().collect()
    }

    /// Returns what is wrong with the drops of a list, or with an order to use DNS.
    fn wrong_orders(&self, stream: &Stream, received: &ReceivedList) -> Option<String> {
        let (from, at) = (received.sent.saturating_sub(FRESH), received.at);
        let sure = self.is_sure(stream, from, at);
        let grpclb = self.plan.clients[stream.client].protocol == Protocol::Grpclb;
        let fallbacks = self.decisions.fallbacks(stream.service, from, at, sure);
        if received.fallback && !fallbacks.contains(&true) {
            return Some("clients use DNS, and no mark says so".to_owned());
        }
        let known = |one: &&ClientMark| self.has_heard(stream, one.begun, received.sent);
        let known: Vec<Mark> =
            self.decisions.marks(stream.service, at).filter(known).map(|one| one.mark).collect();
        let registered = !received.list.is_empty();
        if !received.fallback && grpclb && known.contains(&Mark::Fallback) && registered {
            return Some("clients use backends, and a mark says to use DNS".to_owned());
        }
        if received.list.is_empty() {
            return None;
        }
        let near = |percent: u32| received.drops.abs_diff(100 * percent) <= DROPS_OFF;
        for mark in known {
            if let Mark::Shed(percent) = mark
                && !near(percent)
            {
                return Some(format!("{} are dropped, a mark says {percent} %", received.drops));
            }
        }
        let sheds = self.sheds(stream, received);
        if sheds.iter().any(|percent| near(*percent)) {
            return None;
        }
        let policies = self.policies(stream, at.saturating_sub(SHED), at);
        let most = policies.iter().filter_map(|one| one.shed).max()?;
        let begin = at.saturating_sub(SHED);
        // The others have too many calls if a backend leaves before the clients shed no more.
        let overload = self.is_busy(stream.service, begin, at)
            || loses_backends(stream, begin, at)
                && self.is_busy(stream.service, begin.saturating_sub(SHED), begin);
        let allowed = overload && received.drops <= 100 * most + DROPS_OFF;
        (!allowed).then(|| format!("{} of 10000 are dropped, allowed is {sheds:?}", received.drops))
    }

    /// Returns whether a service got too many calls at some time.
    fn is_busy(&self, service: usize, from: u64, until: u64) -> bool {
        let mut busy_at_start = false;
        for Record { at, what } in self.records {
            let What::Busy { service: one, busy } = what else { continue };
            if *one != service || *at > until {
                continue;
            }
            if *at <= from {
                busy_at_start = *busy;
            } else if *busy {
                return true;
            }
        }
        busy_at_start
    }

    /// Returns the lists that are right at the end, for a service of these backends.
    pub fn lists_at_end(&self, stream: &Stream, held: &Set) -> Vec<Set> {
        let policy = self.policy_at_end(stream.service);
        let end = self.plan.end;
        let healthy = match policy.health_acts() {
            None => vec![held.clone()],
            Some(health) => self.healthy_at_end(health, held),
        };
        if stream.service == FLEET && policy.zones {
            let Host::Clients(client_host) = stream.client_host else { return healthy };
            let zones = self.digest_at_end(stream).map(|digest| &digest.zones);
            let own = zones.and_then(|zones| zones.get(ZONES[client_host])).cloned();
            return own.map_or(healthy, |own| vec![own]);
        }
        if stream.service == FLEET && policy.cells {
            let mut all = healthy;
            for Record { what, .. } in self.records {
                if let What::Decides { balancer, service: FLEET, digest } = what
                    && *balancer == stream.balancer
                {
                    all.truncate(1);
                    all.extend(digest.subsets.iter().cloned());
                }
            }
            return all;
        }
        let Some(split) = policy.split else { return healthy };
        let parts = |all: &Set| {
            let is_canary = |addr: &SocketAddr| self.behaviour.backend(*addr) == Some(split.canary);
            let (canaries, others): (Set, Set) = all.iter().copied().partition(is_canary);
            match (canaries.is_empty() || others.is_empty(), split.by_clients, split.share.at(end))
            {
                (true, ..) => vec![all.clone()],
                (false, _, 0) => vec![others],
                (false, _, 100) => vec![canaries],
                (false, true, _) => vec![canaries, others],
                (false, false, _) => vec![all.clone()],
            }
        };
        healthy.iter().flat_map(parts).collect()
    }

    /// Returns what a stream's balancer decided last about the stream's service.
    pub fn digest_at_end(&self, stream: &Stream) -> Option<&Digest> {
        self.records.iter().rev().find_map(|record| match &record.what {
            What::Decides { balancer, service, digest }
                if (*balancer, *service) == (stream.balancer, stream.service) =>
            {
                Some(digest)
            }
            _ => None,
        })
    }

    pub fn policy_at_end(&self, service: usize) -> Policy {
        let end = self.plan.end;
        self.decisions.policies(service, end, end, true).pop().unwrap_or_default()
    }

    /// Returns the backends that may be listed by their health. Within five points above the
    /// threshold of panic, both answers are right.
    fn healthy_at_end(&self, health: Health, held: &Set) -> Vec<Set> {
        let (end, kind) = (self.plan.end, health.kind);
        let well = |addr: &&SocketAddr| {
            self.behaviour.always(**addr, end, end, |state| state.passes(kind))
        };
        let well: Set = held.iter().filter(well).copied().collect();
        let (part, all, panic) = (100 * well.len(), held.len(), health.panic as usize);
        if well.is_empty() || part < panic * all {
            vec![held.clone()]
        } else if panic > 0 && part < (panic + 5).min(100) * all {
            vec![well, held.clone()]
        } else {
            vec![well]
        }
    }

    /// Checks the shares of a client's last list: P5.
    pub fn shares_at_end(&mut self, stream: &Stream, received: &ReceivedList) {
        let policy = self.policy_at_end(stream.service);
        let ReceivedList { list, shares, .. } = received;
        if policy.shed.is_some() || policy.zones || list.is_empty() {
            return;
        }
        // A step of a ramp may wait for its turn.
        let is_damped = xds_client::is_damped(&self.plan.clients[stream.client]);
        if is_damped && self.plan.end < received.at + DAMPED {
            return;
        }
        let sum: u32 = shares.iter().sum();
        let split = policy.split.filter(|split| !split.by_clients);
        let canary = split.and_then(|split| {
            let place = |addr: &SocketAddr| self.behaviour.backend(*addr) == Some(split.canary);
            // A ramp's step may have come too late to be in a list.
            let end = self.plan.end;
            let due = [end - FRESH, end].map(|at| split.share.at(at));
            list.iter().position(place).filter(|_| (1..100).contains(&due[1])).map(|at| (at, due))
        });
        let (canary, due) = canary.unzip();
        if list.len() > 1
            && let (Some(at), Some(due)) = (canary, due)
        {
            let got = f64::from(shares[at]) / f64::from(sum) * 100.0;
            if due.iter().all(|share| (got - f64::from(*share)).abs() > 0.6) {
                let text = format!("P5 the canary gets {got:.2} % in place of {} %", due[1]);
                self.breach(self.plan.end, stream, &text);
            }
        }
        let rest = || (0..shares.len()).filter(|at| Some(*at) != canary).map(|at| shares[at]);
        if let (Some(least), Some(most)) = (rest().min(), rest().max())
            && f64::from(most) > 1.02 * f64::from(least)
        {
            let text = format!("P5 at the end shares are uneven: {shares:?}");
            self.breach(self.plan.end, stream, &text);
        }
    }
}

/// Returns whether a stream's lists became shorter at some time.
fn loses_backends(stream: &Stream, from: u64, until: u64) -> bool {
    let shorter = |two: &[ReceivedList]| two[1].list.len() < two[0].list.len();
    let then = |two: &[ReceivedList]| (from..=until).contains(&two[1].at);
    stream.received.windows(2).any(|two| then(two) && shorter(two))
}
