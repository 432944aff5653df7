//! Tests names as typed and as registered, and which of them match.

use super::*;

#[track_caller]
fn check(raw: &str, name: &str, selectors: &[(&str, &str)]) {
    let zone = Zone::new("lookaside.internal").unwrap();
    let target = Target::parse(raw, &zone).unwrap();
    let found: Vec<_> =
        target.selectors.iter().map(|s| (s.key.as_str(), s.value.as_str())).collect();
    assert_eq!((&*target.name, found.as_slice()), (name, selectors), "{raw:?}");
}

#[track_caller]
fn refused(raw: &str) -> NameError {
    let zone = Zone::new("lookaside.internal").unwrap();
    Target::parse(raw, &zone).unwrap_err()
}

#[test]
fn port_dot_encoding_and_zone_are_dropped() {
    check("hello", "hello", &[]);
    check("hello:443", "hello", &[]);
    check("hello.lookaside.internal", "hello", &[]);
    check("Hello.LookAside.Internal.:50051", "Hello", &[]);
    check("greet.rpc.lookaside.internal:1", "greet.rpc", &[]);
    check("hello.example.com", "hello.example.com", &[]);
    check("hello%5fservice", "hello_service", &[]);
    check("dev%2Fgame", "dev/game", &[]);
    check("notlookaside.internal", "notlookaside.internal", &[]);
    check("grpc:server.test:v1:dev", "grpc:server.test:v1:dev", &[]);
}

#[test]
fn leading_labels_select() {
    check("id--7.game.dev", "game.dev", &[("id", "7")]);
    check("Zone--A.id--7.game.lookaside.internal", "game", &[("id", "7"), ("zone", "a")]);
    check("my--svc", "my--svc", &[]);
    check("xn--p1ai.example", "xn--p1ai.example", &[]);
    check("--x.y", "--x.y", &[]);
}

