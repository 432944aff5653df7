//! Recipes of traffic policy.

use crate::support::backend::{Backend, PREFIX};

use super::page::Block;
use super::world::{World, same};

/// Writes the document for [`newcomer`].
pub(super) fn document(world: &mut World, block: &Block) {
    world.write("policy.toml", &block.text);
}

/// Applies the document, and lets a backend join after that.
pub(super) fn newcomer(world: &mut World, block: &Block) {
    world.etcd();
    for n in [7, 8] {
        world.register(n);
    }
    world.serve("lookaside serve --etcd http://10.0.0.1:2379");
    world.shows("/api/v1/services/hello", "10.0.0.8:50051");
    let [apply, explain] = &block.commands()[..] else { panic!("{}: two commands", block.at()) };
    let (code, shown) = world.terminal(&apply.text);
    assert_eq!(code, Some(0), "{shown}");
    same(&block.at(), &apply.output, &shown);
    world.shows("/api/v1/settings", "slow-start");
    world.register(9);
    world.shows("/api/v1/services/hello", "10.0.0.9:50051");
    world.ok(&explain.text);
}

/// Explains the newcomer that [`newcomer`] left, in the documented words.
pub(super) fn explained(world: &mut World, block: &Block) {
    let shown = world.ok("lookaside explain hello --backend 10.0.0.9");
    let started: Vec<_> = shown.lines().filter(|line| line.contains("started")).collect();
    let documented: Vec<_> = block.text.lines().map(str::to_owned).collect();
    same(&block.at(), &documented, &started.join("\n"));
}

/// Writes the document for [`sick`].
pub(super) fn health_document(world: &mut World, block: &Block) {
    world.write("health.toml", &block.text);
}

/// Applies the document, and lets one of three backends say that it is not serving.
pub(super) fn sick(world: &mut World, block: &Block) {
    world.etcd();
    for n in [7, 8, 9] {
        let addr = format!("10.0.0.{n}:50051").parse().expect("an address");
        let backend = Backend::start_at(&format!("i-{n}"), addr);
        backend.set_serving(n != 9);
        world.backends.push(backend);
        world.register(n);
    }
    world.serve("lookaside serve --etcd http://10.0.0.1:2379");
    let [apply, explain] = &block.commands()[..] else { panic!("{}: two commands", block.at()) };
    let (code, shown) = world.terminal(&apply.text);
    assert_eq!(code, Some(0), "{shown}");
    same(&block.at(), &apply.output, &shown);
    world.shows("/api/v1/services", "\"unhealthy\":1");
    assert_eq!(world.run(&explain.text).code, Some(3), "it is not in the list");
}

/// Explains the backend that [`sick`] left, in the documented words.
pub(super) fn sickness(world: &mut World, block: &Block) {
    let shown = world.run("lookaside explain hello --backend 10.0.0.9").out;
    let found: Vec<_> = shown.lines().filter(|line| line.contains("healthy")).collect();
    let documented: Vec<_> = block.text.lines().map(str::to_owned).collect();
    same(&block.at(), &documented, &found.join("\n"));
}

/// Applies a document, and waits until its settings for clients of xDS are in force.
pub(super) fn xds_document(world: &mut World, block: &Block) {
    world.write("xds.toml", &block.text);
    world.ok("lookaside settings check xds.toml");
    world.ok("lookaside settings apply xds.toml --etcd http://10.0.0.1:2379");
    world.shows("/api/v1/settings", "outlier-detection.kind");
}

/// Applies a document, and waits until its bound of the keys is in force.
pub(super) fn keys(world: &mut World, block: &Block) {
    world.write("keys.toml", &block.text);
    world.ok("lookaside settings apply keys.toml --etcd http://10.0.0.1:2379");
    world.shows("/api/v1/settings", "hash.balance-factor");
}

/// Writes the document for [`subset`].
pub(super) fn subset_document(world: &mut World, block: &Block) {
    world.write("subset.toml", &block.text);
}

/// Registers enough backends, applies the document and explains one of them.
pub(super) fn subset(world: &mut World, block: &Block) {
    for n in 1..=64 {
        let key = format!("{PREFIX}search/i-{n}");
        world.etcd().ctl(&["put", &key, &format!("10.0.0.7:{}", 9_000 + n)]);
    }
    world.shows("/api/v1/services/search", "10.0.0.7:9064");
    let [apply, explain] = &block.commands()[..] else { panic!("{}: two commands", block.at()) };
    let (code, shown) = world.terminal(&apply.text);
    assert_eq!(code, Some(0), "{shown}");
    same(&block.at(), &apply.output, &shown);
    world.shows("/api/v1/services/search", r#""cells":4"#);
    world.ok(&explain.text);
}

/// Explains the backend of [`subset`], in the documented words.
pub(super) fn subset_explained(world: &mut World, block: &Block) {
    let shown = world.ok("lookaside explain search --backend i-7");
    let found: Vec<_> = shown.lines().filter(|line| line.starts_with("  subset ")).collect();
    let documented: Vec<_> = block.text.lines().map(str::to_owned).collect();
    same(&block.at(), &documented, &found.join("\n"));
}
