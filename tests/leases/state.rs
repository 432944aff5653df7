//! Tests `--state-dir`: the lists of a balancer that starts while etcd is down.
//!
//! In: a saved state, whole or broken. Out: the lists that it serves, and its alarms.

use std::path::Path;

use tempfile::TempDir;

use super::{balancer, hello, listed, metric, probes, wait_listed};
use crate::support::backend::Backend;
use crate::support::client::{Calls, Driver, Options};
use crate::support::etcd::Etcd;
use crate::support::eventually;
use crate::support::language::PYTHON;
use crate::support::lookaside::Balancer;

/// Waits until the newest saved state holds these backends.
fn wait_saved(dir: &Path, ids: &[&str]) {
    eventually("the state is saved", || {
        let text = std::fs::read_to_string(dir.join("state")).ok()?;
        ids.iter().all(|id| text.contains(&format!("\"id\":\"{id}\""))).then_some(())
    });
}

#[test]
fn a_balancer_that_starts_while_etcd_is_down_serves_the_same_list() {
    let dir = TempDir::new().unwrap();
    let state_dir = dir.path().to_str().unwrap();
    let mut etcd = Etcd::start();
    let args = ["--state-dir", state_dir];
    let mut first = balancer(&etcd, &args);
    let ids = ["a", "b", "c"];
    let backends: Vec<_> =
        ids.iter().map(|id| Backend::registered(id, &etcd.url(), "hello")).collect();
    wait_listed(&first, 3);
    wait_saved(dir.path(), &ids);
    let before = hello(&first)["endpoints"].clone();
    etcd.kill();
    first.kill();

    let again = balancer(&etcd, &args);
    let (_, ready) = again.get("/readyz");
    assert!(ready.contains("serving the state saved at 2"), "{ready}");
    assert_eq!(metric(&again, "lookaside_registry_restored"), 1.0);
    assert_eq!(hello(&again)["endpoints"], before);
    let driver = Driver::start(&PYTHON);
    let client = driver.open(&Options::grpclb(again.target("hello")));
    eventually("each gets its share", || {
        let report = client.call(&Calls::waiting(12));
        ids.iter().all(|id| report.from(id) == 4).then_some(())
    });

    // etcd returns, and one of the backends has died meanwhile.
    let mut backends = backends.into_iter();
    drop(backends.next());
    etcd.restart();
    eventually("the registry is read", || {
        (metric(&again, "lookaside_registry_restored") == 0.0).then_some(())
    });
    wait_listed(&again, 2);
    eventually("the others are registered", || probes(&again).is_empty().then_some(()));
    backends.for_each(|backend| {
        backend.stop();
    });
    wait_listed(&again, 0);
}

#[test]
fn a_file_that_is_no_state_is_told_of_and_never_served() {
    let mut etcd = Etcd::start();
    let whole = {
        let dir = TempDir::new().unwrap();
        let balancer = balancer(&etcd, &["--state-dir", dir.path().to_str().unwrap()]);
        etcd.ctl(&["put", "/etcd3_naming/hello/x", "127.0.0.1:9"]);
        wait_listed(&balancer, 1);
        wait_saved(dir.path(), &["x"]);
        std::fs::read(dir.path().join("state")).unwrap()
    };
    etcd.kill();
    let start = |state: &[u8]| {
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join("state"), state).unwrap();
        let path = dir.path().to_str().unwrap();
        let balancer = Balancer::start(&["--etcd", &etcd.url(), "--state-dir", path]);
        (balancer, dir)
    };
    let (good, _dir) = start(&whole);
    good.wait_ready();
    assert_eq!(listed(&good), 1);
    let mut corrupt = whole.clone();
    let at = whole.windows(9).position(|window| window == b"127.0.0.1").unwrap();
    corrupt[at + 8] = b'2';
    let torn = &whole[..whole.len() - 5];
    for (state, reason) in [
        (torn, "its end is missing"),
        (&corrupt, "its checksum is wrong"),
        (b"#!/bin/sh\n", "it is no state of lookaside's"),
    ] {
        let (balancer, _dir) = start(state);
        eventually("it is told of", || balancer.log().contains(reason).then_some(()));
        assert_eq!(balancer.get("/readyz").0, 503);
        assert_eq!(hello(&balancer), serde_json::Value::Null);
    }
}

#[test]
fn a_place_that_cannot_be_written_any_more_is_an_alarm_and_no_more() {
    let etcd = Etcd::start();
    let dir = TempDir::new().unwrap();
    let balancer = balancer(&etcd, &["--state-dir", dir.path().to_str().unwrap()]);
    eventually("the first state", || {
        (metric(&balancer, "lookaside_states_saved_total") >= 1.0).then_some(())
    });
    // This directory blocks the new file, so no state can be written.
    std::fs::create_dir(dir.path().join("state.new")).unwrap();
    etcd.ctl(&["put", "/etcd3_naming/hello/x", "127.0.0.1:9"]);
    wait_listed(&balancer, 1);
    eventually("the alarm", || {
        (metric(&balancer, "lookaside_states_failed_total") >= 1.0).then_some(())
    });
    assert!(balancer.log().contains("state cannot be saved"));
    assert_eq!(balancer.get("/readyz").0, 200);
}

#[test]
fn a_place_that_cannot_be_used_is_told_at_the_start() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let error = Balancer::try_start(&["--state-dir", path]).err().unwrap();
    assert!(error.contains(&format!("error: --state-dir {path:?} cannot be used: ")), "{error}");
    let dir = TempDir::new().unwrap();
    let path = dir.path().to_str().unwrap();
    let _first = Balancer::start(&["--state-dir", path]);
    let error = Balancer::try_start(&["--state-dir", path]).err().unwrap();
    assert!(error.contains("another process uses it"), "{error}");
}
