//! The meaning of each name in the zone.

use super::*;

#[test]
fn every_service_name_has_its_balancers_registered_or_not() {
    let world = fixture(Some(ONE_PORT));
    for name in ["hello", "not-yet", "game.dev", "id--7.game.dev", "my_service", "grpclb-x"] {
        let owner = format!("_grpclb._tcp.{name}.lookaside.internal.");
        let srv = format!("{owner} SRV 0 0 12000 grpclb.lookaside.internal.");
        world.check(
            &owner,
            "SRV",
            &[
                "NoError aa",
                &srv,
                "additional grpclb.lookaside.internal. A 10.9.0.1",
                "additional grpclb.lookaside.internal. A 10.9.0.2",
                "additional grpclb.lookaside.internal. AAAA 2001:db8::9",
            ],
        );
        let owner = format!("_grpc_config.{name}.lookaside.internal.");
        let txt = format!("{owner} TXT {}", zone::SERVICE_CONFIG);
        world.check(&owner, "TXT", &["NoError aa", &txt]);
        let config = zone::SERVICE_CONFIG.strip_prefix("grpc_config=").unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(config).unwrap().is_array());
    }
}

/// grpc-go reads the service config of any name that it connects to, also of the one by which
/// clients of xDS find the balancers.
#[test]
fn the_names_of_the_balancers_lead_to_no_grpclb() {
    let world = fixture(Some(ONE_PORT));
    for name in ["grpclb", "GRPCLB-12000"] {
        for (before, kind) in [("_grpc_config", "TXT"), ("_grpclb._tcp", "SRV")] {
            let name = format!("{before}.{name}.lookaside.internal.");
            world.check(&name, kind, &["NoError aa", "authority SOA!"]);
        }
    }
}

#[test]
fn balancers_are_found_by_port_or_by_name_where_they_must() {
    let world = fixture(Some(&["10.9.0.1:1", "10.9.0.2:2", "lb.example:3"]));
    world.check(
        "_grpclb._tcp.hello.lookaside.internal.",
        "SRV",
        &[
            "NoError aa",
            "_grpclb._tcp.hello.lookaside.internal. SRV 0 0 1 grpclb-1.lookaside.internal.",
            "_grpclb._tcp.hello.lookaside.internal. SRV 0 0 2 grpclb-2.lookaside.internal.",
            "_grpclb._tcp.hello.lookaside.internal. SRV 0 0 3 lb.example.",
            "additional grpclb-1.lookaside.internal. A 10.9.0.1",
            "additional grpclb-2.lookaside.internal. A 10.9.0.2",
        ],
    );
    let a = |name: &str, ip: &str| format!("{name} A {ip}");
    let name = "grpclb-2.lookaside.internal.";
    world.check(name, "A", &["NoError aa", &a(name, "10.9.0.2")]);
    let name = "GrpcLB.lookaside.internal.";
    world.check(name, "A", &["NoError aa", &a(name, "10.9.0.1"), &a(name, "10.9.0.2")]);
    world.check("grpclb-3.lookaside.internal.", "A", &["NoError aa", "authority SOA!"]);

    let named = fixture(Some(&["lb.example:3"]));
    named.check("lookaside.internal.", "NS", &["NoError aa", "lookaside.internal. NS lb.example."]);
    let none = fixture(Some(&[]));
    none.check("_grpclb._tcp.hello.lookaside.internal.", "SRV", &["NoError aa", "authority SOA!"]);
    none.check("grpclb.lookaside.internal.", "A", &["NoError aa", "authority SOA!"]);
}

#[test]
fn services_have_the_addresses_of_the_instances_that_serve() {
    let world = fixture(Some(ONE_PORT));
    let name = "hello.lookaside.internal.";
    world.check(
        name,
        "A",
        &[
            "NoError aa",
            "hello.lookaside.internal. A 10.0.0.1",
            "hello.lookaside.internal. A 10.0.0.2",
        ],
    );
    world.check(name, "AAAA", &["NoError aa", "authority SOA!"]);
    world.check("drained.lookaside.internal.", "A", &["NoError aa", "authority SOA!"]);
    world.check("not-yet.lookaside.internal.", "A", &["NoError aa", "authority SOA!"]);
    for (name, kind, ip) in [
        ("game.dev", "A", "10.0.1.7"),
        ("game.dev", "AAAA", "2001:db8::8"),
        ("id--7.game.dev", "A", "10.0.1.7"),
        ("ID--8.Game.Dev", "AAAA", "2001:db8::8"),
        ("my_service", "A", "10.0.0.4"),
    ] {
        let name = format!("{name}.lookaside.internal.");
        world.check(&name, kind, &["NoError aa", &format!("{name} {kind} {ip}")]);
    }
    world.check("id--9.game.dev.lookaside.internal.", "A", &["NoError aa", "authority SOA!"]);
    world.check("id--8.game.dev.lookaside.internal.", "A", &["NoError aa", "authority SOA!"]);
}

#[test]
fn letter_case_is_echoed_and_means_nothing() {
    let world = fixture(Some(ONE_PORT));
    for name in ["hELLo.LookAside.INTERNAL.", "HELLO.lookaside.internal."] {
        let lines = world.ask(name, "A");
        assert_eq!(lines.lines().nth(1), Some(format!("{name} A 10.0.0.1").as_str()));
    }
    let lines = world.ask("_GRPCLB._Tcp.x.LOOKASIDE.internal.", "SRV");
    let expected = "_GRPCLB._Tcp.x.LOOKASIDE.internal. SRV 0 0 12000 grpclb.lookaside.internal.";
    assert_eq!(lines.lines().nth(1), Some(expected));
}

