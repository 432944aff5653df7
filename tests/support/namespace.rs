//! Runs a test in its own network namespace (Linux, root): it has only loopback, every port
//! is free (also 53), and name lookups ask 127.0.0.1.
//!
//! It is for programs that use only the system's resolver. The test starts its own program
//! again as a process inside the namespace, and waits for it outside.

use std::path::Path;
use std::process::Command;

use super::skip;

/// The variable with the directory of the files below. It is set inside only.
const INSIDE: &str = "LOOKASIDE_NAMESPACE";

/// A script; its arguments are the directory and the command. It mounts files over those of
/// the machine, for this process and its children only.
const ENTER: &str = r#"
set -e
ip link set lo up
for file in resolv.conf nsswitch.conf hosts; do
    [ ! -e "/etc/$file" ] || mount --bind "$1/$file" "/etc/$file"
done
grep -q '^nameserver 127.0.0.1$' /etc/resolv.conf
shift
exec "$@"
"#;

/// The files in /etc inside. They name no other source of names, because one that listens on
/// a Unix socket, such as systemd's, would be reachable from inside.
const FILES: [(&str, &str); 3] = [
    ("resolv.conf", "nameserver 127.0.0.1\n"),
    ("nsswitch.conf", "hosts: files dns\n"),
    // A machine that cannot find itself makes Java's channels hang.
    ("hosts", "127.0.0.1 localhost $(hostname)\n::1 localhost\n"),
];

/// Runs a test inside a namespace. A test must call it first, with a closure written in that
/// test: the type of the closure contains the test's name.
#[track_caller]
pub fn isolated<F: FnOnce()>(test: F) {
    if is_inside() {
        return test();
    }
    let name = test_name::<F>();
    if !cfg!(target_os = "linux") {
        return skip(name, "network namespaces are Linux's");
    }
    if !rustix::process::geteuid().is_root() {
        return skip(name, "a network namespace needs root");
    }
    need();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("Linux has it");
    for (file, text) in FILES {
        let text = text.replace("$(hostname)", hostname.trim());
        std::fs::write(directory.path().join(file), text).expect("a temporary file");
    }
    // If this process ends, all processes inside end too.
    let output = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--fork"])
        .args(["--kill-child", "--mount-proc", "sh", "-c", ENTER, "sh"])
        .arg(directory.path())
        .arg(std::env::current_exe().expect("a test knows its program"))
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, directory.path())
        .output()
        .expect("setpriv runs: Debian package util-linux");
    // The output is indented, so that scripts/test does not count its "test result".
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().replace('\n', "\n  | ");
    println!("  | {}\n  | {}", shown(&output.stdout), shown(&output.stderr));
    let ran = String::from_utf8_lossy(&output.stdout).contains("test result: ok. 1 passed");
    assert!(output.status.success() && ran, "{name}: failed in its namespace: see above");
}

/// Returns whether this process runs inside a namespace.
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Returns a test's name: `crate::module::test::{{closure}}` without crate and closure.
fn test_name<F>() -> &'static str {
    let path = std::any::type_name::<F>();
    let (_, path) = path.split_once("::").expect("a path begins with its crate");
    path.strip_suffix("::{{closure}}").expect("the test passes a closure")
}

fn need() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/need");
    let status = Command::new(script).arg("namespace").status();
    assert!(status.is_ok_and(|status| status.success()), "scripts/need namespace: see above");
}
