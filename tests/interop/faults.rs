//! Cases of balancers that are down, silent, come back, or refuse streams.
//!
//! In: a world and a driver. Out: a panic if calls fail or clients do not return to
//! lists.

use std::time::{Duration, Instant};

use crate::support::backend::Backend;
use crate::support::client::{Calls, Channel, Driver, Options};
use crate::support::etcd::Etcd;
use crate::support::language::Family;
use crate::support::lookaside::Balancer;
use crate::support::signal::Signal;
use crate::support::world::{SERVICE, World, metric, reported, streams};
use crate::support::{eventually, free_port};

/// Longer than any case, so that a timer of this length helps no client.
const NEVER: Duration = Duration::from_secs(600);
/// The time without a list after which a client falls back, where a case waits for that.
const SOON: Duration = Duration::from_millis(500);

/// Without a balancer a client starts with the addresses from DNS, and uses lists once
/// there is a balancer.
pub fn fallback_before_start(world: &World, driver: &Driver) {
    let address = format!("127.0.0.1:{}", free_port());
    let dns = world.dns(&address);
    let other = world.in_dns(&dns, "other");
    let options = world.falling_back_to(&dns, &other);
    let client = driver.open(&match driver.language().family {
        // It falls back as soon as no connection comes about.
        Family::Core => options.fallback_after(NEVER),
        Family::Go => options,
        Family::Java => options.fallback_after(SOON),
    });
    uses_fallback(&client);
    let report = client.call(&Calls::new(20));
    assert_eq!(report.from("other"), 20, "{report:?}");
    let _one = world.backend("one");
    let _balancer = world.balancer(&["--listen", &address, "--dns-listen", "127.0.0.1:0"]);
    client.shares(&["one"]);
}

/// DNS gives no balancer: the balancer's name has no address, or no server knows the zone.
pub fn no_balancer_in_dns(world: &World, driver: &Driver) {
    let dns = world.dns("balancer.invalid:12000");
    let other = world.in_dns(&dns, "other");
    let options = world.falling_back_to(&dns, &other);
    let client = driver.open(&match driver.language().family {
        Family::Core | Family::Go => options,
        Family::Java => options.fallback_after(SOON),
    });
    client.shares(&["other"]);
    // grpclb of grpc-go ignores errors of DNS, and its calls wait.
    if driver.language().family != Family::Go {
        let elsewhere = world.target_of(&dns, "elsewhere.test");
        driver.open(&Options::grpclb(elsewhere)).is_unavailable();
    }
    assert_eq!(metric(&dns, "lookaside_streams_opened_total"), 0);
}

/// A balancer accepts connections and sends nothing. The kernel accepts them for a process
/// that is stopped.
pub fn silent(world: &World, driver: &Driver) {
    let balancer = world.announced_balancer(&[]);
    let dns = world.dns(balancer.grpclb());
    let other = world.in_dns(&dns, "other");
    let _one = world.backend("one");
    balancer.wait_listed(SERVICE, "one");
    balancer.signal(Signal::STOP);
    let options = world.falling_back_to(&dns, &other);
    let client = driver.open(&match driver.language().family {
        Family::Core | Family::Java => options.fallback_after(SOON),
        // Its ten seconds cannot be changed.
        Family::Go => options,
    });
    uses_fallback(&client);
    assert!(other.tokens().iter().all(Option::is_none), "{:?}", other.tokens());
    balancer.signal(Signal::CONT);
    client.shares(&["one"]);
}

/// Balancer and backends are lost, in either order, and come back as they were. Clients
/// must leave fallback although the list equals their last one.
pub fn fallback_after_loss(world: &World, driver: &Driver) {
    let mut balancer = world.announced_balancer(&[]);
    let address = balancer.grpclb().to_string();
    let dns = world.dns(balancer.grpclb());
    let other = world.in_dns(&dns, "other");
    let mut one = world.backend("one");
    let home = one.addr();
    let options = world.falling_back_to(&dns, &other);
    let client = driver.open(&match driver.language().family {
        Family::Core => options.ask_dns_every(NEVER),
        Family::Go | Family::Java => options,
    });
    client.shares(&["one"]);
    for balancer_first in [true, false] {
        if balancer_first {
            balancer.kill();
            let report = client.call(&Calls::new(20));
            assert_eq!(report.from("one"), 20, "without a balancer, the last list: {report:?}");
            drop(one);
        } else {
            drop(one);
            client.is_unavailable();
            balancer.kill();
        }
        uses_fallback(&client);
        one = Backend::start_at("one", home);
        world.register(&mut one);
        balancer = world.balancer(&["--listen", &address, "--dns-listen", "127.0.0.1:0"]);
        client.shares(&["one"]);
    }
}

