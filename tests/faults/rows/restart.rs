//! Rows of faults of the balancer itself: killed, restarted, and stopped.
//!
//! In: the faults. Out: how long clients have no list.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::check::{self, Settled};
use crate::row::{Row, short, spread};
use crate::support::crowd::{Crowd, FALLBACK, Manner, Plan};
use crate::support::etcd::Etcd;
use crate::support::lookaside::Balancer;
use crate::support::signal::Signal;
use crate::support::{WAIT_MAX, eventually};
use crate::world::{CONVERGED, NEWCOMERS, Size, World, overflows, service};
use crate::writer::{DEAD_PORT, Writer, server};

/// How soon all clients have lists again, including their own backoff of a second.
const HERD: Duration = Duration::from_secs(3);

#[test]
fn the_balancer_is_killed_and_restarted() {
    let must = "every client has its list again ≤ 3 s after the restart, its backoff included; \
                none waits 10 s; nothing overflows";
    Row::run(21, "the balancer is killed and restarted (SIGKILL)", must, |row, scale| {
        let size = Size::of(scale);
        let mut world = World::new(size, &[]);
        let began = Instant::now();
        let up = world.crash();
        world.wait_listed(size.clients);
        herd(row, &world, began, up);
        world.finish(row, Some(Settled { at: up, within: WAIT_MAX }));
    });
}

#[test]
fn the_balancer_is_killed_and_restarted_without_etcd() {
    let must = "the same from the saved state: every client has the list it had before; the \
                registry is shown as restored; etcd's return changes nothing";
    let fault = "the balancer is killed and restarted while etcd is down, with `--state-dir`";
    Row::run(22, fault, must, |row, scale| {
        let size = Size::of(scale);
        let directory = tempfile::tempdir().expect("a temporary directory");
        let state_dir = directory.path().to_str().expect("its name is text");
        let mut world = World::new(size, &["--state-dir", state_dir]);
        wait_saved(directory.path(), size);
        world.etcd.kill();
        let began = Instant::now();
        let up = world.crash();
        row.within("the first list after", world.newcomers("s0"), Duration::from_secs(1));
        world.wait_listed(size.clients + NEWCOMERS);
        herd(row, &world, began, up);
        row.equal("restored", world.balancer.metric("lookaside_registry_restored"), Some(1.0));
        let before = Instant::now();
        world.etcd.restart();
        world.wait_metric("lookaside_registry_restored", |restored| restored == 0.0);
        world.nobody_is_touched(row, before);
        world.finish(row, Some(Settled { at: up, within: WAIT_MAX }));
    });
}

#[test]
fn the_balancer_starts_while_etcd_is_down_and_has_no_state() {
    let must = "grpclb's streams are refused before their initial response, so that clients back \
                off; those of xDS are kept waiting; nothing is sent; ready < 2 s after etcd";
    let fault = "the balancer starts while etcd is down, without a saved state";
    Row::run(2, fault, must, |row, scale| {
        let mut etcd = Etcd::start();
        let mut writer = Writer::new(&[etcd.url()]);
        writer.put_all("s0", (0..20).map(|n| server(0, n, DEAD_PORT)));
        etcd.kill();
        let balancer = Balancer::start(&["--etcd", &etcd.url()]);
        let crowd = Crowd::new(Plan::mixed(balancer.grpclb()));
        let half = scale.streams / 2;
        crowd.add((0..2 * half).map(|_| service(0)), Manner::Usual);
        let refused = || crowd.history(|history| history.refused);
        let sent = || crowd.history(|h| h.received.len() + h.described.len());
        // The balancer keeps streams of xDS for ten seconds before it refuses them.
        let asked = || refused() >= half as u64 && crowd.waiting_for_xds() == half;
        eventually("all are refused or wait", || (asked() || sent() > 0).then_some(()));
        row.equal("lists sent", sent(), 0);
        etcd.restart();
        let up = Instant::now();
        balancer.wait_ready();
        // The balancer pauses up to 1.6 s between two attempts.
        row.within("ready after etcd's return:", up.elapsed(), CONVERGED);
        row.clients(2 * half);
        eventually("all have lists", || (crowd.listed() == 2 * half).then_some(()));
        row.saw(format!(
            "refused {} times; all had lists after {}",
            refused(),
            short(up.elapsed())
        ));
        let names = crowd.names();
        let settled = Settled { at: up, within: WAIT_MAX };
        row.breaches(check::lists(&crowd.finish(), &writer.model, &names, Some(settled)));
    });
}

