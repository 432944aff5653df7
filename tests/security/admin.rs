//! Tests of who gets in at the admin address: tokens, the Unix socket, other hosts, other
//! sites' names, and paths that climb.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::{Files, OPERATOR, READER, ask, bearer, command, lookaside, printed};
use crate::support::certificates::Authority;
use crate::support::etcd::Etcd;
use crate::support::lookaside::{Balancer, program};
use crate::support::namespace::isolated;
use crate::support::network::Network;
use crate::support::signal::Signal;
use crate::support::{eventually, skip};

const READ: [&str; 6] = [
    "GET /metrics",
    "GET /api/v1/services",
    "GET /api/v1/services/hello",
    "HEAD /api/v1/clients",
    "GET /nowhere",
    "GET /api/v1/settings",
];
const OPEN: [&str; 6] = [
    "GET /livez",
    "GET /readyz",
    "GET /",
    "GET /dashboard.js",
    "GET /dashboard.css",
    "GET /glossary",
];

/// A balancer with tokens, two backends of `hello` in etcd, and the files of the tokens.
fn guarded(files: &Files, etcd: &Etcd) -> Balancer {
    let reader = files.write("reader", &format!("# readers\n{READER}\n"));
    let operator = files.write("operator", &format!("{OPERATOR}\n"));
    for n in ["1", "2"] {
        etcd.ctl(&["put", &format!("/etcd3_naming/hello/{n}"), &format!("10.0.0.{n}:80")]);
    }
    let tokens = ["--admin-reader-tokens", &reader, "--admin-operator-tokens", &operator];
    // Whatever it can say, it says.
    let balancer =
        Balancer::start(&[&["--etcd", &etcd.url(), "--log", "trace"], &tokens[..]].concat());
    balancer.wait_ready();
    balancer
}

