//! Tests of the command that `lookaside register` runs: its signals, its end, its exit code.

use super::*;

#[test]
fn the_commands_exit_code_is_passed_on_and_its_end_withdraws() {
    let etcd = Etcd::start();
    let check = |script: &str, expected| {
        let child = start(&etcd, &["--", "sh", "-c", script]);
        assert_eq!(end(child).0, Some(expected), "{script}");
        assert_eq!(value(&etcd, KEY), None);
    };
    check("exit 7", 7);
    check("kill -9 $$", 137);
    let url = etcd.url();
    let wait = format!(
        "until etcdctl --endpoints={url} get {KEY} | grep -q .; do :; done; echo seen; exit 3"
    );
    let (code, output) = end(start(&etcd, &["--", "sh", "-c", &wait]));
    assert_eq!((code, output.contains("seen\n"), value(&etcd, KEY)), (Some(3), true, None));
    assert_eq!(end(start(&etcd, &["--", "/no/such/program"])).0, Some(127));
    assert_eq!(end(start(&etcd, &["--", "/dev/null"])).0, Some(126));
}

#[test]
fn the_key_is_gone_before_the_command_gets_the_signal() {
    let etcd = Etcd::start();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("signalled");
    let script =
        format!("trap 'touch {}; exit 5' TERM; while :; do sleep 0.1; done", file.display());
    let child = start(&etcd, &["--", "sh", "-c", &script]);
    until_there(&etcd, KEY);
    // While etcd does not answer, the key is not deleted.
    etcd.freeze();
    signal::send(child.id(), Signal::TERM);
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(1) {
        assert!(!file.exists(), "the command got the signal first");
    }
    etcd.thaw();
    assert_eq!((end(child).0, value(&etcd, KEY)), (Some(5), None));

    let child = start(&etcd, &["--", "sleep", "1000"]);
    until_there(&etcd, KEY);
    signal::send(child.id(), Signal::INT);
    assert_eq!(end(child).0, Some(130));
}

#[test]
fn the_command_runs_on_while_clients_hear_that_it_leaves() {
    let etcd = Etcd::start();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = |name: &str| directory.path().join(name);
    let script = format!(
        "cd {}; trap 'touch signalled; exit 5' TERM; touch ready; while :; do sleep 0.02; done",
        directory.path().display()
    );
    let run = |delay| {
        let child = start(&etcd, &["--drain-delay", delay, "--", "sh", "-c", &script]);
        eventually("the command", || file("ready").exists().then_some(()));
        until_there(&etcd, KEY);
        signal::send(child.id(), Signal::TERM);
        eventually("the key is gone", || value(&etcd, KEY).is_none().then_some(()));
        child
    };
    let child = run("1h");
    assert!(!file("signalled").exists(), "the command got the signal with the key's end");
    // A second signal is passed on at once.
    signal::send(child.id(), Signal::TERM);
    assert_eq!(end(child).0, Some(5));
    assert_eq!(end(run("50ms")).0, Some(5));
    // The command's own end ends the delay too.
    let get = format!("etcdctl --endpoints={} get {KEY} | grep -q .", etcd.url());
    let seen = file("seen");
    let script = format!(
        "until {get}; do :; done; touch {}; while {get}; do :; done; exit 7",
        seen.display()
    );
    let child = start(&etcd, &["--drain-delay", "1h", "--", "sh", "-c", &script]);
    eventually("the command sees the key", || seen.exists().then_some(()));
    signal::send(child.id(), Signal::TERM);
    assert_eq!(end(child).0, Some(7));
}

/// Returns whether the process exists and is not a zombie.
#[cfg(target_os = "linux")]
fn lives(id: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
}

#[test]
fn other_signals_reach_the_command_and_end_nothing() {
    let etcd = Etcd::start();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = |name: &str| directory.path().join(name);
    let script = format!(
        "cd {}; trap 'touch usr1' USR1; trap 'touch usr2' USR2; trap 'touch alrm' ALRM; \
         touch ready; while :; do sleep 0.02; done",
        directory.path().display()
    );
    let child = start(&etcd, &["--", "sh", "-c", &script]);
    eventually("the command", || file("ready").exists().then_some(()));
    until_there(&etcd, KEY);
    let signals = [(Signal::USR1, "usr1"), (Signal::USR2, "usr2"), (Signal::ALARM, "alrm")];
    for (signal, name) in signals {
        signal::send(child.id(), signal);
        eventually(name, || file(name).exists().then_some(()));
    }
    assert!(value(&etcd, KEY).is_some());
    signal::send(child.id(), Signal::TERM);
    assert_eq!((end(child).0, value(&etcd, KEY)), (Some(143), None));

    let child = start(&etcd, &[]);
    until_there(&etcd, KEY);
    for signal in [Signal::USR1, Signal::USR2, Signal::ALARM, Signal::VTALARM] {
        signal::send(child.id(), signal);
    }
    signal::send(child.id(), Signal::TERM);
    assert_eq!((end(child).0, value(&etcd, KEY)), (Some(0), None));
}

#[cfg(target_os = "linux")]
#[test]
fn the_command_ends_when_we_are_killed() {
    let etcd = Etcd::start();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("id");
    let script = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000", file.display());
    let mut child = start(&etcd, &["--", "sh", "-c", &script]);
    let id = eventually("its number", || std::fs::read_to_string(&file).ok());
    let id = id.trim();
    assert!(lives(id));
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    eventually("the command's end", || (!lives(id)).then_some(()));
}

/// Exits with the number of zombies that no process waits for.
#[cfg(target_os = "linux")]
const CORPSES: &str = r#"
    for n in 1 2 3; do (sleep 0.05 &); done; sleep 1; corpses=0
    for stat in /proc/[0-9]*/stat; do
        read -r line < $stat; case "$line" in *") Z "*) corpses=$((corpses + 1));; esac
    done; exit $corpses"#;

#[cfg(target_os = "linux")]
#[test]
fn orphans_are_taken_in_by_the_first_process() {
    let inside = |program: &str, args: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount-proc", program]).args(args);
        command.stdin(Stdio::null()).output().expect("unshare runs")
    };
    if !inside("true", &[]).status.success() {
        support::skip("orphans", "processes cannot be put in a world of their own");
        return;
    }
    let etcd = Etcd::start();
    let url = etcd.url();
    let args = ["register", "--etcd", &url, "--service", "hello", "--addr", "10.0.0.1:1"];
    let command = ["--", "sh", "-c", CORPSES];
    let output = inside(env!("CARGO_BIN_EXE_lookaside"), &[&args[..], &command].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}
