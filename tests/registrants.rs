//! Tests with the registration libraries of frameworks: they register in a real etcd,
//! and the balancer lists, updates and drops their backends. `tests/registrants/` has
//! a program for each, and says why others are missing.

use crate::support;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use crate::support::etcd::Etcd;
use crate::support::eventually;
use crate::support::lookaside::Balancer;
use serde_json::Value;

/// The address that registrants register. Nothing listens there, because the tests only
/// look at registrations.
const ADDRESS: &str = "127.0.0.9:50001";
/// The address that some registrants move to, because they can change nothing else.
const MOVED: &str = "127.0.0.9:50002";

/// The time that a library may take until it has registered. A busy machine takes long
/// to start a Java program.
const START: Duration = Duration::from_secs(120);

/// A program of `tests/registrants/`, and what the balancer must show of it.
struct Registrant<'a> {
    name: &'a str,
    /// The value of `--prefix`: `PREFIX=FORMAT`.
    prefix: &'a str,
    /// The balancer's name for the service that is registered as `hello`.
    service: &'a str,
    registered: &'a [Backend<'a>],
    updated: &'a [Backend<'a>],
}

/// One backend as the balancer lists it.
struct Backend<'a> {
    address: &'a str,
    /// `None`: a number that differs with each registration.
    id: Option<&'a str>,
    weight: u64,
    /// Metadata that must be there; there may be more.
    meta: &'a [(&'a str, &'a str)],
}

/// A running registrant. Dropping the value kills it, as in a crash.
struct Running(Child);

#[test]
fn the_naming_package_of_etcd() {
    const ID: Option<&str> = Some(ADDRESS);
    let (v1, v2) = (&[("version", "v1"), ("zone", "a")], &[("version", "v2"), ("zone", "a")]);
    comes_and_goes(&Registrant {
        name: "etcd-naming",
        prefix: "hello/=etcd-naming",
        service: "hello",
        registered: &[Backend { address: ADDRESS, id: ID, weight: 3, meta: v1 }],
        updated: &[Backend { address: ADDRESS, id: ID, weight: 5, meta: v2 }],
    });
}

/// It cannot deregister, so its key stays until its lease ends.
#[test]
fn the_grpc_proxy_of_etcd() {
    const ONE: Backend<'_> = Backend { address: ADDRESS, id: Some(ADDRESS), weight: 1, meta: &[] };
    const TWO: Backend<'_> = Backend { address: MOVED, id: Some(MOVED), weight: 1, meta: &[] };
    comes_and_goes(&Registrant {
        name: "etcd-grpcproxy",
        prefix: "etcd3_naming/=etcd-naming",
        service: "hello",
        registered: &[ONE],
        updated: &[ONE, TWO],
    });
}

/// It registers again under another number.
#[test]
fn go_zero() {
    const NUMBERED: Backend<'_> = Backend { address: ADDRESS, id: None, weight: 1, meta: &[] };
    comes_and_goes(&Registrant {
        name: "go-zero",
        prefix: "hello/=go-zero",
        service: "hello",
        registered: &[NUMBERED],
        updated: &[NUMBERED],
    });
}

#[test]
fn go_kit() {
    comes_and_goes(&Registrant {
        name: "go-kit",
        prefix: "/services/=go-kit",
        service: "hello",
        registered: &[Backend { address: ADDRESS, id: Some("1"), weight: 1, meta: &[] }],
        updated: &[Backend { address: MOVED, id: Some("1"), weight: 1, meta: &[] }],
    });
}

#[test]
fn skydns() {
    let meta = &[("group", "g1"), ("priority", "10")];
    comes_and_goes(&Registrant {
        name: "skydns",
        prefix: "/skydns/=skydns",
        service: "hello.skydns.local",
        registered: &[Backend { address: ADDRESS, id: Some("x1"), weight: 20, meta }],
        updated: &[Backend { address: ADDRESS, id: Some("x1"), weight: 30, meta }],
    });
}

#[test]
fn jetcd() {
    comes_and_goes(&Registrant {
        name: "jetcd",
        prefix: "/etcd3_naming/=plain",
        service: "hello",
        registered: &[Backend { address: ADDRESS, id: Some("1"), weight: 1, meta: &[] }],
        updated: &[Backend { address: MOVED, id: Some("1"), weight: 1, meta: &[] }],
    });
}

