//! Tests that flags become a configuration, or a list of all problems.

use std::path::Path;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser};

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
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:12001");
    assert!(
        matches!(config.registry, Registry::Embedded(addr) if addr.to_string() == "127.0.0.1:2379")
    );
    assert_eq!(config.prefixes, [Prefix::parse("/etcd3_naming/").unwrap()]);
    assert_eq!(config.zone.as_str(), "lookaside.internal");
    assert_eq!((config.dns.listen, config.replica), (None, ReplicaConfig::default()));
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
fn all_problems_are_reported_at_once() {
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
        "--balancer-hosts=lb:1",
        "--announce=maybe",
        "--spread=1000",
        "--zone=a b",
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
        "--balancer-hosts",
        "--announce",
        "--spread",
        "--zone",
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
         stand for services: give an IP address, which DNS then serves as \
         grpclb.lookaside.internal",
    );
    check(&["--tls-key=x"], "--tls-cert and --tls-key need each other");
}

#[test]
fn the_admin_address_is_open_to_other_hosts_only_in_words() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
    let cert = write("cert", &params.self_signed(&key).unwrap().pem());
    let cert = format!("--admin-cert={cert}");
    let key = format!("--admin-key={}", write("key", &key.serialize_pem()));
    let tokens = write("tokens", "0123456789abcdef\n");
    let reader = format!("--admin-reader-tokens={tokens}");
    let operator = format!("--admin-operator-tokens={tokens}");
    let (cert, key, reader, operator) = (&*cert, &*key, &*reader, &*operator);
    let open = "--admin-open-to-network=on";

    for remote in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1", "[fe80::1]:1"] {
        let listen = &*format!("--admin-listen={remote}");
        for (given, missing) in [
            (&[][..], "without tokens and TLS: give --admin-operator-tokens"),
            (&[reader, operator], "without TLS, so that tokens can be read on the way"),
            (&[cert, key], "without tokens: give --admin-operator-tokens"),
        ] {
            let found = problems(&[&[listen], given].concat());
            let begins = format!("--admin-listen: {remote:?} is open to other hosts {missing}");
            assert!(found.len() == 1 && found[0].starts_with(&begins), "{found:?}");
            assert!(found[0].ends_with("give --admin-open-to-network on"), "{found:?}");
        }
        for given in [&[open][..], &[cert, key, reader], &[cert, key, operator]] {
            assert!(validate(&[&[listen], given].concat()).is_ok(), "{remote} {given:?}");
        }
    }
    for local in ["127.0.0.1:1", "127.8.9.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "unix:/a/b"] {
        let listen = &*format!("--admin-listen={local}");
        let config = validate(&[listen, operator]).unwrap();
        assert_eq!(config.admin.listen.to_string(), local);
    }
    let check = |args: &[&str], expected: &str| assert_eq!(problems(args), [expected]);
    check(
        &["--admin-listen=unix:a"],
        "--admin-listen: \"unix:a\" names no absolute path, such as unix:/run/lookaside/admin",
    );
    check(
        &["--admin-listen=unix:/a", cert, key],
        "--admin-cert: --admin-listen is unix:/a: leave it out, as a Unix socket needs no TLS, or \
         listen on IP:PORT",
    );
    check(&[cert], "--admin-cert and --admin-key need each other");
    check(
        &["--admin-open-to-network=yes"],
        "--admin-open-to-network: \"yes\" is neither on nor off",
    );
    let none = problems(&["--admin-reader-tokens=/nowhere"]);
    assert!(none[0].starts_with("--admin-reader-tokens: cannot read \"/nowhere\""), "{none:?}");
}

