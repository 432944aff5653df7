//! Tests of Go clients that move between the balancer's lists and fallback.
//!
//! One lookaside only answers DNS: there, the name's own address is the fallback
//! server, and its SRV record leads to the balancer of the test.

use super::*;
use config::PICK_FIRST;

/// A DNS server with an address to fall back to.
struct Zone {
    dns: Balancer,
    /// The server at that address; the target has its port.
    fallback: Backend,
}

impl Zone {
    /// Starts a DNS server whose SRV records lead to this address.
    fn advertising(balancer: &str) -> Self {
        let dns = lone_balancer(&["--advertise", balancer]);
        let fallback = Backend::registered("fallback", &registry(&dns), "hello");
        dns.wait_listed("hello", "fallback");
        Self { dns, fallback }
    }

    fn open<'a>(&self, driver: &'a Driver, config: Option<&str>) -> Channel<'a> {
        let target = format!("{}:{}", self.dns.target("hello"), self.fallback.addr().port());
        driver.open(target, config)
    }
}

/// Returns a loopback address at which nothing listens, for a balancer to take.
pub(crate) fn nowhere() -> String {
    format!("127.0.0.1:{}", crate::support::free_port())
}

#[test]
fn the_balancers_word_sends_clients_to_fallback_and_lists_bring_them_back() {
    each_release(|driver| {
        for config in [GRPCLB, PICK_FIRST] {
            let balancer = lone_balancer(&["--when-empty", "fallback"]);
            let zone = Zone::advertising(&balancer.grpclb().to_string());
            // Fallback is the first message of a stream.
            let client = zone.open(driver, Some(config));
            client.shares(&["fallback"]);
            assert!(zone.fallback.tokens().iter().all(Option::is_none), "no list, no token");
            let one = Backend::registered("one", &registry(&balancer), "hello");
            client.shares(&["one"]);
            // Fallback is a later message.
            one.stop();
            client.shares(&["fallback"]);
            let two = Backend::registered("two", &registry(&balancer), "hello");
            client.shares(&["two"]);
            two.stop();
        }
    });
}

/// grpc-go waits ten seconds for a balancer that refuses its connections.
#[test]
fn a_client_that_finds_no_balancer_falls_back_and_returns_when_there_is_one() {
    each_release(|driver| {
        let address = nowhere();
        let zone = Zone::advertising(&address);
        let client = zone.open(driver, None);
        client.shares(&["fallback"]);
        let balancer = lone_balancer(&["--listen", &address]);
        let _one = Backend::registered("one", &registry(&balancer), "hello");
        client.shares(&["one"]);
    });
}

#[test]
fn a_client_that_finds_no_address_of_the_balancer_falls_back() {
    let zone = Zone::advertising("balancer.invalid:12000");
    each_release(|driver| zone.open(driver, None).shares(&["fallback"]));
}

#[test]
fn a_client_that_loses_balancer_and_backends_falls_back_and_returns() {
    each_release(|driver| {
        for balancer_first in [true, false] {
            let address = nowhere();
            let zone = Zone::advertising(&address);
            let mut balancer = lone_balancer(&["--listen", &address]);
            let one = Backend::registered("one", &registry(&balancer), "hello");
            let client = zone.open(driver, None);
            client.shares(&["one"]);
            if balancer_first {
                // Without a balancer, the client goes on with its backends.
                balancer.kill();
                client.shares(&["one"]);
                drop(one);
            } else {
                drop(one);
                balancer.kill();
            }
            client.shares(&["fallback"]);
            let balancer = lone_balancer(&["--listen", &address]);
            let _two = Backend::registered("two", &registry(&balancer), "hello");
            client.shares(&["two"]);
        }
    });
}
