//! Tests lost registrations on real etcds: keys that flap, lost leases, wiped prefixes,
//! and a balancer that starts while etcd is down.
//!
//! In: registrations as real frameworks write and lose them. Out: the balancer's lists,
//! held backends and metrics.

#[path = "leases/state.rs"]
mod state;

use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::time::Duration;

use crate::support::backend::Backend;
use crate::support::client::{Calls, Driver, Options};
use crate::support::etcd::Etcd;
use crate::support::eventually;
use crate::support::language::PYTHON;
use crate::support::lookaside::Balancer;
use etcd_client::{Client, Txn, TxnOp};
use serde_json::Value;

/// A backend that takes connections. Dropping it stops it.
struct Server(TcpListener);

impl Server {
    fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    fn many(count: usize) -> Vec<Self> {
        (0..count).map(|_| Self::start()).collect()
    }

    fn addr(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    fn key(&self) -> String {
        format!("/etcd3_naming/hello/{}", self.addr())
    }

    /// Registers as its process would. Lease 0 means none.
    fn register(&self, etcd: &Etcd, lease: &str) {
        etcd.ctl(&["put", "--lease", lease, &self.key(), &self.addr().to_string()]);
    }
}

/// Grants a lease of `seconds`. Returns its id.
fn lease(etcd: &Etcd, seconds: u32) -> String {
    let granted = etcd.ctl(&["lease", "grant", &seconds.to_string()]);
    granted.split(' ').nth(1).unwrap().to_owned()
}

fn delete_at_once(etcd: &Etcd, keys: &[String]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client = Client::connect([etcd.url()], None).await.unwrap();
        let all: Vec<_> = keys.iter().map(|key| TxnOp::delete(key.as_str(), None)).collect();
        client.txn(Txn::new().and_then(all)).await.unwrap();
    });
}

fn balancer(etcd: &Etcd, more: &[&str]) -> Balancer {
    let balancer = Balancer::start(&[&["--etcd", &etcd.url()], more].concat());
    balancer.wait_ready();
    balancer
}

/// Returns the service as the admin address shows it; null while it has no backend.
fn hello(balancer: &Balancer) -> Value {
    match balancer.get("/api/v1/services/hello") {
        (200, body) => serde_json::from_str(&body).unwrap(),
        _ => Value::Null,
    }
}

fn endpoints(balancer: &Balancer) -> Vec<Value> {
    hello(balancer)["endpoints"].as_array().cloned().unwrap_or_default()
}

/// Returns how many backends are listed.
fn listed(balancer: &Balancer) -> usize {
    endpoints(balancer).iter().filter(|endpoint| endpoint["turns"] != 0).count()
}

/// Returns the results of the newest probes of held backends.
fn probes(balancer: &Balancer) -> Vec<String> {
    let endpoints = endpoints(balancer);
    let held = endpoints.iter().filter(|endpoint| !endpoint["held"].is_null());
    held.map(|endpoint| endpoint["held"]["probe"].as_str().unwrap_or("none").to_owned()).collect()
}

#[track_caller]
fn wait_listed(balancer: &Balancer, count: usize) {
    eventually("the list", || (listed(balancer) == count).then_some(()));
}

fn metric(balancer: &Balancer, name: &str) -> f64 {
    balancer.metric(name).unwrap_or_else(|| panic!("no {name}"))
}

/// QSF registers again only when the lease's time is over, so the key is missing for a
/// moment again and again.
#[test]
fn a_key_that_flaps_causes_no_push_and_no_failed_call() {
    let etcd = Etcd::start();
    let balancer = balancer(&etcd, &[]);
    let backend = Backend::start("one");
    let value = backend.addr().to_string();
    let register = || {
        let lease = lease(&etcd, 600);
        etcd.ctl(&["put", "--lease", &lease, "/etcd3_naming/hello/one", &value]);
        lease
    };
    let mut lease = register();
    let driver = Driver::start(&PYTHON);
    let client = driver.open(&Options::grpclb(balancer.target("hello")));
    assert_eq!(client.call(&Calls::waiting(1)).from("one"), 1);
    let sent = metric(&balancer, "lookaside_lists_sent_total");
    client.start(&Calls::new(1).every(Duration::from_millis(5)));
    for _ in 0..3 {
        // To a watcher this looks like an expiry, and the test need not wait for one.
        etcd.ctl(&["lease", "revoke", &lease]);
        eventually("it is gone, and found alive", || {
            (probes(&balancer) == ["takes connections"]).then_some(())
        });
        lease = register();
        eventually("it is back", || probes(&balancer).is_empty().then_some(()));
    }
    assert_eq!(client.stop().failed(), 0);
    assert_eq!(metric(&balancer, "lookaside_lists_sent_total"), sent);
}

