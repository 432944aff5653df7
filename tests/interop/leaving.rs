//! Cases about backends that leave on purpose while a client calls them: no call fails.
//!
//! In: a world and a driver. Out: a panic if a call fails, or if a backend that has left is
//! called.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::backend::Backend;
use crate::support::client::{Calls, Driver, Options};
use crate::support::language::PYTHON;
use crate::support::lookaside::{Balancer, program};
use crate::support::signal::{self, Signal};
use crate::support::world::{SERVICE, World};
use crate::support::{eventually, free_port};
use crate::{Skipped, skipped};

/// The load of the client: as many calls as one after the other allows.
const LOAD: Duration = Duration::from_millis(1);

/// A backend whose calls take a while if they greet `slow`. SIGTERM ends it at once, with all
/// calls that it has.
const SERVER: &str = r#"
import sys
import time
from concurrent import futures

import grpc

GREETING = b"Hello test from command"
ANSWERS = {
    "/grpc.health.v1.Health/Check": b"\x08\x01",
    "/helloworld.Greeter/SayHello": b"\x0a" + bytes([len(GREETING)]) + GREETING,
}


class Server(grpc.GenericRpcHandler):
    def service(self, call):
        def answer(request, context):
            if b"slow" in request:
                time.sleep(0.5)
            return ANSWERS[call.method]

        return call.method in ANSWERS and grpc.unary_unary_rpc_method_handler(answer)


server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[Server()])
server.add_insecure_port(sys.argv[1])
server.start()
server.wait_for_termination()
"#;

/// `lookaside register` with the command that it runs. Both end with it.
struct Registered(Child);

impl Drop for Registered {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An operator drains a backend, and lists it again.
pub fn drained(world: &World, driver: &Driver) {
    let balancer = world.balancer(&[]);
    let (goes, stays) = (world.backend("goes"), world.backend("stays"));
    let open = || driver.open(&Options::grpclb(world.target(&balancer)));
    let (client, other) = (open(), open());
    let both = ["goes", "stays"];
    client.shares(&both);
    let address = goes.addr().to_string();
    for (command, after) in [("drain", &both[1..]), ("undrain", &both[..])] {
        client.start(&Calls::new(1).every(LOAD));
        until_called(&stays);
        order(&balancer, &[command, SERVICE, &address]);
        other.shares(after);
        let report = client.stop();
        assert_eq!(report.failed(), 0, "{command}: {report:?}");
        client.shares(after);
    }
}

/// A command that `lookaside register` runs is stopped. It takes no part in that: the signal
/// ends it at once.
pub fn stopped(world: &World, driver: &Driver) {
    if let Some(obstacle) = PYTHON.obstacle() {
        skipped(Skipped(obstacle));
    }
    let balancer = world.balancer(&[]);
    let stays = world.backend("stays");
    let mut registered = register(world, "3s");
    let client = driver.open(&Options::grpclb(world.target(&balancer)));
    client.shares(&["command", "stays"]);
    client.start(&Calls::new(1).every(LOAD).name("slow"));
    // Then the other backend mostly has a call too, because its calls take longer.
    until_called(&stays);
    signal::send(registered.0.id(), Signal::TERM);
    eventually("the command has ended", || registered.0.try_wait().expect("a child"));
    let report = client.stop();
    assert_eq!(report.failed(), 0, "{report:?}");
    assert!(report.from("stays") > 0, "{report:?}");
    client.shares(&["stays"]);
}

/// Waits until a backend has got two more calls.
fn until_called(backend: &Backend) {
    let before = backend.tokens().len();
    eventually("calls come", || (backend.tokens().len() >= before + 2).then_some(()));
}

/// Runs [`SERVER`] by `lookaside register`.
fn register(world: &World, drain_delay: &str) -> Registered {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = world.directory.path().join("server.py");
    std::fs::write(&script, SERVER).expect("a file can be written");
    let (address, etcd, prefix) =
        (format!("127.0.0.1:{}", free_port()), world.etcd().url(), world.prefix());
    let child = bare()
        .args(["register", "--etcd", &etcd, "--prefix", &prefix, "--service", SERVICE])
        .args(["--addr", &address, "--when-serving", "--drain-delay", drain_delay, "--"])
        .arg(root.join("target/python/bin/python"))
        .arg(script)
        .arg(&address)
        .stdout(Stdio::null())
        .spawn();
    Registered(child.expect("lookaside starts"))
}

/// Runs a command of an operator at a balancer.
#[track_caller]
fn order(balancer: &Balancer, args: &[&str]) {
    let admin = format!("http://{}", balancer.admin());
    let output = bare().args(args).args(["--admin", &admin]).output().expect("lookaside runs");
    assert!(output.status.success(), "{args:?}: {output:?}");
}

/// Returns the program without settings of the test run's environment.
fn bare() -> Command {
    let mut command = Command::new(program());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LOOKASIDE_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}
