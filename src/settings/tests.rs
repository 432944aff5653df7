//! Tests of valid and invalid documents, and of the settings in force for a service.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::tables::{self, Problem};

fn document(text: &str) -> Arc<Document> {
    Arc::new(Document::parse(text).unwrap_or_else(|problems| panic!("{problems:?}")))
}

fn settings(file: &str, store: &str) -> Settings {
    let (file, store) = (Some(document(file)), Some(document(store)));
    Settings::new(ServiceSettings::DEFAULT).with(file, store)
}

fn of(settings: &Settings, service: &str) -> ServiceSettings {
    (*settings.for_service(&ServiceName::new(service).unwrap())).clone()
}

#[track_caller]
fn problems(text: &str) -> Vec<String> {
    let problems = Document::parse(text).expect_err("a problem");
    problems.iter().map(ToString::to_string).collect()
}

fn within(text: &str) -> Result<Document, Vec<Problem>> {
    let (document, problems) = tables::parse(text, Document::within);
    document.ok_or(problems)
}

#[test]
fn the_most_specific_pattern_wins_key_by_key() {
    let document = "
        version = 1
        [service.'*']
        guard = 10
        when-empty = 'drop'
        keep-lost = '1m'
        [service.'dev/*']
        guard = 20
        when-empty = 'fallback'
        [service.'dev/game*']
        guard = '30'
        [service.'dev/game']
        report-interval = '0s'
        probe-unleased = '30s'
        slow-start = '1m'
        flap-delay = '5m'
        health = { kind = 'observe', name = 'greet.Greeter', interval = '5s', fall = 3 }
        zones = { mode = 'prefer', key = 'AZ' }
    ";
    let settings = settings("", document);
    let game = of(&settings, "dev/game");
    let expected = ServiceSettings {
        when_empty: WhenEmpty::Fallback,
        report_interval: Duration::ZERO,
        guard: 30,
        keep_lost: Duration::from_secs(60),
        probe_unleased: Duration::from_secs(30),
        slow_start: Duration::from_secs(60),
        flap_delay: Duration::from_secs(300),
        health: HealthSettings {
            kind: HealthKind::Observe,
            name: Some("greet.Greeter".into()),
            interval: Duration::from_secs(5),
            fall: 3,
            ..ServiceSettings::DEFAULT.health
        },
        zones: ZoneSettings { mode: ZoneMode::Prefer, key: Some("az".into()) },
        ..ServiceSettings::DEFAULT
    };
    assert_eq!(game, expected);
    // The dotted name and another letter case name the same service.
    assert_eq!((of(&settings, "game.dev"), of(&settings, "Dev/GAME")), (game.clone(), game));
    assert_eq!((of(&settings, "dev/games").guard, of(&settings, "dev/x").guard), (30, 20));
    assert_eq!((of(&settings, "game").guard, of(&settings, "development").guard), (10, 10));
    let why = settings.explain("game.dev");
    let why = why.iter().filter(|one| one.layer != Layer::Flags);
    let why: Vec<_> = why
        .map(|one| (one.setting.key().as_str(), one.layer, one.pattern.as_deref().unwrap()))
        .collect();
    let game = "dev/game";
    let expected = [
        ("when-empty", "dev/*"),
        ("report-interval", game),
        ("guard", "dev/game*"),
        ("keep-lost", "*"),
        ("probe-unleased", game),
        ("slow-start", game),
        ("flap-delay", game),
        ("health.kind", game),
        ("health.name", game),
        ("health.interval", game),
        ("health.fall", game),
        ("zones.mode", game),
        ("zones.key", game),
    ];
    assert_eq!(why, expected.map(|(key, pattern)| (key, Layer::Store, pattern)));
}

