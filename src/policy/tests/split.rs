//! Tests the split of calls, clients and keys, and the assignment of keys to backends.

use super::*;
use crate::settings::{ServiceSettings, SplitKey, SplitSetting};

/// Returns the class of a client at an address whose name selects this.
fn class(service: &Service, selectors: &[Selector], client: Option<IpAddr>) -> Class {
    let class = Class::new(selectors);
    let part = client.map(|client| part(service, &class, client, true));
    class.with_part(part.unwrap_or_default())
}

/// Makes a service with these keys of its split.
fn splitting(endpoints: &[&str], keys: &[(SplitKey, &str)]) -> Service {
    let mut settings = ServiceSettings::DEFAULT;
    for &(key, text) in keys {
        settings.split.set(SplitSetting::parse(key, text).unwrap());
    }
    let service = service(endpoints);
    Service::new(1, service.snapshot, settings)
}

fn canary(endpoints: &[&str], percent: &str, by: &str) -> Service {
    let keys = [(SplitKey::Select, "version=v2"), (SplitKey::Percent, percent), (SplitKey::By, by)];
    splitting(endpoints, &keys)
}

fn selecting(all: &[(&str, &str)]) -> Vec<Selector> {
    all.iter().map(|&(key, value)| Selector { key: key.into(), value: value.into() }).collect()
}

fn keyed(key: &str) -> Class {
    Class::new(&selecting(&[("hash", key)]))
}

fn ids(service: &Service, class: &Class) -> String {
    let decision = decide_explained(service, class);
    let id = |pick: &Pick| &*service.endpoints[pick.endpoint as usize].id;
    decision.picks().iter().map(id).collect()
}

#[track_caller]
fn why(service: &Service, place: usize, class: &Class) -> String {
    let findings = explain(service, class).of(place);
    findings.last().map(|one| format!("{} {} {one}", one.pass, one.kept)).unwrap()
}

const FOUR: [&str; 4] = ["a 1", "b 1 version=v1", "c 1 Version=V2", "d 1 version=v2 zone=x"];

#[test]
fn calls_are_split_and_both_groups_are_listed() {
    let service = canary(&FOUR, "5", "calls");
    let whole = Class::default();
    assert_eq!(ids(&service, &whole), "abcd");
    let decision = decide(&service, &whole);
    let split = decision.split().unwrap();
    assert_eq!(split.canaries[..], [false, false, true, true]);
    let dues = [0.475, 0.475, 0.025, 0.025];
    assert!(decision.dues().iter().zip(dues).all(|(a, b)| (a - b).abs() < 1e-9));
    let expected = "split true version=v2 gets 5 % of the calls: it is";
    assert_eq!(why(&service, 0, &whole), format!("{expected} none of these backends"));
    assert_eq!(why(&service, 2, &whole), format!("{expected} one of these backends"));
    // A name that selects by the key of the split is not split, and other names are.
    for (selectors, expected, is_split) in [
        (&[("version", "v2")][..], "cd", false),
        (&[("version", "v1")], "b", false),
        (&[("zone", "x")], "d", false),
        (&[], "abcd", true),
    ] {
        let class = Class::new(&selecting(selectors));
        assert_eq!(ids(&service, &class), expected);
        assert_eq!(decide(&service, &class).split().is_some(), is_split);
    }
    for (percent, expected) in [("0", "ab"), ("100", "cd")] {
        assert_eq!(ids(&canary(&FOUR, percent, "calls"), &whole), expected);
    }
}

#[test]
fn a_group_gets_everything_if_the_other_is_empty() {
    let whole = Class::default();
    for by in ["calls", "clients"] {
        for percent in ["0", "5", "100"] {
            let client = Some([192, 0, 2, 1].into());
            for (endpoints, expected) in [
                (["a 1", "b 1 version=v2 lame-duck=true"], "a"),
                (["a 0", "b 1 version=v2"], "b"),
                (["a 0", "b 0 version=v2"], ""),
            ] {
                let service = canary(&endpoints, percent, by);
                assert_eq!(ids(&service, &class(&service, &[], client)), expected);
                assert_eq!(ids(&service, &whole), expected);
                assert!(decide(&service, &whole).split().is_none());
            }
        }
    }
    let service = canary(&["a 1", "b 1 version=v2 lame-duck=true"], "5", "calls");
    let expected = "split true version=v2 gets 5 % of the calls: no such backend is left, so the \
                    others get all";
    assert_eq!(why(&service, 0, &whole), expected);
}

