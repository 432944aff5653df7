//! Tests with DNS servers that keep a copy of the zone: BIND and Knot DNS.
//!
//! In: two balancers that share an etcd. Out: a panic if the copy lacks a record, or a change
//! does not reach it, or it ends with the balancers.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::support::dns::{addresses, srv_targets};
use crate::support::etcd::Etcd;
use crate::support::lookaside::Balancer;
use crate::support::{eventually, free_port, skip};

use super::recipe;

const HELLO: &str = "hello.lookaside.internal";
const SRV: &str = "_grpclb._tcp.hello.lookaside.internal";

/// A running DNS server. It is killed when this value is dropped.
struct Secondary {
    child: Child,
    address: SocketAddr,
    _directory: TempDir,
}

impl Drop for Secondary {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a program with a file of settings.
fn start(port: u16, program: &str, args: &[&str], settings: impl Fn(&str) -> String) -> Secondary {
    let directory = TempDir::new().expect("a temporary directory");
    let path = directory.path().to_str().expect("it is text");
    let file = directory.path().join("conf");
    std::fs::write(&file, settings(path)).expect("a temporary file");
    let search = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    let child = Command::new("env")
        .arg(format!("PATH={search}"))
        .arg(program)
        .args(args)
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    Secondary { child, address, _directory: directory }
}

/// Runs BIND with the zone that docs/dns.md has.
fn bind(port: u16, [a, b]: [SocketAddr; 2]) -> Secondary {
    let zone = recipe("zone \"lookaside.internal\"")
        .replace("10.0.0.5 port 53", &format!("127.0.0.1 port {}", a.port()))
        .replace("10.0.0.6 port 53", &format!("127.0.0.1 port {}", b.port()));
    start(port, "named", &["-f", "-4", "-c"], |directory| {
        format!(
            "options {{ directory \"{directory}\"; pid-file \"{directory}/pid\"; \
             session-keyfile \"{directory}/key\"; listen-on port {port} {{ 127.0.0.1; }}; \
             recursion no; allow-query {{ any; }}; }};\ncontrols {{ }};\n{zone}"
        )
    })
}

/// Runs Knot DNS with the zone that docs/dns.md has.
fn knot(port: u16, [a, b]: [SocketAddr; 2]) -> Secondary {
    let zone = recipe("remote:")
        .replace("10.0.0.5@53", &format!("127.0.0.1@{}", a.port()))
        .replace("10.0.0.6@53", &format!("127.0.0.1@{}", b.port()));
    start(port, "knotd", &["-c"], |directory| {
        let zone = zone.replace("    master:", &format!("    storage: {directory}\n    master:"));
        format!(
            "server:\n  rundir: {directory}\n  listen: 127.0.0.1@{port}\n\
             database:\n  storage: {directory}\n{zone}"
        )
    })
}

fn needed() -> Option<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/need");
    let status = Command::new(script).arg("secondaries").status();
    (!status.is_ok_and(|status| status.success()))
        .then(|| "scripts/need secondaries: see above".to_owned())
}

/// The zone's other records change only by chance in this time, so only a notice brings a
/// change before the secondary asks by itself, after five minutes.
#[test]
fn bind_and_knot_keep_a_copy_of_the_zone() {
    if let Some(obstacle) = needed() {
        return skip("secondaries", &obstacle);
    }
    let (etcd, ports) = (Etcd::start(), [free_port(), free_port()]);
    let (url, listed) = (etcd.url(), ports.map(|port| format!("127.0.0.1:{port}")).join(","));
    let serve = || {
        let own = format!("127.0.0.1:{}", free_port());
        let args = ["--listen", &own, "--advertise", &own, "--dns-secondary", &listed];
        let balancer = Balancer::start(&[&["--etcd", &url], &args[..]].concat());
        balancer.wait_ready();
        balancer
    };
    let put =
        |id: &str, address: &str| etcd.ctl(&["put", &format!("/etcd3_naming/hello/{id}"), address]);
    put("a", "10.0.0.9:50051");
    let balancers = [serve(), serve()];
    let primaries = balancers.each_ref().map(Balancer::dns);
    let secondaries = [bind(ports[0], primaries), knot(ports[1], primaries)];
    let all_have = |what: &str, expected: &[&str]| {
        let expected: Vec<Ipv4Addr> =
            expected.iter().map(|one| one.parse().expect("IPv4")).collect();
        for secondary in &secondaries {
            eventually(&format!("{} has {what}", secondary.address), || {
                addresses(secondary.address, HELLO).filter(|found| *found == expected)
            });
        }
    };
    all_have("the first backend", &["10.0.0.9"]);
    let grpclb: Vec<_> = balancers.iter().map(|one| one.grpclb().port()).collect();
    for secondary in &secondaries {
        for name in [SRV, "_grpclb._tcp.nobody.lookaside.internal"] {
            let mut found = eventually("the secondary names both balancers", || {
                srv_targets(secondary.address, name).filter(|found| found.len() == 2)
            });
            found.sort_unstable_by_key(|(_, port)| *port);
            let mut expected = grpclb.clone();
            expected.sort_unstable();
            assert_eq!(found.iter().map(|(_, port)| *port).collect::<Vec<_>>(), expected);
            let host = format!("grpclb-{}.lookaside.internal.", expected[0]);
            assert_eq!(found[0].0, host);
            assert_eq!(addresses(secondary.address, &host), Some(vec![[127, 0, 0, 1].into()]));
        }
    }
    put("b", "10.0.0.10:50051");
    all_have("the second backend", &["10.0.0.9", "10.0.0.10"]);
    etcd.ctl(&["del", "/etcd3_naming/hello/a"]);
    all_have("the second backend alone", &["10.0.0.10"]);
    let sent: f64 =
        balancers.iter().filter_map(|one| one.metric("lookaside_dns_transfers_total")).sum();
    assert!(sent >= 3.0, "{sent}");
    // Clients find backends even while no balancer runs.
    drop(balancers);
    all_have("the last backend", &["10.0.0.10"]);
}

