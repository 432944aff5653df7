//! Cases about shares of calls and of clients, and about keys.
//!
//! In: a world and a driver. Out: a panic if a client calls other backends than its split or
//! its key gives it.

use lookaside::catalog::{Service, ServiceSnapshot};
use lookaside::model::{Class, Part, ServiceName};
use lookaside::policy;
use lookaside::settings::{ServiceSettings, SplitKey, SplitSetting};

use crate::support::backend::Backend;
use crate::support::client::{Calls, Driver, Options};
use crate::support::eventually;
use crate::support::lookaside::Balancer;
use crate::support::world::{SERVICE, World};

/// Of 40 calls, two go to the canary.
pub fn by_calls(world: &World, driver: &Driver) {
    let balancer = world.balancer(&[]);
    let _others = (world.backend("a"), world.backend("b"));
    let _canary = canary(world, "v2");
    settle(world, &balancer, "select = 'version=v2', percent = 5");
    let client = driver.open(&Options::grpclb(world.target(&balancer)));
    let shares = |calls: u64, due: [u64; 3]| {
        client.until("each gets its share", &Calls::waiting(calls), |report| {
            ["a", "b", "canary"].map(|id| report.from(id)) == due
        });
    };
    shares(400, [190, 190, 20]);
    // Clients that select a version are not split.
    let name = format!("version--v2.{SERVICE}.{}", world.zone());
    driver.open(&Options::grpclb(world.target_of(&balancer, &name))).shares(&["canary"]);
    settle(world, &balancer, "select = 'version=v2', percent = 50");
    shares(40, [10, 10, 20]);
    settle(world, &balancer, "select = 'version=v2', percent = 0");
    client.shares(&["a", "b"]);
    settle(world, &balancer, "select = 'version=v2', percent = 100");
    client.shares(&["canary"]);
}

/// The client is in the half that uses the canary for one version, and in the other half for
/// another version.
pub fn by_clients(world: &World, driver: &Driver) {
    let balancer = world.balancer(&[]);
    let _others = (world.backend("a"), world.backend("b"));
    let (inside, outside) = (version(Part::Canaries), version(Part::Others));
    let open = || driver.open(&Options::grpclb(world.target(&balancer)));
    for (version, expected) in [(inside, &["canary"][..]), (outside, &["a", "b"])] {
        let canary = canary(world, &version);
        let split = |percent| format!("select = 'version={version}', by = 'clients', {percent}");
        settle(world, &balancer, &split("percent = 50"));
        let client = open();
        client.shares(expected);
        // A new connection is the same client.
        open().shares(expected);
        settle(world, &balancer, &split("percent = 100"));
        client.shares(&["canary"]);
        settle(world, &balancer, &split("percent = 0"));
        client.shares(&["a", "b"]);
        settle(world, &balancer, &split("percent = 50"));
        client.shares(expected);
        // Without a canary, all clients use the others.
        world.etcd().ctl(&["del", &world.key("canary")]);
        client.shares(&["a", "b"]);
        drop(canary);
    }
}

/// A key has one backend, also for another client, and another one once that has left.
pub fn key(world: &World, driver: &Driver) {
    let balancer = world.balancer(&[]);
    let mut backends = ["1", "2", "3"].map(|id| (id, world.backend(id)));
    let name = format!("hash--user42.{SERVICE}.{}", world.zone());
    let open = || driver.open(&Options::grpclb(world.target_of(&balancer, &name)));
    let client = open();
    let report = client.until("it is served", &Calls::waiting(30), |report| {
        ["1", "2", "3"].iter().any(|id| report.from(id) == 30)
    });
    let owner = backends.iter().position(|(id, _)| report.from(id) == 30).expect("one has all");
    client.shares(&[backends[owner].0]);
    open().shares(&[backends[owner].0]);
    // A backend without the key leaves: nothing changes.
    backends[(owner + 1) % 3].1.withdraw();
    client.shares(&[backends[owner].0]);
    backends[owner].1.withdraw();
    client.shares(&[backends[(owner + 2) % 3].0]);
    world.register(&mut backends[owner].1);
    client.shares(&[backends[owner].0]);
}

/// Registers a backend with the metadata `version`.
fn canary(world: &World, version: &str) -> Backend {
    let backend = Backend::start("canary");
    let addr = backend.addr();
    let value = format!(r#"{{"Op":0,"Addr":"{addr}","Metadata":{{"version":"{version}"}}}}"#);
    world.etcd().ctl(&["put", &world.key("canary"), &value]);
    backend
}

/// Puts a split of the service in force.
#[track_caller]
fn settle(world: &World, balancer: &Balancer, split: &str) {
    let document = format!("[service.{SERVICE}]\nsplit = {{ {split} }}\n");
    let key = format!("/lookaside/settings/{}", world.zone());
    world.etcd().ctl(&["put", "--", &key, &document]);
    let percent = split.rsplit("percent = ").next().expect("a percentage");
    eventually("the split is in force", || {
        let (_, settings) = balancer.get(&format!("/api/v1/settings?service={SERVICE}"));
        let settings: serde_json::Value = serde_json::from_str(&settings).ok()?;
        let in_force = &settings["services"][0]["settings"];
        let select = in_force["split.select"]["value"].as_str()?;
        let same = in_force["split.percent"]["value"].as_str()? == percent;
        (same && split.contains(select)).then_some(())
    });
}

/// Returns a version whose canaries get the clients of this machine, or do not, if they get
/// half of all clients.
fn version(part: Part) -> String {
    let client = [127, 0, 0, 1].into();
    let is_in = |version: &String| {
        let mut settings = ServiceSettings::DEFAULT;
        for (key, text) in [
            (SplitKey::Select, format!("version={version}")),
            (SplitKey::By, "clients".to_owned()),
            (SplitKey::Percent, "50".to_owned()),
        ] {
            settings.split.set(SplitSetting::parse(key, &text).expect("a setting"));
        }
        let name = ServiceName::new(SERVICE).expect("a name");
        let service = Service::new(1, ServiceSnapshot::new(name, 1, Vec::new()), settings);
        policy::part(&service, &Class::default(), client, true) == part
    };
    let found = (1..).map(|n| format!("v{n}")).find(is_in);
    found.expect("half of the versions are")
}
