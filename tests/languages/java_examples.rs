//! Tests of the example programs for Java, started as a user starts them.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};

use super::java::with_java;
use crate::support::client::Options;
use crate::support::language::Resolver;
use crate::support::lookaside::Balancer;
use crate::support::signal::{self, Signal};
use crate::support::world::World;
use crate::support::{WAIT_MAX, eventually};

/// The prefix at which the example registers.
const PREFIX: &str = "/etcd3_naming/";

/// The example server, which registers itself. Dropping the value kills it.
struct Server {
    child: Child,
    lines: Receiver<String>,
}

impl Server {
    fn start(registry: &str, id: &str) -> Self {
        let server = "examples/servers/java/target/greeter-server.jar";
        let mut command = example(&Resolver::System, server);
        command.args([registry, "hello", "127.0.0.1:0", id]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("java runs");
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let (line_tx, lines) = sync_channel(100);
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| line_tx.send(line))
        });
        Self { child, lines }
    }

    /// Waits for a line that begins with this text.
    #[track_caller]
    fn says(&self, beginning: &str) {
        loop {
            let line = self.lines.recv_timeout(WAIT_MAX);
            let line = line.unwrap_or_else(|_| panic!("it never says {beginning:?}"));
            if line.starts_with(beginning) {
                return;
            }
        }
    }

    fn terminate(&self) {
        signal::send(self.child.id(), Signal::TERM);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the command of an example program with this resolver.
fn example(resolver: &Resolver, jar: &str) -> Command {
    let mut command = resolver.command("java");
    command.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-jar"]);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(jar));
    command
}

#[test]
fn the_example_client_prints_who_answers() {
    with_java("the_example_client_prints_who_answers", |world| {
        let balancer = world.balancer(&[]);
        let _one = world.backend("one");
        balancer.wait_listed("hello", "one");
        let client = "examples/clients/java/target/greeter-client.jar";
        // On a busy machine its five seconds for a call may be too short for the first.
        eventually("the client prints who answers", || {
            let mut command = example(&world.resolver(), client);
            let output = command.args([&world.target(&balancer), "2"]).output();
            let printed = String::from_utf8(output.expect("java runs").stdout);
            (printed.as_deref() == Ok("Hello world from one\nHello world from one\n")).then_some(())
        });
    });
}

/// Checks that the server registers, registers again after losing its key and its
/// lease, deregisters when it is terminated, and is unlisted when it is killed.
fn holds_its_registration(
    world: &World,
    balancer: &Balancer,
    registry: &str,
    ctl: impl Fn(&[&str]) -> String,
) {
    let key = format!("{PREFIX}hello/java-1");
    let driver = world.driver();
    let client = driver.open(&Options::grpclb(world.target(balancer)));
    let server = Server::start(registry, "java-1");
    server.says("registered");
    client.shares(&["java-1"]);

    ctl(&["del", &key]);
    server.says("lost");
    server.says("registered");
    for lease in ctl(&["lease", "list"]).lines().skip(1) {
        ctl(&["lease", "revoke", lease]);
    }
    server.says("registered");
    client.shares(&["java-1"]);

    server.terminate();
    server.says("deregistered");
    assert_eq!(ctl(&["get", &key]), "");

    let mut server = Server::start(registry, "java-1");
    server.says("registered");
    client.shares(&["java-1"]);
    server.child.kill().expect("it runs");
    eventually("its lease ends", || {
        let (status, _) = balancer.get("/api/v1/services/hello");
        (status == 404).then_some(())
    });
}

#[test]
fn the_example_server_holds_its_registration_in_etcd() {
    with_java("the_example_server_holds_its_registration_in_etcd", |world| {
        let balancer = world.balancer(&["--prefix", PREFIX]);
        let etcd = world.etcd();
        holds_its_registration(&world, &balancer, &etcd.url(), |args| etcd.ctl(args));
    });
}

#[test]
fn the_example_server_holds_its_registration_in_the_embedded_registry() {
    with_java("the_example_server_holds_its_registration_in_the_embedded_registry", |world| {
        let balancer = world.with_embedded_registry();
        let registry = balancer.registry();
        holds_its_registration(&world, &balancer, &format!("http://{registry}"), |args| {
            let output = Command::new("etcdctl")
                .env("ETCDCTL_API", "3")
                .arg(format!("--endpoints={registry}"))
                .args(args)
                .output()
                .expect("etcdctl runs: Debian package etcd-client");
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "etcdctl {args:?}: {error}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        });
    });
}
