//! Tests of `lookaside check` as an operator runs it: right and wrong settings, and
//! a dry run over a real etcd that holds keys of every named format.

#[path = "check/dns.rs"]
mod dns;

use crate::support;
use std::process::{Command, Output};

use crate::support::etcd::Etcd;
use lookaside::model::{HostPort, ServiceName};
use lookaside::registry::Registration;
use lookaside::registry::record::{Format, NAMED, write};

fn check(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lookaside"));
    // The environment of a developer must not change the test.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LOOKASIDE_") {
            command.env_remove(name);
        }
    }
    command.arg("check").args(args).output().expect("lookaside runs")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn json(output: &Output) -> serde_json::Value {
    let error = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON: {error}"))
}

#[test]
fn settings_are_validated_without_any_etcd() {
    let right = check(&["--etcd=http://127.0.0.1:1", "--prefix=/a=kratos"]);
    assert_eq!(right.status.code(), Some(0));
    assert!(out(&right).contains("the settings are right"), "{}", out(&right));
    let wrong = check(&["--listen=x", "--prefix=/a=morse", "--prefix=/"]);
    assert_eq!(wrong.status.code(), Some(64));
    let errors = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert_eq!(errors.matches("error: --").count(), 3, "{errors}");
    assert!(errors.contains("kratos-v1, go-micro, rpcx"), "{errors}");
    let embedded = check(&["--live"]);
    assert_eq!(embedded.status.code(), Some(64));
}

#[test]
fn a_file_describes_formats() {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("lookaside.toml");
    let config = format!("--config={}", file.display());
    let format = "prefix = ['/x=custom:mine']\n[format.mine]\nkey = '{service}/{id}'\n";
    std::fs::write(&file, format!("{format}address = '/a'\n")).unwrap();
    let right = check(&[&config, "--json"]);
    assert_eq!(json(&right)["prefixes"][0]["format"], "custom:mine");
    assert_eq!(right.status.code(), Some(0));
    std::fs::write(&file, format!("{format}addres = '/a'\n")).unwrap();
    let wrong = check(&[&config]);
    assert_eq!(wrong.status.code(), Some(64));
    let errors = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(errors.contains("[format.mine]: addres is no setting of a format"), "{errors}");
    assert!(errors.contains("[format.mine]: address say nothing"), "{errors}");
    assert!(errors.contains("custom:mine is not described"), "{errors}");
}