#[test]
fn etcd_wins_over_the_file_and_the_file_over_the_flags() {
    let file = "[service.hello]\nguard = 1\nkeep-lost = '1m'\n";
    let store = "[service.'*']\nguard = 2\n";
    let settings = settings(file, store);
    let hello = of(&settings, "hello");
    assert_eq!((hello.guard, hello.keep_lost), (2, Duration::from_secs(60)));
    assert_eq!(hello.when_empty, ServiceSettings::DEFAULT.when_empty);
    let layers: Vec<_> = settings.explain("hello").iter().map(|one| one.layer).collect();
    use Layer::{File, Flags, Store};
    assert_eq!(layers[..4], [Flags, Flags, Store, File]);
    assert!(layers[4..].iter().all(|layer| *layer == Flags));
    let defaults = Settings::new(ServiceSettings::DEFAULT);
    assert!(
        Arc::ptr_eq(&defaults.for_canonical("a"), &defaults.for_canonical("b")),
        "one value for all"
    );
}

#[test]
fn every_problem_is_reported_with_its_place() {
    let text = "version = 2\nlisten = ':1'\n[service.hello]\nguard = 101\n  keep_lost = '1s'\n\
                colour = 'red'\nwhen-empty = true\nreport-interval = '10ms'\n\
                [service.'a b']\n[service.'x..y']\n[service]\nz = 3\n";
    let found = problems(text);
    let expected = [
        "1:11: version is 2: this lookaside reads version = 1",
        "2:1: \"listen\" is no part of a settings document",
        "4:9: [service.\"hello\"] guard: \"101\" is no number from 0 to 100",
        "5:3: [service.\"hello\"]: \"keep_lost\" is no setting: write keep-lost",
        "6:1: [service.\"hello\"]: \"colour\" is no setting: expected one of when-empty, report",
        "7:14: [service.\"hello\"] when-empty: it is boolean: write text",
        "8:19: [service.\"hello\"] report-interval: \"10ms\" is neither 0s nor from 1s to 1day",
        "9:10: the pattern \"a b\" can match no service",
        "10:10: the pattern \"x..y\" can match no service",
        "12:1: service.\"z\" is integer: write [service.\"z\"]",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\n{expected}");
    }
    assert!(problems("version = \n").iter().any(|one| one.contains("this is no TOML")));
    assert!(problems("service = 1")[0].contains("expected [service.\"PATTERN\"] tables"));
}

#[test]
fn a_table_of_settings_can_be_written_in_every_way_of_toml() {
    let expected = of(&settings("", "[service.a]\nhealth = { kind = 'tcp', fall = '3' }\n"), "a");
    assert_eq!((expected.health.kind, expected.health.fall), (HealthKind::Tcp, 3));
    for text in [
        "[service.a]\nhealth.kind = 'tcp'\nhealth.fall = 3\n",
        "[service.a.health]\nkind = 'tcp'\nfall = 3\n",
        "[service.a]\n'health.kind' = 'tcp'\n'health.fall' = 3\n",
    ] {
        assert_eq!(of(&settings("", text), "a"), expected, "{text}");
    }
    let shown = document("[service.a.health]\nkind = 'tcp'\nname = 'a.\"b'\n");
    assert_eq!(document(&shown.to_string()), shown);
    let text = "[service.a]\nhealth = 'tcp'\nguard.x = 1\n[service.b.health]\nkinds = 'tcp'\n\
                interval = '0s'\ntimeout = '2m'\nfall = 0\nname = \"a\\u0007\"\nkind = 'http'\n";
    let expected = [
        "2:1: [service.\"a\"]: \"health\" is no setting: write health = { … } with some of kind,",
        "3:1: [service.\"a\"] guard: it is table: write text",
        "5:1: [service.\"b\"]: \"health.kinds\" is no setting: expected one of kind, name,",
        "6:12: [service.\"b\"] health.interval: \"0s\" is not from 1s to 1h",
        "7:11: [service.\"b\"] health.timeout: \"2m\" is not from 100ms to 1m",
        "8:8: [service.\"b\"] health.fall: \"0\" is no number from 1 to 100",
        "9:8: [service.\"b\"] health.name: \"a\\u{7}\" holds the control character",
        "10:8: [service.\"b\"] health.kind: \"http\" is none of off, grpc, tcp and observe",
    ];
    let found = problems(text);
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\n{expected}");
    }
}

