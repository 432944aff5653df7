//! Commands of an operator: explain, drain, release, settings.

use super::page::{Block, read};
use super::world::{Ended, World, same};
use crate::support::WAIT_MAX;
use crate::support::eventually;

const SERVE: &str = "lookaside serve --etcd http://10.0.0.1:2379";

/// Explains a backend with weight 0, in the documented words.
pub(super) fn explain(world: &mut World, block: &Block) {
    let [explain] = &block.commands()[..] else { panic!("{}: one command", block.at()) };
    let lease = world.lease();
    let value = r#"{"id":"i-9","name":"hello","endpoints":["grpc://10.0.0.9:50051"],"metadata":{"weight":"0"}}"#;
    world.etcd().ctl(&["put", "/microservices/hello/i-9", value, "--lease", &lease]);
    world.serve(&format!("{SERVE} --prefix /microservices=kratos"));
    let (code, shown) = world.terminal(&explain.text);
    assert_eq!(code, Some(3), "{shown}");
    same(&block.at(), &explain.output, &shown);
}

/// Drains one of three backends and lists it again, in the documented words.
pub(super) fn drain(world: &mut World, block: &Block) {
    world.etcd();
    world.serve(SERVE);
    for n in [8, 9, 10] {
        world.listen(&format!("10.0.0.{n}:50051"));
        world.register(n);
    }
    for n in [8, 9, 10] {
        world.shows("/api/v1/services/hello", &format!("10.0.0.{n}:50051"));
    }
    for command in block.commands() {
        let (code, shown) = world.terminal(&command.text);
        assert_eq!(code, Some(0), "{shown}");
        same(&block.at(), &command.output, &shown);
    }
    // It succeeds while the backend is in the list.
    world.ok("lookaside explain hello --backend 10.0.0.9");
}

/// Tells clients something where [`drain`] left a balancer, and ends it, in the documented
/// words.
pub(super) fn tell_clients(world: &mut World, block: &Block) {
    for command in block.commands() {
        let (code, shown) = world.terminal(&command.text);
        assert_eq!(code, Some(0), "{shown}");
        same(&block.at(), &command.output, &shown);
    }
    world.shows("/api/v1/services", "\"shed\":0,\"fallback\":false");
}

/// Drains a host where [`drain`] left a balancer.
pub(super) fn drain_by_etcdctl(world: &mut World, block: &Block) {
    let [put] = &block.commands()[..] else { panic!("{}: one command", block.at()) };
    world.ok(&put.text);
    eventually("the mark is in force", || {
        let Ended { code, out, .. } = world.run("lookaside explain hello --backend 10.0.0.9");
        (code == Some(3) && out.contains("undrained   NO   drain/hello/10.0.0.9 ")).then_some(())
    });
}

/// Releases sixteen held backends, in the documented words.
pub(super) fn release(world: &mut World, block: &Block) {
    let [release] = &block.commands()[..] else { panic!("{}: one command", block.at()) };
    world.etcd();
    world.serve(SERVE);
    let addresses: Vec<_> = (50051..50067).map(|port| format!("10.0.0.9:{port}")).collect();
    addresses.iter().for_each(|address| world.listen(address));
    hold(world, &addresses);
    let (code, shown) = world.terminal(&release.text);
    assert_eq!(code, Some(0), "{shown}");
    same(&block.at(), &release.output, &shown);

    // The same by HTTP, which the text below the block names.
    hold(world, &addresses);
    let page = read(&block.page);
    let url = page.split("`curl -X POST ").nth(1).and_then(|rest| rest.split('`').next());
    let request = ureq::post(url.expect("the page has the request")).config().proxy(None);
    let answer = request.timeout_global(Some(WAIT_MAX)).build().send_empty();
    let answer = answer.expect("it is answered").body_mut().read_to_string();
    let answer = answer.expect("text");
    assert!(answer.contains("\"released\":16"), "{answer}");
}

/// Registers backends of `hello`, and takes their lease away.
fn hold(world: &mut World, addresses: &[String]) {
    let lease = world.lease();
    for address in addresses {
        let key = format!("/etcd3_naming/hello/{address}");
        world.etcd().ctl(&["put", &key, address, "--lease", &lease]);
    }
    world.shows("/api/v1/services", "\"endpoints\":16");
    world.etcd().ctl(&["lease", "revoke", &lease]);
    world.shows("/api/v1/services", "\"held\":16");
}