/// With go-kratos, OpenIM, panshiqu and others, the process lives on and never registers
/// again.
#[test]
fn a_lease_lost_in_an_outage_keeps_the_backend_while_it_lives_and_not_for_ever() {
    let mut etcd = Etcd::start();
    let server = Server::start();
    server.register(&etcd, &lease(&etcd, 5));
    let balancer = balancer(&etcd, &["--keep-lost", "10s"]);
    wait_listed(&balancer, 1);
    etcd.kill();
    eventually("the outage is noticed", || {
        (metric(&balancer, "lookaside_registry_stale") == 1.0).then_some(())
    });
    etcd.restart();
    eventually("it is held", || (probes(&balancer) == ["takes connections"]).then_some(()));
    assert_eq!(listed(&balancer), 1);
    let endpoint = &endpoints(&balancer)[0];
    let why = endpoint["held"]["why"].as_str().unwrap();
    // The lease may end before the registry is read again, or after.
    assert!(why.starts_with("its lease is gone") || why.contains("was missing"), "{why}");
    assert_eq!(metric(&balancer, "lookaside_endpoints_held"), 1.0);
    eventually("it is logged", || {
        balancer.log().contains("keeping backends that answer").then_some(())
    });
    wait_listed(&balancer, 0);
    assert_eq!(metric(&balancer, "lookaside_endpoints_held"), 0.0);
}

#[test]
fn who_crashes_or_revokes_its_lease_and_stops_is_gone_without_waiting() {
    let etcd = Etcd::start();
    let (one, other) = (Server::start(), Server::start());
    let (short, long) = (lease(&etcd, 5), lease(&etcd, 600));
    one.register(&etcd, &short);
    other.register(&etcd, &long);
    // The guard is off, because the loss of two of two would be a mass loss.
    let balancer = balancer(&etcd, &["--keep-lost", "1day", "--guard", "0"]);
    wait_listed(&balancer, 2);
    drop(one);
    wait_listed(&balancer, 1);
    // A draining process revokes its lease while it serves. It is held until it stops.
    etcd.ctl(&["lease", "revoke", &long]);
    eventually("it is held", || (probes(&balancer) == ["takes connections"]).then_some(()));
    drop(other);
    wait_listed(&balancer, 0);
}

/// Registrators, SkyDNS and APISIX write such keys, and nothing ever deletes them.
#[test]
fn without_a_lease_who_refuses_is_left_out_but_never_the_last() {
    let etcd = Etcd::start();
    let servers = Server::many(3);
    servers.iter().for_each(|server| server.register(&etcd, "0"));
    let balancer = balancer(&etcd, &["--probe-unleased", "1s"]);
    wait_listed(&balancer, 3);
    let mut servers = servers.into_iter();
    let addr = servers.next().unwrap().addr();
    wait_listed(&balancer, 2);
    let all = endpoints(&balancer);
    let down: Vec<_> = all.iter().filter(|endpoint| endpoint["down"] == true).collect();
    assert_eq!((all.len(), down.len()), (3, 1));
    assert_eq!(down[0]["address"], addr.to_string());
    assert_eq!(metric(&balancer, "lookaside_endpoints_down"), 1.0);
    let back = TcpListener::bind(addr).unwrap();
    wait_listed(&balancer, 3);
    // Two of three refuse: the fault may be the balancer's view, so all stay.
    drop(back);
    wait_listed(&balancer, 2);
    drop(servers);
    wait_listed(&balancer, 3);
}

