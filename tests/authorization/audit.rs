//! Audit lines of everything that an operator or a settings document changes.

use std::process::Command;

use serde_json::Value;

use super::apply;
use crate::support::etcd::Etcd;
use crate::support::eventually;
use crate::support::lookaside::{Balancer, program};
use crate::support::signal::Signal;

const ZONE: &str = "lookaside.internal";

#[test]
fn every_change_is_a_line_with_author_address_and_both_values() {
    let etcd = Etcd::start();
    etcd.ctl(&["put", "/etcd3_naming/hello/1", "127.0.0.9:1"]);
    etcd.ctl(&["put", "/etcd3_naming/hello/2", "127.0.0.9:2"]);
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("audit.log");
    let config = directory.path().join("lookaside.toml");
    std::fs::write(&config, "[service.hello]\nguard = 1\n").expect("a file");
    let [path, toml] = [&file, &config].map(|one| one.to_str().expect("text"));
    let url = etcd.url();
    // The filter of the log does not concern the file.
    let args = ["--etcd", &url, "--audit-log", path, "--config", toml];
    let balancer = Balancer::start(&[&args[..], &["--log", "warn"]].concat());
    // Another balancer carries out nothing, and sees all of it.
    let other_file = directory.path().join("other.log");
    let other = other_file.to_str().expect("text");
    let witness = Balancer::start(&["--etcd", &url, "--audit-log", other]);
    for one in [&balancer, &witness] {
        one.wait_ready();
        one.wait_listed("hello", "2");
    }
    let admin = format!("http://{}", balancer.admin());
    let command = |args: &[&str]| {
        let args = [args, &["--admin", &admin, "--by", "eve", "--why", "test"]].concat();
        let output = Command::new(program()).args(&args).output().expect("it runs");
        assert!(output.status.success(), "{args:?}: {output:?}");
    };
    let lines = |path: &str| -> Vec<Value> {
        let text = std::fs::read_to_string(path).expect("the log");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let wait = |path: &str, what: &str, is: &dyn Fn(&Value) -> bool| -> Value {
        eventually(what, || {
            lines(path).into_iter().map(|line| line["fields"].clone()).find(|line| is(line))
        })
    };
    let order = |does: &str, kind: &str| -> Value {
        let is = |line: &Value| {
            line["message"] == "operator's order"
                && line["does"] == does
                && line["key"].as_str().is_some_and(|key| key.starts_with(kind))
        };
        let line = wait(path, &format!("{does} {kind}"), &is);
        assert_eq!((&line["by"], &line["why"]), (&"eve".into(), &"test".into()), "{line}");
        assert!(line["from"].as_str().is_some_and(|from| from.starts_with("127.0.0.1:")), "{line}");
        line
    };
    command(&["drain", "hello", "127.0.0.9:2", "--for", "1h"]);
    let line = order("sets", "drain");
    assert!(line["until"].is_string() && line["before"].is_null(), "{line}");
    command(&["undrain", "hello", "127.0.0.9:2"]);
    let line = order("ends", "drain");
    assert!(line["before"].as_str().is_some_and(|text| text.contains("by eve")), "{line}");
    command(&["shed", "hello", "30"]);
    assert_eq!(order("sets", "shed")["percent"], 30);
    command(&["unshed", "hello"]);
    order("ends", "shed");
    command(&["fallback", "hello"]);
    order("sets", "fallback");
    command(&["unfallback", "hello"]);
    order("ends", "fallback");
    command(&["release", "hello"]);
    order("sets", "release");

    // Settings, applied, refused and deleted, and the file's.
    let change = |path: &str, what: &str| {
        wait(path, what, &|line| {
            line["changes"].as_str().is_some_and(|changes| changes.contains(what))
        })
    };
    apply(&etcd, ZONE, "[service.hello]\nguard = 2\n[registrants]\n'/a/' = ['a']\n");
    let line = change(path, "[registrants] \"/a/\": none -> [\"a\"]");
    assert_eq!((&line["source"], &line["count"]), (&"etcd".into(), &2.into()), "{line}");
    assert!(line["revision"].is_number(), "{line}");
    apply(&etcd, ZONE, "guard");
    wait(path, "a refusal", &|line| {
        line["message"].as_str().is_some_and(|text| text.starts_with("settings refused"))
    });
    etcd.ctl(&["del", &format!("/lookaside/settings/{ZONE}")]);
    change(path, "[service.\"hello\"] guard: \"2\" -> none");
    std::fs::write(&config, "[service.hello]\nguard = 3\n").expect("a file");
    assert_eq!(change(path, "guard: \"1\" -> \"3\"")["source"], "file");

    // The witness has the marks with their author, and the settings in etcd.
    wait(other, "a mark", &|line| line["message"] == "mark is set" && line["by"] == "eve");
    change(other, "[registrants]");
    assert!(!lines(other).iter().any(|line| line["fields"]["message"] == "operator's order"));
    assert!(lines(path).iter().all(|line| line["target"] == "audit"));
    assert!(!balancer.log().contains("operator's order"), "{}", balancer.log());

    // The file is opened again on SIGHUP.
    let rotated = directory.path().join("audit.log.1");
    std::fs::rename(&file, &rotated).expect("it is there");
    balancer.signal(Signal::HUP);
    eventually("a new file", || file.exists().then_some(()));
    command(&["drain", "hello", "127.0.0.9:1", "--anyway"]);
    order("sets", "drain");
    eventually("drained", || {
        balancer.metric("lookaside_endpoints_drained").filter(|is| *is == 1.0)
    });
}

#[test]
fn a_file_that_cannot_be_opened_ends_the_start() {
    let log = Balancer::try_start(&["--audit-log", "/nowhere/audit.log"]).err().expect("refused");
    assert!(log.contains("--audit-log: cannot open \"/nowhere/audit.log\""), "{log}");
}
