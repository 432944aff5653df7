//! Tests of services that are divided into cells, with real clients.
//!
//! In: settings and backends in etcd. Out: the backends that each client calls.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::backend::{Backend, PREFIX};
use crate::support::client::{Calls, Driver, Options};
use crate::support::etcd::Etcd;
use crate::support::eventually;
use crate::support::language::PYTHON;
use crate::support::lookaside::{Balancer, program};

const BACKENDS: usize = 40;
const CLIENTS: usize = 40;

#[test]
fn each_client_calls_a_cell_and_together_they_call_all() {
    let etcd = Etcd::start();
    let backends: Vec<Backend> = (0..BACKENDS).map(|n| Backend::start(&n.to_string())).collect();
    for (n, backend) in backends.iter().enumerate() {
        etcd.ctl(&["put", &format!("{PREFIX}hello/{n}"), &backend.addr().to_string()]);
    }
    let config = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(config.path(), "[service.hello]\nsubset = { mode = 'cells', least = 8 }\n")
        .expect("it is written");
    let path = config.path().to_str().expect("UTF-8");
    let balancer = Balancer::start(&["--etcd", &etcd.url(), "--config", path]);
    balancer.wait_ready();
    assert_eq!(balancer.metric(r#"lookaside_service_cells{service="hello"}"#), Some(4.0));

    let driver = Driver::start(&PYTHON);
    let open = |_| driver.open(&Options::grpclb(balancer.target("hello")));
    let clients: Vec<_> = (0..CLIENTS).map(open).collect();
    // All connect together: a service with few clients gives each of them several cells.
    let pending: Vec<_> = clients.iter().map(|one| one.begin(&Calls::waiting(60))).collect();
    let called: Vec<BTreeSet<String>> =
        pending.into_iter().map(|pending| pending.wait().answers.into_keys().collect()).collect();
    let mut callers: BTreeMap<&str, usize> = BTreeMap::new();
    for called in &called {
        assert!((5..=20).contains(&called.len()), "{called:?}");
        called.iter().for_each(|one| *callers.entry(one).or_default() += 1);
    }
    assert_eq!(callers.len(), BACKENDS, "each backend is called");
    assert!(callers.values().all(|callers| *callers <= 20), "{callers:?}");

    // The balancer shows what a client has.
    let (_, clients_json) = balancer.get("/api/v1/clients?service=hello");
    let parts: BTreeSet<_> = clients_json
        .match_indices("\"subset\":\"")
        .map(|(at, _)| clients_json[at + 10..].split('"').next().unwrap_or_default().to_owned())
        .collect();
    assert!(parts.contains("1/4") && parts.contains("4/4"), "{parts:?}");
    let admin = format!("http://{}", balancer.admin());
    let explained = std::process::Command::new(program())
        .args(["explain", "hello", "--client", "127.0.0.1", "--admin", &admin])
        .output()
        .expect("lookaside runs");
    let explained = String::from_utf8_lossy(&explained.stdout).into_owned();
    assert!(explained.contains("the client uses the part "), "{explained}");
    assert!(explained.contains(" alone"), "some backend is in another cell: {explained}");

    // Without the setting, every client calls all.
    std::fs::write(config.path(), "version = 1\n").expect("it is written");
    eventually("the service is whole", || {
        balancer.metric(r#"lookaside_service_cells{service="hello"}"#).is_none().then_some(())
    });
    clients[0].until("it calls all", &Calls::new(200), |report| report.answers.len() == BACKENDS);
}
