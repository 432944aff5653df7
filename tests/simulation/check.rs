//! The invariants that must hold in every run.
//!
//! In: a plan and the history of its run. Out: every breach. Pure. A *held* backend is
//! listed, and its registration is in doubt.
//!
//! - **I1** Every list is the state of etcd at some moment, without drained backends
//!   and possibly with held ones. Each held backend was registered while this balancer
//!   ran, and its time is not over: `keep`, from when the balancer could know of the
//!   loss or had to read everything anew. With `keep` 0, no held backend is allowed. A
//!   backend that deregisters while balancer and etcd reach each other is in no list
//!   that is sent more than 1.5 s later. A drained backend is in no list from 2 s
//!   after its drain on, if the balancer and etcd reached each other then. While all
//!   reach each other, no list is older than 2 s.
//! - **I2** On a stream these moments never go back. A backend that left comes back
//!   only if etcd held it again in between.
//! - **I3** At the end every client has a stream and a list that equals etcd's state
//!   without drained backends, so both balancers agree. All listeners of a crowd read a
//!   value soon after it came.
//! - **I4** No backend leaves a list while it is registered and not drained. No held
//!   backend leaves if the balancer could reach it all the time. If no backend
//!   deregisters, is drained or is released, the guard's share of a list stays, so a
//!   list is not empty without such causes.
//! - **I5** Nothing panics, and nothing is open when all clients have ended.
//! - **I6** A stream gets an initial response or a refusal at once, and its first list
//!   with the initial response. It ends only with its connection, which ends only with
//!   its balancer or a long cut. It is refused only until its balancer has read etcd.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::behaviour::Behaviour;
use crate::coverage::Scene;
use crate::decisions::OperatorDecisions;
use crate::faults::Faults;
use crate::history::{Held, Record, Set, Truth, What};
use crate::plan::{Host, Plan, Protocol};
use crate::streams::{DROPS_ALL, ReceivedList, Stream, streams};
use crate::world::Outcome;

/// How long a deregistration may take to reach the lists, in milliseconds. It needs one
/// question to etcd.
const ROUND_TRIPS: u64 = 1_500;
/// How long a client may wait for an initial response or a refusal.
const RESPONSE_MAX: u64 = 1_000;
/// The same for xDS: a stream waits ten seconds for the registry, and endpoints take three
/// round trips.
const XDS_RESPONSE_MAX: u64 = 11_500;
/// The greatest age of a list.
pub const FRESH: u64 = 2_000;
/// The earliest time after which HTTP/2's keepalive gives up.
const KEEPALIVE_MIN: u64 = 9_000;
/// The shortest cut that may break a new connection: it must send something within five
/// seconds, and its first packets may be slow.
const NEWCOMER: u64 = 2_500;
/// How long a backend tries to deregister.
const LEAVING: u64 = 6_000;
/// How long a backend that left counts as missing (the guard's own time).
const MISSING_FOR: u64 = 60_000;

pub struct Check<'a> {
    pub plan: &'a Plan,
    pub records: &'a [Record],
    keep: u64,
    pub truth: Truth,
    pub faults: Faults,
    pub decisions: OperatorDecisions,
    pub behaviour: Behaviour,
    pub machines: BTreeMap<std::net::IpAddr, Host>,
    pub breaches: Vec<String>,
    pub reached: BTreeSet<Scene>,
}

/// Returns every breach, and the scenes that the run reached. A good run has no breach.
pub fn check(plan: &Plan, outcome: &Outcome) -> (Vec<String>, BTreeSet<Scene>) {
    let faults = Faults::of(plan);
    let records = &outcome.records;
    let mut check = Check {
        plan,
        records,
        keep: plan.rules.keep_lost.as_millis() as u64,
        truth: Truth::of(records),
        faults,
        behaviour: Behaviour::of(plan, outcome),
        decisions: OperatorDecisions::of(plan, outcome),
        machines: outcome.addresses.iter().map(|(host, ip)| (*ip, *host)).collect(),
        breaches: Vec::new(),
        reached: BTreeSet::new(),
    };
    let streams = streams(plan, records, &check.faults);
    streams.iter().for_each(|stream| check.stream(stream));
    check.agreement();
    check.lists(&streams);
    check.end(&streams);
    check.crowds();
    check.fleet_at_end(&streams);
    check.scenes(&streams);
    for (balancer, left) in outcome.left.iter().enumerate() {
        if *left != (0, 0) {
            let (tasks, clients) = left;
            let text = format!("I5 balancer {balancer}: {tasks} tasks, {clients} clients are left");
            check.breaches.push(text);
        }
    }
    (check.breaches, check.reached)
}