/// Others may not have the zone.
#[test]
fn the_zone_is_sent_to_secondaries_only() {
    let one = Balancer::start(&["--dns-secondary", "127.0.0.2:9"]);
    one.wait_ready();
    let transfer = |from: &str| transfer(&one, from);
    assert!(transfer("127.0.0.1").contains("Transfer failed"), "{}", transfer("127.0.0.1"));
    eventually("the secondary gets the zone", || {
        transfer("127.0.0.2").contains("SRV").then_some(())
    });
    // Nobody acknowledges the notice there.
    eventually("the silence is counted", || {
        one.metric("lookaside_dns_notices_failed_total").filter(|count| *count > 0.0)
    });
    assert!(one.log().contains("does not acknowledge"), "{}", one.log());
}

/// A balancer that listens everywhere, as by default, is named by the address of its DNS
/// server. Where that is everywhere too, and nothing is announced, the log says what to do.
#[test]
fn a_balancer_that_listens_everywhere_is_in_its_copies() {
    let args = ["--listen", "0.0.0.0:0", "--dns-secondary", "127.0.0.2:9"];
    let one = Balancer::start(&args);
    one.wait_ready();
    let copy = eventually("the secondary gets the zone", || {
        Some(transfer(&one, "127.0.0.2")).filter(|copy| copy.contains("SRV"))
    });
    assert!(copy.contains("\tA\t127.0.0.1"), "{copy}");
    let nameless = Balancer::start(&[&args[..], &["--dns-listen", "0.0.0.0:0"]].concat());
    nameless.wait_ready();
    eventually("the log says why there is no copy", || {
        nameless.log().contains("give --advertise HOST:PORT").then_some(())
    });
}

/// A secondary answers everyone, so its copy lacks a service that is not for all.
#[test]
fn a_copy_has_only_services_that_everyone_may_ask_for() {
    let (etcd, directory) = (Etcd::start(), TempDir::new().expect("a temporary directory"));
    let file = directory.path().join("settings.toml");
    let rules = "[service.pay]\nclients = [\"127.0.0.0/8\"]\n";
    std::fs::write(&file, rules).expect("a temporary file");
    let file = file.to_str().expect("it is text");
    let url = etcd.url();
    let args = ["--etcd", &url, "--config", file, "--dns-secondary", "127.0.0.2:9"];
    let one = Balancer::start(&args);
    one.wait_ready();
    for service in ["pay", "hello"] {
        etcd.ctl(&["put", &format!("/etcd3_naming/{service}/a"), "10.0.0.9:50051"]);
    }
    eventually("lookaside answers for the service", || {
        addresses(one.dns(), "pay.lookaside.internal").filter(|found| !found.is_empty())
    });
    let copy = eventually("the secondary gets the other service", || {
        Some(transfer(&one, "127.0.0.2")).filter(|copy| copy.contains("\nhello."))
    });
    assert!(!copy.contains("pay"), "{copy}");
}

/// Asks from an address for the whole zone.
fn transfer(balancer: &Balancer, from: &str) -> String {
    let [server, port] = [balancer.dns().ip().to_string(), balancer.dns().port().to_string()];
    let output = Command::new("dig")
        .args(["-b", from, "-p", &port, &format!("@{server}"), "lookaside.internal", "AXFR"])
        .output()
        .expect("dig runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