#[test]
fn a_split_has_one_share() {
    let text = "[service.'*']\nsplit = { select = 'version=v2', percent = 5, by = 'clients' }\n\
                [service.ramped.split]\nramp = '1% 10m, 100%'\nbegins = '2026-12-01T10:00:00Z'\n\
                [service.'fixed*'.split]\nramp = '1% 10m, 100%'\nbegins = '2026-12-01T10:00:00Z'\n\
                [service.fixed.split]\npercent = '0.5%'\n";
    let settings = settings("", text);
    let shown = |service: &str| -> Vec<String> {
        let keys = Key::ALL.into_iter().filter(|key| matches!(key, Key::Split(_)));
        let shown: Vec<_> = keys.map(|key| of(&settings, service).get(key).to_string()).collect();
        // What is explained is what is in force.
        let why = settings.explain(service);
        let why = why.iter().filter(|one| matches!(one.setting.key(), Key::Split(_)));
        assert_eq!(why.map(|one| one.setting.to_string()).collect::<Vec<_>>(), shown);
        shown
    };
    assert_eq!(shown("a"), ["version=v2", "clients", "5", "", ""]);
    let begins = "2026-12-01T10:00:00Z";
    assert_eq!(shown("ramped"), ["version=v2", "clients", "0", "1% 10m, 100%", begins]);
    assert_eq!(shown("fixed"), ["version=v2", "clients", "0.5", "", ""]);
    let text = "[service.a.split]\npercent = 5\nramp = '5%'\n[service.b.split]\nramp = '5%'\n\
                [service.c.split]\nbegins = '2026-12-01T10:00:00Z'\n\
                [service.d.split]\nselect = 'v2'\npercent = 0.5\n";
    let expected = [
        "3:1: [service.\"a\"] split.ramp: the table has split.percent too: keep one of them",
        "5:1: [service.\"b\"] split.ramp: the table has no split.begins: say when the first",
        "7:1: [service.\"c\"] split.begins: the table has no split.ramp: write its steps",
        "9:10: [service.\"d\"] split.select: \"v2\" is not KEY=VALUE",
        "10:11: [service.\"d\"] split.percent: it is float: write text",
    ];
    let found = problems(text);
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\n{expected}");
    }
    let both = "[service.'a*'.split]\npercent = 5\n[service.'*a'.split]\nramp = '5%'\n\
                begins = '2026-12-01T10:00:00Z'\n";
    assert!(problems(both)[0].contains("neither is more specific"), "{:?}", problems(both));
}