impl Check<'_> {
    pub fn breach(&mut self, at: u64, stream: &Stream, text: &str) {
        let Stream { id, client, balancer, service, .. } = stream;
        self.breaches.push(format!(
            "{at} stream {id} (client {client}, balancer {balancer}, s{service}): {text}"
        ));
    }

    /// Checks one stream alone: I1, I2 and I6.
    fn stream(&mut self, stream: &Stream) {
        self.conduct(stream);
        let (mut moment, mut gone) = (0, BTreeMap::new());
        let mut before: &Set = &Set::new();
        for (index, received) in stream.received.iter().enumerate() {
            let Some(found) = self.moment(stream, received, moment) else {
                let why = self.closest(stream, received);
                self.breach(received.at, stream, &format!("I1 etcd never held this: {why}"));
                return;
            };
            if let Some(addr) = self.disobeyed(stream, received) {
                self.breach(received.at, stream, &format!("I1 {addr} is drained and listed"));
            }
            moment = found;
            let next = stream.received.get(index + 1).map(|next| next.at);
            let ended = stream.ended.as_ref().map(|(at, _)| *at);
            let until = next.or(ended).unwrap_or(self.plan.end);
            self.policy(stream, received, until);
            if self.is_told(stream, received) {
                continue;
            }
            for addr in &received.list {
                if let Some(left) = gone.remove(addr)
                    && !self.decisions.ever(*addr, received.at)
                    && !self.has_rules(stream, received.at)
                    && !self.held_since(stream.service, *addr, left, received.at)
                {
                    self.breach(received.at, stream, &format!("I2 {addr} was gone and is back"));
                }
            }
            gone.extend(before.difference(&received.list).map(|addr| (*addr, moment)));
            before = &received.list;
            self.freshness(stream, received, until);
        }
    }

    /// Checks I6 for one stream.
    fn conduct(&mut self, stream: &Stream) {
        let balancer = Host::Balancer(stream.balancer);
        let answers = [
            stream.greeted,
            stream.refused.as_ref().map(|(at, _)| *at),
            stream.ended.as_ref().map(|(at, _)| *at),
        ];
        let answered = answers.into_iter().flatten().min().unwrap_or(self.plan.end);
        let most = match self.plan.clients[stream.client].protocol {
            Protocol::Grpclb => RESPONSE_MAX,
            Protocol::Xds => XDS_RESPONSE_MAX,
        };
        if answered > stream.opened + most
            && !self.faults.apart(balancer, stream.client_host, stream.opened, answered)
        {
            self.breach(stream.opened, stream, "I6 neither greeted nor refused at once");
        }
        if let Some(greeted) = stream.greeted
            && stream.received.first().is_none_or(|received| received.at > greeted + 20)
        {
            self.breach(greeted, stream, "I6 greeted, and no list with it");
        }
        if let Some((at, code)) = &stream.refused
            && code != "14"
        {
            self.breach(*at, stream, &format!("I6 refused with {code}"));
        }
        let Some((at, status)) = &stream.ended else { return };
        match status.as_deref() {
            Some("hung up") => {}
            Some(code) => {
                self.breach(*at, stream, &format!("I6 ended by the balancer with {code}"))
            }
            None => {
                let from = stream.opened.saturating_sub(3_000);
                let crashed = self.records.iter().any(|record| {
                    record.what == What::Crashed(balancer) && (from..=*at).contains(&record.at)
                });
                let cut = match stream.greeted {
                    Some(_) => {
                        self.faults.cut_for(balancer, stream.client_host, KEEPALIVE_MIN, from, *at)
                    }
                    // A new connection that sends nothing for five seconds is closed.
                    None => self.faults.cut_for(balancer, stream.client_host, NEWCOMER, from, *at),
                };
                if !crashed && !cut {
                    self.breach(*at, stream, "I6 the connection broke without a cause");
                }
            }
        }
    }

    /// Returns the first moment from `least` on at which a list can have been right.
    fn moment(&self, stream: &Stream, received: &ReceivedList, least: usize) -> Option<usize> {
        let held = self.truth.service(stream.service);
        let before = held.iter().take_while(|held| held.at <= received.at).count();
        (least..=before).find(|&moment| self.is_right(stream, received, moment))
    }

    fn is_right(&self, stream: &Stream, received: &ReceivedList, moment: usize) -> bool {
        if self.is_told(stream, received) {
            return true;
        }
        let held = self.truth.service(stream.service);
        let nobody = Set::new();
        let now = moment.checked_sub(1).map_or(&nobody, |last| &held[last].set);
        let missing = now.difference(&received.list);
        let mut missing = missing.filter(|addr| !self.may_omit(stream, received, **addr));
        let drained_are_missing = match self.drained(stream, received) {
            Some(states) => states.iter().any(|drained| {
                let all = missing.clone().all(|addr| drained.contains(addr));
                all && received.list.is_disjoint(drained)
            }),
            None => missing.all(|addr| self.decisions.ever(*addr, received.at)),
        };
        drained_are_missing
            && received.list.difference(now).all(|addr| {
                let lost = lost(&held[..moment], *addr);
                let balancer = Host::Balancer(stream.balancer);
                lost.is_some_and(|lost| {
                    let known = self.faults.known(balancer, lost);
                    let known = known.max(self.faults.read(balancer, received.sent));
                    let recent = lost >= stream.knows_since && received.sent <= known + self.keep;
                    self.keep > 0 && recent
                })
            })
    }

    /// Returns the drained addresses at each recent moment, or `None` if the balancer may
    /// not have known them.
    fn drained(&self, stream: &Stream, received: &ReceivedList) -> Option<Vec<Set>> {
        let recent = received.sent.saturating_sub(FRESH);
        let calm = self.faults.calm(Host::Balancer(stream.balancer), recent, received.sent);
        let sure = calm && self.decisions.are_sure(recent, received.at);
        sure.then(|| self.decisions.between(recent, received.at))
    }

    /// Returns a backend that is listed although this balancer knew of its drain. Later
    /// faults of etcd are no excuse.
    fn disobeyed(&self, stream: &Stream, received: &ReceivedList) -> Option<SocketAddr> {
        let drained = self.decisions.drained(received.at);
        let mut obeyed = drained.filter(|(begun, _)| self.has_heard(stream, *begun, received.sent));
        obeyed.find_map(|(_, all)| all.into_iter().find(|addr| received.list.contains(addr)))
    }

    /// Returns whether a balancer knew a mark long before it sent a list.
    pub fn has_heard(&self, stream: &Stream, begun: u64, sent: u64) -> bool {
        let balancer = Host::Balancer(stream.balancer);
        let calm = self.faults.calm(balancer, begun, begun + FRESH);
        sent > begun + FRESH && stream.knows_since <= begun && calm
    }

    /// Describes for people how a list differs from etcd's last state.
    fn closest(&self, stream: &Stream, received: &ReceivedList) -> String {
        let held = self.truth.service(stream.service);
        let nobody = Held { at: 0, set: Set::new() };
        let now = held.iter().take_while(|held| held.at <= received.at).last().unwrap_or(&nobody);
        let too_much: Vec<_> = received.list.difference(&now.set).collect();
        let missing: Vec<_> = now.set.difference(&received.list).collect();
        format!(
            "sent since {}, since {} too much {too_much:?}, missing {missing:?}",
            received.sent, now.at
        )
    }

    /// Checks that a list is not too old while it is the client's newest.
    fn freshness(&mut self, stream: &Stream, received: &ReceivedList, until: u64) {
        let balancer = Host::Balancer(stream.balancer);
        let at = until.saturating_sub(FRESH);
        if at <= received.at
            || !self.faults.calm(balancer, at, until)
            || self.faults.apart(balancer, stream.client_host, at, until)
        {
            return;
        }
        let held = self.truth.service(stream.service);
        let least = held.iter().take_while(|held| held.at <= at).count();
        let most = held.iter().take_while(|held| held.at <= until).count();
        // The list is checked as if it were sent again at that time.
        let now = ReceivedList { at: until, sent: at, ..received.clone() };
        if !(least..=most).any(|moment| self.is_right(stream, &now, moment)) {
            let why = self.closest(stream, &now);
            self.breach(until, stream, &format!("I1 the newest list is too old: {why}"));
        }
    }

    /// Returns whether etcd held a backend at any moment after `moment`, up to `until`.
    fn held_since(&self, service: usize, addr: SocketAddr, moment: usize, until: u64) -> bool {
        let later = self.truth.service(service).iter().skip(moment);
        later.take_while(|held| held.at <= until).any(|held| held.set.contains(&addr))
    }

    /// Checks all lists of each balancer together: I4 and the rest of I1 and I6.
    fn lists(&mut self, streams: &[Stream]) {
        let removals: Vec<_> = self.deregistered();
        for stream in streams {
            let same =
                |other: &&Stream| other.balancer == stream.balancer && other.since == stream.since;
            let peers: Vec<_> = streams.iter().filter(same).collect();
            if let Some((at, _)) = &stream.refused {
                let first =
                    peers.iter().flat_map(|peer| &peer.received).map(|received| received.at).min();
                if first.is_some_and(|first| first < stream.opened) {
                    self.breach(
                        *at,
                        stream,
                        "I6 refused by a balancer that others have lists from",
                    );
                }
            }
            let peers: Vec<_> =
                peers.into_iter().filter(|peer| peer.service == stream.service).collect();
            for received in &stream.received {
                for (asked, at, service, addr) in &removals {
                    let (service, addr) = (*service, *addr);
                    let since = at + ROUND_TRIPS;
                    if service == stream.service
                        && received.list.contains(&addr)
                        && received.sent > since
                        && self.faults.calm(Host::Balancer(stream.balancer), *asked, since)
                        && !self.came_back(service, addr, *at, received.at)
                    {
                        let text = format!("I1 {addr} took itself back at {at} and is listed");
                        self.breach(received.at, stream, &text);
                    }
                }
                let earlier = peers.iter().flat_map(|peer| &peer.received);
                let earlier: Vec<_> = earlier.filter(|one| one.at < received.sent).collect();
                if let Some(last) = earlier.iter().max_by_key(|one| one.at) {
                    self.losses(stream, last, received);
                }
                self.floor(stream, &earlier, received);
            }
        }
    }

    /// Returns the successful deregistrations: when the backend asked, when etcd confirmed,
    /// service and address. Not those whose lease may have ended at the same time, because
    /// the balancer then finds no lease and takes the key for lost.
    fn deregistered(&self) -> Vec<(u64, u64, usize, SocketAddr)> {
        let ttl = self.plan.ttl.unsigned_abs() * 1_000;
        let mut asked = BTreeMap::new();
        let mut all = Vec::new();
        for Record { at, what } in self.records {
            match what {
                What::Asked { service, addr } => drop(asked.insert((*service, *addr), *at)),
                What::Deregistered { service, addr } => {
                    let begun = asked.get(&(*service, *addr)).copied().unwrap_or(*at);
                    let machine = self.machines[&addr.ip()];
                    let before = begun.saturating_sub(ttl);
                    let unrenewed = self.faults.cut_for(Host::Etcd, machine, ttl / 2, before, *at);
                    if at - begun <= 1_000 && !unrenewed {
                        all.push((begun, *at, *service, *addr));
                    }
                }
                _ => {}
            }
        }
        all
    }

    fn came_back(&self, service: usize, addr: SocketAddr, from: u64, until: u64) -> bool {
        let held = self.truth.service(service);
        held.iter().any(|held| (from..=until).contains(&held.at) && held.set.contains(&addr))
    }

    /// Checks I4: every backend that left between two lists of one balancer had a reason.
    fn losses(&mut self, stream: &Stream, before: &ReceivedList, after: &ReceivedList) {
        if self.keep == 0 {
            return;
        }
        for addr in before.list.difference(&after.list) {
            let obeys = self.is_told(stream, after) || self.may_omit(stream, after, *addr);
            if self.decisions.ever(*addr, after.at) || obeys {
                continue;
            }
            let held = self.truth.service(stream.service);
            let until = held.iter().take_while(|held| held.at <= after.at).count();
            let last = last_time(&held[..until], *addr);
            // A backend without an end is registered again, and the balancer may not know.
            let Some((begun, lost)) = last.filter(|(_, lost)| *lost != u64::MAX) else { continue };
            let asked = self.records.iter().any(|record| {
                let asked = matches!(record.what, What::Asked { service, addr: one }
                    if service == stream.service && is_one_backend(one, *addr));
                let released = record.what == What::Released;
                (asked && record.at + LEAVING >= begun || released) && record.at <= after.at
            });
            let over = after.at >= lost + self.keep;
            let doubted = self.doubted(stream, &held[..until], *addr);
            if !asked && !over && !self.unreachable(stream, *addr, doubted, after.at) {
                let text = format!("I4 {addr}, lost at {lost}, lives and is listed no more");
                self.breach(after.at, stream, &text);
            }
        }
    }

    /// Returns the earliest time since which a balancer may have held a backend. A
    /// balancer may miss a short registration after etcd came back, and then what it
    /// found before still counts.
    fn doubted(&self, stream: &Stream, held: &[Held], addr: SocketAddr) -> u64 {
        let (begun, lost) = last_time(held, addr).expect("the backend was registered");
        let before = &held[..first_of_last_time(held, addr).expect("as above")];
        let seen = self.faults.calm(Host::Balancer(stream.balancer), begun, lost);
        if seen || last_time(before, addr).is_none() {
            return lost;
        }
        self.doubted(stream, before, addr)
    }

    /// Returns whether a balancer could fail to reach a backend at some time.
    fn unreachable(&self, stream: &Stream, addr: SocketAddr, from: u64, until: u64) -> bool {
        let machine = self.machines[&addr.ip()];
        let mut listens = false;
        let mut deaf = false;
        for Record { at, what } in self.records {
            match what {
                What::Listens(one) if *one == addr => listens = true,
                What::Deaf(one) if *one == addr => listens = false,
                What::Crashed(host) if *host == machine => listens = false,
                _ => {}
            }
            deaf |= *at <= until && *at + 50 >= from && !listens;
        }
        deaf || self.faults.apart(Host::Balancer(stream.balancer), machine, from, until)
    }

    /// Checks I4: the guard keeps enough backends, whatever probes find.
    fn floor(&mut self, stream: &Stream, earlier: &[&ReceivedList], received: &ReceivedList) {
        let share = u64::from(self.plan.rules.guard);
        let ruled = self.is_told(stream, received) || self.has_rules(stream, received.at);
        if self.keep == 0 || share == 0 || ruled {
            return;
        }
        let from = received.at.saturating_sub(self.keep.min(MISSING_FOR));
        let held = self.truth.service(stream.service);
        let until = held.iter().take_while(|held| held.at <= received.at).count();
        let held = &held[..until];
        // A list from before the loss of every backend that is missing now.
        let whole = |one: &&&ReceivedList| {
            let mut missing = one.list.difference(&received.list);
            one.sent > from
                && missing.all(|addr| last_time(held, *addr).is_some_and(|(_, lost)| lost > one.at))
        };
        let recent = earlier.iter().filter(whole);
        let Some(longest) = recent.max_by_key(|one| one.list.len()) else { return };
        let on_purpose = self.records.iter().any(|record| match record.what {
            What::Asked { service, .. } => service == stream.service,
            What::Released => true,
            _ => false,
        } && record.at <= received.at && record.at + 20_000 > from)
            || self.decisions.any(stream.service, received.at);
        let over = longest.list.difference(&received.list).any(|addr| {
            let lost = last_time(held, *addr).map_or(0, |(_, lost)| lost);
            lost.saturating_add(self.keep) <= received.at
        });
        let least = (longest.list.len() as u64 * share).div_ceil(100);
        if longest.list.len() > 1 && !on_purpose && !over && (received.list.len() as u64) < least {
            let (now, was, at) = (received.list.len(), longest.list.len(), longest.at);
            let text = format!("I4 {now} are listed, {was} were at {at}: {least} must stay");
            self.breach(received.at, stream, &text);
        }
    }

    /// Checks I3 for the crowds inside balancers.
    fn crowds(&mut self) {
        for Record { at, what } in self.records {
            if let What::Missed { balancer, service, missed, of } = what {
                self.breaches.push(format!(
                    "I3 {at} balancer {balancer}: {missed} of {of} listeners of s{service} \
                     miss a value"
                ));
            }
        }
    }

    /// Checks I3 for the clients at the end of the run.
    fn end(&mut self, streams: &[Stream]) {
        for client in 0..self.plan.clients.len() {
            let open = |stream: &&Stream| {
                stream.client == client && stream.ended.is_none() && stream.refused.is_none()
            };
            let Some(stream) = streams.iter().rev().find(open) else {
                self.breaches.push(format!("I3 client {client} has no stream at the end"));
                continue;
            };
            let nobody = Set::new();
            let received = stream.received.iter().rfind(|received| received.at <= self.plan.end);
            if received.is_some_and(|received| self.is_told(stream, received)) {
                // Whether that is right is checked with every list.
                continue;
            }
            let list = received.map(|received| &received.list);
            let held = self.truth.service(stream.service).last();
            let mut held = held.map_or(nobody, |held| held.set.clone());
            held.retain(|addr| !self.decisions.at(self.plan.end).contains(addr));
            let drops = received.is_some_and(|received| received.drops == DROPS_ALL);
            // grpc-go gets an unreachable address with either setting.
            let is_go = self.plan.clients[client].user_agent.starts_with("grpc-go");
            if held.is_empty() && !is_go && drops != self.decisions.drops {
                let text = format!("I3 at the end calls of an empty service are dropped: {drops}");
                self.breach(self.plan.end, stream, &text);
            }
            let right = self.lists_at_end(stream, &held);
            if !list.is_some_and(|list| right.contains(list)) {
                let text =
                    format!("I3 at the end it has {list:?}, etcd {held:?}, right is {right:?}");
                self.breach(self.plan.end, stream, &text);
            }
            if let Some(received) = received {
                self.shares_at_end(stream, received);
            }
        }
    }
}