/// Its key holds all that it says, so an update writes another key and deletes the old.
#[test]
fn dubbo_java() {
    const ID: Option<&str> = Some(ADDRESS);
    let meta = &[("version", "1.0.0"), ("application", "registrant")];
    comes_and_goes(&Registrant {
        name: "dubbo-java",
        prefix: "/dubbo/=dubbo",
        service: "hello",
        registered: &[Backend { address: ADDRESS, id: ID, weight: 3, meta }],
        updated: &[Backend { address: ADDRESS, id: ID, weight: 5, meta }],
    });
}

/// Checks that a registrant is listed, updated, and dropped when it deregisters; and
/// that it is dropped after a crash, when its lease ends.
#[track_caller]
fn comes_and_goes(registrant: &Registrant<'_>) {
    let Registrant { name, prefix, service, registered, updated } = registrant;
    if let Err(reason) = build(name) {
        return support::skip(name, &reason);
    }
    let etcd = Etcd::start();
    // The guard is off: it would keep part of the list when both backends vanish.
    let balancer = Balancer::start(&["--etcd", &etcd.url(), "--prefix", prefix, "--guard", "0"]);
    balancer.wait_ready();

    let mut running = Running::start(name, &etcd);
    let first = until(&balancer, service, registered);
    running.say(&format!("update {MOVED}"));
    // After an update that changes nothing else, the id is another.
    eventually("the update is seen", || {
        let now = backends(&balancer, service);
        (now != first && matches(&now, updated)).then_some(())
    });
    running.say("stop");
    until(&balancer, service, &[]);
    drop(running);

    let doomed = Running::start(name, &etcd);
    until(&balancer, service, registered);
    drop(doomed);
    until(&balancer, service, &[]);

    // The balancer has rejected no key that the library wrote.
    let (_, rejected) = balancer.get("/api/v1/rejected");
    let rejected: Value = serde_json::from_str(&rejected).expect("the API speaks JSON");
    assert_eq!(rejected["total"], 0, "{rejected}");
}

/// Waits until the service has exactly these backends, and returns them.
#[track_caller]
fn until(balancer: &Balancer, service: &str, wanted: &[Backend<'_>]) -> Vec<Value> {
    eventually(&format!("{service} has {} backends as they should be", wanted.len()), || {
        let now = backends(balancer, service);
        matches(&now, wanted).then_some(now)
    })
}

/// Returns the service's backends in the order of their ids.
#[track_caller]
fn backends(balancer: &Balancer, service: &str) -> Vec<Value> {
    let (status, body) = balancer.get(&format!("/api/v1/services/{service}"));
    if status == 404 {
        return Vec::new();
    }
    let mut body: Value = serde_json::from_str(&body).expect("the API speaks JSON");
    serde_json::from_value(body["endpoints"].take()).expect("a list")
}

fn matches(now: &[Value], wanted: &[Backend<'_>]) -> bool {
    now.len() == wanted.len()
        && now.iter().zip(wanted).all(|(now, wanted)| {
            let id = now["id"].as_str().unwrap_or_default();
            now["address"] == wanted.address
                && wanted.id.map_or_else(|| id.parse::<u64>().is_ok(), |wanted| id == wanted)
                && now["weight"] == wanted.weight
                && wanted.meta.iter().all(|(key, value)| now["meta"][key] == *value)
        })
}

/// Builds the program unless it is built already.
fn build(name: &str) -> Result<(), String> {
    // Compilers run one after the other, to share the machine.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().map_err(|error| error.to_string())?;
    let build = home().join("tests/registrants/build");
    let output = Command::new(build).arg(name).output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(said) }
}

fn home() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

impl Running {
    #[track_caller]
    fn start(name: &str, etcd: &Etcd) -> Self {
        let program = home().join("target/registrants").join(name).join("registrant");
        let mut child = Command::new(program)
            .args([&format!("127.0.0.1:{}", etcd.port()), "hello", ADDRESS])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the registrant starts");
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let (registered_tx, registered_rx) = sync_channel(1);
        std::thread::spawn(move || {
            // Libraries log here too, and must not be blocked.
            for line in stdout.lines().map_while(Result::ok).filter(|line| line == "registered") {
                let _ = registered_tx.send(line);
            }
        });
        let running = Self(child);
        let registered = registered_rx.recv_timeout(START);
        assert!(registered.is_ok(), "{name} does not register: see its standard error");
        running
    }

    #[track_caller]
    fn say(&mut self, line: &str) {
        let stdin = self.0.stdin.as_mut().expect("it is piped");
        writeln!(stdin, "{line}").expect("the registrant listens");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
