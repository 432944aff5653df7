//! Recipes of traffic policy that a real client shows: its calls are counted.

use std::time::Duration;

use tonic::transport::Identity;

use super::page::Block;
use super::world::{World, same};
use crate::support::backend::{Backend, PREFIX};
use crate::support::client::{Calls, Driver, Options};
use crate::support::eventually;
use crate::support::language::PYTHON;

/// Clients without a report each second would need minutes to show some of the recipes.
const SERVE: &str = "lookaside serve --etcd http://10.0.0.1:2379 --dns-listen 0.0.0.0:5300";
const ALL: [&str; 3] = ["i-8", "i-9", "i-10"];

/// Returns the options of a client that asks the balancer at `address`, and whose fallback is
/// port 50051.
fn asks(address: &str, name: &str) -> Options {
    Options::grpclb(format!("dns://{address}:5300/{name}.lookaside.internal:50051"))
}

/// Starts a backend at 10.0.0.N:50051 and registers it, with the id `i-N`.
fn backend(world: &mut World, service: &str, n: u8, metadata: &str) {
    let id = format!("i-{n}");
    let address = format!("10.0.0.{n}:50051");
    world.backends.push(Backend::start_at(&id, address.parse().expect("an address")));
    let value = format!(r#"{{"Op":0,"Addr":"{address}","Metadata":{metadata}}}"#);
    world.etcd().ctl(&["put", &format!("{PREFIX}{service}/{id}"), &value]);
}

/// Writes the document with the name in its first line.
pub(super) fn document(world: &mut World, block: &Block) {
    let name = block.text.lines().next().and_then(|line| line.strip_prefix("# "));
    world.write(name.expect("a comment with a name"), &block.text);
}

/// Runs a command of a block, in the documented words.
#[track_caller]
fn run(world: &World, block: &Block, at: usize) {
    let command = &block.commands()[at];
    let (code, shown) = world.terminal(&command.text);
    assert_eq!(code, Some(0), "{shown}");
    same(&block.at(), &command.output, &shown);
}

/// Drains a backend under the load of a client and lists it again. No call fails.
pub(super) fn drain(world: &mut World, block: &Block) {
    world.etcd();
    for n in [8, 9, 10] {
        backend(world, "hello", n, "{}");
    }
    world.serve(&format!("{SERVE} --report-interval 1s"));
    world.shows("/api/v1/services/hello", "10.0.0.10:50051");
    let driver = Driver::start(&PYTHON);
    let [client, other] = [0, 1].map(|_| driver.open(&asks("127.0.0.1", "hello")));
    client.shares(&ALL);
    client.start(&Calls::new(1).every(Duration::from_millis(2)));
    run(world, block, 0);
    other.shares(&["i-8", "i-10"]);
    let report = client.stop();
    assert_eq!(report.failed(), 0, "{report:?}");
    client.shares(&["i-8", "i-10"]);
    run(world, block, 1);
    client.shares(&ALL);
}

/// Sheds a part of the calls where [`drain`] left a balancer, and then none.
pub(super) fn shed(world: &mut World, block: &Block) {
    let driver = Driver::start(&PYTHON);
    let clients = [0, 1, 2].map(|_| driver.open(&asks("127.0.0.1", "hello")));
    for client in &clients {
        client.shares(&ALL);
    }
    run(world, block, 0);
    for client in &clients {
        client.until("30 of 100 calls are dropped", &Calls::new(100), |report| {
            report.failed() == 30 && report.errors.keys().all(|e| e.starts_with("UNAVAILABLE"))
        });
    }
    run(world, block, 1);
    for client in &clients {
        client.shares(&ALL);
    }
}

/// Sends clients to DNS where [`drain`] left a balancer, and back. Calls have a token only if
/// they follow a list.
pub(super) fn fallback(world: &mut World, block: &Block) {
    let world: &World = world;
    let driver = Driver::start(&PYTHON);
    let clients = [0, 1, 2].map(|_| driver.open(&asks("127.0.0.1", "hello")));
    for client in &clients {
        client.shares(&ALL);
    }
    run(world, block, 0);
    let last = |world: &World| -> Vec<bool> {
        let of = |backend: &Backend| backend.tokens().last().is_some_and(Option::is_some);
        world.backends.iter().map(of).collect()
    };
    for client in &clients {
        client.until("all backends are called without tokens", &Calls::new(9), |report| {
            report.failed() == 0 && last(world) == [false; 3]
        });
    }
    run(world, block, 1);
    for client in &clients {
        client.until("calls follow the list", &Calls::new(9), |report| {
            report.failed() == 0 && last(world) == [true; 3]
        });
    }
}

/// Finds the backend of a key where [`drain`] left a balancer. Clients that ask for the key
/// call it alone.
pub(super) fn key(world: &mut World, block: &Block) {
    let [explain] = &block.commands()[..] else { panic!("{}: one command", block.at()) };
    let name = explain.text.rsplit(' ').next().expect("a name");
    let shown = world.ok(&explain.text);
    let owns = |id: &&str| shown.lines().any(|line| line.contains(id) && line.contains("100.00 %"));
    let owners: Vec<&str> = ALL.into_iter().filter(owns).collect();
    assert_eq!(owners.len(), 1, "{shown}");
    let driver = Driver::start(&PYTHON);
    for _ in 0..2 {
        driver.open(&asks("127.0.0.1", name)).shares(&owners);
    }
}

/// Applies the document. Clients of both networks then call the backends of their own zone.
/// They reach the balancer at an address of their network, so they have that address too.
pub(super) fn zones(world: &mut World, block: &Block) {
    world.ok("for n in 1 2; do ip addr add 10.$n.0.7/32 dev lo; done");
    world.etcd();
    for (n, zone) in [(3, "eu-west-1a"), (4, "a"), (5, "a"), (6, "b"), (7, "b"), (8, "b")] {
        backend(world, "hello", n, &format!(r#"{{"zone":"{zone}"}}"#));
    }
    // Without reports, clients count, and not their calls.
    world.serve(&format!("{SERVE} --report-interval 0s"));
    world.shows("/api/v1/services/hello", "10.0.0.8:50051");
    let driver = Driver::start(&PYTHON);
    let [here, there] = ["10.1.0.7", "10.2.0.7"].map(|ip| driver.open(&asks(ip, "hello")));
    let all = ["i-3", "i-4", "i-5", "i-6", "i-7", "i-8"];
    here.shares(&all);
    there.shares(&all);
    run(world, block, 0);
    here.shares(&all[..3]);
    there.shares(&all[3..]);
    let [_, explain] = &block.commands()[..] else { panic!("{}: two commands", block.at()) };
    let shown = world.ok(&explain.text);
    let listed = |id: &str| shown.lines().any(|line| line.contains(id) && line.contains(" yes "));
    assert_eq!(all.map(listed), [true, true, true, false, false, false], "{shown}");
}

/// Applies the document. The client then calls a backend that is half as busy twice as often.
pub(super) fn load(world: &mut World, block: &Block) {
    world.etcd();
    for (n, utilisation) in [(7, 0.9), (8, 0.45)] {
        backend(world, "hello", n, "{}");
        world.backends.last().expect("one was added").set_load(100.0, utilisation);
    }
    world.serve(&format!("{SERVE} --report-interval 1s"));
    world.shows("/api/v1/services/hello", "10.0.0.8:50051");
    let driver = Driver::start(&PYTHON);
    let client = driver.open(&asks("127.0.0.1", "hello"));
    client.shares(&["i-7", "i-8"]);
    run(world, block, 0);
    client.until("the busy backend gets a third", &Calls::new(90), |report| {
        report.failed() == 0 && (27..=33).contains(&report.from("i-7"))
    });
}

/// Applies the document where [`load`] left a balancer. The backend is full with two calls a
/// second, so the client drops as many as the document allows.
pub(super) fn overload(world: &mut World, block: &Block) {
    backend(world, "search", 9, "{}");
    world.backends.last().expect("one was added").set_load(2.0, 1.0);
    world.shows("/api/v1/services/search", "10.0.0.9:50051");
    run(world, block, 0);
    let driver = Driver::start(&PYTHON);
    let client = driver.open(&asks("127.0.0.1", "search"));
    client.until("four of five calls are dropped", &Calls::new(50), |report| {
        report.failed() == 40 && report.from("i-9") == 10
    });
    world.backends.last().expect("one was added").set_load(1_000.0, 0.1);
    client.until("none is dropped", &Calls::new(50), |report| report.from("i-9") == 50);
}

/// Puts the document in force, with the authority of two backends. One of them says by TLS
/// that it is not serving.
pub(super) fn tls(world: &mut World, block: &Block) {
    const FILE: &str = "/etc/lookaside/backends-ca.pem";
    let ca_key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).expect("a certificate");
    let issuer = rcgen::Issuer::new(params, ca_key);
    let key = rcgen::KeyPair::generate().expect("a key");
    let names = vec!["hello.lookaside.internal".to_owned()];
    let params = rcgen::CertificateParams::new(names).expect("a name");
    let certificate = params.signed_by(&key, &issuer).expect("a certificate");
    world.write("ca.pem", &ca.pem());
    let home = world.ok("pwd");
    assert!(block.text.contains(FILE), "{}", block.at());
    world.write("tls.toml", &block.text.replace(FILE, &format!("{}/ca.pem", home.trim())));
    world.etcd();
    for id in ["i-1", "i-2"] {
        let identity = Identity::from_pem(certificate.pem(), key.serialize_pem());
        let backend = Backend::start_tls(id, identity);
        let address = backend.addr().to_string();
        world.etcd().ctl(&["put", &format!("{PREFIX}hello/{id}"), &address]);
        backend.set_serving(id == "i-1");
        world.backends.push(backend);
    }
    world.serve(SERVE);
    world.ok("lookaside settings apply tls.toml --etcd http://10.0.0.1:2379");
    eventually("the backend's answer counts", || {
        let shown = world.run("lookaside explain hello --backend i-2");
        let says = shown.out.contains("healthy     NO   it says that it is not serving");
        (shown.code == Some(3) && says).then_some(())
    });
    // It answers by TLS too.
    world.ok("lookaside explain hello --backend i-1");
    let row = world.get("/api/v1/services").expect("it answers");
    assert!(row.contains(r#""unhealthy":1"#), "{row}");
}
