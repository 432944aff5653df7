//! Tests marks from an operator's side. Every replica obeys them, they survive restarts,
//! outages and restored copies of etcd, and they end in time.
//!
//! In: commands, and keys in etcd. Out: lists, answers and metrics of the balancers.

use std::process::{Command, Output, Stdio};

use crate::support::etcd::Etcd;
use crate::support::eventually;
use crate::support::lookaside::{Balancer, program};
use serde_json::Value;

const PREFIX: &str = "/lookaside/marks/lookaside.internal/";

fn lookaside(args: &[&str]) -> Output {
    let mut command = Command::new(program());
    // The environment of the test run must not change settings.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LOOKASIDE_") {
            command.env_remove(name);
        }
    }
    command.args(args).stdin(Stdio::null()).output().expect("lookaside runs")
}

/// Runs a command at a balancer. Returns its output, errors included. Panics if the exit
/// code is not `code`.
#[track_caller]
fn command(balancer: &Balancer, args: &[&str], code: i32) -> String {
    let admin = format!("http://{}", balancer.admin());
    let output = lookaside(&[args, &["--admin", &admin]].concat());
    let [out, error] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    let said = format!("{out}{error}");
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    said
}

fn json(balancer: &Balancer, path: &str) -> Value {
    let (status, text) = balancer.get(path);
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).expect("JSON")
}

/// Returns the ids of the listed backends of a service.
fn listed(balancer: &Balancer, service: &str) -> Vec<String> {
    let detail = json(balancer, &format!("/api/v1/services/{service}"));
    let endpoints = detail["endpoints"].as_array().expect("endpoints").clone();
    let turns = |one: &Value| one["turns"].as_u64().unwrap_or(0) > 0;
    let ids = endpoints.iter().filter(|one| turns(one)).map(|one| one["id"].as_str().unwrap());
    ids.map(str::to_owned).collect()
}

#[track_caller]
fn wait_listed(balancer: &Balancer, service: &str, expected: &[&str]) {
    eventually("the list is as it should be", || {
        (listed(balancer, service) == expected).then_some(())
    });
}

fn register(etcd: &Etcd, service: &str, backends: &[u8]) {
    for backend in backends {
        let key = format!("/etcd3_naming/{service}/{backend}");
        etcd.ctl(&["put", &key, &format!("10.0.0.{backend}:50051")]);
    }
}

fn balancer(etcd: &Etcd) -> Balancer {
    // Unannounced, so that all leases in etcd are those of marks.
    let balancer = Balancer::start(&["--etcd", &etcd.url(), "--announce", "off"]);
    balancer.wait_ready();
    balancer
}

#[test]
fn every_replica_obeys_a_drain_and_so_does_one_that_starts() {
    let etcd = Etcd::start();
    register(&etcd, "hello", &[1, 2, 3]);
    let (one, other) = (balancer(&etcd), balancer(&etcd));
    let said = command(&one, &["drain", "hello", "10.0.0.2:50051", "--why", "new disk"], 0);
    assert_eq!(said, "10.0.0.2:50051 of hello: 1 drained until undrain, 2 left\n");
    // The balancer that takes the command obeys it before the command ends.
    assert_eq!(listed(&one, "hello"), ["1", "3"]);
    wait_listed(&other, "hello", &["1", "3"]);
    let third = balancer(&etcd);
    wait_listed(&third, "hello", &["1", "3"]);
    let shown = command(&other, &["marks"], 0);
    assert!(shown.contains("new disk") && shown.contains("in force"), "{shown}");
    let explained = command(&third, &["explain", "hello", "--backend", "2"], 3);
    assert!(explained.contains("undrained") && explained.contains("new disk"), "{explained}");
    // The last backend is drained only with `--anyway`.
    let refused = command(&other, &["drain", "HELLO.lookaside.internal", "3"], 0);
    assert!(refused.contains("1 left"), "{refused}");
    let refused = command(&other, &["drain", "hello", "10.0.0.1"], 1);
    assert!(refused.contains("would leave \"hello\" without a backend"), "{refused}");
    command(&other, &["drain", "hello", "10.0.0.1", "--anyway"], 0);
    for balancer in [&one, &other, &third] {
        wait_listed(balancer, "hello", &[]);
        assert_eq!(json(balancer, "/api/v1/services")["services"][0]["state"], "unusable");
    }
    let said = command(&third, &["undrain", "hello", "3"], 0);
    assert_eq!(said, "3 of hello: no longer drained\n");
    wait_listed(&one, "hello", &["3"]);
    command(&one, &["undrain", "hello"], 0);
    for balancer in [&one, &other, &third] {
        wait_listed(balancer, "hello", &["1", "2", "3"]);
    }
    // A note of the end stays for a while, for balancers that are down.
    assert!(command(&one, &["marks", "--all"], 0).contains("over"));
    let nothing = command(&one, &["undrain", "hello"], 1);
    assert!(nothing.contains("no mark drains backends of \"hello\""), "{nothing}");
    assert!(command(&one, &["marks"], 0).contains("no mark is set"));
}

