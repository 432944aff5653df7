//! Rows of faults of a single etcd: down, frozen, compacted, replaced, or with bad
//! values.
//!
//! In: the faults. Out: lists that stay, and how soon all clients converge afterwards.

use std::time::{Duration, Instant};

use crate::check::Settled;
use crate::row::Row;
use crate::scale::Scale;
use crate::support::etcd::Etcd;
use crate::support::proxy::Proxy;
use crate::support::{WAIT_MAX, eventually};
use crate::world::{CONVERGED, Size, World, service};
use crate::writer::{DEAD_PORT, Living, Writer, key, server};

const FIRST_LIST: Duration = Duration::from_millis(100);

#[test]
fn etcd_is_down_and_returns() {
    let must = "no stream closes, no list changes; the registry is shown as stale < 5 s; a new \
                client has the last list < 100 ms; after the return all converge < 2 s, and only \
                clients of changed services get a list";
    Row::run(1, "etcd is killed, and returns", must, |row, scale| {
        let size = Size::of(scale);
        let mut world = World::new(size, &[]);
        let down = Instant::now();
        world.etcd.kill();
        wait_until_stale(&world, row, down, Duration::from_secs(5));
        std::thread::sleep(scale.outage.saturating_sub(down.elapsed()));
        world.nobody_is_touched(row, down);
        row.within("newcomers wait", world.newcomers("s0"), FIRST_LIST);
        row.saw(format!("down for {:?}", scale.outage));
        world.etcd.restart();
        returned(world, row, Instant::now(), size);
    });
}

#[test]
fn etcd_is_stopped_and_goes_on() {
    let must = "noticed < 15 s, though its connections stay open; no stream closes, no list \
                changes; when it goes on all converge < 2 s";
    Row::run(9, "etcd hangs (SIGSTOP)", must, |row, scale| {
        let size = Size::of(scale);
        let world = World::new(size, &[]);
        let hung = Instant::now();
        world.etcd.freeze();
        wait_until_stale(&world, row, hung, Duration::from_secs(15));
        let hang = scale.pick(Duration::from_secs(6), Duration::from_secs(60));
        std::thread::sleep(hang.saturating_sub(hung.elapsed()));
        world.nobody_is_touched(row, hung);
        row.within("newcomers wait", world.newcomers("s0"), FIRST_LIST);
        world.etcd.thaw();
        returned(world, row, Instant::now(), size);
    });
}

#[test]
fn etcd_is_compacted_while_the_balancer_is_cut_off() {
    let must = "keys that were deleted meanwhile leave the lists; all converge < 2 s after the cut \
                is mended; clients of unchanged services get no list";
    Row::run(3, "etcd is compacted while the balancer is cut off", must, |row, scale| {
        let size = Size::of(scale);
        let etcd = Etcd::start();
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let proxy = runtime.block_on(Proxy::to(etcd.port()));
        let url = etcd.url();
        let mut world = World::with(etcd, &[url], size, &["--etcd", &proxy.url()], &[]);
        let cut = Instant::now();
        proxy.cut();
        wait_until_stale(&world, row, cut, Duration::from_secs(5));
        world.writer.put("s0", server(0, size.servers, DEAD_PORT));
        world.writer.delete("s0", server(0, 0, DEAD_PORT));
        compact(&world.etcd);
        world.nobody_is_touched(row, cut);
        let before = world.crowd.history(|h| h.received.len());
        // The new reading lacks the key, so it is in doubt until a probe is refused.
        let all = (0..=size.servers).map(|n| server(0, n, DEAD_PORT)).collect();
        let now = world.writer.model.now("s0");
        world.writer.model.between("s0", now.clone(), all, Instant::now());
        world.writer.model.exactly("s0", now, Instant::now());
        let mended = Instant::now();
        proxy.mend();
        row.within("converged", world.converge(mended), CONVERGED);
        world.only_received(row, before, "s0");
        world.finish(row, Some(Settled { at: mended, within: WAIT_MAX }));
    });
}

