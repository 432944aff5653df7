//! From flags to a configuration, or to every problem there is.

use std::time::Duration;

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Only {
    #[command(flatten)]
    serve: ServeArgs,
}

fn validate(args: &[&str]) -> Result<Config, Vec<String>> {
    let args = [&["serve"], args].concat();
    Only::try_parse_from(args).expect("flags that exist").serve.validate()
}

#[track_caller]
fn problems(args: &[&str]) -> Vec<String> {
    match validate(args) {
        Ok(_) => panic!("no problem was found"),
        Err(problems) => problems,
    }
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let config = validate(&[]).unwrap();
    assert_eq!(config.listen.to_string(), "0.0.0.0:12000");
    assert_eq!(config.admin_listen.to_string(), "127.0.0.1:12001");
    assert!(
        matches!(config.registry, Registry::Embedded(addr) if addr.to_string() == "127.0.0.1:2379")
    );
    assert_eq!(config.prefixes, [Prefix::parse("/etcd3_naming/").unwrap()]);
    assert_eq!(config.zone.as_str(), "lookaside.internal");
    assert_eq!((config.dns_listen, config.advertise), (None, None));
    assert!(config.tls.is_none());
    assert_eq!((config.reflection, config.connections_per_peer), (true, 0));
    assert_eq!(config.state_dir, None);
    assert_eq!(config.defaults, ServiceSettings::DEFAULT);
}