#[test]
fn the_balancer_is_stopped_and_another_takes_over() {
    let must = "clients are sent away one after the other, over half a second for a thousand; \
                all get the same lists from the other balancer, none waits long";
    Row::run(23, "graceful stop beside another balancer (SIGTERM)", must, |row, scale| {
        let size = Size::of(scale);
        let etcd = Etcd::start();
        let mut writer = Writer::new(&[etcd.url()]);
        for n in 0..size.services {
            writer.put_all(&service(n), (0..size.servers).map(|i| server(n, i, DEAD_PORT)));
        }
        let start = || Balancer::start(&["--etcd", &etcd.url()]);
        let (mut one, other) = (start(), start());
        one.wait_ready();
        other.wait_ready();
        let balancers = vec![one.grpclb(), other.grpclb()];
        let crowd = Crowd::new(Plan { balancers, ..Plan::mixed(one.grpclb()) });
        crowd.add((0..size.clients).map(|client| size.service_of(client)), Manner::Usual);
        let listed = || (crowd.listed() == size.clients).then_some(());
        eventually("every client has a list", listed);
        let began = Instant::now();
        one.signal(Signal::TERM);
        let moved = || (crowd.history(|h| h.lost_since(began)) == size.clients).then_some(());
        eventually("all are sent away", moved);
        eventually("every client has a list", listed);
        row.equal("exit code", one.wait().code(), Some(0));
        let (waits, mut lost) = crowd.history(|history| {
            let lost = history.lost.iter().filter(|lost| lost.at > began);
            (history.waits_since(began), lost.map(|lost| lost.at).collect::<Vec<_>>())
        });
        lost.sort_unstable();
        let [first, median, last] = [0, lost.len() / 2, lost.len() - 1].map(|n| lost[n] - began);
        row.saw(format!("sent away from {} to {}", short(first), short(last)));
        row.saw(format!("without a list: {}", spread(&waits)));
        let spread = Duration::from_millis(size.clients as u64 / 2).min(Duration::from_secs(10));
        row.must(last - first > spread / 2, format!("spread over {spread:?} or so"));
        row.must(median - first > spread / 5, "not most of them at once");
        let longest = waits.last().copied().unwrap_or_default();
        row.within("the longest gap", longest, Duration::from_secs(1));
        row.clients(size.clients);
        let names = crowd.names();
        let settled = Settled { at: Instant::now(), within: WAIT_MAX };
        row.breaches(check::lists(&crowd.finish(), &writer.model, &names, Some(settled)));
    });
}

/// Waits until the newest saved state holds the last backend of every service.
pub fn wait_saved(directory: &Path, size: Size) {
    eventually("the state is saved", || {
        let text = std::fs::read_to_string(directory.join("state")).ok()?;
        let saved = |n| text.contains(&server(n, size.servers - 1, size.port).to_string());
        (0..size.services).all(saved).then_some(())
    });
}

/// Records how all clients came back after a restart.
fn herd(row: &mut Row, world: &World, began: Instant, up: Instant) {
    let (waits, last) = world.crowd.history(|history| {
        (history.waits_since(began), history.waits.last().expect("all waited").ended)
    });
    row.within("all have lists after the restart:", last - up, HERD);
    row.saw(format!("without a list: {}", spread(&waits)));
    let late = waits.iter().filter(|wait| **wait >= FALLBACK).count();
    row.equal("clients that waited 10 s", late, 0);
    row.equal("listen overflows", overflows(&world.balancer), 0);
}
