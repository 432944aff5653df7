//! Formats of registrations: dry runs, descriptions, and the command for each framework.

use super::page::Block;
use super::world::World;

/// Runs `lookaside check --live` over an etcd with a registration of kratos.
pub(super) fn dry_run(world: &mut World, block: &Block) {
    let key = "/microservices/hello/i-7";
    let value = r#"{"id":"i-7","name":"hello","endpoints":["grpc://10.0.0.7:50051"]}"#;
    world.etcd().ctl(&["put", key, value]);
    let command = block.text.trim_start_matches("$ ");
    let printed = world.ok(command);
    assert!(printed.contains("kratos") && printed.contains("10.0.0.7:50051"), "{printed}");
}

/// Has `lookaside check` read the file, with the prefixes that its comments name.
pub(super) fn description(world: &mut World, block: &Block) {
    world.write("lookaside.toml", &block.text);
    let flags = block.text.lines().filter_map(|line| line.split_once("# --prefix "));
    let flags: String = flags.map(|(_, prefix)| format!(" --prefix {prefix}")).collect();
    let printed = world.ok(&format!("lookaside check --config lookaside.toml{flags}"));
    assert!(printed.contains("the settings are right"), "{}: {printed}", block.at());
    let formats = block.text.matches("[format.").count();
    assert_eq!(printed.matches("custom:").count(), formats, "{}: {printed}", block.at());
}

/// Starts the balancer with the prefix of a framework, at which a backend has registered in
/// the framework's format, and sees the backend listed.
pub(super) fn framework(world: &mut World, block: &Block) {
    const ETCD: &str = "http://10.0.0.1:2379";
    let (command, _) = block.text.split_once('#').unwrap_or((&block.text, ""));
    let command = command.trim().replace("URL", ETCD);
    let prefix = command.split("--prefix ").nth(1).expect("it gives a prefix").trim();
    let (prefix, format) = prefix.split_once('=').unwrap_or((prefix, "auto"));
    world.etcd().ctl(&["del", "", "--prefix"]);
    let registrant = (format != "apisix").then(|| {
        world.start(&format!(
            "lookaside register --etcd {ETCD} --service hello --addr 10.0.0.7:50051 \
             --prefix {prefix} --format {format}"
        ))
    });
    if registrant.is_none() {
        // It is read and not written.
        let value = r#"{"name":"hello","scheme":"grpc","nodes":{"10.0.0.7:50051":1}}"#;
        world.etcd().ctl(&["put", "/apisix/upstreams/1", value]);
    }
    let balancer = world.serve(&command);
    world.shows("/api/v1/services", "\"endpoints\":1");
    assert_eq!(world.stop(balancer), Some(0), "{}", world.printed(balancer));
    if let Some(registrant) = registrant {
        world.stop(registrant);
    }
}
