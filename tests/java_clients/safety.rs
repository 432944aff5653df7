//! Known faults of grpc-java that lookaside avoids: nothing that would make its channel
//! panic, or ask in a loop, reaches it.

use std::time::Duration;

use crate::java_clients::{balancer, eventually, metric, target, unready_balancer};
use crate::support::backend::Backend;
use crate::support::client::Calls;
use crate::support::etcd::Etcd;
use crate::support::java::{Driver, Options, isolated};

/// A port above 65535 or below 0 makes Java's channel panic: every call fails with
/// INTERNAL, for ever. Java accepts port 0 and never connects.
#[test]
fn ports_that_make_a_channel_panic_never_reach_it() {
    isolated(|| {
        let etcd = Etcd::start();
        let balancer = balancer(&etcd, &[]);
        let driver = Driver::start();
        let _one = Backend::registered("one", &etcd.url(), "hello");
        let client = driver.open(&Options::grpclb(target("hello")));
        client.shares(&["one"]);
        client.start(&Calls::new(1).every(Duration::from_millis(5)));
        let ports = ["0", "65536", "500053", "-1", "2147483648", "99999999999999999999"];
        for port in ports {
            let addr = format!("127.0.0.1:{port}");
            let values = [
                addr.clone(),
                format!("{{\"Op\":0,\"Addr\":\"{addr}\"}}"),
                format!("{{\"addr\":\"{addr}\",\"metadata\":null}}"),
                format!("{{\"host\":\"127.0.0.1\",\"port\":{port}}}"),
            ];
            for (format, value) in values.iter().enumerate() {
                let key = format!("/etcd3_naming/hello/bad{port}-{format}");
                // etcdctl would take some values for flags.
                etcd.ctl(&["put", "--", &key, value]);
            }
            // Here the key itself is the address.
            etcd.ctl(&["put", "--", &format!("/etcd3_naming/hello/127.0.0.2:{port}"), ""]);
        }
        // A later registration arrives, so the bad ones would have arrived too.
        let _two = Backend::registered("two", &etcd.url(), "hello");
        driver.open(&Options::grpclb(target("hello"))).shares(&["one", "two"]);
        let meanwhile = client.stop();
        assert_eq!(meanwhile.failed(), 0, "{meanwhile:?}");
        client.shares(&["one", "two"]);
        let rejected = metric(&balancer, "lookaside_registry_rejected_keys");
        assert_eq!(rejected, ports.len() as u64 * 5);
    });
}

/// An address that does not have 4 or 16 bytes fails calls for a moment.
#[test]
fn addresses_of_both_families_are_used_and_no_others_reach_a_client() {
    isolated(|| {
        let etcd = Etcd::start();
        let balancer = balancer(&etcd, &[]);
        let driver = Driver::start();
        let mut v6 = Backend::start_at("v6", "[::1]:0".parse().unwrap());
        v6.register(&etcd.url(), "hello");
        let client = driver.open(&Options::grpclb(target("hello")));
        client.shares(&["v6"]);
        client.start(&Calls::new(1).every(Duration::from_millis(5)));
        let addresses = ["256.0.0.1:80", "127.0.0.1.1:80", "[::1::]:80", "[fe80::1%lo]:80", ":80"];
        for (number, address) in addresses.iter().enumerate() {
            etcd.ctl(&["put", "--", &format!("/etcd3_naming/hello/bad{number}"), address]);
        }
        let mapped = Backend::start("mapped");
        let value = format!("[::ffff:127.0.0.1]:{}", mapped.addr().port());
        etcd.ctl(&["put", "/etcd3_naming/hello/mapped", &value]);
        driver.open(&Options::grpclb(target("hello"))).shares(&["v6", "mapped"]);
        let meanwhile = client.stop();
        assert_eq!(meanwhile.failed(), 0, "{meanwhile:?}");
        let rejected = metric(&balancer, "lookaside_registry_rejected_keys");
        assert_eq!(rejected, addresses.len() as u64);
    });
}

/// Java opens a stream that fails after its initial response again at once, 400 times
/// a second and for ever; one that is refused before it, after 1 s, then 1.6 s, ….
#[test]
fn a_refused_client_asks_again_later_and_is_served() {
    isolated(|| {
        let mut etcd = Etcd::start();
        etcd.kill();
        // The balancer has read nothing, so it has no list to send.
        let balancer = unready_balancer(&["--etcd", &etcd.url()]);
        let driver = Driver::start();
        let client = driver.open(&Options::grpclb(target("hello")));
        let streams = || {
            metric(&balancer, "lookaside_streams_refused_total")
                + metric(&balancer, "lookaside_streams_opened_total")
        };
        eventually("it has asked", || {
            client.call(&Calls::new(1));
            (streams() >= 1).then_some(())
        });
        // This takes at least two seconds, in which a loop would open hundreds of streams.
        let calls = Calls::new(400).every(Duration::from_millis(5));
        let report = client.call(&calls);
        assert!(report.errors.keys().all(|e| e.starts_with("UNAVAILABLE")), "{report:?}");
        let asked = streams();
        assert!(asked <= 20, "{asked} streams");
        assert_eq!(metric(&balancer, "lookaside_streams_opened_total"), 0);
        etcd.restart();
        let _one = Backend::registered("one", &etcd.url(), "hello");
        client.shares(&["one"]);
    });
}

/// Every change goes over the one open stream, and clients do not ask in a loop when
/// the balancer is terminated.
#[test]
fn changes_and_a_balancer_that_ends_open_no_further_streams() {
    isolated(|| {
        let etcd = Etcd::start();
        let mut first = balancer(&etcd, &[]);
        let driver = Driver::start();
        let _one = Backend::registered("one", &etcd.url(), "hello");
        let client = driver.open(&Options::grpclb(target("hello")));
        for _ in 0..5 {
            let two = Backend::registered("two", &etcd.url(), "hello");
            client.shares(&["one", "two"]);
            two.stop();
            client.shares(&["one"]);
        }
        assert_eq!(metric(&first, "lookaside_streams_opened_total"), 1);
        client.start(&Calls::new(1).every(Duration::from_millis(5)));
        let grpclb = first.grpclb().to_string();
        first.terminate();
        let again = balancer(&etcd, &["--listen", &grpclb]);
        eventually("the client is back", || {
            (metric(&again, "lookaside_streams_open{client_kind=\"java\"}") == 1).then_some(())
        });
        let meanwhile = client.stop();
        assert_eq!(meanwhile.failed(), 0, "{meanwhile:?}");
        assert_eq!(metric(&again, "lookaside_streams_opened_total"), 1);
    });
}
