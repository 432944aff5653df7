//! Rows of a full disk, a torn saved state, and a wall clock that jumps.
//!
//! In: the faults. Out: lists that stay right, and alarms.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::check::Settled;
use crate::restart::wait_saved;
use crate::row::Row;
use crate::support::{WAIT_MAX, eventually, skip};
use crate::world::{CONVERGED, Size, World};
use crate::writer::{DEAD_PORT, Living, server};

#[test]
fn the_disk_fills_up_and_the_state_is_torn() {
    let must = "updates arrive as ever, an alarm comes; after a restart without etcd the last \
                state that could be written is served; a torn state is reported, and the state \
                before it is served";
    let Some(disk) = Tiny::mount() else {
        return skip("the_disk_fills_up", "no file system can be mounted here");
    };
    Row::run(
        25,
        "the disk of `--state-dir` is full; then the state on it is torn",
        must,
        |row, scale| {
            let size = Size::of(scale);
            let directory = disk.0.path();
            let mut world = World::new(size, &["--state-dir", directory.to_str().expect("text")]);
            wait_saved(directory, size);
            let ballast = directory.join("ballast");
            let _ = std::fs::write(&ballast, vec![0; Tiny::SIZE]);
            let full = Instant::now();
            let old = world.writer.model.now("s0");
            let put = world.writer.put("s0", server(0, size.servers, DEAD_PORT));
            row.within("an update meanwhile", world.converge(put), CONVERGED);
            world.wait_metric("lookaside_states_failed_total", |failed| failed >= 1.0);
            row.within("the alarm after", full.elapsed(), Duration::from_secs(5));
            row.equal("streams closed", world.crowd.history(|h| h.lost.len()), 0);
            // The newest state was never written, so lists may be old while etcd is down.
            world.etcd.kill();
            let new = world.writer.model.now("s0");
            world.writer.model.between("s0", old, new.clone(), Instant::now());
            world.crash();
            world.wait_listed(size.clients);
            row.saw("restarted without etcd: all have lists");
            world.etcd.restart();
            world.writer.model.exactly("s0", new, Instant::now());
            world.converge(Instant::now());
            std::fs::remove_file(&ballast).expect("it was there");
            let size = Size { servers: size.servers + 1, ..size };
            let saved = || {
                std::fs::read_to_string(directory.join("state")).is_ok_and(|text| {
                    text.contains(&server(0, size.servers - 1, DEAD_PORT).to_string())
                })
            };
            eventually("the state is saved again", || saved().then_some(()));
            // A power cut leaves half of the newest state; the one before it is whole.
            world.etcd.kill();
            world.balancer.kill();
            let whole = std::fs::read(directory.join("state")).expect("it was saved");
            std::fs::write(directory.join("state.bak"), &whole).expect("there is room");
            std::fs::write(directory.join("state"), &whole[..whole.len() / 2])
                .expect("there is room");
            let up = world.start_again();
            world.wait_listed(size.clients);
            let received = world.balancer.log().contains("saved state cannot be used");
            row.must(received, "a torn state is told of");
            row.saw("torn: the one before it is served");
            world.etcd.restart();
            world.converge(up);
            world.finish(row, Some(Settled { at: up, within: WAIT_MAX }));
        },
    );
}

#[test]
fn the_clock_jumps() {
    let must = "no stream closes, no list changes, no held backend is dropped before its time, \
                etcd does not become stale";
    let library = need_fake_clock();
    let Some(library) = library else {
        return skip("the_clock_jumps", "no libfaketime: Debian package faketime");
    };
    Row::run(24, "the wall clock jumps by an hour, forth and back", must, |row, scale| {
        let living = Living::start();
        let size = Size { port: living.port(), ..Size::of(scale) };
        let directory = tempfile::tempdir().expect("a temporary directory");
        let clock = directory.path().join("clock");
        let set = |offset: &str| std::fs::write(&clock, offset).expect("a temporary file");
        set("+0");
        let environment = [
            ("LD_PRELOAD", library.as_str()),
            ("FAKETIME_TIMESTAMP_FILE", clock.to_str().expect("its name is text")),
            ("FAKETIME_CACHE_DURATION", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
        ];
        let mut world = World::with_environment(size, &["--keep-lost", "30m"], &environment);
        // One registration is in doubt, for half an hour.
        let lease = world.writer.lease(60);
        let doubted = world.writer.put_leased("s0", server(0, size.servers, size.port), lease);
        world.converge(doubted);
        world.etcd.ctl(&["lease", "revoke", &format!("{lease:x}")]);
        world.wait_metric("lookaside_endpoints_held", |held| held == 1.0);
        let began = Instant::now();
        for offset in ["+1h", "-1h", "+0"] {
            set(offset);
            std::thread::sleep(Duration::from_secs(scale.pick(3, 20)));
            let stale = world.balancer.metric("lookaside_registry_stale");
            row.equal(&format!("stale at {offset}"), stale, Some(0.0));
            let held = world.balancer.metric("lookaside_endpoints_held");
            row.equal("held", held, Some(1.0));
        }
        world.nobody_is_touched(row, began);
        // The log's timestamps show that the clock did jump.
        set("+1h");
        std::thread::sleep(Duration::from_secs(2));
        world.etcd.kill();
        world.wait_metric("lookaside_registry_stale", |stale| stale == 1.0);
        let log = world.balancer.log();
        let at = |line: &str| humantime::parse_rfc3339_weak(line.split(' ').next()?).ok();
        let (first, last) = (log.lines().find_map(at), log.lines().rev().find_map(at));
        let (first, last) = (first.expect("a time"), last.expect("a time"));
        let jumped = last.duration_since(first).unwrap_or_default();
        row.must(jumped >= Duration::from_secs(3600), format!("it jumped by {jumped:?}"));
        world.etcd.restart();
        let put = world.writer.put("s1", server(1, size.servers, size.port));
        row.within("an update afterwards", world.converge(put), CONVERGED);
        world.finish(row, Some(Settled { at: put, within: WAIT_MAX }));
    });
}

/// A file system of 1 MiB. Dropping it unmounts it.
struct Tiny(tempfile::TempDir);

impl Tiny {
    const SIZE: usize = 1 << 20;

    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={}", Self::SIZE), "tmpfs"])
            .arg(directory.path())
            .status();
        mount.is_ok_and(|status| status.success()).then(|| Self(directory))
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

/// Returns the path of the library that fakes the wall clock, if it can be installed.
fn need_fake_clock() -> Option<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/need");
    let _ = Command::new(script).arg("faketime").status();
    let places = std::fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok);
    let files = places.map(|place| place.path().join("faketime/libfaketimeMT.so.1"));
    let found = files.into_iter().find(|file| file.exists())?;
    found.to_str().map(str::to_owned)
}