#[test]
fn clients_are_split_by_address() {
    let client = |n: u32| IpAddr::from(n.to_be_bytes());
    let inside = |service: &Service| -> Vec<u32> {
        let part = |n: &u32| class(service, &[], Some(client(*n))).part();
        (0..4_000).filter(|n| part(n) == Part::Canaries).collect()
    };
    let (five, twenty) = (canary(&FOUR, "5", "clients"), canary(&FOUR, "20", "clients"));
    let (few, more) = (inside(&five), inside(&twenty));
    assert!(few.len().abs_diff(200) < 60 && more.len().abs_diff(800) < 120);
    assert!(few.iter().all(|n| more.contains(n)), "a greater share moves no canary's client");
    let class_of = |n| class(&five, &[], Some(client(n)));
    let canary_client = class_of(few[0]);
    let other = (0..).map(class_of).find(|class| class.part() == Part::Others).unwrap();
    assert_eq!((ids(&five, &canary_client), ids(&five, &other)), ("cd".into(), "ab".into()));
    let expected = "split false the client does not belong to the 5 % of clients for version=v2: \
                    it is one of these backends";
    assert_eq!(why(&five, 2, &other), expected);
    // The same client by IPv6, and an unknown client (DNS), which gets both groups.
    let IpAddr::V4(ip) = client(few[0]) else { panic!("it is IPv4") };
    assert_eq!(class(&five, &[], Some(ip.to_ipv6_mapped().into())), canary_client);
    assert_eq!(ids(&five, &class(&five, &[], None)), "abcd");
    // Names that select by the key of the split are not split.
    let explicit = selecting(&[("version", "v1")]);
    assert_eq!(ids(&five, &class(&five, &explicit, Some(client(few[0])))), "b");
    // Another version has other clients.
    let keys = [(SplitKey::Select, "version=v3"), (SplitKey::Percent, "5")];
    let keys = [&keys[..], &[(SplitKey::By, "clients")]].concat();
    assert_ne!(inside(&splitting(&FOUR, &keys)), few);
}

/// tonic-xds takes backends at random, so a client of it would give canaries as many calls as
/// their number is.
#[test]
fn a_split_of_calls_divides_clients_that_do_not_obey_weights() {
    let service = canary(&FOUR, "5", "calls");
    let class = |n: u32, obeys_weights| {
        let (whole, address) = (Class::default(), IpAddr::from(n.to_be_bytes()));
        whole.clone().with_part(part(&service, &whole, address, obeys_weights))
    };
    assert_eq!(ids(&service, &class(1, true)), "abcd");
    let canaries = (0..4_000).filter(|&n| match &*ids(&service, &class(n, false)) {
        "cd" => true,
        "ab" => false,
        other => panic!("{other}"),
    });
    assert!(canaries.count().abs_diff(200) < 60);
    assert!(decide(&service, &class(1, false)).split().is_none());
}

#[test]
fn a_ramp_has_the_share_that_the_catalog_says() {
    let keys = [
        (SplitKey::Select, "version=v2"),
        (SplitKey::Ramp, "1% 1m, 100%"),
        (SplitKey::Begins, "2026-12-01T10:00:00Z"),
    ];
    let service = splitting(&FOUR, &keys);
    let whole = Class::default();
    assert_eq!(ids(&service, &whole), "ab", "it has not begun");
    let at =
        |share| service.clone().with_facts(Facts { ramp_share: Some(share), ..Facts::default() });
    assert_eq!(ids(&at(Factor::millionths(10_000)), &whole), "abcd");
    assert_eq!(ids(&at(Factor::ONE), &whole), "cd");
}

#[test]
fn a_key_has_one_backend_and_only_its_keys_move() {
    let all: Vec<_> = (0..10).map(|n| format!("{n} 1 zone={}", n % 2)).collect();
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    let before = service(&all);
    let after = service(&all[1..]);
    let mut moved = 0;
    for n in 0..2_000 {
        let class = keyed(&format!("user{n}"));
        let decision = decide(&before, &class);
        assert_eq!(decision.picks().len(), 1);
        let (was, is) = (ids(&before, &class), ids(&after, &class));
        assert!(was == is || was == "0", "a key moves only if its backend leaves");
        moved += u32::from(was != is);
    }
    assert!((150..250).contains(&moved), "{moved} of 2,000 keys");
    let both = Class::new(&selecting(&[("hash", "user1"), ("zone", "1")]));
    assert!(["1", "3", "5", "7", "9"].contains(&&*ids(&before, &both)));
    assert_eq!(ids(&before, &Class::new(&selecting(&[("hash", "x"), ("zone", "7")]))), "");
    let class = keyed("user1");
    let owner: usize = ids(&before, &class).parse().unwrap();
    let expected = "affinity true the name's key user1 is assigned to this backend";
    assert_eq!(why(&before, owner, &class), expected);
    let other = (owner + 1) % 10;
    let expected = "affinity false the name's key user1 is assigned to another backend";
    assert_eq!(why(&before, other, &class), expected);
    let hashed = service(&["a 1 hash=user1"]);
    let expected = "affinity true the name's key user1 is assigned to this backend; its metadata \
                    hash is not looked at";
    assert_eq!(why(&hashed, 0, &class), expected);
}

