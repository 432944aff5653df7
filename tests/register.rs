//! Tests of registering in a real etcd: the library, and the program with its signals and
//! exit codes.

#[path = "register/command.rs"]
mod command;
#[path = "register/flags.rs"]
mod flags;

use crate::support;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::etcd::Etcd;
use crate::support::proxy::Proxy;
use crate::support::signal::{self, Signal};
use crate::support::{WAIT_MAX, eventually};
use lookaside::model::{HostPort, Meta, ServiceName, Weight};
use lookaside::register::{Held, Options, RegisterError, Status, TTL_MAX, hold};
use lookaside::registry::Registration;
use lookaside::registry::etcd::Connect;
use lookaside::registry::record::Format;
use tokio::time::timeout;
use tonic_health::ServingStatus;

const KEY: &str = "/s/hello/10.0.0.1:1";

fn connect(url: &str) -> Connect {
    Connect::new(&[url], None, None).expect("an endpoint")
}

fn options(url: &str, id: &str) -> Options {
    let registration = Registration {
        service: ServiceName::new("hello").expect("a name"),
        id: id.into(),
        address: HostPort::parse("10.0.0.1:1").expect("an address"),
        weight: Weight::DEFAULT,
        meta: Arc::new(Meta::new()),
    };
    let ttl = Duration::from_secs(2);
    Options { connect: connect(url), prefix: "/s".into(), registration, ttl, format: Format::Auto }
}

async fn held(url: &str) -> Held {
    let held = hold(options(url, "10.0.0.1:1")).await.expect("right options");
    until(&held, |status| *status == Status::Registered).await;
    held
}

async fn until(held: &Held, so: impl FnMut(&Status) -> bool) {
    let mut status_rx = held.status();
    timeout(WAIT_MAX, status_rx.wait_for(so)).await.expect("in time").expect("it is held");
}

fn trying(status: &Status) -> bool {
    matches!(status, Status::Trying { reason } if !reason.is_empty())
}

fn value(etcd: &Etcd, key: &str) -> Option<String> {
    let text = etcd.ctl(&["get", "--print-value-only", key]);
    let text = text.trim_end();
    (!text.is_empty()).then(|| text.to_owned())
}

fn number(etcd: &Etcd, key: &str, field: &str) -> Option<i64> {
    let json: serde_json::Value =
        serde_json::from_str(&etcd.ctl(&["get", key, "-w", "json"])).expect("json");
    json["kvs"][0][field].as_i64()
}

#[track_caller]
fn until_there(etcd: &Etcd, key: &str) {
    eventually("the key", || value(etcd, key));
}

#[track_caller]
fn until_gone(etcd: &Etcd, key: &str) {
    eventually("no key", || value(etcd, key).is_none().then_some(()));
}

