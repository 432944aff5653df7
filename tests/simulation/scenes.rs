//! Scenes that a plan plays beside its faults: states that chance alone seldom reaches.
//!
//! In: chance, the plan's backends and clients. Out: steps. Pure. `coverage.rs` counts how
//! often the scenes reach what they are for.

use std::collections::BTreeSet;

use crate::plan::{BALANCERS, Backend, Client, Disk, HEAL, Host, Protocol, SERVICES, Step};
use crate::policies::{Document, FLEET, FLEET_SIZE, Mark};
use crate::rng::Rng;

/// Adds marks, and then a start of a balancer that reaches no etcd: all that it knows of them
/// is what it saved. The clients of the other balancer come to it. Meanwhile a mark may end,
/// and etcd may lose its data.
pub fn starts_without_etcd(
    rng: &mut Rng,
    backends: &[Backend],
    clients: &mut [Client],
    steps: &mut Vec<(u64, Step)>,
) {
    let index = rng.below(BALANCERS);
    let (balancer, other) = (Host::Balancer(index), Host::Balancer((index + 1) % BALANCERS));
    let at = rng.between(10_000, 15_000);
    let mark = rng.pick(&[Mark::Fallback, Mark::Shed(40), Mark::Shed(100)]);
    let (service, drained) = (rng.below(SERVICES), rng.below(backends.len()));
    let ends = rng.percent(50).then(|| at / 1_000 + rng.between(5, 7));
    steps.push((at - 5_000, Step::Mark(service, mark, ends)));
    steps.push((at - 5_000, Step::Drain(drained, None)));
    // No other fault keeps the balancer from learning of them.
    steps.retain(|(_, step)| match step {
        Step::Cut(a, b) | Step::Mend(a, b) | Step::Slow(a, b, _) => {
            (*a, *b) != (Host::Etcd, balancer)
        }
        _ => true,
    });
    steps.push((at, Step::Cut(Host::Etcd, balancer)));
    steps.push((at + 500, Step::Crash(balancer)));
    steps.push((at + 1_500, Step::Start(balancer)));
    steps.push((at + 2_500, Step::Crash(other)));
    steps.push((at + 6_500, Step::Start(other)));
    if rng.percent(50) {
        steps.push((at + 600, Step::Crash(Host::Etcd)));
        steps.push((at + 1_200, Step::Disk(Disk::Empty)));
        steps.push((at + 1_200, Step::Start(Host::Etcd)));
    }
    steps.push((at + rng.between(9_000, 13_000), Step::Mend(Host::Etcd, balancer)));
    steps.push((HEAL + 500, Step::Unmark(service, mark)));
    steps.push((HEAL + 500, Step::Undrain(drained)));
    let of_service = clients.iter_mut().filter(|client| client.service == service);
    of_service
        .for_each(|client| client.hangups.retain(|hangup| !(at..at + 9_000).contains(hangup)));
}

/// Adds a long fault of one balancer's network: it does not reach some of the machines with
/// backends of a service, and a client that reports answered calls is connected all the time.
/// The backends are well. Returns the service; `None` if none has backends on two machines.
pub fn some_are_unreached(
    rng: &mut Rng,
    backends: &[Backend],
    clients: &mut [Client],
    steps: &mut Vec<(u64, Step)>,
) -> Option<usize> {
    let of = |service: usize| backends.iter().filter(move |one| one.service == service);
    let machines = |service: usize| of(service).map(|one| one.machine).collect::<BTreeSet<_>>();
    let suits = |service: &usize| machines(*service).len() > 1;
    let services: Vec<usize> = (0..SERVICES).filter(suits).collect();
    if services.is_empty() {
        return None;
    }
    let service = rng.pick(&services);
    let speaks =
        |client: &&mut Client| client.service == service && client.protocol == Protocol::Grpclb;
    let client = clients.iter_mut().find(speaks)?;
    client.hangups.clear();
    let balancer = Host::Balancer(client.first);
    let machines: Vec<usize> = machines(service).into_iter().collect();
    let spared = rng.pick(&machines);
    let (at, until) = (rng.between(9_000, 10_000), HEAL);
    for machine in machines.into_iter().filter(|one| *one != spared) {
        steps.push((at, Step::Cut(balancer, Host::Machine(machine))));
        steps.push((until, Step::Mend(balancer, Host::Machine(machine))));
    }
    let is_own = |backend: usize| backends[backend].service == service;
    steps.retain(|(at, step)| match step {
        Step::Want(backend, _) => !is_own(*backend) || *at <= 2_000 || *at >= HEAL,
        Step::Sweep(one) => *one != service,
        _ => true,
    });
    Some(service)
}

/// Adds a last document that only takes the zones of the large service away, when all its
/// keys are as they stay. Without slow start, nothing else gives the service a new value.
pub fn zones_end_alone(documents: &mut Vec<Document>, steps: &mut Vec<(u64, Step)>) {
    documents.iter_mut().for_each(|one| one[FLEET].abrupt = true);
    let Some(zoned) = documents.last_mut().filter(|one| !one[FLEET].cells) else { return };
    zoned[FLEET].zones = true;
    let mut last = *zoned;
    last[FLEET].zones = false;
    steps.push((HEAL + 2_000, Step::Rules(documents.len())));
    documents.push(last);
}

/// Adds what happens to the keys of the large service.
pub fn churn(rng: &mut Rng, steps: &mut Vec<(u64, Step)>) {
    for one in 0..FLEET_SIZE {
        steps.push((200 + 40 * one as u64, Step::Fleet(one, true)));
    }
    for _ in 0..rng.between(2, 12) {
        let at = rng.between(3_000, HEAL - 1_000);
        steps.push((at, Step::Fleet(rng.below(FLEET_SIZE), rng.percent(40))));
    }
    if rng.percent(30) {
        // So many leave that the service has too few for cells.
        let at = rng.between(6_000, HEAL - 6_000);
        (0..16).for_each(|one| steps.push((at + 20 * one, Step::Fleet(one as usize, false))));
    }
    for one in 0..FLEET_SIZE {
        steps.push((HEAL + 20 * one as u64, Step::Fleet(one, rng.percent(88))));
    }
}