#[test]
fn a_service_may_be_called_like_a_selector() {
    let zone = Zone::new("lookaside.internal").unwrap();
    let target = |raw: &str| Target::parse(raw, &zone).unwrap();
    let album = target("id--7.album-api--First.env1.lookaside.internal:443");
    let names: Vec<_> = album.longer().iter().map(|one| &*one.name).collect();
    assert_eq!(names, ["id--7.album-api--First.env1", "album-api--First.env1"]);
    let selected = |target: &Target, service: &str| {
        let service = ServiceName::new(service).unwrap();
        let all = target.selectors_for(&service).iter();
        all.map(|s| format!("{}={}", s.key, s.value)).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(selected(&album, "id--7.album-api--First.env1"), "");
    assert_eq!(selected(&album, "album-api--First.env1"), "id=7");
    assert_eq!(selected(&album, "env1/Album-API--first"), "id=7");
    assert_eq!(selected(&album, "env1"), "album-api=first id=7");
    assert_eq!(target("hello").longer(), []);
    assert_eq!(selected(&target("hello"), "hello"), "");

    let many = target(&format!("{}x", "a--b.".repeat(10)));
    assert_eq!((many.longer().len(), &*many.name), (SELECTORS_MAX, "a--b.a--b.x"));
}

#[test]
fn a_name_cut_within_the_zone_is_still_found() {
    let service = "s".repeat(115);
    let whole = format!("{service}.lookaside.internal");
    check(&whole[..128], &service, &[]);
    check(&format!("{}.l", "s".repeat(20)), &format!("{}.l", "s".repeat(20)), &[]);
}

#[test]
fn what_means_no_service_is_refused() {
    assert_eq!(refused(""), NameError::Empty(String::new()));
    for raw in [".", ":443", "lookaside.internal", "id--7.lookaside.internal.", "a..b", ".a"] {
        // A single label `key--value` is a service's name, with or without the zone after
        // it.
        if raw.starts_with("id") {
            check(raw, "id--7", &[]);
        } else {
            assert_eq!(refused(raw), NameError::Empty(raw.to_owned()));
        }
    }
    assert_eq!(refused(&"a".repeat(10_240)), NameError::TooLong(10_240));
    assert_eq!(refused("a b"), NameError::Character("a b".to_owned()));
    assert_eq!(refused("a\u{0}b"), NameError::Character("a\u{0}b".to_owned()));
    assert_eq!(refused("a%zz"), NameError::Character("a%zz".to_owned()));
    assert_eq!(refused("a%ff"), NameError::Character("a%ff".to_owned()));
}

#[test]
fn services_are_found_exactly_by_path_and_by_folding() {
    let check = |typed: &str, service: &str, expected| {
        let service = ServiceName::new(service).unwrap();
        assert_eq!(matches(typed, &service), expected, "{typed} {service}");
    };
    check("hello", "hello", Some(Match::Exact));
    check("greet.rpc", "greet.rpc", Some(Match::Exact));
    check("game.dev", "dev/game", Some(Match::Path));
    check("Game.Dev", "dev/game", Some(Match::Folded));
    check("hello", "Hello", Some(Match::Folded));
    check("dev/game", "dev/game", Some(Match::Exact));
    check("game.dev", "game/dev", None);
    check("hello", "hello2", None);
}

#[test]
fn services_that_nobody_could_ask_for_have_no_name() {
    for bad in [".", "..", "a/..", "a//b", "/a", "a/", "a.", ".a", "a..b", "/"] {
        assert_eq!(ServiceName::new(bad), Err(NameError::Label(bad.to_owned())));
    }
    for (bad, error) in [("a b", "Character"), (" ", "Character"), ("", "Empty")] {
        assert!(format!("{:?}", ServiceName::new(bad)).contains(error), "{bad:?}");
    }
}

#[test]
fn zones() {
    assert_eq!(Zone::new("Example.").unwrap().as_str(), "example");
    for bad in ["", ".", "a..b", "a b", &"a".repeat(64)] {
        assert_eq!(Zone::new(bad), Err(NameError::Zone(bad.to_owned())));
    }
}

#[test]
fn a_service_is_known_to_take_clients_from_the_services_that_its_name_could_select() {
    for (service, expected) in [
        ("pay", &[][..]),
        ("a--b", &[]),
        ("dev/a--b", &["dev"]),
        ("xn--bcher-kva.pay", &[]),
        ("--b.pay", &[]),
        ("id--7.pay", &["pay"]),
        ("ID--7.Pay", &["pay"]),
        ("dev/pay/id--7", &["pay.dev"]),
        ("zone--a.id--7.pay", &["id--7.pay", "pay", "zone--a.pay"]),
        // Typed as it is, `id--7.dev/pay` would select backends of dev/pay.
        ("id--7.dev/pay", &["pay.dev"]),
        ("pay.id--7", &[]),
    ] {
        assert_eq!(ServiceName::new(service).unwrap().selections(), expected, "{service}");
    }
}

proptest::proptest! {
    /// Whatever a client types that means a service: each shorter reading is known.
    #[test]
    fn every_way_to_type_a_name_that_selects_is_known(
        service in "(a--b|id--7|x|pay)([./](a--b|id--7|x|pay)){0,5}",
        slashes in proptest::collection::vec(proptest::prelude::any::<bool>(), 6),
    ) {
        let service = ServiceName::new(&service).unwrap();
        // Every name with the same canonical form: its labels, grouped as a path.
        let mut segments: Vec<Vec<String>> = vec![Vec::new()];
        for (label, ends) in service.canonical().split('.').zip(slashes) {
            segments.last_mut().unwrap().push(label.to_owned());
            if ends {
                segments.push(Vec::new());
            }
        }
        segments.retain(|labels| !labels.is_empty());
        let joined: Vec<_> = segments.iter().rev().map(|labels| labels.join(".")).collect();
        let typed = joined.join("/");
        proptest::prop_assert!(matches(&typed, &service).is_some());
        let target = Target::parse(&typed, &Zone::new("lookaside.internal").unwrap()).unwrap();
        let known = service.selections();
        let shorter = target.longer().iter().skip(1).map(Reading::canonical);
        let shorter = shorter.chain((!target.longer().is_empty()).then(|| target.canonical()));
        for one in shorter {
            proptest::prop_assert!(known.contains(&one), "{typed}: {one} {known:?}");
        }
    }
}