#[test]
fn mass_expiry_leaves_half_until_the_operator_says_otherwise() {
    let etcd = Etcd::start();
    let mut servers = Server::many(40);
    let long = lease(&etcd, 600);
    let living = servers.split_off(36);
    living.iter().for_each(|server| server.register(&etcd, &long));
    let leases: Vec<_> = servers.chunks(6).map(|_| lease(&etcd, 600)).collect();
    for (servers, lease) in servers.chunks(6).zip(&leases) {
        servers.iter().for_each(|server| server.register(&etcd, lease));
    }
    let balancer = balancer(&etcd, &[]);
    wait_listed(&balancer, 40);
    drop(servers);
    leases.iter().for_each(|lease| drop(etcd.ctl(&["lease", "revoke", lease])));
    let mut least = 40;
    eventually("the dead go, as far as they may", || {
        least = least.min(listed(&balancer));
        (least == 20 && hello(&balancer)["guarded"] == true).then_some(())
    });
    let refusals =
        || probes(&balancer).iter().filter(|probe| *probe == "refuses connections").count();
    eventually("all that are kept are known to be dead", || {
        assert!(listed(&balancer) >= 20, "never below half");
        (refusals() == 16).then_some(())
    });
    assert_eq!(metric(&balancer, "lookaside_services_guarded"), 1.0);
    eventually("it is logged", || {
        balancer.log().contains("too much of a service is lost").then_some(())
    });

    let admin = format!("http://{}", balancer.admin());
    let url = format!("{admin}/api/v1/services/hello/release");
    let post = |header: &str| {
        let request = ureq::post(&url).config().http_status_as_error(false).proxy(None).build();
        request.header(header, "http://evil.example").send_empty().unwrap().status().as_u16()
    };
    assert_eq!(post("origin"), 403, "a page in the operator's browser");
    assert_eq!(listed(&balancer), 20);
    let output = Command::new(env!("CARGO_BIN_EXE_lookaside"))
        .args(["release", "hello", "--admin", &admin])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello: 16 released\n", "{output:?}");
    wait_listed(&balancer, 4);
    assert_eq!(metric(&balancer, "lookaside_services_guarded"), 0.0);
}

#[test]
fn mass_expiry_of_the_living_costs_nobody_anything() {
    let etcd = Etcd::start();
    let servers = Server::many(20);
    let leases: Vec<_> = servers.chunks(5).map(|_| lease(&etcd, 600)).collect();
    for (servers, lease) in servers.chunks(5).zip(&leases) {
        servers.iter().for_each(|server| server.register(&etcd, lease));
    }
    let balancer = balancer(&etcd, &[]);
    wait_listed(&balancer, 20);
    leases.iter().for_each(|lease| drop(etcd.ctl(&["lease", "revoke", lease])));
    eventually("all are held", || {
        assert_eq!(listed(&balancer), 20);
        let answer = |probe: &String| probe == "takes connections";
        (probes(&balancer).iter().filter(|probe| answer(probe)).count() == 20).then_some(())
    });
    // Backends that register again are simply registered.
    let again = lease(&etcd, 600);
    servers.iter().for_each(|server| server.register(&etcd, &again));
    eventually("none is held", || {
        assert_eq!(listed(&balancer), 20);
        probes(&balancer).is_empty().then_some(())
    });
}

/// The protection must not hide a real shutdown.
#[test]
fn explicit_deregistration_of_nearly_all_is_obeyed_though_they_still_answer() {
    let etcd = Etcd::start();
    let servers = Server::many(10);
    for server in &servers {
        server.register(&etcd, &lease(&etcd, 600));
    }
    let balancer = balancer(&etcd, &["--keep-lost", "1day"]);
    wait_listed(&balancer, 10);
    servers[..9].iter().for_each(|server| drop(etcd.ctl(&["del", &server.key()])));
    wait_listed(&balancer, 1);
    assert!(probes(&balancer).is_empty());
    // The same holds for registrations without a lease.
    servers[..9].iter().for_each(|server| server.register(&etcd, "0"));
    wait_listed(&balancer, 10);
    servers[..9].iter().for_each(|server| drop(etcd.ctl(&["del", &server.key()])));
    wait_listed(&balancer, 1);
    assert!(probes(&balancer).is_empty());
}

#[test]
fn a_wiped_prefix_or_store_takes_no_living_backend_away() {
    let mut etcd = Etcd::start();
    let servers = Server::many(10);
    for (n, server) in servers.iter().enumerate() {
        let lease = if n < 5 { lease(&etcd, 600) } else { "0".to_owned() };
        server.register(&etcd, &lease);
    }
    let balancer = balancer(&etcd, &[]);
    wait_listed(&balancer, 10);
    let all_held = |balancer: &Balancer| {
        eventually("all are held", || {
            assert_eq!(listed(balancer), 10);
            let answers = probes(balancer);
            (answers.iter().filter(|answer| *answer == "takes connections").count() == 10)
                .then_some(())
        });
    };
    assert_eq!(etcd.ctl(&["del", "--prefix", "/etcd3_naming/"]).trim(), "10");
    all_held(&balancer);
    let again = lease(&etcd, 600);
    servers.iter().for_each(|server| server.register(&etcd, &again));
    eventually("none is held", || probes(&balancer).is_empty().then_some(()));
    etcd.restart_empty();
    all_held(&balancer);
}