#[test]
fn what_happens_in_faults_is_checked() {
    let check = |args: &[&str], expected: &str| assert_eq!(problems(args), [expected]);
    check(&["--guard=101"], r#"--guard: "101" is no number from 0 to 100"#);
    check(&["--guard=half"], r#"--guard: "half" is no number from 0 to 100"#);
    check(&["--keep-lost=2days"], r#"--keep-lost: "2days" is neither 0s nor from 1s to 1day"#);
    check(
        &["--probe-unleased=10ms"],
        r#"--probe-unleased: "10ms" is neither 0s nor from 1s to 1day"#,
    );
    let config = validate(&["--keep-lost=0s", "--guard=0", "--state-dir=x"]).unwrap();
    assert_eq!((config.defaults.keep_lost, config.defaults.guard), (Duration::ZERO, 0));
}

#[test]
fn everything_wrong_is_told_at_once() {
    let found = problems(&[
        "--listen=here",
        "--admin-listen=:1",
        "--dns-listen=1.2.3.4",
        "--registry-listen=x:y",
        "--prefix=/",
        "--prefix=/a=xml",
        "--prefix=/b",
        "--prefix=/b/",
        "--domain=a..b",
        "--advertise=10.0.0.1",
        "--when-empty=maybe",
        "--report-interval=soon",
        "--tls-cert=/nowhere",
        "--tls-client-ca=/nowhere",
        "--etcd-user=me",
        "--etcd-cert=/nowhere",
    ]);
    let told = |flag: &str| found.iter().any(|problem| problem.contains(flag));
    for flag in [
        "--listen",
        "--admin-listen",
        "--dns-listen",
        "--registry-listen",
        "--domain",
        "--advertise",
        "--when-empty",
        "--report-interval",
        "--tls-cert",
        "--etcd-user",
        "--etcd-cert",
    ] {
        assert!(told(flag), "{flag}: {found:#?}");
    }
    assert_eq!(found.iter().filter(|problem| problem.starts_with("--prefix")).count(), 3);
}

#[test]
fn each_problem_names_the_value_and_the_remedy() {
    let check = |args: &[&str], expected: &str| assert_eq!(problems(args), [expected]);
    check(
        &["--listen=12000"],
        r#"--listen: "12000" is no IP:PORT, such as 0.0.0.0:12000 or 127.0.0.1:12000"#,
    );
    check(
        &["--dns-listen=:53"],
        r#"--dns-listen: ":53" is no IP:PORT, such as 0.0.0.0:53 or 127.0.0.1:53"#,
    );
    check(
        &["--admin-listen=localhost:80"],
        r#"--admin-listen: "localhost:80" is no IP:PORT, such as 127.0.0.1:80"#,
    );
    check(
        &["--dns-listen=dns.test:53"],
        r#"--dns-listen: "dns.test:53" is no IP:PORT, and names are not looked up: give an IP address"#,
    );
    check(&["--dns-listen=::1"], r#"--dns-listen: "::1" is no IP:PORT, such as [::1]:53"#);
    check(
        &["--dns-listen=1.2.3.4"],
        r#"--dns-listen: "1.2.3.4" is no IP:PORT, such as 1.2.3.4:53"#,
    );
    check(&["--dns-listen=x"], r#"--dns-listen: "x" is no IP:PORT, such as 0.0.0.0:53"#);
    check(
        &["--admin-host=http://a:1"],
        r#"--admin-host: "http://a:1" is no host name: give it without scheme and port, such as lb.example.com"#,
    );
    check(&["--when-empty=x"], r#"--when-empty: "x" is none of wait, drop and fallback"#);
    check(
        &["--report-interval=10ms"],
        r#"--report-interval: "10ms" is neither 0s nor from 1s to 1day"#,
    );
    check(
        &["--advertise=lb.lookaside.internal:1"],
        "--advertise: \"lb.lookaside.internal\" lies in the zone lookaside.internal, whose names \
         mean services: give an IP address, which DNS then knows as grpclb.lookaside.internal",
    );
    check(&["--tls-key=x"], "--tls-cert and --tls-key need each other");
}

#[test]
fn reflection_and_a_share_are_for_the_operator_to_decide() {
    let config = validate(&["--reflection=off", "--connections-per-peer=100"]).unwrap();
    assert_eq!((config.reflection, config.connections_per_peer), (false, 100));
    let found = problems(&["--reflection=no", "--connections-per-peer=-1"]);
    let expected = [
        r#"--reflection: "no" is neither on nor off"#,
        r#"--connections-per-peer: "-1" is no number, such as 1000, or 0 for any"#,
    ];
    assert_eq!(found, expected);
}

#[test]
fn zero_turns_reports_off() {
    let config = validate(&["--report-interval=0s"]).unwrap();
    assert_eq!(config.defaults.report_interval, Duration::ZERO);
}

#[test]
fn a_file_says_what_flags_could_and_flags_win() {
    use clap::CommandFactory;
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("lookaside.toml");
    let read = |text: &str, flags: &[&str]| {
        std::fs::write(&file, text).unwrap();
        let args = [&["serve"], flags].concat();
        let said = Only::command().get_matches_from(args);
        file::read(&file, &clap::Command::new("whole"), &Only::command(), &said)
    };
    let text = "listen = '1.2.3.4:5'\nprefix = ['/a', '/b=plain']\ndomain = 'x.y'\n";
    let expected = ["--domain=x.y", "--listen=1.2.3.4:5", "--prefix=/a", "--prefix=/b=plain"];
    assert_eq!(read(text, &[]).arguments, expected);
    assert_eq!(read(text, &["--domain=z", "--prefix=/c"]).arguments, ["--listen=1.2.3.4:5"]);
    let text = "[format.mine]\nkey = '{service}/{id}'\naddress = '/a'\n";
    let expected = r#"--format=mine={"address":"/a","key":"{service}/{id}"}"#;
    assert_eq!(read(text, &[]).arguments, [expected]);

    // A problem hides no other, and each says where it is.
    let text = "lisen = 'x'\n  when-empty = true\nconfig = 'x'\ndns_listen = 'x'\n\
                listen = 'there'\nguard = 40\ndomain = 'x.y'\nbroken\n";
    let found = read(text, &[]);
    let place = |line_column: &str| format!("{}:{line_column}: ", file.display());
    let problems = found.problems.join("\n");
    for (at, problem) in [
        ("1:1", "\"lisen\" is no setting: settings are named like the flags of"),
        ("2:3", "when-empty is boolean: expected text, a whole number or a list of text"),
        ("3:1", "\"config\" is no setting: a file cannot name another"),
        ("4:1", "\"dns_listen\" is no setting: write dns-listen"),
        ("8:7", "this is no TOML: "),
    ] {
        assert!(
            problems.contains(&format!("{}{problem}", place(at))),
            "{at} {problem}: {problems}"
        );
    }
    for argument in ["--domain=x.y", "--guard=40", "--listen=there"] {
        assert!(found.arguments.contains(&argument.to_owned()), "{:?}", found.arguments);
    }
    let args = ["serve".to_owned()].into_iter().chain(found.arguments.clone());
    let mut serve = Only::try_parse_from(args).unwrap().serve;
    serve.file = found;
    let all = serve.validate().err().unwrap();
    assert_eq!(all.len(), 6, "{all:#?}");
    assert!(all[5].starts_with(&format!("{}--listen: \"there\"", place("5:1"))), "{all:#?}");

    // A secret that is written wrongly, or in a place where none belongs.
    for text in [
        "etcd-password = 'hunter2'\n",
        "etcd-password = hunter2\n",
        "etcd-password = hunter2 = 'x'\n",
        "etcd-password = 'x' hunter2 = 1\n",
        "etcd-password = \"hunter2\nlisten = 'x'\n",
        "etcd-password = ['x',\n'hunter2'\n",
        "etcd-password = \"\nhunter2=\"\n",
        "etcd-password =\n  hunter2=\n",
        "etcd-password: hunter2\n",
        "etcd-password hunter2\n",
        "hunter2\n",
        "[hunter2\n",
    ] {
        let problems = read(text, &[]).problems.join("\n");
        assert!(problems.starts_with(&format!("{}:", file.display())), "{problems}");
        assert!(!problems.contains("hunter2"), "{text}: {problems}");
    }

    std::fs::remove_file(&file).unwrap();
    let said = Only::command().get_matches_from(["x"]);
    let none = file::read(&file, &clap::Command::new("whole"), &Only::command(), &said);
    assert!(none.problems[0].contains("cannot read"));
}

#[test]
fn formats_of_the_operators_own_are_described_in_the_file() {
    let described = r#"--format=mine={"key":"{service}/{id}","address":"/a"}"#;
    let config = validate(&[described, "--prefix=/x=custom:mine"]).unwrap();
    assert_eq!(config.prefixes[0].format.to_string(), "custom:mine");
    let found = problems(&[
        r#"--format=mine={"key":"{a","color":1}"#,
        "--format=a b={}",
        "--format=text=x",
        "--prefix=/x=custom:other",
    ]);
    let begins: Vec<_> = found.iter().map(|problem| &problem[..16]).collect();
    let mine = "[format.mine]: c";
    assert_eq!(begins.iter().filter(|begin| **begin == mine).count(), 1, "{found:#?}");
    assert_eq!(found.len(), 6, "{found:#?}");
    assert!(found.iter().any(|problem| problem.contains("custom:other is not described")));
}