/// Writes the document for [`settings`].
pub(super) fn settings_document(world: &mut World, block: &Block) {
    world.write("settings.toml", &block.text);
}

/// Checks, compares and applies the document, in the documented words.
pub(super) fn settings(world: &mut World, block: &Block) {
    world.etcd().ctl(&["put", "/etcd3_naming/dev/game/a", "10.0.0.9:50051"]);
    world.serve(SERVE);
    world.shows("/api/v1/services", "dev/game");
    let commands = block.commands();
    let (show, others) = commands.split_last().expect("there are commands");
    for command in others {
        let (code, shown) = world.terminal(&command.text);
        assert_eq!(code, Some(0), "{shown}");
        same(&block.at(), &command.output, &shown);
    }
    let in_force = ["when-empty fallback etcd dev/game", "guard 0 etcd dev/*"];
    eventually("the document is in force", || {
        let words = world.ok(&show.text);
        let shown = words.split_whitespace().collect::<Vec<_>>().join(" ");
        in_force.iter().all(|line| shown.contains(line)).then_some(())
    });
}

/// Compares a document that moves calls to a canary, where [`settings`] left a balancer.
pub(super) fn list_changes(world: &mut World, block: &Block) {
    let canary = r#"{"Op":0,"Addr":"10.0.0.10:50051","Metadata":{"version":"v2"}}"#;
    world.etcd().ctl(&["put", "/etcd3_naming/dev/game/b", canary]);
    world.shows("/api/v1/services/dev%2Fgame", "10.0.0.10:50051");
    let [diff] = &block.commands()[..] else { panic!("{}: one command", block.at()) };
    let (code, shown) = world.terminal(&diff.text);
    assert_eq!(code, Some(0), "{shown}");
    same(&block.at(), &diff.output, &shown);
}

/// Checks a document of zones.
pub(super) fn networks(world: &mut World, block: &Block) {
    world.write("networks.toml", &block.text);
    let shown = world.ok("lookaside settings check networks.toml");
    assert!(shown.contains("right"), "{}: {shown}", block.at());
}

/// Checks a document by the name in its first line.
pub(super) fn checked_document(world: &mut World, block: &Block) {
    let first = block.text.lines().next().and_then(|line| line.strip_prefix("# "));
    let name = first.expect("a comment with a name");
    world.write(name, &block.text);
    let shown = world.ok(&format!("lookaside settings check {name}"));
    assert!(shown.contains("right"), "{}: {shown}", block.at());
}

/// Looks for the options of a script in its text. A test of the script itself runs it.
pub(super) fn script(_: &mut World, block: &Block) {
    let mut words = block.text.split_whitespace().filter(|word| *word != "\\");
    let text = read(words.next().expect("a path"));
    for option in words.filter(|word| word.starts_with("--")) {
        assert!(text.contains(&format!("{option})")), "{}: {option}", block.at());
    }
}

/// Writes to the embedded registry and reads from it, by etcd's own command.
pub(super) fn etcdctl(world: &mut World, block: &Block) {
    world.serve("lookaside serve");
    // A watch goes on for ever.
    let (others, watch) = block.text.trim_end().rsplit_once('\n').expect("there are lines");
    assert!(watch.starts_with("etcdctl watch"), "{watch}");
    let printed = world.ok(&format!("set -e\n{others}"));
    assert!(printed.contains("/etcd3_naming/hello/a\n127.0.0.1:50051"), "{printed}");
    world.shows("/api/v1/services/hello", "127.0.0.1:50051");
    let (export, _) = others.split_once('\n').expect("it exports first");
    let variables = export.strip_prefix("export ").expect("it exports first");
    let watched = world.start(&format!("env {variables} {watch}"));
    eventually("the watch sees a change", || {
        world.ok(&format!("{export}\netcdctl put /etcd3_naming/hello/b 127.0.0.1:50052"));
        world.printed(watched).contains("127.0.0.1:50052").then_some(())
    });
}