/// Returns whether both are addresses of one backend, and so of one key. A deleted key
/// also removes the address that it had before etcd went back to an older state.
fn is_one_backend(one: SocketAddr, other: SocketAddr) -> bool {
    one.ip() == other.ip() && one.port() % 1_000 == other.port() % 1_000
}

/// Returns when a backend's last registration began, and when it ended (`u64::MAX` if it
/// did not).
fn last_time(held: &[Held], addr: SocketAddr) -> Option<(u64, u64)> {
    let begun = first_of_last_time(held, addr)?;
    let ended = held[begun..].iter().find(|held| !held.set.contains(&addr));
    Some((held[begun].at, ended.map_or(u64::MAX, |held| held.at)))
}

/// Returns the first state of a backend's last registration. The state before it can be of
/// the same millisecond.
fn first_of_last_time(held: &[Held], addr: SocketAddr) -> Option<usize> {
    let last = held.iter().rposition(|held| held.set.contains(&addr))?;
    let before = held[..=last].iter().rposition(|held| !held.set.contains(&addr));
    Some(before.map_or(0, |before| before + 1))
}

/// Returns when a backend's last registration ended, if it ended.
fn lost(held: &[Held], addr: SocketAddr) -> Option<u64> {
    last_time(held, addr).map(|(_, ended)| ended).filter(|ended| *ended != u64::MAX)
}