#[test]
fn values_are_large_or_nonsense() {
    let must = "keys that cannot be decoded are rejected and counted; a key keeps its last good \
                registration; other keys are served as before";
    Row::run(10, "values of 8 MiB together, malformed values, wrong keys", must, |row, scale| {
        let size = Size::of(scale);
        let mut world = World::new(size, &[]);
        let began = Instant::now();
        let megabyte = "x".repeat(1 << 20);
        for n in 0..8 {
            world.writer.write(&format!("/etcd3_naming/s0/large{n}"), &megabyte, 0);
        }
        for value in ["", "10.0.0.1:0", "10.0.0.1:65536", "\u{0}", "{\"addr\":", "[[[[[[[["] {
            world.writer.write(&format!("/etcd3_naming/s1/{}", value.len()), value, 0);
        }
        world.writer.write("/etcd3_naming//", "10.0.0.1:1", 0);
        world.writer.write("/etcd3_naming/s1/with/more", "10.0.0.1:1", 0);
        // Overwritten with nonsense: its last good registration stays.
        world.writer.write(&key("s2", server(2, 0, DEAD_PORT)), "nonsense", 0);
        let put = world.writer.put("s3", server(3, size.servers, DEAD_PORT));
        row.within("a neighbour's change arrives after", world.converge(put), CONVERGED);
        let received = world.crowd.history(|history| {
            let since = history.received.partition_point(|received| received.at <= began);
            history.received[since..].iter().map(|received| received.client).collect::<Vec<_>>()
        });
        let names = world.crowd.names();
        let others = received.iter().filter(|&&client| names[client as usize].0 != "s3").count();
        row.equal("lists sent to clients of other services", others, 0);
        let rejected = world.balancer.metric("lookaside_registry_rejected_keys").unwrap_or(0.0);
        row.saw(format!("keys rejected and counted: {rejected}"));
        row.must(rejected >= 8.0 + 5.0 + 1.0, "bad keys are counted");
        world.finish(row, Some(Settled { at: put, within: WAIT_MAX }));
    });
}

#[test]
fn etcd_is_replaced_by_an_empty_one() {
    let must = "while they answer, no backend leaves a list and no client gets a list; backends \
                that register again and new backends are followed at once";
    Row::run(11, "etcd returns empty", must, |row, scale| {
        replaced(row, scale, |etcd, _| etcd.restart_empty());
    });
}

#[test]
fn etcd_is_restored_to_an_older_revision() {
    let must = "as for an empty etcd: backends that the older state lacks stay while they answer";
    Row::run(12, "etcd is restored from an older snapshot", must, |row, scale| {
        replaced(row, scale, |etcd, snapshot| etcd.restart_from(snapshot));
    });
}

/// Replaces etcd after a snapshot: half of the usual backends register before the
/// snapshot, and one more of each service after it.
fn replaced(row: &mut Row, scale: Scale, replace: impl FnOnce(&mut Etcd, &std::path::Path)) {
    let living = Living::start();
    let size = Size { port: living.port(), ..Size::of(scale) };
    let half = Size { servers: size.servers / 2, ..size };
    let mut world = World::new(half, &[]);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let snapshot = directory.path().join("snapshot");
    world.etcd.ctl(&["snapshot", "save", snapshot.to_str().expect("its name is text")]);
    let mut put = Instant::now();
    for n in 0..size.services {
        put = world.writer.put(&service(n), server(n, half.servers, size.port));
    }
    world.converge(put);
    let replaced = Instant::now();
    world.etcd.kill();
    replace(&mut world.etcd, &snapshot);
    let back = Instant::now();
    world.wait_metric("lookaside_endpoints_held", |held| held >= size.services as f64);
    row.saw(format!("read again {} after its return", crate::row::short(back.elapsed())));
    std::thread::sleep(scale.pick(Duration::from_secs(2), Duration::from_secs(20)));
    world.nobody_is_touched(row, replaced);
    let model = world.writer.model.clone();
    world.writer = Writer::with_model(&[world.etcd.url()], model);
    world.writer.write(
        &key("s1", server(1, half.servers, size.port)),
        &server(1, half.servers, size.port).to_string(),
        0,
    );
    let before = world.crowd.history(|h| h.received.len());
    let put = world.writer.put("s0", server(0, size.servers, size.port));
    row.within("a new registration converged", world.converge(put), CONVERGED);
    world.only_received(row, before, "s0");
    world.finish(row, Some(Settled { at: put, within: WAIT_MAX }));
}

/// Ends a run in which etcd answers again since `up`, after one more registration.
fn returned(mut world: World, row: &mut Row, up: Instant, size: Size) {
    let before = world.crowd.history(|h| h.received.len());
    world.writer.put("s0", server(0, size.servers, DEAD_PORT));
    row.within("converged", world.converge(up), CONVERGED);
    world.only_received(row, before, "s0");
    world.wait_metric("lookaside_registry_stale", |stale| stale == 0.0);
    world.finish(row, Some(Settled { at: up, within: WAIT_MAX }));
}

/// Waits until the balancer reports that the registry is stale, within `within`.
fn wait_until_stale(world: &World, row: &mut Row, since: Instant, within: Duration) {
    world.wait_metric("lookaside_registry_stale", |stale| stale == 1.0);
    row.within("stale is told after", since.elapsed(), within);
    let (status, page) = world.balancer.get("/readyz");
    row.must(status == 200 && page.lines().count() > 1, format!("/readyz: {status} {page}"));
}

fn compact(etcd: &Etcd) {
    let json = etcd.ctl(&["get", "x", "-w", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("etcdctl writes JSON");
    let revision = json["header"]["revision"].to_string();
    eventually("etcd is compacted", || {
        etcd.ctl(&["compact", &revision]).contains("compacted").then_some(())
    });
}
