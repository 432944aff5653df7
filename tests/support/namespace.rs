//! A network of a test's own (Linux, root): loopback and nothing else, where
//! every port is free, port 53 too, and the machine's name lookups ask
//! 127.0.0.1 and a hosts file that the test may write.
//!
//! For clients that know no resolver but the system's. The test runs itself
//! again: as a process of its own inside, while outside it waits for that.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::skip;

/// Names the directory with the files below; set inside only.
const INSIDE: &str = "LOOKASIDE_NAMESPACE";

/// Arguments: the directory, then the command. Files are laid over those of
/// the machine for this process and its children alone.
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

/// What the machine is to find in /etc. No other source of names: one that
/// listens on a Unix socket, as systemd's does, would be reached from inside.
const FILES: [(&str, &str); 3] = [
    ("resolv.conf", "nameserver 127.0.0.1\n"),
    ("nsswitch.conf", "hosts: files dns\n"),
    // A machine that cannot find itself makes Java's channels hang.
    ("hosts", "127.0.0.1 localhost $(hostname)\n::1 localhost\n"),
];

/// Runs a test inside. To be called at once by the test, with a closure that
/// is written there: the closure's type says which test it is.
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
    // Whatever ends this process ends everything inside.
    let output = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--fork"])
        .args(["--kill-child", "--mount-proc", "sh", "-c", ENTER, "sh"])
        .arg(directory.path())
        .arg(std::env::current_exe().expect("a test knows its program"))
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, directory.path())
        .output()
        .expect("setpriv runs: Debian package util-linux");
    // Indented: its "test result" is not one that scripts/test should count.
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().replace('\n', "\n  | ");
    println!("  | {}\n  | {}", shown(&output.stdout), shown(&output.stderr));
    let ran = String::from_utf8_lossy(&output.stdout).contains("test result: ok. 1 passed");
    assert!(output.status.success() && ran, "{name}: failed in its namespace: see above");
}

/// Whether this is the process inside.
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Lets the machine know a name, before it asks DNS. Inside only.
#[track_caller]
pub fn add_host(name: &str, address: &str) {
    let directory = PathBuf::from(std::env::var_os(INSIDE).expect("only inside a namespace"));
    let hosts = std::fs::OpenOptions::new().append(true).open(directory.join("hosts"));
    writeln!(hosts.expect("it was made outside"), "{address} {name}").expect("it can be written");
}

/// `crate::module::test::{{closure}}`, less the crate and the closure.
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