/// The copy holds a former address of the backend.
#[test]
fn a_store_restored_to_an_older_copy_takes_no_living_backend_away() {
    let mut etcd = Etcd::start();
    let servers = Server::many(2);
    let long = lease(&etcd, 600);
    let put = |etcd: &Etcd, server: &Server| {
        let value = server.addr().to_string();
        etcd.ctl(&["put", "--lease", &long, "/etcd3_naming/hello/moves", &value]);
    };
    let listed_now = |balancer: &Balancer| -> Vec<String> {
        let addresses = endpoints(balancer);
        addresses.iter().map(|one| one["address"].as_str().unwrap().to_owned()).collect()
    };
    put(&etcd, &servers[0]);
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("copy");
    etcd.ctl(&["snapshot", "save", copy.to_str().unwrap()]);
    put(&etcd, &servers[1]);
    let balancer = balancer(&etcd, &[]);
    let living = servers[1].addr().to_string();
    assert_eq!(listed_now(&balancer), std::slice::from_ref(&living));
    etcd.restart_from(&copy);
    eventually("the living one is held", || {
        assert!(listed_now(&balancer).contains(&living));
        (probes(&balancer) == ["takes connections"]).then_some(())
    });
    assert_eq!(listed(&balancer), 2, "and the one that the copy names is registered");
    put(&etcd, &servers[1]);
    eventually("its owner has written again", || {
        assert!(listed_now(&balancer).contains(&living));
        (listed_now(&balancer) == [living.clone()]).then_some(())
    });
    assert!(probes(&balancer).is_empty());
}

/// Each half of the transaction alone is no mass loss.
#[test]
fn a_transaction_over_two_prefixes_is_judged_as_a_whole() {
    let etcd = Etcd::start();
    let servers = Server::many(10);
    let keys: Vec<_> = (0..10).map(|n| format!("/{}/hello/{n}", ["a", "b"][n % 2])).collect();
    for (key, server) in keys.iter().zip(&servers) {
        etcd.ctl(&["put", key, &server.addr().to_string()]);
    }
    let balancer = balancer(&etcd, &["--prefix", "/a/", "--prefix", "/b/"]);
    wait_listed(&balancer, 10);
    delete_at_once(&etcd, &keys);
    eventually("all are held", || {
        assert_eq!(listed(&balancer), 10);
        (probes(&balancer).iter().filter(|probe| *probe == "takes connections").count() == 10)
            .then_some(())
    });
    // Deregistrations of nearly as many, one by one, are obeyed.
    for (key, server) in keys.iter().zip(&servers) {
        etcd.ctl(&["put", key, &server.addr().to_string()]);
    }
    eventually("none is held", || probes(&balancer).is_empty().then_some(()));
    keys[..8].iter().for_each(|key| drop(etcd.ctl(&["del", key])));
    wait_listed(&balancer, 2);
}

#[test]
fn with_both_switched_off_what_is_lost_goes() {
    let etcd = Etcd::start();
    let servers = Server::many(4);
    let one = lease(&etcd, 600);
    servers.iter().for_each(|server| server.register(&etcd, &one));
    let balancer = balancer(&etcd, &["--keep-lost", "0s", "--guard", "0"]);
    wait_listed(&balancer, 4);
    etcd.ctl(&["lease", "revoke", &one]);
    wait_listed(&balancer, 0);
}

/// With the embedded registry, deletion and expiry differ as with etcd.
#[test]
fn without_etcd_the_embedded_registry_tells_deletion_from_expiry() {
    let balancer = Balancer::start(&["--keep-lost", "1day"]);
    balancer.wait_ready();
    let endpoint = format!("--endpoints={}", balancer.registry());
    let ctl = |args: &[&str]| {
        let mut command = Command::new("etcdctl");
        let output = command.env("ETCDCTL_API", "3").arg(&endpoint).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let server = Server::start();
    let granted = ctl(&["lease", "grant", "600"]);
    let lease = granted.split(' ').nth(1).unwrap();
    let register = || {
        ctl(&["put", "--lease", lease, &server.key(), &server.addr().to_string()]);
        wait_listed(&balancer, 1);
    };
    register();
    ctl(&["del", &server.key()]);
    wait_listed(&balancer, 0);
    register();
    ctl(&["lease", "revoke", lease]);
    eventually("it is held", || (probes(&balancer) == ["takes connections"]).then_some(()));
    drop(server);
    wait_listed(&balancer, 0);
}
