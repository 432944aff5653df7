//! Tests per-service settings from an operator's side.
//!
//! In: right and wrong documents, in the file, in etcd and on the command line. Out: the
//! settings in force, and the refusals.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::etcd::Etcd;
use crate::support::eventually;
use crate::support::lookaside::{Balancer, program};
use crate::support::signal::Signal;
use serde_json::Value;

const KEY: &str = "/lookaside/settings/lookaside.internal";
const REFUSED: &str = r#"lookaside_settings_refused{source="etcd"}"#;

fn settings(args: &[&str]) -> Output {
    let mut command = Command::new(program());
    // The environment of the test run must not change settings.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LOOKASIDE_") {
            command.env_remove(name);
        }
    }
    command.arg("settings").args(args).stdin(Stdio::null()).output().expect("lookaside runs")
}

fn said(output: &Output) -> String {
    let [out, error] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{out}{error}")
}

/// Returns the value that is in force for a service's key, and its source.
fn in_force(balancer: &Balancer, service: &str, key: &str) -> (String, String) {
    let (status, text) = balancer.get(&format!("/api/v1/settings?service={service}"));
    assert_eq!(status, 200, "{text}");
    let all: Value = serde_json::from_str(&text).expect("JSON");
    let one = &all["services"][0]["settings"][key];
    let text = |name: &str| one[name].as_str().unwrap_or_default().to_owned();
    (text("value"), text("source"))
}

#[track_caller]
fn wait_for(balancer: &Balancer, service: &str, key: &str, value: &str, source: &str) {
    let wanted = (value.to_owned(), source.to_owned());
    eventually("the setting is in force", || {
        (in_force(balancer, service, key) == wanted).then_some(())
    });
}

fn write(file: &Path, text: &str) {
    std::fs::write(file, text).expect("a file");
}

#[test]
fn documents_are_checked_offline() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("settings.toml");
    let path = file.to_str().unwrap();
    let check = |text: &str, code: i32, expected: &[&str]| {
        write(&file, text);
        let output = settings(&["check", path]);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(code), "{said}");
        for expected in expected {
            assert!(said.contains(expected), "{said}");
        }
    };
    check("[service.'*']\nguard = 40\n", 0, &["right, 1 tables"]);
    let long = format!("# {}", "x".repeat(1 << 20));
    check(&long, 64, &["the document has 1048578 bytes: at most 262144 are allowed"]);
    for (value, shown) in [
        ("2", "2"),
        ("0", "0"),
        ("-1", "-1"),
        ("0.9", "float"),
        ("'0'", "\"0\""),
        ("'1'", "\"1\""),
        ("false", "boolean"),
    ] {
        let expected = format!(":1:11: version is {shown}: this lookaside reads version = 1; ");
        check(&format!("version = {value}"), 64, &[&expected, "write that, or use the lookaside"]);
    }
    check(
        "[service.a]\ncolour = 1\nguard = 200",
        64,
        &[":2:1: [service.\"a\"]: \"colour\"", ":3:9: "],
    );
    check(
        "[service.'a*']\nguard = 1\n[service.'*a']\nguard = 2\n",
        64,
        &["\"a*\"", "\"*a\"", "neither is more specific"],
    );
    assert_eq!(settings(&["check", "/nowhere"]).status.code(), Some(64));
    // A file of process settings is no document.
    check("listen = ':1'", 64, &["settings of the process stay flags"]);
}

