//! Tests of balancers that share an etcd: who knows whom, and whom DNS names.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::sync::Arc;

use lookaside::catalog::Catalog;
use lookaside::model::{HostPort, Zone};
use lookaside::registry::etcd::Connect;
use lookaside::replica::hosts::BalancerHosts;
use lookaside::replica::known::{Announced as Announcing, Replicas};
use lookaside::replica::{self, Vitals};
use serde_json::Value;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::rolling;
use crate::support::dns::{self, srv_targets};
use crate::support::etcd::Etcd;
use crate::support::lookaside::{Balancer, program};
use crate::support::namespace::isolated;
use crate::support::network::Network;
use crate::support::signal::Signal;
use crate::support::{WAIT_MAX, eventually, free_port};

const BELOW: &str = "/lookaside/balancers/lookaside.internal";
const SRV: &str = "_grpclb._tcp.hello.lookaside.internal";

/// A balancer's announcement alone, without the rest of a balancer.
struct Announced {
    replicas_rx: watch::Receiver<Arc<Replicas>>,
    ready_tx: watch::Sender<bool>,
    stop_tx: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Announced {
    fn start(connect: Connect, own: &str) -> Self {
        let own = HostPort::parse(own).expect("an address");
        let options = replica::Options {
            connect: Some(connect),
            zone: Zone::new("lookaside.internal").expect("a zone"),
            hosts: BalancerHosts::beside(Some(&own)),
            advertise: Some(own),
            listen: "0.0.0.0:1".parse().expect("an address"),
            own_zone: None,
            version: "test",
        };
        let (replicas_tx, replicas_rx) = watch::channel(replica::alone(&options));
        let ready_tx = watch::Sender::new(true);
        let vitals = Vitals {
            ready: ready_tx.subscribe(),
            registry: Catalog::new().watch_status(),
            streams: Arc::new(|| 7),
        };
        let (stop_tx, stop_rx) = oneshot::channel::<()>();
        let stop = async { drop(stop_rx.await) };
        let task = tokio::spawn(replica::run(options, vitals, replicas_tx, stop));
        Self { replicas_rx, ready_tx, stop_tx, task }
    }

    /// Waits until an answer names these balancers.
    async fn until(&mut self, expected: &[&str]) {
        let names = |replicas: &Replicas| {
            let names = replicas.in_dns(replicas.rows[0].address.clone(), false, 0);
            names.iter().map(ToString::to_string).collect::<BTreeSet<_>>()
        };
        let expected: BTreeSet<_> = expected.iter().map(ToString::to_string).collect();
        let wait = self.replicas_rx.wait_for(|replicas| names(replicas) == expected);
        let found = timeout(WAIT_MAX, wait).await.map(|found| found.is_ok());
        assert_eq!(found, Ok(true), "{expected:?}: {:?}", self.replicas_rx.borrow());
    }

    async fn stop(self) {
        drop(self.stop_tx);
        timeout(WAIT_MAX, self.task).await.expect("in time").expect("in order");
    }
}

fn connect(url: &str) -> Connect {
    Connect::new(&[url], None, None).expect("an endpoint")
}

/// Announces a balancer as the former version did: an address with a lease.
fn put_as_before(etcd: &Etcd, zone: &str, address: &str) {
    put_leased(etcd, &format!("/lookaside/balancers/{zone}/{address}"), address);
}

fn put_leased(etcd: &Etcd, key: &str, value: &str) {
    let granted = etcd.ctl(&["lease", "grant", "3600"]);
    let lease = granted.split(' ').nth(1).expect("lease ID granted with TTL(…)");
    etcd.ctl(&["put", "--lease", lease, key, value]);
}

/// Returns the addresses that the former version reads: every value that is one.
fn read_as_before(etcd: &Etcd) -> BTreeSet<String> {
    let values = etcd.ctl(&["get", "--prefix", "--print-value-only", &format!("{BELOW}/")]);
    let address = |line: &str| Some(HostPort::parse(line.trim()).ok()?.to_string());
    values.lines().filter_map(address).collect()
}

fn keys(etcd: &Etcd) -> usize {
    etcd.ctl(&["get", "--prefix", "--keys-only", BELOW]).split_whitespace().count()
}

/// Returns the ports of the balancers that a balancer's DNS names.
fn named(balancer: &Balancer) -> Option<BTreeSet<u16>> {
    let targets = srv_targets(balancer.dns(), SRV)?;
    Some(targets.into_iter().map(|(_, port)| port).collect())
}

fn until_named(asked: &Balancer, expected: &[&Balancer]) {
    let expected: BTreeSet<u16> = expected.iter().map(|one| one.grpclb().port()).collect();
    eventually("it names these", || named(asked).filter(|found| *found == expected));
}

fn rows(balancer: &Balancer) -> Value {
    serde_json::from_str(&balancer.get("/api/v1/balancers").1).expect("it is JSON")
}

/// Returns what a balancer knows of the one at `address`.
fn row(asked: &Balancer, address: &str) -> Option<Value> {
    let rows = rows(asked)["balancers"].as_array().expect("a list").clone();
    rows.into_iter().find(|row| row["address"] == address)
}

#[tokio::test(flavor = "multi_thread")]
async fn balancers_know_each_other_and_lose_nobody_with_etcd() {
    let mut etcd = Etcd::start();
    let mut b = Announced::start(connect(&etcd.url()), "10.0.0.2:12000");
    b.until(&["10.0.0.2:12000"]).await;
    let mut a = Announced::start(connect(&etcd.url()), "10.0.0.1:12000");
    let both = ["10.0.0.1:12000", "10.0.0.2:12000"];
    a.until(&both).await;
    b.until(&both).await;
    put_as_before(&etcd, "elsewhere", "10.0.0.9:1");
    etcd.restart();
    put_as_before(&etcd, "lookaside.internal", "10.0.0.3:12000");
    let three = ["10.0.0.1:12000", "10.0.0.2:12000", "10.0.0.3:12000"];
    a.until(&three).await;
    b.until(&three).await;
    a.stop().await;
    b.until(&three[1..]).await;
    b.stop().await;
    let left = etcd.ctl(&["get", "--prefix", "--keys-only", BELOW]);
    assert_eq!(left.trim(), format!("{BELOW}/10.0.0.3:12000"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_that_may_not_write_still_sees_the_others() {
    let etcd = Etcd::start();
    put_as_before(&etcd, "lookaside.internal", "10.0.0.3:12000");
    // A key that outlives its balancer announces none.
    etcd.ctl(&["put", &format!("{BELOW}/10.0.0.4:12000"), "10.0.0.4:12000"]);
    etcd.ctl(&["role", "add", "reader"]);
    etcd.ctl(&["role", "grant-permission", "--prefix=true", "reader", "read", "/lookaside/"]);
    log_in_as(&etcd, "reader");
    let user = Some(("me".to_owned(), "mine".to_owned()));
    let connect = Connect::new(&[&etcd.url()], user, None).expect("an endpoint");
    let mut own = Announced::start(connect, "10.0.0.1:12000");
    own.until(&["10.0.0.1:12000", "10.0.0.3:12000"]).await;
    let rejected = own.replicas_rx.borrow().rejected.clone();
    assert!(matches!(&rejected[..], [(_, why)] if why.contains("no lease")), "{rejected:?}");
    let refused = |replicas: &Arc<Replicas>| match &replicas.announced {
        Announcing::Failing(why) => why.contains("permission denied"),
        Announcing::Yes | Announcing::Off(_) => false,
    };
    let told = timeout(WAIT_MAX, own.replicas_rx.wait_for(refused)).await;
    assert!(told.is_ok_and(|told| told.is_ok()), "{:?}", own.replicas_rx.borrow());
    own.stop().await;
}

/// Whoever may write balancers' keys sends no client to a name of their own.
#[test]
fn a_host_name_is_named_only_if_it_is_allowed() {
    const EVIL: &str = "evil.example:443";
    let etcd = Etcd::start();
    let url = etcd.url();
    for address in [EVIL, "lb2.lb.example:12000"] {
        put_as_before(&etcd, "lookaside.internal", address);
    }
    let start = |flags: &[&str]| Balancer::start(&[&["--etcd", &url], flags].concat());
    let named = |balancer: &Balancer| {
        let targets = srv_targets(balancer.dns(), SRV)?;
        Some(
            targets
                .into_iter()
                .map(|(name, _)| name.trim_end_matches('.').to_owned())
                .collect::<BTreeSet<_>>(),
        )
    };
    let one = start(&["--advertise", "lb1.lb.example:12000"]);
    let expected: BTreeSet<String> = ["lb1.lb.example", "lb2.lb.example"].map(Into::into).into();
    eventually("those of its domain", || (named(&one)? == expected).then_some(()));
    assert_eq!(one.metric("lookaside_balancers_rejected"), Some(1.0));
    let rejected = rows(&one)["rejected"].clone();
    assert_eq!(rejected[0]["key"], format!("{BELOW}/{EVIL}"), "{rejected}");
    let reason = rejected[0]["reason"].as_str().expect("text");
    assert!(reason.contains("--balancer-hosts evil.example"), "{reason}");
    let log = one.log();
    assert_eq!(log.matches("no balancer is announced by this key").count(), 1, "{log}");
    // The operator's word counts instead of the domain.
    let hosts = ["--advertise", "lb3.lb.example:12000", "--balancer-hosts"];
    let two = start(&[&hosts[..], &["*.example,lb1.lb.example"]].concat());
    eventually("all", || named(&two)?.contains("evil.example").then_some(()));
    let three = start(&[&hosts[..], &["lb1.lb.example"]].concat());
    let expected: BTreeSet<String> = ["lb1.lb.example", "lb3.lb.example"].map(Into::into).into();
    eventually("one beside itself", || (named(&three)? == expected).then_some(()));
}

/// Whoever may write balancers' keys sends no client to an address of their own, where the
/// operator says which addresses balancers have.
#[test]
fn an_address_is_named_only_if_it_is_allowed() {
    const EVIL: &str = "192.0.2.66:443";
    const RECORDED: &str = "192.0.2.67:443";
    let etcd = Etcd::start();
    let url = etcd.url();
    for address in [EVIL, "10.7.0.2:12000"] {
        put_as_before(&etcd, "lookaside.internal", address);
    }
    let record = format!(r#"{{"address":"{RECORDED}","state":"ready","streams":0}}"#);
    put_leased(&etcd, &format!("{BELOW}/{RECORDED}/1"), &record);
    let start = |own: &str, hosts: &[&str]| {
        Balancer::start(&[&["--etcd", &url, "--advertise", own], hosts].concat())
    };
    let until = |balancer: &Balancer, expected: &[&str]| {
        let expected: BTreeSet<String> = expected.iter().map(ToString::to_string).collect();
        eventually("it names these alone", || {
            let named = dns::balancers(balancer.dns(), SRV)?;
            let named: BTreeSet<String> = named.iter().map(ToString::to_string).collect();
            (named == expected).then_some(())
        });
    };
    let open = start("10.7.0.1:12000", &[]);
    until(&open, &["10.7.0.1:12000", "10.7.0.2:12000", EVIL, RECORDED]);
    assert_eq!(open.metric("lookaside_balancers_rejected"), Some(0.0));
    let bound = start("10.7.0.3:12000", &["--balancer-hosts", "*.lb.example,10.7.0.0/24"]);
    until(&bound, &["10.7.0.1:12000", "10.7.0.2:12000", "10.7.0.3:12000"]);
    assert_eq!(bound.metric("lookaside_balancers_rejected"), Some(2.0));
    let rejected = rows(&bound)["rejected"].clone();
    for (row, address) in [(&rejected[0], "192.0.2.66"), (&rejected[1], "192.0.2.67")] {
        let key = row["key"].as_str().expect("text");
        let reason = row["reason"].as_str().expect("text");
        assert!(key.starts_with(&format!("{BELOW}/{address}:443")), "{row}");
        assert!(reason.contains(&format!("--balancer-hosts {address} ")), "{row}");
    }
    // Names alone allow no address but its own.
    let names = start("10.7.0.4:12000", &["--balancer-hosts", "*.lb.example"]);
    until(&names, &["10.7.0.4:12000"]);
    let announced = "lookaside_balancer_announced";
    eventually("its record is there", || names.metric(announced).filter(|is| *is == 1.0));
    put_as_before(&etcd, "lookaside.internal", "192.0.2.68:443");
    let rejected = eventually("a later key is read", || {
        let rejected = rows(&names)["rejected"].to_string();
        rejected.contains("192.0.2.68").then_some(rejected)
    });
    assert!(!rejected.contains("10.7.0.4") && rejected.contains("10.7.0.1"), "{rejected}");
}

/// A user who may write the key of one balancer sends no client elsewhere by it.
#[test]
fn the_key_of_a_balancer_announces_no_other_address() {
    let etcd = Etcd::start();
    let record = |address: &str| format!(r#"{{"address":"{address}","state":"ready"}}"#);
    put_leased(&etcd, &format!("{BELOW}/10.7.0.2:12000"), "192.0.2.66:443");
    put_leased(&etcd, &format!("{BELOW}/10.7.0.2:12000/1"), &record("192.0.2.67:443"));
    put_leased(&etcd, &format!("{BELOW}/10.7.0.3:12000/1"), &record("10.7.0.3:12000"));
    let one = Balancer::start(&["--etcd", &etcd.url(), "--advertise", "10.7.0.1:12000"]);
    let expected: BTreeSet<_> = ["10.7.0.1:12000", "10.7.0.3:12000"].map(str::to_owned).into();
    eventually("the one whose key it is", || {
        let named = dns::balancers(one.dns(), SRV)?;
        let named: BTreeSet<_> = named.iter().map(ToString::to_string).collect();
        (named == expected).then_some(())
    });
    assert_eq!(one.metric("lookaside_balancers_rejected"), Some(2.0));
    let rejected = rows(&one)["rejected"].to_string();
    assert!(rejected.contains("192.0.2.66:443, whose key is another"), "{rejected}");
}

/// Makes the user `me`, who has this role, and turns authentication on.
fn log_in_as(etcd: &Etcd, role: &str) {
    etcd.ctl(&["user", "add", "root:secret"]);
    etcd.ctl(&["user", "grant-role", "root", "root"]);
    etcd.ctl(&["user", "add", "me:mine"]);
    etcd.ctl(&["user", "grant-role", "me", role]);
    etcd.ctl(&["auth", "enable"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_former_version_and_this_one_read_each_other() {
    let etcd = Etcd::start();
    put_as_before(&etcd, "lookaside.internal", "10.0.0.3:12000");
    let mut a = Announced::start(connect(&etcd.url()), "10.0.0.1:12000");
    a.until(&["10.0.0.1:12000", "10.0.0.3:12000"]).await;
    let both: BTreeSet<_> = ["10.0.0.1:12000", "10.0.0.3:12000"].map(str::to_owned).into();
    eventually("the former version reads both", || (read_as_before(&etcd) == both).then_some(()));
    // Its record lies beside the address that the former version reads.
    assert_eq!(keys(&etcd), 3);
    // One that starts is not named, by either version.
    let mut b = Announced::start(connect(&etcd.url()), "10.0.0.2:12000");
    b.until(&["10.0.0.1:12000", "10.0.0.2:12000", "10.0.0.3:12000"]).await;
    b.ready_tx.send_replace(false);
    b.until(&["10.0.0.1:12000", "10.0.0.3:12000"]).await;
    a.until(&["10.0.0.1:12000", "10.0.0.3:12000"]).await;
    b.stop().await;
    a.stop().await;
    eventually("their keys are gone", || (keys(&etcd) == 1).then_some(()));
}

/// On the former version, a balancer without `--advertise` names itself until its process
/// ends, and sends clients to a port that is closed.
#[test]
fn balancers_find_each_other_and_one_that_drains_is_named_by_none() {
    let etcd = Etcd::start();
    let url = etcd.url();
    let start = || Balancer::start(&["--etcd", &url]);
    let (mut leaving, staying) = (start(), start());
    for asked in [&leaving, &staying] {
        until_named(asked, &[&leaving, &staying]);
    }
    eventually("the record is written", || {
        (staying.metric("lookaside_balancer_announced") == Some(1.0)).then_some(())
    });
    assert_eq!(staying.metric("lookaside_balancers{state=\"ready\"}"), Some(2.0));
    // While etcd hangs, its key cannot be removed, so the balancer stays a while.
    etcd.freeze();
    leaving.signal(Signal::TERM);
    until_named(&leaving, &[&staying]);
    etcd.thaw();
    until_named(&staying, &[&staying]);
    assert!(leaving.wait().success());
    eventually("its row is gone", || {
        (rows(&staying)["balancers"].as_array().map(Vec::len) == Some(1)).then_some(())
    });
}

#[test]
fn a_balancer_that_is_not_to_be_announced_is_not() {
    let etcd = Etcd::start();
    let url = etcd.url();
    let one = Balancer::start(&["--etcd", &url]);
    let hidden = Balancer::start(&["--etcd", &url, "--announce", "off"]);
    hidden.wait_ready();
    until_named(&one, &[&one]);
    until_named(&hidden, &[&hidden]);
    let shown = rows(&hidden);
    assert_eq!(shown["announced"], false);
    assert!(shown["reason"].as_str().is_some_and(|why| why.contains("--announce")), "{shown}");
    assert_eq!(hidden.metric("lookaside_balancer_announcement_failing"), Some(0.0));
}

/// Real clients of two languages and both protocols call all the time, while each of three
/// balancers is stopped and started again.
#[cfg(target_os = "linux")]
#[test]
fn a_rolling_restart_under_load() {
    isolated(|| {
        let programs = [program(), program()].map(rolling::Program::new);
        rolling::replace_all("a rolling restart", &programs);
    });
}

/// A balancer that does not know its address says so, and not that etcd does not answer.
#[test]
fn one_that_finds_no_way_to_etcd_says_so() {
    let all = "0.0.0.0:0";
    let one = Balancer::start(&["--etcd", "http://nowhere.invalid:2379", "--listen", all]);
    let reason = eventually("it says why it is not announced", || {
        let shown = rows(&one);
        let reason = shown["reason"].as_str().expect("it is not announced").to_owned();
        (!reason.contains("has not answered")).then_some(reason)
    });
    assert!(reason.contains("nowhere.invalid") && reason.contains("--advertise"), "{reason}");
    assert_eq!(one.metric("lookaside_balancer_announcement_failing"), Some(1.0));
}

#[test]
fn one_that_has_not_read_the_registry_is_shown_and_not_named() {
    let etcd = Etcd::start();
    etcd.ctl(&["role", "add", "blind"]);
    let below = "/lookaside/balancers/";
    etcd.ctl(&["role", "grant-permission", "--prefix=true", "blind", "readwrite", below]);
    log_in_as(&etcd, "blind");
    let (url, directory) = (etcd.url(), tempfile::tempdir().expect("a temporary directory"));
    let start = |user: &str, password: &str, zone: &str| {
        let file = directory.path().join(user);
        fs::write(&file, password).expect("a temporary file");
        let file = file.to_str().expect("it is text");
        let login = ["--etcd-user", user, "--etcd-password-file", file];
        Balancer::start(&[&["--etcd", &url, "--zone", zone][..], &login].concat())
    };
    let ready = start("root", "secret", "a");
    ready.wait_ready();
    eventually("it is announced", || {
        (ready.metric("lookaside_balancer_announced") == Some(1.0)).then_some(())
    });
    let blind = start("me", "mine", "b");
    // It may not read registrations. It knows of a better one, and names that one alone.
    until_named(&blind, &[&ready]);
    let known = eventually("it knows the other", || row(&blind, &ready.grpclb().to_string()));
    assert_eq!((&known["state"], &known["zone"]), (&"ready".into(), &"a".into()), "{known}");
    assert_eq!(blind.get("/readyz").0, 503);
    assert_eq!(rows(&blind)["balancers"][0]["state"], "starting");
    // The other knows that it starts, and does not name it either.
    eventually("the other knows it", || {
        row(&ready, &blind.grpclb().to_string()).filter(|known| known["state"] == "starting")
    });
    until_named(&ready, &[&ready]);
}

/// A balancer that listens everywhere is announced at the address from which it reaches
/// etcd: to other hosts, unless that is loopback.
#[test]
fn the_address_is_that_of_the_interface_that_reaches_etcd() {
    isolated(|| {
        let ours = Network::new(0).ours();
        let etcd = Etcd::start_at(free_port(), &[&ours]);
        let listen = |port: u16| format!("0.0.0.0:{port}");
        let outside = format!("http://{ours}:{}", etcd.port());
        let all = listen(0);
        let near =
            Balancer::start(&["--etcd", &etcd.url(), "--listen", &all, "--dns-listen", &all]);
        let far = Balancer::start(&["--etcd", &outside, "--listen", &all, "--dns-listen", &all]);
        let ports = [&near, &far].map(|one| one.grpclb().port());
        let announced = format!("{ours}:{}", ports[1]);
        let known = eventually("the other is known", || row(&near, &announced));
        assert_eq!(known["host_only"], false);
        let local = format!("127.0.0.1:{}", ports[0]);
        let known = eventually("the one on loopback is known", || row(&far, &local));
        assert_eq!(known["host_only"], true);
        // The former version would send other hosts' clients to their own loopback.
        eventually("the former version reads one", || {
            (read_as_before(&etcd) == BTreeSet::from([announced.clone()])).then_some(())
        });
        let asked = |ip: &str| {
            let ip: IpAddr = ip.parse().expect("an address");
            let targets = srv_targets((ip, far.dns().port()).into(), SRV)?;
            Some(targets.into_iter().map(|(_, port)| port).collect::<BTreeSet<_>>())
        };
        eventually("a program on this host is told both", || {
            asked("127.0.0.1").filter(|found| *found == BTreeSet::from(ports))
        });
        // A question from elsewhere arrives at another address.
        let found = asked(&ours);
        assert_eq!(found, Some(BTreeSet::from([ports[1]])));
    });
}