#[test]
fn zones_of_networks_are_read_and_merged() {
    let file = "[zones]\n'10.0.0.0/8' = 'A'\n'10.1.0.0/16' = 'b'\n";
    let store = "[zones]\n'10.0.0.0/8' = 'eu-1c'\n[zones.alias]\nEU-1C = 'c'\n";
    let settings = settings(file, store);
    let zone = |address: &str| settings.zones().zone_of(address.parse().unwrap());
    assert_eq!((zone("10.2.0.1"), zone("10.1.0.1")), (Some("c".into()), Some("b".into())));
    assert_eq!(zone("11.0.0.1"), None);
    // Zones alone are a document too, and what is shown is read again.
    for text in [file, store] {
        let zones = document(text);
        assert_eq!((zones.is_empty(), zones.len()), (false, 0));
        assert_eq!(document(&zones.to_string()), zones);
    }
    let same = settings.with(Some(document(file)), Some(document(store)));
    assert!(Arc::ptr_eq(settings.zones(), same.zones()), "an equal table is shared");
    assert!(settings.with(None, None).zones().is_empty());
    let text = "[zones]\n'10.1.2.3/16' = 'a'\n'10.0.0.0/8' = 1\n'::1' = ''\n\
                '10.3.0.0/16' = 'a'\n'::ffff:10.3.0.0/112' = 'b'\nhosts = { a = 'a' }\n\
                [zones.alias]\nx = 'y'\ny = 'z'\nX = 'z'\n";
    let expected = [
        "2:1: [zones]: \"10.1.2.3/16\" is no network, but an address in 10.1.0.0/16",
        "3:16: [zones]: it is integer: write the name of a zone",
        "4:9: [zones]: the name of a zone is empty",
        "6:1: [zones]: 10.3.0.0/16 has two zones: name it once",
        "7:1: [zones]: \"hosts\" is no network",
        "9:1: [zones.alias]: \"x\" has two zones: name it once",
        "9:5: [zones.alias]: \"x\" stands for \"y\", which is an alias itself",
    ];
    let found = problems(text);
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\n{expected}");
    }
    assert!(problems("zones = 1")[0].contains("zones is integer: write [zones]"));
    assert!(problems("[service.a]\nzones.mode = 'strict'")[0].contains("none of off and prefer"));
    assert!(problems("[service.a]\nzones.key = ''")[0].contains("no key of metadata"));
    assert!(problems("[service.a]\nsubset.least = 7")[0].contains("no number from 8 to 10000"));
    assert!(problems("[service.a]\nshed.mode = 'on'")[0].contains("none of off and overload"));
    assert!(problems("[service.a]\nshed.most = 96")[0].contains("no number from 1 to 95"));
}

#[test]
fn patterns_that_contradict_each_other_are_named() {
    let contradicts = |a: &str, b: &str| {
        let text = format!("[service.'{a}']\nguard = 1\n[service.'{b}']\nguard = 2\n");
        match Document::parse(&text) {
            Ok(_) => false,
            Err(problems) => {
                let problem = problems[0].to_string();
                assert!(problem.contains(&format!("\"{a}\"")), "{problem}");
                assert!(problem.contains(&format!("\"{b}\"")), "{problem}");
                true
            }
        }
    };
    assert!(contradicts("a*", "*a"));
    assert!(contradicts("dev/*", "*.dev"), "one pattern in two spellings");
    assert!(contradicts("dev/game", "Game.Dev"));
    assert!(contradicts("a*c", "*bc"));
    assert!(!contradicts("a*", "b*"), "no name matches both");
    assert!(!contradicts("a*c", "a*d") && !contradicts("a*b*c", "aab*d"));
    let both = "[service.'a*']\nguard = 1\nkeep-lost = '1s'\n\
                [service.'*a']\nguard = 2\nkeep-lost = '2s'\n";
    assert_eq!(problems(both).len(), 2, "no problem hides another");
    assert!(!contradicts("ab*", "*a"), "one is more specific");
    assert!(!contradicts("a", "*"));
    let same = "[service.'a*']\nguard = 1\n[service.'*a']\nguard = 1\nkeep-lost = '1s'\n";
    assert_eq!(of(&settings("", same), "aa").keep_lost, Duration::from_secs(1));
}