#[test]
fn the_file_is_read_again_when_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lookaside.toml");
    let path = file.to_str().unwrap();
    write(&file, "guard = 30\n[service.hello]\nwhen-empty = 'drop'\n");
    let balancer = Balancer::start(&["--config", path]);
    balancer.wait_ready();
    wait_for(&balancer, "hello", "when-empty", "drop", "file");
    wait_for(&balancer, "hello", "guard", "30", "flags");
    wait_for(&balancer, "other", "when-empty", "wait", "flags");
    // The balancer reads a changed file without a signal.
    write(&file, "[service.hello]\nwhen-empty = 'fallback'\n");
    wait_for(&balancer, "hello", "when-empty", "fallback", "file");
    // A wrong file is refused as a whole. After SIGHUP the refusal is reported at once.
    write(&file, "[service.hello]\nwhen-empty = 'wait'\nguard = 101\n");
    balancer.signal(Signal::HUP);
    let refused = r#"lookaside_settings_refused{source="file"}"#;
    eventually("the refusal", || balancer.metric(refused).filter(|is| *is == 1.0));
    assert_eq!(in_force(&balancer, "hello", "when-empty").0, "fallback");
    let (_, shown) = balancer.get("/api/v1/settings");
    assert!(shown.contains("lookaside.toml:3:9: [service"), "{shown}");
    assert!(balancer.log().contains("changed files cannot be used"), "{}", balancer.log());
    write(&file, "[service.hello]\nguard = 100\n");
    balancer.signal(Signal::HUP);
    wait_for(&balancer, "hello", "guard", "100", "file");
    wait_for(&balancer, "hello", "when-empty", "wait", "flags");
    eventually("no refusal", || balancer.metric(refused).filter(|is| *is == 0.0));
    // A setting that needs a restart is named and does not change. A flag sets `listen`.
    let text = "guard = 31\nlisten = ':1'\nreflection = 'off'\n[service.hello]\nguard = 99\n";
    write(&file, text);
    balancer.signal(Signal::HUP);
    wait_for(&balancer, "hello", "guard", "99", "file");
    wait_for(&balancer, "other", "guard", "30", "flags");
    eventually("a warning", || {
        let log = balancer.log();
        let told = log.lines().find(|line| line.contains(r#"changed="guard, reflection""#))?;
        assert!(told.contains("WARN") && told.contains("need a restart"), "{told}");
        told.contains("lookaside.toml").then_some(())
    });
    // Settings are not counted as a credential.
    assert_eq!(balancer.metric(r#"lookaside_credentials_broken{use="settings"}"#), None);

    let wrong = dir.path().join("wrong.toml");
    write(&wrong, "lisen = ':1'\n[service.hello]\nguard = 101\n");
    let log = Balancer::try_start(&["--config", wrong.to_str().unwrap()]).err().expect("refused");
    assert!(log.contains("wrong.toml:1:1:") && log.contains("wrong.toml:3:9:"), "{log}");
}

#[test]
fn all_balancers_follow_the_document_in_etcd() {
    let mut etcd = Etcd::start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("settings.toml");
    let path = file.to_str().unwrap();
    let config = dir.path().join("lookaside.toml");
    write(&config, "[service.'dev/*']\nguard = 10\nkeep-lost = '1m'\n");
    let args = ["--etcd", &etcd.url(), "--config", config.to_str().unwrap()];
    let (one, other) = (Balancer::start(&args), Balancer::start(&args));
    let both = [&one, &other];
    both.iter().for_each(|balancer| balancer.wait_ready());
    let url = etcd.url();
    let apply = |more: &[&str]| settings(&[&["apply", path, "--etcd", &url], more].concat());
    let admin = format!("http://{}", one.admin());

    write(&file, "version = 1\n[service.'*']\nguard = 77\n[service.nobody]\nguard = 1\n");
    let diff = settings(&["diff", path, "--admin", &admin]);
    assert!(said(&diff).contains("\"nobody\" matches no service now"), "{}", said(&diff));
    assert!(said(&diff).contains("compared with no document in etcd"), "{}", said(&diff));
    let applied = apply(&["--revision", "0"]);
    assert!(said(&applied).contains("applied, revision "), "{}", said(&applied));
    for balancer in both {
        // etcd takes precedence over the file, key by key.
        wait_for(balancer, "game.dev", "guard", "77", "etcd");
        assert_eq!(in_force(balancer, "game.dev", "keep-lost"), ("1m".into(), "file".into()));
    }
    assert!(said(&apply(&[])).contains("unchanged, revision "));
    let shown = settings(&["show", "dev/game", "--admin", &admin]);
    assert!(
        said(&shown).contains("etcd *") && said(&shown).contains("file dev/*"),
        "{}",
        said(&shown)
    );
    // A client that saw an older document does not overwrite the newer one.
    write(&file, "[service.'*']\nguard = 78\n");
    let late = apply(&["--revision", "0"]);
    assert_eq!(late.status.code(), Some(1));
    assert!(said(&late).contains("another client changed it"), "{}", said(&late));

    // A wrong document is refused as a whole.
    etcd.ctl(&["put", KEY, "[service.'*']\nguard = 5\nkeep-lost = '2days'\n"]);
    for balancer in both {
        eventually("the refusal", || balancer.metric(REFUSED).filter(|is| *is == 1.0));
        assert_eq!(in_force(balancer, "game.dev", "guard").0, "77");
        assert!(balancer.log().contains("settings refused"), "{}", balancer.log());
    }
    // Without etcd nothing changes.
    etcd.kill();
    eventually("etcd is missed", || one.metric("lookaside_registry_stale").filter(|is| *is == 1.0));
    assert_eq!(in_force(&one, "game.dev", "guard").0, "77");
    etcd.restart();
    assert!(said(&apply(&[])).contains("applied"));
    for balancer in both {
        wait_for(balancer, "game.dev", "guard", "78", "etcd");
        assert_eq!(balancer.metric(REFUSED), Some(0.0));
    }
    // Without the document, file and flags are in force.
    etcd.ctl(&["del", KEY]);
    for balancer in both {
        wait_for(balancer, "game.dev", "guard", "10", "file");
        wait_for(balancer, "hello", "guard", "50", "flags");
    }
}

/// A document of a version that is not known is refused whole, also where its tables would be
/// right, wherever it comes from.
#[test]
fn a_document_of_an_older_version_is_refused_and_the_former_stays() {
    let etcd = Etcd::start();
    let dir = tempfile::tempdir().unwrap();
    let [file, config] = ["settings.toml", "lookaside.toml"].map(|name| dir.path().join(name));
    write(&config, "[service.hello]\nguard = 10\nkeep-lost = '1m'\n");
    let args = ["--etcd", &etcd.url(), "--config", config.to_str().unwrap()];
    let balancer = Balancer::start(&args);
    balancer.wait_ready();
    etcd.ctl(&["put", KEY, "version = 1\n[service.hello]\nguard = 77\n"]);
    wait_for(&balancer, "hello", "guard", "77", "etcd");

    let older = "version = 0\n[service.hello]\nguard = 5\nkeep-lost = '2m'\n";
    let wrong = "1:11: version is 0: this lookaside reads version = 1; write that, or use the \
                 lookaside that wrote the document";
    etcd.ctl(&["put", KEY, older]);
    eventually("the refusal", || balancer.metric(REFUSED).filter(|is| *is == 1.0));
    assert_eq!(in_force(&balancer, "hello", "guard"), ("77".into(), "etcd".into()));
    let line = |log: &str| log.lines().any(|line| line.contains(wrong) && line.contains(KEY));
    assert!(line(&balancer.log()), "{}", balancer.log());
    let admin = format!("http://{}", balancer.admin());
    let shown = said(&settings(&["show", "hello", "--admin", &admin]));
    assert!(shown.contains(&format!("{KEY} is refused: revision ")), "{shown}");
    assert!(shown.contains(wrong), "{shown}");

    // The same in the file, which is read again.
    write(&config, older);
    balancer.signal(Signal::HUP);
    let refused = r#"lookaside_settings_refused{source="file"}"#;
    eventually("the refusal", || balancer.metric(refused).filter(|is| *is == 1.0));
    assert_eq!(in_force(&balancer, "hello", "keep-lost"), ("1m".into(), "file".into()));
    let log = Balancer::try_start(&args).err().expect("refused");
    assert!(log.contains(&format!("lookaside.toml:{wrong}")), "{log}");

    // No command writes it.
    write(&file, older);
    let path = file.to_str().unwrap();
    for output in [
        settings(&["diff", path, "--admin", &admin]),
        settings(&["apply", path, "--etcd", &etcd.url()]),
    ] {
        assert_eq!(output.status.code(), Some(64));
        assert!(said(&output).contains(&format!("settings.toml:{wrong}")), "{}", said(&output));
    }
}

#[test]
fn an_older_copy_counts_and_an_emptied_etcd_does_not() {
    let mut etcd = Etcd::start();
    let balancer = Balancer::start(&["--etcd", &etcd.url()]);
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy.db");
    etcd.ctl(&["put", KEY, "[service.'*']\nguard = 11\n"]);
    etcd.ctl(&["snapshot", "save", copy.to_str().unwrap()]);
    etcd.ctl(&["put", KEY, "[service.'*']\nguard = 12\n"]);
    balancer.wait_ready();
    wait_for(&balancer, "hello", "guard", "12", "etcd");
    etcd.restart_from(&copy);
    wait_for(&balancer, "hello", "guard", "11", "etcd");
    etcd.restart_empty();
    eventually("the refusal", || balancer.metric(REFUSED).filter(|is| *is == 1.0));
    assert_eq!(in_force(&balancer, "hello", "guard").0, "11");
    let (_, shown) = balancer.get("/api/v1/settings");
    assert!(shown.contains("etcd went back to a state without settings"), "{shown}");
    etcd.ctl(&["put", KEY, ""]);
    wait_for(&balancer, "hello", "guard", "50", "flags");
    assert_eq!(balancer.metric(REFUSED), Some(0.0));
}

#[test]
fn of_two_who_apply_at_once_nobody_overwrites_the_other_unseen() {
    let etcd = Etcd::start();
    let dir = tempfile::tempdir().unwrap();
    let url = etcd.url();
    let outputs: Vec<Output> = std::thread::scope(|scope| {
        let apply = |n: usize| {
            let file = dir.path().join(n.to_string());
            write(&file, &format!("[service.'*']\nguard = {n}\n"));
            let path = file.to_str().unwrap();
            settings(&["apply", path, "--etcd", &url, "--revision", "0"])
        };
        let all: Vec<_> = (1..=6).map(|n| scope.spawn(move || apply(n))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let done = outputs.iter().filter(|output| output.status.success()).count();
    assert_eq!(done, 1, "{:?}", outputs.iter().map(said).collect::<Vec<_>>());
    for late in outputs.iter().filter(|output| !output.status.success()) {
        assert!(said(late).contains("another client changed it"), "{}", said(late));
    }
    let winner = outputs.iter().position(|output| output.status.success()).unwrap() + 1;
    assert!(etcd.ctl(&["get", KEY]).contains(&format!("guard = {winner}\n")));
    let nowhere = settings(&["apply", dir.path().join("1").to_str().unwrap()]);
    assert_eq!(nowhere.status.code(), Some(64));
}

#[test]
fn settings_that_change_all_the_time_disturb_nobody() {
    let etcd = Etcd::start();
    let balancer = Balancer::start(&["--etcd", &etcd.url()]);
    for n in 0..50 {
        etcd.ctl(&["put", &format!("/etcd3_naming/service{n}/1"), "10.0.0.1:1"]);
    }
    balancer.wait_ready();
    for round in 0..40 {
        let service = round % 50;
        let document = format!("[service.service{service}]\nguard = {round}\n");
        etcd.ctl(&["put", KEY, &document]);
    }
    wait_for(&balancer, "service39", "guard", "39", "etcd");
    wait_for(&balancer, "service38", "guard", "50", "flags");
    assert_eq!(balancer.metric("lookaside_services"), Some(50.0));
    assert_eq!(balancer.metric(REFUSED), Some(0.0));
}
