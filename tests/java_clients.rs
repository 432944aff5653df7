//! The main job, seen by unmodified Java clients (grpc-java): real etcd, real
//! DNS, the real program, and a network of its own for each test, for Java
//! asks the system's resolver and nobody else.

#[path = "java_clients/empty.rs"]
mod empty;
#[path = "java_clients/examples.rs"]
mod examples;
#[path = "java_clients/safety.rs"]
mod safety;

use std::time::Duration;

use crate::support::backend::Backend;
use crate::support::client::Calls;
use crate::support::etcd::Etcd;
use crate::support::eventually;
use crate::support::java::{Channel, Driver, Options, isolated};
use crate::support::lookaside::Balancer;
use lookaside::model::Weight;

/// The config that selects grpclb with a child policy that is not the usual.
const PICK_FIRST: &str =
    r#"{"loadBalancingConfig":[{"grpclb":{"childPolicy":[{"pick_first":{}}]}}]}"#;

/// A balancer whose DNS the whole namespace uses.
fn unready_balancer(args: &[&str]) -> Balancer {
    let usual = ["--dns-listen", "127.0.0.1:53", "--report-interval", "1s"];
    Balancer::start(&[&usual, args].concat())
}

fn balancer(etcd: &Etcd, args: &[&str]) -> Balancer {
    let balancer = unready_balancer(&[&["--etcd", &etcd.url()], args].concat());
    balancer.wait_ready();
    balancer
}

fn target(service: &str) -> String {
    format!("dns:///{service}.lookaside.internal")
}

