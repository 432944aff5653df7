//! Health checks of backends with C-core's own health servers: that of Python
//! (grpcio-health-checking), and that of C++.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::World;
use crate::support::backend::PREFIX;
use crate::support::language::Language;
use crate::support::{eventually, skip};

/// A backend's process. It reads its states from its standard input.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(mut command: Command) -> Self {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("the backend starts");
        let mut address = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut address).expect("it prints its address");
        Self { child, address: address.trim().to_owned() }
    }

    fn set(&mut self, state: &str) {
        let stdin = self.child.stdin.as_mut().expect("it is piped");
        writeln!(stdin, "{state}").expect("it reads");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn backends_in_python_push_their_health() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let need = Command::new(root.join("scripts/need")).arg("python-health").status();
    if !need.is_ok_and(|status| status.success()) {
        return skip("health checks: python", "grpcio-health-checking cannot be installed");
    }
    push_their_health(|| {
        let mut command = Command::new(root.join("target/python-health/bin/python"));
        command.arg(root.join("tests/clients/python-health/server.py"));
        command
    });
}

#[test]
fn backends_in_cpp_push_their_health() {
    if let Some(obstacle) = Language::named("cpp").obstacle() {
        return skip("health checks: cpp", &obstacle);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let built = Command::new(root.join("tests/clients/cpp/build")).arg("health").status();
    assert!(built.is_ok_and(|status| status.success()), "make: see above");
    push_their_health(|| Command::new(root.join("target/clients/cpp/health")));
}

fn push_their_health(command: impl Fn() -> Command) {
    // The watches show that states are pushed; the interval bounds the wait for a second
    // refused connection.
    let world = World::new("[service.'*']\nhealth = { kind = 'grpc', interval = '20s' }\n");
    let mut servers = [(); 3].map(|()| Server::start(command()));
    for (id, server) in servers.iter().enumerate() {
        world.etcd.ctl(&["put", &format!("{PREFIX}hello/{id}"), &server.address]);
    }
    world.wait("hello", "012", &[]);
    eventually("all are watched", || {
        (world.balancer.metric("lookaside_health_watches")? == 3.0).then_some(())
    });
    servers[1].set("NOT_SERVING");
    world.wait("hello", "02", &["1: it says that it is not serving"]);
    servers[1].set("SERVING");
    world.wait("hello", "012", &[]);
    // A process that ends is found by its connection, although it is registered.
    let [_, _, last] = servers;
    drop(last);
    world.wait("hello", "01", &["2: it refuses connections"]);
}
