//! Recipes of traffic policy.

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

/// Writes the document for [`checked`].
pub(super) fn zones(world: &mut World, block: &Block) {
    world.write("zones.toml", &block.text);
}

/// Checks the document that [`zones`] wrote.
pub(super) fn checked(world: &mut World, block: &Block) {
    let [check] = &block.commands()[..] else { panic!("{}: one command", block.at()) };
    let (code, shown) = world.terminal(&check.text);
    assert_eq!(code, Some(0), "{shown}");
    same(&block.at(), &check.output, &shown);
}