/// Writes one key of each format below a prefix of its own, and some rejected keys.
#[test]
fn a_dry_run_finds_every_service_and_explains_every_other_key() {
    let etcd = Etcd::start();
    let put = |key: &str, value: &str| drop(etcd.ctl(&["put", "--", key, value]));
    let mut args = vec![format!("--etcd={}", etcd.url()), "--live".to_owned()];
    let mut expected = Vec::new();
    for (index, (name, format)) in NAMED.into_iter().enumerate() {
        let prefix = match format {
            Format::Jupiter => "grpc:".to_owned(),
            _ => format!("/{name}/"),
        };
        args.push(format!("--prefix={prefix}={name}"));
        let address = format!("10.0.0.1:{}", index + 1);
        expected.push(address.clone());
        if format == Format::Apisix {
            put(
                "/apisix/upstreams/1",
                &format!(r#"{{"scheme":"grpc","nodes":{{"{address}":1}}}}"#),
            );
            continue;
        }
        let registration = Registration {
            service: ServiceName::new(&format!("s{index}.example")).unwrap(),
            id: address.as_str().into(),
            address: HostPort::parse(&address).unwrap(),
            weight: format.default_weight(),
            meta: std::sync::Arc::default(),
        };
        let (key, value) = write(&format, &prefix, &registration).unwrap();
        put(&key, &value);
    }
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let all = [&args[..], &["--json"]].concat();
    let well = check(&all);
    let report = json(&well);
    assert_eq!(well.status.code(), Some(0), "{report:#}");
    let mut found: Vec<_> = report["services"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|service| service["endpoints"].as_array().unwrap())
        .map(|endpoint| endpoint["address"].as_str().unwrap().to_owned())
        .collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);

    put("/plain/hello/1", r#"{"Addr":"10.0.0.1:1"}"#);
    put("/kratos/hello/2", r#"{"id":"2","name":"hello","endpoints":["http://10.0.0.1:1"]}"#);
    let ill = check(&all);
    assert_eq!(ill.status.code(), Some(1));
    let report = json(&ill);
    assert_eq!(report["not_understood"], 1);
    let rejected = &report["rejected"][0];
    assert_eq!(
        (&rejected["key"], &rejected["formats"][0]),
        (&"/plain/hello/1".into(), &"etcd-naming".into())
    );
    let text = out(&check(&args));
    assert!(text.contains("it has no gRPC endpoint: http"), "{text}");
    assert!(text.contains("1 key was rejected"), "{text}");
}

/// The rules of the file count, and so do those of the shared settings in etcd.
#[test]
fn a_dry_run_heeds_who_may_register_what() {
    const SHARED: &str = "/lookaside/settings/lookaside.internal";
    let etcd = Etcd::start();
    let put = |key: &str, value: &str| drop(etcd.ctl(&["put", "--", key, value]));
    put("/a/pay/1", "10.0.0.1:1");
    put("/b/pay/2", "10.0.0.1:2");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lookaside.toml");
    std::fs::write(&file, "[registrants]\n'/a/' = ['pay']\n").unwrap();
    let (url, config) = (format!("--etcd={}", etcd.url()), format!("--config={}", file.display()));
    let args = [&*url, &*config, "--live", "--prefix=/a/", "--prefix=/b/"];
    let ran = || {
        let found = check(&[&args[..], &["--json"]].concat());
        (found.status.code(), json(&found))
    };
    let addresses = |report: &serde_json::Value| {
        let all = report["services"][0]["endpoints"].as_array().unwrap();
        all.iter().map(|one| one["address"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let is_forbidden = |report: &serde_json::Value| {
        let rejected = &report["rejected"][0];
        assert_eq!(
            (&rejected["key"], &rejected["value"]),
            (&"/b/pay/2".into(), &"10.0.0.1:2".into())
        );
        let reason = rejected["reason"].as_str().unwrap();
        assert!(reason.contains("only keys below \"/a/\" may register \"pay\""), "{reason}");
        assert_eq!(addresses(report), ["10.0.0.1:1"]);
    };
    let (code, report) = ran();
    assert_eq!(code, Some(1), "{report:#}");
    is_forbidden(&report);

    put(SHARED, "[registrants]\n'/b/' = ['pay']\n");
    let (code, report) = ran();
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(addresses(&report), ["10.0.0.1:1", "10.0.0.1:2"]);

    // Balancers refuse a wrong document, so it does not count here either.
    put(SHARED, "[registrants]\n'/b' = ['pay']\n");
    let (code, report) = ran();
    assert_eq!(code, Some(1), "{report:#}");
    is_forbidden(&report);
    let problem = report["settings_problem"].as_str().unwrap();
    assert!(problem.starts_with(SHARED) && problem.contains("\"/b\" is no prefix"), "{problem}");
    let text = out(&check(&args));
    assert!(text.contains("the shared settings do not count here: /lookaside"), "{text}");
}

/// A framework's own readers find the values that they know, its default weight too.
#[test]
fn what_register_writes_in_a_format_is_read_in_it() {
    let etcd = Etcd::start();
    let url = format!("--etcd={}", etcd.url());
    let mut held = Command::new(env!("CARGO_BIN_EXE_lookaside"))
        .args(["register", &url, "--service=hello", "--addr=10.0.0.1:1", "--zone=a"])
        .args(["--format=kratos", "--prefix=/microservices"])
        .spawn()
        .expect("lookaside runs");
    let found = support::eventually("the key is there", || {
        let report = json(&check(&[&url, "--live", "--prefix=/microservices=kratos", "--json"]));
        report["services"].get(0).map(|service| service["endpoints"][0].clone())
    });
    held.kill().and_then(|()| held.wait()).expect("it ran");
    assert_eq!(found["key"], "/microservices/hello/10.0.0.1:1");
    assert_eq!((&found["weight"], &found["meta"]["zone"]), (&100.into(), &"a".into()));
}

#[test]
fn an_empty_prefix_is_told_where_the_keys_are() {
    let etcd = Etcd::start();
    etcd.ctl(&["put", "etcd3_naming/hello/1", "10.0.0.1:1"]);
    let live = format!("--etcd={}", etcd.url());
    let found = check(&[&live, "--live", "--prefix=/etcd3_naming/"]);
    assert_eq!(found.status.code(), Some(1));
    let text = out(&found);
    assert!(text.contains(r#"below "etcd3_naming/" are keys (1): is that the prefix?"#), "{text}");
    assert!(text.ends_with("there is no key\n"), "{text}");
    let found = check(&[&live, "--live", "--prefix=/etcd3_naming/", "--prefix=etcd3_naming/"]);
    assert_eq!(found.status.code(), Some(1), "one of two prefixes holds nothing");
    // A longer prefix may take all keys below a shorter one.
    let found = check(&[&live, "--live", "--prefix=etcd3_naming/", "--prefix=etcd3_naming/hello"]);
    assert_eq!(found.status.code(), Some(0), "{}", out(&found));
}

#[test]
fn remarks_are_reported_and_cost_nothing() {
    let etcd = Etcd::start();
    let value = r#"{"id":"1","name":"hello","endpoints":["grpc://10.0.0.1:500053","grpc://10.0.0.2:1"],"metadata":{"weight":"high"}}"#;
    etcd.ctl(&["put", "/microservices/hello/1", value]);
    let live = format!("--etcd={}", etcd.url());
    let args = [&live, "--live", "--prefix=/microservices=kratos"];
    let report = json(&check(&[&args[..], &["--json"]].concat()));
    assert_eq!(report["services"][0]["endpoints"][0]["address"], "10.0.0.2:1");
    assert_eq!(report["remarks"][0]["key"], "/microservices/hello/1");
    assert_eq!(report["remarks"][0]["remarks"].as_array().unwrap().len(), 2, "{report:#}");
    let found = check(&args);
    assert_eq!(found.status.code(), Some(0));
    let text = out(&found);
    assert!(text.contains("1 key is read with a remark:"), "{text}");
    assert!(text.contains("500053"), "{text}");
}

#[test]
fn an_etcd_that_is_away_is_an_error() {
    let port = support::free_port();
    let found = check(&[&format!("--etcd=http://127.0.0.1:{port}"), "--live"]);
    assert_eq!(found.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&found.stderr).into_owned();
    assert!(errors.contains("error: cannot read etcd: http://127.0.0.1"), "{errors}");
}
