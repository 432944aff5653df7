//! The ways to lead a DNS question to the balancer.

use super::page::Block;
use super::world::World;
use crate::support::{eventually, skip};

const SRV: &str = "_grpclb._tcp.hello.lookaside.internal";

/// Starts the balancer with a backend, and asks it.
pub(super) fn ask_directly(world: &mut World, block: &Block) {
    let [serve, dig] = &block.commands()[..] else { panic!("{}: two commands", block.at()) };
    world.serve(&serve.text);
    world.ok("etcdctl put /etcd3_naming/hello/a 10.0.0.9:50051");
    world.shows("/api/v1/services/hello", "10.0.0.9:50051");
    let answer = world.ok(&dig.text);
    let records = answer.lines().filter(|line| !line.starts_with(';'));
    let records: Vec<_> =
        records.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert!(
        records.contains(&format!("{SRV}. 5 IN SRV 0 0 12000 grpclb.lookaside.internal.")),
        "{answer}"
    );
    assert!(records.contains(&"grpclb.lookaside.internal. 5 IN A 10.0.0.5".to_owned()), "{answer}");
}

/// Has BIND's own check read the file.
pub(super) fn bind(world: &mut World, block: &Block) {
    names_both_balancers(world, block);
    world.write("named.conf", &block.text);
    if has(world, "named-checkconf") {
        world.ok("named-checkconf named.conf");
    }
}

/// Compares the prefix with the flag's example. tests/dns/skydns.rs runs such a server.
pub(super) fn coredns_etcd(world: &mut World, block: &Block) {
    assert!(block.text.contains("path /skydns"), "{}: the prefix", block.at());
    let help = world.ok("lookaside serve --help");
    assert!(help.contains("--skydns-prefix"), "{help}");
}

/// Has BIND's own check read the file. tests/dns/secondaries.rs runs such a server.
pub(super) fn bind_secondary(world: &mut World, block: &Block) {
    names_both_balancers(world, block);
    world.write("secondary.conf", &block.text);
    if has(world, "named-checkconf") {
        world.ok("named-checkconf secondary.conf");
    }
}

/// Has Knot's own check read the file. tests/dns/secondaries.rs runs such a server.
pub(super) fn knot_secondary(world: &mut World, block: &Block) {
    names_both_balancers(world, block);
    world.write("knot.conf", &block.text);
    if has(world, "knotc") {
        world.ok("knotc -c knot.conf conf-check");
    }
}

/// Asks by Unbound's library, configured by the file.
pub(super) fn unbound(world: &mut World, block: &Block) {
    names_both_balancers(world, block);
    world.write("unbound.conf", &block.text);
    if has(world, "unbound-host") {
        let answer = world.ok(&format!("unbound-host -C unbound.conf -t SRV {SRV}"));
        assert!(answer.contains("SRV record 0 0 12000 grpclb.lookaside.internal"), "{answer}");
    }
}

/// Asks a dnsmasq that drops private addresses, as many routers do.
pub(super) fn dnsmasq(world: &mut World, block: &Block) {
    names_both_balancers(world, block);
    world.write("dnsmasq.conf", &block.text);
    if !has(world, "dnsmasq") {
        return;
    }
    world.ok("dnsmasq --test --conf-file=dnsmasq.conf");
    world.start(
        "dnsmasq --keep-in-foreground --user=root --no-resolv --no-hosts --stop-dns-rebind \
         --conf-file=dnsmasq.conf --pid-file= --port=5353 --listen-address=127.0.0.1 \
         --bind-interfaces",
    );
    let ask = |what: &str| {
        let dig = format!("dig +short +tries=1 +time=1 -p 5353 @127.0.0.1 {what}");
        eventually(&format!("$ {dig}"), || {
            Some(world.run(&dig).out).filter(|out| !out.is_empty() && !out.starts_with(';'))
        })
    };
    assert_eq!(ask(&format!("-t SRV {SRV}")), "0 0 12000 grpclb.lookaside.internal.\n");
    assert_eq!(ask("hello.lookaside.internal"), "10.0.0.9\n");
}

/// Compares zone and balancers with the program's default and the page's example.
pub(super) fn names_both_balancers(world: &mut World, block: &Block) {
    let (at, text) = (block.at(), &block.text);
    let help = world.ok("lookaside serve --help");
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(help.contains("[default: lookaside.internal]"), "{help}");
    assert!(text.contains("lookaside.internal"), "{at}: the default zone");
    for balancer in ["10.0.0.5", "10.0.0.6"] {
        let written = [":53", "@53", "#53", " port 53"].map(|port| format!("{balancer}{port}"));
        assert!(written.iter().any(|way| text.contains(way)), "{at}: {balancer} and its port 53");
    }
}

/// Compares the records of a delegation with the program's.
pub(super) fn delegation(world: &mut World, block: &Block) {
    let printed = world.ok("lookaside dns-records --domain lb.example.com \
         --advertise 10.0.0.5:12000 --advertise 10.0.0.6:12000");
    let ours = printed.lines().filter_map(|line| line.strip_prefix("; "));
    let ours: Vec<_> = ours
        .filter(|line| line.contains(" IN "))
        .map(|line| line.replace(" 30 IN", " IN"))
        .collect();
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(block.text.lines().map(words).collect::<Vec<_>>(), ours, "{}", block.at());
}

/// Has BIND's own check read the printed records as a zone.
pub(super) fn static_records(world: &mut World, block: &Block) {
    let [print] = &block.commands()[..] else { panic!("{}: one command", block.at()) };
    let records = world.ok(&print.text);
    for record in [
        "grpclb.lookaside.internal. 30 IN A 10.0.0.5".to_owned(),
        "grpclb.lookaside.internal. 30 IN A 10.0.0.6".to_owned(),
        format!("{SRV}. 30 IN SRV 0 0 12000 grpclb.lookaside.internal."),
    ] {
        assert!(records.lines().any(|line| line == record), "no {record} in\n{records}");
    }
    let head = "$TTL 30\n@ IN SOA a.invalid. b.invalid. 1 2 3 4 5\n@ IN NS a.invalid.\n";
    world.write("zone", &format!("{head}{records}"));
    if has(world, "named-checkzone") {
        world.ok("named-checkzone lookaside.internal zone");
    }
}

/// Returns whether a program is there; skips otherwise.
fn has(world: &World, program: &str) -> bool {
    let there = world.run(&format!("command -v {program}")).code == Some(0);
    if !there {
        skip("snippets::resolvers", &format!("{program} is not installed"));
    }
    there
}