#[test]
fn backends_with_one_id_share_its_keys() {
    let service = service(&["a 1", "a 1", "a 1"]);
    let mut counts = [0_u32; 3];
    for n in 0..3_000 {
        let picks = decide(&service, &keyed(&n.to_string()));
        counts[picks.picks()[0].endpoint as usize] += 1;
    }
    assert!(counts.iter().all(|&count| count.abs_diff(1_000) < 150), "{counts:?}");
}

#[test]
fn keys_are_split_and_follow_slow_start() {
    let service = canary(&FOUR, "25", "calls");
    let in_canaries = (0..2_000)
        .filter(|n| matches!(&*ids(&service, &keyed(&format!("user{n}"))), "c" | "d"))
        .count();
    assert!(in_canaries.abs_diff(500) < 100, "{in_canaries}");
    let by_clients = canary(&FOUR, "25", "clients");
    let class = keyed("user1");
    let one =
        self::class(&by_clients, &selecting(&[("hash", "user1")]), Some([10, 0, 0, 1].into()));
    assert_eq!(one, class, "all clients of a key use one backend");
    assert_eq!(ids(&by_clients, &class), ids(&service, &class));
    let all = self::service(&["a 1", "b 1", "c 1"]);
    let newcomers = Newcomers {
        starting: [(all.endpoints[2].addr, Factor::millionths(100_000))].into(),
        delayed: [].into(),
    };
    let starting =
        all.clone().with_facts(Facts { newcomers: Some(Arc::new(newcomers)), ..Facts::default() });
    let keys = |service: &Service| -> Vec<usize> {
        let owns = |n: &usize| ids(service, &keyed(&n.to_string())) == "c";
        (0..2_100).filter(owns).collect()
    };
    let (few, due) = (keys(&starting), keys(&all));
    assert!(few.len().abs_diff(100) < 40 && due.len().abs_diff(700) < 100, "{}", few.len());
    assert!(few.iter().all(|key| due.contains(key)), "a key that came stays");
}

#[test]
fn thousands_of_keys_cost_one_look_at_the_service() {
    let all: Vec<_> = (0..1_000).map(|n| format!("{n} 1")).collect();
    let service = service(&all.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!((work(&service, &keyed("a")), most(&service, &keyed("a"))), (1_000, 1));
    assert_eq!(decide(&service, &keyed("a")).picks().len(), 1);
    assert_eq!((work(&service, &keyed("a")), work(&service, &keyed("b"))), (125, 125));
    assert_eq!(work(&service, &Class::default()), 1_000);
}

proptest! {
    /// Whatever the service and the split are, a decision has only backends that the other
    /// passes keep, and it is empty only if they keep none.
    #[test]
    fn a_split_chooses_among_eligible_backends(
        all in prop::collection::vec((0..3_u32, 0..3_u8), 1..12),
        percent in 0..=100_u32, clients in any::<bool>(), ip in any::<[u8; 4]>(),
        key in prop::option::of("[a-c]{1,2}"),
    ) {
        let texts: Vec<_> = all.iter().enumerate()
            .map(|(n, (weight, version))| format!("{n} {weight} version=v{version}")).collect();
        let texts: Vec<_> = texts.iter().map(String::as_str).collect();
        let by = if clients { "clients" } else { "calls" };
        let service = canary(&texts, &percent.to_string(), by);
        let selectors: Vec<_> = key.iter().map(|key| ("hash", key.as_str())).collect();
        let class = self::class(&service, &selecting(&selectors), Some(ip.into()));
        let decision = decide_explained(&service, &class);
        let taken = |pick: &Pick| all[pick.endpoint as usize].0 > 0;
        prop_assert!(decision.picks().iter().all(taken));
        prop_assert_eq!(decision.picks().is_empty(), all.iter().all(|one| one.0 == 0));
        prop_assert!(decision.picks().len() <= most(&service, &class));
        let dues: f64 = decision.dues().iter().sum();
        prop_assert!(decision.picks().is_empty() || (dues - 1.0).abs() < 1e-9);
    }
}