/// What a metric says, summed up over its labels. Gauges have a fraction.
fn metric(balancer: &Balancer, name: &str) -> u64 {
    let (_, metrics) = balancer.get("/metrics");
    let lines = metrics.lines().filter_map(|line| line.strip_prefix(name));
    lines.filter_map(|rest| rest.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>() as u64
}

/// That calls which do not wait fail now, as they do where nothing is ready.
#[track_caller]
fn fails_fast(channel: &Channel<'_>) {
    let calls = Calls::new(1).timeout(Duration::from_secs(60));
    eventually("calls that do not wait fail UNAVAILABLE", || {
        let report = channel.call(&calls);
        assert!(report.errors.keys().all(|e| e.starts_with("UNAVAILABLE")), "{report:?}");
        (report.failed() == 1).then_some(())
    });
}

/// The six steps in which such a system has always been tried by hand.
fn six_steps(options: &Options) {
    let mut etcd = Etcd::start();
    let balancer = balancer(&etcd, &[]);
    let driver = Driver::start();
    let start = |id, url: &str| Backend::registered(id, url, "hello-service");

    // 1. Three servers get equal shares.
    let (s1, s2, s3) =
        (start("s1", &etcd.url()), start("s2", &etcd.url()), start("s3", &etcd.url()));
    let client = driver.open(options);
    client.shares(&["s1", "s2", "s3"]);

    // 2. One stops, and no call is lost on the way.
    client.start(&Calls::new(1).every(Duration::from_millis(5)));
    let addr = s1.stop();
    eventually("s1 is listed no longer", || {
        let (_, services) = balancer.get("/api/v1/services/hello-service");
        (!services.contains("\"s1\"")).then_some(())
    });
    let meanwhile = client.stop();
    assert_eq!(meanwhile.failed(), 0, "{meanwhile:?}");
    client.shares(&["s2", "s3"]);

    // 3. It returns and shares again.
    let mut s1 = Backend::start_at("s1", addr);
    s1.register(&etcd.url(), "hello-service");
    client.shares(&["s1", "s2", "s3"]);

    // 4. etcd stops: calls go on, for new clients too.
    etcd.kill();
    eventually("the balancer notices", || {
        (metric(&balancer, "lookaside_registry_stale") == 1).then_some(())
    });
    client.shares(&["s1", "s2", "s3"]);
    driver.open(options).shares(&["s1", "s2", "s3"]);

    // 5. etcd returns: servers come and go again.
    etcd.restart();
    let s4 = start("s4", &etcd.url());
    client.shares(&["s1", "s2", "s3", "s4"]);
    s4.stop();
    client.shares(&["s1", "s2", "s3"]);

    // 6. All stop: calls that wait do so, and go through when one returns.
    s1.stop();
    s2.stop();
    s3.stop();
    fails_fast(&client);
    let waiting = client.begin(&Calls::waiting(1).timeout(Duration::from_secs(60)));
    let newcomer = driver.open(options);
    let waiting_too = newcomer.begin(&Calls::waiting(1).timeout(Duration::from_secs(60)));
    let s5 = start("s5", &etcd.url());
    assert_eq!(waiting.wait().from("s5"), 1);
    assert_eq!(waiting_too.wait().from("s5"), 1);
    s5.stop();
}

#[test]
fn the_six_steps_with_the_client_naming_grpclb() {
    isolated(|| six_steps(&Options::grpclb(target("hello-service"))));
}

#[test]
fn the_six_steps_with_dns_naming_grpclb() {
    isolated(|| six_steps(&Options::txt(target("hello-service"))));
}

#[test]
fn a_client_that_came_first_is_served_when_servers_come() {
    isolated(|| {
        let etcd = Etcd::start();
        let balancer = balancer(&etcd, &[]);
        let driver = Driver::start();
        let client = driver.open(&Options::grpclb(target("game.dev")));
        fails_fast(&client);
        let waiting = client.begin(&Calls::waiting(1).timeout(Duration::from_secs(60)));
        let _one = Backend::registered("1", &etcd.url(), "dev/game");
        assert_eq!(waiting.wait().from("1"), 1);
        let two = Backend::registered("2", &etcd.url(), "dev/game");
        client.shares(&["1", "2"]);
        // One instance by its name.
        let only_two = driver.open(&Options::grpclb(target("id--2.game.dev")));
        only_two.shares(&["2"]);
        assert_eq!(metric(&balancer, "lookaside_streams_opened_total"), 2);
        two.stop();
    });
}

#[test]
fn backends_see_tokens_and_the_balancer_counts_calls() {
    isolated(|| {
        let etcd = Etcd::start();
        let balancer = balancer(&etcd, &[]);
        let driver = Driver::start();
        let one = Backend::registered("one", &etcd.url(), "hello");
        let client = driver.open(&Options::grpclb(target("hello")));
        assert_eq!(client.call(&Calls::waiting(50)).from("one"), 50);
        let (_, service) = balancer.get("/api/v1/services/hello");
        for token in one.tokens() {
            let token = token.expect("every call carries a token");
            let (backend, _) = token.split_once('~').unwrap_or((&token, ""));
            assert!(token.len() < 50 && service.contains(backend), "{token} {service}");
        }
        eventually("the calls are reported", || {
            let finished = metric(&balancer, "lookaside_client_calls_finished_total");
            assert!(finished <= 50, "no call is reported twice: {finished}");
            (finished == 50).then_some(())
        });
        // Java reports even when there is nothing new: that changes nothing.
        let reports = metric(&balancer, "lookaside_reports_total");
        eventually("reports of nothing come", || {
            (metric(&balancer, "lookaside_reports_total") >= reports + 2).then_some(())
        });
        assert_eq!(metric(&balancer, "lookaside_client_calls_finished_total"), 50);
        assert_eq!(metric(&balancer, "lookaside_reports_rejected_total"), 0);
        let (_, clients) = balancer.get("/api/v1/clients");
        assert!(clients.contains("grpc-java"), "{clients}");
    });
}

#[test]
fn weights_are_exact_shares() {
    isolated(|| {
        let etcd = Etcd::start();
        let _balancer = balancer(&etcd, &[]);
        let driver = Driver::start();
        let (mut heavy, mut light, mut none) =
            (Backend::start("heavy"), Backend::start("light"), Backend::start("none"));
        heavy.register_with(&etcd.url(), "hello", Weight(30));
        light.register_with(&etcd.url(), "hello", Weight(10));
        none.register_with(&etcd.url(), "hello", Weight(0));
        let client = driver.open(&Options::grpclb(target("hello")));
        client.call(&Calls::waiting(1));
        let report = eventually("both are in use", || {
            let report = client.call(&Calls::new(400));
            (report.from("light") == 100).then_some(report)
        });
        assert_eq!((report.from("heavy"), report.from("none")), (300, 0));
    });
}

/// grpc-java begins each new list at its first entry. So where lists come more
/// often than calls, a list that always began at the same place would have all
/// calls go to one backend.
#[test]
fn a_client_that_gets_lists_more_often_than_it_calls_spreads_its_calls() {
    const CALLS: u64 = 120;
    isolated(|| {
        let etcd = Etcd::start();
        let balancer = balancer(&etcd, &[]);
        let driver = Driver::start();
        let backend = |n: usize| Backend::registered(&format!("b{n}"), &etcd.url(), "hello");
        let _backends: Vec<_> = (0..20).map(backend).collect();
        // One more that moves to and fro: each list is as long as the one before.
        let places = ["here", "there"].map(Backend::start);
        let client = driver.open(&Options::grpclb(target("hello")));
        client.call(&Calls::waiting(1));
        let mut answers = std::collections::BTreeMap::new();
        for _ in 0..CALLS {
            for place in &places {
                let sent = metric(&balancer, "lookaside_lists_sent_total");
                etcd.ctl(&["put", "/etcd3_naming/hello/mover", &place.addr().to_string()]);
                eventually("the list is sent", || {
                    (metric(&balancer, "lookaside_lists_sent_total") > sent).then_some(())
                });
            }
            for (id, count) in client.call(&Calls::waiting(1)).answers {
                *answers.entry(id).or_insert(0) += count;
            }
        }
        // Evenly they would be 5 or 6 each.
        let most = answers.values().max().copied().unwrap_or(0);
        assert!(most <= CALLS / 8 && answers.len() >= 15, "{answers:?}");
    });
}

#[test]
fn a_name_means_the_same_with_port_or_dot_and_in_any_case() {
    isolated(|| {
        let etcd = Etcd::start();
        let _balancer = balancer(&etcd, &[]);
        let driver = Driver::start();
        let _one = Backend::registered("one", &etcd.url(), "hello");
        for end in ["", ":50051", ".", ".:50051"] {
            for name in ["hello.lookaside.internal", "Hello.LookAside.INTERNAL"] {
                let client = driver.open(&Options::grpclb(format!("dns:///{name}{end}")));
                let report = client.call(&Calls::waiting(3));
                assert_eq!(report.from("one"), 3, "{name}{end}: {report:?}");
            }
        }
        // A name without a scheme is DNS's.
        let client = driver.open(&Options::grpclb("hello.lookaside.internal"));
        assert_eq!(client.call(&Calls::waiting(1)).from("one"), 1);
    });
}

/// Java refuses `_` in a target: "Invalid DNS name". Its config can name the
/// service all the same.
#[test]
fn a_service_whose_name_java_refuses_is_named_by_its_config() {
    isolated(|| {
        let etcd = Etcd::start();
        let _balancer = balancer(&etcd, &[]);
        let driver = Driver::start();
        let _one = Backend::registered("one", &etcd.url(), "hello_service");
        let config = r#"{"loadBalancingConfig":[{"grpclb":{"serviceName":"hello_service"}}]}"#;
        let client = driver.open(&Options::config(target("hello-service"), config));
        client.shares(&["one"]);
    });
}

#[test]
fn pick_first_clients_spread_over_the_backends() {
    isolated(|| {
        let etcd = Etcd::start();
        let _balancer = balancer(&etcd, &[]);
        let driver = Driver::start();
        let ids = ["one", "two", "three"];
        let _backends = ids.map(|id| Backend::registered(id, &etcd.url(), "hello"));
        // By chance, all would choose the same one once in 10,000,000,000 runs.
        let mut chosen = std::collections::BTreeSet::new();
        for _ in 0..22 {
            let client = driver.open(&Options::config(target("hello"), PICK_FIRST));
            let report = client.call(&Calls::waiting(5));
            assert_eq!((report.answers.len(), report.succeeded()), (1, 5), "{report:?}");
            chosen.extend(report.answers.into_keys());
        }
        assert!(chosen.len() > 1, "{chosen:?}");
    });
}

#[test]
fn a_balancer_that_returns_finds_its_clients_again_and_no_call_fails() {
    isolated(|| {
        let etcd = Etcd::start();
        let mut first = balancer(&etcd, &[]);
        let driver = Driver::start();
        let _one = Backend::registered("one", &etcd.url(), "hello");
        let two = Backend::registered("two", &etcd.url(), "hello");
        let client = driver.open(&Options::grpclb(target("hello")));
        client.shares(&["one", "two"]);
        client.start(&Calls::new(1).every(Duration::from_millis(5)));
        let grpclb = first.grpclb().to_string();
        first.kill();
        let again = balancer(&etcd, &["--listen", &grpclb]);
        eventually("the client is back", || {
            (metric(&again, "lookaside_streams_open{client_kind=\"java\"}") == 1).then_some(())
        });
        let meanwhile = client.stop();
        assert_eq!(meanwhile.failed(), 0, "{meanwhile:?}");
        two.stop();
        client.shares(&["one"]);
        // Its reports count on the new stream.
        let counted = metric(&again, "lookaside_client_calls_finished_total");
        client.call(&Calls::new(20));
        eventually("calls are reported again", || {
            let now = metric(&again, "lookaside_client_calls_finished_total");
            (now >= counted + 20).then_some(())
        });
        assert_eq!(metric(&again, "lookaside_streams_opened_total"), 1);
    });
}