#[test]
fn tokens_decide_who_reads_and_who_changes() {
    let (files, etcd) = (Files::new(), Etcd::start());
    let balancer = guarded(&files, &etcd);
    let admin = balancer.admin();
    let status = |line: &str, headers: &str| ask(admin, line, headers).0;
    for line in OPEN {
        assert_eq!(status(line, ""), 200, "{line}");
    }
    let wrong = bearer("reader-token-0123456780");
    for line in READ {
        for headers in ["", &wrong, &bearer(""), &format!("authorization: Basic {READER}\r\n")] {
            let (status, head, body) = ask(admin, line, headers);
            assert_eq!(status, 401, "{line} {headers}");
            assert!(head.contains("www-authenticate: bearer"), "{head}");
            assert!(line.starts_with("HEAD") || body.contains("--admin-token-file"), "{body}");
            assert!(!body.contains("10.0.0.") && !body.contains("reader-token"), "{body}");
        }
        let found = if line == "GET /nowhere" { 404 } else { 200 };
        assert_eq!(status(line, &bearer(READER)), found, "{line}");
        assert_eq!(status(line, &bearer(OPERATOR)), found, "{line}");
    }
    let drain = "POST /api/v1/services/hello/drain";
    for line in [drain, "POST /api/v1/services/hello/release", "PUT /metrics", "DELETE /livez"] {
        assert_eq!(status(line, ""), 401, "{line}");
        assert_eq!(status(line, &wrong), 401, "{line}");
        let (status, _, body) = ask(admin, line, &bearer(READER));
        assert_eq!(status, 403, "{line}");
        assert!(body.contains("an operator's token"), "{body}");
    }
    // An operator gets through to what the path says.
    assert_eq!(status("PUT /metrics", &bearer(OPERATOR)), 405);
    assert_eq!(status(drain, &bearer(OPERATOR)), 400);
    // A page of another site can have no token, and a browser may change nothing with one.
    let page = format!("{}origin: http://evil.example\r\n", bearer(OPERATOR));
    assert_eq!(status(drain, &page), 403);
    // A foreign name is refused before any token counts.
    let rebound = format!("{}host: evil.example\r\n", bearer(OPERATOR));
    assert_eq!(status("GET /metrics", &rebound), 421);

    let (_, _, metrics) = ask(admin, "GET /metrics", &bearer(READER));
    for reason in ["no_token", "unknown_token", "not_operator"] {
        let series = format!("lookaside_admin_refused_total{{reason=\"{reason}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&series));
        assert!(line.is_some_and(|count| count != "0"), "{series}{line:?}");
    }
    let log = balancer.log();
    assert_eq!(log.matches("admin request refused").count(), 1, "one a minute");
    assert!(!log.contains("reader-token") && !log.contains("operator-token"), "{log}");
}

/// The error names etcd's address.
#[test]
fn without_a_token_readyz_hides_the_error_of_etcd() {
    let (files, mut etcd) = (Files::new(), Etcd::start());
    let balancer = guarded(&files, &etcd);
    etcd.kill();
    let shown = |headers: &str| {
        eventually("it is stale", || {
            let (status, _, body) = ask(balancer.admin(), "GET /readyz", headers);
            (status == 200 && body.contains("registry: stale for ")).then_some(body)
        })
    };
    let (nobody, reader) = (shown(""), shown(&bearer(READER)));
    assert!(!nobody.contains('('), "{nobody}");
    assert!(reader.contains(" s (") && reader.ends_with("serving what was last read"), "{reader}");
}

#[test]
fn commands_bring_a_token_and_are_told_what_it_lacks() {
    let (files, etcd) = (Files::new(), Etcd::start());
    let balancer = guarded(&files, &etcd);
    let admin = format!("http://{}", balancer.admin());
    let run = |args: &[&str], token: &str| {
        let file = files.path(token);
        let more = if token.is_empty() { vec![] } else { vec!["--admin-token-file", &file] };
        printed(&lookaside(&[args, &["--admin", &admin], &more].concat()))
    };
    let all = [
        &["services"][..],
        &["clients"],
        &["explain", "hello"],
        &["marks"],
        &["settings", "show"],
        &["watch", "hello"],
    ];
    for args in all {
        let (code, shown) = if args[0] == "watch" {
            // It waits for a balancer that is away, and says why.
            let file = files.path("none");
            let mut child = command(&[args, &["--admin", &admin]].concat())
                .stderr(std::fs::File::create(&file).expect("a file"))
                .spawn()
                .expect("lookaside runs");
            let read = || std::fs::read_to_string(&file).ok().filter(|text| !text.is_empty());
            let shown = eventually("it says what is wrong", read);
            child.kill().expect("it runs");
            child.wait().expect("it ends");
            (Some(1), shown)
        } else {
            run(args, "")
        };
        assert_eq!(code, Some(1), "{args:?} {shown}");
        assert!(shown.contains("needs a token"), "{args:?} {shown}");
        if args[0] != "watch" {
            assert_eq!(run(args, "reader").0, Some(0), "{args:?}");
        }
    }
    let document = files.write("settings.toml", "[service.hello]\nguard = 10\n");
    assert_eq!(run(&["settings", "diff", &document], "reader").0, Some(0));
    let (code, shown) = run(&["drain", "hello", "1"], "reader");
    assert!(code == Some(1) && shown.contains("needs an operator's token"), "{shown}");
    assert!(!etcd.ctl(&["get", "--prefix", "/lookaside/marks/"]).contains("drain"));
    let (code, shown) = run(&["drain", "hello", "1"], "operator");
    assert_eq!(code, Some(0), "{shown}");
    assert!(etcd.ctl(&["get", "--prefix", "/lookaside/marks/"]).contains("drain"));
    // The environment names the file too.
    let output = command(&["undrain", "hello", "1", "--admin", &admin])
        .env("LOOKASIDE_ADMIN_TOKEN_FILE", files.path("operator"))
        .output();
    assert_eq!(printed(&output.expect("it runs")).0, Some(0));
}

#[test]
fn tokens_are_replaced_under_a_running_balancer() {
    let (files, etcd) = (Files::new(), Etcd::start());
    let balancer = guarded(&files, &etcd);
    let admin = balancer.admin();
    let status = |token: &str| ask(admin, "GET /metrics", &bearer(token)).0;
    let next = "reader-token-of-next-week";
    assert_eq!((status(READER), status(next)), (200, 401));
    files.write("reader", &format!("{next}\n{READER}\n"));
    balancer.signal(Signal::HUP);
    eventually("the next token is known", || (status(next) == 200).then_some(()));
    assert_eq!(status(READER), 200, "both are known for a while");
    files.write("reader", &format!("{next}\n"));
    // Without a signal, changed files are read too.
    eventually("the former token is forgotten", || (status(READER) == 401).then_some(()));
    files.write("reader", "short\n");
    balancer.signal(Signal::HUP);
    let broken = "lookaside_credentials_broken{use=\"admin_reader\"} 1";
    eventually("a fault", || {
        ask(admin, "GET /metrics", &bearer(next)).2.contains(broken).then_some(())
    });
    let log = balancer.log();
    assert!(log.contains("line 1: a token has 16 to 512 characters, not 5"), "{log}");
    let (_, _, shown) = ask(admin, "GET /api/v1/status", &bearer(next));
    assert!(shown.contains("\"credentials_broken\":[\"admin_reader\"]"), "{shown}");
}

#[test]
fn paths_that_climb_lead_nowhere() {
    let (files, etcd) = (Files::new(), Etcd::start());
    let balancer = guarded(&files, &etcd);
    for path in [
        "/../../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/dashboard.js/../api/v1/services",
        "/livez/../metrics",
        "/livez/..%2fmetrics",
        "/livez%2f..%2fmetrics",
        "//metrics",
        "/./metrics",
        "/metrics/",
        "/livez?/metrics",
        "/api/v1/services/../clients",
        "/api/v1/services/%2e%2e/clients",
        "/api/v1/services/..%2f..%2f..%2fetc%2fpasswd",
        "/api/v1/services/%00",
        "/glossary/../../docs/flags.md",
    ] {
        let line = format!("GET {path}");
        let (status, _, body) = ask(balancer.admin(), &line, "");
        if status == 200 {
            assert_eq!((path, body.as_str()), ("/livez?/metrics", "ok"));
            continue;
        }
        assert_eq!(status, 401, "{path} {body}");
        let (status, head, body) = ask(balancer.admin(), &line, &bearer(READER));
        assert!(matches!(status, 400 | 404), "{path} {status} {body}");
        assert!(head.contains("application/json"), "{head}");
        assert!(!body.contains("root:"), "{body}");
    }
}

#[test]
fn a_unix_socket_is_for_its_owner_and_group() {
    let files = Files::new();
    let path = files.path("admin");
    let at = format!("unix:{path}");
    let mut balancer = Balancer::start(&["--admin-listen", &at]);
    let about = std::fs::metadata(&path).expect("the socket is there");
    assert!(about.file_type().is_socket());
    assert_eq!(about.permissions().mode() & 0o777, 0o660);
    eventually("it is read", || {
        (printed(&lookaside(&["services", "--admin", &at])).0 == Some(0)).then_some(())
    });
    for args in [&["clients"][..], &["marks"], &["settings", "show"], &["services", "--json"]] {
        let (code, shown) = printed(&lookaside(&[args, &["--admin", &at]].concat()));
        assert_eq!(code, Some(0), "{args:?} {shown}");
    }
    let (code, shown) = printed(&lookaside(&["explain", "x", "--admin", &at]));
    assert!(code == Some(0) && shown.contains("no backend of \"x\" is registered"), "{shown}");

    // A second balancer does not take the socket away from the first.
    let taken = Balancer::try_start(&["--admin-listen", &at]).err().expect("it is taken");
    assert!(taken.contains(&format!("cannot listen on {at} for admin")), "{taken}");
    assert_eq!(printed(&lookaside(&["services", "--admin", &at])).0, Some(0));
    // What a killed one leaves behind is replaced, and a file that is no socket is not.
    balancer.kill();
    let (code, shown) = printed(&lookaside(&["services", "--admin", &at]));
    assert!(code == Some(1) && shown.contains("connection refused"), "{shown}");
    let mut balancer = Balancer::start(&["--admin-listen", &at]);
    assert!(balancer.terminate().success());
    assert!(!std::fs::exists(&path).expect("a path"), "it takes its socket away");
    files.write("admin", "mine");
    let taken = Balancer::try_start(&["--admin-listen", &at]).err().expect("a file is there");
    assert!(taken.contains("no socket is there"), "{taken}");
    assert_eq!(std::fs::read_to_string(&path).expect("it is left alone"), "mine");
}

#[test]
fn a_unix_socket_refuses_other_users() {
    const NAME: &str = "a_unix_socket_refuses_other_users";
    if !rustix::process::geteuid().is_root() {
        return skip(NAME, "it needs root, to be another user");
    }
    let files = Files::new();
    // Another user must be able to come as far as the socket, and to run the program.
    let open = |path: &str| {
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(path, mode).expect("it is ours");
    };
    open(&files.path(""));
    let copy = files.path("lookaside");
    std::fs::copy(program(), &copy).expect("a copy");
    open(&copy);
    let at = format!("unix:{}", files.path("admin"));
    let balancer = Balancer::start(&["--admin-listen", &at]);
    let run = |user: u32, group: u32| {
        let mut command = Command::new(&copy);
        command.env_clear().args(["services", "--admin", &at]).uid(user).gid(group);
        printed(&command.output().expect("it runs"))
    };
    eventually("root may", || (run(0, 0).0 == Some(0)).then_some(()));
    let (code, shown) = run(65_534, 65_534);
    assert!(code == Some(1) && shown.contains("ermission denied"), "{shown}");
    // A member of the group may.
    assert_eq!(run(65_534, 0).0, Some(0));
    drop(balancer);
}

/// Another host asks: what listens on loopback is not there for it, and what it can reach
/// asks for TLS and a token.
#[test]
fn other_hosts_get_in_with_tls_and_a_token_only() {
    isolated(|| {
        let far = Network::new(0);
        let files = Files::new();
        let output = lookaside(&["serve", "--admin-listen", "0.0.0.0:0"]);
        let (code, shown) = printed(&output);
        assert_eq!(code, Some(64), "{shown}");
        assert!(shown.contains("is open to other hosts without tokens and TLS"), "{shown}");

        let authority = Authority::new();
        let (cert, key) = authority.sign(&[&far.ours()]);
        let ca = files.write("ca", &authority.pem());
        let flags = [
            ("--admin-cert", files.write("cert", &cert)),
            ("--admin-key", files.write("key", &key)),
            ("--admin-reader-tokens", files.write("reader", READER)),
        ];
        let flags: Vec<&str> = flags.iter().flat_map(|(flag, file)| [*flag, file]).collect();
        let registry = ["--registry-listen", "0.0.0.0:0"];
        let (code, shown) = printed(&lookaside(&[&["serve"], &registry[..]].concat()));
        assert_eq!(code, Some(64), "{shown}");
        assert!(shown.contains("give --registry-open-to-network on"), "{shown}");
        let open = ["--registry-open-to-network", "on"];
        let near = Balancer::start(&[registry, open].concat());
        eventually("the log warns of the registry", || {
            near.log().contains("lets every host register and delete").then_some(())
        });
        let reachable = Balancer::start(&[&["--admin-listen", "0.0.0.0:0"], &flags[..]].concat());
        let run = |url: &str, more: &[&str]| {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", &far.name()]).arg(program());
            command.args(["services", "--admin", url]).args(more);
            printed(&command.output().expect("ip runs"))
        };
        let at = |balancer: &Balancer| format!("{}:{}", far.ours(), balancer.admin().port());
        let (code, shown) = run(&format!("http://{}", at(&near)), &[]);
        assert!(code == Some(1) && shown.contains("connection refused"), "{shown}");
        let plain = format!("http://{}", at(&reachable));
        let tls = format!("https://{}", at(&reachable));
        let token = ["--admin-token-file", &files.path("reader")];
        let trust = ["--admin-ca", &ca];
        let (code, shown) = run(&plain, &token);
        assert!(
            code == Some(1) && shown.contains("has no TLS, so the token can be read"),
            "{shown}"
        );
        let (code, shown) = run(&tls, &token);
        assert!(code != Some(0) && !shown.contains("SERVICE"), "a stranger's certificate: {shown}");
        let (code, shown) = run(&tls, &trust);
        assert!(code == Some(1) && shown.contains("needs a token"), "{shown}");
        eventually("it is read", || {
            (run(&tls, &[&token[..], &trust[..]].concat()).0 == Some(0)).then_some(())
        });
    });
}
