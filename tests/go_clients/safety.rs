//! Situations in which grpc-go is known to crash, hang or storm. Each test passes
//! only because of a rule that the balancer keeps.

use super::*;
use crate::support::dns;
use std::time::Instant;

/// Starts a balancer again at the addresses of the former one.
fn again(etcd: &Etcd, before: &Balancer) -> Balancer {
    let (grpclb, dns) = (before.grpclb().to_string(), before.dns().to_string());
    Balancer::start(&[
        "--etcd",
        &etcd.url(),
        "--listen",
        &grpclb,
        "--dns-listen",
        &dns,
        "--report-interval",
        "1s",
    ])
}

#[test]
fn of_two_balancers_one_may_go_and_no_call_fails() {
    each_release(|driver| {
        let etcd = Etcd::start();
        // Only balancers that advertise an address appear in each other's DNS.
        let start = || {
            let address = fallback::nowhere();
            let flags = ["--etcd", &etcd.url(), "--listen", &address, "--advertise", &address];
            let balancer = Balancer::start(&flags);
            balancer.wait_ready();
            balancer
        };
        let mut balancers = [start(), start()];
        let one = Backend::registered("one", &etcd.url(), "hello");
        let _two = Backend::registered("two", &etcd.url(), "hello");
        for balancer in &balancers {
            eventually("each knows both", || (known_balancers(balancer) == 2).then_some(()));
        }
        let client = driver.open(balancers[0].target("hello"), None);
        client.shares(&["one", "two"]);
        client.start(&Calls::new(1).every(Duration::from_millis(5)));
        let holds = |balancer: &Balancer| balancer.get("/api/v1/clients").1.contains("grpc-go");
        let (holder, other) = if holds(&balancers[0]) { (0, 1) } else { (1, 0) };
        balancers[holder].kill();
        eventually("the client has gone to the other", || holds(&balancers[other]).then_some(()));
        let meanwhile = client.stop();
        assert_eq!(meanwhile.failed(), 0, "{meanwhile:?}");
        one.stop();
        client.shares(&["two"]);
    });
}

/// grpc-go panics, which ends its process, if it has a stream without a list while
/// all its backends go and one returns. So a balancer that has no list yet refuses
/// the stream.
#[test]
fn all_backends_may_bounce_while_the_balancer_has_read_nothing() {
    each_release(|driver| {
        let mut etcd = Etcd::start();
        let mut first = balancer(&etcd);
        let start = |id| Backend::registered(id, &etcd.url(), "hello");
        let (one, two) = (start("one"), start("two"));
        let client = driver.open(first.target("hello"), None);
        client.shares(&["one", "two"]);

        etcd.freeze();
        first.kill();
        let second = again(&etcd, &first);
        eventually("the client has asked it", || {
            let asked = ["lookaside_streams_refused_total", "lookaside_streams_opened_total"];
            (asked.iter().map(|name| metric(&second, name)).sum::<u64>() > 0).then_some(())
        });
        client.start(&Calls::new(1).every(Duration::from_millis(1)));
        let addresses = [one.addr(), two.addr()];
        drop((one, two));
        eventually("calls fail", || {
            let report = client.call(&Calls::new(1));
            (report.failed() == 1).then_some(())
        });
        let returned = ["one", "two"].into_iter().zip(addresses);
        let returned: Vec<_> = returned.map(|(id, addr)| Backend::start_at(id, addr)).collect();
        // The process must live; the result of the call does not matter.
        let report = client.call(&Calls::waiting(1).timeout(Duration::from_secs(5)));
        assert_eq!(report.succeeded() + report.failed(), 1, "it is still there");

        etcd.thaw();
        second.wait_ready();
        client.stop();
        drop(returned);
        etcd.restart_empty();
        let three = Backend::registered("three", &etcd.url(), "hello");
        client.shares(&["three"]);
        three.stop();
    });
}

/// A client tries a stream that ends before its initial response again after 1 s, then
/// ever later; one that ends after it, at once and for ever. The test bounds only the
/// number within a fixed span: a slow machine makes that number smaller.
#[test]
fn a_refused_client_comes_back_later_and_later() {
    const SPAN: Duration = Duration::from_secs(4);
    each_release(|driver| {
        let etcd = Etcd::start();
        etcd.freeze();
        let balancer = Balancer::start(&["--etcd", &etcd.url()]);
        let client = driver.open(balancer.target("hello"), Some(GRPCLB));
        client.start(&Calls::new(1).every(Duration::from_millis(100)));
        let streams = || {
            metric(&balancer, "lookaside_streams_refused_total")
                + metric(&balancer, "lookaside_streams_opened_total")
        };
        eventually("the client is refused", || (streams() > 0).then_some(()));
        let begun = Instant::now();
        eventually("the span is over", || (begun.elapsed() > SPAN).then_some(()));
        assert!(streams() <= 4, "{} streams", streams());
        client.stop();
        // The client is not lost: it gets its list with the next try.
        etcd.thaw();
        balancer.wait_ready();
        let one = Backend::registered("one", &etcd.url(), "hello");
        client.shares(&["one"]);
        one.stop();
    });
}

/// A client leaves out reports of zero after the first. Reports are due every second
/// or little later.
#[test]
fn an_idle_client_reports_nothing_twice() {
    const SPAN: Duration = Duration::from_secs(4);
    each_release(|driver| {
        let balancer = lone_balancer(&[]);
        let _one = Backend::registered("one", &registry(&balancer), "hello");
        let client = driver.open(balancer.target("hello"), None);
        assert_eq!(client.call(&Calls::waiting(7)).succeeded(), 7);
        let reports = || metric(&balancer, "lookaside_reports_total");
        let finished = "lookaside_client_calls_finished_total{service=\"hello\"}";
        eventually("its calls are reported", || (metric(&balancer, finished) == 7).then_some(()));
        let (before, begun) = (reports(), Instant::now());
        eventually("the span is over", || (begun.elapsed() > SPAN).then_some(()));
        assert!(reports() <= before + 1, "{before} reports, then {}", reports());
    });
}

/// Calls to a listed backend that has stopped fail with the true reason.
#[test]
fn calls_to_a_backend_that_is_gone_fail_at_once() {
    each_release(|driver| {
        let balancer = lone_balancer(&[]);
        let one = Backend::registered("one", &registry(&balancer), "hello");
        let client = driver.open(balancer.target("hello"), None);
        client.shares(&["one"]);
        drop(one);
        eventually("calls fail at once", || {
            let report = client.call(&Calls::new(1));
            let error = report.errors.keys().next()?.clone();
            assert!(error.starts_with("UNAVAILABLE"), "{error}");
            // Old releases do not give the reason.
            let says = driver.version().contains("1.33") || error.contains("connection refused");
            says.then_some(())
        });
    });
}

/// Returns the number of balancers that a balancer's DNS names.
fn known_balancers(balancer: &Balancer) -> usize {
    dns::srv_records(balancer.dns(), "_grpclb._tcp.hello.lookaside.internal").unwrap_or(0)
}