fn leases(etcd: &Etcd) -> usize {
    etcd.ctl(&["lease", "list"]).lines().filter(|line| !line.contains("found")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn registers_under_a_lease_and_withdraws_both() {
    let etcd = Etcd::start();
    let one = held(&etcd.url()).await;
    assert_eq!(one.key(), KEY);
    assert_eq!(value(&etcd, KEY).as_deref(), Some("10.0.0.1:1"));
    assert_ne!(number(&etcd, KEY, "lease"), None);
    let mut rich = options(&etcd.url(), "other");
    rich.registration.weight = Weight(5);
    rich.registration.meta = Arc::new([("zone".to_owned(), "a".to_owned())].into());
    let other = hold(rich).await.expect("right options");
    until(&other, |status| *status == Status::Registered).await;
    let json: serde_json::Value =
        serde_json::from_str(&value(&etcd, "/s/hello/other").expect("a value")).expect("json");
    let expected = serde_json::json!(
        {"Op": 0, "Addr": "10.0.0.1:1", "Metadata": {"weight": "5", "zone": "a"}}
    );
    assert_eq!(json, expected);

    one.withdraw().await.expect("etcd answers");
    assert_eq!(value(&etcd, KEY), None);
    until_there(&etcd, "/s/hello/other");
    assert_eq!(leases(&etcd), 1);
    drop(other);
    until_gone(&etcd, "/s/hello/other");
    eventually("no lease", || (leases(&etcd) == 0).then_some(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn outlives_its_time_to_live_without_writing_again() {
    let etcd = Etcd::start();
    let held = held(&etcd.url()).await;
    let lease = number(&etcd, KEY, "lease");
    let started = Instant::now();
    // This is more than twice as long as a key without keepalives lives.
    while started.elapsed() < Duration::from_secs(5) {
        assert!(value(&etcd, KEY).is_some());
    }
    assert_eq!(number(&etcd, KEY, "lease"), lease);
    assert_eq!(number(&etcd, KEY, "version"), Some(1));
    held.withdraw().await.expect("etcd answers");
}

#[tokio::test(flavor = "multi_thread")]
async fn comes_back_when_lease_or_key_are_taken_away() {
    let etcd = Etcd::start();
    let held = held(&etcd.url()).await;
    let lease = number(&etcd, KEY, "lease").expect("a lease");
    etcd.ctl(&["lease", "revoke", &format!("{lease:x}")]);
    until_there(&etcd, KEY);
    assert_ne!(number(&etcd, KEY, "lease"), Some(lease));

    let lease = number(&etcd, KEY, "lease");
    etcd.ctl(&["del", KEY]);
    until_there(&etcd, KEY);
    assert_eq!(number(&etcd, KEY, "lease"), lease);

    for (what, value) in [("another value", "10.9.9.9:1"), ("no lease", "10.0.0.1:1")] {
        etcd.ctl(&["put", KEY, value]);
        eventually(what, || (number(&etcd, KEY, "lease") == lease).then_some(()));
        assert_eq!(self::value(&etcd, KEY).as_deref(), Some("10.0.0.1:1"));
    }
    held.withdraw().await.expect("etcd answers");
    assert_eq!((value(&etcd, KEY), leases(&etcd)), (None, 0));
}

/// The next keepalive is far away, so only the watch can notice.
#[tokio::test(flavor = "multi_thread")]
async fn notices_at_once_that_the_key_was_taken_away() {
    let etcd = Etcd::start();
    let options = Options { ttl: TTL_MAX, ..options(&etcd.url(), "10.0.0.1:1") };
    let held = hold(options).await.expect("right options");
    until(&held, |status| *status == Status::Registered).await;
    let lease = number(&etcd, KEY, "lease").expect("a lease");
    etcd.ctl(&["lease", "revoke", &format!("{lease:x}")]);
    until_there(&etcd, KEY);
    etcd.ctl(&["del", KEY]);
    until_there(&etcd, KEY);
    held.withdraw().await.expect("etcd answers");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_takes_over_and_the_key_stays_when_its_predecessor_leaves() {
    let etcd = Etcd::start();
    let old = held(&etcd.url()).await;
    let lease = number(&etcd, KEY, "lease");
    let new = held(&etcd.url()).await;
    assert_ne!(number(&etcd, KEY, "lease"), lease, "it does not trust a lease of somebody else");
    let version = number(&etcd, KEY, "version");
    let started = Instant::now();
    // Both send several keepalives in this time.
    while started.elapsed() < Duration::from_secs(2) {
        assert_eq!(number(&etcd, KEY, "version"), version, "they do not fight for it");
    }
    old.withdraw().await.expect("etcd answers");
    assert_eq!(number(&etcd, KEY, "version"), version, "nobody removed or wrote it");

    let third = held(&etcd.url()).await;
    third.withdraw().await.expect("etcd answers");
    until_there(&etcd, KEY);
    new.withdraw().await.expect("etcd answers");
    assert_eq!(value(&etcd, KEY), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn comes_back_when_etcd_was_away_emptied_or_frozen() {
    let mut etcd = Etcd::start();
    let held = held(&etcd.url()).await;
    etcd.restart_empty();
    until_there(&etcd, KEY);

    etcd.kill();
    until(&held, trying).await;
    etcd.restart();
    until_there(&etcd, KEY);

    etcd.freeze();
    until(&held, trying).await;
    etcd.thaw();
    until(&held, |status| *status == Status::Registered).await;
    until_there(&etcd, KEY);
    held.withdraw().await.expect("etcd answers");
    assert_eq!(value(&etcd, KEY), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn comes_back_after_longer_than_its_time_to_live() {
    let etcd = Etcd::start();
    let proxy = Proxy::to(etcd.port()).await;
    let held = held(&proxy.url()).await;
    proxy.cut();
    until(&held, trying).await;
    until_gone(&etcd, KEY);
    proxy.mend();
    until(&held, |status| *status == Status::Registered).await;
    assert_eq!(value(&etcd, KEY).as_deref(), Some("10.0.0.1:1"));

    proxy.cut();
    let error = held.withdraw().await.expect_err("there is no way to etcd");
    assert!(matches!(error, RegisterError::NotWithdrawn { .. }), "{error}");
    until_gone(&etcd, KEY);
}

#[tokio::test(flavor = "multi_thread")]
async fn waits_for_an_etcd_that_comes_later() {
    let mut etcd = Etcd::start();
    etcd.kill();
    let held = hold(options(&etcd.url(), "10.0.0.1:1")).await.expect("right options");
    until(&held, trying).await;
    etcd.restart();
    until_there(&etcd, KEY);
    held.withdraw().await.expect("etcd answers");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_in_again_when_etcd_forgot_the_token() {
    let mut etcd = Etcd::start();
    etcd.ctl(&["user", "add", "root:secret"]);
    etcd.ctl(&["user", "grant-role", "root", "root"]);
    etcd.ctl(&["auth", "enable"]);
    let user = Some(("root".to_owned(), "secret".to_owned()));
    let connect = Connect::new(&[&etcd.url()], user, None).expect("an endpoint");
    let options = Options { connect, ..options(&etcd.url(), "10.0.0.1:1") };
    let held = hold(options).await.expect("right options");
    let login = "--user=root:secret";
    let there = |etcd: &Etcd| etcd.ctl(&[login, "get", KEY]).contains("10.0.0.1:1").then_some(());
    eventually("the key", || there(&etcd));
    etcd.restart();
    etcd.ctl(&[login, "del", KEY]);
    eventually("the key", || there(&etcd));
    held.withdraw().await.expect("etcd answers");
    assert_eq!(there(&etcd), None);
}

#[tokio::test]
async fn wrong_options_are_refused_at_once() {
    let right = || options("http://127.0.0.1:1", "id");
    let check = async |options: Options, expected: &str| {
        assert_eq!(hold(options).await.expect_err("wrong").to_string(), expected);
    };
    let ttl = Duration::from_secs(1);
    check(Options { ttl, ..right() }, "the time to live is 1s: expected 2s to 1h").await;
    let id = "the id \"a/b\" cannot be used: it must not be empty nor hold '/', spaces or controls";
    check(options("http://127.0.0.1:1", "a/b"), id).await;
    ServiceName::new("a//b").expect_err("no prefix is found in a key with an empty segment");
    let mut plain = Options { format: Format::Plain, ..right() };
    plain.registration.weight = Weight(2);
    assert!(matches!(hold(plain).await, Err(RegisterError::Format(_))));
}

fn lookaside(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lookaside"));
    command.arg("register").args(args).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn start(etcd: &Etcd, args: &[&str]) -> Child {
    let url = etcd.url();
    let all = ["--etcd", &url, "--service", "hello", "--addr", "10.0.0.1:1", "--prefix", "/s/"];
    lookaside(&[&all, args].concat()).spawn().expect("the program starts")
}

fn end(child: Child) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = child.wait_with_output().expect("it ends");
    assert!(!String::from_utf8_lossy(&stderr).contains("panicked"));
    (status.code(), String::from_utf8_lossy(&stdout).into_owned())
}

#[test]
fn the_program_says_when_it_is_registered_and_withdraws_on_every_signal() {
    let etcd = Etcd::start();
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT] {
        let child = start(&etcd, &[]);
        until_there(&etcd, KEY);
        signal::send(child.id(), signal);
        let line = format!("registered service=hello address=10.0.0.1:1 key={KEY}\n");
        let (code, output) = end(child);
        // The signal may come before the program prints its line.
        assert!(output.is_empty() || output == line, "{output:?}");
        assert_eq!((code, value(&etcd, KEY)), (Some(0), None), "{signal:?}");
    }
}

#[test]
fn every_wrong_flag_is_reported_at_once() {
    let args = [
        ["--etcd", "http://etcd,ftp://etcd:1"],
        ["--etcd-user", "me"],
        ["--etcd-ca", "/no/such/file"],
        ["--etcd-cert", "/no/such/file"],
        ["--service", "a//b"],
        ["--addr", "10.0.0.1:500053"],
        ["--ttl", "1s"],
        ["--id", "a/b"],
        ["--weight", "-1"],
        ["--zone", " "],
        ["--meta", "nothing"],
        ["--format", "morse"],
    ];
    let output = lookaside(&args.concat()).output().expect("the program runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{error}");
    for [flag, _] in args {
        assert!(error.contains(&format!("error: {flag}")), "{flag}:\n{error}");
    }
    assert!(output.stdout.is_empty());

    let output = lookaside(&[]).output().expect("the program runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64));
    let expected =
        "error: --etcd is missing\nerror: --service is missing\nerror: --addr is missing\n";
    assert_eq!(error, expected);
    let output = lookaside(&["--bogus"]).output().expect("the program runs");
    assert_eq!(output.status.code(), Some(64));
}

#[test]
fn flags_come_from_the_environment_too() {
    let etcd = Etcd::start();
    let mut command = lookaside(&[]);
    let variables = [
        ("ETCD", etcd.url()),
        ("SERVICE", "hello".to_owned()),
        ("ADDR", "10.0.0.1:1".to_owned()),
        ("PREFIX", "/s".to_owned()),
        ("ID", "one".to_owned()),
        ("META", "version=2,color=red".to_owned()),
    ];
    for (name, value) in variables {
        command.env(format!("LOOKASIDE_{name}"), value);
    }
    let child = command.spawn().expect("the program starts");
    let value = eventually("the key", || value(&etcd, "/s/hello/one"));
    assert!(value.contains(r#""color":"red""#) && value.contains(r#""version":"2""#), "{value}");
    signal::send(child.id(), Signal::TERM);
    assert_eq!(end(child).0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn registers_only_while_the_backend_is_serving() {
    let etcd = Etcd::start();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket has an address").to_string();
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter.set_service_status("", ServingStatus::NotServing).await;
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let server = tonic::transport::Server::builder().add_service(service);
    // The backend has a runtime of its own, so its connections end with it.
    let backend = tokio::runtime::Runtime::new().expect("a runtime");
    backend.spawn(server.serve_with_incoming(incoming));
    let url = etcd.url();
    let args = ["--etcd", &url, "--service", "hello", "--addr", &address, "--prefix", "/s/"];
    let child = lookaside(&[&args[..], &["--when-serving"]].concat()).spawn().expect("it starts");
    let key = format!("/s/hello/{address}");
    for _ in 0..2 {
        reporter.set_service_status("", ServingStatus::Serving).await;
        until_there(&etcd, &key);
        reporter.set_service_status("", ServingStatus::NotServing).await;
        until_gone(&etcd, &key);
    }
    reporter.set_service_status("", ServingStatus::Serving).await;
    until_there(&etcd, &key);
    backend.shutdown_background();
    until_gone(&etcd, &key);
    signal::send(child.id(), Signal::TERM);
    let (code, output) = end(child);
    assert_eq!((code, output.lines().count()), (Some(0), 3), "{output}");
}