#[test]
fn the_zone_itself_and_names_between() {
    let world = fixture(Some(ONE_PORT));
    let soa = ["NoError aa", "SOA!"];
    world.check("lookaside.internal.", "SOA", &soa);
    let ns = "lookaside.internal. NS grpclb.lookaside.internal.";
    world.check("lookaside.internal.", "NS", &["NoError aa", ns]);
    // A name exists below each, or it has records of other types: never NXDOMAIN.
    for (name, kind) in [
        ("", "A"),
        ("", "TXT"),
        ("hello.", "MX"),
        ("hello.", "SRV"),
        ("hello.", "NS"),
        ("dev.", "A"),
        ("_tcp.hello.", "A"),
        ("_TCP.not-yet.", "SRV"),
        ("_grpclb._tcp.hello.", "A"),
        ("_grpclb._tcp.hello.", "TXT"),
        ("_grpc_config.hello.", "SRV"),
        ("_grpc_config.hello.", "A"),
        ("grpclb.", "TXT"),
    ] {
        let name = format!("{name}lookaside.internal.");
        world.check(&name, kind, &["NoError aa", "authority SOA!"]);
    }
}

#[test]
fn only_what_can_never_be_a_name_does_not_exist() {
    let world = fixture(Some(ONE_PORT));
    for name in [
        "_foo._tcp.hello",
        "_foo.hello",
        "_foo",
        "_xds._tcp.hello",
        "x._grpclb._tcp.hello",
        "_grpclb._tcp._foo",
        "_grpclb._udp.hello",
        "_grpclb.hello",
        "_tcp",
        "_grpclb._tcp",
        "_grpc_config",
        "a b",
        "a\u{7}",
        "a%zz",
    ] {
        for kind in ["A", "SRV", "TXT", "ANY"] {
            let name = format!("{name}.lookaside.internal.");
            world.check(&name, kind, &["NXDomain aa", "authority SOA!"]);
        }
    }
    // A dot within a label does not separate labels.
    let mut message = query("x", "A");
    let labels: [&[u8]; 3] = [b"game.dev", b"lookaside", b"internal"];
    message.queries[0].name = Name::from_labels(labels).unwrap();
    let reply = world.answer(&message.to_vec().unwrap(), Transport::Udp);
    assert_eq!(parsed(&reply).metadata.response_code, Code::NXDomain);
    message.queries[0].name =
        Name::from_labels([b"\xff\xfe".as_slice(), labels[1], labels[2]]).unwrap();
    let reply = world.answer(&message.to_vec().unwrap(), Transport::Udp);
    assert_eq!(parsed(&reply).metadata.response_code, Code::NXDomain);
}

#[test]
fn nothing_is_concluded_before_the_first_reading() {
    let mut world = fixture(Some(ONE_PORT));
    world.synced = false;
    world.check("hello.lookaside.internal.", "A", &["ServFail"]);
    world.check("not-yet.lookaside.internal.", "AAAA", &["ServFail"]);
    assert!(world.ask("_grpclb._tcp.hello.lookaside.internal.", "SRV").starts_with("NoError aa"));
    assert!(world.ask("_grpc_config.hello.lookaside.internal.", "TXT").starts_with("NoError aa"));
    assert!(world.ask("_foo.lookaside.internal.", "A").starts_with("NXDomain aa"));
}

#[test]
fn nobody_says_where_balancers_are_who_does_not_know() {
    let world = fixture(None);
    world.check("_grpclb._tcp.hello.lookaside.internal.", "SRV", &["ServFail"]);
    world.check("grpclb.lookaside.internal.", "A", &["ServFail"]);
    assert!(world.ask("hello.lookaside.internal.", "A").starts_with("NoError aa\nhello"));
}

#[test]
fn who_asks_for_everything_gets_little() {
    let mut world = fixture(Some(ONE_PORT));
    crowd(&mut world, 100);
    for name in ["hello", "big", "_grpclb._tcp.hello", "grpclb"] {
        let name = format!("{name}.lookaside.internal.");
        world.check(&name, "ANY", &["NoError aa", &format!("{name} HINFO RFC8482 ")]);
    }
}

#[test]
fn each_address_of_a_service_comes_first_in_turn() {
    let mut world = fixture(Some(ONE_PORT));
    let mut first = Vec::new();
    for seed in 0..4 {
        world.seed = seed;
        let answer = world.ask("hello.lookaside.internal.", "A");
        first.push(answer.lines().nth(1).unwrap().to_owned());
    }
    assert_eq!(first[0], first[2]);
    assert_eq!(first[1], first[3]);
    assert_ne!(first[0], first[1]);
}

#[test]
fn balancers_are_named_in_the_order_in_which_they_are_given() {
    let given = ["10.9.0.3:12000", "10.9.0.1:12000", "10.9.0.2:12000", "10.9.0.1:12000"];
    let world = fixture(Some(&given));
    let expected = [3, 1, 2].map(|last| format!("grpclb.lookaside.internal. A 10.9.0.{last}"));
    for (name, kind) in
        [("grpclb.lookaside.internal.", "A"), ("_grpclb._tcp.hello.lookaside.internal.", "SRV")]
    {
        let answer = world.ask(name, kind);
        let lines =
            answer.lines().filter_map(|line| line.split_once("grpclb.lookaside.internal. A"));
        let lines: Vec<_> =
            lines.map(|(_, ip)| format!("grpclb.lookaside.internal. A{ip}")).collect();
        assert_eq!(lines, expected, "{answer}");
    }
}
