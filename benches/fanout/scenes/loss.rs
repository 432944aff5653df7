//! Measures the loss of many backends at once, of one service or of many: how long a
//! change of another service waits, and what a probe of one held backend costs among
//! many.
//!
//! In: the number of lost backends. Out: times and processor time of lookaside.

use std::time::Duration;

use super::scale::plan;
use super::{Bench, Outcome, cell, ms, service, wait_until_idle};
use crate::run::client::{Load, Manner};
use crate::run::report::percentile;
use crate::run::server::Server;
use crate::run::start::WAIT_MAX;

/// The number of services that lose backends, where it is not one.
const SERVICES: usize = 200;
/// A service beside them that loses nothing.
const BESIDE: &str = "s99999";
/// The number of its changes, one after the other.
const CHANGES: usize = 20;
const CHANGE_EVERY: Duration = Duration::from_millis(10);
/// A few held backends, and as many as reach the greatest rate of probes.
const FEW: usize = 100;
const FULL: usize = 500;
/// The number of backends of one lease, where many are held. Backends that were lost
/// earlier are probed for the second time while the last are lost. Without the pause,
/// none would be probed for minutes after the first round.
const OF_A_LEASE: usize = 5_000;
const LEASE_EVERY: Duration = Duration::from_secs(1);
/// The flags with which no held backend leaves, neither by time nor by probe.
const HELD: [&str; 4] = ["--keep-lost", "1h", "--guard", "100"];
const LET_GO: [&str; 4] = ["--keep-lost", "0s", "--guard", "0"];

/// Revokes one lease of all backends but one of each service, and measures until clients
/// have the new lists. Lost backends leave at once.
pub(crate) fn lists(bench: &mut Bench) -> Outcome {
    for services in [1, SERVICES] {
        let names: Vec<_> = (0..services).map(service).collect();
        for kind in bench.ours(false) {
            let lost = bench.lost / services;
            let mut all = names.clone();
            all.push(BESIDE.to_owned());
            bench.registry.fill(&all, 1);
            let lease = bench.registry.add_leased(&names, lost);
            let cell = cell("loss", services, lost, Manner::Plain, kind);
            let server = Server::start_with(kind, lost, &bench.registry.url(), false, &LET_GO);
            let mut load = Load::connect(server.addr, &plan(services, 1, services), WAIT_MAX)?;
            let mut beside = plan(1, 1, 1);
            beside.names = vec![BESIDE.to_owned()];
            let mut beside = Load::connect(server.addr, &beside, WAIT_MAX)?;
            load.expect_one();
            let revoke = bench.registry.revoke(lease);
            let begun = revoke.begun;
            let waiting = std::thread::scope(|scope| {
                let told = scope.spawn(|| load.until_caught_up(WAIT_MAX));
                let later = beside_later(bench, &mut beside);
                told.join().expect("it does not panic").map(|told| (told, later))
            });
            let (told, later) = waiting?;
            bench.registry.acknowledged(revoke);
            bench.note(&cell, "to last ms", ms(told.saturating_duration_since(begun)));
            bench.note(&cell, "beside later ms", later?);
            load.kill();
            beside.kill();
        }
    }
    Ok(())
}

/// Revokes leases while lost backends are held and probed. Measures how much later than
/// etcd's delivery a client gets changes of another service.
pub(crate) fn held(bench: &mut Bench) -> Outcome {
    for kind in bench.ours(false) {
        bench.registry.fill(&[service(0), BESIDE.to_owned()], 1);
        let lease = bench.registry.add_leased(&[service(0)], bench.lost);
        let cell = cell("loss", 1, bench.lost, Manner::Plain, kind);
        let server = Server::start_with(kind, 1, &bench.registry.url(), false, &HELD);
        let mut beside = plan(1, 1, 1);
        beside.names = vec![BESIDE.to_owned()];
        let mut beside = Load::connect(server.addr, &beside, WAIT_MAX)?;
        let revoke = bench.registry.revoke(lease);
        let later = beside_later(bench, &mut beside)?;
        bench.registry.acknowledged(revoke);
        bench.note(&cell, "beside held later ms", later);
        beside.kill();
    }
    Ok(())
}

/// Measures the processor time of each probe, with few and with many held backends: the
/// time that the server needs beyond its time without probes.
pub(crate) fn probes(bench: &mut Bench) -> Outcome {
    for count in [FEW, FULL, bench.held_addresses] {
        for kind in bench.ours(false) {
            bench.registry.fill(&[service(0)], 1);
            let some = count.div_ceil(OF_A_LEASE);
            let leases: Vec<_> =
                (0..some).map(|_| bench.registry.add_leased(&[service(0)], count / some)).collect();
            let cell = cell("probes", count, 1, Manner::Plain, kind);
            let server = Server::start_with(kind, 1, &bench.registry.url(), true, &HELD);
            wait_until_idle(&server);
            let (idle, _) = spent(&server, bench.time);
            for lease in leases {
                let revoke = bench.registry.revoke(lease);
                bench.registry.acknowledged(revoke);
                std::thread::sleep(LEASE_EVERY);
            }
            // The first round of probes finds that no backend answers.
            std::thread::sleep(bench.time / 2);
            let (cpu, probes) = spent(&server, bench.time);
            let cpu = cpu.saturating_sub(idle).as_secs_f64() * 1e6;
            bench.note(&cell, "cpu us/probe", cpu / probes.max(1) as f64);
            bench.note(&cell, "probes/s", probes as f64 / bench.time.as_secs_f64());
            bench.note(&cell, "memory MB", server.rss() as f64 / 1e6);
            drop(server);
        }
    }
    Ok(())
}

/// Returns the processor time of a server in this time, and the number of refused
/// connections on the machine: the server's probes, and hardly anything else.
fn spent(server: &Server, time: Duration) -> (Duration, u64) {
    let (cpu, refused) = (server.cpu(), refusals());
    std::thread::sleep(time);
    (server.cpu() - cpu, refusals() - refused)
}

/// Returns the number of failed attempts to connect on the whole machine.
fn refusals() -> u64 {
    let counters = std::fs::read_to_string("/proc/net/snmp").unwrap_or_default();
    let mut tcp = counters.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (tcp.next().unwrap_or_default(), tcp.next().unwrap_or_default());
    let mut both = names.split(' ').zip(values.split(' '));
    let found = both.find(|(name, _)| *name == "AttemptFails");
    found.and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
}

/// Returns how much later than etcd's delivery a client gets the slowest of some changes,
/// in milliseconds.
fn beside_later(bench: &mut Bench, load: &mut Load) -> Result<f64, String> {
    let mut later = Vec::new();
    for _ in 0..CHANGES {
        load.expect_one();
        let put = bench.registry.change(BESIDE);
        let here = load.until_caught_up(WAIT_MAX)?;
        let revision = bench.registry.acknowledged(put).revision;
        let delivered = bench.registry.delivered(revision);
        later.push(ms(here.saturating_duration_since(delivered)));
        std::thread::sleep(CHANGE_EVERY);
    }
    Ok(percentile(&mut later, 100))
}