/// There are two balancers, and the one in use is killed.
pub fn two_balancers(world: &World, driver: &Driver) {
    let mut balancers = [world.announced_balancer(&[]), world.announced_balancer(&[])];
    let dns = world.dns(balancers[0].grpclb());
    let _one = world.backend("one");
    eventually("DNS has both", || (world.balancers_in_dns(&dns) == 2).then_some(()));
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

/// Changes go over one stream. A balancer is terminated or killed, and is back at once: no
/// call fails, and the reports to the new one are right.
pub fn restart(world: &World, driver: &Driver) {
    let mut balancer = world.balancer(&[]);
    let (_one, mut two) = (world.backend("one"), world.backend("two"));
    let client = driver.open(&Options::grpclb(world.target(&balancer)));
    client.shares(&["one", "two"]);
    for _ in 0..2 {
        two.stop();
        client.shares(&["one"]);
        two = world.backend("two");
        client.shares(&["one", "two"]);
    }
    let opened = |balancer: &Balancer| metric(balancer, "lookaside_streams_opened_total");
    assert_eq!(opened(&balancer), 1);
    let ways: [fn(&mut Balancer); 2] = [|it| assert!(it.terminate().success()), Balancer::kill];
    for end in ways {
        client.start(&Calls::new(1).every(Duration::from_millis(5)));
        balancer = again(world, balancer, end);
        let meanwhile = client.stop();
        assert_eq!(meanwhile.failed(), 0, "{meanwhile:?}");
        assert_eq!(opened(&balancer), 1);
    }
    two.stop();
    client.shares(&["one"]);
    balancer = again(world, balancer, Balancer::kill);
    // A client reports only after it has taken the list. Calls made before that belong
    // to the old stream; grpc-go reports them later.
    eventually("it reports", || (metric(&balancer, "lookaside_reports_total") > 0).then_some(()));
    let finished = || reported(&balancer, SERVICE, "finished");
    let before = finished();
    let report = client.call(&Calls::new(20));
    assert_eq!(report.from("one"), 20, "{report:?}");
    eventually("all calls are reported", || (finished() >= before + 20).then_some(()));
    assert_eq!(finished(), before + 20);
}

/// Streams are refused until etcd has been read, and clients back off.
pub fn refused(world: &World, driver: &Driver) {
    let mut etcd = Etcd::start();
    etcd.kill();
    let own = format!("127.0.0.1:{}", free_port());
    let balancer = world
        .balancer_unready(&["--etcd", &etcd.url(), "--listen", &own, "--dns-listen", "127.0.0.1:0"])
        .unwrap_or_else(|log| panic!("it starts without etcd:\n{log}"));
    let dns = world.dns(&own);
    let client = driver.open(&Options::grpclb(world.target(&dns)));
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
    assert_eq!(metric(&balancer, "lookaside_streams_opened_total"), 0);
    // Clients with fallback addresses use them at once, and not by a timer.
    let other = world.in_dns(&dns, "other");
    let options = world.falling_back_to(&dns, &other);
    let second = driver.open(&match driver.language().family {
        Family::Core | Family::Java => options.fallback_after(NEVER),
        Family::Go => options,
    });
    uses_fallback(&second);
    etcd.restart();
    let mut one = Backend::start("one");
    world.register_at(&etcd, &mut one);
    client.shares(&["one"]);
    second.shares(&["one"]);
}

/// All backends restart while a new balancer has read nothing. grpc-go panics, which ends
/// its process, if it has a stream without a list meanwhile, so such a stream is refused.
pub fn bounce(world: &World, driver: &Driver) {
    let mut etcd = Etcd::start();
    let mut first = world.balancer(&["--etcd", &etcd.url()]);
    let [one, two] = ["one", "two"].map(|id| {
        let mut backend = Backend::start(id);
        world.register_at(&etcd, &mut backend);
        backend
    });
    let client = driver.open(&Options::grpclb(world.target(&first)));
    client.shares(&["one", "two"]);

    etcd.freeze();
    first.kill();
    let (grpclb, dns) = (first.grpclb().to_string(), first.dns().to_string());
    let second = world
        .balancer_unready(&["--etcd", &etcd.url(), "--listen", &grpclb, "--dns-listen", &dns])
        .unwrap_or_else(|log| panic!("it starts without etcd:\n{log}"));
    let opened = || metric(&second, "lookaside_streams_opened_total");
    eventually("the client has asked it", || {
        (metric(&second, "lookaside_streams_refused_total") + opened() > 0).then_some(())
    });
    client.start(&Calls::new(1).every(Duration::from_millis(1)));
    let addresses = [one.addr(), two.addr()];
    drop((one, two));
    eventually("calls fail", || (client.call(&Calls::new(1)).failed() == 1).then_some(()));
    let returned =
        [("one", addresses[0]), ("two", addresses[1])].map(|(id, at)| Backend::start_at(id, at));
    // The process must live; the result of the call does not matter.
    let report = client.call(&Calls::waiting(1).timeout(Duration::from_secs(5)));
    assert_eq!(report.succeeded() + report.failed(), 1, "it is still there");
    assert_eq!(opened(), 0);

    etcd.thaw();
    second.wait_ready();
    client.stop();
    drop(returned);
    etcd.restart_empty();
    let mut three = Backend::start("three");
    world.register_at(&etcd, &mut three);
    client.shares(&["three"]);
}

/// Ends a balancer, starts it again at the same addresses and waits for its client.
fn again(world: &World, mut balancer: Balancer, end: impl FnOnce(&mut Balancer)) -> Balancer {
    let (grpclb, dns) = (balancer.grpclb().to_string(), balancer.dns().to_string());
    end(&mut balancer);
    let balancer = world.balancer(&["--listen", &grpclb, "--dns-listen", &dns]);
    eventually("the client is back", || (streams(&balancer) == 1).then_some(()));
    balancer
}

#[track_caller]
fn uses_fallback(client: &Channel<'_>) {
    client.until("DNS's address is used", &Calls::new(4), |report| report.from("other") == 4);
}
