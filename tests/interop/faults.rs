//! Cases of balancers that are down, come back, or refuse streams.
//!
//! In: a world and a driver. Out: a panic if calls fail or clients do not return to
//! lists.

use std::time::{Duration, Instant};

use crate::support::backend::Backend;
use crate::support::client::{Calls, Driver, Options};
use crate::support::dns;
use crate::support::etcd::Etcd;
use crate::support::language::Family;
use crate::support::lookaside::Balancer;
use crate::support::{eventually, free_port};
use crate::world::{World, metric, reported, streams};

/// Without a balancer a client starts with the addresses from DNS, and uses lists once
/// there is a balancer.
pub fn fallback_before_start(world: &World, driver: &Driver) {
    let address = format!("127.0.0.1:{}", free_port());
    let dns = world.dns(address.parse().expect("an address"));
    let other = world.in_dns(&dns, "other");
    let target = format!("{}:{}", world.target(&dns), other.addr().port());
    let client = driver.open(&Options::grpclb(target));
    client.until("DNS's address is used", &Calls::waiting(4), |r| r.from("other") == 4);
    let report = client.call(&Calls::new(20));
    assert_eq!(report.from("other"), 20, "{report:?}");
    let _one = world.backend("one");
    let _balancer = world.balancer(&["--listen", &address, "--dns-listen", "127.0.0.1:0"]);
    client.shares(&["one"]);
}

/// The balancer is lost and then the backends, and both come back as they were. Clients
/// must leave fallback although the list equals their last one.
pub fn fallback_after_loss(world: &World, driver: &Driver) {
    let mut balancer = world.announced_balancer(&[]);
    let dns = world.dns(balancer.grpclb());
    let other = world.in_dns(&dns, "other");
    let one = world.backend("one");
    let target = format!("{}:{}", world.target(&dns), other.addr().port());
    let client = driver.open(&Options::grpclb(target));
    client.shares(&["one"]);
    let address = balancer.grpclb().to_string();
    balancer.kill();
    let report = client.call(&Calls::new(20));
    assert_eq!(report.from("one"), 20, "without a balancer, the last list: {report:?}");
    let home = one.addr();
    drop(one);
    client.until("DNS's address is used", &Calls::waiting(4), |r| r.from("other") == 4);
    let mut one = Backend::start_at("one", home);
    world.register(&mut one);
    let _balancer = world.balancer(&["--listen", &address, "--dns-listen", "127.0.0.1:0"]);
    client.shares(&["one"]);
}

/// There are two balancers, and the one in use is killed.
pub fn two_balancers(world: &World, driver: &Driver) {
    let mut balancers = [world.announced_balancer(&[]), world.announced_balancer(&[])];
    let dns = world.dns(balancers[0].grpclb());
    let _one = world.backend("one");
    eventually("DNS has both", || (records(&dns, world) == 2).then_some(()));
    let client = driver.open(&Options::grpclb(world.target(&dns)));
    client.shares(&["one"]);
    let used = usize::from(streams(&balancers[0]) == 0);
    assert_eq!(streams(&balancers[used]), 1);
    client.start(&Calls::new(1).every(Duration::from_millis(5)));
    balancers[used].kill();
    eventually("it asks the other", || (streams(&balancers[1 - used]) == 1).then_some(()));
    let meanwhile = client.stop();
    assert_eq!(meanwhile.failed(), 0, "{meanwhile:?}");
    let _two = world.backend("two");
    client.shares(&["one", "two"]);
}

/// A balancer is killed and is back at once: no call fails, and the reports to the new
/// one are right.
pub fn restart(world: &World, driver: &Driver) {
    let mut balancer = world.balancer(&[]);
    let (_one, two) = (world.backend("one"), world.backend("two"));
    let client = driver.open(&Options::grpclb(world.target(&balancer)));
    client.shares(&["one", "two"]);
    client.start(&Calls::new(1).every(Duration::from_millis(5)));
    balancer = again(world, balancer);
    let meanwhile = client.stop();
    assert_eq!(meanwhile.failed(), 0, "{meanwhile:?}");
    two.stop();
    client.shares(&["one"]);
    if driver.language().family == Family::Java {
        assert_eq!(metric(&balancer, "lookaside_streams_opened_total"), 1);
    }
    balancer = again(world, balancer);
    // A client reports only after it has taken the list. Calls made before that belong
    // to the old stream; grpc-go reports them later.
    eventually("it reports", || (metric(&balancer, "lookaside_reports_total") > 0).then_some(()));
    let before = reported(&balancer, "finished");
    let report = client.call(&Calls::new(20));
    assert_eq!(report.from("one"), 20, "{report:?}");
    eventually("all calls are reported", || {
        (reported(&balancer, "finished") >= before + 20).then_some(())
    });
    assert_eq!(reported(&balancer, "finished"), before + 20);
}

/// Streams are refused until etcd has been read, and clients back off.
pub fn refused(world: &World, driver: &Driver) {
    let mut etcd = Etcd::start();
    etcd.kill();
    let balancer = world
        .balancer_unready(&["--etcd", &etcd.url()])
        .unwrap_or_else(|log| panic!("it starts without etcd:\n{log}"));
    let client = driver.open(&Options::grpclb(world.target(&balancer)));
    let begun = Instant::now();
    client.start(&Calls::new(1).every(Duration::from_millis(5)));
    let refused = || metric(&balancer, "lookaside_streams_refused_total");
    // A client that does not back off opens five streams in milliseconds. A client that
    // does opens two at most in the first second.
    eventually("it tries again", || (refused() >= 3).then_some(()));
    assert!(begun.elapsed() > Duration::from_secs(1), "3 streams in {:?}", begun.elapsed());
    let meanwhile = client.stop();
    assert!(
        meanwhile.succeeded() == 0
            && meanwhile.errors.keys().all(|error| error.starts_with("UNAVAILABLE")),
        "{meanwhile:?}"
    );
    etcd.restart();
    let mut one = Backend::start("one");
    world.register_at(&etcd, &mut one);
    client.shares(&["one"]);
}

/// Kills a balancer, starts it again at the same addresses and waits for its client.
fn again(world: &World, mut balancer: Balancer) -> Balancer {
    let (grpclb, dns) = (balancer.grpclb().to_string(), balancer.dns().to_string());
    balancer.kill();
    let balancer = world.balancer(&["--listen", &grpclb, "--dns-listen", &dns]);
    eventually("the client is back", || (streams(&balancer) == 1).then_some(()));
    balancer
}

/// Returns the number of balancers that DNS gives.
fn records(balancer: &Balancer, world: &World) -> usize {
    let name = format!("_grpclb._tcp.hello.{}", world.zone());
    dns::srv_records(balancer.dns(), &name).unwrap_or(0)
}
