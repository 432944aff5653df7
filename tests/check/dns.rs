//! Tests of `lookaside check --dns`: the way of a client from a name to a list, and each
//! place at which it can break.

use std::net::SocketAddr;

use serde_json::Value;

use super::{check, json, out};
use crate::support::etcd::Etcd;
use crate::support::free_port;
use crate::support::lookaside::Balancer;

const NAME: &str = "dns:///hello.lookaside.internal:50051";

fn walk(name: &str, server: SocketAddr, further: &[&str]) -> (Option<i32>, Value) {
    let server = server.to_string();
    let args = ["--dns", name, "--dns-server", &server, "--json"];
    let output = check(&[&args, further].concat());
    (output.status.code(), json(&output))
}

/// Returns the steps that break, each with its remedy.
fn broken(walk: &Value) -> Vec<String> {
    let steps = walk["steps"].as_array().expect("steps").iter();
    let broken = steps.filter(|step| step["verdict"] == "broken");
    broken
        .map(|step| {
            let remedy = step["remedy"].as_str().expect("a remedy");
            assert!(!remedy.is_empty(), "{step}");
            format!("{}: {}", step["step"].as_str().unwrap(), step["problem"].as_str().unwrap())
        })
        .collect()
}

#[track_caller]
fn breaks_at(name: &str, server: SocketAddr, step: &str, problem: &str) {
    let (code, walk) = walk(name, server, &[]);
    let found = broken(&walk);
    let there = found.iter().any(|one| one.starts_with(step) && one.contains(problem));
    assert!(there, "{step} {problem}: {walk:#}");
    assert_eq!((code, &walk["well"]), (Some(1), &Value::Bool(false)));
}

#[test]
fn the_way_of_a_client_is_walked_to_its_list() {
    let etcd = Etcd::start();
    etcd.ctl(&["put", "/etcd3_naming/hello/1", "10.0.0.1:50051"]);
    let balancer = Balancer::start(&["--etcd", &etcd.url()]);
    balancer.wait_listed("hello", "1");
    let (code, walk) = walk(NAME, balancer.dns(), &[]);
    assert_eq!((code, broken(&walk)), (Some(0), vec![]), "{walk:#}");
    let steps = walk["steps"].as_array().expect("steps");
    let named: Vec<_> = steps.iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(named, ["srv", "address", "txt", "fallback", "list"]);
    let port = balancer.grpclb().port();
    assert_eq!(steps[0]["found"][0], format!("grpclb.lookaside.internal:{port}"));
    assert_eq!(steps[1]["found"][0], "127.0.0.1");
    assert_eq!(steps[3]["found"][0], "10.0.0.1");
    assert_eq!(steps[4]["found"][0], "10.0.0.1:50051");
    // The target may name the server, as in a client's target.
    let target = format!("dns://{}/hello.lookaside.internal", balancer.dns());
    let shown = check(&["--dns", &target]);
    assert_eq!(shown.status.code(), Some(0), "{}", out(&shown));
    assert!(out(&shown).contains("a client gets a list"), "{}", out(&shown));
}

#[test]
fn each_break_is_found_with_its_remedy() {
    let etcd = Etcd::start();
    let url = etcd.url();
    etcd.ctl(&["put", "/etcd3_naming/hello/1", "10.0.0.1:50051"]);
    let balancer = Balancer::start(&["--etcd", &url, "--announce", "off"]);
    balancer.wait_listed("hello", "1");
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
    breaks_at(NAME, nobody, "srv", "does not answer");
    breaks_at("hello.elsewhere.internal", balancer.dns(), "srv", "REFUSED");
    breaks_at("_hello.lookaside.internal", balancer.dns(), "srv", "NXDOMAIN");
    breaks_at("nobody.lookaside.internal", balancer.dns(), "list", "no backend");
    let closed = format!("127.0.0.1:{}", free_port());
    let away = |advertise: &str| {
        Balancer::start(&["--etcd", &url, "--announce", "off", "--advertise", advertise])
    };
    breaks_at(NAME, away(&closed).dns(), "balancer", "no connection");
    breaks_at(NAME, away("nowhere.invalid:1").dns(), "address", "no address");
    // The admin port speaks another protocol.
    breaks_at(NAME, away(&balancer.admin().to_string()).dns(), "balancer", "");
    let without = format!("http://127.0.0.1:{}", free_port());
    breaks_at(NAME, Balancer::start(&["--etcd", &without]).dns(), "balancer", "refuses");
}

#[test]
fn a_balancer_with_tls_is_checked_by_the_name_that_dns_gives() {
    let etcd = Etcd::start();
    etcd.ctl(&["put", "/etcd3_naming/hello/1", "10.0.0.1:50051"]);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = |name: &str| directory.path().join(name).to_str().expect("it is text").to_owned();
    let start = |name: &str| {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
        std::fs::write(file("cert"), made.cert.pem()).expect("a file");
        std::fs::write(file("key"), made.signing_key.serialize_pem()).expect("a file");
        let (cert, key) = (file("cert"), file("key"));
        let tls = ["--tls-cert", &cert, "--tls-key", &key];
        let etcd = ["--etcd", &etcd.url(), "--announce", "off"];
        let balancer = Balancer::start(&[&etcd[..], &tls].concat());
        balancer.wait_listed("hello", "1");
        balancer
    };
    let balancer = start("grpclb.lookaside.internal");
    let (code, found) = walk(NAME, balancer.dns(), &["--dns-ca", &file("cert")]);
    assert_eq!(code, Some(0), "{found:#}");
    breaks_at(NAME, balancer.dns(), "balancer", "");
    drop(balancer);
    let other = start("other.lookaside.internal");
    let (code, found) = walk(NAME, other.dns(), &["--dns-ca", &file("cert")]);
    assert!(code == Some(1) && broken(&found)[0].contains("no TLS"), "{found:#}");
}

#[test]
fn wrong_flags_of_the_walk_are_refused() {
    for args in [
        &["--dns", ""][..],
        &["--dns", "dns:///10.0.0.1:50051"],
        &["--dns", "hello", "--dns-server", "nonsense"],
        &["--dns", "hello", "--dns-ca", "/no/such/file"],
        &["--dns", "hello", "--live"],
        &["--dns-server", "10.0.0.1"],
    ] {
        assert_eq!(check(args).status.code(), Some(64), "{args:?}");
    }
}
