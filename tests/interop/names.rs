//! Cases about the names that clients ask for, and what keys in etcd may hold.
//!
//! In: a world and a driver. Out: a panic if a name leads to wrong backends, or an odd
//! registration disturbs a client.

use std::time::Duration;

use lookaside::model::Weight;

use crate::support::backend::Backend;
use crate::support::client::{Calls, Channel, Driver, Options, Report};
use crate::support::eventually;
use crate::support::language::Family;
use crate::support::lookaside::Balancer;
use crate::support::world::{SERVICE, World, metric, streams};

/// Stateful services: selectors choose one backend or some by their metadata.
pub fn chosen_by_name(world: &World, driver: &Driver) {
    let balancer = world.balancer(&[]);
    let open = |labels: &str| {
        let name = format!("{labels}.{SERVICE}.{}", world.zone());
        driver.open(&Options::grpclb(world.target_of(&balancer, &name)))
    };
    let say = |backend: &Backend, key: &str, metadata: &str| {
        let value = format!(r#"{{"Op":0,"Addr":"{}","Metadata":{metadata}}}"#, backend.addr());
        world.etcd().ctl(&["put", "--", &world.key(key), &value]);
    };
    let (six, seven) = (Backend::start("6"), Backend::start("7"));
    say(&six, "six", r#"{"id":"6","zone":"a","version":"v1"}"#);
    say(&seven, "seven", r#"{"id":"7","zone":"a","version":"v2"}"#);
    let any = driver.open(&Options::grpclb(world.target(&balancer)));
    any.shares(&["6", "7"]);
    let only_seven = open("id--7");
    only_seven.shares(&["7"]);
    open("zone--a").shares(&["6", "7"]);
    open("version--v1.zone--a").shares(&["6"]);
    let nobody = open("version--v3");
    nobody.is_unavailable();

    // The backend leaves: its clients wait for it and use no other.
    world.etcd().ctl(&["del", &world.key("seven")]);
    any.shares(&["6"]);
    only_seven.is_unavailable();
    let waiting = only_seven.begin(&Calls::waiting(1));
    // It returns at another address, with the version that no backend had.
    let seven_again = Backend::start("7");
    say(&seven_again, "moved", r#"{"id":"7","zone":"b","version":"v3"}"#);
    assert_eq!(waiting.wait().from("7"), 1);
    only_seven.shares(&["7"]);
    nobody.shares(&["7"]);
    any.shares(&["6", "7"]);
}

/// The backends of the zones `a` and `b`.
const ZONES: [[&str; 3]; 2] = [["a1", "a2", "a3"], ["b1", "b2", "b3"]];

/// Starts a balancer whose service keeps calls in their zone, and three backends in each of
/// two zones. The clients of this machine are in zone `a`.
fn two_zones(world: &World, report_interval: &str) -> (Balancer, Vec<Backend>) {
    let config = world.directory.path().join("zones.toml");
    let document = "[service.'*']\nzones.mode = 'prefer'\n\
                    [zones]\n'127.0.0.0/8' = 'a'\n[zones.alias]\neu-1b = 'b'\n";
    std::fs::write(&config, document).expect("a file");
    let config = config.to_str().expect("a path");
    let balancer = world.balancer(&["--config", config, "--report-interval", report_interval]);
    let start = |(zone, id): (&str, &str)| {
        let backend = Backend::start(id);
        let metadata = format!(r#"{{"id":"{id}","zone":"{zone}"}}"#);
        let value = format!(r#"{{"Op":0,"Addr":"{}","Metadata":{metadata}}}"#, backend.addr());
        world.etcd().ctl(&["put", "--", &world.key(id), &value]);
        backend
    };
    let [here, there] = ZONES;
    let all = here.map(|id| ("A", id)).into_iter().chain(there.map(|id| ("eu-1b", id)));
    (balancer, all.map(start).collect())
}

/// Opens a client in zone `a` and one in zone `b`, which says so by its name.
fn in_both<'a>(world: &World, driver: &'a Driver, balancer: &Balancer) -> [Channel<'a>; 2] {
    let name = format!("zone--b.{SERVICE}.{}", world.zone());
    let targets = [world.target(balancer), world.target_of(balancer, &name)];
    targets.map(|target| driver.open(&Options::grpclb(target)))
}

/// The client of zone `a` makes many more calls than that of zone `b`, and so more than the
/// backends of its zone are to bear: the rest crosses. The other client's calls stay.
pub fn spill(world: &World, driver: &Driver) {
    let (balancer, _backends) = two_zones(world, "1s");
    let [busy, calm] = in_both(world, driver, &balancer);
    for client in [&busy, &calm] {
        client.until("it is connected", &Calls::new(1), |report| report.failed() == 0);
    }
    busy.start(&Calls::new(1).every(Duration::from_millis(5)));
    calm.start(&Calls::new(1).every(Duration::from_millis(50)));
    let crossing = format!("lookaside_service_zone_crossing_ratio{{service=\"{SERVICE}\"}}");
    // Of ten calls in eleven, half of all may stay; slow machines make fewer. Half of the calls
    // would cross if each client called all backends.
    eventually("calls cross", || {
        balancer.metric(&crossing).filter(|crossing| (0.25..0.46).contains(crossing))
    });
    let called = |report: &Report, ids: &[&str]| ids.iter().map(|id| report.from(id)).sum::<u64>();
    let [here, there] = ZONES;
    let report = calm.stop();
    assert_eq!(report.failed(), 0, "{report:?}");
    calm.until("its calls stay", &Calls::new(60), |report| {
        there.map(|id| report.from(id)) == [20; 3]
    });
    let report = busy.stop();
    assert_eq!(report.failed(), 0, "{report:?}");
    busy.until("the excess crosses", &Calls::new(200), |report| {
        let (stay, cross) = (called(report, &here), called(report, &there));
        stay + cross == 200 && (50..=100).contains(&cross)
    });
}

/// Both ends of a call are in one zone, until the zone is lost.
pub fn zones(world: &World, driver: &Driver) {
    // Without reports, clients count, and not their calls.
    let (balancer, _backends) = two_zones(world, "0s");
    let [here, there] = ZONES;
    let [near, far] = in_both(world, driver, &balancer);
    // A zone without clients would take calls of the other, and clients connect at their first
    // call. Calls that wait would count as another client: Ruby has a channel for them.
    for client in [&near, &far] {
        client.until("it is connected", &Calls::new(1), |report| report.failed() == 0);
    }
    near.shares(&here);
    far.shares(&there);
    let (_, metrics) = balancer.get("/metrics");
    let crossing = format!("lookaside_service_zone_crossing_ratio{{service=\"{SERVICE}\"}} 0");
    assert!(metrics.lines().any(|line| line.starts_with(&crossing)), "{metrics}");
    let (_, clients) = balancer.get("/api/v1/clients");
    assert!(clients.contains(r#""zone":"a""#) && clients.contains(r#""zone":"b""#), "{clients}");
    // The zone is lost: its clients go where there are backends.
    here.iter().for_each(|id| drop(world.etcd().ctl(&["del", &world.key(id)])));
    near.shares(&there);
    far.shares(&there);
}

/// A client asks for its target as written, or for what its config names.
pub fn spellings(world: &World, driver: &Driver) {
    let balancer = world.balancer(&[]);
    let _one = world.backend("one");
    let zone = world.zone();
    let upper = zone.to_uppercase();
    for name in [
        format!("hello.{zone}"),
        format!("hello.{zone}:8080"),
        format!("hello.{zone}."),
        format!("hello.{zone}.:8080"),
        format!("HeLLo.{upper}"),
        format!("HELLO.{upper}.:8080"),
    ] {
        let client = driver.open(&Options::txt(world.target_of(&balancer, &name)));
        let report = client.until("it is answered", &Calls::new(3), |r| r.from("one") == 3);
        assert_eq!(streams(&balancer), 1, "{name}: it asked the balancer: {report:?}");
        let (_, clients) = balancer.get("/api/v1/clients");
        assert!(clients.contains(&format!("\"{name}")), "{name}: {clients}");
        drop(client);
        eventually("its stream has ended", || (streams(&balancer) == 0).then_some(()));
    }
    if driver.language().family == Family::Java {
        // Java resolves a name without a scheme by DNS.
        driver.open(&Options::grpclb(format!("hello.{zone}"))).shares(&["one"]);
    }
    // A service below a directory, and one with a name that Java refuses.
    for (service, name) in [("dev/game", "game.dev"), ("hello_service", "hello_service")] {
        if name.contains('_') && driver.language().family == Family::Java {
            continue;
        }
        let mut two = Backend::start("two");
        two.register_below(&world.prefix(), &world.etcd().url(), service, Weight::DEFAULT);
        let name = format!("{name}.{zone}");
        driver.open(&Options::grpclb(world.target_of(&balancer, &name))).shares(&["two"]);
        // One backend by its id.
        let name = format!("id--two.{name}");
        driver.open(&Options::grpclb(world.target_of(&balancer, &name))).shares(&["two"]);
    }
}

/// A client passes over policies that it does not know, and a service that its config names
/// wins over the target's: Java refuses `_` in a target.
pub fn config(world: &World, driver: &Driver) {
    let balancer = world.balancer(&[]);
    let _one = world.backend("one");
    let mut other = Backend::start("other");
    let url = world.etcd().url();
    other.register_below(&world.prefix(), &url, "other_service", Weight::DEFAULT);
    let options = Options::grpclb(world.target(&balancer));
    let open = |config| driver.open(&options.clone().config(config));
    open(r#"{"loadBalancingConfig":[{"of_the_future":{}},{"grpclb":{}}]}"#).shares(&["one"]);
    // grpc-go 1.39 introduced the field; older releases ignore it.
    let named = if driver.language().name == "go-old" { "one" } else { "other" };
    open(r#"{"loadBalancingConfig":[{"grpclb":{"serviceName":"other_service"}}]}"#)
        .shares(&[named]);
}

/// Registrations that would break clients do not reach them. A port above 65535 or below 0
/// makes Java's channel panic, and Java accepts port 0. An address without 4 or 16 bytes
/// fails calls. C-core's process ends on a list with text that is not UTF-8.
pub fn odd_registrations(world: &World, driver: &Driver) {
    let balancer = world.balancer(&[]);
    let one = world.backend("one");
    let open = || driver.open(&Options::grpclb(world.target(&balancer)));
    let client = open();
    client.shares(&["one"]);
    client.start(&Calls::new(1).every(Duration::from_millis(5)));
    let rejected = || metric(&balancer, "lookaside_registry_rejected_keys");
    let odd = [bad_ports(world), bad_addresses(world)].concat();
    world.put_all(&odd);
    let mapped = Backend::start("mapped");
    let value = format!("[::ffff:127.0.0.1]:{}", mapped.addr().port());
    world.etcd().ctl(&["put", &world.key("mapped"), &value]);
    // This registration arrives, so the odd ones before it have arrived too.
    open().shares(&["one", "mapped"]);
    assert_eq!(rejected(), odd.len() as u64);

    world.put_all(&odd_text(world, &one.addr().to_string()));
    eventually("what cannot be read is counted", || {
        (rejected() >= odd.len() as u64 + 5).then_some(())
    });
    let two = world.backend("two");
    open().shares(&["one", "mapped", "two"]);
    two.stop();
    let meanwhile = client.stop();
    assert_eq!(meanwhile.failed(), 0, "{meanwhile:?}");
    client.shares(&["one", "mapped"]);
    for token in one.tokens() {
        let token = token.expect("every call carries a token");
        assert!(token.bytes().all(|byte| byte.is_ascii_graphic()), "{token:?}");
    }
}

pub type Pair = (Vec<u8>, Vec<u8>);

/// Returns registrations in every format whose port is out of range.
pub fn bad_ports(world: &World) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for port in ["0", "65536", "500053", "-1", "2147483648", "99999999999999999999"] {
        let address = format!("127.0.0.1:{port}");
        let values = [
            address.clone(),
            format!(r#"{{"Op":0,"Addr":"{address}"}}"#),
            format!(r#"{{"addr":"{address}","metadata":null}}"#),
            format!(r#"{{"host":"127.0.0.1","port":{port}}}"#),
        ];
        pairs.extend(values.into_iter().enumerate().map(|(format, value)| {
            (world.key(&format!("bad{port}-{format}")).into(), value.into())
        }));
        // Here the key itself is the address.
        pairs.push((world.key(&format!("127.0.0.2:{port}")).into(), Vec::new()));
    }
    pairs
}

pub fn bad_addresses(world: &World) -> Vec<Pair> {
    let addresses = ["256.0.0.1:80", "127.0.0.1.1:80", "[::1::]:80", "[fe80::1%lo]:80", ":80"];
    let pair = |(n, address): (usize, &&str)| {
        (world.key(&format!("bad{n}")).into(), address.as_bytes().to_vec())
    };
    addresses.iter().enumerate().map(pair).collect()
}

/// Returns registrations with keys and values of any bytes. Five of them cannot be read, and
/// the others are this address.
pub fn odd_text(world: &World, address: &str) -> Vec<Pair> {
    let odd_id = "\u{1}é\u{7f}\u{202e}\"\\ \u{10ffff}".repeat(20);
    let json = format!(
        r#"{{"Op":0,"Addr":"{address}","Metadata":{{"id":"\u0000\u0001é","\u0007":"\ud83d\ude00\u0000"}}}}"#
    );
    let broken = format!(r#"{{"Op":0,"Addr":"{address}","Metadata":""#);
    let broken = [broken.as_bytes(), b"\xff\xfe\"}"].concat();
    let long = "x".repeat(10_000);
    let hello = SERVICE.as_bytes();
    let registrations: [(&[u8], &[u8], &[u8]); 9] = [
        (hello, b"\xff\xfe", address.as_bytes()),
        (b"hel\xfflo", b"one", address.as_bytes()),
        (hello, b"bytes", b"\xff\xfe\x80"),
        (hello, b"json", json.as_bytes()),
        (hello, b"broken", &broken),
        (hello, b"long", long.as_bytes()),
        (hello, b"\x00", address.as_bytes()),
        (hello, odd_id.as_bytes(), address.as_bytes()),
        (hello, b"\xff", b"\xff"),
    ];
    let key = |service, id| [world.prefix().as_bytes(), service, b"/", id].concat();
    registrations.map(|(service, id, value)| (key(service, id), value.to_vec())).to_vec()
}
