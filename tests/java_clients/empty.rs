//! Tests of Java clients with a service without backends: the three modes of
//! `--when-empty`, for a first list and for a later one; other causes of fallback.

use std::time::Duration;

use crate::java_clients::{balancer, fails_fast, metric, target};
use crate::support::backend::Backend;
use crate::support::client::Calls;
use crate::support::etcd::Etcd;
use crate::support::java::{Channel, Driver, Options, isolated};
use crate::support::lookaside::Balancer;
use crate::support::namespace::add_host;

/// Checks that a call which waits ends with this code within its 2 s.
#[track_caller]
fn waiting_call_ends(channel: &Channel<'_>, code: &str) {
    let report = channel.call(&Calls::waiting(1).timeout(Duration::from_secs(2)));
    assert_eq!(report.failed(), 1, "{report:?}");
    assert!(report.errors.keys().all(|error| error.starts_with(code)), "{report:?}");
}

/// Starts with an empty list; then a backend comes, goes, and another comes, all on
/// one stream.
fn comes_and_goes(mode: &str, code: &str) {
    let etcd = Etcd::start();
    let balancer = balancer(&etcd, &["--when-empty", mode]);
    let driver = Driver::start();
    let client = driver.open(&Options::grpclb(target("hello")));
    fails_fast(&client);
    waiting_call_ends(&client, code);

    let one = Backend::registered("one", &etcd.url(), "hello");
    // A call that waits goes through in both modes, sooner or later.
    client.shares(&["one"]);

    one.stop();
    fails_fast(&client);
    waiting_call_ends(&client, code);

    let _two = Backend::registered("two", &etcd.url(), "hello");
    client.shares(&["two"]);
    assert_eq!(metric(&balancer, "lookaside_streams_opened_total"), 1);
}

#[test]
fn told_to_wait_clients_wait_or_fail_as_each_call_wants() {
    isolated(|| comes_and_goes("wait", "DEADLINE_EXCEEDED"));
}

#[test]
fn told_to_drop_clients_fail_every_call() {
    isolated(|| comes_and_goes("drop", "UNAVAILABLE"));
}

#[test]
fn told_to_fall_back_clients_use_what_dns_says_and_return() {
    isolated(|| {
        let etcd = Etcd::start();
        let balancer = balancer(&etcd, &["--when-empty", "fallback"]);
        let driver = Driver::start();
        let fallback = Backend::start("fallback");
        let target = format!("{}:{}", target("hello"), fallback.addr().port());
        add_host("hello.lookaside.internal", "127.0.0.1");
        let client = driver.open(&Options::grpclb(target));
        // Fallback is the first message of a stream, and later a further one.
        for id in ["one", "two"] {
            client.shares(&["fallback"]);
            let backend = Backend::registered(id, &etcd.url(), "hello");
            client.shares(&[id]);
            assert!(backend.tokens().iter().all(Option::is_some));
            backend.stop();
        }
        client.shares(&["fallback"]);
        assert!(fallback.tokens().iter().all(Option::is_none), "{:?}", fallback.tokens());
        assert_eq!(metric(&balancer, "lookaside_streams_opened_total"), 1);
    });
}

#[test]
fn told_to_fall_back_without_addresses_clients_fail_and_return() {
    isolated(|| {
        let etcd = Etcd::start();
        let _balancer = balancer(&etcd, &["--when-empty", "fallback"]);
        let driver = Driver::start();
        let client = driver.open(&Options::grpclb(target("hello")));
        fails_fast(&client);
        let _one = Backend::registered("one", &etcd.url(), "hello");
        client.shares(&["one"]);
    });
}

#[test]
fn clients_fall_back_when_the_balancer_cannot_be_reached() {
    isolated(|| {
        let etcd = Etcd::start();
        // Nothing listens at the balancer's address in DNS.
        let balancer = balancer(&etcd, &["--advertise", "127.0.0.1:1"]);
        let driver = Driver::start();
        let _one = Backend::registered("one", &etcd.url(), "hello");
        balancer.wait_listed("hello", "one");
        let fallback = Backend::start("fallback");
        let target = format!("{}:{}", target("hello"), fallback.addr().port());
        let options = Options::grpclb(target).fallback_timeout(Duration::from_secs(1));
        driver.open(&options).shares(&["fallback"]);
    });
}

#[test]
fn clients_fall_back_when_balancer_and_backends_are_lost_and_return() {
    isolated(|| {
        let etcd = Etcd::start();
        // DNS outlives the balancer.
        let _dns = balancer(&etcd, &["--advertise", "127.0.0.1:12000"]);
        let only = || {
            let balancer = Balancer::start(&["--etcd", &etcd.url(), "--listen", "127.0.0.1:12000"]);
            balancer.wait_ready();
            balancer
        };
        let mut first = only();
        let driver = Driver::start();
        let one = Backend::registered("one", &etcd.url(), "hello");
        let fallback = Backend::start("fallback");
        add_host("hello.lookaside.internal", "127.0.0.1");
        let target = format!("{}:{}", target("hello"), fallback.addr().port());
        let client = driver.open(&Options::grpclb(target));
        client.shares(&["one"]);
        first.kill();
        client.shares(&["one"]);
        one.stop();
        client.shares(&["fallback"]);
        let _again = only();
        let _two = Backend::registered("two", &etcd.url(), "hello");
        client.shares(&["two"]);
    });
}

/// If its SRV question gets no answer, Java gives its balancer up, and it asks DNS again
/// only when it loses a connection. lookaside cannot help a client whose DNS ends with
/// the last balancer; the test shows that the loss of a connection does.
#[test]
fn clients_that_fell_back_without_dns_return_when_they_ask_it_again() {
    isolated(|| {
        let etcd = Etcd::start();
        let mut first = balancer(&etcd, &[]);
        let driver = Driver::start();
        let one = Backend::registered("one", &etcd.url(), "hello");
        let fallback = Backend::start("fallback");
        add_host("hello.lookaside.internal", "127.0.0.1");
        let target = format!("{}:{}", target("hello"), fallback.addr().port());
        let client = driver.open(&Options::grpclb(target));
        client.shares(&["one"]);
        let grpclb = first.grpclb().to_string();
        first.kill();
        one.stop();
        client.shares(&["fallback"]);
        let _again = balancer(&etcd, &["--listen", &grpclb]);
        let _two = Backend::registered("two", &etcd.url(), "hello");
        fallback.stop();
        client.shares(&["two"]);
    });
}