#[test]
fn a_host_and_a_zone_are_drained_in_all_services() {
    let etcd = Etcd::start();
    register(&etcd, "hello", &[1, 2]);
    register(&etcd, "other", &[2, 3]);
    let metadata = r#"{"Op":0,"Addr":"10.0.0.4:50051","Metadata":{"zone":"b"}}"#;
    etcd.ctl(&["put", "/etcd3_naming/other/4", metadata]);
    let balancer = balancer(&etcd);
    let said = command(&balancer, &["drain", "*", "10.0.0.2"], 0);
    assert_eq!(said, "10.0.0.2 of *: 2 drained until undrain, 3 left\n");
    let said = command(&balancer, &["drain", "*", "zone=b", "--for", "1h"], 0);
    assert!(said.starts_with("zone=b of *: 1 drained until 2"), "{said}");
    assert_eq!(listed(&balancer, "hello"), ["1"]);
    assert_eq!(listed(&balancer, "other"), ["3"]);
    assert_eq!(balancer.metric("lookaside_endpoints_drained"), Some(3.0));
    assert_eq!(balancer.metric(r#"lookaside_marks{kind="drain"}"#), Some(2.0));
    // The mark also holds for a service that registers later.
    register(&etcd, "late", &[2, 5]);
    wait_listed(&balancer, "late", &["5"]);
    // If another mark still drains the backend, undrain names it.
    command(&balancer, &["drain", "other", "10.0.0.2"], 0);
    let said = command(&balancer, &["undrain", "other", "10.0.0.2"], 0);
    assert!(said.contains("warning: 1 of them stay drained, by 10.0.0.2 of *"), "{said}");
    command(&balancer, &["undrain", "*"], 0);
    assert_eq!(listed(&balancer, "other"), ["2", "3", "4"]);
}

#[test]
fn sheds_and_fallbacks_are_obeyed_by_every_replica_and_shown() {
    let etcd = Etcd::start();
    register(&etcd, "hello", &[1, 2]);
    let (one, other) = (balancer(&etcd), balancer(&etcd));
    let said = command(&one, &["shed", "hello", "20", "--why", "too hot", "--by", "me"], 0);
    assert_eq!(said, "hello: 20 % of the calls are shed until unshed, 0 streams here\n");
    let said = command(&one, &["shed", "hello", "90", "--clients", "zone=a", "--for", "1h"], 0);
    assert!(said.starts_with("hello: 90 % of the calls are shed for zone=a until 2"), "{said}");
    let row = |balancer: &Balancer| json(balancer, "/api/v1/services")["services"][0].clone();
    eventually("the other replica obeys", || (row(&other)["shed"] == 90).then_some(()));
    for balancer in [&one, &other] {
        assert_eq!(
            (&row(balancer)["state"], &row(balancer)["shed"]),
            (&"shedding".into(), &90.into())
        );
        let explained = command(balancer, &["explain", "hello"], 0);
        let expected = "these clients drop 20 % of their calls, by me: too hot";
        assert!(explained.contains(expected), "{explained}");
        assert_eq!(balancer.metric(r#"lookaside_marks{kind="shed"}"#), Some(2.0));
        // No backend leaves the list.
        assert_eq!(listed(balancer, "hello"), ["1", "2"]);
    }
    let marks = command(&other, &["marks"], 0);
    assert!(marks.contains("90 %") && marks.contains("zone=a"), "{marks}");
    let third = balancer(&etcd);
    assert_eq!(row(&third)["shed"], 90);
    let said = command(&third, &["unshed", "hello", "--clients", "zone=a"], 0);
    assert_eq!(said, "hello: no longer shed for zone=a\n");
    assert_eq!(row(&third)["shed"], 20);
    command(&third, &["unshed", "hello"], 0);
    let said = command(&third, &["fallback", "*", "--for", "10m"], 0);
    assert!(said.starts_with("*: clients use the addresses from DNS until 2"), "{said}");
    assert_eq!(
        (&row(&third)["state"], &row(&third)["fallback"]),
        (&"fallback".into(), &true.into())
    );
    let explained = command(&third, &["explain", "hello"], 0);
    assert!(explained.contains("these clients use the addresses from DNS"), "{explained}");
    let said = command(&third, &["unfallback", "*"], 0);
    assert_eq!(said, "*: clients use their lists again\n");
    eventually("all is well again", || (row(&one)["state"] == "ok").then_some(()));
    // Wrong orders change nothing.
    for (args, code, expected) in [
        (&["shed", "hello", "0"][..], 64, "0 is not in 1..=100"),
        (&["shed", "nobody", "10"], 1, "no backend of \"nobody\" is registered"),
        (&["shed", "hello", "10", "--clients", "zone"], 64, "expected KEY=VALUE"),
        (&["shed", "hello", "10", "--for", "0s"], 64, "expected 1s to 366days"),
        (&["unshed", "hello"], 1, "no mark of \"hello\" itself sheds calls"),
        (&["unfallback", "hello"], 1, "no mark of \"hello\" itself sends clients"),
    ] {
        let refused = command(&one, args, code);
        assert!(refused.contains(expected), "{refused}");
    }
    etcd.ctl(&["put", &format!("{PREFIX}shed/hello"), r#"{"percent":101}"#]);
    eventually("a wrong part is refused", || {
        let text = json(&one, "/api/v1/marks")["refused"].to_string();
        text.contains("percent is 101: expected 1 to 100").then_some(())
    });
    assert_eq!(row(&one)["shed"], 0);
    command(&one, &["shed", "late", "50", "--anyway"], 0);
    register(&etcd, "late", &[3]);
    eventually("the mark waits for the service", || {
        let services = json(&one, "/api/v1/services")["services"].clone();
        let late = services.as_array()?.iter().find(|one| one["name"] == "late")?;
        (late["shed"] == 50).then_some(())
    });
}

#[test]
fn a_drain_that_has_an_end_ends_with_and_without_etcd() {
    let mut etcd = Etcd::start();
    register(&etcd, "hello", &[1, 2, 3]);
    let running = balancer(&etcd);
    command(&running, &["drain", "hello", "1", "--for", "2s"], 0);
    command(&running, &["drain", "hello", "2", "--for", "1h"], 0);
    let drained = format!("{PREFIX}drain/hello/");
    assert!(etcd.ctl(&["get", "--prefix", &drained]).contains("\"until\""));
    // Both marks have leases, so that etcd deletes them in the end.
    assert_eq!(etcd.ctl(&["lease", "list"]).lines().count(), 3);
    etcd.kill();
    wait_listed(&running, "hello", &["1", "3"]);
    // The mark ended while etcd was down, and its key is still there.
    etcd.restart();
    let started = balancer(&etcd);
    wait_listed(&started, "hello", &["1", "3"]);
    let marks = json(&started, "/api/v1/marks");
    let states: Vec<_> =
        marks["marks"].as_array().unwrap().iter().map(|one| &one["state"]).collect();
    assert_eq!(states, ["over", "in force"]);
    eventually("the marks are heard again", || {
        json(&running, "/api/v1/marks")["unheard"].is_null().then_some(())
    });
    assert_eq!(listed(&running, "hello"), ["1", "3"]);
}

#[test]
fn without_etcd_marks_stay_and_none_is_set() {
    let mut etcd = Etcd::start();
    register(&etcd, "hello", &[1, 2, 3]);
    let balancer = balancer(&etcd);
    command(&balancer, &["drain", "hello", "1"], 0);
    etcd.kill();
    eventually("etcd is missed", || {
        balancer.metric("lookaside_registry_stale").filter(|is| *is == 1.0)
    });
    let refused = command(&balancer, &["drain", "hello", "2"], 1);
    assert!(refused.contains("etcd does not confirm the mark"), "{refused}");
    assert_eq!(listed(&balancer, "hello"), ["2", "3"]);
    assert!(command(&balancer, &["marks"], 0).contains("etcd does not answer"));
    etcd.restart();
    eventually("it is taken", || {
        let admin = format!("http://{}", balancer.admin());
        let done = lookaside(&["drain", "hello", "2", "--admin", &admin]);
        done.status.success().then_some(())
    });
    wait_listed(&balancer, "hello", &["3"]);
}

#[test]
fn an_older_copy_of_etcd_ends_no_drain() {
    let mut etcd = Etcd::start();
    register(&etcd, "hello", &[1, 2]);
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy.db");
    etcd.ctl(&["snapshot", "save", copy.to_str().unwrap()]);
    let balancer = balancer(&etcd);
    command(&balancer, &["drain", "hello", "1"], 0);
    etcd.restart_from(&copy);
    eventually("the mark is kept", || {
        (json(&balancer, "/api/v1/marks")["marks"][0]["state"] == "kept").then_some(())
    });
    assert_eq!(listed(&balancer, "hello"), ["2"]);
    eventually("it is logged", || balancer.log().contains("etcd has lost this mark").then_some(()));
    assert_eq!(balancer.metric("lookaside_marks_kept"), Some(1.0));
    command(&balancer, &["undrain", "hello", "1"], 0);
    wait_listed(&balancer, "hello", &["1", "2"]);
    assert!(etcd.ctl(&["get", "--prefix", PREFIX]).contains("until"));
}

#[test]
fn what_others_write_there_is_obeyed_or_refused_and_shown() {
    let etcd = Etcd::start();
    register(&etcd, "hello", &[1, 2]);
    let balancer = balancer(&etcd);
    // In an emergency an empty value suffices.
    etcd.ctl(&["put", &format!("{PREFIX}drain/hello/10.0.0.1"), ""]);
    wait_listed(&balancer, "hello", &["2"]);
    // A value that cannot be read leaves the former value in force.
    etcd.ctl(&["put", &format!("{PREFIX}drain/hello/10.0.0.1"), "soon"]);
    etcd.ctl(&["put", &format!("{PREFIX}freeze/hello"), ""]);
    etcd.ctl(&["put", &format!("{PREFIX}drain/nobody/10.9.9.9"), ""]);
    eventually("two are refused", || {
        balancer.metric("lookaside_marks_refused").filter(|refused| *refused == 2.0)
    });
    assert_eq!(listed(&balancer, "hello"), ["2"]);
    let shown = command(&balancer, &["marks"], 0);
    assert!(shown.contains("freeze/hello is refused: \"freeze\" is no mark"), "{shown}");
    let marks = json(&balancer, "/api/v1/marks");
    assert_eq!((&marks["total"], &marks["refused_total"]), (&2.into(), &2.into()), "{marks}");
    assert!(balancer.log().contains("mark refused"), "{}", balancer.log());
    // Marks of another zone do not count.
    etcd.ctl(&["put", "/lookaside/marks/other.internal/drain/hello/10.0.0.2", ""]);
    etcd.ctl(&["del", &format!("{PREFIX}drain/hello/10.0.0.1")]);
    wait_listed(&balancer, "hello", &["1", "2"]);
}

#[test]
fn a_release_reaches_every_replica_and_is_about_its_time() {
    let etcd = Etcd::start();
    let lease = etcd.ctl(&["lease", "grant", "600"]);
    let lease = lease.split(' ').nth(1).expect("a lease").to_owned();
    for backend in [1, 2] {
        let key = format!("/etcd3_naming/hello/{backend}");
        let value = format!("10.0.0.{backend}:50051");
        etcd.ctl(&["put", &key, &value, &format!("--lease={lease}")]);
    }
    // Nothing answers at these addresses, and the guard keeps the backends.
    let args = ["--etcd", &etcd.url(), "--guard", "100"];
    let (one, other) = (Balancer::start(&args), Balancer::start(&args));
    for balancer in [&one, &other] {
        balancer.wait_ready();
        wait_listed(balancer, "hello", &["1", "2"]);
    }
    etcd.ctl(&["lease", "revoke", &lease]);
    for balancer in [&one, &other] {
        eventually("both are held", || {
            balancer.metric("lookaside_endpoints_held").filter(|held| *held == 2.0)
        });
    }
    assert_eq!(command(&one, &["release", "hello"], 0), "hello: 2 released\n");
    for balancer in [&one, &other] {
        eventually("nothing is held", || {
            balancer.metric("lookaside_endpoints_held").filter(|held| *held == 0.0)
        });
    }
    let shown = command(&other, &["marks", "hello"], 0);
    assert!(shown.contains("release"), "{shown}");
}

#[test]
fn the_embedded_registry_takes_marks() {
    let balancer = Balancer::start(&[]);
    balancer.wait_ready();
    let registry = balancer.registry().to_string();
    for backend in 1..=2 {
        let key = format!("/etcd3_naming/hello/{backend}");
        let put = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={registry}"))
            .args(["put", &key, &format!("10.0.0.{backend}:50051")])
            .output();
        assert!(put.expect("etcdctl runs").status.success());
    }
    wait_listed(&balancer, "hello", &["1", "2"]);
    command(&balancer, &["drain", "hello", "1", "--for", "10m"], 0);
    assert_eq!(listed(&balancer, "hello"), ["2"]);
    command(&balancer, &["undrain", "hello", "1"], 0);
    assert_eq!(listed(&balancer, "hello"), ["1", "2"]);
}

#[test]
fn a_start_without_etcd_serves_no_drained_backend() {
    let mut etcd = Etcd::start();
    register(&etcd, "hello", &[1, 2, 3]);
    let dir = tempfile::tempdir().unwrap();
    let args = ["--etcd", &etcd.url(), "--state-dir", dir.path().to_str().unwrap()];
    let first = Balancer::start(&args);
    first.wait_ready();
    etcd.ctl(&["put", "/lookaside/settings/lookaside.internal", "[service.hello]\nguard = 7\n"]);
    command(&first, &["drain", "hello", "1"], 0);
    command(&first, &["drain", "hello", "2", "--for", "2s"], 0);
    let saved = || std::fs::read_to_string(dir.path().join("state")).unwrap_or_default();
    eventually("both are saved", || {
        (saved().contains("drain/hello/2") && saved().contains("guard")).then_some(())
    });
    drop(first);
    etcd.kill();
    let second = Balancer::start(&args);
    second.wait_ready();
    // The first mark has no end. The clock ends the second.
    wait_listed(&second, "hello", &["2", "3"]);
    let settings = json(&second, "/api/v1/settings?service=hello");
    assert_eq!(settings["services"][0]["settings"]["guard"]["value"], "7");
    // Once etcd has been read, its marks count.
    etcd.restart();
    second.wait_ready();
    eventually("etcd is read", || {
        second.metric("lookaside_registry_restored").filter(|restored| *restored == 0.0)
    });
    wait_listed(&second, "hello", &["2", "3"]);
    command(&second, &["undrain", "hello"], 0);
    wait_listed(&second, "hello", &["1", "2", "3"]);
    // An etcd that lost everything ends no mark, although the balancer restarts too.
    command(&second, &["drain", "hello", "3"], 0);
    eventually("it is saved", || saved().contains("drain/hello/3").then_some(()));
    drop(second);
    etcd.restart_empty();
    register(&etcd, "hello", &[1, 2, 3]);
    let third = Balancer::start(&args);
    third.wait_ready();
    eventually("etcd is read", || {
        third.metric("lookaside_registry_restored").filter(|restored| *restored == 0.0)
    });
    wait_listed(&third, "hello", &["1", "2"]);
    assert_eq!(third.metric("lookaside_marks_kept"), Some(1.0));
}

#[test]
fn a_user_without_rights_serves_and_is_told_what_it_lacks() {
    let etcd = Etcd::start();
    register(&etcd, "hello", &[1, 2]);
    for args in [
        &["user", "add", "root:secret"][..],
        &["role", "add", "reader"],
        &["role", "grant-permission", "--prefix=true", "reader", "read", "/etcd3_naming/"],
        &["user", "add", "reader:secret"],
        &["user", "grant-role", "reader", "reader"],
        &["user", "grant-role", "root", "root"],
        &["auth", "enable"],
    ] {
        etcd.ctl(args);
    }
    let dir = tempfile::tempdir().unwrap();
    let password = dir.path().join("password");
    std::fs::write(&password, "secret\n").unwrap();
    let password = password.to_str().unwrap();
    let url = etcd.url();
    let login = ["--etcd-user", "reader", "--etcd-password-file", password];
    // The lease of its own record is none that a mark has left behind.
    let balancer = Balancer::start(&[&["--etcd", &url, "--announce", "off"][..], &login].concat());
    balancer.wait_ready();
    assert_eq!(listed(&balancer, "hello"), ["1", "2"]);
    eventually("what is denied is shown", || {
        balancer.metric("lookaside_marks_stale").filter(|stale| *stale == 1.0)
    });
    let refused = command(&balancer, &["drain", "hello", "1", "--for", "1h"], 1);
    assert!(refused.contains("needs the right to write below /lookaside/marks/"), "{refused}");
    let left = etcd.ctl(&["--user", "root:secret", "lease", "list"]);
    assert!(left.contains("found 0 leases"), "nothing is left behind: {left}");
}
