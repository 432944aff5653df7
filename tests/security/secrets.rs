//! Tests that passwords and tokens appear in nothing that the program emits.

use super::{Files, OPERATOR, READER, ask, bearer, command, lookaside, printed};
use crate::support::etcd::Etcd;
use crate::support::eventually;
use crate::support::lookaside::Balancer;

/// The password of etcd's user, and a wrong one.
const PASSWORD: &str = "s3cr3t-of-etcd";
const WRONG: &str = "s3cr3t-of-nobody";
/// What both have in common, and what the tokens have.
const SECRETS: [&str; 3] = ["s3cr3t", READER, OPERATOR];

#[track_caller]
fn check(what: &str, shown: &str) {
    for secret in SECRETS {
        assert!(!shown.contains(secret), "{what} shows {secret}:\n{shown}");
    }
}

/// Lets `me` with the password do all, and nobody without one.
fn etcd_with_users() -> Etcd {
    // Cheap hashes, because each login makes one.
    let etcd = Etcd::start_with(&["--bcrypt-cost", "4"]);
    for args in [
        &["user", "add", "root:root"][..],
        &["user", "grant-role", "root", "root"],
        &["user", "add", &format!("me:{PASSWORD}")],
        &["user", "grant-role", "me", "root"],
        &["put", "/etcd3_naming/hello/1", "10.0.0.1:80"],
        &["auth", "enable"],
    ] {
        etcd.ctl(args);
    }
    etcd
}

#[test]
fn credentials_appear_in_nothing_that_a_balancer_emits() {
    let (files, etcd) = (Files::new(), etcd_with_users());
    let password = files.write("password", &format!("{PASSWORD}\n"));
    let reader = files.write("reader", READER);
    let operator = files.write("operator", OPERATOR);
    let state = files.path("state");
    let config = files.write("lookaside.toml", "[service.hello]\nguard = 10\n");
    let url = etcd.url();
    let flags = [
        ["--etcd", &url],
        ["--etcd-user", "me"],
        ["--etcd-password-file", &password],
        ["--admin-reader-tokens", &reader],
        ["--admin-operator-tokens", &operator],
        ["--state-dir", &state],
        ["--config", &config],
        ["--log", "trace"],
    ];
    for format in ["text", "json"] {
        let flags = [flags.as_flattened(), &["--log-format", format]].concat();
        let mut balancer = Balancer::start(&flags);
        balancer.wait_ready();
        for path in [
            "/",
            "/livez",
            "/readyz",
            "/metrics",
            "/nowhere",
            "/api/v1/status",
            "/api/v1/registry",
            "/api/v1/services",
            "/api/v1/services/hello",
            "/api/v1/clients",
            "/api/v1/rejected",
            "/api/v1/explain?service=hello",
            "/api/v1/settings",
            "/api/v1/marks",
            "/api/v1/balancers",
            "/api/v1/xds/bootstrap",
        ] {
            let (status, head, body) =
                ask(balancer.admin(), &format!("GET {path}"), &bearer(READER));
            assert!(status == 200 || path == "/nowhere", "{path} {status}");
            check(path, &(head + &body));
        }
        let drain = "POST /api/v1/services/hello/drain";
        ask(balancer.admin(), drain, &bearer(OPERATOR));
        ask(balancer.admin(), drain, &bearer(READER));
        let process = format!("/proc/{}", balancer.id());
        for file in ["cmdline", "environ"] {
            let text = std::fs::read(format!("{process}/{file}")).unwrap_or_default();
            check(file, &String::from_utf8_lossy(&text));
        }
        // With a password that etcd refuses, it cannot take its own key away.
        files.write("password", &format!("{WRONG}\n"));
        eventually("the file is read", || {
            balancer.log().contains("are used from now on").then_some(())
        });
        assert!(balancer.terminate().success());
        files.write("password", &format!("{PASSWORD}\n"));
        eventually("the last line is read", || {
            balancer.log().contains("invalid user ID or password").then_some(())
        });
        let log = balancer.log();
        assert!(log.contains("TRACE"), "it says all that it can");
        check("the log", &log);
    }
    let root = ["--user=root:root", "get", "--prefix", "/"];
    check("what is in etcd", &etcd.ctl(&root));
    for file in std::fs::read_dir(&state).expect("a directory") {
        let bytes = std::fs::read(file.expect("a file").path()).expect("it can be read");
        check("the saved state", &String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn credentials_appear_in_nothing_that_commands_print() {
    let (files, etcd) = (Files::new(), etcd_with_users());
    let url = etcd.url();
    let wrong = files.write("password", &format!("{WRONG}\n"));
    let document = files.write("settings.toml", "[service.hello]\nguard = 10\n");
    let login = ["--etcd", &url, "--etcd-user", "me", "--etcd-password-file", &wrong];
    for args in [
        &["check", "--live", "--log", "trace"][..],
        &["settings", "apply", &document, "--log", "trace"],
    ] {
        let (code, shown) = printed(&lookaside(&[args, &login].concat()));
        assert!(code == Some(1) && shown.contains("invalid user ID or password"), "{shown}");
        check(args[0], &shown);
    }
    // Passwords where none belongs are refused without a word of theirs.
    let address = format!("127.0.0.1:{}", etcd.port());
    let inside = format!("http://me:{PASSWORD}@{address}");
    let user = format!("me:{PASSWORD}");
    let config = files.write("lookaside.toml", &format!("etcd = '{inside}'\n"));
    let joined = format!("--etcd-password={PASSWORD}");
    for args in [
        &["serve", "--etcd", &inside][..],
        &["check", "--etcd", &inside],
        &["register", "--service", "a", "--addr", "a:1", "--etcd", &inside],
        &["settings", "apply", &document, "--etcd", &inside],
        &["serve", "--config", &config],
        &["serve", "--etcd", &url, "--etcd-user", &user],
        &["serve", "--etcd", &url, "--etcd-user", &user, "--etcd-password-file", &wrong],
        &["serve", "--etcd", &url, "--etcd-password", PASSWORD],
        &["serve", "--etcd", &url, &joined],
    ] {
        let (code, shown) = printed(&lookaside(args));
        assert_eq!(code, Some(64), "{args:?} {shown}");
        check(&args.join(" ").replace(PASSWORD, "…"), &shown);
    }
    // The help shows what the environment sets, but nothing of these.
    let admin = format!("http://me:{PASSWORD}@{address}");
    for args in [
        &["serve", "--help"][..],
        &["check", "--help"],
        &["register", "--help"],
        &["settings", "apply", "--help"],
        &["services", "--help"],
        &["drain", "--help"],
        &["settings", "show", "--help"],
        &["services", "--no-such-flag"],
        &["serve", "--no-such-flag"],
    ] {
        let mut command = command(args);
        command.env("LOOKASIDE_ETCD", &inside).env("LOOKASIDE_ETCD_USER", &user);
        let (_, shown) =
            printed(&command.env("LOOKASIDE_ADMIN", &admin).output().expect("it runs"));
        assert!(shown.contains("Usage"), "{shown}");
        check(&args.join(" "), &shown);
    }
    let token = files.write("token", READER);
    let nobody = format!("http://me:{PASSWORD}@127.0.0.1:1");
    let flags = ["services", "--log", "trace", "--admin-token-file", &token, "--admin", &nobody];
    let (code, shown) = printed(&lookaside(&flags));
    assert!(code == Some(1) && shown.contains("cannot ask http://***@127.0.0.1:1"), "{shown}");
    check("services", &shown);
}
