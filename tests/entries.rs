//! Measures the processor time that a long list costs real clients, in every language
//! that has grpclb.
//!
//! A service has half as many backends as its list has entries, because their weights
//! are 3 and 1. One backend moves, again and again, and each time the client is sent
//! a whole list that differs in one backend. `cargo bench --bench entries` prints the
//! table of docs/clients.md. Names of languages as arguments measure only those.
#![allow(dead_code, missing_docs, unreachable_pub)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, Txn, TxnOp};
use support::backend::Backend;
use support::client::{Calls, Driver, Options};
use support::etcd::Etcd;
use support::eventually;
use support::language::Language;
use support::world::{SERVICE, World};

const ENTRIES: [usize; 4] = [100, 1_000, 2_000, 5_000];
/// The number of lists that are measured, after the first.
const LISTS: usize = 10;
/// etcd's limit for one transaction.
const AT_ONCE: usize = 128;

fn main() {
    support::raise_open_files();
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let etcd = Arc::new(Etcd::start());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let headings = ENTRIES.map(|entries| format!("{entries} entries")).join(" | ");
    println!("| processor time per list | {headings} |\n|---|{}", "---|".repeat(ENTRIES.len()));
    for language in Language::all() {
        if !(wanted.is_empty() || wanted.iter().any(|name| name == language.name)) {
            continue;
        }
        if let Some(obstacle) = language.obstacle() {
            println!("| {} | not here: {obstacle} |", language.name);
            continue;
        }
        let mut cells = Vec::new();
        let mut version = String::new();
        for entries in ENTRIES {
            let world = World::new(etcd.clone(), &language);
            let (name, cost) = measure(&world, entries, &runtime, &etcd.url());
            version = name;
            cells.push(format!("{:.1} ms", cost.as_secs_f64() * 1_000.0));
        }
        println!("| {version} | {} |", cells.join(" | "));
    }
}

fn measure(
    world: &World,
    entries: usize,
    runtime: &tokio::runtime::Runtime,
    etcd: &str,
) -> (String, Duration) {
    let balancer = world.balancer(&[]);
    let backends = Backend::everywhere();
    let port = backends.addr().port();
    let put = |instance: usize, host: String| {
        let weight = if instance.is_multiple_of(2) { 3 } else { 1 };
        let value =
            format!(r#"{{"Op":0,"Addr":"{host}:{port}","Metadata":{{"weight":{weight}}}}}"#);
        TxnOp::put(format!("{}{SERVICE}/{instance:05}", world.prefix()), value, None)
    };
    let write = |puts: Vec<TxnOp>| {
        runtime.block_on(async {
            let mut client = Client::connect([etcd], None).await.expect("etcd answers");
            for some in puts.chunks(AT_ONCE) {
                client.txn(Txn::new().and_then(some)).await.expect("etcd takes it");
            }
        });
    };
    let host = |instance: usize| format!("127.100.{}.{}", instance / 250, instance % 250 + 1);
    write((0..entries / 2).map(|instance| put(instance, host(instance))).collect());
    let driver = world.driver();
    let client = driver.open(&Options::grpclb(world.target(&balancer)));
    eventually("the client has the whole list", || {
        client.call(&Calls::waiting(1));
        let (_, clients) = balancer.get("/api/v1/clients");
        clients.contains(&format!("\"entries\":{entries}")).then_some(())
    });
    let before = settled(&driver);
    for list in 0..LISTS {
        let sent = balancer.metric("lookaside_lists_sent_total");
        write(vec![put(0, format!("127.99.0.{}", list + 1))]);
        eventually("the list is sent", || {
            (balancer.metric("lookaside_lists_sent_total") > sent).then_some(())
        });
        // C-core reads a received list when there is a call.
        client.call(&Calls::waiting(1));
        // The next list must not overtake this one.
        settled(&driver);
    }
    let cost = settled(&driver) - before;
    (driver.version(), cost / u32::try_from(LISTS).expect("few"))
}

/// Returns the processor time that a client has used, once it is idle.
fn settled(driver: &Driver) -> Duration {
    let mut last = driver.cpu();
    loop {
        std::thread::sleep(Duration::from_millis(150));
        let now = driver.cpu();
        // Timers of an idle client go on ticking.
        if now - last <= Duration::from_millis(10) {
            return now;
        }
        last = now;
    }
}
