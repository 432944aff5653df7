//! The etcd roles of `deploy/etcd-roles`, in a real etcd that asks for users.

use std::path::Path;
use std::process::{Command, Stdio};

use super::json;
use crate::support::etcd::Etcd;
use crate::support::eventually;
use crate::support::free_port;
use crate::support::lookaside::{Balancer, program};

const ZONE: &str = "lookaside.internal";

/// The users of one etcd, and the directory with their passwords.
struct Users<'a> {
    etcd: &'a Etcd,
    passwords: &'a Path,
}

impl Users<'_> {
    /// Runs the script.
    #[track_caller]
    fn make(&self, args: &[&str]) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/etcd-roles/etcd-roles");
        let output = Command::new(script)
            .env("ETCDCTL_ENDPOINTS", self.etcd.url())
            .arg("--passwords")
            .arg(self.passwords)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .expect("bash runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn password(&self, user: &str) -> String {
        let text = std::fs::read_to_string(self.passwords.join(user)).expect("a password");
        text.trim_end().to_owned()
    }

    /// Runs etcdctl as a user. Returns whether it may.
    fn may(&self, user: &str, args: &[&str]) -> bool {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .env("ETCDCTL_USER", format!("{user}:{}", self.password(user)))
            .arg(format!("--endpoints={}", self.etcd.url()))
            .args(args)
            .output()
            .expect("etcdctl runs");
        let error = String::from_utf8_lossy(&output.stderr);
        let denied = error.contains("permission denied");
        assert!(output.status.success() || denied, "{user} {args:?}: {error}");
        !denied
    }
}

/// A balancer works under its role, and nobody can write what is another's.
#[test]
fn each_user_writes_only_what_is_its_own() {
    let etcd = Etcd::start();
    let directory = tempfile::tempdir().expect("a directory");
    let users = Users { etcd: &etcd, passwords: directory.path() };
    let own = format!("127.0.0.1:{}", free_port());
    let balancers = [format!("lb1={own}"), "lb2=127.0.0.1:9".to_owned()];
    let args = [
        "--prefix",
        "/services/",
        "--balancer",
        &*balancers[0],
        "--balancer",
        &*balancers[1],
        "--team",
        "a=/services/a/",
        "--team",
        "pay=/services/pay/",
        "--operator",
        "ops",
    ];
    users.make(&[&args[..], &["--enable"]].concat());
    // Again, with authentication on.
    users.make(&args);

    let password = directory.path().join("lb1");
    let password = password.to_str().expect("text");
    let url = etcd.url();
    let balancer = Balancer::start(&[
        "--etcd",
        &url,
        "--etcd-user",
        "lb1",
        "--etcd-password-file",
        password,
        "--prefix",
        "/services/",
        "--listen",
        &own,
        "--advertise",
        &own,
    ]);
    balancer.wait_ready();
    assert!(users.may("a", &["put", "/services/a/1", "127.0.0.9:1"]));
    assert!(users.may("pay", &["put", "/services/pay/1", "127.0.0.9:2"]));
    assert!(users.may("pay", &["put", "/services/pay/2", "127.0.0.9:3"]));
    balancer.wait_listed("a", "1");
    balancer.wait_listed("pay", "2");
    eventually("it announces itself", || {
        balancer.metric("lookaside_balancer_announced").filter(|is| *is == 1.0)
    });
    // Its marks, in both directions, and the operator's settings.
    let admin = format!("http://{}", balancer.admin());
    let command = |args: &[&str]| {
        let args = [args, &["--admin", &admin]].concat();
        let output = Command::new(program()).args(&args).output().expect("it runs");
        assert!(output.status.success(), "{args:?}: {output:?}");
    };
    command(&["drain", "pay", "127.0.0.9:3"]);
    let drained = || balancer.metric("lookaside_endpoints_drained") == Some(1.0);
    eventually("drained", || drained().then_some(()));
    command(&["undrain", "pay", "127.0.0.9:3"]);
    eventually("undrained", || (!drained()).then_some(()));
    let settings = format!("/lookaside/settings/{ZONE}");
    assert!(users.may("ops", &["put", &settings, "[service.pay]\nguard = 7\n"]));
    eventually("settings", || {
        let all = json(&balancer, "/api/v1/settings?service=pay");
        (all["services"][0]["settings"]["guard"]["value"] == "7").then_some(())
    });

    let announced = format!("/lookaside/balancers/{ZONE}/");
    let mark = format!("/lookaside/marks/{ZONE}/drain/pay/address/127.0.0.9:2");
    for (user, key) in [
        // A team: another's prefix, its beginning, and everything of the balancers.
        ("a", "/services/pay/1"),
        ("a", "/services/a"),
        ("a", "/services/b/1"),
        ("a", &settings),
        ("a", &mark),
        ("a", &format!("{announced}evil.example:443")),
        ("a", &format!("{announced}{own}")),
        // A balancer: registrations, settings, and another balancer's announcement.
        ("lb1", "/services/pay/1"),
        ("lb1", &settings),
        ("lb1", &format!("{announced}127.0.0.1:9")),
        ("lb1", &format!("{announced}127.0.0.1:9/1")),
        ("lb1", &format!("{announced}evil.example:443")),
        ("lb2", &format!("{announced}{own}")),
        // An operator: registrations and announcements.
        ("ops", "/services/pay/1"),
        ("ops", &format!("{announced}{own}")),
    ] {
        assert!(!users.may(user, &["put", key, "127.0.0.9:66"]), "{user} may write {key}");
        assert!(!users.may(user, &["del", key]), "{user} may delete {key}");
    }
    for (user, key) in [("a", "/services/pay/1"), ("a", &*settings), ("pay", &*announced)] {
        assert!(!users.may(user, &["get", "--prefix", key]), "{user} may read {key}");
    }
    assert!(users.may("lb1", &["get", "--prefix", "/services/"]));
    // Nothing of it was in a process list, and no other user reads the passwords.
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(password).expect("a file").permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");

    // What is no longer asked for is revoked.
    let fewer: Vec<_> =
        args.iter().map(|one| one.replace("a=/services/a/", "a=/services/c/")).collect();
    users.make(&fewer.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(!users.may("a", &["put", "/services/a/1", "127.0.0.9:1"]));
    assert!(users.may("a", &["put", "/services/c/1", "127.0.0.9:1"]));
}