#[test]
fn the_embedded_registry_is_open_to_other_hosts_only_in_words() {
    for remote in ["0.0.0.0:2379", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1"] {
        let listen = &*format!("--registry-listen={remote}");
        let found = problems(&[listen]);
        let begins = format!("--registry-listen: {remote:?} is open to other hosts, which could");
        assert!(found.len() == 1 && found[0].starts_with(&begins), "{found:?}");
        assert!(found[0].ends_with("give --registry-open-to-network on"), "{found:?}");
        assert!(validate(&[listen, "--registry-open-to-network=on"]).is_ok(), "{remote}");
        // With etcd, nothing listens there.
        assert!(validate(&[listen, "--etcd=http://10.0.0.2:2379"]).is_ok(), "{remote}");
    }
    for local in ["127.0.0.1:1", "127.8.9.1:1", "[::1]:1"] {
        assert!(validate(&[&*format!("--registry-listen={local}")]).is_ok(), "{local}");
    }
    let found = problems(&["--registry-open-to-network=yes"]);
    assert_eq!(found, [r#"--registry-open-to-network: "yes" is neither on nor off"#]);
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

/// Returns the arguments of `serve` with this file and these flags.
fn with_file(file: &Path, text: &str, flags: &[&str]) -> ServeArgs {
    std::fs::write(file, text).unwrap();
    named(file, flags)
}

fn named(file: &Path, flags: &[&str]) -> ServeArgs {
    let config = format!("--config={}", file.display());
    let args = [&["serve", &config], flags].concat();
    let matches = Only::command().get_matches_from(args);
    let mut serve = Only::from_arg_matches(&matches).unwrap().serve;
    serve.complete(&matches);
    serve
}

#[test]
fn a_file_says_what_flags_could_and_flags_win() {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("lookaside.toml");
    let read = |text: &str, flags: &[&str]| with_file(&file, text, flags);
    let text = "listen = '1.2.3.4:5'\nprefix = ['/a', '/b=plain,/c']\ndomain = 'x.y'\nguard = 7\n\
                etcd = ['http://a', 'http://b']\n";
    let found = read(text, &[]);
    assert_eq!((&*found.listen, &*found.domain, &*found.faults.guard), ("1.2.3.4:5", "x.y", "7"));
    assert_eq!(found.prefix, ["/a", "/b=plain", "/c"]);
    assert_eq!(found.etcd.etcd.as_deref(), Some("http://a,http://b"));
    let found = read(text, &["--domain=z", "--prefix=/c"]);
    assert_eq!((&*found.listen, &*found.domain), ("1.2.3.4:5", "z"));
    assert_eq!(found.prefix, ["/c"]);
    let empty = read("\nprefix = []\n", &[]).validate().err().unwrap();
    assert!(empty[0].contains(":2:1: --prefix: the list is empty"), "{empty:?}");
}

/// Checks that each problem begins with its place in the file and these words.
#[track_caller]
fn check_places(problems: &[String], file: &Path, expected: &[&str]) {
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (problem, expected) in problems.iter().zip(expected) {
        let expected = format!("{}:{expected}", file.display());
        assert!(problem.starts_with(&expected), "{problem}\n{expected}");
    }
}

#[test]
fn a_problem_of_the_file_hides_no_other_and_says_where_it_is() {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("lookaside.toml");
    let text = "lisen = 'x'\n  when-empty = true\nconfig = 'x'\ndns_listen = 'x'\n\
                listen = 'there'\nguard = 40\ndomain = ['x.y']\nbroken\n\
                [service.hello]\nguard = 101\n";
    let found = with_file(&file, text, &[]);
    assert_eq!((&*found.listen, &*found.faults.guard), ("there", "40"));
    let problems = found.validate().err().unwrap();
    let expected = [
        "1:1: \"lisen\" is no setting: settings are named like the flags of serve",
        "2:3: when-empty is boolean: expected text or a whole number",
        "3:1: \"config\" is no setting: a file cannot name another",
        "4:1: \"dns_listen\" is no setting: write dns-listen",
        "7:1: domain is array: expected text or a whole number",
        "8:7: this is no TOML: ",
        "10:9: [service.\"hello\"] guard: \"101\" is no number",
        "5:1: --listen: \"there\" is no IP:PORT",
    ];
    check_places(&problems, &file, &expected);
    std::fs::remove_file(&file).unwrap();
    let none = named(&file, &[]).sources.problems;
    assert!(none[0].starts_with("--config: cannot read"), "{none:?}");
}

#[test]
fn no_problem_shows_what_may_be_a_secret() {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("lookaside.toml");
    // A secret in wrong syntax, or in a place where no secret belongs.
    for text in [
        "etcd-password = 'hunter2'\n",
        "guard = hunter2\n",
        "listen = hunter2\n",
        "etcd-password = hunter2\n",
        "etcd-password = hunter2 = 'x'\n",
        "etcd-password = 'x' hunter2 = 1\n",
        "etcd-password = \"hunter2\nlisten = 'x'\n",
        "etcd-password = ['x',\n'hunter2'\n",
        "etcd-password = \"\nhunter2=\"\n",
        "etcd-password =\n  hunter2=\n",
        "etcd-password: hunter2\n",
        "etcd-password hunter2\n",
        "etcd-password '''x\nhunter2 = 1\n'''\n",
        "hunter2\n",
        "[hunter2\n",
    ] {
        let problems = with_file(&file, text, &[]).validate().err().unwrap().join("\n");
        assert!(problems.starts_with(&format!("{}:", file.display())), "{problems}");
        assert!(!problems.contains("hunter2"), "{text}: {problems}");
    }
}

#[test]
fn formats_of_the_operators_own_are_described_in_the_file() {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("lookaside.toml");
    let text = "prefix = '/x=custom:mine'\n[format.mine]\nkey = '{service}/{id}'\naddress = '/a'\n";
    let config = with_file(&file, text, &[]).validate().unwrap();
    assert_eq!(config.prefixes[0].format.to_string(), "custom:mine");
    let text = "prefix = '/x=custom:other'\nformat.text = 'x'\n[format.mine]\nkey = '{a'\n\
                color = 1\n[format.'a b']\n";
    let found = with_file(&file, text, &[]).validate().err().unwrap();
    let expected = [
        "2:8: [format.text] is no table: see docs/formats.md",
        "3:9: [format.mine]: address say nothing of where servers listen",
        "4:1: [format.mine]: key cannot be used: the pattern \"{a\" has a { without its }",
        "5:1: [format.mine]: color is no setting of a format",
        "6:9: [format.a b]: use letters, digits, '-' and '_' in its name",
        "1:1: --prefix: the format custom:other is not described",
    ];
    check_places(&found, &file, &expected);
    let found = with_file(&file, "format = 7\n", &[]).validate().err().unwrap();
    assert!(found[0].ends_with(":1:1: format is integer: expected [format.NAME] tables"));
}
