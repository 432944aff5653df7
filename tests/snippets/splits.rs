//! Recipes of splits: canaries by calls, by clients and in steps.

use super::page::Block;
use super::world::{World, same};
use crate::support::backend::PREFIX;

/// Writes the document for [`canary`].
pub(super) fn document(world: &mut World, block: &Block) {
    world.write("canary.toml", &block.text);
}

/// Registers a canary and applies the document.
pub(super) fn canary(world: &mut World, block: &Block) {
    let value = r#"{"Op":0,"Addr":"10.0.0.4:50051","Metadata":{"version":"v2"}}"#;
    world.etcd().ctl(&["put", &format!("{PREFIX}hello/i-4"), value]);
    world.shows("/api/v1/services/hello", "10.0.0.4:50051");
    let [apply, explain] = &block.commands()[..] else { panic!("{}: two commands", block.at()) };
    let (code, shown) = world.terminal(&apply.text);
    assert_eq!(code, Some(0), "{shown}");
    same(&block.at(), &apply.output, &shown);
    world.shows("/api/v1/services/hello", r#""share":0.05"#);
    world.ok(&explain.text);
}

/// Explains the canary that [`canary`] left, in the documented words.
pub(super) fn explained(world: &mut World, block: &Block) {
    let shown = world.ok("lookaside explain hello --backend 10.0.0.4");
    let split: Vec<_> = shown.lines().filter(|line| line.starts_with("  split ")).collect();
    let documented: Vec<_> = block.text.lines().map(str::to_owned).collect();
    same(&block.at(), &documented, &split.join("\n"));
}

/// Applies a document in place of the one before, and waits until its split is in force.
pub(super) fn in_force(world: &mut World, block: &Block) {
    world.write("split.toml", &block.text);
    world.ok("lookaside settings check split.toml");
    world.ok("lookaside settings apply split.toml --etcd http://10.0.0.1:2379");
    let value = |key: &str| {
        let line = block.text.lines().find(|line| line.starts_with(key));
        line.and_then(|line| line.split('"').nth(1)).map(str::to_owned)
    };
    match value("ramp = ") {
        Some(ramp) => world.shows("/api/v1/settings", &ramp),
        None => world.shows("/api/v1/services/hello", r#""by":"clients""#),
    }
}