#[test]
fn what_is_too_much_is_refused() {
    let long = format!("# {}\n", "x".repeat(DOCUMENT_MAX));
    assert!(problems(&long)[0].starts_with("1:1: the document has 262147 bytes: at most 262144"));
    // The file may be longer: its size is bounded where it is read.
    assert!(within(&long).unwrap().is_empty());
    let many: String = (0..300).map(|n| format!("[service.'a{n}*']\nguard = 1\n")).collect();
    assert!(problems(&many)[0].contains("one with a star too many: at most 256"));
    let pattern = format!("[service.'{}*']\n", "a".repeat(200));
    assert!(problems(&pattern)[0].contains("with a star, at most 128"));
    let pattern = format!("[service.'{}']\n", "a".repeat(300));
    assert!(problems(&pattern)[0].contains("at most 255"));
    let value = format!("[service.a]\nwhen-empty = '{}'\n", "é".repeat(1000));
    assert!(problems(&value)[0].contains("has 2000 bytes: at most 64"));
    let key = format!("[service.a]\n{} = 1\n", "k".repeat(1000));
    assert!(problems(&key)[0].len() < 400, "{}", problems(&key)[0]);
    assert!(problems("[service.greet.rpc]\nguard = 1\n")[0].contains("stands in quotes"));
    let wrong: String = (0..300).map(|n| format!("x{n} = 1\n")).collect();
    assert_eq!(problems(&wrong).len(), 100);
    // The longest document is parsed quickly.
    let most: String = (0..8000).map(|n| format!("[service.a{n}]\nguard = 1\n")).collect();
    assert_eq!(document(&most).len(), 8000);
}

#[test]
fn tables_stand_in_a_file_beside_settings_of_the_process() {
    let text = "listen = ':1'\n[service.hello]\nguard = 3\n[format.mine]\nkey = 'x'\n";
    let document = within(text).unwrap();
    assert_eq!(document.len(), 1);
    let wrong = within("[service.hello]\nguard = 300\n").unwrap_err();
    assert_eq!((wrong[0].line, wrong[0].column), (2, 9));
}

#[test]
fn patterns_that_match_nothing_are_found() {
    let settings = settings("[service.nobody]\n[service.'*']\n", "[service.'dev/*']\n");
    let names = |all: &[&str]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
    let missed = settings.unmatched(&names(&["hello", "game.dev"]));
    assert_eq!(missed, [(Layer::File, "nobody".to_owned())]);
    let missed = settings.unmatched(&names(&["nobody"]));
    assert_eq!(missed, [(Layer::Store, "dev/*".to_owned())]);
}

#[test]
fn what_is_shown_is_read_again() {
    let mut settings = ServiceSettings::DEFAULT;
    settings.set(Setting::ReportInterval(Duration::from_secs(90)));
    for key in Key::ALL {
        let setting = settings.get(key);
        assert_eq!(Setting::parse(key, &setting.to_string()), Ok(setting));
        assert_eq!(Key::parse(key.as_str()), Some(key));
    }
}

/// Matches by trying every way.
fn matches_naively(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            (0..=name.len()).any(|taken| matches_naively(rest, &name[taken..]))
        }
        (Some((one, pattern)), Some((other, name))) => {
            one == other && matches_naively(pattern, name)
        }
        _ => false,
    }
}

proptest! {
    #[test]
    fn matching_and_meeting_are_what_trying_every_way_finds(
        a in "[ab*]{1,6}", b in "[ab*]{1,6}", names in prop::collection::vec("[ab]{1,8}", 1..20),
    ) {
        let (one, other) = (Pattern::parse(&a).unwrap(), Pattern::parse(&b).unwrap());
        let mut both = false;
        for name in &names {
            let found = matches_naively(a.as_bytes(), name.as_bytes());
            prop_assert_eq!(one.matches(name), found);
            both |= found && other.matches(name);
        }
        prop_assert_eq!(one.overlaps(&other), other.overlaps(&one));
        prop_assert!(!both || one.overlaps(&other));
        // Names of up to eight letters are enough for two patterns of six.
        if one.overlaps(&other) {
            let all = (1..=10_u32).flat_map(|length| {
                (0..1_u32 << length).map(move |bits| {
                    (0..length).map(|at| if bits >> at & 1 == 0 { 'a' } else { 'b' }).collect()
                })
            });
            let mut all = all.map(|name: String| name);
            prop_assert!(all.any(|name| one.matches(&name) && other.matches(&name)));
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "(\\[service\\.|'|\"|\\*|a|=|1|\n|\\]|guard|é|version){0,30}") {
        let _ = Document::parse(&text);
        let _ = within(&text);
    }
}
